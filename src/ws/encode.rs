//! Encodes frames and writes them in few writes (RFC 6455 section 5.2).
//!
//! Small frames are put one after another into one buffer. A large payload is written from where it
//! is, without a copy, unless it has to be masked. No memory is kept when everything is written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

use super::mask::apply_mask;
use super::{Frame, Opcode, Role};

/// A payload of at least this many bytes is written without a copy.
const LARGE: usize = 4 << 10;

/// When this many bytes wait, they are written before more are accepted.
const FULL: usize = 16 << 10;

/// The largest header of a frame, mask included, in bytes.
const HEADER_MAX: usize = 14;

/// The largest payload of a control frame, in bytes (section 5.5).
const CONTROL_MAX: usize = 125;

/// The most parts in one write.
const SLICES: usize = 16;

/// Frames that wait to be written, in order.
#[derive(Debug)]
pub struct Outbox {
    role: Role,
    /// Whole parts, before `tail`.
    parts: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// How many bytes of `tail` are already written.
    written: usize,
    flow: Flow,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flow {
    Free,
    /// The last write was incomplete: the peer has to read first.
    Blocked,
}

/// The bytes of a control frame, as the side `role` sends it.
#[must_use]
pub fn control(frame: &Frame, role: Role) -> Vec<u8> {
    let mut outbox = Outbox::new(role);
    outbox.push(frame.clone());
    outbox.tail
}

impl Outbox {
    /// An empty outbox. A client masks its frames.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { role, parts: VecDeque::new(), tail: Vec::new(), written: 0, flow: Flow::Free }
    }

    /// True if the content should be written before more is pushed.
    pub(super) fn is_full(&self) -> bool {
        self.is_blocked() || FULL <= self.len()
    }

    /// True if the peer has to read first.
    pub(super) fn is_blocked(&self) -> bool {
        self.flow == Flow::Blocked
    }

    /// Adds a frame. The buffer stays small if the caller checks `is_full` first.
    pub fn push(&mut self, frame: Frame) {
        let mut payload = frame.payload;
        if frame.opcode.is_control() {
            // Longer ones are not allowed; a truncated ping is still a ping.
            payload.truncate(CONTROL_MAX);
        }
        if self.tail.is_empty() && payload.len() < LARGE {
            // Reserved once, not in steps: most writes are one small frame.
            self.tail.reserve_exact(HEADER_MAX + payload.len());
        }
        self.push_header(frame.opcode, payload.len());
        match self.role {
            Role::Server if LARGE <= payload.len() => {
                self.seal_tail();
                self.parts.push_back(payload);
            }
            Role::Server => self.tail.extend_from_slice(&payload),
            Role::Client => {
                let key: [u8; 4] = rand::random();
                self.tail.reserve(key.len() + payload.len());
                self.tail.extend_from_slice(&key);
                let start = self.tail.len();
                self.tail.extend_from_slice(&payload);
                apply_mask(&mut self.tail[start..], key, 0);
            }
        }
    }

    /// Writes everything in the outbox; does not flush.
    pub fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            match self.poll_write_once(Pin::new(stream), cx) {
                Poll::Pending => {
                    self.flow = Flow::Blocked;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.forget(count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        self.flow = Flow::Free;
        Poll::Ready(Ok(()))
    }

    fn poll_write_once(
        &self,
        stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let tail = &self.tail[self.written..];
        if self.parts.is_empty() {
            return stream.poll_write(cx, tail);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let all = self.parts.iter().map(|part| &part[..]).chain([tail]);
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(all.filter(|part| !part.is_empty())) {
            *slice = IoSlice::new(part);
            count += 1;
        }
        stream.poll_write_vectored(cx, &slices[..count])
    }

    /// Removes `count` written bytes from the front, and frees their buffers.
    fn forget(&mut self, mut count: usize) {
        while let Some(part) = self.parts.front_mut() {
            if count < part.len() {
                part.advance(count);
                return;
            }
            count -= part.len();
            self.parts.pop_front();
        }
        self.parts = VecDeque::new();
        self.written += count;
        if self.tail.len() <= self.written {
            self.tail = Vec::new();
            self.written = 0;
        }
    }

    fn push_header(&mut self, opcode: Opcode, len: usize) {
        let first = 0x80 | opcode.code();
        let mask = match self.role {
            Role::Server => 0,
            Role::Client => 0x80,
        };
        let len = len as u64;
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short @ ..=125), _) => self.tail.extend_from_slice(&[first, mask | short]),
            (_, Ok(long)) => {
                self.tail.extend_from_slice(&[first, mask | 126]);
                self.tail.extend_from_slice(&long.to_be_bytes());
            }
            (_, Err(_)) => {
                self.tail.extend_from_slice(&[first, mask | 127]);
                self.tail.extend_from_slice(&len.to_be_bytes());
            }
        }
    }

