//! What the queue is told of backends, shapes and models.

use std::collections::HashSet;
use std::time::Duration;

use crate::routing::ids::BackendId;

use super::Queue;
use super::fleet::{Backend, BackendFacts, Serving};
use super::ids::{ModelKey, PromptKey, ShapeId};
use super::learned::Speed;
use super::shapes::{Lacks, ShapeFacts};
use super::warm::Memory;

impl Queue {
    /// A backend joins, and is up. One that was in its slot has left.
    pub fn joined(&mut self, facts: BackendFacts, now: Duration) {
        let at = self.advance(now);
        let slot = facts.id.slot();
        if let Some(before) = self.fleet.get(slot).map(|it| it.id) {
            self.left(before, now);
        }
        let depending = self.depending_on(slot);
        self.fleet.insert(Backend {
            id: facts.id,
            slot,
            serving: Serving::Up,
            depth: facts.depth.unwrap_or(self.settings.depth).max(1),
            speed: Speed::assumed(facts.speed),
            memory: Memory::new(facts.model_bytes),
            there: Vec::new(),
            others: 0,
            bound: 0,
        });
        depending.into_iter().for_each(|client| self.relist(client, at));
    }

    /// A backend leaves for good. What is still there waits again: end or return it before.
    pub fn left(&mut self, backend: BackendId, now: Duration) {
        let at = self.advance(now);
        let Some(slot) = self.fleet.slot(backend) else { return };
        let there = self.fleet.get(slot).map_or(Vec::new(), |it| it.there.clone());
        for it in there {
            self.returned(it.prompt, &[], now);
        }
        let depending = self.depending_on(slot);
        if let Some(mut gone) = self.fleet.remove(slot) {
            self.models.forget(&mut gone.memory, slot);
            self.beginnings.forget_if(|it| it.slot == slot);
        }
        self.shapes.forget_slot(slot);
        for prompt in self.clients.prompts.values_mut() {
            prompt.not.retain(|not| *not != slot);
        }
        for client in self.clients.clients.values_mut() {
            client.last = client.last.filter(|last| *last != slot);
            client.bound = client.bound.filter(|bound| *bound != slot);
            client.held = client.held.filter(|held| *held != slot);
        }
        depending.into_iter().for_each(|client| self.relist(client, at));
    }

    /// A backend takes new prompts, or none.
    pub fn serves(&mut self, backend: BackendId, serving: Serving, now: Duration) {
        let at = self.advance(now);
        let Some(slot) = self.fleet.slot(backend) else { return };
        let was_up = self.fleet.is_up(slot);
        let depending = self.depending_on(slot);
        self.fleet.serve(slot, serving);
        if serving == Serving::Up && !was_up {
            // It turned up anew, so what was not tried there again may be.
            for prompt in self.clients.prompts.values_mut() {
                prompt.not.retain(|not| *not != slot);
            }
        }
        depending.into_iter().for_each(|client| self.relist(client, at));
    }

    /// Its process is new, or its models were freed: it has none in its memory.
    pub fn emptied(&mut self, backend: BackendId) {
        let Some(slot) = self.fleet.slot(backend) else { return };
        if let Some(backend) = self.fleet.get_mut(slot) {
            self.models.empty(&mut backend.memory, slot);
        }
    }

    /// So many bytes for models are there; `None` if that is not known.
    pub fn remembers(&mut self, backend: BackendId, bytes: Option<u64>) {
        let Some(slot) = self.fleet.slot(backend) else { return };
        if let Some(backend) = self.fleet.get_mut(slot) {
            self.models.resize(&mut backend.memory, slot, bytes);
        }
    }

    /// So many prompts are there that were not handed over by us.
    pub fn others(&mut self, backend: BackendId, count: u32) {
        let slot = self.fleet.slot(backend);
        if let Some(backend) = slot.and_then(|slot| self.fleet.get_mut(slot)) {
            backend.others = count;
        }
    }

    /// How large a model is.
    pub fn weighs(&mut self, model: ModelKey, bytes: u64) {
        self.models.weighs(model, bytes);
    }

    /// The id of a shape: to be asked for each prompt right before it is submitted, because an id
    /// that no prompt has may be given to another shape.
    pub fn shape(&mut self, facts: ShapeFacts) -> ShapeId {
        self.shapes.intern(facts)
    }

    /// A prompt that is here turns out to be of another shape.
    pub fn reshape(&mut self, prompt: PromptKey, shape: ShapeId, now: Duration) {
        let at = self.advance(now);
        let Some(it) = self.clients.prompts.get_mut(&prompt) else { return };
        let (old, waits, client) = (it.shape, it.at.is_none(), it.client);
        it.shape = shape;
        for (shape, change) in [(old, -1), (shape, 1)] {
            let shape = self.shapes.get_mut(shape);
            shape.prompts = shape.prompts.saturating_add_signed(change);
            if waits {
                self.clients.count_waiting(&shape.facts.models, change);
            }
        }
        self.relist(client, at);
    }

    /// Backends are known to lack something that prompts of these shapes need, or not any more.
    pub fn lacks(
        &mut self,
        known: impl IntoIterator<Item = (ShapeId, BackendId, Lacks)>,
        now: Duration,
    ) {
        let at = self.advance(now);
        let mut changed = HashSet::new();
        for (shape, backend, lacks) in known {
            // The shared shape is of everybody.
            let slot = self.fleet.slot(backend).filter(|_| shape.0 != 0);
            let Some(slot) = slot else { continue };
            if self.shapes.get(shape).lacks(slot) != (lacks == Lacks::Something) {
                self.shapes.set_lacks(shape, slot, lacks);
                changed.insert(shape);
            }
        }
        changed.retain(|shape| self.has_shape(*shape));
        if changed.is_empty() {
            return;
        }
        // All prompts are looked through once, however many shapes there are.
        let of_them = self.clients.prompts.values().filter(|it| changed.contains(&it.shape));
        let mut clients: Vec<_> = of_them.map(|it| it.client).collect();
        clients.sort_unstable();
        clients.dedup();
        clients.into_iter().for_each(|client| self.relist(client, at));
    }
}
