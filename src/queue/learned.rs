//! What is learned by watching: run times of prompts, speeds of backends, seconds of loads.
//!
//! Twice off is good enough: what a prompt is expected to take orders those who wait and is never
//! charged to anybody. What is charged are the seconds that it took, each worth as much as its
//! backend is fast; so speeds are measured against each other, and those of all together stay what
//! the weights say.

use std::collections::HashMap;
use std::hash::Hash;

use smallvec::SmallVec;

use super::settings::{EXPECTED_LEAST, EXPECTED_MOST, RUN_UNKNOWN};

/// A mean of logarithms, in which the latest count most.
#[derive(Clone, Copy, Debug)]
struct LogMean {
    log: f64,
    seen: u32,
    /// When it was last changed, in changes of its table.
    at: u64,
}

/// Means by key, at most so many: when they are too many, the half that was not changed for the
/// longest time is forgotten.
#[derive(Clone, Debug)]
pub(super) struct Means<K> {
    means: HashMap<K, LogMean>,
    changes: u64,
    max: usize,
}

impl<K: Copy + Eq + Hash> Means<K> {
    pub(super) fn new(max: usize) -> Self {
        Self { means: HashMap::new(), changes: 0, max }
    }

    pub(super) fn len(&self) -> usize {
        self.means.len()
    }

    fn learn(&mut self, key: K, log: f64) {
        self.changes += 1;
        let at = self.changes;
        let new = LogMean { log, seen: 0, at };
        let mean = self.means.entry(key).or_insert(new);
        mean.seen = mean.seen.saturating_add(1);
        mean.at = at;
        mean.log += (log - mean.log) * (1.0 / f64::from(mean.seen)).max(0.2);
        if self.max < self.means.len() {
            self.forget_half();
        }
    }

    fn forget_half(&mut self) {
        let mut ages: Vec<u64> = self.means.values().map(|it| it.at).collect();
        let half = ages.len() / 2;
        let (_, median, _) = ages.select_nth_unstable(half);
        let median = *median;
        self.means.retain(|_, it| median <= it.at);
    }

    /// The mean, if it was seen so often.
    fn get(&self, key: K, seen: u32) -> Option<f64> {
        self.means.get(&key).filter(|it| seen <= it.seen).map(|it| it.log)
    }

    /// Seconds that are greater than nothing are learned, others are no seconds.
    pub(super) fn learn_seconds(&mut self, key: K, seconds: f64) {
        if seconds.is_finite() && 0.0 < seconds {
            self.learn(key, seconds.ln());
        }
    }

    pub(super) fn seconds(&self, key: K) -> Option<f64> {
        self.get(key, 1).map(f64::exp)
    }

    pub(super) fn forget_if(&mut self, is_past: impl Fn(K) -> bool) {
        self.means.retain(|key, _| !is_past(*key));
    }
}

/// What prompts are known to resemble each other by, from the nearest to the farthest.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Alike {
    /// All but the sizes.
    pub(super) family: u64,
    /// The classes of the nodes alone.
    pub(super) classes: u64,
    /// Steps × pixels × batch; 0 if it is not known.
    pub(super) size: u64,
}

/// Whether a size is known.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Sized {
    Yes,
    No,
}

