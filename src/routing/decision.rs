//! Decisions about a client, each with its reason (promise B8).
//!
//! Every decision carries its reason, and a client remembers its latest ones, so that the header,
//! the log and the operator's interface show the same and nobody has to guess.

use std::collections::VecDeque;
use std::time::Instant;

use super::ids::BackendId;
use super::pending::End;
use super::placement::{FleetNow, NoPlace, TieBreak, place};
use super::placement_trace::PlacementTrace;

/// How many decisions a client remembers, newest last.
pub const DECISIONS_KEPT: usize = 16;

/// Why a request goes to a backend. The value of the `mooring-placement` header.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// The client has pending work there.
    Held,
    /// An upload of the client waits there for its prompt.
    Reserved,
    /// Bound, without pending work: reads stay.
    Idle,
    /// Bound just now, to the backend with the shortest queue.
    Placed,
    /// Bound just now, to another backend than before.
    Moved,
    /// The backend did the work that the request is about.
    Ledger,
    /// The answer is the same for everybody, and comes from one backend.
    Home,
    /// A read that names nothing; it goes to another backend because the client's own is away.
    StandIn,
    /// A file of the page that never changes, answered from memory. The backend is its origin.
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

/// Where a request goes, why, and what this changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Decision {
    pub backend: BackendId,
    pub reason: Reason,
    /// The backend that the client was bound to before, if this decision changed it.
    pub left: Option<BackendId>,
    /// True if this decision bound the client to `backend`.
    pub newly_bound: bool,
    /// The number of the client's binding. It separates what began under a binding that a reset has
    /// ended from what began later, on the same backend or another.
    pub binding: u64,
}

/// A remembered decision, for the operator.
#[derive(Clone, Copy, Debug)]
pub struct Decided {
    pub at: Instant,
    /// The backend that the decision is about; `None` for the refusal of a client that is not
    /// bound.
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

/// Why a client gets no backend. The text is for people: a page shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "the server that has your jobs does not answer; they are kept for a while, and then your \
         work goes elsewhere"
    )]
    BackendDown { backend: BackendId },
    #[error(
        "the server that has your jobs answers, but does not work any more; they are kept for a \
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

/// A safe reset was refused, because this many prompts and uploads are pending.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", in_number(*pending, ["prompt is pending", "prompts are pending"]))]
pub struct StillPending {
    pub pending: usize,
}

/// A count with its noun, in singular or plural.
#[must_use]
pub fn in_number(count: usize, [one, several]: [&str; 2]) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

/// What a release or reset has freed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Released {
    /// The backend that the client was bound to.
    pub backend: Option<BackendId>,
    /// How many prompts a forced reset ended as lost.
    pub cut_off: usize,
}

/// The latest decisions about one client: a ring, so that it stays bounded.
#[derive(Debug, Default)]
pub struct Decisions {
    kept: VecDeque<Decided>,
    placement: Option<PlacementTrace>,
}

impl Decisions {
    /// Remembers a decision if it is new: a binding made or refused. Reads that stay, or that are
    /// refused again for the same reason, are not remembered.
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

    /// Remembers a decision and drops the oldest if there are too many.
    pub fn remember(&mut self, backend: Option<BackendId>, what: What, now: Instant) {
        if self.kept.len() == DECISIONS_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Decided { at: now, backend, what });
    }

    /// Chooses a backend for new work, and remembers the candidates.
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
        // A refused read is often repeated in vain: only its first refusal is recorded.
        if placed.is_ok() || self.placement.as_ref().is_none_or(|it| it.chosen.is_some()) {
            self.placement = Some(PlacementTrace::of(fleet.backends, placed.ok(), last, now));
        }
        placed
    }

    /// The candidates of the latest placement.
    #[must_use]
    pub fn placement(&self) -> Option<&PlacementTrace> {
        self.placement.as_ref()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Decided> {
        self.kept.iter()
    }
}

/// Why a prompt is not on the backend that it was sent to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotThere {
    /// The backend could not be reached.
    NeverSent,
    /// The backend lacks a node or a model and refused the prompt; nothing was queued.
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
