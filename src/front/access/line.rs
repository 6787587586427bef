//! How a line of the access log is written.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use super::{Answer, Asked};
use crate::config::AccessFormat;

/// The line of a request, with its end. `time` is as RFC 3339 writes it, in UTC.
pub(super) fn of(asked: &Asked, answer: &Answer<'_>, time: &str, format: AccessFormat) -> String {
    match format {
        AccessFormat::Json => json(asked, answer, time),
        AccessFormat::Combined => combined(asked, answer, time),
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    address: Option<IpAddr>,
    user: Option<&'a str>,
    client: Option<String>,
    method: &'a str,
    path: &'a str,
    protocol: String,
    status: u16,
    bytes: Option<u64>,
    ms: f64,
    backend: Option<&'a str>,
    placement: Option<&'a str>,
    request_id: Option<&'a str>,
    referer: Option<Cow<'a, str>>,
    user_agent: Option<Cow<'a, str>>,
}

fn json(asked: &Asked, answer: &Answer<'_>, time: &str) -> String {
    let line = Line {
        time,
        address: asked.address,
        user: asked.user(),
        client: asked.client().map(|client| client.to_string()),
        method: asked.method.as_str(),
        path: &asked.path,
        protocol: format!("{:?}", asked.version),
        status: answer.status.as_u16(),
        bytes: asked.bytes(answer),
        ms: (answer.milliseconds() * 1000.0).round() / 1000.0,
        backend: Some(answer.backend).filter(|it| !it.is_empty()),
        placement: Some(answer.placement).filter(|it| !it.is_empty()),
        request_id: asked.id(answer),
        referer: asked.referer.as_deref().map(String::from_utf8_lossy),
        user_agent: asked.user_agent.as_deref().map(String::from_utf8_lossy),
    };
    let mut text = serde_json::to_string(&line).unwrap_or_default();
    text.push('\n');
    text
}

/// As Apache's `combined`: what is read by tools that know nothing of us. Then comes what only we
/// know: the seconds that it took, backend, client and request id.
fn combined(asked: &Asked, answer: &Answer<'_>, time: &str) -> String {
    let mut line = String::new();
    word(&mut line, asked.address.map(|address| address.to_string()).as_deref());
    line.push_str(" - ");
    word(&mut line, asked.user());
    let _ = write!(line, " [{}] \"{} ", date(time), asked.method);
    escape(&mut line, asked.path.as_bytes());
    let _ = write!(line, " {:?}\" {} ", asked.version, answer.status.as_u16());
    let _ = match asked.bytes(answer) {
        Some(bytes) => write!(line, "{bytes}"),
        None => write!(line, "-"),
    };
    for quoted in [asked.referer.as_deref(), asked.user_agent.as_deref()] {
        line.push_str(" \"");
        escape(&mut line, quoted.unwrap_or(b"-"));
        line.push('"');
    }
    let _ = write!(line, " {:.3} ", answer.took.as_secs_f64());
    word(&mut line, Some(answer.backend));
    line.push(' ');
    word(&mut line, asked.client().map(|client| client.to_string()).as_deref());
    line.push(' ');
    word(&mut line, asked.id(answer));
    line.push('\n');
    line
}

/// A field without quotes; `-` if there is nothing.
fn word(line: &mut String, word: Option<&str>) {
    match word.filter(|word| !word.is_empty()) {
        None => line.push('-'),
        // A blank would begin the next field.
        Some(word) => word.split_inclusive(' ').for_each(|part| {
            let bare = part.trim_end_matches(' ');
            escape(line, bare.as_bytes());
            line.push_str(if bare == part { "" } else { "\\x20" });
        }),
    }
}

/// What could end a field or a line is written as nginx writes it: `\x22`.
fn escape(line: &mut String, text: &[u8]) {
    for &byte in text {
        match byte {
            b'"' | b'\\' | ..=0x1F | 0x7F.. => {
                let _ = write!(line, "\\x{byte:02X}");
            }
            _ => line.push(byte.into()),
        }
    }
}

/// `2026-11-29T20:00:00.123456Z` as `29/Nov/2026:20:00:00 +0000`.
fn date(time: &str) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let part = |range: std::ops::Range<usize>| time.get(range).unwrap_or_default();
    let month =
        part(5..7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.checked_sub(1)?));
    let month = month.copied().unwrap_or_default();
    format!("{}/{month}/{}:{} +0000", part(8..10), part(0..4), part(11..19))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Method, StatusCode, Version};
    use serde_json::{Value, json};

    use super::*;

    const TIME: &str = "2026-11-29T20:00:00.123456Z";

    fn asked() -> Asked {
        Asked {
            method: Method::GET,
            path: "/view\"\n".to_owned(),
            version: Version::HTTP_11,
            referer: Some(b"http://g/page"[..].into()),
            user_agent: Some(b"curl \\ \xff\""[..].into()),
            address: Some([10, 0, 0, 7].into()),
            request_id: Some("4f-a".to_owned()),
            ..Asked::default()
        }
    }

    fn answer(bytes: Option<u64>) -> Answer<'static> {
        let took = Duration::from_micros(1_234);
        let (backend, placement) = ("gpu a", "");
        Answer { status: StatusCode::OK, backend, placement, bytes, took, request_id: None }
    }

    #[test]
    fn a_json_line_is_one_object_and_has_no_query() {
        let line = of(&asked(), &answer(None), TIME, AccessFormat::Json);
        assert_eq!(line.lines().count(), 1);
        let read: Value = serde_json::from_str(&line).unwrap();
        let expected = json!({
            "time": TIME, "address": "10.0.0.7", "user": null, "client": null, "method": "GET",
            "path": "/view\"\n", "protocol": "HTTP/1.1", "status": 200, "bytes": null,
            "ms": 1.234, "backend": "gpu a", "placement": null, "request_id": "4f-a",
            "referer": "http://g/page", "user_agent": "curl \\ \u{fffd}\"",
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn a_combined_line_has_its_fields_whatever_is_in_them() {
        let line = of(&asked(), &answer(Some(68)), TIME, AccessFormat::Combined);
        let expected = concat!(
            r#"10.0.0.7 - - [29/Nov/2026:20:00:00 +0000] "GET /view\x22\x0A HTTP/1.1" 200 68 "#,
            r#""http://g/page" "curl \x5C \xFF\x22" 0.001 gpu\x20a - 4f-a"#,
            "\n"
        );
        assert_eq!(line, expected);
    }
}
