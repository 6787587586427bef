//! Records of prompts: updates the ledger and the journal together, so that they always agree.
//!
//! The journal is noted under the ledger's lock, so that the last note has the last state.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::futures::Notified;
use tracing::info;

use super::Records;
use crate::journal::record::{BindingRecord, PromptRecord, Sent, Told};
use crate::lock::{Guard, rank};
use crate::masked::{Masked, mask};
use crate::net::{now, unix_millis};
use crate::routing::client as core;
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::ledger::{Entry, Known, Ledger, Listed, Record, State, Way, histories, newest};
use crate::routing::owners::{Owner, Person, Submitter};
use crate::routing::pending::{End, Errand};
use crate::routing::shard::Key;
use crate::routing::unclaimed::Found;

/// The owner and backend of a prompt that ended, and its age.
#[derive(Debug, Default)]
struct Ending {
    client: Option<Masked>,
    backend: Option<Arc<str>>,
    ms: Option<u64>,
}

impl Records {
    /// Reserves an id for a new submission.
    ///
    /// # Errors
    /// The id is in use, by a pending or an ended prompt.
    pub fn reserve(&self, prompt: &PromptId, by: Submitter) -> Result<(), Known> {
        let mut ledger = self.ledger_of(prompt);
        self.count(&mut ledger);
        ledger.reserve(prompt, by, now())
    }

    /// A prompt that nobody submitted through us was found on `backend`.
    pub fn learn_prompt(&self, prompt: &PromptId, backend: BackendId) {
        let mut ledger = self.ledger_of(prompt);
        self.count(&mut ledger);
        ledger.learn(prompt, backend, now());
    }

    /// What is known of a prompt.
    #[must_use]
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn prompt(&self, prompt: &PromptId) -> Option<Record> {
        self.ledger_of(prompt).get(prompt, now()).cloned()
    }

