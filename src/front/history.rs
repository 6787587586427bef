//! Questions that name a prompt go to the backend that has it, whoever asks (promises R2, P7).

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::forward::{Target, forward, send, to_backend};
use super::identify::Who;
use super::route::{of_ledger, reading};
use super::{Answer, json};
use crate::body::{RequestBody, ResponseBody};
use crate::client::tell::lost_message;
use crate::comfy::answers::Sighting;
use crate::comfy::reply;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::net::{now, sleep, unix_millis};
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::ledger::State;
use crate::routing::pending::End;

/// The pause between two looks for a history entry that is due.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// `GET /history/{prompt}`.
///
/// # Errors
/// The backend that has it is down or did not answer.
pub async fn history_of(
    gateway: &Arc<Gateway>,
    who: &Who,
    prompt: &str,
    request: Request<Incoming>,
) -> Answer {
    let Ok(prompt) = PromptId::parse(prompt) else {
        return forward(gateway, &reading(gateway, who)?, request).await;
    };
    let lost = lost(gateway, &prompt);
    let found = match (target_of(gateway, &prompt).await, &lost) {
        (Ok(found), _) => found,
        // Its backend is gone, and so is the prompt: that much is known.
        (Err(_down), Some(_)) => None,
        (Err(down), None) => return Err(down),
    };
    let answer = match found {
        // As ComfyUI says of an id that it does not know.
        None => json("{}"),
        Some(target) => {
            let (parts, _no_body) = request.into_parts();
            when_due(gateway, &target, &prompt, parts).await?
        }
    };
    match lost {
        Some(entry) if is_empty(&answer) => Ok(json(entry)),
        Some(_) | None => Ok(answer),
    }
}

/// The entry of a lost prompt, from the ledger: whoever polls its history comes to an end (P6).
fn lost(gateway: &Gateway, prompt: &PromptId) -> Option<Vec<u8>> {
    let record = gateway.ledger().get(prompt, now()).cloned()?;
    let State::Ended(End::Lost(loss)) = record.state else { return None };
    let backend = record.backend.map(|backend| gateway.fleet.get(backend).name.as_str());
    let backend = backend.unwrap_or("its backend");
    Some(reply::history_lost(prompt, &lost_message(loss, backend), unix_millis()))
}

/// ComfyUI's `{}`: it does not know the prompt, or not yet.
fn is_empty(answer: &Response<ResponseBody>) -> bool {
    let length = answer.body().size_hint().exact();
    answer.status() == StatusCode::OK && length == Some(2)
}

/// `GET /api/jobs/{prompt}`.
///
/// # Errors
/// The backend that has it is down or did not answer.
pub async fn job(
    gateway: &Arc<Gateway>,
    who: &Who,
    prompt: &str,
    request: Request<Incoming>,
) -> Answer {
    let target = match PromptId::parse(prompt) {
        Ok(prompt) => target_of(gateway, &prompt).await?,
        Err(_) => None,
    };
    let target = match target {
        Some(target) => target,
        // ComfyUI's own 404.
        None => reading(gateway, who)?,
    };
    forward(gateway, &target, request).await
}

/// The backend that has a prompt: by the ledger, or found by asking all of them once in a while.
///
/// # Errors
/// It is known and down.
async fn target_of(gateway: &Gateway, prompt: &PromptId) -> Result<Option<Target>, GatewayError> {
    let known = gateway.ledger().get(prompt, now()).cloned();
    let found = match known {
        // One without a backend had one that is not configured any more: no stranger is asked.
        Some(record) => record.backend,
        None => ask_all(gateway, prompt).await,
    };
    found.map(|backend| of_ledger(gateway.fleet.get(backend))).transpose()
}

/// Asks every backend that is up for an id that nobody knows, at most once in five seconds, and
/// learns where it is (R2).
pub async fn ask_all(gateway: &Gateway, prompt: &PromptId) -> Option<BackendId> {
    if !gateway.ledger().may_ask(prompt, now()) {
        return None;
    }
    let limit = gateway.config.fleet.probe_timeout;
    let asked = gateway.fleet.iter().filter(|backend| backend.is_up()).map(|backend| async move {
        match backend.look_for(prompt, limit).await {
            Ok(Sighting::Absent) | Err(_) => None,
            Ok(Sighting::Queued { .. } | Sighting::Running { .. } | Sighting::Ended(_)) => {
                Some(backend.id)
            }
        }
    });
    let answers = futures_util::future::join_all(asked).await;
    let found = answers.into_iter().flatten().next()?;
    gateway.ledger().learn(prompt, found, now());
    Some(found)
}

/// ComfyUI tells the end before it writes the history: right after an end that we have told, an
/// empty answer is asked for again for a while (P7).
async fn when_due(gateway: &Gateway, target: &Target, prompt: &PromptId, parts: Parts) -> Answer {
    let deadline = now() + gateway.config.prompts.history_wait;
    loop {
        let request = to_backend(target, parts.clone(), RequestBody::Empty);
        let answer = send(gateway, target, request).await?;
        if parts.method != Method::GET
            || !is_empty(&answer)
            || deadline <= now()
            || !is_due(gateway, prompt)
        {
            return Ok(answer);
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn is_due(gateway: &Gateway, prompt: &PromptId) -> bool {
    let client = gateway.ledger().get(prompt, now()).and_then(|record| record.client.clone());
    client
        .and_then(|client| gateway.clients.get(&client))
        .is_some_and(|client| client.history_is_due(prompt))
}
