//! How much memory collected bodies may take, over all requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many bytes of collected bodies may be held at once, over all requests.
#[derive(Debug)]
pub struct BodyBudget {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    bytes: AtomicU64,
    most: AtomicU64,
}

/// A part of the budget. Dropping it gives the part back.
#[derive(Debug)]
pub struct BodyShare {
    held: Arc<Held>,
    bytes: u64,
}

impl BodyBudget {
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self { held: Arc::new(Held { bytes: AtomicU64::new(0), most: AtomicU64::new(bytes) }) }
    }

    /// Changes the limit for later calls. Shares that are held stay valid.
    pub fn limit(&self, bytes: u64) {
        self.held.most.store(bytes, Ordering::Relaxed);
    }

    /// A share that holds no bytes yet.
    #[must_use]
    pub fn share(&self) -> BodyShare {
        BodyShare { held: Arc::clone(&self.held), bytes: 0 }
    }
}

impl BodyShare {
    /// Grows the share to `bytes`, if the budget has that much left. Returns whether it did.
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes) else { return true };
        let most = self.held.most.load(Ordering::Relaxed);
        let with_more = |held: u64| held.checked_add(more).filter(|sum| *sum <= most);
        let taken = self.held.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_more);
        self.bytes += if taken.is_ok() { more } else { 0 };
        taken.is_ok()
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
