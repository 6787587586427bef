//! A body that is sent only if that is still allowed when its turn comes.

use std::fmt;
use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;

use super::BodyError;

/// A body that was collected, with what is asked right before it is written: opening the connection
/// may have taken a while, or the process may have been stopped meanwhile.
pub struct Guarded {
    bytes: Option<Bytes>,
    is_allowed: Box<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("bytes", &self.bytes.as_ref().map(Bytes::len)).finish()
    }
}

impl Guarded {
    #[must_use]
    pub fn new(bytes: Bytes, is_allowed: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { bytes: Some(bytes), is_allowed: Box::new(is_allowed) }
    }

    pub(super) fn poll_frame(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(bytes) = self.bytes.take() else { return Poll::Ready(None) };
        Poll::Ready(Some(match (self.is_allowed)() {
            true => Ok(Frame::data(bytes)),
            false => Err(BodyError::NotAllowed),
        }))
    }

    /// How much is still to be sent.
    pub(super) fn left(&self) -> u64 {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_may_not_be_sent_any_more_is_an_error_and_no_byte() {
        let may = Arc::new(AtomicBool::new(true));
        let guarded = || {
            let may = Arc::clone(&may);
            Guarded::new(Bytes::from_static(b"{}"), move || may.load(Ordering::Relaxed))
        };
        let (mut sent, mut late) = (guarded(), guarded());
        assert_eq!(sent.left(), 2);
        let Poll::Ready(Some(Ok(frame))) = sent.poll_frame() else { panic!("it may be sent") };
        assert_eq!((frame.into_data().unwrap(), sent.left()), (Bytes::from_static(b"{}"), 0));
        may.store(false, Ordering::Relaxed);
        assert!(matches!(late.poll_frame(), Poll::Ready(Some(Err(BodyError::NotAllowed)))));
        assert!(matches!(late.poll_frame(), Poll::Ready(None)));
    }
}
