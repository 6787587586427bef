//! A connection of which a part was read already, lent to somebody who may read no further than
//! the end of one message.
//!
//! The lender knows how long the message is, and the borrower may not know where to stop: what
//! comes after it stays here. The end of the connection is told all the same.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Stream, with_scratch};

/// When so much of what comes next was read, no more is while the message is worked on, in bytes.
/// The end of the connection is not seen then; whoever works has deadlines of its own.
const AHEAD_MAX: usize = 16 << 10;

/// A connection, and what was read of it and is not used yet.
#[derive(Debug)]
pub struct Wire {
    pub stream: Stream,
    pub read: Vec<u8>,
}

impl Wire {
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Reads what there is into `read`: false at the end of the connection. Its room is taken
    /// only when there is something to put into it.
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            self.read.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(!buffer.filled().is_empty()))
        })
    }
}

/// Says whether all that was written is on its way.
#[derive(Clone, Debug, Default)]
pub struct Flushed(Arc<AtomicBool>);

impl Flushed {
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// One message of a [`Wire`], or all that is still to come of it.
pub struct Portion {
    wire: Wire,
    /// How many bytes of the message have not been read; `None` if it has no end that is known.
    left: Option<u64>,
    has_ended: bool,
    flushed: Flushed,
}

impl fmt::Debug for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Portion").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Portion {
    /// The next `bytes` of a connection.
    #[must_use]
    pub fn next(wire: Wire, bytes: u64) -> Self {
        Self { wire, left: Some(bytes), has_ended: false, flushed: Flushed::default() }
    }

    /// All of it.
    #[must_use]
    pub fn all(wire: Wire) -> Self {
        Self { wire, left: None, has_ended: false, flushed: Flushed::default() }
    }

    #[must_use]
    pub fn flushed(&self) -> Flushed {
        self.flushed.clone()
    }

    /// The connection, if it stands where the message ended: all of it was read, and nothing is
    /// wrong with what comes after.
    #[must_use]
    pub fn into_next(self) -> Option<Wire> {
        (self.left == Some(0) && !self.has_ended).then_some(self.wire)
    }

    /// The connection and what was read of it, wherever it stands.
    #[must_use]
    pub fn into_wire(self) -> Wire {
        self.wire
    }

    fn read_before(&mut self, buf: &mut ReadBuf<'_>) {
        let most = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.wire.read.len().min(buf.remaining()).min(most);
        buf.put_slice(&self.wire.read[..count]);
        if count == self.wire.read.len() {
            self.wire.read = Vec::new();
        } else {
            self.wire.read.drain(..count);
        }
        self.count(count);
    }

    fn count(&mut self, read: usize) {
        if let Some(left) = &mut self.left {
            *left -= read as u64;
        }
    }

    /// The message is read: only the end of the connection is of interest.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.wire.read.len() < AHEAD_MAX {
            if !ready!(self.wire.poll_more(cx))? {
                self.has_ended = true;
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

impl AsyncRead for Portion {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left == Some(0) {
            return this.poll_end(cx);
        }
        if !this.wire.read.is_empty() {
            this.read_before(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match this.left.and_then(|left| usize::try_from(left).ok()) {
            // The last piece: what comes after it must not be read. Only this one is cleared.
            Some(left) if left < buf.remaining() => {
                let mut last = ReadBuf::new(buf.initialize_unfilled_to(left));
                ready!(Pin::new(&mut this.wire.stream).poll_read(cx, &mut last))?;
                let count = last.filled().len();
                buf.advance(count);
            }
            Some(_) | None => ready!(Pin::new(&mut this.wire.stream).poll_read(cx, buf))?,
        }
        let count = buf.filled().len() - before;
        this.has_ended = count == 0;
        this.count(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Portion {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.flushed.0.store(false, Ordering::Relaxed);
        Pin::new(&mut this.wire.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.flushed.0.store(false, Ordering::Relaxed);
        Pin::new(&mut this.wire.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.wire.stream).poll_flush(cx))?;
        this.flushed.0.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().wire.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn nothing_is_read_beyond_a_message_and_nothing_of_what_comes_after_is_lost() {
        for (before, sent) in [("abcdXY", "Z"), ("ab", "cdXYZ"), ("", "abcdXYZ"), ("abcd", "XYZ")] {
            let (ours, mut theirs) = duplex(1 << 10);
            let mut wire = Wire::new(Stream::simulated(ours));
            wire.read = before.into();
            let mut portion = Portion::next(wire, 4);
            theirs.write_all(sent.as_bytes()).await.unwrap();
            let mut message = [0; 4];
            portion.read_exact(&mut message).await.unwrap();
            assert_eq!(&message, b"abcd");
            let mut wire = portion.into_next().expect("it stands where the message ended");
            while wire.read.len() < 3 {
                assert!(std::future::poll_fn(|cx| wire.poll_more(cx)).await.unwrap());
            }
            assert_eq!(wire.read, b"XYZ");
        }
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_told_and_it_is_not_used_again() {
        let (ours, mut theirs) = duplex(1 << 10);
        let mut portion = Portion::next(Wire::new(Stream::simulated(ours)), 2);
        theirs.write_all(b"abXY").await.unwrap();
        drop(theirs);
        let mut message = Vec::new();
        portion.read_to_end(&mut message).await.unwrap();
        assert_eq!(message, b"ab");
        assert!(portion.into_next().is_none());
    }

    #[tokio::test]
    async fn a_message_that_was_not_read_to_its_end_has_no_next() {
        let (ours, mut theirs) = duplex(1 << 10);
        let mut portion = Portion::next(Wire::new(Stream::simulated(ours)), 3);
        theirs.write_all(b"ab").await.unwrap();
        let mut part = [0; 2];
        portion.read_exact(&mut part).await.unwrap();
        assert!(portion.into_next().is_none());
    }
}
