//! Finds where one frame ends and the next begins, in bytes that are only passed through. Pure.
//!
//! A proxy that passes frames on may insert its own frames only between two of them (RFC 6455
//! section 5.4: control frames may stand between the fragments of a message). Only the lengths are
//! read, so extensions and masks pass unchanged.

/// The longest header of a frame: two bytes, eight of length, four of mask (RFC 6455 section 5.2).
const HEADER_MAX: usize = 14;

/// The position in a stream of frames.
#[derive(Debug, Default)]
pub struct Boundary {
    header: [u8; HEADER_MAX],
    /// Bytes of the header that have arrived.
    has: usize,
    /// Bytes of the payload that are still to come.
    left: u64,
}

impl Boundary {
    /// True between two frames, so that no frame is incomplete.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.has == 0 && self.left == 0
    }

    /// Takes bytes up to the end of the current frame, or all of them. Returns how many.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            if 0 < self.left {
                let rest = bytes.len() - taken;
                let count = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                self.left -= count as u64;
                taken += count;
            } else {
                self.header[self.has] = bytes[taken];
                self.has += 1;
                taken += 1;
                if self.has == header_len(&self.header[..self.has]) {
                    self.left = payload_len(&self.header[..self.has]);
                    self.has = 0;
                }
            }
            if self.is_between() {
                break;
            }
        }
        taken
    }

    /// Takes all of these bytes.
    pub fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.take(rest)..];
        }
    }
}

/// The length of the header that begins with these bytes, of which there are at least two.
fn header_len(header: &[u8]) -> usize {
    let Some(second) = header.get(1) else { return 2 };
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    2 + length + mask
}

fn payload_len(header: &[u8]) -> u64 {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    match header[1] & 0x7f {
        126 => number(&header[2..4]),
        127 => number(&header[2..10]),
        short => u64::from(short),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(masked: bool, payload: usize) -> Vec<u8> {
        let mask: u8 = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match payload {
            0..=125 => frame.push(mask | u8::try_from(payload).unwrap()),
            126..=65_535 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(payload as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + if masked { 4 } else { 0 } + payload, 0xff);
        frame
    }

    #[test]
    fn frames_of_every_length_end_where_they_end() {
        for payload in [0, 1, 125, 126, 127, 65_535, 65_536] {
            for masked in [false, true] {
                let bytes = frame(masked, payload);
                let mut boundary = Boundary::default();
                let two = [bytes.clone(), bytes.clone()].concat();
                assert_eq!(boundary.take(&two), bytes.len(), "{payload} {masked}");
                assert!(boundary.is_between());
            }
        }
    }

    #[test]
    fn a_length_of_which_nobody_sees_the_end_is_waited_for() {
        let mut boundary = Boundary::default();
        boundary.pass(&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
        assert!(!boundary.is_between());
    }

    proptest::proptest! {
        #[test]
        fn however_they_are_cut_the_same_boundaries_are_found(
            frames in proptest::collection::vec((proptest::bool::ANY, 0_usize..300), 1..8),
            cut in 1_usize..50,
        ) {
            let ends: Vec<usize> = frames
                .iter()
                .scan(0, |end, (masked, payload)| {
                    *end += frame(*masked, *payload).len();
                    Some(*end)
                })
                .collect();
            let bytes: Vec<u8> =
                frames.iter().flat_map(|(masked, payload)| frame(*masked, *payload)).collect();
            let (mut boundary, mut found, mut at) = (Boundary::default(), Vec::new(), 0);
            for piece in bytes.chunks(cut) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let taken = boundary.take(rest);
                    (at, rest) = (at + taken, &rest[taken..]);
                    if boundary.is_between() {
                        found.push(at);
                    }
                }
            }
            proptest::prop_assert_eq!(found, ends);
        }
    }
}
