//! How fast one backend is dialled for links: at most fifty times a second.
//!
//! When a backend comes back after an outage, the links of all its clients want to be dialled at
//! that moment, and its event loop has one thread. So they take turns, with a little jitter. Who
//! has never had a link, because a page opens or a prompt waits to be sent, goes before those
//! that dial again.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::lock::{Lock, rank};
use crate::net::{now, sleep};

/// The least time between two dials.
const APART: Duration = Duration::from_millis(20);

/// Up to so much is added to it, so that several gateways do not dial in step.
const JITTER_MS: u64 = 5;

/// Who wants to dial.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Haste {
    /// A link that was never open.
    First,
    /// One that was, or that failed before.
    Again,
}

/// The turns of one backend.
#[derive(Debug)]
pub struct Dials {
    /// Those that dial again wait here, so that only one of them is ever before a first.
    patient: Semaphore,
    turn: Semaphore,
    /// Before it nobody dials.
    next: Lock<Option<Instant>, { rank::DIALS }>,
}

impl Default for Dials {
    fn default() -> Self {
        Self { patient: Semaphore::new(1), turn: Semaphore::new(1), next: Lock::new(None) }
    }
}

impl Dials {
    /// Waits for its turn to dial. `whose` varies the pauses. Cancel safe: who leaves the queue
    /// takes nobody's turn.
    pub async fn turn(&self, haste: Haste, whose: impl Hash) {
        let _patient = match haste {
            Haste::First => None,
            // A semaphore that is never closed gives a permit always.
            Haste::Again => self.patient.acquire().await.ok(),
        };
        let _turn = self.turn.acquire().await.ok();
        let next = *self.next.lock();
        if let Some(left) = next.and_then(|next| next.checked_duration_since(now())) {
            sleep(left).await;
        }
        *self.next.lock() = Some(now() + APART + jitter(whose));
    }
}

fn jitter(whose: impl Hash) -> Duration {
    let mut hasher = DefaultHasher::new();
    whose.hash(&mut hasher);
    Duration::from_millis(hasher.finish() % (JITTER_MS + 1))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tasks::Tasks;

    type Turns = Arc<Lock<Vec<(Haste, Duration)>, { rank::WATCHED }>>;

    fn queue(tasks: &Tasks, dials: &Arc<Dials>, turns: &Turns, haste: Haste, whose: u64) {
        let (dials, turns, start) = (Arc::clone(dials), Arc::clone(turns), now());
        tasks.spawn(async move {
            dials.turn(haste, whose).await;
            turns.lock().push((haste, now().duration_since(start)));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_is_spread_and_a_first_dial_goes_before_all_but_one() {
        let (tasks, dials, turns) = (Tasks::default(), Arc::default(), Turns::default());
        for whose in 0..200 {
            queue(&tasks, &dials, &turns, Haste::Again, whose);
        }
        sleep(Duration::from_millis(1)).await;
        queue(&tasks, &dials, &turns, Haste::First, 200);
        assert_eq!(tasks.drain(Duration::from_secs(60)).await, 0);
        let turns = std::mem::take(&mut *turns.lock());
        let first = turns.iter().position(|(haste, _)| *haste == Haste::First);
        assert!(first.is_some_and(|place| place <= 2), "{first:?}");
        assert_eq!(turns.len(), 201);
        for (number, (_, at)) in turns.iter().enumerate() {
            let before = turns[..number].iter().filter(|(_, it)| *at - *it < SECOND).count();
            assert!(before <= 50, "{before} within a second before {at:?}");
        }
        let last = turns.last().map(|(_, at)| *at);
        assert!(last < Some(Duration::from_secs(6)), "no slower than it must be: {last:?}");
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_lone_dial_does_not_wait_and_who_leaves_takes_nobodys_turn() {
        let dials = Dials::default();
        let start = now();
        dials.turn(Haste::Again, 1).await;
        assert_eq!(now(), start);
        let left =
            tokio::time::timeout(Duration::from_millis(1), dials.turn(Haste::Again, 2)).await;
        assert!(left.is_err());
        dials.turn(Haste::First, 3).await;
        assert!(now().duration_since(start) <= APART + Duration::from_millis(JITTER_MS + 1));
    }
}
