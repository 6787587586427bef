//! The choice: which of those who wait goes to which backend that has room.
//!
//! First those whose models are loaded there, as long as nobody with less is passed over for more
//! than a window. Then the least heads of the list: each goes where it is soonest done, or waits
//! for a backend that is warm and sooner, within the patience. A decision reads the first of each
//! shape, not all that wait.
//!
//! Why not a careful estimate of what is best for all: late decisions balance by themselves, and
//! what prompts take is known too badly.

use std::time::Duration;

use smallvec::SmallVec;

use crate::routing::ids::BackendId;

use super::Queue;
use super::clients::{At, OwnOrder, Round};
use super::fleet::{Backend, Serving, There};
use super::ids::{ClientKey, ModelKey, Number, PromptKey, ShapeId};
use super::order::{Entry, Scope};
use super::settings::{COLD_WEIGHT, LOOK, LOOK_AGAIN, WARM_LOOK};

/// What is to be done now.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    pub hand_over: Vec<HandOver>,
    /// When to ask again if nothing happens before; `None` if time alone changes nothing.
    pub look_again: Option<Duration>,
}

/// One prompt that goes to a backend. It counts as there from now on: `began`, `ended` or
/// `returned` follow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HandOver {
    pub prompt: PromptKey,
    pub client: ClientKey,
    pub backend: BackendId,
    /// 1 for the first.
    pub attempt: u8,
    pub why: Why,
}

/// Why it is this prompt and this backend.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Why {
    /// It was among the first, and nothing has to be loaded for it.
    First,
    /// Its models are loaded there.
    Warm,
    /// It was among the first, and its models have to be loaded.
    Cold,
    /// It came back before.
    Again,
}

impl Why {
    /// As logs say it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Again => "again",
        }
    }
}

/// A backend that may be given one more now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Room {
    pub(super) slot: u16,
    pub(super) is_busy: bool,
    pub(super) left: f64,
}

/// A head and where it may go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Choice {
    pub(super) entry: Entry,
    pub(super) slot: u16,
    pub(super) why: Why,
}

/// What decides between backends for one head, least first.
type Tie = (Number, bool, u32, usize);

impl Queue {
    /// To be called after each change, and at `look_again`.
    pub fn schedule(&mut self, now: Duration) -> Turn {
        let at = self.advance(now);
        self.age(at);
        let mut turn = Turn::default();
        let mut wake = f64::INFINITY;
        if self.clients.waiting == 0 {
            return turn;
        }
        let mut rooms = self.rooms(at, &mut wake);
        while !rooms.is_empty() {
            let Some(choice) = self.choose(&rooms, at, &mut wake) else { break };
            turn.hand_over.extend(self.hand_over(choice, at));
            rooms.retain(|room| room.slot != choice.slot);
            rooms.extend(self.room(choice.slot, at, &mut wake));
            rooms.sort_unstable_by_key(|room| room.slot);
        }
        turn.look_again = self.look_again(wake, at);
        turn
    }

    /// The next moment at which time alone may change a decision.
    fn look_again(&self, wake: f64, now: f64) -> Option<Duration> {
        if self.clients.waiting == 0 {
            return None;
        }
        let ages = self.ageing.peek().map_or(f64::INFINITY, |it| it.0.0.0);
        let next = wake.min(ages).max(now + 0.001);
        Duration::try_from_secs_f64(next).ok()
    }

    /// All backends with room, by slot. `wake` becomes the next moment at which one more has it.
    pub(super) fn rooms(&self, now: f64, wake: &mut f64) -> Vec<Room> {
        let lead = self.settings.lead.as_secs_f64();
        self.fleet.all().filter_map(|it| self.room_at(it, lead, now, wake)).collect()
    }

    fn room(&self, slot: u16, now: f64, wake: &mut f64) -> Option<Room> {
        self.room_at(self.fleet.get(slot)?, self.settings.lead.as_secs_f64(), now, wake)
    }

    fn room_at(&self, backend: &Backend, lead: f64, now: f64, wake: &mut f64) -> Option<Room> {
        let room_in = backend.room_in(now, lead)?;
        if 0.0 < room_in {
            *wake = wake.min(now + room_in);
            return None;
        }
        let left = backend.left(now, self.runs.unknown());
        Some(Room { slot: backend.slot, is_busy: !backend.is_idle(), left })
    }

