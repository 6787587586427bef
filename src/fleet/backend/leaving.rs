//! How a backend leaves the fleet: at once, or when it has drained.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tracing::info;

use super::Backend;
use crate::fleet::NOBODY;
use crate::fleet::up_state::UpState;
use crate::net::{now, unix_millis};

/// A backend is to leave when it has drained.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Going {
    /// The source that no longer wants it.
    pub by: Arc<str>,
    /// Since when, in milliseconds since 1970; may be in an earlier process.
    pub at: u64,
    /// Since when in this process.
    since: Instant,
}

impl Going {
    /// From now on.
    #[must_use]
    pub fn now(by: &str) -> Self {
        Self::since(by.into(), unix_millis())
    }

    /// From that time on, in milliseconds since 1970.
    #[must_use]
    pub fn since(by: Arc<str>, at: u64) -> Self {
        Self { by, at, since: now() }
    }
}

/// How a backend leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::fleet) enum Leaves {
    /// No client is held there. It may be healthy, and answers the requests that it was sent.
    Drained,
    /// With whatever it has: an operator forced it, or another server has its address.
    AtOnce,
}

impl Backend {
    /// It has left the fleet. Its tasks end, and nobody waits for it, except the requests that it
    /// was sent before, if it has drained.
    pub(in crate::fleet) fn leave(&self, how: Leaves) {
        self.has_left.store(true, Ordering::SeqCst);
        self.leaving.cancel();
        let has_drained = how == Leaves::Drained;
        self.up_state.change(|turned| UpState { up: false, has_drained, ..turned.again() });
    }

    /// True if it is remembered only because records name it.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.has_left.load(Ordering::SeqCst)
    }

    /// True for the placeholder that stands for a backend while there is none.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.id == NOBODY
    }

    /// Resolves when it leaves the fleet, or the process stops. Cancel safe.
    pub fn leaves(&self) -> WaitForCancellationFuture<'_> {
        self.leaving.cancelled()
    }

    /// A token for tasks that use it: cancelled when it leaves, when the process stops, or earlier
    /// by its owner.
    #[must_use]
    pub fn child_token(&self) -> CancellationToken {
        self.leaving.child_token()
    }

    /// It is to leave when it has drained. True if that is a change.
    pub(in crate::fleet) fn goes(&self, going: Going) -> bool {
        let by = Arc::clone(&going.by);
        let is_news = self.set_going(Some(going));
        if is_news {
            info!(backend = %self.name(), by = &*by, "Backend leaves when it has drained.");
        }
        is_news
    }

    /// It stays, if it was to leave. True if that is a change.
    pub(in crate::fleet) fn stays(&self) -> bool {
        let is_news = self.set_going(None);
        if is_news {
            info!(backend = %self.name(), "Backend stays after all.");
        }
        is_news
    }

    /// True if that is a change.
    fn set_going(&self, going: Option<Going>) -> bool {
        let mut state = self.state();
        if state.going.is_some() == going.is_some() {
            return false;
        }
        self.going.store(going.is_some(), Ordering::Relaxed);
        state.going = going;
        true
    }

    /// Since when it is to leave; `None` while it stays.
    #[must_use]
    pub fn going_since(&self) -> Option<Instant> {
        self.state().going.as_ref().map(|going| going.since)
    }

    /// The source that no longer wants it, and since when; `None` while it stays.
    #[must_use]
    pub fn going(&self) -> Option<Going> {
        self.state().going.clone()
    }

    /// True if it is to leave when it has drained. Takes no lock.
    #[must_use]
    pub fn is_going(&self) -> bool {
        self.going.load(Ordering::Relaxed)
    }
}
