//! The store of the state, if it is not a folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::config::{ChannelBinding, Host};

use super::keys::RawReplicas;
use super::kinds::{Kind, Shape};
use super::problems::Notes;
use super::raw::{Item, Written};
use super::secret::{self, HIDDEN, Secretive};
use super::{Config, StateDir};

/// `[replicas]`: where the state is kept, and for how long a process has it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicasConfig {
    /// `None`: in `state.dir`.
    pub store: Option<StoreUrl>,
    /// Empty for the name of the host.
    pub name: String,
    pub fleet: String,
    pub lease: Duration,
}

/// The URL of a PostgreSQL database. It can have a password, so it is never shown.
#[derive(Clone)]
pub struct StoreUrl {
    text: String,
    /// How to log in. It has the hosts too, and no setting of TLS.
    pub login: tokio_postgres::Config,
    /// The servers, which are tried in turn.
    pub hosts: Vec<(String, u16)>,
    pub tls: StoreTls,
}

/// When a connection to a database is secured: `sslmode` and `sslrootcert`, as libpq knows them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StoreTls {
    /// Never.
    Off,
    /// If the server can, with any certificate.
    IfOffered,
    /// Always, with any certificate.
    Always,
    /// Always, and the certificate is checked, by these authorities or by the public ones.
    Verified(Option<PathBuf>),
}

impl StoreUrl {
    /// Parses `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    ///
    /// # Errors
    /// What is wrong with it, without its password.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(|it| it.is_control() || it == ' ') {
            return Err("has a space or a line break in it".to_owned());
        }
        if !["postgres://", "postgresql://"].iter().any(|it| text.starts_with(it)) {
            return Err("has to begin with `postgres://`".to_owned());
        }
        // Readers differ in which `@` ends the password, so parts of it would be shown as a host.
        if 1 < text.matches('@').count() {
            return Err("has an `@` too many: in a password write it as `%40`".to_owned());
        }
        let (rest, tls) = without_tls(text)?;
        let login: tokio_postgres::Config =
            rest.parse().map_err(|bad: tokio_postgres::Error| {
                match std::error::Error::source(&bad) {
                    Some(why) => why.to_string(),
                    None => bad.to_string(),
                }
            })?;
        if login.get_user().is_none_or(str::is_empty) {
            return Err("names no user: `postgres://USER@HOST/DATABASE`".to_owned());
        }
        let ports = login.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let hosts = login.get_hosts().iter().enumerate().map(|(at, host)| match host {
            Host::Tcp(name) if !name.is_empty() => Ok((name.clone(), port(at))),
            Host::Tcp(_) => Err("names no host".to_owned()),
            Host::Unix(_) => Err("has to name a host: sockets of files are not used".to_owned()),
        });
        let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
        if login.get_channel_binding() == ChannelBinding::Require {
            return Err("has `channel_binding=require`, which is not supported".to_owned());
        }
        if hosts.is_empty() {
            return Err("names no host: `postgres://USER@HOST/DATABASE`".to_owned());
        }
        Ok(Self { text: text.to_owned(), login, hosts, tls })
    }

    /// The place, for people: hosts and database.
    #[must_use]
    pub fn place(&self) -> String {
        let hosts = self.hosts.iter().map(|(host, port)| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        });
        let database = self.login.get_dbname().or(self.login.get_user()).unwrap_or_default();
        format!("{}/{database}", hosts.collect::<Vec<_>>().join(","))
    }
}

/// Takes `sslmode` and `sslrootcert` out of a URL.
fn without_tls(text: &str) -> Result<(String, StoreTls), String> {
    let (url, query) = text.split_once('?').unwrap_or((text, ""));
    let (mut mode, mut roots) = (None, None);
    let mut others = Vec::new();
    for pair in query.split('&').filter(|it| !it.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = || percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        match key {
            "sslmode" => mode = Some(value()),
            "sslrootcert" => roots = Some(value()),
            _other => others.push(pair),
        }
    }
    let authorities = roots.as_deref().filter(|it| *it != "system").map(PathBuf::from);
    let tls = match mode.as_deref() {
        // As libpq does: a file of authorities is there to be used.
        None | Some("require") if roots.is_some() => StoreTls::Verified(authorities),
        None | Some("prefer") => StoreTls::IfOffered,
        Some("require") => StoreTls::Always,
        Some("disable" | "allow") => StoreTls::Off,
        Some("verify-ca" | "verify-full") => StoreTls::Verified(authorities),
        Some(_other) => {
            let words = "`disable`, `prefer`, `require` or `verify-full`";
            return Err(format!("has a `sslmode` that is none of {words}"));
        }
    };
    let query = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
    Ok((format!("{url}{query}"), tls))
}

impl PartialEq for StoreUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreUrl").field(&self.place()).finish()
    }
}

