//! The model: what is true of a client and of the ledger, in maps and lists.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mooring::routing::decision::{Decision, Reason, Refusal};
use mooring::routing::ids::{BackendId, ClientId, PromptId};
use mooring::routing::ledger::State;
use mooring::routing::placement::{AdminState, BackendView, NoPlace};

use super::facts::Facts;

/// What is asked of a client's binding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Read,
    Work,
}

/// What is true of one client.
#[derive(Debug)]
pub(super) struct Truth {
    pub(super) bound: Option<BackendId>,
    pub(super) pending: Vec<(PromptId, Facts)>,
    /// Uploads in flight, by the decision that began them.
    pub(super) uploads: Vec<Decision>,
    pub(super) reserved_until: Option<Instant>,
    pub(super) sockets: u32,
    /// The last contact or end.
    pub(super) last_sign: Instant,
}

impl Truth {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            bound: None,
            pending: Vec::new(),
            uploads: Vec::new(),
            reserved_until: None,
            sockets: 0,
            last_sign: now,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        !self.pending.is_empty() || !self.uploads.is_empty()
    }

    pub(super) fn is_reserved(&self, now: Instant) -> bool {
        self.reserved_until.is_some_and(|until| now < until)
    }

    pub(super) fn facts(&mut self, prompt: &PromptId) -> Option<&mut Facts> {
        self.pending.iter_mut().find(|(pending, _)| pending == prompt).map(|(_, facts)| facts)
    }

    pub(super) fn remove(&mut self, prompt: &PromptId) -> Option<Facts> {
        let index = self.pending.iter().position(|(pending, _)| pending == prompt)?;
        Some(self.pending.remove(index).1)
    }

    /// Where it must go, and why: the promises B2 to B4 as a table.
    pub(super) fn target(
        &self,
        kind: Kind,
        fleet: &[BackendView],
        turn: u64,
        now: Instant,
    ) -> Result<(BackendId, Reason), Refusal> {
        let chosen = choose(fleet, self.bound, turn);
        let Some(backend) = self.bound else {
            return Ok((chosen?, Reason::Placed));
        };
        let view = &fleet[usize::from(backend.slot())];
        let is_reachable = view.up && view.admin != AdminState::Off;
        let takes_new = view.up && view.admin == AdminState::Ready;
        if self.is_held() && is_reachable {
            Ok((backend, Reason::Held))
        } else if self.is_held() {
            Err(Refusal::BackendDown { backend })
        } else if self.is_reserved(now) && is_reachable {
            Ok((backend, Reason::Reserved))
        } else if kind == Kind::Read && (takes_new || (is_reachable && chosen.is_err())) {
            Ok((backend, Reason::Idle))
        } else {
            let chosen = chosen?;
            Ok((chosen, if chosen == backend { Reason::Placed } else { Reason::Moved }))
        }
    }
}

/// Promise B4: the least queue for its weight, the new prompt counted, then the last one, then
/// the fewest bound, then in
/// turn. Weights are 1 to 4 here, so a twelfth of the load divides evenly.
fn choose(fleet: &[BackendView], last: Option<BackendId>, turn: u64) -> Result<BackendId, NoPlace> {
    let mut ready: Vec<&BackendView> =
        fleet.iter().filter(|view| view.up && view.admin == AdminState::Ready).collect();
    if ready.is_empty() {
        return Err(NoPlace::NoneReady);
    }
    ready.retain(|view| view.max_pending.is_none_or(|max| view.load < max.get()));
    let count = fleet.len();
    let turn = usize::try_from(turn).expect("few turns") % count;
    let order: Vec<usize> = (turn..count).chain(0..turn).collect();
    let place_in_turn =
        |view: &BackendView| order.iter().position(|it| *it == usize::from(view.id.slot()));
    ready.sort_by_key(|view| {
        let queue = (view.load + 1) * (12 / view.weight.get());
        (queue, last != Some(view.id), view.bound, place_in_turn(view))
    });
    ready.first().map(|view| view.id).ok_or(NoPlace::FleetFull)
}

/// What is true of a prompt in the ledger.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) client: Option<ClientId>,
    pub(super) backend: Option<BackendId>,
    pub(super) state: State,
    made: Instant,
}

/// What is true of the ledger.
#[derive(Debug)]
pub(super) struct Book {
    entries: BTreeMap<PromptId, Entry>,
    /// Those that are not pending, in the order in which they came to be so.
    settled: Vec<PromptId>,
    asked: BTreeMap<PromptId, Instant>,
    capacity: usize,
    max_age: Duration,
}

impl Book {
    pub(super) fn new(capacity: usize, max_age: Duration) -> Self {
        let (entries, asked) = (BTreeMap::new(), BTreeMap::new());
        Self { entries, settled: Vec::new(), asked, capacity, max_age }
    }

    pub(super) fn get(&self, prompt: &PromptId, now: Instant) -> Option<&Entry> {
        let is_young = |entry: &&Entry| now - entry.made < self.max_age;
        self.entries.get(prompt).filter(|it| it.state == State::Pending || is_young(it))
    }

    pub(super) fn insert(&mut self, prompt: &PromptId, client: Option<ClientId>, now: Instant) {
        self.settled.retain(|settled| settled != prompt);
        let entry = Entry { client, backend: None, state: State::Pending, made: now };
        self.entries.insert(prompt.clone(), entry);
    }

    pub(super) fn placed(&mut self, prompt: &PromptId, backend: BackendId) {
        if let Some(entry) = self.entries.get_mut(prompt) {
            entry.backend = Some(backend);
        }
    }

    pub(super) fn settle(&mut self, prompt: &PromptId, state: State) {
        if let Some(entry) = self.entries.get_mut(prompt) {
            if entry.state == State::Pending {
                self.settled.push(prompt.clone());
            }
            entry.state = state;
        }
        if self.capacity < self.settled.len() {
            let oldest = self.settled.remove(0);
            self.entries.remove(&oldest);
        }
    }

    pub(super) fn withdraw(&mut self, prompt: &PromptId) {
        self.entries.remove(prompt);
    }

    pub(super) fn may_ask(&mut self, prompt: &PromptId, now: Instant) -> bool {
        let may = self.asked.get(prompt).is_none_or(|at| Duration::from_secs(5) <= now - *at);
        if may {
            self.asked.insert(prompt.clone(), now);
        }
        may
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &PromptId> {
        self.entries.keys()
    }

    /// How many it may hold at most now.
    pub(super) fn len_max(&self) -> usize {
        let pending = self.entries.values().filter(|entry| entry.state == State::Pending);
        self.capacity + pending.count()
    }
}
