//! Retired node classes, which 0.33 replaces in a graph before it validates it. Its bug is
//! included: a replaced node without `_meta`, which only the web page writes, raises a `KeyError`
//! (`app/node_replace_manager.py`).

use serde_json::{Map, Value, json};

/// A retired class and its replacement.
struct Replacement {
    old: &'static str,
    new: &'static str,
    /// Inputs of the new node; if empty, it gets none.
    inputs: &'static [(&'static str, Source)],
}

enum Source {
    Old(&'static str),
    Fixed(&'static str),
}

/// A few of ComfyUI's replacements (`comfy_extras/nodes_replacements.py`).
const REPLACEMENTS: [Replacement; 3] = [
    Replacement {
        old: "ResizeImagesByLongerEdge",
        new: "ImageScaleToMaxDimension",
        inputs: &[
            ("image", Source::Old("images")),
            ("largest_size", Source::Old("longer_edge")),
            ("upscale_method", Source::Fixed("lanczos")),
        ],
    },
    Replacement {
        old: "T2IAdapterLoader",
        new: "ControlNetLoader",
        inputs: &[("control_net_name", Source::Old("t2i_adapter_name"))],
    },
    Replacement { old: "Preview3DAnimation", new: "Preview3D", inputs: &[] },
];

/// An uncaught Python error.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Raised;

/// Replaces retired classes; `known` are the existing classes.
pub(super) fn replace(
    graph: &mut Map<String, Value>,
    known: &Map<String, Value>,
) -> Result<(), Raised> {
    for node in graph.values_mut() {
        let node = match node {
            Value::Object(node) => node,
            // Python's `in` does not find `class_type` in them.
            Value::String(_) | Value::Array(_) => continue,
            Value::Null | Value::Bool(_) | Value::Number(_) => return Err(Raised),
        };
        let (Some(class), Some(inputs)) = (node.get("class_type"), node.get("inputs")) else {
            continue;
        };
        let inputs = inputs.as_object().ok_or(Raised)?;
        if class.is_array() || class.is_object() {
            return Err(Raised);
        }
        let class = class.as_str().unwrap_or_default();
        let found = REPLACEMENTS.iter().find(|it| it.old == class && known.contains_key(it.new));
        let Some(replacement) = found.filter(|_| !known.contains_key(class)) else { continue };
        if !node.get("_meta").is_some_and(Value::is_object) {
            return Err(Raised);
        }
        let mut replaced = Map::new();
        for (name, source) in replacement.inputs {
            let value = match source {
                Source::Old(old) => inputs.get(*old).cloned().ok_or(Raised)?,
                Source::Fixed(value) => json!(value),
            };
            replaced.insert((*name).to_owned(), value);
        }
        node.insert("class_type".to_owned(), json!(replacement.new));
        node.insert("inputs".to_owned(), Value::Object(replaced));
    }
    Ok(())
}

/// The answer of `/node_replacements`.
pub(super) fn listed() -> Value {
    let listed = REPLACEMENTS.iter().map(|it| {
        let mapping = it.inputs.iter().map(|(new, source)| match source {
            Source::Old(old) => json!({ "new_id": new, "old_id": old }),
            Source::Fixed(value) => json!({ "new_id": new, "set_value": value }),
        });
        let mapping: Vec<Value> = mapping.collect();
        let mapping = (!mapping.is_empty()).then_some(mapping);
        let replacement = json!({
            "new_node_id": it.new, "old_node_id": it.old, "old_widget_ids": null,
            "input_mapping": mapping, "output_mapping": null,
        });
        (it.old.to_owned(), json!([replacement]))
    });
    Value::Object(listed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(node: Value) -> Result<Value, Raised> {
        let known = Map::from_iter([
            ("ImageScaleToMaxDimension".to_owned(), json!({})),
            ("Preview3D".to_owned(), json!({})),
        ]);
        let mut graph = Map::from_iter([("1".to_owned(), node)]);
        replace(&mut graph, &known).map(|()| graph["1"].take())
    }

    #[test]
    fn a_retired_node_becomes_its_successor_if_it_has_meta() {
        let inputs = json!({ "images": ["2", 0], "longer_edge": 64 });
        let old = json!({
            "class_type": "ResizeImagesByLongerEdge", "inputs": inputs, "_meta": {},
        });
        let new = json!({ "image": ["2", 0], "largest_size": 64, "upscale_method": "lanczos" });
        let class = "ImageScaleToMaxDimension";
        assert_eq!(
            replaced(old.clone()),
            Ok(json!({ "class_type": class, "inputs": new, "_meta": {} }))
        );
        let mut without = old;
        without.as_object_mut().map(|node| node.shift_remove("_meta"));
        assert_eq!(replaced(without), Err(Raised));
        // Its replacement does not exist here, so the node is skipped.
        let skipped = json!({ "class_type": "T2IAdapterLoader", "inputs": {} });
        assert_eq!(replaced(skipped.clone()), Ok(skipped));
        let lost = json!({ "class_type": "Preview3DAnimation", "inputs": { "x": 1 }, "_meta": {} });
        assert_eq!(replaced(lost).map(|node| node["inputs"].clone()), Ok(json!({})));
    }

    #[test]
    fn what_is_no_node_raises_where_python_does() {
        assert_eq!(replaced(json!(1)), Err(Raised));
        assert_eq!(replaced(json!(null)), Err(Raised));
        assert_eq!(replaced(json!({ "class_type": "X", "inputs": null })), Err(Raised));
        assert_eq!(replaced(json!([])), Ok(json!([])));
        assert_eq!(replaced(json!({ "class_type": "X" })), Ok(json!({ "class_type": "X" })));
    }
}
