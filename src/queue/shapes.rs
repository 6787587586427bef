//! What decides where a prompt may run and for how long, interned: prompts of one shape are placed
//! alike.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::ids::{ModelKey, ShapeId};
use super::learned::Alike;

/// What is read off a graph. The caller's hashes stand for what the queue need not know.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct ShapeFacts {
    /// The files of models that it loads, that of the largest part first.
    pub models: Vec<ModelKey>,
    /// A hash of all that it is but for sizes: classes, models, what it asks for.
    pub family: u64,
    /// A hash of the classes of its nodes.
    pub classes: u64,
    /// Steps × pixels × pictures; 0 if it is not known.
    pub size: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    pub(super) facts: Arc<ShapeFacts>,
    /// The slots of backends that are known to lack something of it, one bit each.
    lacks: SmallVec<[u64; 2]>,
    /// Prompts of it that are here.
    pub(super) prompts: u32,
    /// When it was last asked for, in shapes.
    asked: u64,
}

impl Shape {
    pub(super) fn lacks(&self, slot: u16) -> bool {
        let word = self.lacks.get(usize::from(slot) / 64).copied().unwrap_or(0);
        word >> (slot % 64) & 1 == 1
    }

    pub(super) fn is_picky(&self) -> bool {
        self.lacks.iter().any(|word| *word != 0)
    }

    pub(super) fn alike(&self) -> Alike {
        let ShapeFacts { family, classes, size, .. } = *self.facts;
        Alike { family, classes, size }
    }
}

#[derive(Debug)]
pub(super) struct Shapes {
    ids: HashMap<Arc<ShapeFacts>, ShapeId>,
    shapes: Vec<Shape>,
    asked: u64,
}

impl Shapes {
    const MAX: usize = 4_096;

    pub(super) fn new() -> Self {
        // The first is what those share for whom there is no room: one without models.
        Self { ids: HashMap::new(), shapes: vec![Shape::default()], asked: 0 }
    }

    /// The same shapes, of which none is asked for by what it is.
    pub(super) fn nameless(&self) -> Self {
        Self { ids: HashMap::new(), shapes: self.shapes.clone(), asked: self.asked }
    }

    pub(super) fn len(&self) -> usize {
        self.shapes.len()
    }

    pub(super) fn get(&self, shape: ShapeId) -> &Shape {
        &self.shapes[usize::from(shape.0)]
    }

    pub(super) fn get_mut(&mut self, shape: ShapeId) -> &mut Shape {
        &mut self.shapes[usize::from(shape.0)]
    }

    /// The id of the shape. At most 4,096 are known; one that no prompt is of gives way to another,
    /// and if there is none, the new one is taken for one without models.
    pub(super) fn intern(&mut self, mut facts: ShapeFacts) -> ShapeId {
        facts.models.retain(|model| model.0 < ModelKey::MAX);
        self.asked += 1;
        if let Some(id) = self.ids.get(&facts) {
            self.shapes[usize::from(id.0)].asked = self.asked;
            return *id;
        }
        let Some(slot) = self.free_slot() else { return ShapeId(0) };
        let id = ShapeId(u16::try_from(slot).unwrap_or(0));
        let facts = Arc::new(facts);
        let shape = Shape { facts: Arc::clone(&facts), asked: self.asked, ..Shape::default() };
        match self.shapes.get_mut(slot) {
            None => self.shapes.push(shape),
            Some(old) => {
                self.ids.remove(&old.facts);
                *old = shape;
            }
        }
        self.ids.insert(facts, id);
        id
    }

    fn free_slot(&self) -> Option<usize> {
        if self.shapes.len() < Self::MAX {
            return Some(self.shapes.len());
        }
        let unused = self.shapes.iter().enumerate().skip(1).filter(|(_, it)| it.prompts == 0);
        unused.min_by_key(|(_, it)| it.asked).map(|(slot, _)| slot)
    }

    /// What is known of a shape and a backend is that it lacks something of it, or nothing.
    pub(super) fn set_lacks(&mut self, shape: ShapeId, slot: u16, lacks: Lacks) {
        // The shared shape is of everybody.
        if shape.0 == 0 {
            return;
        }
        let (words, word) = (&mut self.get_mut(shape).lacks, usize::from(slot) / 64);
        match lacks {
            Lacks::Something => {
                words.resize(words.len().max(word + 1), 0);
                words[word] |= 1 << (slot % 64);
            }
            Lacks::Nothing => {
                if let Some(word) = words.get_mut(word) {
                    *word &= !(1 << (slot % 64));
                }
            }
        }
    }

    /// Another backend is in the slot.
    pub(super) fn forget_slot(&mut self, slot: u16) {
        for id in 1..self.shapes.len() {
            let id = ShapeId(u16::try_from(id).unwrap_or(0));
            self.set_lacks(id, slot, Lacks::Nothing);
        }
    }
}

/// What a backend is known to lack of what a shape needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lacks {
    Nothing,
    Something,
}
