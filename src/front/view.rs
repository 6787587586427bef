//! Files that clients view come from the backend that has them, whoever asks (promises R1, R3).
//!
//! The name says where the file is: by the backend in it, else by the ledger. An unknown file is
//! looked for where the caller's other reads go, then, once in a while, on all other backends.

use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, StatusCode, Uri};
use hyper::body::Incoming;

use super::Front;
use super::caller::Caller;
use super::error::GatewayError;
use super::forward::{Target, forward, send, to_backend};
use super::route::{of_ledger, reading};
use super::{Answer, assets, headers};
use crate::body::RequestBody;
use crate::comfy::files::{self, View};
use crate::config::FileTags;
use crate::fleet::api::first_found;
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::records::files::{Meaning, for_people};
use crate::routing::files::{Maker, Seen, Strangers};
use crate::routing::ids::{BackendId, FileRef, Folder, Located};
use crate::shared::Shared;

/// `GET /view` and its like.
///
/// # Errors
/// The backend that has the file is down or did not answer.
pub async fn view(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let (parts, _no_body) = request.into_parts();
    let hash = files::hash_of_query(parts.uri.query().unwrap_or(""));
    let mut answer = match files::of_query(parts.uri.query().unwrap_or("")) {
        Some(view) => match meaning(front, caller, &view) {
            Meaning::At(at) => from_ledger(&front.shared, &at, &view, &parts).await?,
            // No stranger is asked for it.
            Meaning::Gone(url) => return Err(gone(&view.file, &url)),
            Meaning::Unknown => unknown(front, caller, &view, &parts).await?,
        },
        None => match hash {
            Some(name) => assets::view(front, caller, &name, &parts).await?,
            None => read(&front.shared, &reading(front, caller)?, &parts).await?,
        },
    };
    // What a URL names can be another picture tomorrow, and on another backend.
    headers::keep_private(answer.headers_mut());
    Ok(answer)
}

/// Any other route whose query names a file that is known; `None` if it names none.
#[must_use]
pub fn named_by(
    front: &Front,
    caller: &Caller,
    request: &Request<Incoming>,
) -> Option<(Arc<Backend>, Uri)> {
    let query = request.uri().query().filter(|query| query.contains("filename="))?;
    // A name alone may be anything's: a model's, a workflow's.
    if !query.contains("type=") && !query.contains("subfolder=") {
        return None;
    }
    let view = files::of_query(query)?;
    let Meaning::At(at) = meaning(front, caller, &view) else { return None };
    let backend = Arc::clone(&front.shared.fleet.get(at.backend));
    Some((backend, with_query(request.uri(), &view.query)))
}

/// What a name in a query means. A plain one means the same to everyone, but that an input is the
/// caller's own if he has one of that name, as it is in his graphs.
fn meaning(front: &Front, caller: &Caller, view: &View) -> Meaning {
    let (folder, path) = (view.file.folder, view.file.path());
    let tag = front.shared.config().files.tag;
    match (tag, &view.backend) {
        (FileTags::Never, None) => {
            let own = caller.reader(front).and_then(|id| front.sessions.clients.get(&id));
            let own =
                own.and_then(|client| client.inspect(|core, _| core.bound().map(|(id, _)| id)));
            let files = front.shared.records.files_of(&view.file);
            let nearest = files.find_nearest(&view.file, own);
            drop(files);
            nearest.map_or(Meaning::Unknown, |backend| {
                Meaning::At(Located { backend, file: view.file.clone() })
            })
        }
        (FileTags::Ambiguous | FileTags::Never, backend) => {
            let askers = match folder {
                Folder::Input => {
                    let is_given = |maker: &Maker| !matches!(maker, Maker::Address(_));
                    caller.makers(front).into_iter().filter(is_given).collect()
                }
                Folder::Output | Folder::Temp => Vec::new(),
            };
            front.shared.records.meaning(
                folder,
                path,
                backend.as_deref(),
                &askers,
                Strangers::Owners,
            )
        }
    }
}

