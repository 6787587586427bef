//! Decides whether a request may be answered, and finds its end. Pure.
//!
//! Every head is checked here, except those of plain reads that are passed through. Those are
//! checked against a list of what is known, and everything that is in doubt comes here. A request
//! that RFC 9110 or RFC 9112 does not allow is refused here: the HTTP library tolerates some of
//! them, and no backend must see them.

use httparse::{Error, Header, Request, Status};

use super::authority;
use super::framing::{Chunks, Framing, is_of_token, length_of};
use super::refusal::Refusal;

/// The longest header and the longest target, in bytes: the limits of aiohttp (`max_field_size` and
/// `max_line_size`). The backend would refuse a longer one with a less clear error.
pub const LINE_MAX: usize = 8190;

/// Longer than every registered method.
const METHOD_MAX: usize = 32;

/// The only expectation that exists (RFC 9110 section 10.1.1).
const CONTINUE: &[u8] = b"100-continue";

/// A request, as its head describes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message {
    /// The size of its head in bytes.
    pub head: usize,
    pub body: Framing,
    pub becomes: Becomes,
}

/// What the connection becomes after the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Becomes {
    /// It stays HTTP: further requests may follow if both sides want that.
    Http,
    /// It may become a WebSocket: the client asks for it (RFC 6455 section 4.1).
    Socket,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Head {
    /// The beginning of a head.
    Partial,
    Whole(Message),
    Refused(Refusal),
}

/// Reads a head of at most `bytes_max` bytes and `headers_max` headers.
#[must_use]
pub fn read(read: &[u8], bytes_max: usize, headers_max: usize) -> Head {
    let mut headers: Vec<Header<'_>> = Vec::with_capacity(headers_max);
    let mut request = Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(read, headers.spare_capacity_mut());
    let judged = match parsed {
        Ok(Status::Complete(bytes)) if bytes <= bytes_max => judge(&request, bytes),
        Ok(Status::Partial) if read.len() < bytes_max => return Head::Partial,
        Ok(Status::Complete(_) | Status::Partial) => Err(too_large(read, bytes_max)),
        Err(Error::TooManyHeaders) => Err(Refusal::TooManyHeaders { max: headers_max }),
        // The version can only be checked when the whole line is there.
        Err(Error::Version) if !has_whole_line(read) && read.len() < bytes_max => {
            return Head::Partial;
        }
        Err(error) => Err(malformed(read, error)),
    };
    judged.map_or_else(Head::Refused, Head::Whole)
}

/// Says which part of the head is too long.
fn too_large(read: &[u8], max: usize) -> Refusal {
    let line = first_line(read);
    let method = line.iter().position(|byte| !is_of_token(*byte)).unwrap_or(line.len());
    if METHOD_MAX < method {
        return Refusal::UnknownMethod;
    }
    if line.len() == read.len() || LINE_MAX < line.len() {
        return Refusal::TargetTooLong { max: LINE_MAX.min(max) };
    }
    Refusal::HeadTooLarge { max }
}

fn malformed(read: &[u8], error: Error) -> Refusal {
    match error {
        Error::HeaderName => Refusal::Malformed("a header's name"),
        Error::HeaderValue => Refusal::Malformed("a header's value"),
        Error::NewLine => Refusal::Malformed("a line's end"),
        Error::Version if is_version(first_line(read)) => Refusal::BadVersion,
        Error::Version => Refusal::Malformed("its version"),
        Error::Token | Error::Status => Refusal::Malformed("its first line"),
        Error::TooManyHeaders => Refusal::Malformed("its headers"),
    }
}

fn has_whole_line(read: &[u8]) -> bool {
    let is_end = |byte: &u8| b"\r\n".contains(byte);
    read.iter().skip_while(|byte| is_end(byte)).any(is_end)
}

fn first_line(read: &[u8]) -> &[u8] {
    let begin = read.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(read.len());
    let line = &read[begin..];
    let end = line.iter().position(|byte| b"\r\n".contains(byte)).unwrap_or(line.len());
    &line[..end]
}

/// True for a method, a target and a version of HTTP (RFC 9112 section 3).
fn is_version(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let (version, more) = (words.next().unwrap_or_default(), words.next());
    more.is_none()
        && matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn judge(request: &Request<'_, '_>, head: usize) -> Result<Message, Refusal> {
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Refusal::Malformed("its first line"));
    };
    check_method(method)?;
    if LINE_MAX < target.len() {
        return Err(Refusal::TargetTooLong { max: LINE_MAX });
    }
    let mut said = FramingFields::default();
    for header in request.headers.iter() {
        said.note(header)?;
    }
    let host = said.host(minor)?;
    check_target(method, target, host)?;
    let body = said.body(minor)?;
    if said.expects_more {
        return Err(Refusal::UnknownExpectation);
    }
    let is_socket = said.names_websocket && said.is_for_upgrade;
    if is_socket && !body.is_over() {
        // After the switch, the bytes of the body would be read as frames (RFC 9110 section 7.8).
        return Err(Refusal::Malformed("a body before a socket"));
    }
    let is_heeded = is_socket && method == "GET" && minor == 1;
    let becomes = if is_heeded { Becomes::Socket } else { Becomes::Http };
    Ok(Message { head, body, becomes })
}

