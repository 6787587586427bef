//! Takes a prompt back that was shown to a backend.

use std::time::{Duration, Instant};

use tracing::debug;

use super::Sending;
use crate::comfy::answers::Sighting;
use crate::net::{now, sleep};
use crate::routing::pending::{ABSENT_LOOKS_APART, Fate};

/// The pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How long a trial asks for its prompt itself. After that the reconciler takes it back.
const TAKES_BACK_FOR: Duration = Duration::from_secs(10);

/// Where a prompt is after it was taken back.
pub(super) enum Back {
    Waits,
    /// It has begun, and stays.
    Stays,
    /// The process that it was shown to is gone, and may have begun it.
    Lost,
    /// Its backend does not say. It is asked until it does.
    Unknown,
    /// It has ended meanwhile, by a reset or by itself.
    Over,
}

/// Whether a backend has answered that it took a prompt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum IsClear {
    Yes,
    No,
}

impl Sending {
    /// Deletes it at the backend, until it is known to be nowhere or to have begun.
    ///
    /// One look that misses it is enough if the backend has answered that it took it, and the link
    /// shows that it is the same process still. Otherwise it takes two, as everywhere.
    pub(super) async fn takes_back(&self, is_clear: IsClear) -> Back {
        let limit = self.front.shared.config().fleet.probe_timeout;
        let until = now() + TAKES_BACK_FOR;
        let mut missed: Option<Instant> = None;
        // After a restart its record says that it is to be taken back.
        let is_stopping = || self.front.shared.tasks.is_stopping();
        while now() < until && !is_stopping() {
            if !self.is_pending() {
                return Back::Over;
            }
            // What was not deleted is seen by the look.
            let _ = self.backend().delete(std::slice::from_ref(&self.prompt), limit).await;
            match self.backend().look_for(&self.prompt, limit).await {
                Ok(Sighting::Absent) => {
                    if self.backend().restarted().is_some_and(|gone| self.sent < gone) {
                        match self.fate() {
                            Fate::Stays => return Back::Lost,
                            Fate::Unclear => {
                                sleep(LOOK_AGAIN).await;
                                continue;
                            }
                            Fate::Unbegun | Fate::Lost => return Back::Over,
                        }
                    }
                    let first = *missed.get_or_insert_with(now);
                    let is_same = self.link.listens_since().is_some_and(|it| it <= self.sent);
                    let is_sure = ABSENT_LOOKS_APART <= now().duration_since(first);
                    if is_sure || (is_clear == IsClear::Yes && is_same) {
                        return Back::Waits;
                    }
                }
                Ok(Sighting::Running { .. } | Sighting::Ended(_)) => return Back::Stays,
                Ok(Sighting::Queued { .. }) => missed = None,
                Err(error) => debug!(prompt = %self.prompt, %error, "Looking for a prompt."),
            }
            sleep(LOOK_AGAIN).await;
        }
        Back::Unknown
    }
}
