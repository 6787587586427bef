//! The ledger of files: which backend has the file of this name, and who made it (promises R2, R3,
//! R4).
//!
//! Every ComfyUI counts its pictures from 1, so `ComfyUI_00001_.png` exists on each. The plain name
//! belongs to the backend on which the file was seen first, its *owner*. The file of the same name
//! on another backend gets a name that contains its backend (see [`crate::comfy::names`]). So a
//! name that a client was given means one file for as long as the ledger remembers it.
//!
//! The ledger is divided into shards by [`key_of`]; this is one shard.
//!
//! # Invariants
//!
//! - The owner of a name never changes while the name is remembered.
//! - It never holds more than `capacity` names, nor a name whose last update is older than
//!   `max_age`. Beyond either limit, the name with the oldest update is dropped.
//! - A copy counts as the same file as its original only until either is written anew.

mod copies;
mod folders;
mod holder;
mod key;
mod listed;
mod searched;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::ids::{BackendId, FileRef, Folder, Located};
pub use copies::ToBring;
use folders::Folders;
pub use holder::{Holder, Learned, Maker, Place, user_of};
pub use key::key_of;
pub use listed::{Unknown, Within, meant_of};
use searched::Searched;

/// How often the age of a name that is in use begins anew, within the longest age.
const RENEWALS: u32 = 16;

/// How a file name is given to clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shown {
    Plain,
    /// With its backend's name, because the plain name belongs to another backend.
    WithBackend,
}

/// What a plain name means to somebody who has no file of that name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Strangers {
    /// The file of the backend that owns the plain name. So a link that was passed on shows
    /// everyone the same file as its maker.
    Owners,
    /// The file that was written last on any backend, as with one ComfyUI. A stranger's older
    /// picture is then never used unnoticed.
    Latest,
}

/// How the gateway knows that a backend has a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// The backend named it, or it was found there.
    There,
    /// It was stored there just now, without leave to overwrite another: to its maker the plain
    /// name goes on to mean the file that he had under it before, as with one ComfyUI.
    Added,
    /// It was written there just now.
    Written,
}

impl Seen {
    /// True if the file has new content.
    #[must_use]
    pub fn is_new_content(self) -> bool {
        match self {
            Self::There => false,
            Self::Added | Self::Written => true,
        }
    }
}

/// A position in the order in which facts are learned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moment(u64);

/// The known files of one shard.
#[derive(Debug)]
pub struct Files {
    /// By folder, then by path.
    names: [HashMap<Arc<str>, Name>; 3],
    /// In the order of the last updates. An entry whose stamp differs from its name's is outdated,
    /// and is skipped.
    order: VecDeque<(FileRef, u64)>,
    next_order: u64,
    count: usize,
    evicted: Vec<(FileRef, Place)>,
    /// Copies and their originals.
    originals: HashMap<Located, Located>,
    /// Unknown names, and when they were searched for.
    searched: Searched,
    folders: Folders,
    capacity: usize,
    max_age: Duration,
    unknown: Unknown,
}

