//! Finds the end of a body (RFC 9112 section 6.3).
//!
//! Every byte that determines a length must be exactly as the RFC says. The leniency that the RFC
//! allows is not used: if one reader accepts a malformed length, the next reader may see another
//! end of the message. The bytes of an answer are passed on unchanged, including chunk headers and
//! trailers. Those of a request are read again by the HTTP library. The contents of extensions and
//! trailers are ignored, but they must be well-formed.

/// The maximum of bytes of all chunk extensions and trailers of one body.
const EXTRA_MAX: usize = 16 << 10;

/// The value of a `Content-Length` (RFC 9110 section 8.6). Only digits are allowed; `parse` alone
/// would accept a sign.
#[must_use]
pub fn length_of(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

/// How much of a body is still to come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// Nothing more.
    Over,
    Length(u64),
    Chunked(Chunks),
    /// Everything until the connection ends.
    UntilClose,
}

/// A chunk is not framed as the RFC requires.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a chunk is malformed")]
pub struct BadChunk;

impl Framing {
    /// A body with a given number of bytes.
    #[must_use]
    pub fn of_length(bytes: u64) -> Self {
        if bytes == 0 { Self::Over } else { Self::Length(bytes) }
    }

    /// How many of `bytes` belong to the body.
    ///
    /// # Errors
    /// Its chunks are malformed.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let taken = match self {
            Self::Over => 0,
            Self::UntilClose => bytes.len(),
            Self::Length(left) => {
                let taken =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *self = Self::of_length(*left - taken as u64);
                taken
            }
            Self::Chunked(chunks) => {
                let taken = chunks.take(bytes)?;
                if chunks.at == At::End {
                    *self = Self::Over;
                }
                taken
            }
        };
        Ok(taken)
    }

    /// How many bytes are still to come, if that is known.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Over => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    #[must_use]
    pub fn is_over(&self) -> bool {
        *self == Self::Over
    }
}

/// Follows the frames of a chunked body (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunks {
    at: At,
    extra: usize,
    padding: Padding,
}

/// Whether blanks are allowed between the size of a chunk and the end of its line. Some old servers
/// pad all sizes to the same width. No client does this, and the grammar does not allow it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Padding {
    Allowed,
    Malformed,
}

/// The rules for an answer.
impl Default for Chunks {
    fn default() -> Self {
        Self { at: At::Size { value: 0, digits: 0 }, extra: 0, padding: Padding::Allowed }
    }
}

/// What must come next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    Size {
        value: u64,
        digits: u8,
    },
    /// Blanks after the size; only an extension may follow them.
    Blank {
        size: u64,
    },
    /// The rest of the line that gives the size of a chunk.
    Extension {
        size: u64,
    },
    /// The line feed after the size.
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    /// The line break after a chunk's data.
    DataCr,
    DataLf,
    /// A trailer or the empty line.
    Line,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastEnd,
    End,
}

impl Chunks {
    /// The rules for a request.
    #[must_use]
    pub fn of_request() -> Self {
        Self { padding: Padding::Malformed, ..Self::default() }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut taken = 0;
        while taken < bytes.len() && self.at != At::End {
            if let At::Data { left } = self.at {
                let rest = bytes.len() - taken;
                let count = usize::try_from(left).map_or(rest, |left| left.min(rest));
                taken += count;
                let left = left - count as u64;
                self.at = if left == 0 { At::DataCr } else { At::Data { left } };
            } else {
                self.at = self.step(bytes[taken])?;
                taken += 1;
            }
        }
        Ok(taken)
    }

