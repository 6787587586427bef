//! The configuration of a running process: it is replaced as a whole, and read without a lock.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Config;

impl Config {
    /// Keeps the values of `before` that a running process cannot change: its threads, its journal,
    /// its ledgers, and the format of its log. These are the keys that need a restart according to
    /// the table of keys.
    pub fn keep_until_restart(&mut self, before: &Self) {
        self.server.workers = before.server.workers;
        self.state.dir.clone_from(&before.state.dir);
        self.state.seal_key_file.clone_from(&before.state.seal_key_file);
        self.state.seal_keys.clone_from(&before.state.seal_keys);
        self.state.on_unopened = before.state.on_unopened;
        self.replicas.clone_from(&before.replicas);
        self.auth.adopt.clone_from(&before.auth.adopt);
        self.log.format = before.log.format;
        self.log.audit.clone_from(&before.log.audit);
        self.log.access.clone_from(&before.log.access);
        self.log.access_format = before.log.access_format;
        self.prompts.ledger_prompts = before.prompts.ledger_prompts;
        self.prompts.ledger_age = before.prompts.ledger_age;
        self.files.tag = before.files.tag;
        self.files.ledger = before.files.ledger;
        self.files.ledger_age = before.files.ledger_age;
        self.files.share_unknown = before.files.share_unknown;
        self.files.assets = before.files.assets;
        self.queue = before.queue;
    }
}

/// The current configuration. A clone is another handle to the same configuration.
///
/// Read it where it is needed, and do not store what was read: a reload does not change it. A guard
/// is for a single read; it must not be held across an await.
#[derive(Clone, Debug)]
pub struct LiveConfig(Arc<ArcSwap<Config>>);

impl LiveConfig {
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(config)))
    }

    /// The current configuration.
    #[must_use]
    pub fn get(&self) -> Guard<Arc<Config>> {
        self.0.load()
    }

    /// The same, for keeping across an await.
    #[must_use]
    pub fn kept(&self) -> Arc<Config> {
        self.0.load_full()
    }

    /// Replaces it. Later reads return `config`.
    pub fn replace(&self, config: Config) {
        self.0.store(Arc::new(config));
    }
}
