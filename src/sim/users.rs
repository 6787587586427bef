//! Data that the server keeps for users: settings and user data (`app/user_manager.py`).
//!
//! With `--multi-user` the header `Comfy-User` names the user; without it there is one user.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, Response};
use serde_json::{Map, Value, json};

use super::body::SimBody;
use super::files::{content_type, insert};
use super::http::{bare, bytes, json_answer, text};
use super::prompts::trouble;
use super::{Hang, Shared};
use crate::comfy::endpoint::is_user_data;
use crate::comfy::query::parameter;
use crate::net::new_id;

/// The user, unless users are distinguished.
const DEFAULT: &str = "default";

/// Prefix of names that are reserved.
const SYSTEM: &str = "__";

/// The file with the settings of a user.
const SETTINGS_FILE: &str = "comfy.settings.json";

/// The data of one user.
#[derive(Debug, Default)]
pub(super) struct Profile {
    userdata: BTreeMap<String, Bytes>,
    settings: Map<String, Value>,
}

impl Profile {
    /// `POST /userdata/{file}/move/{dest}`: of a file, or of a folder with all that is in it.
    fn moves(&mut self, from: &str, to: &str) -> Response<SimBody> {
        let folder = format!("{from}/");
        let is_meant = |path: &String| *path == from || path.starts_with(&folder);
        let meant: Vec<String> =
            self.userdata.keys().filter(|path| is_meant(path)).cloned().collect();
        if meant.is_empty() {
            return bare(404);
        }
        for path in meant {
            let Some(file) = self.userdata.remove(&path) else { continue };
            self.userdata.insert(format!("{to}{}", &path[from.len()..]), file);
        }
        json_answer(200, &json!(to))
    }
}

/// All users: the names of created ones, by id, and the data of each.
#[derive(Debug, Default)]
pub(super) struct Users {
    names: BTreeMap<String, String>,
    profiles: BTreeMap<String, Profile>,
}

/// The id of the requesting user; `None` where ComfyUI raises a `KeyError`.
pub(super) fn id(shared: &Shared, headers: &HeaderMap) -> Option<String> {
    if !shared.options.multi_user {
        return Some(DEFAULT.to_owned());
    }
    let named = headers.get("comfy-user").and_then(|value| value.to_str().ok());
    let named = named.unwrap_or(DEFAULT);
    if named.starts_with(SYSTEM) {
        return None;
    }
    shared.server().users.names.contains_key(named).then(|| named.to_owned())
}

/// Waits with what is saved for as long as that is asked for.
pub(super) async fn until_it_saves(shared: &Shared, method: &Method, bare_path: &str) {
    let is_saving = *method != Method::GET && is_user_data(bare_path);
    loop {
        // Before the look: no change is missed.
        let changed = shared.faults_changed.notified();
        if !is_saving || shared.faults().hang != Hang::Saving {
            return;
        }
        changed.await;
    }
}

/// `GET /users`.
pub(super) fn list(shared: &Shared) -> Response<SimBody> {
    if !shared.options.multi_user {
        return json_answer(200, &shared.fixed("/users"));
    }
    let names = shared.server().users.names.clone();
    json_answer(200, &json!({ "storage": "server", "users": names }))
}

/// `POST /users`.
pub(super) fn create(shared: &Shared, body: &[u8]) -> Response<SimBody> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return trouble() };
    let Some(name) = body["username"].as_str() else { return trouble() };
    let refused = |error: &str| json_answer(400, &json!({ "error": error }));
    let mut server = shared.server();
    if server.users.names.values().any(|known| known == name) {
        return refused("Duplicate username.");
    }
    let name = name.trim();
    if name.is_empty() {
        return refused("username not provided");
    }
    if name.starts_with(SYSTEM) {
        return refused("System User prefix not allowed");
    }
    let id = format!("{}_{}", plain(name), new_id());
    server.users.names.insert(id.clone(), name.to_owned());
    json_answer(200, &json!(id))
}

/// Replaces each run of other characters by one dash.
fn plain(name: &str) -> String {
    let mut plain = String::new();
    let mut is_in_run = false;
    for character in name.chars() {
        let is_kept = character.is_ascii_alphanumeric() || matches!(character, '-' | '_');
        if is_kept {
            plain.push(character);
        } else if !is_in_run {
            plain.push('-');
        }
        is_in_run = !is_kept;
    }
    plain
}

/// The user of a request for settings, or the answer if there is none.
#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn of_settings(shared: &Shared, headers: &HeaderMap) -> Result<String, Response<SimBody>> {
    id(shared, headers).ok_or_else(|| text(401, "401: Unauthorized"))
}

/// `GET /settings`, of all keys or one.
pub(super) fn settings(
    shared: &Shared,
    key: Option<&str>,
    headers: &HeaderMap,
) -> Response<SimBody> {
    let user = match of_settings(shared, headers) {
        Ok(user) => user,
        Err(refused) => return refused,
    };
    let mut settings = shared.first_settings();
    if let Some(profile) = shared.server().users.profiles.get(&user) {
        for (key, value) in &profile.settings {
            settings[key] = value.clone();
        }
    }
    match key {
        None => json_answer(200, &settings),
        Some(key) => json_answer(200, &settings.get(key).cloned().unwrap_or_default()),
    }
}

