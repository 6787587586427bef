//! A connection: a TCP stream, a stream with TLS, or the stream of a simulated network.

use std::fmt;
use std::future::Future as _;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::poll_proceed;
use tokio::time::Sleep;

use super::tls::{self, secured::Secured};

/// What the stream of a simulated network must implement.
pub trait Simulated: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Simulated for T {}

/// One connection, with a time limit for writes that make no progress.
pub struct Stream {
    wire: Transport,
    /// How long a write may make no progress. There is no limit if it is `None`.
    patience: Option<Duration>,
    /// Runs while a write makes no progress.
    stalled: Option<Pin<Box<Sleep>>>,
    /// How much is to be written until the system may keep as much unsent as it likes.
    until_trusted: usize,
}

/// An enum and not a trait object, so that a read of a TCP stream costs a branch and not a virtual
/// call.
enum Transport {
    Tcp(TcpStream),
    Other(Box<Other>),
}

/// Everything that is not plain TCP. It is boxed as one variant, so that plain TCP costs one
/// branch, however many other kinds there are.
#[expect(clippy::large_enum_variant, reason = "it is in a box, and tests alone have the other")]
enum Other {
    Secured(Secured),
    Simulated(Box<dyn Simulated>),
}

/// Four times of what waits unsent at most until then, so most of it was sent.
const UNTRUSTED: usize = 4 * super::tcp::UNSENT_MAX as usize;

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wire {
            Transport::Tcp(stream) => stream.fmt(f),
            Transport::Other(other) => match &**other {
                Other::Secured(stream) => stream.fmt(f),
                Other::Simulated(_) => f.write_str("Simulated"),
            },
        }
    }
}

impl Stream {
    #[must_use]
    pub fn tcp(stream: TcpStream) -> Self {
        Self::over(Transport::Tcp(stream))
    }

    #[must_use]
    pub fn simulated(stream: impl Simulated + 'static) -> Self {
        Self::over(Transport::Other(Box::new(Other::Simulated(Box::new(stream)))))
    }

    pub(super) fn secured(stream: Secured) -> Self {
        Self::over(Transport::Other(Box::new(Other::Secured(stream))))
    }

    fn over(wire: Transport) -> Self {
        Self { wire, patience: None, stalled: None, until_trusted: UNTRUSTED }
    }

    /// True if the connection uses TLS.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        match &self.wire {
            Transport::Tcp(_) => false,
            Transport::Other(other) => matches!(**other, Other::Secured(_)),
        }
    }

    /// True if both ends have agreed on HTTP/2 in the handshake.
    #[must_use]
    pub fn speaks_http2(&self) -> bool {
        match &self.wire {
            Transport::Tcp(_) => false,
            Transport::Other(other) => match &**other {
                Other::Secured(stream) => stream.protocol() == Some(tls::HTTP_2),
                Other::Simulated(_) => false,
            },
        }
    }

    /// The TCP connection of the system, also below TLS.
    pub(super) fn socket(&self) -> Option<&TcpStream> {
        match &self.wire {
            Transport::Tcp(stream) => Some(stream),
            Transport::Other(other) => match &**other {
                Other::Secured(stream) => stream.below().socket(),
                Other::Simulated(_) => None,
            },
        }
    }

    /// The address of the other side. `None` if the connection is closed or simulated.
    #[must_use]
    pub fn peer(&self) -> Option<IpAddr> {
        Some(self.socket()?.peer_addr().ok()?.ip())
    }

    /// Sets the time limit for writes. A write that makes no progress for this long fails with
    /// [`io::ErrorKind::TimedOut`], and the connection is reset when it is dropped. A peer that
    /// reads a little now and then is not affected.
    pub fn give_up_stalled_writes_after(&mut self, patience: Duration) {
        self.patience = Some(patience);
    }

    /// Sets how long sent data may stay unacknowledged before the system breaks the connection (RFC
    /// 5482). Linux also counts the time in which a peer acknowledges but takes nothing, because
    /// its window is closed. So this is also how long such a peer may be busy. It has an effect on
    /// Linux only.
    pub fn allow_unacknowledged_for(&self, limit: Duration) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(stream) = self.socket() {
            // A connection that is already dead refuses this.
            let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(limit));
        }
    }

    /// Lets the system delay acknowledgements, as if an answer would follow (RFC 1122 section
    /// 4.2.3.2). Otherwise a connection that only receives sends one for each small segment, which
    /// costs as much as reading it. This holds until an acknowledgement has waited for the maximum
    /// time. It has an effect on Linux only.
    pub fn put_off_acks(&self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(stream) = self.socket() {
            // If the connection is broken, the next read reports it.
            let _ = socket2::SockRef::from(stream).set_tcp_quickack(false);
        }
    }

    /// Makes the connection end with a reset, which tells the peer that the data is incomplete. It
    /// ends when it is dropped.
    pub fn break_off(&self) {
        if let Some(stream) = self.socket() {
            // If the connection is already closed, the other side has broken it off.
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// A peer that has taken so much reads what it is sent. Limiting what waits for it would only
    /// cost: the system wakes the writer more often.
    fn count(&mut self, written: usize) {
        if self.until_trusted == 0 {
            return;
        }
        self.until_trusted = self.until_trusted.saturating_sub(written);
        if let (0, Some(stream)) = (self.until_trusted, self.socket()) {
            super::tcp::unbound_unsent(stream);
        }
    }

    /// Ends a write with an error if it has made no progress for too long.
    fn unless_stalled<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match (written, self.patience) {
            (Poll::Ready(written), _) => {
                self.stalled = None;
                Poll::Ready(written)
            }
            (Poll::Pending, None) => Poll::Pending,
            (Poll::Pending, Some(patience)) => {
                let stalled = &mut self.stalled;
                let timer = stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                ready!(timer.as_mut().poll(cx));
                // Otherwise the system would keep the data that it has accepted in memory, and try
                // to send it until nothing was acknowledged for half a minute.
                self.break_off();
                let what = "the other side takes nothing";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, what)))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = match &mut self.get_mut().wire {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Other(other) => Pin::new(&mut **other).poll_read(cx, buf),
        };
        take_turns(cx, buf.filled().len() - before);
        read
    }
}

