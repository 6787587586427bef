//! What is counted of the store, if the journal is in one. Cheap to clone; all clones are one.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::labels::ByOperation;

const BOUNDS: [f64; 9] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 1.0, 5.0];

/// What the store is asked to do again and again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreOperation {
    Commit,
    Renew,
}

impl StoreOperation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Renew => "renew",
        }
    }
}

#[derive(Clone, Debug)]
pub struct StoreMetrics {
    up: Family<ByOperation, Gauge>,
    seconds: Family<ByOperation, Histogram, fn() -> Histogram>,
    /// Calls without an answer that says whether they were done.
    pub unclear: Counter,
}

impl Default for StoreMetrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BOUNDS);
        let seconds = Family::new_with_constructor(histogram);
        Self { up: Family::default(), seconds, unclear: Counter::default() }
    }
}

impl StoreMetrics {
    /// A call has ended after this time, and whether the store has done what it was asked.
    pub fn called<T, E>(&self, what: StoreOperation, took: Duration, done: &Result<T, E>) {
        let label = ByOperation { op: what.as_str() };
        self.seconds.get_or_create(&label).observe(took.as_secs_f64());
        self.up.get_or_create(&label).set(i64::from(done.is_ok()));
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "1 if the store has done what it was asked last";
        registry.register("store_up", help, self.up.clone());
        let help = "How long the store took";
        registry.register_with_unit("store", help, Unit::Seconds, self.seconds.clone());
        let help = "Commits without an answer that says whether they were written";
        registry.register("store_unclear", help, self.unclear.clone());
    }
}
