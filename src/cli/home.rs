//! Which backend is the home, as far as that is known before a gateway runs, and where copies of
//! its data are kept.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::{self, Config, SecretFiles};
use crate::journal::peek::{Peeked, peek};
use crate::journal::record::{AddedRecord, HomeRecord};
use crate::routing::home::{Candidate, Fleet, choose};
use crate::routing::ids::BackendId;

/// What is known of the home.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct HomeAnswer {
    /// `None` if a running gateway has chosen it.
    backend: Option<Arc<str>>,
    why: &'static str,
    text: String,
}

impl HomeAnswer {
    /// Reads the journal, unless the configuration names the home.
    pub(super) fn of(config: &Config) -> Self {
        let is_named = !config.server.home.is_empty();
        let dir = config.state.dir.path().filter(|_| !is_named);
        if config.replicas.store.is_some() && !is_named {
            let why = "it is in `replicas.store`, which was not asked";
            return Self::with(config, Peeked::Unreadable(why.to_owned()));
        }
        Self::with(config, dir.map_or(Peeked::Nothing, peek))
    }

    fn with(config: &Config, peeked: Peeked) -> Self {
        let (home, added, doubt) = match peeked {
            Peeked::Nothing => (None, Vec::new(), String::new()),
            Peeked::InUse => return Self::of_who_runs(),
            Peeked::Unreadable(why) => {
                let doubt = format!("; but the journal may name another: {why}");
                (None, Vec::new(), doubt)
            }
            Peeked::Found { home, added } => (home, added, String::new()),
        };
        let fleet = candidates(config, &added);
        let known = home.as_ref().map(HomeRecord::remembered);
        let extent = if config.discovery.is_empty() { Fleet::Whole } else { Fleet::Partial };
        let chosen = choose(&config.server.home, known, &fleet, extent);
        let chosen = chosen.and_then(|(id, reason)| {
            fleet.iter().find(|it| it.id == id).map(|it| (Arc::clone(&it.name), reason))
        });
        match chosen {
            Some((name, reason)) => {
                let text = format!("{name}: {}{doubt}", reason.text());
                Self { backend: Some(name), why: reason.as_str(), text }
            }
            None => Self::not_yet(home.as_ref(), config),
        }
    }

    /// The home is still to be discovered, or there is no backend at all.
    fn not_yet(remembered: Option<&HomeRecord>, config: &Config) -> Self {
        let (why, text) = match remembered {
            Some(home) if !config.discovery.is_empty() => {
                let text = format!("{}, when it is discovered: the journal names it", home.backend);
                ("remembered", text)
            }
            Some(_) | None => ("no_backend", "none: there is no backend yet".to_owned()),
        };
        Self { backend: remembered.map(|it| Arc::clone(&it.backend)), why, text }
    }

    fn of_who_runs() -> Self {
        let text = "chosen by the running gateway; `mooring backends --json` shows it";
        Self { backend: None, why: "running", text: text.to_owned() }
    }

    /// The text for people.
    pub(super) fn line(&self) -> String {
        format!("home: {}", self.text)
    }

    /// The result as JSON.
    pub(super) fn to_json(&self) -> Value {
        json!({ "backend": self.backend.as_deref(), "why": self.why })
    }
}

/// Where copies of settings and workflows are kept. They are used while the home is away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Kept {
    /// In this folder, and in memory.
    OnDisk(PathBuf),
    /// Only in memory, so that a restart loses them; with the reason.
    InMemory(&'static str),
    Nowhere,
}

impl Kept {
    pub(super) fn of(config: &Config) -> Self {
        match config.copies_folder() {
            _ if config.server.stale_cache == 0 => Self::Nowhere,
            None => Self::InMemory("there is no `state.dir`"),
            Some(_) if config.copies_on_disk() == 0 => Self::InMemory("`state.copies` is 0"),
            Some(folder) => Self::OnDisk(folder),
        }
    }

