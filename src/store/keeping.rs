//! A life while it lasts: its lease is renewed by a task, and the journal is written with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::joining::Begun;
use super::{LifeId, Store, StoreError, for_size, joining};
use crate::journal::lease::Lease;
use crate::journal::record::{Batch, Saved};
use crate::journal::{self, JournalError};
use crate::metrics::{StoreMetrics, StoreOperation};
use crate::net::{Boxed, now, sleep};
use crate::tasks::Tasks;

/// A lease is renewed so many times while it holds.
const RENEWALS_PER_LEASE: u32 = 5;

/// This process believes so much less long in its lease than the store does.
const MARGIN: Duration = Duration::from_secs(1);

/// How long leaving may take: the lease ends in any case.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// How long a commit is tried again before the journal counts as failing: less than a submission
/// waits for it.
const PATIENCE: Duration = Duration::from_secs(4);

/// The pause between two such attempts.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How long a commit may take. The store's own deadline is shorter.
const COMMIT_WITHIN: Duration = Duration::from_secs(10);

/// The life of this process in its store.
#[derive(Debug)]
pub struct Life {
    id: LifeId,
    store: Arc<dyn Store>,
    lease: Arc<Lease>,
    /// The task that renews it.
    tasks: Tasks,
}

/// The journal of a process in its store.
#[derive(Debug)]
pub struct Kept {
    id: LifeId,
    store: Arc<dyn Store>,
    lease: Arc<Lease>,
    metrics: StoreMetrics,
    /// What was there at the start, until it is asked for.
    saved: Saved,
    /// The number of the last batch.
    number: u64,
}

/// Renews a life from now on, and reads what the store has. `tasks` are those of the life alone.
///
/// # Errors
/// What the store has cannot be read by this Mooring.
pub async fn keep(
    store: Arc<dyn Store>,
    begun: Begun,
    metrics: StoreMetrics,
    tasks: Tasks,
) -> Result<(Life, Kept), StoreError> {
    let lease = Arc::new(Lease::default());
    let Begun { life: id, lease: length, asked } = begun;
    lease.holds_until(held_until(asked, length));
    let renewer = Renewer {
        id: Arc::clone(&id),
        store: Arc::clone(&store),
        lease: Arc::clone(&lease),
        length,
        metrics: metrics.clone(),
    };
    tasks.spawn_critical("store lease", renewer.run(tasks.clone()));
    let life = Life { id: Arc::clone(&id), store: Arc::clone(&store), lease, tasks };
    let loaded = tokio::select! {
        biased;
        why = life.ended() => Err(StoreError::Over(why)),
        saved = joining::load(&store) => saved,
    };
    match loaded {
        Ok(saved) => {
            let lease = Arc::clone(&life.lease);
            Ok((life, Kept { id, store, lease, metrics, saved, number: 0 }))
        }
        Err(error) => {
            // So that the next process, which may be a newer one, need not wait.
            life.leave().await;
            Err(error)
        }
    }
}

/// A lease that was asked for at `asked`.
fn held_until(asked: Instant, length: Duration) -> Instant {
    asked + length.saturating_sub(MARGIN)
}

struct Renewer {
    id: LifeId,
    store: Arc<dyn Store>,
    lease: Arc<Lease>,
    length: Duration,
    metrics: StoreMetrics,
}

impl Renewer {
    async fn run(self, tasks: Tasks) {
        let heart = tasks.hearts().heart("store lease");
        let mut is_away = false;
        loop {
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                () = heart.idle(sleep(self.length / RENEWALS_PER_LEASE)) => {}
            }
            let asked = now();
            // There is to be time for another attempt.
            let renewed = within(self.length / 2, self.store.renew(&self.id, self.length));
            let renewed = heart.idle(renewed).await;
            let took = now().duration_since(asked);
            self.metrics.called(StoreOperation::Renew, took, &renewed);
            match renewed {
                Ok(()) => {
                    self.lease.holds_until(held_until(asked, self.length));
                    if is_away {
                        info!("The store is back.");
                    }
                    is_away = false;
                }
                Err(StoreError::Over(why)) => {
                    self.lease.ends(&why);
                    return tasks.stopping().await;
                }
                Err(error) => {
                    let left_s = self.lease.left().as_secs_f64();
                    if !is_away {
                        warn!(%error, left_s, "The lease cannot be renewed in the store.");
                    }
                    is_away = true;
                }
            }
        }
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = |_elapsed| Err(StoreError::Unclear("the store does not answer".to_owned()));
    timeout(limit, call).await.unwrap_or_else(late)
}

