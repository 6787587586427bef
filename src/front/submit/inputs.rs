//! The files that a prompt uses, named as its backend knows them (promise R4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use smallvec::SmallVec;
use tokio::time::timeout;

use super::super::{inputs, view};
use super::folders;
use crate::client::submissions::Nearness;
use crate::comfy::files::{self, Mention, Spelled};
use crate::comfy::names;
use crate::comfy::refused::Lacks;
use crate::comfy::takes::{self, Kind};
use crate::error::GatewayError;
use crate::fleet::backend::Backend;
use crate::gateway::Gateway;
use crate::gateway::files::{Meaning, for_people};
use crate::net::now;
use crate::routing::files::{Maker, Strangers};
use crate::routing::ids::{BackendId, FileRef, Folder, Located};
use crate::routing::place::{BackendView, CopyWeights, head_start};

/// How long the sizes of files are awaited: a prompt must not wait long to be placed.
const WEIGHED_WITHIN: Duration = Duration::from_millis(500);

/// How many files are asked about.
const WEIGHED_MAX: usize = 64;

/// The files that the graph of a submission names.
#[derive(Debug)]
pub(super) struct Inputs {
    mentions: Vec<Mention<Input>>,
    /// How many prompts longer a queue may be where they lie.
    margin: u32,
}

