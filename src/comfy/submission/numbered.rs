//! The number of a prompt, which orders it among others (ComfyUI 0.33, `server.py`, `post_prompt`).

use bytes::Bytes;

use super::object::{Object, push_entry};
use crate::comfy::reply::integer_or_float;

/// How a submission wants to be ordered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wish {
    /// By this number.
    Number(f64),
    /// Before all others.
    Front,
    /// After all others.
    Last,
}

/// What a body that was read says about its order. A number counts more than `front`.
#[must_use]
pub fn wish(body: &[u8]) -> Wish {
    let object: Object<'_> = serde_json::from_slice(body).unwrap_or_default();
    let number = object.get("number").and_then(|raw| raw.get().parse::<f64>().ok());
    if let Some(number) = number.filter(|number| number.is_finite()) {
        return Wish::Number(number);
    }
    // Python's truth.
    let front = object.get("front").map_or("false", serde_json::value::RawValue::get);
    let is_false = matches!(front, "false" | "null" | "\"\"" | "{}" | "[]")
        || front.parse::<f64>().is_ok_and(|number| number == 0.0);
    if is_false { Wish::Last } else { Wish::Front }
}

/// The body with this number, and without `front`: who counts has seen to that.
#[must_use]
pub fn numbered(body: &[u8], number: f64) -> Bytes {
    let object: Object<'_> = serde_json::from_slice(body).unwrap_or_default();
    let mut json = String::with_capacity(body.len() + 32);
    json.push('{');
    for (key, value) in object.entries().filter(|(key, _)| !matches!(*key, "number" | "front")) {
        push_entry(&mut json, key, value);
    }
    let number = integer_or_float(number).unwrap_or_else(|| 0.into());
    push_entry(&mut json, "number", &number.to_string());
    json.push('}');
    json.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_and_then_the_front() {
        assert_eq!(wish(br#"{"number": -2.5, "front": true}"#), Wish::Number(-2.5));
        for body in [r#"{"front": true}"#, r#"{"front": 1}"#, r#"{"front": "no"}"#] {
            assert_eq!(wish(body.as_bytes()), Wish::Front, "{body}");
        }
        for body in ["{}", r#"{"front": false}"#, r#"{"front": 0}"#, r#"{"front": null}"#] {
            assert_eq!(wish(body.as_bytes()), Wish::Last, "{body}");
        }
    }

    #[test]
    fn a_number_replaces_what_was_said_and_nothing_else_changes() {
        let body =
            br#"{"client_id": "c", "number": 3, "prompt": {"1":  {"x": "\ud800"}}, "front": true}"#;
        let expected = r#"{"client_id": "c", "prompt": {"1":  {"x": "\ud800"}}, "number": 7}"#;
        assert_eq!(numbered(body, 7.0), expected);
        assert_eq!(wish(&numbered(body, -1.5)), Wish::Number(-1.5));
    }
}
