//! How a backend leaves the fleet: at once, or as soon as it has drained.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tracing::info;

use super::Backend;
use crate::fleet::NOBODY;
use crate::fleet::up_state::UpState;
use crate::net::now;

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

    /// It is to leave as soon as it has drained.
    pub fn goes(&self) {
        if self.set_going(Some(now())) {
            info!(backend = %self.name(), "Backend leaves when it has drained.");
        }
    }

    /// It stays, if it was to leave.
    pub fn stays(&self) {
        if self.set_going(None) {
            info!(backend = %self.name(), "Backend stays after all.");
        }
    }

    /// True if that is news.
    fn set_going(&self, going: Option<Instant>) -> bool {
        let mut state = self.state();
        if state.going.is_some() == going.is_some() {
            return false;
        }
        state.going = going;
        self.going.store(going.is_some(), Ordering::Relaxed);
        true
    }

    /// Since when it is to leave as soon as it has drained; `None` while it stays.
    #[must_use]
    pub fn going_since(&self) -> Option<Instant> {
        self.state().going
    }
}
