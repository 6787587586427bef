//! What the ledger of files and the journal learn, together, and how names go to clients.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::Records;
use crate::comfy::files;
use crate::comfy::names::{self, NameKey, Told, looks_tagged};
use crate::config::FileTags;
use crate::journal::record::{FileKey, FileRecord};
use crate::lock::{Guard, rank};
use crate::net::{now, unix_millis};
use crate::routing::files::{Files, Holder, Learned, Maker, Moment, Place, Seen, Shown, Strangers};
use crate::routing::ids::{BackendId, FileRef, Folder, Located};

/// What a name means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Meaning {
    At(Located),
    /// On a server, by its URL, that is not configured any more.
    Gone(Arc<str>),
    Unknown,
}

impl Records {
    /// A backend tells of files: learned, and named for clients. The same text if every name is
    /// plain.
    pub fn name_outputs(&self, backend: BackendId, makers: &[Maker], text: Bytes) -> Bytes {
        self.name_files(backend, makers, text, NameKey::Output, Seen::There)
    }

    /// The answer to an upload.
    pub fn name_upload(&self, backend: BackendId, makers: &[Maker], answer: Bytes) -> Bytes {
        self.name_files(backend, makers, answer, NameKey::Upload, Seen::Written)
    }

    fn name_files(
        &self,
        backend: BackendId,
        makers: &[Maker],
        text: Bytes,
        key: NameKey,
        seen: Seen,
    ) -> Bytes {
        self.learn_told(backend, makers, &text, seen);
        let told = names::told_in(&text, key);
        if told.is_empty() {
            return text;
        }
        let mut files = self.files();
        let lie = told.iter().map(|told| located(&files, backend, told));
        let lie: Vec<Located> = lie.collect();
        for at in &lie {
            self.learn_in(&mut files, at, makers, seen);
        }
        let name = self.fleet.get(backend).name();
        let is_tagged = |at: &Located| self.shown(&files, at) == Shown::WithBackend;
        let tagged = told.iter().zip(&lie).filter(|(_, at)| is_tagged(at));
        let tagged: Vec<(&Told, &str)> = tagged.map(|(told, _)| (told, &*name)).collect();
        drop(files);
        if tagged.is_empty() { text } else { names::with_backends(&text, &tagged).into() }
    }

    /// A file was found, or written, where it lies.
    pub fn learn_file(&self, at: &Located, makers: &[Maker], seen: Seen) {
        self.learn_in(&mut self.files(), at, makers, seen);
    }

    /// A file was copied, since `began`. One that only its name told of is learned of by its being
    /// there.
    pub fn learn_copied(&self, original: &Located, copy: Located, began: Moment) {
        let mut files = self.files();
        self.learn_in(&mut files, original, &[], Seen::There);
        files.copied(original, copy, began);
    }

    /// What a name means: with its backend it says so itself; a plain one is what `askers` mean by
    /// it, or what it means to `strangers`; see [`Files::find_for`].
    pub fn meaning(
        &self,
        folder: Folder,
        path: &str,
        backend: Option<&str>,
        askers: &[Maker],
        strangers: Strangers,
    ) -> Meaning {
        match backend {
            Some(named) => self.fleet.called(named).map_or(Meaning::Unknown, |it| {
                FileRef::of_path(folder, path)
                    .map_or(Meaning::Unknown, |file| Meaning::At(Located { backend: it.id, file }))
            }),
            None => meaning_in(&self.files(), folder, path, (askers, strangers)),
        }
    }

    /// How an entry of a list of files is told to somebody, or that it is not: it is another's. A
    /// copy is told as its original.
    #[must_use]
    pub fn listed(
        &self,
        backend: BackendId,
        folder: Folder,
        text: &str,
        askers: &[Maker],
    ) -> Option<String> {
        let as_it_is = || Some(text.to_owned());
        let Some(spelled) = files::spelled(text) else { return as_it_is() };
        let folder = spelled.annotated().unwrap_or(folder);
        let Some(file) = FileRef::of_path(folder, &spelled.path) else { return as_it_is() };
        let known = self.files();
        let entry = Located { backend, file };
        let at = known.original(&entry);
        if !known.is_shown_to(at, askers) {
            return None;
        }
        let named = match self.shown(&known, at) {
            Shown::Plain => None,
            Shown::WithBackend => Some(self.fleet.get(at.backend).name()),
        };
        Some(spelled.named(at.file.path(), named.as_deref()))
    }

    /// Takes over the files that the journal had, in their order.
    pub fn restore_files(&self, restored: Vec<(FileRef, Holder, Instant)>) {
        let mut files = self.files();
        for (file, holder, learned) in restored {
            files.restore(&file, holder, learned, now());
        }
        self.note_evicted(&mut files);
    }

    /// Locked for one call, never together with a client.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn files(&self) -> Guard<'_, Files, { rank::FILES }> {
        self.files.lock()
    }

    pub(super) fn learn_in(
        &self,
        files: &mut Guard<'_, Files, { rank::FILES }>,
        at: &Located,
        makers: &[Maker],
        seen: Seen,
    ) {
        let learned = files.learn(at, makers, seen, now());
        if learned == Learned::New && self.journal.is_kept() {
            let record = self.record_of_file(files, at);
            self.journal.note_file(self.file_key(at), record);
        }
        self.note_evicted(files);
    }

    fn note_evicted(&self, files: &mut Files) {
        for (file, place) in files.take_evicted() {
            let url = match place {
                Place::Backend(backend) => Arc::clone(&self.fleet.get(backend).authority),
                Place::Gone(url) => url,
            };
            self.journal.note_file(FileKey { file, url }, None);
        }
    }

    fn file_key(&self, at: &Located) -> FileKey {
        let url = Arc::clone(&self.fleet.get(at.backend).authority);
        FileKey { file: at.file.clone(), url }
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

/// What a plain name means, to whoever looks many up at once; see [`Records::meaning`].
#[must_use]
pub(crate) fn meaning_in(
    files: &Files,
    folder: Folder,
    path: &str,
    (askers, strangers): (&[Maker], Strangers),
) -> Meaning {
    match files.find_for(folder, path, askers, strangers) {
        Some(Place::Backend(backend)) => FileRef::of_path(folder, path)
            .map_or(Meaning::Unknown, |file| Meaning::At(Located { backend: *backend, file })),
        Some(Place::Gone(url)) => Meaning::Gone(Arc::clone(url)),
        None => Meaning::Unknown,
    }
}

/// Where a file lies that a backend tells of. A bare string does not say in which folder: it is an
/// output, but for one that is known among the inputs only.
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

/// How a person reads where a file lies.
#[must_use]
pub(crate) fn for_people(file: &FileRef) -> Cow<'_, str> {
    match file.folder {
        Folder::Input => Cow::Borrowed(file.path()),
        Folder::Output | Folder::Temp => {
            Cow::Owned(format!("{} [{}]", file.path(), file.folder.as_str()))
        }
    }
}
