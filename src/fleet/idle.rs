//! Pools of idle connections, for reuse.

use std::time::{Duration, Instant};

use crate::lock::{Lock, rank};
use crate::net::now;
use crate::tasks::Tasks;

/// Idle connections of one kind to one backend.
#[derive(Debug)]
pub struct IdlePool<T> {
    tasks: Tasks,
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

impl<T> IdlePool<T> {
    #[must_use]
    pub fn new(tasks: Tasks, idle: Duration, max: usize) -> Self {
        Self { tasks, shelf: Lock::new(Shelf { idle, max, kept: Vec::new() }) }
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

    pub fn give_back(&self, connection: T) {
        let now = now();
        let mut shelf = self.shelf.lock();
        // Checked under the lock, so that `close` finds what was kept before the stop.
        if shelf.kept.len() < shelf.max && !self.tasks.is_stopping() {
            shelf.kept.push((connection, now));
        }
    }

    /// Drops those that were idle too long, so that they do not stay open forever.
    pub fn sweep(&self, now: Instant) {
        let mut shelf = self.shelf.lock();
        let idle = shelf.idle;
        shelf.kept.retain(|(_, since)| now.duration_since(*since) < idle);
    }

    /// Drops all of them: otherwise a drain would wait until its deadline for the backend to close
    /// them.
    pub fn close(&self) {
        self.shelf.lock().kept.clear();
    }

    /// Changes the limits; the excess is dropped, the longest idle first.
    pub fn limit(&self, idle: Duration, max: usize) {
        let mut shelf = self.shelf.lock();
        (shelf.idle, shelf.max) = (idle, max);
        let too_many = shelf.kept.len().saturating_sub(max);
        shelf.kept.drain(..too_many);
    }
}
