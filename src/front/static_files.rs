//! The page's files that have a hash in their name, served from memory (promise F3).
//!
//! ComfyUI 0.33 sends `no-store` for all scripts, so that each page load would fetch 16 MB from the
//! home, uncompressed. A file whose name contains its hash never changes: it is fetched once, and
//! browsers cache it for ever. Its type is taken from its name and not from the server's registry,
//! because a wrong type would stay in browsers (ComfyUI #12911).
//!
//! # Rules
//!
//! - When the home has another version or another page, each file is fetched again, so that the
//!   files of a broken installation are replaced.
//! - A tab that was loaded before still gets its files, from any backend that has them, or from a
//!   copy.
//! - Answers that are errors or personal, that are HTML for a script's name, or that are too large
//!   are passed on and not kept.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE,
    EXPIRES, HeaderMap, LAST_MODIFIED, PRAGMA, RANGE, VARY,
};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Front;
use super::conditional::{Conditional, Whole};
use super::error::{Fault, GatewayError};
use super::forward::{Target, exchange, incoming, send, to_backend};
use super::page::{ask_for_all, broken, hash, insert_tag};
use super::stale_cache::{CacheKey, Coding};
use super::{Answer, failover, headers, home};
use crate::body::{
    ClientFault, CollectError, CollectLimits, OnEnd as _, RequestBody, ResponseBody, collect,
};
use crate::net::now;
use crate::shared::Shared;

/// How long all other backends together may take to say whether they have an asset.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// How many files are compressed at one time.
const COMPRESSING_MAX: usize = 2;

/// Less is not worth it, in bytes.
const COMPRESSED_MIN: usize = 1 << 10;

