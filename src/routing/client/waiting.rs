//! Prompts that wait in the gateway until a backend has room.
//!
//! A waiting prompt is pending and at no backend. It is handed over to the backend where the client
//! is held, or to any other if nothing holds it: what the client has at backends is at one.

use std::time::Instant;

use super::Client;
use crate::routing::decision::{Decision, Reason, Refusal, Released, What};
use crate::routing::effects::{KnownBy, Step};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{Course, End, Errand, Loss, Pending, Phase};
use crate::routing::placement::{BackendView, FleetNow};

/// Why a prompt is not handed over to a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotNow {
    /// It does not wait any more, or not yet again.
    NotWaiting,
    /// Something of its client is at this other backend.
    HeldAt(BackendId),
    /// That backend takes nothing new.
    NoRoom,
}

impl Client {
    /// A submission waits: it is pending from here on.
    ///
    /// Its outcome is a refusal if the client has too many pending prompts.
    pub fn enqueue(
        &mut self,
        prompt: PromptId,
        pending_max: usize,
        now: Instant,
    ) -> Step<Result<(), Refusal>> {
        Step::of(|effects| {
            self.last_contact = now;
            if self.pending().contains_key(&prompt) {
                return Err(Refusal::AlreadyPending);
            }
            if pending_max <= self.pending().len() {
                return Err(Refusal::TooManyPending { max: pending_max });
            }
            self.prompts.enqueue(prompt, now, effects);
            Ok(())
        })
    }

    /// A waiting prompt is about to be sent to `to`. An idle or reserved binding moves there.
    pub fn hand_over(
        &mut self,
        prompt: &PromptId,
        (to, errand): (BackendId, Errand),
        fleet: FleetNow<'_>,
        now: Instant,
    ) -> Step<Result<Decision, NotNow>> {
        Step::of(|effects| {
            if !self.pending().get(prompt).is_some_and(|it| it.is_waiting()) {
                return Err(NotNow::NotWaiting);
            }
            if let Some(held) = self.held_at().filter(|held| *held != to) {
                return Err(NotNow::HeldAt(held));
            }
            if !fleet.view(to).is_some_and(BackendView::serves_new) {
                return Err(NotNow::NoRoom);
            }
            let reason = if self.is_held() { Reason::Held } else { Reason::Placed };
            let decision = Decision { reason, ..self.bind_to(to, now, effects) };
            // An upload has waited for this prompt, or for none.
            let reserved = self.bound.reserve(None, effects);
            self.prompts.hand_over(prompt, (to, errand), now, effects);
            if let Some(pending) = self.prompts.get_mut(prompt) {
                pending.reservation = reserved;
            }
            Ok(self.record(Ok(decision), now, effects).unwrap_or(decision))
        })
    }

    /// A prompt that was being sent is at no backend, and its body is kept: it waits again, or has
    /// ended if its client has asked to delete it. False if this attempt is over already.
    pub fn wait_again(&mut self, prompt: &PromptId, attempt: u32, now: Instant) -> Step<bool> {
        Step::of(|effects| {
            let Some(pending) = self.pending().get(prompt) else { return false };
            if pending.phase != Phase::Sending || pending.attempt() != attempt {
                return false;
            }
            match pending.delete_asked {
                true => self.end(prompt, (End::Deleted, KnownBy::Found), now, effects),
                false => self.prompts.wait_again(prompt, now, effects),
            }
            true
        })
    }

    /// The first byte of an attempt is about to be sent. False if it must not be: the prompt has
    /// ended, or ends now because its client has asked to delete it, or is elsewhere.
    pub fn goes_out(&mut self, prompt: &PromptId, attempt: u32, now: Instant) -> Step<bool> {
        Step::of(|effects| {
            let Some(pending) = self.prompts.get_mut(prompt) else { return false };
            if pending.is_due(attempt) && pending.delete_asked {
                self.end(prompt, (End::Deleted, KnownBy::Found), now, effects);
                return false;
            }
            pending.goes_out(attempt, now)
        })
    }

    /// The task that has sent a prompt cannot find out what became of it. Its backend is asked from
    /// now on.
    pub fn left_to_asking(&mut self, prompt: &PromptId, attempt: u32) -> Step {
        Step::of(|effects| {
            let pending = self.prompts.get_mut(prompt).filter(|it| it.attempt() == attempt);
            if let Some(pending) = pending {
                pending.left_to_asking();
                effects.asks = true;
            }
        })
    }

    /// The process that an attempt went to is gone, and may have begun it: the prompt is lost, or
    /// has ended if its end was told.
    pub fn lost_on_the_way(&mut self, prompt: &PromptId, attempt: u32, now: Instant) -> Step {
        let end = (End::Lost(Loss::BackendRestarted), KnownBy::GivenUp);
        self.end_attempt((prompt, attempt), end, now)
    }

