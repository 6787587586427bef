//! Idle connections, kept to be used again.

use std::time::{Duration, Instant};

use crate::lock::{Lock, rank};
use crate::net::now;
use crate::tasks::Tasks;

/// Kept connections of one kind to one backend.
#[derive(Debug)]
pub struct IdlePool<T> {
    tasks: Tasks,
    shelf: Lock<Shelf<T>, { rank::IDLE }>,
}

#[derive(Debug)]
struct Shelf<T> {
    /// How long one is kept without use; below the backend's keep-alive (75 s in older aiohttp).
    idle: Duration,
    max: usize,
    /// The most recently used last.
    kept: Vec<(T, Instant)>,
}

impl<T> IdlePool<T> {
    #[must_use]
    pub fn new(tasks: Tasks, idle: Duration, max: usize) -> Self {
        Self { tasks, shelf: Lock::new(Shelf { idle, max, kept: Vec::new() }) }
    }

    /// The one that was used last, unless that is too long ago. Whether the backend has closed it
    /// is for the caller to see.
    pub fn take(&self) -> Option<T> {
        let now = now();
        let mut shelf = self.shelf.lock();
        let (connection, since) = shelf.kept.pop()?;
        if now.duration_since(since) < shelf.idle {
            return Some(connection);
        }
        // Those below it are older still.
        shelf.kept.clear();
        None
    }

    pub fn give_back(&self, connection: T) {
        let now = now();
        let mut shelf = self.shelf.lock();
        // Asked under the lock, so that `close` finds what was kept before the stop.
        if shelf.kept.len() < shelf.max && !self.tasks.is_stopping() {
            shelf.kept.push((connection, now));
        }
    }

    /// Drops those that were not used for long, so that they do not stay open for ever.
    pub fn sweep(&self, now: Instant) {
        let mut shelf = self.shelf.lock();
        let idle = shelf.idle;
        shelf.kept.retain(|(_, since)| now.duration_since(*since) < idle);
    }

    /// Drops all of them: a drain that waits for a backend to close them would wait to its
    /// deadline.
    pub fn close(&self) {
        self.shelf.lock().kept.clear();
    }

    /// Other limits hold from now on; what is too much goes, the longest unused first.
    pub fn limit(&self, idle: Duration, max: usize) {
        let mut shelf = self.shelf.lock();
        (shelf.idle, shelf.max) = (idle, max);
        let too_many = shelf.kept.len().saturating_sub(max);
        shelf.kept.drain(..too_many);
    }
}
