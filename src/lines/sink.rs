//! Where lines go: standard output, or a file that is only ever added to.
//!
//! A file that was renamed or removed is opened again under its name, as logrotate needs it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::LogTo;

/// Takes the lines.
#[derive(Debug)]
pub struct Sink {
    to: To,
    /// What was written last may be half a line.
    is_torn: bool,
}

#[derive(Debug)]
enum To {
    Stdout,
    File { path: PathBuf, file: File },
}

/// A log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{key}: `{}` cannot be opened: {error}", .path.display())]
pub struct NotOpened {
    key: &'static str,
    path: PathBuf,
    error: io::Error,
}

/// Some lines were not written.
#[derive(Debug)]
pub(super) struct NotWritten {
    pub(super) lost: u64,
    pub(super) error: io::Error,
}

impl Sink {
    /// Opens what the key of the configuration says; `None` is no log.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(key: &'static str, to: &LogTo) -> Result<Option<Self>, NotOpened> {
        match to {
            LogTo::Off => Ok(None),
            LogTo::Stdout => Ok(Some(Self { to: To::Stdout, is_torn: false })),
            LogTo::File(path) => Self::file(key, path.clone()).map(Some),
        }
    }

    /// # Errors
    /// It cannot be opened, or is no file.
    pub fn file(key: &'static str, path: PathBuf) -> Result<Self, NotOpened> {
        match open(&path) {
            Ok(file) => Ok(Self { to: To::File { path, file }, is_torn: false }),
            Err(error) => Err(NotOpened { key, path, error }),
        }
    }

    /// Writes lines. After a failure the others are tried all the same.
    pub(super) fn write(&mut self, lines: &[String]) -> Result<(), NotWritten> {
        if let Err(error) = self.follow_name() {
            return Err(NotWritten { lost: u64::try_from(lines.len()).unwrap_or(u64::MAX), error });
        }
        let mut failed: Option<NotWritten> = None;
        for line in lines {
            if let Err(error) = self.write_line(line) {
                let lost = failed.as_ref().map_or(1, |failed| failed.lost + 1);
                failed = Some(NotWritten { lost, error });
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn write_line(&mut self, line: &str) -> io::Result<()> {
        if self.is_torn {
            self.put(b"\n")?;
        }
        self.is_torn = true;
        self.put(line.as_bytes())?;
        self.is_torn = false;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.to {
            To::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            To::File { file, .. } => file.write_all(bytes),
        }
    }

    /// Opens the file again if its name is that of no file or another one now. If that fails, the
    /// one before goes on while it has a name: what is written into a file without one is gone.
    fn follow_name(&mut self) -> io::Result<()> {
        let To::File { path, file } = &mut self.to else { return Ok(()) };
        let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let is_same = match (fs::metadata(&*path).map(id), file.metadata().map(id)) {
            (Ok(named), Ok(open)) => named == open,
            (Err(_), _) | (_, Err(_)) => false,
        };
        if is_same {
            return Ok(());
        }
        match open(path) {
            Ok(anew) => {
                *file = anew;
                self.is_torn = false;
                Ok(())
            }
            Err(error) if file.metadata().is_ok_and(|it| it.nlink() == 0) => Err(error),
            Err(_) => Ok(()),
        }
    }
}

/// Opens a file at its end, and makes it if it is missing: for this user alone.
fn open(path: &Path) -> io::Result<File> {
    // To open a pipe that nobody reads would wait.
    if fs::metadata(path).is_ok_and(|it| !it.is_file()) {
        return Err(io::Error::other("it is no file"));
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| format!("{text}\n")).collect()
    }

    #[test]
    fn a_file_is_added_to_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        for text in ["one", "two"] {
            Sink::file("log.audit", path.clone()).unwrap().write(&lines(&[text])).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_was_renamed_is_opened_again_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("audit.log"), folder.path().join("audit.log.1"));
        let mut sink = Sink::file("log.audit", path.clone()).unwrap();
        sink.write(&lines(&["one"])).unwrap();
        fs::rename(&path, &old).unwrap();
        sink.write(&lines(&["two"])).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        fs::remove_dir_all(folder.path()).unwrap();
        let failed = sink.write(&lines(&["three", "four"])).unwrap_err();
        assert_eq!(failed.lost, 2, "a file without a name keeps nothing");
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none/audit.log");
        for path in [folder.path().to_owned(), missing] {
            let told = Sink::file("log.audit", path.clone()).unwrap_err().to_string();
            assert!(
                told.starts_with("log.audit: `") && told.contains("cannot be opened"),
                "{told}"
            );
        }
    }

    /// A disk that is full.
    #[test]
    fn lines_that_the_disk_does_not_take_are_counted() {
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let to = To::File { path: "/dev/full".into(), file };
        let mut sink = Sink { to, is_torn: false };
        let failed = sink.write(&lines(&["one", "two"])).unwrap_err();
        assert_eq!(failed.lost, 2);
        assert!(sink.is_torn);
    }
}
