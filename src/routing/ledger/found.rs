//! Prompts that are found on backends.

use std::time::Instant;

use super::{Ledger, State};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::owners::Submitter;

impl Ledger {
    /// A prompt that nobody submitted through us was found on `backend`.
    pub fn learn(&mut self, prompt: &PromptId, backend: BackendId, now: Instant) {
        if self.get(prompt, now).is_none() {
            self.insert(prompt, Submitter::default(), now);
            self.placed(prompt, backend);
            self.settle(prompt, State::Learned, now);
        }
    }

    /// A client's prompt was found on `backend`, where it is pending. False if it is already known
    /// as pending or ended.
    pub fn adopt(
        &mut self,
        prompt: &PromptId,
        by: Submitter,
        (backend, seen): (BackendId, Instant),
        now: Instant,
    ) -> bool {
        match self.get(prompt, now).map(|record| record.state) {
            Some(State::Pending | State::Ended(_)) => return false,
            Some(State::Learned) | None => self.insert(prompt, by, now),
        }
        if let Some(record) = self.prompts.get_mut(prompt) {
            (record.backend, record.made) = (Some(backend), seen);
        }
        true
    }
}
