//! The state of a simulated ComfyUI: its queue, history, sockets and files.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::assets::Database;
use super::lent::Lent;
use super::models::Models;
use super::run::Made;
use super::users::Users;
use super::{files, forms};
use crate::ws::Frame;

/// How many requests are kept for tests; the oldest are dropped first.
const SEEN_MAX: usize = 10_000;

/// ComfyUI's own limit (`execution.py:1108`).
const HISTORY_MAX: usize = 10_000;

/// One prompt in the queue.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub number: f64,
    pub id: String,
    pub graph: Map<String, Value>,
    pub extra_data: Value,
    pub outputs: Vec<String>,
}

impl Item {
    /// The form in `/queue` and in the history.
    pub(super) fn tuple(&self) -> Value {
        json!([number(self.number), self.id, self.graph, self.extra_data, self.outputs])
    }

    /// The client that gets its events.
    pub(super) fn client(&self) -> Option<&str> {
        self.extra_data.get("client_id").and_then(Value::as_str)
    }
}

/// Numbers that were counted are integers; others stay as the client sent them.
#[expect(clippy::cast_possible_truncation, reason = "whole and small")]
pub(super) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// A registered socket with its sid.
#[derive(Debug)]
pub(super) struct Registered {
    pub frames: mpsc::UnboundedSender<Frame>,
}

/// The memory of one process, which is lost when it dies.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub pending: Vec<Item>,
    pub running: Option<Item>,
    pub history: IndexMap<String, Value>,
    pub counter: u32,
    pub sockets: IndexMap<String, Registered>,
    /// Sids whose socket negotiated previews with metadata.
    pub metadata: HashMap<String, bool>,
    /// Results of the last prompt's nodes and their shown outputs, by signature.
    pub cache: HashMap<String, (Made, Option<Value>)>,
    pub interrupt: bool,
    /// The running node.
    pub node: Option<String>,
    pub log_subscribers: Vec<String>,
    pub temp_prefix: String,
    /// Pictures that clients stored under their own ids (`/api/etn/image`).
    pub put_images: HashMap<String, Bytes>,
    /// How often each session of a pack was used.
    pub sessions: HashMap<String, u64>,
    pub pack_sockets: usize,
    /// Models that are loaded, the one that was used last at the end.
    pub loaded: Vec<String>,
}

impl Memory {
    pub(super) fn queue_remaining(&self) -> usize {
        self.pending.len() + usize::from(self.running.is_some())
    }

    /// Takes the item with the lowest number; of equal ones, the earliest.
    pub(super) fn pop(&mut self) -> Option<Item> {
        let lowest = self
            .pending
            .iter()
            .enumerate()
            .min_by(|(_, a), (_, b)| a.number.total_cmp(&b.number))
            .map(|(index, _)| index)?;
        let item = self.pending.remove(lowest);
        self.running = Some(item.clone());
        Some(item)
    }

    pub(super) fn remember(&mut self, id: &str, entry: Value) {
        if self.history.len() == HISTORY_MAX {
            self.history.shift_remove_index(0);
        }
        self.history.insert(id.to_owned(), entry);
    }
}

/// The folders of a server.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum FileKind {
    Input,
    Output,
    Temp,
}

impl FileKind {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "input" => Some(Self::Input),
            "output" => Some(Self::Output),
            "temp" => Some(Self::Temp),
            _ => None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
            Self::Temp => "temp",
        }
    }
}

/// One file.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub bytes: Bytes,
    /// Counts writes, so that an overwritten file differs from the old one.
    pub version: u64,
}

/// The disk: inputs and outputs survive a crash, temp files do not.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: BTreeMap<(FileKind, String), File>,
    writes: u64,
}

impl Files {
    pub(super) fn get(&self, kind: FileKind, path: &str) -> Option<&File> {
        self.files.get(&(kind, path.to_owned()))
    }

    /// Finds a file by its name in a graph: `[subfolder/]name[ [type]]`, by default in the inputs.
    pub(super) fn annotated(&self, text: &str) -> Option<&File> {
        let (name, annotated) = files::without_annotation(text);
        let path = forms::normal(name).filter(|_| !name.starts_with('/'))?;
        self.get(annotated.unwrap_or(FileKind::Input), &path)
    }

