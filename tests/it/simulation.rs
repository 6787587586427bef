//! Drives the routing core through long random histories under a virtual clock.
//!
//! A run is a function of its seed: `SIM_SEED=17 cargo test --test it simulation` replays one,
//! `SEEDS=400` and `SEEDS=400..600` run as many and those.
//! Several clients share a fleet that goes up and down, drains and fills; prompts are submitted,
//! answered, refused, heard of in any order, missed and found; operators release and reset. After
//! every step the promises that `routing` makes are checked against a model that is too simple
//! to be wrong: [`truth`] is maps and lists, [`facts`] a list and questions to it.

mod facts;
pub(crate) mod random;
mod truth;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use mooring::routing::client::{Client, Outcome};
use mooring::routing::decision::{DECISIONS_KEPT, Decision, Reason, Refusal, StillPending, What};
use mooring::routing::effects::Step;
use mooring::routing::ids::{BackendId, ClientId, PromptId};
use mooring::routing::ledger::{Known, Ledger, State};
use mooring::routing::owners::Submitter;
use mooring::routing::pending::{End, Loss, Observation, Process, Signal};
use mooring::routing::placement::{AdminState, BackendView, Condition, FleetNow};

use facts::{Fact, Facts};
use random::Random;
use truth::{Book, Kind, Truth};

use crate::support::seeds;

/// Seeds with `SOAK=1`, and in `make test`.
const SEEDS: u64 = 10_000;
const SEEDS_IN_TEST: u64 = 256;

const STEPS: usize = 2_000;
const CLIENTS_MAX: usize = 6;
const BACKENDS_MAX: usize = 5;
const PENDING_MAX: usize = 4;
const RESERVATION: Duration = Duration::from_secs(600);
const LEASE: Duration = Duration::from_secs(600);
const SILENT_AFTER: Duration = Duration::from_secs(30);
/// Small, so that a run overflows it many times.
const LEDGER_CAPACITY: usize = 20;
const LEDGER_AGE: Duration = Duration::from_secs(7_200);

/// What a simulation that proves something has to reach, over all seeds, often.
const ALL_SEEN: [&str; 20] = [
    "held",
    "reserved",
    "idle",
    "placed",
    "moved",
    "backend_down",
    "no_backend",
    "fleet_full",
    "too_many_pending",
    "prompt_id_known",
    "completed",
    "failed",
    "interrupted",
    "deleted",
    "backend_restarted",
    "backend_gone",
    "vanished",
    "reset",
    "forgotten",
    "stray upload",
];

const ENDS: [End; 4] = [End::Succeeded, End::Failed, End::Interrupted, End::Deleted];
const ADMIN: [AdminState; 6] = [
    AdminState::Ready,
    AdminState::Ready,
    AdminState::Ready,
    AdminState::Ready,
    AdminState::Draining,
    AdminState::Off,
];

#[test]
fn promises_hold_for_every_seed() {
    let Ok(seed) = std::env::var("SIM_SEED") else {
        let mut seen = BTreeMap::new();
        let seeds = seeds("seeds of the routing core", SEEDS, SEEDS_IN_TEST);
        for tally in seeds.clone().map(run) {
            tally.seen.iter().for_each(|(what, times)| *seen.entry(*what).or_insert(0) += times);
        }
        let rare: Vec<_> = ALL_SEEN.iter().filter(|what| seen.get(*what) < Some(&400)).collect();
        // A few seeds cannot reach all of it.
        assert!(
            rare.is_empty() || seeds.end - seeds.start < SEEDS_IN_TEST,
            "the simulation hardly reaches {rare:?}: {seen:?}"
        );
        return;
    };
    run(seed.parse().expect("SIM_SEED is a number"));
}

#[test]
fn a_run_is_a_function_of_its_seed() {
    assert_eq!(story_of(17), story_of(17));
    assert_ne!(story_of(17), story_of(18));
}

fn run(seed: u64) -> Tally {
    let tally = live(seed).tally;
    let Tally { taken, withdrawn, ended, .. } = &tally;
    assert_eq!(*taken, withdrawn + ended.len(), "seed {seed}: a prompt has no end, or two");
    tally
}

