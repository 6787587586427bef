//! Shows a prompt that must wait to a backend, for its verdict: the backend gets it, says what it
//! thinks of it, and gives it back before it has begun.
//!
//! ComfyUI checks a graph in `POST /prompt` and nowhere else. It is shown to a busy backend only,
//! with a number that puts it behind everything there, and deleted there at once. If it has begun
//! all the same, it stays: that is one place too early.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value};
use smallvec::SmallVec;
use tokio::time::timeout;
use tracing::debug;

use super::attempts::Attempted;
use super::hand_over::{Refusal, Says, sending};
use super::queued::{mark_waiting, waits_without, withdrawn};
use super::stage_inputs::Inputs;
use super::take_back::{Back, IsClear};
use super::{Sending, pass};
use crate::comfy::answers;
use crate::comfy::submission::numbered::numbered;
use crate::comfy::{refused, reply};
use crate::front::error::GatewayError;
use crate::front::forward::Target;
use crate::front::waiting::may_run;
use crate::front::{Front, json, own_folder};
use crate::journal::record::Kept;
use crate::net::{now, sleep};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::Errand;
use crate::routing::placement::{AdminState, BackendView};
use crate::session::Client;
use crate::session::control;
use crate::session::waiting::{MayShow, all_refuse};

/// How often it is looked whether a backend is busy enough to be asked.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Whether somebody can be asked about a prompt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asks {
    Somebody,
    Nobody,
}

/// Shows the prompt to backends, one after the other, until one says what it thinks of it or
/// `queue.verdict_wait` is over.
pub(super) fn begin(front: &Arc<Front>, client: &Arc<Client>, prompt: &PromptId) -> Asks {
    let Some(kept) = front.sessions.waiting.kept(prompt) else { return Asks::Nobody };
    let inputs = Inputs::of(&front.shared, &kept.body, &kept.askers, &front.nodes.classes());
    let trial = Trial {
        front: Arc::clone(front),
        client: Arc::clone(client),
        prompt: prompt.clone(),
        near: inputs.has_any().then(|| inputs.with_all()),
        until: now() + front.shared.config().queue.verdict_wait,
        asked: SmallVec::new(),
        refusal: None,
    };
    if matches!(trial.next(), Choice::Nobody) {
        return Asks::Nobody;
    }
    front.shared.tasks.spawn(trial.run(kept));
    Asks::Somebody
}

/// A prompt that is shown to backends.
struct Trial {
    front: Arc<Front>,
    client: Arc<Client>,
    prompt: PromptId,
    /// The backends that have all of its files; `None` if it has none. No file is copied for a
    /// trial.
    near: Option<SmallVec<[BackendId; 4]>>,
    until: Instant,
    asked: SmallVec<[BackendId; 4]>,
    /// What the first backend said that lacks a part of it.
    refusal: Option<(Target, Refusal)>,
}

/// Whether another backend is to be asked.
enum Next {
    Another,
    Over,
}

/// The backend that is asked next.
enum Choice {
    Show(BackendId),
    /// None of those that could be asked keeps it waiting now. One may in a moment, or the prompt
    /// is handed over itself.
    Later,
    Nobody,
}

impl Trial {
    /// The backend where something holds the client, if it is busy, or where it stays because more
    /// of it waits; else the one that it is bound to, if that is busy; else the busiest.
    fn next(&self) -> Choice {
        let views = self.front.shared.fleet.views(now());
        let (held, bound, is_alone) = self.client.inspect(|core, _| {
            (core.held_at(), core.bound().map(|bound| bound.0), core.pending().len() <= 1)
        });
        // A trial elsewhere would move the binding away from where the others are to go. But if the
        // backend there lacks a part, the prompt goes elsewhere itself.
        let works = |id: &BackendId| views.iter().any(|it| it.id == *id && it.takes_work());
        // What a backend is known to lack it need not say.
        let lacking = self.front.sessions.waiting.lacking(&self.prompt);
        let stays = !is_alone
            && self.refusal.is_none()
            && bound.is_none_or(|bound| !lacking.contains(&bound));
        let held = held.or(bound.filter(|id| stays && works(id)));
        let has_files = |id| self.near.as_ref().is_none_or(|near| near.contains(&id));
        let may_show = self.front.sessions.waiting.may_show(&self.client.id, &views);
        let may = views.iter().zip(may_show).filter(|(view, may)| {
            view.takes_work()
                && held.is_none_or(|held| held == view.id)
                && !self.asked.contains(&view.id)
                && !lacking.contains(&view.id)
                && has_files(view.id)
                && *may != MayShow::No
        });
        let may: SmallVec<[(&BackendView, MayShow); 8]> = may.collect();
        let busy = may.iter().filter(|(_, may)| *may == MayShow::Now);
        match busy.max_by_key(|(view, _)| (bound == Some(view.id), view.load)) {
            Some((view, _)) => Choice::Show(view.id),
            None if may.is_empty() => Choice::Nobody,
            None => Choice::Later,
        }
    }

