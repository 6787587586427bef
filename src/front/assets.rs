//! Assets: `/api/assets…` and `/api/tags`, over all servers that have assets (promise R11).
//!
//! A request with an id goes to the backend that has it. Lists and tags of several backends are
//! merged; they contain the caller's assets and those without an owner. A hash is looked for
//! everywhere. Another client's asset does not exist for the caller. A server that does not know
//! the caller's user is not asked (`servers`).
//!
//! - `servers`: which backends can be asked
//! - `lists`: assets and tags of several backends, merged
//! - `one`: requests that name one asset
//! - `hashes`: requests that name content
//! - `upload`: new assets

mod hashes;
mod lists;
mod one;
mod servers;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::Front;
use super::caller::Caller;
use super::error::GatewayError;
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

/// Whom a server takes its caller for.
const COMFY_USER: HeaderName = HeaderName::from_static("comfy-user");

/// Answers one of these routes.
///
/// # Errors
/// No backend can answer, or as for [`forward::forward`].
pub async fn answer(
    front: &Arc<Front>,
    caller: &Caller,
    asked: AssetRequest,
    request: Request<Incoming>,
) -> Answer {
    let session = Session::of(front, caller, request.headers());
    route(&session, asked, request).await.or_else(|Done(answer)| *answer)
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
        AssetRequest::Scan(_) if !front.shared.config().server.allow_asset_scans => {
            Err(GatewayError::OperatorsOnly.into())
        }
        AssetRequest::Scan(_) | AssetRequest::ScanStatus => {
            let target = servers::nearest(session, &servers::of(session).await?)?;
            Ok(forward::forward(&front.shared, &target, request).await?)
        }
    }
}

/// An answer that came before its time: that there is nothing, or that something failed.
struct Done(Box<Answer>);

/// What comes of one of these routes.
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

/// Who asks, for the length of one request.
struct Session<'a> {
    front: &'a Arc<Front>,
    caller: &'a Caller,
    viewer: AssetViewer,
    /// `Comfy-User`, as it came.
    user: Option<HeaderValue>,
}

impl<'a> Session<'a> {
    fn of(front: &'a Arc<Front>, caller: &'a Caller, headers: &http::HeaderMap) -> Self {
        let user = headers.get(COMFY_USER).cloned();
        let named = user.as_ref().and_then(|it| it.to_str().ok()).filter(|it| !it.is_empty());
        let viewer =
            AssetViewer { makers: makers_of(front, caller), user: named.map(str::to_owned) };
        Self { front, caller, viewer, user }
    }

    /// Whom a server that tells users apart takes him for.
    fn user_id(&self) -> &str {
        match &self.user {
            Some(user) => user.to_str().unwrap_or(""),
            None => users::DEFAULT,
        }
    }

    /// True for who says nothing of himself and may all the same act on what he can name, as on
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

    /// A small question to a backend, as its caller.
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
        let (response, lease) = backend.pool.send(request, limit).await?;
        let status = response.status().as_u16();
        let limits = CollectLimits { max: ANSWER_MAX, idle: limit };
        let body = collect(response.into_body(), limits, None).await?;
        Box::new(lease).finished();
        Ok((status, body))
    }
}

/// As what somebody may have made something: the clients that he speaks for. What was uploaded
/// from his address without a name is his if he has none either, or if nobody else was seen there.
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

/// As ComfyUI says of an asset that it does not have.
fn not_found(message: &str, id: Option<AssetId>) -> Response<ResponseBody> {
    with_status(StatusCode::NOT_FOUND, reply::asset_error("ASSET_NOT_FOUND", message, id))
}

/// The backend where a read goes that names nothing, if it can be said.
fn bound(session: &Session<'_>) -> Option<forward::Target> {
    reading(session.front, session.caller).ok()
}
