//! A ledger in shards, each with its own lock, so that an update delays only access to the same
//! shard.

use smallvec::SmallVec;

use crate::lock::{Guard, Lock};
use crate::routing::shard::{Key, bounds};

/// How many of a list are looked up before other tasks get a turn.
const AT_ONCE: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Shards<T, const RANK: u8>(Box<[Lock<T, RANK>]>);

impl<T, const RANK: u8> Shards<T, RANK> {
    /// A ledger of `capacity` entries; `make` creates a shard for its part of them.
    pub(super) fn new(capacity: usize, make: impl Fn(usize) -> T) -> Self {
        Self(bounds(capacity).into_iter().map(|capacity| Lock::new(make(capacity))).collect())
    }

    /// The shard of a key. Locked for one call, never together with another.
    #[cfg_attr(debug_assertions, track_caller)]
    pub(super) fn at(&self, key: Key) -> Guard<'_, T, RANK> {
        self.0[self.index_of(key)].lock()
    }

    /// The index of a key's shard in [`Self::each`].
    pub(super) fn index_of(&self, key: Key) -> usize {
        key.shard(self.0.len())
    }

    /// All of them, one after the other.
    pub(super) fn each(&self) -> impl Iterator<Item = Guard<'_, T, RANK>> {
        self.0.iter().map(Lock::lock)
    }

    /// Gives each shard its own items, in their order.
    pub(super) fn divide<I>(
        &self,
        items: Vec<I>,
        key: impl Fn(&I) -> Key,
        mut act: impl FnMut(&mut Guard<'_, T, RANK>, Vec<I>),
    ) {
        let mut parts: Vec<Vec<I>> = self.0.iter().map(|_| Vec::new()).collect();
        for item in items {
            parts[self.index_of(key(&item))].push(item);
        }
        for (shard, items) in self.0.iter().zip(parts) {
            act(&mut shard.lock(), items);
        }
    }

    /// True if both lie in one shard.
    pub(super) fn are_together(&self, one: Key, other: Key) -> bool {
        self.index_of(one) == self.index_of(other)
    }

    /// Visits several items, shard by shard. Each lock is taken once, or once per [`AT_ONCE`] items
    /// if there are more. `act` gets a shard and the indexes of its items, in their order.
    #[cfg_attr(debug_assertions, track_caller)]
    pub(super) fn each_of(
        &self,
        keys: impl Iterator<Item = Key>,
        mut act: impl FnMut(&mut Guard<'_, T, RANK>, &[(usize, usize)]),
    ) {
        let shard = |(place, key): (usize, Key)| (self.index_of(key), place);
        let mut places: SmallVec<[(usize, usize); 8]> = keys.enumerate().map(shard).collect();
        places.sort_unstable();
        for together in places.chunk_by(|one, other| one.0 == other.0) {
            for some in together.chunks(AT_ONCE) {
                let Some((shard, _)) = some.first() else { continue };
                act(&mut self.0[*shard].lock(), some);
            }
        }
    }
}
