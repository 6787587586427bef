//! `GET /queue` and `GET /history`: the asker's own prompts, from every backend that has some
//! (promise R5).
//!
//! Which prompts those are says the ledger; what is told of them, their backends. One that does
//! not answer in time is named in a header, and the answer is partial. To nobody in particular
//! ids and positions are shown, of all prompts: a widely used SDK looks for its own among them and
//! says nothing of who it is.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use futures_util::future::join_all;
use tracing::debug;

use super::entries::{self, Missing};
use super::forward::Target;
use super::identify::Who;
use super::route::of_client;
use super::{Answer, headers, json};
use crate::comfy::lists::Positions;
use crate::comfy::lists::history::{HistoryList, KEPT_MAX, Window, position};
use crate::comfy::lists::queue::{Known, OwnQueue, Place};
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::masked::mask;
use crate::net::now;
use crate::routing::decision::Reason;
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::ledger::Listed;
use crate::routing::pending::{Pending, Phase};
use crate::routing::place::NoPlace;

/// How often a list is made again because entries in it turned out to be forgotten.
pub const ROUNDS: usize = 4;

/// The largest history in one answer, in bytes. What is older is left out.
const HISTORY_MAX: usize = 256 << 20;

/// For whom a list is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Lister {
    /// These clients: the one that is named, or all of one browser. It may have none yet.
    Clients(Vec<ClientId>),
    Nobody,
}

/// A list that is being made.
#[derive(Debug)]
pub struct Listing {
    pub lister: Lister,
    /// Where its client is bound, and why: a list is a contact like any other read.
    binding: Option<Target>,
    pub missing: Missing,
}

impl Listing {
    /// The address never says whose prompts are meant.
    pub async fn begin(gateway: &Gateway, who: &Who) -> Self {
        let lister = match (&who.named, who.browser) {
            (None, None) => Lister::Nobody,
            (_, _) => Lister::Clients(who.askers(gateway)),
        };
        let mut listing = Self { lister, binding: None, missing: Missing::default() };
        let Some(client) = who.asker(gateway) else { return listing };
        match of_client(gateway, &client) {
            Ok(target) => {
                if matches!(target.reason, Reason::Placed | Reason::Moved) {
                    // The answer tells of a binding that a restart must not forget.
                    let _ = gateway.journal.durable().await;
                }
                listing.binding = Some(target);
            }
            // A list can do without a backend.
            Err(error) => {
                let client = mask(&client);
                debug!(%client, %error, "A client that asks for a list is not bound.");
            }
        }
        listing
    }

    /// The answer, with what is to be said of it.
    pub fn end(self, gateway: &Gateway, mut answer: Answer) -> Answer {
        if let (Some(target), Ok(response)) = (&self.binding, &mut answer) {
            headers::mark(response.headers_mut(), &target.backend, target.reason);
        }
        self.missing.name(gateway, answer)
    }
}

/// `GET /queue`.
///
/// # Errors
/// For nobody in particular: no backend is up.
pub async fn queue(gateway: &Gateway, who: &Who) -> Answer {
    let mut listing = Listing::begin(gateway, who).await;
    let missing = &mut listing.missing;
    let answer = match &listing.lister {
        Lister::Clients(askers) => {
            let queues = Queues::of_own(gateway, askers, missing).await;
            Ok(json(queues.merged(gateway, askers, missing).to_json()))
        }
        Lister::Nobody => positions(gateway, missing).await,
    };
    listing.end(gateway, answer)
}

async fn positions(gateway: &Gateway, missing: &mut Missing) -> Answer {
    let queues = Queues::of_all(gateway, missing).await?;
    let mut positions = Positions::default();
    for (backend, body) in &queues.0 {
        if let Err(error) = positions.add(body) {
            left_out(gateway, *backend, &error);
            missing.add(*backend);
        }
    }
    Ok(json(positions.to_json()))
}

/// `GET /history`.
///
/// # Errors
/// The query is not one.
pub async fn history(gateway: &Gateway, who: &Who, raw_query: &str) -> Answer {
    let window = Window::read(raw_query)?;
    let mut listing = Listing::begin(gateway, who).await;
    let missing = &mut listing.missing;
    let answer = match &listing.lister {
        Lister::Clients(askers) => Ok(json(own_history(gateway, askers, window, missing).await)),
        Lister::Nobody => {
            let ended = gateway.ledger().history_of_all(KEPT_MAX, now());
            let mut list = HistoryList::default();
            for listed in &ended[window.of(ended.len())] {
                let id = listed.prompt.as_str();
                list.push(id, position(id, listed.order, listed.end).as_bytes());
            }
            Ok(json(list.finish()))
        }
    };
    listing.end(gateway, answer)
}

async fn own_history(
    gateway: &Gateway,
    askers: &[ClientId],
    window: Window,
    missing: &mut Missing,
) -> Vec<u8> {
    let deadline = now() + gateway.config.fleet.list_timeout;
    let mut round = 1;
    loop {
        let ended = listed(gateway, askers);
        let asked = &ended[window.of(ended.len())];
        let found = entries::find(gateway, asked, deadline, missing).await;
        if 0 < found.forgotten && round < ROUNDS {
            round += 1;
            continue;
        }
        let there =
            asked.iter().filter_map(|it| Some((&it.prompt, found.entries.get(&it.prompt)?)));
        return written(there.collect());
    }
}

