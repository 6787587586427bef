//! Headers that are sent with every request to one backend, for example because it requires a
//! login.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::kinds::{Faults, Kind, Shape};
use super::problems::Origin;
use super::raw::{Item, Written};
use super::secret::{self, Secretive};
use super::shown;
use super::values::text_in_list;

/// The most headers for one backend, and the most bytes of one value: a value must fit into a head.
pub(super) const HEADERS_MAX: usize = 32;
pub(super) const VALUE_MAX: usize = 4096;

/// Names that only the gateway may set, or that change the meaning of an answer.
const OURS: [&str; 16] = [
    "accept-encoding",
    "comfy-client-id",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "origin",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const OUR_PREFIXES: [&str; 3] = ["if-", "mooring-", "sec-"];

/// The headers of one backend. Their values are never shown.
#[derive(Clone, Default, PartialEq)]
pub struct BackendHeaders {
    headers: HeaderMap,
    /// Headers whose values are in files, by name as written, with their files.
    files: BTreeMap<String, PathBuf>,
    /// A file with complete headers.
    all_in: Option<PathBuf>,
    /// Some values are in the configuration itself.
    has_inline: bool,
}

impl fmt::Debug for BackendHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.headers.keys()).finish()
    }
}

impl BackendHeaders {
    /// True if there are no headers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// Headers whose files cannot be read: they have no values, but the paths of the files are
    /// kept, in case they become readable. `kept` has the keys of `[backends.NAME]`.
    #[must_use]
    pub fn unread(kept: &Value) -> Self {
        let path = |it: &Value| it.as_str().map(PathBuf::from);
        let file = |(name, it): (&String, &Value)| Some((name.clone(), path(it.get("file")?)?));
        let table = kept.get("headers").and_then(Value::as_object);
        Self {
            files: table.into_iter().flatten().filter_map(file).collect(),
            all_in: kept.get("headers_file").and_then(path),
            ..Self::default()
        }
    }

    /// True if there are headers and all their values are in files, whether these were read or not.
    #[must_use]
    pub fn stand_in_files(&self) -> bool {
        !self.has_inline && (!self.files.is_empty() || self.all_in.is_some())
    }

    /// True if one of them has this name, in any case.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    #[must_use]
    pub fn as_map(&self) -> &HeaderMap {
        &self.headers
    }

    /// The files of their values, with the keys of `[backends.NAME]`. Headers without a file are
    /// left out.
    #[must_use]
    pub fn places(&self) -> Map<String, Value> {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let entry = |(name, path)| (name, json!({ "file": absolute(path) }));
        let mut places = Map::new();
        if !self.files.is_empty() {
            let files: Map<_, _> =
                self.files.iter().map(|(name, it)| entry((name.clone(), it))).collect();
            places.insert("headers".to_owned(), files.into());
        }
        let all =
            self.all_in.as_ref().map(|path| ("headers_file".to_owned(), json!(absolute(path))));
        places.extend(all);
        places
    }

    /// True if some values are in no file.
    #[must_use]
    pub fn has_inline(&self) -> bool {
        self.has_inline
    }

    /// Sets them in a request. They replace others of the same names.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// Adds one header, written as `Name: value`.
    ///
    /// # Errors
    /// What is wrong with it, without its value.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        let Some((name, value)) = text.split_once(':') else {
            return Err("an entry is written `Name: value`".to_owned());
        };
        let header: HeaderName = name.trim().parse().map_err(|_| {
            "the text before the first colon is not the name of a header".to_owned()
        })?;
        self.has_inline = true;
        self.add_named(header, name.trim(), value)
    }

    /// `name` is the header's name as it was written.
    fn add_named(&mut self, header: HeaderName, name: &str, value: &str) -> Result<(), String> {
        let value = value.trim();
        let lower = header.as_str();
        if OURS.contains(&lower) || OUR_PREFIXES.iter().any(|it| lower.starts_with(it)) {
            return Err(format!("`{name}` is set by the gateway itself"));
        }
        if value.is_empty() || VALUE_MAX < value.len() {
            let length = value.len();
            return Err(format!("`{name}` has {length} bytes, expected 1 to {VALUE_MAX}"));
        }
        let is_plain = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        let value = HeaderValue::from_str(value).ok().filter(|_| is_plain);
        let Some(mut value) = value else {
            return Err(format!("`{name}` has a byte that is not visible ASCII"));
        };
        if self.headers.contains_key(&header) {
            return Err(format!("`{name}` is given twice"));
        }
        if HEADERS_MAX <= self.headers.len() {
            return Err(format!("there are more than {HEADERS_MAX}"));
        }
        value.set_sensitive(true);
        self.headers.insert(header, value);
        Ok(())
    }

    /// Reads headers from the text of a file: one in each line; `#` begins a comment.
    ///
    /// # Errors
    /// What is wrong with the first wrong line, and its number.
    pub(super) fn add_lines(&mut self, text: &str) -> Result<(), String> {
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.add(line).map_err(|what| format!("line {number}: {what}"))?;
            }
        }
        Ok(())
    }
}

