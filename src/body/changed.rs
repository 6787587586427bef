//! A client's body that is written anew as it passes.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::{BodyError, ClientFault, RequestBody, Streamed};

type Change = dyn FnMut(Option<&[u8]>) -> Option<Bytes> + Send;

/// A body whose pieces are changed as they pass.
pub struct Changed {
    body: Streamed,
    /// Gets each piece, and `None` at the end. It returns what goes on; `None` if the body is
    /// refused.
    change: Box<Change>,
    fault: ClientFault,
    is_over: bool,
}

impl Changed {
    fn new(
        body: Streamed,
        fault: ClientFault,
        change: impl FnMut(Option<&[u8]>) -> Option<Bytes> + Send + 'static,
    ) -> Self {
        Self { body, change: Box::new(change), fault, is_over: false }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.is_over {
            let changed = match std::task::ready!(self.body.poll_inner(cx)) {
                None => {
                    self.is_over = true;
                    (self.change)(None)
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.failed(error)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => (self.change)(Some(&data)),
                    Err(_trailers) => continue,
                },
            };
            match changed {
                None => return Poll::Ready(Some(Err(self.failed(BodyError::Refused)))),
                Some(data) if data.is_empty() => {}
                Some(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
            }
        }
        Poll::Ready(None)
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    fn failed(&mut self, error: BodyError) -> BodyError {
        self.is_over = true;
        self.fault.set();
        error
    }
}

impl fmt::Debug for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changed").finish_non_exhaustive()
    }
}

impl RequestBody {
    /// The same body, written anew by `change` as it passes. That gets each
    /// piece, and `None` at the end; it returns what goes on, and `None` if the body is refused.
    /// A body that does not come from a client is not changed, so there is none then.
    #[must_use]
    pub fn changed_by(
        self,
        change: impl FnMut(Option<&[u8]>) -> Option<Bytes> + Send + 'static,
    ) -> Option<Self> {
        match self {
            Self::Streamed { body, fault, look: _ } => {
                Some(Self::Changed(Box::new(Changed::new(body, fault, change))))
            }
            Self::Empty
            | Self::Whole(_)
            | Self::Wrapped(_)
            | Self::Changed(_)
            | Self::Guarded(_) => None,
        }
    }
}