/// `CONNECT` is for forward proxies, and `TRACE` shows what a proxy in front has added (RFC 9110
/// sections 9.3.6 and 9.3.8). Methods are case-sensitive (section 9.1), but some servers ignore the
/// case: aiohttp's parser in Python takes `get` for `GET` (`http_parser.py`, 3.14). The backend
/// would then see another request than the one that was checked here.
fn check_method(method: &str) -> Result<(), Refusal> {
    if METHOD_MAX < method.len() {
        return Err(Refusal::UnknownMethod);
    }
    let is_misspelt = method.bytes().any(|byte| byte.is_ascii_lowercase());
    if is_misspelt || matches!(method, "CONNECT" | "TRACE") {
        return Err(Refusal::BadMethod);
    }
    Ok(())
}

/// Checks the target (RFC 9112 section 3.2). A fragment is not allowed.
fn check_target(method: &str, target: &str, host: Option<&str>) -> Result<(), Refusal> {
    let bad = Err(Refusal::Malformed("its target"));
    if target == "*" {
        return if method == "OPTIONS" { Ok(()) } else { bad };
    }
    if target.contains('#') || target.parse::<http::Uri>().is_err() {
        return bad;
    }
    if target.starts_with('/') {
        return Ok(());
    }
    let Some((named, port)) = authority::of_absolute(target) else { return bad };
    if !authority::is_valid(named.as_bytes()) {
        return bad;
    }
    match host {
        // Both must name the server that the client connected to (section 3.2.2).
        Some(host) if !authority::is_same(named, host, port) => {
            Err(Refusal::Malformed("its target is not on its host"))
        }
        Some(_) | None => Ok(()),
    }
}

/// What the headers say about the message.
#[derive(Debug, Default)]
struct FramingFields<'a> {
    hosts: usize,
    host: &'a [u8],
    lengths: usize,
    length: Option<u64>,
    codings: Codings,
    expects_more: bool,
    names_websocket: bool,
    is_for_upgrade: bool,
}

/// What `Transfer-Encoding` says (RFC 9112 section 6.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Codings {
    #[default]
    None,
    Chunked,
    /// A coding other than `chunked`. `chunked` may still follow.
    Open,
    /// Other codings, and then `chunked`.
    More,
    /// Not a list of codings, or something follows `chunked`.
    Bad,
}

impl Codings {
    fn then(self, coding: &[u8]) -> Self {
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        match self {
            Self::None | Self::Open if coding.is_empty() => Self::Bad,
            Self::None if is_chunked => Self::Chunked,
            Self::Open if is_chunked => Self::More,
            Self::None | Self::Open => Self::Open,
            Self::Chunked | Self::More | Self::Bad => Self::Bad,
        }
    }
}

impl<'a> FramingFields<'a> {
    fn note(&mut self, header: &Header<'a>) -> Result<(), Refusal> {
        let (name, value) = (header.name, header.value);
        if LINE_MAX < name.len().max(value.len()) {
            return Err(Refusal::HeaderTooLong { max: LINE_MAX });
        }
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let has = |token: &[u8]| parts(value).any(|part| part.eq_ignore_ascii_case(token));
        match name.len() {
            4 if is("host") => {
                self.hosts += 1;
                self.host = value;
            }
            6 if is("expect") => {
                self.expects_more |=
                    parts(value).any(|it| !it.is_empty() && !it.eq_ignore_ascii_case(CONTINUE));
            }
            7 if is("upgrade") => self.names_websocket |= has(b"websocket"),
            10 if is("connection") => self.is_for_upgrade |= has(b"upgrade"),
            14 if is("content-length") => {
                self.lengths += 1;
                self.length = length_of(value);
            }
            17 if is("transfer-encoding") => {
                self.codings = parts(value).fold(self.codings, Codings::then);
            }
            _ => {}
        }
        Ok(())
    }

