//! How much memory collected bodies may take, over all requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes of collected bodies may be held at once, over all requests.
#[derive(Debug)]
pub struct BodyBudget {
    free: Arc<AtomicU64>,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct BodyShare {
    free: Arc<AtomicU64>,
    bytes: u64,
}

impl BodyBudget {
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self { free: Arc::new(AtomicU64::new(bytes)) }
    }

    /// A share of nothing yet.
    #[must_use]
    pub fn share(&self) -> BodyShare {
        BodyShare { free: Arc::clone(&self.free), bytes: 0 }
    }
}

impl BodyShare {
    /// Takes so much more, if it is free.
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes) else { return true };
        let taken = self
            .free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(more));
        self.bytes += if taken.is_ok() { more } else { 0 };
        taken.is_ok()
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        self.free.fetch_add(self.bytes, Ordering::Relaxed);
    }
}
