//! Names of files as clients write them: in the query of `/view`, in the inputs of a graph, and in
//! the `original_ref` of a mask.

mod others;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::assets::is_hash_name;
use super::names::{self, Name, split};
use super::query::{self, parameter};
use super::raw::{self, Object};
use super::walk::{Level, Visit, is_at_key, key_at, quote, replaced, text_at, walk};
use crate::routing::ids::{ContentHash, FileRef, Folder, ends_in_annotation};
pub use others::{Unreadable, without_others};

/// The longest string in a graph that can name a file, in bytes: the longest path of Linux, each
/// byte of it escaped.
const VALUE_MAX: usize = 6 * 4_096 + 2;

/// How deep inside a node's inputs names may be: objects of 3D nodes, lists of files.
const INPUT_DEPTH: usize = 3;

/// A query that names a file, read as `/view` reads it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct View {
    pub file: FileRef,
    /// The backend in the file's name.
    pub backend: Option<String>,
    /// The query without the backend; all other bytes are unchanged.
    pub query: String,
}

/// The hash in a query that names a file by its hash (ComfyUI 0.33 `server.py`, `view_image`).
#[must_use]
pub fn hash_of_query(raw_query: &str) -> Option<String> {
    parameter(raw_query, "filename").filter(|name| is_hash_name(name))
}

/// The file that a query names; `None` if it names none, or one that cannot exist.
#[must_use]
pub fn of_query(raw_query: &str) -> Option<View> {
    let name = parameter(raw_query, "filename").filter(|name| !name.is_empty())?;
    if is_hash_name(&name) {
        return None;
    }
    let (name, annotated) = without_annotation(&name);
    let folder = match annotated {
        Some(folder) => folder,
        None => {
            parameter(raw_query, "type").map_or(Some(Folder::Output), |it| Folder::parse(&it))?
        }
    };
    let subfolder = parameter(raw_query, "subfolder").unwrap_or_default();
    let (rest, mut backend) = split(&subfolder);
    // ComfyUI uses the last segment of the name and ignores the rest.
    let (before, filename) = name.rsplit_once('/').unwrap_or(("", name));
    let file = FileRef::new(folder, rest, filename)?;
    let mut query = raw_query.to_owned();
    if backend.is_some() {
        query = query::with_parameter(raw_query, "subfolder", rest);
    } else {
        backend = split(before).1;
    }
    Some(View { file, backend: backend.map(str::to_owned), query })
}

/// The query of `/view` for a file.
#[must_use]
pub fn view_query(file: &FileRef) -> String {
    let (filename, folder) = (query::encode(file.filename()), file.folder.as_str());
    format!("filename={filename}&type={folder}&subfolder={}", query::encode(file.subfolder()))
}

/// A query with the file that it names replaced.
#[must_use]
pub fn renamed_query(raw_query: &str, file: &FileRef) -> String {
    let query = query::with_parameter(raw_query, "filename", file.filename());
    let query = query::with_parameter(&query, "type", file.folder.as_str());
    query::with_parameter(&query, "subfolder", file.subfolder())
}

/// A string in a graph, parsed as the name of a file: `[subfolder/]name[ [folder]]`
/// (`folder_paths.py`, `annotated_filepath`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Spelled<'a> {
    pub folder: Folder,
    /// Without slashes at its ends, and without the backend.
    pub path: Cow<'a, str>,
    pub backend: Option<&'a str>,
    /// The content hash, if the string is a hash and not a path.
    pub hash: Option<ContentHash>,
    /// It was written as a path from the root of a server, or of one of its drives.
    pub is_absolute: bool,
    /// `" [output]"` as it was written, or empty.
    annotation: &'a str,
}

impl Spelled<'_> {
    /// True if it looks like a hash: no file has such a name.
    #[must_use]
    pub fn is_hash(&self) -> bool {
        is_hash_name(&self.path)
    }

    /// The folder that the string names.
    #[must_use]
    pub fn annotated(&self) -> Option<Folder> {
        (!self.annotation.is_empty()).then_some(self.folder)
    }

    /// The same string with another path and a backend.
    #[must_use]
    pub fn named(&self, path: &str, backend: Option<&str>) -> String {
        let name = backend.map_or_else(|| path.to_owned(), |it| names::tagged_path(path, it));
        format!("{name}{}", self.annotation)
    }
}

