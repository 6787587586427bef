//! The parts that a graph needs of a server, and those that a server is known to lack: for an
//! operator who asks where a graph would go.

use serde_json::{Map, Value};

use super::object_info::{Has, NodeInfo};

/// What a graph needs of a server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct GraphParts {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Node {
    class: String,
    /// The texts that its inputs are set to.
    values: Vec<(String, String)>,
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
        let text = |(input, value): (&String, &Value)| {
            value.as_str().map(|value| (input.clone(), value.to_owned()))
        };
        let node = |node: &Value| {
            let inputs = node.get("inputs").and_then(Value::as_object);
            let values = inputs.into_iter().flatten().filter_map(text).collect();
            let class = node.get("class_type").and_then(Value::as_str).unwrap_or_default();
            Node { class: class.to_owned(), values }
        };
        Self { nodes: graph.values().map(node).collect() }
    }

    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// What this server lacks, each once: a class, or a value that is not in the list of an input,
    /// such as a model.
    #[must_use]
    pub fn lacking(&self, server: &NodeInfo) -> Vec<String> {
        let mut lacking = Vec::new();
        for Node { class, values } in &self.nodes {
            if !server.has_class(class) {
                lacking.push(class.clone());
                continue;
            }
            let is_missing = |(input, value): &&(String, String)| {
                server.has(class, input, value) == Has::NotListed
            };
            let missing = values.iter().filter(is_missing);
            lacking.extend(missing.map(|(input, value)| format!("{class}.{input} = {value}")));
        }
        lacking.sort_unstable();
        lacking.dedup();
        lacking
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
        assert_eq!(lacking(bad), ["Loader.ckpt_name = c.safetensors", "Other"]);
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
