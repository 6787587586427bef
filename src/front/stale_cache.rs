//! The last good copies of what the home backend sent (promise R9).
//!
//! The copies are used only while the home is down. While it is up, it answers every request
//! itself. The total size is limited, including bodies that are being copied; the least recently
//! used copy goes first. Files with a hash in their name are cached by [`super::asset_cache`].
//!
//! # Invariants
//!
//! - A copy is a complete answer with status 200, never a part, an error, or an answer with a
//!   cookie. For a 404 only the fact is stored: ComfyUI's page takes a 404 for an empty folder, and
//!   any other error for fatal.
//! - A copy that is personal to one caller is not served to another: see [`CacheKey::own`].
//! - Data from before a write that may have been done is neither kept nor used: see
//!   [`super::writes`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::{ETAG, HeaderMap, HeaderName};

pub use super::cache_key::CacheKey;
use super::cache_key::{ALL_FILES, Group};
use super::conditional::Whole;
use super::writes::{Outcome, Writes};
use crate::lock::{Guard, Lock, rank};

/// The largest body that is kept, in bytes. The limit is lower if the whole cache is small.
const BODY_MAX: usize = 16 << 20;

/// The approximate size of an entry without its texts and its body.
const ENTRY_BYTES: usize = 256;

/// The last data of the home backend.
#[derive(Clone, Debug)]
pub enum Found {
    Whole(Whole),
    Nothing,
}

/// The result when the home confirms a caller's own copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Revalidated {
    /// The caller's copy is the same as ours.
    Same,
    /// The caller's copy is another one, so ours is not good.
    Another,
    /// Unknown: we have no copy, or the answer does not say which one is good.
    Unsaid,
}

/// The cache of all copies.
#[derive(Debug)]
pub struct StaleCache {
    body_max: AtomicUsize,
    writes: Arc<Writes>,
    table: Lock<Table, { rank::STALE_CACHE }>,
}

#[derive(Debug, Default)]
struct Table {
    bytes_max: usize,
    bytes: usize,
    /// The size of the bodies that are being copied.
    copying: usize,
    /// Counts uses.
    turn: u64,
    entries: HashMap<Arc<CacheKey>, Entry>,
    /// The keys of `entries`, by their last use.
    by_use: BTreeMap<u64, Arc<CacheKey>>,
    /// The keys of user data, by their group.
    by_group: BTreeMap<Group, HashSet<Arc<CacheKey>>>,
}

#[derive(Debug)]
struct Entry {
    kept: Kept,
    bytes: usize,
    turn: u64,
}

#[derive(Debug)]
enum Kept {
    Copy {
        whole: Whole,
        since: Instant,
    },
    /// The home backend has nothing at this path.
    Missing {
        since: Instant,
    },
    /// The answer cannot be kept, so it need not be requested completely.
    Nothing,
}

impl StaleCache {
    /// A cache with room for `bytes` in total. With 0 it keeps nothing.
    #[must_use]
    pub fn new(bytes: usize, writes: Arc<Writes>) -> Self {
        let table = Table { bytes_max: bytes, ..Table::default() };
        let body_max = AtomicUsize::new(BODY_MAX.min(bytes / 4));
        Self { body_max, writes, table: Lock::new(table) }
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        0 < self.body_max()
    }

    /// The largest body that is kept, in bytes.
    #[must_use]
    pub fn body_max(&self) -> usize {
        self.body_max.load(Ordering::Relaxed)
    }

    /// Sets another limit in bytes. If the cache is too large, the least recently used copies go.
    pub fn limit(&self, bytes: usize) {
        self.body_max.store(BODY_MAX.min(bytes / 4), Ordering::Relaxed);
        let mut table = self.table();
        table.bytes_max = bytes;
        let room = bytes.saturating_sub(table.copying);
        table.shrink_to(room);
    }

    /// Reserves bytes for a body that is being copied, if necessary by dropping the least recently
    /// used copies. They are reserved until [`StaleCache::give_back`].
    #[must_use]
    pub fn take_room(&self, bytes: usize) -> bool {
        let mut table = self.table();
        let has_room = table.make_room(bytes);
        table.copying += if has_room { bytes } else { 0 };
        has_room
    }

    pub fn give_back(&self, bytes: usize) {
        self.table().copying -= bytes;
    }

    /// True if there is a copy, or there cannot be one.
    #[must_use]
    pub fn knows(&self, key: &CacheKey) -> bool {
        self.table().entries.contains_key(key)
    }

