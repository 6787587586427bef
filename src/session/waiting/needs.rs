//! What prompts need and what backends have, as far as is known: so the queue knows where a prompt
//! can run, and where its models are loaded.
//!
//! Doubt never refuses: while no backend is known to have all that a prompt needs, all may be
//! asked, and what they answer is told. The same is so once those have refused it that should have
//! had it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::{Index, PromptKey, Waiting};
use crate::comfy::needs::{Known, Lists, Needs};
use crate::comfy::object_info::NodeInfo;
use crate::net::now;
use crate::queue::Standing;
use crate::queue::ids::{ModelKey, ShapeId};
use crate::queue::shapes::{Lacks, ShapeFacts};
use crate::routing::ids::{BackendId, PromptId};

/// Backends that lack something.
type Lacking = SmallVec<[BackendId; 4]>;

/// So many sizes of models are kept.
const SIZES_MAX: usize = 65_536;

/// The part of a backend's memory that models get, in tenths.
const TENTHS_FOR_MODELS: u64 = 9;

/// What sets the shape of a prompt apart for which nothing counts as lacking.
const DOUBTED: u64 = 0x5bd1_e995_9d1c_0a5d;

/// The last `/object_info` of each backend.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    backends: Vec<(BackendId, Arc<NodeInfo>)>,
    version: u64,
}

impl Lists for Catalogue {
    fn of(&self, class: &str, input: &str, value: &str) -> Known {
        let mut known = Known::Nothing;
        for info in self.copies() {
            match Known::by(info.has(class, input, value)) {
                Known::Listed => return Known::Listed,
                Known::Upload => known = Known::Upload,
                Known::Nothing => {}
            }
        }
        known
    }
}

impl Catalogue {
    /// Each answer once: backends with equal ones share it.
    fn copies(&self) -> impl Iterator<Item = &NodeInfo> {
        let is_first = |at: usize, info: &Arc<NodeInfo>| {
            self.backends.iter().take(at).all(|(_, other)| !Arc::ptr_eq(other, info))
        };
        let all = self.backends.iter().enumerate();
        all.filter(move |(at, (_, info))| is_first(*at, info)).map(|(_, (_, info))| info.as_ref())
    }

    fn lacking(&self, needs: &Needs) -> Lacking {
        let mut found: SmallVec<[(&Arc<NodeInfo>, bool); 4]> = SmallVec::new();
        let mut lacks = |info| match found.iter().find(|(known, _)| Arc::ptr_eq(known, info)) {
            Some((_, lacks)) => *lacks,
            None => {
                let lacks = needs.lacking(info).is_some();
                found.push((info, lacks));
                lacks
            }
        };
        let lacking = self.backends.iter().filter(|(_, info)| lacks(info));
        lacking.map(|(backend, _)| *backend).collect()
    }

    fn get(&self, backend: BackendId) -> Option<&NodeInfo> {
        self.backends.iter().find(|(id, _)| *id == backend).map(|(_, info)| info.as_ref())
    }
}

/// What one prompt needs, and who lacks something of it.
#[derive(Clone, Debug, Default)]
pub struct Wants {
    pub(super) needs: Arc<Needs>,
    lacks: Lacking,
    /// Of the catalogue that says so.
    version: u64,
}

impl Wants {
    /// The same for a prompt that was known before.
    pub(super) fn again(needs: Arc<Needs>, catalogue: &Catalogue) -> Self {
        let lacks = catalogue.lacking(&needs);
        Self { needs, lacks, version: catalogue.version }
    }
}

/// What one backend is to a prompt that waits, for operators.
#[derive(Clone, Debug)]
pub struct Place {
    pub backend: BackendId,
    /// `warm`, `cold` or `lacks`.
    pub is: &'static str,
    /// How long its models are expected to load there.
    pub load: Option<Duration>,
    /// What is missing there.
    pub lacks: Option<String>,
}

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
    known: Vec<BackendId>,
    /// The changes of the fleet that the queue was told of.
    fleet_changes: u64,
}