    fn step(&mut self, byte: u8) -> Result<At, BadChunk> {
        match (self.at, byte) {
            (At::Size { value, digits }, _) if byte.is_ascii_hexdigit() && digits < 16 => {
                let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                Ok(At::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
            }
            (At::Size { value, digits: 1.. }, b'\r') => Ok(At::SizeEnd { size: value }),
            (At::Size { value, digits: 1.. }, b';') => Ok(At::Extension { size: value }),
            (At::Size { value, digits: 1.. }, b' ' | b'\t') => Ok(At::Blank { size: value }),
            (At::Blank { size }, b';') => Ok(At::Extension { size }),
            (At::Blank { size }, b'\r') if self.padding == Padding::Allowed => {
                Ok(At::SizeEnd { size })
            }
            (At::Extension { size }, b'\r') => Ok(At::SizeEnd { size }),
            (At::SizeEnd { size: 0 }, b'\n') => Ok(At::Line),
            (At::SizeEnd { size }, b'\n') => Ok(At::Data { left: size }),
            (At::DataCr, b'\r') => Ok(At::DataLf),
            (At::DataLf, b'\n') => Ok(At::Size { value: 0, digits: 0 }),
            (At::Line, b'\r') => Ok(At::LastEnd),
            (At::LastEnd, b'\n') => Ok(At::End),
            (At::TrailerName, b':') => self.count_extra(At::TrailerValue),
            (At::TrailerValue, b'\r') => Ok(At::TrailerEnd),
            (At::TrailerEnd, b'\n') => Ok(At::Line),
            (At::Blank { .. }, b' ' | b'\t') => self.count_extra(self.at),
            (At::Line | At::TrailerName, _) if is_of_token(byte) => {
                self.count_extra(At::TrailerName)
            }
            (At::Extension { .. } | At::TrailerValue, _) if is_of_value(byte) => {
                self.count_extra(self.at)
            }
            (_, _) => Err(BadChunk),
        }
    }

    fn count_extra(&mut self, goes_on: At) -> Result<At, BadChunk> {
        self.extra += 1;
        if self.extra <= EXTRA_MAX { Ok(goes_on) } else { Err(BadChunk) }
    }
}

/// True for the characters of names and methods (RFC 9110 section 5.6.2).
#[must_use]
pub fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// True for the characters of field values (RFC 9110 section 5.5).
fn is_of_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunked() -> Framing {
        Framing::Chunked(Chunks::default())
    }

    /// `body` is followed by something else.
    #[track_caller]
    fn ends(body: &str) {
        let all = format!("{body}HTTP/1.1");
        let mut framing = chunked();
        assert_eq!(framing.take(all.as_bytes()), Ok(body.len()), "{body:?}");
        assert!(framing.is_over());
    }

    #[test]
    fn a_chunked_body_ends_after_its_trailers() {
        ends("0\r\n\r\n");
        ends("5\r\nhello\r\n0\r\n\r\n");
        ends("00a;x=\"y\"\r\n0123456789\r\n0 ; last\r\nx-sum: 1\r\ny: 2\r\n\r\n");
        ends("1\r\n\r\r\n0\r\n\r\n");
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for body in [
            "\r\n",
            "g\r\n",
            "5\nhello",
            "5\r\nhello\n",
            "5\r\nhelloX",
            "-1\r\n",
            "0x5\r\n",
            ";x\r\n",
            "0\r\n\n",
            "0\r\nx\n",
            "5;\n",
            "5 junk\r\n",
            "5;a=\0\r\n",
            "5;a\rb\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\n: 1\r\n\r\n",
            "0\r\nx : 1\r\n\r\n",
            "0\r\nx: 1\r\n y\r\n\r\n",
            "0\r\nx: \u{7f}\r\n\r\n",
            "00000000000000000\r\n",
        ] {
            assert_eq!(chunked().take(body.as_bytes()), Err(BadChunk), "{body:?}");
        }
        let long = format!("0;{}", "x".repeat(EXTRA_MAX + 1));
        assert_eq!(chunked().take(long.as_bytes()), Err(BadChunk));
    }

    #[test]
    fn a_server_may_pad_its_sizes_and_a_client_may_not() {
        let body = b"2 \r\nok\r\n0\r\n\r\n";
        assert_eq!(chunked().take(body), Ok(body.len()));
        assert_eq!(Framing::Chunked(Chunks::of_request()).take(body), Err(BadChunk));
        let extended = b"2 ;x\r\nok\r\n0\r\n\r\n";
        assert_eq!(Framing::Chunked(Chunks::of_request()).take(extended), Ok(extended.len()));
    }

    #[test]
    fn a_length_ends_where_it_says() {
        let mut framing = Framing::of_length(3);
        assert_eq!(framing.take(b"ab"), Ok(2));
        assert!(!framing.is_over());
        assert_eq!(framing.take(b"cde"), Ok(1));
        assert!(framing.is_over());
        assert!(Framing::of_length(0).is_over());
        assert_eq!(Framing::UntilClose.take(b"abc"), Ok(3));
    }

    proptest! {
        /// However a body is cut, it ends at the same byte.
        #[test]
        fn cuts_do_not_matter(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in prop::collection::vec(1_usize..9, 1..200),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x};n=1\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\nt: 1\r\n\r\n");
            let length = body.len();
            body.extend_from_slice(b"HTTP/1.1 200 OK\r\n\r\n");
            let (mut framing, mut taken, mut rest) = (chunked(), 0, body.as_slice());
            let mut cuts = cuts.iter().cycle();
            while !framing.is_over() {
                let piece = &rest[..rest.len().min(*cuts.next().expect("endless"))];
                let count = framing.take(piece).expect("well-formed");
                taken += count;
                rest = &rest[count..];
            }
            prop_assert_eq!(taken, length);
        }
    }
}
