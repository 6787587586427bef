//! The ledger of prompts: who made which prompt, and where (promise R2). It outlives the binding.
//!
//! The ledger is divided into shards by id, and this is one shard. [`histories()`] merges the
//! histories of all shards.
//!
//! # Invariants
//!
//! - An id is in the ledger once. A new submission enters only by [`Ledger::reserve`], so two
//!   submissions with one id cannot both pass.
//! - A pending prompt is never evicted; of the others, those that ended first are evicted first.
//! - It never holds more than `capacity` prompts, plus those that are pending.
//! - A withdrawn submission leaves no entry, so a client that is always refused does not fill it.
//! - A history lists what its owner made and what has ended, except what was deleted: from the
//!   queue before it ran, from the history by its owner, or because a backend forgot it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::ids::{BackendId, PromptId};
use super::owners::{Owner, Owners, Person, Submitter};
use super::pending::End;
pub use course::Way;
pub use histories::{Listed, histories, newest};
use presumed::PresumedLost;

mod course;
mod found;
mod histories;
mod presumed;

/// The pause before all backends are asked about an unknown id again.
pub const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How many asked ids a shard remembers. Beyond it the oldest may be asked about again early.
const ASKED_MAX: usize = 2_500;

/// The prompts of one shard.
#[derive(Debug)]
pub struct Ledger {
    prompts: HashMap<PromptId, Record>,
    /// Prompts that are not pending, by [`Record::place`].
    settled: BTreeMap<u64, PromptId>,
    presumed_lost: PresumedLost,
    /// Prompts by owner; histories are ordered by [`Record::place`].
    owners: Owners,
    next_place: u64,
    next_order: u64,
    /// Settled prompts that were evicted, until the next [`Ledger::take_evicted`].
    evicted: Vec<PromptId>,
    asked: HashMap<PromptId, Instant>,
    asked_order: VecDeque<PromptId>,
    capacity: usize,
    max_age: Duration,
}

/// What is known of one prompt.
#[derive(Clone, Debug)]
pub struct Record {
    pub by: Submitter,
    /// `None` until it is placed.
    pub backend: Option<BackendId>,
    pub way: Way,
    pub made: Instant,
    /// Its place among all submissions: ComfyUI works in this order.
    pub order: u64,
    pub state: State,
    /// When it ended.
    pub ended: Option<Instant>,
    /// When it stopped being pending. A later correction does not move it in a history.
    settled: Option<Instant>,
    /// Its place among the prompts that are not pending; `None` while it is pending.
    place: Option<u64>,
}

/// One prompt from before a restart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub prompt: PromptId,
    pub by: Submitter,
    /// `None` if its backend is no longer configured.
    pub backend: Option<BackendId>,
    pub made: Instant,
    pub order: u64,
    /// How it ended and when; `None` if it is pending.
    pub end: Option<(End, Instant)>,
}

/// Whether a prompt is pending or ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    Pending,
    Ended(End),
    /// Found on a backend; it was never pending here.
    Learned,
}

/// The id is already in the ledger.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this prompt id was used before")]
pub struct Known;

impl Ledger {
    #[must_use]
    pub fn new(capacity: usize, max_age: Duration) -> Self {
        Self {
            prompts: HashMap::new(),
            settled: BTreeMap::new(),
            presumed_lost: PresumedLost::default(),
            owners: Owners::default(),
            next_place: 0,
            next_order: 0,
            evicted: Vec::new(),
            asked: HashMap::new(),
            asked_order: VecDeque::new(),
            capacity,
            max_age,
        }
    }

    /// Sets the place of the next submission: those of all shards are counted together.
    pub fn count_from(&mut self, order: u64) {
        self.next_order = self.next_order.max(order);
    }

    /// Reserves an id for a new submission.
    ///
    /// # Errors
    /// The id is in use, by a pending or an ended prompt.
    pub fn reserve(&mut self, prompt: &PromptId, by: Submitter, now: Instant) -> Result<(), Known> {
        if self.get(prompt, now).is_some() {
            return Err(Known);
        }
        self.insert(prompt, by, now);
        Ok(())
    }

