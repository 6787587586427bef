//! The rows of the three views, as texts from a snapshot of the gateway. Pure.

use std::cmp::Ordering;
use std::time::Duration;

use serde_json::Value;

use crate::cli::say::plain;
use crate::config::ShowDuration;

/// What is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum View {
    #[default]
    Fleet,
    Clients,
    Prompts,
}

impl View {
    pub(super) const ALL: [Self; 3] = [Self::Fleet, Self::Clients, Self::Prompts];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Fleet => "Fleet",
            Self::Clients => "Clients",
            Self::Prompts => "Prompts",
        }
    }

    pub(super) fn next(self) -> Self {
        match self {
            Self::Fleet => Self::Clients,
            Self::Clients => Self::Prompts,
            Self::Prompts => Self::Fleet,
        }
    }

    /// Titles and widths of the columns. The last but one with width 0 takes what is left.
    pub(super) fn columns(self) -> &'static [(&'static str, u16)] {
        match self {
            Self::Fleet => &[
                ("BACKEND", 14),
                ("STATE", 9),
                ("RUN", 4),
                ("WAIT", 5),
                ("OLDEST", 7),
                ("FREE VRAM", 13),
                ("CLIENTS", 8),
                ("NOW", 0),
            ],
            Self::Clients => {
                &[("CLIENT", 0), ("USER", 12), ("BACKEND", 14), ("PENDING", 8), ("SOCKETS", 8)]
            }
            Self::Prompts => {
                &[("PROMPT", 0), ("CLIENT", 20), ("BACKEND", 14), ("STATE", 9), ("AGE", 8)]
            }
        }
    }

    /// All rows of a snapshot, in its order.
    pub(super) fn rows(self, snapshot: &Value) -> Vec<Row> {
        let list = |place: &str| {
            snapshot.pointer(place).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
        };
        match self {
            Self::Fleet => list("/backends").iter().map(backend).collect(),
            Self::Clients => list("/clients/shown").iter().map(client).collect(),
            Self::Prompts => list("/clients/shown").iter().flat_map(prompts).collect(),
        }
    }
}

/// How a row stands out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tone {
    Good,
    Plain,
    Wait,
    Bad,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// What an action names: a backend, the hash of a client, a prompt.
    pub(super) key: String,
    pub(super) tone: Tone,
    pub(super) cells: Vec<Cell>,
    /// A backend: how many clients have work there.
    pub(super) held: u64,
}

/// A text, and a number if it is sorted by that.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    number: Option<f64>,
}

impl Cell {
    fn text(text: &str) -> Self {
        Self { text: plain(text), number: None }
    }

    fn count(number: Option<u64>) -> Self {
        let text = number.map_or_else(|| "-".to_owned(), |it| it.to_string());
        #[expect(clippy::cast_precision_loss, reason = "it is only compared")]
        Self { text, number: Some(number.map_or(-1.0, |it| it as f64)) }
    }

    fn age(millis: Option<u64>) -> Self {
        let shown = |millis| ShowDuration(Duration::from_secs(millis / 1_000)).to_string();
        Self { text: millis.map(shown).unwrap_or_default(), ..Self::count(millis) }
    }

    /// Numbers with the largest first, texts from A to Z.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            (Some(one), Some(two)) => two.total_cmp(&one),
            (None, _) | (_, None) => self.text.cmp(&other.text),
        }
    }
}

fn of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn backend(value: &Value) -> Row {
    let (word, tone) = standing(value);
    let doing = &value["doing"][0];
    let now = if doing.is_null() { of(value, "trouble").to_owned() } else { doing_of(doing) };
    let name = of(value, "name");
    Row {
        key: name.to_owned(),
        tone,
        held: value["held_clients"].as_u64().unwrap_or_default(),
        cells: vec![
            Cell::text(name),
            Cell::text(word),
            Cell::count(value["running"].as_u64()),
            Cell::count(value["waiting"].as_u64()),
            Cell::age(value["oldest_waiting_ms"].as_u64()),
            vram(&value["devices"]),
            Cell::count(value["bound_clients"].as_u64()),
            Cell::text(&now),
        ],
    }
}

