//! What was used up in a day, by whoever used it.
//!
//! A day is 24 hours, from the first use on. Then the next day begins with the next use. What is
//! used up is often known only afterwards. So it may be more than the limit, and nothing more is
//! allowed then until the day is over.
//!
//! The table is bounded. If it is full, those are forgotten whose day is over; if there are none,
//! newcomers share one count.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Bound, Counted, LimitReached};
use crate::lock::Lock;

/// How long a day is.
const DAY: Duration = Duration::from_hours(24);

/// How many have a count of their own.
const COUNTED_MAX: usize = 100_000;

/// How often a full table is searched for those whose day is over.
const SEARCHED_EVERY: Duration = Duration::from_secs(1);

/// Counts of a day.
#[derive(Debug, Default)]
pub struct Days<const RANK: u8>(Lock<Table, RANK>);

/// Invariant: `each` has at most [`COUNTED_MAX`] entries.
#[derive(Debug, Default)]
struct Table {
    each: HashMap<Counted, Used>,
    /// Of those who are too many to have their own.
    others: Used,
    all: Used,
    /// When a full table was last searched.
    searched: Option<Instant>,
}

/// What was used up in a day.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    amount: u64,
    /// When the day began.
    since: Option<Instant>,
}

/// How much may be used up in a day.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// By each who is counted.
    pub each: Option<Bound>,
    /// By all together.
    pub all: Option<Bound>,
    /// How much of what is counted is one of what is limited.
    pub unit: u64,
}

impl Allowed {
    #[must_use]
    pub fn is_anything(&self) -> bool {
        self.each.is_none() && self.all.is_none()
    }
}

impl<const RANK: u8> Days<RANK> {
    /// Checks that so much is left, and that anything is. It uses up nothing: what somebody only
    /// announces must not be missing for others. Takes no lock if nothing is limited.
    ///
    /// # Errors
    /// It is more than is left, or nothing is left.
    pub fn check(
        &self,
        who: impl FnOnce() -> Counted,
        amount: u64,
        allowed: Allowed,
        now: Instant,
    ) -> Result<(), LimitReached> {
        if allowed.is_anything() {
            return Ok(());
        }
        // What costs nothing yet still needs something that is left.
        self.0.lock().check(&who(), amount.max(1), allowed, now)
    }

    /// Something was used up, whatever is allowed.
    pub fn use_up(&self, who: Counted, amount: u64, now: Instant) {
        self.0.lock().use_up(who, amount, now);
    }

    /// Something was used up, as with [`Self::use_up`].
    ///
    /// # Errors
    /// It was more than was left.
    pub fn pay(
        &self,
        who: &Counted,
        amount: u64,
        allowed: Allowed,
        now: Instant,
    ) -> Result<(), LimitReached> {
        let mut table = self.0.lock();
        let is_enough = table.check(who, amount, allowed, now);
        table.use_up(who.clone(), amount, now);
        is_enough
    }
}

impl Table {
    fn check(
        &self,
        who: &Counted,
        amount: u64,
        allowed: Allowed,
        now: Instant,
    ) -> Result<(), LimitReached> {
        let each = (self.used(who, now), who.own(allowed.each));
        let all = (self.all, allowed.all);
        [each, all]
            .iter()
            .try_for_each(|(used, bound)| used.check(amount, *bound, allowed.unit, now))
    }

    fn used(&self, who: &Counted, now: Instant) -> Used {
        match self.each.get(who) {
            Some(used) => *used,
            None if self.each.len() < COUNTED_MAX => Used::default(),
            None => Used { amount: self.others.so_far(now), ..self.others },
        }
    }

    fn use_up(&mut self, who: Counted, amount: u64, now: Instant) {
        if amount == 0 {
            return;
        }
        self.make_room(now);
        let has_room = self.each.len() < COUNTED_MAX || self.each.contains_key(&who);
        let used = if has_room { self.each.entry(who).or_default() } else { &mut self.others };
        used.add(amount, now);
        self.all.add(amount, now);
    }

    /// The search visits the whole table, and a flood of newcomers must not repeat it for each.
    fn make_room(&mut self, now: Instant) {
        let is_due = |at: Instant| SEARCHED_EVERY <= now.saturating_duration_since(at);
        if COUNTED_MAX <= self.each.len() && self.searched.is_none_or(is_due) {
            self.each.retain(|_, used| used.so_far(now) != 0);
            self.searched = Some(now);
        }
    }
}

impl Used {
    /// How much of the day is left. Nothing if none has begun.
    fn left(&self, now: Instant) -> Duration {
        let since = self.since.map(|since| now.saturating_duration_since(since));
        since.map_or(Duration::ZERO, |since| DAY.saturating_sub(since))
    }

    fn so_far(&self, now: Instant) -> u64 {
        if self.left(now).is_zero() { 0 } else { self.amount }
    }

    fn check(
        &self,
        amount: u64,
        bound: Option<Bound>,
        unit: u64,
        now: Instant,
    ) -> Result<(), LimitReached> {
        let Some(bound) = bound else { return Ok(()) };
        let max = bound.max.get().saturating_mul(unit);
        match self.so_far(now).saturating_add(amount) <= max {
            true => Ok(()),
            false => Err(bound.reached(self.left(now))),
        }
    }

