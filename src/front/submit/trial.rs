//! Shows a prompt that must wait to a backend, for its verdict: the backend gets it, says what it
//! thinks of it, and gives it back before it has begun.
//!
//! ComfyUI checks a graph in `POST /prompt` and nowhere else. It is shown to a busy backend only,
//! with a number that puts it behind everything there, and deleted there at once. If it has begun
//! all the same, it stays: that is one place too early.

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
use super::queued::{mark_waiting, waits_without};
use super::stage_inputs::Inputs;
use super::{Sending, pass};
use crate::comfy::answers::{self, Sighting};
use crate::comfy::submission::numbered::numbered;
use crate::comfy::{refused, reply};
use crate::front::error::GatewayError;
use crate::front::forward::Target;
use crate::front::waiting::may_run;
use crate::front::{Front, json, own_folder};
use crate::journal::record::Kept;
use crate::net::{now, sleep};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::pending::{ABSENT_LOOKS_APART, Errand};
use crate::routing::placement::AdminState;
use crate::session::Client;
use crate::session::control;
use crate::session::waiting::all_refuse;

/// The pause between two looks at a backend that does not answer them.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How long a trial asks for its prompt itself. After that the reconciler takes it back.
const TAKES_BACK_FOR: Duration = Duration::from_secs(10);

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
    if trial.next().is_none() {
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

impl Trial {
    /// The backend where something holds the client, if it is busy, or where it stays because more
    /// of it waits; else the one that it is bound to, if that is busy; else the busiest.
    fn next(&self) -> Option<BackendId> {
        let views = self.front.shared.fleet.views(now());
        let (held, bound, is_alone) = self.client.inspect(|core, _| {
            (core.held_at(), core.bound().map(|bound| bound.0), core.pending().len() <= 1)
        });
        // A trial elsewhere would move the binding away from where the others are to go. But if the
        // backend there lacks a part, the prompt goes elsewhere itself.
        let works = |id: &BackendId| views.iter().any(|it| it.id == *id && it.takes_work());
        let stays = !is_alone && self.refusal.is_none();
        let held = held.or(bound.filter(|id| stays && works(id)));
        let has_files = |id| self.near.as_ref().is_none_or(|near| near.contains(&id));
        let busy = views.iter().filter(|view| view.takes_work() && view.load != 0);
        let may = busy.filter(|view| {
            held.is_none_or(|held| held == view.id)
                && !self.asked.contains(&view.id)
                && has_files(view.id)
        });
        may.max_by_key(|view| (bound == Some(view.id), view.load)).map(|view| view.id)
    }

    async fn run(mut self, kept: Arc<Kept>) {
        while let Some(backend) = self.next() {
            let left = self.until.saturating_duration_since(now());
            let seats = Arc::clone(&self.front.shared.fleet.get(backend).trials);
            // Nobody waits for its caller any more after that.
            let Ok(Ok(_seat)) = timeout(left, seats.acquire_owned()).await else { return };
            self.asked.push(backend);
            match self.show(backend, &kept).await {
                Next::Another => {}
                Next::Over => return,
            }
        }
        self.refused_by_all().await;
    }

    async fn show(&mut self, backend: BackendId, kept: &Kept) -> Next {
        let waiting = &self.front.sessions.waiting;
        if !waiting.sets_aside(&self.prompt) {
            // It is handed over just now.
            return Next::Over;
        }
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
            let _told_anyway = self.front.shared.records.journal.durable().await;
            let told = own_folder::told_to(&self.client.id, body);
            let _left = asker.send(Ok(pass(&target, parts, told)));
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

/// Where a prompt is after it was taken back.
enum Back {
    Waits,
    /// It has begun, and stays.
    Stays,
    /// The process that it was shown to is gone, and may have begun it.
    Lost,
    /// Its backend does not say. It is asked until it does.
    Unknown,
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
                let (why, here) = (refused::message(&refusal.body).into(), self.backend().id);
                self.front.sessions.waiting.refuses(&self.prompt, here, why);
                refused.get_or_insert_with(|| (self.target.clone(), refusal));
                self.asks_another()
            }
            Shown::Refused(refusal) => {
                self.refuse(refusal).await;
                Next::Over
            }
            Shown::Taken(errors) => {
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
            Back::Stays => {
                self.taken().await;
                self.delete_if_asked().await;
            }
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
            Back::Lost => {
                let backend = backend.to_string();
                return self.lose(GatewayError::NotQueued { backend }).await;
            }
            Back::Unknown => {
                self.expected.taken();
                self.is_asked_for();
            }
        }
        // What is told must be in the journal.
        if front.shared.records.journal.durable().await.is_err() {
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

    /// Deletes it at the backend, until it is known to be nowhere or to have begun.
    ///
    /// One look that misses it is enough if the backend has answered that it took it, and the link
    /// shows that it is the same process still. Otherwise it takes two, as everywhere.
    async fn takes_back(&self, is_clear: IsClear) -> Back {
        let limit = self.front.shared.config().fleet.probe_timeout;
        let until = now() + TAKES_BACK_FOR;
        let mut missed: Option<Instant> = None;
        // After a restart its record says that it is to be taken back.
        let is_stopping = || self.front.shared.tasks.is_stopping();
        while self.is_pending() && now() < until && !is_stopping() {
            // What was not deleted is seen by the look.
            let _ = self.backend().delete(std::slice::from_ref(&self.prompt), limit).await;
            match self.backend().look_for(&self.prompt, limit).await {
                Ok(Sighting::Absent) => {
                    if self.backend().restarted().is_some_and(|gone| self.sent < gone) {
                        return Back::Lost;
                    }
                    let first = *missed.get_or_insert_with(now);
                    let is_same = self.link.listens_since().is_some_and(|it| it <= self.sent);
                    let is_sure = ABSENT_LOOKS_APART <= now().duration_since(first);
                    if is_sure || (is_clear == IsClear::Yes && is_same) {
                        return Back::Waits;
                    }
                }
                Ok(Sighting::Running { .. } | Sighting::Ended(_)) => return Back::Stays,
                Ok(Sighting::Queued { .. }) => missed = None,
                Err(error) => debug!(prompt = %self.prompt, %error, "Looking for a prompt."),
            }
            sleep(LOOK_AGAIN).await;
        }
        Back::Unknown
    }
}

/// Whether a backend has answered that it took a prompt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum IsClear {
    Yes,
    No,
}

fn is_empty(errors: &Value) -> bool {
    errors.as_object().is_some_and(Map::is_empty)
}
