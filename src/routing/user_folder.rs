//! The folder at backends in which a user's uploads are.
//!
//! Where users are asked for, what somebody uploads goes to a subfolder that is made of his name.
//! So two users may upload `photo.png`, also over an older one, and neither touches the other's. He
//! himself never sees that folder: it is added to what he names and taken off what he is told.
//!
//! # Invariants
//!
//! - Two users have two folders, also where a file system ignores capitals: the folder is made of a
//!   digest.
//! - Text in which another user's folder stands never passes as a user's name of a file,
//!   wherever in it that folder is and however it is written ([`UserFolder::names_another`]).

mod spelled;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::ids::FileRef;

/// Begins the names of all these folders. Its letters have no other form that a file system takes
/// for the same.
const MARK: &str = "mooring-of-";

/// What stands in the place of another user's folder: nothing is called so.
const NOBODYS: &str = "mooring-nobody-";

/// How often a target may be escaped.
const DECODED_MAX: usize = 8;

/// How many bytes of the digest are in a name.
const DIGEST_LEN: usize = 12;

/// A user's folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserFolder(String);

impl UserFolder {
    #[must_use]
    pub fn of(user: &str) -> Self {
        let digest = Sha256::digest(user);
        let mut name = MARK.to_owned();
        for byte in digest.iter().take(DIGEST_LEN) {
            // Writing into a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        Self(name)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the user's own file of that name.
    #[must_use]
    pub fn path(&self, path: &str) -> String {
        if path.is_empty() { self.0.clone() } else { format!("{}/{path}", self.0) }
    }

    /// The same for a path that may have the folder in front of it already.
    #[must_use]
    pub fn own_path(&self, path: &str) -> String {
        let mut within = path;
        while let Some(rest) = self.strip(within) {
            within = rest;
        }
        self.path(within)
    }

    /// The file of his own that he may mean by a name: also one that is not known any more.
    #[must_use]
    pub fn own_file(&self, named: &FileRef) -> Option<FileRef> {
        FileRef::of_path(named.folder, &self.own_path(&self.plain(named.path())?))
    }

    /// A path of his own without the folder; `None` if it is not in there.
    #[must_use]
    pub fn strip<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(self.0.as_str())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
    }

    /// A path as he may name it, in the one form that the ledger has: without empty segments and
    /// those that lead nowhere. `None` if it leads out of where it begins, or to another user's.
    #[must_use]
    pub fn plain(&self, path: &str) -> Option<String> {
        if self.names_another(path) {
            return None;
        }
        let mut plain = String::with_capacity(path.len());
        for segment in path.split(['/', '\\']) {
            match segment {
                "" | "." => continue,
                ".." => return None,
                _ if plain.is_empty() => {}
                _ => plain.push('/'),
            }
            plain.push_str(segment);
        }
        Some(plain)
    }

    /// A path in his own folder for what he may not name. It leads nowhere else, and nothing is
    /// there but what he has put there himself.
    #[must_use]
    pub fn nowhere(&self, path: &str) -> String {
        let path = self.without_others(path);
        let is_name = |segment: &&str| !matches!(*segment, "" | "." | "..");
        let segments: Vec<&str> = path.split(['/', '\\']).filter(is_name).collect();
        self.path(&segments.join("/"))
    }

    /// True if another user's folder stands anywhere in a text, in capitals or not.
    #[must_use]
    pub fn names_another(&self, text: &str) -> bool {
        let is_in = |text: &str| self.others(text).next().is_some();
        is_in(text) || spelled::without_ignored(text).is_some_and(|text| is_in(&text))
    }

    /// The same text with nobody's folder in the place of another user's.
    #[must_use]
    pub fn without_others<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let seen = spelled::without_ignored(text).filter(|seen| self.names_another(seen));
        let text = seen.map_or(Cow::Borrowed(text), Cow::Owned);
        let mut kept = String::new();
        let mut done = 0;
        for at in self.others(&text) {
            kept.push_str(&text[done..at.start]);
            kept.push_str(NOBODYS);
            done = at.end;
        }
        if done == 0 { text } else { Cow::Owned(kept + &text[done..]) }
    }

