//! Decides which servers are still waited for after a restart, though they have left the fleet.
//! Pure.
//!
//! A backend that was to leave once drained, or that was removed from the configuration, may have
//! prompts pending. It goes on draining. A server without work is not brought back.

use std::collections::HashSet;
use std::sync::Arc;

use super::record::{MemberRecord, PromptRecord, Saved};
use crate::routing::servers::{ServerKey, Servers};

/// A server that is waited for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leftover {
    pub server: ServerKey,
    /// Its name.
    pub name: Arc<str>,
    /// What is known of it as a backend; `None` if an older Mooring did not write it down.
    pub record: Option<MemberRecord>,
}

/// The servers that are not in `fleet`, and where a prompt is pending or an upload waits for its
/// prompt; those with the oldest prompts first. If another server has the address now, the earlier
/// server is gone.
#[must_use]
pub fn leftovers(saved: &Saved, fleet: &Servers, unix_millis: u64) -> Vec<Leftover> {
    let mut seen = HashSet::new();
    let mut leftovers = Vec::new();
    for (server, name) in awaited(saved, unix_millis) {
        if fleet.has_one_at(&server.url) || !seen.insert(Arc::clone(&server.url)) {
            continue;
        }
        let of_server = |(url, it): &&(Arc<str>, MemberRecord)| it.server(url).may_be(&server);
        let record = saved.members.iter().find(of_server).map(|(_, record)| record.clone());
        let name = record.as_ref().map_or(name, |record| Arc::clone(&record.name));
        leftovers.push(Leftover { server, name, record });
    }
    leftovers
}

/// Where something is waited for, with the server's name at that time.
fn awaited(saved: &Saved, unix_millis: u64) -> Vec<(ServerKey, Arc<str>)> {
    let pending = saved.prompts.iter().map(|(_, record)| record);
    let is_awaited = |it: &&PromptRecord| it.ended.is_none() && !it.is_waiting();
    let mut pending: Vec<_> = pending.filter(is_awaited).collect();
    pending.sort_by_key(|record| record.order);
    let pending = pending.into_iter().map(|it| (it.server(), Arc::clone(&it.backend)));
    let bindings = saved.clients.iter().map(|(_, record)| record);
    let reserved = bindings.filter(|it| it.reserved_until.is_some_and(|until| unix_millis < until));
    let reserved = reserved.map(|it| (it.server(), Arc::clone(&it.backend)));
    pending.chain(reserved).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::record::{BindingRecord, Sent, Told};
    use super::*;
    use crate::routing::ids::{BackendId, ClientId, PromptId};
    use crate::routing::pending::End;

    const NOW: u64 = 1_000_000;

    fn prompt(server: &str, order: u64) -> (PromptId, PromptRecord) {
        let ServerKey { url, identity } = ServerKey::of_text(server);
        let sent = Sent { backend: "old".into(), url, made: 1, order };
        let client = ClientId::parse("ada").unwrap();
        let record = PromptRecord::new(&client, sent, Vec::new()).to(identity);
        (PromptId::parse(&format!("p{order}")).unwrap(), record)
    }

    fn member(server: &str) -> (Arc<str>, MemberRecord) {
        let ServerKey { url, identity } = ServerKey::of_text(server);
        let record = MemberRecord::new("gpu~old".into(), json!({}), "operator".into());
        (url, record.of(identity))
    }

    fn left(saved: &Saved, fleet: &[&str]) -> Vec<String> {
        let fleet = fleet.iter().map(|it| (ServerKey::of_text(it), BackendId::nth(0))).collect();
        let shown = |it: Leftover| format!("{}={}", it.name, it.server.to_text());
        leftovers(saved, &fleet, NOW).into_iter().map(shown).collect()
    }

    #[test]
    fn a_server_with_pending_work_is_left_over_unless_it_is_wanted() {
        let (id, done) = prompt("h:3", 0);
        let done = (id, done.ended(End::Succeeded, 2, Told::Yes));
        let prompts = vec![prompt("h:2", 9), prompt("h:1", 5), prompt("h:1", 6), done];
        let saved = Saved { prompts, members: vec![member("h:2")], ..Saved::default() };
        assert_eq!(left(&saved, &["h:9"]), ["old=h:1", "gpu~old=h:2"]);
        assert_eq!(left(&saved, &["h:1", "h:9"]), ["gpu~old=h:2"]);
    }

    #[test]
    fn one_whose_address_another_has_is_gone() {
        let members = vec![member("h:1#u9")];
        let saved = Saved { prompts: vec![prompt("h:1#u0", 1)], members, ..Saved::default() };
        assert!(left(&saved, &["h:1#u9"]).is_empty());
        let alone = leftovers(&saved, &Servers::default(), NOW);
        assert_eq!((alone.len(), &alone[0].record), (1, &None), "that record is another's");
    }

    #[test]
    fn an_upload_that_waits_for_its_prompt_is_waited_for() {
        let bound = |until| {
            let record = BindingRecord::new("gpu", "h:1", 1, until);
            vec![(ClientId::parse("ada").unwrap(), record)]
        };
        for (until, expected) in [(None, 0), (Some(NOW - 1), 0), (Some(NOW + 1), 1)] {
            let saved = Saved { clients: bound(until), ..Saved::default() };
            assert_eq!(left(&saved, &[]).len(), expected, "{until:?}");
        }
    }
}
