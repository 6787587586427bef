//! Builds Mooring's own answers in ComfyUI's format.

use serde_json::{Number, Value, json};

use crate::routing::ids::{AssetId, PromptId};

/// The answer to a refused submission.
#[must_use]
pub fn prompt_error(kind: &str, message: &str, details: &str) -> Vec<u8> {
    let error = json!({
        "type": kind, "message": message, "details": details, "extra_info": {},
    });
    json!({ "error": error, "node_errors": {} }).to_string().into_bytes()
}

/// Any other failure, in a form that all known clients can parse on every route.
#[must_use]
pub fn error(code: &str, message: &str) -> Vec<u8> {
    prompt_error(code, message, "")
}

/// A failure of the routes of assets (ComfyUI 0.33 `app/assets/api/routes.py`).
#[must_use]
pub fn asset_error(code: &str, message: &str, id: Option<AssetId>) -> Vec<u8> {
    let details = id.map_or_else(|| json!({}), |id| json!({ "id": id.to_string() }));
    let error = json!({ "code": code, "message": message, "details": details });
    json!({ "error": error }).to_string().into_bytes()
}

/// The answer to a submission that was found in the queue although its own answer was lost.
#[must_use]
pub fn queued(prompt: &PromptId, number: Option<f64>) -> Vec<u8> {
    let number = number.and_then(integer_or_float).unwrap_or(Value::from(0));
    json!({ "prompt_id": prompt.as_str(), "number": number, "node_errors": {} })
        .to_string()
        .into_bytes()
}

/// The same, with the errors at nodes that a backend has named.
#[must_use]
pub fn queued_with_errors(prompt: &PromptId, number: Option<f64>, errors: &Value) -> Vec<u8> {
    let number = number.and_then(integer_or_float).unwrap_or(Value::from(0));
    json!({ "prompt_id": prompt.as_str(), "number": number, "node_errors": errors })
        .to_string()
        .into_bytes()
}

/// ComfyUI's numbers are integers, unless a client sent another kind.
#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
pub(super) fn integer_or_float(number: f64) -> Option<Value> {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        return Some(Value::from(number as i64));
    }
    Number::from_f64(number).map(Value::Number)
}

/// The place and the times of a lost prompt, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct LostTimes {
    /// Its place among all submissions.
    pub order: u64,
    pub taken_ms: u64,
    pub lost_ms: u64,
}

/// The history of a lost prompt: an entry with the status error, so that a client that polls stops.
/// A page needs the time of submission. The time of the loss must not change between answers.
#[must_use]
pub fn history_lost(prompt: &PromptId, message: &str, lost: LostTimes) -> Vec<u8> {
    let id = prompt.as_str();
    let LostTimes { order, taken_ms, lost_ms } = lost;
    let told = json!({
        "prompt_id": id, "node_id": "", "node_type": "", "executed": [],
        "exception_message": message, "exception_type": "mooring.PromptLost",
        "traceback": [], "current_inputs": {}, "current_outputs": [], "timestamp": lost_ms,
    });
    let entry = json!({
        "prompt": [order, id, {}, { "create_time": taken_ms }, []],
        "outputs": {},
        "status": {
            "status_str": "error", "completed": false,
            "messages": [["execution_error", told]],
        },
        "meta": {},
    });
    json!({ id: entry }).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_found_prompt_is_answered_as_a_queued_one() {
        let prompt = PromptId::parse("p").unwrap();
        let body: Value = serde_json::from_slice(&queued(&prompt, Some(7.0))).unwrap();
        assert_eq!(body, json!({"prompt_id": "p", "number": 7, "node_errors": {}}));
    }
}
