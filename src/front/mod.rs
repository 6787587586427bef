//! The front door: browsers' and scripts' HTTP and WebSocket.
//!
//! - [`caller`]: who sends a request (R1)
//! - [`route`]: which backend a request goes to
//! - [`submit`]: a prompt, from its body to a correct answer
//! - [`forward`]: passes requests and answers on, streamed both ways
//! - [`upload`]: uploads, which wait for their prompt
//! - [`view`]: files, from the backend that has them
//! - [`packs`]: routes of node packs, where a server may remember who used them
//! - [`nodes`]: lists that are merged from all backends
//! - [`copy_file`]: copies files to the backend of the prompt that needs them
//! - [`collected`]: answers that are read before they are passed on
//! - [`commands`]: interrupt, delete, clear, [`cancel`]: for the caller's own prompts only
//!   ([`command_scope`]: finds these prompts; [`broadcast_lookup`]: unknown ids)
//! - [`passthrough`]: plain reads, passed on as bytes
//! - [`bodies`]: bodies that Mooring itself reads
//! - [`history`]: requests that name a prompt
//! - [`lists`]: the caller's queue and history, from every backend; [`history_cache`]
//! - [`visible_owners`]: whose prompts a caller can see
//! - [`jobs`]: the jobs API, for all servers
//! - [`names`]: names of files in answers
//! - [`upgrade`]: browser sockets; [`tunnel`]: sockets of node packs
//! - [`cors`]: pages of other origins
//! - [`base_path`]: the front below a path
//! - [`failover`]: which backend answers a read when its own is down
//! - [`unavailable`]: the page for a request that no backend can answer
//! - [`own_cookies`]: our cookies; [`cookie_signer`]: signs them
//! - [`self_service`]: our own routes, under `/-/`
//! - [`home`]: answers that are the same for everyone; [`user_data`]: those that can be written too
//! - [`stale_cache`]: their last good copies; [`copies`]: copies on the disk; [`writes`]: writes,
//!   which end copies
//! - [`stand_in`]: which backend answers for the home while it is away
//! - [`static_files`]: the page's files that never change, from memory ([`asset_cache`])
//! - [`page`]: ComfyUI's page, with each tab as a client of its own ([`page_cookie`]: the cookie
//!   for other pages)
//! - [`access`]: the log of requests
//! - [`admission`]: who may come in, and for how long; [`session_cookie`]: sessions of browsers
//! - [`login`]: login and logout with a browser
//! - `comfy_user`: says to servers who a user is
//! - [`users`]: how servers are configured
//! - [`conditional`]: conditions and ranges of reads ([`accept_encoding`]: codings)
//! - [`assets`]: assets and their tags, of all servers

pub mod accept_encoding;
pub mod access;
pub mod admission;
pub mod asset_cache;
pub mod assets;
mod audited;
pub mod base_path;
pub mod bodies;
pub mod broadcast_lookup;
pub mod browsers;
pub mod cache_key;
pub mod caller;
pub mod cancel;
pub mod collected;
mod comfy_user;
pub mod command_scope;
pub mod commands;
pub mod conditional;
pub mod cookie_signer;
pub mod copies;
pub mod copy_file;
pub mod cors;
pub mod error;
pub mod failover;
pub mod forward;
mod guests;
pub mod header_text;
pub mod headers;
pub mod history;
pub mod history_cache;
pub mod home;
pub mod hosts;
pub mod html;
pub mod identity_hints;
pub mod jobs;
mod limits;
pub mod lists;
pub mod login;
pub mod names;
pub mod nodes;
mod on_the_way;
pub mod operators;
pub mod own_cookies;
mod own_folder;
mod own_queue;
pub mod packs;
pub mod page;
pub mod page_cookie;
mod page_fleet;
mod page_scripts;
pub mod passthrough;
mod proxy_gate;
pub mod route;
pub mod self_service;
mod service;
pub mod session_cookie;
pub mod shares;
pub mod stale_cache;
pub mod stand_in;
mod state;
pub mod static_files;
pub mod submit;
mod token_gate;
mod token_keys;
pub mod tunnel;
pub mod unavailable;
pub mod upgrade;
pub mod upload;
pub mod user_data;
mod user_file;
pub mod users;
pub mod view;
pub mod visible_owners;
mod waiting;
pub mod writes;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tracing::{debug, info};

