//! Opens the journal, and finds the place for it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};

use crate::config::{self, Config, SealKey, StateDir};
use crate::journal::disk::Disk;
use crate::journal::record::Saved;
use crate::journal::seal::{OnUnopened, Opened, Seal};
use crate::journal::{Journal, JournalError, Store};
use crate::tasks::Tasks;

/// Opens the journal and reads it whole, before anything else is begun. What is nobody's is given
/// to the user who adopts it.
pub(super) async fn open_journal(
    config: &Config,
    home: Option<Box<dyn Store>>,
    writers: &Tasks,
) -> io::Result<(Journal, Saved)> {
    let home = match home {
        Some(home) => Some(home),
        None => disk(&config.state.dir)?,
    };
    let Some(mut home) = home else {
        if config.queue.is_used() {
            warn!(
                "Prompts wait in Mooring (`queue.depth`), and there is no journal: a restart \
                   forgets them, and their clients are not told."
            );
        }
        return Ok((Journal::in_memory(), Saved::default()));
    };
    let mut saved = home.load().map_err(io::Error::other)?;
    let seal = Seal::new(config.state.seal_keys.iter().map(SealKey::bytes));
    open_bodies(config, seal.as_ref(), (&mut *home, &mut saved)).await?;
    if let Some(user) = config.auth.adopter() {
        let batch = Arc::new(saved.adoption(user.shared()));
        if !batch.is_empty() {
            home.commit(Arc::clone(&batch)).await.map_err(io::Error::other)?;
            let clients = batch.clients.values().flatten().count();
            info!(%user, clients, prompts = batch.prompts.len(),
                "Gave to this user what belonged to nobody.");
            saved = saved.after(&batch);
        }
    }
    Ok((Journal::open(home, writers).sealed(seal), saved))
}

/// Opens the bodies of prompts that wait, and writes those anew that another key has sealed, or
/// none.
async fn open_bodies(
    config: &Config,
    seal: Option<&Seal>,
    (home, saved): (&mut dyn Store, &mut Saved),
) -> io::Result<()> {
    let on_unopened = match config.state.on_unopened {
        config::OnUnopened::Refuse => OnUnopened::Refuse,
        config::OnUnopened::Lose => OnUnopened::Lose,
    };
    let opened = Seal::opens(seal, saved, on_unopened);
    let Opened { anew, lost } = opened.map_err(io::Error::other)?;
    if let Some(seal) = seal {
        info!(key = seal.id(), "Bodies of prompts that wait are sealed with this key.");
    }
    if 0 < lost {
        warn!(lost, "No key opens the bodies of these prompts: they are lost, as configured.");
    }
    let bodies = anew.bodies.values().flatten().count();
    if !anew.is_empty() {
        home.commit(Arc::new(anew)).await.map_err(io::Error::other)?;
    }
    if 0 < bodies {
        info!(
            bodies,
            "Sealed bodies that were not sealed with this key. Their old text may be left in free \
             pages of the file."
        );
    }
    Ok(())
}

/// The journal's folder, if there is one. What nobody named may be missing, but not silently.
fn disk(dir: &StateDir) -> io::Result<Option<Box<dyn Store>>> {
    const FORGETS: &str = "There is no journal: a restart forgets who works where, and which \
                           prompts are pending. `state.dir` names a folder for it; `none` is \
                           for who wants none.";
    let open = |path: &Path| Disk::open(path).map(|disk| Box::new(disk) as Box<dyn Store>);
    match dir {
        StateDir::Written(path) => open(path).map(Some).map_err(io::Error::other),
        StateDir::Default(path) => match open(path) {
            Ok(disk) => {
                info!(dir = %path.display(), "The journal is kept here.");
                Ok(Some(disk))
            }
            Err(error @ JournalError::Io { .. }) => {
                warn!(dir = %path.display(), %error, "{FORGETS}");
                Ok(None)
            }
            // What is there and cannot be used holds prompts: they are not forgotten unasked.
            Err(
                error @ (JournalError::InUse { .. }
                | JournalError::Damaged { .. }
                | JournalError::Newer { .. }
                | JournalError::Write { .. }
                | JournalError::Store { .. }
                | JournalError::Sealed { .. }
                | JournalError::Changed { .. }),
            ) => Err(io::Error::other(error)),
        },
        StateDir::Unset => {
            warn!("{FORGETS}");
            Ok(None)
        }
        StateDir::Nowhere => {
            info!("There is no journal, as configured: a restart forgets everything.");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_that_nobody_named_may_be_missing_but_not_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "not a folder").unwrap();
        assert!(disk(&StateDir::Default(file.join("state"))).unwrap().is_none());
        std::fs::write(folder.path().join(crate::journal::disk::FILE), "no journal").unwrap();
        let error = disk(&StateDir::Default(folder.path().to_owned())).unwrap_err().to_string();
        assert!(error.contains("is damaged") && error.contains("move it away"), "{error}");
    }
}
