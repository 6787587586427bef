//! The wanted backends, by source: the configuration, operators while the gateway runs, and
//! discoveries. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{BackendConfig, BackendSecrets, Config};

/// All wanted backends, by source.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those of the configuration. Invariant: no name and no address twice.
    configured: Vec<BackendConfig>,
    /// Those that operators added, by name. The same invariant, except for names and addresses that
    /// the configuration took over later.
    added: BTreeMap<String, BackendConfig>,
    /// The names of those that operators added and that could not be used after a restart. They are
    /// still in the journal.
    unusable: BTreeSet<String>,
    /// Those that were found, by the name of the discovery.
    found: BTreeMap<String, Vec<BackendConfig>>,
    /// The names of the discoveries in the configuration of the last reload.
    discoveries: BTreeSet<String>,
    /// What reloads dropped while one of those had never answered. It may be meant to find the same
    /// servers, and a slip in it must not empty the fleet. All others have priority over these.
    /// Empty once all discoveries have answered.
    kept: Vec<BackendConfig>,
    /// The result of combining them.
    sifted: Sifted,
}

/// Which backends are used and which are not.
#[derive(Clone, Debug, Default)]
struct Sifted {
    fleet: Vec<BackendConfig>,
    not_used: Vec<NotUsed>,
    /// For discovered backends of the fleet: the discovery by the backend's name.
    places: BTreeMap<String, String>,
}

/// The source that wants a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    Configuration,
    Operator,
    Discovery,
    /// None any more, but a discovery of the configuration has never answered.
    Kept,
    /// None any more: it leaves when it has drained.
    Nobody,
}

impl Source {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Operator => "operator",
            Self::Discovery => "discovery",
            Self::Kept => "kept",
            Self::Nobody => "none",
        }
    }
}

/// Whether an operator's request adds or changes a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Put {
    Added,
    Changed,
}

/// Why an operator's request is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unwanted {
    #[error("`{0}` is in the configuration: change it there, and reload")]
    Configured(String),
    #[error("`{address}` is already the backend `{name}`")]
    AddressTaken { address: String, name: String },
    #[error("no operator has added a backend named `{0}`")]
    NotAdded(String),
    #[error(
        "`{name}` was found by `discovery.{place}`: it leaves when the discovery no longer finds it"
    )]
    Found { name: String, place: String },
}

/// An operator's backend whose place the configuration has taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Overruled {
    pub added: String,
    /// The name of the configured backend.
    pub by: String,
}

/// A discovered backend that is not used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotUsed {
    /// The name of the discovery.
    pub place: String,
    pub backend: String,
    pub why: Surplus,
}

/// Why a discovered backend is not used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Surplus {
    #[error("there is another backend of its name, at {0}")]
    NameTaken(String),
    #[error("its address is that of the backend `{0}`")]
    AddressTaken(String),
    #[error("there are {max} backends, and more are not allowed", max = Config::BACKENDS_MAX)]
    TooMany,
}

impl Wanted {
    /// The same with another configuration.
    #[must_use]
    pub fn configured(mut self, configured: &[BackendConfig]) -> Self {
        self.configured = configured.to_vec();
        self.sift()
    }

    /// The same after a reload: with these backends in the configuration, and these discoveries.
    /// What it drops stays while one of these has never answered.
    #[must_use]
    pub fn reloaded(mut self, configured: &[BackendConfig], discoveries: &BTreeSet<&str>) -> Self {
        self.discoveries = discoveries.iter().map(|it| (*it).to_owned()).collect();
        let dropped = std::mem::replace(&mut self.configured, configured.to_vec());
        self.keep(dropped);
        self.sift()
    }

    /// The discoveries of the last reload that have never answered.
    pub fn silent(&self) -> impl Iterator<Item = &str> {
        let silent = self.discoveries.iter().filter(|it| !self.found.contains_key(*it));
        silent.map(String::as_str)
    }

    /// Those that stay until these have answered.
    #[must_use]
    pub fn kept(&self) -> &[BackendConfig] {
        &self.kept
    }

    fn keep(&mut self, dropped: Vec<BackendConfig>) {
        if self.silent().next().is_none() {
            self.kept.clear();
            return;
        }
        let is_dropped =
            |it: &BackendConfig| dropped.iter().any(|one| one.authority == it.authority);
        self.kept.retain(|it| !is_dropped(it));
        self.kept.extend(dropped);
    }

