//! Paths that are refused to everybody (`server.deny`), whatever their spelling.

use std::fmt;
use std::str::FromStr;

use super::endpoint::decode;
use super::spelling::{Segments, fold, readings};

/// A path and all that is below it. `*` in it is any part of a segment, and `**` any number of
/// segments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DenyPattern {
    /// As it was written.
    text: Box<str>,
    /// Folded, and as it was written but for ASCII capitals. Invariant of both: at least one part
    /// is text, and at most one is [`Part::Any`].
    forms: [Vec<Part>; 2],
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    /// A segment, in which `*` is any text.
    Segment(Box<str>),
    /// Any number of segments.
    Any,
}

#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadPattern {
    #[error("a pattern is a path such as `/pack/admin`, and begins with `/`")]
    NoPath,
    #[error("a pattern has at most {} bytes", DenyPattern::LEN_MAX)]
    TooLong,
    #[error(
        "write the path as it is read: without `%`, `;`, `?`, `#`, `\\`, `//`, dots as segments \
         and control characters; all other spellings of it are refused with it"
    )]
    Spelling,
    #[error("that would refuse everything")]
    Everything,
    #[error("`**` may stand once in a pattern, and as a whole segment")]
    Stars,
    #[error("what is below `/-/` is of Mooring itself, and reaches no backend")]
    Own,
}

impl DenyPattern {
    const LEN_MAX: usize = 500;

    /// True if the path that these segments are is refused.
    fn covers(&self, segments: &Segments<'_>) -> bool {
        let [folded, written] = &self.forms;
        covers(folded, segments.clone()) || (written != folded && covers(written, segments.clone()))
    }
}

fn covers(parts: &[Part], segments: Segments<'_>) -> bool {
    let any = parts.iter().position(|part| *part == Part::Any);
    let Some(any) = any else { return begin(parts, segments).is_some() };
    let (before, after) = (&parts[..any], &parts[any + 1..]);
    let Some(mut rest) = begin(before, segments) else { return false };
    loop {
        if begin(after, rest.clone()).is_some() {
            return true;
        }
        if rest.next().is_none() {
            return false;
        }
    }
}

/// What is left of segments that begin with these parts, none of which is [`Part::Any`].
fn begin<'a>(parts: &[Part], mut segments: Segments<'a>) -> Option<Segments<'a>> {
    for part in parts {
        let segment = segments.next()?;
        match part {
            Part::Segment(pattern) if glob(pattern.as_bytes(), segment.as_bytes()) => {}
            Part::Segment(_) | Part::Any => return None,
        }
    }
    Some(segments)
}

