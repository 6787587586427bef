//! What becomes of a prompt when the process is gone that its backend had.
//!
//! A process that has died tells nothing any more, so whether it had begun a prompt is known only
//! from what it said before. Three facts together say that it had not:
//!
//! - Its link listened without a break since the prompt was sent or was seen in the queue, and it
//!   was the process that closed it: all that it had said of the prompt was heard, and that was
//!   nothing.
//! - Another prompt ran there when the process died, by the same kind of evidence. A ComfyUI runs
//!   one at a time, so the prompt had begun only if the end of the other and its own start were
//!   both said in the last moment, and to nobody.
//! - The process is gone: since then its port was found to be closed.
//!
//! Whatever else is known proves nothing, and the prompt is lost: it must not run twice.

use std::time::{Duration, Instant};

use super::{Course, End, Finding, Loss, Pending, Phase};

/// How far apart the links to one process close at most when it dies.
const CLOSE_TOGETHER: Duration = Duration::from_secs(2);

/// How long after its link has closed another link may still show what ran there.
const ANOTHER_MAY_CLOSE: Duration = Duration::from_secs(1);

/// For how long a port has to be closed, without a break, until its process counts as dead. A proxy
/// or a tunnel that is restarted is back before that.
const DEAD_AFTER: Duration = Duration::from_secs(10);

/// When the port of a backend was found to be closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shut {
    /// For the first time since it was last open.
    pub since: Instant,
    /// For the last time.
    pub last: Instant,
}

/// How a link has ended that was open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hearing {
    /// The backend has closed it, and all that it had said since this moment was heard.
    Since(Instant),
    /// It broke: what was said last may not have been heard.
    Doubtful,
}

/// The link to its backend has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Closed {
    at: Instant,
    /// All that was said of the prompt until then was heard.
    is_whole: Whole,
    /// When it was opened again.
    reopened: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whole {
    Yes,
    No,
}

/// What becomes of a prompt whose process may be gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// Its process is not known to be gone, or may have begun it: its backend is asked.
    Stays,
    /// Another link may still show what ran there.
    Unclear,
    /// It had certainly not begun: it goes elsewhere.
    Unbegun,
    /// It may have begun, and its process has been gone for long: it is lost.
    Lost,
}

impl Pending {
    /// Its link broke: events may be missed from now on.
    pub fn deaf(&mut self) {
        self.began = None;
        self.steps.may_be_missed();
    }

    /// The link to its backend has ended.
    pub(in crate::routing) fn link_closed(&mut self, hearing: Hearing, now: Instant) {
        let is_whole = match hearing {
            Hearing::Since(opened) if opened <= self.certain.max(self.spoke) => Whole::Yes,
            Hearing::Since(_) | Hearing::Doubtful => Whole::No,
        };
        self.closed = Some(Closed { at: now, is_whole, reopened: None });
    }

    /// A link to its backend is open again: what its port says from now on is not about the process
    /// that has closed the last one.
    pub(in crate::routing) fn link_opened(&mut self, now: Instant) {
        if let Some(closed) = &mut self.closed {
            closed.reopened.get_or_insert(now);
        }
    }

    /// Its backend has it, or has said something of it: its process is not gone.
    pub(super) fn is_alive(&mut self) {
        self.closed = None;
    }

    /// Its backend was asked at this time, and has it still where it was.
    pub(in crate::routing) fn was_certain(&mut self, asked: Instant) {
        self.certain = self.certain.max(asked);
    }

    /// The process at its backend has died. Returns how many did that had it.
    pub(in crate::routing) fn died(&mut self) -> u32 {
        self.deaths = self.deaths.saturating_add(1);
        self.deaths
    }

    /// True if it ran when its link was closed, as far as its process has said.
    #[must_use]
    pub fn ran_when_closed(&self) -> bool {
        let is_heard_out = self.closed.is_some_and(|it| it.is_whole == Whole::Yes);
        // One that was seen in the history is over, and so is one whose closing `executing` came.
        let runs = self.phase == Phase::Running && self.stopped.is_none();
        is_heard_out && runs && self.finding == Finding::Nothing
    }

    /// True if its link was closed, and the port after that: its process may be gone.
    #[must_use]
    pub fn may_be_gone(&self, shut: Shut) -> bool {
        self.closed_before(shut).is_some()
    }

