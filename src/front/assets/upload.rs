//! `POST /api/assets` is an upload like any other. It goes to the backend of the client's next
//! prompt, and it is streamed. Its id and its file are recorded with the answer (promises B3, R11).

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;

use super::super::collected::{Collected, collected};
use super::super::forward::{Target, outgoing};
use super::super::limits;
use super::super::upload::HeldByUpload;
use super::hashes::learn_own;
use super::one::named;
use super::{Session, Settled, servers};
use crate::comfy::assets::item::Item;
use crate::fleet::backend::Backend;
use crate::front::error::GatewayError;
use crate::net::now;
use crate::routing::decision::Reason;
use crate::routing::files::{Maker, Seen};
use crate::routing::ids::{BackendId, ClientId, Located};
use crate::routing::placement::{TieBreak, place};
use crate::session::registry::with_client;
use crate::shared::Shared;

/// The largest answer to an upload.
const ANSWER_MAX: u64 = 1 << 20;

/// Handles an upload.
///
/// # Errors
/// It cannot be placed, or the error of [`super::super::forward::forward`].
pub(super) async fn upload(session: &Session<'_>, mut request: Request<Incoming>) -> Settled {
    let counted = session.front.limits.upload(session.front, session.caller, &mut request);
    counted.map_err(GatewayError::from)?;
    let servers = servers::of(session).await?;
    match session.caller.reader(session.front) {
        Some(id) => of_client(session, &servers, id, request).await,
        None => nameless(session, &servers, request).await,
    }
}

/// The upload reserves its backend, unless the client is held by a backend that cannot take it.
async fn of_client(
    session: &Session<'_>,
    servers: &[Arc<Backend>],
    id: ClientId,
    request: Request<Incoming>,
) -> Settled {
    let front = session.front;
    limits::meet(front, session.caller, &id)?;
    let is_one = |backend: BackendId| servers.iter().any(|it| it.id == backend);
    let (client, decided) =
        with_client(&front.sessions, &id, |it| it.upload_began_among(&front.sessions, &is_one))
            .map_err(GatewayError::from)?;
    let began = decided.map_err(GatewayError::from)?;
    let mut held = HeldByUpload::new(front, &client, began);
    let target = if is_one(began.backend) {
        Target { backend: Arc::clone(&front.shared.fleet.get(began.backend)), reason: began.reason }
    } else {
        placed(&front.shared, servers, Some(began.backend))?
    };
    let answer = send(&front.shared, &target, request).await?;
    let is_where_it_is_held = target.backend.id == began.backend;
    held.arrived(answer.parts.status.is_success() && is_where_it_is_held);
    drop(held);
    let makers = [Maker::Client(id), Maker::Address(session.caller.address)];
    // If the request does not name its sender, the owner is a guess, so the address is an owner as
    // well.
    let known = if session.caller.asker(front).is_some() { &makers[..1] } else { &makers[..] };
    told(session, &target, known, answer).await
}

/// An upload without a name waits, under its address, for the prompt that will use it.
async fn nameless(
    session: &Session<'_>,
    servers: &[Arc<Backend>],
    request: Request<Incoming>,
) -> Settled {
    let (front, address) = (session.front, session.caller.address);
    let spot = session.caller.spot();
    let waits = front.browsers.upload_at(&spot, now());
    let waits = servers.iter().find(|it| Some(it.id) == waits);
    let target = match waits {
        Some(backend) => Target { backend: Arc::clone(backend), reason: Reason::Reserved },
        None => placed(&front.shared, servers, None)?,
    };
    let answer = send(&front.shared, &target, request).await?;
    if answer.parts.status.is_success() {
        let until = now() + front.shared.config().affinity.reservation;
        front.browsers.uploaded(&spot, target.backend.id, until);
    }
    told(session, &target, &[Maker::Address(address)], answer).await
}

/// The one of these with the shortest queue.
fn placed(
    shared: &Shared,
    servers: &[Arc<Backend>],
    last: Option<BackendId>,
) -> Result<Target, GatewayError> {
    let mut views = shared.fleet.views(now());
    views.retain(|view| servers.iter().any(|it| it.id == view.id));
    let tie = TieBreak { last, turn: shared.fleet.turn() };
    let placed = place(&views, tie).map_err(|none| GatewayError::Refused(none.into()))?;
    Ok(Target { backend: Arc::clone(&shared.fleet.get(placed)), reason: Reason::Placed })
}

async fn send(
    shared: &Arc<Shared>,
    target: &Target,
    request: Request<Incoming>,
) -> Result<Collected, GatewayError> {
    let (request, fault) = outgoing(shared, target, request);
    collected(shared, target, request, &fault, ANSWER_MAX).await
}

/// The answer. Its asset and its file belong to these makers.
async fn told(
    session: &Session<'_>,
    target: &Target,
    makers: &[Maker],
    answer: Collected,
) -> Settled {
    let (front, backend) = (session.front, target.backend.id);
    if let Some(item) = Item::read(&answer.body).filter(|_| answer.parts.status.is_success()) {
        learn_own(session, makers, &target.backend, &item);
        if let Some(file) = item.file {
            front.shared.records.learn_file(&Located { backend, file }, makers, Seen::There);
        }
    }
    // The answer confirms the reservation and the name. A failing disk is reported elsewhere.
    let _ = front.shared.records.journal.durable().await;
    Ok(named(session, target, answer))
}
