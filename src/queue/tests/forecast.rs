//! What is forecast beside what then happens.

use super::*;
use crate::queue::forecast::{Forecast, Goes, HAND_OVERS_MAX, Play, STEPS_MAX};

/// What was handed over and started, and when.
type Seen = BTreeMap<PromptKey, (usize, Duration, Option<Duration>)>;

/// A world in which each prompt takes as long as is expected and nothing new comes, beside a queue
/// that decides in it.
struct Exact<'a> {
    queue: &'a mut Queue,
    now: Duration,
    /// What runs at each backend, and until when; `None` for a prompt of somebody else.
    runs: BTreeMap<BackendId, (Duration, Option<PromptKey>)>,
    seen: Seen,
}

impl Exact<'_> {
    fn follow(mut self) -> Seen {
        self.start();
        for _ in 0..10_000 {
            let turn = self.queue.schedule(self.now);
            for it in &turn.hand_over {
                let place = self.seen.len() + 1;
                self.seen.insert(it.prompt, (place, self.now, None));
            }
            self.start();
            if !turn.hand_over.is_empty() {
                // What has started is asked about, as the gateway does.
                continue;
            }
            let ends = self.runs.values().map(|(end, _)| *end);
            let Some(next) = ends.chain(turn.look_again).min() else { break };
            self.now = self.now.max(next);
            let over = self.runs.iter().filter(|(_, (end, _))| *end <= self.now);
            let mut over: Vec<(Duration, BackendId)> =
                over.map(|(backend, (end, _))| (*end, *backend)).collect();
            over.sort_by_key(|(end, backend)| (*end, backend.slot()));
            for (_, backend) in over {
                match self.runs.remove(&backend).and_then(|(_, prompt)| prompt) {
                    Some(prompt) => assert!(self.queue.ended(prompt, Spent::Broke, self.now)),
                    None => {
                        let slot = self.queue.fleet.slot(backend).unwrap();
                        let others = self.queue.fleet.get(slot).unwrap().others;
                        self.queue.others(backend, others - 1);
                    }
                }
            }
            self.start();
        }
        self.seen
    }

    fn start(&mut self) {
        let up = self.queue.fleet.all().filter(|it| it.serving != Serving::Down);
        let idle: Vec<BackendId> =
            up.map(|it| it.id).filter(|it| !self.runs.contains_key(it)).collect();
        for backend in idle {
            let it = self.queue.fleet.get(backend.slot()).unwrap();
            let begun = it.there.iter().find(|there| there.begun.is_some());
            let next = match (begun, it.others, it.there.first()) {
                (Some(there), ..) => Some((there.left(self.now.as_secs_f64()), Some(there.prompt))),
                (None, 1.., _) => Some((self.queue.runs.unknown(), None)),
                (None, 0, there) => there.map(|there| (there.expected, Some(there.prompt))),
            };
            let Some((seconds, prompt)) = next else { continue };
            if let Some(prompt) = prompt {
                self.queue.began(prompt, self.now);
                if let Some((_, _, start)) = self.seen.get_mut(&prompt) {
                    start.get_or_insert(self.now);
                }
            }
            self.runs.insert(backend, (self.now + Duration::from_secs_f64(seconds), prompt));
        }
    }
}

fn follow(model: &mut Model) -> Seen {
    let (now, runs, seen) = (model.now, BTreeMap::new(), Seen::new());
    Exact { queue: &mut model.queue, now, runs, seen }.follow()
}

/// Something is known of how long prompts take.
fn learned(model: &mut Model) {
    for _ in 0..2 {
        submit(model, 7, 5, 0);
        play(model, 1);
    }
    model.waiting.clear();
}

fn forecast(model: &Model) -> Forecast {
    Forecast::of(model.queue.snapshot(), model.now)
}

proptest! {
    #[test]
    fn what_then_happens_is_forecast_if_all_takes_as_long_as_expected(
        events in vec(happens(), 1..150),
        spread in 0..4_usize,
        depth in 1..4_u32,
    ) {
        let mut model = Model::new(Settings { depth, ..settings(spread) });
        learned(&mut model);
        for it in events {
            model.go(it);
            model.decide()?;
        }
        let told = forecast(&model);
        prop_assert_eq!(told.order().len(), model.queue.waiting(), "each has a place");
        let seen = follow(&mut model);
        for (prompt, (place, leaves, starts)) in &seen {
            let it = told.get(*prompt).unwrap();
            prop_assert_eq!((it.place, it.leaves), (*place, Some(*leaves)));
            prop_assert_eq!(it.starts, *starts);
        }
        for prompt in &told.order()[seen.len()..] {
            prop_assert_eq!(told.get(*prompt).unwrap().starts, None, "it goes nowhere");
        }
    }
}

