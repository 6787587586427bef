//! In which ways a server, or a proxy before it, may read a path: what is refused is refused in
//! every spelling.
//!
//! ComfyUI takes a path as it is, but for percent-encoding. A middleware, another server framework
//! or a proxy on the way may also decode it again, drop what stands behind a `;`, drop empty
//! segments, take `\` for `/`, ignore letter case or compare Unicode forms. Each of these makes a
//! route of a path that does not look like one. [`readings`] gives all of them. ComfyUI's own
//! reading is always among them, with empty segments and dots as they are.
//!
//! A path with `..` has no certain reading. Where it leads depends on what a reader drops before
//! he resolves it, and below a folder of files on that folder's name. So such a path is
//! [`Readings::Doubtful`], and so is one that would take long to read. Browsers send neither.
//!
//! Nearly all paths can be read in one way only. Those are recognised by one look at their bytes,
//! and cost no allocation.

use std::slice;

use icu_normalizer::DecomposingNormalizerBorrowed;
use percent_encoding::percent_decode;
use smallvec::SmallVec;

/// Escapes may be nested; there are fewer proxies in a row than this.
const DECODED_MAX: usize = 4;

/// Paths that are longer have no several readings: they are in doubt. In bytes, and in segments.
/// What one request may cost is bounded by this.
const LEN_MAX: usize = 3 << 10;
const SEGMENTS_MAX: usize = 48;

/// All readings of a path.
#[derive(Debug)]
pub enum Readings<'a> {
    /// There is only one.
    Plain(&'a str),
    Several(SmallVec<[Vec<String>; 4]>),
    /// Nobody can say where it leads.
    Doubtful,
}

/// The ways to read a path. It is in the form in which it was sent, below `server.base_path`.
#[must_use]
pub fn readings(path: &str) -> Readings<'_> {
    if is_plain(path) {
        return Readings::Plain(path);
    }
    if LEN_MAX < path.len() || SEGMENTS_MAX < path.bytes().filter(|it| *it == b'/').count() {
        return Readings::Doubtful;
    }
    let mut found = Found::default();
    found.add_of_comfyui(path);
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
    found.ended()
}

impl Readings<'_> {
    /// True if nobody can say where the path leads.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        matches!(self, Self::Doubtful)
    }

    /// True if a reading is what `is_it` looks for. A path in doubt has none.
    pub fn any(&self, mut is_it: impl FnMut(Segments<'_>) -> bool) -> bool {
        match self {
            Self::Plain(path) => is_it(Segments::Raw(path)),
            Self::Several(all) => all.iter().any(|one| is_it(Segments::Mended(one.iter()))),
            Self::Doubtful => false,
        }
    }
}

/// The segments of one reading. ASCII letters may be capitals. Of a path with several readings one
/// may be empty or `.`.
#[derive(Clone, Debug)]
pub enum Segments<'a> {
    /// What is left of a path with one reading.
    Raw(&'a str),
    Mended(slice::Iter<'a, String>),
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        match self {
            Self::Raw(rest) => {
                let path = rest.strip_prefix('/').unwrap_or(rest);
                let end = path.bytes().position(|byte| byte == b'/').unwrap_or(path.len());
                let (segment, below) = path.split_at(end);
                *rest = below;
                (!segment.is_empty()).then_some(segment)
            }
            Self::Mended(segments) => segments.next().map(String::as_str),
        }
    }
}

/// What a path has shown up to a byte.
const ORDINARY: u8 = 0;
const DOT: u8 = 1;
const SLASH: u8 = 2;
/// Not every reader takes it as it is, whatever follows.
const ODD: u8 = 3;

/// What a path has shown after a byte, by what it had shown before. It is asked for every byte of
/// every path.
static AFTER: [[u8; 256]; 4] = {
    let plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~&=+:,@!$'()*";
    let mut after = [[ODD; 256]; 4];
    let mut at = 0;
    while at < plain.len() {
        let byte = plain[at] as usize;
        (after[0][byte], after[1][byte], after[2][byte]) = (ORDINARY, ORDINARY, ORDINARY);
        at += 1;
    }
    // Windows drops dots at the end of a name, and many readers drop empty segments.
    (after[ORDINARY as usize][b'.' as usize], after[SLASH as usize][b'.' as usize]) = (DOT, DOT);
    after[ORDINARY as usize][b'/' as usize] = SLASH;
    after
};

/// True for a path that can be read in one way only, but for letter case and a slash at its end.
fn is_plain(path: &str) -> bool {
    let after = |shown: u8, byte| AFTER[usize::from(shown & 3)][usize::from(byte)];
    matches!(path.bytes().fold(ORDINARY, after), ORDINARY | SLASH)
}

/// One form of what may be meant as the same text: NFKD, in one letter case, without what is
/// invisible. What a character becomes does not depend on its neighbours, so that the form of a
/// part of a text is a part of the form of the text.
#[must_use]
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let normaliser = DecomposingNormalizerBorrowed::new_nfkd();
    let visible: String = text.chars().filter(|it| !is_invisible(*it)).collect();
    let normal = normaliser.normalize(&visible);
    // Capitals first: both forms of sigma, and `ss` for the sharp s, are one then.
    let lower: String =
        normal.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
    normaliser.normalize(&lower).into_owned()
}

