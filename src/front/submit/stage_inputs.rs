//! The files that a prompt uses, under the names that its backend knows (promise R4).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use smallvec::SmallVec;
use tokio::time::timeout;

use super::super::nodes::KnownClasses;
use super::super::{copy_file, view};
use super::folders;
use super::known::{Input, Known, Lookup, Places};
use crate::comfy::file_inputs::{self, Kind};
use crate::comfy::files::{self, Mention, Spelled};
use crate::comfy::refused::Lacks;
use crate::comfy::submission::Refusal;
use crate::fleet::backend::Backend;
use crate::front::Front;
use crate::front::error::GatewayError;
use crate::net::now;
use crate::records::files::for_people;
use crate::routing::files::{Maker, ToBring, user_of};
use crate::routing::ids::{BackendId, FileRef, Located};
use crate::routing::placement::{BackendView, CopyWeights, head_start};
use crate::routing::user_folder::UserFolder;
use crate::session::submissions::Nearness;
use crate::shared::Shared;

/// How long to wait for the sizes of files, because the placement must not take long.
const WEIGHED_WITHIN: Duration = Duration::from_millis(500);

/// For how many files the size is requested.
const WEIGHED_MAX: usize = 64;

/// How many names that say a backend are looked for there.
const RECALLED_MAX: usize = 64;

/// The files that the graph of a submission names.
#[derive(Debug)]
pub(super) struct Inputs {
    mentions: Vec<Mention<Input>>,
    /// The backends that have most of the files.
    near: SmallVec<[BackendId; 4]>,
    /// Whether those have all of the files.
    has_all: bool,
    /// How many more prompts the queue of these backends may have.
    margin: u32,
    /// The user whose submission it is.
    user: Option<Arc<str>>,
}

/// The submission without names of backends in the text that is stored. A picture that is opened on
/// another installation, or here after a change of the fleet, must not name a server.
///
/// Nor does any string of it name the folder of another user.
///
/// # Errors
/// What a user's submission names cannot be read.
pub(super) fn cleaned(
    shared: &Shared,
    user: Option<UserFolder>,
    body: Bytes,
) -> Result<Bytes, Refusal> {
    let body = files::without_backends(body, |name| shared.records.is_of_backend(name));
    match user {
        Some(user) => Ok(files::without_others(body, &user)?),
        None => Ok(body),
    }
}

impl Inputs {
    /// Looks up the strings of a graph in the ledger of files. `askers` are its client and its
    /// address; `nodes` is what the backends report about their nodes.
    ///
    /// The graph is read first, then everything is looked up at once, and the graph is read again
    /// only if something was found. A lock on the ledger blocks everybody else.
    #[must_use]
    pub(super) fn of(shared: &Shared, body: &[u8], askers: &[Maker], nodes: &KnownClasses) -> Self {
        let mut asked = Vec::new();
        let _ = files::mentions(body, |spelled| {
            asked.push(Lookup::of(shared, spelled));
            None::<()>
        });
        let known = Known::of(shared, &asked, askers);
        let mut mentions = Vec::new();
        if known.inputs.iter().any(Option::is_some) {
            let mut found = known.inputs.into_iter();
            let has_backend = |spelled: &Spelled<'_>| spelled.backend.is_some();
            mentions = files::mentions(body, |spelled| {
                found.next().flatten().map(|known| (known, has_backend(spelled)))
            });
            let classes = files::classes(body);
            mentions.retain(|mention| is_meant(nodes, &classes, mention));
        }
        let mentions = mentions.into_iter().map(|it| it.map(|(known, _)| known)).collect();
        let user = user_of(askers).map(Arc::from);
        let near = SmallVec::new();
        let mut inputs = Self { mentions, near, has_all: false, margin: 0, user };
        (inputs.near, inputs.has_all) = inputs.found_near(shared, &known.places);
        inputs
    }

