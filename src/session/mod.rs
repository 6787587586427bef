//! Clients, live. [`Sessions`] are all of them. Each is a [`Client`]: its binding and pending
//! prompts, its event log, its one link, its sockets.
//!
//! All of that is one state under one lock, because it must agree: for a socket that opens, replay
//! and live events meet at one position of the log. The lock is held only for plain calls, never
//! across an await. The core in it changes in only one way, and one place acts on its changes: see
//! `apply`.
//!
//! - [`link`]: the one socket to its backend
//! - [`event_log`]: events kept for replay (pure)
//! - [`budget`]: bytes of all event logs (pure)
//! - [`send_queue`]: what waits for one browser socket (pure)
//! - [`negotiation`]: the first frames of a new link
//! - [`keepalive`]: when something last arrived on it, and when it must be checked
//! - [`orphan`]: when a backend has forgotten a link (pure)
//! - [`link_events`]: what follows when the link opens, breaks or ends
//! - `apply`: acts on the effects of a transition of the core
//! - [`relay`]: an event on its way from the link to the log and the queues
//! - [`binary`]: binary frames
//! - [`file_names`]: the names of files in events
//! - [`submissions`]: prompts on their way to a backend
//! - [`completion`]: who waits for the end of a submission; its share of the load
//! - [`uploads`]: uploads on their way, and what they reserve
//! - [`synthesize`]: events that no backend sent
//! - [`notices`]: messages for pages whose backend is silent
//! - [`subscriber`]: a browser socket's place in the state
//! - [`socket`]: the task of a browser socket
//! - [`registry`]: all clients, and the sweep over them
//! - [`control`]: what an operator, or a client for itself, may do; [`interrupts`]
//! - [`adoption`]: prompts at the backends after a start without a journal
//! - [`reconcile`]: ends found by asking
//! - [`worker_health`]: whether the backends' workers live
//! - `on_demand`: parts of the state that most clients never need
//! - [`holdback`]: events that came before the answer to their submission (pure)
//! - [`tombstones`]: prompts whose events go to nobody any more (pure)
//! - [`release`]: a binding is released, safely or by force
//! - [`restored`]: a client restored after a restart

mod adopt;
pub mod adoption;
mod apply;
pub mod binary;
pub mod budget;
pub mod completion;
pub mod control;
mod discovered;
pub mod event_log;
pub mod file_names;
pub mod holdback;
pub mod interrupts;
pub mod keepalive;
pub mod link;
mod link_end;
pub mod link_events;
pub mod membership;
pub mod negotiation;
pub mod notices;
mod on_demand;
pub mod orphan;
pub mod reconcile;
mod recover;
pub mod registry;
pub mod relay;
pub mod release;
pub mod restored;
pub mod send_queue;
mod sessions;
pub mod socket;
pub mod submissions;
pub mod subscriber;
mod sweep;
pub mod synthesize;
pub mod tombstones;
pub mod uploads;
pub mod worker_health;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::comfy::messages;
use crate::fleet::dial_limiter::Haste;
use crate::journal::record::Told;
use crate::journal::restore::Undelivered;
use crate::lock::{Guard, Lock, rank};
use crate::net::now;
use crate::routing::client as core;
use crate::routing::decision::{Decision, Refusal};
use crate::routing::effects::Step;
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::pending::Pending;
use crate::routing::placement::{BackendView, FleetNow};
use crate::shared::Shared;
use crate::ws::Frame;
use apply::{Core, Turn};
use budget::LogBudget;
use event_log::EventLog;
use holdback::Holdback;
use link::Link;
use notices::Notice;
use on_demand::OnDemand;
pub use sessions::Sessions;
use submissions::{Nearness, Remembered};
use subscriber::Subscriber;
use tombstones::Tombstones;

/// How long after an end its history entry may be missing. ComfyUI needs milliseconds.
const HISTORY_LAG: Duration = Duration::from_secs(5);

/// One client, shared by its sockets, its link and its requests.
#[derive(Debug)]
pub struct Client {
    pub id: ClientId,
    /// It may have a socket, a link or work: the sweep looks at it each time. Set under the lock.
    is_active: AtomicBool,
    state: Lock<State, { rank::CLIENT }>,
}

