//! What a dashboard shows, as one JSON value: the reports of the API, what ended lately, and what
//! waits and runs at each backend.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::admin::gate::May;
use crate::fleet::backend::Backend;
use crate::masked::mask;
use crate::metrics::Minute;
use crate::report::{self, PendingReport};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::ledger::Listed;
use crate::routing::pending::{Pending, Phase};
use crate::routing::placement::Condition;
use crate::session::control::Held;
use crate::session::doing::Doing;
use crate::session::{Client, Sessions};

/// A page lists so many clients with pending prompts, those with most first.
const CLIENTS_SHOWN: usize = 100;

/// And of each client so many prompts.
const PROMPTS_SHOWN: usize = 20;

/// So many prompts that ended, the newest.
const ENDS_SHOWN: usize = 300;

/// How far back they go.
const ENDS_SINCE: Duration = Duration::from_secs(3_600);

/// Of each backend so many prompts that run: a server of today runs one at a time.
const DOING_SHOWN: usize = 4;

/// Prompts that are at a backend, or on their way.
#[derive(Clone, Debug, Default)]
struct Work {
    waiting: usize,
    running: usize,
    /// Since when the oldest of those that wait does.
    waits_since: Option<Instant>,
    doing: Vec<Value>,
}

pub(super) fn of(sessions: &Sessions, may: May, now: Instant) -> Value {
    let working = sessions.clients.working();
    let known = working.len();
    let held = Held::among(sessions, &working);
    let backends = backends(sessions, &held, work_of(&working, may, now), now);
    let ended = ended(sessions, may, now);
    json!({
        "may": may.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
        "ready": sessions.shared.is_ready(),
        "stopping": sessions.shared.is_leaving(),
        "backends": backends,
        "clients": {
            "known": sessions.clients.len(),
            "working": known,
            "shown": clients(sessions, &working, may, now),
        },
        "minutes": minutes(sessions, now),
        // There may be older ones within the hour.
        "ended_is_cut": ended.len() == ENDS_SHOWN,
        "ended": ended,
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
            let is_older = || name == "trouble" && is_same_trouble(before, after);
            name == named && (name.ends_with("_ms") || is_same(before, after) || is_older())
        })
}

/// True for a trouble that has only lasted longer.
fn is_same_trouble(before: &Value, after: &Value) -> bool {
    let letters = |it: &Value| it.as_str().map(|it| it.replace(|it: char| it.is_ascii_digit(), ""));
    letters(before) == letters(after)
}

fn work_of(clients: &[Arc<Client>], may: May, now: Instant) -> HashMap<BackendId, Work> {
    let mut work: HashMap<BackendId, Work> = HashMap::new();
    for client in clients {
        for doing in client.doing() {
            let there = work.entry(doing.backend).or_default();
            if there.doing.len() < DOING_SHOWN {
                there.doing.push(shown_doing(client, &doing, may, now));
            }
        }
        client.inspect(|core, _| {
            for pending in core.pending().values() {
                let Some(backend) = pending.backend() else { continue };
                let there = work.entry(backend).or_default();
                match pending.phase {
                    Phase::Running | Phase::Ending(_) => there.running += 1,
                    Phase::Waiting | Phase::Sending | Phase::Restored | Phase::Queued => {
                        there.waiting += 1;
                        let since = there.waits_since.unwrap_or(pending.since);
                        there.waits_since = Some(since.min(pending.since));
                    }
                }
            }
        });
    }
    work
}

fn shown_doing(client: &Client, doing: &Doing, may: May, now: Instant) -> Value {
    let steps = doing.steps.as_ref();
    json!({
        "prompt_id": may.prompt(&doing.prompt),
        "client": mask(&client.id).to_string(),
        "node": doing.node,
        "value": steps.map(|it| it.value),
        "max": steps.map(|it| it.max),
        "runs_ms": doing.started.map(|at| age(at, now)),
    })
}

fn backends(
    sessions: &Sessions,
    held: &Held<'_>,
    mut work: HashMap<BackendId, Work>,
    now: Instant,
) -> Vec<Value> {
    let one = |backend: Arc<Backend>| {
        let mut shown = json!(report::backend(sessions, &backend, held, now));
        let there = work.remove(&backend.id).unwrap_or_default();
        if let Some(shown) = shown.as_object_mut() {
            shown.insert("running".to_owned(), json!(there.running));
            shown.insert("waiting".to_owned(), json!(there.waiting));
            let waits = there.waits_since.map(|since| age(since, now));
            shown.insert("oldest_waiting_ms".to_owned(), json!(waits));
            shown.insert("doing".to_owned(), there.doing.into());
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

fn clients(sessions: &Sessions, working: &[Arc<Client>], may: May, now: Instant) -> Vec<Value> {
    let count = |client: &Arc<Client>| client.inspect(|core, _| core.pending().len());
    let mut most: Vec<(usize, &Arc<Client>)> = working.iter().map(|it| (count(it), it)).collect();
    most.sort_by_key(|(pending, client)| (Reverse(*pending), &client.id));
    let one = |(_, client): &(usize, &Arc<Client>)| {
        let summary = may.see(report::summary(&sessions.shared, client, now));
        json!({ "client": summary, "prompts": oldest(sessions, client, may, now) })
    };
    most.iter().take(CLIENTS_SHOWN).map(one).collect()
}

/// The oldest prompts of a client, always in the same order. Its events wait for this, so no more
/// is done for each of all its prompts than to compare it.
fn oldest(sessions: &Sessions, client: &Client, may: May, now: Instant) -> Vec<PendingReport> {
    let age = |it: &(&PromptId, &Pending)| (it.1.since, it.0.clone());
    client.inspect(|core, _| {
        let mut pending: Vec<(&PromptId, &Pending)> = core.pending().iter().collect();
        if PROMPTS_SHOWN < pending.len() {
            pending.select_nth_unstable_by_key(PROMPTS_SHOWN, |it| it.1.since);
            pending.truncate(PROMPTS_SHOWN);
        }
        pending.sort_by_cached_key(age);
        let report = |(prompt, pending)| {
            may.see_prompt(report::pending(&sessions.shared, prompt, pending, now))
        };
        pending.into_iter().map(report).collect()
    })
}

/// The last hour, the oldest minute first: how many completed, how many did not, and for how long
/// they waited and ran on the average.
fn minutes(sessions: &Sessions, now: Instant) -> Vec<Value> {
    let millis = |time: Option<Duration>| time.map(|it| u64::try_from(it.as_millis()).ok());
    let one = |it: Minute| json!([it.completed, it.others, millis(it.waited), millis(it.ran)]);
    sessions.shared.metrics.last_hour(now).into_iter().map(one).collect()
}

fn age(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.duration_since(since).as_millis()).unwrap_or(u64::MAX)
}

/// The prompts that ended, the newest last.
fn ended(sessions: &Sessions, may: May, now: Instant) -> Vec<Value> {
    let age = |at| age(at, now);
    let one = |it: &Listed| {
        json!({
            "prompt_id": may.prompt(&it.prompt),
            "client": it.by.client.as_ref().map(|client| may.name(client)),
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
        let silent = |text: &str| json!({ "trouble": text });
        assert!(is_same(&silent("silent for 59 s"), &silent("silent for 101 s")));
        assert!(!is_same(&silent("silent for 59 s"), &silent("refused")));
        assert!(!is_same(&silent("refused"), &json!({ "trouble": null })));
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
