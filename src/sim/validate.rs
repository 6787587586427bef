//! Validates a graph like `validate_prompt` (`execution.py`), for the errors that the simulated
//! nodes can have.

use std::collections::{BTreeMap, HashMap, HashSet};

use http::Response;
use serde_json::{Map, Value, json};

use super::body::SimBody;
use super::graph::{DEPTH_MAX, walk};
use super::http::json_answer;
use super::lent::Lent;
use super::nodes;
use super::prompts::trouble;
use super::release::Release;
use super::state::Files;

/// A graph that may run: its outputs, and the errors of its other nodes.
pub(super) struct Valid {
    pub outputs: Vec<String>,
    pub node_errors: Value,
}

/// The facts that a graph is checked against.
pub(super) struct Rules<'a> {
    pub release: &'a Release,
    pub files: &'a Files,
    /// Classes that are missing.
    pub lacks: &'a [String],
    /// Classes that a test added.
    pub lent: &'a BTreeMap<String, Lent>,
    /// The only outputs that are requested (`partial_execution_targets`).
    pub targets: Option<&'a Value>,
}

impl<'a> Rules<'a> {
    fn node(&self, class: &str) -> Option<&'a Value> {
        let known = nodes::all(self.release).get(class);
        let known = known.or_else(|| self.lent.get(class).map(|lent| &lent.info));
        known.filter(|_| !self.lacks.iter().any(|lacked| lacked == class))
    }

    fn is_target(&self, id: &str) -> bool {
        let targets = self.targets.filter(|targets| !targets.is_null());
        targets.is_none_or(|targets| {
            targets.as_array().is_some_and(|targets| targets.iter().any(|target| target == id))
        })
    }
}

fn refusal(error: &Value, node_errors: &Value) -> Response<SimBody> {
    json_answer(400, &json!({ "error": error, "node_errors": node_errors }))
}

fn error(kind: &str, message: &str, details: &str, extra: &Value) -> Value {
    json!({ "type": kind, "message": message, "details": details, "extra_info": extra })
}

/// Validates a graph.
///
/// # Errors
/// Nothing of it may run: the answer.
#[expect(clippy::result_large_err, reason = "the error is the answer")]
pub(super) fn validate(
    graph: &Map<String, Value>,
    rules: &Rules<'_>,
) -> Result<Valid, Response<SimBody>> {
    let mut outputs = Vec::new();
    for (id, node) in graph {
        let info = class_of(id, node, rules)?;
        if info["output_node"] == true && rules.is_target(id) {
            outputs.push(id.clone());
        }
    }
    if outputs.is_empty() {
        let error = error("prompt_no_outputs", "Prompt has no outputs", "", &json!({}));
        return Err(refusal(&error, &json!({})));
    }
    let mut check = Check { graph, rules, results: HashMap::new(), node_errors: Map::new() };
    let mut good = Vec::new();
    let mut said = Vec::new();
    for output in outputs {
        match check.output(&output) {
            Ok(()) => good.push(output),
            Err(reasons) => said.extend(reasons),
        }
    }
    let node_errors = Value::Object(check.node_errors);
    if good.is_empty() {
        let kind = "prompt_outputs_failed_validation";
        let error = error(kind, "Prompt outputs failed validation", &said.join("\n"), &json!({}));
        return Err(refusal(&error, &node_errors));
    }
    Ok(Valid { outputs: good, node_errors })
}

/// The class of a node, or the refusal if it is unknown.
#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn class_of<'a>(id: &str, node: &Value, rules: &Rules<'a>) -> Result<&'a Value, Response<SimBody>> {
    let details = format!("Node ID '#{id}'");
    let is_new = rules.release.is_of_2026();
    let title = node["_meta"]["title"].as_str();
    let lacks_class = match node {
        Value::Object(node) => !node.contains_key("class_type"),
        Value::String(_) | Value::Array(_) if !is_new => true,
        // Python raises an error when it looks into it.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(trouble());
        }
    };
    if lacks_class && is_new {
        let name = title.map_or_else(|| format!("ID #{id}"), str::to_owned);
        let message = format!(
            "Node '{name}' has no class_type. The workflow may be corrupted or a custom node is \
             missing."
        );
        let extra = json!({ "node_id": id, "class_type": null, "node_title": title });
        return Err(refusal(&error("missing_node_type", &message, &details, &extra), &json!({})));
    }
    if lacks_class {
        let message = "Cannot execute because a node is missing the class_type property.";
        return Err(refusal(&error("invalid_prompt", message, &details, &json!({})), &json!({})));
    }
    let class = &node["class_type"];
    if class.is_array() || class.is_object() {
        return Err(trouble());
    }
    let name = class.as_str().map_or_else(|| class.to_string(), str::to_owned);
    rules.node(&name).ok_or_else(|| {
        let error = if is_new {
            let title = title.unwrap_or(&name);
            let message =
                format!("Node '{title}' not found. The custom node may not be installed.");
            let extra = json!({ "node_id": id, "class_type": class, "node_title": title });
            error("missing_node_type", &message, &details, &extra)
        } else {
            let message = format!("Cannot execute because node {name} does not exist.");
            error("invalid_prompt", &message, &details, &json!({}))
        };
        refusal(&error, &json!({}))
    })
}

