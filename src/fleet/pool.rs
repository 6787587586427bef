//! The connections to one backend, which are reused.
//!
//! A request is sent once. It is tried on another connection only if it certainly never left
//! (`try_send_request` returned it), or if it is a read without a body and an idle connection broke
//! before any answer. Idle connections are closed after a limit shorter than the backend's own, so
//! that this is rare. The wait for an answer is measured from the last byte that was sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, ReadBuf};
use tracing::trace;

use super::breaker::Breaker;
use super::dialler::Dialler;
use super::idle::{Epoch, IdlePool};
use super::last_sent::{LastSent, TimedStream};
use crate::body::{OnEnd, RequestBody};
use crate::config::{Config, LiveConfig};
use crate::net::{Buffered, Stream};
use crate::tasks::Tasks;

/// Why an exchange with a backend failed: whose fault it is, and whether the backend may have seen
/// it.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no connection within {} ms", .0.as_millis())]
    ConnectTimeout(Duration),
    #[error("the connection broke before anything was sent")]
    NotSent(#[source] hyper::Error),
    #[error("the connection broke before the answer")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
    #[error("it went down before it answered")]
    WentDown,
}

impl ExchangeError {
    /// True only if the backend cannot have received any part of the request.
    #[must_use]
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectTimeout(_) | Self::NotSent(_) => true,
            Self::Lost(_) | Self::NoAnswer(_) | Self::WentDown => false,
        }
    }
}

/// How many bytes of an answer hyper reads at once, heads included. This much waits in memory for a
/// client that does not read. hyper's own limit is 400 KB.
const READ_MAX: usize = 128 << 10;

/// The connections to one backend.
#[derive(Debug)]
pub struct Pool {
    dialler: Arc<Dialler>,
    tasks: Tasks,
    live: LiveConfig,
    breaker: Arc<Breaker>,
    /// The number of bodies that are being sent there, or whose answer is awaited.
    uploads: Arc<AtomicUsize>,
    lines: IdlePool<Line>,
    /// The idle connections of the passthrough.
    streams: IdlePool<Stream>,
}

/// A connection that hyper drives.
#[derive(Debug)]
struct Line {
    sender: SendRequest<RequestBody>,
    last_sent: Arc<LastSent>,
    /// No answer has come on it yet.
    is_new: bool,
    epoch: Epoch,
}

/// The connection of an answer that switched protocols; `None` if the backend left.
pub async fn upgraded<B>(response: Response<B>) -> Option<Buffered> {
    let upgraded = hyper::upgrade::on(response).await.ok()?;
    let parts = upgraded.downcast::<TokioIo<TimedStream>>().ok()?;
    Some(Buffered { stream: parts.io.into_inner().into_inner(), read: parts.read_buf.into() })
}

/// Counts one body that is being sent, until dropped.
struct Upload(Arc<AtomicUsize>);

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's connection: returned to the pool with the last byte of the body.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    line: Line,
}

impl OnEnd for Lease {
    fn finished(self: Box<Self>) {
        self.pool.give_back(self.line);
    }
}

impl Pool {
    #[must_use]
    pub fn new(
        dialler: Arc<Dialler>,
        tasks: Tasks,
        live: LiveConfig,
        breaker: Arc<Breaker>,
    ) -> Self {
        let (idle, max) = kept_limits(&live.get());
        let lines = IdlePool::new(tasks.clone(), idle, max);
        let streams = IdlePool::new(tasks.clone(), idle, max);
        let uploads = Arc::default();
        Self { dialler, tasks, live, breaker, uploads, lines, streams }
    }

    /// The configuration was replaced.
    pub fn reconfigure(&self) {
        let (idle, max) = kept_limits(&self.live.get());
        self.lines.limit(idle, max);
        self.streams.limit(idle, max);
    }

    /// Sends `request` and waits for the head of the answer: up to `answer_timeout` after the last
    /// byte of the request was sent, or from now if none is sent.
    ///
    /// # Errors
    /// See [`ExchangeError`]; none was retried in a way that could send the request twice.
    pub async fn send(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
        answer_timeout: Duration,
    ) -> Result<(Response<Incoming>, Lease), ExchangeError> {
        let spare = Spare::of(&request);
        while let Some(line) = self.take() {
            match self.attempt(line, request, answer_timeout).await {
                Attempt::Answered(response, lease) => return Ok((response, lease)),
                Attempt::Late => return Err(ExchangeError::NoAnswer(answer_timeout)),
                Attempt::GivenBack(same, _) => request = *same,
                Attempt::Lost(error) => match spare {
                    // A pooled connection may have been closed at the very moment of its use.
                    Some(spare) => {
                        trace!(%error, "An idle connection was stale.");
                        request = spare.into_request();
                        break;
                    }
                    None => return Err(ExchangeError::Lost(error.into())),
                },
            }
        }
        self.send_anew(request, answer_timeout).await
    }

