//! What the ledger of files and the journal learn, together, and how names go to clients.

use std::borrow::Cow;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use bytes::Bytes;

use super::Gateway;
use crate::comfy::names::{self, NameKey, looks_tagged};
use crate::config::FileTags;
use crate::journal::record::{FileKey, FileRecord};
use crate::net::{now, unix_millis};
use crate::routing::files::{Files, Holder, Learned, Maker, Place, Seen, Shown};
use crate::routing::ids::{BackendId, FileRef, Folder, Located};

/// What a name means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Meaning {
    At(Located),
    /// On a server, by its URL, that is not configured any more.
    Gone(Arc<str>),
    Unknown,
}

impl Gateway {
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
        for file in told {
            self.learn_in(&mut files, &Located { backend, file }, makers, seen);
        }
        let name = self.fleet.get(backend).name.as_str();
        let named = names::with_backends(&text, key, |file| {
            let at = Located { backend, file: file.clone() };
            (self.shown(&files, &at) == Shown::WithBackend).then_some(name)
        });
        drop(files);
        named.map_or(text, Bytes::from)
    }

    /// A file was found, or written, where it lies.
    pub fn learn_file(&self, at: &Located, makers: &[Maker], seen: Seen) {
        self.learn_in(&mut self.files(), at, makers, seen);
    }

    /// What a name means: with its backend it says so itself; a plain one is what `askers` mean by
    /// it, see [`Files::find`].
    pub fn meaning(
        &self,
        folder: Folder,
        path: &str,
        backend: Option<&str>,
        askers: &[Maker],
    ) -> Meaning {
        let located = |backend| {
            FileRef::of_path(folder, path)
                .map_or(Meaning::Unknown, |file| Meaning::At(Located { backend, file }))
        };
        if let Some(named) = backend {
            return self.fleet.by_name(named).map_or(Meaning::Unknown, |it| located(it.id));
        }
        let place = self.files().find(folder, path, askers).cloned();
        match place {
            Some(Place::Backend(backend)) => located(backend),
            Some(Place::Gone(url)) => Meaning::Gone(url),
            None => Meaning::Unknown,
        }
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
    pub fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().expect("never poisoned: no panic while held")
    }

    pub(super) fn learn_in(
        &self,
        files: &mut MutexGuard<'_, Files>,
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
                Place::Backend(backend) => Arc::clone(&self.fleet.get(backend).recorded.url),
                Place::Gone(url) => url,
            };
            self.journal.note_file(FileKey { file, url }, None);
        }
    }

    fn file_key(&self, at: &Located) -> FileKey {
        let url = Arc::clone(&self.fleet.get(at.backend).recorded.url);
        FileKey { file: at.file.clone(), url }
    }

    fn record_of_file(&self, files: &Files, at: &Located) -> Option<FileRecord> {
        let holder = files.holder(at)?;
        let backend = Arc::clone(&self.fleet.get(at.backend).recorded.name);
        Some(FileRecord::new(backend, holder, unix_millis()))
    }

    pub(super) fn shown(&self, files: &Files, at: &Located) -> Shown {
        match self.config.files.tag {
            FileTags::Never => Shown::Plain,
            FileTags::Ambiguous if looks_tagged(at.file.subfolder()) => Shown::WithBackend,
            FileTags::Ambiguous => files.shown(at),
        }
    }
}

/// How a person reads where a file lies.
#[must_use]
pub fn for_people(file: &FileRef) -> Cow<'_, str> {
    match file.folder {
        Folder::Input => Cow::Borrowed(file.path()),
        Folder::Output | Folder::Temp => {
            Cow::Owned(format!("{} [{}]", file.path(), file.folder.as_str()))
        }
    }
}
