//! Records that outlive a request, and some of them the process: who owns which prompt and where it
//! is, where files and assets are, what operators set. The ledgers and the journal are written only
//! through this interface, so that they always agree.
//!
//! - [`prompts`]: prompts and bindings
//! - [`files`]: files, and how their names go to clients
//! - [`assets`]: assets, and how they go to clients
//! - [`states`]: states that operators set for backends
//! - [`home`]: which backend is the home
//! - [`names`]: names of backends that appear in file names
//! - [`shards`]: ledgers in parts, each with its own lock

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
use crate::routing::files::{Files, Unknown};
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
    /// The number of submissions over all shards. It gives each submission its place in the order
    /// in which ComfyUI works.
    submissions: AtomicU64,
    files: Shards<Files, { rank::FILES }>,
    assets: Shards<Assets, { rank::ASSETS }>,
    /// The states that operators set, by address. Backends that are not in the fleet are kept, in
    /// case they return.
    said: Lock<HashMap<Arc<str>, Said>, { rank::SAID }>,
    /// Names of backends that clients were given.
    given: Lock<GivenNames, { rank::GIVEN_NAMES }>,
    home: home::Home,
    /// Notified when a prompt is no longer pending.
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
        let unknown = if files.share_unknown { Unknown::Shared } else { Unknown::Hidden };
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
            files: Shards::new(files.ledger, |bound| {
                Files::new(bound, files.ledger_age).with_unknown(unknown)
            }),
            assets: Shards::new(files.assets, |bound| Assets::new(bound, files.ledger_age)),
            said: Lock::default(),
            given: Lock::default(),
            home: home::Home::default(),
            settled: Notify::new(),
        }
    }

    /// A moment in milliseconds since 1970. The same moment always gives the same number, even if
    /// the system's clock is changed meanwhile.
    #[must_use]
    pub fn unix_at(&self, at: Instant) -> u64 {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        match at.checked_duration_since(self.started) {
            Some(since) => self.started_ms.saturating_add(millis(since)),
            None => self.started_ms.saturating_sub(millis(self.started.duration_since(at))),
        }
    }
}

/// Which server a backend is, in the form that records use.
#[must_use]
pub(crate) fn server_of(backend: &Backend) -> ServerKey {
    ServerKey::new(Arc::clone(&backend.authority), backend.identity())
}
