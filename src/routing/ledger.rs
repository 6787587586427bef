//! Who made which prompt, and where (promise R2). It outlives the binding.
//!
//! # Invariants
//!
//! - An id is in the ledger once; [`Ledger::reserve`] is the only way in for a new submission, so
//!   two submissions with one id cannot both pass.
//! - A pending prompt is never evicted; of the ended ones the oldest go first.
//! - It never holds more than `capacity` prompts, plus those that are pending.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::ids::{BackendId, ClientId, PromptId};
use super::pending::End;

/// How often an id that nobody knows is asked of all backends.
pub const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How many unknown ids are remembered as asked. Past it the oldest is asked about again early.
const ASKED_MAX: usize = 10_000;

/// The prompts of the whole fleet.
#[derive(Debug)]
pub struct Ledger {
    prompts: HashMap<PromptId, Record>,
    /// Ids in the order they came; ids that were withdrawn stay until they reach the front.
    order: VecDeque<PromptId>,
    asked: HashMap<PromptId, Instant>,
    asked_order: VecDeque<PromptId>,
    capacity: usize,
    max_age: Duration,
}

/// What is known of one prompt.
#[derive(Clone, Debug)]
pub struct Record {
    /// `None` for a prompt that was found on a backend and not submitted through us.
    pub client: Option<ClientId>,
    /// `None` until it is placed.
    pub backend: Option<BackendId>,
    pub made: Instant,
    pub state: State,
}

/// Whether a prompt is still somebody's pending work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    Pending,
    Ended(End),
    /// Learned from a backend, never pending with us.
    Learned,
}

/// The id is in the ledger already.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the prompt id is known already")]
pub struct Known;

impl Ledger {
    #[must_use]
    pub fn new(capacity: usize, max_age: Duration) -> Self {
        Self {
            prompts: HashMap::new(),
            order: VecDeque::new(),
            asked: HashMap::new(),
            asked_order: VecDeque::new(),
            capacity,
            max_age,
        }
    }

    /// Takes an id for a new submission of `client`.
    ///
    /// # Errors
    /// Somebody has used it, pending or ended.
    pub fn reserve(
        &mut self,
        prompt: &PromptId,
        client: &ClientId,
        now: Instant,
    ) -> Result<(), Known> {
        if self.get(prompt, now).is_some() {
            return Err(Known);
        }
        let record = Record {
            client: Some(client.clone()),
            backend: None,
            made: now,
            state: State::Pending,
        };
        self.insert(prompt, record, now);
        Ok(())
    }

    /// The submission goes to `backend`.
    pub fn placed(&mut self, prompt: &PromptId, backend: BackendId) {
        if let Some(record) = self.prompts.get_mut(prompt) {
            record.backend = Some(backend);
        }
    }

    /// The prompt has ended.
    pub fn ended(&mut self, prompt: &PromptId, end: End) {
        if let Some(record) = self.prompts.get_mut(prompt) {
            record.state = State::Ended(end);
        }
    }

    /// The submission was refused: the id may be used again.
    pub fn withdraw(&mut self, prompt: &PromptId) {
        self.prompts.remove(prompt);
    }

    /// A prompt that nobody submitted through us was found on `backend`.
    pub fn learn(&mut self, prompt: &PromptId, backend: BackendId, now: Instant) {
        if !self.prompts.contains_key(prompt) {
            let record =
                Record { client: None, backend: Some(backend), made: now, state: State::Learned };
            self.insert(prompt, record, now);
        }
    }

    /// What is known of a prompt.
    #[must_use]
    pub fn get(&self, prompt: &PromptId, now: Instant) -> Option<&Record> {
        self.prompts.get(prompt).filter(|record| !self.is_expired(record, now))
    }

    /// True if all backends may be asked about an unknown id now; it is noted as asked.
    pub fn may_ask(&mut self, prompt: &PromptId, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.duration_since(*at) < ASK_AGAIN_AFTER;
        if self.asked.get(prompt).is_some_and(is_recent) {
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

    fn insert(&mut self, prompt: &PromptId, record: Record, now: Instant) {
        self.evict(now);
        self.prompts.insert(prompt.clone(), record);
        self.order.push_back(prompt.clone());
    }

    /// Makes room for one more: the oldest that is not pending goes. A pending one at the front
    /// is moved to the back, at most once around.
    fn evict(&mut self, now: Instant) {
        for _ in 0..self.order.len() {
            let Some(oldest) = self.order.front() else { return };
            match self.prompts.get(oldest) {
                Some(record) if record.state == State::Pending => self.order.rotate_left(1),
                Some(record)
                    if self.prompts.len() < self.capacity && !self.is_expired(record, now) =>
                {
                    return;
                }
                Some(_) | None => {
                    if let Some(oldest) = self.order.pop_front() {
                        self.prompts.remove(&oldest);
                    }
                }
            }
        }
    }

    fn is_expired(&self, record: &Record, now: Instant) -> bool {
        record.state != State::Pending && self.max_age <= now.duration_since(record.made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    fn ada() -> ClientId {
        ClientId::parse("ada").unwrap()
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
        assert_eq!(ledger.reserve(&id("p"), &ada(), t), Ok(()));
        assert_eq!(ledger.reserve(&id("p"), &ada(), t), Err(Known));
        ledger.ended(&id("p"), End::Succeeded);
        assert_eq!(ledger.reserve(&id("p"), &ada(), t), Err(Known), "ended ones are known too");
        ledger.withdraw(&id("p"));
        assert_eq!(ledger.reserve(&id("p"), &ada(), t), Ok(()));
    }

    #[test]
    fn the_oldest_ended_goes_first_and_a_pending_one_never() {
        let (t, mut ledger) = (start(), ledger());
        for name in ["a", "b", "c", "d"] {
            ledger.reserve(&id(name), &ada(), t).unwrap();
            if name != "a" {
                ledger.ended(&id(name), End::Succeeded);
            }
        }
        let known: Vec<&str> = ["a", "b", "c", "d"]
            .into_iter()
            .filter(|name| ledger.get(&id(name), t).is_some())
            .collect();
        assert_eq!(known, ["a", "d"]);
    }

    #[test]
    fn an_ended_prompt_is_forgotten_with_age_and_a_pending_one_is_not() {
        let (t, mut ledger) = (start(), ledger());
        ledger.reserve(&id("old"), &ada(), t).unwrap();
        let late = t + Duration::from_secs(100);
        assert!(ledger.get(&id("old"), late).is_some());
        ledger.ended(&id("old"), End::Failed);
        assert!(ledger.get(&id("old"), late).is_none());
    }

    #[test]
    fn an_unknown_id_is_asked_about_once_in_five_seconds() {
        let (t, mut ledger) = (start(), ledger());
        assert!(ledger.may_ask(&id("x"), t));
        assert!(!ledger.may_ask(&id("x"), t + Duration::from_millis(4_999)));
        assert!(ledger.may_ask(&id("x"), t + Duration::from_secs(5)));
    }
}
