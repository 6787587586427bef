//! What is the same in two runs: everything but ids, times, and how often progress ticked.

use std::collections::BTreeMap;

use mooring::ws::{Frame, Opcode};
use serde_json::{Map, Value};

/// Something that a socket was told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Event(Value),
    /// The type of a binary frame, and the format of a plain preview.
    Binary(Vec<u8>),
}

impl Told {
    pub(crate) fn recorded(step: &Value) -> Self {
        if step["kind"] == "ws_text" {
            return Self::Event(step["json"].clone());
        }
        let kind = if step["base64_head"].as_str().unwrap().starts_with("AAAABA") { 4 } else { 1 };
        Self::Binary(vec![kind])
    }

    pub(crate) fn heard(frame: &Frame) -> Self {
        if frame.opcode == Opcode::Text {
            return Self::Event(serde_json::from_slice(&frame.payload).unwrap_or_default());
        }
        Self::Binary(vec![frame.payload.get(3).copied().unwrap_or(0)])
    }

    fn kind(&self) -> &str {
        match self {
            Self::Event(event) => event["type"].as_str().unwrap_or_default(),
            Self::Binary(_) => "preview",
        }
    }

    fn is_progress(&self) -> bool {
        matches!(self.kind(), "preview" | "progress" | "progress_state")
    }
}

/// True if all that lasts in `recorded` was heard, and progress after it if there was some.
pub(crate) fn covers(heard: &[Told], recorded: &[Told]) -> bool {
    let lasting = |told: &[Told]| -> Vec<String> {
        let lasting = told.iter().filter(|it| !it.is_progress() && it.kind() != "status");
        lasting.map(|it| it.kind().to_owned()).collect()
    };
    let (here, then) = (lasting(heard), lasting(recorded));
    let has_status = heard.iter().any(|it| it.kind() == "status");
    let ends_in_progress = recorded.iter().rev().find(|it| it.kind() != "status");
    let wants_progress = ends_in_progress.is_some_and(Told::is_progress);
    let progress = |told: &[Told]| {
        let last = told.iter().rposition(|it| !it.is_progress() && it.kind() != "status");
        told[last.map_or(0, |last| last + 1)..].iter().any(|it| it.kind() == "progress")
    };
    let has_progress = then.len() < here.len() || !wants_progress || progress(heard);
    (recorded.is_empty() || has_status) && then.len() <= here.len() && has_progress
}

/// What was told in a form that two runs share.
pub(crate) struct Sequence {
    /// Each change of the queue once. When it comes among the events depends on the machine.
    pub(crate) statuses: Vec<String>,
    /// All others, with repeated ticks counted once.
    pub(crate) events: Vec<String>,
}

pub(crate) fn sequence(told: &[Told], names: &mut Names) -> Sequence {
    let mut events: Vec<String> = Vec::new();
    for it in told.iter().filter(|it| it.kind() != "status") {
        events.push(form(it, names));
        // A tick is up to three messages; one that is the same as the one before is not news.
        for cycle in 1..=3 {
            let count = events.len();
            if 2 * cycle <= count
                && events[count - cycle..].iter().all(|it| is_tick(it))
                && events[count - cycle..] == events[count - 2 * cycle..count - cycle]
            {
                events.truncate(count - cycle);
            }
        }
    }
    let mut statuses: Vec<String> =
        told.iter().filter(|it| it.kind() == "status").map(|it| form(it, names)).collect();
    statuses.dedup();
    Sequence { statuses, events }
}

/// True for what says no more than that something goes on.
pub(crate) fn is_tick(form: &str) -> bool {
    form.starts_with("progress") || form.starts_with("binary")
}

fn form(told: &Told, names: &mut Names) -> String {
    match told {
        Told::Binary(kind) => format!("binary {kind:?}"),
        Told::Event(event) if event["type"] == "progress_state" => {
            let states = event["data"]["nodes"].as_object().cloned().unwrap_or_default();
            let states: Vec<String> = states
                .iter()
                .map(|(id, node)| {
                    let fields: Vec<&String> = node.as_object().unwrap().keys().collect();
                    format!("{id}:{}{fields:?}", node["state"])
                })
                .collect();
            format!("progress_state {states:?}")
        }
        Told::Event(event) if event["type"] == "progress" => {
            let fields: Vec<&String> = event["data"].as_object().unwrap().keys().collect();
            format!("progress {} {fields:?}", event["data"]["node"])
        }
        Told::Event(event) => names.numbered(&body(event)),
    }
}

/// A JSON value without what is different in every run.
pub(crate) fn body(value: &Value) -> Value {
    const VOLATILE: [&str; 14] = [
        "timestamp",
        "create_time",
        "traceback",
        "current_inputs",
        "current_outputs",
        "ram_total",
        "ram_free",
        "vram_total",
        "vram_free",
        "torch_vram_total",
        "torch_vram_free",
        "execution_start_time",
        "execution_end_time",
        "sid",
    ];
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| {
                let value =
                    if VOLATILE.contains(&key.as_str()) { Value::Null } else { body(value) };
                (key.clone(), value)
            });
            // In the order of keys, which neither JSON nor its readers care about.
            let sorted: BTreeMap<String, Value> = fields.collect();
            Value::Object(sorted.into_iter().collect::<Map<String, Value>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(body).collect()),
        Value::Number(number) => serde_json::json!(number.as_f64()),
        Value::String(text) => Value::String(without_chance(text)),
        Value::Null | Value::Bool(_) => value.clone(),
    }
}

/// Temp files have a random prefix in each process.
fn without_chance(text: &str) -> String {
    match text.strip_prefix("ComfyUI_temp_") {
        Some(rest) if 5 < rest.len() => format!("ComfyUI_temp_?????{}", &rest[5..]),
        Some(_) | None => text.to_owned(),
    }
}

/// Prompt ids of then and their counterparts here.
#[derive(Default)]
pub(crate) struct Names {
    here: BTreeMap<String, String>,
    numbers: BTreeMap<String, usize>,
}

impl Names {
    /// Learns the id of a prompt from the two answers to its submission.
    pub(crate) fn learn(&mut self, then: &Value, here: &Value) {
        if let (Some(then), Some(here)) = (then["prompt_id"].as_str(), here["prompt_id"].as_str()) {
            self.here.insert(then.to_owned(), here.to_owned());
        }
    }

    /// Text of then, with the ids of here.
    pub(crate) fn here(&self, text: &str) -> String {
        self.here.iter().fold(text.to_owned(), |text, (then, here)| text.replace(then, here))
    }

    pub(crate) fn translate(&self, value: &Value) -> Value {
        serde_json::from_str(&self.here(&value.to_string())).unwrap()
    }

    /// The value with each prompt id as its number.
    fn numbered(&mut self, value: &Value) -> String {
        let text = value.to_string();
        let Some(id) = value.pointer("/data/prompt_id").and_then(Value::as_str) else {
            return text;
        };
        let next = self.numbers.len();
        let number = *self.numbers.entry(id.to_owned()).or_insert(next);
        text.replace(id, &format!("prompt {number}"))
    }
}
