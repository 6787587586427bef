//! Names of files on their way to clients and back (promise R3).
//!
//! If another backend owns the plain name of a file, the file's own backend is added to its name as
//! the last segment of `subfolder`: `~gpu-b`. Clients send a subfolder back unchanged, in views,
//! graphs and mask uploads, and there the segment is removed again. All other bytes stay unchanged.
//! In a name that is only a string the segment comes before the file's own name:
//! `mesh/~gpu-b/M_00001_.glb`.

use std::borrow::Cow;
use std::ops::Range;

use super::strings;
use super::walk::{Level, Visit, quote, replaced, text_at, walk};
use crate::routing::ids::{FileRef, Folder};

/// The first character of the segment that names a backend.
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

/// A name as a client writes it: a file, and the backend in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name<'a> {
    pub file: FileRef,
    /// The last segment of the subfolder without its mark, if it has one.
    pub backend: Option<Cow<'a, str>>,
}

/// A file that a JSON text names, and where the text must be changed to add a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    pub file: FileRef,
    spot: Spot,
    /// It stands in the output of a node, and not in its graph or in an error.
    is_output: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Spot {
    /// An object with a file name. `open` is just after its brace.
    Object { open: usize, subfolder: Option<Range<usize>> },
    /// A string that is a path.
    Text(Range<usize>),
}

impl Told {
    /// True if it is only a string, which does not always name its folder.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        matches!(self.spot, Spot::Text(_))
    }

    /// True for an object in the output of a node. Anybody can write one into a graph.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.is_output && !self.is_bare()
    }

    fn tagged(&self, json: &[u8], backend: &str) -> (Range<usize>, String) {
        let tag = format!("{MARK}{backend}");
        match &self.spot {
            Spot::Text(at) => {
                let text = text_at(json, at.clone()).unwrap_or_default();
                (at.clone(), quote(&strings::tagged(&text, &tag)))
            }
            Spot::Object { open, subfolder: None } => {
                (*open..*open, format!("\"subfolder\": {}, ", quote(&tag)))
            }
            Spot::Object { subfolder: Some(at), .. } => {
                let subfolder = text_at(json, at.clone()).unwrap_or_default();
                (at.clone(), quote(&tagged(&subfolder, backend)))
            }
        }
    }
}

/// The files that a JSON text names: objects with a file name and one of ComfyUI's values of
/// `type`, and, in outputs of nodes, strings that are paths.
#[must_use]
pub fn told_in(json: &[u8], key: NameKey) -> Vec<Told> {
    // Most texts name none.
    let has = |word: &str| memchr::memmem::find(json, word.as_bytes()).is_some();
    let may_tell = has(key.as_str()) || (key == NameKey::Output && has("output"));
    if !may_tell {
        return Vec::new();
    }
    let mut names = Names { json, key, open: Vec::new(), found: Vec::new() };
    walk(json, &mut names);
    names.found
}

/// The same text, with these backends added to the names of these files.
#[must_use]
pub fn with_backends(json: &[u8], told: &[(&Told, &str)]) -> Vec<u8> {
    let tagged = told.iter().map(|(told, backend)| told.tagged(json, backend));
    let mut parts: Vec<(Range<usize>, String)> = tagged.collect();
    parts.sort_by_key(|(range, _)| range.start);
    replaced(json, &parts)
}

/// A subfolder that names a backend.
#[must_use]
pub fn tagged(subfolder: &str, backend: &str) -> String {
    let slash = if subfolder.is_empty() || subfolder.ends_with('/') { "" } else { "/" };
    format!("{subfolder}{slash}{MARK}{backend}")
}

/// True if a subfolder ends with what could be a backend's name. A client may have created such a
/// subfolder. Its files always get a backend, so that their names can be read back unchanged.
#[must_use]
pub fn looks_tagged(subfolder: &str) -> bool {
    last_segment(subfolder).starts_with(MARK)
}

/// Splits the backend off a subfolder: returns the rest, and the backend's name.
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