/// The URL of a store, or empty.
#[derive(Debug)]
pub(super) struct StoreAt;

impl Kind for StoreAt {
    type Value = Option<StoreUrl>;
    const SHAPE: Shape = Shape::Text;
    const IS_SECRET: bool = true;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() { Ok(None) } else { StoreUrl::parse(text).map(Some) }
    }

    fn takes(&self) -> String {
        "a URL such as \"postgres://mooring@db:5432/mooring\"".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }

    fn shown(&self, item: &Item) -> Value {
        if *item == Item::Text(String::new()) { "".into() } else { HIDDEN.into() }
    }

    /// Replaces the standard method, whose report would show the value.
    fn text(&self, written: &Written) -> Result<String, String> {
        match &written.item {
            Item::Text(text) => Ok(text.clone()),
            Item::Number(_) | Item::Other | Item::Switch(_) | Item::List(_) | Item::Table(_) => {
                Err(format!("expected {}", self.takes()))
            }
        }
    }
}

impl Secretive for StoreAt {
    fn excludes_file(value: &Self::Value) -> bool {
        value.is_some()
    }

    fn take_in(value: &mut Self::Value, text: &str, _file: &Path) -> Result<(), String> {
        *value = Some(StoreUrl::parse(text.trim())?);
        Ok(())
    }
}

pub(super) fn check(raw: RawReplicas, notes: &mut Notes) -> ReplicasConfig {
    let RawReplicas { store, store_file, name, fleet, lease } = raw;
    ReplicasConfig {
        store: secret::check(store, store_file, notes),
        name: name.check(notes),
        fleet: fleet.check(notes),
        lease: lease.check(notes),
    }
}

/// There is one place for the state.
pub(super) fn check_rules(config: &Config, notes: &mut Notes) {
    let is_folder = match &config.state.dir {
        StateDir::Written(path) => path != Path::new(super::place::NOWHERE),
        StateDir::Default(_) | StateDir::Unset | StateDir::Nowhere => false,
    };
    if config.replicas.store.is_some() && is_folder && notes.has_written("state.dir") {
        let what = "there is a folder for the state and a `replicas.store` too: one of them is \
                    enough";
        notes.report("state.dir", what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        let url = StoreUrl::parse("postgresql://ada:s%40@db/m?sslmode=require").unwrap();
        assert_eq!((url.place().as_str(), &url.tls), ("db:5432/m", &StoreTls::Always));
        assert_eq!(url.login.get_password(), Some(&b"s@"[..]));
        assert!(!format!("{url:?}").contains("s@"));
        let two = StoreUrl::parse("postgres://ada@a,[::1]:6000/m?sslmode=disable").unwrap();
        assert_eq!(two.hosts, [("a".to_owned(), 5432), ("::1".to_owned(), 6000)]);
        assert_eq!((two.place().as_str(), two.tls), ("a:5432,[::1]:6000/m", StoreTls::Off));
        let tls = |query: &str| StoreUrl::parse(&format!("postgres://ada@a/m{query}")).unwrap().tls;
        assert_eq!(tls(""), StoreTls::IfOffered);
        assert_eq!(tls("?connect_timeout=3&sslmode=prefer"), StoreTls::IfOffered);
        let file = Some("/r oot.pem".into());
        assert_eq!(tls("?sslrootcert=/r%20oot.pem"), StoreTls::Verified(file.clone()));
        assert_eq!(tls("?sslmode=verify-full&sslrootcert=system"), StoreTls::Verified(None));
        assert_eq!(tls("?sslmode=verify-ca&sslrootcert=/r%20oot.pem"), StoreTls::Verified(file));
    }

    #[test]
    fn a_url_that_is_wrong_is_refused_without_its_password() {
        for (text, what) in [
            ("mysql://ada:s3cret@db/m", "postgres://"),
            ("postgres://ada:s3cret@db/m\nx", "line break"),
            ("postgres://db/m", "names no user"),
            ("postgres://ada:s3cret@/m", "names no host"),
            ("postgres://ada:s3cret@/m?host=/run/postgresql", "sockets of files"),
            ("postgres://ada:s3cret@db/m?sslmode=maybe", "none of"),
            ("postgres://ada:s3@cret@db/m", "%40"),
            ("postgres://ada:s3@cret/w0rd@db/m", "%40"),
            ("postgres://ada:s3@cret?w0=rd@db/m", "%40"),
            ("postgres://ada:s3cret@db/m?channel_binding=require", "not supported"),
            ("postgres://ada:s3cret@db:port/m", "port"),
            ("postgres://ada:s3cret@db/m?mood=good", "mood"),
        ] {
            let error = StoreUrl::parse(text).unwrap_err();
            assert!(error.contains(what) && !error.contains("cret"), "{text}: {error}");
        }
    }
}
