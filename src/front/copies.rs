//! Last good copies of settings and saved workflows on the disk, for a start while the home is away
//! (promise R9). The copies in memory ([`super::stale_cache`]) are used first; they are lost with
//! the process.
//!
//! If the disk is full or hangs, only copies are lost.
//!
//! - `name`: the names of the files
//! - `file`: the content of a file
//! - `doubts`: the copies that must not be used after a crash
//! - `table`: decides which copies exist and what to do next, with `entry` (one file), `files` (all
//!   files), `waiting` (copies to write) and `room` (files to delete); all pure
//! - `folder`: reads and writes the files; `lanes`: the tasks that do this work
//!
//! # Invariants
//!
//! - A copy is never used after a write through Mooring that the home may have accepted. Before the
//!   write is sent, a file notes that the copies it affects are in doubt. They are not used during
//!   the write. If it may have been done, they have ended, whether they can be deleted or not.
//! - No file and no file name contains a credential, the query, the user or the address of a
//!   request: names are digests under a key of this installation. Only a caller with the same user
//!   and the same credentials gets the copy.
//! - A damaged file is never used.
//! - Nobody can displace the copies of others: if there are too many, the oldest copy of the
//!   address with the most copies is deleted.

mod doubts;
mod entry;
mod file;
mod files;
mod folder;
mod lanes;
mod name;
mod room;
mod step;
mod table;
mod waiting;

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{error, warn};

use super::cache_key::{CacheKey, Group};
use super::conditional::Whole;
use super::cookie_signer::CookieSigner;
use super::writes::{Outcome, Writes};
use crate::net::unix_millis;
use crate::records::home::HomeServer;
use crate::tasks::Tasks;
use folder::Folder;
use lanes::Store;
use name::{Name, Owner};
use step::Marked;

/// How long a request waits for the disk.
const DISK_WITHIN: Duration = Duration::from_secs(1);

/// Query parameters of user data that do not contain credentials. With any other parameter no copy
/// is made.
const PARAMETERS: [&str; 5] = ["dir", "recurse", "split", "full_info", "path"];

/// The copies on the disk.
#[derive(Debug)]
pub struct Copies {
    signer: CookieSigner,
    writes: Arc<Writes>,
    /// `None` if there is no folder for them.
    store: Option<Arc<Store>>,
}

/// The home that gave an answer, and the address that asked for it.
#[derive(Clone, Debug)]
pub struct Source {
    pub home: HomeServer,
    pub asked_from: IpAddr,
    /// The number of writes at the time of the request.
    pub writes: u64,
}

/// The disk cannot store the note that is needed after a crash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotMarked;

impl Copies {
    /// Copies in a folder, up to this many bytes. Without a folder there are none.
    #[must_use]
    pub fn new(
        folder: Option<PathBuf>,
        signer: CookieSigner,
        writes: Arc<Writes>,
        limit: u64,
    ) -> Self {
        let folder = folder.map(|it| Folder::new(it, signer.clone()));
        Self { signer, writes, store: folder.map(|it| Store::new(it, limit)) }
    }

    /// Marks all copies in that folder as doubtful, because this process does not maintain them:
    /// later writes do not end them, so the next process must not use them.
    pub fn doubt_all(folder: &Path, signer: &CookieSigner) {
        if let Err(error) = Folder::new(folder.to_owned(), signer.clone()).doubt_all() {
            warn!(
                path = %folder.display(), %error,
                "The copies here are not kept up, and that cannot be noted: delete the folder."
            );
        }
    }

    /// Starts the tasks that work on the disk. They end with `writers`, when everything is done,
    /// because the writes of the last requests must be noted.
    pub fn start(&self, writers: &Tasks) {
        if let Some(store) = &self.store {
            store.start(writers);
        }
    }

    /// Sets another limit in bytes. With 0 it keeps nothing.
    pub fn limit(&self, bytes: u64) {
        let Some(store) = &self.store else { return };
        store.table().limit(bytes);
        store.changed();
    }

    /// Stores a new answer of the home.
    pub fn put(&self, source: &Source, key: &CacheKey, whole: Whole) {
        let Some(store) = self.store_for(key) else { return };
        let name = Name::of(&self.signer, &source.home, key);
        let owner = Owner::of(&self.signer, source.asked_from);
        {
            let mut table = store.table();
            // Checked under this lock, so that a write which ends a moment later finds this copy
            // and ends it too.
            if !table.is_on() || self.writes.may_be_old(key, source.writes) {
                return;
            }
            table.put(name, owner, unix_millis(), whole);
        }
        store.changed();
    }

    /// Notes that the home has confirmed our copy. If the disk lost it, it is stored again.
    pub fn confirm(&self, source: &Source, key: &CacheKey, whole: impl FnOnce() -> Option<Whole>) {
        let Some(store) = self.store_for(key) else { return };
        let name = Name::of(&self.signer, &source.home, key);
        let is_lacking = {
            let mut table = store.table();
            if table.confirm(name, unix_millis()) {
                drop(table);
                return store.changed();
            }
            table.lacks(name)
        };
        if is_lacking && let Some(whole) = whole() {
            self.put(source, key, whole);
        }
    }

