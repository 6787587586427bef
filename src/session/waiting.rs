//! The index of prompts that wait in the gateway: their bodies, and the queue that says which is
//! next.
//!
//! The clients' maps of pending prompts are the truth, and this is an index of them: what it says
//! is to be handed over is asked of its client first. It has one lock, a leaf that is held for one
//! call and may be taken under a client's lock, so that it follows each transition.
//!
//! # Invariants
//!
//! - A prompt that waits in its client's map has an entry with its body, and is in the queue.
//! - An entry is removed when its prompt has ended or was withdrawn.

mod bytes;
mod catalogue;
mod chosen;
mod doubts;
mod follow;
mod forecast;
mod full;
mod known;
mod lists;
mod needs;
mod numbers;
mod places;
mod setbacks;
mod shown;
mod transitions;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use self::bytes::Bytes;
use self::catalogue::Catalogue;
pub use self::catalogue::Wants;
use crate::comfy::lists::waiting::Parts;
use crate::comfy::needs::Needs;
use crate::config::QueueConfig;
use crate::journal::record::Kept;
use crate::lock::{Guard, Lock, rank};
use crate::net::now;
pub use crate::queue::fleet::Serving;
use crate::queue::ids::{Class, PromptKey, ShapeId};
use crate::queue::schedule::Why;
use crate::queue::settings::Settings;
use crate::queue::{Aside, Queue, Spent, Submission};
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::owners::Person;
use crate::routing::placement::BackendView;
use doubts::Doubt;
use forecast::Forecasts;
pub use forecast::{Ahead, InLine};
pub use full::Full;
use known::Keys;
pub use lists::{Shown, WaitingNow};
use needs::Knowledge;
pub use numbers::Front;
pub use places::Place;
pub use setbacks::{all_refuse, rest_after};
pub use shown::MayShow;

/// A prompt that is to be handed over now.
#[derive(Clone, Debug)]
pub struct Due {
    pub prompt: PromptId,
    pub client: ClientId,
    pub backend: BackendId,
    pub why: Why,
}

/// What is to be done now.
#[derive(Debug, Default)]
pub struct DueNow {
    pub hand_over: Vec<Due>,
    /// After how long to look again, if nothing happens before.
    pub look_again: Option<Duration>,
}

/// All prompts that wait.
#[derive(Debug)]
pub struct Waiting {
    index: Lock<Index, { rank::QUEUE }>,
    /// False until the first prompt waits: nothing has to be told to the index then.
    is_used: AtomicBool,
    changed: Notify,
    /// For all who wait until a prompt is somewhere else.
    moved: Notify,
    limits: QueueConfig,
    began: Instant,
    /// What backends have.
    catalogue: ArcSwap<Catalogue>,
    forecasts: Forecasts,
}

#[derive(Debug)]
struct Index {
    queue: Queue,
    prompts: HashMap<PromptId, Entry>,
    ids: HashMap<PromptKey, PromptId>,
    clients: Keys<ClientId>,
    sharers: Keys<Option<Person>>,
    members: Keys<Option<Person>>,
    fleet: HashMap<BackendId, Serving>,
    /// How often a backend has joined, turned up anew or left.
    fleet_changes: u64,
    /// Prompts that a backend has refused because it lacks a part of them.
    refused: HashMap<PromptId, Refused>,
    /// The prompt that ran at a backend when its process last closed a link to us, and when.
    ran: HashMap<BackendId, (PromptId, Instant)>,
    /// Prompts that may be at a backend still.
    doubts: HashMap<BackendId, Vec<Doubt>>,
    /// Backends that turn prompts away without a word about them.
    turned_away: HashMap<BackendId, TurnedAway>,
    /// The prompt of a client that was chosen and that no backend has accepted yet. Its next one
    /// follows then: it must not overtake it on the way.
    on_the_way: HashMap<ClientId, PromptId>,
    knowledge: Knowledge,
    /// How many are shown to each backend. They take no place there.
    shown_at: HashMap<BackendId, u32>,
    next_key: u64,
    /// How many submissions were numbered.
    numbered: u64,
    /// How many were shown to a backend.
    shown: u64,
    bytes: Bytes<Option<Person>>,
    /// When it was last looked for what has waited too long.
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    key: PromptKey,
    client: ClientId,
    /// Whose share and limit it counts against: a browser's cookie costs nothing, its address
    /// does.
    payer: Option<Person>,
    /// Who has turns within that share.
    sharer: Option<Person>,
    number: f64,
    /// `None` when it has begun.
    kept: Option<Arc<Kept>>,
    /// A backend has accepted it: its body does not count, because it does not wait.
    is_taken: bool,
    /// What lists of queues show of its body.
    shown: Arc<Parts>,
    /// Backends that certainly do not have it and are not tried again for the moment.
    tried: SmallVec<[BackendId; 2]>,
    /// How often it could not be sent.
    failed: u32,
    /// How often that was because a file could not be brought.
    lacked_a_file: u32,
    /// It is not handed over for a while, because it could not be sent.
    rests: bool,
    /// It is not handed over, because it is shown to this backend.
    shown_at: Option<BackendId>,
    /// It is not handed over before it is noted for the journal.
    is_new: bool,
    /// It has no room in the queue, and is here because a backend has room for it.
    is_too_much: Option<Full>,
    since: Instant,
    needs: Arc<Needs>,
    shape: Option<ShapeId>,
    /// Those have refused it that should have all it needs.
    is_doubted: bool,
}

impl Entry {
    fn aside(&self) -> Aside {
        if self.rests || self.shown_at.is_some() || self.is_new { Aside::Yes } else { Aside::No }
    }
}

