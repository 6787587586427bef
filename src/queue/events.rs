//! What the queue is told of prompts.

use std::time::Duration;

use smallvec::SmallVec;

use crate::routing::ids::BackendId;

use super::clients::{At, Client, NOWHERE, Prompt, Round};
use super::fleet::There;
use super::ids::{Class, ClientKey, Number, PromptKey, ShapeId, SharerKey};
use super::known::Loading;
use super::{Aside, BoundAt, Queue, Refused, Spent, Submission};

impl Queue {
    /// A prompt is to wait; `schedule` says when it is to be handed over, which may be at once.
    ///
    /// # Errors
    /// Too many wait, or it is here already. Nothing has changed then.
    pub fn submitted(&mut self, it: Submission, now: Duration) -> Result<(), Refused> {
        let at = self.advance(now);
        if self.clients.prompts.contains_key(&it.prompt) {
            return Err(Refused::Known);
        }
        if self.settings.waiting_max <= self.clients.waiting {
            return Err(Refused::QueueFull { retry_after: self.room_after(None, at) });
        }
        if self.settings.waiting_max_of_one <= self.waiting_of(it.sharer) {
            return Err(Refused::SharerFull { retry_after: self.room_after(Some(it.sharer), at) });
        }
        self.admit(it, at);
        Ok(())
    }

    /// The same for a prompt that waited before, in an earlier process or before it was found to be
    /// nowhere: no limit applies. One that is here already is unchanged.
    pub fn restored(&mut self, it: Submission, now: Duration) {
        let at = self.advance(now);
        if !self.clients.prompts.contains_key(&it.prompt) {
            self.admit(it, at);
        }
    }

    fn admit(&mut self, it: Submission, at: f64) {
        self.submissions += 1;
        let prompt = Prompt {
            client: it.client,
            sharer: it.sharer,
            member: it.member,
            shape: it.shape,
            class: it.class,
            number: Number(it.number),
            order: self.submissions,
            not: SmallVec::new(),
            attempts: 0,
            at: None,
            is_aside: false,
        };
        self.shares.arrives(it.sharer, it.weight);
        self.order.rekey(it.sharer, self.shares.key(it.sharer));
        let shape = self.shapes.get_mut(it.shape);
        shape.prompts += 1;
        self.clients.count_waiting(&shape.facts.models, 1);
        let last = it.last.and_then(|last| self.fleet.slot(last));
        let client = self.clients.clients.entry(it.client).or_insert_with(|| Client::new(last));
        client.waiting.insert(prompt.own(it.prompt));
        client.rounds.insert(Round(self.turns.arrives(it.sharer, it.member), prompt.order));
        self.clients.prompts.insert(it.prompt, prompt);
        self.relist(it.client, at);
    }

    /// A prompt that waits does not any more: it was deleted, or has waited too long. False if it
    /// does not wait here.
    pub fn gone(&mut self, prompt: PromptKey, now: Duration) -> bool {
        let at = self.advance(now);
        if self.clients.prompts.get(&prompt).is_none_or(|it| it.at.is_some()) {
            return false;
        }
        let Some(it) = self.clients.prompts.remove(&prompt) else { return false };
        if let Some(client) = self.clients.clients.get_mut(&it.client) {
            client.waiting.remove(&it.own(prompt));
            if let Some(Round(round, _)) = client.rounds.pop_last() {
                self.turns.gives_back(it.sharer, it.member, round);
            }
        }
        let shape = self.shapes.get_mut(it.shape);
        shape.prompts = shape.prompts.saturating_sub(1);
        self.clients.count_waiting(&shape.facts.models, -1);
        self.shares.waits(it.sharer, -1);
        self.shares.leaves(it.sharer);
        self.turns.leaves(it.sharer, it.member);
        self.relist(it.client, at);
        true
    }

    /// A prompt that was handed over waits again, in its old place: it was taken back, never
    /// arrived, or its backend is gone. It is not tried again at the backends of `not` before they
    /// turn up anew. Nothing is charged for it. False if it was not handed over.
    pub fn returned(&mut self, prompt: PromptKey, not: &[BackendId], now: Duration) -> bool {
        let at = self.advance(now);
        let slots: SmallVec<[u16; 2]> = not.iter().filter_map(|it| self.fleet.slot(*it)).collect();
        let Some(it) = self.clients.prompts.get_mut(&prompt) else { return false };
        let Some(place) = it.at.take() else { return false };
        for slot in slots {
            if !it.not.contains(&slot) {
                it.not.push(slot);
            }
        }
        let (key, sharer, own) = (it.client, it.sharer, it.own(prompt));
        let models = &self.shapes.get(it.shape).facts.models;
        self.clients.count_waiting(models, 1);
        self.shares.waits(sharer, 1);
        self.leave(prompt, key, sharer, &place);
        if let Some(client) = self.clients.clients.get_mut(&key) {
            client.waiting.insert(own);
            client.rounds.extend(place.round);
        }
        self.relist(key, at);
        true
    }

