//! Records of assets: updates the asset ledger, the file ledger and the journal together, and
//! decides which assets a client sees (promise R11).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Records, server_of};
use crate::comfy::assets::item::{self, Item};
use crate::journal::record::AssetRecord;
use crate::lock::{Guard, rank};
use crate::net::{now, unix_millis};
use crate::routing::assets::{Asset, Assets, Bytes, Kind, Told, Whose, whose};
use crate::routing::files::{self, Learned, Maker, Place, Seen, Shown};
use crate::routing::ids::{AssetId, BackendId, ContentHash, FileRef, Located, PromptId};
use crate::routing::shard::Key;

/// Who asks for assets.
#[derive(Clone, Debug, Default)]
pub struct AssetViewer {
    /// The makers that count as this viewer.
    pub makers: Vec<Maker>,
    /// The user in the `Comfy-User` header, if there is one.
    pub user: Option<String>,
}

impl Records {
    /// Learns from file names that backends send in outputs of nodes or in answers to uploads. The
    /// id of a file's asset may stand beside its name.
    pub(super) fn learn_told(
        &self,
        texts: &[(BackendId, bytes::Bytes)],
        makers: &[Maker],
        seen: Seen,
    ) {
        let mut all = Vec::new();
        for (backend, text) in texts {
            for (id, file, hash) in item::told_in(text) {
                let bytes = match (hash, seen, makers) {
                    (Some(hash), _, _) => Bytes::Are(Some(hash)),
                    // An event of a running prompt: it may have overwritten the file.
                    (None, Seen::Added | Seen::Written, _) | (None, Seen::There, [_, ..]) => {
                        Bytes::Written
                    }
                    (None, Seen::There, []) => Bytes::Untold,
                };
                let (user, file, kind) = (None, Some(file), Kind::Original);
                all.push(Told { id, backend: *backend, makers, user, file, bytes, kind });
            }
        }
        self.learn_assets(&all);
    }

    /// Learns of an asset that a backend lists or shows.
    pub fn learn_item(&self, backend: BackendId, item: &Item, viewer: &AssetViewer) {
        let user = viewer.user.as_deref();
        let (bytes, kind) = (Bytes::Are(item.hash), Kind::Original);
        let (id, file, makers) = (item.id, item.file.clone(), viewer.makers.as_slice());
        self.learn_asset(&Told { id, backend, makers, user, file, bytes, kind });
    }

    /// Learns one fact about an asset.
    pub fn learn_asset(&self, told: &Told<'_>) {
        self.learn_assets(std::slice::from_ref(told));
    }

    /// The same for several; each shard is locked once.
    pub fn learn_assets(&self, told: &[Told<'_>]) {
        self.assets.each_of(told.iter().map(|told| key_of(told.id)), |assets, places| {
            for told in places.iter().filter_map(|(_, it)| told.get(*it)) {
                if assets.learn(told, now()) == Learned::New && self.journal.is_kept() {
                    // An asset without an owner needs no record: it can be found again.
                    let record = assets.get(told.id).filter(|asset| asset.is_owned());
                    if let Some(record) = record.and_then(|asset| self.record_of_asset(asset)) {
                        self.journal.note_asset(told.id, Some(record));
                    }
                }
            }
            self.note_evicted_assets(assets);
        });
    }

    /// Takes over the assets that the journal had, in their order.
    pub fn restore_assets(&self, restored: Vec<(AssetId, Asset, Instant)>) {
        self.assets.divide(
            restored,
            |(id, ..)| key_of(*id),
            |assets, restored| {
                for (id, asset, learned) in restored {
                    assets.restore(id, asset, learned, now());
                }
                self.note_evicted_assets(assets);
            },
        );
    }

    /// Who owns an asset: its makers, the makers of its file, or the owner of the prompt that made
    /// the file.
    pub fn whose_asset(&self, backend: BackendId, item: &Item, viewer: &AssetViewer) -> Whose {
        let known = self.asset(item.id);
        if known.as_ref().is_some_and(|asset| asset.kind == Kind::Copy) {
            return Whose::Anothers;
        }
        let user = known.as_ref().and_then(|asset| asset.user.clone());
        if user.is_some() && user.as_deref() == viewer.user.as_deref() {
            return Whose::Own;
        }
        let mut makers = known.map_or_else(Vec::new, |asset| asset.makers.into_vec());
        if let Some(file) = item.file.clone() {
            let at = Located { backend, file };
            let files = self.files_of(&at.file);
            makers.extend(files.holder(&at).into_iter().flat_map(|it| it.makers.iter().cloned()));
        }
        if let Some(job) = item.job.as_deref().and_then(|job| PromptId::parse(job).ok()) {
            let client = self.ledger_of(&job).get(&job, now()).and_then(|it| it.by.client.clone());
            makers.extend(client.map(Maker::Client));
        }
        whose(&makers, &viewer.makers)
    }

    /// An asset as JSON, in which its files have the names that clients use (R3).
    #[must_use]
    pub fn name_asset(&self, backend: BackendId, item: Option<&Item>, json: &[u8]) -> Vec<u8> {
        let own = item.and_then(|item| item.file.as_ref());
        // It is read twice, so that no lock is held while an item of several megabytes is read.
        let mut told = Vec::new();
        let _unchanged = item::with_backends(json, own, |file| {
            told.push(Located { backend, file: file.clone() });
            None
        });
        let tagged = self.tagged_of(&told);
        let name = match tagged.is_empty() {
            true => Arc::default(),
            false => self.given_name(&self.fleet.get(backend)),
        };
        let is_tagged = |file: &FileRef| tagged.iter().any(|at| at.file == *file);
        let named = match tagged.is_empty() {
            true => None,
            false => item::with_backends(json, own, |file| is_tagged(file).then_some(&*name)),
        };
        named.unwrap_or_else(|| json.to_vec())
    }

    /// Learns that these files exist. Returns those whose names must carry their backend's name.
    fn tagged_of(&self, told: &[Located]) -> Vec<Located> {
        let mut tagged = Vec::new();
        let keys = told.iter().map(|at| files::key_of(at.file.path()));
        self.files.each_of(keys, |files, places| {
            for at in places.iter().filter_map(|(_, it)| told.get(*it)) {
                self.learn_in(files, at, &[], Seen::There);
                if self.shown(files, at) == Shown::WithBackend {
                    tagged.push(at.clone());
                }
            }
        });
        tagged
    }

    /// A file with this content, preferably on a backend that is up.
    #[must_use]
    pub fn file_of_hash(&self, hash: ContentHash) -> Option<Located> {
        self.files_of_hashes(&[hash]).remove(&hash)
    }

    /// The same for several, looked up together. Unknown hashes are left out.
    #[must_use]
    pub fn files_of_hashes(&self, hashes: &[ContentHash]) -> HashMap<ContentHash, Located> {
        if hashes.is_empty() {
            return HashMap::new();
        }
        let mut found: HashMap<ContentHash, Located> = HashMap::new();
        for assets in self.assets.each() {
            for hash in hashes {
                for at in assets.of_hash(*hash).filter_map(located) {
                    let is_better = |known: &Located| {
                        let is_up = |id| self.fleet.get(id).is_up();
                        is_up(at.backend) && !is_up(known.backend)
                    };
                    if found.get(hash).is_none_or(is_better) {
                        found.insert(*hash, at);
                    }
                }
            }
        }
        found
    }

    /// The assets with this content.
    #[must_use]
    pub fn assets_of_hash(&self, hash: ContentHash) -> Vec<Asset> {
        let of_hash = |assets: Guard<'_, Assets, { rank::ASSETS }>| -> Vec<Asset> {
            assets.of_hash(hash).cloned().collect()
        };
        self.assets.each().flat_map(of_hash).collect()
    }

