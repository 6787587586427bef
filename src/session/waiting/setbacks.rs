//! Prompts that were not taken where they were sent: they rest, or go elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::Waiting;
use crate::net::now;
use crate::routing::ids::{BackendId, ClientId, PromptId};

/// The first pause after something could not be sent; it doubles each time.
const REST: Duration = Duration::from_secs(1);

/// The longest pause.
const REST_MAX: Duration = Duration::from_secs(60);

/// The pause after so many times.
#[must_use]
pub fn rest_after(times: u32) -> Duration {
    let doubled = 1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX);
    REST.saturating_mul(doubled).min(REST_MAX)
}

/// True if all backends that may still run a prompt refuse it. If there is none, one may come.
#[must_use]
pub fn all_refuse(by: &[BackendId], may_run: &[BackendId]) -> bool {
    !may_run.is_empty() && may_run.iter().all(|backend| by.contains(backend))
}

impl Waiting {
    /// The backends that refuse the prompt because they lack a part of it.
    #[must_use]
    pub fn refused_by(&self, prompt: &PromptId) -> SmallVec<[BackendId; 2]> {
        self.index().refused.get(prompt).map(|it| it.by.clone()).unwrap_or_default()
    }

    /// Prompts that wait and that all backends refuse which may run them, with what was said.
    #[must_use]
    pub fn refused_by_all(&self, may_run: &[BackendId]) -> Vec<(PromptId, ClientId, Arc<str>)> {
        if !self.is_used() {
            return Vec::new();
        }
        let index = self.index();
        let over = index.refused.iter().filter_map(|(prompt, refused)| {
            let entry = index.prompts.get(prompt)?;
            let is_over = index.queue.has_waiting(entry.key) && all_refuse(&refused.by, may_run);
            is_over.then(|| (prompt.clone(), entry.client.clone(), Arc::clone(&refused.why)))
        });
        over.collect()
    }

    /// This prompt ran at a backend when that closed its link.
    pub(in crate::session) fn ran_when_closed(
        &self,
        backend: BackendId,
        ran: PromptId,
        at: Instant,
    ) {
        self.index().ran.insert(backend, (ran, at));
    }

    /// When the link of another prompt was closed that ran there, the last time.
    pub(in crate::session) fn ran_beside(
        &self,
        backend: BackendId,
        prompt: &PromptId,
    ) -> Option<Instant> {
        let index = self.index();
        let (ran, at) = index.ran.get(&backend)?;
        (ran != prompt).then_some(*at)
    }

    /// A backend has turned a prompt away without a word about it, as a proxy does: for a while it
    /// is given nothing, longer each time until it accepts one.
    pub fn turns_away(&self, backend: BackendId) {
        let at = self.at(now());
        let mut index = self.index();
        let known = index.turned_away.entry(backend).or_default();
        known.times = known.times.saturating_add(1);
        known.until = at + rest_after(known.times);
    }

    /// The prompt could not be sent, once more. Returns how often that was.
    pub fn failed(&self, prompt: &PromptId) -> u32 {
        let mut index = self.index();
        let Some(entry) = index.prompts.get_mut(prompt) else { return 1 };
        entry.failed = entry.failed.saturating_add(1);
        entry.failed
    }

    /// A file of the prompt could not be brought, once more. Returns how often that was.
    pub fn lacked_a_file(&self, prompt: &PromptId) -> u32 {
        let mut index = self.index();
        let Some(entry) = index.prompts.get_mut(prompt) else { return 1 };
        entry.lacked_a_file = entry.lacked_a_file.saturating_add(1);
        entry.lacked_a_file
    }

    /// The prompt is not handed over before it has rested: others pass it. To be said before it
    /// waits again, so that it is never chosen in between.
    pub fn rests(&self, prompt: &PromptId) {
        if let Some(entry) = self.index().prompts.get_mut(prompt) {
            entry.rests = true;
        }
    }

    /// The prompt may be handed over again.
    pub fn has_rested(&self, prompt: &PromptId) {
        let at = self.at(now());
        let mut index = self.index();
        let Some(entry) = index.prompts.get_mut(prompt) else { return };
        entry.rests = false;
        let (key, aside) = (entry.key, entry.aside());
        index.queue.sets_aside(key, aside, at);
        drop(index);
        self.wake();
    }

    /// The prompt may be sent to this backend again.
    pub fn forgives(&self, prompt: &PromptId, backend: BackendId) {
        let at = self.at(now());
        let mut index = self.index();
        if index.is_in_doubt(backend, prompt) {
            return;
        }
        let Some(entry) = index.prompts.get_mut(prompt) else { return };
        entry.tried.retain(|tried| *tried != backend);
        let key = entry.key;
        index.queue.allows(key, backend, at);
        drop(index);
        self.wake();
    }

