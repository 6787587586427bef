//! The few nodes that it knows: what they take, and what is wrong with a graph of them.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::state::{FileKind, Files};

static NODES: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("nodes.json")).unwrap_or_default());

/// The answer of `/object_info`, of all nodes or of one. Lists of inputs are this backend's.
pub(super) fn object_info(class: Option<&str>, files: &Files) -> Value {
    let known = |(name, info): (&String, &Value)| {
        let mut info = info.clone();
        if name == "LoadImage" {
            info["input"]["required"]["image"][0] = json!(files.names(FileKind::Input));
        }
        (name.clone(), info)
    };
    let wanted = NODES.iter().filter(|(name, _)| class.is_none_or(|class| class == *name));
    Value::Object(wanted.map(known).collect())
}

/// Why a graph is refused: the body of the 400.
pub(super) struct Invalid(pub Value);

fn invalid(kind: &str, message: &str, details: &str, node_errors: &Value) -> Invalid {
    let error = json!({
        "type": kind, "message": message, "details": details, "extra_info": {},
    });
    Invalid(json!({ "error": error, "node_errors": node_errors }))
}

/// A graph that may run: which nodes give outputs, and what is wrong with the others.
pub(super) struct Valid {
    pub outputs: Vec<String>,
    pub node_errors: Value,
}

/// Checks a graph as ComfyUI 0.8.0 does, as far as these nodes can be wrong.
pub(super) fn validate(
    graph: &Map<String, Value>,
    files: &Files,
    lacks: &[String],
) -> Result<Valid, Invalid> {
    let mut outputs = Vec::new();
    for (id, node) in graph {
        let Some(class) = node.get("class_type").and_then(Value::as_str) else {
            let message = "Cannot execute because a node is missing the class_type property.";
            return Err(invalid(
                "invalid_prompt",
                message,
                &format!("Node ID '#{id}'"),
                &json!({}),
            ));
        };
        let info = NODES.get(class).filter(|_| !lacks.iter().any(|lacked| lacked == class));
        let Some(info) = info else {
            let message = format!("Cannot execute because node {class} does not exist.");
            let details = format!("Node ID '#{id}'");
            return Err(invalid("invalid_prompt", &message, &details, &json!({})));
        };
        if info["output_node"] == true {
            outputs.push(id.clone());
        }
    }
    if outputs.is_empty() {
        return Err(invalid("prompt_no_outputs", "Prompt has no outputs", "", &json!({})));
    }
    let mut errors = Map::new();
    let is_good = |output: &String, errors: &mut Map<String, Value>| {
        check_tree(graph, output, output, files, errors)
    };
    let good: Vec<String> =
        outputs.iter().filter(|output| is_good(output, &mut errors)).cloned().collect();
    if good.is_empty() {
        let kind = "prompt_outputs_failed_validation";
        return Err(invalid(kind, "Prompt outputs failed validation", "", &Value::Object(errors)));
    }
    Ok(Valid { outputs: good, node_errors: Value::Object(errors) })
}

/// Checks a node and all that it depends on, for one output.
fn check_tree(
    graph: &Map<String, Value>,
    id: &str,
    output: &str,
    files: &Files,
    errors: &mut Map<String, Value>,
) -> bool {
    let Some(node) = graph.get(id) else { return false };
    let class = node["class_type"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    let mut is_good = true;
    for (name, kind) in NODES[class]["input"]["required"].as_object().into_iter().flatten() {
        match node["inputs"].get(name) {
            None => found.push(error(
                "required_input_missing",
                "Required input is missing",
                name,
                json!({ "input_name": name }),
            )),
            Some(Value::Array(link)) => {
                let from = link.first().and_then(Value::as_str).unwrap_or_default();
                is_good &= check_tree(graph, from, output, files, errors);
            }
            Some(value) => found.extend(check_value(class, name, kind, value, files)),
        }
    }
    if !found.is_empty() {
        let entry = errors.entry(id).or_insert_with(
            || json!({ "errors": found, "dependent_outputs": [], "class_type": class }),
        );
        if let Some(outputs) = entry["dependent_outputs"].as_array_mut() {
            outputs.push(json!(output));
        }
        is_good = false;
    }
    is_good
}

fn check_value(
    class: &str,
    name: &str,
    kind: &Value,
    value: &Value,
    files: &Files,
) -> Option<Value> {
    if class == "LoadImage" && name == "image" {
        let file = value.as_str().unwrap_or_default();
        return files.annotated(file).is_none().then(|| {
            error(
                "custom_validation_failed",
                "Custom validation failed for node",
                &format!("{name} - Invalid image file: {file}"),
                json!({ "input_name": name }),
            )
        });
    }
    let (number, max, min) = (value.as_f64()?, kind[1]["max"].as_f64(), kind[1]["min"].as_f64());
    let extra = || json!({ "input_name": name, "input_config": kind, "received_value": value });
    if let Some(max) = max.filter(|max| *max < number) {
        let message = format!("Value {value} bigger than max of {max}");
        return Some(error("value_bigger_than_max", &message, name, extra()));
    }
    let min = min.filter(|min| number < *min)?;
    let message = format!("Value {value} smaller than min of {min}");
    Some(error("value_smaller_than_min", &message, name, extra()))
}

#[expect(clippy::needless_pass_by_value, reason = "made where it is passed")]
fn error(kind: &str, message: &str, details: &str, extra: Value) -> Value {
    json!({ "type": kind, "message": message, "details": details, "extra_info": extra })
}

/// The order in which nodes run, and what identifies each one's result: its class, its inputs,
/// and what they depend on.
pub(super) fn plan(graph: &Map<String, Value>, outputs: &[String], files: &Files) -> Plan {
    let mut plan = Plan::default();
    for output in outputs {
        visit(graph, output, files, &mut plan);
    }
    plan
}

/// Nodes in the order in which they run, with their signatures.
#[derive(Default)]
pub(super) struct Plan {
    pub order: Vec<String>,
    pub signatures: BTreeMap<String, String>,
}

fn visit(graph: &Map<String, Value>, id: &str, files: &Files, plan: &mut Plan) -> String {
    if let Some(known) = plan.signatures.get(id) {
        return known.clone();
    }
    let Some(node) = graph.get(id) else { return String::new() };
    let class = node["class_type"].as_str().unwrap_or_default();
    let mut signature = format!("{class}(");
    for (name, value) in node["inputs"].as_object().into_iter().flatten() {
        let part = match value {
            Value::Array(link) => {
                let from = link.first().and_then(Value::as_str).unwrap_or_default();
                visit(graph, from, files, plan)
            }
            Value::String(file) if class == "LoadImage" => {
                // Other bytes under the same name are another picture.
                let version = files.annotated(file).map_or(0, |found| found.version);
                format!("{file}@{version}")
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => value.to_string(),
        };
        signature.push_str(&format!("{name}={part},"));
    }
    if class == "SlowSteps" {
        // It says of itself that it always changes, as the recorded one did.
        signature.push_str(&format!("{:x}", rand::random::<u64>()));
    }
    signature.push(')');
    plan.order.push(id.to_owned());
    plan.signatures.insert(id.to_owned(), signature.clone());
    signature
}
