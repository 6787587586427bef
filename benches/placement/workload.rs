//! Who submits what, and when: the arrivals of a run, the same for every rule.

use std::collections::HashMap;

use mooring::queue::ids::ModelKey;
use mooring::queue::shapes::ShapeFacts;

use crate::chance::Chance;

const GB: f64 = 1e9;
/// A LoRA, in GB.
const LORA: f64 = 0.2;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// One picture, or what takes no longer.
    Single,
    Video,
    /// One of several that were submitted at once; those have a number in common.
    Batch(u32),
}

#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// When it is submitted, in seconds.
    pub(crate) at: f64,
    pub(crate) client: u32,
    pub(crate) kind: Kind,
    pub(crate) facts: ShapeFacts,
    /// Seconds on a backend of speed 1, with everything loaded.
    pub(crate) work: f64,
    /// Which part of it a node cache saves that has the client's prompt before.
    pub(crate) cached: f64,
    pub(crate) before: Option<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Workload {
    /// In the order of their submission.
    pub(crate) jobs: Vec<Job>,
    /// Bytes of the models, by their numbers.
    pub(crate) models: Vec<u64>,
}

impl Workload {
    pub(crate) fn work(&self) -> f64 {
        self.jobs.iter().map(|job| job.work).sum()
    }

    /// Stretches the time so that a fleet of that speed is loaded so much.
    fn stretched(mut self, load: f64, speed: f64) -> Self {
        self.jobs.sort_by(|a, b| a.at.total_cmp(&b.at));
        let last = self.jobs.last().map_or(1.0, |job| job.at);
        let factor = self.work() / (speed * load) / last;
        let mut before = HashMap::new();
        for (index, job) in self.jobs.iter_mut().enumerate() {
            job.at *= factor;
            job.before = before.insert(job.client, index);
        }
        self
    }

    pub(crate) fn model(&mut self, gigabytes: f64) -> ModelKey {
        self.models.push((gigabytes * GB) as u64);
        ModelKey(self.models.len() as u32 - 1)
    }
}

/// One kind of graph, with its sizes.
#[derive(Clone, Debug)]
struct Project {
    models: Vec<ModelKey>,
    classes: u64,
    scale: f64,
    work: f64,
}

impl Project {
    fn facts(&self) -> ShapeFacts {
        let start = self.classes + 1;
        let family = self.models.iter().fold(start, |hash, model| {
            (hash ^ u64::from(model.0 + 1)).wrapping_mul(0x0100_0000_01b3)
        });
        let size = (self.scale * 100.0) as u64;
        ShapeFacts { models: self.models.clone(), family, classes: self.classes, size }
    }

    fn job(&self, at: f64, client: u32, kind: Kind, chance: &mut Chance) -> Job {
        let work = chance.lognormal(self.work * self.scale, 0.2);
        Job { at, client, kind, facts: self.facts(), work, cached: 0.0, before: None }
    }
}

/// The models of a team, and its LoRAs.
struct Shelf {
    /// With the seconds of a picture.
    bases: Vec<(ModelKey, f64, u64)>,
    videos: Vec<(ModelKey, f64)>,
    loras: Vec<ModelKey>,
}

impl Shelf {
    fn new(workload: &mut Workload, chance: &mut Chance) -> Self {
        let sizes = [(10, 6.9, 7.0), (6, 16.5, 18.0), (2, 19.5, 26.0)];
        let mut bases = Vec::new();
        for (classes, (count, gigabytes, work)) in sizes.into_iter().enumerate() {
            for _ in 0..count {
                bases.push((workload.model(gigabytes), work, classes as u64));
            }
        }
        // Which of them are popular has nothing to do with their size.
        for index in (1..bases.len()).rev() {
            bases.swap(index, chance.below(index + 1));
        }
        let videos = [260.0, 420.0].map(|work| (workload.model(19.5), work)).to_vec();
        let loras = (0..60).map(|_| workload.model(LORA)).collect();
        Self { bases, videos, loras }
    }

    fn favourites(&self, chance: &mut Chance) -> Vec<usize> {
        let mut weights: Vec<f64> = (1..=self.bases.len()).map(|k| 1.0 / k as f64).collect();
        (0..3)
            .map(|_| {
                let base = chance.weighted(&weights);
                weights[base] = 0.0;
                base
            })
            .collect()
    }

    fn project(&self, favourites: &[usize], chance: &mut Chance) -> Project {
        let (base, work, classes) = self.bases[chance.of(favourites)];
        let mut models = vec![base];
        for _ in 0..chance.weighted(&[5.0, 4.0, 1.0]) {
            models.push(chance.of(&self.loras));
        }
        models[1..].sort_unstable();
        models.dedup();
        Project { models, classes, scale: chance.of(&[0.5, 1.0, 1.0, 1.6, 3.0]), work }
    }

    fn video(&self, chance: &mut Chance) -> Project {
        let (model, work) = chance.of(&self.videos);
        Project { models: vec![model], classes: 9, scale: 1.0, work }
    }
}

