//! An index of the prompts that were presumed lost because their backend was away or ran nothing.
//! They are searched for when it is back, and the index avoids a scan of the whole ledger.

use std::collections::{BTreeSet, HashMap};

use super::{Record, State};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{End, Loss};

/// By the backend that they were sent to.
#[derive(Debug, Default)]
pub(super) struct PresumedLost(HashMap<BackendId, BTreeSet<PromptId>>);

impl PresumedLost {
    /// A prompt was settled with this record.
    pub(super) fn note(&mut self, prompt: &PromptId, record: &Record) {
        if let (true, Some(backend)) = (is_presumed_lost(record), record.backend) {
            self.0.entry(backend).or_default().insert(prompt.clone());
        }
    }

    /// The record of a prompt is about to change.
    pub(super) fn forget(&mut self, prompt: &PromptId, record: &Record) {
        let (true, Some(backend)) = (is_presumed_lost(record), record.backend) else { return };
        let Some(there) = self.0.get_mut(&backend) else { return };
        there.remove(prompt);
        if there.is_empty() {
            self.0.remove(&backend);
        }
    }

    pub(super) fn of(&self, backend: BackendId) -> Vec<PromptId> {
        self.0.get(&backend).into_iter().flatten().cloned().collect()
    }
}

pub(super) fn is_presumed_lost(record: &Record) -> bool {
    let state = record.state;
    matches!(
        state,
        State::Ended(End::Lost(Loss::BackendDied | Loss::BackendGone | Loss::BackendWedged))
    )
}
