//! What prompts need and what backends have, as far as is known: so the queue knows where a prompt
//! can run, and where its models are loaded.
//!
//! Doubt never refuses: while no backend is known to have all that a prompt needs, all may be
//! asked, and what they answer is told. The same is so once those have refused it that should have
//! had it.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::task::yield_now;

use super::catalogue::{Catalogue, Lacking, Wants, is_among};
use super::{Index, PromptKey, Waiting};
use crate::comfy::needs::Needs;
use crate::comfy::object_info::NodeInfo;
use crate::net::now;
use crate::queue::fleet::Serving;
use crate::queue::ids::{ModelKey, ShapeId};
use crate::queue::shapes::{Lacks, ShapeFacts};
use crate::routing::ids::{BackendId, PromptId};

/// So many sizes of models are kept.
const SIZES_MAX: usize = 65_536;

/// So many are told at once.
const SIZES_AT_ONCE: usize = 1_024;

/// Of so many shapes it is looked at once who lacks something.
const SHAPES_AT_ONCE: usize = 16;

/// The part of a backend's memory that models get, in tenths.
const TENTHS_FOR_MODELS: u64 = 9;

/// What sets the shape of a prompt apart for which nothing counts as lacking.
const DOUBTED: u64 = 0x5bd1_e995_9d1c_0a5d;

/// What the index knows of models and of what prompts of a shape need.
#[derive(Debug, Default)]
pub(super) struct Knowledge {
    shapes: HashMap<ShapeId, Shaped>,
    version: u64,
    models: HashMap<Box<str>, ModelKey>,
    /// How large models are, by their names.
    sizes: HashMap<Box<str>, u64>,
    /// How much memory backends have for models.
    pub(super) memories: HashMap<BackendId, u64>,
    may_run: SmallVec<[BackendId; 8]>,
    /// The backends of which it is known what they have.
    known: HashSet<BackendId>,
    /// The changes of the fleet that the queue was told of.
    fleet_changes: u64,
}

#[derive(Debug)]
struct Shaped {
    needs: Arc<Needs>,
    family: u64,
    classes: u64,
    lacks: Lacking,
    /// How many models are known of it.
    models: usize,
}

impl Shaped {
    fn wants(&self) -> Wants {
        let (needs, family, classes) = (Arc::clone(&self.needs), self.family, self.classes);
        Wants { needs, family, classes, ..Wants::default() }
    }
}

impl Knowledge {
    /// Who lacks something that prompts of this shape need, and who does not.
    fn lacks(
        &self,
        shape: ShapeId,
        fleet: &HashMap<BackendId, Serving>,
    ) -> impl Iterator<Item = (ShapeId, BackendId, Lacks)> {
        let lacks = self.shapes.get(&shape).map(|it| &it.lacks);
        let lacks_it = move |id: &BackendId| lacks.is_some_and(|lacks| is_among(lacks, *id));
        // Of one that has said nothing it is not known that it has all.
        let has_all = |id: &BackendId| self.known.contains(id) && !lacks_it(id);
        let is_one_capable = lacks.is_some() && self.may_run.iter().any(has_all);
        fleet.keys().filter(move |_| lacks.is_some()).map(move |backend| {
            let lacks = match is_one_capable && lacks_it(backend) {
                true => Lacks::Something,
                false => Lacks::Nothing,
            };
            (shape, *backend, lacks)
        })
    }
}

impl Waiting {
    /// What the prompt of this body needs. Not to be asked under a lock: a body may be large.
    #[must_use]
    pub(in crate::session) fn wants(&self, body: &[u8]) -> Wants {
        let catalogue = self.catalogue.load();
        Wants::of(Arc::new(Needs::of(body, &**catalogue)), &catalogue)
    }

    /// What backends have, anew.
    pub async fn knows(&self, said: Vec<(BackendId, Arc<NodeInfo>)>) {
        let version = self.catalogue.load().version + 1;
        let catalogue = Arc::new(Catalogue::new(said, version));
        self.catalogue.store(Arc::clone(&catalogue));
        let shapes: Vec<(ShapeId, Wants)> = {
            let mut index = self.index();
            index.knowledge.version = catalogue.version;
            index.knowledge.known = catalogue.backends().collect();
            let shapes = index.knowledge.shapes.iter();
            shapes.map(|(shape, it)| (*shape, it.wants())).collect()
        };
        // Lists are long: nobody waits for this.
        let mut found = HashMap::with_capacity(shapes.len());
        for (nth, (shape, wants)) in shapes.into_iter().enumerate() {
            if nth % SHAPES_AT_ONCE == SHAPES_AT_ONCE - 1 {
                yield_now().await;
            }
            found.insert(shape, wants.by(&catalogue));
        }
        let at = self.at(now());
        let mut index = self.index();
        index.known_anew(found, at);
        index.doubts_all(at);
        drop(index);
        self.wake();
    }

