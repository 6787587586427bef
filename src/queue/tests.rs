//! The queue against a naive reading of its rules, and what must hold whatever happens.

mod forecast;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;

use super::fleet::{BackendFacts, Serving};
use super::ids::{Class, ClientKey, MemberKey, ModelKey, Number, PromptKey, ShapeId, SharerKey};
use super::order::{Entry, Rank};
use super::schedule::{Choice, HandOver, Room, Why};
use super::settings::{COLD_WEIGHT, LOOK, Settings, WARM_LOOK};
use super::shapes::{Lacks, ShapeFacts};
use super::{Aside, BoundAt, Queue, Refused, Spent, Submission};
use crate::routing::ids::BackendId;

/// All that waits and what it could do, from the prompts alone: no list that is kept up to date.
struct Naive<'a> {
    queue: &'a Queue,
    now: f64,
}

/// A client's first prompt.
#[derive(Clone, Debug)]
struct First {
    entry: Entry,
    shape: ShapeId,
    slots: BTreeSet<u16>,
}

impl Naive<'_> {
    fn firsts(&self) -> Vec<First> {
        let mut waiting: BTreeMap<ClientKey, Vec<PromptKey>> = BTreeMap::new();
        for (key, prompt) in &self.queue.clients.prompts {
            if prompt.at.is_none() {
                waiting.entry(prompt.client).or_default().push(*key);
            }
        }
        waiting.into_iter().filter_map(|(client, prompts)| self.first(client, prompts)).collect()
    }

    fn first(&self, client: ClientKey, mut prompts: Vec<PromptKey>) -> Option<First> {
        let queue = self.queue;
        prompts.sort_by_key(|key| {
            let it = &queue.clients.prompts[key];
            (it.class, it.number, it.order)
        });
        let up: Vec<u16> =
            queue.fleet.all().filter(|it| it.serving == Serving::Up).map(|it| it.slot).collect();
        let key = prompts.into_iter().find(|key| {
            let prompt = &queue.clients.prompts[key];
            let lacks = |slot: u16| queue.shapes.get(prompt.shape).lacks(slot);
            up.is_empty() || up.iter().any(|it| !lacks(*it) && !prompt.not.contains(it))
        })?;
        let prompt = &queue.clients.prompts[&key];
        let at: BTreeSet<u16> = queue
            .clients
            .prompts
            .values()
            .filter(|it| it.client == client)
            .filter_map(|it| it.at.as_ref().map(|at| at.slot))
            .collect();
        let of_client = &queue.clients.clients[&client];
        let all: BTreeSet<u16> = queue.fleet.all().map(|it| it.slot).collect();
        let slots = match (queue.settings.spread, of_client.bound) {
            (1, Some(bound)) if at.contains(&bound) || queue.may_run(prompt, bound) => {
                BTreeSet::from([bound])
            }
            (0 | 1, _) => all,
            (spread, _) if spread <= at.len() => at,
            _ => all,
        };
        let slots: BTreeSet<u16> =
            slots.into_iter().filter(|slot| !prompt.not.contains(slot)).collect();
        if slots.is_empty() {
            return None;
        }
        let since = of_client.head.as_ref().map_or(self.now, |head| head.since);
        let raised = ((self.now - since + 1e-6) / queue.settings.ageing.as_secs_f64()) as u8;
        let entry = Entry {
            class: prompt.class.raised(raised),
            fair: Number(queue.shares.key(prompt.sharer)),
            round: of_client.rounds.first().unwrap().0,
            order: prompt.order,
            client,
            sharer: prompt.sharer,
        };
        Some(First { entry, shape: prompt.shape, slots })
    }

    fn may_go(&self, first: &First, slot: u16) -> bool {
        first.slots.contains(&slot) && !self.queue.shapes.get(first.shape).lacks(slot)
    }

    /// Section by section what the rules say, over every first prompt and every backend.
    fn choose(&self) -> Option<Choice> {
        let mut wake = f64::INFINITY;
        let rooms = self.queue.rooms(self.now, &mut wake);
        let firsts = self.firsts();
        let could = |it: &&First| rooms.iter().any(|room| self.may_go(it, room.slot));
        let least = firsts.iter().filter(could).map(|it| it.entry).min();
        let Some(least) = least else { return self.choose_cold(firsts, &rooms) };
        let window = self.queue.settings.window.as_secs_f64() * f64::from(self.queue.fleet.up());
        let near =
            |it: &&First| it.entry.class == least.class && it.entry.fair.0 <= least.fair.0 + window;
        let pairs = firsts
            .iter()
            .filter(near)
            .flat_map(|first| rooms.iter().map(move |room| (first, room)));
        let warm = pairs
            .filter(|(it, room)| {
                self.may_go(it, room.slot) && self.queue.is_warm(it.shape, room.slot)
            })
            .min_by_key(|(it, room)| {
                (room.is_busy, it.entry, self.queue.tie(it.shape, it.entry, room))
            });
        match warm {
            Some((it, room)) => Some(Choice { entry: it.entry, slot: room.slot, why: Why::Warm }),
            None => self.choose_cold(firsts, &rooms),
        }
    }

    fn choose_cold(&self, firsts: Vec<First>, rooms: &[Room]) -> Option<Choice> {
        let mut of_shape: BTreeMap<ShapeId, First> = BTreeMap::new();
        for it in firsts {
            if rooms.iter().any(|room| self.may_go(&it, room.slot)) {
                let other = of_shape.entry(it.shape).or_insert_with(|| it.clone());
                if it.entry < other.entry {
                    *other = it;
                }
            }
        }
        let mut heads: Vec<First> = of_shape.into_values().collect();
        heads.sort_by_key(|it| it.entry);
        let mut promised: BTreeMap<u16, f64> = BTreeMap::new();
        for it in heads.into_iter().take(LOOK) {
            let allowed = rooms.iter().filter(|room| self.may_go(&it, room.slot));
            let best = allowed.min_by_key(|room| self.queue.tie(it.shape, it.entry, room))?;
            let done = self.done(&it, best.slot, best.left);
            match self.warm_sooner(&it, rooms, &promised, done) {
                Some((slot, run)) => *promised.entry(slot).or_insert(0.0) += run,
                None => {
                    let is_warm = self.queue.is_warm(it.shape, best.slot);
                    let why = if is_warm { Why::First } else { Why::Cold };
                    return Some(Choice { entry: it.entry, slot: best.slot, why });
                }
            }
        }
        None
    }

    fn warm_sooner(
        &self,
        it: &First,
        rooms: &[Room],
        promised: &BTreeMap<u16, f64>,
        done: f64,
    ) -> Option<(u16, f64)> {
        let queue = self.queue;
        queue.shapes.get(it.shape).facts.models.first()?;
        let patience = queue.settings.patience.as_secs_f64();
        let busy = queue.fleet.all().filter(|backend| {
            backend.serving == Serving::Up
                && rooms.iter().all(|room| room.slot != backend.slot)
                && queue.is_warm(it.shape, backend.slot)
                && self.may_go(it, backend.slot)
        });
        busy.take(WARM_LOOK)
            .filter_map(|backend| {
                let before = promised.get(&backend.slot).copied().unwrap_or(0.0);
                let wait = backend.left(self.now, queue.runs.unknown()) + before;
                let run = self.run(it, backend.slot);
                (wait <= patience).then_some((Number(wait + run), backend.slot, run))
            })
            .min_by_key(|(sum, slot, _)| (*sum, *slot))
            .filter(|(sum, _, _)| sum.0 < done)
            .map(|(_, slot, run)| (slot, run))
    }

    fn run(&self, it: &First, slot: u16) -> f64 {
        let speed = self.queue.fleet.get(slot).unwrap().speed.get();
        self.queue.runs.expected(self.queue.shapes.get(it.shape).alike()) / speed
    }

    fn done(&self, it: &First, slot: u16, left: f64) -> f64 {
        let queue = self.queue;
        let models = &queue.shapes.get(it.shape).facts.models;
        let memory = &queue.fleet.get(slot).unwrap().memory;
        let missing = models.iter().filter(|model| !memory.has(**model));
        let cold: f64 = missing.map(|model| queue.models.load(*model, slot)).sum();
        let sharing = models.first().map_or(1.0, |first| {
            let waiting = queue.clients.prompts.values().filter(|prompt| {
                let models = &queue.shapes.get(prompt.shape).facts.models;
                prompt.at.is_none() && models.first() == Some(first)
            });
            let warm = queue.fleet.all().filter(|backend| backend.memory.has(*first));
            (waiting.count() as f64 / (1.0 + warm.count() as f64)).max(1.0)
        });
        left + COLD_WEIGHT * cold / sharing + self.run(it, slot)
    }
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Submit { client: u8, shape: u8, class: Class, number: i8 },
    Begin(u8),
    End(u8, u8),
    Break(u8),
    Return { nth: u8, not_there: bool },
    Delete(u8),
    Bind(u8, u8),
    Serve(u8, Serving),
    Empty(u8),
    Others(u8, u8),
    Lack(u8, u8, Lacks),
    Rejoin(u8),
    Progress(u8, u8),
    Wait(u16),
}