    fn seal_tail(&mut self) {
        let mut sealed = Bytes::from(std::mem::take(&mut self.tail));
        sealed.advance(std::mem::take(&mut self.written));
        self.parts.push_back(sealed);
    }

    fn len(&self) -> usize {
        let parts: usize = self.parts.iter().map(Bytes::len).sum();
        parts + self.tail.len() - self.written
    }

    fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.tail.is_empty()
    }
}

#[cfg(test)]
impl Outbox {
    pub(super) fn holds_nothing(&self) -> bool {
        self.parts.capacity() == 0 && self.tail.capacity() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A peer that accepts this many bytes per write, and records them.
    struct Wire {
        taken: Vec<u8>,
        by: usize,
        writes: usize,
    }

    impl AsyncWrite for Wire {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            let before = this.taken.len();
            for slice in slices {
                let room = before.saturating_add(this.by) - this.taken.len();
                this.taken.extend_from_slice(&slice[..slice.len().min(room)]);
            }
            this.writes += 1;
            Poll::Ready(Ok(this.taken.len() - before))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn written(outbox: &mut Outbox, by: usize) -> (Vec<u8>, usize) {
        let mut wire = Wire { taken: Vec::new(), by, writes: 0 };
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(outbox.poll_write(&mut wire, &mut cx), Poll::Ready(Ok(()))));
        assert!(outbox.holds_nothing());
        (wire.taken, wire.writes)
    }

    #[test]
    fn a_server_writes_the_examples_of_section_5_7() {
        let mut outbox = Outbox::new(Role::Server);
        outbox.push(Frame::text("Hello"));
        outbox.push(Frame::ping(b"Hello"));
        outbox.push(Frame::binary(vec![7; 256]));
        outbox.push(Frame::binary(vec![8; 65_536]));
        let wanted = [
            b"\x81\x05Hello\x89\x05Hello\x82\x7e\x01\x00".as_slice(),
            &[7; 256],
            b"\x82\x7f\0\0\0\0\0\x01\0\0",
            &[8; 65_536],
        ];
        assert_eq!(written(&mut outbox, usize::MAX), (wanted.concat(), 1));
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        for (len, header) in [
            (0, [0x82, 0].as_slice()),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut outbox = Outbox::new(Role::Server);
            outbox.push(Frame::binary(vec![0; len]));
            let (bytes, _) = written(&mut outbox, usize::MAX);
            assert_eq!(&bytes[..bytes.len() - len], header, "{len} bytes");
        }
    }

    #[test]
    fn a_client_masks_each_frame_with_a_new_key() {
        let mut outbox = Outbox::new(Role::Client);
        for _ in 0..4 {
            outbox.push(Frame::text("Hello"));
        }
        let (bytes, _) = written(&mut outbox, usize::MAX);
        let mut keys = Vec::new();
        for frame in bytes.chunks(11) {
            assert_eq!(frame[..2], [0x81, 0x85]);
            let key: [u8; 4] = frame[2..6].try_into().expect("four bytes");
            let mut payload = frame[6..].to_vec();
            apply_mask(&mut payload, key, 0);
            assert_eq!(payload, b"Hello");
            keys.push(key);
        }
        keys.dedup();
        assert_eq!(keys.len(), 4);
    }

    #[test]
    fn a_large_payload_is_not_copied_and_small_ones_go_in_one_write() {
        let mut outbox = Outbox::new(Role::Server);
        let payload = Bytes::from(vec![1; LARGE]);
        outbox.push(Frame::text("a"));
        outbox.push(Frame::binary(payload.clone()));
        outbox.push(Frame::text("b"));
        assert!(outbox.parts.iter().any(|part| part.as_ptr() == payload.as_ptr()));
        let (bytes, writes) = written(&mut outbox, usize::MAX);
        assert_eq!((bytes.len(), writes), (3 + 4 + LARGE + 3, 1));
    }

    #[test]
    fn the_order_holds_however_little_is_taken_with_one_write() {
        let fill = |outbox: &mut Outbox| {
            for i in 0..40 {
                outbox.push(Frame::text(format!("frame {i}")));
                outbox.push(Frame::binary(vec![i; LARGE + usize::from(i)]));
            }
        };
        let mut outbox = Outbox::new(Role::Server);
        fill(&mut outbox);
        let (wanted, _) = written(&mut outbox, usize::MAX);
        for by in [1, 7, LARGE, 100_000] {
            fill(&mut outbox);
            assert!(written(&mut outbox, by).0 == wanted, "{by} bytes with one write");
        }
    }

    #[test]
    fn frames_added_after_half_a_write_follow_it() {
        let mut outbox = Outbox::new(Role::Server);
        outbox.push(Frame::text("abc"));
        outbox.forget(2);
        outbox.push(Frame::text("d"));
        outbox.push(Frame::binary(vec![1; LARGE]));
        let (bytes, _) = written(&mut outbox, usize::MAX);
        assert_eq!(bytes[..10], *b"abc\x81\x01d\x82\x7e\x10\x00");
    }
}
