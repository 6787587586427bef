//! `POST /prompt`: from the body to a correct answer (promises P1, P2, P4, P8).
//!
//! A submission has an id before its first byte is sent and is pending from then on. It is sent
//! once, by a task of its own that runs to a known outcome whether its client waits or not. If the
//! answer is missing, the backend is asked; the client never gets a guess.

mod acceptance_tee;
mod attempts;
mod chosen_id;
mod decide;
mod folders;
pub(super) mod hand_over;
mod known;
mod queued;
mod resolve;
mod send;
mod setbacks;
mod stage_inputs;
mod take_back;
mod trial;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::response::Parts as ResponseParts;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::debug;

use super::Front;
use super::caller::Caller;
use super::error::GatewayError;
use super::forward::Target;
use super::upgrade::mint;
use super::{Answer, bodies, headers, json, limits, own_folder};
use crate::body::budget::BodyShare;
use crate::body::tee::tee;
use crate::body::{CollectLimits, ResponseBody};
use crate::comfy::answers;
use crate::comfy::labels::Labels;
use crate::comfy::{reply, submission};
use crate::config::OnJournalError;
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::routing::files::Maker;
use crate::routing::ids::{ClientId, PromptId};
use crate::routing::owners::{Person, Submitter};
use crate::routing::pending::End;
use crate::session::Client;
use crate::session::completion::{Completion, Expected};
use crate::session::control;
use crate::session::link::Link;
use crate::session::submissions::{Placed, Remembered};
use acceptance_tee::AcceptanceTee;
use decide::{Wish, decide};
use queued::Wanted;
use stage_inputs::Inputs;

/// Handles a submission: sends it, and answers with the result.
///
/// # Errors
/// It was refused, could not be placed or sent, or its state is not known within the limit.
pub async fn submit(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    front.limits.submission(front, caller, now())?;
    let (mut parts, body) = request.into_parts();
    let mut share = front.bodies.share();
    let sizes = CollectLimits {
        max: front.shared.config().prompts.max_body,
        idle: front.shared.config().server.body_timeout,
    };
    let body = bodies::json(&mut parts, body, sizes, Some(&mut share)).await?;
    let nodes = front.nodes.classes();
    let draft = submission::read(body, &nodes)?;
    let config = front.shared.config();
    draft.check_nodes(&config.server.deny_nodes)?;
    let named = draft.client_name().cloned().map(|name| caller.client(&config, name));
    let named = named.or_else(|| caller.named.clone());
    let id = named.clone().unwrap_or_else(|| caller.realm.client(mint()));
    let comes_again = named.is_some() || caller.browser.is_some();
    let client_of = if comes_again { ClientOf::Caller } else { ClientOf::ThisPrompt };
    let met = limits::meet(front, caller, &id)?;
    let by = submitter(front, caller, named.as_ref(), &id);
    let chosen = draft.prompt_id().cloned();
    let prompt = chosen.clone().unwrap_or_else(chosen_id::another);
    let ready = draft.finish(&id, &prompt, &front.shared.config().sockets.output_classes);
    chosen_id::check(front, &caller.realm, chosen.as_ref()).await?;
    let body = stage_inputs::cleaned(&front.shared, caller.folder(), ready.body)?;
    let mut askers = caller.makers(front);
    let own = Maker::Client(id.clone());
    if !askers.contains(&own) {
        askers.push(own);
    }
    let mut inputs = Inputs::of(&front.shared, &body, &askers, &nodes);
    if inputs.recall(&front.shared).await {
        inputs = Inputs::of(&front.shared, &body, &askers, &nodes);
    }
    inputs.weigh(&front.shared).await;
    let near = &inputs.nearness();
    let account = limits::account(front, caller)?;
    let told = Remembered::of(ready.output_nodes, Labels::of(&body)).counted(account);
    let completion = told.completion();
    if front.shared.config().queue.is_used() {
        let has_files = inputs.has_any();
        drop(inputs);
        let wanted =
            Wanted { id, prompt, by, told, met, parts, body, askers, client_of, has_files };
        return queued::submit(front, caller, wanted).await;
    }
    let wish = Wish { by: &by, told, near, met };
    let (client, target, Placed { link, expected, .. }) =
        decide(front, caller, &id, &prompt, &wish)?;
    // It must not count any longer than the prompt is pending.
    drop(wish);
    let sending = Sending {
        front: Arc::clone(front),
        client,
        prompt,
        target,
        link,
        expected,
        completion,
        inputs,
        askers,
        sent: now(),
        attempt: None,
        share: Some(share),
        client_of,
    };
    outcome(front, sending, parts, body).await
}

