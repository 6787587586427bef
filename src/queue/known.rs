//! What the queue is asked about prompts that are here, and what it learns from how they began.

use std::time::Duration;

use super::clients::At;
use super::ids::{PromptKey, ShapeId};
use super::shapes::ShapeFacts;
use super::{Queue, Spent};
use crate::routing::ids::BackendId;

/// What a backend is to a prompt, as far as is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It loads no models that are known.
    Able,
    /// Its models are loaded there.
    Warm,
    /// Its models have to be loaded there, which is expected to take so long.
    Cold(Duration),
    /// It lacks something of it.
    Lacks,
    /// It did not get it, and it is not tried there before the backend turns up anew.
    Tried,
}

impl Queue {
    /// True if this backend is known to lack something of the prompt.
    #[must_use]
    pub fn is_known_to_lack(&self, prompt: PromptKey, backend: BackendId) -> bool {
        let slot = self.fleet.slot(backend);
        let it = self.clients.prompts.get(&prompt).zip(slot);
        it.is_some_and(|(it, slot)| self.shapes.get(it.shape).lacks(slot))
    }

    /// What this backend is to a prompt; `None` if one of them is not here.
    #[must_use]
    pub fn standing(&self, prompt: PromptKey, backend: BackendId) -> Option<Standing> {
        let (it, slot) = (self.clients.prompts.get(&prompt)?, self.fleet.slot(backend)?);
        let shape = it.shape;
        if self.shapes.get(shape).lacks(slot) {
            return Some(Standing::Lacks);
        }
        if it.not.contains(&slot) {
            return Some(Standing::Tried);
        }
        Some(match self.is_warm(shape, slot) {
            true if self.shapes.get(shape).facts.models.is_empty() => Standing::Able,
            true => Standing::Warm,
            false => Standing::Cold(Duration::from_secs_f64(self.cold(shape, slot))),
        })
    }

    /// About how long it takes until this backend may be given one more, as far as that is known.
    #[must_use]
    pub fn has_room_in(&self, backend: BackendId, now: Duration) -> Option<Duration> {
        let backend = self.fleet.get(self.fleet.slot(backend)?)?;
        let lead = self.settings.lead.as_secs_f64();
        let room_in = backend.has_room_in(now.as_secs_f64(), lead)?;
        Duration::try_from_secs_f64(room_in.max(0.0)).ok()
    }

    /// The prompt of the same client that is handed over before this one, or this one.
    #[must_use]
    pub fn first_of_client(&self, prompt: PromptKey) -> Option<PromptKey> {
        let client = self.clients.prompts.get(&prompt)?.client;
        Some(self.clients.clients.get(&client)?.head.as_ref()?.own.prompt)
    }

    /// The only backend that a prompt which waits may go to, because its client is there.
    #[must_use]
    pub fn keeps_to(&self, prompt: PromptKey) -> Option<BackendId> {
        let it = self.clients.prompts.get(&prompt)?;
        let client = self.clients.clients.get(&it.client)?;
        let bound = client.bound.filter(|slot| client.is_at(*slot) || self.may_run(it, *slot));
        let bound = bound.filter(|_| self.settings.spread == 1);
        let slot = client.held.or(bound)?;
        self.fleet.get(slot).map(|it| it.id)
    }

    /// How long a prompt that has begun has taken until now, as a part of what was expected when it
    /// was handed over.
    #[must_use]
    pub fn prediction(&self, prompt: PromptKey, now: Duration) -> Option<f64> {
        let place = self.clients.prompts.get(&prompt)?.at.as_ref()?;
        let there = self.fleet.get(place.slot)?.there.iter().find(|it| it.prompt == prompt)?;
        let took = now.as_secs_f64() - place.begun?;
        (0.0 < there.expected).then(|| took.max(0.0) / there.expected)
    }

    /// How much of a run was loading, if that is known. By its first step: so much later than in
    /// runs of its kind that had nothing to load there. Nothing is known of a run without a step:
    /// all of it was cached, or events were missed.
    pub(super) fn loading(&mut self, shape: ShapeId, place: &At, spent: Spent) -> Option<Loading> {
        let first_step = match spent {
            Spent::Broke | Spent::Seen { first_step: None } => return None,
            Spent::Ran { load } => return Some(Loading::Seen(load.as_secs_f64())),
            Spent::Seen { first_step: Some(first_step) } => first_step.as_secs_f64().max(LEAST),
        };
        let ShapeFacts { family, size, .. } = *self.shapes.get(shape).facts;
        let key = Beginning { family, size, slot: place.slot };
        let usual = self.beginnings.seconds(key);
        if place.cold.is_empty() {
            // It was thought to be warm: one that begins much later than others may not have been.
            let at_most = usual.map_or(first_step, |usual| ODD * usual);
            self.beginnings.learn_seconds(key, first_step.min(at_most));
            return Some(Loading::Seen(0.0));
        }
        let Some(usual) = usual else {
            // Before a warm one was seen it is not known what of it was loading.
            let loads = place.cold.iter().map(|model| self.models.load(*model, place.slot));
            return Some(Loading::Guessed(loads.sum::<f64>().min(first_step)));
        };
        // One that begins as soon as a warm one says nothing about loads.
        let has_loaded = ALIKE * usual < first_step;
        Some(Loading::Seen(if has_loaded { first_step - usual } else { 0.0 }))
    }
}

