//! Answers that are the same for everyone (promise R9). They come from the home backend. While that
//! is down, they come from the last good copy or from another backend, because a page with another
//! backend's settings is better than none. Writes go only to the home.
//!
//! A body is copied while it is streamed to its client, never before. `Cache-Control` is for
//! browsers; a copy is used here only when the home does not answer, and the answer is marked.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CONTENT_RANGE, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, RANGE, SET_COOKIE, VARY, WARNING,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::Front;
use super::conditional::{Conditional, Whole};
use super::copies::Source;
use super::error::{Fault, GatewayError};
use super::forward::{Target, exchange, incoming, to_backend};
use super::stale_cache::{CacheKey, Found, Revalidated};
use super::{Answer, failover, headers, stand_in, static_files, user_data};
use crate::body::tee::{Tee, tee};
use crate::body::{ClientFault, RequestBody, ResponseBody};
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::records::home::HomeServer;
use crate::routing::decision::Reason;
use crate::routing::placement::NoPlace;
use crate::shared::Shared;

/// How long a read waits while the home is busy with a write to the same data.
const BUSY_WITHIN: Duration = Duration::from_secs(10);

/// A home that is silent during a write looks down after `fleet.grace`. For this additional time it
/// may only be busy. After that it counts as gone, and others may answer for it.
const BUSY_AFTER: Duration = Duration::from_secs(30);

/// How often a copy is looked up again if writes begin in the meantime.
const LOOKS_MAX: usize = 3;

/// The home backend.
///
/// # Errors
/// There is no backend at all.
pub fn target(shared: &Shared) -> Result<Target, GatewayError> {
    let backend = shared.home().ok_or(GatewayError::Refused(NoPlace::NoneReady.into()))?;
    Ok(Target { backend, reason: Reason::Home })
}

/// Passes a read to the home backend and keeps a copy of a good answer. If there is no answer, it
/// gives the last copy, or the answer of another backend. `from` is the address of the caller.
///
/// # Errors
/// None of these exists.
pub async fn read(
    front: &Arc<Front>,
    key: CacheKey,
    from: IpAddr,
    request: Request<Incoming>,
) -> Answer {
    let again = failover::again(&request);
    let conditional = Conditional::of(&request);
    let (parts, body) = request.into_parts();
    let asked = (parts, RequestBody::streamed(body, front.shared.config().server.body_timeout));
    let mut error = match of_home(front, &key, from, asked).await {
        Err(error) if is_none(&error) => error,
        answer => return answer,
    };
    for _ in 0..LOOKS_MAX {
        let begun = front.writes.begun();
        let busy_for = front.shared.config().fleet.grace + BUSY_AFTER;
        if front.writes.is_at_work(&key, now(), busy_for) {
            // The home is only busy with the write. The data of another backend would be taken for
            // the caller's own.
            if timeout(BUSY_WITHIN, front.writes.until_it_stops(&key, busy_for)).await.is_err() {
                return Err(user_data::busy(front, error));
            }
            if let Some(parts) = again.clone() {
                let asked = (parts, (RequestBody::Empty, ClientFault::default()));
                error = match of_home(front, &key, from, asked).await {
                    Err(error) if is_none(&error) => error,
                    answer => return answer,
                };
            }
        }
        if let Some(copy) = copy(front, &key, &conditional) {
            return Ok(copy);
        }
        if let Some(copy) = user_data::kept_copy(front, &key, &conditional).await {
            return Ok(copy);
        }
        if front.writes.begun() == begun {
            break;
        }
    }
    let Some(parts) = again else { return Err(error) };
    stand_in::answer(front, &parts).await.ok_or(error)
}

/// True if a copy or another backend may answer instead.
fn is_none(error: &GatewayError) -> bool {
    error.fault() == Fault::Backend || failover::is_away(error)
}

async fn of_home(
    front: &Arc<Front>,
    key: &CacheKey,
    from: IpAddr,
    (mut parts, (body, fault)): (Parts, (RequestBody, ClientFault)),
) -> Answer {
    let (writes, home) = front.writes.number_before(|| target(&front.shared));
    let home = home?;
    front.notice_home(home.backend.id);
    let is_head = parts.method == Method::HEAD;
    let wants_all = !is_head && !parts.headers.contains_key(RANGE);
    if wants_all && front.stale_cache.is_on() && !front.stale_cache.knows(key) {
        // An answer 304 would leave us without a copy for the time when it is needed. So the caller
        // gets the full answer once, although it has it already.
        parts.headers.remove(IF_NONE_MATCH);
        parts.headers.remove(IF_MODIFIED_SINCE);
    }
    let asked = Asked::of(&home.backend, from, writes);
    let request = to_backend(&home, parts, body);
    let (response, lease) = exchange(&front.shared, &home, request, &fault).await?;
    let response = incoming(&front.shared, &home, response, lease);
    if is_head || !front.stale_cache.is_on() {
        return Ok(response);
    }
    Ok(passed(front, key.clone(), &asked, response))
}

