//! How much work a backend has: what it reports, plus what it cannot have counted yet, minus what
//! it has finished but still counts (promise B4).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::net::now;

/// How long an answered submission counts in addition to the reported queue length if no `status`
/// came after its answer: the `status` may have come just before it.
const SETTLES: Duration = Duration::from_millis(500);

/// Answered submissions are counted in time steps, not one by one. A placement reads the load of
/// every backend, and must not take a lock for each.
const STEPS: usize = 10;

/// The load of one backend.
#[derive(Debug)]
pub struct Load {
    /// Waiting and running prompts, according to the last `status` event.
    queue_remaining: AtomicU32,
    /// Submissions that go to it and are not answered.
    in_flight: AtomicU32,
    /// The number of submissions that were answered in each of the last [`STEPS`] steps, and that
    /// no later `status` includes. The upper half is the number of the step, the lower half the
    /// count.
    settling: [AtomicU64; STEPS],
    /// The number of prompts that ended and that no `status` has subtracted, in the same form, with
    /// the step of the last of them. ComfyUI sends an end first and counts afterwards, and a client
    /// that gets the end may submit the next prompt at once.
    ended: AtomicU64,
    began: Instant,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            queue_remaining: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            settling: [const { AtomicU64::new(0) }; STEPS],
            ended: AtomicU64::new(0),
            began: now(),
        }
    }
}

impl Load {
    /// A `status` event gave the number of waiting and running prompts. It includes every answered
    /// submission. Ended prompts are subtracted only as far as the number has decreased: ends come
    /// on other connections, and the `status` may be from before them.
    pub fn counted(&self, queue_remaining: u32) {
        let before = self.queue_remaining.swap(queue_remaining, Ordering::Relaxed);
        self.settling.iter().for_each(|step| step.store(0, Ordering::Relaxed));
        let fewer = u64::from(before.saturating_sub(queue_remaining));
        let taken_off = |ended: u64| Some(ended - fewer.min(u64::from(low(ended))));
        let _ = self.ended.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken_off);
    }

    /// A submission will go to this backend.
    pub fn expect_one(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// The backend accepted the submission.
    pub fn taken(&self, now: Instant) {
        let step = self.step(now);
        let one_more = |counted: u64| match counted >> 32 == step {
            true => Some(counted + 1),
            false => Some(step << 32 | 1),
        };
        // The number of a step is below 2^32 for six years, and older counts are never used.
        let place = usize::try_from(step).unwrap_or_default() % STEPS;
        let settling = &self.settling[place];
        let _ = settling.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The backend has sent the end of a prompt, and may not have subtracted it yet.
    pub fn ended(&self, now: Instant) {
        let step = self.step(now);
        let one_more = |ended: u64| Some((step << 32) | (u64::from(recent(ended, step)) + 1));
        let _ = self.ended.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    }

    /// The submission was refused, or never sent.
    pub fn not_taken(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// The last reported number.
    #[must_use]
    pub fn queue_remaining(&self) -> u32 {
        self.queue_remaining.load(Ordering::Relaxed)
    }

    /// The load that a placement compares. Answered and ended prompts count for `SETTLES`, or for
    /// up to a step less.
    #[must_use]
    pub fn total(&self, now: Instant) -> u32 {
        let step = self.step(now);
        let counted = |it: &AtomicU64| recent(it.load(Ordering::Relaxed), step);
        let settling = self.settling.iter().map(counted);
        let there = settling.fold(self.queue_remaining(), u32::saturating_add);
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        there.saturating_sub(counted(&self.ended)).saturating_add(in_flight)
    }

    fn step(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began).as_millis();
        let length = SETTLES.as_millis() / STEPS as u128;
        u64::try_from(since / length).unwrap_or(u64::MAX) & 0xffff_ffff
    }
}

/// The count, unless it is so old that the backend has counted it itself.
fn recent(counted: u64, step: u64) -> u32 {
    let is_recent = step < (counted >> 32) + STEPS as u64;
    low(counted) * u32::from(is_recent)
}

fn low(counted: u64) -> u32 {
    u32::try_from(counted & 0xffff_ffff).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_counts_until_a_status_has_counted_it() {
        let load = Load::default();
        let t = load.began;
        load.expect_one();
        assert_eq!(load.total(t), 1, "decided");
        load.taken(t);
        assert_eq!(load.total(t), 1, "answered, not yet seen counted");
        load.counted(1);
        assert_eq!(load.total(t), 1, "counted, and only once");
    }

    #[test]
    fn a_status_that_came_before_the_answer_is_believed_in_the_end() {
        let load = Load::default();
        let t = load.began;
        load.expect_one();
        load.counted(1);
        load.taken(t);
        assert_eq!(load.total(t), 2);
        assert_eq!(load.total(t + SETTLES - SETTLES / 5), 2, "a step early at most");
        assert_eq!(load.total(t + SETTLES), 1);
    }

    #[test]
    fn what_settles_is_counted_whenever_it_was_answered() {
        let load = Load::default();
        let t = load.began;
        for tenth in 0..40 {
            load.expect_one();
            load.taken(t + tenth * SETTLES / 10);
        }
        let last = t + 39 * SETTLES / 10;
        assert!((9..=10).contains(&load.total(last)), "{}", load.total(last));
        assert_eq!(load.total(last + SETTLES), 0);
    }

    #[test]
    fn what_has_ended_is_taken_off_until_a_status_has_done_so() {
        let load = Load::default();
        let t = load.began;
        load.counted(2);
        load.ended(t);
        assert_eq!(load.total(t), 1, "told, and not yet counted out");
        load.counted(1);
        assert_eq!(load.total(t), 1, "counted out, and only once");
        load.ended(t);
        load.counted(2);
        assert_eq!(load.total(t), 1, "a status from before the end");
        load.ended(t);
        load.counted(1);
        load.ended(t);
        assert_eq!(load.total(t), 0, "never below nothing");
        load.expect_one();
        assert_eq!(load.total(t), 1, "what is on its way did not end");
        load.not_taken();
        assert_eq!(load.total(t + SETTLES), 1, "in the end the backend is believed");
    }
}
