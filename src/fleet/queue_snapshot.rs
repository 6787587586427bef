//! Reads the queue of a backend once for all callers that ask at the same time.
//!
//! A page asks for its queue at every `status`, and a queue of a thousand graphs has half a
//! megabyte. So only one reading is in flight at a time, and callers that ask meanwhile share the
//! next one. Each reading began after all its callers had asked: it contains what a client has just
//! submitted or deleted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

use super::api::ApiError;
use super::backend::Backend;
use crate::comfy::scan;
use crate::lock::{Guard, Lock, rank};

/// One reading and its result.
type Snapshot = OnceCell<Result<Bytes, Arc<ApiError>>>;

/// The readings of one backend.
#[derive(Debug)]
pub struct QueueSnapshots {
    /// The reading that has not begun: new callers share it.
    next: Lock<Arc<Snapshot>, { rank::QUEUE_SNAPSHOT }>,
    in_flight: Semaphore,
}

/// Why there is no queue.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Ask(#[from] Arc<ApiError>),
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
}

impl Default for QueueSnapshots {
    fn default() -> Self {
        Self { next: Lock::default(), in_flight: Semaphore::new(1) }
    }
}

impl Backend {
    /// The queue after this call began: the answer of `GET /queue`, as JSON without the `NaN` that
    /// Python writes. Cancel safe: other callers continue the reading.
    ///
    /// # Errors
    /// No complete answer came within `limit`.
    pub async fn read_queue(&self, limit: Duration) -> Result<Bytes, SnapshotError> {
        let reading = Arc::clone(&self.queue.next());
        let read = reading.get_or_init(|| self.begin(&reading, limit));
        match timeout(limit, read).await {
            Ok(read) => Ok(read.clone()?),
            Err(_elapsed) => Err(SnapshotError::Late(limit)),
        }
    }

    async fn begin(
        &self,
        reading: &Arc<Snapshot>,
        limit: Duration,
    ) -> Result<Bytes, Arc<ApiError>> {
        // The semaphore is never closed.
        let _turn = self.queue.in_flight.acquire().await;
        {
            let mut next = self.queue.next();
            if Arc::ptr_eq(&next, reading) {
                *next = Arc::default();
            }
        }
        let body = self.get_ok("/queue", limit).await?;
        let is_odd = memchr::memmem::find(&body, b"NaN").is_some()
            || memchr::memmem::find(&body, b"Infinity").is_some();
        Ok(if is_odd { scan::without_nan(&body).into() } else { body })
    }
}

impl QueueSnapshots {
    fn next(&self) -> Guard<'_, Arc<Snapshot>, { rank::QUEUE_SNAPSHOT }> {
        self.next.lock()
    }
}
