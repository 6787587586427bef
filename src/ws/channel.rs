//! A WebSocket connection after its handshake, as frames. The only place that knows the library.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::{Frame, Opcode};
use crate::net::Stream;

/// Bounds of one connection, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest message taken; a larger one ends the connection with 1009.
    pub message: usize,
    /// The read buffer, allocated at once and kept: what an idle connection costs.
    pub read_buffer: usize,
}

impl Limits {
    fn config(self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(self.read_buffer)
            .write_buffer_size(self.read_buffer)
            .max_message_size(Some(self.message))
            .max_frame_size(Some(self.message))
    }
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The peer is gone without a closing handshake (reported as 1006).
    #[error("connection lost")]
    Lost(#[source] Option<io::Error>),
    /// A message larger than [`Limits::message`] (1009).
    #[error("message too large")]
    TooLarge,
    /// Bytes that are no UTF-8 in a text frame (1007).
    #[error("text is not UTF-8")]
    NotUtf8,
    /// Anything else that RFC 6455 forbids (1002).
    #[error("protocol error: {0}")]
    Protocol(String),
}

impl ReceiveError {
    /// The code to close with; `None` when there is nobody to tell.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        match self {
            Self::Lost(_) => None,
            Self::TooLarge => Some(1009),
            Self::NotUtf8 => Some(1007),
            Self::Protocol(_) => Some(1002),
        }
    }
}

/// One side of an open WebSocket. Reading and writing may be polled from one task in any order.
pub struct Channel {
    inner: WebSocketStream<Stream>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

impl Channel {
    /// The server's side; `read` is what the HTTP parser had read beyond the handshake.
    pub(super) async fn server(stream: Stream, read: Vec<u8>, limits: Limits) -> Self {
        let config = Some(limits.config());
        let inner = WebSocketStream::from_partially_read(stream, read, Role::Server, config).await;
        Self { inner }
    }

    pub(super) fn client(inner: WebSocketStream<Stream>) -> Self {
        Self { inner }
    }

    pub(super) fn config(limits: Limits) -> WebSocketConfig {
        limits.config()
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
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                None => None,
                Some(Ok(message)) => match into_frame(message) {
                    Some(frame) => Some(Ok(frame)),
                    None => continue,
                },
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => None,
                Some(Err(error)) => Some(Err(receive_error(error))),
            });
        }
    }

    /// Ready when one more frame may be queued with [`Channel::start_send`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_ready(cx).map_err(send_error)
    }

    /// Queues a frame; it is on its way only after a flush.
    ///
    /// # Errors
    /// The connection is closed or broken.
    pub fn start_send(&mut self, frame: Frame) -> io::Result<()> {
        Pin::new(&mut self.inner).start_send(into_message(frame)).map_err(send_error)
    }

    /// Writes what was queued.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(send_error)
    }
}

fn into_frame(message: Message) -> Option<Frame> {
    let (opcode, payload) = match message {
        Message::Text(text) => (Opcode::Text, text.into()),
        Message::Binary(payload) => (Opcode::Binary, payload),
        Message::Ping(payload) => (Opcode::Ping, payload),
        Message::Pong(payload) => (Opcode::Pong, payload),
        Message::Close(Some(CloseFrame { code, reason })) => {
            return Some(Frame::close(code.into(), reason.as_str()));
        }
        Message::Close(None) => (Opcode::Close, Bytes::new()),
        // Raw frames are only for writing.
        Message::Frame(_) => return None,
    };
    Some(Frame { opcode, payload })
}

fn into_message(frame: Frame) -> Message {
    match frame.opcode {
        // The invariant of `Frame` says UTF-8; should it be broken, binary keeps the bytes.
        Opcode::Text => match Utf8Bytes::try_from(frame.payload) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(Bytes::new()),
        },
        Opcode::Binary => Message::Binary(frame.payload),
        Opcode::Ping => Message::Ping(frame.payload),
        Opcode::Pong => Message::Pong(frame.payload),
        Opcode::Close => Message::Close(frame.close_reason().map(|(code, reason)| CloseFrame {
            code: CloseCode::from(code),
            reason: reason.into(),
        })),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors may grow")]
fn receive_error(error: Error) -> ReceiveError {
    match error {
        Error::Io(error) => ReceiveError::Lost(Some(error)),
        Error::Capacity(_) => ReceiveError::TooLarge,
        Error::Utf8(_) => ReceiveError::NotUtf8,
        Error::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => ReceiveError::Lost(None),
        other => ReceiveError::Protocol(other.to_string()),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library's errors may grow")]
fn send_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::BrokenPipe, other.to_string()),
    }
}
