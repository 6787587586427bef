//! What is the same for everyone (promise R9): from the home backend, from the last good copy
//! while that is down, and hashed assets from whoever has them.
//!
//! A body is copied while it streams to its client, never before. What `Cache-Control` says is
//! for browsers; a copy here is used only when its origin does not answer, and is marked.

use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    RANGE, SET_COOKIE, VARY, WARNING,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::asked::{Asked, Whole};
use super::copies::{Found, Key};
use super::forward::{Target, forward, send, to_backend};
use super::{Answer, headers};
use crate::body::{RequestBody, ResponseBody};
use crate::error::Fault;
use crate::gateway::Gateway;
use crate::net::now;
use crate::routing::decision::Reason;
use crate::routing::place::AdminState;
use crate::tap::{Tap, tapped};

/// How long all other backends together may take to say whether they have an asset.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// Where it comes from.
#[must_use]
pub fn target(gateway: &Gateway) -> Target {
    Target { backend: Arc::clone(gateway.home()), reason: Reason::Home }
}

/// Settings, saved workflows, users.
///
/// # Errors
/// The home backend does not answer, and there is no copy; a write has none.
pub async fn user_data(gateway: &Arc<Gateway>, request: Request<Incoming>) -> Answer {
    let uri = request.uri();
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        let key = Key::own(uri.path(), uri.query().unwrap_or(""), request.headers());
        return read(gateway, key, request).await;
    }
    let path = (!request.method().is_safe()).then(|| uri.path().to_owned());
    let answer = forward(gateway, &target(gateway), request).await?;
    if let Some(path) = path.filter(|_| answer.status().is_success()) {
        gateway.copies.written(&path);
    }
    Ok(answer)
}

/// A file of the page. One with a hash in its name is the same wherever it is found: a tab that
/// was loaded before the home was updated still gets the files that belong to it.
///
/// # Errors
/// As for [`user_data`].
pub async fn asset(gateway: &Arc<Gateway>, request: Request<Incoming>) -> Answer {
    let key = Key::asset(request.uri().path());
    if !is_hashed(key.path()) {
        return read(gateway, key, request).await;
    }
    let (parts, body) = request.into_parts();
    let again = parts.clone();
    let answer = read(gateway, key.clone(), Request::from_parts(parts, body)).await;
    let is_missing = match &answer {
        Ok(response) => response.status() == StatusCode::NOT_FOUND,
        Err(error) => error.fault() == Fault::Backend,
    };
    if !is_missing {
        return answer;
    }
    let again = Request::from_parts(again, ());
    match copy(gateway, &key, &Asked::of(&again)) {
        Some(response) => Ok(response),
        None => elsewhere(gateway, key, again).await.map_or(answer, Ok),
    }
}

/// Vite's names: `index-azSeANjR.js`.
fn is_hashed(path: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let Some(name) = path.strip_prefix("/assets/") else { return false };
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    let stem = stem.as_bytes();
    let Some(dash) = stem.len().checked_sub(9) else { return false };
    0 < dash
        && stem[dash] == b'-'
        && stem[dash..].iter().copied().all(is_plain)
        && kind.bytes().all(is_plain)
}

/// Passes a read to the home backend and keeps a copy of a good answer; gives the last one if
/// there is no answer.
///
/// # Errors
/// There is neither.
pub async fn read(gateway: &Arc<Gateway>, key: Key, mut request: Request<Incoming>) -> Answer {
    let home = target(gateway);
    if !gateway.copies.is_on() {
        return forward(gateway, &home, request).await;
    }
    let asked = Asked::of(&request);
    let is_head = *request.method() == Method::HEAD;
    let wants_all = !is_head && !request.headers().contains_key(RANGE);
    if wants_all && !gateway.copies.knows(&key) {
        // A 304 would leave us without a copy for the day when it is needed. The asker is given
        // in full what it has already, once.
        request.headers_mut().remove(IF_NONE_MATCH);
        request.headers_mut().remove(IF_MODIFIED_SINCE);
    }
    match forward(gateway, &home, request).await {
        Ok(response) if is_head => Ok(response),
        Ok(response) => Ok(passed(gateway, key, response)),
        Err(error) if error.fault() == Fault::Backend => copy(gateway, &key, &asked).ok_or(error),
        Err(error) => Err(error),
    }
}

/// What an answer of the home backend says of the copy.
fn passed(
    gateway: &Arc<Gateway>,
    key: Key,
    response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let copies = &gateway.copies;
    match response.status() {
        StatusCode::OK => return keep(gateway, key, response),
        StatusCode::NOT_MODIFIED => {
            copies.revalidated(&key, response.headers(), now());
        }
        StatusCode::NOT_FOUND if !is_hashed(key.path()) => copies.missing(key, now()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => copies.forget(&key),
        _ => {}
    }
    response
}

/// Has a body copied on its way, if it may be kept.
fn keep(
    gateway: &Arc<Gateway>,
    key: Key,
    response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let copies = &gateway.copies;
    if copies.confirm(&key, response.headers(), now()) {
        return response;
    }
    let expected = usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX);
    if !may_be_kept(response.headers()) || copies.body_max() < expected {
        copies.refuse(key);
        return response;
    }
    if !copies.take_room(expected) {
        return response;
    }
    let copying = Copying {
        gateway: Arc::clone(gateway),
        key,
        headers: response.headers().clone(),
        body: Vec::with_capacity(expected),
        room: expected,
    };
    response.map(|body| tapped(body, Box::new(copying)))
}

