//! Where the bytes of a file lie as well.

use smallvec::SmallVec;

use super::super::ids::{BackendId, FileRef, Located};
use super::{Files, Moment, Place};

/// What is known of a file that is to be brought to a backend.
#[derive(Clone, Debug)]
pub struct ToBring {
    /// As what it is there already.
    pub known: Option<FileRef>,
    /// Where it lies, the original first.
    pub sources: Vec<Located>,
    /// When that was so.
    pub began: Moment,
}

impl Files {
    /// The name under which a backend has the same bytes; its own file is its own.
    #[must_use]
    pub fn copy_on(&self, original: &Located, backend: BackendId) -> Option<FileRef> {
        if original.backend == backend {
            return Some(original.file.clone());
        }
        let copies = &self.holder(original)?.copies;
        copies.iter().find(|copy| copy.backend == backend).map(|copy| copy.file.clone())
    }

    /// The backends that have the same bytes, its own first.
    #[must_use]
    pub fn backends_with(&self, original: &Located) -> SmallVec<[BackendId; 2]> {
        let copies = self.holder(original).map(|holder| holder.copies.as_slice());
        let elsewhere = copies.unwrap_or_default().iter().map(|copy| copy.backend);
        std::iter::once(original.backend).chain(elsewhere).collect()
    }

    /// What is to be known before a file is brought to a backend.
    #[must_use]
    pub fn to_bring(&self, original: &Located, backend: BackendId) -> ToBring {
        let (known, sources) = (self.copy_on(original, backend), self.sources(original));
        ToBring { known, sources, began: self.moment() }
    }

    /// The file itself, then where the same bytes lie as well.
    #[must_use]
    pub fn sources(&self, original: &Located) -> Vec<Located> {
        let copies = self.holder(original).map(|holder| holder.copies.as_slice());
        let mut sources = vec![original.clone()];
        sources.extend(copies.unwrap_or_default().iter().cloned());
        sources
    }

    /// Up to where things are known, for what takes its time.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment(self.next_order)
    }

    /// The file, which was learned of, was copied. What lies at `copy` is the same as what lies at
    /// `original`, unless one of both was written anew since the copying began.
    pub fn copied(&mut self, original: &Located, copy: Located, began: Moment) {
        let written = |at| self.holder(at).and_then(|holder| holder.written);
        if [original, &copy].iter().any(|at| written(at).is_some_and(|order| began.0 <= order)) {
            return;
        }
        let place = Place::Backend(original.backend);
        let holders = self.name(&original.file).map(|name| &mut name.holders);
        if let Some(holder) = holders.and_then(|all| all.iter_mut().find(|it| it.place == place)) {
            let mut gone = Vec::new();
            holder.drop_copies(|known| known.backend == copy.backend, &mut gone);
            holder.copies.push(copy.clone());
            gone.iter().for_each(|gone| drop(self.originals.remove(gone)));
            self.originals.insert(copy, original.clone());
        }
    }

    /// The copy is not there any more.
    pub fn copy_is_gone(&mut self, original: &Located, backend: BackendId) {
        let place = Place::Backend(original.backend);
        let mut gone = Vec::new();
        for holder in self.name(&original.file).into_iter().flat_map(|name| &mut name.holders) {
            if holder.place == place {
                holder.drop_copies(|copy| copy.backend == backend, &mut gone);
            }
        }
        gone.iter().for_each(|gone| drop(self.originals.remove(gone)));
    }
}
