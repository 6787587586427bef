//! Looks for unknown ids on all backends (promise R2).
//!
//! One request costs each backend one read of its queue, however many ids it names, and a small
//! request for each id that may be in a history. A limit for each address and one for all together
//! keep the cost of made-up ids low.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::Front;
use super::command_scope::Located;
use crate::comfy::answers::queued_ids;
use crate::fleet::backend::Backend;
use crate::lock::{Lock, rank};
use crate::net::now;
use crate::routing::ids::PromptId;
use crate::routing::token_bucket::{Rate, TokenBucket};
use crate::shared::Shared;

/// How many ids may be looked up for one address, and for all together.
const EACH: Rate = Rate { burst: 64, every: Duration::from_millis(250) };
const ALL: Rate = Rate { burst: 1_024, every: Duration::from_millis(16) };

/// How many addresses have a limit of their own. If there are more, new ones share the limit for
/// all.
const ASKERS_MAX: usize = 10_000;

/// Where a prompt must be to be of use to the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Where {
    /// Only in the queue.
    Queue,
    /// In the queue or in the history.
    Anywhere,
}

/// Recent lookups, by address.
#[derive(Debug)]
pub struct LookupLimiter(Lock<Buckets, { rank::LOOKUPS }>);

#[derive(Debug)]
struct Buckets {
    each: HashMap<IpAddr, TokenBucket>,
    all: TokenBucket,
}

impl Default for LookupLimiter {
    fn default() -> Self {
        let asked = Buckets { each: HashMap::new(), all: TokenBucket::new(now()) };
        Self(Lock::new(asked))
    }
}

impl LookupLimiter {
    /// How many of `count` ids may be looked up.
    pub fn admit(&self, address: IpAddr, count: usize, now: Instant) -> usize {
        let mut asked = self.0.lock();
        let Buckets { each, all } = &mut *asked;
        if ASKERS_MAX <= each.len() {
            each.retain(|_, bucket| !bucket.is_full(now));
        }
        let mut unlisted = TokenBucket::new(now);
        let own = if each.contains_key(&address) || each.len() < ASKERS_MAX {
            each.entry(address).or_insert(unlisted)
        } else {
            &mut unlisted
        };
        let left = own.left(EACH, now).min(all.left(ALL, now));
        let admitted = left.min(u32::try_from(count).unwrap_or(u32::MAX));
        own.take(admitted, EACH, now);
        all.take(admitted, ALL, now);
        admitted as usize
    }
}

/// Asks every backend that is up for ids that are not known, each id at most once in five seconds.
/// Stores where they are.
pub async fn look_for(
    front: &Front,
    address: IpAddr,
    mut prompts: Vec<PromptId>,
    place: Where,
) -> Located {
    let at = now();
    prompts.retain(|prompt| !front.shared.records.ledger_of(prompt).was_asked(prompt, at));
    prompts.truncate(front.lookups.admit(address, prompts.len(), at));
    // Only ids that may be looked up now are marked, so that another caller may ask for the others.
    prompts.retain(|prompt| front.shared.records.ledger_of(prompt).may_ask(prompt, at));
    if prompts.is_empty() {
        return Located::new();
    }
    let asked: Vec<_> = front.shared.fleet.iter().filter(|backend| backend.is_up()).collect();
    let mut looks: FuturesUnordered<_> =
        asked.iter().map(|backend| look_on(&front.shared, backend, &prompts, place)).collect();
    let mut located = Located::new();
    while let Some(found) = looks.next().await {
        for (prompt, backend) in found {
            if !located.iter().any(|(known, _)| *known == prompt) {
                front.shared.records.learn_prompt(&prompt, backend);
                located.push((prompt, backend));
            }
        }
        // A silent backend must not delay the results of the others.
        if located.len() == prompts.len() {
            break;
        }
    }
    located
}

/// The ids that this backend has. Its queue is read before its history, because a prompt moves from
/// the queue to the history.
async fn look_on(
    shared: &Shared,
    backend: &Backend,
    prompts: &[PromptId],
    place: Where,
) -> Located {
    let limit = shared.config().fleet.probe_timeout;
    let Ok(queue) = backend.read_queue(limit).await else { return Located::new() };
    let Ok((running, waiting)) = queued_ids(&queue) else { return Located::new() };
    let is_queued =
        |prompt: &&PromptId| running.iter().chain(&waiting).any(|id| id == prompt.as_str());
    let (queued, others): (Vec<&PromptId>, Vec<&PromptId>) = prompts.iter().partition(is_queued);
    let mut found: Located = queued.into_iter().map(|it| (it.clone(), backend.id)).collect();
    if place == Where::Anywhere {
        let ended = others.into_iter().map(|prompt| async move {
            let ended = backend.history_of(prompt, limit).await;
            matches!(ended, Ok(Some(_))).then(|| (prompt.clone(), backend.id))
        });
        found.extend(join_all(ended).await.into_iter().flatten());
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn of(last: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(last))
    }

    #[test]
    fn each_asker_has_so_many_and_all_have() {
        let (unknowns, t) = (LookupLimiter::default(), now());
        assert_eq!(unknowns.admit(of(1), 50, t), 50);
        assert_eq!(unknowns.admit(of(1), 50, t), 14);
        assert_eq!(unknowns.admit(of(1), 50, t + EACH.every), 1);
        assert_eq!(unknowns.admit(of(2), 50, t), 50, "another has his own");
        let admitted: usize = (3..100).map(|last| unknowns.admit(of(last), 64, t)).sum();
        assert!((800..=1_024).contains(&(admitted + 115)), "{admitted}");
        assert_eq!(unknowns.admit(of(1_000), 1, t), 0, "nobody has any more");
        assert_eq!(unknowns.admit(of(1_000), 1, t + Duration::from_secs(60)), 1);
    }

    #[test]
    fn askers_without_number_share_what_is_left() {
        let (unknowns, t) = (LookupLimiter::default(), now());
        for last in 0..20_000 {
            // Over time everybody gets a share, and nobody's is full again.
            let at = t + ALL.every * last;
            unknowns.admit(of(last), 20, at);
            assert!(unknowns.0.lock().each.len() <= ASKERS_MAX);
        }
    }
}
