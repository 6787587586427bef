//! What the ledger of assets, that of files and the journal learn of assets together, and how
//! assets go to clients (promise R11).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::Records;
use crate::comfy::assets::item::{self, Item};
use crate::journal::record::AssetRecord;
use crate::lock::{Guard, rank};
use crate::net::{now, unix_millis};
use crate::routing::assets::{Asset, Assets, Bytes, Kind, Told, Whose, whose};
use crate::routing::files::{Learned, Maker, Place, Seen, Shown};
use crate::routing::ids::{AssetId, BackendId, ContentHash, FileRef, Located, PromptId};

/// Who asks for assets.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// As what he may have made something.
    pub makers: Vec<Maker>,
    /// Whom `Comfy-User` names, if it names one.
    pub user: Option<String>,
}

impl Records {
    /// A backend tells of files in the output of nodes, or in the answer to an upload: with each
    /// may stand the id of its asset.
    pub(super) fn learn_told(&self, backend: BackendId, makers: &[Maker], text: &[u8], seen: Seen) {
        for (id, file, hash) in item::told_in(text) {
            let bytes = match (hash, seen, makers) {
                (Some(hash), _, _) => Bytes::Are(Some(hash)),
                // An event of a prompt that runs: it may have written the file anew.
                (None, Seen::Written, _) | (None, Seen::There, [_, ..]) => Bytes::Written,
                (None, Seen::There, []) => Bytes::Untold,
            };
            let (user, file, kind) = (None, Some(file), Kind::Original);
            self.learn_asset(&Told { id, backend, makers, user, file, bytes, kind });
        }
    }

    /// A backend tells of an asset.
    pub fn learn_item(&self, backend: BackendId, item: &Item, asker: &Asker) {
        let user = asker.user.as_deref();
        let (bytes, kind) = (Bytes::Are(item.hash), Kind::Original);
        let (id, file, makers) = (item.id, item.file.clone(), asker.makers.as_slice());
        self.learn_asset(&Told { id, backend, makers, user, file, bytes, kind });
    }

    /// Something was learned of an asset.
    pub fn learn_asset(&self, told: &Told<'_>) {
        let mut assets = self.assets();
        if assets.learn(told, now()) == Learned::New && self.journal.is_kept() {
            // What is nobody's can be found again.
            let record = assets.get(told.id).filter(|asset| asset.is_owned());
            if let Some(record) = record.and_then(|asset| self.record_of_asset(asset)) {
                self.journal.note_asset(told.id, Some(record));
            }
        }
        self.note_evicted_assets(&mut assets);
    }

    /// Takes over the assets that the journal had, in their order.
    pub fn restore_assets(&self, restored: Vec<(AssetId, Asset, Instant)>) {
        let mut assets = self.assets();
        for (id, asset, learned) in restored {
            assets.restore(id, asset, learned, now());
        }
        self.note_evicted_assets(&mut assets);
    }

    /// Whose an asset is: of those who made it, or its file, or the prompt that made that.
    pub fn whose_asset(&self, backend: BackendId, item: &Item, asker: &Asker) -> Whose {
        let known = self.assets().get(item.id).cloned();
        if known.as_ref().is_some_and(|asset| asset.kind == Kind::Copy) {
            return Whose::Anothers;
        }
        let user = known.as_ref().and_then(|asset| asset.user.clone());
        if user.is_some() && user.as_deref() == asker.user.as_deref() {
            return Whose::Own;
        }
        let mut makers = known.map_or_else(Vec::new, |asset| asset.makers.into_vec());
        if let Some(file) = item.file.clone() {
            let at = Located { backend, file };
            let files = self.files();
            makers.extend(files.holder(&at).into_iter().flat_map(|it| it.makers.iter().cloned()));
        }
        if let Some(job) = item.job.as_deref().and_then(|job| PromptId::parse(job).ok()) {
            let client = self.ledger().get(&job, now()).and_then(|it| it.by.client.clone());
            makers.extend(client.map(Maker::Client));
        }
        whose(&makers, &asker.makers)
    }

