//! The path under which clients reach Mooring, behind a proxy that does not remove it.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::kinds::{Kind, Shape};

/// The longest base path, in bytes.
const LEN_MAX: usize = 255;

/// `/comfy/`, or `/`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BasePath {
    /// Without the trailing slash.
    prefix: Arc<str>,
}

/// Where a request target is, relative to the base path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlaceBelow<'a> {
    /// Below the base path: the rest of the target, with its leading slash.
    Below(&'a str),
    /// The base path without its trailing slash: the rest is empty, or a query.
    Itself(&'a str),
    Outside,
}

impl BasePath {
    /// Parses a base path, with or without a slash at either end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err("is a whole URL, expected its path alone".to_owned());
        }
        if matches!(text, "" | "/") {
            return Ok(Self::default());
        }
        let inner = text.strip_prefix('/').unwrap_or(text);
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        if LEN_MAX < text.len() {
            return Err(format!("has {} bytes, at most {LEN_MAX} are allowed", text.len()));
        }
        for segment in inner.split('/') {
            match segment {
                "" => return Err("has two slashes without a name between them".to_owned()),
                "." | ".." => return Err(format!("has `{segment}`, which browsers resolve")),
                _ => {}
            }
            if let Some(bad) = segment.chars().find(|letter| !is_plain(*letter)) {
                return Err(format!(
                    "has `{}`, allowed are letters, digits, `-`, `.`, `_` and `~`",
                    bad.escape_default()
                ));
            }
        }
        Ok(Self { prefix: format!("/{inner}").into() })
    }

    #[must_use]
    pub fn is_root(&self) -> bool {
        self.prefix.is_empty()
    }

    /// Without the trailing slash; empty for `/`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Removes the base path from a target in origin form. A spelling with escapes is the same path
    /// (RFC 3986 section 6.2.2.2).
    #[must_use]
    pub fn take_off<'a>(&self, target: &'a str) -> PlaceBelow<'a> {
        if self.is_root() {
            return PlaceBelow::Below(target);
        }
        let rest = target.strip_prefix(&*self.prefix).or_else(|| self.decoded_off(target));
        match rest {
            Some(rest) if rest.starts_with('/') => PlaceBelow::Below(rest),
            Some(rest) if rest.is_empty() || rest.starts_with('?') => PlaceBelow::Itself(rest),
            Some(_) | None => PlaceBelow::Outside,
        }
    }

    fn decoded_off<'a>(&self, target: &'a str) -> Option<&'a str> {
        let mut at = 0;
        for expected in self.prefix.bytes() {
            at += match target.as_bytes().get(at..)? {
                [found, ..] if *found == expected => 1,
                // An escaped slash does not separate segments.
                [b'%', high, low, ..] if expected != b'/' => {
                    let digit = |digit: u8| char::from(digit).to_digit(16);
                    let found = digit(*high)? * 16 + digit(*low)?;
                    if found != u32::from(expected) {
                        return None;
                    }
                    3
                }
                _ => return None,
            };
        }
        target.get(at..)
    }
}

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.prefix)
    }
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_' | '~')
}

/// A base path, or empty.
#[derive(Debug)]
pub(super) struct Base;

impl Kind for Base {
    type Value = BasePath;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<BasePath, String> {
        BasePath::parse(text).map_err(|what| format!("`{text}` {what}"))
    }

    fn takes(&self) -> String {
        "a path such as \"/comfy/\"".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9._~/-]*$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_and_ends_with_a_slash_however_it_is_written() {
        for (written, shown) in [
            ("", "/"),
            ("/", "/"),
            ("comfy", "/comfy/"),
            ("/comfy", "/comfy/"),
            ("comfy/", "/comfy/"),
            ("/comfy/", "/comfy/"),
            ("/a/b-c._~1/", "/a/b-c._~1/"),
        ] {
            assert_eq!(BasePath::parse(written).unwrap().to_string(), shown, "{written}");
        }
    }

    #[test]
    fn what_is_no_path_is_said() {
        for (written, what) in [
            ("//", "two slashes"),
            ("//comfy/", "two slashes"),
            ("/comfy//x", "two slashes"),
            ("/comfy//", "two slashes"),
            ("/../", "`..`"),
            ("/a/./b", "`.`"),
            ("/a b/", "` `"),
            ("/a?b", "`?`"),
            ("/a#b", "`#`"),
            ("/%61/", "`%`"),
            ("/ä/", "`\\u{e4}`"),
            ("/a\nb/", "`\\n`"),
            ("/a\\b/", "`\\\\`"),
            ("https://host/comfy/", "a whole URL"),
        ] {
            let told = BasePath::parse(written).unwrap_err();
            assert!(told.contains(what), "{written}: {told}");
        }
        assert!(BasePath::parse(&"x".repeat(300)).unwrap_err().contains("300 bytes"));
    }

    #[test]
    fn it_is_taken_off_and_nothing_else_is() {
        let base = BasePath::parse("/comfy/ui").unwrap();
        for (target, place) in [
            ("/comfy/ui/", PlaceBelow::Below("/")),
            ("/comfy/ui/api/ws?x=/y", PlaceBelow::Below("/api/ws?x=/y")),
            ("/comfy/ui//x", PlaceBelow::Below("//x")),
            ("/comf%79/%75i/x", PlaceBelow::Below("/x")),
            ("/comfy/ui", PlaceBelow::Itself("")),
            ("/comfy/ui?a=b", PlaceBelow::Itself("?a=b")),
            ("/comfy/u%69", PlaceBelow::Itself("")),
            ("/comfy/uix/", PlaceBelow::Outside),
            ("/comfy/", PlaceBelow::Outside),
            ("/comfy%2Fui/", PlaceBelow::Outside),
            ("/comfy/ui%2F", PlaceBelow::Outside),
            ("/Comfy/ui/", PlaceBelow::Outside),
            ("/x/../comfy/ui/", PlaceBelow::Outside),
            ("//comfy/ui/", PlaceBelow::Outside),
            ("/comf%7", PlaceBelow::Outside),
            ("/comf%7é/ui/", PlaceBelow::Outside),
            ("/", PlaceBelow::Outside),
            ("*", PlaceBelow::Outside),
            ("", PlaceBelow::Outside),
        ] {
            assert_eq!(base.take_off(target), place, "{target}");
        }
        let root = BasePath::default();
        assert_eq!(root.take_off("/x?y"), PlaceBelow::Below("/x?y"));
        assert_eq!(root.take_off("*"), PlaceBelow::Below("*"));
    }
}
