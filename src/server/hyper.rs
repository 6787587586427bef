//! Connections that hyper serves: for one request, or to their end.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tracing::trace;

use super::limits::{ConnectionLimits, FIRST_REQUEST};
use super::{Seat, Service};
use crate::body::{BodyError, ResponseBody};
use crate::net::{Portion, Wire};
use crate::tasks::Tasks;

/// Serves the next message of a connection, which has `bytes` bytes. The connection comes back if
/// it stands right behind that message and all of the answer is on its way.
///
/// hyper is not told that more may come: it sees one message, and is stopped when it waits for
/// the next.
pub async fn once(
    wire: Wire,
    bytes: u64,
    peer: SocketAddr,
    service: &impl Service,
    limits: ConnectionLimits,
) -> Option<Wire> {
    let portion = Portion::next(wire, bytes);
    let flushed = portion.flushed();
    let answered = Arc::new(AtomicBool::new(false));
    let answer = service_fn(|request: Request<Incoming>| {
        let over = Over(Arc::clone(&answered));
        Box::pin(async move {
            let response = answer(service, peer, request).await;
            Ok::<_, Infallible>(response.map(|body| Watched { body, _over: over }))
        })
    });
    let mut connection = limits.builder_once().serve_connection(TokioIo::new(portion), answer);
    let mut was_stopped = false;
    let ended = poll_fn(|cx| {
        if !was_stopped {
            // With its shutdown: if it ends by itself, that is what writes what is still buffered.
            let polled = Pin::new(&mut connection).poll(cx);
            let is_done = answered.load(Ordering::Relaxed) && flushed.is_true();
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
    let portion = parts.io.into_inner();
    // One that hyper ended by itself was to be closed, by the client's wish or ours.
    if was_stopped && ended.is_ok() && parts.read_buf.is_empty() {
        return portion.into_next();
    }
    let _ = portion.into_wire().stream.shutdown().await;
    None
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

/// Told when it is dropped.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A body that says when hyper has let go of it: all of it is written, but for what is buffered.
struct Watched {
    body: ResponseBody,
    _over: Over,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body.fmt(f)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Serves all that is still to come of a connection, upgrades included.
pub async fn to_the_end(
    wire: Wire,
    peer: SocketAddr,
    service: impl Service,
    limits: ConnectionLimits,
    tasks: Tasks,
    seat: Seat,
) {
    let has_asked = AtomicBool::new(false);
    let answer = service_fn(|mut request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        let service = service.clone();
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(seat.clone());
        }
        async move { Ok::<_, Infallible>(answer(&service, peer, request).await) }
    });
    let io = TokioIo::new(Portion::all(wire));
    let connection = limits.builder().serve_connection(io, answer).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = tasks.stopping() => {
            let mut ended = None;
            if !has_asked.load(Ordering::Relaxed) {
                // It was accepted in the last moment, and its first request is on its way.
                ended = timeout(FIRST_REQUEST, &mut connection).await.ok();
            }
            match ended {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
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
    use crate::server::ConnectionEvent;

    const LENGTH: usize = 1 << 20;

    /// Answers at once, and reads no body.
    #[derive(Clone, Debug)]
    struct Early;

    impl Service for Early {
        async fn answer(&self, _: IpAddr, _: Request<Incoming>) -> Response<ResponseBody> {
            Response::new(ResponseBody::whole(vec![b'x'; LENGTH]))
        }

        fn is_leaving(&self) -> bool {
            false
        }

        fn note(&self, _: ConnectionEvent) {}
    }

    /// What the client got, and whether the connection came back.
    async fn served(head: &str, bytes: usize) -> (usize, bool) {
        let (ours, mut theirs) = duplex(1 << 10);
        let mut wire = Wire::new(Stream::simulated(ours));
        wire.read = head.into();
        let limits = ConnectionLimits {
            connections_max: 1,
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(5),
            header_bytes_max: 1 << 14,
            headers_max: 100,
        };
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
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
        let (back, body) = tokio::join!(once(wire, bytes as u64, peer, &Early, limits), read);
        (body, back.is_some())
    }

    #[tokio::test]
    async fn an_answer_to_a_body_that_nobody_reads_is_written_to_its_end() {
        let head = "GET / HTTP/1.1\r\ncontent-length: 100\r\n\r\n";
        assert_eq!(served(head, head.len() + 100).await, (LENGTH, false));
    }

    #[tokio::test]
    async fn a_connection_comes_back_when_its_answer_is_on_its_way() {
        let head = "GET / HTTP/1.1\r\n\r\n";
        assert_eq!(served(head, head.len()).await, (LENGTH, true));
        let last = "GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
        assert_eq!(served(last, last.len()).await, (LENGTH, false));
    }
}