/// A path with a backend before its last segment.
#[must_use]
pub fn tagged_path(path: &str, backend: &str) -> String {
    strings::tagged(path, &format!("{MARK}{backend}"))
}

/// The same text without the `~NAME` segments whose name `is_backend` knows; `None` if it has none.
#[must_use]
pub fn without_backends(text: &str, is_backend: impl Fn(&str) -> bool) -> Option<String> {
    let mut kept = String::new();
    let mut done = 0;
    for (at, _) in text.match_indices(MARK) {
        if at < done || !begins_segment(&text[..at]) {
            continue;
        }
        let rest = &text[at + 1..];
        let (name, after) = rest.split_at(rest.find(is_no_name).unwrap_or(rest.len()));
        if !is_backend(name) || !ends_segment(after) {
            continue;
        }
        let end = at + 1 + name.len();
        kept.push_str(&text[done..at]);
        done = end + usize::from(after.starts_with('/'));
        if !after.starts_with('/') && kept.ends_with('/') {
            kept.pop();
        }
    }
    if done == 0 { None } else { Some(kept + &text[done..]) }
}

/// Characters that no name of a backend has.
fn is_no_name(character: char) -> bool {
    !character.is_ascii_alphanumeric() && !"._-:".contains(character)
}

fn begins_segment(before: &str) -> bool {
    before.is_empty() || before.ends_with(['/', '\\', '=', '"'])
}

fn ends_segment(after: &str) -> bool {
    after.is_empty() || after.starts_with(['/', '\\', '&', '"', ' '])
}

fn last_segment(subfolder: &str) -> &str {
    subfolder.trim_end_matches('/').rsplit(['/', '\\']).next().unwrap_or("")
}

/// Collects the members of objects that form a name, and strings that are one.
struct Names<'a> {
    json: &'a [u8],
    key: NameKey,
    open: Vec<Members>,
    found: Vec<Told>,
}

/// What is known of an open object or list.
#[derive(Default)]
struct Members {
    name: Option<Range<usize>>,
    kind: Option<Range<usize>>,
    subfolder: Option<Range<usize>>,
    /// Its name is a path.
    is_bare: bool,
    /// Paths in it. If the object is a file itself, they are in the folder of that file, and its
    /// subfolder already names the backend.
    paths: Vec<Told>,
}

impl Names<'_> {
    fn text_of(&self, at: Option<&Range<usize>>) -> Option<Cow<'_, str>> {
        at.and_then(|at| text_at(self.json, at.clone()))
    }

    fn file_of(&self, members: &Members, levels: &[Level<'_>]) -> Option<FileRef> {
        let name = self.text_of(members.name.as_ref())?;
        let folder = match self.text_of(members.kind.as_ref()) {
            Some(kind) => Folder::parse(&kind)?,
            // `/view` reads a name without a type in this way.
            None => {
                let is_output = self.key == NameKey::Output && strings::has_ending(&name);
                (is_output && strings::is_in_output(levels)).then_some(Folder::Output)?
            }
        };
        let subfolder = self.text_of(members.subfolder.as_ref()).unwrap_or_default();
        match subfolder.is_empty() {
            // The jobs of 0.33 make an object of a bare path, and leave the path in its name.
            // ComfyUI answers a view of a name that begins with a slash with 400 (server.py).
            true if self.key == NameKey::Output && !name.starts_with('/') => {
                FileRef::of_path(folder, &name)
            }
            true | false => FileRef::new(folder, &subfolder, &name),
        }
    }
}

impl Names<'_> {
    /// True for a name with folders. A server on Windows writes `\` between them, and a JSON text
    /// can write either as an escape.
    fn is_path(&self, at: &Range<usize>) -> bool {
        let raw = &self.json[at.clone()];
        let has_escape = raw.contains(&b'\\');
        raw.contains(&b'/')
            || (has_escape && self.text_of(Some(at)).is_some_and(|name| name.contains(['/', '\\'])))
    }
}

