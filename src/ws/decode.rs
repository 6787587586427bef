//! Decodes a peer's bytes into messages (RFC 6455 section 5). Does no I/O.
//!
//! The decoder is given what was just read, and keeps only what is incomplete: an idle connection
//! has no buffer. A header is checked as soon as it is complete, before its payload arrives.

use std::io;

use bytes::Bytes;

use super::mask::apply_mask;
use super::{Frame, Opcode, Role, may_be_sent};

/// Two bytes, eight for the longest length, four for the mask key.
const HEADER_MAX: usize = 14;

/// The largest payload of a control frame, in bytes (section 5.5).
const CONTROL_MAX: usize = 125;

/// The bytes to allocate for a payload before it arrives. More is allocated only as it arrives.
const AT_ONCE: usize = 64 << 10;

/// Why reading cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The peer is gone without a closing handshake (reported as 1006).
    #[error("connection lost")]
    Lost(#[source] Option<io::Error>),
    /// A message larger than [`Limits::message`](super::Limits::message) (1009).
    #[error("message too large")]
    TooLarge,
    /// Invalid UTF-8 in a text message or in the reason of a close frame (1007).
    #[error("text is not UTF-8")]
    NotUtf8,
    /// Anything else that RFC 6455 forbids (1002).
    #[error("protocol error: {0}")]
    Protocol(&'static str),
}

impl ReceiveError {
    /// The code to close with; `None` if the peer is gone.
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

/// Assembles messages. It must not be used after an error or a close frame.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    /// The largest message, in bytes.
    max: usize,
    cut: CutHeader,
    /// The frame whose payload is incomplete.
    frame: Option<Header>,
    message: Option<Message>,
    /// The part of a control frame's payload that has arrived. Control frames may stand between
    /// fragments, so this is separate from the message.
    control: Vec<u8>,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    Reading,
    /// What follows a close frame is ignored.
    Closed,
}

/// The first bytes of an incomplete header.
#[derive(Debug, Default)]
struct CutHeader {
    bytes: [u8; HEADER_MAX],
    len: usize,
}

/// An incomplete message.
#[derive(Debug)]
struct Message {
    kind: Data,
    bytes: Vec<u8>,
    /// The number of leading bytes that are known to be UTF-8.
    checked: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Data {
    Text,
    Binary,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Control {
    Close,
    Ping,
    Pong,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Code {
    First(Data),
    Continuation,
    Control(Control),
}

#[derive(Clone, Copy, Debug)]
struct Header {
    code: Code,
    /// This is the last frame of its message.
    is_final: bool,
    key: Option<[u8; 4]>,
    len: u64,
    /// The number of payload bytes that have arrived.
    got: usize,
}

impl Decoder {
    /// A decoder of what the peer of `role` sends, in messages of at most `max` bytes.
    #[must_use]
    pub fn new(role: Role, max: usize) -> Self {
        Self {
            role,
            max,
            cut: CutHeader::default(),
            frame: None,
            message: None,
            control: Vec::new(),
            progress: Progress::Reading,
        }
    }

    /// The next whole message or control frame, taken from the front of `input`; `None` when all of
    /// `input` is used up and more is needed.
    ///
    /// # Errors
    /// The peer broke a rule: too large, not UTF-8, or against the protocol. Never `Lost`.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, ReceiveError> {
        while !input.is_empty() && self.progress == Progress::Reading {
            let header = match self.frame.take() {
                Some(header) => header,
                None => match self.header(input)? {
                    Some(header) => header,
                    None => return Ok(None),
                },
            };
            let whole = match header.code {
                Code::Control(control) => self.control(control, header, input)?,
                Code::First(_) | Code::Continuation => self.data(header, input)?,
            };
            if whole.is_some() {
                return Ok(whole);
            }
        }
        *input = &[];
        Ok(None)
    }

    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, ReceiveError> {
        let before = self.cut.len;
        let taken = input.len().min(HEADER_MAX - before);
        let until = before + taken;
        self.cut.bytes[before..until].copy_from_slice(&input[..taken]);
        let Some((header, size)) = Header::parse(&self.cut.bytes[..until])? else {
            self.cut.len = until;
            *input = &input[taken..];
            return Ok(None);
        };
        self.cut.len = 0;
        *input = &input[size - before..];
        self.judge(&header)?;
        if let Code::First(kind) = header.code {
            self.message = Some(Message { kind, bytes: Vec::new(), checked: 0 });
        }
        Ok(Some(header))
    }

    /// Checks a header against all rules, given what came before it.
    fn judge(&self, header: &Header) -> Result<(), ReceiveError> {
        match (self.role, header.key) {
            (Role::Server, None) => Err(ReceiveError::Protocol("a client's frame is not masked")),
            (Role::Client, Some(_)) => Err(ReceiveError::Protocol("a server's frame is masked")),
            (Role::Server, Some(_)) | (Role::Client, None) => Ok(()),
        }?;
        let begun = match (header.code, &self.message) {
            (Code::Control(_), _) if !header.is_final => {
                return Err(ReceiveError::Protocol("a control frame is fragmented"));
            }
            (Code::Control(_), _) if (CONTROL_MAX as u64) < header.len => {
                return Err(ReceiveError::Protocol("a control frame is too long"));
            }
            (Code::Control(_), _) => return Ok(()),
            (Code::First(_), Some(_)) => {
                return Err(ReceiveError::Protocol("a message begins within another"));
            }
            (Code::First(_), None) => 0,
            (Code::Continuation, Some(message)) => message.bytes.len(),
            (Code::Continuation, None) => {
                return Err(ReceiveError::Protocol("nothing is there to continue"));
            }
        };
        if (self.max.saturating_sub(begun) as u64) < header.len {
            return Err(ReceiveError::TooLarge);
        }
        Ok(())
    }

    fn control(
        &mut self,
        control: Control,
        mut header: Header,
        input: &mut &[u8],
    ) -> Result<Option<Frame>, ReceiveError> {
        let left = header.left();
        if self.control.is_empty() {
            self.control.reserve_exact(left);
        }
        header.take(&mut self.control, input);
        if header.left() != 0 {
            self.frame = Some(header);
            return Ok(None);
        }
        let payload = std::mem::take(&mut self.control);
        let opcode = match control {
            Control::Ping => Opcode::Ping,
            Control::Pong => Opcode::Pong,
            Control::Close => {
                check_close(&payload)?;
                self.progress = Progress::Closed;
                Opcode::Close
            }
        };
        Ok(Some(Frame { opcode, payload: payload.into() }))
    }

    fn data(
        &mut self,
        mut header: Header,
        input: &mut &[u8],
    ) -> Result<Option<Frame>, ReceiveError> {
        // `judge` has checked that there is a message.
        let Some(message) = &mut self.message else { return Ok(None) };
        message.make_room(&header, input.len());
        header.take(&mut message.bytes, input);
        if header.left() != 0 {
            self.frame = Some(header);
            return Ok(None);
        }
        message.check(header.is_final)?;
        if !header.is_final {
            return Ok(None);
        }
        Ok(self.message.take().map(Message::into_frame))
    }
}

impl Message {
    /// Allocates for the bytes that are there, and for a little more if the header announces more:
    /// never twice what has arrived, unless that is small.
    fn make_room(&mut self, header: &Header, input: usize) {
        let now = input.min(header.left());
        if now <= self.bytes.capacity() - self.bytes.len() {
            return;
        }
        let ahead = self.bytes.len().max(AT_ONCE).max(now).min(header.left());
        match header.code {
            // Exact, so that a message in one frame wastes nothing.
            Code::First(_) => self.bytes.reserve_exact(ahead),
            // At least doubles: fragments may be tiny and many.
            Code::Continuation | Code::Control(_) => self.bytes.reserve(ahead),
        }
    }

    /// Checks the new bytes of a text message; a fragment may end inside a character.
    fn check(&mut self, is_final: bool) -> Result<(), ReceiveError> {
        if self.kind == Data::Binary {
            return Ok(());
        }
        let unchecked = &self.bytes[self.checked..];
        // Python's `json.dumps` writes nothing else, and this is several times as fast.
        if unchecked.is_ascii() {
            self.checked = self.bytes.len();
            return Ok(());
        }
        match std::str::from_utf8(unchecked) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_none() && !is_final => {
                self.checked += error.valid_up_to();
            }
            Err(_) => return Err(ReceiveError::NotUtf8),
        }
        Ok(())
    }

    fn into_frame(mut self) -> Frame {
        self.bytes.shrink_to_fit();
        let opcode = match self.kind {
            Data::Text => Opcode::Text,
            Data::Binary => Opcode::Binary,
        };
        Frame { opcode, payload: Bytes::from(self.bytes) }
    }
}

impl Header {
    /// The header at the front of `bytes` and its size; `None` if it is incomplete.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ReceiveError> {
        let Some((&[first, second], rest)) = bytes.split_first_chunk::<2>() else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(ReceiveError::Protocol("reserved bits are set"));
        }
        let code = match first & 0x0f {
            0x0 => Code::Continuation,
            0x1 => Code::First(Data::Text),
            0x2 => Code::First(Data::Binary),
            0x8 => Code::Control(Control::Close),
            0x9 => Code::Control(Control::Ping),
            0xa => Code::Control(Control::Pong),
            _ => return Err(ReceiveError::Protocol("the opcode is unknown")),
        };
        let Some((len, rest)) = length(second & 0x7f, rest) else { return Ok(None) };
        if len >> 63 != 0 {
            return Err(ReceiveError::Protocol("the length has its top bit set"));
        }
        let (key, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            let Some((key, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            (Some(*key), rest)
        };
        let header = Self { code, is_final: first & 0x80 != 0, key, len, got: 0 };
        Ok(Some((header, bytes.len() - rest.len())))
    }

    /// How many payload bytes are missing. The header was checked, so this is within `max`.
    fn left(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX) - self.got
    }

    /// Moves the available payload bytes to the end of `to`, unmasked.
    fn take(&mut self, to: &mut Vec<u8>, input: &mut &[u8]) {
        let (payload, rest) = input.split_at(input.len().min(self.left()));
        let before = to.len();
        to.extend_from_slice(payload);
        if let Some(key) = self.key {
            apply_mask(&mut to[before..], key, self.got);
        }
        self.got += payload.len();
        *input = rest;
    }
}

/// The payload length, and the bytes after it. Encodings that are longer than needed are accepted.
fn length(short: u8, rest: &[u8]) -> Option<(u64, &[u8])> {
    match short {
        126 => {
            let (long, rest) = rest.split_first_chunk::<2>()?;
            Some((u16::from_be_bytes(*long).into(), rest))
        }
        127 => {
            let (long, rest) = rest.split_first_chunk::<8>()?;
            Some((u64::from_be_bytes(*long), rest))
        }
        short => Some((short.into(), rest)),
    }
}

/// Section 5.5.1: nothing, or a code that may be sent and a reason in UTF-8.
fn check_close(payload: &[u8]) -> Result<(), ReceiveError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(()),
            _ => Err(ReceiveError::Protocol("a close frame has half a code")),
        };
    };
    std::str::from_utf8(reason).map_err(|_| ReceiveError::NotUtf8)?;
    if !may_be_sent(u16::from_be_bytes(*code)) {
        return Err(ReceiveError::Protocol("a close frame has a code that may not be sent"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    /// All frames in `bytes`, read as a client reads, `size` bytes at a time.
    fn read_by(size: usize, bytes: &[u8]) -> (Vec<Frame>, Option<u16>) {
        read_as(Role::Client, size, bytes)
    }

    fn read_as(role: Role, size: usize, bytes: &[u8]) -> (Vec<Frame>, Option<u16>) {
        let mut decoder = Decoder::new(role, MAX);
        let mut frames = Vec::new();
        for mut chunk in bytes.chunks(size) {
            loop {
                match decoder.next(&mut chunk) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, error.close_code()),
                }
            }
        }
        (frames, None)
    }

    /// The same result for reads of every size.
    fn read(bytes: &[u8]) -> (Vec<Frame>, Option<u16>) {
        let whole = read_by(usize::MAX, bytes);
        for size in 1..bytes.len().min(40) {
            assert_eq!(read_by(size, bytes), whole, "in reads of {size} bytes");
        }
        whole
    }

    fn refusal(bytes: &[u8]) -> Option<u16> {
        let (frames, code) = read(bytes);
        assert_eq!(frames, [], "{bytes:x?}");
        code
    }

    #[test]
    fn the_examples_of_section_5_7_are_read() {
        let hello = ([Frame::text("Hello")].to_vec(), None);
        assert_eq!(read(b"\x81\x05Hello"), hello);
        let masked = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        for size in 1..=masked.len() {
            assert_eq!(read_as(Role::Server, size, masked), hello, "in reads of {size} bytes");
        }
        assert_eq!(read(b"\x01\x03Hel\x80\x02lo"), hello);
        assert_eq!(read(b"\x89\x05Hello"), ([Frame::ping(b"Hello")].to_vec(), None));
        let long = [b"\x82\x7e\x01\x00".as_slice(), &[7; 256]].concat();
        assert_eq!(read(&long), ([Frame::binary(vec![7; 256])].to_vec(), None));
    }

    #[test]
    fn lengths_may_be_longer_than_needed_but_have_63_bits() {
        assert_eq!(read(b"\x82\x7f\0\0\0\0\0\0\0\x01a").0, [Frame::binary("a")]);
        assert_eq!(refusal(b"\x82\x7f\x80\0\0\0\0\0\0\x01"), Some(1002));
    }

    #[test]
    fn only_clients_mask_and_all_of_them_do() {
        assert_eq!(refusal(b"\x81\x81\0\0\0\0a"), Some(1002));
        assert_eq!(read_as(Role::Server, 9, b"\x81\x01a"), (Vec::new(), Some(1002)));
    }

    #[test]
    fn reserved_bits_and_opcodes_are_refused() {
        for bit in [0x40, 0x20, 0x10] {
            assert_eq!(refusal(&[0x81 | bit, 0]), Some(1002), "{bit:#x}");
        }
        for opcode in (0x3..=0x7).chain(0xb..=0xf) {
            assert_eq!(refusal(&[0x80 | opcode, 0]), Some(1002), "{opcode:#x}");
        }
    }

    #[test]
    fn control_frames_are_short_and_whole() {
        for opcode in 0x8..=0xa {
            assert_eq!(refusal(&[opcode, 0]), Some(1002), "fragmented {opcode:#x}");
            let long = [0x80 | opcode, 126, 0, 126];
            assert_eq!(refusal(&long), Some(1002), "long {opcode:#x}");
        }
        let longest = [&[0x8a, 125], [b'a'; 125].as_slice()].concat();
        assert_eq!(read(&longest).0[0].payload.len(), 125);
    }

    #[test]
    fn control_frames_stand_between_fragments() {
        let bytes = b"\x01\x02ab\x89\x01p\x00\x00\x8a\x00\x80\x01c";
        let pong = Frame { opcode: Opcode::Pong, payload: Bytes::new() };
        assert_eq!(read(bytes), (vec![Frame::ping(b"p"), pong, Frame::text("abc")], None));
    }

    #[test]
    fn fragments_of_two_messages_are_not_mixed() {
        assert_eq!(refusal(b"\x80\x01a"), Some(1002));
        assert_eq!(refusal(b"\x01\x01a\x81\x01b"), Some(1002));
        let (frames, code) = read(b"\x81\x01a\x80\x01b");
        assert_eq!((frames, code), (vec![Frame::text("a")], Some(1002)));
    }

    #[test]
    fn a_message_above_the_limit_is_refused_by_its_header() {
        assert_eq!(refusal(b"\x82\x7e\x03\xe8"), None);
        assert_eq!(refusal(b"\x82\x7e\x03\xe9"), Some(1009));
        assert_eq!(refusal(b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"), Some(1009));
        let fragments = [b"\x02\x7e\x03\xe7".as_slice(), &[0; 999], b"\x80\x02"].concat();
        assert_eq!(read_by(100, &fragments), (Vec::new(), Some(1009)));
    }

    #[test]
    fn text_is_utf_8_wherever_it_is_cut() {
        assert_eq!(read(b"\x01\x01\xc3\x80\x01\xa9").0, [Frame::text("é")]);
        assert_eq!(refusal(b"\x81\x01\xc3"), Some(1007));
        assert_eq!(refusal(b"\x01\x01\xff"), Some(1007));
        assert_eq!(refusal(b"\x01\x01\xc3\x80\x01a"), Some(1007));
        assert_eq!(refusal(b"\x81\x03\xed\xa0\x80"), Some(1007));
        assert_eq!(read(b"\x82\x01\xff").0.len(), 1);
    }

    #[test]
    fn close_frames_have_a_code_that_may_be_sent_and_a_reason_or_nothing() {
        assert_eq!(read(b"\x88\x00").0[0].close_reason(), None);
        assert_eq!(read(b"\x88\x04\x03\xe8ok").0, [Frame::close(1000, "ok")]);
        assert_eq!(refusal(b"\x88\x01\x03"), Some(1002));
        assert_eq!(refusal(b"\x88\x02\x03\xed"), Some(1002));
        assert_eq!(refusal(b"\x88\x03\x03\xe8\xff"), Some(1007));
    }

    #[test]
    fn what_follows_a_close_frame_is_ignored() {
        let (frames, code) = read(b"\x88\x02\x03\xe8\x81\x01a\xff\xff\xff");
        assert_eq!((frames, code), (vec![Frame::close(1000, "")], None));
    }

    #[test]
    fn nothing_is_kept_between_messages_and_little_on_a_header_s_word() {
        let mut decoder = Decoder::new(Role::Client, 1 << 30);
        let mut whole: &[u8] = b"\x81\x05Hello\x89\x01p";
        while decoder.next(&mut whole).expect("legal").is_some() {}
        assert!(decoder.message.is_none() && decoder.control.capacity() == 0);

        let mut promise: &[u8] = b"\x82\x7f\0\0\0\0\x20\0\0\0abc";
        assert_eq!(decoder.next(&mut promise).expect("legal"), None);
        let held = decoder.message.expect("begun").bytes.capacity();
        assert!(held <= AT_ONCE, "{held}");
    }

    #[test]
    fn a_message_has_no_slack() {
        let mut decoder = Decoder::new(Role::Client, 1 << 20);
        let bytes = [b"\x82\x7f\0\0\0\0\0\x03\0\0".as_slice(), &[1; 3 << 16]].concat();
        let mut reads = bytes.chunks(10_000);
        let frame = reads.find_map(|mut read| decoder.next(&mut read).expect("legal"));
        let bytes = Vec::from(frame.expect("whole").payload);
        assert_eq!((bytes.len(), bytes.capacity()), (3 << 16, 3 << 16));
    }
}
