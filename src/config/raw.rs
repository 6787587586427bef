//! The configuration as written in files, environment and flags.
//!
//! Every key is optional here and holds whatever was written, with the place where it was written.
//! [`mod@super::check`] interprets it. No other module mentions these types.

use std::collections::BTreeMap;

use super::keys::{
    RawAdmin, RawAdminTls, RawAffinity, RawAuth, RawAuthJwt, RawBackend, RawDiscovery, RawFiles,
    RawFleet, RawIsolation, RawLimits, RawLog, RawPrompts, RawQueue, RawReplicas, RawServer,
    RawServerTls, RawSockets, RawState,
};
use super::kinds::Kind;
use super::problems::{Notes, Origin};

/// The configuration as written: every key optional, none checked.
#[derive(Debug)]
pub(super) struct RawConfig {
    pub(super) server: RawServer,
    pub(super) server_tls: RawServerTls,
    pub(super) admin: RawAdmin,
    pub(super) admin_tls: RawAdminTls,
    pub(super) auth: RawAuth,
    pub(super) auth_jwt: RawAuthJwt,
    pub(super) affinity: RawAffinity,
    pub(super) fleet: RawFleet,
    pub(super) prompts: RawPrompts,
    pub(super) files: RawFiles,
    pub(super) sockets: RawSockets,
    pub(super) isolation: RawIsolation,
    pub(super) state: RawState,
    pub(super) replicas: RawReplicas,
    pub(super) log: RawLog,
    pub(super) queue: RawQueue,
    pub(super) limits: RawLimits,
    /// In the order of names.
    pub(super) backends: Vec<RawNamed>,
    /// In the order of names.
    pub(super) discovery: Vec<RawPlace>,
}

/// A value as written. `Text` from the environment or a flag may stand for any type, because
/// everything is text there.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Text(String),
    Number(i128),
    /// A float or a date: no key takes one.
    Other,
    Switch(bool),
    List(Vec<Written>),
    /// Only headers and a Kubernetes service are tables.
    Table(Vec<(String, Written)>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Written {
    pub(super) item: Item,
    pub(super) origin: Origin,
}

/// One key: its name, its kind, its default, and what was written.
#[derive(Debug)]
pub(super) struct Setting<K> {
    /// The full name, as in `server.listen`.
    pub(super) key: String,
    pub(super) kind: K,
    pub(super) default: &'static str,
    pub(super) written: Option<Written>,
}

impl<K: Kind> Setting<K> {
    /// The value in its checked form. A wrong value is reported, and the default replaces it so
    /// that the rest can be checked.
    pub(super) fn check(self, notes: &mut Notes) -> K::Value {
        if let Some(written) = &self.written {
            notes.wrote(&self.key, &written.origin);
            notes.needs(self.kind.files(written));
            match self.kind.read(written) {
                Ok(value) => {
                    notes.saw(&self.key, self.kind.shown(&written.item), Some(&written.origin));
                    return value;
                }
                Err(faults) => {
                    for (origin, what) in faults {
                        notes.report_at(Some(origin), &self.key, what);
                    }
                }
            }
        }
        let default = Item::Text(self.default.to_owned());
        notes.saw(&self.key, self.kind.shown(&default), None);
        self.kind.parse(self.default).expect("a test reads every default")
    }
}

/// A table `[backends.NAME]` before it is checked.
#[derive(Debug)]
pub(super) struct RawNamed {
    pub(super) name: String,
    /// Where the table begins.
    pub(super) origin: Origin,
    pub(super) backend: RawBackend,
}

/// A table `[discovery.NAME]` before it is checked.
#[derive(Debug)]
pub(super) struct RawPlace {
    pub(super) name: String,
    /// Where the table begins.
    pub(super) origin: Origin,
    pub(super) place: RawDiscovery,
}

/// What was written in a section, by full names.
pub(super) type Section = BTreeMap<String, Written>;
