//! Nodes that no graph may have (`server.deny_nodes`).

use std::collections::HashSet;

use serde_json::json;
use serde_json::value::RawValue;

use super::object::Object;
use super::{Draft, Refusal};

/// A node of a class that is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeniedNode {
    id: String,
    class: String,
    title: Option<String>,
}

impl DeniedNode {
    /// What it is called: by its title, or else by its class.
    pub(super) fn name(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.class)
    }

    /// As ComfyUI 0.33 refuses a node of a class that it does not have (`execution.py`,
    /// `validate_prompt`): the page lists such nodes.
    pub(super) fn body(&self, kind: &str, message: &str) -> Vec<u8> {
        let extra = json!({
            "node_id": self.id, "class_type": self.class, "node_title": self.name(),
        });
        let error = json!({
            "type": kind,
            "message": message,
            "details": format!("Node ID '#{}'", self.id),
            "extra_info": extra,
        });
        json!({ "error": error, "node_errors": {} }).to_string().into_bytes()
    }
}

impl Draft {
    /// Looks for nodes of these classes, also for those that no output needs. Blanks around a name
    /// do not count.
    ///
    /// # Errors
    /// There is one, or it cannot be said whether there is one.
    pub fn check_nodes(&self, denied: &[String]) -> Result<(), Refusal> {
        if denied.is_empty() {
            return Ok(());
        }
        let denied: HashSet<&str> = denied.iter().map(|class| class.trim()).collect();
        let object: Object<'_> = serde_json::from_slice(&self.body).map_err(not_json)?;
        let graph = object.get("prompt").map_or("{}", RawValue::get);
        let graph: Object<'_> = serde_json::from_str(graph).map_err(not_json)?;
        for (id, node) in graph.entries() {
            let node: Object<'_> = serde_json::from_str(node).map_err(not_json)?;
            let Some(class) = node.get("class_type") else { continue };
            // One that is no text is none of these. ComfyUI judges it.
            let Ok(class) = serde_json::from_str::<String>(class.get()) else { continue };
            if denied.contains(class.trim()) {
                let title = title_of(&node);
                return Err(Refusal::NodeDenied(DeniedNode { id: id.to_owned(), class, title }));
            }
        }
        Ok(())
    }
}

/// The title in a node's `_meta`.
fn title_of(node: &Object<'_>) -> Option<String> {
    let meta: Object<'_> = serde_json::from_str(node.get("_meta")?.get()).ok()?;
    serde_json::from_str(meta.get("title")?.get()).ok()
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn not_json(error: serde_json::Error) -> Refusal {
    Refusal::NotJson(error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::super::graph::Unknown;
    use super::super::read;
    use super::*;

    fn check(graph: &str) -> Result<(), Refusal> {
        let body = format!("{{\"prompt\": {graph}}}");
        let denied = [" RunShell\t".to_owned(), "Schöner".to_owned()];
        read(body.into(), &Unknown).unwrap().check_nodes(&denied)
    }

    #[test]
    fn a_node_of_such_a_class_is_found_however_it_is_written() {
        for graph in [
            r#"{"1": {"class_type": "RunShell", "inputs": {}}}"#,
            r#"{"1": {"class_type": "Ok", "inputs": {}}, "2": {"class_type": "RunShell",
                "inputs": {}}}"#,
            r#"{"1": {"class_type": "\u0052un\u0053hell", "inputs": {}}}"#,
            r#"{"1": {"class_\u0074ype": "RunShell", "inputs": {}}}"#,
            r#"{"1": {"class_type": "Fine", "class_type": "RunShell", "inputs": {}}}"#,
            r#"{"1": {"class_type": "Sch\u00f6ner", "inputs": {}}}"#,
            r#"{"1": {"class_type": "Schöner ", "inputs": {}}}"#,
        ] {
            assert!(matches!(check(graph), Err(Refusal::NodeDenied(_))), "{graph}");
        }
        for graph in [
            r#"{"1": {"class_type": "runshell", "inputs": {"class_type": "RunShell"}}}"#,
            r#"{"1": {"class_type": "RunShell2", "inputs": {"x": "RunShell"}}}"#,
            "{}",
        ] {
            assert_eq!(check(graph), Ok(()), "{graph}");
        }
    }

    #[test]
    fn it_is_refused_as_comfyui_refuses_what_it_does_not_have() {
        let graph = r#"{"7": {"class_type": "RunShell", "inputs": {}, "_meta": {"title": "Do"}}}"#;
        let refusal = check(graph).unwrap_err();
        let body: Value = serde_json::from_slice(&refusal.body()).unwrap();
        let message = "Node 'Do' may not be used here: it is in server.deny_nodes";
        assert_eq!(
            body,
            json!({
                "error": {
                    "type": "missing_node_type",
                    "message": message,
                    "details": "Node ID '#7'",
                    "extra_info": { "node_id": "7", "class_type": "RunShell", "node_title": "Do" },
                },
                "node_errors": {},
            })
        );
    }
}