    /// The next hand-over, if there is one. Else `wake` is when to look again for those who wait
    /// for a warm backend.
    pub(super) fn choose(&self, rooms: &[Room], now: f64, wake: &mut f64) -> Option<Choice> {
        let first = self.first(rooms)?;
        self.choose_warm(rooms, first).or_else(|| self.choose_first(rooms, now, wake))
    }

    /// The least key of those that could go somewhere with room. Of others nobody takes a place
    /// there: they are bound or held elsewhere, or lack something.
    fn first(&self, rooms: &[Room]) -> Option<Entry> {
        let first = self.order.first()?;
        let of_first = self.clients.clients.get(&first.client).and_then(|it| it.head.as_ref());
        let shape = of_first.and_then(|head| head.listed.as_ref()).map(|it| it.shape);
        let could = |shape: ShapeId| rooms.iter().any(|room| self.may_go(shape, first, room.slot));
        match shape.is_some_and(could) {
            true => Some(first),
            false => self.heads(rooms).map(|(_, entry)| entry).min(),
        }
    }

    /// Of each shape those that may go somewhere with room, by scope.
    fn heads(&self, rooms: &[Room]) -> impl Iterator<Item = (ShapeId, Entry)> {
        let any = self.order.heads(Scope::Any).filter(|(shape, _)| {
            let shape = self.shapes.get(*shape);
            !shape.is_picky() || rooms.iter().any(|room| !shape.lacks(room.slot))
        });
        let own = rooms.iter().flat_map(|room| {
            let heads = self.order.heads(Scope::At(room.slot));
            heads.filter(|(shape, _)| !self.shapes.get(*shape).lacks(room.slot))
        });
        any.chain(own)
    }

    /// Among heads that are warm somewhere and not too far behind the first: for an idle backend
    /// before one that is about to be; then the least; then where it is soonest done.
    fn choose_warm(&self, rooms: &[Room], first: Entry) -> Option<Choice> {
        let window = self.settings.window.as_secs_f64() * f64::from(self.fleet.up());
        let limit = Number(first.fair.0 + window);
        let mut best: Option<(bool, Entry, Room)> = None;
        let mut consider = |shape: ShapeId, entry: Entry, room: &Room| {
            let is_near = entry.class == first.class && entry.fair <= limit;
            let is_better = best.as_ref().is_none_or(|(is_busy, least, other)| {
                (room.is_busy, entry)
                    .cmp(&(*is_busy, *least))
                    .then_with(|| self.tie(shape, entry, room).cmp(&self.tie(shape, entry, other)))
                    .is_lt()
            });
            if is_near && is_better && self.is_warm(shape, room.slot) {
                best = Some((room.is_busy, entry, *room));
            }
        };
        for (shape, entry) in self.order.heads(Scope::Any) {
            self.for_warm_rooms(shape, rooms, |room| consider(shape, entry, room));
        }
        for room in rooms {
            for (shape, entry) in self.order.heads(Scope::At(room.slot)) {
                consider(shape, entry, room);
            }
        }
        best.map(|(_, entry, room)| Choice { entry, slot: room.slot, why: Why::Warm })
    }

    /// Goes through the rooms or the backends that are warm for the shape, whichever are fewer.
    fn for_warm_rooms(&self, shape: ShapeId, rooms: &[Room], mut each: impl FnMut(&Room)) {
        let models = &self.shapes.get(shape).facts.models;
        let warm = models.first().map(|first| self.models.warm_on(*first));
        match warm.filter(|warm| warm.len() < rooms.len()) {
            None => rooms.iter().for_each(each),
            Some(warm) => {
                for slot in warm {
                    if let Ok(place) = rooms.binary_search_by_key(slot, |room| room.slot) {
                        each(&rooms[place]);
                    }
                }
            }
        }
    }

