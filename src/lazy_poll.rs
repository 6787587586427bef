//! A future that is polled only when it was woken.
//!
//! A task that waits for several things is woken mostly for one of them, and polls the others each
//! time: a stop, a timer. Each of those polls takes a lock of the runtime, for a thousand wake-ups
//! that have nothing to do with it. Here the future has a waker of its own, so that the task can
//! see with one atomic read whether it was woken for this future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A future that happens seldom, within a task that is woken often. It costs a look at a flag for
/// each poll. Not to be polled again after it was ready, as any future.
pub struct LazyPoll<F> {
    future: Pin<Box<F>>,
    flag: WakeFlag,
}

impl<F> fmt::Debug for LazyPoll<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyPoll").finish_non_exhaustive()
    }
}

impl<F: Future> LazyPoll<F> {
    #[must_use]
    pub fn new(future: F) -> Self {
        Self { future: Box::pin(future), flag: WakeFlag::default() }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !self.flag.was_raised(cx) {
            return Poll::Pending;
        }
        self.future.as_mut().poll(&mut self.flag.context())
    }

    /// The future itself, to change what it waits for; it is looked at with the next poll.
    pub fn change(&mut self) -> Pin<&mut F> {
        self.flag.raise();
        self.future.as_mut()
    }
}

/// A waker of its own for one of the things that a task waits for.
#[derive(Debug)]
pub(crate) struct WakeFlag {
    inner: Arc<FlagWaker>,
    waker: Waker,
}

/// What is pulled: notes it, and wakes the task.
#[derive(Debug)]
struct FlagWaker {
    is_raised: AtomicBool,
    task: AtomicWaker,
}

impl Wake for FlagWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_raised.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Default for WakeFlag {
    /// Rung, so that the first look starts what is waited for.
    fn default() -> Self {
        let inner = FlagWaker { is_raised: AtomicBool::new(true), task: AtomicWaker::new() };
        let inner = Arc::new(inner);
        Self { waker: Waker::from(Arc::clone(&inner)), inner }
    }
}

impl WakeFlag {
    /// True if it was rung since the last look; if not, `cx` is woken when it is.
    pub(crate) fn was_raised(&self, cx: &Context<'_>) -> bool {
        // Before the look: who rings after it wakes this task.
        self.inner.task.register(cx.waker());
        self.inner.is_raised.swap(false, Ordering::Acquire)
    }

    /// Rings it for the next look, without waking anybody.
    pub(crate) fn raise(&self) {
        self.inner.is_raised.store(true, Ordering::Release);
    }

    /// What rings it when it wakes.
    #[must_use]
    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;

    /// Counts how often a future is polled.
    async fn counted<F: Future>(future: F, polls: &AtomicUsize) -> F::Output {
        let mut future = std::pin::pin!(future);
        poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            future.as_mut().poll(cx)
        })
        .await
    }

    #[tokio::test]
    async fn it_is_polled_to_start_and_when_it_was_woken_and_never_else() {
        let (rare, often, polls) = (Notify::new(), Notify::new(), AtomicUsize::new(0));
        let mut lazy = LazyPoll::new(counted(rare.notified(), &polls));
        let wait = async {
            let mut woken = 0;
            poll_fn(|cx| {
                woken += 1;
                lazy.poll(cx)
            })
            .await;
            woken
        };
        // The same task is woken for other reasons.
        let other = async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
                often.notify_one();
                often.notified().await;
            }
            rare.notify_one();
        };
        let (woken, ()) = tokio::join!(wait, other);
        assert!(10 <= woken, "{woken}");
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_moved_is_looked_at_again() {
        let began = crate::net::now();
        let mut lazy = LazyPoll::new(tokio::time::sleep(Duration::from_secs(100)));
        assert!(poll_fn(|cx| Poll::Ready(lazy.poll(cx).is_pending())).await);
        lazy.change().reset((began + Duration::from_secs(5)).into());
        poll_fn(|cx| lazy.poll(cx)).await;
        assert_eq!(crate::net::now().duration_since(began).as_secs(), 5);
    }

    #[tokio::test]
    async fn it_is_woken_from_another_thread_also_while_it_is_polled() {
        for _ in 0..200 {
            let rare = Arc::new(Notify::new());
            let ring = {
                let rare = Arc::clone(&rare);
                move || rare.notify_one()
            };
            let mut lazy = LazyPoll::new(async move { rare.notified().await });
            let ringer = std::thread::spawn(ring);
            poll_fn(|cx| lazy.poll(cx)).await;
            ringer.join().unwrap();
        }
    }
}