/// The submission without names of backends in what is kept of it. A picture that is opened
/// elsewhere, or here after a change of the fleet, names no server.
#[must_use]
pub(super) fn untagged(gateway: &Gateway, body: Bytes) -> Bytes {
    files::without_backends(body, |name| gateway.fleet.called(name).is_some())
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
    /// address.
    #[must_use]
    pub(super) fn of(gateway: &Gateway, body: &[u8], askers: &[Maker]) -> Self {
        if gateway.files().is_empty() && gateway.assets().is_empty() {
            return Self { mentions: Vec::new(), margin: 0 };
        }
        let mut mentions = files::mentions(body, |spelled| {
            known(gateway, spelled, askers).map(|known| (known, spelled.backend.is_some()))
        });
        if !mentions.is_empty() {
            let classes = files::classes(body);
            mentions.retain(|mention| is_meant(gateway, &classes, mention));
        }
        let mentions = mentions.into_iter().map(|it| it.map(|(known, _)| known)).collect();
        Self { mentions, margin: 0 }
    }

    /// The backends that have most of them.
    #[must_use]
    pub(super) fn nearness(&self, gateway: &Gateway) -> Nearness {
        Nearness { backends: self.near(gateway), margin: self.margin }
    }

    fn near(&self, gateway: &Gateway) -> SmallVec<[BackendId; 4]> {
        let files = gateway.files();
        let count = |backend: BackendId| {
            let has = |at: &&Located| files.copy_on(at, backend).is_some();
            self.located().filter(has).count()
        };
        let counts: SmallVec<[(BackendId, usize); 8]> =
            gateway.fleet.iter().map(|backend| (backend.id, count(backend.id))).collect();
        let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let is_near = |(_, count): &&(BackendId, usize)| 0 < most && *count == most;
        counts.iter().filter(is_near).map(|(backend, _)| *backend).collect()
    }

    /// Weighs what would have to be copied against the wait. Asked only where it decides: while a
    /// backend that has them is idle, they lie well, and so they do if there is no other.
    pub(super) async fn weigh(&mut self, gateway: &Gateway) {
        let near = self.near(gateway);
        let now = now();
        let views = gateway.fleet.views(now);
        let is_idle = |view: &BackendView| near.contains(&view.id) && view.load == 0;
        let takes = views.iter().filter(|view| view.takes_work());
        if near.is_empty() || takes.clone().count() < 2 || takes.clone().any(is_idle) {
            return;
        }
        let mut files: Vec<&Located> = self.located().collect();
        files.sort_by(|a, b| (a.backend, &a.file).cmp(&(b.backend, &b.file)));
        files.dedup();
        let size = |at: &Located| {
            let (backend, file) = (Arc::clone(gateway.fleet.get(at.backend)), at.file.clone());
            async move { backend.size_of(&file, WEIGHED_WITHIN).await }
        };
        let asked = futures_util::future::join_all(files.into_iter().take(WEIGHED_MAX).map(size));
        let Ok(sizes) = timeout(WEIGHED_WITHIN, asked).await else { return };
        let sizes: Vec<u64> = sizes.into_iter().filter_map(|size| size.ok().flatten()).collect();
        let affinity = &gateway.config.affinity;
        let weights = CopyWeights {
            bytes_per_prompt: affinity.input_bytes,
            prompts_max: u32::try_from(affinity.input_margin).unwrap_or(u32::MAX),
            file_max: gateway.config.files.copy_bytes,
        };
        self.margin = head_start(&sizes, weights);
    }

    /// The submission as `target` understands it: every file is there, under the name that stands
    /// in the graph.
    ///
    /// # Errors
    /// A file could not be brought; see [`inputs::bring`].
    pub(super) async fn brought(
        &self,
        gateway: &Gateway,
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
        self.check_count(gateway, target, &sorted(self.located().collect()))?;
        let needed = sorted(self.single().collect());
        let bring = |original: &Located| {
            let original = original.clone();
            async move {
                let file = inputs::bring(gateway, &original, target).await?;
                Ok::<_, GatewayError>((original, file))
            }
        };
        let there = try_join_all(needed.into_iter().map(bring)).await?;
        let mut parts = Vec::new();
        for mention in &self.mentions {
            let name = match &mention.known {
                Input::At(at) => there.iter().find(|(it, _)| it == at).map(|(_, file)| file),
                Input::Folder(folder, files) => {
                    let name = folders::bring(gateway, (folder, files), target).await?;
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
        gateway: &Gateway,
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
            is_news |= self.forget_copies(gateway, target, &file);
            let is_unknown = known(gateway, &spelled, askers).is_none();
            // A value is more often a model's name than a file's.
            if is_unknown && lacks.files.contains(name) {
                is_news |= view::search(gateway, &file, Some(target.id)).await.is_some();
            }
        }
        is_news
    }

    /// True if one was thought to be there.
    fn forget_copies(&self, gateway: &Gateway, target: &Backend, file: &FileRef) -> bool {
        let mut files = gateway.files();
        let mut is_news = false;
        for original in self.located().filter(|at| at.backend != target.id) {
            if files.copy_on(original, target.id).as_ref() == Some(file) {
                files.copy_is_gone(original, target.id);
                is_news = true;
            }
        }
        is_news
    }

    fn check_count(
        &self,
        gateway: &Gateway,
        target: &Backend,
        needed: &[&Located],
    ) -> Result<(), GatewayError> {
        let max = gateway.config.files.copies_per_prompt;
        let files = gateway.files();
        let to_copy = needed.iter().filter(|at| files.copy_on(at, target.id).is_none()).count();
        if max < to_copy { Err(GatewayError::TooManyInputs { max }) } else { Ok(()) }
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

/// What is known of a string. One that was told with its backend as a bare output (`Preview3D` puts
/// what it told into its own input again) is that output.
fn known(gateway: &Gateway, spelled: &Spelled<'_>, askers: &[Maker]) -> Option<Input> {
    if spelled.is_hash() {
        return gateway.file_of_hash(spelled.hash?).map(Input::At);
    }
    match gateway.meaning(spelled.folder, &spelled.path, spelled.backend, askers, Strangers::Latest)
    {
        Meaning::At(at) => Some(Input::At(match spelled.backend {
            Some(_) if spelled.annotated().is_none() => gateway.files().told_at(at),
            Some(_) | None => at,
        })),
        Meaning::Gone(url) => {
            Some(Input::Gone(FileRef::of_path(spelled.folder, &spelled.path)?, url))
        }
        Meaning::Unknown => folder(gateway, spelled, askers),
    }
}

/// The subfolder of the inputs that a string names.
fn folder(gateway: &Gateway, spelled: &Spelled<'_>, askers: &[Maker]) -> Option<Input> {
    if spelled.folder != Folder::Input {
        return None;
    }
    let (name, within) = names::split(spelled.path.trim_end_matches('/'));
    let backend = match spelled.backend.or(within) {
        Some(backend) => Some(gateway.fleet.called(backend)?.id),
        None => None,
    };
    let files = gateway.files();
    let located = match backend {
        Some(backend) => files.in_subfolder_of(name, backend),
        None => files.in_subfolder(name, askers),
    };
    (!located.is_empty()).then(|| Input::Folder(name.to_owned(), located))
}

/// True if the string stands where a file is meant. One that carries a backend was picked from
/// names of ours, and is meant wherever it stands.
fn is_meant(
    gateway: &Gateway,
    classes: &HashMap<String, String>,
    mention: &Mention<(Input, bool)>,
) -> bool {
    let (input, has_backend) = &mention.known;
    let class = classes.get(&mention.node).map_or("", String::as_str);
    let kind = gateway.nodes.kind(class, &mention.input).unwrap_or(Kind::Other);
    match input {
        Input::Folder(..) => takes::a_folder(class, &mention.input, kind),
        Input::At(_) | Input::Gone(..) => {
            *has_backend || takes::a_file(class, &mention.input, kind)
        }
    }
}