fn happens() -> impl Strategy<Value = Happens> {
    let serving = prop_oneof![
        Just(Serving::Up),
        Just(Serving::Up),
        Just(Serving::Draining),
        Just(Serving::Down)
    ];
    let lacks = prop_oneof![Just(Lacks::Nothing), Just(Lacks::Something)];
    let class = prop_oneof![
        6 => Just(Class::Normal),
        1 => Just(Class::High),
        1 => Just(Class::Low),
    ];
    prop_oneof![
        12 => (0..8_u8, 0..6_u8, class, any::<i8>()).prop_map(|(client, shape, class, number)| {
            Happens::Submit { client, shape, class, number }
        }),
        8 => any::<u8>().prop_map(Happens::Begin),
        8 => any::<(u8, u8)>().prop_map(|(nth, load)| Happens::End(nth, load)),
        1 => any::<u8>().prop_map(Happens::Break),
        1 => any::<(u8, bool)>().prop_map(|(nth, not_there)| Happens::Return { nth, not_there }),
        1 => any::<u8>().prop_map(Happens::Delete),
        1 => (0..8_u8, 0..4_u8).prop_map(|(client, at)| Happens::Bind(client, at)),
        1 => (0..4_u8, serving).prop_map(|(at, serving)| Happens::Serve(at, serving)),
        1 => (0..4_u8).prop_map(Happens::Empty),
        1 => (0..4_u8, 0..2_u8).prop_map(|(at, count)| Happens::Others(at, count)),
        1 => (0..6_u8, 0..4_u8, lacks).prop_map(|(shape, at, it)| Happens::Lack(shape, at, it)),
        1 => (0..4_u8).prop_map(Happens::Rejoin),
        2 => any::<(u8, u8)>().prop_map(|(nth, part)| Happens::Progress(nth, part)),
        8 => (0..40_000_u16).prop_map(Happens::Wait),
    ]
}

