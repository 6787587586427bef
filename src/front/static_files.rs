//! The page's files with a hash in their name, served from memory (promise F3).
//!
//! ComfyUI 0.33 sends `no-store` for all scripts, so each page load would fetch 16 MB from the
//! home, uncompressed. A file whose name contains its hash never changes: it is fetched once, and
//! browsers cache it for ever. Its type is derived from its name and not taken from the server,
//! because a wrong type would stay in browsers (ComfyUI #12911).
//!
//! - [`names`]: which paths are such files
//! - [`types`]: their types
//! - [`press`]: their codings
//! - [`keeping`]: which answers are kept, and which parts of them
//!
//! # Rules
//!
//! - Only requests without a query are served. Only complete answers with status 200 and a length
//!   are kept, if they have the type that the name implies, no `Set-Cookie`, and neither `private`
//!   nor `no-transform`. All others are passed on unchanged.
//! - What is kept for everybody belongs to nobody. It is requested without the cookies and the
//!   `Authorization` of the first caller, and only headers of a file are kept.
//! - When the home has another frontend or another page, each file is fetched again, so that the
//!   files of a broken installation are replaced.
//! - A tab that was loaded earlier still gets its files: from any backend that has them, those with
//!   the home's frontend first, or from a copy.
//! - The caller of this module has checked that the request may be answered at all.

pub mod keeping;
pub mod names;
pub mod press;
pub mod types;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{VARY, WARNING};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::Front;
use super::accept_encoding::{Choice, Worth};
use super::asset_cache::{AssetKey, Look, Making, Outcome};
use super::conditional::{Conditional, Whole};
use super::error::{Fault, GatewayError};
use super::forward::{Target, exchange, incoming, send, to_backend};
use super::page::{ask_for_all, broken};
use super::stale_cache::CacheKey;
use super::{Answer, failover, headers, home, stand_in};
use crate::body::{
    ClientFault, CollectError, CollectLimits, OnEnd as _, RequestBody, ResponseBody, collect,
};
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::routing::decision::Reason;
use crate::shared::Shared;
use keeping::{Reader, dress, forget_credentials, is_good, lasting};
use press::Patience;
use types::Kind;

/// How long all other backends together may take to say whether they have a file.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// Smaller files are not worth compressing, in bytes.
const COMPRESSED_MIN: usize = 1 << 10;

/// The request of the caller.
struct Asked {
    path: Arc<str>,
    kind: Kind,
    parts: Parts,
    conditional: Conditional,
}

/// The request to a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// The complete file, to be kept.
    Whole,
    /// What the caller asked for, to be passed on.
    AsAsked,
}

/// The result of the search.
enum Found {
    File(File),
    /// Something else, unchanged.
    Other(Response<ResponseBody>),
}

/// A complete file, uncompressed.
struct File {
    whole: Whole,
    key: AssetKey,
    reason: Reason,
    /// How long ago it was known to be good, if it may not be good any more.
    stale: Option<Duration>,
}

/// How certain it is that no other backend has a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Absence {
    /// All backends that were asked said so.
    Sure,
    /// No backend is up, or one did not answer. Then the file is looked up again soon, so that a
    /// tab gets its files when the outage is over.
    Unsaid,
}

impl Absence {
    /// From the statuses of the backends that were asked. `None` means no answer.
    fn of(said: &[Option<StatusCode>]) -> Self {
        let is_missing = |said: &Option<StatusCode>| *said == Some(StatusCode::NOT_FOUND);
        let is_sure = !said.is_empty() && said.iter().all(is_missing);
        if is_sure { Self::Sure } else { Self::Unsaid }
    }
}

/// A file of the page.
///
/// # Errors
/// The home backend does not answer, nor does any other that has it, and there is no copy. Or the
/// caller refuses every form that the file could have.
pub async fn asset(front: &Arc<Front>, from: IpAddr, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    let kind = names::hashed(path).filter(|_| request.uri().query().is_none());
    let Some((kind, parts)) = kind.zip(failover::again(&request)) else {
        return home::read(front, CacheKey::asset(path), from, request).await;
    };
    let path = path.into();
    let asked = Asked { path, kind, parts, conditional: Conditional::of(&request) };
    let key = front.asset_cache.key(&asked.path, &version_of(front.shared.home().as_deref()));
    if let Some(answer) = coded_before(front, &asked, &key) {
        return Ok(answer);
    }
    match find_once(front, &asked, &key).await? {
        Found::Other(response) => Ok(response),
        Found::File(file) => given(front, &asked, file).await,
    }
}

/// True for the path of a file with a hash in its name.
#[must_use]
pub fn is_hashed(path: &str) -> bool {
    names::hashed(path).is_some()
}

/// The frontend version of a server. Empty if it is not known yet.
fn version_of(backend: Option<&Backend>) -> Arc<str> {
    backend.and_then(Backend::frontend).unwrap_or_else(|| "".into())
}

