//! One submission, tried on several backends: it is sent to the first one that can be reached and
//! has the nodes and models. Another one is tried only while it is certain that no backend has the
//! submission (promise P2).

use std::future::pending;

use bytes::Bytes;
use http::request::Parts;
use http::response::Parts as ResponseParts;
use http::{Response, StatusCode};
use smallvec::SmallVec;
use tracing::info;

use super::super::Answer;
use super::super::forward::Target;
use super::stage_inputs::Inputs;
use super::{Sending, Sent, pass};
use crate::body::ResponseBody;
use crate::comfy::refused::{self, Lacks};
use crate::front::error::{Fault, GatewayError};
use crate::net::now;
use crate::routing::decision::NotThere;
use crate::routing::ids::BackendId;
use crate::session::submissions::Placed;

/// The result of an attempt.
pub(super) enum Attempted {
    /// It ended before it was sent.
    EndedMeanwhile,
    /// A complete answer with a status 2xx or 4xx.
    Answered(ResponseParts, Bytes),
    NeverSent(GatewayError),
    Unclear,
}

/// Backends that certainly did not get the submission, or that refused it.
type Tried = SmallVec<[BackendId; 4]>;

/// Why it is tried elsewhere, or fails.
enum Setback {
    /// It was certainly not sent.
    NeverSent(GatewayError),
    /// It was refused because a node or a model is missing, which another backend may have. Nothing
    /// was queued.
    Refused(Refusal),
}

impl Setback {
    fn lacks_link(&self) -> bool {
        match self {
            Self::NeverSent(error) => matches!(error, GatewayError::LinkTimeout { .. }),
            Self::Refused(_) => false,
        }
    }
}

/// A refusal, unchanged, and the backend that sent it.
struct Refusal {
    target: Target,
    parts: ResponseParts,
    body: Bytes,
}

impl Sending {
    /// Sends it, to the first backend that can be reached and has what it needs.
    pub(super) async fn run(mut self, parts: Parts, body: Bytes) -> Answer {
        let mut tried = Tried::new();
        let mut first_refusal = None;
        let mut may_repeat = true;
        let mut may_wait = true;
        loop {
            let setback = match self.attempt(&parts, &body).await {
                Attempted::EndedMeanwhile => return self.ended_meanwhile().await,
                Attempted::Unclear => {
                    // The search can take long and does not need the body.
                    drop(body);
                    self.share = None;
                    return self.look().await;
                }
                Attempted::Answered(parts, answer) if parts.status == StatusCode::BAD_REQUEST => {
                    let lacks = refused::read(&answer);
                    if std::mem::take(&mut may_repeat) && self.find_missing(&lacks, &body).await {
                        continue;
                    }
                    if !lacks.a_part() && first_refusal.is_none() {
                        return self.answered(parts, answer).await;
                    }
                    let target = self.target.clone();
                    Setback::Refused(Refusal { target, parts, body: answer })
                }
                Attempted::Answered(parts, body) => return self.answered(parts, body).await,
                Attempted::NeverSent(error) => Setback::NeverSent(error),
            };
            let lacks_link = setback.lacks_link();
            tried.push(self.backend().id);
            let goes_on = self.goes_on(&setback, &tried);
            match setback {
                Setback::Refused(refusal) => drop(first_refusal.get_or_insert(refusal)),
                Setback::NeverSent(_) if goes_on => {}
                Setback::NeverSent(_)
                    if lacks_link && std::mem::take(&mut may_wait) && self.is_linked().await =>
                {
                    tried.pop();
                    continue;
                }
                Setback::NeverSent(error) if first_refusal.is_none() => {
                    return self.withdraw(error);
                }
                Setback::NeverSent(_) => {}
            }
            if !goes_on && let Some(refusal) = first_refusal {
                return Ok(self.refused(refusal));
            }
        }
    }

    /// Sends it once to its backend, after its files are there.
    pub(super) async fn attempt(&mut self, parts: &Parts, body: &Bytes) -> Attempted {
        let backend = &self.target.backend;
        let prepared = async {
            tokio::join!(self.is_ready(), self.inputs.brought(&self.front, backend, body.clone()))
        };
        // Of one that was submitted directly the copies are finished and noted, whatever ends.
        let is_queued = self.attempt.is_some();
        let ended = async {
            match is_queued {
                true => drop(self.completion.end().await),
                false => pending().await,
            }
        };
        let (ready, brought) = tokio::select! {
            biased;
            () = ended => return Attempted::EndedMeanwhile,
            prepared = prepared => prepared,
        };
        let body = match ready.and(brought) {
            Ok(body) => body,
            Err(error) => return Attempted::NeverSent(error),
        };
        if !self.goes_out() {
            // It has ended while its link was dialled: nothing was sent.
            return Attempted::EndedMeanwhile;
        }
        // If a process ended while the link was awaited, the submission does not go to that
        // process.
        self.sent = now();
        match self.send(parts.clone(), body).await {
            Sent::Answered(parts, body) => Attempted::Answered(parts, body),
            Sent::Never(error) => Attempted::NeverSent(error),
            Sent::Unclear => Attempted::Unclear,
        }
    }

    /// It stays where it is, because its client is held there and the link could not be opened. It
    /// waits for the link once more, also while the backend is down. A server that refuses a socket
    /// for a moment, or was restarted, is no reason to lose work.
    async fn is_linked(&self) -> bool {
        let limit = self.front.shared.config().prompts.link_timeout;
        self.link.is_open_within(limit).await
    }

    /// True if files that its backend does not have were found elsewhere.
    pub(super) async fn find_missing(&mut self, lacks: &Lacks, body: &[u8]) -> bool {
        let (front, target) = (&self.front, &self.target.backend);
        let is_news = self.inputs.find_missing(&front.shared, target, lacks, &self.askers).await;
        if is_news {
            self.inputs = Inputs::of(&front.shared, body, &self.askers, &front.nodes.classes());
        }
        is_news
    }

    /// Places it on another backend, if that makes sense.
    fn goes_on(&mut self, setback: &Setback, tried: &[BackendId]) -> bool {
        match setback {
            Setback::NeverSent(error) => {
                error.fault() == Fault::Backend && self.goes_elsewhere(NotThere::NeverSent, tried)
            }
            Setback::Refused(_) => self.goes_elsewhere(NotThere::Refused, tried),
        }
    }

    /// The answer of the first backend that refused it. Nothing of the submission is kept.
    fn refused(mut self, refusal: Refusal) -> Response<ResponseBody> {
        self.gone();
        pass(&refusal.target, refusal.parts, refusal.body)
    }

    /// Places it again (P2). False if it stays where it is.
    fn goes_elsewhere(&mut self, why: NotThere, tried: &[BackendId]) -> bool {
        let near = self.inputs.nearness();
        let placed =
            self.client.submit_elsewhere(&self.front.sessions, &self.prompt, (why, tried), &near);
        let Some(Placed { decision, link, expected }) = placed else { return false };
        let backend = self.front.shared.fleet.get(decision.backend);
        info!(prompt = %self.prompt, from = %self.backend().name(), backend = %backend.name(),
            why = why.as_str(), "Prompt goes elsewhere: it is not there.");
        self.target = Target { backend, reason: decision.reason };
        self.link = link;
        self.expected = expected;
        true
    }
}
