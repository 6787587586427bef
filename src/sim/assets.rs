//! `--enable-assets`: `/api/assets…` and `/api/tags` of ComfyUI 0.33 (`app/assets/api/routes.py`).
//!
//! One database per server: ids are random, cursors are not, and the owner is `Comfy-User`. A user
//! of another server is a `KeyError`, and that is a 500.

mod blake3;
mod change;
mod db;
mod item;
mod list;
mod time;
mod upload;

use http::header::{CONTENT_DISPOSITION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::body::SimBody;
use super::files::insert;
use super::http::{bare, bytes, json_answer, not_allowed, whole};
use super::prompts::trouble;
use super::state::{FileKind, Server};
use super::{Shared, users};
use crate::comfy::assets::{AssetRequest, asked};
use crate::comfy::query::parameter;
pub(super) use db::Database;
use db::{New, Place, Reference, mime_of};
use item::{item, not_found, refused};

/// True for one of these routes, which older servers do not have.
pub(super) fn are_meant(shared: &Shared, method: &Method, path: &str) -> bool {
    shared.release.is_of_2026() && asked(method, path).is_some()
}

/// Answers one request; `None` if its body broke off.
pub(super) async fn answer(
    shared: &Shared,
    path: &str,
    request: Request<Incoming>,
) -> Option<Response<SimBody>> {
    let method = request.method().clone();
    let headers = request.headers().clone();
    let query = request.uri().query().unwrap_or("").to_owned();
    let body = whole(request).await?;
    if !shared.options.assets {
        let message = "Assets system is disabled. Start the server with --enable-assets to use \
            this feature.";
        return Some(refused(503, "SERVICE_DISABLED", message, &json!({})));
    }
    let Some(asked) = asked(&method, path) else { return Some(not_allowed()) };
    Some(match asked {
        AssetRequest::Hash(hash) => has_hash(shared, &hash),
        AssetRequest::Scan(action) => scan(shared, &action, &body, &query),
        AssetRequest::ScanStatus => scan_status(shared),
        AssetRequest::Upload => upload::upload(shared, &headers, body).await,
        AssetRequest::List
        | AssetRequest::Tags
        | AssetRequest::Refine
        | AssetRequest::Item(_)
        | AssetRequest::Content(_)
        | AssetRequest::Change(_)
        | AssetRequest::Delete(_)
        | AssetRequest::EditTags(_)
        | AssetRequest::FromHash => match users::id(shared, &headers) {
            Some(owner) => of_owner(shared, &asked, &owner, (&method, &query, &headers), &body),
            None => trouble(),
        },
    })
}

fn of_owner(
    shared: &Shared,
    asked: &AssetRequest,
    owner: &str,
    (method, query, headers): (&Method, &str, &HeaderMap),
    body: &[u8],
) -> Response<SimBody> {
    let mut server = shared.server();
    let database = &mut server.assets;
    let listed = match asked {
        AssetRequest::List => list::list(database, owner, query),
        AssetRequest::Tags => list::tags(database, owner, query),
        AssetRequest::Refine => list::refine(database, owner, query),
        AssetRequest::Item(id) => {
            let id = id.to_string();
            return match visible(database, &id, owner) {
                Some(reference) => json_answer(200, &item(database, reference)),
                None => not_found(&id),
            };
        }
        AssetRequest::Content(id) => {
            return content(&mut server, &id.to_string(), owner, query, headers);
        }
        AssetRequest::Change(id) => return change::update(database, &id.to_string(), owner, body),
        AssetRequest::Delete(id) => return change::delete(database, &id.to_string(), owner),
        AssetRequest::EditTags(id) => {
            return change::tags(database, &id.to_string(), owner, method, body);
        }
        AssetRequest::FromHash => return change::from_hash(database, owner, body),
        AssetRequest::Hash(_)
        | AssetRequest::Scan(_)
        | AssetRequest::ScanStatus
        | AssetRequest::Upload => {
            return not_allowed();
        }
    };
    listed.map_or_else(|refused| *refused, |list| json_answer(200, &list))
}

fn visible<'d>(database: &'d Database, id: &str, owner: &str) -> Option<&'d Reference> {
    let reference = database.references.get(id)?;
    (reference.is_visible_to(owner) && !reference.is_deleted).then_some(reference)
}

