//! Our own headers, and the headers that apply to one hop only (RFC 9110 section 7.6.1).

use std::borrow::Cow;
use std::time::Duration;

use http::Response;
use http::header::{
    CACHE_CONTROL, CONNECTION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, SET_COOKIE,
};

use smallvec::SmallVec;

use super::forward::BackendTime;
use super::own_cookies::is_own;
use crate::comfy::users;
use crate::fleet::backend::Backend;
use crate::routing::decision::Reason;
use crate::server::write::write_decimal;
use table::{AnswerHeader, RequestHeader, is_forwarding};

pub mod table;

/// The backend that answered.
pub const BACKEND: HeaderName = HeaderName::from_static("mooring-backend");
/// Why this backend was chosen.
pub const PLACEMENT: HeaderName = HeaderName::from_static("mooring-placement");
/// Who has said that a submission that waits is valid.
pub const VERDICT: HeaderName = HeaderName::from_static("mooring-verdict");
/// The place in the queue of a submission that waits, and in how many seconds it should start.
pub const QUEUE: HeaderName = HeaderName::from_static("mooring-queue");
/// The age of a copy that replaces an answer, in seconds.
pub const STALE: HeaderName = HeaderName::from_static("mooring-stale");
/// The backends that are missing from a list, because they did not answer in time.
pub const MISSING: HeaderName = HeaderName::from_static("mooring-missing");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// The id that a client gives itself, for requests that have no other place for it.
pub const CLIENT_ID: HeaderName = HeaderName::from_static("comfy-client-id");
/// The user of a request, by his id on a server with several users (ComfyUI `--multi-user`).
/// Nothing proves it, so where users are required a client cannot set it.
pub const COMFY_USER: HeaderName = HeaderName::from_static(users::HEADER);

/// Removes the headers in which an untrusted sender claims to be a proxy.
pub fn forget_claims(headers: &mut HeaderMap) {
    let is_claim = |name: &&HeaderName| is_forwarding(name.as_str());
    let found: SmallVec<[HeaderName; 4]> = headers.keys().filter(is_claim).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Turns a client's request headers into those of a request to `backend`.
///
/// `Host` is that of the backend, and `Origin` is removed: a ComfyUI on loopback answers 403 to a
/// foreign `Origin` (0.2.3), and newer ones also to `Sec-Fetch-Site: cross-site`. Origins were
/// checked here already.
pub fn to_backend(headers: &mut HeaderMap, backend: &Backend) {
    end_hop(headers, |name| RequestHeader::of(name).ends_here());
    strip_own_cookie(headers);
    headers.insert(HOST, backend.host_header.clone());
    // The configured headers replace those of the client: only these are for the backend.
    backend.headers().put_into(headers);
}

/// Removes headers of this hop, and adds which backend answered, and why.
pub fn to_client(headers: &mut HeaderMap, backend: &Backend, reason: Reason) {
    end_hop(headers, |name| AnswerHeader::of(name).ends_here());
    keep_cookie(headers, is_own);
    mark(headers, backend, reason);
}

/// Removes such a cookie from a backend's answer: no backend may set it.
pub fn keep_cookie(headers: &mut HeaderMap, is_it: impl Fn(&[u8]) -> bool) {
    let set = headers.get_all(SET_COOKIE);
    if !set.iter().any(|set| is_it(pair_of(set.as_bytes()))) {
        return;
    }
    let others = set.iter().filter(|set| !is_it(pair_of(set.as_bytes())));
    let others: Vec<HeaderValue> = others.cloned().collect();
    headers.remove(SET_COOKIE);
    for other in others {
        headers.append(SET_COOKIE, other);
    }
}

/// The name and the value of a `Set-Cookie` header.
#[must_use]
pub fn pair_of(set_cookie: &[u8]) -> &[u8] {
    set_cookie.split(|byte| *byte == b';').next().unwrap_or(set_cookie)
}

/// Forbids shared caches to store an answer, and makes the browser ask again before it uses it. An
/// answer that must not be stored at all stays so.
pub fn keep_private(headers: &mut HeaderMap) {
    let mut said = headers.get_all(CACHE_CONTROL).iter();
    let is_secret = said.any(|value| {
        let mut words = value.as_bytes().split(|byte| *byte == b',');
        words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-store"))
    });
    if !is_secret {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    }
}

/// The `Cache-Control` for an answer to a request with a key. Shared caches do not know about keys,
/// so they must not store it (RFC 9111 section 5.2.2.7).
#[must_use]
pub fn kept_by_one(value: &[u8]) -> Cow<'_, [u8]> {
    let name = |word: &[u8]| word.split(|byte| *byte == b'=').next().unwrap_or(word).to_vec();
    let is =
        |word: &[u8], other: &str| name(word).trim_ascii().eq_ignore_ascii_case(other.as_bytes());
    let words = || value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_shared = |word: &[u8]| is(word, "public") || is(word, "s-maxage");
    let is_own = |word: &[u8]| word.eq_ignore_ascii_case(b"private") || is(word, "no-store");
    if words().any(is_own) && !words().any(is_shared) {
        return Cow::Borrowed(value);
    }
    let others =
        words().filter(|word| !word.is_empty() && !is_shared(word) && !is(word, "private"));
    let words: Vec<&[u8]> = std::iter::once(&b"private"[..]).chain(others).collect();
    Cow::Owned(words.join(&b", "[..]))
}