    /// Each of the least heads goes where it is soonest done, unless it is sooner done on a warm
    /// backend that has no room yet. That one is promised to it, so the next has to wait longer.
    fn choose_first(&self, rooms: &[Room], now: f64, wake: &mut f64) -> Option<Choice> {
        let mut promised: SmallVec<[(u16, f64); LOOK]> = SmallVec::new();
        let mut soonest = LOOK_AGAIN;
        for (shape, entry) in self.least_heads(rooms) {
            let Some(best) = self.best_room(shape, entry, rooms) else { continue };
            let done = self.tie(shape, entry, &best).0.0;
            let Some((warm, wait)) = self
                .warm_and_sooner(shape, entry, rooms, now, &promised)
                .filter(|(warm, wait)| wait + self.run(shape, *warm) < done)
            else {
                let is_cold = !self.is_warm(shape, best.slot);
                let why = if is_cold { Why::Cold } else { Why::First };
                return Some(Choice { entry, slot: best.slot, why });
            };
            soonest = soonest.min(wait);
            let run = self.run(shape, warm);
            match promised.iter_mut().find(|(slot, _)| *slot == warm) {
                Some((_, seconds)) => *seconds += run,
                None => promised.push((warm, run)),
            }
        }
        if !promised.is_empty() {
            *wake = wake.min(now + soonest);
        }
        None
    }

    /// Of each shape the first that may go somewhere with room, and of those the least few.
    fn least_heads(&self, rooms: &[Room]) -> Vec<(ShapeId, Entry)> {
        let mut heads: Vec<(ShapeId, Entry)> = self.heads(rooms).collect();
        heads.sort_unstable_by_key(|(shape, entry)| (*shape, *entry));
        heads.dedup_by_key(|(shape, _)| *shape);
        if LOOK < heads.len() {
            heads.select_nth_unstable_by_key(LOOK, |(_, entry)| *entry);
            heads.truncate(LOOK);
        }
        heads.sort_unstable_by_key(|(_, entry)| *entry);
        heads
    }

    /// Where the head is soonest done, of the backends with room that it may go to.
    fn best_room(&self, shape: ShapeId, entry: Entry, rooms: &[Room]) -> Option<Room> {
        let allowed = rooms.iter().filter(|room| self.may_go(shape, entry, room.slot));
        allowed.min_by_key(|room| self.tie(shape, entry, room)).copied()
    }

    /// The backend without room that the head would wait least for, of those that are warm for it
    /// and within the patience; and how long that is.
    fn warm_and_sooner(
        &self,
        shape: ShapeId,
        entry: Entry,
        rooms: &[Room],
        now: f64,
        promised: &[(u16, f64)],
    ) -> Option<(u16, f64)> {
        let model = self.shapes.get(shape).facts.models.first()?;
        let patience = self.settings.patience.as_secs_f64();
        let unknown = self.runs.unknown();
        let warm = self.models.warm_on(*model).iter().copied().filter(|slot| {
            self.fleet.is_up(*slot)
                && rooms.binary_search_by_key(slot, |room| room.slot).is_err()
                && self.is_warm(shape, *slot)
                && self.may_go(shape, entry, *slot)
        });
        let waits = warm.take(WARM_LOOK).filter_map(|slot| {
            let left = self.fleet.get(slot)?.left(now, unknown);
            let before = promised.iter().find(|(it, _)| *it == slot).map_or(0.0, |it| it.1);
            Some((slot, left + before)).filter(|(_, wait)| *wait <= patience)
        });
        waits.min_by_key(|(slot, wait)| (Number(wait + self.run(shape, *slot)), *slot))
    }

    fn may_go(&self, shape: ShapeId, entry: Entry, slot: u16) -> bool {
        let listed = self.listed_scopes(entry.client);
        let may = listed.contains(&Scope::Any) || listed.contains(&Scope::At(slot));
        may && !self.shapes.get(shape).lacks(slot)
    }

    fn listed_scopes(&self, client: ClientKey) -> &[Scope] {
        let head = self.clients.clients.get(&client).and_then(|it| it.head.as_ref());
        head.and_then(|it| it.listed.as_ref()).map_or(&[], |it| it.scopes.as_slice())
    }

    /// True if nothing is known to lack there, and all models are thought to be in its memory.
    pub(super) fn is_warm(&self, shape: ShapeId, slot: u16) -> bool {
        let Some(backend) = self.fleet.get(slot) else { return false };
        let shape = self.shapes.get(shape);
        !shape.lacks(slot) && shape.facts.models.iter().all(|it| backend.memory.has(*it))
    }

