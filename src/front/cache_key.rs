//! The key of a cached answer: a path, the parameters that matter, and the caller if the answer is
//! personal.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, COOKIE, HeaderMap};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::headers::{COMFY_USER, other_cookies};
use super::user_file::{Meaning, meaning};
use crate::comfy::endpoint::{is_user_data, plain_path};

/// Lists of a user's files.
const LISTS: [&str; 2] = ["/userdata", "/v2/userdata"];

/// Characters that a request target cannot contain (RFC 3986 section 3.3). `%` is not one of them,
/// because the escapes that are left in a decoded path must stay.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// All settings.
const SETTINGS: &str = "/settings";

/// The prefix of the files of users. As a group it means all of them.
pub(super) const ALL_FILES: &str = "/userdata/";

/// What changes together in one write.
pub type Group = Box<str>;

/// What a cached answer is for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CacheKey {
    /// The path in its normal form: one spelling for each path, and no `/api`.
    path: Box<str>,
    query: Box<str>,
    /// Everything by which a backend may tell users apart.
    asker: Box<[u8]>,
}

impl CacheKey {
    /// The key of a file of the page. It is the same for everyone, whatever the query is.
    #[must_use]
    pub fn asset(path: &str) -> Self {
        Self { path: bare(path), query: Box::default(), asker: Box::default() }
    }

    /// The key of a personal answer. Callers are told apart by ComfyUI's own `Comfy-User`, and by
    /// the credentials that login plug-ins use.
    #[must_use]
    pub fn own(path: &str, query: &str, headers: &HeaderMap) -> Self {
        let mut asker = Vec::new();
        for name in [COMFY_USER, AUTHORIZATION, COOKIE] {
            for value in headers.get_all(&name) {
                let value = value.as_bytes();
                let value =
                    if name == COOKIE { other_cookies(value) } else { Cow::Borrowed(value) };
                if !value.is_empty() {
                    asker.extend_from_slice(&value);
                    asker.push(b'\n');
                }
            }
            asker.push(b'\n');
        }
        Self { path: bare(path), query: query.into(), asker: asker.into() }
    }

    /// Makes it the key of this user only, whom servers with several users are told. No header has
    /// such a control character, so that nobody is taken for him who only says so.
    pub fn is_of_user(&mut self, name: &str) {
        self.asker = [b"\0", name.as_bytes(), b"\n", &self.asker].concat().into();
    }

    /// The key of another path for the same caller.
    #[must_use]
    pub fn at(&self, path: &str) -> Self {
        Self { path: bare(path), query: Box::default(), asker: self.asker.clone() }
    }

    /// True if both keys have the same caller.
    #[must_use]
    pub fn is_of_asker(&self, other: &Self) -> bool {
        self.asker == other.asker
    }

    /// True for settings, saved workflows and users.
    #[must_use]
    pub fn is_user_data(&self) -> bool {
        is_user_data(&self.path)
    }

    /// The group that a write changes together: all settings, all lists, or one file in any
    /// spelling. A server without separate users gives everybody the same, so a write changes what
    /// all callers see.
    #[must_use]
    pub fn group(&self) -> Group {
        match &*self.path {
            path if path == SETTINGS || path.starts_with("/settings/") => SETTINGS.into(),
            path if LISTS.contains(&path) => LISTS[0].into(),
            path => match path.strip_prefix(ALL_FILES).map(meaning) {
                Some(Meaning::File(file)) => format!("{ALL_FILES}{file}").into(),
                Some(Meaning::Settings) => SETTINGS.into(),
                Some(Meaning::Root | Meaning::Odd) => ALL_FILES.into(),
                None => percent_decode_str(path).decode_utf8_lossy().into(),
            },
        }
    }

    /// The groups whose writes change this answer. `None` if they are not known; then it is not
    /// cached.
    #[must_use]
    pub fn written_with(&self) -> Option<Vec<Group>> {
        let group = self.group();
        match &*group {
            ALL_FILES => None,
            file if file.starts_with(ALL_FILES) => Some(vec![group, ALL_FILES.into()]),
            _ => Some(vec![group]),
        }
    }