/// How many seconds of a run were loading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Loading {
    Seen(f64),
    /// Nothing is learned about loads.
    Guessed(f64),
}

/// What runs begin alike: graphs of one kind and size, on one backend.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Beginning {
    family: u64,
    size: u64,
    pub(super) slot: u16,
}

/// No run begins sooner, in seconds.
const LEAST: f64 = 1e-3;

/// How many times later than usual a cold run begins at least, and a warm one at most.
const ALIKE: f64 = 1.2;
const ODD: f64 = 3.0;

#[cfg(test)]
mod tests {
    use super::super::fleet::BackendFacts;
    use super::super::ids::{Class, ClientKey, MemberKey, ModelKey, SharerKey};
    use super::super::learned::Alike;
    use super::super::schedule::Why;
    use super::super::settings::Settings;
    use super::super::shapes::Lacks;
    use super::super::{Aside, Submission};
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One backend of unknown memory, and models of 8 GB each.
    fn queue() -> (Queue, BackendId) {
        let mut queue = Queue::new(Settings { depth: 1, spread: 0, ..Settings::default() });
        let id = BackendId::nth(0);
        queue.joined(BackendFacts { id, speed: 1.0, depth: None, model_bytes: None }, secs(0));
        (0..9).for_each(|model| queue.weighs(ModelKey(model), 8 * GB));
        (queue, id)
    }

    fn facts(model: u32) -> ShapeFacts {
        let models = vec![ModelKey(model)];
        ShapeFacts { models, family: model.into(), classes: 1, size: 0 }
    }

    fn submit(queue: &mut Queue, prompt: u64, facts: ShapeFacts) -> PromptKey {
        let (shape, client) = (queue.shape(facts), u32::try_from(prompt).unwrap());
        let submission = Submission {
            prompt: PromptKey(prompt),
            client: ClientKey(client),
            sharer: SharerKey(client),
            member: MemberKey(client),
            weight: 1.0,
            shape,
            class: Class::Normal,
            number: 0.0,
            last: None,
        };
        queue.submitted(submission, secs(0)).unwrap();
        PromptKey(prompt)
    }

    /// Runs what is next, and says why it was and how long that took of what was expected.
    fn run(queue: &mut Queue, now: u64, first_step: u64, took: u64) -> (Why, f64) {
        let turn = queue.schedule(secs(now));
        let [next] = turn.hand_over[..] else { panic!("one is next") };
        queue.began(next.prompt, secs(now));
        let ratio = queue.prediction(next.prompt, secs(now + took)).unwrap();
        let spent = Spent::Seen { first_step: Some(secs(first_step)) };
        assert!(queue.ended(next.prompt, spent, secs(now + took)));
        (next.why, ratio)
    }

    #[test]
    fn a_load_is_what_a_cold_run_begins_later_than_a_warm_one() {
        let (mut queue, at) = queue();
        let first = submit(&mut queue, 1, facts(0));
        assert_eq!(queue.standing(first, at), Some(Standing::Cold(secs(10))), "by its bytes");
        // It takes twenty seconds as long as nothing is known, and ten to load.
        assert_eq!(run(&mut queue, 0, 7, 15), (Why::Cold, 0.5));
        let second = submit(&mut queue, 2, facts(0));
        assert_eq!(queue.standing(second, at), Some(Standing::Warm));
        assert_eq!(run(&mut queue, 100, 2, 10).0, Why::Warm);
        queue.emptied(at);
        let third = submit(&mut queue, 3, facts(0));
        let by_size = Some(Standing::Cold(secs(10)));
        assert_eq!(queue.standing(third, at), by_size, "what of the first was loading?");
        assert_eq!(run(&mut queue, 200, 7, 15).0, Why::Cold);
        queue.emptied(at);
        let fourth = submit(&mut queue, 4, facts(0));
        let Some(Standing::Cold(load)) = queue.standing(fourth, at) else { panic!("it is cold") };
        let seconds = load.as_secs_f64();
        assert!((4.999..5.001).contains(&seconds), "two of the seven were not loading: {load:?}");
        // Whatever was seen, it is within bounds of what its size says.
        for (prompt, first_step) in [(5, 2_000), (6, 5_000)] {
            run(&mut queue, prompt * 10_000, first_step, first_step + 8);
            queue.emptied(at);
            submit(&mut queue, prompt, facts(0));
        }
        let last = submit(&mut queue, 9, facts(0));
        assert_eq!(queue.standing(last, at), Some(Standing::Cold(secs(80))));
    }

