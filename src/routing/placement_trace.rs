//! Records which backends a client's latest placement compared, to explain it to an operator.
//!
//! It is recorded during the placement, because a moment later every load has changed. Only the
//! latest placement is kept, and of a large fleet only the best candidates: it is an explanation
//! and not a log.

use std::num::NonZeroU32;
use std::time::Instant;

use super::ids::BackendId;
use super::placement::{BackendView, Excluded};

/// The most backends that are recorded.
pub const CANDIDATES_KEPT: usize = 8;

/// The fleet at one placement.
#[derive(Clone, Debug)]
pub struct PlacementTrace {
    pub at: Instant,
    /// `None` if no backend could be chosen.
    pub chosen: Option<BackendId>,
    /// The backend that the client had before.
    pub last: Option<BackendId>,
    /// The chosen one first, then by queue; excluded ones come last.
    pub candidates: Box<[Candidate]>,
    /// How many more backends there were.
    pub others: usize,
}

/// One backend at a placement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Candidate {
    pub backend: BackendId,
    pub load: u32,
    pub weight: NonZeroU32,
    /// By how many prompts its queue counted as shorter, because it had the files.
    pub head_start: Option<u32>,
    /// It may be dead, so others had priority.
    pub is_suspect: bool,
    pub excluded: Option<Excluded>,
}

impl PlacementTrace {
    #[must_use]
    pub fn of(
        fleet: &[BackendView],
        chosen: Option<BackendId>,
        last: Option<BackendId>,
        at: Instant,
    ) -> Self {
        let mut views: Vec<&BackendView> = fleet.iter().collect();
        views.sort_by(|a, b| {
            let rank = |view: &BackendView| {
                (chosen != Some(view.id), !view.takes_work(), view.is_suspect())
            };
            rank(a).cmp(&rank(b)).then_with(|| a.cmp_queue(b))
        });
        let others = views.len().saturating_sub(CANDIDATES_KEPT);
        let candidates = views.into_iter().take(CANDIDATES_KEPT).map(Candidate::of).collect();
        Self { at, chosen, last, candidates, others }
    }
}

impl Candidate {
    fn of(view: &BackendView) -> Self {
        let BackendView { id, load, weight, head_start, .. } = *view;
        let (is_suspect, excluded) = (view.is_suspect(), view.excluded());
        Self { backend: id, load, weight, head_start, is_suspect, excluded }
    }
}

#[cfg(test)]
mod tests {
    use super::super::placement::tests::fleet;
    use super::*;

    fn told(backends: &str, chosen: Option<u16>) -> (Vec<(u16, &'static str)>, usize) {
        let fleet = fleet(backends);
        let considered =
            PlacementTrace::of(&fleet, chosen.map(BackendId::nth), None, crate::net::now());
        let why = |it: &Candidate| (it.backend.slot(), it.excluded.map_or("", Excluded::as_str));
        (considered.candidates.iter().map(why).collect(), considered.others)
    }

    #[test]
    fn the_chosen_one_is_first_and_what_was_excluded_says_why() {
        let all = "Ru3 Ru1*9 Du0 Ou0 Rd0 Rs0 Ru2<2 Rw0 R?0";
        let (candidates, others) = told(all, Some(0));
        assert_eq!((candidates[0], candidates[1], others), ((0, ""), (1, ""), 1));
        assert_eq!(candidates[2], (8, ""), "one that may be dead after those that are not");
        let mut excluded = candidates[3..].to_vec();
        excluded.sort_unstable();
        let why = [(2, "draining"), (3, "off"), (4, "down"), (5, "shut"), (7, "wedged")];
        assert_eq!(excluded, why);
        assert_eq!(told("Ru1 Ru2<2", Some(0)).0, [(0, ""), (1, "full")]);
        assert_eq!(told("Rd0", None).0, [(0, "down")]);
    }

    #[test]
    fn of_a_large_fleet_the_nearest_are_remembered() {
        let (candidates, others) = told(&"Rd0 ".repeat(20).replacen("Rd0", "Ru9", 1), Some(0));
        assert_eq!((candidates[0], candidates.len(), others), ((0, ""), CANDIDATES_KEPT, 12));
    }
}
