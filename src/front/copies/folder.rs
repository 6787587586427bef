//! The folder of the copies. It waits for the disk, so it runs on a thread that may block.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::doubts::{self, Doubts};
use super::file::{self, Code};
use super::name::{Name, Owner};
use super::step::{Before, Found, Written};
use crate::front::conditional::Whole;
use crate::front::cookie_signer::CookieSigner;

/// The end of the name of a file that is being written.
const NEW: &str = ".new";

/// The location of the copies.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    signer: CookieSigner,
}

/// The content of the folder.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) files: Vec<Found>,
    pub(super) doubts: Doubts,
    /// The file with the doubts.
    pub(super) marks: File,
}

impl Folder {
    pub(super) fn new(dir: PathBuf, signer: CookieSigner) -> Self {
        Self { dir, signer }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn path(&self, name: Name, owner: Owner) -> PathBuf {
        self.dir.join(name.file(owner))
    }

    /// Reads the folder, or creates it if it is needed. `None` if it does not exist. If the disk
    /// cannot be written, that is an error, because writes at the home could not be noted.
    ///
    /// # Errors
    /// The folder cannot be created, read or written, or it is not ours.
    pub(super) fn open(&self, is_needed: bool) -> io::Result<Option<Opened>> {
        if !is_needed && !self.dir.try_exists()? {
            return Ok(None);
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        fs::set_permissions(&self.dir, Permissions::from_mode(0o700))?;
        let files = self.files()?;
        let path = self.dir.join(doubts::FILE);
        let doubts = match doubts_at(&path) {
            Ok(said) => Doubts::decode(&self.signer, &said),
            Err(error) if error.kind() == io::ErrorKind::NotFound && files.is_empty() => {
                Doubts::of(BTreeSet::new())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Doubts::All,
            Err(error) => return Err(error),
        };
        let mut options = OpenOptions::new();
        let marks = options.write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        write_doubts(&marks, &doubts, &self.signer)?;
        marks.sync_all()?;
        self.sync()?;
        Ok(Some(Opened { files, doubts, marks }))
    }

    /// The copies. It deletes what an earlier process left behind: unfinished files, and the older
    /// one of two equal copies.
    fn files(&self) -> io::Result<Vec<Found>> {
        let mut found: HashMap<Name, Found> = HashMap::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let text = entry.file_name();
            let text = text.to_str().unwrap_or_default();
            if text.ends_with(NEW) {
                fs::remove_file(entry.path())?;
                continue;
            }
            let Some((name, owner)) = Name::parse(text) else { continue };
            let facts = entry.metadata()?;
            let at = facts.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
            let it = Found { name, owner, bytes: facts.len(), at };
            let other = found.insert(name, it);
            if let Some(other) = other {
                let older = if other.at < it.at { other } else { it };
                let newer = if other.at < it.at { it } else { other };
                found.insert(name, newer);
                fs::remove_file(self.path(name, older.owner))?;
            }
        }
        Ok(found.into_values().collect())
    }

    /// Replaces an older copy, completely or not at all. Only the owner can read the file. A copy
    /// with the same content is not written again. A loss of power may lose the file, because it is
    /// only a copy.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub(super) fn put(
        &self,
        (name, owner): (Name, Owner),
        at: u64,
        whole: &Whole,
        before: Before,
    ) -> io::Result<Written> {
        let file = file::encode(&self.signer, &name, whole);
        let path = self.path(name, owner);
        let code = file::code_of(&file).unwrap_or_default();
        let known = match before {
            Before::Nothing => None,
            Before::Some(Some(code)) => Some(code),
            Before::Some(None) => code_at(&path),
        };
        if known != Some(code) || set_time(&path, at).is_err() {
            let beside = self.dir.join(format!("{}{NEW}", name.file(owner)));
            let written = write(&beside, &file)
                .and_then(|()| set_time(&beside, at))
                .and_then(|()| fs::rename(&beside, &path));
            if written.is_err() {
                // Its name is not that of a copy. It is deleted at the next start at the latest.
                let _ = fs::remove_file(&beside);
            }
            written?;
        }
        Ok(Written { bytes: file.len() as u64, code })
    }

    /// Notes that the home has confirmed a copy. If this fails, the copy looks older than it is.
    ///
    /// # Errors
    /// The disk cannot store it.
    pub(super) fn confirm(&self, (name, owner): (Name, Owner), at: u64) -> io::Result<()> {
        set_time(&self.path(name, owner), at)
    }

    /// Deletes copies for good: they do not come back after a loss of power.
    ///
    /// # Errors
    /// The first error. Other copies may still have been deleted.
    pub(super) fn remove(&self, names: &[(Name, Owner)]) -> io::Result<()> {
        let mut outcome = Ok(());
        for (name, owner) in names {
            match fs::remove_file(self.path(*name, *owner)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome.and(self.sync())
    }

    /// Overwrites the doubts in place.
    ///
    /// # Errors
    /// The disk cannot store them. The content of the file is unknown then.
    pub(super) fn mark(&self, marks: &File, doubts: &Doubts) -> io::Result<()> {
        write_doubts(marks, doubts, &self.signer)?;
        marks.sync_data()
    }

    /// Makes the next process doubt all copies in the folder.
    ///
    /// # Errors
    /// The disk cannot store it.
    pub(super) fn doubt_all(&self) -> io::Result<()> {
        let path = self.dir.join(doubts::FILE);
        let marks = match OpenOptions::new().write(true).open(&path) {
            // If there is no file of doubts, all copies are in doubt.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            marks => marks,
        };
        let marked = marks.and_then(|marks| self.mark(&marks, &Doubts::All));
        marked.or_else(|_| fs::remove_file(&path).and_then(|()| self.sync()))
    }

    /// The content of a copy. `None` if it is damaged.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self, name: Name, owner: Owner) -> io::Result<Option<Whole>> {
        let file = fs::read(self.path(name, owner))?;
        Ok(file::decode(&self.signer, &name, &file.into()))
    }

    fn sync(&self) -> io::Result<()> {
        match File::open(&self.dir) {
            Ok(dir) => dir.sync_all(),
            // The folder is gone with everything in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Reads the file of doubts, up to its maximum size.
fn doubts_at(path: &Path) -> io::Result<Vec<u8>> {
    let mut said = Vec::with_capacity(doubts::SIZE);
    File::open(path)?.take(doubts::SIZE as u64).read_to_end(&mut said)?;
    Ok(said)
}

fn write_doubts(marks: &File, doubts: &Doubts, signer: &CookieSigner) -> io::Result<()> {
    marks.write_all_at(&doubts.encode(signer), 0)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    // The content must be on the disk before the name is.
    file.sync_data()
}

fn set_time(path: &Path, at: u64) -> io::Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(at);
    OpenOptions::new().append(true).open(path)?.set_modified(time)
}

fn code_at(path: &Path) -> Option<Code> {
    let mut head = [0; file::HEAD];
    File::open(path).and_then(|mut it| it.read_exact(&mut head)).ok()?;
    file::code_of(&head)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    const OWNER: Owner = Owner(1);

    fn name(group: u64, key: u128) -> Name {
        Name { group, key }
    }

    fn whole(text: &'static str) -> Whole {
        Whole { headers: HeaderMap::new(), body: Bytes::from_static(text.as_bytes()) }
    }

    struct World {
        temp: tempfile::TempDir,
        signer: CookieSigner,
    }

    impl World {
        fn new() -> Self {
            Self { temp: tempfile::tempdir().unwrap(), signer: CookieSigner::new() }
        }

        fn folder(&self) -> Folder {
            Folder::new(self.temp.path().join("copies"), self.signer.clone())
        }

        fn opened(&self) -> Opened {
            self.folder().open(true).unwrap().unwrap()
        }
    }

    fn put(folder: &Folder, it: Name, text: &'static str) -> io::Result<Written> {
        folder.put((it, OWNER), 5, &whole(text), Before::Nothing)
    }

    #[test]
    fn nobody_else_may_read_it_and_what_is_not_ours_stays() {
        let world = World::new();
        let folder = world.folder();
        assert!(folder.open(false).unwrap().is_none(), "none is made that is not needed");
        DirBuilder::new().mode(0o755).create(folder.dir()).unwrap();
        fs::write(folder.dir().join("notes.txt"), "mine").unwrap();
        fs::write(folder.dir().join(format!("{}{NEW}", name(1, 1).file(OWNER))), "half").unwrap();
        assert_eq!(world.opened().files, []);
        put(&folder, name(1, 2), "x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = folder.path(name(1, 2), OWNER);
        let marks = folder.dir().join(doubts::FILE);
        assert_eq!([mode(folder.dir()), mode(&file), mode(&marks)], [0o700, 0o600, 0o600]);
        let found = world.opened().files;
        let bytes = fs::metadata(&file).unwrap().len();
        assert_eq!(found, [Found { name: name(1, 2), owner: OWNER, bytes, at: 5 }]);
        folder.remove(&[(name(1, 2), OWNER), (name(1, 3), OWNER)]).unwrap();
        assert_eq!(world.opened().files, []);
        assert!(folder.dir().join("notes.txt").exists());
    }

    #[test]
    fn what_is_in_doubt_is_read_by_the_next_and_without_a_word_all_is() {
        let world = World::new();
        let (folder, opened) = (world.folder(), world.opened());
        assert_eq!(opened.doubts, Doubts::of(BTreeSet::new()));
        put(&folder, name(7, 1), "x").unwrap();
        folder.mark(&opened.marks, &Doubts::of([7].into())).unwrap();
        assert_eq!(world.opened().doubts, Doubts::of([7].into()));
        assert_eq!(world.opened().doubts, Doubts::of([7].into()), "until it is written anew");
        fs::remove_file(folder.dir().join(doubts::FILE)).unwrap();
        assert_eq!(world.opened().doubts, Doubts::All);
    }

    #[test]
    fn a_disk_that_takes_no_doubts_gives_no_copies() {
        let world = World::new();
        let folder = world.folder();
        drop(world.opened());
        put(&folder, name(7, 1), "x").unwrap();
        let marks = folder.dir().join(doubts::FILE);
        fs::remove_file(&marks).unwrap();
        // Every write to it fails, because it is always full.
        std::os::unix::fs::symlink("/dev/full", &marks).unwrap();
        assert!(folder.open(true).is_err());
    }

    #[test]
    fn a_copy_that_is_the_same_is_not_written_again() {
        let world = World::new();
        let folder = world.folder();
        drop(world.opened());
        let first = put(&folder, name(1, 1), "x").unwrap();
        let path = folder.path(name(1, 1), OWNER);
        let node = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        let before = node();
        for known in [None, Some(first.code)] {
            let again = folder.put((name(1, 1), OWNER), 9, &whole("x"), Before::Some(known));
            assert_eq!((again.unwrap().code, node()), (first.code, before), "{known:?}");
        }
        assert_eq!(world.opened().files[0].at, 9, "and it is as good as new");
        let other = folder.put((name(1, 1), OWNER), 9, &whole("y"), Before::Some(None)).unwrap();
        assert_ne!((other.code, node()), (first.code, before));
        let read = folder.read(name(1, 1), OWNER).unwrap().unwrap();
        assert_eq!(&read.body[..], b"y");
    }

    #[test]
    fn a_disk_that_takes_nothing_leaves_no_half_file_and_what_cannot_be_deleted_is_said() {
        let world = World::new();
        let folder = world.folder();
        drop(world.opened());
        fs::create_dir(folder.path(name(1, 1), OWNER)).unwrap();
        put(&folder, name(1, 1), "x").unwrap_err();
        let left = fs::read_dir(folder.dir()).unwrap().count();
        assert_eq!(left, 2, "the doubts, and what is in the way");
        put(&folder, name(1, 2), "x").unwrap();
        let both = [(name(1, 1), OWNER), (name(1, 2), OWNER)];
        folder.remove(&both).unwrap_err();
        assert!(!folder.path(name(1, 2), OWNER).exists(), "the others go");
    }

    #[test]
    fn of_two_files_of_one_copy_the_newer_stays() {
        let world = World::new();
        let folder = world.folder();
        drop(world.opened());
        for (owner, at) in [(Owner(2), 7), (Owner(3), 9), (Owner(1), 8)] {
            folder.put((name(1, 1), owner), at, &whole("x"), Before::Nothing).unwrap();
        }
        let files = world.opened().files;
        assert_eq!(files.iter().map(|it| it.owner).collect::<Vec<_>>(), [Owner(3)]);
        assert!(!folder.path(name(1, 1), Owner(1)).exists());
    }
}