    /// True if it is news that this backend lacks a part of the prompt.
    #[must_use]
    pub fn is_news(&self, prompt: &PromptId, backend: BackendId) -> bool {
        let needs = self.index().prompts.get(prompt).map(|it| Arc::clone(&it.needs));
        let (needs, catalogue) = (needs.unwrap_or_default(), self.catalogue.load());
        catalogue.get(backend).is_none_or(|info| needs.lacking(info).is_none())
    }

    /// True if this backend has nothing to do, and is passed over because it is known to lack parts
    /// of what waits.
    #[must_use]
    pub fn passes_over(&self, backend: BackendId) -> bool {
        let index = self.index();
        let lacks = |(shape, it): (&ShapeId, &Shaped)| {
            is_among(&it.lacks, backend) && index.queue.has_shape(*shape)
        };
        index.queue.there(backend) == 0 && index.knowledge.shapes.iter().any(lacks)
    }

    /// How large models are.
    pub fn knows_sizes(&self, sizes: &[(String, u64)]) {
        // Lists are long: others have their turns in between.
        for some in sizes.chunks(SIZES_AT_ONCE) {
            let mut index = self.index();
            let Index { queue, knowledge, .. } = &mut *index;
            for (name, bytes) in some {
                if let Some(key) = knowledge.models.get(&**name) {
                    queue.weighs(*key, *bytes);
                }
                if let Some(known) = knowledge.sizes.get_mut(&**name) {
                    *known = *bytes;
                } else if knowledge.sizes.len() < SIZES_MAX {
                    knowledge.sizes.insert(name.as_str().into(), *bytes);
                }
            }
        }
    }

    /// How much memory a backend has, of which models get most.
    pub fn knows_memory(&self, backend: BackendId, bytes: u64) {
        let bytes = bytes / 10 * TENTHS_FOR_MODELS;
        let mut index = self.index();
        index.knowledge.memories.insert(backend, bytes);
        index.queue.remembers(backend, Some(bytes));
    }

    /// A backend has no models in its memory any more: its process is new, or they were freed.
    pub fn emptied(&self, backend: BackendId) {
        if self.is_used() {
            self.index().queue.emptied(backend);
        }
    }

    /// Of how many backends it is known what they have.
    #[must_use]
    pub fn known_backends(&self) -> usize {
        self.catalogue.load().backends().len()
    }

    /// The backends that are known to lack something of this prompt, while others are not.
    #[must_use]
    pub fn lacking(&self, prompt: &PromptId) -> SmallVec<[BackendId; 4]> {
        let index = self.index();
        let Some(key) = index.prompts.get(prompt).map(|it| it.key) else { return SmallVec::new() };
        let all = index.fleet.keys().copied();
        all.filter(|id| index.is_lacking(key, *id)).collect()
    }
}

impl Index {
    fn is_lacking(&self, key: PromptKey, backend: BackendId) -> bool {
        self.queue.is_known_to_lack(key, backend)
    }

    /// Where prompts may run now: while one of these has all that a prompt needs, the others are
    /// not asked.
    pub(super) fn may_run(&mut self, may_run: &[BackendId], at: Duration) {
        let known = &mut self.knowledge;
        if *known.may_run == *may_run && known.fleet_changes == self.fleet_changes {
            return;
        }
        (known.may_run, known.fleet_changes) = (may_run.into(), self.fleet_changes);
        self.tell_all(at);
        self.doubts_all(at);
    }

    /// Other backends may be left, or known, than when a prompt was refused.
    fn doubts_all(&mut self, at: Duration) {
        let refused: Vec<PromptId> = self.refused.keys().cloned().collect();
        refused.iter().for_each(|prompt| self.doubts(prompt, at));
    }

    /// Something was learned of what backends have. What was submitted before that may turn out to
    /// need models.
    fn known_anew(&mut self, found: HashMap<ShapeId, Wants>, at: Duration) {
        let mut reshaped: HashMap<ShapeId, Wants> = HashMap::new();
        for (shape, wants) in found {
            let shaped = self.knowledge.shapes.get_mut(&shape);
            let shaped = shaped.filter(|it| Arc::ptr_eq(&it.needs, &wants.needs));
            let Some(shaped) = shaped else { continue };
            shaped.lacks.clone_from(&wants.lacks);
            let before = shaped.models;
            if self.models_of(&wants).len() != before {
                reshaped.insert(shape, wants);
            }
        }
        self.tell_all(at);
        if reshaped.is_empty() {
            return;
        }
        let prompts = self.prompts.iter().filter(|(_, it)| self.queue.has_waiting(it.key));
        let prompts: Vec<(PromptId, PromptKey, ShapeId)> =
            prompts.filter_map(|(prompt, it)| Some((prompt.clone(), it.key, it.shape?))).collect();
        for (prompt, key, before) in prompts {
            let Some(wants) = reshaped.get(&before) else { continue };
            let shape = self.shape_of(&prompt, wants.clone(), at);
            self.queue.reshape(key, shape, at);
            self.forgets_shape(before);
        }
    }

    /// Nothing is kept of what nobody needs any more.
    pub(super) fn forgets_shape(&mut self, shape: ShapeId) {
        if !self.queue.has_shape(shape) {
            self.knowledge.shapes.remove(&shape);
        }
    }

