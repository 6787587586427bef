//! What is told of each backend, and what is counted of the prompts that ended there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::labels::{ByBackend, ByBackendAndEnd, ByEnd};
use crate::lock::{Lock, rank};
use crate::routing::pending::End;

/// Upper bounds of the times of prompts, in seconds: a cached graph takes a moment, a video hours.
const BOUNDS: [f64; 14] =
    [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 14_400.0];

/// How long the counts of a backend are told after it has left: its last prompts may be lost with
/// it, and each Prometheus must see that before the series ends.
const KEPT_AFTER_LEAVING: Duration = Duration::from_secs(15 * 60);

/// Backends that have left and are still told of, at most: pods come and go under new names.
const GONE_MAX: usize = 256;

/// A prompt that ended: where, how, and how long it took.
#[derive(Clone, Debug)]
pub struct EndedPrompt {
    pub backend: Arc<str>,
    pub end: End,
    /// From the decision to send it until it was seen to run. `None` if it never ran, or if an
    /// earlier process submitted it.
    pub waited: Option<Duration>,
    /// From then until its end. `None` also if it was lost: nobody knows until when it ran.
    pub ran: Option<Duration>,
}

type Histograms = Family<ByBackend, Histogram, fn() -> Histogram>;

/// The gauges and counters of backends.
#[derive(Debug)]
pub struct BackendMetrics {
    pub up: Family<ByBackend, Gauge>,
    pub wedged: Family<ByBackend, Gauge>,
    pub suspect: Family<ByBackend, Gauge>,
    pub queue: Family<ByBackend, Gauge>,
    pub bound: Family<ByBackend, Gauge>,
    vram_total: Family<ByBackend, Gauge>,
    vram_free: Family<ByBackend, Gauge>,
    ended: Family<ByBackendAndEnd, Counter>,
    waited: Histograms,
    ran: Histograms,
    /// Over all backends, those that left included; not a metric.
    ends: Family<ByEnd, Counter>,
    known: Lock<Known, { rank::SCRAPED }>,
}

/// The backends that are told of.
#[derive(Debug, Default)]
struct Known {
    there: BTreeSet<Arc<str>>,
    /// Those that have left, and when a scrape first missed them.
    gone: BTreeMap<Arc<str>, Instant>,
}

impl Default for BackendMetrics {
    fn default() -> Self {
        let histograms = || -> Histograms { Family::new_with_constructor(histogram) };
        Self {
            up: Family::default(),
            wedged: Family::default(),
            suspect: Family::default(),
            queue: Family::default(),
            bound: Family::default(),
            vram_total: Family::default(),
            vram_free: Family::default(),
            ended: Family::default(),
            waited: histograms(),
            ran: histograms(),
            ends: Family::default(),
            known: Lock::default(),
        }
    }
}

fn histogram() -> Histogram {
    Histogram::new(BOUNDS)
}

impl BackendMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("backend_up", "1 if the backend is up", self.up.clone());
        let help = "1 if the backend runs nothing of what it has";
        registry.register("backend_wedged", help, self.wedged.clone());
        let help = "1 if the backend runs something and has long been silent";
        registry.register("backend_suspect", help, self.suspect.clone());
        let help = "Prompts waiting and running on the backend, as it says";
        registry.register("backend_queue", help, self.queue.clone());
        let help = "Clients that are bound to the backend";
        registry.register("backend_bound_clients", help, self.bound.clone());
        let help = "Memory of the backend's GPUs, as it says";
        registry.register("backend_vram_total_bytes", help, self.vram_total.clone());
        let help = "Free memory of the backend's GPUs, as it says";
        registry.register("backend_vram_free_bytes", help, self.vram_free.clone());
        registry.register("prompts", "Prompts that have ended", self.ended.clone());
        let help = "Time from the decision to send a prompt until it was seen to run";
        registry.register_with_unit("prompt_wait", help, Unit::Seconds, self.waited.clone());
        let help = "Time from when a prompt was seen to run until its end";
        registry.register_with_unit("prompt_run", help, Unit::Seconds, self.ran.clone());
    }

    pub(super) fn prompt_ended(&self, prompt: &EndedPrompt) {
        let end = prompt.end.as_str();
        let label = ByBackend { backend: prompt.backend.to_string() };
        for (times, took) in [(&self.waited, prompt.waited), (&self.ran, prompt.ran)] {
            if let Some(took) = took {
                times.get_or_create(&label).observe(took.as_secs_f64());
            }
        }
        let ended = ByBackendAndEnd { backend: label.backend, end };
        if self.ended.get(&ended).is_none() {
            // Its backend may leave before a scrape has ever seen it.
            self.known.lock().there.insert(Arc::clone(&prompt.backend));
        }
        self.ended.get_or_create(&ended).inc();
        self.ends.get_or_create(&ByEnd { end }).inc();
    }

    pub(super) fn prompts_ended(&self, end: End) -> u64 {
        self.ends.get_or_create(&ByEnd { end: end.as_str() }).get()
    }

    /// A scrape at `now` tells of these backends. The state of others is told no more, and their
    /// counts not much longer.
    pub(super) fn scrape_of(&self, backends: impl Iterator<Item = Arc<str>>, now: Instant) {
        let there: BTreeSet<Arc<str>> = backends.collect();
        let mut known = self.known.lock();
        let before = std::mem::replace(&mut known.there, there);
        let Known { there, gone } = &mut *known;
        gone.retain(|name, _| !there.contains(name));
        for name in before.difference(there) {
            gone.entry(Arc::clone(name)).or_insert(now);
            self.drop_state(name);
        }
        there.iter().for_each(|name| self.begin(name));
        for name in forgotten(gone, now) {
            gone.remove(&name);
            self.drop_counts(&name);
        }
    }

    /// Counts of ends begin at 0, so that a rule sees the first: what is not there does not rise.
    fn begin(&self, backend: &str) {
        for end in End::ALL {
            let (backend, end) = (backend.to_owned(), end.as_str());
            drop(self.ended.get_or_create(&ByBackendAndEnd { backend, end }));
        }
    }

    /// The memory of a backend's GPUs in bytes. What is unknown has no series.
    pub fn vram(&self, backend: &ByBackend, total: Option<u64>, free: Option<u64>) {
        for (family, bytes) in [(&self.vram_total, total), (&self.vram_free, free)] {
            match bytes.and_then(|bytes| i64::try_from(bytes).ok()) {
                Some(bytes) => drop(family.get_or_create(backend).set(bytes)),
                None => drop(family.remove(backend)),
            }
        }
    }

    fn drop_state(&self, backend: &str) {
        let label = ByBackend { backend: backend.to_owned() };
        for family in [&self.up, &self.wedged, &self.suspect, &self.queue, &self.bound] {
            family.remove(&label);
        }
        self.vram(&label, None, None);
    }

    fn drop_counts(&self, backend: &str) {
        let label = ByBackend { backend: backend.to_owned() };
        self.waited.remove(&label);
        self.ran.remove(&label);
        for end in End::ALL {
            let (backend, end) = (label.backend.clone(), end.as_str());
            self.ended.remove(&ByBackendAndEnd { backend, end });
        }
    }
}

