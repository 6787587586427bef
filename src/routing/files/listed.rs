//! Which files lists and folders have for somebody.

use std::sync::Arc;

use super::super::ids::{BackendId, FileRef, Folder, Located};
use super::{Files, Maker, Place, Strangers};

impl Files {
    /// The file of a name that carries its backend but no folder: an input, but for one that is
    /// known among the outputs only.
    #[must_use]
    pub fn told_at(&self, input: Located) -> Located {
        let file = input.file.in_folder(Folder::Output);
        let output = Located { backend: input.backend, file };
        if !self.knows(&input) && self.knows(&output) { output } else { input }
    }

    /// True if a list may show it to these: it is theirs, or nobody's.
    #[must_use]
    pub fn is_shown_to(&self, at: &Located, askers: &[Maker]) -> bool {
        self.holder(at).is_none_or(|holder| {
            holder.makers.is_empty() || holder.makers.iter().any(|it| askers.contains(it))
        })
    }

    /// What one of these means by a subfolder of the inputs: the files in it that are theirs; of
    /// nobody's and strangers' each that was written last.
    #[must_use]
    pub fn in_subfolder(&self, subfolder: &str, askers: &[Maker]) -> Vec<Located> {
        let folder = Folder::Input;
        let located = |path: &Arc<str>| {
            let place = self.find_for(folder, path, askers, Strangers::Latest)?;
            let Place::Backend(backend) = *place else { return None };
            Some(Located { backend, file: FileRef::of_path(folder, path)? })
        };
        let all: Vec<Located> = self.folders.paths(subfolder).filter_map(located).collect();
        let is_theirs = |at: &&Located| {
            let makers = self.holder(at).map(|holder| &holder.makers);
            makers.is_some_and(|makers| makers.iter().any(|it| askers.contains(it)))
        };
        let own: Vec<Located> = all.iter().filter(is_theirs).cloned().collect();
        if own.is_empty() { all } else { own }
    }

    /// The files that one backend is known to have in a subfolder of its inputs.
    #[must_use]
    pub fn in_subfolder_of(&self, subfolder: &str, backend: BackendId) -> Vec<Located> {
        let paths = self.folders.paths(subfolder);
        let file = paths.filter_map(|path| FileRef::of_path(Folder::Input, path));
        let located = file.map(|file| Located { backend, file });
        located.filter(|at| self.holder(at).is_some()).collect()
    }
}
