//! What a dashboard shows, as one JSON value: the reports of the API, what ended lately, and what
//! waits and runs at each backend.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::fleet::backend::Backend;
use crate::report;
use crate::routing::ids::{BackendId, ClientId};
use crate::routing::ledger::Listed;
use crate::routing::pending::Phase;
use crate::routing::placement::Condition;
use crate::session::control::Held;
use crate::session::{Client, Sessions};

/// A page lists so many clients with pending prompts, those with most first.
const CLIENTS_SHOWN: usize = 100;

/// And of each client so many prompts.
const PROMPTS_SHOWN: usize = 20;

/// So many prompts that ended, the newest.
const ENDS_SHOWN: usize = 300;

/// How far back they go.
const ENDS_SINCE: Duration = Duration::from_secs(3_600);

/// Prompts that are at a backend, or on their way.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    waiting: usize,
    running: usize,
}

pub(super) fn of(sessions: &Sessions, now: Instant) -> Value {
    let mut working = sessions.clients.working();
    working.sort_by_cached_key(|client| {
        (Reverse(client.inspect(|core, _| core.pending().len())), client.id.clone())
    });
    let work = work_of(&working);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": sessions.shared.is_ready(),
        "stopping": sessions.shared.is_leaving(),
        "backends": backends(sessions, &work, now),
        "clients": {
            "known": sessions.clients.len(),
            "working": working.len(),
            "shown": clients(sessions, &working, now),
        },
        "ended": ended(sessions, now),
    })
}

/// True if nothing has changed but ages, all of whose names end so.
pub(super) fn is_same(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => is_same_object(before, after),
        (Value::Array(before), Value::Array(after)) => {
            let mut both = before.iter().zip(after);
            before.len() == after.len() && both.all(|(before, after)| is_same(before, after))
        }
        (before, after) => before == after,
    }
}

fn is_same_object(before: &Map<String, Value>, after: &Map<String, Value>) -> bool {
    let mut both = before.iter().zip(after);
    before.len() == after.len()
        && both.all(|((name, before), (named, after))| {
            name == named && (name.ends_with("_ms") || is_same(before, after))
        })
}

fn work_of(clients: &[Arc<Client>]) -> HashMap<BackendId, Work> {
    let mut work: HashMap<BackendId, Work> = HashMap::new();
    for client in clients {
        client.inspect(|core, _| {
            for pending in core.pending().values() {
                let there = work.entry(pending.backend).or_default();
                match pending.phase {
                    Phase::Running | Phase::Ending(_) => there.running += 1,
                    Phase::Sending | Phase::Restored | Phase::Queued => there.waiting += 1,
                }
            }
        });
    }
    work
}

fn backends(sessions: &Sessions, work: &HashMap<BackendId, Work>, now: Instant) -> Vec<Value> {
    let held = Held::of(sessions);
    let one = |backend: Arc<Backend>| {
        let mut shown = json!(report::backend(sessions, &backend, &held, now));
        let there = work.get(&backend.id).copied().unwrap_or_default();
        if let Some(shown) = shown.as_object_mut() {
            shown.insert("running".to_owned(), json!(there.running));
            shown.insert("waiting".to_owned(), json!(there.waiting));
            shown.insert("condition".to_owned(), json!(word(backend.worker.condition())));
        }
        shown
    };
    sessions.shared.fleet.iter().map(one).collect()
}

fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Well => "well",
        Condition::Suspect => "suspect",
        Condition::Wedged => "wedged",
        Condition::Shut => "shut",
    }
}

fn clients(sessions: &Sessions, working: &[Arc<Client>], now: Instant) -> Vec<Value> {
    let one = |client: &Arc<Client>| {
        let mut report = report::client(&sessions.shared, client, now);
        report.prompts.sort_by_key(|prompt| Reverse(prompt.age_ms));
        report.prompts.truncate(PROMPTS_SHOWN);
        json!({ "client": report.summary, "prompts": report.prompts })
    };
    working.iter().take(CLIENTS_SHOWN).map(one).collect()
}

/// The prompts that ended, the newest last.
fn ended(sessions: &Sessions, now: Instant) -> Vec<Value> {
    let age = |at: Instant| u64::try_from(now.duration_since(at).as_millis()).unwrap_or(u64::MAX);
    let one = |it: &Listed| {
        json!({
            "prompt_id": it.prompt.to_string(),
            "client": it.by.client.as_ref().map(ClientId::name),
            "backend": it.backend.map(|id| sessions.shared.fleet.get(id).name().to_string()),
            "end": it.end.reason(),
            "outcome": it.end.as_str(),
            "made_ms": age(it.made),
            "ended_ms": age(it.ended),
        })
    };
    let all = sessions.shared.records.newest_ends(ENDS_SHOWN);
    let is_new = |it: &&Listed| now.duration_since(it.ended) < ENDS_SINCE;
    all.iter().filter(is_new).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ages_may_differ() {
        let before = json!({ "a": [{ "age_ms": 1, "up": true }], "b": null });
        assert!(is_same(&before, &json!({ "a": [{ "age_ms": 2, "up": true }], "b": null })));
        for after in [
            json!({ "a": [{ "age_ms": 1, "up": false }], "b": null }),
            json!({ "a": [], "b": null }),
            json!({ "a": [{ "age_ms": 1, "up": true }], "b": 1 }),
            json!({ "a": [{ "age_ms": 1 }], "b": null }),
            json!({ "a": [{ "age_ms": 1, "up": true }] }),
        ] {
            assert!(!is_same(&before, &after), "{after}");
        }
    }
}
