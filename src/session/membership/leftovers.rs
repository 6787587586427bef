//! Keeps backends over a restart: notes the members of the fleet, and brings back those that are
//! still waited for though they are no longer wanted.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;
use tracing::warn;

use super::CONFIGURATION;
use crate::config::{BackendConfig, ListedBy, SecretFiles, kept_backend, unread_backend};
use crate::fleet::backend::{Backend, Going};
use crate::fleet::diff::Applied;
use crate::journal::leftovers::{Leftover, leftovers};
use crate::journal::record::{GoingRecord, MemberRecord, Saved};
use crate::net::unix_millis;
use crate::session::Sessions;
use crate::session::recover::servers;
use crate::shared::Shared;

impl Sessions {
    /// Notes the changes. Called under the lock of the wanted backends: the last change must be the
    /// last in the journal.
    pub(in crate::session) fn noted(&self, applied: Applied) -> Applied {
        self.shared.records.know_servers(applied.joined.iter().chain(&applied.changed));
        let journal = &self.shared.records.journal;
        if !journal.is_kept() {
            return applied;
        }
        // Another server may have joined at the address of one that left.
        for backend in &applied.left {
            journal.note_member(Arc::clone(&backend.authority), None);
        }
        let is_there = |it: &&Arc<Backend>| !it.has_left();
        for backend in applied.joined.iter().chain(&applied.changed).filter(is_there) {
            journal.note_member(Arc::clone(&backend.authority), Some(record_of(backend)));
        }
        applied
    }

    /// Notes at a start the backends that are not yet in the journal.
    pub(in crate::session) fn note_members(&self, saved: Vec<(Arc<str>, MemberRecord)>) {
        let journal = &self.shared.records.journal;
        if !journal.is_kept() {
            return;
        }
        let mut saved: HashMap<Arc<str>, MemberRecord> = saved.into_iter().collect();
        for backend in self.shared.fleet.iter() {
            let record = record_of(&backend);
            if saved.remove(&backend.authority).as_ref() != Some(&record) {
                journal.note_member(Arc::clone(&backend.authority), Some(record));
            }
        }
        for url in saved.into_keys() {
            journal.note_member(url, None);
        }
    }

    /// Brings back those that are still waited for, and lets them drain.
    pub(in crate::session) fn restore_leftovers(&self, saved: &Saved) {
        let mut all = Vec::new();
        for leftover in leftovers(saved, &servers(&self.shared), unix_millis()) {
            let (name, at) = (Arc::clone(&leftover.name), Arc::clone(&leftover.server.url));
            let read = as_backend(&self.shared, leftover).and_then(|(backend, going)| {
                self.is_no_listener(&backend)?;
                Ok((backend, going))
            });
            match read {
                Ok(it) => all.push(it),
                Err(why) => warn!(
                    backend = &*name,
                    at = &*at,
                    why,
                    "A backend that was to drain cannot be used after the restart."
                ),
            }
        }
        // Before any work begins: there is nothing to take up.
        let _joined = self.shared.fleet.bring_back(all);
    }
}

/// A server that is waited for, and since when it is to leave.
fn as_backend(shared: &Shared, leftover: Leftover) -> Result<(BackendConfig, Going), String> {
    let Leftover { server, name, record } = leftover;
    let going = match record.as_ref().and_then(|record| record.going.clone()) {
        Some(GoingRecord { by, at }) => Going::since(by, at),
        None => Going::now(CONFIGURATION),
    };
    let backend = match &record {
        Some(record) => of_record(shared, record)?,
        None => {
            let settings = json!({ "url": format!("http://{}", server.url) });
            let read = kept_backend(&name, &settings, SecretFiles::In(None));
            read.map_err(|problems| problems.to_string())?
        }
    };
    Ok((BackendConfig { identity: server.identity, ..backend }, going))
}

/// A backend from its record. If its secrets cannot be read, it has none. Its prompts are not lost,
/// but requests are refused until a reload can read them.
fn of_record(shared: &Shared, record: &MemberRecord) -> Result<BackendConfig, String> {
    let config = shared.config();
    let listed_by = ListedBy::parse(&record.by).unwrap_or_default();
    let name = &*record.name;
    if let ListedBy::Discovery(place) = &listed_by
        && let Some(discovery) = config.discovery.iter().find(|it| it.name == *place)
    {
        let backend = without_headers(record)?;
        return Ok(BackendConfig { headers: discovery.headers.clone(), listed_by, ..backend });
    }
    let files = match listed_by {
        ListedBy::Operator => SecretFiles::In(config.admin.secrets_dir.as_deref()),
        ListedBy::Configuration | ListedBy::Discovery(_) => SecretFiles::Anywhere,
    };
    let backend = match kept_backend(name, &record.settings, files) {
        Ok(backend) => backend,
        Err(problems) => {
            let why = problems.to_string();
            warn!(backend = name, why, "A backend drains without its secrets until a reload.");
            unread_backend(name, &record.settings, files).map_err(|it| it.to_string())?
        }
    };
    if record.lacks_headers {
        warn!(backend = name, "A backend drains without those of its headers that are in no file.");
    }
    Ok(BackendConfig { listed_by, ..backend })
}

fn without_headers(record: &MemberRecord) -> Result<BackendConfig, String> {
    let mut settings = record.settings.clone();
    if let Some(settings) = settings.as_object_mut() {
        settings.retain(|key, _| !key.starts_with("headers"));
    }
    let read = kept_backend(&record.name, &settings, SecretFiles::In(None));
    read.map_err(|problems| problems.to_string())
}

fn record_of(backend: &Backend) -> MemberRecord {
    let settings = backend.settings();
    let going = backend.going().map(|Going { by, at, .. }| GoingRecord { by, at });
    let by = settings.listed_by.to_string().into();
    let record = MemberRecord::new(backend.name(), settings.kept(), by);
    let record = if settings.headers.has_inline() { record.without_some_headers() } else { record };
    record.of(settings.identity).that_goes(going)
}