const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Types by the end of the name, and whether it is worth it to compress them.
const TYPES: [(&str, &str, Worth); 30] = [
    ("js", "text/javascript; charset=utf-8", Worth::Compressing),
    ("mjs", "text/javascript; charset=utf-8", Worth::Compressing),
    ("css", "text/css; charset=utf-8", Worth::Compressing),
    ("json", "application/json; charset=utf-8", Worth::Compressing),
    ("map", "application/json; charset=utf-8", Worth::Compressing),
    ("wasm", "application/wasm", Worth::Compressing),
    ("svg", "image/svg+xml", Worth::Compressing),
    ("txt", "text/plain; charset=utf-8", Worth::Compressing),
    ("md", "text/markdown; charset=utf-8", Worth::Compressing),
    ("xml", "application/xml", Worth::Compressing),
    ("ico", "image/vnd.microsoft.icon", Worth::Compressing),
    ("ttf", "font/ttf", Worth::Compressing),
    ("otf", "font/otf", Worth::Compressing),
    ("eot", "application/vnd.ms-fontobject", Worth::Compressing),
    ("gltf", "model/gltf+json", Worth::Compressing),
    ("glb", "model/gltf-binary", Worth::Compressing),
    ("woff", "font/woff", Worth::Nothing),
    ("woff2", "font/woff2", Worth::Nothing),
    ("png", "image/png", Worth::Nothing),
    ("jpg", "image/jpeg", Worth::Nothing),
    ("jpeg", "image/jpeg", Worth::Nothing),
    ("gif", "image/gif", Worth::Nothing),
    ("webp", "image/webp", Worth::Nothing),
    ("avif", "image/avif", Worth::Nothing),
    ("mp3", "audio/mpeg", Worth::Nothing),
    ("ogg", "audio/ogg", Worth::Nothing),
    ("wav", "audio/wav", Worth::Nothing),
    ("mp4", "video/mp4", Worth::Nothing),
    ("webm", "video/webm", Worth::Nothing),
    ("pdf", "application/pdf", Worth::Nothing),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Worth {
    Compressing,
    Nothing,
}

/// Who may compress now. One for the gateway.
#[derive(Debug)]
pub struct Press(Semaphore);

impl Default for Press {
    fn default() -> Self {
        Self(Semaphore::new(COMPRESSING_MAX))
    }
}

/// A file of the page.
///
/// # Errors
/// The home backend does not answer, nor does any other that has it, and there is no copy.
pub async fn asset(front: &Arc<Front>, request: Request<Incoming>) -> Answer {
    let key = CacheKey::asset(request.uri().path());
    let again = failover::again(&request).filter(|_| is_hashed(key.path()));
    let Some(parts) = again else { return home::read(front, key, request).await };
    let conditional = Conditional::of(&request);
    let home = front.shared.home();
    front.stale_cache.saw_server(home.id, home.version());
    if let Some(whole) = front.stale_cache.fresh(&key) {
        return Ok(given(front, &key, whole, (&conditional, &parts)).await);
    }
    let first = fetch(front, &home::target(&front.shared), &key, &parts).await;
    let is_missing = match &first {
        Ok(Fetched::Asset(_)) => false,
        Ok(Fetched::Other(response)) => response.status() == StatusCode::NOT_FOUND,
        Err(error) => error.fault() == Fault::Backend,
    };
    let found = if is_missing {
        if let Some(copy) = home::copy(front, &key, &conditional) {
            return Ok(copy);
        }
        elsewhere(front, &key, &parts).await.map_or(first, Ok)
    } else {
        first
    };
    match found? {
        Fetched::Other(response) => Ok(response),
        Fetched::Asset(whole) => {
            front.stale_cache.put(key.clone(), whole.clone(), now());
            Ok(match front.stale_cache.fresh(&key) {
                Some(whole) => given(front, &key, whole, (&conditional, &parts)).await,
                // There is no room.
                None => conditional.answer_part(&whole),
            })
        }
    }
}

/// Vite's names: `index-azSeANjR.js`.
#[must_use]
pub fn is_hashed(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let Some(name) = path.strip_prefix("/assets/") else { return false };
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    let stem = stem.as_bytes();
    let Some(dash) = stem.len().checked_sub(9) else { return false };
    // A path with dots may be mended on its way, and then it is another's.
    let is_clear = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('%');
    0 < dash
        && name.split('/').all(is_clear)
        && stem[dash] == b'-'
        && stem[dash..].iter().copied().all(is_plain)
        && kind.bytes().all(is_plain)
}

/// From memory, in the coding that the caller reads best.
async fn given(
    front: &Front,
    key: &CacheKey,
    whole: Whole,
    (conditional, parts): (&Conditional, &Parts),
) -> Response<ResponseBody> {
    match coding_for(conditional, parts, key, &whole) {
        Some(coding) => match encoded(front, key, coding, &whole).await {
            Some(encoded) => conditional.answer(&encoded),
            None => conditional.answer_part(&whole),
        },
        None => conditional.answer_part(&whole),
    }
}

/// A part is one of the file as it is.
fn coding_for(
    conditional: &Conditional,
    parts: &Parts,
    key: &CacheKey,
    whole: &Whole,
) -> Option<Coding> {
    let is_worth_it = type_of(key.path()).is_some_and(|(_, worth)| worth == Worth::Compressing);
    if !is_worth_it || whole.body.len() < COMPRESSED_MIN || parts.headers.contains_key(RANGE) {
        return None;
    }
    [Coding::Brotli, Coding::Gzip].into_iter().find(|coding| conditional.accepts(coding.as_str()))
}

/// A file in a coding, made when it is first asked for.
async fn encoded(front: &Front, key: &CacheKey, coding: Coding, whole: &Whole) -> Option<Whole> {
    let key = key.encoded(coding);
    if let Some(encoded) = front.stale_cache.fresh(&key) {
        return Some(encoded);
    }
    let _turn = front.press.0.acquire().await.ok()?;
    // Somebody else may have done it meanwhile.
    if let Some(encoded) = front.stale_cache.fresh(&key) {
        return Some(encoded);
    }
    let plain = whole.body.clone();
    let pressed = tokio::task::spawn_blocking(move || press(&plain, coding)).await.ok()?.ok()?;
    let mut headers = whole.headers.clone();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
    headers.remove(ACCEPT_RANGES);
    // Another representation has a tag of its own (RFC 9110 section 8.8.3.3).
    insert_tag(&mut headers, &hash(&pressed));
    let encoded = Whole { headers, body: pressed.into() };
    front.stale_cache.put(key, encoded.clone(), now());
    Some(encoded)
}

/// As small as it gets in a few hundred milliseconds for all of the page.
fn press(plain: &Bytes, coding: Coding) -> io::Result<Vec<u8>> {
    let room = Vec::with_capacity(plain.len() / 3);
    match coding {
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(room, flate2::Compression::new(6));
            encoder.write_all(plain)?;
            encoder.finish()
        }
        Coding::Brotli => {
            let mut encoder = brotli::CompressorWriter::new(room, 64 << 10, 5, 22);
            encoder.write_all(plain)?;
            encoder.flush()?;
            Ok(encoder.into_inner())
        }
    }
}

