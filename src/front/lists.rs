//! `GET /queue` and `GET /history`: the caller's own prompts, from every backend that has some
//! (promise R5).
//!
//! The ledger says which prompts these are ([`VisibleOwners`]), and their backends say what they
//! are doing. If a backend does not answer in time, a header names it and the answer is partial. A
//! caller without a name sees the ids and positions of all prompts that some client submitted: a
//! widely used SDK looks for its own prompt among them and does not say who it is.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tracing::debug;

use super::Front;
use super::caller::Caller;
use super::error::GatewayError;
use super::forward::Target;
use super::history_cache::{self, Missing};
use super::route::of_caller;
use super::visible_owners::VisibleOwners;
use super::{Answer, headers, json as answer_json};
use crate::comfy::lists::Positions;
use crate::comfy::lists::history::{HistoryList, KEPT_MAX, Window, position};
use crate::comfy::lists::queue::{Known, OwnQueue, Place, Shown};
use crate::masked::mask;
use crate::net::now;
use crate::routing::decision::Reason;
use crate::routing::ids::{BackendId, PromptId};
use crate::routing::ledger::Listed;
use crate::routing::owners::Person;
use crate::routing::pending::Phase;
use crate::routing::placement::NoPlace;
use crate::routing::realm::Realm;
use crate::session::Sessions;
use crate::shared::Shared;

/// How often a list is made again because some of its entries are forgotten by their backends.
pub const ROUNDS: usize = 4;

/// The largest history in one answer, in bytes. Older entries are left out.
const HISTORY_MAX: usize = 256 << 20;

/// A list that is being made.
#[derive(Debug)]
pub struct Listing {
    pub whose: VisibleOwners,
    /// The address of the caller, which matters for callers without a name.
    pub address: IpAddr,
    /// The binding of its client and the reason: a list is a contact like any other read.
    binding: Option<Target>,
    pub missing: Missing,
}

impl Listing {
    pub async fn begin(front: &Front, caller: &Caller) -> Self {
        let (whose, address) = (VisibleOwners::of(front, caller), caller.address);
        let mut listing = Self { whose, address, binding: None, missing: Missing::default() };
        let Some(client) = caller.asker(front) else { return listing };
        match of_caller(front, caller, &client) {
            Ok(target) => {
                if matches!(target.reason, Reason::Placed | Reason::Moved) {
                    // The answer reveals a binding, which must survive a restart.
                    let _ = front.shared.records.journal.durable().await;
                }
                listing.binding = Some(target);
            }
            // A list does not need a backend.
            Err(error) => {
                let client = mask(&client);
                debug!(%client, %error, "A client that asks for a list is not bound.");
            }
        }
        listing
    }

    /// The answer, with headers about what is missing.
    pub fn end(self, shared: &Shared, mut answer: Answer) -> Answer {
        if let (Some(target), Ok(response)) = (&self.binding, &mut answer) {
            headers::mark(response.headers_mut(), &target.backend, target.reason);
        }
        self.missing.name(shared, answer)
    }
}

/// `GET /queue`.
///
/// # Errors
/// For a caller without a name: no backend is up.
pub async fn queue(front: &Front, caller: &Caller) -> Answer {
    let mut listing = Listing::begin(front, caller).await;
    let (whose, missing) = (&listing.whose, &mut listing.missing);
    let answer = if whose.is_nobody() {
        positions(&front.sessions, listing.address, missing).await
    } else {
        let queues = Queues::of_own(&front.sessions, whose, missing).await;
        Ok(answer_json(queues.merged(&front.sessions, whose, missing).to_json()))
    };
    listing.end(&front.shared, answer)
}

async fn positions(sessions: &Sessions, address: IpAddr, missing: &mut Missing) -> Answer {
    let shared = &sessions.shared;
    let queues = Queues::of_all(sessions, missing).await?;
    let mut positions = Positions::default();
    for (backend, body) in &queues.0 {
        if let Err(error) = positions.add(body) {
            left_out(shared, (*backend, missing), &error);
        }
    }
    let shown = shown_at(shared, address, positions.ids());
    Ok(answer_json(positions.to_json(|id| shown.contains(id))))
}

/// The prompts whose existence is shown to a caller without a name. Prompts that were sent without
/// a name from another address are not included.
#[must_use]
pub fn shown_at<'i>(
    shared: &Shared,
    address: IpAddr,
    ids: impl Iterator<Item = &'i str>,
) -> HashSet<PromptId> {
    let prompts: Vec<PromptId> = ids.filter_map(|id| PromptId::parse(id).ok()).collect();
    let known = shared.records.prompts(&prompts);
    let is_shown = |prompt: &PromptId| {
        let Some(record) = known.get(prompt) else { return true };
        let is_for_him = match &record.by.person {
            Some(Person::Address(from)) => *from == address,
            Some(Person::Browser(_) | Person::User(_)) | None => true,
        };
        is_for_him && Realm::Everybody.owns(&record.by)
    };
    prompts.into_iter().filter(is_shown).collect()
}

