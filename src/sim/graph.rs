//! Walks over graphs as Python does, but without recursion.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// The deepest walk over a graph with Python's stack of 1,000 frames.
pub(super) const DEPTH_MAX: usize = 980;

/// The node that an input takes its value from (`graph_utils.py`, `is_link`).
pub(super) fn linked(value: &Value) -> Option<&str> {
    let link = value.as_array().filter(|link| link.len() == 2)?;
    let is_slot = link[1].is_number() || link[1].is_boolean();
    link[0].as_str().filter(|_| is_slot)
}

/// What a walk over a node and its dependencies has found.
#[derive(Debug, Default)]
pub(super) struct Walk<'g> {
    /// The existing nodes, each after its dependencies.
    pub order: Vec<&'g str>,
    /// The longest chain of nodes on the stack.
    pub depth: usize,
    /// The first cycle: its nodes in order, with the first one again at the end.
    pub cycle: Option<Vec<&'g str>>,
}

/// Walks from a node. Nodes of an earlier walk are left out.
pub(super) fn walk<'g>(
    graph: &'g Map<String, Value>,
    start: &'g str,
    seen: &mut HashSet<&'g str>,
) -> Walk<'g> {
    let mut walk = Walk::default();
    if !graph.contains_key(start) || !seen.insert(start) {
        return walk;
    }
    let mut path = vec![(start, sources(graph, start))];
    walk.depth = 1;
    while let Some((_, rest)) = path.last_mut() {
        match rest.next() {
            Some(id) if !graph.contains_key(id) => {}
            Some(id) if seen.insert(id) => {
                path.push((id, sources(graph, id)));
                walk.depth = walk.depth.max(path.len());
            }
            Some(id) => {
                if let Some(at) = path.iter().position(|(on_path, _)| *on_path == id) {
                    let nodes = path[at..].iter().map(|(id, _)| *id).chain([id]);
                    walk.cycle.get_or_insert_with(|| nodes.collect());
                }
            }
            None => walk.order.extend(path.pop().map(|(id, _)| id)),
        }
    }
    walk
}

fn sources<'g>(graph: &'g Map<String, Value>, id: &str) -> std::vec::IntoIter<&'g str> {
    let inputs = graph.get(id).and_then(|node| node.get("inputs")).and_then(Value::as_object);
    let sources = inputs.into_iter().flatten().filter_map(|(_, value)| linked(value));
    sources.collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn graph(links: &[(&str, &[&str])]) -> Map<String, Value> {
        let node = |from: &[&str]| {
            let inputs =
                from.iter().enumerate().map(|(slot, id)| (slot.to_string(), json!([id, 0])));
            json!({ "class_type": "X", "inputs": inputs.collect::<Map<_, _>>() })
        };
        links.iter().map(|(id, from)| ((*id).to_owned(), node(from))).collect()
    }

    #[test]
    fn each_node_comes_after_what_it_depends_on() {
        let graph = graph(&[("1", &[]), ("2", &["1"]), ("3", &["2", "1", "9"])]);
        let walk = walk(&graph, "3", &mut HashSet::new());
        assert_eq!((walk.order, walk.depth, walk.cycle), (vec!["1", "2", "3"], 3, None));
    }

    #[test]
    fn a_cycle_is_named_and_ends() {
        let graph = graph(&[("1", &["2"]), ("2", &["1"]), ("3", &["1"])]);
        let walk = walk(&graph, "3", &mut HashSet::new());
        assert_eq!(walk.cycle, Some(vec!["1", "2", "1"]));
        assert_eq!(walk.order.len(), 3);
    }

    #[test]
    fn a_link_is_an_id_and_a_slot() {
        assert_eq!(linked(&json!(["1", 0])), Some("1"));
        assert_eq!(linked(&json!(["1", true])), Some("1"));
        for other in [json!(["1"]), json!([1, 0]), json!(["1", "0"]), json!("1"), json!(null)] {
            assert_eq!(linked(&other), None, "{other}");
        }
    }
}
