//! ComfyUI's page, with each tab as a client of its own (promise R7).
//!
//! The page's requests do not identify their tab, and all tabs share one cookie. So its HTML is
//! served with a small script of ours (`page.js`) at the start of `<head>`. It gives the tab its
//! clientId before the first request and sends it with every request. No other HTML is changed, and
//! none of the page's own bytes.
//!
//! # Rules
//!
//! - Only `/` and `/index.html` are changed, with status 200, `text/html`, and at most [`PAGE_MAX`]
//!   bytes. Everything else passes unchanged: bodies that are encoded although we ask for
//!   `identity`, `no-transform` (RFC 9111 section 5.2.2.6), and documents that do not begin like
//!   HTML.
//! - A changed page has an `ETag` of its own and no `Last-Modified`, which would be the file's and
//!   ignore the script. So the backend is always asked for the whole page, and conditions are
//!   evaluated here.
//! - The script's URL is relative, as all of the page's are, so that the page also works below a
//!   path. It contains the script's hash, so that browsers can cache it for ever and still get a
//!   new version.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    ETAG, HeaderMap, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
    LAST_MODIFIED, RANGE, SET_COOKIE,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::Front;
use super::caller::Caller;
use super::conditional::{Conditional, Whole};
use super::error::{Fault, GatewayError};
use super::forward::{Target, exchange, incoming, send, to_backend};
use super::stale_cache::CacheKey;
use super::stand_in::{self, Fit};
use super::unavailable::Reader;
use super::{Answer, failover, headers, home, page_cookie, page_fleet};
use crate::body::{
    BodyError, ClientFault, CollectError, CollectLimits, OnEnd as _, RequestBody, ResponseBody,
    collect,
};
use crate::comfy::query::parameter;
use crate::config::{OnOff, ServerConfig};
use crate::net::now;
use crate::routing::decision::Reason;
use crate::routing::ids::BackendId;
use crate::routing::placement::NoPlace;
use crate::shared::Shared;

/// The largest page that is changed, in bytes. ComfyUI's has 2 KiB.
pub const PAGE_MAX: u64 = 1 << 20;

/// A script that the page gets.
#[derive(Debug)]
pub struct Script {
    /// Below `/-/`.
    name: &'static str,
    text: &'static str,
    /// Changes only when the text changes.
    version: LazyLock<String>,
}

/// Makes each tab a client.
pub static TAB: Script = Script {
    name: "page.js",
    text: include_str!("page.js"),
    version: LazyLock::new(|| hash(TAB.text.as_bytes())),
};

/// Shows where one's jobs are, and how the servers are.
pub static EXTENSION: Script = Script {
    name: "page_extension.js",
    text: include_str!("page_extension.js"),
    version: LazyLock::new(|| hash(EXTENSION.text.as_bytes())),
};

/// Headers with digests of the body, which does not match them any more.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

pub(super) fn hash(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The scripts that the page gets now, in their order.
fn scripts(server: &ServerConfig) -> impl Iterator<Item = &'static Script> {
    let tab = (server.page_script == OnOff::On).then_some(&TAB);
    tab.into_iter().chain(page_fleet::is_on(server).then_some(&EXTENSION))
}

/// A script. A request for exactly its version may cache it for ever; others may not.
///
/// # Errors
/// The script is turned off.
pub fn script(shared: &Shared, script: &Script, request: &Request<Incoming>) -> Answer {
    if !scripts(&shared.config().server).any(|it| it.name == script.name) {
        return Err(GatewayError::NotFound);
    }
    let asked_for = parameter(request.uri().query().unwrap_or(""), "v");
    let keep = if asked_for.as_deref() == Some(script.version.as_str()) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/javascript; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    insert_tag(&mut headers, &script.version);
    let body = Bytes::from_static(script.text.as_bytes());
    Ok(Conditional::of(request).answer(&Whole { headers, body }))
}

pub(super) fn insert_tag(headers: &mut HeaderMap, hash: &str) {
    if let Ok(tag) = HeaderValue::try_from(format!("\"{hash}\"")) {
        headers.insert(ETAG, tag);
    }
}