/// Makes an answer private to its reader.
pub fn keep_for_one(headers: &mut HeaderMap) {
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
        return;
    }
    for value in headers.iter_mut().filter(|(name, _)| **name == CACHE_CONTROL).map(|it| it.1) {
        if let Cow::Owned(said) = kept_by_one(value.as_bytes())
            && let Ok(said) = HeaderValue::from_bytes(&said)
        {
            *value = said;
        }
    }
}

/// Adds which backend answered, and why (V1).
pub fn mark(headers: &mut HeaderMap, backend: &Backend, reason: Reason) {
    headers.insert(BACKEND, backend.name_header());
    headers.insert(PLACEMENT, HeaderValue::from_static(reason.as_str()));
}

/// Adds how long a forwarded answer took here and at its backend, for the browser's developer tools
/// (Server Timing, section 4.2). `took` is the total time.
pub fn time<B>(response: &mut Response<B>, took: Duration) {
    let Some(BackendTime(backend)) = response.extensions().get().copied() else { return };
    let mut text = Vec::with_capacity(64);
    write_timing(took.saturating_sub(backend), backend, &mut text);
    if let Ok(value) = HeaderValue::try_from(text) {
        response.headers_mut().append(SERVER_TIMING, value);
    }
}

/// The value of `Server-Timing`: the time here, and the time at the backend.
pub fn write_timing(own: Duration, backend: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(b"mooring;dur=");
    write_millis(own, out);
    out.extend_from_slice(b", backend;dur=");
    write_millis(backend, out);
}

/// Milliseconds with three decimals. Not formatted as a float, which would take longer than all the
/// rest.
fn write_millis(duration: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    write_decimal(micros / 1000, 1, out);
    out.push(b'.');
    write_decimal(micros % 1000, 3, out);
}

/// Removes the headers of this hop, and those that `Connection` names.
fn end_hop(headers: &mut HeaderMap, ends_here: impl Fn(&str) -> bool) {
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
    // One pass over the existing names: most of these headers are absent, and a lookup for each
    // would cost more than all comparisons.
    let ends = |name: &&HeaderName| ends_here(name.as_str());
    let found: SmallVec<[HeaderName; 4]> = headers.keys().filter(ends).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// Removes our cookies, which identify a browser and its user to us only.
fn strip_own_cookie(headers: &mut HeaderMap) {
    let is_ours = |line: &HeaderValue| matches!(other_cookies(line.as_bytes()), Cow::Owned(_));
    if !headers.get_all(COOKIE).iter().any(is_ours) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for line in lines {
        let others = other_cookies(line.as_bytes());
        if let Ok(others) = HeaderValue::from_bytes(&others)
            && !others.is_empty()
        {
            headers.append(COOKIE, others);
        }
    }
}

/// A line of `Cookie` without our cookies. It is borrowed if it had none.
#[must_use]
pub fn other_cookies(cookies: &[u8]) -> Cow<'_, [u8]> {
    let pairs = || cookies.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    if !pairs().any(is_own) {
        return Cow::Borrowed(cookies);
    }
    // An empty one at the end would leave a blank at the end of the line.
    let is_other = |pair: &&[u8]| !pair.is_empty() && !is_own(pair);
    let others: Vec<&[u8]> = pairs().filter(is_other).collect();
    Cow::Owned(others.join(&b"; "[..]))
}