/// The ended prompts without a user, the oldest first.
#[must_use]
pub fn everybodys(shared: &Shared) -> Vec<Listed> {
    let mut ended = shared.records.history_of_all(KEPT_MAX);
    ended.retain(|listed| Realm::Everybody.owns(&listed.by));
    ended
}

/// `GET /history`.
///
/// # Errors
/// The query is not valid.
pub async fn history(front: &Front, caller: &Caller, raw_query: &str) -> Answer {
    let window = Window::read(raw_query)?;
    let mut listing = Listing::begin(front, caller).await;
    let (whose, missing) = (&listing.whose, &mut listing.missing);
    let list = if whose.is_nobody() {
        let ended = everybodys(&front.shared);
        let mut list = HistoryList::default();
        for listed in &ended[window.of(ended.len())] {
            let id = listed.prompt.as_str();
            list.push(id, position(id, listed.order, listed.end).as_bytes());
        }
        list.finish()
    } else {
        own_history(front, whose, window, missing).await
    };
    listing.end(&front.shared, Ok(answer_json(list)))
}

async fn own_history(
    front: &Front,
    whose: &VisibleOwners,
    window: Window,
    missing: &mut Missing,
) -> Vec<u8> {
    let deadline = now() + front.shared.config().fleet.list_timeout;
    let mut round = 1;
    loop {
        let ended = listed(&front.shared, whose);
        let asked = &ended[window.of(ended.len())];
        let found = history_cache::find(front, asked, whose, deadline, missing).await;
        if 0 < found.forgotten && round < ROUNDS {
            round += 1;
            continue;
        }
        let there =
            asked.iter().filter_map(|it| Some((&it.prompt, found.entries.get(&it.prompt)?)));
        return written(there.collect());
    }
}

/// The newest entries of a history, the oldest of them first, as many as fit into one answer.
fn written(mut entries: Vec<(&PromptId, &Bytes)>) -> Vec<u8> {
    let mut bytes = 0_usize;
    let fit = entries.iter().rev().take_while(|(_, entry)| {
        bytes = bytes.saturating_add(entry.len());
        bytes <= HISTORY_MAX
    });
    let too_many = entries.len() - fit.count();
    entries.drain(..too_many);
    let mut list = HistoryList::default();
    for (prompt, entry) in entries {
        list.push(prompt.as_str(), entry);
    }
    list.finish()
}

/// The caller's ended prompts, as far back as a list goes, the oldest first.
#[must_use]
pub fn listed(shared: &Shared, whose: &VisibleOwners) -> Vec<Listed> {
    let mut ended = shared.records.history_of(&whose.owners(), KEPT_MAX);
    ended.drain(..ended.len().saturating_sub(KEPT_MAX));
    ended
}

/// The queues of some backends, and of the gateway.
#[derive(Debug)]
pub struct Queues(Vec<(Option<BackendId>, Bytes)>);

impl Queues {
    /// Asks the backends where the caller has pending prompts.
    pub async fn of_own(sessions: &Sessions, whose: &VisibleOwners, missing: &mut Missing) -> Self {
        let own = whose.pending(sessions);
        let backends: BTreeSet<BackendId> =
            own.values().filter_map(|(_, it)| it.backend()).collect();
        Self::read(&sessions.shared, backends, missing).await
    }

    /// Asks all backends. What waits in the gateway is in it without its graphs.
    ///
    /// # Errors
    /// No backend is up.
    pub async fn of_all(sessions: &Sessions, missing: &mut Missing) -> Result<Self, GatewayError> {
        let shared = &sessions.shared;
        if !shared.fleet.iter().any(|backend| backend.is_up()) {
            return Err(GatewayError::Refused(NoPlace::NoneReady.into()));
        }
        // First, so that one that is handed over meanwhile is in one of both.
        let waiting = positions_of(&sessions.waiting.all());
        let mut queues = Self::read(shared, shared.fleet.iter().map(|it| it.id), missing).await;
        queues.0.extend(waiting.map(|waiting| (None, waiting)));
        Ok(queues)
    }

    async fn read(
        shared: &Shared,
        backends: impl IntoIterator<Item = BackendId>,
        missing: &mut Missing,
    ) -> Self {
        let limit = shared.config().fleet.list_timeout;
        let mut asked = Vec::new();
        for id in backends {
            let backend = shared.fleet.get(id);
            if backend.is_up() {
                asked.push(async move { (id, backend.read_queue(limit).await) });
            } else {
                missing.add(id);
            }
        }
        let mut queues = Vec::new();
        for (id, answer) in join_all(asked).await {
            match answer {
                Ok(body) => queues.push((Some(id), body)),
                Err(error) => left_out(shared, (Some(id), missing), &error),
            }
        }
        Self(queues)
    }

