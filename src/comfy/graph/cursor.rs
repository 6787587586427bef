//! A cursor over JSON text that is known to be valid. It skips what is not read, and builds
//! nothing.
//!
//! It never fails and always advances: at invalid JSON it goes to the end.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{Error, Visitor};

/// A position in the text.
#[derive(Debug)]
pub(in crate::comfy) struct Cursor<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(in crate::comfy) fn new(json: &'a [u8]) -> Self {
        Self { json, at: 0 }
    }

    /// Skips space and returns the next byte; `0` at the end.
    pub(in crate::comfy) fn peek(&mut self) -> u8 {
        while let Some(byte) = self.json.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return *byte;
            }
            self.at += 1;
        }
        0
    }

    /// Reads the object that begins here. `visit` gets each key as it is written, and reads or
    /// skips its value. Returns where the closing brace is.
    pub(in crate::comfy) fn object(
        &mut self,
        mut visit: impl FnMut(&mut Self, Range<usize>),
    ) -> usize {
        self.at += 1;
        loop {
            match self.peek() {
                b'"' => {
                    let key = self.skip();
                    if self.peek() != b':' {
                        return self.give_up();
                    }
                    self.at += 1;
                    visit(self, key);
                }
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return self.at - 1;
                }
                _ => return self.give_up(),
            }
        }
    }

    /// Reads the list that begins here. `visit` gets the index of each item, and reads or skips it.
    /// Returns the number of items.
    pub(in crate::comfy) fn list(&mut self, mut visit: impl FnMut(&mut Self, usize)) -> usize {
        self.at += 1;
        let mut count = 0;
        loop {
            match self.peek() {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return count;
                }
                0 => return count,
                _ => {
                    let before = self.at;
                    visit(self, count);
                    count += 1;
                    if self.at == before {
                        self.give_up();
                    }
                }
            }
        }
    }

    /// Skips the next value. Returns where it is.
    pub(in crate::comfy) fn skip(&mut self) -> Range<usize> {
        let first = self.peek();
        let start = self.at;
        match first {
            b'"' => self.skip_string(),
            b'{' | b'[' => self.skip_nested(),
            _ => {
                let is_end = |byte: &u8| {
                    matches!(byte, b',' | b':' | b'}' | b']' | b'"' | b' ' | b'\t' | b'\n' | b'\r')
                };
                let rest = self.json.get(start..).unwrap_or(&[]);
                self.at = start + rest.iter().position(is_end).unwrap_or(rest.len());
            }
        }
        start..self.at
    }

    fn skip_nested(&mut self) {
        let mut depth = 0_usize;
        while let Some(byte) = self.json.get(self.at) {
            match byte {
                b'"' => {
                    self.skip_string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(rest) = self.json.get(self.at..) {
            let Some(found) = memchr::memchr2(b'"', b'\\', rest) else { break };
            self.at += found + 1;
            if rest[found] == b'"' {
                return;
            }
            // An escaped character does not end the string.
            self.at += 1;
        }
        self.give_up();
    }

    fn give_up(&mut self) -> usize {
        self.at = self.json.len();
        self.at
    }
}

/// The text of a string, in bytes. A lone surrogate, which Python accepts, becomes three bytes that
/// are invalid UTF-8. So two strings are equal here exactly if they are equal in Python.
pub(in crate::comfy) fn said(json: &[u8], literal: Range<usize>) -> Cow<'_, [u8]> {
    let written = json.get(literal).unwrap_or(&[]);
    let inner = written.get(1..written.len().saturating_sub(1)).unwrap_or(&[]);
    if memchr::memchr(b'\\', inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(written);
    match deserializer.deserialize_bytes(Said) {
        Ok(said) => Cow::Owned(said),
        Err(_) => Cow::Borrowed(written),
    }
}

struct Said;

impl Visitor<'_> for Said {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    #[test]
    fn values_are_skipped_as_a_whole() {
        let json = br#" {"a": [1, {"b\"]": "}"}, -2e5], "c" : "x\\", "d":null } "#;
        let mut found = Vec::new();
        let mut cursor = Cursor::new(json);
        assert_eq!(cursor.peek(), b'{');
        let end = cursor.object(|cursor, key| {
            let value = cursor.skip();
            found.push((said(json, key).into_owned(), json[value].to_vec()));
        });
        assert_eq!(json[end], b'}');
        let expected: [(&[u8], &[u8]); 3] =
            [(b"a", br#"[1, {"b\"]": "}"}, -2e5]"#), (b"c", br#""x\\""#), (b"d", b"null")];
        assert!(found.iter().map(|(key, value)| (&**key, &**value)).eq(expected));
        assert_eq!(cursor.peek(), 0);
    }

    #[test]
    fn strings_are_the_same_if_they_are_to_python() {
        let said = |json: &str| said(json.as_bytes(), 0..json.len()).into_owned();
        assert_eq!(said(r#""\u0031\u00e9""#), said("\"1é\""));
        assert_eq!(said(r#""\ud83d\ude00""#), said("\"😀\""));
        assert_ne!(said(r#""\ud800""#), said(r#""\\ud800""#));
        assert_eq!(said(r#""\ud800""#), said(r#""\uD800""#));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_stand_still(
            bytes in any::<Vec<u8>>(),
            marks in "[\\[\\]{}\",:\\\\a1 ]{0,64}",
        ) {
            for json in [&bytes[..], marks.as_bytes()] {
                let mut cursor = Cursor::new(json);
                let end = cursor.object(|cursor, key| {
                    let _ = said(json, key);
                    if cursor.peek() == b'[' {
                        cursor.list(|cursor, _| {
                            cursor.skip();
                        });
                    } else {
                        cursor.skip();
                    }
                });
                prop_assert!(end <= json.len().max(1));
            }
        }
    }
}
