//! How far the forecast is off: at a submission that waits, when its start is expected, and when it
//! started.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use mooring::queue::Queue;
use mooring::queue::forecast::Forecast;
use mooring::queue::ids::PromptKey;
use mooring::queue::settings::Settings;

use crate::figures::quantile;
use crate::ours::{OnLost, Ours};
use crate::runs::{SEEDS, Who};
use crate::world::{World, eight};

/// One of so many that are submitted is asked for.
const EACH: u64 = 10;

/// What was told, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    open: HashMap<PromptKey, (Duration, Duration)>,
    /// Seconds until the start, as expected and as they were.
    seen: Vec<(f64, f64)>,
    untold: usize,
}

impl Guesses {
    pub(crate) fn ask(&mut self, queue: &Queue, prompt: PromptKey, now: Duration) {
        if prompt.0.is_multiple_of(EACH) && queue.has_waiting(prompt) {
            match Forecast::of(queue.snapshot(), now).get(prompt).and_then(|it| it.starts) {
                Some(starts) => {
                    self.open.insert(prompt, (now, starts));
                }
                None => self.untold += 1,
            }
        }
    }

    pub(crate) fn began(&mut self, prompt: PromptKey, now: Duration) {
        if let Some((asked, starts)) = self.open.remove(&prompt) {
            let since = |it: Duration| it.saturating_sub(asked).as_secs_f64();
            self.seen.push((since(starts), since(now)));
        }
    }
}

/// What was found for one load.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) who: Who,
    pub(crate) load: f64,
    pub(crate) spread: usize,
    pub(crate) asked: usize,
    pub(crate) untold: usize,
    /// Of the real seconds until the start.
    pub(crate) wait_p50: f64,
    /// Of the difference.
    pub(crate) off_p50: f64,
    pub(crate) off_p90: f64,
    /// Of the real seconds, as a part of those expected; both are at least one.
    pub(crate) ratio_p10: f64,
    pub(crate) ratio_p50: f64,
    pub(crate) ratio_p90: f64,
}

impl Row {
    pub(crate) fn all() -> Vec<Self> {
        let loads = [(Who::Team, 0.6), (Who::Team, 0.8), (Who::Many, 0.4), (Who::Many, 0.6)];
        let rows = loads.iter().flat_map(|(who, load)| [1, 0].map(|spread| (*who, *load, spread)));
        rows.map(|(who, load, spread)| Self::of(who, load, spread)).collect()
    }

    fn of(who: Who, load: f64, spread: usize) -> Self {
        let one = |seed| {
            let fleet = eight();
            let workload = who.workload(&fleet, load, seed);
            let mut world = World::new(&workload, &fleet);
            let settings = Settings { spread, ..Settings::default() };
            let mut rule = Ours::new(&world, settings, OnLost::Tell).guessing();
            world.run(&mut rule);
            rule.guesses()
        };
        let runs: Vec<Guesses> = thread::scope(|scope| {
            let threads = SEEDS.map(|seed| scope.spawn(move || one(seed)));
            threads.into_iter().map(|it| it.join().expect("no run panics")).collect()
        });
        let untold = runs.iter().map(|it| it.untold).sum();
        let seen: Vec<(f64, f64)> = runs.into_iter().flat_map(|it| it.seen).collect();
        let waits: Vec<f64> = seen.iter().map(|(_, real)| *real).collect();
        let off: Vec<f64> = seen.iter().map(|(told, real)| (told - real).abs()).collect();
        let ratio: Vec<f64> =
            seen.iter().map(|(told, real)| real.max(1.0) / told.max(1.0)).collect();
        Self {
            who,
            load,
            spread,
            asked: seen.len() + untold,
            untold,
            wait_p50: quantile(&waits, 0.5),
            off_p50: quantile(&off, 0.5),
            off_p90: quantile(&off, 0.9),
            ratio_p10: quantile(&ratio, 0.1),
            ratio_p50: quantile(&ratio, 0.5),
            ratio_p90: quantile(&ratio, 0.9),
        }
    }
}
