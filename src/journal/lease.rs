//! The right to act, where the journal is in a store that other processes can reach too.
//!
//! A process holds it for a limited time and renews it. Whoever has lost it must not send prompts:
//! another process may already act on the same records.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::net::{now, unix_millis};

/// The lease of this process. All who need it share one.
#[derive(Debug)]
pub struct Lease {
    /// The time from which `until` is counted.
    base: Instant,
    /// Until when it holds, in milliseconds after `base`.
    until: AtomicU64,
    /// The same by the wall clock, which also counts while the machine is suspended.
    until_wall: AtomicU64,
    /// Why it is lost for ever.
    over: OnceLock<String>,
    is_over: CancellationToken,
}

impl Default for Lease {
    fn default() -> Self {
        let (until, until_wall) = (AtomicU64::new(0), AtomicU64::new(0));
        let (over, is_over) = (OnceLock::new(), CancellationToken::new());
        Self { base: now(), until, until_wall, over, is_over }
    }
}

/// What may be done when the lease could not be renewed in time, and nobody has said that it is
/// lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unrenewed {
    MayAct,
    MustNotAct,
}

impl Lease {
    /// It holds until `until`, by the clock of this process.
    pub fn holds_until(&self, until: Instant) {
        let millis = |from| {
            let left = until.saturating_duration_since(from).as_millis();
            u64::try_from(left).unwrap_or(u64::MAX)
        };
        self.until.store(millis(self.base), Ordering::SeqCst);
        let until_wall = unix_millis().saturating_add(millis(now()));
        self.until_wall.store(until_wall, Ordering::SeqCst);
    }

    /// How long it still holds.
    #[must_use]
    pub fn left(&self) -> Duration {
        let until = self.base + Duration::from_millis(self.until.load(Ordering::SeqCst));
        let until_wall = self.until_wall.load(Ordering::SeqCst);
        match self.is_over() || until_wall <= unix_millis() {
            true => Duration::ZERO,
            false => until.saturating_duration_since(now()),
        }
    }

    /// True if a prompt may be sent now.
    #[must_use]
    pub fn may_act(&self, unrenewed: Unrenewed) -> bool {
        !self.is_over() && (unrenewed == Unrenewed::MayAct || !self.left().is_zero())
    }

    /// It is lost for ever; the first reason counts.
    pub fn ends(&self, why: &str) {
        let _ = self.over.set(why.to_owned());
        self.is_over.cancel();
    }

    /// True if it is lost for ever.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.get().is_some()
    }

    /// Resolves when it is lost for ever; says why. Cancel safe.
    pub async fn ended(&self) -> String {
        self.is_over.cancelled().await;
        self.over.get().cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::net::sleep;

    #[tokio::test(start_paused = true)]
    async fn a_lease_holds_for_its_time_and_what_is_over_never_holds_again() {
        let lease = Lease::default();
        assert!(!lease.may_act(Unrenewed::MustNotAct), "it was never given");
        lease.holds_until(now() + Duration::from_secs(9));
        assert!(lease.may_act(Unrenewed::MustNotAct));
        sleep(Duration::from_secs(9)).await;
        assert!(!lease.may_act(Unrenewed::MustNotAct));
        assert!(lease.may_act(Unrenewed::MayAct), "nobody has said that it is lost");
        assert!(lease.ended().now_or_never().is_none());
        lease.ends("buried");
        lease.holds_until(now() + Duration::from_secs(9));
        for unrenewed in [Unrenewed::MayAct, Unrenewed::MustNotAct] {
            assert!(!lease.may_act(unrenewed));
        }
        assert_eq!((lease.ended().await.as_str(), lease.left()), ("buried", Duration::ZERO));
    }
}