/// The form of a header in a table.
const ENTRY: &str = "a header is a text in quotes, or { file = \"PATH\" }";

/// Adds `Name = "value"`, or `Name = { file = "PATH" }`.
fn add_entry(headers: &mut BackendHeaders, name: &str, value: &Item) -> Result<(), String> {
    let header: HeaderName =
        name.parse().map_err(|_| "a key of the table is not the name of a header".to_owned())?;
    if let Item::Text(text) = value {
        headers.has_inline = true;
        return headers.add_named(header, name, text);
    }
    let path = file_of(value).ok_or_else(|| format!("`{name}`: {ENTRY}"))?;
    headers.files.insert(name.to_owned(), path.to_owned());
    let text = secret::read(path).map_err(|what| format!("`{}` {what}", path.display()))?;
    headers.add_named(header, name, &text).map_err(|what| format!("`{}`: {what}", path.display()))
}

/// The path of `{ file = "PATH" }`.
fn file_of(value: &Item) -> Option<&Path> {
    let Item::Table(entries) = value else { return None };
    match entries.as_slice() {
        [(key, Written { item: Item::Text(path), .. })] if key == "file" && !path.is_empty() => {
            Some(Path::new(path))
        }
        _other => None,
    }
}

/// Headers, such as `Authorization: Bearer …`. No report shows their values.
#[derive(Debug)]
pub(super) struct Headers;

impl Kind for Headers {
    type Value = BackendHeaders;
    const SHAPE: Shape = Shape::List;
    const IS_SECRET: bool = true;

    /// One in each line, because a value may contain commas.
    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        let mut headers = BackendHeaders::default();
        headers.add_lines(text)?;
        Ok(headers)
    }

    fn takes(&self) -> String {
        "a list of headers such as \"Authorization: Bearer ...\", or a table of them".to_owned()
    }

    fn schema(&self) -> Value {
        let file = json!({
            "type": "object",
            "properties": { "file": { "type": "string" } },
            "required": ["file"],
            "additionalProperties": false,
        });
        let value = json!({ "anyOf": [{ "type": "string" }, file] });
        json!({ "anyOf": [
            { "type": "array", "items": { "type": "string" }, "maxItems": HEADERS_MAX },
            { "type": "object", "additionalProperties": value, "maxProperties": HEADERS_MAX },
        ]})
    }

    fn shown(&self, item: &Item) -> Value {
        shown::headers(item)
    }

    fn files(&self, written: &Written) -> Vec<PathBuf> {
        let Item::Table(entries) = &written.item else { return Vec::new() };
        entries.iter().filter_map(|(_, it)| file_of(&it.item)).map(Path::to_owned).collect()
    }

    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        let (mut headers, mut faults) = (BackendHeaders::default(), Faults::new());
        let mut note = |origin: &Origin, added: Result<(), String>| {
            faults.extend(added.err().map(|what| (origin.clone(), what)));
        };
        match &written.item {
            Item::List(list) => {
                for entry in list {
                    let added = text_in_list(entry).and_then(|text| headers.add(&text));
                    note(&entry.origin, added);
                }
            }
            Item::Table(entries) => {
                for (name, value) in entries {
                    note(&value.origin, add_entry(&mut headers, name, &value.item));
                }
            }
            // In a file it is a list or a table; elsewhere it is text.
            Item::Text(_) | Item::Number(_) | Item::Other | Item::Switch(_) => {
                let text = self.text(written);
                note(&written.origin, text.and_then(|text| headers.add_lines(&text)));
            }
        }
        if faults.is_empty() { Ok(headers) } else { Err(faults) }
    }

    /// Replaces the standard method, whose report would show the value.
    fn text(&self, written: &Written) -> Result<String, String> {
        match &written.item {
            Item::Text(text) if !matches!(written.origin, Origin::File { .. }) => Ok(text.clone()),
            Item::Text(_)
            | Item::Number(_)
            | Item::Other
            | Item::Switch(_)
            | Item::List(_)
            | Item::Table(_) => Err(format!("expected {}", self.takes())),
        }
    }
}