#[derive(Debug)]
struct Shaped {
    needs: Arc<Needs>,
    family: u64,
    lacks: Lacking,
}

impl Waiting {
    /// What the prompt of this body needs. Not to be asked under a lock: a body may be large.
    #[must_use]
    pub(in crate::session) fn wants(&self, body: &[u8]) -> Wants {
        let catalogue = self.catalogue.load();
        let needs = Needs::of(body, &**catalogue);
        let lacks = catalogue.lacking(&needs);
        Wants { needs: Arc::new(needs), lacks, version: catalogue.version }
    }

    /// What backends have, anew.
    pub fn knows(&self, backends: Vec<(BackendId, Arc<NodeInfo>)>) {
        let before = self.catalogue.load_full();
        let has_changed = backends.iter().any(|(id, info)| {
            let known = before.backends.iter().find(|(known, _)| known == id);
            known.is_some_and(|(_, known)| !Arc::ptr_eq(known, info))
        });
        let catalogue = Arc::new(Catalogue { backends, version: before.version + 1 });
        self.catalogue.store(Arc::clone(&catalogue));
        let shapes: Vec<(ShapeId, Arc<Needs>)> = {
            let mut index = self.index();
            index.knowledge.version = catalogue.version;
            index.knowledge.known = catalogue.backends.iter().map(|(id, _)| *id).collect();
            // What was valid may not be any more.
            index.fleet_changes += u64::from(has_changed);
            let shapes = index.knowledge.shapes.iter();
            shapes.map(|(shape, it)| (*shape, Arc::clone(&it.needs))).collect()
        };
        // Lists are long: nobody waits for this.
        let found: Vec<_> = shapes
            .into_iter()
            .map(|(shape, needs)| (shape, catalogue.lacking(&needs), needs))
            .collect();
        let at = self.at(now());
        let mut index = self.index();
        for (shape, lacks, needs) in found {
            let shaped = index.knowledge.shapes.get_mut(&shape);
            if let Some(shaped) = shaped.filter(|it| Arc::ptr_eq(&it.needs, &needs)) {
                shaped.lacks = lacks;
            }
        }
        index.tell_all(at);
        drop(index);
        self.wake();
    }

