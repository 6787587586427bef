//! Releases a binding: safely, or by force together with its pending prompts (promise B7).

use std::sync::Arc;
use std::time::Instant;

use super::Client;
use super::Sessions;
use crate::net::now;
use crate::routing::client::Outcome;
use crate::routing::decision::{Released, StillPending};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{Loss, Pending};

impl Client {
    /// Releases the binding if nothing is pending.
    ///
    /// # Errors
    /// How much is pending.
    pub fn release(self: &Arc<Self>, sessions: &Arc<Sessions>) -> Result<Released, StillPending> {
        let mut turn = self.turn(sessions);
        if turn.is_gone {
            return Ok(Released::default());
        }
        turn.act(|core| core.release(now()))
    }

    /// Resets by force: pending prompts end as lost, the sockets are told, and the link is closed
    /// so that none of its later events is relayed. The backend stops the prompts.
    pub fn reset(self: &Arc<Self>, sessions: &Arc<Sessions>) -> Released {
        let mut turn = self.turn(sessions);
        if turn.is_gone {
            return Released::default();
        }
        turn.act(|core| core.reset(now()))
    }

    /// A backend is turned off by force: the same for what it has. What waits in the gateway, or
    /// was not sent yet, goes elsewhere.
    pub(super) fn reset_placed(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        from: BackendId,
    ) -> Released {
        if !sessions.waiting.is_used() {
            return self.reset(sessions);
        }
        let mut turn = self.turn(sessions);
        if turn.is_gone {
            return Released::default();
        }
        let is_unsent = |it: &Pending| it.is_on(from) && it.is_unsent();
        let unsent = turn.core.pending().iter().filter(|(_, it)| is_unsent(it));
        let unsent: Vec<(PromptId, u32)> =
            unsent.map(|(prompt, it)| (prompt.clone(), it.attempt())).collect();
        for (prompt, attempt) in unsent {
            turn.act(|core| core.wait_again(&prompt, attempt, now()));
        }
        turn.act(|core| core.reset_placed(from, now()))
    }

    /// Its backend was away, or ran nothing, for longer than its grace. Prompts that are pending
    /// there are presumed lost, except those whose outcome was already told.
    pub(super) fn presume_lost(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        backend: BackendId,
        loss: Loss,
        now: Instant,
    ) {
        let mut turn = self.turn(sessions);
        let there = turn.core.pending().iter().filter(|(_, found)| found.is_on(backend));
        // An outcome that is held back until its outputs are known counts as lost with them.
        let outcome = |prompt: &PromptId| match turn.log.has_terminal(prompt.as_str()) {
            true => Outcome::Told,
            false => Outcome::Untold,
        };
        let given_up: Vec<(PromptId, Outcome)> =
            there.map(|(prompt, _)| (prompt.clone(), outcome(prompt))).collect();
        for (prompt, outcome) in &given_up {
            turn.act(|core| core.give_up(prompt, loss, *outcome, now));
        }
    }
}
