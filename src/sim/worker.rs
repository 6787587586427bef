//! The one worker: takes prompts from the queue and runs their nodes, saying what ComfyUI 0.8.0
//! says, in its order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Shared;
use super::events::{Picture, timed};
use super::nodes::{Plan, plan};
use super::pictures::{self, Batch};
use super::state::{FileKind, Item};
use crate::net::{sleep, unix_millis};

/// How a prompt ended.
enum Outcome {
    Success,
    Error(Value),
    Interrupted(Value),
}

/// Works until the process dies.
pub(super) async fn work(shared: Arc<Shared>) {
    loop {
        let item = shared.server().memory.pop();
        let Some(item) = item else {
            shared.work.notified().await;
            continue;
        };
        shared.say_status();
        if let Some(delay) = shared.faults().start_delay() {
            sleep(delay).await;
        }
        run(&shared, &item).await;
    }
}

async fn run(shared: &Arc<Shared>, item: &Item) {
    {
        let mut server = shared.server();
        server.memory.interrupt = false;
        *server.ledger.executed.entry(item.id.clone()).or_default() += 1;
    }
    let mut run = Run::new(shared, item);
    let outcome = run.all().await;
    let (name, data, status) = match outcome {
        Outcome::Success => ("execution_success", timed(&item.id), "success"),
        Outcome::Error(data) => ("execution_error", data, "error"),
        Outcome::Interrupted(data) => ("execution_interrupted", data, "error"),
    };
    // A prompt of nobody has no start and no success, but its interruption is told to all.
    if item.client().is_some() || name == "execution_interrupted" {
        shared.say(name, &data, item.client());
    }
    run.messages.push(json!([name, data]));
    let entry = entry(item, &run.outputs, &run.messages, status);
    sleep(shared.faults().history_delay()).await;
    {
        let mut server = shared.server();
        server.memory.running = None;
        server.memory.node = None;
        server.memory.remember(&item.id, entry);
        server.ledger.finished.push(item.id.clone());
        if name == "execution_interrupted" {
            server.ledger.interrupted.push(item.id.clone());
        }
    }
    shared.say_status();
    if item.client().is_some() && !shared.faults().no_last_word {
        shared.say("executing", &json!({ "node": null, "prompt_id": item.id }), item.client());
    }
}

/// One prompt on its way.
struct Run<'a> {
    shared: &'a Arc<Shared>,
    item: &'a Item,
    plan: Plan,
    results: HashMap<String, Option<Batch>>,
    progress: Map<String, Value>,
    messages: Vec<Value>,
    outputs: Map<String, Value>,
    executed: Vec<String>,
}

/// What a node gave.
enum Given {
    Done { pictures: Option<Batch>, shown: Option<Value> },
    Failed(Value),
    Interrupted(Value),
}

impl<'a> Run<'a> {
    fn new(shared: &'a Arc<Shared>, item: &'a Item) -> Self {
        let plan = plan(&item.graph, &item.outputs, &shared.server().files);
        Self {
            shared,
            item,
            plan,
            results: HashMap::new(),
            progress: Map::new(),
            messages: Vec::new(),
            outputs: Map::new(),
            executed: Vec::new(),
        }
    }

    async fn all(&mut self) -> Outcome {
        let cached = self.take_cached();
        self.tell_kept("execution_start", timed(&self.item.id));
        let mut data = json!({ "nodes": cached, "prompt_id": self.item.id });
        data["timestamp"] = json!(unix_millis());
        self.tell_kept("execution_cached", data);
        for id in self.plan.order.clone() {
            if cached.contains(&id) {
                self.show_cached(&id);
                continue;
            }
            match self.node(&id).await {
                Given::Done { pictures, shown } => self.done(&id, pictures, shown),
                Given::Failed(data) => return Outcome::Error(data),
                Given::Interrupted(data) => return Outcome::Interrupted(data),
            }
        }
        Outcome::Success
    }

