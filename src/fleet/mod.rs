//! The live backends: their health, their load, their connections.
//!
//! The fleet can change while everything runs, by a [`diff`]. `roster` holds its current members,
//! `supervisor` runs the tasks of one backend from when it joins until it leaves, and [`names`]
//! holds its name.
//!
//! Nothing else dials a backend: [`dialler`] opens all connections to it, under TLS where that is
//! configured. [`watch`] keeps one link of our own to each and learns from it;
//! [`breaker`] knows whether it takes new connections, and [`dial_limiter`] when a link may be
//! dialled again. [`pool`] sends requests; its idle connections are in [`idle`], and [`last_sent`]
//! says from when an answer is awaited. [`api`] makes small requests, and [`queue_snapshot`] reads
//! one queue for many callers. [`up_state`] says whether a backend is up, and [`worker`] whether
//! the thread is alive that does its work. [`features`] are what all have in common. [`user_ids`]
//! says what one calls a user, and [`devices`] which GPUs it has.

pub mod api;
pub mod backend;
pub mod breaker;
pub mod devices;
pub mod dial_limiter;
pub mod dialler;
pub mod diff;
pub mod features;
pub mod idle;
pub mod last_sent;
pub mod load;
pub mod names;
mod own_watch;
pub mod pool;
mod queue_order;
pub mod queue_snapshot;
mod roster;
mod supervisor;
pub mod up_state;
pub mod user_ids;
pub mod wanted;
pub mod watch;
pub mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use tracing::info;

use crate::config::{BackendConfig, LiveConfig};
use crate::lock::{Lock, rank};
use crate::net::{Network, now};
use crate::routing::ids::{BackendId, ClientId};
use crate::routing::placement::{AdminState, BackendView};
use crate::tasks::Tasks;
use backend::{Backend, Common, Going, Leaves};
use diff::{Applied, BadDiff, Diff, Member};
use roster::Roster;

/// The id of the placeholder for a backend while there is none: no slot has this id.
const NOBODY: BackendId = BackendId::new(u16::MAX, u16::MAX - 1);

/// The current backends, and former ones.
#[derive(Debug)]
pub struct Fleet {
    roster: ArcSwap<Roster>,
    common: Common,
    /// The placeholder for backends that left so long ago that nothing is known of them any more.
    forgotten: Arc<Backend>,
    /// The placeholder for a backend while there is none.
    nobody: Arc<Backend>,
    /// Held while the fleet is changed. True once its backends are watched.
    watched: Lock<bool, { rank::ROSTER }>,
    /// Counts placements, so that equal backends are chosen in turn.
    turn: AtomicU64,
    /// When work last found no backend that takes any, in milliseconds after `began`, plus one.
    missed: AtomicU64,
    began: Instant,
    /// The features that pages were told last.
    told: Lock<features::Told, { rank::FEATURES }>,
}

impl Fleet {
    #[must_use]
    pub fn new(live: &LiveConfig, network: &Arc<dyn Network>, tasks: &Tasks) -> Self {
        let common = Common::new(live, network, tasks);
        let forgotten =
            Backend::new(BackendId::new(u16::MAX, u16::MAX), &diff::forgotten(), &common);
        forgotten.leave(Leaves::AtOnce);
        let nobody = Backend::new(NOBODY, &diff::forgotten(), &common);
        nobody.leave(Leaves::AtOnce);
        let mut roster = Roster::default();
        for settings in &live.get().backends {
            roster.join(Arc::new(Backend::new(roster.free_id(), settings, &common)));
        }
        roster.sort();
        Self {
            roster: ArcSwap::from_pointee(roster),
            common,
            forgotten: Arc::new(forgotten),
            nobody: Arc::new(nobody),
            watched: Lock::new(false),
            turn: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            began: now(),
            told: Lock::default(),
        }
    }

    /// The configuration was replaced.
    pub fn reconfigure(&self) {
        self.iter().for_each(|backend| backend.pool.reconfigure());
    }

    /// Starts to watch every backend, including those that join later, until they leave.
    pub fn start(&self) {
        let mut watched = self.watched.lock();
        *watched = true;
        for backend in self.roster.load().members() {
            supervisor::supervise(backend, &self.common);
        }
    }

