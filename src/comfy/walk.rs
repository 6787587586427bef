//! Walks over JSON text and reports where its strings are, so that a string can be replaced without
//! changing any other byte.
//!
//! It accepts what Python writes (`NaN` too) and never fails: in text that is not JSON it finds
//! strings in odd places, or none.

use std::borrow::Cow;
use std::ops::Range;

/// Deeper than any nesting in ComfyUI; deeper values are skipped.
const DEPTH_MAX: usize = 64;

/// An open object or list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level<'a> {
    /// The position of its first byte.
    pub(super) open: usize,
    /// The key of the current member, as it is written; `None` in a list.
    pub(super) key: Option<&'a [u8]>,
    is_object: bool,
    is_key_next: bool,
}

/// Receives what is walked over. `levels` has the outermost level first.
pub(super) trait Visit {
    fn opened(&mut self, _levels: &[Level<'_>]) {}

    fn closed(&mut self, _levels: &[Level<'_>]) {}

    /// What is in here is skipped.
    fn too_deep(&mut self) {}

    /// A value that is a string, with its quotes.
    fn text(&mut self, levels: &[Level<'_>], at: Range<usize>);
}

/// Walks over all of it.
pub(super) fn walk(json: &[u8], visit: &mut impl Visit) {
    let mut levels: Vec<Level<'_>> = Vec::new();
    let mut too_deep = 0_usize;
    let mut at = 0;
    while let Some(found) = next(&json[at..]) {
        let start = at + found;
        at = start + 1;
        match json[start] {
            b'"' => {
                let Some(end) = string_end(json, start) else { return };
                at = end;
                if 0 < too_deep {
                    continue;
                }
                match levels.last_mut() {
                    Some(level) if level.is_object && level.is_key_next => {
                        level.key = Some(json.get(start + 1..end - 1).unwrap_or(b""));
                        level.is_key_next = false;
                    }
                    Some(_) | None => visit.text(&levels, start..end),
                }
            }
            b'{' | b'[' if DEPTH_MAX <= levels.len() => {
                too_deep += 1;
                visit.too_deep();
            }
            open @ (b'{' | b'[') => {
                let is_object = open == b'{';
                levels.push(Level { open: start, key: None, is_object, is_key_next: is_object });
                visit.opened(&levels);
            }
            b'}' | b']' if 0 < too_deep => too_deep -= 1,
            b'}' | b']' => {
                visit.closed(&levels);
                levels.pop();
            }
            // A comma.
            _ if too_deep == 0 => {
                if let Some(level) = levels.last_mut() {
                    level.is_key_next = level.is_object;
                }
            }
            _ => {}
        }
    }
}

/// The position of the next relevant byte.
fn next(json: &[u8]) -> Option<usize> {
    json.iter().position(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b','))
}

/// Just past the closing quote; `None` if the text ends before it.
fn string_end(json: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The text of a string that was walked over; `None` if it is invalid (a lone surrogate).
pub(super) fn text_at(json: &[u8], at: Range<usize>) -> Option<Cow<'_, str>> {
    let literal = json.get(at)?;
    let inner = literal.get(1..literal.len().checked_sub(1)?)?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(literal).ok().map(Cow::Owned)
}

/// The key of the current member of an object; empty in a list.
pub(super) fn key_at<'a>(level: &Level<'a>) -> Cow<'a, str> {
    let key = level.key.unwrap_or_default();
    match memchr::memchr(b'\\', key) {
        None => String::from_utf8_lossy(key),
        // It can be written with escapes, and means the same to a server.
        Some(_) => {
            let literal = [b"\"", key, b"\""].concat();
            let decoded = serde_json::from_slice::<String>(&literal);
            decoded.map_or_else(|_| String::from_utf8_lossy(key), Cow::Owned)
        }
    }
}

/// True if the current member of an object is called so. Most keys are written without escapes, and
/// are compared as they are.
pub(super) fn is_at_key(level: &Level<'_>, name: &str) -> bool {
    let key = level.key.unwrap_or_default();
    key == name.as_bytes() || (memchr::memchr(b'\\', key).is_some() && key_at(level) == name)
}

/// Text as a JSON string.
pub(super) fn quote(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// The same bytes with parts replaced. The parts must be in order and must not overlap.
pub(super) fn replaced(json: &[u8], parts: &[(Range<usize>, String)]) -> Vec<u8> {
    let more: usize = parts.iter().map(|(_, text)| text.len()).sum();
    let mut bytes = Vec::with_capacity(json.len() + more);
    let mut at = 0;
    for (range, text) in parts {
        bytes.extend_from_slice(&json[at..range.start]);
        bytes.extend_from_slice(text.as_bytes());
        at = range.end;
    }
    bytes.extend_from_slice(&json[at..]);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    #[derive(Default)]
    struct Texts(Vec<(String, Range<usize>)>);

    impl Visit for Texts {
        fn text(&mut self, levels: &[Level<'_>], at: Range<usize>) {
            let key = |level: &Level<'_>| level.key.map(|key| String::from_utf8_lossy(key).into());
            let path: Vec<String> =
                levels.iter().map(|it| key(it).unwrap_or_else(|| "#".to_owned())).collect();
            self.0.push((path.join("/"), at));
        }
    }

    fn texts(json: &str) -> Vec<(String, String)> {
        let mut texts = Texts::default();
        walk(json.as_bytes(), &mut texts);
        let text = |at| text_at(json.as_bytes(), at).unwrap_or_default().into_owned();
        texts.0.into_iter().map(|(path, at)| (path, text(at))).collect()
    }

    #[test]
    fn every_string_is_found_with_the_keys_that_lead_to_it() {
        let json = r#"{"a": ["x", {"b\"": "y\n,{"}, NaN, "z"], "c": {"d": null, "e": "ä"}}"#;
        let expected = [("a/#", "x"), ("a/#/b\\\"", "y\n,{"), ("a/#", "z"), ("c/e", "ä")];
        let found = texts(json);
        let found: Vec<_> = found.iter().map(|(path, text)| (&**path, &**text)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_nests_without_end_is_walked_over() {
        let json = format!("[{}\"deep\", {{}}{}, \"x\"]", "[".repeat(500), "]".repeat(500));
        assert_eq!(texts(&json), [("#".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn parts_are_replaced_and_the_rest_stays() {
        let json = br#"{"a": "x", "b": "y"}"#;
        let parts = [(6..9, "\"long\"".to_owned()), (16..19, String::new())];
        assert_eq!(replaced(json, &parts), br#"{"a": "long", "b": }"#);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            bytes in any::<Vec<u8>>(),
            marks in "[\\[\\]{}\",:\\\\a ]{0,64}",
        ) {
            for json in [&bytes[..], marks.as_bytes()] {
                let mut texts = Texts::default();
                walk(json, &mut texts);
                for (_, at) in texts.0 {
                    let _ = text_at(json, at.clone());
                    prop_assert!(at.start < at.end);
                }
            }
        }
    }
}
