//! Decides which backend answers a read when the right one is down (promise R12).
//!
//! A page makes a dozen requests before it shows anything, and it does not recover if one of them
//! fails. So a read that names no prompt and no file is answered by another backend, or with the
//! last good copy. Requests that change something, or name a prompt or a file, never go to another
//! backend (B6).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::header::{CONTENT_LENGTH, RANGE};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::Front;
use super::caller::Caller;
use super::comfy_user::SentFor;
use super::conditional::Conditional;
use super::error::GatewayError;
use super::forward::{Target, forward, send, to_backend};
use super::packs;
use super::stale_cache::CacheKey;
use super::{Answer, home};
use crate::body::{RequestBody, ResponseBody};
use crate::comfy::endpoint::{START_READS, StartRead};
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::routing::decision::{Reason, Refusal};
use crate::routing::ids::BackendId;
use crate::routing::placement::AdminState;
use crate::shared::Shared;

/// How many others are asked.
pub const OTHERS_MAX: usize = 4;

/// How old a copy of a start read may be before another one is made, in seconds.
const COPY_AGAIN: u64 = 60;

/// When the last copy of each start read was begun.
#[derive(Debug)]
pub struct Starts {
    /// The time in seconds since the gateway started, plus one.
    copied: [AtomicU64; START_READS],
    started: Instant,
}

impl Default for Starts {
    fn default() -> Self {
        Self { copied: [const { AtomicU64::new(0) }; START_READS], started: now() }
    }
}

impl Starts {
    /// True if the next answer should be copied.
    #[must_use]
    pub fn are_due(&self, read: StartRead, front: &Front, now: Instant) -> bool {
        if !front.stale_cache.is_on() {
            return false;
        }
        let copied = self.copied[read.index()].load(Ordering::Relaxed);
        copied == 0 || copied + COPY_AGAIN <= self.seconds(now)
    }

    fn begun(&self, read: StartRead, now: Instant) {
        self.copied[read.index()].store(self.seconds(now), Ordering::Relaxed);
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.duration_since(self.started).as_secs() + 1
    }
}

/// The backends that may answer instead of one that is away, the best one first: the home, then
/// those that take work.
#[must_use]
pub fn others(shared: &Shared, away: Option<BackendId>) -> Vec<Target> {
    others_up_to(shared, away, OTHERS_MAX)
}

/// The same, limited to `count`.
#[must_use]
pub fn others_up_to(shared: &Shared, away: Option<BackendId>, max: usize) -> Vec<Target> {
    let home = shared.home().map(|home| home.id);
    let can = |backend: &Arc<Backend>| {
        backend.is_up() && backend.admin() != AdminState::Off && Some(backend.id) != away
    };
    let mut found: Vec<Arc<Backend>> = shared.fleet.iter().filter(can).collect();
    found.sort_by_key(|backend| (Some(backend.id) != home, backend.admin() != AdminState::Ready));
    let target = |backend: Arc<Backend>| Target {
        reason: if Some(backend.id) == home { Reason::Home } else { Reason::StandIn },
        backend,
    };
    found.into_iter().take(max).map(target).collect()
}

/// True if nothing was sent because the backend is away. Another one may answer.
#[must_use]
pub fn is_away(error: &GatewayError) -> bool {
    matches!(
        error,
        GatewayError::BackendDown { .. }
            | GatewayError::BackendOff { .. }
            | GatewayError::Refused(Refusal::BackendDown { .. } | Refusal::NoPlace(_))
            | GatewayError::Unreachable { .. }
    )
}

/// The same, also true if the backend broke off without an answer and the read is known to have no
/// effect. Any other read may be the reason why the backend broke, so it must not go to another
/// one.
fn may_go_on(error: &GatewayError, start: Option<StartRead>) -> bool {
    is_away(error) || (start.is_some() && matches!(error, GatewayError::Lost { .. }))
}

