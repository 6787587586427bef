//! Bodies of answers: fixed, or a requested number of bytes that are made while they are read.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// A body of an answer.
#[derive(Debug)]
pub(super) enum SimBody {
    Whole(Option<Bytes>),
    /// A number of zero bytes, for measurements; the sent bytes are counted.
    Blob {
        left: u64,
        given: Arc<AtomicU64>,
    },
    /// Sends the bytes, then breaks the connection.
    Cut(Option<Bytes>),
}

/// An error that breaks the connection.
#[derive(Debug, thiserror::Error)]
#[error("the answer is cut off, as requested")]
pub(super) struct Cut;

impl Body for SimBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        Poll::Ready(match self.get_mut() {
            Self::Whole(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Self::Blob { left: 0, .. } => None,
            Self::Blob { left, given } => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(ZEROES.len());
                *left -= len as u64;
                given.fetch_add(len as u64, Ordering::Relaxed);
                Some(Ok(Frame::data(Bytes::from_static(&ZEROES[..len]))))
            }
            Self::Cut(bytes) => match bytes.take() {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => Some(Err(Cut)),
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Blob { left, .. } => *left == 0,
            Self::Cut(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Blob { left, .. } => SizeHint::with_exact(*left),
            // Promises more than it sends.
            Self::Cut(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64) + 64)
            }
        }
    }
}

/// The answer to HEAD: the headers of GET, including the length.
pub(super) fn headless(response: http::Response<SimBody>) -> http::Response<SimBody> {
    let length = response.body().size_hint().exact();
    let mut response = response.map(|_| SimBody::Whole(None));
    if let Some(length) = length {
        let length = http::HeaderValue::from(length);
        response.headers_mut().insert(http::header::CONTENT_LENGTH, length);
    }
    response
}