    /// The same with a backend that an operator adds or changes.
    ///
    /// # Errors
    /// The configuration has one of that name, or another backend has its address.
    pub fn put(mut self, settings: BackendConfig) -> Result<(Self, Put), Unwanted> {
        let name = settings.name.clone();
        if self.configured.iter().any(|it| it.name == name) {
            return Err(Unwanted::Configured(name));
        }
        let others = self.configured.iter().chain(self.added.values());
        let mut same = others.filter(|it| it.authority == settings.authority && it.name != name);
        if let Some(other) = same.next() {
            let (address, name) = (settings.authority, other.name.clone());
            return Err(Unwanted::AddressTaken { address, name });
        }
        self.unusable.remove(&name);
        let before = self.added.insert(name, settings);
        let put = if before.is_some() { Put::Changed } else { Put::Added };
        Ok((self.sift(), put))
    }

    /// The same with a backend that an operator had added before a restart. A configured backend in
    /// its place has priority, as before the restart.
    #[must_use]
    pub fn restored(mut self, settings: BackendConfig) -> Self {
        self.added.insert(settings.name.clone(), settings);
        self.sift()
    }

    /// An operator had added a backend of this name, and it could not be used after the restart.
    pub fn cannot_be_used(&mut self, name: &str) {
        self.unusable.insert(name.to_owned());
    }

    /// The same without a backend that an operator added, in use or not, or that was kept.
    ///
    /// # Errors
    /// The configuration has it, or nobody has added it.
    pub fn without(mut self, name: &str) -> Result<Self, Unwanted> {
        if self.configured.iter().any(|it| it.name == name) {
            return Err(Unwanted::Configured(name.to_owned()));
        }
        let was_unusable = self.unusable.remove(name);
        let kept = self.kept.len();
        self.kept.retain(|it| it.name != name);
        if self.added.remove(name).is_some() || was_unusable || self.kept.len() < kept {
            return Ok(self.sift());
        }
        let name = name.to_owned();
        match self.sifted.places.get(&name).cloned() {
            Some(place) => Err(Unwanted::Found { name, place }),
            None => Err(Unwanted::NotAdded(name)),
        }
    }

    /// The same with what that discovery has found now. This replaces what it had found before.
    #[must_use]
    pub fn found(mut self, place: &str, backends: Vec<BackendConfig>) -> Self {
        self.found.insert(place.to_owned(), backends);
        // Nothing more is kept, and nothing at all if this was the last that had not answered.
        self.keep(Vec::new());
        self.sift()
    }

    /// True if that discovery's last result was exactly this.
    #[must_use]
    pub fn has_found(&self, place: &str, backends: &[BackendConfig]) -> bool {
        self.found.get(place).is_some_and(|found| found == backends)
    }

    /// True if this discovery has answered, perhaps to an earlier process.
    #[must_use]
    pub fn has_answered(&self, place: &str) -> bool {
        self.found.contains_key(place)
    }

    /// The last result of that discovery.
    #[must_use]
    pub fn found_by(&self, place: &str) -> &[BackendConfig] {
        self.found.get(place).map_or(&[], Vec::as_slice)
    }

    /// Those that operators added, including those whose place the configuration has.
    #[must_use]
    pub fn added(&self) -> Vec<BackendConfig> {
        self.added.values().cloned().collect()
    }

    /// The same with other secrets for backends for which `secrets` returns some. Backends of the
    /// configuration are unchanged.
    #[must_use]
    pub fn with_secrets(
        mut self,
        secrets: impl Fn(&BackendConfig) -> Option<BackendSecrets>,
    ) -> Self {
        let found = self.found.values_mut().flatten();
        for it in self.added.values_mut().chain(found).chain(&mut self.kept) {
            if let Some(secrets) = secrets(it) {
                *it = it.clone().with_secrets(secrets);
            }
        }
        self.sift()
    }

