//! One message of a connection, lent to a reader that must not read past its end.
//!
//! The lender knows where the message ends. The borrower may read ahead, so later bytes stay here.
//! A body with malformed chunks ends with an error before the borrower, which is more tolerant, can
//! accept it. The end of the connection is still passed on.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::{BadChunk, Framing};
use crate::net::Buffered;

/// While a message is being worked on, at most this many bytes after it are read. If there are
/// more, the end of the connection is not noticed; the work has its own deadlines.
const AHEAD_MAX: usize = 16 << 10;

/// Tells whether everything that was written is on its way.
#[derive(Clone, Debug, Default)]
pub struct Flushed(Arc<AtomicBool>);

impl Flushed {
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One message of a [`Buffered`].
pub struct OneMessage {
    conn: Buffered,
    /// How many bytes of its head the borrower has not read yet. They are in the connection's
    /// buffer.
    head: usize,
    body: Framing,
    is_broken: bool,
    has_ended: bool,
    flushed: Flushed,
}

impl fmt::Debug for OneMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneMessage").field("body", &self.body).finish_non_exhaustive()
    }
}

impl OneMessage {
    /// The next message. `head` bytes of it were read as its head.
    #[must_use]
    pub fn new(conn: Buffered, head: usize, body: Framing) -> Self {
        let flushed = Flushed::default();
        Self { conn, head, body, is_broken: false, has_ended: false, flushed }
    }

    #[must_use]
    pub fn flushed(&self) -> Flushed {
        self.flushed.clone()
    }

    /// True if another message can follow: this one was read to its end without an error, and the
    /// connection has not ended.
    #[must_use]
    pub fn has_next(&self) -> bool {
        self.is_over() && !self.is_broken && !self.has_ended
    }

    /// The connection and the bytes that were read from it, whatever its state.
    #[must_use]
    pub fn into_conn(self) -> Buffered {
        self.conn
    }

    fn is_over(&self) -> bool {
        self.head == 0 && self.body.is_over()
    }

    /// How many of the bytes belong to the body.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let broken = |error: BadChunk| io::Error::new(io::ErrorKind::InvalidData, error);
        let taken = self.body.take(bytes).map_err(broken);
        self.is_broken |= taken.is_err();
        taken
    }

    /// Gives the bytes that were read earlier.
    fn read_before(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        if 0 < self.head {
            self.head -= self.conn.take_read(buf, self.head);
            return Ok(());
        }
        let most = self.conn.read.len().min(buf.remaining());
        let read = std::mem::take(&mut self.conn.read);
        let taken = self.take(&read[..most]);
        self.conn.read = read;
        self.conn.take_read(buf, taken?);
        Ok(())
    }

    /// Reads the next part of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match self.body.length().and_then(|left| usize::try_from(left).ok()) {
            // The last piece: the bytes after it must not be read. Only this piece is cleared.
            Some(left) if left < buf.remaining() => {
                let mut last = ReadBuf::new(buf.initialize_unfilled_to(left));
                ready!(Pin::new(&mut self.conn.stream).poll_read(cx, &mut last))?;
                let count = last.filled().len();
                buf.advance(count);
            }
            Some(_) | None => ready!(Pin::new(&mut self.conn.stream).poll_read(cx, buf))?,
        }
        let count = buf.filled().len() - before;
        self.has_ended = count == 0;
        let taken = self.take(&buf.filled()[before..]);
        // The end of a chunked body is not known in advance.
        let end = before + taken.as_ref().map_or(0, |taken| *taken);
        self.conn.read.extend_from_slice(&buf.filled()[end..]);
        buf.set_filled(end);
        Poll::Ready(taken.map(drop))
    }

    /// The whole message was read: only the end of the connection still matters.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.conn.read.len() < AHEAD_MAX {
            if !ready!(self.conn.poll_more(cx))? {
                self.has_ended = true;
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

impl AsyncRead for OneMessage {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_broken {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, BadChunk)));
        }
        if this.is_over() {
            return this.poll_end(cx);
        }
        if this.conn.read.is_empty() {
            return this.poll_body(cx, buf);
        }
        Poll::Ready(this.read_before(buf))
    }
}

