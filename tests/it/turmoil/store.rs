//! The store of a simulated gateway: a model of a database that several processes can reach.
//!
//! Calls are slow. Some are lost before they are done, some are done and their answer is lost, and
//! some batches are only written when their sender has long given up, or is dead. For a while the
//! store is away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooring::journal::Store as _;
use mooring::journal::record::{Batch, Saved};
use mooring::net::{Boxed, sleep, unix_millis};
use mooring::store::{Holder, Joined, Joining, LifeId, Store, StoreError};

use super::home::Survivor;
use super::network::Power;
use super::{CHAOS, EPOCH};
use crate::simulation::random::Random;

/// How long calls take, in turn.
const CALLS: [u64; 6] = [1, 2, 1, 30, 6, 120];

/// A batch that is late arrives so much later.
const LATE: u64 = 900;

#[derive(Clone, Debug)]
pub(super) struct Model {
    state: Arc<Mutex<State>>,
    power: Arc<Power>,
}

#[derive(Debug)]
struct State {
    random: Random,
    lives: BTreeMap<LifeId, Life>,
    records: Survivor,
    late: Vec<Late>,
    /// When it is away, in milliseconds since 1970.
    away: Vec<(u64, u64)>,
    calls: usize,
}

#[derive(Debug)]
struct Life {
    lease: Duration,
    renewals: u64,
    batch: u64,
}

/// A batch that is on its way.
#[derive(Debug)]
struct Late {
    at: u64,
    life: LifeId,
    number: u64,
    batch: Arc<Batch>,
}

/// What becomes of a call.
enum Fate {
    Done,
    /// It does not arrive.
    LostBefore,
    /// Its answer does not arrive.
    LostAfter,
}

impl Model {
    pub(super) fn new(seed: u64, power: &Arc<Power>) -> Self {
        let mut random = Random::new(seed ^ 0x5704e);
        let begin = millis(EPOCH);
        let times = random.below(4);
        let away = (0..times).map(|_| {
            let from = begin + random.below(usize::try_from(millis(CHAOS)).unwrap()) as u64;
            (from, from + random.pick(&[300, 2_000, 6_000]))
        });
        let away = away.collect();
        let (lives, late, records) = (BTreeMap::new(), Vec::new(), Survivor::on(power));
        let state = State { random, lives, records, late, away, calls: 0 };
        Self { state: Arc::new(Mutex::new(state)), power: Arc::clone(power) }
    }

    /// Does `act` at one moment, unless the call is lost.
    async fn call<T>(
        &self,
        act: impl FnOnce(&mut State) -> Result<T, StoreError>,
        late: Option<Late>,
    ) -> Result<T, StoreError> {
        let (before, after) = {
            let mut state = self.state.lock().unwrap();
            state.calls += 1;
            let calls = state.calls;
            (CALLS[calls % CALLS.len()], CALLS[(calls + 1) % CALLS.len()])
        };
        sleep(Duration::from_millis(before)).await;
        // The dead ask nothing.
        self.power.is_on().await;
        let done = {
            let mut state = self.state.lock().unwrap();
            state.arrives();
            if state.is_away() {
                return Err(StoreError::Away("the store is away".to_owned()));
            }
            match state.fate() {
                Fate::Done => Some(act(&mut state)),
                Fate::LostBefore => {
                    state.late.extend(late);
                    None
                }
                Fate::LostAfter => {
                    let _lost = act(&mut state);
                    None
                }
            }
        };
        sleep(Duration::from_millis(after)).await;
        done.unwrap_or_else(|| Err(StoreError::Unclear("the connection has ended".to_owned())))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}

impl State {
    fn is_away(&self) -> bool {
        let now = unix_millis();
        self.away.iter().any(|(from, to)| (*from..*to).contains(&now))
    }

    /// When things have gone wrong for long enough, none goes wrong any more.
    fn fate(&mut self) -> Fate {
        if millis(EPOCH + CHAOS) <= unix_millis() {
            return Fate::Done;
        }
        match self.random.below(30) {
            0 | 1 => Fate::LostBefore,
            2 | 3 => Fate::LostAfter,
            _ => Fate::Done,
        }
    }

    /// What was late has arrived.
    fn arrives(&mut self) {
        let now = unix_millis();
        for Late { at, life, number, batch } in std::mem::take(&mut self.late) {
            match at <= now {
                true => drop(self.write(&life, number, &batch)),
                false => self.late.push(Late { at, life, number, batch }),
            }
        }
    }

    /// The fence, and what it guards.
    fn write(&mut self, life: &LifeId, number: u64, batch: &Batch) -> Result<(), StoreError> {
        let Some(life) = self.lives.get_mut(life) else {
            return Err(StoreError::Over("buried".to_owned()));
        };
        if number <= life.batch {
            return Err(StoreError::Away("a later batch was written".to_owned()));
        }
        life.batch = number;
        self.records.write(batch);
        Ok(())
    }

    fn join(&mut self, me: &Joining) -> Joined {
        let is_silent = |id: &LifeId, life: &Life| {
            me.silent.as_ref().is_some_and(|(it, renewals)| it == id && *renewals == life.renewals)
        };
        self.lives.retain(|id, life| *id == me.life || !is_silent(id, life));
        let other = self.lives.iter().find(|(id, _)| **id != me.life);
        if let Some((id, life)) = other {
            return Joined::Held(Holder {
                life: Arc::clone(id),
                name: "before".to_owned(),
                process: None,
                renewals: life.renewals,
                lease: life.lease,
            });
        }
        let life = Life { lease: me.lease, renewals: 0, batch: 0 };
        self.lives.insert(Arc::clone(&me.life), life);
        Joined::Joined
    }
}

impl Store for Model {
    fn join<'a>(&'a self, me: &'a Joining) -> Boxed<'a, Result<Joined, StoreError>> {
        Box::pin(self.call(|state| Ok(state.join(me)), None))
    }

    fn load(&self) -> Boxed<'_, Result<Saved, StoreError>> {
        let load = |state: &mut State| Ok(state.records.load().expect("a model is not damaged"));
        Box::pin(self.call(load, None))
    }

    fn renew<'a>(&'a self, life: &'a LifeId, _: Duration) -> Boxed<'a, Result<(), StoreError>> {
        let renew = move |state: &mut State| match state.lives.get_mut(life) {
            Some(life) => {
                life.renewals += 1;
                Ok(())
            }
            None => Err(StoreError::Over("buried".to_owned())),
        };
        Box::pin(self.call(renew, None))
    }

    fn commit<'a>(
        &'a self,
        life: &'a LifeId,
        number: u64,
        batch: Arc<Batch>,
    ) -> Boxed<'a, Result<(), StoreError>> {
        let at = unix_millis() + LATE;
        let late = Late { at, life: Arc::clone(life), number, batch: Arc::clone(&batch) };
        let write = move |state: &mut State| state.write(life, number, &batch);
        Box::pin(self.call(write, Some(late)))
    }

    fn leave<'a>(&'a self, life: &'a LifeId) -> Boxed<'a, Result<(), StoreError>> {
        let leave = move |state: &mut State| {
            state.lives.remove(life);
            Ok(())
        };
        Box::pin(self.call(leave, None))
    }
}
