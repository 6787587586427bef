//! Heads of answers, as bytes.

use std::time::{Duration, UNIX_EPOCH};

use http::Response;

use crate::body::ResponseBody;
use crate::net::unix_millis;

pub(crate) fn write_header(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn write_status(status: u16, reason: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(u64::from(status), 3, out);
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn write_length(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    write_decimal(length, 1, out);
    out.extend_from_slice(b"\r\n");
}

/// An answer has the time when it was made, or at least when it passed (RFC 9110 section 6.6.1).
pub(crate) fn write_date(out: &mut Vec<u8>) {
    let date = UNIX_EPOCH + Duration::from_millis(unix_millis());
    write_header("date", httpdate::fmt_http_date(date).as_bytes(), out);
}

/// `number` with at least `width` digits, at most 20.
pub fn write_decimal(mut number: u64, width: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while 0 < number || digits.len() - at < width {
        at -= 1;
        digits[at] = b"0123456789"[(number % 10) as usize];
        number /= 10;
    }
    out.extend_from_slice(&digits[at..]);
}

/// An answer of ours.
pub(crate) fn write_own(
    response: &Response<ResponseBody>,
    is_head: bool,
    closes: bool,
    out: &mut Vec<u8>,
) {
    let body = match response.body() {
        ResponseBody::Whole(Some(bytes)) => bytes.as_ref(),
        // None of ours is streamed.
        ResponseBody::Whole(None) | ResponseBody::Streamed { .. } | ResponseBody::Teed(_) => b"",
    };
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or("");
    write_status(status.as_u16(), reason, out);
    for (name, value) in response.headers() {
        write_header(name.as_str(), value.as_bytes(), out);
    }
    write_length(body.len() as u64, out);
    write_date(out);
    if closes {
        write_header("connection", b"close", out);
    }
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(body);
    }
}
