//! Applies the effects of transitions of the core. Nothing else does.
//!
//! A [`Turn`] holds a client's lock and is the only way to make a transition: the effects of each
//! are applied before the next can be made. Effects on the client's own state (event log, sockets,
//! link) and on counters are applied at once, under the lock. Effects that need locks shared by all
//! clients are applied after the client's lock is released, in the order in which they happened,
//! before the turn is over.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::debug;

use super::completion::Completion;
use super::ends::Untold;
use super::submissions::Remembered;
use super::{Client, Sessions, State, control};
use crate::journal::record::{BodyRecord, Told};
use crate::limits::Counted;
use crate::lock::{Guard, rank};
use crate::masked::mask;
use crate::metrics::EndedPrompt;
use crate::net::now;
use crate::queue::{BoundAt, Spent};
use crate::routing::client as core;
use crate::routing::decision::Reason;
use crate::routing::effects::{Effects, QueueNews, Rebound, Step, Submission, Waits};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::Errand;
use crate::ws::Frame;

/// The core of a client. Anybody can read it, but only a [`Turn`] can change it.
#[derive(Debug)]
pub(super) struct Core(core::Client);

impl Core {
    pub(super) fn new(core: core::Client) -> Self {
        Self(core)
    }
}

impl Deref for Core {
    type Target = core::Client;

    fn deref(&self) -> &core::Client {
        &self.0
    }
}

/// A client under its lock.
pub(super) struct Turn<'a> {
    // Dropped first: the lock is released when the rest is applied.
    state: Guard<'a, State, { rank::CLIENT }>,
    later: Later<'a>,
}

/// Additional data for applying a transition.
pub(super) enum Brought {
    Nothing,
    /// What its backend still knows of a prompt, as events.
    History(Option<Vec<Frame>>),
    /// What the submission contained about its prompt.
    Submission(Remembered),
}

/// An action for after the lock is released.
pub(super) enum After {
    /// A prompt has ended: updates the counters, the ledger, the journal and the log, and then
    /// wakes the tasks that wait for the end.
    Ended { prompt: PromptId, counts: EndedPrompt, told: Told, waits: Option<Arc<Completion>> },
    /// A prompt ran for so long: counts it.
    Ran { payer: Counted, ran: Duration },
    /// A submission goes to a backend: updates the ledger and the journal.
    Placed { prompt: PromptId, on: BackendId, output_nodes: Vec<String> },
    /// An end that its client is told when it is durable.
    Tell(Untold),
    /// No backend has a submission: removes it from the ledger and the journal.
    Withdrawn { prompt: PromptId },
    /// The body of a prompt that has waited is not needed any more.
    Unkept { prompt: PromptId },
    /// Tells the reconciler about the client.
    Begun,
    /// Has the backends stop these prompts, because nobody wants them any more.
    Stop(Vec<(PromptId, BackendId)>),
    /// A prompt appeared after its client was told that it was not queued.
    TurnedUp { prompt: PromptId, on: BackendId },
}

struct Later<'a> {
    client: &'a Arc<Client>,
    sessions: &'a Arc<Sessions>,
    all: Vec<After>,
}

impl Client {
    /// Takes the client's lock, for transitions of its core.
    #[cfg_attr(debug_assertions, track_caller)]
    pub(super) fn turn<'a>(self: &'a Arc<Self>, sessions: &'a Arc<Sessions>) -> Turn<'a> {
        let later = Later { client: self, sessions, all: Vec::new() };
        Turn { state: self.state(), later }
    }
}

impl Deref for Turn<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl State {
    fn output_nodes(&self, prompt: &PromptId) -> Vec<String> {
        let remembered = self.remembered.get(prompt);
        remembered.map(|it| it.output_nodes.clone()).unwrap_or_default()
    }
}