/// What stands beside the queue and is compared with it.
struct Model {
    queue: Queue,
    now: Duration,
    shapes: Vec<ShapeId>,
    /// Prompts that wait, and those that are at backends with where, and when they began.
    waiting: BTreeMap<PromptKey, ClientKey>,
    there: BTreeMap<PromptKey, (ClientKey, BackendId, Option<Duration>)>,
    ended: BTreeSet<PromptKey>,
    generation: u16,
    next: u64,
    fair: f64,
}

fn facts(at: u8, generation: u16) -> BackendFacts {
    let model_bytes = (at != 3).then_some(20_000_000_000);
    let id = BackendId::new(u16::from(at), generation);
    BackendFacts { id, speed: [2.0, 1.0, 1.0, 0.5][usize::from(at)], depth: None, model_bytes }
}

fn shape(of: u8) -> ShapeFacts {
    let models: &[u32] = [&[0][..], &[1], &[0, 5], &[2], &[3, 6], &[]][usize::from(of)];
    let models = models.iter().copied().map(ModelKey).collect();
    ShapeFacts { models, family: u64::from(of), classes: u64::from(of % 2), size: 100 }
}

impl Model {
    fn new(settings: Settings) -> Self {
        let mut queue = Queue::new(settings);
        for (model, bytes) in [7, 12, 17, 19, 1, 1, 1].into_iter().enumerate() {
            queue.weighs(ModelKey(u32::try_from(model).unwrap()), bytes * 1_000_000_000);
        }
        (0..4).for_each(|at| queue.joined(facts(at, 0), Duration::ZERO));
        Self {
            queue,
            now: Duration::ZERO,
            shapes: Vec::new(),
            waiting: BTreeMap::new(),
            there: BTreeMap::new(),
            ended: BTreeSet::new(),
            generation: 0,
            next: 0,
            fair: 0.0,
        }
    }

