//! Tells the queue what has changed in the fleet.

use std::collections::HashSet;
use std::time::Duration;

use super::{FULL, Index};
use crate::queue::fleet::{BackendFacts, Serving};
use crate::routing::ids::BackendId;
use crate::routing::placement::{BackendView, Excluded};

impl Index {
    /// Tells the queue what has changed in the fleet.
    pub(super) fn follow(&mut self, fleet: &[BackendView], at: Duration) {
        if self.fleet.len() != fleet.len()
            || fleet.iter().any(|it| !self.fleet.contains_key(&it.id))
        {
            self.leave(fleet, at);
        }
        for view in fleet {
            let serving = serving(view);
            match self.fleet.insert(view.id, serving) {
                None => {
                    self.fleet_changes += 1;
                    let speed = f64::from(view.weight.get());
                    let model_bytes = self.knowledge.memories.get(&view.id).copied();
                    let facts = BackendFacts { id: view.id, speed, depth: None, model_bytes };
                    self.queue.joined(facts, at);
                    self.queue.serves(view.id, serving, at);
                }
                Some(known) if known != serving => {
                    self.queue.serves(view.id, serving, at);
                    if serving == Serving::Up {
                        self.turned_up(view.id);
                        self.excludes_what_is_in_doubt(view.id, at);
                    }
                }
                Some(_) => {}
            }
            let others = match view.excluded() {
                Some(Excluded::Full) => FULL,
                Some(_) | None if self.is_turned_away(view.id, at) => FULL,
                Some(_) | None => view.load.saturating_sub(self.ours_at(view.id)),
            };
            self.queue.others(view.id, others);
        }
    }

    pub(super) fn is_turned_away(&self, backend: BackendId, at: Duration) -> bool {
        self.turned_away.get(&backend).is_some_and(|it| at < it.until)
    }

    fn leave(&mut self, fleet: &[BackendView], at: Duration) {
        let here: HashSet<BackendId> = fleet.iter().map(|view| view.id).collect();
        let left: Vec<BackendId> =
            self.fleet.keys().copied().filter(|id| !here.contains(id)).collect();
        for id in left {
            self.queue.left(id, at);
            self.fleet.remove(&id);
            self.fleet_changes += 1;
            self.turned_away.remove(&id);
            self.ran.remove(&id);
            self.doubts.remove(&id);
            self.knowledge.memories.remove(&id);
        }
    }

    /// The backend may have another process, with other parts.
    fn turned_up(&mut self, backend: BackendId) {
        self.turned_away.remove(&backend);
        self.fleet_changes += 1;
        self.prompts.values_mut().for_each(|it| it.tried.retain(|id| *id != backend));
        self.refused.values_mut().for_each(|it| it.by.retain(|id| *id != backend));
    }
}

fn serving(view: &BackendView) -> Serving {
    match view.excluded() {
        None | Some(Excluded::Full) => Serving::Up,
        Some(Excluded::Draining) => Serving::Draining,
        Some(Excluded::Down | Excluded::Off | Excluded::Shut | Excluded::Wedged) => Serving::Down,
    }
}
