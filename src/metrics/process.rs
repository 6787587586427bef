//! What is told of the process itself, under the names that every Prometheus client uses.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::net::own_process::OwnProcess;

#[derive(Debug, Default)]
pub struct ProcessMetrics {
    cpu: Counter<f64, AtomicU64>,
    resident: Gauge,
    virtual_size: Gauge,
    threads: Gauge,
    open: Gauge,
    most: Gauge<f64, AtomicU64>,
    started: Gauge<f64, AtomicU64>,
}

impl ProcessMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Time that the process has used processors, all together";
        registry.register_with_unit("process_cpu", help, Unit::Seconds, self.cpu.clone());
        let help = "Memory of the process that is in use";
        registry.register_with_unit(
            "process_resident_memory",
            help,
            Unit::Bytes,
            self.resident.clone(),
        );
        let help = "Addresses that the process has reserved";
        let virtual_size = self.virtual_size.clone();
        registry.register_with_unit("process_virtual_memory", help, Unit::Bytes, virtual_size);
        registry.register("process_threads", "Threads of the process", self.threads.clone());
        registry.register("process_open_fds", "Descriptors that are open", self.open.clone());
        let help = "Descriptors that may be open";
        registry.register("process_max_fds", help, self.most.clone());
        let help = "When the process began, in seconds since 1970";
        registry.register_with_unit(
            "process_start_time",
            help,
            Unit::Seconds,
            self.started.clone(),
        );
    }

    /// The process began then.
    pub fn started(&self, at_ms: u64) {
        self.started.set(Duration::from_millis(at_ms).as_secs_f64());
    }

    /// A scrape has looked.
    pub fn uses(&self, seen: &OwnProcess) {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.cpu.inner().store(seen.cpu.as_secs_f64().to_bits(), Ordering::Relaxed);
        self.resident.set(count(seen.resident_bytes));
        self.virtual_size.set(count(seen.virtual_bytes));
        self.threads.set(count(seen.threads));
        self.open.set(count(seen.open_descriptors));
        // Far below 2^53, where a double counts no longer by ones.
        #[allow(clippy::cast_precision_loss, reason = "limits are small, or there is none")]
        let most = seen.most_descriptors.map_or(f64::INFINITY, |most| most as f64);
        self.most.set(most);
    }
}
