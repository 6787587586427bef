//! Adds and removes backends while the gateway runs, and handles their clients.
//!
//! A backend that should leave gets no new clients and keeps those that have work there until they
//! have drained (promise V5). It leaves when no client is held there any more. If it must leave
//! earlier, the prompts pending there are lost, and their clients are told (P6).
//!
//! `leftovers` are those that drain over a restart; [`rotated`] reads their secrets again.

mod leftovers;
pub mod rotated;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::Sessions;
use super::control::{Held, let_go_of_tunnels};
use crate::config::{self, BackendConfig, Config, ListedBy, SecretFiles};
use crate::fleet::backend::Backend;
use crate::fleet::diff::{Applied, BadDiff, Diff};
use crate::fleet::wanted::{Put, Source, Unwanted, Wanted};
use crate::journal::record::AddedRecord;
use crate::routing::ids::BackendId;
use crate::tunnels::Farewell;

/// Why the fleet was not changed.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotChanged {
    #[error(transparent)]
    Unwanted(#[from] Unwanted),
    #[error(transparent)]
    BadDiff(#[from] BadDiff),
    #[error("{0}")]
    Itself(String),
}

/// Why a configuration was not applied.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotConfigured {
    #[error(transparent)]
    BadDiff(#[from] BadDiff),
    /// Some backends would be this gateway: one line for each.
    #[error("{}", .0.join("\n"))]
    Itself(Vec<String>),
}

/// The least time before a backend leaves. A request that was routed there a moment ago arrives
/// within this time.
const STAYS: Duration = Duration::from_secs(1);

/// The name of the source of configured backends.
pub(super) const CONFIGURATION: &str = "the configuration";

impl Sessions {
    /// Changes the fleet to `wanted`. A backend that is no longer wanted leaves when it has
    /// drained; one that is wanted again stays.
    ///
    /// # Errors
    /// The result would not be a valid fleet; then nothing is changed.
    pub fn change_fleet(self: &Arc<Self>, wanted: &[BackendConfig]) -> Result<(), BadDiff> {
        let applied = {
            let _wanted = self.wanted.lock();
            self.noted(self.shared.fleet.change(wanted, CONFIGURATION)?)
        };
        self.take_up(applied);
        Ok(())
    }

    /// Applies this configuration: the fleet becomes what it lists, with the backends that
    /// operators added and discoveries found.
    ///
    /// # Errors
    /// The result would not be a valid fleet, or would contain this gateway; then nothing is
    /// changed.
    pub fn configure_fleet(self: &Arc<Self>, config: Config) -> Result<(), NotConfigured> {
        let applied = {
            let mut wanted = self.wanted.lock();
            let configured = |now: Wanted| {
                let places = config.discovery.iter().map(|it| it.name.as_str()).collect();
                let next = now.reloaded(&config.backends, &places);
                let itself = self.that_would_be_itself(&config, next.fleet());
                if itself.is_empty() { Ok((next, ())) } else { Err(NotConfigured::Itself(itself)) }
            };
            let applied = self.want(&mut wanted, CONFIGURATION, configured)?.0;
            // Under the lock: the next backend that is added must be compared with the new
            // listeners.
            self.shared.reconfigure(config);
            applied
        };
        // The home is chosen after the rest of the configuration was applied, which may name
        // another.
        self.welcome(applied);
        Ok(())
    }

    /// Adds a backend until an operator removes it, or changes one that was added. With a journal
    /// it is kept over a restart.
    ///
    /// # Errors
    /// The backend is not an operator's, or the result would not be a valid fleet; then nothing is
    /// changed.
    pub fn add_backend(
        self: &Arc<Self>,
        settings: BackendConfig,
        record: AddedRecord,
    ) -> Result<Put, NotChanged> {
        let name: Arc<str> = settings.name.as_str().into();
        let (applied, put) = {
            let mut wanted = self.wanted.lock();
            self.is_no_listener(&settings).map_err(NotChanged::Itself)?;
            let put = |now: Wanted| Ok::<_, NotChanged>(now.put(settings)?);
            let done = self.want(&mut wanted, &Arc::clone(&record.by), put)?;
            // Noted under the lock: the last change must be the last in the journal.
            self.shared.records.journal.note_added(name, Some(record));
            done
        };
        self.take_up(applied);
        Ok(put)
    }

    /// Removes a backend that an operator added: it leaves when it has drained. One that is already
    /// to leave is unchanged. `None` if it was not in use: the configuration had its place, or it
    /// could not be used after a restart.
    ///
    /// # Errors
    /// The configuration has it, or it does not exist.
    pub fn remove_backend(
        self: &Arc<Self>,
        name: &str,
        by: &str,
    ) -> Result<Option<Arc<Backend>>, NotChanged> {
        let (backend, applied) = {
            let mut wanted = self.wanted.lock();
            let backend = self.shared.fleet.by_name(name);
            let without = |now: Wanted| Ok::<_, NotChanged>((now.without(name)?, ()));
            let applied = match self.want(&mut wanted, by, without) {
                Ok((applied, ())) => applied,
                Err(_) if backend.as_ref().is_some_and(|it| it.is_going()) => return Ok(backend),
                Err(why) => return Err(why),
            };
            self.shared.records.journal.note_added(name.into(), None);
            (backend, applied)
        };
        self.take_up(applied);
        Ok(backend)
    }

    /// Makes a backend that is to leave do so at once: the prompts that are pending there are lost
    /// (P6).
    pub fn force_out(self: &Arc<Self>, backend: &Arc<Backend>) {
        let applied = {
            let _wanted = self.wanted.lock();
            self.noted(self.shared.fleet.force_out(backend.id))
        };
        self.take_up(applied);
    }

    /// Restores the backends that operators added before a restart, except those that are no longer
    /// possible.
    pub(super) fn restore_added(&self, added: Vec<(Arc<str>, AddedRecord)>) {
        let mut wanted = self.wanted.lock();
        for (name, record) in added {
            let restored = self.as_added(&name, &record).and_then(|settings| {
                self.is_no_listener(&settings)?;
                let restore = |now: Wanted| Ok::<_, NotChanged>((now.restored(settings), ()));
                self.want(&mut wanted, CONFIGURATION, restore).map_err(|why| why.to_string())
            });
            match restored {
                // Before any work begins: there is nothing to take up.
                Ok((_applied, ())) => {}
                Err(why) => {
                    wanted.cannot_be_used(&name);
                    warn!(
                        backend = &*name,
                        why, "A backend that an operator had added is not used after the restart."
                    );
                }
            }
        }
    }

    /// A backend that an operator added. If its secret cannot be read, it has none. Its clients
    /// stay bound and their prompts are not lost, but requests are refused until a reload can read
    /// it.
    fn as_added(&self, name: &str, record: &AddedRecord) -> Result<BackendConfig, String> {
        let secrets = self.shared.config().admin.secrets_dir.clone();
        let whole = config::one_backend(name, &record.settings, secrets.as_deref());
        whole.or_else(|problems| {
            let files = SecretFiles::In(secrets.as_deref());
            let without = config::unread_backend(name, &record.settings, files);
            let why = problems.to_string();
            let backend = without.map_err(|_| why.clone())?;
            warn!(backend = name, why, "A backend is used without its secrets until a reload.");
            Ok(BackendConfig { listed_by: ListedBy::Operator, ..backend })
        })
    }

    /// Checks that it is a server other than this gateway.
    ///
    /// # Errors
    /// This gateway listens there.
    pub(super) fn is_no_listener(&self, backend: &BackendConfig) -> Result<(), String> {
        match self.shared.config().is_itself(backend) {
            Some(key) => Err(format!("`{}` is this gateway itself (`{key}`)", backend.authority)),
            None => Ok(()),
        }
    }

    /// Which backends reloads dropped that are kept, and until when, in one line for operators.
    /// `None` if there are none.
    #[must_use]
    pub fn kept_for_now(&self) -> Option<String> {
        let wanted = self.wanted.lock();
        let quoted = |names: Vec<String>| names.join(", ");
        let kept = quoted(wanted.kept().iter().map(|it| format!("`{}`", it.name)).collect());
        let silent = quoted(wanted.silent().map(|it| format!("`discovery.{it}`")).collect());
        (!kept.is_empty()).then(|| {
            format!(
                "{kept}: dropped, and kept until {silent} has answered for the first time; \
                 `mooring backends remove NAME` does not wait for that"
            )
        })
    }

    /// The source that wants this backend.
    #[must_use]
    pub fn source_of(&self, name: &str) -> Source {
        self.wanted.lock().source(name)
    }

    /// Changes the wanted backends, and the fleet with them, on behalf of `by`.
    pub(super) fn want<T, E: From<BadDiff>>(
        &self,
        wanted: &mut Wanted,
        by: &str,
        change: impl FnOnce(Wanted) -> Result<(Wanted, T), E>,
    ) -> Result<(Applied, T), E> {
        let (next, came) = change(wanted.clone())?;
        let applied = self.noted(self.shared.fleet.change(&next.fleet(), by)?);
        let before = std::mem::replace(wanted, next);
        let overruled = before.overruled();
        for it in wanted.overruled().into_iter().filter(|it| !overruled.contains(it)) {
            let (added, configured) = (it.added.as_str(), it.by.as_str());
            warn!(
                added,
                configured, "The configuration replaces a backend that an operator had added."
            );
        }
        for it in wanted.not_used().iter().filter(|it| !before.not_used().contains(it)) {
            let (place, backend, why) = (it.place.as_str(), it.backend.as_str(), &it.why);
            warn!(discovery = place, backend, %why, "A backend that was found is not used.");
        }
        Ok((applied, came))
    }

    /// Changes the fleet at once, whatever work leaving backends have.
    ///
    /// # Errors
    /// The result would not be a valid fleet; then nothing is changed.
    pub fn apply(self: &Arc<Self>, diff: &Diff) -> Result<(), BadDiff> {
        let applied = {
            let _wanted = self.wanted.lock();
            self.noted(self.shared.fleet.apply(diff)?)
        };
        self.take_up(applied);
        Ok(())
    }

    /// The fleet has changed: chooses the home again, and does the same as [`Self::welcome`].
    pub(super) fn take_up(self: &Arc<Self>, applied: Applied) {
        self.shared.choose_home();
        self.welcome(applied);
    }

    /// Starts what depends on joined backends, and ends the work of those that left.
    fn welcome(self: &Arc<Self>, applied: Applied) {
        for backend in &applied.left {
            self.shared.records.process_left(backend);
        }
        for backend in applied.joined {
            self.shared.records.recall_state(&backend);
            self.look_for_unclaimed_at(backend);
        }
        for backend in &applied.left {
            self.tunnels.close_to(backend.id, Farewell::Draining);
        }
        if !applied.left.is_empty() {
            // The prompts that were pending there have ended.
            self.reconcile_soon();
        }
    }

    /// The sweep's work for each backend.
    pub(super) fn maintain_backends(self: &Arc<Self>, now: Instant) {
        let held = Held::of(self);
        for backend in self.shared.fleet.iter() {
            let_go_of_tunnels(self, &backend, &held);
            backend.pool.sweep(now);
            self.shared.records.end_what_is_over(&backend);
        }
        self.let_go_of_backends(now);
    }

    /// Removes the backends that are to leave and have no clients any more.
    fn let_go_of_backends(self: &Arc<Self>, now: Instant) {
        let kept = Held::or_reserved(self, now);
        let may_go = |backend: &Arc<Backend>| {
            backend.going_since().is_some_and(|since| STAYS <= now.duration_since(since))
                && kept.at(backend.id) == 0
        };
        let leave: BTreeSet<BackendId> =
            self.shared.fleet.iter().filter(may_go).map(|backend| backend.id).collect();
        if !leave.is_empty() {
            let applied = {
                let _wanted = self.wanted.lock();
                self.noted(self.shared.fleet.let_go(leave))
            };
            self.take_up(applied);
            // Also where nobody scrapes, what is counted of them must not stay for ever.
            let there = self.shared.fleet.iter().map(|backend| backend.name());
            self.shared.metrics.scrape_of(there, now);
        }
    }
}