    fn tell_all(&mut self, at: Duration) {
        let Self { queue, knowledge, fleet, .. } = self;
        queue.lacks(knowledge.shapes.keys().flat_map(|shape| knowledge.lacks(*shape, fleet)), at);
    }

    /// The shape of a prompt, for the queue.
    pub(super) fn shape_of(&mut self, prompt: &PromptId, wants: Wants, at: Duration) -> ShapeId {
        let models = self.models_of(&wants);
        let count = models.len();
        let Wants { needs, family, classes, lacks, .. } = wants;
        let size = needs.size;
        let is_doubted = self.prompts.get(prompt).is_some_and(|it| it.is_doubted);
        if is_doubted {
            let family = family ^ DOUBTED;
            let shape = self.queue.shape(ShapeFacts { models, family, classes, size });
            self.knowledge.shapes.remove(&shape);
            self.is_of_shape(prompt, shape);
            return shape;
        }
        let shape = self.queue.shape(ShapeFacts { models, family, classes, size });
        // The id may have been that of another shape.
        let known = self.knowledge.shapes.get(&shape).filter(|it| it.family == family);
        let needs = match known.filter(|_| self.queue.has_shape(shape)) {
            Some(known) => Arc::clone(&known.needs),
            None if shape == ShapeId::SHARED => needs,
            None => {
                let here = Arc::clone(&needs);
                let shaped = Shaped { needs: here, family, classes, lacks, models: count };
                self.knowledge.shapes.insert(shape, shaped);
                self.tell_lacks(shape, at);
                needs
            }
        };
        // Those of a batch share one.
        if let Some(entry) = self.prompts.get_mut(prompt) {
            entry.needs = needs;
        }
        self.is_of_shape(prompt, shape);
        shape
    }

    fn is_of_shape(&mut self, prompt: &PromptId, shape: ShapeId) {
        if let Some(entry) = self.prompts.get_mut(prompt) {
            entry.shape = Some(shape);
        }
    }

    /// The files that have to be loaded, the largest first. A name that no backend lists is no
    /// model: otherwise anybody could use up all numbers.
    fn models_of(&mut self, wants: &Wants) -> Vec<ModelKey> {
        let Self { queue, knowledge: Knowledge { models, sizes, .. }, .. } = self;
        let is_one =
            |name: &&str| sizes.contains_key(*name) || wants.listed.iter().any(|it| **it == **name);
        let names = wants.needs.models.iter().map(AsRef::as_ref);
        let mut names: Vec<&str> = names.filter(is_one).collect();
        if names.iter().all(|name| sizes.contains_key(*name)) {
            names.sort_by_key(|name| Reverse(sizes.get(*name)));
        }
        let mut keys = Vec::with_capacity(names.len());
        for name in names {
            let next = u32::try_from(models.len()).unwrap_or(ModelKey::MAX);
            let key = match models.get(name) {
                Some(key) => *key,
                None if ModelKey::MAX <= next => continue,
                None => {
                    let key = ModelKey(next);
                    models.insert(name.into(), key);
                    sizes.get(name).into_iter().for_each(|bytes| queue.weighs(key, *bytes));
                    key
                }
            };
            keys.push(key);
        }
        keys
    }

    /// What a prompt needs is known anew.
    pub(super) fn anew(&self, wants: Wants, catalogue: &Catalogue) -> Wants {
        if wants.version == self.knowledge.version {
            return wants;
        }
        // Something was learned since it was read.
        wants.by(catalogue)
    }

    fn tell_lacks(&mut self, shape: ShapeId, at: Duration) {
        let Self { queue, knowledge, fleet, .. } = self;
        queue.lacks(knowledge.lacks(shape, fleet), at);
    }

    /// A backend has refused the prompt because it lacks a part. If all have that should have had
    /// it, nothing counts as known: the others are asked too.
    pub(super) fn doubts(&mut self, prompt: &PromptId, at: Duration) {
        let (Some(entry), Some(refused)) = (self.prompts.get(prompt), self.refused.get(prompt))
        else {
            return;
        };
        let (key, needs, before) = (entry.key, Arc::clone(&entry.needs), entry.shape);
        let mut may_run = self.knowledge.may_run.iter();
        let lacks_or_refuses =
            |id: &BackendId| refused.by.contains(id) || self.is_lacking(key, *id);
        let some_lack = may_run.clone().any(|id| self.is_lacking(key, *id));
        if entry.is_doubted || !some_lack || !may_run.all(lacks_or_refuses) {
            return;
        }
        if let Some(entry) = self.prompts.get_mut(prompt) {
            entry.is_doubted = true;
        }
        // What it needs is known, and not who has it.
        let shape = self.shape_of(prompt, Wants::of(needs, &Catalogue::default()), at);
        self.queue.reshape(key, shape, at);
        before.into_iter().for_each(|before| self.forgets_shape(before));
    }
}

#[cfg(test)]
mod tests;