    /// The end of its link, if the port was closed after that and before the link opened again.
    fn closed_before(&self, shut: Shut) -> Option<Closed> {
        let is_gone = |closed: &Closed| {
            closed.at < shut.last && closed.reopened.is_none_or(|reopened| shut.last < reopened)
        };
        self.closed.filter(is_gone)
    }

    /// What becomes of it if its port was closed then, and another prompt ran at its backend when
    /// the link of that was closed.
    #[must_use]
    pub fn fate(&self, shut: Shut, another: Option<Instant>, now: Instant) -> Fate {
        let Some(closed) = self.closed_before(shut) else { return Fate::Stays };
        let is_heard_out = self.is_out && self.started.is_none() && closed.is_whole == Whole::Yes;
        let is_behind = another.is_some_and(|another| self.was_beside(another, closed.at));
        let is_dead =
            closed.reopened.is_none() && closed.at.max(shut.since) + DEAD_AFTER <= shut.last;
        match (self.course, self.phase) {
            (Course::Direct, _) | (_, Phase::Waiting) => Fate::Stays,
            (Course::Kept, Phase::Sending | Phase::Queued) | (Course::Taken, Phase::Queued)
                if is_heard_out && is_behind =>
            {
                Fate::Unbegun
            }
            (Course::Kept, Phase::Sending | Phase::Queued) | (Course::Taken, Phase::Queued)
                if is_heard_out && now < closed.at + ANOTHER_MAY_CLOSE =>
            {
                Fate::Unclear
            }
            // Who sends it finds out what became of it.
            (_, Phase::Sending) => Fate::Stays,
            (Course::Kept | Course::Taken | Course::HandedOver, _) if is_dead => Fate::Lost,
            (Course::Kept | Course::Taken | Course::HandedOver, _) => Fate::Stays,
        }
    }

    /// Its end when its backend has stayed away longer than its grace: the outcome from an event,
    /// if there was one.
    #[must_use]
    pub fn given_up(&self) -> End {
        self.gone(Loss::BackendGone)
    }

    /// A prompt that was deleted on request, or that ended before its history was cleared, is not
    /// lost; any other that its backend no longer knows is.
    pub(super) fn gone(&self, loss: Loss) -> End {
        match (self.finding, self.phase) {
            (Finding::InHistory { end, .. }, _) | (_, Phase::Ending(end)) => end,
            (
                _,
                Phase::Waiting | Phase::Sending | Phase::Restored | Phase::Queued | Phase::Running,
            ) if self.delete_asked => End::Deleted,
            // It is no longer known whether it was ever sent.
            (_, Phase::Restored) if loss == Loss::Vanished => End::Lost(Loss::GatewayRestarted),
            (
                _,
                Phase::Waiting | Phase::Sending | Phase::Restored | Phase::Queued | Phase::Running,
            ) => End::Lost(loss),
        }
    }

