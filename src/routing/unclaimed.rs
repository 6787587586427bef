//! Prompts that were found on backends after a start without a journal, kept until their clients
//! come. They are kept under the id of the client that submitted them. Pure.
//!
//! # Invariants
//!
//! - A prompt is claimed once, by the client whose id it carries, and within the lease.
//! - The number of kept prompts is bounded; prompts beyond the bound cannot be claimed.

use std::collections::HashMap;
use std::time::Instant;

use super::ids::{BackendId, ClientId, PromptId};

/// The most prompts that are kept. A queue of ten thousand is a day's work for a farm.
pub const UNCLAIMED_MAX: usize = 10_000;

/// A prompt that was found in the queue of a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    pub prompt: PromptId,
    pub backend: BackendId,
    /// When it was seen there.
    pub seen: Instant,
    pub stage: Stage,
    /// The nodes whose binary frames are outputs and not previews.
    pub output_nodes: Vec<String>,
}

/// Its progress when it was found.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    Runs,
    Waits,
}

/// The kept prompts.
#[derive(Debug, Default)]
pub struct Unclaimed {
    by_client: HashMap<ClientId, Kept>,
    prompts: usize,
}

#[derive(Debug)]
struct Kept {
    found: Vec<Found>,
    until: Instant,
}

impl Unclaimed {
    /// Keeps a client's prompts at a backend, in the order in which that runs them, until the lease
    /// is over. A client has at most `per_client`. Returns how many were dropped.
    pub fn keep(
        &mut self,
        client: ClientId,
        found: Vec<Found>,
        until: Instant,
        per_client: usize,
    ) -> usize {
        let kept =
            self.by_client.entry(client).or_insert_with(|| Kept { found: Vec::new(), until });
        kept.until = kept.until.max(until);
        let room = per_client
            .saturating_sub(kept.found.len())
            .min(UNCLAIMED_MAX.saturating_sub(self.prompts));
        let left = found.len().saturating_sub(room);
        self.prompts += found.len() - left;
        kept.found.extend(found.into_iter().take(room));
        left
    }

    /// Removes and returns the client's prompts. First come those on the backend that the client is
    /// to be bound to: the one where a prompt runs, else where the first was found.
    pub fn claim(&mut self, client: &ClientId, now: Instant) -> Vec<Found> {
        let Some(Kept { mut found, until }) = self.by_client.remove(client) else {
            return Vec::new();
        };
        self.prompts -= found.len();
        if until <= now {
            return Vec::new();
        }
        let home = found.iter().min_by_key(|found| found.stage).map(|found| found.backend);
        found.sort_by_key(|found| Some(found.backend) != home);
        found
    }

    /// True if something is kept for this client.
    #[must_use]
    pub fn has(&self, client: &ClientId) -> bool {
        self.by_client.contains_key(client)
    }

    /// Drops the prompts whose clients have not come in time.
    pub fn forget_expired(&mut self, now: Instant) {
        let prompts = &mut self.prompts;
        self.by_client.retain(|_, kept| {
            let is_due = now < kept.until;
            if !is_due {
                *prompts -= kept.found.len();
            }
            is_due
        });
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const LEASE: Duration = Duration::from_secs(600);

    fn client(name: &str) -> ClientId {
        ClientId::parse(name).unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    fn found(prompt: &str, backend: u16, stage: Stage, seen: Instant) -> Found {
        let prompt = PromptId::parse(prompt).unwrap();
        Found { prompt, backend: BackendId::nth(backend), seen, stage, output_nodes: Vec::new() }
    }

    fn ids(found: &[Found]) -> Vec<&str> {
        found.iter().map(|found| found.prompt.as_str()).collect()
    }

    #[test]
    fn who_comes_gets_his_own_once_and_first_what_is_where_one_runs() {
        let (t, mut unclaimed) = (start(), Unclaimed::default());
        let (waits, runs) = (found("w", 0, Stage::Waits, t), found("r", 1, Stage::Runs, t));
        let next = found("n", 1, Stage::Waits, t);
        unclaimed.keep(client("ada"), vec![waits], t + LEASE, 9);
        unclaimed.keep(client("ada"), vec![runs, next], t + LEASE, 9);
        unclaimed.keep(client("eve"), vec![found("e", 0, Stage::Runs, t)], t + LEASE, 9);
        assert_eq!(ids(&unclaimed.claim(&client("ada"), t)), ["r", "n", "w"]);
        assert!(unclaimed.claim(&client("ada"), t).is_empty(), "once");
        assert_eq!(ids(&unclaimed.claim(&client("eve"), t)), ["e"]);
        assert!(unclaimed.is_empty() && unclaimed.prompts == 0);
    }

    #[test]
    fn after_the_lease_they_are_nobodys() {
        let (t, mut unclaimed) = (start(), Unclaimed::default());
        for name in ["ada", "eve"] {
            unclaimed.keep(client(name), vec![found(name, 0, Stage::Runs, t)], t + LEASE, 9);
        }
        assert!(unclaimed.claim(&client("ada"), t + LEASE).is_empty());
        unclaimed.forget_expired(t + LEASE - Duration::from_secs(1));
        assert!(!unclaimed.is_empty());
        unclaimed.forget_expired(t + LEASE);
        assert!(unclaimed.is_empty() && unclaimed.prompts == 0);
    }

    proptest! {
        #[test]
        fn no_more_is_kept_than_there_is_room_for_and_none_is_claimed_twice(
            kept in vec((0_u8..3, 0_u16..3, any::<bool>(), 0_usize..5), 0..20),
            per_client in 0_usize..8,
        ) {
            let (t, mut unclaimed) = (start(), Unclaimed::default());
            let (mut given, mut left) = (0, 0);
            for (index, (name, backend, runs, count)) in kept.into_iter().enumerate() {
                let stage = if runs { Stage::Runs } else { Stage::Waits };
                let of = |n| found(&format!("{index}-{n}"), backend, stage, t);
                given += count;
                let all = (0..count).map(of).collect();
                left += unclaimed.keep(client(&name.to_string()), all, t + LEASE, per_client);
            }
            prop_assert_eq!(unclaimed.prompts, given - left);
            let mut claimed = Vec::new();
            for name in ["0", "1", "2"] {
                let found = unclaimed.claim(&client(name), t);
                prop_assert!(found.len() <= per_client);
                let home = found.first().map(|found| found.backend);
                let is_home = |found: &Found| Some(found.backend) == home;
                prop_assert!(found.is_sorted_by_key(|found| !is_home(found)));
                let runs = |found: &Found| found.stage == Stage::Runs;
                let any = found.iter().any(runs);
                let here = found.iter().any(|it| is_home(it) && runs(it));
                prop_assert_eq!(any, here, "where one runs");
                claimed.extend(found.into_iter().map(|it| it.prompt));
            }
            prop_assert_eq!(claimed.len(), given - left);
            claimed.sort();
            claimed.dedup();
            prop_assert_eq!(claimed.len(), given - left);
            prop_assert!(unclaimed.is_empty() && unclaimed.prompts == 0);
        }
    }
}
