//! WebSocket frames in and out (RFC 6455), and the handshakes of both sides.
//!
//! The rest of the program sees [`Frame`] and [`Channel`]:
//!
//! - `handshake` opens a connection, with the WebSocket library, whose types stay there;
//! - `tail` keeps what that library has read after the handshake;
//! - `decode` and `encode` convert between frames and bytes, and `mask` masks them;
//! - `channel` is an open connection, and `boundary` finds the ends of frames that are not decoded;
//! - [`outbox`] holds the few frames that wait to be sent on a connection.
//!
//! Pings are answered here, per hop, and are never relayed. Extensions are neither offered nor
//! accepted: there is no permessage-deflate, so a relayed offer would corrupt the stream.

mod boundary;
mod channel;
mod decode;
#[cfg(test)]
mod differential;
mod encode;
mod handshake;
mod mask;
pub mod outbox;
mod tail;

use bytes::Bytes;

pub use boundary::Boundary;
pub use channel::{Channel, Limits};
pub use decode::{Decoder, ReceiveError};
pub use encode::{Outbox, control};
pub use handshake::{
    ConnectError, HandshakeError, Upgrade, accept, check, connect, connect_with, is_accepted,
    is_asked,
};

/// The kind of a frame. Fragments are assembled before a frame is returned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opcode {
    Text,
    Binary,
    Ping,
    Pong,
    Close,
}

impl Opcode {
    fn is_control(self) -> bool {
        match self {
            Self::Text | Self::Binary => false,
            Self::Ping | Self::Pong | Self::Close => true,
        }
    }

    /// RFC 6455 section 11.8.
    fn code(self) -> u8 {
        match self {
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }
}

/// Which side of a connection we are: clients mask, servers do not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    Client,
    Server,
}

/// One whole message, or a control frame. Cheap to clone: the payload is shared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub opcode: Opcode,
    /// Invariant for `Text`: UTF-8, checked by the code that made the frame.
    pub payload: Bytes,
}

impl Frame {
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { opcode: Opcode::Text, payload: Bytes::from(text.into()) }
    }

    #[must_use]
    pub fn binary(payload: impl Into<Bytes>) -> Self {
        Self { opcode: Opcode::Binary, payload: payload.into() }
    }

    #[must_use]
    pub fn ping(payload: &'static [u8]) -> Self {
        Self { opcode: Opcode::Ping, payload: Bytes::from_static(payload) }
    }

    /// A close frame (RFC 6455 section 5.5.1). The reason is cut to the 123 bytes that fit.
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let mut payload = Vec::with_capacity(2 + end);
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(&reason.as_bytes()[..end]);
        Self { opcode: Opcode::Close, payload: payload.into() }
    }

    /// The code and reason of a close frame; `None` for other frames and for one without a code.
    #[must_use]
    pub fn close_reason(&self) -> Option<(u16, &str)> {
        if self.opcode != Opcode::Close {
            return None;
        }
        let (code, reason) = self.payload.split_first_chunk::<2>()?;
        Some((u16::from_be_bytes(*code), std::str::from_utf8(reason).unwrap_or("")))
    }

    /// The text of a text frame; the empty string for all others.
    #[must_use]
    pub fn as_text(&self) -> &str {
        if self.opcode == Opcode::Text {
            std::str::from_utf8(&self.payload).unwrap_or("")
        } else {
            ""
        }
    }
}

/// True for codes that may stand in a close frame (RFC 6455 section 7.4): 1005, 1006 and 1015 are
/// for reports only, and unregistered codes may not be sent either.
#[must_use]
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reason_is_cut_at_a_character() {
        let frame = Frame::close(1000, &"é".repeat(100));
        assert_eq!(frame.payload.len(), 2 + 122);
        assert_eq!(frame.close_reason(), Some((1000, "é".repeat(61).as_str())));
    }

    #[test]
    fn codes_for_reports_are_never_sent() {
        let legal: Vec<u16> = (0..=5000).filter(|code| may_be_sent(*code)).collect();
        assert!(legal.contains(&1012) && legal.contains(&4999));
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            assert!(!legal.contains(&code), "{code}");
        }
    }
}