    /// The discoveries that have found something.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.found.keys().map(String::as_str)
    }

    /// The same without the results of other discoveries than these (those of the last reload).
    #[must_use]
    pub fn discovered_by(mut self, places: &BTreeSet<&str>) -> Self {
        let found = std::mem::take(&mut self.found).into_iter();
        let (found, dropped): (BTreeMap<_, _>, BTreeMap<_, Vec<_>>) =
            found.partition(|(place, _)| places.contains(place.as_str()));
        self.found = found;
        self.keep(dropped.into_values().flatten().collect());
        self.sift()
    }

    /// The whole fleet. A configured backend has priority over an operator's with the same name or
    /// address; both have priority over discovered ones, and all of these over kept ones.
    #[must_use]
    pub fn fleet(&self) -> Vec<BackendConfig> {
        self.sifted.fleet.clone()
    }

    /// Discovered backends that are not used.
    #[must_use]
    pub fn not_used(&self) -> &[NotUsed] {
        &self.sifted.not_used
    }

    /// Computes again which backends are used. Nothing else changes that.
    fn sift(mut self) -> Self {
        let added = self.added.values().filter(|it| self.in_place_of(it).is_none());
        let fleet = self.configured.iter().chain(added).cloned().collect();
        let mut sifted = Sifted { fleet, ..Sifted::default() };
        let mut taken = Taken::default();
        sifted.fleet.iter().for_each(|it| taken.take(it));
        let found = self.found.iter();
        for (place, it) in found.flat_map(|(place, all)| all.iter().map(move |it| (place, it))) {
            let (place, backend) = (place.clone(), it.name.clone());
            match taken.has_no_place_for(it) {
                None => {
                    taken.take(it);
                    sifted.fleet.push(it.clone());
                    sifted.places.insert(backend, place);
                }
                Some(why) => sifted.not_used.push(NotUsed { place, backend, why }),
            }
        }
        let has_place = |it: &BackendConfig| {
            let has_place = taken.has_no_place_for(it).is_none();
            if has_place {
                taken.take(it);
                sifted.fleet.push(it.clone());
            }
            has_place
        };
        self.kept.retain(has_place);
        self.sifted = sifted;
        self
    }

    /// Operators' backends that are not used, because the configuration has their place.
    #[must_use]
    pub fn overruled(&self) -> Vec<Overruled> {
        let added = self.added.values();
        let overruled = added.filter_map(|it| {
            let by = self.in_place_of(it)?.name.clone();
            Some(Overruled { added: it.name.clone(), by })
        });
        overruled.collect()
    }

    /// The source of the backend with that name.
    #[must_use]
    pub fn source(&self, name: &str) -> Source {
        if self.configured.iter().any(|it| it.name == name) {
            return Source::Configuration;
        }
        let added = self.added.get(name).filter(|it| self.in_place_of(it).is_none());
        match added {
            Some(_) => Source::Operator,
            None if self.sifted.places.contains_key(name) => Source::Discovery,
            None if self.kept.iter().any(|it| it.name == name) => Source::Kept,
            None => Source::Nobody,
        }
    }

    fn in_place_of(&self, added: &BackendConfig) -> Option<&BackendConfig> {
        let is_same =
            |it: &&BackendConfig| it.name == added.name || it.authority == added.authority;
        self.configured.iter().find(is_same)
    }
}

/// Names and addresses that are taken, each with the other.
#[derive(Default)]
struct Taken {
    names: BTreeMap<String, String>,
    addresses: BTreeMap<String, String>,
}

impl Taken {
    fn take(&mut self, it: &BackendConfig) {
        self.names.insert(it.name.clone(), it.authority.clone());
        self.addresses.insert(it.authority.clone(), it.name.clone());
    }

