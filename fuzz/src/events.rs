//! What ComfyUI says over its socket.
//!
//! - An event is read the same however it is written: compact, as Python writes it, or with its
//!   members in another order.
//! - What is put into it or taken out is that and nothing else.
//! - A file is told with its backend and nothing else is changed; read back, it is the same file.
//! - A preview that is told in the older way has the same picture.

use bytes::Bytes;
use mooring::comfy::event::{self, Event};
use mooring::comfy::names::{self, NameKey};
use mooring::comfy::preview::{self, Binary};
use serde_json::{Map, Value};

use super::json;

const LEN_MAX: usize = 64 << 10;

pub fn check(data: &[u8]) {
    let data = &data[..data.len().min(LEN_MAX)];
    check_binary(data);
    if let Ok(text) = std::str::from_utf8(data) {
        check_text(text);
    }
}

fn check_text(text: &str) {
    let bytes = text.as_bytes();
    let read = event::read(bytes);
    assert_eq!(event::is_executed(bytes) && !matches!(read, Event::Other), {
        matches!(read, Event::Executed { .. })
    });
    assert!(event::executed_node(bytes).is_none() || matches!(read, Event::Executed { .. }));
    let value = json::value(bytes).filter(|_| json::is_plain(bytes));
    if let Some(Value::Object(members)) = value {
        check_spellings(bytes, &members);
        check_edits(bytes, &Value::Object(members));
    }
    check_names(bytes, NameKey::Output);
    check_names(bytes, NameKey::Upload);
}

/// The same event, written in other ways.
fn check_spellings(text: &[u8], members: &Map<String, Value>) {
    let value = Value::Object(members.clone());
    let turned: Map<String, Value> =
        members.iter().rev().map(|(key, value)| (key.clone(), turned(value))).collect();
    let escaped = escaped(&value.to_string());
    let ways =
        [value.to_string(), json::python(&value), Value::Object(turned).to_string(), escaped];
    let read = event::read(text);
    for way in ways {
        let again = event::read(way.as_bytes());
        assert_eq!(again, read, "{way}");
        assert_eq!(event::executing_node(way.as_bytes()), event::executing_node(text), "{way}");
        assert_eq!(event::executed_node(way.as_bytes()), event::executed_node(text), "{way}");
        assert_eq!(event::is_feature_flags(way.as_bytes()), event::is_feature_flags(text));
        assert_eq!(
            event::wants_preview_metadata(way.as_bytes()),
            event::wants_preview_metadata(text)
        );
        assert!(event::is_json_object(way.as_bytes()));
    }
}

/// With the members of objects in the other order.
fn turned(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().rev();
            Value::Object(members.map(|(key, value)| (key.clone(), turned(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(turned).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// With the letters of strings as escapes.
fn escaped(json: &str) -> String {
    let mut out = String::new();
    let (mut in_string, mut after_escape) = (false, 0);
    for character in json.chars() {
        match character {
            _ if 0 < after_escape => after_escape -= 1,
            '"' => in_string = !in_string,
            '\\' => after_escape = 1,
            _ if in_string && character.is_ascii_lowercase() => {
                out.push_str(&format!("\\u{:04x}", u32::from(character)));
                continue;
            }
            _ => {}
        }
        // `\u0041` is not to be escaped again.
        if character == 'u' && out.ends_with('\\') && in_string {
            after_escape = 4;
        }
        out.push(character);
    }
    out
}

fn check_edits(text: &[u8], value: &Value) {
    let mut bare = value.clone();
    if let Some(data) = bare.get_mut("data").and_then(Value::as_object_mut) {
        data.shift_remove("sid");
        let edited = event::without_sid(text).expect("an event with data can be edited");
        assert_eq!(json::value(edited.as_bytes()), Some(bare));
    } else {
        assert_eq!(event::without_sid(text), None);
    }
    let mut named = value.clone();
    if let Some(data) = named.get_mut("data").and_then(Value::as_object_mut) {
        data.insert("prompt_id".to_owned(), "p\"1".into());
        let edited = event::with_prompt(text, "p\"1").expect("an event with data can be edited");
        assert_eq!(json::value(edited.as_bytes()), Some(named));
    }
}

/// Names of files, in an event or any other JSON.
pub(super) fn check_names(text: &[u8], key: NameKey) {
    let told = names::told_in(text, key);
    assert!(told.len() <= text.len());
    assert_eq!(names::with_backends(text, &[]), text, "nothing is told, and nothing is changed");
    if !json::is_json(text) {
        return;
    }
    let all: Vec<_> = told.iter().map(|file| (file, "gpu-b")).collect();
    let out = names::with_backends(text, &all);
    assert!(json::is_json(&out), "{}", out.escape_ascii());
    let (Some(before), Some(after)) = (json::value(text), json::value(&out)) else { return };
    if !json::is_plain(text) {
        return;
    }
    if told.is_empty() {
        assert_eq!(after, before);
    }
    assert!(is_same_but_for_tags(&after, &before), "{}", out.escape_ascii());
    // Whoever reads it finds as many files, each in a folder of its backend; unless a name has
    // become longer than any may be.
    if told.iter().any(|told| 1_000 < told.file.path().len()) {
        return;
    }
    let again = names::told_in(&out, key);
    assert_eq!(again.len(), told.len(), "{}", out.escape_ascii());
    for (again, told) in again.iter().zip(&told) {
        let (subfolder, backend) = names::split(again.file.subfolder());
        assert_eq!(backend, Some("gpu-b"), "{again:?}");
        assert_eq!(again.file.folder, told.file.folder);
        assert_eq!(again.file.filename(), told.file.filename());
        assert_eq!(subfolder.trim_matches('/'), told.file.subfolder().trim_matches('/'));
    }
}

/// True if all that `after` has besides is a backend in paths, or as a subfolder.
fn is_same_but_for_tags(after: &Value, before: &Value) -> bool {
    match (after, before) {
        (Value::String(after), Value::String(before)) => {
            after == before || untagged(after) == untagged(before)
        }
        (Value::Array(after), Value::Array(before)) => {
            let pairs = || after.iter().zip(before);
            after.len() == before.len() && pairs().all(|(it, was)| is_same_but_for_tags(it, was))
        }
        (Value::Object(after), Value::Object(before)) => {
            let is_subfolder = |key: &str, it: &Value| key == "subfolder" && it == "~gpu-b";
            before.keys().all(|key| after.contains_key(key))
                && after.iter().all(|(key, it)| match before.get(key) {
                    Some(was) => is_same_but_for_tags(it, was),
                    None => is_subfolder(key, it),
                })
        }
        (_, _) => after == before,
    }
}

/// A path without its backend, whatever its slashes are.
fn untagged(path: &str) -> Vec<&str> {
    let parts = path.split(['/', '\\']);
    parts.filter(|part| !part.is_empty() && *part != "~gpu-b").collect()
}

fn check_binary(payload: &[u8]) {
    let bytes = Bytes::copy_from_slice(payload);
    let read = preview::read(payload);
    if let Some(head) = preview::text_head(payload) {
        assert!(payload.starts_with(head) && read == Binary::Text);
    }
    let Some(plain) = preview::downgrade(&bytes) else { return };
    assert!(matches!(read, Binary::PreviewWithMetadata { .. } | Binary::Unknown));
    assert!(matches!(preview::read(&plain), Binary::Preview { .. }));
    assert!(plain.len() <= payload.len(), "it has no metadata");
    assert!(payload.ends_with(&plain[8..]), "the picture stays");
    assert_eq!(preview::downgrade(&plain), None);
}