/// The result for a node: its own errors, and whether it may run.
struct Found {
    errors: Vec<Value>,
    is_good: bool,
}

/// A graph that is being checked. Each node is checked once.
struct Check<'a> {
    graph: &'a Map<String, Value>,
    rules: &'a Rules<'a>,
    results: HashMap<String, Found>,
    node_errors: Map<String, Value>,
}

impl Check<'_> {
    /// Checks an output and all its dependencies. Fails with the errors of the output itself.
    fn output(&mut self, output: &str) -> Result<(), Vec<String>> {
        let graph = self.graph;
        let mut seen: HashSet<&str> = HashSet::new();
        let walk = walk(graph, output, &mut seen);
        if let Some(cycle) = &walk.cycle {
            self.cycle(cycle);
        }
        for (depth, id) in walk.order.iter().rev().enumerate() {
            // The deepest node of the walk is the one that Python's stack does not reach.
            if DEPTH_MAX < walk.depth && depth + 1 == DEPTH_MAX {
                self.raise(id, output, "RecursionError", "maximum recursion depth exceeded");
            }
        }
        for id in &walk.order {
            if !self.results.contains_key(*id) {
                self.node(id, output);
            }
        }
        let found = &self.results[output];
        if found.is_good {
            return Ok(());
        }
        let said = |error: &Value| {
            let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", text("message"), text("details"))
        };
        let said = found.errors.iter().map(said).collect();
        self.note(output);
        Err(said)
    }

    /// Adds the current output to every bad node so far.
    fn note(&mut self, output: &str) {
        for (id, found) in &self.results {
            if found.is_good || found.errors.is_empty() {
                continue;
            }
            let class = &self.graph[id]["class_type"];
            let entry = self.node_errors.entry(id.as_str()).or_insert_with(
                || json!({ "errors": found.errors, "dependent_outputs": [], "class_type": class }),
            );
            if let Some(outputs) = entry["dependent_outputs"].as_array_mut() {
                outputs.push(json!(output));
            }
        }
    }

    fn cycle(&mut self, cycle: &[&str]) {
        if !self.rules.release.is_of_2026() {
            let raised = cycle.first().copied().unwrap_or_default().to_owned();
            self.raise(&raised, "", "RecursionError", "maximum recursion depth exceeded");
            return;
        }
        let named = |id: &&str| {
            let class = self.graph[*id]["class_type"].as_str().unwrap_or_default();
            format!("{id} ({class})")
        };
        let details = cycle.iter().map(named).collect::<Vec<_>>().join(" -> ");
        let nodes = &cycle[..cycle.len().saturating_sub(1)];
        for id in nodes {
            let extra = json!({ "node_id": id, "cycle_nodes": nodes });
            let errors =
                vec![error("dependency_cycle", "Dependency cycle detected", &details, &extra)];
            self.results.insert((*id).to_owned(), Found { errors, is_good: false });
        }
    }

    /// Records an exception while a node was checked.
    fn raise(&mut self, id: &str, output: &str, kind: &str, says: &str) {
        let mut extra = json!({ "exception_type": kind, "traceback": [] });
        let (name, message) = if id == output {
            ("exception_during_validation", "Exception when validating node")
        } else {
            extra["exception_message"] = json!(says);
            ("exception_during_inner_validation", "Exception when validating inner node")
        };
        let errors = vec![error(name, message, says, &extra)];
        self.results.insert(id.to_owned(), Found { errors, is_good: false });
    }

    /// Checks one node after its dependencies.
    fn node(&mut self, id: &str, output: &str) {
        let graph = self.graph;
        let node = &graph[id];
        let class = node["class_type"].as_str().unwrap_or_default();
        let Some(inputs) = node["inputs"].as_object() else {
            return self.raise(id, output, "KeyError", "'inputs'");
        };
        let info = self.rules.node(class).unwrap_or(&Value::Null);
        let mut found = Found { errors: Vec::new(), is_good: true };
        for (name, kind) in info["input"]["required"].as_object().into_iter().flatten() {
            match inputs.get(name) {
                None => found.errors.push(error(
                    "required_input_missing",
                    "Required input is missing",
                    name,
                    &json!({ "input_name": name }),
                )),
                Some(Value::Array(link)) => match self.link(link, name, kind) {
                    Ok(is_good) => found.is_good &= is_good,
                    Err(Linked::Wrong(error)) => found.errors.push(error),
                    Err(Linked::Raised(kind, says)) => {
                        return self.raise(id, output, kind, &says);
                    }
                },
                Some(value) => found.errors.extend(self.value(class, name, kind, value)),
            }
        }
        found.is_good &= found.errors.is_empty();
        self.results.insert(id.to_owned(), found);
    }

    /// True if the linked node may run.
    fn link(&self, link: &[Value], name: &str, kind: &Value) -> Result<bool, Linked> {
        let [from, slot] = link else {
            let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
            let extra = json!({ "input_name": name, "input_config": kind, "received_value": link });
            return Err(Linked::Wrong(error("bad_linked_input", message, name, &extra)));
        };
        let node = from.as_str().and_then(|from| self.graph.get(from));
        let Some(node) = node else {
            return Err(Linked::Raised("KeyError", from.to_string().replace('"', "'")));
        };
        let class = node["class_type"].as_str().unwrap_or_default();
        let slots = self.rules.node(class).and_then(|info| info["output"].as_array());
        let slot = slot.as_u64().and_then(|slot| usize::try_from(slot).ok());
        let received = slots.and_then(|slots| slots.get(slot?)).and_then(Value::as_str);
        let Some(received) = received else {
            return Err(Linked::Raised("IndexError", "tuple index out of range".to_owned()));
        };
        let wanted = kind[0].as_str().unwrap_or("COMBO");
        if wanted != "*" && received != "*" && wanted != received {
            let details =
                format!("{name}, received_type({received}) mismatch input_type({wanted})");
            let extra = json!({
                "input_name": name, "input_config": kind, "received_type": received,
                "linked_node": link,
            });
            let message = "Return type mismatch between linked nodes";
            return Err(Linked::Wrong(error("return_type_mismatch", message, &details, &extra)));
        }
        let from = from.as_str().unwrap_or_default();
        Ok(self.results.get(from).is_some_and(|found| found.is_good))
    }

    fn value(&self, class: &str, name: &str, kind: &Value, value: &Value) -> Option<Value> {
        let named = || json!({ "input_name": name });
        let custom = |details: String| {
            let message = "Custom validation failed for node";
            Some(error("custom_validation_failed", message, &details, &named()))
        };
        match (class, name) {
            ("LoadImage", "image") => {
                let file = value.as_str().unwrap_or_default();
                match self.rules.files.annotated(file) {
                    Some(_) => None,
                    None => custom(format!("{name} - Invalid image file: {file}")),
                }
            }
            ("VHS_LoadImages", "directory") => {
                let folder = value.as_str().unwrap_or_default();
                let kind = super::state::FileKind::Input;
                if self.rules.files.in_folder(kind, folder).is_empty() {
                    return custom(format!("{name} - Directory is not valid: {folder}"));
                }
                None
            }
            // Of the nodes that are always there, only some check their lists here.
            (_, _) if self.rules.lent.contains_key(class) => not_listed(name, kind, value),
            (_, _) => out_of_range(name, kind, value),
        }
    }
}

fn not_listed(name: &str, kind: &Value, value: &Value) -> Option<Value> {
    let list = kind[0].as_array().filter(|list| !list.contains(value))?;
    let listed = Value::from(list.clone()).to_string().replace('"', "'");
    let details = format!("{name}: '{}' not in {listed}", value.as_str().unwrap_or_default());
    let extra = json!({ "input_name": name, "input_config": kind, "received_value": value });
    Some(error("value_not_in_list", "Value not in list", &details, &extra))
}

/// Why a link is invalid.
enum Linked {
    Wrong(Value),
    Raised(&'static str, String),
}

fn out_of_range(name: &str, kind: &Value, value: &Value) -> Option<Value> {
    let (number, max, min) = (value.as_f64()?, kind[1]["max"].as_f64(), kind[1]["min"].as_f64());
    let extra = json!({ "input_name": name, "input_config": kind, "received_value": value });
    if let Some(max) = max.filter(|max| *max < number) {
        let message = format!("Value {value} bigger than max of {max}");
        return Some(error("value_bigger_than_max", &message, name, &extra));
    }
    let min = min.filter(|min| number < *min)?;
    let message = format!("Value {value} smaller than min of {min}");
    Some(error("value_smaller_than_min", &message, name, &extra))
}