    /// Looks for uploads of the user's own that are not known any more, where names say the
    /// backend. True if something new is known.
    pub(super) async fn recall(&self, shared: &Shared) -> bool {
        let Some(user) = self.user.as_deref().map(UserFolder::of) else { return false };
        let unsure = self.mentions.iter().filter_map(|mention| match &mention.known {
            Input::Perhaps(at) => Some(at),
            Input::At(_)
            | Input::Folder(..)
            | Input::Gone(..)
            | Input::Others(_)
            | Input::Outside { .. } => None,
        });
        let unsure: HashSet<&Located> = unsure.collect();
        let look = |at: &Located| {
            let at = at.clone();
            let user = &user;
            async move { view::own_or(shared, Some(user), at.clone()).await != at }
        };
        let looked = unsure.into_iter().take(RECALLED_MAX).map(look);
        futures_util::future::join_all(looked).await.contains(&true)
    }

    /// True if it names files that are known.
    #[must_use]
    pub(super) fn has_any(&self) -> bool {
        !self.mentions.is_empty()
    }

    /// The backends that have most of the files.
    #[must_use]
    pub(super) fn nearness(&self) -> Nearness {
        Nearness { backends: self.near.clone(), margin: self.margin }
    }

    /// The backends that have all of the files: nothing has to be copied there.
    #[must_use]
    pub(super) fn with_all(&self) -> SmallVec<[BackendId; 4]> {
        if self.has_all { self.near.clone() } else { SmallVec::new() }
    }

    /// The backends that have most of the files, and whether that is all of them.
    fn found_near(&self, shared: &Shared, places: &Places) -> (SmallVec<[BackendId; 4]>, bool) {
        if self.mentions.is_empty() {
            return (SmallVec::new(), false);
        }
        let count = |backend: BackendId| {
            let has = |at: &&Located| places.get(*at).is_some_and(|it| it.contains(&backend));
            self.located().filter(has).count()
        };
        let counts: SmallVec<[(BackendId, usize); 8]> =
            shared.fleet.iter().map(|backend| (backend.id, count(backend.id))).collect();
        let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let is_near = |(_, count): &&(BackendId, usize)| 0 < most && *count == most;
        let near = counts.iter().filter(is_near).map(|(backend, _)| *backend).collect();
        (near, most == self.located().count())
    }

