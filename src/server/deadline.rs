//! One timer for all waits of a connection. The connection waits for one thing at a time.
//!
//! A request sets several deadlines and nearly always meets them. Moving a timer each time costs
//! more than the rest of the waiting, so it is moved only to an earlier time. If it fires before
//! the deadline, it is set again.

use std::task::Context;
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::lazy_poll::LazyPoll;
use crate::net::now;

/// A deadline that costs nothing to move.
#[derive(Debug)]
pub struct Deadline {
    at: Instant,
    /// When the timer fires.
    rings: Instant,
    timer: LazyPoll<Sleep>,
}

impl Deadline {
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        let at = now() + duration;
        Self { at, rings: at, timer: LazyPoll::new(tokio::time::sleep_until(at.into())) }
    }

    /// Sets the deadline to `at`.
    pub fn set(&mut self, at: Instant) {
        self.at = at;
        if at < self.rings {
            self.move_timer();
        }
    }

    fn move_timer(&mut self) {
        self.rings = self.at;
        self.timer.change().reset(self.at.into());
    }

    /// True once the deadline has passed. The task is woken at that time.
    pub fn poll_passed(&mut self, cx: &mut Context<'_>) -> bool {
        while self.timer.poll(cx).is_ready() {
            let has_passed = self.at <= now();
            // A timer that has fired must be moved before it is polled again.
            self.move_timer();
            if has_passed {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    async fn passed(deadline: &mut Deadline) {
        poll_fn(|cx| if deadline.poll_passed(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_passes_when_it_was_last_set_to() {
        let began = now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut deadline = Deadline::after(Duration::from_secs(10));
        deadline.set(after(30));
        passed(&mut deadline).await;
        assert_eq!(now().duration_since(began).as_secs(), 30);
        deadline.set(after(90));
        deadline.set(after(40));
        passed(&mut deadline).await;
        assert_eq!(now().duration_since(began).as_secs(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn it_can_come_earlier_than_the_timer_was_set_to() {
        let began = now();
        let mut deadline = Deadline::after(Duration::from_secs(100));
        assert!(!poll_fn(|cx| Poll::Ready(deadline.poll_passed(cx))).await);
        deadline.set(began + Duration::from_secs(5));
        passed(&mut deadline).await;
        assert_eq!(now().duration_since(began).as_secs(), 5);
    }
}
