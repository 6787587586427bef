//! Files: uploads with their naming rules, views, and the page.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, RANGE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response};
use serde_json::{Value, json};

use super::body::SimBody;
use super::forms::{self, read_form};
use super::http::{bare, bytes, json_answer};
use super::prompts::trouble;
use super::state::{FileKind, Server};
use super::{Shared, assets, pictures};
use crate::comfy::query::parameter;

/// `POST /upload/image` and `/upload/mask` (`server.py:373`).
pub(super) async fn upload(
    shared: &Shared,
    headers: &HeaderMap,
    body: Bytes,
    is_mask: bool,
) -> Response<SimBody> {
    let Some(form) = read_form(headers, body).await else { return bare(400) };
    let Some((name, picture)) = form.image else { return bare(400) };
    let subfolder = form.subfolder.unwrap_or_default();
    let folder = forms::normal(&subfolder);
    let whole = folder.as_ref().and_then(|folder| forms::normal(&format!("{folder}/{name}")));
    let (Some(_), Some(whole)) = (folder, whole.filter(|_| !name.is_empty())) else {
        return bare(400);
    };
    let Some(kind) = FileKind::parse(form.kind.as_deref().unwrap_or("input")) else {
        return trouble();
    };
    if is_mask && form.original.is_none() {
        return trouble();
    }
    let mut server = shared.server();
    if is_mask && !has_original(&server.files, form.original.as_deref().unwrap_or_default()) {
        // Answered as if it had worked, but nothing is written (ComfyUI 0.8.0).
        return stored(&name, &subfolder, kind);
    }
    let (folder, name) = whole.rsplit_once('/').unwrap_or(("", &whole));
    let at = |name: &str| {
        if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
    };
    let overwrites = form.overwrites.unwrap_or_default();
    let (stem, suffix) = match name.rfind('.') {
        Some(dot) => name.split_at(dot),
        None => (name, ""),
    };
    let mut free = name.to_owned();
    for count in 1_u32.. {
        match server.files.get(kind, &at(&free)) {
            Some(known) if !overwrites && known.bytes == picture => {
                let told = told(shared, &mut server, (kind, &at(&free)), &subfolder);
                return json_answer(200, &told);
            }
            Some(_) if !overwrites => free = format!("{stem} ({count}){suffix}"),
            Some(_) | None => break,
        }
    }
    server.files.put(kind, &at(&free), picture);
    json_answer(200, &told(shared, &mut server, (kind, &at(&free)), &subfolder))
}

/// The answer for an uploaded file: its name and its asset.
fn told(
    shared: &Shared,
    server: &mut Server,
    (kind, path): (FileKind, &str),
    subfolder: &str,
) -> Value {
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut told = json!({ "name": name, "subfolder": subfolder, "type": kind.as_str() });
    if shared.options.assets {
        let tag = if kind == FileKind::Temp { "input" } else { kind.as_str() };
        told["asset"] = assets::register(server, kind, path, &[tag, "uploaded"]);
    }
    told
}

fn has_original(files: &super::state::Files, original: &str) -> bool {
    let original: Value = serde_json::from_str(original).unwrap_or_default();
    let text = |key: &str| original[key].as_str().unwrap_or_default();
    let kind = FileKind::parse(text("type")).unwrap_or(FileKind::Output);
    let (name, annotated) = without_annotation(text("filename"));
    let path = forms::normal(&format!("{}/{name}", text("subfolder")));
    path.is_some_and(|path| files.get(annotated.unwrap_or(kind), &path).is_some())
}

fn stored(name: &str, subfolder: &str, kind: FileKind) -> Response<SimBody> {
    json_answer(200, &json!({ "name": name, "subfolder": subfolder, "type": kind.as_str() }))
}

/// `GET /view` (`server.py:473`).
pub(super) fn view(shared: &Shared, query: &str, headers: &HeaderMap) -> Response<SimBody> {
    let Some(named) = parameter(query, "filename") else { return bare(404) };
    if named.starts_with("blake3:") && shared.release.is_of_2026() {
        return match assets::of_hash(shared, &named, headers) {
            Ok((bytes, name)) => serve_file(bytes, &name, &format!("\"{named}\""), headers),
            Err(refused) => refused,
        };
    }
    let (named, annotated) = without_annotation(&named);
    if named.is_empty() || named.starts_with('/') || named.contains("..") {
        return bare(400);
    }
    let kind = parameter(query, "type").unwrap_or_else(|| "output".to_owned());
    let Some(kind) = annotated.or_else(|| FileKind::parse(&kind)) else { return bare(400) };
    let subfolder = parameter(query, "subfolder").unwrap_or_default();
    let Some(folder) = forms::normal(&subfolder) else { return bare(403) };
    let name = named.rsplit('/').next().unwrap_or(named);
    let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    let Some(file) = shared.server().files.get(kind, &path).cloned() else { return bare(404) };
    if let Some(preview) = parameter(query, "preview") {
        let format = preview.split(';').next().unwrap_or_default();
        return match pictures::convert(&file.bytes, format) {
            Some((converted, content_type)) => {
                let mut response = bytes(200, converted, content_type);
                insert(&mut response, CONTENT_DISPOSITION, &format!("filename=\"{name}\""));
                response
            }
            None => trouble(),
        };
    }
    let etag = format!("\"{:x}-{:x}\"", file.version, file.bytes.len());
    let mut response = serve_file(file.bytes, name, &etag, headers);
    if shared.release.is_of_2026() {
        guard(&mut response, name, headers);
    }
    response
}

