//! Transitions of a client's pending prompts: accepted, seen in events, found by asking, ended.

use std::time::{Duration, Instant};

use super::Client;
use crate::routing::decision::{Released, StillPending, What};
use crate::routing::effects::{Effects, KnownBy, QueueNews, Step};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{Course, End, Loss, Observation, Pending, Phase, Settled, Signal};

/// Whether the sockets were told how a prompt ended, before it has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Told,
    Untold,
}

impl Client {
    /// The backend accepted the prompt. False if it is no longer pending.
    pub fn accepted(&mut self, prompt: &PromptId, now: Instant) -> Step<bool> {
        Step::of(|effects| {
            let Some(pending) = self.prompts.get_mut(prompt) else { return false };
            let before = pending.course();
            pending.accepted(now);
            effects.queue = QueueNews::of(prompt, before, pending);
            true
        })
    }

    /// A link delivered an event of a prompt, which may end it.
    pub fn on_event(&mut self, prompt: &PromptId, heard: Signal, now: Instant) -> Step {
        Step::of(|effects| {
            let Some(pending) = self.prompts.get_mut(prompt) else { return };
            if matches!(heard, Signal::Terminal(_)) {
                effects.freed = pending.backend();
            }
            let (course, had_started) = (pending.course(), pending.started().is_some());
            let end = pending.on_event(heard, now);
            if course != Course::Direct {
                effects.queue = QueueNews::since(prompt, (course, had_started), pending);
            }
            if let Some(end) = end {
                self.end(prompt, (end, KnownBy::Heard), now, effects);
            }
        })
    }

    /// The backend was asked about a prompt, and the answer may end it.
    pub fn on_probe(&mut self, prompt: &PromptId, sighted: Observation, now: Instant) -> Step {
        Step::of(|effects| {
            let Some(pending) = self.prompts.get_mut(prompt) else { return };
            let (course, had_started) = (pending.course(), pending.started().is_some());
            let settled = pending.on_probe(sighted, now);
            if course != Course::Direct {
                effects.queue = QueueNews::since(prompt, (course, had_started), pending);
            }
            match settled {
                None => {}
                Some(Settled::Waits) => self.prompts.wait_again(prompt, now, effects),
                Some(Settled::Ended(end)) => {
                    self.end(prompt, (end, KnownBy::Found), now, effects);
                }
            }
        })
    }

    /// The backend's answer says how a prompt ended, and no more events are to come.
    pub fn settle(&mut self, prompt: &PromptId, end: End, now: Instant) -> Step {
        Step::of(|effects| self.end(prompt, (end, KnownBy::Found), now, effects))
    }

    /// A prompt is presumed lost. If its outcome was already told, it has that end instead.
    pub fn give_up(
        &mut self,
        prompt: &PromptId,
        loss: Loss,
        outcome: Outcome,
        now: Instant,
    ) -> Step {
        Step::of(|effects| {
            self.given_up(prompt, (loss, outcome), now, effects);
        })
    }

    pub(super) fn given_up(
        &mut self,
        prompt: &PromptId,
        (loss, outcome): (Loss, Outcome),
        now: Instant,
        effects: &mut Effects,
    ) {
        let Some(pending) = self.prompts.get_mut(prompt) else { return };
        if pending.is_unsent() && !pending.delete_asked {
            // No backend has a byte of it: nothing is lost.
            return self.prompts.wait_again(prompt, now, effects);
        }
        let end = match outcome {
            Outcome::Told => pending.given_up(),
            Outcome::Untold => End::Lost(loss),
        };
        self.end(prompt, (end, KnownBy::GivenUp), now, effects);
    }

    /// The client asks to delete a prompt. The outcome is the backend that has to delete it; one
    /// that waits, or of which no byte was sent, has ended.
    pub fn delete_asked(&mut self, prompt: &PromptId, now: Instant) -> Step<Option<BackendId>> {
        Step::of(|effects| {
            let pending = self.prompts.get_mut(prompt)?;
            pending.ask_delete();
            let place = pending.backend().filter(|_| !pending.is_unsent());
            if place.is_none() {
                self.end(prompt, (End::Deleted, KnownBy::Found), now, effects);
            }
            place
        })
    }

