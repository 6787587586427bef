//! Is a request meant for this gateway, by the name that it gives it? (`server.hosts`, against DNS
//! rebinding.)
//!
//! Both ways of answering ask it before anything else; hyper's way tells who is refused.

use std::net::IpAddr;

use http::header::{HOST, HeaderMap};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Request};

use super::caller::Peer;
use super::error::GatewayError;
use crate::config::ServerConfig;

pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The longest name that is shown again, in bytes.
const SHOWN_MAX: usize = 260;

/// The first name in a request that is none of the gateway. `host` is what it was sent to.
///
/// A page on a name that leads to a proxy is that proxy's business, and then ours if it asks: once
/// names are listed, those that a trusted proxy was asked by count too. All of them: the first may
/// be what the page has written itself. It comes in addition to `Host`, because whoever is on the
/// machine of a trusted proxy can send it as well.
#[must_use]
pub fn foreign<'a>(
    server: &ServerConfig,
    peer: Peer,
    host: Option<&'a [u8]>,
    forwarded: impl Iterator<Item = &'a [u8]>,
) -> Option<&'a [u8]> {
    if !server.checks_hosts() {
        return None;
    }
    // Who sends none is no browser: it speaks HTTP/1.0.
    if let Some(host) = host.filter(|host| !server.is_called(host)) {
        return Some(host);
    }
    if peer != Peer::Proxy || server.hosts.is_empty() {
        return None;
    }
    forwarded
        .flat_map(|line| line.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .find(|host| !host.is_empty() && !server.is_called(host))
}

/// # Errors
/// It is meant for somebody else.
pub fn check<B>(
    server: &ServerConfig,
    peer: IpAddr,
    request: &Request<B>,
) -> Result<(), GatewayError> {
    let headers: &HeaderMap = request.headers();
    // In absolute form both say the same, which was checked when the head was read.
    let named = || request.uri().authority().map(Authority::as_str).map(str::as_bytes);
    let host = headers.get(HOST).map(HeaderValue::as_bytes).or_else(named);
    let forwarded = headers.get_all(X_FORWARDED_HOST).iter().map(HeaderValue::as_bytes);
    match foreign(server, Peer::of(server, peer), host, forwarded) {
        Some(host) => {
            let shown = &host[..host.len().min(SHOWN_MAX)];
            Err(GatewayError::ForeignHost { host: String::from_utf8_lossy(shown).into_owned() })
        }
        None => Ok(()),
    }
}
