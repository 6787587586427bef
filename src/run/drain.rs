//! Leaves: what is pending or open gets its time to end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use crate::masked::mask;
use crate::net::sleep;
use crate::routing::ids::{ClientId, PromptId};
use crate::session::{Client, Sessions};
use crate::tasks::Tasks;

/// How many of the prompts that are left behind are named in the log.
const LEFT_TOLD_MAX: usize = 100;

/// Leaves: first not ready and still serving, then without listeners, until all is done or the
/// time is up.
pub(super) async fn drain(sessions: &Sessions, tasks: &Tasks) {
    let config = sessions.shared.config_kept();
    let server = &config.server;
    sessions.shared.leave();
    if !server.drain_pending.is_zero() {
        work_is_done(sessions, server.drain_pending).await;
    }
    sleep(server.drain_delay).await;
    match tasks.drain(server.drain_timeout.saturating_sub(server.drain_delay)).await {
        0 => info!("Drained."),
        left => warn!(left, "Drain deadline reached; closing the rest."),
    }
}

/// As a sidecar: waits, still serving, until no prompt is pending, and says what was left.
pub(super) async fn work_is_done(sessions: &Sessions, limit: Duration) {
    let done = async {
        loop {
            // Before the look: it hears of every end from here on.
            let one_less = sessions.shared.records.next_settled();
            if sessions.clients.working().iter().all(|client| is_idle(client)) {
                return;
            }
            one_less.await;
        }
    };
    if timeout(limit, done).await.is_ok() {
        return info!("No prompt is pending any more.");
    }
    let left = pending(sessions).count();
    warn!(left, "The wait for pending prompts is over; they go on without us.");
    for (client, prompt, backend) in pending(sessions).take(LEFT_TOLD_MAX) {
        warn!(client = %mask(&client), %prompt, backend = &*backend, "Prompt is left behind.");
    }
}

fn is_idle(client: &Client) -> bool {
    client.inspect(|core, _| core.pending().is_empty())
}

/// Every pending prompt, with its client and the name of its backend.
fn pending(sessions: &Sessions) -> impl Iterator<Item = (ClientId, PromptId, Arc<str>)> {
    sessions.clients.all().into_iter().flat_map(move |client| {
        let id = client.id.clone();
        client.pending().into_iter().map(move |(prompt, pending)| {
            (id.clone(), prompt, sessions.shared.fleet.name_of(pending.backend()))
        })
    })
}
