//! How a backend leaves the fleet: at once, or as soon as it has drained.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tracing::info;

use super::Backend;
use crate::fleet::NOBODY;
use crate::fleet::up_state::UpState;
use crate::net::{now, unix_millis};

/// That a backend is to leave as soon as it has drained.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Going {
    /// Who does not want it any more.
    pub by: Arc<str>,
    /// Since when, in milliseconds since 1970, perhaps in an earlier process.
    pub at: u64,
    /// Since when in this one.
    since: Instant,
}

impl Going {
    /// From now on.
    #[must_use]
    pub fn now(by: &str) -> Self {
        Self::since(by.into(), unix_millis())
    }

    /// From then on, in milliseconds since 1970.
    #[must_use]
    pub fn since(by: Arc<str>, at: u64) -> Self {
        Self { by, at, since: now() }
    }
}

impl Backend {
    /// It is not in the fleet any more. What is done for it ends, and nobody waits for it.
    pub(in crate::fleet) fn leave(&self) {
        self.has_left.store(true, Ordering::SeqCst);
        self.leaving.cancel();
        self.up_state.change(|turned| UpState { up: false, ..turned.again() });
    }

    /// True if it is remembered only for the sake of records that name it.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.has_left.load(Ordering::SeqCst)
    }

    /// True for what stands for a backend while there is none.
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.id == NOBODY
    }

    /// Resolves when it leaves the fleet, or the process stops. Cancel safe.
    pub fn leaves(&self) -> WaitForCancellationFuture<'_> {
        self.leaving.cancelled()
    }

    /// A token for what is done with it: cancelled when it leaves, when the process stops, or
    /// earlier by its owner.
    #[must_use]
    pub fn child_token(&self) -> CancellationToken {
        self.leaving.child_token()
    }

    /// It is to leave as soon as it has drained. True if that is news.
    pub(in crate::fleet) fn goes(&self, going: Going) -> bool {
        let by = Arc::clone(&going.by);
        let is_news = self.set_going(Some(going));
        if is_news {
            info!(backend = %self.name(), by = &*by, "Backend leaves when it has drained.");
        }
        is_news
    }

    /// It stays, if it was to leave. True if that is news.
    pub(in crate::fleet) fn stays(&self) -> bool {
        let is_news = self.set_going(None);
        if is_news {
            info!(backend = %self.name(), "Backend stays after all.");
        }
        is_news
    }

    /// True if that is news.
    fn set_going(&self, going: Option<Going>) -> bool {
        let mut state = self.state();
        if state.going.is_some() == going.is_some() {
            return false;
        }
        self.going.store(going.is_some(), Ordering::Relaxed);
        state.going = going;
        true
    }

    /// Since when it is to leave as soon as it has drained; `None` while it stays.
    #[must_use]
    pub fn going_since(&self) -> Option<Instant> {
        self.state().going.as_ref().map(|going| going.since)
    }

    /// Who does not want it any more, and since when; `None` while it stays.
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
