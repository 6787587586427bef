//! Begins a life in a store: waits for the store, and for the lease of a process that has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Holder, Joined, Joining, LifeId, Store, StoreError, process};
use crate::net::{new_id, now, sleep};

/// The pause before a store is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

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
    let mut is_away = false;
    loop {
        let asked = now();
        match store.join(&me).await {
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
                is_away = false;
                let seen = Watched::again(watched, holder)?;
                me.silent = seen.is_over().then(|| (Arc::clone(&seen.life), seen.renewals));
                watched = Some(seen);
                sleep(AGAIN_AFTER).await;
            }
            Err(error @ (StoreError::Away(_) | StoreError::Unclear(_))) => {
                if !is_away {
                    warn!(%error, "The store is away: waiting for it.");
                }
                is_away = true;
                // Whoever has the store could not renew its lease either.
                (watched, me.silent) = (None, None);
                sleep(AGAIN_AFTER).await;
            }
            Err(error @ (StoreError::Over(_) | StoreError::Refused(_))) => return Err(error.into()),
        }
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
    let mut is_away = false;
    loop {
        match store.load().await {
            Err(error @ (StoreError::Away(_) | StoreError::Unclear(_))) => {
                if !is_away {
                    warn!(%error, "The store cannot be read: trying again.");
                }
                is_away = true;
                sleep(AGAIN_AFTER).await;
            }
            done => return done,
        }
    }
}