/// A string of a graph that names a file, and what is known about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mention<T> {
    /// Its place, with the quotes.
    pub at: Range<usize>,
    pub known: T,
    annotation: String,
    /// The names of the node and of its input.
    pub node: String,
    pub input: String,
}

impl<T> Mention<T> {
    /// The same mention, with other knowledge.
    #[must_use]
    pub fn map<U>(self, other: impl FnOnce(T) -> U) -> Mention<U> {
        let Self { at, known, annotation, node, input } = self;
        Mention { at, known: other(known), annotation, node, input }
    }

    /// A string of the same kind that names this path.
    #[must_use]
    pub fn renamed_to(&self, path: &str) -> String {
        quote(&format!("{path}{}", self.annotation))
    }

    /// A string that names this file.
    #[must_use]
    pub fn renamed(&self, file: &FileRef) -> String {
        let path = file.path();
        match (self.annotation.as_str(), file.folder) {
            // A hash does not name a folder.
            ("", Folder::Output | Folder::Temp) => {
                quote(&format!("{path} [{}]", file.folder.as_str()))
            }
            (annotation, _) => quote(&format!("{path}{annotation}")),
        }
    }
}

/// The strings in the inputs of a graph about which `known` knows something (`body` is that of
/// `POST /prompt`).
#[must_use]
pub fn mentions<T>(body: &[u8], known: impl FnMut(&Spelled<'_>) -> Option<T>) -> Vec<Mention<T>> {
    let mut inputs = Inputs { body, known, mentions: Vec::new() };
    walk(body, &mut inputs);
    inputs.mentions
}

/// The node classes of a submission, by node.
#[must_use]
pub fn classes(body: &[u8]) -> HashMap<String, String> {
    let Some(graph) = Object::read(body).and_then(|body| body.object("prompt")) else {
        return HashMap::new();
    };
    let class = |(node, raw): (&str, &RawValue)| {
        let class = raw::object(raw)?.text("class_type")?.into_owned();
        Some((node.to_owned(), class))
    };
    graph.iter().filter_map(class).collect()
}

/// The submission without backends' names in the part that is kept: its `extra_data`, whose
/// workflow is written into every picture.
#[must_use]
pub fn without_backends(body: Bytes, is_backend: impl Fn(&str) -> bool) -> Bytes {
    if memchr::memchr(b'~', &body).is_none() {
        return body;
    }
    let mut extra = Extra { body: &body, is_backend, parts: Vec::new() };
    walk(&body, &mut extra);
    let parts = extra.parts;
    if parts.is_empty() { body } else { replaced(&body, &parts).into() }
}

struct Extra<'a, K> {
    body: &'a [u8],
    is_backend: K,
    parts: Vec<(Range<usize>, String)>,
}

impl<K: Fn(&str) -> bool> Visit for Extra<'_, K> {
    fn text(&mut self, levels: &[Level<'_>], at: Range<usize>) {
        if levels.first().and_then(|level| level.key) != Some(b"extra_data") {
            return;
        }
        let text = text_at(self.body, at.clone());
        let text = text.and_then(|text| names::without_backends(&text, &self.is_backend));
        self.parts.extend(text.map(|text| (at, quote(&text))));
    }
}

/// The submission with these parts replaced. They must be in order.
#[must_use]
pub fn with_renamed(body: Bytes, parts: &[(Range<usize>, String)]) -> Bytes {
    let is_same = |(at, text): &(Range<usize>, String)| body[at.clone()] == *text.as_bytes();
    if parts.iter().all(is_same) { body } else { replaced(&body, parts).into() }
}

struct Inputs<'a, T, K> {
    body: &'a [u8],
    known: K,
    mentions: Vec<Mention<T>>,
}

