//! When those who wait are expected to start: `schedule` is played on, on a copy, as if each prompt
//! took as long as is expected of it and nothing new came.
//!
//! It is a guess and no promise. If nothing was learned of how long prompts take, no time is told.
//! The play is bounded: what would be handed over after [`HAND_OVERS_MAX`] others, or after
//! [`STEPS_MAX`] steps, is expected to go on at the pace of those before.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use super::clients::Client;
use super::fleet::Serving;
use super::ids::{Number, PromptKey, SharerKey};
use super::order::Scope;
use super::schedule::HandOver;
use super::snapshot::Snapshot;
use super::{Queue, Spent};

/// So many hand-overs are played.
pub const HAND_OVERS_MAX: usize = 2_000;

/// So many steps are made, of which a decision takes about one for each backend and for each shape
/// that waits. They take about 20 ms.
pub const STEPS_MAX: usize = 500_000;

/// What a decision takes besides.
const STEPS_OF_EACH: usize = 8;

/// More prompts of others than this are said where a backend takes nothing.
const OTHERS_MAX: u32 = 1_000;

/// What is expected of a prompt that waits. Times are on the clock of the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Expected {
    /// 1 for the next that is handed over.
    pub place: usize,
    /// When it leaves the queue; `None` if that is not known.
    pub leaves: Option<Duration>,
    /// When it starts.
    pub starts: Option<Duration>,
}

/// What is expected of all that wait.
#[derive(Debug, Default)]
pub struct Forecast {
    /// By place.
    order: Vec<PromptKey>,
    of: HashMap<PromptKey, Expected>,
    sharers: HashMap<SharerKey, OfSharer>,
    /// When it was made.
    made: Duration,
    /// Between two hand-overs, on average.
    pace: Option<Duration>,
    steps: usize,
}

/// What is expected of one sharer's prompts.
#[derive(Clone, Copy, Debug)]
struct OfSharer {
    prompts: usize,
    /// When the first of them leaves the queue.
    leaves: Option<Duration>,
    last: Expected,
}

impl Forecast {
    /// Plays a copy on to its end, or as far as may be.
    #[must_use]
    pub fn of(snapshot: Snapshot, now: Duration) -> Self {
        let mut play = Play::new(snapshot, now);
        while play.goes_on(STEPS_MAX) == Goes::On {}
        play.into_forecast()
    }

    #[must_use]
    pub fn get(&self, prompt: PromptKey) -> Option<Expected> {
        self.of.get(&prompt).copied()
    }

    /// Those who wait, in the order in which they are expected to be handed over.
    #[must_use]
    pub fn order(&self) -> &[PromptKey] {
        &self.order
    }

    /// When the first of all leaves the queue.
    #[must_use]
    pub fn leaves(&self) -> Option<Duration> {
        self.get(*self.order.first()?)?.leaves
    }

    /// When the first of this sharer leaves the queue.
    #[must_use]
    pub fn leaves_of(&self, sharer: SharerKey) -> Option<Duration> {
        self.sharers.get(&sharer)?.leaves
    }

    /// When it was made.
    #[must_use]
    pub fn made(&self) -> Duration {
        self.made
    }

    /// How much work it was.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// What is expected of a prompt that came after this was made, if so many of its sharer wait
    /// now: it comes after them, and in turn with the others.
    #[must_use]
    pub fn of_newcomer(&self, sharer: SharerKey, waiting: usize) -> Expected {
        let sharers = self.sharers.len().max(1);
        let Some(own) = self.sharers.get(&sharer) else {
            // Of each other who waits, one may come before it.
            let place = (sharers + 1).min(self.order.len() + 1);
            let at = self.order.get(place - 1).or(self.order.last());
            let there = at.and_then(|it| self.get(*it));
            let (leaves, starts) = there.map_or((None, None), |it| (it.leaves, it.starts));
            return Expected { place, leaves, starts };
        };
        let more = waiting.saturating_sub(own.prompts).max(1).saturating_mul(sharers);
        let passed = |pace: Duration| pace.saturating_mul(u32::try_from(more).unwrap_or(u32::MAX));
        let after = |it: Option<Duration>| Some(it?.saturating_add(passed(self.pace?)));
        Expected {
            place: own.last.place.saturating_add(more),
            leaves: after(own.last.leaves),
            starts: after(own.last.starts),
        }
    }
}

/// Whether there is more to be played.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Goes {
    On,
    Over,
}

/// What a backend does.
#[derive(Clone, Copy, Debug)]
enum Runs {
    Ours(PromptKey),
    /// A prompt that came past us.
    Other,
}

