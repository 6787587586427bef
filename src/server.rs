//! Listening, and the life of a connection.
//!
//! Our own accept loop over hyper, because `axum::serve` has no header timeout and no limits: a
//! thousand clients that drip headers would stay for ever.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::rt::{Sleep, Timer};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use tracing::{debug, error, trace, warn};

use crate::body::ResponseBody;
use crate::config::ServerConfig;
use crate::front;
use crate::gateway::Gateway;
use crate::net::{Listener, Stream, sleep};
use crate::tasks::Tasks;

/// The pause after an `accept` that failed for want of descriptors: they come back with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection that was accepted when the drain began may take to ask.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Something that answers requests of one peer.
pub trait Service: Clone + Send + Sync + 'static {
    fn answer(
        &self,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send;

    /// True once a stop was asked for: kept connections end after their answer.
    fn is_leaving(&self) -> bool;

    /// Learns what happens to connections.
    fn note(&self, event: ConnectionEvent);
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionEvent {
    /// So many are open now, sockets included.
    Open(usize),
    /// One was closed at once, because as many as may be were open.
    Refused,
    /// One ended in a panic; the others do not notice.
    Panicked,
}

/// The front door of a gateway.
#[derive(Clone, Debug)]
pub struct Front(pub Arc<Gateway>);

impl Service for Front {
    async fn answer(&self, peer: IpAddr, request: Request<Incoming>) -> Response<ResponseBody> {
        front::answer(Arc::clone(&self.0), peer, request).await
    }

    fn is_leaving(&self) -> bool {
        self.0.is_leaving()
    }

    fn note(&self, event: ConnectionEvent) {
        let metrics = &self.0.metrics;
        match event {
            ConnectionEvent::Open(count) => {
                metrics.connections.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            ConnectionEvent::Refused => {
                metrics.connections_refused.inc();
            }
            ConnectionEvent::Panicked => {
                metrics.panics.inc();
            }
        }
    }
}

/// How connections are limited.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    pub connections_max: usize,
    /// From the opening of the connection to the last byte of its first head.
    pub header_timeout: Duration,
    /// From an answer to the last byte of the next head; a connection without one is closed.
    pub idle_timeout: Duration,
    pub header_bytes_max: usize,
    pub headers_max: usize,
}

impl ConnectionLimits {
    #[must_use]
    pub fn of(config: &ServerConfig) -> Self {
        Self {
            connections_max: config.max_connections,
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            header_bytes_max: usize::try_from(config.max_header_bytes).unwrap_or(usize::MAX),
            headers_max: config.max_headers,
        }
    }

    fn builder(&self) -> Builder {
        let mut builder = Builder::new();
        builder
            .timer(KeepAlive { longer: self.idle_timeout.saturating_sub(self.header_timeout) })
            .header_read_timeout(self.header_timeout)
            .max_buf_size(self.header_bytes_max.max(READ_MAX))
            .max_headers(self.headers_max)
            .half_close(false);
        builder
    }
}

/// hyper has one timeout for all heads of a connection, and counts the wait for the next request
/// into it. It makes a timer for the first head and resets it for each further one, so the reset
/// is where a connection that has proved itself gets longer.
#[derive(Clone, Copy, Debug)]
struct KeepAlive {
    longer: Duration,
}

impl Timer for KeepAlive {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        crate::net::now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        TokioTimer::new().reset(sleep, deadline + self.longer);
    }
}

/// hyper has one limit for heads and for how much of a body it reads at once. Heads have their own
/// ([`front::answer`] counts them); a body in small pieces costs two system calls for each. It is
/// what a connection can make us hold before its head is refused.
const READ_MAX: usize = 128 << 10;

/// Counts open connections, on the listener and on its sockets.
#[derive(Clone, Debug, Default)]
pub struct Open(Arc<AtomicUsize>);

impl Open {
    fn enter(&self, max: usize) -> Option<Seat> {
        let seat = Seat { _counted: Arc::new(Counted(Arc::clone(&self.0))) };
        // The seat counts itself out when dropped, also when it was one too many.
        (self.0.fetch_add(1, Ordering::Relaxed) < max).then_some(seat)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One open connection. A socket keeps the seat of the connection that it was: it rides in the
/// request's extensions.
#[derive(Clone, Debug)]
pub struct Seat {
    _counted: Arc<Counted>,
}

#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections until the drain begins.
pub async fn accept(
    listener: Arc<dyn Listener>,
    service: impl Service,
    limits: ConnectionLimits,
    tasks: Tasks,
) {
    let open = Open::default();
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = tasks.stopping() => return,
        };
        match accepted {
            Ok((stream, peer)) => match open.enter(limits.connections_max) {
                Some(seat) => {
                    service.note(ConnectionEvent::Open(open.count()));
                    let connection =
                        serve(stream, peer, service.clone(), limits, tasks.clone(), seat);
                    tasks.spawn(survive(connection, service.clone(), open.clone()));
                }
                None => {
                    service.note(ConnectionEvent::Refused);
                    debug!(%peer, "Too many connections; closed one.");
                }
            },
            Err(error) => {
                warn!(%error, "Accepting failed.");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Runs a connection to its end, also to a bad one: a panic must not go unseen.
async fn survive(connection: impl Future<Output = ()>, service: impl Service, open: Open) {
    if AssertUnwindSafe(connection).catch_unwind().await.is_err() {
        error!("A connection ended in a panic.");
        service.note(ConnectionEvent::Panicked);
    }
    service.note(ConnectionEvent::Open(open.count()));
}

async fn serve(
    stream: Stream,
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
        async move {
            let mut response = service.answer(peer.ip(), request).await;
            if service.is_leaving() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection =
        limits.builder().serve_connection(TokioIo::new(stream), answer).with_upgrades();
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::net::{Network as _, Tcp};

    /// Panics at one path, and counts what it is told of.
    #[derive(Clone, Debug, Default)]
    struct Fragile {
        panicked: Arc<AtomicUsize>,
    }

    impl Service for Fragile {
        async fn answer(&self, _: IpAddr, request: Request<Incoming>) -> Response<ResponseBody> {
            assert_ne!(request.uri().path(), "/panic", "as asked");
            Response::new(ResponseBody::whole("fine"))
        }

        fn is_leaving(&self) -> bool {
            false
        }

        fn note(&self, event: ConnectionEvent) {
            if event == ConnectionEvent::Panicked {
                self.panicked.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    async fn ask(to: SocketAddr, path: &str) -> String {
        let mut stream = Tcp.connect("127.0.0.1", to.port()).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    /// T80.
    #[tokio::test]
    async fn a_panic_ends_one_connection_and_is_counted() {
        let (tasks, service) = (Tasks::default(), Fragile::default());
        let limits = ConnectionLimits {
            connections_max: 10,
            header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5),
            header_bytes_max: 1 << 14,
            headers_max: 100,
        };
        let listener = Tcp.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr();
        tasks.spawn(accept(Arc::from(listener), service.clone(), limits, tasks.clone()));
        assert!(ask(address, "/").await.ends_with("fine"));
        assert_eq!(ask(address, "/panic").await, "", "its connection broke");
        assert!(ask(address, "/").await.ends_with("fine"), "the others do not notice");
        assert_eq!(service.panicked.load(Ordering::Relaxed), 1);
        assert_eq!(tasks.drain(Duration::from_secs(10)).await, 0);
    }
}
