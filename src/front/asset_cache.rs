//! Caches the page's files that have a hash in their name: uncompressed, and in each coding that
//! was requested. The total size in bytes is limited; the least recently used go first.
//!
//! # Invariants
//!
//! - The key of a file contains its path *and* the version of the frontend on the server that sent
//!   it, so that two versions are never mixed.
//! - The key also contains the page of the home. A fetch that began before the page changed is not
//!   used after it, because the files may have been corrected with the page.
//! - If several callers ask for a file or a coding at the same time, one of them fetches or encodes
//!   it for all. If that one leaves, the next one begins again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use http::header::{CONTENT_ENCODING, ETAG, HeaderMap, HeaderName};
use tokio::sync::watch;

use super::accept_encoding::Coding;
use super::conditional::Whole;
use crate::cache::Cache;
use crate::lock::{Guard, Lock, rank};

/// The largest file that is kept, in bytes. The limit is lower if the whole cache is small.
const FILE_MAX: usize = 16 << 20;

/// How many names are remembered that no backend had. When it is full, other names are not looked
/// up.
const MISSES_MAX: usize = 1024;

/// How many codings of the home's page are distinguished. A server has two or three.
const PAGE_CODINGS_MAX: usize = 8;

/// How long a name that no backend had is not looked up again.
const MISS: Duration = Duration::from_secs(60);

/// A file in one version and one form.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AssetKey {
    path: Arc<str>,
    version: Arc<str>,
    /// The number of the home's page at the time of the request.
    page: u64,
    /// `None` means uncompressed.
    coding: Option<Coding>,
}

impl AssetKey {
    /// The key of the same file in a coding.
    #[must_use]
    pub fn coded(&self, coding: Coding) -> Self {
        Self { coding: Some(coding), ..self.clone() }
    }

    /// The key of the same file on servers with this version of the frontend.
    #[must_use]
    pub fn of_version(&self, version: &Arc<str>) -> Self {
        Self { version: Arc::clone(version), ..self.clone() }
    }
}

/// The cache of all files.
#[derive(Debug)]
pub struct AssetCache {
    file_max: AtomicUsize,
    table: Lock<Table, { rank::ASSET_CACHE }>,
}

#[derive(Debug)]
struct Table {
    files: Cache<AssetKey, Kept>,
    /// Files that are being fetched or encoded.
    underway: HashMap<AssetKey, watch::Receiver<Outcome>>,
    misses: HashMap<Box<str>, Instant>,
    /// Counts the pages of the home.
    page: u64,
    /// The tag of the page in each coding in which the home sends it. A server has one tag for each
    /// coding (RFC 9110 section 8.8.3.3), and the clients choose the coding.
    page_tags: Vec<(Option<HeaderValue>, HeaderValue)>,
}

impl Table {
    /// True if one more missing name can be remembered.
    fn has_room(&mut self, now: Instant) -> bool {
        if MISSES_MAX <= self.misses.len() {
            self.misses.retain(|_, at| now.duration_since(*at) < MISS);
        }
        self.misses.len() < MISSES_MAX
    }
}

#[derive(Clone, Debug)]
struct Kept {
    whole: Whole,
    since: Instant,
}

/// The result of fetching or encoding a file.
#[derive(Clone, Debug)]
pub enum Outcome {
    Underway,
    /// It came from a server of this key's version, which may differ from the requested one.
    Made(AssetKey, Whole),
    /// It cannot be kept, or does not exist.
    Nothing,
}

/// The result of a lookup.
#[derive(Debug)]
pub enum Look {
    Kept(Whole),
    /// The file is not in the cache, and the caller must fetch or encode it.
    Mine(Making),
    /// Another caller is working on it.
    Others(watch::Receiver<Outcome>),
}

/// A file of any version.
#[derive(Debug)]
pub struct AnyVersion {
    pub whole: Whole,
    pub key: AssetKey,
    /// The version of the frontend on the server that sent it.
    pub version: Arc<str>,
    pub since: Instant,
    /// True if it is not older than the home's page.
    pub is_fresh: bool,
}

