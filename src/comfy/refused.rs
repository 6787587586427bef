//! Reads why a submission was refused with 400: whether this backend lacks something that another
//! may have.
//!
//! ComfyUI 0.8.0 `execution.py`, `validate_prompt` and `validate_inputs`; 0.33 says
//! `missing_node_type` instead of `invalid_prompt`, and names the class in `extra_info`.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

/// What the backend lacks, as far as it says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lacks {
    /// Files that a node did not find, as they are in the graph that was sent.
    pub files: Vec<String>,
    /// Values that are missing in a list of choices: mostly models, and files of nodes that list
    /// them.
    pub values: Vec<String>,
    /// A node class that it does not have.
    pub node: Option<String>,
}

impl Lacks {
    /// True if another backend may accept what this one refused, even with the same files.
    #[must_use]
    pub fn a_part(&self) -> bool {
        self.node.is_some() || !self.values.is_empty()
    }
}

#[derive(Deserialize)]
struct Answer {
    error: Error,
    #[serde(default)]
    node_errors: HashMap<String, NodeErrors>,
}

#[derive(Deserialize)]
struct NodeErrors {
    #[serde(default)]
    errors: Vec<Error>,
}

#[derive(Deserialize)]
struct Error {
    r#type: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: String,
    #[serde(default)]
    extra_info: Value,
}

/// Reads the answer. If the graph itself is wrong, nothing counts as lacking: every backend would
/// refuse it.
#[must_use]
pub fn read(body: &[u8]) -> Lacks {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return Lacks::default() };
    let mut lacks = Lacks { node: missing_node(&answer.error), ..Lacks::default() };
    for error in answer.node_errors.values().flat_map(|node| &node.errors) {
        let values = received(error);
        match missing_file(error) {
            Some(file) => lacks.files.push(file.to_owned()),
            None if error.r#type == "value_not_in_list" && !values.is_empty() => {
                lacks.values.extend(values);
            }
            None => return Lacks::default(),
        }
    }
    lacks
}

/// True if a ComfyUI has written this: it has checked the prompt. Proxies answer with a status 4xx
/// as well.
#[must_use]
pub fn is_verdict(body: &[u8]) -> bool {
    serde_json::from_slice::<Answer>(body).is_ok()
}

/// What the answer says, for people.
#[must_use]
pub fn message(body: &[u8]) -> String {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return "The server refused the job.".to_owned();
    };
    let of_nodes = answer.node_errors.values().flat_map(|node| &node.errors);
    let first = of_nodes.map(|error| format!(" {}: {}", error.message, error.details)).next();
    format!("{}{}", answer.error.message, first.unwrap_or_default())
}

/// The values that are in no list: one, or several for an input that takes several (0.33).
fn received(error: &Error) -> Vec<String> {
    match error.extra_info.get("received_value") {
        Some(Value::String(value)) => vec![value.clone()],
        Some(Value::Array(values)) => {
            values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {
            Vec::new()
        }
    }
}

/// Newer servers use `missing_node_type` also for a node without a class. `class_type` is null
/// then, and every backend would refuse the graph.
fn missing_node(error: &Error) -> Option<String> {
    let class = error.message.strip_prefix("Cannot execute because node ");
    let class = class.and_then(|rest| rest.strip_suffix(" does not exist.")).map(str::to_owned);
    match (error.r#type.as_str(), error.extra_info.get("class_type")) {
        ("missing_node_type", Some(Value::String(class))) => Some(class.clone()),
        ("missing_node_type", Some(_)) => None,
        ("missing_node_type" | "invalid_prompt", _) => class,
        (_, _) => None,
    }
}

/// `image - Invalid image file: x.png` (`nodes.py`, `LoadImage.VALIDATE_INPUTS`, and similar for
/// audio, video and latents).
fn missing_file(error: &Error) -> Option<&str> {
    if error.r#type != "custom_validation_failed" {
        return None;
    }
    let (_, rest) = error.details.split_once(" - Invalid ")?;
    rest.split_once(" file: ").map(|(_, file)| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: &str, message: &str, errors: &[Value]) -> Lacks {
        let error = serde_json::json!({ "type": kind, "message": message, "details": "" });
        let nodes = serde_json::json!({ "1": { "errors": errors, "class_type": "X" } });
        read(serde_json::json!({ "error": error, "node_errors": nodes }).to_string().as_bytes())
    }

    fn error(kind: &str, details: &str, received: &str) -> Value {
        let extra = serde_json::json!({ "received_value": received });
        serde_json::json!({ "type": kind, "message": "", "details": details, "extra_info": extra })
    }

    const FAILED: &str = "prompt_outputs_failed_validation";

    #[test]
    fn missing_files_models_and_nodes_are_told_apart() {
        let file = error("custom_validation_failed", "image - Invalid image file: a: b.png", "");
        let lacks = refused(FAILED, "", std::slice::from_ref(&file));
        assert_eq!((lacks.files.clone(), lacks.a_part()), (vec!["a: b.png".to_owned()], false));
        let model = error("value_not_in_list", "ckpt_name: 'x' not in []", "x.safetensors");
        let lacks = refused(FAILED, "", &[model, file]);
        assert_eq!((lacks.values.len(), lacks.files.len(), lacks.a_part()), (1, 1, true));
        let message = "Cannot execute because node Rare does not exist.";
        for kind in ["invalid_prompt", "missing_node_type"] {
            assert_eq!(refused(kind, message, &[]).node.as_deref(), Some("Rare"));
        }
    }

    /// ComfyUI 0.33.0.
    fn of_033(class: &Value) -> Lacks {
        let message = "Node 'Load it' not found. The custom node may not be installed.";
        let extra = serde_json::json!({ "node_id": "9", "class_type": class, "node_title": null });
        let error = serde_json::json!({
            "type": "missing_node_type", "message": message, "details": "", "extra_info": extra,
        });
        read(serde_json::json!({ "error": error, "node_errors": {} }).to_string().as_bytes())
    }

    #[test]
    fn a_node_without_a_class_is_wrong_everywhere_and_one_of_a_class_only_here() {
        assert_eq!(of_033(&"Rare".into()).node.as_deref(), Some("Rare"));
        assert_eq!(of_033(&Value::Null), Lacks::default());
        assert_eq!(of_033(&5.into()), Lacks::default());
    }

    #[test]
    fn several_values_of_one_input_may_be_elsewhere() {
        let mut several = error("value_not_in_list", "loras: 'x' not in []", "");
        several["extra_info"]["received_value"] = serde_json::json!(["x", "y", 1]);
        let lacks = refused(FAILED, "", std::slice::from_ref(&several));
        assert_eq!((lacks.values.clone(), lacks.a_part()), (vec!["x".into(), "y".into()], true));
        several["extra_info"]["received_value"] = serde_json::json!([1]);
        assert_eq!(refused(FAILED, "", &[several]), Lacks::default());
    }

    #[test]
    fn what_is_wrong_with_the_graph_is_wrong_everywhere() {
        let model = error("value_not_in_list", "", "x");
        let own = error("required_input_missing", "image", "");
        assert_eq!(refused(FAILED, "", &[model, own]), Lacks::default());
        assert_eq!(refused("invalid_prompt", "missing the class_type", &[]), Lacks::default());
        assert_eq!(refused("prompt_no_outputs", "", &[]), Lacks::default());
        assert_eq!(read(b"junk"), Lacks::default());
    }
}