    /// The value of `Host` (RFC 9112 section 3.2). There must be exactly one; HTTP/1.0 may have
    /// none.
    fn host(&self, minor: u8) -> Result<Option<&'a str>, Refusal> {
        match self.hosts {
            0 if minor == 0 => Ok(None),
            0 => Err(Refusal::Malformed("it has no Host")),
            1 if authority::is_valid(self.host) => Ok(std::str::from_utf8(self.host).ok()),
            1 => Err(Refusal::Malformed("its Host")),
            _ => Err(Refusal::Malformed("it has more than one Host")),
        }
    }

    /// The framing of the body (RFC 9112 sections 6.1 to 6.3).
    fn body(&self, minor: u8) -> Result<Framing, Refusal> {
        match (self.codings, self.lengths) {
            (Codings::None, 0) => Ok(Framing::Over),
            (Codings::None, 1) => {
                // A length that no message can have is treated as malformed.
                let length = self.length.filter(|length| i64::try_from(*length).is_ok());
                length.map(Framing::of_length).ok_or(Refusal::Malformed("its Content-Length"))
            }
            (Codings::None, _) => Err(Refusal::Malformed("it has more than one Content-Length")),
            (_, 1..) => Err(Refusal::Malformed("it has a length and chunks")),
            (_, 0) if minor == 0 => Err(Refusal::Malformed("chunks in HTTP/1.0")),
            (Codings::Chunked, 0) => Ok(Framing::Chunked(Chunks::of_request())),
            (Codings::More, 0) => Err(Refusal::UnknownTransferCoding),
            (Codings::Open | Codings::Bad, 0) => Err(Refusal::Malformed("its Transfer-Encoding")),
        }
    }
}