impl Sized {
    fn of(it: Alike) -> Self {
        if it.size == 0 { Self::No } else { Self::Yes }
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum RunKey {
    Exact(Alike),
    /// Of seconds for each unit of size; of what says no size, of seconds.
    Family(u64, Sized),
    Classes(u64, Sized),
    /// Of seconds, whatever the sizes.
    OfFamily(u64),
    OfClasses(u64),
    All,
}

/// Seconds that prompts take on a backend of speed 1, without loading.
#[derive(Clone, Debug)]
pub(super) struct RunTimes(Means<RunKey>);

impl RunTimes {
    const MAX: usize = 8_192;

    pub(super) fn new() -> Self {
        Self(Means::new(Self::MAX))
    }

    /// The logarithm of what is expected, by the first key that was seen twice.
    fn log(&self, it: Alike) -> Option<f64> {
        let sized = Sized::of(it);
        let by_size = |each: RunKey, all: RunKey| {
            let (each, all) = (self.0.get(each, 2)?, self.0.get(all, 2)?);
            // A size is what a client says: no run is expected to take that much more or less.
            Some((log_size(it) + each).clamp(all - SIZES_CHANGE, all + SIZES_CHANGE))
        };
        let family = RunKey::Family(it.family, sized);
        let classes = RunKey::Classes(it.classes, sized);
        self.0
            .get(RunKey::Exact(it), 2)
            .or_else(|| by_size(family, RunKey::OfFamily(it.family)))
            .or_else(|| by_size(classes, RunKey::OfClasses(it.classes)))
            .or_else(|| self.0.get(RunKey::All, 2))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// True if something is known of how long prompts take.
    pub(super) fn knows(&self) -> bool {
        self.0.get(RunKey::All, 2).is_some()
    }

    /// What is expected of a prompt of which nothing is known.
    pub(super) fn unknown(&self) -> f64 {
        self.0.get(RunKey::All, 2).map_or(RUN_UNKNOWN, sane)
    }

    pub(super) fn expected(&self, it: Alike) -> f64 {
        self.log(it).map_or(RUN_UNKNOWN, sane)
    }

    /// Learns from one that took so long there, and how fast the backend was.
    pub(super) fn learn(&mut self, it: Alike, seconds: f64, speed: &mut Speed) {
        if !seconds.is_finite() || seconds <= 0.0 {
            return;
        }
        let mut took = seconds.ln();
        if let Some(expected) = self.0.get(RunKey::Exact(it), 2) {
            // One that was so much faster or slower than others was cached, or waited for
            // something. What it counts is the same for the speed and for the mean: they would
            // drift apart else, and all speeds would sink.
            let faster = (expected - took - speed.log).clamp(-FASTER_MAX, FASTER_MAX);
            took = expected - faster - speed.log;
            speed.observed(faster);
        }
        let (log, size) = (took + speed.log, log_size(it));
        self.0.learn(RunKey::Exact(it), log);
        let sized = Sized::of(it);
        self.0.learn(RunKey::Family(it.family, sized), log - size);
        self.0.learn(RunKey::Classes(it.classes, sized), log - size);
        self.0.learn(RunKey::OfFamily(it.family), log);
        self.0.learn(RunKey::OfClasses(it.classes), log);
        self.0.learn(RunKey::All, log);
    }
}

/// How much faster or slower than usual one run counts at most, as a logarithm: ten times.
const FASTER_MAX: f64 = std::f64::consts::LN_10;

/// How much more or less than others of its kind something is expected to take because of its size,
/// as a logarithm: sixteen times.
const SIZES_CHANGE: f64 = 4.0 * std::f64::consts::LN_2;

/// What is expected is within these bounds, whatever was learned: sizes are what clients say.
fn sane(log: f64) -> f64 {
    log.exp().clamp(EXPECTED_LEAST, EXPECTED_MOST)
}

fn log_size(it: Alike) -> f64 {
    (it.size.max(1) as f64).ln()
}

/// How fast a backend is, by what it needs for what others run too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    log: f64,
    /// What was assumed before it was seen.
    assumed: f64,
}

impl Speed {
    /// What one observation counts.
    const NEW: f64 = 0.05;

    /// All together are at most so much faster or slower than was assumed: the root of 2.
    const ALL_MAX: f64 = std::f64::consts::LN_2 / 2.0;

    /// No backend is so much faster or slower than was assumed.
    const MAX: f64 = 2.0 * std::f64::consts::LN_10;

    /// A run was so much faster than expected.
    fn observed(&mut self, faster: f64) {
        self.changes(Self::NEW * faster);
    }

    fn changes(&mut self, by: f64) {
        let (least, most) = (self.assumed - Self::MAX, self.assumed + Self::MAX);
        self.log = (self.log + by).clamp(least, most);
    }

    /// Speeds are what backends are beside each other, so all together stay about as fast as was
    /// assumed: they would walk away by chance else.
    pub(super) fn anchor<'a>(all: impl Iterator<Item = &'a mut Self>) {
        let mut all: SmallVec<[&mut Self; 16]> = all.collect();
        let more: f64 = all.iter().map(|it| it.log - it.assumed).sum();
        let each = more / all.len().max(1) as f64;
        let too_much = each - each.clamp(-Self::ALL_MAX, Self::ALL_MAX);
        if too_much != 0.0 {
            all.iter_mut().for_each(|it| it.changes(-too_much));
        }
    }

    /// What is assumed until it was seen.
    pub(super) fn assumed(speed: f64) -> Self {
        let is_one = speed.is_finite() && 0.0 < speed;
        let log = if is_one { speed.ln() } else { 0.0 };
        Self { log, assumed: log }
    }

    pub(super) fn get(self) -> f64 {
        self.log.exp()
    }
}