/// The newest of a history, oldest first, as much as one answer may have.
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

/// What has ended of these clients, as far back as a list goes, oldest first.
#[must_use]
pub fn listed(gateway: &Gateway, askers: &[ClientId]) -> Vec<Listed> {
    let mut ended = gateway.ledger().history_of(askers, KEPT_MAX, now());
    ended.drain(..ended.len().saturating_sub(KEPT_MAX));
    ended
}

/// The queues of some backends, as they answered.
#[derive(Debug)]
pub struct Queues(Vec<(BackendId, Bytes)>);

impl Queues {
    /// Of the backends on which these clients have something pending.
    pub async fn of_own(gateway: &Gateway, askers: &[ClientId], missing: &mut Missing) -> Self {
        let own = own_pending(gateway, askers);
        let backends: BTreeSet<BackendId> = own.values().map(|(_, it)| it.backend).collect();
        Self::read(gateway, backends, missing).await
    }

    /// Of all backends.
    ///
    /// # Errors
    /// None is up.
    pub async fn of_all(gateway: &Gateway, missing: &mut Missing) -> Result<Self, GatewayError> {
        if !gateway.fleet.iter().any(|backend| backend.is_up()) {
            return Err(GatewayError::Refused(NoPlace::NoneReady.into()));
        }
        Ok(Self::read(gateway, gateway.fleet.iter().map(|it| it.id), missing).await)
    }

    async fn read(
        gateway: &Gateway,
        backends: impl IntoIterator<Item = BackendId>,
        missing: &mut Missing,
    ) -> Self {
        let limit = gateway.config.fleet.list_timeout;
        let mut asked = Vec::new();
        for id in backends {
            let backend = gateway.fleet.get(id);
            if backend.is_up() {
                asked.push(async move { (id, backend.read_queue(limit).await) });
            } else {
                missing.add(id);
            }
        }
        let mut queues = Vec::new();
        for (id, answer) in join_all(asked).await {
            match answer {
                Ok(body) => queues.push((id, body)),
                Err(error) => {
                    left_out(gateway, id, &error);
                    missing.add(id);
                }
            }
        }
        Self(queues)
    }

    /// What is these clients' in them, and what of theirs is not in them yet.
    pub fn merged(
        &self,
        gateway: &Gateway,
        askers: &[ClientId],
        missing: &mut Missing,
    ) -> OwnQueue<'_> {
        // Looked up after the queues were read: what has ended meanwhile is in the history.
        let own = own_pending(gateway, askers);
        let mut list = OwnQueue::default();
        let mut seen = HashSet::new();
        for (backend, body) in &self.0 {
            let is_theirs = |id: &str| match PromptId::parse(id) {
                Ok(id) if own.contains_key(&id) => seen.insert(id),
                Ok(_) | Err(_) => false,
            };
            if let Err(error) = list.add(*backend, body, is_theirs) {
                left_out(gateway, *backend, &error);
                missing.add(*backend);
            }
        }
        for (id, (client, pending)) in own.iter().filter(|(id, _)| !seen.contains(*id)) {
            if pending.delete_asked && self.0.iter().any(|(read, _)| *read == pending.backend) {
                // It was deleted; that it has ended is found out in a moment.
                continue;
            }
            let place = place_of(pending.phase);
            let backend = pending.backend;
            list.add_known(Known { backend, id, client, number: None, place });
        }
        list
    }

    /// Everything in them.
    pub fn whole(&self, gateway: &Gateway, missing: &mut Missing) -> OwnQueue<'_> {
        let mut list = OwnQueue::default();
        for (backend, body) in &self.0 {
            if let Err(error) = list.add(*backend, body, |_| true) {
                left_out(gateway, *backend, &error);
                missing.add(*backend);
            }
        }
        list
    }
}

/// In which list ComfyUI has a prompt: it works on one until its history is written.
#[must_use]
pub fn place_of(phase: Phase) -> Place {
    match phase {
        Phase::Sending | Phase::Restored | Phase::Queued => Place::Pending,
        Phase::Running | Phase::Ending(_) => Place::Running,
    }
}

/// What these clients have pending.
fn own_pending(gateway: &Gateway, askers: &[ClientId]) -> BTreeMap<PromptId, (ClientId, Pending)> {
    let clients = askers.iter().filter_map(|id| gateway.clients.get(id));
    clients
        .flat_map(|client| {
            let pending = client.pending().into_iter();
            pending.map(move |(id, pending)| (id, (client.id.clone(), pending)))
        })
        .collect()
}

fn left_out(gateway: &Gateway, backend: BackendId, error: &dyn std::fmt::Display) {
    let backend = &gateway.fleet.get(backend).name;
    debug!(backend, %error, "A queue is left out of the list.");
}
