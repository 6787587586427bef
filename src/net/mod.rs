//! The only connection to the outside world: dialling, listening and time.
//!
//! Nothing else opens a socket or reads a clock (`clippy.toml` refuses it), so that tests can
//! replace the network and the clock by simulated ones. Time is tokio's, which a test can pause and
//! advance. The pure core never reads it, but takes `now` as an argument.

mod buffered;
pub mod descriptors;
pub mod dns;
mod inherited;
pub mod own_process;
mod scratch;
pub mod service_manager;
mod simulated;
mod stream;
mod tcp;
pub mod tls;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

pub use buffered::Buffered;
pub use inherited::{Inherited, Unasked};
pub use scratch::with_scratch;
pub use simulated::{Hashing, new_id, simulated};
pub use stream::Stream;
pub use tcp::Tcp;

/// A boxed future, because network types are trait objects. There is one per connection, never one
/// per request.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A network to dial and to listen on. [`Tcp`] is the real one.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Opens a connection to `host`:`port` (a name or an IP address, IPv6 without brackets).
    ///
    /// # Errors
    /// The error of the operating system for the last address that was tried. The caller sets the
    /// deadline.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Stream>>;

    /// The same within `limit`. If a name has several addresses, each gets a part of the time, so
    /// that an address that does not answer leaves time for the others.
    ///
    /// # Errors
    /// As for [`Network::connect`]; [`io::ErrorKind::TimedOut`] when the time is over.
    fn connect_within<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        limit: Duration,
    ) -> Boxed<'a, io::Result<Stream>> {
        Box::pin(within(limit, self.connect(host, port)))
    }

    /// Listens on `address`; port 0 asks the system for a free one.
    ///
    /// # Errors
    /// The error of `bind`: the address is in use, or there is no permission.
    fn listen(&self, address: SocketAddr) -> Boxed<'_, io::Result<Box<dyn Listener>>>;
}

/// The result of a dial, if it comes in time.
async fn within<T>(limit: Duration, dial: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_elapsed| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
    tokio::time::timeout(limit, dial).await.unwrap_or_else(late)
}

/// A listening socket.
pub trait Listener: fmt::Debug + Send + Sync + 'static {
    /// Waits for the next connection. Cancel safe.
    ///
    /// # Errors
    /// Those of `accept`: a broken connection, or no descriptors left. The listener stays usable.
    fn accept(&self) -> Boxed<'_, io::Result<(Stream, SocketAddr)>>;

    /// The address of the listener, with its real port.
    fn local_addr(&self) -> SocketAddr;
}

/// The monotonic clock.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock: milliseconds since 1970, for timestamps that leave the process. Never used to
/// measure a duration.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the seam")]
pub fn unix_millis() -> u64 {
    if let Some(millis) = simulated::unix_millis() {
        return millis;
    }
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}
