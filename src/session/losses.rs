//! Prompts whose backend's process has died: what it had not begun goes elsewhere, and what it may
//! have begun is lost, as soon as that is certain (`queue.depth`).
//!
//! [`crate::routing::pending`] decides what is certain. This collects the evidence: how the links
//! ended, what ran when they did, and when the port was found to be closed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use tracing::info;

use super::apply::Turn;
use super::link::Link;
use super::link_end::LinkEnd;
use super::relay::Asked;
use super::{Client, Missed, Sessions, control};
use crate::comfy::answers::Sighting;
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::routing::client::Outcome;
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::ledger::{Record, State};
use crate::routing::pending::{Errand, Fate, Hearing, Pending, Phase};
use crate::routing::placement::{BackendView, Excluded};

/// How many prompts are looked for at a backend in a round.
const LOOKS_MAX: usize = 64;

impl Turn<'_> {
    /// The link of this client has ended: what it has heard until then is evidence.
    pub(super) fn link_closed(&mut self, link: &Arc<Link>, end: LinkEnd) {
        let sessions = self.sessions();
        let is_current = self.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link));
        if !sessions.waiting.is_used() || !is_current {
            return;
        }
        let hearing = match end {
            LinkEnd::Closed => self.hearing(link),
            LinkEnd::Lost => Hearing::Doubtful,
            LinkEnd::Asked | LinkEnd::Orphan | LinkEnd::Silent | LinkEnd::TooLarge => return,
        };
        let (backend, now) = (link.backend, now());
        let ran = self.act(|core| core.link_closed(backend, hearing, now));
        let is_over = |prompt: &PromptId| self.missed.get(prompt) == Some(&Missed::IsOver);
        if let Some(ran) = ran.filter(|ran| !is_over(ran)) {
            sessions.waiting.ran_when_closed(backend, ran, now);
        }
    }

    /// What a link has heard that its backend has closed.
    fn hearing(&self, link: &Link) -> Hearing {
        let watched = self.sessions().shared.fleet.get(link.backend).last_status();
        match link.heard_since() {
            // Events that are held back are not known yet.
            Some(opened) if !self.holds_back() && !link.lacks_status(watched) => {
                Hearing::Since(opened)
            }
            Some(_) | None => Hearing::Doubtful,
        }
    }

    fn holds_back(&self) -> bool {
        self.holdback.seen().is_some_and(|it| !it.is_empty())
    }
}

impl Client {
    /// What has not begun at one of these backends is taken back from there.
    fn comes_back_from(self: &Arc<Self>, sessions: &Arc<Sessions>, left: &[BackendId]) {
        let mut turn = self.turn(sessions);
        let Some(link) = turn.link.clone().filter(|it| left.contains(&it.backend)) else { return };
        let Some(listens) = link.listens_since() else { return };
        // What was said and is not known yet may be that one has begun.
        if turn.hearing(&link) == Hearing::Doubtful {
            return;
        }
        let from = (link.backend, listens);
        let may = |it: &Pending| it.is_on(link.backend) && it.may_come_back(listens);
        let there = turn.core.pending().iter().filter(|(_, it)| may(it));
        let there: Vec<PromptId> = there.map(|(prompt, _)| prompt.clone()).collect();
        for prompt in there {
            if turn.act(|core| core.comes_back(&prompt, from)) {
                sessions.shared.metrics.queue.taken_back.inc();
                info!(%prompt, backend = %sessions.shared.fleet.get(link.backend).name(),
                    "A prompt that has not begun is taken back.");
            }
        }
    }

    /// Deletes a prompt where it was just seen in the queue. If that is answered, and the link has
    /// listened all the time, one look that misses it is enough: it is the same process, and it has
    /// not begun it.
    pub(super) async fn takes_back(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        backend: &Backend,
        (prompt, place, asked): (&PromptId, Asked, Instant),
    ) {
        let limit = sessions.shared.config().fleet.probe_timeout;
        if backend.delete(std::slice::from_ref(prompt), limit).await.is_err() {
            return;
        }
        self.turn(sessions).act(|core| core.deletion_answered(prompt, place.attempt));
        let Ok(Sighting::Absent) = backend.look_for_one(prompt, limit).await else { return };
        let mut turn = self.turn(sessions);
        let Some(link) = turn.link.clone().filter(|it| it.backend == backend.id) else { return };
        let listens = link.listens_since().is_some_and(|since| since <= asked);
        if listens && turn.hearing(&link) != Hearing::Doubtful {
            turn.act(|core| core.came_back(prompt, place.attempt, now()));
        }
    }

    /// The process of this backend may be gone: what had certainly not begun there goes elsewhere.
    /// If something else is certain, that is done, too.
    pub fn process_gone(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        backend: &Backend,
        prompt: &PromptId,
    ) -> Fate {
        let Some(shut) = backend.shut().filter(|_| sessions.waiting.is_used()) else {
            return Fate::Stays;
        };
        let mut turn = self.turn(sessions);
        let another = sessions.waiting.ran_beside(backend.id, prompt);
        let now = now();
        let pending = turn.core.pending().get(prompt).filter(|it| it.is_on(backend.id));
        let Some(pending) = pending else { return Fate::Stays };
        let fate = pending.fate(shut, another, now);
        match fate {
            Fate::Stays | Fate::Unclear => return fate,
            Fate::Unbegun => {
                // If it was not the process that died, but something in front of it.
                let is_there = pending.phase == Phase::Queued;
                let late = if is_there { Duration::ZERO } else { control::LATE_FOR };
                sessions.waiting.doubts(prompt, backend.id, now + late);
            }
            Fate::Lost => {}
        }
        let outcome = match turn.log.has_terminal(prompt.as_str()) {
            true => Outcome::Told,
            false => Outcome::Untold,
        };
        let attempts = sessions.shared.config().prompts.attempts;
        let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
        let told = (outcome, attempts);
        turn.act(|core| core.process_gone(prompt, (shut, another), told, now));
        if turn.core.pending().get(prompt).is_some_and(Pending::is_waiting) {
            sessions.shared.metrics.queue.replaced.inc();
            info!(%prompt, backend = %backend.name(),
                "A backend has died before it began a prompt: that goes elsewhere.");
        }
        fate
    }