    fn nth_there(&self, nth: u8) -> Option<PromptKey> {
        let count = self.there.len().max(1);
        self.there.keys().nth(usize::from(nth) % count).copied()
    }

    fn id(&self, at: u8) -> BackendId {
        self.queue.fleet.get(u16::from(at)).map_or(BackendId::new(99, 9), |it| it.id)
    }

    fn go(&mut self, it: Happens) {
        let now = self.now;
        match it {
            Happens::Submit { client, shape: of, class, number } => {
                self.next += 1;
                let prompt = PromptKey(self.next);
                let shape = self.queue.shape(shape(of));
                self.shapes.push(shape);
                let submission = Submission {
                    prompt,
                    client: ClientKey(u32::from(client)),
                    sharer: SharerKey(u32::from(client / 2)),
                    member: MemberKey(u32::from(client)),
                    weight: 1.0,
                    shape,
                    class,
                    number: f64::from(number),
                    last: None,
                };
                self.queue.submitted(submission, now).unwrap();
                self.waiting.insert(prompt, submission.client);
            }
            Happens::Begin(nth) => {
                if let Some(prompt) = self.nth_there(nth) {
                    self.queue.began(prompt, now);
                    self.there.get_mut(&prompt).unwrap().2.get_or_insert(now);
                }
            }
            Happens::End(nth, load) => {
                let load = Duration::from_millis(u64::from(load) * 100);
                self.end(nth, Spent::Ran { load });
            }
            Happens::Break(nth) => self.end(nth, Spent::Broke),
            Happens::Return { nth, not_there } => {
                if let Some(prompt) = self.nth_there(nth) {
                    let (client, backend, _) = self.there.remove(&prompt).unwrap();
                    let not = if not_there { vec![backend] } else { Vec::new() };
                    assert!(self.queue.returned(prompt, &not, now));
                    self.waiting.insert(prompt, client);
                }
            }
            Happens::Delete(nth) => {
                let count = self.waiting.len().max(1);
                let nth = self.waiting.keys().nth(usize::from(nth) % count).copied();
                if let Some(prompt) = nth {
                    assert!(self.queue.gone(prompt, now));
                    assert!(!self.queue.gone(prompt, now), "it left once");
                    self.waiting.remove(&prompt);
                    assert!(self.ended.insert(prompt));
                }
            }
            Happens::Bind(client, at) => self.bind(ClientKey(client.into()), self.id(at)),
            Happens::Serve(at, serving) => self.queue.serves(self.id(at), serving, now),
            Happens::Empty(at) => self.queue.emptied(self.id(at)),
            Happens::Others(at, count) => self.queue.others(self.id(at), u32::from(count)),
            Happens::Lack(of, at, lacks) => {
                let shape = self.queue.shape(shape(of));
                self.queue.lacks([(shape, self.id(at), lacks)], now);
            }
            Happens::Rejoin(at) => self.rejoin(at),
            Happens::Progress(nth, part) => {
                if let Some(prompt) = self.nth_there(nth) {
                    let since = now.saturating_sub(Duration::from_secs(5));
                    self.queue.progress(prompt, f64::from(part) / 200.0, since, now);
                }
            }
            Happens::Wait(millis) => self.now += Duration::from_millis(u64::from(millis)),
        }
    }

    fn end(&mut self, nth: u8, spent: Spent) {
        let Some(prompt) = self.nth_there(nth) else { return };
        assert!(self.queue.ended(prompt, spent, self.now));
        assert!(!self.queue.ended(prompt, spent, self.now), "it ended once");
        self.there.remove(&prompt);
        assert!(self.ended.insert(prompt));
    }

    /// The client is bound to a backend by something that the queue did not decide.
    fn bind(&mut self, client: ClientKey, bound: BackendId) {
        self.queue.holds(client, BoundAt { bound: Some(bound), held: None }, self.now);
        if let Some(it) = self.queue.clients.clients.get(&client) {
            let is_there = |slot: u16| slot == bound.slot() || it.is_at(slot);
            assert!(it.bound.is_none_or(is_there), "{it:?}");
        }
    }

