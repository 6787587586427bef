//! A client's submissions. They are pending before they are sent, are placed elsewhere if they were
//! never sent, and leave no trace if they were refused.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::Sessions;
use super::apply::{Brought, Turn};
use super::completion::{Completion, Expected};
use super::link::Link;
use super::tombstones::TombstoneReason;
use super::{Client, Gone};
use crate::comfy::labels::Labels;
use crate::fleet::dial_limiter::Haste;
use crate::limits::Counted;
use crate::limits::held::Held;
use crate::net::now;
use crate::routing::decision::{Decision, NotThere, Refusal};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{End, Loss, Pending};
use crate::routing::placement::{BackendView, FleetNow};

/// The backends that already have all existing files of a prompt.
#[derive(Clone, Debug, Default)]
pub struct Nearness {
    pub backends: SmallVec<[BackendId; 4]>,
    /// How much longer their queues may be because of this, in prompts.
    pub margin: u32,
}

impl Nearness {
    pub(super) fn mark(&self, views: &mut [BackendView]) {
        let near = views.iter_mut().filter(|view| self.backends.contains(&view.id));
        near.for_each(|view| view.head_start = Some(self.margin));
    }
}

/// Gives the backends of a client's node pack sockets a margin, because that work would not move
/// with the client.
pub(super) fn mark_tunnels(client: &Client, sessions: &Sessions, views: &mut [BackendView]) {
    for backend in sessions.tunnels.backends_of(&client.id) {
        if let Some(view) = views.iter_mut().find(|view| view.id == backend) {
            let margin = sessions.shared.config().affinity.tunnel_margin;
            let margin = u32::try_from(margin).unwrap_or(u32::MAX);
            view.head_start = view.head_start.max(Some(margin));
        }
    }
}

/// A submission with its place.
#[derive(Debug)]
pub struct Placed {
    pub decision: Decision,
    /// The link, which may still be dialling.
    pub link: Arc<Link>,
    pub expected: Expected,
}

/// What is kept of a prompt while it is pending.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Nodes whose binary frames are outputs and not previews.
    pub(super) output_nodes: Vec<String>,
    /// The names of its nodes, for the message if its server dies.
    pub(super) labels: Labels,
    completion: Arc<Completion>,
    account: Account,
    /// What a backend said that refused it after it was accepted.
    pub(super) refusal: Option<Arc<str>>,
}

/// What counts a pending prompt, where it is limited.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// It counts as pending until this is dropped.
    pub place: Option<Arc<Held>>,
    /// For whom the time counts for which it runs.
    pub payer: Option<Counted>,
}

impl Remembered {
    /// For a prompt that is about to be submitted.
    #[must_use]
    pub fn of(output_nodes: Vec<String>, labels: Labels) -> Self {
        let (completion, account) = (Arc::default(), Account::default());
        Self { output_nodes, labels, completion, account, refusal: None }
    }

    /// The same, counted so.
    #[must_use]
    pub fn counted(self, account: Account) -> Self {
        Self { account, ..self }
    }

    /// For whom how long it ran, if that is counted. One that was lost costs nothing, unless its
    /// own client gave it up: who resets just before the end would have all for nothing.
    pub(super) fn bill(&self, end: End, ran: Option<Duration>) -> Option<(Counted, Duration)> {
        let (payer, ran) = (self.account.payer.clone()?, ran?);
        match end {
            End::Succeeded
            | End::Failed
            | End::Interrupted
            | End::Deleted
            | End::Lost(Loss::Reset) => Some((payer, ran)),
            End::Lost(_) => None,
        }
    }

    /// Reports how it ended.
    #[must_use]
    pub fn completion(&self) -> Arc<Completion> {
        Arc::clone(&self.completion)
    }

    /// For a prompt that was submitted to an earlier process.
    pub(super) fn outputs(output_nodes: Vec<String>) -> Self {
        Self::of(output_nodes, Labels::default())
    }
}

impl Turn<'_> {
    /// True if this attempt of a pending prompt is not the present one.
    fn is_over(&self, prompt: &PromptId, attempt: Option<u32>) -> bool {
        let present = self.core.pending().get(prompt).map(Pending::attempt);
        attempt.is_some_and(|attempt| present.is_some_and(|present| present != attempt))
    }
}

impl Client {
    /// A prompt is about to be sent: it is pending from here on, and its link is being opened.
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
        // One step: a reset in between would end the prompt, but its link would still be dialled.
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

    /// The prompt is provably not on the backend that it was sent to. Places it anew, on none of
    /// the backends that were tried, if this client has nothing else pending or waiting there (P2).
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

    pub(super) fn placed(self: &Arc<Self>, turn: &mut Turn<'_>, decision: Decision) -> Placed {
        let sessions = turn.sessions();
        let expected = Expected::on(sessions.shared.fleet.get(decision.backend));
        let link = self.ensure_link(turn, sessions, (decision.backend, Haste::First));
        Placed { decision, link, expected }
    }

    /// Leaves the prompts that are pending on `backend` to the reconciler.
    pub fn must_ask(self: &Arc<Self>, sessions: &Arc<Sessions>, backend: BackendId) {
        self.turn(sessions).act(|core| core.must_ask(backend));
    }

    /// The prompt is not where it was sent, and its client is told so. If it appears later, it is
    /// stopped.
    pub fn disown(&self, prompt: &PromptId) {
        self.state().tombstones.add(prompt, TombstoneReason::NotQueued);
    }

    /// The prompt was refused, or never sent: it leaves no trace. False if this attempt is over:
    /// the prompt waits then, or is elsewhere.
    pub fn withdraw(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        prompt: &PromptId,
        attempt: Option<u32>,
    ) -> bool {
        let mut turn = self.turn(sessions);
        let is_present = !turn.is_over(prompt, attempt);
        if is_present {
            turn.act(|core| core.withdraw(prompt));
        }
        is_present
    }

    /// Nobody will use this client again: its link closes now if nothing needs it, instead of after
    /// `affinity.link_linger`.
    pub fn is_over(&self) {
        let mut state = self.state();
        if state.core.sockets() == 0 && !state.core.is_held() {
            state.let_go_of_link();
        }
    }

    /// The backend accepted the prompt. False if it is no longer pending, or this attempt is over.
    pub fn accepted(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        prompt: &PromptId,
        attempt: Option<u32>,
    ) -> bool {
        let mut turn = self.turn(sessions);
        !turn.is_over(prompt, attempt) && turn.act(|core| core.accepted(prompt, now()))
    }

    /// The client requests a deletion. Returns the backend that has to delete it; a prompt that
    /// waits has ended.
    pub fn delete_asked(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        prompt: &PromptId,
    ) -> Option<BackendId> {
        self.turn(sessions).act(|core| core.delete_asked(prompt, now()))
    }

    /// The deletion failed.
    pub fn delete_withdrawn(self: &Arc<Self>, sessions: &Arc<Sessions>, prompt: &PromptId) {
        self.turn(sessions).act(|core| core.delete_withdrawn(prompt));
    }
}
