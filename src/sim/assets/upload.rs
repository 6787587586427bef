//! `POST /api/assets` (`app/assets/api/upload.py`): a form with a file, or with a known hash.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};
use serde_json::{Map, Value, json};

use super::super::body::SimBody;
use super::super::http::json_answer;
use super::super::prompts::trouble;
use super::super::state::Server;
use super::super::{Shared, users};
use super::db::{New, Place, mime_of};
use super::item::{destination, item, refused};
use super::{blake3, valid_hash};

/// The fields of the form.
#[derive(Default)]
struct Form {
    file: Option<(String, Bytes)>,
    hash: Option<String>,
    tags: Vec<String>,
    name: Option<String>,
    user_metadata: Map<String, Value>,
    mime: Option<String>,
    preview: Option<String>,
}

pub(super) async fn upload(shared: &Shared, headers: &HeaderMap, body: Bytes) -> Response<SimBody> {
    let form = match read(headers, body).await {
        Ok(form) => form,
        Err(refused) => return *refused,
    };
    let known = |hash: &String| shared.server().assets.content(hash).is_some();
    let is_known = form.hash.as_ref().is_some_and(known);
    match &form.file {
        None if !is_known => {
            let message = "Form must include a 'file' part or a known 'hash'.";
            return refused(400, "MISSING_FILE", message, &json!({}));
        }
        Some((_, bytes)) if bytes.is_empty() && !is_known => {
            return refused(400, "EMPTY_UPLOAD", "Uploaded file is empty.", &json!({}));
        }
        Some(_) | None => {}
    }
    let Some(owner) = users::id(shared, headers) else { return trouble() };
    let is_folder = |folder: &str| {
        shared.fixed("/models").as_array().is_some_and(|all| all.contains(&json!(folder)))
    };
    let mut server = shared.server();
    take(&mut server, form, owner, is_folder).unwrap_or_else(|refused| *refused)
}

/// `upload_from_temp_path`, and `create_from_hash` if the content is known.
fn take(
    server: &mut Server,
    form: Form,
    owner: String,
    is_folder: impl Fn(&str) -> bool,
) -> Result<Response<SimBody>, Box<Response<SimBody>>> {
    let bad = |code: &str, message: &str| Box::new(refused(400, code, message, &json!({})));
    let (client_name, bytes) = form.file.unwrap_or_default();
    let digest = blake3::hex(&bytes);
    let hash = format!("blake3:{digest}");
    let given = form.hash.filter(|given| server.assets.content(given).is_some() || *given != hash);
    let known = match given {
        Some(given) if server.assets.content(&given).is_some() => Some(given),
        Some(_) => {
            let message = "Uploaded file hash does not match provided hash.";
            return Err(bad("HASH_MISMATCH", message));
        }
        None => server.assets.content(&hash).map(|_| hash),
    };
    let named = form.name.clone().unwrap_or_else(|| client_name.clone());
    let mut name = named.trim().rsplit('/').next().unwrap_or_default().to_owned();
    if name.is_empty() {
        name.clone_from(&digest);
    }
    let mut new = New {
        name,
        owner,
        tags: form.tags,
        user_metadata: form.user_metadata,
        mime: form.mime,
        preview: form.preview,
    };
    let (id, created_new) = match known {
        Some(hash) => (server.assets.refer(&hash, new).unwrap_or_default(), false),
        None if new.tags.is_empty() => {
            return Err(bad("INVALID_BODY", "tags are required for new asset uploads"));
        }
        None => {
            let for_ending = if client_name.is_empty() { &named } else { &client_name };
            let ending = for_ending.rfind('.').map_or("", |dot| &for_ending[dot..]);
            let ending = if ending.len() <= 16 { ending } else { "" };
            let stored = format!("{digest}{ending}");
            let mime = mime_of(for_ending).unwrap_or("application/octet-stream");
            let place = destination(&new.tags, is_folder, stored)
                .map_err(|message| bad("INVALID_BODY", &message))?;
            match &place {
                Place::File(kind, path) => server.files.put(*kind, path, bytes.clone()),
                Place::Model(..) => server.assets.models.push((place.clone(), bytes.clone())),
            }
            new.mime.get_or_insert_with(|| mime.to_owned());
            new.tags.push("uploaded".to_owned());
            (server.assets.ingest(&place, &bytes, new), true)
        }
    };
    let mut told = item(&server.assets, &server.assets.references[&id]);
    told["created_new"] = json!(created_new);
    Ok(json_answer(if created_new { 201 } else { 200 }, &told))
}

async fn read(headers: &HeaderMap, body: Bytes) -> Result<Form, Box<Response<SimBody>>> {
    let bad =
        |status, code: &str, message: &str| Box::new(refused(status, code, message, &json!({})));
    let kind = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let boundary = multer::parse_boundary(kind)
        .map_err(|_| bad(415, "UNSUPPORTED_MEDIA_TYPE", "Use multipart/form-data for uploads."))?;
    let stream = futures_util::stream::iter([Ok::<_, Infallible>(body)]);
    let mut parts = multer::Multipart::new(stream, boundary);
    let mut form = Form::default();
    while let Ok(Some(field)) = parts.next_field().await {
        let name = field.name().unwrap_or_default().to_owned();
        let file_name = field.file_name().unwrap_or_default().trim().to_owned();
        let bytes = field.bytes().await;
        let bytes = bytes.map_err(|_| {
            bad(500, "UPLOAD_IO_ERROR", "Failed to receive and store uploaded file.")
        })?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let some = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        match name.as_str() {
            "file" => form.file = Some((file_name, bytes)),
            "hash" if some.is_some() => {
                let message = "hash must be like 'blake3:<hex>'";
                let hash = valid_hash(&text).ok_or_else(|| bad(400, "INVALID_HASH", message))?;
                form.hash = Some(hash);
            }
            "tags" => form.tags.extend(tags_of(&text)),
            "name" => form.name = some,
            "user_metadata" => match serde_json::from_str(&text) {
                Ok(Value::Object(metadata)) => form.user_metadata = metadata,
                Ok(_) | Err(_) if some.is_none() => {}
                Ok(_) | Err(_) => {
                    let message = "Validation failed: user_metadata must be a JSON object";
                    return Err(bad(400, "INVALID_BODY", message));
                }
            },
            "id" => {
                let message = "Client-provided 'id' is not supported. Asset IDs are assigned by \
                    the server.";
                return Err(bad(400, "UNSUPPORTED_FIELD", message));
            }
            "mime_type" => form.mime = some,
            "preview_id" => form.preview = some,
            _ => {}
        }
    }
    let mut seen = Vec::new();
    form.tags.retain(|tag| {
        !seen.contains(tag) && {
            seen.push(tag.clone());
            true
        }
    });
    Ok(form)
}

/// Parses a JSON list, or tags that are separated by commas.
fn tags_of(text: &str) -> Vec<String> {
    let listed = serde_json::from_str::<Vec<String>>(text.trim()).ok();
    let tags = listed.unwrap_or_else(|| text.split(',').map(str::to_owned).collect());
    tags.iter().map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect()
}
