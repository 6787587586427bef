//! What waits, for lists, metrics and reports.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Waiting;
use crate::comfy::lists::waiting::Parts;
use crate::journal::record::Kept;
use crate::net::now;
use crate::routing::ids::PromptId;

/// A prompt that is kept, for lists.
#[derive(Clone, Debug)]
pub struct Shown {
    pub kept: Arc<Kept>,
    pub parts: Arc<Parts>,
}

/// What waits, for metrics and reports.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WaitingNow {
    pub prompts: usize,
    pub bytes: u64,
    pub oldest: Option<Duration>,
}

impl Waiting {
    /// What lists of queues show of these, of those that are kept.
    #[must_use]
    pub fn shown<'p>(
        &self,
        prompts: impl Iterator<Item = &'p PromptId>,
    ) -> HashMap<&'p PromptId, Shown> {
        if !self.is_used() {
            return HashMap::new();
        }
        let index = self.index();
        let shown = prompts.filter_map(|prompt| {
            let entry = index.prompts.get(prompt)?;
            let (kept, parts) = (entry.kept.clone()?, Arc::clone(&entry.shown));
            Some((prompt, Shown { kept, parts }))
        });
        shown.collect()
    }

    /// Everything that waits, with its number.
    #[must_use]
    pub fn all(&self) -> Vec<(PromptId, f64)> {
        if !self.is_used() {
            return Vec::new();
        }
        let index = self.index();
        let waiting = index.prompts.iter().filter(|(_, it)| index.queue.has_waiting(it.key));
        waiting.map(|(prompt, it)| (prompt.clone(), it.number)).collect()
    }

    /// How many wait now.
    #[must_use]
    pub fn count(&self) -> usize {
        if self.is_used() { self.index().queue.waiting() } else { 0 }
    }

    /// What waits now.
    #[must_use]
    pub fn now(&self) -> WaitingNow {
        if !self.is_used() {
            return WaitingNow::default();
        }
        let (index, now) = (self.index(), now());
        let waiting = index.prompts.values().filter(|it| index.queue.has_waiting(it.key));
        let oldest = waiting.map(|it| now.saturating_duration_since(it.since)).max();
        WaitingNow { prompts: index.queue.waiting(), bytes: index.bytes.all(), oldest }
    }
}
