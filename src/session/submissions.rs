//! A client's submissions: they are pending before they are sent, are placed elsewhere if they were
//! never sent, and leave no trace if they were refused.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Sessions;
use super::apply::{Brought, Turn};
use super::completion::{Completion, Expected};
use super::link::Link;
use super::tombstones::TombstoneReason;
use super::{Client, Gone};
use crate::comfy::labels::Labels;
use crate::fleet::dial_limiter::Haste;
use crate::net::now;
use crate::routing::decision::{Decision, NotThere, Refusal};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::placement::{BackendView, FleetNow};

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
    for backend in sessions.tunnels.backends_of(&client.id) {
        if let Some(view) = views.iter_mut().find(|view| view.id == backend) {
            let margin = sessions.shared.config().affinity.tunnel_margin;
            let margin = u32::try_from(margin).unwrap_or(u32::MAX);
            view.head_start = view.head_start.max(Some(margin));
        }
    }
}

/// A submission that has its place.
#[derive(Debug)]
pub struct Placed {
    pub decision: Decision,
    /// On its way, if it is not open.
    pub link: Arc<Link>,
    pub expected: Expected,
}

/// What is kept of a prompt while it is pending.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Nodes whose binary frames are outputs and not previews.
    pub(super) output_nodes: Vec<String>,
    /// What its nodes are called, for the day when its server dies.
    pub(super) labels: Labels,
    completion: Arc<Completion>,
}

impl Remembered {
    /// Of one that is about to be submitted.
    #[must_use]
    pub fn of(output_nodes: Vec<String>, labels: Labels) -> Self {
        Self { output_nodes, labels, completion: Arc::default() }
    }

    /// Says how it ended.
    #[must_use]
    pub fn completion(&self) -> Arc<Completion> {
        Arc::clone(&self.completion)
    }

    /// Of one that was submitted to another process than this one.
    pub(super) fn outputs(output_nodes: Vec<String>) -> Self {
        Self::of(output_nodes, Labels::default())
    }
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
    ) -> Result<Result<Placed, Refusal>, Gone> {
        let max = sessions.shared.config().prompts.max_pending_per_client;
        // One step: a reset in between would end the prompt and leave its link to be dialled.
        let brought = Brought::Submission(told);
        let submit = |turn: &mut Turn<'_>, fleet: FleetNow<'_>, now| {
            let prompt = prompt.clone();
            let decision = turn.act_with(brought, |core| core.submit(prompt, max, fleet, now))?;
            Ok(self.placed(turn, decision))
        };
        let decided = self.decide(sessions, near, submit)?;
        if matches!(decided, Err(Refusal::NoPlace(_))) {
            sessions.shared.fleet.missed(now());
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
    ) -> Option<Placed> {
        let now = now();
        let mut views = sessions.shared.fleet.views(now);
        near.mark(&mut views);
        views.iter_mut().for_each(|view| view.up &= !tried.contains(&view.id));
        let fleet = FleetNow { backends: &views, turn: sessions.shared.fleet.turn() };
        let mut turn = self.turn(sessions);
        let decision = turn.act(|core| core.submit_elsewhere(prompt, why, fleet, now))?;
        Some(self.placed(&mut turn, decision))
    }

    fn placed(self: &Arc<Self>, turn: &mut Turn<'_>, decision: Decision) -> Placed {
        let sessions = turn.sessions();
        let expected = Expected::on(sessions.shared.fleet.get(decision.backend));
        let link = self.ensure_link(turn, sessions, (decision.backend, Haste::First));
        Placed { decision, link, expected }
    }

    /// What is pending on `backend` is left to the reconciler.
    pub fn must_ask(self: &Arc<Self>, sessions: &Arc<Sessions>, backend: BackendId) {
        self.turn(sessions).act(|core| core.must_ask(backend));
    }

    /// The prompt is not where it was sent, and its client is told so. Should it turn up after
    /// all, it is stopped.
    pub fn disown(&self, prompt: &PromptId) {
        self.state().tombstones.add(prompt, TombstoneReason::NotQueued);
    }

    /// The prompt was refused, or never sent: it leaves no trace.
    pub fn withdraw(self: &Arc<Self>, sessions: &Arc<Sessions>, prompt: &PromptId) {
        self.turn(sessions).act(|core| core.withdraw(prompt));
    }

    /// The backend has taken the prompt. False if it is not pending any more.
    pub fn accepted(self: &Arc<Self>, sessions: &Arc<Sessions>, prompt: &PromptId) -> bool {
        self.turn(sessions).act(|core| core.accepted(prompt, now()))
    }

    /// The client asks for a deletion.
    pub fn delete_asked(self: &Arc<Self>, sessions: &Arc<Sessions>, prompt: &PromptId) {
        self.turn(sessions).act(|core| core.delete_asked(prompt));
    }

    /// The deletion was not done.
    pub fn delete_withdrawn(self: &Arc<Self>, sessions: &Arc<Sessions>, prompt: &PromptId) {
        self.turn(sessions).act(|core| core.delete_withdrawn(prompt));
    }
}
