//! Backends that join and leave while everything runs, and what happens to their clients.
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
use crate::config::{self, BackendConfig, BackendHeaders, Config};
use crate::fleet::backend::Backend;
use crate::fleet::diff::{Applied, BadDiff, Diff};
use crate::fleet::wanted::{Put, Source, Unwanted, Wanted};
use crate::journal::record::AddedRecord;
use crate::routing::ids::BackendId;
use crate::tunnels::Farewell;

/// Why the fleet is as it was.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotChanged {
    #[error(transparent)]
    Unwanted(#[from] Unwanted),
    #[error(transparent)]
    BadDiff(#[from] BadDiff),
    #[error("{0}")]
    Itself(String),
}

/// Why a configuration does not hold.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotConfigured {
    #[error(transparent)]
    BadDiff(#[from] BadDiff),
    /// Some would be this gateway: one line for each.
    #[error("{}", .0.join("\n"))]
    Itself(Vec<String>),
}

/// A backend that is to go stays so long at least: who was sent there a moment before is there by
/// then.
const STAYS: Duration = Duration::from_secs(1);

/// Who wants what stands in the configuration.
pub(super) const CONFIGURATION: &str = "the configuration";

impl Sessions {
    /// Makes the fleet what is wanted of it. Who is not wanted any more goes when it has drained;
    /// who is wanted again stays.
    ///
    /// # Errors
    /// It would be no fleet; then nothing is changed.
    pub fn change_fleet(self: &Arc<Self>, wanted: &[BackendConfig]) -> Result<(), BadDiff> {
        let applied = {
            let _wanted = self.wanted.lock();
            self.noted(self.shared.fleet.change(wanted, CONFIGURATION)?)
        };
        self.take_up(applied);
        Ok(())
    }

    /// This configuration holds from now on: the fleet is what it says, with what operators added
    /// and discoveries found.
    ///
    /// # Errors
    /// It would be no fleet, or this gateway itself would be in it; then nothing is changed.
    pub fn configure_fleet(self: &Arc<Self>, config: Config) -> Result<(), NotConfigured> {
        let applied = {
            let mut wanted = self.wanted.lock();
            let configured = |now: Wanted| {
                let next = now.configured(&config.backends);
                let itself = self.that_would_be_itself(&config, next.fleet());
                if itself.is_empty() { Ok((next, ())) } else { Err(NotConfigured::Itself(itself)) }
            };
            let applied = self.want(&mut wanted, CONFIGURATION, configured)?.0;
            // Under the lock: who adds a backend next compares it with the listeners to come.
            self.shared.reconfigure(config);
            applied
        };
        // The home is chosen once the rest of the configuration holds: it may name another.
        self.welcome(applied);
        Ok(())
    }

    /// Adds a backend for as long as no operator removes it, or changes one that was added. With a
    /// journal it is there after a restart as well.
    ///
    /// # Errors
    /// It is not an operator's, or it would be no fleet; then nothing is changed.
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
            // Noted under the lock: the last word must be the last in the journal.
            self.shared.records.journal.note_added(name, Some(record));
            done
        };
        self.take_up(applied);
        Ok(put)
    }

    /// Removes a backend that an operator added: it leaves when it has drained. One that is to
    /// leave already does so. `None` if it was not used: the configuration had its place.
    ///
    /// # Errors
    /// The configuration has it, or there is none.
    pub fn remove_backend(
        self: &Arc<Self>,
        name: &str,
        by: &str,
    ) -> Result<Option<Arc<Backend>>, NotChanged> {
        let (backend, applied) = {
            let mut wanted = self.wanted.lock();
            let backend = self.shared.fleet.by_name(name);
            if backend.as_ref().is_some_and(|it| it.going_since().is_some()) {
                return Ok(backend);
            }
            let without = |now: Wanted| Ok::<_, NotChanged>((now.without(name)?, ()));
            let (applied, ()) = self.want(&mut wanted, by, without)?;
            self.shared.records.journal.note_added(name.into(), None);
            (backend, applied)
        };
        self.take_up(applied);
        Ok(backend)
    }

    /// Has a backend that is to leave do so at once: what is pending there is lost (P6).
    pub fn force_out(self: &Arc<Self>, backend: &Arc<Backend>) {
        self.let_go(BTreeSet::from([backend.id]));
    }

    fn let_go(self: &Arc<Self>, drained: BTreeSet<BackendId>) {
        let applied = {
            let _wanted = self.wanted.lock();
            self.noted(self.shared.fleet.let_go(drained))
        };
        self.take_up(applied);
    }

    /// What operators had added before a restart is there again, unless it cannot be any more.
    pub(super) fn restore_added(&self, added: Vec<(Arc<str>, AddedRecord)>) {
        let mut wanted = self.wanted.lock();
        for (name, record) in added {
            let restored = self.as_added(&name, &record).and_then(|settings| {
                self.is_no_listener(&settings)?;
                let restore = |now: Wanted| Ok::<_, NotChanged>((now.restored(settings), ()));
                self.want(&mut wanted, CONFIGURATION, restore).map_err(|why| why.to_string())
            });
            match restored {
                // Nobody works yet: there is nothing to be taken up.
                Ok((_applied, ())) => {}
                Err(why) => warn!(
                    backend = &*name,
                    why, "A backend that an operator had added is not used after the restart."
                ),
            }
        }
    }

    /// What an operator had added. Whose secret cannot be read comes without: its clients are bound
    /// to it and their prompts are not lost, though it lets nobody in before a reload can read it.
    fn as_added(&self, name: &str, record: &AddedRecord) -> Result<BackendConfig, String> {
        let secrets = self.shared.config().admin.secrets_dir.clone();
        let whole = config::one_backend(name, &record.settings, secrets.as_deref());
        whole.or_else(|problems| {
            let mut settings = record.settings.clone();
            let removed = settings.as_object_mut().and_then(|it| it.remove("headers"));
            let without = config::one_backend(name, &settings, None);
            let without = without.ok().filter(|_| removed.is_some());
            let why = problems.to_string();
            let backend = without.ok_or_else(|| why.clone())?;
            warn!(backend = name, why, "A backend is used without its headers until a reload.");
            Ok(BackendConfig { headers: BackendHeaders::unread(&record.settings), ..backend })
        })
    }

    /// Looks whether it is another server than this gateway.
    ///
    /// # Errors
    /// This gateway listens there.
    pub(super) fn is_no_listener(&self, backend: &BackendConfig) -> Result<(), String> {
        match self.shared.config().is_itself(backend) {
            Some(key) => Err(format!("`{}` is this gateway itself (`{key}`)", backend.authority)),
            None => Ok(()),
        }
    }

    /// Who wants that backend.
    #[must_use]
    pub fn source_of(&self, name: &str) -> Source {
        self.wanted.lock().source(name)
    }

    /// Changes what is wanted, and the fleet with it, because of `by`.
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
            warn!(added, configured, "The configuration has a backend that an operator had added.");
        }
        for it in wanted.not_used().iter().filter(|it| !before.not_used().contains(it)) {
            let (place, backend, why) = (it.place.as_str(), it.backend.as_str(), &it.why);
            warn!(discovery = place, backend, %why, "A backend that was found is not used.");
        }
        Ok((applied, came))
    }

    /// Changes the fleet at once, whatever those have that leave.
    ///
    /// # Errors
    /// It would be no fleet; then nothing is changed.
    pub fn apply(self: &Arc<Self>, diff: &Diff) -> Result<(), BadDiff> {
        let applied = {
            let _wanted = self.wanted.lock();
            self.noted(self.shared.fleet.apply(diff)?)
        };
        self.take_up(applied);
        Ok(())
    }

    /// The fleet has changed: the home may have gone, and the rest as [`Self::welcome`].
    pub(super) fn take_up(self: &Arc<Self>, applied: Applied) {
        self.shared.choose_home();
        self.welcome(applied);
    }

    /// Looks at those that joined, and ends what is left of those that left.
    fn welcome(self: &Arc<Self>, applied: Applied) {
        for backend in applied.joined {
            self.shared.records.recall_state(&backend);
            self.look_for_unclaimed_at(backend);
        }
        for backend in &applied.left {
            self.tunnels.close_to(backend.id, Farewell::Draining);
        }
        if !applied.left.is_empty() {
            // What was pending there has ended.
            self.reconcile_soon();
        }
    }

    /// What the sweep does for each backend.
    pub(super) fn maintain_backends(self: &Arc<Self>, now: Instant) {
        let held = Held::of(self);
        for backend in self.shared.fleet.iter() {
            let_go_of_tunnels(self, &backend, &held);
            backend.pool.sweep(now);
        }
        self.let_go_of_backends(now);
    }

    /// Lets those go that are to go and have nobody any more.
    fn let_go_of_backends(self: &Arc<Self>, now: Instant) {
        let kept = Held::or_reserved(self, now);
        let may_go = |backend: &Arc<Backend>| {
            backend.going_since().is_some_and(|since| STAYS <= now.duration_since(since))
                && kept.at(backend.id) == 0
        };
        let leave: BTreeSet<BackendId> =
            self.shared.fleet.iter().filter(may_go).map(|backend| backend.id).collect();
        if !leave.is_empty() {
            self.let_go(leave);
        }
    }
}
