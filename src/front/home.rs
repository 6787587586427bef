//! Answers that are the same for everyone (promise R9). They come from the home backend; while that
//! is down, from the last good copy, else from another backend, because a page with another
//! backend's settings is better than none. Nothing is written except to the home.
//!
//! A body is copied while it streams to its client, never before. `Cache-Control` is for browsers;
//! a copy is used here only when the home does not answer, and is marked as such.

use std::sync::Arc;

use http::header::{
    CONTENT_RANGE, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, RANGE, SET_COOKIE, VARY, WARNING,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::Front;
use super::conditional::{Conditional, Whole};
use super::error::{Fault, GatewayError};
use super::forward::{Target, forward};
use super::stale_cache::{CacheKey, Found};
use super::{Answer, failover, headers, static_files};
use crate::body::ResponseBody;
use crate::body::tee::{Tee, tee};
use crate::net::now;
use crate::routing::decision::Reason;
use crate::shared::Shared;

/// Where it comes from.
#[must_use]
pub fn target(shared: &Shared) -> Target {
    Target { backend: Arc::clone(&shared.home()), reason: Reason::Home }
}

/// Settings, saved workflows, users.
///
/// # Errors
/// The home backend does not answer, and there is no copy; a write has none.
pub async fn user_data(front: &Arc<Front>, request: Request<Incoming>) -> Answer {
    let uri = request.uri();
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        let key = CacheKey::own(uri.path(), uri.query().unwrap_or(""), request.headers());
        return read(front, key, request).await;
    }
    let path = (!request.method().is_safe()).then(|| uri.path().to_owned());
    let home = target(&front.shared);
    let answer =
        forward(&front.shared, &home, request).await.map_err(|error| not_saved(&home, error))?;
    if let Some(path) = path.filter(|_| answer.status().is_success()) {
        front.stale_cache.written(&path);
    }
    Ok(answer)
}

/// Nothing was sent, and that is what the writer has to know.
fn not_saved(home: &Target, error: GatewayError) -> GatewayError {
    if !failover::is_away(&error) || home.backend.is_nobody() {
        return error;
    }
    let is_off = matches!(error, GatewayError::BackendOff { .. });
    GatewayError::NotSaved { backend: home.backend.name().to_string(), is_off }
}

/// Passes a read to the home backend and keeps a copy of a good answer; gives the last one if
/// there is no answer, or another backend's.
///
/// # Errors
/// There is neither.
pub async fn read(front: &Arc<Front>, key: CacheKey, mut request: Request<Incoming>) -> Answer {
    let home = target(&front.shared);
    let again = failover::again(&request);
    let conditional = Conditional::of(&request);
    let is_head = *request.method() == Method::HEAD;
    let wants_all = !is_head && !request.headers().contains_key(RANGE);
    if wants_all && front.stale_cache.is_on() && !front.stale_cache.knows(&key) {
        // A 304 would leave us without a copy for the day when it is needed. The caller is given
        // in full what it has already, once.
        request.headers_mut().remove(IF_NONE_MATCH);
        request.headers_mut().remove(IF_MODIFIED_SINCE);
    }
    match forward(&front.shared, &home, request).await {
        Ok(response) if is_head || !front.stale_cache.is_on() => Ok(response),
        Ok(response) => Ok(passed(front, key, response)),
        Err(error) if error.fault() == Fault::Backend => {
            if let Some(copy) = copy(front, &key, &conditional) {
                return Ok(copy);
            }
            let Some(parts) = again else { return Err(error) };
            failover::from_another(&front.shared, Some(home.backend.id), &parts).await.ok_or(error)
        }
        Err(error) => Err(error),
    }
}

/// What an answer of the home backend says of the copy.
fn passed(
    front: &Arc<Front>,
    key: CacheKey,
    response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let copies = &front.stale_cache;
    match response.status() {
        StatusCode::OK => return keep(front, key, response),
        StatusCode::NOT_MODIFIED => {
            copies.revalidated(&key, response.headers(), now());
        }
        StatusCode::NOT_FOUND if !static_files::is_hashed(key.path()) => copies.missing(key, now()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => copies.forget(&key),
        _ => {}
    }
    response
}

/// Has a body copied on its way, if it may be kept.
#[must_use]
pub fn keep(
    front: &Arc<Front>,
    key: CacheKey,
    response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let copies = &front.stale_cache;
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
        front: Arc::clone(front),
        key,
        headers: response.headers().clone(),
        body: Vec::with_capacity(expected),
        room: expected,
    };
    response.map(|body| tee(body, Box::new(copying)))
}

/// False for what is one caller's own, or depends on what we do not look at.
#[must_use]
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
    front: Arc<Front>,
    key: CacheKey,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Bytes that are taken for it.
    room: usize,
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.front.stale_cache.give_back(self.room);
    }
}

impl Tee for Copying {
    fn passed(&mut self, data: &[u8]) -> bool {
        let len = self.body.len() + data.len();
        if self.front.stale_cache.body_max() < len {
            self.front.stale_cache.refuse(self.key.clone());
            return false;
        }
        let more = len.saturating_sub(self.room);
        if 0 < more && !self.front.stale_cache.take_room(more) {
            return false;
        }
        self.room += more;
        self.body.extend_from_slice(data);
        true
    }

    fn finished(mut self: Box<Self>) {
        let copies = &self.front.stale_cache;
        copies.give_back(std::mem::take(&mut self.room));
        let mut body = std::mem::take(&mut self.body);
        body.shrink_to_fit();
        let whole = Whole { headers: std::mem::take(&mut self.headers), body: body.into() };
        self.front.stale_cache.put(self.key.clone(), whole, now());
    }
}

/// The last good copy, marked as such.
#[must_use]
pub fn copy(
    front: &Front,
    key: &CacheKey,
    conditional: &Conditional,
) -> Option<Response<ResponseBody>> {
    let (found, age) = front.stale_cache.get(key, now())?;
    let mut response = match found {
        Found::Whole(whole) if !conditional.can_read(&whole.headers) => return None,
        Found::Whole(whole) => conditional.answer(&whole),
        Found::Nothing => {
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            headers::mark(response.headers_mut(), &front.shared.home(), Reason::Home);
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(headers::STALE, HeaderValue::from(age.as_secs()));
    headers.insert(WARNING, HeaderValue::from_static("110 mooring \"Response is Stale\""));
    // No browser is to keep it longer than it is needed.
    headers::keep_private(headers);
    front.shared.metrics.stale_answers.inc();
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

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
