//! Learns what backends have, while prompts wait in the gateway: their nodes, the files of their
//! models with their sizes, and their memory.
//!
//! A backend is asked when it has come up, and again after it has refused a prompt because it lacks
//! a part of it. One is asked at a time: their answers are large. Until they are there, and if they
//! never come, all backends may be asked for everything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use super::asking::answer_of;
use super::cache::KNOWN_FOR;
use crate::comfy::model_files;
use crate::fleet::api::encode_segment;
use crate::fleet::backend::Backend;
use crate::front::Front;
use crate::net::{now, sleep};
use crate::routing::ids::BackendId;
use crate::session::waiting::rest_after;

/// How often it is looked whether a backend has come up, or has told its memory.
const LOOK_EACH: Duration = Duration::from_secs(1);

/// What is known of one backend.
#[derive(Debug, Default)]
struct Learned {
    /// How often it had changed between up and down when it was asked.
    times: Option<u64>,
    /// When its process was last known to be gone.
    restarted: Option<Instant>,
    memory: Option<u64>,
    /// The prompts that it had refused because it lacks a part, when it was asked.
    refused: u64,
    failed: u32,
    asked: Option<Instant>,
}

/// Asks what is to be known, until the process stops.
pub(in crate::front) async fn run(front: Arc<Front>) {
    tokio::select! {
        biased;
        () = front.shared.tasks.stopping() => {}
        () = learn(&front) => {}
    }
}

async fn learn(front: &Arc<Front>) {
    let mut all: HashMap<BackendId, Learned> = HashMap::new();
    let mut told = None;
    loop {
        let mut asked = std::pin::pin!(front.nodes.asked_anew.notified());
        asked.as_mut().enable();
        all.retain(|backend, _| front.shared.fleet.has(*backend));
        for backend in front.shared.fleet.iter() {
            let learned = all.entry(backend.id).or_default();
            notice(front, &backend, learned);
            if learned.is_to_ask(front, &backend) {
                ask(front, &backend, learned).await;
                told = front.nodes.tell_if_new(&front.sessions, told);
            }
        }
        front.nodes.keep(|backend| front.shared.fleet.has(backend));
        // Pages ask as well.
        told = front.nodes.tell_if_new(&front.sessions, told);
        tokio::select! {
            biased;
            () = asked => {}
            () = sleep(LOOK_EACH) => {}
        }
    }
}

/// What it says by itself.
fn notice(front: &Front, backend: &Backend, learned: &mut Learned) {
    let restarted = backend.restarted();
    if learned.restarted != restarted {
        learned.restarted = restarted;
        front.sessions.waiting.emptied(backend.id);
    }
    let memory = backend.model_memory();
    if let Some(bytes) = memory.filter(|_| learned.memory != memory) {
        learned.memory = memory;
        front.sessions.waiting.knows_memory(backend.id, bytes);
    }
}

impl Learned {
    fn is_to_ask(&self, front: &Front, backend: &Backend) -> bool {
        let since = |at: Instant| now().saturating_duration_since(at);
        let rest = if self.failed == 0 { KNOWN_FOR } else { rest_after(self.failed) };
        let has_rested = self.asked.is_none_or(|at| rest <= since(at));
        let is_new = self.times != Some(backend.up_state().times);
        let has_refused = self.refused != front.nodes.refused_by(backend.id);
        let is_due = is_new || (has_rested && (has_refused || 0 < self.failed));
        backend.is_up() && is_due
    }
}

async fn ask(front: &Arc<Front>, backend: &Arc<Backend>, learned: &mut Learned) {
    learned.times = Some(backend.up_state().times);
    learned.refused = front.nodes.refused_by(backend.id);
    let said = answer_of(front, backend).await;
    learned.asked = Some(now());
    learned.failed = if said.is_some() { 0 } else { learned.failed.saturating_add(1) };
    if said.is_none() {
        debug!(backend = %backend.name(), "A backend does not say which nodes it has.");
        return;
    }
    let sizes = sizes_on(front, backend).await;
    if !sizes.is_empty() {
        front.sessions.waiting.knows_sizes(sizes);
    }
}

/// The files of models that the backend has; none if it does not say how large they are.
async fn sizes_on(front: &Front, backend: &Backend) -> Vec<(String, u64)> {
    let limit = front.shared.config().fleet.list_timeout;
    let Ok(folders) = backend.get_ok("/experiment/models", limit).await else { return Vec::new() };
    let mut sizes = Vec::new();
    for folder in model_files::folders(&folders) {
        let path = format!("/experiment/models/{}", encode_segment(&folder));
        if let Ok(files) = backend.get_ok(&path, limit).await {
            sizes.extend(model_files::sizes(&files));
        }
    }
    sizes
}
