//! Heads of HTTP/1.1 messages, read by the letter of RFC 9112 and not by the parser of the gateway.

/// A head: its first line, its fields, and how many bytes it has.
#[derive(Debug, Eq, PartialEq)]
pub struct Head<'a> {
    pub first: &'a [u8],
    pub fields: Vec<(&'a [u8], &'a [u8])>,
    pub bytes: usize,
}

impl<'a> Head<'a> {
    /// Reads one from the front of `bytes`. A line may end in a bare line feed, and empty lines may
    /// stand before the first (sections 2.2 and 2.2.3). `None` if it is not whole.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut at = 0;
        let mut lines = Vec::new();
        loop {
            let end = at + bytes.get(at..)?.iter().position(|byte| *byte == b'\n')?;
            let line = &bytes[at..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            at = end + 1;
            match (line.is_empty(), lines.is_empty()) {
                (true, true) => {}
                (true, false) => break,
                (false, _) => lines.push(line),
            }
        }
        let (first, rest) = lines.split_first()?;
        let field = |line: &&'a [u8]| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            (&line[..colon], trimmed(line.get(colon + 1..).unwrap_or(&[])))
        };
        Some(Self { first, fields: rest.iter().map(field).collect(), bytes: at })
    }

    pub fn all(&self, name: &str) -> Vec<&'a [u8]> {
        let of_name = self.fields.iter().filter(|(it, _)| is(it, name));
        of_name.map(|(_, value)| *value).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }
}

pub fn is(name: &[u8], other: &str) -> bool {
    name.eq_ignore_ascii_case(other.as_bytes())
}

fn trimmed(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(start, |at| at + 1);
    &value[start..end]
}

/// The headers that are for one hop only (RFC 9110 section 7.6.1), and two that old clients send.
pub fn is_of_one_hop(name: &[u8]) -> bool {
    const NAMES: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|it| is(name, it))
}

/// Of what is written here, by the letter: lines end in CR LF and have no control character but
/// the tab, names are tokens (RFC 9110 section 5.6.2), and the head ends with what was written.
#[track_caller]
pub fn assert_strict(written: &[u8]) {
    let inner = written.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
    let text = |byte: &u8| *byte == b'\t' || (0x20..0x7f).contains(byte) || 0x80 <= *byte;
    for (index, line) in inner.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(!line.is_empty() && line.iter().all(text), "line {index}: {line:?}");
        if index != 0 {
            let colon = line.iter().position(|byte| *byte == b':').expect("a field has a colon");
            assert!(0 < colon && line[..colon].iter().all(is_token), "line {index}: {line:?}");
        }
    }
    let feeds = inner.iter().filter(|byte| **byte == b'\n').count();
    let breaks = inner.windows(2).filter(|pair| pair == b"\r\n").count();
    let returns = inner.iter().filter(|byte| **byte == b'\r').count();
    assert_eq!((feeds, returns), (breaks, breaks), "line breaks are CR LF");
}

fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// The number that a `Content-Length` is; digits only (RFC 9110 section 8.6).
pub fn length(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()
}
