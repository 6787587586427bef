//! The pending prompts of a client: they are added and removed only here, and each change is an
//! effect.

use std::time::Instant;

use indexmap::IndexMap;

use super::super::effects::{Effects, Ended, KnownBy, Submission};
use super::super::ids::{BackendId, PromptId};
use super::super::pending::{End, Loss, Pending};

/// A prompt that has ended, with what was known of it.
fn ended(prompt: PromptId, it: &Pending, end: End, known: KnownBy, at: Instant) -> Ended {
    let (started, decided) = (it.started(), it.decided());
    let (backend, ran) = (it.backend, it.ran(at));
    Ended { prompt, backend, end, started, decided, ran, at, known }
}

/// In the order of submission.
#[derive(Debug, Default)]
pub(super) struct Prompts(IndexMap<PromptId, Pending>);

impl Prompts {
    /// Restores the prompts from before a restart.
    pub(super) fn restored(pending: IndexMap<PromptId, Pending>) -> Self {
        Self(pending)
    }

    pub(super) fn map(&self) -> &IndexMap<PromptId, Pending> {
        &self.0
    }

    pub(super) fn get_mut(&mut self, prompt: &PromptId) -> Option<&mut Pending> {
        self.0.get_mut(prompt)
    }

    pub(super) fn on(&mut self, backend: BackendId) -> impl Iterator<Item = &mut Pending> {
        self.0.values_mut().filter(move |pending| pending.backend == backend)
    }

    /// A submission is about to be sent.
    pub(super) fn begin(&mut self, prompt: PromptId, pending: Pending, effects: &mut Effects) {
        let on = pending.backend;
        effects.submission = Some(Submission::Placed { prompt: prompt.clone(), on });
        begun(effects);
        self.0.insert(prompt, pending);
    }

    /// A prompt that the gateway did not know was found. One that is already pending is unchanged.
    pub(super) fn found(&mut self, prompt: PromptId, pending: Pending, effects: &mut Effects) {
        self.0.entry(prompt).or_insert(pending);
        begun(effects);
    }

    /// Takes out a submission that is to be placed anew. It does not count as work until it is put
    /// back.
    pub(super) fn lift(&mut self, prompt: &PromptId) -> Option<(PromptId, Pending)> {
        self.0.shift_remove_entry(prompt)
    }

    pub(super) fn put_back(
        &mut self,
        (prompt, mut pending): (PromptId, Pending),
        to: BackendId,
        effects: &mut Effects,
    ) {
        if pending.backend != to {
            effects.submission = Some(Submission::Moved { prompt: prompt.clone(), to });
        }
        pending.backend = to;
        self.0.insert(prompt, pending);
    }

    /// A prompt ended. `None` if it had already ended: a prompt ends once.
    pub(super) fn end(
        &mut self,
        prompt: &PromptId,
        end: End,
        known: KnownBy,
        now: Instant,
        effects: &mut Effects,
    ) -> Option<BackendId> {
        let (prompt, pending) = self.0.shift_remove_entry(prompt)?;
        let backend = pending.backend;
        effects.ended.push(ended(prompt, &pending, end, known, now));
        effects.tells_count = true;
        Some(backend)
    }

    /// Ends all of them by a reset. Returns how many.
    pub(super) fn cut_off(&mut self, now: Instant, effects: &mut Effects) -> usize {
        let (end, known) = (End::Lost(Loss::Reset), KnownBy::CutOff);
        let all = self.0.drain(..);
        effects.ended.extend(all.map(|(prompt, it)| ended(prompt, &it, end, known, now)));
        effects.tells_count = true;
        effects.ended.len()
    }

    /// No backend has the submission, whether or not it was still pending.
    pub(super) fn withdraw(&mut self, prompt: &PromptId, effects: &mut Effects) -> Option<Pending> {
        effects.submission = Some(Submission::Withdrawn { prompt: prompt.clone() });
        effects.tells_count = true;
        self.0.shift_remove(prompt)
    }
}

/// More prompts are pending than before.
fn begun(effects: &mut Effects) {
    effects.tells_count = true;
    effects.has_begun = true;
}
