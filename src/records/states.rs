//! States that operators set for backends, kept over a restart (promise V5).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tracing::info;

use super::Records;
use crate::config::Config;
use crate::fleet::backend::Backend;
use crate::journal::record::StateRecord;
use crate::net::unix_millis;
use crate::routing::placement::AdminState;
use crate::routing::state_change::StateChange;

/// The state that an operator set for the server at an address.
#[derive(Clone, Debug)]
pub(super) struct Said {
    change: StateChange,
    /// For which server it was set, if that is known: another server may get this address later.
    identity: Option<Arc<str>>,
}

impl Said {
    fn is_of(&self, backend: &Backend) -> bool {
        self.identity.as_ref().zip(backend.identity()).is_none_or(|(said, it)| **said == *it)
    }
}

/// How many states are kept: for as many servers as there can be, and for some that have left and
/// may come again.
const SAID_MAX: usize = Config::MEMBERS_MAX + Config::BACKENDS_MAX;

/// The states that are too many: the oldest ones of servers that are not in the fleet.
fn surplus(
    said: &HashMap<Arc<str>, Said>,
    is_there: impl Fn(&str) -> bool,
    max: usize,
) -> Vec<Arc<str>> {
    let too_many = said.len().saturating_sub(max);
    if too_many == 0 {
        return Vec::new();
    }
    let strangers = said.iter().filter(|(url, _)| !is_there(url));
    let mut strangers: Vec<(u64, &Arc<str>)> =
        strangers.map(|(url, said)| (said.change.at, url)).collect();
    strangers.sort_unstable();
    strangers.into_iter().take(too_many).map(|(_, url)| Arc::clone(url)).collect()
}

impl Records {
    /// An operator set a backend's state. It applies at once, and is noted.
    pub fn state_said(&self, backend: &Backend, change: StateChange) {
        // Applied before it is noted, so that no restart finds a state that never applied.
        backend.heed(change, |change| {
            let identity = backend.identity();
            let said = Said { change: change.clone(), identity: identity.clone() };
            self.keep_said(Arc::clone(&backend.authority), said);
            let record = StateRecord::new(backend.name(), change).of(identity);
            self.journal.note_state(Arc::clone(&backend.authority), Some(record));
        });
        // It may have left meanwhile, and nobody ends then what was noted after that.
        if backend.has_left() {
            self.process_left(backend);
        }
    }

    fn keep_said(&self, url: Arc<str>, said: Said) {
        let mut all = self.said.lock();
        all.insert(url, said);
        if all.len() <= SAID_MAX {
            return;
        }
        let there: BTreeSet<Arc<str>> =
            self.fleet.iter().map(|it| Arc::clone(&it.authority)).collect();
        let dropped = surplus(&all, |url| there.contains(url), SAID_MAX);
        for url in &dropped {
            all.remove(url);
        }
        drop(all);
        for url in dropped {
            self.journal.note_state(url, None);
        }
    }

    /// Ends a state that was set for one process of the backend, if there is another one by now.
    pub fn end_what_is_over(&self, backend: &Backend) {
        let is_over = backend.unsay_what_is_over(unix_millis(), || {
            self.said.lock().remove(&backend.authority);
            self.journal.note_state(Arc::clone(&backend.authority), None);
        });
        if is_over {
            info!(backend = %backend.name(), "A drain ends with the process that it was for.");
        }
    }

    /// A backend has left the fleet: a state that was set for its process is of no use any more.
    pub fn process_left(&self, backend: &Backend) {
        let mut said = self.said.lock();
        let is_over = |it: &Said| it.change.is_of_one_process() && it.is_of(backend);
        if said.get(&backend.authority).is_some_and(is_over) {
            said.remove(&backend.authority);
            drop(said);
            self.journal.note_state(Arc::clone(&backend.authority), None);
        }
    }

    /// Restores the states from before a restart. A state of a server that is not configured stays
    /// in the journal, in case the server is configured again. The oldest of these are dropped
    /// first.
    pub fn restore_states(&self, states: Vec<(Arc<str>, StateRecord)>) {
        let (mut strangers, now) = (Vec::new(), unix_millis());
        for (url, record) in states {
            let change = record.clone().change();
            // Whoever is not there any more is another process when he comes again.
            let is_there = self.fleet.iter().any(|it| it.authority == url);
            if change.is_past(now) || (change.is_of_one_process() && !is_there) {
                self.journal.note_state(url, None);
                continue;
            }
            let said = Said { change: record.clone().change(), identity: record.identity.clone() };
            self.said.lock().insert(Arc::clone(&url), said.clone());
            let is_of = |it: &Arc<Backend>| it.authority == url && said.is_of(it);
            match self.fleet.iter().find(is_of) {
                Some(backend) => {
                    let change = record.change();
                    if change.state != AdminState::Ready {
                        let (name, state) = (&backend.name(), change.state.as_str());
                        let why = change.why.as_deref().unwrap_or("");
                        info!(backend = %name, state, by = &*change.by, why,
                            "A backend has the state that its operator set before the restart.");
                    }
                    backend.heed(change, |_known| {});
                }
                None => strangers.push((record.at, url)),
            }
        }
        strangers.sort();
        let too_many = strangers.len().saturating_sub(Config::BACKENDS_MAX);
        for (_, url) in strangers.into_iter().take(too_many) {
            self.said.lock().remove(&url);
            self.journal.note_state(url, None);
        }
    }

    /// A backend has joined the fleet: it gets the state that it had before.
    pub fn recall_state(&self, backend: &Backend) {
        let said = self.said.lock().get(&backend.authority).cloned();
        let left = said.filter(|it| it.is_of(backend)).map(|it| it.change);
        let left = left.filter(|it| !it.is_past(unix_millis()));
        let Some(left) = left.filter(|it| it.state != AdminState::Ready) else { return };
        let (name, state, by) = (&backend.name(), left.state.as_str(), Arc::clone(&left.by));
        info!(backend = %name, state, by = &*by, "A backend keeps the state that an operator set.");
        backend.heed(left, |_known| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::state_change::Holds;

    #[test]
    fn the_oldest_words_of_servers_that_are_gone_make_room() {
        let word = |at| {
            let (state, by, why, holds) = (AdminState::Draining, "h".into(), None, Holds::On);
            Said { change: StateChange { state, by, why, at, holds }, identity: None }
        };
        let said: HashMap<Arc<str>, Said> = [("a:1", 1), ("b:1", 2), ("c:1", 3), ("d:1", 4)]
            .map(|(url, at)| (url.into(), word(at)))
            .into();
        let surplus = |max| -> Vec<String> {
            let all = surplus(&said, |url| url == "a:1", max);
            all.iter().map(ToString::to_string).collect()
        };
        assert_eq!(surplus(4), Vec::<String>::new());
        assert_eq!(surplus(2), ["b:1", "c:1"]);
        assert_eq!(surplus(0), ["b:1", "c:1", "d:1"], "who is there keeps his");
    }
}
