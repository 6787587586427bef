//! Runs one prompt: its nodes in their order, with events in ComfyUI's order.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::nodes::{Plan, plan};
use super::perform::Given;
use super::pictures::Batch;
use super::state::Item;
use super::{Shared, assets};
use crate::net::unix_millis;

/// How a prompt ended.
pub(super) enum Outcome {
    Success,
    Error(Value),
    Interrupted(Value),
    /// The thread ended with it, without any event.
    Exit,
}

/// What a node gave to other nodes.
#[derive(Clone, Debug, Default)]
pub(super) enum Made {
    #[default]
    Nothing,
    Pictures(Batch),
    Numbers(Vec<usize>),
    Text(String),
}

/// A running prompt.
pub(super) struct Run<'a> {
    pub shared: &'a Arc<Shared>,
    pub item: &'a Item,
    plan: Plan,
    results: HashMap<String, Made>,
    pub progress: Map<String, Value>,
    pub messages: Vec<Value>,
    pub outputs: Map<String, Value>,
    pub executed: Vec<String>,
}

impl<'a> Run<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, item: &'a Item, messages: Vec<Value>) -> Self {
        let plan = plan(&item.graph, &item.outputs, &shared.server().files);
        Self {
            shared,
            item,
            plan,
            results: HashMap::new(),
            progress: Map::new(),
            messages,
            outputs: Map::new(),
            executed: Vec::new(),
        }
    }

    pub(super) async fn all(&mut self) -> Outcome {
        let cached = self.take_cached();
        let mut data = json!({ "nodes": cached, "prompt_id": self.item.id });
        data["timestamp"] = json!(unix_millis());
        self.shared.tell_kept(self.item, &mut self.messages, "execution_cached", data);
        for id in self.plan.order.clone() {
            if cached.contains(&id) {
                self.show_cached(&id);
                continue;
            }
            match self.node(&id).await {
                Given::Done { made, shown } => self.done(&id, made, shown),
                Given::Failed(data) => return Outcome::Error(data),
                Given::Interrupted(data) => return Outcome::Interrupted(data),
                Given::Exit => return Outcome::Exit,
            }
        }
        Outcome::Success
    }

    /// Takes nodes whose results the last prompt cached. Other cached results are dropped.
    fn take_cached(&mut self) -> Vec<String> {
        let mut server = self.shared.server();
        let signatures = &self.plan.signatures;
        server.memory.cache.retain(|known, _| signatures.values().any(|it| it == known));
        let mut cached: Vec<String> = signatures
            .iter()
            .filter(|(_, signature)| server.memory.cache.contains_key(*signature))
            .map(|(id, _)| id.clone())
            .collect();
        cached.sort();
        for id in &cached {
            if let Some((made, shown)) = server.memory.cache.get(&signatures[id]) {
                self.results.insert(id.clone(), made.clone());
                // 0.8.0 recorded this only for a client (`execution.py:418`).
                let is_kept = self.shared.release.is_of_2026() || self.item.client().is_some();
                if let Some(shown) = shown.as_ref().filter(|_| is_kept) {
                    self.outputs.insert(id.clone(), shown.clone());
                }
            }
        }
        cached
    }

    /// Sends the cached output again and marks the node as finished.
    fn show_cached(&mut self, id: &str) {
        let Some(shown) = self.outputs.get(id).cloned() else { return };
        self.say("executed", json!({ "node": id, "display_node": id, "output": shown }));
        self.say_progress(id, json!(1), json!(1), "finished");
    }

    async fn node(&mut self, id: &str) -> Given {
        if self.shared.take_interrupt() {
            return Given::Interrupted(self.stopped_at(id));
        }
        self.shared.server().memory.node = Some(id.to_owned());
        self.say_progress(id, json!(0.0), json!(1.0), "running");
        self.say("executing", json!({ "node": id, "display_node": id }));
        let node = self.item.graph.get(id).cloned().unwrap_or_default();
        self.perform(id, &node).await
    }

    fn done(&mut self, id: &str, made: Made, mut shown: Option<Value>) {
        if let Some(shown) = &mut shown {
            assets::enrich(self.shared, shown);
            self.say("executed", json!({ "node": id, "display_node": id, "output": shown }));
            self.outputs.insert(id.to_owned(), shown.clone());
        }
        let (value, max) = match self.progress.get(id) {
            Some(at) if at["max"] != json!(1.0) => (at["max"].clone(), at["max"].clone()),
            Some(_) | None => (json!(1.0), json!(1.0)),
        };
        self.say_progress(id, value, max, "finished");
        let signature = self.plan.signatures.get(id).cloned().unwrap_or_default();
        let cached = (made.clone(), shown);
        self.shared.server().memory.cache.insert(signature, cached);
        self.results.insert(id.to_owned(), made);
        self.executed.push(id.to_owned());
    }

    /// The pictures that an input of a node receives.
    pub(super) fn input(&self, node: &Value, name: &str) -> Option<&Batch> {
        match self.made_for(node, name)? {
            Made::Pictures(pictures) => Some(pictures),
            Made::Nothing | Made::Numbers(_) | Made::Text(_) => None,
        }
    }

    /// What an input of a node receives from another.
    pub(super) fn made_for(&self, node: &Value, name: &str) -> Option<&Made> {
        self.results.get(node["inputs"][name].get(0)?.as_str()?)
    }

    fn class(&self, id: &str) -> Value {
        self.item.graph.get(id).map_or(Value::Null, |node| node["class_type"].clone())
    }

    pub(super) fn stopped_at(&self, id: &str) -> Value {
        json!({
            "prompt_id": self.item.id, "node_id": id, "node_type": self.class(id),
            "executed": self.executed, "timestamp": unix_millis(),
        })
    }

    pub(super) fn failed_at(&self, id: &str, message: &str) -> Value {
        json!({
            "prompt_id": self.item.id, "node_id": id, "node_type": self.class(id),
            "executed": self.executed, "exception_message": message,
            "exception_type": "RuntimeError", "traceback": ["  File \"sim\", line 1, in run\n"],
            "current_inputs": {}, "current_outputs": self.plan.order, "timestamp": unix_millis(),
        })
    }

    /// Sends an event of the prompt to its client; to nobody if it has none.
    fn say(&self, kind: &str, mut data: Value) {
        data["prompt_id"] = json!(self.item.id);
        if self.item.client().is_some() {
            self.shared.say(kind, &data, self.item.client());
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "made where it is passed")]
    fn say_progress(&mut self, id: &str, value: Value, max: Value, state: &str) {
        let at = json!({
            "value": value, "max": max, "state": state, "node_id": id,
            "prompt_id": self.item.id, "display_node_id": id, "parent_node_id": null,
            "real_node_id": id,
        });
        self.progress.insert(id.to_owned(), at);
        self.say_progress_state();
    }

    /// Broadcast if the prompt has no client.
    pub(super) fn say_progress_state(&self) {
        let data = json!({ "prompt_id": self.item.id, "nodes": self.progress });
        self.shared.say("progress_state", &data, self.item.client());
    }
}

impl Shared {
    /// Sends an event to the client, and keeps it for the history. A prompt without a client sends
    /// nothing.
    #[expect(clippy::needless_pass_by_value, reason = "made where it is passed")]
    pub(super) fn tell_kept(
        &self,
        item: &Item,
        messages: &mut Vec<Value>,
        kind: &str,
        data: Value,
    ) {
        if item.client().is_some() {
            self.say(kind, &data, item.client());
        }
        messages.push(json!([kind, data]));
    }
}