    /// Restores a prompt from before a restart. Ended ones must be restored in the order of their
    /// ends. A prompt that is already known is unchanged.
    pub fn restore(&mut self, entry: Entry, now: Instant) {
        let Entry { prompt, by, backend, made, order, end } = entry;
        if self.prompts.contains_key(&prompt) {
            return;
        }
        self.owners.began(&by, &prompt);
        let state = State::Pending;
        let (ended, settled, place) = (None, None, None);
        let way = Way::Sent;
        let record = Record { by, backend, way, made, order, state, ended, settled, place };
        self.prompts.insert(prompt.clone(), record);
        self.next_order = self.next_order.max(order + 1);
        if let Some((end, at)) = end {
            self.settle(&prompt, State::Ended(end), at);
            self.evict_expired(now);
        }
    }

    /// The settled prompts that were evicted since the last call.
    pub fn take_evicted(&mut self) -> Vec<PromptId> {
        std::mem::take(&mut self.evicted)
    }

    /// The prompt has ended; or it had ended, and this corrects how.
    pub fn ended(&mut self, prompt: &PromptId, end: End, now: Instant) {
        self.settle(prompt, State::Ended(end), now);
    }

    /// The submission was refused: the id may be used again. A prompt that has ended stays known.
    pub fn withdraw(&mut self, prompt: &PromptId) {
        if self.prompts.get(prompt).is_some_and(|record| record.state == State::Pending)
            && let Some(record) = self.prompts.remove(prompt)
        {
            self.owners.settled(&record.by, prompt);
        }
    }

    /// What is known of a prompt.
    #[must_use]
    pub fn get(&self, prompt: &PromptId, now: Instant) -> Option<&Record> {
        self.prompts.get(prompt).filter(|record| !is_expired(record, self.max_age, now))
    }

    /// The history of these owners: the newest `max` of each, in the order of their ends.
    pub fn history_of(&mut self, owners: &[Owner], max: usize, now: Instant) -> Vec<Listed> {
        self.evict_expired(now);
        self.described(self.owners.listed_of(owners, max).into_iter(), now)
    }

    /// The pending prompts of a person, over all of that person's clients.
    #[must_use]
    pub fn pending_of(&self, person: &Person) -> Vec<PromptId> {
        self.owners.pending_of(person)
    }

    /// True if anything of a person is pending or in a history.
    #[must_use]
    pub fn knows(&self, person: &Person) -> bool {
        self.owners.knows(person)
    }

    /// The newest `max` prompts of all histories except those of unnamed submitters, in the order
    /// of their ends.
    pub fn history_of_all(&mut self, max: usize, now: Instant) -> Vec<Listed> {
        self.evict_expired(now);
        let is_listed = |prompt: &&PromptId| {
            let record = self.prompts.get(*prompt);
            record.is_some_and(|record| {
                let is_nobodys = record.by.user().is_none();
                self.is_listed(record) && !record.by.is_nameless() && is_nobodys
            })
        };
        let mut newest: Vec<&PromptId> =
            self.settled.values().rev().filter(is_listed).take(max).collect();
        newest.reverse();
        self.described(newest.into_iter(), now)
    }

    /// True if the prompt has ended and was removed from its history.
    #[must_use]
    pub fn is_unlisted(&self, prompt: &PromptId, now: Instant) -> bool {
        self.get(prompt, now).is_some_and(|record| {
            matches!(record.state, State::Ended(_))
                && record.by.client.is_some()
                && !self.is_listed(record)
        })
    }

    /// Removes the prompt from its history: its client deleted it there, or its backend forgot it.
    /// A prompt that has not ended is unchanged.
    pub fn unlist(&mut self, prompt: &PromptId) {
        if let Some(record) = self.prompts.get(prompt) {
            unlist(&mut self.owners, record);
        }
    }

    fn is_listed(&self, record: &Record) -> bool {
        record.place.is_some_and(|place| self.owners.is_listed(&record.by, place))
    }

