//! What the front keeps besides the sessions: browsers, cached answers of backends, and limits for
//! what may be held at the same time.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::Method;
use tokio::sync::Semaphore;
use tracing::warn;

use super::Answer;
use super::admission::Admission;
use super::asset_cache::AssetCache;
use super::broadcast_lookup::LookupLimiter;
use super::browsers::{self, Browsers};
use super::cookie_signer::{CookieSigner, Signed};
use super::copies::Copies;
use super::failover::Starts;
use super::history_cache::HistoryCache;
use super::limits::Limits;
use super::login::Logins;
use super::login::ended::EndedSessions;
use super::nodes::{self, NodeInfos};
use super::shares::Shares;
use super::stale_cache::StaleCache;
use super::stand_in::StandIn;
use super::static_files::press::Press;
use super::token_keys::{self, KeyFetcher};
use super::user_data::{READING_MAX, SAVING_EACH_MAX, SAVING_MAX};
use super::users::Users;
use super::waiting;
use super::waiting::askers::Askers;
use super::waiting::known_good::KnownGood;
use super::writes::Writes;
use crate::body::budget::BodyBudget;
use crate::config::AuthMode;
use crate::lock::rank;
use crate::net::Boxed;
use crate::routing::ids::BackendId;
use crate::session::Sessions;
use crate::shared::Shared;
use crate::tasks::Tasks;

/// How many files may be copied between backends at the same time.
const COPIES_MAX: usize = 8;

/// Answers paths below `/-/` that the front itself does not have.
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
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// Logins and logouts.
    pub logins: Logins,
    /// The keys that sign tokens, where they are fetched.
    pub(super) token_keys: KeyFetcher,
    /// What is counted where it is limited.
    pub(super) limits: Limits,
    pub browsers: Browsers,
    /// Compresses files of the page.
    pub press: Press,
    /// When copies were made of what a page needs to start.
    pub starts: Starts,
    /// Signs the page cookie.
    pub cookie_signer: CookieSigner,
    /// Last good copies of answers of the home backend.
    pub stale_cache: StaleCache,
    /// The page's files with a hash in their name.
    pub asset_cache: Arc<AssetCache>,
    /// Copies of user data on the disk.
    pub copies: Copies,
    /// Writes to user data at the home.
    pub writes: Arc<Writes>,
    /// The home backend at the last check.
    home: ArcSwapOption<BackendId>,
    /// Which backend answered for the home last.
    pub stand_in: StandIn,
    /// How many writes have their changes read again at the same time.
    pub reading_anew: Arc<Semaphore>,
    /// Writes to user data that are not over, by the address of their sender.
    pub saving: Arc<Shares<IpAddr, { rank::SAVES }>>,
    /// History entries that were fetched for lists.
    pub history_cache: HistoryCache,
    /// Who had unknown ids looked up.
    pub lookups: LookupLimiter,
    /// Bytes of collected bodies that are in memory now.
    pub bodies: BodyBudget,
    /// Limits how many files are copied between backends at the same time.
    pub copying: Semaphore,
    /// The last answers of the backends about their nodes.
    pub nodes: NodeInfos,
    /// The users that each server with several users knows.
    pub users: Users,
    /// Submissions that wait, and whose callers are still to be told something.
    pub(super) askers: Askers,
    /// Graphs that a backend has accepted lately.
    pub(super) known_good: KnownGood,
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
        let kept = config.state.dir.path();
        let signer =
            |signed| kept.map_or_else(CookieSigner::new, |dir| CookieSigner::kept_in(dir, signed));
        let (cookie_signer, session_signer) = (signer(Signed::Browsers), signer(Signed::Sessions));
        let ended = EndedSessions::kept_in(kept);
        // The journal's lock keeps other processes out of the folder.
        let folder = config.copies_folder().filter(|folder| {
            let is_ours = shared.records.journal.is_kept();
            if !is_ours {
                Copies::doubt_all(folder, &cookie_signer);
            }
            is_ours
        });
        let writes = Arc::new(Writes::default());
        let limit = config.copies_on_disk();
        let copies = Copies::new(folder, cookie_signer.clone(), Arc::clone(&writes), limit);
        let admission = Admission::new(&config.auth, session_signer, ended.now());
        admission.reconfigure(&config.auth, &config.server.trusted_proxies);
        Arc::new(Self {
            admission,
            logins: Logins::new(ended),
            token_keys: KeyFetcher::default(),
            limits: Limits::default(),
            browsers: Browsers::default(),
            press: Press::default(),
            starts: Starts::default(),
            cookie_signer,
            copies,
            home: ArcSwapOption::empty(),
            stand_in: StandIn::default(),
            reading_anew: Arc::new(Semaphore::new(READING_MAX)),
            saving: Shares::new(SAVING_MAX, SAVING_EACH_MAX),
            stale_cache: StaleCache::new(bytes(config.server.stale_cache), Arc::clone(&writes)),
            writes,
            asset_cache: AssetCache::new(bytes(config.server.asset_cache)),
            history_cache: HistoryCache::new(bytes(config.prompts.history_cache)),
            lookups: LookupLimiter::default(),
            bodies: BodyBudget::new(config.prompts.max_bodies_total),
            copying: Semaphore::new(COPIES_MAX),
            nodes: NodeInfos::default(),
            users: Users::default(),
            askers: Askers::default(),
            known_good: KnownGood::default(),
            annex,
            sessions,
            shared,
        })
    }

    /// Applies a new configuration.
    pub fn reconfigure(&self) {
        let config = self.shared.config();
        self.shared.metrics.guests.may_come(config.auth.users.len());
        self.admission.reconfigure(&config.auth, &config.server.trusted_proxies);
        let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        self.stale_cache.limit(bytes(config.server.stale_cache));
        self.asset_cache.limit(bytes(config.server.asset_cache));
        self.history_cache.limit(bytes(config.prompts.history_cache));
        self.bodies.limit(config.prompts.max_bodies_total);
        self.copies.limit(config.copies_on_disk());
    }

    /// Notes the current home. If it was another one before, the saved data of users is not there.
    pub fn notice_home(&self, id: BackendId) {
        // Checked first: it is mostly the same, and then nothing is written.
        if self.home.load().as_deref() == Some(&id) {
            return;
        }
        let before = self.home.swap(Some(Arc::new(id)));
        if before.is_some_and(|before| *before != id) {
            self.stale_cache.forget_user_data();
            self.stand_in.is_over();
        }
    }

    /// Starts the tasks that look after the front while the process runs, and those that write for
    /// it until the last request is answered.
    pub fn start(self: &Arc<Self>, writers: &Tasks) {
        let config = self.shared.config();
        if config.auth.mode == AuthMode::Keys && config.auth.users.is_empty() {
            warn!("Nobody can log in: the file of users is empty. `mooring users add` adds one.");
        }
        if config.auth.mode == AuthMode::Keys
            && config.auth.session_key.is_none()
            && config.state.dir.path().is_none()
        {
            warn!(
                "A restart logs everybody out: name a `state.dir` or an `auth.session_key_file`."
            );
        }
        self.shared.tasks.spawn_critical("browsers", browsers::sweep(Arc::clone(self)));
        self.shared.tasks.spawn_critical("token keys", token_keys::run(Arc::clone(self)));
        self.shared.tasks.spawn_critical("scheduler", waiting::run(Arc::clone(self)));
        if config.queue.is_used() {
            let front = Arc::clone(self);
            self.shared.tasks.spawn_again(move || nodes::learned::run(Arc::clone(&front)));
        }
        self.copies.start(writers);
    }
}
