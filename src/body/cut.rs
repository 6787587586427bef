//! A body that is aborted when some other event happens first.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};

use crate::body::{BodyError, ResponseBody};

/// A body and the event that aborts it.
pub struct CutBody {
    body: Box<ResponseBody>,
    until: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl fmt::Debug for CutBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CutBody").field("body", &self.body).finish_non_exhaustive()
    }
}

/// Aborts `body` once `until` completes. A body that has already arrived is passed whole.
#[must_use]
pub(crate) fn cut(
    body: ResponseBody,
    until: Pin<Box<dyn Future<Output = ()> + Send>>,
) -> ResponseBody {
    match body {
        ResponseBody::Whole(_) => body,
        ResponseBody::Streamed { .. }
        | ResponseBody::Teed(_)
        | ResponseBody::Cut(_)
        | ResponseBody::Pushed(_) => ResponseBody::Cut(CutBody { body: Box::new(body), until }),
    }
}

impl CutBody {
    #[must_use]
    pub fn body(&self) -> &ResponseBody {
        &self.body
    }

    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // Polled first: otherwise a body that is always ready would never notice the event.
        if self.until.as_mut().poll(cx).is_ready() {
            self.until = Box::pin(std::future::ready(()));
            return Poll::Ready(Some(Err(BodyError::Unwanted)));
        }
        Pin::new(self.body.as_mut()).poll_frame(cx)
    }
}
