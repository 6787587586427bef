//! A token bucket: limits how often a client may do something that is costly for others.

use std::time::{Duration, Instant};

/// The capacity of a bucket, and how fast it refills.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub burst: u32,
    /// The time in which one token is refilled.
    pub every: Duration,
}

/// A bucket. It stores the moment at which it is full again, so nothing has to refill it.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// The number of tokens in it.
    #[must_use]
    pub fn left(&self, rate: Rate, now: Instant) -> u32 {
        let missing = self.full_at.saturating_duration_since(now).as_nanos();
        let missing = missing.div_ceil(rate.every.as_nanos().max(1));
        rate.burst.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// Takes `count` tokens, which must be in it.
    pub fn take(&mut self, count: u32, rate: Rate, now: Instant) {
        self.full_at = self.full_at.max(now) + rate.every * count;
    }

    /// Gives back one that was taken for nothing.
    pub fn give_back(&mut self, rate: Rate) {
        self.full_at = self.full_at.checked_sub(rate.every).unwrap_or(self.full_at);
    }

    /// How long it takes until it has one, if it has none.
    #[must_use]
    pub fn wait(&self, rate: Rate, now: Instant) -> Duration {
        let missing = self.full_at.saturating_duration_since(now);
        missing.saturating_sub(rate.every * rate.burst.saturating_sub(1))
    }

    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, every: Duration::from_secs(2) };

    #[test]
    fn tokens_come_back_one_by_one() {
        let t = crate::net::now();
        let after = |seconds| t + Duration::from_secs(seconds);
        let mut allowance = TokenBucket::new(t);
        assert!(allowance.is_full(t));
        assert_eq!(allowance.left(RATE, t), 3);
        allowance.take(2, RATE, t);
        assert_eq!(allowance.left(RATE, t), 1);
        allowance.take(1, RATE, t);
        let left = [0, 1, 2, 3, 4, 5, 6, 600].map(|seconds| allowance.left(RATE, after(seconds)));
        assert_eq!(left, [0, 0, 1, 1, 2, 2, 3, 3]);
        assert!(!allowance.is_full(after(5)) && allowance.is_full(after(6)));
    }

    #[test]
    fn one_that_was_taken_for_nothing_is_there_again() {
        let t = crate::net::now();
        let mut allowance = TokenBucket::new(t);
        assert_eq!(allowance.wait(RATE, t), Duration::ZERO);
        allowance.take(3, RATE, t);
        assert_eq!(allowance.wait(RATE, t), Duration::from_secs(2));
        assert_eq!(allowance.wait(RATE, t + Duration::from_millis(1500)), RATE.every / 4);
        allowance.give_back(RATE);
        assert_eq!((allowance.left(RATE, t), allowance.wait(RATE, t)), (1, Duration::ZERO));
    }
}
