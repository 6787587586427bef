//! What is counted of the page's hashed files.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Default)]
pub struct AssetMetrics {
    /// Answered from memory.
    pub hits: Counter,
    /// Asked of a backend.
    pub misses: Counter,
    /// Kept, in all codings.
    pub bytes: Gauge,
}

impl AssetMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "asset_cache_hits",
            "Hashed files of the page that were answered from memory",
            self.hits.clone(),
        );
        registry.register(
            "asset_cache_misses",
            "Hashed files of the page that a backend was asked for",
            self.misses.clone(),
        );
        registry.register_with_unit(
            "asset_cache",
            "Hashed files of the page that are kept, in all codings",
            Unit::Bytes,
            self.bytes.clone(),
        );
    }
}
