//! What a backend has reported about itself, and what its operator has said about it.

use std::sync::Arc;
use std::time::Instant;

use super::{Backend, State};
use crate::comfy::version::Version;
use crate::net::now;
use crate::routing::placement::AdminState;
use crate::routing::state_change::{SeenSince, StateChange};

/// What a server reports about itself.
#[derive(Clone, Debug)]
pub struct SaidOfItself {
    pub version: Version,
    pub frontend: Arc<str>,
}

impl State {
    fn seen_since(&self) -> SeenSince {
        let replaced = self.replaced.zip(self.heeded);
        let was_replaced = replaced.is_some_and(|(replaced, heeded)| heeded < replaced);
        SeenSince { is_up: self.health.is_up(), was_replaced }
    }
}

impl Backend {
    /// Its watch link got a `status`.
    pub fn status_came(&self, queue_remaining: u32, now: Instant) {
        if queue_remaining < self.load.queue_remaining() {
            self.queue_is_shorter();
        }
        self.load.counted(queue_remaining);
        self.state().last_status = Some(now);
    }

    #[must_use]
    pub fn last_status(&self) -> Option<Instant> {
        self.state().last_status
    }

    /// Applies an operator's state change and remembers its author. It is noted before the next one
    /// is applied, so that of two operators the same one is last here and after a restart.
    pub fn heed(&self, change: StateChange, note: impl FnOnce(&StateChange)) {
        let mut state = self.state();
        self.store_admin(&mut state, change.state);
        note(&change);
        let is_ready = change.state == AdminState::Ready;
        (state.said, state.heeded) = (Some(change), Some(now()));
        drop(state);
        if is_ready {
            // The operator has checked it.
            self.worker_is_new();
        }
    }

    /// The state that its operator gave it, and his last state change. Whether it is to leave does
    /// not matter here.
    #[must_use]
    pub fn said(&self) -> (AdminState, Option<StateChange>) {
        let state = self.state();
        (state.admin, state.said.clone())
    }

    /// What was seen of it since his last state change.
    #[must_use]
    pub fn seen_since(&self) -> SeenSince {
        self.state().seen_since()
    }

    /// Forgets a state change that is over; then the backend is ready. `now` is in milliseconds
    /// since 1970. True if there was one.
    pub fn unsay_what_is_over(&self, now: u64, note: impl FnOnce()) -> bool {
        let mut state = self.state();
        let Some(said) = &state.said else { return false };
        if !said.is_over(state.seen_since(), now) {
            return false;
        }
        self.store_admin(&mut state, AdminState::Ready);
        note();
        state.said = None;
        true
    }

    /// Stores what it reported when the watch link opened.
    pub fn learned(&self, said: SaidOfItself, features: Option<Arc<str>>) {
        let mut state = self.state();
        state.version = Some(said.version);
        state.frontend = Some(said.frontend);
        if features.is_some() {
            state.features = features;
        }
    }

    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.state().version.clone()
    }

    /// The version of its frontend; two backends with the same version serve the same page. `None`
    /// if it was never asked.
    #[must_use]
    pub fn frontend(&self) -> Option<Arc<str>> {
        self.state().frontend.clone()
    }

    #[must_use]
    pub fn features(&self) -> Option<Arc<str>> {
        self.state().features.clone()
    }
}
