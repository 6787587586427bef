//! A limited number of places. Nobody gets more than a share, so nobody can keep all others out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::lock::Lock;

/// Places, counted for each `K`.
#[derive(Debug)]
pub struct Shares<K, const RANK: u8> {
    all: usize,
    each: usize,
    taken: Lock<Taken<K>, RANK>,
}

#[derive(Debug)]
struct Taken<K> {
    count: usize,
    each: BTreeMap<K, usize>,
}

impl<K: Ord + Clone, const RANK: u8> Shares<K, RANK> {
    /// `all` places. Each `K` may have `each` of them.
    #[must_use]
    pub fn new(all: usize, each: usize) -> Arc<Self> {
        let taken = Taken { count: 0, each: BTreeMap::new() };
        Arc::new(Self { all, each, taken: Lock::new(taken) })
    }

    /// Takes a place until it is dropped. `None` if all places, or all of this share, are taken.
    #[must_use]
    pub fn take(self: &Arc<Self>, whose: &K) -> Option<Place<K, RANK>> {
        let mut taken = self.taken.lock();
        let has_share = taken.each.get(whose).is_some_and(|count| self.each <= *count);
        if self.all <= taken.count || has_share {
            return None;
        }
        taken.count += 1;
        *taken.each.entry(whose.clone()).or_default() += 1;
        Some(Place { shares: Arc::clone(self), whose: whose.clone() })
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.lock().count
    }
}

/// A place that is taken.
#[derive(Debug)]
pub struct Place<K: Ord + Clone, const RANK: u8> {
    shares: Arc<Shares<K, RANK>>,
    whose: K,
}

impl<K: Ord + Clone, const RANK: u8> Drop for Place<K, RANK> {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock();
        taken.count -= 1;
        if let Some(count) = taken.each.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                taken.each.remove(&self.whose);
            }
        }
    }
}

/// The network of an address, with this many bits for IPv4 and for IPv6.
#[must_use]
pub fn network(address: IpAddr, (v4, v6): (u32, u32)) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(u32::BITS - v4).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(u128::BITS - v6).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// The household or machine of an address: for IPv6 it is the network of 64 bits.
#[must_use]
pub fn holder(address: IpAddr) -> IpAddr {
    network(address, (32, 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::rank;

    #[test]
    fn nobody_has_more_than_a_share_and_all_together_no_more_than_there_are() {
        let shares: Arc<Shares<u8, { rank::SAVES }>> = Shares::new(10, 4);
        let take = |whose: u8| std::iter::from_fn(move || Some(whose));
        let of_one: Vec<_> = take(1).map_while(|it| shares.take(&it)).collect();
        assert_eq!(of_one.len(), 4);
        let of_others: Vec<_> = (2..=255).map_while(|it| shares.take(&it)).collect();
        assert_eq!((of_others.len(), shares.taken()), (6, 10));
        drop(of_one);
        assert!(shares.take(&1).is_some());
        drop(of_others);
        assert_eq!((shares.taken(), shares.taken.lock().each.len()), (0, 0));
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_alike() {
        let of = |address: &str, bits| network(address.parse().unwrap(), bits).to_string();
        assert_eq!(of("192.0.2.77", (24, 48)), "192.0.2.0");
        assert_eq!(of("::ffff:192.0.2.77", (32, 48)), "192.0.2.77");
        assert_eq!(of("2001:db8:1:2:3::4", (24, 48)), "2001:db8:1::");
        assert_eq!(holder("2001:db8:1:2:3::4".parse().unwrap()).to_string(), "2001:db8:1:2::");
        assert_eq!(of("192.0.2.77", (0, 0)), "0.0.0.0");
        assert_eq!(of("2001:db8::1", (0, 128)), "2001:db8::1");
    }
}
