//! Chooses the backend for new work: the one that would start it soonest (promise B4).

use std::cmp::Ordering;
use std::num::NonZeroU32;

use super::ids::BackendId;

/// The state that an operator sets for a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AdminState {
    /// Takes all work.
    Ready,
    /// Keeps its held clients until they have drained, and takes no new work.
    Draining,
    /// Takes nothing.
    Off,
}

impl AdminState {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Off => "off",
        }
    }

    /// Parses an operator's input.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Ready, Self::Draining, Self::Off].into_iter().find(|state| state.as_str() == text)
    }
}

/// The condition of a backend that is up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition {
    Well,
    /// It runs something and sends no events: it may be dead (P9).
    Suspect,
    /// It runs none of its prompts (P9).
    Wedged,
    /// It takes no new connection: a new client there would wait in vain.
    Shut,
}

/// Why a backend gets no new work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Excluded {
    Down,
    Draining,
    Off,
    Shut,
    Wedged,
    /// It has reached its `max_pending`.
    Full,
}

impl Excluded {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Off => "off",
            Self::Shut => "shut",
            Self::Wedged => "wedged",
            Self::Full => "full",
        }
    }
}

/// One backend, as a placement sees it.
#[derive(Clone, Copy, Debug)]
pub struct BackendView {
    pub id: BackendId,
    pub up: bool,
    pub admin: AdminState,
    pub condition: Condition,
    /// Prompts that wait and run there, plus those that were sent and that it has not yet counted.
    pub load: u32,
    pub weight: NonZeroU32,
    /// The load at which it takes no new work; `None` for no limit.
    pub max_pending: Option<NonZeroU32>,
    /// The number of clients that are bound to it.
    pub bound: u32,
    /// How many prompts longer than others' its queue may be, because it has the files of the
    /// prompt that is placed; `None` if it does not have them.
    pub head_start: Option<u32>,
}

impl BackendView {
    /// True if its held clients may continue there: ask about their work, and add to it.
    #[must_use]
    pub fn serves_held(&self) -> bool {
        self.up && self.admin != AdminState::Off
    }

    /// True if it may get new clients.
    #[must_use]
    pub fn serves_new(&self) -> bool {
        matches!(self.excluded(), None | Some(Excluded::Full))
    }

    /// True if it may keep an idle client whose link to it is open. A backend that takes no new
    /// connection still serves the existing ones; the client's next prompt goes elsewhere.
    #[must_use]
    pub fn serves_linked(&self) -> bool {
        matches!(self.excluded(), None | Some(Excluded::Full | Excluded::Shut))
    }

    /// True if it may get a prompt now.
    #[must_use]
    pub fn takes_work(&self) -> bool {
        self.excluded().is_none()
    }

    /// Why it gets no new work.
    #[must_use]
    pub fn excluded(&self) -> Option<Excluded> {
        match (self.up, self.admin, self.condition) {
            // A backend that is off is not even probed.
            (_, AdminState::Off, _) => Some(Excluded::Off),
            (false, AdminState::Ready | AdminState::Draining, _) => Some(Excluded::Down),
            (true, AdminState::Draining, _) => Some(Excluded::Draining),
            (true, AdminState::Ready, Condition::Shut) => Some(Excluded::Shut),
            (true, AdminState::Ready, Condition::Wedged) => Some(Excluded::Wedged),
            (true, AdminState::Ready, Condition::Well | Condition::Suspect) => {
                self.is_full().then_some(Excluded::Full)
            }
        }
    }

    /// True if it is chosen only while no other has room.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.condition == Condition::Suspect
    }

    /// Compares what decides between backends with equal queues.
    fn cmp_alike(&self, other: &Self, tie: TieBreak) -> Ordering {
        let is_other = |it: &Self| tie.last != Some(it.id);
        let files = self.head_start.is_none().cmp(&other.head_start.is_none());
        files.then_with(|| is_other(self).cmp(&is_other(other))).then(self.bound.cmp(&other.bound))
    }

    fn is_full(&self) -> bool {
        self.max_pending.is_some_and(|max| max.get() <= self.load)
    }

    /// Compares the work, including the new prompt, per weight: an idle backend with a low weight
    /// may take longer for it than a busy one with a high weight. Without a division: a/v < b/w
    /// exactly when a·w < b·v.
    pub(super) fn cmp_queue(&self, other: &Self) -> Ordering {
        let counted = |it: &Self| match it.head_start {
            None => u64::from(it.load) + 1,
            Some(start) => u64::from(it.load.saturating_sub(start)) + 1,
        };
        let ours = counted(self) * u64::from(other.weight.get());
        let theirs = counted(other) * u64::from(self.weight.get());
        ours.cmp(&theirs)
    }
}

