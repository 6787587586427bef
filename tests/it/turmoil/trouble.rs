//! What goes wrong, and when: drawn from the seed before the run begins, and mended at its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooring::front::Front;
use mooring::routing::placement::AdminState;
use mooring::routing::state_change::{Holds, StateChange};
use mooring::session::control::{self, Force};
use mooring::sim::{Faults, SubmitFault};
use tokio::sync::mpsc::UnboundedSender;

use super::network::Weather;
use super::people::PLACES;
use super::{BACKENDS, CHAOS, GATEWAY};
use crate::simulation::random::Random;

/// How long a gateway that was killed is away at most.
const GATEWAY_AWAY: Duration = Duration::from_secs(4);

/// What a backend is told.
#[derive(Clone, Debug)]
pub(super) enum Order {
    Crash,
    Restart,
    Misbehave(Faults),
}

/// One thing that goes wrong, or is mended.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// All that is sent between them is lost from here on, and was lost if it is on its way.
    Cut(&'static str, &'static str),
    /// What the first sends to the second is lost.
    CutOneWay(&'static str, &'static str),
    Mend(&'static str, &'static str),
    /// What is sent between them waits, as it does while TCP sends it again and again.
    Hold(&'static str, &'static str),
    LetGo(&'static str, &'static str),
    Backend(usize, Order),
    KillGateway,
    StartGateway,
    Operate(usize, AdminState),
}

/// The way to the gateway that lives, for an operator.
pub(super) type Operator = Arc<Mutex<Option<UnboundedSender<(usize, AdminState)>>>>;

/// What acts on backends.
#[derive(Clone, Copy)]
pub(super) struct Hands<'a> {
    pub(super) orders: &'a [UnboundedSender<Order>],
    pub(super) operator: &'a Operator,
}

/// An operator says this of a backend, by force.
pub(super) fn operate(gateway: &Front, backend: usize, state: AdminState) {
    let Some(backend) = gateway.shared.fleet.iter().nth(backend) else { return };
    let holds = Holds::default();
    let change = StateChange { state, by: "ada".into(), why: None, at: 0, holds };
    control::set_state(&gateway.sessions, &backend, change, Force::Forced).unwrap();
}

impl Act {
    pub(super) fn apply(
        self,
        sim: &mut ::turmoil::Sim<'static>,
        weather: &Weather,
        hands: Hands<'_>,
        gateway: &Mutex<Option<Arc<Front>>>,
    ) {
        match self {
            Self::Cut(one, other) => {
                weather.cut(one, other);
                weather.cut(other, one);
                sim.partition(one, other);
            }
            Self::CutOneWay(from, to) => {
                weather.cut(from, to);
                sim.partition_oneway(from, to);
            }
            Self::Mend(one, other) => {
                weather.mend(one, other);
                weather.mend(other, one);
                sim.repair(one, other);
            }
            Self::Hold(one, other) => sim.hold(one, other),
            Self::LetGo(one, other) => sim.release(one, other),
            Self::Backend(index, order) => {
                hands.orders[index].send(order).expect("the backend's host is there");
            }
            Self::KillGateway => {
                gateway.lock().unwrap().take();
                sim.crash(GATEWAY);
            }
            Self::StartGateway => sim.bounce(GATEWAY),
            Self::Operate(index, state) => {
                // While the gateway is away, nobody hears it.
                if let Some(operator) = &*hands.operator.lock().unwrap() {
                    let _ = operator.send((index, state));
                }
            }
        }
    }
}

/// The acts of a run, the next one last.
#[derive(Debug)]
pub(super) struct Trouble(Vec<(Duration, Act)>);

