//! One pending prompt: what is known of it, and when it has ended (promises P1, P3, P5, P6).
//!
//! A prompt is pending from the moment we decide to send it, or to let it wait until a backend has
//! room. A terminal event makes it *ending*. It
//! has *ended* when `executing` null with its id was relayed, when its history entry was seen and
//! [`HISTORY_SETTLES`] has passed, or when it is gone. Events can be lost with a link, so the
//! answers of a backend that is asked count as much as events.

mod losses;
mod observation;
mod steps;
mod waiting;

use std::time::{Duration, Instant};

use super::ids::BackendId;

pub use super::end::{End, Loss};
use losses::Closed;
pub use losses::{Fate, Hearing, Shut};
pub use observation::{Observation, Process, process_since};
pub use steps::Signal;
use steps::Steps;
pub use waiting::{Course, Errand, Settled};

/// How long a prompt's own events may still arrive after its history entry was seen.
pub const HISTORY_SETTLES: Duration = Duration::from_secs(1);

/// The least time between two answers before an absent prompt counts as gone: one answer may fall
/// between dequeue and start, when the prompt is in neither list.
pub const ABSENT_LOOKS_APART: Duration = Duration::from_secs(2);

/// How far a pending prompt is known to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// It waits in the gateway and is at no backend.
    Waiting,
    /// Decided and perhaps sent; there is no answer yet.
    Sending,
    /// Pending when the gateway was restarted; its backend was not yet asked about it.
    Restored,
    /// The backend has it in its queue.
    Queued,
    /// The backend runs it.
    Running,
    /// A terminal event was seen; the closing `executing` null was not yet relayed.
    Ending(End),
}

impl Phase {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sending => "sending",
            Self::Restored => "restored",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Ending(_) => "ending",
        }
    }
}

/// One entry of a client's map of pending prompts.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Where it is or is being sent to. Invariant: `None` exactly while it waits.
    place: Option<BackendId>,
    course: Course,
    /// Rises with each change of its place: what was asked, found or done in an earlier attempt is
    /// not about this one.
    attempt: u32,
    /// When it was sent to its place, or decided to be: a process that is newer does not have it.
    sent: Instant,
    /// What it went there for.
    errand: Errand,
    /// False while it is certain that no byte of this attempt was sent.
    is_out: bool,
    /// When its backend was last known to have it where it is said to be: it was sent then, or was
    /// asked for. Events count besides.
    certain: Instant,
    /// The link to its backend has ended, and nothing was heard or seen of it since.
    closed: Option<Closed>,
    /// At how many backends it was whose processes died.
    deaths: u32,
    /// When the gateway decided to send it, or to let it wait.
    pub since: Instant,
    /// When it was last seen, in an event or in an answer.
    pub heard: Instant,
    pub phase: Phase,
    /// Its client asked to delete it while it may still have been queued.
    pub delete_asked: bool,
    /// Its backend must be asked about it, whatever events came: its link broke, its backend came
    /// back, or `executing` null came without an outcome.
    pub must_ask: bool,
    /// The end of the reservation that its submission used up.
    pub reservation: Option<Instant>,
    finding: Finding,
    /// When its last event came.
    spoke: Instant,
    /// When it started, if no later event came.
    began: Option<Instant>,
    /// When it was first seen to run.
    started: Option<Instant>,
    /// When this process decided to send it.
    decided: Option<Instant>,
    /// When it was first seen to have stopped, by an event or in the history. How it ended may be
    /// settled later.
    stopped: Option<Instant>,
    steps: Steps,
}

/// What answers have shown so far, while they do not settle the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Finding {
    Nothing,
    /// Its history entry was first seen at this time.
    InHistory {
        end: End,
        since: Instant,
    },
    /// The backend first did not know it at this time.
    Absent {
        since: Instant,
    },
}

