//! Parses the head of a backend's answer and writes it for the client. Pure.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::time::Duration;

use httparse::{Header, Status};
use smallvec::SmallVec;

use crate::auth::jwt::place;
use crate::front::base_path::{cookie_below, location_below};
use crate::front::headers::table::AnswerHeader;
use crate::front::headers::{kept_by_one, pair_of, write_timing};
use crate::front::own_cookies::is_own;
use crate::server::framing::{Chunks, Framing, length_of};
use crate::server::write::{copy_header, write_date, write_header, write_length, write_status};

/// More than aiohttp sends with all middlewares of the known node packs.
const HEADERS_MAX: usize = 100;

/// The headers that we add to an answer.
#[derive(Clone, Copy, Debug)]
pub struct OwnHeaders<'a> {
    /// Which backend answered, and why that one (V1).
    pub backend: &'a [u8],
    pub placement: &'a str,
    /// The base path without a slash at its end. It is added to the paths of a backend.
    pub base: &'a str,
    /// The answer is private to a caller with a key. Shared caches must not store it.
    pub is_for_one: bool,
    /// The cookie that may hold a token. Only who issues tokens sets it.
    pub token_cookie: Option<&'a str>,
    /// How long it took here, and at the backend.
    pub own: Duration,
    pub at_backend: Duration,
    /// The connection to the client ends after this answer.
    pub closes: bool,
}

impl OwnHeaders<'_> {
    fn is_token(&self, pair: &[u8]) -> bool {
        self.token_cookie.is_some_and(|name| place::is_it(pair, name))
    }
}

/// A head that was passed on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Passed {
    /// Its size in bytes.
    pub bytes: usize,
    pub status: u16,
    pub body: Framing,
    /// The length of the body, if the head gives it.
    pub length: Option<u64>,
    /// The backend's connection can be used again after the body.
    pub is_kept: bool,
    /// The client's connection cannot be used again: its end is the end of the body.
    pub closes_client: bool,
}

/// The data is not the head of an answer to the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the backend's answer is not HTTP/1.1")]
pub struct BadAnswer;

/// Writes the head at the beginning of `read` in the form for the client. `None` if it is not
/// complete yet. Interim answers (RFC 9110 section 15.2) are skipped; their bytes are included in
/// the size.
///
/// # Errors
/// It is not a head, or it does not say where its body ends.
pub fn pass_on(
    read: &[u8],
    is_head: bool,
    ours: &OwnHeaders<'_>,
    out: &mut Vec<u8>,
) -> Result<Option<Passed>, BadAnswer> {
    let mut before = 0;
    loop {
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut answer = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut answer,
            &read[before..],
            &mut headers,
        );
        let Status::Complete(bytes) = parsed.map_err(|_| BadAnswer)? else { return Ok(None) };
        match answer.code {
            Some(100..=199) if answer.code != Some(101) => before += bytes,
            Some(status @ 200..=999) => {
                let said = HeadFacts::of(answer.headers, is_head, status)?;
                write(read, &answer, &said, ours, out);
                let is_kept = said.is_kept && answer.version == Some(1);
                return Ok(Some(Passed {
                    bytes: before + bytes,
                    status,
                    body: said.body,
                    length: said.body.length(),
                    is_kept,
                    closes_client: said.body == Framing::UntilClose,
                }));
            }
            Some(_) | None => return Err(BadAnswer),
        }
    }
}

/// What the headers say about the answer.
#[derive(Debug)]
struct HeadFacts<'a> {
    /// What happens to each header, in order.
    kinds: SmallVec<[AnswerHeader; 24]>,
    body: Framing,
    length: Option<u64>,
    is_chunked: bool,
    is_kept: bool,
    has_date: bool,
    /// The values of `Connection` that name headers of this hop.
    named: SmallVec<[&'a [u8]; 1]>,
}

