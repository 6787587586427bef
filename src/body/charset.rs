//! Converts JSON in other charsets to UTF-8. ComfyUI (through aiohttp) decodes a body by the
//! charset in `Content-Type`, and Mooring does the same. What Mooring checks and passes on is
//! UTF-8.

use std::borrow::Cow;

use bytes::Bytes;
use encoding_rs::{Encoding, UTF_8};
use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// A charset that Mooring does not know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Unknown;

/// The charset of a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Charset(&'static Encoding);

impl Charset {
    /// The charset that a request names; UTF-8 if it names none (RFC 8259 section 8.1).
    ///
    /// # Errors
    /// The charset is not known.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Unknown> {
        let Some(said) = headers.get(CONTENT_TYPE) else { return Ok(Self(UTF_8)) };
        let said = said.to_str().map_err(|_| Unknown)?;
        let Some(name) = said.split(';').skip(1).find_map(parameter) else {
            return Ok(Self(UTF_8));
        };
        encoding(name).map(Self).ok_or(Unknown)
    }

    /// The same text in UTF-8. A byte order mark overrides the named charset, and is removed: some
    /// clients write one, and no parser has to accept one. Bytes that are not valid in their
    /// charset stay as they are, and are then refused as invalid JSON.
    #[must_use]
    pub(crate) fn utf8(self, body: Bytes) -> Bytes {
        let (encoding, mark) = Encoding::for_bom(&body).unwrap_or((self.0, 0));
        if encoding == UTF_8 {
            return body.slice(mark..);
        }
        match encoding.decode_without_bom_handling_and_without_replacement(&body[mark..]) {
            Some(Cow::Owned(text)) => text.into(),
            Some(Cow::Borrowed(text)) => body.slice_ref(text.as_bytes()),
            None => body,
        }
    }
}

/// The value of a `charset=` in a header.
fn parameter(text: &str) -> Option<&str> {
    let (name, value) = text.split_once('=')?;
    let value = value.trim().trim_matches('"');
    name.trim().eq_ignore_ascii_case("charset").then_some(value).filter(|it| !it.is_empty())
}

/// Looks up a charset by its web name or by Python's name for it.
fn encoding(name: &str) -> Option<&'static Encoding> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let name = match name.as_str() {
        "utf-8-sig" => "utf-8",
        "latin-1" => "latin1",
        "cp932" => "shift-jis",
        "cp936" => "gbk",
        other => other,
    };
    Encoding::for_label(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content_type: &'static str) -> Result<Charset, Unknown> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().expect("a value"));
        Charset::of(&headers)
    }

    #[test]
    fn a_charset_is_read_as_python_reads_it() {
        assert_eq!(Charset::of(&HeaderMap::new()), Ok(Charset(UTF_8)));
        for said in ["text/plain", "a/b;charset", "a/b; charset=", "a/b; x=1; CharSet=\"utf_8\""] {
            assert_eq!(of(said), Ok(Charset(UTF_8)), "{said}");
        }
        assert_eq!(of("a/b; charset=iso-8859-1"), of("a/b; charset=latin_1"));
        assert_eq!(of("a/b; charset=cp932"), of("a/b; charset=sjis"));
        assert_eq!(of("a/b; charset=utf-32"), Err(Unknown));
        assert_eq!(of("a/b; charset=nobodys"), Err(Unknown));
    }

    #[test]
    fn a_text_is_the_same_in_utf8() {
        let utf8 = |said, body: &'static [u8]| {
            of(said).expect("it is known").utf8(Bytes::from_static(body))
        };
        for (said, body, right) in [
            ("a/b", &b"\xc3\xa9"[..], &b"\xc3\xa9"[..]),
            ("a/b", b"\xef\xbb\xbf{}", b"{}"),
            ("a/b", b"\xff\xfe{\0}\0", b"{}"),
            ("a/b; charset=utf-16be", b"\0{\0}", b"{}"),
            ("a/b; charset=utf-8", b"\xfe\xff\0{\0}", b"{}"),
            ("a/b; charset=latin1", b"\xe9", b"\xc3\xa9"),
            ("a/b; charset=latin1", b"{}", b"{}"),
            ("a/b; charset=gbk", b"\xbb\xad", "画".as_bytes()),
            // Bytes that are not valid in the named charset stay as they are.
            ("a/b; charset=utf-16le", b"{\0}", b"{\0}"),
        ] {
            assert_eq!(utf8(said, body), right, "{said}");
        }
    }
}