    /// A prompt that was shown to a backend may have begun there, and that was turned off by force
    /// meanwhile: it is lost, and stopped there.
    pub fn cut_off(&mut self, prompt: &PromptId, attempt: u32, now: Instant) -> Step {
        self.end_attempt((prompt, attempt), (End::Lost(Loss::Reset), KnownBy::CutOff), now)
    }

    fn end_attempt(
        &mut self,
        (prompt, attempt): (&PromptId, u32),
        end: (End, KnownBy),
        now: Instant,
    ) -> Step {
        Step::of(|effects| {
            let pending = self.pending().get(prompt);
            let is_this = |it: &&Pending| it.attempt() == attempt && it.course() == Course::Kept;
            if pending.filter(is_this).is_some() {
                self.end(prompt, end, now, effects);
            }
        })
    }

    /// A backend is turned off by force: what it has is lost, and the binding to it is gone. What
    /// waits goes on, and so does what was not sent; that waits again before. While a prompt is
    /// there for a verdict, the binding stays: all of the client that is at backends is at one.
    pub fn reset_placed(&mut self, from: BackendId, now: Instant) -> Step<Released> {
        Step::of(|effects| {
            let cut_off = self.prompts.cut_off_on(from, now, effects);
            self.last_end = if cut_off == 0 { self.last_end } else { Some(now) };
            let is_there = self.pending().values().any(|it| it.is_on(from));
            if is_there || self.bound.backend() != Some(from) {
                return Released { backend: None, cut_off };
            }
            self.uploads_in_flight = 0;
            Released { backend: self.unbind(What::Reset, now, effects), cut_off }
        })
    }

    /// A prompt that waits has ended in this way. False if it does not wait.
    pub fn drop_waiting(&mut self, prompt: &PromptId, end: End, now: Instant) -> Step<bool> {
        Step::of(|effects| {
            let waits = self.pending().get(prompt).is_some_and(|it| it.is_waiting());
            if waits {
                self.end(prompt, (end, KnownBy::Found), now, effects);
            }
            waits
        })
    }

    /// A prompt that waits or was being sent was refused, after its client was told that it is
    /// accepted.
    pub fn refused_late(&mut self, prompt: &PromptId, now: Instant) -> Step {
        Step::of(|effects| {
            let refused = (End::Lost(Loss::Refused), KnownBy::Found);
            self.end(prompt, refused, now, effects);
        })
    }

