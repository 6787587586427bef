//! Sockets of node packs, passed through to their backends (promise S11). This module knows which
//! are open, their owners and backends, how many are allowed, and when one must end.
//!
//! A tunnel passes bytes in both directions without understanding them: Mooring understands its own
//! `/ws` and no other socket. So a tunnel does not bind its client to the backend. It only makes
//! this backend the preferred one for a client that has nothing pending.
//!
//! - [`splice`]: both directions of one tunnel, and its end
//! - [`pump`]: one direction
//!
//! # Invariants
//!
//! - The number of open tunnels is limited, in total and for each owner.
//! - A tunnel is in the table exactly as long as its [`Place`] lives.

pub mod pump;
pub mod splice;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smallvec::SmallVec;

use crate::config::SocketsConfig;
use crate::lock::{Guard, Lock, rank};
use crate::ordered_watch::{OrderedWatch, Packed};
use crate::routing::ids::{BackendId, ClientId};

/// Who has opened a tunnel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Owner {
    Client(ClientId),
    /// No known client. All connections from one address count together.
    Address(IpAddr),
}

/// Why a tunnel is to be closed. It determines the close code (RFC 6455 section 7.4) and the
/// reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Farewell {
    /// Mooring stops.
    Restarting,
    /// The operator is draining the backend.
    Draining,
    ServerIsDown,
    /// The owner is not allowed in any more.
    Barred,
}

impl Farewell {
    /// The close code: RFC 6455 section 7.4.1, and 1012 of IANA's registry.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Restarting => 1012,
            Self::Draining | Self::ServerIsDown => 1001,
            Self::Barred => 1008,
        }
    }

    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Restarting => "restarting",
            Self::Draining => "draining",
            Self::ServerIsDown => "server is down",
            Self::Barred => "your key is not valid any more",
        }
    }
}

impl Packed for Option<Farewell> {
    fn pack(self) -> u64 {
        match self {
            None => 0,
            Some(Farewell::Restarting) => 1,
            Some(Farewell::Draining) => 2,
            Some(Farewell::ServerIsDown) => 3,
            Some(Farewell::Barred) => 4,
        }
    }

    fn unpack(word: u64) -> Self {
        match word {
            1 => Some(Farewell::Restarting),
            2 => Some(Farewell::Draining),
            3 => Some(Farewell::ServerIsDown),
            4 => Some(Farewell::Barred),
            _ => None,
        }
    }
}

/// The maximum number of tunnels is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TooMany {
    #[error("this client has reached its limit of {max} open sockets of node packs")]
    OfOwner { max: usize },
    #[error("the limit of {max} open sockets of node packs is reached")]
    InAll { max: usize },
}

/// The open tunnels. Cheap to clone; all clones share one table.
#[derive(Clone, Debug, Default)]
pub struct Tunnels(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: Lock<Table, { rank::TUNNELS }>,
    /// The number of tunnels. Each submission asks for tunnels, and mostly there are none.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    owner: Owner,
    backend: BackendId,
    end: Arc<OrderedWatch<Option<Farewell>>>,
}

impl Tunnels {
    /// Takes a place for a tunnel that is about to be opened.
    ///
    /// # Errors
    /// The maximum is reached.
    pub fn enter(
        &self,
        owner: Owner,
        backend: BackendId,
        limits: &SocketsConfig,
    ) -> Result<Place, TooMany> {
        let mut table = self.table();
        if limits.max_tunnels <= table.open.len() {
            return Err(TooMany::InAll { max: limits.max_tunnels });
        }
        let of_owner = table.open.values().filter(|open| open.owner == owner).count();
        if limits.max_tunnels_per_client <= of_owner {
            return Err(TooMany::OfOwner { max: limits.max_tunnels_per_client });
        }
        let key = table.next;
        table.next += 1;
        let end = Arc::<OrderedWatch<Option<Farewell>>>::default();
        table.open.insert(key, Open { owner, backend, end: Arc::clone(&end) });
        self.0.count.store(table.open.len(), Ordering::Release);
        Ok(Place { tunnels: self.clone(), key, end })
    }

    /// The backends to which a client has tunnels.
    #[must_use]
    pub fn backends_of(&self, client: &ClientId) -> SmallVec<[BackendId; 2]> {
        if self.is_empty() {
            return SmallVec::new();
        }
        let table = self.table();
        let is_its = |open: &&Open| matches!(&open.owner, Owner::Client(id) if id == client);
        let mut backends: SmallVec<[BackendId; 2]> =
            table.open.values().filter(is_its).map(|open| open.backend).collect();
        backends.sort_unstable();
        backends.dedup();
        backends
    }

    /// True if there is a tunnel to this backend.
    #[must_use]
    pub fn lead_to(&self, backend: BackendId) -> bool {
        self.table().open.values().any(|open| open.backend == backend)
    }

    /// Closes all tunnels to a backend.
    pub fn close_to(&self, backend: BackendId, farewell: Farewell) {
        let table = self.table();
        let there = table.open.values().filter(|open| open.backend == backend);
        there.for_each(|open| open.end.set(Some(farewell)));
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn table(&self) -> Guard<'_, Table, { rank::TUNNELS }> {
        self.0.table.lock()
    }
}

/// A tunnel's place in the table. It is freed when it is dropped.
#[derive(Debug)]
pub struct Place {
    tunnels: Tunnels,
    key: u64,
    end: Arc<OrderedWatch<Option<Farewell>>>,
}

impl Place {
    /// Waits until the tunnel is to be closed. Cancel safe.
    pub async fn told_to_end(&self) -> Farewell {
        loop {
            if let Some(farewell) = self.end.wait_for(|end| end.is_some()).await {
                return farewell;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.tunnels.table();
        table.open.remove(&self.key);
        self.tunnels.0.count.store(table.open.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn client(name: &str) -> Owner {
        Owner::Client(ClientId::parse(name).unwrap())
    }

    #[tokio::test]
    async fn no_more_are_open_than_may_be_and_a_place_is_given_back() {
        let mut limits = Config::for_backends(&[("a", "http://a:1")]).unwrap().sockets;
        (limits.max_tunnels, limits.max_tunnels_per_client) = (3, 2);
        let tunnels = Tunnels::default();
        let enter = |owner: Owner, backend| tunnels.enter(owner, BackendId::nth(backend), &limits);
        let first = enter(client("ada"), 0).unwrap();
        let second = enter(client("ada"), 1).unwrap();
        assert_eq!(enter(client("ada"), 0).unwrap_err(), TooMany::OfOwner { max: 2 });
        let address = Owner::Address(IpAddr::from([127, 0, 0, 1]));
        let third = enter(address.clone(), 1).unwrap();
        assert_eq!(enter(client("bob"), 0).unwrap_err(), TooMany::InAll { max: 3 });
        let ada = ClientId::parse("ada").unwrap();
        assert_eq!(tunnels.backends_of(&ada)[..], [BackendId::nth(0), BackendId::nth(1)]);
        drop(first);
        assert_eq!(tunnels.backends_of(&ada)[..], [BackendId::nth(1)]);
        assert_eq!(
            (tunnels.lead_to(BackendId::nth(0)), tunnels.lead_to(BackendId::nth(1))),
            (false, true)
        );
        let farewell = Farewell::Draining;
        tunnels.close_to(BackendId::nth(1), farewell);
        assert_eq!((second.told_to_end().await, third.told_to_end().await), (farewell, farewell));
        drop((second, third));
        assert!(tunnels.is_empty());
        assert!(enter(address, 0).is_ok());
    }
}