/// The elements of a list (RFC 9110 section 5.6.1).
fn parts(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 16 << 10;

    #[track_caller]
    fn whole(head: &str) -> Message {
        match read(head.as_bytes(), MAX, 128) {
            Head::Whole(message) => {
                assert_eq!(message.head, head.len());
                message
            }
            other @ (Head::Partial | Head::Refused(_)) => panic!("{head:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn status(head: &str) -> u16 {
        match read(head.as_bytes(), MAX, 128) {
            Head::Refused(refusal) => refusal.status().as_u16(),
            other @ (Head::Partial | Head::Whole(_)) => panic!("{head:?}: {other:?}"),
        }
    }

    #[test]
    fn a_message_ends_where_its_head_says() {
        let body =
            |lines: &str| whole(&format!("POST /x HTTP/1.1\r\nHost: gw\r\n{lines}\r\n")).body;
        assert_eq!(body(""), Framing::Over);
        assert_eq!(body("Content-Length: 0\r\n"), Framing::Over);
        assert_eq!(body("content-length: 007\r\n"), Framing::Length(7));
        let chunks = Framing::Chunked(Chunks::of_request());
        assert_eq!(body("Transfer-Encoding: Chunked\r\n"), chunks);
        assert_eq!(body("Expect: 100-Continue\r\nContent-Length: 7\r\n"), Framing::Length(7));
    }

    #[test]
    fn a_socket_is_asked_for_by_name_and_for_this_connection() {
        let asked = "GET /ws HTTP/1.1\r\nHost: gw\r\n";
        let becomes = |lines: &str| whole(&format!("{asked}{lines}\r\n")).becomes;
        let both = "Upgrade: h2c, WebSocket\r\nConnection: keep-alive, Upgrade\r\n";
        assert_eq!(becomes(both), Becomes::Socket);
        assert_eq!(becomes("Upgrade: websocket\r\n"), Becomes::Http);
        // Java's client asks like this, with or without a body. It continues without the upgrade.
        let offered = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n";
        assert_eq!(becomes(&format!("{offered}Content-Length: 2\r\n")), Becomes::Http);
        assert_eq!(status(&format!("{asked}{both}Content-Length: 2\r\n\r\n")), 400);
        assert_eq!(becomes(&format!("{both}Content-Length: 0\r\n")), Becomes::Socket);
        let old = "GET /ws HTTP/1.0\r\nHost: gw\r\n";
        assert_eq!(whole(&format!("{old}{both}\r\n")).becomes, Becomes::Http);
    }

    #[test]
    fn what_clients_send_is_taken() {
        for head in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: gw\r\n\r\n",
            "GET http://gw/x?y HTTP/1.1\r\nHost: GW:80\r\n\r\n",
            "GET http://gw HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: gw\r\n\r\n",
            "PROPFIND /x HTTP/1.1\r\nHost: gw\r\n\r\n",
            "GET //x/../y?a=b&c=[1]%20 HTTP/1.1\r\nHost: [::1]:8180\r\n\r\n",
            "GET /view?filename=\u{e9}.png HTTP/1.1\r\nHost: gw\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: gw\r\n\r\n",
            "GET / HTTP/1.1\nHost: gw\n\n",
            "GET / HTTP/1.1\r\nHost: gw\r\nX-Name: \u{e9}\r\nX-Empty:\r\nExpect:\r\n\r\n",
        ] {
            whole(head);
        }
    }

    #[test]
    fn a_head_is_waited_for_until_it_is_too_large() {
        assert_eq!(read(b"GET /x HTT", MAX, 128), Head::Partial);
        let begun = "GET /x HTTP/1.1\r\nHost: gw\r\n";
        assert_eq!(read(begun.as_bytes(), begun.len() + 1, 128), Head::Partial);
        let long = format!("{begun}x: {}\r\ny: {}", "x".repeat(8000), "y".repeat(8400));
        assert_eq!(status(&long), 431);
        assert_eq!(status(&format!("{begun}x: {}\r\n\r\n", "x".repeat(LINE_MAX + 1))), 431);
        assert_eq!(status(&format!("{begun}{}\r\n", "a: b\r\n".repeat(128))), 431);
        let first = |line: &str| status(&format!("{line} HTTP/1.1\r\nHost: gw\r\n\r\n"));
        assert_eq!(status(&format!("GET /{}", "x".repeat(MAX))), 414);
        assert_eq!(first(&format!("GET /{}", "x".repeat(9000))), 414);
        assert_eq!(status(&"X".repeat(MAX)), 501);
        assert_eq!(first(&format!("{} /", "X".repeat(99))), 501);
    }

    #[test]
    fn a_body_in_doubt_is_refused() {
        for (lines, expected) in [
            ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
            ("Transfer-Encoding: chunked, chunked\r\n", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Transfer-Encoding: chunked, gzip\r\n", 400),
            ("Transfer-Encoding: gzip\r\n", 400),
            ("Transfer-Encoding: ,chunked\r\n", 400),
            ("Transfer-Encoding:\r\n", 400),
            ("Transfer-Encoding: gzip, chunked\r\n", 501),
            ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 501),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
            ("Content-Length: 1, 1\r\n", 400),
            ("Content-Length: +1\r\n", 400),
            ("Content-Length: -1\r\n", 400),
            ("Content-Length: 0x1\r\n", 400),
            ("Content-Length: 1.0\r\n", 400),
            ("Content-Length:\r\n", 400),
            ("Content-Length: 9223372036854775808\r\n", 400),
            ("Content-Length: 99999999999999999999\r\n", 400),
            ("Expect: 200-ok\r\n", 417),
        ] {
            let head = format!("POST /x HTTP/1.1\r\nHost: gw\r\n{lines}\r\n");
            assert_eq!(status(&head), expected, "{lines}");
        }
        assert_eq!(status("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    }

    /// First lines that are not allowed, and the status of their refusal.
    const FIRST_LINES: &[(&str, u16)] = &[
        ("GET * HTTP/1.1", 400),
        ("GET x HTTP/1.1", 400),
        ("GET gw:80 HTTP/1.1", 400),
        ("GET /x#y HTTP/1.1", 400),
        ("GET http:///x HTTP/1.1", 400),
        ("GET http://user@gw/x HTTP/1.1", 400),
        ("GET http://evil/x HTTP/1.1", 400),
        ("GET ftp://gw/x HTTP/1.1", 400),
        ("GET /x HTTP/2.0", 505),
        ("GET /x HTTP/1.2", 505),
        ("GET /x HTTP/11", 400),
        ("GET /x http/1.1", 400),
        ("GET /x", 400),
        ("GET  /x HTTP/1.1", 400),
        ("GET /x y HTTP/1.1", 400),
        (" GET /x HTTP/1.1", 400),
        ("G\u{e9}T /x HTTP/1.1", 400),
        ("get /x HTTP/1.1", 405),
        ("CONNECT gw:80 HTTP/1.1", 405),
        ("TRACE /x HTTP/1.1", 405),
    ];

    #[test]
    fn first_lines_that_mean_nothing_here_are_refused() {
        for (line, expected) in FIRST_LINES {
            assert_eq!(status(&format!("{line}\r\nHost: gw\r\n\r\n")), *expected, "{line}");
        }
        assert_eq!(status("\x16\x03\x01"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: gw\r\nHost: gw\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.0\r\nHost: gw/x\r\n\r\n"), 400);
    }

    #[test]
    fn a_refusal_is_the_same_wherever_the_head_is_cut() {
        for (line, expected) in FIRST_LINES {
            let head = format!("{line}\r\nHost: gw\r\n\r\n");
            for cut in 1..head.len() {
                match read(&head.as_bytes()[..cut], MAX, 128) {
                    Head::Partial => {}
                    Head::Refused(refusal) => {
                        assert_eq!(refusal.status().as_u16(), *expected, "{line} cut at {cut}");
                    }
                    Head::Whole(message) => panic!("{line} cut at {cut}: {message:?}"),
                }
            }
        }
    }
}
