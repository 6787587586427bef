//! Files that clients view come from the backend that has them, whoever asks (promises R1, R3).
//!
//! The backend is known from the name itself or from the ledger. An unknown file is looked up where
//! the caller's other reads go, and then, from time to time, on all other backends.

use std::borrow::Cow;
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
use crate::comfy::endpoint::{Endpoint, classify};
use crate::comfy::files::{self, View};
use crate::comfy::query::parameter;
use crate::config::FileTags;
use crate::fleet::api::first_found;
use crate::fleet::backend::Backend;
use crate::net::now;
use crate::records::files::{Meaning, for_people};
use crate::routing::files::{Maker, Seen, Strangers};
use crate::routing::ids::{BackendId, FileRef, Folder, Located};
use crate::routing::realm::Realm;
use crate::routing::user_folder::UserFolder;
use crate::shared::Shared;

/// `GET /view` and similar routes.
///
/// # Errors
/// The backend of the file is down or did not answer.
pub async fn view(front: &Arc<Front>, caller: &Caller, request: Request<Incoming>) -> Answer {
    let (parts, _no_body) = request.into_parts();
    let hash = files::hash_of_query(parts.uri.query().unwrap_or(""));
    let mut answer = match files::of_query(parts.uri.query().unwrap_or("")) {
        Some(view) => match meaning(front, caller, &view) {
            Meaning::At(at) => from_ledger(&front.shared, &at, &view, &parts).await?,
            Meaning::Perhaps(at) => {
                let at = own_or(&front.shared, caller.folder().as_ref(), at).await;
                from_ledger(&front.shared, &at, &view, &parts).await?
            }
            // No other backend is asked for it.
            Meaning::Gone(url) => return Err(gone(&view.file, &url)),
            Meaning::Unknown => unknown(front, caller, &view, &parts).await?,
            Meaning::Others => others(front, caller, &view, &parts).await?,
        },
        None if may_be_others(caller, &parts.uri) => return Err(GatewayError::NotFound),
        None => match hash {
            Some(name) => assets::view(front, caller, &name, &parts).await?,
            None => read(&front.shared, &reading(front, caller)?, &parts).await?,
        },
    };
    // The URL may mean another picture tomorrow, and on another backend.
    headers::keep_private(answer.headers_mut());
    Ok(answer)
}

/// Any other route whose query names a known file. `None` if it names none.
#[must_use]
pub fn named_by(
    front: &Front,
    caller: &Caller,
    request: &Request<Incoming>,
) -> Option<Result<(Arc<Backend>, Uri), GatewayError>> {
    if may_be_others(caller, request.uri()) {
        return Some(Err(GatewayError::NotFound));
    }
    let query = request.uri().query().filter(|query| names_file(query))?;
    // A name alone may be that of a model or a workflow.
    let says_folder = query.contains("type=") || query.contains("subfolder=");
    if !says_folder && caller.folder().is_none() {
        return None;
    }
    let view = files::of_query(query)?;
    let at = match meaning(front, caller, &view) {
        // As a plain name that is not known, it is not looked for on routes of node packs.
        Meaning::At(at) | Meaning::Perhaps(at) if says_folder => at,
        Meaning::Others => return Some(Err(GatewayError::NotFound)),
        Meaning::At(_) | Meaning::Perhaps(_) | Meaning::Gone(_) | Meaning::Unknown => return None,
    };
    let backend = Arc::clone(&front.shared.fleet.get(at.backend));
    let query = query_for(&at, &view);
    Some(Ok((backend, with_query(request.uri(), &query))))
}

