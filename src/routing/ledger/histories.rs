//! Merges the histories of all shards.

use std::cmp::Reverse;
use std::time::Instant;

use super::super::ids::{BackendId, PromptId};
use super::super::owners::{Owner, Submitter};
use super::super::pending::End;
use super::{Ledger, State};

/// One prompt of a history.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    pub prompt: PromptId,
    pub by: Submitter,
    /// `None` if its backend is no longer configured.
    pub backend: Option<BackendId>,
    pub made: Instant,
    pub order: u64,
    pub end: End,
    pub ended: Instant,
    /// When it stopped being pending. A later correction does not change it.
    pub(super) settled: Instant,
}

impl Ledger {
    /// The newest `max` prompts that ended, in the order of their ends, for operators: also those
    /// of users, those without a client, and those that were removed from a history.
    #[must_use]
    pub fn newest_ends(&mut self, max: usize, now: Instant) -> Vec<Listed> {
        self.evict_expired(now);
        let has_ended = |prompt: &&PromptId| {
            let record = self.prompts.get(*prompt);
            record.is_some_and(|record| matches!(record.state, State::Ended(_)))
        };
        let newest = self.settled.values().rev().filter(has_ended);
        let mut newest: Vec<&PromptId> = newest.take(max).collect();
        newest.reverse();
        self.described(newest.into_iter(), now)
    }
}

/// Merges the histories that the shards have of these owners: the newest `max` of each owner, in
/// the order of their ends.
#[must_use]
pub fn histories(mut of_shards: Vec<Listed>, owners: &[Owner], max: usize) -> Vec<Listed> {
    of_shards.sort_by_key(|listed| Reverse((listed.settled, listed.order)));
    let mut counts = vec![0_usize; owners.len()];
    of_shards.retain(|listed| {
        let mut is_among = false;
        for owner in listed.by.owners() {
            let counted = owners.iter().zip(&mut counts).filter(|(asked, _)| **asked == owner);
            for (_, count) in counted {
                is_among |= *count < max;
                *count += 1;
            }
        }
        is_among
    });
    of_shards.reverse();
    of_shards
}

/// The same for all histories, of any owner.
#[must_use]
pub fn newest(mut of_shards: Vec<Listed>, max: usize) -> Vec<Listed> {
    of_shards.sort_by_key(|listed| (listed.settled, listed.order));
    of_shards.drain(..of_shards.len().saturating_sub(max));
    of_shards
}