    async fn run(mut self, kept: Arc<Kept>) {
        loop {
            // Before the look: no change is missed.
            let sessions = Arc::clone(&self.front.sessions);
            let moved = sessions.waiting.moved();
            let backend = match self.next() {
                Choice::Show(backend) => backend,
                Choice::Later if self.waits_for(moved).await => continue,
                Choice::Later => return,
                Choice::Nobody => break,
            };
            let left = self.until.saturating_duration_since(now());
            let seats = Arc::clone(&self.front.shared.fleet.get(backend).trials);
            // Nobody waits for its caller any more after that.
            let Ok(Ok(_seat)) = timeout(left, seats.acquire_owned()).await else { return };
            if !matches!(self.next(), Choice::Show(still) if still == backend) {
                // It has changed meanwhile.
                continue;
            }
            match self.show(backend, &kept).await {
                Next::Another => {}
                Next::Over => return,
            }
        }
        self.refused_by_all().await;
    }

    /// Waits for a change. False if nobody waits for the verdict any more, or the prompt is handed
    /// over.
    async fn waits_for(&self, change: impl Future<Output = ()>) -> bool {
        let left = self.until.saturating_duration_since(now());
        tokio::select! {
            biased;
            () = self.front.shared.tasks.stopping() => return false,
            () = change => {}
            // What backends report wakes nobody.
            () = sleep(left.min(LOOK_AGAIN)) => {}
        }
        now() < self.until && self.front.sessions.waiting.has_waiting(&self.prompt)
    }

    async fn show(&mut self, backend: BackendId, kept: &Kept) -> Next {
        let waiting = &self.front.sessions.waiting;
        if !waiting.is_shown(&self.prompt, backend) {
            // It is handed over just now, or another one of its client is.
            return if waiting.has_waiting(&self.prompt) { Next::Another } else { Next::Over };
        }
        self.asked.push(backend);
        let sessions = &self.front.sessions;
        let handed = self.client.hand_over(sessions, &self.prompt, (backend, Errand::Trial));
        let Ok((placed, attempt)) = handed else {
            waiting.again(&self.prompt);
            return Next::Over;
        };
        self.front.shared.metrics.queue.trials.inc();
        let trial = sending(&self.front, &self.client, (&self.prompt, attempt), kept, placed);
        trial.try_it(kept, &mut self.refusal).await
    }

    /// If no backend is left that may run it, its caller is told what the first of them said.
    async fn refused_by_all(self) {
        let Some((target, Refusal { parts, body })) = self.refusal else { return };
        let mut may_run = may_run(&self.front);
        // Where something holds its client, no other is asked, as without a queue.
        if let Some(held) = self.client.inspect(|core, _| core.held_at()) {
            may_run.retain(|id| *id == held);
        }
        if !all_refuse(&self.front.sessions.waiting.refused_by(&self.prompt), &may_run) {
            return;
        }
        if let Some(asker) = self.front.askers.take(&self.prompt) {
            if !self.client.withdraw_waiting(&self.front.sessions, &self.prompt) {
                // It is handed over to a backend that has just joined. Its caller learns that
                // nothing is known, because nobody answers him now.
                return;
            }
            let withdrawn = withdrawn(&self.front, &self.prompt).await;
            let told = own_folder::told_to(&self.client.id, body);
            let _left = asker.send(withdrawn.map(|()| pass(&target, parts, told)));
        }
    }
}

/// What a backend says about a prompt that was shown to it.
enum Shown {
    /// It took it, with these errors at nodes, or it is not known if it did.
    Taken(Option<Value>),
    Refused(Refusal),
    /// It lacks a part of it.
    Lacks(Refusal),
    /// It says nothing about the prompt, and certainly does not have it.
    Nothing,
    /// It has ended meanwhile, or waits.
    Over,
}

impl Sending {
    async fn try_it(self, kept: &Kept, refused: &mut Option<(Target, Refusal)>) -> Next {
        let body = numbered(&kept.body, self.front.sessions.waiting.last_number());
        self.judged(kept, &body, refused).await
    }