impl<'a> Turn<'a> {
    pub(super) fn client(&self) -> &'a Arc<Client> {
        self.later.client
    }

    pub(super) fn sessions(&self) -> &'a Arc<Sessions> {
        self.later.sessions
    }

    /// Makes a transition and applies its effects.
    pub(super) fn act<T>(&mut self, transition: impl FnOnce(&mut core::Client) -> Step<T>) -> T {
        self.act_with(Brought::Nothing, transition)
    }

    /// The same, with additional data.
    pub(super) fn act_with<T>(
        &mut self,
        brought: Brought,
        transition: impl FnOnce(&mut core::Client) -> Step<T>,
    ) -> T {
        let (outcome, effects) = transition(&mut self.state.core.0).split();
        if let Some(reason) = effects.only_routed() {
            self.later.sessions.shared.metrics.placed(reason);
        } else if !effects.is_nothing() {
            self.apply(effects, brought);
        }
        outcome
    }

    /// Queues an action for after the lock is released.
    pub(super) fn later(&mut self, after: After) {
        self.later.all.push(after);
    }

    fn apply(&mut self, effects: Effects, brought: Brought) {
        let Effects { ended, submission, binding, routed, queue, freed, .. } = effects;
        let Effects { tells_count, has_begun, asks, .. } = effects;
        self.rebound(binding, routed);
        let (history, remembered) = match brought {
            Brought::Nothing => (None, None),
            Brought::History(history) => (history, None),
            Brought::Submission(remembered) => (None, Some(remembered)),
        };
        if let Some(submission) = submission {
            self.submitted(submission, remembered);
        }
        self.ended(ended, history);
        if let Some(backend) = freed {
            self.later.sessions.shared.fleet.get(backend).load.ended(now());
        }
        if self.later.sessions.waiting.is_used() {
            self.tell_queue(queue);
        }
        if tells_count {
            self.state.say_status(self.later.client, &self.later.sessions.shared);
        }
        if has_begun {
            self.later.client.is_active.store(true, Ordering::Relaxed);
            self.later(After::Begun);
        }
        if asks {
            self.later.sessions.reconcile_soon();
        }
    }

    /// Tells the queue of prompts that wait what it has to know.
    fn tell_queue(&self, news: Option<QueueNews>) {
        let sessions = self.later.sessions;
        match news {
            None | Some(QueueNews::Uploads) => {}
            Some(QueueNews::Accepted(prompt)) => {
                sessions.accepted(&prompt, &self.state.output_nodes(&prompt));
            }
            Some(QueueNews::Began(prompt)) => sessions.began(&prompt),
        }
        let bound = self.state.core.bound().map(|(backend, _)| backend);
        let bound = BoundAt { bound, held: self.state.core.held_at() };
        sessions.waiting.holds(&self.later.client.id, bound);
    }

    /// Applies the change of a binding, if there is one, and the reason of the routing, if there is
    /// one.
    fn rebound(&mut self, binding: Rebound, routed: Option<Reason>) {
        let Later { client, sessions, .. } = self.later;
        let shared = &sessions.shared;
        if let Some(reason) = routed {
            shared.metrics.placed(reason);
        }
        let (from, to) = match binding {
            Rebound::No => return,
            Rebound::Reserved => return shared.records.note_binding(&client.id, &self.core),
            Rebound::Moved { from, to } => (from, to),
        };
        // Under the lock: the next client with this name must be noted after this.
        shared.records.note_binding(&client.id, &self.core);
        let [from, to] = [from, to].map(|id| id.map(|id| shared.fleet.get(id)));
        if let Some(left) = &from {
            left.client_left();
        }
        match &to {
            Some(backend) => backend.client_came(),
            None => self.state.let_go_of_link(),
        }
        if let (Some(reason), Some(backend)) = (routed, to) {
            shared.fleet.take_turn();
            let left = from.map(|backend| backend.name());
            let (name, left) = (backend.name(), left.as_deref());
            let backend = &*name;
            let placement = reason.as_str();
            // DEBUG, because clients that only look are placed as well.
            debug!(client = %mask(&client.id), backend, left, placement, "Client placed.");
        }
    }

    fn submitted(&mut self, submission: Submission, remembered: Option<Remembered>) {
        let state = &mut *self.state;
        let after = match submission {
            Submission::Placed { prompt, on } => {
                state.tombstones.forget(&prompt);
                state.holdback.get().expect(&prompt);
                // The ledger may have forgotten an older prompt with this id that is still in the
                // log.
                state.log.withdraw(&prompt);
                let remembered = remembered.unwrap_or_default();
                let output_nodes = remembered.output_nodes.clone();
                state.remembered.insert(prompt.clone(), remembered);
                After::Placed { prompt, on, output_nodes }
            }
            Submission::Waits { prompt, how: Waits::New } => {
                state.tombstones.forget(&prompt);
                state.holdback.get().expect(&prompt);
                state.log.withdraw(&prompt);
                state.remembered.insert(prompt.clone(), remembered.unwrap_or_default());
                let sessions = self.later.sessions;
                if let Some(kept) = sessions.waiting.kept(&prompt) {
                    let journal = &sessions.shared.records.journal;
                    journal.note_body(&prompt, || BodyRecord::new(&kept));
                }
                self.waits(&prompt);
                return sessions.waiting.entered(&prompt);
            }
            Submission::Waits { prompt, how: Waits::Again } => {
                state.missed.remove(&prompt);
                self.waits(&prompt);
                return self.later.sessions.waiting.again(&prompt);
            }
            Submission::HandedOver { prompt, to, errand } => {
                let output_nodes = state.output_nodes(&prompt);
                let records = &self.later.sessions.shared.records;
                // Under the lock, as all that is noted of a prompt that waits or has waited: the
                // last note says where it is.
                return records.prompt_handed_over(&prompt, (to, errand), &output_nodes);
            }
            Submission::ComesBack { prompt, from } => {
                let output_nodes = state.output_nodes(&prompt);
                let records = &self.later.sessions.shared.records;
                return records.prompt_handed_over(&prompt, (from, Errand::Trial), &output_nodes);
            }
            Submission::Moved { prompt, to } => {
                // Events that a broken link missed came from a backend that never got this prompt.
                state.missed.remove(&prompt);
                let output_nodes = state.output_nodes(&prompt);
                After::Placed { prompt, on: to, output_nodes }
            }
            Submission::Withdrawn { prompt } => {
                state.log.withdraw(&prompt);
                state.remembered.remove(&prompt);
                state.missed.remove(&prompt);
                // Right before: a prompt that gets this id next has a body of its own.
                self.later.all.extend(self.later.sessions.leaves_queue(&prompt, Spent::Broke));
                After::Withdrawn { prompt }
            }
        };
        self.later(after);
    }

    /// A prompt waits: it is in the ledger and the journal before it may be handed over.
    fn waits(&self, prompt: &PromptId) {
        let Later { sessions, .. } = self.later;
        let records = &sessions.shared.records;
        records.prompt_waits(prompt, &self.state.output_nodes(prompt));
    }
}

