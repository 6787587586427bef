//! Sends a prompt that has waited to the backend that was chosen for it.
//!
//! Whatever becomes of it is known before it goes anywhere else: the backend has it, refuses it, or
//! certainly does not have it. Only in the last case it waits again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;
use http::request::Parts;
use http::response::Parts as ResponseParts;
use http::{HeaderValue, Method, Request, StatusCode};
use tracing::{debug, info};

use super::attempts::Attempted;
use super::queued::USAGE_SOURCE;
use super::resolve::Nowhere;
use super::setbacks::pause;
use super::stage_inputs::Inputs;
use super::{ClientOf, Sending, pass};
use crate::comfy::submission::numbered::numbered;
use crate::comfy::{answers, refused};
use crate::front::comfy_user::SentFor;
use crate::front::error::GatewayError;
use crate::front::forward::Target;
use crate::front::waiting::known_good::GraphHash;
use crate::front::{Answer, Front};
use crate::journal::record::Kept;
use crate::net::{now, unix_millis};
use crate::routing::client::NotNow;
use crate::routing::ids::PromptId;
use crate::routing::pending::Errand;
use crate::session::Client;
use crate::session::control;
use crate::session::submissions::Placed;
use crate::session::waiting::Due;

/// The pause after the queue has chosen a prompt that does not go there now.
const NOT_NOW_FOR: Duration = Duration::from_millis(250);

/// What became of an attempt.
pub(super) enum Delivered {
    /// The backend has it, or it has ended: this is the answer to its submission.
    Answered(Answer),
    /// Nothing was queued, and no other backend would take it either.
    Refused(Refusal),
    /// Nothing was queued, because this backend lacks a part.
    Lacks(Refusal),
    /// Nothing was queued, and nothing was said about the prompt.
    TurnedAway(Refusal),
    /// It was certainly not sent.
    NotThere(GatewayError),
    /// It has not arrived, as far as two looks can tell.
    Missed(GatewayError),
    /// The process that it was sent to is gone, and may have begun it.
    Lost(GatewayError),
    /// The attempt was over before it was sent: the prompt has ended, or waits.
    Over,
}

/// What a backend said when it refused a prompt.
pub(super) struct Refusal {
    pub(super) parts: ResponseParts,
    pub(super) body: Bytes,
}

/// What an answer with a status 4xx says about a prompt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Says {
    /// A ComfyUI has checked it, and refuses it.
    Verdict,
    /// It is larger than this backend, or a proxy in front of it, accepts.
    TooLarge,
    /// Nothing: a proxy has answered, which wants a login, or fewer requests.
    Nothing,
}

impl Says {
    pub(super) fn of(status: StatusCode, body: &[u8]) -> Self {
        match status {
            StatusCode::BAD_REQUEST if refused::is_verdict(body) => Self::Verdict,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            _ => Self::Nothing,
        }
    }
}

/// Hands a prompt over that is due.
pub(in crate::front) async fn hand_over(front: Arc<Front>, due: Due) {
    let Due { prompt, client, backend, why } = due;
    let sessions = &front.sessions;
    let Some(client) = sessions.clients.get(&client) else {
        return sessions.waiting.forget(&prompt);
    };
    let Some(kept) = sessions.waiting.kept(&prompt) else {
        return sessions.waiting.forget(&prompt);
    };
    let (placed, attempt) = match client.hand_over(sessions, &prompt, (backend, Errand::Run)) {
        Ok(handed) => handed,
        Err(NotNow::NotWaiting) => return,
        Err(NotNow::HeldAt(_) | NotNow::NoRoom) => {
            // The queue sees the fleet a moment late: asked again at once, it might say the same.
            sessions.waiting.rests(&prompt);
            sessions.waiting.again(&prompt);
            pause(&front, NOT_NOW_FOR).await;
            return sessions.waiting.has_rested(&prompt);
        }
    };
    front.shared.metrics.queue.hand_overs.inc();
    let sending = sending(&front, &client, (&prompt, attempt), &kept, placed);
    let name = sending.backend().name();
    info!(%prompt, backend = &*name, attempt, why = why.as_str(), "Prompt is handed over.");
    sending.hand_over(&kept).await;
}

