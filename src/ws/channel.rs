//! A WebSocket connection after its handshake, as frames. It answers pings and the closing
//! handshake.
//!
//! An idle channel holds no buffer. All channels of a thread read into one shared buffer, and take
//! what they need from it before the next channel is polled.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::task::coop::poll_proceed;

use super::decode::{Decoder, ReceiveError};
use super::encode::Outbox;
use super::{Frame, Opcode, Role};
use crate::net::{Stream, with_scratch};

/// Bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest accepted message, in bytes; a larger one ends the connection with 1009.
    pub message: usize,
}

/// One side of an open WebSocket. Reading and writing may be polled from one task in any order.
pub struct Channel {
    stream: Stream,
    role: Role,
    decoder: Decoder,
    /// Frames that arrived together with the one that was returned; no more than one read can
    /// bring.
    arrived: VecDeque<Frame>,
    /// The error in the bytes after the frames in `arrived`.
    failed: Option<ReceiveError>,
    receiving: Receiving,
    sending: Sending,
    outbox: Outbox,
    /// The answer to the last ping, if it is not yet in the outbox. Only the last ping needs an
    /// answer (RFC 6455 section 5.5.3), so a peer that only sends pings fills no memory.
    pong: Option<Bytes>,
    replies: Replies,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Receiving {
    Open,
    /// The peer's close frame was received; the end of the connection is awaited.
    Closed,
    /// Nothing more will be read.
    Ended,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Sending {
    Open,
    /// We have sent a close frame, so nothing more is sent.
    Closed,
}

/// Whether pongs and the answer to a close frame still have to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Replies {
    Sent,
    Owed,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

impl Channel {
    /// One side of `stream`; `early` is what was read after the handshake.
    pub(super) fn new(stream: Stream, role: Role, early: &[u8], limits: Limits) -> Self {
        let mut channel = Self {
            stream,
            role,
            decoder: Decoder::new(role, limits.message),
            arrived: VecDeque::new(),
            failed: None,
            receiving: Receiving::Open,
            sending: Sending::Open,
            outbox: Outbox::new(role),
            pong: None,
            replies: Replies::Sent,
        };
        if let Some(first) = channel.decode(early) {
            channel.arrived.push_front(first);
        }
        channel
    }

    /// See [`Stream::put_off_acks`].
    pub fn put_off_acks(&self) {
        self.stream.put_off_acks();
    }

    /// Receives the next frame; `None` once the closing handshake is complete. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Frame, ReceiveError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Sends one frame and flushes it.
    ///
    /// # Errors
    /// The connection is closed or broken.
    pub async fn send(&mut self, frame: Frame) -> Result<(), io::Error> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(frame)?;
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Poll form of [`Channel::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ReceiveError>>> {
        if self.receiving == Receiving::Ended {
            return Poll::Ready(None);
        }
        loop {
            match self.poll_replies(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(self.lost(Some(error))),
                Poll::Ready(Ok(())) if self.is_over() => {
                    self.receiving = Receiving::Ended;
                    return Poll::Ready(None);
                }
                // A peer that does not read is still read from.
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
            if !self.arrived.is_empty() {
                // One read may bring thousands of frames, so each counts against tokio's task
                // budget as a read does.
                ready!(poll_proceed(cx)).made_progress();
            }
            if let Some(frame) = self.take_arrived() {
                return Poll::Ready(Some(Ok(self.seen(frame))));
            }
            if let Some(error) = self.failed.take() {
                self.receiving = Receiving::Ended;
                return Poll::Ready(Some(Err(error)));
            }
            match ready!(self.poll_read(cx)) {
                Ok(Some(frame)) => return Poll::Ready(Some(Ok(self.seen(frame)))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(self.lost(error)),
            }
        }
    }

    /// Ready when one more frame may be queued with [`Channel::start_send`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.is_full() { self.poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Queues a frame; it is on its way only after a flush. A second close frame is left out.
    ///
    /// # Errors
    /// The connection is closed or broken.
    pub fn start_send(&mut self, frame: Frame) -> io::Result<()> {
        match (self.sending, frame.opcode) {
            (Sending::Closed, Opcode::Close) => return Ok(()),
            (Sending::Closed, _) => return Err(io::ErrorKind::BrokenPipe.into()),
            (Sending::Open, Opcode::Close) => {
                self.sending = Sending::Closed;
                self.pong = None;
            }
            (Sending::Open, _) => {}
        }
        self.outbox.push(frame);
        Ok(())
    }

    /// Writes what was queued.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.outbox.is_blocked()
                && let Some(payload) = self.pong.take()
            {
                self.outbox.push(Frame { opcode: Opcode::Pong, payload });
            }
            ready!(self.outbox.poll_write(&mut self.stream, cx))?;
            if self.pong.is_none() {
                break;
            }
        }
        self.replies = Replies::Sent;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.replies {
            Replies::Sent => Poll::Ready(Ok(())),
            Replies::Owed => self.poll_flush(cx),
        }
    }

    /// After the closing handshake the server must close the connection first (RFC 6455 section
    /// 7.1.1); the client waits for that.
    fn is_over(&self) -> bool {
        self.role == Role::Server && self.receiving == Receiving::Closed
    }

    /// Reads once. An error of `None` means the end of the stream.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame>, Option<io::Error>>> {
        with_scratch(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)).map_err(Some)?;
            match read.filled() {
                [] => Poll::Ready(Err(None)),
                bytes => Poll::Ready(Ok(self.decode(bytes))),
            }
        })
    }

    /// Decodes `bytes` and returns the first whole frame; the others go to `arrived`.
    fn decode(&mut self, mut bytes: &[u8]) -> Option<Frame> {
        let mut first = None;
        loop {
            match self.decoder.next(&mut bytes) {
                Ok(Some(frame)) if first.is_none() => first = Some(frame),
                Ok(Some(frame)) => self.arrived.push_back(frame),
                Ok(None) => return first,
                Err(error) => {
                    self.failed = Some(error);
                    return first;
                }
            }
        }
    }

    fn take_arrived(&mut self) -> Option<Frame> {
        let frame = self.arrived.pop_front()?;
        if self.arrived.is_empty() {
            self.arrived = VecDeque::new();
        }
        Some(frame)
    }

    /// Does what the protocol requires before the frame is returned.
    fn seen(&mut self, frame: Frame) -> Frame {
        match (frame.opcode, self.sending) {
            (Opcode::Ping, Sending::Open) => {
                self.pong = Some(frame.payload.clone());
                self.replies = Replies::Owed;
            }
            (Opcode::Close, sending) => {
                self.receiving = Receiving::Closed;
                self.replies = Replies::Owed;
                if sending == Sending::Open {
                    self.sending = Sending::Closed;
                    self.pong = None;
                    self.outbox.push(frame.clone());
                }
            }
            (Opcode::Ping, Sending::Closed) | (Opcode::Text | Opcode::Binary | Opcode::Pong, _) => {
            }
        }
        frame
    }

    /// The connection has ended: regularly if a close frame came before, else as an error.
    fn lost(&mut self, error: Option<io::Error>) -> Option<Result<Frame, ReceiveError>> {
        let before = std::mem::replace(&mut self.receiving, Receiving::Ended);
        self.sending = Sending::Closed;
        match before {
            Receiving::Open => Some(Err(ReceiveError::Lost(error))),
            Receiving::Closed | Receiving::Ended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// A channel and the other end of its stream, which buffers `room` bytes.
    fn open(role: Role, room: usize) -> (Channel, DuplexStream) {
        let (ours, theirs) = duplex(room);
        let limits = Limits { message: 1 << 20 };
        (Channel::new(Stream::simulated(ours), role, b"", limits), theirs)
    }

    /// Both sides of one stream.
    fn pair(room: usize) -> (Channel, Channel) {
        let (server, wire) = open(Role::Server, room);
        let limits = Limits { message: 1 << 20 };
        let client = Channel::new(Stream::simulated(wire), Role::Client, b"", limits);
        (server, client)
    }

    async fn frame(channel: &mut Channel) -> Frame {
        channel.next().await.expect("open").expect("legal")
    }

    /// The result of one poll; `None` if it is pending.
    async fn at_once<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        poll_fn(|cx| {
            Poll::Ready(match poll(cx) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            })
        })
        .await
    }

    fn holds_nothing(channel: &Channel) -> bool {
        channel.arrived.capacity() == 0 && channel.outbox.holds_nothing()
    }

    #[tokio::test]
    async fn frames_of_all_sizes_cross_and_nothing_stays() {
        let (mut server, mut client) = pair(1 << 22);
        for size in [0_usize, 1, 125, 126, 4095, 4096, 65_535, 65_536, 1 << 20] {
            let frame_out = Frame::binary(vec![size.to_le_bytes()[0]; size]);
            server.send(frame_out.clone()).await.expect("sent");
            assert_eq!(frame(&mut client).await, frame_out, "{size} bytes to the client");
            client.send(frame_out.clone()).await.expect("sent");
            assert_eq!(frame(&mut server).await, frame_out, "{size} bytes to the server");
        }
        assert!(holds_nothing(&server) && holds_nothing(&client));
    }

    #[tokio::test]
    async fn what_came_with_the_handshake_is_read_first() {
        let (ours, mut wire) = duplex(100);
        wire.write_all(b"\x02lo\x81\x01!").await.expect("room");
        let early = b"\x81\x01a\x01\x03Hel\x80";
        let stream = Stream::simulated(ours);
        let limits = Limits { message: 100 };
        let mut channel = Channel::new(stream, Role::Client, early, limits);
        for text in ["a", "Hello", "!"] {
            assert_eq!(frame(&mut channel).await, Frame::text(text));
        }
    }

    #[tokio::test]
    async fn many_frames_of_one_read_come_in_order_before_the_error_after_them() {
        let (mut channel, mut wire) = open(Role::Client, 1 << 10);
        wire.write_all(b"\x81\x01a\x81\x01b\x81\x01c\xff\xff").await.expect("room");
        for text in ["a", "b", "c"] {
            assert_eq!(frame(&mut channel).await, Frame::text(text));
        }
        let error = channel.next().await.expect("an error").expect_err("junk");
        assert_eq!(error.close_code(), Some(1002));
        assert!(holds_nothing(&channel));
        // The peer is told, and nothing more is read.
        channel.send(Frame::close(1002, "")).await.expect("sent");
        assert!(channel.next().await.is_none());
    }

    #[tokio::test]
    async fn a_ping_is_answered_by_reading_on() {
        let (mut channel, mut wire) = open(Role::Server, 100);
        wire.write_all(b"\x89\x81\0\0\0\0p").await.expect("room");
        assert_eq!(frame(&mut channel).await, Frame::ping(b"p"));
        assert!(at_once(|cx| channel.poll_next(cx)).await.is_none());
        let mut pong = [0; 3];
        wire.read_exact(&mut pong).await.expect("a pong");
        assert_eq!(&pong, b"\x8a\x01p");
    }

    #[tokio::test]
    async fn a_peer_that_pings_and_does_not_read_is_owed_one_pong() {
        let (mut channel, mut wire) = open(Role::Server, 64);
        channel.start_send(Frame::binary(vec![0; 100])).expect("open");
        assert!(at_once(|cx| channel.poll_flush(cx)).await.is_none(), "the wire is full");
        for ping in 0..100 {
            wire.write_all(&[0x89, 0x81, 0, 0, 0, 0, ping]).await.expect("room");
            assert_eq!(frame(&mut channel).await.payload[0], ping);
        }
        let mut rest = vec![0; 102 + 3];
        let reading = wire.read_exact(&mut rest);
        let flush = poll_fn(|cx| channel.poll_flush(cx));
        let (read, flushed) = tokio::join!(reading, flush);
        assert!(read.is_ok() && flushed.is_ok());
        assert_eq!(rest[102..], [0x8a, 1, 99]);
        assert!(holds_nothing(&channel));
    }

    #[tokio::test]
    async fn a_blocked_writer_takes_no_more_until_all_is_written() {
        let (mut server, mut client) = pair(64);
        assert!(at_once(|cx| server.poll_ready(cx)).await.is_some());
        server.start_send(Frame::binary(vec![1; 100])).expect("open");
        assert!(at_once(|cx| server.poll_flush(cx)).await.is_none());
        assert!(at_once(|cx| server.poll_ready(cx)).await.is_none());
        let ready = poll_fn(|cx| server.poll_ready(cx));
        let (read, ready) = tokio::join!(frame(&mut client), ready);
        assert!(ready.is_ok());
        assert_eq!(read.payload.len(), 100);
    }

    #[tokio::test]
    async fn a_close_is_answered_with_its_code_and_the_server_ends_first() {
        let (mut server, mut client) = pair(1 << 10);
        client.send(Frame::close(4000, "bye")).await.expect("sent");
        assert!(client.send(Frame::text("late")).await.is_err());
        assert!(client.send(Frame::close(1000, "")).await.is_ok(), "a second one is left out");
        assert_eq!(frame(&mut server).await, Frame::close(4000, "bye"));
        assert!(server.next().await.is_none());
        assert_eq!(frame(&mut client).await, Frame::close(4000, "bye"));
        assert!(at_once(|cx| client.poll_next(cx)).await.is_none(), "waits for the end");
        drop(server);
        assert!(client.next().await.is_none());
    }

    #[tokio::test]
    async fn a_server_that_closes_hears_the_client_out() {
        let (mut server, mut client) = pair(1 << 10);
        server.send(Frame::close(1012, "restarting")).await.expect("sent");
        client.start_send(Frame::text("late")).expect("open");
        assert_eq!(frame(&mut client).await, Frame::close(1012, "restarting"));
        assert!(at_once(|cx| client.poll_next(cx)).await.is_none());
        assert_eq!(frame(&mut server).await, Frame::text("late"));
        assert_eq!(frame(&mut server).await, Frame::close(1012, "restarting"));
        assert!(server.next().await.is_none());
    }

    #[tokio::test]
    async fn an_end_without_a_close_frame_is_a_loss() {
        for cut in [b"".as_slice(), b"\x81", b"\x81\x05Hel"] {
            let (mut channel, mut wire) = open(Role::Client, 100);
            wire.write_all(cut).await.expect("room");
            drop(wire);
            let lost = channel.next().await;
            assert!(matches!(lost, Some(Err(ReceiveError::Lost(None)))), "{cut:x?}: {lost:?}");
            assert!(channel.next().await.is_none());
            assert!(channel.send(Frame::text("to nobody")).await.is_err());
        }
    }
}
