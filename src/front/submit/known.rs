//! What is known about the strings of a graph that may name files. All are looked up at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::comfy::files::Spelled;
use crate::comfy::names;
use crate::records::files::{Meaning, meaning_in};
use crate::records::names::Bearer;
use crate::routing::files::{Files, Maker, Strangers, Within, meant_of, user_of};
use crate::routing::ids::{BackendId, ContentHash, FileRef, Folder, Located};
use crate::routing::user_folder::UserFolder;
use crate::shared::Shared;

/// A known file or folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Input {
    At(Located),
    /// On the backend that its name says, where nothing of this name is known.
    Perhaps(Located),
    /// A subfolder and the files in it.
    Folder(String, Vec<Located>),
    /// Its name, and the server that had it.
    Gone(FileRef, Arc<str>),
    /// What another user has, as a path at which this one has nothing.
    Others(String),
    /// The same of a path that begins at the root of a server: only lists of files take no such.
    Outside {
        path: String,
        is_annotated: bool,
    },
}

impl Input {
    pub(super) fn gone(&self) -> Option<(&FileRef, &str)> {
        match self {
            Self::At(_)
            | Self::Perhaps(_)
            | Self::Folder(..)
            | Self::Others(_)
            | Self::Outside { .. } => None,
            Self::Gone(file, server) => Some((file, server)),
        }
    }
}

/// A string that may name a file. It is looked up together with others.
pub(super) struct Lookup {
    folder: Folder,
    path: String,
    /// The backend in the name. If it is not a known backend, nothing is found.
    backend: Option<Bearer>,
    /// The string says which folder the file is in.
    is_annotated: bool,
    /// The path begins at the root of a server.
    is_absolute: bool,
    /// Set if the string is a hash: the content that it means, if it is valid. It is never a file
    /// name.
    of_hash: Option<Option<ContentHash>>,
}

impl Lookup {
    pub(super) fn of(shared: &Shared, spelled: &Spelled<'_>) -> Self {
        Self {
            folder: spelled.folder,
            path: spelled.path.clone().into_owned(),
            backend: spelled.backend.map(|name| shared.records.bearer(name)),
            is_annotated: spelled.annotated().is_some(),
            is_absolute: spelled.is_absolute,
            of_hash: spelled.is_hash().then_some(spelled.hash),
        }
    }

    /// What is known about the file of this name. If a backend once reported a bare output under
    /// this name (`Preview3D` puts its output into its own input again), it is that output.
    fn file(&self, files: &Files, askers: &[Maker]) -> Option<Input> {
        let (backend, mut folder) = match &self.backend {
            Some(Bearer::Is(backend)) => {
                let at = Located { backend: *backend, file: self.named(self.folder)? };
                let is_told = !self.is_annotated;
                let folder = if is_told { files.told_at(at).file.folder } else { self.folder };
                (Some(*backend), folder)
            }
            Some(Bearer::Gone(url)) => {
                return Some(Input::Gone(self.named(self.folder)?, Arc::clone(url)));
            }
            Some(Bearer::Nobody) => return None,
            None => (None, self.folder),
        };
        let user = user_of(askers).map(UserFolder::of);
        if let (Some(user), Some(backend)) = (&user, backend) {
            // His own upload is an input, whatever else has that name.
            let own = FileRef::of_path(self.folder, &user.path(&self.path))?;
            if files.knows(&Located { backend, file: own }) {
                folder = self.folder;
            }
        }
        match meaning_in(files, (folder, &self.path, backend), (askers, Strangers::Latest)) {
            Meaning::At(at) => Some(Input::At(at)),
            Meaning::Perhaps(at) => Some(Input::Perhaps(at)),
            Meaning::Gone(url) => Some(Input::Gone(self.named(folder)?, url)),
            Meaning::Unknown if self.is_absolute => {
                let (path, is_annotated) = (user?.nowhere(&self.path), self.is_annotated);
                Some(Input::Outside { path, is_annotated })
            }
            Meaning::Unknown => None,
            Meaning::Others => Some(Input::Others(user?.nowhere(&self.path))),
        }
    }

    fn named(&self, folder: Folder) -> Option<FileRef> {
        FileRef::of_path(folder, &self.path)
    }

    /// The subfolder of the inputs that it may name, and the backend in the name. If that is not a
    /// known backend, nothing is found.
    fn subfolder(&self, shared: &Shared) -> Option<(&str, Option<BackendId>)> {
        if self.folder != Folder::Input || self.of_hash.is_some() {
            return None;
        }
        let (name, within) = names::split(self.path.trim_end_matches('/'));
        let within = within.map(|name| shared.records.bearer(name));
        match self.backend.clone().or(within) {
            Some(Bearer::Is(backend)) => Some((name, Some(backend))),
            Some(Bearer::Gone(_) | Bearer::Nobody) => None,
            None => Some((name, None)),
        }
    }
}

