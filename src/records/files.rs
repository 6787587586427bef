//! Records of files: updates the file ledger and the journal together, and maps file names for
//! clients.

mod meaning;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

pub(crate) use meaning::meaning_in;

use super::names::Bearer;
use super::{Records, server_of};
use crate::comfy::files::{self, Spelled};
use crate::comfy::names::{self, NameKey, Told, looks_tagged};
use crate::config::FileTags;
use crate::journal::record::{FileKey, FileRecord};
use crate::journal::renamed::RenamedFile;
use crate::lock::{Guard, rank};
use crate::net::{now, unix_millis};
use crate::routing::files::{
    Files, Holder, Learned, Maker, Moment, Place, Seen, Shown, Strangers, key_of, user_of,
};
use crate::routing::ids::{BackendId, FileRef, Folder, Located};
use crate::routing::shard::Key;
use crate::routing::user_folder::UserFolder;

/// What a file name means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Meaning {
    At(Located),
    /// On the backend that the name says, where nothing of this name is known. A user may mean a
    /// forgotten upload of his own there.
    Perhaps(Located),
    /// On a server that is no longer configured, by its URL.
    Gone(Arc<str>),
    Unknown,
    /// It is another user's, or the name leads out of where the asker's files are. To the asker it
    /// does not exist, and no backend may be asked for it.
    Others,
}

/// The makers of a file that a text names. A node can say any text that is in its graph, so to a
/// user only an object with an output or a preview, in the output of a node, gives a right to it.
fn owners<'m>(told: &Told, makers: &'m [Maker], seen: Seen) -> &'m [Maker] {
    let is_event = matches!(seen, Seen::There) && user_of(makers).is_some();
    let is_input = told.file.folder == Folder::Input;
    if is_event && (!told.is_made() || is_input) { &[] } else { makers }
}

/// A file that a text names.
struct Naming {
    /// The index of the text.
    of: usize,
    /// The backend that sent the text.
    backend: BackendId,
    told: Told,
    shown: Shown,
}

/// An entry of a list of files.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The backend that sent the list.
    pub backend: BackendId,
    /// The folder that is listed.
    pub folder: Folder,
    pub text: &'a str,
}

impl<'a> Entry<'a> {
    /// The file that it names, if it names one.
    fn file(&self) -> Option<(Spelled<'a>, Located)> {
        let spelled = files::spelled(self.text)?;
        let folder = spelled.annotated().unwrap_or(self.folder);
        let file = FileRef::of_path(folder, &spelled.path)?;
        Some((spelled, Located { backend: self.backend, file }))
    }
}

impl Records {
    /// Learns the files that a backend names, and rewrites the names for clients. Returns the same
    /// text if every name is plain.
    pub fn name_outputs(&self, backend: BackendId, makers: &[Maker], text: Bytes) -> Bytes {
        self.name_files((backend, text), makers, NameKey::Output, Seen::There)
    }

    /// The answer to an upload.
    pub fn name_upload(
        &self,
        backend: BackendId,
        makers: &[Maker],
        answer: Bytes,
        seen: Seen,
    ) -> Bytes {
        self.name_files((backend, answer), makers, NameKey::Upload, seen)
    }

    /// Does the same for several texts. All texts are read first, then all names are looked up
    /// together, and then the texts are written.
    pub fn name_all_outputs(
        &self,
        makers: &[Maker],
        mut texts: Vec<(BackendId, Bytes)>,
    ) -> Vec<Bytes> {
        self.name_all(&mut texts, makers, NameKey::Output, Seen::There);
        texts.into_iter().map(|(_, text)| text).collect()
    }

    fn name_files(
        &self,
        text: (BackendId, Bytes),
        makers: &[Maker],
        key: NameKey,
        seen: Seen,
    ) -> Bytes {
        let mut one = [text];
        self.name_all(&mut one, makers, key, seen);
        let [(_, text)] = one;
        text
    }

