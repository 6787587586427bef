//! The ledger of files: which backend has the file of this name, and who made it (promises R2, R3,
//! R4).
//!
//! Every ComfyUI counts its pictures from 1, so `ComfyUI_00001_.png` exists on each. The plain name
//! belongs to the backend that was first seen to have it, its *owner*; the file of the same name on
//! another backend is named with its backend (see [`crate::comfy::names`]). So a name that was
//! given to a client means one file for as long as the ledger remembers it.
//!
//! # Invariants
//!
//! - The owner of a name never changes while the name is remembered.
//! - It never holds more than `capacity` names, nor a name that was last learned of longer than
//!   `max_age` ago; past either the one that was learned of first goes.
//! - A copy counts as the same file as its original only until either is written anew.

use core::net::IpAddr;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::ids::{BackendId, ClientId, FileRef, Folder, Located};

/// How many makers of one file are remembered, the latest. Backends give a cached picture to
/// everyone who asks for it.
const MAKERS_MAX: usize = 8;

/// How soon a name that nobody knows is looked for again.
const SEARCH_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How many such names are remembered.
const SEARCHED_MAX: usize = 10_000;

/// Who made a file: a client, or whoever uploaded it from an address without a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Maker {
    Client(ClientId),
    Address(IpAddr),
}

/// Where a file lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    Backend(BackendId),
    /// A server, by its URL, that is not configured any more. It keeps its names.
    Gone(Arc<str>),
}

/// A backend that has a file of some name.
#[derive(Clone, Debug)]
pub struct Holder {
    pub place: Place,
    /// The latest last; none if it was found there.
    pub makers: SmallVec<[Maker; 1]>,
    /// When it was learned of, among all of them.
    pub order: u64,
    /// Where the same bytes lie as well.
    copies: Vec<Located>,
}

/// How a name is told to clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown {
    Plain,
    /// With its backend: the plain name is another's.
    WithBackend,
}

/// Whether something was new.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Learned {
    New,
    Known,
}

/// How it is known that a backend has a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// It told of it, or it was found there.
    There,
    /// It was written there just now.
    Written,
}

/// The files that are known.
#[derive(Debug)]
pub struct Files {
    /// By folder, then by path.
    names: [HashMap<Arc<str>, Name>; 3],
    /// In the order in which the names were last learned of; those whose stamp is not their name's
    /// any more are skipped.
    order: VecDeque<(FileRef, u64)>,
    next_order: u64,
    count: usize,
    evicted: Vec<(FileRef, Place)>,
    /// Names that nobody knew, and when they were looked for.
    searched: HashMap<FileRef, Instant>,
    searched_order: VecDeque<FileRef>,
    capacity: usize,
    max_age: Duration,
}

/// What is known of one name.
#[derive(Debug)]
struct Name {
    /// The owner first, then in the order in which they were learned of. Never empty.
    holders: SmallVec<[Holder; 1]>,
    stamp: u64,
    learned: Instant,
}

impl Files {
    #[must_use]
    pub fn new(capacity: usize, max_age: Duration) -> Self {
        Self {
            names: [HashMap::new(), HashMap::new(), HashMap::new()],
            order: VecDeque::new(),
            next_order: 0,
            count: 0,
            evicted: Vec::new(),
            searched: HashMap::new(),
            searched_order: VecDeque::new(),
            capacity,
            max_age,
        }
    }

    /// The file is there; `makers`, if they are known, made it.
    pub fn learn(&mut self, at: &Located, makers: &[Maker], seen: Seen, now: Instant) -> Learned {
        if seen == Seen::Written {
            self.written(at);
        }
        let order = self.next_order;
        let place = Place::Backend(at.backend);
        let holders = self.name(&at.file).map(|name| &mut name.holders);
        if let Some(holder) = holders.and_then(|all| all.iter_mut().find(|it| it.place == place)) {
            return holder.made_by(makers);
        }
        let mut holder = Holder::new(place, order);
        holder.made_by(makers);
        self.enter(&at.file, holder, now);
        self.evict(now);
        Learned::New
    }

