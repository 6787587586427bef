//! What is counted of prompts that wait in the gateway.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Debug)]
pub struct QueueMetrics {
    pub waiting: Gauge,
    pub bytes: Gauge,
    pub oldest_seconds: Gauge,
    pub hand_overs: Counter,
    pub trials: Counter,
    pub refused_late: Counter,
    pub replaced: Counter,
    pub taken_back: Counter,
    /// What prompts took, as a part of what was expected of them.
    pub prediction_ratio: Histogram,
}

/// Twice off is good enough, so these are the steps.
const RATIOS: [f64; 9] = [0.125, 0.25, 0.5, 0.8, 1.25, 2.0, 4.0, 8.0, 16.0];

impl Default for QueueMetrics {
    fn default() -> Self {
        Self {
            waiting: Gauge::default(),
            bytes: Gauge::default(),
            oldest_seconds: Gauge::default(),
            hand_overs: Counter::default(),
            trials: Counter::default(),
            refused_late: Counter::default(),
            replaced: Counter::default(),
            taken_back: Counter::default(),
            prediction_ratio: Histogram::new(RATIOS),
        }
    }
}

impl QueueMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Prompts that wait in the gateway";
        registry.register("queue_waiting", help, self.waiting.clone());
        let help = "Size of the bodies of prompts that wait";
        registry.register("queue_bytes", help, self.bytes.clone());
        let help = "How long the prompt has waited that has waited longest";
        registry.register("queue_oldest_seconds", help, self.oldest_seconds.clone());
        let help = "Prompts that waited and were handed over to a backend";
        registry.register("hand_overs", help, self.hand_overs.clone());
        let help = "Prompts that had to wait and were shown to a backend";
        registry.register("trials", help, self.trials.clone());
        let help = "Prompts that were refused after their submission was accepted";
        registry.register("refused_late", help, self.refused_late.clone());
        let help = "Prompts that waited again because their backend died before it began them";
        registry.register("replaced", help, self.replaced.clone());
        let help = "Prompts that were taken back from a backend that was to be left";
        registry.register("taken_back", help, self.taken_back.clone());
        let help = "How long prompts ran that had waited, as a part of what was expected";
        registry.register("prediction_ratio", help, self.prediction_ratio.clone());
    }
}
