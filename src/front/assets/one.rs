//! Requests that name one asset go to the backend that has it. For another client's asset the
//! answer is that it does not exist.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::super::bodies;
use super::super::collected::{Collected, collected};
use super::super::forward::{Target, forward, to_backend};
use super::super::route::of_ledger;
use super::{Done, Session, Settled, not_found, servers};
use crate::body::{ClientFault, CollectLimits, RequestBody, ResponseBody};
use crate::comfy::assets::item::Item;
use crate::fleet::api::{ANSWER_MAX, first_found};
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::records::assets::AssetViewer;
use crate::routing::assets::{Asset, Kind, Whose};
use crate::routing::files::Place;
use crate::routing::ids::AssetId;

/// The largest body of a change.
const CHANGE_MAX: u64 = 4 << 20;

/// `GET /api/assets/{id}`.
///
/// # Errors
/// The backend of the asset is down or did not answer.
pub(super) async fn item(
    session: &Session<'_>,
    id: AssetId,
    request: Request<Incoming>,
) -> Settled {
    let front = session.front;
    let target = find(session, id, Route::Item).await?;
    let (mut parts, _no_body) = request.into_parts();
    // The body is needed. The server removes it from the answer to a HEAD.
    parts.method = Method::GET;
    let sent = to_backend(&target, parts, RequestBody::Empty);
    let answer =
        collected(&front.shared, &target, sent, &ClientFault::default(), ANSWER_MAX).await?;
    match Item::read(&answer.body) {
        Some(item) if answer.parts.status == StatusCode::OK => {
            front.shared.records.learn_item(target.backend.id, &item, &AssetViewer::default());
            if is_anothers(session, &target.backend, &item) {
                return Ok(Route::Item.absent(id));
            }
            Ok(named(session, &target, answer))
        }
        Some(_) | None => {
            let body = answer.body.clone();
            Ok(answer.answer(body))
        }
    }
}

/// `GET /api/assets/{id}/content`, streamed.
///
/// # Errors
/// Those of [`item`].
pub(super) async fn content(
    session: &Session<'_>,
    id: AssetId,
    request: Request<Incoming>,
) -> Settled {
    let target = theirs(session, id, Route::Content).await?;
    Ok(forward(&session.front.shared, &target, request).await?)
}

/// `PUT` and `DELETE` of an asset, and of its tags.
///
/// # Errors
/// Those of [`item`].
pub(super) async fn change(
    session: &Session<'_>,
    id: AssetId,
    request: Request<Incoming>,
) -> Settled {
    let front = session.front;
    let route = if is_delete(&request) { Route::Delete } else { Route::Item };
    let target = theirs(session, id, route).await?;
    if *request.method() != Method::PUT {
        return Ok(forward(&front.shared, &target, request).await?);
    }
    let (mut parts, body) = request.into_parts();
    let mut share = front.bodies.share();
    let limits = CollectLimits { max: CHANGE_MAX, idle: front.shared.config().server.body_timeout };
    let body = bodies::whole(&mut parts, body, limits, Some(&mut share)).await?;
    if let Some(preview) = hidden_preview(session, &body).await {
        // ComfyUI's own answer for an asset that does not exist.
        return Ok(not_found(&format!("Preview AssetReference {preview} not found"), Some(id)));
    }
    let sent = to_backend(&target, parts, RequestBody::whole(body));
    let answer =
        collected(&front.shared, &target, sent, &ClientFault::default(), ANSWER_MAX).await?;
    Ok(named(session, &target, answer))
}

/// The asset that a body names as a preview, if the caller may not see it.
pub(super) async fn hidden_preview(session: &Session<'_>, body: &[u8]) -> Option<AssetId> {
    let preview = preview_in(body)?;
    theirs(session, preview, Route::Item).await.is_err().then_some(preview)
}

fn preview_in(body: &[u8]) -> Option<AssetId> {
    #[derive(serde::Deserialize)]
    struct Change {
        preview_id: Option<String>,
    }
    let change: Change = serde_json::from_slice(body).ok()?;
    AssetId::parse(&change.preview_id?)
}

/// The answer, with the file names in the form that clients get.
pub(super) fn named(
    session: &Session<'_>,
    target: &Target,
    answer: Collected,
) -> Response<ResponseBody> {
    if !answer.parts.status.is_success() {
        let body = answer.body.clone();
        return answer.answer(body);
    }
    let item = Item::read(&answer.body);
    if let Some(item) = &item {
        session.front.shared.records.learn_item(target.backend.id, item, &AssetViewer::default());
    }
    let named =
        session.front.shared.records.name_asset(target.backend.id, item.as_ref(), &answer.body);
    answer.answer(Bytes::from(named))
}