    /// Another backend in the slot: what was there waits again.
    fn rejoin(&mut self, at: u8) {
        let before = self.id(at);
        self.generation += 1;
        self.queue.joined(facts(at, self.generation), self.now);
        let back: Vec<PromptKey> =
            self.there.iter().filter(|(_, it)| it.1 == before).map(|(key, _)| *key).collect();
        for prompt in back {
            let (client, _, _) = self.there.remove(&prompt).unwrap();
            self.waiting.insert(prompt, client);
        }
    }

    /// Decides, and compares each decision with the naive one.
    fn decide(&mut self) -> Result<(), TestCaseError> {
        loop {
            let mut one = f64::INFINITY;
            let now = self.queue.advance(self.now);
            self.queue.age(now);
            let rooms = self.queue.rooms(now, &mut one);
            let expected = Naive { queue: &self.queue, now }.choose();
            let choice = match rooms.is_empty() {
                true => None,
                false => self.queue.choose(&rooms, now, &mut one),
            };
            prop_assert_eq!(choice, if rooms.is_empty() { None } else { expected });
            let Some(choice) = choice else { break };
            let own = self.own_order(choice.entry.client);
            let Some(it) = self.queue.hand_over(choice, now) else {
                return Err(TestCaseError::fail("a choice is handed over"));
            };
            prop_assert!(own.contains(&it.prompt), "its own order");
            self.placed(it)?;
        }
        let turn = self.queue.schedule(self.now);
        prop_assert!(turn.hand_over.is_empty(), "nothing is left to hand over");
        Ok(())
    }

    /// The prompts of the client that may be next: those before them can run nowhere.
    fn own_order(&self, client: ClientKey) -> Vec<PromptKey> {
        let waiting = &self.queue.clients.clients[&client].waiting;
        let runs = |key: PromptKey| {
            let prompt = &self.queue.clients.prompts[&key];
            self.queue.fleet.all().any(|it| self.queue.may_run(prompt, it.slot))
        };
        let first = waiting.iter().map(|own| own.prompt).find(|key| runs(*key));
        first.into_iter().collect()
    }

    fn placed(&mut self, it: HandOver) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.waiting.remove(&it.prompt), Some(it.client), "each leaves once");
        prop_assert_eq!(self.queue.place(it.prompt), Some(it.backend));
        self.there.insert(it.prompt, (it.client, it.backend, None));
        let backend = self.queue.fleet.get(it.backend.slot()).unwrap();
        prop_assert!(backend.count() <= self.queue.settings.depth, "depth");
        prop_assert!(backend.serving == Serving::Up);
        let at: BTreeSet<BackendId> =
            self.there.values().filter(|(client, ..)| *client == it.client).map(|x| x.1).collect();
        let spread = self.queue.settings.spread;
        prop_assert!(spread == 0 || at.len() <= spread, "spread");
        Ok(())
    }

    fn holds(&mut self) -> Result<(), TestCaseError> {
        let fair = self.queue.fair_time();
        prop_assert!(self.fair <= fair, "fair time never decreases");
        self.fair = fair;
        prop_assert_eq!(self.queue.waiting(), self.waiting.len());
        let here = self.waiting.len() + self.there.len();
        prop_assert_eq!(self.queue.clients.prompts.len(), here);
        let of = |sharer: u32| self.queue.waiting_of(SharerKey(sharer));
        prop_assert_eq!((0..4).map(of).sum::<usize>(), self.waiting.len());
        let bound: u32 = self.queue.fleet.all().map(|it| it.bound).sum();
        for client in self.queue.clients.clients.values() {
            prop_assert_eq!(client.rounds.len(), client.waiting.len(), "a turn for each");
        }
        let clients = self.queue.clients.clients.values();
        prop_assert_eq!(bound as usize, clients.filter(|it| it.bound.is_some()).count());
        Ok(())
    }
}

fn settings(spread: usize) -> Settings {
    Settings { spread, ..Settings::default() }
}

