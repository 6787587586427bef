//! A binding that is let go: safely, or by force with what is pending (promise B7).

use std::time::Instant;

use super::Client;
use super::Sessions;
use super::disowned::Why;
use crate::net::now;
use crate::routing::decision::{Released, StillPending};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{End, Loss, Pending};
use crate::shared::Shared;

impl Client {
    /// Releases the binding if nothing is pending.
    ///
    /// # Errors
    /// How much is pending.
    pub fn release(&self, sessions: &Sessions) -> Result<Released, StillPending> {
        let mut state = self.state();
        if state.is_gone {
            return Ok(Released::default());
        }
        let released = state.core.release(now())?;
        state.let_go_of_link();
        state.note(self, &sessions.shared);
        sessions.count_left(released.backend);
        Ok(released)
    }

    /// Resets by force: what is pending ends as lost, the sockets are told, the link is closed
    /// so that no later event of it is relayed. The caller stops the backend's work.
    pub fn reset(&self, sessions: &Sessions) -> Released {
        let mut state = self.state();
        if state.is_gone {
            return Released::default();
        }
        state.let_go_of_link();
        let released = state.core.reset(now());
        state.missed.clear();
        for (prompt, pending) in &released.cut_off {
            let backend = &sessions.shared.fleet.get(pending.backend).name;
            state.tell_end(prompt, End::Lost(Loss::Reset), backend);
            state.log.ended(prompt, now());
            state.output_nodes.remove(prompt);
            state.labels.remove(prompt);
            state.disowned.add(prompt, Why::Told);
        }
        state.say_status(self, &sessions.shared);
        state.note(self, &sessions.shared);
        let told = state.told();
        drop(state);
        sessions.count_left(released.backend);
        for (prompt, _) in &released.cut_off {
            sessions.shared.records.prompt_ended(prompt, End::Lost(Loss::Reset), told);
        }
        released
    }

    /// Its backend has stayed away, or run nothing, past its grace: whatever is pending there is
    /// presumed lost, but for what has told its outcome already.
    pub(super) fn presume_lost(
        &self,
        shared: &Shared,
        backend: BackendId,
        loss: Loss,
        now: Instant,
    ) {
        let mut state = self.state();
        let there = state.core.pending().iter().filter(|(_, found)| found.backend == backend);
        // One whose outcome is held back until its outputs are known is lost with them.
        let end_of = |prompt: &PromptId, pending: &Pending| {
            let is_told = state.log.has_terminal(prompt.as_str());
            if is_told { pending.given_up() } else { End::Lost(loss) }
        };
        let given_up: Vec<(PromptId, End)> =
            there.map(|(prompt, pending)| (prompt.clone(), end_of(prompt, pending))).collect();
        for (prompt, end) in &given_up {
            if state.core.end(prompt, *end, now).is_some() {
                state.tell_end(prompt, *end, &shared.fleet.get(backend).name);
                state.finish(self, shared, prompt, now);
                state.disowned.add(prompt, Why::Told);
            }
        }
        let told = state.told();
        drop(state);
        for (prompt, end) in &given_up {
            shared.records.prompt_ended(prompt, *end, told);
        }
    }
}
