//! What is measured of the journal, wherever it is kept.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Default)]
pub struct JournalMetrics {
    pub failing: Gauge,
    /// Records that broke the recovery.
    pub set_aside: Counter,
    pub waiting: Gauge,
}

impl JournalMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Records that broke the recovery at the start and were set aside";
        registry.register("journal_set_aside", help, self.set_aside.clone());
        let help = "1 while the journal cannot be written";
        registry.register("journal_failing", help, self.failing.clone());
        let help = "Records that wait to be written to the journal";
        registry.register("journal_waiting", help, self.waiting.clone());
    }
}