/// The node that runs, and how far it is.
fn doing_of(doing: &Value) -> String {
    let node = doing["node"].as_str().unwrap_or("a job");
    match (doing["value"].as_f64(), doing["max"].as_f64()) {
        (Some(value), Some(max)) if 0.0 < max => {
            format!("{:.0} % of {node}", 100.0 * (value / max).clamp(0.0, 1.0))
        }
        (Some(_) | None, Some(_) | None) => node.to_owned(),
    }
}

/// `20/24 GiB`, over all devices.
fn vram(devices: &Value) -> Cell {
    let devices = devices.as_array().map(Vec::as_slice).unwrap_or_default();
    let sum = |key: &str| devices.iter().map(|it| it[key].as_f64()).sum::<Option<f64>>();
    let gib = |bytes: f64| bytes / f64::from(1 << 30);
    let total = sum("vram_total").filter(|_| !devices.is_empty());
    let free = sum("vram_free").filter(|_| !devices.is_empty());
    let text = match (free, total) {
        (Some(free), Some(total)) => format!("{:.0}/{:.0} GiB", gib(free), gib(total)),
        (None, Some(total)) => format!("?/{:.0} GiB", gib(total)),
        (Some(_) | None, None) => "-".to_owned(),
    };
    Cell { text, number: Some(free.unwrap_or(-1.0)) }
}

/// What a backend is, in one word, as on the dashboard (`fleet.js`, `standing`).
fn standing(backend: &Value) -> (&'static str, Tone) {
    let trouble = !backend["trouble"].is_null();
    match (of(backend, "state"), of(backend, "condition")) {
        ("off", _) => ("off", Tone::Plain),
        _ if backend["up"] != Value::Bool(true) => ("down", Tone::Bad),
        (_, "wedged") => ("wedged", Tone::Bad),
        (_, "shut") => ("shut", Tone::Bad),
        _ if !backend["leaving"].is_null() => ("leaving", Tone::Wait),
        ("draining", _) if backend["drained"] == Value::Bool(true) => ("drained", Tone::Wait),
        ("draining", _) => ("draining", Tone::Wait),
        (_, "suspect") => ("suspect", Tone::Wait),
        _ => {
            let is_busy = backend["running"].as_u64().is_some_and(|it| 0 < it);
            let tone = if trouble { Tone::Wait } else { Tone::Good };
            (if is_busy { "busy" } else { "ready" }, tone)
        }
    }
}

/// What a client is called: who may only look sees its hash.
fn name(client: &Value) -> &str {
    client["client_id"].as_str().unwrap_or_else(|| of(client, "hash"))
}

fn client(entry: &Value) -> Row {
    let client = &entry["client"];
    let backend = client["backend"].as_str().unwrap_or("not bound");
    Row {
        key: of(client, "hash").to_owned(),
        tone: Tone::Plain,
        held: 0,
        cells: vec![
            Cell::text(name(client)),
            Cell::text(of(client, "user")),
            Cell::text(backend),
            Cell::count(client["pending"].as_u64()),
            Cell::count(client["sockets"].as_u64()),
        ],
    }
}

fn prompts(entry: &Value) -> Vec<Row> {
    let owner = name(&entry["client"]);
    let one = |prompt: &Value| Row {
        key: of(prompt, "prompt_id").to_owned(),
        tone: if of(prompt, "state") == "running" { Tone::Good } else { Tone::Plain },
        held: 0,
        cells: vec![
            Cell::text(of(prompt, "prompt_id")),
            Cell::text(owner),
            Cell::text(of(prompt, "backend")),
            Cell::text(of(prompt, "state")),
            Cell::age(prompt["age_ms"].as_u64()),
        ],
    };
    entry["prompts"].as_array().into_iter().flatten().map(one).collect()
}
