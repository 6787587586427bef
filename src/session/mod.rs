//! The live state of all clients. [`Sessions`] holds all of them. Each is a [`Client`]: its binding
//! and pending prompts, its event log, its one link, its sockets.
//!
//! All of that is one state under one lock, because it must agree: for a new socket, replay and
//! live events meet at one position of the log. The lock is held only for plain calls, never across
//! an await. The core in it changes in only one way, and one place applies its effects: see
//! `apply`.
//!
//! - [`link`]: the one socket to its backend
//! - [`event_log`]: events kept for replay (pure)
//! - [`budget`]: bytes of all event logs (pure)
//! - [`send_queue`]: frames that wait for one browser socket (pure)
//! - [`negotiation`]: the first frames of a new link
//! - [`keepalive`]: when something last arrived on a link, and when it must be checked
//! - [`orphan`]: when a backend has forgotten a link (pure)
//! - [`link_events`]: what happens when the link opens, breaks or ends
//! - [`waiting`]: prompts that wait in the gateway; [`handing_over`]: how they go to backends
//! - `losses`: prompts whose backend's process has died
//! - `apply`: applies the effects of transitions of the core
//! - [`relay`]: passes an event from the link to the log and the queues
//! - [`binary`]: binary frames
//! - [`file_names`]: the names of files in events
//! - [`submissions`]: prompts on their way to a backend
//! - [`completion`]: reports the end of a submission; its share of the load
//! - [`uploads`]: uploads on their way, and what they reserve
//! - [`synthesize`]: events that no backend sent
//! - [`notices`]: messages for pages whose backend is silent; [`servers`]: what pages see of all
//! - [`subscriber`]: a browser socket in its client's state
//! - [`socket`]: the task of a browser socket
//! - [`registry`]: all clients by name
//! - [`control`]: operations of operators, and of clients on themselves; [`interrupts`]; [`cancel`]
//! - [`adoption`]: prompts at the backends after a start without a journal
//! - [`reconcile`]: finds ends by asking
//! - [`worker_health`]: whether the backends' workers are alive
//! - `on_demand`: parts of the state that most clients never need
//! - [`holdback`]: events that came before the answer to their submission (pure)
//! - [`tombstones`]: prompts whose events are dropped (pure)
//! - [`release`]: releases a binding, safely or by force
//! - [`doing`]: what running prompts do, for operators
//! - [`restored`]: a client restored after a restart

mod adopt;
pub mod adoption;
mod apply;
pub mod binary;
pub mod budget;
pub mod cancel;
pub mod completion;
pub mod control;
mod discovered;
pub mod doing;
mod ends;
pub mod event_log;
pub mod file_names;
pub mod handing_over;
pub mod holdback;
pub mod interrupts;
pub mod keepalive;
pub mod link;
mod link_end;
pub mod link_events;
mod losses;
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
pub mod servers;
mod sessions;
pub mod socket;
pub mod submissions;
pub mod subscriber;
mod sweep;
pub mod synthesize;
pub mod tombstones;
pub mod uploads;
pub mod waiting;
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
    /// It may have a socket, a link or work, so the sweep checks it each time. Set under the lock.
    is_active: AtomicBool,
    state: Lock<State, { rank::CLIENT }>,
}

#[derive(Debug)]
struct State {
    core: Core,
    log: EventLog,
    sockets: Vec<Subscriber>,
    next_socket: u64,
    /// The link to the bound backend, if there is one.
    link: Option<Arc<Link>>,
    /// Links that were asked to close and have not ended.
    closing: OnDemand<Vec<Arc<Link>>>,
    /// It subscribed to the backend's log, so each new link must subscribe again.
    wants_logs: bool,
    /// What the submissions of pending prompts contained about them.
    remembered: BTreeMap<PromptId, Remembered>,
    /// The problem of their backend that its pages were told.
    noticed: Option<Notice>,
    /// Events that came before the answer to their submission.
    holdback: OnDemand<Holdback>,
    /// Prompts that were answered or reported as absent: their events are dropped.
    tombstones: Tombstones,
    /// The prompt that is known to run on the link's backend now. Events from there without a
    /// prompt belong to this one, or to another client's (promise S12).
    runs: Option<PromptId>,
    /// `executing` without a prompt, from a backend that runs a prompt whose start was not
    /// received.
    unclaimed: Option<Frame>,
    /// Pending prompts with possibly lost events: their ends are sent with their history.
    missed: MissedPrompts,
    /// Ends from before a restart, which must be fetched and sent again.
    undelivered: OnDemand<Vec<Undelivered>>,
    /// A release or reset removed it from the registry; a caller that still holds it must look it
    /// up again.
    is_gone: bool,
}