impl<T, K: FnMut(&Spelled<'_>) -> Option<T>> Visit for Inputs<'_, T, K> {
    fn text(&mut self, levels: &[Level<'_>], at: Range<usize>) {
        // {"prompt": {"<node>": {"inputs": {"<name>": "<value>"}}}}
        let is_input = (4..4 + INPUT_DEPTH).contains(&levels.len())
            && is_at_key(&levels[0], "prompt")
            && is_at_key(&levels[2], "inputs");
        if !is_input || VALUE_MAX < at.len() {
            return;
        }
        let Some(text) = text_at(self.body, at.clone()) else { return };
        if let Some(spelled) = spelled(&text)
            && let Some(known) = (self.known)(&spelled)
        {
            let annotation = spelled.annotation.to_owned();
            let key = |level| key_at(level).into_owned();
            let (node, input) = (key(&levels[1]), key(&levels[3]));
            self.mentions.push(Mention { at, known, annotation, node, input });
        }
    }
}

/// Parses a value as the name of a file; `None` if it cannot be one.
#[must_use]
pub fn spelled(text: &str) -> Option<Spelled<'_>> {
    let (name, annotated) = without_annotation(text);
    if name.is_empty() || name.contains('\n') {
        return None;
    }
    if is_hash_name(name) {
        let (folder, path) = (annotated.unwrap_or(Folder::Input), Cow::Borrowed(name));
        let hash = ContentHash::parse(name);
        let is_absolute = false;
        return Some(Spelled { folder, path, backend: None, hash, is_absolute, annotation: "" });
    }
    let annotation = &text[name.len()..];
    let is_absolute = name.starts_with(['/', '\\']) || name.as_bytes().get(1) == Some(&b':');
    let name = name.trim_start_matches('/');
    let (subfolder, filename) = match memchr::memrchr2(b'/', b'\\', name.as_bytes()) {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => ("", name),
    };
    let (rest, backend) = split(subfolder);
    let path = match (backend, rest) {
        (None, _) => Cow::Borrowed(name),
        (Some(_), "") => Cow::Borrowed(filename),
        (Some(_), rest) => Cow::Owned(format!("{rest}/{filename}")),
    };
    let path = if path.contains('\\') { Cow::Owned(path.replace('\\', "/")) } else { path };
    let folder = annotated.unwrap_or(Folder::Input);
    Some(Spelled { folder, path, backend, hash: None, is_absolute, annotation })
}

/// The `original_ref` of a mask upload (`server.py`, `upload_mask`): JSON text.
#[must_use]
pub fn of_original_ref(text: &[u8]) -> Option<Name<'static>> {
    #[derive(Deserialize)]
    struct Original {
        filename: String,
        #[serde(default)]
        subfolder: String,
        r#type: Option<String>,
    }
    let original: Original = serde_json::from_slice(text).ok()?;
    let (name, annotated) = without_annotation(&original.filename);
    if is_hash_name(name) {
        return None;
    }
    let written = match original.r#type.as_deref() {
        None => Folder::Output,
        Some(text) => Folder::parse(text)?,
    };
    let (rest, backend) = split(&original.subfolder);
    let file = FileRef::new(annotated.unwrap_or(written), rest, name)?;
    Some(Name { file, backend: backend.map(|it| Cow::Owned(it.to_owned())) })
}

/// True if a name still says a folder when the last one is cut off: no file is asked for so.
#[must_use]
pub fn is_annotated_twice(name: &str) -> bool {
    ends_in_annotation(without_annotation(name).0)
}

/// An `original_ref` for a file.
#[must_use]
pub fn original_ref(file: &FileRef) -> String {
    let (filename, subfolder) = (quote(file.filename()), quote(file.subfolder()));
    let folder = file.folder.as_str();
    format!("{{\"filename\": {filename}, \"subfolder\": {subfolder}, \"type\": \"{folder}\"}}")
}

