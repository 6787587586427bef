//! The names by which the listeners are asked (`server.hosts`).
//!
//! A page of anybody's site can make its own name lead to this machine (DNS rebinding). To the
//! browser the listener is then a part of that site, so that `Origin` and `Host` agree. But the
//! name in `Host` stays that of the site: a listener that answers to its own names alone is safe.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde_json::Value;

use super::kinds::{Faults, Kind, Shape};
use super::raw::Written;
use super::values::{LIST_MAX, comma_separated, read_list};
use super::{ServerConfig, schema, url};

/// One entry of `server.hosts`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HostName {
    /// In lower case, without a dot at its end.
    Name(Box<str>),
    /// Every name below this one, and not the name itself: written `*.example.org`.
    Below(Box<str>),
    Address(IpAddr),
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadHostName {
    #[error(
        "any name would do, also one that somebody else makes lead here; list the names of this \
         gateway, such as `comfy.example.org` or `*.example.org`"
    )]
    Everybody,
    #[error("a host has no scheme and no path here, only its name, such as `comfy.example.org`")]
    Url,
    #[error("a host has no port here: it is the same at every port")]
    Port,
    #[error("this is no name of a host and no IP address")]
    BadName,
}

impl FromStr for HostName {
    type Err = BadHostName;

    fn from_str(text: &str) -> Result<Self, BadHostName> {
        if matches!(text, "*" | "*.") {
            return Err(BadHostName::Everybody);
        }
        if text.contains('/') {
            return Err(BadHostName::Url);
        }
        let is_v6 = text.parse::<Ipv6Addr>().is_ok();
        if !is_v6 && text.rfind(':').is_some_and(|colon| !text[colon..].contains(']')) {
            return Err(BadHostName::Port);
        }
        let (below, rest) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
        let host = if is_v6 { Ok(rest.to_owned()) } else { url::host(rest) };
        let host = host.map_err(|_| BadHostName::BadName)?;
        match (host.parse::<IpAddr>(), below) {
            (Ok(_), true) => Err(BadHostName::BadName),
            (Ok(address), false) => Ok(Self::Address(address.to_canonical())),
            (Err(_), true) => Ok(Self::Below(host.into())),
            (Err(_), false) => Ok(Self::Name(host.into())),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl HostName {
    fn is(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => name.eq_ignore_ascii_case(host),
            Self::Below(name) => is_below(host, name),
            Self::Address(address) => {
                host.parse().is_ok_and(|it: IpAddr| it.to_canonical() == *address)
            }
        }
    }
}

/// True if `host` ends with a dot and `name`, and has something before them.
fn is_below(host: &str, name: &str) -> bool {
    let Some(at) = host.len().checked_sub(name.len() + 1).filter(|at| 0 < *at) else {
        return false;
    };
    host.as_bytes()[at] == b'.' && host.as_bytes()[at + 1..].eq_ignore_ascii_case(name.as_bytes())
}

/// An address, or a name that means this machine alone, whoever is asked what it means (RFC 6761
/// section 6.3).
fn is_own(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || is_below(host, "localhost")
        || host.parse::<IpAddr>().is_ok()
}

/// The host of a value of `Host`: without its port, brackets, and a dot at its end. `None` if that
/// is no text.
fn bare(host: &[u8]) -> Option<&str> {
    let host = std::str::from_utf8(host).ok()?.trim();
    if let Some(inner) = host.strip_prefix('[') {
        return inner.split(']').next();
    }
    let name = host.split(':').next()?;
    Some(name.strip_suffix('.').unwrap_or(name))
}

fn is_on_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

impl ServerConfig {
    /// True if the front's own names are all that it answers to: it is on loopback, where only
    /// this machine and what is meant for it has any business, or somebody has listed them.
    #[must_use]
    pub fn checks_hosts(&self) -> bool {
        !self.hosts.is_empty() || is_on_loopback(self.listen)
    }

    /// True if this is a name of the gateway: one of this machine alone, one that is listed, or
    /// any address. Nobody can make an address lead elsewhere, and probes and load balancers ask by
    /// addresses that nobody can list. `host` is a value of `Host`. It allocates nothing: each
    /// request comes by here.
    #[must_use]
    pub fn is_called(&self, host: &[u8]) -> bool {
        let is_it = |host: &str| is_own(host) || self.hosts.iter().any(|it| it.is(host));
        bare(host).is_some_and(is_it)
    }

    /// The same for what is more than a client's: `*.example.org` says too little there, because
    /// somebody else may have a host below `example.org`.
    #[must_use]
    pub fn is_called_exactly(&self, host: &[u8]) -> bool {
        let is_whole = |it: &&HostName| !matches!(it, HostName::Below(_));
        let mut listed = self.hosts.iter().filter(is_whole);
        bare(host).is_some_and(|host| is_own(host) || listed.any(|it| it.is(host)))
    }
}

/// Names of hosts, such as `comfy.example.org`.
#[derive(Debug)]
pub(super) struct HostNames;

impl Kind for HostNames {
    type Value = Vec<HostName>;
    const SHAPE: Shape = Shape::List;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        comma_separated(text).map(Self::entry).collect()
    }

    fn takes(&self) -> String {
        "a list of hosts such as \"comfy.example.org\"".to_owned()
    }

    fn schema(&self) -> Value {
        schema::list(LIST_MAX)
    }

    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        read_list(self, written, Self::entry)
    }
}