use crate::body::ResponseBody;
use crate::comfy::deny::is_denied;
use crate::comfy::endpoint::{RequestClass, classify};
use crate::config::BasePath;
use crate::net::{new_id, now};
use crate::server::wire::Came;
use crate::shared::Shared;
use error::{Closed, Fault, GatewayError};
use unavailable::{Asker, Reader};

pub use service::FrontService;
pub use state::{Annex, Front};

/// The result of a handler.
pub type Answer = Result<Response<ResponseBody>, GatewayError>;

/// Answers one request of a client. All requests come through here.
pub async fn answer(
    front: Arc<Front>,
    peer: IpAddr,
    mut request: Request<Incoming>,
) -> Response<ResponseBody> {
    let started = Came::of_request(&request).unwrap_or_else(now);
    // Read once: the path that was removed must be added again, even if the configuration changes.
    let base = front.shared.config().server.base_path.clone();
    let entry = base_path::enter(&base, &mut request);
    let decision = cors::CorsDecision::of(&front.shared, peer, &request);
    let is_inside = matches!(entry, base_path::Entry::Inside);
    let from = login::Origin { peer, decision: &decision, base: &base, is_inside };
    let login = login::Asked::of(&front, &request).filter(|_| is_inside);
    let turned_away = check_first(&front, peer, &request, started).err();
    let (guest, answered) = match (turned_away, login) {
        (Some(error), _) => (None, Some(Err(error))),
        (None, Some(_)) if !matches!(decision, cors::CorsDecision::Preflight(_)) => (None, None),
        (None, Some(_) | None) => {
            token_keys::know_keys(&front, &request).await;
            enter(&front, from, &mut request)
        }
    };
    let is_refused = answered.is_some();
    let mut recorded = access::is_recorded(&front.shared)
        .then(|| access::Record::of_request(&front, peer, removed(&base, &entry), &request));
    if let Some(record) = &mut recorded {
        record.is_of(guest.as_ref().map(|guest| &guest.pass));
        request.extensions_mut().insert(record.seen());
    }
    let asker = Asker::of(&front, peer, &request);
    let visit = page_cookie::Visit::of(&front, peer, &request);
    let (class, answer) = match (answered, entry) {
        (Some(answered), _) => (RequestClass::Unread, answered),
        (None, entry) => answer_inside(&front, from, entry, login, request).await,
    };
    let mut response = or_failed(&front, peer, answer, asker);
    if is_inside {
        // Outside of the base path, the cookie would go to everything else on this host.
        visit.greet(&front.cookie_signer, &mut response);
    }
    // This comes later: a page with an opaque origin gets no cookie.
    if let cors::CorsDecision::Allowed(origin) = &decision {
        cors::allow(&mut response, origin);
    }
    if let Some(guest) = &guest {
        own_folder::take_off(&identity_hints::realm_of(&guest.pass), &mut response);
        admission::answer_to(&front, guest, &mut response);
    }
    // The form sets a cookie outside of the base path too.
    if is_inside || is_refused {
        base_path::put_back(&base, response.headers_mut());
    }
    let took = now().duration_since(started);
    headers::time(&mut response, took);
    front.shared.metrics.answered(class, response.status(), took);
    if let Some(record) = recorded {
        record.write(&access::Answer::of(&response, took));
    }
    response
}

/// What a request is about, and its answer.
async fn answer_inside(
    front: &Arc<Front>,
    from: login::Origin<'_>,
    entry: base_path::Entry,
    login: Option<login::Asked>,
    request: Request<Incoming>,
) -> (RequestClass, Answer) {
    match (entry, login) {
        (base_path::Entry::Inside, Some(asked)) => {
            (RequestClass::Own, login::answer(front, asked, from, request).await)
        }
        (base_path::Entry::Inside, None) => {
            let endpoint = classify(request.method(), request.uri().path());
            (endpoint.class(), route::route(front, from.peer, endpoint, request).await)
        }
        (base_path::Entry::Itself, _) => {
            (RequestClass::Unread, Ok(base_path::to_the_slash(from.base, request.uri())))
        }
        (base_path::Entry::Outside(error), _) => (RequestClass::Unread, Err(error)),
    }
}

/// What was removed from the path of a request.
fn removed<'b>(base: &'b BasePath, entry: &base_path::Entry) -> &'b str {
    match entry {
        base_path::Entry::Inside => base.prefix(),
        base_path::Entry::Itself | base_path::Entry::Outside(_) => "",
    }
}

