//! The files that a prompt uses, named as its backend knows them (promise R4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use smallvec::SmallVec;
use tokio::time::timeout;

use super::super::nodes::KnownClasses;
use super::super::{inputs, view};
use super::folders;
use crate::comfy::files::{self, Mention, Spelled};
use crate::comfy::names;
use crate::comfy::refused::Lacks;
use crate::comfy::takes::{self, Kind};
use crate::fleet::backend::Backend;
use crate::front::Front;
use crate::front::error::GatewayError;
use crate::net::now;
use crate::records::files::{Meaning, for_people, meaning_in};
use crate::routing::files::{Files, Maker, Strangers};
use crate::routing::ids::{BackendId, ContentHash, FileRef, Folder, Located};
use crate::routing::place::{BackendView, CopyWeights, head_start};
use crate::session::submissions::Nearness;
use crate::shared::Shared;

/// How long the sizes of files are awaited: a prompt must not wait long to be placed.
const WEIGHED_WITHIN: Duration = Duration::from_millis(500);

/// How many files are asked about.
const WEIGHED_MAX: usize = 64;

/// The files that the graph of a submission names.
#[derive(Debug)]
pub(super) struct Inputs {
    mentions: Vec<Mention<Input>>,
    /// The backends that have most of them.
    near: SmallVec<[BackendId; 4]>,
    /// How many prompts longer a queue may be where they lie.
    margin: u32,
}

/// The submission without names of backends in what is kept of it. A picture that is opened
/// elsewhere, or here after a change of the fleet, names no server.
#[must_use]
pub(super) fn untagged(shared: &Shared, body: Bytes) -> Bytes {
    files::without_backends(body, |name| shared.fleet.called(name).is_some())
}

/// A file that is known.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Input {
    At(Located),
    /// A subfolder, and the files in it.
    Folder(String, Vec<Located>),
    /// Its name, and the server that had it.
    Gone(FileRef, Arc<str>),
}

impl Inputs {
    /// Looks the strings of a graph up in the ledger of files. `askers` are its client and its
    /// address; `nodes` is what the backends say of their nodes.
    ///
    /// The graph is read first, then all is looked up at once, and only if something was found is
    /// it read again: whoever holds the ledger keeps everybody waiting.
    #[must_use]
    pub(super) fn of(shared: &Shared, body: &[u8], askers: &[Maker], nodes: &KnownClasses) -> Self {
        let mut asked = Vec::new();
        let _ = files::mentions(body, |spelled| {
            asked.push(Asked::of(shared, spelled));
            None::<()>
        });
        let found = known_of(shared, &asked, askers);
        let mut mentions = Vec::new();
        if found.iter().any(Option::is_some) {
            let mut found = found.into_iter();
            let has_backend = |spelled: &Spelled<'_>| spelled.backend.is_some();
            mentions = files::mentions(body, |spelled| {
                found.next().flatten().map(|known| (known, has_backend(spelled)))
            });
            let classes = files::classes(body);
            mentions.retain(|mention| is_meant(nodes, &classes, mention));
        }
        let mentions = mentions.into_iter().map(|it| it.map(|(known, _)| known)).collect();
        let mut inputs = Self { mentions, near: SmallVec::new(), margin: 0 };
        inputs.near = inputs.found_near(shared);
        inputs
    }

    /// The backends that have most of them.
    #[must_use]
    pub(super) fn nearness(&self) -> Nearness {
        Nearness { backends: self.near.clone(), margin: self.margin }
    }

    fn found_near(&self, shared: &Shared) -> SmallVec<[BackendId; 4]> {
        if self.mentions.is_empty() {
            return SmallVec::new();
        }
        let files = shared.records.files();
        let count = |backend: BackendId| {
            let has = |at: &&Located| files.copy_on(at, backend).is_some();
            self.located().filter(has).count()
        };
        let counts: SmallVec<[(BackendId, usize); 8]> =
            shared.fleet.iter().map(|backend| (backend.id, count(backend.id))).collect();
        let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let is_near = |(_, count): &&(BackendId, usize)| 0 < most && *count == most;
        counts.iter().filter(is_near).map(|(backend, _)| *backend).collect()
    }

