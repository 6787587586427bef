//! Graphs that ComfyUI takes and its worker dies of. Nothing catches what is raised before the
//! first node runs, so that the thread ends, the server answers on, and nothing ever runs again
//! (`execution.py`, `set_prompt`; `caching.py`; 0.3.64 to 0.33.0).

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::graph::{DEPTH_MAX, walk};

/// How deep a value may be nested: each level takes two frames.
const NESTED_MAX: usize = 485;

/// What the worker dies of, if it does. All nodes count, needed or not.
pub(super) fn reason(graph: &Map<String, Value>) -> Option<&'static str> {
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
    if graph.len() <= DEPTH_MAX {
        return None;
    }
    let is_too_deep = |id: &String| DEPTH_MAX < walk(graph, id, &mut HashSet::new()).depth;
    graph.keys().any(is_too_deep).then_some("RecursionError: a chain of nodes is too long")
}

/// How deep a value is nested; a plain one not at all.
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

    /// A chain of so many nodes that nothing else needs.
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
            assert!(reason(&graph).is_some_and(|reason| reason.starts_with(says)), "{says}");
        }
        assert_eq!(reason(&chain(DEPTH_MAX)), None);
        assert!(reason(&chain(DEPTH_MAX + 1)).is_some());
        assert_eq!(reason(&nested(NESTED_MAX)), None);
        assert!(reason(&nested(NESTED_MAX + 1)).is_some());
    }
}