impl Life {
    /// Resolves when another process has ended it, or it is not renewed any more; says why. Cancel
    /// safe.
    pub async fn ended(&self) -> String {
        tokio::select! {
            biased;
            why = self.lease.ended() => why,
            name = self.tasks.failed() => format!("the task {name:?} ended: a fault of ours"),
        }
    }

    /// True if another process has ended it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.lease.is_over()
    }

    /// Ends it, so that the next process need not wait. The journal is written to its end before.
    pub async fn leave(&self) {
        // From here on another process may act.
        self.lease.ends("it stopped");
        self.tasks.drain(LEAVE_WITHIN).await;
        match timeout(LEAVE_WITHIN, self.store.leave(&self.id)).await {
            Ok(Ok(())) => debug!("Left the store."),
            Ok(Err(error)) => warn!(%error, "Could not leave the store: the lease ends by itself."),
            Err(_elapsed) => warn!("Could not leave the store in time: the lease ends by itself."),
        }
    }
}

impl Kept {
    /// Each attempt has a number of its own. A later batch has all records of an earlier one that
    /// is not known to be written, or newer ones. So that one may have been written, and must not
    /// be written after it.
    async fn try_commit(&mut self, batch: &Arc<Batch>) -> Result<(), StoreError> {
        self.number += 1;
        let asked = now();
        let limit = COMMIT_WITHIN + for_size(batch);
        let written = self.store.commit(&self.id, self.number, Arc::clone(batch));
        let done = within(limit, written).await;
        self.metrics.called(StoreOperation::Commit, now().duration_since(asked), &done);
        if let Err(StoreError::Unclear(_)) = done {
            self.metrics.unclear.inc();
        }
        done
    }
}

impl journal::Store for Kept {
    fn load(&mut self) -> Result<Saved, JournalError> {
        Ok(std::mem::take(&mut self.saved))
    }

    fn commit(&mut self, batch: Arc<Batch>) -> Boxed<'_, Result<(), JournalError>> {
        Box::pin(async move {
            let until = now() + PATIENCE;
            loop {
                match self.try_commit(&batch).await {
                    Err(StoreError::Over(why)) => {
                        error!(why, "Another process has taken over the store.");
                        self.lease.ends(&why);
                        let what = StoreError::Over(why).to_string();
                        return Err(JournalError::Store { what });
                    }
                    // A store that restarts is not told to be failing.
                    Err(_again) if now() < until => sleep(AGAIN_AFTER).await,
                    done => {
                        return done
                            .map_err(|error| JournalError::Store { what: error.to_string() });
                    }
                }
            }
        })
    }

    fn lease(&self) -> Option<Arc<Lease>> {
        Some(Arc::clone(&self.lease))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::lease::Unrenewed;
    use crate::store::{Joined, Joining};

    /// Notes whether the life that leaves could still act.
    #[derive(Debug, Default)]
    struct Noting {
        lease: std::sync::OnceLock<Arc<Lease>>,
        left_with: std::sync::OnceLock<bool>,
    }

    impl Store for Noting {
        fn join<'a>(&'a self, _: &'a Joining) -> Boxed<'a, Result<Joined, StoreError>> {
            Box::pin(async { Ok(Joined::Joined) })
        }

        fn load(&self) -> Boxed<'_, Result<Saved, StoreError>> {
            Box::pin(async { Ok(Saved::default()) })
        }

        fn renew<'a>(&'a self, _: &'a LifeId, _: Duration) -> Boxed<'a, Result<(), StoreError>> {
            Box::pin(async { Ok(()) })
        }

        fn commit<'a>(
            &'a self,
            _: &'a LifeId,
            _: u64,
            _: Arc<Batch>,
        ) -> Boxed<'a, Result<(), StoreError>> {
            Box::pin(async { Ok(()) })
        }

        fn leave<'a>(&'a self, _: &'a LifeId) -> Boxed<'a, Result<(), StoreError>> {
            let lease = self.lease.get().unwrap();
            self.left_with.set(lease.may_act(Unrenewed::MayAct)).unwrap();
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_that_leaves_does_not_act_any_more_when_the_store_hears_of_it() {
        let noting = Arc::new(Noting::default());
        let store: Arc<dyn Store> = Arc::<Noting>::clone(&noting);
        let lease = Duration::from_secs(10);
        let begun = joining::join(&*store, "a", lease).await.unwrap();
        let kept = keep(store, begun, StoreMetrics::default(), Tasks::default()).await;
        let (life, _kept) = kept.unwrap();
        noting.lease.set(Arc::clone(&life.lease)).unwrap();
        sleep(3 * lease).await;
        assert!(life.lease.may_act(Unrenewed::MustNotAct), "it is renewed");
        life.leave().await;
        assert_eq!(noting.left_with.get(), Some(&false));
    }
}