#[derive(Debug)]
struct State {
    core: Core,
    log: EventLog,
    sockets: Vec<Subscriber>,
    next_socket: u64,
    /// The link to the bound backend, if it has one.
    link: Option<Arc<Link>>,
    /// Links that were asked to close and have not ended.
    closing: Vec<Arc<Link>>,
    /// It subscribed to the backend's log, so each new link must subscribe again.
    wants_logs: bool,
    /// What the submissions of pending prompts said of them.
    remembered: BTreeMap<PromptId, Remembered>,
    /// What its pages were told is wrong with their backend.
    noticed: Option<Notice>,
    /// What came before the answer to its submission.
    holdback: OnDemand<Holdback>,
    /// Prompts that were answered or told to be nowhere: what is said of them is nobody's.
    tombstones: Tombstones,
    /// The prompt that is known to run on the link's backend at this moment: what that says of no
    /// prompt in particular is said of this one, or is another client's (promise S12).
    runs: Option<PromptId>,
    /// `executing` without a prompt, from a backend that works on one whose start was not heard.
    unclaimed: Option<Frame>,
    /// Pending prompts of which events may be lost: their ends are told with their history.
    missed: MissedPrompts,
    /// Ends from before a restart, to be fetched and told again.
    undelivered: Vec<Undelivered>,
    /// A release or reset took it out of the registry; whoever still holds it starts over.
    is_gone: bool,
}

/// Prompts of which events may be lost.
pub type MissedPrompts = BTreeMap<PromptId, Missed>;

/// What is to come of a prompt of which events were missed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missed {
    /// More events, perhaps.
    GoesOn,
    /// Nothing: its last word was heard, and is held back until its history is there.
    IsOver,
}

/// A decision of the core, or its refusal.
type Decided = Result<Decision, Refusal>;

/// The client was forgotten between look-up and use; look it up again.
#[derive(Clone, Copy, Debug)]
pub struct Gone;

impl Client {
    #[must_use]
    pub fn new(id: ClientId, logs: &LogBudget, now: Instant) -> Self {
        Self::with_core(id, logs, core::Client::new(now))
    }

    fn with_core(id: ClientId, logs: &LogBudget, core: core::Client) -> Self {
        let state = State {
            core: Core::new(core),
            log: EventLog::new(logs),
            sockets: Vec::new(),
            next_socket: 0,
            link: None,
            closing: Vec::new(),
            wants_logs: false,
            remembered: BTreeMap::new(),
            noticed: None,
            holdback: OnDemand::default(),
            tombstones: Tombstones::default(),
            runs: None,
            unclaimed: None,
            missed: BTreeMap::new(),
            undelivered: Vec::new(),
            is_gone: false,
        };
        Self { id, is_active: AtomicBool::new(true), state: Lock::new(state) }
    }

    /// A read of this client's: where it goes.
    ///
    /// # Errors
    /// [`Gone`] if it was forgotten meanwhile; else what [`core::Client::contact`] says.
    pub fn contact(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        now: Instant,
    ) -> Result<Decided, Gone> {
        let mut turn = self.turn(sessions);
        if turn.is_gone {
            return Err(Gone);
        }
        let own = turn.core.bound().map(|(backend, _)| sessions.shared.fleet.view(backend, now));
        // Most reads stay where they are, and need no look at the whole fleet.
        if let Some(decided) = turn.act(|core| core.contact_in_place(own.as_ref(), now)) {
            return Ok(decided);
        }
        let views = self.views(sessions, &Nearness::default(), now);
        let fleet = FleetNow { backends: &views, turn: sessions.shared.fleet.turn() };
        Ok(turn.act(|core| core.contact(fleet, now)))
    }

    /// The prompts that are pending, in the order of submission.
    #[must_use]
    pub fn pending(&self) -> Vec<(PromptId, Pending)> {
        let state = self.state();
        state.core.pending().iter().map(|(id, pending)| (id.clone(), pending.clone())).collect()
    }

    /// True if the prompt's end was told just now: ComfyUI writes its history a moment after.
    #[must_use]
    pub fn history_is_due(&self, prompt: &PromptId) -> bool {
        self.state().log.ended_within(prompt.as_str(), HISTORY_LAG, now())
    }

    /// Remembers whether it wants the backend's log lines.
    pub fn wants_logs(&self, wanted: Wanted) {
        self.state().wants_logs = wanted == Wanted::Yes;
    }