/// `POST /settings`, of all keys or one.
pub(super) fn change_settings(
    shared: &Shared,
    key: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Response<SimBody> {
    let user = match of_settings(shared, headers) {
        Ok(user) => user,
        Err(refused) => return refused,
    };
    let changed = match (serde_json::from_slice(body), key) {
        (Ok(value), Some(key)) => Map::from_iter([(key.to_owned(), value)]),
        (Ok(Value::Object(changed)), None) => changed,
        (Ok(_) | Err(_), _) => return trouble(),
    };
    shared.server().users.profiles.entry(user).or_default().settings.extend(changed);
    bare(200)
}

/// As ComfyUI resolves a name: it is decoded once more, and detours are taken out.
fn user_path(bare_path: &str) -> String {
    let decode =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let name = decode(&decode(bare_path.trim_start_matches("/userdata/")));
    let mut path = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(path.pop()),
            part => path.push(part),
        }
    }
    path.join("/")
}

/// True for a path of one segment; a slash in it must be encoded.
fn is_one_segment(bare_path: &str) -> bool {
    !bare_path.trim_start_matches("/userdata/").contains('/')
}

/// `GET /userdata/{file}`.
pub(super) fn userdata(shared: &Shared, bare_path: &str, headers: &HeaderMap) -> Response<SimBody> {
    if !is_one_segment(bare_path) {
        return bytes(404, Bytes::new(), "application/octet-stream");
    }
    let Some(user) = id(shared, headers) else { return trouble() };
    let path = user_path(bare_path);
    let server = shared.server();
    let found = server.users.profiles.get(&user).and_then(|profile| profile.userdata.get(&path));
    let Some(found) = found else { return bare(404) };
    // As in aiohttp's `FileResponse`.
    let mut hasher = DefaultHasher::new();
    found.hash(&mut hasher);
    let etag = format!("\"{:x}-{:x}\"", hasher.finish(), found.len());
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known == Some(etag.as_str()) {
        let mut response = bare(304);
        insert(&mut response, ETAG, &etag);
        return response;
    }
    let mut response = bytes(200, found.clone(), content_type(&path));
    insert(&mut response, ETAG, &etag);
    insert(&mut response, ACCEPT_RANGES, "bytes");
    if shared.release.is_of_2026() {
        insert(&mut response, X_CONTENT_TYPE_OPTIONS, "nosniff");
        insert(&mut response, CONTENT_DISPOSITION, "attachment");
    }
    response
}

/// `POST /userdata/{file}`.
pub(super) fn put_userdata(
    shared: &Shared,
    bare_path: &str,
    query: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> Response<SimBody> {
    let moved = bare_path.split_once("/move/");
    if moved.is_none() && !is_one_segment(bare_path) {
        return text(405, "405: Method Not Allowed");
    }
    let Some(user) = id(shared, headers) else { return trouble() };
    let mut server = shared.server();
    let profile = server.users.profiles.entry(user).or_default();
    if let Some((from, to)) = moved {
        return profile.moves(&user_path(from), &user_path(to));
    }
    let path = user_path(bare_path);
    if path == SETTINGS_FILE {
        let Ok(settings) = serde_json::from_slice(&body) else { return trouble() };
        profile.settings = settings;
        return json_answer(200, &json!(path));
    }
    let keeps = parameter(query, "overwrite").as_deref() == Some("false");
    if keeps && profile.userdata.contains_key(&path) {
        return text(409, "File already exists");
    }
    profile.userdata.insert(path.clone(), body);
    json_answer(200, &json!(path))
}

/// `DELETE /userdata/{file}`.
pub(super) fn delete_userdata(
    shared: &Shared,
    bare_path: &str,
    headers: &HeaderMap,
) -> Response<SimBody> {
    let Some(user) = id(shared, headers) else { return trouble() };
    let mut server = shared.server();
    let profile = server.users.profiles.entry(user).or_default();
    match profile.userdata.remove(&user_path(bare_path)) {
        Some(_) => bare(204),
        None => bare(404),
    }
}

/// `GET /userdata?dir=` and `/v2/userdata?path=`.
pub(super) fn list_userdata(
    shared: &Shared,
    query: &str,
    headers: &HeaderMap,
) -> Response<SimBody> {
    let Some(user) = id(shared, headers) else { return trouble() };
    let folder = parameter(query, "dir").or_else(|| parameter(query, "path")).unwrap_or_default();
    let prefix = format!("{}/", folder.trim_matches('/'));
    let server = shared.server();
    let profile = server.users.profiles.get(&user);
    let paths = profile.into_iter().flat_map(|profile| profile.userdata.keys());
    let found: Vec<&str> = paths.filter_map(|path| path.strip_prefix(&prefix)).collect();
    if found.is_empty() {
        return text(404, "Directory not found");
    }
    json_answer(200, &json!(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_user_begins_with_a_plain_form_of_the_name() {
        assert_eq!(plain("Ann Élise  O'Hara_1"), "Ann-lise-O-Hara_1");
    }
}
