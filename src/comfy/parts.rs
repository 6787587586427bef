//! The parts that a graph needs of a server, and those that a server is known to lack: for an
//! operator who asks where a graph would go.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::object_info::{Has, NodeInfo};

/// Longer values are not looked at.
const VALUE_MAX: usize = 255;

/// What a graph needs of a server, each once.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GraphParts {
    nodes: usize,
    classes: BTreeSet<String>,
    /// The texts that inputs are set to: class, input, value.
    values: BTreeSet<(String, String, String)>,
}

/// Why something is no graph.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAGraph {
    #[error("it is not JSON: {0}")]
    NotJson(String),
    #[error("it is a workflow as the page saves it: save it with Export (API) instead")]
    Workflow,
    #[error("it has no nodes: a graph is an object of nodes, each with `class_type` and `inputs`")]
    NoNodes,
    #[error("the node `{0}` has no `class_type`: is it a graph?")]
    NoClass(String),
}

/// The nodes of a graph: the text is one, or the body of a submission.
///
/// # Errors
/// It is neither.
pub fn graph_of(text: &[u8]) -> Result<Map<String, Value>, NotAGraph> {
    let read: Value =
        serde_json::from_slice(text).map_err(|error| NotAGraph::NotJson(error.to_string()))?;
    let Value::Object(mut object) = read else { return Err(NotAGraph::NoNodes) };
    if object.get("nodes").is_some_and(Value::is_array) {
        return Err(NotAGraph::Workflow);
    }
    let nodes = match object.remove("prompt") {
        Some(Value::Object(graph)) => graph,
        Some(_) => return Err(NotAGraph::NoNodes),
        None => object,
    };
    let has_class = |node: &Value| node.get("class_type").is_some_and(Value::is_string);
    match nodes.iter().find(|(_, node)| !has_class(node)) {
        Some((id, _)) => Err(NotAGraph::NoClass(id.chars().take(80).collect())),
        None if nodes.is_empty() => Err(NotAGraph::NoNodes),
        None => Ok(nodes),
    }
}

impl GraphParts {
    #[must_use]
    pub fn of(graph: &Map<String, Value>) -> Self {
        let mut parts = Self { nodes: graph.len(), ..Self::default() };
        for node in graph.values() {
            let class = node.get("class_type").and_then(Value::as_str).unwrap_or_default();
            let inputs = node.get("inputs").and_then(Value::as_object);
            for (input, value) in inputs.into_iter().flatten() {
                // No name of a model and no choice is longer; a text is.
                if let Some(value) = value.as_str().filter(|it| it.len() <= VALUE_MAX) {
                    parts.values.insert((class.to_owned(), input.clone(), value.to_owned()));
                }
            }
            parts.classes.insert(class.to_owned());
        }
        parts
    }

    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The first class of these that it has.
    #[must_use]
    pub fn has_one_of<'c>(&self, classes: &'c [String]) -> Option<&'c str> {
        let has = |class: &&String| self.classes.iter().any(|it| it.trim() == class.trim());
        classes.iter().find(has).map(String::as_str)
    }

    /// What this server lacks: a class, or a value that is not in the list of an input, such as a
    /// model.
    #[must_use]
    pub fn lacking(&self, server: &NodeInfo) -> Vec<String> {
        let classes = self.classes.iter().filter(|class| !server.has_class(class)).cloned();
        let is_missing = |(class, input, value): &&(String, String, String)| {
            server.has(class, input, value) == Has::NotListed
        };
        let values = self.values.iter().filter(is_missing);
        let values = values.map(|(class, input, value)| format!("{class}.{input} = {value}"));
        classes.chain(values).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_a_server_lacks_is_named_once() {
        let info = br#"{"Loader": {"input": {"required": {
            "ckpt_name": [["a.safetensors", "b.safetensors"]], "text": ["STRING"]}},
            "output": ["MODEL"]}, "Saver": {"input": {}, "output": []}}"#;
        let server = NodeInfo::read(Bytes::from_static(info)).unwrap();
        let lacking =
            |graph: &str| GraphParts::of(&graph_of(graph.as_bytes()).unwrap()).lacking(&server);
        let good = r#"{"1": {"class_type": "Loader",
            "inputs": {"ckpt_name": "a.safetensors", "text": "any", "link": ["2", 0]}}}"#;
        assert_eq!(lacking(good), [""; 0]);
        let bad = r#"{"client_id": "c", "prompt": {
            "1": {"class_type": "Loader", "inputs": {"ckpt_name": "c.safetensors"}},
            "2": {"class_type": "Loader", "inputs": {"ckpt_name": "c.safetensors"}},
            "3": {"class_type": "Other", "inputs": {"x": "y"}},
            "4": {"class_type": "Saver"}}}"#;
        assert_eq!(lacking(bad), ["Other", "Loader.ckpt_name = c.safetensors"]);
    }

    #[test]
    fn what_is_no_graph_is_told_apart() {
        let told = |text: &str| graph_of(text.as_bytes()).unwrap_err();
        assert!(matches!(told("{"), NotAGraph::NotJson(_)));
        assert!(matches!(told("\u{feff}{}"), NotAGraph::NotJson(_)));
        assert!(matches!(told(&"[".repeat(10_000)), NotAGraph::NotJson(_)), "too deep");
        assert_eq!(told(r#"{"nodes": [], "links": []}"#), NotAGraph::Workflow);
        for empty in ["{}", "[]", "1", "null", r#"{"prompt": {}}"#, r#"{"prompt": 1}"#] {
            assert_eq!(told(empty), NotAGraph::NoNodes, "{empty}");
        }
        for (graph, id) in [
            (r#"{"7": {"inputs": {}}}"#, "7"),
            (r#"{"a": {"class_type": 1}}"#, "a"),
            (r#"{"b": []}"#, "b"),
        ] {
            assert_eq!(told(graph), NotAGraph::NoClass(id.to_owned()));
        }
    }
}
