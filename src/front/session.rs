//! Routes of node packs, where a server may remember who used them (promises B3, B4).
//!
//! A body that is sent to one is an upload for all that is known: a painter's plug-in puts the
//! pictures of its next prompt there. So it goes where the client's reads go, holds it there, and
//! reserves the backend as an upload does. A read that may be a step of a dialogue only makes the
//! client prefer the backend, by `affinity.session_margin`.

use std::sync::Arc;

use http::{Method, Request};
use hyper::body::Incoming;

use super::Answer;
use super::forward::{Target, forward};
use super::identify::Who;
use super::route::{decided, reading};
use super::upload::HeldByUpload;
use crate::client::registry::with_client;
use crate::client::{Client, Gone};
use crate::comfy::foreign::{is_foreign, may_be_a_session};
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::net::now;
use crate::routing::decision::{Decision, Refusal};

/// True for a body to a route that nobody knows: it waits for a prompt, for all that is known.
#[must_use]
pub fn brings_a_body<B: http_body::Body>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH)
        && !request.body().is_end_stream()
        && is_foreign(request.uri().path())
}

/// Where a request goes that names nothing: as [`reading`], and what may be a step of a dialogue
/// is remembered.
///
/// # Errors
/// As for [`reading`].
pub fn target(gateway: &Gateway, who: &Who, path: &str) -> Result<Target, GatewayError> {
    let Some(id) = who.reader(gateway) else { return reading(gateway, who) };
    let (_, made) = with_client(gateway, &id, |client| contact(gateway, client, path))?;
    Ok(decided(gateway, made?))
}

/// A contact of a client, of whatever kind its path says.
///
/// # Errors
/// As for [`Client::contact`].
pub fn contact(
    gateway: &Gateway,
    client: &Client,
    path: &str,
) -> Result<Result<Decision, Refusal>, Gone> {
    if may_be_a_session(path) { client.dialogue(gateway) } else { client.contact(gateway) }
}

/// Passes a body on to a route that nobody knows.
///
/// # Errors
/// As for [`forward`].
pub async fn bring(gateway: &Arc<Gateway>, who: &Who, request: Request<Incoming>) -> Answer {
    let Some(id) = who.reader(gateway) else {
        let target = reading(gateway, who)?;
        let answer = forward(gateway, &target, request).await?;
        if answer.status().is_success() {
            let until = now() + gateway.config.affinity.reservation;
            gateway.browsers.uploaded(who.address, target.backend.id, until);
        }
        return Ok(answer);
    };
    let (client, began) = with_client(gateway, &id, |client| client.body_began(gateway))?;
    let began = began?;
    let mut held = HeldByUpload::new(gateway, &client, began);
    let answer = forward(gateway, &decided(gateway, began), request).await?;
    held.arrived(answer.status().is_success());
    drop(held);
    // The reservation is acknowledged with it. A disk that fails is said by others.
    let _ = gateway.journal.durable().await;
    Ok(answer)
}
