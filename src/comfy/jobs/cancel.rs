//! The body of `POST /api/jobs/cancel`, and ComfyUI's own error texts for it. The answer to a good
//! body is [`crate::comfy::commands::cancelled`], as for a single job.

use std::fmt;

use serde_json::{Value, json};
use uuid::Uuid;

/// Errors that ComfyUI answers with 400.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadCancel {
    #[error("Request body must be valid JSON")]
    NotJson,
    #[error("job_ids must be a list")]
    NotAList,
    #[error("job_ids contains invalid id(s)")]
    Invalid(Vec<String>),
}

impl BadCancel {
    /// The body of the answer.
    #[must_use]
    pub fn body(&self) -> String {
        let error = self.to_string();
        match self {
            Self::NotJson | Self::NotAList => json!({ "error": error }),
            Self::Invalid(ids) => json!({ "error": error, "invalid_ids": ids }),
        }
        .to_string()
    }
}

/// The ids in a body. An id must be a UUID in its canonical form, or one that `is_known`: servers
/// before about 0.26 accept any text as an id, so a client may have chosen another form.
///
/// # Errors
/// ComfyUI would refuse the body.
pub fn read(body: &[u8], is_known: impl Fn(&str) -> bool) -> Result<Vec<String>, BadCancel> {
    let value: Value = serde_json::from_slice(body).map_err(|_| BadCancel::NotJson)?;
    let ids = value.get("job_ids").and_then(Value::as_array).ok_or(BadCancel::NotAList)?;
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for id in ids {
        match id {
            Value::String(id) if is_canonical(id) || is_known(id) => good.push(id.clone()),
            Value::String(id) => bad.push(id.clone()),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => bad.push(Python(id).to_string()),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(BadCancel::Invalid(bad)) }
}

/// Lowercase, with hyphens.
fn is_canonical(id: &str) -> bool {
    Uuid::try_parse(id).is_ok_and(|uuid| uuid.hyphenated().to_string() == id)
}

/// Displays a value as Python prints it.
pub(super) struct Python<'a>(pub(super) &'a Value);

impl fmt::Display for Python<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("None"),
            Value::Bool(true) => f.write_str("True"),
            Value::Bool(false) => f.write_str("False"),
            Value::Number(number) => write!(f, "{number}"),
            Value::String(text) => {
                write!(f, "'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
            }
            Value::Array(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{}", separator(index), Python(item))?;
                }
                f.write_str("]")
            }
            Value::Object(fields) => {
                f.write_str("{")?;
                for (index, (key, value)) in fields.iter().enumerate() {
                    let key = Value::from(key.as_str());
                    write!(f, "{}{}: {}", separator(index), Python(&key), Python(value))?;
                }
                f.write_str("}")
            }
        }
    }
}

fn separator(index: usize) -> &'static str {
    if index == 0 { "" } else { ", " }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::comfy::raw::tests::any_json;

    const UUID: &str = "0650166d-f2e3-46ea-ad5a-f5815aa75d3e";

    #[track_caller]
    fn refused(body: &str, expected: &Value) {
        let answer = read(body.as_bytes(), |_| false).unwrap_err().body();
        assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), *expected, "{body}");
    }

    #[test]
    fn canonical_and_known_ids_are_taken() {
        let body = json!({ "job_ids": [UUID, "my job"] }).to_string();
        let ids = read(body.as_bytes(), |id| id == "my job");
        assert_eq!(ids, Ok(vec![UUID.to_owned(), "my job".to_owned()]));
        assert_eq!(read(br#"{"job_ids": []}"#, |_| false), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_said_in_comfyuis_words() {
        refused("", &json!({ "error": "Request body must be valid JSON" }));
        refused("[]", &json!({ "error": "job_ids must be a list" }));
        refused(r#"{"job_ids": "x"}"#, &json!({ "error": "job_ids must be a list" }));
        let upper = UUID.to_uppercase();
        let body = json!({ "job_ids": [UUID, upper, 7, null, true, { "a'": ["x", 1.5] }] });
        let invalid = [&*upper, "7", "None", "True", r"{'a\'': ['x', 1.5]}"];
        refused(
            &body.to_string(),
            &json!({ "error": "job_ids contains invalid id(s)", "invalid_ids": invalid }),
        );
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_json_break_it(body in vec(any::<u8>(), 0..100), json in any_json()) {
            let framed = json!({ "job_ids": [json] }).to_string();
            for bytes in [&body[..], json.to_string().as_bytes(), framed.as_bytes()] {
                let _any_answer = read(bytes, |_| false).map_err(|bad| bad.body());
            }
        }
    }
}