    /// The caller's prompts in them, and the caller's prompts that are not in them yet.
    pub fn merged(
        &self,
        sessions: &Sessions,
        whose: &VisibleOwners,
        missing: &mut Missing,
    ) -> OwnQueue<'_> {
        // Looked up after the queues were read: a prompt that has ended since then is in the
        // history.
        let own = whose.pending(sessions);
        let mut list = OwnQueue::default();
        let mut seen = HashSet::new();
        for (backend, body) in &self.0 {
            let shown = |id: &str| {
                let id = PromptId::parse(id).ok();
                let Some((id, (client, _))) = id.and_then(|id| own.get_key_value(&id)) else {
                    return Shown::No;
                };
                match seen.insert(id.clone()) {
                    false => Shown::No,
                    true => Shown::from(whose.told_of(client)),
                }
            };
            if let Err(error) = list.add(*backend, body, shown) {
                left_out(&sessions.shared, (*backend, missing), &error);
            }
        }
        let unseen = || own.iter().filter(|(id, _)| !seen.contains(*id));
        let waiting = sessions.waiting.shown(unseen().map(|(id, _)| id));
        let taken = taken_ms_of(&sessions.shared, unseen().map(|(id, _)| id.as_str()));
        for (id, (client, pending)) in unseen() {
            if pending.delete_asked && self.0.iter().any(|(read, _)| *read == pending.backend()) {
                // It was deleted. Its end will be noticed in a moment.
                continue;
            }
            let (backend, place) = (pending.backend(), place_of(pending.phase));
            let shown = waiting.get(id);
            let number = shown.map(|it| it.kept.number);
            let submitted = shown.map(|it| (&*it.kept.body, &*it.parts));
            let client = whose.named_client(client);
            let taken_ms = taken.get(id).copied().unwrap_or(0);
            list.add_known(Known { backend, id, client, taken_ms, number, place, submitted });
        }
        list
    }

    /// Everything in them.
    pub fn whole(&self, shared: &Shared, missing: &mut Missing) -> OwnQueue<'_> {
        let mut list = OwnQueue::default();
        for (backend, body) in &self.0 {
            if let Err(error) = list.add(*backend, body, |_| Shown::Cleaned) {
                left_out(shared, (*backend, missing), &error);
            }
        }
        list
    }
}

/// The list in which ComfyUI has a prompt: it counts as running until its history is written.
#[must_use]
pub fn place_of(phase: Phase) -> Place {
    match phase {
        Phase::Waiting | Phase::Sending | Phase::Restored | Phase::Queued => Place::Pending,
        Phase::Running | Phase::Ending(_) => Place::Running,
    }
}

/// When a prompt was accepted, in milliseconds since 1970. 0 if it was not submitted here.
#[must_use]
pub fn taken_ms(shared: &Shared, prompt: &str) -> u64 {
    let Ok(prompt) = PromptId::parse(prompt) else { return 0 };
    let made = shared.records.ledger_of(&prompt).get(&prompt, now()).map(|record| record.made);
    made.map_or(0, |made| shared.records.unix_at(made))
}

/// The same for several, without those that were not submitted here.
#[must_use]
pub fn taken_ms_of<'i>(
    shared: &Shared,
    ids: impl Iterator<Item = &'i str>,
) -> HashMap<PromptId, u64> {
    let prompts: Vec<PromptId> = ids.filter_map(|id| PromptId::parse(id).ok()).collect();
    let known = shared.records.prompts(&prompts).into_iter();
    known.map(|(prompt, record)| (prompt, shared.records.unix_at(record.made))).collect()
}

/// What waits in the gateway, in the form of `GET /queue`: numbers and ids.
fn positions_of(waiting: &[(PromptId, f64)]) -> Option<Bytes> {
    let position = |(id, number): &(PromptId, f64)| json!([number, id.as_str(), {}, {}, []]);
    let pending: Vec<Value> = waiting.iter().map(position).collect();
    let queue = json!({ "queue_running": [], "queue_pending": pending });
    (!waiting.is_empty()).then(|| queue.to_string().into())
}

fn left_out(
    shared: &Shared,
    (backend, missing): (Option<BackendId>, &mut Missing),
    error: &dyn std::fmt::Display,
) {
    let Some(backend) = backend else { return };
    missing.add(backend);
    let backend = &*shared.fleet.get(backend).name();
    debug!(backend, %error, "A queue is left out of the list.");
}
