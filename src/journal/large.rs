//! Bodies that are too large for one commit. They are written in parts, one with each commit, so
//! that nobody else waits for a large one.
//!
//! A body is whole when its record is committed, which comes with its last part.

use std::collections::{HashMap, VecDeque};

use super::batch::Batch;
use super::record::{BodyRecord, PartKey, PartRecord};
use crate::routing::ids::PromptId;

/// The largest part, in bytes, and the largest body that is committed like any other record.
pub(super) const PART: usize = 1 << 20;

/// The bodies that are not whole yet, in their order.
#[derive(Debug, Default)]
pub(super) struct Large {
    waiting: VecDeque<Body>,
    /// How many bodies were put here.
    put: u64,
    /// The number of each that is not whole yet.
    numbers: HashMap<PromptId, u64>,
    /// The body that is whole when the batch is committed.
    completes: Option<PromptId>,
    /// How many parts of each are written or gathered.
    parts: HashMap<PromptId, u32>,
}

#[derive(Debug)]
struct Body {
    prompt: PromptId,
    record: BodyRecord,
    /// So many bytes of it are gathered.
    at: usize,
}

impl Large {
    pub(super) fn put(&mut self, prompt: PromptId, record: BodyRecord) {
        self.put += 1;
        self.numbers.insert(prompt.clone(), self.put);
        self.waiting.push_back(Body { prompt, record, at: 0 });
    }

    /// So many parts of a body were written by an earlier process.
    pub(super) fn has_parts(&mut self, prompt: &PromptId, count: u32) {
        self.parts.insert(prompt.clone(), count);
    }

    /// The body is not needed any more. `batch` deletes what was written of it.
    pub(super) fn forget(&mut self, prompt: &PromptId, batch: &mut Batch) {
        self.waiting.retain(|it| it.prompt != *prompt);
        self.numbers.remove(prompt);
        let count = self.parts.remove(prompt).unwrap_or(0);
        let keys = (0..count).map(|part| PartKey { prompt: prompt.clone(), part });
        batch.parts.extend(keys.map(|key| (key, None)));
    }

    /// The next part goes into the batch, unless one is there already.
    pub(super) fn gather(&mut self, batch: &mut Batch) {
        if batch.parts.values().any(Option::is_some) {
            return;
        }
        let Some(body) = self.waiting.front_mut() else { return };
        let text = body.record.text();
        let mut end = text.len().min(body.at + PART);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let count = self.parts.entry(body.prompt.clone()).or_default();
        let key = PartKey { prompt: body.prompt.clone(), part: *count };
        batch.parts.insert(key, Some(PartRecord::new(&text[body.at..end])));
        *count += 1;
        body.at = end;
        if end == text.len()
            && let Some(Body { prompt, record, .. }) = self.waiting.pop_front()
        {
            let parts = self.parts.get(&prompt).copied().unwrap_or(0);
            batch.bodies.insert(prompt.clone(), Some(record.in_parts(parts)));
            self.completes = Some(prompt);
        }
    }

    /// True if more is to be written.
    pub(super) fn is_any(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The number of the body of this prompt, if it is not whole yet.
    pub(super) fn number_of(&self, prompt: &PromptId) -> Option<u64> {
        self.numbers.get(prompt).copied()
    }

    /// What was gathered is committed.
    pub(super) fn is_committed(&mut self) {
        if let Some(prompt) = self.completes.take() {
            self.numbers.remove(&prompt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt() -> PromptId {
        PromptId::parse("p").unwrap()
    }

    #[test]
    fn what_was_written_of_a_body_that_is_not_needed_is_deleted() {
        let (mut large, mut batch) = (Large::default(), Batch::default());
        large.put(prompt(), BodyRecord::of_text("é".repeat(PART)));
        large.gather(&mut batch);
        large.gather(&mut batch);
        assert_eq!((batch.parts.len(), batch.bodies.len()), (1, 0), "one with each commit");
        let mut batch = Batch::default();
        large.forget(&prompt(), &mut batch);
        assert_eq!(batch.parts.into_values().collect::<Vec<_>>(), [None]);
        assert!(!large.is_any() && large.number_of(&prompt()).is_none());
    }
}