/// The meaning of a name in a query. A plain name means the same to everyone, except that the
/// caller's own input of that name comes first, as in the caller's graphs.
fn meaning(front: &Front, caller: &Caller, view: &View) -> Meaning {
    let (folder, path) = (view.file.folder, view.file.path());
    let tag = front.shared.config().files.tag;
    match (tag, &view.backend) {
        (FileTags::Never, None) if caller.realm == Realm::Everybody => {
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
            let askers: Vec<Maker> = match folder {
                Folder::Input => {
                    let is_given = |maker: &Maker| !matches!(maker, Maker::Address(_));
                    caller.makers(front).into_iter().filter(is_given).collect()
                }
                // To a user the plain name of another's means nothing.
                Folder::Output | Folder::Temp => {
                    let is_user = caller.realm != Realm::Everybody;
                    is_user.then(|| caller.nameless_maker()).into_iter().collect()
                }
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

/// Reads the file from its backend or from one that has a copy. If a backend does not have it any
/// more, or cannot be asked although it looks up, the next one is asked. If none has it, the first
/// answer counts.
async fn from_ledger(shared: &Shared, at: &Located, view: &View, parts: &Parts) -> Answer {
    let is_up = |source: &Located| shared.fleet.get(source.backend).is_up();
    let mut first = None;
    if is_up(at) {
        let found = read_at(shared, at.backend, &query_for(at, view), parts).await;
        if is_there(&found) {
            return found;
        }
        first = Some(found);
    }
    // Copies are looked up only if the file is not there.
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

/// The query for a file that a view means: the same, unless it is a user's, in his own folder.
fn query_for<'v>(at: &Located, view: &'v View) -> Cow<'v, str> {
    if at.file == view.file {
        Cow::Borrowed(&view.query)
    } else {
        Cow::Owned(files::renamed_query(&view.query, &at.file))
    }
}

/// True if a query names a file, however its key is escaped.
fn names_file(query: &str) -> bool {
    // Most queries need no decoding.
    (query.contains("filename") || query.contains('%')) && parameter(query, "filename").is_some()
}

/// True if a target may lead a user to another's files.
#[must_use]
pub fn may_be_others(caller: &Caller, uri: &Uri) -> bool {
    caller.folder().is_some_and(|user| leads_to_others(&user, uri))
}

/// True if a target has another user's folder in it, or asks ComfyUI's own route for a file that
/// cannot be: a server may read another name in it. On other routes such a name may be that of a
/// model, but none of those has control characters in it.
fn leads_to_others(user: &UserFolder, uri: &Uri) -> bool {
    let query = uri.query().unwrap_or("");
    let is_odd = || match parameter(query, "filename") {
        None => false,
        // Also the hash of a content: nothing says whose that is.
        Some(_) if classify(&Method::GET, uri.path()) == Endpoint::View => {
            files::of_query(query).is_none()
        }
        Some(name) => name.contains(char::is_control) || files::is_annotated_twice(&name),
    };
    let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
    user.is_left_by(target) || is_odd()
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

/// A file that is not known. A user may mean an upload of his own that is not known any more, so it
/// is requested in his folder first.
async fn unknown(front: &Front, caller: &Caller, view: &View, parts: &Parts) -> Answer {
    let Some(user) = caller.folder() else {
        return everywhere(front, caller, &view.file, parts).await;
    };
    // A server must not read in a query what we do not.
    let named = |file: &FileRef| {
        let mut parts = parts.clone();
        parts.uri = with_query(&parts.uri, &files::renamed_query(&view.query, file));
        parts
    };
    if let Some(own) = user.own_file(&view.file).filter(|own| *own != view.file) {
        let found = everywhere(front, caller, &own, &named(&own)).await;
        if is_there(&found) {
            return found;
        }
    }
    let plain = user.plain(view.file.path());
    let plain = plain.and_then(|path| FileRef::of_path(view.file.folder, &path));
    let plain = plain.ok_or(GatewayError::NotFound)?;
    everywhere(front, caller, &plain, &named(&plain)).await
}

/// Requests a file where the caller's reads go, then on all other backends. If it is not found, the
/// answer is ComfyUI's own 404.
async fn everywhere(front: &Front, caller: &Caller, file: &FileRef, parts: &Parts) -> Answer {
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
            let at = Located { backend, file: file.clone() };
            front.shared.records.learn_file(&at, &[], Seen::There);
        }
        if answer.status() != StatusCode::NOT_FOUND {
            return first;
        }
    }
    if parts.method != Method::GET {
        return first;
    }
    match search(&front.shared, file, asked).await {
        Some(backend) => {
            read(&front.shared, &of_ledger(&front.shared.fleet.get(backend))?, parts).await
        }
        None => first,
    }
}

/// What a user may not name: as for a file that is nowhere, whose server says so itself.
async fn others(front: &Front, caller: &Caller, view: &View, parts: &Parts) -> Answer {
    let nowhere = caller.folder().map(|user| user.nowhere(view.file.path()));
    let nowhere = nowhere.and_then(|path| FileRef::of_path(view.file.folder, &path));
    let nowhere = nowhere.ok_or(GatewayError::NotFound)?;
    let mut parts = parts.clone();
    parts.uri = with_query(&parts.uri, &files::renamed_query(&view.query, &nowhere));
    read(&front.shared, &reading(front, caller)?, &parts).await
}

/// Looks for a file on all backends that are up, except one, at most once a minute. If it is found,
/// that is stored.
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

/// The user's own file that he may mean by a name of which nothing is known at the backend that it
/// says, if it is there; that is stored then. Otherwise the file of that name itself. Only that one
/// backend is asked, so each name may cost it one request.
pub async fn own_or(shared: &Shared, user: Option<&UserFolder>, at: Located) -> Located {
    let own = user.and_then(|user| user.own_file(&at.file)).filter(|own| *own != at.file);
    let backend = shared.fleet.get(at.backend);
    let Some(file) = own.filter(|_| backend.is_up()) else { return at };
    let limit = shared.config().fleet.probe_timeout;
    if !backend.has_file(&file, limit).await.is_ok_and(|has| has) {
        return at;
    }
    let own = Located { backend: at.backend, file };
    shared.records.learn_file(&own, &[], Seen::There);
    own
}

/// The same request, sent to a backend.
async fn read(shared: &Shared, target: &Target, parts: &Parts) -> Answer {
    send(shared, target, to_backend(target, parts.clone(), RequestBody::Empty)).await
}

/// The error for a file of a backend that is not configured any more.
fn gone(file: &FileRef, url: &str) -> GatewayError {
    GatewayError::FileGone { file: for_people(file).into_owned(), backend: url.to_owned() }
}

/// Passes on a request whose query names a file.
///
/// # Errors
/// Those of [`forward`].
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
    // It was a URI before, and everything new in it is escaped.
    PathAndQuery::try_from(text).map_or_else(|_| uri.clone(), Uri::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_a_target_leads_a_user_to_anothers_files() {
        let (ada, bob) = (UserFolder::of("ada"), UserFolder::of("bob"));
        let leads = |target: &str| leads_to_others(&bob, &target.parse().unwrap());
        let folder = ada.as_str();
        for bad in [
            "/view?filename=a%01.png%20%5Boutput%5D&x=type=path",
            "/view?file%6Eame=a%01.png%5Boutput%5D",
            "/api/view?filename=x%5Ca.png&type=output&x=type=path",
            "/view?filename=a.png%20[output]%20[output]",
            "/view?filename=output/a.mp4&type=path",
            "/view?filename=blake3:x/a.png&type=output",
            "/pack/get?file%6Eame=a.png%01%5Boutput%5D&type=output",
            "/pack/get?filename=a.png%20[output]%20[output]&type=output",
            &format!("/view?filename=blake3:x/a.png&type=input&subfolder={folder}"),
            &format!("/pack/get?path={folder}/a.png"),
            &format!("/pack/get/{}/a.png", folder.replace("m", "%256d")),
        ] {
            assert!(leads(bad), "{bad}");
        }
        let hash = format!("/view?filename=blake3:{}", "0a".repeat(32));
        assert!(leads(&hash) && leads(&hash.replace(':', "%3a")) && leads(&format!("/api{hash}")));
        for good in [
            "/view?filename=a.png&type=output",
            "/view?filename=a%20b.png%20[output]",
            "/pack/get?filename=models%5Cx.safetensors&type=loras",
            "/view",
            &format!("/view?filename=a.png&subfolder={}", bob.as_str()),
        ] {
            assert!(!leads(good), "{good}");
        }
    }

    #[test]
    fn a_query_names_a_file_however_its_key_is_written() {
        assert!(names_file("file%6Eame=a.png") && names_file("x=1&filename=a"));
        assert!(!names_file("x=filename") && !names_file("") && !names_file("name=%20"));
    }
}
