//! What a connection of HTTP/2 works on: since when nothing, and for whom each answer waits.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
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

/// The most that is handed over at once, in bytes: what a frame of HTTP/2 has unless both sides
/// agree on more (RFC 9113 section 6.5.2).
const PIECE_MAX: usize = 16 << 10;

/// The body of an answer: its request is open until it is let go of.
///
/// It gives its data in small pieces. hyper asks for the next one when the client has taken the one
/// before, but takes a piece of any size: of a whole file in one piece nobody would know whether
/// its client takes it, and its request would seem to be over.
#[derive(Debug)]
pub(super) struct Tracked {
    body: ResponseBody,
    /// What it has given and was not asked for yet.
    rest: Bytes,
    _begun: Begun,
}

impl Tracked {
    pub(super) fn new(body: ResponseBody, begun: Begun) -> Self {
        Self { body, rest: Bytes::new(), _begun: begun }
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end @ (Some(Err(_)) | None) => return Poll::Ready(end),
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE_MAX));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.get_mut().poll_piece(cx);
        SAID.set(Some(if polled.is_ready() { Waits::ForClient } else { Waits::ForServer }));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, of_body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(of_body.lower() + rest);
        if let Some(upper) = of_body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;

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

    #[tokio::test]
    async fn a_whole_file_is_handed_over_in_pieces_and_its_request_is_open_meanwhile() {
        let file: Vec<u8> = (0..100_000_u32).map(|at| at.to_be_bytes()[3]).collect();
        let activity = Arc::new(Activity::new());
        let mut body = Tracked::new(ResponseBody::whole(file.clone()), activity.begin());
        let mut read = Vec::new();
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some((file.len() - read.len()) as u64));
            assert_eq!(activity.idle_since(), None);
            let (frame, waits) = waits_meanwhile(|| body.frame().now_or_never());
            assert_eq!(waits, Some(Waits::ForClient));
            let piece = frame.flatten().unwrap().unwrap().into_data().unwrap();
            assert!((1..=PIECE_MAX).contains(&piece.len()), "{}", piece.len());
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, file);
        drop(body);
        assert!(activity.idle_since().is_some());
    }
}
