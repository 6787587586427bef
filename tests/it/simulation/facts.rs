//! What must become of a prompt, from the list of all that was ever said and seen of it.
//!
//! `routing::pending` keeps a few fields and changes them; here nothing is kept but the list, and
//! each question is put to the whole of it.

use std::time::{Duration, Instant};

use mooring::routing::pending::{
    ABSENT_LOOKS_APART, End, HISTORY_SETTLES, Loss, Observation, Process, Signal,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fact {
    Accepted,
    Heard(Signal),
    Observation(Observation),
    DeleteAsked,
    MustAsk,
}

impl Fact {
    fn is_seen_waiting(self) -> bool {
        self == Self::Observation(Observation::Queued)
    }

    fn is_seen_there(self) -> bool {
        self.is_seen_waiting() || self == Self::Observation(Observation::Running)
    }

    fn shows_work(self) -> bool {
        self == Self::Observation(Observation::Running)
            || self == Self::Heard(Signal::Started)
            || self == Self::Heard(Signal::Progressed)
    }

    fn shows_life(self) -> bool {
        match self {
            Self::Accepted | Self::Heard(_) => true,
            Self::Observation(sighted) => !matches!(sighted, Observation::Absent(_)),
            Self::DeleteAsked | Self::MustAsk => false,
        }
    }

    fn terminal(self) -> Option<End> {
        if let Self::Heard(Signal::Terminal(end)) = self { Some(end) } else { None }
    }

    fn in_history(self) -> Option<End> {
        if let Self::Observation(Observation::InHistory(end)) = self { Some(end) } else { None }
    }
}

/// One prompt, from the moment it was decided to send it.
#[derive(Debug)]
pub(super) struct Facts {
    since: Instant,
    list: Vec<(Instant, Fact)>,
    /// The end of the reservation that it used up.
    pub(super) reservation: Option<Instant>,
}

impl Facts {
    pub(super) fn new(since: Instant, reservation: Option<Instant>) -> Self {
        Self { since, list: Vec::new(), reservation }
    }

    /// True if nothing is known of it but that it was to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a fact. Returns the end that follows, if one does.
    pub(super) fn add(&mut self, now: Instant, fact: Fact) -> Option<End> {
        self.list.push((now, fact));
        match fact {
            Fact::Heard(Signal::LastWord) => self.told(),
            Fact::Observation(Observation::InHistory(_)) => self.settled(now),
            Fact::Observation(Observation::Absent(process)) => self.missed(process, now),
            Fact::Observation(Observation::Queued | Observation::Running)
            | Fact::Heard(
                Signal::Started
                | Signal::Progressed
                | Signal::Node
                | Signal::Step
                | Signal::Terminal(_),
            )
            | Fact::Accepted
            | Fact::DeleteAsked
            | Fact::MustAsk => None,
        }
    }

    /// A prompt that misses all looks, long apart or after a restart, ends so.
    fn missed(&self, process: Process, now: Instant) -> Option<End> {
        let known = self.history().map(|(_, end)| end).or(self.told());
        let gone = |loss| {
            let unknown = if self.is_deleted() { End::Deleted } else { End::Lost(loss) };
            Some(known.unwrap_or(unknown))
        };
        match process {
            Process::Restarted => gone(Loss::BackendRestarted),
            Process::MaybeSame if self.history().is_some() => self.settled(now),
            Process::MaybeSame => {
                let first = self.missed_since().unwrap_or(now);
                let is_proven = self.is_deleted() || ABSENT_LOOKS_APART <= now - first;
                if is_proven { gone(Loss::Vanished) } else { None }
            }
        }
    }

    fn after_last(&self, is_border: impl Fn(Fact) -> bool) -> &[(Instant, Fact)] {
        let border = self.list.iter().rposition(|(_, fact)| is_border(*fact));
        &self.list[border.map_or(0, |border| border + 1)..]
    }

    /// The end that its terminal event told, if nothing has shown since that it still waits.
    fn told(&self) -> Option<End> {
        self.after_last(Fact::is_seen_waiting).iter().rev().find_map(|(_, fact)| fact.terminal())
    }

    /// Since when its history entry is known, and what it says.
    fn history(&self) -> Option<(Instant, End)> {
        let run = self.after_last(Fact::is_seen_there);
        let first = run.iter().find(|(_, fact)| fact.in_history().is_some())?;
        let end = run.iter().rev().find_map(|(_, fact)| fact.in_history())?;
        Some((first.0, end))
    }

    fn settled(&self, now: Instant) -> Option<End> {
        self.history().filter(|(since, _)| HISTORY_SETTLES <= now - *since).map(|(_, end)| end)
    }

    /// The first look that missed it since it last gave a sign of life.
    fn missed_since(&self) -> Option<Instant> {
        let is_miss = |fact: &Fact| matches!(fact, Fact::Observation(Observation::Absent(_)));
        self.after_last(Fact::shows_life).iter().find(|(_, fact)| is_miss(fact)).map(|(at, _)| *at)
    }

    /// True if a deletion was asked for while it waited, and it was not seen to work since.
    fn is_deleted(&self) -> bool {
        let (mut waits, mut is_deleted) = (true, false);
        for (_, fact) in &self.list {
            if fact.is_seen_waiting() {
                waits = true;
            } else if fact.shows_work() {
                (waits, is_deleted) = (false, false);
            } else if fact.terminal().is_some() {
                waits = false;
            } else if *fact == Fact::DeleteAsked {
                is_deleted |= waits;
            }
        }
        is_deleted
    }

    /// True if its backend must be asked about it.
    pub(super) fn wants_asking(&self, silent_after: Duration, now: Instant) -> bool {
        let is_sent = self.list.iter().any(|(_, fact)| {
            *fact == Fact::Accepted
                || fact.is_seen_there()
                || fact.shows_work()
                || fact.terminal().is_some()
        });
        let life = self.list.iter().rev().find(|(_, fact)| fact.shows_life());
        let silence = now - life.map_or(self.since, |(at, _)| *at);
        // A last word that it survived came without an outcome.
        let must_ask = self
            .after_last(Fact::is_seen_there)
            .iter()
            .any(|(_, fact)| [Fact::MustAsk, Fact::Heard(Signal::LastWord)].contains(fact));
        let is_half_found = self.history().is_some() || self.missed_since().is_some();
        let is_overdue = self.told().is_some() && HISTORY_SETTLES <= silence;
        let is_due = must_ask || is_half_found || is_overdue || self.is_deleted();
        is_sent && (is_due || silent_after <= silence)
    }
}