    /// Changes the fleet, as a whole or not at all.
    ///
    /// # Errors
    /// The result would be a fleet that no configuration can describe.
    pub fn apply(&self, diff: &Diff) -> Result<Applied, BadDiff> {
        self.apply_under(&self.watched.lock(), diff, Leaves::AtOnce)
    }

    /// Changes the fleet to the wanted one: backends that are no longer wanted are to leave,
    /// because of `by`, and wanted ones stay.
    ///
    /// # Errors
    /// As for [`Fleet::apply`], or more would be wanted than allowed.
    pub fn change(&self, wanted: &[BackendConfig], by: &str) -> Result<Applied, BadDiff> {
        diff::check_wanted(wanted)?;
        // All under one lock: a backend that is wanted again must not leave at the same moment.
        let watched = self.watched.lock();
        let (diff, unwanted) = diff::between(&self.members(), wanted);
        let mut applied = self.apply_under(&watched, &diff, Leaves::AtOnce)?;
        for backend in self.iter() {
            let is_news = match unwanted.contains(&backend.id) {
                true => backend.goes(Going::now(by)),
                false => backend.stays(),
            };
            if is_news {
                applied.changed.push(backend);
            }
        }
        Ok(applied)
    }

    /// Brings back backends to drain that are no longer wanted, but have been waited for since
    /// before a restart. Those for which there is no room are left out.
    pub fn bring_back(&self, left_over: Vec<(BackendConfig, Going)>) -> Applied {
        let watched = self.watched.lock();
        let going: BTreeMap<String, Going> =
            left_over.iter().map(|(it, going)| (it.authority.clone(), going.clone())).collect();
        let left_over = left_over.into_iter().map(|(settings, _)| settings).collect();
        let join = diff::beside(&self.members(), left_over);
        let diff = Diff { join, ..Diff::default() };
        // They fit in beside the others.
        let applied = self.apply_under(&watched, &diff, Leaves::AtOnce).unwrap_or_default();
        for backend in &applied.joined {
            if let Some(going) = going.get(&*backend.authority) {
                backend.goes(going.clone());
            }
        }
        applied
    }

    /// Removes those of `drained` that are still to leave. They still answer the requests that they
    /// were sent before.
    pub fn let_go(&self, drained: BTreeSet<BackendId>) -> Applied {
        self.let_go_as(drained, Leaves::Drained)
    }

    /// Has that one go at once, whatever it has, if it is to go still.
    pub fn force_out(&self, id: BackendId) -> Applied {
        self.let_go_as(BTreeSet::from([id]), Leaves::AtOnce)
    }

    fn let_go_as(&self, those: BTreeSet<BackendId>, how: Leaves) -> Applied {
        let watched = self.watched.lock();
        let goes = |id: &BackendId| self.has(*id) && self.get(*id).going_since().is_some();
        let leave = those.into_iter().filter(goes).collect();
        // A fleet without some of its members is one.
        self.apply_under(&watched, &Diff { leave, ..Diff::default() }, how).unwrap_or_default()
    }

    fn apply_under(&self, watched: &bool, diff: &Diff, how: Leaves) -> Result<Applied, BadDiff> {
        let before = self.roster.load_full();
        diff::check(&self.members(), diff)?;
        let mut roster = Roster::clone(&before);
        let mut applied = Applied::default();
        roster.leave(&diff.leave);
        for (id, settings) in &diff.adjust {
            if let Some(backend) = before.get(*id) {
                backend.adjust(settings);
                applied.changed.push(Arc::clone(backend));
            }
        }
        for settings in &diff.join {
            let backend = Arc::new(Backend::new(roster.free_id(), settings, &self.common));
            roster.join(Arc::clone(&backend));
            applied.joined.push(backend);
        }
        roster.sort();
        self.roster.store(Arc::new(roster));
        for backend in diff.leave.iter().filter_map(|id| before.get(*id)) {
            info!(backend = %backend.name(), "Backend has left the fleet.");
            backend.leave(how);
            applied.left.push(Arc::clone(backend));
        }
        for backend in &applied.joined {
            let at = &*backend.authority;
            info!(backend = %backend.name(), at, "Backend has joined the fleet.");
            if *watched {
                supervisor::supervise(backend, &self.common);
            }
        }
        Ok(applied)
    }

