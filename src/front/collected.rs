//! Answers that are read completely before they are passed on: small ones, and those that name
//! files.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use http::response::Parts;
use http::{HeaderValue, Request, Response};

use super::error::GatewayError;
use super::forward::{Target, exchange};
use super::headers;
use crate::body::{ClientFault, CollectLimits, OnEnd as _, RequestBody, ResponseBody, collect};
use crate::shared::Shared;

/// A complete answer. Its headers are those for the client, except for the length.
#[derive(Debug)]
pub struct Collected {
    pub parts: Parts,
    pub body: Bytes,
}

impl Collected {
    /// The answer with another body, or with its own.
    #[must_use]
    pub fn answer(mut self, body: Bytes) -> Response<ResponseBody> {
        self.parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        Response::from_parts(self.parts, ResponseBody::whole(body))
    }
}

/// Sends a request and reads its answer, up to `max` bytes.
///
/// # Errors
/// Those of [`super::forward::forward`], or the answer broke off or is too large.
pub async fn collected(
    shared: &Shared,
    target: &Target,
    mut request: Request<RequestBody>,
    fault: &ClientFault,
    max: u64,
) -> Result<Collected, GatewayError> {
    // The answer must be readable, so the server must not compress it.
    request.headers_mut().remove(ACCEPT_ENCODING);
    let (response, lease) = exchange(shared, target, request, fault).await?;
    let (mut parts, body) = response.into_parts();
    headers::to_client(&mut parts.headers, &target.backend, target.reason);
    let limits = CollectLimits { max, idle: shared.config().server.body_timeout };
    let body = collect(body, limits, None).await.map_err(|source| GatewayError::AnswerBroken {
        backend: target.backend.name().to_string(),
        source,
    })?;
    Box::new(lease).finished();
    Ok(Collected { parts, body })
}
