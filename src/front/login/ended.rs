//! Sessions that were ended by a logout, stored in `state.dir`, so that a restart does not bring
//! them back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use crate::auth::file::lock;
use crate::auth::logouts::Logouts;
use crate::front::admission::Admission;
use crate::lock::{Lock, rank};
use crate::net::unix_millis;

/// Its name in the folder.
const FILE: &str = "sessions.ended";

/// The ended sessions, and the file that contains them.
#[derive(Debug)]
pub struct EndedSessions {
    path: Option<PathBuf>,
    latest: Lock<Logouts, { rank::LOGOUTS }>,
}

impl EndedSessions {
    /// Reads the file of a folder, or begins with none.
    #[must_use]
    pub fn kept_in(dir: Option<&Path>) -> Arc<Self> {
        let path = dir.map(|dir| dir.join(FILE));
        let mut latest = path.as_deref().map(kept).unwrap_or_default();
        latest.forget(unix_millis());
        Arc::new(Self { path, latest: Lock::new(latest) })
    }

    #[must_use]
    pub fn now(&self) -> Logouts {
        self.latest.lock().clone()
    }

    /// Ends sessions: in memory at once, and then on the disk. It runs to its end, even if nobody
    /// waits for it any more.
    pub async fn end(
        self: &Arc<Self>,
        admission: &Arc<Admission>,
        change: impl Fn(&mut Logouts) + Send + 'static,
    ) {
        let (this, admission) = (Arc::clone(self), Arc::clone(admission));
        let done = tokio::task::spawn_blocking(move || {
            // The lock is held during the write, so that newer data is written after it.
            let mut latest = this.latest.lock();
            change(&mut latest);
            latest.forget(unix_millis());
            admission.replace_ended(&Arc::new(latest.clone()));
            let Some(path) = &this.path else { return };
            if let Err(error) = save(path, &mut latest, &change) {
                let path = path.display();
                warn!(%path, %error, "A logout could not be saved: a restart will undo it.");
            }
            admission.replace_ended(&Arc::new(latest.clone()));
        });
        let _ = done.await;
    }
}

/// Reads a file. Lines that cannot be read end no session: those sessions are valid until they are
/// too old.
fn kept(path: &Path) -> Logouts {
    let (logouts, bad) = read(path).unwrap_or_else(|error| {
        let path = path.display();
        warn!(%path, %error, "Logouts cannot be read: ended sessions may be valid again.");
        Default::default()
    });
    if let Some(line) = bad.first() {
        let (path, bad) = (path.display(), bad.len());
        warn!(%path, line, bad, "Logouts are damaged: those sessions may be valid again.");
    }
    logouts
}

fn read(path: &Path) -> io::Result<(Logouts, Vec<usize>)> {
    match fs::read(path) {
        // A line that is not text is not a logout. The other lines still count.
        Ok(bytes) => Ok(Logouts::parse(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Default::default()),
        Err(error) => Err(error),
    }
}

/// Writes what is known here, and what another process has written in the meantime.
fn save(path: &Path, latest: &mut Logouts, change: &impl Fn(&mut Logouts)) -> io::Result<()> {
    let folder = path.parent().map(File::open).transpose()?;
    // The lock is freed when the folder is closed. A network disk may not support locks. Then the
    // logout is written without one, which is better than a logout that a restart undoes.
    let is_locked = folder.as_ref().map_or(Ok(true), lock);
    if !matches!(is_locked, Ok(true)) {
        let path = path.display();
        warn!(%path, "The folder of logouts cannot be locked: of two at once one may be lost.");
    }
    // A file that cannot be read is not overwritten: it may contain logouts that are not known
    // here.
    let (others, _bad) = read(path)?;
    latest.merge(others);
    change(latest);
    latest.forget(unix_millis());
    write(path, &latest.to_text())
}

/// Writes the complete file or nothing. Only the owner may read it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Session;
    use crate::auth::UserTable;
    use crate::config::AuthConfig;
    use crate::front::cookie_signer::CookieSigner;

    fn session(id: u128) -> Session {
        let (user, issued) = ("ada".parse().unwrap(), unix_millis());
        Session { id, browser: 1, user, user_mark: 1, issued, signed_by: 0 }
    }

    #[tokio::test]
    async fn what_was_ended_stays_so_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let config = AuthConfig::keys(UserTable::default());
        let ended = EndedSessions::kept_in(Some(folder.path()));
        let admission = Admission::new(&config, CookieSigner::new(), ended.now());
        let all = (0..20).map(|id| ended.end(&admission, move |it| it.end(&session(id))));
        futures_util::future::join_all(all).await;
        let again = EndedSessions::kept_in(Some(folder.path())).now();
        assert!((0..20).all(|id| again.has_ended(&session(id))));
        assert!(!again.has_ended(&session(20)));
        let names: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, [FILE]);
        fs::write(folder.path().join(FILE), "nonsense").unwrap();
        assert_eq!(EndedSessions::kept_in(Some(folder.path())).now(), Logouts::default());
    }

    #[tokio::test]
    async fn a_damaged_line_costs_no_other_and_two_processes_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let mut kept = Logouts::default();
        kept.end(&session(1));
        let text = kept.to_text().into_bytes();
        fs::write(&path, [&b"\xff\xfe\n"[..], text.as_slice(), b"one ada"].concat()).unwrap();
        let config = AuthConfig::keys(UserTable::default());
        let process = || {
            let ended = EndedSessions::kept_in(Some(folder.path()));
            let admission = Admission::new(&config, CookieSigner::new(), ended.now());
            (ended, admission)
        };
        let ((one, of_one), (other, of_other)) = (process(), process());
        one.end(&of_one, |it| it.end(&session(2))).await;
        other.end(&of_other, |it| it.end(&session(3))).await;
        assert!((1..=3).all(|id| other.now().has_ended(&session(id))));
        let (again, bad) = read(&path).unwrap();
        assert!((1..=3).all(|id| again.has_ended(&session(id))) && bad.is_empty());
    }

    #[tokio::test]
    async fn a_logout_of_a_time_to_come_shuts_nobody_out_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let (ada, ahead) = ("ada".parse().unwrap(), unix_millis() + 3_600_000);
        let mut kept = Logouts::default();
        kept.end_all(&ada, ahead);
        fs::write(folder.path().join(FILE), kept.to_text()).unwrap();
        let ended = EndedSessions::kept_in(Some(folder.path()));
        assert!(ended.now().is_ahead(&ada, unix_millis()));
        let config = AuthConfig::keys(UserTable::default());
        let admission = Admission::new(&config, CookieSigner::new(), ended.now());
        let user = ada.clone();
        ended.end(&admission, move |it| it.let_in(&user, unix_millis())).await;
        for known in [ended.now(), EndedSessions::kept_in(Some(folder.path())).now()] {
            assert!(!known.is_ahead(&ada, unix_millis()), "also what the file said before");
        }
    }

    #[tokio::test]
    async fn a_folder_that_takes_nothing_ends_a_session_all_the_same() {
        let config = AuthConfig::keys(UserTable::default());
        let ended = EndedSessions::kept_in(Some(Path::new("/nowhere")));
        let admission = Admission::new(&config, CookieSigner::new(), ended.now());
        ended.end(&admission, |it| it.end(&session(1))).await;
        assert!(ended.now().has_ended(&session(1)));
    }
}
