//! What is counted. `docs/metrics.md` lists it; a test holds the two together.
//!
//! Handles are kept where the counting is done, so that the hot path has no look-up. Labels come
//! from closed sets only: never a client id, a prompt id or a path.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

mod assets;
mod certificates;
mod discoveries;
mod exposition;
mod guests;
mod hour;
mod journal;
mod labels;
mod limits;
mod links;
mod process;
mod prompts;
mod queue;
mod requests;
mod store;
mod times;

use crate::comfy::endpoint::RequestClass;
use crate::net::now;
use crate::routing::decision::Reason;
use crate::routing::pending::End;
use assets::AssetMetrics;
use certificates::CertificateMetrics;
use discoveries::Discoveries;
pub use exposition::Exposition;
use guests::GuestMetrics;
use hour::Hour;
pub use hour::{MINUTES, Minute};
use journal::JournalMetrics;
pub use labels::ByBackend;
use labels::{ByBuild, ByCode, ByKind, ByPlacement};
use limits::LimitMetrics;
use links::LinkMetrics;
use process::ProcessMetrics;
use prompts::BackendMetrics;
pub use prompts::EndedPrompt;
use queue::QueueMetrics;
use requests::RequestMetrics;
pub use store::{StoreMetrics, StoreOperation};
use times::Times;

/// How many frames were dropped on their way to a browser.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Dropped {
    pub previews: u64,
    /// Texts of nodes among them.
    pub progress: u64,
}

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// What has no prefix.
    unnamed: Registry,
    requests: RequestMetrics,
    request_seconds: Times,
    errors: Family<ByCode, Counter>,
    placements: Family<ByPlacement, Counter>,
    /// The counters of [`Reason::ALL`].
    placed: [Counter; Reason::ALL.len()],
    pub submissions: Counter,
    pub sockets: Gauge,
    /// Sockets of node packs, passed through to backends.
    pub tunnels: Gauge,
    pub tunnels_opened: Counter,
    dropped: Family<ByKind, Counter>,
    pub connections: Gauge,
    pub connections_refused: Counter,
    pub panics: Counter,
    /// Prompts presumed lost, of which the truth came out.
    pub prompts_corrected: Counter,
    pub files_copied: Counter,
    /// Prompts that turned up after they were answered as not queued, or told to be lost.
    pub prompts_turned_up: Counter,
    pub log_evictions: Counter,
    /// Verbs of a client on another's prompts: nothing was done.
    pub foreign_verbs: Counter,
    pub audit_lost: Counter,
    pub access_lost: Counter,
    /// Interrupts that were sent again, because the prompt ran on.
    pub interrupts_repeated: Counter,
    /// Answers from the last good copy, while the home backend was down.
    pub stale_answers: Counter,
    pub assets: AssetMetrics,
    pub guests: GuestMetrics,
    pub limits: LimitMetrics,
    pub links: LinkMetrics,
    pub queue: QueueMetrics,
    pub certificates: CertificateMetrics,
    pub log_bytes: Gauge,
    pub journal: JournalMetrics,
    pub store: StoreMetrics,
    pub config_last_reload_success: Gauge,
    pub config_last_reload_success_timestamp_seconds: Gauge<f64, AtomicU64>,
    pub task_panics: Counter,
    pub clients: Gauge,
    pub pending: Gauge,
    pub pending_silent_seconds: Gauge<f64, AtomicU64>,
    pub backends: BackendMetrics,
    /// For the dashboard; not a metric.
    hour: Hour,
    pub process: ProcessMetrics,
    pub discoveries: Discoveries,
}

