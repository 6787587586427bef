//! Graphs that ComfyUI accepts and that kill its worker. Errors before the first node runs are not
//! caught, so the thread ends, the server goes on answering, and no prompt ever runs again
//! (`execution.py`, `set_prompt`; `caching.py`; 0.3.64 to 0.33.0).

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::graph::{DEPTH_MAX, linked, walk};

/// The deepest nesting of a value: each level takes two stack frames.
const NESTED_MAX: usize = 485;

/// Why the worker would die of this graph; `None` if it would not. All nodes count, needed or not.
pub(super) fn reason(
    graph: &Map<String, Value>,
    outputs: &[String],
    classes: &Map<String, Value>,
) -> Option<&'static str> {
    for node in graph.values() {
        match node.get("inputs") {
            Some(Value::Object(inputs)) => {
                if inputs.values().any(|value| NESTED_MAX < depth_of(value)) {
                    return Some("RecursionError: a value is nested too deep");
                }
            }
            None => return Some("KeyError: 'inputs'"),
            Some(
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_),
            ) => return Some("AttributeError: inputs have no keys"),
        }
    }
    let is_too_deep = |id: &String| DEPTH_MAX < walk(graph, id, &mut HashSet::new()).depth;
    if DEPTH_MAX < graph.len() && graph.keys().any(is_too_deep) {
        return Some("RecursionError: a chain of nodes is too long");
    }
    followed(graph, outputs, classes)
}

/// `graph.py`, `add_node`, follows each link of the nodes that an output needs. That includes
/// inputs that the class does not have and that were not validated. A slot that is not an integer,
/// or that the other node does not have, raises an error if that node's result is cached; here it
/// always does.
fn followed(
    graph: &Map<String, Value>,
    outputs: &[String],
    classes: &Map<String, Value>,
) -> Option<&'static str> {
    let mut seen = HashSet::new();
    let mut next: Vec<&str> = outputs.iter().map(String::as_str).collect();
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        let Some(node) = graph.get(id) else { return Some("NodeNotFoundError") };
        for value in node["inputs"].as_object().into_iter().flat_map(Map::values) {
            // The validation has unwrapped it.
            let value = value.get("__value__").unwrap_or(value);
            let Some(source) = linked(value) else { continue };
            if value[1].is_f64() {
                return Some("TypeError: list indices must be integers");
            }
            let class = graph.get(source).and_then(|node| node["class_type"].as_str());
            let given = class.and_then(|class| classes.get(class)?["output"].as_array());
            let slot = value[1].as_i64().or_else(|| value[1].as_bool().map(i64::from));
            let count = given.map(|given| i64::try_from(given.len()).unwrap_or(i64::MAX));
            if count.is_some_and(|count| !slot.is_some_and(|it| (-count..count).contains(&it))) {
                return Some("IndexError: list index out of range");
            }
            next.push(source);
        }
    }
    None
}

/// The nesting of a value; 0 for a plain one.
fn depth_of(value: &Value) -> usize {
    let mut deepest = 0;
    let mut waiting = vec![(value, 0)];
    while let Some((value, depth)) = waiting.pop() {
        deepest = deepest.max(depth);
        match value {
            Value::Array(items) => waiting.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => {
                waiting.extend(fields.values().map(|item| (item, depth + 1)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A chain of nodes that nothing else needs.
    fn chain(length: usize) -> Map<String, Value> {
        let node = |at: usize| match at.checked_sub(1) {
            None => json!({ "class_type": "EmptyImage", "inputs": {} }),
            Some(from) => {
                json!({ "class_type": "ImageInvert", "inputs": { "image": [from.to_string(), 0] } })
            }
        };
        (0..length).map(|at| (at.to_string(), node(at))).collect()
    }

    fn nested(depth: usize) -> Map<String, Value> {
        let value = (0..depth).fold(json!(1), |value, _| json!([value]));
        Map::from_iter([("1".to_owned(), json!({ "inputs": { "x": value } }))])
    }

    #[test]
    fn the_worker_dies_of_nodes_without_inputs_of_long_chains_and_of_deep_values() {
        for (inputs, says) in [
            (json!({ "class_type": "EmptyImage" }), "KeyError"),
            (json!({ "inputs": null }), "AttributeError"),
            (json!({ "inputs": [1] }), "AttributeError"),
        ] {
            let graph = Map::from_iter([("9".to_owned(), inputs)]);
            assert!(
                reason(&graph, &[], &Map::new()).is_some_and(|reason| reason.starts_with(says)),
                "{says}"
            );
        }
        assert_eq!(reason(&chain(DEPTH_MAX), &[], &Map::new()), None);
        assert!(reason(&chain(DEPTH_MAX + 1), &[], &Map::new()).is_some());
        assert_eq!(reason(&nested(NESTED_MAX), &[], &Map::new()), None);
        assert!(reason(&nested(NESTED_MAX + 1), &[], &Map::new()).is_some());
    }

    #[test]
    fn the_worker_dies_of_a_link_that_nobody_has_checked() {
        let graph = |input: Value| {
            let node = json!({ "class_type": "SaveImage", "inputs": { "unknown": input } });
            let other = json!({ "class_type": "EmptyImage", "inputs": {} });
            Map::from_iter([("1".to_owned(), other), ("3".to_owned(), node)])
        };
        let outputs = ["3".to_owned()];
        let classes = Map::from_iter([("EmptyImage".to_owned(), json!({ "output": ["IMAGE"] }))]);
        let dies = |input: Value| reason(&graph(input), &outputs, &classes).is_some();
        assert!(!dies(json!(["1", 0])) && !dies(json!(["99", null])) && !dies(json!("99")));
        assert!(dies(json!(["99", 0])) && dies(json!({ "__value__": ["99", 0] })));
        assert!(dies(json!(["1", 0.5])) && dies(json!(["1", 1])) && dies(json!(["1", -2])));
        assert!(!dies(json!(["1", -1])) && !dies(json!(["1", false])));
        let unneeded = reason(&graph(json!(["99", 0])), &[], &classes);
        assert_eq!(unneeded, None, "no output needs it");
    }
}
