//! What becomes of a client's pending prompts: taken, heard of, asked for, ended.

use std::time::{Duration, Instant};

use super::Client;
use crate::routing::decision::{Released, StillPending, What};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{End, Heard, Pending, Phase, Sighted};

impl Client {
    /// The prompt was taken by its backend.
    pub fn accepted(&mut self, prompt: &PromptId, now: Instant) {
        if let Some(pending) = self.pending.get_mut(prompt) {
            pending.accepted(now);
        }
    }

    /// A link said something about a prompt. Returns the end, if that was it.
    pub fn hear(&mut self, prompt: &PromptId, heard: Heard, now: Instant) -> Option<End> {
        let end = self.pending.get_mut(prompt)?.hear(heard, now)?;
        self.end(prompt, end, now)
    }

    /// Asking found something about a prompt. Returns the end, if that settles it.
    pub fn sight(&mut self, prompt: &PromptId, sighted: Sighted, now: Instant) -> Option<End> {
        let end = self.pending.get_mut(prompt)?.sight(sighted, now)?;
        self.end(prompt, end, now)
    }

    /// Ends a prompt. `None` if it had ended already: a prompt ends once.
    pub fn end(&mut self, prompt: &PromptId, end: End, now: Instant) -> Option<End> {
        let pending = self.pending.shift_remove(prompt)?;
        self.last_end = Some(now);
        self.decisions.remember(Some(pending.backend), What::Ended(end), now);
        self.remember_if_released(now);
        Some(end)
    }

    /// The client asks for a prompt to be deleted.
    pub fn delete_asked(&mut self, prompt: &PromptId) {
        if let Some(pending) = self.pending.get_mut(prompt) {
            pending.ask_delete();
        }
    }

    /// The deletion was not done.
    pub fn delete_withdrawn(&mut self, prompt: &PromptId) {
        if let Some(pending) = self.pending.get_mut(prompt) {
            pending.delete_asked = false;
        }
    }

    /// All that is pending on `backend` must be asked about: its link broke, or it came back.
    pub fn must_ask(&mut self, backend: BackendId) {
        let there = self.pending.values_mut().filter(|pending| pending.backend == backend);
        there.for_each(|pending| pending.must_ask = true);
    }

    /// A safe release, if nothing is pending.
    ///
    /// # Errors
    /// How many prompts and uploads are pending.
    pub fn release(&mut self, now: Instant) -> Result<Released, StillPending> {
        match self.work() {
            0 => Ok(self.unbind(What::Released, now)),
            pending => Err(StillPending { pending }),
        }
    }

    /// A forced reset: whatever is pending is lost, and the binding is gone. An upload in flight
    /// goes on, and holds nothing any more.
    pub fn reset(&mut self, now: Instant) -> Released {
        self.uploads_in_flight = 0;
        self.last_end = if self.pending.is_empty() { self.last_end } else { Some(now) };
        let cut_off = self.pending.drain(..).collect();
        Released { cut_off, ..self.unbind(What::Reset, now) }
    }

    /// A link to `backend` broke: what comes after a start may come unheard.
    pub fn deaf(&mut self, backend: BackendId) {
        let there = self.pending.values_mut().filter(|pending| pending.backend == backend);
        there.for_each(Pending::deaf);
    }

    /// A link to `backend` is open: what was said between the last look and this moment was said
    /// to nobody. One that is being sent has waited for this link.
    pub fn must_ask_again(&mut self, backend: BackendId) {
        let is_sent = |pending: &&mut Pending| pending.phase != Phase::Sending;
        let there = self.pending.values_mut().filter(|pending| pending.backend == backend);
        there.filter(is_sent).for_each(|pending| pending.must_ask = true);
    }

    /// Prompts that must be asked about, or that asking has settled, with their backends.
    #[must_use]
    pub fn to_ask(&self, silent_after: Duration, now: Instant) -> Vec<(PromptId, BackendId)> {
        self.pending
            .iter()
            .filter(|(_, pending)| {
                pending.wants_asking(self.patience(pending.backend, silent_after), now)
            })
            .map(|(prompt, pending)| (prompt.clone(), pending.backend))
            .collect()
    }
}
