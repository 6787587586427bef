//! What lasts, by whoever has it: it counts until it is dropped.
//!
//! Taking one locks the table; dropping one locks nothing, so that it may happen anywhere. Only
//! what is taken while a limit is set is counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use super::{Bound, Counted, LimitReached};
use crate::lock::Lock;

/// A table with fewer entries is not searched for those who have nothing any more.
const SMALL: usize = 1_024;

/// How long who has too many is told to wait. Nobody knows when one of them ends.
const SOON: Duration = Duration::from_secs(5);

/// Counts of what lasts.
#[derive(Debug, Default)]
pub struct Holdings<const RANK: u8>(Lock<Table, RANK>);

/// Invariant: `each` has at most twice as many entries as there are things, and [`SMALL`] more.
#[derive(Debug, Default)]
struct Table {
    each: HashMap<Counted, Arc<AtomicU32>>,
    all: Arc<AtomicU32>,
    /// The number of entries at which those are removed that have nothing any more.
    search_at: usize,
}

/// How much there may be.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// Whose it is, and how much each of them may have.
    pub each: SmallVec<[(Counted, Option<Bound>); 2]>,
    /// What all may have together.
    pub all: Option<Bound>,
}

impl Allowed {
    #[must_use]
    pub fn is_anything(&self) -> bool {
        self.each.iter().all(|(_, bound)| bound.is_none()) && self.all.is_none()
    }
}

impl<const RANK: u8> Holdings<RANK> {
    /// Counts one more, until it is dropped.
    ///
    /// # Errors
    /// It is one too many, and is not counted.
    pub fn take(&self, allowed: Allowed) -> Result<Held, LimitReached> {
        self.0.lock().take(allowed)
    }
}

impl Table {
    fn take(&mut self, allowed: Allowed) -> Result<Held, LimitReached> {
        self.forget_those_who_have_nothing();
        let all = (Arc::clone(&self.all), allowed.all);
        let own = allowed.each.into_iter().map(|(who, bound)| {
            let bound = who.own(bound);
            let count = self.each.entry(who).or_default();
            (Arc::clone(count), bound)
        });
        let counts: SmallVec<[_; 3]> = own.chain([all]).collect();
        for (count, bound) in &counts {
            let has = u64::from(count.load(Ordering::Relaxed));
            if let Some(bound) = bound.filter(|bound| bound.max.get() <= has) {
                return Err(bound.reached(SOON));
            }
        }
        // Nobody else adds to them: the table is locked.
        let held = counts.into_iter().map(|(count, _)| {
            count.fetch_add(1, Ordering::Relaxed);
            count
        });
        Ok(Held(held.collect()))
    }

    fn forget_those_who_have_nothing(&mut self) {
        if self.each.len() < self.search_at.max(SMALL) {
            return;
        }
        // Whoever has something shares its count.
        self.each.retain(|_, count| 1 < Arc::strong_count(count));
        self.search_at = self.each.len() * 2;
    }
}

/// Something that counts.
#[derive(Debug)]
pub struct Held(SmallVec<[Arc<AtomicU32>; 3]>);

impl Drop for Held {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn allowed(name: &str, each: u64, all: u64) -> Allowed {
        let bound = |name, max| Bound::of(name, NonZeroU64::new(max));
        let each = [(Counted::User(name.into()), bound("each", each))];
        Allowed { each: each.into_iter().collect(), all: bound("all", all) }
    }

    fn refused(taken: Result<Held, LimitReached>) -> Option<&'static str> {
        taken.err().map(|it| it.name)
    }

    #[test]
    fn one_counts_until_it_is_dropped() {
        let mut table = Table::default();
        let first = table.take(allowed("ada", 2, 3)).unwrap();
        let _second = table.take(allowed("ada", 2, 3)).unwrap();
        assert_eq!(refused(table.take(allowed("ada", 2, 3))), Some("each"));
        let bobs = table.take(allowed("bob", 2, 3)).unwrap();
        assert_eq!(refused(table.take(allowed("bob", 2, 3))), Some("all"));
        drop((first, bobs));
        let third = table.take(allowed("ada", 2, 3));
        assert_eq!(table.all.load(Ordering::Relaxed), 2);
        assert_eq!(refused(third), None);
    }

    #[test]
    fn whoever_has_more_than_a_lowered_limit_keeps_it_and_gets_no_more() {
        let mut table = Table::default();
        let mut held: Vec<_> = (0..5).map(|_| table.take(allowed("ada", 5, 0)).unwrap()).collect();
        assert_eq!(refused(table.take(allowed("ada", 2, 0))), Some("each"));
        held.truncate(2);
        assert_eq!(refused(table.take(allowed("ada", 2, 0))), Some("each"));
        held.truncate(1);
        assert_eq!(refused(table.take(allowed("ada", 2, 0))), None);
    }

    #[test]
    fn each_of_several_limits_counts() {
        let mut table = Table::default();
        let at = |user: &str| {
            let bound = |name, max| Bound::of(name, NonZeroU64::new(max));
            let here = Counted::Address([192, 0, 2, 1].into());
            let each =
                [(Counted::User(user.into()), bound("user", 2)), (here, bound("address", 3))];
            Allowed { each: each.into_iter().collect(), all: None }
        };
        let _held: Vec<_> =
            ["ada", "ada", "bob"].map(|user| table.take(at(user)).unwrap()).into_iter().collect();
        assert_eq!(refused(table.take(at("ada"))), Some("user"));
        assert_eq!(refused(table.take(at("bob"))), Some("address"));
    }

    #[test]
    fn the_table_does_not_grow_with_those_who_have_nothing_any_more() {
        let mut table = Table::default();
        let kept = table.take(allowed("kept", 1, 0)).unwrap();
        for number in 0..100_000 {
            drop(table.take(allowed(&number.to_string(), 1, 0)));
        }
        assert!(table.each.len() <= SMALL, "{}", table.each.len());
        assert_eq!(refused(table.take(allowed("kept", 1, 0))), Some("each"), "he is remembered");
        drop(kept);
    }

    #[test]
    fn exactly_the_limit_is_taken_however_many_come_at_once() {
        let holdings: Holdings<{ crate::lock::rank::SOCKET_LIMITS }> = Holdings::default();
        let held: Vec<Held> = std::thread::scope(|scope| {
            let one = || (0..20).filter_map(|_| holdings.take(allowed("ada", 10, 0)).ok());
            let all: Vec<_> =
                (0..4).map(|_| scope.spawn(move || one().collect::<Vec<_>>())).collect();
            all.into_iter().flat_map(|it| it.join().unwrap()).collect()
        });
        assert_eq!(held.len(), 10);
    }
}