    /// Compares the cost of copying with the cost of waiting. Only needed if it makes a difference:
    /// not while a backend with the files is idle, and not if there is no other backend.
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
        let config = shared.config();
        let affinity = &config.affinity;
        let weights = CopyWeights {
            bytes_per_prompt: affinity.input_bytes,
            prompts_max: u32::try_from(affinity.input_margin).unwrap_or(u32::MAX),
            file_max: config.files.copy_bytes,
        };
        self.margin = head_start(&sizes, weights);
    }

    /// The submission for `target`: every file exists there under the name in the graph.
    ///
    /// # Errors
    /// A file could not be copied; see [`copy_file::bring_known`].
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
        let known = self.to_bring(&front.shared, target, &sorted(self.located().collect()))?;
        let needed = sorted(self.single().collect());
        let bring = |original: &Located| {
            let original = original.clone();
            let known = known.get(&original).cloned();
            async move {
                let file = match known {
                    Some(it) => {
                        let wanted = (&original, self.user.as_deref(), it);
                        copy_file::bring_known(front, wanted, target).await?
                    }
                    // The original itself is there.
                    None => original.file.clone(),
                };
                Ok::<_, GatewayError>((original, file))
            }
        };
        let there = try_join_all(needed.into_iter().map(bring)).await?;
        let mut parts = Vec::new();
        for mention in &self.mentions {
            let name = match &mention.known {
                Input::At(at) | Input::Perhaps(at) => {
                    there.iter().find(|(it, _)| it == at).map(|(_, file)| file)
                }
                Input::Folder(folder, files) => {
                    let name = folders::bring(front, (folder, files), target).await?;
                    parts.push((mention.at.clone(), mention.renamed_to(&name)));
                    None
                }
                Input::Others(path) | Input::Outside { path, .. } => {
                    parts.push((mention.at.clone(), mention.renamed_to(path)));
                    None
                }
                Input::Gone(..) => None,
            };
            parts.extend(name.map(|name| (mention.at.clone(), mention.renamed(name))));
        }
        Ok(files::with_renamed(body, &parts))
    }

    /// `target` reported missing files. Forgets copies that were expected there, and looks for
    /// unknown names on the other backends. True if something new is known, so that another attempt
    /// makes sense.
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
                // No file has that name, and no file must get it.
                continue;
            }
            let Some(file) = FileRef::of_path(spelled.folder, &spelled.path) else { continue };
            is_news |= self.forget_copies(shared, target, &file);
            let asked = [Lookup::of(shared, &spelled)];
            let is_unknown = Known::of(shared, &asked, askers).inputs.iter().all(Option::is_none);
            // A value is more often the name of a model than of a file.
            if is_unknown && lacks.files.contains(name) {
                // An upload of the user's own may not be known any more, also not there.
                let own = self.user.as_deref().map(UserFolder::of);
                let own = own.and_then(|own| own.own_file(&file));
                let is_own = match &own {
                    Some(own) => view::search(shared, own, None).await.is_some(),
                    None => false,
                };
                is_news |= is_own || view::search(shared, &file, Some(target.id)).await.is_some();
            }
        }
        is_news
    }

    /// True if a copy was expected there.
    fn forget_copies(&self, shared: &Shared, target: &Backend, file: &FileRef) -> bool {
        let mut is_news = false;
        for original in self.located().filter(|at| at.backend != target.id) {
            let mut files = shared.records.files_of(&original.file);
            if files.copy_on(original, target.id).as_ref() == Some(file) {
                files.copy_is_gone(original, target.id);
                is_news = true;
            }
        }
        is_news
    }

    /// What is known about the files whose original is not there.
    fn to_bring(
        &self,
        shared: &Shared,
        target: &Backend,
        needed: &[&Located],
    ) -> Result<HashMap<Located, ToBring>, GatewayError> {
        let elsewhere = needed.iter().filter(|at| at.backend != target.id);
        let elsewhere: Vec<&Located> = elsewhere.copied().collect();
        let mut known = HashMap::new();
        shared.records.look_up(elsewhere.iter().map(|at| at.file.path()), |files, place| {
            if let Some(at) = elsewhere.get(place) {
                known.insert((*at).clone(), files.to_bring(at, self.user.as_deref(), target.id));
            }
        });
        let max = shared.config().files.copies_per_prompt;
        let to_copy = known.values().filter(|it| it.known.is_none()).count();
        if max < to_copy { Err(GatewayError::TooManyInputs { max }) } else { Ok(known) }
    }

    /// All files, including those of folders.
    fn located(&self) -> impl Iterator<Item = &Located> {
        self.mentions.iter().flat_map(|mention| match &mention.known {
            Input::At(at) | Input::Perhaps(at) => std::slice::from_ref(at),
            Input::Folder(_, files) => files,
            Input::Gone(..) | Input::Others(_) | Input::Outside { .. } => &[],
        })
    }

    /// The files that are named individually.
    fn single(&self) -> impl Iterator<Item = &Located> {
        self.mentions.iter().filter_map(|mention| match &mention.known {
            Input::At(at) | Input::Perhaps(at) => Some(at),
            Input::Folder(..) | Input::Gone(..) | Input::Others(_) => None,
            Input::Outside { .. } => None,
        })
    }
}

/// True if a file is expected at the place of this string. A name with a backend was chosen from
/// our lists, so it is a file wherever it is.
fn is_meant(
    nodes: &KnownClasses,
    classes: &HashMap<String, String>,
    mention: &Mention<(Input, bool)>,
) -> bool {
    let (input, has_backend) = &mention.known;
    let class = classes.get(&mention.node).map_or("", String::as_str);
    let kind = nodes.kind(class, &mention.input).unwrap_or(Kind::Other);
    match input {
        Input::Folder(..) => file_inputs::a_folder(class, &mention.input, kind),
        // Only a node that takes any path takes one from the root, and that says no folder.
        Input::Outside { is_annotated, .. } => {
            let is_listed = matches!(kind, Kind::Files | Kind::Choices);
            (*is_annotated && kind != Kind::Prose)
                || (is_listed && file_inputs::a_file(class, &mention.input, kind))
        }
        Input::At(_) | Input::Perhaps(_) | Input::Gone(..) | Input::Others(_) => {
            *has_backend || file_inputs::a_file(class, &mention.input, kind)
        }
    }
}
