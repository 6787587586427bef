//! Keeps which backend is the home, over changes of the fleet and over a restart (promise R9).

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tracing::{info, warn};

use super::Records;
use crate::config::Config;
use crate::fleet::backend::Backend;
use crate::journal::record::HomeRecord;
use crate::lock::{Lock, rank};
use crate::net::unix_millis;
use crate::routing::home::{Candidate, Fleet, HomeReason, choose};
use crate::routing::ids::BackendId;

/// The current home, for readers, and the facts that choose it.
#[derive(Debug, Default)]
pub(super) struct Home {
    chosen: ArcSwapOption<Chosen>,
    /// Its lock also covers changes of the chosen home.
    known: Lock<Known, { rank::HOME }>,
}

/// The facts that choose the home.
#[derive(Debug, Default)]
struct Known {
    /// The remembered home, kept while the fleet is empty.
    record: Option<HomeRecord>,
    /// The discoveries that have answered.
    heard: BTreeSet<Arc<str>>,
    /// The log has already said that the home's backend is awaited.
    has_told: bool,
}

/// Identifies the server that is the home, for copies that were made from it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HomeServer {
    pub address: Arc<str>,
    /// Its identity, if its discovery gave one.
    pub identity: Option<Arc<str>>,
}

impl HomeServer {
    #[must_use]
    pub fn of(backend: &Backend) -> Self {
        Self { address: Arc::clone(&backend.authority), identity: backend.identity() }
    }
}

/// A home that was chosen.
#[derive(Clone, Debug)]
struct Chosen {
    id: BackendId,
    name: Arc<str>,
    reason: HomeReason,
    page: Option<Arc<str>>,
}

/// What the log says about a choice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Said {
    /// Everything: this is the first choice of the process.
    First,
    /// Only changes.
    Changes,
}

impl Records {
    /// The home, also if it is down. `None` if there is no backend.
    #[must_use]
    pub fn home(&self) -> Option<Arc<Backend>> {
        self.home.chosen.load().as_ref().map(|it| self.fleet.get(it.id))
    }

    /// Its name, also while it is not in the fleet.
    #[must_use]
    pub fn home_name(&self) -> Option<Arc<str>> {
        let chosen = self.home.chosen.load();
        let id = chosen.as_ref().map(|it| it.id);
        // It may have been renamed.
        let now = id.filter(|id| self.fleet.has(*id)).map(|id| self.fleet.get(id).name());
        now.or_else(|| chosen.as_ref().map(|it| Arc::clone(&it.name)))
            .or_else(|| self.home.known.lock().record.as_ref().map(|it| Arc::clone(&it.backend)))
    }

    /// Which server it is, also while it is not in the fleet.
    #[must_use]
    pub fn home_server(&self) -> Option<HomeServer> {
        let known = self.home.known.lock();
        let remembered = known
            .record
            .as_ref()
            .map(|it| HomeServer { address: Arc::clone(&it.url), identity: it.identity.clone() });
        remembered.or_else(|| self.home().map(|it| HomeServer::of(&it)))
    }

    /// Why this backend is the home.
    #[must_use]
    pub fn home_reason(&self) -> Option<HomeReason> {
        self.home.chosen.load().as_ref().map(|it| it.reason)
    }

    /// The digest of the home's page; `None` if it never gave one.
    #[must_use]
    pub fn home_page(&self) -> Option<Arc<str>> {
        self.home.chosen.load().as_ref().and_then(|it| it.page.clone())
    }

    /// Notes the digest of the page that the home sent.
    pub fn saw_home_page(&self, id: BackendId, page: &str) {
        let is_known = |it: &Chosen| it.id != id || it.page.as_deref() == Some(page);
        if self.home.chosen.load().as_deref().is_none_or(is_known) {
            return;
        }
        let mut known = self.home.known.lock();
        let Some(chosen) = self.home.chosen.load_full().filter(|it| it.id == id) else { return };
        let Some(record) = known.record.as_mut() else { return };
        record.page = Some(page.into());
        self.home
            .chosen
            .store(Some(Arc::new(Chosen { page: Some(page.into()), ..(*chosen).clone() })));
        self.journal.note_home(record.clone());
    }

    /// Restores the remembered home and chooses the home by it.
    pub fn restore_home(&self, record: Option<HomeRecord>, config: impl FnOnce() -> Arc<Config>) {
        self.home.known.lock().record = record;
        self.choose_home(config, Said::First);
    }

    /// A discovery has answered. True if it is its first answer.
    pub fn heard_of(&self, discovery: &str) -> bool {
        self.home.known.lock().heard.insert(discovery.into())
    }