    fn described<'p>(
        &self,
        prompts: impl Iterator<Item = &'p PromptId>,
        now: Instant,
    ) -> Vec<Listed> {
        let read = |prompt: &PromptId| {
            let record = self.get(prompt, now)?;
            let State::Ended(end) = record.state else { return None };
            let Record { backend, made, order, .. } = *record;
            let (by, ended) = (record.by.clone(), record.ended.unwrap_or(made));
            let (prompt, settled) = (prompt.clone(), record.settled.unwrap_or(ended));
            Some(Listed { prompt, by, backend, made, order, end, ended, settled })
        };
        prompts.filter_map(read).collect()
    }

    /// The prompts that were presumed lost because `backend` was away or ran nothing, in no order.
    #[must_use]
    pub fn presumed_lost(&self, backend: BackendId) -> Vec<PromptId> {
        self.presumed_lost.of(backend)
    }

    /// True if all backends were asked about an unknown id within [`ASK_AGAIN_AFTER`].
    #[must_use]
    pub fn was_asked(&self, prompt: &PromptId, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.duration_since(*at) < ASK_AGAIN_AFTER;
        self.asked.get(prompt).is_some_and(is_recent)
    }

    /// True if all backends may be asked about an unknown id now. Notes that they were asked.
    pub fn may_ask(&mut self, prompt: &PromptId, now: Instant) -> bool {
        if self.was_asked(prompt, now) {
            return false;
        }
        while ASKED_MAX <= self.asked_order.len() {
            if let Some(oldest) = self.asked_order.pop_front() {
                self.asked.remove(&oldest);
            }
        }
        if self.asked.insert(prompt.clone(), now).is_none() {
            self.asked_order.push_back(prompt.clone());
        }
        true
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.prompts.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// Enters an id that is unknown or expired.
    fn insert(&mut self, prompt: &PromptId, by: Submitter, now: Instant) {
        let (state, order) = (State::Pending, self.next_order);
        self.next_order += 1;
        self.owners.began(&by, prompt);
        let (backend, ended, settled, place) = (None, None, None, None);
        let (way, made) = (Way::Sent, now);
        let record = Record { by, backend, way, made, order, state, ended, settled, place };
        if let Some(expired) = self.prompts.insert(prompt.clone(), record) {
            unlist(&mut self.owners, &expired);
            self.presumed_lost.forget(prompt, &expired);
            if let Some(place) = expired.place {
                self.settled.remove(&place);
            }
        }
        self.evict_expired(now);
    }

    /// The prompt is not pending. Evicts the oldest if there are too many.
    fn settle(&mut self, prompt: &PromptId, state: State, now: Instant) {
        let Some(record) = self.prompts.get_mut(prompt) else { return };
        self.presumed_lost.forget(prompt, record);
        record.state = state;
        record.ended = Some(now);
        self.presumed_lost.note(prompt, record);
        if record.place.is_none() {
            (record.place, record.settled) = (Some(self.next_place), Some(now));
            self.settled.insert(self.next_place, prompt.clone());
            self.owners.settled(&record.by, prompt);
            if let State::Ended(_) = state {
                self.owners.list(&record.by, self.next_place, prompt);
            }
            self.next_place += 1;
        }
        if state == State::Ended(End::Deleted) {
            unlist(&mut self.owners, record);
        }
        while self.capacity < self.settled.len() {
            if let Some((_, oldest)) = self.settled.pop_first() {
                self.evict(oldest);
            }
        }
    }

    /// Evicts expired prompts, up to the first one that has not expired.
    fn evict_expired(&mut self, now: Instant) {
        while let Some(oldest) = self.settled.first_entry() {
            let record = self.prompts.get(oldest.get());
            if record.is_some_and(|record| !is_expired(record, self.max_age, now)) {
                return;
            }
            let oldest = oldest.remove();
            self.evict(oldest);
        }
    }

    /// Removes the traces of a prompt that is no longer in `settled`.
    fn evict(&mut self, prompt: PromptId) {
        if let Some(record) = self.prompts.remove(&prompt) {
            unlist(&mut self.owners, &record);
            self.presumed_lost.forget(&prompt, &record);
        }
        self.evicted.push(prompt);
    }
}

fn unlist(owners: &mut Owners, record: &Record) {
    if let Some(place) = record.place {
        owners.unlist(&record.by, place);
    }
}