impl Drop for Later<'_> {
    fn drop(&mut self) {
        for after in std::mem::take(&mut self.all) {
            self.act(after);
        }
    }
}

impl Later<'_> {
    fn act(&self, after: After) {
        let Self { client, sessions, .. } = *self;
        let records = &sessions.shared.records;
        match after {
            After::Ended { prompt, counts, told, waits } => {
                let end = counts.end;
                sessions.shared.metrics.prompt_ended(&counts);
                records.prompt_ended(&prompt, end, told);
                if let Some(completion) = waits {
                    completion.set(end);
                }
            }
            After::Ran { payer, ran } => {
                let millis = u64::try_from(ran.as_millis()).unwrap_or(u64::MAX);
                sessions.gpu_millis.use_up(payer, millis, now());
            }
            After::Placed { prompt, on, output_nodes } => {
                records.prompt_placed(&prompt, on, &output_nodes);
            }
            After::Tell(untold) => client.tell_when_durable(sessions, untold),
            After::Withdrawn { prompt } => records.prompt_withdrawn(&prompt),
            After::Unkept { prompt } => records.journal.forget_body(&prompt),
            After::Begun => sessions.clients.has_work(client),
            After::Stop(prompts) => control::stop_all(sessions, prompts),
            After::TurnedUp { prompt, on } => {
                control::revoke(sessions, &sessions.shared.fleet.get(on), &prompt);
            }
        }
    }
}
