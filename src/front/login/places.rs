//! Places for requests whose password is being checked.
//!
//! Each check takes a core for tens of milliseconds, so only a few run at the same time and the
//! others wait. An attacker could take all places. So browsers from which a user has logged in
//! before have places of their own, and no network and no user gets more than a share.

use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::UserName;
use crate::front::shares::{Place, Shares, network};
use crate::lock::rank;

/// How many requests of each of the two kinds may wait or be checked.
pub(super) const PLACES: usize = 64;

/// How many of these one network or one user may have.
const SHARE: usize = 16;

/// Somebody who has many addresses has neighbouring ones. With IPv6 a site has a network of this
/// size.
const NETWORK_BITS: (u32, u32) = (24, 48);

/// Who takes a place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Asker {
    /// A browser from which this user has logged in before.
    Known(UserName),
    /// Any other client in this network.
    In(IpAddr),
}

impl Asker {
    pub(super) fn at(address: IpAddr) -> Self {
        Self::In(network(address, NETWORK_BITS))
    }
}

/// The places of both kinds.
#[derive(Debug)]
pub(super) struct Places {
    known: Arc<Shares<UserName, { rank::LOGIN_PLACES }>>,
    strangers: Arc<Shares<IpAddr, { rank::LOGIN_PLACES }>>,
}

/// A place that is taken.
#[derive(Debug)]
pub(super) enum Taken {
    ByKnown { _place: Place<UserName, { rank::LOGIN_PLACES }> },
    ByStranger { _place: Place<IpAddr, { rank::LOGIN_PLACES }> },
}

impl Default for Places {
    fn default() -> Self {
        Self { known: Shares::new(PLACES, SHARE), strangers: Shares::new(PLACES, SHARE) }
    }
}

impl Places {
    /// Takes a place until it is dropped. `None` if the asker or the kind has no free one.
    pub(super) fn take(&self, asker: &Asker) -> Option<Taken> {
        match asker {
            Asker::Known(user) => {
                self.known.take(user).map(|place| Taken::ByKnown { _place: place })
            }
            Asker::In(network) => {
                self.strangers.take(network).map(|place| Taken::ByStranger { _place: place })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_browsers_and_strangers_have_places_of_their_own() {
        let at = |address: &str| Asker::at(address.parse().unwrap());
        let known = |name: &str| Asker::Known(name.parse().unwrap());
        let places = Places::default();
        let all = |asker: Asker| std::iter::repeat_with(move || asker.clone());
        let of_one: Vec<Taken> =
            all(at("192.0.2.1")).map_while(|asker| places.take(&asker)).collect();
        assert_eq!(of_one.len(), SHARE);
        assert!(places.take(&at("192.0.2.200")).is_none(), "a neighbour");
        let many = (0..=255).map(|net| at(&format!("10.0.{net}.1")));
        let many: Vec<Taken> = many.map_while(|asker| places.take(&asker)).collect();
        assert_eq!(many.len(), PLACES - SHARE);
        assert!(places.take(&at("198.51.100.1")).is_none(), "all are taken");
        let adas: Vec<Taken> = all(known("ada")).map_while(|it| places.take(&it)).collect();
        assert_eq!(adas.len(), SHARE);
        assert!(places.take(&known("bob")).is_some(), "one user keeps out no other");
        drop((of_one, many, adas));
        assert!(places.take(&at("198.51.100.1")).is_some());
    }

    #[test]
    fn neighbours_are_one() {
        let at = |address: &str| Asker::at(address.parse().unwrap());
        assert_eq!(at("192.0.2.1"), at("::ffff:192.0.2.77"));
        assert_ne!(at("192.0.2.1"), at("192.0.3.1"));
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:ffff::2"));
        assert_ne!(at("2001:db8:1::1"), at("2001:db8:2::1"));
    }
}
