//! Reserves the id of a submission and places it.

use std::sync::Arc;
use std::time::Instant;

use tracing::info;

use crate::front::Front;
use crate::front::caller::Caller;
use crate::front::error::GatewayError;
use crate::front::forward::Target;
use crate::masked::mask;
use crate::net::now;
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::owners::Submitter;
use crate::session::Client;
use crate::session::registry::{Known, admit, with_client};
use crate::session::submissions::{Nearness, Placed, Remembered};

/// What a placement depends on.
pub(super) struct Wish<'a> {
    pub(super) by: &'a Submitter,
    pub(super) told: Remembered,
    pub(super) near: &'a Nearness,
    /// Whether the client was met just now, if that is counted.
    pub(super) met: Option<Known>,
}

/// Places the submission: its id is reserved in the ledger, the prompt is pending, and the client's
/// link is being opened.
pub(super) fn decide(
    front: &Arc<Front>,
    caller: &Caller,
    id: &ClientId,
    prompt: &PromptId,
    wish: &Wish<'_>,
) -> Result<(Arc<Client>, Target, Placed), GatewayError> {
    let waiting = enter(front, caller, id, (prompt, wish.by), wish.met)?;
    let decided = with_client(&front.sessions, id, |client| {
        if let Some((backend, until)) = waiting {
            client.reserve(&front.sessions, backend, until);
        }
        client.submit(&front.sessions, prompt, wish.told.clone(), wish.near)
    });
    let placed = match decided {
        Ok((client, Ok(placed))) => Ok((client, placed)),
        Ok((_, Err(refusal))) => Err(GatewayError::from(refusal)),
        Err(full) => Err(full.into()),
    };
    let (client, placed) =
        placed.inspect_err(|_| front.shared.records.ledger_of(prompt).withdraw(prompt))?;
    let decision = placed.decision;
    let backend = front.shared.fleet.get(decision.backend);
    let (client_hash, placement) = (mask(id), decision.reason.as_str());
    info!(client = %client_hash, %prompt, backend = %backend.name(), placement, "Prompt placed.");
    Ok((client, Target { backend, reason: decision.reason }, placed))
}

/// Reserves the id of a submission in the ledger. Returns where an upload waits that its client
/// made before it told its name.
pub(super) fn enter(
    front: &Front,
    caller: &Caller,
    id: &ClientId,
    (prompt, by): (&PromptId, &Submitter),
    met: Option<Known>,
) -> Result<Option<(BackendId, Instant)>, GatewayError> {
    let has_come_back = front.sessions.adoption.has(id);
    if has_come_back {
        // Checked before the id is reserved, because a prompt with this id may be running already.
        admit(&front.sessions, id)?;
    }
    let reserved = front.shared.records.reserve(prompt, by.clone());
    reserved.map_err(|_known| GatewayError::PromptIdKnown)?;
    // It may have been made a moment ago, to be counted.
    let is_new = met == Some(Known::SinceNow) || front.sessions.clients.get(id).is_none();
    Ok(if is_new { front.browsers.take_upload(&caller.spot(), now()) } else { None })
}
