//! Discovered backends: they join and leave like configured ones, and the last good list of each
//! discovery is in the journal.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use tracing::warn;

use super::Sessions;
use super::membership::CONFIGURATION;
use crate::config::url::Address;
use crate::config::{BackendConfig, DiscoveryConfig, ListedBy};
use crate::fleet::diff::BadDiff;
use crate::fleet::wanted::Wanted;
use crate::journal::record::{FoundBackend, FoundRecord};

impl Sessions {
    /// Applies the latest result of a discovery. Backends that it had found before and does not
    /// find now leave when they have drained.
    ///
    /// # Errors
    /// The result would not be a valid fleet; then nothing is changed.
    pub fn found(
        self: &Arc<Self>,
        discovery: &DiscoveryConfig,
        backends: Vec<BackendConfig>,
    ) -> Result<(), BadDiff> {
        let place = discovery.name.as_str();
        let applied = {
            let mut wanted = self.wanted.lock();
            // A reload may have ended or changed the discovery; its result is then ignored.
            let is_wanted = self.shared.config().discovery.contains(discovery);
            if !is_wanted {
                return Ok(());
            }
            let is_first = self.shared.records.heard_of(place);
            if wanted.has_found(place, &backends) {
                if is_first {
                    self.shared.choose_home();
                }
                return Ok(());
            }
            let record = FoundRecord::new(backends.iter().map(recorded).collect());
            let found = |now: Wanted| Ok::<_, BadDiff>((now.found(place, backends), ()));
            let by = ListedBy::Discovery(place.to_owned()).to_string();
            let applied = self.want(&mut wanted, &by, found)?.0;
            // Noted under the lock: the last change must be the last in the journal.
            self.shared.records.journal.note_found(place.into(), Some(record));
            applied
        };
        self.take_up(applied);
        Ok(())
    }

    /// The last result of that discovery.
    #[must_use]
    pub fn found_by(&self, place: &str) -> Vec<BackendConfig> {
        self.wanted.lock().found_by(place).to_vec()
    }

    /// True if this discovery has ever answered, perhaps to an earlier process.
    #[must_use]
    pub fn has_answered(&self, place: &str) -> bool {
        self.wanted.lock().has_answered(place)
    }

    /// The results of other discoveries than these are no longer wanted. They are kept until each
    /// of these has answered once.
    pub fn discovered_by(self: &Arc<Self>, places: &BTreeSet<&str>) {
        let applied = {
            let mut wanted = self.wanted.lock();
            let gone = wanted.places().filter(|place| !places.contains(*place));
            let gone: Vec<Arc<str>> = gone.map(Arc::from).collect();
            let only = |now: Wanted| Ok::<_, BadDiff>((now.discovered_by(places), ()));
            let applied = match self.want(&mut wanted, CONFIGURATION, only) {
                Ok((applied, ())) => applied,
                // This may exceed a limit: other backends take the freed places while those that
                // leave still drain.
                Err(why) => {
                    warn!(%why, "The backends of a removed discovery stay until the next reload.");
                    return;
                }
            };
            for place in gone {
                self.shared.records.journal.note_found(place, None);
            }
            applied
        };
        self.take_up(applied);
    }

    /// Restores what was found before a restart: the last good list.
    pub(super) fn restore_found(&self, found: Vec<(Arc<str>, FoundRecord)>) {
        let config = self.shared.config_kept();
        let mut wanted = self.wanted.lock();
        for (place, record) in found {
            let Some(discovery) = config.discovery.iter().find(|it| *it.name == *place) else {
                self.shared.records.journal.note_found(place, None);
                continue;
            };
            let backends = record.backends.iter().map(|it| restored(discovery, it));
            let backends = backends.filter(|it| self.is_no_listener(it).is_ok()).collect();
            let found = |now: Wanted| Ok::<_, BadDiff>((now.found(&place, backends), ()));
            if let Err(why) = self.want(&mut wanted, CONFIGURATION, found) {
                let discovery = &*place;
                warn!(discovery, %why, "Backends that were found before the restart are not used.");
            }
        }
    }
}

fn recorded(it: &BackendConfig) -> FoundBackend {
    FoundBackend {
        name: it.name.as_str().into(),
        host: it.host.as_str().into(),
        port: it.port,
        weight: it.weight.get(),
        max_pending: it.max_pending.map_or(0, NonZeroU32::get),
        labels: it.labels.clone(),
        identity: it.identity.clone(),
    }
}

fn restored(discovery: &DiscoveryConfig, it: &FoundBackend) -> BackendConfig {
    let address = Address { host: it.host.to_string(), port: it.port };
    BackendConfig {
        name: it.name.to_string(),
        authority: address.to_string(),
        host: address.host,
        port: it.port,
        weight: NonZeroU32::new(it.weight).unwrap_or(NonZeroU32::MIN),
        max_pending: NonZeroU32::new(it.max_pending),
        labels: it.labels.clone(),
        headers: discovery.headers.clone(),
        tls: None,
        listed_by: ListedBy::Discovery(discovery.name.clone()),
        identity: it.identity.clone(),
    }
}
