//! How many prompts a backend runs before each of its prompts.

use std::collections::HashMap;

use super::super::answers::{Junk, QueueItem, queue};

/// The prompts of one backend, by the number of those before each.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct QueueOrder(HashMap<Box<str>, u32>);

impl QueueOrder {
    /// Reads the answer of `GET /queue`. It lists what waits as it lies in a heap.
    ///
    /// # Errors
    /// The answer is not a queue.
    pub fn read(body: &[u8]) -> Result<Self, Junk> {
        let mut queue = queue(body)?;
        let place = |item: &QueueItem| item.number.unwrap_or(f64::INFINITY);
        queue.queue_pending.sort_by(|one, other| place(one).total_cmp(&place(other)));
        let running = queue.queue_running.len();
        let waiting = (running..).zip(queue.queue_pending);
        let all = queue.queue_running.into_iter().map(|item| (0, item)).chain(waiting);
        let place = |before: usize| u32::try_from(before).unwrap_or(u32::MAX);
        Ok(Self(all.map(|(before, item)| (item.id.into(), place(before))).collect()))
    }

    /// How many are before this one: what runs, and what waits and comes first.
    #[must_use]
    pub fn before(&self, prompt: &str) -> Option<u32> {
        self.0.get(prompt).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_and_what_has_a_lower_number_comes_first() {
        let order = QueueOrder::read(
            br#"{"queue_running": [[9, "runs", {}, {}, []]], "queue_pending": [
                [3, "third", {}, {}, []], [7, "last", {}, {}, []], [-4, "front", {}, {}, []]]}"#,
        )
        .unwrap();
        let before = ["runs", "front", "third", "last", "other"].map(|id| order.before(id));
        assert_eq!(before, [Some(0), Some(1), Some(2), Some(3), None]);
        assert_eq!(QueueOrder::read(b"<html>"), Err(Junk::Malformed));
    }
}