    /// The prompt is certainly not at this backend, and is not sent there again before that turns
    /// up anew. To be said before it waits again.
    pub fn excludes(&self, prompt: &PromptId, backend: BackendId) {
        if let Some(entry) = self.index().prompts.get_mut(prompt)
            && !entry.tried.contains(&backend)
        {
            entry.tried.push(backend);
        }
    }

    /// This backend refuses the prompt because it lacks a part of it, and says this. Also to be
    /// said before the prompt waits again.
    pub fn refuses(&self, prompt: &PromptId, backend: BackendId, why: Arc<str>) {
        self.excludes(prompt, backend);
        let at = self.at(now());
        let mut index = self.index();
        if !index.prompts.contains_key(prompt) {
            return;
        }
        let by = SmallVec::new();
        let new = super::Refused { by, why: Arc::clone(&why) };
        let refused = index.refused.entry(prompt.clone()).or_insert(new);
        refused.why = why;
        if !refused.by.contains(&backend) {
            refused.by.push(backend);
        }
        index.doubts(prompt, at);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{QueueConfig, QueueVerdict};
    use crate::journal::record::Kept;
    use crate::routing::placement::tests::fleet;
    use crate::session::waiting::Wants;

    pub(in crate::session::waiting) fn one_at_a_time() -> Waiting {
        Waiting::new(QueueConfig {
            depth: 1,
            lead: Duration::ZERO,
            max: 9,
            max_per_sharer: 9,
            max_wait: Duration::ZERO,
            verdict: QueueVerdict::Late,
            verdict_wait: Duration::ZERO,
            bytes: 1 << 20,
            warm_window: Duration::ZERO,
        })
    }

    fn kept(number: f64) -> Kept {
        let body = bytes::Bytes::from_static(b"{}");
        let (askers, sharer, payer) = (Vec::new(), None, None);
        Kept { body, usage_source: None, askers, sharer, payer, number }
    }

    pub(in crate::session::waiting) fn enters(
        waiting: &Waiting,
        prompt: &str,
        client: &str,
        number: f64,
    ) -> PromptId {
        let kept = kept(number);
        let prompt = PromptId::parse(prompt).unwrap();
        let client = ClientId::parse(client).unwrap();
        waiting.enter(&prompt, &client, (kept, Arc::default(), Wants::default()), None).unwrap();
        waiting.entered(&prompt);
        prompt
    }

    pub(in crate::session::waiting) fn due(waiting: &Waiting) -> Vec<PromptId> {
        let due = waiting.due(&fleet("Ru0"), &[BackendId::nth(0)]).hand_over.into_iter();
        due.map(|due| due.prompt).collect()
    }

    #[test]
    fn others_pass_a_prompt_that_rests() {
        let waiting = one_at_a_time();
        let first = enters(&waiting, "p", "ada", 1.0);
        let second = enters(&waiting, "q", "bob", 2.0);
        assert_eq!(due(&waiting), std::slice::from_ref(&first));
        assert_eq!((waiting.failed(&first), waiting.failed(&first)), (1, 2));
        assert_eq!(waiting.lacked_a_file(&first), 1, "that it failed otherwise does not count");
        waiting.rests(&first);
        waiting.again(&first);
        assert_eq!(due(&waiting), std::slice::from_ref(&second));
        waiting.again(&second);
        waiting.has_rested(&first);
        assert_eq!(due(&waiting), [first]);
    }

    #[test]
    fn a_backend_that_turns_prompts_away_is_given_nothing_for_a_while() {
        let waiting = one_at_a_time();
        let prompt = enters(&waiting, "p", "ada", 1.0);
        assert_eq!(due(&waiting), std::slice::from_ref(&prompt));
        waiting.turns_away(BackendId::nth(0));
        waiting.again(&prompt);
        assert_eq!(due(&waiting), []);
    }

    #[test]
    fn what_is_not_noted_is_not_chosen() {
        let waiting = one_at_a_time();
        let prompt = enters(&waiting, "p", "ada", 1.0);
        waiting.over(&prompt, crate::queue::Spent::Broke);
        let kept = kept(1.0);
        let client = ClientId::parse("ada").unwrap();
        waiting.enter(&prompt, &client, (kept, Arc::default(), Wants::default()), None).unwrap();
        assert_eq!(due(&waiting), []);
        waiting.entered(&prompt);
        assert_eq!(due(&waiting), [prompt]);
    }

    #[test]
    fn a_prompt_is_over_when_all_refuse_it_that_may_run_it() {
        let [a, b] = [0, 1].map(BackendId::nth);
        assert!(all_refuse(&[a, b], &[b]) && all_refuse(&[a, b], &[a, b]));
        assert!(!all_refuse(&[a], &[a, b]), "the other may take it");
        assert!(!all_refuse(&[a], &[]), "one may come back");
    }

    #[test]
    fn each_pause_is_twice_the_last_and_at_most_a_minute() {
        let pauses: Vec<u64> = (0..=8).map(|it| rest_after(it).as_secs()).collect();
        assert_eq!(pauses, [1, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(rest_after(u32::MAX), REST_MAX);
    }
}
