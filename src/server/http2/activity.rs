//! The activity of an HTTP/2 connection: how long it has been idle, and what each answer waits for.

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

/// How many requests are open on a connection, and since when there are none.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    open: AtomicUsize,
    begun: AtomicUsize,
    /// When the last request ended, in microseconds after `opened`.
    ended: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Self {
        let (open, begun, ended) = Default::default();
        Self { opened: now(), open, begun, ended }
    }

    /// Counts one more request, until the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Begun {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Begun(Arc::clone(self))
    }

    /// True if there ever was a request.
    pub(super) fn has_begun(&self) -> bool {
        0 < self.begun.load(Ordering::Relaxed)
    }

    /// Since when there is no request; `None` while there is one.
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

/// Which side an answer waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Waits {
    /// The server has no data for it yet.
    ForServer,
    /// The client was given a piece and has not asked for the next one.
    ForClient,
}

thread_local! {
    /// What the body reported for the answer that this thread is polling.
    static SAID: Cell<Option<Waits>> = const { Cell::new(None) };
}

/// Polls an answer. Also returns what its body reported, if the body was polled.
pub(super) fn waits_meanwhile<T>(poll: impl FnOnce() -> T) -> (T, Option<Waits>) {
    SAID.set(None);
    let polled = poll();
    (polled, SAID.take())
}

/// The largest piece that is given to hyper at once, in bytes: the largest frame of HTTP/2 unless
/// both sides agree on more (RFC 9113 section 6.5.2).
const PIECE_MAX: usize = 16 << 10;

/// The body of an answer. Its request counts as open until this body is dropped.
///
/// It gives its data in small pieces. hyper asks for the next piece when the client has taken the
/// one before, but it accepts a piece of any size. If a whole file were one piece, the request
/// would seem to be over at once, and nobody could see whether its client still takes data.
#[derive(Debug)]
pub(super) struct Tracked {
    body: ResponseBody,
    /// Data that was read from the body and is not passed on yet.
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
