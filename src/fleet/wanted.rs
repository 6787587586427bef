//! Who wants which backends: the configuration, and operators while the gateway runs. Pure.

use std::collections::BTreeMap;

use crate::config::BackendConfig;

/// All that is wanted of the fleet, by who wants it.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The configuration's. Invariant: no name and no address twice.
    configured: Vec<BackendConfig>,
    /// Those that operators added, by name. The same invariant, but for what the configuration
    /// took over since.
    added: BTreeMap<String, BackendConfig>,
}

/// Who wants a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    Configuration,
    Operator,
    /// Nobody any more: it leaves when it has drained.
    Nobody,
}

impl Source {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Operator => "operator",
            Self::Nobody => "none",
        }
    }
}

/// What an operator's wish for a backend is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Put {
    Added,
    Changed,
}

/// Why an operator's wish is not granted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unwanted {
    #[error("`{0}` is in the configuration: change it there, and reload")]
    Configured(String),
    #[error("`{address}` is the backend `{name}` already")]
    AddressTaken { address: String, name: String },
    #[error("no operator has added a backend named `{0}`")]
    NotAdded(String),
}

/// A backend that an operator added, and whose place the configuration has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Overruled {
    pub added: String,
    /// The name of the configured one.
    pub by: String,
}

impl Wanted {
    /// The same with another configuration.
    #[must_use]
    pub fn configured(mut self, configured: &[BackendConfig]) -> Self {
        self.configured = configured.to_vec();
        self
    }

    /// The same with one that an operator adds or changes.
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
        let before = self.added.insert(name, settings);
        let put = if before.is_some() { Put::Changed } else { Put::Added };
        Ok((self, put))
    }

    /// The same with one that an operator had added before a restart. What the configuration has
    /// in its place goes before it, as it did then.
    #[must_use]
    pub fn restored(mut self, settings: BackendConfig) -> Self {
        self.added.insert(settings.name.clone(), settings);
        self
    }

    /// The same without one that an operator added.
    ///
    /// # Errors
    /// The configuration has it, or nobody has added it.
    pub fn without(mut self, name: &str) -> Result<Self, Unwanted> {
        if self.configured.iter().any(|it| it.name == name) {
            return Err(Unwanted::Configured(name.to_owned()));
        }
        match self.added.remove(name) {
            Some(_) => Ok(self),
            None => Err(Unwanted::NotAdded(name.to_owned())),
        }
    }

    /// The whole fleet. Where the configuration has a name or an address, an operator's backend of
    /// the same gives way.
    #[must_use]
    pub fn fleet(&self) -> Vec<BackendConfig> {
        let added = self.added.values().filter(|it| self.in_place_of(it).is_none());
        self.configured.iter().chain(added).cloned().collect()
    }

    /// Those that give way.
    #[must_use]
    pub fn overruled(&self) -> Vec<Overruled> {
        let added = self.added.values();
        let overruled = added.filter_map(|it| {
            let by = self.in_place_of(it)?.name.clone();
            Some(Overruled { added: it.name.clone(), by })
        });
        overruled.collect()
    }

    /// Who wants the backend of that name.
    #[must_use]
    pub fn source(&self, name: &str) -> Source {
        if self.configured.iter().any(|it| it.name == name) {
            return Source::Configuration;
        }
        let added = self.added.get(name).filter(|it| self.in_place_of(it).is_none());
        if added.is_some() { Source::Operator } else { Source::Nobody }
    }

    fn in_place_of(&self, added: &BackendConfig) -> Option<&BackendConfig> {
        let is_same =
            |it: &&BackendConfig| it.name == added.name || it.authority == added.authority;
        self.configured.iter().find(is_same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
}
