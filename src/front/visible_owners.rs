//! Which prompts a caller can see, and which of them it may end by their ids (promises R5, R6).
//!
//! Pending prompts are shown if they belong to the calling clients, or to clients of the same
//! person without an open socket, because their tabs are gone. Ended prompts are shown if they
//! belong to the person.

use std::collections::BTreeMap;

use super::Front;
use super::caller::Caller;
use crate::comfy::redact::Told;
use crate::net::now;
use crate::routing::ids::{ClientId, PromptId};
use crate::routing::ledger::{Listed, Record, State};
use crate::routing::owners::{Owner, Person, Submitter};
use crate::routing::pending::Pending;
use crate::routing::realm::Realm;
use crate::session::Client;
use crate::session::Sessions;

/// The caller for whom prompts are shown or ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct VisibleOwners {
    /// The named client, or all clients of one browser. There may be none yet.
    clients: Vec<ClientId>,
    person: Option<Person>,
    /// The client that the request itself names, so it knows that id already.
    named: Option<ClientId>,
    /// Nothing of another realm exists for the caller.
    realm: Realm,
}

impl VisibleOwners {
    /// By the address alone, only prompts without a name from there are included, and only while no
    /// client with a name is there.
    #[must_use]
    pub fn of(front: &Front, caller: &Caller) -> Self {
        let (clients, named) = (caller.askers(front), caller.named.clone());
        let person = caller.person().or_else(|| nameless_at(front, caller));
        Self { clients, person, named, realm: caller.realm.clone() }
    }

    /// The clients of pending prompts without a name, for a caller without a name at the same
    /// address.
    #[must_use]
    pub fn nameless_clients(front: &Front, caller: &Caller) -> Vec<ClientId> {
        let Some(here) = nameless_at(front, caller) else { return Vec::new() };
        let pending = front.shared.records.pending_of(&here);
        let mut records = front.shared.records.prompts(&pending);
        let records = pending.iter().filter_map(|prompt| records.remove(prompt));
        records.filter_map(|record| record.by.client).collect()
    }

    /// The one in which all of it is.
    #[must_use]
    pub fn realm(&self) -> &Realm {
        &self.realm
    }

    /// True for a caller without a name.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.clients.is_empty() && self.person.is_none()
    }

    /// The owners under which histories list the caller's prompts.
    #[must_use]
    pub fn owners(&self) -> Vec<Owner> {
        let clients = self.clients.iter().cloned().map(Owner::Client);
        clients.chain(self.person.clone().map(Owner::Person)).collect()
    }

    /// The caller's pending prompts.
    #[must_use]
    pub fn pending(&self, sessions: &Sessions) -> BTreeMap<PromptId, (ClientId, Pending)> {
        let clients = self.clients.iter().filter_map(|id| sessions.clients.get(id));
        let mut pending: BTreeMap<_, _> = clients
            .flat_map(|client| {
                let pending = client.pending().into_iter();
                pending.map(move |(prompt, it)| (prompt, (client.id.clone(), it)))
            })
            .collect();
        let Some(person) = &self.person else { return pending };
        let theirs = sessions.shared.records.pending_of(person);
        let mut by_client: BTreeMap<ClientId, Vec<PromptId>> = BTreeMap::new();
        for (prompt, record) in sessions.shared.records.prompts(&theirs) {
            let client = record.by.client.filter(|id| !self.clients.contains(id));
            if let Some(client) = client {
                by_client.entry(client).or_default().push(prompt);
            }
        }
        for (id, prompts) in by_client {
            let Some(client) = sessions.clients.get(&id) else { continue };
            client.inspect(|core, _| {
                let is_gone = core.sockets() == 0;
                for prompt in prompts.into_iter().filter(|_| is_gone) {
                    let it = core.pending().get(&prompt).cloned();
                    pending.extend(it.map(|it| (prompt, (id.clone(), it))));
                }
            });
        }
        pending
    }

    /// True if the caller may end or delete a prompt by its id.
    #[must_use]
    pub fn may_end(&self, sessions: &Sessions, record: &Record) -> bool {
        if !self.realm.owns(&record.by) {
            return false;
        }
        // A prompt that was found on a backend has no owner.
        if record.by.client.as_ref().is_none_or(|client| self.clients.contains(client)) {
            return true;
        }
        let is_persons = self.person.is_some() && self.person == record.by.person;
        is_persons
            && match record.state {
                State::Ended(_) | State::Learned => true,
                State::Pending => self.is_of_gone(sessions, &record.by),
            }
    }

    /// The part of the listed history that the caller may clear: another open tab keeps its own.
    #[must_use]
    pub fn may_clear(&self, sessions: &Sessions, listed: &Listed) -> bool {
        listed.by.client.as_ref().is_some_and(|client| self.clients.contains(client))
            || self.is_of_gone(sessions, &listed.by)
    }

    /// How much of the submitting client's id the caller gets: all of it if the request named that
    /// client itself.
    #[must_use]
    pub fn told(&self, by: &Submitter) -> Told<'_> {
        by.client.as_ref().map_or(Told::Nothing, |client| self.told_of(client))
    }

    /// The same for a client.
    #[must_use]
    pub fn told_of(&self, client: &ClientId) -> Told<'_> {
        match self.named.as_ref().filter(|named| *named == client) {
            None => Told::Nothing,
            Some(named) if named.user().is_none() => Told::AsItIs,
            Some(named) => Told::As(named.name()),
        }
    }

    /// The client, if the request named it.
    #[must_use]
    pub fn named_client<'c>(&self, client: &'c ClientId) -> Option<&'c ClientId> {
        (self.named.as_ref() == Some(client)).then_some(client)
    }

    fn is_of_gone(&self, sessions: &Sessions, by: &Submitter) -> bool {
        let client = by.client.as_ref().and_then(|id| sessions.clients.get(id));
        client.is_none_or(|client| is_gone(&client))
    }
}

/// True if no browser socket of a client is open.
fn is_gone(client: &Client) -> bool {
    client.inspect(|core, _| core.sockets() == 0)
}

fn nameless_at(front: &Front, caller: &Caller) -> Option<Person> {
    let is_alone = caller.named.is_none()
        && caller.is_its_address()
        && front.browsers.is_nameless_alone(
            &caller.spot(),
            front.shared.config().affinity.lease,
            now(),
        );
    let here = Person::Address(caller.address);
    (is_alone && front.shared.records.knows(&here)).then_some(here)
}
