//! One backend: its configuration, what it reports about itself, and what is known of its health.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::breaker::Breaker;
use super::devices::Devices;
use super::dialler::Dialler;
use super::load::Load;
use super::names::{Names, header};
use super::pool::Pool;
use super::queue_order::LastOrder;
use super::queue_snapshot::QueueSnapshots;
use super::up_state::UpState;
use super::user_ids::UserIds;
use super::worker;
use crate::comfy::version::Version;
use crate::config::{BackendConfig, BackendHeaders, ListedBy, LiveConfig};
use crate::lock::{Guard, Lock, rank};
use crate::net::now;
use crate::ordered_watch::OrderedWatch;
use crate::routing::health::{Change, Health, Probe};
use crate::routing::ids::BackendId;
use crate::routing::placement::{AdminState, BackendView, Condition};
use crate::routing::state_change::StateChange;

mod leaving;
mod process;
mod said;
mod settings;

pub use leaving::Going;
pub(super) use leaving::Leaves;
pub use said::SaidOfItself;

pub(super) use settings::Common;

/// How many prompts are shown to a backend at the same time.
const TRIALS_MAX: usize = 4;

/// One backend, shared by everything that talks to it.
#[derive(Debug)]
pub struct Backend {
    pub id: BackendId,
    pub names: Arc<Names>,
    /// `host:port`, as in `Host`: identifies the server, whatever its name is.
    pub authority: Arc<str>,
    /// What opens connections to it.
    pub dialler: Arc<Dialler>,
    /// [`Self::authority`] as the value of a header, made once.
    pub host_header: HeaderValue,
    labels: ArcSwap<Vec<String>>,
    headers: ArcSwap<BackendHeaders>,
    /// The source that wanted it last.
    listed_by: ArcSwap<ListedBy>,
    /// Its identity, from its discovery.
    identity: ArcSwap<Option<Arc<str>>>,
    weight: AtomicU32,
    /// 0 for no limit.
    max_pending: AtomicU32,
    pub pool: Arc<Pool>,
    pub breaker: Arc<Breaker>,
    pub worker: worker::WorkerWatch,
    pub load: Load,
    pub queue: QueueSnapshots,
    pub(super) order: LastOrder,
    pub(super) devices: Devices,
    pub(super) user_ids: UserIds,
    live: LiveConfig,
    /// Copies of fields of [`State`], for views without a lock.
    up: AtomicBool,
    admin: AtomicU8,
    /// Below zero for a moment if what comes and what goes is counted in the other order, and on
    /// the one that stands for those that are forgotten.
    bound: AtomicI32,
    /// How often something was written there through Mooring.
    pub writes: AtomicU64,
    /// Prompts that are shown to it for its verdict at the same time.
    pub trials: Arc<Semaphore>,
    /// Cancelled when it leaves the fleet or the process stops: all its tasks end.
    leaving: CancellationToken,
    has_left: AtomicBool,
    /// A copy of a field of [`State`].
    going: AtomicBool,
    state: Lock<State, { rank::BACKEND }>,
    /// Notified when the backend goes up or down.
    up_state: OrderedWatch<UpState>,
}

#[derive(Debug)]
struct State {
    health: Health,
    admin: AdminState,
    /// Set if it is to leave.
    going: Option<Going>,
    /// The operator's last state change; `None` if there was none.
    said: Option<StateChange>,
    /// When this process received that.
    heeded: Option<Instant>,
    /// When it last went up or down, or was configured.
    since: Instant,
    /// The error of the last failed probe.
    trouble: Option<String>,
    version: Option<Version>,
    /// The version of the page that it serves, if it gives one.
    frontend: Option<Arc<str>>,
    /// The answer of `GET /features`, unchanged.
    features: Option<Arc<str>>,
    /// When its port was last found closed: the process of that time is gone, with all its memory.
    refused: Option<Instant>,
    /// For the first time since it was last open.
    refused_since: Option<Instant>,
    /// The address of the machine that the watch link reached last.
    reached: Option<IpAddr>,
    /// When another process, or none, was last found there.
    replaced: Option<Instant>,
    /// When its watch link last got a `status`.
    last_status: Option<Instant>,
}

/// What operators see of a backend.
#[derive(Clone, Debug)]
pub struct Report {
    pub up: bool,
    pub admin: AdminState,
    pub said: Option<StateChange>,
    pub since: Instant,
    pub trouble: Option<String>,
    pub version: Option<Version>,
    pub queue_remaining: u32,
    pub load: u32,
    pub bound: u32,
}

