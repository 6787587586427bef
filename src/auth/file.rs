//! The file of users: read by the gateway, changed by `mooring users`.
//!
//! A reader sees all of the old file or all of the new one. If two processes change the file, one
//! waits for the other.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::users::UserTable;
use crate::net::now;

/// More than a hundred thousand users need.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// Only the owner may read and write the file.
const MODE: u32 = 0o600;

/// How long a change waits for another one to finish.
const LOCKED_WITHIN: Duration = Duration::from_secs(10);

/// How often it tries in the meantime.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Why the file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum NotChanged {
    #[error("`{path}` {what}")]
    Unreadable { path: String, what: String },
    #[error("`{path}` was not changed: {error}")]
    Unwritable { path: String, error: io::Error },
    #[error("another process has been changing `{path}` for 10 s")]
    Locked { path: String },
    #[error("{0}")]
    Refused(String),
}

/// The result of a change.
#[derive(Debug)]
pub struct Changed<T> {
    pub told: T,
    /// The change is made, but a crash of the machine may undo it.
    pub unsynced: Option<io::Error>,
}

/// Whether the file may be missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// The file is created.
    IsEmpty,
    IsWrong,
}

/// Reads the file.
///
/// # Errors
/// The error of the operating system, or what is wrong with the text. Either text is meant to
/// follow the name of the file.
pub fn read(path: &Path) -> Result<UserTable, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    // A pipe or a device may never end, so reading it could take for ever.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| FILE_BYTES_MAX < length) {
        return Err("is larger than 32 MiB".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    UserTable::parse(&text)
}

/// Changes the file, or creates it. An existing file keeps its owner and its mode. A new file can
/// be read by its owner only.
///
/// # Errors
/// The file could not be read or written, or `change` refused. The file is unchanged then.
pub fn change<T>(
    path: &Path,
    missing: Missing,
    change: impl FnOnce(&UserTable) -> Result<(UserTable, T), String>,
) -> Result<Changed<T>, NotChanged> {
    change_and_sync(path, missing, change, File::sync_all)
}

