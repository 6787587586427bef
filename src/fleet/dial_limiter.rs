//! Limits how fast links to one backend are dialled again: at most fifty a second.
//!
//! When a backend comes back after an outage, the links of all its clients want to be dialled at
//! that moment, but its event loop has one thread. When it goes down, the links of its idle clients
//! want to be dialled to the others. So they take turns, with a little jitter. The first dial of a
//! link that a page or a prompt waits for does not wait; the others wait a little longer instead.

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::lock::{Lock, rank};
use crate::net::{now, sleep};

/// The least time between two dials.
const APART: Duration = Duration::from_millis(20);

/// The most jitter that is added, so that several gateways do not dial in step.
const JITTER_MS: u64 = 5;

/// The longest delay that first dials, however many, cause for another dial.
const PUT_OFF_MAX: Duration = Duration::from_secs(1);

/// How urgent a dial is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Haste {
    /// A new link that somebody waits for.
    First,
    /// A link that was open, or that failed before; or one of many that are made together, for no
    /// client in particular.
    Again,
}

/// The turns of one backend.
#[derive(Debug)]
pub struct DialLimiter {
    turn: Semaphore,
    /// No redial happens before this moment.
    next: Lock<Option<Instant>, { rank::DIAL_LIMITER }>,
}

impl Default for DialLimiter {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), next: Lock::new(None) }
    }
}

impl DialLimiter {
    /// Waits for its turn to dial. `whose` varies the pauses. Cancel safe: a caller that leaves the
    /// queue takes no turn.
    pub async fn turn(&self, haste: Haste, whose: impl Hash) {
        match haste {
            Haste::First => self.put_off(whose),
            Haste::Again => {
                // A semaphore that is never closed always gives a permit.
                let _turn = self.turn.acquire().await.ok();
                let next = *self.next.lock();
                if let Some(left) = next.and_then(|next| next.checked_duration_since(now())) {
                    sleep(left).await;
                }
                self.put_off(whose);
            }
        }
    }

    /// A dial happens: the next one is delayed a little.
    fn put_off(&self, whose: impl Hash) {
        let now = now();
        let mut next = self.next.lock();
        let after = next.unwrap_or(now).max(now) + APART + jitter(whose);
        *next = Some(after.min(now + PUT_OFF_MAX));
    }
}

fn jitter(whose: impl Hash) -> Duration {
    let mut hasher = DefaultHasher::new();
    whose.hash(&mut hasher);
    Duration::from_millis(hasher.finish() % (JITTER_MS + 1))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::tasks::Tasks;

    type Turns = Arc<Mutex<Vec<(Haste, Duration)>>>;

    fn queue(
        tasks: &Tasks,
        dial_limiter: &Arc<DialLimiter>,
        turns: &Turns,
        haste: Haste,
        whose: u64,
    ) {
        let (dial_limiter, turns, start) = (Arc::clone(dial_limiter), Arc::clone(turns), now());
        tasks.spawn(async move {
            dial_limiter.turn(haste, whose).await;
            turns.lock().unwrap().push((haste, now().duration_since(start)));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_is_spread_and_a_first_dial_waits_for_nobody() {
        let (tasks, dial_limiter, turns) = (Tasks::default(), Arc::default(), Turns::default());
        for whose in 0..200 {
            queue(&tasks, &dial_limiter, &turns, Haste::Again, whose);
        }
        sleep(Duration::from_millis(1)).await;
        queue(&tasks, &dial_limiter, &turns, Haste::First, 200);
        assert_eq!(tasks.drain(Duration::from_secs(60)).await, 0);
        let turns = std::mem::take(&mut *turns.lock().unwrap());
        let first = turns.iter().find(|(haste, _)| *haste == Haste::First);
        assert!(first.is_some_and(|(_, waited)| waited.is_zero()), "{first:?}");
        let again: Vec<_> = turns.iter().filter(|(haste, _)| *haste == Haste::Again).collect();
        assert_eq!(again.len(), 200);
        for (number, (_, at)) in again.iter().enumerate() {
            let before = again[..number].iter().filter(|(_, it)| *at - *it < SECOND).count();
            assert!(before <= 50, "{before} within a second before {at:?}");
        }
        let last = again.last().map(|(_, at)| *at);
        assert!(last < Some(Duration::from_secs(6)), "no slower than it must be: {last:?}");
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_first_dials_holds_the_others_up_but_does_not_stop_them() {
        let (dial_limiter, start) = (DialLimiter::default(), now());
        for whose in 0..1_000 {
            dial_limiter.turn(Haste::First, whose).await;
        }
        assert_eq!(now(), start);
        dial_limiter.turn(Haste::Again, 1).await;
        assert!(now().duration_since(start) <= PUT_OFF_MAX + Duration::from_millis(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_dial_does_not_wait_and_who_leaves_takes_nobodys_turn() {
        let dial_limiter = DialLimiter::default();
        let start = now();
        dial_limiter.turn(Haste::Again, 1).await;
        assert_eq!(now(), start);
        let left =
            tokio::time::timeout(Duration::from_millis(1), dial_limiter.turn(Haste::Again, 2))
                .await;
        assert!(left.is_err());
        dial_limiter.turn(Haste::Again, 3).await;
        assert!(now().duration_since(start) <= APART + Duration::from_millis(JITTER_MS + 1));
    }
}
