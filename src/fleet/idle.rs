//! Pools of idle connections, for reuse.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::lock::{Lock, rank};
use crate::net::now;
use crate::tasks::Tasks;

/// Idle connections of one kind to one backend.
#[derive(Debug)]
pub struct IdlePool<T> {
    tasks: Tasks,
    /// How often all were dropped. Changed under the lock of the shelf.
    closed: AtomicU64,
    shelf: Lock<Shelf<T>, { rank::IDLE }>,
}

#[derive(Debug)]
struct Shelf<T> {
    /// How long one is kept without use; shorter than the backend's keep-alive (75 s in older
    /// aiohttp).
    idle: Duration,
    max: usize,
    /// The most recently used last.
    kept: Vec<(T, Instant)>,
}

/// A time between two closings of a pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Epoch(u64);

impl<T> IdlePool<T> {
    #[must_use]
    pub fn new(tasks: Tasks, idle: Duration, max: usize) -> Self {
        let shelf = Lock::new(Shelf { idle, max, kept: Vec::new() });
        Self { tasks, closed: AtomicU64::new(0), shelf }
    }

    /// The time in which a connection is made or taken: read before that.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.closed.load(Ordering::Acquire))
    }

    /// The most recently used one, unless it was idle too long. The caller must check whether the
    /// backend has closed it.
    pub fn take(&self) -> Option<T> {
        let now = now();
        let mut shelf = self.shelf.lock();
        let (connection, since) = shelf.kept.pop()?;
        if now.duration_since(since) < shelf.idle {
            return Some(connection);
        }
        // Those below it are even older.
        shelf.kept.clear();
        None
    }

    /// Keeps a connection of this epoch; one that is older is dropped.
    pub fn give_back(&self, connection: T, of: Epoch) {
        let now = now();
        let mut shelf = self.shelf.lock();
        // Checked under the lock, so that `close` finds what was kept before it.
        let is_of_now = self.epoch() == of && !self.tasks.is_stopping();
        if shelf.kept.len() < shelf.max && is_of_now {
            shelf.kept.push((connection, now));
        }
    }

    /// Drops those that were idle too long, so that they do not stay open forever.
    pub fn sweep(&self, now: Instant) {
        let mut shelf = self.shelf.lock();
        let idle = shelf.idle;
        shelf.kept.retain(|(_, since)| now.duration_since(*since) < idle);
    }

    /// Drops all of them, and those that are in use when they are given back. Otherwise a drain
    /// would wait until its deadline for the backend to close them, and what is secured differently
    /// from now on would be said on connections from before.
    pub fn close(&self) {
        let mut shelf = self.shelf.lock();
        self.closed.fetch_add(1, Ordering::Release);
        shelf.kept.clear();
    }

    /// Changes the limits; the excess is dropped, the longest idle first.
    pub fn limit(&self, idle: Duration, max: usize) {
        let mut shelf = self.shelf.lock();
        (shelf.idle, shelf.max) = (idle, max);
        let too_many = shelf.kept.len().saturating_sub(max);
        shelf.kept.drain(..too_many);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_use_at_a_closing_is_not_kept() {
        let pool = IdlePool::new(Tasks::default(), Duration::from_secs(60), 4);
        let before = pool.epoch();
        pool.give_back("idle", before);
        pool.close();
        pool.give_back("in use", before);
        assert_eq!(pool.take(), None);
        pool.give_back("new", pool.epoch());
        assert_eq!(pool.take(), Some("new"));
    }
}
