//! Listening, and the life of a connection.
//!
//! This is our own accept loop over hyper. `axum::serve` has no header timeout and no limits: a
//! thousand clients that send their heads very slowly would stay for ever.
//!
//! - [`limits`]: the limits of a connection
//! - [`handshake`]: the first step of a connection with TLS
//! - [`heads`]: reads the heads of requests; their [`deadline`]
//! - [`message`]: checks whether a request may be answered, and finds its end ([`authority`],
//!   [`framing`], [`refusal`])
//! - [`hyper`]: serves what the passthrough does not, each request as [`one_message`]
//! - [`http2`]: connections of HTTP/2, whose requests get the same answers as those of hyper
//! - [`wire`]: what a request came over
//! - [`mod@write`]: writes heads of answers as bytes
//! - [`lingering_close`]: closes a connection whose client may still be sending
//!
//! This room knows nothing about the product. A [`Service`] answers; its [`Passthrough`] comes
//! first.
//!
//! Both ways of answering begin with the same step: the head is read here. A request that goes on
//! is certainly well-formed, and its end is known before it is answered.

pub mod authority;
pub mod deadline;
pub mod door;
pub mod framing;
pub mod handshake;
pub mod heads;
pub mod http2;
pub mod hyper;
pub mod limits;
pub mod lingering_close;
pub mod message;
pub mod one_message;
pub mod refusal;
pub mod wire;
pub mod write;

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::hyper::body::Incoming;
use futures_util::FutureExt as _;
use http::{Request, Response};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::WaitForCancellationFuture;
use tracing::{debug, error, warn};

use crate::body::ResponseBody;
use crate::lazy_poll::LazyPoll;
use crate::limits::LimitReached;
use crate::limits::held::Held;
use crate::net::tls::ServerTls;
use crate::net::{Buffered, Stream, now, sleep};
use crate::tasks::Tasks;
use door::Door;
use handshake::Opened;
use heads::{Heads, Next};
pub use limits::ConnectionLimits;
use lingering_close::Pace;
use message::Becomes;
pub use refusal::Refusal;
use write::write_own;

/// The pause after `accept` failed because there was no free descriptor. One may be free later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers the requests of one peer.
pub trait Service: Clone + Send + Sync + 'static {
    type Passthrough: Passthrough;

    fn answer(
        &self,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send;

    /// The answer to a request of a peer that is refused because of its head. `read` is what was
    /// read of it.
    fn refused(&self, peer: IpAddr, refusal: Refusal, read: &[u8]) -> Response<ResponseBody>;

    /// True once a stop was requested: persistent connections are closed after their answer.
    fn is_leaving(&self) -> bool;

    /// Counts a new connection of a peer until it ends.
    ///
    /// # Errors
    /// The peer has too many: the connection is closed at once.
    fn hold(&self, _peer: IpAddr) -> Result<Option<Held>, LimitReached> {
        Ok(None)
    }

    /// Is told what happens to connections.
    fn note(&self, event: ConnectionEvent);

    /// Answers some requests of a peer before hyper sees them. `None` if there is no passthrough.
    fn passthrough(&self, peer: IpAddr, limits: ConnectionLimits) -> Option<Self::Passthrough>;
}

/// Answers requests as bytes, as long as they are of its kind.
pub trait Passthrough: Send {
    /// Passes requests on until the connection ends, or until one comes that it does not handle. It
    /// is called again when the connection comes back.
    fn run(
        &mut self,
        conn: Buffered,
        heads: &mut Heads,
        stopping: &mut Stopping<'_>,
    ) -> impl Future<Output = Left> + Send;
}

/// Why a passthrough gives up a connection.
#[derive(Debug)]
pub enum Left {
    /// The connection has ended, or is to be dropped without an orderly close.
    Ended,
    /// The last answer is written, and the connection is to be closed in an orderly way.
    Over(Buffered),
    /// The next request is not for the passthrough.
    Other(Buffered),
}

/// The passthrough of a service that has none: hyper serves all its requests.
#[derive(Clone, Copy, Debug)]
pub enum NoPassthrough {}

impl Passthrough for NoPassthrough {
    async fn run(&mut self, _: Buffered, _: &mut Heads, _: &mut Stopping<'_>) -> Left {
        match *self {}
    }
}

