//! How long it takes to look a graph's files up, and how much memory a name takes:
//! `cargo bench --bench files`.
//!
//! The bound is a promise: it fails if it is broken. The best of several runs counts, so that a
//! busy machine does not fail it.

#![expect(clippy::print_stdout, reason = "times are what it is for")]

use std::fs;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use mooring::comfy::files;
use mooring::net::now;
use mooring::routing::files::{Files, Maker, Seen};
use mooring::routing::ids::{BackendId, ClientId, FileRef, Folder, Located};

const NAMES: usize = 1_000_000;
const GRAPH_BYTES: usize = 1 << 20;
const BOUND: Duration = Duration::from_millis(10);
const RUNS: usize = 20;

fn main() -> ExitCode {
    let before = resident_bytes();
    let files = ledger();
    let each = resident_bytes().saturating_sub(before) / NAMES;
    println!("{NAMES} names of files, {each} bytes each");
    let body = graph();
    let askers = [Maker::Client(ClientId::parse("ada").expect("it is an id"))];
    let look = || {
        files::mentions(black_box(body.as_bytes()), |it| {
            files.find(it.folder, &it.path, &askers).cloned()
        })
    };
    let found = look().len();
    let best = (0..RUNS).map(|_| time(&look)).min().unwrap_or_default();
    println!("{best:>10.2?}   to find {found} of them in a graph of {} KB", body.len() / 1_000);
    let is_met = best < BOUND && 0 < found;
    if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn time<T>(act: &impl Fn() -> T) -> Duration {
    let began = now();
    black_box(act());
    now().duration_since(began)
}

fn name(number: usize) -> String {
    format!("2026-11/ComfyUI_{number:07}_.png")
}

fn ledger() -> Files {
    let mut files = Files::new(NAMES, Duration::from_secs(86_400));
    let makers = ["ada", "bob"].map(|id| Maker::Client(ClientId::parse(id).expect("it is an id")));
    for number in 0..NAMES {
        let file = FileRef::of_path(Folder::Input, &name(number)).expect("it is a name");
        let at = Located { backend: BackendId::nth(0), file };
        files.learn(&at, &makers[number % 2..=number % 2], Seen::There, now());
    }
    files
}

/// Nodes with a text each, and a picture in every hundredth.
fn graph() -> String {
    let mut nodes = Vec::new();
    let mut bytes = 0;
    while bytes < GRAPH_BYTES {
        let id = nodes.len();
        let image = if id % 100 == 0 { name(id * 7) } else { format!("model-{id}.safetensors") };
        let text = "a quiet harbour at dawn, ".repeat(4);
        let node = format!(
            r#""{id}": {{"class_type": "X", "inputs": {{"a": "{text}", "b": "{image}", "c": 1}}}}"#
        );
        bytes += node.len();
        nodes.push(node);
    }
    format!(r#"{{"prompt": {{{}}}}}"#, nodes.join(", "))
}

/// What the process has in memory (`/proc/self/statm`, in pages of 4 KiB).
fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4_096
}
