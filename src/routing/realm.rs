//! Whose clients are whose, where users are asked for.
//!
//! A client is known by its user and by the name that it has for itself. Two users may choose the
//! same name: scripts do, and everybody who knows another's name can. So the [`ClientId`] of a
//! user's client has the user in it, everywhere: at backends, in the ledger and in the journal. The
//! client itself is only told the name that it chose.
//!
//! # Invariants
//!
//! - Only a [`Realm`] makes a [`ClientId`] of what a request says ([`ClientName`]).
//! - The mark of a user's client is a control character. No [`ClientName`] has one, so nobody can
//!   spell out another's id, not even where nobody is asked who he is.
//! - Where users are not asked for, the id is the name, byte for byte.

use std::sync::Arc;

use super::ids::{BadClientId, ClientId};
use super::owners::{Person, Submitter};

/// Stands before and after the user in the id of a user's client.
const MARK: char = '\u{1}';

/// The longest name of a user, in bytes.
const USER_MAX: usize = 64;

/// A client's own name for itself, as a request says it: the `clientId` of its socket, the
/// `client_id` of its prompts. Whose client that is, its [`Realm`] says.
///
/// Invariant: 1 to [`ClientId::LEN_MAX`] bytes without control characters. Nothing else is
/// required, because ComfyUI accepts any string and the stock page uses `window.name`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientName(Arc<str>);

impl ClientName {
    /// Parses an untrusted string.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadClientId> {
        check(text).map(|()| Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Those who share their clients, prompts and what they are told: one user, or everybody where
/// users are not asked for.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub enum Realm {
    #[default]
    Everybody,
    User(Arc<str>),
}

impl Realm {
    /// The client that is called so here.
    #[must_use]
    pub fn client(&self, name: ClientName) -> ClientId {
        match self {
            Self::Everybody => ClientId::of_text(name.0),
            Self::User(user) => {
                ClientId::of_text(format!("{MARK}{user}{MARK}{}", name.as_str()).into())
            }
        }
    }

    /// True for a client of this realm. Those of users are not everybody's.
    #[must_use]
    pub fn has(&self, client: &ClientId) -> bool {
        self.user() == client.user()
    }

    /// True for the client that is called so here.
    #[must_use]
    pub fn calls(&self, client: &ClientId, name: &str) -> bool {
        client.name() == name && self.has(client)
    }

    /// True for a prompt of this realm. One that was found on a backend, where nothing said whose
    /// it is, is no user's.
    #[must_use]
    pub fn owns(&self, by: &Submitter) -> bool {
        self.user() == by.user()
    }

    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Everybody => None,
            Self::User(user) => Some(user),
        }
    }

    /// The user as a person.
    #[must_use]
    pub fn person(&self) -> Option<Person> {
        self.user().map(Person::of_account)
    }
}

impl ClientId {
    /// Parses what was a [`ClientId`] before: in the journal, at a backend, in an operator's
    /// question. What a client says of itself is a [`ClientName`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadClientId> {
        check(parts(text).1).map(|()| Self::of_text(text.into()))
    }

    /// What the client calls itself, and is told.
    #[must_use]
    pub fn name(&self) -> &str {
        parts(self.as_str()).1
    }

    /// The user whose client it is.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        parts(self.as_str()).0
    }
}

/// The user in the text of an id, and the name.
fn parts(text: &str) -> (Option<&str>, &str) {
    let Some(marked) = text.strip_prefix(MARK) else { return (None, text) };
    let is_user = |user: &str| {
        !user.is_empty() && user.len() <= USER_MAX && !user.chars().any(char::is_control)
    };
    match marked.split_once(MARK) {
        Some((user, name)) if is_user(user) => (Some(user), name),
        Some(_) | None => (None, text),
    }
}

fn check(name: &str) -> Result<(), BadClientId> {
    if name.is_empty() {
        return Err(BadClientId::Empty);
    }
    if ClientId::LEN_MAX < name.len() {
        return Err(BadClientId::TooLong { len: name.len() });
    }
    match name.char_indices().find(|(_, character)| character.is_control()) {
        Some((index, _)) => Err(BadClientId::Control { index }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn name(text: &str) -> ClientName {
        ClientName::parse(text).unwrap()
    }

    fn of(user: &str) -> Realm {
        Realm::User(user.into())
    }

    #[test]
    fn a_window_name_is_a_name_and_a_line_break_is_not() {
        assert!(ClientName::parse("Größe 2, left").is_ok());
        assert_eq!(ClientName::parse("a\nb"), Err(BadClientId::Control { index: 1 }));
        assert_eq!(ClientName::parse(""), Err(BadClientId::Empty));
        assert_eq!(ClientName::parse(&"x".repeat(257)), Err(BadClientId::TooLong { len: 257 }));
    }

    #[test]
    fn the_same_name_is_another_client_of_each_user() {
        let (ada, bob, all) = (of("ada"), of("bob"), Realm::Everybody);
        let ids = [&ada, &bob, &all].map(|realm| realm.client(name("tab")));
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        for (at, realm) in [&ada, &bob, &all].into_iter().enumerate() {
            for (other, id) in ids.iter().enumerate() {
                assert_eq!(realm.has(id), at == other, "{at} {other}");
                assert_eq!(realm.calls(id, "tab"), at == other, "{at} {other}");
                assert_eq!(realm.owns(&Submitter::client(id.clone())), at == other);
            }
        }
        assert!(ids.iter().all(|id| id.name() == "tab"));
        assert_eq!(ids[2].as_str(), "tab");
        assert!(all.owns(&Submitter::default()) && !ada.owns(&Submitter::default()));
    }

    #[test]
    fn nobody_spells_out_the_id_of_a_users_client() {
        let id = of("ada").client(name("tab"));
        assert_eq!(ClientName::parse(id.as_str()), Err(BadClientId::Control { index: 0 }));
        for odd in ["\u{1}tab", "\u{1}\u{1}tab", "\u{1}a\nb\u{1}tab", "\u{1}ada\u{1}"] {
            assert!(ClientId::parse(odd).is_err(), "{odd:?}");
        }
        let long = format!("\u{1}{}\u{1}tab", "a".repeat(65));
        assert!(ClientId::parse(&long).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_is_refused(text in any::<String>()) {
            let is_name =
                !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control);
            let named = ClientName::parse(&text).map(|it| it.as_str().to_owned()).ok();
            prop_assert_eq!(named, is_name.then_some(text));
        }

        #[test]
        fn an_id_says_whose_it_is_and_is_read_again(
            user in "[a-z0-9][a-zA-Z0-9._@+-]{0,63}",
            text in "[^\\x00-\\x1f\\x7f-\\x9f]{1,60}",
        ) {
            for realm in [of(&user), Realm::Everybody] {
                let id = realm.client(name(&text));
                prop_assert_eq!(id.name(), &text);
                prop_assert_eq!(id.user(), realm.user());
                prop_assert!(realm.calls(&id, &text));
                prop_assert_eq!(ClientId::parse(id.as_str()).unwrap(), id);
            }
        }
    }
}
