//! Corrects the members of a job that pages check.
//!
//! A page reads the whole list with one schema (frontends 1.49.6 and 1.58.1). If a single member of
//! a single job has another type, it shows no job at all. So values that are not numbers are left
//! out where a number is optional, and required members that cannot be read are written empty.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::comfy::raw::{Object, Writer, list, number, object, quoted, text};

/// The members of a job that must be numbers.
const NUMBERS: [&str; 7] = [
    "priority",
    "create_time",
    "update_time",
    "execution_start_time",
    "execution_end_time",
    "outputs_count",
    "previewable_outputs_count",
];

/// The folders that a page knows.
const TYPES: [&str; 3] = ["input", "output", "temp"];

/// A member of a job in the form that pages accept; `None` if it must be left out.
pub(super) fn member<'a>(key: &str, value: &'a RawValue) -> Option<Cow<'a, str>> {
    match key {
        "workflow_id" => text(value).map(|_| value.get().into()),
        "preview_output" => object(value).map(|fields| preview(&fields).into()),
        "execution_error" => object(value).map(|fields| error(&fields).into()),
        key if NUMBERS.contains(&key) => is_number(value).then(|| value.get().into()),
        _ => Some(value.get().into()),
    }
}

/// True for a number.
pub(super) fn is_number(value: &RawValue) -> bool {
    number(value).is_some_and(f64::is_finite)
}

/// The preview output of a job. `nodeId` and `mediaType` are always there.
fn preview(fields: &Object<'_>) -> String {
    let mut preview = Writer::new();
    for (key, value) in fields.iter().filter(|(key, value)| is_of_file(key, value)) {
        preview.raw(key, value.get());
    }
    for key in ["nodeId", "mediaType"].into_iter().filter(|key| fields.text(key).is_none()) {
        preview.text(key, "");
    }
    preview.finish()
}

/// True if a member of an output has the type that pages require.
pub(super) fn is_of_file(key: &str, value: &RawValue) -> bool {
    match key {
        "filename" | "subfolder" | "display_name" | "content" | "nodeId" | "mediaType" => {
            text(value).is_some()
        }
        "type" => text(value).is_some_and(|kind| TYPES.contains(&&*kind)),
        _ => true,
    }
}

/// Why a prompt failed.
pub(super) fn error(fields: &Object<'_>) -> String {
    const TEXTS: [&str; 4] = ["node_id", "node_type", "exception_message", "exception_type"];
    let mut error = Writer::new();
    for (key, value) in fields.iter() {
        let is_kept = match key {
            "prompt_id" => text(value).is_some(),
            "timestamp" => is_number(value),
            "executed" | "traceback" => is_texts(value),
            key if TEXTS.contains(&key) => text(value).is_some(),
            _ => true,
        };
        if is_kept {
            error.raw(key, value.get());
        }
    }
    for key in TEXTS.into_iter().filter(|key| fields.text(key).is_none()) {
        // A number is used as it is: in forks, nodes have numbers as ids.
        let told = fields.get(key).filter(|value| is_number(value)).map_or("", RawValue::get);
        error.raw(key, &quoted(told));
    }
    if !fields.get("traceback").is_some_and(is_texts) {
        error.raw("traceback", "[]");
    }
    error.finish()
}

fn is_texts(value: &RawValue) -> bool {
    list(value).is_some_and(|items| items.into_iter().all(|item| text(item).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(key: &str, value: &Value, expected: Option<&Value>) {
        let raw = serde_json::value::to_raw_value(value).unwrap();
        let told = member(key, &raw).map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(told.as_ref(), expected, "{key}: {value}");
    }

    #[test]
    fn a_number_is_a_number_and_an_id_a_text_or_it_is_left_out() {
        for key in NUMBERS {
            check(key, &json!(7.5), Some(&json!(7.5)));
            for wrong in [json!("today"), json!(null), json!([1]), json!(true)] {
                check(key, &wrong, None);
            }
        }
        check("workflow_id", &json!("w"), Some(&json!("w")));
        check("workflow_id", &json!(9), None);
        check("of a pack", &json!([1]), Some(&json!([1])));
    }

    #[test]
    fn a_preview_has_only_what_a_page_can_read() {
        let odd = json!({ "filename": null, "subfolder": 3, "type": "annotated", "format": 1 });
        let told = json!({ "format": 1, "nodeId": "", "mediaType": "" });
        check("preview_output", &odd, Some(&told));
        let good = json!({ "filename": "a", "type": "temp", "nodeId": "1", "mediaType": "images" });
        check("preview_output", &good, Some(&good));
        check("preview_output", &json!("a.png"), None);
    }

    #[test]
    fn an_error_has_all_that_a_page_wants() {
        let odd = json!({ "node_id": 4, "traceback": "x", "timestamp": "now", "executed": [1] });
        let told = json!({
            "node_id": "4", "node_type": "", "exception_message": "", "exception_type": "",
            "traceback": [],
        });
        check("execution_error", &odd, Some(&told));
        let good = json!({
            "prompt_id": "p", "timestamp": 1, "executed": ["1"], "traceback": ["x"],
            "node_id": "2", "node_type": "t", "exception_message": "m", "exception_type": "e",
            "current_inputs": {}, "current_outputs": [],
        });
        check("execution_error", &good, Some(&good));
        check("execution_error", &json!([]), None);
    }
}
