//! What becomes of a prompt that has waited and that its backend does not have now: it goes
//! elsewhere, waits and is tried again later, or has ended.
//!
//! It does not count at its backend while it rests, so the others pass it.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;

use super::hand_over::Refusal;
use super::queued::withdrawn;
use super::{Sending, pass};
use crate::comfy::refused;
use crate::front::error::{Fault, GatewayError};
use crate::front::waiting::{askers::Asker, may_run};
use crate::front::{Answer, Front, own_folder};
use crate::net::{now, sleep};
use crate::routing::ids::BackendId;
use crate::session::control;
use crate::session::waiting::{all_refuse, rest_after};

/// After so many attempts that failed because its files could not be brought, which is about five
/// minutes, a prompt has ended: nobody might ever bring them.
const ATTEMPTS_MAX: u32 = 10;

/// How long a prompt is not tried again at a backend that could not be reached, if it may go
/// elsewhere.
const NOT_THERE_FOR: Duration = Duration::from_secs(10);

/// Whether another backend may do what this one could not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cause {
    /// The prompt itself: no backend will ever take it.
    Prompt,
    /// Something that it needs, wherever it goes.
    Needs,
    /// Something that it needs at this backend.
    NeedsHere,
    /// More of it than is brought to a backend. One that has its files needs nothing brought.
    NeedsTooMuch,
    /// This backend, or the gateway.
    Place,
}

impl Sending {
    /// True if another backend that takes prompts may run it, and nothing holds the client here.
    pub(super) fn may_go_elsewhere(&self) -> bool {
        let here = self.backend().id;
        if self.has_others_here() {
            return false;
        }
        let tried = self.front.sessions.waiting.tried(&self.prompt);
        let views = self.front.shared.fleet.views(now());
        let is_other = |id: BackendId| id != here && !tried.contains(&id);
        views.iter().any(|view| view.serves_new() && is_other(view.id))
    }

    /// This backend refuses it because it lacks a part. If that is news, its list is old.
    pub(super) fn says_that_it_lacks(&self, refusal: &Refusal) {
        let (waiting, here) = (&self.front.sessions.waiting, self.backend().id);
        waiting.refuses(&self.prompt, here, refused::message(&refusal.body).into());
        if refused::read(&refusal.body).a_part() && waiting.is_news(&self.prompt, here) {
            self.front.nodes.lacks(here);
        }
    }

    /// This backend lacks a part of it: another may have that. If none may, and while something
    /// else of its client is here, a caller who still waits is told, as without a queue.
    pub(super) async fn lacks_a_part(self, refusal: Refusal) {
        if !self.is_pending() {
            // This attempt is over: the prompt waits, and may run elsewhere.
            return;
        }
        self.says_that_it_lacks(&refusal);
        let waiting = &self.front.sessions.waiting;
        if all_refuse(&waiting.refused_by(&self.prompt), &may_run(&self.front)) {
            return self.refuse(refusal).await;
        }
        if self.has_others_here()
            && let Some(asker) = self.front.askers.take(&self.prompt)
        {
            return self.refuse_to(asker, refusal).await;
        }
        self.come_back();
    }

    fn has_others_here(&self) -> bool {
        let here = self.backend().id;
        self.client.inspect(|core, _| {
            core.pending().iter().any(|(id, it)| *id != self.prompt && it.is_on(here))
        })
    }

    /// No backend takes it. A caller who still waits is told so, and nothing of it is kept.
    /// Otherwise it has ended.
    pub(super) async fn refuse(self, refusal: Refusal) {
        if !self.is_pending() {
            return;
        }
        match self.front.askers.take(&self.prompt) {
            Some(asker) => self.refuse_to(asker, refusal).await,
            None => self.refused_late(&refused::message(&refusal.body)),
        }
    }

    async fn refuse_to(mut self, asker: Asker, Refusal { parts, body }: Refusal) {
        let told = own_folder::told_to(&self.client.id, body);
        let answer = pass(&self.target, parts, told);
        self.gone_for(asker, Ok(answer)).await;
    }

    /// Nothing of it is kept, and its caller is told this when that is durable: after a kill it
    /// must not wait again.
    async fn gone_for(&mut self, asker: Asker, answer: Answer) {
        if !self.gone() {
            // It waits, and may run elsewhere. Its caller learns that its state is not known.
            return;
        }
        let answer = withdrawn(&self.front, &self.prompt).await.and(answer);
        // The caller may have left.
        let _: Result<(), Answer> = asker.send(answer);
    }

