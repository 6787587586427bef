//! Prompts that were given up at a backend because its process seemed to have died. If it was not
//! the process that died but something in front of it, they are there still: they are not sent
//! there again before looks have missed them.

use std::time::{Duration, Instant};

use super::{Index, Waiting};
use crate::routing::ids::{BackendId, ClientId, PromptId};
use crate::routing::pending::ABSENT_LOOKS_APART;

/// A prompt that may be at a backend still.
#[derive(Debug)]
pub(super) struct Doubt {
    prompt: PromptId,
    /// Until when what was sent may arrive there yet.
    until: Instant,
    /// When it was first missed there.
    missed: Option<Instant>,
    /// We stop it there.
    is_stopped: bool,
}

impl Waiting {
    /// This prompt may be at this backend still; what was sent there arrives until this time, if at
    /// all. To be said before it waits again, so that it is never sent there in between.
    pub(in crate::session) fn doubts(&self, prompt: &PromptId, backend: BackendId, until: Instant) {
        self.excludes(prompt, backend);
        let mut index = self.index();
        let doubts = index.doubts.entry(backend).or_default();
        doubts.retain(|it| it.prompt != *prompt);
        doubts.push(Doubt { prompt: prompt.clone(), until, missed: None, is_stopped: false });
    }

    /// So many of the prompts that may be at this backend still, each in its turn.
    pub(in crate::session) fn doubted_at(&self, backend: BackendId, max: usize) -> Vec<PromptId> {
        if !self.is_used() {
            return Vec::new();
        }
        let mut index = self.index();
        let Some(doubts) = index.doubts.get_mut(&backend) else { return Vec::new() };
        let few: Vec<PromptId> = doubts.iter().take(max).map(|it| it.prompt.clone()).collect();
        doubts.rotate_left(few.len());
        few
    }

    /// A look has missed it there at this time. If two have that are far enough apart, it may be
    /// sent there again.
    pub(in crate::session) fn is_missed_at(
        &self,
        backend: BackendId,
        prompt: &PromptId,
        now: Instant,
    ) {
        let is_over = {
            let mut index = self.index();
            let doubts = index.doubts.get_mut(&backend);
            let doubt = doubts.and_then(|all| all.iter_mut().find(|it| it.prompt == *prompt));
            doubt.is_some_and(|doubt| {
                let first = *doubt.missed.get_or_insert(now);
                doubt.until <= now && ABSENT_LOOKS_APART <= now.duration_since(first)
            })
        };
        if is_over {
            self.doubts_no_more(backend, prompt);
        }
    }

    /// It is there. True if we stop it there: an end of it is ours then.
    pub(in crate::session) fn is_seen_at(&self, backend: BackendId, prompt: &PromptId) -> bool {
        let mut index = self.index();
        let mut doubts = index.doubts.get_mut(&backend).into_iter().flatten();
        let Some(doubt) = doubts.find(|it| it.prompt == *prompt) else { return false };
        doubt.missed = None;
        doubt.is_stopped
    }

    /// It is being stopped there. To be said before that.
    pub(in crate::session) fn is_stopped_at(&self, backend: BackendId, prompt: &PromptId) {
        let mut index = self.index();
        let doubts = index.doubts.get_mut(&backend).into_iter().flatten();
        doubts.filter(|it| it.prompt == *prompt).for_each(|it| it.is_stopped = true);
    }

    /// True if the prompt may be at this backend still, which is looked after in each round.
    pub(in crate::session) fn is_doubted_at(&self, backend: BackendId, prompt: &PromptId) -> bool {
        self.index().is_in_doubt(backend, prompt)
    }

    /// It is known whether it is there.
    pub(in crate::session) fn doubts_no_more(&self, backend: BackendId, prompt: &PromptId) {
        {
            let mut index = self.index();
            let Some(doubts) = index.doubts.get_mut(&backend) else { return };
            doubts.retain(|it| it.prompt != *prompt);
            if doubts.is_empty() {
                index.doubts.remove(&backend);
            }
        }
        self.forgives(prompt, backend);
    }

