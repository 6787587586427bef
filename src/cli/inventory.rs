//! The nodes and models of ComfyUI servers, and how they differ.
//!
//! Pure. Models are read from the choices of the nodes (`object_info`), because the server checks a
//! prompt against these and not against the disk.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// File name endings of models, as opposed to input pictures.
const MODEL_ENDINGS: &[&str] =
    &["bin", "ckpt", "gguf", "onnx", "pkl", "pt", "pt2", "pth", "safetensors", "sft"];

/// The maximum of names in one line of a report. The others are counted.
const NAMES_MAX: usize = 20;

/// What one server has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Inventory {
    pub(super) nodes: BTreeSet<String>,
    pub(super) models: BTreeSet<String>,
}

impl Inventory {
    /// Reads the answer of `GET /object_info`. `None` if it has another form.
    pub(super) fn read(object_info: &Value) -> Option<Self> {
        let mut inventory = Self::default();
        for (class, node) in object_info.as_object()? {
            inventory.nodes.insert(class.clone());
            let inputs = ["required", "optional"].into_iter().filter_map(|kind| {
                node.get("input").and_then(|input| input.get(kind)).and_then(Value::as_object)
            });
            for choice in inputs.flat_map(|inputs| inputs.values()).flat_map(choices) {
                if is_model(choice) {
                    inventory.models.insert(choice.to_owned());
                }
            }
        }
        Some(inventory)
    }
}

/// The choices of an input: `[["a", "b"], …]`, or `["COMBO", {"options": ["a", "b"]}]`.
fn choices(input: &Value) -> impl Iterator<Item = &str> {
    let old = input.get(0).and_then(Value::as_array);
    let new = || input.get(1)?.get("options")?.as_array();
    old.or_else(new).into_iter().flatten().filter_map(Value::as_str)
}

fn is_model(file: &str) -> bool {
    let ending = file.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| MODEL_ENDINGS.contains(&ending.as_str()))
}

/// What some of the servers have and others lack. There is one line for each group of servers that
/// lack something. Empty if all are equal.
pub(super) fn differences(servers: &[(&str, &Inventory)]) -> Vec<String> {
    let mut lines = lacking("node", servers, |it| &it.nodes);
    lines.extend(lacking("model", servers, |it| &it.models));
    lines
}

fn lacking(
    what: &str,
    servers: &[(&str, &Inventory)],
    of: impl Fn(&Inventory) -> &BTreeSet<String>,
) -> Vec<String> {
    let all: BTreeSet<&String> = servers.iter().flat_map(|(_, inventory)| of(inventory)).collect();
    let mut groups: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
    for item in all {
        let without = servers.iter().filter(|(_, inventory)| !of(inventory).contains(item));
        let names: Vec<&str> = without.map(|(name, _)| *name).collect();
        if !names.is_empty() {
            groups.entry(names).or_default().push(item);
        }
    }
    let line = |(names, items): (Vec<&str>, Vec<&str>)| {
        let plural = if items.len() == 1 { "" } else { "s" };
        let shown = items.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = match items.len().saturating_sub(NAMES_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("missing on {}: {} {what}{plural}: {shown}{more}", names.join(", "), items.len())
    };
    groups.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inventory(nodes: &[&str], models: &[&str]) -> Inventory {
        let set = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        Inventory { nodes: set(nodes), models: set(models) }
    }

    #[test]
    fn nodes_and_models_are_read_from_object_info_old_and_new() {
        let object_info = json!({
            "CheckpointLoaderSimple": {"input": {"required": {
                "ckpt_name": [["sdxl.safetensors", "old/V1.CKPT"], {"tooltip": "x"}]
            }}},
            "LoraLoader": {"input": {"optional": {
                "lora_name": ["COMBO", {"options": ["detail.safetensors", "None"]}]
            }}},
            "LoadImage": {"input": {"required": {"image": [["cat.png"], {}]}}},
            "KSampler": {"input": {"required": {"seed": ["INT", {"min": 0}]}}},
            "Broken": null,
        });
        assert_eq!(
            Inventory::read(&object_info),
            Some(inventory(
                &["Broken", "CheckpointLoaderSimple", "KSampler", "LoadImage", "LoraLoader"],
                &["detail.safetensors", "old/V1.CKPT", "sdxl.safetensors"],
            ))
        );
        assert_eq!(Inventory::read(&json!([])), None);
    }

    #[test]
    fn differences_are_grouped_by_who_lacks_them() {
        let a = inventory(&["KSampler", "Extra", "More"], &["sdxl.safetensors"]);
        let b = inventory(&["KSampler"], &["sdxl.safetensors", "flux.gguf"]);
        let c = inventory(&["KSampler", "More"], &["sdxl.safetensors"]);
        assert_eq!(
            differences(&[("a", &a), ("b", &b), ("c", &c)]),
            [
                "missing on b: 1 node: More",
                "missing on b, c: 1 node: Extra",
                "missing on a, c: 1 model: flux.gguf",
            ]
        );
        assert!(differences(&[("a", &a), ("a2", &a)]).is_empty());
        assert!(differences(&[("a", &a)]).is_empty());
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let names: Vec<String> = (10..35).map(|number| format!("N{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let lines = differences(&[("a", &inventory(&names, &[])), ("b", &inventory(&[], &[]))]);
        assert!(lines[0].starts_with("missing on b: 25 nodes: N10, N11"), "{lines:?}");
        assert!(lines[0].ends_with("N29 and 5 more"), "{lines:?}");
    }
}
