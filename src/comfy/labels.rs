//! Labels of a graph's nodes for people. They are kept while the prompt is pending, to say which
//! node was running when its server died.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::Deserialize;

/// The most that is kept for one graph, in bytes; nodes beyond it have no label.
const BYTES_MAX: usize = 16 << 10;

/// The longest title that is shown, in characters.
const TITLE_MAX: usize = 80;

/// The labels of one graph.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    nodes: Box<[Label]>,
}

/// One node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Label {
    pub node: Box<str>,
    pub class: Box<str>,
    /// The title that the author gave it, if any.
    pub title: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    prompt: IndexMap<Cow<'a, str>, Node<'a>>,
}

#[derive(Deserialize)]
struct Node<'a> {
    #[serde(borrow)]
    class_type: Cow<'a, str>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default)]
    title: Option<Cow<'a, str>>,
}

impl Labels {
    /// The labels of the graph in a submission; none if the body is invalid.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let Ok(Body { prompt }) = serde_json::from_slice::<Body<'_>>(body) else {
            return Self::default();
        };
        let mut bytes = 0;
        let labels = prompt.into_iter().map(|(node, Node { class_type, meta })| {
            let title = meta.and_then(|meta| meta.title).filter(|title| *title != class_type);
            Label {
                node: node.into(),
                class: class_type.into(),
                title: title.map(|title| title.chars().take(TITLE_MAX).collect()),
            }
        });
        let fits = |label: &Label| {
            let title = label.title.as_deref().map_or(0, str::len);
            bytes += label.node.len() + label.class.len() + title;
            bytes <= BYTES_MAX
        };
        Self { nodes: labels.take_while(fits).collect() }
    }

    #[must_use]
    pub fn get(&self, node: &str) -> Option<&Label> {
        self.nodes.iter().find(|label| &*label.node == node)
    }

    /// Any label, for a prompt that never started.
    #[must_use]
    pub fn first(&self) -> Option<&Label> {
        self.nodes.first()
    }
}

impl Label {
    /// The text for people: `“Refine” (KSampler, node 3)`, or without a title `KSampler (node 3)`.
    #[must_use]
    pub fn for_people(&self) -> String {
        let Self { node, class, title } = self;
        match title {
            Some(title) => format!("“{title}” ({class}, node {node})"),
            None => format!("{class} (node {node})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_by_its_title_and_class() {
        let body = br#"{"client_id": "a", "prompt": {
            "3": {"class_type": "KSampler", "inputs": {"x": [1, 2]}, "_meta": {"title": "Refine"}},
            "7": {"class_type": "SaveImage", "inputs": {}, "_meta": {"title": "SaveImage"}},
            "8": {"class_type": "VAEDecode", "inputs": {}}}}"#;
        let labels = Labels::of(body);
        let called = |node| labels.get(node).map(Label::for_people);
        assert_eq!(called("3").unwrap(), "“Refine” (KSampler, node 3)");
        assert_eq!(called("7").unwrap(), "SaveImage (node 7)");
        assert_eq!(called("8").unwrap(), "VAEDecode (node 8)");
        assert_eq!(called("9"), None);
        assert_eq!(&*labels.first().unwrap().node, "3");
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_no_graph_has_none() {
        let long = "x".repeat(1_000);
        let nodes: Vec<String> = (0..100)
            .map(|id| format!(r#""{id}": {{"class_type": "{long}", "inputs": {{}}}}"#))
            .collect();
        let labels = Labels::of(format!(r#"{{"prompt": {{{}}}}}"#, nodes.join(",")).as_bytes());
        assert!(labels.get("15").is_some() && labels.get("17").is_none());
        for junk in ["", "{}", r#"{"prompt": []}"#, r#"{"prompt": {"1": 3}}"#] {
            assert!(Labels::of(junk.as_bytes()).first().is_none(), "{junk}");
        }
    }
}
