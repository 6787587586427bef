//! Prompts whose events are dropped. Pure.
//!
//! A prompt that was reported as lost or as not queued can still appear: its backend was away and
//! is back, or a dead connection delivered the submission late. Its client was told something else,
//! and must not get contradicting events.

use std::collections::VecDeque;

use crate::routing::ids::PromptId;

/// How many are remembered for one client. Beyond it the oldest counts as unknown again.
const DISOWNED_MAX: usize = 64;

/// Why the events of a prompt are dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TombstoneReason {
    /// Its submission was answered with an error: if it runs, it is stopped.
    NotQueued,
    /// Its end was already sent.
    Told,
}

/// These prompts of one client, oldest first.
#[derive(Debug, Default)]
pub struct Tombstones {
    prompts: VecDeque<(PromptId, TombstoneReason)>,
}

impl Tombstones {
    /// Adds a prompt.
    pub fn add(&mut self, prompt: &PromptId, why: TombstoneReason) {
        self.forget(prompt);
        if self.prompts.len() == DISOWNED_MAX {
            self.prompts.pop_front();
        }
        self.prompts.push_back((prompt.clone(), why));
    }

    /// The id was given to a new submission.
    pub fn forget(&mut self, prompt: &PromptId) {
        self.prompts.retain(|(known, _)| known != prompt);
    }

    #[must_use]
    pub fn why(&self, prompt: &str) -> Option<TombstoneReason> {
        self.prompts.iter().find(|(known, _)| known.as_str() == prompt).map(|(_, why)| *why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_until_their_id_is_used_again() {
        let mut tombstones = Tombstones::default();
        let id = |number: usize| PromptId::parse(&number.to_string()).unwrap();
        for number in 0..=DISOWNED_MAX {
            tombstones.add(&id(number), TombstoneReason::Told);
        }
        assert_eq!(tombstones.why("0"), None, "the oldest made room");
        assert_eq!(tombstones.why("1"), Some(TombstoneReason::Told));
        tombstones.add(&id(1), TombstoneReason::NotQueued);
        assert_eq!(tombstones.why("1"), Some(TombstoneReason::NotQueued));
        tombstones.forget(&id(1));
        assert_eq!(tombstones.why("1"), None);
    }
}