    /// Where a head is soonest done, and what decides between equal ones.
    pub(super) fn tie(&self, shape: ShapeId, entry: Entry, room: &Room) -> Tie {
        let cold = COLD_WEIGHT * self.cold(shape, room.slot) / self.sharing(shape);
        let done = room.left + cold + self.run(shape, room.slot);
        let last = self.clients.clients.get(&entry.client).and_then(|it| it.bound.or(it.last));
        let bound = self.fleet.get(room.slot).map_or(0, |it| it.bound);
        let slots = self.fleet.len().max(1);
        let first = usize::try_from(self.turn % slots as u64).unwrap_or(0);
        let turn = (usize::from(room.slot) + slots - first) % slots;
        (Number(done), last != Some(room.slot), bound, turn)
    }

    /// Seconds that it takes there, with everything loaded.
    fn run(&self, shape: ShapeId, slot: u16) -> f64 {
        let speed = self.fleet.get(slot).map_or(1.0, |it| it.speed.get());
        self.runs.expected(self.shapes.get(shape).alike()) / speed
    }

    /// Seconds to load what is missing there.
    pub(super) fn cold(&self, shape: ShapeId, slot: u16) -> f64 {
        let models = self.missing(shape, slot);
        models.iter().map(|model| self.models.load(*model, slot)).sum()
    }

    fn missing(&self, shape: ShapeId, slot: u16) -> SmallVec<[ModelKey; 2]> {
        let Some(backend) = self.fleet.get(slot) else { return SmallVec::new() };
        let models = self.shapes.get(shape).facts.models.iter().copied();
        models.filter(|model| !backend.memory.has(*model)).collect()
    }

    /// Among how many prompts the cost of a cold start is shared: a batch pays for it once.
    fn sharing(&self, shape: ShapeId) -> f64 {
        let Some(first) = self.shapes.get(shape).facts.models.first() else { return 1.0 };
        let warm = self.models.warm_on(*first).len();
        (f64::from(self.clients.waiting_for(*first)) / (1.0 + warm as f64)).max(1.0)
    }

    pub(super) fn hand_over(&mut self, choice: Choice, now: f64) -> Option<HandOver> {
        let (client, slot) = (choice.entry.client, choice.slot);
        let own = self.clients.clients.get(&client)?.head.as_ref()?.own;
        let backend = self.fleet.get(slot).filter(|it| it.serving == Serving::Up)?.id;
        let attempt = self.goes_to(own, slot, now)?;
        let why = if 1 < attempt { Why::Again } else { choice.why };
        Some(HandOver { prompt: own.prompt, client, backend, attempt, why })
    }

    /// A prompt that waits is at that backend from now on. Returns the number of this attempt.
    pub(super) fn goes_to(&mut self, own: OwnOrder, slot: u16, now: f64) -> Option<u8> {
        let shape = self.clients.prompts.get(&own.prompt)?.shape;
        let cold = self.missing(shape, slot);
        let expected = self.cold(shape, slot) + self.run(shape, slot);
        let backend = self.fleet.get_mut(slot)?;
        let speed = backend.speed.get();
        let (has_arrived, begun, due) = (false, None, None);
        backend.there.push(There { prompt: own.prompt, expected, has_arrived, begun, due });
        let models = &self.shapes.get(shape).facts.models;
        self.models.used(&mut backend.memory, slot, models);
        self.clients.count_waiting(models, -1);
        self.turn += 1;

        let prompt = self.clients.prompts.get_mut(&own.prompt)?;
        let share = self.shares.expects(prompt.sharer, expected * speed);
        prompt.attempts = prompt.attempts.saturating_add(1);
        let (key, sharer, attempt) = (prompt.client, prompt.sharer, prompt.attempts);
        let client = self.clients.clients.get_mut(&key)?;
        client.waiting.remove(&own);
        let round = client.rounds.pop_first();
        prompt.at = Some(At { slot, share, round, begun: None, cold });
        round.into_iter().for_each(|Round(round, _)| self.turns.goes(sharer, round));
        self.shares.waits(sharer, -1);
        self.order.rekey(sharer, self.shares.key(sharer));
        self.placed(key, slot);
        self.relist(key, now);
        Some(attempt)
    }

    /// The client has one more prompt there, and is bound to it.
    fn placed(&mut self, key: ClientKey, slot: u16) {
        let Some(mut client) = self.clients.clients.remove(&key) else { return };
        client.goes(slot);
        self.bind(&mut client, Some(slot));
        self.clients.clients.insert(key, client);
    }
}