    /// Chooses the home among the current backends.
    pub fn choose_home(&self, config: impl FnOnce() -> Arc<Config>, said: Said) {
        let mut known = self.home.known.lock();
        // Read under the lock, so that the last choice uses the latest configuration.
        let config = config();
        let fleet: Vec<Candidate> = self.fleet.iter().map(|it| candidate(&it)).collect();
        let mut discoveries = config.discovery.iter().map(|it| it.name.as_str());
        let waits = discoveries.find(|name| !known.heard.contains(*name));
        let extent = if waits.is_some() { Fleet::Partial } else { Fleet::Whole };
        let before = known.record.clone();
        let remembered = before.as_ref().map(HomeRecord::remembered);
        let chosen = choose(&config.server.home, remembered, &fleet, extent);
        let found = chosen.and_then(|(id, why)| Some((fleet.iter().find(|it| it.id == id)?, why)));
        let Some((it, reason)) = found else {
            self.home.chosen.store(None);
            if let (Some(before), Some(waits)) = (&before, waits) {
                tell_who_is_awaited(&mut known.has_told, before, waits);
            }
            return;
        };
        let reason = self.why_still(it.id, reason);
        let is_same = before.as_ref().is_some_and(|before| before.remembered().is(it));
        let record = match before.clone().filter(|_| is_same) {
            Some(same) => {
                let identity = it.identity.clone().or_else(|| same.identity.clone());
                same.called(Arc::clone(&it.name)).of(identity)
            }
            None => HomeRecord::new(Arc::clone(&it.name), Arc::clone(&it.address), unix_millis())
                .of(it.identity.clone()),
        };
        let page = record.page.clone();
        let chosen = Chosen { id: it.id, name: Arc::clone(&it.name), reason, page };
        self.home.chosen.store(Some(Arc::new(chosen)));
        tell((before.as_ref(), is_same), it, reason, said);
        if before.as_ref() != Some(&record) {
            self.journal.note_home(record.clone());
            known.record = Some(record);
        }
    }

    /// A home that stays keeps the reason for which it was first chosen.
    fn why_still(&self, id: BackendId, reason: HomeReason) -> HomeReason {
        let chosen = self.home.chosen.load();
        let before = chosen.as_ref().filter(|it| it.id == id).map(|it| it.reason);
        match (reason, before) {
            (HomeReason::Remembered, Some(before)) if before != HomeReason::Named => before,
            (reason, _) => reason,
        }
    }
}

fn candidate(backend: &Backend) -> Candidate {
    Candidate {
        id: backend.id,
        name: backend.name(),
        address: Arc::clone(&backend.authority),
        identity: backend.identity(),
        is_up: backend.is_up(),
        goes: backend.is_going(),
    }
}

fn tell_who_is_awaited(has_told: &mut bool, before: &HomeRecord, discovery: &str) {
    if !std::mem::replace(has_told, true) {
        let home = &*before.backend;
        warn!(
            home,
            discovery,
            "The home is not here, and may be found yet: no other is chosen before this discovery \
             has answered. Until then nothing can be saved; `server.home` names another at once."
        );
    }
}

fn tell(
    (before, is_same): (Option<&HomeRecord>, bool),
    home: &Candidate,
    reason: HomeReason,
    said: Said,
) {
    let (name, why) = (&*home.name, reason.text());
    match (before, reason) {
        (Some(before), HomeReason::Next) => warn!(
            before = &*before.backend,
            home = name,
            why,
            "Settings, workflows and the page come from another backend now. Those of the backend \
             before are not copied: `server.home` names the one that has yours."
        ),
        (Some(before), _) if !is_same => {
            info!(before = &*before.backend, home = name, why, "The home is another backend now.");
        }
        (_, _) if said == Said::First => {
            info!(home = name, why, "This backend keeps settings, workflows and the page.");
        }
        (None, _) => {
            info!(home = name, why, "This backend keeps settings, workflows and the page.");
        }
        (Some(_), _) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::config::LiveConfig;
    use crate::journal::Journal;
    use crate::metrics::Metrics;
    use crate::net::{Network, Tcp};
    use crate::tasks::Tasks;

    /// Otherwise a choice after a reload could use the configuration from before it.
    #[cfg(debug_assertions)]
    #[test]
    fn what_the_configuration_says_is_read_while_nobody_else_chooses() {
        let config = Config::for_backends(&[("a", "http://a:1")]).unwrap();
        let network: Arc<dyn Network> = Arc::new(Tcp);
        let fleet =
            crate::fleet::Fleet::new(&LiveConfig::new(config.clone()), &network, &Tasks::default());
        let metrics = Arc::new(Metrics::default());
        let records = Records::new(&config, Journal::default(), Arc::new(fleet), metrics);
        let mut is_alone = false;
        let read = || {
            // A debug build refuses to take a lock that is held.
            is_alone = catch_unwind(AssertUnwindSafe(|| drop(records.home.known.lock()))).is_err();
            Arc::new(config.clone())
        };
        records.choose_home(read, Said::Changes);
        assert!(is_alone);
    }
}