impl Pending {
    #[must_use]
    pub fn new(backend: BackendId, now: Instant) -> Self {
        Self {
            place: Some(backend),
            course: Course::Direct,
            attempt: 0,
            sent: now,
            errand: Errand::Run,
            is_out: true,
            certain: now,
            closed: None,
            deaths: 0,
            since: now,
            heard: now,
            phase: Phase::Sending,
            delete_asked: false,
            must_ask: false,
            reservation: None,
            finding: Finding::Nothing,
            spoke: now,
            began: None,
            started: None,
            decided: Some(now),
            stopped: None,
            steps: Steps::default(),
        }
    }

    /// A prompt that was pending when the gateway was restarted. Its backend must be asked whether
    /// it has it.
    #[must_use]
    pub fn restored(backend: BackendId, since: Instant, now: Instant) -> Self {
        let asked_for = Self { phase: Phase::Restored, must_ask: true, ..Self::new(backend, now) };
        Self { since, sent: since, certain: since, decided: None, ..asked_for }
    }

    /// A prompt that was found in its backend's queue and was unknown here. Its backend must be
    /// asked what has happened to it since.
    #[must_use]
    pub fn found(backend: BackendId, since: Instant, now: Instant) -> Self {
        Self { phase: Phase::Queued, ..Self::restored(backend, since, now) }
    }

    /// The backend accepted it (it answered 200, or the prompt was found there).
    pub fn accepted(&mut self, now: Instant) {
        if self.is_waiting() {
            return;
        }
        self.is_known(now);
        self.is_taken();
        match self.phase {
            Phase::Waiting => {}
            Phase::Sending | Phase::Restored => self.phase = Phase::Queued,
            // Its first events may arrive before the answer.
            Phase::Queued | Phase::Running | Phase::Ending(_) => {}
        }
    }

    /// Applies an event. Returns the end, if this event ends it.
    pub fn on_event(&mut self, heard: Signal, now: Instant) -> Option<End> {
        if self.is_waiting() {
            // It is at no backend, so this is about an attempt that is over.
            return None;
        }
        self.is_known(now);
        self.spoke = now;
        self.began = (heard == Signal::Started).then_some(self.began.unwrap_or(now));
        self.steps.heard(heard, now);
        match (heard, self.phase) {
            (Signal::Started | Signal::Progressed | Signal::Node | Signal::Step, _) => {
                self.runs(now);
                None
            }
            (Signal::Terminal(end), _) => {
                self.has_begun();
                self.phase = Phase::Ending(end);
                self.stopped.get_or_insert(now);
                None
            }
            (Signal::LastWord, Phase::Ending(end)) => Some(end),
            (Signal::LastWord, _) => {
                // No event told the outcome, so it must be read from the history.
                self.must_ask = true;
                if self.course != Course::Direct {
                    self.stopped.get_or_insert(now);
                }
                None
            }
        }
    }

    /// Applies an answer. Returns what this answer settles.
    pub fn on_probe(&mut self, sighted: Observation, now: Instant) -> Option<Settled> {
        if self.is_waiting() {
            return None;
        }
        match sighted {
            Observation::Queued => {
                self.is_there(now);
                self.is_taken();
                self.phase = Phase::Queued;
                None
            }
            Observation::Running => {
                self.is_there(now);
                self.runs(now);
                None
            }
            Observation::InHistory(end) => {
                self.is_alive();
                self.heard = now;
                let since = match self.finding {
                    Finding::InHistory { since, .. } => since,
                    Finding::Nothing | Finding::Absent { .. } => now,
                };
                self.finding = Finding::InHistory { end, since };
                self.stopped.get_or_insert(since);
                self.has_begun();
                self.settled(now).map(Settled::Ended)
            }
            Observation::Absent(process) => self.is_missed(process, now),
        }
    }