/// A forecast that is being made, in pieces.
#[derive(Debug)]
pub struct Play {
    queue: Queue,
    began: Duration,
    now: Duration,
    /// What each backend runs, by slot.
    running: Vec<Option<Runs>>,
    ends: BinaryHeap<Reverse<(Duration, u16)>>,
    /// When time alone may change something.
    wake: Option<Duration>,
    order: Vec<PromptKey>,
    of: HashMap<PromptKey, Expected>,
    /// Whose those are that wait.
    whose: HashMap<PromptKey, SharerKey>,
    /// So many are handed over at once, and say nothing about the pace of those that follow.
    burst: usize,
    steps: usize,
    /// What making the copy was worth.
    copied: usize,
    is_over: bool,
    /// Something is known of how long prompts take.
    knows: bool,
}

impl Play {
    #[must_use]
    pub fn new(snapshot: Snapshot, now: Duration) -> Self {
        let copied = 2 * snapshot.rows();
        let queue = snapshot.into_queue();
        let knows = queue.runs.knows();
        let waiting = queue.clients.prompts.iter().filter(|(_, it)| it.at.is_none());
        let whose = waiting.map(|(key, it)| (*key, it.sharer)).collect();
        let slots: Vec<u16> = queue.fleet.all().map(|it| it.slot).collect();
        let mut play = Self {
            running: vec![None; queue.fleet.len()],
            queue,
            began: now,
            now,
            ends: BinaryHeap::new(),
            wake: None,
            order: Vec::new(),
            of: HashMap::new(),
            whose,
            burst: 0,
            steps: 0,
            copied,
            is_over: false,
            knows,
        };
        slots.into_iter().for_each(|slot| play.starts_next(slot));
        play.decides();
        play.burst = play.order.len();
        play
    }

    /// Plays about so many steps more.
    pub fn goes_on(&mut self, steps: usize) -> Goes {
        let until = self.steps.saturating_add(steps);
        while !self.is_over {
            let next = self.ends.peek().map(|Reverse((at, _))| *at);
            let next = next.into_iter().chain(self.wake).min();
            let Some(next) = next.filter(|_| !self.is_enough()) else {
                self.is_over = true;
                break;
            };
            if until <= self.steps {
                return Goes::On;
            }
            self.now = self.now.max(next);
            while let Some(Reverse((at, slot))) = self.ends.peek().copied()
                && at <= self.now
            {
                self.ends.pop();
                self.ends_at(slot);
                self.starts_next(slot);
            }
            self.decides();
        }
        Goes::Over
    }

    fn is_enough(&self) -> bool {
        HAND_OVERS_MAX <= self.order.len() - self.burst || STEPS_MAX <= self.steps
    }

    fn ends_at(&mut self, slot: u16) {
        match self.running.get_mut(usize::from(slot)).and_then(Option::take) {
            // What it took is charged, and nothing is learned of a guess.
            Some(Runs::Ours(prompt)) => {
                self.queue.ended(prompt, Spent::Broke, self.now);
            }
            Some(Runs::Other) => {
                if let Some(backend) = self.queue.fleet.get_mut(slot) {
                    backend.others = backend.others.saturating_sub(1);
                }
            }
            None => {}
        }
    }

    /// The backend runs what is next there, if it runs nothing.
    fn starts_next(&mut self, slot: u16) {
        let place = usize::from(slot);
        let now = self.now.as_secs_f64();
        let backend = self.queue.fleet.get(slot).filter(|it| it.serving != Serving::Down);
        let (Some(backend), Some(None)) = (backend, self.running.get(place)) else { return };
        let has_begun = backend.there.iter().find(|it| it.begun.is_some());
        let (runs, seconds) = match (has_begun, backend.others, backend.there.first()) {
            (Some(it), _, _) => (Runs::Ours(it.prompt), it.left(now)),
            (None, 1..=OTHERS_MAX, _) => (Runs::Other, self.queue.runs.unknown()),
            (None, 0, Some(it)) => (Runs::Ours(it.prompt), it.expected),
            (None, _, _) => return,
        };
        if let Runs::Ours(prompt) = runs {
            self.queue.began(prompt, self.now);
            if let Some(it) = self.of.get_mut(&prompt) {
                it.starts = it.starts.or(Some(self.now));
            }
        }
        let Ok(rest) = Duration::try_from_secs_f64(seconds.max(0.0)) else { return };
        self.running[place] = Some(runs);
        self.ends.push(Reverse((self.now.saturating_add(rest), slot)));
    }

