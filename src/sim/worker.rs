//! The single worker: takes prompts from the queue, runs them, and sends how each ended. It dies of
//! what kills ComfyUI's worker, and nothing else notices (`main.py`, `prompt_worker`).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::events::timed;
use super::fatal;
use super::prompts::without_secrets;
use super::run::{Outcome, Run};
use super::state::Item;
use super::{Shared, WorkerDies, assets, nodes};
use crate::net::sleep;

/// Whether the worker goes on after a prompt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Thread {
    Lives,
    Dead,
}

/// Works until the process or the worker dies.
pub(super) async fn work(shared: Arc<Shared>) {
    loop {
        while shared.faults().worker_dies == WorkerDies::BetweenPrompts {
            shared.faults_changed().await;
        }
        let item = shared.server().memory.pop();
        let Some(item) = item else {
            shared.work.notified().await;
            continue;
        };
        shared.say_status();
        if let Some(delay) = shared.faults().start_delay() {
            sleep(delay).await;
        }
        match run(&shared, &item).await {
            Thread::Lives => {}
            Thread::Dead => return,
        }
    }
}

async fn run(shared: &Arc<Shared>, item: &Item) -> Thread {
    {
        let mut server = shared.server();
        server.memory.interrupt = false;
        *server.ledger.executed.entry(item.id.clone()).or_default() += 1;
    }
    let mut messages = Vec::new();
    shared.tell_kept(item, &mut messages, "execution_start", timed(&item.id));
    if shared.faults().worker_dies == WorkerDies::AtAStart {
        return Thread::Dead;
    }
    let classes = nodes::all(&shared.release);
    if let Some(reason) = fatal::reason(&item.graph, &item.outputs, classes) {
        tracing::debug!(
            reason,
            "The worker of a simulated ComfyUI is dead, as a real one would be."
        );
        return Thread::Dead;
    }
    let mut run = Run::new(shared, item, messages);
    let (name, data, status) = match run.all().await {
        Outcome::Success => ("execution_success", timed(&item.id), "success"),
        Outcome::Error(data) => ("execution_error", data, "error"),
        Outcome::Interrupted(data) => ("execution_interrupted", data, "error"),
        Outcome::Exit => return Thread::Dead,
    };
    // A prompt without a client sends no start and no success, but its interruption goes to every
    // socket.
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
        assets::ended(shared, &mut server, &item.id, run.outputs.values());
    }
    shared.say_status();
    if item.client().is_some() && !shared.faults().no_last_word {
        shared.say("executing", &json!({ "node": null, "prompt_id": item.id }), item.client());
    }
    shared.seed_outputs();
    Thread::Lives
}

/// The history entry of a prompt (`execution.py:1145`).
fn entry(item: &Item, outputs: &Map<String, Value>, messages: &[Value], status: &str) -> Value {
    let of_node = |id: &String| {
        let meta = json!({
            "node_id": id, "display_node": id, "parent_node": null, "real_node_id": id,
        });
        (id.clone(), meta)
    };
    let meta: Map<String, Value> = outputs.keys().map(of_node).collect();
    let mut prompt = item.tuple();
    if let Some(extra_data) = prompt[3].as_object_mut() {
        without_secrets(extra_data);
    }
    json!({
        "prompt": prompt,
        "outputs": outputs,
        "status": {
            "status_str": status, "completed": status == "success", "messages": messages,
        },
        "meta": meta,
    })
}