    #[test]
    fn a_backend_keeps_what_its_memory_has_room_for() {
        let (mut queue, at) = queue();
        for model in 0..3 {
            submit(&mut queue, model.into(), facts(model));
            run(&mut queue, u64::from(model) * 100, 1, 9);
        }
        let prompts = [0, 1, 2].map(|it| submit(&mut queue, 10 + u64::from(it), facts(it)));
        let warm = |queue: &Queue| prompts.map(|it| queue.standing(it, at) == Some(Standing::Warm));
        assert_eq!(warm(&queue), [true; 3], "its memory is not known");
        queue.remembers(at, Some(20 * GB));
        assert_eq!(warm(&queue), [false, true, true], "the oldest is gone");
        queue.remembers(at, Some(GB));
        assert_eq!(warm(&queue), [false, false, true], "what was used last is there");
        let of_none = ShapeFacts { models: Vec::new(), ..facts(0) };
        submit(&mut queue, 20, ShapeFacts { family: 20, ..of_none });
        prompts.iter().for_each(|it| queue.sets_aside(*it, Aside::Yes, secs(399)));
        run(&mut queue, 400, 1, 9);
        assert_eq!(warm(&queue), [false, false, true], "one that loads nothing pushes nothing out");
    }

    #[test]
    fn a_prompt_of_another_shape_goes_where_that_may_go() {
        let (mut queue, at) = queue();
        let prompt = submit(&mut queue, 1, facts(0));
        let shape = queue.shape(facts(0));
        queue.lacks([(shape, at, Lacks::Something)], secs(0));
        assert_eq!(queue.standing(prompt, at), Some(Standing::Lacks));
        assert!(queue.schedule(secs(0)).hand_over.is_empty());
        let other = queue.shape(ShapeFacts { family: 99, ..facts(0) });
        queue.reshape(prompt, other, secs(1));
        assert_eq!(queue.schedule(secs(1)).hand_over[0].prompt, prompt);
        assert_eq!(queue.waiting(), 0);
    }

    #[test]
    fn a_cold_run_that_begins_like_a_warm_one_teaches_no_load() {
        let (mut queue, at) = queue();
        submit(&mut queue, 1, facts(0));
        run(&mut queue, 0, 7, 15);
        submit(&mut queue, 2, facts(0));
        run(&mut queue, 100, 4, 10);
        queue.emptied(at);
        submit(&mut queue, 3, facts(0));
        run(&mut queue, 200, 4, 10);
        queue.emptied(at);
        let last = submit(&mut queue, 4, facts(0));
        assert_eq!(queue.standing(last, at), Some(Standing::Cold(secs(10))), "not a millisecond");
    }

    #[test]
    fn nobody_makes_the_expected_time_endless_by_a_size() {
        let (mut queue, _) = queue();
        for prompt in 0..4 {
            submit(&mut queue, prompt, ShapeFacts { size: 1, ..facts(0) });
            run(&mut queue, prompt * 100, 1, 10);
        }
        let expected = |size| queue.runs.expected(Alike { family: 0, classes: 1, size });
        assert!((9.0..=10.0).contains(&expected(1)), "{}", expected(1));
        assert!(expected(u64::MAX) < 161.0, "{}", expected(u64::MAX));
    }

    #[test]
    fn speeds_do_not_sink_however_many_runs_are_cached() {
        let mut queue = Queue::new(Settings { depth: 1, spread: 0, ..Settings::default() });
        for nth in 0..8 {
            let id = BackendId::nth(nth);
            queue.joined(BackendFacts { id, speed: 1.0, depth: None, model_bytes: None }, secs(0));
        }
        for round in 0..1_000 {
            for nth in 0..8 {
                let family = u64::from(u32::try_from(round * 8 + nth).unwrap() % 20);
                let facts = ShapeFacts { family, classes: 1, ..ShapeFacts::default() };
                submit(&mut queue, round * 8 + nth, facts);
            }
            let turn = queue.schedule(secs(round * 100));
            assert_eq!(turn.hand_over.len(), 8);
            for it in turn.hand_over {
                queue.began(it.prompt, secs(round * 100));
                // One of twenty, of any family and anywhere.
                let is_cached = it.prompt.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 < 214_748_364;
                let took = if is_cached { Duration::from_millis(10) } else { secs(20) };
                let spent = Spent::Seen { first_step: Some(Duration::from_millis(5)) };
                queue.ended(it.prompt, spent, secs(round * 100) + took);
            }
        }
        let speeds: Vec<f64> = queue.fleet.all().map(|it| it.speed.get()).collect();
        assert!(speeds.iter().all(|speed| (0.75..1.35).contains(speed)), "{speeds:?}");
    }

    #[test]
    fn what_is_cached_teaches_nothing() {
        let (mut queue, at) = queue();
        for prompt in 1..3 {
            submit(&mut queue, prompt, facts(0));
            run(&mut queue, prompt * 100, 7, 15);
        }
        let third = submit(&mut queue, 3, facts(0));
        let turn = queue.schedule(secs(300));
        queue.began(turn.hand_over[0].prompt, secs(300));
        let expected = queue.runs.unknown();
        assert!((expected - 20.0).abs() > 1.0, "it has learned of the others");
        assert!(queue.ended(third, Spent::Seen { first_step: None }, secs(301)));
        assert!((queue.runs.unknown() - expected).abs() < 1e-9 && queue.there(at) == 0);
    }
}
