//! Reads and writes the small bodies of routes that name prompts or clients.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A body that ComfyUI would answer with 500.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadBody {
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("`{0}` has the wrong type")]
    WrongType(&'static str),
}

/// `POST /queue` and `POST /history`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct QueueEdit {
    pub delete: Vec<String>,
    pub clear: bool,
}

impl QueueEdit {
    /// # Errors
    /// It is not an object, or `delete` is not a list.
    pub fn read(body: &[u8]) -> Result<Self, BadBody> {
        let object = object(body)?;
        let delete = match object.get("delete") {
            None | Some(Value::Null) => Vec::new(),
            Some(ids) => strings(ids).ok_or(BadBody::WrongType("delete"))?,
        };
        Ok(Self { delete, clear: object.get("clear").is_some_and(is_truthy) })
    }
}

/// `POST /interrupt`. An empty or broken body names no prompt (as in ComfyUI 0.8.0).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct InterruptBody {
    pub prompt_id: Option<String>,
}

impl InterruptBody {
    /// # Errors
    /// It is JSON but not an object: ComfyUI answers 500.
    pub fn read(body: &[u8]) -> Result<Self, BadBody> {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return Ok(Self::default()) };
        let object = value.as_object().ok_or(BadBody::NotAnObject)?;
        match object.get("prompt_id") {
            None | Some(Value::Null) => Ok(Self::default()),
            Some(Value::String(id)) if id.is_empty() => Ok(Self::default()),
            Some(Value::String(id)) => Ok(Self { prompt_id: Some(id.clone()) }),
            Some(_) => Err(BadBody::WrongType("prompt_id")),
        }
    }
}

/// `PATCH /internal/logs/subscribe`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogSubscription {
    #[serde(rename = "clientId")]
    pub client_id: String,
    pub enabled: bool,
}

impl LogSubscription {
    /// # Errors
    /// A key is missing or has another type.
    pub fn read(body: &[u8]) -> Result<Self, BadBody> {
        serde_json::from_slice(body).map_err(|_| BadBody::WrongType("clientId"))
    }

    /// The body for a backend.
    #[must_use]
    pub fn to_json(&self) -> String {
        json!(self).to_string()
    }
}

/// The body that deletes these prompts from a queue or a history.
#[must_use]
pub fn delete(ids: &[&str]) -> String {
    json!({ "delete": ids }).to_string()
}

/// The body that interrupts this prompt if it is running.
#[must_use]
pub fn interrupt(id: &str) -> String {
    json!({ "prompt_id": id }).to_string()
}

/// The body that cancels these prompts (0.26).
#[must_use]
pub fn cancel_several(ids: &[&str]) -> String {
    json!({ "job_ids": ids }).to_string()
}

/// Reads a server's answer to a cancel: whether a prompt was cancelled. `None` if the answer is not
/// from that route.
#[must_use]
pub fn was_cancelled(status: u16, body: &[u8]) -> Option<bool> {
    #[derive(Deserialize)]
    struct Cancelled {
        cancelled: bool,
    }
    let told = (status == 200).then(|| serde_json::from_slice::<Cancelled>(body).ok()).flatten();
    told.map(|told| told.cancelled)
}

/// The answer to a cancel.
#[must_use]
pub fn cancelled(is_any: bool) -> String {
    json!({ "cancelled": is_any }).to_string()
}

fn object(body: &[u8]) -> Result<serde_json::Map<String, Value>, BadBody> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) | Err(_) => Err(BadBody::NotAnObject),
    }
}

fn strings(value: &Value) -> Option<Vec<String>> {
    let ids = value.as_array()?;
    Some(ids.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// True if Python's `if` would take it as true.
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_without_a_readable_body_names_nobody() {
        for body in ["", "{", "{}", r#"{"prompt_id":null}"#, r#"{"prompt_id":""}"#] {
            assert_eq!(InterruptBody::read(body.as_bytes()), Ok(InterruptBody::default()));
        }
        assert_eq!(InterruptBody::read(b"null"), Err(BadBody::NotAnObject));
        let named = InterruptBody::read(br#"{"prompt_id":"p"}"#).unwrap();
        assert_eq!(named.prompt_id.as_deref(), Some("p"));
    }

    #[test]
    fn only_an_answer_of_the_route_says_what_was_cancelled() {
        assert_eq!(was_cancelled(200, cancelled(true).as_bytes()), Some(true));
        assert_eq!(was_cancelled(200, cancelled(false).as_bytes()), Some(false));
        assert_eq!(was_cancelled(404, cancelled(true).as_bytes()), None);
        assert_eq!(was_cancelled(200, b"404: Not Found"), None);
    }

    #[test]
    fn an_edit_reads_as_python_does() {
        let edit = QueueEdit::read(br#"{"delete":["a",7],"clear":1}"#).unwrap();
        assert_eq!(edit, QueueEdit { delete: vec!["a".into()], clear: true });
        assert_eq!(QueueEdit::read(br#"{"delete":"a"}"#), Err(BadBody::WrongType("delete")));
        assert_eq!(QueueEdit::read(b""), Err(BadBody::NotAnObject));
    }
}
