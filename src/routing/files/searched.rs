//! Unknown names, and when they were searched for.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::ids::FileRef;

/// The pause before an unknown name is searched for again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How many such names a shard remembers.
const MAX: usize = 2_500;

#[derive(Debug, Default)]
pub(super) struct Searched {
    at: HashMap<FileRef, Instant>,
    order: VecDeque<FileRef>,
}

impl Searched {
    /// True if it may be searched for now. Notes the search.
    pub(super) fn may_search(&mut self, file: &FileRef, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.duration_since(*at) < AGAIN_AFTER;
        if self.at.get(file).is_some_and(is_recent) {
            return false;
        }
        if self.at.insert(file.clone(), now).is_none() {
            self.order.push_back(file.clone());
        }
        while MAX < self.order.len() {
            if let Some(oldest) = self.order.pop_front() {
                self.at.remove(&oldest);
            }
        }
        true
    }
}
