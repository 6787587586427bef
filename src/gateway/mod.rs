//! What all rooms share: the fleet, the clients, the ledger, the counters.

pub mod adoption;
pub mod assets;
pub mod files;
mod operator;
mod prompts;
mod restart;
pub mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, Semaphore};
use tracing::debug;

use crate::body::budget::BodyBudget;
use crate::client::budget::{LogBudget, QueueBudget};
use crate::client::reconcile;
use crate::client::registry::{self, Clients};
use crate::config::Config;
use crate::demo::Demo;
use crate::fleet::backend::Backend;
use crate::fleet::{Fleet, doors, watch};
use crate::front::browsers::Browsers;
use crate::front::bundle::Press;
use crate::front::copies::Copies;
use crate::front::entries::Entries;
use crate::front::interrupts::Interrupts;
use crate::front::nodes::NodeInfos;
use crate::front::seal::Seal;
use crate::front::standin::Starts;
use crate::front::unknowns::Unknowns;
use crate::journal::Journal;
use crate::lock::{Guard, Lock, rank};
use crate::masked::mask;
use crate::metrics::Metrics;
use crate::net::{Network, now, unix_millis};
use crate::routing::assets::Assets;
use crate::routing::decision::Decision;
use crate::routing::files::Files;
use crate::routing::ids::{BackendId, ClientId};
use crate::routing::ledger::Ledger;
use crate::tasks::Tasks;
use crate::tunnels::Tunnels;
use adoption::Adoption;
use users::Users;

/// See [`Gateway::late_looks`].
const LATE_LOOKS_MAX: usize = 256;

/// How many files may be copied from backend to backend at one time.
const COPIES_MAX: usize = 8;

/// The gateway. One per process; the tests run many.
#[derive(Debug)]
pub struct Gateway {
    pub config: Config,
    pub network: Arc<dyn Network>,
    pub tasks: Tasks,
    pub fleet: Fleet,
    pub clients: Clients,
    pub browsers: Browsers,
    /// Who compresses files of the page now.
    pub press: Press,
    /// When copies were made of what a page needs to start.
    pub starts: Starts,
    /// Signs the page cookie.
    pub seal: Seal,
    /// Last good copies of what the home backend gave.
    pub copies: Copies,
    /// History entries that were fetched for lists.
    pub entries: Entries,
    pub interrupts: Interrupts,
    /// Who had ids looked for that nobody knows.
    pub unknowns: Unknowns,
    /// Sockets of node packs that are passed through.
    pub tunnels: Tunnels,
    pub metrics: Metrics,
    pub journal: Journal,
    /// Bytes of all event logs.
    pub logs: LogBudget,
    /// Bytes that wait for all browser sockets.
    pub queues: QueueBudget,
    pub started: Instant,
    /// The same moment, in milliseconds since 1970.
    started_ms: u64,
    /// Bytes of collected bodies that are held at this moment.
    pub bodies: BodyBudget,
    /// Set in the demo only.
    pub demo: Option<Demo>,
    /// The front listens.
    open: AtomicBool,
    /// A stop was asked for: still serving, and not ready any more.
    leaving: AtomicBool,
    ledger: Lock<Ledger, { rank::LEDGER }>,
    files: Lock<Files, { rank::FILES }>,
    assets: Lock<Assets, { rank::ASSETS }>,
    /// Who is known to each server that tells users apart.
    pub users: Users,
    /// What backends have and nobody here knows.
    pub adoption: Adoption,
    reconcile: Notify,
    trim: Notify,
    /// How many prompts may be looked for again at one time, after they were answered as absent.
    pub late_looks: Arc<Semaphore>,
    /// How many files may be copied from backend to backend at one time.
    pub copying: Semaphore,
    /// What the backends last said of their nodes.
    pub nodes: NodeInfos,
}

