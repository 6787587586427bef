//! The binding of a client. It changes only here, and each change is an effect.

use std::time::Instant;

use super::super::effects::{Effects, Rebound};
use super::super::ids::BackendId;

#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    /// Differs between any two bindings of one client.
    pub(super) number: u64,
    pub(super) backend: BackendId,
    pub(super) since: Instant,
    pub(super) reserved_until: Option<Instant>,
}

impl Binding {
    pub(super) fn is_reserved(&self, now: Instant) -> bool {
        self.reserved_until.is_some_and(|until| now < until)
    }
}

/// The binding, if there is one.
#[derive(Debug, Default)]
pub(super) struct Bound {
    now: Option<Binding>,
    made: u64,
}

impl Bound {
    /// Restores the binding from before a restart.
    pub(super) fn restored(binding: Option<Binding>) -> Self {
        Self { made: u64::from(binding.is_some()), now: binding }
    }

    pub(super) fn get(&self) -> Option<Binding> {
        self.now
    }

    pub(super) fn backend(&self) -> Option<BackendId> {
        self.now.map(|bound| bound.backend)
    }

    /// Makes a new binding, which replaces the last.
    pub(super) fn bind(
        &mut self,
        backend: BackendId,
        reserved_until: Option<Instant>,
        now: Instant,
        effects: &mut Effects,
    ) -> Binding {
        self.made += 1;
        let made = Binding { number: self.made, backend, since: now, reserved_until };
        let last = self.now.replace(made);
        let from = last.map(|bound| bound.backend);
        effects.binding = Rebound::Moved { from, to: Some(backend) };
        made
    }

    pub(super) fn let_go(&mut self, effects: &mut Effects) -> Option<BackendId> {
        let from = self.now.take()?.backend;
        effects.binding = Rebound::Moved { from: Some(from), to: None };
        Some(from)
    }

    /// Sets or removes the reservation. Returns its previous end.
    pub(super) fn reserve(
        &mut self,
        until: Option<Instant>,
        effects: &mut Effects,
    ) -> Option<Instant> {
        let bound = self.now.as_mut()?;
        let before = std::mem::replace(&mut bound.reserved_until, until);
        if before != until && effects.binding == Rebound::No {
            effects.binding = Rebound::Reserved;
        }
        before
    }
}
