//! Sessions that their users have ended, kept in `state.dir`: a restart brings none of them back.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use crate::auth::logouts::Logouts;
use crate::front::admission::Admission;
use crate::lock::{Lock, rank};
use crate::net::unix_millis;

/// Its name in the folder.
const FILE: &str = "sessions.ended";

/// What was ended, and where that stands.
#[derive(Debug)]
pub struct EndedSessions {
    path: Option<PathBuf>,
    latest: Lock<Logouts, { rank::LOGOUTS }>,
}

impl EndedSessions {
    /// What a folder keeps, or nothing.
    #[must_use]
    pub fn kept_in(dir: Option<&Path>) -> Arc<Self> {
        let path = dir.map(|dir| dir.join(FILE));
        let latest = path.as_deref().map(read).unwrap_or_default();
        Arc::new(Self { path, latest: Lock::new(latest) })
    }

    #[must_use]
    pub fn now(&self) -> Logouts {
        self.latest.lock().clone()
    }

    /// Ends sessions: at once, and then so that they stay ended. It goes on to its end, also if
    /// nobody waits for it any more.
    pub async fn end(
        self: &Arc<Self>,
        admission: &Arc<Admission>,
        change: impl FnOnce(&mut Logouts) + Send + 'static,
    ) {
        let (this, admission) = (Arc::clone(self), Arc::clone(admission));
        let done = tokio::task::spawn_blocking(move || {
            // Held while it is written: what is newer is written after it.
            let mut latest = this.latest.lock();
            change(&mut latest);
            latest.forget(unix_millis());
            admission.replace_ended(&Arc::new(latest.clone()));
            let Some(path) = &this.path else { return };
            if let Err(error) = write(path, &latest.to_text()) {
                let path = path.display();
                warn!(%path, %error, "A logout could not be saved: a restart would undo it.");
            }
        });
        let _ = done.await;
    }
}

/// What cannot be read ends nothing: the sessions that were in it hold until they are too old.
fn read(path: &Path) -> Logouts {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Logouts::default(),
        Err(error) => {
            let path = path.display();
            warn!(%path, %error, "Logouts cannot be read: ended sessions may hold again.");
            return Logouts::default();
        }
    };
    Logouts::parse(&text).unwrap_or_else(|line| {
        let path = path.display();
        warn!(%path, line, "Logouts are damaged: ended sessions may hold again.");
        Logouts::default()
    })
}

/// Whole or not at all, and for nobody else to read.
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
        Session { id, browser: 1, user, generation: 1, issued, signed_by: 0 }
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
    async fn a_folder_that_takes_nothing_ends_a_session_all_the_same() {
        let config = AuthConfig::keys(UserTable::default());
        let ended = EndedSessions::kept_in(Some(Path::new("/nowhere")));
        let admission = Admission::new(&config, CookieSigner::new(), ended.now());
        ended.end(&admission, |it| it.end(&session(1))).await;
        assert!(ended.now().has_ended(&session(1)));
    }
}
