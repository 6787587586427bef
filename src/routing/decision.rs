//! What was decided about a client, and why (promise B8).
//!
//! Every decision carries its reason, and a client remembers its last ones, so that the header,
//! the log and the operator's interface read one thing and none has to guess.

use std::collections::VecDeque;
use std::time::Instant;

use super::ids::BackendId;
use super::pending::End;
use super::placement::{FleetNow, NoPlace, TieBreak, place};
use super::placement_trace::PlacementTrace;

/// How many decisions a client remembers, newest last.
pub const DECISIONS_KEPT: usize = 16;

/// Why a request goes where it goes. The value of the `mooring-placement` header.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// Work is pending there.
    Held,
    /// An upload waits there for its prompt.
    Reserved,
    /// Bound, with nothing pending: reads stay.
    Idle,
    /// Bound just now, by the shortest queue.
    Placed,
    /// Bound just now, to another backend than before.
    Moved,
    /// The backend that did the work that is asked about.
    Ledger,
    /// What is the same for everyone comes from one backend.
    Home,
    /// A read that names nothing, in place of a backend that is away.
    StandIn,
    /// A file of the page that never changes, from memory; the backend is that it came from.
    Kept,
}

impl Reason {
    /// Every reason, in the order of the enum: `ALL[reason as usize]` is `reason`.
    pub const ALL: [Self; 9] = [
        Self::Held,
        Self::Reserved,
        Self::Idle,
        Self::Placed,
        Self::Moved,
        Self::Ledger,
        Self::Home,
        Self::StandIn,
        Self::Kept,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Reserved => "reserved",
            Self::Idle => "idle",
            Self::Placed => "placed",
            Self::Moved => "moved",
            Self::Ledger => "ledger",
            Self::Home => "home",
            Self::StandIn => "stand_in",
            Self::Kept => "kept",
        }
    }
}

/// Where a request goes, why, and what that changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Decision {
    pub backend: BackendId,
    pub reason: Reason,
    /// The backend that the client was bound to before, if this decision changed it.
    pub left: Option<BackendId>,
    /// True if this decision bound the client to `backend`.
    pub newly_bound: bool,
    /// Which of the client's bindings this is. It tells what began under a binding that a reset
    /// has dissolved from what began since, on the same backend or another.
    pub binding: u64,
}

/// A remembered decision, for the operator.
#[derive(Clone, Copy, Debug)]
pub struct Decided {
    pub at: Instant,
    /// The backend that it is about; `None` for the refusal of a client that is not bound.
    pub backend: Option<BackendId>,
    pub what: What,
}

/// What was decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    Routed(Reason),
    Refused(Refusal),
    Ended(End),
    Released,
    Reset,
}

impl What {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Routed(reason) => reason.as_str(),
            Self::Refused(refusal) => refusal.as_str(),
            Self::Ended(end) => end.reason(),
            Self::Released => "released",
            Self::Reset => "reset",
        }
    }
}

/// Why a client gets no backend, in the words of people: a page shows them what it is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the server that has your jobs does not answer; they are kept for a while, and then your \
         work goes elsewhere"
    )]
    BackendDown { backend: BackendId },
    #[error(
        "the server that has your jobs answers and does not work any more; they are kept for a \
         while, and then your work goes elsewhere"
    )]
    BackendWedged { backend: BackendId },
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    #[error("you have {max} jobs that have not ended, which is the limit")]
    TooManyPending { max: usize },
    #[error("a job with this prompt_id has not ended")]
    AlreadyPending,
}

impl Refusal {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BackendDown { .. } => "backend_down",
            Self::BackendWedged { .. } => "backend_wedged",
            Self::NoPlace(NoPlace::FleetEmpty) => "fleet_empty",
            Self::NoPlace(NoPlace::NoneReady) => "no_backend",
            Self::NoPlace(NoPlace::FleetFull) => "fleet_full",
            Self::TooManyPending { .. } => "too_many_pending",
            Self::AlreadyPending => "prompt_id_known",
        }
    }
}

/// A safe reset was refused: so many prompts and uploads are pending.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", in_number(*pending, ["prompt is pending", "prompts are pending"]))]
pub struct StillPending {
    pub pending: usize,
}

/// So many of something, in words for one and for several.
#[must_use]
pub fn in_number(count: usize, [one, several]: [&str; 2]) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// What a release or reset has let go.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Released {
    /// The backend that the client was bound to.
    pub backend: Option<BackendId>,
    /// How many prompts a forced reset ended as lost.
    pub cut_off: usize,
}

/// The last decisions about one client: a ring, so that it stays bounded.
#[derive(Debug, Default)]
pub struct Decisions {
    kept: VecDeque<Decided>,
    placement: Option<PlacementTrace>,
}

impl Decisions {
    /// Remembers what is news: a binding made or refused. A thousand reads that stay, or that
    /// are refused for the same reason, are not.
    pub fn record(
        &mut self,
        decision: &Result<Decision, Refusal>,
        bound: Option<BackendId>,
        now: Instant,
    ) {
        let (backend, what) = match decision {
            Ok(made) => (Some(made.backend), What::Routed(made.reason)),
            Err(refusal) => (bound, What::Refused(*refusal)),
        };
        let is_known = |last: &Decided| last.what == what && last.backend == backend;
        if !self.kept.back().is_some_and(is_known) {
            self.remember(backend, what, now);
        }
    }

    /// Remembers one; the oldest makes room.
    pub fn remember(&mut self, backend: Option<BackendId>, what: What, now: Instant) {
        if self.kept.len() == DECISIONS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Decided { at: now, backend, what });
    }

    /// Chooses a backend for new work, and remembers between which.
    ///
    /// # Errors
    /// As for [`place`].
    pub fn place(
        &mut self,
        fleet: FleetNow<'_>,
        last: Option<BackendId>,
        now: Instant,
    ) -> Result<BackendId, NoPlace> {
        let placed = place(fleet.backends, TieBreak { last, turn: fleet.turn });
        // A read that is refused, or stays where it is, asks again and again in vain.
        if placed.is_ok() || self.placement.as_ref().is_none_or(|it| it.chosen.is_some()) {
            self.placement = Some(PlacementTrace::of(fleet.backends, placed.ok(), last, now));
        }
        placed
    }

    /// Between which backends the newest placement chose.
    #[must_use]
    pub fn placement(&self) -> Option<&PlacementTrace> {
        self.placement.as_ref()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Decided> {
        self.kept.iter()
    }
}

/// Why a prompt is not where it was to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotThere {
    /// The backend could not be reached.
    NeverSent,
    /// It lacks a node or a model, and said so; nothing was queued.
    Refused,
}

impl NotThere {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverSent => "never_sent",
            Self::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_told_in_the_singular() {
        assert_eq!(StillPending { pending: 1 }.to_string(), "1 prompt is pending");
        assert_eq!(StillPending { pending: 2 }.to_string(), "2 prompts are pending");
        assert_eq!(in_number(0, ["client has", "clients have"]), "0 clients have");
    }

    #[test]
    fn every_reason_is_at_its_place() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
