//! A connection with bytes that were read from it earlier. They are used before anything new is
//! read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Stream, with_scratch};

/// A connection, and the bytes that were read from it and are not used yet.
#[derive(Debug)]
pub struct Buffered {
    pub stream: Stream,
    pub read: Vec<u8>,
}

impl Buffered {
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Reads what is available into `read`. False at the end of the connection. `read` grows only
    /// when there is something to put into it.
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            self.read.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(!buffer.filled().is_empty()))
        })
    }

    /// Like [`Self::poll_more`], but reads only until `read` has `most` bytes. Anything more stays
    /// in the system's buffers, so it needs no memory here. `read` must have fewer than `most`
    /// bytes.
    pub fn poll_until_full(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<bool>> {
        with_scratch(|scratch| {
            let room = most.saturating_sub(self.read.len()).min(scratch.len());
            let mut buffer = ReadBuf::new(&mut scratch[..room]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let length = self.read.len() + buffer.filled().len();
            if self.read.capacity() < length {
                let capacity = length.next_power_of_two().min(most);
                self.read.reserve_exact(capacity - self.read.len());
            }
            self.read.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(!buffer.filled().is_empty()))
        })
    }

    /// Moves bytes from `read` into `buf`: at most `most`, and at most as many as fit. Returns
    /// their number.
    pub fn take_read(&mut self, buf: &mut ReadBuf<'_>, most: usize) -> usize {
        let count = self.read.len().min(buf.remaining()).min(most);
        buf.put_slice(&self.read[..count]);
        if count == self.read.len() {
            self.read = Vec::new();
        } else {
            self.read.drain(..count);
        }
        count
    }
}

impl AsyncRead for Buffered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        this.take_read(buf, usize::MAX);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_was_read_comes_before_what_was_not() {
        let (ours, mut theirs) = duplex(64);
        let mut conn = Buffered::new(Stream::simulated(ours));
        conn.read = b"abc".to_vec();
        theirs.write_all(b"defg").await.unwrap();
        let mut all = [0; 7];
        conn.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"abcdefg");
    }

    #[tokio::test]
    async fn no_more_is_read_than_may_be_held() {
        let (ours, mut theirs) = duplex(64);
        let mut conn = Buffered::new(Stream::simulated(ours));
        theirs.write_all(b"abcdefgh").await.unwrap();
        assert!(poll_fn(|cx| conn.poll_until_full(cx, 5)).await.unwrap());
        assert_eq!((conn.read.as_slice(), conn.read.capacity()), (&b"abcde"[..], 5));
        let mut rest = [0; 3];
        conn.stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"fgh");
        drop(theirs);
        assert!(!poll_fn(|cx| conn.poll_until_full(cx, 9)).await.unwrap());
    }
}
