//! What nothing real reaches: a clairvoyant that interrupts and moves prompts and never loads a
//! model. The shortest rest runs on the fastest backend.

use std::collections::BTreeSet;

use crate::workload::Workload;
use crate::world::Machine;

/// Seconds to picture in the mean.
pub(crate) fn mean(workload: &Workload, fleet: &[Machine]) -> f64 {
    let mut speeds: Vec<f64> = fleet.iter().map(|it| it.speed).collect();
    speeds.sort_by(|a, b| b.total_cmp(a));
    let mut rest: BTreeSet<(u64, usize)> = BTreeSet::new();
    let mut jobs = workload.jobs.iter().enumerate().peekable();
    let (mut now, mut all) = (0.0_f64, 0.0);
    loop {
        let arrival = jobs.peek().map(|(_, job)| job.at);
        let runs: Vec<(u64, usize)> = rest.iter().take(speeds.len()).copied().collect();
        let left = |key: u64| f64::from_bits(key);
        let ends = runs.iter().zip(&speeds).map(|((key, _), speed)| now + left(*key) / speed);
        let end = ends.fold(f64::INFINITY, f64::min);
        let next = arrival.unwrap_or(f64::INFINITY).min(end);
        if next == f64::INFINITY {
            break;
        }
        for ((key, job), speed) in runs.into_iter().zip(&speeds) {
            rest.remove(&(key, job));
            let work = left(key) - speed * (next - now);
            if 1e-9 < work {
                rest.insert((work.to_bits(), job));
            } else {
                all += next - workload.jobs[job].at;
            }
        }
        now = next;
        while let Some((index, job)) = jobs.next_if(|(_, job)| job.at <= now) {
            let work = job.work * (1.0 - job.cached);
            rest.insert((work.to_bits(), index));
        }
    }
    all / workload.jobs.len() as f64
}