    /// Enters a holder as it was before a restart. They come in their order.
    pub fn restore(&mut self, file: &FileRef, holder: Holder, learned: Instant, now: Instant) {
        self.next_order = self.next_order.max(holder.order);
        self.enter(file, holder, learned);
        self.evict(now);
    }

    /// The files that were forgotten since the last call.
    pub fn take_evicted(&mut self) -> Vec<(FileRef, Place)> {
        std::mem::take(&mut self.evicted)
    }

    /// What is known of the file of this name on one backend.
    #[must_use]
    pub fn holder(&self, at: &Located) -> Option<&Holder> {
        let name = self.names[at.file.folder as usize].get(at.file.path())?;
        name.holders.iter().find(|holder| holder.place == Place::Backend(at.backend))
    }

    /// How the file of a backend is named to clients.
    #[must_use]
    pub fn shown(&self, at: &Located) -> Shown {
        let Some(owner) = self.owner(at.file.folder, at.file.path()) else { return Shown::Plain };
        let is_owners = owner.place == Place::Backend(at.backend) || owner.copies.contains(at);
        if is_owners { Shown::Plain } else { Shown::WithBackend }
    }

    /// Where the file of a plain name lies that one of `askers` may have made: the owner's, if it
    /// was given to one of them; else the latest that one of them made, because scripts leave out
    /// what they did not write themselves; else the owner's.
    #[must_use]
    pub fn find(&self, folder: Folder, path: &str, askers: &[Maker]) -> Option<&Place> {
        let name = self.names[folder as usize].get(path)?;
        let is_theirs = |holder: &&Holder| holder.makers.iter().any(|it| askers.contains(it));
        let owner = name.holders.first()?;
        let own = name.holders.iter().rev().find(is_theirs);
        Some(&own.filter(|_| !is_theirs(&owner)).unwrap_or(owner).place)
    }

    /// For when names are not told apart: the asker's own backend's, if it has one of this name,
    /// else that of the last to have made one.
    #[must_use]
    pub fn find_nearest(&self, file: &FileRef, own: Option<BackendId>) -> Option<BackendId> {
        let name = self.names[file.folder as usize].get(file.path())?;
        let own = own.map(Place::Backend);
        let nearest = name
            .holders
            .iter()
            .rev()
            .max_by_key(|holder| (own.as_ref() == Some(&holder.place), holder.order))?;
        match nearest.place {
            Place::Backend(backend) => Some(backend),
            Place::Gone(_) => None,
        }
    }

    /// The name under which a backend has the same bytes; its own file is its own.
    #[must_use]
    pub fn copy_on(&self, original: &Located, backend: BackendId) -> Option<FileRef> {
        if original.backend == backend {
            return Some(original.file.clone());
        }
        let copies = &self.holder(original)?.copies;
        copies.iter().find(|copy| copy.backend == backend).map(|copy| copy.file.clone())
    }

    /// The file itself, then where the same bytes lie as well.
    #[must_use]
    pub fn sources(&self, original: &Located) -> Vec<Located> {
        let copies = self.holder(original).map(|holder| holder.copies.as_slice());
        let mut sources = vec![original.clone()];
        sources.extend(copies.unwrap_or_default().iter().cloned());
        sources
    }

    /// The file, which was learned of, was copied. What lies at `copy` is the same as what lies at
    /// `original`.
    pub fn copied(&mut self, original: &Located, copy: Located) {
        let place = Place::Backend(original.backend);
        let holders = self.name(&original.file).map(|name| &mut name.holders);
        if let Some(holder) = holders.and_then(|all| all.iter_mut().find(|it| it.place == place)) {
            holder.copies.retain(|known| known.backend != copy.backend);
            holder.copies.push(copy);
        }
    }

    /// The copy is not there any more.
    pub fn copy_is_gone(&mut self, original: &Located, backend: BackendId) {
        let place = Place::Backend(original.backend);
        for holder in self.name(&original.file).into_iter().flat_map(|name| &mut name.holders) {
            if holder.place == place {
                holder.copies.retain(|copy| copy.backend != backend);
            }
        }
    }

