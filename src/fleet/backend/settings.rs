//! The configuration of a backend. Everything except its address may change while it works.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderValue;
use tracing::{info, warn};

use super::Backend;
use crate::config::url::Scheme;
use crate::config::{BackendConfig, BackendHeaders, BackendTls, ListedBy, LiveConfig};
use crate::fleet::own_watch::OwnWatch;
use crate::net::Network;
use crate::tasks::Tasks;

/// What all backends of a fleet have in common.
#[derive(Clone, Debug)]
pub(in crate::fleet) struct Common {
    pub(in crate::fleet) network: Arc<dyn Network>,
    pub(in crate::fleet) tasks: Tasks,
    pub(in crate::fleet) live: LiveConfig,
    pub(in crate::fleet) own_watch: OwnWatch,
}

impl Common {
    pub(in crate::fleet) fn new(
        live: &LiveConfig,
        network: &Arc<dyn Network>,
        tasks: &Tasks,
    ) -> Self {
        Self {
            network: Arc::clone(network),
            tasks: tasks.clone(),
            live: live.clone(),
            own_watch: OwnWatch::new(),
        }
    }
}

impl Backend {
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.names.get().name)
    }

    /// Its name as the value of a header.
    #[must_use]
    pub fn name_header(&self) -> HeaderValue {
        self.names.get().header.clone()
    }

    /// The headers for every request to it.
    #[must_use]
    pub fn headers(&self) -> Arc<BackendHeaders> {
        self.headers.load_full()
    }

    #[must_use]
    pub fn weight(&self) -> NonZeroU32 {
        NonZeroU32::new(self.weight.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }

    /// The load at which it takes no new work; `None` means no limit.
    #[must_use]
    pub fn max_pending(&self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.max_pending.load(Ordering::Relaxed))
    }

    /// The operator's labels for it.
    #[must_use]
    pub fn labels(&self) -> Arc<Vec<String>> {
        self.labels.load_full()
    }

    /// Which server this is, if its discovery said so.
    #[must_use]
    pub fn identity(&self) -> Option<Arc<str>> {
        Option::clone(&self.identity.load())
    }

    /// As it is called in a browser's address line.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.dialler.tls().is_some() { Scheme::Https } else { Scheme::Http };
        format!("{}://{}", scheme.as_str(), self.authority)
    }

    /// Says so if whoever is on the way to it may be it.
    pub(in crate::fleet) fn warn_if_insecure(&self) {
        if self.dialler.tls().as_ref().as_ref().is_some_and(BackendTls::is_insecure) {
            warn!(
                backend = %self.name(),
                "Every certificate is taken for this backend's (`insecure`): whoever is on the way \
                 to it can read and change all that is said."
            );
        }
    }

    /// Its current configuration.
    #[must_use]
    pub fn settings(&self) -> BackendConfig {
        BackendConfig {
            name: self.name().to_string(),
            host: self.dialler.host().to_owned(),
            port: self.dialler.port(),
            authority: self.authority.to_string(),
            weight: self.weight(),
            max_pending: self.max_pending(),
            labels: Vec::clone(&self.labels()),
            headers: BackendHeaders::clone(&self.headers()),
            tls: Option::clone(&self.dialler.tls()),
            listed_by: ListedBy::clone(&self.listed_by.load()),
            identity: self.identity(),
        }
    }

    /// Applies other settings, except the address: another address would be another server.
    pub(in crate::fleet) fn adjust(&self, settings: &BackendConfig) {
        if *self.name() != *settings.name {
            info!(backend = %self.name(), name = settings.name, "Backend was renamed.");
            self.names.set(&settings.name);
        }
        if self.dialler.set_tls(settings.tls.as_ref()) {
            self.pool.close_idle();
            self.warn_if_insecure();
        }
        self.headers.store(Arc::new(settings.headers.clone()));
        self.labels.store(Arc::new(settings.labels.clone()));
        self.listed_by.store(Arc::new(settings.listed_by.clone()));
        self.identity.store(Arc::new(settings.identity.clone()));
        self.weight.store(settings.weight.get(), Ordering::Relaxed);
        let max_pending = settings.max_pending.map_or(0, NonZeroU32::get);
        self.max_pending.store(max_pending, Ordering::Relaxed);
    }
}