    /// The members, for comparison with the wanted list.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.iter().map(|it| Member { id: it.id, settings: it.settings() }).collect()
    }

    /// The backend of an id, also if it has left.
    #[must_use]
    pub fn get(&self, id: BackendId) -> Arc<Backend> {
        let roster = self.roster.load();
        Arc::clone(roster.get(id).unwrap_or(&self.forgotten))
    }

    /// The backend of that name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Arc<Backend>> {
        self.find(|backend| *backend.names.get().name == *name)
    }

    /// The same for an operator's input: a name, else an address as `host:port` or as its URL.
    #[must_use]
    pub fn called(&self, text: &str) -> Option<Arc<Backend>> {
        self.by_name(text).or_else(|| {
            let at = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
            self.find(|backend| *backend.authority == *at)
        })
    }

    fn find(&self, is_meant: impl Fn(&Backend) -> bool) -> Option<Arc<Backend>> {
        self.roster.load().members().iter().find(|backend| is_meant(backend)).cloned()
    }

    /// The first by name, or a placeholder ([`Backend::is_nobody`]) if there is none.
    #[must_use]
    pub fn first(&self) -> Arc<Backend> {
        Arc::clone(self.roster.load().members().first().unwrap_or(&self.nobody))
    }

    /// The current members, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Backend>> + use<> {
        let roster = self.roster.load_full();
        (0..roster.members().len()).map(move |place| Arc::clone(&roster.members()[place]))
    }

    /// True if it is in the fleet.
    #[must_use]
    pub fn has(&self, id: BackendId) -> bool {
        self.roster.load().get(id).is_some_and(|backend| !backend.has_left())
    }

    /// Those that have left and are remembered.
    #[must_use]
    pub fn left(&self) -> Vec<Arc<Backend>> {
        self.roster.load().left().cloned().collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.roster.load().members().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if one of our own watch links has that clientId: what it watches is this gateway.
    #[must_use]
    pub fn is_own_watch(&self, id: &ClientId) -> bool {
        self.common.own_watch.is_of(id.name())
    }

    /// The current state of one backend, for one decision.
    #[must_use]
    pub fn view(&self, id: BackendId, now: Instant) -> BackendView {
        self.roster.load().get(id).unwrap_or(&self.forgotten).view(now)
    }

    /// The current state of the fleet, for one decision.
    #[must_use]
    pub fn views(&self, now: Instant) -> SmallVec<[BackendView; 8]> {
        self.roster.load().members().iter().map(|backend| backend.view(now)).collect()
    }

    /// The backends that may still run a prompt that waits: their operator lets them, and they are
    /// up, or were so within this grace.
    #[must_use]
    pub fn may_run(&self, grace: Duration, now: Instant) -> SmallVec<[BackendId; 8]> {
        let roster = self.roster.load();
        let may = roster.members().iter().filter(|backend| {
            let down_for = backend.down_for(now);
            backend.admin() == AdminState::Ready && down_for.is_none_or(|time| time < grace)
        });
        may.map(|backend| backend.id).collect()
    }

    /// The name of a backend; ours for what is at none.
    #[must_use]
    pub fn name_of(&self, backend: Option<BackendId>) -> Arc<str> {
        backend.map_or_else(|| Arc::from("Mooring"), |backend| self.get(backend).name())
    }

    /// Work has found no backend that takes any.
    pub fn missed(&self, at: Instant) {
        let after = at.saturating_duration_since(self.began).as_millis();
        self.missed.store(u64::try_from(after).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    /// When that last happened.
    #[must_use]
    pub fn missed_at(&self) -> Option<Instant> {
        let after = self.missed.load(Ordering::Relaxed).checked_sub(1)?;
        self.began.checked_add(Duration::from_millis(after))
    }

    /// The number of placements, so that equal backends are chosen in turn.
    #[must_use]
    pub fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// A placement was made.
    pub fn take_turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }
}
