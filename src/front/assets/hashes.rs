//! Requests that name content by its hash. A client that knows a hash knows the content, so it has
//! no owner.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;

use super::super::bodies;
use super::super::caller::Caller;
use super::super::collected::collected;
use super::super::forward::{Target, forward, send, to_backend};
use super::super::{Answer, headers};
use super::one::{hidden_preview, named};
use super::{Session, Settled, servers};
use crate::body::{ClientFault, CollectLimits, RequestBody};
use crate::comfy::assets::item::Item;
use crate::comfy::files;
use crate::fleet::api::{ANSWER_MAX, encode_segment, first_found};
use crate::fleet::backend::Backend;
use crate::front::Front;
use crate::front::error::GatewayError;
use crate::net::now;
use crate::records::assets::AssetViewer;
use crate::routing::decision::Reason;
use crate::routing::files::Maker;
use crate::routing::ids::ContentHash;

/// The largest body of `from-hash`.
const BODY_MAX: u64 = 4 << 20;

/// `HEAD /api/assets/hash/{hash}`: the content exists if any backend has it.
///
/// # Errors
/// No backend can answer.
pub(super) async fn is_there(
    session: &Session<'_>,
    hash: &str,
    request: Request<Incoming>,
) -> Settled {
    let servers = servers::of(session).await?;
    let target = servers::nearest(session, &servers)?;
    // The backend also checks the hash.
    let mut answer = forward(&session.front.shared, &target, request).await?;
    if answer.status() != StatusCode::NOT_FOUND {
        return Ok(answer);
    }
    let limit = session.front.shared.config().fleet.probe_timeout;
    let path = format!("/api/assets/hash/{}", encode_segment(hash));
    let others = servers.iter().filter(|it| it.id != target.backend.id).map(|backend| {
        let path = &path;
        async move {
            let asked = session.ask(backend, Method::HEAD, path, limit).await;
            asked.is_ok_and(|(status, _)| status == 200).then_some(backend)
        }
    });
    if let Some(backend) = first_found(others).await {
        *answer.status_mut() = StatusCode::OK;
        headers::mark(answer.headers_mut(), backend, Reason::Ledger);
    }
    Ok(answer)
}

/// `POST /api/assets/from-hash`: goes to the caller's backend if that has the content, and
/// otherwise to one that has it.
///
/// # Errors
/// No backend can answer, or the error of [`forward`].
pub(super) async fn from_hash(session: &Session<'_>, request: Request<Incoming>) -> Settled {
    #[derive(Deserialize)]
    struct Body {
        hash: String,
    }
    let front = session.front;
    let servers = servers::of(session).await?;
    let (mut parts, body) = request.into_parts();
    let mut share = front.bodies.share();
    let limits = CollectLimits { max: BODY_MAX, idle: front.shared.config().server.body_timeout };
    let body = bodies::whole(&mut parts, body, limits, Some(&mut share)).await?;
    let body = match hidden_preview(session, &body).await {
        Some(_another) => without_preview(body),
        None => body,
    };
    let hash = serde_json::from_slice::<Body>(&body).ok();
    let hash = hash.and_then(|body| ContentHash::parse(&body.hash));
    let mut first: Option<Answer> = None;
    for target in in_turn(session, &servers, hash)? {
        let sent = to_backend(&target, parts.clone(), RequestBody::whole(body.clone()));
        let asked =
            collected(&front.shared, &target, sent, &ClientFault::default(), ANSWER_MAX).await;
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) => {
                first.get_or_insert(Err(error));
                continue;
            }
        };
        if answer.parts.status == StatusCode::NOT_FOUND {
            let body = answer.body.clone();
            first.get_or_insert_with(|| Ok(answer.answer(body)));
            continue;
        }
        if let Some(item) = Item::read(&answer.body).filter(|_| answer.parts.status.is_success()) {
            let makers = session.viewer.makers.get(..1).unwrap_or_default();
            learn_own(session, makers, &target.backend, &item);
            let _ = front.shared.records.journal.durable().await;
        }
        return Ok(named(session, &target, answer));
    }
    Ok(first.unwrap_or(Err(GatewayError::NotFound))?)
}

/// Removes an empty preview, which ComfyUI leaves out too.
fn without_preview(body: Bytes) -> Bytes {
    let Ok(mut fields) = serde_json::from_slice::<serde_json::Map<_, _>>(&body) else {
        return body;
    };
    fields.remove("preview_id");
    serde_json::Value::Object(fields).to_string().into()
}

/// Notes that the caller has just made this asset.
pub(super) fn learn_own(session: &Session<'_>, makers: &[Maker], backend: &Backend, item: &Item) {
    let front = session.front;
    let user = session.viewer.user.clone();
    let user = user.filter(|_| front.users.are_told_apart(backend.id));
    front.shared.records.learn_item(
        backend.id,
        item,
        &AssetViewer { makers: makers.to_vec(), user },
    );
}

