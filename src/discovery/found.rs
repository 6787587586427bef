//! Turns the results of a source into wanted backends. Pure.

use std::num::NonZeroU32;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::config::url::Address;
use crate::config::{BackendConfig, DiscoveryConfig, ListedBy};

/// One server that a source has found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Server {
    /// Its name at the source; see [`name`].
    pub name: String,
    /// A name or an IP address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// The identity of the server, if the source knows it.
    pub identity: Option<Arc<str>>,
    /// Settings that override the configuration.
    pub own: Own,
}

/// Settings that a source may give for a server, besides its address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Own {
    pub weight: Option<NonZeroU32>,
    /// 0 means no limit.
    pub max_pending: Option<u32>,
    pub labels: Option<Vec<String>>,
}

/// The backends for these servers, in the order of their names. If two have the same address, the
/// first one counts.
#[must_use]
pub fn backends(config: &DiscoveryConfig, servers: &[Server]) -> Vec<BackendConfig> {
    let mut backends: Vec<BackendConfig> = servers.iter().map(|it| backend(config, it)).collect();
    backends.sort_by(|one, other| one.name.cmp(&other.name));
    let mut addresses = std::collections::BTreeSet::new();
    backends.retain(|it| addresses.insert(it.authority.clone()));
    backends
}

fn backend(config: &DiscoveryConfig, server: &Server) -> BackendConfig {
    let address = Address { host: server.host.clone(), port: server.port };
    BackendConfig {
        name: name(&server.name),
        authority: address.to_string(),
        host: address.host,
        port: address.port,
        weight: server.own.weight.unwrap_or(config.weight),
        max_pending: server.own.max_pending.map_or(config.max_pending, NonZeroU32::new),
        labels: server.own.labels.clone().unwrap_or_else(|| config.labels.clone()),
        headers: config.headers.clone(),
        tls: None,
        listed_by: ListedBy::Discovery(config.name.clone()),
        identity: server.identity.clone(),
    }
}

/// The longest name that a backend may have.
const NAME_MAX: usize = 63;

/// A valid backend name. If the name is too long, its end is replaced by a digest of all of it.
#[must_use]
pub fn name(text: &str) -> String {
    let is_good = |it: char| it.is_ascii_alphanumeric() || "._-:".contains(it);
    let good: String = text.chars().map(|it| if is_good(it) { it } else { '-' }).collect();
    if good == text && (1..=NAME_MAX).contains(&good.len()) {
        return good;
    }
    let digest = Sha256::digest(text.as_bytes());
    let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let kept = &good[..good.len().min(NAME_MAX - 1 - digest.len())];
    format!("{kept}-{digest}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::config::{BackendHeaders, PlaceOfBackends};

    pub(crate) fn config() -> DiscoveryConfig {
        DiscoveryConfig {
            name: "gpus".to_owned(),
            source: PlaceOfBackends::Addresses {
                host: "comfyui.example".to_owned(),
                port: 8188,
                resolver: None,
            },
            weight: NonZeroU32::MIN.saturating_add(2),
            max_pending: NonZeroU32::new(7),
            labels: vec!["video".to_owned()],
            headers: BackendHeaders::default(),
        }
    }

    fn server(name: &str, host: &str, port: u16) -> Server {
        Server { name: name.to_owned(), host: host.to_owned(), port, ..Server::default() }
    }

    #[test]
    fn a_server_becomes_a_backend_with_the_settings_of_its_discovery_or_its_own() {
        let labels = Some(vec!["h100".to_owned()]);
        let own = Own { weight: NonZeroU32::new(9), max_pending: Some(0), labels };
        let servers = [
            Server { own, identity: Some("u".into()), ..server("b", "fd00::1", 8188) },
            server("a", "10.0.0.1", 8188),
            server("z", "10.0.0.1", 8188),
        ];
        let found = backends(&config(), &servers);
        let told: Vec<_> = found.iter().map(|it| (&*it.name, &*it.authority)).collect();
        assert_eq!(told, [("a", "10.0.0.1:8188"), ("b", "[fd00::1]:8188")]);
        assert_eq!((found[0].weight.get(), found[0].max_pending.unwrap().get()), (3, 7));
        assert_eq!((found[1].weight.get(), found[1].max_pending), (9, None));
        assert_eq!((&*found[0].labels[0], &*found[1].labels[0]), ("video", "h100"));
        assert_eq!((&found[0].identity, found[1].identity.as_deref()), (&None, Some("u")));
    }

    #[test]
    fn a_name_that_is_too_long_is_told_from_others_that_begin_like_it() {
        assert_eq!(name("comfyui-0"), "comfyui-0");
        let (one, other) = ("a".repeat(70) + "1", "a".repeat(70) + "2");
        assert_ne!(name(&one), name(&other));
        assert_eq!(name(&one).len(), NAME_MAX);
    }

    proptest! {
        #[test]
        fn every_name_is_one_that_a_backend_may_have(text: String) {
            let name = name(&text);
            let flags = vec![(format!("backends.{name}.url"), "http://a:1".to_owned())];
            let sources = crate::config::Sources { flags, ..crate::config::Sources::default() };
            let config = crate::config::load(&sources);
            prop_assert!(config.is_ok(), "{name}");
            prop_assert_eq!(&config.unwrap().backends[0].name, &name);
        }
    }
}
