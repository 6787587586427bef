//! The pending prompts of a client: they are added and removed only here, and each change is an
//! effect.

use std::time::Instant;

use indexmap::IndexMap;

use super::super::effects::{Effects, Ended, KnownBy, Submission, Waits};
use super::super::ids::{BackendId, PromptId};
use super::super::pending::{End, Errand, Loss, Pending, Phase};

/// A prompt that has ended, with what was known of it.
fn ended(prompt: PromptId, it: &Pending, end: End, known: KnownBy, at: Instant) -> Ended {
    let (started, decided) = (it.started(), it.decided());
    let (backend, ran, first_step) = (it.backend(), it.ran(at), it.first_step());
    Ended { prompt, backend, end, started, decided, ran, first_step, at, known }
}

/// In the order of submission.
#[derive(Debug, Default)]
pub(super) struct Prompts {
    all: IndexMap<PromptId, Pending>,
    /// How many of them wait in the gateway.
    waiting: usize,
}

impl Prompts {
    /// Restores the prompts from before a restart.
    pub(super) fn restored(pending: IndexMap<PromptId, Pending>) -> Self {
        let waiting = pending.values().filter(|it| it.is_waiting()).count();
        Self { all: pending, waiting }
    }

    pub(super) fn map(&self) -> &IndexMap<PromptId, Pending> {
        &self.all
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn get_mut(&mut self, prompt: &PromptId) -> Option<&mut Pending> {
        self.all.get_mut(prompt)
    }

    pub(super) fn on(&mut self, backend: BackendId) -> impl Iterator<Item = &mut Pending> {
        self.all.values_mut().filter(move |pending| pending.is_on(backend))
    }

    /// A submission is about to be sent.
    pub(super) fn begin(&mut self, prompt: PromptId, pending: Pending, effects: &mut Effects) {
        if let Some(on) = pending.backend() {
            effects.submission = Some(Submission::Placed { prompt: prompt.clone(), on });
        }
        begun(effects);
        self.all.insert(prompt, pending);
    }

    /// A submission waits.
    pub(super) fn enqueue(&mut self, prompt: PromptId, now: Instant, effects: &mut Effects) {
        let waits = Submission::Waits { prompt: prompt.clone(), how: Waits::New };
        effects.submission = Some(waits);
        begun(effects);
        self.waiting += 1;
        self.all.insert(prompt, Pending::waiting(now, now));
    }

    /// A prompt that waits is about to be sent.
    pub(super) fn hand_over(
        &mut self,
        prompt: &PromptId,
        (to, errand): (BackendId, Errand),
        now: Instant,
        effects: &mut Effects,
    ) {
        let Some(pending) = self.all.get_mut(prompt).filter(|it| it.is_waiting()) else { return };
        self.waiting -= 1;
        pending.handed_over(to, errand, now);
        effects.submission = Some(Submission::HandedOver { prompt: prompt.clone(), to, errand });
    }

    /// No backend has the prompt, so it waits again.
    pub(super) fn wait_again(&mut self, prompt: &PromptId, now: Instant, effects: &mut Effects) {
        let Some(pending) = self.all.get_mut(prompt).filter(|it| !it.is_waiting()) else { return };
        self.waiting += 1;
        pending.waits_again(now);
        let waits = Submission::Waits { prompt: prompt.clone(), how: Waits::Again };
        effects.submission = Some(waits);
    }

    /// A prompt that the gateway did not know was found. One that is already pending is unchanged.
    pub(super) fn found(&mut self, prompt: PromptId, pending: Pending, effects: &mut Effects) {
        self.all.entry(prompt).or_insert(pending);
        begun(effects);
    }

    /// Takes out a submission that is to be placed anew. It does not count as work until it is put
    /// back.
    pub(super) fn lift(&mut self, prompt: &PromptId) -> Option<(PromptId, Pending)> {
        self.all.shift_remove_entry(prompt)
    }

    pub(super) fn put_back(
        &mut self,
        (prompt, mut pending): (PromptId, Pending),
        (to, now): (BackendId, Instant),
        effects: &mut Effects,
    ) {
        if !pending.is_on(to) {
            effects.submission = Some(Submission::Moved { prompt: prompt.clone(), to });
            pending.moved(to, now);
        }
        self.all.insert(prompt, pending);
    }

    /// A prompt ended. `None` if it had already ended: a prompt ends once.
    pub(super) fn end(
        &mut self,
        prompt: &PromptId,
        end: End,
        known: KnownBy,
        now: Instant,
        effects: &mut Effects,
    ) -> Option<Option<BackendId>> {
        let (prompt, pending) = self.all.shift_remove_entry(prompt)?;
        self.waiting -= usize::from(pending.is_waiting());
        let backend = pending.backend();
        effects.ended.push(ended(prompt, &pending, end, known, now));
        effects.tells_count = true;
        Some(backend)
    }

    /// Ends all of them by a reset. Returns how many.
    pub(super) fn cut_off(&mut self, now: Instant, effects: &mut Effects) -> usize {
        let all = std::mem::take(&mut self.all);
        self.waiting = 0;
        Self::cut(all, now, effects)
    }

    /// The same for those that this backend has; one that is just being shown there is taken back
    /// by its own task. Returns how many ended.
    pub(super) fn cut_off_on(
        &mut self,
        backend: BackendId,
        now: Instant,
        effects: &mut Effects,
    ) -> usize {
        let all = std::mem::take(&mut self.all);
        let is_shown = |it: &Pending| it.is_on_trial() && it.phase == Phase::Sending;
        let is_lost = |it: &Pending| it.is_on(backend) && !is_shown(it);
        let (lost, others) = all.into_iter().partition(|(_, it)| is_lost(it));
        self.all = others;
        Self::cut(lost, now, effects)
    }

    fn cut(all: IndexMap<PromptId, Pending>, now: Instant, effects: &mut Effects) -> usize {
        let (end, known) = (End::Lost(Loss::Reset), KnownBy::CutOff);
        effects
            .ended
            .extend(all.into_iter().map(|(prompt, it)| ended(prompt, &it, end, known, now)));
        effects.tells_count = true;
        effects.ended.len()
    }

    /// No backend has the submission, whether or not it was still pending.
    pub(super) fn withdraw(&mut self, prompt: &PromptId, effects: &mut Effects) -> Option<Pending> {
        effects.submission = Some(Submission::Withdrawn { prompt: prompt.clone() });
        effects.tells_count = true;
        let withdrawn = self.all.shift_remove(prompt)?;
        self.waiting -= usize::from(withdrawn.is_waiting());
        Some(withdrawn)
    }
}

/// More prompts are pending than before.
fn begun(effects: &mut Effects) {
    effects.tells_count = true;
    effects.has_begun = true;
}