/// The answer, or that of its error.
fn or_failed(front: &Front, peer: IpAddr, answer: Answer, asker: Asker) -> Response<ResponseBody> {
    let error = match answer.map_err(|error| error.in_fleet(&front.shared.fleet)) {
        Ok(response) => return response,
        Err(error) => error,
    };
    let mut response = failed_for(&front.shared, &error, asker);
    if limits::is_of_requests(&error) && !front.shared.config().server.trusts(peer) {
        // Whoever sends more than allowed would otherwise keep a worker busy with refusals. A new
        // connection costs him more than it costs us (RFC 9112 section 9.6). That of a trusted
        // proxy also carries the requests of others.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Checks what matters before anything else.
///
/// # Errors
/// Its address sends too many requests, or it is not meant for this gateway at all.
fn check_first<B>(
    front: &Front,
    peer: IpAddr,
    request: &Request<B>,
    now: Instant,
) -> Result<(), GatewayError> {
    let config = front.shared.config();
    let address = || audited::address_of(front, peer, request);
    front.limits.request(&config, address, now)?;
    hosts::check(&config.server, peer, request)
}

/// Checks whether a request may come in, and finds its sender. Returns an answer if no more is
/// needed.
///
/// The sender is checked before the page. A preflight is answered before both: it never carries
/// credentials (Fetch, "CORS-preflight fetch", step 1), and its answer reveals only that the
/// operator has listed the page.
fn enter(
    front: &Front,
    from: login::Origin<'_>,
    request: &mut Request<Incoming>,
) -> (Option<admission::Guest>, Option<Answer>) {
    let login::Origin { peer, decision, .. } = from;
    if let cors::CorsDecision::Preflight(origin) = decision {
        return (None, Some(Ok(cors::preflight(origin, request.headers()))));
    }
    let guest = match admission::admit(front, (peer, decision), request) {
        Ok(guest) => guest,
        Err(refused) => return (None, Some(login::refuse(front, from, request, refused))),
    };
    let checked = match decision {
        cors::CorsDecision::Foreign => Err(GatewayError::ForeignOrigin),
        cors::CorsDecision::Allowed(origin) => {
            cors::admit(request, origin);
            Ok(())
        }
        cors::CorsDecision::Same | cors::CorsDecision::Preflight(_) => Ok(()),
    };
    let checked = checked
        .and_then(|()| guest.as_ref().map_or(Ok(()), |it| admission::check_page(it, request)))
        .and_then(|()| check_path(front, from, request.uri().path()));
    (guest, checked.err().map(Err))
}

/// # Errors
/// `server.deny` has the path. What is beside the base path is nowhere, and told so.
fn check_path(front: &Front, from: login::Origin<'_>, path: &str) -> Result<(), GatewayError> {
    match from.is_inside && is_denied(&front.shared.config().server.deny, path) {
        true => Err(GatewayError::Closed(Closed::Path)),
        false => Ok(()),
    }
}

/// The answer that reports an error, as a page for a person who opened an address. A request
/// without an id from a proxy gets one here, so that it can be found in the log.
pub fn failed_for(
    shared: &Shared,
    error: &GatewayError,
    mut asker: Asker,
) -> Response<ResponseBody> {
    let response = failed(shared, error);
    match asker.reader {
        Reader::Person | Reader::Sender => {}
        Reader::Program => return response,
    }
    let named = asker.named.take();
    let request_id = named.unwrap_or_else(|| new_id().simple().to_string());
    let code = error.code();
    match error.fault() {
        Fault::Client => debug!(request_id, code, %error, "A request was refused."),
        Fault::Backend | Fault::Gateway => {
            info!(request_id, code, %error, "A client was told to wait.");
        }
    }
    unavailable::page(error, &asker, &request_id, response)
}

/// The answer that reports an error. The error is counted and logged.
pub fn failed(shared: &Shared, error: &GatewayError) -> Response<ResponseBody> {
    shared.metrics.failed(error.code());
    if let GatewayError::LimitReached(reached) = error {
        shared.metrics.limits.reached(reached.name);
    }
    let source = std::error::Error::source(error).map(ToString::to_string);
    match error.fault() {
        Fault::Client => debug!(%error, "Refused a request."),
        Fault::Backend | Fault::Gateway => {
            debug!(%error, source, code = error.code(), "A request failed.");
        }
    }
    error.response()
}

/// An answer 200 with JSON of ours.
#[must_use]
pub fn json(body: impl Into<bytes::Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

/// An answer 200 without a body, like ComfyUI's answer to a command.
#[must_use]
pub fn done() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}