impl AsyncWrite for OneMessage {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.flushed.0.store(false, Ordering::Relaxed);
        Pin::new(&mut this.conn.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.flushed.0.store(false, Ordering::Relaxed);
        Pin::new(&mut this.conn.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.conn.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.conn.stream).poll_flush(cx))?;
        this.flushed.0.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().conn.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::net::Stream;
    use crate::server::framing::Chunks;

    #[tokio::test]
    async fn nothing_is_read_beyond_a_message_and_nothing_of_what_comes_after_is_lost() {
        for (before, sent) in [("abcdXY", "Z"), ("ab", "cdXYZ"), ("", "abcdXYZ"), ("abcd", "XYZ")] {
            let (ours, mut theirs) = duplex(1 << 10);
            let mut conn = Buffered::new(Stream::simulated(ours));
            conn.read = before.into();
            let mut message = OneMessage::new(conn, 0, Framing::of_length(4));
            theirs.write_all(sent.as_bytes()).await.unwrap();
            let mut read = [0; 4];
            message.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"abcd");
            assert!(message.has_next(), "it stands where the message ended");
            let mut conn = message.into_conn();
            while conn.read.len() < 3 {
                assert!(std::future::poll_fn(|cx| conn.poll_more(cx)).await.unwrap());
            }
            assert_eq!(conn.read, b"XYZ");
        }
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_told_and_it_is_not_used_again() {
        let (ours, mut theirs) = duplex(1 << 10);
        let mut message =
            OneMessage::new(Buffered::new(Stream::simulated(ours)), 0, Framing::of_length(2));
        theirs.write_all(b"abXY").await.unwrap();
        drop(theirs);
        let mut read = Vec::new();
        message.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"ab");
        assert!(!message.has_next());
    }

    #[tokio::test]
    async fn a_message_that_was_not_read_to_its_end_has_no_next() {
        let (ours, mut theirs) = duplex(1 << 10);
        let mut message =
            OneMessage::new(Buffered::new(Stream::simulated(ours)), 0, Framing::of_length(3));
        theirs.write_all(b"ab").await.unwrap();
        let mut part = [0; 2];
        message.read_exact(&mut part).await.unwrap();
        assert!(!message.has_next());
    }

    /// The body is cut in every possible place.
    #[tokio::test]
    async fn chunks_end_where_they_say_and_what_comes_next_stays() {
        let sent = "POST / HTTP/1.1\r\n\r\n2;x\r\nok\r\n0\r\nt: 1\r\n\r\nGET";
        let (head, message) = (sent.find("2;x").unwrap(), sent.find("GET").unwrap());
        for cut in head..sent.len() {
            let (ours, mut theirs) = duplex(1 << 10);
            let mut conn = Buffered::new(Stream::simulated(ours));
            conn.read = sent.as_bytes()[..cut].into();
            let chunks = Framing::Chunked(Chunks::of_request());
            let mut one = OneMessage::new(conn, head, chunks);
            theirs.write_all(&sent.as_bytes()[cut..]).await.unwrap();
            let mut read = vec![0; message];
            one.read_exact(&mut read).await.unwrap();
            assert_eq!(read, sent.as_bytes()[..message], "{cut}");
            assert!(one.has_next(), "it stands where the message ended");
            let mut conn = one.into_conn();
            while conn.read.len() < 3 {
                assert!(std::future::poll_fn(|cx| conn.poll_more(cx)).await.unwrap());
            }
            assert_eq!(conn.read, b"GET");
        }
    }

    #[tokio::test]
    async fn malformed_chunks_end_in_an_error_and_so_does_their_connection() {
        let sent = "x2\r\nok\r\n0\r\n\n";
        for cut in 1..sent.len() {
            let (ours, mut theirs) = duplex(1 << 10);
            let mut conn = Buffered::new(Stream::simulated(ours));
            conn.read = sent.as_bytes()[..cut].into();
            let mut one = OneMessage::new(conn, 1, Framing::Chunked(Chunks::of_request()));
            theirs.write_all(&sent.as_bytes()[cut..]).await.unwrap();
            let mut read = Vec::new();
            let error = one.read_to_end(&mut read).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{cut}");
            assert!(!read.ends_with(b"\n\n"), "{cut}");
            assert!(!one.has_next());
        }
    }
}
