//! What a name means to somebody, once its shard of the ledger is locked.

use super::Meaning;
use crate::routing::files::{Files, Maker, Place, Strangers, user_of};
use crate::routing::ids::{BackendId, FileRef, Folder, Located};
use crate::routing::servers::ServerKey;
use crate::routing::user_folder::UserFolder;

/// Like [`meaning`](super::Records::meaning), for a caller that looks up many names and holds
/// the shard.
#[must_use]
pub(crate) fn meaning_in(
    files: &Files,
    (folder, path, backend): (Folder, &str, Option<BackendId>),
    (askers, strangers): (&[Maker], Strangers),
) -> Meaning {
    let Some(user) = user_of(askers) else {
        return match backend {
            Some(backend) => at(folder, path, backend),
            None => meaning_of_plain(files, folder, path, (askers, strangers)),
        };
    };
    let own = UserFolder::of(user);
    let Some(path) = own.plain(path) else { return Meaning::Others };
    let within = own.path(&path);
    match backend {
        Some(backend) => match at(folder, &within, backend) {
            Meaning::At(within) if files.knows(&within) => Meaning::At(within),
            Meaning::At(_)
            | Meaning::Perhaps(_)
            | Meaning::Gone(_)
            | Meaning::Unknown
            | Meaning::Others => unknown_own(files, at(folder, &path, backend), user),
        },
        None => {
            let is_own = files.is_named(folder, &within);
            let path = if is_own { within } else { path };
            meaning_of_plain(files, folder, &path, (askers, strangers))
        }
    }
}

/// What a name that says a backend means to a user who is not known to have such a file there.
fn unknown_own(files: &Files, found: Meaning, user: &str) -> Meaning {
    let Meaning::At(at) = found else { return found };
    match (is_for(files, &at, user), files.knows(&at)) {
        (false, _) => Meaning::Others,
        (true, false) => Meaning::Perhaps(at),
        (true, true) => Meaning::At(at),
    }
}

fn at(folder: Folder, path: &str, backend: BackendId) -> Meaning {
    FileRef::of_path(folder, path)
        .map_or(Meaning::Unknown, |file| Meaning::At(Located { backend, file }))
}

/// False for a file of another user, and for a copy of one.
fn is_for(files: &Files, at: &Located, user: &str) -> bool {
    let original = files.original(at);
    let (folder, path) = (original.file.folder, original.file.path());
    files.is_for(folder, path, files.holder(original), Some(user))
}

fn meaning_of_plain(
    files: &Files,
    folder: Folder,
    path: &str,
    (askers, strangers): (&[Maker], Strangers),
) -> Meaning {
    match files.find_for(folder, path, askers, strangers) {
        Some(Place::Backend(backend)) => at(folder, path, *backend),
        Some(Place::Gone(server)) => Meaning::Gone(ServerKey::of_text(server).url),
        None if files.is_named(folder, path) => Meaning::Others,
        None if !files.is_for(folder, path, None, user_of(askers)) => Meaning::Others,
        None => Meaning::Unknown,
    }
}