    /// The groups that a write to this path changes. `POST /userdata/FROM/move/TO` moves a file or
    /// a folder with its contents, into the folder `TO` if that exists.
    ///
    /// The lists come first: not everything is read again after a write, and without the list a
    /// page finds none of its files.
    #[must_use]
    pub fn changes(&self) -> Vec<Group> {
        let Some(name) = self.path.strip_prefix(ALL_FILES) else { return vec![self.group()] };
        let lists = LISTS[0].into();
        let meanings = match name.split_once("/move/") {
            Some((from, to)) => vec![meaning(from), meaning(to)],
            None => vec![meaning(name)],
        };
        match &meanings[..] {
            [Meaning::File(file)] => vec![lists, format!("{ALL_FILES}{file}").into()],
            [Meaning::Settings] => vec![lists, SETTINGS.into()],
            all if all.iter().all(|it| matches!(it, Meaning::File(_))) => {
                vec![lists, ALL_FILES.into()]
            }
            _ => vec![lists, ALL_FILES.into(), SETTINGS.into()],
        }
    }

    /// The paths to read after a write, to get the new content.
    #[must_use]
    pub fn written_paths(&self) -> Vec<String> {
        if *self.group() == *SETTINGS {
            return vec![SETTINGS.to_owned()];
        }
        let is_file = self.path.starts_with(ALL_FILES);
        let (from, to) = self.path.split_once("/move/").filter(|_| is_file).unzip();
        let to = to.map(|to| format!("/userdata/{to}"));
        [from.unwrap_or(&self.path).to_owned()].into_iter().chain(to).collect()
    }

    /// The path and query for a request.
    #[must_use]
    pub fn target(&self) -> String {
        let path = utf8_percent_encode(&self.path, ESCAPED);
        if self.query.is_empty() { path.to_string() } else { format!("{path}?{}", self.query) }
    }

    /// The query, unchanged.
    #[must_use]
    pub fn query(&self) -> &[u8] {
        self.query.as_bytes()
    }

    /// Everything by which a backend may tell users apart. It must not go to logs or disks.
    #[must_use]
    pub fn asker(&self) -> &[u8] {
        &self.asker
    }

    /// The path in its normal form, without `/api`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The approximate size in memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.path.len() + self.query.len() + self.asker.len()
    }
}