    /// The copy, and when the home gave or confirmed it, in milliseconds since 1970.
    pub async fn get(&self, home: &HomeServer, key: &CacheKey) -> Option<(u64, Whole)> {
        let store = self.store_for(key)?;
        let name = Name::of(&self.signer, home, key);
        let found = store.until(|table| (!table.is_unknown()).then(|| table.good(name)));
        let (_, owner) = timeout(DISK_WITHIN, found).await.ok()??;
        match store.read(name, owner).await {
            Ok(Some(whole)) => {
                // It may have ended while it was read.
                let (at, _) = store.table().good(name)?;
                return Some((at, whole));
            }
            Ok(None) => {
                let path = store.folder.path(name, owner);
                warn!(path = %path.display(), "A copy is damaged; it is deleted.");
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::TimedOut => return None,
            Err(error) => {
                let path = store.folder.path(name, owner);
                warn!(path = %path.display(), %error, "A copy cannot be read.");
                return None;
            }
        }
        store.table().end(name);
        store.changed();
        None
    }

    /// Ends this copy.
    pub fn forget(&self, home: &HomeServer, key: &CacheKey) {
        let Some(store) = self.store_for(key) else { return };
        let was_there = store.table().end(Name::of(&self.signer, home, key));
        if was_there {
            store.changed();
        }
    }

    /// A write is about to be sent. No copy that it may change is used until it is over.
    pub fn write_begins(&self, home: &HomeServer, groups: &[Group]) {
        let Some(store) = &self.store else { return };
        store.table().write_begins(&self.groups(home, groups));
        store.changed();
    }

    /// Waits until this is noted on the disk, for a process that starts after a crash.
    ///
    /// # Errors
    /// The disk cannot store it, or not in time.
    pub async fn is_marked(&self, home: &HomeServer, groups: &[Group]) -> Result<(), NotMarked> {
        let Some(store) = &self.store else { return Ok(()) };
        let groups = self.groups(home, groups);
        let is_marked = store.until(|table| match table.is_marked(&groups) {
            Marked::Yes => Some(true),
            Marked::No => Some(false),
            Marked::NotYet => None,
        });
        match timeout(DISK_WITHIN, is_marked).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(NotMarked),
            Err(_elapsed) => {
                store.table().hangs();
                error!(
                    path = %store.folder.dir().display(),
                    "Copies cannot be marked: after a crash an old one could be given."
                );
                Err(NotMarked)
            }
        }
    }

    /// A write is over. This is called once for each write that began.
    pub fn write_ends(&self, home: &HomeServer, groups: &[Group], outcome: Outcome) {
        let Some(store) = &self.store else { return };
        store.table().write_ends(&self.groups(home, groups), outcome);
        store.changed();
    }

    fn groups(&self, home: &HomeServer, groups: &[Group]) -> Vec<u64> {
        groups.iter().map(|it| name::group(&self.signer, home, it)).collect()
    }

    fn store_for(&self, key: &CacheKey) -> Option<&Arc<Store>> {
        let store = self.store.as_ref()?;
        (key.is_user_data() && is_known(key.query())).then_some(store)
    }
}

