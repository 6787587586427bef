//! Turns journal records into bindings, pending prompts, files and assets. Pure.
//!
//! A record names a server: its address, and its identity if that was known. If no backend is that
//! server any more, the prompts that were pending there end as lost. A backend that has taken over
//! its name or its address is not asked about them.
//!
//! # Invariants
//!
//! - Every record of a prompt becomes one entry of the ledger, pending or ended.
//! - The pending prompts of a restored client are in the order of their submission, on the backend
//!   that it is bound to, except those that were found elsewhere.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;

use super::record::{
    AssetRecord, BindingRecord, BodyRecord, EndRecord, FileKey, FileRecord, Kept, PromptRecord,
    Saved,
};
use super::renamed::{RenamedFile, renamed};
use crate::routing::assets::Asset;
use crate::routing::client::Restored as RestoredBinding;
use crate::routing::files::{Holder, Place};
use crate::routing::ids::{AssetId, BackendId, ClientId, FileRef, PromptId};
use crate::routing::ledger::Entry;
use crate::routing::owners::Submitter;
use crate::routing::pending::{End, Loss, Pending};
use crate::routing::servers::{ServerKey, Servers};

/// The most ended prompts of one client whose ends are told again: the latest ones.
const UNDELIVERED_MAX: usize = 64;

/// What restoring depends on.
#[derive(Clone, Copy, Debug)]
pub struct RestoreParams<'a> {
    /// The backends of the current fleet.
    pub backends: &'a Servers,
    pub max_clients: usize,
    pub lease: Duration,
    pub reservation: Duration,
    pub replay_window: Duration,
    pub now: Instant,
    /// The same moment, in milliseconds since 1970.
    pub unix_millis: u64,
}

/// What comes back.
#[derive(Debug, Default)]
pub struct Restored {
    pub clients: Vec<RestoredClient>,
    /// Ended prompts in the order of their ends, then the pending ones.
    pub ledger: Vec<Entry>,
    /// In their order, each with the time at which Mooring learned of it.
    pub files: Vec<(FileRef, Holder, Instant)>,
    /// Files whose server's identity became known, or is no longer known.
    pub renamed: Vec<RenamedFile>,
    /// Server names that an older Mooring gave out.
    pub names: Vec<(Arc<str>, ServerKey)>,
    /// In their order, each with the time at which Mooring learned of it.
    pub assets: Vec<(AssetId, Asset, Instant)>,
    /// Clients whose records are no longer needed.
    pub forgotten: Vec<ClientId>,
}

/// What is restored of one client.
#[derive(Debug)]
pub struct RestoredClient {
    pub id: ClientId,
    pub binding: Option<RestoredBinding>,
    pub pending: IndexMap<PromptId, Pending>,
    pub output_nodes: HashMap<PromptId, Vec<String>>,
    /// What is needed to send those that wait, or that no backend may have, in their order.
    pub kept: Vec<(PromptId, Kept)>,
    /// Pending prompts that are lost with this restart, and the names of their backends.
    pub lost: Vec<Lost>,
    /// Prompts that ended before the restart, and whose clients may not know it.
    pub undelivered: Vec<Undelivered>,
}

/// A pending prompt whose server no longer exists in the fleet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lost {
    pub prompt: PromptId,
    pub backend: Arc<str>,
    pub loss: Loss,
}

/// A prompt whose end is told again to the client's next sockets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Undelivered {
    pub prompt: PromptId,
    /// `None` if it ended while it waited in the gateway.
    pub backend: Option<BackendId>,
    pub end: End,
}

