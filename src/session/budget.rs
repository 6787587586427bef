//! How many bytes the event logs and the socket queues of all clients hold, and how many they may
//! hold. Pure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes event logs may hold, each and all together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogBudget {
    one: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
    used: Arc<AtomicUsize>,
}

impl LogBudget {
    #[must_use]
    pub fn new(one: usize, all: usize) -> Self {
        let limit = |bytes| Arc::new(AtomicUsize::new(bytes));
        Self { one: limit(one), all: limit(all), used: Arc::default() }
    }

    /// Other limits hold from now on, for all clones. What is too much goes at the next trim.
    pub fn limit(&self, one: usize, all: usize) {
        self.one.store(one, Ordering::Relaxed);
        self.all.store(all, Ordering::Relaxed);
    }

    /// Bytes that one log may hold.
    #[must_use]
    pub fn one(&self) -> usize {
        self.one.load(Ordering::Relaxed)
    }

    /// The part of a log that holds nothing yet.
    #[must_use]
    pub fn share(&self) -> Weight {
        Weight { bytes: 0, used: Arc::clone(&self.used) }
    }

    /// Bytes that all logs hold.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that must go. Past the limit it is an eighth of it more, so that not every event
    /// asks anew.
    #[must_use]
    pub fn excess(&self) -> usize {
        let (used, all) = (self.used(), self.all.load(Ordering::Relaxed));
        if used <= all { 0 } else { used - (all - all / 8) }
    }
}

/// How many bytes may wait for all browser sockets together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QueueBudget {
    all: Arc<AtomicUsize>,
    used: Arc<AtomicUsize>,
}

impl QueueBudget {
    #[must_use]
    pub fn new(all: usize) -> Self {
        Self { all: Arc::new(AtomicUsize::new(all)), used: Arc::default() }
    }

    /// Another limit holds from now on, for all clones.
    pub fn limit(&self, all: usize) {
        self.all.store(all, Ordering::Relaxed);
    }

    /// The part of a queue in which nothing waits yet.
    #[must_use]
    pub fn share(&self) -> Weight {
        Weight { bytes: 0, used: Arc::clone(&self.used) }
    }

    /// Bytes that wait in all queues.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// True if more waits than may.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.all.load(Ordering::Relaxed) < self.used()
    }
}

/// The bytes of one log, or of one queue, counted among those of all.
#[derive(Debug)]
pub struct Weight {
    bytes: usize,
    used: Arc<AtomicUsize>,
}

impl Weight {
    pub fn set(&mut self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.set(0);
    }
}