    /// Weighs what would have to be copied against the wait. Asked only where it decides: while a
    /// backend that has them is idle, they lie well, and so they do if there is no other.
    pub(super) async fn weigh(&mut self, shared: &Shared) {
        if self.near.is_empty() {
            return;
        }
        let near = &self.near;
        let now = now();
        let views = shared.fleet.views(now);
        let is_idle = |view: &BackendView| near.contains(&view.id) && view.load == 0;
        let takes = views.iter().filter(|view| view.takes_work());
        if takes.clone().count() < 2 || takes.clone().any(is_idle) {
            return;
        }
        let mut files: Vec<&Located> = self.located().collect();
        files.sort_by(|a, b| (a.backend, &a.file).cmp(&(b.backend, &b.file)));
        files.dedup();
        let size = |at: &Located| {
            let (backend, file) = (Arc::clone(&shared.fleet.get(at.backend)), at.file.clone());
            async move { backend.size_of(&file, WEIGHED_WITHIN).await }
        };
        let asked = futures_util::future::join_all(files.into_iter().take(WEIGHED_MAX).map(size));
        let Ok(sizes) = timeout(WEIGHED_WITHIN, asked).await else { return };
        let sizes: Vec<u64> = sizes.into_iter().filter_map(|size| size.ok().flatten()).collect();
        let affinity = &shared.config.affinity;
        let weights = CopyWeights {
            bytes_per_prompt: affinity.input_bytes,
            prompts_max: u32::try_from(affinity.input_margin).unwrap_or(u32::MAX),
            file_max: shared.config.files.copy_bytes,
        };
        self.margin = head_start(&sizes, weights);
    }

    /// The submission as `target` understands it: every file is there, under the name that stands
    /// in the graph.
    ///
    /// # Errors
    /// A file could not be brought; see [`inputs::copy`].
    pub(super) async fn brought(
        &self,
        front: &Front,
        target: &Arc<Backend>,
        body: Bytes,
    ) -> Result<Bytes, GatewayError> {
        if self.mentions.is_empty() {
            return Ok(body);
        }
        if let Some((file, server)) = self.mentions.iter().find_map(|it| it.known.gone()) {
            let file = for_people(file).into_owned();
            return Err(GatewayError::InputGone { file, backend: server.to_string() });
        }
        let sorted = |mut needed: Vec<_>| {
            needed.sort_by(|a: &&Located, b: &&Located| {
                (a.backend, &a.file).cmp(&(b.backend, &b.file))
            });
            needed.dedup();
            needed
        };
        let known = self.known_on(&front.shared, target, &sorted(self.located().collect()))?;
        let needed = sorted(self.single().collect());
        let bring = |original: &Located| {
            let original = original.clone();
            let known = known.iter().find(|(it, _)| *it == original).map(|(_, file)| file.clone());
            async move {
                let file = match known {
                    Some(file) => file,
                    None => inputs::copy(front, &original, target).await?,
                };
                Ok::<_, GatewayError>((original, file))
            }
        };
        let there = try_join_all(needed.into_iter().map(bring)).await?;
        let mut parts = Vec::new();
        for mention in &self.mentions {
            let name = match &mention.known {
                Input::At(at) => there.iter().find(|(it, _)| it == at).map(|(_, file)| file),
                Input::Folder(folder, files) => {
                    let name = folders::bring(front, (folder, files), target).await?;
                    parts.push((mention.at.clone(), mention.renamed_to(&name)));
                    None
                }
                Input::Gone(..) => None,
            };
            parts.extend(name.map(|name| (mention.at.clone(), mention.renamed(name))));
        }
        Ok(files::with_renamed(body, &parts))
    }

    /// `target` said that files are not there. Forgets copies that were thought to be, and looks
    /// for names that nobody knew on the other backends. True if something is known now that was
    /// not, so that submitting again makes sense.
    pub(super) async fn find_missing(
        &self,
        shared: &Shared,
        target: &Backend,
        lacks: &Lacks,
        askers: &[Maker],
    ) -> bool {
        let mut is_news = false;
        for name in lacks.files.iter().chain(&lacks.values) {
            let Some(spelled) = files::spelled(name) else { continue };
            if spelled.is_hash() {
                // No file has that name, and none must get it.
                continue;
            }
            let Some(file) = FileRef::of_path(spelled.folder, &spelled.path) else { continue };
            is_news |= self.forget_copies(shared, target, &file);
            let asked = [Asked::of(shared, &spelled)];
            let is_unknown = known_of(shared, &asked, askers).iter().all(Option::is_none);
            // A value is more often a model's name than a file's.
            if is_unknown && lacks.files.contains(name) {
                is_news |= view::search(shared, &file, Some(target.id)).await.is_some();
            }
        }
        is_news
    }

    /// True if one was thought to be there.
    fn forget_copies(&self, shared: &Shared, target: &Backend, file: &FileRef) -> bool {
        let mut files = shared.records.files();
        let mut is_news = false;
        for original in self.located().filter(|at| at.backend != target.id) {
            if files.copy_on(original, target.id).as_ref() == Some(file) {
                files.copy_is_gone(original, target.id);
                is_news = true;
            }
        }
        is_news
    }

    /// Which of the files are there already, and as what.
    fn known_on(
        &self,
        shared: &Shared,
        target: &Backend,
        needed: &[&Located],
    ) -> Result<Vec<(Located, FileRef)>, GatewayError> {
        if needed.iter().all(|at| at.backend == target.id) {
            return Ok(needed.iter().map(|at| ((*at).clone(), at.file.clone())).collect());
        }
        let max = shared.config.files.copies_per_prompt;
        let files = shared.records.files();
        let known = |at: &&Located| Some(((*at).clone(), files.copy_on(at, target.id)?));
        let known: Vec<_> = needed.iter().filter_map(known).collect();
        let to_copy = needed.len() - known.len();
        if max < to_copy { Err(GatewayError::TooManyInputs { max }) } else { Ok(known) }
    }