impl AssetCache {
    /// A cache with room for `bytes` in total. With 0 it keeps nothing.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        let table = Table {
            files: Cache::new(bytes),
            underway: HashMap::new(),
            misses: HashMap::new(),
            page: 0,
            page_tags: Vec::new(),
        };
        let file_max = AtomicUsize::new(FILE_MAX.min(bytes / 4));
        Arc::new(Self { file_max, table: Lock::new(table) })
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        0 < self.file_max()
    }

    /// The largest file that is kept, in bytes.
    #[must_use]
    pub fn file_max(&self) -> usize {
        self.file_max.load(Ordering::Relaxed)
    }

    /// Sets another limit in bytes. If the cache is too large, the least recently used files go.
    pub fn limit(&self, bytes: usize) {
        self.file_max.store(FILE_MAX.min(bytes / 4), Ordering::Relaxed);
        self.table().files.limit(bytes);
    }

    /// The size of all files in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.table().files.weight()
    }

    /// The key of an uncompressed file on servers with this version of the frontend.
    #[must_use]
    pub fn key(&self, path: &Arc<str>, version: &Arc<str>) -> AssetKey {
        let page = self.table().page;
        AssetKey { path: Arc::clone(path), version: Arc::clone(version), page, coding: None }
    }

    /// The file, if it is kept.
    #[must_use]
    pub fn get(&self, key: &AssetKey) -> Option<Whole> {
        self.table().files.get(key).map(|kept| kept.whole)
    }

    /// The file, or who is working on it.
    #[must_use]
    pub fn look(self: &Arc<Self>, key: &AssetKey) -> Look {
        let mut table = self.table();
        if let Some(kept) = table.files.get(key) {
            return Look::Kept(kept.whole);
        }
        if let Some(underway) = table.underway.get(key) {
            return Look::Others(underway.clone());
        }
        let (told, outcome) = watch::channel(Outcome::Underway);
        table.underway.insert(key.clone(), outcome);
        Look::Mine(Making { cache: Arc::clone(self), key: key.clone(), told })
    }

    /// The newest uncompressed file of this path, of any version and age.
    #[must_use]
    pub fn of_any_version(&self, path: &str) -> Option<AnyVersion> {
        let table = self.table();
        let of_path = table.files.iter().filter(|(key, _)| &*key.path == path);
        let (key, kept) =
            of_path.filter(|(key, _)| key.coding.is_none()).max_by_key(|(_, kept)| kept.since)?;
        Some(AnyVersion {
            whole: kept.whole.clone(),
            key: key.clone(),
            version: Arc::clone(&key.version),
            since: kept.since,
            is_fresh: key.page == table.page,
        })
    }

    /// Notes that the home sent its page with these headers. It is a new page if it has another tag
    /// in the same coding.
    pub fn saw_page(&self, headers: &HeaderMap) {
        let Some(tag) = headers.get(ETAG) else { return };
        let coding = headers.get(CONTENT_ENCODING);
        let mut table = self.table();
        match table.page_tags.iter().position(|(of, _)| of.as_ref() == coding) {
            Some(at) if table.page_tags[at].1 == *tag => {}
            Some(at) => {
                table.page_tags[at].1 = tag.clone();
                table.page += 1;
            }
            None if table.page_tags.len() < PAGE_CODINGS_MAX => {
                table.page_tags.push((coding.cloned(), tag.clone()));
            }
            None => {}
        }
    }

    /// True if other backends may be asked for a file that the home does not have.
    #[must_use]
    pub fn may_look(&self, path: &str, now: Instant) -> bool {
        let mut table = self.table();
        let is_recent = |at: &Instant| now.duration_since(*at) < MISS;
        table.has_room(now) && !table.misses.get(path).is_some_and(is_recent)
    }

    /// Notes that no backend has the file.
    pub fn missed(&self, path: &str, now: Instant) {
        let mut table = self.table();
        // Many lookups may have been running at the same time, so the limit is checked here too.
        if table.has_room(now) || table.misses.contains_key(path) {
            table.misses.insert(path.into(), now);
        }
    }

    fn table(&self) -> Guard<'_, Table, { rank::ASSET_CACHE }> {
        self.table.lock()
    }
}

