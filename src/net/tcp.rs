//! The real network.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use super::{Boxed, Listener, Network, Stream, now, within};

/// TCP through the operating system, without Nagle's delay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Stream>> {
        Box::pin(async move {
            let addresses = lookup_host((host, port)).await?.collect();
            connect_each(addresses, None, dial).await
        })
    }

    fn connect_within<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        limit: Duration,
    ) -> Boxed<'a, io::Result<Stream>> {
        let due = now() + limit;
        Box::pin(within(limit, async move {
            let addresses = lookup_host((host, port)).await?.collect();
            connect_each(addresses, Some(due), dial).await
        }))
    }

    fn listen(&self, address: SocketAddr) -> Boxed<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { listen(address) })
    }
}

/// How long sent data may stay unacknowledged before the connection is broken (RFC 5482). Without a
/// limit the system tries for a quarter of an hour. The limit is above 20 s, so that connections
/// survive when a cable is unplugged and plugged in again.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Limits how long a peer that has disappeared stays unnoticed after something, such as a ping, was
/// sent to it.
fn bound_silence(stream: &TcpStream) {
    // Refused on systems that do not support it, and by a connection that is already dead.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
}

/// If a backend is silent for this long, the system checks whether the connection still exists
/// (keepalive). Also the interval of these checks.
const ASKED_AFTER: Duration = Duration::from_secs(20);
const ASKED_EVERY: Duration = Duration::from_secs(10);

/// Turns on keepalive. While we wait for an answer we send nothing, so we would not notice that the
/// backend is gone. A pod that has come back with the same address answers keepalive with a reset.
fn ask_in_silence(stream: &TcpStream) {
    let asks = TcpKeepalive::new().with_time(ASKED_AFTER).with_interval(ASKED_EVERY);
    // A connection that is already dead refuses this.
    let _ = SockRef::from(stream).set_tcp_keepalive(&asks);
}

/// How many bytes of a new connection may wait in the system until it may send them. What was sent
/// and is not acknowledged yet does not count.
///
/// Without a limit it takes some 3 MB for a peer that reads nothing. Then a few hundred such peers
/// make the gateway copy a gigabyte at once, while everybody else waits, and the system keeps it.
pub(super) const UNSENT_MAX: u32 = 256 << 10;

/// A connection that a listener accepts has what the listener had when the peer connected.
fn bound_unsent<'a>(socket: impl Into<SockRef<'a>>) {
    let_wait_unsent(socket, UNSENT_MAX);
}

/// As many as the system is set up for (`net.ipv4.tcp_notsent_lowat`).
pub(super) fn unbound_unsent(stream: &TcpStream) {
    let_wait_unsent(stream, 0);
}

fn let_wait_unsent<'a>(socket: impl Into<SockRef<'a>>, most: u32) {
    // Refused on systems that do not support it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.into().set_tcp_notsent_lowat(most);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (socket, most);
}

/// Makes a tokio listener from a listener of the system.
pub(super) fn adopt(listener: std::net::TcpListener) -> io::Result<Box<dyn Listener>> {
    listener.set_nonblocking(true)?;
    listening(TcpListener::from_std(listener)?)
}

fn listening(listener: TcpListener) -> io::Result<Box<dyn Listener>> {
    bound_unsent(&listener);
    let local = listener.local_addr()?;
    Ok(Box::new(TcpListening { listener, local }))
}

/// Dials one address after the other. Each gets a share of the remaining time.
async fn connect_each<T, D: Future<Output = io::Result<T>>>(
    addresses: Vec<SocketAddr>,
    due: Option<Instant>,
    dial: impl Fn(SocketAddr) -> D,
) -> io::Result<T> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let many = addresses.len();
    for (index, address) in addresses.into_iter().enumerate() {
        let dialled = match due {
            Some(due) => {
                let left = due.saturating_duration_since(now());
                within(share(left, many - index), dial(address)).await
            }
            None => dial(address).await,
        };
        match dialled {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The share of the next address: the remaining time is divided equally by the remaining addresses.
fn share(left: Duration, addresses: usize) -> Duration {
    left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)
}

async fn dial(address: SocketAddr) -> io::Result<Stream> {
    Ok(Stream::tcp(open(address).await?))
}

#[expect(clippy::disallowed_methods, reason = "this is the seam")]
async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    bound_silence(&stream);
    bound_unsent(&stream);
    ask_in_silence(&stream);
    Ok(stream)
}