    /// True if all backends may be asked for a name that nobody knows; it is noted as asked for.
    pub fn may_search(&mut self, file: &FileRef, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.duration_since(*at) < SEARCH_AGAIN_AFTER;
        if self.searched.get(file).is_some_and(is_recent) {
            return false;
        }
        if self.searched.insert(file.clone(), now).is_none() {
            self.searched_order.push_back(file.clone());
        }
        while SEARCHED_MAX < self.searched_order.len() {
            if let Some(oldest) = self.searched_order.pop_front() {
                self.searched.remove(&oldest);
            }
        }
        true
    }

    /// How many names are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn name(&mut self, file: &FileRef) -> Option<&mut Name> {
        self.names[file.folder as usize].get_mut(file.path())
    }

    fn owner(&self, folder: Folder, path: &str) -> Option<&Holder> {
        self.names[folder as usize].get(path)?.holders.first()
    }

    /// What lies there is new: copies of what was there before are of other bytes, and so is what
    /// was copied to there.
    fn written(&mut self, at: &Located) {
        for holder in self.name(&at.file).into_iter().flat_map(|name| &mut name.holders) {
            if holder.place == Place::Backend(at.backend) {
                holder.copies.clear();
            }
            holder.copies.retain(|copy| copy != at);
        }
    }

    fn enter(&mut self, file: &FileRef, holder: Holder, learned: Instant) {
        let stamp = self.next_order;
        self.next_order += 1;
        let names = &mut self.names[file.folder as usize];
        let is_new = !names.contains_key(file.path());
        let name = names.entry(Arc::clone(file.shared_path())).or_insert_with(|| Name {
            holders: SmallVec::new(),
            stamp,
            learned,
        });
        name.holders.push(holder);
        (name.stamp, name.learned) = (stamp, learned);
        self.count += usize::from(is_new);
        self.order.push_back((file.clone(), stamp));
    }

    fn evict(&mut self, now: Instant) {
        while let Some((file, stamp)) = self.order.front() {
            let names = &mut self.names[file.folder as usize];
            let name = names.get(file.path()).filter(|name| name.stamp == *stamp);
            let is_kept = name.is_some_and(|name| {
                let age = now.saturating_duration_since(name.learned);
                self.count <= self.capacity && age < self.max_age
            });
            if is_kept {
                return;
            }
            let is_current = name.is_some();
            let Some((file, _)) = self.order.pop_front() else { return };
            if is_current && let Some(name) = self.names[file.folder as usize].remove(file.path()) {
                self.count -= 1;
                let gone = name.holders.into_iter().map(|holder| (file.clone(), holder.place));
                self.evicted.extend(gone);
            }
        }
    }
}

impl Holder {
    #[must_use]
    pub fn new(place: Place, order: u64) -> Self {
        Self { place, makers: SmallVec::new(), order, copies: Vec::new() }
    }