/// The backends that have a file, as the original or as a copy.
pub(super) type Places = HashMap<Located, SmallVec<[BackendId; 2]>>;

/// What is known about the strings. All are looked up at once, so that each shard of the ledger is
/// locked only once.
pub(super) struct Known {
    pub(super) inputs: Vec<Option<Input>>,
    pub(super) places: Places,
    /// The files of possible subfolders, by the position of the string.
    within: BTreeMap<usize, Vec<Within>>,
    /// Those of them that mean a subfolder of a user's own.
    own_folders: BTreeSet<usize>,
}

impl Known {
    pub(super) fn of(shared: &Shared, asked: &[Lookup], askers: &[Maker]) -> Self {
        let inputs = match user_of(askers) {
            // Nothing says whose a content is.
            Some(_) => vec![None; asked.len()],
            None => Self::of_hashes(shared, asked),
        };
        let shard = |(asked, input): (&Lookup, &Option<Input>)| match (input, asked.of_hash) {
            (Some(Input::At(at)), _) => Some(shared.records.shard_of(at.file.path())),
            (_, None) => Some(shared.records.shard_of(&asked.path)),
            // The content of this hash is not known.
            (_, Some(_)) => None,
        };
        let shards: Vec<Option<usize>> = asked.iter().zip(&inputs).map(shard).collect();
        let (places, within, own_folders) = Default::default();
        let mut known = Self { inputs, places, within, own_folders };
        if shards.iter().all(Option::is_none) {
            return known;
        }
        let user = user_of(askers).map(UserFolder::of);
        for (shard, files) in shared.records.all_files().enumerate() {
            for (place, asked) in asked.iter().enumerate() {
                if shards[place] == Some(shard) {
                    known.look_up(&files, (place, asked), askers);
                }
            }
            if files.has_subfolders() {
                known.look_into(shared, &files, asked, (askers, user.as_ref()));
            }
        }
        known.take_folders(shared, asked, user.as_ref());
        known
    }

    /// The files with the requested content.
    fn of_hashes(shared: &Shared, asked: &[Lookup]) -> Vec<Option<Input>> {
        let hashes: Vec<ContentHash> = asked.iter().filter_map(|it| it.of_hash?).collect();
        let files = shared.records.files_of_hashes(&hashes);
        let found = |it: &Lookup| Some(Input::At(files.get(&it.of_hash??)?.clone()));
        asked.iter().map(found).collect()
    }

    fn look_up(&mut self, files: &Files, (place, asked): (usize, &Lookup), askers: &[Maker]) {
        let input = &mut self.inputs[place];
        if asked.of_hash.is_none() {
            *input = asked.file(files, askers);
        }
        if let Some(Input::At(at) | Input::Perhaps(at)) = input {
            self.places.insert(at.clone(), files.backends_with(at));
        }
    }

    /// What one shard has in the possible subfolders.
    fn look_into(
        &mut self,
        shared: &Shared,
        files: &Files,
        asked: &[Lookup],
        (askers, user): (&[Maker], Option<&UserFolder>),
    ) {
        for (place, asked) in asked.iter().enumerate() {
            let Some((name, backend)) = asked.subfolder(shared) else { continue };
            let in_it = |name: &str| match backend {
                Some(backend) => files.in_subfolder_of(name, backend, askers),
                None => files.in_subfolder(name, askers),
            };
            let own = user.as_ref().map(|user| in_it(&user.path(name)));
            if own.as_ref().is_some_and(|own| !own.is_empty()) {
                self.own_folders.insert(place);
            }
            for within in own.into_iter().flatten().chain(in_it(name)) {
                self.places.insert(within.at.clone(), files.backends_with(&within.at));
                self.within.entry(place).or_default().push(within);
            }
        }
    }

    /// A string that names no file may name a folder.
    fn take_folders(&mut self, shared: &Shared, asked: &[Lookup], user: Option<&UserFolder>) {
        for (place, mut within) in std::mem::take(&mut self.within) {
            let name = asked[place].subfolder(shared).map(|(name, _)| name);
            let own = user.filter(|_| self.own_folders.contains(&place));
            let name = name.map(|name| own.map_or_else(|| name.to_owned(), |own| own.path(name)));
            if let Some(own) = own {
                within.retain(|it| own.strip(it.at.file.path()).is_some());
            }
            if let (None, Some(name)) = (&self.inputs[place], name) {
                self.inputs[place] = Some(Input::Folder(name, meant_of(within)));
            }
        }
    }
}
