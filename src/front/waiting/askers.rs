//! Who is still to be told what became of a submission that waits.
//!
//! Whoever takes an asker out answers it. So a submission is answered once: by the backend that it
//! is handed over to, or by the gateway because it waits.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::front::Answer;
use crate::lock::{Lock, rank};
use crate::routing::ids::PromptId;

/// The way to one caller.
pub(in crate::front) type Asker = oneshot::Sender<Answer>;

#[derive(Debug, Default)]
pub(in crate::front) struct Askers(Lock<Asking, { rank::ASKERS }>);

#[derive(Debug, Default)]
struct Asking {
    all: HashMap<PromptId, (u64, Asker)>,
    next: u64,
}

impl Askers {
    /// Returns what tells this caller from a later one with the same prompt id.
    pub(in crate::front) fn put(&self, prompt: &PromptId, asker: Asker) -> u64 {
        let mut asking = self.0.lock();
        asking.next += 1;
        let serial = asking.next;
        asking.all.insert(prompt.clone(), (serial, asker));
        serial
    }

    /// This caller is not to be told any more.
    pub(in crate::front) fn leave(&self, prompt: &PromptId, serial: u64) {
        let mut asking = self.0.lock();
        if asking.all.get(prompt).is_some_and(|(his, _)| *his == serial) {
            asking.all.remove(prompt);
        }
    }

    /// True if the caller is not answered yet.
    pub(in crate::front) fn has(&self, prompt: &PromptId) -> bool {
        self.0.lock().all.contains_key(prompt)
    }

    /// Answers the caller, who may have left. Whoever was answered before is not again.
    pub(in crate::front) fn tell(&self, prompt: &PromptId, answer: Answer) {
        if let Some(asker) = self.take(prompt) {
            let _: Result<(), Answer> = asker.send(answer);
        }
    }

    /// `None` if the caller was answered, or somebody else is about to do so.
    pub(in crate::front) fn take(&self, prompt: &PromptId) -> Option<Asker> {
        self.0.lock().all.remove(prompt).map(|(_, asker)| asker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_takes_nobody_with_him_that_came_later() {
        let (askers, prompt) = (Askers::default(), PromptId::parse("p").unwrap());
        let caller = || oneshot::channel().0;
        let first = askers.put(&prompt, caller());
        assert!(askers.take(&prompt).is_some() && !askers.has(&prompt));
        let second = askers.put(&prompt, caller());
        askers.leave(&prompt, first);
        assert!(askers.has(&prompt));
        askers.leave(&prompt, second);
        assert!(!askers.has(&prompt));
    }
}