    fn has_no_place_for(&self, it: &BackendConfig) -> Option<Surplus> {
        if let Some(name) = self.addresses.get(&it.authority) {
            return Some(Surplus::AddressTaken(name.clone()));
        }
        if let Some(at) = self.names.get(&it.name) {
            return Some(Surplus::NameTaken(at.clone()));
        }
        (Config::BACKENDS_MAX <= self.names.len()).then_some(Surplus::TooMany)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn one(name: &str, port: u16) -> BackendConfig {
        let url = format!("http://h:{port}");
        Config::for_backends(&[(name, &url)]).unwrap().backends.remove(0)
    }

    fn names(wanted: &Wanted) -> Vec<(String, String)> {
        wanted.fleet().into_iter().map(|it| (it.name, it.authority)).collect()
    }

    fn named(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, at)| ((*name).to_owned(), (*at).to_owned())).collect()
    }

    #[test]
    fn an_operator_adds_changes_and_removes_what_is_his() {
        let wanted = Wanted::default().configured(&[one("a", 1)]);
        let (wanted, put) = wanted.put(one("b", 2)).unwrap();
        assert_eq!(put, Put::Added);
        let (wanted, put) = wanted.put(one("b", 3)).unwrap();
        assert_eq!(put, Put::Changed);
        assert_eq!(names(&wanted), named(&[("a", "h:1"), ("b", "h:3")]));
        assert_eq!(wanted.source("b"), Source::Operator);
        let wanted = wanted.without("b").unwrap();
        assert_eq!(names(&wanted), named(&[("a", "h:1")]));
        assert_eq!(wanted.source("b"), Source::Nobody);
        assert_eq!(wanted.without("b").unwrap_err(), Unwanted::NotAdded("b".to_owned()));
    }

    /// As when its address is that of a listener since the restart.
    #[test]
    fn what_cannot_be_used_after_a_restart_can_be_removed_once_or_put_anew() {
        let mut wanted = Wanted::default().configured(&[one("a", 1)]);
        wanted.cannot_be_used("b");
        assert_eq!((names(&wanted), wanted.source("b")), (named(&[("a", "h:1")]), Source::Nobody));
        let removed = wanted.clone().without("b").unwrap();
        assert_eq!(removed.without("b").unwrap_err(), Unwanted::NotAdded("b".to_owned()));
        let (wanted, put) = wanted.put(one("b", 2)).unwrap();
        assert_eq!(put, Put::Added);
        let removed = wanted.without("b").unwrap();
        assert_eq!(removed.without("b").unwrap_err(), Unwanted::NotAdded("b".to_owned()));
    }

    #[test]
    fn what_the_configuration_has_is_not_an_operators() {
        let wanted = Wanted::default().configured(&[one("a", 1)]);
        let configured = Unwanted::Configured("a".to_owned());
        assert_eq!(wanted.clone().put(one("a", 2)).unwrap_err(), configured);
        assert_eq!(wanted.clone().without("a").unwrap_err(), configured);
        let taken = Unwanted::AddressTaken { address: "h:1".to_owned(), name: "a".to_owned() };
        assert_eq!(wanted.put(one("b", 1)).unwrap_err(), taken);
    }

    #[test]
    fn a_configuration_that_names_it_later_wins_until_it_does_not_any_more() {
        let (wanted, _) = Wanted::default().put(one("b", 2)).unwrap();
        let (wanted, _) = wanted.put(one("c", 3)).unwrap();
        let wanted = wanted.configured(&[one("b", 7), one("d", 3)]);
        assert_eq!(names(&wanted), named(&[("b", "h:7"), ("d", "h:3")]));
        let pairs: Vec<_> = wanted.overruled().into_iter().map(|it| (it.added, it.by)).collect();
        assert_eq!(pairs, named(&[("b", "b"), ("c", "d")]));
        assert_eq!(wanted.source("b"), Source::Configuration);
        let wanted = wanted.configured(&[]);
        assert_eq!(names(&wanted), named(&[("b", "h:2"), ("c", "h:3")]));
        assert!(wanted.overruled().is_empty());
    }

    #[test]
    fn what_is_found_gives_way_to_what_somebody_wrote() {
        let found = vec![one("a", 7), one("b", 2), one("x", 1), one("y", 9)];
        let wanted = Wanted::default().configured(&[one("a", 1)]).found("gpus", found);
        let (wanted, put) = wanted.put(one("b", 3)).unwrap();
        assert_eq!(put, Put::Added);
        assert_eq!(names(&wanted), named(&[("a", "h:1"), ("b", "h:3"), ("y", "h:9")]));
        let told: Vec<String> =
            wanted.not_used().iter().map(|it| format!("{}: {}", it.backend, it.why)).collect();
        let name = |at: &str| format!("there is another backend of its name, at {at}");
        let address = "x: its address is that of the backend `a`".to_owned();
        assert_eq!(told, [format!("a: {}", name("h:1")), format!("b: {}", name("h:3")), address]);
        assert_eq!((wanted.source("y"), wanted.source("x")), (Source::Discovery, Source::Nobody));
        let place = "gpus".to_owned();
        let found = Unwanted::Found { name: "y".to_owned(), place };
        assert_eq!(wanted.clone().without("y").unwrap_err(), found);
        let wanted = wanted.without("b").unwrap();
        assert_eq!(names(&wanted), named(&[("a", "h:1"), ("b", "h:2"), ("y", "h:9")]));
        assert_eq!(names(&wanted.discovered_by(&BTreeSet::new())), named(&[("a", "h:1")]));
    }

    fn places<'a>(names: &[&'a str]) -> BTreeSet<&'a str> {
        names.iter().copied().collect()
    }

    #[test]
    fn what_a_reload_drops_stays_until_its_discoveries_have_answered() {
        let listed = Wanted::default().configured(&[one("a", 1), one("b", 2)]);
        let reloaded = listed.clone().reloaded(&[], &places(&["gpus", "more"]));
        let wanted = reloaded.discovered_by(&places(&["gpus", "more"]));
        assert_eq!(names(&wanted), named(&[("a", "h:1"), ("b", "h:2")]));
        assert_eq!((wanted.source("a"), wanted.kept().len()), (Source::Kept, 2));
        assert_eq!(wanted.silent().collect::<Vec<_>>(), ["gpus", "more"]);
        // A second attempt with another slip, and one that answers.
        let wanted = wanted.reloaded(&[one("c", 3)], &places(&["gpus", "other"]));
        let wanted = wanted.found("gpus", vec![one("x", 1)]);
        assert_eq!(names(&wanted), named(&[("c", "h:3"), ("x", "h:1"), ("b", "h:2")]));
        assert_eq!(wanted.source("b"), Source::Kept, "and what was found has its own place");
        let done = wanted.clone().found("other", Vec::new());
        assert_eq!(names(&done), named(&[("c", "h:3"), ("x", "h:1")]), "a fleet of none is one");
        // Nothing is waited for any more; and who is removed goes.
        let gone = wanted.clone().reloaded(&[], &places(&["gpus"]));
        assert_eq!(names(&gone), named(&[("x", "h:1")]));
        assert_eq!(names(&wanted.without("b").unwrap()), named(&[("c", "h:3"), ("x", "h:1")]));
        let same = listed.reloaded(&[one("a", 9), one("b", 2)], &places(&["gpus"]));
        let moved = named(&[("a", "h:9"), ("b", "h:2")]);
        assert_eq!(names(&same), moved, "another address under its name is meant");
    }

    #[test]
    fn what_a_discovery_of_another_name_had_found_stays_until_the_new_one_has_answered() {
        let wanted = Wanted::default().reloaded(&[], &places(&["gpus"]));
        let wanted = wanted.found("gpus", vec![one("x", 1), one("y", 2)]);
        let renamed =
            |names: &BTreeSet<&str>| wanted.clone().reloaded(&[], names).discovered_by(names);
        let boxes = renamed(&places(&["boxes"]));
        assert_eq!(names(&boxes), named(&[("x", "h:1"), ("y", "h:2")]));
        let found = boxes.found("boxes", vec![one("x", 1)]);
        assert_eq!((names(&found), found.source("x")), (named(&[("x", "h:1")]), Source::Discovery));
        assert_eq!(names(&renamed(&places(&[]))), named(&[]), "nothing is to be waited for");
    }

    #[test]
    fn the_one_that_is_too_many_is_not_used_and_the_others_are() {
        let found: Vec<_> = (1..=1_001).map(|port| one(&format!("n{port:04}"), port)).collect();
        let wanted = Wanted::default().found("gpus", found);
        assert_eq!(wanted.fleet().len(), Config::BACKENDS_MAX);
        let not_used = wanted.not_used();
        assert_eq!((not_used.len(), &not_used[0].why), (1, &Surplus::TooMany));
        assert_eq!(not_used[0].backend, "n1001");
    }

    proptest! {
        /// For any configured, added and found backends: the fleet is valid, it has all configured
        /// ones, and each found one is in it or reported as not used.
        #[test]
        fn every_wish_is_granted_or_told_not_to_be(
            configured in vec(("[a-e]", 1..9_u16), 0..3),
            found in vec(vec(("[a-e]", 1..9_u16), 0..4), 0..3),
        ) {
            let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
            let configured: Vec<_> = configured
                .into_iter()
                .filter(|(name, port)| names.insert(name.clone()) && ports.insert(*port))
                .map(|(name, port)| one(&name, port))
                .collect();
            let mut wanted = Wanted::default().configured(&configured);
            let mut all = 0;
            for (number, found) in found.into_iter().enumerate() {
                let found: Vec<_> = found.iter().map(|(name, port)| one(name, *port)).collect();
                all += found.len();
                wanted = wanted.found(&format!("place{number}"), found);
            }
            let fleet = wanted.fleet();
            prop_assert!(configured.iter().all(|it| fleet.contains(it)));
            prop_assert_eq!(fleet.len() + wanted.not_used().len(), configured.len() + all);
            let names: BTreeSet<_> = fleet.iter().map(|it| &it.name).collect();
            let addresses: BTreeSet<_> = fleet.iter().map(|it| &it.authority).collect();
            prop_assert_eq!((names.len(), addresses.len()), (fleet.len(), fleet.len()));
        }
    }
}