/// Those of which nothing is told any more: gone for long enough, or the first of too many.
fn forgotten(gone: &BTreeMap<Arc<str>, Instant>, now: Instant) -> Vec<Arc<str>> {
    let mut by_time: Vec<_> = gone.iter().collect();
    by_time.sort_by_key(|(_, since)| **since);
    let excess = by_time.len().saturating_sub(GONE_MAX);
    let is_over = |(place, since): (usize, Instant)| {
        place < excess || KEPT_AFTER_LEAVING <= now.saturating_duration_since(since)
    };
    let places = by_time.into_iter().enumerate();
    let over = places.filter(|(place, (_, since))| is_over((*place, **since)));
    over.map(|(_, (name, _))| Arc::clone(name)).collect()
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::net::now;

    fn text(metrics: &BackendMetrics) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    fn lost(backend: &str) -> EndedPrompt {
        let end = End::Lost(crate::routing::pending::Loss::BackendGone);
        EndedPrompt { backend: backend.into(), end, waited: None, ran: None }
    }

    #[test]
    fn what_was_lost_with_a_backend_is_told_after_it_has_left_and_not_for_ever() {
        let (metrics, began) = (BackendMetrics::default(), now());
        metrics.prompt_ended(&lost("pod-1"));
        let waited = Some(Duration::from_secs(2));
        let ran = Some(Duration::from_secs(20));
        let done = EndedPrompt { end: End::Succeeded, waited, ran, ..lost("pod-1") };
        metrics.prompt_ended(&done);
        let left = || ["pod-2".into()].into_iter();
        metrics.scrape_of(left(), began);
        metrics.scrape_of(left(), began + KEPT_AFTER_LEAVING - Duration::from_millis(1));
        let told = text(&metrics);
        for line in [
            "prompts_total{backend=\"pod-1\",end=\"lost\"} 1",
            "prompt_wait_seconds_bucket{le=\"1.0\",backend=\"pod-1\"} 0",
            "prompt_wait_seconds_bucket{le=\"2.5\",backend=\"pod-1\"} 1",
            "prompt_run_seconds_sum{backend=\"pod-1\"} 20.0",
        ] {
            assert!(told.lines().any(|it| it == line), "{line} is missing in:\n{told}");
        }
        metrics.scrape_of(left(), began + KEPT_AFTER_LEAVING);
        assert!(!text(&metrics).contains("pod-1"), "{}", text(&metrics));
        assert_eq!(metrics.prompts_ended(done.end), 1, "the sum stays");
    }

    #[test]
    fn a_backend_that_returns_goes_on_with_its_counts() {
        let (metrics, began) = (BackendMetrics::default(), now());
        metrics.prompt_ended(&lost("a"));
        metrics.scrape_of(std::iter::empty(), began);
        metrics.scrape_of(["a".into()].into_iter(), began + KEPT_AFTER_LEAVING / 2);
        metrics.scrape_of(std::iter::empty(), began + KEPT_AFTER_LEAVING);
        assert!(text(&metrics).contains("prompts_total{backend=\"a\",end=\"lost\"} 1"));
    }

    #[test]
    fn pods_that_come_and_go_do_not_add_up() {
        let (metrics, began) = (BackendMetrics::default(), now());
        for number in 0..2_000_u32 {
            let name: Arc<str> = format!("pod-{number:04}").into();
            metrics.prompt_ended(&lost(&name));
            metrics.scrape_of([name].into_iter(), began + Duration::from_millis(number.into()));
        }
        let told = text(&metrics);
        let told_of = told.matches("end=\"lost\"").count();
        assert_eq!(told_of, GONE_MAX + 1, "and the one that is there");
        assert!(told.contains("pod-1999") && told.contains("pod-1744") && !told.contains("-1742"));
    }
}