/// Who submits: the named client or the one that was created, and the person behind it. A caller
/// without any name is the same as other such callers at the address.
fn submitter(front: &Front, caller: &Caller, named: Option<&ClientId>, id: &ClientId) -> Submitter {
    let nameless = match named {
        Some(client) => {
            caller.is(front, client);
            None
        }
        None => {
            caller.is_given(front, id);
            Some(Person::Address(caller.address))
        }
    };
    Submitter { client: Some(id.clone()), person: caller.person().or(nameless) }
}

/// Runs the submission in its own task, and waits for it as long as a client would.
async fn outcome(front: &Arc<Front>, sending: Sending, parts: Parts, body: Bytes) -> Answer {
    let answered = AcceptanceTee {
        front: Arc::clone(front),
        client: Arc::clone(&sending.client),
        prompt: sending.prompt.clone(),
    };
    let unknown = GatewayError::state_unknown(&sending.target.backend.name(), &sending.prompt);
    let (tell, told) = oneshot::channel();
    front.shared.tasks.spawn(async move {
        let answer = sending.run(parts, body).await;
        // The client may be gone. The ledger has what it would have been told.
        let _ = tell.send(answer);
    });
    let limit = front.shared.config().prompts.answer_limit;
    match timeout(limit, told).await {
        Ok(Ok(answer)) => answer.map(|answer| {
            let (parts, body) = answer.into_parts();
            Response::from_parts(parts, tee(body, Box::new(answered)))
        }),
        Ok(Err(_)) if front.shared.is_leaving() => Err(GatewayError::Stopping),
        // The task ended without a result.
        Ok(Err(_)) | Err(_) => Err(unknown),
    }
}

/// A submission that is being sent.
struct Sending {
    front: Arc<Front>,
    client: Arc<Client>,
    prompt: PromptId,
    target: Target,
    link: Arc<Link>,
    expected: Expected,
    /// Is told its end, if it ends before it is answered.
    completion: Arc<Completion>,
    /// The files that it uses.
    inputs: Inputs,
    /// The clients whose files plain names refer to.
    askers: Vec<Maker>,
    /// When it was sent. A backend process that ended after this does not have it.
    sent: Instant,
    /// The attempt of a prompt that has waited; `None` for one that did not.
    attempt: Option<u32>,
    /// Its body counts against the budget until it is sent and answered.
    share: Option<BodyShare>,
    client_of: ClientOf,
}

/// Whose the client of a submission is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ClientOf {
    /// The caller named it, or has a cookie, and may come again as this client.
    Caller,
    /// It was made for this submission, which named none. If that is refused, nobody ever learns
    /// its id.
    ThisPrompt,
}

/// If the task of a prompt panicked, its backend is asked what happened to the prompt. Otherwise
/// the prompt would stay pending and its client held for ever.
impl Drop for Sending {
    fn drop(&mut self) {
        if std::thread::panicking() && self.expected.is_open() {
            if self.attempt.is_some() {
                return self.is_asked_for();
            }
            if !self.is_there() {
                self.revoke_if_lost(self.completion.known());
            }
            self.client.must_ask(&self.front.sessions, self.backend().id);
        }
    }
}

/// The result of sending it.
enum Sent {
    /// A complete answer with a status 2xx or 4xx.
    Answered(ResponseParts, Bytes),
    /// It was certainly not sent.
    Never(GatewayError),
    /// Anything else: the result is not known yet.
    Unclear,
}

