//! Assets: `/api/assets…` and `/api/tags`, over all servers that have assets (promise R11).
//!
//! A request with an id goes to the backend that has the asset. Lists and tags of several backends
//! are merged; they contain the caller's assets and those without an owner. A hash is looked up on
//! all backends. For the caller, another client's asset does not exist. A server that does not know
//! the caller's user is not asked (`servers`). Where users are asked for, assets are off for them.
//!
//! - `servers`: the backends that can be asked
//! - `lists`: merges assets and tags of several backends
//! - `one`: requests that name one asset
//! - `hashes`: requests that name content by its hash
//! - `upload`: new assets

mod hashes;
mod lists;
mod one;
mod servers;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::Front;
use super::caller::Caller;
use super::comfy_user::{self, SentFor};
use super::error::{Closed, GatewayError};
use super::headers::COMFY_USER;
use super::jobs::with_status;
use super::route::reading;
use super::users;
use super::{Answer, forward};
use crate::body::{CollectLimits, OnEnd as _, RequestBody, ResponseBody, collect};
use crate::comfy::assets::AssetRequest;
use crate::comfy::reply;
use crate::config::Nameless;
use crate::fleet::api::{ANSWER_MAX, ApiError};
use crate::fleet::backend::Backend;
use crate::fleet::pool::ExchangeError;
use crate::net::now;
use crate::records::assets::AssetViewer;
use crate::routing::files::Maker;
use crate::routing::ids::AssetId;
use crate::routing::realm::Realm;
pub use hashes::view;

/// Answers a request to one of these routes.
///
/// # Errors
/// No backend can answer, or the error of [`forward::forward`].
pub async fn answer(
    front: &Arc<Front>,
    caller: &Caller,
    asked: AssetRequest,
    request: Request<Incoming>,
) -> Answer {
    if matches!(asked, AssetRequest::Scan(_)) && !may_scan(front, caller) {
        return Err(GatewayError::Closed(Closed::Operators));
    }
    if are_off(front, caller, &asked) {
        return servers::NoServer::Disabled.answer();
    }
    let said = (request.headers(), request.extensions());
    let session = Session::of(front, caller, said);
    route(&session, asked, request).await.or_else(|Done(answer)| *answer)
}

fn may_scan(front: &Front, caller: &Caller) -> bool {
    front.shared.config().server.allow_asset_scans && caller.is_operator
}

/// True if the caller gets the answer of a server without assets. Where users are asked for, a
/// server's database does not keep them apart: uploads of the same content and name share an entry,
/// it gives content to whoever knows its hash, and outputs belong to nobody. So users have no
/// assets. What concerns a whole server is left to operators.
fn are_off(front: &Front, caller: &Caller, asked: &AssetRequest) -> bool {
    let is_of_server = matches!(asked, AssetRequest::Scan(_) | AssetRequest::ScanStatus);
    caller.realm != Realm::Everybody && !(is_of_server && may_scan(front, caller))
}

async fn route(session: &Session<'_>, asked: AssetRequest, request: Request<Incoming>) -> Settled {
    let front = session.front;
    match asked {
        AssetRequest::List => lists::list(session, request).await,
        AssetRequest::Tags => lists::tags(session, request).await,
        AssetRequest::Refine => lists::refine(session, request).await,
        AssetRequest::Item(id) => one::item(session, id, request).await,
        AssetRequest::Content(id) => one::content(session, id, request).await,
        AssetRequest::Change(id) | AssetRequest::EditTags(id) | AssetRequest::Delete(id) => {
            one::change(session, id, request).await
        }
        AssetRequest::Hash(hash) => hashes::is_there(session, &hash, request).await,
        AssetRequest::FromHash => hashes::from_hash(session, request).await,
        AssetRequest::Upload => upload::upload(session, request).await,
        // Who may scan was asked before.
        AssetRequest::Scan(_) | AssetRequest::ScanStatus => {
            let target = servers::nearest(session, &servers::of(session).await?)?;
            Ok(forward::forward(&front.shared, &target, request).await?)
        }
    }
}

/// An early answer: the asset does not exist, or something failed.
struct Done(Box<Answer>);

/// The result of one of these routes.
type Settled = Result<Response<ResponseBody>, Done>;

impl From<GatewayError> for Done {
    fn from(error: GatewayError) -> Self {
        Self(Box::new(Err(error)))
    }
}

