//! A body that is observed on its way to a client, without being delayed.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use crate::body::{BodyError, ResponseBody};

/// Observes the bytes of a body as they pass. Dropped if the body breaks off or is given up.
pub(crate) trait Tee: Send + 'static {
    /// These bytes have passed. Returns false when it needs no more; it is then dropped.
    fn passed(&mut self, data: &[u8]) -> bool;

    /// The last byte has passed.
    fn finished(self: Box<Self>);
}

/// A body with its observer, which is dropped when it needs no more.
pub struct TeeBody {
    body: Box<ResponseBody>,
    tee: Option<Box<dyn Tee>>,
}

impl fmt::Debug for TeeBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TeeBody").field("body", &self.body).finish_non_exhaustive()
    }
}

/// The same body, observed by `tee`.
#[must_use]
pub(crate) fn tee(body: ResponseBody, tee: Box<dyn Tee>) -> ResponseBody {
    if body.is_end_stream() {
        tee.finished();
        return body;
    }
    ResponseBody::Teed(TeeBody { body: Box::new(body), tee: Some(tee) })
}

impl TeeBody {
    #[must_use]
    pub fn body(&self) -> &ResponseBody {
        &self.body
    }

    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(self.body.as_mut()).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.tell(frame);
                // The consumer may not poll again after the last frame.
                if self.body.is_end_stream() {
                    self.finish();
                }
            }
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Err(_))) => self.tee = None,
            Poll::Pending => {}
        }
        frame
    }

    fn tell(&mut self, frame: &Frame<Bytes>) {
        let (Some(tee), Some(data)) = (&mut self.tee, frame.data_ref()) else { return };
        if !tee.passed(data) {
            self.tee = None;
        }
    }

    fn finish(&mut self) {
        if let Some(tee) = self.tee.take() {
            tee.finished();
        }
    }
}
