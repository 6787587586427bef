//! Where the journal of a simulated gateway is kept: it survives the gateway, and takes its time.
//!
//! A kill in the middle of a commit finds the batch not written, as a disk does that writes a batch
//! whole or not at all.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooring::journal::record::{
    AddedRecord, AssetRecord, Batch, BindingRecord, BodyRecord, FileKey, FileRecord, FoundRecord,
    HomeRecord, MemberRecord, NameRecord, PartKey, PartRecord, PromptRecord, Saved, StateRecord,
};
use mooring::journal::{JournalError, Store};
use mooring::net::{Boxed, sleep};
use mooring::routing::ids::{AssetId, ClientId, PromptId};

use super::network::Power;

/// How long commits take, in turn.
const COMMITS: [u64; 5] = [1, 3, 1, 40, 8];

/// The disk of the gateway's host.
#[derive(Clone, Debug)]
pub(super) struct Survivor {
    records: Arc<Mutex<Records>>,
    power: Arc<Power>,
}

#[derive(Debug, Default)]
struct Records {
    clients: BTreeMap<ClientId, BindingRecord>,
    prompts: BTreeMap<PromptId, PromptRecord>,
    bodies: BTreeMap<PromptId, BodyRecord>,
    files: BTreeMap<String, (FileKey, FileRecord)>,
    states: BTreeMap<Arc<str>, StateRecord>,
    added: BTreeMap<Arc<str>, AddedRecord>,
    found: BTreeMap<Arc<str>, FoundRecord>,
    parts: BTreeMap<PartKey, PartRecord>,
    members: BTreeMap<Arc<str>, MemberRecord>,
    names: BTreeMap<Arc<str>, NameRecord>,
    assets: BTreeMap<AssetId, AssetRecord>,
    home: Option<HomeRecord>,
    commits: usize,
}

impl Survivor {
    /// Nothing is written when the power is off.
    pub(super) fn on(power: &Arc<Power>) -> Self {
        Self { records: Arc::default(), power: Arc::clone(power) }
    }
}

impl Store for Survivor {
    fn load(&mut self) -> Result<Saved, JournalError> {
        let records = self.records.lock().unwrap();
        let clients = records.clients.iter().map(|(id, it)| (id.clone(), it.clone())).collect();
        let prompts = records.prompts.iter().map(|(id, it)| (id.clone(), it.clone())).collect();
        let files = records.files.values().cloned().collect();
        let states = records.states.iter().map(|(url, it)| (url.clone(), it.clone())).collect();
        let added = records.added.iter().map(|(name, it)| (name.clone(), it.clone())).collect();
        let assets = records.assets.iter().map(|(id, it)| (*id, it.clone())).collect();
        let found = records.found.iter().map(|(name, it)| (name.clone(), it.clone())).collect();
        let members = records.members.iter().map(|(url, it)| (url.clone(), it.clone())).collect();
        let names = records.names.iter().map(|(name, it)| (name.clone(), it.clone())).collect();
        let bodies = records.bodies.iter().map(|(id, it)| (id.clone(), it.clone())).collect();
        let parts = records.parts.iter().map(|(key, it)| (key.clone(), it.clone())).collect();
        let home = records.home.clone();
        Ok(Saved {
            clients,
            prompts,
            bodies,
            parts,
            files,
            assets,
            states,
            added,
            found,
            members,
            names,
            home,
        })
    }

    fn commit(&mut self, batch: Arc<Batch>) -> Boxed<'_, Result<(), JournalError>> {
        Box::pin(async move {
            let commits = self.records.lock().unwrap().commits;
            sleep(Duration::from_millis(COMMITS[commits % COMMITS.len()])).await;
            self.power.is_on().await;
            self.write(&batch);
            Ok(())
        })
    }
}

impl Survivor {
    pub(super) fn write(&self, batch: &Batch) {
        let mut records = self.records.lock().unwrap();
        records.commits += 1;
        let Records { clients, prompts, bodies, parts, assets, states, .. } = &mut *records;
        put_all(parts, &batch.parts);
        put_all(bodies, &batch.bodies);
        put_all(clients, &batch.clients);
        put_all(prompts, &batch.prompts);
        put_all(assets, &batch.assets);
        put_all(states, &batch.states);
        let Records { added, found, members, names, .. } = &mut *records;
        put_all(added, &batch.added);
        put_all(found, &batch.found);
        put_all(members, &batch.members);
        put_all(names, &batch.names);
        records.home = batch.home.clone().or(records.home.take());
        for (key, record) in &batch.files {
            let record = record.as_ref().map(|record| (key.clone(), record.clone()));
            put(&mut records.files, &key.to_text(), record.as_ref());
        }
    }
}

fn put_all<K: Clone + Eq + Hash + Ord, V: Clone>(
    records: &mut BTreeMap<K, V>,
    changes: &HashMap<K, Option<V>>,
) {
    changes.iter().for_each(|(id, record)| put(records, id, record.as_ref()));
}

fn put<K: Clone + Ord, V: Clone>(records: &mut BTreeMap<K, V>, id: &K, record: Option<&V>) {
    match record {
        Some(record) => drop(records.insert(id.clone(), record.clone())),
        None => drop(records.remove(id)),
    }
}