/// What is known of one name.
#[derive(Debug)]
struct Name {
    /// The owner first, then in the order in which they were learned. Never empty.
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
            originals: HashMap::new(),
            searched: Searched::default(),
            folders: Folders::default(),
            capacity,
            max_age,
            unknown: Unknown::default(),
        }
    }

    /// Learns that the file exists, and that `makers` made it, if they are known.
    pub fn learn(&mut self, at: &Located, makers: &[Maker], seen: Seen, now: Instant) -> Learned {
        if seen.is_new_content() {
            self.written(at);
        }
        let order = self.next_order;
        let place = Place::Backend(at.backend);
        let written = seen.is_new_content().then_some(order);
        let holders = self.name(&at.file).map(|name| &mut name.holders);
        if let Some(holder) = holders.and_then(|all| all.iter_mut().find(|it| it.place == place)) {
            let learned = holder.made_by(makers);
            if written.is_some() {
                holder.written = written;
                holder.yields &= seen == Seen::Added;
                self.next_order += 1;
            }
            let renewed = self.renew(&at.file, now);
            return if written.is_some() { Learned::New } else { learned.or(renewed) };
        }
        let mut holder = Holder::new(place, order);
        holder.written = written;
        holder.yields = seen == Seen::Added;
        holder.made_by(makers);
        self.enter(&at.file, holder, now);
        self.evict(now);
        Learned::New
    }

    /// Restores a holder from before a restart. Holders must be restored in their order. Two
    /// records of one backend's file become one holder.
    pub fn restore(&mut self, file: &FileRef, holder: Holder, learned: Instant, now: Instant) {
        let latest = holder.written.map_or(holder.order, |written| written.max(holder.order));
        self.next_order = self.next_order.max(latest + 1);
        let known = self.name(file).map(|name| &mut name.holders);
        let known = known.and_then(|all| all.iter_mut().find(|it| it.place == holder.place));
        if let Some(known) = known {
            known.made_by(&holder.makers);
            known.written = known.written.max(holder.written);
            known.yields &= holder.yields;
            return;
        }
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

    /// True if some backend is known to have a file of this name, whoever's it is.
    #[must_use]
    pub fn is_named(&self, folder: Folder, path: &str) -> bool {
        self.names[folder as usize].contains_key(path)
    }

    /// True if this file is known, or a copy of one that is.
    #[must_use]
    pub fn knows(&self, at: &Located) -> bool {
        let name = self.names[at.file.folder as usize].get(at.file.path());
        let is_it = |it: &Holder| it.place == Place::Backend(at.backend) || it.copies.contains(at);
        name.is_some_and(|name| name.holders.iter().any(is_it))
    }

    /// The original of a copy; the file itself if it is not a copy.
    #[must_use]
    pub fn original<'a>(&'a self, at: &'a Located) -> &'a Located {
        self.originals.get(at).unwrap_or(at)
    }

    /// How the file of a backend is named to clients.
    #[must_use]
    pub fn shown(&self, at: &Located) -> Shown {
        let Some(owner) = self.owner(at.file.folder, at.file.path()) else { return Shown::Plain };
        let is_owners = owner.place == Place::Backend(at.backend) || owner.copies.contains(at);
        if is_owners { Shown::Plain } else { Shown::WithBackend }
    }

    /// Where the file of a plain name is that one of `askers` may have made; strangers get the
    /// owner's. See [`Self::find_for`].
    #[must_use]
    pub fn find(&self, folder: Folder, path: &str, askers: &[Maker]) -> Option<&Place> {
        self.find_for(folder, path, askers, Strangers::Owners)
    }

    /// Where the file of a plain name is that one of `askers` may have made.
    ///
    /// - The owner's, if one of them was given the plain name for it.
    /// - Else the latest that one of them wrote or made, because scripts leave out the backend's
    ///   name. One that was stored beside an older one of theirs, without leave to overwrite it,
    ///   does not count: with one ComfyUI it would have got another name. A maker without a name
    ///   (an address) never counts here for somebody who was given a name: an application behind
    ///   the address uploads `avatar.png` for each of its users.
    /// - If none of them has one: as `strangers` says.
    /// - A user's is never found for another user.
    #[must_use]
    pub fn find_for(
        &self,
        folder: Folder,
        path: &str,
        askers: &[Maker],
        strangers: Strangers,
    ) -> Option<&Place> {
        let name = self.names[folder as usize].get(path)?;
        // Nearly always there is one, and whoever asks means that.
        let user = user_of(askers);
        if let [only] = name.holders.as_slice() {
            return self.is_for(folder, path, Some(only), user).then_some(&only.place);
        }
        let all = || name.holders.iter().filter(|it| self.is_for(folder, path, Some(it), user));
        let is_theirs = |holder: &&Holder| holder.makers.iter().any(|it| askers.contains(it));
        let was_given = |holder: &Holder| {
            let is_given = |it: &Maker| !matches!(it, Maker::Address(_)) && askers.contains(it);
            holder.makers.iter().any(is_given)
        };
        let owner = all().next()?;
        if was_given(owner) {
            return Some(&owner.place);
        }
        let theirs = || all().filter(is_theirs);
        let latest = theirs().filter(|it| !it.yields).max_by_key(|it| it.recency());
        let own = latest.or_else(|| theirs().min_by_key(|it| it.order));
        let found = own.unwrap_or_else(|| match strangers {
            Strangers::Owners => owner,
            Strangers::Latest => {
                let is_here = |holder: &Holder| matches!(holder.place, Place::Backend(_));
                let recency = |it: &&Holder| (is_here(it), it.recency());
                all().max_by_key(recency).unwrap_or(owner)
            }
        });
        Some(&found.place)
    }

    /// For when names are not told apart: the file on the caller's own backend, if it has one of
    /// this name, else the one that was made last.
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

    /// True if all backends may be asked for an unknown name. Notes that they were asked.
    pub fn may_search(&mut self, file: &FileRef, now: Instant) -> bool {
        self.searched.may_search(file, now)
    }

    /// The number of known names.
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

    /// The file has new content: its copies no longer match it, and it no longer matches its
    /// original.
    fn written(&mut self, at: &Located) {
        let mut gone = Vec::new();
        for holder in self.name(&at.file).into_iter().flat_map(|name| &mut name.holders) {
            if holder.place == Place::Backend(at.backend) {
                holder.drop_copies(|_| true, &mut gone);
            }
        }
        // It may have another name than its original.
        let original = self.originals.get(at).map(|original| original.file.clone());
        let original = original.and_then(|file| self.name(&file));
        for holder in original.into_iter().flat_map(|name| &mut name.holders) {
            holder.drop_copies(|copy| copy == at, &mut gone);
        }
        gone.iter().for_each(|gone| drop(self.originals.remove(gone)));
    }

    /// What is still in use is not forgotten by its age. Done so seldom that outdated entries of
    /// the order stay few.
    fn renew(&mut self, file: &FileRef, now: Instant) -> Learned {
        let (stamp, often) = (self.next_order, self.max_age / RENEWALS);
        let Some(name) = self.name(file) else { return Learned::Known };
        if now.saturating_duration_since(name.learned) < often {
            return Learned::Known;
        }
        (name.stamp, name.learned) = (stamp, now);
        self.next_order += 1;
        self.order.push_back((file.clone(), stamp));
        Learned::New
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
        self.folders.add(file);
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
                self.folders.remove(&file);
                let copies = name.holders.iter().flat_map(|holder| &holder.copies);
                copies.for_each(|copy| drop(self.originals.remove(copy)));
                let gone = name.holders.into_iter().map(|holder| (file.clone(), holder.place));
                self.evicted.extend(gone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::ids::ClientId;
    use crate::routing::realm::{ClientName, Realm};
    use crate::routing::user_folder::UserFolder;

    const A: BackendId = BackendId::nth(0);
    const B: BackendId = BackendId::nth(1);
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

    /// A ledger that has learned these, in their order.
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
    fn a_path_in_a_users_folder_is_for_him_alone_also_if_nothing_is_known_of_it() {
        let [ada, bob] = ["ada", "bob"].map(|name| UserFolder::of(name).path("photo.png"));
        for unknown in [Unknown::Shared, Unknown::Hidden] {
            let files = Files::new(10, WEEK).with_unknown(unknown);
            let is_for = |path: &str, user| files.is_for(Folder::Input, path, None, user);
            assert!(is_for(&ada, Some("ada")) && !is_for(&bob, Some("ada")));
            assert!(!is_for(&format!("3d/{bob}"), Some("ada")));
            assert!(is_for("photo.png", Some("ada")) && is_for(&bob, None));
        }
    }

    #[test]
    fn a_copy_for_a_user_is_not_in_the_folder_of_another() {
        let user = |name: &str| Maker::User(name.into());
        let original = at(A, "x.png");
        let mut files = Files::new(10, WEEK);
        let makers = [user("ada"), user("bob")];
        files.learn(&original, &makers, Seen::There, crate::net::now());
        for name in ["ada", "bob", "ada"] {
            let own = UserFolder::of(name).path("x.png");
            let wanted = files.to_bring(&original, Some(name), B);
            assert_eq!((wanted.name.path(), &wanted.known), (&*own, &None), "{name}");
            let copy = Located { backend: B, file: wanted.name.clone() };
            files.copied(&original, copy, wanted.began);
            let again = files.to_bring(&original, Some(name), B);
            assert_eq!(again.known, Some(wanted.name));
        }
    }

    #[test]
    fn no_other_user_takes_a_file_by_saying_that_he_made_it() {
        let mut files = Files::new(10, WEEK);
        let (ada, now) = (UserFolder::of("ada"), crate::net::now());
        let upload = Located { backend: A, file: file(&ada.path("x.png")) };
        for at in [at(A, "x.png"), upload.clone()] {
            files.learn(&at, &[Maker::User("ada".into())], Seen::There, now);
            for tab in 0..40 {
                let client = Realm::User("bob".into())
                    .client(ClientName::parse(&format!("t{tab}")).unwrap());
                files.learn(&at, &[Maker::Client(client)], Seen::There, now);
            }
            let found = |user: &str| {
                let asker = [Maker::User(user.into())];
                files.find(Folder::Output, at.file.path(), &asker).is_some()
            };
            assert!(found("ada"));
            // What is in a user's folder is his alone.
            assert_eq!(found("bob"), at != upload);
        }
    }

    #[test]
    fn what_is_used_is_not_too_old() {
        let mut files = Files::new(10, WEEK);
        let mut now = crate::net::now();
        for name in ["used.png", "other.png"] {
            files.learn(&at(A, name), &[], Seen::There, now);
        }
        for day in 1..=14 {
            now += WEEK / 7;
            assert_eq!(files.learn(&at(A, "used.png"), &[], Seen::There, now), Learned::New);
            assert_eq!(files.learn(&at(A, "used.png"), &[], Seen::There, now), Learned::Known);
            files.learn(&at(B, &format!("{day}.png")), &[], Seen::There, now);
        }
        assert!(files.is_named(Folder::Output, "used.png"));
        assert!(!files.is_named(Folder::Output, "other.png"));
    }

    #[test]
    fn the_plain_name_is_the_first_ones_for_ever() {
        let files = files(&[(A, "x.png", "ada"), (B, "x.png", "bob"), (A, "x.png", "bob")]);
        assert_eq!(files.shown(&at(A, "x.png")), Shown::Plain);
        assert_eq!(files.shown(&at(B, "x.png")), Shown::WithBackend);
        assert_eq!(files.shown(&at(B, "y.png")), Shown::Plain, "nobody's yet");
    }

    /// An older record of the file, and a newer one with the identity of its server.
    #[test]
    fn two_records_of_a_file_of_one_backend_are_one_holder() {
        let mut files = Files::new(10, WEEK);
        let now = crate::net::now();
        for (order, maker, written) in [(1, "ada", Some(5)), (2, "bob", None)] {
            let mut holder = Holder::new(Place::Backend(A), order);
            holder.made_by(&[client(maker)]);
            holder.written = written;
            files.restore(&file("x.png"), holder, now, now);
        }
        let holder = files.holder(&at(A, "x.png")).unwrap();
        assert_eq!((holder.makers.len(), holder.order, holder.written), (2, 1, Some(5)));
        assert_eq!(files.name(&file("x.png")).unwrap().holders.len(), 1);
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
    fn a_plain_name_of_somebody_who_has_none_is_the_one_written_last() {
        let mut files = files(&[(A, "x.png", "ada"), (B, "x.png", "bob")]);
        let now = crate::net::now();
        let latest = |files: &Files, askers: &[Maker]| {
            files.find_for(Folder::Output, "x.png", askers, Strangers::Latest).cloned()
        };
        let eve = [client("eve")];
        assert_eq!(latest(&files, &eve), Some(Place::Backend(B)));
        // Being written counts; when it was first seen does not, nor does being seen again.
        files.learn(&at(A, "x.png"), &[client("ada")], Seen::Written, now);
        files.learn(&at(BackendId::nth(2), "x.png"), &[], Seen::There, now);
        assert_eq!(latest(&files, &eve), Some(Place::Backend(A)));
        assert_eq!(latest(&files, &[]), Some(Place::Backend(A)));
        files.learn(&at(B, "x.png"), &[client("bob")], Seen::Written, now);
        assert_eq!(latest(&files, &eve), Some(Place::Backend(B)));
        let owners = files.find(Folder::Output, "x.png", &eve);
        assert_eq!(owners, Some(&Place::Backend(A)), "a link means what it meant");
    }

    #[test]
    fn an_address_is_given_no_name_and_means_what_it_wrote_last() {
        let mut files = Files::new(10, WEEK);
        let (now, here) = (crate::net::now(), [Maker::Address([10, 0, 0, 1].into())]);
        for backend in [A, B, A, B] {
            files.learn(&at(backend, "x.png"), &here, Seen::Written, now);
            for strangers in [Strangers::Owners, Strangers::Latest] {
                let found = files.find_for(Folder::Output, "x.png", &here, strangers);
                assert_eq!(found, Some(&Place::Backend(backend)));
            }
        }
        let ada = [client("ada"), here[0].clone()];
        files.learn(&at(A, "x.png"), &ada[..1], Seen::There, now);
        let given = files.find_for(Folder::Output, "x.png", &ada, Strangers::Latest);
        assert_eq!(given, Some(&Place::Backend(A)), "a client was");
    }

    #[test]
    fn what_is_stored_beside_an_older_one_leaves_it_the_plain_name() {
        let mut files = Files::new(10, WEEK);
        let (now, here) = (crate::net::now(), [Maker::Address([10, 0, 0, 1].into())]);
        let means = |files: &Files| {
            files.find_for(Folder::Output, "x.png", &here, Strangers::Latest).cloned()
        };
        for backend in [A, B, BackendId::nth(2)] {
            files.learn(&at(backend, "x.png"), &here, Seen::Added, now);
            assert_eq!(means(&files), Some(Place::Backend(A)), "{backend:?}");
        }
        files.learn(&at(B, "x.png"), &here, Seen::Written, now);
        assert_eq!(means(&files), Some(Place::Backend(B)), "it was overwritten");
        files.learn(&at(A, "x.png"), &here, Seen::Added, now);
        assert_eq!(means(&files), Some(Place::Backend(B)), "by no other than this");
        let eve = files.find_for(Folder::Output, "x.png", &[client("eve")], Strangers::Latest);
        assert_eq!(eve, Some(&Place::Backend(A)), "a stranger's is the latest");
    }

    #[test]
    fn a_copy_is_the_same_file_until_either_is_written_anew() {
        let original = at(A, "x.png");
        let now = crate::net::now();
        for overwritten in [at(B, "x.png"), original.clone()] {
            let mut files = files(&[(A, "x.png", "ada")]);
            files.copied(&original, at(B, "x.png"), files.moment());
            assert_eq!(files.copy_on(&original, B), Some(file("x.png")));
            assert_eq!(files.shown(&at(B, "x.png")), Shown::Plain);
            assert_eq!(files.sources(&original), [original.clone(), at(B, "x.png")]);
            files.learn(&overwritten, &[client("bob")], Seen::Written, now);
            assert_eq!(files.copy_on(&original, B), None, "{overwritten:?}");
        }
    }

    #[test]
    fn what_was_written_anew_while_it_was_copied_has_no_copy() {
        let original = at(A, "x.png");
        for overwritten in [at(B, "x.png"), original.clone()] {
            let mut files = files(&[(A, "x.png", "ada"), (B, "x.png", "bob")]);
            let began = files.moment();
            files.learn(&overwritten, &[client("ada")], Seen::Written, crate::net::now());
            files.copied(&original, at(B, "x.png"), began);
            assert_eq!(files.copy_on(&original, B), None, "{overwritten:?}");
            files.copied(&original, at(B, "x.png"), files.moment());
            assert!(files.copy_on(&original, B).is_some());
        }
    }

    #[test]
    fn a_copy_under_another_name_is_found_by_its_original_and_owns_no_name() {
        let mut files = files(&[(A, "x.png", "ada"), (B, "x.png", "bob")]);
        files.copied(&at(A, "x.png"), at(B, "x (1).png"), files.moment());
        assert_eq!(files.copy_on(&at(A, "x.png"), B), Some(file("x (1).png")));
        assert_eq!(files.copy_on(&at(B, "x.png"), B), Some(file("x.png")));
        assert_eq!(found(&files, "x (1).png", "ada"), None);
        files.copy_is_gone(&at(A, "x.png"), B);
        assert_eq!(files.copy_on(&at(A, "x.png"), B), None);
    }

    #[test]
    fn a_copy_under_another_name_is_none_any_more_when_that_is_written_anew() {
        let mut files = files(&[(A, "x.png", "ada")]);
        let (original, copy) = (at(A, "x.png"), at(B, "x (1).png"));
        files.copied(&original, copy.clone(), files.moment());
        files.learn(&copy, &[client("bob")], Seen::Written, crate::net::now());
        assert_eq!(files.copy_on(&original, B), None);
        assert_eq!(files.original(&copy), &copy);
    }

    #[test]
    fn what_is_compared_lies_together() {
        for other in ["a/b/x.png", "x (1).png", "c/x (12).png", "x (1) (2).png", "folder/x.png"] {
            assert_eq!(key_of(other), key_of("x.png"), "{other}");
        }
        for other in ["x ().png", "x (a).png", "x (1.png", "x(1).png"] {
            assert_ne!(key_of(other), key_of("x.png"), "{other}");
        }
    }

    #[test]
    fn a_list_shows_ones_own_and_nobodys_and_a_copy_as_its_original() {
        let mut files = files(&[(A, "x.png", "ada"), (B, "y.png", "bob")]);
        files.learn(&at(A, "z.png"), &[], Seen::There, crate::net::now());
        let shows = |files: &Files, at: &Located| files.is_shown_to(at, &[client("ada")]);
        assert!(shows(&files, &at(A, "x.png")) && shows(&files, &at(A, "z.png")));
        assert!(shows(&files, &at(A, "new.png")) && !shows(&files, &at(B, "y.png")));
        files.copied(&at(B, "y.png"), at(A, "y (1).png"), files.moment());
        assert_eq!(files.original(&at(A, "y (1).png")), &at(B, "y.png"));
        files.learn(&at(B, "y.png"), &[], Seen::Written, crate::net::now());
        assert_eq!(files.original(&at(A, "y (1).png")), &at(A, "y (1).png"));
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