/// The file from memory in the coding that the caller prefers, even if the uncompressed file is
/// gone.
fn coded_before(front: &Front, asked: &Asked, key: &AssetKey) -> Option<Response<ResponseBody>> {
    let Choice::Coded { coding, .. } = asked.conditional.form(asked.kind.worth) else {
        return None;
    };
    let coded = front.asset_cache.get(&key.coded(coding))?;
    front.shared.metrics.assets.hits.inc();
    Some(dressed(&front.shared, asked.conditional.answer(&coded), Reason::Kept))
}

/// The file from memory or from a backend. One caller fetches it for all who ask in the meantime.
async fn find_once(
    front: &Arc<Front>,
    asked: &Asked,
    key: &AssetKey,
) -> Result<Found, GatewayError> {
    let kept = |key: &AssetKey, whole| {
        front.shared.metrics.assets.hits.inc();
        Found::File(File { whole, key: key.clone(), reason: Reason::Kept, stale: None })
    };
    if !front.asset_cache.is_on() || asked.parts.method == Method::HEAD {
        return match front.asset_cache.get(key) {
            Some(whole) => Ok(kept(key, whole)),
            None => find(front, asked, key, Way::AsAsked).await,
        };
    }
    loop {
        match front.asset_cache.look(key) {
            Look::Kept(whole) => return Ok(kept(key, whole)),
            Look::Mine(making) => return fetched(front, asked, key, making).await,
            Look::Others(mut outcome) => {
                match outcome.wait_for(|it| !matches!(it, Outcome::Underway)).await.as_deref() {
                    Ok(Outcome::Made(key, whole)) => return Ok(kept(key, whole.clone())),
                    Ok(Outcome::Nothing) => break,
                    // The caller that was fetching it is gone.
                    Ok(Outcome::Underway) | Err(_) => {}
                }
            }
        }
    }
    find(front, asked, key, Way::AsAsked).await
}

/// Fetches a file for all who ask for it, and keeps it.
async fn fetched(
    front: &Arc<Front>,
    asked: &Asked,
    key: &AssetKey,
    making: Making,
) -> Result<Found, GatewayError> {
    let found = find(front, asked, key, Way::Whole).await;
    match &found {
        Ok(Found::File(File { whole, key, stale: None, reason: _ })) => {
            making.made(key, whole.clone(), now());
            count_bytes(front);
        }
        Ok(Found::File(File { stale: Some(_), .. }) | Found::Other(_)) | Err(_) => making.nothing(),
    }
    found
}

fn count_bytes(front: &Front) {
    let weight = front.asset_cache.weight();
    front.shared.metrics.assets.bytes.set(i64::try_from(weight).unwrap_or(i64::MAX));
}

/// The file in the form that the caller prefers.
async fn given(front: &Arc<Front>, asked: &Asked, file: File) -> Answer {
    let (conditional, plain) = (&asked.conditional, &file.whole);
    let worth = if plain.body.len() < COMPRESSED_MIN { Worth::Nothing } else { asked.kind.worth };
    let coded = match conditional.form(worth) {
        Choice::Nothing => return Err(GatewayError::NotAcceptable),
        Choice::AsItIs => None,
        Choice::Coded { coding, or_as_it_is: true } => {
            press::coded(front, &file.key, coding, plain, Patience::Short).await
        }
        Choice::Coded { coding, or_as_it_is: false } => {
            let coded = press::coded(front, &file.key, coding, plain, Patience::Long).await;
            Some(coded.ok_or(GatewayError::NotAcceptable)?)
        }
    };
    let response = match coded {
        Some(coded) => conditional.answer(&coded),
        None => conditional.answer_part(plain),
    };
    let mut response = dressed(&front.shared, response, file.reason);
    if let Some(age) = file.stale {
        let headers = response.headers_mut();
        headers.insert(headers::STALE, HeaderValue::from(age.as_secs()));
        headers.insert(WARNING, HeaderValue::from_static("110 mooring \"Response is Stale\""));
        // A browser must not keep it longer than necessary.
        headers::keep_private(headers);
        front.shared.metrics.stale_answers.inc();
    }
    Ok(response)
}

/// Adds the headers that belong to the answer and not to the file.
fn dressed(
    shared: &Shared,
    mut response: Response<ResponseBody>,
    reason: Reason,
) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    headers.insert(headers::PLACEMENT, HeaderValue::from_static(reason.as_str()));
    if !shared.config().server.allowed_origins.is_empty() {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
    response
}

/// The file from the home. If the home does not have it, from a copy or another backend.
async fn find(
    front: &Arc<Front>,
    asked: &Asked,
    key: &AssetKey,
    way: Way,
) -> Result<Found, GatewayError> {
    let first = match home::target(&front.shared) {
        Ok(home) => fetch(front, &home, asked, (key, way)).await,
        Err(error) => Err(error),
    };
    let is_missing = match &first {
        Ok(Found::File(_)) => false,
        Ok(Found::Other(response)) => response.status() == StatusCode::NOT_FOUND,
        Err(error) => error.fault() == Fault::Backend || failover::is_away(error),
    };
    if !is_missing {
        return first;
    }
    if let Some(copy) = copy(front, &asked.path, now()) {
        return Ok(Found::File(copy));
    }
    elsewhere(front, asked, (key, way)).await.map_or(first, Ok)
}