/// Whether a stop was requested. A connection waits on this.
pub type Stopping<'a> = LazyPoll<WaitForCancellationFuture<'a>>;

/// What happens to a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionEvent {
    /// The number of open connections has changed to this, WebSockets included.
    Open(usize),
    /// A connection was closed at once, because too many were open.
    Refused,
    /// A connection ended in a panic. The others go on.
    Panicked,
}

/// Counts the open connections of a listener, including those that became WebSockets.
#[derive(Clone, Debug)]
pub struct OpenConnections {
    count: Arc<AtomicUsize>,
    /// For those that are being closed.
    pace: Arc<Pace>,
}

impl OpenConnections {
    fn new() -> Self {
        Self { count: Arc::default(), pace: Arc::new(Pace::new(now())) }
    }

    fn enter(&self, max: usize, held: Option<Held>) -> Option<Seat> {
        let seat = Seat(Arc::new(Counted { open: self.clone(), _held: held }));
        // A seat that is dropped reduces the count, also a seat that exceeded the maximum.
        (self.count.fetch_add(1, Ordering::Relaxed) < max).then_some(seat)
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// One open connection. A WebSocket keeps the seat of the connection that it was before: the seat
/// is stored in the request's extensions.
#[derive(Clone, Debug)]
pub struct Seat(Arc<Counted>);

impl Seat {
    fn pace(&self) -> &Pace {
        &self.0.open.pace
    }
}

#[derive(Debug)]
struct Counted {
    open: OpenConnections,
    /// What its peer is counted for.
    _held: Option<Held>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How connections are accepted.
#[derive(Clone, Debug)]
pub struct Terms {
    pub limits: ConnectionLimits,
    /// `None` is plain HTTP.
    pub tls: Option<ServerTls>,
}

impl From<ConnectionLimits> for Terms {
    fn from(limits: ConnectionLimits) -> Self {
        Self { limits, tls: None }
    }
}

/// Accepts connections until the drain begins. Its heart has this name.
///
/// `terms` is read for each new connection, which keeps what it got.
pub async fn accept<T: Into<Terms>>(
    name: &'static str,
    mut door: Door,
    service: impl Service,
    terms: impl Fn() -> T + Send,
    tasks: Tasks,
) {
    let open = OpenConnections::new();
    let heart = tasks.hearts().heart(name);
    loop {
        let accepted = tokio::select! {
            biased;
            // This is checked first, because during a flood there is always a connection to accept.
            () = tasks.stopping() => return,
            accepted = heart.idle(door.accept()) => accepted,
        };
        let terms: Terms = terms().into();
        match accepted {
            Ok((stream, peer)) => match take_seat(&service, &open, peer, &terms) {
                Some(seat) => {
                    service.note(ConnectionEvent::Open(open.count()));
                    let connection =
                        serve(stream, peer, service.clone(), terms, tasks.clone(), seat);
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

/// `None` if too many connections are open, or too many of this peer.
fn take_seat(
    service: &impl Service,
    open: &OpenConnections,
    peer: SocketAddr,
    terms: &Terms,
) -> Option<Seat> {
    let held = service.hold(peer.ip()).ok()?;
    open.enter(terms.limits.connections_max, held)
}

/// Runs a connection to its end and logs a panic. It is not an `async fn`: that would keep room for
/// the connection twice.
fn survive(
    connection: impl Future<Output = ()>,
    service: impl Service,
    open: OpenConnections,
) -> impl Future<Output = ()> {
    AssertUnwindSafe(connection).catch_unwind().map(move |ended| {
        if ended.is_err() {
            error!("A connection ended in a panic.");
            service.note(ConnectionEvent::Panicked);
        }
        service.note(ConnectionEvent::Open(open.count()));
    })
}

/// Serves a connection to its end. hyper answers what the passthrough does not.
async fn serve(
    mut stream: Stream,
    peer: SocketAddr,
    service: impl Service,
    Terms { limits, tls }: Terms,
    tasks: Tasks,
    seat: Seat,
) {
    stream.give_up_stalled_writes_after(limits.stall_timeout);
    let mut conn = Buffered::new(stream);
    let mut heads = Heads::new(limits);
    let mut stopping = LazyPoll::new(tasks.stopping());
    if let Some(tls) = tls {
        conn = match Box::pin(handshake::open(conn, &tls, &mut heads, &mut stopping)).await {
            Opened::Secured(conn) => conn,
            Opened::Plain(conn) => {
                let response = service.refused(peer.ip(), Refusal::PlainHttp, &conn.read);
                return Box::pin(turn_away(conn, response, &tasks, seat.pace())).await;
            }
            Opened::Failed => return,
        };
        conn.stream.give_up_stalled_writes_after(limits.stall_timeout);
        if conn.stream.speaks_http2() {
            let until = (heads.deadline, &tasks, &mut stopping);
            return Box::pin(http2::serve(conn, peer, &service, limits, until)).await;
        }
    }
    let mut passthrough = service.passthrough(peer.ip(), limits);
    loop {
        if let Some(passthrough) = &mut passthrough {
            match passthrough.run(conn, &mut heads, &mut stopping).await {
                Left::Ended => return,
                Left::Over(conn) => {
                    return Box::pin(lingering_close::close(conn, &tasks, seat.pace())).await;
                }
                Left::Other(rest) => conn = rest,
            }
        }
        let message = match heads.next(&mut conn, &mut stopping).await {
            Next::Ended => return,
            Next::Refused(refusal) => {
                let response = service.refused(peer.ip(), refusal, &conn.read);
                return Box::pin(turn_away(conn, response, &tasks, seat.pace())).await;
            }
            Next::Asked(message) => message,
        };
        match message.becomes {
            Becomes::Http => {
                let from = (peer, heads.take_came());
                let served = Box::pin(hyper::once(conn, message, from, &service, limits)).await;
                match served {
                    Left::Ended => return,
                    Left::Over(conn) => {
                        return Box::pin(lingering_close::close(conn, &tasks, seat.pace())).await;
                    }
                    Left::Other(rest) => conn = rest,
                }
                heads.answered();
                if !conn.read.is_empty() {
                    // Whoever sends many requests at once takes turns with all others.
                    tokio::task::yield_now().await;
                }
            }
            Becomes::Socket => {
                let tasks = tasks.clone();
                let served = hyper::socket(conn, peer, service.clone(), limits, tasks, seat);
                return Box::pin(served).await;
            }
        }
    }
}

/// Writes a refusal and ends the connection.
async fn turn_away(
    mut conn: Buffered,
    response: Response<ResponseBody>,
    tasks: &Tasks,
    pace: &Pace,
) {
    let is_head = conn.read.starts_with(b"HEAD ");
    let mut answer = Vec::new();
    write_own(&response, is_head, true, &mut answer);
    if conn.stream.write_all(&answer).await.is_ok() {
        lingering_close::close(conn, tasks, pace).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::net::{Network as _, Tcp};

    /// Panics at one path, and counts the events that it is told.
    #[derive(Clone, Debug, Default)]
    struct Fragile {
        panicked: Arc<AtomicUsize>,
    }

    impl Service for Fragile {
        type Passthrough = NoPassthrough;

        async fn answer(&self, _: IpAddr, request: Request<Incoming>) -> Response<ResponseBody> {
            assert_ne!(request.uri().path(), "/panic", "as asked");
            Response::new(ResponseBody::whole("fine"))
        }

        fn refused(&self, _: IpAddr, refusal: Refusal, _: &[u8]) -> Response<ResponseBody> {
            Response::new(ResponseBody::whole(refusal.to_string()))
        }

        fn is_leaving(&self) -> bool {
            false
        }

        fn passthrough(&self, _: IpAddr, _: ConnectionLimits) -> Option<NoPassthrough> {
            None
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
            stall_timeout: Duration::from_secs(5),
            header_bytes_max: 1 << 14,
            headers_max: 100,
        };
        let listener = Tcp.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr();
        let (door, _mover) = Door::new(Some(Arc::from(listener)));
        tasks.spawn(accept("test", door, service.clone(), move || limits, tasks.clone()));
        assert!(ask(address, "/").await.ends_with("fine"));
        assert_eq!(ask(address, "/panic").await, "", "its connection broke");
        assert!(ask(address, "/").await.ends_with("fine"), "the others do not notice");
        assert_eq!(service.panicked.load(Ordering::Relaxed), 1);
        assert_eq!(tasks.drain(Duration::from_secs(10)).await, 0);
    }
}
