//! The server features that a page is told: those that every backend has in common.
//!
//! A page asks for the features once and relies on them for hours, while its work goes to different
//! backends. So a switch is on if all have it on, a limit is the smallest one, and features that
//! only some backends have are left out.

use serde_json::{Map, Value};

/// The features that every link has. They are told until a backend has sent its own, and they stand
/// in for a backend that sends none.
pub const AT_LEAST: &str = r#"{"supports_preview_metadata": true, "max_upload_size": 104857600}"#;

/// Never told. A server that offers this feature puts the prompt's id before the text of a type 3
/// frame, for sockets that asked for it (ComfyUI's frontend 1.49.6). Our links do not ask, so their
/// texts have no id. A page that was told of the feature would read every text as garbage.
const HIDDEN: &str = "supports_progress_text_metadata";

/// The switch for assets (ComfyUI 0.33 `comfy_api/feature_flags.py`).
const ASSETS: &str = "assets";

/// The features in common; each item is JSON as its backend sent it.
#[must_use]
pub fn in_common<'a>(all: impl IntoIterator<Item = &'a str>) -> String {
    let parsed = |text| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let told = all.into_iter().map(parsed).reduce(|ours, theirs| both(&ours, &theirs));
    let mut told = told.unwrap_or_else(|| parsed(AT_LEAST));
    told.remove(HIDDEN);
    Value::Object(told).to_string()
}

/// The same features without assets, as of a server that was started without them. `None` if it has
/// none.
#[must_use]
pub fn without_assets(told: &str) -> Option<String> {
    let mut told: Map<String, Value> = serde_json::from_str(told).ok()?;
    let has_assets = told.insert(ASSETS.to_owned(), Value::Bool(false));
    has_assets.is_some_and(|has| has != false).then(|| Value::Object(told).to_string())
}

fn both(ours: &Map<String, Value>, theirs: &Map<String, Value>) -> Map<String, Value> {
    let shared = ours.iter().filter_map(|(name, value)| {
        let value = match theirs.get(name) {
            Some(other) => of_both(value, other)?,
            // A limit of one backend applies to everybody who sends to it.
            None if is_limit(name) => value.clone(),
            None => return None,
        };
        Some((name.clone(), value))
    });
    let their_limits =
        theirs.iter().filter(|(name, _)| is_limit(name) && !ours.contains_key(*name));
    shared.chain(their_limits.map(|(name, value)| (name.clone(), value.clone()))).collect()
}

fn is_limit(name: &str) -> bool {
    name.starts_with("max_")
}

/// What two values have in common; `None` if nothing.
fn of_both(ours: &Value, theirs: &Value) -> Option<Value> {
    match (ours, theirs) {
        (Value::Bool(ours), Value::Bool(theirs)) => Some(Value::Bool(*ours && *theirs)),
        (Value::Number(a), Value::Number(b)) => {
            let is_less = a.as_f64()? <= b.as_f64()?;
            Some(Value::Number(if is_less { a.clone() } else { b.clone() }))
        }
        (Value::Object(ours), Value::Object(theirs)) => Some(Value::Object(both(ours, theirs))),
        (Value::Array(ours), Value::Array(theirs)) => {
            Some(ours.iter().filter(|value| theirs.contains(value)).cloned().collect())
        }
        (ours, theirs) => (ours == theirs).then(|| ours.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(all: &[Value], expected: &Value) {
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        let told: Value = serde_json::from_str(&in_common(all.iter().map(String::as_str))).unwrap();
        assert_eq!(&told, expected, "{all:?}");
    }

    #[test]
    fn assets_can_be_left_out() {
        let off = |told| without_assets(told);
        let told = off(r#"{"assets": true, "max_upload_size": 9}"#).unwrap();
        assert_eq!(told, r#"{"assets":false,"max_upload_size":9}"#);
        for told in [r#"{"max_upload_size": 9}"#, r#"{"assets": false}"#, AT_LEAST] {
            assert_eq!(off(told), None, "{told}");
        }
    }

    #[test]
    fn a_page_is_told_what_all_backends_can() {
        let old = json!({ "supports_preview_metadata": true, "max_upload_size": 104_857_600 });
        let new = json!({
            "supports_preview_metadata": true, "max_upload_size": 52_428_800, "assets": true,
            "extension": { "manager": { "supports_v4": true, "supports_csrf_post": true } },
        });
        let manager = json!({
            "supports_preview_metadata": true, "max_upload_size": 200, "assets": false,
            "extension": { "manager": { "supports_v4": true } },
        });
        check(std::slice::from_ref(&new), &new);
        check(
            &[old.clone(), new.clone()],
            &json!({
                "supports_preview_metadata": true, "max_upload_size": 52_428_800,
            }),
        );
        check(
            &[new, manager],
            &json!({
                "supports_preview_metadata": true, "max_upload_size": 200, "assets": false,
                "extension": { "manager": { "supports_v4": true } },
            }),
        );
        check(
            &[json!({ "x": "a", "y": [1, 2], "z": 1 }), json!({ "x": "b", "y": [2], "z": "1" })],
            &json!({ "y": [2] }),
        );
        check(&[json!({}), json!({ "max_upload_size": 7 })], &json!({ "max_upload_size": 7 }));
        check(&[], &serde_json::from_str(AT_LEAST).unwrap());
        assert_eq!(in_common(["[]"]), "{}", "no object says nothing");
    }

    #[test]
    fn a_format_that_links_do_not_ask_for_is_never_offered() {
        check(
            &[json!({ "supports_progress_text_metadata": true, "assets": true })],
            &json!({ "assets": true }),
        );
    }
}
