//! A value that tasks wait for. They are woken in the order in which they came.
//!
//! `tokio::sync::watch` wakes its waiters in any order. Prompts that wait for one link would then
//! be queued in any order, and no simulation could be repeated.

use tokio::sync::Notify;

use crate::lock::{Lock, rank};

/// A shared value; whoever sets it wakes those that wait for it.
#[derive(Debug, Default)]
pub struct Watched<T> {
    value: Lock<T, { rank::WATCHED }>,
    changed: Notify,
}

impl<T: Copy> Watched<T> {
    pub fn new(value: T) -> Self {
        Self { value: Lock::new(value), changed: Notify::new() }
    }

    pub fn get(&self) -> T {
        *self.value.lock()
    }

    pub fn set(&self, value: T) {
        *self.value.lock() = value;
        self.changed.notify_waiters();
    }

    /// Waits until `holds` of the value, and returns it. What it was for a moment may be missed.
    /// Cancel safe.
    pub async fn wait_for(&self, holds: impl Fn(T) -> bool) -> T {
        loop {
            // Before the look: it hears of every change from here on.
            let changed = self.changed.notified();
            let value = self.get();
            if holds(value) {
                return value;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use std::sync::Mutex;

    use super::*;
    use crate::tasks::Tasks;

    #[tokio::test]
    async fn those_that_wait_are_woken_in_the_order_in_which_they_came() {
        let (value, woken, tasks) =
            (Arc::new(Watched::new(0)), Arc::new(Mutex::new(Vec::new())), Tasks::default());
        for number in 0..50 {
            let (value, woken) = (Arc::clone(&value), Arc::clone(&woken));
            tasks.spawn(async move {
                value.wait_for(|value| value == 2).await;
                woken.lock().unwrap().push(number);
            });
        }
        for next in [1, 2] {
            tokio::task::yield_now().await;
            value.set(next);
        }
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
        assert_eq!(*woken.lock().unwrap(), (0..50).collect::<Vec<_>>());
        assert_eq!(value.wait_for(|value| value == 2).await, 2, "it may hold already");
    }
}
