//! What the front keeps besides the sessions: its browsers, cached answers of backends, and limits
//! for what may be held at the same time.

use std::fmt;
use std::sync::Arc;

use http::Method;
use tokio::sync::Semaphore;
use tracing::warn;

use super::Answer;
use super::admission::Admission;
use super::asset_cache::AssetCache;
use super::broadcast_lookup::LookupLimiter;
use super::browsers::{self, Browsers};
use super::cookie_signer::CookieSigner;
use super::failover::Starts;
use super::history_cache::HistoryCache;
use super::nodes::NodeInfos;
use super::stale_cache::StaleCache;
use super::static_files::press::Press;
use super::users::Users;
use crate::body::budget::BodyBudget;
use crate::config::AuthMode;
use crate::net::Boxed;
use crate::session::Sessions;
use crate::shared::Shared;

/// How many files may be copied from backend to backend at one time.
const COPIES_MAX: usize = 8;

/// Answers paths below `/-/` that are not the front's own.
pub trait Annex: fmt::Debug + Send + Sync {
    /// # Errors
    /// Nothing is there.
    fn answer<'a>(
        &'a self,
        sessions: &'a Sessions,
        method: &'a Method,
        path: &'a str,
    ) -> Boxed<'a, Answer>;
}

/// The front door of a gateway.
#[derive(Debug)]
pub struct Front {
    pub shared: Arc<Shared>,
    pub sessions: Arc<Sessions>,
    /// Who is let in.
    pub admission: Arc<Admission>,
    pub browsers: Browsers,
    /// Who compresses files of the page now.
    pub press: Press,
    /// When copies were made of what a page needs to start.
    pub starts: Starts,
    /// Signs the page cookie.
    pub cookie_signer: CookieSigner,
    /// Last good copies of what the home backend gave.
    pub stale_cache: StaleCache,
    /// The page's hashed files.
    pub asset_cache: Arc<AssetCache>,
    /// History entries that were fetched for lists.
    pub history_cache: HistoryCache,
    /// Who had ids looked for that nobody knows.
    pub lookups: LookupLimiter,
    /// Bytes of collected bodies that are held at this moment.
    pub bodies: BodyBudget,
    /// How many files may be copied from backend to backend at one time.
    pub copying: Semaphore,
    /// What the backends last said of their nodes.
    pub nodes: NodeInfos,
    /// Who is known to each server that tells users apart.
    pub users: Users,
    /// Set in the demo only.
    pub annex: Option<Arc<dyn Annex>>,
}

impl Front {
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, annex: Option<Arc<dyn Annex>>) -> Arc<Self> {
        let shared = Arc::clone(&sessions.shared);
        let config = shared.config();
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        shared.metrics.guests.may_come(config.auth.users.len());
        Arc::new(Self {
            admission: Admission::new(&config.auth),
            browsers: Browsers::default(),
            press: Press::default(),
            starts: Starts::default(),
            cookie_signer: config
                .state
                .dir
                .path()
                .map_or_else(CookieSigner::new, CookieSigner::kept_in),
            stale_cache: StaleCache::new(bytes(config.server.stale_cache)),
            asset_cache: AssetCache::new(bytes(config.server.asset_cache)),
            history_cache: HistoryCache::new(bytes(config.prompts.history_cache)),
            lookups: LookupLimiter::default(),
            bodies: BodyBudget::new(config.prompts.max_bodies_total),
            copying: Semaphore::new(COPIES_MAX),
            nodes: NodeInfos::default(),
            users: Users::default(),
            annex,
            sessions,
            shared,
        })
    }

    /// The configuration was replaced.
    pub fn reconfigure(&self) {
        let config = self.shared.config();
        self.shared.metrics.guests.may_come(config.auth.users.len());
        self.admission.reconfigure(&config.auth);
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        self.stale_cache.limit(bytes(config.server.stale_cache));
        self.asset_cache.limit(bytes(config.server.asset_cache));
        self.history_cache.limit(bytes(config.prompts.history_cache));
        self.bodies.limit(config.prompts.max_bodies_total);
    }

    /// Starts what looks after the front for as long as the process runs.
    pub fn start(self: &Arc<Self>) {
        let config = self.shared.config();
        if config.auth.mode == AuthMode::Keys && config.auth.users.is_empty() {
            warn!("Nobody can come in: the file of users has none. `mooring users add` adds one.");
        }
        self.shared.tasks.spawn_critical("browsers", browsers::sweep(Arc::clone(self)));
    }
}