/// Finds an asset that the caller may see.
async fn theirs(session: &Session<'_>, id: AssetId, route: Route) -> Result<Target, Done> {
    let target = find(session, id, route).await?;
    let known = session.front.shared.records.asset(id);
    if session.may_all() || known.as_ref().is_some_and(|it| !it.makers.is_empty()) {
        // The owner was checked when it was found.
        return Ok(target);
    }
    // It is known from a list only. The backend knows its file and its prompt, and so the owner.
    match describe(session, &target.backend, id).await {
        Some(item) if is_anothers(session, &target.backend, &item) => {
            Err(Done::with(route.absent(id)))
        }
        Some(_) | None => Ok(target),
    }
}

fn is_anothers(session: &Session<'_>, backend: &Backend, item: &Item) -> bool {
    let whose = session.front.shared.records.whose_asset(backend.id, item, &session.viewer);
    !session.may_all() && whose == Whose::Anothers
}

/// Finds the backend that has an asset: in the ledger, or by asking all backends from time to time.
/// An asset that is known to belong to another client is not found.
async fn find(session: &Session<'_>, id: AssetId, route: Route) -> Result<Target, Done> {
    let front = session.front;
    let known = front.shared.records.asset(id);
    let backend = match known {
        Some(asset) => here(session, &asset),
        None => ask_all(session, &servers::of(session).await?, id).await,
    };
    let backend = backend.ok_or_else(|| Done::with(route.absent(id)))?;
    let target = of_ledger(&backend)?;
    let limit = front.shared.config().fleet.probe_timeout;
    if session.is_known_at(&backend, limit).await {
        Ok(target)
    } else {
        // The server does not know the user, so the asset does not exist for the caller.
        Err(Done::with(route.absent(id)))
    }
}

/// The backend of a known asset, unless the backend is gone or the asset belongs to another client.
fn here(session: &Session<'_>, asset: &Asset) -> Option<Arc<Backend>> {
    let Place::Backend(backend) = asset.place else { return None };
    let viewer = &session.viewer;
    let is_their_users = asset.user.is_some() && asset.user.as_deref() == viewer.user.as_deref();
    let is_theirs = asset.makers.iter().any(|maker| viewer.makers.contains(maker));
    let is_nobodys = asset.makers.is_empty() && asset.kind == Kind::Original;
    let may = session.may_all() || is_their_users || is_theirs || is_nobodys;
    may.then(|| Arc::clone(&session.front.shared.fleet.get(backend)))
}

/// Asks every server for an unknown id, at most once in five seconds, and stores the result.
async fn ask_all(
    session: &Session<'_>,
    servers: &[Arc<Backend>],
    id: AssetId,
) -> Option<Arc<Backend>> {
    let front = session.front;
    let may_ask = front.shared.records.may_ask_for(id);
    // Made-up ids use up the limit of those who ask for them.
    if !may_ask || front.lookups.admit(session.caller.address, 1, now()) == 0 {
        return None;
    }
    let asked = servers.iter().map(|backend| async move {
        let item = describe(session, backend, id).await?;
        Some((Arc::clone(backend), item))
    });
    let (backend, item) = first_found(asked).await?;
    session.front.shared.records.learn_item(backend.id, &item, &AssetViewer::default());
    (!is_anothers(session, &backend, &item)).then_some(backend)
}

/// The description of an asset by its backend, if the backend has it.
async fn describe(session: &Session<'_>, backend: &Backend, id: AssetId) -> Option<Item> {
    let limit = session.front.shared.config().fleet.probe_timeout;
    let path = format!("/api/assets/{id}");
    match session.ask(backend, Method::GET, &path, limit).await {
        Ok((200, body)) => Item::read(&body),
        Ok(_) | Err(_) => None,
    }
}

/// The kind of route that names an asset. Each has its own answer for a missing asset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Route {
    /// The asset itself, or its tags.
    Item,
    Content,
    Delete,
}

impl Route {
    fn absent(self, id: AssetId) -> Response<ResponseBody> {
        let message = format!("AssetReference {id} not found");
        match self {
            Self::Item => not_found(&message, Some(id)),
            Self::Content => not_found(&message, None),
            Self::Delete => not_found(&format!("{message}."), None),
        }
    }
}

/// True for `DELETE` of an asset and not of its tags.
fn is_delete(request: &Request<Incoming>) -> bool {
    *request.method() == Method::DELETE && !request.uri().path().ends_with("/tags")
}