impl Backend {
    #[must_use]
    pub(super) fn new(id: BackendId, settings: &BackendConfig, common: &Common) -> Self {
        let Common { network, tasks, live, own_watch: _ } = common;
        let names = Arc::new(Names::new(&settings.name));
        let breaker = Arc::new(Breaker::new(Arc::clone(&names), live.clone()));
        let dialler = Arc::new(Dialler::new(Arc::clone(network), settings));
        let dials = Arc::clone(&dialler);
        let pool = Pool::new(dials, tasks.clone(), live.clone(), Arc::clone(&breaker));
        Self {
            id,
            names,
            authority: settings.authority.as_str().into(),
            dialler,
            host_header: header(&settings.authority),
            labels: ArcSwap::from_pointee(settings.labels.clone()),
            headers: ArcSwap::from_pointee(settings.headers.clone()),
            listed_by: ArcSwap::from_pointee(settings.listed_by.clone()),
            identity: ArcSwap::from_pointee(settings.identity.clone()),
            weight: AtomicU32::new(settings.weight.get()),
            max_pending: AtomicU32::new(settings.max_pending.map_or(0, NonZeroU32::get)),
            pool: Arc::new(pool),
            load: Load::default(),
            queue: QueueSnapshots::default(),
            order: LastOrder::default(),
            devices: Devices::default(),
            user_ids: UserIds::default(),
            breaker,
            worker: worker::WorkerWatch::default(),
            live: live.clone(),
            up: AtomicBool::new(false),
            admin: AtomicU8::new(0),
            bound: AtomicI32::new(0),
            writes: AtomicU64::new(0),
            trials: Arc::new(Semaphore::new(TRIALS_MAX)),
            going: AtomicBool::new(false),
            leaving: tasks.child_token(),
            has_left: AtomicBool::new(false),
            state: Lock::new(State::new(now())),
            up_state: OrderedWatch::new(UpState::default()),
        }
    }

    #[must_use]
    pub fn view(&self, now: Instant) -> BackendView {
        BackendView {
            id: self.id,
            up: self.is_up(),
            admin: self.admin(),
            load: self.load.total(now),
            weight: self.weight(),
            max_pending: self.max_pending(),
            bound: self.bound(),
            condition: self.condition(),
            head_start: None,
        }
    }

    fn condition(&self) -> Condition {
        match self.worker.condition() {
            Condition::Well | Condition::Suspect if self.breaker.is_tripped() => Condition::Shut,
            condition @ (Condition::Well | Condition::Suspect) => condition,
            condition @ (Condition::Wedged | Condition::Shut) => condition,
        }
    }

