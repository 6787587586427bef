//! Every task of the process: a stop waits for all of them, and a panic in one is never silent.
//!
//! Invariant 13: no task outlives the drain. `tokio::spawn` is a lint error elsewhere, because
//! nobody would wait for what it starts.
//!
//! A task that panics is gone. What follows depends on whose it was:
//!
//! - work of one request, socket or client: it ends alone ([`Tasks::spawn`]);
//! - the care of one backend: it begins anew after a pause ([`Tasks::spawn_again`]);
//! - work of the whole process, such as the sweep: nobody else does it, so the process ends, and
//!   its successor starts from the journal ([`Tasks::spawn_critical`]).
//!
//! One that neither ends nor goes on is found by its heart: see [`heartbeat`].

pub mod heartbeat;

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tracing::error;

use crate::net::sleep;
use heartbeat::Hearts;

/// The pause before a task that panicked begins anew: what breaks at once must not spin.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Handed to everything that spawns. Cheap to clone; all clones are one set of tasks.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
    trouble: Arc<Trouble>,
    hearts: Arc<Hearts>,
}

/// What went wrong with tasks.
#[derive(Debug, Default)]
struct Trouble {
    panics: AtomicU64,
    /// The critical task that ended first, without being asked to.
    failed: OnceLock<&'static str>,
    has_failed: CancellationToken,
}

impl Tasks {
    /// Starts `task` and keeps count of it until it ends. Should it panic, it ends alone.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.track(counted(task, Arc::clone(&self.trouble)));
    }

    /// Starts a task that the whole process needs. If it ends before the drain, by a panic or
    /// otherwise, [`Tasks::failed`] resolves.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn spawn_critical(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let tasks = self.clone();
        self.track(async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            if let Err(panic) = &ended {
                tasks.trouble.count(&**panic, "A task that the process needs ended in a panic.");
            } else if tasks.is_stopping() {
                return;
            }
            let _ = tasks.trouble.failed.set(name);
            tasks.trouble.has_failed.cancel();
        });
    }

    /// Starts what `make` makes, and again after a pause whenever it panicked. Ends when a round
    /// returns, or with the drain.
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn spawn_again<F>(&self, mut make: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let tasks = self.clone();
        self.track(async move {
            while let Err(panic) = AssertUnwindSafe(async { make().await }).catch_unwind().await {
                tasks.trouble.count(&*panic, "A task ended in a panic, and begins anew.");
                tokio::select! {
                    () = sleep(AGAIN_AFTER) => {}
                    () = tasks.stopping() => return,
                }
            }
        });
    }

    /// Tasks that stop apart from these, and whose hearts are among those of these.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self { hearts: Arc::clone(&self.hearts), ..Self::default() }
    }

    /// A debug build knows which task a lock is taken for.
    #[cfg(debug_assertions)]
    #[track_caller]
    fn track(&self, task: impl Future<Output = ()> + Send + 'static) {
        let started = std::panic::Location::caller();
        self.tracker.spawn(async move {
            let mut task = std::pin::pin!(task);
            std::future::poll_fn(move |cx| {
                let _working = crate::lock::trace::Working::on(started);
                task.as_mut().poll(cx)
            })
            .await;
        });
    }

    #[cfg(not(debug_assertions))]
    fn track(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Resolves with the name of a critical task when one has ended before the drain. Cancel safe.
    pub async fn failed(&self) -> &'static str {
        self.trouble.has_failed.cancelled().await;
        self.trouble.failed.get().copied().unwrap_or_default()
    }

    /// Who goes round, and who does not any more.
    #[must_use]
    pub fn hearts(&self) -> &Hearts {
        &self.hearts
    }

    /// How many tasks have ended in a panic.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.trouble.panics.load(Ordering::Relaxed)
    }

    /// Resolves when the drain begins. Cancel safe.
    pub fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.stop.cancelled()
    }

    /// True once the drain has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// A token that is cancelled when the drain begins, or earlier by its owner.
    #[must_use]
    pub fn child_token(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Begins the drain without waiting for it.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// How many tasks are running.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Begins the drain, waits for the tasks, and returns how many were left at the deadline.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.stop.cancel();
        self.tracker.close();
        match tokio::time::timeout(deadline, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => self.tracker.len(),
        }
    }
}

/// Runs a task to its end, also to a bad one. Not an `async fn`, which would keep room for the task
/// twice: as what it was given and as what it awaits. Each socket has a task.
fn counted(
    task: impl Future<Output = ()> + Send,
    trouble: Arc<Trouble>,
) -> impl Future<Output = ()> + Send {
    AssertUnwindSafe(task).catch_unwind().map(move |ended| {
        if let Err(panic) = ended {
            trouble.count(&*panic, "A task ended in a panic.");
        }
    })
}

impl Trouble {
    fn count(&self, panic: &(dyn Any + Send), what: &str) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        error!(panic = said(panic), "{what}");
    }
}

/// What a panic said; it is text unless somebody panicked with a value of another type.
#[must_use]
pub fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_one_task_alone_and_is_counted() {
        let (tasks, done) = (Tasks::default(), Arc::new(Notify::new()));
        tasks.spawn(async { panic!("as asked") });
        let other = Arc::clone(&done);
        tasks.spawn(async move { other.notify_one() });
        done.notified().await;
        assert_eq!(tasks.drain(LONG).await, 0);
        assert_eq!(tasks.panics(), 1);
    }

    #[test]
    fn a_task_takes_its_room_once() {
        let task = async {
            let room = [0_u8; 4096];
            std::future::pending::<()>().await;
            std::hint::black_box(&room);
        };
        let (alone, trouble) = (size_of_val(&task), Arc::new(Trouble::default()));
        assert!(size_of_val(&counted(task, trouble)) < alone + 64);
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_task_that_ends_early_is_named_and_one_that_was_asked_to_is_not() {
        let panicked = Tasks::default();
        panicked.spawn_critical("sweep", async { panic!("as asked") });
        assert_eq!(panicked.failed().await, "sweep");
        let returned = Tasks::default();
        returned.spawn_critical("reconciler", async {});
        assert_eq!(returned.failed().await, "reconciler");
        let asked = Tasks::default();
        let stopping = asked.clone();
        asked.spawn_critical("writer", async move { stopping.stopping().await });
        assert_eq!(asked.drain(LONG).await, 0);
        assert!(asked.failed().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_backends_task_begins_anew_after_each_panic_until_it_returns() {
        let (tasks, rounds) = (Tasks::default(), Arc::new(AtomicUsize::new(0)));
        let began = Arc::clone(&rounds);
        let start = crate::net::now();
        tasks.spawn_again(move || {
            let round = began.fetch_add(1, Ordering::Relaxed);
            async move { assert!(round == 2, "round {round}") }
        });
        tasks.tracker.close();
        tasks.tracker.wait().await;
        assert_eq!((rounds.load(Ordering::Relaxed), tasks.panics()), (3, 2));
        let waited = crate::net::now().duration_since(start);
        assert!(AGAIN_AFTER * 2 <= waited, "{waited:?}");
    }
}