/// Files that a browser could execute are not shown inline, except pictures in an `<img>`
/// (`server.py`, `view_image`).
fn guard(response: &mut Response<SimBody>, name: &str, headers: &HeaderMap) {
    insert(response, X_CONTENT_TYPE_OPTIONS, "nosniff");
    let ending = name.rsplit('.').next().unwrap_or_default().to_lowercase();
    let is_picture = ending == "svg";
    if !is_picture && !["html", "htm", "js", "mjs", "css", "xml", "xhtml"].contains(&&*ending) {
        return;
    }
    insert(response, VARY, "Sec-Fetch-Dest");
    insert(response, CACHE_CONTROL, "no-store");
    let shown = headers.get("sec-fetch-dest").is_some_and(|dest| dest == "image");
    if !(is_picture && shown) {
        insert(response, CONTENT_TYPE, "application/octet-stream");
        insert(response, CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}\""));
    }
}

/// Cuts by length, whatever stands before the bracket (`folder_paths.py`, `annotated_filepath`).
pub(super) fn without_annotation(name: &str) -> (&str, Option<FileKind>) {
    for kind in [FileKind::Output, FileKind::Input, FileKind::Temp] {
        if let Some(before) = name.strip_suffix(&format!("[{}]", kind.as_str())) {
            let mut kept = before.chars();
            kept.next_back();
            return (kept.as_str(), Some(kind));
        }
    }
    (name, None)
}

fn serve_file(body: Bytes, name: &str, etag: &str, headers: &HeaderMap) -> Response<SimBody> {
    let value = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if value(IF_NONE_MATCH).is_some_and(|known| known == etag) {
        let mut known = bare(304);
        insert(&mut known, ETAG, etag);
        return known;
    }
    let total = body.len();
    let mut response = match value(RANGE).and_then(|range| parse_range(range, total)) {
        Some((first, last)) => {
            let mut part = bytes(206, body.slice(first..=last), content_type(name));
            let range = format!("bytes {first}-{last}/{total}");
            insert(&mut part, CONTENT_RANGE, &range);
            part
        }
        None => bytes(200, body, content_type(name)),
    };
    insert(&mut response, ETAG, etag);
    insert(&mut response, ACCEPT_RANGES, "bytes");
    insert(&mut response, CONTENT_DISPOSITION, &format!("filename=\"{name}\""));
    response
}

pub(super) fn insert(response: &mut Response<SimBody>, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn parse_range(text: &str, total: usize) -> Option<(usize, usize)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let end = total.checked_sub(1)?;
    let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, last.min(end)),
        (Ok(first), Err(_)) => (first, end),
        (Err(_), Ok(count)) => (total.saturating_sub(count), end),
        (Err(_), Err(_)) => return None,
    };
    (first <= last).then_some((first, last))
}

pub(super) fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "svg" => "image/svg+xml",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "html" => "text/html; charset=utf-8",
        "json" => "application/json",
        "woff2" => "font/woff2",
        "ico" => "image/x-icon",
        "mp4" => "video/mp4",
        _ => "application/octet-stream",
    }
}

/// `/internal/files/{kind}`: newest first, and since 2026 with the folder's name.
pub(super) fn listing(shared: &Shared, kind: FileKind) -> Response<SimBody> {
    let server = shared.server();
    let names = server.files.newest(kind);
    let listed: Vec<String> = if shared.release.is_of_2026() {
        names.iter().map(|name| format!("{name} [{}]", kind.as_str())).collect()
    } else {
        names.iter().map(|&name| name.to_owned()).collect()
    };
    json_answer(200, &json!(listed))
}

/// The page: the official one from a folder, or the playground.
pub(super) fn page(shared: &Shared, path: &str, headers: &HeaderMap) -> Response<SimBody> {
    let path = if matches!(path, "/" | "/api/") { "/index.html" } else { path };
    let found = match &shared.options.frontend {
        Some(folder) => from_folder(folder, path),
        None => super::page::find(path).map(|file| Bytes::from_static(file.bytes)),
    };
    let Some(body) = found else {
        return bytes(404, Bytes::new(), "application/octet-stream");
    };
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let etag = format!("\"{:x}-{:x}\"", hasher.finish(), body.len());
    let mut response = serve_file(body, path, &etag, headers);
    response.headers_mut().remove(CONTENT_DISPOSITION);
    // `middleware/cache_middleware.py`.
    let is_code = path.ends_with(".js") || path.ends_with(".css");
    if is_code && shared.release.is_of_2026() {
        insert(&mut response, CACHE_CONTROL, "no-store");
    } else if is_code || path.ends_with(".html") {
        insert(&mut response, CACHE_CONTROL, "no-cache");
    }
    response
}

fn from_folder(folder: &std::path::Path, path: &str) -> Option<Bytes> {
    let relative = path.trim_start_matches('/');
    if relative.split('/').any(|part| part == "..") {
        return None;
    }
    std::fs::read(folder.join(relative)).ok().map(Bytes::from)
}
