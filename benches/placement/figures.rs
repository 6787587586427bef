//! What is measured of a run.

use std::collections::BTreeMap;

use crate::workload::{Kind, Workload};
use crate::world::{Outcome, World};

/// The figures of one run, or the means of several.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Seconds from submission to picture.
    pub(crate) mean: f64,
    pub(crate) p95: f64,
    pub(crate) single_p95: f64,
    pub(crate) single_p99: f64,
    /// Until the last picture of a batch; 0 if there are none.
    pub(crate) batch_p50: f64,
    /// Of a hundred prompts.
    pub(crate) cold: f64,
    /// Jain's index of one by the mean slowdown of each person.
    pub(crate) jain: f64,
}

impl Figures {
    pub(crate) fn of(world: &World<'_>) -> Self {
        let jobs = &world.workload.jobs;
        let took = |index: usize| world.outcomes[index].end - jobs[index].at;
        let all: Vec<f64> = (0..jobs.len()).map(took).collect();
        let singles = (0..jobs.len()).filter(|it| jobs[*it].kind == Kind::Single);
        let singles: Vec<f64> = singles.map(took).collect();
        let cold = world.outcomes.iter().filter(|it| it.is_cold).count();
        Self {
            mean: mean(&all),
            p95: quantile(&all, 0.95),
            single_p95: quantile(&singles, 0.95),
            single_p99: quantile(&singles, 0.99),
            batch_p50: quantile(&batches(world.workload, &world.outcomes), 0.5),
            cold: 100.0 * cold as f64 / jobs.len() as f64,
            jain: jain(world.workload, &world.outcomes),
        }
    }

    pub(crate) fn mean_of(runs: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| mean(&runs.iter().map(field).collect::<Vec<_>>());
        Self {
            mean: of(|it| it.mean),
            p95: of(|it| it.p95),
            single_p95: of(|it| it.single_p95),
            single_p99: of(|it| it.single_p99),
            batch_p50: of(|it| it.batch_p50),
            cold: of(|it| it.cold),
            jain: of(|it| it.jain),
        }
    }
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (part * sorted.len() as f64) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// For each batch the time from its submission to its last picture.
fn batches(workload: &Workload, outcomes: &[Outcome]) -> Vec<f64> {
    let mut last: BTreeMap<u32, f64> = BTreeMap::new();
    for (job, outcome) in workload.jobs.iter().zip(outcomes) {
        match job.kind {
            Kind::Single | Kind::Video => {}
            Kind::Batch(batch) => {
                let it = last.entry(batch).or_insert(0.0);
                *it = it.max(outcome.end - job.at);
            }
        }
    }
    last.into_values().collect()
}

fn jain(workload: &Workload, outcomes: &[Outcome]) -> f64 {
    let mut people: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    for (job, outcome) in workload.jobs.iter().zip(outcomes) {
        people.entry(job.client).or_default().push((outcome.end - job.at) / job.work);
    }
    let rates: Vec<f64> = people.values().map(|slowdowns| 1.0 / mean(slowdowns)).collect();
    let sum: f64 = rates.iter().sum();
    let squares: f64 = rates.iter().map(|it| it * it).sum();
    sum * sum / (rates.len() as f64 * squares)
}
