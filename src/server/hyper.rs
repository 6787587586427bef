//! The part of a connection that hyper serves: one request, or one that may become a WebSocket.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tracing::trace;

use super::limits::ConnectionLimits;
use super::message::Message;
use super::one_message::OneMessage;
use super::wire::{Came, Wire};
use super::{Left, Seat, Service};
use crate::body::{BodyError, ResponseBody};
use crate::net::Buffered;
use crate::tasks::Tasks;

/// Serves the next message of a connection. Returns the connection for another request if the next
/// one stands right behind that message and the whole answer is on its way.
///
/// hyper does not know that more may come: it sees one message, and is stopped when it waits for
/// the next.
pub async fn once(
    conn: Buffered,
    message: Message,
    (peer, came): (SocketAddr, Option<Came>),
    service: &impl Service,
    limits: ConnectionLimits,
) -> Left {
    let wire = Wire::of(&conn);
    let message = OneMessage::new(conn, message.head, message.body);
    let flushed = message.flushed();
    let outcome = Arc::new(Outcome::default());
    let answer = service_fn(|mut request: Request<Incoming>| {
        let over = Over(Arc::clone(&outcome));
        wire.mark(&mut request);
        if let Some(came) = came {
            request.extensions_mut().insert(came);
        }
        Box::pin(async move {
            let version = request.version();
            let response = answer(service, peer, request).await;
            let is_open_ended = is_open_ended(version, &response);
            over.0.is_open_ended.store(is_open_ended, Ordering::Relaxed);
            let watched = |body| AnswerBody { body, broken: None, is_open_ended, over };
            Ok::<_, Infallible>(response.map(watched))
        })
    });
    let mut connection = limits.builder().serve_connection(TokioIo::new(message), answer);
    let mut was_stopped = false;
    let ended = poll_fn(|cx| {
        if !was_stopped {
            // This includes hyper's shutdown: if hyper ends by itself, the shutdown writes what is
            // still buffered.
            let polled = Pin::new(&mut connection).poll(cx);
            let is_done = outcome.is_over.load(Ordering::Relaxed) && flushed.is_true();
            if polled.is_ready() || !is_done {
                return polled;
            }
            was_stopped = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        connection.poll_without_shutdown(cx)
    })
    .await;
    if let Err(error) = &ended {
        trace!(%peer, %error, "A connection ended.");
    }
    let parts = connection.into_parts();
    let message = parts.io.into_inner();
    // If hyper ended by itself, the client or the service wanted the connection to be closed. hyper
    // may also be stopped just before it would end: a body may have no other end than that of the
    // connection, so the connection must be closed then.
    let is_kept = was_stopped && !outcome.is_open_ended.load(Ordering::Relaxed);
    if is_kept && ended.is_ok() && parts.read_buf.is_empty() && message.has_next() {
        return Left::Other(message.into_conn());
    }
    let conn = message.into_conn();
    if outcome.is_cut.load(Ordering::Relaxed) {
        conn.stream.break_off();
        return Left::Ended;
    }
    Left::Over(conn)
}

/// True if only the end of the connection ends the body: HTTP/1.0 has no chunks (RFC 9112 section
/// 6.3).
fn is_open_ended(version: Version, response: &Response<ResponseBody>) -> bool {
    let has_length = response.headers().contains_key(CONTENT_LENGTH)
        || response.body().size_hint().exact().is_some();
    version == Version::HTTP_10 && !has_length
}

async fn answer(
    service: &impl Service,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let mut response = service.answer(peer.ip(), request).await;
    if service.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What has happened to the body of an answer.
#[derive(Debug, Default)]
struct Outcome {
    /// hyper has dropped it.
    is_over: AtomicBool,
    /// Only the end of the connection ends it.
    is_open_ended: AtomicBool,
    /// It broke off. An orderly end of the connection would look like its regular end.
    is_cut: AtomicBool,
}

/// Sets `is_over` when it is dropped.
struct Over(Arc<Outcome>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// A body that reports when hyper drops it. All of it is written then, except what is buffered.
struct AnswerBody {
    body: ResponseBody,
    /// The error that ends the body. hyper drops its buffer when it receives an error. So it gets
    /// the error one poll later, when the data before it is on its way.
    broken: Option<BodyError>,
    is_open_ended: bool,
    over: Over,
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body.fmt(f)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(error) = this.broken.take() {
            this.over.0.is_cut.store(this.is_open_ended, Ordering::Relaxed);
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Err(error)) => {
                this.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame @ (Some(Ok(_)) | None) => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves a request that may turn its connection into a WebSocket. The connection ends with it.
pub async fn socket(
    conn: Buffered,
    peer: SocketAddr,
    service: impl Service,
    limits: ConnectionLimits,
    tasks: Tasks,
    seat: Seat,
) {
    let wire = Wire::of(&conn);
    let answer = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(seat.clone());
        wire.mark(&mut request);
        let service = service.clone();
        async move {
            let mut response = answer(&service, peer, request).await;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                // A request after this one would not be checked.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = limits.builder().serve_connection(TokioIo::new(conn), answer);
    let mut connection = std::pin::pin!(connection.with_upgrades());
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = tasks.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        trace!(%peer, %error, "A connection ended.");
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;
    use crate::net::Stream;
    use crate::server::framing::Framing;
    use crate::server::message::Becomes;
    use crate::server::{ConnectionEvent, NoPassthrough, Refusal};

    const LENGTH: usize = 1 << 20;

    /// Answers at once and reads no body.
    #[derive(Clone, Debug)]
    struct Early;

    impl Service for Early {
        type Passthrough = NoPassthrough;

        fn passthrough(&self, _: IpAddr, _: ConnectionLimits) -> Option<NoPassthrough> {
            None
        }

        async fn answer(&self, _: IpAddr, _: Request<Incoming>) -> Response<ResponseBody> {
            Response::new(ResponseBody::whole(vec![b'x'; LENGTH]))
        }

        fn refused(&self, _: IpAddr, refusal: Refusal, _: &[u8]) -> Response<ResponseBody> {
            Response::new(ResponseBody::whole(refusal.to_string()))
        }

        fn is_leaving(&self) -> bool {
            false
        }

        fn note(&self, _: ConnectionEvent) {}
    }

    /// What the client got, and whether the connection came back.
    async fn served(head: &str, body: u64) -> (usize, bool) {
        let (ours, mut theirs) = duplex(1 << 10);
        let mut conn = Buffered::new(Stream::simulated(ours));
        conn.read = head.into();
        let limits = ConnectionLimits {
            connections_max: 1,
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(5),
            header_bytes_max: 1 << 14,
            headers_max: 100,
        };
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let (body, becomes) = (Framing::of_length(body), Becomes::Http);
        let message = Message { head: head.len(), body, becomes };
        let read = async {
            let mut body = 0;
            let mut piece = vec![0; 900];
            while body < LENGTH
                && let Ok(count @ 1..) = theirs.read(&mut piece).await
            {
                body += piece[..count].iter().filter(|byte| **byte == b'x').count();
            }
            body
        };
        let (back, body) = tokio::join!(once(conn, message, (peer, None), &Early, limits), read);
        (body, matches!(back, Left::Other(_)))
    }

    #[tokio::test]
    async fn an_answer_to_a_body_that_nobody_reads_is_written_to_its_end() {
        let head = "GET / HTTP/1.1\r\ncontent-length: 100\r\n\r\n";
        assert_eq!(served(head, 100).await, (LENGTH, false));
    }

    #[tokio::test]
    async fn a_connection_comes_back_when_its_answer_is_on_its_way() {
        let head = "GET / HTTP/1.1\r\n\r\n";
        assert_eq!(served(head, 0).await, (LENGTH, true));
        let last = "GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
        assert_eq!(served(last, 0).await, (LENGTH, false));
    }
}
