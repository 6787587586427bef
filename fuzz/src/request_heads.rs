//! Heads of requests: what is passed on as bytes, and what goes elsewhere.
//!
//! - Cut anywhere, a head is judged as when it is whole, or not yet.
//! - What is passed on is a read without a body, and an independent reader sees in what is sent
//!   what it saw in what came, but for what ends at this hop; nothing is sent that could be taken
//!   for a second line, and what is sent is passed on again as it is.
//! - Where a body ends is said as an independent reader says it, and nothing is passed on that the
//!   other way of answering refuses.
//! - No spelling of a path changes what is asked.

use http::Method;
use mooring::comfy::endpoint::classify;
use mooring::config::{BackendHeaders, BasePath};
use mooring::front::caller::Peer;
use mooring::front::passthrough::request::{HEAD_MAX, Parsed, Plain, parse};
use mooring::server::framing::Framing;
use mooring::server::message;

use super::cuts;
use super::head::{Head, assert_strict, is, is_of_one_hop, length};

const HEADERS_MAX: usize = 64;
const HOST: &[u8] = b"gpu:8188";

pub fn check(data: &[u8]) {
    let data = &data[..data.len().min(HEAD_MAX + 64)];
    let whole = parse(data, HEAD_MAX, HEADERS_MAX, &BasePath::default());
    check_cuts(data, &whole);
    match &whole {
        Parsed::Partial => {}
        Parsed::Plain(plain) => check_plain(data, plain),
        Parsed::Other => {}
    }
    check_message(data, &whole);
    if let Some(path) = path_in(data) {
        check_spellings(path);
    }
}

fn check_cuts(data: &[u8], whole: &Parsed<'_>) {
    let judged = format!("{whole:?}");
    for cut in cuts(data.len()) {
        let part = parse(&data[..cut], HEAD_MAX, HEADERS_MAX, &BasePath::default());
        let is_whole = matches!(whole, Parsed::Plain(plain) if plain.bytes <= cut);
        match part {
            Parsed::Partial => assert!(!is_whole, "{cut} bytes hold all of the head"),
            part @ (Parsed::Plain(_) | Parsed::Other) => {
                assert_eq!(format!("{part:?}"), judged, "cut after {cut} bytes");
            }
        }
    }
}

fn check_plain(data: &[u8], plain: &Plain<'_>) {
    let came = Head::read(data).expect("a head that is passed on is whole");
    assert_eq!(came.bytes, plain.bytes);
    assert!(plain.bytes <= HEAD_MAX && came.fields.len() <= HEADERS_MAX);
    for name in ["content-length", "transfer-encoding", "upgrade", "expect", "origin"] {
        assert!(!came.has(name), "a request with {name} is more than passed on");
    }
    for peer in [Peer::Stranger, Peer::Proxy] {
        let mut out = Vec::new();
        plain.write(HOST, peer, (None, &BackendHeaders::default()), &mut out);
        check_sent(&came, &out, peer);
        // What was sent has not more to leave out.
        let Parsed::Plain(again) = parse(&out, 2 * HEAD_MAX, HEADERS_MAX, &BasePath::default())
        else {
            panic!("what is sent is no longer a read: {}", out.escape_ascii());
        };
        let mut twice = Vec::new();
        again.write(HOST, peer, (None, &BackendHeaders::default()), &mut twice);
        assert_eq!(out.escape_ascii().to_string(), twice.escape_ascii().to_string());
        assert_eq!(again.is_head, plain.is_head);
    }
}

fn check_sent(came: &Head<'_>, out: &[u8], peer: Peer) {
    assert_strict(out);
    let sent = Head::read(out).expect("whole");
    assert_eq!(sent.bytes, out.len(), "nothing follows the head");
    assert_eq!(sent.first, came.first, "method and target stay");
    assert_eq!(sent.all("host"), [HOST]);
    let is_ours = |name: &[u8]| {
        is_of_one_hop(name)
            || ["host", "sec-fetch-site", "comfy-client-id"].iter().any(|it| is(name, it))
    };
    let expected = |keep: &dyn Fn(&[u8]) -> bool| {
        let kept = came.fields.iter().filter(|(name, _)| !is_ours(name) && keep(name));
        kept.filter_map(|(name, value)| Some((*name, without_own(name, value)?)))
            .collect::<Vec<_>>()
    };
    let mut all = expected(&|name| !is_claim(name));
    if peer == Peer::Proxy {
        all.extend(expected(&is_claim));
    }
    let got = sent.fields.iter().filter(|(name, _)| !is(name, "host"));
    let got: Vec<_> = got.map(|(name, value)| (*name, value.to_vec())).collect();
    assert_eq!(got, all, "{}", out.escape_ascii());
}

