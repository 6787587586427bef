//! The link: the one socket to a client's backend. Dials, negotiates, notices silence, redials
//! (promise S1).
//!
//! ComfyUI keeps one socket per id and forgets the *newer* one when the older one closes. So a link
//! is dialled only after the TCP connection of the previous link to that backend has ended. A link
//! that misses events which the watch link received is dialled again: see
//! [`Link::probe_if_suspect`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::orphan::Seen;
use crate::fleet::dial_limiter::Haste;
use crate::lock::{Guard, Lock, rank};
use crate::ordered_watch::{OrderedWatch, Packed};
use crate::routing::ids::BackendId;
use crate::ws::Frame;
use crate::ws::outbox::Outbox;

pub use runner::run;

mod runner;

/// The payload of the ping that proves an orphan: the ping is answered, but the `status` still did
/// not come.
const ORPHAN_PING: &[u8] = b"orphan?";

/// The state of a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    Dialling,
    /// Negotiated: events will arrive.
    Open,
    /// Its TCP connection has ended for good.
    Closed,
}

impl Phase {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dialling => "dialling",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl Packed for Phase {
    fn pack(self) -> u64 {
        match self {
            Self::Dialling => 0,
            Self::Open => 1,
            Self::Closed => 2,
        }
    }

    fn unpack(word: u64) -> Self {
        match word {
            0 => Self::Dialling,
            1 => Self::Open,
            _ => Self::Closed,
        }
    }
}

/// A link, as its client holds it; the task that runs it holds another reference.
#[derive(Debug)]
pub struct Link {
    pub backend: BackendId,
    /// How urgent its first dial is.
    haste: Haste,
    phase: OrderedWatch<Phase>,
    stop: CancellationToken,
    outbox: Outbox,
    /// Notified when a prompt waits for the link to open.
    wanted: Notify,
    seen: Lock<Seen, { rank::SEEN }>,
}

impl Link {
    /// A link whose task has not started.
    #[must_use]
    pub fn new(backend: BackendId, haste: Haste, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            backend,
            haste,
            phase: OrderedWatch::new(Phase::Dialling),
            stop,
            outbox: Outbox::default(),
            wanted: Notify::new(),
            seen: Lock::default(),
        })
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Since when it receives its backend's events; `None` while it does not.
    #[must_use]
    pub fn listens_since(&self) -> Option<Instant> {
        let opened = self.seen().opened_at();
        opened.filter(|_| self.phase() == Phase::Open)
    }

    /// Since when it has received its backend's events, also if it has ended since.
    pub(super) fn heard_since(&self) -> Option<Instant> {
        self.seen().opened_at()
    }

    /// True if the newest `status` that the watch link got did not come: the backend may have
    /// forgotten this link.
    pub(super) fn lacks_status(&self, watched: Option<Instant>) -> bool {
        self.seen().lacks(watched)
    }

    /// Waits until it is open; false if `limit` passes or it closes first.
    pub async fn is_open_within(&self, limit: Duration) -> bool {
        // Only while it is dialling: otherwise the request would hasten a later redial.
        if self.phase() == Phase::Dialling {
            self.wanted.notify_one();
        }
        let completion = self.phase.wait_for(|phase| phase != Phase::Dialling);
        matches!(timeout(limit, completion).await, Ok(Phase::Open))
    }

    /// Asks it to close; it ends with the TCP connection.
    pub fn close(&self) {
        self.stop.cancel();
    }

    /// Sends a client's message to the backend, if there is room.
    pub fn send(&self, frame: Frame) {
        // ComfyUI ignores all messages except the first, which is ours. So a dropped one has no
        // effect.
        self.outbox.push(frame);
    }

    /// A `status` arrived on it.
    pub fn status_came(&self, now: Instant) {
        self.seen().status_came(now);
    }

    /// Checks whether the backend has forgotten this link: it was open when the watch link got a
    /// `status` two seconds ago, and has got none since. Then it is pinged, and an answer proves
    /// it. Silence proves nothing, because a backend that loads a model answers nothing.
    pub fn probe_if_suspect(&self, watch_status: Option<Instant>, now: Instant) {
        if self.is_suspect(watch_status, now) {
            self.send(Frame::ping(ORPHAN_PING));
        }
    }

    fn is_suspect(&self, watch_status: Option<Instant>, now: Instant) -> bool {
        self.seen().is_suspect(watch_status, now)
    }

    /// Waits for everything except received frames.
    async fn rest(&self, due: Instant) -> Rest {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Rest::Stopped,
            frame = self.outbox.next() => Rest::Said(frame),
            () = tokio::time::sleep_until(due.into()) => Rest::Due,
        }
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn seen(&self) -> Guard<'_, Seen, { rank::SEEN }> {
        self.seen.lock()
    }
}

/// Events of a link other than received frames. They are comparatively rare.
enum Rest {
    Stopped,
    /// Its client sends a message.
    Said(Frame),
    /// It is time to ping, or to check for silence.
    Due,
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Otherwise every link that a prompt ever used would be dialled at once after an outage.
    #[tokio::test(start_paused = true)]
    async fn only_a_link_that_is_not_open_is_hastened_by_who_waits_for_it() {
        let link = Link::new(BackendId::nth(0), Haste::First, CancellationToken::new());
        let moment = Duration::from_millis(1);
        assert!(!link.is_open_within(moment).await);
        assert!(link.wanted.notified().now_or_never().is_some());
        link.phase.set(Phase::Open);
        assert!(link.is_open_within(moment).await);
        assert!(link.wanted.notified().now_or_never().is_none());
    }
}
