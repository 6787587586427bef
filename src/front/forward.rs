//! Passes a request on to a backend and its answer back, both streamed.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;

use super::error::GatewayError;
use super::{Answer, headers};
use crate::body::{ClientFault, RequestBody, ResponseBody};
use crate::fleet::backend::Backend;
use crate::fleet::pool::{ExchangeError, Lease};
use crate::net::now;
use crate::routing::decision::Reason;
use crate::shared::Shared;

/// A backend, and why it was chosen.
#[derive(Clone, Debug)]
pub struct Target {
    pub backend: Arc<Backend>,
    pub reason: Reason,
}

/// Passes a request to its target.
///
/// # Errors
/// The exchange failed; a body that the client broke off is the client's fault.
pub async fn forward(shared: &Shared, target: &Target, request: Request<Incoming>) -> Answer {
    let (request, fault) = outgoing(shared, target, request);
    let (response, lease) = exchange(shared, target, request, &fault).await?;
    if matches!(target.reason, Reason::Placed | Reason::Moved) {
        // The answer tells of a binding that a restart must not forget.
        let _ = shared.records.journal.durable().await;
    }
    Ok(incoming(shared, target, response, lease))
}

/// Sends a request whose body is ours, and passes the answer back as it comes.
///
/// # Errors
/// As for [`forward`].
pub async fn send(shared: &Shared, target: &Target, request: Request<RequestBody>) -> Answer {
    let (response, lease) = exchange(shared, target, request, &ClientFault::default()).await?;
    Ok(incoming(shared, target, response, lease))
}

/// A client's request as it is sent on, its body streamed; and whether that broke off.
#[must_use]
pub fn outgoing(
    shared: &Shared,
    target: &Target,
    request: Request<Incoming>,
) -> (Request<RequestBody>, ClientFault) {
    let (parts, body) = request.into_parts();
    let (body, fault) = RequestBody::streamed(body, shared.config().server.body_timeout);
    (to_backend(target, parts, body), fault)
}

/// Makes a client's request one of ours, with another body.
#[must_use]
pub fn to_backend(
    target: &Target,
    mut parts: http::request::Parts,
    body: RequestBody,
) -> Request<RequestBody> {
    // A target in absolute form names us; the backend gets the path and query, byte for byte.
    if parts.uri.authority().is_some() {
        parts.uri = parts.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    }
    headers::to_backend(&mut parts.headers, &target.backend);
    if !matches!(body, RequestBody::Streamed { .. }) {
        // The length of a body that is not sent makes the next request on the connection its body
        // (RFC 9112 section 11.2); hyper writes the right one, and none over a wrong one.
        parts.headers.remove(CONTENT_LENGTH);
    }
    parts.version = http::Version::HTTP_11;
    parts.extensions.clear();
    Request::from_parts(parts, body)
}

/// How long a backend took until its answer began; an extension of the answer.
#[derive(Clone, Copy, Debug)]
pub struct BackendTime(pub Duration);

/// Sends a request and waits for the head of the answer.
///
/// # Errors
/// As for [`forward`].
pub async fn exchange(
    shared: &Shared,
    target: &Target,
    request: Request<RequestBody>,
    fault: &ClientFault,
) -> Result<(Response<Incoming>, Lease), GatewayError> {
    if !target.backend.is_up() {
        return Err(GatewayError::not_asked(&target.backend));
    }
    let limit = shared.config().server.answer_timeout;
    let began = now();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let sending = target.backend.pool.send(request, limit);
    let sent = if is_read {
        target.backend.while_up(sending).await
    } else {
        // A backend whose event loop is busy with it looks down, and answers when it is done. Who
        // is told sooner that it is lost asks again, and has it done twice.
        sending.await
    };
    let (mut response, lease) = sent.map_err(|error| {
        if fault.happened() && matches!(error, ExchangeError::Lost(_)) {
            return GatewayError::BodyBroken;
        }
        GatewayError::exchange(&target.backend.name(), error)
    })?;
    if !may_be_passed_on(&response) || !has_one_length(response.headers_mut()) {
        let lost = ExchangeError::Lost(Box::new(NotToBePassedOn));
        return Err(GatewayError::exchange(&target.backend.name(), lost));
    }
    let extensions = response.extensions_mut();
    extensions.clear();
    extensions.insert(BackendTime(now().duration_since(began)));
    Ok((response, lease))
}

/// See [`may_be_passed_on`].
#[derive(Debug, thiserror::Error)]
#[error("the answer is for this hop only")]
struct NotToBePassedOn;

/// False for an answer that means something else when it has passed one hop: a switch of protocols
/// that nobody asked for (RFC 9110 section 15.2.2), and a body in a coding that ends here and is
/// not undone here (RFC 9112 section 7). The same as for what is passed on as bytes.
fn may_be_passed_on(response: &Response<Incoming>) -> bool {
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    let is_known = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    response.status() != StatusCode::SWITCHING_PROTOCOLS && codings.all(is_known)
}

/// Of several lengths that are the same one is left; false if they differ or are none (RFC 9110
/// section 8.6). The library looks at the lengths of bodies only, and an answer to `HEAD` has none.
fn has_one_length(headers: &mut HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next().cloned() else { return true };
    let are_same = lengths.all(|length| *length == first);
    let is_length = !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit);
    headers.insert(CONTENT_LENGTH, first);
    are_same && is_length
}

/// Makes a backend's answer one of ours, streamed.
#[must_use]
pub fn incoming(
    shared: &Shared,
    target: &Target,
    response: Response<Incoming>,
    lease: Lease,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    headers::to_client(&mut parts.headers, &target.backend, target.reason);
    // The version is that of this hop (RFC 9110 section 6.2).
    parts.version = http::Version::HTTP_11;
    let idle = shared.config().server.body_timeout;
    Response::from_parts(parts, ResponseBody::streamed(body, idle, Box::new(lease)))
}
