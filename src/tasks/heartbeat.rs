//! Do the tasks that the process needs still make progress?
//!
//! A task that panics ends the process or is restarted ([`super`]). A task that waits for ever does
//! neither: ends would no longer be asked for, and every probe would report that all is well. So
//! each of these tasks beats once in a round, and `/livez` names one that has not for long.
//!
//! Silence is counted in checks and not in time. When a process is throttled or stopped, or its
//! machine sleeps, it checks as rarely as its tasks run, and is not taken for dead.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tracing::error;

use super::Tasks;
use crate::lock::{Lock, rank};
use crate::net::sleep;

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// After so many looks without a beat a task is silent. The longest round takes a few seconds.
pub const LOOKS_MAX: u32 = 12;

/// How often who waits for work beats.
const BEAT_EVERY: Duration = Duration::from_secs(2);

/// How long a task is silent at least before `/livez` says so.
pub const SILENT_AFTER: Duration = LOOK_EVERY.saturating_mul(LOOKS_MAX);

/// A task's own; it counts as long as the task keeps it.
#[derive(Debug)]
pub struct Heart {
    name: &'static str,
    /// How often it was looked at since it last beat.
    looks: AtomicU32,
}

impl Heart {
    /// The task has come round.
    pub fn beat(&self) {
        self.looks.store(0, Ordering::Relaxed);
    }

    /// Waits for work, and beats meanwhile: who has nothing to do is not stuck. What is done with
    /// the work is not under its protection. Cancel safe if `work` is.
    pub async fn idle<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            self.beat();
            tokio::select! {
                biased;
                work = &mut work => return work,
                () = sleep(BEAT_EVERY) => {}
            }
        }
    }

    fn is_silent(&self) -> bool {
        LOOKS_MAX <= self.looks.load(Ordering::Relaxed)
    }
}

/// The hearts of all tasks of a process.
#[derive(Debug, Default)]
pub struct Hearts(Lock<Vec<Weak<Heart>>, { rank::HEARTS }>);

impl Hearts {
    /// A heart for a task of that name.
    pub fn heart(&self, name: &'static str) -> Arc<Heart> {
        let heart = Arc::new(Heart { name, looks: AtomicU32::new(0) });
        self.0.lock().push(Arc::downgrade(&heart));
        heart
    }

    /// Looks at each of them once.
    pub fn look(&self) {
        let mut hearts = self.0.lock();
        hearts.retain(|heart| 0 < heart.strong_count());
        for heart in hearts.iter().filter_map(Weak::upgrade) {
            let looks = heart.looks.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if looks == LOOKS_MAX {
                let (task, secs) = (heart.name, SILENT_AFTER.as_secs());
                error!(task, secs, "A task that the process needs makes no progress.");
            }
        }
    }

    /// The names of those that have been silent for long.
    #[must_use]
    pub fn silent(&self) -> Vec<&'static str> {
        self.named(Heart::is_silent)
    }

    /// The names of all, in the order in which their tasks began.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.named(|_any| true)
    }

    fn named(&self, is_meant: impl Fn(&Heart) -> bool) -> Vec<&'static str> {
        let hearts = self.0.lock();
        let living = hearts.iter().filter_map(Weak::upgrade);
        living.filter(|heart| is_meant(heart)).map(|heart| heart.name).collect()
    }
}

/// Looks at the hearts until the drain begins: who stops does not beat.
pub async fn watch(tasks: Tasks) {
    loop {
        tokio::select! {
            biased;
            () = tasks.stopping() => return,
            () = sleep(LOOK_EVERY) => tasks.hearts().look(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_silent_after_many_looks_without_a_beat_and_only_while_it_lives() {
        let hearts = Hearts::default();
        let (one, other) = (hearts.heart("one"), hearts.heart("other"));
        for _ in 1..LOOKS_MAX {
            hearts.look();
        }
        assert!(hearts.silent().is_empty());
        other.beat();
        hearts.look();
        assert_eq!(hearts.silent(), ["one"]);
        one.beat();
        assert!(hearts.silent().is_empty());
        drop(one);
        for _ in 0..LOOKS_MAX {
            hearts.look();
        }
        assert_eq!((hearts.silent(), hearts.names()), (vec!["other"], vec!["other"]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_work_beats_and_who_does_not_come_back_from_it_does_not() {
        let tasks = Tasks::default();
        let heart = tasks.hearts().heart("worker");
        let (give, mut given) = tokio::sync::mpsc::channel::<()>(1);
        tasks.spawn(watch(tasks.clone()));
        tasks.spawn(async move {
            heart.idle(given.recv()).await;
            std::future::pending::<()>().await;
        });
        sleep(10 * SILENT_AFTER).await;
        assert!(tasks.hearts().silent().is_empty(), "it has nothing to do");
        give.send(()).await.unwrap();
        sleep(SILENT_AFTER + LOOK_EVERY).await;
        assert_eq!(tasks.hearts().silent(), ["worker"]);
        assert_eq!(tasks.drain(LOOK_EVERY).await, 1, "it is stuck");
    }

    /// The clock jumps by a day, as when a machine slept: that is one look.
    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_for_long_is_not_taken_for_dead() {
        let tasks = Tasks::default();
        let _heart = tasks.hearts().heart("slept");
        tasks.spawn(watch(tasks.clone()));
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_secs(86_400)).await;
        tokio::task::yield_now().await;
        assert!(tasks.hearts().silent().is_empty());
        // And in a process that runs it is silent after that time, and not before.
        sleep(SILENT_AFTER - 2 * LOOK_EVERY).await;
        assert!(tasks.hearts().silent().is_empty());
        sleep(2 * LOOK_EVERY).await;
        assert_eq!(tasks.hearts().silent(), ["slept"]);
        assert_eq!(tasks.drain(SILENT_AFTER).await, 0);
    }
}
