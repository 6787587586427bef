//! Learns what backends have, while prompts wait in the gateway: their nodes, the files of their
//! models with their sizes, and their memory.
//!
//! A backend is asked when it has come up, and again after it has refused a prompt because it lacks
//! a part that it should have, and while it has nothing to do and is passed over because of what it
//! said. One is asked at a time: their answers are large. Until they are there, and if they never
//! come, all backends may be asked for everything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::debug;

use super::asking::answer_of;
use super::cache::{Infos, KNOWN_FOR};
use crate::comfy::model_files;
use crate::comfy::object_info::NodeInfo;
use crate::fleet::api::encode_segment;
use crate::fleet::backend::Backend;
use crate::front::Front;
use crate::net::{now, sleep};
use crate::routing::ids::BackendId;

/// How often it is looked whether a backend has come up, or has told its memory.
const LOOK_EACH: Duration = Duration::from_secs(1);

/// How long one backend may take for everything until the others have their turn. What it answers
/// later is known later.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How old the answer of a backend may be that is passed over because of it.
const OLD: Duration = Duration::from_secs(60);

/// So many times a backend that does not answer, or says the same again, is given twice the rest:
/// half an hour, or an hour.
const RESTS_MAX: u32 = 6;

/// The same after it has refused a prompt: four minutes. What it lacks may be missing since then.
const RESTS_MAX_REFUSED: u32 = 3;

/// Of so many files of one backend sizes are read, or of a few more.
const FILES_MAX: usize = 65_536;

/// What is known of one backend.
#[derive(Debug, Default)]
struct Learned {
    /// When another process may have come, as it was when it was asked.
    replaced: Option<Option<Instant>>,
    /// How often it had changed between up and down.
    times: u64,
    /// The prompts that it had refused because it lacks a part, when it was asked.
    refused: u64,
    failed: u32,
    /// How often it has said the same as before.
    same: u32,
    asked: Option<Instant>,
    /// Of the last answer, and of the one for which sizes were asked.
    hash: Option<u64>,
    sized: Option<u64>,
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
    let mut told = Infos::new();
    loop {
        let mut asked = std::pin::pin!(front.nodes.asked_anew.notified());
        asked.as_mut().enable();
        all.retain(|backend, _| front.shared.fleet.has(*backend));
        for backend in front.shared.fleet.iter() {
            if all.entry(backend.id).or_default().is_to_ask(front, &backend) {
                ask(front, &backend, all.entry(backend.id).or_default()).await;
                tell(front, &all, &mut told).await;
            }
        }
        front.nodes.keep(|backend| front.shared.fleet.has(backend));
        // Pages ask as well.
        tell(front, &all, &mut told).await;
        tokio::select! {
            biased;
            () = asked => {}
            () = sleep(LOOK_EACH) => {}
        }
    }
}

/// Tells what the backends have said, if that is not what was told last. What a process has said
/// that is gone counts until the next one was asked: a backend that restarts should have what it
/// had, so nobody else is asked for that meanwhile.
async fn tell(front: &Front, all: &HashMap<BackendId, Learned>, told: &mut Infos) {
    let infos = front.nodes.current(|backend| {
        let replaced = front.shared.fleet.get(backend).replaced();
        let is_asked = all.get(&backend).is_some_and(|it| it.replaced == Some(replaced));
        replaced.filter(|_| is_asked)
    });
    let same = |(one, other): (&(BackendId, Arc<NodeInfo>), &(BackendId, _))| {
        one.0 == other.0 && Arc::ptr_eq(&one.1, &other.1)
    };
    if told.len() != infos.len() || !told.iter().zip(&infos).all(same) {
        front.sessions.waiting.knows(infos.to_vec()).await;
        *told = infos;
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
        let since = self.asked.map(|at| now().saturating_duration_since(at));
        let has_rested = |rest: Duration, times: u32| {
            let rest = rest.saturating_mul(1 << times.min(RESTS_MAX));
            since.is_none_or(|since| rest <= since)
        };
        if !backend.is_up() {
            return false;
        }
        // It may be what ends the process, so one after the other is given more time.
        if self.replaced != Some(backend.replaced()) {
            return has_rested(LOOK_EACH, self.failed);
        }
        if 0 < self.failed {
            return has_rested(KNOWN_FOR, self.failed);
        }
        // To answer may take so long that a backend counts as down meanwhile.
        if self.times != backend.up_state().times {
            return has_rested(KNOWN_FOR, self.same);
        }
        let has_refused = self.refused != front.nodes.refused_by(backend.id);
        (has_refused && has_rested(KNOWN_FOR, self.same.min(RESTS_MAX_REFUSED)))
            || (has_rested(OLD, self.same) && front.sessions.waiting.passes_over(backend.id))
    }
}

async fn ask(front: &Arc<Front>, backend: &Arc<Backend>, learned: &mut Learned) {
    let replaced = backend.replaced();
    if learned.replaced.replace(replaced) != Some(replaced) {
        // Another process may do better, or not.
        (learned.failed, learned.same) = (learned.failed / 2, 0);
    }
    learned.times = backend.up_state().times;
    learned.refused = front.nodes.refused_by(backend.id);
    let until = now() + ANSWER_MAX;
    let said = timeout(ANSWER_MAX, answer_of(front, backend)).await.ok().flatten();
    learned.asked = Some(now());
    let Some((_, _, hash)) = said else {
        learned.failed = learned.failed.saturating_add(1);
        debug!(backend = %backend.name(), "A backend does not say which nodes it has.");
        return;
    };
    learned.failed = 0;
    let is_same = learned.hash.replace(hash) == Some(hash);
    learned.same = if is_same { learned.same.saturating_add(1) } else { 0 };
    // It walks through its folders for them, so only if it has other nodes or models than before.
    let left = until.saturating_duration_since(now());
    if learned.sized != Some(hash)
        && let Ok(Some(sizes)) = timeout(left, sizes_on(front, backend)).await
    {
        learned.sized = Some(hash);
        front.sessions.waiting.knows_sizes(&sizes);
    }
}

/// The files of models that the backend has; none if it does not say how large they are, and `None`
/// if it does not answer.
async fn sizes_on(front: &Front, backend: &Backend) -> Option<Vec<(String, u64)>> {
    let limit = front.shared.config().fleet.list_timeout;
    let (status, folders) = backend.get("/experiment/models", limit).await.ok()?;
    let mut sizes = Vec::new();
    if status != 200 {
        return Some(sizes);
    }
    for folder in model_files::folders(&folders) {
        let path = format!("/experiment/models/{}", encode_segment(&folder));
        if let Ok(files) = backend.get_ok(&path, limit).await {
            sizes.extend(model_files::sizes(&files));
        }
        if FILES_MAX <= sizes.len() {
            break;
        }
    }
    Some(sizes)
}
