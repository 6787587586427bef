//! What backends are to prompts that wait, for operators and measures.

use std::sync::Arc;
use std::time::Duration;

use super::Waiting;
use crate::net::now;
use crate::queue::Standing;
use crate::routing::ids::{BackendId, PromptId};

/// What one backend is to a prompt that waits, for operators.
#[derive(Clone, Debug)]
pub struct Place {
    pub backend: BackendId,
    /// `able`, `warm`, `cold` or `lacks`.
    pub is: &'static str,
    /// How long its models are expected to load there.
    pub load: Option<Duration>,
    /// What is missing there.
    pub lacks: Option<String>,
}

impl Waiting {
    /// What each backend is to a prompt that waits, in the order of their slots.
    #[must_use]
    pub fn places(&self, prompt: &PromptId) -> Vec<Place> {
        if !self.has_waiting(prompt) {
            return Vec::new();
        }
        let (needs, standings) = {
            let index = self.index();
            let Some(entry) = index.prompts.get(prompt) else { return Vec::new() };
            let standing = |id: &BackendId| Some((*id, index.queue.standing(entry.key, *id)?));
            let standings: Vec<_> = index.fleet.keys().filter_map(standing).collect();
            (Arc::clone(&entry.needs), standings)
        };
        let catalogue = self.catalogue.load();
        let place = |(backend, standing)| {
            let (is, load) = match standing {
                Standing::Able => ("able", None),
                Standing::Warm => ("warm", None),
                Standing::Cold(load) => ("cold", Some(load)),
                Standing::Lacks => ("lacks", None),
            };
            let lacks = catalogue.get(backend).and_then(|info| needs.lacking(info));
            Place { backend, is, load, lacks: lacks.map(str::to_owned) }
        };
        let mut places: Vec<Place> = standings.into_iter().map(place).collect();
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