/// What is one asker's own, or depends on what we do not look at, is not kept.
pub fn may_be_kept(headers: &HeaderMap) -> bool {
    let is_known = |name: &str| {
        ["accept-encoding", "comfy-user", "origin"].iter().any(|it| name.eq_ignore_ascii_case(it))
    };
    let varies = headers.get_all(VARY).iter();
    let mut varies = varies.flat_map(|value| value.to_str().unwrap_or("*").split(','));
    !headers.contains_key(SET_COOKIE)
        && !headers.contains_key(CONTENT_RANGE)
        && varies.all(|name| is_known(name.trim()))
}

/// A body on its way, of which a copy is made.
struct Copying {
    gateway: Arc<Gateway>,
    key: Key,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Bytes that are taken for it.
    room: usize,
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.gateway.copies.give_back(self.room);
    }
}

impl Tap for Copying {
    fn passed(&mut self, data: &[u8]) -> bool {
        let len = self.body.len() + data.len();
        if self.gateway.copies.body_max() < len {
            self.gateway.copies.refuse(self.key.clone());
            return false;
        }
        let more = len.saturating_sub(self.room);
        if 0 < more && !self.gateway.copies.take_room(more) {
            return false;
        }
        self.room += more;
        self.body.extend_from_slice(data);
        true
    }

    fn finished(mut self: Box<Self>) {
        let copies = &self.gateway.copies;
        copies.give_back(std::mem::take(&mut self.room));
        let mut body = std::mem::take(&mut self.body);
        body.shrink_to_fit();
        let whole = Whole { headers: std::mem::take(&mut self.headers), body: body.into() };
        self.gateway.copies.put(self.key.clone(), whole, now());
    }
}

/// The last good copy, marked as such.
#[must_use]
pub fn copy(gateway: &Gateway, key: &Key, asked: &Asked) -> Option<Response<ResponseBody>> {
    let (found, age) = gateway.copies.get(key, now())?;
    let mut response = match found {
        Found::Whole(whole) if !asked.can_read(&whole.headers) => return None,
        Found::Whole(whole) => asked.answer(&whole),
        Found::Nothing => {
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            headers::mark(response.headers_mut(), gateway.home(), Reason::Home);
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(headers::STALE, HeaderValue::from(age.as_secs()));
    headers.insert(WARNING, HeaderValue::from_static("110 mooring \"Response is Stale\""));
    // No browser is to keep it longer than it is needed.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    gateway.metrics.stale_answers.inc();
    Some(response)
}

/// Asks the other backends that are up for a hashed asset, one after the other.
async fn elsewhere(
    gateway: &Arc<Gateway>,
    key: Key,
    request: Request<()>,
) -> Option<Response<ResponseBody>> {
    if !gateway.copies.may_look(key.path(), now()) {
        return None;
    }
    let (mut parts, ()) = request.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    let Ok(Some(response)) = timeout(ELSEWHERE, look(gateway, &parts)).await else {
        gateway.copies.missed(key.path(), now());
        return None;
    };
    let is_whole = response.status() == StatusCode::OK && parts.method == Method::GET;
    let keeps = is_whole && gateway.copies.is_on();
    Some(if keeps { keep(gateway, key, response) } else { response })
}

async fn look(gateway: &Gateway, parts: &Parts) -> Option<Response<ResponseBody>> {
    let home = gateway.home().id;
    let others = gateway.fleet.iter().filter(|backend| {
        backend.id != home && backend.is_up() && backend.admin() != AdminState::Off
    });
    for backend in others {
        let target = Target { backend: Arc::clone(backend), reason: Reason::Home };
        let request = to_backend(&target, parts.clone(), RequestBody::Empty);
        match send(gateway, &target, request).await {
            Ok(response) if response.status().is_success() => return Some(response),
            Ok(response) if response.status() == StatusCode::NOT_MODIFIED => return Some(response),
            Ok(_) | Err(_) => {}
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
            "/assets/x-azSe%2fjR.js",
            "/scripts/x-azSeANjR.js",
        ] {
            assert!(!is_hashed(path), "{path}");
        }
    }

    #[test]
    fn what_is_one_askers_own_is_not_kept() {
        let may = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            may_be_kept(&headers)
        };
        assert!(may("vary", "Accept-Encoding, Origin"));
        assert!(!may("vary", "*"));
        assert!(!may("vary", "accept-encoding, user-agent"));
        assert!(!may("set-cookie", "a=1"));
        assert!(!may("content-range", "bytes 0-1/2"));
    }
}
