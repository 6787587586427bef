//! What people see of the servers: whether each is there, and whether work on it is planned.
//!
//! A page that has asked for this is told when it changes, and then asks again.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroU64;
use std::time::Instant;

use serde::Serialize;

use super::Client;
use crate::fleet::Fleet;
use crate::routing::placement::{AdminState, BackendView, Condition};

/// How a server is, for people.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServerState {
    /// It is there and has nothing to do.
    Free,
    Busy,
    /// It does not answer, does not work any more, or is switched off.
    Away,
}

impl ServerState {
    #[must_use]
    pub fn of(view: &BackendView) -> Self {
        match view.condition {
            Condition::Wedged => Self::Away,
            Condition::Well | Condition::Suspect | Condition::Shut => match (view.up, view.load) {
                (false, _) => Self::Away,
                (true, 0) => Self::Free,
                (true, _) => Self::Busy,
            },
        }
    }
}

/// True if an operator takes the server out of service, or it leaves the fleet.
#[must_use]
pub fn is_planned(view: &BackendView) -> bool {
    view.admin != AdminState::Ready
}

/// Identifies what people see of the servers, but for their load, which changes all the time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark(NonZeroU64);

impl Mark {
    #[must_use]
    pub fn of(fleet: &Fleet, now: Instant) -> Self {
        Self::of_views(&fleet.views(now))
    }

    fn of_views(views: &[BackendView]) -> Self {
        let mut hasher = DefaultHasher::new();
        for view in views {
            let is_away = ServerState::of(view) == ServerState::Away;
            (view.id, is_away, is_planned(view)).hash(&mut hasher);
        }
        Self(NonZeroU64::MIN | hasher.finish())
    }
}

impl Client {
    /// Its pages show the servers as they are with this mark. They are told when that changes.
    pub fn shows_servers(&self, mark: Mark) {
        self.state().shows_servers(mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::placement::tests::fleet;

    /// Backends as [`fleet`] writes them.
    fn state(view: &str) -> ServerState {
        ServerState::of(&fleet(view)[0])
    }

    fn mark(views: &str) -> Mark {
        Mark::of_views(&fleet(views))
    }

    #[test]
    fn a_server_is_free_busy_or_away() {
        assert_eq!(state("Ru0"), ServerState::Free);
        assert_eq!(state("R?3"), ServerState::Busy);
        assert_eq!(state("Rs1"), ServerState::Busy, "what it has goes on");
        assert_eq!(state("Rw1"), ServerState::Away);
        assert_eq!(state("Rd1"), ServerState::Away);
    }

    #[test]
    fn pages_are_told_what_lasts_and_not_each_job() {
        assert_eq!(mark("Ru0 Ru1"), mark("R?9 Rs0"));
        for other in ["Rd0 Ru1", "Ru0 Rw1", "Du0 Ru1", "Ru0"] {
            assert_ne!(mark("Ru0 Ru1"), mark(other), "{other}");
        }
    }
}
