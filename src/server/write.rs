//! Writes heads of answers as bytes.

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

/// Like [`write_header`], for a header that was parsed from `read`. Nearly every line already has
/// the form in which it is to be written; then it is copied in one piece.
pub(crate) fn copy_header(read: &[u8], name: &str, value: &[u8], out: &mut Vec<u8>) {
    match line_of(read, name, value) {
        Some(line) => out.extend_from_slice(line),
        None => write_header(name, value, out),
    }
}

/// The line in `read` that contains `name` and `value`, if it has the form in which we write lines:
/// one space before the value, none after it, and `\r\n` at the end.
fn line_of<'a>(read: &'a [u8], name: &str, value: &[u8]) -> Option<&'a [u8]> {
    const COLON: &[u8] = b": ";
    const END: &[u8] = b"\r\n";
    let start = name.as_ptr().addr().checked_sub(read.as_ptr().addr())?;
    let length = name.len() + COLON.len() + value.len() + END.len();
    let line = read.get(start..start.checked_add(length)?)?;
    let after = line[name.len()..].strip_prefix(COLON)?;
    (std::ptr::eq(after.as_ptr(), value.as_ptr()) && line.ends_with(END)).then_some(line)
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

/// Writes the date. An answer has the time when it was made, or at least when it passed through
/// (RFC 9110 section 6.6.1).
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

/// Writes an answer that Mooring makes itself.
pub(crate) fn write_own(
    response: &Response<ResponseBody>,
    is_head: bool,
    closes: bool,
    out: &mut Vec<u8>,
) {
    let body = match response.body() {
        ResponseBody::Whole(Some(bytes)) => bytes.as_ref(),
        // None of these answers is streamed.
        ResponseBody::Whole(None)
        | ResponseBody::Streamed { .. }
        | ResponseBody::Teed(_)
        | ResponseBody::Cut(_)
        | ResponseBody::Pushed(_) => b"",
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What `copy_header` makes of the only header of a head, and whether in one piece.
    fn copied(line: &str) -> (String, bool) {
        let head = format!("GET / HTTP/1.1\r\n{line}\r\n");
        let mut headers = [httparse::EMPTY_HEADER; 1];
        let mut request = httparse::Request::new(&mut headers);
        assert!(request.parse(head.as_bytes()).unwrap().is_complete());
        let header = &request.headers[0];
        let mut out = Vec::new();
        copy_header(head.as_bytes(), header.name, header.value, &mut out);
        let line = line_of(head.as_bytes(), header.name, header.value);
        (String::from_utf8(out).unwrap(), line.is_some())
    }

    #[test]
    fn a_line_is_copied_only_if_it_is_written_as_ours_are() {
        assert_eq!(copied("X-Mixed: A b\r\n"), ("X-Mixed: A b\r\n".into(), true));
        for other in [
            "X-Mixed:A b\r\n",
            "X-Mixed:  A b\r\n",
            "X-Mixed:\tA b\r\n",
            "X-Mixed: A b \r\n",
            "X-Mixed: A b\t\r\n",
            "X-Mixed: A b\n",
        ] {
            assert_eq!(copied(other), ("X-Mixed: A b\r\n".into(), false), "{other:?}");
        }
        for empty in ["X-Empty:\r\n", "X-Empty: \r\n", "X-Empty:  \r\n", "X-Empty:\n"] {
            assert_eq!(copied(empty).0, "X-Empty: \r\n", "{empty:?}");
        }
    }

    #[test]
    fn what_was_not_read_from_there_is_written() {
        let (read, name) = (b"X-Other: 1\r\n", "X-Other");
        assert_eq!(line_of(read, name, b"1"), None);
        assert_eq!(line_of(b"", name, b"1"), None);
        let mut out = Vec::new();
        copy_header(read, name, b"2", &mut out);
        assert_eq!(out, b"X-Other: 2\r\n");
    }
}
