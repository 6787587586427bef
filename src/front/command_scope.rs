//! Which prompts a command affects, and whether the caller may do that (promise R6).

use std::sync::Arc;

use tracing::debug;

use super::Front;
use super::audited;
use super::broadcast_lookup::{self, Where};
use super::caller::Caller;
use super::error::GatewayError;
use super::visible_owners::VisibleOwners;
use crate::config::Nameless;
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::ledger::{Listed, Record};
use crate::routing::pending::Pending;
use crate::routing::realm::Realm;
use crate::session::{Client, Sessions};

/// For how many unknown ids one request makes us ask all backends.
const UNKNOWN_MAX: usize = 16;

/// Prompts with their backends.
pub type Located = Vec<(PromptId, BackendId)>;

/// Prompts that a command names or means.
#[derive(Debug, Default)]
pub struct Meant {
    pub located: Located,
    /// Those that wait in the gateway.
    pub waiting: Vec<PromptId>,
}

impl Meant {
    pub fn extend(&mut self, more: Self) {
        self.located.extend(more.located);
        self.waiting.extend(more.waiting);
    }
}

/// For whom a command acts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Actor {
    /// For these clients: the named one, or all of a browser.
    Clients(Vec<ClientId>),
    /// For a caller without a name: the prompts that the command names.
    Nameless,
    /// For a caller without a name, who may do everything: ComfyUI's own rule.
    Everyone,
    /// For a caller without a name, who may do nothing.
    Nobody,
}

impl Actor {
    #[must_use]
    pub fn of(front: &Front, caller: &Caller) -> Self {
        let askers = caller.askers(front);
        // A user acts on the user's own prompts only, even without a client so far.
        if !askers.is_empty() || caller.realm != Realm::Everybody {
            return Self::Clients(askers);
        }
        let may = front.shared.config().nameless(caller.place());
        match may {
            Nameless::ById => Self::Nameless,
            Nameless::None => Self::Nobody,
            Nameless::All => Self::Everyone,
        }
    }

    /// The caller of an interrupt. Many front ends give their name when they submit, but not when
    /// they interrupt. So a caller without a name counts as the only client that was seen at its
    /// address.
    #[must_use]
    pub fn of_interrupt(front: &Front, caller: &Caller, named: Option<&str>) -> Self {
        let actor = Self::of(front, caller);
        let is_sole = match (&actor, named) {
            (Self::Nameless, None) | (Self::Nobody, _) => true,
            (Self::Nameless, Some(_)) | (Self::Clients(_) | Self::Everyone, _) => false,
        };
        if !is_sole {
            return actor;
        }
        // Each submission without a name from there has a client of its own.
        let nameless = VisibleOwners::nameless_clients(front, caller);
        if !nameless.is_empty() {
            return Self::Clients(nameless);
        }
        caller.sole(front).map_or(actor, |client| Self::Clients(vec![client]))
    }

    /// True if it belongs to the person, including prompts that a closed tab left behind or that
    /// have ended.
    fn may_act_on(&self, sessions: &Sessions, persons: &VisibleOwners, record: &Record) -> bool {
        match (self, &record.by.client) {
            (Self::Clients(askers), Some(owner)) => {
                askers.contains(owner) || persons.may_end(sessions, record)
            }
            (Self::Clients(_), None) | (Self::Nameless | Self::Everyone, _) => true,
            (Self::Nobody, _) => false,
        }
    }
}

