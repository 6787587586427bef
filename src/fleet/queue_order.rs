//! How many prompts are before others at a backend, for pages that ask this again and again while
//! their jobs wait: one reading of the queue serves all who ask within a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::backend::Backend;
use crate::comfy::lists::order::QueueOrder;
use crate::lock::{Lock, rank};
use crate::net::now;

/// How old a reading may be that is told.
const FRESH: Duration = Duration::from_secs(2);

/// The last reading of one backend.
#[derive(Debug, Default)]
pub(super) struct LastOrder(Lock<Option<(Instant, Arc<QueueOrder>)>, { rank::QUEUE_ORDER }>);

impl Backend {
    /// In which order it has its prompts, this one among them if it is there. `None` if it does not
    /// say so within `limit`.
    pub async fn queue_order(&self, prompt: &str, limit: Duration) -> Option<Arc<QueueOrder>> {
        if let Some(order) = self.last_order(prompt) {
            return Some(order);
        }
        let began = now();
        let body = self.read_queue(limit).await.ok()?;
        let order = Arc::new(QueueOrder::read(&body).ok()?);
        *self.order.0.lock() = Some((began, Arc::clone(&order)));
        Some(order)
    }

    /// One that does not have the prompt may be from before it came.
    fn last_order(&self, prompt: &str) -> Option<Arc<QueueOrder>> {
        let last = self.order.0.lock();
        let (read, order) = last.as_ref()?;
        let is_good = now().duration_since(*read) < FRESH && order.before(prompt).is_some();
        is_good.then(|| Arc::clone(order))
    }
}