    /// Nodes whose result the last prompt left behind. What it left for others is forgotten.
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
            if let Some((pictures, shown)) = server.memory.cache.get(&signatures[id]) {
                self.results.insert(id.clone(), pictures.clone());
                // Recorded only for a client (`execution.py:418`).
                if let Some(shown) = shown.as_ref().filter(|_| self.item.client().is_some()) {
                    self.outputs.insert(id.clone(), shown.clone());
                }
            }
        }
        cached
    }

    /// A cached output is shown again, the node finished at once.
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
        let class = node["class_type"].as_str().unwrap_or_default();
        match class {
            "EmptyImage" => done(Some(pictures::empty(
                self.integer(&node, "width"),
                self.integer(&node, "height"),
                self.integer(&node, "batch_size"),
                self.integer(&node, "color"),
            ))),
            "LoadImage" => self.load(id, &node),
            "ImageInvert" => done(self.input(&node, "image").map(pictures::invert)),
            "ImageScale" => {
                let (width, height) = (self.integer(&node, "width"), self.integer(&node, "height"));
                done(self.input(&node, "image").map(|it| pictures::scale(it, width, height)))
            }
            "SlowSteps" => self.slow_steps(id, &node).await,
            "SaveImage" => self.save(FileKind::Output, &node),
            "PreviewImage" => self.save(FileKind::Temp, &node),
            "SaveImageWebsocket" => self.send(id, &node),
            "SimBroadcast" => {
                self.shared.say("sim.broadcast", &json!({ "from": self.shared.name() }), None);
                self.shared.send_unknown();
                done(self.input(&node, "image").cloned())
            }
            "SimBlock" => {
                self.block(id);
                done(self.input(&node, "image").cloned())
            }
            _ => Given::Failed(self.failed_at(id, "unknown node")),
        }
    }

    fn done(&mut self, id: &str, pictures: Option<Batch>, shown: Option<Value>) {
        if let Some(shown) = &shown {
            self.say("executed", json!({ "node": id, "display_node": id, "output": shown }));
            self.outputs.insert(id.to_owned(), shown.clone());
        }
        let (value, max) = match self.progress.get(id) {
            Some(at) if at["max"] != json!(1.0) => (at["max"].clone(), at["max"].clone()),
            Some(_) | None => (json!(1.0), json!(1.0)),
        };
        self.say_progress(id, value, max, "finished");
        let signature = self.plan.signatures.get(id).cloned().unwrap_or_default();
        let cached = (pictures.clone(), shown);
        self.shared.server().memory.cache.insert(signature, cached);
        self.results.insert(id.to_owned(), pictures);
        self.executed.push(id.to_owned());
    }

    async fn slow_steps(&mut self, id: &str, node: &Value) -> Given {
        let steps = self.integer(node, "steps").max(1);
        let seconds = node["inputs"]["seconds"].as_f64().unwrap_or(0.0).clamp(0.0, 3600.0);
        let pause = Duration::from_secs_f64(seconds / f64::from(steps) / self.shared.speed());
        let shows = node["inputs"]["preview"] == true;
        let picture = self.input(node, "image").and_then(|batch| batch.first()).cloned();
        for step in 1..=steps {
            sleep(pause).await;
            if self.shared.take_interrupt() {
                return Given::Interrupted(self.stopped_at(id));
            }
            let preview = picture.as_ref().filter(|_| shows).map(Picture::preview);
            self.tick(id, step, steps, preview.as_ref());
        }
        if node["inputs"]["fail"] == true {
            return Given::Failed(self.failed_at(id, "asked to fail\n"));
        }
        done(self.input(node, "image").cloned())
    }

    /// One tick of a progress bar: a preview with metadata comes before the `progress`, a plain
    /// one after it.
    fn tick(&mut self, id: &str, step: u32, steps: u32, preview: Option<&Picture>) {
        let client = self.item.client();
        let with_metadata = self.shared.previews_with_metadata(client);
        let show = |preview: &Picture| self.shared.show(&self.item.id, id, client, preview);
        let data = json!({
            "value": step, "max": steps, "prompt_id": self.item.id, "node": id,
        });
        let state = json!({ "value": step, "max": steps });
        let progress = (state["value"].clone(), state["max"].clone());
        if let Some(at) = self.progress.get_mut(id) {
            (at["value"], at["max"]) = progress;
        }
        self.say_progress_state();
        match preview {
            Some(preview) if with_metadata => {
                show(preview);
                self.shared.say("progress", &data, client);
            }
            Some(preview) => {
                self.shared.say("progress", &data, client);
                show(preview);
            }
            None => self.shared.say("progress", &data, client),
        }
    }

    fn load(&self, id: &str, node: &Value) -> Given {
        let file = node["inputs"]["image"].as_str().unwrap_or_default();
        let bytes = self.shared.server().files.annotated(file).map(|file| file.bytes.clone());
        match bytes.as_deref().and_then(pictures::read) {
            Some(pictures) => done(Some(pictures)),
            None => Given::Failed(self.failed_at(id, "cannot identify image file")),
        }
    }

    fn save(&self, kind: FileKind, node: &Value) -> Given {
        let mut texts = vec![("prompt", json!(self.item.graph).to_string())];
        if let Some(workflow) = self.item.extra_data.pointer("/extra_pnginfo/workflow") {
            texts.push(("workflow", workflow.to_string()));
        }
        let mut server = self.shared.server();
        let prefix = match kind {
            FileKind::Temp => format!("ComfyUI_temp_{}", server.memory.temp_prefix),
            FileKind::Input | FileKind::Output => {
                node["inputs"]["filename_prefix"].as_str().unwrap_or("ComfyUI").to_owned()
            }
        };
        let mut images = Vec::new();
        for picture in self.input(node, "images").into_iter().flatten() {
            let path = server.files.next_name(kind, &prefix);
            server.files.put(kind, &path, pictures::png(picture, &texts).into());
            let (subfolder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            images.push(json!({ "filename": name, "subfolder": subfolder, "type": kind.as_str() }));
        }
        Given::Done { pictures: None, shown: Some(json!({ "images": images })) }
    }

    /// Pictures that exist only on the socket.
    fn send(&self, id: &str, node: &Value) -> Given {
        for picture in self.input(node, "images").into_iter().flatten() {
            let picture = Picture::Png(pictures::png(picture, &[]));
            self.shared.show(&self.item.id, id, self.item.client(), &picture);
        }
        done(None)
    }

    /// An error that is no end: the prompt goes on (`execution.py:497`).
    fn block(&self, id: &str) {
        let data = json!({
            "prompt_id": self.item.id, "node_id": id, "node_type": "SimBlock",
            "executed": self.executed, "exception_message": "Execution Blocked: asked to block",
            "exception_type": "ExecutionBlocked", "traceback": [], "current_inputs": [],
            "current_outputs": [],
        });
        self.shared.say("execution_error", &data, self.item.client());
    }

    fn input(&self, node: &Value, name: &str) -> Option<&Batch> {
        let from = node["inputs"][name].get(0)?.as_str()?;
        self.results.get(from)?.as_ref()
    }

    fn integer(&self, node: &Value, name: &str) -> u32 {
        node["inputs"][name].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
    }

    fn class(&self, id: &str) -> Value {
        self.item.graph.get(id).map_or(Value::Null, |node| node["class_type"].clone())
    }

    fn stopped_at(&self, id: &str) -> Value {
        json!({
            "prompt_id": self.item.id, "node_id": id, "node_type": self.class(id),
            "executed": self.executed, "timestamp": unix_millis(),
        })
    }

    fn failed_at(&self, id: &str, message: &str) -> Value {
        json!({
            "prompt_id": self.item.id, "node_id": id, "node_type": self.class(id),
            "executed": self.executed, "exception_message": message,
            "exception_type": "RuntimeError", "traceback": ["  File \"sim\", line 1, in run\n"],
            "current_inputs": {}, "current_outputs": self.plan.order, "timestamp": unix_millis(),
        })
    }

    /// Says it to the client, and keeps it for the history. Prompts of nobody say neither.
    #[expect(clippy::needless_pass_by_value, reason = "made where it is passed")]
    fn tell_kept(&mut self, kind: &str, data: Value) {
        if self.item.client().is_some() {
            self.shared.say(kind, &data, self.item.client());
        }
        self.messages.push(json!([kind, data]));
    }

    /// Says something of the prompt to its client; to nobody if it has none.
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
    fn say_progress_state(&self) {
        let data = json!({ "prompt_id": self.item.id, "nodes": self.progress });
        self.shared.say("progress_state", &data, self.item.client());
    }
}

fn done(pictures: Option<Batch>) -> Given {
    Given::Done { pictures, shown: None }
}

/// What the history keeps of a prompt (`execution.py:1145`).
fn entry(item: &Item, outputs: &Map<String, Value>, messages: &[Value], status: &str) -> Value {
    let of_node = |id: &String| {
        let meta = json!({
            "node_id": id, "display_node": id, "parent_node": null, "real_node_id": id,
        });
        (id.clone(), meta)
    };
    let meta: Map<String, Value> = outputs.keys().map(of_node).collect();
    json!({
        "prompt": item.tuple(),
        "outputs": outputs,
        "status": {
            "status_str": status, "completed": status == "success", "messages": messages,
        },
        "meta": meta,
    })
}
