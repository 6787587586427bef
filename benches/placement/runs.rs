//! Which rule is run against which workload.

use std::thread;

use mooring::queue::settings::Settings;

use crate::figures::{Figures, mean};
use crate::ideal;
use crate::ours::{OnLost, Ours};
use crate::rules::{Binds, LeastConnections, LeastQueue, StickyCookie, Swarm};
use crate::workload::{Workload, many, team};
use crate::world::{Machine, Rule, World, eight};

pub(crate) const SEEDS: [u64; 4] = [1, 2, 3, 4];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Which {
    LeastConnections,
    StickyCookie,
    Swarm,
    LeastQueue,
    Today,
    /// The queue, with so much spread.
    Ours(usize),
}

impl Which {
    pub(crate) const ALL: [Self; 9] = [
        Self::LeastConnections,
        Self::StickyCookie,
        Self::Swarm,
        Self::LeastQueue,
        Self::Today,
        Self::Ours(1),
        Self::Ours(2),
        Self::Ours(4),
        Self::Ours(0),
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Self::LeastConnections => "nginx `least_conn`".to_owned(),
            Self::StickyCookie => "sticky cookie".to_owned(),
            Self::Swarm => "SwarmUI's rule".to_owned(),
            Self::LeastQueue => "least queue for each prompt, at once".to_owned(),
            Self::Today => "Mooring 0.1: least queue at once, and the binding".to_owned(),
            Self::Ours(0) => "**the queue, no limit**".to_owned(),
            Self::Ours(spread) => format!("**the queue, spread {spread}**"),
        }
    }

    pub(crate) fn rule(self, world: &World<'_>) -> Box<dyn Rule> {
        match self {
            Self::LeastConnections => Box::new(LeastConnections::default()),
            Self::StickyCookie => Box::new(StickyCookie::default()),
            Self::Swarm => Box::new(Swarm::default()),
            Self::LeastQueue => Box::new(LeastQueue::new(Binds::Never)),
            Self::Today => Box::new(LeastQueue::new(Binds::UntilDrained)),
            Self::Ours(spread) => {
                let settings = Settings { spread, ..Settings::default() };
                Box::new(Ours::new(world, settings, OnLost::Tell))
            }
        }
    }

    pub(crate) fn run(self, workload: &Workload, fleet: &[Machine]) -> Figures {
        let mut world = World::new(workload, fleet);
        let mut rule = self.rule(&world);
        world.run(&mut *rule);
        Figures::of(&world)
    }
}

/// A kind of arrivals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Who {
    Team,
    Many,
}

impl Who {
    pub(crate) fn workload(self, fleet: &[Machine], load: f64, seed: u64) -> Workload {
        let speed = fleet.iter().map(|it| it.speed).sum();
        match self {
            Self::Team => team(fleet.len(), speed, load, seed),
            Self::Many => many(speed, load, seed),
        }
    }
}

/// The means of four seeds.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) who: Who,
    pub(crate) load: f64,
    /// Prompts of all seeds.
    pub(crate) jobs: usize,
    pub(crate) ideal: f64,
    pub(crate) rows: Vec<(Which, Figures)>,
}

impl Column {
    pub(crate) fn run(who: Who, load: f64, rules: &[Which]) -> Self {
        let one = |seed: u64| {
            let fleet = eight();
            let workload = who.workload(&fleet, load, seed);
            let figures = rules.iter().map(|it| it.run(&workload, &fleet)).collect::<Vec<_>>();
            (workload.jobs.len(), ideal::mean(&workload, &fleet), figures)
        };
        let runs: Vec<(usize, f64, Vec<Figures>)> = thread::scope(|scope| {
            let threads = SEEDS.map(|seed| scope.spawn(move || one(seed)));
            threads.into_iter().map(|it| it.join().expect("no run panics")).collect()
        });
        let row = |(index, which): (usize, &Which)| {
            let figures: Vec<Figures> = runs.iter().map(|run| run.2[index]).collect();
            (*which, Figures::mean_of(&figures))
        };
        Self {
            who,
            load,
            jobs: runs.iter().map(|run| run.0).sum(),
            ideal: mean(&runs.iter().map(|run| run.1).collect::<Vec<_>>()),
            rows: rules.iter().enumerate().map(row).collect(),
        }
    }

    pub(crate) fn of(&self, which: Which) -> Figures {
        let found = self.rows.iter().find(|(it, _)| *it == which);
        found.map(|(_, figures)| *figures).unwrap_or_default()
    }
}