    fn name_all(
        &self,
        texts: &mut [(BackendId, Bytes)],
        makers: &[Maker],
        key: NameKey,
        seen: Seen,
    ) {
        self.learn_told(texts, makers, seen);
        let told = texts.iter().enumerate().flat_map(|(of, (backend, text))| {
            let told = names::told_in(text, key).into_iter();
            told.map(move |told| Naming { of, backend: *backend, told, shown: Shown::Plain })
        });
        let mut told: Vec<Naming> = told.collect();
        self.show(&mut told, makers, seen);
        for told in told.chunk_by(|one, other| one.of == other.of) {
            let tagged = told.iter().filter(|it| it.shown == Shown::WithBackend);
            let Some(Naming { of, backend, .. }) = tagged.clone().next() else { continue };
            let name = self.given_name(&self.fleet.get(*backend));
            let tagged: Vec<(&Told, &str)> = tagged.map(|it| (&it.told, &*name)).collect();
            if let Some((_, text)) = texts.get_mut(*of) {
                *text = names::with_backends(text, &tagged).into();
            }
        }
    }

    /// Learns that these files exist, and decides the name of each.
    fn show(&self, told: &mut [Naming], makers: &[Maker], seen: Seen) {
        let keys: SmallVec<[Key; 4]> = told.iter().map(|it| key_of(it.told.file.path())).collect();
        self.files.each_of(keys.into_iter(), |files, places| {
            let lie = places.iter().filter_map(|(_, place)| {
                let Naming { backend, told, .. } = told.get(*place)?;
                Some((*place, located(files, *backend, told)))
            });
            let lie: SmallVec<[(usize, Located); 4]> = lie.collect();
            for (place, at) in &lie {
                let makers = told.get(*place).map_or(&[][..], |it| owners(&it.told, makers, seen));
                self.learn_in(files, at, makers, seen);
            }
            for (place, at) in &lie {
                if let Some(naming) = told.get_mut(*place) {
                    naming.shown = self.shown(files, at);
                }
            }
        });
    }

    /// A file was found or written at this place.
    pub fn learn_file(&self, at: &Located, makers: &[Maker], seen: Seen) {
        self.learn_in(&mut self.files_of(&at.file), at, makers, seen);
    }

    /// A file was copied; the copy began at `began`. The original gets a record if it has none.
    pub fn learn_copied(&self, original: &Located, copy: Located, began: Moment) {
        let mut files = self.files_of(&original.file);
        self.learn_in(&mut files, original, &[], Seen::There);
        // A server gives a copy the same name, or the name with a number. If it gave another name,
        // the copy is made again next time: Mooring cannot see whether the file of that other name
        // was overwritten.
        if self.files.are_together(key_of(original.file.path()), key_of(copy.file.path())) {
            files.copied(original, copy, began);
        }
    }

    /// What a name means. A name that carries a backend's name means the file of that backend. A
    /// plain name means the file of `askers`, or else that of `strangers`; see [`Files::find_for`].
    /// For a user it means the file in his own folder, if there is one.
    pub fn meaning(
        &self,
        folder: Folder,
        path: &str,
        backend: Option<&str>,
        askers: &[Maker],
        strangers: Strangers,
    ) -> Meaning {
        let backend = match backend.map(|named| self.bearer(named)) {
            Some(Bearer::Is(backend)) => Some(backend),
            Some(Bearer::Gone(url)) => return Meaning::Gone(url),
            // A user must not get round what is known of the name: the segment is taken off.
            Some(Bearer::Nobody) if user_of(askers).is_some() => None,
            Some(Bearer::Nobody) => return Meaning::Unknown,
            None => None,
        };
        let files = self.files.at(key_of(path));
        meaning_in(&files, (folder, path, backend), (askers, strangers))
    }