    /// What is known of several prompts, looked up together. Unknown ones are left out.
    #[must_use]
    pub fn prompts<'p>(
        &self,
        prompts: impl IntoIterator<Item = &'p PromptId>,
    ) -> HashMap<PromptId, Record> {
        let prompts: Vec<&PromptId> = prompts.into_iter().collect();
        let (mut found, now) = (HashMap::with_capacity(prompts.len()), now());
        self.ledger.each_of(prompts.iter().map(|prompt| key_of(prompt)), |ledger, places| {
            for prompt in places.iter().filter_map(|(_, it)| prompts.get(*it)) {
                let record = ledger.get(prompt, now).cloned();
                found.extend(record.map(|record| ((*prompt).clone(), record)));
            }
        });
        found
    }

    /// Removes these from histories; see [`Ledger::unlist`].
    pub fn unlist<'p>(&self, prompts: impl IntoIterator<Item = &'p PromptId>) {
        let prompts: Vec<&PromptId> = prompts.into_iter().collect();
        self.ledger.each_of(prompts.iter().map(|prompt| key_of(prompt)), |ledger, places| {
            let prompts = places.iter().filter_map(|(_, it)| prompts.get(*it));
            prompts.for_each(|prompt| ledger.unlist(prompt));
        });
    }

    /// The history of these owners: the newest `max` of each, in the order of their ends.
    #[must_use]
    pub fn history_of(&self, owners: &[Owner], max: usize) -> Vec<Listed> {
        let now = now();
        let shards = self.ledger.each();
        let all = shards.flat_map(|mut ledger| ledger.history_of(owners, max, now)).collect();
        histories(all, owners, max)
    }

    /// The newest `max` prompts of all histories except those of unnamed submitters, in the order
    /// of their ends.
    #[must_use]
    pub fn history_of_all(&self, max: usize) -> Vec<Listed> {
        let now = now();
        let shards = self.ledger.each();
        newest(shards.flat_map(|mut ledger| ledger.history_of_all(max, now)).collect(), max)
    }

    /// The newest `max` prompts that ended, of whomever, in the order of their ends.
    #[must_use]
    pub fn newest_ends(&self, max: usize) -> Vec<Listed> {
        let now = now();
        let shards = self.ledger.each();
        newest(shards.flat_map(|mut ledger| ledger.newest_ends(max, now)).collect(), max)
    }

    /// The pending prompts of a person, over all of that person's clients.
    #[must_use]
    pub fn pending_of(&self, person: &Person) -> Vec<PromptId> {
        self.ledger.each().flat_map(|ledger| ledger.pending_of(person)).collect()
    }

    /// True if anything of a person is pending or in a history.
    #[must_use]
    pub fn knows(&self, person: &Person) -> bool {
        self.ledger.each().any(|ledger| ledger.knows(person))
    }

    /// The prompts that were presumed lost because `backend` was away or ran nothing, in no order.
    #[must_use]
    pub fn presumed_lost(&self, backend: BackendId) -> Vec<PromptId> {
        self.ledger.each().flat_map(|ledger| ledger.presumed_lost(backend)).collect()
    }

    /// How many prompts were submitted, also to earlier processes, as far as the journal goes back.
    #[must_use]
    pub fn submitted(&self) -> u64 {
        self.submissions.load(Ordering::Relaxed)
    }

    /// Restores the prompts from the journal. Ended ones must be in the order of their ends.
    pub fn restore_prompts(&self, entries: Vec<Entry>) {
        let now = now();
        let latest = entries.iter().map(|entry| entry.order + 1).max().unwrap_or(0);
        self.submissions.fetch_max(latest, Ordering::Relaxed);
        self.ledger.divide(
            entries,
            |entry| key_of(&entry.prompt),
            |ledger, entries| {
                entries.into_iter().for_each(|entry| ledger.restore(entry, now));
                for evicted in ledger.take_evicted() {
                    self.journal.note_prompt(&evicted, None);
                }
            },
        );
    }

    /// Gives a submission the next number over all shards. It is taken under the shard's lock, so
    /// that the numbers in a shard increase.
    fn count(&self, ledger: &mut Ledger) {
        ledger.count_from(self.submissions.fetch_add(1, Ordering::Relaxed));
    }

    /// The shard of the ledger that has a prompt. Locked for one call.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn ledger_of(&self, prompt: &PromptId) -> Guard<'_, Ledger, { rank::LEDGER }> {
        self.ledger.at(key_of(prompt))
    }

    /// Records that a submission goes to `backend`. The caller makes this durable before the first
    /// byte is sent.
    pub fn prompt_placed(&self, prompt: &PromptId, backend: BackendId, output_nodes: &[String]) {
        let mut ledger = self.ledger_of(prompt);
        ledger.placed(prompt, backend);
        self.note_prompt(&mut ledger, prompt, |mut record| {
            record.output_nodes = output_nodes.to_vec();
            record
        });
    }

    /// Records that a prompt that has waited goes to `backend`. To be called under its client's
    /// lock, as [`Records::prompt_waits`], so that both always say what its client knows.
    pub fn prompt_handed_over(
        &self,
        prompt: &PromptId,
        (backend, errand): (BackendId, Errand),
        output_nodes: &[String],
    ) {
        let mut ledger = self.ledger_of(prompt);
        match errand {
            Errand::Run => ledger.placed(prompt, backend),
            Errand::Trial => ledger.on_trial(prompt, backend),
        }
        self.note_prompt(&mut ledger, prompt, |mut record| {
            record.output_nodes = output_nodes.to_vec();
            record
        });
    }

    /// Records that a submission waits in the gateway. The caller makes this durable before the
    /// submission is answered.
    pub fn prompt_waits(&self, prompt: &PromptId, output_nodes: &[String]) {
        let mut ledger = self.ledger_of(prompt);
        ledger.waits(prompt);
        self.note_prompt(&mut ledger, prompt, |mut record| {
            record.output_nodes = output_nodes.to_vec();
            record
        });
    }

    /// Records that a backend has accepted a prompt that has waited. To be called under the lock of
    /// its client, too.
    pub fn prompt_taken(&self, prompt: &PromptId, output_nodes: &[String]) {
        let mut ledger = self.ledger_of(prompt);
        ledger.taken(prompt);
        self.note_prompt(&mut ledger, prompt, |mut record| {
            record.output_nodes = output_nodes.to_vec();
            record
        });
    }

    /// A client's prompt was found where it is pending. False if it was already known.
    pub fn prompt_adopted(&self, client: &ClientId, found: &Found) -> bool {
        let Found { prompt, backend, seen, output_nodes, .. } = found;
        let by = Submitter::client(client.clone());
        let mut ledger = self.ledger_of(prompt);
        self.count(&mut ledger);
        let is_new = ledger.adopt(prompt, by, (*backend, *seen), now());
        if is_new {
            self.note_prompt(&mut ledger, prompt, |mut record| {
                record.output_nodes.clone_from(output_nodes);
                record
            });
        }
        is_new
    }

    /// A submission was refused or never sent: its record is removed.
    pub fn prompt_withdrawn(&self, prompt: &PromptId) {
        let mut ledger = self.ledger_of(prompt);
        ledger.withdraw(prompt);
        if ledger.get(prompt, now()).is_none() {
            self.journal.note_prompt(prompt, None);
        }
        drop(ledger);
        self.settled.notify_waiters();
    }

    /// A prompt has ended: updates the ledger, the journal and the log.
    pub fn prompt_ended(&self, prompt: &PromptId, end: End, told: Told) {
        let known = self.note_end(prompt, end, told);
        let Ending { client, backend, ms } = self.ending(known);
        let client = client.map(tracing::field::display);
        let backend = backend.as_deref();
        info!(client, %prompt, backend, end = end.reason(), ms, "Prompt ended.");
        self.settled.notify_waiters();
    }

    /// The end of a prompt was told, after it was noted.
    pub fn end_told(&self, prompt: &PromptId, end: End) {
        let is_same = |known: &Record| known.state == State::Ended(end);
        if self.ledger_of(prompt).get(prompt, now()).is_some_and(is_same) {
            let _known = self.note_end(prompt, end, Told::Yes);
        }
    }

    /// Completes when the next prompt after this call is no longer pending. Its client has been
    /// told before that.
    pub fn next_settled(&self) -> Notified<'_> {
        self.settled.notified()
    }

    /// A prompt that was presumed lost ended in another way: corrects the history and the view
    /// (P6).
    pub fn prompt_corrected(&self, prompt: &PromptId, end: End) {
        let known = self.note_end(prompt, end, Told::Yes);
        self.metrics.prompts_corrected.inc();
        let Ending { client, backend, ms } = self.ending(known);
        let client = client.map(tracing::field::display);
        let backend = backend.as_deref();
        info!(client, %prompt, backend, end = end.reason(), ms,
            "A prompt that was presumed lost had ended.");
    }

    /// Notes the current binding of a client.
    pub fn note_binding(&self, client: &ClientId, core: &core::Client) {
        if !self.journal.is_kept() {
            return;
        }
        let record = core.bound().map(|(backend, since)| {
            let backend = self.fleet.get(backend);
            let reserved_until = core.reserved_until().and_then(unix_of_coming);
            let (name, url) = (backend.name(), backend.authority.clone());
            let record = BindingRecord::new(name, url, self.unix_at(since), reserved_until);
            record.to(backend.identity())
        });
        self.journal.note_binding(client, record);
    }

    /// Returns what the ledger knows of the prompt.
    fn note_end(&self, prompt: &PromptId, end: End, told: Told) -> Option<Record> {
        let mut ledger = self.ledger_of(prompt);
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

    /// Notes a prompt as the ledger has it, and deletes those that the ledger forgot to make room.
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
                // The client was reset between the placement and its note.
                Some(State::Ended(end)) => record.ended(end, unix_millis(), Told::No),
                Some(State::Pending | State::Learned) | None => record,
            };
            self.journal.note_prompt(prompt, Some(finish(record)));
        }
        for evicted in evicted {
            self.journal.note_prompt(&evicted, None);
        }
    }

    /// `None` for a prompt without an owner: it can be found again.
    fn record_of(&self, known: &Record) -> Option<PromptRecord> {
        let client = known.by.client.as_ref()?;
        let made = self.unix_at(known.made);
        if known.way == Way::Waits {
            let record = PromptRecord::waiting(client, (made, known.order), Vec::new());
            return Some(record.of(known.by.person.as_ref()));
        }
        let backend = self.fleet.get(known.backend?);
        let sent = Sent {
            backend: backend.name(),
            url: backend.authority.clone(),
            made,
            order: known.order,
        };
        let record = PromptRecord::new(client, sent, Vec::new());
        let record = record.to(backend.identity()).of(known.by.person.as_ref());
        Some(match known.way {
            Way::Sent | Way::Waits => record,
            Way::OnTrial => record.on_trial(),
            Way::Taken => record.taken(),
        })
    }
}

/// In which shard a prompt is.
fn key_of(prompt: &PromptId) -> Key {
    Key::of(prompt.as_str().as_bytes())
}

/// `None` if the moment has passed.
fn unix_of_coming(at: std::time::Instant) -> Option<u64> {
    let left = at.checked_duration_since(now()).filter(|left| !left.is_zero())?.as_millis();
    Some(unix_millis().saturating_add(u64::try_from(left).unwrap_or(u64::MAX)))
}