impl From<servers::NoServer> for Done {
    fn from(none: servers::NoServer) -> Self {
        Self(Box::new(none.answer()))
    }
}

impl Done {
    fn with(response: Response<ResponseBody>) -> Self {
        Self(Box::new(Ok(response)))
    }
}

/// The caller of one request.
struct Session<'a> {
    front: &'a Arc<Front>,
    caller: &'a Caller,
    viewer: AssetViewer,
    /// The header `Comfy-User`, unchanged.
    user: Option<HeaderValue>,
    /// The user whom servers are told of, each by its own id.
    sent_for: Option<SentFor>,
}

impl<'a> Session<'a> {
    fn of(
        front: &'a Arc<Front>,
        caller: &'a Caller,
        (headers, said): (&http::HeaderMap, &Extensions),
    ) -> Self {
        let user = headers.get(COMFY_USER).cloned();
        let named = user.as_ref().and_then(|it| it.to_str().ok()).filter(|it| !it.is_empty());
        let viewer =
            AssetViewer { makers: makers_of(front, caller), user: named.map(str::to_owned) };
        Self { front, caller, viewer, user, sent_for: said.get().cloned() }
    }

    /// True if a server knows the caller's user, also if he is made there now.
    async fn is_known_at(&self, backend: &Arc<Backend>, limit: Duration) -> bool {
        if let Some(sent_for) = &self.sent_for {
            return backend.user_id(sent_for.name(), limit).await.is_ok();
        }
        let user = match &self.user {
            Some(user) => user.to_str().unwrap_or(""),
            None => users::DEFAULT,
        };
        self.front.users.has(backend, user, limit).await
    }

    /// True if the request does not say who sends it but may still act on what it can name, as with
    /// prompts (`isolation.nameless`).
    fn may_all(&self) -> bool {
        let may = self.front.shared.config().nameless(self.caller.place());
        match may {
            Nameless::ById | Nameless::All => {
                self.caller.realm == Realm::Everybody && self.caller.askers(self.front).is_empty()
            }
            Nameless::None => false,
        }
    }

    /// Sends a small request to a backend on behalf of the caller.
    async fn ask(
        &self,
        backend: &Backend,
        method: Method,
        path: &str,
        limit: Duration,
    ) -> Result<(u16, Bytes), ApiError> {
        if limit.is_zero() || !backend.is_up() {
            return Err(ExchangeError::NoAnswer(limit).into());
        }
        let mut request = backend.request(method, path, RequestBody::Empty)?;
        if let Some(user) = &self.user {
            request.headers_mut().insert(COMFY_USER, user.clone());
        }
        if let Some(sent_for) = &self.sent_for {
            let id = backend.user_id(sent_for.name(), limit).await?;
            comfy_user::put(id, request.headers_mut());
        }
        let (response, lease) = backend.pool.send(request, limit).await?;
        let status = response.status().as_u16();
        let limits = CollectLimits { max: ANSWER_MAX, idle: limit };
        let body = collect(response.into_body(), limits, None).await?;
        Box::new(lease).finished();
        Ok((status, body))
    }
}

/// The possible owners of what the caller has made: the clients that the caller acts for. Uploads
/// without a name from the caller's address are included if the caller has no name either, or if no
/// other client was seen at that address.
fn makers_of(front: &Front, caller: &Caller) -> Vec<Maker> {
    let mut clients = caller.askers(front);
    if let Some(browser) = caller.browser {
        clients.extend(front.browsers.of_browser(browser));
    }
    let sole = front.browsers.sole_at(&caller.spot(), front.shared.config().affinity.lease, now());
    let is_alone = clients.is_empty() || sole.is_some_and(|sole| clients.contains(&sole));
    let mut makers: Vec<Maker> = Vec::with_capacity(clients.len() + 1);
    for client in clients.into_iter().map(Maker::Client) {
        if !makers.contains(&client) {
            makers.push(client);
        }
    }
    makers.extend(is_alone.then_some(Maker::Address(caller.address)));
    makers
}

/// ComfyUI's own answer for an asset that does not exist.
fn not_found(message: &str, id: Option<AssetId>) -> Response<ResponseBody> {
    with_status(StatusCode::NOT_FOUND, reply::asset_error("ASSET_NOT_FOUND", message, id))
}

/// The backend for a read that names nothing, if one can be determined.
fn bound(session: &Session<'_>) -> Option<forward::Target> {
    reading(session.front, session.caller).ok()
}
