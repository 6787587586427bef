//! Where a submission goes: to a backend, or it waits in the gateway.

use super::{Ledger, Record, State};
use crate::routing::ids::{BackendId, PromptId};

/// What the queue of prompts that wait has to do with one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// It was sent there to run, and its backend may not have it yet.
    Sent,
    /// It waits in the gateway, or ended while it did.
    Waits,
    /// It went to its backend for a verdict only, or is taken back from there.
    OnTrial,
    /// It has waited, and its backend has accepted it.
    Taken,
}

impl Ledger {
    /// The submission goes to `backend`.
    pub fn placed(&mut self, prompt: &PromptId, backend: BackendId) {
        if let Some(record) = self.prompts.get_mut(prompt) {
            (record.backend, record.way) = (Some(backend), Way::Sent);
        }
    }

    /// It goes there for a verdict only.
    pub fn on_trial(&mut self, prompt: &PromptId, backend: BackendId) {
        self.placed(prompt, backend);
        if let Some(record) = self.prompts.get_mut(prompt) {
            record.way = Way::OnTrial;
        }
    }

    /// Its backend has accepted it.
    pub fn taken(&mut self, prompt: &PromptId) {
        if let Some(record) = self.prompts.get_mut(prompt) {
            record.way = Way::Taken;
        }
    }

    /// The submission is at no backend: it waits in the gateway.
    pub fn waits(&mut self, prompt: &PromptId) {
        if let Some(record) = self.prompts.get_mut(prompt) {
            (record.backend, record.way) = (None, Way::Waits);
        }
    }
}

impl Record {
    /// It is pending and waits in the gateway.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.way == Way::Waits && self.state == State::Pending
    }
}
