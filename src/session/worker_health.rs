//! Checks whether the workers of the backends are alive (promise P9): collects the events of our
//! prompts, reads the queues of silent backends, and judges each worker.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use super::Client;
use crate::comfy::answers::queued_ids;
use crate::fleet::backend::Backend;
use crate::routing::ids::BackendId;
use crate::routing::pending::Phase;
use crate::routing::worker::{OwnPrompt, QueueReading};
use crate::shared::Shared;

/// How long a round waits for one backend.
const ROUND_MAX: Duration = Duration::from_secs(2);

/// Judges a backend's worker once, by the events that clients got whose prompts run there.
pub(super) async fn round(shared: &Shared, backend: &Backend, running: &[Arc<Client>]) {
    let mut ours = gather(backend.id, running);
    if backend.worker_wants_reading(ours.iter().map(|it| it.heard).max()) {
        read(shared, backend).await;
        ours = gather(backend.id, running);
    }
    backend.judge_worker(&ours, shared.config().fleet.worker_limits());
}

/// Our prompts that run there, if their links would receive their events.
fn gather(backend: BackendId, clients: &[Arc<Client>]) -> Vec<OwnPrompt> {
    let mut all = Vec::new();
    for client in clients {
        client.add_running(backend, &mut all);
    }
    all
}

async fn read(shared: &Shared, backend: &Backend) {
    let limit = shared.config().fleet.probe_timeout.min(ROUND_MAX);
    let Ok(Ok(queue)) = timeout(limit, backend.read_queue(limit)).await else { return };
    match queued_ids(&queue) {
        Ok((running, waiting)) => {
            let running = running.into_iter().collect();
            backend.queue_was_read(QueueReading { running, waiting: waiting.len() });
        }
        Err(error) => debug!(backend = %backend.name(), %error, "A queue could not be read."),
    }
}

impl Client {
    /// The backend whose running prompts its link receives events of.
    pub(super) fn runs_at(&self) -> Option<BackendId> {
        let state = self.state();
        let backend = state.link.as_ref()?.backend;
        let mut pending = state.core.pending().values();
        let is_running = pending.any(|it| it.is_on(backend) && it.phase == Phase::Running);
        is_running.then_some(backend)
    }

    /// Adds its prompts that run there, if its link would receive their events.
    fn add_running(&self, backend: BackendId, all: &mut Vec<OwnPrompt>) {
        let state = self.state();
        let Some(link) = state.link.as_ref().filter(|link| link.backend == backend) else { return };
        let Some(listens) = link.listens_since() else { return };
        let there = state.core.pending().iter().filter(|(_, it)| it.is_on(backend));
        for (prompt, pending) in there.filter(|(_, it)| it.phase == Phase::Running) {
            all.push(OwnPrompt {
                prompt: prompt.clone(),
                started: pending.began(),
                heard: pending.spoke().max(listens),
            });
        }
    }
}