/// What a backend gave for a file.
enum Fetched {
    Asset(Whole),
    /// Something else, as it came.
    Other(Response<ResponseBody>),
}

async fn fetch(
    front: &Front,
    target: &Target,
    key: &CacheKey,
    parts: &Parts,
) -> Result<Fetched, GatewayError> {
    if !front.stale_cache.is_on() {
        return streamed(&front.shared, target, key, parts).await;
    }
    let mut all = parts.clone();
    ask_for_all(&mut all);
    let request = to_backend(target, all, RequestBody::Empty);
    let (response, lease) =
        exchange(&front.shared, target, request, &ClientFault::default()).await?;
    if !is_good(&response, key.path()) {
        return Ok(Fetched::Other(incoming(&front.shared, target, response, lease)));
    }
    let (mut head, body) = response.into_parts();
    let max = front.stale_cache.body_max() as u64;
    let limits = CollectLimits { max, idle: front.shared.config().server.body_timeout };
    let mut share = front.bodies.share();
    let body = match collect(body, limits, Some(&mut share)).await {
        Ok(body) => body,
        Err(CollectError::TooLarge { .. } | CollectError::Busy) => {
            return streamed(&front.shared, target, key, parts).await;
        }
        Err(CollectError::Broken(error)) => return Err(broken(target, error)),
    };
    Box::new(lease).finished();
    headers::to_client(&mut head.headers, &target.backend, target.reason);
    dress(&front.shared, &mut head.headers, key.path());
    for name in [CONTENT_LENGTH, LAST_MODIFIED] {
        head.headers.remove(name);
    }
    head.headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    insert_tag(&mut head.headers, &hash(&body));
    Ok(Fetched::Asset(Whole { headers: head.headers, body }))
}

/// One that cannot be kept: as it comes.
async fn streamed(
    shared: &Shared,
    target: &Target,
    key: &CacheKey,
    parts: &Parts,
) -> Result<Fetched, GatewayError> {
    let request = to_backend(target, parts.clone(), RequestBody::Empty);
    let mut response = send(shared, target, request).await?;
    if is_good(&response, key.path()) {
        dress(shared, response.headers_mut(), key.path());
    }
    Ok(Fetched::Other(response))
}

/// True for an answer that is the file, whole and as it is, and nobody's own.
fn is_good<B>(response: &Response<B>, path: &str) -> bool {
    let headers = response.headers();
    let is_html = headers.get(CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes().get(..9).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/html"))
    });
    let is_plain = headers.get(CONTENT_ENCODING).is_none_or(|coding| coding == "identity");
    response.status() == StatusCode::OK
        && is_plain
        // A file that is not there, on a server that answers with its front page.
        && (!is_html || type_of(path).is_none())
        && home::may_be_kept(headers)
}

