//! A submission in progress: reports its end to waiting tasks, and counts in its backend's load
//! until it is known whether the backend has it.

use std::sync::Arc;

use crate::fleet::backend::Backend;
use crate::net::now;
use crate::ordered_watch::{OrderedWatch, Packed};
use crate::routing::pending::End;

/// How a submission ended. It is set only after the ledger and the journal were updated, so a task
/// that waited for it finds the same result everywhere.
#[derive(Debug, Default)]
pub struct Completion(OrderedWatch<PackedEnd>);

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct PackedEnd(Option<End>);

impl Packed for PackedEnd {
    fn pack(self) -> u64 {
        let place = self.0.and_then(|end| End::ALL.iter().position(|it| *it == end));
        place.map_or(0, |place| place as u64 + 1)
    }

    fn unpack(word: u64) -> Self {
        let place = word.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        Self(place.and_then(|place| End::ALL.get(place).copied()))
    }
}

impl Completion {
    pub(super) fn set(&self, end: End) {
        self.0.set(PackedEnd(Some(end)));
    }

    /// The end, if it is known.
    #[must_use]
    pub fn known(&self) -> Option<End> {
        self.0.get().0
    }

    /// Waits for the end. Cancel safe.
    pub async fn end(&self) -> End {
        loop {
            if let PackedEnd(Some(end)) = self.0.wait_for(|said| said.0.is_some()).await {
                return end;
            }
        }
    }
}

/// A submission without an answer. It counts in the load of its backend until the backend is known
/// to have it, or the submission is over.
#[derive(Debug)]
pub struct Expected {
    backend: Arc<Backend>,
    is_open: bool,
}

impl Expected {
    pub(super) fn on(backend: Arc<Backend>) -> Self {
        backend.load.expect_one();
        Self { backend, is_open: true }
    }

    /// True while its result is unknown.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// The backend has it.
    pub fn taken(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.backend.load.taken(now());
        }
    }

    /// The backend does not have it, or no longer has it.
    pub fn not_taken(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.backend.load.not_taken();
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.not_taken();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn every_end_is_told_as_it_is_and_as_often_as_it_is_asked_for() {
        for end in End::ALL {
            let completion = Completion::default();
            assert_eq!(completion.end().now_or_never(), None);
            completion.set(end);
            assert_eq!(completion.end().now_or_never(), Some(end));
            assert_eq!(completion.end().now_or_never(), Some(end));
        }
    }
}
