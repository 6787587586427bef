//! Connections to one backend, kept and used again.
//!
//! A request is sent once. It is tried on another connection only if it provably never left
//! (`try_send_request` gave it back), or if it is a read without a body that died on a kept
//! connection before any answer. Kept connections are dropped after an idle limit below the
//! backend's own, so that the two rarely meet.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::timeout;
use tracing::trace;

use super::kept::Kept;
use crate::body::{OnEnd, RequestBody};
use crate::net::{Network, Stream};
use crate::tasks::Tasks;

/// Why an exchange with a backend failed. Whose fault it is and whether it may have been seen.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("no connection within {} ms", .0.as_millis())]
    ConnectTimeout(Duration),
    #[error("the connection broke before anything was sent")]
    NotSent(#[source] hyper::Error),
    #[error("the connection broke before the answer")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
}

impl ExchangeError {
    /// True only if the backend cannot have seen any part of the request.
    #[must_use]
    pub fn never_sent(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectTimeout(_) | Self::NotSent(_) => true,
            Self::Lost(_) | Self::NoAnswer(_) => false,
        }
    }
}

/// Limits of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    pub connect_timeout: Duration,
    /// How long a connection is kept without use.
    pub idle: Duration,
    /// How many are kept, of those that hyper drives and of those of the lane each.
    pub idle_max: usize,
}

/// The connections to one backend.
#[derive(Debug)]
pub struct Pool {
    network: Arc<dyn Network>,
    tasks: Tasks,
    host: String,
    port: u16,
    limits: PoolLimits,
    senders: Kept<SendRequest<RequestBody>>,
    /// Those of the lane.
    streams: Kept<Stream>,
}

/// An answer's connection: given back to the pool with the last byte of the body.
#[derive(Debug)]
pub struct Lease {
    pool: Arc<Pool>,
    sender: SendRequest<RequestBody>,
}

impl OnEnd for Lease {
    fn finished(self: Box<Self>) {
        self.pool.give_back(self.sender);
    }
}

impl Pool {
    #[must_use]
    pub fn new(
        network: Arc<dyn Network>,
        tasks: Tasks,
        host: String,
        port: u16,
        limits: PoolLimits,
    ) -> Self {
        let senders = Kept::new(tasks.clone(), limits.idle, limits.idle_max);
        let streams = Kept::new(tasks.clone(), limits.idle, limits.idle_max);
        Self { network, tasks, host, port, limits, senders, streams }
    }

    /// Sends `request` and waits up to `answer_timeout` for the head of the answer.
    ///
    /// # Errors
    /// See [`ExchangeError`]; none of them has been retried in a way that could send twice.
    pub async fn send(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        answer_timeout: Duration,
    ) -> Result<(Response<Incoming>, Lease), ExchangeError> {
        match timeout(answer_timeout, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(ExchangeError::NoAnswer(answer_timeout)),
        }
    }

    async fn exchange(
        self: &Arc<Self>,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), ExchangeError> {
        let spare = Spare::of(&request);
        while let Some(sender) = self.take() {
            match self.attempt(sender, request).await {
                Attempt::Answered(response, lease) => return Ok((response, lease)),
                Attempt::GivenBack(same, _) => request = *same,
                Attempt::Lost(error) => match spare {
                    // A kept connection may have been closed at the very moment of its use.
                    Some(spare) => {
                        trace!(%error, "A kept connection was stale.");
                        request = spare.into_request();
                        break;
                    }
                    None => return Err(ExchangeError::Lost(error.into())),
                },
            }
        }
        let sender = self.connect().await?;
        match self.attempt(sender, request).await {
            Attempt::Answered(response, lease) => Ok((response, lease)),
            Attempt::GivenBack(_, error) => Err(ExchangeError::NotSent(error)),
            Attempt::Lost(error) => Err(ExchangeError::Lost(error.into())),
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        mut sender: SendRequest<RequestBody>,
        request: Request<RequestBody>,
    ) -> Attempt {
        match sender.try_send_request(request).await {
            Ok(response) => Attempt::Answered(response, Lease { pool: Arc::clone(self), sender }),
            Err(mut error) => match error.take_message() {
                Some(request) => Attempt::GivenBack(Box::new(request), error.into_error()),
                None => Attempt::Lost(error.into_error()),
            },
        }
    }

    /// A kept connection that is ready; others are dropped on the way.
    fn take(&self) -> Option<SendRequest<RequestBody>> {
        std::iter::from_fn(|| self.senders.take()).find(SendRequest::is_ready)
    }

    fn give_back(&self, sender: SendRequest<RequestBody>) {
        if !sender.is_closed() {
            self.senders.give_back(sender);
        }
    }

    /// Drops connections that were not used for long.
    pub fn sweep(&self, now: Instant) {
        self.senders.sweep(now);
        self.streams.sweep(now);
    }

    /// Drops the kept connections when the drain has begun.
    pub fn close_idle(&self) {
        self.senders.close();
        self.streams.close();
    }

    /// A kept connection of the lane's that its backend has not closed, as far as is known.
    pub async fn take_stream(&self) -> Option<Stream> {
        while let Some(mut stream) = self.streams.take() {
            if is_quiet(&mut stream).await {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection whose last answer was read to its end, and nothing beyond it.
    pub fn keep_stream(&self, stream: Stream) {
        self.streams.give_back(stream);
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// The backend's address does not answer, or not in time.
    pub async fn dial(&self) -> Result<Stream, ExchangeError> {
        let limit = self.limits.connect_timeout;
        timeout(limit, self.network.connect(&self.host, self.port))
            .await
            .map_err(|_elapsed| ExchangeError::ConnectTimeout(limit))?
            .map_err(ExchangeError::Connect)
    }

    async fn connect(&self) -> Result<SendRequest<RequestBody>, ExchangeError> {
        let stream = self.dial().await?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(ExchangeError::NotSent)?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                trace!(%error, "A connection to a backend ended.");
            }
        });
        Ok(sender)
    }
}

/// True if nothing has come on a connection that waits: no end of it, and no answer to nothing.
async fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0];
    // A task that has used up its turn must look all the same.
    tokio::task::unconstrained(std::future::poll_fn(|cx| {
        let read = Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte));
        Poll::Ready(read.is_pending())
    }))
    .await
}

enum Attempt {
    Answered(Response<Incoming>, Lease),
    /// It never left.
    GivenBack(Box<Request<RequestBody>>, hyper::Error),
    Lost(hyper::Error),
}

/// A copy of a read that may be sent again: no body, and a method that is safe to repeat
/// (RFC 9110 section 9.2.1).
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