/// `x.png [temp]` means `x.png` in `temp`, whatever `type` says. The character before the bracket
/// goes with it, whichever it is: ComfyUI cuts by length (0.33 `folder_paths.py`,
/// `annotated_filepath`).
pub(super) fn without_annotation(name: &str) -> (&str, Option<Folder>) {
    for folder in Folder::ALL {
        let rest = name.strip_suffix(']').and_then(|rest| rest.strip_suffix(folder.as_str()));
        if let Some(rest) = rest.and_then(|rest| rest.strip_suffix('[')) {
            let mut kept = rest.chars();
            kept.next_back();
            return (kept.as_str(), Some(folder));
        }
    }
    (name, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: Folder, path: &str) -> FileRef {
        FileRef::of_path(folder, path).unwrap()
    }

    #[track_caller]
    fn view(query: &str, folder: Folder, path: &str, backend: Option<&str>, rest: &str) {
        let (file, backend) = (file(folder, path), backend.map(str::to_owned));
        let expected = View { file, backend, query: rest.to_owned() };
        assert_eq!(of_query(query), Some(expected), "{query}");
    }

    #[test]
    fn a_view_is_read_as_comfyui_reads_it() {
        let same = |query, folder, path| view(query, folder, path, None, query);
        same("filename=a.png&subfolder=x%2Fy&type=temp&rand=0.1", Folder::Temp, "x/y/a.png");
        same("filename=a.png", Folder::Output, "a.png");
        same("filename=d/a.png+%5Btemp%5D", Folder::Temp, "a.png");
        for none in ["type=output", "filename=", "filename=a.png&type=loras", "filename=a%00"] {
            assert_eq!(of_query(none), None, "{none}");
        }
    }

    /// The lengths are those of `annotated_filepath`.
    #[test]
    fn a_folder_at_the_end_of_a_name_is_cut_off_as_comfyui_cuts_it() {
        for (text, name, folder) in [
            ("a.png [output]", "a.png", Folder::Output),
            ("a.pngX[output]", "a.png", Folder::Output),
            ("a.png[output]", "a.pn", Folder::Output),
            ("a.png\n[input]", "a.png", Folder::Input),
            ("a.png\u{1f600}[temp]", "a.png", Folder::Temp),
            ("a.png  [temp]", "a.png ", Folder::Temp),
            ("[temp]", "", Folder::Temp),
            ("a.png [output] [output]", "a.png [output]", Folder::Output),
        ] {
            assert_eq!(without_annotation(text), (name, Some(folder)), "{text:?}");
        }
        assert_eq!(without_annotation("a.png [Output]"), ("a.png [Output]", None));
        let line = spelled("a.png\n[output]").unwrap();
        assert_eq!((&*line.path, line.annotated()), ("a.png", Some(Folder::Output)));
        for twice in ["a.png [output] [output]", "a.pngX[output]X[temp]"] {
            let query = format!("filename={}", query::encode(twice));
            assert_eq!(of_query(&query), None, "{twice}");
            let original = format!(r#"{{"filename": "{twice}"}}"#);
            assert_eq!(of_original_ref(original.as_bytes()), None, "{twice}");
        }
    }

    #[test]
    fn a_view_loses_the_backend_that_is_named_and_nothing_else() {
        let b = Some("gpu-b");
        let query = "filename=a%20b.png&subfolder=~gpu-b&type=output&rand=0.1";
        let rest = "filename=a%20b.png&subfolder=&type=output&rand=0.1";
        view(query, Folder::Output, "a b.png", b, rest);
        let query = "type=temp&subfolder=x%20y%2F%7Egpu-b&filename=a.png";
        let rest = "type=temp&subfolder=x%20y&filename=a.png";
        view(query, Folder::Temp, "x y/a.png", b, rest);
        let whole = "filename=~gpu-b/a.png&type=input";
        view(whole, Folder::Input, "a.png", b, whole);
    }

    #[test]
    fn a_query_names_the_file_that_it_was_made_of() {
        for path in ["a.png", "x/y z/ä+&=%.png"] {
            let file = file(Folder::Temp, path);
            assert_eq!(of_query(&view_query(&file)).unwrap().file, file);
        }
    }

    fn found(body: &str) -> Vec<(String, Folder, Option<String>, String)> {
        let mentions = mentions(body.as_bytes(), |spelled| {
            let is_file = spelled.path.ends_with("png");
            let backend = spelled.backend.map(str::to_owned);
            is_file.then(|| (spelled.path.clone().into_owned(), spelled.folder, backend))
        });
        let row = |it: Mention<(String, Folder, Option<String>)>| {
            let renamed = it.renamed(&FileRef::of_path(it.known.1, "new.png").unwrap());
            (it.known.0, it.known.1, it.known.2, renamed)
        };
        mentions.into_iter().map(row).collect()
    }

    #[test]
    fn names_are_found_in_the_inputs_of_nodes_and_nowhere_else() {
        let body = r#"{"client_id": "a.png", "prompt": {"1": {"class_type": "x.png", "inputs":
            {"image": "a.png", "n": 1, "x": ["2", 0], "y":{"z": "s/b.pngX[temp]"}}}, "2": {"inputs":
            {"t": "a\ncat.png", "u": "s/~gpu-b/c.png [output]",
            "v": {"w": {"x": {"y": "d.png"}}}}}},
            "extra_data": {"1": {"inputs": {"image": "a.png"}}}}"#;
        let expected = [
            ("a.png", Folder::Input, None, "\"new.png\""),
            ("s/b.png", Folder::Temp, None, "\"new.pngX[temp]\""),
            ("s/c.png", Folder::Output, Some("gpu-b"), "\"new.png [output]\""),
        ];
        let expected = expected.map(|(path, folder, backend, renamed)| {
            (path.to_owned(), folder, backend.map(str::to_owned), renamed.to_owned())
        });
        assert_eq!(found(body), expected);
    }

    #[test]
    fn a_hash_is_no_file() {
        let name = format!("blake3:{}", "0a".repeat(32));
        let spelled = spelled(&name).unwrap();
        assert_eq!((spelled.hash, spelled.is_hash()), (ContentHash::parse(&name), true));
        let query = format!("filename={}&type=input", query::encode(&name));
        assert_eq!((of_query(&query), hash_of_query(&query)), (None, Some(name.clone())));
        assert_eq!(hash_of_query("filename=a.png"), None);
        let junk = "blake3:x/y.png [output]";
        let spelled = super::spelled(junk).unwrap();
        assert_eq!((spelled.hash, spelled.is_hash()), (None, true));
        let original = format!(r#"{{"filename": "{name}", "type": "input"}}"#);
        assert_eq!(of_original_ref(original.as_bytes()), None);
        // The replacement names its folder.
        let body = format!(r#"{{"prompt": {{"1": {{"inputs": {{"image": "{name}"}}}}}}}}"#);
        let found = mentions(body.as_bytes(), |spelled| spelled.hash);
        assert_eq!(found[0].renamed(&file(Folder::Output, "x/a.png")), "\"x/a.png [output]\"");
        assert_eq!(found[0].renamed(&file(Folder::Input, "x/a.png")), "\"x/a.png\"");
    }

    #[test]
    fn a_mention_says_where_it_stands_and_a_graph_of_which_class_that_is() {
        let body = br#"{"prompt": {"7": {"inputs": {"image": {"deep": "a.png"}}, "class_type":
            "LoadImage"}, "8": {"inputs": {}}, "9": 1}}"#;
        let found = mentions(body, |_| Some(()));
        assert_eq!((found[0].node.as_str(), found[0].input.as_str()), ("7", "image"));
        let classes = classes(body);
        assert_eq!(classes.get("7").map(String::as_str), Some("LoadImage"));
        assert_eq!(classes.len(), 1);
    }

    #[test]
    fn what_is_kept_of_a_prompt_names_no_backend() {
        let body = r#"{"prompt": {"1": {"inputs": {"image": "~b/a.png"}}}, "extra_data": {"x": "~b",
            "extra_pnginfo": {"workflow": {"w": ["s/~b/a.png [input]", "~c/a.png"]}}}}"#;
        let without = without_backends(body.into(), |name| name == "b");
        let expected = body.replace("s/~b/", "s/").replace(r#""x": "~b""#, r#""x": """#);
        assert_eq!(without, expected);
        let same = without_backends(body.into(), |_| false);
        assert_eq!(same, body);
    }

    #[test]
    fn the_original_of_a_mask_is_an_output_unless_it_says_otherwise() {
        let read = |text: &str| of_original_ref(text.as_bytes());
        let name = read(r#"{"filename": "a.png", "subfolder": "x/~gpu-b"}"#).unwrap();
        assert_eq!(
            (name.file, name.backend.as_deref()),
            (file(Folder::Output, "x/a.png"), Some("gpu-b"))
        );
        let name = read(r#"{"filename": "a.png [temp]", "type": "input"}"#).unwrap();
        assert_eq!(name.file.folder, Folder::Temp);
        let made = file(Folder::Input, "x/\"q\".png");
        assert_eq!(read(&original_ref(&made)).unwrap().file, made);
        for junk in ["", "[]", r#"{"filename": 1}"#, r#"{"filename": "a", "type": "x"}"#] {
            assert_eq!(read(junk), None, "{junk}");
        }
    }
}
