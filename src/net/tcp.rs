//! The real network.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use super::{Boxed, Listener, Network, Stream};

/// TCP through the operating system, without Nagle's delay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Stream>> {
        Box::pin(connect(host, port))
    }

    fn listen(&self, address: SocketAddr) -> Boxed<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { listen(address) })
    }
}

/// How long what was sent may stay unacknowledged before the connection is broken (RFC 5482).
/// Without it the system tries for a quarter of an hour; above 20 s, so that a cable that is
/// plugged in again finds its connections alive.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// A peer that is gone without a word is noticed when something is sent to it, pings included.
fn bound_silence(stream: &TcpStream) {
    // Refused on systems that do not have it, and for a connection that is already dead.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
}

/// A listener of the system's, for tokio.
pub(super) fn adopt(listener: std::net::TcpListener) -> io::Result<Box<dyn Listener>> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let local = listener.local_addr()?;
    Ok(Box::new(TcpListening { listener, local }))
}

#[expect(clippy::disallowed_methods, reason = "this is the seam")]
async fn connect(host: &str, port: u16) -> io::Result<Stream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                bound_silence(&stream);
                return Ok(Stream::tcp(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// How many connections may wait to be accepted; the system has a limit of its own
/// (`net.core.somaxconn`). The usual 128 overflows when all browsers of a large office come back
/// at once, and then a connection waits a second for its first segment to be sent again.
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr) -> io::Result<Box<dyn Listener>> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for old connections of the same port to be forgotten.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let local = listener.local_addr()?;
    Ok(Box::new(TcpListening { listener, local }))
}

#[derive(Debug)]
struct TcpListening {
    listener: TcpListener,
    local: SocketAddr,
}

impl Listener for TcpListening {
    fn accept(&self) -> Boxed<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async {
            let (stream, peer) = self.listener.accept().await?;
            // A connection that died in the backlog fails here; it will fail again when read.
            let _ = stream.set_nodelay(true);
            bound_silence(&stream);
            Ok((Stream::tcp(stream), peer))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}
