//! What happened in the last minute, by whoever did it.
//!
//! So many may happen at once, and each comes back in its part of a minute. What is refused does
//! not count.
//!
//! The table is bounded. If it is full, those are forgotten who have done nothing for a minute; if
//! there are none, newcomers share one count.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::{Bound, Counted, LimitReached};
use crate::lock::Lock;
use crate::routing::token_bucket::{Rate, TokenBucket};

/// How many have a count of their own.
const COUNTED_MAX: usize = 100_000;

/// How often a full table is searched for those who have done nothing.
const SEARCHED_EVERY: Duration = Duration::from_secs(1);

/// Counts of the last minute.
#[derive(Debug, Default)]
pub struct Rates<const RANK: u8>(Lock<Table, RANK>);

/// Invariant: `each` has at most [`COUNTED_MAX`] entries.
#[derive(Debug, Default)]
struct Table {
    each: HashMap<Counted, TokenBucket>,
    /// Of those who are too many to have their own.
    others: Option<TokenBucket>,
    all: Option<TokenBucket>,
    /// When a full table was last searched.
    searched: Option<Instant>,
}

/// How much may happen in a minute.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// By each who is counted.
    pub each: Option<Bound>,
    /// By all together.
    pub all: Option<Bound>,
}

impl Allowed {
    #[must_use]
    pub fn is_anything(&self) -> bool {
        self.each.is_none() && self.all.is_none()
    }
}

/// Where one was counted for its limit of each, so that it can be given back there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CountedIn {
    /// In the count of whoever did it.
    His,
    /// In the count of those who have none of their own.
    Others,
    /// Nowhere: each is not limited.
    Nothing,
}

impl<const RANK: u8> Rates<RANK> {
    /// Counts one more. Takes no lock if nothing is limited.
    ///
    /// # Errors
    /// It is one too many, and is not counted.
    pub fn count(
        &self,
        who: impl FnOnce() -> Counted,
        allowed: Allowed,
        now: Instant,
    ) -> Result<CountedIn, LimitReached> {
        if allowed.is_anything() {
            return Ok(CountedIn::Nothing);
        }
        self.0.lock().count(who(), allowed, now)
    }

    /// One that was counted there for this limit did not happen.
    pub fn give_back(&self, who: &Counted, counted: CountedIn, bound: Bound) {
        let mut table = self.0.lock();
        let bucket = match counted {
            // Who was forgotten meanwhile has nothing to get back.
            CountedIn::His => table.each.get_mut(who),
            CountedIn::Others => table.others.as_mut(),
            CountedIn::Nothing => None,
        };
        if let Some(bucket) = bucket {
            bucket.give_back(a_minute(bound.max));
        }
    }
}

impl Table {
    fn count(
        &mut self,
        who: Counted,
        allowed: Allowed,
        now: Instant,
    ) -> Result<CountedIn, LimitReached> {
        if let Some(bound) = allowed.all {
            check(self.all.get_or_insert_with(|| TokenBucket::new(now)), bound, now)?;
        }
        let mut counted = CountedIn::Nothing;
        if let Some(bound) = who.own(allowed.each) {
            let (bucket, place) = self.bucket(who, now);
            check(bucket, bound, now)?;
            bucket.take(1, a_minute(bound.max), now);
            counted = place;
        }
        // Only what neither limit refuses is counted by both.
        if let (Some(bound), Some(bucket)) = (allowed.all, &mut self.all) {
            bucket.take(1, a_minute(bound.max), now);
        }
        Ok(counted)
    }

    fn bucket(&mut self, who: Counted, now: Instant) -> (&mut TokenBucket, CountedIn) {
        self.make_room(now);
        let has_room = self.each.len() < COUNTED_MAX || self.each.contains_key(&who);
        let new = || TokenBucket::new(now);
        match has_room {
            true => (self.each.entry(who).or_insert_with(new), CountedIn::His),
            false => (self.others.get_or_insert_with(new), CountedIn::Others),
        }
    }

