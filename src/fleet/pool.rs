//! Connections to one backend, kept and used again.
//!
//! A request is sent once. It is tried on another connection only if it provably never left
//! (`try_send_request` gave it back), or if it is a read without a body that died on a kept
//! connection before any answer. Kept connections are dropped after an idle limit below the
//! backend's own, so that the two rarely meet.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tracing::trace;

use crate::body::{OnEnd, RequestBody};
use crate::net::{Network, now};
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
    Lost(#[source] hyper::Error),
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
    /// How long a connection is kept without use; below the backend's keep-alive (75 s in older
    /// aiohttp).
    pub idle: Duration,
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
    /// The most recently used last.
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<RequestBody>,
    since: Instant,
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
        Self { network, tasks, host, port, limits, idle: Mutex::default() }
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
                    None => return Err(ExchangeError::Lost(error)),
                },
            }
        }
        let sender = self.connect().await?;
        match self.attempt(sender, request).await {
            Attempt::Answered(response, lease) => Ok((response, lease)),
            Attempt::GivenBack(_, error) => Err(ExchangeError::NotSent(error)),
            Attempt::Lost(error) => Err(ExchangeError::Lost(error)),
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
        let now = now();
        let mut idle = self.idle.lock().expect("never poisoned: no panic while held");
        while let Some(kept) = idle.pop() {
            let is_fresh = now.duration_since(kept.since) < self.limits.idle;
            if !is_fresh {
                // Those below it are older still.
                idle.clear();
                return None;
            }
            if kept.sender.is_ready() {
                return Some(kept.sender);
            }
        }
        None
    }

    fn give_back(&self, sender: SendRequest<RequestBody>) {
        if sender.is_closed() {
            return;
        }
        let kept = Idle { sender, since: now() };
        let mut idle = self.idle.lock().expect("never poisoned: no panic while held");
        // Asked under the lock, so that `close_idle` finds what was kept before the stop.
        if idle.len() < self.limits.idle_max && !self.tasks.is_stopping() {
            idle.push(kept);
        }
    }

    /// Drops connections that were not used for long, so that they do not stay open for ever.
    pub fn sweep(&self, now: Instant) {
        let mut idle = self.idle.lock().expect("never poisoned: no panic while held");
        idle.retain(|kept| now.duration_since(kept.since) < self.limits.idle);
    }

    /// Drops the kept connections when the drain has begun: a drain that waits for a backend to
    /// close them would wait to its deadline.
    pub fn close_idle(&self) {
        self.idle.lock().expect("never poisoned: no panic while held").clear();
    }

    async fn connect(&self) -> Result<SendRequest<RequestBody>, ExchangeError> {
        let limit = self.limits.connect_timeout;
        let stream = timeout(limit, self.network.connect(&self.host, self.port))
            .await
            .map_err(|_elapsed| ExchangeError::ConnectTimeout(limit))?
            .map_err(ExchangeError::Connect)?;
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
