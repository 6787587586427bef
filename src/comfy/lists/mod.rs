//! Merges lists of several backends.
//!
//! - [`mod@queue`]: the caller's entries of the queues
//! - [`history`]: the caller's ended prompts
//! - [`order`]: how many come before each
//! - [`texts`]: names of models and files
//! - [`mod@waiting`]: what is shown of a submission that waits in the gateway
//! - [`Positions`]: what callers see of queue entries that they do not own

pub mod history;
pub mod order;
pub mod queue;
pub mod texts;
pub mod waiting;

use serde_json::{Value, json};

use super::answers::{Junk, QueueItem, queue};

/// What callers see of queue entries that they do not own (promise R5): ids and positions, but no
/// graphs and no client ids. A caller who waits for a prompt finds its id.
#[derive(Debug, Default)]
pub struct Positions {
    running: Vec<QueueItem>,
    pending: Vec<QueueItem>,
}

impl Positions {
    /// Adds the answer of one backend's `GET /queue`.
    ///
    /// # Errors
    /// The answer is not a queue.
    pub fn add(&mut self, body: &[u8]) -> Result<(), Junk> {
        let queue = queue(body)?;
        self.running.extend(queue.queue_running);
        self.pending.extend(queue.queue_pending);
        Ok(())
    }

    /// The ids of everything that was added.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.running.iter().chain(&self.pending).map(|item| item.id.as_str())
    }

    /// The shown entries, in the form of `GET /queue`.
    #[must_use]
    pub fn to_json(&self, is_shown: impl Fn(&str) -> bool) -> String {
        let shown = |items: &[QueueItem]| -> Vec<Value> {
            items.iter().filter(|item| is_shown(&item.id)).map(position).collect()
        };
        let (running, pending) = (shown(&self.running), shown(&self.pending));
        json!({ "queue_running": running, "queue_pending": pending }).to_string()
    }
}

fn position(item: &QueueItem) -> Value {
    json!([item.number, item.id, {}, {}, []])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_positions_are_shown_and_nothing_else() {
        let mut all = Positions::default();
        all.add(
            br#"{"queue_running": [[1, "a", {"1": {"x": "secret"}}, {"client_id": "c"}, []]],
            "queue_pending": []}"#,
        )
        .unwrap();
        let other = br#"{"queue_running": [],
            "queue_pending": [[7, "b", {}, {}, ["3"]], [8, "hidden", {}, {}, []]]}"#;
        all.add(other).unwrap();
        assert_eq!(all.add(b"<html>"), Err(Junk::Malformed));
        assert_eq!(all.ids().collect::<Vec<_>>(), ["a", "b", "hidden"]);
        let shown: Value = serde_json::from_str(&all.to_json(|id| id != "hidden")).unwrap();
        assert_eq!(
            shown,
            json!({
                "queue_running": [[1.0, "a", {}, {}, []]],
                "queue_pending": [[7.0, "b", {}, {}, []]],
            })
        );
    }
}
