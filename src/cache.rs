//! A cache of values that do not change: bounded by bytes, the least recently used value goes
//! first.
//!
//! It is meant for the history entries of ended prompts, which are final, and for files that have a
//! hash in their name. It is pure: to share one, put it under a lock.
//!
//! # Invariants
//!
//! - The values weigh no more than the capacity; each value weighs its bytes and an overhead, so
//!   that many small ones are bounded too.
//! - A value that is heavier than the whole capacity is not kept.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// What keeping a value costs beside its own bytes: two maps, a key, two allocations.
const OVERHEAD: usize = 256;

/// Values by their keys, which should be cheap to clone.
#[derive(Debug)]
pub struct Cache<K, V> {
    kept: HashMap<K, Kept<V>>,
    /// The keys by their last use, oldest first.
    by_use: BTreeMap<u64, K>,
    next_use: u64,
    weight: usize,
    capacity: usize,
}

#[derive(Debug)]
struct Kept<V> {
    value: V,
    weight: usize,
    last_use: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    /// At most `capacity` bytes; 0 keeps nothing.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { kept: HashMap::new(), by_use: BTreeMap::new(), next_use: 0, weight: 0, capacity }
    }

    /// Another capacity holds from now on; what is too much goes, the longest unused first.
    pub fn limit(&mut self, capacity: usize) {
        self.capacity = capacity;
        while self.capacity < self.weight {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.forget(&oldest);
        }
    }

    /// The value of a key, which is used now. Values should be cheap to clone.
    #[must_use]
    pub fn get(&mut self, key: &K) -> Option<V> {
        let kept = self.kept.get_mut(key)?;
        if let Some(id) = self.by_use.remove(&kept.last_use) {
            kept.last_use = self.next_use;
            self.by_use.insert(self.next_use, id);
            self.next_use += 1;
        }
        Some(kept.value.clone())
    }

    /// Keeps a value of `bytes` bytes, in the place of an earlier one. It must not be a part of
    /// something larger that it would keep alive.
    pub fn insert(&mut self, key: &K, value: V, bytes: usize) {
        self.remove(key);
        let weight = bytes.saturating_add(OVERHEAD);
        if self.capacity < weight {
            return;
        }
        while self.capacity - weight < self.weight {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            self.forget(&oldest);
        }
        let last_use = self.next_use;
        self.next_use += 1;
        self.weight += weight;
        self.by_use.insert(last_use, key.clone());
        self.kept.insert(key.clone(), Kept { value, weight, last_use });
    }

    /// Forgets the value of a key.
    pub fn remove(&mut self, key: &K) {
        if let Some(last_use) = self.forget(key) {
            self.by_use.remove(&last_use);
        }
    }

    /// All keys and their values, in no order. Nothing is used by that.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.kept.iter().map(|(key, kept)| (key, &kept.value))
    }

    /// What all that is kept weighs, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    fn forget(&mut self, key: &K) -> Option<u64> {
        let kept = self.kept.remove(key)?;
        self.weight -= kept.weight;
        Some(kept.last_use)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    /// A key of some type that is not the values'.
    fn id(number: usize) -> String {
        number.to_string()
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let mut cache = Cache::new(3 * (OVERHEAD + 10));
        for number in 0..3 {
            cache.insert(&id(number), number, 10);
        }
        assert_eq!(cache.get(&id(0)), Some(0));
        cache.insert(&id(3), 3, 10);
        let kept: Vec<Option<usize>> = (0..4).map(|number| cache.get(&id(number))).collect();
        assert_eq!(kept, [Some(0), None, Some(2), Some(3)]);
    }

    #[test]
    fn what_is_too_heavy_is_not_kept_and_takes_nothing_else_with_it() {
        let mut cache = Cache::new(1_000);
        cache.insert(&id(0), 0, 100);
        cache.insert(&id(1), 1, 1_000);
        cache.insert(&id(2), 2, usize::MAX);
        assert_eq!((cache.len(), cache.get(&id(0))), (1, Some(0)));
        cache.insert(&id(0), 7, 1_000);
        assert_eq!((cache.get(&id(0)), cache.weight()), (None, 0), "the old one is stale");
        let mut none: Cache<String, u8> = Cache::new(0);
        none.insert(&id(0), 0, 0);
        assert!(none.is_empty());
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_never_gives_what_was_replaced(
            story in vec((0..3_u8, 0..8_usize, 0..600_usize), 0..100),
        ) {
            let mut cache = Cache::new(1_500);
            let mut newest = [None; 8];
            for (turn, (what, which, bytes)) in story.into_iter().enumerate() {
                match what {
                    0 => {
                        cache.insert(&id(which), turn, bytes);
                        newest[which] = Some(turn);
                        prop_assert_eq!(cache.get(&id(which)), Some(turn));
                    }
                    1 => {
                        cache.remove(&id(which));
                        newest[which] = None;
                    }
                    _ => {
                        let given = cache.get(&id(which));
                        prop_assert!(given.is_none() || given == newest[which]);
                    }
                }
                let weight: usize = cache.kept.values().map(|kept| kept.weight).sum();
                prop_assert!(cache.weight() == weight && weight <= 1_500);
                prop_assert_eq!(cache.by_use.len(), cache.kept.len());
                for (last_use, key) in &cache.by_use {
                    prop_assert_eq!(cache.kept[key].last_use, *last_use);
                }
            }
        }
    }
}