/// The fleet at the moment of a decision.
#[derive(Clone, Copy, Debug)]
pub struct FleetNow<'a> {
    /// In the order of their names.
    pub backends: &'a [BackendView],
    pub turn: u64,
}

impl<'a> FleetNow<'a> {
    /// The backend of that id; `None` if it has left the fleet.
    #[must_use]
    pub fn view(self, backend: BackendId) -> Option<&'a BackendView> {
        self.backends.iter().find(|view| view.id == backend)
    }

    /// Like [`BackendView::serves_held`]; false for a backend that has left the fleet.
    #[must_use]
    pub fn serves_held(self, backend: BackendId) -> bool {
        self.view(backend).is_some_and(BackendView::serves_held)
    }

    /// Like [`BackendView::serves_new`]; false for a backend that has left the fleet.
    #[must_use]
    pub fn serves_new(self, backend: BackendId) -> bool {
        self.view(backend).is_some_and(BackendView::serves_new)
    }

    /// True if it is up and runs nothing: its prompts can be asked about, but none may be added.
    #[must_use]
    pub fn is_wedged(self, backend: BackendId) -> bool {
        self.view(backend).is_some_and(|view| view.condition == Condition::Wedged)
    }
}

/// No backend may take new work.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoPlace {
    #[error("there is no server at the moment")]
    FleetEmpty,
    #[error("no server is up and ready")]
    NoneReady,
    #[error("every server has its maximum number of jobs")]
    FleetFull,
}

/// Decides between backends with equal queues.
#[derive(Clone, Copy, Debug, Default)]
pub struct TieBreak {
    /// The backend that the client had last.
    pub last: Option<BackendId>,
    /// A counter of placements, so that the remaining ones are chosen in turn.
    pub turn: u64,
}

/// Chooses the backend for new work. In this order it prefers: one that is not suspect; the
/// shortest queue for its weight, with the new prompt counted and the head start subtracted; one
/// that has the files; the one that the client had last; the one with the fewest bound clients;
/// then each in turn.
///
/// # Errors
/// There is none, none is up and ready, or all that are have reached their `max_pending`.
pub fn place(fleet: &[BackendView], tie: TieBreak) -> Result<BackendId, NoPlace> {
    // Of equal ones the first is chosen, so the one whose turn it is comes first.
    let first = usize::try_from(tie.turn % fleet.len().max(1) as u64).unwrap_or_default();
    let (later, sooner) = fleet.split_at(first);
    sooner
        .iter()
        .chain(later)
        .filter(|backend| backend.takes_work())
        .min_by(|a, b| {
            a.is_suspect()
                .cmp(&b.is_suspect())
                .then_with(|| a.cmp_queue(b))
                .then_with(|| a.cmp_alike(b, tie))
        })
        .map(|backend| backend.id)
        .ok_or_else(|| no_place(fleet))
}

/// Why no backend of the fleet takes work.
fn no_place(fleet: &[BackendView]) -> NoPlace {
    if fleet.is_empty() {
        NoPlace::FleetEmpty
    } else if fleet.iter().any(BackendView::serves_new) {
        NoPlace::FleetFull
    } else {
        NoPlace::NoneReady
    }
}

/// The weights for copying a prompt's files.
#[derive(Clone, Copy, Debug)]
pub struct CopyWeights {
    /// Copying this many bytes counts as much as waiting for one prompt.
    pub bytes_per_prompt: u64,
    /// The longest wait that avoids a copy, in prompts.
    pub prompts_max: u32,
    /// A larger file is not copied.
    pub file_max: u64,
}