    pub(super) fn put(&mut self, kind: FileKind, path: &str, bytes: Bytes) {
        self.writes += 1;
        let file = File { bytes, version: self.writes };
        self.files.insert((kind, path.to_owned()), file);
    }

    /// Paths and sizes of all files of a folder.
    pub(super) fn all(&self, kind: FileKind) -> Vec<(String, usize)> {
        let files = self.files.iter().filter(|((folder, _), _)| *folder == kind);
        files.map(|((_, path), file)| (path.clone(), file.bytes.len())).collect()
    }

    /// Names at the top of a folder, sorted.
    pub(super) fn names(&self, kind: FileKind) -> Vec<&str> {
        let top = |(folder, path): &&(FileKind, String)| *folder == kind && !path.contains('/');
        self.files.keys().filter(top).map(|(_, path)| path.as_str()).collect()
    }

    /// The files of a folder of uploads, by name.
    pub(super) fn in_folder(&self, kind: FileKind, folder: &str) -> Vec<Bytes> {
        let prefix = format!("{}/", folder.trim_matches('/'));
        let inside = |(known, path): &(FileKind, String)| {
            *known == kind && path.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/'))
        };
        let files = self.files.iter().filter(|(at, _)| inside(at));
        files.map(|(_, file)| file.bytes.clone()).collect()
    }

    /// The folders at the top of a folder.
    pub(super) fn folders(&self, kind: FileKind) -> Vec<&str> {
        let paths = self.files.keys().filter(|(known, _)| *known == kind);
        let mut folders: Vec<&str> =
            paths.filter_map(|(_, path)| Some(path.split_once('/')?.0)).collect();
        folders.dedup();
        folders
    }

    /// Names at the top of a folder, newest first.
    pub(super) fn newest(&self, kind: FileKind) -> Vec<&str> {
        let mut files: Vec<_> = self
            .files
            .iter()
            .filter(|((folder, path), _)| *folder == kind && !path.contains('/'))
            .map(|((_, path), file)| (file.version, path.as_str()))
            .collect();
        files.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        files.into_iter().map(|(_, path)| path).collect()
    }

    /// The next free name of a counted output (`folder_paths.py:428`).
    pub(super) fn next_name(&self, kind: FileKind, prefix: &str) -> String {
        let counters =
            self.files.keys().filter(|(folder, _)| *folder == kind).filter_map(|(_, path)| {
                let rest = path.strip_prefix(prefix)?.strip_prefix('_')?;
                rest.split('_').next()?.parse::<u32>().ok()
            });
        let next = counters.max().unwrap_or(0) + 1;
        format!("{prefix}_{next:05}_.png")
    }

    pub(super) fn delete_inputs(&mut self) {
        self.files.retain(|(kind, _), _| *kind != FileKind::Input);
    }

    pub(super) fn wipe_temp(&mut self) {
        self.files.retain(|(kind, _), _| *kind != FileKind::Temp);
    }
}

/// A request that was received.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Raw path and query.
    pub target: String,
    pub headers: http::HeaderMap,
}

/// What it did, for tests. It survives crashes.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub enqueued: Vec<String>,
    /// How often each prompt was started.
    pub executed: BTreeMap<String, u32>,
    /// Prompts that reached their end.
    pub finished: Vec<String>,
    pub interrupted: Vec<String>,
    pub deleted: Vec<String>,
    /// The models that were loaded, in their order, with the prompts that needed them.
    pub loads: Vec<(String, String)>,
}

/// The whole state of one simulated backend.
#[derive(Debug, Default)]
pub(super) struct Server {
    pub memory: Memory,
    pub files: Files,
    pub users: Users,
    pub assets: Database,
    pub ledger: Ledger,
    pub seen: VecDeque<Seen>,
    /// Answers of routes that a test has added.
    pub extra: BTreeMap<String, Bytes>,
    /// Node classes that a test has added.
    pub lent: BTreeMap<String, Lent>,
    pub models: Models,
}

impl Server {
    pub(super) fn see(&mut self, seen: Seen) {
        if self.seen.len() == SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(seen);
    }
}
