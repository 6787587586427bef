//! Which backend made the file of this name (promise R1: where).
//!
//! Learned from the outputs that backends tell of. A picture is asked for by `<img>` elements and
//! by scripts that never say who they are, so its name has to say where it lies.
//!
//! # Invariants
//!
//! - It never holds more than `capacity` names; past it the name that was learned first goes.
//! - A name is ascribed only to backends that have told of it.
//!
//! Several backends may have made the same name. Then the asker's own backend has it if it is one
//! of them, else the one that made it last.

use std::collections::{HashMap, VecDeque};

use smallvec::SmallVec;

use super::ids::BackendId;

/// A file as ComfyUI names it in outputs and in `/view`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct FileRef {
    /// `output`, `temp` or `input`.
    pub kind: String,
    /// Without slashes at its ends; empty for the folder itself.
    pub subfolder: String,
    pub filename: String,
}

/// The files that are known, and who made them.
#[derive(Debug)]
pub struct Files {
    /// The last to have made it is the last.
    makers: HashMap<FileRef, SmallVec<[BackendId; 2]>>,
    /// In the order in which the names were learned.
    order: VecDeque<FileRef>,
    capacity: usize,
}

impl Files {
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { makers: HashMap::new(), order: VecDeque::new(), capacity }
    }

    /// `backend` has told of a file that it made.
    pub fn learn(&mut self, file: FileRef, backend: BackendId) {
        if let Some(makers) = self.makers.get_mut(&file) {
            makers.retain(|maker| *maker != backend);
            makers.push(backend);
            return;
        }
        if self.capacity <= self.order.len()
            && let Some(oldest) = self.order.pop_front()
        {
            self.makers.remove(&oldest);
        }
        self.order.push_back(file.clone());
        self.makers.insert(file, SmallVec::from_slice(&[backend]));
    }

    /// Who has the file: the `own` backend of the asker if it made one of this name, else the
    /// last to have made one.
    #[must_use]
    pub fn find(&self, file: &FileRef, own: Option<BackendId>) -> Option<BackendId> {
        let makers = self.makers.get(file)?;
        own.filter(|own| makers.contains(own)).or_else(|| makers.last().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(filename: &str) -> FileRef {
        FileRef {
            kind: "output".to_owned(),
            subfolder: String::new(),
            filename: filename.to_owned(),
        }
    }

    #[test]
    fn a_name_made_twice_is_the_askers_own_else_the_newest() {
        let mut files = Files::new(10);
        files.learn(file("a.png"), BackendId(0));
        files.learn(file("a.png"), BackendId(1));
        assert_eq!(files.find(&file("a.png"), None), Some(BackendId(1)));
        assert_eq!(files.find(&file("a.png"), Some(BackendId(0))), Some(BackendId(0)));
        assert_eq!(files.find(&file("a.png"), Some(BackendId(2))), Some(BackendId(1)));
        files.learn(file("a.png"), BackendId(0));
        assert_eq!(files.find(&file("a.png"), None), Some(BackendId(0)));
        assert_eq!(files.find(&file("b.png"), Some(BackendId(0))), None);
    }

    #[test]
    fn it_holds_no_more_than_it_may_and_forgets_the_oldest_name() {
        let mut files = Files::new(2);
        for name in ["a.png", "b.png", "c.png"] {
            files.learn(file(name), BackendId(0));
        }
        assert_eq!(files.find(&file("a.png"), None), None);
        assert_eq!(files.find(&file("c.png"), None), Some(BackendId(0)));
        assert_eq!((files.makers.len(), files.order.len()), (2, 2));
    }
}