    /// It is in neither queue nor history.
    fn is_missed(&mut self, process: Process, now: Instant) -> Option<Settled> {
        match (process, self.finding) {
            (Process::Restarted, _) => Some(self.missing(Loss::BackendRestarted)),
            // Its history was cleared meanwhile; how it ended is still known.
            (Process::MaybeSame, Finding::InHistory { .. }) => {
                self.settled(now).map(Settled::Ended)
            }
            // It was in the queue when its client asked for the deletion, so one answer is enough.
            (Process::MaybeSame, Finding::Nothing | Finding::Absent { .. })
                if self.delete_asked =>
            {
                Some(self.missing(Loss::Vanished))
            }
            (Process::MaybeSame, Finding::Nothing) => {
                self.finding = Finding::Absent { since: now };
                None
            }
            (Process::MaybeSame, Finding::Absent { since }) => {
                let is_proven = ABSENT_LOOKS_APART <= now.duration_since(since);
                is_proven.then(|| self.missing(Loss::Vanished))
            }
        }
    }

    /// When its last event came; answers do not count.
    #[must_use]
    pub fn spoke(&self) -> Instant {
        self.spoke
    }

    /// When it started, if no later event came and none can have been missed.
    #[must_use]
    pub fn began(&self) -> Option<Instant> {
        self.began
    }

    /// When it was first seen to run, in an event or in an answer.
    #[must_use]
    pub fn started(&self) -> Option<Instant> {
        self.started
    }

    /// For how long it has been seen to run, in events and answers, until it stopped or until now.
    /// `None` if it was never seen to run.
    #[must_use]
    pub fn ran(&self, now: Instant) -> Option<Duration> {
        Some(self.stopped.unwrap_or(now).saturating_duration_since(self.started?))
    }

    /// When this process decided to send it. `None` if an earlier one did, or somebody else.
    #[must_use]
    pub fn decided(&self) -> Option<Instant> {
        self.decided
    }

    /// The prompt was seen, so it is not absent.
    fn is_known(&mut self, now: Instant) {
        self.is_alive();
        self.heard = now;
        if matches!(self.finding, Finding::Absent { .. }) {
            self.finding = Finding::Nothing;
        }
    }

    /// It is at its backend, as expected.
    fn is_there(&mut self, now: Instant) {
        self.is_alive();
        self.must_ask = false;
        self.heard = now;
        self.finding = Finding::Nothing;
    }

    /// It runs, or has just ended: a backend sends the outcome before it counts the prompt as done.
    fn runs(&mut self, now: Instant) {
        self.has_begun();
        match self.phase {
            Phase::Waiting => {}
            Phase::Sending | Phase::Restored | Phase::Queued | Phase::Running => {
                self.stopped = None;
                self.started.get_or_insert(now);
                self.phase = Phase::Running;
            }
            Phase::Ending(_) => {}
        }
        self.delete_asked = false;
    }

    /// Its client asks to delete it; the backend answers 200 in any case. Only a queued prompt is
    /// deleted. A prompt that runs continues, and must not be asked about because of this.
    pub fn ask_delete(&mut self) {
        match self.phase {
            Phase::Sending | Phase::Restored | Phase::Queued => self.delete_asked = true,
            Phase::Waiting | Phase::Running | Phase::Ending(_) => {}
        }
    }

    /// The end that an answer has shown, once its own events have had time to arrive.
    #[must_use]
    pub fn settled(&self, now: Instant) -> Option<End> {
        match self.finding {
            Finding::InHistory { end, since } if HISTORY_SETTLES <= now.duration_since(since) => {
                Some(end)
            }
            Finding::InHistory { .. } | Finding::Nothing | Finding::Absent { .. } => None,
        }
    }

