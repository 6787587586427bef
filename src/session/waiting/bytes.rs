//! How many bodies are kept, and their bytes: in all, and of each who is limited.

use std::collections::HashMap;
use std::hash::Hash;

/// One of them may have this part of all bytes, so nobody can keep the others out alone.
const SHARE: u64 = 4;

#[derive(Debug)]
pub(super) struct Bytes<K> {
    all: u64,
    each: HashMap<K, Own>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Own {
    bodies: usize,
    bytes: u64,
}

/// Why one more body has no room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoRoom {
    /// It has none, however empty the queue is.
    Ever,
    InAll,
    OfSharer,
}

impl<K> Default for Bytes<K> {
    fn default() -> Self {
        Self { all: 0, each: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash> Bytes<K> {
    pub(super) fn all(&self) -> u64 {
        self.all
    }

    /// How many bodies of one are kept.
    pub(super) fn bodies(&self, whose: &K) -> usize {
        self.each.get(whose).map_or(0, |own| own.bodies)
    }

    /// Whether one more body of his has room. The first one has also if it is larger than
    /// the share.
    pub(super) fn has_room(&self, whose: &K, bytes: u64, max: u64) -> Result<(), NoRoom> {
        let own = self.each.get(whose).map_or(0, |own| own.bytes);
        if max < bytes {
            return Err(NoRoom::Ever);
        }
        if own != 0 && share(max) < own.saturating_add(bytes) {
            return Err(NoRoom::OfSharer);
        }
        if max < self.all.saturating_add(bytes) { Err(NoRoom::InAll) } else { Ok(()) }
    }

    pub(super) fn add(&mut self, whose: &K, bytes: u64) {
        self.all += bytes;
        let own = self.each.entry(whose.clone()).or_default();
        (own.bodies, own.bytes) = (own.bodies + 1, own.bytes + bytes);
    }

    pub(super) fn take_off(&mut self, whose: &K, bytes: u64) {
        self.all = self.all.saturating_sub(bytes);
        if let Some(own) = self.each.get_mut(whose) {
            own.bodies = own.bodies.saturating_sub(1);
            own.bytes = own.bytes.saturating_sub(bytes);
            if own.bodies == 0 {
                self.each.remove(whose);
            }
        }
    }
}

/// How much one sharer may have.
pub(super) fn share(max: u64) -> u64 {
    max / SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_fills_it_alone_and_one_body_of_each_has_room() {
        let mut kept = Bytes::default();
        assert_eq!(kept.has_room(&"ada", 101, 100), Err(NoRoom::Ever));
        assert_eq!(kept.has_room(&"ada", 60, 100), Ok(()), "the first, although it is large");
        kept.add(&"ada", 60);
        assert_eq!(kept.has_room(&"ada", 1, 100), Err(NoRoom::OfSharer));
        assert_eq!(kept.has_room(&"bob", 41, 100), Err(NoRoom::InAll));
        kept.add(&"bob", 20);
        assert_eq!(kept.has_room(&"bob", 5, 100), Ok(()));
        assert_eq!(kept.has_room(&"bob", 6, 100), Err(NoRoom::OfSharer));
        assert_eq!((kept.bodies(&"bob"), kept.bodies(&"cleo")), (1, 0));
        kept.take_off(&"ada", 60);
        assert_eq!((kept.all(), kept.has_room(&"ada", 80, 100)), (20, Ok(())));
        kept.take_off(&"bob", 20);
        assert_eq!((kept.all(), kept.each.len()), (0, 0));
    }
}
