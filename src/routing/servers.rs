//! Identifies a server: by its address and, if known, by its identity. Names can change, and an
//! address can later belong to another server.

use std::collections::HashMap;
use std::sync::Arc;

use super::ids::BackendId;

/// One server, as records identify it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServerKey {
    /// `host:port`.
    pub url: Arc<str>,
    /// Its identity, if its discovery gave one.
    pub identity: Option<Arc<str>>,
}

impl ServerKey {
    #[must_use]
    pub fn new(url: impl Into<Arc<str>>, identity: Option<Arc<str>>) -> Self {
        Self { url: url.into(), identity }
    }

    /// The key as text: `host:port`, or `host:port#identity`. No address contains a `#`.
    #[must_use]
    pub fn to_text(&self) -> Arc<str> {
        match &self.identity {
            Some(identity) => format!("{}#{identity}", self.url).into(),
            None => Arc::clone(&self.url),
        }
    }

    /// Parses the text.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let (url, identity) = parts(text);
        Self::new(url, identity.map(Arc::from))
    }

    /// False if both identities are known and differ. An unknown identity at the same address
    /// counts as the same server.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        self.url == other.url && may_be_one(self.identity.as_deref(), other.identity.as_deref())
    }

    /// True if this is exactly its text.
    #[must_use]
    pub fn is_written(&self, text: &str) -> bool {
        parts(text) == (&*self.url, self.identity.as_deref())
    }
}

/// Address and identity in the text of a key.
fn parts(text: &str) -> (&str, Option<&str>) {
    text.split_once('#').map_or((text, None), |(url, identity)| (url, Some(identity)))
}

fn may_be_one(one: Option<&str>, other: Option<&str>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

/// The servers of a fleet. No two have the same address.
#[derive(Clone, Debug, Default)]
pub struct Servers(HashMap<Arc<str>, (ServerKey, BackendId)>);

impl Servers {
    /// The backend that this server is.
    #[must_use]
    pub fn id_of(&self, server: &ServerKey) -> Option<BackendId> {
        let (there, id) = self.0.get(&server.url)?;
        there.may_be(server).then_some(*id)
    }

    /// The backend whose server this text names, and the key by which that server is known now.
    #[must_use]
    pub fn written(&self, text: &str) -> Option<(&ServerKey, BackendId)> {
        let (url, identity) = parts(text);
        let (there, id) = self.0.get(url)?;
        may_be_one(there.identity.as_deref(), identity).then_some((there, *id))
    }

    /// True if any server has this address.
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
        let known = |text: &str| servers.written(text).map(|(there, _)| there.is_written(text));
        let texts = ["h:1#u0", "h:1", "h:1#u9", "h:2"];
        assert_eq!(texts.map(known), [Some(true), Some(false), None, None]);
    }
}
