//! The queue of `mooring::queue`, against the simulated fleet.

use std::collections::HashSet;
use std::time::Duration;

use mooring::queue::fleet::{BackendFacts, Serving};
use mooring::queue::ids::Class;
use mooring::queue::ids::{ClientKey, MemberKey, ModelKey, PromptKey, SharerKey};
use mooring::queue::settings::Settings;
use mooring::queue::{Queue, Spent, Submission};
use mooring::routing::ids::BackendId;

use crate::guesses::Guesses;
use crate::world::{Event, Gap, Rule, World};

/// What becomes of a prompt that runs on a backend that crashes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OnLost {
    Tell,
    Resubmit,
}

pub(crate) struct Ours {
    queue: Queue,
    on_lost: OnLost,
    /// When it is to be woken, so that it is not woken twice for the same.
    wake: f64,
    there: HashSet<usize>,
    /// What was forecast, if that is asked for.
    guesses: Option<Guesses>,
}

impl Ours {
    pub(crate) fn new(world: &World<'_>, settings: Settings, on_lost: OnLost) -> Self {
        let no_limit =
            Settings { waiting_max: usize::MAX, waiting_max_of_one: usize::MAX, ..settings };
        let mut queue = Queue::new(no_limit);
        for (model, bytes) in world.workload.models.iter().enumerate() {
            queue.weighs(ModelKey(model as u32), *bytes);
        }
        for (at, it) in world.boxes.iter().enumerate() {
            let facts = BackendFacts {
                id: id(at),
                speed: 1.0,
                depth: None,
                model_bytes: Some(it.machine.vram),
            };
            queue.joined(facts, Duration::ZERO);
        }
        Self { queue, on_lost, wake: f64::INFINITY, there: HashSet::new(), guesses: None }
    }

    /// The same, and what is forecast is compared with what happens.
    pub(crate) fn guessing(self) -> Self {
        Self { guesses: Some(Guesses::default()), ..self }
    }

    pub(crate) fn guesses(self) -> Guesses {
        self.guesses.unwrap_or_default()
    }

    fn decide(&mut self, world: &mut World<'_>) {
        let turn = self.queue.schedule(time(world));
        for it in turn.hand_over {
            let job = it.prompt.0 as usize;
            self.there.insert(job);
            world.give(usize::from(it.backend.slot()), job, self, Gap::HandedOver);
        }
        if let Some(again) = turn.look_again {
            let again = again.as_secs_f64() + 1e-6;
            if again < self.wake || self.wake <= world.now {
                self.wake = again;
                world.at(again, Event::Wake);
            }
        }
    }
}

fn id(at: usize) -> BackendId {
    BackendId::nth(at as u16)
}

fn key(job: usize) -> PromptKey {
    PromptKey(job as u64)
}

fn time(world: &World<'_>) -> Duration {
    Duration::from_secs_f64(world.now)
}

impl Rule for Ours {
    fn submitted(&mut self, world: &mut World<'_>, job: usize) {
        let it = &world.workload.jobs[job];
        let shape = self.queue.shape(it.facts.clone());
        let submission = Submission {
            prompt: key(job),
            client: ClientKey(it.client),
            sharer: SharerKey(it.client),
            member: MemberKey(0),
            weight: 1.0,
            shape,
            class: Class::Normal,
            number: job as f64,
            last: None,
        };
        self.queue.submitted(submission, time(world)).expect("there is no limit");
        self.decide(world);
        if let Some(guesses) = &mut self.guesses {
            guesses.ask(&self.queue, key(job), time(world));
        }
    }

    fn began(&mut self, world: &mut World<'_>, job: usize) {
        self.queue.began(key(job), time(world));
        if let Some(guesses) = &mut self.guesses {
            guesses.began(key(job), time(world));
        }
    }

    fn ended(&mut self, world: &mut World<'_>, _at: usize, job: usize) {
        self.there.remove(&job);
        let load = Duration::from_secs_f64(world.outcomes[job].load);
        self.queue.ended(key(job), Spent::Ran { load }, time(world));
        self.decide(world);
    }

    fn woken(&mut self, world: &mut World<'_>) {
        self.decide(world);
    }

    fn crashed(&mut self, world: &mut World<'_>, at: usize, there: &[usize], began: bool) {
        self.queue.serves(id(at), Serving::Down, time(world));
        self.queue.emptied(id(at));
        for (place, job) in there.iter().enumerate() {
            let ran = began && place == 0;
            if ran && self.on_lost == OnLost::Tell {
                self.queue.ended(key(*job), Spent::Broke, time(world));
                world.lose(*job, ran);
            } else {
                self.queue.returned(key(*job), &[], time(world));
            }
        }
        self.decide(world);
    }

    fn back(&mut self, world: &mut World<'_>, at: usize) {
        self.queue.serves(id(at), Serving::Up, time(world));
        self.decide(world);
    }
}
