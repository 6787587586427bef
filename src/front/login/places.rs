//! Who waits for a password to be checked.
//!
//! Each check takes a core for tens of milliseconds, so few run at one time and the others wait.
//! Whoever wants to keep others out could take all places. So browsers from which a user came in
//! before have places of their own, and no network and no user takes more than a share.

use std::net::IpAddr;
use std::sync::Arc;

use crate::auth::UserName;
use crate::front::shares::{Place, Shares, network};
use crate::lock::rank;

/// How many wait, or are being checked: of each of the two kinds.
pub(super) const PLACES: usize = 64;

/// How many of those one network or one user has.
const SHARE: usize = 16;

/// Who has many addresses has neighbouring ones. Of IPv6 a site gets such a network.
const NETWORK_BITS: (u32, u32) = (24, 48);

/// Who waits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Asker {
    /// A browser from which this user has come in before.
    Known(UserName),
    /// Somebody in this network.
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

/// One that is taken.
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
    /// A place for this one, until it is dropped. `None` if he or his kind has no more.
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