    /// The copy, and how long ago the home backend sent or confirmed it.
    #[must_use]
    pub fn get(&self, key: &CacheKey, now: Instant) -> Option<(Found, Duration)> {
        let mut table = self.table();
        if self.writes.is_on_its_way(key) {
            return None;
        }
        table.used(key);
        let (found, since) = match &table.entries.get(key)?.kept {
            Kept::Copy { whole, since } => (Found::Whole(whole.clone()), since),
            Kept::Missing { since } => (Found::Nothing, since),
            Kept::Nothing => return None,
        };
        Some((found, now.duration_since(*since)))
    }

    /// Stores an answer in place of an older one. `writes` is the number of writes at the time of
    /// the request.
    pub fn put(&self, key: CacheKey, whole: Whole, since: Instant, writes: u64) {
        self.keep(key, Kept::Copy { whole, since }, writes);
    }

    /// Stores that the home backend has nothing there.
    pub fn missing(&self, key: CacheKey, since: Instant, writes: u64) {
        self.keep(key, Kept::Missing { since }, writes);
    }

    /// Stores that there can be no copy.
    pub fn refuse(&self, key: CacheKey) {
        self.table().put(key, Kept::Nothing);
    }

    fn keep(&self, key: CacheKey, kept: Kept, writes: u64) {
        let mut table = self.table();
        // Checked under this lock, so that a write which ends a moment later finds this copy and
        // ends it too.
        if !self.writes.may_be_old(&key, writes) {
            table.put(key, kept);
        }
    }

    /// The home backend sent these validators now. If they are those of the copy, it counts as new.
    pub fn confirm(&self, key: &CacheKey, headers: &HeaderMap, now: Instant) -> bool {
        let mut table = self.table();
        table.used(key);
        match table.entries.get_mut(key).map(|entry| &mut entry.kept) {
            Some(Kept::Copy { whole, since }) if is_same(&whole.headers, headers) => {
                *since = now;
                true
            }
            Some(Kept::Copy { .. } | Kept::Missing { .. } | Kept::Nothing) | None => false,
        }
    }

    /// The home backend confirmed a caller's copy with these validators. If ours has others, ours
    /// is not good any more.
    pub fn revalidated(&self, key: &CacheKey, headers: &HeaderMap, now: Instant) -> Revalidated {
        if self.confirm(key, headers, now) {
            return Revalidated::Same;
        }
        let mut table = self.table();
        let has_copy =
            table.entries.get(key).is_some_and(|it| matches!(it.kept, Kept::Copy { .. }));
        if has_copy && headers.contains_key(ETAG) {
            table.remove(key);
            return Revalidated::Another;
        }
        Revalidated::Unsaid
    }

    /// The copy turned out to differ from what the home backend has.
    pub fn forget(&self, key: &CacheKey) {
        let mut table = self.table();
        let says_something = |entry: &Entry| !matches!(entry.kept, Kept::Nothing);
        if table.entries.get(key).is_some_and(says_something) {
            table.remove(key);
        }
    }

    /// A write is over. If it may have been done, all callers' copies of what it changes are ended.
    /// Returns the copies of the writer.
    pub fn written(&self, write: &CacheKey, outcome: Outcome) -> Vec<CacheKey> {
        let groups = write.changes();
        // This is one step, so that nobody can use a copy after the write is over and before the
        // copy has ended.
        let mut table = self.table();
        self.writes.end(&groups, outcome);
        match outcome {
            Outcome::NotDone => return Vec::new(),
            Outcome::MayBeDone => {}
        }
        let stale: Vec<Arc<CacheKey>> = groups.iter().flat_map(|group| table.of(group)).collect();
        for key in &stale {
            table.remove(key);
        }
        stale.iter().filter(|key| key.is_of_asker(write)).map(|key| CacheKey::clone(key)).collect()
    }

    /// The home is another backend now, which does not have what users saved on the previous one.
    pub fn forget_user_data(&self) {
        let mut table = self.table();
        self.writes.forget_all();
        let all: Vec<Arc<CacheKey>> = table.by_group.values().flatten().cloned().collect();
        for key in all {
            table.remove(&key);
        }
    }

    fn table(&self) -> Guard<'_, Table, { rank::STALE_CACHE }> {
        self.table.lock()
    }
}

/// Only strong validators count: equal weak ones do not mean equal bytes.
fn is_same(kept: &HeaderMap, given: &HeaderMap) -> bool {
    let tag = kept.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    tag.is_some() && tag == given.get(ETAG)
}

