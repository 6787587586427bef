//! The one socket to a client's backend: dial, negotiate, notice silence, redial (promise S1).
//!
//! ComfyUI keeps one socket per id and forgets the *newer* one when the older one closes. So a link
//! is dialled only after the TCP connection of the previous link to that backend has ended. A link
//! that misses what the watch link got is dialled again: see [`Link::probe_if_suspect`].

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

/// The payload of the ping that proves an orphan: it answers, and still lacks the `status`.
const ORPHAN_PING: &[u8] = b"orphan?";

/// How far a link is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    Dialling,
    /// Negotiated: events will arrive.
    Open,
    /// Its TCP connection has ended, and it will not come back.
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

/// A link, as its client holds it; the task that runs it holds the other end.
#[derive(Debug)]
pub struct Link {
    pub backend: BackendId,
    /// How its first dial is made.
    haste: Haste,
    phase: OrderedWatch<Phase>,
    stop: CancellationToken,
    outbox: Outbox,
    /// Somebody waits for it to be open.
    wanted: Notify,
    seen: Lock<Seen, { rank::SEEN }>,
}

impl Link {
    /// A link that is not yet run.
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

    /// Since when it hears what its backend says; `None` while it does not.
    #[must_use]
    pub fn listens_since(&self) -> Option<Instant> {
        let opened = self.seen().opened_at();
        opened.filter(|_| self.phase() == Phase::Open)
    }

    /// Waits until it is open; false if `limit` passes or it closes before.
    pub async fn is_open_within(&self, limit: Duration) -> bool {
        // One that is open is not to be hastened when it breaks one day.
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
        // ComfyUI ignores all but the first, which is ours; nothing is lost.
        self.outbox.push(frame);
    }

    /// A `status` arrived on it.
    pub fn status_came(&self, now: Instant) {
        self.seen().status_came(now);
    }

    /// Looks whether the backend has forgotten this link: it was open when the watch link got a
    /// `status` two seconds ago and has got none since. If so, it is pinged; an answer then
    /// proves it, because a backend that loads a model answers nothing.
    pub fn probe_if_suspect(&self, watch_status: Option<Instant>, now: Instant) {
        if self.is_suspect(watch_status, now) {
            self.send(Frame::ping(ORPHAN_PING));
        }
    }

    fn is_suspect(&self, watch_status: Option<Instant>, now: Instant) -> bool {
        self.seen().is_suspect(watch_status, now)
    }

    /// Waits for anything but what it receives.
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

/// All that happens on a link besides what it receives: seldom, in comparison.
enum Rest {
    Stopped,
    /// Its client says something.
    Said(Frame),
    /// It is time to ping, or to judge silence.
    Due,
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Else every link that a prompt ever used would dial at once after an outage.
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
