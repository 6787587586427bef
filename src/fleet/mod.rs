//! The backends, live: their health, their load, their connections.
//!
//! Nothing else dials a backend. [`watch`] keeps one link of our own to each and learns from it;
//! [`doors`] knows whether it takes new connections; [`pool`] carries requests, on connections that
//! are [`kept`], and awaits answers from what was [`sent`] last; [`ask`] puts small questions;
//! [`reading`] reads queues for many askers at once;
//! [`turned`] whether it is up, [`worker`] what is thought of the thread that does its work;
//! [`features`] are what all have in common.

pub mod ask;
pub mod backend;
pub mod dials;
pub mod doors;
pub mod features;
pub mod kept;
pub mod load;
pub mod pool;
pub mod reading;
pub mod sent;
pub mod turned;
pub mod watch;
pub mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use smallvec::SmallVec;

use crate::config::{Config, FleetConfig};
use crate::lock::{Lock, rank};
use crate::net::Network;
use crate::routing::ids::BackendId;
use crate::routing::place::BackendView;
use crate::tasks::Tasks;
use backend::Backend;

/// All configured backends, in the order of their names.
#[derive(Debug)]
pub struct Fleet {
    backends: Vec<Arc<Backend>>,
    /// Counts placements, so that equal backends are chosen in turn.
    turn: AtomicU64,
    /// What pages were told last.
    told: Lock<features::Told, { rank::FEATURES }>,
}

impl Fleet {
    #[must_use]
    pub fn new(config: &Config, network: &Arc<dyn Network>, tasks: &Tasks) -> Self {
        let backends = (0..)
            .zip(&config.backends)
            .map(|(index, settings)| {
                Arc::new(Backend::new(BackendId(index), settings, config, network, tasks))
            })
            .collect();
        Self { backends, turn: AtomicU64::new(0), told: Lock::default() }
    }

    /// Starts to watch every backend, until the process stops.
    pub fn start(&self, config: &FleetConfig, network: &Arc<dyn Network>, tasks: &Tasks) {
        for backend in &self.backends {
            let watched = (Arc::clone(backend), Arc::clone(network), config.clone(), tasks.clone());
            let knocked = (Arc::clone(backend), config.clone(), tasks.clone());
            tasks.spawn_again(move || {
                let (backend, network, config, tasks) = watched.clone();
                watch::watch(backend, network, config, tasks)
            });
            tasks.spawn_again(move || {
                let (backend, config, tasks) = knocked.clone();
                doors::knock(backend, config, tasks)
            });
            let (closing, stopping) = (Arc::clone(backend), tasks.clone());
            tasks.spawn(async move {
                stopping.stopping().await;
                closing.pool.close_idle();
            });
        }
    }

    /// The backend of an id. Ids are only made here, so there is one.
    #[must_use]
    pub fn get(&self, id: BackendId) -> &Arc<Backend> {
        &self.backends[id.index()]
    }

    /// The backend of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| backend.name == name)
    }

    /// The same for what an operator or an older name of a file says: a name, else where it
    /// listens, as `host:port` or as its URL.
    #[must_use]
    pub fn called(&self, text: &str) -> Option<&Arc<Backend>> {
        self.by_name(text).or_else(|| {
            let at = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
            self.backends.iter().find(|backend| backend.authority == at)
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.backends.iter()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.backends.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// The fleet as it is now, for one decision.
    #[must_use]
    pub fn views(&self, now: Instant) -> SmallVec<[BackendView; 8]> {
        self.backends.iter().map(|backend| backend.view(now)).collect()
    }

    /// How many placements there were, so that equal backends are chosen in turn.
    #[must_use]
    pub fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// A placement was made.
    pub fn take_turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }
}