proptest! {
    #[test]
    fn each_decision_is_that_of_the_naive_reading(
        events in vec(happens(), 1..150),
        spread in 0..4_usize,
    ) {
        let mut model = Model::new(settings(spread));
        for it in events {
            model.go(it);
            model.decide()?;
            model.holds()?;
        }
    }

    /// Two worlds in which the same happens at the same times, and which guess differently.
    #[test]
    fn what_is_used_never_depends_on_a_guess(
        events in vec((0..4_u8, 0..6_u8, 0..30_000_u16), 1..60),
        guess in 1..1_000_u32,
    ) {
        let used = |seconds: Option<u32>| {
            let mut model = Model::new(Settings { depth: 1, ..settings(1) });
            for (client, of, millis) in &events {
                model.go(Happens::Wait(*millis));
                if let Some(seconds) = seconds {
                    let alike = model.queue.shape(shape(*of));
                    let alike = model.queue.shapes.get(alike).alike();
                    let mut speed = super::learned::Speed::assumed(1.0);
                    model.queue.runs.learn(alike, f64::from(seconds), &mut speed);
                }
                let (client, shape) = (*client * 2, *of);
                let class = Class::Normal;
                model.go(Happens::Submit { client, shape, class, number: 0 });
                // Handed over by hand, so that the guesses do not decide where it runs.
                let key = PromptKey(model.next);
                let own = model.queue.clients.clients[&ClientKey(client.into())].head.as_ref();
                let entry = own.and_then(|it| it.listed.as_ref()).map(|it| it.rank);
                let Some(rank) = entry else { continue };
                let sharer = SharerKey(u32::from(client / 2));
                let fair = Number(model.queue.shares.key(sharer));
                let Rank { class, round, order, client } = rank;
                let entry = Entry { class, fair, round, order, client, sharer };
                let choice = Choice { entry, slot: 1, why: Why::First };
                let now = model.queue.advance(model.now);
                model.queue.hand_over(choice, now);
                model.queue.began(key, model.now);
                model.now += Duration::from_secs(7);
                model.queue.ended(key, Spent::Broke, model.now);
            }
            let all: Vec<Option<u64>> = (0..4)
                .map(|it| model.queue.shares.used(SharerKey(it)).map(f64::to_bits))
                .collect();
            (all, model.queue.fair_time().to_bits())
        };
        prop_assert_eq!(used(None), used(Some(guess)));
    }
}

/// A queue of one backend, and prompts that take seven seconds.
fn one_backend(settings: Settings) -> Model {
    let mut model = Model::new(settings);
    for at in 1..4 {
        let backend = model.id(at);
        model.queue.left(backend, Duration::ZERO);
    }
    model
}

fn submit(model: &mut Model, client: u8, shape: u8, number: i8) -> PromptKey {
    model.go(Happens::Submit { client, shape, class: Class::Normal, number });
    PromptKey(model.next)
}

/// Lets everything run for so many turns of seven seconds; returns what began, in that order.
fn play(model: &mut Model, turns: usize) -> Vec<PromptKey> {
    let mut began = Vec::new();
    for _ in 0..turns {
        let turn = model.queue.schedule(model.now);
        began.extend(turn.hand_over.iter().map(|it| it.prompt));
        for it in turn.hand_over {
            model.queue.began(it.prompt, model.now);
            model.now += Duration::from_secs(7);
            model.queue.ended(it.prompt, Spent::Ran { load: Duration::ZERO }, model.now);
        }
    }
    began
}

#[test]
fn a_prompt_behind_twenty_of_another_is_among_the_next_two() {
    let mut model = one_backend(settings(1));
    (0..20).for_each(|_| {
        submit(&mut model, 0, 0, 0);
    });
    play(&mut model, 1);
    let late = submit(&mut model, 2, 0, 0);
    assert!(play(&mut model, 2).contains(&late));
}

#[test]
fn a_number_orders_ones_own_prompts_and_moves_nobody_else() {
    let mut model = one_backend(settings(1));
    let [a, b, c] =
        [(0, 0), (0, -1), (2, -9)].map(|(client, number)| submit(&mut model, client, 0, number));
    // The first client was there first, and of its prompts the second is to be before the first.
    // The other client's number is the least, and its prompt is the second all the same.
    let expected = [b, c, a];
    let began = play(&mut model, 3);
    assert_eq!(began[0], b);
    assert_eq!(began.iter().collect::<BTreeSet<_>>(), expected.iter().collect());
    let place = |key| began.iter().position(|it| *it == key);
    assert!(place(b) < place(a));
}

