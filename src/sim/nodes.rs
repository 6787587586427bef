//! The node classes that the simulator knows, and the order in which the nodes of a graph run.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::graph::{linked, walk};
use super::release::Release;
use super::state::{FileKind, Files};

/// The classes of 0.8.0.
static OF_0_8: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("nodes.json")).unwrap_or_default());

/// The classes of 0.33.0: those of 0.8.0 with changes and additions.
static OF_0_33: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let changes: Map<String, Value> =
        serde_json::from_str(include_str!("nodes-0.33.json")).unwrap_or_default();
    let mut nodes = OF_0_8.clone();
    for (name, changed) in changes {
        let node = nodes.entry(name).or_insert_with(|| json!({}));
        for (field, value) in changed.as_object().into_iter().flatten() {
            node[field] = value.clone();
        }
    }
    for node in nodes.values_mut() {
        node["is_input_list"] = json!(false);
        node["has_intermediate_output"] = json!(false);
        if node.get("search_aliases").is_none() {
            node["search_aliases"] = json!([]);
        }
    }
    nodes
});

/// The classes of a version.
pub(super) fn all(release: &Release) -> &'static Map<String, Value> {
    if release.is_of_2026() { &OF_0_33 } else { &OF_0_8 }
}

/// The answer of `/object_info`, for all classes or one. Lists of inputs are those of this backend.
pub(super) fn object_info(release: &Release, class: Option<&str>, files: &Files) -> Value {
    let known = |(name, info): (&String, &Value)| {
        let mut info = info.clone();
        match name.as_str() {
            "LoadImage" => {
                info["input"]["required"]["image"][0] = json!(files.names(FileKind::Input));
            }
            "VHS_LoadImages" => {
                info["input"]["required"]["directory"][0] = json!(files.folders(FileKind::Input));
            }
            _ => {}
        }
        (name.clone(), info)
    };
    let wanted = all(release).iter().filter(|(name, _)| class.is_none_or(|class| class == *name));
    Value::Object(wanted.map(known).collect())
}

/// Nodes in the order in which they run. Each has a signature of its result: its class, its inputs,
/// and its dependencies.
#[derive(Default)]
pub(super) struct Plan {
    pub order: Vec<String>,
    pub signatures: BTreeMap<String, String>,
}

pub(super) fn plan(graph: &Map<String, Value>, outputs: &[String], files: &Files) -> Plan {
    let mut plan = Plan::default();
    let mut seen = HashSet::new();
    for output in outputs {
        for id in walk(graph, output, &mut seen).order {
            let signature = signature(graph, id, files, &plan);
            plan.signatures.insert(id.to_owned(), signature);
            plan.order.push(id.to_owned());
        }
    }
    plan
}

fn signature(graph: &Map<String, Value>, id: &str, files: &Files, plan: &Plan) -> String {
    let node = graph.get(id).cloned().unwrap_or_default();
    let class = node["class_type"].as_str().unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    for (name, value) in node["inputs"].as_object().into_iter().flatten() {
        name.hash(&mut hasher);
        match (linked(value), value.as_str()) {
            (Some(from), _) => {
                plan.signatures.get(from).hash(&mut hasher);
                value[1].to_string().hash(&mut hasher);
            }
            (None, Some(file)) if class == "LoadImage" => {
                // An overwritten file has another version, so its result is another one.
                (file, files.annotated(file).map_or(0, |found| found.version)).hash(&mut hasher);
            }
            (None, _) => value.to_string().hash(&mut hasher),
        }
    }
    let always_changes =
        ["SlowSteps", "SimSilence", "VHS_LoadImages", "ETN_LoadImageCache"].contains(&class);
    if always_changes {
        rand::random::<u64>().hash(&mut hasher);
    }
    format!("{class}({:016x})", hasher.finish())
}