/// Answers a read that names nothing: from the caller's backend, or another one, or the last good
/// copy.
///
/// # Errors
/// None of these can answer, or the request may not be sent twice.
pub async fn read(
    front: &Arc<Front>,
    caller: &Caller,
    start: Option<StartRead>,
    request: Request<Incoming>,
) -> Answer {
    let again = again(&request);
    // ComfyUI's page asks without a query.
    let copied = start.filter(|_| request.uri().query().is_none());
    let key = copied.and(again.as_ref()).filter(|parts| wants_all(parts)).map(key_of);
    let asked = Conditional::of(&request);
    let (away, answer) = match packs::target(front, caller, request.uri().path()) {
        Ok(target) => (Some(target.backend.id), forward(&front.shared, &target, request).await),
        Err(error) => (None, Err(error)),
    };
    let answer = match (answer, again) {
        (Err(error), Some(parts)) if may_go_on(&error, start) => {
            from_another(&front.shared, away, (&parts, start)).await.ok_or(error)
        }
        (answer, _) => answer,
    };
    match (answer, copied.zip(key)) {
        (Ok(response), Some((start, key))) if response.status() == StatusCode::OK => {
            if !front.starts.are_due(start, front, now()) {
                return Ok(response);
            }
            front.starts.begun(start, now());
            Ok(home::keep(front, key, None, response))
        }
        (Err(error), Some((_, key))) if may_go_on(&error, copied) => {
            home::copy(front, &key, &asked).ok_or(error)
        }
        (answer, _) => answer,
    }
}

/// The same for an answer that was made from several backends: it is kept, or replaced by the last
/// good copy.
///
/// # Errors
/// There is no answer and no copy.
pub fn kept(
    front: &Arc<Front>,
    start: Option<StartRead>,
    (parts, asked): (&Parts, &Conditional),
    answer: Answer,
) -> Answer {
    let Some(start) = start.filter(|_| parts.uri.query().is_none() && wants_all(parts)) else {
        return answer;
    };
    match answer {
        Ok(response) if response.status() == StatusCode::OK => {
            if !front.starts.are_due(start, front, now()) {
                return Ok(response);
            }
            front.starts.begun(start, now());
            Ok(home::keep(front, key_of(parts), None, response))
        }
        Err(error) if may_go_on(&error, Some(start)) => {
            home::copy(front, &key_of(parts), asked).ok_or(error)
        }
        answer => answer,
    }
}

/// True if another backend may be asked after this error.
#[must_use]
pub fn is_for_another(error: &GatewayError) -> bool {
    is_away(error) || matches!(error, GatewayError::Lost { .. })
}

/// Asks others, one after the other, until one has answered.
pub async fn from_another(
    shared: &Shared,
    away: Option<BackendId>,
    read: (&Parts, Option<StartRead>),
) -> Option<Response<ResponseBody>> {
    ask(shared, others(shared, away), read).await
}

/// The same for given backends.
pub async fn ask(
    shared: &Shared,
    others: Vec<Target>,
    (parts, start): (&Parts, Option<StartRead>),
) -> Option<Response<ResponseBody>> {
    for target in others {
        let request = to_backend(&target, parts.clone(), RequestBody::Empty);
        match send(shared, &target, request).await {
            // A backend with an error of its own cannot answer for another one.
            Ok(response) if response.status().is_server_error() => {}
            Ok(response) => return Some(response),
            // Several may break off at the same time.
            Err(error) if may_go_on(&error, start) => {}
            Err(_) => return None,
        }
    }
    None
}

/// The head of a read that may be sent twice: it is safe (RFC 9110 section 9.2.2) and has no body.
#[must_use]
pub fn again(request: &Request<Incoming>) -> Option<Parts> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_read || !request.body().is_end_stream() {
        return None;
    }
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head.headers_mut().remove(CONTENT_LENGTH);
    SentFor::copy(request.extensions(), head.extensions_mut());
    Some(head.into_parts().0)
}

fn key_of(parts: &Parts) -> CacheKey {
    CacheKey::own(parts.uri.path(), parts.uri.query().unwrap_or(""), &parts.headers)
}

/// True if the answer to this request can be copied.
fn wants_all(parts: &Parts) -> bool {
    parts.method == Method::GET && !parts.headers.contains_key(RANGE)
}