    /// A prompt that waits is before all others of all, and of its client also before those that
    /// were moved so before. False if it does not wait here.
    pub fn to_front(&mut self, prompt: PromptKey, now: Duration) -> bool {
        let at = self.advance(now);
        let waits = self.clients.prompts.get_mut(&prompt).filter(|it| it.at.is_none());
        let Some(it) = waits else { return false };
        self.submissions += 1;
        let before = it.own(prompt);
        (it.class, it.number) = (Class::Front, Number(-(self.submissions as f64)));
        let (own, client) = (it.own(prompt), it.client);
        if let Some(client) = self.clients.clients.get_mut(&client) {
            client.waiting.remove(&before);
            client.waiting.insert(own);
        }
        self.relist(client, at);
        true
    }

    /// A prompt that waits is not handed over for the moment, or may be again. What its client has
    /// submitted after it waits with it.
    pub fn sets_aside(&mut self, prompt: PromptKey, aside: Aside, now: Duration) {
        let at = self.advance(now);
        let Some(it) = self.clients.prompts.get_mut(&prompt) else { return };
        it.is_aside = aside == Aside::Yes;
        let client = it.client;
        self.relist(client, at);
    }

    /// A prompt that waits is not tried at these backends before they turn up anew.
    pub fn excludes(&mut self, prompt: PromptKey, not: &[BackendId], now: Duration) {
        let at = self.advance(now);
        let slots: SmallVec<[u16; 2]> = not.iter().filter_map(|it| self.fleet.slot(*it)).collect();
        let Some(it) = self.clients.prompts.get_mut(&prompt) else { return };
        for slot in slots {
            if !it.not.contains(&slot) {
                it.not.push(slot);
            }
        }
        let client = it.client;
        self.relist(client, at);
    }

    /// A prompt that waits may be tried at this backend again.
    pub fn allows(&mut self, prompt: PromptKey, backend: BackendId, now: Duration) {
        let at = self.advance(now);
        let Some(slot) = self.fleet.slot(backend) else { return };
        let Some(it) = self.clients.prompts.get_mut(&prompt) else { return };
        it.not.retain(|not| *not != slot);
        let client = it.client;
        self.relist(client, at);
    }

    /// Nothing more of the client is handed over for the moment, or it may be again.
    pub fn pauses(&mut self, client: ClientKey, pause: Aside, now: Duration) {
        let at = self.advance(now);
        if let Some(it) = self.clients.clients.get_mut(&client) {
            it.is_paused = pause == Aside::Yes;
            self.relist(client, at);
        }
    }

    /// Where the client is bound, and where something that the queue does not know holds it. What
    /// of it waits is not kept for a backend that it is not bound to any more and has nothing at: a
    /// prompt that was shown elsewhere has moved it.
    pub fn holds(&mut self, client: ClientKey, at: BoundAt, now: Duration) {
        let time = self.advance(now);
        let Some(it) = self.clients.clients.get(&client) else { return };
        // A backend that the queue does not know holds it as well: it may go nowhere then.
        let slot = at.held.map(|held| self.fleet.slot(held).unwrap_or(NOWHERE));
        let bound = at.bound.and_then(|bound| self.fleet.slot(bound));
        let has_moved = it.bound.is_some_and(|slot| bound != Some(slot) && !it.is_at(slot));
        if it.held == slot && !has_moved {
            return;
        }
        let Some(mut it) = self.clients.clients.remove(&client) else { return };
        it.held = slot;
        if has_moved {
            self.bind(&mut it, None);
        }
        self.clients.clients.insert(client, it);
        self.relist(client, time);
    }

    /// A prompt that waits was shown to this backend and stays there: it counts there as one that
    /// was handed over, and its sharer pays for it. False if it does not wait, or the backend is
    /// not known.
    pub fn stays(&mut self, prompt: PromptKey, backend: BackendId, now: Duration) -> bool {
        let at = self.advance(now);
        let Some(slot) = self.fleet.slot(backend) else { return false };
        let waits = self.clients.prompts.get_mut(&prompt).filter(|it| it.at.is_none());
        let Some(it) = waits else { return false };
        it.is_aside = false;
        let own = it.own(prompt);
        self.goes_to(own, slot, at).is_some()
    }

    /// A prompt has arrived at its backend, and has not begun.
    pub fn arrived(&mut self, prompt: PromptKey) {
        if let Some(there) = self.there_mut(prompt) {
            there.has_arrived = true;
        }
    }

    fn there_mut(&mut self, prompt: PromptKey) -> Option<&mut There> {
        let slot = self.clients.prompts.get(&prompt)?.at.as_ref()?.slot;
        let backend = self.fleet.get_mut(slot)?;
        backend.there.iter_mut().find(|there| there.prompt == prompt)
    }

