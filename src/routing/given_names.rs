//! The names of servers in file names: `~gpu-b` (promise R3).
//!
//! A name that was given out for one server is never given out for another, whatever the two are
//! renamed to: a link to a file must not lead to another file of the same name. A server gets its
//! own name, unless that was given out for another server. Otherwise a digest of its address is
//! added.
//!
//! # Invariants
//!
//! - While a name is remembered, it means one server.
//! - At most [`GIVEN_MAX`] are remembered; beyond that, the oldest is dropped.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::servers::ServerKey;

/// How many names are remembered.
pub const GIVEN_MAX: usize = 10_000;

/// The names that were given out.
#[derive(Debug, Default)]
pub struct GivenNames {
    given: HashMap<Arc<str>, Given>,
    next_order: u64,
}

/// For which server a name was given out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Given {
    pub server: ServerKey,
    /// Its place in the order of all given names.
    pub order: u64,
}

/// The result of giving a name out.
#[derive(Debug, Eq, PartialEq)]
pub struct Told {
    pub name: Arc<str>,
    /// Set if the name was not given out before, or was given out without the identity.
    pub new: Option<Given>,
    /// A name that is dropped to make room.
    pub forgotten: Option<Arc<str>>,
}

impl GivenNames {
    /// The name for a server that is called `called`.
    pub fn give(&mut self, server: &ServerKey, called: &str) -> Told {
        // The rest of a server that was replaced is called `NAME~old`.
        let base = called.split('~').next().unwrap_or(called);
        let is_free = |name: &String| {
            self.given.get(name.as_str()).is_none_or(|given| given.server.may_be(server))
        };
        let with_digest = (0..).map(|number| format!("{base}-{}", digest(server, number)));
        let mut names = std::iter::once(base.to_owned()).chain(with_digest);
        let name: Arc<str> = names.find(is_free).unwrap_or_default().into();
        let before = self.given.get(&name);
        // Once the server's identity is known, no other server at its address gets the name.
        let is_told_more =
            |before: &Given| before.server.identity.is_none() && server.identity.is_some();
        if before.is_some_and(|before| !is_told_more(before)) {
            return Told { name, new: None, forgotten: None };
        }
        let order = before.map_or(self.next_order, |before| before.order);
        let given = Given { server: server.clone(), order };
        self.restore(Arc::clone(&name), given.clone());
        Told { name, new: Some(given), forgotten: self.forget_one() }
    }

    /// The identities of the servers at these addresses are now known. Names that were given out
    /// for an address alone now belong to the server there, and not to a later one at that address.
    /// Returns the changed names.
    pub fn know(&mut self, told: &HashMap<Arc<str>, Arc<str>>) -> Vec<(Arc<str>, Given)> {
        let nameless = self.given.iter_mut().filter(|(_, it)| it.server.identity.is_none());
        let known = nameless.filter_map(|(name, it)| {
            it.server.identity = Some(Arc::clone(told.get(&it.server.url)?));
            Some((Arc::clone(name), it.clone()))
        });
        known.collect()
    }

    /// Restores a name that was given out before a restart.
    pub fn restore(&mut self, name: Arc<str>, given: Given) {
        self.next_order = self.next_order.max(given.order + 1);
        self.given.insert(name, given);
    }

    /// The server that a name was given out for.
    #[must_use]
    pub fn server_of(&self, name: &str) -> Option<&ServerKey> {
        self.given.get(name).map(|given| &given.server)
    }

    fn forget_one(&mut self) -> Option<Arc<str>> {
        if self.given.len() <= GIVEN_MAX {
            return None;
        }
        let first = self.given.iter().min_by_key(|(_, given)| given.order);
        let first = first.map(|(name, _)| Arc::clone(name))?;
        self.given.remove(&first);
        Some(first)
    }
}

