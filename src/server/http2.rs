//! Connections of HTTP/2 (RFC 9113). A browser asks for HTTP/2 in the handshake: a page that needs
//! a hundred files asks for all of them at once.
//!
//! Each request is translated to HTTP/1.1, checked by the same rules, and answered by the same
//! service. WebSockets come on connections of HTTP/1.1 (RFC 8441 is not offered).

mod activity;
mod translated;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tracing::trace;

use super::deadline::Deadline;
use super::limits::ConnectionLimits;
use super::wire::Wire;
use super::{Service, Stopping};
use crate::body::ResponseBody;
use crate::net::{Buffered, now};
use crate::tasks::Tasks;
use activity::{Activity, Tracked, Waits, waits_meanwhile};

/// How many requests of one connection are answered at the same time. ComfyUI's own page has about
/// a hundred files, and RFC 9113 section 6.5.2 advises against a smaller number.
const STREAMS_MAX: u32 = 128;

/// The flow-control windows for the bodies of requests, in bytes: per stream and per connection.
const STREAM_WINDOW: u32 = 512 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// How much of one answer is kept in memory until its client takes it, in bytes.
const SEND_BUFFER_MAX: usize = 64 << 10;

/// How often a client is pinged, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);

/// How long a client may take to close a connection after it was told to.
const GOODBYE: Duration = Duration::from_secs(5);

/// Serves a connection to its end. `deadline` is that of the first request; its time began with the
/// handshake.
pub async fn serve(
    conn: Buffered,
    peer: SocketAddr,
    service: &impl Service,
    limits: ConnectionLimits,
    (mut deadline, tasks, stopping): (Deadline, &Tasks, &mut Stopping<'_>),
) {
    let (wire, activity) = (Wire::of(&conn), Arc::new(Activity::new()));
    // Set before the answer is written, which wakes the connection.
    let ends = Arc::new(AtomicBool::new(false));
    let answer = service_fn(|request: Request<Incoming>| {
        let (service, begun) = (service.clone(), activity.begin());
        let is_last = Arc::clone(&ends);
        let is_head = request.method() == Method::HEAD;
        async move {
            let mut response = answer(&service, peer, limits, wire, request).await;
            // There is no such field in HTTP/2 (RFC 9113 section 8.2.2): the connection says it.
            if response.headers_mut().remove(CONNECTION).is_some_and(|said| said == "close") {
                is_last.store(true, Ordering::Relaxed);
            }
            if is_head {
                without_body(&mut response);
            }
            Ok::<_, Infallible>(response.map(|body| Tracked::new(body, begun)))
        }
    });
    let each = OnTasks { tasks: tasks.clone(), patience: limits.stall_timeout };
    let connection = builder(each, limits).serve_connection(TokioIo::new(conn), answer);
    let mut connection = std::pin::pin!(connection);
    let mut is_leaving = false;
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let is_over = ends.load(Ordering::Relaxed) || service.is_leaving();
            if !is_leaving && (is_over || stopping.poll(cx).is_ready()) {
                is_leaving = true;
                deadline.set(now() + GOODBYE);
                connection.as_mut().graceful_shutdown();
                continue;
            }
            if !deadline.poll_passed(cx) {
                return Poll::Pending;
            }
            // The last answers may still be on their way to the client.
            let rest = if is_leaving { GOODBYE } else { limits.idle_timeout };
            let due = activity.idle_since().unwrap_or_else(now) + rest;
            if now() < due && (is_leaving || activity.has_begun()) {
                deadline.set(due);
                continue;
            }
            if is_leaving {
                return Poll::Ready(Ok(()));
            }
            is_leaving = true;
            deadline.set(now() + GOODBYE);
            connection.as_mut().graceful_shutdown();
        }
    })
    .await;
    if let Err(error) = ended {
        trace!(%peer, %error, "A connection ended.");
    }
}

/// Removes the body from the answer to a HEAD (RFC 9110 section 9.3.2). hyper does this for
/// HTTP/1.1 only.
fn without_body(response: &mut Response<ResponseBody>) {
    let length = response.body().size_hint().exact().filter(|length| 0 < *length);
    if let Some(length) = length {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    *response.body_mut() = ResponseBody::empty();
}

fn builder(each: OnTasks, limits: ConnectionLimits) -> Builder<OnTasks> {
    let mut builder = Builder::new(each);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    builder
}

async fn answer(
    service: &impl Service,
    peer: SocketAddr,
    limits: ConnectionLimits,
    wire: Wire,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    match translated::translated(request, limits.header_bytes_max, limits.headers_max) {
        Ok(mut request) => {
            wire.mark(&mut request);
            service.answer(peer.ip(), request).await
        }
        Err((refusal, head)) => service.refused(peer.ip(), refusal, &head),
    }
}

/// Runs each request as a task of its own.
#[derive(Clone, Debug)]
struct OnTasks {
    tasks: Tasks,
    /// How long a client may go without taking anything of an answer.
    patience: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for OnTasks {
    fn execute(&self, request: F) {
        let deadline = Deadline::after(self.patience);
        let (waits, patience) = (Waits::ForServer, self.patience);
        self.tasks.spawn(OneRequest { request: Box::pin(request), waits, deadline, patience });
    }
}

/// A request that is given up if its client takes nothing of the answer for too long. Otherwise it
/// would hold its backend connection for ever. Only its own stream is reset.
struct OneRequest<F> {
    request: Pin<Box<F>>,
    waits: Waits,
    deadline: Deadline,
    patience: Duration,
}

impl<F: Future<Output = ()>> Future for OneRequest<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let (polled, waits) = waits_meanwhile(|| this.request.as_mut().poll(cx));
        if polled.is_ready() {
            return Poll::Ready(());
        }
        if let Some(waits) = waits {
            this.waits = waits;
            this.deadline.set(now() + this.patience);
        }
        while this.deadline.poll_passed(cx) {
            match this.waits {
                Waits::ForClient => return Poll::Ready(()),
                Waits::ForServer => this.deadline.set(now() + this.patience),
            }
        }
        Poll::Pending
    }
}
