//! ComfyUI's page, with each tab as a client of its own (promise R7).
//!
//! The page's requests do not identify their tab, and all tabs share one cookie. So its HTML is
//! served with scripts of ours at the start of `<head>`. One of them, `page.js`, gives the tab its
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
use std::sync::Arc;

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
    HeaderMap, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
    SET_COOKIE,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::Front;
use super::caller::Caller;
use super::conditional::{Conditional, Whole};
use super::error::{Fault, GatewayError};
use super::forward::{Target, exchange, incoming, send, to_backend};
use super::page_scripts::with_scripts;
use super::stale_cache::CacheKey;
use super::stand_in::{self, Fit};
use super::unavailable::Reader;
use super::{Answer, failover, headers, home, page_cookie};
use crate::body::{
    BodyError, ClientFault, CollectError, CollectLimits, OnEnd as _, RequestBody, ResponseBody,
    collect,
};
use crate::config::OnOff;
use crate::net::now;
use crate::routing::decision::Reason;
use crate::routing::ids::BackendId;
use crate::routing::placement::NoPlace;

/// The largest page that is changed, in bytes. ComfyUI's has 2 KiB.
pub const PAGE_MAX: u64 = 1 << 20;

pub(super) fn hash(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
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