/// The order in which backends are asked: the caller's own, those known to have the content, the
/// rest.
fn in_turn(
    session: &Session<'_>,
    servers: &[Arc<Backend>],
    hash: Option<ContentHash>,
) -> Result<Vec<Target>, GatewayError> {
    let own = servers::nearest(session, servers)?;
    let known =
        hash.map_or_else(Vec::new, |hash| session.front.shared.records.backends_of_hash(hash));
    let mut others: Vec<&Arc<Backend>> =
        servers.iter().filter(|it| it.id != own.backend.id).collect();
    others.sort_by_key(|it| !known.contains(&it.id));
    let target = |it: &Arc<Backend>| Target { backend: Arc::clone(it), reason: Reason::Ledger };
    Ok(std::iter::once(own).chain(others.into_iter().map(target)).collect())
}

/// `GET /view?filename=blake3:…`: from any backend that has the bytes.
///
/// # Errors
/// No backend can answer.
pub async fn view(front: &Arc<Front>, caller: &Caller, name: &str, parts: &Parts) -> Answer {
    let session = Session::of(front, caller, (&parts.headers, &parts.extensions));
    let hash = ContentHash::parse(name);
    let servers = match servers::of(&session).await {
        Ok(servers) => servers,
        // Requests for pictures in a page do not name the user. A file that is known needs no user.
        Err(servers::NoServer::UnknownUser) => return by_file(&session, hash, parts).await,
        // A server without assets answers as for any other name.
        Err(_none) => {
            let target = super::super::route::reading(front, caller)?;
            return read(&session, &target, parts).await;
        }
    };
    let own = servers::nearest(&session, &servers)?;
    let mut first = None;
    for target in in_turn(&session, &servers, hash)? {
        let is_likely = target.backend.id == own.backend.id
            || hash.is_some_and(|it| {
                front.shared.records.backends_of_hash(it).contains(&target.backend.id)
            });
        if !is_likely {
            break;
        }
        match read(&session, &target, parts).await {
            Ok(answer) if answer.status() != StatusCode::NOT_FOUND => return Ok(answer),
            answer => drop(first.get_or_insert(answer)),
        }
    }
    match elsewhere(&session, &servers, hash, parts).await {
        Some(target) => read(&session, &target, parts).await,
        None => first.unwrap_or(Err(GatewayError::NotFound)),
    }
}

/// Asks all other backends for content that is not known anywhere, at most once in five seconds.
async fn elsewhere(
    session: &Session<'_>,
    servers: &[Arc<Backend>],
    hash: Option<ContentHash>,
    parts: &Parts,
) -> Option<Target> {
    let front = session.front;
    let may_ask = front.shared.records.may_ask_for_hash(hash?);
    if !may_ask || front.lookups.admit(session.caller.address, 1, now()) == 0 {
        return None;
    }
    let limit = session.front.shared.config().fleet.probe_timeout;
    let path = format!("/view?{}", parts.uri.query().unwrap_or(""));
    let asked = servers.iter().map(|backend| {
        let path = &path;
        async move {
            let asked = session.ask(backend, Method::HEAD, path, limit).await;
            asked.is_ok_and(|(status, _)| status == 200).then_some(backend)
        }
    });
    let backend = first_found(asked).await?;
    Some(Target { backend: Arc::clone(backend), reason: Reason::Ledger })
}

/// Answers with a file that has this content, if one is known that belongs to no user.
async fn by_file(session: &Session<'_>, hash: Option<ContentHash>, parts: &Parts) -> Answer {
    let front = session.front;
    let is_open = |hash: &ContentHash| {
        front.shared.records.assets_of_hash(*hash).iter().all(|asset| {
            asset.user.is_none() || asset.user.as_deref() == session.viewer.user.as_deref()
        })
    };
    let file = hash.filter(is_open).and_then(|hash| front.shared.records.file_of_hash(hash));
    let Some(at) = file else { return Err(GatewayError::NotFound) };
    let mut parts = parts.clone();
    let query = files::renamed_query(parts.uri.query().unwrap_or(""), &at.file);
    parts.uri = format!("{}?{query}", parts.uri.path()).parse().unwrap_or(parts.uri);
    let backend = Arc::clone(&front.shared.fleet.get(at.backend));
    read(session, &Target { backend, reason: Reason::Ledger }, &parts).await
}

async fn read(session: &Session<'_>, target: &Target, parts: &Parts) -> Answer {
    let sent = to_backend(target, parts.clone(), RequestBody::Empty);
    send(&session.front.shared, target, sent).await
}
