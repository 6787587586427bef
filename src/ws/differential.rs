//! Checks that our decoder agrees with the library that it replaced. The input is random messages,
//! fragments, read sizes and wrong bytes; both must return the same frames and end in the same way.

use std::io::{self, Read, Write};

use bytes::Bytes;
use proptest::prelude::*;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{self, Message, WebSocket, WebSocketConfig};

use super::decode::Decoder;
use super::mask::apply_mask;
use super::{Frame, Opcode, Role};

/// How reading ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// Everything was read, and no error was found.
    Open,
    Closed,
    Refused(u16),
}

/// One frame on the wire, legal or not.
#[derive(Clone, Debug)]
struct Wire {
    first: u8,
    payload: Vec<u8>,
    key: [u8; 4],
    /// Writes the length in eight bytes, whatever the length is.
    long: bool,
}

impl Wire {
    /// The frame as the peer of `role` writes it.
    fn bytes(&self, role: Role) -> Vec<u8> {
        let mask = if role == Role::Server { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        let len = self.payload.len();
        if self.long || 65_535 < len {
            bytes.push(mask | 127);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        } else if 125 < len {
            bytes.push(mask | 126);
            bytes.extend_from_slice(&u16::try_from(len).expect("short").to_be_bytes());
        } else {
            bytes.push(mask | u8::try_from(len).expect("shorter"));
        }
        let mut payload = self.payload.clone();
        if role == Role::Server {
            bytes.extend_from_slice(&self.key);
            apply_mask(&mut payload, self.key, 0);
        }
        bytes.extend_from_slice(&payload);
        bytes
    }
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0..20_usize,
        2 => 120..130_usize,
        2 => 0..2_100_usize,
        1 => 65_530..65_541_usize,
    ]
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    (lengths(), "[a-zé€😀]{1,9}").prop_map(|(len, pattern)| {
        pattern.chars().cycle().take(len / 2).collect::<String>().into_bytes()
    })
}

fn binary() -> impl Strategy<Value = Vec<u8>> {
    (lengths(), any::<u8>()).prop_map(|(len, byte)| vec![byte; len])
}

fn control() -> impl Strategy<Value = Wire> {
    let payload = proptest::collection::vec(any::<u8>(), 0..8);
    (prop_oneof![Just(0x89_u8), Just(0x8a)], payload, any::<[u8; 4]>())
        .prop_map(|(first, payload, key)| Wire { first, payload, key, long: false })
}

/// A message in fragments, with control frames between them.
fn message() -> impl Strategy<Value = Vec<Wire>> {
    let content = prop_oneof![
        4 => text().prop_map(|payload| (1, payload)),
        4 => binary().prop_map(|payload| (2, payload)),
        // These bytes are rarely UTF-8.
        1 => proptest::collection::vec(any::<u8>(), 0..6).prop_map(|payload| (1, payload)),
    ];
    let cuts = proptest::collection::vec((any::<prop::sample::Index>(), any::<[u8; 4]>()), 0..4);
    let between = proptest::collection::vec(control(), 0..3);
    (content, cuts, between, any::<[u8; 4]>(), any::<bool>()).prop_map(
        |((opcode, payload), cuts, between, key, long)| {
            let mut at: Vec<_> =
                cuts.iter().map(|(cut, key)| (cut.index(payload.len() + 1), *key)).collect();
            at.push((payload.len(), key));
            at.sort_unstable();
            let (last, mut start) = (at.len() - 1, 0);
            let mut between = between.into_iter();
            let mut frames = Vec::new();
            for (i, (cut, key)) in at.into_iter().enumerate() {
                let code = if i == 0 { opcode } else { 0 };
                let fin = if i == last { 0x80 } else { 0 };
                let payload = payload[start..cut].to_vec();
                frames.push(Wire { first: fin | code, payload, key, long });
                frames.extend(between.next());
                start = cut;
            }
            frames
        },
    )
}

fn close() -> impl Strategy<Value = Vec<Wire>> {
    let code = prop_oneof![
        Just(0_u16),
        Just(999),
        Just(1000),
        Just(1001),
        Just(1004),
        Just(1005),
        Just(1006),
        Just(1007),
        Just(1011),
        Just(1013),
        Just(1014),
        Just(1015),
        Just(1016),
        Just(2999),
        Just(3000),
        Just(4999),
        Just(5000)
    ];
    let reason = prop_oneof![
        text().prop_filter("fits", |reason| reason.len() <= 123),
        proptest::collection::vec(any::<u8>(), 0..3)
    ];
    let payload = prop_oneof![
        4 => (code, reason).prop_map(|(code, reason)| [&code.to_be_bytes()[..], &reason].concat()),
        1 => proptest::collection::vec(any::<u8>(), 0..2),
    ];
    (payload, any::<[u8; 4]>())
        .prop_map(|(payload, key)| vec![Wire { first: 0x88, payload, key, long: false }])
}

/// A stream of frames; now and then one is missing.
fn stream() -> impl Strategy<Value = Vec<Wire>> {
    let part = prop_oneof![8 => message(), 2 => control().prop_map(|it| vec![it]), 1 => close()];
    let missing = proptest::option::weighted(0.1, any::<prop::sample::Index>());
    (proptest::collection::vec(part, 0..6), missing).prop_map(|(parts, missing)| {
        let mut frames: Vec<Wire> = parts.into_iter().flatten().collect();
        if let Some(missing) = missing.filter(|_| !frames.is_empty()) {
            frames.remove(missing.index(frames.len()));
        }
        frames
    })
}