/// `HEAD /api/assets/hash/{hash}`.
fn has_hash(shared: &Shared, hash: &str) -> Response<SimBody> {
    let Some(hash) = valid_hash(hash) else {
        let message = "hash must be like 'blake3:<hex>'";
        return refused(400, "INVALID_HASH", message, &json!({}));
    };
    bare(if shared.server().assets.content(&hash).is_some() { 200 } else { 404 })
}

/// `validate_blake3_hash`.
fn valid_hash(text: &str) -> Option<String> {
    let text = text.trim().to_lowercase();
    let digits = text.strip_prefix("blake3:")?;
    let is_hex = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    (digits.len() == 64 && digits.bytes().all(is_hex)).then_some(text)
}

/// `GET /api/assets/{id}/content`: always the whole content, even if a range is requested.
fn content(
    server: &mut Server,
    id: &str,
    owner: &str,
    query: &str,
    headers: &HeaderMap,
) -> Response<SimBody> {
    let database = &mut server.assets;
    let Some(reference) = visible(database, id, owner) else {
        let message = format!("AssetReference {id} not found");
        return refused(404, "ASSET_NOT_FOUND", &message, &json!({}));
    };
    let siblings = database.references.values().filter(|it| it.content == reference.content);
    let places = reference.place.iter().chain(siblings.filter_map(|it| it.place.as_ref()));
    let found = places.into_iter().find_map(|place| database.bytes(&server.files, place));
    let Some(found) = found else {
        let message = "Underlying file not found on disk.";
        return refused(404, "FILE_NOT_FOUND", message, &json!({}));
    };
    let name = reference.name.clone();
    let mime = database.contents[reference.content].mime.as_deref();
    let mime = mime.or_else(|| mime_of(&name)).unwrap_or("application/octet-stream").to_owned();
    if let Some(reference) = database.references.get_mut(id) {
        reference.accessed = time::micros();
    }
    let is_image = headers.get("sec-fetch-dest").is_some_and(|it| it == "image");
    let is_dangerous = matches!(mime.as_str(), "text/html" | "image/svg+xml");
    let asked = parameter(query, "disposition").filter(|it| it == "inline");
    let is_shown = asked.is_some() && (!is_dangerous || (is_image && mime == "image/svg+xml"));
    let disposition = if is_shown { "inline" } else { "attachment" };
    let mime = if is_dangerous && !is_shown { "application/octet-stream" } else { &mime };
    let mut response = bytes(200, found, "application/octet-stream");
    insert(&mut response, http::header::CONTENT_TYPE, mime);
    let encoded = crate::comfy::query::encode(&name);
    let disposition = format!("{disposition}; filename*=UTF-8''{encoded}");
    insert(&mut response, CONTENT_DISPOSITION, &disposition);
    insert(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    if is_dangerous {
        insert(&mut response, http::header::VARY, "Sec-Fetch-Dest");
        insert(&mut response, http::header::CACHE_CONTROL, "no-store");
    }
    response
}

/// `POST /api/assets/seed`, `seed/cancel` and `prune`. A scan ends at once.
fn scan(shared: &Shared, action: &str, body: &[u8], query: &str) -> Response<SimBody> {
    let mut server = shared.server();
    let Server { assets, files, .. } = &mut *server;
    match action {
        "prune" => json_answer(200, &json!({ "status": "completed", "marked": 0 })),
        "seed/cancel" => json_answer(200, &json!({ "status": "idle" })),
        _ => {
            let body: Value = serde_json::from_slice(body).unwrap_or_default();
            let is_valid = |roots: &Vec<Value>| {
                roots.iter().any(|it| ["models", "input", "output"].iter().any(|root| it == root))
            };
            if body["roots"].as_array().is_some_and(|roots| !is_valid(roots)) {
                return refused(400, "INVALID_BODY", "No valid roots specified", &json!({}));
            }
            assets.scan(files);
            if parameter(query, "wait").is_some_and(|it| matches!(&*it, "true" | "1" | "yes")) {
                let progress = progress(assets);
                let done = json!({ "status": "completed", "progress": progress, "errors": [] });
                return json_answer(200, &done);
            }
            json_answer(202, &json!({ "status": "started" }))
        }
    }
}

/// Each `GET /object_info` starts a scan (`server.py:802`).
pub(super) fn looked_for(shared: &Shared, server: &mut Server) {
    if shared.options.assets {
        let Server { assets, files, .. } = server;
        assets.scan(files);
    }
}

fn scan_status(shared: &Shared) -> Response<SimBody> {
    let server = shared.server();
    let progress = server.assets.scanned.map(|_| progress(&server.assets));
    json_answer(200, &json!({ "state": "IDLE", "progress": progress, "errors": [] }))
}

fn progress(database: &Database) -> Value {
    let (seen, created) = database.scanned.unwrap_or_default();
    json!({ "scanned": seen, "total": seen, "created": created, "skipped": seen - created })
}

/// `/view?filename=blake3:…` (`server.py:525`): the content and the file name, or an error answer.
#[expect(clippy::result_large_err, reason = "the error is the answer")]
pub(super) fn of_hash(
    shared: &Shared,
    hash: &str,
    headers: &HeaderMap,
) -> Result<(bytes::Bytes, String), Response<SimBody>> {
    let owner = users::id(shared, headers).ok_or_else(trouble)?;
    let server = shared.server();
    let database = &server.assets;
    let content = database.content(hash).ok_or_else(|| bare(404))?;
    let mut visible =
        database.references.values().filter(|it| it.content == content && it.is_visible_to(&owner));
    let found = visible
        .find_map(|it| Some((database.bytes(&server.files, it.place.as_ref()?)?, it.name.clone())));
    found.ok_or_else(|| bare(404))
}

/// Registers an uploaded or generated file (`register_file_in_place`). Returns the JSON of its
/// asset.
pub(super) fn register(server: &mut Server, kind: FileKind, path: &str, tags: &[&str]) -> Value {
    let Some(file) = server.files.get(kind, path).map(|file| file.bytes.clone()) else {
        return Value::Null;
    };
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    let mime = Some(mime_of(&name).unwrap_or("application/octet-stream").to_owned());
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let new = New { name, tags, mime, ..New::default() };
    let database = &mut server.assets;
    let id = database.ingest(&Place::File(kind, path.to_owned()), &file, new);
    let told = item(database, &database.references[&id]);
    json!({
        "id": id, "name": told["name"], "asset_hash": told["asset_hash"], "size": told["size"],
        "mime_type": told["mime_type"], "tags": told["tags"],
    })
}

/// Adds the ids of their assets to the outputs of a node (`asset_enrichment.py`).
pub(super) fn enrich(shared: &Shared, shown: &mut Value) {
    if !shared.options.assets {
        return;
    }
    let mut server = shared.server();
    let entries = shown.as_object_mut().into_iter().flat_map(|it| it.values_mut());
    for entry in entries.filter_map(Value::as_array_mut).flatten() {
        let text = |key: &str| entry[key].as_str().map(str::to_owned);
        let (Some(name), Some(kind)) = (text("filename"), text("type")) else { continue };
        let Some(kind) = FileKind::parse(&kind) else { continue };
        let subfolder = text("subfolder").unwrap_or_default();
        let path = if subfolder.is_empty() { name } else { format!("{subfolder}/{name}") };
        let asset = register(&mut server, kind, &path, &[kind.as_str(), "uploaded"]);
        if let Some(id) = asset.get("id") {
            entry["id"] = id.clone();
        }
    }
}

/// A prompt has ended: its files become its assets.
pub(super) fn ended<'a>(
    shared: &Shared,
    server: &mut Server,
    job: &str,
    shown: impl Iterator<Item = &'a Value>,
) {
    if !shared.options.assets {
        return;
    }
    for entry in shown.filter_map(Value::as_object).flat_map(|it| it.values()) {
        for entry in entry.as_array().into_iter().flatten() {
            let text = |key: &str| entry[key].as_str();
            let (Some(name), Some(kind)) = (text("filename"), text("type")) else { continue };
            let Some(kind) = FileKind::parse(kind) else { continue };
            let path = match text("subfolder").unwrap_or_default() {
                "" => name.to_owned(),
                folder => format!("{folder}/{name}"),
            };
            let size = server.files.get(kind, &path).map_or(0, |file| file.bytes.len());
            server.assets.ended(&Place::File(kind, path), size, job);
        }
    }
}