    /// All files, those of folders too.
    fn located(&self) -> impl Iterator<Item = &Located> {
        self.mentions.iter().flat_map(|mention| match &mention.known {
            Input::At(at) => std::slice::from_ref(at),
            Input::Folder(_, files) => files,
            Input::Gone(..) => &[],
        })
    }

    /// The files that are named one by one.
    fn single(&self) -> impl Iterator<Item = &Located> {
        self.mentions.iter().filter_map(|mention| match &mention.known {
            Input::At(at) => Some(at),
            Input::Folder(..) | Input::Gone(..) => None,
        })
    }
}

impl Input {
    fn gone(&self) -> Option<(&FileRef, &str)> {
        match self {
            Self::At(_) | Self::Folder(..) => None,
            Self::Gone(file, server) => Some((file, server)),
        }
    }
}

/// A string that may name a file, to be looked up with others.
struct Asked {
    folder: Folder,
    path: String,
    /// The backend that it names; a name that is no backend's leads nowhere.
    backend: Option<Option<BackendId>>,
    /// The string says itself in which folder it is.
    is_annotated: bool,
    /// Of a hash, which bytes it means, if it can be read: no file has that name, whatever it says.
    of_hash: Option<Option<ContentHash>>,
}

impl Asked {
    fn of(shared: &Shared, spelled: &Spelled<'_>) -> Self {
        let called = |name| shared.fleet.called(name).map(|backend| backend.id);
        Self {
            folder: spelled.folder,
            path: spelled.path.clone().into_owned(),
            backend: spelled.backend.map(called),
            is_annotated: spelled.annotated().is_some(),
            of_hash: spelled.is_hash().then_some(spelled.hash),
        }
    }

    /// What is known of it. One that was told with its backend as a bare output (`Preview3D` puts
    /// what it told into its own input again) is that output.
    fn known(&self, shared: &Shared, files: &Files, askers: &[Maker]) -> Option<Input> {
        if let Some(backend) = self.backend {
            let file = backend.and_then(|_| FileRef::of_path(self.folder, &self.path));
            let Some((backend, file)) = backend.zip(file) else {
                return self.folder(shared, files, askers);
            };
            let at = Located { backend, file };
            return Some(Input::At(if self.is_annotated { at } else { files.told_at(at) }));
        }
        match meaning_in(files, self.folder, &self.path, (askers, Strangers::Latest)) {
            Meaning::At(at) => Some(Input::At(at)),
            Meaning::Gone(url) => {
                Some(Input::Gone(FileRef::of_path(self.folder, &self.path)?, url))
            }
            Meaning::Unknown => self.folder(shared, files, askers),
        }
    }

    /// The subfolder of the inputs that it names.
    fn folder(&self, shared: &Shared, files: &Files, askers: &[Maker]) -> Option<Input> {
        if self.folder != Folder::Input {
            return None;
        }
        let (name, within) = names::split(self.path.trim_end_matches('/'));
        let within = within.map(|name| shared.fleet.called(name).map(|backend| backend.id));
        let located = match self.backend.or(within) {
            Some(backend) => files.in_subfolder_of(name, backend?),
            None => files.in_subfolder(name, askers),
        };
        (!located.is_empty()).then(|| Input::Folder(name.to_owned(), located))
    }
}

/// What is known of strings, all looked up at once.
fn known_of(shared: &Shared, asked: &[Asked], askers: &[Maker]) -> Vec<Option<Input>> {
    let hashes: Vec<ContentHash> = asked.iter().filter_map(|it| it.of_hash?).collect();
    let of_hashes = shared.records.files_of_hashes(&hashes);
    let files = shared.records.files();
    let known = |it: &Asked| match it.of_hash {
        Some(hash) => of_hashes.get(&hash?).cloned().map(Input::At),
        None => it.known(shared, &files, askers),
    };
    asked.iter().map(known).collect()
}

/// True if the string stands where a file is meant. One that carries a backend was picked from
/// names of ours, and is meant wherever it stands.
fn is_meant(
    nodes: &KnownClasses,
    classes: &HashMap<String, String>,
    mention: &Mention<(Input, bool)>,
) -> bool {
    let (input, has_backend) = &mention.known;
    let class = classes.get(&mention.node).map_or("", String::as_str);
    let kind = nodes.kind(class, &mention.input).unwrap_or(Kind::Other);
    match input {
        Input::Folder(..) => takes::a_folder(class, &mention.input, kind),
        Input::At(_) | Input::Gone(..) => {
            *has_backend || takes::a_file(class, &mention.input, kind)
        }
    }
}