#[test]
fn what_stays_where_it_was_shown_counts_there_and_its_sharer_pays() {
    let mut model = one_backend(Settings { depth: 1, ..settings(1) });
    let (shown, backend) = (submit(&mut model, 0, 0, 0), model.id(0));
    model.queue.sets_aside(shown, Aside::Yes, model.now);
    assert!(model.queue.stays(shown, backend, model.now));
    assert!(!model.queue.stays(shown, backend, model.now), "it does not wait");
    assert_eq!((model.queue.there(backend), model.queue.waiting()), (1, 0));
    let other = submit(&mut model, 2, 0, 0);
    assert_eq!(model.queue.schedule(model.now).hand_over, [], "the place is taken");
    model.queue.began(shown, model.now);
    model.now += Duration::from_secs(7);
    assert!(model.queue.ended(shown, Spent::Broke, model.now));
    let [shower, waiter] = [0, 1].map(|it| model.queue.shares.used(SharerKey(it)).unwrap());
    assert!(waiter + 7.0 < shower, "{shower} {waiter}");
    assert_eq!(model.queue.schedule(model.now).hand_over[0].prompt, other);
}

#[test]
fn what_waits_is_not_kept_for_a_backend_that_its_client_is_not_bound_to_any_more() {
    let mut model = Model::new(Settings { depth: 1, ..settings(1) });
    // They load no models, so nobody waits for a warm backend.
    let [first, second] = [0, 0].map(|number| submit(&mut model, 0, 5, number));
    let turn = model.queue.schedule(model.now);
    let [it] = turn.hand_over[..] else { panic!("{turn:?}") };
    assert_eq!(it.prompt, first);
    let there = BoundAt { bound: Some(it.backend), held: None };
    model.queue.began(first, model.now);
    // Somebody else has the backend when it ends.
    model.queue.others(it.backend, 1);
    assert!(model.queue.ended(first, Spent::Broke, model.now));
    model.queue.holds(it.client, there, model.now);
    assert_eq!(model.queue.schedule(model.now).hand_over, [], "it stays where its client is");
    let other = (0..4).map(|at| model.id(at)).find(|id| *id != it.backend);
    model.queue.holds(it.client, BoundAt { bound: other, held: None }, model.now);
    let turn = model.queue.schedule(model.now);
    assert_eq!(turn.hand_over.iter().map(|it| it.prompt).collect::<Vec<_>>(), [second]);
}

#[test]
fn who_is_bound_to_a_full_backend_does_not_turn_warm_first_off_at_others() {
    let mut model = Model::new(Settings { depth: 1, ..settings(1) });
    for id in [2, 3].map(|at| model.id(at)) {
        model.queue.left(id, Duration::ZERO);
    }
    let first = submit(&mut model, 6, 1, 0);
    let warm = model.queue.schedule(model.now).hand_over[0].backend;
    model.queue.began(first, model.now);
    assert!(model.queue.ended(first, Spent::Ran { load: Duration::ZERO }, model.now));
    // Somebody else has it, so a client goes to the other one, and waits there with a second one.
    model.queue.others(warm, 1);
    let runs = submit(&mut model, 0, 5, 0);
    assert_ne!(model.queue.schedule(model.now).hand_over[0].backend, warm);
    model.queue.began(runs, model.now);
    model.go(Happens::Submit { client: 0, shape: 5, class: Class::High, number: 0 });
    let [_cold, is_warm] = [(2, 3), (4, 1)].map(|(client, of)| submit(&mut model, client, of, 0));
    assert_eq!(model.queue.schedule(model.now).hand_over, []);
    model.queue.others(warm, 0);
    let next = model.queue.schedule(model.now).hand_over[0];
    assert_eq!((next.prompt, next.backend, next.why), (is_warm, warm, Why::Warm));
}

