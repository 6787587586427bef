//! Copies that wait to be written, in the order of arrival. A newer answer for the same copy
//! replaces the older one. The total and the share of each address are limited. Pure.

use std::collections::{HashMap, VecDeque};

use super::name::{Name, Owner};
use crate::front::conditional::Whole;

/// How many copies may wait to be written, and their bytes. More are dropped, because the next
/// answer can be copied instead.
pub(super) const WAITING_MAX: usize = 256;
const WAITING_BYTES_MAX: u64 = 32 << 20;

/// One address may have this fraction of them.
pub(super) const SHARE: usize = 4;

/// All waiting copies.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: HashMap<Name, Waiting>,
    /// Contains each copy once.
    order: VecDeque<Name>,
}

/// The work for one copy.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    Put { owner: Owner, at: u64, whole: Whole },
    Confirm { at: u64 },
}

impl Queue {
    /// Adds a copy. False if there is no room.
    pub(super) fn put(&mut self, name: Name, owner: Owner, at: u64, whole: Whole) -> bool {
        let has_room = self.has_room(name, owner, whole.body.len() as u64);
        if has_room {
            self.insert(name, Waiting::Put { owner, at, whole });
        }
        has_room
    }

    /// Notes that the home has confirmed a copy. False if that is not needed, or if there is no
    /// room.
    pub(super) fn confirm(&mut self, name: Name, at: u64) -> bool {
        let waits = !self.has(name) && self.order.len() < WAITING_MAX;
        if waits {
            self.insert(name, Waiting::Confirm { at });
        }
        waits
    }

    fn insert(&mut self, name: Name, it: Waiting) {
        if self.waiting.insert(name, it).is_none() {
            self.order.push_back(name);
        }
    }

    pub(super) fn has(&self, name: Name) -> bool {
        self.waiting.contains_key(&name)
    }

    /// A copy that already waits is replaced. Otherwise there must be room, for its owner and in
    /// total.
    fn has_room(&self, name: Name, owner: Owner, bytes: u64) -> bool {
        let others = self.order.len() - usize::from(self.has(name));
        let (mut all, mut own) = (0, (0, 0));
        for (_, it) in self.waiting.iter().filter(|(other, _)| **other != name) {
            let Waiting::Put { owner: other, whole, .. } = it else { continue };
            let len = whole.body.len() as u64;
            all += len;
            if *other == owner {
                own = (own.0 + 1, own.1 + len);
            }
        }
        let is_first = own.0 == 0;
        others < WAITING_MAX
            && all + bytes <= WAITING_BYTES_MAX
            && own.0 < WAITING_MAX / SHARE
            && (is_first || own.1 + bytes <= WAITING_BYTES_MAX / SHARE as u64)
    }

    /// Drops copies that are not wanted any more.
    pub(super) fn forget(&mut self, is_meant: impl Fn(Name) -> bool) {
        self.waiting.retain(|name, _| !is_meant(*name));
        self.order.retain(|name| !is_meant(*name));
    }

    /// Takes the first one that may be written now.
    pub(super) fn take(&mut self, may_go: impl Fn(Name) -> bool) -> Option<(Name, Waiting)> {
        let at = self.order.iter().position(|name| may_go(*name))?;
        let name = self.order.remove(at)?;
        Some((name, self.waiting.remove(&name)?))
    }

    /// Puts one back at the front.
    pub(super) fn give_back(&mut self, name: Name, it: Waiting) {
        if self.waiting.insert(name, it).is_none() {
            self.order.push_front(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    const ADA: Owner = Owner(1);
    const BOB: Owner = Owner(2);

    fn name(key: u128) -> Name {
        Name { group: 1, key }
    }

    fn whole(bytes: usize) -> Whole {
        Whole { headers: HeaderMap::new(), body: Bytes::from(vec![b'x'; bytes]) }
    }

    #[test]
    fn nobody_fills_what_waits_and_all_of_it_is_bounded() {
        let mut queue = Queue::default();
        let admitted = (0..1_000).filter(|key| queue.put(name(*key), BOB, 1, whole(1))).count();
        assert_eq!(admitted, WAITING_MAX / SHARE);
        assert!(queue.put(name(5_000), ADA, 1, whole(1)), "there is room for another");
        let large = 12 << 20;
        let more = (6_000..6_009).filter(|key| queue.put(name(*key), ADA, 1, whole(large)));
        assert_eq!(more.count(), 0, "more than a share");
        assert!(queue.put(name(7_000), Owner(3), 1, whole(large)), "one may be large");
        for owner in 4..1_000 {
            queue.put(name(10_000 + u128::from(owner)), Owner(owner), 1, whole(1));
            queue.confirm(name(20_000 + u128::from(owner)), 1);
        }
        assert_eq!(queue.waiting.len(), WAITING_MAX);
        assert_eq!(queue.waiting.len(), queue.order.len());
    }

    #[test]
    fn what_may_not_go_yet_keeps_its_turn_and_nobody_waits_for_it() {
        let mut queue = Queue::default();
        (1..=3).for_each(|key| assert!(queue.put(name(key), ADA, 1, whole(1))));
        let (second, it) = queue.take(|it| it != name(1)).unwrap();
        assert_eq!(second, name(2));
        queue.give_back(second, it);
        queue.forget(|it| it == name(3));
        let order = [0; 2].map(|_| queue.take(|_| true).map(|(name, _)| name.key));
        assert_eq!(order, [Some(2), Some(1)]);
        assert!(queue.take(|_| true).is_none() && queue.order.is_empty());
    }
}
