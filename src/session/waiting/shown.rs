//! Prompts that are shown to a backend for its verdict.
//!
//! They wait meanwhile: they take no place there, and nobody is charged for them. One that stays,
//! because it has begun there, counts from then on as one that was handed over.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Aside, Index, Waiting};
use crate::net::now;
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::placement::BackendView;

/// A prompt is shown to a backend only if what runs there takes so long yet, or another waits
/// there: otherwise it might begin before it is taken back.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// Whether a prompt may be shown to a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MayShow {
    Now,
    /// It would begin there before others, also of its own client.
    NotYet,
    /// The backend turns prompts away, and says nothing about them.
    No,
}

impl Waiting {
    /// Whether a prompt of the client may be shown to these backends, in their order.
    #[must_use]
    pub fn may_show(&self, client: &ClientId, fleet: &[BackendView]) -> SmallVec<[MayShow; 8]> {
        let at = self.at(now());
        let mut index = self.index();
        index.follow(fleet, at);
        // What its client has submitted before is on its way, and may not be there yet.
        let is_first = !index.on_the_way.contains_key(client);
        let may = |view: &BackendView| {
            let keeps_waiting = || index.queue.keeps_waiting(view.id, BUSY_FOR, at);
            match index.is_turned_away(view.id, at) {
                true => MayShow::No,
                false if is_first && keeps_waiting() => MayShow::Now,
                false => MayShow::NotYet,
            }
        };
        fleet.iter().map(may).collect()
    }

    /// A prompt that waits is not handed over while it is shown to this backend. False if it was
    /// chosen before.
    pub fn is_shown(&self, prompt: &PromptId, backend: BackendId) -> bool {
        let at = self.at(now());
        let mut index = self.index();
        let Some(key) = index.prompts.get(prompt).map(|it| it.key) else { return false };
        if !index.queue.has_waiting(key) {
            return false;
        }
        index.is_not_shown(prompt);
        if let Some(entry) = index.prompts.get_mut(prompt) {
            entry.shown_at = Some(backend);
            *index.shown_at.entry(backend).or_default() += 1;
        }
        index.queue.sets_aside(key, Aside::Yes, at);
        true
    }
}

impl Index {
    /// How many of its prompts are no strangers': they were handed over, or are shown there.
    pub(super) fn ours_at(&self, backend: BackendId) -> u32 {
        let shown = self.shown_at.get(&backend).copied().unwrap_or(0);
        self.queue.there(backend).saturating_add(shown)
    }

    /// The prompt is not shown any more. Returns where it was.
    pub(super) fn is_not_shown(&mut self, prompt: &PromptId) -> Option<BackendId> {
        let backend = self.prompts.get_mut(prompt)?.shown_at.take()?;
        if let Some(count) = self.shown_at.get_mut(&backend) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.shown_at.remove(&backend);
            }
        }
        Some(backend)
    }
}