/// The prompts that the caller may act on, of those that a request names, with their backends.
/// `verb` is what the request wants of them, as the audit log calls it.
///
/// # Errors
/// The request names some, and the caller may not act.
pub async fn named(
    front: &Front,
    actor: &Actor,
    caller: &Caller,
    (verb, ids): (&'static str, impl IntoIterator<Item = String>),
    place: Where,
) -> Result<Meant, GatewayError> {
    let persons = VisibleOwners::of(front, caller);
    let Meant { mut located, mut waiting } = Meant::default();
    let mut unknown = Vec::new();
    let prompts = ids.into_iter().filter_map(|id| PromptId::parse(&id).ok());
    let prompts: Vec<PromptId> = prompts.collect();
    let records = front.shared.records.prompts(&prompts);
    for prompt in prompts {
        if *actor == Actor::Nobody {
            return Err(GatewayError::Nameless);
        }
        match records.get(&prompt) {
            Some(record) if !caller.realm.owns(&record.by) => {
                front.shared.metrics.foreign_verbs.inc();
                audited::not_his(front, caller, (verb, &prompt));
                debug!(%prompt, "A command on another user's prompt was ignored.");
            }
            Some(record) if !actor.may_act_on(&front.sessions, &persons, record) => {
                front.shared.metrics.foreign_verbs.inc();
                audited::not_his(front, caller, (verb, &prompt));
                debug!(%prompt, "A command on another client's prompt was ignored.");
            }
            Some(record) if record.is_waiting() => waiting.push(prompt),
            Some(record) => located.extend(record.backend.map(|backend| (prompt, backend))),
            // Nothing shows that it belongs to the caller.
            None if caller.realm != Realm::Everybody => {}
            None if unknown.len() < UNKNOWN_MAX && !unknown.contains(&prompt) => {
                unknown.push(prompt);
            }
            None => {}
        }
    }
    located.extend(broadcast_lookup::look_for(front, caller.address, unknown, place).await);
    Ok(Meant { located, waiting })
}

/// The prompts for a command that names none: everything pending of its caller.
///
/// # Errors
/// It is not clear who the caller is.
pub fn own_pending(
    sessions: &Sessions,
    caller: &Caller,
    actor: &Actor,
) -> Result<Meant, GatewayError> {
    let clients: Vec<Arc<Client>> = match actor {
        Actor::Clients(askers) => askers.iter().filter_map(|id| sessions.clients.get(id)).collect(),
        Actor::Everyone => {
            let all = sessions.clients.all().into_iter();
            all.filter(|client| caller.realm.has(&client.id)).collect()
        }
        Actor::Nameless | Actor::Nobody => return Err(GatewayError::Nameless),
    };
    let meant = |pending: Vec<(PromptId, Pending)>| {
        let mut meant = Meant::default();
        for (id, pending) in pending {
            match pending.backend() {
                Some(backend) => meant.located.push((id, backend)),
                None => meant.waiting.push(id),
            }
        }
        meant
    };
    let with_work: Vec<Meant> = clients
        .iter()
        .map(|client| client.pending())
        .filter(|pending| !pending.is_empty())
        .map(meant)
        .collect();
    // With only the cookie, such a command is clear if a single tab has something pending. A user
    // who names no client means all of the user's clients.
    let is_clear = caller.named.is_some()
        || caller.browser.is_none()
        || caller.realm != Realm::Everybody
        || with_work.len() <= 1;
    match actor {
        Actor::Clients(_) | Actor::Nameless | Actor::Nobody if !is_clear => {
            Err(GatewayError::Nameless)
        }
        Actor::Clients(_) | Actor::Nameless | Actor::Nobody | Actor::Everyone => {
            let mut all = Meant::default();
            with_work.into_iter().for_each(|meant| all.extend(meant));
            Ok(all)
        }
    }
}

/// The history of the caller: the caller's own prompts, and those of the same person's clients that
/// are gone. A tab that is still open keeps its own.
///
/// # Errors
/// It is not clear who the caller is.
pub fn own_history(
    front: &Front,
    caller: &Caller,
    actor: &Actor,
) -> Result<Vec<Listed>, GatewayError> {
    match actor {
        Actor::Clients(_) => {
            let persons = VisibleOwners::of(front, caller);
            let owners = persons.owners();
            let listed = front.shared.records.history_of(&owners, usize::MAX);
            Ok(listed
                .into_iter()
                .filter(|listed| persons.may_clear(&front.sessions, listed))
                .collect())
        }
        Actor::Everyone => {
            let mut all = front.shared.records.history_of_all(usize::MAX);
            all.retain(|listed| caller.realm.owns(&listed.by));
            Ok(all)
        }
        Actor::Nameless | Actor::Nobody => Err(GatewayError::Nameless),
    }
}