    /// True if a prompt whose link was closed then ran at the process to which this one was sent.
    fn was_beside(&self, another: Instant, closed: Instant) -> bool {
        let apart = another.max(closed).duration_since(another.min(closed));
        self.sent < another && apart <= CLOSE_TOGETHER
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::super::{Errand, Observation, Process, Settled, Signal};
    use super::*;
    use crate::routing::ids::BackendId;

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    /// A prompt that has waited, and that a backend has accepted at this time.
    fn queued(now: Instant) -> Pending {
        let mut pending = Pending::waiting(now, now);
        pending.handed_over(BackendId::nth(0), Errand::Run, now);
        assert!(pending.goes_out(1, now));
        pending.accepted(now);
        assert_eq!(pending.course(), Course::Taken);
        pending
    }

    /// What its link has heard since the start, and when it was closed.
    fn closed(mut pending: Pending, start: Instant, now: Instant) -> Pending {
        pending.link_closed(Hearing::Since(start), now);
        pending
    }

    /// The port was closed once, at this time.
    fn once(last: Instant) -> Shut {
        Shut { since: last, last }
    }

    #[test]
    fn what_was_behind_another_at_a_process_that_died_had_not_begun() {
        let t = start();
        let (closes, gone) = (at(t, 1_000), at(t, 1_100));
        let it = closed(queued(t), t, closes);
        let fate = |another, gone, now| it.fate(once(gone), another, now);
        assert_eq!(fate(Some(closes), gone, gone), Fate::Unbegun);
        assert_eq!(fate(Some(at(t, 2_900)), at(t, 3_000), at(t, 3_000)), Fate::Unbegun);
        assert_eq!(fate(Some(closes), at(t, 900), gone), Fate::Stays, "it was there after that");
        assert_eq!(fate(Some(closes), closes, gone), Fate::Stays, "nobody knows what was first");
        assert_eq!(fate(None, gone, gone), Fate::Unclear, "the other link may close, too");
        assert_eq!(fate(None, gone, at(t, 2_000)), Fate::Stays);
        assert_eq!(fate(Some(t), gone, at(t, 2_000)), Fate::Stays, "that was an earlier process");
        assert_eq!(fate(Some(at(t, 3_100)), at(t, 4_000), at(t, 4_000)), Fate::Stays, "or later");
    }

    #[test]
    fn what_may_have_begun_is_lost_only_when_its_port_was_closed_for_long() {
        let t = start();
        let closes = at(t, 1_000);
        let mut runs = queued(t);
        runs.on_event(Signal::Started, at(t, 20));
        let fate = |it: &Pending, since, last| {
            let shut = Shut { since: at(t, since), last: at(t, last) };
            it.fate(shut, Some(closes), at(t, last))
        };
        for it in [closed(runs, t, closes), closed(queued(t), at(t, 10), closes)] {
            assert_eq!(fate(&it, 1_100, 1_100), Fate::Stays, "it may be a proxy");
            assert_eq!(fate(&it, 1_100, 11_099), Fate::Stays);
            assert_eq!(fate(&it, 1_100, 11_100), Fate::Lost);
            assert_eq!(fate(&it, 900, 10_999), Fate::Stays, "it was closed before its link was");
            assert_eq!(fate(&it, 900, 11_000), Fate::Lost);
            let mut reopened = it;
            reopened.link_opened(at(t, 12_000));
            assert_eq!(fate(&reopened, 1_100, 11_100), Fate::Stays, "it is asked");
        }
        let direct = closed(Pending::new(BackendId::nth(0), t), t, closes);
        assert_eq!(fate(&direct, 1_100, 60_000), Fate::Stays, "as without a queue");
    }

    #[test]
    fn whatever_leaves_a_doubt_leaves_it_where_it_is() {
        let t = start();
        let (closes, gone, late) = (at(t, 1_000), at(t, 1_100), at(t, 9_000));
        let fate = |it: &Pending| it.fate(once(gone), Some(closes), late);
        let mut broken = queued(t);
        broken.link_closed(Hearing::Doubtful, closes);
        assert_eq!(fate(&broken), Fate::Stays);
        let opened_later = closed(queued(t), at(t, 10), closes);
        assert_eq!(fate(&opened_later), Fate::Stays);
        let mut began = queued(t);
        began.on_event(Signal::Started, at(t, 20));
        assert_eq!(fate(&closed(began, t, closes)), Fate::Stays);

        let mut seen = queued(t);
        seen.on_probe(Observation::Queued, at(t, 50));
        seen.was_certain(at(t, 30));
        assert_eq!(fate(&closed(seen, at(t, 10), closes)), Fate::Unbegun);
        let direct = closed(Pending::new(BackendId::nth(0), t), t, closes);
        assert_eq!(fate(&direct), Fate::Stays, "its body is not kept");
        let mut unsent = Pending::waiting(t, t);
        unsent.handed_over(BackendId::nth(0), Errand::Run, t);
        assert_eq!(fate(&closed(unsent.clone(), t, closes)), Fate::Stays, "nothing was sent");
        assert!(unsent.goes_out(1, at(t, 5)));
        assert_eq!(fate(&closed(unsent.clone(), t, closes)), Fate::Unbegun, "it has no answer");
        unsent.link_closed(Hearing::Doubtful, closes);
        assert_eq!(fate(&unsent), Fate::Stays, "who sends it asks");
    }

    #[test]
    fn what_was_heard_counts_after_the_link_is_open_again_until_something_is_seen() {
        let t = start();
        let (closes, gone, opens) = (at(t, 1_000), at(t, 1_100), at(t, 1_500));
        let mut it = closed(queued(t), t, closes);
        it.link_opened(opens);
        let fate = |it: &Pending, gone| it.fate(once(gone), Some(closes), at(t, 9_000));
        assert_eq!(fate(&it, gone), Fate::Unbegun, "the process died in between");
        assert_eq!(it.fate(once(gone), None, at(t, 1_999)), Fate::Unclear);
        assert_eq!(fate(&it, at(t, 1_600)), Fate::Stays, "the link is open still");
        let mut seen = it.clone();
        seen.on_probe(Observation::Queued, at(t, 1_700));
        assert_eq!(fate(&seen, gone), Fate::Stays, "it was not the process that died");
        it.on_event(Signal::Started, at(t, 1_700));
        assert_eq!(fate(&it, gone), Fate::Stays);
    }

    #[test]
    fn what_is_taken_back_comes_back_also_if_its_link_breaks_or_its_process_dies() {
        let t = start();
        let (closes, gone) = (at(t, 1_000), at(t, 1_100));
        let mut it = queued(t);
        it.on_probe(Observation::Absent(Process::MaybeSame), at(t, 10));
        it.comes_back();
        it.deaf();
        assert!(it.is_coming_back(), "its errand is the journal's");
        let absent = Observation::Absent(Process::MaybeSame);
        assert_eq!(it.on_probe(absent, at(t, 2_050)), None, "what was seen before does not count");
        assert_eq!(it.clone().on_probe(absent, at(t, 4_050)), Some(Settled::Waits));
        let it = closed(it, t, closes);
        assert_eq!(it.fate(once(gone), Some(closes), gone), Fate::Unbegun);
    }

    #[test]
    fn only_what_was_heard_to_run_until_the_end_ran() {
        let t = start();
        let mut runs = queued(t);
        runs.on_event(Signal::Started, at(t, 5));
        assert!(closed(runs.clone(), t, at(t, 9)).ran_when_closed());
        assert!(closed(runs.clone(), at(t, 4), at(t, 9)).ran_when_closed());
        assert!(!closed(runs.clone(), at(t, 6), at(t, 9)).ran_when_closed());
        assert!(!closed(queued(t), t, at(t, 9)).ran_when_closed());
        let mut over = runs.clone();
        over.on_event(Signal::LastWord, at(t, 8));
        assert!(!closed(over, t, at(t, 9)).ran_when_closed(), "only its outcome is not known");
        runs.on_event(Signal::Terminal(End::Succeeded), at(t, 8));
        assert!(!closed(runs, t, at(t, 9)).ran_when_closed());
    }

    /// What a process says of the two prompts that it has, in this order.
    const SAYS: [(usize, Signal); 7] = [
        (0, Signal::Started),
        (0, Signal::Progressed),
        (0, Signal::Terminal(End::Succeeded)),
        (0, Signal::LastWord),
        (1, Signal::Started),
        (1, Signal::Progressed),
        (1, Signal::Terminal(End::Failed)),
    ];

    proptest! {
        /// A process that runs two prompts dies after any word of its own, and each link may have
        /// opened late or missed what was said last. What it had begun is never sent again, and
        /// what was heard to wait behind another always is.
        #[test]
        fn what_had_begun_never_runs_again(
            said in 0..=SAYS.len(),
            opened in proptest::array::uniform2(0..8_u64),
            missed in proptest::array::uniform2(0..3_usize),
            closes in proptest::array::uniform2(0..400_u64),
        ) {
            let t = start();
            let mut both = [queued(t), queued(t)];
            let heard = |link: usize, word: usize| {
                opened[link] <= word as u64 && word < said.saturating_sub(missed[link])
            };
            for (word, (prompt, signal)) in SAYS.iter().enumerate() {
                if heard(*prompt, word) {
                    both[*prompt].on_event(*signal, at(t, word as u64 + 1));
                }
            }
            for (link, it) in both.iter_mut().enumerate() {
                let since = at(t, if opened[link] == 0 { 0 } else { opened[link] + 1 });
                let hearing =
                    if missed[link] == 0 { Hearing::Since(since) } else { Hearing::Doubtful };
                it.link_closed(hearing, at(t, 1_000 + closes[link]));
            }
            let [first, second] = both;
            let ran = first.ran_when_closed().then(|| at(t, 1_000 + closes[0]));
            let fate = second.fate(once(at(t, 1_500)), ran, at(t, 9_000));
            if fate == Fate::Unbegun {
                prop_assert!(said <= 4, "it had begun: {said}");
            }
            if opened == [0, 0] && missed == [0, 0] {
                prop_assert_eq!(fate == Fate::Unbegun, (1..=2).contains(&said));
            }
        }
    }
}
