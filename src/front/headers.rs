//! Headers of ours, and those that end at each hop (RFC 9110 section 7.6.1).

use std::time::Duration;

use http::Response;
use http::header::{CONNECTION, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};

use smallvec::SmallVec;

use super::forward::BackendTime;
use crate::fleet::backend::Backend;
use crate::routing::decision::Reason;

/// The backend that answered.
pub const BACKEND: HeaderName = HeaderName::from_static("mooring-backend");
/// Why it was that one.
pub const PLACEMENT: HeaderName = HeaderName::from_static("mooring-placement");
/// How old a copy is that is given in place of an answer, in seconds.
pub const STALE: HeaderName = HeaderName::from_static("mooring-stale");
/// The backends whose part is missing in a list, because they did not answer in time.
pub const MISSING: HeaderName = HeaderName::from_static("mooring-missing");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The client's name for itself, for requests that carry it nowhere else.
pub const CLIENT_ID: HeaderName = HeaderName::from_static("comfy-client-id");

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// True for headers that are for one hop: named by RFC 9110 section 7.6.1, and those that old
/// clients send all the same.
#[must_use]
pub fn is_of_one_hop(name: &str) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    // By length first: every header of every request comes by here, and few are meant.
    match name.len() {
        2 => is("te"),
        7 => is("trailer") || is("upgrade"),
        10 => is("connection") || is("keep-alive"),
        16 => is("proxy-connection"),
        17 => is("transfer-encoding"),
        18 => is("proxy-authenticate"),
        19 => is("proxy-authorization"),
        _ => false,
    }
}

/// Headers of a request that end here besides those.
const ENDS_HERE: [HeaderName; 4] = [EXPECT, ORIGIN, SEC_FETCH_SITE, CLIENT_ID];

/// Makes a client's request headers those of a request of ours to `backend`.
///
/// `Host` is the backend's and there is no `Origin`: a ComfyUI on loopback answers 403 to a
/// foreign one (0.2.3), and newer ones to `Sec-Fetch-Site: cross-site`. Origins were checked here.
pub fn to_backend(headers: &mut HeaderMap, backend: &Backend) {
    end_hop(headers, &ENDS_HERE);
    strip_own_cookie(headers);
    headers.insert(HOST, backend.host_header.clone());
}

/// Takes off what was only meant for this hop, and adds which backend answered, and why.
pub fn to_client(headers: &mut HeaderMap, backend: &Backend, reason: Reason) {
    end_hop(headers, &[]);
    mark(headers, backend, reason);
}

/// Says which backend answered, and why that one (V1).
pub fn mark(headers: &mut HeaderMap, backend: &Backend, reason: Reason) {
    headers.insert(BACKEND, backend.name_header.clone());
    headers.insert(PLACEMENT, HeaderValue::from_static(reason.as_str()));
}

/// Says how long a forwarded answer took here and at its backend, for the browser's tools
/// (Server Timing, section 4.2). `took` is all of it.
pub fn time<B>(response: &mut Response<B>, took: Duration) {
    let Some(BackendTime(backend)) = response.extensions().get().copied() else { return };
    let mut text = Vec::with_capacity(64);
    write_timing(took.saturating_sub(backend), backend, &mut text);
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().append(SERVER_TIMING, value);
    }
}

/// The value of `Server-Timing`: how long it took here, and at the backend.
pub fn write_timing(own: Duration, backend: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(b"mooring;dur=");
    write_millis(own, out);
    out.extend_from_slice(b", backend;dur=");
    write_millis(backend, out);
}

/// Milliseconds with three decimals. Not as a float: that takes longer than all the rest.
fn write_millis(duration: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    write_decimal(micros / 1000, 1, out);
    out.push(b'.');
    write_decimal(micros % 1000, 3, out);
}

/// `number` with at least `width` digits, at most 20.
pub fn write_decimal(mut number: u64, width: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while 0 < number || digits.len() - at < width {
        at -= 1;
        digits[at] = b"0123456789"[(number % 10) as usize];
        number /= 10;
    }
    out.extend_from_slice(&digits[at..]);
}

/// Takes off the headers that are for one hop, and those in `more`.
fn end_hop(headers: &mut HeaderMap, more: &[HeaderName]) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    // One walk over the names that are there: most of these never are, and a look-up for each
    // costs more than all comparisons.
    let ends = |name: &&HeaderName| is_of_one_hop(name.as_str()) || more.contains(name);
    let found: SmallVec<[HeaderName; 4]> = headers.keys().filter(ends).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// The page cookie names a browser to us and is nobody else's business.
fn strip_own_cookie(headers: &mut HeaderMap) {
    let Some(cookies) = headers.get(COOKIE).and_then(|value| value.to_str().ok()) else { return };
    if !cookies.contains(super::browsers::COOKIE_NAME) {
        return;
    }
    let others = other_cookies(cookies);
    match HeaderValue::from_str(&others) {
        Ok(value) if !others.is_empty() => {
            headers.insert(COOKIE, value);
        }
        Ok(_) | Err(_) => {
            headers.remove(COOKIE);
        }
    }
}

/// What is left of a `Cookie` header without ours.
#[must_use]
pub fn other_cookies(cookies: &str) -> String {
    let others: Vec<&str> = cookies
        .split(';')
        .map(str::trim)
        .filter(|cookie| super::browsers::cookie_value(cookie).is_none())
        .collect();
    others.join("; ")
}

/// A header of an answer, for the record.
#[must_use]
pub fn text<'a, B>(response: &'a Response<B>, name: &HeaderName) -> &'a str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connection_names_ends_here_too() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("close, X-Secret"));
        headers.insert("x-secret", HeaderValue::from_static("1"));
        headers.insert("keep-alive", HeaderValue::from_static("5"));
        headers.insert("x-kept", HeaderValue::from_static("2"));
        end_hop(&mut headers, &[]);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("x-kept"));
    }

    #[test]
    fn only_our_cookie_is_taken_off() {
        let cookies = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, HeaderValue::from_static(text));
            strip_own_cookie(&mut headers);
            headers.get(COOKIE).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(cookies("a=1; mooring=00; b=2").as_deref(), Some("a=1; b=2"));
        assert_eq!(cookies("mooring=00"), None);
        assert_eq!(cookies("xmooring=1").as_deref(), Some("xmooring=1"));
    }
}
