//! One backend's answer, sent as part of a request to another.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::{BodyError, Streamed};

/// A body with something before and after it.
#[derive(Debug)]
pub struct Wrapped {
    head: Option<Bytes>,
    body: Streamed,
    /// The body has ended.
    is_read: bool,
    tail: Option<Bytes>,
    /// The bytes that the body may still have.
    left: u64,
}

impl Wrapped {
    /// `max` is the largest size of `body`, in bytes.
    #[must_use]
    pub fn new(head: String, body: Incoming, tail: String, max: u64, idle: Duration) -> Self {
        let body = Streamed::new(body, idle);
        Self { head: Some(head.into()), body, is_read: false, tail: Some(tail.into()), left: max }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        while !self.is_read {
            match std::task::ready!(self.body.poll_inner(cx)) {
                None => self.is_read = true,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let left = self.left.checked_sub(data.len() as u64);
                    let Some(left) = left else {
                        return Poll::Ready(Some(Err(BodyError::TooLarge)));
                    };
                    self.left = left;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
            }
        }
        Poll::Ready(self.tail.take().map(|tail| Ok(Frame::data(tail))))
    }

    pub(super) fn is_over(&self) -> bool {
        self.tail.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let around = [&self.head, &self.tail].into_iter().flatten().map(Bytes::len).sum::<usize>();
        match self.body.inner.size_hint().exact() {
            Some(body) => SizeHint::with_exact(body + around as u64),
            None => SizeHint::default(),
        }
    }
}
