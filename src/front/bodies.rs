//! Bodies that Mooring itself reads, collected and decompressed.

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use hyper::body::Incoming;

use super::error::GatewayError;
use super::limits::UploadMeter;
use crate::body::budget::BodyShare;
use crate::body::charset::Charset;
use crate::body::inflate::{Coding, inflated};
use crate::body::{CollectError, CollectLimits, collect_counted};

/// Reads a request's body; an upload is counted as it arrives. A compressed body is decompressed,
/// within the same limits. Afterwards `parts` describe the new body.
///
/// # Errors
/// It is too large, it is more than its user may upload, there is no room for it, it broke off, or
/// its coding is not supported.
pub async fn whole(
    parts: &mut Parts,
    body: Incoming,
    limits: CollectLimits,
    mut share: Option<&mut BodyShare>,
) -> Result<Bytes, GatewayError> {
    let coding = Coding::of(&parts.headers).map_err(|_| GatewayError::UnknownCoding)?;
    let meter = parts.extensions.get::<UploadMeter>().cloned();
    let counts = meter.as_ref().map(UploadMeter::look);
    let body = collect_counted(body, counts, limits, share.as_deref_mut()).await;
    let body = body.map_err(|error| match meter.and_then(|meter| meter.reached()) {
        Some(reached) => GatewayError::LimitReached(reached),
        None => error.into(),
    })?;
    let plain = inflated(body, coding, limits, share).await?;
    parts.headers.remove(CONTENT_ENCODING);
    Ok(plain)
}

/// Reads a request's JSON. Another charset is converted to UTF-8, within the same limits.
///
/// # Errors
/// Those of [`whole`], or the charset is not known.
pub async fn json(
    parts: &mut Parts,
    body: Incoming,
    limits: CollectLimits,
    mut share: Option<&mut BodyShare>,
) -> Result<Bytes, GatewayError> {
    let charset = Charset::of(&parts.headers).map_err(|_| GatewayError::UnknownCharset)?;
    let written = whole(parts, body, limits, share.as_deref_mut()).await?;
    let written_len = written.len() as u64;
    let text = charset.utf8(written);
    let len = text.len() as u64;
    if limits.max < len {
        return Err(CollectError::TooLarge { max: limits.max }.into());
    }
    if written_len < len && !share.is_none_or(|share| share.grow_to(len)) {
        return Err(CollectError::Busy.into());
    }
    Ok(text)
}