impl<'a> HeadFacts<'a> {
    fn of(headers: &[Header<'a>], is_head: bool, status: u16) -> Result<Self, BadAnswer> {
        let body = Framing::UntilClose;
        let (mut length, mut codings, mut named) = (None, None, SmallVec::new());
        let (mut is_kept, mut has_date) = (true, false);
        let kinds: SmallVec<_> = headers.iter().map(|it| AnswerHeader::of(it.name)).collect();
        for (header, kind) in headers.iter().zip(&kinds) {
            match kind {
                AnswerHeader::PassedOn
                | AnswerHeader::EndsHere
                | AnswerHeader::Location
                | AnswerHeader::SetCookie => {}
                AnswerHeader::Date => has_date = true,
                AnswerHeader::Connection if header.value.eq_ignore_ascii_case(b"keep-alive") => {}
                AnswerHeader::Connection => {
                    is_kept = false;
                    if !header.value.eq_ignore_ascii_case(b"close") {
                        named.push(header.value);
                    }
                }
                AnswerHeader::ContentLength => {
                    let said = length_of(header.value).ok_or(BadAnswer)?;
                    if *length.get_or_insert(said) != said {
                        return Err(BadAnswer);
                    }
                }
                AnswerHeader::TransferEncoding if codings.is_none() => codings = Some(header.value),
                AnswerHeader::TransferEncoding => return Err(BadAnswer),
            }
        }
        let is_chunked = match codings {
            Some(codings) if codings.eq_ignore_ascii_case(b"chunked") => true,
            // No other coding was requested.
            Some(_) => return Err(BadAnswer),
            None => false,
        };
        let mut said = Self { kinds, body, length, is_chunked, is_kept, has_date, named };
        said.body = said.framing(is_head, status);
        Ok(said)
    }

    /// Finds the end of the body (RFC 9112 section 6.3).
    fn framing(&self, is_head: bool, status: u16) -> Framing {
        match (self.is_chunked, self.length) {
            _ if is_head || status == 204 || status == 304 => Framing::Over,
            (true, _) => Framing::Chunked(Chunks::default()),
            (false, Some(length)) => Framing::of_length(length),
            (false, None) => Framing::UntilClose,
        }
    }

    /// True for a header that `Connection` names (RFC 9110 section 7.6.1).
    fn is_named(&self, name: &str) -> bool {
        let parts = self.named.iter().flat_map(|named| named.split(|byte| *byte == b','));
        parts.into_iter().any(|part| part.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    }
}

fn write(
    read: &[u8],
    answer: &httparse::Response<'_, '_>,
    said: &HeadFacts<'_>,
    ours: &OwnHeaders<'_>,
    out: &mut Vec<u8>,
) {
    write_status(answer.code.unwrap_or(0), answer.reason.unwrap_or(""), out);
    let mut says_who_keeps = !ours.is_for_one;
    for (header, kind) in answer.headers.iter().zip(&said.kinds) {
        let value = match kind {
            AnswerHeader::PassedOn if ours.is_for_one && is_caching(header.name) => {
                says_who_keeps |= !said.is_named(header.name);
                kept_by_one(header.value)
            }
            AnswerHeader::PassedOn | AnswerHeader::Date => Cow::Borrowed(header.value),
            AnswerHeader::Location => location_below(ours.base, header.value),
            // A backend must not set our own cookies.
            AnswerHeader::SetCookie if is_own(pair_of(header.value)) => continue,
            AnswerHeader::SetCookie if ours.is_token(pair_of(header.value)) => continue,
            AnswerHeader::SetCookie => cookie_below(ours.base, header.value),
            // We write the framing ourselves, once, whatever lines the backend sent.
            AnswerHeader::ContentLength | AnswerHeader::TransferEncoding => continue,
            AnswerHeader::EndsHere | AnswerHeader::Connection => continue,
        };
        if !said.is_named(header.name) {
            copy_header(read, header.name, &value, out);
        }
    }
    if !says_who_keeps {
        out.extend_from_slice(b"cache-control: private\r\n");
    }
    write_framing(said, answer.code == Some(204), out);
    if !said.has_date {
        write_date(out);
    }
    if ours.closes || said.body == Framing::UntilClose {
        out.extend_from_slice(b"connection: close\r\n");
    }
    write_ours(ours, out);
}

fn is_caching(name: &str) -> bool {
    name.eq_ignore_ascii_case("cache-control")
}

/// Writes one line that says where the body ends, or none. A 204 has no such line (RFC 9110 section
/// 8.6, RFC 9112 section 6.1). A length beside chunks could make another reader find another end.
fn write_framing(said: &HeadFacts<'_>, is_bare: bool, out: &mut Vec<u8>) {
    match said.length {
        _ if is_bare => {}
        _ if said.is_chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Some(length) => write_length(length, out),
        None => {}
    }
}

/// Writes what `front::headers::mark` and `front::headers::time` add, and the end of the head.
fn write_ours(ours: &OwnHeaders<'_>, out: &mut Vec<u8>) {
    write_header("mooring-backend", ours.backend, out);
    write_header("mooring-placement", ours.placement.as_bytes(), out);
    out.extend_from_slice(b"server-timing: ");
    write_timing(ours.own, ours.at_backend, out);
    out.extend_from_slice(b"\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: OwnHeaders<'static> = OwnHeaders {
        backend: b"gpu-a",
        placement: "bound",
        base: "",
        is_for_one: false,
        token_cookie: None,
        own: Duration::from_micros(45),
        at_backend: Duration::from_micros(12_003),
        closes: false,
    };

    const MARKS: &str = "mooring-backend: gpu-a\r\nmooring-placement: bound\r\n\
        server-timing: mooring;dur=0.045, backend;dur=12.003\r\n\r\n";

    fn passed(answer: &str, is_head: bool) -> (String, Result<Option<Passed>, BadAnswer>) {
        let mut out = Vec::new();
        let passed = pass_on(answer.as_bytes(), is_head, &OURS, &mut out);
        (String::from_utf8(out).unwrap(), passed)
    }

    #[track_caller]
    fn framed(answer: &str) -> Framing {
        passed(answer, false).1.unwrap().unwrap().body
    }

    #[test]
    fn what_is_for_one_says_that_no_shared_cache_keeps_it() {
        let written = |line: &str| {
            let answer = format!("HTTP/1.1 200 OK\r\n{line}Content-Length: 0\r\n\r\n");
            let ours = OwnHeaders { is_for_one: true, ..OURS };
            let mut out = Vec::new();
            pass_on(answer.as_bytes(), false, &ours, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap().to_lowercase();
            text.lines().filter(|it| it.starts_with("cache-control")).collect::<Vec<_>>().join(" ")
        };
        for (line, expected) in [
            ("", "cache-control: private"),
            ("Cache-Control: public, max-age=5\r\n", "cache-control: private, max-age=5"),
            ("Cache-Control: no-store\r\n", "cache-control: no-store"),
            ("Connection: cache-control\r\nCache-Control: public\r\n", "cache-control: private"),
        ] {
            assert_eq!(written(line), expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_of_this_hop_is_copied_as_it_came() {
        let answer = "HTTP/1.1 200 Fine so\r\nDate: now\r\nX-Mixed: A b\r\nKeep-Alive: 5\r\n\
            Connection: keep-alive\r\nContent-Length: 3\r\nMooring-Backend: forged\r\n\r\nabc";
        let (out, passed) = passed(answer, false);
        let expected = "HTTP/1.1 200 Fine so\r\nDate: now\r\nX-Mixed: A b\r\ncontent-length: 3\r\n";
        assert_eq!(out, format!("{expected}{MARKS}"));
        let passed = passed.unwrap().unwrap();
        assert_eq!((passed.bytes, passed.status), (answer.len() - 3, 200));
        assert_eq!((passed.body, passed.is_kept), (Framing::Length(3), true));
    }

    #[test]
    fn the_end_of_a_body_is_that_of_rfc_9112() {
        let chunked = Framing::Chunked(Chunks::default());
        assert_eq!(framed("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"), chunked);
        assert_eq!(framed("HTTP/1.1 200 OK\r\n\r\n"), Framing::UntilClose);
        assert_eq!(framed("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n"), Framing::Over);
        assert_eq!(framed("HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\n"), Framing::Over);
        let head = passed("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true);
        assert_eq!(head.1.unwrap().unwrap().body, Framing::Over);
        assert!(head.0.contains("content-length: 3"));
        for line in ["Content-Length: 3", "Transfer-Encoding: chunked"] {
            let bare = passed(&format!("HTTP/1.1 204 No\r\n{line}\r\n\r\n"), false).0;
            assert!(!bare.contains("ength") && !bare.contains("chunked"), "{bare}");
        }
    }

    #[test]
    fn chunks_go_over_a_length_and_the_length_is_left_out() {
        let both = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 3\r\n\
            Transfer-Encoding: chunked\r\n\r\n";
        let (out, passed) = passed(both, false);
        assert_eq!(
            out,
            format!("HTTP/1.1 200 OK\r\nDate: x\r\ntransfer-encoding: chunked\r\n{MARKS}")
        );
        assert_eq!(passed.unwrap().unwrap().body, Framing::Chunked(Chunks::default()));
    }

    #[test]
    fn an_answer_that_ends_with_its_connection_ends_the_clients_too() {
        let (out, passed) = passed("HTTP/1.1 200 OK\r\n\r\n", false);
        assert!(out.contains("\r\nconnection: close\r\n"), "{out}");
        assert!(out.contains("\r\ndate: "), "{out}");
        assert!(passed.unwrap().unwrap().closes_client);
    }

    #[test]
    fn what_a_backend_says_of_paths_is_put_below_the_base_path() {
        let answer = "HTTP/1.1 302 Found\r\nDate: x\r\nLocation: /login\r\nContent-Length: 0\r\n\
            Set-Cookie: a=1; Path=/\r\nSet-Cookie: mooring=1; Path=/\r\n\r\n";
        let told = |base| {
            let mut out = Vec::new();
            let ours = OwnHeaders { base, ..OURS };
            pass_on(answer.as_bytes(), false, &ours, &mut out).unwrap().unwrap();
            String::from_utf8(out).unwrap()
        };
        let below = told("/comfy");
        assert!(below.contains("\r\nLocation: /comfy/login\r\n"), "{below}");
        assert!(below.contains("\r\nSet-Cookie: a=1; Path=/comfy/\r\n"), "{below}");
        assert!(!below.contains("mooring=1"), "{below}");
        let plain = told("");
        assert!(plain.contains("\r\nLocation: /login\r\n") && plain.contains("a=1; Path=/\r\n"));
    }

    #[test]
    fn what_connection_names_ends_here_too() {
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Secret: 1\r\n\
            Connection: close, X-Secret\r\nDate: x\r\n\r\n";
        let (out, passed) = passed(answer, false);
        assert_eq!(out, format!("HTTP/1.1 200 OK\r\nDate: x\r\ncontent-length: 0\r\n{MARKS}"));
        assert!(!passed.unwrap().unwrap().is_kept);
    }

    #[test]
    fn a_length_is_said_once_whatever_the_backend_said_of_it() {
        for lines in [
            "Connection: content-length\r\nContent-Length: 3",
            "Content-Length: 3\r\ncontent-length: 3",
        ] {
            let (out, passed) = passed(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nabc"), false);
            assert_eq!(out.matches("content-length: 3\r\n").count(), 1, "{out}");
            assert!(!out.contains("Content-Length"), "{out}");
            assert_eq!(passed.unwrap().unwrap().body, Framing::Length(3));
        }
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let early = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
        assert_eq!(passed(early, false).1, Ok(None));
        let answer = format!("{early}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(passed(&answer, false).1.unwrap().unwrap().bytes, answer.len());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for answer in [
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
            "SSH-2.0\r\n\r\n",
        ] {
            assert_eq!(passed(answer, false).1, Err(BadAnswer), "{answer:?}");
        }
        assert_eq!(passed("HTTP/1.1 200 OK\r\nContent-Le", false).1, Ok(None));
        let old = passed("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false).1;
        assert!(!old.unwrap().unwrap().is_kept);
    }
}