    /// The files that a user has uploaded to the inputs or to `3d` in them: nodes list no others.
    #[must_use]
    pub fn uploads_of(&self, user: &UserFolder, askers: &[Maker]) -> Vec<Located> {
        let within = |files: Guard<'_, Files, { rank::FILES }>| {
            let folders = [user.path(""), user.path("3d")];
            let within = folders.map(|folder| files.in_subfolder(&folder, askers));
            within.into_iter().flatten().map(|within| within.at)
        };
        let mut all: Vec<Located> = self.all_files().flat_map(within).collect();
        all.sort_by(|one, other| one.file.cmp(&other.file));
        all
    }

    /// The names that `askers` see for entries of file lists, in their order; `None` for a file of
    /// somebody else. A copy is shown as its original.
    #[must_use]
    pub fn listed(&self, entries: &[Entry<'_>], askers: &[Maker]) -> Vec<Option<String>> {
        let named: Vec<Option<(Spelled<'_>, Located)>> = entries.iter().map(Entry::file).collect();
        let as_it_is = |entry: &Entry<'_>| Some(entry.text.to_owned());
        let mut told: Vec<Option<String>> = entries.iter().map(as_it_is).collect();
        let files = || named.iter().enumerate().filter_map(|(at, it)| Some((at, it.as_ref()?)));
        let asked: Vec<(usize, &(Spelled<'_>, Located))> = files().collect();
        let keys = asked.iter().map(|(_, (_, at))| key_of(at.file.path()));
        let user = user_of(askers).map(UserFolder::of);
        self.files.each_of(keys, |known, places| {
            for (entry, (spelled, at)) in places.iter().filter_map(|(_, it)| asked.get(*it)) {
                if let Some(told) = told.get_mut(*entry) {
                    *told = self.listed_as(known, (spelled, at), (askers, user.as_ref()));
                }
            }
        });
        told
    }

    fn listed_as(
        &self,
        known: &Files,
        (spelled, entry): (&Spelled<'_>, &Located),
        (askers, user): (&[Maker], Option<&UserFolder>),
    ) -> Option<String> {
        let at = known.original(entry);
        let is_others = |user: &UserFolder| user.names_another(entry.file.path());
        if user.is_some_and(is_others) || !known.is_shown_to(at, askers) {
            return None;
        }
        let named = match self.shown(known, at) {
            Shown::Plain => None,
            Shown::WithBackend => Some(self.given_name(&self.fleet.get(at.backend))),
        };
        let path = at.file.path();
        let path = user.and_then(|user| user.strip(path)).unwrap_or(path);
        // A list of folders has his own as well.
        (!path.is_empty()).then(|| spelled.named(path, named.as_deref()))
    }

    /// Moves these records to their new keys.
    pub fn rename_files(&self, renamed: Vec<RenamedFile>) {
        for RenamedFile { from, to, record } in renamed {
            self.journal.note_file(from, None);
            self.journal.note_file(to, Some(record));
        }
    }

    /// Restores the files from the journal, in their order.
    pub fn restore_files(&self, restored: Vec<(FileRef, Holder, Instant)>) {
        self.files.divide(
            restored,
            |(file, ..)| key_of(file.path()),
            |files, restored| {
                for (file, holder, learned) in restored {
                    files.restore(&file, holder, learned, now());
                }
                self.note_evicted(files);
            },
        );
    }

    /// The shard of the ledger with the files of this name. Locked for one call, never together
    /// with a client.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn files_of(&self, file: &FileRef) -> Guard<'_, Files, { rank::FILES }> {
        self.files.at(key_of(file.path()))
    }

    /// Looks up several files by their paths, shard by shard; `look` gets the index of each.
    #[cfg_attr(debug_assertions, track_caller)]
    pub(crate) fn look_up<'p>(
        &self,
        paths: impl Iterator<Item = &'p str>,
        mut look: impl FnMut(&Files, usize),
    ) {
        self.files.each_of(paths.map(key_of), |files, places| {
            places.iter().for_each(|(_, place)| look(files, *place));
        });
    }

    /// The index in [`Self::all_files`] of the shard for this path.
    pub(crate) fn shard_of(&self, path: &str) -> usize {
        self.files.index_of(key_of(path))
    }

    /// All shards of the ledger of files, one after the other.
    pub(crate) fn all_files(&self) -> impl Iterator<Item = Guard<'_, Files, { rank::FILES }>> {
        self.files.each()
    }

    pub(super) fn learn_in(
        &self,
        files: &mut Guard<'_, Files, { rank::FILES }>,
        at: &Located,
        makers: &[Maker],
        seen: Seen,
    ) {
        let learned = files.learn(at, makers, seen, now());
        if seen.is_new_content() {
            self.fleet.get(at.backend).writes.fetch_add(1, Ordering::Relaxed);
        }
        if learned == Learned::New && self.journal.is_kept() {
            let record = self.record_of_file(files, at);
            self.journal.note_file(self.file_key(at), record);
        }
        self.note_evicted(files);
    }

    fn note_evicted(&self, files: &mut Files) {
        for (file, place) in files.take_evicted() {
            let server = match place {
                Place::Backend(backend) => server_of(&self.fleet.get(backend)).to_text(),
                Place::Gone(server) => server,
            };
            self.journal.note_file(FileKey { file, server }, None);
        }
    }

    fn file_key(&self, at: &Located) -> FileKey {
        let server = server_of(&self.fleet.get(at.backend)).to_text();
        FileKey { file: at.file.clone(), server }
    }

    fn record_of_file(&self, files: &Files, at: &Located) -> Option<FileRecord> {
        let holder = files.holder(at)?;
        let backend = Arc::clone(&self.fleet.get(at.backend).name());
        Some(FileRecord::new(backend, holder, unix_millis()))
    }

    pub(super) fn shown(&self, files: &Files, at: &Located) -> Shown {
        match self.tags {
            FileTags::Never => Shown::Plain,
            FileTags::Ambiguous if looks_tagged(at.file.subfolder()) => Shown::WithBackend,
            FileTags::Ambiguous => files.shown(at),
        }
    }
}

/// Where the file is that a backend names. A bare string does not say its folder. It counts as an
/// output, unless it is known only among the inputs.
fn located(files: &Files, backend: BackendId, told: &Told) -> Located {
    let output = Located { backend, file: told.file.clone() };
    if told.is_bare() && told.file.folder == Folder::Output && !files.knows(&output) {
        let file = told.file.in_folder(Folder::Input);
        let input = Located { backend, file };
        if files.knows(&input) {
            return input;
        }
    }
    output
}

/// A file's place as text for people.
#[must_use]
pub(crate) fn for_people(file: &FileRef) -> Cow<'_, str> {
    match file.folder {
        Folder::Input => Cow::Borrowed(file.path()),
        Folder::Output | Folder::Temp => {
            Cow::Owned(format!("{} [{}]", file.path(), file.folder.as_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_gives_a_user_no_right_to_a_file() {
        let text = br#"{"type": "executed", "data": {"output": {"text": ["a.png"], "result":
            ["b.glb"], "images": [{"filename": "c.png", "type": "output", "subfolder": ""},
            {"filename": "d.png", "type": "input", "subfolder": ""}]},
            "prompt": {"output": {"x": {"filename": "e.png", "type": "output"}}}}}"#;
        let told = names::told_in(text, NameKey::Output);
        let user = [Maker::User("bob".into())];
        let nobody = [Maker::Browser(1)];
        let owned = |makers: &[Maker], seen| -> Vec<String> {
            let owned = told.iter().filter(|it| !owners(it, makers, seen).is_empty());
            let mut owned: Vec<String> = owned.map(|it| it.file.path().to_owned()).collect();
            owned.sort();
            owned
        };
        assert_eq!(owned(&user, Seen::There), ["c.png"]);
        let all = ["a.png", "b.glb", "c.png", "d.png", "e.png"];
        assert_eq!(owned(&nobody, Seen::There), all);
        // An upload is told by the server itself.
        assert_eq!(owned(&user, Seen::Added), all);
    }
}
