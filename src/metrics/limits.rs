//! What is counted of the limits of users.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::ByLimit;

#[derive(Debug, Default)]
pub struct LimitMetrics {
    reached: Family<ByLimit, Counter>,
}

impl LimitMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Requests that were refused because a limit was reached";
        registry.register("limits_refused", help, self.reached.clone());
    }

    /// Something was refused because of the limit of this name.
    pub fn reached(&self, limit: &'static str) {
        self.reached.get_or_create(&ByLimit { limit }).inc();
    }
}
