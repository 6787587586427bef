//! Names of backends in names of files: given out once, and read back (promise R3).

use std::collections::HashMap;
use std::sync::Arc;

use super::{Records, server_of};
use crate::fleet::backend::Backend;
use crate::journal::record::NameRecord;
use crate::routing::ids::BackendId;
use crate::routing::servers::ServerKey;

/// Which server a name in a name of a file means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Bearer {
    Is(BackendId),
    /// One, by its URL, that is not there any more.
    Gone(Arc<str>),
    Nobody,
}

impl Records {
    /// The name of a backend for names of its files. It stays that server's.
    #[must_use]
    pub fn given_name(&self, backend: &Backend) -> Arc<str> {
        let named = backend.names.get();
        let given = named.given.get_or_init(|| {
            // Which server it is is read, and what comes of it noted, under the lock: the last word
            // must be the last in the journal.
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

    /// Which server a name in a name of a file means: the one that it was given out for, else the
    /// one that is called so.
    #[must_use]
    pub fn bearer(&self, name: &str) -> Bearer {
        let given = self.given.lock().server_of(name).cloned();
        match given {
            Some(server) => self.server(&server),
            None => self.called(name),
        }
    }

    /// True if a name is one of a backend that is there, or that was there.
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

    /// A name that was never given out. An address is the name of a server only where no other can
    /// be given it.
    fn called(&self, name: &str) -> Bearer {
        let is_meant = |it: &Arc<Backend>| *it.name() == *name || it.identity().is_none();
        let called = self.fleet.called(name).filter(is_meant);
        called.map_or(Bearer::Nobody, |it| Bearer::Is(it.id))
    }

    /// These have joined or changed, and it may be told now which servers they are. A name that was
    /// given out for an address alone is of the one that is told first.
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

    /// Takes over the names that were given out before a restart; those that are there go first.
    pub fn restore_names(&self, names: Vec<(Arc<str>, NameRecord)>) {
        {
            let mut given = self.given.lock();
            for (name, record) in names {
                given.restore(name, record.given());
            }
        }
        self.know_servers(self.fleet.iter().collect::<Vec<_>>().iter());
    }

    /// Takes over names that an older Mooring gave out without writing them down.
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
