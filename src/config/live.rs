//! The configuration of a process that runs: it is replaced as a whole, and read without a lock.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Config;

impl Config {
    /// Keeps the values of `before` where a running process cannot take others: its threads, its
    /// journal, its ledgers, and how its log is written. These are the keys that the table says
    /// need a restart.
    pub fn keep_until_restart(&mut self, before: &Self) {
        self.server.workers = before.server.workers;
        self.state.dir.clone_from(&before.state.dir);
        self.log.format = before.log.format;
        self.prompts.ledger_prompts = before.prompts.ledger_prompts;
        self.prompts.ledger_age = before.prompts.ledger_age;
        self.files.tag = before.files.tag;
        self.files.ledger = before.files.ledger;
        self.files.ledger_age = before.files.ledger_age;
        self.files.assets = before.files.assets;
    }
}

/// The configuration as it is now. A clone is another handle to the same.
///
/// Read it where it is needed, and not once for all: what was read is not changed by a reload.
/// A guard is for one look; nothing holds one while it waits.
#[derive(Clone, Debug)]
pub struct LiveConfig(Arc<ArcSwap<Config>>);

impl LiveConfig {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// As it is at this moment.
    #[must_use]
    pub fn get(&self) -> Guard<Arc<Config>> {
        self.0.load()
    }

    /// The same, to be kept: for who waits in between.
    #[must_use]
    pub fn kept(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Replaces it. Who reads it from now on reads `config`.
    pub fn replace(&self, config: Config) {
        self.0.store(Arc::new(config));
    }
}