impl Waiting {
    #[must_use]
    pub fn new(limits: QueueConfig) -> Self {
        // What waited before a restart is handed over, also if nothing new waits: at once then, as
        // everything is with a depth of 0.
        let (depth, lead) = match u32::try_from(limits.depth) {
            Ok(0) => (FULL / 2, Duration::from_secs(1 << 30)),
            Ok(depth) => (depth.min(FULL / 2), limits.lead),
            Err(_) => (FULL / 2, limits.lead),
        };
        let settings = Settings {
            depth,
            lead,
            spread: 1,
            window: limits.warm_window,
            waiting_max: limits.max,
            waiting_max_of_one: limits.max_per_sharer,
            ..Settings::default()
        };
        let index = Index {
            queue: Queue::new(settings),
            prompts: HashMap::new(),
            ids: HashMap::new(),
            clients: Keys::default(),
            sharers: Keys::default(),
            members: Keys::default(),
            fleet: HashMap::new(),
            fleet_changes: 0,
            refused: HashMap::new(),
            ran: HashMap::new(),
            doubts: HashMap::new(),
            turned_away: HashMap::new(),
            on_the_way: HashMap::new(),
            knowledge: Knowledge::default(),
            shown_at: HashMap::new(),
            next_key: 0,
            numbered: 0,
            shown: 0,
            bytes: Bytes::default(),
            looked: None,
        };
        Self {
            index: Lock::new(index),
            is_used: AtomicBool::new(false),
            changed: Notify::new(),
            moved: Notify::new(),
            limits,
            began: now(),
            catalogue: ArcSwap::default(),
            forecasts: Forecasts::default(),
        }
    }

    /// True if a prompt has waited in this process.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// Something has changed: the scheduler looks again.
    pub fn wake(&self) {
        self.changed.notify_one();
        self.moved.notify_waiters();
    }

    /// Completes when something changes after this call.
    pub fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// Waits until something has changed. Cancel safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is needed to send a prompt; `None` if it never waited, or has begun.
    #[must_use]
    pub fn kept(&self, prompt: &PromptId) -> Option<Arc<Kept>> {
        self.is_used().then(|| self.index().prompts.get(prompt)?.kept.clone()).flatten()
    }

    /// How often a backend has joined, turned up anew or left: what was known to be valid before
    /// may not be any more.
    #[must_use]
    pub fn fleet_changes(&self) -> u64 {
        self.index().fleet_changes
    }

    /// The backends that certainly do not have the prompt and that it is not sent to again.
    #[must_use]
    pub fn tried(&self, prompt: &PromptId) -> SmallVec<[BackendId; 2]> {
        self.index().prompts.get(prompt).map(|it| it.tried.clone()).unwrap_or_default()
    }

    /// True while the prompt waits and was not chosen.
    #[must_use]
    pub fn has_waiting(&self, prompt: &PromptId) -> bool {
        let index = self.index();
        index.prompts.get(prompt).is_some_and(|it| index.queue.has_waiting(it.key))
    }

    /// Why the prompt may not wait, if it was let in to be handed over at once and was not.
    #[must_use]
    pub fn is_too_much(&self, prompt: &PromptId) -> Option<Full> {
        let index = self.index();
        let entry = index.prompts.get(prompt)?;
        entry.is_too_much.filter(|_| index.queue.has_waiting(entry.key))
    }

    /// The prompts that have waited for longer than they may, with their clients.
    #[must_use]
    pub fn overdue(&self) -> Vec<(PromptId, ClientId)> {
        let (max, now) = (self.limits.max_wait, now());
        if max.is_zero() {
            return Vec::new();
        }
        let mut index = self.index();
        // All are looked at, and this is asked for with each submission and each end.
        let is_soon = |looked: Instant| now.saturating_duration_since(looked) < OVERDUE_EACH;
        if index.looked.is_some_and(is_soon) {
            return Vec::new();
        }
        index.looked = Some(now);
        let is_overdue = |it: &Entry| {
            max <= now.saturating_duration_since(it.since) && index.queue.has_waiting(it.key)
        };
        let overdue = index.prompts.iter().filter(|(_, it)| is_overdue(it));
        overdue.map(|(prompt, it)| (prompt.clone(), it.client.clone())).collect()
    }

    /// Which prompts are to be handed over now. They count as being at their backends from now on.
    /// `may_run`: the backends that may still run what waits.
    #[must_use]
    pub fn due(&self, fleet: &[BackendView], may_run: &[BackendId]) -> DueNow {
        if !self.is_used() {
            return DueNow::default();
        }
        let at = self.at(now());
        let mut index = self.index();
        index.follow(fleet, at);
        index.may_run(may_run, at);
        let turn = index.queue.schedule(at);
        let chosen = turn.hand_over.into_iter();
        let hand_over = chosen.filter_map(|it| index.chosen(&it, at)).collect();
        let is_waiting = index.queue.waiting() != 0;
        let again = turn.look_again.map(|again| again.saturating_sub(at));
        let look_again = is_waiting.then(|| again.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN));
        DueNow { hand_over, look_again }
    }

    fn at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn index(&self) -> Guard<'_, Index, { rank::QUEUE }> {
        self.index.lock()
    }
}

/// How long at most until the backends are looked at again while prompts wait: what they report of
/// others' prompts and of their health wakes nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How often it is looked for what has waited too long.
const OVERDUE_EACH: Duration = Duration::from_secs(1);

/// As many prompts as a backend never has.
const FULL: u32 = u32::MAX / 2;

/// Which backends refuse a prompt, and what the last of them said.
#[derive(Clone, Debug)]
struct Refused {
    by: SmallVec<[BackendId; 2]>,
    why: Arc<str>,
}

/// A backend that turns prompts away.
#[derive(Clone, Copy, Debug, Default)]
struct TurnedAway {
    times: u32,
    /// It is given nothing before this.
    until: Duration,
}
