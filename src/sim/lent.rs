//! Node classes of packs that a test adds to a backend: their `/object_info`, and what they show
//! when they run. They have no outputs for other nodes.

use serde_json::{Map, Value, json};

use super::Sim;

/// A node class that a test added.
#[derive(Clone, Debug)]
pub(super) struct Lent {
    /// Its part of `/object_info`.
    pub info: Value,
    /// The output that it shows.
    pub shown: Value,
}

impl Sim {
    /// Adds this class, with its inputs in the form of `INPUT_TYPES`. Its nodes end a graph, and
    /// show `shown` each time they run.
    pub fn lend(&self, class: &str, inputs: &Value, shown: &Value) {
        let info = json!({
            "input": inputs, "input_order": {}, "output": [], "output_is_list": [],
            "output_name": [], "name": class, "display_name": class, "description": "",
            "python_module": "custom_nodes.lent", "category": "testing", "output_node": true,
        });
        let lent = Lent { info, shown: shown.clone() };
        self.shared.server().lent.insert(class.to_owned(), lent);
    }
}

/// `/object_info` with the added classes: all of it, or one class.
pub(super) fn listed(
    mut known: Value,
    class: Option<&str>,
    lent: &std::collections::BTreeMap<String, Lent>,
) -> Value {
    let wanted = lent.iter().filter(|(name, _)| class.is_none_or(|class| class == *name));
    let more: Map<String, Value> =
        wanted.map(|(name, lent)| (name.clone(), lent.info.clone())).collect();
    if let Some(known) = known.as_object_mut() {
        known.extend(more);
    }
    known
}