impl Table {
    fn put(&mut self, key: CacheKey, kept: Kept) {
        let bytes = ENTRY_BYTES
            + key.bytes()
            + match &kept {
                Kept::Copy { whole, .. } => size(whole),
                Kept::Missing { .. } | Kept::Nothing => 0,
            };
        self.remove(&key);
        if !self.make_room(bytes) {
            return;
        }
        let key = Arc::new(key);
        self.turn += 1;
        self.bytes += bytes;
        if key.is_user_data() {
            self.by_group.entry(key.group()).or_default().insert(Arc::clone(&key));
        }
        self.by_use.insert(self.turn, Arc::clone(&key));
        let turn = self.turn;
        self.entries.insert(key, Entry { kept, bytes, turn });
        debug_assert_eq!(self.entries.len(), self.by_use.len(), "one use for each entry");
    }

    /// Drops the least recently used copies until this many bytes are free, if that is possible.
    fn make_room(&mut self, bytes: usize) -> bool {
        if self.bytes_max < self.copying + bytes {
            return false;
        }
        self.shrink_to(self.bytes_max - self.copying - bytes);
        true
    }

    /// Drops the least recently used copies until the rest has at most this many bytes.
    fn shrink_to(&mut self, bytes: usize) {
        while bytes < self.bytes {
            let Some((_, oldest)) = self.by_use.first_key_value() else { break };
            let oldest = Arc::clone(oldest);
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &CacheKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.by_use.remove(&entry.turn);
        self.bytes -= entry.bytes;
        if !key.is_user_data() {
            return;
        }
        let group = key.group();
        let Some(all) = self.by_group.get_mut(&group) else { return };
        all.remove(key);
        if all.is_empty() {
            self.by_group.remove(&group);
        }
    }

    /// The keys that a write to this group changes.
    fn of(&self, group: &Group) -> Vec<Arc<CacheKey>> {
        if **group != *ALL_FILES {
            return self.by_group.get(group).into_iter().flatten().cloned().collect();
        }
        let files = self.by_group.range(group.clone()..);
        let files = files.take_while(|(it, _)| it.starts_with(ALL_FILES));
        files.flat_map(|(_, all)| all).cloned().collect()
    }

    fn used(&mut self, key: &CacheKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(key) = self.by_use.remove(&entry.turn) {
            self.turn += 1;
            entry.turn = self.turn;
            self.by_use.insert(self.turn, key);
        }
    }
}

fn size(whole: &Whole) -> usize {
    let header =
        |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 64;
    whole.body.len() + whole.headers.iter().map(header).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn cache(bytes: usize) -> StaleCache {
        StaleCache::new(bytes, Arc::default())
    }

    fn key(path: &str) -> CacheKey {
        CacheKey::asset(path)
    }

    fn whole(tag: &'static str, len: usize) -> Whole {
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, HeaderValue::from_static(tag));
        Whole { headers, body: Bytes::from(vec![b'x'; len]) }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_all_stays_below_the_bound() {
        let (copies, t) = (cache(30_000), crate::net::now());
        for path in ["/a", "/b", "/c"] {
            copies.put(key(path), whole("\"1\"", 9_000), t, 0);
        }
        assert!(copies.get(&key("/a"), t).is_some());
        copies.put(key("/d"), whole("\"1\"", 9_000), t, 0);
        let kept = ["/a", "/b", "/c", "/d"].map(|path| copies.get(&key(path), t).is_some());
        assert_eq!(kept, [true, false, true, true]);
        assert!(copies.table().bytes <= 30_000);
        copies.put(key("/a"), whole("\"2\"", 30_000), t, 0);
        assert!(copies.get(&key("/a"), t).is_none(), "too large, and the old one is not good");
        assert!(copies.take_room(20_000), "a body on its way counts as well");
        assert_eq!(copies.table().entries.len(), 1);
        assert!(!copies.take_room(10_001));
        copies.give_back(20_000);
        assert!(copies.take_room(30_000));
    }

    #[test]
    fn a_copy_is_as_old_as_its_last_confirmation() {
        let (copies, t) = (cache(40_000), crate::net::now());
        let later = t + Duration::from_secs(60);
        copies.put(key("/a"), whole("\"1\"", 1), t, 0);
        assert!(!copies.confirm(&key("/a"), &whole("\"2\"", 0).headers, later));
        assert_eq!(copies.get(&key("/a"), later).unwrap().1, Duration::from_secs(60));
        assert!(copies.confirm(&key("/a"), &whole("\"1\"", 0).headers, later));
        assert_eq!(copies.get(&key("/a"), later).unwrap().1, Duration::ZERO);
        let said = |tag| copies.revalidated(&key("/a"), &whole(tag, 0).headers, later);
        let unsaid = copies.revalidated(&key("/a"), &HeaderMap::new(), later);
        assert_eq!((unsaid, copies.knows(&key("/a"))), (Revalidated::Unsaid, true));
        assert_eq!((said("\"1\""), copies.knows(&key("/a"))), (Revalidated::Same, true));
        assert_eq!((said("\"2\""), copies.knows(&key("/a"))), (Revalidated::Another, false));
        assert_eq!(said("\"2\""), Revalidated::Unsaid, "there is none, to say something of");
        copies.put(key("/w"), whole("W/\"1\"", 1), t, 0);
        assert!(!copies.confirm(&key("/w"), &whole("W/\"1\"", 0).headers, later));
    }

    #[test]
    fn askers_do_not_share_copies_but_spellings_of_a_path_do() {
        let user = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            CacheKey::own("/api/settings", "", &headers)
        };
        let all = [
            user("comfy-user", "ada"),
            user("comfy-user", "bob"),
            user("authorization", "ada"),
            user("cookie", "login=1"),
            user("x-other", ""),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(one), "{one:?}");
        }
        let ours = user("cookie", "mooring=00; login=1");
        assert_eq!(ours, user("cookie", "login=1"), "the page cookie is no login");
        let nobody = CacheKey::own("/settings", "", &HeaderMap::new());
        assert_eq!(nobody, user("cookie", "mooring=00"));
        assert_eq!(nobody, user("comfy-user", ""), "what the page says without users");
        assert_eq!(user("x-other", "").path(), "/settings");
    }

    #[test]
    fn what_is_being_written_is_not_given_and_what_was_asked_before_is_not_kept() {
        let writes = Arc::new(Writes::default());
        let copies = StaleCache::new(40_000, Arc::clone(&writes));
        let (t, settings) = (crate::net::now(), CacheKey::own("/settings", "", &HeaderMap::new()));
        copies.put(settings.clone(), whole("\"1\"", 1), t, writes.number());
        for (outcome, is_good) in [(Outcome::NotDone, true), (Outcome::MayBeDone, false)] {
            let asked = writes.number();
            writes.begin(&settings.changes(), t);
            assert!(copies.get(&settings, t).is_none(), "the home may have it already");
            copies.put(settings.clone(), whole("\"2\"", 2), t, asked);
            copies.written(&settings, outcome);
            let found = copies.get(&settings, t).map(|(found, _)| match found {
                Found::Whole(whole) => whole.body.len(),
                Found::Nothing => 0,
            });
            assert_eq!(found, is_good.then_some(1), "{outcome:?}");
            copies.missing(settings.clone(), t, asked);
            assert_eq!(copies.knows(&settings), is_good, "asked before it was done");
        }
    }

    #[test]
    fn a_write_ends_everyones_copies_of_what_was_written() {
        let (copies, t) = (cache(40_000), crate::net::now());
        let named = |path: &str| CacheKey::own(path, "", &HeaderMap::new());
        let all = ["/userdata/a.json", "/userdata/b.json", "/userdata/c.json", "/settings"];
        for path in all {
            copies.put(named(path), whole("\"1\"", 1), t, 0);
        }
        let folder = CacheKey::own("/v2/userdata", "path=x", &HeaderMap::new());
        copies.missing(folder.clone(), t, 0);
        assert!(matches!(copies.get(&folder, t), Some((Found::Nothing, _))));
        let write = named("/api/%75serdata/a.json/move/b.json");
        copies.writes.begin(&write.changes(), t);
        let own = copies.written(&write, Outcome::MayBeDone);
        assert_eq!(own.len(), 4, "to be read anew: {own:?}");
        assert!(copies.get(&folder, t).is_none());
        let kept = all.map(|path| copies.get(&named(path), t).is_some());
        assert_eq!(kept, [false, false, false, true], "a folder may have been moved");
    }

    /// Sixteen are read again after a write, the first ones.
    #[test]
    fn a_list_is_read_anew_before_the_files_that_it_names() {
        let (copies, t) = (cache(400_000), crate::net::now());
        let named = |path: &str| CacheKey::own(path, "", &HeaderMap::new());
        for number in 0..17 {
            copies.put(named(&format!("/userdata/{number}.json")), whole("\"1\"", 1), t, 0);
        }
        let list = CacheKey::own("/userdata", "dir=workflows", &HeaderMap::new());
        copies.put(list.clone(), whole("\"1\"", 1), t, 0);
        let write = named("/userdata/old/move/new");
        copies.writes.begin(&write.changes(), t);
        let own = copies.written(&write, Outcome::MayBeDone);
        assert_eq!((own.len(), own.first()), (18, Some(&list)));
    }
}
