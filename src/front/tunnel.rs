//! Sockets of node packs: checked like any request, and then passed through (promise S11).
//!
//! The backend answers the handshake itself, so the packs' own protocols and extensions work end to
//! end. Bytes are passed on only after a 101 with the right `Sec-WebSocket-Accept`. Any other
//! answer is that of an ordinary request, and nothing that the client sends after it is passed on.

use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tracing::debug;

use super::Front;
use super::caller::{Caller, SOCKET_CLIENT};
use super::error::GatewayError;
use super::forward::{Target, incoming, to_backend};
use super::{Answer, comfy_user, headers};
use crate::auth::Pass;
use crate::body::{RequestBody, ResponseBody};
use crate::comfy::{pack_routes, query};
use crate::config::Config;
use crate::fleet::pool::upgraded;
use crate::net::Boxed;
use crate::routing::decision::Reason;
use crate::server::Seat;
use crate::tunnels::splice::{Ends, Patience, splice};
use crate::tunnels::{Farewell, Owner, Place};
use crate::ws::{self, Upgrade};

/// Opens a socket of a backend for a client.
///
/// # Errors
/// It is not a handshake, a server behind us may take it for `/ws`, there are too many, or the
/// backend does not answer correctly.
pub async fn tunnel(
    front: &Arc<Front>,
    caller: &Caller,
    target: &Target,
    mut request: Request<Incoming>,
) -> Answer {
    let key = ws::check(&request)?;
    if pack_routes::is_like_socket(request.uri().path()) {
        return Err(GatewayError::NotFound);
    }
    if !target.backend.is_up() {
        return Err(GatewayError::not_asked(&target.backend));
    }
    let owner = caller.reader(front).map_or(Owner::Address(caller.address), Owner::Client);
    let place =
        front.sessions.tunnels.enter(owner, target.backend.id, &front.shared.config().sockets)?;
    let open = front.limits.socket(front, caller)?;
    let client = Upgrade::of(&mut request);
    // The tunnel continues the connection, and counts as one until it ends.
    let seat = request.extensions_mut().remove::<Seat>();
    let pass = request.extensions_mut().remove::<Pass>();
    let (parts, _no_body) = request.into_parts();
    let limit = front.shared.config().server.answer_timeout;
    let mut handshake = handshake(target, parts);
    comfy_user::tell(&front.shared, &target.backend, &mut handshake).await?;
    let asked = target.backend.pool.send_anew(handshake, limit);
    let answered = target.backend.while_up(asked).await;
    let (response, lease) =
        answered.map_err(|error| GatewayError::exchange(&target.backend.name(), error))?;
    if matches!(target.reason, Reason::Placed | Reason::Moved) {
        // The answer reveals a binding, which must survive a restart.
        let _ = front.shared.records.journal.durable().await;
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(incoming(&front.shared, target, response, lease));
    }
    if !ws::is_accepted(&response, &key) {
        return Err(GatewayError::BadUpgrade { backend: target.backend.name().to_string() });
    }
    let answer = opened(target, response.headers().clone());
    let barred = front.admission.until_over(pass);
    let passing = pass_on(Arc::clone(front), target.clone(), (client, response), place, barred);
    front.shared.tasks.spawn(async move {
        passing.await;
        drop((seat, open));
    });
    Ok(answer)
}

/// The client's handshake for the backend: unchanged, without headers of this hop and without the
/// client's id.
fn handshake(target: &Target, mut parts: Parts) -> Request<RequestBody> {
    parts.uri = unnamed(&parts.uri);
    let mut request = to_backend(target, parts, RequestBody::Empty);
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    request
}

/// The path and the query of a URL without the client's id.
fn unnamed(uri: &Uri) -> Uri {
    let Some(with) =
        uri.query().filter(|query| query.contains('%') || query.contains(SOCKET_CLIENT))
    else {
        return uri.clone();
    };
    let without = match query::without_parameter(with, SOCKET_CLIENT) {
        query if query.is_empty() => uri.path().to_owned(),
        query => format!("{}?{query}", uri.path()),
    };
    without.parse().unwrap_or_else(|_| uri.clone())
}

fn opened(target: &Target, mut headers: HeaderMap) -> Response<ResponseBody> {
    headers::to_client(&mut headers, &target.backend, target.reason);
    headers.remove(CONTENT_LENGTH);
    headers.remove(TRANSFER_ENCODING);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

/// Passes bytes until the tunnel ends.
async fn pass_on(
    front: Arc<Front>,
    target: Target,
    (client, response): (Upgrade, Response<Incoming>),
    place: Place,
    barred: Boxed<'static, ()>,
) {
    let (client, backend) = tokio::join!(client.wire(), upgraded(response));
    let (Some(client), Some(backend)) = (client, backend) else { return };
    let patience = patience(&front.shared.config());
    let told = async {
        tokio::select! {
            biased;
            farewell = place.told_to_end() => farewell,
            () = front.shared.tasks.stopping() => Farewell::Restarting,
            () = barred => Farewell::Barred,
        }
    };
    front.shared.metrics.tunnels.inc();
    front.shared.metrics.tunnels_opened.inc();
    let end = splice(Ends { client, backend }, patience, told, || !target.backend.is_up()).await;
    front.shared.metrics.tunnels.dec();
    debug!(backend = %target.backend.name(), end = end.as_str(), "A tunnel ended.");
}

fn patience(config: &Config) -> Patience {
    Patience {
        ping: config.sockets.ping_interval,
        stall: config.server.body_timeout,
        linger: config.sockets.close_wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_does_not_see_who_is_named_to_us() {
        let sent = |text: &str| unnamed(&text.parse().unwrap()).to_string();
        assert_eq!(sent("/p/?EIO=4&mooring_client=x"), "/p/?EIO=4");
        assert_eq!(sent("/p?mooring_client=x"), "/p");
        assert_eq!(sent("/p%2Fq?clientId=%20x"), "/p%2Fq?clientId=%20x");
        assert_eq!(sent("/p"), "/p");
    }
}
