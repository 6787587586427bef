//! Learns what backends have, while prompts wait in the gateway: their nodes, the files of their
//! models with their sizes, and their memory.
//!
//! A backend is asked when it has come up, and again after it has refused a prompt because it lacks
//! a part of it. One is asked at a time: their answers are large. Until they are there, and if they
//! never come, all backends may be asked for everything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::debug;

use super::asking::answer_of;
use super::cache::{Infos, KNOWN_FOR};
use crate::comfy::model_files;
use crate::fleet::api::encode_segment;
use crate::fleet::backend::Backend;
use crate::front::Front;
use crate::net::{now, sleep};
use crate::routing::ids::BackendId;

/// How often it is looked whether a backend has come up, or has told its memory.
const LOOK_EACH: Duration = Duration::from_secs(1);

/// How long one backend may take until the others have their turn. What it answers later is known
/// later.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// So many times a backend that does not answer is given twice the rest: half an hour.
const RESTS_MAX: u32 = 6;

/// What is known of one backend.
#[derive(Debug, Default)]
struct Learned {
    /// How often it had changed between up and down when it was asked.
    times: Option<u64>,
    /// The prompts that it had refused because it lacks a part, when it was asked.
    refused: u64,
    failed: u32,
    asked: Option<Instant>,
    /// Of the answer for which sizes were asked.
    hash: Option<u64>,
}

/// Asks what is to be known, until the process stops.
pub(in crate::front) async fn run(front: Arc<Front>) {
    let both = async { tokio::join!(notice(&front), learn(&front)) };
    tokio::select! {
        biased;
        () = front.shared.tasks.stopping() => {}
        ((), ()) = both => {}
    }
}

async fn learn(front: &Arc<Front>) {
    let mut all: HashMap<BackendId, Learned> = HashMap::new();
    let mut told: Option<Arc<Infos>> = None;
    loop {
        let mut asked = std::pin::pin!(front.nodes.asked_anew.notified());
        asked.as_mut().enable();
        all.retain(|backend, _| front.shared.fleet.has(*backend));
        for backend in front.shared.fleet.iter() {
            let learned = all.entry(backend.id).or_default();
            if learned.is_to_ask(front, &backend) {
                ask(front, &backend, learned).await;
                told = front.nodes.tell_if_new(&front.sessions, told.as_ref());
            }
        }
        front.nodes.keep(|backend| front.shared.fleet.has(backend));
        // Pages ask as well.
        told = front.nodes.tell_if_new(&front.sessions, told.as_ref());
        tokio::select! {
            biased;
            () = asked => {}
            () = sleep(LOOK_EACH) => {}
        }
    }
}

/// Notices what backends are not asked for: that their processes are new, and their memory. Apart
/// from what is asked, which may take long.
async fn notice(front: &Front) {
    let mut all: HashMap<BackendId, (Option<Instant>, Option<u64>)> = HashMap::new();
    loop {
        all.retain(|backend, _| front.shared.fleet.has(*backend));
        for backend in front.shared.fleet.iter() {
            let seen = (backend.replaced(), backend.model_memory());
            let before = all.insert(backend.id, seen).unwrap_or_default();
            if before.0 != seen.0 {
                front.sessions.waiting.emptied(backend.id);
            }
            if let Some(bytes) = seen.1.filter(|_| before.1 != seen.1) {
                front.sessions.waiting.knows_memory(backend.id, bytes);
            }
        }
        sleep(LOOK_EACH).await;
    }
}

impl Learned {
    fn is_to_ask(&self, front: &Front, backend: &Backend) -> bool {
        let since = |at: Instant| now().saturating_duration_since(at);
        let rest = KNOWN_FOR.saturating_mul(1 << self.failed.min(RESTS_MAX));
        let has_rested = self.asked.is_none_or(|at| rest <= since(at));
        let is_new = self.times != Some(backend.up_state().times);
        let has_refused = self.refused != front.nodes.refused_by(backend.id);
        backend.is_up() && has_rested && (is_new || has_refused || 0 < self.failed)
    }
}

async fn ask(front: &Arc<Front>, backend: &Arc<Backend>, learned: &mut Learned) {
    learned.times = Some(backend.up_state().times);
    learned.refused = front.nodes.refused_by(backend.id);
    let said = timeout(ANSWER_MAX, answer_of(front, backend)).await.ok().flatten();
    learned.asked = Some(now());
    learned.failed = if said.is_some() { 0 } else { learned.failed.saturating_add(1) };
    if said.is_none() {
        debug!(backend = %backend.name(), "A backend does not say which nodes it has.");
        return;
    }
    // It walks through its folders for them, so only if it has other nodes or models than before.
    let hash = said.map(|(_, _, hash)| hash);
    if learned.hash != hash
        && let Ok(sizes) = timeout(ANSWER_MAX, sizes_on(front, backend)).await
    {
        learned.hash = hash;
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
