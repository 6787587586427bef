//! Keeps the bytes that a server sent right after its 101. The handshake library reads them and
//! does not return them, so everything that it reads is recorded.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// A stream that records what is read from it. The library bounds the head of an answer, and so the
/// record.
#[derive(Debug)]
pub(super) struct Noted {
    stream: Stream,
    read: Vec<u8>,
}

impl Noted {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// The stream, and what was read after the head of an answer; `None` if the head is incomplete.
    pub(super) fn into_parts(mut self) -> Option<(Stream, Vec<u8>)> {
        let end = end_of_head(&self.read)?;
        self.read.drain(..end);
        Some((self.stream, self.read))
    }
}

/// Where the first empty line after the start line ends. Lines may end with LF alone, as the
/// library allows.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let mut at = start;
    loop {
        at += memchr::memchr(b'\n', &bytes[at..])? + 1;
        match &bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

impl AsyncRead for Noted {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.read.extend_from_slice(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
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
    use super::end_of_head;

    #[test]
    fn what_follows_the_head_is_found() {
        for head in ["HTTP/1.1 101 Yes\r\nA: b\r\n\r\n", "\r\nHTTP/1.1 101 Yes\nA: b\n\n"] {
            let bytes = [head.as_bytes(), b"\x81\x02\n\n"].concat();
            assert_eq!(end_of_head(&bytes), Some(head.len()), "{head:?}");
        }
        assert_eq!(end_of_head(b"HTTP/1.1 101 Yes\r\n"), None);
        assert_eq!(end_of_head(b"\r\n\r\n"), None);
    }
}
