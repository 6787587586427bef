//! Decides which answers are kept for everybody, and which parts of them.
//!
//! `no-store` is ignored here. ComfyUI 0.33 sends it with all its scripts, because browsers would
//! otherwise run those of an earlier version. A name with a hash has no earlier version. `no-store`
//! does not say whether the file is personal. `private` does (RFC 9111 section 5.2.2.7), and
//! `no-transform` forbids the codings that we make (RFC 9110 section 7.7).

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LANGUAGE,
    CONTENT_TYPE, COOKIE, DATE, EXPIRES, HeaderMap, PRAGMA, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::types::{self, Kind};
use crate::front::headers::other_cookies;
use crate::front::home;
use crate::front::page::{hash, insert_tag};

const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// For a request with the caller's own credentials: shared caches must not store the answer.
const FOR_EVER_FOR_ONE: HeaderValue =
    HeaderValue::from_static("private, max-age=31536000, immutable");

/// The headers that belong to a file, whoever reads it. All others may belong to the first caller:
/// a name, a request id, a nonce. We set the headers for caching and the type ourselves.
const LASTING: [HeaderName; 5] = [
    CONTENT_LANGUAGE,
    // A page that is isolated from other origins needs these to load a script or a worker.
    HeaderName::from_static("cross-origin-embedder-policy"),
    HeaderName::from_static("cross-origin-resource-policy"),
    HeaderName::from_static("sourcemap"),
    HeaderName::from_static("timing-allow-origin"),
];

/// Who may store the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reader {
    Anybody,
    /// It was requested with the caller's own credentials.
    One,
}

impl Reader {
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        if has_credentials(headers) { Self::One } else { Self::Anybody }
    }
}

/// True if a backend would see the caller's credentials. Our own cookie does not reach it.
fn has_credentials(headers: &HeaderMap) -> bool {
    let says_more = |line: &HeaderValue| !other_cookies(line.as_bytes()).trim_ascii().is_empty();
    headers.contains_key(AUTHORIZATION) || headers.get_all(COOKIE).iter().any(says_more)
}

/// Removes the credentials, and says whether there were any.
pub fn forget_credentials(headers: &mut HeaderMap) -> Reader {
    let reader = Reader::of(headers);
    headers.remove(AUTHORIZATION);
    headers.remove(COOKIE);
    reader
}

/// True for an answer that is the complete, uncompressed file, and is not personal.
#[must_use]
pub fn is_good<B>(response: &Response<B>, kind: Kind) -> bool {
    let headers = response.headers();
    let is_plain = headers.get(CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
    response.status() == StatusCode::OK
        && is_plain
        && !forbids_keeping(headers)
        && types::is_expected(kind, headers)
        && home::may_be_kept(headers)
}

/// With or without names of headers (`private="x"`): the finer form is treated like the plain one.
fn forbids_keeping(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|said| {
        said.as_bytes().split(|byte| *byte == b',').any(|word| {
            let name = word.split(|byte| *byte == b'=').next().unwrap_or(word).trim_ascii();
            name.eq_ignore_ascii_case(b"private") || name.eq_ignore_ascii_case(b"no-transform")
        })
    })
}

/// Sets the headers that we send for the file in place of its backend's.
pub fn dress(headers: &mut HeaderMap, kind: Kind, reader: Reader) {
    for name in [DATE, AGE, EXPIRES, PRAGMA] {
        headers.remove(name);
    }
    let caching = match reader {
        Reader::Anybody => FOR_EVER,
        Reader::One => FOR_EVER_FOR_ONE,
    };
    headers.insert(CACHE_CONTROL, caching);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind.mime));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// The headers of a file that is kept for everybody.
#[must_use]
pub fn lasting(given: &HeaderMap, kind: Kind, body: &Bytes) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(LASTING.len() + 8);
    for name in LASTING {
        for value in given.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    dress(&mut headers, kind, Reader::Anybody);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    insert_tag(&mut headers, &hash(body));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let parsed = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        headers.iter().map(parsed).collect()
    }

    #[test]
    fn what_is_anothers_or_no_file_is_not_kept() {
        let kind = types::of_end("js").unwrap();
        let good = |headers: &[(&str, &str)]| {
            let mut answer = Response::builder().header("content-type", "text/javascript");
            for (name, value) in headers {
                answer = answer.header(*name, *value);
            }
            is_good(&answer.body(()).unwrap(), kind)
        };
        assert!(good(&[("cache-control", "no-store")]), "as ComfyUI 0.33 says of all scripts");
        assert!(good(&[("content-encoding", "identity")]));
        assert!(!good(&[("cache-control", "max-age=0, Private")]));
        assert!(!good(&[("cache-control", "private=\"x-user, x-id\"")]));
        assert!(!good(&[("cache-control", "no-store"), ("cache-control", "No-Transform")]));
        assert!(!good(&[("cache-control", "public,no-transform")]));
        assert!(good(&[("cache-control", "x-private, no-transforms")]));
        assert!(!good(&[("set-cookie", "a=1")]));
        assert!(!good(&[("content-encoding", "gzip")]));
        assert!(!good(&[("vary", "cookie")]));
        assert!(!good(&[("content-type", "text/html")]), "two types");
        let mut missing = Response::builder().body(()).unwrap();
        *missing.status_mut() = StatusCode::NOT_FOUND;
        assert!(!is_good(&missing, kind));
    }

    #[test]
    fn only_what_is_the_files_own_lasts() {
        let kind = types::of_end("js").unwrap();
        let given = map(&[
            ("x-auth-user", "ada"),
            ("x-request-id", "7"),
            ("content-security-policy", "script-src 'nonce-7'"),
            ("access-control-allow-origin", "https://ada.example"),
            ("link", "</ada>; rel=preload"),
            ("refresh", "0; url=/ada"),
            ("etag", "\"server\""),
            ("last-modified", "then"),
            ("content-length", "6"),
            ("date", "now"),
            ("cache-control", "no-store"),
            ("content-type", "text/plain"),
            ("content-language", "en"),
            ("cross-origin-resource-policy", "same-origin"),
        ]);
        let kept = lasting(&given, kind, &Bytes::from_static(b"let a;"));
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "accept-ranges",
            "cache-control",
            "content-language",
            "content-type",
            "cross-origin-resource-policy",
            "etag",
            "vary",
            "x-content-type-options",
        ];
        assert_eq!(names, expected);
        assert_eq!(kept[CACHE_CONTROL], "public, max-age=31536000, immutable");
        assert_eq!(kept[CONTENT_TYPE], kind.mime);
        assert_ne!(kept["etag"], "\"server\"");
    }

    #[test]
    fn who_asks_is_forgotten_and_told_from_nobody() {
        for (given, reader) in [
            (&[("accept", "*/*")][..], Reader::Anybody),
            (&[("cookie", "mooring=00")], Reader::Anybody),
            (&[("cookie", "mooring=00; a=1")], Reader::One),
            (&[("authorization", "Basic x")], Reader::One),
        ] {
            let mut headers = map(given);
            assert_eq!(forget_credentials(&mut headers), reader, "{given:?}");
            assert!(!headers.contains_key(COOKIE) && !headers.contains_key(AUTHORIZATION));
        }
    }
}