    /// A prompt that waits is at this backend all the same, where it was given up: it stays there.
    /// False if it does not wait, or may not be there.
    fn stays_there(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        prompt: &PromptId,
        backend: BackendId,
    ) -> bool {
        if !sessions.waiting.is_shown(prompt, backend) {
            return false;
        }
        let Ok((_placed, attempt)) = self.hand_over(sessions, prompt, (backend, Errand::Run))
        else {
            sessions.waiting.again(prompt);
            return false;
        };
        if self.goes_out(sessions, (prompt, attempt)) {
            // Nothing is sent: that finds it.
            self.left_to_asking(sessions, (prompt, attempt));
        }
        true
    }
}

/// Takes back what has not begun at backends that are to be left: they drain, or have
/// work and do not work.
pub(super) fn take_back(sessions: &Arc<Sessions>, working: &[Arc<Client>]) {
    if !sessions.waiting.is_used() {
        return;
    }
    let views = sessions.shared.fleet.views(now());
    let is_left = |it: &&BackendView| match it.excluded() {
        Some(Excluded::Draining | Excluded::Wedged) => true,
        // Nobody asks one that is off.
        Some(Excluded::Down | Excluded::Off | Excluded::Shut | Excluded::Full) | None => false,
    };
    let left: Vec<BackendId> = views.iter().filter(is_left).map(|view| view.id).collect();
    if left.is_empty() {
        return;
    }
    for client in working {
        client.comes_back_from(sessions, &left);
    }
}

/// Looks at all clients with prompts at backends whose processes may be gone. Those of a backend
/// that is up again are asked about.
pub(super) fn processes_gone(sessions: &Arc<Sessions>, working: &[Arc<Client>]) {
    if !sessions.waiting.is_used() {
        return;
    }
    let is_gone = |it: &Arc<Backend>| !it.is_up() && it.shut().is_some();
    let gone: Vec<Arc<Backend>> = sessions.shared.fleet.iter().filter(is_gone).collect();
    if gone.is_empty() {
        return;
    }
    for client in working {
        for (prompt, at) in client.inspect(|core, _| may_be_gone(core.pending(), &gone)) {
            client.process_gone(sessions, &gone[at], &prompt);
        }
    }
}

/// The prompts whose processes may be gone, with the places of their backends in this list.
fn may_be_gone(
    pending: &IndexMap<PromptId, Pending>,
    gone: &[Arc<Backend>],
) -> Vec<(PromptId, usize)> {
    let there = pending.iter().filter_map(|(prompt, it)| {
        let at = gone.iter().position(|backend| it.is_on(backend.id))?;
        let shut = gone[at].shut()?;
        it.may_be_gone(shut).then(|| (prompt.clone(), at))
    });
    there.collect()
}

/// Looks for prompts that may be at this backend still, though it seemed to have died. One that
/// waits stays there, and the others are stopped.
pub(super) async fn settle_doubts(sessions: &Arc<Sessions>, backend: &Arc<Backend>) {
    let limit = sessions.shared.config().fleet.probe_timeout;
    let waiting = &sessions.waiting;
    for prompt in waiting.doubted_at(backend.id, LOOKS_MAX) {
        let Ok(sighting) = backend.look_for_one(&prompt, limit).await else { continue };
        if sighting == Sighting::Absent {
            waiting.is_missed_at(backend.id, &prompt, now());
            continue;
        }
        let was_stopped = waiting.is_seen_at(backend.id, &prompt);
        let known = sessions.shared.records.prompt(&prompt);
        let is_wanted = |it: &Record| it.backend == Some(backend.id) && it.state == State::Pending;
        if known.as_ref().is_some_and(is_wanted) {
            // Another prompt of this id is there.
            waiting.doubts_no_more(backend.id, &prompt);
            continue;
        }
        let client = waiting.client_of(&prompt).and_then(|id| sessions.clients.get(&id));
        // One that we stop there has no end of its own.
        if !was_stopped && client.is_some_and(|it| it.stays_there(sessions, &prompt, backend.id)) {
            info!(%prompt, backend = %backend.name(), "A prompt is there still, and stays.");
            waiting.doubts_no_more(backend.id, &prompt);
            continue;
        }
        match sighting {
            // It has run there, too.
            Sighting::Ended(_) => waiting.doubts_no_more(backend.id, &prompt),
            // Until it is seen to be gone.
            Sighting::Queued { .. } | Sighting::Running { .. } | Sighting::Absent => {
                sessions.shared.metrics.prompts_turned_up.inc();
                waiting.is_stopped_at(backend.id, &prompt);
                let stopped = control::stop(sessions, backend, &prompt).await;
                info!(%prompt, backend = %backend.name(), stopped,
                    "A prompt that was given up has turned up.");
            }
        }
    }
}