#[test]
fn only_what_has_arrived_keeps_others_waiting_and_not_when_it_is_about_to_end() {
    let mut model = one_backend(settings(1));
    let backend = model.id(0);
    let keeps =
        |model: &Model| model.queue.keeps_waiting(backend, Duration::from_secs(1), model.now);
    assert!(!keeps(&model), "it is idle");
    let first = submit(&mut model, 0, 0, 0);
    assert_eq!(model.queue.schedule(model.now).hand_over.len(), 1);
    assert!(!keeps(&model), "it is on its way, and may be so for long");
    model.queue.arrived(first);
    assert!(!keeps(&model), "it has not begun");
    model.now += Duration::from_secs(10);
    model.queue.began(first, Duration::ZERO);
    assert!(keeps(&model), "it takes twenty seconds");
    model.queue.progress(first, 0.95, Duration::ZERO, model.now);
    assert!(!keeps(&model), "it ends in half a second");
    let second = submit(&mut model, 2, 0, 0);
    assert_eq!(model.queue.schedule(model.now).hand_over.len(), 1);
    assert!(!keeps(&model));
    model.queue.arrived(second);
    assert!(keeps(&model), "another waits there");
    model.queue.returned(second, &[], model.now);
    model.queue.others(backend, 1);
    assert!(keeps(&model), "a stranger's waits there");
}

#[test]
fn browsers_of_one_address_take_turns_and_have_one_share() {
    let mut model = one_backend(settings(1));
    // Clients 0 and 1 are of one address, 2 of another.
    let [first, second, other] = [0, 1, 2]
        .map(|client| (0..9).map(|_| submit(&mut model, client, 0, 0)).collect::<Vec<_>>());
    let began = play(&mut model, 8);
    let of = |whose: &[PromptKey]| began.iter().filter(|it| whose.contains(it)).count();
    assert_eq!([of(&first), of(&second)], [of(&other) / 2; 2], "{began:?}");
    assert_eq!(of(&other), began.len() / 2);
}

/// Somebody with a hundred warm prompts passes another for a window and no longer.
#[test]
fn a_prompt_of_another_model_is_passed_over_for_a_window_and_a_cold_start_at_most() {
    let mut model = one_backend(settings(1));
    (0..100).for_each(|_| {
        submit(&mut model, 0, 2, 0);
    });
    play(&mut model, 1);
    let (other, since) = (submit(&mut model, 2, 3, 0), model.now);
    let mut turns = 0;
    while !play(&mut model, 1).contains(&other) {
        turns += 1;
        assert!(turns < 100);
    }
    let waited = model.now - since;
    let window = model.queue.settings.window;
    let most = window + Duration::from_secs(3 * 7);
    assert!(Duration::from_secs(7) < waited && waited <= most, "{waited:?}");
}

proptest! {
    /// Each of those who pass may have a window more than who is passed over, and a prompt.
    #[test]
    fn who_is_passed_over_waits_for_a_window_of_each_who_passes_at_most(others in 1..6_u8) {
        let mut model = one_backend(settings(1));
        for _ in 0..100 {
            (1..=others).for_each(|other| {
                submit(&mut model, 2 * other, 2, 0);
            });
        }
        play(&mut model, 1);
        let (late, since) = (submit(&mut model, 0, 3, 0), model.now);
        while !play(&mut model, 1).contains(&late) {
            let waited = model.now - since;
            let each = model.queue.settings.window + Duration::from_secs(3 * 7);
            prop_assert!(waited <= each * others.into(), "{waited:?}");
        }
    }
}

#[test]
fn what_is_too_much_is_refused_and_changes_nothing() {
    let limits = Settings { waiting_max: 3, waiting_max_of_one: 2, ..settings(1) };
    let mut model = one_backend(limits);
    model.queue.others(model.id(0), 9);
    let mut submit = |prompt: u64, sharer: u32| {
        let shape = model.queue.shape(shape(0));
        let submission = Submission {
            prompt: PromptKey(prompt),
            client: ClientKey(sharer),
            sharer: SharerKey(sharer),
            member: MemberKey(sharer),
            weight: 1.0,
            shape,
            class: Class::Normal,
            number: 0.0,
            last: None,
        };
        (model.queue.submitted(submission, Duration::ZERO), model.queue.waiting())
    };
    assert_eq!(submit(1, 1), (Ok(()), 1));
    assert_eq!(submit(1, 1), (Err(Refused::Known), 1));
    assert_eq!(submit(2, 1), (Ok(()), 2));
    let (Err(Refused::SharerFull { retry_after }), 2) = submit(3, 1) else {
        panic!("a third of one sharer");
    };
    // Nine prompts of others are there, and each is taken to last twenty seconds.
    assert_eq!(retry_after, Duration::from_secs(9 * 20 - 3));
    assert_eq!(submit(4, 2), (Ok(()), 3));
    assert!(matches!(submit(5, 3), (Err(Refused::QueueFull { .. }), 3)));
}