    /// True if a target of a request names another user's folder, also where it is escaped several
    /// times over: what reads it may decode it again.
    #[must_use]
    pub fn is_left_by(&self, target: &str) -> bool {
        let mut text = Cow::Borrowed(target);
        for _ in 0..DECODED_MAX {
            if self.names_another(&text) {
                return true;
            }
            let decoded = percent_encoding::percent_decode_str(&text).decode_utf8_lossy();
            if decoded == text {
                return false;
            }
            text = Cow::Owned(decoded.into_owned());
        }
        true
    }

    /// True if a user's folder may stand in a target: in it, or in an escape.
    #[must_use]
    pub fn may_be_in(target: &str) -> bool {
        let mark = |part: &[u8]| part.eq_ignore_ascii_case(MARK.as_bytes());
        target.contains(['%', '~']) || target.as_bytes().windows(MARK.len()).any(mark)
    }

    /// True if any user's folder stands in a text.
    #[must_use]
    pub fn is_in(text: &str) -> bool {
        text.contains(MARK)
    }

    /// Where names of other users' folders stand in a text. A short name does not say whose the
    /// folder is, so nobody uses one.
    fn others<'a>(&'a self, text: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
        let marked = |at: usize| {
            let part = text.as_bytes().get(at..at + MARK.len());
            let is_mark = part.is_some_and(|part| part.eq_ignore_ascii_case(MARK.as_bytes()));
            (is_mark && !self.is_at(&text[at..])).then(|| at..at + MARK.len())
        };
        let short =
            |at: usize| spelled::short_name(&text.as_bytes()[at..]).map(|length| at..at + length);
        let firsts = memchr::memchr2_iter(b'm', b'M', text.as_bytes());
        firsts.filter_map(move |at| marked(at).or_else(|| short(at)))
    }

    /// True if a text begins with this very folder.
    fn is_at(&self, text: &str) -> bool {
        let rest = text.strip_prefix(self.0.as_str());
        rest.is_some_and(|rest| !rest.starts_with(|it: char| it.is_alphanumeric()))
    }

    /// An answer of a backend as the user is told it: without the folder, wherever a path begins
    /// with it. `None` if it is not in there.
    #[must_use]
    pub fn taken_off(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut kept = Vec::new();
        let mut done = 0;
        for at in memchr::memmem::find_iter(text, self.0.as_bytes()) {
            let after = &text[at + self.0.len()..];
            let slash = match after {
                [b'/', ..] => 1,
                // As a server on Windows writes it into JSON.
                [b'\\', b'\\', ..] => 2,
                [next, ..] if next.is_ascii_alphanumeric() => continue,
                _ => 0,
            };
            kept.extend_from_slice(&text[done..at]);
            done = at + self.0.len() + slash;
        }
        if done == 0 {
            return None;
        }
        kept.extend_from_slice(&text[done..]);
        Some(kept)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn no_escape_hides_another_users_folder_in_a_target() {
        let (ada, bob) = (UserFolder::of("ada"), UserFolder::of("bob"));
        let own = format!("/pack/{}/a%20b.png", ada.as_str());
        assert!(!ada.is_left_by(&own) && bob.is_left_by(&own));
        let mut target = own.replace("mooring", "%6dOORING");
        for _ in 0..5 {
            assert!(UserFolder::may_be_in(&target) && bob.is_left_by(&target), "{target}");
            target = target.replace('%', "%25");
        }
        assert!(UserFolder::may_be_in(&own.replace("mooring", "MOORING").replace('%', "")));
        assert!(!UserFolder::may_be_in("/pack/mooring?x=mooring-off"));
        let deep = format!("/a%{}20", "25".repeat(20));
        assert!(ada.is_left_by(&deep), "nobody escapes that often");
    }

    #[test]
    fn each_user_has_a_folder_of_his_own() {
        let all = ["ada", "Ada", "bob", "ada@example.org"].map(UserFolder::of);
        for (at, one) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|it| !it.0.eq_ignore_ascii_case(&one.0)));
            assert_eq!(one.0.len(), MARK.len() + 2 * DIGEST_LEN);
            let own = one.path("x/a.png");
            assert_eq!(one.strip(&own), Some("x/a.png"));
            assert_eq!(one.plain(&own), Some(own.clone()));
            assert_eq!(UserFolder::of("eve").strip(&own), None);
        }
    }

    #[test]
    fn nobody_names_a_file_of_another_in_any_spelling() {
        let (ada, bob) = (UserFolder::of("ada"), UserFolder::of("bob"));
        let named = ada.path("a.png");
        for text in [
            named.clone(),
            named.to_uppercase(),
            format!("./{named}"),
            format!("x/../{named}"),
            named.replace('/', "\\"),
            format!("/root/ComfyUI/input/{named}"),
            format!("{}x/a.png", bob.as_str()),
            format!("{}/{named}", bob.as_str()),
            "MOORIN~1/a.png".to_owned(),
            "x/mo01ab~12\\a.png".to_owned(),
            named.replacen("ing", "i\u{200c}n\u{feff}g", 1),
        ] {
            assert!(bob.names_another(&text), "{text}");
            assert_eq!(bob.plain(&text), None, "{text}");
            let without = bob.without_others(&text);
            assert!(!bob.names_another(&without) && without != text.as_str(), "{without}");
            let nowhere = bob.nowhere(&text);
            assert_eq!(bob.plain(&nowhere).as_ref(), Some(&nowhere), "{text}");
            assert!(bob.strip(&nowhere).is_some(), "{nowhere}");
        }
        assert!(!ada.names_another(&named));
        for text in ["..", "a/../b.png", "..\\a.png"] {
            assert_eq!(ada.plain(text), None, "{text}");
        }
        for (text, plain) in [("./a.png", "a.png"), ("x//y\\a.png", "x/y/a.png"), ("", "")] {
            assert_eq!(ada.plain(text).as_deref(), Some(plain), "{text}");
        }
    }

    #[test]
    fn the_folder_is_taken_off_what_its_user_is_told() {
        let ada = UserFolder::of("ada");
        let folder = ada.as_str();
        for (told, expected) in [
            (format!(r#"{{"subfolder": "{folder}"}}"#), r#"{"subfolder": ""}"#),
            (format!(r#"{{"subfolder": "{folder}/x"}}"#), r#"{"subfolder": "x"}"#),
            (format!(r#"["{folder}\\a.png", "{folder}/~b/a.png"]"#), r#"["a.png", "~b/a.png"]"#),
            (format!("file: {folder}/a.png"), "file: a.png"),
        ] {
            let told = ada.taken_off(told.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(told).unwrap(), expected);
        }
        assert_eq!(ada.taken_off(b"mooring-of-"), None);
        assert_eq!(ada.taken_off(UserFolder::of("bob").path("a").as_bytes()), None);
    }

    proptest! {
        #[test]
        fn what_is_plain_leads_nowhere_else(text in any::<String>(), path in "[./\\\\am]{0,20}") {
            let ada = UserFolder::of("ada");
            for text in [text, path] {
                if let Some(plain) = ada.plain(&text) {
                    prop_assert!(!plain.split(['/', '\\']).any(|it| ["", ".", ".."].contains(&it))
                        || plain.is_empty());
                    prop_assert_eq!(ada.plain(&plain), Some(plain.clone()));
                    let own = ada.path(&plain);
                    prop_assert_eq!(ada.strip(&own), Some(plain.as_str()));
                }
            }
        }
    }
}