/// In which a proxy says for whom it speaks.
fn is_claim(name: &[u8]) -> bool {
    const NAMES: [&str; 8] = [
        "forwarded",
        "x-real-ip",
        "x-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
        "x-cluster-client-ip",
        "x-original-forwarded-for",
    ];
    let prefix = name.get(..12).is_some_and(|start| is(start, "x-forwarded-"));
    prefix || NAMES.iter().any(|it| is(name, it))
}

/// A line of `Cookie` without the pair that names a browser to us; `None` if it has no other.
fn without_own(name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    if !is(name, "cookie") {
        return Some(value.to_vec());
    }
    let pairs: Vec<&[u8]> = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii).collect();
    let is_own = |pair: &&[u8]| {
        let pair = pair.strip_prefix(b"=").unwrap_or(pair).trim_ascii();
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or(pair).trim_ascii();
        name == b"mooring" || name == b"__Host-mooring"
    };
    if !pairs.iter().any(is_own) {
        return Some(value.to_vec());
    }
    let others: Vec<&[u8]> =
        pairs.into_iter().filter(|pair| !is_own(pair) && !pair.is_empty()).collect();
    let others = others.join(&b"; "[..]);
    (!others.is_empty()).then_some(others)
}

/// What is judged for the other way of answering: nothing goes the short way that is refused there,
/// and a body ends where an independent reader finds its end.
fn check_message(data: &[u8], parsed: &Parsed<'_>) {
    let judged = message::read(data, HEAD_MAX, HEADERS_MAX);
    for cut in cuts(data.len()) {
        match message::read(&data[..cut], HEAD_MAX, HEADERS_MAX) {
            message::Head::Partial => {
                let is_whole = matches!(judged, message::Head::Whole(it) if it.head <= cut);
                assert!(!is_whole, "{cut} bytes hold all of the head");
            }
            part @ message::Head::Whole(_) => assert_eq!(part, judged, "cut after {cut} bytes"),
            // Which of several mistakes is named first may differ.
            message::Head::Refused(_) => {
                let is_refused = matches!(judged, message::Head::Refused(_));
                assert!(is_refused, "cut after {cut} bytes");
            }
        }
    }
    let message::Head::Whole(whole) = judged else {
        assert!(!matches!(parsed, Parsed::Plain(_)), "{judged:?}, and yet it is passed on");
        return;
    };
    let came = Head::read(data).expect("a message has a head");
    assert_eq!(whole.head, came.bytes);
    let (lengths, codings) = (came.all("content-length"), came.all("transfer-encoding"));
    match whole.body {
        Framing::Over => {
            assert!(codings.is_empty(), "{came:?}");
            assert!(lengths.iter().all(|value| length(value) == Some(0)), "{came:?}");
        }
        Framing::Length(bytes) => {
            assert!(codings.is_empty() && !lengths.is_empty(), "{came:?}");
            assert!(lengths.iter().all(|value| length(value) == Some(bytes)), "{came:?}");
        }
        Framing::Chunked(_) => {
            assert!(lengths.is_empty(), "a length and chunks: {came:?}");
            let [coding] = codings[..] else { panic!("{came:?}") };
            assert!(coding.eq_ignore_ascii_case(b"chunked"), "{came:?}");
        }
        Framing::UntilClose => panic!("a request does not end with its connection: {came:?}"),
    }
}

/// The path of a request line, if there is one.
fn path_in(data: &[u8]) -> Option<&str> {
    let line = data.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let target = std::str::from_utf8(line).ok()?.split(' ').nth(1)?;
    let path = target.split('?').next()?;
    (path.starts_with('/') && path.len() <= 512).then_some(path)
}

fn check_spellings(path: &str) {
    let mut spelled = String::new();
    let bytes = path.as_bytes();
    let is_escape = |at: usize| {
        bytes[at] == b'%'
            && bytes.get(at + 1..at + 3).is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
    };
    let mut at = 0;
    while at < bytes.len() {
        let len = if is_escape(at) { 3 } else { 1 };
        match bytes[at] {
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                spelled.push_str(&format!("%{byte:02x}"));
            }
            byte if byte.is_ascii() => {
                spelled.extend(bytes[at..at + len].iter().map(|byte| char::from(*byte)));
            }
            byte => spelled.push_str(&format!("%{byte:02X}")),
        }
        at += len;
    }
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let plain = classify(&method, path);
        assert_eq!(classify(&method, &spelled), plain, "{method} {path} as {spelled}");
    }
}