    /// The text for people.
    pub(super) fn line(&self) -> String {
        let what = "copies of settings and workflows, used while the home is away:";
        match self {
            Self::OnDisk(folder) => format!("{what} in {}", folder.display()),
            Self::InMemory(why) => format!("{what} in memory only, lost with a restart: {why}"),
            Self::Nowhere => format!("{what} none: `server.stale_cache` is 0"),
        }
    }

    /// The result as JSON.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::OnDisk(folder) => json!({ "kept": "disk", "folder": folder }),
            Self::InMemory(_) => json!({ "kept": "memory" }),
            Self::Nowhere => json!({ "kept": "nowhere" }),
        }
    }
}

/// The fleet of a gateway that would start now, ordered by name.
fn candidates(config: &Config, added: &[(Arc<str>, AddedRecord)]) -> Vec<Candidate> {
    let configured = config.backends.iter();
    let mut all: Vec<(Arc<str>, Arc<str>)> =
        configured.map(|it| (it.name.as_str().into(), it.authority.as_str().into())).collect();
    for (name, record) in added {
        // The secrets do not matter here.
        let files = SecretFiles::In(None);
        let Ok(it) = config::unread_backend(name, &record.settings, files) else { continue };
        let address: Arc<str> = it.authority.as_str().into();
        if !all.iter().any(|(other, at)| other == name || *at == address) {
            all.push((Arc::clone(name), address));
        }
    }
    all.sort();
    let candidate = |(slot, (name, address)): (usize, (Arc<str>, Arc<str>))| Candidate {
        id: BackendId::nth(u16::try_from(slot).unwrap_or(u16::MAX)),
        name,
        address,
        identity: None,
        is_up: false,
        goes: false,
    };
    all.into_iter().enumerate().map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StateDir;

    fn config() -> Config {
        Config::for_backends(&[("gpu-b", "http://h:2"), ("gpu-a", "http://h:1")]).unwrap()
    }

    fn found(home: Option<HomeRecord>) -> Peeked {
        let settings = json!({ "url": "http://h:3", "headers": { "X": { "file": "x" } } });
        let added = AddedRecord::new(settings, "ada".into(), 1);
        Peeked::Found { home, added: vec![("aaa".into(), added)] }
    }

    #[test]
    fn where_copies_are_is_said_with_why_they_are_nowhere_else() {
        let mut config = config();
        config.state.dir = StateDir::Written("/var/lib/m".into());
        let on_disk = Kept::of(&config);
        assert_eq!(on_disk, Kept::OnDisk("/var/lib/m/copies".into()));
        assert!(on_disk.line().ends_with("in /var/lib/m/copies"));
        config.state.copies = 0;
        assert!(Kept::of(&config).line().ends_with("a restart: `state.copies` is 0"));
        config.state.dir = StateDir::Nowhere;
        assert!(Kept::of(&config).line().ends_with("a restart: there is no `state.dir`"));
        config.server.stale_cache = 0;
        assert_eq!(Kept::of(&config), Kept::Nowhere);
    }

    #[test]
    fn the_home_is_said_with_why_it_is_it() {
        let of = |config: &Config, peeked| {
            let answer = HomeAnswer::with(config, peeked);
            (answer.backend.as_deref().unwrap_or("").to_owned(), answer.why)
        };
        assert_eq!(of(&config(), Peeked::Nothing), ("gpu-a".to_owned(), "first_by_name"));
        let before = HomeRecord::new("gpu-b".into(), "h:2".into(), 5);
        assert_eq!(of(&config(), found(Some(before))), ("gpu-b".to_owned(), "remembered"));
        assert_eq!(of(&config(), found(None)), ("aaa".to_owned(), "first_by_name"));
        assert_eq!(of(&config(), Peeked::InUse), (String::new(), "running"));
        let answer = HomeAnswer::with(&config(), Peeked::Unreadable("it is torn".to_owned()));
        assert!(answer.line().ends_with("may name another: it is torn"), "{}", answer.line());
        let mut named = config();
        "gpu-b".clone_into(&mut named.server.home);
        assert_eq!(of(&named, Peeked::Nothing), ("gpu-b".to_owned(), "named"));
    }
}
