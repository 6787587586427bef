//! Pending prompts that wait in the gateway, or may do so again because their bodies are kept.

use std::time::Instant;

use super::{End, Finding, Loss, Pending, Phase};
use crate::routing::ids::BackendId;

/// Whether a prompt has waited in the gateway, and may do so again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Course {
    /// It was sent when it was submitted.
    Direct,
    /// Its body is kept: if no backend has it, it waits.
    Kept,
    /// It has waited, and a backend has accepted it. Its body is kept until it has begun.
    Taken,
    /// It has waited, and has begun.
    HandedOver,
}

/// What a prompt that has waited goes to a backend for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Errand {
    /// To run.
    Run,
    /// To be judged: it is taken back at once.
    Trial,
}

/// What an answer or an absence has settled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
    Ended(End),
    /// No backend has it and its body is kept: it waits.
    Waits,
}

impl Pending {
    /// A prompt that waits in the gateway.
    #[must_use]
    pub fn waiting(since: Instant, now: Instant) -> Self {
        // The backend is never seen: it is taken out here.
        let sent = Self::new(BackendId::nth(0), now);
        let decided = (since == now).then_some(now);
        let (place, course, phase) = (None, Course::Kept, Phase::Waiting);
        Self { place, course, since, phase, decided, is_out: false, ..sent }
    }

    /// The same prompt, with its body kept: if its backend does not have it, it waits.
    #[must_use]
    pub fn kept(self) -> Self {
        Self { course: Course::Kept, ..self }
    }

    /// The same prompt, which a backend has accepted.
    #[must_use]
    pub fn taken(self) -> Self {
        Self { course: Course::Taken, ..self }
    }

    /// The same prompt, which went where it is for this.
    #[must_use]
    pub fn went_for(self, errand: Errand) -> Self {
        // What an earlier process sent is not the first attempt.
        Self { errand, attempt: self.attempt + 1, ..self }
    }

    /// The number of its present attempt, or of its present wait.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// When it was sent to its place. A process that began later does not have it.
    #[must_use]
    pub fn sent(&self) -> Instant {
        self.sent
    }

    /// True if it is at its backend for a verdict only, as far as is known.
    #[must_use]
    pub fn is_on_trial(&self) -> bool {
        self.errand == Errand::Trial && self.course == Course::Kept && !self.is_waiting()
    }

    /// True if no byte of it was sent, and it may wait again.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.course == Course::Kept && !self.is_out && !self.is_waiting()
    }

    /// The first byte of this attempt is about to be sent. False if it must not be: the attempt is
    /// over.
    pub(in crate::routing) fn goes_out(&mut self, attempt: u32, now: Instant) -> bool {
        let is_due = self.is_due(attempt);
        if is_due {
            (self.is_out, self.sent, self.certain) = (true, now, now);
        }
        is_due
    }

    /// True if this attempt is not over.
    pub(in crate::routing) fn is_due(&self, attempt: u32) -> bool {
        self.phase == Phase::Sending && self.attempt == attempt
    }

    /// Its own task knows nothing more of it: its backend is asked, as after a restart.
    pub(in crate::routing) fn left_to_asking(&mut self) {
        if self.phase == Phase::Sending && self.course == Course::Kept {
            (self.phase, self.must_ask) = (Phase::Restored, true);
        }
    }

    /// Where it is, or is being sent to; `None` while it waits.
    #[must_use]
    pub fn backend(&self) -> Option<BackendId> {
        self.place
    }

    /// True if it is at this backend, or is being sent there.
    #[must_use]
    pub fn is_on(&self, backend: BackendId) -> bool {
        self.place == Some(backend)
    }

    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.phase == Phase::Waiting
    }

    #[must_use]
    pub fn course(&self) -> Course {
        self.course
    }

    /// It goes to another backend than before. It is not known to any yet.
    pub(in crate::routing) fn moved(&mut self, to: BackendId, now: Instant) {
        (self.place, self.attempt, self.sent) = (Some(to), self.attempt + 1, now);
    }

    /// It has waited, and is about to be sent to this backend.
    pub(in crate::routing) fn handed_over(&mut self, to: BackendId, errand: Errand, now: Instant) {
        let (since, decided, deaths) = (self.since, self.decided, self.deaths);
        let attempt = self.attempt + 1;
        let sent = Self::new(to, now).kept();
        *self = Self { since, decided, attempt, errand, deaths, is_out: false, ..sent };
    }

    /// No backend has it: it waits again.
    pub(in crate::routing) fn waits_again(&mut self, now: Instant) {
        let (decided, attempt, deaths) = (self.decided, self.attempt + 1, self.deaths);
        *self = Self { decided, attempt, deaths, ..Self::waiting(self.since, now) };
    }

    /// Its backend certainly does not have it. It waits again if it never had: a process that is
    /// gone may have begun it, and it must not run twice.
    pub(super) fn missing(&self, loss: Loss) -> Settled {
        let never_arrived = loss == Loss::Vanished || !self.is_out;
        match (self.course, self.gone(loss)) {
            (Course::Kept, End::Lost(_)) if never_arrived => Settled::Waits,
            (Course::Direct | Course::Kept | Course::Taken | Course::HandedOver, end) => {
                Settled::Ended(end)
            }
        }
    }

    /// True if it is in its backend's queue and can be taken back: a link has listened since this
    /// moment, and nothing of it was missed.
    #[must_use]
    pub fn may_come_back(&self, listens: Instant) -> bool {
        let is_queued = self.course == Course::Taken && self.phase == Phase::Queued;
        is_queued && self.started.is_none() && !self.delete_asked && listens <= self.certain
    }

    /// It is taken back from its backend, as one that went there for a verdict only. What was asked
    /// before is about the attempt that is over.
    pub(in crate::routing) fn comes_back(&mut self) {
        self.attempt += 1;
        (self.course, self.errand, self.must_ask) = (Course::Kept, Errand::Trial, true);
        self.finding = Finding::Nothing;
    }

    /// True while it is not known whether it stays where it is or is going: what is to be done with
    /// it is done when that is known.
    #[must_use]
    pub fn is_on_the_way(&self) -> bool {
        let is_being_sent = self.phase == Phase::Sending && self.course == Course::Kept;
        is_being_sent || self.is_coming_back()
    }

    /// True if it is taken back by asking: no task of its own does that, or any more.
    #[must_use]
    pub fn is_coming_back(&self) -> bool {
        self.is_on_trial() && self.phase != Phase::Sending && self.started.is_none()
    }

    /// A backend has accepted it.
    pub(super) fn is_taken(&mut self) {
        if self.course == Course::Kept {
            self.course = Course::Taken;
        }
    }

    /// It has begun, so it never waits any more.
    pub(super) fn has_begun(&mut self) {
        match self.course {
            Course::Direct | Course::HandedOver => {}
            Course::Kept | Course::Taken => self.course = Course::HandedOver,
        }
    }
}
