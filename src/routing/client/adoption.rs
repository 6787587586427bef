//! Gives prompts back to their client that were found on backends after a start without a journal.

use std::time::{Duration, Instant};

use super::super::decision::{Decision, Reason};
use super::super::effects::{Effects, Step};
use super::super::ids::BackendId;
use super::super::pending::Pending;
use super::super::unclaimed::Found;
use super::{Binding, Client, stay};

/// How often a prompt is asked about if no link sends its events.
const UNHEARD: Duration = Duration::from_secs(1);

impl Client {
    /// Prompts of this client were found: they are pending from here on. The client is bound to the
    /// backend of the first one, unless other work holds it elsewhere. Prompts on other backends
    /// are only asked about until they end, because a client has one binding and one link.
    pub fn adopt(&mut self, found: &[Found], now: Instant) -> Step<Option<Decision>> {
        Step::of(|effects| {
            effects.asks = true;
            let home = found.first().map(|found| found.backend).filter(|_| !self.is_held());
            for Found { prompt, backend, seen, .. } in found {
                self.prompts.found(prompt.clone(), Pending::found(*backend, *seen, now), effects);
            }
            let decision = self.bind_to(home?, now, effects);
            self.record(Ok(decision), now, effects).ok()
        })
    }

    /// Binds the client to the backend of its work.
    pub(super) fn bind_to(
        &mut self,
        backend: BackendId,
        now: Instant,
        effects: &mut Effects,
    ) -> Decision {
        let last = self.bound.get();
        if let Some(bound) = last.filter(|bound| bound.backend == backend) {
            return stay(&bound, Reason::Held);
        }
        let Binding { number, .. } = self.bound.bind(backend, None, now, effects);
        let left = last.map(|bound| bound.backend);
        Decision { backend, reason: Reason::Held, left, newly_bound: true, binding: number }
    }

    /// True if a prompt is pending on the bound backend.
    #[must_use]
    pub fn has_prompts_here(&self) -> bool {
        let is_here = |bound| self.pending().values().any(|it| it.is_on(bound));
        self.bound.backend().is_some_and(is_here)
    }

    /// How long a prompt on this backend may send no events before it is asked about.
    pub(super) fn patience(&self, backend: BackendId, silent_after: Duration) -> Duration {
        match self.bound.backend() {
            Some(bound) if bound == backend => silent_after,
            Some(_) | None => silent_after.min(UNHEARD),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::super::super::ids::PromptId;
    use super::super::super::pending::{End, Observation};
    use super::super::super::placement::FleetNow;
    use super::super::super::placement::tests::fleet;
    use super::super::super::unclaimed::Stage;
    use super::*;

    const LEASE: Duration = Duration::from_secs(600);

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn id(text: &str) -> PromptId {
        PromptId::parse(text).unwrap()
    }

    fn ended(step: Step) -> Option<End> {
        step.split().1.ended.first().map(|ended| ended.end)
    }

    fn found(prompt: &str, backend: u16, seen: Instant) -> Found {
        let (prompt, backend) = (id(prompt), BackendId::nth(backend));
        Found { prompt, backend, seen, stage: Stage::Waits, output_nodes: Vec::new() }
    }

    fn contact(client: &mut Client, now: Instant) -> (u16, Reason) {
        let fleet = fleet("Ru0 Ru5 Ru0");
        let made = client.contact(FleetNow { backends: &fleet, turn: 0 }, now).split().0.unwrap();
        (made.backend.slot(), made.reason)
    }

    #[test]
    fn who_is_found_again_is_bound_where_his_first_prompt_is_until_it_ends() {
        let t = start();
        let mut client = Client::new(t);
        let all = [found("p", 1, t), found("q", 1, t), found("far", 2, t)];
        let decision = client.adopt(&all, t).split().0.unwrap();
        assert_eq!((decision.backend.slot(), decision.newly_bound, decision.left), (1, true, None));
        assert_eq!(contact(&mut client, t), (1, Reason::Held));
        let asked = client.to_ask(LEASE, t);
        assert_eq!(asked.len(), 3, "whether they are there still must be asked");
        assert_eq!(ended(client.on_probe(&id("p"), Observation::Running, t)), None);
        assert_eq!(ended(client.settle(&id("p"), End::Succeeded, t)), Some(End::Succeeded));
        assert!(client.is_held());
        ended(client.settle(&id("q"), End::Succeeded, t));
        assert!(!client.is_held(), "what is elsewhere holds nothing");
        assert!(!client.is_forgotten(LEASE, t + LEASE), "and is waited for");
        assert!(client.release(t).split().0.is_err());
        assert_eq!(contact(&mut client, t), (1, Reason::Idle));
        ended(client.settle(&id("far"), End::Succeeded, t));
        assert!(client.is_forgotten(LEASE, t + LEASE));
    }

    #[test]
    fn who_works_elsewhere_already_stays_there_and_who_only_looks_is_moved() {
        let t = start();
        let fleet = fleet("Ru0 Ru5 Ru0");
        let mut held = Client::new(t);
        let made = held.submit(id("new"), 9, FleetNow { backends: &fleet, turn: 0 }, t);
        assert_eq!(made.split().0.unwrap().backend, BackendId::nth(0));
        assert!(held.adopt(&[found("p", 1, t)], t).split().0.is_none());
        assert_eq!((contact(&mut held, t), held.pending().len()), ((0, Reason::Held), 2));
        let mut idle = Client::new(t);
        contact(&mut idle, t);
        let decision = idle.adopt(&[found("p", 1, t)], t).split().0.unwrap();
        assert_eq!((decision.backend.slot(), decision.left), (1, Some(BackendId::nth(0))));
    }

    #[test]
    fn what_no_link_tells_of_is_asked_about_soon() {
        let t = start();
        let mut client = Client::new(t);
        let _bound = client.adopt(&[found("here", 0, t), found("far", 1, t)], t).split().0;
        for name in ["here", "far"] {
            assert_eq!(ended(client.on_probe(&id(name), Observation::Running, t)), None);
        }
        assert!(client.to_ask(LEASE, t).is_empty());
        let asked: Vec<_> = client.to_ask(LEASE, t + UNHEARD).into_iter().map(|it| it.0).collect();
        assert_eq!(asked, [id("far")]);
    }

    proptest! {
        /// Whatever is found, each prompt ends once, and the client is held exactly while one of
        /// them is on the backend that it is bound to.
        #[test]
        fn each_of_them_ends_once(places in vec(0_u16..3, 1..12)) {
            let t = start();
            let mut client = Client::new(t);
            let all: Vec<Found> = places
                .iter()
                .enumerate()
                .map(|(index, backend)| found(&index.to_string(), *backend, t))
                .collect();
            let bound = client.adopt(&all, t).split().0.unwrap().backend;
            prop_assert!(client.adopt(&all, t).split().0.is_none(), "twice is once");
            prop_assert_eq!(client.pending().len(), all.len());
            for (index, it) in all.iter().enumerate() {
                let left = all[index..].iter().any(|it| it.backend == bound);
                prop_assert_eq!(client.is_held(), left);
                let mut settle = || ended(client.settle(&it.prompt, End::Succeeded, t));
                prop_assert_eq!(settle(), Some(End::Succeeded));
                prop_assert_eq!(settle(), None);
            }
            prop_assert!(client.pending().is_empty() && !client.is_held());
        }
    }
}
