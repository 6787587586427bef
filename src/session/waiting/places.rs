//! What backends are to prompts that wait, for operators and measures.

use std::sync::Arc;
use std::time::Duration;

use super::Waiting;
use crate::net::now;
use crate::queue::Standing;
use crate::queue::fleet::Serving;
use crate::routing::ids::{BackendId, PromptId};

/// What one backend is to a prompt that waits, for operators.
#[derive(Clone, Debug)]
pub struct Place {
    pub backend: BackendId,
    /// `able`, `warm`, `cold`, `lacks` or `tried`.
    pub is: &'static str,
    /// Whether it takes anything.
    pub serves: Serving,
    /// In about how long it may be given one more; `None` if that is not known.
    pub room: Option<Duration>,
    /// The prompt goes nowhere else while its client is there.
    pub keeps: bool,
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
        let at = self.at(now());
        let (needs, keeps_to, standings) = {
            let index = self.index();
            let Some(entry) = index.prompts.get(prompt) else { return Vec::new() };
            let standing = |(id, serves): (&BackendId, &Serving)| {
                let room = index.queue.has_room_in(*id, at);
                Some((*id, (*serves, room), index.queue.standing(entry.key, *id)?))
            };
            let standings: Vec<_> = index.fleet.iter().filter_map(standing).collect();
            (Arc::clone(&entry.needs), index.queue.keeps_to(entry.key), standings)
        };
        let catalogue = self.catalogue.load();
        let place = |(backend, (serves, room), standing)| {
            let (is, load) = match standing {
                Standing::Able => ("able", None),
                Standing::Warm => ("warm", None),
                Standing::Cold(load) => ("cold", Some(load)),
                Standing::Lacks => ("lacks", None),
                Standing::Tried => ("tried", None),
            };
            let info = catalogue.get(backend).filter(|_| standing == Standing::Lacks);
            let lacks = info.and_then(|info| needs.lacking(info));
            let (lacks, keeps) = (lacks.map(str::to_owned), keeps_to == Some(backend));
            Place { backend, is, serves, room, keeps, load, lacks }
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
