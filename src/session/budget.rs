//! Counts the bytes in the event logs and the socket queues of all clients, and limits them. Pure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes that event logs may hold, each and all together. Cheap to clone.
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

    /// Changes the limits, for all clones. The next trim removes the excess.
    pub fn limit(&self, one: usize, all: usize) {
        self.one.store(one, Ordering::Relaxed);
        self.all.store(all, Ordering::Relaxed);
    }

    /// The bytes that one log may hold.
    #[must_use]
    pub fn one(&self) -> usize {
        self.one.load(Ordering::Relaxed)
    }

    /// The share of an empty log.
    #[must_use]
    pub fn share(&self) -> Weight {
        Weight { bytes: 0, used: Arc::clone(&self.used) }
    }

    /// The bytes in all logs.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The bytes to remove. Beyond the limit this is an eighth of the limit more, so that not every
    /// event causes a trim.
    #[must_use]
    pub fn excess(&self) -> usize {
        let (used, all) = (self.used(), self.all.load(Ordering::Relaxed));
        if used <= all { 0 } else { used - (all - all / 8) }
    }
}

/// The bytes that may wait for all browser sockets together. Cheap to clone.
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

    /// Changes the limit, for all clones.
    pub fn limit(&self, all: usize) {
        self.all.store(all, Ordering::Relaxed);
    }

    /// The share of an empty queue.
    #[must_use]
    pub fn share(&self) -> Weight {
        Weight { bytes: 0, used: Arc::clone(&self.used) }
    }

    /// The bytes that wait in all queues.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// True if the limit is exceeded.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.all.load(Ordering::Relaxed) < self.used()
    }
}

/// The bytes of one log or queue, counted in the total.
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