/// How many connections may wait to be accepted. The system has a limit of its own
/// (`net.core.somaxconn`). The usual 128 is too small when all browsers of a large office reconnect
/// at once: a connection then waits a second until its first segment is sent again.
const BACKLOG: u32 = 4096;

fn listen(address: SocketAddr) -> io::Result<Box<dyn Listener>> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait until the system has forgotten old connections of the same port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    listening(socket.listen(BACKLOG)?)
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
            // This fails for a connection that died in the backlog. Its first read will fail too.
            let _ = stream.set_nodelay(true);
            bound_silence(&stream);
            Ok((Stream::tcp(stream), peer))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// How a dial ends.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Silent,
        Refused,
        Opens,
    }

    /// The result of the dials, how long they took, and which addresses were tried.
    async fn dialled(fates: &[Fate]) -> (io::Result<u16>, Duration, Vec<u16>) {
        let addresses = (0..).zip(fates).map(|(port, _)| SocketAddr::from(([127, 0, 0, 1], port)));
        let (asked, began) = (Mutex::new(Vec::new()), now());
        let dial = |address: SocketAddr| {
            asked.lock().unwrap().push(address.port());
            let fate = fates[usize::from(address.port())];
            async move {
                match fate {
                    Fate::Silent => std::future::pending().await,
                    Fate::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
                    Fate::Opens => Ok(address.port()),
                }
            }
        };
        let outcome = connect_each(addresses.collect(), Some(began + LIMIT), dial).await;
        (outcome, now().duration_since(began), asked.into_inner().unwrap())
    }

    const LIMIT: Duration = Duration::from_secs(6);

    #[tokio::test(start_paused = true)]
    async fn an_address_that_says_nothing_leaves_the_others_their_time() {
        let second = Duration::from_secs(1);
        let near = |took: Duration, expected: Duration| {
            expected <= took && took < expected + Duration::from_millis(10)
        };
        let (opened, took, _) = dialled(&[Fate::Silent, Fate::Opens]).await;
        assert!(opened.is_ok_and(|port| port == 1) && near(took, 3 * second), "{took:?}");
        let (opened, took, _) = dialled(&[Fate::Silent, Fate::Silent, Fate::Opens]).await;
        assert!(opened.is_ok_and(|port| port == 2) && near(took, 4 * second), "{took:?}");
        let (opened, took, asked) = dialled(&[Fate::Refused, Fate::Silent, Fate::Refused]).await;
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(near(took, 3 * second) && asked == [0, 1, 2], "{took:?} {asked:?}");
        let (opened, took, _) = dialled(&[Fate::Silent]).await;
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(near(took, LIMIT), "a lone one has all of it: {took:?}");
        assert_eq!(dialled(&[]).await.0.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_backend_that_is_silent_is_asked_whether_it_is_there() {
        let listener = Tcp.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let stream = open(listener.local_addr()).await.unwrap();
        assert!(SockRef::from(&stream).keepalive().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(SockRef::from(&stream).tcp_keepalive_time().unwrap(), ASKED_AFTER);
    }

    /// Both ends: that of a listener that we opened or were given, and the one that dialled it.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn little_waits_unsent_for_who_has_read_little() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let unsent_max = |of: &Stream| SockRef::from(of.socket().unwrap()).tcp_notsent_lowat();
        let given = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for listener in [listen(([127, 0, 0, 1], 0).into()).unwrap(), adopt(given).unwrap()] {
            let mut dialled = dial(listener.local_addr()).await.unwrap();
            let (mut accepted, _) = listener.accept().await.unwrap();
            for stream in [&dialled, &accepted] {
                assert_eq!(unsent_max(stream).unwrap(), UNSENT_MAX);
            }
            let much = vec![0; 4 * UNSENT_MAX as usize];
            let mut read = vec![0; much.len()];
            let (written, taken) =
                tokio::join!(accepted.write_all(&much), dialled.read_exact(&mut read));
            assert_eq!((written.unwrap(), taken.unwrap()), ((), much.len()));
            assert_eq!(unsent_max(&accepted).unwrap(), 0, "it is the system's again");
            assert_eq!(unsent_max(&dialled).unwrap(), UNSENT_MAX);
        }
    }
}