    /// True if a prompt waits.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        0 < self.prompts.waiting()
    }

    /// The backend where something holds the client.
    #[must_use]
    pub fn held_at(&self) -> Option<BackendId> {
        self.bound.backend().filter(|_| self.is_held())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::client::Outcome;
    use crate::routing::effects::{Effects, QueueNews};
    use crate::routing::pending::{Observation, Process};
    use crate::routing::placement::tests::fleet;

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    /// A client with a prompt that was handed over to the first of two backends, and its attempt.
    fn handed_over(errand: Errand) -> (Client, u32, Instant) {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let now = Instant::now();
        let mut client = Client::new(now);
        assert_eq!(client.enqueue(id("p"), 9, now).split().0, Ok(()));
        let attempt = goes_to(&mut client, 0, errand, now);
        (client, attempt, now)
    }

    fn goes_to(client: &mut Client, backend: u16, errand: Errand, now: Instant) -> u32 {
        let views = fleet("Ru0 Ru0");
        let fleet = FleetNow { backends: &views, turn: 0 };
        let to = (BackendId::nth(backend), errand);
        assert!(client.hand_over(&id("p"), to, fleet, now).split().0.is_ok());
        client.pending()["p"].attempt()
    }

    fn did<T>(step: Step<T>) -> T {
        step.split().0
    }

    fn ends(effects: &Effects) -> Vec<End> {
        effects.ended.iter().map(|ended| ended.end).collect()
    }

    #[test]
    fn what_belongs_to_an_attempt_that_is_over_changes_nothing() {
        let (mut client, first, now) = handed_over(Errand::Run);
        assert!(did(client.wait_again(&id("p"), first, now)));
        assert!(!did(client.goes_out(&id("p"), first, now)), "it waits");
        let second = goes_to(&mut client, 1, Errand::Run, now);
        assert!(!did(client.wait_again(&id("p"), first, now)));
        assert!(!did(client.goes_out(&id("p"), first, now)), "it is elsewhere");
        did(client.lost_on_the_way(&id("p"), first, now));
        assert_eq!(client.work(), 1);
        assert!(did(client.goes_out(&id("p"), second, now)));
        assert!(did(client.goes_out(&id("p"), second, now)), "again, with a file that it lacked");
        assert_eq!(client.pending()["p"].backend(), Some(BackendId::nth(1)));
    }

    #[test]
    fn what_was_not_sent_waits_when_its_backend_is_given_up_and_what_was_is_lost() {
        let give_up = |client: &mut Client, now| {
            client.give_up(&id("p"), Loss::BackendGone, Outcome::Untold, now).split().1
        };
        let (mut client, _, now) = handed_over(Errand::Run);
        assert_eq!(ends(&give_up(&mut client, now)), []);
        assert!(client.pending()["p"].is_waiting());
        let attempt = goes_to(&mut client, 0, Errand::Run, now);
        assert!(did(client.goes_out(&id("p"), attempt, now)));
        assert_eq!(ends(&give_up(&mut client, now)), [End::Lost(Loss::BackendGone)]);
    }

    #[test]
    fn a_deletion_of_what_was_not_sent_ends_it_and_one_of_what_is_being_sent_is_kept_in_mind() {
        let (mut client, attempt, now) = handed_over(Errand::Run);
        let (place, effects) = client.delete_asked(&id("p"), now).split();
        assert!(place.is_none() && ends(&effects) == [End::Deleted]);
        assert!(!did(client.goes_out(&id("p"), attempt, now)));

        let (mut client, attempt, now) = handed_over(Errand::Trial);
        assert!(did(client.goes_out(&id("p"), attempt, now)));
        assert_eq!(did(client.delete_asked(&id("p"), now)), Some(BackendId::nth(0)));
        let (waits, effects) = client.wait_again(&id("p"), attempt, now).split();
        assert!(waits && ends(&effects) == [End::Deleted]);

        let (mut client, attempt, now) = handed_over(Errand::Trial);
        assert!(did(client.wait_again(&id("p"), attempt, now)));
        // It was asked for when the trial still had it.
        let (place, effects) = client.delete_asked(&id("p"), now).split();
        assert!(place.is_none() && ends(&effects) == [End::Deleted]);

        // The first backend has refused it for want of a file, which is on its way now.
        let (mut client, attempt, now) = handed_over(Errand::Run);
        assert!(did(client.goes_out(&id("p"), attempt, now)));
        assert_eq!(did(client.delete_asked(&id("p"), now)), Some(BackendId::nth(0)));
        let (goes_out, effects) = client.goes_out(&id("p"), attempt, now).split();
        assert!(!goes_out && ends(&effects) == [End::Deleted]);
    }

    #[test]
    fn a_backend_that_is_turned_off_takes_nothing_with_it_that_waits() {
        let off = BackendId::nth(0);
        let (mut client, attempt, now) = handed_over(Errand::Run);
        assert_eq!(did(client.enqueue(id("q"), 9, now)), Ok(()));
        assert!(did(client.goes_out(&id("p"), attempt, now)));
        let (released, effects) = client.reset_placed(off, now).split();
        assert_eq!((released.cut_off, ends(&effects)), (1, vec![End::Lost(Loss::Reset)]));
        assert!(client.pending()["q"].is_waiting() && client.has_waiting());
        assert_eq!(client.bound(), None);

        // What is shown there is taken back, and what is elsewhere stays.
        for (errand, off) in [(Errand::Trial, off), (Errand::Run, BackendId::nth(1))] {
            let (mut client, attempt, now) = handed_over(errand);
            assert!(did(client.goes_out(&id("p"), attempt, now)));
            assert_eq!(did(client.reset_placed(off, now)).cut_off, 0);
            assert!(client.pending()["p"].is_on(BackendId::nth(0)));
            assert_eq!(client.bound().map(|bound| bound.0), Some(BackendId::nth(0)));
            let effects = client.cut_off(&id("p"), attempt, now).split().1;
            assert_eq!(ends(&effects), [End::Lost(Loss::Reset)], "it has begun there");
        }
    }

    #[test]
    fn the_queue_learns_that_a_backend_has_a_prompt_however_that_is_found() {
        let (mut client, attempt, now) = handed_over(Errand::Trial);
        client.left_to_asking(&id("p"), attempt).split().1.asks.then_some(()).unwrap();
        let queued = client.on_probe(&id("p"), Observation::Queued, now).split().1;
        assert_eq!(queued.queue, Some(QueueNews::Accepted(id("p"))));
        let runs = client.on_probe(&id("p"), Observation::Running, now).split().1;
        assert_eq!(runs.queue, Some(QueueNews::Began(id("p"))));
        let gone = Observation::Absent(Process::Restarted);
        let gone = client.on_probe(&id("p"), gone, now).split().1;
        assert_eq!(ends(&gone), [End::Lost(Loss::BackendRestarted)], "it may have run");
    }
}
