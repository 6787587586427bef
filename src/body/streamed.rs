//! A body from the network on its way.

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{BodyError, Look};

/// A body that is received from the network, with an idle deadline.
///
/// The timer is created only when a poll finds no data: most bodies are there at once.
pub struct Streamed {
    pub(super) inner: Incoming,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer is running: the last poll had no data.
    is_waiting: bool,
    /// Counts its bytes, if they are limited. It ends the body when it says no.
    pub(super) counts: Option<Look>,
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").finish_non_exhaustive()
    }
}

impl Streamed {
    #[must_use]
    pub fn new(inner: Incoming, idle: Duration) -> Self {
        Self { inner, idle, timer: None, is_waiting: false, counts: None }
    }

    pub(super) fn poll_inner(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                // The next wait sets the timer anew. The body may not be polled for a long time
                // while the other side is slow to read, and that must not count as idle.
                self.is_waiting = false;
                if let (Some(counts), Some(Ok(frame))) = (&mut self.counts, &frame)
                    && let Some(data) = frame.data_ref()
                    && !counts.passed(data)
                {
                    return Poll::Ready(Some(Err(BodyError::OverLimit)));
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
            Poll::Pending => {
                let idle = self.idle;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
                if !std::mem::replace(&mut self.is_waiting, true) {
                    timer.as_mut().reset(Instant::now() + idle);
                }
                match timer.as_mut().poll(cx) {
                    Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::Idle(idle)))),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}
