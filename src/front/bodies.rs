//! Bodies that Mooring itself reads, whole and plain.

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use hyper::body::Incoming;

use crate::body::budget::BodyShare;
use crate::body::inflate::{Coding, inflated};
use crate::body::{CollectLimits, collect};
use crate::error::GatewayError;

/// Reads a request's body; one that came compressed is inflated, within the same limits. `parts`
/// say afterwards what it is.
///
/// # Errors
/// It is larger than it may be, there is no room for it, it broke off, or its coding is not taken.
pub async fn whole(
    parts: &mut Parts,
    body: Incoming,
    limits: CollectLimits,
    mut share: Option<&mut BodyShare>,
) -> Result<Bytes, GatewayError> {
    let coding = Coding::of(&parts.headers).map_err(|_| GatewayError::UnknownCoding)?;
    let body = collect(body, limits, share.as_deref_mut()).await?;
    let plain = inflated(body, coding, limits, share).await?;
    parts.headers.remove(CONTENT_ENCODING);
    Ok(plain)
}