/// Compares in any case of ASCII letters. `*` in a pattern is any text, also none.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut in_text) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while in_text < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last_star = Some((at, in_text));
                at += 1;
            }
            Some(byte) if *byte == text[in_text].to_ascii_lowercase() => {
                at += 1;
                in_text += 1;
            }
            Some(_) | None => {
                // The last star takes one byte more.
                let Some((star, taken)) = last_star else { return false };
                last_star = Some((star, taken + 1));
                (at, in_text) = (star + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

impl FromStr for DenyPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let path = text.strip_prefix('/').ok_or(BadPattern::NoPath)?;
        if Self::LEN_MAX < text.len() {
            return Err(BadPattern::TooLong);
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.is_empty() {
            return Err(BadPattern::Everything);
        }
        // A character may become a slash or dots when it is folded.
        let (folded, written) = (fold(path), path.to_ascii_lowercase());
        Self::checked(text, [parts_of(&folded)?, parts_of(&written)?])
    }
}

/// The parts of a path without the slash at its begin.
fn parts_of(path: &str) -> Result<Vec<Part>, BadPattern> {
    let is_odd = |it: char| "%;?#\\".contains(it) || it.is_control();
    let is_dots = |segment: &str| segment.is_empty() || segment.ends_with(['.', ' ']);
    if path.contains(is_odd) || path.split('/').any(is_dots) {
        return Err(BadPattern::Spelling);
    }
    let mut parts: Vec<Part> = Vec::new();
    for segment in path.split('/') {
        match segment {
            // ComfyUI serves its routes with that and without.
            "api" if parts.is_empty() => {}
            "**" => parts.push(Part::Any),
            _ if segment.contains("**") => return Err(BadPattern::Stars),
            segment => parts.push(Part::Segment(segment.into())),
        }
    }
    Ok(parts)
}

impl DenyPattern {
    fn checked(text: &str, forms: [Vec<Part>; 2]) -> Result<Self, BadPattern> {
        let parts = &forms[0];
        let is_text = |part: &Part| match part {
            Part::Segment(text) => text.bytes().any(|byte| byte != b'*'),
            Part::Any => false,
        };
        if !parts.iter().any(is_text) {
            return Err(BadPattern::Everything);
        }
        if 1 < parts.iter().filter(|part| **part == Part::Any).count() {
            return Err(BadPattern::Stars);
        }
        if parts.first() == Some(&Part::Segment("-".into())) {
            return Err(BadPattern::Own);
        }
        Ok(Self { text: text.into(), forms })
    }

    /// True if it begins with this path, which ends with a slash.
    #[must_use]
    pub fn is_below(&self, base: &str) -> bool {
        self.text.starts_with(base) || self.text.as_ref() == base.trim_end_matches('/')
    }
}

impl fmt::Display for DenyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// True if a path is refused: if a pattern covers it in any way to read it. It is in the form in
/// which it was sent, below `server.base_path`. Routes of Mooring itself are never refused.
#[must_use]
pub fn is_denied(patterns: &[DenyPattern], raw_path: &str) -> bool {
    if patterns.is_empty() || decode(raw_path).starts_with("/-/") {
        return false;
    }
    let readings = readings(raw_path);
    readings.is_doubtful() || readings.any(|segments| is_covered(patterns, segments))
}

/// ComfyUI serves each route also below `/api`. More of these than this nobody means.
const APIS_MAX: usize = 3;

/// True if a pattern covers these segments, with each `api` at their beginning and without.
fn is_covered(patterns: &[DenyPattern], mut segments: Segments<'_>) -> bool {
    for _ in 0..=APIS_MAX {
        if patterns.iter().any(|pattern| pattern.covers(&segments)) {
            return true;
        }
        if !segments.next().is_some_and(|first| first.eq_ignore_ascii_case("api")) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_denied(patterns: &[&str], path: &str) -> bool {
        let patterns: Vec<DenyPattern> = patterns.iter().map(|it| it.parse().unwrap()).collect();
        super::is_denied(&patterns, path)
    }

    #[test]
    fn a_pattern_covers_a_path_and_what_is_below_it() {
        for (pattern, denied, open) in [
            (
                "/pack",
                &["/pack", "/pack/", "/pack/x", "/api/pack", "/PACK"][..],
                &["/packs", "/"][..],
            ),
            ("/api/pack/", &["/pack", "/api/api/pack/x"], &["/x/pack", "/api"]),
            (
                "/pack/*/run",
                &["/pack/a/run", "/pack/a%2Fb/run", "/pack/a/run/x"],
                &["/pack/run", "/pack/a/b/run"],
            ),
            ("/**/admin", &["/admin", "/a/b/admin", "/a/admin/x"], &["/admins", "/a/b"]),
            ("/pack/**/x*", &["/pack/x", "/pack/a/b/xy"], &["/x", "/pack/a"]),
            ("/p*k/*.json", &["/pack/a.json", "/pk/.json"], &["/pack/a.jsonx", "/pack"]),
            ("/Ünder", &["/%C3%BCnder", "/U%CC%88NDER"], &["/under"]),
            ("/ws", &["/ws", "/api/ws", "/%77s"], &["/pack/ws"]),
            // What a `*` stands for may be anything that a route takes for a name.
            (
                "/a/*/run",
                &["/a/./run", "/a/%2e/run", "/a//run", "/a/%C2%AD/run", "/a/../run", "/A/.//RUN"],
                &["/a/run"],
            ),
            ("/*/run", &["/api/run", "/api/api/run", "/x/run"], &["/run"]),
            ("/**/api/x", &["/api/x", "/a/api/x", "/api/api/x"], &["/api", "/x"]),
            ("/a/run*", &["/a/run%CC%83x", "/a/RUN%CC%83"], &["/a/ru"]),
            ("/ΟΔΟΣ*", &["/%CE%BF%CE%B4%CE%BF%CF%83%CE%B1", "/ΟΔΟΣ"], &["/x"]),
            ("/x", &["/../static/x", "/%2e%2e/x", "/api/api/api/api/y"], &["/y", "/api/api/y"]),
        ] {
            for path in denied {
                assert!(is_denied(&[pattern], path), "{pattern} {path}");
            }
            for path in open {
                assert!(!is_denied(&[pattern], path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn what_is_moorings_own_is_never_denied() {
        assert!(!is_denied(&["/**/whoami"], "/-/whoami"));
        assert!(!is_denied(&["/**/whoami"], "/%2d/whoami"));
        assert!(is_denied(&["/**/whoami"], "/-x/whoami"));
        assert!(!is_denied(&[], "/pack"));
    }

    #[test]
    fn a_pattern_that_says_nothing_or_too_much_is_none() {
        let read = |text: &str| text.parse::<DenyPattern>().unwrap_err();
        for text in ["pack", "", "*", "https://x/pack"] {
            assert_eq!(read(text), BadPattern::NoPath, "{text}");
        }
        for text in ["/", "/api", "/*", "/**", "/api/*/**", "/*/*"] {
            assert_eq!(read(text), BadPattern::Everything, "{text}");
        }
        for text in [
            "/a%20b",
            "/a;b",
            "/a?b",
            "/a\\b",
            "/a//b",
            "/./a",
            "/a/../b",
            "/a.",
            "/a\n",
            "/a/．．/b",
            "/a/\u{ad}/b",
            "/a；b",
            "/a？",
        ] {
            assert_eq!(read(text), BadPattern::Spelling, "{text}");
        }
        for text in ["/a/**/b/**", "/a**", "/**x/a"] {
            assert_eq!(read(text), BadPattern::Stars, "{text}");
        }
        assert_eq!(read("/-/whoami"), BadPattern::Own);
        assert_eq!(read(&format!("/{}", "x".repeat(500))), BadPattern::TooLong);
        let text = "/Pack/*/run/";
        assert_eq!(text.parse::<DenyPattern>().unwrap().to_string(), text);
    }
}