    /// The deletion failed, or the backend does not have it. One that is on its way there from the
    /// queue is deleted when it arrives, or ends when it comes back.
    pub fn delete_withdrawn(&mut self, prompt: &PromptId) -> Step {
        Step::of(|_effects| {
            let pending = self.prompts.get_mut(prompt);
            if let Some(pending) = pending.filter(|it| !it.is_on_the_way()) {
                pending.delete_asked = false;
            }
        })
    }

    /// All pending prompts on `backend` must be asked about: the link broke, or the backend came
    /// back.
    pub fn must_ask(&mut self, backend: BackendId) -> Step {
        Step::of(|effects| {
            effects.asks = true;
            self.prompts.on(backend).for_each(|pending| pending.must_ask = true);
        })
    }

    /// A safe release: refused if something is pending. The outcome then says how much.
    pub fn release(&mut self, now: Instant) -> Step<Result<Released, StillPending>> {
        Step::of(|effects| match self.work() {
            0 => Ok(Released { backend: self.unbind(What::Released, now, effects), cut_off: 0 }),
            pending => Err(StillPending { pending }),
        })
    }

    /// A forced reset: pending prompts are lost, and the binding is gone. An upload in flight
    /// continues, but no longer holds the client.
    pub fn reset(&mut self, now: Instant) -> Step<Released> {
        Step::of(|effects| {
            self.uploads_in_flight = 0;
            let cut_off = self.prompts.cut_off(now, effects);
            self.last_end = if cut_off == 0 { self.last_end } else { Some(now) };
            Released { backend: self.unbind(What::Reset, now, effects), cut_off }
        })
    }

    /// The client ends: a later one with its name is a new client. The outcome is where it was
    /// bound.
    pub fn leave(&mut self, now: Instant) -> Step<Option<BackendId>> {
        debug_assert!(self.work() == 0, "nobody leaves his work");
        Step::of(|effects| self.unbind(What::Released, now, effects))
    }

    /// A link to `backend` broke. Events may be missed from now on, also those after the start of a
    /// prompt, so all pending prompts there must be asked about.
    pub fn deaf(&mut self, backend: BackendId) -> Step {
        Step::of(|effects| {
            effects.asks = true;
            for pending in self.prompts.on(backend) {
                pending.must_ask = true;
                pending.deaf();
            }
        })
    }

    /// A link to `backend` is open. Events between the last answer and this moment reached no link,
    /// so prompts must be asked about once more. A prompt that is being sent has waited for this
    /// link.
    pub fn must_ask_again(&mut self, backend: BackendId, now: Instant) -> Step {
        Step::of(|effects| {
            effects.asks = true;
            self.prompts.on(backend).for_each(|pending| pending.link_opened(now));
            // None of them waits: those are on no backend.
            let is_sent = |pending: &&mut Pending| pending.phase != Phase::Sending;
            let sent = self.prompts.on(backend).filter(is_sent);
            sent.for_each(|pending| pending.must_ask = true);
        })
    }

    /// Prompts that must be asked about, or whose answer has settled their end, with their
    /// backends.
    #[must_use]
    pub fn to_ask(&self, silent_after: Duration, now: Instant) -> Vec<(PromptId, BackendId)> {
        self.pending()
            .iter()
            .filter_map(|(prompt, pending)| {
                let backend = pending.backend()?;
                let patience = self.patience(backend, silent_after);
                pending.wants_asking(patience, now).then(|| (prompt.clone(), backend))
            })
            .collect()
    }

    /// Ends a prompt, if it is pending. Only a reset ends all at once.
    pub(super) fn end(
        &mut self,
        prompt: &PromptId,
        (end, known): (End, KnownBy),
        now: Instant,
        effects: &mut Effects,
    ) {
        let Some(backend) = self.prompts.end(prompt, end, known, now, effects) else { return };
        self.last_end = Some(now);
        self.decisions.remember(backend, What::Ended(end), now);
        self.remember_if_released(now);
    }
}