    /// How large models are.
    pub fn knows_sizes(&self, sizes: Vec<(String, u64)>) {
        let mut index = self.index();
        for (name, bytes) in sizes {
            let Index { queue, knowledge, .. } = &mut *index;
            if let Some(key) = knowledge.models.get(&*name) {
                queue.weighs(*key, bytes);
            }
            if knowledge.sizes.len() < SIZES_MAX || knowledge.sizes.contains_key(&*name) {
                knowledge.sizes.insert(name.into(), bytes);
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
        self.catalogue.load().backends.len()
    }

    /// The backends that are known to lack something of this prompt, while others are not.
    #[must_use]
    pub fn lacking(&self, prompt: &PromptId) -> SmallVec<[BackendId; 4]> {
        let index = self.index();
        let Some(key) = index.prompts.get(prompt).map(|it| it.key) else { return SmallVec::new() };
        let all = index.fleet.keys().copied();
        all.filter(|id| index.is_lacking(key, *id)).collect()
    }

    /// What each backend is to a prompt that waits, in the order of their slots.
    #[must_use]
    pub fn places(&self, prompt: &PromptId) -> Vec<Place> {
        if !self.has_waiting(prompt) {
            return Vec::new();
        }
        let catalogue = self.catalogue.load();
        let index = self.index();
        let Some(entry) = index.prompts.get(prompt) else { return Vec::new() };
        let place = |backend: BackendId| {
            let standing = index.queue.standing(entry.key, backend)?;
            let (is, load) = match standing {
                Standing::Warm => ("warm", None),
                Standing::Cold(load) => ("cold", Some(load)),
                Standing::Lacks => ("lacks", None),
            };
            let lacks = catalogue.get(backend).and_then(|info| entry.needs.lacking(info));
            let lacks = lacks.map(str::to_owned);
            Some(Place { backend, is, load, lacks })
        };
        let mut places: Vec<Place> = index.fleet.keys().copied().filter_map(place).collect();
        places.sort_by_key(|it| it.backend.slot());
        places
    }

    /// How long a prompt has taken, as a part of what was expected.
    #[must_use]
    pub fn prediction(&self, prompt: &PromptId) -> Option<f64> {
        let at = self.at(now());
        let index = self.index();
        index.queue.prediction(index.prompts.get(prompt)?.key, at)
    }
}

impl Index {
    fn is_lacking(&self, key: PromptKey, backend: BackendId) -> bool {
        self.queue.standing(key, backend) == Some(Standing::Lacks)
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
    }

    fn tell_all(&mut self, at: Duration) {
        let shapes: Vec<ShapeId> = self.knowledge.shapes.keys().copied().collect();
        shapes.into_iter().for_each(|shape| self.tell_lacks(shape, at));
    }

    /// The shape of a prompt, for the queue.
    pub(super) fn shape_of(&mut self, prompt: &PromptId, wants: Wants, at: Duration) -> ShapeId {
        let Wants { needs, lacks, .. } = wants;
        let models = self.models_of(&needs);
        let (family, classes, size) = (needs.family(), needs.of_classes(), needs.size);
        let is_doubted = self.prompts.get(prompt).is_some_and(|it| it.is_doubted);
        if is_doubted {
            let family = family ^ DOUBTED;
            let shape = self.queue.shape(ShapeFacts { models, family, classes, size });
            self.knowledge.shapes.remove(&shape);
            return shape;
        }
        let shape = self.queue.shape(ShapeFacts { models, family, classes, size });
        // The id may have been that of another shape.
        let known = self.knowledge.shapes.get(&shape).filter(|it| it.family == family);
        let needs = match known {
            Some(known) => Arc::clone(&known.needs),
            None => {
                let shaped = Shaped { needs: Arc::clone(&needs), family, lacks };
                self.knowledge.shapes.insert(shape, shaped);
                needs
            }
        };
        self.tell_lacks(shape, at);
        // Those of a batch share one.
        if let Some(entry) = self.prompts.get_mut(prompt) {
            entry.needs = needs;
        }
        shape
    }

    /// The files that have to be loaded, the largest first. Names that no server lists are nobody's
    /// models, if servers list them: otherwise anybody could use up all numbers.
    fn models_of(&mut self, needs: &Needs) -> Vec<ModelKey> {
        let Self { queue, knowledge: Knowledge { models, sizes, .. }, .. } = self;
        let is_one = |name: &&str| sizes.is_empty() || sizes.contains_key(*name);
        let mut names: Vec<&str> = needs.models.iter().map(AsRef::as_ref).filter(is_one).collect();
        if !sizes.is_empty() {
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
        Wants { lacks: catalogue.lacking(&wants.needs), version: catalogue.version, ..wants }
    }

    fn tell_lacks(&mut self, shape: ShapeId, at: Duration) {
        let Self { queue, knowledge, fleet, .. } = self;
        let Some(Shaped { lacks, .. }) = knowledge.shapes.get(&shape) else { return };
        // Of one that has said nothing it is not known that it has all.
        let has_all = |id: &BackendId| knowledge.known.contains(id) && !lacks.contains(id);
        let is_one_capable = knowledge.may_run.iter().any(has_all);
        for backend in fleet.keys() {
            let lacks = match is_one_capable && lacks.contains(backend) {
                true => Lacks::Something,
                false => Lacks::Nothing,
            };
            queue.lacks(shape, *backend, lacks, at);
        }
    }

    /// A backend has refused the prompt because it lacks a part. If all have that should have had
    /// it, nothing counts as known: the others are asked too.
    pub(super) fn doubts(&mut self, prompt: &PromptId, at: Duration) {
        let (Some(entry), Some(refused)) = (self.prompts.get(prompt), self.refused.get(prompt))
        else {
            return;
        };
        let (key, needs) = (entry.key, Arc::clone(&entry.needs));
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
        let shape = self.shape_of(prompt, Wants { needs, ..Wants::default() }, at);
        self.queue.reshape(key, shape, at);
    }
}