/// Builds the gateway's tables from the records. Borrows them, so that `quarantine::sift` need not
/// copy them first.
#[must_use]
pub fn restore(saved: &Saved, params: RestoreParams<'_>) -> Restored {
    let (files, assets) = (files(&saved.files, params), assets(&saved.assets, params));
    let (renamed, names) = (renamed(&saved.files, params.backends), names_of_older(saved));
    let mut restored = Restored { files, renamed, names, assets, ..Restored::default() };
    let mut prompts: Vec<&(PromptId, PromptRecord)> = saved.prompts.iter().collect();
    prompts.sort_by_key(|(_, record)| match &record.ended {
        Some(end) => (0, end.at, record.order),
        None => (1, 0, record.order),
    });
    let latest_end = prompts.iter().filter_map(|(_, it)| Some(it.ended.as_ref()?.at)).max();
    let bodies: HashMap<&PromptId, &BodyRecord> =
        saved.bodies.iter().map(|(id, body)| (id, body)).collect();
    let mut drafts: BTreeMap<ClientId, Draft<'_>> = BTreeMap::new();
    for (id, binding) in &saved.clients {
        drafts.entry(id.clone()).or_default().binding = Some(binding);
    }
    for (id, record) in prompts {
        restored.ledger.push(entry(id, record, params));
        let Ok(client) = ClientId::parse(&record.client) else { continue };
        let is_undelivered = |end: &EndRecord| is_undelivered(end, latest_end.unwrap_or(0), params);
        match &record.ended {
            Some(end) if !is_undelivered(end) => {}
            Some(_) => drafts.entry(client).or_default().undelivered.push((id, record)),
            None => drafts.entry(client).or_default().pending.push((id, record)),
        }
    }
    let (with_work, idle): (Vec<_>, Vec<_>) =
        drafts.into_iter().partition(|(_, draft)| !draft.pending.is_empty());
    for (id, draft) in with_work.into_iter().chain(idle) {
        let client = draft.finish(id, &bodies, params);
        if client.is_nothing() || params.max_clients <= restored.clients.len() {
            restored.forgotten.push(client.id);
        } else {
            restored.clients.push(client);
        }
    }
    restored
}

/// The file of a server that is gone keeps its name: no other file gets it.
fn files(
    saved: &[(FileKey, FileRecord)],
    params: RestoreParams<'_>,
) -> Vec<(FileRef, Holder, Instant)> {
    let restored = in_order(saved).into_iter().map(|(key, record)| {
        let backend = params.backends.written(&key.server).map(|(_, id)| id);
        let place = backend.map_or_else(|| Place::Gone(Arc::clone(&key.server)), Place::Backend);
        let learned = params.at(record.at);
        (key.file.clone(), record.holder(place), learned)
    });
    restored.collect()
}

fn in_order(saved: &[(FileKey, FileRecord)]) -> Vec<&(FileKey, FileRecord)> {
    let mut saved: Vec<&(FileKey, FileRecord)> = saved.iter().collect();
    saved.sort_by_key(|(_, record)| record.order);
    saved
}

/// The names that an older Mooring gave out without noting them. It named each server as it was
/// called when it was first seen with a file, if the plain name belonged to another server. It did
/// not note its backends either.
fn names_of_older(saved: &Saved) -> Vec<(Arc<str>, ServerKey)> {
    if !saved.names.is_empty() || !saved.members.is_empty() {
        return Vec::new();
    }
    let (mut owned, mut named) = (HashSet::new(), HashSet::new());
    let mut names = Vec::new();
    for (key, record) in in_order(&saved.files) {
        // The first server with a path owns the plain name, and needed no server name.
        if !owned.insert(&key.file) && named.insert(&record.backend) {
            names.push((Arc::clone(&record.backend), ServerKey::of_text(&key.server)));
        }
    }
    names
}

/// The asset of a server that is gone is given to no other server.
fn assets(
    saved: &[(AssetId, AssetRecord)],
    params: RestoreParams<'_>,
) -> Vec<(AssetId, Asset, Instant)> {
    let mut saved: Vec<&(AssetId, AssetRecord)> = saved.iter().collect();
    saved.sort_by_key(|(_, record)| record.order);
    let restored = saved.into_iter().map(|(id, record)| {
        let server = record.server();
        let backend = params.backends.id_of(&server);
        let place = backend.map_or_else(|| Place::Gone(server.to_text()), Place::Backend);
        let learned = params.at(record.at);
        (*id, record.asset(place), learned)
    });
    restored.collect()
}

/// The records of one client.
#[derive(Debug, Default)]
struct Draft<'a> {
    binding: Option<&'a BindingRecord>,
    pending: Vec<(&'a PromptId, &'a PromptRecord)>,
    undelivered: Vec<(&'a PromptId, &'a PromptRecord)>,
}