/// A file adds to the headers beside it. A header that is in both is refused as given twice.
impl Secretive for Headers {
    fn excludes_file(_value: &Self::Value) -> bool {
        false
    }

    fn take_in(value: &mut Self::Value, text: &str, file: &Path) -> Result<(), String> {
        let (before, has_inline) = (value.headers.len(), value.has_inline);
        value.add_lines(text)?;
        value.has_inline = has_inline;
        value.all_in = Some(file.to_owned());
        if value.headers.len() == before { Err("contains no header".to_owned()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    #[test]
    fn headers_are_read_and_never_shown() {
        let mut headers = BackendHeaders::default();
        headers.add("Authorization: Bearer s3cret:with=more, of it").unwrap();
        headers.add_lines("# from the vault\n\nX-Key:  hidden \r\n").unwrap();
        assert!(headers.has("AUTHORIZATION") && headers.has("x-key") && !headers.has("cookie"));
        assert_eq!(headers.as_map()["authorization"], "Bearer s3cret:with=more, of it");
        assert_eq!(headers.as_map()["x-key"], "hidden");
        let shown = format!("{headers:?} {:?}", headers.as_map());
        assert!(!shown.contains("s3cret") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn what_cannot_be_sent_is_refused_without_showing_it() {
        let mut headers = BackendHeaders::default();
        headers.add("X-Key: first").unwrap();
        for (text, expected) in [
            ("s3cret", "written `Name: value`"),
            ("a b: s3cret", "not the name of a header"),
            ("Host: s3cret", "set by the gateway"),
            ("content-length: s3cret", "set by the gateway"),
            ("Sec-WebSocket-Key: s3cret", "set by the gateway"),
            ("Mooring-Backend: s3cret", "set by the gateway"),
            ("x-key: s3cret", "given twice"),
            ("X-Empty:", "has 0 bytes"),
            ("X-Split: s3cret\r\nX-Other: y", "not visible ASCII"),
            ("X-Umlaut: s3cret\u{e4}", "not visible ASCII"),
        ] {
            let what = headers.add(text).unwrap_err();
            assert!(what.contains(expected), "{text}: {what}");
            assert!(!what.contains("s3cret"), "{what}");
        }
        let what = headers.add_lines("X-A: b\ns3cret\n").unwrap_err();
        assert!(what.starts_with("line 2: ") && !what.contains("s3cret"), "{what}");
    }

    fn of_file(text: &str) -> Result<BackendHeaders, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("[backends.a]\nurl = \"http://a:1\"\n{text}")).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        let loaded = load(&sources).map_err(|problems| problems.to_string());
        let path = file.path().display().to_string();
        loaded.map(|it| it.backends[0].headers.clone()).map_err(|it| it.replace(&path, "FILE"))
    }

    #[test]
    fn a_header_may_stand_in_a_file_of_its_own() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "Bearer s3cret\r\n").unwrap();
        let path = secret.path().display();
        let inline =
            format!("headers = {{ X-Key = \"hidden\", Authorization = {{ file = \"{path}\" }} }}");
        let table =
            format!("[backends.a.headers]\nX-Key = \"hidden\"\nAuthorization.file = \"{path}\"");
        for text in [inline, table] {
            let headers = of_file(&text).unwrap();
            assert_eq!(headers.as_map().len(), 2);
            assert_eq!(headers.as_map()["authorization"], "Bearer s3cret");
            assert!(headers.as_map().values().all(HeaderValue::is_sensitive));
        }
    }

    /// The kept form contains no secret.
    #[test]
    fn it_is_known_where_headers_stand_and_that_some_stand_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let (token, more) = (folder.path().join("token"), folder.path().join("more"));
        std::fs::write(&token, "s3cret").unwrap();
        std::fs::write(&more, "X-More: s3cret\n").unwrap();
        let files = format!(
            "headers_file = \"{}\"\nheaders = {{ X-Key = {{ file = \"{}\" }} }}",
            more.display(),
            token.display()
        );
        let headers = of_file(&files).unwrap();
        assert!(headers.stand_in_files());
        let expected = json!({ "headers": { "X-Key": { "file": token } }, "headers_file": more });
        assert_eq!((&Value::from(headers.places()), headers.has_inline()), (&expected, false));
        // The same while the files cannot be read.
        let unread = BackendHeaders::unread(&expected);
        assert!(unread.stand_in_files() && unread.as_map().is_empty());
        assert_eq!(Value::from(unread.places()), expected);
        assert_eq!(
            BackendHeaders::unread(&json!({ "url": "http://a:1" })),
            BackendHeaders::default()
        );
        for inline in ["headers = { X-Key = \"s3cret\" }", "headers = [\"X-Key: s3cret\"]"] {
            let headers = of_file(inline).unwrap();
            assert!(headers.places().is_empty() && headers.has_inline(), "{inline}");
            assert!(!headers.stand_in_files(), "{inline}");
        }
    }

