//! Settings, saved workflows, users: read from the home or from its copies, written only to the
//! home (promise R9).
//!
//! A write through us changes what was copied: see [`super::writes`]. So the copies end (`saving`),
//! and what the writer sees is read again in the background (`read_anew`).

mod read_anew;
mod saving;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::Front;
use super::caller::Caller;
use super::comfy_user::SentFor;
use super::conditional::Conditional;
use super::error::GatewayError;
use super::forward::forward;
use super::home;
use super::stale_cache::{CacheKey, Found};
use super::{Answer, comfy_user, failover, headers};
use crate::body::ResponseBody;
use crate::net::{now, unix_millis};
use crate::routing::decision::Reason;
use crate::routing::realm::Realm;

pub use read_anew::READING_MAX;
pub use saving::{SAVING_EACH_MAX, SAVING_MAX};

/// The users of a server.
const USERS: &str = "/users";

/// Settings, saved workflows, users.
///
/// # Errors
/// The home backend does not answer, and there is no copy; a write has none. A user makes no users
/// of servers.
pub async fn user_data(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or(""));
    let mut key = CacheKey::own(path, query, request.headers());
    if caller.realm != Realm::Everybody && key.path() == USERS {
        return comfy_user::users(request.method());
    }
    if let Some(sent_for) = request.extensions().get::<SentFor>() {
        key.is_of_user(sent_for.name());
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return home::read(front, key, caller.address, request).await;
    }
    let home = home::target(&front.shared).map_err(|error| not_saved(front, error))?;
    if request.method().is_safe() {
        return forward(&front.shared, &home, request).await;
    }
    if !home.backend.is_up() {
        // A write that cannot be sent must not end copies: they are still used, and a page without
        // its home writes a lot.
        return Err(not_saved(front, GatewayError::not_asked(&home.backend)));
    }
    front.notice_home(home.backend.id);
    let answer = saving::save(front, home, key, caller.address, request).await;
    answer.map_err(|error| not_saved(front, error))
}

/// The error for a write that was not sent.
fn not_saved(front: &Front, error: GatewayError) -> GatewayError {
    if !failover::is_away(&error) {
        return error;
    }
    let is_off = matches!(error, GatewayError::BackendOff { .. });
    // If there never was a home, there is no backend, and the error must say that.
    let Some(name) = front.shared.records.home_name() else { return error };
    GatewayError::NotSaved { backend: name.to_string(), is_off }
}

/// The error while the home is busy with a write to the same data: the reader should ask again.
pub fn busy(front: &Front, error: GatewayError) -> GatewayError {
    match front.shared.records.home_name() {
        Some(name) if error.status() != StatusCode::SERVICE_UNAVAILABLE => {
            GatewayError::BackendDown { backend: name.to_string() }
        }
        Some(_) | None => error,
    }
}

/// The copy on the disk, marked as a copy, for user data.
pub async fn kept_copy(
    front: &Front,
    key: &CacheKey,
    conditional: &Conditional,
) -> Option<Response<ResponseBody>> {
    let (writes, home) = front.writes.number_before(|| front.shared.records.home_server());
    let (at, mut whole) = front.copies.get(&home?, key).await?;
    let age = Duration::from_millis(unix_millis().saturating_sub(at));
    if let Some(home) = front.shared.home() {
        headers::mark(&mut whole.headers, &home, Reason::Home);
    }
    // The next request gets it from memory; from the disk again if the copy is older than the
    // machine's uptime.
    if let Some(since) = now().checked_sub(age) {
        front.stale_cache.put(key.clone(), whole.clone(), since, writes);
    }
    home::stale(front, Found::Whole(whole), age, conditional)
}
