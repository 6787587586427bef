//! What must outlive a request, and partly the process: who owns which prompt and where it is,
//! where files and assets lie, what operators said. The ledgers and the journal are written through
//! this one interface and nowhere else, so that none of them knows what another does not.
//!
//! - [`prompts`]: prompts and bindings
//! - [`files`]: files, and how their names go to clients
//! - [`assets`]: assets, and how they go to clients
//! - [`states`]: what operators said of backends
//! - [`home`]: which backend is the home
//! - [`names`]: names of backends that stand in names of files
//! - [`shards`]: ledgers in parts, each behind a lock of its own

pub(crate) mod assets;
pub(crate) mod files;
pub(crate) mod home;
pub(crate) mod names;
pub(crate) mod prompts;
pub(crate) mod shards;
pub(crate) mod states;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::config::{Config, FileTags};
use crate::fleet::Fleet;
use crate::fleet::backend::Backend;
use crate::journal::Journal;
use crate::lock::{Lock, rank};
use crate::metrics::Metrics;
use crate::net::{now, unix_millis};
use crate::routing::assets::Assets;
use crate::routing::files::Files;
use crate::routing::given_names::GivenNames;
use crate::routing::ledger::Ledger;
use crate::routing::servers::ServerKey;
use shards::Shards;
use states::Said;

/// The ledgers and the journal.
#[derive(Debug)]
pub struct Records {
    pub journal: Journal,
    fleet: Arc<Fleet>,
    metrics: Arc<Metrics>,
    tags: FileTags,
    started: Instant,
    /// The same moment, in milliseconds since 1970.
    started_ms: u64,
    ledger: Shards<Ledger, { rank::LEDGER }>,
    /// How many submissions there were, over all shards: ComfyUI works in their order.
    submissions: AtomicU64,
    files: Shards<Files, { rank::FILES }>,
    assets: Shards<Assets, { rank::ASSETS }>,
    /// What operators said of backends, by their addresses: also of those that are not in the
    /// fleet, for the day when they are again.
    said: Lock<HashMap<Arc<str>, Said>, { rank::SAID }>,
    /// Names of backends that were given to clients.
    given: Lock<GivenNames, { rank::GIVEN_NAMES }>,
    home: home::Home,
    /// A prompt is not pending any more.
    settled: Notify,
}

impl Records {
    #[must_use]
    pub fn new(
        config: &Config,
        journal: Journal,
        fleet: Arc<Fleet>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (prompts, files) = (&config.prompts, &config.files);
        Self {
            journal,
            fleet,
            metrics,
            tags: files.tag,
            started: now(),
            started_ms: unix_millis(),
            ledger: Shards::new(prompts.ledger_prompts, |bound| {
                Ledger::new(bound, prompts.ledger_age)
            }),
            submissions: AtomicU64::new(0),
            files: Shards::new(files.ledger, |bound| Files::new(bound, files.ledger_age)),
            assets: Shards::new(files.assets, |bound| Assets::new(bound, files.ledger_age)),
            said: Lock::default(),
            given: Lock::default(),
            home: home::Home::default(),
            settled: Notify::new(),
        }
    }

    /// A moment in milliseconds since 1970. One moment always gives the same number, even if the
    /// system's clock is set meanwhile.
    #[must_use]
    pub fn unix_at(&self, at: Instant) -> u64 {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        match at.checked_duration_since(self.started) {
            Some(since) => self.started_ms.saturating_add(millis(since)),
            None => self.started_ms.saturating_sub(millis(self.started.duration_since(at))),
        }
    }
}

/// Which server a backend is, for records.
#[must_use]
pub(crate) fn server_of(backend: &Backend) -> ServerKey {
    ServerKey::new(Arc::clone(&backend.authority), backend.identity())
}