/// The newest copy of this path, of any version. It counts as new if a server with this version
/// exists.
fn copy(front: &Front, path: &str, now: Instant) -> Option<File> {
    let found = front.asset_cache.of_any_version(path)?;
    let has_it = |backend: Arc<Backend>| backend.frontend().as_ref() == Some(&found.version);
    let is_good = found.is_fresh && front.shared.fleet.iter().any(has_it);
    let stale = (!is_good).then(|| now.duration_since(found.since));
    if is_good {
        front.shared.metrics.assets.hits.inc();
    }
    Some(File { whole: found.whole, key: found.key, reason: Reason::Kept, stale })
}

async fn fetch(
    front: &Front,
    target: &Target,
    asked: &Asked,
    (key, way): (&AssetKey, Way),
) -> Result<Found, GatewayError> {
    front.shared.metrics.assets.misses.inc();
    if way == Way::AsAsked {
        return passed_on(&front.shared, target, asked).await;
    }
    let mut all = asked.parts.clone();
    ask_for_all(&mut all);
    let reader = forget_credentials(&mut all.headers);
    let request = to_backend(target, all, RequestBody::Empty);
    let (response, lease) =
        exchange(&front.shared, target, request, &ClientFault::default()).await?;
    if !is_good(&response, asked.kind) || response.body().size_hint().exact().is_none() {
        // It may be only for this caller. But a login page does not answer 404.
        if reader == Reader::One && response.status() != StatusCode::NOT_FOUND {
            return passed_on(&front.shared, target, asked).await;
        }
        return Ok(Found::Other(incoming(&front.shared, target, response, lease)));
    }
    let (head, body) = response.into_parts();
    let max = front.asset_cache.file_max() as u64;
    let limits = CollectLimits { max, idle: front.shared.config().server.body_timeout };
    let mut share = front.bodies.share();
    let body = match collect(body, limits, Some(&mut share)).await {
        Ok(body) => body,
        Err(CollectError::TooLarge { .. } | CollectError::Busy) => {
            return passed_on(&front.shared, target, asked).await;
        }
        Err(CollectError::Broken(error)) => return Err(broken(target, error)),
    };
    Box::new(lease).finished();
    let mut kept = lasting(&head.headers, asked.kind, &body);
    headers::mark(&mut kept, &target.backend, target.reason);
    let whole = Whole { headers: kept, body };
    let key = key.of_version(&version_of(Some(&target.backend)));
    Ok(Found::File(File { whole, key, reason: target.reason, stale: None }))
}

/// A file that cannot be kept is passed on unchanged.
async fn passed_on(shared: &Shared, target: &Target, asked: &Asked) -> Result<Found, GatewayError> {
    let request = to_backend(target, asked.parts.clone(), RequestBody::Empty);
    let mut response = send(shared, target, request).await?;
    if is_good(&response, asked.kind) {
        dress(response.headers_mut(), asked.kind, Reader::of(&asked.parts.headers));
        response = dressed(shared, response, target.reason);
    }
    Ok(Found::Other(response))
}

/// Asks the other backends that are up, one after the other.
async fn elsewhere(front: &Front, asked: &Asked, how: (&AssetKey, Way)) -> Option<Found> {
    if !front.asset_cache.may_look(&asked.path, now()) {
        return None;
    }
    match timeout(ELSEWHERE, look(front, asked, how)).await {
        Ok(Ok(found)) => Some(found),
        Ok(Err(Absence::Sure)) => {
            front.asset_cache.missed(&asked.path, now());
            None
        }
        Ok(Err(Absence::Unsaid)) | Err(_) => None,
    }
}

async fn look(front: &Front, asked: &Asked, how: (&AssetKey, Way)) -> Result<Found, Absence> {
    // The backend that gave the page comes first, unless the home's frontend is known.
    let mut others = stand_in::others(front);
    if let Some(version) = front.shared.home().and_then(|home| home.frontend()) {
        others.sort_by_key(|other| other.backend.frontend().as_ref() != Some(&version));
    }
    let mut said = Vec::with_capacity(others.len());
    for target in others {
        match fetch(front, &target, asked, how).await {
            Ok(Found::File(file)) => return Ok(Found::File(file)),
            Ok(Found::Other(response)) if response.status().is_success() => {
                return Ok(Found::Other(response));
            }
            Ok(Found::Other(response)) => said.push(Some(response.status())),
            Err(_) => said.push(None),
        }
    }
    Err(Absence::of(&said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_all_who_were_asked_say_is_sure() {
        let (missing, broken) = (Some(StatusCode::NOT_FOUND), Some(StatusCode::BAD_GATEWAY));
        assert_eq!(Absence::of(&[missing]), Absence::Sure);
        assert_eq!(Absence::of(&[missing, missing]), Absence::Sure);
        assert_eq!(Absence::of(&[]), Absence::Unsaid, "nobody was up");
        assert_eq!(Absence::of(&[missing, None]), Absence::Unsaid);
        assert_eq!(Absence::of(&[broken, missing]), Absence::Unsaid);
        assert_eq!(Absence::of(&[Some(StatusCode::UNAUTHORIZED)]), Absence::Unsaid);
    }
}
