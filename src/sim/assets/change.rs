//! Changes assets: `PUT`, `DELETE`, tags, and references that are made from a hash.

use http::{Method, Response};
use serde_json::{Map, Value, json};

use super::super::body::SimBody;
use super::super::http::{bare, json_answer};
use super::db::{Database, New};
use super::item::{item, not_found, refused};
use super::time::micros;
use super::{valid_hash, visible};

/// The error with which pydantic refuses a body.
fn invalid(field: &str, message: &str) -> Response<SimBody> {
    let loc = if field.is_empty() { json!([]) } else { json!([field]) };
    let errors = json!([{ "type": "value_error", "loc": loc, "msg": message }]);
    refused(400, "INVALID_BODY", "Validation failed.", &json!({ "errors": errors }))
}

fn no_json() -> Response<SimBody> {
    refused(400, "INVALID_JSON", "Request body must be valid JSON.", &json!({}))
}

fn text(body: &Value, key: &str) -> Option<String> {
    body[key].as_str().map(str::to_owned)
}

/// `get_reference_with_owner_check`.
#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn is_owned(database: &Database, id: &str, owner: &str) -> Result<(), Response<SimBody>> {
    match database.references.get(id) {
        Some(it) if it.is_deleted => Err(not_found(id)),
        Some(it) if it.is_visible_to(owner) => Ok(()),
        Some(_) => Err(refused(403, "FORBIDDEN", "not owner", &json!({ "id": id }))),
        None => Err(not_found(id)),
    }
}

/// `PUT /api/assets/{id}`.
pub(super) fn update(
    database: &mut Database,
    id: &str,
    owner: &str,
    body: &[u8],
) -> Response<SimBody> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return no_json() };
    if ["name", "user_metadata", "preview_id"].iter().all(|key| body[*key].is_null()) {
        let message = "Value error, Provide at least one of: name, user_metadata, preview_id.";
        return invalid("", message);
    }
    if let Err(refused) = is_owned(database, id, owner) {
        return refused;
    }
    let preview = text(&body, "preview_id");
    if let Some(preview) = preview.as_ref().filter(|it| !database.references.contains_key(*it)) {
        let message = format!("Preview AssetReference {preview} not found");
        return refused(404, "ASSET_NOT_FOUND", &message, &json!({ "id": id }));
    }
    let Some(reference) = database.references.get_mut(id) else { return not_found(id) };
    if let Some(name) = text(&body, "name") {
        reference.name = name;
    }
    if let Some(metadata) = body["user_metadata"].as_object() {
        reference.user_metadata = metadata.clone();
        if let Some(place) = &reference.place {
            reference.user_metadata.insert("filename".to_owned(), json!(place.path()));
        }
    }
    if preview.is_some() {
        reference.preview = preview;
    }
    reference.updated = micros();
    json_answer(200, &item(database, &database.references[id]))
}

/// `DELETE /api/assets/{id}`: the file stays.
pub(super) fn delete(database: &mut Database, id: &str, owner: &str) -> Response<SimBody> {
    if visible(database, id, owner).is_none() {
        let message = format!("AssetReference {id} not found.");
        return refused(404, "ASSET_NOT_FOUND", &message, &json!({}));
    }
    if let Some(reference) = database.references.get_mut(id) {
        reference.is_deleted = true;
    }
    bare(204)
}

/// `POST` and `DELETE /api/assets/{id}/tags`.
pub(super) fn tags(
    database: &mut Database,
    id: &str,
    owner: &str,
    method: &Method,
    body: &[u8],
) -> Response<SimBody> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return no_json() };
    let is_text = |tags: &Vec<Value>| !tags.is_empty() && tags.iter().all(Value::is_string);
    let Some(tags) = body["tags"].as_array().filter(|tags| is_text(tags)) else {
        let action = if *method == Method::POST { "add" } else { "remove" };
        let message = format!("Invalid JSON body for tags {action}.");
        return refused(400, "INVALID_BODY", &message, &json!({ "errors": [] }));
    };
    if let Err(refused) = is_owned(database, id, owner) {
        return refused;
    }
    let mut asked: Vec<String> = tags
        .iter()
        .filter_map(Value::as_str)
        .map(|tag| tag.trim().to_owned())
        .filter(|tag| !tag.is_empty())
        .collect();
    asked.sort();
    asked.dedup();
    let Some(reference) = database.references.get_mut(id) else { return not_found(id) };
    let (present, absent): (Vec<String>, Vec<String>) =
        asked.into_iter().partition(|tag| reference.tags.contains(tag));
    let names = if *method == Method::POST {
        database.tags.extend(absent.iter().cloned());
        reference.tags.extend(absent.iter().cloned());
        [("added", absent), ("already_present", present)]
    } else {
        reference.tags.retain(|tag| !present.contains(tag));
        [("removed", present), ("not_present", absent)]
    };
    let mut told = Map::new();
    for (name, tags) in names {
        told.insert(name.to_owned(), json!(tags));
    }
    told.insert("total_tags".to_owned(), json!(reference.tags));
    json_answer(200, &Value::Object(told))
}

/// `POST /api/assets/from-hash`.
pub(super) fn from_hash(database: &mut Database, owner: &str, body: &[u8]) -> Response<SimBody> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return no_json() };
    let Some(hash) = text(&body, "hash").and_then(|hash| valid_hash(&hash)) else {
        return invalid("hash", "Value error, hash must be 'blake3:<hex>'");
    };
    let name = text(&body, "name").unwrap_or_else(|| hash.replace("blake3:", ""));
    let tags = body["tags"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let new = New {
        name: name.rsplit('/').next().unwrap_or_default().to_owned(),
        owner: owner.to_owned(),
        tags: tags.map(|tag| tag.trim().to_owned()).collect(),
        user_metadata: body["user_metadata"].as_object().cloned().unwrap_or_default(),
        mime: text(&body, "mime_type"),
        preview: text(&body, "preview_id"),
    };
    match database.refer(&hash, new) {
        Some(id) => {
            let mut told = item(database, &database.references[&id]);
            told["created_new"] = json!(false);
            json_answer(201, &told)
        }
        None => {
            let message = format!("Asset content {hash} does not exist");
            refused(404, "ASSET_NOT_FOUND", &message, &json!({}))
        }
    }
}
