//! Request and response bodies: streamed where possible, collected only where they must be read.
//!
//! Both directions have an idle deadline: a body is given up when no byte moves for that long
//! (invariant 10). A body that moves slowly is back-pressure and is left alone.

pub(crate) mod budget;
mod changed;
pub(crate) mod charset;
pub(crate) mod cut;
pub(crate) mod inflate;
mod look;
pub(crate) mod tee;
pub(crate) mod wrapped;

use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use budget::BodyShare;
use changed::Changed;
use cut::CutBody;
pub(crate) use look::Look;
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
    #[error("the client may no longer read the body")]
    Unwanted,
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

fn humantime(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// A body that is received from the network, with an idle deadline.
///
/// The timer is created only when a poll finds no data: most bodies are there at once.
pub struct Streamed {
    inner: Incoming,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// The timer is running: the last poll had no data.
    is_waiting: bool,
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").finish_non_exhaustive()
    }
}

impl Streamed {
    #[must_use]
    pub fn new(inner: Incoming, idle: Duration) -> Self {
        Self { inner, idle, timer: None, is_waiting: false }
    }

    fn poll_inner(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                // The next wait sets the timer anew. The body may not be polled for a long time
                // while the other side is slow to read, and that must not count as idle.
                self.is_waiting = false;
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed { body, .. } => body.inner.is_end_stream(),
            Self::Wrapped(wrapped) => wrapped.is_over(),
            Self::Changed(changed) => changed.is_over(),
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
    Streamed { body: Streamed, guard: Option<Box<dyn OnEnd>> },
    Teed(TeeBody),
    Cut(CutBody),
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::Streamed { .. } => "Streamed",
            Self::Teed(_) => "Teed",
            Self::Cut(_) => "Cut",
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Streamed { body, .. } => body.inner.is_end_stream(),
            Self::Teed(teed) => teed.body().is_end_stream(),
            Self::Cut(cut) => cut.body().is_end_stream(),
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
        }
    }
}

/// Why a body could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error("the body is larger than {max} bytes")]
    TooLarge { max: u64 },
    #[error("the limit for bodies in memory is reached")]
    Busy,
    #[error("the body broke off")]
    Broken(#[source] BodyError),
}

/// The lowest average rate of a collected body, in bytes per second. It is checked once the body
/// has taken longer than its idle deadline: a client that sends one byte a minute must not hold
/// memory forever.
const LEAST_RATE: u64 = 1 << 10;

/// How a body may be collected.
#[derive(Clone, Copy, Debug)]
pub struct CollectLimits {
    /// The largest size, in bytes.
    pub max: u64,
    /// The longest time in which no byte may arrive.
    pub idle: Duration,
}

/// Reads a whole body; `share` holds its bytes against the budget of all bodies.
///
/// # Errors
/// The body is too large (known from its length before the first byte, or at the first byte over
/// the limit), the budget is used up, or the body broke off.
pub(crate) async fn collect(
    body: Incoming,
    limits: CollectLimits,
    share: Option<&mut BodyShare>,
) -> Result<Bytes, CollectError> {
    let mut collector = Collector { limits, share, first: None, rest: Vec::new() };
    if limits.max < body.size_hint().lower() {
        return Err(CollectError::TooLarge { max: limits.max });
    }
    let mut streamed = Streamed::new(body, limits.idle);
    let began = Instant::now();
    while let Some(frame) = std::future::poll_fn(|cx| streamed.poll_inner(cx)).await {
        let Ok(data) = frame.map_err(CollectError::Broken)?.into_data() else { continue };
        collector.add(data)?;
        let late = began.elapsed().saturating_sub(limits.idle);
        if collector.len() < late.as_secs().saturating_mul(LEAST_RATE) {
            return Err(CollectError::Broken(BodyError::Idle(limits.idle)));
        }
    }
    Ok(collector.whole())
}

struct Collector<'a> {
    limits: CollectLimits,
    share: Option<&'a mut BodyShare>,
    first: Option<Bytes>,
    rest: Vec<u8>,
}

impl Collector<'_> {
    fn admit(&mut self, bytes: u64) -> Result<(), CollectError> {
        if self.limits.max < bytes {
            return Err(CollectError::TooLarge { max: self.limits.max });
        }
        let is_free = self.share.as_mut().is_none_or(|share| share.grow_to(bytes));
        if is_free { Ok(()) } else { Err(CollectError::Busy) }
    }

    fn len(&self) -> u64 {
        (self.first.as_ref().map_or(0, Bytes::len) + self.rest.len()) as u64
    }

    fn add(&mut self, data: Bytes) -> Result<(), CollectError> {
        self.admit(self.len() + data.len() as u64)?;
        match self.first.take() {
            None if self.rest.is_empty() => self.first = Some(data),
            first => {
                self.rest.extend_from_slice(first.as_deref().unwrap_or_default());
                self.rest.extend_from_slice(&data);
            }
        }
        Ok(())
    }

    /// Small bodies arrive in one piece and are not copied. Large ones are copied once, as they
    /// arrive: joining the parts at the end would need twice the memory.
    fn whole(self) -> Bytes {
        self.first.unwrap_or_else(|| self.rest.into())
    }
}