impl Draft<'_> {
    fn finish(
        self,
        id: ClientId,
        bodies: &HashMap<&PromptId, &BodyRecord>,
        params: RestoreParams<'_>,
    ) -> RestoredClient {
        let bound = self.bound_to(params);
        let mut client = RestoredClient {
            id,
            binding: bound.map(|backend| self.restored_binding(backend, params)),
            pending: IndexMap::new(),
            output_nodes: HashMap::new(),
            kept: Vec::new(),
            lost: Vec::new(),
            undelivered: Vec::new(),
        };
        for (prompt, record) in self.pending {
            let (kept, made) = (bodies.get(prompt), params.at(record.made));
            let backend = params.backends.id_of(&record.server());
            let pending = match (backend, kept) {
                (Some(backend), _) => Some(Pending::restored(backend, made, params.now)),
                (None, Some(_)) if record.is_waiting() => Some(Pending::waiting(made, params.now)),
                (None, Some(_) | None) => None,
            };
            let Some(pending) = pending else {
                let (backend, loss) = match record.is_waiting() {
                    // Its body is forgotten when its end is noted: it was being withdrawn.
                    true => (Arc::from("Mooring"), Loss::GatewayRestarted),
                    false => (Arc::clone(&record.backend), Loss::BackendRemoved),
                };
                client.lost.push(Lost { prompt: prompt.clone(), backend, loss });
                continue;
            };
            let pending = match kept {
                Some(_) if record.is_taken() => pending.taken().went_for(record.errand()),
                Some(_) => pending.kept().went_for(record.errand()),
                None => pending,
            };
            client.kept.extend(kept.map(|body| (prompt.clone(), body.kept())));
            client.pending.insert(prompt.clone(), pending);
            client.output_nodes.insert(prompt.clone(), record.output_nodes.clone());
        }
        client.output_nodes.retain(|_, nodes| !nodes.is_empty());
        let too_many = self.undelivered.len().saturating_sub(UNDELIVERED_MAX);
        let undelivered =
            self.undelivered.into_iter().skip(too_many).filter_map(|(prompt, record)| {
                let backend = params.backends.id_of(&record.server());
                if backend.is_none() && !record.has_waited_only() {
                    return None;
                }
                let (prompt, end) = (prompt.clone(), record.ended.as_ref()?.end());
                Some(Undelivered { prompt, backend, end })
            });
        client.undelivered.extend(undelivered);
        client
    }

    /// Where a client is bound: where its work is pending, else what the record of its binding
    /// says.
    fn bound_to(&self, params: RestoreParams<'_>) -> Option<BackendId> {
        let pending = self.pending.iter().map(|(_, record)| record.server());
        let recorded = self.binding.iter().map(|record| record.server());
        pending.chain(recorded).find_map(|server| params.backends.id_of(&server))
    }

    fn restored_binding(&self, backend: BackendId, params: RestoreParams<'_>) -> RestoredBinding {
        let is_there = |it: &&BindingRecord| params.backends.id_of(&it.server()) == Some(backend);
        let record = self.binding.filter(is_there);
        let since = record.map_or(params.now, |record| params.at(record.since));
        let reserved_until = record.and_then(|record| record.reserved_until).map(|until| {
            // A clock that was set back must not make a reservation longer than the maximum.
            let left = Duration::from_millis(until.saturating_sub(params.unix_millis));
            params.now + left.min(params.reservation)
        });
        RestoredBinding { backend, since, reserved_until }
    }
}

impl RestoredClient {
    fn is_nothing(&self) -> bool {
        self.binding.is_none()
            && self.pending.is_empty()
            && self.lost.is_empty()
            && self.undelivered.is_empty()
    }
}

impl RestoreParams<'_> {
    /// The moment of a time in the past; now, if the time is in the future.
    fn at(self, unix_millis: u64) -> Instant {
        let age = Duration::from_millis(self.unix_millis.saturating_sub(unix_millis));
        self.now.checked_sub(age).unwrap_or(self.now)
    }
}

/// True if a browser that comes back may not know of this end: no socket was open, or the process
/// may have died before the end was sent. The time of its death is not known, but the last recorded
/// end cannot be much older.
fn is_undelivered(end: &EndRecord, latest_end: u64, params: RestoreParams<'_>) -> bool {
    let age = Duration::from_millis(params.unix_millis.saturating_sub(end.at));
    let before_last = Duration::from_millis(latest_end.saturating_sub(end.at));
    age < params.lease && (!end.told || before_last <= params.replay_window)
}