    /// An asset with the names of its files as clients are given them (R3).
    #[must_use]
    pub fn name_asset(&self, backend: BackendId, item: Option<&Item>, json: &[u8]) -> Vec<u8> {
        let own = item.and_then(|item| item.file.as_ref());
        // It is read twice, so that nobody waits for a lock while an item of megabytes is read.
        let mut told = Vec::new();
        let _unchanged = item::with_backends(json, own, |file| {
            told.push(Located { backend, file: file.clone() });
            None
        });
        let tagged = self.tagged(told);
        let name = self.fleet.get(backend).name();
        let is_tagged = |file: &FileRef| tagged.iter().any(|at| at.file == *file);
        let named = match tagged.is_empty() {
            true => None,
            false => item::with_backends(json, own, |file| is_tagged(file).then_some(&*name)),
        };
        named.unwrap_or_else(|| json.to_vec())
    }

    /// Learns that these files are there; returns those that are told with their backend's name.
    fn tagged(&self, mut told: Vec<Located>) -> Vec<Located> {
        let mut files = self.files();
        told.retain(|at| {
            self.learn_in(&mut files, at, &[], Seen::There);
            self.shown(&files, at) == Shown::WithBackend
        });
        told
    }

    /// A file that has these bytes, of a backend that is up if there is one.
    #[must_use]
    pub fn file_of_hash(&self, hash: ContentHash) -> Option<Located> {
        self.files_of_hashes(&[hash]).remove(&hash)
    }

    /// The same for several, looked up at once; without those that are not known.
    #[must_use]
    pub fn files_of_hashes(&self, hashes: &[ContentHash]) -> HashMap<ContentHash, Located> {
        if hashes.is_empty() {
            return HashMap::new();
        }
        let is_up = |at: &&Located| self.fleet.get(at.backend).is_up();
        let assets = self.assets();
        let lies = |hash: &ContentHash| {
            let all: Vec<Located> = assets.of_hash(*hash).filter_map(located).collect();
            let at = all.iter().find(is_up).or_else(|| all.first()).cloned()?;
            Some((*hash, at))
        };
        hashes.iter().filter_map(lies).collect()
    }

    /// The backends that are known to have these bytes.
    #[must_use]
    pub fn backends_of_hash(&self, hash: ContentHash) -> Vec<BackendId> {
        let backend = |asset: &Asset| match asset.place {
            Place::Backend(backend) => Some(backend),
            Place::Gone(_) => None,
        };
        self.assets().of_hash(hash).filter_map(backend).collect()
    }

    /// We brought a file to where a prompt needs it: its asset there is nobody's wish.
    pub fn learn_copy(&self, backend: BackendId, answer: &[u8]) {
        for (id, file, hash) in item::told_in(answer) {
            // The same bytes may have been there already: then it is what it was.
            let at = Located { backend, file: file.clone() };
            let was_there = self.files().holder(&at).is_some();
            if was_there || self.assets().get(id).is_some() {
                continue;
            }
            let bytes = hash.map_or(Bytes::Written, |hash| Bytes::Are(Some(hash)));
            let (file, kind) = (Some(file), Kind::Copy);
            self.learn_asset(&Told { id, backend, makers: &[], user: None, file, bytes, kind });
        }
    }

    /// Locked for one call, never together with another.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn assets(&self) -> Guard<'_, Assets, { rank::ASSETS }> {
        self.assets.lock()
    }

    fn note_evicted_assets(&self, assets: &mut Assets) {
        for id in assets.take_evicted() {
            self.journal.note_asset(id, None);
        }
    }

    fn record_of_asset(&self, asset: &Asset) -> Option<AssetRecord> {
        let Place::Backend(backend) = asset.place else { return None };
        let backend = self.fleet.get(backend);
        let named = (backend.name(), Arc::clone(&backend.authority));
        Some(AssetRecord::new(named, asset, unix_millis()))
    }
}

/// Where an asset lies, if its server is configured and it has a file.
fn located(asset: &Asset) -> Option<Located> {
    match &asset.place {
        Place::Backend(backend) => Some(Located { backend: *backend, file: asset.file.clone()? }),
        Place::Gone(_) => None,
    }
}
