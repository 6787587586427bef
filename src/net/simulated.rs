//! Replaces the wall clock and randomness in a simulation, on its own thread.
//!
//! A simulated network and tokio's clock make a run repeatable except for three things: the
//! wall-clock time, new ids, and the order of entries in hash tables. They are taken from here.
//! Other random bytes (masks, keys, cookies) stay random, because nothing that happens depends on
//! them.

use std::cell::Cell;
use std::hash::{BuildHasher, DefaultHasher, RandomState};

use uuid::Uuid;

thread_local! {
    static SIMULATION: Cell<Option<Simulation>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Simulation {
    unix_millis: fn() -> u64,
    ids: u64,
}

/// Runs `run` with a simulated wall clock (milliseconds since 1970), with ids that depend on `seed`
/// only, and with hash tables whose order is the same in each run. This applies to this thread,
/// until `run` returns or panics.
pub fn simulated<T>(seed: u64, unix_millis: fn() -> u64, run: impl FnOnce() -> T) -> T {
    let simulation = Simulation { unix_millis, ids: seed << 32 };
    let _before = Before(SIMULATION.replace(Some(simulation)));
    run()
}

/// Restores the previous state, also after a panic.
struct Before(Option<Simulation>);

impl Drop for Before {
    fn drop(&mut self) {
        SIMULATION.set(self.0);
    }
}

/// The simulated wall clock, if this thread has one.
pub(super) fn unix_millis() -> Option<u64> {
    SIMULATION.get().map(|simulation| (simulation.unix_millis)())
}

/// A new id that nobody can guess.
#[must_use]
pub fn new_id() -> Uuid {
    let Some(mut simulation) = SIMULATION.get() else { return Uuid::new_v4() };
    simulation.ids += 1;
    SIMULATION.set(Some(simulation));
    Uuid::from_u128(u128::from(simulation.ids))
}

/// How tables are hashed whose entries are iterated over. The keys are random, as in std, because
/// strangers choose the names. In a simulation they are fixed.
#[derive(Clone, Debug)]
pub enum Hashing {
    Random(RandomState),
    Fixed,
}

impl Default for Hashing {
    fn default() -> Self {
        match SIMULATION.get() {
            Some(_) => Self::Fixed,
            None => Self::Random(RandomState::new()),
        }
    }
}

impl BuildHasher for Hashing {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        match self {
            Self::Random(keys) => keys.build_hasher(),
            Self::Fixed => DefaultHasher::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulation_has_its_own_clock_ids_and_order() {
        let drawn = || (crate::net::unix_millis(), Hashing::default().hash_one("ada"), new_id());
        let simulate = |seed| simulated(seed, || 5, || (drawn(), drawn()));
        let (first, second) = simulate(7);
        assert_eq!((first.0, first.1), (second.0, second.1));
        assert_eq!((first.0, simulate(7)), (5, (first, second)));
        assert_ne!(first.2, second.2);
        let (real, other) = (drawn(), drawn());
        assert_ne!(real.0, 5);
        assert_ne!(real.1, other.1, "nobody can choose names that collide");
        assert_ne!(real.2, other.2);
    }
}
