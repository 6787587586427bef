//! Do the workers of the backends live? (Promise P9.) What is heard of our prompts is gathered, the
//! queues of those that are silent are read, and each worker is judged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::debug;

use super::Client;
use crate::comfy::answers::queued_ids;
use crate::fleet::backend::Backend;
use crate::gateway::Gateway;
use crate::routing::ids::BackendId;
use crate::routing::pending::Phase;
use crate::routing::worker::{Ours, Reading};

/// How long a round waits for one backend.
const ROUND_MAX: Duration = Duration::from_secs(2);

/// Judges every worker once.
pub(super) async fn round(gateway: &Gateway) {
    let ours = gather(gateway);
    let silent = gateway.fleet.iter().filter(|backend| {
        let heard = ours.get(&backend.id).and_then(|ours| latest(ours));
        backend.is_up() && backend.worker_wants_reading(heard)
    });
    let reads: Vec<_> = silent.map(|backend| read(gateway, backend)).collect();
    let ours = if reads.is_empty() {
        ours
    } else {
        futures_util::future::join_all(reads).await;
        gather(gateway)
    };
    let limits = gateway.config.fleet.worker_limits();
    for backend in gateway.fleet.iter().filter(|backend| backend.is_up()) {
        let ours = ours.get(&backend.id).map_or(&[][..], Vec::as_slice);
        backend.judge_worker(ours, limits);
    }
}

fn latest(ours: &[Ours]) -> Option<Instant> {
    ours.iter().map(|it| it.heard).max()
}

fn gather(gateway: &Gateway) -> BTreeMap<BackendId, Vec<Ours>> {
    let mut all: BTreeMap<BackendId, Vec<Ours>> = BTreeMap::new();
    for client in gateway.clients.working() {
        client.add_running(&mut all);
    }
    all
}

async fn read(gateway: &Gateway, backend: &Backend) {
    let limit = gateway.config.fleet.probe_timeout.min(ROUND_MAX);
    let Ok(Ok(queue)) = timeout(limit, backend.read_queue(limit)).await else { return };
    match queued_ids(&queue) {
        Ok((running, waiting)) => {
            let running = running.into_iter().collect();
            backend.queue_was_read(Reading { running, waiting: waiting.len() });
        }
        Err(error) => debug!(backend = %backend.name, %error, "A queue could not be read."),
    }
}

impl Client {
    /// Its prompts that run, as far as its link would hear of them.
    fn add_running(&self, all: &mut BTreeMap<BackendId, Vec<Ours>>) {
        let state = self.state();
        let Some(link) = &state.link else { return };
        let Some(listens) = link.listens_since() else { return };
        let there = state.core.pending().iter().filter(|(_, it)| it.backend == link.backend);
        for (prompt, pending) in there.filter(|(_, it)| it.phase == Phase::Running) {
            all.entry(link.backend).or_default().push(Ours {
                prompt: prompt.clone(),
                started: pending.began(),
                heard: pending.spoke().max(listens),
            });
        }
    }
}
