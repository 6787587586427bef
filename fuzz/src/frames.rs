//! WebSocket frames.
//!
//! The first byte says which side reads and how large a message may be; the rest is what the peer
//! sends.
//!
//! - However the bytes are cut into reads, the same messages and the same end come of them.
//! - Messages are bounded, texts are UTF-8, and close codes are such as may be sent.
//! - An independent reader, that of the WebSocket library, takes the same messages and refuses the
//!   same streams.
//! - What is read and written again is read as the same, masked or not, and its frames end where
//!   the walk over unread frames says.

use std::io::{self, Read, Write};
use std::task::{Context, Waker};

use bytes::Bytes;
use mooring::ws::{Boundary, Decoder, Frame, Opcode, Outbox, ReceiveError, Role, may_be_sent};
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::{self, Message, WebSocket, WebSocketConfig};

use super::cuts;

const LEN_MAX: usize = 16 << 10;

/// How reading came to an end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// All is read, and more would be.
    Open,
    Closed,
    Refused(u16),
}

pub fn check(data: &[u8]) {
    let Some((&settings, bytes)) = data.split_first() else { return };
    let bytes = &bytes[..bytes.len().min(LEN_MAX)];
    let role = if settings & 1 == 0 { Role::Server } else { Role::Client };
    let max = [125, 300, 2_000, 70_000][usize::from(settings >> 1 & 3)];
    let whole = ours(role, max, [bytes]);
    for cut in cuts(bytes.len()) {
        let (start, end) = bytes.split_at(cut);
        assert_eq!(ours(role, max, [start, end]), whole, "cut after {cut} bytes");
    }
    assert_eq!(ours(role, max, bytes.chunks(1)), whole, "byte by byte");
    for frame in &whole.0 {
        check_frame(frame, max);
    }
    check_library(role, max, bytes);
    check_written(&whole.0);
    check_boundary(bytes);
}

fn ours<'a>(
    role: Role,
    max: usize,
    reads: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Frame>, End) {
    let mut decoder = Decoder::new(role, max);
    let mut frames = Vec::new();
    for mut read in reads {
        loop {
            match decoder.next(&mut read) {
                Ok(Some(frame)) => {
                    let is_close = frame.opcode == Opcode::Close;
                    frames.push(frame);
                    if is_close {
                        return (frames, End::Closed);
                    }
                }
                Ok(None) => break,
                Err(ReceiveError::Lost(_)) => panic!("nothing is lost here"),
                Err(error) => {
                    return (frames, End::Refused(error.close_code().expect("there is one")));
                }
            }
        }
        assert!(read.is_empty(), "nothing is left over");
    }
    (frames, End::Open)
}

fn check_frame(frame: &Frame, max: usize) {
    match frame.opcode {
        Opcode::Text => assert!(std::str::from_utf8(&frame.payload).is_ok()),
        Opcode::Binary => {}
        Opcode::Ping | Opcode::Pong => assert!(frame.payload.len() <= 125),
        Opcode::Close => {
            assert!(frame.payload.len() <= 125 && frame.payload.len() != 1);
            assert!(frame.close_reason().is_none_or(|(code, _)| may_be_sent(code)));
        }
    }
    assert!(frame.payload.len() <= max.max(125));
}

/// What the library reads from; what it writes is lost.
struct Bytestream<'a>(&'a [u8]);

impl Read for Bytestream<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.read(to)
    }
}

impl Write for Bytestream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// With several mistakes in one stream the two may name different ones, so that only the messages
/// before and the refusal itself are compared.
fn check_library(role: Role, max: usize, bytes: &[u8]) {
    // The library judges a frame when all of it is there; so it is given the rest.
    let padded = [bytes, &vec![0; max + 200]].concat();
    let (mut frames, mut end) = ours(role, max, [&padded[..]]);
    // The one difference that is meant: 1014 was registered after RFC 6455.
    if frames.last().and_then(Frame::close_reason).is_some_and(|(code, _)| code == 1014) {
        frames.pop();
        end = End::Refused(1002);
    }
    let (their_frames, their_end) = theirs(role, max, &padded);
    assert_eq!(frames, their_frames);
    let is_refused = |end| matches!(end, End::Refused(_));
    assert_eq!(is_refused(end), is_refused(their_end), "{end:?} {their_end:?}");
}