/// What we say of the file in place of its backend.
fn dress(shared: &Shared, headers: &mut HeaderMap, path: &str) {
    for name in [DATE, AGE, EXPIRES, PRAGMA] {
        headers.remove(name);
    }
    headers.insert(CACHE_CONTROL, FOR_EVER);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if !shared.config().server.allowed_origins.is_empty() {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    if let Some((kind, _)) = type_of(path) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
}

fn type_of(path: &str) -> Option<(&'static str, Worth)> {
    let (_, end) = path.rsplit_once('.')?;
    let found = TYPES.iter().find(|(known, _, _)| end.eq_ignore_ascii_case(known));
    found.map(|(_, kind, worth)| (*kind, *worth))
}

/// Asks the other backends that are up, one after the other.
async fn elsewhere(front: &Arc<Front>, key: &CacheKey, parts: &Parts) -> Option<Fetched> {
    if !front.stale_cache.may_look(key.path(), now()) {
        return None;
    }
    let found = timeout(ELSEWHERE, look(front, key, parts)).await.ok().flatten();
    if found.is_none() {
        front.stale_cache.missed(key.path(), now());
    }
    found
}

async fn look(front: &Front, key: &CacheKey, parts: &Parts) -> Option<Fetched> {
    for target in failover::others(&front.shared, Some(front.shared.home().id)) {
        match fetch(front, &target, key, parts).await {
            Ok(Fetched::Asset(whole)) => return Some(Fetched::Asset(whole)),
            Ok(Fetched::Other(response)) if response.status().is_success() => {
                return Some(Fetched::Other(response));
            }
            Ok(Fetched::Other(_)) | Err(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hashed_name_is_told_from_others() {
        for path in ["/assets/index-azSeANjR.js", "/assets/a-b-Dl5_1v-6.css"] {
            assert!(is_hashed(path), "{path}");
        }
        for path in [
            "/assets/index.js",
            "/assets/-azSeANjR.js",
            "/assets/x-azSeANjR",
            "/assets/../x-azSe/NjR.js",
            "/assets/../userdata/x-azSeANjR.json",
            "/assets/%2e%2e/userdata/x-azSeANjR.json",
            "/assets//x-azSeANjR.js",
            "/assets/x-azSe%2fjR.js",
            "/scripts/x-azSeANjR.js",
        ] {
            assert!(!is_hashed(path), "{path}");
        }
    }

    #[test]
    fn a_type_is_that_of_the_name() {
        assert_eq!(type_of("/assets/a.JS").unwrap().0, "text/javascript; charset=utf-8");
        assert_eq!(type_of("/assets/a.woff2").unwrap(), ("font/woff2", Worth::Nothing));
        assert_eq!(type_of("/assets/a.unknown"), None);
        assert_eq!(type_of("/assets/a"), None);
    }

    #[test]
    fn html_is_no_script() {
        let answer =
            |kind: &str| Response::builder().header("content-type", kind).body(()).unwrap();
        assert!(is_good(&answer("text/plain"), "/assets/x-azSeANjR.js"), "as on Windows");
        assert!(!is_good(&answer("text/html; charset=utf-8"), "/assets/x-azSeANjR.js"));
        let mut missing = answer("text/javascript");
        *missing.status_mut() = StatusCode::NOT_FOUND;
        assert!(!is_good(&missing, "/assets/x-azSeANjR.js"));
    }

    #[test]
    fn what_is_pressed_can_be_read_again() {
        use std::io::Read as _;
        let plain = Bytes::from("function f() { return 1; }\n".repeat(1000));
        let mut read = String::new();
        let gzip = press(&plain, Coding::Gzip).unwrap();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut read).unwrap();
        assert_eq!(read.as_bytes(), plain);
        let brotli = press(&plain, Coding::Brotli).unwrap();
        let mut read = Vec::new();
        brotli::Decompressor::new(&brotli[..], 4096).read_to_end(&mut read).unwrap();
        assert!(read == plain && gzip.len() < plain.len() / 10 && brotli.len() < plain.len() / 10);
    }
}