fn entry(prompt: &PromptId, record: &PromptRecord, params: RestoreParams<'_>) -> Entry {
    Entry {
        prompt: prompt.clone(),
        by: Submitter { client: ClientId::parse(&record.client).ok(), person: record.person() },
        backend: params.backends.id_of(&record.server()),
        made: params.at(record.made),
        order: record.order,
        end: record.ended.as_ref().map(|ended| (ended.end(), params.at(ended.at))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{MemberRecord, NameRecord, Sent, Told};
    use super::*;
    use crate::routing::given_names::Given;
    use crate::routing::ids::Folder;
    use crate::routing::owners::Person;

    const NOW: u64 = 1_000_000_000;

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    fn ada() -> ClientId {
        ClientId::parse("ada").unwrap()
    }

    fn prompt(name: &str, url: &str, order: u64) -> (PromptId, PromptRecord) {
        let sent = Sent { backend: "a".into(), url: url.into(), made: NOW - 5_000, order };
        (id(name), PromptRecord::new(&ada(), sent, Vec::new()))
    }

    fn ended(name: &str, ago: u64, told: Told) -> (PromptId, PromptRecord) {
        let (id, record) = prompt(name, "h:1", 1);
        (id, record.ended(End::Succeeded, NOW - ago, told))
    }

    fn bound(url: &str, reserved_until: Option<u64>) -> (ClientId, BindingRecord) {
        (ada(), BindingRecord::new("a", url, NOW - 9_000, reserved_until))
    }

    fn restored(saved: &Saved) -> Restored {
        restored_with(saved, ["h:1", "h:2"])
    }

    /// Restores `saved` with these backends.
    fn restored_with(saved: &Saved, servers: [&str; 2]) -> Restored {
        let servers = (0..).zip(servers);
        let backends: Servers =
            servers.map(|(id, it)| (ServerKey::of_text(it), BackendId::nth(id))).collect();
        let params = RestoreParams {
            backends: &backends,
            max_clients: 10,
            lease: Duration::from_secs(600),
            reservation: Duration::from_secs(600),
            replay_window: Duration::from_secs(60),
            now: crate::net::now(),
            unix_millis: NOW,
        };
        restore(saved, params)
    }

    fn names<'a>(ids: impl IntoIterator<Item = &'a PromptId>) -> Vec<&'a str> {
        ids.into_iter().map(PromptId::as_str).collect()
    }

    #[test]
    fn a_client_comes_back_where_it_was_with_its_prompts_in_their_order() {
        let prompts = vec![prompt("q", "h:2", 8), prompt("p", "h:2", 3)];
        let restored =
            restored(&Saved { clients: vec![bound("h:2", None)], prompts, ..Saved::default() });
        let client = &restored.clients[0];
        assert_eq!(client.binding.unwrap().backend, BackendId::nth(1));
        assert_eq!(names(client.pending.keys()), ["p", "q"]);
        assert!(client.pending.values().all(|pending| pending.must_ask));
        assert!(restored.ledger.iter().all(|entry| entry.end.is_none()));
    }

    #[test]
    fn what_was_pending_on_a_backend_that_is_gone_is_lost_and_no_stranger_is_asked() {
        let prompts = vec![prompt("p", "gone:1", 1)];
        let restored =
            restored(&Saved { clients: vec![bound("gone:1", None)], prompts, ..Saved::default() });
        let client = &restored.clients[0];
        assert!(client.binding.is_none() && client.pending.is_empty());
        let lost = Lost { prompt: id("p"), backend: "a".into(), loss: Loss::BackendRemoved };
        assert_eq!(client.lost, [lost]);
        assert_eq!(restored.ledger[0].backend, None);
    }

    #[test]
    fn the_person_behind_a_prompt_comes_back_with_it_and_so_does_the_time_of_its_end() {
        let (id, record) = ended("p", 5_000, Told::Yes);
        let person = Person::Browser(7);
        let prompts = vec![(id, record.of(Some(&person)))];
        let entry = &restored(&Saved { prompts, ..Saved::default() }).ledger[0];
        assert_eq!(entry.by, Submitter { client: Some(ada()), person: Some(person) });
        let ago = crate::net::now().saturating_duration_since(entry.end.unwrap().1);
        assert!(Duration::from_secs(5) <= ago && ago < Duration::from_secs(60));
    }

    /// T78.
    #[test]
    fn a_reservation_keeps_what_is_left_of_it_whatever_the_clock_does() {
        let left = |until: u64| {
            let saved = Saved { clients: vec![bound("h:1", Some(until))], ..Saved::default() };
            let restored = restored(&saved);
            let until = restored.clients[0].binding.unwrap().reserved_until.unwrap();
            until.saturating_duration_since(crate::net::now()).as_secs_f32().round()
        };
        assert!((left(NOW + 60_000) - 60.0).abs() < 2.0);
        assert!((left(NOW - 1) - 0.0).abs() < 2.0);
        assert!((left(NOW * 2) - 600.0).abs() < 2.0, "the clock was set back");
    }

    #[test]
    fn an_end_is_told_again_if_nobody_was_there_or_if_it_was_among_the_last() {
        let prompts = vec![
            ended("unheard", 500_000, Told::No),
            ended("heard", 300_000, Told::Yes),
            ended("just", 130_000, Told::Yes),
            ended("last", 100_000, Told::Yes),
            ended("long ago", 700_000, Told::No),
        ];
        let restored = restored(&Saved { prompts, ..Saved::default() });
        let undelivered =
            restored.clients[0].undelivered.iter().map(|undelivered| &undelivered.prompt);
        assert_eq!(names(undelivered), ["unheard", "just", "last"]);
        let ledger = restored.ledger.iter().map(|entry| &entry.prompt);
        assert_eq!(names(ledger), ["long ago", "unheard", "heard", "just", "last"]);
    }

    #[test]
    fn files_come_back_in_their_order_and_those_of_a_server_that_is_gone_keep_their_names() {
        let holder = |order| Holder::new(Place::Backend(BackendId::nth(0)), order);
        let file = FileRef::of_path(Folder::Output, "x.png").unwrap();
        let record = |url: &str, order| {
            let key = FileKey { file: file.clone(), server: url.into() };
            (key, FileRecord::new("n".into(), &holder(order), NOW - 1_000))
        };
        let files = vec![record("h:1", 9), record("gone:1", 3), record("h:2", 12)];
        let restored = restored(&Saved { files, ..Saved::default() });
        let places: Vec<Place> = restored.files.into_iter().map(|(_, it, _)| it.place).collect();
        let gone = Place::Gone("gone:1".into());
        let (a, b) = (Place::Backend(BackendId::nth(0)), Place::Backend(BackendId::nth(1)));
        assert_eq!(places, [gone, a, b]);
    }

    /// A pod is gone, and another one has its address.
    #[test]
    fn nothing_of_a_server_is_taken_for_what_another_at_its_address_has() {
        let (id, record) = prompt("p", "h:1", 1);
        let prompts = vec![(id, record.to(Some("u0".into())))];
        let binding = bound("h:1", None).1.to(Some("u0".into()));
        let clients = vec![(ada(), binding)];
        let saved = Saved { clients, prompts, files: vec![file("h:1#u0", 1)], ..Saved::default() };
        let same = restored_with(&saved, ["h:1#u0", "h:2"]);
        let here = Place::Backend(BackendId::nth(0));
        assert_eq!((same.clients[0].lost.len(), &same.files[0].1.place), (0, &here));
        let other = restored_with(&saved, ["h:1#u9", "h:2"]);
        assert!(other.clients[0].binding.is_none() && other.clients[0].pending.is_empty());
        assert_eq!((other.clients[0].lost.len(), other.ledger[0].backend), (1, None));
        assert_eq!(other.files[0].1.place, Place::Gone("h:1#u0".into()));
        assert!(other.renamed.is_empty());
    }

    /// Of the output `x.png`.
    fn file(server: &str, order: u64) -> (FileKey, FileRecord) {
        let file = FileRef::of_path(Folder::Output, "x.png").unwrap();
        let key = FileKey { file, server: server.into() };
        let holder = Holder::new(Place::Backend(BackendId::nth(0)), order);
        (key, FileRecord::new(format!("name of {server}").into(), &holder, NOW - 1_000))
    }

    #[test]
    fn names_that_an_older_one_gave_out_are_those_of_files_whose_plain_name_was_anothers() {
        let files = vec![file("h:2", 5), file("h:1", 1), file("h:3", 9)];
        let mut saved = Saved { files, ..Saved::default() };
        let named = |saved: &Saved| -> Vec<String> {
            restored(saved).names.iter().map(|(name, it)| format!("{name}: {}", it.url)).collect()
        };
        assert_eq!(named(&saved), ["name of h:2: h:2", "name of h:3: h:3"]);
        let given = Given { server: ServerKey::of_text("h:2"), order: 0 };
        saved.names.push(("b".into(), NameRecord::new(given)));
        assert!(named(&saved).is_empty(), "it notes them");
        saved.names.clear();
        let member = MemberRecord::new("b".into(), serde_json::Value::Null, "operator".into());
        saved.members.push(("h:2".into(), member));
        assert!(named(&saved).is_empty(), "none was given out yet");
    }

    #[test]
    fn more_clients_than_there_may_be_are_forgotten_idle_ones_first() {
        let idle = (0..20).map(|number| {
            let id = ClientId::parse(&format!("idle{number:02}")).unwrap();
            (id, bound("h:1", None).1)
        });
        let clients = idle.chain([bound("h:1", None)]).collect();
        let restored =
            restored(&Saved { clients, prompts: vec![prompt("p", "h:1", 1)], ..Saved::default() });
        assert_eq!((restored.clients.len(), restored.forgotten.len()), (10, 11));
        assert_eq!(restored.clients[0].id, ada());
    }
}