impl Sending {
    /// Waits until it may be sent: it must be in the journal, so that a crash cannot forget it
    /// (P1), and the link must be open to receive its events (B5).
    async fn is_ready(&self) -> Result<(), GatewayError> {
        let limit = self.front.shared.config().prompts.link_timeout;
        let opened = async {
            tokio::select! {
                biased;
                is_open = self.link.is_open_within(limit) => is_open,
                () = self.backend().is_down() => false,
            }
        };
        let (noted, is_open) = tokio::join!(self.front.shared.records.journal.durable(), opened);
        if noted.is_err() && self.front.shared.config().on_journal_error() == OnJournalError::Refuse
        {
            return Err(GatewayError::JournalFailed);
        }
        let backend = self.backend().name();
        if is_open {
            Ok(())
        } else {
            Err(GatewayError::LinkTimeout { backend: backend.to_string() })
        }
    }

    async fn answered(mut self, parts: ResponseParts, body: Bytes) -> Answer {
        let status = parts.status;
        if status.is_client_error() {
            self.gone();
            return Ok(pass(&self.target, parts, own_folder::told_to(&self.client.id, body)));
        }
        let is_ours = answers::accepted(&body)
            .is_some_and(|(prompt, _number)| prompt == self.prompt.as_str());
        if status == StatusCode::OK && is_ours {
            self.taken().await;
            return Ok(pass(&self.target, parts, body));
        }
        // After a 500 the prompt may still be queued, and a 502 comes from a proxy in between.
        debug!(prompt = %self.prompt, %status, "An answer does not show if a prompt was queued.");
        self.look().await
    }

    async fn found(&mut self, number: Option<f64>) -> Response<ResponseBody> {
        self.taken().await;
        let mut response = json(reply::queued(&self.prompt, number));
        headers::mark(response.headers_mut(), self.backend(), self.target.reason);
        response
    }

    async fn taken(&mut self) {
        if !self.is_there() {
            self.revoke_if_lost(self.settled_end().await);
        }
    }

    /// The backend has it, as far as is known. False if it ended before that.
    fn is_there(&mut self) -> bool {
        let is_pending = self.client.accepted(&self.front.sessions, &self.prompt, self.attempt);
        match is_pending {
            true => self.expected.taken(),
            // Its end came before its answer, so its backend must not count it any more.
            false => self.expected.not_taken(),
        }
        is_pending
    }

    /// The client was told that it is lost while it was being sent. If it is there or arrives
    /// later, it must be removed.
    fn revoke_if_lost(&self, end: Option<End>) {
        if let Some(End::Lost(_)) = end {
            control::revoke(&self.front.sessions, self.backend(), &self.prompt);
        }
    }

    fn withdraw(&mut self, error: GatewayError) -> Answer {
        self.gone();
        Err(error)
    }

    /// It is nowhere, and nothing of it is kept (P4). False if this attempt is over, and the prompt
    /// waits or is elsewhere.
    fn gone(&mut self) -> bool {
        self.expected.not_taken();
        let is_gone = self.client.withdraw(&self.front.sessions, &self.prompt, self.attempt);
        // Otherwise the refused prompts of strangers would hold a socket each at the backends.
        if self.client_of == ClientOf::ThisPrompt {
            self.client.is_over();
        }
        is_gone
    }

    /// The first byte is about to be sent. False if it must not be: the prompt has ended, or this
    /// attempt is over.
    fn goes_out(&self) -> bool {
        match self.attempt {
            None => self.is_pending(),
            Some(attempt) => self.client.goes_out(&self.front.sessions, (&self.prompt, attempt)),
        }
    }

    /// False if it has ended, or this attempt is over.
    fn is_pending(&self) -> bool {
        self.client.inspect(|core, _| {
            let pending = core.pending().get(&self.prompt);
            pending.is_some_and(|it| self.attempt.is_none_or(|attempt| it.attempt() == attempt))
        })
    }

    fn backend(&self) -> &Arc<Backend> {
        &self.target.backend
    }
}

/// The answer of a backend, unchanged.
fn pass(target: &Target, mut parts: ResponseParts, body: Bytes) -> Response<ResponseBody> {
    headers::to_client(&mut parts.headers, &target.backend, target.reason);
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    parts.extensions.clear();
    Response::from_parts(parts, ResponseBody::whole(body))
}
