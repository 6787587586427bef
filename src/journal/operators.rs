//! Journal records of what operators did: states that they set, backends that they added, and which
//! backend is the home.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::VERSION;
use crate::routing::home::Remembered;
use crate::routing::placement::AdminState;
use crate::routing::state_change::{Holds, StateChange};

/// The state that an operator set for a backend.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StateRecord {
    v: u32,
    /// The backend's name, for people: its URL is the key.
    pub backend: Arc<str>,
    state: String,
    pub by: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Arc<str>>,
    pub at: u64,
    /// For which server it was set, if its discovery said which one it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Arc<str>>,
    /// It holds for one process, and up to then at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    one_process_until: Option<u64>,
}

impl StateRecord {
    #[must_use]
    pub fn new(backend: Arc<str>, change: &StateChange) -> Self {
        let StateChange { state, by, why, at, holds } = change.clone();
        let state = state.as_str().to_owned();
        let one_process_until = match holds {
            Holds::On => None,
            Holds::OneProcess { at_latest } => Some(at_latest),
        };
        Self { v: VERSION, backend, state, by, why, at, identity: None, one_process_until }
    }

    /// The same record, for the server of this identity.
    #[must_use]
    pub fn of(mut self, identity: Option<Arc<str>>) -> Self {
        self.identity = identity;
        self
    }

    /// The state that was set. An unknown state comes from a newer Mooring and counts as not
    /// `ready`: the backend gets no new work, and loses none.
    #[must_use]
    pub fn change(self) -> StateChange {
        let state = AdminState::parse(&self.state).unwrap_or(AdminState::Draining);
        let holds =
            self.one_process_until.map_or(Holds::On, |at_latest| Holds::OneProcess { at_latest });
        StateChange { state, by: self.by, why: self.why, at: self.at, holds }
    }
}

/// A backend that an operator added while the gateway ran.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AddedRecord {
    v: u32,
    /// The settings as the operator gave them: secrets are names of files.
    pub settings: Value,
    pub by: Arc<str>,
    pub at: u64,
}

impl AddedRecord {
    #[must_use]
    pub fn new(settings: Value, by: Arc<str>, at: u64) -> Self {
        Self { v: VERSION, settings, by, at }
    }
}

/// The home: the backend that keeps settings, workflows and the page. There is one such record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HomeRecord {
    v: u32,
    /// The backend's name, for people.
    pub backend: Arc<str>,
    /// The backend itself: another server under the same name does not count as the home.
    pub url: Arc<str>,
    /// Which server it is, if its discovery said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Arc<str>>,
    /// Since when it is the home.
    pub at: u64,
    /// A digest of its page, which identifies the version of the frontend; `None` if it never gave
    /// a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<Arc<str>>,
}

impl HomeRecord {
    #[must_use]
    pub fn new(backend: Arc<str>, url: Arc<str>, at: u64) -> Self {
        Self { v: VERSION, backend, url, identity: None, at, page: None }
    }

    /// The same record under another name.
    #[must_use]
    pub fn called(self, backend: Arc<str>) -> Self {
        Self { backend, ..self }
    }

    /// The same record, for the server of this identity.
    #[must_use]
    pub fn of(self, identity: Option<Arc<str>>) -> Self {
        Self { identity, ..self }
    }

    /// The record in the form in which the choice of the home uses it.
    #[must_use]
    pub fn remembered(&self) -> Remembered<'_> {
        let Self { backend, url, identity, .. } = self;
        Remembered { name: backend, address: url, identity: identity.as_deref() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{decode, encode};
    use super::*;

    #[test]
    fn an_operators_word_is_read_as_it_was_written() {
        let change = StateChange {
            state: AdminState::Off,
            by: "ada (10.0.0.1)".into(),
            why: Some("its fan".into()),
            at: 5,
            holds: Holds::On,
        };
        for holds in [Holds::On, Holds::OneProcess { at_latest: 9 }] {
            let change = StateChange { holds, ..change.clone() };
            let record = StateRecord::new("a".into(), &change);
            let read: StateRecord = decode(&encode(&record)).unwrap();
            assert_eq!((read.clone(), read.change()), (record, change));
        }
        let newer = br#"{"v":1,"backend":"a","state":"asleep","by":"ada","at":5}"#;
        let read: StateRecord = decode(newer).unwrap();
        assert_eq!(read.change().state, AdminState::Draining);
    }

    #[test]
    fn the_home_is_read_as_it_was_written() {
        let mut record = HomeRecord::new("a".into(), "h:1".into(), 5);
        for page in [None, Some("0a".into())] {
            record.page = page;
            assert_eq!(decode::<HomeRecord>(&encode(&record)).unwrap(), record);
            record = record.of(Some("uid-1".into()));
        }
    }
}
