//! Which server is meant: where it listens and, where that was told, which one it is. Names change,
//! and an address may be another's later.

use std::collections::HashMap;
use std::sync::Arc;

use super::ids::BackendId;

/// One server, as records name it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServerKey {
    /// `host:port`.
    pub url: Arc<str>,
    /// Which one it is, as whoever discovered it told.
    pub identity: Option<Arc<str>>,
}

impl ServerKey {
    #[must_use]
    pub fn new(url: impl Into<Arc<str>>, identity: Option<Arc<str>>) -> Self {
        Self { url: url.into(), identity }
    }

    /// As one text: `host:port`, or `host:port#identity`. No address has a `#`.
    #[must_use]
    pub fn to_text(&self) -> Arc<str> {
        match &self.identity {
            Some(identity) => format!("{}#{identity}", self.url).into(),
            None => Arc::clone(&self.url),
        }
    }

    /// Reads it back.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        match text.split_once('#') {
            Some((url, identity)) => Self::new(url, Some(identity.into())),
            None => Self::new(text, None),
        }
    }

    /// False if they are told to be two. Where it is not told which server listens at an address,
    /// it is the one that always did.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let are_two = |(one, other): (&Arc<str>, &Arc<str>)| one != other;
        let identities = self.identity.as_ref().zip(other.identity.as_ref());
        self.url == other.url && !identities.is_some_and(are_two)
    }
}

/// The servers of a fleet. No two are at one address.
#[derive(Clone, Debug, Default)]
pub struct Servers(HashMap<Arc<str>, (ServerKey, BackendId)>);

impl Servers {
    /// The backend that this server is.
    #[must_use]
    pub fn id_of(&self, server: &ServerKey) -> Option<BackendId> {
        self.found(server).map(|(_, id)| id)
    }

    /// The same, with what it is known by now.
    #[must_use]
    pub fn found(&self, server: &ServerKey) -> Option<(&ServerKey, BackendId)> {
        let (there, id) = self.0.get(&server.url)?;
        there.may_be(server).then_some((there, *id))
    }

    /// True if some server listens there, whichever it is.
    #[must_use]
    pub fn has_one_at(&self, url: &str) -> bool {
        self.0.contains_key(url)
    }
}

impl FromIterator<(ServerKey, BackendId)> for Servers {
    fn from_iter<I: IntoIterator<Item = (ServerKey, BackendId)>>(servers: I) -> Self {
        let by_url =
            servers.into_iter().map(|(server, id)| (Arc::clone(&server.url), (server, id)));
        Self(by_url.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_an_address_and_what_was_told_of_it() {
        let of = ServerKey::of_text;
        for text in ["h:1", "[::1]:8188", "h:1#u0", "h:1#a#b"] {
            assert_eq!(&*of(text).to_text(), text);
        }
        assert!(of("h:1#u0").may_be(&of("h:1#u0")) && of("h:1").may_be(&of("h:1")));
        assert!(!of("h:1#u0").may_be(&of("h:1#u9")), "another pod");
        assert!(!of("h:1").may_be(&of("h:2")));
        assert!(of("h:1").may_be(&of("h:1#u0")) && of("h:1#u0").may_be(&of("h:1")));
        let servers = Servers::from_iter([(of("h:1#u0"), BackendId::nth(3))]);
        assert_eq!(servers.id_of(&of("h:1")), Some(BackendId::nth(3)));
        assert_eq!(servers.id_of(&of("h:1#u9")), None);
        assert!(servers.has_one_at("h:1") && !servers.has_one_at("h:2"));
    }
}
