//! In which ways a server, or a proxy before it, may read a path: what is refused is refused in
//! every spelling.
//!
//! ComfyUI takes a path as it is, but for percent-encoding. A middleware, another server framework
//! or a proxy on the way may also decode it again, drop what stands behind a `;`, resolve dots,
//! take `\` for `/`, ignore letter case or compare Unicode forms. Each of these makes a route of a
//! path that does not look like one. [`readings`] gives all of them, each in one form: segments in
//! lower case, in Unicode's form NFKC, without empty ones and without `.`.
//!
//! Nearly all paths can be read in one way only. Those are recognised by one look at their bytes,
//! and cost no allocation.

use std::slice;
use std::str::Split;

use icu_normalizer::ComposingNormalizerBorrowed;
use percent_encoding::percent_decode;
use smallvec::SmallVec;

/// Escapes may be nested; there are fewer proxies in a row than this.
const DECODED_MAX: usize = 4;

/// All readings of a path.
#[derive(Debug)]
pub enum Readings<'a> {
    /// There is only one.
    Plain(&'a str),
    Several(SmallVec<[Vec<String>; 4]>),
}

/// The ways to read a path. It is in the form in which it was sent, below `server.base_path`.
#[must_use]
pub fn readings(path: &str) -> Readings<'_> {
    if is_plain(path) {
        return Readings::Plain(path);
    }
    let mut found = Found::default();
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..DECODED_MAX {
        let decoded = decode(&bytes);
        // As ComfyUI does: a slash that is encoded is a part of a name.
        found.add(split(&String::from_utf8_lossy(&bytes), &['/']));
        let text = String::from_utf8_lossy(&decoded).into_owned();
        found.add(split(&text, &['/']));
        found.add(split(&text, &['/', '\\']));
        // Other characters may be slashes or dots in Unicode's eyes.
        let text = fold(&text);
        found.add(split(&text, &['/', '\\']));
        if text.as_bytes() == bytes {
            break;
        }
        bytes = if decoded == bytes { text.into_bytes() } else { decoded };
    }
    Readings::Several(found.0)
}

impl Readings<'_> {
    /// True if a reading is what `is_it` looks for.
    pub fn any(&self, mut is_it: impl FnMut(Segments<'_>) -> bool) -> bool {
        match self {
            Self::Plain(path) => is_it(Segments::Raw(path.split('/'))),
            Self::Several(all) => all.iter().any(|one| is_it(Segments::Mended(one.iter()))),
        }
    }
}

/// The segments of one reading: none is empty, and none is `.`. ASCII letters may be capitals.
#[derive(Clone, Debug)]
pub enum Segments<'a> {
    Raw(Split<'a, char>),
    Mended(slice::Iter<'a, String>),
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        match self {
            Self::Raw(split) => split.find(|segment| !segment.is_empty()),
            Self::Mended(segments) => segments.next().map(String::as_str),
        }
    }
}

/// Characters that every reader takes as they are. Dots are looked at besides.
const PLAIN: [bool; 256] = {
    let all = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/&=+:,@!$'()*";
    let (mut plain, mut at) = ([false; 256], 0);
    while at < all.len() {
        plain[all[at] as usize] = true;
        at += 1;
    }
    plain
};

/// True for a path that can be read in one way only, but for letter case and empty segments.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    for byte in path.bytes() {
        // Windows drops dots at the end of a name.
        let is_end_of_dots = before == b'.' && matches!(byte, b'.' | b'/');
        if !PLAIN[usize::from(byte)] || is_end_of_dots {
            return false;
        }
        before = byte;
    }
    before != b'.'
}

/// One form of what may be meant as the same text: NFKC, in lower case, without what is invisible.
#[must_use]
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    const INVISIBLE: [char; 9] = [
        '\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{2060}',
        '\u{feff}', '\u{fe0f}',
    ];
    let normaliser = ComposingNormalizerBorrowed::new_nfkc();
    let visible: String = text.chars().filter(|it| !INVISIBLE.contains(it)).collect();
    let lower = normaliser.normalize(&visible).to_lowercase();
    // A letter in lower case may be composed in another way.
    normaliser.normalize(&lower).into_owned()
}

/// Decodes once. Two bytes that say an ASCII character are taken for it (RFC 3629 section 10).
fn decode(bytes: &[u8]) -> Vec<u8> {
    let decoded: Vec<u8> = percent_decode(bytes).collect();
    let is_overlong = |pair: &[u8]| matches!(pair, [0xC0 | 0xC1, 0x80..=0xBF]);
    if !decoded.windows(2).any(is_overlong) {
        return decoded;
    }
    let mut mended = Vec::with_capacity(decoded.len());
    let mut rest = decoded.as_slice();
    while let Some((&first, after)) = rest.split_first() {
        if is_overlong(&rest[..rest.len().min(2)]) {
            mended.push((first & 1) << 6 | after[0] & 0x3F);
            rest = &after[1..];
        } else {
            mended.push(first);
            rest = after;
        }
    }
    mended
}

