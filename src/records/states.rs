//! States that operators set for backends, kept over a restart (promise V5).

use std::sync::Arc;

use tracing::info;

use super::Records;
use crate::config::Config;
use crate::fleet::backend::Backend;
use crate::journal::record::StateRecord;
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

impl Records {
    /// An operator set a backend's state. It applies at once, and is noted.
    pub fn state_said(&self, backend: &Backend, change: StateChange) {
        // Applied before it is noted, so that no restart finds a state that never applied.
        backend.heed(change, |change| {
            let identity = backend.identity();
            let said = Said { change: change.clone(), identity: identity.clone() };
            self.said.lock().insert(Arc::clone(&backend.authority), said);
            let record = StateRecord::new(backend.name(), change).of(identity);
            self.journal.note_state(Arc::clone(&backend.authority), Some(record));
        });
    }

    /// Restores the states from before a restart. A state of a server that is not configured stays
    /// in the journal, in case the server is configured again. The oldest of these are dropped
    /// first.
    pub fn restore_states(&self, states: Vec<(Arc<str>, StateRecord)>) {
        let mut strangers = Vec::new();
        for (url, record) in states {
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
        let Some(left) = left.filter(|it| it.state != AdminState::Ready) else { return };
        let (name, state, by) = (&backend.name(), left.state.as_str(), Arc::clone(&left.by));
        info!(backend = %name, state, by = &*by, "A backend keeps the state that an operator set.");
        backend.heed(left, |_known| {});
    }
}