impl Default for Metrics {
    fn default() -> Self {
        let placements: Family<ByPlacement, Counter> = Family::default();
        let mut metrics = Self {
            registry: Registry::with_prefix("mooring"),
            unnamed: Registry::default(),
            placed: Reason::ALL.map(|reason| {
                placements.get_or_create_owned(&ByPlacement { placement: reason.as_str() })
            }),
            requests: RequestMetrics::default(),
            request_seconds: Times::default(),
            errors: Family::default(),
            placements,
            submissions: Counter::default(),
            sockets: Gauge::default(),
            tunnels: Gauge::default(),
            tunnels_opened: Counter::default(),
            dropped: Family::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            panics: Counter::default(),
            prompts_corrected: Counter::default(),
            files_copied: Counter::default(),
            prompts_turned_up: Counter::default(),
            log_evictions: Counter::default(),
            foreign_verbs: Counter::default(),
            audit_lost: Counter::default(),
            access_lost: Counter::default(),
            interrupts_repeated: Counter::default(),
            stale_answers: Counter::default(),
            assets: AssetMetrics::default(),
            guests: GuestMetrics::default(),
            limits: LimitMetrics::default(),
            links: LinkMetrics::default(),
            queue: QueueMetrics::default(),
            certificates: CertificateMetrics::default(),
            log_bytes: Gauge::default(),
            journal: JournalMetrics::default(),
            store: StoreMetrics::default(),
            config_last_reload_success: Gauge::default(),
            config_last_reload_success_timestamp_seconds: Gauge::default(),
            task_panics: Counter::default(),
            clients: Gauge::default(),
            pending: Gauge::default(),
            pending_silent_seconds: Gauge::default(),
            backends: BackendMetrics::default(),
            hour: Hour::new(now()),
            process: ProcessMetrics::default(),
            discoveries: Discoveries::default(),
        };
        metrics.register_traffic();
        metrics.register_state();
        metrics.register_memory();
        metrics.register_build();
        metrics.backends.register(&mut metrics.registry);
        metrics.process.register(&mut metrics.unnamed);
        metrics.assets.register(&mut metrics.registry);
        metrics.guests.register(&mut metrics.registry);
        metrics.limits.register(&mut metrics.registry);
        metrics.links.register(&mut metrics.registry);
        metrics.journal.register(&mut metrics.registry);
        metrics.queue.register(&mut metrics.registry);
        metrics.store.register(&mut metrics.registry);
        metrics.certificates.register(&mut metrics.registry);
        metrics.discoveries.register(&mut metrics.registry);
        metrics
    }
}

impl Metrics {
    /// The configuration was read; whether it is the one in use now, and when that was.
    pub fn reloaded(&self, is_in_use: bool, at_ms: u64) {
        self.config_last_reload_success.set(i64::from(is_in_use));
        if is_in_use {
            // Seconds since 1970, as Prometheus has them; a double holds them to the millisecond.
            let at = Duration::from_millis(at_ms).as_secs_f64();
            self.config_last_reload_success_timestamp_seconds.set(at);
        }
    }

