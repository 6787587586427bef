//! Watches the files of the configuration: a change starts a reload.
//!
//! They are checked twice a second. That finds changes which notifications of the kernel miss:
//! those on network file systems, and the symbolic link `..data` that Kubernetes replaces when a
//! ConfigMap changes.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::{By, Reloads};
use crate::net::sleep;

/// How often files are checked. A changed file is read when it has stayed the same for this long,
/// because its writer may not be done.
const INTERVAL: Duration = Duration::from_millis(500);

/// Lists the files of the configuration: the file itself or the files of a folder, and those that
/// it names.
pub type List = Arc<dyn Fn() -> Vec<PathBuf> + Send + Sync>;

/// Identifies the state of a file, with links followed. `None` if the file does not exist.
pub(super) type Print = Option<[i64; 7]>;

/// All files, each with its state at one moment.
pub(super) type Prints = Vec<(PathBuf, Print)>;

/// The files of a configuration as they were when it was read.
pub struct Watched {
    list: List,
    files: Vec<PathBuf>,
    known: Known,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("known", &self.known).finish_non_exhaustive()
    }
}

impl Watched {
    /// Checks the files. This is called before they are read, so that no change is missed.
    #[must_use]
    pub fn new(list: List) -> Self {
        let files = list();
        let prints = prints(&files);
        Self { list, files, known: Known { read: prints.clone(), seen: prints } }
    }

    /// Asks for a reload after each change, for as long as the process runs.
    pub async fn run(mut self, reloads: Reloads) {
        if self.files.is_empty() {
            warn!("There is no file to watch: the configuration has none (`--watch`).");
        }
        loop {
            sleep(INTERVAL).await;
            let files = self.files.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || prints(&files)).await else {
                continue;
            };
            if self.known.is_to_read(now) {
                // The result is in the log.
                let _ = reloads.reload(By::Files).await;
                self.follow().await;
            }
        }
    }

    /// The configuration may name other files now.
    async fn follow(&mut self) {
        let list = Arc::clone(&self.list);
        let looked = tokio::task::spawn_blocking(move || {
            let files = list();
            (prints(&files), files)
        });
        if let Ok((now, files)) = looked.await {
            self.files = files;
            self.known.follow(now);
        }
    }
}

/// What is known of the files.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Their states when they were last read.
    read: Prints,
    /// Their states at the last check.
    seen: Prints,
}

impl Known {
    /// Replaces the list of files. For files that stay in it, the state when they were read is
    /// kept.
    fn follow(&mut self, now: Prints) {
        let before = std::mem::take(&mut self.read);
        let known = |(path, print): &(PathBuf, Print)| {
            let before = before.iter().find(|(known, _)| known == path);
            (path.clone(), before.map_or(*print, |(_, print)| *print))
        };
        self.read = now.iter().map(known).collect();
        self.seen = now;
    }

    /// Marks the files as not read, so that they are read at the next check if they stay the same.
    pub(super) fn forget_read(&mut self) {
        self.read = Prints::new();
    }

    /// True if the files have changed since they were read, and have not changed since the last
    /// check.
    pub(super) fn is_to_read(&mut self, now: Prints) -> bool {
        let is_steady = now == self.seen;
        let is_news = now != self.read;
        if is_steady && is_news {
            self.read.clone_from(&now);
        }
        self.seen = now;
        is_steady && is_news
    }
}

pub(super) fn prints(files: &[PathBuf]) -> Prints {
    files.iter().map(|path| (path.clone(), print(path))).collect()
}

fn print(path: &Path) -> Print {
    let number = |number: u64| i64::from_ne_bytes(number.to_ne_bytes());
    fs::metadata(path).ok().map(|it: Metadata| {
        let (size, inode, device) = (number(it.size()), number(it.ino()), number(it.dev()));
        [device, inode, size, it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(state: i64) -> Prints {
        vec![(PathBuf::from("a.toml"), Some([state; 7]))]
    }

    #[test]
    fn a_file_is_read_once_it_is_not_written_any_more() {
        let mut known = Known { read: at(0), seen: at(0) };
        let looks = [0, 1, 2, 3, 3, 3, 4, 3, 3].map(|state| known.is_to_read(at(state)));
        let expected = [false, false, false, false, true, false, false, false, false];
        assert_eq!(looks, expected, "back to what was read is no news");
    }

    #[test]
    fn a_file_that_goes_is_a_change_and_one_that_comes_is_another() {
        let gone: Prints = vec![(PathBuf::from("a.toml"), None)];
        let mut known = Known { read: at(0), seen: at(0) };
        let looks = [gone.clone(), gone.clone(), gone].map(|state| known.is_to_read(state));
        assert_eq!(looks, [false, true, false]);
        assert_eq!([at(0), at(0)].map(|state| known.is_to_read(state)), [false, true]);
    }

    #[test]
    fn a_file_that_is_named_since_is_watched_and_none_is_read_for_nothing() {
        let of = |name: &str, state: i64| (PathBuf::from(name), Some([state; 7]));
        let mut known = Known { read: at(1), seen: at(1) };
        // The file changed again while it was read.
        known.follow(vec![of("a.toml", 2), of("secret", 5)]);
        assert!(known.is_to_read(vec![of("a.toml", 2), of("secret", 5)]));
        assert!(!known.is_to_read(vec![of("a.toml", 2), of("secret", 6)]));
        assert!(known.is_to_read(vec![of("a.toml", 2), of("secret", 6)]));
    }

    /// Kubernetes changes the files of a `ConfigMap` like this: it replaces a link to a folder.
    #[test]
    fn a_swapped_link_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (version, text) in [("1", "a"), ("2", "b")] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("mooring.toml"), text).unwrap();
        }
        std::os::unix::fs::symlink("1", path("..data")).unwrap();
        std::os::unix::fs::symlink("..data/mooring.toml", path("mooring.toml")).unwrap();
        let before = print(&path("mooring.toml"));
        std::os::unix::fs::symlink("2", path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        assert_ne!(print(&path("mooring.toml")), before);
    }
}
