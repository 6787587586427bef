//! Names of files on their way to clients and back (promise R3).
//!
//! The file of a name that another backend owns is told with its own backend as the last segment of
//! `subfolder`: `~gpu-b`. Clients hand a subfolder back as they got it, in views, graphs and mask
//! uploads, and there it is taken off again. Everything else stays byte for byte.

use std::borrow::Cow;
use std::ops::Range;

use super::walk::{Level, Visit, quote, replaced, text_at, walk};
use crate::routing::ids::{FileRef, Folder};

/// What begins the segment that names a backend.
const MARK: char = '~';

/// The key of a file's name: `filename` in outputs, `name` in answers to uploads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameKey {
    Output,
    Upload,
}

impl NameKey {
    fn as_str(self) -> &'static str {
        match self {
            Self::Output => "filename",
            Self::Upload => "name",
        }
    }
}

/// A name as a client writes it: a file, and the backend that it names with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name<'a> {
    pub file: FileRef,
    /// The last segment of the subfolder without its mark, if it has one.
    pub backend: Option<Cow<'a, str>>,
}

/// The files that a JSON text tells of: objects with a file name and a `type` of ComfyUI's.
#[must_use]
pub fn told_in(json: &[u8], key: NameKey) -> Vec<FileRef> {
    found(json, key).into_iter().map(|found| found.file).collect()
}

/// The same text with the backend in the names for which `backend_of` gives one; `None` if it gives
/// none.
#[must_use]
pub fn with_backends<'a>(
    json: &[u8],
    key: NameKey,
    mut backend_of: impl FnMut(&FileRef) -> Option<&'a str>,
) -> Option<Vec<u8>> {
    let mut parts: Vec<(Range<usize>, String)> = Vec::new();
    for found in found(json, key) {
        if let Some(backend) = backend_of(&found.file) {
            parts.push(found.tagged(json, backend));
        }
    }
    parts.sort_by_key(|(range, _)| range.start);
    (!parts.is_empty()).then(|| replaced(json, &parts))
}

/// A subfolder that names a backend.
#[must_use]
pub fn tagged(subfolder: &str, backend: &str) -> String {
    let slash = if subfolder.is_empty() || subfolder.ends_with('/') { "" } else { "/" };
    format!("{subfolder}{slash}{MARK}{backend}")
}

/// True if a subfolder ends in what could be a backend's name. One that a client made up is told
/// with a backend, whoever owns it, so that it is read back as it was.
#[must_use]
pub fn looks_tagged(subfolder: &str) -> bool {
    last_segment(subfolder).starts_with(MARK)
}

/// Takes the backend off a subfolder: what is left, and its name.
#[must_use]
pub fn split(subfolder: &str) -> (&str, Option<&str>) {
    let trimmed = subfolder.trim_end_matches('/');
    let last = last_segment(trimmed);
    match last.strip_prefix(MARK).filter(|backend| !backend.is_empty()) {
        Some(backend) => {
            (trimmed[..trimmed.len() - last.len()].trim_end_matches('/'), Some(backend))
        }
        None => (subfolder, None),
    }
}

fn last_segment(subfolder: &str) -> &str {
    subfolder.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or("")
}

/// A file that a text tells of, and where it must be changed to name a backend.
struct Found {
    file: FileRef,
    /// Just past the opening brace.
    open: usize,
    subfolder: Option<Range<usize>>,
}

impl Found {
    fn tagged(&self, json: &[u8], backend: &str) -> (Range<usize>, String) {
        let Some(at) = &self.subfolder else {
            let member = format!("\"subfolder\": {}, ", quote(&format!("{MARK}{backend}")));
            return (self.open..self.open, member);
        };
        let subfolder = text_at(json, at.clone()).unwrap_or_default();
        (at.clone(), quote(&tagged(&subfolder, backend)))
    }
}

fn found(json: &[u8], key: NameKey) -> Vec<Found> {
    // Most texts tell of none.
    if memchr::memmem::find(json, key.as_str().as_bytes()).is_none() {
        return Vec::new();
    }
    let mut names =
        Names { json, key: key.as_str().as_bytes(), open: Vec::new(), found: Vec::new() };
    walk(json, &mut names);
    names.found
}

