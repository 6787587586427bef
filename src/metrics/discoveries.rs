//! What is told of discoveries: how they are, and what they found. Their names are those of the
//! configuration.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::lock::{Lock, rank};

/// Labels of what is told of one discovery.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ByDiscovery {
    discovery: String,
}

impl ByDiscovery {
    fn new(name: &str) -> Self {
        Self { discovery: name.to_owned() }
    }
}

/// The gauges of all discoveries.
#[derive(Debug, Default)]
pub struct Discoveries {
    failing: Family<ByDiscovery, Gauge>,
    backends: Family<ByDiscovery, Gauge>,
    answered: Family<ByDiscovery, Gauge<f64, AtomicU64>>,
    /// Those that there are.
    names: Lock<BTreeSet<String>, { rank::DISCOVERED }>,
}

impl Discoveries {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "discovery_failing",
            "1 while the discovery cannot learn which backends there are",
            self.failing.clone(),
        );
        registry.register(
            "discovery_backends",
            "Backends that the discovery has found",
            self.backends.clone(),
        );
        registry.register(
            "discovery_last_change_timestamp_seconds",
            "When the discovery was told last which backends there are, in seconds since 1970",
            self.answered.clone(),
        );
    }

    /// A discovery begins; nothing is known of it yet.
    pub fn began(&self, name: &str) {
        self.names.lock().insert(name.to_owned());
        self.failing.get_or_create(&ByDiscovery::new(name)).set(0);
    }

    /// It has found so many backends.
    pub fn found(&self, name: &str, backends: usize, at_ms: u64) {
        self.if_there(name, |label| {
            let backends = i64::try_from(backends).unwrap_or(i64::MAX);
            self.backends.get_or_create(label).set(backends);
            self.answered.get_or_create(label).set(Duration::from_millis(at_ms).as_secs_f64());
        });
    }

    pub fn failed(&self, name: &str) {
        self.if_there(name, |label| {
            self.failing.get_or_create(label).set(1);
        });
    }

    pub fn is_well(&self, name: &str) {
        self.if_there(name, |label| {
            self.failing.get_or_create(label).set(0);
        });
    }

    /// True while that discovery fails.
    #[must_use]
    pub fn is_failing(&self, name: &str) -> bool {
        self.failing.get_or_create(&ByDiscovery::new(name)).get() == 1
    }

    /// Only these are there from now on: of others nothing is told any more.
    pub fn only(&self, names: &BTreeSet<&str>) {
        let mut there = self.names.lock();
        for gone in there.iter().filter(|it| !names.contains(it.as_str())) {
            let label = ByDiscovery::new(gone);
            self.failing.remove(&label);
            self.backends.remove(&label);
            self.answered.remove(&label);
        }
        there.retain(|it| names.contains(it.as_str()));
    }

    /// One that has ended may have a last word.
    fn if_there(&self, name: &str, act: impl FnOnce(&ByDiscovery)) {
        if self.names.lock().contains(name) {
            act(&ByDiscovery::new(name));
        }
    }
}