fn digest(server: &ServerKey, number: u32) -> String {
    let digest = Sha256::new_with_prefix(number.to_be_bytes()).chain_update(&*server.to_text());
    digest.finalize().iter().take(4).fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    fn server(text: &str) -> ServerKey {
        ServerKey::of_text(text)
    }

    fn named(names: &mut GivenNames, text: &str, called: &str) -> String {
        names.give(&server(text), called).name.to_string()
    }

    #[test]
    fn a_server_is_named_as_it_is_called_unless_that_was_anothers_name() {
        let mut names = GivenNames::default();
        assert_eq!(named(&mut names, "h:1", "gpu"), "gpu");
        let other = named(&mut names, "h:2", "gpu");
        assert!(other.starts_with("gpu-") && other.len() == 12, "{other}");
        assert_eq!(named(&mut names, "h:2", "gpu"), other);
        assert_eq!(named(&mut names, "h:1", "gpu~old"), "gpu", "what is left of it");
        assert_eq!(named(&mut names, "h:1", "front"), "front", "an operator calls it so now");
        assert_eq!(names.server_of("gpu"), Some(&server("h:1")), "and that is it as well");
        assert_ne!(named(&mut names, "h:2", &other), "gpu");
        let pod = named(&mut names, "h:3#u0", "pod");
        assert_ne!(named(&mut names, "h:3#u9", "pod"), pod, "another pod of the name");
        assert_eq!(named(&mut names, "h:1#u1", "gpu"), "gpu", "it is told which one it is");
        assert_ne!(named(&mut names, "h:1#u2", "gpu"), "gpu", "so another one is not it");
    }

    #[test]
    fn what_is_told_of_a_server_later_is_told_of_all_its_names() {
        let mut names = GivenNames::default();
        for (at, called) in [("h:1", "gpu"), ("h:1", "front"), ("h:2", "other"), ("h:1#u1", "pod")]
        {
            named(&mut names, at, called);
        }
        let told = HashMap::from([("h:1".into(), "u0".into()), ("h:9".into(), "u9".into())]);
        let mut known = names.know(&told);
        known.sort_by_key(|(_, it)| it.order);
        let known: Vec<_> = known.iter().map(|(name, it)| (&**name, it.order)).collect();
        assert_eq!(known, [("gpu", 0), ("front", 1)]);
        for name in ["gpu", "front"] {
            assert_eq!(names.server_of(name), Some(&server("h:1#u0")));
            assert_ne!(named(&mut names, "h:1#u1", name), name, "another one is not it");
        }
        let rest = ["other", "pod"].map(|name| names.server_of(name).unwrap().to_text());
        assert_eq!(rest.each_ref().map(|it| &**it), ["h:2", "h:1#u1"]);
        assert!(names.know(&told).is_empty(), "it is known");
    }

    #[test]
    fn so_many_are_remembered_and_the_first_goes_first() {
        let mut names = GivenNames::default();
        for number in 0..GIVEN_MAX {
            let told = names.give(&server("h:1"), &format!("n{number}"));
            assert_eq!((told.new.is_some(), told.forgotten), (true, None));
        }
        let told = names.give(&server("h:1"), "more");
        assert_eq!(told.forgotten.as_deref(), Some("n0"));
        assert_eq!((names.server_of("n0"), names.given.len()), (None, GIVEN_MAX));
    }

    proptest! {
        #[test]
        fn a_name_never_means_two_servers(
            all in vec(("[ab]:[12](#[xy])?", "[gh](~old)?"), 1..40),
        ) {
            let mut names = GivenNames::default();
            let mut seen: HashMap<String, ServerKey> = HashMap::new();
            for (text, called) in all {
                let server = server(&text);
                let name = named(&mut names, &text, &called);
                let before = seen.entry(name).or_insert_with(|| server.clone());
                prop_assert_eq!(before.url.clone(), server.url.clone());
                prop_assert_eq!(before.may_be(&server), true);
            }
        }
    }
}
