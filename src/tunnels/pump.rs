//! One direction of a tunnel. It passes bytes on, and can insert our own frames between two frames
//! of the peer.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::ready;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use crate::net::{now, with_scratch};
use crate::ws::outbox::Outbox;
use crate::ws::{Boundary, Frame, Opcode, Role, control};

/// How one direction ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PumpEnd {
    /// The sender has ended its side.
    Over,
    /// We closed it, after a complete frame.
    Closed,
    /// The connection broke, or the reader read nothing for too long.
    Broken,
}

/// One direction of a tunnel.
#[derive(Debug)]
pub struct Pump<R, W> {
    from: R,
    to: W,
    /// Our role towards the reader.
    role: Role,
    boundary: Boundary,
    /// Bytes that arrived with the handshake.
    early: Vec<u8>,
    /// How long the reader may go without reading.
    stall: Duration,
}

/// State that is shared with the task that watches a direction.
#[derive(Debug)]
pub struct Gauge {
    began: Instant,
    /// When something last arrived, in milliseconds after `began`.
    heard: AtomicU64,
    /// Our own frames for the reader.
    pub ours: Outbox,
}

impl Default for Gauge {
    fn default() -> Self {
        Self { began: now(), heard: AtomicU64::new(0), ours: Outbox::default() }
    }
}

impl Gauge {
    /// When something last arrived.
    pub fn heard(&self) -> Instant {
        self.began + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    fn hear(&self, now: Instant) {
        let since = now.saturating_duration_since(self.began).as_millis();
        self.heard.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pump<R, W> {
    pub fn new(from: R, (to, role): (W, Role), early: Vec<u8>, stall: Duration) -> Self {
        Self { from, to, role, boundary: Boundary::default(), early, stall }
    }

    /// Passes on what arrives, until one of the ends closes or we are to close.
    pub async fn run(&mut self, gauge: &Gauge) -> PumpEnd {
        let mut ours = None;
        let early = std::mem::take(&mut self.early);
        if let Some(end) = self.pass(&early, &mut ours).await {
            return end;
        }
        loop {
            tokio::select! {
                biased;
                frame = gauge.ours.next(), if ours.is_none() => {
                    ours = Some(frame);
                    if let Some(end) = self.pass(&[], &mut ours).await {
                        return end;
                    }
                }
                read = read(&mut self.from) => {
                    let bytes = match read {
                        Ok(bytes) if bytes.is_empty() => return self.shut().await,
                        Ok(bytes) => bytes,
                        Err(_) => return PumpEnd::Broken,
                    };
                    gauge.hear(now());
                    if let Some(end) = self.pass(&bytes, &mut ours).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Reads and drops what the sender still sends, until it ends. A connection that is closed with
    /// unread bytes is reset, and the reset may destroy what was sent last.
    pub async fn drain(&mut self) {
        while let Ok(bytes) = read(&mut self.from).await
            && !bytes.is_empty()
        {}
    }

    /// Writes bytes, and our own frame after the first complete frame.
    async fn pass(&mut self, bytes: &[u8], ours: &mut Option<Frame>) -> Option<PumpEnd> {
        let mut rest = bytes;
        loop {
            if self.boundary.is_between()
                && let Some(frame) = ours.take()
            {
                let is_last = frame.opcode == Opcode::Close;
                if !self.write(&control(&frame, self.role)).await {
                    return Some(PumpEnd::Broken);
                }
                if is_last {
                    let _ = self.to.flush().await;
                    return Some(PumpEnd::Closed);
                }
            }
            if rest.is_empty() {
                return None;
            }
            let count = match ours {
                Some(_) => self.boundary.take(rest),
                None => {
                    self.boundary.pass(rest);
                    rest.len()
                }
            };
            if !self.write(&rest[..count]).await {
                return Some(PumpEnd::Broken);
            }
            rest = &rest[count..];
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            match timeout(self.stall, self.to.write(rest)).await {
                Ok(Ok(count @ 1..)) => rest = &rest[count..],
                Ok(Ok(0) | Err(_)) | Err(_) => return false,
            }
        }
        true
    }

    async fn shut(&mut self) -> PumpEnd {
        match timeout(self.stall, self.to.shutdown()).await {
            Ok(Ok(())) => PumpEnd::Over,
            Ok(Err(_)) | Err(_) => PumpEnd::Broken,
        }
    }
}

/// Reads what has arrived. Empty at the end of the connection. It is cancel safe, and it holds no
/// buffer while it waits.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    std::future::poll_fn(|cx| {
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
            std::task::Poll::Ready(Ok(buffer.filled().to_vec()))
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    /// Feeds pieces into a direction that has a frame of ours to insert. Returns what came out.
    async fn passed(pieces: &[&[u8]], ours: Frame) -> Vec<u8> {
        let (mut sender, from) = duplex(1 << 10);
        let (to, mut reader) = duplex(1 << 10);
        let mut pump = Pump::new(from, (to, Role::Server), Vec::new(), Duration::from_secs(5));
        let gauge = Gauge::default();
        let feed = async {
            let mut out = Vec::new();
            for (index, piece) in pieces.iter().enumerate() {
                sender.write_all(piece).await.unwrap();
                let mut read = vec![0; piece.len()];
                reader.read_exact(&mut read).await.unwrap();
                out.extend_from_slice(&read);
                if index == 0 {
                    gauge.ours.push(ours.clone());
                    tokio::task::yield_now().await;
                }
            }
            drop(sender);
            reader.read_to_end(&mut out).await.unwrap();
            out
        };
        let run = async {
            let end = pump.run(&gauge).await;
            drop(pump);
            end
        };
        tokio::join!(run, feed).1
    }

    #[tokio::test]
    async fn what_is_ours_is_said_between_two_frames_and_never_within_one() {
        // "Hello" in one frame, cut after its first byte of payload.
        let out = passed(&[&[0x81, 5, b'H'], b"ello"], Frame::ping(b"")).await;
        assert_eq!(out, [0x81, 5, b'H', b'e', b'l', b'l', b'o', 0x89, 0]);
        let close = passed(&[&[0x81, 1, b'x']], Frame::close(1001, "bye")).await;
        assert_eq!(close, [0x81, 1, b'x', 0x88, 5, 0x03, 0xe9, b'b', b'y', b'e']);
    }
}