impl Trouble {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut acts = Vec::new();
        // When each line, backend and the gateway is well again; one trouble at a time for each.
        let mut well: BTreeMap<String, Duration> = BTreeMap::new();
        let mut at = millis(random, 1_000, 3_000);
        while at < CHAOS {
            let lasts = match random.below(3) {
                0 => millis(random, 20, 500),
                1 => millis(random, 500, 4_000),
                _ => millis(random, 4_000, 12_000),
            };
            let until = (at + lasts).min(CHAOS);
            let (name, begin, end) = draw(random);
            let until = if name == GATEWAY { until.min(at + GATEWAY_AWAY) } else { until };
            if well.get(&name).is_none_or(|well| *well < at) {
                well.insert(name, until);
                acts.push((at, begin));
                acts.push((until, end));
            }
            at += millis(random, 100, 2_500);
        }
        // Stable, so that what is mended and what breaks at one time keep their order.
        acts.sort_by_key(|(at, _)| *at);
        acts.reverse();
        Self(acts)
    }

    /// Operators drain backends and turn them off for a while.
    pub(super) fn with_operators(&mut self, random: &mut Random) {
        for _ in 0..random.below(4) {
            let index = random.below(BACKENDS.len());
            let state = random.pick(&[AdminState::Draining, AdminState::Draining, AdminState::Off]);
            let at = millis(random, 1_000, 13_000);
            let until = (at + millis(random, 200, 6_000)).min(CHAOS);
            self.0.push((at, Act::Operate(index, state)));
            self.0.push((until, Act::Operate(index, AdminState::Ready)));
        }
        // One who was not heard says it again.
        for (index, after) in (0..BACKENDS.len()).flat_map(|it| [(it, 2), (it, 6)]) {
            let at = CHAOS + Duration::from_secs(after);
            self.0.push((at, Act::Operate(index, AdminState::Ready)));
        }
        self.0.sort_by_key(|(at, _)| *at);
        self.0.reverse();
    }

    /// The next act, if its time has come.
    pub(super) fn due(&mut self, now: Duration) -> Option<Act> {
        self.0.pop_if(|(at, _)| *at <= now).map(|(_, act)| act)
    }
}

fn millis(random: &mut Random, from: usize, to: usize) -> Duration {
    Duration::from_millis((from + random.below(to - from)) as u64)
}

/// A trouble: what it is about, how it begins, and how it ends.
fn draw(random: &mut Random) -> (String, Act, Act) {
    let index = random.below(BACKENDS.len());
    let backend = BACKENDS[index];
    let line = |other: &str| format!("line to {other}");
    match random.below(20) {
        0..=2 => (line(backend), Act::Cut(GATEWAY, backend), Act::Mend(GATEWAY, backend)),
        3 => (line(backend), Act::CutOneWay(GATEWAY, backend), Act::Mend(GATEWAY, backend)),
        4 => (line(backend), Act::CutOneWay(backend, GATEWAY), Act::Mend(GATEWAY, backend)),
        5..=7 => (line(backend), Act::Hold(GATEWAY, backend), Act::LetGo(GATEWAY, backend)),
        8..=11 => (
            backend.to_owned(),
            Act::Backend(index, Order::Crash),
            Act::Backend(index, Order::Restart),
        ),
        12..=14 => (
            format!("manners of {backend}"),
            Act::Backend(index, Order::Misbehave(misbehaviour(random))),
            Act::Backend(index, Order::Misbehave(Faults::default())),
        ),
        15 | 16 => {
            let place = random.pick(&PLACES);
            let (begin, end) = if random.one_in(2) {
                (Act::Cut(GATEWAY, place), Act::Mend(GATEWAY, place))
            } else {
                (Act::Hold(GATEWAY, place), Act::LetGo(GATEWAY, place))
            };
            (line(place), begin, end)
        }
        _ => (GATEWAY.to_owned(), Act::KillGateway, Act::StartGateway),
    }
}

fn misbehaviour(random: &mut Random) -> Faults {
    let submit = random.pick(&[
        SubmitFault::ResetBeforeEnqueue,
        SubmitFault::ResetAfterEnqueue,
        SubmitFault::CutAnswer,
        SubmitFault::Error500Enqueued,
        SubmitFault::Error500NotEnqueued,
        SubmitFault::BadGateway,
    ]);
    match random.below(5) {
        0..=2 => {
            let submit_count = u32::try_from(1 + random.below(3)).unwrap_or(1);
            Faults { submit, submit_count, ..Faults::default() }
        }
        3 => Faults { history_delay_ms: random.pick(&[50, 400]), ..Faults::default() },
        _ => Faults { refuse_sockets: true, ..Faults::default() },
    }
}
