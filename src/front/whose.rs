//! Whose prompts a verb means, and who may mean them (promise R6).

use std::net::IpAddr;

use tracing::debug;

use super::identify::Who;
use super::unknowns::{self, Where};
use crate::config::Nameless;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::net::now;
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::ledger::Listed;

/// Of how many ids that nobody knows one request makes us ask all backends.
const UNKNOWN_MAX: usize = 16;

/// Prompts with their backends.
pub type Located = Vec<(PromptId, BackendId)>;

/// For whom a verb acts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Actor {
    /// For these clients: the named one, or all of a browser.
    Clients(Vec<ClientId>),
    /// For nobody in particular: on what he names.
    Nameless,
    /// For nobody in particular, who may do everything: ComfyUI's own rule.
    Everyone,
    /// For nobody in particular, who may do nothing.
    Nobody,
}

impl Actor {
    #[must_use]
    pub fn of(gateway: &Gateway, who: &Who) -> Self {
        let askers = who.askers(gateway);
        if !askers.is_empty() {
            return Self::Clients(askers);
        }
        match gateway.config.nameless() {
            Nameless::ById => Self::Nameless,
            Nameless::None => Self::Nobody,
            Nameless::All => Self::Everyone,
        }
    }

    /// Who interrupts. Many front ends say who they are when they submit and not when they
    /// interrupt: without a name, an address at which one client alone was seen is that client's.
    #[must_use]
    pub fn of_interrupt(gateway: &Gateway, who: &Who, named: Option<&str>) -> Self {
        let actor = Self::of(gateway, who);
        let is_sole = match (&actor, named) {
            (Self::Nameless, None) | (Self::Nobody, _) => true,
            (Self::Nameless, Some(_)) | (Self::Clients(_) | Self::Everyone, _) => false,
        };
        let sole = is_sole.then(|| who.sole(gateway)).flatten();
        sole.map_or(actor, |client| Self::Clients(vec![client]))
    }

    fn may_act_on(&self, owner: Option<&ClientId>) -> bool {
        match (self, owner) {
            (Self::Clients(askers), Some(owner)) => askers.contains(owner),
            (Self::Clients(_), None) | (Self::Nameless | Self::Everyone, _) => true,
            (Self::Nobody, _) => false,
        }
    }
}

/// Of the ids that a request names, those that the asker may act on, with their backends.
///
/// # Errors
/// There are some, and the asker is nobody who may act.
pub async fn named(
    gateway: &Gateway,
    actor: &Actor,
    address: IpAddr,
    ids: impl IntoIterator<Item = String>,
    place: Where,
) -> Result<Located, GatewayError> {
    let mut located = Located::new();
    let mut unknown = Vec::new();
    for prompt in ids.into_iter().filter_map(|id| PromptId::parse(&id).ok()) {
        if *actor == Actor::Nobody {
            return Err(GatewayError::Nameless);
        }
        let record = gateway.ledger().get(&prompt, now()).cloned();
        match record {
            Some(record) if !actor.may_act_on(record.client.as_ref()) => {
                gateway.metrics.foreign_verbs.inc();
                debug!(%prompt, "A verb on another's prompt does nothing.");
            }
            Some(record) => located.extend(record.backend.map(|backend| (prompt, backend))),
            None if unknown.len() < UNKNOWN_MAX && !unknown.contains(&prompt) => {
                unknown.push(prompt);
            }
            None => {}
        }
    }
    located.extend(unknowns::look_for(gateway, address, unknown, place).await);
    Ok(located)
}

/// What a verb means that names nothing: all that is pending of its asker.
///
/// # Errors
/// It is not clear whose that is.
pub fn own_pending(gateway: &Gateway, who: &Who, actor: &Actor) -> Result<Located, GatewayError> {
    let clients = match actor {
        Actor::Clients(askers) => askers.iter().filter_map(|id| gateway.clients.get(id)).collect(),
        Actor::Everyone => gateway.clients.all(),
        Actor::Nameless | Actor::Nobody => return Err(GatewayError::Nameless),
    };
    let with_work: Vec<Located> = clients
        .iter()
        .map(|client| client.pending())
        .filter(|pending| !pending.is_empty())
        .map(|pending| pending.into_iter().map(|(id, it)| (id, it.backend)).collect())
        .collect();
    // With the cookie alone, a bare verb is clear only if a single tab has something pending.
    match (&who.named, actor, with_work.len()) {
        (Some(_), _, _) | (None, Actor::Everyone, _) | (None, _, 0 | 1) => {
            Ok(with_work.into_iter().flatten().collect())
        }
        (None, Actor::Clients(_) | Actor::Nameless | Actor::Nobody, _) => {
            Err(GatewayError::Nameless)
        }
    }
}

/// What the asker's history has.
///
/// # Errors
/// It is not clear whose that is.
pub fn own_history(gateway: &Gateway, actor: &Actor) -> Result<Vec<Listed>, GatewayError> {
    match actor {
        Actor::Clients(askers) => Ok(gateway.ledger().history_of(askers, usize::MAX, now())),
        Actor::Everyone => Ok(gateway.ledger().history_of_all(usize::MAX, now())),
        Actor::Nameless | Actor::Nobody => Err(GatewayError::Nameless),
    }
}