/// People who try things, three for each GPU, and a bot for four GPUs.
pub(crate) fn team(gpus: usize, speed: f64, load: f64, seed: u64) -> Workload {
    const HOURS: f64 = 8.0;
    let mut chance = Chance::new(seed);
    let mut workload = Workload::default();
    let shelf = Shelf::new(&mut workload, &mut chance);
    let mut batches = 0;
    let people = 3 * gpus as u32;
    for client in 0..people {
        person(&mut workload, &shelf, client, HOURS * 3_600.0, &mut batches, &mut chance);
    }
    for bot in 0..gpus.div_ceil(4) as u32 {
        let favourites = shelf.favourites(&mut chance);
        let mut now = chance.exponential(3_600.0);
        // A bot makes one thing again and again.
        let project = shelf.project(&favourites, &mut chance);
        while now < HOURS * 3_600.0 {
            batches += 1;
            let kind = Kind::Batch(batches);
            for _ in 0..chance.of(&[20, 40, 80]) {
                workload.jobs.push(project.job(now, people + bot, kind, &mut chance));
            }
            now += chance.exponential(3_600.0);
        }
    }
    workload.stretched(load, speed)
}

fn person(
    workload: &mut Workload,
    shelf: &Shelf,
    client: u32,
    until: f64,
    batches: &mut u32,
    chance: &mut Chance,
) {
    let favourites = shelf.favourites(chance);
    let mut now = chance.unit() * 3_600.0;
    while now < until {
        let sitting = now + chance.lognormal(2_400.0, 0.6);
        let mut project = shelf.project(&favourites, chance);
        let mut is_follow_up = false;
        while now < sitting.min(until) {
            if chance.is(0.12) {
                project = shelf.project(&favourites, chance);
                is_follow_up = false;
            }
            let mut spent = 0.0;
            if chance.is(0.05) {
                *batches += 1;
                for _ in 0..chance.lognormal(8.0, 0.9).clamp(4.0, 100.0) as usize {
                    let job = project.job(now, client, Kind::Batch(*batches), chance);
                    spent += job.work;
                    workload.jobs.push(job);
                }
            } else {
                let is_video = chance.is(0.02);
                let of = if is_video { shelf.video(chance) } else { project.clone() };
                let kind = if is_video { Kind::Video } else { Kind::Single };
                let mut job = of.job(now, client, kind, chance);
                if is_follow_up && !is_video && chance.is(0.35) {
                    job.cached = 0.2 + 0.5 * chance.unit();
                }
                spent += job.work;
                workload.jobs.push(job);
            }
            is_follow_up = true;
            now += spent + chance.lognormal(25.0, 0.9);
        }
        now += chance.lognormal(1_800.0, 0.8);
    }
}

/// A service with many users and 87 models, with the published statistics of GenTD26: requests of
/// 23 s in the median and 69 s at the 95th percentile, of which a picture's own work is 0.45; 72 %
/// of a user's next requests use the same model; of any two requests after each other 25 % do.
pub(crate) fn many(speed: f64, load: f64, seed: u64) -> Workload {
    const HOURS: f64 = 8.0;
    const MODELS: usize = 87;
    const SESSIONS: usize = 1_700;
    let mut chance = Chance::new(seed ^ 0x6d61_6e79);
    let mut workload = Workload::default();
    let mut projects = Vec::new();
    for classes in 0..MODELS {
        let gigabytes = chance.lognormal(10.0, 0.42).clamp(2.0, 19.5);
        let base = workload.model(gigabytes);
        projects.push(Project {
            models: vec![base],
            classes: classes as u64 % 7,
            scale: 1.0,
            work: chance.lognormal(0.45 * 23.0, 0.45),
        });
    }
    let loras: Vec<ModelKey> = (0..120).map(|_| workload.model(LORA)).collect();
    let popular: Vec<f64> = (1..=MODELS).map(|k| (k as f64).powf(-1.6)).collect();
    for client in 0..SESSIONS as u32 {
        let mut now = evening(&mut chance) * HOURS * 3_600.0;
        let mut project = user_project(&projects, &popular, &loras, &mut chance);
        loop {
            let mut of = project.clone();
            of.scale = chance.of(&[0.5, 0.75, 1.0, 1.0, 1.4, 2.2]);
            workload.jobs.push(of.job(now, client, Kind::Single, &mut chance));
            if chance.is(1.0 / 6.0) {
                break;
            }
            now += chance.lognormal(60.0, 1.0);
            if chance.is(0.28) {
                project = user_project(&projects, &popular, &loras, &mut chance);
            }
        }
    }
    // What models take was drawn, so what all take is set right.
    let mut works: Vec<f64> = workload.jobs.iter().map(|job| job.work).collect();
    works.sort_by(f64::total_cmp);
    let median = works[works.len() / 2];
    workload.jobs.iter_mut().for_each(|job| job.work *= 0.45 * 23.0 / median);
    workload.stretched(load, speed)
}

/// When somebody comes, as a part of the time from 20 to 4 o'clock: three times as many come at
/// the beginning as at the end.
fn evening(chance: &mut Chance) -> f64 {
    loop {
        let at = chance.unit();
        if chance.unit() * 1.5 < 1.5 - at {
            return at;
        }
    }
}

fn user_project(
    projects: &[Project],
    popular: &[f64],
    loras: &[ModelKey],
    chance: &mut Chance,
) -> Project {
    let base = chance.weighted(popular);
    let mut project = projects[base].clone();
    for _ in 0..chance.weighted(&[5.0, 4.0, 1.0]) {
        // A LoRA belongs to a base model.
        project.models.push(loras[(base * 7 + chance.below(6)) % loras.len()]);
    }
    project.models[1..].sort_unstable();
    project.models.dedup();
    project
}