fn is_expired(record: &Record, max_age: Duration, now: Instant) -> bool {
    record.state != State::Pending && max_age <= now.duration_since(record.made)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::super::ids::ClientId;
    use super::super::pending::Loss;
    use super::presumed::is_presumed_lost;
    use super::*;

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    fn ada() -> ClientId {
        ClientId::parse("ada").unwrap()
    }

    fn by_ada() -> Submitter {
        Submitter::client(ada())
    }

    fn of(client: ClientId) -> Owner {
        Owner::Client(client)
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn ledger() -> Ledger {
        Ledger::new(2, Duration::from_secs(100))
    }

    #[test]
    fn an_id_is_given_once_until_it_is_withdrawn() {
        let (t, mut ledger) = (start(), ledger());
        assert_eq!(ledger.reserve(&id("p"), by_ada(), t), Ok(()));
        assert_eq!(ledger.reserve(&id("p"), by_ada(), t), Err(Known));
        ledger.withdraw(&id("p"));
        assert_eq!(ledger.reserve(&id("p"), by_ada(), t), Ok(()));
        ledger.ended(&id("p"), End::Succeeded, t);
        ledger.withdraw(&id("p"));
        assert_eq!(ledger.reserve(&id("p"), by_ada(), t), Err(Known), "ended ones stay known");
    }

    #[test]
    fn what_was_only_found_becomes_its_clients_and_what_is_known_stays() {
        let (t, mut ledger) = (start(), ledger());
        let at = (BackendId::nth(1), t);
        ledger.learn(&id("p"), BackendId::nth(1), t);
        assert!(ledger.adopt(&id("p"), by_ada(), at, t));
        assert!(!ledger.adopt(&id("p"), Submitter::client(ClientId::parse("eve").unwrap()), at, t));
        let record = ledger.get(&id("p"), t).unwrap();
        assert_eq!((&record.by, record.state), (&by_ada(), State::Pending));
        assert_eq!((record.backend, ledger.settled.len()), (Some(BackendId::nth(1)), 0));
        ledger.ended(&id("p"), End::Succeeded, t);
        assert!(!ledger.adopt(&id("p"), by_ada(), at, t), "it has ended");
        assert_eq!(ledger.history_of(&[of(ada())], 9, t).len(), 1);
    }

    #[test]
    fn the_first_that_ended_goes_first_and_a_pending_one_never() {
        let (t, mut ledger) = (start(), ledger());
        for name in ["a", "b", "c", "d"] {
            ledger.reserve(&id(name), by_ada(), t).unwrap();
        }
        for name in ["d", "c", "b"] {
            ledger.ended(&id(name), End::Succeeded, t);
        }
        let known: Vec<&str> = ["a", "b", "c", "d"]
            .into_iter()
            .filter(|name| ledger.get(&id(name), t).is_some())
            .collect();
        assert_eq!(known, ["a", "b", "c"], "two that ended, and one that is pending");
    }

    #[test]
    fn refused_submissions_leave_nothing_behind() {
        // Each of them used to leave its id in the order of eviction, behind the first kept prompt.
        let (t, mut ledger) = (start(), ledger());
        ledger.reserve(&id("kept"), by_ada(), t).unwrap();
        ledger.ended(&id("kept"), End::Succeeded, t);
        for _ in 0..1_000 {
            ledger.reserve(&id("refused"), by_ada(), t).unwrap();
            ledger.withdraw(&id("refused"));
        }
        assert_eq!((ledger.prompts.len(), ledger.settled.len()), (1, 1));
    }

    #[test]
    fn an_id_that_has_expired_may_be_learned_and_used_again() {
        let (t, mut ledger) = (start(), ledger());
        let late = t + Duration::from_secs(100);
        for name in ["young", "x", "y"] {
            let made = if name == "young" { late } else { t };
            ledger.reserve(&id(name), by_ada(), made).unwrap();
            ledger.ended(&id(name), End::Succeeded, t);
        }
        ledger.learn(&id("x"), BackendId::nth(3), late);
        let learned = ledger.get(&id("x"), late).map(|record| (record.backend, record.state));
        assert_eq!(learned, Some((Some(BackendId::nth(3)), State::Learned)));
        assert_eq!(ledger.reserve(&id("y"), by_ada(), late), Ok(()));
        let places = ledger.prompts.values().filter(|record| record.place.is_some()).count();
        assert_eq!(places, ledger.settled.len());
    }

    #[test]
    fn an_end_has_its_time_and_what_was_restored_keeps_it() {
        let (t, mut ledger) = (start(), ledger());
        let (made, ended) = (t, t + Duration::from_secs(3));
        ledger.reserve(&id("p"), by_ada(), made).unwrap();
        ledger.ended(&id("p"), End::Failed, ended);
        let order = 7;
        let end = Some((End::Failed, ended));
        let entry = Entry { prompt: id("q"), by: by_ada(), backend: None, made, order, end };
        ledger.restore(entry, ended + Duration::from_secs(9));
        let listed = ledger.history_of(&[of(ada())], 9, ended);
        let times: Vec<_> = listed.iter().map(|it| (it.made, it.ended)).collect();
        assert_eq!(times, [(made, ended), (made, ended)]);
    }

    #[test]
    fn nobody_in_particular_has_no_history_of_the_nameless() {
        let (t, mut ledger) = (start(), ledger());
        let here = Person::Address([10, 0, 0, 1].into());
        let nameless = Submitter { person: Some(here.clone()), ..by_ada() };
        ledger.reserve(&id("p"), nameless, t).unwrap();
        assert_eq!(ledger.pending_of(&here), [id("p")]);
        ledger.ended(&id("p"), End::Succeeded, t);
        assert_eq!(ledger.pending_of(&here), []);
        assert_eq!(ledger.history_of_all(9, t), []);
        assert_eq!(ledger.history_of(&[Owner::Person(here)], 9, t).len(), 1);
    }

    #[test]
    fn what_is_learned_later_does_not_change_whose_a_prompt_is() {
        let (t, mut ledger) = (start(), ledger());
        ledger.reserve(&id("p"), by_ada(), t).unwrap();
        ledger.placed(&id("p"), BackendId::nth(1));
        ledger.learn(&id("p"), BackendId::nth(2), t);
        let record = ledger.get(&id("p"), t).unwrap();
        assert_eq!((record.backend, record.state), (Some(BackendId::nth(1)), State::Pending));
        assert_eq!(record.by, by_ada());
    }

    #[test]
    fn an_ended_prompt_is_forgotten_with_age_and_a_pending_one_is_not() {
        let (t, mut ledger) = (start(), ledger());
        ledger.reserve(&id("old"), by_ada(), t).unwrap();
        let late = t + Duration::from_secs(100);
        assert!(ledger.get(&id("old"), late).is_some());
        ledger.ended(&id("old"), End::Failed, t);
        assert!(ledger.get(&id("old"), late).is_none());
    }

    #[test]
    fn an_unknown_id_is_asked_about_once_in_five_seconds() {
        let (t, mut ledger) = (start(), ledger());
        assert!(ledger.may_ask(&id("x"), t));
        assert!(!ledger.may_ask(&id("x"), t + Duration::from_millis(4_999)));
        assert!(ledger.may_ask(&id("x"), t + Duration::from_secs(5)));
    }

    #[test]
    fn a_flood_of_unknown_ids_is_forgotten_from_its_old_end() {
        let (t, mut ledger) = (start(), ledger());
        for number in 0..=ASKED_MAX {
            assert!(ledger.may_ask(&id(&number.to_string()), t));
        }
        assert_eq!((ledger.asked.len(), ledger.asked_order.len()), (ASKED_MAX, ASKED_MAX));
        assert!(!ledger.may_ask(&id(&ASKED_MAX.to_string()), t));
        assert!(ledger.may_ask(&id("0"), t), "it was asked about first");
    }

    #[test]
    fn an_end_that_turns_out_otherwise_is_corrected_in_place() {
        let (t, mut ledger) = (start(), ledger());
        for name in ["lost", "other"] {
            ledger.reserve(&id(name), by_ada(), t).unwrap();
        }
        ledger.ended(&id("lost"), End::Lost(Loss::BackendGone), t);
        ledger.ended(&id("other"), End::Succeeded, t);
        ledger.ended(&id("lost"), End::Succeeded, t);
        let state = ledger.get(&id("lost"), t).map(|record| record.state);
        assert_eq!((state, ledger.settled.len()), (Some(State::Ended(End::Succeeded)), 2));
        ledger.ended(&id("never seen"), End::Failed, t);
        assert!(ledger.get(&id("never seen"), t).is_none());
    }

    #[test]
    fn a_history_lists_in_the_order_of_the_ends_what_its_client_made_and_did_not_delete() {
        let t = start();
        let mut ledger = Ledger::new(10, Duration::from_secs(100));
        let bob = ClientId::parse("bob").unwrap();
        for (name, client) in [("a", ada()), ("b", bob.clone()), ("c", ada()), ("d", ada())] {
            ledger.reserve(&id(name), Submitter::client(client), t).unwrap();
        }
        ledger.learn(&id("of nobody"), BackendId::nth(0), t);
        for (name, end) in [("c", End::Failed), ("b", End::Succeeded), ("a", End::Succeeded)] {
            ledger.ended(&id(name), end, t);
        }
        let names = |listed: Vec<Listed>| {
            listed.iter().map(|it| it.prompt.as_str().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(ledger.history_of(&[of(ada())], 9, t)), "c a");
        assert_eq!(names(ledger.history_of(&[of(bob.clone()), of(ada())], 9, t)), "c b a");
        assert_eq!(names(ledger.history_of(&[of(ada())], 1, t)), "a");
        assert_eq!(names(ledger.history_of_all(2, t)), "b a");
        ledger.unlist(&id("a"));
        ledger.unlist(&id("d"));
        ledger.ended(&id("d"), End::Deleted, t);
        assert_eq!(names(ledger.history_of(&[of(ada())], 9, t)), "c");
        assert!(ledger.is_unlisted(&id("a"), t) && ledger.is_unlisted(&id("d"), t));
        assert!(!ledger.is_unlisted(&id("c"), t) && !ledger.is_unlisted(&id("of nobody"), t));
        let late = t + Duration::from_secs(100);
        assert_eq!(ledger.history_of(&[of(ada()), of(bob)], 9, late), []);
        assert!(ledger.owners.is_empty());
    }

    proptest! {
        #[test]
        fn the_ledger_stays_within_its_bounds_and_keeps_what_is_pending(
            story in vec((0..6_u8, 0..12_u8, 0..40_u64), 0..120),
        ) {
            let (mut now, mut ledger) = (start(), ledger());
            let mut pending = BTreeSet::new();
            for (what, which, pause) in story {
                let prompt = id(&which.to_string());
                match what {
                    0 | 1 => {
                        let is_known = ledger.get(&prompt, now).is_some();
                        let by = Submitter { person: Some(Person::Browser(1)), ..by_ada() };
                        let reserved = ledger.reserve(&prompt, by, now);
                        prop_assert_eq!(reserved.is_err(), is_known);
                        if !is_known {
                            pending.insert(prompt);
                        }
                    }
                    2 => {
                        ledger.ended(&prompt, End::Succeeded, now);
                        pending.remove(&prompt);
                    }
                    5 if pending.remove(&prompt) => {
                        ledger.placed(&prompt, BackendId::nth(u16::from(which) % 2));
                        ledger.ended(&prompt, End::Lost(Loss::BackendGone), now);
                    }
                    3 => {
                        ledger.withdraw(&prompt);
                        pending.remove(&prompt);
                    }
                    _ => {
                        now += Duration::from_secs(pause);
                        ledger.learn(&prompt, BackendId::nth(0), now);
                    }
                }
                for backend in [BackendId::nth(0), BackendId::nth(1)] {
                    let is_one = |it: &Record| it.backend == Some(backend) && is_presumed_lost(it);
                    let lost = ledger.prompts.iter().filter(|(_, record)| is_one(record));
                    let lost: BTreeSet<PromptId> = lost.map(|(prompt, _)| prompt.clone()).collect();
                    let told: BTreeSet<_> = ledger.presumed_lost(backend).into_iter().collect();
                    prop_assert_eq!(told, lost);
                }
                prop_assert!(ledger.len() <= 2 + pending.len());
                let listed = ledger.owners.listed_of(&[of(ada())], usize::MAX);
                prop_assert!(listed.len() <= ledger.settled.len());
                for listed in listed {
                    prop_assert!(ledger.settled.values().any(|settled| settled == listed));
                }
                let owned: BTreeSet<PromptId> =
                    ledger.pending_of(&Person::Browser(1)).into_iter().collect();
                prop_assert_eq!(&owned, &pending);
                let settled = ledger.prompts.values().filter(|it| it.state != State::Pending);
                prop_assert_eq!(settled.count(), ledger.settled.len());
                for prompt in &pending {
                    let state = ledger.get(prompt, now).map(|record| record.state);
                    prop_assert_eq!(state, Some(State::Pending));
                }
            }
        }
    }
}