    /// The search visits the whole table, and a flood of newcomers must not repeat it for each.
    fn make_room(&mut self, now: Instant) {
        let is_due = |at: Instant| SEARCHED_EVERY <= now.saturating_duration_since(at);
        if COUNTED_MAX <= self.each.len() && self.searched.is_none_or(is_due) {
            self.each.retain(|_, bucket| !bucket.is_full(now));
            self.searched = Some(now);
        }
    }
}

/// So many at once, and then as many in a minute.
fn a_minute(max: NonZeroU64) -> Rate {
    let burst = u32::try_from(max.get()).unwrap_or(u32::MAX);
    Rate { burst, every: Duration::from_mins(1) / burst }
}

fn check(bucket: &TokenBucket, bound: Bound, now: Instant) -> Result<(), LimitReached> {
    let rate = a_minute(bound.max);
    match bucket.left(rate, now) {
        0 => Err(bound.reached(bucket.wait(rate, now))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::now;

    fn user(name: &str) -> Counted {
        Counted::User(name.into())
    }

    fn allowed(each: u64, all: u64) -> Allowed {
        let bound = |name, max| Bound::of(name, NonZeroU64::new(max));
        Allowed { each: bound("each", each), all: bound("all", all) }
    }

    fn counted(table: &mut Table, name: &str, allowed: Allowed, now: Instant) -> usize {
        (0..100).filter(|_| table.count(user(name), allowed, now).is_ok()).count()
    }

    #[test]
    fn so_many_come_at_once_and_then_as_many_a_minute() {
        for max in [1, 2, 7, 60] {
            let (mut table, t, allowed) = (Table::default(), now(), allowed(max, 0));
            let mut counted = |at: Instant| counted(&mut table, "ada", allowed, at);
            let max = usize::try_from(max).unwrap();
            assert_eq!(counted(t), max);
            assert_eq!(counted(t), 0);
            let seconds = (1..=600).map(|second| counted(t + Duration::from_secs(second)));
            assert!((max * 10 - 1..=max * 10).contains(&seconds.sum::<usize>()), "{max}");
        }
    }

    #[test]
    fn each_has_a_count_and_all_have_one_together() {
        let (mut table, t, allowed) = (Table::default(), now(), allowed(2, 5));
        let mut counted = |name: &str, at| counted(&mut table, name, allowed, at);
        assert_eq!((counted("ada", t), counted("bob", t), counted("cy", t)), (2, 2, 1));
        let later = t + Duration::from_mins(5);
        assert_eq!((counted("cy", later), counted("ada", later)), (2, 2));
        let told = table.count(user("ada"), allowed, later).unwrap_err();
        assert_eq!((told.name, told.max, told.seconds), ("each", 2, 30));
    }

    #[test]
    fn who_is_refused_by_one_limit_is_not_counted_by_the_other() {
        let (mut table, t, allowed) = (Table::default(), now(), allowed(1, 3));
        assert_eq!(counted(&mut table, "ada", allowed, t), 1);
        assert_eq!(counted(&mut table, "bob", allowed, t), 1);
        assert_eq!(counted(&mut table, "cy", allowed, t), 1);
        assert_eq!(table.count(user("dee"), allowed, t).unwrap_err().name, "all");
        let later = t + Duration::from_secs(20);
        assert!(table.count(user("dee"), allowed, later).is_ok(), "the refusals cost nothing");
    }

    #[test]
    fn after_a_long_sleep_there_are_no_more_than_the_limit() {
        let (mut table, t, allowed) = (Table::default(), now(), allowed(3, 0));
        assert_eq!(counted(&mut table, "ada", allowed, t), 3);
        let month = t + Duration::from_hours(24 * 30);
        assert_eq!(counted(&mut table, "ada", allowed, month), 3);
        // A clock that stood still or went back gives nothing.
        assert_eq!(counted(&mut table, "ada", allowed, t), 0);
    }

    #[test]
    fn a_limit_that_is_lowered_or_raised_counts_at_once() {
        let (mut table, t) = (Table::default(), now());
        assert_eq!(counted(&mut table, "ada", allowed(60, 0), t), 60);
        let lowered = table.count(user("ada"), allowed(2, 0), t).unwrap_err();
        assert_eq!((lowered.max, lowered.seconds), (2, 30));
        assert!(table.count(user("ada"), allowed(2, 0), t + Duration::from_secs(30)).is_ok());
        // A part of a minute that was used is the same part of another limit.
        let raised = t + Duration::from_secs(30);
        assert_eq!(counted(&mut table, "ada", allowed(60, 0), raised), 0);
        let half = raised + Duration::from_secs(30);
        assert_eq!(counted(&mut table, "ada", allowed(60, 0), half), 30);
    }

    #[test]
    fn a_full_table_forgets_who_is_idle_and_keeps_who_is_not() {
        let (mut table, t, allowed) = (Table::default(), now(), allowed(1, 0));
        for number in 0..COUNTED_MAX {
            assert!(table.count(user(&number.to_string()), allowed, t).is_ok());
        }
        // Newcomers share one count.
        assert!(table.count(user("ada"), allowed, t).is_ok());
        assert!(table.count(user("bob"), allowed, t).is_err());
        assert!(table.count(user("7"), allowed, t).is_err(), "he is remembered");
        assert_eq!(table.each.len(), COUNTED_MAX);
        let later = t + Duration::from_mins(1);
        assert!(table.count(user("bob"), allowed, later).is_ok());
        assert_eq!(table.each.len(), 1);
    }

    #[test]
    fn who_is_not_known_counts_only_for_all_together() {
        let (mut table, t) = (Table::default(), now());
        let mut counted =
            |allowed| (0..9).filter(|_| table.count(Counted::Unknown, allowed, t).is_ok()).count();
        assert_eq!((counted(allowed(2, 0)), counted(allowed(2, 5))), (9, 5));
    }

    #[test]
    fn what_did_not_happen_is_given_back() {
        let rates: Rates<{ crate::lock::rank::REQUEST_LIMITS }> = Rates::default();
        let (t, allowed) = (now(), allowed(3, 0));
        let counted = || (0..9).filter(|_| rates.count(|| user("ada"), allowed, t).is_ok()).count();
        assert_eq!(counted(), 3);
        rates.give_back(&user("ada"), CountedIn::His, allowed.each.unwrap());
        assert_eq!(counted(), 1);
        rates.give_back(&user("bob"), CountedIn::His, allowed.each.unwrap());
        rates.give_back(&user("ada"), CountedIn::Nothing, allowed.each.unwrap());
        assert_eq!(counted(), 0);
    }

    #[test]
    fn what_is_given_back_for_one_who_was_forgotten_is_nobody_elses() {
        let rates: Rates<{ crate::lock::rank::REQUEST_LIMITS }> = Rates::default();
        let (t, allowed) = (now(), allowed(1, 0));
        let bound = allowed.each.unwrap();
        let count = |name: &str, at| rates.count(|| user(name), allowed, at);
        assert_eq!(count("ada", t), Ok(CountedIn::His));
        let later = t + Duration::from_mins(2);
        for number in 0..COUNTED_MAX {
            assert_eq!(count(&number.to_string(), later), Ok(CountedIn::His));
        }
        assert!(!rates.0.lock().each.contains_key(&user("ada")), "she was forgotten");
        assert_eq!(count("bob", later), Ok(CountedIn::Others));
        rates.give_back(&user("ada"), CountedIn::His, bound);
        assert!(count("cy", later).is_err(), "it is not his");
        rates.give_back(&user("bob"), CountedIn::Others, bound);
        assert_eq!(count("cy", later), Ok(CountedIn::Others));
    }

    #[test]
    fn exactly_the_limit_passes_however_many_come_at_once() {
        let rates: Rates<{ crate::lock::rank::PROMPT_LIMITS }> = Rates::default();
        let (t, allowed) = (now(), allowed(10, 0));
        let passed: usize = std::thread::scope(|scope| {
            let one =
                || (0..20).filter(|_| rates.count(|| user("ada"), allowed, t).is_ok()).count();
            let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            all.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(passed, 10);
    }
}
