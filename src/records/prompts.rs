//! What the ledger and the journal learn of a prompt, together: neither may know what the other
//! does not.
//!
//! The journal is noted under the ledger's lock, so that the last note is of the last state.

use std::sync::Arc;

use tokio::sync::futures::Notified;
use tracing::info;

use super::Records;
use crate::journal::record::{BindingRecord, PromptRecord, Sent, Told};
use crate::lock::{Guard, rank};
use crate::masked::{Masked, mask};
use crate::net::{now, unix_millis};
use crate::routing::client as core;
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::ledger::{Ledger, Record, State};
use crate::routing::owners::Submitter;
use crate::routing::pending::End;
use crate::routing::unclaimed::Found;

/// Whose prompt it was and where, and how long ago it was taken.
#[derive(Debug, Default)]
struct Ending {
    client: Option<Masked>,
    backend: Option<Arc<str>>,
    ms: Option<u64>,
}

impl Records {
    /// A submission goes to `backend`: noted, and durable before its first byte is sent.
    pub fn prompt_placed(&self, prompt: &PromptId, backend: BackendId, output_nodes: &[String]) {
        let mut ledger = self.ledger();
        ledger.placed(prompt, backend);
        self.note_prompt(&mut ledger, prompt, |mut record| {
            record.output_nodes = output_nodes.to_vec();
            record
        });
    }

    /// A prompt of a client was found, where it is pending. False if it is known already.
    pub fn prompt_adopted(&self, client: &ClientId, found: &Found) -> bool {
        let Found { prompt, backend, seen, output_nodes, .. } = found;
        let by = Submitter::client(client.clone());
        let mut ledger = self.ledger();
        let is_new = ledger.adopt(prompt, by, (*backend, *seen), now());
        if is_new {
            self.note_prompt(&mut ledger, prompt, |mut record| {
                record.output_nodes.clone_from(output_nodes);
                record
            });
        }
        is_new
    }

    /// A submission was refused, or never sent: no trace of it stays.
    pub fn prompt_withdrawn(&self, prompt: &PromptId) {
        let mut ledger = self.ledger();
        ledger.withdraw(prompt);
        if ledger.get(prompt, now()).is_none() {
            self.journal.note_prompt(prompt, None);
        }
        drop(ledger);
        self.settled.notify_waiters();
    }

    /// A prompt has ended: the ledger, the journal and the operator learn of it.
    pub fn prompt_ended(&self, prompt: &PromptId, end: End, told: Told) {
        let known = self.note_end(prompt, end, told);
        self.metrics.prompt_ended(end);
        let Ending { client, backend, ms } = self.ending(known);
        let client = client.map(tracing::field::display);
        let backend = backend.as_deref();
        info!(client, %prompt, backend, end = end.reason(), ms, "Prompt ended.");
        self.settled.notify_waiters();
    }

    /// The next time that a prompt is not pending any more, from this call on: its client knew of
    /// it before.
    pub fn next_settled(&self) -> Notified<'_> {
        self.settled.notified()
    }

    /// A prompt that was presumed lost has ended otherwise: history and view tell the truth (P6).
    pub fn prompt_corrected(&self, prompt: &PromptId, end: End) {
        let known = self.note_end(prompt, end, Told::Yes);
        self.metrics.prompts_corrected.inc();
        let Ending { client, backend, ms } = self.ending(known);
        let client = client.map(tracing::field::display);
        let backend = backend.as_deref();
        info!(client, %prompt, backend, end = end.reason(), ms,
            "A prompt that was presumed lost had ended.");
    }

    /// The binding of a client as it is now.
    pub fn note_binding(&self, client: &ClientId, core: &core::Client) {
        if !self.journal.is_kept() {
            return;
        }
        let record = core.bound().map(|(backend, since)| {
            let backend = self.fleet.get(backend);
            let reserved_until = core.reserved_until().and_then(unix_of_coming);
            let (name, url) = (backend.name(), backend.authority.clone());
            BindingRecord::new(name, url, self.unix_at(since), reserved_until)
        });
        self.journal.note_binding(client, record);
    }

    /// What the ledger knows of it.
    fn note_end(&self, prompt: &PromptId, end: End, told: Told) -> Option<Record> {
        let mut ledger = self.ledger();
        ledger.ended(prompt, end, now());
        self.note_prompt(&mut ledger, prompt, |record| record.ended(end, unix_millis(), told));
        ledger.get(prompt, now()).cloned()
    }

    fn ending(&self, known: Option<Record>) -> Ending {
        let Some(known) = known else { return Ending::default() };
        let took = now().saturating_duration_since(known.made).as_millis();
        Ending {
            client: known.by.client.as_ref().map(mask),
            backend: known.backend.map(|id| self.fleet.get(id).name()),
            ms: u64::try_from(took).ok(),
        }
    }

    /// Notes a prompt as the ledger has it, and what the ledger has forgotten for it.
    fn note_prompt(
        &self,
        ledger: &mut Guard<'_, Ledger, { rank::LEDGER }>,
        prompt: &PromptId,
        finish: impl FnOnce(PromptRecord) -> PromptRecord,
    ) {
        let evicted = ledger.take_evicted();
        if !self.journal.is_kept() {
            return;
        }
        if let Some(record) = ledger.get(prompt, now()).and_then(|it| self.record_of(it)) {
            let record = match ledger.get(prompt, now()).map(|it| it.state) {
                // A reset came between the placement and its note.
                Some(State::Ended(end)) => record.ended(end, unix_millis(), Told::No),
                Some(State::Pending | State::Learned) | None => record,
            };
            self.journal.note_prompt(prompt, Some(finish(record)));
        }
        for evicted in evicted {
            self.journal.note_prompt(&evicted, None);
        }
    }

    /// `None` for a prompt of nobody's: it can be learned again.
    fn record_of(&self, known: &Record) -> Option<PromptRecord> {
        let backend = self.fleet.get(known.backend?);
        let sent = Sent {
            backend: backend.name(),
            url: backend.authority.clone(),
            made: self.unix_at(known.made),
            order: known.order,
        };
        let record = PromptRecord::new(known.by.client.as_ref()?, sent, Vec::new());
        Some(record.of(known.by.person.as_ref()))
    }
}

/// `None` if it has passed.
fn unix_of_coming(at: std::time::Instant) -> Option<u64> {
    let left = at.checked_duration_since(now()).filter(|left| !left.is_zero())?.as_millis();
    Some(unix_millis().saturating_add(u64::try_from(left).unwrap_or(u64::MAX)))
}
