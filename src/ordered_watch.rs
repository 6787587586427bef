//! A value that tasks wait for. They are woken in the order in which they came.
//!
//! `tokio::sync::watch` wakes its waiters in any order. Prompts that wait for one link would then
//! be queued in any order, and a simulation could not be repeated.
//!
//! The value is one machine word, so that reading it takes no lock: a submission reads several.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// What fits into one word, and comes out of it as it was.
pub(crate) trait Packed: Copy {
    fn pack(self) -> u64;
    fn unpack(word: u64) -> Self;
}

impl Packed for u64 {
    fn pack(self) -> u64 {
        self
    }

    fn unpack(word: u64) -> Self {
        word
    }
}

/// A shared value; whoever sets it wakes those that wait for it.
#[derive(Debug)]
pub(crate) struct OrderedWatch<T> {
    word: AtomicU64,
    changed: Notify,
    value: PhantomData<T>,
}

impl<T: Packed + Default> Default for OrderedWatch<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Packed> OrderedWatch<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { word: AtomicU64::new(value.pack()), changed: Notify::new(), value: PhantomData }
    }

    pub(crate) fn get(&self) -> T {
        T::unpack(self.word.load(Ordering::SeqCst))
    }

    pub(crate) fn set(&self, value: T) {
        self.word.store(value.pack(), Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Makes a value of the one that it is.
    pub(crate) fn change(&self, change: impl Fn(T) -> T) {
        let changed = |word| Some(change(T::unpack(word)).pack());
        let _ = self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, changed);
        self.changed.notify_waiters();
    }

    /// Waits until `holds` of the value, and returns it. What it was for a moment may be missed.
    /// Cancel safe.
    pub(crate) async fn wait_for(&self, holds: impl Fn(T) -> bool) -> T {
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
        let (value, woken, tasks) = (
            Arc::new(OrderedWatch::new(0_u64)),
            Arc::new(Mutex::new(Vec::new())),
            Tasks::default(),
        );
        for number in 0..50 {
            let (value, woken) = (Arc::clone(&value), Arc::clone(&woken));
            tasks.spawn(async move {
                value.wait_for(|value| value == 2).await;
                woken.lock().unwrap().push(number);
            });
        }
        tokio::task::yield_now().await;
        value.set(1);
        tokio::task::yield_now().await;
        value.change(|value| value + 1);
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
        assert_eq!(*woken.lock().unwrap(), (0..50).collect::<Vec<_>>());
        assert_eq!(value.wait_for(|value| value == 2).await, 2, "it may hold already");
    }
}