impl Gateway {
    #[must_use]
    pub fn new(
        config: Config,
        network: Arc<dyn Network>,
        tasks: Tasks,
        journal: Journal,
        demo: Option<Demo>,
    ) -> Arc<Self> {
        let fleet = Fleet::new(&config, &network, &tasks);
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        let logs =
            LogBudget::new(bytes(config.sockets.log_bytes), bytes(config.sockets.log_bytes_total));
        Arc::new(Self {
            fleet,
            clients: Clients::new(config.affinity.max_clients, logs.clone()),
            browsers: Browsers::default(),
            press: Press::default(),
            starts: Starts::default(),
            seal: config.state.dir.path().map_or_else(Seal::new, Seal::kept_in),
            copies: Copies::new(bytes(config.server.stale_cache)),
            interrupts: Interrupts::default(),
            unknowns: Unknowns::default(),
            tunnels: Tunnels::default(),
            entries: Entries::new(bytes(config.prompts.history_cache)),
            metrics: Metrics::default(),
            journal,
            logs,
            queues: QueueBudget::new(bytes(config.sockets.queue_bytes_total)),
            started: now(),
            started_ms: unix_millis(),
            demo,
            bodies: BodyBudget::new(config.prompts.max_bodies_total),
            ledger: Lock::new(Ledger::new(
                config.prompts.ledger_prompts,
                config.prompts.ledger_age,
            )),
            open: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            files: Lock::new(Files::new(config.files.ledger, config.files.ledger_age)),
            assets: Lock::new(Assets::new(config.files.assets, config.files.ledger_age)),
            users: Users::default(),
            copying: Semaphore::new(COPIES_MAX),
            nodes: NodeInfos::default(),
            adoption: Adoption::default(),
            reconcile: Notify::new(),
            trim: Notify::new(),
            late_looks: Arc::new(Semaphore::new(LATE_LOOKS_MAX)),
            config,
            network,
            tasks,
        })
    }

    /// A moment in milliseconds since 1970: of one moment always the same, whatever the clock on
    /// the wall does meanwhile.
    #[must_use]
    pub fn unix_at(&self, at: Instant) -> u64 {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        match at.checked_duration_since(self.started) {
            Some(since) => self.started_ms.saturating_add(millis(since)),
            None => self.started_ms.saturating_sub(millis(self.started.duration_since(at))),
        }
    }

    /// Starts what runs as long as the gateway does: the watch links, the sweep, the reconciler.
    pub fn start(self: &Arc<Self>) {
        for backend in self.fleet.iter() {
            let (watched, gateway) = (Arc::clone(backend), Arc::clone(self));
            self.tasks.spawn_again(move || {
                let (network, config) =
                    (Arc::clone(&gateway.network), gateway.config.fleet.clone());
                watch::watch(Arc::clone(&watched), network, config, gateway.tasks.clone())
            });
            let (knocked, gateway) = (Arc::clone(backend), Arc::clone(self));
            self.tasks.spawn_again(move || {
                let config = gateway.config.fleet.clone();
                doors::knock(Arc::clone(&knocked), config, gateway.tasks.clone())
            });
        }
        let closing = Arc::clone(self);
        self.tasks.spawn(async move {
            closing.tasks.stopping().await;
            closing.fleet.iter().for_each(|backend| backend.pool.close_idle());
        });
        self.tasks.spawn_critical("sweep", registry::sweep(Arc::clone(self)));
        self.tasks.spawn_critical("reconciler", reconcile::reconcile(Arc::clone(self)));
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
        let serves = |backend: &Arc<Backend>| backend.view(now()).serves_new();
        self.is_open() && !self.is_leaving() && self.fleet.iter().any(serves)
    }

    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) || self.tasks.is_stopping()
    }

    /// The backend of settings, user data and the page: the configured one, or the first by name.
    #[must_use]
    pub fn home(&self) -> &Arc<Backend> {
        self.fleet.by_name(&self.config.server.home).unwrap_or_else(|| self.fleet.get(BackendId(0)))
    }

    /// Locked for one call, never together with a client.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn ledger(&self) -> Guard<'_, Ledger, { rank::LEDGER }> {
        self.ledger.lock()
    }

    /// Counts what a decision about a client changed.
    pub fn count(&self, client: &ClientId, decision: Decision) {
        self.metrics.placed(decision.reason);
        if decision.newly_bound {
            self.fleet.take_turn();
            let backend = self.fleet.get(decision.backend);
            backend.client_came();
            self.count_left(decision.left);
            let left = decision.left.map(|id| self.fleet.get(id).name.as_str());
            let (backend, placement) = (backend.name.as_str(), decision.reason.as_str());
            // Whoever only looks is placed as well, so this is not for every day.
            debug!(client = %mask(client), backend, left, placement, "Client placed.");
        }
    }

    /// A client is not bound to this backend any more.
    pub fn count_left(&self, backend: Option<BackendId>) {
        if let Some(backend) = backend {
            self.fleet.get(backend).client_left();
        }
    }

    /// The event logs hold more than they may: asks for a trim at once.
    pub fn trim_soon(&self) {
        self.trim.notify_one();
    }

    /// Waits until a trim was asked for. Cancel safe.
    pub async fn trim_asked(&self) {
        self.trim.notified().await;
    }

    /// Asks for a round of the reconciler without waiting for its interval.
    pub fn reconcile_soon(&self) {
        self.reconcile.notify_one();
    }

    /// Waits until a round was asked for. Cancel safe.
    pub async fn reconcile_asked(&self) {
        self.reconcile.notified().await;
    }
}
