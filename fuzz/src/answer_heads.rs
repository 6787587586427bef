//! Heads of backends' answers, as they read for the client.
//!
//! - Cut anywhere, a head is judged as when it is whole, or not yet.
//! - What the client gets is by the letter of the RFC, says once where the body ends, and says the
//!   same that is believed here: no reader finds another end.
//! - Nothing passes that ends at this hop, nor a cookie of ours; all else is there, in its order.

use std::time::Duration;

use mooring::front::passthrough::answer::{BadAnswer, OwnHeaders, Passed, pass_on};
use mooring::server::framing::{Chunks, Framing};

use super::cuts;
use super::head::{Head, assert_strict, is, is_of_one_hop, length};

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

/// As large as any head that is waited for.
const LEN_MAX: usize = 16 << 10;

pub fn check(data: &[u8]) {
    let data = &data[..data.len().min(LEN_MAX)];
    for is_head in [false, true] {
        let (whole, out) = judged(data, is_head);
        for cut in cuts(data.len()) {
            match judged(&data[..cut], is_head) {
                (Ok(None), _) => {
                    let is_whole = matches!(whole, Ok(Some(passed)) if passed.bytes <= cut);
                    assert!(!is_whole, "{cut} bytes hold all of the head");
                }
                (part, part_out) => {
                    assert_eq!(part, whole, "cut after {cut} bytes");
                    assert_eq!(undated(&part_out), undated(&out), "cut after {cut} bytes");
                }
            }
        }
        if let Ok(Some(passed)) = whole {
            check_passed(data, &out, passed, is_head);
        }
    }
}

fn judged(data: &[u8], is_head: bool) -> (Result<Option<Passed>, BadAnswer>, Vec<u8>) {
    let mut out = Vec::new();
    let passed = pass_on(data, is_head, &OURS, &mut out);
    if !matches!(passed, Ok(Some(_))) {
        assert!(out.is_empty(), "nothing is said before all is known");
    }
    (passed, out)
}

/// Without the time, which passes.
fn undated(out: &[u8]) -> Vec<&[u8]> {
    out.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"date:")).collect()
}

fn check_passed(data: &[u8], out: &[u8], passed: Passed, is_head: bool) {
    assert!(passed.bytes <= data.len());
    assert_strict(out);
    let told = Head::read(out).expect("whole");
    assert_eq!(told.bytes, out.len(), "nothing follows the head");
    assert_eq!(status(&told), Some(passed.status));
    assert_eq!(believed(&told, is_head), passed.body, "{}", out.escape_ascii());
    assert_eq!(passed.closes_client, passed.body == Framing::UntilClose);
    assert_eq!(told.has("connection"), passed.closes_client);
    for (name, _) in &told.fields {
        let is_said = is(name, "transfer-encoding") || is(name, "connection");
        assert!(is_said || !is_of_one_hop(name), "{} ends here", name.escape_ascii());
    }
    assert_eq!(told.all("mooring-backend"), [b"gpu-a"]);
    assert_eq!(told.all("mooring-placement"), [b"bound"]);
    check_kept(&last_head(data, passed.bytes), &told);
    check_again(out, passed, is_head);
}

fn status(head: &Head<'_>) -> Option<u16> {
    std::str::from_utf8(head.first.get(9..12)?).ok()?.parse().ok()
}

/// Where a client finds the end of the body (RFC 9112 section 6.3).
fn believed(told: &Head<'_>, is_head: bool) -> Framing {
    let (lengths, codings) = (told.all("content-length"), told.all("transfer-encoding"));
    if is_head || matches!(status(told), Some(204 | 304)) {
        return Framing::Over;
    }
    match (&lengths[..], &codings[..]) {
        ([], [coding]) => {
            assert_eq!(*coding, b"chunked");
            Framing::Chunked(Chunks::default())
        }
        ([value], []) => Framing::of_length(length(value).expect("a length is a number")),
        ([], []) => Framing::UntilClose,
        (_, _) => panic!("where does the body end? {told:?}"),
    }
}

/// The head that ends after so many bytes; there may be interim ones before it.
fn last_head(data: &[u8], bytes: usize) -> Head<'_> {
    let mut at = 0;
    loop {
        let head = Head::read(&data[at..]).expect("heads come before the end");
        at += head.bytes;
        if at == bytes {
            return head;
        }
        assert!(at < bytes, "the head ends elsewhere");
        assert!(status(&head).is_some_and(|status| (100..200).contains(&status)), "{head:?}");
    }
}

fn check_kept(came: &Head<'_>, told: &Head<'_>) {
    let named: Vec<&[u8]> = came.all("connection");
    let named =
        || named.iter().flat_map(|it| it.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let is_ours = |name: &[u8]| {
        const NAMES: [&str; 4] =
            ["content-length", "mooring-backend", "mooring-placement", "server-timing"];
        is_of_one_hop(name) || NAMES.iter().any(|it| is(name, it))
    };
    let is_own_cookie = |value: &[u8]| {
        let pair = value.split(|byte| *byte == b';').next().unwrap_or(value).trim_ascii();
        let pair = pair.strip_prefix(b"=").unwrap_or(pair).trim_ascii();
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or(pair).trim_ascii();
        name == b"mooring" || name == b"__Host-mooring"
    };
    let kept = came.fields.iter().filter(|(name, value)| {
        let is_named = named().any(|it| it.eq_ignore_ascii_case(name));
        let is_own = is(name, "set-cookie") && is_own_cookie(value);
        !(is_ours(name) || is_named || is_own)
    });
    let kept: Vec<_> = kept.collect();
    let has_date = came.has("date");
    let got =
        told.fields.iter().filter(|(name, _)| !is_ours(name) && (has_date || !is(name, "date")));
    assert_eq!(got.collect::<Vec<_>>(), kept);
    assert!(has_date || told.all("date").len() == 1);
}

/// Behind another Mooring it says the same, if it has no more fields than that takes: ours were
/// added.
fn check_again(out: &[u8], passed: Passed, is_head: bool) {
    const FIELDS_MAX: usize = 100;
    if Head::read(out).is_none_or(|head| FIELDS_MAX < head.fields.len()) {
        return;
    }
    let (again, _) = judged(out, is_head);
    let again = again.expect("what is told can be read").expect("whole");
    assert_eq!((again.bytes, again.status, again.body), (out.len(), passed.status, passed.body));
}
