//! How long requests took, without a lock: each of them is counted here, on every core.
//!
//! The histogram of `prometheus-client` has a mutex. Counts that several cores write would be one
//! line of memory that wanders between them, so there are several sets of them, and a thread has
//! one of these. A scrape adds them up.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds, in microseconds.
const BOUNDS: [u64; 12] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    5_000_000,
    30_000_000,
    300_000_000,
];

/// Sets of counts. More threads than that share some.
const SHARDS: usize = 16;

/// Counts of one or several threads, on lines of memory of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// By bound; the last is of what took longer than all.
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

/// The times of requests. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Arc<[Shard; SHARDS]>);

/// The set of counts of the next thread that has none.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
}

impl Times {
    pub(super) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let shard = &self.0[OWN.with(|own| *own)];
        // Most are short.
        let place = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        shard.counts[place].fetch_add(1, Ordering::Relaxed);
        shard.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many there were up to each bound and above the one before, and what all took together.
    fn sum(&self) -> ([u64; BOUNDS.len() + 1], Duration) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = std::array::from_fn(|place| {
            self.0.iter().map(|shard| load(&shard.counts[place])).sum()
        });
        (counts, Duration::from_micros(self.0.iter().map(|shard| load(&shard.micros)).sum()))
    }
}

impl TypedMetric for Times {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let (counts, took) = self.sum();
        let bounds = BOUNDS.iter().map(|bound| Duration::from_micros(*bound).as_secs_f64());
        // The last bound of a histogram is all there is (OpenMetrics 1.0).
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(counts).collect();
        let all = counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(took.as_secs_f64(), all, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn what_many_threads_count_is_told_as_one_histogram() {
        let times = Times::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * SHARDS {
                scope.spawn(|| {
                    times.observe(Duration::from_millis(1));
                    times.observe(Duration::from_micros(1_001));
                    times.observe(Duration::from_secs(400));
                });
            }
        });
        let mut registry = Registry::default();
        registry.register("times", "of threads", times);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "# TYPE times histogram",
            "times_bucket{le=\"0.001\"} 32",
            "times_bucket{le=\"0.0025\"} 64",
            "times_bucket{le=\"300.0\"} 64",
            "times_bucket{le=\"+Inf\"} 96",
            "times_count 96",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in:\n{text}");
        }
        let sum = text.lines().find_map(|line| line.strip_prefix("times_sum ")).unwrap();
        assert!((sum.parse::<f64>().unwrap() - 12_800.064_032).abs() < 0.001, "{sum}");
    }
}
