//! A token bucket: how often somebody may do something that is costly for others.

use std::time::{Duration, Instant};

/// How much a bucket holds, and how fast it fills.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub burst: u32,
    /// In which time one token comes back.
    pub every: Duration,
}

/// A bucket. It counts the moment at which it is full again, so that nothing has to fill it.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    full_at: Instant,
}

impl TokenBucket {
    /// A full one.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// How many tokens it has.
    #[must_use]
    pub fn left(&self, rate: Rate, now: Instant) -> u32 {
        let missing = self.full_at.saturating_duration_since(now).as_nanos();
        let missing = missing.div_ceil(rate.every.as_nanos().max(1));
        rate.burst.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// Takes so many tokens, which it has.
    pub fn take(&mut self, count: u32, rate: Rate, now: Instant) {
        self.full_at = self.full_at.max(now) + rate.every * count;
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
}
