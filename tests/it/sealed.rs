//! Bodies of waiting prompts that are sealed in the journal (`state.seal_key_file`).

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;
use mooring::net::sleep;
use mooring::sim::{Options, Sim};
use serde_json::json;
use tempfile::TempDir;

use crate::process::Daemon;
use crate::support::{network, send, soon, until};
use crate::waiting::takes;

/// An API key in a submission.
const SECRET: &str = "s3cret-of-ada-0123456789";

const WAITS: [&str; 4] = ["--set", "queue.depth=1", "--set", "queue.verdict=late"];

/// A file with these keys, a line each.
fn keys_in(folder: &TempDir, name: &str, keys: &[&str]) -> PathBuf {
    let path = folder.path().join(name);
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    made.unwrap().write_all(keys.join("\n").as_bytes()).unwrap();
    path
}

fn start(sim: &Sim, folder: &TempDir, keys: &Path) -> Daemon {
    let set = format!("state.seal_key_file={}", keys.display());
    Daemon::start_with(sim, folder, &[&WAITS, ["--set", set.as_str()].as_slice()].concat())
}

/// What it says when it does not start.
fn refused(sim: &Sim, folder: &TempDir, keys: Option<&Path>) -> String {
    let state = format!("state.dir={}", folder.path().join("state").display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_mooring"));
    command.args(["serve", "--backend", &sim.url(), "--listen", "127.0.0.1:0", "--set", &state]);
    if let Some(keys) = keys {
        command.args(["--set", &format!("state.seal_key_file={}", keys.display())]);
    }
    let output = command.current_dir(folder).env_clear().output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// How many files of the state folder hold this text.
fn files_with(folder: &TempDir, text: &str) -> usize {
    fn walk(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => walk(&entry.path(), all),
                false => all.push(entry.path()),
            }
        }
    }
    let mut all = Vec::new();
    walk(&folder.path().join("state"), &mut all);
    assert!(!all.is_empty());
    let finder = memchr::memmem::Finder::new(text);
    all.iter().filter(|path| finder.find(&fs::read(path).unwrap()).is_some()).count()
}

async fn submit(daemon: &Daemon, seconds: f64, (seed, padding): (u32, usize)) -> String {
    let mut graph = takes(seconds, seed);
    graph["3"]["inputs"]["note"] = "x".repeat(padding).into();
    let extra = json!({ "api_key_comfy_org": SECRET });
    let body = json!({ "client_id": "ada", "prompt": graph, "extra_data": extra }).to_string();
    send(daemon.front, Method::POST, "/prompt", &[], &body).await.prompt_id()
}

// Waiting for the executable blocks a thread; its backend needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sealed_journal_shows_no_body_and_its_prompts_run_after_a_restart_with_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let key = |byte: &str| format!("{}=", byte.repeat(43));
    let (old, new) = (key("A"), key("8"));
    let old_key = keys_in(&folder, "old", &[&old]);
    let new_key = keys_in(&folder, "new", &[&new]);
    let both_keys = keys_in(&folder, "both", &[&new, &old]);

    let daemon = start(&sim, &folder, &old_key);
    // It runs until it is interrupted, so nothing else begins.
    let first = submit(&daemon, 60.0, (0, 0)).await;
    until("it runs", || sim.ledger().executed.contains_key(&first)).await;
    let mut prompts = Vec::new();
    for (seed, padding) in [(1, 0), (2, 3 << 20), (3, 0)] {
        prompts.push(submit(&daemon, 0.05, (seed, padding)).await);
    }
    assert_eq!(files_with(&folder, &prompts[2]), 1, "it is in the journal");
    assert_eq!(files_with(&folder, SECRET), 0, "its body cannot be read there");
    daemon.kill();

    let said = refused(&sim, &folder, None);
    assert!(
        said.contains("3 prompts") && said.contains("`state.seal_key_file` is not set"),
        "{said}"
    );
    let said = refused(&sim, &folder, Some(&new_key));
    assert!(said.contains("`state.seal_key_file` has other keys"), "{said}");

    // The new key seals from now on, and what is there, too.
    start(&sim, &folder, &both_keys).kill();
    assert_eq!(files_with(&folder, SECRET), 0);
    let daemon = start(&sim, &folder, &new_key);
    let path = "/interrupt?clientId=ada";
    assert_eq!(send(daemon.front, Method::POST, path, &[], "{}").await.status, 200);
    let drained = async {
        while daemon.pending().await != 0 {
            sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon("all are over", drained).await;
    assert!(prompts.iter().all(|prompt| sim.ledger().executed.get(prompt) == Some(&1)));
    assert_eq!(files_with(&folder, SECRET), 0);
    daemon.kill();
    // Nothing waits that needs a key.
    Daemon::start_with(&sim, &folder, &WAITS).kill();
}

// As above.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bodies_that_waited_before_there_was_a_key_are_sealed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let daemon = Daemon::start_with(&sim, &folder, &WAITS);
    let first = submit(&daemon, 60.0, (0, 0)).await;
    until("it runs", || sim.ledger().executed.contains_key(&first)).await;
    submit(&daemon, 0.05, (1, 0)).await;
    assert_eq!(files_with(&folder, SECRET), 1, "without a key it stands there");
    daemon.kill();
    let key = keys_in(&folder, "key", &[&format!("{}=", "A".repeat(43))]);
    start(&sim, &folder, &key).kill();
    let said = refused(&sim, &folder, None);
    assert!(said.contains("`state.seal_key_file` is not set"), "{said}");
}

// Waiting for the executable blocks a thread; its backend needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_no_key_opens_is_lost_if_the_operator_says_so_and_what_runs_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let key = |byte: &str| format!("{}=", byte.repeat(43));
    let old_key = keys_in(&folder, "old", &[&key("A")]);
    let new_key = keys_in(&folder, "new", &[&key("8")]);
    let daemon = start(&sim, &folder, &old_key);
    let runs = submit(&daemon, 60.0, (0, 0)).await;
    until("it runs", || sim.ledger().executed.contains_key(&runs)).await;
    let waits = submit(&daemon, 0.05, (1, 0)).await;
    daemon.kill();
    let set = format!("state.seal_key_file={}", new_key.display());
    let more = ["--set", &set, "--set", "state.on_unopened=lose"];
    let daemon = Daemon::start_with(&sim, &folder, &[&WAITS, more.as_slice()].concat());
    let entry = send(daemon.front, Method::GET, &format!("/history/{waits}"), &[], "").await.json();
    assert_eq!(entry[&waits]["status"]["status_str"], "error", "{entry}");
    assert_eq!(daemon.pending().await, 1, "the one that runs is known");
    let path = "/interrupt?clientId=ada";
    assert_eq!(send(daemon.front, Method::POST, path, &[], "{}").await.status, 200);
    until("it is interrupted", || sim.ledger().finished.contains(&runs)).await;
    assert_eq!(sim.ledger().executed.get(&waits), None);
}