    /// A prompt began at its backend. Told twice, the first counts.
    pub fn began(&mut self, prompt: PromptKey, now: Duration) {
        let at = self.advance(now);
        let Some(it) = self.clients.prompts.get_mut(&prompt) else { return };
        let Some(place) = it.at.as_mut().filter(|place| place.begun.is_none()) else { return };
        place.begun = Some(at);
        if let Some(there) = self.there_mut(prompt) {
            (there.has_arrived, there.begun) = (true, Some(at));
        }
    }

    /// A prompt has done such a part (0 to 1) of what is left to do since `since`, when its models
    /// were loaded. It ends when the rest has taken as long in proportion.
    pub fn progress(&mut self, prompt: PromptKey, part: f64, since: Duration, now: Duration) {
        let at = self.advance(now);
        let Some(it) = self.clients.prompts.get(&prompt) else { return };
        if it.at.as_ref().is_none_or(|place| place.begun.is_none()) {
            return;
        }
        let there = self.there_mut(prompt);
        if let Some(there) = there.filter(|_| 0.0 < part && part <= 1.0) {
            let passed = (at - since.as_secs_f64()).max(0.0);
            there.due = Some(at + passed * (1.0 - part) / part);
        }
    }

    /// A prompt that was handed over has ended; its sharer has had the time since it began. One
    /// that ended before it began has cost nothing. False if it was not handed over.
    pub fn ended(&mut self, prompt: PromptKey, spent: Spent, now: Duration) -> bool {
        let at = self.advance(now);
        if self.clients.prompts.get(&prompt).is_none_or(|it| it.at.is_none()) {
            return false;
        }
        let Some(it) = self.clients.prompts.remove(&prompt) else { return false };
        let Some(place) = it.at else { return false };
        let seconds = place.begun.map_or(0.0, |begun| at - begun);
        let speed = self.fleet.get(place.slot).map_or(1.0, |backend| backend.speed.get());
        self.shares.charge(it.sharer, seconds * speed);
        let loading = place.begun.and_then(|_| self.loading(it.shape, &place, spent));
        if let Some(loading) = loading {
            self.learn(it.shape, &place, seconds, loading);
        }
        let shape = self.shapes.get_mut(it.shape);
        shape.prompts = shape.prompts.saturating_sub(1);
        self.leave(prompt, it.client, it.sharer, &place);
        self.shares.leaves(it.sharer);
        self.turns.leaves(it.sharer, it.member);
        self.relist(it.client, at);
        true
    }

    fn learn(&mut self, shape: ShapeId, place: &At, seconds: f64, loading: Loading) {
        let Some(backend) = self.fleet.get(place.slot) else { return };
        let mut speed = backend.speed;
        let load = match loading {
            Loading::Seen(load) => {
                let load = load.clamp(0.0, seconds);
                self.models.loaded(&place.cold, place.slot, load);
                load
            }
            Loading::Guessed(load) => load.clamp(0.0, seconds),
        };
        self.runs.learn(self.shapes.get(shape).alike(), seconds - load, &mut speed);
        self.fleet.learned(place.slot, speed);
    }

    /// The prompt is not at its backend any more.
    fn leave(&mut self, prompt: PromptKey, client: ClientKey, sharer: SharerKey, place: &At) {
        self.shares.expects_no_more(sharer, place.share);
        self.order.rekey(sharer, self.shares.key(sharer));
        if let Some(backend) = self.fleet.get_mut(place.slot) {
            backend.there.retain(|it| it.prompt != prompt);
        }
        if let Some(client) = self.clients.clients.get_mut(&client) {
            client.leaves(place.slot);
        }
    }

    /// Time has passed; returns it in seconds. To be called first in every event.
    pub(super) fn advance(&mut self, now: Duration) -> f64 {
        self.shares.advance(now.as_secs_f64(), self.fleet.speed(), self.clients.waiting != 0)
    }

    /// About when one more prompt of this sharer may wait, if too many do.
    #[must_use]
    pub fn retry_after(&self, sharer: SharerKey, now: Duration) -> Duration {
        self.room_after(Some(sharer), now.as_secs_f64())
    }

    /// About when one more prompt may wait: when the next is handed over, or the next of a sharer.
    /// Between a second and an hour.
    fn room_after(&self, sharer: Option<SharerKey>, now: f64) -> Duration {
        let lead = self.settings.lead.as_secs_f64();
        let unknown = self.runs.unknown();
        let ends = self.fleet.all().map(|it| (it.left(now, unknown) - lead).max(0.0));
        let next = ends.fold(f64::INFINITY, f64::min);
        // Before it, the others get what it has had more than the first.
        let first = self.order.first().map_or(0.0, |first| first.fair.0);
        let ahead = sharer.map_or(0.0, |sharer| (self.shares.key(sharer) - first).max(0.0));
        let others = ahead * self.shares.weights() / self.fleet.speed();
        let seconds = next + if others.is_finite() { others } else { 0.0 };
        Duration::from_secs_f64(if seconds.is_nan() { 1.0 } else { seconds.clamp(1.0, 3_600.0) })
    }
}