/// How many prompts longer a queue may be where these files are, by their sizes: both waiting and
/// copying take time. A file that cannot be copied justifies any wait.
#[must_use]
pub fn head_start(sizes: &[u64], weights: CopyWeights) -> u32 {
    if sizes.iter().any(|size| weights.file_max < *size) {
        return u32::MAX;
    }
    let bytes = sizes.iter().fold(0_u64, |all, size| all.saturating_add(*size));
    let worth = bytes / weights.bytes_per_prompt.max(1);
    u32::try_from(worth).unwrap_or(u32::MAX).min(weights.prompts_max)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};

    use super::*;

    /// One backend per word: `R`eady, `D`raining or `O`ff, then `u`p, `d`own, `s`hut, `w`edged or
    /// suspect (`?`), its load, and after signs `*` its weight, `<` its max_pending, `+` its bound
    /// clients, `^` its head start: `Ru3*2<5+1^0`.
    pub(crate) fn fleet(text: &str) -> Vec<BackendView> {
        text.split_whitespace().zip(0..).map(|(word, index)| backend(word, index)).collect()
    }

    fn backend(word: &str, index: u16) -> BackendView {
        let number = |sign: Option<char>| {
            let from = match sign {
                None => 2,
                Some(sign) => word.find(sign)? + 1,
            };
            let digits: String = word[from..].chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u32>().ok()
        };
        BackendView {
            id: BackendId::nth(index),
            admin: match &word[..1] {
                "R" => AdminState::Ready,
                "D" => AdminState::Draining,
                _ => AdminState::Off,
            },
            up: &word[1..2] != "d",
            condition: match &word[1..2] {
                "s" => Condition::Shut,
                "w" => Condition::Wedged,
                "?" => Condition::Suspect,
                _ => Condition::Well,
            },
            load: number(None).unwrap(),
            weight: NonZeroU32::new(number(Some('*')).unwrap_or(1)).unwrap(),
            max_pending: number(Some('<')).and_then(NonZeroU32::new),
            bound: number(Some('+')).unwrap_or(0),
            head_start: number(Some('^')),
        }
    }

    #[track_caller]
    fn check(backends: &str, last: Option<u16>, turn: u64, expected: Result<u16, NoPlace>) {
        let tie = TieBreak { last: last.map(BackendId::nth), turn };
        assert_eq!(place(&fleet(backends), tie), expected.map(BackendId::nth), "{backends}");
    }

    #[test]
    fn without_a_backend_there_is_no_place() {
        check("", None, 7, Err(NoPlace::FleetEmpty));
    }

    #[test]
    fn the_shortest_queue_wins() {
        check("Ru3 Ru1 Ru2", None, 0, Ok(1));
    }

    #[test]
    fn a_weight_divides_the_queue() {
        check("Ru2 Ru3*2 Ru4*4", None, 0, Ok(2));
        check("Ru1 Ru3*4", None, 0, Ok(1));
    }

    #[test]
    fn idle_backends_are_told_apart_by_their_weights() {
        check("Ru0 Ru0*10", Some(0), 0, Ok(1));
        check("Ru0 Ru8*10", None, 0, Ok(1));
        check("Ru0+1 Ru9*10", None, 0, Ok(1));
        check("Ru0 Ru10*10", None, 0, Ok(0));
    }

    #[test]
    fn ties_go_to_the_last_then_to_the_fewest_clients_then_in_turn() {
        check("Ru1+9 Ru1+0", Some(0), 0, Ok(0));
        check("Ru1+2 Ru1+1", None, 0, Ok(1));
        check("Ru1 Ru1 Ru1", None, 0, Ok(0));
        check("Ru1 Ru1 Ru1", None, 1, Ok(1));
        check("Ru1 Ru1 Ru1", None, 5, Ok(2));
    }

    #[test]
    fn a_backend_that_has_the_files_is_preferred_within_its_head_start() {
        check("Ru1+0 Ru1+9^0", Some(0), 0, Ok(1));
        check("Ru1+0 Ru2+9^1", Some(0), 0, Ok(1));
        check("Ru0+0 Ru2+9^1", Some(0), 0, Ok(0));
        check("Ru0+0 Ru1^1 Ru0^1", None, 0, Ok(1));
        check("Ru0 Rd0^5", None, 0, Ok(0));
    }

    #[test]
    fn bytes_are_weighed_against_the_wait() {
        let weights = CopyWeights { bytes_per_prompt: 100, prompts_max: 3, file_max: 10_000 };
        let check = |sizes: &[u64], expected| assert_eq!(head_start(sizes, weights), expected);
        check(&[], 0);
        check(&[99], 0);
        check(&[60, 60], 1);
        check(&[250], 2);
        check(&[10_000], 3);
        check(&[1, 10_001], u32::MAX);
        check(&[u64::MAX, u64::MAX], u32::MAX);
    }

    #[test]
    fn draining_off_and_down_backends_take_nothing_new() {
        check("Du0 Ou0 Rd0 Ru9", None, 0, Ok(3));
        check("Du0 Ou0 Rd0", None, 0, Err(NoPlace::NoneReady));
    }

    #[test]
    fn a_wedged_backend_takes_nothing_and_a_suspect_one_only_what_no_other_takes() {
        check("Rw0 Ru9", Some(0), 0, Ok(1));
        check("Rw0", Some(0), 0, Err(NoPlace::NoneReady));
        check("R?0 Ru9", Some(0), 0, Ok(1));
        check("R?0 Ru9<9", None, 0, Ok(0));
        check("R?0 Rd0 Dw0", None, 0, Ok(0));
        check("R?2 R?1", None, 0, Ok(1));
    }

    #[test]
    fn what_takes_no_new_connection_gets_no_new_work_and_keeps_what_it_has() {
        check("Rs0 Ru9", Some(0), 0, Ok(1));
        check("Rs0", Some(0), 0, Err(NoPlace::NoneReady));
        assert!(fleet("Rs0")[0].serves_held());
    }

    #[test]
    fn a_full_fleet_is_said_to_be_full() {
        check("Ru2<2 Ru1<2", None, 0, Ok(1));
        check("Ru2<2 Ru2<2 Rd0", None, 0, Err(NoPlace::FleetFull));
    }

    #[test]
    fn the_largest_numbers_are_compared_without_overflow() {
        let most = u32::MAX;
        let backends = format!("Ru{most} Ru{most}*{most} Ru0*{most}+{most}");
        check(&backends, None, u64::MAX, Ok(2));
        check(&format!("Ru{most} Ru{most}*{most}"), None, 0, Ok(1));
    }

    #[test]
    fn a_fleet_says_nothing_of_a_backend_that_it_does_not_have() {
        let backends = fleet("Ru0 Du0");
        let fleet = FleetNow { backends: &backends, turn: 0 };
        assert!(fleet.serves_new(BackendId::nth(0)) && fleet.serves_held(BackendId::nth(1)));
        assert!(!fleet.serves_new(BackendId::nth(1)) && !fleet.serves_held(BackendId::nth(2)));
    }

    fn any_fleet() -> impl Strategy<Value = Vec<BackendView>> {
        let numbers = (0..6_u32, 1..5_u32, 0..6_u32, 0..3_u32, option::of(0..3_u32));
        vec((any::<bool>(), 0..5_usize, numbers), 0..6).prop_map(|backends| {
            type Numbers = (u32, u32, u32, u32, Option<u32>);
            let view = |(up, admin, numbers): (bool, usize, Numbers), index| BackendView {
                id: BackendId::nth(index),
                up,
                condition: Condition::Well,
                // Mostly ready, so that most cases have several candidates.
                admin: [AdminState::Draining, AdminState::Off]
                    .get(admin)
                    .copied()
                    .unwrap_or(AdminState::Ready),
                load: numbers.0,
                weight: NonZeroU32::new(numbers.1).unwrap(),
                max_pending: NonZeroU32::new(numbers.2),
                bound: numbers.3,
                head_start: numbers.4,
            };
            backends.into_iter().zip(0..).map(|(backend, index)| view(backend, index)).collect()
        })
    }

    proptest! {
        #[test]
        fn nothing_is_better_than_what_is_chosen(
            fleet in any_fleet(),
            last in option::of(0..6_u16),
            turn in 0..20_u64,
        ) {
            let last = last.map(BackendId::nth);
            let rank = |view: &BackendView| {
                // Weights are 1 to 4, so a twelfth of the work divides evenly.
                let turns = (u64::from(view.id.slot()) + 600 - turn % fleet.len() as u64)
                    % fleet.len() as u64;
                let counted = view.load.saturating_sub(view.head_start.unwrap_or(0));
                let queue = ((counted + 1) * (12 / view.weight.get()), view.head_start.is_none());
                (queue, last != Some(view.id), view.bound, turns)
            };
            let is_ready = |view: &&BackendView| view.up && view.admin == AdminState::Ready;
            let has_room =
                |view: &&BackendView| view.max_pending.is_none_or(|max| view.load < max.get());
            let best = fleet.iter().filter(is_ready).filter(has_room).min_by_key(|view| rank(view));
            let none = match fleet.iter().find(is_ready) {
                Some(_) => NoPlace::FleetFull,
                None if fleet.is_empty() => NoPlace::FleetEmpty,
                None => NoPlace::NoneReady,
            };
            let chosen = place(&fleet, TieBreak { last, turn });
            prop_assert_eq!(chosen, best.map(|view| view.id).ok_or(none));
        }

        #[test]
        fn turns_go_round_between_equals(count in 1..6_usize, first in 0..100_u64) {
            let fleet = fleet(&"Ru1 ".repeat(count));
            let mut chosen: Vec<BackendId> = (first..first + count as u64)
                .map(|turn| place(&fleet, TieBreak { last: None, turn }).unwrap())
                .collect();
            chosen.sort_unstable();
            let all: Vec<BackendId> = fleet.iter().map(|view| view.id).collect();
            prop_assert_eq!(chosen, all);
        }
    }
}