/// Gathers the members of objects that make a name.
struct Names<'a> {
    json: &'a [u8],
    key: &'a [u8],
    open: Vec<Members>,
    found: Vec<Found>,
}

#[derive(Default)]
struct Members {
    name: Option<Range<usize>>,
    kind: Option<Range<usize>>,
    subfolder: Option<Range<usize>>,
}

impl Visit for Names<'_> {
    fn opened(&mut self, _levels: &[Level<'_>]) {
        self.open.push(Members::default());
    }

    fn closed(&mut self, levels: &[Level<'_>]) {
        let (Some(members), Some(level)) = (self.open.pop(), levels.last()) else { return };
        let text = |at: &Range<usize>| text_at(self.json, at.clone());
        let Some(name) = members.name.as_ref().and_then(text) else { return };
        let Some(kind) = members.kind.as_ref().and_then(text) else { return };
        let subfolder = members.subfolder.as_ref().and_then(text).unwrap_or_default();
        let file = Folder::parse(&kind).and_then(|kind| FileRef::new(kind, &subfolder, &name));
        if let Some(file) = file {
            let open = level.open + 1;
            self.found.push(Found { file, open, subfolder: members.subfolder });
        }
    }

    fn text(&mut self, levels: &[Level<'_>], at: Range<usize>) {
        let (Some(members), Some(level)) = (self.open.last_mut(), levels.last()) else { return };
        match level.key {
            Some(key) if key == self.key => members.name = Some(at),
            Some(b"type") => members.kind = Some(at),
            Some(b"subfolder") => members.subfolder = Some(at),
            Some(_) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(json: &str, tagged: &[&str]) -> String {
        let backend_of = |file: &FileRef| tagged.contains(&file.path()).then_some("gpu-b");
        let text = with_backends(json.as_bytes(), NameKey::Output, backend_of);
        text.map_or("unchanged".to_owned(), |text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_name_gets_its_backend_and_nothing_else_changes() {
        let json = r#"{"type": "executed", "data": {"output": {"images": [{"filename": "a.png",
            "subfolder": "", "type": "output"}, {"filename":"b.png","type":"temp"}, {"filename":
            "c.png", "subfolder": "x/ä", "type": "output"}], "x": [NaN]}, "prompt_id": "p"}}"#;
        let expected = json
            .replace(r#""subfolder": "","#, r#""subfolder": "~gpu-b","#)
            .replace(r#"{"filename":"b"#, r#"{"subfolder": "~gpu-b", "filename":"b"#)
            .replace(r#""x/ä""#, r#""x/ä/~gpu-b""#);
        assert_eq!(tag(json, &["a.png", "b.png", "x/ä/c.png"]), expected);
        assert_eq!(tag(json, &["other.png"]), "unchanged");
    }

    #[test]
    fn only_what_names_a_file_in_one_of_comfyuis_folders_is_a_name() {
        for json in [
            r#"{"filename": "a.png"}"#,
            r#"{"filename": "a.png", "type": "loras"}"#,
            r#"{"filename": 1, "type": "output"}"#,
            r#"{"filename": "", "type": "output"}"#,
            r#"{"filename": "a.png", "x": {"type": "output"}}"#,
            "",
            "{",
        ] {
            assert_eq!(told_in(json.as_bytes(), NameKey::Output), [], "{json}");
        }
        let upload = br#"{"name": "a.png", "subfolder": "clipspace/", "type": "input"}"#;
        let file = FileRef::of_path(Folder::Input, "clipspace/a.png").unwrap();
        assert_eq!(told_in(upload, NameKey::Upload), [file]);
    }

    #[test]
    fn what_is_put_on_comes_off_again() {
        for (subfolder, rest, backend) in [
            ("~gpu-b", "", Some("gpu-b")),
            ("x/y/~gpu-b", "x/y", Some("gpu-b")),
            ("x/~gpu-b/", "x", Some("gpu-b")),
            ("~a/~b", "~a", Some("b")),
            ("x/y", "x/y", None),
            ("x~y", "x~y", None),
            ("~", "~", None),
            ("", "", None),
        ] {
            assert_eq!(split(subfolder), (rest, backend), "{subfolder}");
        }
        assert!(looks_tagged("x/~y/") && looks_tagged("x\\~y") && !looks_tagged("~x/y"));
    }
}