/// Fetches or encodes a file for all who ask for it in the meantime. If it is dropped without a
/// result, another caller takes over.
#[derive(Debug)]
pub struct Making {
    cache: Arc<AssetCache>,
    key: AssetKey,
    told: watch::Sender<Outcome>,
}

impl Making {
    /// Receives the result.
    #[must_use]
    pub fn outcome(&self) -> watch::Receiver<Outcome> {
        self.told.subscribe()
    }

    /// Stores the result. A file that came from another version than expected is stored under its
    /// own key.
    pub fn made(self, key: &AssetKey, whole: Whole, now: Instant) {
        let bytes = size(&whole) + key.path.len();
        let kept = Kept { whole: whole.clone(), since: now };
        self.cache.table().files.insert(key, kept, bytes);
        self.told.send_replace(Outcome::Made(key.clone(), whole));
    }

    /// Reports that there is no result for others.
    pub fn nothing(self) {
        self.told.send_replace(Outcome::Nothing);
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.cache.table().underway.remove(&self.key);
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

    fn key(path: &str, version: &str) -> AssetKey {
        AssetKey { path: path.into(), version: version.into(), page: 0, coding: None }
    }

    fn whole(len: usize) -> Whole {
        Whole { headers: HeaderMap::new(), body: Bytes::from(vec![b'x'; len]) }
    }

    fn put(cache: &Arc<AssetCache>, key: &AssetKey, len: usize) {
        let Look::Mine(making) = cache.look(key) else { panic!("kept, or underway") };
        making.made(key, whole(len), crate::net::now());
    }

    #[test]
    fn two_versions_of_a_file_never_mix() {
        let cache = AssetCache::new(100_000);
        put(&cache, &key("/a", "1"), 1);
        assert_eq!(cache.get(&key("/a", "1")).unwrap().body.len(), 1);
        assert!(cache.get(&key("/a", "2")).is_none());
        assert!(cache.get(&key("/a", "1").coded(Coding::Gzip)).is_none());
        let Look::Mine(making) = cache.look(&key("/a", "2")) else { panic!("kept") };
        making.made(&key("/a", "3"), whole(3), crate::net::now());
        assert!(cache.get(&key("/a", "2")).is_none(), "it came from another server");
        assert_eq!(cache.get(&key("/a", "3")).unwrap().body.len(), 3);
        let newest = cache.of_any_version("/a").unwrap();
        assert_eq!((&*newest.version, newest.is_fresh), ("3", true));
    }

    #[test]
    fn all_forms_together_stay_below_the_bound_and_the_longest_unused_goes_first() {
        let cache = AssetCache::new(4_000);
        let (a, b) = (key("/a", "1"), key("/b", "1"));
        put(&cache, &a, 1_000);
        put(&cache, &a.coded(Coding::Gzip), 900);
        put(&cache, &b, 900);
        assert!(cache.get(&a.coded(Coding::Gzip)).is_some());
        put(&cache, &b.coded(Coding::Gzip), 900);
        assert!(cache.weight() <= 4_000);
        assert!(cache.get(&a).is_none(), "nobody has asked for it since");
        assert!(cache.get(&b).is_some());
        cache.limit(1_300);
        assert!(cache.weight() <= 1_300 && cache.get(&b).is_some());
        assert!(cache.is_on() && cache.file_max() == 325);
        cache.limit(0);
        assert!(!cache.is_on() && cache.weight() == 0);
    }

    #[test]
    fn what_was_begun_before_another_page_is_not_good_after_it() {
        let cache = AssetCache::new(100_000);
        let page = |tag: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ETAG, HeaderValue::from_static(tag));
            headers
        };
        let key = |path: &str| cache.key(&path.into(), &"1".into());
        cache.saw_page(&page("\"1\""));
        put(&cache, &key("/a"), 1);
        let Look::Mine(begun) = cache.look(&key("/b")) else { panic!("kept") };
        let of_before = key("/b");
        cache.saw_page(&page("\"1\""));
        assert!(cache.get(&key("/a")).is_some());
        cache.saw_page(&page("\"2\""));
        begun.made(&of_before, whole(1), crate::net::now());
        assert!(cache.get(&key("/a")).is_none() && cache.get(&key("/b")).is_none());
        assert!(!cache.of_any_version("/a").unwrap().is_fresh, "there for a tab of before");
    }

    #[test]
    fn one_makes_it_for_all_who_ask_meanwhile() {
        let cache = AssetCache::new(100_000);
        let a = key("/a", "1");
        let Look::Mine(first) = cache.look(&a) else { panic!("kept") };
        let Look::Others(waiting) = cache.look(&a) else { panic!("not underway") };
        drop(first);
        assert!(waiting.has_changed().is_err(), "it was left to another");
        let Look::Mine(second) = cache.look(&a) else { panic!("still underway") };
        let Look::Others(waiting) = cache.look(&a) else { panic!("not underway") };
        second.made(&a, whole(7), crate::net::now());
        assert!(matches!(&*waiting.borrow(), Outcome::Made(_, whole) if whole.body.len() == 7));
        assert!(matches!(cache.look(&a), Look::Kept(_)));
        let Look::Mine(third) = cache.look(&key("/b", "1")) else { panic!("kept") };
        let outcome = third.outcome();
        third.nothing();
        assert!(matches!(&*outcome.borrow(), Outcome::Nothing));
    }

    #[test]
    fn who_waits_is_told_under_which_key_it_is_kept() {
        let cache = AssetCache::new(100_000);
        let Look::Mine(making) = cache.look(&key("/a", "1")) else { panic!("kept") };
        let Look::Others(waiting) = cache.look(&key("/a", "1")) else { panic!("not underway") };
        making.made(&key("/a", "2"), whole(7), crate::net::now());
        assert!(matches!(&*waiting.borrow(), Outcome::Made(of, _) if *of == key("/a", "2")));
    }

    #[test]
    fn the_same_page_in_another_coding_is_no_other_page() {
        let cache = AssetCache::new(100_000);
        let saw = |tag: &'static str, coding: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(ETAG, HeaderValue::from_static(tag));
            if let Some(coding) = coding {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
            cache.saw_page(&headers);
            cache.key(&"/a".into(), &"1".into()).page
        };
        for _ in 0..3 {
            assert_eq!((saw("\"1\"", None), saw("\"1g\"", Some("gzip"))), (0, 0));
        }
        cache.saw_page(&HeaderMap::new());
        assert_eq!((saw("\"2\"", None), saw("\"2g\"", Some("gzip"))), (1, 2));
        assert_eq!(saw("\"2\"", None), 2);
    }

    /// Lookups at the same time exceed the limit together.
    #[test]
    fn many_names_that_nobody_has_keep_no_other_from_being_looked_for_for_ever() {
        let (cache, t) = (AssetCache::new(0), crate::net::now());
        for index in 0..MISSES_MAX + 5 {
            cache.missed(&index.to_string(), t);
        }
        assert_eq!(cache.table().misses.len(), MISSES_MAX);
        assert!(!cache.may_look("/assets/x-12345678.js", t), "bounded");
        assert!(cache.may_look("/assets/x-12345678.js", t + MISS));
    }

    #[test]
    fn a_name_that_nobody_has_is_not_looked_for_again_at_once() {
        let (cache, t) = (AssetCache::new(0), crate::net::now());
        assert!(cache.may_look("/assets/x-12345678.js", t));
        cache.missed("/assets/x-12345678.js", t);
        assert!(!cache.may_look("/assets/x-12345678.js", t));
        for index in 1..MISSES_MAX {
            cache.missed(&index.to_string(), t);
        }
        assert!(!cache.may_look("/assets/y-12345678.js", t), "bounded");
        assert!(cache.may_look("/assets/x-12345678.js", t + MISS));
    }
}
