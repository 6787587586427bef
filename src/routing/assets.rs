//! The ledger of assets: which backend has an asset, who owns it, and the hash of its content
//! (promise R11).
//!
//! Every ComfyUI keeps its own database of assets, with ids that mean nothing to the others. Ids
//! that were seen with their makers are kept in the journal. Ids that were only listed have no
//! owner, and can be found again by asking.
//!
//! The ledger is divided into shards by id; this is one shard.
//!
//! # Invariants
//!
//! - It never holds more than `capacity` ids, nor an id whose last update is older than `max_age`.
//!   Beyond either limit, ids without an owner are dropped first, and among these the oldest first.
//! - A hash leads only to ids that have it.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::files::{Learned, Maker, Place};
use super::ids::{AssetId, BackendId, ContentHash, FileRef};

/// The most makers that are remembered for one asset: the latest ones.
const MAKERS_MAX: usize = 8;

/// The pause before all backends are asked again for an unknown id or hash.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How many of these a shard remembers.
const ASKED_MAX: usize = 2_500;

/// What is known of one asset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asset {
    pub place: Place,
    /// The latest last; empty if nobody owns it.
    pub makers: SmallVec<[Maker; 1]>,
    /// The user of a server that tells users apart.
    pub user: Option<Arc<str>>,
    pub file: Option<FileRef>,
    pub hash: Option<ContentHash>,
    pub kind: Kind,
    /// Its place in the order in which all assets were learned.
    pub order: u64,
}

/// What an asset is to clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Original,
    /// Mooring copied its file to where a prompt needed it: no client asked for it.
    Copy,
}

/// What a backend said about the content of an asset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bytes {
    /// The asset has this hash, or the backend knows no hash.
    Are(Option<ContentHash>),
    /// It was written just now, and the content may have changed.
    Written,
    /// The backend said nothing about the content.
    Untold,
}

/// An update of one asset.
#[derive(Clone, Debug)]
pub struct Told<'a> {
    pub id: AssetId,
    pub backend: BackendId,
    pub makers: &'a [Maker],
    pub user: Option<&'a str>,
    pub file: Option<FileRef>,
    pub bytes: Bytes,
    pub kind: Kind,
}

/// The known assets of one shard.
#[derive(Debug)]
pub struct Assets {
    known: HashMap<AssetId, (Asset, Instant)>,
    by_hash: HashMap<ContentHash, SmallVec<[AssetId; 1]>>,
    /// In the order of the last updates. An entry whose order differs from its asset's is outdated,
    /// and is skipped.
    owned: VecDeque<(AssetId, u64)>,
    nobodys: VecDeque<(AssetId, u64)>,
    next_order: u64,
    evicted: Vec<AssetId>,
    asked: Recent<AssetId>,
    asked_hashes: Recent<ContentHash>,
    capacity: usize,
    max_age: Duration,
}

/// What was asked for recently.
#[derive(Debug)]
struct Recent<T> {
    at: HashMap<T, Instant>,
    order: VecDeque<T>,
}

impl<T: Copy + Eq + Hash> Recent<T> {
    fn new() -> Self {
        Self { at: HashMap::new(), order: VecDeque::new() }
    }

    /// True if it was not asked for recently. Notes it as asked for.
    fn note(&mut self, what: T, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < ASK_AGAIN_AFTER;
        if self.at.get(&what).is_some_and(is_recent) {
            return false;
        }
        if self.at.insert(what, now).is_none() {
            self.order.push_back(what);
        }
        while ASKED_MAX < self.order.len() {
            if let Some(oldest) = self.order.pop_front() {
                self.at.remove(&oldest);
            }
        }
        true
    }
}

impl Assets {
    #[must_use]
    pub fn new(capacity: usize, max_age: Duration) -> Self {
        Self {
            known: HashMap::new(),
            by_hash: HashMap::new(),
            owned: VecDeque::new(),
            nobodys: VecDeque::new(),
            next_order: 0,
            evicted: Vec::new(),
            asked: Recent::new(),
            asked_hashes: Recent::new(),
            capacity,
            max_age,
        }
    }

    /// Learns of an asset. Fields that are not told stay unchanged.
    pub fn learn(&mut self, told: &Told<'_>, now: Instant) -> Learned {
        let place = Place::Backend(told.backend);
        let before = self.known.get(&told.id).map(|(asset, _)| asset.clone());
        let mut asset = before.clone().unwrap_or_else(|| Asset {
            place: place.clone(),
            makers: SmallVec::new(),
            user: None,
            file: None,
            hash: None,
            kind: told.kind,
            order: 0,
        });
        asset.place = place;
        add_makers(&mut asset.makers, told.makers);
        asset.user = told.user.map(Arc::from).or(asset.user);
        asset.file = told.file.clone().or(asset.file);
        asset.hash = match told.bytes {
            Bytes::Are(hash) => hash,
            Bytes::Written => None,
            Bytes::Untold => asset.hash,
        };
        if before.as_ref() == Some(&asset) {
            return Learned::Known;
        }
        self.enter(told.id, asset, now);
        self.evict(now);
        Learned::New
    }

