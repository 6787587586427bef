//! Lists that are merged from all backends: nodes, models, input files (promises R3, R5).
//!
//! A page compares a workflow with these lists and reports missing entries. So they contain what
//! any backend that is up has. Files are listed under the names that views and graphs accept. Only
//! the caller's own files and those without an owner are listed.
//!
//! `/object_info` is large, and a backend needs long to create it. The caller's own backend is
//! asked each time, as without Mooring. The answers of the others are used for `cache::KNOWN_FOR`,
//! unless something was uploaded there since or the backend was restarted. After that time a slow
//! backend is not waited for, if its process is the same and nothing was uploaded there since its
//! last answer. A body that was parsed before is not parsed again.

mod asking;
mod cache;
pub(super) mod learned;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, ETAG, LAST_MODIFIED};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Answer;
use super::Front;
use super::caller::Caller;
use super::collected::{Collected, collected};
use super::conditional::{Conditional, Whole};
use super::error::GatewayError;
use super::failover;
use super::forward::{Target, to_backend};
use super::headers::MISSING;
use super::route::{of_ledger, reading};
use crate::body::{ClientFault, RequestBody, ResponseBody};
use crate::comfy::endpoint::StartRead;
use crate::comfy::lists::texts::{list_of, lists_of};
use crate::comfy::object_info::{Entry as NodeEntry, NodeInfo, Union};
use crate::fleet::api::ANSWER_MAX;
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::records::files::Entry;
use crate::routing::files::Maker;
use crate::routing::ids::{BackendId, Folder};
use crate::routing::placement::NoPlace;
use crate::shared::Shared;
use asking::{nodes_of, writes_on};
pub use cache::{KnownClasses, NodeInfos};
use cache::{NodeAnswer, hash_of};

/// The answer may be different tomorrow.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("private, no-cache");

/// What each backend that is up has said of its nodes: its last answer if that is recent, or a new
/// one if it comes in time. `None` if it has never said anything.
pub async fn infos(front: &Arc<Front>) -> Vec<(BackendId, Option<Arc<NodeInfo>>)> {
    let nobody = CancellationToken::new();
    let up = front.shared.fleet.iter().filter(|backend| backend.is_up());
    let asked = join_all(up.map(|backend| nodes_of(front, backend, &nobody))).await;
    asked.into_iter().map(|(it, said)| (it.id, said.map(|(_, info, _)| info))).collect()
}

/// `GET /object_info`: the nodes of all backends.
///
/// # Errors
/// No backend answered, and there is no copy.
pub async fn all(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let asked = Conditional::of(&request);
    let (parts, _no_body) = request.into_parts();
    let answer = every_node(front, caller, (&parts, &asked)).await;
    let start = StartRead::of("/object_info");
    failover::kept(front, start, (&parts, &asked), answer)
}

async fn every_node(
    front: &Arc<Front>,
    caller: &Caller,
    (parts, asked): (&Parts, &Conditional),
) -> Answer {
    let place = reading(front, caller);
    front.nodes.keep(|backend| front.shared.fleet.has(backend));
    // The answers may not contain what is written in the meantime.
    let writes: HashMap<BackendId, u64> =
        front.shared.fleet.iter().map(|it| (it.id, writes_on(&it))).collect();
    let began = now();
    let is_here = CancellationToken::new();
    let own = async {
        let own = own(&front.shared, &place, parts).await;
        is_here.cancel();
        own
    };
    let others = others(&front.shared, &place).map(|it| nodes_of(front, it, &is_here));
    let (own, others) = tokio::join!(own, join_all(others));
    let (target, own) = own?;
    let first = target.backend.id;
    let writes = writes.get(&first).copied().unwrap_or(0);
    let read = (own.parts.status == StatusCode::OK)
        .then(|| front.nodes.read(first, own.body.clone(), (began, writes)))
        .flatten();
    let Some(read) = read else { return Ok(as_it_is(asked, own)) };
    let others: Vec<_> = others.into_iter().filter(|(backend, _)| backend.id != first).collect();
    let others_said = others.iter().filter_map(|(_, said)| said.clone());
    let said: Vec<NodeAnswer> = std::iter::once(read).chain(others_said).collect();
    let missing = others.iter().filter(|(_, said)| said.is_none());
    let missing: Vec<&Backend> = missing.map(|(backend, _)| backend.as_ref()).collect();
    Ok(told(front, caller, asked, own.parts.headers, (&said, &missing)))
}

/// `GET /object_info/{class}`: one node, from any backend that has it.
///
/// # Errors
/// Those of [`all`].
pub async fn one(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let asked = Conditional::of(&request);
    let Gathered { own, target, others, missing } = gather(front, caller, request).await?;
    let read = |backend, body: &Bytes| {
        let info = NodeInfo::read(body.clone())?;
        Some((backend, Arc::new(info), hash_of(body)))
    };
    let Some(first) = read(target.backend.id, &own.body) else { return Ok(as_it_is(&asked, own)) };
    let others = others.iter().filter_map(|(backend, body)| read(*backend, body));
    let said: Vec<NodeAnswer> = std::iter::once(first).chain(others).collect();
    let missing: Vec<&Backend> = missing.iter().map(AsRef::as_ref).collect();
    Ok(told(front, caller, &asked, own.parts.headers, (&said, &missing)))
}

