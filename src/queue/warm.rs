//! Which models are thought to be in whose memory, and how long those take that are not.
//!
//! By bytes, and least recently used goes first: files of all sizes count, so that a LoRA does not
//! push a base model out. It is a guess: ComfyUI tells nobody what it keeps.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::ids::ModelKey;
use super::learned::Means;
use super::settings::{DISK, LOAD_LEAST, LOAD_MOST, LOAD_UNKNOWN, MODELS_KEPT};

/// What one backend is thought to have in its memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// The least recently used first, with its bytes.
    kept: Vec<(ModelKey, u64)>,
    /// One bit for each model, so that a decision can ask for many.
    bits: Vec<u64>,
    /// Bytes for models; `None` if that is not known.
    bytes: Option<u64>,
}

impl Memory {
    pub(super) fn new(bytes: Option<u64>) -> Self {
        Self { bytes, ..Self::default() }
    }

    pub(super) fn has(&self, model: ModelKey) -> bool {
        let word = self.bits.get(model.index() / 64).copied().unwrap_or(0);
        word >> (model.index() % 64) & 1 == 1
    }

    fn set(&mut self, model: ModelKey) {
        let word = model.index() / 64;
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << (model.index() % 64);
    }

    fn clear(&mut self, model: ModelKey) {
        if let Some(word) = self.bits.get_mut(model.index() / 64) {
            *word &= !(1 << (model.index() % 64));
        }
    }
}

/// All memories, and what is known of the models.
#[derive(Clone, Debug)]
pub(super) struct Models {
    bytes: HashMap<ModelKey, u64>,
    /// The backends that are warm for a model, by its number, in the order of their slots.
    warm_on: Vec<SmallVec<[u16; 4]>>,
    /// Seconds of a load, by model and slot.
    loads: Means<(ModelKey, u16)>,
}

impl Models {
    const LOADS_MAX: usize = 16_384;

    pub(super) fn new() -> Self {
        Self { bytes: HashMap::new(), warm_on: Vec::new(), loads: Means::new(Self::LOADS_MAX) }
    }

    /// How much is known.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + self.warm_on.len() + self.loads.len()
    }

    pub(super) fn weighs(&mut self, model: ModelKey, bytes: u64) {
        if model.0 < ModelKey::MAX {
            self.bytes.insert(model, bytes);
        }
    }

    pub(super) fn warm_on(&self, model: ModelKey) -> &[u16] {
        self.warm_on.get(model.index()).map_or(&[], SmallVec::as_slice)
    }

    /// These are used there now, and past its bytes the oldest go.
    pub(super) fn used(&mut self, memory: &mut Memory, slot: u16, models: &[ModelKey]) {
        for model in models {
            // A model of unknown size is a fifth of the memory, like each where that is unknown.
            let part = |bytes: u64| bytes / MODELS_KEPT;
            let bytes = match memory.bytes {
                None => 1,
                Some(all) => self.bytes.get(model).copied().unwrap_or(part(all)),
            };
            memory.kept.retain(|(kept, _)| kept != model);
            memory.kept.push((*model, bytes));
            memory.set(*model);
            self.note(*model, slot);
        }
        if models.is_empty() {
            return;
        }
        let max = memory.bytes.unwrap_or(MODELS_KEPT);
        let mut all = memory.kept.iter().map(|(_, bytes)| *bytes).sum::<u64>();
        // What is used now stays, also if it is more than there should be room for.
        let mut gone = 0;
        while max < all && gone + models.len() < memory.kept.len() {
            let (model, bytes) = memory.kept[gone];
            all -= bytes;
            gone += 1;
            memory.clear(model);
            self.unnote(model, slot);
        }
        memory.kept.drain(..gone);
    }

    /// So many bytes are there for models, as is known now.
    pub(super) fn resize(&mut self, memory: &mut Memory, slot: u16, bytes: Option<u64>) {
        if memory.bytes == bytes {
            return;
        }
        memory.bytes = bytes;
        let kept: Vec<ModelKey> = memory.kept.iter().map(|(model, _)| *model).collect();
        self.empty(memory, slot);
        // In their order, so that the oldest go first.
        kept.into_iter().for_each(|model| self.used(memory, slot, &[model]));
    }

    /// Nothing is there any more.
    pub(super) fn empty(&mut self, memory: &mut Memory, slot: u16) {
        for (model, _) in std::mem::take(&mut memory.kept) {
            memory.clear(model);
            self.unnote(model, slot);
        }
    }

    /// The backend is another one, or none.
    pub(super) fn forget(&mut self, memory: &mut Memory, slot: u16) {
        self.empty(memory, slot);
        self.loads.forget_if(|(_, at)| at == slot);
    }

    /// Expected seconds to load one there.
    pub(super) fn load(&self, model: ModelKey, slot: u16) -> f64 {
        let usual = self.bytes.get(&model).map_or(LOAD_UNKNOWN, |bytes| *bytes as f64 / DISK);
        let seen = self.loads.seconds((model, slot)).unwrap_or(usual);
        // What was seen is told by graphs of all kinds, and everybody uses it.
        seen.clamp(usual * LOAD_LEAST, usual * LOAD_MOST)
    }

    /// Loading these took so long there. Several at a time are told apart by what was expected.
    pub(super) fn loaded(&mut self, models: &[ModelKey], slot: u16, seconds: f64) {
        let expected: f64 = models.iter().map(|model| self.load(*model, slot)).sum();
        if expected <= 0.0 {
            return;
        }
        for model in models {
            let part = self.load(*model, slot) / expected;
            self.loads.learn_seconds((*model, slot), seconds * part);
        }
    }

    fn note(&mut self, model: ModelKey, slot: u16) {
        if self.warm_on.len() <= model.index() {
            self.warm_on.resize_with(model.index() + 1, SmallVec::new);
        }
        let slots = &mut self.warm_on[model.index()];
        if let Err(place) = slots.binary_search(&slot) {
            slots.insert(place, slot);
        }
    }

    fn unnote(&mut self, model: ModelKey, slot: u16) {
        let Some(slots) = self.warm_on.get_mut(model.index()) else { return };
        if let Ok(place) = slots.binary_search(&slot) {
            slots.remove(place);
        }
    }
}