    /// The link to the backend that it is bound to now, dialled if it is not. Whoever decided a
    /// moment ago may have been overtaken: a link that a prompt waits for must not be closed.
    pub fn linked(self: &Arc<Self>, sessions: &Arc<Sessions>, haste: Haste) -> Option<Arc<Link>> {
        let mut state = self.state();
        let (backend, _) = state.core.bound().filter(|_| !state.is_gone)?;
        Some(self.ensure_link(&mut state, sessions, (backend, haste)))
    }

    /// True if the reconciler has to look at it.
    #[must_use]
    pub fn has_prompts_to_ask_about(&self) -> bool {
        let state = self.state();
        !state.core.pending().is_empty() || !state.undelivered.is_empty()
    }

    /// Looks at the plain facts of this client, for whoever reports them.
    pub fn inspect<T>(&self, look: impl FnOnce(&core::Client, Option<&Link>) -> T) -> T {
        let state = self.state();
        look(&state.core, state.link.as_deref())
    }

    /// The fleet as it is to this client, without a lock for each backend.
    fn views(
        &self,
        sessions: &Sessions,
        near: &Nearness,
        now: Instant,
    ) -> SmallVec<[BackendView; 8]> {
        let mut views = sessions.shared.fleet.views(now);
        near.mark(&mut views);
        submissions::mark_tunnels(self, sessions, &mut views);
        views
    }

    /// Decides under the lock, with the fleet as it is.
    fn decide<T>(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        near: &Nearness,
        decision: impl FnOnce(&mut Turn<'_>, FleetNow<'_>, Instant) -> Result<T, Refusal>,
    ) -> Result<Result<T, Refusal>, Gone> {
        let now = now();
        let views = self.views(sessions, near, now);
        let fleet = FleetNow { backends: &views, turn: sessions.shared.fleet.turn() };
        let mut turn = self.turn(sessions);
        if turn.is_gone { Err(Gone) } else { Ok(decision(&mut turn, fleet, now)) }
    }

    /// The same for a decision of the core alone.
    fn route(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        decision: impl FnOnce(&mut core::Client, FleetNow<'_>, Instant) -> Step<Decided>,
    ) -> Result<Decided, Gone> {
        self.decide(sessions, &Nearness::default(), |turn, fleet, now| {
            turn.act(|core| decision(core, fleet, now))
        })
    }

    /// The link to `backend`, dialled if need be. A link to another backend is closed: nothing
    /// is pending there, or the binding would not have moved.
    fn ensure_link(
        self: &Arc<Self>,
        state: &mut State,
        sessions: &Arc<Sessions>,
        (backend, haste): (BackendId, Haste),
    ) -> Arc<Link> {
        if let Some(link) = &state.link
            && link.backend == backend
        {
            return Arc::clone(link);
        }
        self.is_active.store(true, Ordering::Relaxed);
        state.let_go_of_link();
        let link = Link::new(backend, haste, sessions.shared.fleet.get(backend).child_token());
        // Never two with one id to the same backend at the same time (S1).
        let before =
            state.closing.iter().filter(|old| old.backend == backend).map(Arc::clone).collect();
        state.link = Some(Arc::clone(&link));
        let run = link::run(Arc::clone(sessions), Arc::clone(self), Arc::clone(&link), before);
        sessions.shared.tasks.spawn(run);
        link
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn state(&self) -> Guard<'_, State, { rank::CLIENT }> {
        self.state.lock()
    }
}

/// Whether something is wanted. Not a `bool`, so that a call says which.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    Yes,
    No,
}

impl State {
    fn let_go_of_link(&mut self) {
        if let Some(link) = self.link.take() {
            link.close();
            self.closing.push(link);
            self.unclaimed = None;
            self.runs = None;
        }
    }

    /// Whether a browser socket is there to be told of an end.
    fn told(&self) -> Told {
        if self.core.sockets() == 0 { Told::No } else { Told::Yes }
    }

    /// The number that a client sees as its queue: its own pending prompts (S10).
    fn queue_remaining(&self) -> u64 {
        self.core.pending().len() as u64
    }

    /// Tells the sockets how many prompts are pending, unless they are shown the backend's
    /// numbers.
    fn say_status(&mut self, client: &Client, shared: &Shared) {
        if shared.config().isolation.status == crate::config::StatusCounts::Own {
            let status = Frame::text(messages::status(self.queue_remaining(), None));
            self.push(client, send_queue::Class::Lasting, &status);
        }
    }
}
