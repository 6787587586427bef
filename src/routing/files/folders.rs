//! The files in subfolders of the inputs, for nodes that take a whole folder and name no file.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::super::ids::{FileRef, Folder};

/// The files of the inputs' subfolders, by subfolder.
#[derive(Debug, Default)]
pub(super) struct Folders(HashMap<String, BTreeSet<Arc<str>>>);

impl Folders {
    pub(super) fn add(&mut self, file: &FileRef) {
        if let Some(subfolder) = subfolder(file) {
            self.0.entry(subfolder.to_owned()).or_default().insert(Arc::clone(file.shared_path()));
        }
    }

    pub(super) fn remove(&mut self, file: &FileRef) {
        let Some(subfolder) = subfolder(file) else { return };
        if let Some(paths) = self.0.get_mut(subfolder) {
            paths.remove(file.path());
            if paths.is_empty() {
                self.0.remove(subfolder);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn paths(&self, subfolder: &str) -> impl Iterator<Item = &Arc<str>> {
        self.0.get(subfolder).into_iter().flatten()
    }
}

fn subfolder(file: &FileRef) -> Option<&str> {
    let subfolder = file.subfolder();
    (file.folder == Folder::Input && !subfolder.is_empty()).then_some(subfolder)
}
