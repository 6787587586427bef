//! What a connection of HTTP/2 works on: since when nothing, and for whom each answer waits.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::body::{BodyError, ResponseBody};
use crate::net::now;

/// How many requests a connection has, and since when it has none.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    open: AtomicUsize,
    begun: AtomicUsize,
    /// When the last one ended, in microseconds after `opened`.
    ended: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Self {
        let (open, begun, ended) = Default::default();
        Self { opened: now(), open, begun, ended }
    }

    /// One more, until it is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Begun {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Begun(Arc::clone(self))
    }

    /// True if there was one ever.
    pub(super) fn has_begun(&self) -> bool {
        0 < self.begun.load(Ordering::Relaxed)
    }

    /// `None` while there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let ended = Duration::from_micros(self.ended.load(Ordering::Relaxed));
        (self.open.load(Ordering::Relaxed) == 0).then_some(self.opened + ended)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Begun(Arc<Activity>);

impl Drop for Begun {
    fn drop(&mut self) {
        let micros = now().duration_since(self.0.opened).as_micros();
        self.0.ended.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whom an answer waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Waits {
    /// Nothing of it is there.
    ForServer,
    /// It was given a piece, and does not ask for the next.
    ForClient,
}

thread_local! {
    /// What the body said last of the answer that is polled on this thread.
    static SAID: Cell<Option<Waits>> = const { Cell::new(None) };
}

/// Polls an answer, and says what its body said meanwhile, if it was asked.
pub(super) fn waits_meanwhile<T>(poll: impl FnOnce() -> T) -> (T, Option<Waits>) {
    SAID.set(None);
    let polled = poll();
    (polled, SAID.take())
}

/// The body of an answer: its request is open until it is let go of.
#[derive(Debug)]
pub(super) struct Tracked {
    body: ResponseBody,
    _begun: Begun,
}

impl Tracked {
    pub(super) fn new(body: ResponseBody, begun: Begun) -> Self {
        Self { body, _begun: begun }
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.get_mut().body).poll_frame(cx);
        SAID.set(Some(if polled.is_ready() { Waits::ForClient } else { Waits::ForServer }));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_from_the_end_of_its_last_request() {
        let activity = Arc::new(Activity::new());
        assert!(!activity.has_begun() && activity.idle_since() == Some(activity.opened));
        let (one, other) = (activity.begin(), activity.begin());
        drop(one);
        assert_eq!(activity.idle_since(), None);
        drop(other);
        assert!(activity.has_begun() && activity.idle_since() >= Some(activity.opened));
    }
}