/// The home that was asked, and the number of writes at that time.
#[derive(Clone, Debug)]
pub struct Asked {
    home: Arc<Backend>,
    source: Source,
}

impl Asked {
    /// The home is about to be asked. `writes` is the number of writes before this was known to be
    /// the home.
    #[must_use]
    pub fn of(home: &Arc<Backend>, asked_from: IpAddr, writes: u64) -> Self {
        let source = Source { home: HomeServer::of(home), asked_from, writes };
        Self { home: Arc::clone(home), source }
    }
}

/// Updates the copy from an answer of the home. If something was written since the home was asked,
/// the answer is not used: the copy may be newer.
#[must_use]
pub fn passed(
    front: &Arc<Front>,
    key: CacheKey,
    asked: &Asked,
    response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let (copies, source) = (&front.stale_cache, &asked.source);
    if front.writes.may_be_old(&key, source.writes) {
        return response;
    }
    match response.status() {
        StatusCode::OK => return keep(front, key, Some(asked), response),
        StatusCode::NOT_MODIFIED => match copies.revalidated(&key, response.headers(), now()) {
            Revalidated::Same => keeps_up(front, &key, source),
            Revalidated::Another => front.copies.forget(&source.home, &key),
            Revalidated::Unsaid => {}
        },
        StatusCode::NOT_FOUND if !static_files::is_hashed(key.path()) => {
            // Only the copies in memory store that something does not exist. Otherwise requests for
            // missing things would fill the disk.
            front.copies.forget(&source.home, &key);
            copies.missing(key, now(), source.writes);
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            copies.forget(&key);
            front.copies.forget(&source.home, &key);
        }
        _ => {}
    }
    response
}

/// The home has confirmed the copy, so it is stored on the disk too.
fn keeps_up(front: &Front, key: &CacheKey, source: &Source) {
    let in_memory = || match front.stale_cache.get(key, now())?.0 {
        Found::Whole(whole) => Some(whole),
        Found::Nothing => None,
    };
    front.copies.confirm(source, key, in_memory);
}

/// Copies a body on its way, if that is allowed. `asked` is given for an answer of the home.
#[must_use]
pub fn keep(
    front: &Arc<Front>,
    key: CacheKey,
    asked: Option<&Asked>,
    response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let copies = &front.stale_cache;
    if copies.confirm(&key, response.headers(), now()) {
        if let Some(asked) = asked {
            keeps_up(front, &key, &asked.source);
        }
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
        asked: asked.cloned(),
        headers: response.headers().clone(),
        body: Vec::with_capacity(expected),
        room: expected,
    };
    response.map(|body| tee(body, Box::new(copying)))
}

/// False for answers that belong to one caller, or depend on something that is not checked here.
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

/// A body on its way that is being copied.
struct Copying {
    front: Arc<Front>,
    key: CacheKey,
    asked: Option<Asked>,
    headers: HeaderMap,
    body: Vec<u8>,
    /// The bytes that are reserved for it.
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
        if let Some(Asked { home, source }) = &self.asked {
            self.front.copies.put(source, &self.key, whole.clone());
            stand_in::saw_page(&self.front, home.id, &self.key, &whole);
        }
        // Data about a server, which is not personal, is not changed by writes to user data.
        let writes = self.asked.as_ref().map_or(0, |asked| asked.source.writes);
        copies.put(self.key.clone(), whole, now(), writes);
    }
}

/// The last good copy, marked as a copy.
#[must_use]
pub fn copy(
    front: &Front,
    key: &CacheKey,
    conditional: &Conditional,
) -> Option<Response<ResponseBody>> {
    let (found, age) = front.stale_cache.get(key, now())?;
    stale(front, found, age, conditional)
}

/// A copy of this age as an answer. `None` if the caller cannot read it.
#[must_use]
pub fn stale(
    front: &Front,
    found: Found,
    age: Duration,
    conditional: &Conditional,
) -> Option<Response<ResponseBody>> {
    let mut response = match found {
        Found::Whole(whole) if !conditional.can_read(&whole.headers) => return None,
        Found::Whole(whole) => conditional.answer(&whole),
        Found::Nothing => {
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = StatusCode::NOT_FOUND;
            if let Some(home) = front.shared.home() {
                headers::mark(response.headers_mut(), &home, Reason::Home);
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(headers::STALE, HeaderValue::from(age.as_secs()));
    headers.insert(WARNING, HeaderValue::from_static("110 mooring \"Response is Stale\""));
    // A browser must not keep it longer than necessary.
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