    fn refused_late(mut self, why: &str) {
        self.expected.not_taken();
        self.front.shared.metrics.queue.refused_late.inc();
        info!(prompt = %self.prompt, backend = %self.backend().name(), why,
            "A prompt that was accepted is refused.");
        let attempt = self.attempt.unwrap_or_default();
        self.client.refused_late(&self.front.sessions, (&self.prompt, attempt), why.into());
    }

    /// The process that it was sent to is gone, and may have begun it: it is not sent again.
    pub(super) async fn lose(mut self, error: GatewayError) {
        if !self.is_pending() {
            // It had certainly not begun, and waits again. Or it has ended, and that is told.
            return;
        }
        info!(prompt = %self.prompt, backend = %self.backend().name(), %error,
            "A backend has died, and may have begun a prompt that was on its way.");
        match self.front.askers.take(&self.prompt) {
            Some(asker) => {
                // As for a prompt that does not wait: its client decides whether to submit again.
                self.client.disown(&self.prompt);
                self.gone_for(asker, Err(error)).await;
            }
            None => {
                self.expected.not_taken();
                let attempt = self.attempt.unwrap_or_default();
                self.client.lost_on_the_way(&self.front.sessions, (&self.prompt, attempt));
            }
        }
    }

    /// Its backend was turned off by force, and may have begun it.
    pub(super) fn cut_off(mut self) {
        self.expected.not_taken();
        let attempt = self.attempt.unwrap_or_default();
        self.client.cut_off(&self.front.sessions, (&self.prompt, attempt));
    }

    /// It waits again. False if this attempt is over already.
    pub(super) fn come_back(self) -> bool {
        let (front, client) = (Arc::clone(&self.front), Arc::clone(&self.client));
        let (prompt, attempt) = (self.prompt.clone(), self.attempt.unwrap_or_default());
        // It does not count there any more.
        drop(self);
        client.wait_again(&front.sessions, (&prompt, attempt))
    }

    /// It was certainly not sent.
    pub(super) async fn not_there_now(mut self, error: GatewayError) {
        if !self.is_pending() {
            return;
        }
        info!(prompt = %self.prompt, backend = %self.backend().name(), %error,
            "A prompt could not be handed over.");
        let cause = Cause::of(&error);
        if cause == Cause::NeedsTooMuch {
            return self.needs_too_much(error).await;
        }
        let is_told = match cause {
            Cause::Prompt | Cause::Needs | Cause::NeedsHere | Cause::NeedsTooMuch => true,
            Cause::Place => matches!(error, GatewayError::JournalFailed),
        };
        let may_go_elsewhere = match cause {
            Cause::Prompt | Cause::Needs | Cause::NeedsTooMuch => false,
            Cause::NeedsHere => self.may_go_elsewhere(),
            Cause::Place => error.fault() == Fault::Backend && self.may_go_elsewhere(),
        };
        if may_go_elsewhere {
            let _waits = self.goes_elsewhere_for(NOT_THERE_FOR);
            return;
        }
        if is_told && let Some(asker) = self.front.askers.take(&self.prompt) {
            return self.gone_for(asker, Err(error)).await;
        }
        let waiting = &self.front.sessions.waiting;
        let attempts = waiting.failed(&self.prompt);
        let is_over = match cause {
            Cause::Prompt | Cause::NeedsTooMuch => true,
            Cause::Needs | Cause::NeedsHere => ATTEMPTS_MAX <= waiting.lacked_a_file(&self.prompt),
            Cause::Place => false,
        };
        match is_over {
            true => self.refused_late(&error.to_string()),
            false => self.rest(attempts).await,
        }
    }

    /// Its files are too many or too large to be brought to this backend, so it counts as one that
    /// lacks them.
    async fn needs_too_much(mut self, error: GatewayError) {
        let (waiting, here) = (&self.front.sessions.waiting, self.backend().id);
        waiting.refuses(&self.prompt, here, error.to_string().into());
        let is_over = all_refuse(&waiting.refused_by(&self.prompt), &may_run(&self.front));
        if (is_over || self.has_others_here())
            && let Some(asker) = self.front.askers.take(&self.prompt)
        {
            return self.gone_for(asker, Err(error)).await;
        }
        match is_over {
            true => self.refused_late(&error.to_string()),
            false => drop(self.come_back()),
        }
    }

