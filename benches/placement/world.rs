//! A simulated fleet in virtual time: backends with speeds, memory for models and disks.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use mooring::queue::ids::ModelKey;

use crate::workload::Workload;

const GB: u64 = 1_000_000_000;
/// Between an end and a start that had to be handed over, in seconds.
const GAP: f64 = 0.15;

/// What a backend is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) speed: f64,
    /// Bytes of memory for models.
    pub(crate) vram: u64,
}

/// The fleet of eight.
pub(crate) fn eight() -> Vec<Machine> {
    let of = |count, speed, gigabytes| vec![Machine { speed, vram: gigabytes * GB }; count];
    [of(1, 2.2, 72), of(3, 1.0, 20), of(2, 0.9, 42), of(2, 0.55, 20)].concat()
}

/// Least recently used goes first.
#[derive(Debug)]
struct Kept {
    models: Vec<ModelKey>,
    bytes: u64,
}

impl Kept {
    fn has(&self, model: ModelKey) -> bool {
        self.models.contains(&model)
    }

    /// Past the bytes the oldest go, but not what is used now.
    fn used(&mut self, models: &[ModelKey], sizes: &[u64]) {
        self.models.retain(|it| !models.contains(it));
        self.models.extend(models);
        let of = |model: &ModelKey| sizes[model.0 as usize];
        while self.bytes < self.models.iter().map(of).sum::<u64>()
            && models.len() < self.models.len()
        {
            self.models.remove(0);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) machine: Machine,
    vram: Kept,
    ram: Kept,
    pub(crate) queue: VecDeque<usize>,
    pub(crate) running: Option<usize>,
    /// The last job of each client that ran here.
    cache: HashMap<u32, usize>,
    /// It runs nothing, and what it has was handed over just now.
    is_starting: bool,
    pub(crate) last_model: Option<ModelKey>,
    pub(crate) idle_since: f64,
    pub(crate) is_up: bool,
    /// Of its process: what an end belongs to.
    life: u32,
}

impl Backend {
    pub(crate) fn count(&self) -> usize {
        self.queue.len() + usize::from(self.running.is_some())
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Event {
    End { at: usize, job: usize, life: u32 },
    Start { at: usize, life: u32 },
    Submit { job: usize },
    Wake,
    Crash { at: usize },
    Back { at: usize },
}

/// What became of a job.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) end: f64,
    pub(crate) load: f64,
    pub(crate) is_cold: bool,
    pub(crate) is_lost: bool,
    /// It was lost and had not begun.
    pub(crate) is_lost_unbegun: bool,
}

pub(crate) struct World<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) now: f64,
    pub(crate) boxes: Vec<Backend>,
    pub(crate) outcomes: Vec<Outcome>,
    events: BinaryHeap<Reverse<(Ordered, u64, Event)>>,
    count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A rule for placing: it is told what happens and gives jobs to backends.
pub(crate) trait Rule {
    fn submitted(&mut self, world: &mut World<'_>, job: usize);
    fn began(&mut self, _world: &mut World<'_>, _job: usize) {}
    fn ended(&mut self, _world: &mut World<'_>, _at: usize, _job: usize) {}
    fn woken(&mut self, _world: &mut World<'_>) {}
    /// Everything that was there, the running one first. What is not placed anew is lost.
    fn crashed(&mut self, world: &mut World<'_>, _at: usize, there: &[usize], began: bool) {
        for (place, job) in there.iter().enumerate() {
            world.lose(*job, began && place == 0);
        }
    }
    fn back(&mut self, _world: &mut World<'_>, _at: usize) {}
}

impl<'a> World<'a> {
    pub(crate) fn new(workload: &'a Workload, fleet: &[Machine]) -> Self {
        let kept = |bytes| Kept { models: Vec::new(), bytes };
        let boxes = fleet.iter().map(|machine| Backend {
            machine: *machine,
            vram: kept(machine.vram),
            ram: kept(48 * GB),
            queue: VecDeque::new(),
            running: None,
            cache: HashMap::new(),
            is_starting: false,
            last_model: None,
            idle_since: 0.0,
            is_up: true,
            life: 0,
        });
        let mut world = Self {
            workload,
            now: 0.0,
            boxes: boxes.collect(),
            outcomes: vec![Outcome::default(); workload.jobs.len()],
            events: BinaryHeap::new(),
            count: 0,
        };
        for (job, it) in workload.jobs.iter().enumerate() {
            world.at(it.at, Event::Submit { job });
        }
        world
    }

    pub(crate) fn at(&mut self, time: f64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((Ordered(time.max(self.now)), self.count, event)));
    }

    /// Goes on until nothing is left to happen.
    pub(crate) fn run(&mut self, rule: &mut dyn Rule) {
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            self.now = time.0;
            match event {
                Event::Submit { job } => rule.submitted(self, job),
                Event::Wake => rule.woken(self),
                Event::Start { at, life } if self.boxes[at].life == life => {
                    self.boxes[at].is_starting = false;
                    self.start(at, rule);
                }
                Event::End { at, job, life } if self.boxes[at].life == life => {
                    self.outcomes[job].end = self.now;
                    self.boxes[at].running = None;
                    self.boxes[at].idle_since = self.now;
                    self.start(at, rule);
                    rule.ended(self, at, job);
                }
                Event::Crash { at } => self.crash(at, rule),
                Event::Back { at } => {
                    self.boxes[at].is_up = true;
                    rule.back(self, at);
                }
                // Of a process that is gone.
                Event::Start { .. } | Event::End { .. } => {}
            }
        }
    }

    /// Puts a job into a backend's own queue. With `gap` an idle one starts a little later.
    pub(crate) fn give(&mut self, at: usize, job: usize, rule: &mut dyn Rule, gap: Gap) {
        let it = &mut self.boxes[at];
        it.queue.push_back(job);
        if it.running.is_some() || it.is_starting {
            return;
        }
        match gap {
            Gap::None => self.start(at, rule),
            Gap::HandedOver => {
                it.is_starting = true;
                let life = it.life;
                self.at(self.now + GAP, Event::Start { at, life });
            }
        }
    }

    fn start(&mut self, at: usize, rule: &mut dyn Rule) {
        let it = &mut self.boxes[at];
        if it.running.is_some() || it.is_starting || !it.is_up {
            return;
        }
        let Some(job) = it.queue.pop_front() else { return };
        let (of, sizes) = (&self.workload.jobs[job], &self.workload.models);
        let mut load = 0.0;
        let mut is_cold = false;
        for (place, model) in of.facts.models.iter().enumerate() {
            if !it.vram.has(*model) {
                let bytes = sizes[model.0 as usize] as f64;
                let from_disk = if it.ram.has(*model) { 0.0 } else { bytes / 0.8e9 };
                load += from_disk + bytes / 6e9 + 0.4;
                is_cold |= place == 0;
            }
        }
        it.ram.used(&of.facts.models, sizes);
        it.vram.used(&of.facts.models, sizes);
        let is_cached = of.before.is_some() && it.cache.get(&of.client).copied() == of.before;
        let work = if is_cached { of.work * (1.0 - of.cached) } else { of.work };
        it.cache.insert(of.client, job);
        it.last_model = of.facts.models.first().copied();
        it.running = Some(job);
        let life = it.life;
        let end = self.now + load + work / it.machine.speed;
        self.outcomes[job].load = load;
        self.outcomes[job].is_cold = is_cold;
        self.at(end, Event::End { at, job, life });
        rule.began(self, job);
    }

    fn crash(&mut self, at: usize, rule: &mut dyn Rule) {
        let it = &mut self.boxes[at];
        let began = it.running.is_some();
        let there: Vec<usize> = it.running.take().into_iter().chain(it.queue.drain(..)).collect();
        it.life += 1;
        it.is_up = false;
        it.is_starting = false;
        it.vram.models.clear();
        it.cache.clear();
        self.at(self.now + 60.0, Event::Back { at });
        rule.crashed(self, at, &there, began);
    }

    pub(crate) fn lose(&mut self, job: usize, had_begun: bool) {
        let outcome = &mut self.outcomes[job];
        outcome.end = self.now;
        outcome.is_lost = true;
        outcome.is_lost_unbegun = !had_begun;
    }
}

/// Is there a gap before an idle backend starts what it is given?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Gap {
    None,
    HandedOver,
}
