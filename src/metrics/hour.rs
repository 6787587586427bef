//! The prompts that ended in the last hour, minute by minute, for the plots of the dashboard.
//!
//! It has a fixed size and no lock. An end that is counted at the very turn of a minute, while
//! another thread clears that minute, may be missing in a plot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::routing::pending::End;

/// So many minutes are told, the one that runs included.
pub const MINUTES: usize = 60;

/// One more than is told: the minute that is cleared next is not among them.
const KEPT: usize = MINUTES + 1;

/// What ended in a minute.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Minute {
    pub completed: u64,
    /// Failed, interrupted, deleted or lost.
    pub others: u64,
    /// The mean time until they ran; `None` if none of them is known to have run.
    pub waited: Option<Duration>,
    /// The mean time for which they ran.
    pub ran: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Hour {
    began: Instant,
    minutes: [Counts; KEPT],
}

/// Counts and sums of one minute, in milliseconds.
#[derive(Debug, Default)]
struct Counts {
    /// Which minute it is, from 1 on.
    minute: AtomicU64,
    completed: AtomicU64,
    others: AtomicU64,
    waited: Mean,
    ran: Mean,
}

#[derive(Debug, Default)]
struct Mean {
    count: AtomicU64,
    millis: AtomicU64,
}

impl Hour {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, minutes: std::array::from_fn(|_| Counts::default()) }
    }

    pub(super) fn ended(&self, end: End, [waited, ran]: [Option<Duration>; 2], now: Instant) {
        let minute = self.minute(now);
        let counts = self.counts(minute);
        if counts.minute.swap(minute, Ordering::Relaxed) != minute {
            counts.clear();
        }
        let count = if end == End::Succeeded { &counts.completed } else { &counts.others };
        count.fetch_add(1, Ordering::Relaxed);
        counts.waited.add(waited);
        counts.ran.add(ran);
    }

    /// The last hour, the oldest minute first.
    pub(super) fn look(&self, now: Instant) -> [Minute; MINUTES] {
        let newest = self.minute(now);
        std::array::from_fn(|index| {
            let minute = (newest + 1 + index as u64).saturating_sub(MINUTES as u64);
            let counts = self.counts(minute);
            let is_it = 0 < minute && counts.minute.load(Ordering::Relaxed) == minute;
            if is_it { counts.told() } else { Minute::default() }
        })
    }

    fn minute(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / 60 + 1
    }

    fn counts(&self, minute: u64) -> &Counts {
        let index = usize::try_from(minute % KEPT as u64).unwrap_or_default();
        &self.minutes[index]
    }
}

impl Counts {
    fn clear(&self) {
        let Self { minute: _, completed, others, waited, ran } = self;
        for count in [completed, others, &waited.count, &waited.millis, &ran.count, &ran.millis] {
            count.store(0, Ordering::Relaxed);
        }
    }

    fn told(&self) -> Minute {
        Minute {
            completed: self.completed.load(Ordering::Relaxed),
            others: self.others.load(Ordering::Relaxed),
            waited: self.waited.told(),
            ran: self.ran.told(),
        }
    }
}

impl Mean {
    fn add(&self, took: Option<Duration>) {
        let Some(took) = took else { return };
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.millis.fetch_add(millis, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn told(&self) -> Option<Duration> {
        let millis = self.millis.load(Ordering::Relaxed);
        millis.checked_div(self.count.load(Ordering::Relaxed)).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::now;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_minute_has_what_ended_in_it() {
        let began = now();
        let hour = Hour::new(began);
        let at = |seconds: u32| began + SECOND * seconds;
        hour.ended(End::Succeeded, [Some(SECOND), Some(SECOND * 10)], at(1));
        hour.ended(End::Succeeded, [Some(SECOND * 3), Some(SECOND * 20)], at(59));
        hour.ended(End::Deleted, [None, None], at(60));
        let told = hour.look(at(61));
        let [.., before, newest] = told;
        let (waited, ran) = (Some(SECOND * 2), Some(SECOND * 15));
        assert_eq!(before, Minute { completed: 2, others: 0, waited, ran });
        assert_eq!(newest, Minute { others: 1, ..Minute::default() });
        assert_eq!(told[..58], [Minute::default(); 58]);
    }

    #[test]
    fn what_is_older_than_an_hour_is_not_told() {
        let began = now();
        let hour = Hour::new(began);
        let at = |minutes: u32| began + SECOND * 60 * minutes;
        hour.ended(End::Failed, [None, None], at(0));
        assert_eq!(hour.look(at(59))[0].others, 1);
        assert_eq!(hour.look(at(60)), [Minute::default(); MINUTES]);
        for minutes in [61, 122, 10_000] {
            hour.ended(End::Succeeded, [None, None], at(minutes));
            let told = hour.look(at(minutes));
            assert_eq!(told[MINUTES - 1], Minute { completed: 1, ..Minute::default() });
            assert_eq!(told.iter().map(|it| it.others).sum::<u64>(), 0);
        }
    }
}