/// The page, with a cookie that identifies this browser if it has none yet.
///
/// # Errors
/// The home backend does not answer, and there is no copy.
pub async fn page(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let is_ours = matches!(request.uri().path(), "/" | "/index.html");
    // A page from a copy would start and fail at its first read.
    if Reader::of(&request) == Reader::Person && failover::others(&front.shared, None).is_empty() {
        return Err(GatewayError::Refused(NoPlace::NoneReady.into()));
    }
    let script = front.shared.config().server.page_script;
    let mut response = match script {
        OnOff::On if is_ours => scripted(front, request).await?,
        OnOff::On | OnOff::Off => {
            let path = if is_ours { "/" } else { request.uri().path() };
            let key = CacheKey::own(path, "", request.headers());
            unscripted(front, (key, caller.address), request).await?
        }
    };
    if caller.browser.is_none()
        && let Ok(cookie) = HeaderValue::try_from(page_cookie::mint(front, caller))
    {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// True for the one page whose change means that the home's files may have changed too. Other
/// spellings of its path may have other tags. A client that uses both would cause all files to be
/// fetched again each time.
fn is_watched<B>(request: &Request<B>) -> bool {
    request.uri().path() == "/" && request.uri().query().is_none()
}

/// The page without our script.
async fn unscripted(
    front: &Arc<Front>,
    (key, from): (CacheKey, IpAddr),
    request: Request<Incoming>,
) -> Answer {
    let home = front.shared.home().filter(|home| home.is_up());
    let (asked, is_watched) = (Conditional::of(&request), is_watched(&request));
    let is_copied = front.stale_cache.knows(&key);
    if home.is_none() && !is_copied && *request.method() == Method::GET {
        let (parts, _body) = request.into_parts();
        let others = stand_in::others(front);
        let page = of_another(front, &others, (&parts, &asked, OnOff::Off)).await;
        return page.ok_or(GatewayError::Refused(NoPlace::NoneReady.into()));
    }
    let response = home::read(front, key, from, request).await?;
    if is_of_home(&response) {
        front.stand_in.is_over();
        if is_watched {
            front.asset_cache.saw_page(response.headers());
        }
    }
    Ok(response)
}

/// True if the home has just sent it. A 304 does not say which coding the page would have, so its
/// tag cannot be assigned to a page.
fn is_of_home(response: &Response<ResponseBody>) -> bool {
    let headers = response.headers();
    response.status() == StatusCode::OK
        && !headers.contains_key(headers::STALE)
        && headers.get(headers::PLACEMENT).is_some_and(|it| it == Reason::Home.as_str())
}

async fn scripted(front: &Arc<Front>, request: Request<Incoming>) -> Answer {
    let (asked, reader) = (Conditional::of(&request), Reader::of(&request));
    let is_watched = is_watched(&request);
    let key = CacheKey::own("/", "", request.headers());
    let (parts, _body) = request.into_parts();
    let first = match home::target(&front.shared) {
        Ok(home) => {
            front.notice_home(home.backend.id);
            let fetched = fetch(front, &home, parts.clone(), OnOff::On).await;
            fetched.map(|fetched| (home.backend.id, fetched))
        }
        Err(error) => Err(error),
    };
    match first {
        Ok((_, Fetched::Other(response))) => Ok(response),
        Ok((home, Fetched::Page(page, time, digest))) => {
            if is_watched {
                front.asset_cache.saw_page(&page.headers);
            }
            front.shared.records.saw_home_page(home, &digest);
            front.stand_in.is_over();
            let mut response = asked.answer(&page);
            response.extensions_mut().extend(time);
            let copies = &front.stale_cache;
            if home::may_be_kept(&page.headers) && page.body.len() <= copies.body_max() {
                copies.put(key, page, now(), front.writes.number());
            }
            Ok(response)
        }
        Err(error) if error.fault() == Fault::Backend || failover::is_away(&error) => {
            let others = stand_in::others(front);
            if reader == Reader::Person && others.is_empty() {
                return Err(error);
            }
            if let Some(copy) = home::copy(front, &key, &asked) {
                return Ok(copy);
            }
            of_another(front, &others, (&parts, &asked, OnOff::On)).await.ok_or(error)
        }
        Err(error) => Err(error),
    }
}

/// The page of another backend, of the same version as the home's or as the one that was given
/// before, if there is one.
async fn of_another(
    front: &Front,
    others: &[Target],
    (parts, asked, script): (&Parts, &Conditional, OnOff),
) -> Option<Response<ResponseBody>> {
    let mut best: Option<(Fit, Given)> = None;
    for target in others {
        let Ok(fetched) = fetch(front, target, parts.clone(), script).await else { continue };
        let (fit, given) = match fetched {
            Fetched::Page(page, time, digest) => {
                let by = target.backend.id;
                (front.stand_in.fit(front, &digest), Given::Page { page, time, by, digest })
            }
            Fetched::Other(response) if response.status().is_success() => {
                (Fit::Other, Given::Other(response))
            }
            Fetched::Other(_) => continue,
        };
        if best.as_ref().is_none_or(|(before, _)| *before < fit) {
            best = Some((fit, given));
        }
        if fit == Fit::Same {
            break;
        }
    }
    match best?.1 {
        Given::Other(response) => Some(response),
        Given::Page { page, time, by, digest } => {
            front.stand_in.gave(by, digest);
            let mut response = asked.answer(&page);
            response.extensions_mut().extend(time);
            Some(response)
        }
    }
}

/// What another backend sent for the page.
enum Given {
    Page { page: Whole, time: http::Extensions, by: BackendId, digest: String },
    Other(Response<ResponseBody>),
}

/// What the home backend sent for the page.
enum Fetched {
    /// The page, with the script if that is wanted, and the mark of the page without the script.
    Page(Whole, http::Extensions, String),
    /// Something else, unchanged.
    Other(Response<ResponseBody>),
}

async fn fetch(
    front: &Front,
    target: &Target,
    mut parts: Parts,
    script: OnOff,
) -> Result<Fetched, GatewayError> {
    ask_for_all(&mut parts);
    let request = to_backend(target, parts.clone(), RequestBody::Empty);
    let (response, lease) =
        exchange(&front.shared, target, request, &ClientFault::default()).await?;
    if !is_page(&response) {
        return Ok(Fetched::Other(incoming(&front.shared, target, response, lease)));
    }
    let (mut head, body) = response.into_parts();
    let limits = CollectLimits { max: PAGE_MAX, idle: front.shared.config().server.body_timeout };
    let mut share = front.bodies.share();
    let body = match collect(body, limits, Some(&mut share)).await {
        Ok(body) => body,
        Err(CollectError::TooLarge { .. }) => {
            let request = to_backend(target, parts, RequestBody::Empty);
            return Ok(Fetched::Other(send(&front.shared, target, request).await?));
        }
        Err(CollectError::Busy) => return Err(GatewayError::BodiesBusy),
        Err(CollectError::Broken(error)) => return Err(broken(target, error)),
    };
    Box::new(lease).finished();
    headers::to_client(&mut head.headers, &target.backend, target.reason);
    let digest = stand_in::digest(&body);
    let page = match script {
        OnOff::On => with_scripts(head.headers, body, &front.shared.config().server),
        OnOff::Off => Whole { headers: head.headers, body },
    };
    Ok(Fetched::Page(page, head.extensions, digest))
}

/// Asks for the complete, unchanged page: the client's conditions are about the changed one.
pub(super) fn ask_for_all(parts: &mut Parts) {
    parts.method = Method::GET;
    for name in [
        CONTENT_LENGTH,
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_RANGE,
        IF_UNMODIFIED_SINCE,
        RANGE,
    ] {
        parts.headers.remove(name);
    }
    parts.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

fn is_page<B>(response: &Response<B>) -> bool {
    let text =
        |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let kind = text(CONTENT_TYPE).and_then(|kind| kind.split(';').next()).unwrap_or("");
    let may_change = !text(CACHE_CONTROL).unwrap_or("").contains("no-transform");
    let is_plain = text(CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    response.status() == StatusCode::OK
        && kind.trim().eq_ignore_ascii_case("text/html")
        && may_change
        && is_plain
}

pub(super) fn broken(target: &Target, error: BodyError) -> GatewayError {
    let source = CollectError::Broken(error);
    GatewayError::AnswerBroken { backend: target.backend.name().to_string(), source }
}

fn with_scripts(mut headers: HeaderMap, body: Bytes, server: &ServerConfig) -> Whole {
    let Some(at) = place(&body) else { return Whole { headers, body } };
    let tag = |Script { name, version, .. }: &Script| {
        format!("<script src=\"./-/{name}?v={}\"></script>", **version)
    };
    let scripts: String = scripts(server).map(tag).collect();
    let mut page = BytesMut::with_capacity(body.len() + scripts.len());
    page.extend_from_slice(&body[..at]);
    page.extend_from_slice(scripts.as_bytes());
    page.extend_from_slice(&body[at..]);
    let body = page.freeze();
    for name in DIGESTS.into_iter().chain([LAST_MODIFIED, ACCEPT_RANGES]) {
        headers.remove(name);
    }
    insert_tag(&mut headers, &hash(&body));
    Whole { headers, body }
}

/// Where the script goes: right after `<head>`. If the page has none, it goes after the tags that
/// come before it. `None` if the text does not begin like HTML.
fn place(html: &[u8]) -> Option<usize> {
    const COMMENT_END: &[u8] = b"-->";
    let mut at = if html.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let mut begun = None;
    loop {
        at += html[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let rest = &html[at..];
        if rest.starts_with(b"<!--") {
            at += memchr::memmem::find(rest, COMMENT_END)? + COMMENT_END.len();
            continue;
        }
        let Some(end) = tag_end(rest) else { return begun };
        at += end;
        match name(rest).as_str() {
            "head" => return Some(at),
            "html" | "!doctype" => begun = Some(at),
            _ => return begun,
        }
    }
}

/// The length of the tag at the beginning of `rest`. A `>` inside quotes does not end it.
fn tag_end(rest: &[u8]) -> Option<usize> {
    if rest.first() != Some(&b'<') {
        return None;
    }
    let mut quote = None;
    for (at, byte) in rest.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            (_, _) => {}
        }
    }
    None
}

/// The name of the tag at the beginning of `rest`, in lower case.
fn name(rest: &[u8]) -> String {
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'!';
    let name: Vec<u8> = rest.iter().skip(1).take_while(is_name).copied().collect();
    String::from_utf8_lossy(&name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// `expected` has a `^` where the script goes, or no `^`.
    #[track_caller]
    fn check(expected: &str) {
        let html = expected.replace('^', "");
        assert_eq!(place(html.as_bytes()), expected.find('^'), "{expected}");
    }

    #[test]
    fn the_script_is_the_first_child_of_the_head() {
        check("<!doctype html><html lang=\"en\"><head>^<link><meta>");
        check("<!DOCTYPE html>\n<HTML>\n<HEAD data-a='>' class=x>^\n<title>");
        check("\u{feff}<!-- <head> --><html><head>^</head>");
        check("<html>^<title>no head</title><head>");
        check("<!doctype html>^<header>");
        check("<!doctype html>^text <head>");
        check("It works!");
        check("<div><head>");
        check("<head");
        check("<!-- <head>");
        check("");
    }

    #[test]
    fn a_changed_page_has_a_tag_of_its_own() {
        let mut given = HeaderMap::new();
        given.insert(ETAG, HeaderValue::from_static("\"file\""));
        given.insert(LAST_MODIFIED, HeaderValue::from_static("then"));
        given.insert("x-kept", HeaderValue::from_static("1"));
        let server = Config::for_backends(&[("a", "http://a:1")]).unwrap().server;
        let changed_of = |html: &'static str| {
            with_scripts(given.clone(), Bytes::from_static(html.as_bytes()), &server)
        };
        let changed = changed_of("<head></head>");
        assert_ne!(changed.headers[ETAG], "\"file\"");
        assert!(!changed.headers.contains_key(LAST_MODIFIED));
        assert!(changed.headers.contains_key("x-kept"));
        let other = changed_of("<head> </head>");
        assert_ne!(changed.headers[ETAG], other.headers[ETAG]);
        let same = changed_of("plain");
        assert_eq!((same.headers, &same.body[..]), (given, &b"plain"[..]));
    }

    #[test]
    fn the_scripts_are_plain_text_that_ends_no_element() {
        for Script { text, .. } in [&TAB, &EXTENSION] {
            assert!(text.is_ascii());
            assert!(!text.contains("</"));
        }
    }
}
