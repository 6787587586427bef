//! Models of a simulated backend: files with sizes, a memory that holds some of them, and the time
//! that it takes to load one. As in a ComfyUI, those that were used last stay.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Response;
use serde_json::{Value, json};

use super::body::SimBody;
use super::http::bare;
use super::lent::Lent;
use super::state::Server;
use super::{Shared, Sim};

/// The node class that loads a model and passes its picture on.
pub(super) const CLASS: &str = "SimModel";

/// The models that a test gave to a backend.
#[derive(Clone, Debug, Default)]
pub struct Models {
    /// Their names and bytes.
    pub files: BTreeMap<String, u64>,
    /// Bytes of memory that hold loaded models.
    pub memory: u64,
    /// Bytes that are loaded in a second.
    pub speed: f64,
}

impl Sim {
    /// Gives it these models, and the class `SimModel` that loads one (`ckpt_name`) and passes an
    /// image on.
    pub fn has_models(&self, models: Models) {
        let names: Vec<&String> = models.files.keys().collect();
        let info = json!({
            "input": { "required": { "image": ["IMAGE"], "ckpt_name": [names] } },
            "input_order": { "required": ["image", "ckpt_name"] }, "output": ["IMAGE"],
            "output_is_list": [false], "output_name": ["IMAGE"], "name": CLASS,
            "display_name": CLASS, "description": "", "python_module": "custom_nodes.slow_node",
            "category": "testing", "output_node": false,
        });
        let file = |(name, bytes): (&String, &u64)| {
            json!({
                "name": name, "pathIndex": 0, "modified": 1.0, "created": 1.0, "size": bytes,
            })
        };
        let files: Vec<Value> = models.files.iter().map(file).collect();
        self.serve("/experiment/models", &json!([{ "name": "checkpoints", "folders": ["/m"] }]));
        self.serve("/experiment/models/checkpoints", &json!(files));
        let device = json!({
            "name": "cuda:0 Simulated : native", "type": "cuda", "index": 0,
            "vram_total": models.memory / 9 * 10, "vram_free": models.memory,
        });
        self.set_faults(|faults| *faults.devices = json!([device]));
        let mut server = self.shared.server();
        server.lent.insert(CLASS.to_owned(), Lent { info, shown: Value::Null });
        server.models = models;
    }
}

/// `POST /free`: unloads all models.
pub(super) fn free(shared: &Shared) -> Response<SimBody> {
    shared.server().memory.loaded.clear();
    bare(200)
}

impl Server {
    /// A prompt uses a model. Returns how long loading it takes.
    pub(super) fn uses_model(&mut self, prompt: &str, name: &str) -> Duration {
        let loaded = &mut self.memory.loaded;
        if let Some(at) = loaded.iter().position(|it| it == name) {
            let name = loaded.remove(at);
            loaded.push(name);
            return Duration::ZERO;
        }
        loaded.push(name.to_owned());
        let bytes = |name: &String| self.models.files.get(name).copied().unwrap_or(0);
        while 1 < loaded.len() && self.models.memory < loaded.iter().map(bytes).sum() {
            loaded.remove(0);
        }
        self.ledger.loads.push((prompt.to_owned(), name.to_owned()));
        let seconds = bytes(&name.to_owned()) as f64 / self.models.speed.max(1.0);
        Duration::from_secs_f64(seconds.clamp(0.0, 3_600.0))
    }
}