    fn add(&mut self, amount: u64, now: Instant) {
        let so_far = self.so_far(now);
        let begins = so_far == 0;
        self.amount = so_far.saturating_add(amount);
        self.since = if begins { Some(now) } else { self.since };
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::lock::rank;
    use crate::net::now;

    type OfTest = Days<{ rank::GPU_LIMITS }>;

    fn user(name: &str) -> Counted {
        Counted::User(name.into())
    }

    fn allowed(each: u64, all: u64) -> Allowed {
        let bound = |name, max| Bound::of(name, NonZeroU64::new(max));
        Allowed { each: bound("each", each), all: bound("all", all), unit: 1 }
    }

    fn taken(days: &OfTest, name: &str, amount: u64, at: Instant) -> Result<(), LimitReached> {
        days.check(|| user(name), amount, allowed(100, 150), at)?;
        days.pay(&user(name), amount, allowed(100, 150), at)
    }

    #[test]
    fn a_day_has_so_much_and_the_next_one_as_much_again() {
        let (days, t) = (OfTest::default(), now());
        assert_eq!(taken(&days, "ada", 60, t), Ok(()));
        assert_eq!(taken(&days, "ada", 40, t + DAY / 2), Ok(()), "exactly the limit");
        let reached = taken(&days, "ada", 1, t + DAY / 2).unwrap_err();
        assert_eq!((reached.name, reached.max, reached.seconds), ("each", 100, 12 * 60 * 60));
        assert_eq!(taken(&days, "ada", 100, t + DAY), Ok(()), "the next day");
        assert!(taken(&days, "ada", 1, t + DAY * 2 - Duration::from_secs(1)).is_err());
        let month = t + DAY * 30;
        assert!(taken(&days, "ada", 101, month).is_err(), "after a long sleep it is no more");
        assert_eq!(taken(&days, "ada", 100, month), Ok(()));
    }

    #[test]
    fn all_together_have_one_count() {
        let (days, t) = (OfTest::default(), now());
        assert_eq!(taken(&days, "ada", 100, t), Ok(()));
        assert_eq!(taken(&days, "bob", 60, t).unwrap_err().name, "all");
        assert_eq!(taken(&days, "bob", 50, t), Ok(()), "what was refused cost nothing");
        assert_eq!(taken(&days, "cy", 0, t).unwrap_err().name, "all", "nothing is left");
    }

    #[test]
    fn who_is_not_known_counts_only_for_all_together() {
        let (days, t) = (OfTest::default(), now());
        let taken = |amount| days.pay(&Counted::Unknown, amount, allowed(100, 150), t);
        assert_eq!(taken(150), Ok(()));
        assert_eq!(taken(1).unwrap_err().name, "all");
    }

    #[test]
    fn what_is_known_afterwards_may_be_more_and_then_nothing_is_left() {
        let (days, t) = (OfTest::default(), now());
        assert_eq!(taken(&days, "ada", 0, t), Ok(()));
        days.use_up(user("ada"), 120, t);
        assert_eq!(taken(&days, "ada", 0, t).unwrap_err().name, "each");
        assert_eq!(taken(&days, "bob", 0, t), Ok(()));
        assert_eq!(taken(&days, "ada", 0, t + DAY), Ok(()));
    }

    #[test]
    fn what_is_announced_is_not_missing_for_others_and_what_came_is_paid_for() {
        let (days, t) = (OfTest::default(), now());
        let check = |name: &str, amount| days.check(|| user(name), amount, allowed(100, 150), t);
        for _ in 0..10 {
            assert_eq!(check("ada", 100), Ok(()), "an announcement costs nothing");
        }
        let pay = |name: &str, amount| days.pay(&user(name), amount, allowed(100, 150), t);
        assert_eq!(pay("ada", 90), Ok(()));
        assert_eq!(pay("ada", 30).unwrap_err().name, "each", "what came is counted all the same");
        assert_eq!(check("bob", 31).unwrap_err().name, "all");
        assert_eq!(pay("bob", 30), Ok(()));
        assert_eq!(pay("bob", 0), Ok(()), "an empty piece needs nothing");
    }

    #[test]
    fn a_full_table_forgets_whose_day_is_over_and_nobody_else() {
        let (days, t) = (OfTest::default(), now());
        for number in 0..COUNTED_MAX {
            days.use_up(user(&number.to_string()), 100, t);
        }
        let each = |name: &str, at| {
            days.check(|| user(name), 100, allowed(100, 0), at)?;
            days.pay(&user(name), 100, allowed(100, 0), at)
        };
        assert_eq!(each("ada", t), Ok(()), "newcomers share one count");
        assert!(each("bob", t).is_err());
        assert!(each("7", t).is_err(), "he is remembered");
        assert_eq!(days.0.lock().each.len(), COUNTED_MAX);
        assert_eq!(each("bob", t + DAY), Ok(()));
        assert_eq!(days.0.lock().each.len(), 1);
    }
}
