//! The backends as the queue sees them: what is there, how long that takes, and whether one more
//! may be given now.

use crate::routing::ids::BackendId;

use super::ids::PromptKey;
use super::learned::Speed;
use super::settings::OVERDUE;
use super::warm::Memory;

/// May a backend be given something?
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Serving {
    Up,
    /// What is there goes on, and nothing new goes there.
    Draining,
    Down,
}

/// What is known of a backend that joins.
#[derive(Clone, Copy, Debug)]
pub struct BackendFacts {
    pub id: BackendId,
    /// Its speed, until it is learned: that of an ordinary one is 1.
    pub speed: f64,
    /// Its own depth; `None` for that of `Settings`.
    pub depth: Option<u32>,
    /// Bytes that it has for models; `None` if it is not known.
    pub model_bytes: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) id: BackendId,
    pub(super) slot: u16,
    pub(super) serving: Serving,
    pub(super) depth: u32,
    pub(super) speed: Speed,
    pub(super) memory: Memory,
    /// The prompts that were handed over, in that order.
    pub(super) there: Vec<There>,
    /// Prompts of others that wait or run there.
    pub(super) others: u32,
    /// Clients that are bound to it.
    pub(super) bound: u32,
}

/// A prompt at a backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct There {
    pub(super) prompt: PromptKey,
    /// Seconds that it is expected to take there, with loading.
    pub(super) expected: f64,
    /// The backend has it: it is not on the way any more.
    pub(super) has_arrived: bool,
    pub(super) begun: Option<f64>,
    /// When it should end, by its progress.
    pub(super) due: Option<f64>,
}

impl There {
    pub(super) fn left(&self, now: f64) -> f64 {
        let Some(begun) = self.begun else { return self.expected };
        let rest = self.due.unwrap_or(begun + self.expected) - now;
        // What is overdue may take as long again as it is overdue: nobody waits long for it.
        if 0.0 < rest { rest } else { (OVERDUE * self.expected).max(-rest) }
    }

    /// True if it runs, and should not have ended before now.
    fn ends(&self, now: f64) -> bool {
        self.begun.is_some_and(|begun| now < self.due.unwrap_or(begun + self.expected))
    }
}

impl Backend {
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.there.len()).unwrap_or(u32::MAX).saturating_add(self.others)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.count() == 0
    }

    /// Seconds until all that is there should have ended. A stranger's prompt takes as long as one
    /// of which nothing is known.
    pub(super) fn left(&self, now: f64, of_other: f64) -> f64 {
        let ours: f64 = self.there.iter().map(|it| it.left(now)).sum();
        ours + f64::from(self.others) * of_other
    }

    /// True if one more that came now would wait there: something runs that takes so many seconds
    /// yet, or behind which another waits. What is still on its way keeps nobody waiting.
    pub(super) fn keeps_waiting(&self, now: f64, least: f64, of_other: f64) -> bool {
        let arrived = || self.there.iter().filter(|it| it.has_arrived);
        let runs = self.others != 0 || arrived().any(|it| it.begun.is_some());
        let left: f64 = arrived().map(|it| it.left(now)).sum();
        let left = left + f64::from(self.others) * of_other;
        let count = arrived().count() + self.others as usize;
        runs && (2 <= count || least <= left)
    }

    pub(super) fn has_place(&self) -> bool {
        self.serving == Serving::Up && self.count() < self.depth
    }

    /// About how many seconds from now it may be given one more, as far as that is known.
    pub(super) fn has_room_in(&self, now: f64, lead: f64) -> Option<f64> {
        if self.serving != Serving::Up {
            return None;
        }
        if let Some(room_in) = self.room_in(now, lead) {
            return Some(room_in);
        }
        if self.others != 0 {
            return None;
        }
        // So many have to end, and what is left then must take no longer than the lead.
        let lefts = || self.there.iter().map(|it| it.left(now));
        let depth = usize::try_from(self.depth).unwrap_or(usize::MAX);
        let ends: f64 = lefts().take((self.there.len() + 1).saturating_sub(depth)).sum();
        Some(if depth == 1 { ends } else { ends.max(lefts().sum::<f64>() - lead) })
    }

    /// When it may be given one more; `None` if not before something ends there.
    pub(super) fn room_in(&self, now: f64, lead: f64) -> Option<f64> {
        if !self.has_place() {
            return None;
        }
        if self.others != 0 || self.there.is_empty() {
            return Some(0.0);
        }
        let left = self.left(now, 0.0);
        // One that is overdue ends, or tells its progress; time alone changes nothing.
        let may_change = left <= lead || self.there.iter().any(|it| it.ends(now));
        may_change.then_some((left - lead).max(0.0))
    }
}

/// All backends, by slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    slots: Vec<Option<Backend>>,
    up: u32,
    /// The sum of the speeds of those that are up.
    speed: f64,
}

impl Fleet {
    pub(super) fn get(&self, slot: u16) -> Option<&Backend> {
        self.slots.get(usize::from(slot))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u16) -> Option<&mut Backend> {
        self.slots.get_mut(usize::from(slot))?.as_mut()
    }

    /// The slot of a backend that is here.
    pub(super) fn slot(&self, id: BackendId) -> Option<u16> {
        self.get(id.slot()).filter(|it| it.id == id).map(|it| it.slot)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Backend> + '_ {
        self.slots.iter().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Backends that are up.
    pub(super) fn up(&self) -> u32 {
        self.up
    }

    pub(super) fn is_up(&self, slot: u16) -> bool {
        self.get(slot).is_some_and(|it| it.serving == Serving::Up)
    }

    /// The speed of all that are up.
    pub(super) fn speed(&self) -> f64 {
        self.speed
    }

    pub(super) fn insert(&mut self, backend: Backend) {
        let slot = usize::from(backend.slot);
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(backend);
        self.count();
    }

    pub(super) fn remove(&mut self, slot: u16) -> Option<Backend> {
        let removed = self.slots.get_mut(usize::from(slot)).and_then(Option::take);
        self.count();
        removed
    }

    pub(super) fn serve(&mut self, slot: u16, serving: Serving) {
        if let Some(backend) = self.get_mut(slot) {
            backend.serving = serving;
        }
        self.count();
    }

    /// The speed of a backend was learned: the sum follows.
    pub(super) fn learned(&mut self, slot: u16, speed: Speed) {
        let Some(backend) = self.get_mut(slot) else { return };
        backend.speed = speed;
        let up = self.slots.iter_mut().flatten().filter(|it| it.serving == Serving::Up);
        Speed::anchor(up.map(|it| &mut it.speed));
        self.count();
    }

    fn count(&mut self) {
        let speeds = self.all().filter(|it| it.serving == Serving::Up).map(|it| it.speed.get());
        let (up, speed) = speeds.fold((0, 0.0), |(up, all), speed| (up + 1, all + speed));
        (self.up, self.speed) = (up, speed);
    }
}
