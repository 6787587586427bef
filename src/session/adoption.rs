//! Finds the prompts that run and wait at the backends when a gateway starts without a journal, or
//! with an empty one. Their clients may come back.
//!
//! Each backend's queue is read once, when it is first up. Its prompts are kept under the ids of
//! their clients. A client gets its prompts back when it makes contact, and not before: a link
//! opened in its name would take the events away from a client that uses that server directly.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use indexmap::IndexMap;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::Sessions;
use crate::comfy::answers::Junk;
use crate::comfy::submitted::{Submitted, submitted};
use crate::fleet::backend::Backend;
use crate::lock::{Guard, Lock, rank};
use crate::net::{now, sleep};
use crate::routing::ids::{BackendId, ClientId};
use crate::routing::ledger::State;
use crate::routing::unclaimed::{Found, Unclaimed};

/// The pause before a queue is read again after a failure.
const AGAIN: Duration = Duration::from_millis(500);

/// What was found, and which backends are still to be read.
#[derive(Debug, Default)]
pub struct Adoption {
    unclaimed: Lock<Unclaimed, { rank::UNCLAIMED }>,
    /// False while nothing is kept. Each submission checks this flag.
    has_any: AtomicBool,
    unread: Lock<BTreeSet<BackendId>, { rank::UNREAD }>,
    was_read: Notify,
}

impl Adoption {
    /// True if prompts of this client are kept.
    #[must_use]
    pub fn has(&self, client: &ClientId) -> bool {
        self.has_any.load(Ordering::Acquire) && self.unclaimed().has(client)
    }

    /// See [`Unclaimed::claim`].
    #[must_use]
    pub fn claim(&self, client: &ClientId, now: Instant) -> Vec<Found> {
        match self.has_any.load(Ordering::Acquire) {
            true => self.change(|unclaimed| unclaimed.claim(client, now)),
            false => Vec::new(),
        }
    }

    /// See [`Unclaimed::keep`].
    pub fn keep(&self, client: ClientId, found: Vec<Found>, until: Instant, max: usize) -> usize {
        self.change(|unclaimed| unclaimed.keep(client, found, until, max))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Unclaimed) -> T) -> T {
        let mut unclaimed = self.unclaimed();
        let changed = change(&mut unclaimed);
        self.has_any.store(!unclaimed.is_empty(), Ordering::Release);
        changed
    }

    /// Locked for one call, never together with anything else.
    #[cfg_attr(debug_assertions, track_caller)]
    fn unclaimed(&self) -> Guard<'_, Unclaimed, { rank::UNCLAIMED }> {
        self.unclaimed.lock()
    }

    /// Waits until the queue of this backend need not be read any more. Cancel safe.
    pub async fn has_read(&self, backend: BackendId) {
        loop {
            // Created before the check, so that no reading after it is missed.
            let one_more = self.was_read.notified();
            if !self.unread().contains(&backend) {
                return;
            }
            one_more.await;
        }
    }

    fn read(&self, backend: BackendId) {
        self.unread().remove(&backend);
        self.was_read.notify_waiters();
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn unread(&self) -> Guard<'_, BTreeSet<BackendId>, { rank::UNREAD }> {
        self.unread.lock()
    }
}

impl Sessions {
    /// Reads the queues of all backends, because nothing is known of their prompts.
    pub fn look_for_unclaimed(self: &Arc<Self>) {
        self.shared.fleet.iter().for_each(|backend| self.look_for_unclaimed_at(backend));
    }

    /// Reads the queue of this backend, because nothing is known of its prompts.
    pub(super) fn look_for_unclaimed_at(self: &Arc<Self>, backend: Arc<Backend>) {
        self.adoption.unread().insert(backend.id);
        let sessions = Arc::clone(self);
        self.shared.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = backend.leaves() => {}
                () = look(&sessions, &backend) => {}
            }
            sessions.adoption.unread().remove(&backend.id);
        });
    }

    /// Keeps the prompts in a backend's queue that are unknown here, for the lease of their
    /// clients.
    ///
    /// # Errors
    /// The answer is not a queue.
    fn keep_unclaimed(self: &Arc<Self>, backend: &Backend, queue: &Bytes) -> Result<(), Junk> {
        let now = now();
        let all = submitted(queue, &self.shared.config().sockets.output_classes)?;
        let known = self.shared.records.prompts(all.iter().map(|submitted| &submitted.prompt));
        let mut by_client: IndexMap<ClientId, Vec<Found>> = IndexMap::new();
        for Submitted { client, prompt, stage, output_nodes } in all {
            let known = known.get(&prompt).map(|record| record.state);
            if matches!(known, None | Some(State::Learned)) {
                let found = Found { prompt, backend: backend.id, seen: now, stage, output_nodes };
                by_client.entry(client).or_default().push(found);
            }
        }
        let until = now + self.shared.config().affinity.lease;
        let per_client = self.shared.config().prompts.max_pending_per_client;
        let (clients, mut prompts, mut left) = (by_client.len(), 0, 0);
        for (client, found) in by_client {
            prompts += found.len();
            left += self.adoption.keep(client.clone(), found, until, per_client);
            // The client may have come while the queue was read.
            if let Some(client) = self.clients.get(&client) {
                client.adopt(self);
            }
        }
        if 0 < prompts {
            info!(backend = %backend.name(), clients, prompts,
                "Found prompts of unknown clients; they are kept until the clients come.");
        }
        if 0 < left {
            warn!(backend = %backend.name(), left,
                "There are more prompts than can be kept; the rest cannot be claimed.");
        }
        Ok(())
    }
}

/// Reads the queue of a backend once, and drops the prompts whose clients have not come in time.
async fn look(sessions: &Arc<Sessions>, backend: &Backend) {
    let limit = sessions.shared.config().fleet.probe_timeout;
    loop {
        backend.is_up_again().await;
        if backend.load.queue_remaining() == 0 {
            // The backend has just reported this.
            break;
        }
        let told = match backend.read_queue(limit).await {
            Ok(queue) => {
                sessions.keep_unclaimed(backend, &queue).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match told {
            Ok(()) => break,
            Err(error) => debug!(backend = %backend.name(), error, "A queue could not be read."),
        }
        sleep(AGAIN).await;
    }
    sessions.adoption.read(backend.id);
    let lease = sessions.shared.config().affinity.lease;
    sleep(lease).await;
    sessions.adoption.change(|unclaimed| unclaimed.forget_expired(now()));
}