fn theirs(role: Role, max: usize, bytes: &[u8]) -> (Vec<Frame>, End) {
    let role = match role {
        Role::Client => protocol::Role::Client,
        Role::Server => protocol::Role::Server,
    };
    let config = WebSocketConfig::default().max_message_size(Some(max)).max_frame_size(Some(max));
    let mut socket = WebSocket::from_raw_socket(Bytestream(bytes), role, Some(config));
    let mut frames = Vec::new();
    loop {
        let (opcode, payload) = match socket.read() {
            Ok(Message::Text(text)) => (Opcode::Text, text.into()),
            Ok(Message::Binary(payload)) => (Opcode::Binary, payload),
            Ok(Message::Ping(payload)) => (Opcode::Ping, payload),
            Ok(Message::Pong(payload)) => (Opcode::Pong, payload),
            // It does not refuse a bad code, but tells of another one.
            Ok(Message::Close(Some(close))) if close.reason.as_str() == "Protocol violation" => {
                return (frames, End::Refused(1002));
            }
            Ok(Message::Close(close)) => {
                frames.push(match close {
                    Some(close) => Frame::close(close.code.into(), close.reason.as_str()),
                    None => Frame { opcode: Opcode::Close, payload: Bytes::new() },
                });
                return (frames, End::Closed);
            }
            Ok(Message::Frame(_)) => panic!("those are only for writing"),
            Err(Error::Protocol(error)) if error.to_string().contains("without closing") => {
                return (frames, End::Open);
            }
            Err(_) => return (frames, End::Refused(1002)),
        };
        frames.push(Frame { opcode, payload });
    }
}

/// Written by either side, they are read by the other as they were.
fn check_written(frames: &[Frame]) {
    for (writer, reader) in [(Role::Server, Role::Client), (Role::Client, Role::Server)] {
        let mut outbox = Outbox::new(writer);
        frames.iter().for_each(|frame| outbox.push(frame.clone()));
        let mut wire = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(outbox.poll_write(&mut wire, &mut cx).is_ready());
        let (read, _) = ours(reader, usize::MAX, [&wire[..]]);
        assert_eq!(read, frames);
        let (ends, rest) = walked(&wire);
        assert_eq!((ends.len(), rest), (frames.len(), 0));
    }
}

/// Where frames end, and how many bytes belong to one that does not.
fn walked(wire: &[u8]) -> (Vec<usize>, usize) {
    let mut boundary = Boundary::default();
    let (mut ends, mut at) = (Vec::new(), 0);
    while at < wire.len() {
        let taken = boundary.take(&wire[at..]);
        assert!(0 < taken, "it stands still");
        at += taken;
        if boundary.is_between() {
            ends.push(at);
        }
    }
    let rest = at - ends.last().copied().unwrap_or(0);
    (ends, rest)
}

fn check_boundary(bytes: &[u8]) {
    let (ends, _) = walked(bytes);
    let mut boundary = Boundary::default();
    let mut found = Vec::new();
    for (index, byte) in bytes.iter().enumerate() {
        boundary.pass(&[*byte]);
        if boundary.is_between() {
            found.push(index + 1);
        }
    }
    assert_eq!(found, ends);
    for cut in cuts(bytes.len()) {
        let mut boundary = Boundary::default();
        boundary.pass(&bytes[..cut]);
        assert_eq!(boundary.is_between(), cut == 0 || ends.contains(&cut), "after {cut} bytes");
    }
}
