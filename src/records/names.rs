//! Names of backends in file names: given out once, and resolved later (promise R3).

use std::collections::HashMap;
use std::sync::Arc;

use super::{Records, server_of};
use crate::fleet::backend::Backend;
use crate::journal::record::NameRecord;
use crate::routing::ids::BackendId;
use crate::routing::servers::ServerKey;

/// The server that a name in a file name means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Bearer {
    Is(BackendId),
    /// A server that is gone, by its URL.
    Gone(Arc<str>),
    Nobody,
}

impl Records {
    /// The name of a backend for use in names of its files. It always means this server.
    #[must_use]
    pub fn given_name(&self, backend: &Backend) -> Arc<str> {
        let named = backend.names.get();
        let given = named.given.get_or_init(|| {
            // The server is read and the result is noted under one lock, so that the last change is
            // also the last in the journal.
            let mut names = self.given.lock();
            let told = names.give(&server_of(backend), &named.name);
            if let Some(given) = told.new {
                let record = NameRecord::new(given);
                self.journal.note_name(Arc::clone(&told.name), Some(record));
            }
            if let Some(forgotten) = told.forgotten {
                self.journal.note_name(forgotten, None);
            }
            told.name
        });
        Arc::clone(given)
    }

    /// The server that a name in a file name means: the one that it was given out for, else the one
    /// that has this name now.
    #[must_use]
    pub fn bearer(&self, name: &str) -> Bearer {
        let given = self.given.lock().server_of(name).cloned();
        match given {
            Some(server) => self.server(&server),
            None => self.called(name),
        }
    }

    /// True if this is the name of a current or former backend.
    #[must_use]
    pub fn is_of_backend(&self, name: &str) -> bool {
        self.bearer(name) != Bearer::Nobody
    }

    fn server(&self, server: &ServerKey) -> Bearer {
        let is_it = |it: &Arc<Backend>| it.authority == server.url && server_of(it).may_be(server);
        let left = || self.fleet.left().into_iter().rev().find(is_it);
        match self.fleet.iter().find(is_it).or_else(left) {
            Some(backend) => Bearer::Is(backend.id),
            None => Bearer::Gone(Arc::clone(&server.url)),
        }
    }

    /// Resolves a name that was never given out. An address identifies a server only while no other
    /// server can have that address.
    fn called(&self, name: &str) -> Bearer {
        let is_meant = |it: &Arc<Backend>| *it.name() == *name || it.identity().is_none();
        let called = self.fleet.called(name).filter(is_meant);
        called.map_or(Bearer::Nobody, |it| Bearer::Is(it.id))
    }

    /// Backends have joined or changed, and their identity may now be known. A name that was given
    /// out for an address alone belongs to the first server that is identified there.
    pub fn know_servers<'a>(&self, backends: impl Iterator<Item = &'a Arc<Backend>>) {
        let told = backends.filter_map(|it| Some((Arc::clone(&it.authority), it.identity()?)));
        let told: HashMap<Arc<str>, Arc<str>> = told.collect();
        if told.is_empty() {
            return;
        }
        let mut names = self.given.lock();
        for (name, given) in names.know(&told) {
            self.journal.note_name(name, Some(NameRecord::new(given)));
        }
    }

    /// Restores the names that were given out before a restart. Names of current backends are
    /// restored first.
    pub fn restore_names(&self, names: Vec<(Arc<str>, NameRecord)>) {
        {
            let mut given = self.given.lock();
            for (name, record) in names {
                given.restore(name, record.given());
            }
        }
        self.know_servers(self.fleet.iter().collect::<Vec<_>>().iter());
    }

    /// Restores names that an older Mooring gave out without noting them.
    pub fn restore_older_names(&self, names: Vec<(Arc<str>, ServerKey)>) {
        if names.is_empty() {
            return;
        }
        for (name, server) in names {
            let told = self.given.lock().give(&server, &name);
            if let Some(given) = told.new {
                self.journal.note_name(told.name, Some(NameRecord::new(given)));
            }
        }
        self.know_servers(self.fleet.iter().collect::<Vec<_>>().iter());
    }
}