impl HostNames {
    fn entry(text: &str) -> Result<HostName, String> {
        text.parse().map_err(|bad: BadHostName| {
            // A URL may hold a password.
            if text.contains('@') { bad.to_string() } else { format!("`{text}`: {bad}") }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::UserTable;
    use crate::config::{Config, Sources, check, load};

    fn config(hosts: &str, listen: &str) -> Config {
        let flags = [
            ("backends.a.url", "http://a:1"),
            ("server.hosts", hosts),
            ("server.listen", listen),
            ("auth.mode", "off"),
        ];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned()));
        load(&Sources { flags: flags.to_vec(), ..Sources::default() }).unwrap()
    }

    const LOOPBACK: &[&str] = &[
        "localhost",
        "LocalHost:8180",
        "localhost.",
        "localhost.:8180",
        "comfy.localhost:1",
        "127.0.0.1",
        "127.0.0.1:8180",
        "127.8.8.8",
        "[::1]",
        "[::1]:8180",
        "[0:0::1]:",
        "[::ffff:127.0.0.1]:1",
        // Nobody can make an address lead elsewhere.
        "0.0.0.0:8180",
        "10.0.0.7",
        "[::2]:8180",
    ];

    const FOREIGN: &[&str] = &[
        "",
        "evil.example",
        "evil.example:8180",
        "localhost.evil.example",
        "localhost.evil",
        "evillocalhost",
        ".localhost",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "127.1",
        "2130706433",
        "0x7f.1",
        "10.0.0",
        "10.0.0.7.evil.example",
        "[fe80::1%25lo]",
        "ip6-localhost",
        "gw",
    ];

    #[test]
    fn names_of_this_machine_alone_are_always_its_own() {
        let config = config("", "127.0.0.1:0").server;
        for host in LOOPBACK {
            assert!(config.is_called(host.as_bytes()), "{host}");
        }
        for host in FOREIGN {
            assert!(!config.is_called(host.as_bytes()), "{host}");
        }
        assert!(!config.is_called(b"\xff"));
    }

    #[test]
    fn what_is_listed_is_its_own_too_in_every_spelling_of_it() {
        let hosts = "Comfy.Example.ORG., *.lan, 10.0.0.7, [fd00::7], fd00:0::8";
        let config = config(hosts, "127.0.0.1:0").server;
        let own = ["comfy.example.org", "COMFY.example.org.:443", "a.lan", "b.A.LAN.:1"];
        let addresses = ["10.0.0.7:8180", "[fd00::7]:1", "[FD00:0:0::8]", "localhost", "[::1]:8"];
        for host in own.iter().chain(&addresses) {
            assert!(config.is_called(host.as_bytes()), "{host}");
        }
        let others = ["lan", ".lan", "a.lan.evil", "evil-lan", "comfy.example.org.evil"];
        for host in others.iter().chain(FOREIGN) {
            assert!(!config.is_called(host.as_bytes()), "{host}");
        }
        let exactly = |host: &&str| config.is_called_exactly(host.as_bytes());
        let own: Vec<&str> = own.into_iter().filter(exactly).collect();
        assert_eq!(own, ["comfy.example.org", "COMFY.example.org.:443"]);
        assert!(addresses.iter().all(exactly));
    }

    #[test]
    fn a_listener_checks_names_on_loopback_always_and_elsewhere_once_some_are_listed() {
        for (hosts, listen, checks) in [
            ("", "127.0.0.1:0", true),
            ("", "127.9.9.9:0", true),
            ("", "[::1]:0", true),
            ("", "[::ffff:127.0.0.1]:0", true),
            ("", "0.0.0.0:0", false),
            ("", "[::]:0", false),
            ("", "10.0.0.7:0", false),
            ("gw", "0.0.0.0:0", true),
        ] {
            assert_eq!(config(hosts, listen).server.checks_hosts(), checks, "{hosts} {listen}");
        }
    }

    #[test]
    fn who_lets_in_everybody_by_any_name_is_told() {
        let warned = |mode: &str, hosts: &str, listen: &str| {
            let users = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(users.path(), UserTable::default().to_text()).unwrap();
            let flags = [
                ("backends.a.url", "http://a:1"),
                ("server.hosts", hosts),
                ("server.listen", listen),
                ("auth.mode", mode),
                ("auth.users_file", users.path().to_str().unwrap()),
            ];
            let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned()));
            let warnings = check(&Sources { flags: flags.to_vec(), ..Sources::default() }).warnings;
            warnings.iter().any(|it| it.to_string().contains("`server.hosts`"))
        };
        assert!(warned("off", "", "0.0.0.0:0"));
        assert!(!warned("off", "gw", "0.0.0.0:0"));
        assert!(!warned("off", "", "127.0.0.1:0"));
        assert!(!warned("keys", "", "0.0.0.0:0"));
    }

    #[test]
    fn what_is_no_host_is_refused_and_says_why() {
        for (text, said) in [
            ("*", "any name would do"),
            ("https://gw", "no scheme and no path"),
            ("gw/", "no scheme and no path"),
            ("gw:8180", "no port"),
            ("10.0.0.7:1", "no port"),
            ("[::1]:1", "no port"),
            ("*.10.0.0.7", "no name of a host"),
            ("a*.lan", "no name of a host"),
            ("*.*.lan", "no name of a host"),
            ("m\u{fc}nchen.example", "no name of a host"),
            ("10.0.0.300", "no name of a host"),
            ("a b", "no name of a host"),
        ] {
            let bad = HostNames::entry(text).unwrap_err();
            assert!(bad.starts_with(&format!("`{text}`: ")) && bad.contains(said), "{bad}");
        }
        assert!(!HostNames::entry("http://me:s3cret@gw").unwrap_err().contains("s3cret"));
        let shown = |text: &str| HostNames::entry(text).unwrap().to_string();
        assert_eq!(["GW.", "*.LAN", "[::1]"].map(shown), ["gw", "*.lan", "::1"]);
    }
}