    /// Hands over what is to be handed over now. What starts changes when there is room next, so it
    /// is looked at again.
    fn decides(&mut self) {
        loop {
            let turn = self.queue.schedule(self.now);
            let each = STEPS_OF_EACH + self.queue.order.listed() + self.queue.fleet.len();
            self.steps += (turn.hand_over.len() + 1) * each;
            self.wake = turn.look_again;
            let is_over = turn.hand_over.is_empty() || self.is_enough();
            for HandOver { prompt, backend, .. } in turn.hand_over {
                self.order.push(prompt);
                let (place, leaves) = (self.order.len(), Some(self.now));
                self.of.insert(prompt, Expected { place, leaves, starts: None });
                self.starts_next(backend.slot());
            }
            if is_over {
                return;
            }
        }
    }

    /// What was found. What was not played any more follows in turns, at the pace of those before,
    /// if it can run at all.
    #[must_use]
    pub fn into_forecast(mut self) -> Forecast {
        let has_moved = self.ends.peek().is_some() || self.wake.is_some();
        let passed = self.now.saturating_sub(self.began);
        // Nothing is said about those behind before something has moved.
        let count = u32::try_from(self.order.len() - self.burst).ok().filter(|it| *it != 0);
        let average = count.map(|count| passed / count).filter(|pace| !pace.is_zero());
        let pace = average.filter(|_| has_moved);
        let mut at = self.now;
        // What was handed over and did not start any more.
        for it in self.of.values_mut() {
            it.starts = it.starts.or_else(|| pace.map(|pace| self.now + pace));
        }
        for (prompt, can_run) in self.rest() {
            self.order.push(prompt);
            let when = pace.filter(|_| can_run == CanRun::Yes).map(|pace| {
                at = at.saturating_add(pace);
                at
            });
            let place = self.order.len();
            self.of.insert(prompt, Expected { place, leaves: when, starts: when });
        }
        if !self.knows {
            let unknown = |it: &mut Expected| (it.leaves, it.starts) = (None, None);
            self.of.values_mut().for_each(unknown);
        }
        let sharers = self.sharers();
        let Self { order, of, began, steps, copied, .. } = self;
        let steps = steps + copied;
        Forecast { order, of, sharers, made: began, pace: average, steps }
    }

    /// Those who wait still: of each sharer the first, then the second, and so on.
    fn rest(&self) -> Vec<(PromptKey, CanRun)> {
        let clients = &self.queue.clients;
        let mut listed: HashMap<PromptKey, u64> = HashMap::new();
        for client in clients.clients.values().filter(|client| self.moves(client)) {
            let turns = client.waiting.iter().zip(&client.rounds);
            listed.extend(turns.map(|(own, round)| (own.prompt, round.0)));
        }
        let waiting = clients.prompts.iter().filter(|(_, it)| it.at.is_none());
        let mut rest: Vec<_> = waiting
            .map(|(key, it)| {
                let round = listed.get(key).copied();
                let can_run = if round.is_some() { CanRun::Yes } else { CanRun::No };
                // Those that can run nowhere are behind all others.
                let rank = (can_run, it.class, round.unwrap_or(u64::MAX), it.order);
                (it.sharer, rank, *key)
            })
            .collect();
        rest.sort_unstable();
        let mut of_sharer: HashMap<SharerKey, usize> = HashMap::new();
        let mut turns: Vec<_> = rest
            .into_iter()
            .map(|(sharer, (can_run, class, _, order), key)| {
                let turn = of_sharer.entry(sharer).or_default();
                *turn += 1;
                let fair = Number(self.queue.shares.key(sharer));
                (can_run, class, *turn, fair, order, key)
            })
            .collect();
        turns.sort_unstable();
        turns.into_iter().map(|(can_run, .., key)| (key, can_run)).collect()
    }

    /// True if the first prompt of the client may go to a backend that is up.
    fn moves(&self, client: &Client) -> bool {
        let fleet = &self.queue.fleet;
        let is_up = |scope: &Scope| match scope {
            Scope::Any => 0 < fleet.up(),
            Scope::At(slot) => fleet.is_up(*slot),
        };
        let listed = client.head.as_ref().and_then(|head| head.listed.as_ref());
        listed.is_some_and(|listed| listed.scopes.iter().any(is_up))
    }

    fn sharers(&self) -> HashMap<SharerKey, OfSharer> {
        let mut sharers: HashMap<SharerKey, OfSharer> = HashMap::new();
        for key in &self.order {
            let (Some(it), Some(sharer)) = (self.of.get(key), self.whose.get(key)) else {
                continue;
            };
            let own = OfSharer { prompts: 0, leaves: it.leaves, last: *it };
            let own = sharers.entry(*sharer).or_insert(own);
            (own.prompts, own.last) = (own.prompts + 1, *it);
        }
        sharers
    }
}

/// Whether a prompt can run on a backend that is up, by what is known.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum CanRun {
    Yes,
    No,
}