fn live(seed: u64) -> World {
    let mut world = World::new(seed);
    for step in 0..STEPS {
        world.at.step = step;
        world.step();
        world.check();
    }
    world.end_all();
    world.check();
    world
}

/// The whole outcome of a run, in words.
fn story_of(seed: u64) -> String {
    let world = live(seed);
    let decided: Vec<String> = world
        .seats
        .iter()
        .flat_map(|seat| seat.client.decisions().iter())
        .map(|decided| format!("{:?} {}", decided.backend, decided.what.as_str()))
        .collect();
    format!("{:?} {decided:?}", world.tally)
}

/// Where a run is. Part of every message.
#[derive(Clone, Copy, Debug)]
struct At {
    seed: u64,
    step: usize,
    doing: &'static str,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}, step {}, {}", self.seed, self.step, self.doing)
    }
}

/// A client and what is true of it.
#[derive(Debug)]
struct Seat {
    id: ClientId,
    client: Client,
    truth: Truth,
    /// The backend that holds it since before the step, which no step but a reset may change.
    held_by: Option<BackendId>,
    /// Uploads that began before a reset and have not ended.
    strays: Vec<Decision>,
}

#[derive(Debug, Default)]
struct Tally {
    taken: usize,
    withdrawn: usize,
    ended: BTreeSet<PromptId>,
    /// How often each decision was made and each end was reached.
    seen: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_insert(0) += 1;
    }
}

