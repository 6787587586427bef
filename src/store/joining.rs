//! Begins a life in a store: waits for the store, and for the lease of a process that has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Holder, Joined, Joining, LifeId, Store, StoreError, process};
use crate::net::{new_id, now, sleep};

/// The pause before a store is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A store that takes longer to answer stands still: nobody could renew a lease meanwhile.
const PROMPT: Duration = Duration::from_secs(1);

/// How often it is said that the store is still waited for.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// A life that is renewed so often while we look belongs to a process that runs. One renewal may
/// have been on its way when the process ended.
const RENEWALS: u64 = 2;

/// Why a gateway does not start with a store.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotJoined {
    #[error(
        "the store is used by another Mooring: {name:?} (life {life}), which renews its lease; one \
         at a time can use it, so stop that one first"
    )]
    InUse { name: String, life: LifeId },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A life that has begun.
#[derive(Clone, Debug)]
pub struct Begun {
    pub(super) life: LifeId,
    pub(super) lease: Duration,
    /// When the request was sent that began it, so that the lease certainly does not end earlier.
    pub(super) asked: Instant,
}

/// Joins the store, and waits for it as long as it is away.
///
/// # Errors
/// Another process uses the store, or an operator must change something.
pub async fn join(store: &dyn Store, name: &str, lease: Duration) -> Result<Begun, NotJoined> {
    let mut me = Joining {
        life: new_id().to_string().into(),
        name: name.to_owned(),
        process: process::own(),
        lease,
        ended: Vec::new(),
        silent: None,
    };
    let mut watched: Option<Watched> = None;
    let mut away = Away::default();
    loop {
        let asked = now();
        let joined = store.join(&me).await;
        if PROMPT < now().duration_since(asked) {
            (watched, me.silent) = (None, None);
        }
        match joined {
            Ok(Joined::Joined) => {
                info!(life = &*me.life, "Joined the store.");
                return Ok(Begun { life: me.life, lease, asked });
            }
            Ok(Joined::Held(holder)) => {
                if holder.process.as_deref().is_some_and(process::has_ended)
                    && !me.ended.contains(&holder.life)
                {
                    me.ended.push(holder.life);
                    continue;
                }
                away.is_over();
                let seen = Watched::again(watched, holder)?;
                me.silent = seen.is_over().then(|| (Arc::clone(&seen.life), seen.renewals));
                watched = Some(seen);
                sleep(AGAIN_AFTER).await;
            }
            Err(error @ (StoreError::Away(_) | StoreError::Unclear(_))) => {
                if away.is_to_say() {
                    warn!(%error, "The store is away: waiting for it.");
                }
                // Whoever has the store could not renew its lease either.
                (watched, me.silent) = (None, None);
                sleep(AGAIN_AFTER).await;
            }
            Err(error @ (StoreError::Over(_) | StoreError::Refused(_))) => return Err(error.into()),
        }
    }
}

/// When it was last said that the store is away.
#[derive(Debug, Default)]
struct Away(Option<Instant>);

impl Away {
    /// True at first, and from time to time.
    fn is_to_say(&mut self) -> bool {
        let is_to_say = self.0.is_none_or(|said| SAY_AGAIN <= now().duration_since(said));
        if is_to_say {
            self.0 = Some(now());
        }
        is_to_say
    }

    fn is_over(&mut self) {
        self.0 = None;
    }
}

/// Another life, as long as the store answers. It is over when it was not renewed for its whole
/// lease by our own clock: the clock of the store may jump.
struct Watched {
    life: LifeId,
    lease: Duration,
    /// How often it had been renewed when it was seen first, and when it was seen last.
    first: u64,
    renewals: u64,
    /// Since when it has not been renewed.
    since: Instant,
}

impl Watched {
    fn again(before: Option<Self>, holder: Holder) -> Result<Self, NotJoined> {
        let Holder { life, name, renewals, lease, .. } = holder;
        match before.filter(|before| before.life == life) {
            Some(before) if before.first + RENEWALS <= renewals => {
                Err(NotJoined::InUse { name, life })
            }
            Some(before) if before.renewals == renewals => Ok(before),
            // A database that was restored may know fewer.
            Some(before) => Ok(Self { renewals, since: now(), ..before }),
            None => {
                let lease_s = lease.as_secs_f64();
                info!(
                    name,
                    life = &*life,
                    lease_s,
                    "Another Mooring has the store: waiting until its lease is over."
                );
                Ok(Self { life, lease, first: renewals, renewals, since: now() })
            }
        }
    }

