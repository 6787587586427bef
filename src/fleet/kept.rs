//! Connections that wait to be used again.

use std::time::{Duration, Instant};

use crate::lock::{Lock, rank};
use crate::net::now;
use crate::tasks::Tasks;

/// Kept connections of one kind to one backend.
#[derive(Debug)]
pub struct Kept<T> {
    tasks: Tasks,
    /// How long one is kept without use; below the backend's keep-alive (75 s in older aiohttp).
    idle: Duration,
    max: usize,
    /// The most recently used last.
    kept: Lock<Vec<(T, Instant)>, { rank::KEPT }>,
}

impl<T> Kept<T> {
    #[must_use]
    pub fn new(tasks: Tasks, idle: Duration, max: usize) -> Self {
        Self { tasks, idle, max, kept: Lock::default() }
    }

    /// The one that was used last, unless that is too long ago. Whether the backend has closed it
    /// is for the caller to see.
    pub fn take(&self) -> Option<T> {
        let now = now();
        let mut kept = self.kept.lock();
        let (connection, since) = kept.pop()?;
        if now.duration_since(since) < self.idle {
            return Some(connection);
        }
        // Those below it are older still.
        kept.clear();
        None
    }

    pub fn give_back(&self, connection: T) {
        let now = now();
        let mut kept = self.kept.lock();
        // Asked under the lock, so that `close` finds what was kept before the stop.
        if kept.len() < self.max && !self.tasks.is_stopping() {
            kept.push((connection, now));
        }
    }

    /// Drops those that were not used for long, so that they do not stay open for ever.
    pub fn sweep(&self, now: Instant) {
        let mut kept = self.kept.lock();
        kept.retain(|(_, since)| now.duration_since(*since) < self.idle);
    }

    /// Drops all of them: a drain that waits for a backend to close them would wait to its
    /// deadline.
    pub fn close(&self) {
        self.kept.lock().clear();
    }
}
