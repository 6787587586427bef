//! Requests that were answered, by what they are about and how they ended.

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::ByClass;
use crate::comfy::endpoint::RequestClass;

const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Answered requests.
#[derive(Debug)]
pub(super) struct RequestMetrics {
    all: Family<ByClass, Counter>,
    /// The counters of [`RequestClass::ALL`] and, of each, those of [`STATUS_CLASSES`]: the hot
    /// path looks nothing up.
    each: [[Counter; STATUS_CLASSES.len()]; RequestClass::ALL.len()],
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let all: Family<ByClass, Counter> = Family::default();
        let each = RequestClass::ALL.map(|class| {
            let class = class.as_str();
            let labels = |status_class| ByClass { class, status_class };
            STATUS_CLASSES.map(|status| all.get_or_create_owned(&labels(status)))
        });
        Self { all, each }
    }
}

impl RequestMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("requests", "HTTP requests answered on the front", self.all.clone());
    }

    pub(super) fn answered(&self, class: RequestClass, status: StatusCode) {
        let status_class = usize::from(status.as_u16() / 100).clamp(1, STATUS_CLASSES.len());
        self.each[class as usize][status_class - 1].inc();
    }
}
