//! Small cases, each of which shows one thing.

use mooring::queue::shapes::ShapeFacts;

use crate::chance::Chance;
use crate::figures::quantile;
use crate::ours::{OnLost, Ours};
use crate::runs::Which;
use crate::workload::{Job, Kind, Workload, team};
use crate::world::{Event, Machine, Outcome, Rule, World, eight};

/// A figure, what it should be, and whether it is.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) today: String,
    pub(crate) ours: String,
    pub(crate) goal: String,
    pub(crate) is_met: bool,
}

pub(crate) fn all() -> Vec<Case> {
    let mut cases = batch_beside_singles();
    cases.extend(two_models_on_one());
    cases.extend(crashes());
    cases
}

fn outcomes(which: Which, workload: &Workload, fleet: &[Machine]) -> Vec<Outcome> {
    let mut world = World::new(workload, fleet);
    let mut rule = which.rule(&world);
    world.run(&mut *rule);
    world.outcomes
}

/// Adds a prompt of exactly so many seconds with that model.
fn add(workload: &mut Workload, at: f64, client: u32, work: f64, model: u32) {
    let facts = ShapeFacts {
        models: vec![mooring::queue::ids::ModelKey(model)],
        family: u64::from(model),
        classes: 0,
        size: 100,
    };
    let kind = Kind::Single;
    workload.jobs.push(Job { at, client, kind, facts, work, cached: 0.0, before: None });
}

fn took(workload: &Workload, outcomes: &[Outcome], client: u32) -> Vec<f64> {
    let both = workload.jobs.iter().zip(outcomes);
    both.filter(|(job, _)| job.client == client).map(|(job, it)| it.end - job.at).collect()
}

fn last(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// One user's hundred prompts of 7 s on four equal backends that have the model, beside five single
/// ones of others.
fn batch_beside_singles() -> Vec<Case> {
    let fleet = [Machine { speed: 1.0, vram: 20_000_000_000 }; 4];
    let mut workload = Workload::default();
    workload.model(6.9);
    // Before it, each has loaded the model.
    for _ in 0..4 {
        add(&mut workload, 0.0, 9, 7.0, 0);
    }
    for _ in 0..100 {
        add(&mut workload, 100.0, 0, 7.0, 0);
    }
    for other in 1..=5 {
        add(&mut workload, 100.0 + 25.0 * f64::from(other), other, 7.0, 0);
    }
    let ideal = (workload.work() - 28.0) / 4.0;
    let of = |which| {
        let outcomes = outcomes(which, &workload, &fleet);
        let others: Vec<f64> =
            (1..=5).flat_map(|other| took(&workload, &outcomes, other)).collect();
        (last(&took(&workload, &outcomes, 0)) / ideal, quantile(&others, 0.95))
    };
    let ((today, today_p95), (ours, ours_p95)) = (of(Which::Today), of(Which::Ours(0)));
    let (_, least) = of(Which::LeastQueue);
    let what = "100 × 7 s of one user on four equal GPUs, beside five single prompts of others";
    vec![
        Case {
            what: format!("{what}: last picture, in work / GPUs"),
            today: format!("{today:.2}"),
            ours: format!("{ours:.2}"),
            goal: "≤ 1.08".to_owned(),
            is_met: ours <= 1.08,
        },
        Case {
            what: format!("the same: p95 of the others, s (least queue: {least:.0})"),
            today: format!("{today_p95:.0}"),
            ours: format!("{ours_p95:.0}"),
            goal: "≤ 20".to_owned(),
            is_met: ours_p95 <= 20.0,
        },
    ]
}

/// A's hundred prompts with one model and B's three with another, on one backend that has memory
/// for one of them.
fn two_models_on_one() -> Vec<Case> {
    let fleet = [Machine { speed: 1.0, vram: 12_000_000_000 }];
    let mut alone = Workload::default();
    alone.model(6.9);
    alone.model(6.9);
    // Both models were used before, so they are in memory, and A's on the GPU.
    add(&mut alone, 0.0, 9, 7.0, 1);
    add(&mut alone, 50.0, 9, 7.0, 0);
    for _ in 0..100 {
        add(&mut alone, 100.0, 0, 7.0, 0);
    }
    let before = last(&took(&alone, &outcomes(Which::Ours(0), &alone, &fleet), 0));
    let mut both = alone;
    for _ in 0..3 {
        add(&mut both, 100.0, 1, 7.0, 1);
    }
    let of = |which| {
        let outcomes = outcomes(which, &both, &fleet);
        (last(&took(&both, &outcomes, 1)), last(&took(&both, &outcomes, 0)) / before)
    };
    let ((today, today_last), (ours, ours_last)) = (of(Which::Today), of(Which::Ours(0)));
    let what = "A's hundred with one model and B's three with another on one GPU";
    vec![
        Case {
            what: format!("{what}: the longest wait of B, s"),
            today: format!("{today:.0}"),
            ours: format!("{ours:.0}"),
            goal: "≤ 110".to_owned(),
            is_met: ours <= 110.0,
        },
        Case {
            what: "the same: A's last, in A's last alone".to_owned(),
            today: format!("{today_last:.2}"),
            ours: format!("{ours_last:.2}"),
            goal: "≤ 1.08".to_owned(),
            is_met: ours_last <= 1.08,
        },
    ]
}

/// Each backend crashes every six hours, and is back after a minute.
fn crashes() -> Vec<Case> {
    let fleet = eight();
    let speed = fleet.iter().map(|it| it.speed).sum();
    let workload = team(fleet.len(), speed, 0.6, 1);
    let until = workload.jobs.last().map_or(0.0, |job| job.at);
    let lost = |rule: &dyn Fn(&World<'_>) -> Box<dyn Rule>| {
        let mut world = World::new(&workload, &fleet);
        let mut chance = Chance::new(6);
        for at in 0..fleet.len() {
            let mut time = chance.exponential(6.0 * 3_600.0);
            while time < until {
                world.at(time, Event::Crash { at });
                time += 60.0 + chance.exponential(6.0 * 3_600.0);
            }
        }
        let mut rule = rule(&world);
        world.run(&mut *rule);
        let count = |is: fn(&Outcome) -> bool| world.outcomes.iter().filter(|it| is(it)).count();
        // Nothing may be left without an end.
        let forgotten = count(|it| it.end == 0.0);
        (count(|it| it.is_lost) + forgotten, count(|it| it.is_lost_unbegun) + forgotten)
    };
    let (today, today_unbegun) = lost(&|world| Which::Today.rule(world));
    let (tell, tell_unbegun) = lost(&|world| Which::Ours(2).rule(world));
    let (resubmit, _) = lost(&|world| {
        let settings = mooring::queue::settings::Settings::default();
        Box::new(Ours::new(world, settings, OnLost::Resubmit))
    });
    let jobs = workload.jobs.len();
    vec![
        Case {
            what: format!("crashes every 6 h of each backend, {jobs} prompts: lost unbegun"),
            today: today_unbegun.to_string(),
            ours: tell_unbegun.to_string(),
            goal: "0".to_owned(),
            is_met: tell_unbegun == 0,
        },
        Case {
            what: format!(
                "the same: lost; {tell} of those that ran, if that is told, and if they \
                           are submitted anew"
            ),
            today: today.to_string(),
            ours: resubmit.to_string(),
            goal: "0".to_owned(),
            is_met: resubmit == 0,
        },
    ]
}