/// One backend on which something runs that takes seven seconds, as all does.
fn busy() -> Model {
    let mut model = one_backend(settings(1));
    learned(&mut model);
    submit(&mut model, 7, 5, 0);
    let turn = model.queue.schedule(model.now);
    model.queue.began(turn.hand_over[0].prompt, model.now);
    model
}

fn told(model: &Model, it: &Forecast, prompt: PromptKey) -> (usize, Option<u64>) {
    let it = it.get(prompt).unwrap();
    (it.place, it.starts.map(|at| (at - model.now).as_secs_f64().round() as u64))
}

#[test]
fn those_who_wait_start_one_after_the_other_and_in_turns() {
    let mut model = busy();
    let [first, second, third] = [0, 1, 2].map(|number| submit(&mut model, 0, 5, number));
    let of_another = submit(&mut model, 2, 5, 0);
    let it = forecast(&model);
    // The speed of that backend is 2, which takes 7 s for it.
    let starts = [first, of_another, second, third].map(|prompt| told(&model, &it, prompt));
    assert_eq!(starts, [(1, Some(7)), (2, Some(14)), (3, Some(21)), (4, Some(28))]);
    let leaves = it.leaves().unwrap() - model.now;
    assert_eq!(leaves.as_secs_f64().round() as u64, 4, "three seconds before");
    assert_eq!(it.leaves_of(SharerKey(0)), it.leaves());
}

#[test]
fn no_time_is_told_while_nothing_was_learned_and_none_of_what_can_run_nowhere() {
    let mut model = one_backend(settings(1));
    submit(&mut model, 7, 5, 0);
    let turn = model.queue.schedule(model.now);
    model.queue.began(turn.hand_over[0].prompt, model.now);
    let waits = submit(&mut model, 0, 5, 0);
    assert_eq!(told(&model, &forecast(&model), waits), (1, None), "nothing was learned");

    let mut model = busy();
    let (lacks, runs) = (submit(&mut model, 0, 0, 0), submit(&mut model, 2, 5, 0));
    model.go(Happens::Lack(0, 0, Lacks::Something));
    let it = forecast(&model);
    assert_eq!([lacks, runs].map(|it_| told(&model, &it, it_)), [(2, None), (1, Some(7))]);
    model.go(Happens::Serve(0, Serving::Down));
    let it = forecast(&model);
    assert!([lacks, runs].iter().all(|prompt| told(&model, &it, *prompt).1.is_none()));
    assert_eq!((it.leaves(), it.order().len()), (None, 2), "each has a place");
}

#[test]
fn a_backend_that_hangs_is_waited_for_longer_and_longer() {
    let mut model = busy();
    let waits = submit(&mut model, 0, 5, 0);
    model.now += Duration::from_secs(700);
    let (place, start) = told(&model, &forecast(&model), waits);
    assert!(place == 1 && (600..800).contains(&start.unwrap()), "{start:?}");
}

