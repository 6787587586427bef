//! Routes of node packs, where a server may remember who used them (promises B3, B4).
//!
//! A request with a body may be an upload: a plug-in for a painting program sends the pictures of
//! its next prompt in this way. So it goes to the backend of the client's reads, holds the client
//! there, and reserves the backend as an upload does. A read may be a step of a dialogue. It only
//! makes the client prefer the backend, by `affinity.session_margin`.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request};
use hyper::body::Incoming;

use super::Answer;
use super::Front;
use super::caller::Caller;
use super::error::GatewayError;
use super::forward::{Target, forward};
use super::limits;
use super::route::{decided, reading};
use super::upload::HeldByUpload;
use crate::comfy::foreign::{is_foreign, may_be_a_session};
use crate::net::now;
use crate::routing::decision::{Decision, Refusal};
use crate::session::Sessions;
use crate::session::registry::with_client;
use crate::session::{Client, Gone};

/// True for a body to an unknown route. It may be waiting for a prompt.
#[must_use]
pub fn brings_a_body<B: http_body::Body>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH)
        && !request.body().is_end_stream()
        && is_foreign(request.uri().path())
}

/// The target of a request that names nothing, as in [`reading`]. A possible step of a dialogue is
/// remembered.
///
/// # Errors
/// Those of [`reading`].
pub fn target(front: &Front, caller: &Caller, path: &str) -> Result<Target, GatewayError> {
    let Some(id) = caller.reader(front) else { return reading(front, caller) };
    limits::meet(front, caller, &id)?;
    let (_, made) =
        with_client(&front.sessions, &id, |client| contact(&front.sessions, client, path, now()))?;
    Ok(decided(&front.shared, made?))
}

/// A contact of a client. Its kind depends on the path.
///
/// # Errors
/// Those of [`Client::contact`].
pub fn contact(
    sessions: &Arc<Sessions>,
    client: &Arc<Client>,
    path: &str,
    now: Instant,
) -> Result<Result<Decision, Refusal>, Gone> {
    if may_be_a_session(path) { client.dialogue(sessions) } else { client.contact(sessions, now) }
}

/// Passes on a body to an unknown route.
///
/// # Errors
/// Those of [`forward`].
pub async fn bring(front: &Arc<Front>, caller: &Caller, mut request: Request<Incoming>) -> Answer {
    front.limits.upload(front, caller, &mut request)?;
    let Some(id) = caller.reader(front) else {
        let target = reading(front, caller)?;
        let answer = forward(&front.shared, &target, request).await?;
        if answer.status().is_success() {
            let until = now() + front.shared.config().affinity.reservation;
            front.browsers.uploaded(&caller.spot(), target.backend.id, until);
        }
        return Ok(answer);
    };
    limits::meet(front, caller, &id)?;
    let (client, began) =
        with_client(&front.sessions, &id, |client| client.body_began(&front.sessions))?;
    let began = began?;
    let mut held = HeldByUpload::new(front, &client, began);
    let answer = forward(&front.shared, &decided(&front.shared, began), request).await?;
    held.arrived(answer.status().is_success());
    drop(held);
    // The answer confirms the reservation. A failing disk is reported elsewhere.
    let _ = front.shared.records.journal.durable().await;
    Ok(answer)
}
