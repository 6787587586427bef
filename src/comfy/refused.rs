//! Why a submission was refused with 400: does this backend lack something that another may have?
//!
//! ComfyUI 0.8.0 `execution.py`, `validate_prompt` and `validate_inputs`; newer servers say
//! `missing_node_type` in place of `invalid_prompt`.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

/// What the backend lacks, as far as it says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lacks {
    /// Files that a node looked for, as they stand in the graph that was sent.
    pub files: Vec<String>,
    /// Values that are in no list of it: models, mostly, and files of nodes that list theirs.
    pub values: Vec<String>,
    /// A node class that it does not have.
    pub node: Option<String>,
}

impl Lacks {
    /// True if another backend may take what this one refused, though it has no file that this one
    /// has not.
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

/// Reads the answer. One that is wrong with the graph itself says of nothing that it is lacking:
/// it would be refused everywhere.
#[must_use]
pub fn read(body: &[u8]) -> Lacks {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else { return Lacks::default() };
    let mut lacks = Lacks { node: missing_node(&answer.error), ..Lacks::default() };
    for error in answer.node_errors.values().flat_map(|node| &node.errors) {
        let value = error.extra_info.get("received_value").and_then(Value::as_str);
        match (missing_file(error), value) {
            (Some(file), _) => lacks.files.push(file.to_owned()),
            (None, Some(value)) if error.r#type == "value_not_in_list" => {
                lacks.values.push(value.to_owned());
            }
            (None, _) => return Lacks::default(),
        }
    }
    lacks
}

fn missing_node(error: &Error) -> Option<String> {
    let class = error.message.strip_prefix("Cannot execute because node ");
    let class = class.and_then(|rest| rest.strip_suffix(" does not exist."));
    match error.r#type.as_str() {
        "missing_node_type" => Some(class.unwrap_or(&error.message).to_owned()),
        "invalid_prompt" => class.map(str::to_owned),
        _ => None,
    }
}

/// `image - Invalid image file: x.png` (`nodes.py`, `LoadImage.VALIDATE_INPUTS`, and its like for
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