    /// True if it may be asked on behalf of any client: its probes say that it is up, and no
    /// operator has turned it off.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) && self.admin() != AdminState::Off && !self.has_left()
    }

    #[must_use]
    pub fn admin(&self) -> AdminState {
        match self.admin.load(Ordering::Relaxed) {
            // Whatever the operator's state is, it takes no new clients.
            0 if self.going.load(Ordering::Relaxed) => AdminState::Draining,
            0 => AdminState::Ready,
            1 => AdminState::Draining,
            _ => AdminState::Off,
        }
    }

    /// Sets the operator's state.
    pub fn set_admin(&self, admin: AdminState) {
        self.store_admin(&mut self.state(), admin);
    }

    fn store_admin(&self, state: &mut State, admin: AdminState) {
        state.admin = admin;
        let code = match admin {
            AdminState::Ready => 0,
            AdminState::Draining => 1,
            AdminState::Off => 2,
        };
        self.admin.store(code, Ordering::Relaxed);
    }

    /// How many clients are bound to it.
    fn bound(&self) -> u32 {
        self.bound.load(Ordering::Relaxed).max(0).cast_unsigned()
    }

    /// A client was bound to it.
    pub fn client_came(&self) {
        self.bound.fetch_add(1, Ordering::Relaxed);
    }

    /// A client is no longer bound to it.
    pub fn client_left(&self) {
        self.bound.fetch_sub(1, Ordering::Relaxed);
    }

    /// A probe passed: the watch link is open, or an answer came.
    pub fn passed(&self) {
        self.observe(Probe::Pass, None);
    }

    /// A probe failed, and why.
    pub fn failed(&self, trouble: String) {
        self.observe(Probe::Fail, Some(trouble));
    }

    /// True if a discovery found it and it has not served yet: so far the fleet has not grown.
    #[must_use]
    pub fn was_found_and_still_starts(&self) -> bool {
        let was_found = matches!(**self.listed_by.load(), ListedBy::Discovery(_));
        was_found && self.last_status().is_none()
    }

    /// How long it has been down; `None` while it is up.
    #[must_use]
    pub fn down_for(&self, now: Instant) -> Option<Duration> {
        let state = self.state();
        (!state.health.is_up()).then(|| now.duration_since(state.since))
    }

    /// Whether it is up, and how often it has changed.
    #[must_use]
    pub fn up_state(&self) -> UpState {
        self.up_state.get()
    }

    /// Waits until it was probed once, with any result. Cancel safe.
    pub async fn was_probed(&self) {
        self.up_state.wait_for(|turned| turned.was_probed).await;
    }

    /// Waits until it is down, or has left. Cancel safe.
    pub async fn is_down(&self) {
        self.up_state.wait_for(|turned| !turned.up).await;
    }

    /// Waits until it is down and in the fleet still, or left it at once. Cancel safe.
    pub async fn went_down(&self) {
        self.up_state.wait_for(UpState::is_silent).await;
    }

    /// Waits until it is up. Cancel safe.
    pub async fn is_up_again(&self) {
        self.up_state.wait_for(|turned| turned.up).await;
    }

    #[must_use]
    pub fn report(&self, now: Instant) -> Report {
        let load = self.load.total(now);
        let state = self.state();
        Report {
            up: state.health.is_up(),
            admin: self.admin(),
            said: state.said.clone(),
            since: state.since,
            trouble: (state.trouble.clone())
                .or_else(|| self.worker.trouble(now))
                .or_else(|| self.breaker.trouble()),
            version: state.version.clone(),
            queue_remaining: self.load.queue_remaining(),
            load,
            bound: self.bound(),
        }
    }

    fn observe(&self, probe: Probe, trouble: Option<String>) {
        let mut state = self.state();
        let (health, change) = state.health.observe(probe, self.live.get().fleet.thresholds());
        state.health = health;
        let is_news = trouble.is_some() && state.trouble != trouble;
        state.trouble = trouble;
        if change.is_some() {
            state.since = now();
        }
        self.up.store(health.is_up(), Ordering::Relaxed);
        let trouble = state.trouble.clone().unwrap_or_default();
        drop(state);
        self.tell(change, &trouble, is_news, health.is_up());
    }

    fn tell(&self, change: Option<Change>, trouble: &str, is_news: bool, up: bool) {
        match change {
            Some(Change::WentUp) => info!(backend = %self.name(), "Backend is up."),
            Some(Change::WentDown) => warn!(backend = %self.name(), trouble, "Backend is down."),
            // `trouble` has the details: the backend may answer, and still be unusable.
            None if is_news => warn!(backend = %self.name(), up, trouble, "Backend has trouble."),
            None => {}
        }
        if change.is_some() {
            self.up_state.change(|turned| UpState { up, was_probed: true, ..turned.again() });
        } else if !self.up_state().was_probed {
            self.up_state.change(|turned| UpState { was_probed: true, ..turned });
        }
    }

    /// It was up all the time and can be used again: wakes the tasks that wait for its return.
    pub(super) fn came_back(&self) {
        self.up_state.change(UpState::again);
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn state(&self) -> Guard<'_, State, { rank::BACKEND }> {
        self.state.lock()
    }
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            health: Health::INITIAL,
            admin: AdminState::Ready,
            going: None,
            said: None,
            heeded: None,
            since: now,
            trouble: None,
            version: None,
            frontend: None,
            features: None,
            refused: None,
            refused_since: None,
            reached: None,
            replaced: None,
            last_status: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, LiveConfig};
    use crate::fleet::Fleet;
    use crate::net::{Network, Tcp};
    use crate::tasks::Tasks;

    #[test]
    fn who_goes_before_he_came_leaves_no_huge_count() {
        let config = Config::for_backends(&[("a", "http://a:1")]).unwrap();
        let network: Arc<dyn Network> = Arc::new(Tcp);
        let fleet = Fleet::new(&LiveConfig::new(config), &network, &Tasks::default());
        let backend = fleet.by_name("a").unwrap();
        let bound = || backend.view(now()).bound;
        backend.client_left();
        assert_eq!((bound(), backend.report(now()).bound), (0, 0));
        backend.client_came();
        assert_eq!(bound(), 0);
        backend.client_came();
        assert_eq!(bound(), 1);
    }
}