    /// The same on a new connection.
    ///
    /// # Errors
    /// See [`ExchangeError`].
    pub async fn send_anew(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        answer_timeout: Duration,
    ) -> Result<(Response<Incoming>, Lease), ExchangeError> {
        let line = self.connect().await?;
        match self.attempt(line, request, answer_timeout).await {
            Attempt::Answered(response, lease) => Ok((response, lease)),
            Attempt::Late => Err(ExchangeError::NoAnswer(answer_timeout)),
            Attempt::GivenBack(_, error) => Err(ExchangeError::NotSent(error)),
            Attempt::Lost(error) => Err(ExchangeError::Lost(error.into())),
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        mut line: Line,
        request: Request<RequestBody>,
        answer_timeout: Duration,
    ) -> Attempt {
        let _upload = self.upload(request.body());
        let answer = line.sender.try_send_request(request);
        let Some(answered) = line.last_sent.awaited(answer, answer_timeout).await else {
            return Attempt::Late;
        };
        match answered {
            Ok(response) => {
                if std::mem::take(&mut line.is_new) {
                    self.breaker.passed();
                }
                Attempt::Answered(response, Lease { pool: Arc::clone(self), line })
            }
            Err(mut error) => match error.take_message() {
                Some(request) => Attempt::GivenBack(Box::new(request), error.into_error()),
                None => Attempt::Lost(error.into_error()),
            },
        }
    }

    /// A pooled connection that is ready; others are dropped on the way.
    fn take(&self) -> Option<Line> {
        std::iter::from_fn(|| self.lines.take()).find(|line| line.sender.is_ready())
    }

    fn give_back(&self, line: Line) {
        if !line.sender.is_closed() {
            let epoch = line.epoch;
            self.lines.give_back(line, epoch);
        }
    }

    fn upload(&self, body: &RequestBody) -> Option<Upload> {
        match body {
            RequestBody::Empty | RequestBody::Whole(_) | RequestBody::Guarded(_) => None,
            RequestBody::Streamed { .. } | RequestBody::Wrapped(_) | RequestBody::Changed(_) => {
                self.uploads.fetch_add(1, Ordering::Relaxed);
                Some(Upload(Arc::clone(&self.uploads)))
            }
        }
    }

    /// True while a body is being sent there, or was sent and not answered. ComfyUI hashes uploads
    /// on its event loop (0.33, `/api/assets`), and sends nothing meanwhile.
    #[must_use]
    pub fn has_uploads(&self) -> bool {
        0 < self.uploads.load(Ordering::Relaxed)
    }

    /// Drops connections that were idle too long.
    pub fn sweep(&self, now: Instant) {
        self.lines.sweep(now);
        self.streams.sweep(now);
    }

    /// Drops the idle connections: the drain has begun, or new ones are secured differently.
    pub fn close_idle(&self) {
        self.lines.close();
        self.streams.close();
    }

    /// An idle connection of the passthrough that its backend has not closed, as far as is known.
    pub async fn take_stream(&self) -> Option<Stream> {
        while let Some(mut stream) = self.streams.take() {
            if is_quiet(&mut stream).await {
                return Some(stream);
            }
        }
        None
    }

    /// The epoch of a connection of the passthrough that is taken or dialled after this.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.streams.epoch()
    }

    /// Keeps a connection whose last answer was read exactly to its end.
    pub fn keep_stream(&self, stream: Stream, of: Epoch) {
        self.streams.give_back(stream, of);
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The backend's address does not answer, or not in time.
    pub async fn dial(&self) -> Result<Stream, ExchangeError> {
        // A backend that loads a model reads nothing of a request meanwhile.
        let (limit, stall) = {
            let config = self.live.get();
            (config.fleet.connect_timeout, config.server.answer_timeout)
        };
        let dialled = self.dialler.dial(limit).await;
        let failed = |error: io::Error| match error.kind() == io::ErrorKind::TimedOut {
            true => ExchangeError::ConnectTimeout(limit),
            false => ExchangeError::Connect(error),
        };
        let dialled = dialled.map_err(failed);
        let mut stream = dialled.inspect_err(|error| self.breaker.failed(error.to_string()))?;
        stream.allow_unacknowledged_for(stall);
        stream.give_up_stalled_writes_after(stall);
        Ok(stream)
    }

    async fn connect(&self) -> Result<Line, ExchangeError> {
        let epoch = self.lines.epoch();
        let (stream, last_sent) = TimedStream::new(self.dial().await?);
        let opened = Builder::new().max_buf_size(READ_MAX).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = opened.map_err(ExchangeError::NotSent)?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                trace!(%error, "A connection to a backend ended.");
            }
        });
        Ok(Line { sender, last_sent, is_new: true, epoch })
    }
}

/// How long idle connections are kept, and how many. The number applies separately to those that
/// hyper drives and to those of the passthrough.
fn kept_limits(config: &Config) -> (Duration, usize) {
    (config.fleet.pool_idle, config.fleet.max_idle_connections)
}

/// True if nothing has arrived on an idle connection: neither its end nor an unexpected answer.
async fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0];
    // The check must run even if the task has used up its budget.
    tokio::task::unconstrained(std::future::poll_fn(|cx| {
        let read = Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
        Poll::Ready(read.is_pending())
    }))
    .await
}

enum Attempt {
    Answered(Response<Incoming>, Lease),
    /// Nothing came in time.
    Late,
    /// It was never sent.
    GivenBack(Box<Request<RequestBody>>, hyper::Error),
    Lost(hyper::Error),
}

/// A copy of a read that may be sent again: no body, and a method that is safe to repeat (RFC 9110
/// section 9.2.1).
struct Spare {
    method: Method,
    uri: http::Uri,
    headers: http::HeaderMap,
}

impl Spare {
    fn of(request: &Request<RequestBody>) -> Option<Self> {
        let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
        (is_safe && matches!(request.body(), RequestBody::Empty)).then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}
