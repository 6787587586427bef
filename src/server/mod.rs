//! Listening, and the life of a connection.
//!
//! Our own accept loop over hyper, because `axum::serve` has no header timeout and no limits: a
//! thousand clients that drip headers would stay for ever.
//!
//! - [`limits`]: what a connection may take
//! - [`lane`]: reads that are only passed on, as bytes
//! - [`hyper`]: all other requests, one at a time or to the connection's end

pub mod hyper;
pub mod lane;
pub mod limits;

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::hyper::body::Incoming;
use futures_util::FutureExt as _;
use http::{Request, Response};
use tracing::{debug, error, warn};

use crate::body::ResponseBody;
use crate::config::OnOff;
use crate::front;
use crate::gateway::Gateway;
use crate::net::{Listener, Stream, Wire, sleep};
use crate::tasks::Tasks;
use lane::connection::{Lane, Left};
pub use limits::ConnectionLimits;

/// The pause after an `accept` that failed for want of descriptors: they come back with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Something that answers requests of one peer.
pub trait Service: Clone + Send + Sync + 'static {
    fn answer(
        &self,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send;

    /// True once a stop was asked for: kept connections end after their answer.
    fn is_leaving(&self) -> bool;

    /// Whose requests that are only passed on go past it, through the lane; `None` if it has none.
    fn lane(&self) -> Option<&Arc<Gateway>> {
        None
    }

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

    fn lane(&self) -> Option<&Arc<Gateway>> {
        match self.0.config.server.passthrough {
            OnOff::On => Some(&self.0),
            OnOff::Off => None,
        }
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

/// Serves a connection to its end: what is only passed on in the lane, the rest by hyper.
async fn serve(
    mut stream: Stream,
    peer: SocketAddr,
    service: impl Service,
    limits: ConnectionLimits,
    tasks: Tasks,
    seat: Seat,
) {
    stream.give_up_stalled_writes_after(limits.stall_timeout);
    let mut wire = Wire::new(stream);
    let Some(gateway) = service.lane() else {
        return Box::pin(hyper::to_the_end(wire, peer, service, limits, tasks, seat)).await;
    };
    let mut lane = Lane::new(Arc::clone(gateway), peer.ip(), limits);
    loop {
        match lane.run(wire).await {
            Left::Ended => return,
            Left::Other(rest, Some(bytes)) => {
                let served = Box::pin(hyper::once(rest, bytes, peer, &service, limits)).await;
                let Some(back) = served else { return };
                wire = back;
            }
            Left::Other(rest, None) => {
                let all = hyper::to_the_end(rest, peer, service.clone(), limits, tasks, seat);
                return Box::pin(all).await;
            }
        }
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
            stall_timeout: Duration::from_secs(5),
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