/// The nodes of these backends, in the form for the caller.
fn told(
    front: &Front,
    caller: &Caller,
    asked: &Conditional,
    headers: HeaderMap,
    (said, missing): (&[NodeAnswer], &[&Backend]),
) -> Response<ResponseBody> {
    let union = match said.len() {
        // There are many requests for one class, and their answers are small.
        _ if said.iter().all(|it| front.nodes.last(it.0).is_some_and(|last| last.2 == it.2)) => {
            front.nodes.union(said)
        }
        _ => Arc::new(Union::of(&said.iter().map(|it| it.1.as_ref()).collect::<Vec<_>>())),
    };
    let askers = caller.makers(front);
    let mut tag = DefaultHasher::new();
    said.iter().for_each(|it| it.2.hash(&mut tag));
    // All files are looked up before the body is written, so that no lock is held during the write.
    let files = union.files().into_iter().filter_map(|NodeEntry { server, folder, text }| {
        Some(Entry { backend: said.get(server)?.0, folder, text })
    });
    let files: Vec<Entry<'_>> = files.collect();
    let names = front.shared.records.listed(&files, &askers);
    let uploads: Vec<String> = uploads(front, caller, &askers, "").into_iter().flatten().collect();
    (&names, &uploads).hash(&mut tag);
    let body = union.told(&names, &uploads);
    whole(asked, headers, (body, tag.finish()), missing)
}

/// `GET /internal/files/{folder}`.
///
/// # Errors
/// Those of [`all`].
pub async fn files(
    front: &Arc<Front>,
    caller: &Caller,
    folder: Folder,
    request: Request<Incoming>,
) -> Answer {
    let askers = caller.makers(front);
    let names = |texts: Vec<(BackendId, String)>| {
        let entries = texts.iter().map(|(backend, text)| Entry { backend: *backend, folder, text });
        let mut names = front.shared.records.listed(&entries.collect::<Vec<_>>(), &askers);
        if folder == Folder::Input {
            // Servers list what lies directly there.
            let is_here =
                |name: &Option<String>| name.as_deref().is_none_or(|name| !name.starts_with("3d/"));
            names.extend(uploads(front, caller, &askers, " [input]").into_iter().filter(is_here));
        }
        names
    };
    list(front, caller, request, names).await
}

/// What a user has uploaded, as lists of inputs show it to him: servers list no subfolders, and it
/// is in one of ours.
fn uploads(
    front: &Front,
    caller: &Caller,
    askers: &[Maker],
    annotation: &str,
) -> Vec<Option<String>> {
    let Some(user) = caller.folder() else { return Vec::new() };
    let uploads = front.shared.records.uploads_of(&user, askers);
    let texts = uploads.iter().map(|at| (at.backend, format!("{}{annotation}", at.file.path())));
    let texts: Vec<(BackendId, String)> = texts.collect();
    let entries = texts.iter().map(|(backend, text)| Entry {
        backend: *backend,
        folder: Folder::Input,
        text,
    });
    front.shared.records.listed(&entries.collect::<Vec<_>>(), askers)
}

/// `GET /models/{folder}` and `/embeddings`.
///
/// # Errors
/// Those of [`all`].
pub async fn models(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    list(front, caller, request, |all| all.into_iter().map(|(_, text)| Some(text)).collect()).await
}

async fn list(
    front: &Arc<Front>,
    caller: &Caller,
    request: Request<Incoming>,
    names: impl Fn(Vec<(BackendId, String)>) -> Vec<Option<String>>,
) -> Answer {
    let asked = Conditional::of(&request);
    let Gathered { own, target, others, missing } = gather(front, caller, request).await?;
    let (mut backends, mut bodies) = (vec![target.backend.id], vec![own.body.clone()]);
    for (backend, body) in others {
        backends.push(backend);
        bodies.push(body);
    }
    let texts = (own.parts.status == StatusCode::OK).then(|| lists_of(&bodies)).flatten();
    let Some(texts) = texts else { return Ok(as_it_is(&asked, own)) };
    let of_backend = |(server, text): (usize, String)| Some((*backends.get(server)?, text));
    let body = list_of(&names(texts.into_iter().filter_map(of_backend).collect()));
    let tag = hash_of(&body);
    let missing: Vec<&Backend> = missing.iter().map(AsRef::as_ref).collect();
    Ok(whole(&asked, own.parts.headers, (body, tag), &missing))
}