/// A header of an answer, for the access log.
#[must_use]
pub fn text<'a, B>(response: &'a Response<B>, name: &HeaderName) -> &'a str {
    response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shared_caches_may_keep_is_for_one_reader_who_has_a_key() {
        for (given, expected) in [
            ("public, max-age=31536000, immutable", "private, max-age=31536000, immutable"),
            ("S-MaxAge=5,max-age=3", "private, max-age=3"),
            ("max-age=60", "private, max-age=60"),
            ("", "private"),
            ("no-store", "no-store"),
            ("No-Store, public", "private, No-Store"),
            ("max-age=0, Private", "max-age=0, Private"),
            ("private=\"x-a\", max-age=3", "private, max-age=3"),
            ("no-cache=\"a\"", "private, no-cache=\"a\""),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(given));
            keep_for_one(&mut headers);
            assert_eq!(headers[CACHE_CONTROL], expected, "{given}");
        }
        let mut headers = HeaderMap::new();
        keep_for_one(&mut headers);
        assert_eq!(headers[CACHE_CONTROL], "private");
    }

    #[test]
    fn what_connection_names_ends_here_too() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("close, X-Secret"));
        headers.insert("x-secret", HeaderValue::from_static("1"));
        headers.insert("keep-alive", HeaderValue::from_static("5"));
        headers.insert("x-kept", HeaderValue::from_static("2"));
        end_hop(&mut headers, |name| AnswerHeader::of(name).ends_here());
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("x-kept"));
    }

    #[test]
    fn only_our_cookie_is_taken_off_every_line() {
        let cookies = |lines: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(COOKIE, HeaderValue::from_bytes(line).unwrap());
            }
            strip_own_cookie(&mut headers);
            let left = headers.get_all(COOKIE).iter().map(|line| line.as_bytes().to_vec());
            left.collect::<Vec<_>>()
        };
        assert_eq!(cookies(&[b"a=1; mooring=00; b=2"]), [b"a=1; b=2"]);
        assert_eq!(cookies(&[b"mooring=00"]), Vec::<Vec<u8>>::new());
        assert_eq!(cookies(&[b"xmooring=1;b"]), [b"xmooring=1;b"]);
        assert_eq!(cookies(&[b"a=1", b"mooring=1; b=2", b"__Host-mooring=3"]), [b"a=1", b"b=2"]);
        assert_eq!(cookies(&[b"a=\xff; mooring=1"]), [b"a=\xff"]);
    }

    /// A blank at the end of a header is not part of the value (RFC 9110 section 5.5). If it were
    /// written out, some parsers would remove it and others would not.
    #[test]
    fn no_blank_is_left_where_our_cookie_was() {
        let lines: [(&[u8], &[u8]); 7] = [
            (b"a=1; mooring=00;", b"a=1"),
            (b"a=1; mooring=00; ", b"a=1"),
            (b"a=1;mooring=00;;\t", b"a=1"),
            (b"mooring=00; a=1 ; ", b"a=1"),
            (b" ;mooring=00; ;a=1;;b=2; ", b"a=1; b=2"),
            (b"mooring=00; ;", b""),
            (b"mooring=00;__Host-mooring=1; ", b""),
        ];
        for (line, left) in lines {
            let others = other_cookies(line);
            let shown = String::from_utf8_lossy(&others);
            assert_eq!(&*others, left, "{shown:?}");
            assert_eq!(others.trim_ascii(), &*others, "{shown:?}");
        }
    }

    #[test]
    fn a_backend_sets_its_own_cookies_and_not_ours() {
        let mut headers = HeaderMap::new();
        for set in
            ["a=1; Path=/", "mooring=1", "__Host-mooring=1; Secure", "=mooring=1", "b=mooring"]
        {
            headers.append(SET_COOKIE, HeaderValue::from_static(set));
        }
        keep_cookie(&mut headers, is_own);
        let left: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(left, ["a=1; Path=/", "b=mooring"]);
    }

    #[test]
    fn what_must_not_be_kept_at_all_stays_so() {
        for (given, expected) in [
            ("", "private, no-cache"),
            ("public, max-age=60", "private, no-cache"),
            ("no-store", "no-store"),
            ("max-age=0, No-Store", "max-age=0, No-Store"),
            ("no-storex", "private, no-cache"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(given));
            keep_private(&mut headers);
            assert_eq!(headers[CACHE_CONTROL], expected);
        }
    }

    #[test]
    fn what_says_for_whom_one_speaks_is_known() {
        for name in
            ["Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto", "true-client-ip"]
        {
            assert!(is_forwarding(name), "{name}");
        }
        for name in ["forward", "x-forwarded", "x-real-ipx", "accept"] {
            assert!(!is_forwarding(name), "{name}");
        }
    }
}
