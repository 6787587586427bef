//! Backends that join and leave while everything runs, and what happens to their clients.
//!
//! A backend that should leave gets no new clients and keeps those that have work there until they
//! have drained (promise V5). It leaves when no client is held there any more. If it must leave
//! earlier, the prompts pending there are lost, and their clients are told (P6).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Sessions;
use super::control::{Held, let_go_of_tunnels};
use crate::config::BackendConfig;
use crate::fleet::backend::Backend;
use crate::fleet::diff::{Applied, BadDiff, Diff};
use crate::routing::ids::BackendId;
use crate::tunnels::Farewell;

/// A backend that is to go stays so long at least: who was sent there a moment before is there by
/// then.
const STAYS: Duration = Duration::from_secs(1);

impl Sessions {
    /// Makes the fleet what is wanted of it. Who is not wanted any more goes when it has drained;
    /// who is wanted again stays.
    ///
    /// # Errors
    /// It would be no fleet; then nothing is changed.
    pub fn change_fleet(self: &Arc<Self>, wanted: &[BackendConfig]) -> Result<(), BadDiff> {
        self.take_up(self.shared.fleet.change(wanted)?);
        Ok(())
    }

    /// Makes the fleet what the configuration says now.
    ///
    /// # Errors
    /// It would be no fleet; then nothing is changed.
    pub fn configure_fleet(self: &Arc<Self>, configured: &[BackendConfig]) -> Result<(), BadDiff> {
        self.change_fleet(configured)
    }

    /// Changes the fleet at once, whatever those have that leave.
    ///
    /// # Errors
    /// It would be no fleet; then nothing is changed.
    pub fn apply(self: &Arc<Self>, diff: &Diff) -> Result<(), BadDiff> {
        self.take_up(self.shared.fleet.apply(diff)?);
        Ok(())
    }

    /// Looks at those that joined, and ends what is left of those that left.
    fn take_up(self: &Arc<Self>, applied: Applied) {
        for backend in applied.joined {
            self.look_for_unclaimed_at(backend);
        }
        for backend in &applied.left {
            self.tunnels.close_to(backend.id, Farewell::Draining);
        }
        if !applied.left.is_empty() {
            // What was pending there has ended.
            self.reconcile_soon();
        }
    }

    /// What the sweep does for each backend.
    pub(super) fn maintain_backends(self: &Arc<Self>, now: Instant) {
        let held = Held::of(self);
        for backend in self.shared.fleet.iter() {
            let_go_of_tunnels(self, &backend, &held);
            backend.pool.sweep(now);
        }
        self.let_go_of_backends(&held, now);
    }

    /// Lets those go that are to go and have nobody any more.
    fn let_go_of_backends(self: &Arc<Self>, held: &Held<'_>, now: Instant) {
        let may_go = |backend: &Arc<Backend>| {
            backend.going_since().is_some_and(|since| STAYS <= now.duration_since(since))
                && held.at(backend.id) == 0
        };
        let leave: BTreeSet<BackendId> =
            self.shared.fleet.iter().filter(may_go).map(|backend| backend.id).collect();
        if !leave.is_empty() {
            self.take_up(self.shared.fleet.let_go(leave));
        }
    }
}
