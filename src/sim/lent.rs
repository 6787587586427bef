//! Nodes of packs that a test lends to a backend: what `/object_info` says of them, and what they
//! show when they run. They give nothing to other nodes.

use serde_json::{Map, Value, json};

use super::Sim;

/// A node that was lent.
#[derive(Clone, Debug)]
pub(super) struct Lent {
    /// As `/object_info` tells it.
    pub info: Value,
    /// What it puts out.
    pub shown: Value,
}

impl Sim {
    /// Knows this class from now on, with these inputs as `INPUT_TYPES` gives them. It ends a graph
    /// and shows `shown` each time it runs.
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

/// The lists of `/object_info` with the lent nodes in them: all, or the one that is asked for.
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
