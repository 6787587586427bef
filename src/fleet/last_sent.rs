//! Records when a connection last accepted bytes, so that the wait for an answer is measured from
//! the last byte of its request. Sending a model of ten gigabytes may take any time, as long as its
//! bytes move.
//!
//! What counts is what the connection has accepted, not what was handed to it: a large body is sent
//! piece by piece even if it is in memory.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout_at;

use crate::net::{Stream, now};

/// When bytes were last sent.
#[derive(Debug)]
pub struct LastSent {
    opened: Instant,
    /// Microseconds after `opened`.
    at: AtomicU64,
}

impl LastSent {
    fn new() -> Self {
        Self { opened: now(), at: AtomicU64::new(0) }
    }

    fn note(&self) {
        let micros = now().duration_since(self.opened).as_micros();
        self.at.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn at(&self) -> Instant {
        self.opened + Duration::from_micros(self.at.load(Ordering::Relaxed))
    }

    /// Waits for `answer`; `None` once nothing has been sent for `limit`, counted from now at the
    /// earliest.
    pub async fn awaited<T>(&self, answer: impl Future<Output = T>, limit: Duration) -> Option<T> {
        let began = now();
        let mut answer = pin!(answer);
        loop {
            let due = self.at().max(began) + limit;
            match timeout_at(due.into(), &mut answer).await {
                Ok(answered) => return Some(answered),
                Err(_elapsed) if self.at().max(began) + limit <= due => return None,
                Err(_elapsed) => {}
            }
        }
    }
}

/// A connection that records when it accepts bytes.
#[derive(Debug)]
pub struct TimedStream {
    stream: Stream,
    last: Arc<LastSent>,
}

impl TimedStream {
    #[must_use]
    pub fn new(stream: Stream) -> (Self, Arc<LastSent>) {
        let last = Arc::new(LastSent::new());
        (Self { stream, last: Arc::clone(&last) }, last)
    }

    /// The connection itself.
    #[must_use]
    pub fn into_inner(self) -> Stream {
        self.stream
    }

    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.last.note();
        }
        written
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// The clock is paused: it advances when no task can run.
    #[tokio::test(start_paused = true)]
    async fn an_answer_is_awaited_from_the_last_byte_that_was_sent() {
        let (ours, mut theirs) = duplex(8);
        let (mut line, last) = TimedStream::new(Stream::simulated(ours));
        let sends = async {
            for _ in 0..5 {
                sleep(Duration::from_secs(9)).await;
                line.write_all(b"x").await.unwrap();
            }
            sleep(Duration::from_secs(9)).await;
            "answered"
        };
        assert_eq!(last.awaited(sends, LIMIT).await, Some("answered"), "54 s, and it moved");
        let began = now();
        let stalls = async {
            line.write_all(b"xxx").await.unwrap();
            // There is no room for the rest, because the other side does not read.
            line.write_all(b"xxxxxxxxxxxxxxxx").await.unwrap();
        };
        assert!(last.awaited(stalls, LIMIT).await.is_none());
        assert_eq!(now().duration_since(began), LIMIT);
        let mut read = [0; 8];
        theirs.read_exact(&mut read).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_kept_connection_sent_long_ago_does_not_count() {
        let (ours, _theirs) = duplex(8);
        let (_line, last) = TimedStream::new(Stream::simulated(ours));
        sleep(Duration::from_secs(600)).await;
        let answers = async {
            sleep(Duration::from_secs(9)).await;
        };
        assert!(last.awaited(answers, LIMIT).await.is_some());
    }
}
