//! Passes a request to a backend and the answer back, both streamed.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;

use super::comfy_user::{self, SentFor};
use super::error::GatewayError;
use super::limits::UploadMeter;
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
/// The exchange failed. If the client broke off its body, that is the client's fault.
pub async fn forward(shared: &Shared, target: &Target, request: Request<Incoming>) -> Answer {
    let (request, fault) = outgoing(shared, target, request);
    let (response, lease) = exchange(shared, target, request, &fault).await?;
    if matches!(target.reason, Reason::Placed | Reason::Moved) {
        // The answer reveals a binding, which must survive a restart.
        let _ = shared.records.journal.durable().await;
    }
    Ok(incoming(shared, target, response, lease))
}

/// Sends a request with a body of ours, and streams the answer back.
///
/// # Errors
/// Those of [`forward`].
pub async fn send(shared: &Shared, target: &Target, request: Request<RequestBody>) -> Answer {
    let (response, lease) = exchange(shared, target, request, &ClientFault::default()).await?;
    Ok(incoming(shared, target, response, lease))
}

/// A client's request with a streamed body, ready to be sent, and whether that body broke off.
#[must_use]
pub fn outgoing(
    shared: &Shared,
    target: &Target,
    request: Request<Incoming>,
) -> (Request<RequestBody>, ClientFault) {
    let (parts, body) = request.into_parts();
    let (body, fault) = RequestBody::streamed(body, shared.config().server.body_timeout);
    let body = match parts.extensions.get::<UploadMeter>() {
        Some(meter) => body.counted_by(meter.look()),
        None => body,
    };
    (to_backend(target, parts, body), fault)
}

/// Turns a client's request into one of ours, with another body.
#[must_use]
pub fn to_backend(
    target: &Target,
    mut parts: http::request::Parts,
    body: RequestBody,
) -> Request<RequestBody> {
    // A target in absolute form contains our address. The backend gets only the path and the query,
    // byte for byte.
    if parts.uri.authority().is_some() {
        parts.uri = parts.uri.path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    }
    headers::to_backend(&mut parts.headers, &target.backend);
    if !matches!(body, RequestBody::Streamed { .. }) {
        // With a length but no body, the backend would read the next request as the body (RFC 9112
        // section 11.2). hyper writes the right length, but it does not correct a wrong one.
        parts.headers.remove(CONTENT_LENGTH);
    }
    parts.version = http::Version::HTTP_11;
    let said = std::mem::take(&mut parts.extensions);
    SentFor::copy(&said, &mut parts.extensions);
    if let Some(meter) = said.get::<UploadMeter>() {
        parts.extensions.insert(meter.clone());
    }
    Request::from_parts(parts, body)
}

/// How long the backend took until the answer began. It is an extension of the answer.
#[derive(Clone, Copy, Debug)]
pub struct BackendTime(pub Duration);

/// Sends a request and waits for the head of the answer.
///
/// # Errors
/// Those of [`forward`], or the body was more than its user may upload.
pub async fn exchange(
    shared: &Shared,
    target: &Target,
    mut request: Request<RequestBody>,
    fault: &ClientFault,
) -> Result<(Response<Incoming>, Lease), GatewayError> {
    if !target.backend.is_up() {
        return Err(GatewayError::not_asked(&target.backend));
    }
    comfy_user::tell(shared, &target.backend, &mut request).await?;
    let meter = request.extensions().get::<UploadMeter>().cloned();
    let limit = shared.config().server.answer_timeout;
    let began = now();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let sending = target.backend.pool.send(request, limit);
    let sent = if is_read {
        target.backend.while_up(sending).await
    } else {
        // A backend whose event loop is busy with the request looks down and answers later. If the
        // client were told earlier that the request is lost, it would ask again, and the work would
        // be done twice.
        sending.await
    };
    let (mut response, lease) = sent.map_err(|error| {
        if fault.happened() && matches!(error, ExchangeError::Lost(_)) {
            let reached = meter.as_ref().and_then(UploadMeter::reached);
            return reached.map_or(GatewayError::BodyBroken, GatewayError::LimitReached);
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

/// False for an answer whose meaning changes when it is passed on: a switch of protocols that
/// nobody asked for (RFC 9110 section 15.2.2), and a transfer coding that is not removed here (RFC
/// 9112 section 7). The rule is the same for what is passed on as bytes.
fn may_be_passed_on(response: &Response<Incoming>) -> bool {
    let mut codings = response.headers().get_all(TRANSFER_ENCODING).iter();
    let is_known = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    response.status() != StatusCode::SWITCHING_PROTOCOLS && codings.all(is_known)
}

/// Reduces several equal lengths to one. False if they differ or are not valid (RFC 9110 section
/// 8.6). The library checks only the lengths of bodies, and the answer to a `HEAD` has no body.
fn has_one_length(headers: &mut HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next().cloned() else { return true };
    let are_same = lengths.all(|length| *length == first);
    let is_length = !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit);
    headers.insert(CONTENT_LENGTH, first);
    are_same && is_length
}

/// Turns a backend's answer into one of ours, streamed.
#[must_use]
pub fn incoming(
    shared: &Shared,
    target: &Target,
    response: Response<Incoming>,
    lease: Lease,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    headers::to_client(&mut parts.headers, &target.backend, target.reason);
    // The version applies to one hop only (RFC 9110 section 6.2).
    parts.version = http::Version::HTTP_11;
    let idle = shared.config().server.body_timeout;
    Response::from_parts(parts, ResponseBody::streamed(body, idle, Box::new(lease)))
}