    async fn judged(
        mut self,
        kept: &Kept,
        body: &Bytes,
        refused: &mut Option<(Target, Refusal)>,
    ) -> Next {
        match self.show(kept, body).await {
            Shown::Over => {
                self.is_asked_for();
                Next::Over
            }
            Shown::Nothing => self.asks_another(),
            Shown::Lacks(refusal) => {
                self.says_that_it_lacks(&refusal);
                refused.get_or_insert_with(|| (self.target.clone(), refusal));
                self.asks_another()
            }
            Shown::Refused(refusal) => {
                self.refuse(refusal).await;
                Next::Over
            }
            Shown::Taken(errors) => {
                if errors.is_some() {
                    // The backend counts it itself until it is taken back.
                    self.expected.taken();
                }
                if errors.as_ref().is_some_and(is_empty)
                    && let Some(graph) = self.graph_of(kept)
                {
                    self.front.known_good.add(graph, now());
                }
                self.taken_on_trial(kept, errors).await;
                Next::Over
            }
        }
    }

    fn asks_another(self) -> Next {
        if self.come_back() { Next::Another } else { Next::Over }
    }

    async fn taken_on_trial(mut self, kept: &Kept, errors: Option<Value>) {
        let is_clear = if errors.is_some() { IsClear::Yes } else { IsClear::No };
        let backend = self.backend().name();
        let (front, prompt) = (Arc::clone(&self.front), self.prompt.clone());
        match self.takes_back(is_clear).await {
            Back::Stays | Back::Unknown if self.backend().admin() == AdminState::Off => {
                // It was turned off by force: what it has is lost. Its caller learns that from its
                // end, as one who was answered before: it may have begun, so its id is used up.
                return self.cut_off();
            }
            Back::Stays => self.taken().await,
            Back::Waits => {
                let waits = match is_clear {
                    IsClear::Yes => self.come_back(),
                    IsClear::No => {
                        control::watch_late_arrival(&front.sessions, self.backend(), &prompt);
                        self.goes_elsewhere_for(control::LATE_FOR)
                    }
                };
                if !waits {
                    return;
                }
            }
            Back::Over => {
                // It may have arrived after the reset had it stopped there, or may still arrive.
                if is_clear == IsClear::No {
                    control::watch_late_arrival(&front.sessions, self.backend(), &prompt);
                }
                return self.revoke_if_lost(self.settled_end().await);
            }
            Back::Lost => {
                let backend = backend.to_string();
                return self.lose(GatewayError::NotQueued { backend }).await;
            }
            Back::Unknown if !self.is_pending() => self.expected.not_taken(),
            Back::Unknown => {
                self.expected.taken();
                self.is_asked_for();
            }
        }
        // What is told must be in the journal.
        if front.shared.records.journal.durable_body(&prompt).await.is_err() {
            // Its caller is told so when the wait for the verdict is over.
            return;
        }
        let mut answer = match &errors {
            Some(errors) => json(reply::queued_with_errors(&prompt, Some(kept.number), errors)),
            None => return front.askers.tell(&prompt, Ok(waits_without(&prompt, kept.number))),
        };
        if let Ok(verdict) = HeaderValue::from_str(&backend) {
            mark_waiting(&mut answer, verdict);
        }
        front.askers.tell(&prompt, Ok(answer));
    }

    async fn show(&mut self, kept: &Kept, body: &Bytes) -> Shown {
        let parts = self.request(kept);
        match self.attempt(&parts, body).await {
            Attempted::EndedMeanwhile => Shown::Over,
            Attempted::NeverSent(error) => {
                debug!(prompt = %self.prompt, %error, "A prompt could not be shown to a backend.");
                Shown::Nothing
            }
            Attempted::Unclear => Shown::Taken(None),
            Attempted::Answered(parts, body) if parts.status.is_client_error() => {
                match Says::of(parts.status, &body) {
                    Says::Verdict => {}
                    Says::TooLarge => return Shown::Lacks(Refusal { parts, body }),
                    Says::Nothing => {
                        self.front.sessions.waiting.turns_away(self.backend().id);
                        return Shown::Nothing;
                    }
                }
                let lacks = refused::read(&body);
                if self.find_missing(&lacks, &kept.body).await {
                    // Its files are brought when it is handed over.
                    return Shown::Nothing;
                }
                let refusal = Refusal { parts, body };
                match lacks.a_part() {
                    true => Shown::Lacks(refusal),
                    false => Shown::Refused(refusal),
                }
            }
            Attempted::Answered(parts, body) => {
                let is_ours = answers::accepted(&body)
                    .is_some_and(|(prompt, _)| prompt == self.prompt.as_str());
                let is_taken = parts.status == StatusCode::OK && is_ours;
                Shown::Taken(is_taken.then(|| answers::node_errors(&body)))
            }
        }
    }
}

fn is_empty(errors: &Value) -> bool {
    errors.as_object().is_some_and(Map::is_empty)
}