#[test]
fn ten_thousand_are_forecast_with_bounded_work_and_those_behind_by_the_pace_before() {
    let mut model = busy();
    for nth in 0..10_000_u32 {
        let shape = model.queue.shape(shape((nth % 6) as u8));
        let prompt = PromptKey(100_000 + u64::from(nth));
        let sharer = SharerKey(nth % 50);
        let (client, member) = (ClientKey(1_000 + nth % 400), MemberKey(nth % 400));
        let (class, number, last, weight) = (Class::Normal, f64::from(nth), None, 1.0);
        let it = Submission { prompt, client, sharer, member, weight, shape, class, number, last };
        model.queue.restored(it, model.now);
    }
    let mut play = Play::new(model.queue.snapshot(), model.now);
    let mut pieces = 0;
    while play.goes_on(1_000) == Goes::On {
        pieces += 1;
    }
    let it = play.into_forecast();
    assert!(10 < pieces && it.steps() <= STEPS_MAX + 1_000, "{pieces} {}", it.steps());
    assert_eq!(it.order().len(), 10_000);
    let all: Vec<_> = it.order().iter().map(|prompt| it.get(*prompt).unwrap()).collect();
    let places = all.iter().map(|it| it.place);
    assert!(places.eq(1..=10_000));
    let leaves: Vec<Duration> = all.iter().map(|it| it.leaves.unwrap()).collect();
    assert!(leaves.is_sorted(), "later places leave later");
    let pace = leaves[HAND_OVERS_MAX - 1] - model.now;
    let all = (leaves[9_999] - model.now).as_secs_f64();
    assert!((all - 5.0 * pace.as_secs_f64()).abs() < all / 100.0, "linear");
    // Each client's own order is kept.
    let order: BTreeMap<PromptKey, usize> =
        it.order().iter().enumerate().map(|(place, key)| (*key, place)).collect();
    for nth in 400..10_000_u64 {
        let (key, before) = (PromptKey(100_000 + nth), PromptKey(100_000 + nth - 400));
        assert!(order[&before] < order[&key], "{nth}");
    }
}

#[test]
fn a_newcomer_is_behind_its_own_or_takes_its_turn() {
    let mut model = busy();
    for number in 0..4 {
        submit(&mut model, 0, 5, number);
        submit(&mut model, 2, 5, number);
    }
    let it = forecast(&model);
    let last = it.get(*it.order().last().unwrap()).unwrap();
    let own = it.of_newcomer(SharerKey(0), 5);
    assert!(8 < own.place && last.starts < own.starts, "{own:?}");
    let new = it.of_newcomer(SharerKey(77), 1);
    assert_eq!(new.place, 3, "one of each is before it");
    assert_eq!(new.starts, it.get(it.order()[2]).unwrap().starts);
    let none = Forecast::default().of_newcomer(SharerKey(77), 1);
    assert_eq!((none.place, none.starts), (1, None));
}

#[test]
fn what_an_operator_moves_is_before_all_however_much_was_used_and_long_was_waited() {
    let mut model = busy();
    // Those of client 0 have had much; another's first has waited until it counts as urgent.
    model.queue.shares.charge(SharerKey(0), 10_000.0);
    let [poor, other] = [4, 6].map(|client| submit(&mut model, client, 5, 0));
    model.now += Duration::from_secs(3_000);
    let _decided = model.queue.schedule(model.now);
    let [own, moved] = [0, 1].map(|number| submit(&mut model, 0, 5, number));
    assert!(model.queue.to_front(moved, model.now));
    let it = forecast(&model);
    assert_eq!(it.order()[0], moved);
    assert!(model.queue.to_front(other, model.now));
    let it = forecast(&model);
    assert_eq!(BTreeSet::from([it.order()[0], it.order()[1]]), BTreeSet::from([moved, other]));
    assert!([poor, own].iter().all(|key| 3 <= it.get(*key).unwrap().place));
    assert!(!model.queue.to_front(PromptKey(9_999), model.now));
}

#[test]
fn behind_what_is_played_no_start_is_told_to_those_whose_backend_is_away() {
    let mut model = Model::new(settings(1));
    learned(&mut model);
    // Client 0 runs at one backend, which goes away.
    submit(&mut model, 0, 5, 0);
    let turn = model.queue.schedule(model.now);
    let at = turn.hand_over[0].backend;
    model.queue.began(turn.hand_over[0].prompt, model.now);
    let stuck = submit(&mut model, 0, 5, 1);
    model.queue.serves(at, Serving::Down, model.now);
    for nth in 0..3_000_u32 {
        let shape = model.queue.shape(shape(5));
        let (prompt, client) = (PromptKey(100_000 + u64::from(nth)), ClientKey(1_000 + nth % 40));
        let (sharer, member) = (SharerKey(9), MemberKey(9));
        let (class, number, last, weight) = (Class::Normal, f64::from(nth), None, 1.0);
        let it = Submission { prompt, client, sharer, member, weight, shape, class, number, last };
        model.queue.restored(it, model.now);
    }
    let it = forecast(&model);
    assert_eq!(it.get(stuck).unwrap().starts, None);
    let last = it.get(PromptKey(100_000 + 2_999)).unwrap();
    assert!(2_000 < last.place && last.starts.is_some(), "{last:?}");
}
