//! Writes JSON as Python's `json.dumps` does: with `", "` and `": "`, and only ASCII.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CharEscape, Formatter, Serializer};

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.is_ascii() {
            return w.write_all(fragment.as_bytes());
        }
        for unit in fragment.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => w.write_all(&[byte])?,
                Ok(_) | Err(_) => write!(w, "\\u{unit:04x}")?,
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(w, escape)
    }
}

/// Writes a value as Python would.
#[must_use]
pub(super) fn dumps(value: &Value) -> String {
    let mut bytes = Vec::with_capacity(128);
    // Writing values to memory does not fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut bytes, Python));
    String::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_like_pythons() {
        let value = serde_json::json!({"a": [1, 2.0, null, true], "é": "\n😀"});
        assert_eq!(dumps(&value), r#"{"a": [1, 2.0, null, true], "\u00e9": "\n\ud83d\ude00"}"#);
    }
}
