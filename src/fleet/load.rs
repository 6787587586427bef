//! How much work a backend has: what it says, plus what it cannot have counted yet (promise B4).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::lock::{Lock, rank};

/// How long an answered submission counts on top of the pushed queue length, if no `status` came
/// after its answer: the `status` may have come just before it.
const SETTLES: Duration = Duration::from_millis(500);

/// The load of one backend.
#[derive(Debug, Default)]
pub struct Load {
    /// Waiting and running, as the last `status` event said.
    queue_remaining: AtomicU32,
    /// Submissions decided for it and not answered.
    in_flight: AtomicU32,
    /// When submissions were answered that no `status` has counted for sure.
    settling: Lock<Vec<Instant>, { rank::SETTLING }>,
}

impl Load {
    /// A `status` event said how many prompts wait and run: whatever was answered is in it.
    pub fn counted(&self, queue_remaining: u32) {
        self.queue_remaining.store(queue_remaining, Ordering::Relaxed);
        self.settling.lock().clear();
    }

    /// A submission is decided for this backend.
    pub fn expect_one(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// The submission was taken by the backend.
    pub fn taken(&self, now: Instant) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.settling.lock().push(now);
    }

    /// The submission was refused, or never sent.
    pub fn not_taken(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// What the backend said last.
    #[must_use]
    pub fn queue_remaining(&self) -> u32 {
        self.queue_remaining.load(Ordering::Relaxed)
    }

    /// The load that a placement compares.
    #[must_use]
    pub fn total(&self, now: Instant) -> u32 {
        let mut settling = self.settling.lock();
        settling.retain(|at| now.duration_since(*at) < SETTLES);
        let uncounted = u32::try_from(settling.len()).unwrap_or(u32::MAX);
        drop(settling);
        self.queue_remaining()
            .saturating_add(self.in_flight.load(Ordering::Relaxed))
            .saturating_add(uncounted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_counts_until_a_status_has_counted_it() {
        let (t, load) = (crate::net::now(), Load::default());
        load.expect_one();
        assert_eq!(load.total(t), 1, "decided");
        load.taken(t);
        assert_eq!(load.total(t), 1, "answered, not yet seen counted");
        load.counted(1);
        assert_eq!(load.total(t), 1, "counted, and only once");
    }

    #[test]
    fn a_status_that_came_before_the_answer_is_believed_in_the_end() {
        let (t, load) = (crate::net::now(), Load::default());
        load.expect_one();
        load.counted(1);
        load.taken(t);
        assert_eq!(load.total(t), 2);
        assert_eq!(load.total(t + SETTLES), 1);
    }
}