    #[test]
    fn a_table_of_headers_that_cannot_be_says_why_at_each_line() {
        let report = of_file(
            "[backends.a.headers]\nX-A = 7\nX-B = { fil = \"/x\" }\nX-C = { file = \"/nowhere\" }\n\
             Host = \"s3cret\"\n\"a b\" = \"s3cret\"\nX-D = \"\"\n\
             X-E = { file = \"/\", more = 1 }\n\
             X-F = { file = \"\" }\nX-G = \"fine\"\nx-g = \"s3cret\"\n\
             X-H = { file = \"/dev/null\" }\n",
        )
        .unwrap_err();
        let entry = "a header is a text in quotes, or { file = \"PATH\" }";
        for line in [
            format!("FILE:4: backends.a.headers: `X-A`: {entry}"),
            format!("FILE:5: backends.a.headers: `X-B`: {entry}"),
            "FILE:6: backends.a.headers: `/nowhere` cannot be read: No such file or directory (os \
             error 2)"
                .to_owned(),
            "FILE:7: backends.a.headers: `Host` is set by the gateway itself".to_owned(),
            "FILE:8: backends.a.headers: a key of the table is not the name of a header".to_owned(),
            "FILE:9: backends.a.headers: `X-D` has 0 bytes, expected 1 to 4096".to_owned(),
            format!("FILE:10: backends.a.headers: `X-E`: {entry}"),
            format!("FILE:11: backends.a.headers: `X-F`: {entry}"),
            "FILE:13: backends.a.headers: `x-g` is given twice".to_owned(),
            "FILE:14: backends.a.headers: `/dev/null` is not a regular file".to_owned(),
        ] {
            assert!(report.lines().any(|it| it.trim() == line), "no `{line}` in {report}");
        }
        assert!(!report.contains("s3cret") && report.starts_with("10 problems"), "{report}");
    }

    #[test]
    fn a_file_of_headers_adds_to_those_that_are_written() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        let file = format!("headers_file = \"{}\"", secret.path().display());
        let with = |content: &[u8]| {
            std::fs::write(secret.path(), content).unwrap();
            let loaded = of_file(&format!("headers = [\"X-A: one\"]\n{file}"));
            loaded.map(|it| it.as_map().len()).map_err(|it| it.lines().nth(1).unwrap().to_owned())
        };
        assert_eq!(with(b"X-B: s3cret\n"), Ok(2));
        for (content, expected) in [
            (&b""[..], "is empty"),
            (b"# nothing\n", "contains no header"),
            (b"X-A: s3cret", "`X-A` is given twice"),
            (b"X-B: s3\x01cret", "`X-B` has a byte that is not visible ASCII"),
            (&[b'x'; 70_000], "is larger than 64KiB"),
        ] {
            let said = with(content).unwrap_err();
            assert!(said.ends_with(expected) && !said.contains("s3cret"), "{said}");
        }
    }
}
