//! Requests that name a prompt go to the backend that has it, whoever sends them (promises R2, P7).

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use tracing::debug;

use super::Front;
use super::broadcast_lookup::{self, Where};
use super::caller::Caller;
use super::collected::{Collected, collected};
use super::error::GatewayError;
use super::forward::{Target, to_backend};
use super::route::of_ledger;
use super::visible_owners::VisibleOwners;
use super::{Answer, headers, history_cache, json};
use crate::body::{ClientFault, RequestBody};
use crate::comfy::lists::history::HistoryList;
use crate::fleet::api::ANSWER_MAX;
use crate::fleet::backend::Backend;
use crate::net::{now, sleep};
use crate::routing::decision::Reason;
use crate::routing::ids::PromptId;
use crate::routing::ledger::State;
use crate::routing::pending::End;
use crate::session::Sessions;
use crate::shared::Shared;

/// Where a prompt is, as far as that is known.
#[derive(Debug)]
pub enum Whereabouts {
    /// This backend has it, or had it.
    On(Arc<Backend>),
    /// No backend has it any more. This is its history entry.
    Lost(Bytes),
    /// It waits in the gateway.
    Waits,
    /// It is unknown, or its client deleted it.
    Nowhere,
}

/// `GET /history/{prompt}`.
///
/// # Errors
/// The backend of the prompt is down or did not answer.
pub async fn history_of(
    front: &Arc<Front>,
    caller: &Caller,
    prompt: &str,
    request: Request<Incoming>,
) -> Answer {
    let Ok(prompt) = PromptId::parse(prompt) else {
        // No client can have submitted it.
        return Ok(json("{}"));
    };
    let backend = match find(front, caller, &prompt).await? {
        Whereabouts::On(backend) => backend,
        // ComfyUI's answer for an unknown id.
        Whereabouts::Nowhere | Whereabouts::Waits => return Ok(json("{}")),
        Whereabouts::Lost(entry) => return Ok(json(one(&prompt, &entry))),
    };
    let whose = VisibleOwners::of(front, caller);
    let by =
        front.shared.records.ledger_of(&prompt).get(&prompt, now()).map(|record| record.by.clone());
    let by = by.unwrap_or_default();
    if let Some(raw) = front.history_cache.get(&prompt) {
        let entry = history_cache::told(&front.shared, &backend, raw, &whose, &by);
        let mut answer = json(one(&prompt, &entry));
        headers::mark(answer.headers_mut(), &backend, Reason::Ledger);
        return Ok(answer);
    }
    let target = of_ledger(&backend)?;
    let (mut parts, _no_body) = request.into_parts();
    // The body is needed. The server removes it from the answer to a HEAD.
    parts.method = Method::GET;
    let answer = when_due(&front.sessions, &target, &prompt, parts).await?;
    if is_empty(&answer)
        && let Some(entry) = lost(&front.shared, &prompt)
    {
        return Ok(json(one(&prompt, &entry)));
    }
    if answer.parts.status != StatusCode::OK {
        let told = answer.body.clone();
        return Ok(answer.answer(told));
    }
    let entry = history_cache::entry_in(&answer.body, &prompt);
    let history = match entry.map_err(|error| asking_failed(&backend, &error))? {
        Some(entry) => {
            front.history_cache.keep(&prompt, &entry);
            one(&prompt, &history_cache::told(&front.shared, &backend, entry, &whose, &by))
        }
        None => HistoryList::default().finish(),
    };
    Ok(answer.answer(history.into()))
}

/// A history of one entry.
fn one(prompt: &PromptId, entry: &[u8]) -> Vec<u8> {
    let mut history = HistoryList::default();
    history.push(prompt.as_str(), entry);
    history.finish()
}

/// The entry of a prompt that is lost.
#[must_use]
pub fn lost(shared: &Shared, prompt: &PromptId) -> Option<Bytes> {
    let record = shared.records.prompt(prompt)?;
    let State::Ended(End::Lost(loss)) = record.state else { return None };
    history_cache::lost(shared, prompt, &record, loss)
}

/// ComfyUI's `{}`: the prompt is unknown, or not in the history yet.
fn is_empty(answer: &Collected) -> bool {
    answer.parts.status == StatusCode::OK && answer.body.as_ref() == b"{}"
}

/// The backend that has a prompt: from the ledger, or found by asking all backends from time to
/// time.
///
/// # Errors
/// The backend is known and down, and the entry is not kept here.
pub async fn find(
    front: &Front,
    caller: &Caller,
    prompt: &PromptId,
) -> Result<Whereabouts, GatewayError> {
    if front.shared.records.ledger_of(prompt).is_unlisted(prompt, now()) {
        return Ok(Whereabouts::Nowhere);
    }
    let known = front.shared.records.prompt(prompt);
    // For a user, prompts of other users and prompts without an owner do not exist.
    if !caller.realm.owns(&known.as_ref().map(|it| it.by.clone()).unwrap_or_default()) {
        return Ok(Whereabouts::Nowhere);
    }
    if known.as_ref().is_some_and(|it| it.is_waiting()) {
        return Ok(Whereabouts::Waits);
    }
    let found = match &known {
        // A record without a backend had one that is not configured any more. No other backend is
        // asked.
        Some(record) => record.backend,
        None => {
            let prompt = vec![prompt.clone()];
            let found =
                broadcast_lookup::look_for(front, caller.address, prompt, Where::Anywhere).await;
            found.into_iter().next().map(|(_, backend)| backend)
        }
    };
    let lost = lost(&front.shared, prompt);
    match (found.map(|id| front.shared.fleet.get(id)), lost) {
        (Some(backend), _) if backend.is_up() => Ok(Whereabouts::On(backend)),
        // Its backend is gone, so the prompt is lost.
        (_, Some(entry)) => Ok(Whereabouts::Lost(entry)),
        (Some(backend), None) if front.history_cache.get(prompt).is_some() => {
            Ok(Whereabouts::On(backend))
        }
        (Some(backend), None) => Err(GatewayError::not_asked(&backend)),
        (None, None) => Ok(Whereabouts::Nowhere),
    }
}

/// ComfyUI reports the end before it writes the history. So after a recent end, an empty answer
/// makes us ask again for a while (P7).
async fn when_due(
    sessions: &Arc<Sessions>,
    target: &Target,
    prompt: &PromptId,
    parts: Parts,
) -> Result<Collected, GatewayError> {
    let deadline = now() + sessions.shared.config().prompts.history_wait;
    let no_fault = ClientFault::default();
    loop {
        let request = to_backend(target, parts.clone(), RequestBody::Empty);
        let answer = collected(&sessions.shared, target, request, &no_fault, ANSWER_MAX).await?;
        if !is_empty(&answer)
            || deadline <= now()
            || !history_cache::is_due(sessions, &target.backend, prompt)
        {
            return Ok(answer);
        }
        sleep(history_cache::LOOK_AGAIN).await;
    }
}

/// One of our own requests got no usable answer.
pub fn asking_failed(backend: &Backend, error: &dyn Display) -> GatewayError {
    debug!(backend = %backend.name(), %error, "A request to a backend got no answer.");
    GatewayError::BackendDown { backend: backend.name().to_string() }
}