/// The normal form of a path. `/api/` is the page too, but without our script.
pub(super) fn bare(path: &str) -> Box<str> {
    match plain_path(path) {
        plain if *plain == *"/" && path != "/" => "/api/".into(),
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn of(path: &str, user: &'static str) -> CacheKey {
        let mut headers = HeaderMap::new();
        headers.insert(COMFY_USER, HeaderValue::from_static(user));
        CacheKey::own(path, "", &headers)
    }

    /// True if the write ends copies of what is read.
    fn meets(read: &CacheKey, write: &CacheKey) -> bool {
        let changed = write.changes();
        read.written_with().is_none_or(|all| all.iter().any(|it| changed.contains(it)))
    }

    fn is_changed(written: &str, read: &str) -> bool {
        meets(&of(read, "ada"), &of(written, "ada"))
    }

    #[track_caller]
    fn check(written: &str, read: &str, is_changed: bool) {
        assert_eq!(self::is_changed(written, read), is_changed, "{written} {read}");
    }

    #[test]
    fn a_write_changes_what_it_names_however_that_is_spelled_and_the_lists_it_is_in() {
        check("/api/userdata/a%2fb.json", "/userdata/a%2Fb.json", true);
        check("/userdata/a.json", "/userdata/b.json", false);
        check("/userdata/a.json/move/b%2Fc.json", "/userdata/a.json", true);
        check("/userdata/a.json/move/b%2Fc.json", "/api/userdata/b%2fc.json", true);
        check("/userdata/a.json", "/userdata", true);
        check("/userdata/a.json", "/api/v2/userdata", true);
        check("/settings/Comfy.X", "/settings", true);
        check("/settings", "/settings/Comfy.X", true);
        check("/settings", "/userdata", false);
        check("/users", "/users", true);
        check("/%75serdata/a.json", "/v2/userdata", true);
        check("/api/%73ettings/Comfy.X", "/settings", true);
        check("/%61pi/settings", "/settings/Comfy.X", true);
        for path in ["/userdata", "/v2/userdata", "/userdata/a.json", "/settings"] {
            let write = of(if path == "/settings" { path } else { "/userdata/a.json" }, "ada");
            assert!(write.changes().contains(&of(path, "bob").group()), "who may be ada: {path}");
        }
    }

    /// ComfyUI resolves them like this (0.33.0, `app/user_manager.py`).
    #[test]
    fn a_write_changes_the_file_that_the_home_resolves() {
        for name in
            ["a%252Fb.json", ".%2Fa%2Fb.json", "x%2F..%2Fa%2Fb.json", "..%2Fme%2Fa%2Fb.json"]
        {
            check(&format!("/userdata/{name}"), "/userdata/a%2Fb.json", true);
            check("/userdata/a%2Fb.json", &format!("/userdata/{name}"), true);
        }
        check("/userdata/workflows/move/old", "/userdata/workflows%2Fa.json", true);
        check("/userdata/a.json/move/b", "/userdata/b%2Fa.json", true);
        check("/userdata/a.json/move/b", "/settings", false);
        check("/userdata/x%2Fcomfy.settings.json/move/.", "/settings", true);
        check("/userdata/.%2Fcomfy.settings.json", "/settings", true);
        check("/userdata/comfy.settings.json/move/b", "/settings", true);
        check("/settings/Comfy.X", "/userdata/comfy.settings.json", true);
        check("/settings/Comfy.X", "/userdata/a.json", false);
        check("/userdata/..%2F..%2Fa.json", "/userdata/b.json", true);
    }

    proptest::proptest! {
        /// A name that a client may write in another form changes what is read under that name.
        #[test]
        fn every_spelling_of_a_file_is_changed_with_it(
            one in spelling(), other in spelling(), moves in proptest::bool::ANY,
        ) {
            let write = if moves { format!("{one}/move/{other}") } else { one };
            let write = of(&format!("/api/userdata/{write}"), "bob");
            let read = of(&format!("/userdata/{other}"), "ada");
            proptest::prop_assert!(meets(&read, &write));
            proptest::prop_assert!(!meets(&read, &of("/userdata/far.json", "ada")));
        }
    }

    /// A spelling of `a/b c.json`: with detours, and each byte plain or encoded once or twice.
    fn spelling() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::*;
        let detour = proptest::sample::select(vec!["", "./", "x/../", "x/y/../../", ".//"]);
        let codes = proptest::collection::vec(0_u8..3, 64);
        (detour.clone(), detour, codes).prop_map(|(first, second, codes)| {
            let plain = format!("{first}a/{second}b c.json");
            let byte = |(byte, code): (u8, &u8)| match (code, byte) {
                (0, byte) if byte != b'/' && byte != b' ' => char::from(byte).to_string(),
                (0 | 1, byte) => format!("%{byte:02X}"),
                (_, byte) => format!("%25{byte:02x}"),
            };
            plain.bytes().zip(codes.iter().cycle()).map(byte).collect()
        })
    }

    #[test]
    fn spellings_of_a_path_are_one_key_and_the_page_below_api_is_another() {
        let key = of("/api/userdata/a%20b%2Fc.json", "ada");
        assert_eq!(key, of("/%75serdata/a b%2fc.json".replace("%2f", "%2F").as_str(), "ada"));
        assert!(key.is_user_data() && of("/%73ettings", "").is_user_data());
        assert_eq!(key.target(), "/userdata/a%20b%2Fc.json");
        assert_eq!(of("/userdata/50%25.json", "").target(), "/userdata/50%25.json");
        assert_eq!(of("/userdata/%C3%A4.json", "").target(), "/userdata/%C3%A4.json");
        assert_eq!(
            CacheKey::own("/v2/userdata", "path=x", &HeaderMap::new()).target(),
            "/v2/userdata?path=x"
        );
        for other in ["/api/", "/%61pi/"] {
            assert_ne!(of(other, ""), of("/", ""), "{other}");
            assert_eq!(of(other, ""), of("/api/", ""));
        }
    }
}
