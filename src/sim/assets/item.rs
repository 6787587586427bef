//! The JSON of one asset, and the errors for missing ones (`app/assets/api/routes.py`,
//! `schemas_out.py`).

use http::Response;
use serde_json::{Map, Value, json};

use super::super::body::SimBody;
use super::super::http::json_answer;
use super::super::state::FileKind;
use super::db::{Database, Place, Reference, mime_of};
use super::time::iso;

/// An error in the format of these routes.
pub(super) fn refused(
    status: u16,
    code: &str,
    message: &str,
    details: &Value,
) -> Response<SimBody> {
    let error = json!({ "code": code, "message": message, "details": details });
    json_answer(status, &json!({ "error": error }))
}

pub(super) fn not_found(id: &str) -> Response<SimBody> {
    let message = format!("AssetReference {id} not found");
    refused(404, "ASSET_NOT_FOUND", &message, &json!({ "id": id }))
}

/// An asset, without null members.
pub(super) fn item(database: &Database, reference: &Reference) -> Value {
    let content = &database.contents[reference.content];
    let place = reference.place.as_ref();
    let loader = place.map(Place::path);
    let display = place.map(|place| match place {
        Place::File(_, path) => path.clone(),
        Place::Model(folder, path) => format!("{folder}/{path}"),
    });
    let all = json!({
        "id": reference.id,
        "name": reference.name,
        "hash": content.hash,
        "loader_path": loader,
        "display_name": display,
        "asset_hash": content.hash,
        "size": content.size,
        "mime_type": content.mime,
        "tags": reference.tags,
        "preview_url": preview_url(database, reference),
        "preview_id": reference.preview,
        "user_metadata": reference.user_metadata,
        "is_immutable": false,
        "metadata": reference.system_metadata,
        "job_id": reference.job,
        "prompt_id": reference.job,
        "created_at": iso(reference.created),
        "updated_at": iso(reference.updated),
        "last_access_time": iso(reference.accessed),
    });
    let Value::Object(all) = all else { return Value::Null };
    let told: Map<String, Value> = all.into_iter().filter(|(_, value)| !value.is_null()).collect();
    Value::Object(told)
}

fn preview_url(database: &Database, reference: &Reference) -> Option<String> {
    if let Some(preview) = &reference.preview {
        let preview = database.references.get(preview).filter(|it| !it.is_deleted)?;
        return view_url(preview.place.as_ref()?);
    }
    let place = reference.place.as_ref()?;
    let mime = database.contents[reference.content].mime.as_deref();
    let mime = mime.or_else(|| mime_of(place.path())).unwrap_or_default();
    let shows = ["image/", "video/", "audio/", "text/"].iter().any(|it| mime.starts_with(it));
    view_url(place).filter(|_| shows)
}

/// `_build_view_url`; `None` for models.
fn view_url(place: &Place) -> Option<String> {
    let Place::File(kind, path) = place else { return None };
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let quote = crate::comfy::query::encode;
    let mut url = format!("/api/view?type={}&filename={}", kind.as_str(), quote(name));
    if !folder.is_empty() {
        url = format!("{url}&subfolder={}", quote(folder));
    }
    Some(url)
}

/// Where an upload is stored (`resolve_destination_from_tags`).
pub(super) fn destination(
    tags: &[String],
    is_folder: impl Fn(&str) -> bool,
    name: String,
) -> Result<Place, String> {
    let roles: Vec<&str> = tags
        .iter()
        .map(String::as_str)
        .filter(|tag| matches!(*tag, "input" | "models" | "output"))
        .collect();
    match roles.as_slice() {
        ["input"] => Ok(Place::File(FileKind::Input, name)),
        ["output"] => Ok(Place::File(FileKind::Output, name)),
        ["models"] => {
            let types: Vec<&str> =
                tags.iter().filter_map(|tag| tag.strip_prefix("model_type:")).collect();
            match types.as_slice() {
                [""] => Err(ONE_TYPE.to_owned()),
                [folder] if is_folder(folder) => Ok(Place::Model((*folder).to_owned(), name)),
                [folder] => Err(format!("unknown model category '{folder}'")),
                _ => Err(ONE_TYPE.to_owned()),
            }
        }
        _ => {
            Err("uploads require exactly one destination role: input, models, or output".to_owned())
        }
    }
}

const ONE_TYPE: &str = "models uploads require exactly one model_type:<folder_name> tag";