impl Visit for Names<'_> {
    fn opened(&mut self, _levels: &[Level<'_>]) {
        self.open.push(Members::default());
    }

    fn closed(&mut self, levels: &[Level<'_>]) {
        let (Some(members), Some(level)) = (self.open.pop(), levels.last()) else { return };
        match self.file_of(&members, levels) {
            Some(file) => {
                let spot = match members.name {
                    Some(name) if !file.subfolder().is_empty() && members.is_bare => {
                        Spot::Text(name)
                    }
                    Some(_) | None => {
                        Spot::Object { open: level.open + 1, subfolder: members.subfolder }
                    }
                };
                let is_output = strings::is_only_in_output(levels);
                self.found.push(Told { file, spot, is_output });
            }
            None => {
                let is_name = |told: &Told| match (&told.spot, &members.name) {
                    (Spot::Text(at), Some(name)) => at == name,
                    (Spot::Text(_) | Spot::Object { .. }, _) => false,
                };
                self.found.extend(members.paths.into_iter().filter(|told| !is_name(told)));
            }
        }
    }

    fn text(&mut self, levels: &[Level<'_>], at: Range<usize>) {
        let Some(level) = levels.last() else { return };
        // A list has the key of its object.
        let key = level.key.or_else(|| levels.iter().rev().find_map(|level| level.key));
        let path = match self.key {
            NameKey::Output if strings::is_in_output(levels) => {
                let text = text_at(self.json, at.clone());
                text.and_then(|text| strings::file_of(&text, key))
            }
            NameKey::Output | NameKey::Upload => None,
        };
        let is_name = level.key == Some(self.key.as_str().as_bytes());
        let is_path = is_name && self.is_path(&at);
        let Some(members) = self.open.last_mut() else { return };
        let spot = Spot::Text(at.clone());
        members.paths.extend(path.map(|file| Told { file, spot, is_output: true }));
        match level.key {
            Some(_) if is_name => {
                members.is_bare = is_path;
                members.name = Some(at);
            }
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
        let told = told_in(json.as_bytes(), NameKey::Output);
        let is_tagged = |told: &&Told| tagged.contains(&told.file.path());
        let told: Vec<(&Told, &str)> =
            told.iter().filter(is_tagged).map(|told| (told, "gpu-b")).collect();
        match told.is_empty() {
            true => "unchanged".to_owned(),
            false => String::from_utf8(with_backends(json.as_bytes(), &told)).unwrap(),
        }
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
    fn a_path_in_a_name_gets_its_backend_there_however_its_folders_are_written() {
        for name in [r"z/a.png", r"z\\a.png", r"z\u005ca.png", r"z\u002fa.png"] {
            let json = format!(r#"{{"filename": "{name}", "type": "output"}}"#);
            let told = told_in(json.as_bytes(), NameKey::Output);
            assert_eq!(told.len(), 1, "{name}");
            let out = with_backends(json.as_bytes(), &[(&told[0], "gpu-b")]);
            let out = String::from_utf8(out).unwrap();
            assert!(out.contains("z/~gpu-b/a.png"), "{out}");
            let again = told_in(out.as_bytes(), NameKey::Output);
            assert_eq!(split(again[0].file.subfolder()), ("z", Some("gpu-b")), "{out}");
        }
        // An escape in a name is no folder.
        let escaped = r#"{"filename": "\u00e4.png", "subfolder": "x", "type": "output"}"#;
        assert!(tag(escaped, &["x/\u{e4}.png"]).contains(r#""x/~gpu-b""#));
    }

    #[test]
    fn only_what_names_a_file_in_one_of_comfyuis_folders_is_a_name() {
        for json in [
            r#"{"filename": "a.png"}"#,
            r#"{"output": {"filename": "a.safetensors"}}"#,
            r#"{"output": {"filename": "a.png", "type": "loras"}}"#,
            r#"{"filename": "a.png", "type": "loras"}"#,
            r#"{"filename": 1, "type": "output"}"#,
            r#"{"filename": "", "type": "output"}"#,
            r#"{"filename": "/a.png", "type": "output"}"#,
            r#"{"filename": "a.png", "x": {"type": "output"}}"#,
            "",
            "{",
        ] {
            assert_eq!(told_in(json.as_bytes(), NameKey::Output), [], "{json}");
        }
        let upload = br#"{"name": "a.png", "subfolder": "clipspace/", "type": "input"}"#;
        let file = FileRef::of_path(Folder::Input, "clipspace/a.png").unwrap();
        let told: Vec<_> = told_in(upload, NameKey::Upload).into_iter().map(|it| it.file).collect();
        assert_eq!(told, [file]);
    }

    #[test]
    fn strings_of_an_output_are_names_wherever_they_stand() {
        let json = r#"{"data": {"output": {"result": ["mesh/M.glb", null, {"deep": "b.ply"}],
            "video": "v.mp4", "text": ["a cat.png", "n.txt"], "own": {"filename": "f.png"}}}}"#;
        let expected = json
            .replace("mesh/M.glb", "mesh/~gpu-b/M.glb")
            .replace("b.ply", "~gpu-b/b.ply")
            .replace("v.mp4", "~gpu-b/v.mp4")
            .replace("n.txt", "~gpu-b/n.txt")
            .replace(r#"{"filename""#, r#"{"subfolder": "~gpu-b", "filename""#);
        let all = ["mesh/M.glb", "b.ply", "v.mp4", "n.txt", "f.png", "a cat.png"];
        assert_eq!(tag(json, &all), expected);
        let entry = json.replace("\"output\"", "\"outputs\"");
        assert_eq!(tag(&entry, &all), expected.replace("\"output\"", "\"outputs\""));
    }

    #[test]
    fn strings_of_a_graph_or_beside_an_output_are_no_names() {
        let json = r#"{"p": {"prompt": [1, "p", {"1": {"inputs": {"output": "a.png"}}}, {}],
            "status": {"messages": ["a.png"]}, "workflow": {"outputs": ["a.png"]}}}"#;
        assert_eq!(told_in(json.as_bytes(), NameKey::Output), []);
    }

    #[test]
    fn a_path_in_the_place_of_a_name_is_told_as_a_path() {
        let json = r#"{"outputs": {"5": {"result": [{"filename": "mesh/M.glb", "type": "output",
            "subfolder": "", "mediaType": "3d"}]}}}"#;
        let expected = json.replace("mesh/M.glb", "mesh/~gpu-b/M.glb");
        assert_eq!(tag(json, &["mesh/M.glb"]), expected);
    }

    #[test]
    fn strings_beside_the_name_of_a_file_lie_where_it_lies() {
        let json = r#"{"output": {"gifs": [{"filename": "a.mp4", "subfolder": "", "type": "temp",
            "workflow": "a.png", "fullpath": "/x/a.mp4"}]}}"#;
        let expected = json.replace(r#""subfolder": """#, r#""subfolder": "~gpu-b""#);
        assert_eq!(tag(json, &["a.mp4", "a.png"]), expected);
    }

    #[test]
    fn segments_that_name_a_backend_are_taken_off_and_no_others() {
        let without = |text: &str| without_backends(text, |name| ["b", "h:1"].contains(&name));
        for (text, expected) in [
            ("~b/a.png", "a.png"),
            ("x/~h:1/a.png [input]", "x/a.png [input]"),
            ("~b", ""),
            ("x/~b", "x"),
            ("/view?subfolder=x/~b&type=input", "/view?subfolder=x&type=input"),
            ("~b/a.png\n\"~b/c.png\"", "a.png\n\"c.png\""),
        ] {
            assert_eq!(without(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["a.png", "~c/a.png", "~bc/a.png", "x~b/a.png", "approximately ~b", "~"] {
            assert_eq!(without(text), None, "{text}");
        }
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