    /// The backends that are known to have this content.
    #[must_use]
    pub fn backends_of_hash(&self, hash: ContentHash) -> Vec<BackendId> {
        let backend = |asset: Asset| match asset.place {
            Place::Backend(backend) => Some(backend),
            Place::Gone(_) => None,
        };
        self.assets_of_hash(hash).into_iter().filter_map(backend).collect()
    }

    /// True if all backends may be asked for an unknown id. Notes that they were asked.
    pub fn may_ask_for(&self, id: AssetId) -> bool {
        self.assets.at(key_of(id)).may_ask(id, now())
    }

    /// The same for a content hash.
    pub fn may_ask_for_hash(&self, hash: ContentHash) -> bool {
        self.assets.at(Key::of(hash.as_bytes())).may_ask_hash(hash, now())
    }

    /// Mooring copied a file for a prompt. The asset that this created belongs to nobody.
    pub fn learn_copy(&self, backend: BackendId, answer: &[u8]) {
        for (id, file, hash) in item::told_in(answer) {
            // If the same content was there already, nothing has changed.
            let at = Located { backend, file: file.clone() };
            let was_there = self.files_of(&at.file).holder(&at).is_some();
            if was_there || self.asset(id).is_some() {
                continue;
            }
            let bytes = hash.map_or(Bytes::Written, |hash| Bytes::Are(Some(hash)));
            let (file, kind) = (Some(file), Kind::Copy);
            self.learn_asset(&Told { id, backend, makers: &[], user: None, file, bytes, kind });
        }
    }

    /// What is known of an asset.
    #[must_use]
    pub fn asset(&self, id: AssetId) -> Option<Asset> {
        self.assets.at(key_of(id)).get(id).cloned()
    }

    fn note_evicted_assets(&self, assets: &mut Assets) {
        for id in assets.take_evicted() {
            self.journal.note_asset(id, None);
        }
    }

    fn record_of_asset(&self, asset: &Asset) -> Option<AssetRecord> {
        let Place::Backend(backend) = asset.place else { return None };
        let backend = self.fleet.get(backend);
        let named = (backend.name(), server_of(&backend));
        Some(AssetRecord::new(named, asset, unix_millis()))
    }
}

/// In which shard an asset is.
fn key_of(id: AssetId) -> Key {
    Key::of(&id.to_be_bytes())
}

/// Where an asset lies, if its server is configured and it has a file.
fn located(asset: &Asset) -> Option<Located> {
    match &asset.place {
        Place::Backend(backend) => Some(Located { backend: *backend, file: asset.file.clone()? }),
        Place::Gone(_) => None,
    }
}