/// The segments between these, decoded once more and folded.
fn split(text: &str, separators: &[char]) -> Vec<String> {
    let decoded = |segment: &str| {
        let decoded = decode(segment.as_bytes());
        fold(&String::from_utf8_lossy(&decoded))
    };
    text.split(separators).map(decoded).collect()
}

/// The readings that were found, none twice.
#[derive(Debug, Default)]
struct Found(SmallVec<[Vec<String>; 4]>);

impl Found {
    /// Adds the readings of a path that was split: with what stands behind its segments, without.
    fn add(&mut self, segments: Vec<String>) {
        self.add_dotted(cut(&segments));
        self.add_dotted(segments);
    }

    /// The same with dots as they are, and resolved (RFC 3986 section 5.2.4).
    fn add_dotted(&mut self, mut segments: Vec<String>) {
        segments.retain(|segment| !matches!(segment.as_str(), "" | "."));
        if segments.iter().any(|segment| segment == "..") {
            self.add_once(resolved(&segments));
        }
        self.add_once(segments);
    }

    fn add_once(&mut self, segments: Vec<String>) {
        if !self.0.contains(&segments) {
            self.0.push(segments);
        }
    }
}

fn resolved(segments: &[String]) -> Vec<String> {
    let mut resolved = Vec::with_capacity(segments.len());
    for segment in segments {
        if segment == ".." {
            resolved.pop();
        } else {
            resolved.push(segment.clone());
        }
    }
    resolved
}

/// Without parameters (RFC 3986 section 3.3), without what would be a query or a fragment, each
/// segment up to where a text ends in C, and without what Windows drops at the end of a name.
fn cut(segments: &[String]) -> Vec<String> {
    let is_end = |text: char| matches!(text, '?' | '#');
    let mut cut = Vec::with_capacity(segments.len());
    for segment in segments {
        let path = segment.split(is_end).next().unwrap_or("");
        let bare = path.split([';', '\0']).next().unwrap_or("");
        let bare = bare.trim_matches(|it: char| it.is_whitespace() || it.is_control());
        let bare = match bare {
            "." | ".." => bare,
            _name => bare.trim_end_matches(['.', ' ']),
        };
        cut.push(bare.to_owned());
        if path.len() < segment.len() {
            break;
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &str) -> Vec<String> {
        let mut all = Vec::new();
        readings(path).any(|segments| {
            all.push(segments.collect::<Vec<_>>().join(" "));
            false
        });
        all
    }

    #[test]
    fn what_can_be_read_in_one_way_is_not_copied() {
        for path in ["/", "/api/prompt", "/object_info/KSampler", "//a//b/", "/x/main-1.2.js", "*"]
        {
            assert!(matches!(readings(path), Readings::Plain(_)), "{path}");
            assert_eq!(all(path).len(), 1, "{path}");
        }
        for path in ["/a%20b", "/a;b", "/a\\b", "/a/../b", "/./a", "/a.", "/a./b", "/ä", "/a b"] {
            assert!(matches!(readings(path), Readings::Several(_)), "{path}");
        }
    }

    #[test]
    fn every_way_in_which_a_server_may_read_it_is_found() {
        for spelling in [
            "//pack//secret/",
            "/./pack/./secret",
            "/x/../pack/secret",
            "/pack/x/..;y/secret",
            "/pack/secret;v=1",
            "/pack;a/;b/secret",
            "/pack\\secret",
            "/%70ack/secr%65t",
            "/%2570ack/%25%37%33ecret",
            "/pack%2Fsecret",
            "/pack%252fsecret",
            "/pack%5csecret",
            "/pack/secret%00.png",
            "/pack/secret%3fx",
            "/pack/secret%23x/y",
            "/pack/secret%20",
            "/pack/secret.",
            "/PACK/%53ecret",
            "/pack/ｓｅｃｒｅｔ",
            "/pack%EF%BC%8Fsecret",
            "/pack/secr%C2%ADet",
            "/pack/%c5%bfecret",
            "/pack%c0%afsecret",
            "/x/%2e%2e/pack/secret",
            "/x/%EF%BC%8E%EF%BC%8E/pack/secret",
        ] {
            let all = all(spelling);
            let is_it = |reading: &String| reading.eq_ignore_ascii_case("pack secret");
            assert!(all.iter().any(is_it), "{spelling}: {all:?}");
        }
    }

    /// ComfyUI's own reading: what is encoded divides no segments.
    #[test]
    fn a_name_with_a_slash_is_also_one_name() {
        for (path, expected) in [
            ("/userdata/workflows%2Fa.json", "userdata workflows/a.json"),
            ("/pack/a%252Fb/run", "pack a/b run"),
            ("/pack/a%5Cb/run", "pack a\\b run"),
            ("/pack/a／b/run", "pack a/b run"),
            ("/pack/a;b/run", "pack a;b run"),
            ("/pack/../run", "pack .. run"),
        ] {
            let all = all(path);
            assert!(all.contains(&expected.to_owned()), "{path}: {all:?}");
        }
    }

    #[test]
    fn the_number_of_readings_is_bounded() {
        let worst = "/a%25252525252e%5c..;/%2f%C0%AF；b%00?%EF%BC%8F".repeat(300);
        assert!(all(&worst).len() <= 4 * 4 * 4);
    }
}
