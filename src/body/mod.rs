//! Request and response bodies: streamed where possible, collected only where they must be read.
//!
//! Both directions have an idle deadline: a body is given up when no byte moves for that long
//! (invariant 10). A body that moves slowly is back-pressure and is left alone.

pub(crate) mod budget;
mod changed;
pub(crate) mod charset;
mod collect;
pub(crate) mod cut;
pub(crate) mod guarded;
pub(crate) mod inflate;
mod look;
mod streamed;
pub(crate) mod tee;
pub(crate) mod wrapped;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use changed::Changed;
pub(crate) use collect::{CollectError, CollectLimits, collect, collect_counted};
use cut::CutBody;
use guarded::Guarded;
pub(crate) use look::Look;
pub(crate) use streamed::Streamed;
use tee::TeeBody;
use wrapped::Wrapped;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("no byte of the body has moved for {}", humantime(*.0))]
    Idle(Duration),
    #[error("the body is too large")]
    TooLarge,
    #[error("the body is not what it has to be")]
    Refused,
    #[error("the client has sent more than it may")]
    OverLimit,
    #[error("the client may no longer read the body")]
    Unwanted,
    #[error("it may not be sent any more")]
    NotAllowed,
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

fn humantime(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// Set when a client's body broke off, so that its backend is not blamed for it.
#[derive(Clone, Debug, Default)]
pub struct ClientFault(Arc<AtomicBool>);

impl ClientFault {
    #[must_use]
    pub fn happened(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The body of a request to a backend.
#[derive(Debug)]
pub enum RequestBody {
    Empty,
    /// Collected, because Mooring had to read it. `Some` until it is sent.
    Whole(Option<Bytes>),
    /// Passed on as the client sends it.
    Streamed {
        body: Streamed,
        fault: ClientFault,
        look: Option<Look>,
    },
    /// One backend's answer, sent in a request to another backend.
    Wrapped(Box<Wrapped>),
    /// Written anew as the client sends it.
    Changed(Box<Changed>),
    /// Sent only if that is allowed when its turn comes.
    Guarded(Box<Guarded>),
}

impl RequestBody {
    #[must_use]
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    /// Passes `body` on, and gives it up when no byte moves for `idle`.
    #[must_use]
    pub fn streamed(body: Incoming, idle: Duration) -> (Self, ClientFault) {
        let fault = ClientFault::default();
        if body.is_end_stream() {
            return (Self::Empty, fault);
        }
        let body = Streamed::new(body, idle);
        (Self::Streamed { body, fault: fault.clone(), look: None }, fault)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed { body, fault, look } => {
                let frame = body.poll_inner(cx);
                if let Poll::Ready(Some(Err(_))) = &frame {
                    fault.set();
                }
                if let Poll::Ready(Some(Ok(frame))) = &frame
                    && let Some(data) = frame.data_ref()
                    && look.as_mut().is_some_and(|look| !look.passed(data))
                {
                    *look = None;
                }
                frame
            }
            Self::Wrapped(wrapped) => wrapped.poll_frame(cx),
            Self::Changed(changed) => changed.poll_frame(cx),
            Self::Guarded(guarded) => guarded.poll_frame(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed { body, .. } => body.inner.is_end_stream(),
            Self::Wrapped(wrapped) => wrapped.is_over(),
            Self::Changed(changed) => changed.is_over(),
            Self::Guarded(guarded) => guarded.left() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Streamed { body, .. } => body.inner.size_hint(),
            Self::Wrapped(wrapped) => wrapped.size_hint(),
            Self::Changed(_) => SizeHint::default(),
            Self::Guarded(guarded) => SizeHint::with_exact(guarded.left()),
        }
    }
}

/// What must happen when a response body has ended, or has been given up.
pub trait OnEnd: Send + 'static {
    /// The last byte was read.
    fn finished(self: Box<Self>);
}

/// The body of a response to a client.
///
/// Its guard is dropped when the body is over, however it ends; a request counts as in flight until
/// then, not until its headers are sent. `finished` is called only at the regular end: a connection
/// whose answer was not read to the end cannot be reused.
pub enum ResponseBody {
    Whole(Option<Bytes>),
    Streamed {
        body: Streamed,
        guard: Option<Box<dyn OnEnd>>,
    },
    Teed(TeeBody),
    Cut(CutBody),
    /// What a task sends until it drops its end.
    Pushed(mpsc::Receiver<Bytes>),
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::Streamed { .. } => "Streamed",
            Self::Teed(_) => "Teed",
            Self::Cut(_) => "Cut",
            Self::Pushed(_) => "Pushed",
        })
    }
}

impl ResponseBody {
    #[must_use]
    pub fn empty() -> Self {
        Self::Whole(None)
    }

    #[must_use]
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    /// Passes a backend's body on; `guard` is finished after the last byte.
    #[must_use]
    pub fn streamed(body: Incoming, idle: Duration, guard: Box<dyn OnEnd>) -> Self {
        if body.is_end_stream() {
            guard.finished();
            return Self::empty();
        }
        Self::Streamed { body: Streamed::new(body, idle), guard: Some(guard) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed { body, guard } => {
                let frame = body.poll_inner(cx);
                let is_over = match &frame {
                    Poll::Ready(None) => true,
                    Poll::Ready(Some(Ok(_))) => body.inner.is_end_stream(),
                    Poll::Ready(Some(Err(_))) => {
                        *guard = None;
                        false
                    }
                    Poll::Pending => false,
                };
                if is_over && let Some(guard) = guard.take() {
                    guard.finished();
                }
                frame
            }
            Self::Teed(teed) => teed.poll_frame(cx),
            Self::Cut(cut) => cut.poll_frame(cx),
            Self::Pushed(from) => from.poll_recv(cx).map(|it| it.map(|it| Ok(Frame::data(it)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed { body, .. } => body.inner.is_end_stream(),
            Self::Teed(teed) => teed.body().is_end_stream(),
            Self::Cut(cut) => cut.body().is_end_stream(),
            Self::Pushed(from) => from.is_closed() && from.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Streamed { body, .. } => body.inner.size_hint(),
            Self::Teed(teed) => teed.body().size_hint(),
            Self::Cut(cut) => cut.body().size_hint(),
            Self::Pushed(_) => SizeHint::default(),
        }
    }
}