#[derive(Debug)]
struct World {
    at: At,
    random: Random,
    now: Instant,
    fleet: Vec<BackendView>,
    turn: u64,
    seats: Vec<Seat>,
    ledger: Ledger,
    book: Book,
    tally: Tally,
    ids_given: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let now = mooring::net::now();
        let fleet = (0..=random.below(BACKENDS_MAX)).map(new_backend).collect();
        let seats = (0..=random.below(CLIENTS_MAX)).map(|index| Seat::new(index, now)).collect();
        Self {
            at: At { seed, step: 0, doing: "begin" },
            random,
            now,
            fleet,
            turn: 0,
            seats,
            ledger: Ledger::new(LEDGER_CAPACITY, LEDGER_AGE),
            book: Book::new(LEDGER_CAPACITY, LEDGER_AGE),
            tally: Tally::default(),
            ids_given: 0,
        }
    }

    fn step(&mut self) {
        let seat = self.random.below(self.seats.len());
        for seat in &mut self.seats {
            seat.held_by = seat.truth.bound.filter(|_| seat.truth.is_held());
        }
        match self.random.below(100) {
            0..=9 => self.time_passes(),
            10..=19 => self.fleet_changes(),
            20..=27 => self.contact(seat),
            28..=32 => self.upload_begins(seat),
            33..=40 => self.upload_ends(seat),
            41..=56 => self.submit(seat),
            57..=66 => self.answer(seat),
            67..=80 => self.on_event(seat),
            81..=89 => self.ask(seat),
            90..=91 => self.delete(seat),
            92 => self.link_breaks(seat),
            93..=94 => self.socket(seat),
            95..=96 => self.release(seat),
            97 => self.presume_lost(seat),
            98 => self.reset(seat),
            _ => self.stranger(),
        }
        self.sweep();
    }

    fn doing(&mut self, doing: &'static str) -> At {
        self.at.doing = doing;
        self.at
    }

    fn time_passes(&mut self) {
        self.doing("time passes");
        let millis = self.random.pick(&[1, 999, 1_000, 1_000, 2_000, 5_000, 30_000, 600_000]);
        self.now += Duration::from_millis(millis);
    }

    fn fleet_changes(&mut self) {
        self.doing("the fleet changes");
        let backend = self.random.below(self.fleet.len());
        let (one_to_four, limit) = (1 + self.random.below(4), self.random.below(8));
        let load = self.random.below(6);
        let (admin, is_up) = (self.random.pick(&ADMIN), !self.random.one_in(4));
        let view = &mut self.fleet[backend];
        match self.random.below(8) {
            0 | 1 => view.up = is_up,
            2 | 3 => view.admin = admin,
            4 => view.weight = NonZeroU32::new(small(one_to_four)).expect("not 0"),
            5 => view.max_pending = NonZeroU32::new(small(limit)),
            _ => view.load = small(load),
        }
    }

    /// The fleet with the clients that are bound to each backend.
    fn count_bound(&mut self) {
        for view in &mut self.fleet {
            let is_here = |seat: &&Seat| seat.truth.bound == Some(view.id);
            view.bound = small(self.seats.iter().filter(is_here).count());
        }
    }

    /// Puts one question to the binding of a client, in the core and in the model.
    fn decide(
        &mut self,
        seat: usize,
        kind: Kind,
        ask: impl FnOnce(&mut Client, FleetNow<'_>, Instant) -> Result<Decision, Refusal>,
    ) -> Result<Decision, Refusal> {
        self.count_bound();
        let (at, now) = (self.at, self.now);
        let Seat { client, truth, .. } = &mut self.seats[seat];
        let expected = truth.target(kind, &self.fleet, self.turn, now);
        let before = client.bound();
        let decided = ask(client, FleetNow { backends: &self.fleet, turn: self.turn }, now);
        self.tally.see(decided.map_or_else(|it| it.as_str(), |made| made.reason.as_str()));
        let in_short = decided.map(|made| (made.backend, made.reason));
        assert_eq!(in_short, expected, "{at}: {truth:?} in {:?}", self.fleet);
        truth.last_sign = now;
        let Ok(made) = decided else {
            assert_eq!(client.bound(), before, "{at}: a refusal changed the binding");
            return decided;
        };
        let moved = truth.bound != Some(made.backend);
        assert_eq!(made.newly_bound, moved, "{at}: {made:?}");
        assert_eq!(made.left, truth.bound.filter(|_| moved), "{at}: {made:?}");
        if moved {
            assert!(!truth.is_held(), "{at}: a held binding moved");
            truth.reserved_until = None;
            truth.bound = Some(made.backend);
        }
        if matches!(made.reason, Reason::Placed | Reason::Moved) {
            self.turn += 1;
        }
        decided
    }

    fn contact(&mut self, seat: usize) {
        self.doing("contact");
        let _ = self
            .decide(seat, Kind::Read, |client, fleet, now| client.contact(fleet, now).split().0);
    }

    fn upload_begins(&mut self, seat: usize) {
        self.doing("upload begins");
        if let Ok(began) = self.decide(seat, Kind::Work, began) {
            self.seats[seat].truth.uploads.push(began);
        }
    }

    fn upload_ends(&mut self, seat: usize) {
        self.doing("upload ends");
        let reservation = if self.random.one_in(3) { None } else { Some(RESERVATION) };
        let (now, Seat { client, truth, strays, .. }) = (self.now, &mut self.seats[seat]);
        if !strays.is_empty() && self.random.one_in(2) {
            let stray = strays.remove(self.random.below(strays.len()));
            done(client.upload_ended(stray, reservation, now));
            truth.last_sign = now;
            self.tally.see("stray upload");
        } else if !truth.uploads.is_empty() {
            let began = truth.uploads.remove(self.random.below(truth.uploads.len()));
            done(client.upload_ended(began, reservation, now));
            truth.last_sign = now;
            truth.reserved_until = reservation.map(|it| now + it).or(truth.reserved_until);
            self.check_release(seat);
        }
    }

    /// An id that is new, most of the time.
    fn some_id(&mut self) -> PromptId {
        let is_old = self.random.one_in(5);
        if is_old && 0 < self.ids_given {
            // Recent ones may be pending, older ones ended, the oldest forgotten.
            let back = self.random.below(40.min(self.ids_given));
            return id(&format!("p{}", self.ids_given - 1 - back));
        }
        self.ids_given += 1;
        id(&format!("p{}", self.ids_given - 1))
    }

    fn submit(&mut self, seat: usize) {
        let at = self.doing("submit");
        let (now, prompt) = (self.now, self.some_id());
        let client_id = self.seats[seat].id.clone();
        let is_known = self.book.get(&prompt, now).is_some();
        let reserved = self.ledger.reserve(&prompt, Submitter::client(client_id.clone()), now);
        assert_eq!(reserved, if is_known { Err(Known) } else { Ok(()) }, "{at}: {prompt}");
        if is_known {
            return;
        }
        self.book.insert(&prompt, Some(client_id), now);
        if self.tally.ended.remove(&prompt) {
            // The ledger has forgotten its first life, which is told and done.
            self.tally.taken -= 1;
        }
        self.send(seat, &prompt);
    }

    /// The core's part of a submission whose id the ledger has taken.
    fn send(&mut self, seat: usize, prompt: &PromptId) {
        let now = self.now;
        let truth = &mut self.seats[seat].truth;
        if truth.pending.len() == PENDING_MAX {
            self.send_too_many(seat, prompt);
            return;
        }
        let decided = self.decide(seat, Kind::Work, |client, fleet, now| {
            client.submit(prompt.clone(), PENDING_MAX, fleet, now).split().0
        });
        match decided {
            Ok(made) => {
                let truth = &mut self.seats[seat].truth;
                let facts = Facts::new(now, truth.reserved_until.take());
                truth.pending.push((prompt.clone(), facts));
                self.ledger.placed(prompt, made.backend);
                self.book.placed(prompt, made.backend);
                self.tally.taken += 1;
            }
            Err(_) => {
                self.ledger.withdraw(prompt);
                self.book.withdraw(prompt);
            }
        }
    }

    fn send_too_many(&mut self, seat: usize, prompt: &PromptId) {
        let (at, now, turn) = (self.at, self.now, self.turn);
        let Seat { client, truth, .. } = &mut self.seats[seat];
        let fleet = FleetNow { backends: &self.fleet, turn };
        let refused = done(client.submit(prompt.clone(), PENDING_MAX, fleet, now));
        assert_eq!(refused, Err(Refusal::TooManyPending { max: PENDING_MAX }), "{at}");
        let pending = truth.pending[self.random.below(PENDING_MAX)].0.clone();
        let refused = done(client.submit(pending, PENDING_MAX, fleet, now));
        assert_eq!(refused, Err(Refusal::AlreadyPending), "{at}");
        self.tally.see("too_many_pending");
        self.tally.see("prompt_id_known");
        truth.last_sign = now;
        self.ledger.withdraw(prompt);
        self.book.withdraw(prompt);
    }

    /// A submission has its answer: taken, refused, or it was never sent.
    fn answer(&mut self, seat: usize) {
        let at = self.doing("answer");
        let Some(prompt) = self.some_pending(seat) else { return };
        let now = self.now;
        let Seat { client, truth, .. } = &mut self.seats[seat];
        let is_new = truth.facts(&prompt).is_some_and(|facts| facts.is_empty());
        if !is_new || self.random.below(4) < 2 {
            assert!(done(client.accepted(&prompt, now)), "{at}: {prompt}");
            truth.facts(&prompt).map(|facts| facts.add(now, Fact::Accepted));
            return;
        }
        let withdrawn = done(client.withdraw(&prompt));
        assert!(withdrawn.is_some(), "{at}: {prompt}");
        let used_up = truth.remove(&prompt).and_then(|facts| facts.reservation);
        truth.reserved_until = truth.reserved_until.max(used_up);
        self.tally.withdrawn += 1;
        let was_sent = self.random.one_in(2);
        if was_sent {
            self.ledger.withdraw(&prompt);
            self.book.withdraw(&prompt);
        } else {
            // It may go elsewhere, if nothing else holds the binding.
            let Seat { truth, held_by, .. } = &mut self.seats[seat];
            *held_by = truth.bound.filter(|_| truth.is_held());
            self.send(seat, &prompt);
        }
    }

    /// What a link says, as often and in any order as links that break and come back say it.
    fn on_event(&mut self, seat: usize) {
        self.doing("hear");
        let end = self.random.pick(&ENDS);
        let heard = match self.random.below(7) {
            0 | 1 => Signal::Started,
            2 => Signal::Progressed,
            3 | 4 => Signal::Terminal(end),
            _ => Signal::LastWord,
        };
        let prompt = self.some_prompt(seat);
        self.add(seat, &prompt, Fact::Heard(heard));
    }

    /// What asking finds of the prompts that want it, and sometimes of one that does not.
    fn ask(&mut self, seat: usize) {
        let at = self.doing("ask");
        let (now, Seat { client, truth, .. }) = (self.now, &self.seats[seat]);
        let expected: Vec<PromptId> = truth
            .pending
            .iter()
            .filter(|(_, facts)| facts.wants_asking(SILENT_AFTER, now))
            .map(|(prompt, _)| prompt.clone())
            .collect();
        let asked = client.to_ask(SILENT_AFTER, now);
        assert!(asked.iter().all(|(_, backend)| truth.bound == Some(*backend)), "{at}: {asked:?}");
        let mut asked: Vec<PromptId> = asked.into_iter().map(|(prompt, _)| prompt).collect();
        assert_eq!(asked, expected, "{at}: {truth:?}");
        if self.random.one_in(3) {
            asked.push(self.some_prompt(seat));
        }
        for prompt in asked {
            let end = self.random.pick(&ENDS);
            let sighted = match self.random.below(12) {
                0 | 1 => Observation::Queued,
                2 | 3 => Observation::Running,
                4..=6 => Observation::InHistory(end),
                7 => Observation::Absent(Process::Restarted),
                _ => Observation::Absent(Process::MaybeSame),
            };
            self.add(seat, &prompt, Fact::Observation(sighted));
        }
    }

    fn delete(&mut self, seat: usize) {
        self.doing("delete");
        let prompt = self.some_prompt(seat);
        self.add(seat, &prompt, Fact::DeleteAsked);
    }

    fn link_breaks(&mut self, seat: usize) {
        self.doing("link breaks");
        let backend =
            BackendId::nth(u16::try_from(self.random.below(self.fleet.len())).expect("few"));
        let (now, Seat { client, truth, .. }) = (self.now, &mut self.seats[seat]);
        done(client.must_ask(backend));
        if truth.bound == Some(backend) {
            for (_, facts) in &mut truth.pending {
                facts.add(now, Fact::MustAsk);
            }
        }
    }

    /// Tells the core and the model something of a prompt; both must draw the same conclusion.
    fn add(&mut self, seat: usize, prompt: &PromptId, fact: Fact) {
        let (at, now) = (self.at, self.now);
        let Seat { client, truth, .. } = &mut self.seats[seat];
        let end = match fact {
            Fact::Heard(heard) => ended(client.on_event(prompt, heard, now)),
            Fact::Observation(sighted) => ended(client.on_probe(prompt, sighted, now)),
            Fact::DeleteAsked => {
                let (_, effects) = client.delete_asked(prompt, now).split();
                effects.ended.first().map(|ended| ended.end)
            }
            Fact::Accepted | Fact::MustAsk => None,
        };
        let expected = truth.facts(prompt).and_then(|facts| facts.add(now, fact));
        assert_eq!(end, expected, "{at}: {prompt} {fact:?}, {:?}", truth.facts(prompt));
        if let Some(end) = end {
            truth.remove(prompt);
            self.has_ended(seat, prompt, end);
            self.check_release(seat);
        }
    }

    /// A backend stayed away past its grace.
    fn presume_lost(&mut self, seat: usize) {
        let at = self.doing("presume lost");
        let prompt = self.some_prompt(seat);
        let lost = End::Lost(Loss::BackendGone);
        let Seat { client, truth, .. } = &mut self.seats[seat];
        let expected = truth.remove(&prompt).map(|_| lost);
        let gone = client.give_up(&prompt, Loss::BackendGone, Outcome::Untold, self.now);
        assert_eq!(ended(gone), expected, "{at}: {prompt}");
        if expected.is_some() {
            self.has_ended(seat, &prompt, lost);
            self.check_release(seat);
        }
    }

    /// A prompt that is no longer pending has ended: once, and in the ledger.
    fn has_ended(&mut self, seat: usize, prompt: &PromptId, end: End) {
        let at = self.at;
        assert!(self.tally.ended.insert(prompt.clone()), "{at}: {prompt} ended twice");
        self.tally.see(end.reason());
        self.seats[seat].truth.last_sign = self.now;
        self.ledger.ended(prompt, end, self.now);
        self.book.settle(prompt, State::Ended(end));
        // A refusal that comes after the end takes nothing back.
        self.ledger.withdraw(prompt);
        assert!(
            done(self.seats[seat].client.withdraw(prompt)).is_none(),
            "{at}: {prompt} has ended"
        );
    }

    /// The last decision says "released" exactly if nothing holds or reserves any more.
    fn check_release(&self, seat: usize) {
        let Seat { client, truth, .. } = &self.seats[seat];
        let is_free = !truth.is_held() && !truth.is_reserved(self.now);
        let last = client.decisions().iter().last().map(|decided| decided.what);
        assert_eq!(last == Some(What::Released), is_free, "{}: {last:?}", self.at);
    }

    fn socket(&mut self, seat: usize) {
        self.doing("socket");
        let (now, Seat { client, truth, .. }) = (self.now, &mut self.seats[seat]);
        if 0 < truth.sockets && self.random.one_in(2) {
            done(client.socket_closed(now));
            truth.sockets -= 1;
        } else {
            done(client.socket_opened(now));
            truth.sockets += 1;
        }
        truth.last_sign = now;
    }

    fn release(&mut self, seat: usize) {
        let at = self.doing("release");
        let Seat { client, truth, .. } = &mut self.seats[seat];
        let released = done(client.release(self.now));
        if truth.is_held() {
            let pending = truth.pending.len() + truth.uploads.len();
            assert_eq!(released.err(), Some(StillPending { pending }), "{at}");
        } else {
            let backend = released.map(|it| it.backend);
            assert_eq!(backend, Ok(truth.bound), "{at}");
            (truth.bound, truth.reserved_until) = (None, None);
        }
    }

    fn reset(&mut self, seat: usize) {
        let at = self.doing("reset");
        let Seat { client, truth, held_by, strays, .. } = &mut self.seats[seat];
        let (released, effects) = client.reset(self.now).split();
        assert_eq!(released.backend, truth.bound, "{at}");
        (truth.bound, truth.reserved_until, *held_by) = (None, None, None);
        strays.append(&mut truth.uploads);
        let expected = std::mem::take(&mut truth.pending).into_iter().map(|(prompt, _)| prompt);
        let cut_off: Vec<PromptId> = effects.ended.into_iter().map(|it| it.prompt).collect();
        assert_eq!(cut_off.len(), released.cut_off, "{at}");
        assert_eq!(cut_off, expected.collect::<Vec<_>>(), "{at}");
        for prompt in cut_off {
            self.has_ended(seat, &prompt, End::Lost(Loss::Reset));
        }
    }

    /// Somebody asks about an id that nobody knows; sometimes a backend does.
    fn stranger(&mut self) {
        let at = self.doing("stranger");
        let (now, prompt) = (self.now, id(&format!("s{}", self.random.below(8))));
        assert_eq!(self.ledger.may_ask(&prompt, now), self.book.may_ask(&prompt, now), "{at}");
        if self.random.one_in(2) {
            return;
        }
        self.ledger.learn(&prompt, BackendId::nth(0), now);
        if self.book.get(&prompt, now).is_none() {
            self.book.insert(&prompt, None, now);
            self.book.placed(&prompt, BackendId::nth(0));
            self.book.settle(&prompt, State::Learned);
        }
    }

    /// Forgets the clients that are to be forgotten, as whoever holds them would.
    fn sweep(&mut self) {
        for (index, seat) in self.seats.iter_mut().enumerate() {
            let Seat { client, truth, .. } = seat;
            let has_anything = truth.is_held() || 0 < truth.sockets;
            let is_due = !has_anything && LEASE <= self.now - truth.last_sign;
            assert_eq!(client.is_forgotten(LEASE, self.now), is_due, "{}: {truth:?}", self.at);
            if is_due {
                *seat = Seat::new(index, self.now);
                self.tally.see("forgotten");
            }
        }
    }

    fn some_pending(&mut self, seat: usize) -> Option<PromptId> {
        let pending = &self.seats[seat].truth.pending;
        if pending.is_empty() {
            return None;
        }
        Some(pending[self.random.below(pending.len())].0.clone())
    }

    /// A pending prompt of this client, or one that is another's, has ended, or never was.
    fn some_prompt(&mut self, seat: usize) -> PromptId {
        let back = 1 + self.random.below(10);
        let other = id(&format!("p{}", self.ids_given.saturating_sub(back)));
        if self.random.one_in(8) { other } else { self.some_pending(seat).unwrap_or(other) }
    }

    /// All that holds after every step.
    fn check(&self) {
        let at = self.at;
        for seat in &self.seats {
            self.check_seat(seat);
        }
        assert!(self.ledger.len() <= self.book.len_max(), "{at}: the ledger has outgrown its cap");
        if at.step.is_multiple_of(64) {
            for prompt in self.book.ids() {
                self.check_record(prompt);
            }
        }
    }

    fn check_seat(&self, seat: &Seat) {
        let Seat { client, truth, held_by, .. } = seat;
        let at = self.at;
        let bound = client.bound().map(|(backend, _)| backend);
        assert_eq!(bound, truth.bound, "{at}");
        assert!(held_by.is_none() || *held_by == bound, "{at}: moved from {held_by:?}");
        let word = match bound {
            None => "none",
            Some(_) if truth.is_held() => "held",
            Some(_) if truth.is_reserved(self.now) => "reserved",
            Some(_) => "idle",
        };
        assert_eq!(client.binding_state(self.now), word, "{at}: {truth:?}");
        assert_eq!(client.is_held(), truth.is_held(), "{at}: {truth:?}");
        assert!(bound.is_some() || !truth.is_held(), "{at}: held by nobody");
        assert_eq!(client.sockets(), truth.sockets, "{at}");
        assert!(client.decisions().iter().count() <= DECISIONS_KEPT, "{at}");
        let pending = client.pending().keys();
        assert!(pending.eq(truth.pending.iter().map(|(prompt, _)| prompt)), "{at}: {truth:?}");
        for (prompt, pending) in client.pending() {
            assert_eq!(pending.backend(), bound, "{at}: {prompt} is elsewhere");
            let record = self.ledger.get(prompt, self.now);
            let known = record.map(|it| (it.state, it.by.client.as_ref(), it.backend));
            assert_eq!(known, Some((State::Pending, Some(&seat.id), bound)), "{at}: {prompt}");
        }
    }

    fn check_record(&self, prompt: &PromptId) {
        let record = self.ledger.get(prompt, self.now);
        let record = record.map(|it| (it.state, it.by.client.as_ref(), it.backend));
        let entry = self.book.get(prompt, self.now);
        let entry = entry.map(|it| (it.state, it.client.as_ref(), it.backend));
        assert_eq!(record, entry, "{}: {prompt}", self.at);
    }

    /// All backends come back without their memory, so that every prompt has its end.
    fn end_all(&mut self) {
        self.doing("end all");
        for seat in 0..self.seats.len() {
            self.seats[seat].held_by = None;
            while let Some(prompt) = self.some_pending(seat) {
                self.add(seat, &prompt, Fact::Observation(Observation::Absent(Process::Restarted)));
            }
        }
    }
}

impl Seat {
    fn new(index: usize, now: Instant) -> Self {
        let id = ClientId::parse(&format!("c{index}")).expect("a client id");
        let (client, truth) = (Client::new(now), Truth::new(now));
        Self { id, client, truth, held_by: None, strays: Vec::new() }
    }
}

/// What came of a transition.
fn done<T>(step: Step<T>) -> T {
    step.split().0
}

/// How the prompt that a transition is about has ended, if it has.
fn ended(step: Step) -> Option<End> {
    step.split().1.ended.first().map(|ended| ended.end)
}

fn began(client: &mut Client, fleet: FleetNow<'_>, now: Instant) -> Result<Decision, Refusal> {
    done(client.upload_began(fleet, now))
}

fn new_backend(index: usize) -> BackendView {
    BackendView {
        id: BackendId::nth(u16::try_from(index).expect("few backends")),
        up: true,
        admin: AdminState::Ready,
        condition: Condition::Well,
        load: 0,
        weight: NonZeroU32::MIN,
        max_pending: None,
        bound: 0,
        head_start: None,
    }
}

fn id(text: &str) -> PromptId {
    PromptId::parse(text).expect("a prompt id")
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("a small number")
}
