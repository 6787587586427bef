//! Which files lists and folders show to a client.

use std::sync::Arc;

use super::super::ids::{BackendId, FileRef, Folder, Located};
use super::super::user_folder::UserFolder;
use super::{Files, Holder, Maker, Place, Strangers, user_of};

/// What an output or a preview is to users that is not known to be of a prompt of theirs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Unknown {
    /// Everybody's, if nobody is known to have made it.
    #[default]
    Shared,
    /// Nobody's: names of outputs are counted, so anybody can guess them.
    Hidden,
}

impl Files {
    /// The same ledger with another rule for outputs that are not known.
    #[must_use]
    pub fn with_unknown(self, unknown: Unknown) -> Self {
        Self { unknown, ..self }
    }

    /// Finds the file of a name that carries its backend but no folder: an input, unless it is
    /// known only among the outputs.
    #[must_use]
    pub fn told_at(&self, input: Located) -> Located {
        let file = input.file.in_folder(Folder::Output);
        let output = Located { backend: input.backend, file };
        if !self.knows(&input) && self.knows(&output) { output } else { input }
    }

    /// False for a file that does not exist for a user: another's, or one that is not known, if
    /// such are hidden. `holder` is what is known of it.
    #[must_use]
    pub fn is_for(
        &self,
        folder: Folder,
        path: &str,
        holder: Option<&Holder>,
        user: Option<&str>,
    ) -> bool {
        let Some(name) = user else { return true };
        let has_owner = UserFolder::is_in(path)
            || holder.is_some_and(|it| it.makers.iter().any(|maker| maker.user().is_some()));
        match (self.unknown, folder) {
            (Unknown::Hidden, Folder::Output | Folder::Temp) if !has_owner => false,
            (Unknown::Shared | Unknown::Hidden, _) => match holder {
                Some(holder) => holder.is_for(path, Some(name)),
                // Its path says whose it is, also if nothing else is known of it.
                None => !UserFolder::is_in(path) || UserFolder::of(name).strip(path).is_some(),
            },
        }
    }

    /// True if a list may show it to `askers`: it is theirs, or has no owner. A user is shown the
    /// files of all his clients.
    #[must_use]
    pub fn is_shown_to(&self, at: &Located, askers: &[Maker]) -> bool {
        if let user @ Some(_) = user_of(askers) {
            return self.is_for(at.file.folder, at.file.path(), self.holder(at), user);
        }
        self.holder(at).is_none_or(|holder| {
            holder.makers.is_empty() || holder.makers.iter().any(|it| askers.contains(it))
        })
    }

    /// True if any subfolder of the inputs has files.
    #[must_use]
    pub fn has_subfolders(&self) -> bool {
        !self.folders.is_empty()
    }

    /// The files of this shard that `askers` may mean by a subfolder of the inputs: see
    /// [`meant_of`].
    #[must_use]
    pub fn in_subfolder(&self, subfolder: &str, askers: &[Maker]) -> Vec<Within> {
        let folder = Folder::Input;
        let located = |path: &Arc<str>| {
            let place = self.find_for(folder, path, askers, Strangers::Latest)?;
            let Place::Backend(backend) = *place else { return None };
            let at = Located { backend, file: FileRef::of_path(folder, path)? };
            let makers = self.holder(&at).map(|holder| &holder.makers);
            let is_theirs =
                makers.is_some_and(|makers| makers.iter().any(|it| askers.contains(it)));
            Some(Within { at, is_theirs })
        };
        self.folders.paths(subfolder).filter_map(located).collect()
    }

    /// The files that one backend is known to have in a subfolder of its inputs, but for those of
    /// other users than `askers`.
    #[must_use]
    pub fn in_subfolder_of(
        &self,
        subfolder: &str,
        backend: BackendId,
        askers: &[Maker],
    ) -> Vec<Within> {
        let user = user_of(askers);
        let paths = self.folders.paths(subfolder);
        let file = paths.filter_map(|path| FileRef::of_path(Folder::Input, path));
        let located = file.map(|file| Located { backend, file });
        let known =
            located.filter(|at| self.holder(at).is_some_and(|it| it.is_for(at.file.path(), user)));
        known.map(|at| Within { at, is_theirs: false }).collect()
    }
}

/// A file in a subfolder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Within {
    pub at: Located,
    /// One of the askers made it.
    pub is_theirs: bool,
}

/// The files that a client means by a subfolder, from those of all shards: only the client's own
/// files if there are any, else all.
#[must_use]
pub fn meant_of(mut all: Vec<Within>) -> Vec<Located> {
    if all.iter().any(|within| within.is_theirs) {
        all.retain(|within| within.is_theirs);
    }
    let mut located: Vec<Located> = all.into_iter().map(|within| within.at).collect();
    located.sort_by(|one, other| one.file.cmp(&other.file));
    located
}