    /// True if its backend should be asked about it now. A prompt that is being sent is left to its
    /// submission, and one that waits is nowhere. One whose `executing` null is overdue has an end
    /// that can be found.
    #[must_use]
    pub fn wants_asking(&self, silent_after: Duration, now: Instant) -> bool {
        let is_sent = !matches!(self.phase, Phase::Waiting | Phase::Sending);
        let is_silent = silent_after <= now.duration_since(self.heard);
        let is_half_found = self.finding != Finding::Nothing || self.delete_asked;
        let is_overdue = matches!(self.phase, Phase::Ending(_))
            && HISTORY_SETTLES <= now.duration_since(self.heard);
        is_sent && (self.must_ask || is_silent || is_half_found || is_overdue)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{Strategy, prop_assert, proptest};
    use proptest::sample::select;

    use super::*;

    impl Pending {
        /// The end that an answer settles, of a prompt that does not wait again.
        fn asked(&mut self, sighted: Observation, now: Instant) -> Option<End> {
            match self.on_probe(sighted, now) {
                None => None,
                Some(Settled::Ended(end)) => Some(end),
                Some(Settled::Waits) => panic!("its body is not kept"),
            }
        }
    }

    #[test]
    fn what_no_backend_has_waits_again_while_its_body_is_kept() {
        let t = start();
        let (absent, gone) =
            (Observation::Absent(Process::MaybeSame), Observation::Absent(Process::Restarted));
        let restored = || Pending::restored(BackendId::nth(0), t, t).kept();
        let mut lost = restored();
        assert_eq!(lost.on_probe(absent, t), None, "one look proves nothing");
        assert_eq!(lost.on_probe(absent, at(t, 2000)), Some(Settled::Waits));
        let restarted = Some(Settled::Ended(End::Lost(Loss::BackendRestarted)));
        assert_eq!(restored().on_probe(gone, t), restarted, "it may have begun there");
        let mut deleted = restored();
        deleted.ask_delete();
        assert_eq!(deleted.on_probe(absent, t), Some(Settled::Ended(End::Deleted)));
        let mut taken = restored();
        assert_eq!(taken.on_probe(Observation::Queued, t), None);
        assert_eq!(taken.on_probe(gone, t), restarted, "it may have run");
    }

    #[test]
    fn nothing_that_is_said_of_a_prompt_that_waits_counts() {
        let t = start();
        let mut waiting = Pending::waiting(t, t);
        assert_eq!(waiting.on_event(Signal::Started, t), None);
        assert_eq!(waiting.on_event(Signal::Terminal(End::Failed), t), None);
        assert_eq!(waiting.on_event(Signal::LastWord, t), None);
        assert_eq!(waiting.on_probe(Observation::InHistory(End::Failed), t), None);
        assert!(waiting.is_waiting() && waiting.backend().is_none());
        assert!(!waiting.wants_asking(Duration::ZERO, at(t, 9)));
    }

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn pending(start: Instant) -> Pending {
        let mut pending = Pending::new(BackendId::nth(0), start);
        pending.accepted(start);
        pending
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_terminal_event_is_not_yet_the_end() {
        let t = start();
        let mut prompt = pending(t);
        assert_eq!(prompt.on_event(Signal::Started, t), None);
        assert_eq!(prompt.on_event(Signal::Terminal(End::Failed), t), None);
        assert_eq!(prompt.on_event(Signal::Progressed, t), None, "a straggler changes nothing");
        assert_eq!(prompt.on_event(Signal::LastWord, t), Some(End::Failed));
    }

    #[test]
    fn it_ran_from_when_it_was_first_seen_to_run_until_it_was_first_seen_to_have_stopped() {
        let t = start();
        let (mut heard, mut found) = (pending(t), pending(t));
        heard.on_event(Signal::Started, at(t, 5));
        heard.on_event(Signal::Progressed, at(t, 9));
        heard.on_event(Signal::Terminal(End::Succeeded), at(t, 11));
        let between = |from, to| Some(at(t, to).duration_since(at(t, from)));
        assert_eq!(heard.ran(at(t, 99)), between(5, 11), "the last word may come much later");
        found.asked(Observation::Queued, at(t, 3));
        assert_eq!(found.ran(at(t, 4)), None);
        found.asked(Observation::Running, at(t, 7));
        assert_eq!(found.ran(at(t, 9)), between(7, 9), "it still runs");
        found.asked(Observation::InHistory(End::Succeeded), at(t, 20));
        found.asked(Observation::InHistory(End::Succeeded), at(t, 9000));
        assert_eq!(found.ran(at(t, 9000)), between(7, 20));
    }

    #[test]
    fn a_last_word_without_an_outcome_asks_the_history() {
        let t = start();
        let mut prompt = pending(t);
        assert_eq!(prompt.on_event(Signal::LastWord, t), None);
        assert!(prompt.wants_asking(Duration::from_secs(30), t));
        assert_eq!(prompt.asked(Observation::InHistory(End::Succeeded), t), None);
        assert_eq!(prompt.settled(at(t, 999)), None);
        assert_eq!(prompt.settled(at(t, 1000)), Some(End::Succeeded));
    }

    #[test]
    fn one_look_that_misses_it_proves_nothing() {
        let t = start();
        let absent = Observation::Absent(Process::MaybeSame);
        let mut prompt = pending(t);
        assert_eq!(prompt.asked(absent, t), None);
        assert_eq!(prompt.asked(absent, at(t, 1999)), None);
        assert_eq!(prompt.asked(Observation::Running, at(t, 2500)), None, "it was there after all");
        assert_eq!(prompt.asked(absent, at(t, 3000)), None, "counted anew");
        assert_eq!(prompt.asked(absent, at(t, 5000)), Some(End::Lost(Loss::Vanished)));
    }

    #[test]
    fn an_event_between_two_looks_starts_the_count_anew() {
        let t = start();
        let absent = Observation::Absent(Process::MaybeSame);
        let mut prompt = pending(t);
        assert_eq!(prompt.asked(absent, t), None);
        assert_eq!(prompt.on_event(Signal::Started, at(t, 1000)), None);
        assert_eq!(prompt.asked(absent, at(t, 2500)), None);
    }

    #[test]
    fn absence_after_a_restart_is_loss_at_once_and_after_a_delete_is_deletion() {
        let t = start();
        let restarted = Observation::Absent(Process::Restarted);
        assert_eq!(pending(t).asked(restarted, t), Some(End::Lost(Loss::BackendRestarted)));
        let mut deleted = pending(t);
        deleted.ask_delete();
        assert_eq!(deleted.asked(restarted, t), Some(End::Deleted));
    }

    #[test]
    fn silence_is_asked_about_and_a_prompt_being_sent_is_not() {
        let t = start();
        let after = Duration::from_secs(30);
        assert!(!pending(t).wants_asking(after, at(t, 29_999)));
        assert!(pending(t).wants_asking(after, at(t, 30_000)));
        assert!(!Pending::new(BackendId::nth(0), t).wants_asking(after, at(t, 60_000)));
    }

    #[test]
    fn a_prompt_that_was_seen_in_the_history_is_not_lost_when_the_history_is_cleared() {
        let t = start();
        let mut cleared = pending(t);
        assert_eq!(cleared.asked(Observation::InHistory(End::Failed), t), None);
        let absent = Observation::Absent(Process::MaybeSame);
        assert_eq!(cleared.asked(absent, at(t, 999)), None, "its events may still come");
        assert!(cleared.wants_asking(Duration::from_secs(30), at(t, 999)));
        assert_eq!(cleared.asked(absent, at(t, 1000)), Some(End::Failed));

        let mut restarted = pending(t);
        assert_eq!(restarted.asked(Observation::InHistory(End::Succeeded), t), None);
        let gone = restarted.asked(Observation::Absent(Process::Restarted), t);
        assert_eq!(gone, Some(End::Succeeded), "no event comes from a process that is gone");
    }

    #[test]
    fn a_delete_of_a_prompt_that_runs_deletes_nothing() {
        let t = start();
        let after = Duration::from_secs(30);
        let absent = Observation::Absent(Process::MaybeSame);
        let mut running = pending(t);
        assert_eq!(running.on_event(Signal::Started, t), None);
        running.ask_delete();
        assert!(!running.wants_asking(after, t), "for all the hours that it runs");
        assert_eq!(running.asked(absent, t), None, "so one look is not enough");

        let mut overtaken = pending(t);
        overtaken.ask_delete();
        assert!(overtaken.wants_asking(after, t));
        assert_eq!(overtaken.asked(Observation::Queued, t), None);
        assert!(overtaken.wants_asking(after, t), "the deletion may be on its way");
        assert_eq!(overtaken.asked(Observation::Running, t), None);
        assert!(!overtaken.wants_asking(after, t));

        let mut waiting = pending(t);
        waiting.ask_delete();
        assert_eq!(waiting.asked(absent, t), Some(End::Deleted));
    }

    #[test]
    fn a_prompt_that_told_its_end_and_is_not_yet_counted_as_done_keeps_its_end() {
        let t = start();
        let mut prompt = pending(t);
        assert_eq!(prompt.on_event(Signal::Terminal(End::Interrupted), t), None);
        assert_eq!(prompt.asked(Observation::Running, t), None);
        assert_eq!(prompt.on_event(Signal::LastWord, t), Some(End::Interrupted));

        let mut forged = pending(t);
        assert_eq!(forged.on_event(Signal::Terminal(End::Succeeded), t), None);
        assert_eq!(forged.asked(Observation::Queued, t), None, "it has not even begun");
        assert_eq!(forged.on_event(Signal::LastWord, t), None);
    }

    #[test]
    fn a_last_word_that_does_not_come_is_not_waited_for() {
        let t = start();
        let after = Duration::from_secs(30);
        let mut prompt = pending(t);
        assert_eq!(prompt.on_event(Signal::Terminal(End::Succeeded), t), None);
        assert!(!prompt.wants_asking(after, at(t, 999)));
        assert!(prompt.wants_asking(after, at(t, 1000)));
        assert_eq!(prompt.asked(Observation::InHistory(End::Succeeded), at(t, 1000)), None);
        let settled = prompt.asked(Observation::InHistory(End::Succeeded), at(t, 2000));
        assert_eq!(settled, Some(End::Succeeded), "two seconds after its terminal event");
    }

    #[test]
    fn an_answer_between_two_looks_starts_the_count_anew() {
        let t = start();
        let absent = Observation::Absent(Process::MaybeSame);
        let mut prompt = Pending::new(BackendId::nth(0), t);
        assert_eq!(prompt.asked(absent, t), None);
        prompt.accepted(at(t, 1000));
        assert_eq!(prompt.asked(absent, at(t, 2500)), None);
        assert_eq!(prompt.asked(absent, at(t, 4500)), Some(End::Lost(Loss::Vanished)));
    }

    #[test]
    fn a_process_that_began_after_a_prompt_was_sent_is_another() {
        let t = start();
        assert_eq!(process_since(t, Some(at(t, 1))), Process::Restarted);
        assert_eq!(process_since(t, Some(t)), Process::MaybeSame);
        assert_eq!(process_since(at(t, 1), Some(t)), Process::MaybeSame);
        assert_eq!(process_since(t, None), Process::MaybeSame);
    }

    #[derive(Clone, Copy, Debug)]
    enum Told {
        Heard(Signal),
        Observation(Observation),
        AskedToDelete,
    }

    fn anything() -> impl Strategy<Value = Told> {
        let ends = [End::Succeeded, End::Failed, End::Interrupted];
        let mut all = vec![
            Told::Heard(Signal::Started),
            Told::Heard(Signal::Progressed),
            Told::Heard(Signal::LastWord),
            Told::Observation(Observation::Queued),
            Told::Observation(Observation::Running),
            Told::Observation(Observation::Absent(Process::MaybeSame)),
            Told::Observation(Observation::Absent(Process::MaybeSame)),
            Told::Observation(Observation::Absent(Process::Restarted)),
            Told::AskedToDelete,
        ];
        all.extend(ends.map(|end| Told::Heard(Signal::Terminal(end))));
        all.extend(ends.map(|end| Told::Observation(Observation::InHistory(end))));
        select(all)
    }

    proptest! {
        /// In any sequence of inputs, a prompt ends only in a way that an input has told.
        #[test]
        fn no_end_is_made_up(story in vec((anything(), 0..2_500_u64), 1..40)) {
            let mut now = start();
            let mut prompt = pending(now);
            let mut told: Vec<Told> = Vec::new();
            for (next, pause) in story {
                now = at(now, pause);
                told.push(next);
                let end = match next {
                    Told::Heard(heard) => prompt.on_event(heard, now),
                    Told::Observation(sighted) => prompt.asked(sighted, now),
                    Told::AskedToDelete => {
                        prompt.ask_delete();
                        None
                    }
                };
                let Some(end) = end else { continue };
                let said = |is: &dyn Fn(&Told) -> bool| told.iter().any(is);
                let was_said = said(&|it| match it {
                    Told::Heard(Signal::Terminal(said)) => *said == end,
                    Told::Observation(Observation::InHistory(said)) => *said == end,
                    Told::Heard(_) | Told::Observation(_) | Told::AskedToDelete => false,
                });
                let misses = told
                    .iter()
                    .filter(|it| matches!(it, Told::Observation(Observation::Absent(_))))
                    .count();
                let ending = match end {
                    End::Succeeded | End::Failed | End::Interrupted => was_said,
                    End::Deleted => 0 < misses && said(&|it| matches!(it, Told::AskedToDelete)),
                    End::Lost(Loss::Vanished) => 1 < misses,
                    End::Lost(Loss::BackendRestarted) => matches!(
                        next,
                        Told::Observation(Observation::Absent(Process::Restarted))
                    ),
                    End::Lost(
                        Loss::BackendGone
                        | Loss::BackendDied
                        | Loss::BackendWedged
                        | Loss::Reset
                        | Loss::GatewayRestarted
                        | Loss::BackendRemoved
                        | Loss::Refused
                        | Loss::WaitedTooLong,
                    ) => false,
                };
                prop_assert!(ending, "{end:?} after {told:?}");
                break;
            }
        }
    }

    #[test]
    fn a_restored_prompt_is_asked_for_at_once_and_is_lost_by_us_if_its_backend_never_had_it() {
        let (t, silent) = (start(), Duration::from_secs(30));
        let absent = Observation::Absent(Process::MaybeSame);
        let mut prompt = Pending::restored(BackendId::nth(0), t, t);
        assert!(prompt.wants_asking(silent, t));
        assert_eq!(prompt.asked(absent, t), None);
        assert_eq!(prompt.asked(absent, at(t, 2000)), Some(End::Lost(Loss::GatewayRestarted)));

        let mut prompt = Pending::restored(BackendId::nth(0), t, t);
        assert_eq!(prompt.asked(Observation::Queued, t), None);
        assert!(!prompt.wants_asking(silent, t));
        assert_eq!(prompt.asked(absent, t), None);
        assert_eq!(prompt.asked(absent, at(t, 2000)), Some(End::Lost(Loss::Vanished)));
    }

    #[test]
    fn a_prompt_whose_outcome_was_heard_is_not_lost_with_its_backend() {
        let t = start();
        let mut prompt = pending(t);
        assert_eq!(prompt.given_up(), End::Lost(Loss::BackendGone));
        prompt.on_event(Signal::Terminal(End::Failed), t);
        assert_eq!(prompt.given_up(), End::Failed);
    }

    #[test]
    fn every_end_is_found_by_its_reason() {
        for end in End::ALL {
            assert_eq!(End::of_reason(end.reason()), end);
        }
        assert_eq!(End::of_reason("eaten"), End::Lost(Loss::Vanished));
    }

    #[test]
    fn every_end_has_a_reason_of_its_own() {
        let mut reasons: Vec<&str> = End::ALL.iter().map(|end| end.reason()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), End::ALL.len());
    }
}