    fn is_over(&self) -> bool {
        self.lease <= now().duration_since(self.since)
    }
}

/// Reads everything, and waits for the store as long as it is away.
///
/// # Errors
/// What is there cannot be read by this Mooring.
pub(super) async fn load(
    store: &Arc<dyn Store>,
) -> Result<crate::journal::record::Saved, StoreError> {
    let mut away = Away::default();
    loop {
        match store.load().await {
            Err(error @ (StoreError::Away(_) | StoreError::Unclear(_))) => {
                if away.is_to_say() {
                    warn!(%error, "The store cannot be read: trying again.");
                }
                sleep(AGAIN_AFTER).await;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::{Batch, Saved};
    use crate::net::Boxed;

    const LEASE: Duration = Duration::from_secs(3);

    /// What a store answers at a time since the first question, and how long that takes.
    type Answers = fn(Duration) -> (Result<u64, StoreError>, Duration);

    /// A store that another life has, with so many renewals. It notes when that is buried.
    #[derive(Debug)]
    struct Scripted {
        answers: Answers,
        began: Instant,
    }

    impl Store for Scripted {
        fn join<'a>(&'a self, me: &'a Joining) -> Boxed<'a, Result<Joined, StoreError>> {
            Box::pin(async move {
                let (answer, takes) = (self.answers)(now().duration_since(self.began));
                sleep(takes).await;
                let renewals = answer?;
                let (life, name): (LifeId, String) = ("other".into(), "b".to_owned());
                if me.silent == Some((Arc::clone(&life), renewals)) {
                    return Ok(Joined::Joined);
                }
                let (process, lease) = (None, LEASE);
                Ok(Joined::Held(Holder { life, name, process, renewals, lease }))
            })
        }

        fn load(&self) -> Boxed<'_, Result<Saved, StoreError>> {
            unreachable!("nobody has joined")
        }

        fn renew<'a>(&'a self, _: &'a LifeId, _: Duration) -> Boxed<'a, Result<(), StoreError>> {
            unreachable!("nobody has joined")
        }

        fn commit<'a>(
            &'a self,
            _: &'a LifeId,
            _: u64,
            _: Arc<Batch>,
        ) -> Boxed<'a, Result<(), StoreError>> {
            unreachable!("nobody has joined")
        }

        fn leave<'a>(&'a self, _: &'a LifeId) -> Boxed<'a, Result<(), StoreError>> {
            unreachable!("nobody has joined")
        }
    }

    /// What becomes of a process that wants to join, and after how long.
    async fn joins(answers: Answers) -> (Result<Begun, NotJoined>, Duration) {
        let store = Scripted { answers, began: now() };
        let joined = join(&store, "a", LEASE).await;
        (joined, now().duration_since(store.began))
    }

    fn is_in_use(joined: &Result<Begun, NotJoined>) -> bool {
        matches!(joined, Err(NotJoined::InUse { .. }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_that_nobody_renews_is_over_after_its_lease() {
        let (joined, took) = joins(|_| (Ok(7), Duration::ZERO)).await;
        assert!(joined.is_ok(), "{joined:?}");
        assert!((LEASE..LEASE + 2 * AGAIN_AFTER).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_store_is_away_nobody_is_silent() {
        let answers = |at: Duration| match at.as_secs() {
            0..2 => (Ok(7), Duration::ZERO),
            2..60 => (Err(StoreError::Away("it restarts".to_owned())), Duration::ZERO),
            // The other one is back a little later.
            60..62 => (Ok(7), Duration::ZERO),
            later => (Ok(7 + later - 61), Duration::ZERO),
        };
        let (joined, _) = joins(answers).await;
        assert!(is_in_use(&joined), "{joined:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_store_stands_still_nobody_is_silent() {
        let answers = |at: Duration| match at.as_millis() {
            0..500 => (Ok(7), Duration::ZERO),
            500..3_000 => (Ok(7), Duration::from_secs(4)),
            // The other one needs a new connection.
            3_000..5_400 => (Ok(7), Duration::ZERO),
            later => (Ok(u64::try_from(8 + (later - 5_400) / 600).unwrap()), Duration::ZERO),
        };
        let (joined, _) = joins(answers).await;
        assert!(is_in_use(&joined), "{joined:?}");
    }
}
