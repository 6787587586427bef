//! Restores bindings, pending prompts and the ledger from the journal at a start.
//!
//! This happens before the listeners open, so that no request can place a client elsewhere. Links
//! of clients with pending prompts are dialled, and the reconciler asks for these prompts. Ends
//! that perhaps no socket got are fetched and sent to the next sockets.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::{info, warn};

use super::Client;
use super::Sessions;
use crate::fleet::backend::Backend;
use crate::journal::quarantine::sift;
use crate::journal::record::Saved;
use crate::journal::restore::{RestoreParams, Restored, RestoredClient, restore};
use crate::net::{now, unix_millis};
use crate::routing::ids::PromptId;
use crate::routing::servers::{ServerKey, Servers};
use crate::shared::Shared;

impl Sessions {
    /// Restores everything from the journal.
    pub fn restore(self: &Arc<Self>, mut saved: Saved) {
        // First, so that no client is placed on a backend that is off.
        self.restore_added(std::mem::take(&mut saved.added));
        self.restore_found(std::mem::take(&mut saved.found));
        self.restore_leftovers(&saved);
        // After all backends were restored.
        self.shared.restore_home(saved.home.take());
        self.note_members(saved.members.clone());
        self.shared.records.restore_states(std::mem::take(&mut saved.states));
        let (clients, prompts) = (saved.clients.len(), saved.prompts.len());
        let file_count = saved.files.len();
        let started = now();
        self.shared.records.restore_names(saved.names.clone());
        let servers = servers(&self.shared);
        let parts = saved.join_parts();
        let bodies = saved.bodies.iter().map(|(id, _)| id.clone());
        let bodies: HashSet<PromptId> = bodies.chain(parts.keys().cloned()).collect();
        for (prompt, count) in parts {
            self.shared.records.journal.has_parts(&prompt, count);
        }
        let (all, set_aside) = sift(saved, |saved| restore(saved, self.params(&servers)));
        self.shared.metrics.journal.set_aside.inc_by(set_aside as u64);
        let Restored { clients: restored, ledger, files, renamed, names, assets, forgotten } = all;
        self.shared.records.restore_older_names(names);
        self.shared.records.rename_files(renamed);
        self.shared.records.restore_files(files);
        self.shared.records.restore_assets(assets);
        self.shared.records.restore_prompts(ledger);
        self.waiting.counts_from(self.shared.records.submitted());
        self.forget_bodies(&bodies, &restored);
        let pending: usize = restored.iter().map(|client| client.pending.len()).sum();
        let lost: usize = restored.iter().map(|client| client.lost.len()).sum();
        for client in restored {
            let client = Client::restored(client, self);
            self.clients.restore(&client);
            client.take_up(self);
        }
        for client in &forgotten {
            self.shared.records.journal.note_binding(client, None);
        }
        self.reconcile_soon();
        let took_ms = now().duration_since(started).as_millis();
        if self.shared.records.journal.is_kept() {
            info!(
                clients,
                prompts,
                files = file_count,
                pending,
                took_ms,
                "Restored the content of the journal."
            );
        }
        if 0 < lost {
            warn!(lost, "Prompts are lost: their backends are no longer there.");
        }
    }

    /// Bodies whose prompts have ended are not needed any more: a crash came between both.
    fn forget_bodies(&self, saved: &HashSet<PromptId>, restored: &[RestoredClient]) {
        let kept = restored.iter().flat_map(|client| client.kept.iter().map(|(id, _)| id));
        let kept: HashSet<&PromptId> = kept.collect();
        for prompt in saved.iter().filter(|prompt| !kept.contains(prompt)) {
            self.shared.records.journal.forget_body(prompt);
        }
    }

    fn params<'a>(&self, backends: &'a Servers) -> RestoreParams<'a> {
        RestoreParams {
            backends,
            max_clients: self.shared.config().affinity.max_clients,
            lease: self.shared.config().affinity.lease,
            reservation: self.shared.config().affinity.reservation,
            replay_window: self.shared.config().sockets.replay_window,
            now: now(),
            unix_millis: unix_millis(),
        }
    }
}

/// The servers of the fleet, in the form that records use.
pub(super) fn servers(shared: &Shared) -> Servers {
    let server =
        |it: Arc<Backend>| (ServerKey::new(Arc::clone(&it.authority), it.identity()), it.id);
    shared.fleet.iter().map(server).collect()
}
