//! Other places with the same content as a file.

use smallvec::SmallVec;

use super::super::ids::{BackendId, FileRef, Located};
use super::super::user_folder::UserFolder;
use super::{Files, Maker, Moment, Place, user_of};

/// What is known about a file that is to be copied to a backend.
#[derive(Clone, Debug)]
pub struct ToBring {
    /// The name that it already has there, if it is there.
    pub known: Option<FileRef>,
    /// Where it can be copied from, the original first.
    pub sources: Vec<Located>,
    /// What a copy is to be called: a user's is in his folder, where nobody else's can be.
    pub name: FileRef,
    /// The moment at which this was true.
    pub began: Moment,
}

impl Files {
    /// The name under which a backend has the same content; for the original's own backend, the
    /// original's name.
    #[must_use]
    pub fn copy_on(&self, original: &Located, backend: BackendId) -> Option<FileRef> {
        if original.backend == backend {
            return Some(original.file.clone());
        }
        let copies = &self.holder(original)?.copies;
        copies.iter().find(|copy| copy.backend == backend).map(|copy| copy.file.clone())
    }

    /// The backends with the same content, the original's own first.
    #[must_use]
    pub fn backends_with(&self, original: &Located) -> SmallVec<[BackendId; 2]> {
        let copies = self.holder(original).map(|holder| holder.copies.as_slice());
        let elsewhere = copies.unwrap_or_default().iter().map(|copy| copy.backend);
        std::iter::once(original.backend).chain(elsewhere).collect()
    }

    /// What must be known before a file is copied to a backend for a user, or for anybody. The
    /// folder of another user does not get into the user's graphs: neither the copy that is made
    /// nor one that is there already may be in it.
    #[must_use]
    pub fn to_bring(&self, original: &Located, asker: Option<&str>, backend: BackendId) -> ToBring {
        let own = asker.map(UserFolder::of);
        let is_his =
            |file: &FileRef| own.as_ref().is_none_or(|own| !own.names_another(file.path()));
        let known = self.copy_on(original, backend).filter(is_his);
        let (sources, name) = (self.sources(original), self.name_of_copy(original, asker));
        ToBring { known, sources, name, began: self.moment() }
    }

    fn name_of_copy(&self, original: &Located, asker: Option<&str>) -> FileRef {
        let owners = self.holder(original).map(|it| it.makers.as_slice()).unwrap_or_default();
        let is_asker = |user: &&str| asker == Some(*user);
        let owner = owners.iter().filter_map(Maker::user).find(is_asker).or(user_of(owners));
        let path = original.file.path();
        let own = owner.map(UserFolder::of).filter(|own| own.strip(path).is_none());
        let own = own.and_then(|own| FileRef::of_path(original.file.folder, &own.path(path)));
        own.unwrap_or_else(|| original.file.clone())
    }

    /// The original, then the other places with the same content.
    #[must_use]
    pub fn sources(&self, original: &Located) -> Vec<Located> {
        let copies = self.holder(original).map(|holder| holder.copies.as_slice());
        let mut sources = vec![original.clone()];
        sources.extend(copies.unwrap_or_default().iter().cloned());
        sources
    }

    /// The current position in the order of facts, to mark when a slow operation began.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment(self.next_order)
    }

    /// The file was copied, and the ledger knows it. `copy` has the content of `original`, unless
    /// either was written since the copying began.
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

    /// The copy no longer exists.
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