/// `GET /global_subgraphs/{id}`. An id is the hash of a path on the backend that listed it. A
/// backend answers an unknown id with `null`, so backends are asked until one knows it.
///
/// # Errors
/// Those of [`all`].
pub async fn subgraph(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let asked = Conditional::of(&request);
    let (parts, _no_body) = request.into_parts();
    let place = reading(front, caller);
    let (_, own) = own(&front.shared, &place, &parts).await?;
    if knows(&own) {
        return Ok(as_it_is(&asked, own));
    }
    for backend in others(&front.shared, &place) {
        let Ok(target) = of_ledger(&backend) else { continue };
        let limit = front.shared.config().fleet.list_timeout;
        let answer = timeout(limit, ask(&front.shared, &target, &parts)).await;
        if let Ok(Ok(answer)) = answer
            && knows(&answer)
        {
            return Ok(as_it_is(&asked, answer));
        }
    }
    Ok(as_it_is(&asked, own))
}

fn knows(answer: &Collected) -> bool {
    answer.parts.status == StatusCode::OK && answer.body.trim_ascii() != b"null"
}

/// The answers of all backends to one request.
struct Gathered {
    own: Collected,
    target: Target,
    others: Vec<(BackendId, Bytes)>,
    missing: Vec<Arc<Backend>>,
}

async fn gather(
    front: &Arc<Front>,
    caller: &Caller,
    request: Request<Incoming>,
) -> Result<Gathered, GatewayError> {
    let (parts, _no_body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |it| it.as_str()).to_owned();
    let place = reading(front, caller);
    let limit = front.shared.config().fleet.list_timeout;
    let asked = others(&front.shared, &place).map(|backend| {
        let path = &path;
        async move {
            let answer = backend.get(path, limit).await;
            (backend, answer)
        }
    });
    let (own, said) = tokio::join!(own(&front.shared, &place, &parts), join_all(asked));
    let (target, own) = own?;
    let (mut others, mut missing) = (Vec::new(), Vec::new());
    for (backend, answer) in said.into_iter().filter(|(it, _)| it.id != target.backend.id) {
        match answer {
            Ok((200, body)) => others.push((backend.id, body)),
            // This backend does not have such a list.
            Ok(_) => {}
            Err(_) => missing.push(Arc::clone(&backend)),
        }
    }
    Ok(Gathered { own, target, others, missing })
}

/// The first answer: that of the caller's backend, or of any other while that one is away.
async fn own(
    shared: &Shared,
    place: &Result<Target, GatewayError>,
    parts: &Parts,
) -> Result<(Target, Collected), GatewayError> {
    let (away, why) = match place {
        Ok(target) => match ask(shared, target, parts).await {
            Ok(answer) => return Ok((target.clone(), answer)),
            Err(error) if failover::is_for_another(&error) => {
                (Some(target.backend.id), Some(error))
            }
            Err(error) => return Err(error),
        },
        Err(_) => (None, None),
    };
    for target in failover::others(shared, away) {
        match ask(shared, &target, parts).await {
            Ok(answer) if !answer.parts.status.is_server_error() => return Ok((target, answer)),
            Ok(_) | Err(_) => {}
        }
    }
    Err(why.unwrap_or(GatewayError::Refused(NoPlace::NoneReady.into())))
}

fn others(
    shared: &Shared,
    place: &Result<Target, GatewayError>,
) -> impl Iterator<Item = Arc<Backend>> + use<> {
    let but = place.as_ref().ok().map(|target| target.backend.id);
    shared.fleet.iter().filter(move |backend| backend.is_up() && Some(backend.id) != but)
}

async fn ask(shared: &Shared, target: &Target, parts: &Parts) -> Result<Collected, GatewayError> {
    let mut parts = parts.clone();
    // Conditions are evaluated on the merged answer.
    parts.method = Method::GET;
    for name in [http::header::IF_NONE_MATCH, http::header::IF_MODIFIED_SINCE, http::header::RANGE]
    {
        parts.headers.remove(name);
    }
    let request = to_backend(target, parts, RequestBody::Empty);
    collected(shared, target, request, &ClientFault::default(), ANSWER_MAX).await
}

/// The answer of a backend that is not such a list.
fn as_it_is(asked: &Conditional, own: Collected) -> Response<ResponseBody> {
    match own.parts.status {
        StatusCode::OK => asked.answer(&Whole { headers: own.parts.headers, body: own.body }),
        _ => {
            let body = own.body.clone();
            own.answer(body)
        }
    }
}

fn whole(
    asked: &Conditional,
    mut headers: HeaderMap,
    (body, tag): (Bytes, u64),
    missing: &[&Backend],
) -> Response<ResponseBody> {
    for name in [LAST_MODIFIED, ACCEPT_RANGES] {
        headers.remove(name);
    }
    headers.insert(CACHE_CONTROL, ASK_AGAIN);
    if let Ok(tag) = HeaderValue::try_from(format!("\"{tag:016x}\"")) {
        headers.insert(ETAG, tag);
    }
    let names: Vec<_> = missing.iter().map(|backend| backend.name()).collect();
    if !names.is_empty()
        && let Ok(names) = HeaderValue::try_from(names.join(", "))
    {
        headers.insert(MISSING, names);
    }
    asked.answer(&Whole { headers, body })
}