/// Default_Ignorable_Code_Point of Unicode 16.
fn is_invisible(it: char) -> bool {
    matches!(
        it,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
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
    let below = text.strip_prefix(separators).unwrap_or(text);
    below.split(separators).map(decoded).collect()
}

/// The readings that were found, none twice.
#[derive(Debug, Default)]
struct Found(SmallVec<[Vec<String>; 4]>);

impl Found {
    /// Adds ComfyUI's own reading (aiohttp: split, then decoded once, and nothing folded).
    fn add_of_comfyui(&mut self, path: &str) {
        let decoded = |segment: &str| {
            let decoded = decode(segment.as_bytes());
            String::from_utf8_lossy(&decoded).into_owned()
        };
        let path = path.strip_prefix('/').unwrap_or(path);
        self.add_dropped(path.split('/').map(decoded).collect());
    }

    /// Adds the readings of a path that was split: with what stands behind its segments, without.
    fn add(&mut self, segments: Vec<String>) {
        self.add_dropped(cut(&segments));
        self.add_dropped(segments);
    }

    /// With dots and empty segments as they are, and for readers who drop one of them or both.
    fn add_dropped(&mut self, segments: Vec<String>) {
        for dropped in [&["."][..], &[""], &[".", ""]] {
            let is_dropped = |segment: &String| dropped.contains(&segment.as_str());
            if segments.iter().any(is_dropped) {
                self.add_once(segments.iter().filter(|it| !is_dropped(it)).cloned().collect());
            }
        }
        self.add_once(segments);
    }

    fn add_once(&mut self, segments: Vec<String>) {
        if !self.0.contains(&segments) {
            self.0.push(segments);
        }
    }

    fn ended<'a>(self) -> Readings<'a> {
        let climbs = |segments: &Vec<String>| segments.iter().any(|segment| segment == "..");
        if self.0.iter().any(climbs) { Readings::Doubtful } else { Readings::Several(self.0) }
    }
}

/// Without parameters (RFC 3986 section 3.3), without what would be a query or a fragment, each
/// segment up to where a text ends in C, and without what Windows drops at the end of a name.
fn cut(segments: &[String]) -> Vec<String> {
    let is_end = |text: char| matches!(text, '?' | '#');
    let mut cut = Vec::with_capacity(segments.len());
    for segment in segments {
        let path = segment.split(is_end).next().unwrap_or("");
        let bare = path.split([';', '\0']).next().unwrap_or("");
        // Python's `urlsplit` drops tabs and ends of lines wherever they are.
        let bare: String = bare.chars().filter(|it| !it.is_control()).collect();
        let bare = match bare.trim() {
            dots @ ("." | "..") => dots,
            name => name.trim_end_matches(['.', ' ']),
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
        for path in ["/", "/api/prompt", "/object_info/KSampler", "/a/b/", "/x/main-1.2.js", "*"] {
            assert!(matches!(readings(path), Readings::Plain(_)), "{path}");
            assert_eq!(all(path).len(), 1, "{path}");
        }
        for path in ["/a%20b", "/a;b", "/a\\b", "//a/b", "/./a", "/a.", "/a./b", "/ä", "/a b"] {
            assert!(matches!(readings(path), Readings::Several(_)), "{path}");
        }
    }

    #[test]
    fn every_way_in_which_a_server_may_read_it_is_found() {
        for spelling in [
            "//pack//secret/",
            "/./pack/./secret",
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
            "/pack/sec%09ret",
            "/pack/%CD%8Fsecret",
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
            ("/pack/./run", "pack . run"),
            ("/pack//run", "pack  run"),
            ("/pack/%C2%AD/run", "pack \u{ad} run"),
            ("/PACK/%2e/Ä", "PACK . Ä"),
        ] {
            let all = all(path);
            assert!(all.contains(&expected.to_owned()), "{path}: {all:?}");
        }
    }

    #[test]
    fn where_a_path_that_climbs_leads_nobody_knows() {
        for path in [
            "/x/../pack",
            "/..",
            "/pack/..%2fweb%2fs.json",
            "/pack//../admin",
            "/pack/%2e%2e/../admin",
            "/pack/x/..;y/secret",
            "/x/%EF%BC%8E%EF%BC%8E/pack",
            "/x%5c..%5cy",
            "/%252e%252e/x",
            "/x/.. /y",
        ] {
            assert!(readings(path).is_doubtful(), "{path}");
        }
        for path in ["/a..b/c", "/...x", "/x/..y", "/x/main..js"] {
            assert!(!readings(path).is_doubtful(), "{path}");
        }
    }

    #[test]
    fn what_would_take_long_to_read_is_in_doubt() {
        let path = |segment: &str, count| segment.repeat(count);
        assert!(readings(&path("/a%20", SEGMENTS_MAX + 1)).is_doubtful());
        assert!(readings(&path("/a%20b%20c%20d%20e%20f%20", LEN_MAX / 24)).is_doubtful());
        assert!(!readings(&path("/a", LEN_MAX)).is_doubtful());
        assert!(!readings(&format!("/userdata/{}", "%E4%BD%A0".repeat(200))).is_doubtful());
    }

    /// What a pattern says of a part of a name has to be found in the whole.
    #[test]
    fn the_form_of_a_part_is_a_part_of_the_form() {
        for (part, whole) in
            [("run", "run\u{303}x"), ("ΟΔΟΣ", "ΟΔΟΣΑ"), ("e", "e\u{301}"), ("STRASS", "straße")]
        {
            assert!(fold(whole).starts_with(&fold(part)), "{part} {whole}");
        }
    }

    #[test]
    fn the_number_of_readings_is_bounded() {
        let worst = "/a%25252525252e%5cb;/%2f%C0%AF；b%00?%EF%BC%8F".repeat(15);
        assert!(!readings(&worst).is_doubtful());
        assert!(all(&worst).len() <= 4 + 4 * 4 * 2 * 4);
    }
}
