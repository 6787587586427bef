//! What is counted of the links to backends.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::ByEnd;

/// How a link can end.
const ENDS: [&str; 6] = ["asked", "closed", "lost", "orphan", "silent", "too_large"];

#[derive(Debug, Default)]
pub struct LinkMetrics {
    ended: Family<ByEnd, Counter>,
}

impl LinkMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Links of clients to backends that ended";
        for end in ENDS {
            let _from_the_start = self.ended.get_or_create(&ByEnd { end });
        }
        registry.register("links_ended", help, self.ended.clone());
    }

    /// A link ended in this way.
    pub fn ended(&self, end: &'static str) {
        self.ended.get_or_create(&ByEnd { end }).inc();
    }

    /// How many links ended in this way.
    #[must_use]
    pub fn ends(&self, end: &'static str) -> u64 {
        self.ended.get_or_create(&ByEnd { end }).get()
    }
}