/// The library's input, in reads of these sizes. What it writes is discarded.
struct Reads<'a> {
    bytes: &'a [u8],
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
}

impl<'a> Reads<'a> {
    fn next(&mut self, most: usize) -> &'a [u8] {
        let size = self.sizes.next().copied().unwrap_or(1).min(most).min(self.bytes.len());
        let (read, rest) = self.bytes.split_at(size);
        self.bytes = rest;
        read
    }
}

impl Read for Reads<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.next(to.len());
        to[..read.len()].copy_from_slice(read);
        Ok(read.len())
    }
}

impl Write for Reads<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn ours(role: Role, max: usize, mut reads: Reads<'_>) -> (Vec<Frame>, End) {
    let mut decoder = Decoder::new(role, max);
    let mut frames = Vec::new();
    loop {
        let mut read = reads.next(usize::MAX);
        if read.is_empty() {
            return (frames, End::Open);
        }
        loop {
            match decoder.next(&mut read) {
                // The one intended difference: 1014 was registered after RFC 6455, and the library
                // does not know it.
                Ok(Some(it)) if it.close_reason().is_some_and(|(code, _)| code == 1014) => {
                    return (frames, End::Refused(1002));
                }
                Ok(Some(frame)) => {
                    let opcode = frame.opcode;
                    frames.push(frame);
                    if opcode == Opcode::Close {
                        return (frames, End::Closed);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    return (frames, End::Refused(error.close_code().expect("never lost")));
                }
            }
        }
    }
}

fn theirs(role: Role, max: usize, reads: Reads<'_>) -> (Vec<Frame>, End) {
    let role = match role {
        Role::Client => protocol::Role::Client,
        Role::Server => protocol::Role::Server,
    };
    let config = WebSocketConfig::default().max_message_size(Some(max)).max_frame_size(Some(max));
    let mut socket = WebSocket::from_raw_socket(reads, role, Some(config));
    let mut frames = Vec::new();
    loop {
        let (opcode, payload) = match socket.read() {
            Ok(Message::Text(text)) => (Opcode::Text, text.into()),
            Ok(Message::Binary(payload)) => (Opcode::Binary, payload),
            Ok(Message::Ping(payload)) => (Opcode::Ping, payload),
            Ok(Message::Pong(payload)) => (Opcode::Pong, payload),
            // The library does not refuse a bad code, but reports another one.
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
            Ok(Message::Frame(_)) => unreachable!("only for writing"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                return (frames, End::Open);
            }
            Err(Error::Capacity(_)) => return (frames, End::Refused(1009)),
            Err(Error::Utf8(_)) => return (frames, End::Refused(1007)),
            Err(_) => return (frames, End::Refused(1002)),
        };
        frames.push(Frame { opcode, payload });
    }
}

fn roles() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Client), Just(Role::Server)]
}

fn limits() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(300_usize), 1 => Just(2_000), 4 => Just(70_000)]
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        proptest::collection::vec(1..40_usize, 1..8),
        proptest::collection::vec(1..70_000_usize, 1..4),
    ]
}

fn on_the_wire(frames: &[Wire], role: Role) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame.bytes(role)).collect()
}

fn compare(role: Role, max: usize, bytes: &[u8], sizes: &[usize]) -> [(Vec<Frame>, End); 2] {
    let reads = || Reads { bytes, sizes: sizes.iter().cycle() };
    [ours(role, max, reads()), theirs(role, max, reads())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn both_read_the_same(role in roles(), max in limits(), frames in stream(), sizes in sizes()) {
        let [ours, theirs] = compare(role, max, &on_the_wire(&frames, role), &sizes);
        prop_assert_eq!(ours.0, theirs.0);
        // If one header has two errors, the library reports the size.
        let twice = (ours.1, theirs.1) == (End::Refused(1002), End::Refused(1009));
        prop_assert!(ours.1 == theirs.1 || twice, "{:?} {:?}", ours.1, theirs.1);
    }

    /// With one wrong byte there may be two errors to report, and the order differs.
    #[test]
    fn both_read_the_same_up_to_a_wrong_byte(
        role in roles(),
        max in limits(),
        frames in stream(),
        sizes in sizes(),
        wrong in any::<prop::sample::Index>(),
        flip in 1..=255_u8,
    ) {
        let mut bytes = on_the_wire(&frames, role);
        if !bytes.is_empty() {
            let wrong = wrong.index(bytes.len());
            bytes[wrong] ^= flip;
        }
        // The library checks a frame only when it is complete, so it is given enough bytes.
        bytes.resize(bytes.len() + max + 200, 0);
        let [ours, theirs] = compare(role, max, &bytes, &sizes);
        prop_assert_eq!(ours.0, theirs.0);
        let refused = |end| matches!(end, End::Refused(_));
        prop_assert_eq!(refused(ours.1), refused(theirs.1), "{:?} {:?}", ours.1, theirs.1);
    }
}