fn change_and_sync<T>(
    path: &Path,
    missing: Missing,
    change: impl FnOnce(&UserTable) -> Result<(UserTable, T), String>,
    sync: impl FnOnce(&File) -> io::Result<()>,
) -> Result<Changed<T>, NotChanged> {
    let shown = path.display().to_string();
    let unwritable = |error| NotChanged::Unwritable { path: shown.clone(), error };
    // If the path is a link, the file behind it is replaced and the link stays.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = folder_of(&path);
    let opened = File::open(&folder).map_err(unwritable)?;
    // The lock is freed when the folder is closed.
    if !lock(&opened).map_err(unwritable)? {
        return Err(NotChanged::Locked { path: shown.clone() });
    }
    let found = fs::metadata(&path).map_err(|error| error.kind());
    let is_missing = found.err() == Some(io::ErrorKind::NotFound);
    let before = match (is_missing, missing) {
        (true, Missing::IsEmpty) => UserTable::default(),
        (true, Missing::IsWrong) | (false, Missing::IsEmpty | Missing::IsWrong) => {
            read(&path).map_err(|what| NotChanged::Unreadable { path: shown.clone(), what })?
        }
    };
    let (after, told) = change(&before).map_err(NotChanged::Refused)?;
    replace(&path, &after.to_text()).map_err(unwritable)?;
    // This keeps a crash of the machine from restoring a user who was removed. The new file is in
    // place already, so a new key must be given out even if this fails.
    Ok(Changed { told, unsynced: sync(&opened).err() })
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

/// Waits until no other process changes a file of this folder, and locks the folder until it is
/// closed. False after 10 s. The lock is on the folder, because each change replaces the file.
///
/// # Errors
/// The operating system cannot lock the folder.
pub fn lock(folder: &File) -> io::Result<bool> {
    let until = now() + LOCKED_WITHIN;
    loop {
        match folder.try_lock() {
            Ok(()) => return Ok(true),
            Err(fs::TryLockError::WouldBlock) if now() < until => thread::sleep(LOCK_PAUSE),
            Err(fs::TryLockError::WouldBlock) => return Ok(false),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Writes a new file beside the old one and moves it into its place.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // A process that crashed may have left one. Nobody else writes now.
    let _ = fs::remove_file(&beside);
    let written = write(&beside, fs::metadata(path).ok().as_ref(), text);
    let replaced = written.and_then(|()| fs::rename(&beside, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&beside);
    }
    replaced
}

/// Gives the new file the owner and the mode of the old one.
fn write(path: &Path, before: Option<&fs::Metadata>, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)?;
    // The mode is set before the text is written, so that others cannot open the file and read it.
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(text.as_bytes())?;
    if let Some(before) = before {
        let ours = file.metadata()?;
        if (ours.uid(), ours.gid()) != (before.uid(), before.gid()) {
            // Otherwise a gateway that runs as another user could not read the file any more.
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(before.mode() & 0o777))?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::auth::users::{Role, User};

    fn user(name: &str) -> User {
        let name = name.parse().unwrap();
        User { name, role: Role::Artist, generation: 1, key: None, password: None }
    }

    fn add(path: &Path, name: &str) -> Result<(), NotChanged> {
        change(path, Missing::IsEmpty, |users| Ok((users.with(user(name)).unwrap(), ()))).map(drop)
    }

    #[test]
    fn a_change_that_may_not_outlive_a_crash_holds_and_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let add = |users: &UserTable| Ok((users.with(user("ada")).unwrap(), "the key"));
        let fail = |_: &File| Err(io::Error::other("no sync"));
        let changed = change_and_sync(&path, Missing::IsEmpty, add, fail).unwrap();
        assert_eq!((changed.told, names(&path).len()), ("the key", 1));
        assert_eq!(changed.unsynced.unwrap().to_string(), "no sync");
    }

    fn names(path: &Path) -> Vec<String> {
        read(path).unwrap().iter().map(|user| user.name.to_string()).collect()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_new_file_is_for_its_owner_alone_and_an_old_one_stays_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        add(&path, "ada").unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        add(&path, "bob").unwrap();
        assert_eq!((mode(&path), names(&path)), (0o640, vec!["ada".to_owned(), "bob".to_owned()]));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_link_stays_one_and_what_it_leads_to_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("users.toml"), folder.path().join("link"));
        add(&path, "ada").unwrap();
        symlink(&path, &link).unwrap();
        add(&link, "bob").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(&path).len(), 2);
    }

    #[test]
    fn a_change_that_is_refused_leaves_all_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        let refuse = |path: &Path, missing| {
            change(path, missing, |_| Err::<(UserTable, ()), _>("no".to_owned())).unwrap_err()
        };
        assert_eq!(refuse(&path, Missing::IsEmpty).to_string(), "no");
        assert!(!path.exists(), "nor is it made");
        let missing = refuse(&path, Missing::IsWrong).to_string();
        assert!(missing.contains("cannot be read: No such file"), "{missing}");
        add(&path, "ada").unwrap();
        let before = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().ino());
        refuse(&path, Missing::IsEmpty);
        assert_eq!((fs::read(&path).unwrap(), fs::metadata(&path).unwrap().ino()), before);
        // A file that is not understood is never overwritten.
        fs::write(&path, "[users.ada]\n").unwrap();
        assert!(add(&path, "bob").unwrap_err().to_string().contains("missing field"));
        assert_eq!(fs::read(&path).unwrap(), b"[users.ada]\n");
        let nowhere = add(Path::new("/nowhere/users.toml"), "ada").unwrap_err().to_string();
        assert!(nowhere.contains("No such file or directory"), "{nowhere}");
    }

    #[test]
    fn many_who_change_it_at_once_lose_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.toml");
        thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for it in 0..4 {
                        add(path, &format!("u{number}-{it}")).unwrap();
                    }
                });
            }
        });
        assert_eq!(names(&path).len(), 32);
    }

    #[test]
    fn what_is_no_file_of_users_says_why() {
        assert_eq!(read(Path::new("/dev/null")).unwrap_err(), "is not a regular file");
        assert_eq!(read(&std::env::temp_dir()).unwrap_err(), "is not a regular file");
        assert!(
            read(Path::new("/nowhere")).unwrap_err().starts_with("cannot be read: No such file")
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"\xff").unwrap();
        assert_eq!(read(file.path()).unwrap_err(), "is not UTF-8 text");
    }
}
