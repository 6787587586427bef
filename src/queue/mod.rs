//! Prompts that wait in the gateway: which is handed over next, and to which backend?
//!
//! The pure core of that, for many clients and many unequal backends. It is told what happens (a
//! prompt is submitted, begins, ends, comes back; a backend joins, drains, is down) and says what
//! to do (`Queue::schedule`). GPU time is shared among those who wait and not among prompts
//! (`shares`), and within a share they take turns (`turns`); models are kept where they are loaded,
//! within bounds (`schedule`); what prompts take is learned (`learned`, `warm`). What is told once
//! is enough: the queue asks nobody.
//!
//! The gateway uses it if `queue.depth` is not 0 (`session::waiting`). `make bench-placement` runs
//! this core against simulated fleets.
//!
//! Time is the duration since a moment that the caller has chosen once. It never goes back; an
//! earlier time than one that was told before is taken for that one.

mod backends;
mod clients;
mod events;
pub mod fleet;
pub mod forecast;
mod heads;
pub mod ids;
mod known;
mod learned;
mod order;
pub mod schedule;
pub mod settings;
pub mod shapes;
mod shares;
pub mod snapshot;
#[cfg(test)]
mod tests;
mod turns;
mod warm;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use clients::Clients;
use fleet::Fleet;
use ids::{Class, ClientKey, MemberKey, Number, PromptKey, ShapeId, SharerKey};
use known::Beginning;
pub use known::Standing;
use learned::{Means, RunTimes};
use order::Order;
use settings::Settings;
use shapes::Shapes;
use shares::Shares;
use turns::Turns;
use warm::Models;

use crate::routing::ids::BackendId;

/// All prompts that wait, those that are at backends, and what is known that decides about them.
#[derive(Debug)]
pub struct Queue {
    settings: Settings,
    clients: Clients,
    shares: Shares,
    turns: Turns,
    order: Order,
    shapes: Shapes,
    models: Models,
    runs: RunTimes,
    /// Seconds from the start to the first step of runs that had nothing to load.
    beginnings: Means<Beginning>,
    fleet: Fleet,
    /// When which first prompt of a client may count a class higher.
    ageing: BinaryHeap<Reverse<(Number, ClientKey, PromptKey)>>,
    submissions: u64,
    /// Hand-overs, so that equal backends have their turns.
    turn: u64,
}

/// A prompt that is to wait.
#[derive(Clone, Copy, Debug)]
pub struct Submission {
    pub prompt: PromptKey,
    pub client: ClientKey,
    pub sharer: SharerKey,
    pub member: MemberKey,
    /// The weight of the sharer, if it has nothing here yet: 1, or what an operator says.
    pub weight: f64,
    /// Of `Queue::shape`, which is to be asked right before.
    pub shape: ShapeId,
    pub class: Class,
    /// ComfyUI's `number`: it orders the client's own prompts, and nobody else's.
    pub number: f64,
    /// The backend that the client had last: decides between equal ones.
    pub last: Option<BackendId>,
}

/// Why a prompt may not wait here, and when one more will have room.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("too many prompts wait")]
    QueueFull { retry_after: Duration },
    #[error("too many prompts of one sharer wait")]
    SharerFull { retry_after: Duration },
    #[error("a prompt of that key is here already")]
    Known,
}

/// Whether a prompt that waits may be handed over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Aside {
    Yes,
    No,
}

/// Where a client is bound, as its own state says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BoundAt {
    pub bound: Option<BackendId>,
    /// The same backend, if something else than what waits keeps the client there.
    pub held: Option<BackendId>,
}

/// What a run that ended took, but for the time from its start to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spent {
    /// It ran to its end, and so long of that it loaded models. What was run and loaded is learned.
    Ran { load: Duration },
    /// It ran to its end, and its first step came so long after its start, if that was seen.
    Seen { first_step: Option<Duration> },
    /// It failed, was interrupted or got lost: charged, and nothing is learned of it.
    Broke,
}

/// So many families are known by how they begin.
const BEGINNINGS_MAX: usize = 4_096;

impl Queue {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            clients: Clients::default(),
            shares: Shares::new(settings.half_life.as_secs_f64()),
            turns: Turns::default(),
            order: Order::default(),
            shapes: Shapes::new(),
            models: Models::new(),
            runs: RunTimes::new(),
            beginnings: Means::new(BEGINNINGS_MAX),
            fleet: Fleet::default(),
            ageing: BinaryHeap::new(),
            submissions: 0,
            turn: 0,
        }
    }

    /// How many prompts wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.clients.waiting
    }

    /// How many prompts of this sharer wait.
    #[must_use]
    pub fn waiting_of(&self, sharer: SharerKey) -> usize {
        self.shares.get(sharer).map_or(0, |it| it.waiting)
    }

    /// Where a prompt is that was handed over; `None` if it waits or is not here.
    #[must_use]
    pub fn place(&self, prompt: PromptKey) -> Option<BackendId> {
        let at = self.clients.prompts.get(&prompt)?.at.as_ref()?;
        self.fleet.get(at.slot).map(|backend| backend.id)
    }

    /// True if the prompt is here and waits.
    #[must_use]
    pub fn has_waiting(&self, prompt: PromptKey) -> bool {
        self.clients.prompts.get(&prompt).is_some_and(|it| it.at.is_none())
    }

    /// True if a prompt of this shape is here.
    #[must_use]
    pub fn has_shape(&self, shape: ShapeId) -> bool {
        self.shapes.get(shape).prompts != 0
    }

    /// How many prompts were handed over to this backend and have not ended.
    #[must_use]
    pub fn there(&self, backend: BackendId) -> u32 {
        let slot = self.fleet.slot(backend).and_then(|slot| self.fleet.get(slot));
        slot.map_or(0, |it| u32::try_from(it.there.len()).unwrap_or(u32::MAX))
    }

    /// True if some backend may be given one more now.
    #[must_use]
    pub fn has_room(&self, now: Duration) -> bool {
        let (now, lead) = (now.as_secs_f64(), self.settings.lead.as_secs_f64());
        self.fleet.all().any(|it| it.room_in(now, lead).is_some_and(|room| room <= 0.0))
    }

    /// True if one more that came to this backend now would wait there, by what is known: something
    /// runs that takes so long yet, or behind which another waits.
    #[must_use]
    pub fn keeps_waiting(&self, backend: BackendId, least: Duration, now: Duration) -> bool {
        let backend = self.fleet.slot(backend).and_then(|slot| self.fleet.get(slot));
        let (now, least, unknown) = (now.as_secs_f64(), least.as_secs_f64(), self.runs.unknown());
        backend.is_some_and(|it| it.keeps_waiting(now, least, unknown))
    }

    /// Fair time in seconds: what each sharer of weight 1 could have had by now.
    #[must_use]
    pub fn fair_time(&self) -> f64 {
        self.shares.fair()
    }
}
