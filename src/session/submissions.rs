//! A client's submissions: pending before they are sent, placed elsewhere if they never were, and
//! without a trace if they were refused.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Sessions;
use super::disowned::Why;
use super::link::Link;
use super::{Client, Gone, State};
use crate::comfy::labels::Labels;
use crate::net::now;
use crate::routing::decision::{Decision, NotThere, Refusal};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::place::{BackendView, FleetNow};
use crate::shared::Shared;

/// Which backends have the files of a prompt already: all of them that there are anywhere.
#[derive(Clone, Debug, Default)]
pub struct Nearness {
    pub backends: SmallVec<[BackendId; 4]>,
    /// How much longer their queues may be for that, in prompts.
    pub margin: u32,
}

impl Nearness {
    pub(super) fn mark(&self, views: &mut [BackendView]) {
        let near = views.iter_mut().filter(|view| self.backends.contains(&view.id));
        near.for_each(|view| view.head_start = Some(self.margin));
    }
}

/// A client's sockets of node packs make their backends the nearer ones, by a margin: what it does
/// there would not move with it.
pub(super) fn mark_tunnels(client: &Client, sessions: &Sessions, views: &mut [BackendView]) {
    let margin = u32::try_from(sessions.shared.config.affinity.tunnel_margin).unwrap_or(u32::MAX);
    for backend in sessions.tunnels.backends_of(&client.id) {
        if let Some(view) = views.get_mut(backend.index()) {
            view.head_start = view.head_start.max(Some(margin));
        }
    }
}

/// What its client's events and words are made with, should they be made here.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    pub output_nodes: Vec<String>,
    /// What its nodes are called, for the day when its server dies.
    pub labels: Labels,
}

impl Client {
    /// A prompt is about to be sent: pending from here on, and its link is on its way.
    ///
    /// # Errors
    /// As for [`Client::contact`]; nothing is pending then.
    pub fn submit(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        prompt: &PromptId,
        told: Remembered,
        near: &Nearness,
    ) -> Result<Result<(Decision, Arc<Link>), Refusal>, Gone> {
        let max = sessions.shared.config.prompts.max_pending_per_client;
        // One step: a reset in between would end the prompt and leave its link to be dialled.
        let submit = |state: &mut State, fleet: FleetNow<'_>, now| {
            let decision = state.core.submit(prompt.clone(), max, fleet, now)?;
            state.disowned.forget(prompt);
            state.early.expect(prompt);
            // The ledger may have forgotten an older prompt of this id before the log has.
            state.log.withdraw(prompt);
            sessions.shared.fleet.get(decision.backend).load.expect_one();
            if !told.output_nodes.is_empty() {
                state.output_nodes.insert(prompt.clone(), told.output_nodes);
            }
            state.labels.insert(prompt.clone(), told.labels);
            state.say_status(self, &sessions.shared);
            let link = self.ensure_link(state, sessions, decision.backend);
            Ok((decision, link))
        };
        let decided = self.decide(sessions, near, submit)?;
        if let Ok((decision, _)) = &decided {
            sessions.count(&self.id, *decision);
            sessions.clients.has_work(self);
        }
        Ok(decided)
    }

    /// The prompt is provably not where it was to go: places it anew, on none of the backends that
    /// were tried, if nothing else of this client is pending or waits where it was (P2).
    pub fn submit_elsewhere(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        prompt: &PromptId,
        (why, tried): (NotThere, &[BackendId]),
        near: &Nearness,
    ) -> Option<(Decision, Arc<Link>)> {
        let now = now();
        let mut views = sessions.shared.fleet.views(now);
        near.mark(&mut views);
        views.iter_mut().for_each(|view| view.up &= !tried.contains(&view.id));
        let fleet = FleetNow { backends: &views, turn: sessions.shared.fleet.turn() };
        let mut state = self.state();
        let left = state.core.bound()?.0;
        let decision = state.core.submit_elsewhere(prompt, why, fleet, now)?;
        // What a broken link missed was of the backend that it never reached.
        state.missed.remove(prompt);
        sessions.shared.fleet.get(left).load.not_taken();
        sessions.shared.fleet.get(decision.backend).load.expect_one();
        sessions.count(&self.id, decision);
        let link = self.ensure_link(&mut state, sessions, decision.backend);
        state.note(self, &sessions.shared);
        Some((decision, link))
    }

    /// What is pending on `backend` is left to the reconciler.
    pub fn must_ask(&self, backend: BackendId) {
        self.state().core.must_ask(backend);
    }

    /// The prompt is not where it was sent, and its client is told so. Should it turn up after
    /// all, it is stopped.
    pub fn disown(&self, prompt: &PromptId) {
        self.state().disowned.add(prompt, Why::NotQueued);
    }

    /// The prompt was refused, or never sent: it leaves no trace.
    pub fn withdraw(&self, shared: &Shared, prompt: &PromptId) {
        let mut state = self.state();
        state.core.withdraw(prompt);
        state.note(self, shared);
        state.log.withdraw(prompt);
        state.output_nodes.remove(prompt);
        state.labels.remove(prompt);
        state.missed.remove(prompt);
        state.say_status(self, shared);
    }

    /// The backend has taken the prompt. False if it is not pending any more.
    pub fn accepted(&self, prompt: &PromptId) -> bool {
        let mut state = self.state();
        state.core.accepted(prompt, now());
        state.core.pending().contains_key(prompt)
    }

    /// The client asks for a deletion.
    pub fn delete_asked(&self, prompt: &PromptId) {
        self.state().core.delete_asked(prompt);
    }

    /// The deletion was not done.
    pub fn delete_withdrawn(&self, prompt: &PromptId) {
        self.state().core.delete_withdrawn(prompt);
    }
}