    fn register_traffic(&mut self) {
        let registry = &mut self.registry;
        self.requests.register(registry);
        registry.register_with_unit(
            "request_duration",
            "Time from a request's head to its answer's head",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        registry.register("errors", "Requests that failed in the gateway", self.errors.clone());
        registry.register("placements", "Routing decisions", self.placements.clone());
        registry.register("submissions", "Prompts sent to backends", self.submissions.clone());
        registry.register(
            "frames_dropped",
            "Frames that slow browser sockets did not get",
            self.dropped.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections closed because as many as may be were open",
            self.connections_refused.clone(),
        );
        registry.register(
            "audit_lost",
            "Lines of the audit log that were not written",
            self.audit_lost.clone(),
        );
        registry.register(
            "access_lost",
            "Lines of the access log that were not written",
            self.access_lost.clone(),
        );
        registry.register(
            "foreign_verbs",
            "Prompts of other clients that a command named; nothing was done",
            self.foreign_verbs.clone(),
        );
        registry.register(
            "interrupts_repeated",
            "Interrupts that were sent again, because the prompt ran on",
            self.interrupts_repeated.clone(),
        );
        registry.register("panics", "Connections that ended in a panic", self.panics.clone());
        registry.register(
            "task_panics",
            "Tasks that ended in a panic, connections not among them",
            self.task_panics.clone(),
        );
    }

    fn register_state(&mut self) {
        let registry = &mut self.registry;
        registry.register("sockets", "Browser sockets that are open", self.sockets.clone());
        registry.register(
            "tunnels",
            "Sockets of node packs that are passed through to backends",
            self.tunnels.clone(),
        );
        registry.register(
            "tunnels_opened",
            "Sockets of node packs that were passed through",
            self.tunnels_opened.clone(),
        );
        registry.register("connections", "Connections to the front", self.connections.clone());
        registry.register("clients", "Clients that are known", self.clients.clone());
        registry.register("prompts_pending", "Prompts that are pending", self.pending.clone());
        registry.register_with_unit(
            "prompts_silent",
            "How long the quietest pending prompt has not been heard of",
            Unit::Seconds,
            self.pending_silent_seconds.clone(),
        );
    }

    fn register_memory(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "prompts_corrected",
            "Prompts presumed lost that had ended otherwise",
            self.prompts_corrected.clone(),
        );
        registry.register(
            "files_copied",
            "Files copied from backend to backend for a prompt or a mask",
            self.files_copied.clone(),
        );
        registry.register(
            "prompts_turned_up",
            "Prompts that turned up after they were said not to be there; stopped",
            self.prompts_turned_up.clone(),
        );
        registry.register(
            "event_log_evictions",
            "Ended prompts whose events were dropped for want of memory",
            self.log_evictions.clone(),
        );
        registry.register(
            "stale_answers",
            "Answers from the last good copy, while the home backend was down",
            self.stale_answers.clone(),
        );
        registry.register_with_unit(
            "event_log",
            "Events kept to be sent again",
            Unit::Bytes,
            self.log_bytes.clone(),
        );
        registry.register(
            "config_last_reload_success",
            "1 if the configuration that was read last is the one in use",
            self.config_last_reload_success.clone(),
        );
        registry.register(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration in use was read, in seconds since 1970",
            self.config_last_reload_success_timestamp_seconds.clone(),
        );
    }

    fn register_build(&mut self) {
        let build = ByBuild {
            version: env!("CARGO_PKG_VERSION"),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
        };
        self.registry.register("build", "The Mooring that runs here", Info::new(build));
    }

    /// A request was answered on the front.
    pub fn answered(&self, class: RequestClass, status: http::StatusCode, took: Duration) {
        self.requests.answered(class, status);
        self.request_seconds.observe(took);
    }

    pub fn failed(&self, code: &'static str) {
        self.errors.get_or_create(&ByCode { code }).inc();
    }

    pub fn placed(&self, reason: Reason) {
        self.placed[reason as usize].inc();
    }

    pub fn prompt_ended(&self, prompt: &EndedPrompt) {
        self.backends.prompt_ended(prompt);
        self.hour.ended(prompt.end, [prompt.waited, prompt.ran], now());
    }

    /// What ended in the last hour, the oldest minute first.
    #[must_use]
    pub fn last_hour(&self, now: Instant) -> [Minute; MINUTES] {
        self.hour.look(now)
    }

    /// How many prompts have ended so.
    #[must_use]
    pub fn prompts_ended(&self, end: End) -> u64 {
        self.backends.prompts_ended(end)
    }

    pub fn dropped(&self, dropped: Dropped) {
        for (kind, count) in [("preview", dropped.previews), ("progress", dropped.progress)] {
            if 0 < count {
                self.dropped.get_or_create(&ByKind { kind }).inc_by(count);
            }
        }
    }

    /// A scrape at `now` tells of these backends: what was told of others is told no more.
    pub fn scrape_of(&self, backends: impl Iterator<Item = Arc<str>>, now: Instant) {
        self.backends.scrape_of(backends, now);
    }

    /// The text that a scrape gets.
    #[must_use]
    pub fn render(&self, form: Exposition) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode_registry(&mut text, &self.registry);
        let _ = encode_registry(&mut text, &self.unnamed);
        let _ = encode_eof(&mut text);
        form.of(text)
    }
}