/// Prompts with possibly lost events.
pub type MissedPrompts = BTreeMap<PromptId, Missed>;

/// What can still come for a prompt with missed events.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missed {
    /// Possibly more events.
    GoesOn,
    /// Nothing: its closing `executing` null was received, and is held back until its history is
    /// there.
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
            closing: OnDemand::default(),
            wants_logs: false,
            remembered: BTreeMap::new(),
            noticed: None,
            holdback: OnDemand::default(),
            tombstones: Tombstones::default(),
            runs: None,
            unclaimed: None,
            missed: BTreeMap::new(),
            undelivered: OnDemand::default(),
            is_gone: false,
        };
        Self { id, is_active: AtomicBool::new(true), state: Lock::new(state) }
    }

    /// Routes a read of this client.
    ///
    /// # Errors
    /// [`Gone`] if it was forgotten meanwhile; otherwise as for [`core::Client::contact`].
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
        // Most reads stay where they are, and need not consider the whole fleet.
        if let Some(decided) = turn.act(|core| core.contact_in_place(own.as_ref(), now)) {
            return Ok(decided);
        }
        let views = self.views(sessions, &Nearness::default(), now);
        let fleet = FleetNow { backends: &views, turn: sessions.shared.fleet.turn() };
        Ok(turn.act(|core| core.contact(fleet, now)))
    }

    /// The pending prompts, in the order of submission.
    #[must_use]
    pub fn pending(&self) -> Vec<(PromptId, Pending)> {
        let state = self.state();
        state.core.pending().iter().map(|(id, pending)| (id.clone(), pending.clone())).collect()
    }

    /// True if the prompt's end was relayed just now: ComfyUI writes its history a moment later.
    #[must_use]
    pub fn history_is_due(&self, prompt: &PromptId) -> bool {
        self.state().log.ended_within(prompt.as_str(), HISTORY_LAG, now())
    }

    /// Remembers whether it wants the backend's log lines.
    pub fn wants_logs(&self, wanted: Wanted) {
        self.state().wants_logs = wanted == Wanted::Yes;
    }

    /// The link to the currently bound backend, dialled if there is none. An earlier decision may
    /// be outdated: a link that a prompt waits for must not be closed because of it.
    pub fn linked(self: &Arc<Self>, sessions: &Arc<Sessions>, haste: Haste) -> Option<Arc<Link>> {
        let mut state = self.state();
        let (backend, _) = state.core.bound().filter(|_| !state.is_gone)?;
        Some(self.ensure_link(&mut state, sessions, (backend, haste)))
    }

    /// True if the reconciler has to ask about its prompts.
    #[must_use]
    pub fn has_prompts_to_ask_about(&self) -> bool {
        let state = self.state();
        let undelivered = state.undelivered.seen();
        !state.core.pending().is_empty() || undelivered.is_some_and(|it| !it.is_empty())
    }

    /// Calls `look` with the state of this client, for reports.
    pub fn inspect<T>(&self, look: impl FnOnce(&core::Client, Option<&Link>) -> T) -> T {
        let state = self.state();
        look(&state.core, state.link.as_deref())
    }

    /// The fleet as seen by this client, without a lock for each backend.
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

    /// Decides under the lock, with the current fleet.
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

    /// The same, for a decision of the core alone.
    fn route(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        decision: impl FnOnce(&mut core::Client, FleetNow<'_>, Instant) -> Step<Decided>,
    ) -> Result<Decided, Gone> {
        self.decide(sessions, &Nearness::default(), |turn, fleet, now| {
            turn.act(|core| decision(core, fleet, now))
        })
    }

    /// The link to `backend`, dialled if there is none. A link to another backend is closed:
    /// nothing is pending there, or the binding would not have moved.
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
        let closing = state.closing.seen().into_iter().flatten();
        let before = closing.filter(|old| old.backend == backend).map(Arc::clone).collect();
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
            self.closing.get().push(link);
            self.unclaimed = None;
            self.runs = None;
        }
    }

    /// Whether a browser socket is open and can be told of an end.
    fn told(&self) -> Told {
        if self.core.sockets() == 0 { Told::No } else { Told::Yes }
    }

    /// The number that a client sees as its queue: its own pending prompts (S10).
    fn queue_remaining(&self) -> u64 {
        self.core.pending().len() as u64
    }

    /// Sends the sockets the number of pending prompts, unless they are shown the backend's
    /// numbers.
    fn say_status(&mut self, client: &Client, shared: &Shared) {
        if shared.config().isolation.status == crate::config::StatusCounts::Own {
            let status = Frame::text(messages::status(self.queue_remaining(), None));
            self.push(client, send_queue::Class::Lasting, &status);
        }
    }
}