/// A prompt that has waited, on its way.
pub(super) fn sending(
    front: &Arc<Front>,
    client: &Arc<Client>,
    (prompt, attempt): (&PromptId, u32),
    kept: &Kept,
    placed: Placed,
) -> Sending {
    let Placed { decision, link, expected } = placed;
    let backend = front.shared.fleet.get(decision.backend);
    let nodes = front.nodes.classes();
    Sending {
        front: Arc::clone(front),
        client: Arc::clone(client),
        prompt: prompt.clone(),
        target: Target { backend, reason: decision.reason },
        link,
        expected,
        completion: client.completion_of(prompt),
        inputs: Inputs::of(&front.shared, &kept.body, &kept.askers, &nodes),
        askers: kept.askers.clone(),
        sent: now(),
        attempt: Some(attempt),
        share: None,
        // Who submits lets go of a client that is for this prompt only (`queued`).
        client_of: ClientOf::Caller,
    }
}

impl Sending {
    async fn hand_over(mut self, kept: &Kept) {
        match self.deliver(kept).await {
            Delivered::Answered(answer) => self.tell(answer),
            Delivered::Refused(refusal) => self.refuse(refusal).await,
            Delivered::Lacks(refusal) => self.lacks_a_part(refusal).await,
            Delivered::TurnedAway(refusal) => self.turned_away(refusal).await,
            Delivered::NotThere(error) => self.not_there_now(error).await,
            Delivered::Missed(error) => self.missed(&error),
            Delivered::Lost(error) => self.lose(error).await,
            Delivered::Over => self.is_asked_for(),
        }
    }

    /// Nothing more is done here. If the attempt is not over, which nobody expects, its backend is
    /// asked: a prompt must not be left without anybody who looks after it.
    pub(super) fn is_asked_for(&self) {
        if let Some(attempt) = self.attempt {
            self.client.left_to_asking(&self.front.sessions, (&self.prompt, attempt));
        }
    }

    /// Its caller, if he was not answered before, is told this.
    fn tell(&self, answer: Answer) {
        self.front.askers.tell(&self.prompt, answer);
    }

    /// The body of this attempt. ComfyUI's worker dies of two entries with one number and one id,
    /// so an attempt that is not the first has another number than all before it, by a hair.
    fn body_of(&self, kept: &Kept) -> Bytes {
        match self.attempt {
            None | Some(0 | 1) => kept.body.clone(),
            Some(_) => numbered(&kept.body, a_hair_more(kept.number, unix_millis())),
        }
    }

    /// Sends it, and finds out what became of it.
    async fn deliver(&mut self, kept: &Kept) -> Delivered {
        let (parts, body) = (self.request(kept), self.body_of(kept));
        let mut may_repeat = true;
        loop {
            return match self.attempt(&parts, &body).await {
                Attempted::EndedMeanwhile => Delivered::Over,
                Attempted::NeverSent(error) => Delivered::NotThere(error),
                Attempted::Unclear => self.search().await,
                Attempted::Answered(parts, answer) if parts.status.is_client_error() => {
                    match Says::of(parts.status, &answer) {
                        Says::Verdict => {}
                        Says::TooLarge => return Delivered::Lacks(Refusal { parts, body: answer }),
                        Says::Nothing => {
                            return Delivered::TurnedAway(Refusal { parts, body: answer });
                        }
                    }
                    let lacks = refused::read(&answer);
                    if std::mem::take(&mut may_repeat) && self.find_missing(&lacks, &body).await {
                        continue;
                    }
                    if let Some(graph) = self.graph_of(kept) {
                        self.front.known_good.forget(graph);
                    }
                    let refusal = Refusal { parts, body: answer };
                    match lacks.a_part() {
                        true => Delivered::Lacks(refusal),
                        false => Delivered::Refused(refusal),
                    }
                }
                Attempted::Answered(parts, answer) => self.answer_of(parts, answer, kept).await,
            };
        }
    }