/// True if all parameters are known.
fn is_known(query: &[u8]) -> bool {
    let mut names = query.split(|byte| *byte == b'&').map(|pair| {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        &pair[..end]
    });
    names.all(|name| name.is_empty() || PARAMETERS.iter().any(|it| it.as_bytes() == name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use bytes::Bytes;
    use http::HeaderMap;
    use tokio::task::JoinSet;

    use super::*;
    use crate::net::sleep;

    struct World {
        folder: tempfile::TempDir,
        copies: Arc<Copies>,
        tasks: Tasks,
    }

    impl World {
        fn new() -> Self {
            let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::default());
            let at = Some(folder.path().join("copies"));
            let copies = Copies::new(at, CookieSigner::new(), Arc::default(), 1 << 20);
            let copies = Arc::new(copies);
            copies.start(&tasks);
            Self { folder, copies, tasks }
        }

        fn files(&self) -> Vec<PathBuf> {
            let Ok(all) = fs::read_dir(self.folder.path().join("copies")) else { return vec![] };
            let paths = all.map(|it| it.unwrap().path());
            paths.filter(|it| !it.ends_with("doubts") && it.extension().is_none()).collect()
        }

        async fn puts(&self, key: &CacheKey, text: &'static str) {
            let whole =
                Whole { headers: HeaderMap::new(), body: Bytes::from_static(text.as_bytes()) };
            self.copies.put(&source(), key, whole);
            while self.copies.get(&home(), key).await.is_none_or(|(_, it)| it.body != text) {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    fn home() -> HomeServer {
        HomeServer { address: "h:1".into(), identity: None }
    }

    fn source() -> Source {
        Source { home: home(), asked_from: [10, 0, 0, 1].into(), writes: 0 }
    }

    fn key(path: &str) -> CacheKey {
        CacheKey::own(path, "", &HeaderMap::new())
    }

    fn hangs(path: &Path) {
        fs::remove_file(path).unwrap();
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    /// A read from a pipe without a writer waits, like a disk that hangs. Names are looked up on
    /// the same threads.
    #[test]
    fn a_disk_that_hangs_keeps_a_few_threads_and_nobody_waits_for_it_in_vain() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).max_blocking_threads(8).enable_all();
        runtime.build().unwrap().block_on(async {
            let world = World::new();
            let settings = key("/settings");
            world.puts(&settings, "mine").await;
            let path = world.files().remove(0);
            hangs(&path);
            let mut readers = JoinSet::new();
            for _ in 0..64 {
                let (copies, settings) = (Arc::clone(&world.copies), settings.clone());
                readers.spawn(async move { copies.get(&home(), &settings).await.is_none() });
            }
            assert!(readers.join_all().await.into_iter().all(|is_none| is_none));
            let other = tokio::task::spawn_blocking(|| 7);
            assert_eq!(timeout(DISK_WITHIN, other).await.unwrap().unwrap(), 7);
            world.copies.write_begins(&home(), &settings.changes());
            assert_eq!(world.copies.is_marked(&home(), &settings.changes()).await, Ok(()));
            // Ends the reads that hang.
            drop(fs::OpenOptions::new().read(true).write(true).open(&path).unwrap());
            world.tasks.drain(Duration::from_secs(5)).await;
        });
    }

    #[tokio::test]
    async fn who_reads_while_others_do_waits_for_a_turn_and_gets_the_copy() {
        let world = World::new();
        let settings = key("/settings");
        world.puts(&settings, "mine").await;
        let readers = &world.copies.store.as_ref().unwrap().readers;
        let all = u32::try_from(readers.available_permits()).unwrap();
        let others = readers.acquire_many(all).await.unwrap();
        let mut reading = JoinSet::new();
        for _ in 0..20 {
            let (copies, settings) = (Arc::clone(&world.copies), settings.clone());
            reading.spawn(async move { copies.get(&home(), &settings).await.is_some() });
        }
        // On one thread: all of them have asked by now.
        tokio::task::yield_now().await;
        assert!(reading.try_join_next().is_none());
        drop(others);
        assert_eq!(reading.join_all().await, [true; 20]);
    }

    #[test]
    fn a_process_without_a_journal_doubts_the_copies_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("copies");
        let signer = CookieSigner::new();
        Copies::doubt_all(&at, &signer);
        assert!(!at.exists(), "there are none");
        let opened = || Folder::new(at.clone(), signer.clone()).open(true).unwrap().unwrap().doubts;
        assert_ne!(opened(), doubts::Doubts::All);
        Copies::doubt_all(&at, &signer);
        assert_eq!(opened(), doubts::Doubts::All);
    }

    #[tokio::test]
    async fn a_copy_that_ends_while_it_is_read_is_not_given() {
        let world = World::new();
        let settings = key("/settings");
        world.puts(&settings, "old").await;
        let file = world.files().remove(0);
        let whole = fs::read(&file).unwrap();
        hangs(&file);
        let from = home();
        let reads = world.copies.get(&from, &settings);
        let write = async {
            sleep(Duration::from_millis(20)).await;
            world.copies.write_begins(&home(), &settings.changes());
            let (copies, changes) = (&world.copies, settings.changes());
            copies.is_marked(&home(), &changes).await.unwrap();
            tokio::task::spawn_blocking(move || fs::write(&file, whole)).await.unwrap().unwrap();
        };
        let (read, ()) = tokio::join!(reads, write);
        assert!(read.is_none(), "the home may have taken the write");
        world.copies.write_ends(&home(), &settings.changes(), Outcome::NotDone);
    }

    #[tokio::test]
    async fn what_is_saved_as_the_process_stops_has_no_copy_for_the_next() {
        let world = World::new();
        let settings = key("/settings");
        world.puts(&settings, "old").await;
        world.copies.write_begins(&home(), &settings.changes());
        world.copies.is_marked(&home(), &settings.changes()).await.unwrap();
        world.tasks.stop();
        world.copies.write_ends(&home(), &settings.changes(), Outcome::MayBeDone);
        assert_eq!(world.tasks.drain(Duration::from_secs(5)).await, 0);
        let at = Some(world.folder.path().join("copies"));
        let next = Copies::new(at, world.copies.signer.clone(), Arc::default(), 1 << 20);
        let tasks = Tasks::default();
        next.start(&tasks);
        assert!(next.get(&home(), &settings).await.is_none());
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
    }

    #[test]
    fn a_parameter_that_is_not_known_may_be_a_credential() {
        for good in ["", "dir=workflows&recurse=true&split=false&full_info=true", "path=x", "&"] {
            assert!(is_known(good.as_bytes()), "{good}");
        }
        for bad in ["token=s3cret", "dir=x&api_key=1", "s3cret", "Dir=x", "dir%3d=x"] {
            assert!(!is_known(bad.as_bytes()), "{bad}");
        }
    }
}