    /// Restores an asset from before a restart. Assets must be restored in their order.
    pub fn restore(&mut self, id: AssetId, asset: Asset, learned: Instant, now: Instant) {
        self.next_order = self.next_order.max(asset.order);
        self.enter(id, asset, learned);
        self.evict(now);
    }

    #[must_use]
    pub fn get(&self, id: AssetId) -> Option<&Asset> {
        self.known.get(&id).map(|(asset, _)| asset)
    }

    /// The assets with this content, the latest first.
    pub fn of_hash(&self, hash: ContentHash) -> impl Iterator<Item = &Asset> {
        let ids = self.by_hash.get(&hash).map_or(&[][..], |ids| ids.as_slice());
        ids.iter().rev().filter_map(|id| self.get(*id))
    }

    /// True if all backends may be asked for an unknown id. Notes that they were asked.
    pub fn may_ask(&mut self, id: AssetId, now: Instant) -> bool {
        self.asked.note(id, now)
    }

    /// The same for a hash.
    pub fn may_ask_hash(&mut self, hash: ContentHash, now: Instant) -> bool {
        self.asked_hashes.note(hash, now)
    }

    /// The ids with makers that were forgotten since the last call.
    pub fn take_evicted(&mut self) -> Vec<AssetId> {
        std::mem::take(&mut self.evicted)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn enter(&mut self, id: AssetId, mut asset: Asset, learned: Instant) {
        asset.order = self.next_order;
        self.next_order += 1;
        self.forget_hash(id);
        if let Some(hash) = asset.hash {
            self.by_hash.entry(hash).or_default().push(id);
        }
        let order = if asset.is_owned() { &mut self.owned } else { &mut self.nobodys };
        order.push_back((id, asset.order));
        self.known.insert(id, (asset, learned));
        // Cleans the queues up, because repeated updates of one asset must not fill them.
        if 2 * self.known.len() + 64 < self.owned.len() + self.nobodys.len() {
            let known = &self.known;
            let is_current = |(id, order): &(AssetId, u64)| {
                known.get(id).is_some_and(|(asset, _)| asset.order == *order)
            };
            self.owned.retain(is_current);
            self.nobodys.retain(is_current);
        }
    }

    fn evict(&mut self, now: Instant) {
        while self.capacity < self.known.len() {
            let oldest = self.nobodys.pop_front().or_else(|| self.owned.pop_front());
            let Some(oldest) = oldest else { return };
            self.remove(oldest);
        }
        for queue in [Kept::Nobodys, Kept::Owned] {
            while let Some(oldest) = self.expired(queue, now) {
                self.remove(oldest);
            }
        }
    }

    /// Removes the oldest entry of a queue, if it has expired or is outdated.
    fn expired(&mut self, queue: Kept, now: Instant) -> Option<(AssetId, u64)> {
        let queue = match queue {
            Kept::Nobodys => &mut self.nobodys,
            Kept::Owned => &mut self.owned,
        };
        let (id, order) = queue.front()?;
        let is_kept = self.known.get(id).is_some_and(|(asset, learned)| {
            let age = now.saturating_duration_since(*learned);
            asset.order == *order && age < self.max_age
        });
        if is_kept { None } else { queue.pop_front() }
    }

    fn remove(&mut self, (id, order): (AssetId, u64)) {
        if self.get(id).is_none_or(|asset| asset.order != order) {
            return;
        }
        self.forget_hash(id);
        if let Some((asset, _)) = self.known.remove(&id)
            && asset.is_owned()
        {
            self.evicted.push(id);
        }
    }

    fn forget_hash(&mut self, id: AssetId) {
        let Some(hash) = self.get(id).and_then(|asset| asset.hash) else { return };
        if let Some(ids) = self.by_hash.get_mut(&hash) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.by_hash.remove(&hash);
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Kept {
    Nobodys,
    Owned,
}

impl Asset {
    /// True if it has an owner or is a copy. These must not be forgotten, because no backend knows
    /// this.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        !self.makers.is_empty() || self.user.is_some() || self.kind == Kind::Copy
    }
}

/// Who owns an item, as seen by one viewer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whose {
    Own,
    Nobodys,
    Anothers,
}

/// Who owns an item with these makers, as seen by `askers`.
#[must_use]
pub fn whose(makers: &[Maker], askers: &[Maker]) -> Whose {
    if makers.is_empty() {
        Whose::Nobodys
    } else if makers.iter().any(|maker| askers.contains(maker)) {
        Whose::Own
    } else {
        Whose::Anothers
    }
}

fn add_makers(known: &mut SmallVec<[Maker; 1]>, makers: &[Maker]) {
    for maker in makers {
        if known.contains(maker) {
            continue;
        }
        if known.len() == MAKERS_MAX {
            known.remove(0);
        }
        known.push(maker.clone());
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{prop_assert, proptest};

    use super::super::ids::ClientId;
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn id(number: u32) -> AssetId {
        AssetId::parse(&format!("0f8fad5b-d9cb-469f-a165-{number:012}")).unwrap()
    }

    fn hash(digit: char) -> ContentHash {
        ContentHash::parse(&format!("blake3:{}", digit.to_string().repeat(64))).unwrap()
    }

    fn ada() -> [Maker; 1] {
        [Maker::Client(ClientId::parse("ada").unwrap())]
    }

    fn told(number: u32, makers: &[Maker]) -> Told<'_> {
        let (bytes, kind) = (Bytes::Untold, Kind::Original);
        let backend = BackendId::nth(0);
        Told { id: id(number), backend, makers, user: None, file: None, bytes, kind }
    }

    #[test]
    fn what_is_not_told_stays_and_bytes_that_were_written_are_not_known() {
        let (mut assets, now, ada) = (Assets::new(9, DAY), crate::net::now(), ada());
        let with = |bytes| Told { bytes, ..told(1, &[]) };
        assert_eq!(assets.learn(&told(1, &ada), now), Learned::New);
        assert_eq!(assets.learn(&with(Bytes::Are(Some(hash('a')))), now), Learned::New);
        assert_eq!(assets.learn(&with(Bytes::Untold), now), Learned::Known);
        assert_eq!(assets.get(id(1)).unwrap().makers.as_slice(), ada);
        assert_eq!(assets.of_hash(hash('a')).count(), 1);
        assets.learn(&with(Bytes::Are(Some(hash('b')))), now);
        assert_eq!((assets.of_hash(hash('a')).count(), assets.of_hash(hash('b')).count()), (0, 1));
        assets.learn(&with(Bytes::Written), now);
        assert_eq!((assets.of_hash(hash('b')).count(), assets.by_hash.len()), (0, 0));
    }

    #[test]
    fn nobodys_go_first_and_then_the_oldest() {
        let (mut assets, now, ada) = (Assets::new(2, DAY), crate::net::now(), ada());
        assets.learn(&told(1, &ada), now);
        assets.learn(&told(2, &[]), now);
        assets.learn(&told(3, &ada), now);
        assert!(assets.get(id(2)).is_none() && assets.take_evicted().is_empty());
        assets.learn(&told(4, &ada), now);
        assert_eq!(assets.take_evicted(), [id(1)]);
        assets.learn(&told(5, &ada), now + DAY);
        assert_eq!((assets.len(), assets.take_evicted().len()), (1, 2));
    }

    #[test]
    fn who_made_it_says_whose_it_is() {
        let bob = [Maker::Client(ClientId::parse("bob").unwrap())];
        assert_eq!(whose(&[], &ada()), Whose::Nobodys);
        assert_eq!(whose(&ada(), &ada()), Whose::Own);
        assert_eq!(whose(&bob, &ada()), Whose::Anothers);
        assert_eq!(whose(&bob, &[]), Whose::Anothers);
    }

    #[test]
    fn an_id_that_nobody_knows_is_asked_for_once_in_five_seconds() {
        let (mut assets, now) = (Assets::new(2, DAY), crate::net::now());
        assert!(assets.may_ask(id(1), now) && !assets.may_ask(id(1), now));
        assert!(assets.may_ask_hash(hash('a'), now) && !assets.may_ask_hash(hash('a'), now));
        assert!(assets.may_ask(id(1), now + ASK_AGAIN_AFTER));
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(story in vec((0..9_u32, 0..3_u8, 0..40_u64), 0..200)) {
            let (mut assets, mut now, ada) = (Assets::new(4, DAY), crate::net::now(), ada());
            for (number, what, hours) in story {
                now += Duration::from_secs(hours * 3_600);
                let makers = if what == 0 { &ada[..] } else { &[] };
                let digit = char::from(b'a' + what);
                let bytes = Bytes::Are(Some(hash(digit)));
                assets.learn(&Told { bytes, ..told(number, makers) }, now);
                prop_assert!(assets.len() <= 4);
                let hashed: usize = assets.by_hash.values().map(SmallVec::len).sum();
                prop_assert!(hashed == assets.len());
                prop_assert!(assets.owned.len() + assets.nobodys.len() <= 2 * assets.len() + 65);
            }
        }
    }
}