    /// These made it too.
    pub fn made_by(&mut self, makers: &[Maker]) -> Learned {
        let mut learned = Learned::Known;
        for maker in makers {
            if self.makers.contains(maker) {
                continue;
            }
            if self.makers.len() == MAKERS_MAX {
                self.makers.remove(0);
            }
            self.makers.push(maker.clone());
            learned = Learned::New;
        }
        learned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: BackendId = BackendId(0);
    const B: BackendId = BackendId(1);
    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn file(path: &str) -> FileRef {
        FileRef::of_path(Folder::Output, path).unwrap()
    }

    fn at(backend: BackendId, path: &str) -> Located {
        Located { backend, file: file(path) }
    }

    fn client(name: &str) -> Maker {
        Maker::Client(ClientId::parse(name).unwrap())
    }

    /// A ledger that has learned of these, in their order.
    fn files(made: &[(BackendId, &str, &str)]) -> Files {
        let mut files = Files::new(10, WEEK);
        for (backend, path, maker) in made {
            let seen = Seen::There;
            files.learn(&at(*backend, path), &[client(maker)], seen, crate::net::now());
        }
        files
    }

    fn found(files: &Files, path: &str, asker: &str) -> Option<Place> {
        files.find(Folder::Output, path, &[client(asker)]).cloned()
    }

    #[test]
    fn the_plain_name_is_the_first_ones_for_ever() {
        let files = files(&[(A, "x.png", "ada"), (B, "x.png", "bob"), (A, "x.png", "bob")]);
        assert_eq!(files.shown(&at(A, "x.png")), Shown::Plain);
        assert_eq!(files.shown(&at(B, "x.png")), Shown::WithBackend);
        assert_eq!(files.shown(&at(B, "y.png")), Shown::Plain, "nobody's yet");
    }

    #[test]
    fn a_plain_name_means_what_its_asker_was_given_else_what_he_made_else_the_owners() {
        let files = files(&[(A, "x.png", "ada"), (B, "x.png", "bob"), (B, "x.png", "ada")]);
        assert_eq!(found(&files, "x.png", "ada"), Some(Place::Backend(A)));
        assert_eq!(found(&files, "x.png", "bob"), Some(Place::Backend(B)));
        assert_eq!(found(&files, "x.png", "eve"), Some(Place::Backend(A)));
        assert_eq!(found(&files, "y.png", "ada"), None);
    }

    #[test]
    fn a_copy_is_the_same_file_until_either_is_written_anew() {
        let original = at(A, "x.png");
        let now = crate::net::now();
        for overwritten in [at(B, "x.png"), original.clone()] {
            let mut files = files(&[(A, "x.png", "ada")]);
            files.copied(&original, at(B, "x.png"));
            assert_eq!(files.copy_on(&original, B), Some(file("x.png")));
            assert_eq!(files.shown(&at(B, "x.png")), Shown::Plain);
            assert_eq!(files.sources(&original), [original.clone(), at(B, "x.png")]);
            files.learn(&overwritten, &[client("bob")], Seen::Written, now);
            assert_eq!(files.copy_on(&original, B), None, "{overwritten:?}");
        }
    }

    #[test]
    fn a_copy_under_another_name_is_found_by_its_original_and_owns_no_name() {
        let mut files = files(&[(A, "x.png", "ada"), (B, "x.png", "bob")]);
        files.copied(&at(A, "x.png"), at(B, "x (1).png"));
        assert_eq!(files.copy_on(&at(A, "x.png"), B), Some(file("x (1).png")));
        assert_eq!(files.copy_on(&at(B, "x.png"), B), Some(file("x.png")));
        assert_eq!(found(&files, "x (1).png", "ada"), None);
        files.copy_is_gone(&at(A, "x.png"), B);
        assert_eq!(files.copy_on(&at(A, "x.png"), B), None);
    }

    #[test]
    fn what_was_learned_first_goes_first_whole_and_is_told_of() {
        let mut files = Files::new(2, WEEK);
        let (t, seen) = (crate::net::now(), Seen::There);
        for (backend, path) in [(A, "a.png"), (A, "b.png"), (B, "a.png"), (A, "c.png")] {
            files.learn(&at(backend, path), &[], seen, t);
        }
        assert_eq!(files.take_evicted(), [(file("b.png"), Place::Backend(A))]);
        files.learn(&at(A, "d.png"), &[], seen, t);
        let both = [(file("a.png"), Place::Backend(A)), (file("a.png"), Place::Backend(B))];
        assert_eq!(files.take_evicted(), both);
        files.learn(&at(A, "e.png"), &[], seen, t + WEEK);
        assert_eq!((files.len(), files.take_evicted().len()), (1, 2));
    }

    #[test]
    fn a_name_that_nobody_knows_is_looked_for_once_a_minute() {
        let (mut files, t) = (files(&[]), crate::net::now());
        assert!(files.may_search(&file("a.png"), t));
        assert!(!files.may_search(&file("a.png"), t + Duration::from_secs(59)));
        assert!(files.may_search(&file("b.png"), t));
        assert!(files.may_search(&file("a.png"), t + Duration::from_secs(60)));
    }

    #[test]
    fn where_names_are_not_told_apart_the_nearest_counts() {
        let files = files(&[(A, "x.png", "ada"), (B, "x.png", "bob")]);
        assert_eq!(files.find_nearest(&file("x.png"), Some(A)), Some(A));
        assert_eq!(files.find_nearest(&file("x.png"), None), Some(B));
        assert_eq!(files.find_nearest(&file("y.png"), Some(A)), None);
    }
}
