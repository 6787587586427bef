//! Checks that a request is meant for this gateway, by the host name in it (`server.hosts`, against
//! DNS rebinding).
//!
//! Both ways of answering check this before anything else. Only hyper's way sends the refusal.

use std::net::IpAddr;

use http::header::{HOST, HeaderMap};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Request};

use super::caller::Peer;
use super::error::GatewayError;
use crate::config::ServerConfig;

pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The longest part of a name that is shown in an error, in bytes.
const SHOWN_MAX: usize = 260;

/// The first host name in a request that is not a name of the gateway. `host` is the host that it
/// was sent to.
///
/// If the name of a page leads to a proxy, that proxy must check it, and then we do if names are
/// listed: the names that a trusted proxy passes on count too. All of them are checked, because the
/// page may have written the first one. They are checked in addition to `Host`, because any client
/// on the machine of a trusted proxy can send them.
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
    // A client that sends none speaks HTTP/1.0, so it is not a browser.
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
/// It is meant for another host.
pub fn check<B>(
    server: &ServerConfig,
    peer: IpAddr,
    request: &Request<B>,
) -> Result<(), GatewayError> {
    let headers: &HeaderMap = request.headers();
    // In absolute form both are the same, which was checked when the head was read.
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