    /// A proxy in front of the backend, or another program, has turned it away: that says nothing
    /// about the prompt. A caller who still waits is told so, as without a queue.
    pub(super) async fn turned_away(self, refusal: Refusal) {
        let (backend, status) = (self.backend(), refusal.parts.status.as_u16());
        info!(prompt = %self.prompt, backend = %backend.name(), status,
            "A backend has turned a prompt away.");
        self.front.sessions.waiting.turns_away(backend.id);
        if !self.is_pending() {
            return;
        }
        if let Some(asker) = self.front.askers.take(&self.prompt) {
            return self.refuse_to(asker, refusal).await;
        }
        let _waits = match self.may_go_elsewhere() {
            true => self.goes_elsewhere_for(NOT_THERE_FOR),
            // The backend is given nothing for a while.
            false => self.come_back(),
        };
    }

    /// It has not arrived, but an abandoned connection may deliver it late: for as long as that is
    /// watched it is not sent there again, so that it is never there twice.
    pub(super) fn missed(self, error: &GatewayError) {
        info!(prompt = %self.prompt, backend = %self.backend().name(), %error,
            "A prompt has not arrived.");
        let _waits = self.goes_elsewhere_for(control::LATE_FOR);
    }

    /// It waits again, and is not tried here for so long. False if this attempt is over already.
    pub(super) fn goes_elsewhere_for(self, time: Duration) -> bool {
        let (front, prompt) = (Arc::clone(&self.front), self.prompt.clone());
        let backend = self.backend().id;
        front.sessions.waiting.excludes(&prompt, backend);
        let waits = self.come_back();
        if waits {
            front.shared.tasks.clone().spawn(async move {
                pause(&front, time).await;
                front.sessions.waiting.forgives(&prompt, backend);
            });
        }
        waits
    }

    /// It waits again, and is tried again only after a pause: meanwhile its place there is free.
    async fn rest(self, attempts: u32) {
        let (front, prompt) = (Arc::clone(&self.front), self.prompt.clone());
        front.sessions.waiting.rests(&prompt);
        self.come_back();
        pause(&front, rest_after(attempts)).await;
        front.sessions.waiting.has_rested(&prompt);
    }
}

impl Cause {
    fn of(error: &GatewayError) -> Self {
        if let GatewayError::TooManyInputs { .. } | GatewayError::InputTooLarge { .. } = error {
            return Self::NeedsTooMuch;
        }
        if error.fault() == Fault::Client {
            return Self::Prompt;
        }
        let is_away = matches!(error, GatewayError::InputUnavailable { .. });
        let is_of_place =
            matches!(error, GatewayError::InputNotCopied { .. } | GatewayError::NoUserThere { .. });
        match (is_away, is_of_place) {
            (true, _) => Self::Needs,
            (false, true) => Self::NeedsHere,
            (false, false) => Self::Place,
        }
    }
}

/// Waits, but not when the process stops.
pub(super) async fn pause(front: &Front, pause: Duration) {
    tokio::select! {
        biased;
        () = front.shared.tasks.stopping() => {}
        () = sleep(pause) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_in_vain_ends_after_some_minutes() {
        let all: u64 = (1..ATTEMPTS_MAX).map(|it| rest_after(it).as_secs()).sum();
        assert!((180..=420).contains(&all), "{all}");
    }

    #[test]
    fn what_a_prompt_needs_is_told_apart_from_where_it_goes() {
        let (file, backend) = (|| "x".to_owned(), || "a".to_owned());
        let away = GatewayError::InputUnavailable { file: file(), backend: backend() };
        assert_eq!(Cause::of(&away), Cause::Needs);
        assert_eq!(Cause::of(&GatewayError::TooManyInputs { max: 1 }), Cause::NeedsTooMuch);
        let large = GatewayError::InputTooLarge { file: file(), max: 1 };
        assert_eq!(Cause::of(&large), Cause::NeedsTooMuch);
        let gone = GatewayError::InputGone { file: file(), backend: backend() };
        assert_eq!(Cause::of(&gone), Cause::Prompt);
        assert_eq!(Cause::of(&GatewayError::LinkTimeout { backend: backend() }), Cause::Place);
        assert_eq!(Cause::of(&GatewayError::JournalFailed), Cause::Place);
    }
}