    async fn answer_of(&mut self, parts: ResponseParts, body: Bytes, kept: &Kept) -> Delivered {
        let is_ours =
            answers::accepted(&body).is_some_and(|(prompt, _)| prompt == self.prompt.as_str());
        if parts.status != StatusCode::OK || !is_ours {
            debug!(prompt = %self.prompt, status = %parts.status,
                "An answer does not show if a prompt was queued.");
            return self.search().await;
        }
        if answers::has_no_node_errors(&body)
            && let Some(graph) = self.graph_of(kept)
        {
            self.front.known_good.add(graph, now());
        }
        self.taken().await;
        Delivered::Answered(Ok(pass(&self.target, parts, body)))
    }

    async fn search(&mut self) -> Delivered {
        let nowhere = match self.find_out().await {
            Ok(Ok(answer)) => return Delivered::Answered(Ok(answer)),
            // Its end is known, or its backend is asked from now on.
            Ok(Err(_)) => return Delivered::Over,
            Err(nowhere) => nowhere,
        };
        if !self.is_pending() {
            return Delivered::Over;
        }
        control::watch_late_arrival(&self.front.sessions, self.backend(), &self.prompt);
        let backend = self.backend().name().to_string();
        let error = GatewayError::NotQueued { backend };
        match nowhere {
            Nowhere::NeverArrived => Delivered::Missed(error),
            Nowhere::ProcessGone => Delivered::Lost(error),
            Nowhere::AttemptOver => Delivered::Over,
        }
    }

    /// Its graph, to know that it is valid.
    pub(super) fn graph_of(&self, kept: &Kept) -> Option<GraphHash> {
        GraphHash::of(kept, self.front.sessions.waiting.fleet_changes())
    }

    /// The head of the request, as if its client sent it now.
    pub(super) fn request(&self, kept: &Kept) -> Parts {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static("/prompt");
        if let Some(source) = &kept.usage_source
            && let Ok(source) = HeaderValue::from_str(source)
        {
            request.headers_mut().insert(HeaderName::from_static(USAGE_SOURCE), source);
        }
        let auth = &self.front.shared.config().auth;
        if let Some(sent_for) = self.client.id.user().and_then(|it| SentFor::later(auth, it)) {
            request.extensions_mut().insert(sent_for);
        }
        request.into_parts().0
    }
}

/// A number a little farther from zero, by as many steps as there are milliseconds in a minute.
fn a_hair_more(number: f64, unix_millis: u64) -> f64 {
    let steps = 1 + unix_millis % 60_000;
    let size = if number == 0.0 { 1e-6 } else { number.abs() };
    let more = f64::from_bits(size.to_bits() + steps);
    if more.is_finite() { more.copysign(number) } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_comfyui_says_something_about_a_prompt() {
        let verdict: &[u8] =
            br#"{"error": {"type": "no_prompt", "message": ""}, "node_errors": {}}"#;
        let (page, other): (&[u8], &[u8]) =
            (b"<html>400 Bad Request</html>", br#"{"error": "no"}"#);
        for (status, body, says) in [
            (400, verdict, Says::Verdict),
            (400, page, Says::Nothing),
            (400, other, Says::Nothing),
            (401, verdict, Says::Nothing),
            (404, page, Says::Nothing),
            (413, page, Says::TooLarge),
            (429, page, Says::Nothing),
        ] {
            assert_eq!(Says::of(StatusCode::from_u16(status).unwrap(), body), says, "{status}");
        }
    }

    #[test]
    fn another_attempt_has_another_number_in_nearly_the_same_place() {
        for number in [0.0, 1.0, -1.0, 12_345.0, -0.5, 1e30] {
            let more = a_hair_more(number, 77);
            assert_ne!(more, number);
            assert_ne!(more, a_hair_more(number, 78));
            assert!((more - number).abs() <= number.abs() * 1e-9 + 2e-6, "{number} {more}");
        }
        assert_eq!(a_hair_more(f64::MAX, 5), f64::MAX);
    }
}