/// From the backend that has it, or from one that has a copy. One that does not have it any more
/// and one that cannot be asked, though nobody has noticed yet, are the same: the next one is
/// asked. If nobody has it, the first one's word counts.
async fn from_ledger(shared: &Shared, at: &Located, view: &View, parts: &Parts) -> Answer {
    let is_up = |source: &Located| shared.fleet.get(source.backend).is_up();
    let mut first = None;
    if is_up(at) {
        let found = read_at(shared, at.backend, &view.query, parts).await;
        if is_there(&found) {
            return found;
        }
        first = Some(found);
    }
    // Copies are looked up only when it is not there.
    let sources = shared.records.files_of(&at.file).sources(at);
    for source in sources.into_iter().skip(1).filter(is_up) {
        let query = files::renamed_query(&view.query, &source.file);
        let found = read_at(shared, source.backend, &query, parts).await;
        if is_there(&found) {
            return found;
        }
        first.get_or_insert(found);
    }
    first.unwrap_or_else(|| Err(GatewayError::not_asked(&shared.fleet.get(at.backend))))
}

fn is_there(found: &Answer) -> bool {
    found.as_ref().is_ok_and(|answer| answer.status() != StatusCode::NOT_FOUND)
}

/// The same request with another query, sent to the backend that has a file.
async fn read_at(shared: &Shared, backend: BackendId, query: &str, parts: &Parts) -> Answer {
    let mut parts = parts.clone();
    parts.uri = with_query(&parts.uri, query);
    read(shared, &of_ledger(&shared.fleet.get(backend))?, &parts).await
}

/// A file that nobody has told of: where the caller's reads go, then on all the others. Found
/// nowhere, it is ComfyUI's own 404.
async fn unknown(front: &Front, caller: &Caller, view: &View, parts: &Parts) -> Answer {
    let target = reading(front, caller);
    let asked = target.as_ref().ok().map(|target| target.backend.id);
    let first = match &target {
        Ok(target) => read(&front.shared, target, parts).await,
        Err(_) => Err(target.err().unwrap_or(GatewayError::NotFound)),
    };
    if let Ok(answer) = &first {
        if answer.status().is_success()
            && let Some(backend) = asked
        {
            let at = Located { backend, file: view.file.clone() };
            front.shared.records.learn_file(&at, &[], Seen::There);
        }
        if answer.status() != StatusCode::NOT_FOUND {
            return first;
        }
    }
    if parts.method != Method::GET {
        return first;
    }
    match search(&front.shared, &view.file, asked).await {
        Some(backend) => {
            read(&front.shared, &of_ledger(&front.shared.fleet.get(backend))?, parts).await
        }
        None => first,
    }
}

/// Looks for a file on all backends that are up, but for one, at most once a minute; learned if it
/// is found.
pub async fn search(shared: &Shared, file: &FileRef, but: Option<BackendId>) -> Option<BackendId> {
    if !shared.records.files_of(file).may_search(file, now()) {
        return None;
    }
    let limit = shared.config().fleet.probe_timeout;
    let others = shared.fleet.iter().filter(|backend| backend.is_up() && Some(backend.id) != but);
    let asked = others.map(|backend| async move {
        backend.has_file(file, limit).await.is_ok_and(|has| has).then_some(backend.id)
    });
    let found = first_found(asked).await?;
    shared.records.learn_file(&Located { backend: found, file: file.clone() }, &[], Seen::There);
    Some(found)
}

/// The same request, sent to a backend.
async fn read(shared: &Shared, target: &Target, parts: &Parts) -> Answer {
    send(shared, target, to_backend(target, parts.clone(), RequestBody::Empty)).await
}

/// A file of a backend that is not configured any more.
fn gone(file: &FileRef, url: &str) -> GatewayError {
    GatewayError::FileGone { file: for_people(file).into_owned(), backend: url.to_owned() }
}

/// Passes a request on whose query names a file.
///
/// # Errors
/// As for [`forward`].
pub async fn pass(
    shared: &Shared,
    (backend, uri): (Arc<Backend>, Uri),
    mut request: Request<Incoming>,
) -> Answer {
    *request.uri_mut() = uri;
    forward(shared, &of_ledger(&backend)?, request).await
}

/// The same path with another query, byte for byte.
fn with_query(uri: &Uri, query: &str) -> Uri {
    let text = format!("{}?{query}", uri.path());
    // It was a URI before, and all that is new is escaped.
    PathAndQuery::try_from(text).map_or_else(|_| uri.clone(), Uri::from)
}