/// A read counts as one more step of the task's turn for this many bytes.
const STEP_BYTES: usize = 4 << 10;

/// Counts a large read as several steps.
///
/// The runtime ends a task's turn after a number of steps (128 in tokio 1), whatever each step
/// does. With large reads such a turn would take ten milliseconds, and a few clients that send
/// without end would delay everybody else by seconds.
fn take_turns(cx: &mut Context<'_>, bytes: usize) {
    for _ in 0..bytes / STEP_BYTES {
        match poll_proceed(cx) {
            Poll::Ready(step) => step.made_progress(),
            // The turn is over. The next read waits for another turn.
            Poll::Pending => return,
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.wire {
            Transport::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Other(other) => Pin::new(&mut **other).poll_write(cx, buf),
        };
        if let Poll::Ready(Ok(count)) = written {
            this.count(count);
        }
        this.unless_stalled(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.wire {
            Transport::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Other(other) => Pin::new(&mut **other).poll_write_vectored(cx, bufs),
        };
        if let Poll::Ready(Ok(count)) = written {
            this.count(count);
        }
        this.unless_stalled(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Transport::Tcp(stream) => stream.is_write_vectored(),
            Transport::Other(other) => other.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let written = match &mut this.wire {
            Transport::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Other(other) => Pin::new(&mut **other).poll_flush(cx),
        };
        this.unless_stalled(cx, written)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Other(other) => Pin::new(&mut **other).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Other {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Secured(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Simulated(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Other {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Secured(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Simulated(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Secured(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Simulated(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Secured(stream) => stream.is_write_vectored(),
            Self::Simulated(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Secured(stream) => Pin::new(stream).poll_flush(cx),
            Self::Simulated(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Secured(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Simulated(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use std::net::SocketAddr;

    use super::*;
    use crate::net::{Network as _, Tcp, sleep};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn pair() -> (Stream, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(100);
        let mut stream = Stream::simulated(ours);
        stream.give_up_stalled_writes_after(PATIENCE);
        (stream, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_is_given_up() {
        let (mut stream, _theirs) = pair();
        let failed = stream.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_that_is_given_up_leaves_nothing_behind_in_the_system() {
        let listener = Tcp.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let dialled = Tcp.connect("127.0.0.1", listener.local_addr().port());
        let (accepted, dialled) = tokio::join!(listener.accept(), dialled);
        let (mut ours, mut theirs) = (accepted.unwrap().0, dialled.unwrap());
        ours.give_up_stalled_writes_after(Duration::from_millis(50));
        let failed = ours.write_all(&vec![0; 64 << 20]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(ours);
        let mut rest = Vec::new();
        let failed = theirs.read_to_end(&mut rest).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn who_sends_without_end_has_short_turns() {
        let reads = |size: usize| async move {
            let endless = tokio::io::join(tokio::io::repeat(7), tokio::io::sink());
            let (mut stream, mut bytes) = (Stream::simulated(endless), vec![0; size]);
            // The turn that is counted must be a whole one.
            tokio::task::yield_now().await;
            std::future::poll_fn(|cx| {
                let mut one = || {
                    let mut buffer = ReadBuf::new(&mut bytes);
                    Pin::new(&mut stream).poll_read(cx, &mut buffer).is_ready()
                };
                Poll::Ready((0..1000).take_while(|_| one()).count())
            })
            .await
        };
        assert_eq!((reads(100).await, reads(64 << 10).await), (128, 8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_that_takes_a_little_now_and_then_gets_it_all() {
        let (mut stream, mut theirs) = pair();
        let written = async { stream.write_all(&[0; 1000]).await };
        let read = async {
            for _ in 0..10 {
                sleep(PATIENCE - Duration::from_secs(1)).await;
                theirs.read_exact(&mut [0; 100]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(written, read);
        assert!(written.is_ok(), "{written:?}");
    }
}