    /// Whose prompt it is, if it waits or is pending after it has waited.
    pub(in crate::session) fn client_of(&self, prompt: &PromptId) -> Option<ClientId> {
        self.index().prompts.get(prompt).map(|it| it.client.clone())
    }
}

impl Index {
    pub(super) fn is_in_doubt(&self, backend: BackendId, prompt: &PromptId) -> bool {
        let doubts = self.doubts.get(&backend);
        doubts.is_some_and(|all| all.iter().any(|it| it.prompt == *prompt))
    }

    /// The backend has turned up anew: what may be there is not sent there all the same.
    pub(super) fn excludes_what_is_in_doubt(&mut self, backend: BackendId, at: Duration) {
        let Self { doubts, prompts, queue, .. } = self;
        for doubt in doubts.get(&backend).into_iter().flatten() {
            let Some(entry) = prompts.get_mut(&doubt.prompt) else { continue };
            entry.tried.push(backend);
            queue.excludes(entry.key, &[backend], at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::setbacks::tests::{due, enters, one_at_a_time};
    use super::*;
    use crate::routing::placement::tests::fleet;

    #[test]
    fn what_may_be_at_a_backend_is_not_sent_there_before_two_looks_have_missed_it() {
        let waiting = one_at_a_time();
        let here = BackendId::nth(0);
        let prompt = enters(&waiting, "p", "ada", 1.0);
        assert_eq!(due(&waiting), std::slice::from_ref(&prompt));
        let now = crate::net::now();
        let (late, apart) = (now + ABSENT_LOOKS_APART / 2, ABSENT_LOOKS_APART);
        waiting.doubts(&prompt, here, late);
        waiting.again(&prompt);
        assert_eq!(due(&waiting), []);
        // It is down, and turns up anew.
        assert!(waiting.due(&fleet("Rd0"), &[BackendId::nth(0)]).hand_over.is_empty());
        assert_eq!(due(&waiting), [], "what turns up may be what was there");
        waiting.forgives(&prompt, here);
        assert_eq!(due(&waiting), [], "somebody else has excluded it for a while");
        assert_eq!(waiting.doubted_at(here, 9), std::slice::from_ref(&prompt));

        waiting.is_missed_at(here, &prompt, now);
        waiting.is_missed_at(here, &prompt, now + apart / 4);
        assert_eq!(due(&waiting), [], "one look proves nothing");
        assert!(!waiting.is_seen_at(here, &prompt));
        waiting.is_stopped_at(here, &prompt);
        assert!(waiting.is_seen_at(here, &prompt), "its end there is ours");
        waiting.is_missed_at(here, &prompt, now + apart);
        assert_eq!(due(&waiting), [], "it was seen after the first");
        waiting.is_missed_at(here, &prompt, now + 2 * apart);
        assert_eq!(due(&waiting), std::slice::from_ref(&prompt));
        assert!(waiting.doubted_at(here, 9).is_empty());
    }

    #[test]
    fn what_may_arrive_late_is_not_sent_there_before() {
        let waiting = one_at_a_time();
        let here = BackendId::nth(0);
        let prompt = enters(&waiting, "p", "ada", 1.0);
        assert_eq!(due(&waiting).len(), 1);
        let now = crate::net::now();
        waiting.doubts(&prompt, here, now + 10 * ABSENT_LOOKS_APART);
        waiting.again(&prompt);
        waiting.is_missed_at(here, &prompt, now);
        waiting.is_missed_at(here, &prompt, now + 9 * ABSENT_LOOKS_APART);
        assert_eq!(due(&waiting), []);
        waiting.is_missed_at(here, &prompt, now + 10 * ABSENT_LOOKS_APART);
        assert_eq!(due(&waiting), [prompt]);
    }
}
