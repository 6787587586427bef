//! Who owns which prompts: a client, and the person behind it (promise R5).
//!
//! A tab is a client and ends with its window; what it made belongs to the person. A person is
//! known by the page cookie of the browser, else by the user that requests name, else not at all:
//! then the client itself is the owner. A prompt without a client belongs to the address that sent
//! it.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::ids::{ClientId, PromptId};

/// A person, who may have several clients, one after the other or at the same time.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Person {
    /// By the page cookie.
    Browser(u128),
    /// By `Comfy-User`, unless a cookie identifies the person.
    User(Arc<str>),
    /// An address from which prompts come without any name.
    Address(IpAddr),
}

impl Person {
    /// A user who was let in. No `Comfy-User` has a control character in it, so that nobody is
    /// taken for him who only says so.
    #[must_use]
    pub fn of_account(name: &str) -> Self {
        Self::User(format!("\u{1}{name}").into())
    }

    /// The name of a user who was let in.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::User(name) => name.strip_prefix('\u{1}'),
            Self::Browser(_) | Self::Address(_) => None,
        }
    }
}

/// The key under which a prompt is found.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Owner {
    Client(ClientId),
    Person(Person),
}

/// Who submitted a prompt.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Submitter {
    /// `None` for a prompt that was found on a backend and not submitted through Mooring.
    pub client: Option<ClientId>,
    pub person: Option<Person>,
}

impl Submitter {
    /// A submitter who is known only by the client id, which says whose client it is.
    #[must_use]
    pub fn client(client: ClientId) -> Self {
        let person = client.user().map(Person::of_account);
        Self { client: Some(client), person }
    }

    /// The user whose prompt it is: of his client, or of a client from before that was made his.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        let of_client = self.client.as_ref().and_then(ClientId::user);
        of_client.or_else(|| self.person.as_ref().and_then(Person::account))
    }

    /// True if there is neither a person's name nor a client id.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        matches!(self.person, Some(Person::Address(_)))
    }

    pub(super) fn owners(&self) -> impl Iterator<Item = Owner> {
        let client = self.client.clone().map(Owner::Client);
        client.into_iter().chain(self.person.clone().map(Owner::Person))
    }
}

/// Prompts by their owners.
#[derive(Debug, Default)]
pub struct Owners {
    /// Listed prompts, by their place among all settled ones.
    listed: HashMap<Owner, BTreeMap<u64, PromptId>>,
    /// Pending prompts, of persons only: a client has its own list.
    pending: HashMap<Person, BTreeSet<PromptId>>,
}

impl Owners {
    pub fn began(&mut self, by: &Submitter, prompt: &PromptId) {
        if let Some(person) = &by.person {
            self.pending.entry(person.clone()).or_default().insert(prompt.clone());
        }
    }

    /// The prompt is no longer pending.
    pub fn settled(&mut self, by: &Submitter, prompt: &PromptId) {
        let Some(person) = &by.person else { return };
        let Some(pending) = self.pending.get_mut(person) else { return };
        pending.remove(prompt);
        if pending.is_empty() {
            self.pending.remove(person);
        }
    }

    pub fn list(&mut self, by: &Submitter, place: u64, prompt: &PromptId) {
        // A prompt that was not submitted here is in no history.
        if by.client.is_none() {
            return;
        }
        for owner in by.owners() {
            self.listed.entry(owner).or_default().insert(place, prompt.clone());
        }
    }

    pub fn unlist(&mut self, by: &Submitter, place: u64) {
        for owner in by.owners() {
            let Some(listed) = self.listed.get_mut(&owner) else { continue };
            listed.remove(&place);
            if listed.is_empty() {
                self.listed.remove(&owner);
            }
        }
    }

    #[must_use]
    pub fn is_listed(&self, by: &Submitter, place: u64) -> bool {
        let client = by.client.clone().map(Owner::Client);
        let listed = client.and_then(|client| self.listed.get(&client));
        listed.is_some_and(|listed| listed.contains_key(&place))
    }

    /// The prompts in the histories of these owners, each once: the newest `max` of each, by place.
    #[must_use]
    pub fn listed_of(&self, owners: &[Owner], max: usize) -> Vec<&PromptId> {
        let newest = |owner| self.listed.get(owner).into_iter().flatten().rev().take(max);
        let mut places: Vec<(&u64, &PromptId)> = owners.iter().flat_map(newest).collect();
        places.sort_unstable_by_key(|(place, _)| **place);
        places.dedup_by_key(|(place, _)| **place);
        places.into_iter().map(|(_, prompt)| prompt).collect()
    }

    /// The pending prompts of a person.
    #[must_use]
    pub fn pending_of(&self, person: &Person) -> Vec<PromptId> {
        self.pending.get(person).into_iter().flatten().cloned().collect()
    }

    /// True if a person has any prompt, pending or listed.
    #[must_use]
    pub fn knows(&self, person: &Person) -> bool {
        self.pending.contains_key(person)
            || self.listed.contains_key(&Owner::Person(person.clone()))
    }

    /// The number of owners with prompts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.listed.len() + self.pending.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    fn by(client: &str, person: Option<Person>) -> Submitter {
        Submitter { person, ..Submitter::client(ClientId::parse(client).unwrap()) }
    }

    fn names(ids: &[&PromptId]) -> Vec<String> {
        ids.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_two_tabs_made_is_the_persons_and_each_tabs_its_own() {
        let (me, you) = (Person::Browser(1), Person::User("you".into()));
        let tabs = [by("one", Some(me.clone())), by("two", Some(me.clone()))];
        let other = by("three", Some(you.clone()));
        let mut owners = Owners::default();
        for (tab, place) in [(&tabs[0], 0), (&other, 1), (&tabs[1], 2)] {
            owners.list(tab, place, &id(&place.to_string()));
        }
        let of = |owners: &Owners, wanted: &[Owner]| names(&owners.listed_of(wanted, 9));
        let mine = Owner::Person(me.clone());
        assert_eq!(of(&owners, std::slice::from_ref(&mine)), ["0", "2"]);
        let one = Owner::Client(tabs[0].client.clone().unwrap());
        assert_eq!(of(&owners, std::slice::from_ref(&one)), ["0"]);
        assert_eq!(of(&owners, &[mine.clone(), one]), ["0", "2"], "each once");
        assert_eq!(names(&owners.listed_of(&[mine, Owner::Person(you)], 1)), ["1", "2"]);
        owners.unlist(&tabs[0], 0);
        owners.unlist(&tabs[1], 2);
        owners.unlist(&other, 1);
        assert!(owners.is_empty(), "nothing is left of what is forgotten");
    }

    #[test]
    fn pending_prompts_are_a_persons_until_they_are_settled() {
        let me = Person::Address([10, 0, 0, 1].into());
        let mut owners = Owners::default();
        owners.began(&by("one", Some(me.clone())), &id("p"));
        owners.began(&by("alone", None), &id("q"));
        assert_eq!(owners.pending_of(&me), [id("p")]);
        owners.settled(&by("one", Some(me.clone())), &id("p"));
        assert!(owners.pending_of(&me).is_empty() && owners.is_empty());
    }

    #[test]
    fn what_nobody_submitted_is_in_nobodys_history() {
        let mut owners = Owners::default();
        owners.list(&Submitter::default(), 0, &id("p"));
        assert!(owners.is_empty() && !owners.is_listed(&Submitter::default(), 0));
    }
}
