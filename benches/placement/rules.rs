//! What others do, and what Mooring does today.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;

use mooring::queue::ids::ModelKey;
use mooring::routing::ids::BackendId;
use mooring::routing::placement::{AdminState, BackendView, Condition, TieBreak, place};

use crate::world::{Gap, Rule, World};

/// The backend with the least queue, at once: for each client while it has nothing pending, or for
/// each prompt.
pub(crate) struct LeastQueue {
    pub(crate) binds: Binds,
    pending: HashMap<u32, (usize, u32)>,
    last: HashMap<u32, usize>,
    turn: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Binds {
    /// A client stays where it is until all its prompts have ended: Mooring today.
    UntilDrained,
    Never,
}

impl LeastQueue {
    pub(crate) fn new(binds: Binds) -> Self {
        Self { binds, pending: HashMap::new(), last: HashMap::new(), turn: 0 }
    }

    fn choose(&mut self, world: &World<'_>, client: u32) -> usize {
        let views: Vec<BackendView> = world
            .boxes
            .iter()
            .enumerate()
            .map(|(at, it)| BackendView {
                id: BackendId::nth(at as u16),
                up: it.is_up,
                admin: AdminState::Ready,
                condition: Condition::Well,
                load: it.count() as u32,
                weight: NonZeroU32::new((it.machine.speed * 20.0) as u32)
                    .unwrap_or(NonZeroU32::MIN),
                max_pending: None,
                bound: self.pending.values().filter(|(bound, _)| *bound == at).count() as u32,
                head_start: None,
            })
            .collect();
        let last = self.last.get(&client).map(|at| BackendId::nth(*at as u16));
        self.turn += 1;
        let tie = TieBreak { last, turn: self.turn };
        place(&views, tie).map_or(0, |it| usize::from(it.slot()))
    }

    fn over(&mut self, client: u32) {
        if let Some((_, count)) = self.pending.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.pending.remove(&client);
            }
        }
    }
}

impl Rule for LeastQueue {
    fn submitted(&mut self, world: &mut World<'_>, job: usize) {
        let client = world.workload.jobs[job].client;
        let bound = self.pending.get(&client).filter(|_| self.binds == Binds::UntilDrained);
        let at = bound.map(|(at, _)| *at).unwrap_or_else(|| self.choose(world, client));
        self.last.insert(client, at);
        self.pending.entry(client).or_insert((at, 0)).1 += 1;
        world.give(at, job, self, Gap::None);
    }

    fn ended(&mut self, world: &mut World<'_>, _at: usize, job: usize) {
        self.over(world.workload.jobs[job].client);
    }

    fn crashed(&mut self, world: &mut World<'_>, _at: usize, there: &[usize], began: bool) {
        for (place, job) in there.iter().enumerate() {
            self.over(world.workload.jobs[*job].client);
            world.lose(*job, began && place == 0);
        }
    }
}

/// nginx `least_conn`: a submission goes where the fewest connections are open, and those are the
/// pages' sockets. A page is open until ten minutes after its last prompt.
#[derive(Default)]
pub(crate) struct LeastConnections {
    sockets: Vec<usize>,
    open: HashMap<u32, (usize, f64)>,
    turn: usize,
}

impl LeastConnections {
    const OPEN: f64 = 600.0;

    fn least(&mut self) -> usize {
        let count = self.sockets.len();
        self.turn += 1;
        let turns = (0..count).map(|it| (it + self.turn) % count);
        turns.min_by_key(|at| self.sockets[*at]).unwrap_or(0)
    }
}

impl Rule for LeastConnections {
    fn submitted(&mut self, world: &mut World<'_>, job: usize) {
        self.sockets.resize(world.boxes.len(), 0);
        let now = world.now;
        let sockets = &mut self.sockets;
        self.open.retain(|_, (at, last)| {
            let is_open = now < *last + Self::OPEN;
            sockets[*at] -= usize::from(!is_open);
            is_open
        });
        let client = world.workload.jobs[job].client;
        if let Some((_, last)) = self.open.get_mut(&client) {
            *last = now;
        } else {
            let at = self.least();
            self.sockets[at] += 1;
            self.open.insert(client, (at, now));
        }
        let at = self.least();
        world.give(at, job, self, Gap::None);
    }
}

/// A cookie that names a backend: the next in turn at the first visit, for ever.
#[derive(Default)]
pub(crate) struct StickyCookie {
    cookies: HashMap<u32, usize>,
}

impl Rule for StickyCookie {
    fn submitted(&mut self, world: &mut World<'_>, job: usize) {
        let next = self.cookies.len() % world.boxes.len();
        let at = *self.cookies.entry(world.workload.jobs[job].client).or_insert(next);
        world.give(at, job, self, Gap::None);
    }
}

/// SwarmUI's rule: one runs and one waits at a backend. A request goes to a backend that has its
/// model loaded; one that has nothing to do loads the model for which the pressure is greatest: ten
/// for each request, and one for each second of the oldest.
#[derive(Default)]
pub(crate) struct Swarm {
    waiting: VecDeque<usize>,
}

impl Swarm {
    fn model(world: &World<'_>, job: usize) -> Option<ModelKey> {
        world.workload.jobs[job].facts.models.first().copied()
    }

    fn decide(&mut self, world: &mut World<'_>) {
        while let Some((place, at)) = self.loaded(world).or_else(|| self.pressed(world)) {
            let job = self.waiting.remove(place).expect("it waits there");
            // It is what the backend has loaded next, also before it begins.
            world.boxes[at].last_model = Self::model(world, job);
            world.give(at, job, self, Gap::HandedOver);
        }
    }

    /// The first that waits whose model is loaded on a backend with room.
    fn loaded(&self, world: &World<'_>) -> Option<(usize, usize)> {
        let rooms: Vec<usize> =
            (0..world.boxes.len()).filter(|at| world.boxes[*at].count() < 2).collect();
        self.waiting.iter().enumerate().find_map(|(place, job)| {
            let model = Self::model(world, *job);
            let loaded = rooms.iter().filter(|at| world.boxes[**at].last_model == model);
            loaded.min_by_key(|at| world.boxes[**at].count()).map(|at| (place, *at))
        })
    }

    fn pressed(&self, world: &World<'_>) -> Option<(usize, usize)> {
        let idle = (0..world.boxes.len()).filter(|at| world.boxes[*at].count() == 0);
        let idle =
            idle.min_by(|a, b| world.boxes[*a].idle_since.total_cmp(&world.boxes[*b].idle_since))?;
        let mut pressure: HashMap<Option<ModelKey>, (f64, usize)> = HashMap::new();
        for (place, job) in self.waiting.iter().enumerate() {
            let oldest = world.now - world.workload.jobs[*job].at;
            let it = pressure.entry(Self::model(world, *job)).or_insert((oldest, place));
            it.0 += 10.0;
        }
        let most = pressure.into_values().max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))?;
        Some((most.1, idle))
    }
}

impl Rule for Swarm {
    fn submitted(&mut self, world: &mut World<'_>, job: usize) {
        self.waiting.push_back(job);
        self.decide(world);
    }

    fn ended(&mut self, world: &mut World<'_>, _at: usize, _job: usize) {
        self.decide(world);
    }
}
