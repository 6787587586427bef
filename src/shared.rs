//! What every part needs that knows nothing of clients: configuration, fleet, records, counters,
//! and whether the process is starting, serving or stopping.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::Guard;

use crate::audit::Audit;
use crate::config::{Config, LiveConfig};
use crate::fleet::Fleet;
use crate::fleet::backend::Backend;
use crate::journal::Journal;
use crate::journal::record::HomeRecord;
use crate::lines::Lines;
use crate::metrics::Metrics;
use crate::net::{Network, now, unix_millis};
use crate::records::Records;
use crate::records::home::Said;
use crate::tasks::Tasks;

/// One per process; the tests run many.
#[derive(Debug)]
pub struct Shared {
    live: LiveConfig,
    pub network: Arc<dyn Network>,
    pub tasks: Tasks,
    pub fleet: Arc<Fleet>,
    pub records: Records,
    pub metrics: Arc<Metrics>,
    pub audit: Audit,
    /// The access log.
    pub access: Lines,
    /// The front listens.
    open: AtomicBool,
    /// A stop was asked for: still serving, and not ready any more.
    leaving: AtomicBool,
}

impl Shared {
    #[must_use]
    pub fn new(
        config: Config,
        network: Arc<dyn Network>,
        tasks: Tasks,
        journal: Journal,
    ) -> Arc<Self> {
        Self::with(config, network, tasks, journal, Arc::default())
    }

    /// The same with counters that may have counted already.
    #[must_use]
    pub fn with(
        config: Config,
        network: Arc<dyn Network>,
        tasks: Tasks,
        journal: Journal,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let live = LiveConfig::new(config);
        let fleet = Arc::new(Fleet::new(&live, &network, &tasks));
        metrics.process.started(unix_millis());
        let records = Records::new(&live.get(), journal, Arc::clone(&fleet), Arc::clone(&metrics));
        let audit = Audit::new(metrics.audit_lost.clone());
        let access = Lines::new("access log", metrics.access_lost.clone());
        Arc::new(Self {
            live,
            network,
            tasks,
            fleet,
            records,
            metrics,
            audit,
            access,
            open: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        })
    }

    /// The configuration as it is now, for one look.
    #[must_use]
    pub fn config(&self) -> Guard<Arc<Config>> {
        self.live.get()
    }

    /// The configuration as it is now, for who waits between two looks.
    #[must_use]
    pub fn config_kept(&self) -> Arc<Config> {
        self.live.kept()
    }

    /// A handle to the configuration, for who looks at it often.
    #[must_use]
    pub fn live_config(&self) -> LiveConfig {
        self.live.clone()
    }

    /// Replaces the configuration. The fleet is changed by [`Fleet::change`].
    pub fn reconfigure(&self, config: Config) {
        self.live.replace(config);
        self.fleet.reconfigure();
    }

    /// Starts to watch the fleet.
    pub fn start(&self) {
        self.fleet.start();
    }

    /// The front listens from now on.
    pub fn opened(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// A stop was asked for: nobody should send new clients here.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// True if new clients should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let serves = |backend: Arc<Backend>| backend.view(now()).serves_new();
        let has_server = || self.fleet.iter().any(serves) || self.is_empty_and_meant_so();
        self.is_open() && !self.is_leaving() && has_server()
    }

    /// True while there is no backend but those that leave or have yet to start, if that is not to
    /// matter.
    fn is_empty_and_meant_so(&self) -> bool {
        let counts = |backend: Arc<Backend>| {
            backend.going_since().is_none() && !backend.was_found_and_still_starts()
        };
        self.config().fleet.ready_when_empty && !self.fleet.iter().any(counts)
    }

    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) || self.tasks.is_stopping()
    }

    /// Its state in a line for people, as a service manager shows it.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        let all = self.fleet.len();
        let taking = self.fleet.iter().filter(|backend| backend.view(now()).serves_new()).count();
        let ready = if self.is_ready() { "Ready" } else { "Not ready" };
        let refused = match self.metrics.config_last_reload_success.get() {
            0 => " The last reload was refused: the old configuration stays.",
            _ => "",
        };
        format!("{ready}: {taking} of {all} backends take new work.{refused}")
    }

    /// The backend of settings, user data and the page, also if it is down. `None` if there is no
    /// backend at all.
    #[must_use]
    pub fn home(&self) -> Option<Arc<Backend>> {
        self.records.home()
    }

    /// The fleet or the configuration has changed: the home may be another one.
    pub fn choose_home(&self) {
        self.records.choose_home(|| self.config_kept(), Said::Changes);
    }

    /// Takes over which backend was the home before a restart.
    pub fn restore_home(&self, record: Option<HomeRecord>) {
        self.records.restore_home(record, || self.config_kept());
    }
}
