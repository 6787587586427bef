//! Merges the lists of choices in `/object_info` of several servers.
//!
//! A page compares the value of an input with its list, and calls a value missing that is not in
//! it. So the lists have the values of all servers: a prompt goes where its files are, or gets
//! copies of them, and a prompt that is refused for a missing model or node goes to a server that
//! has it.
//!
//! A body is parsed once, however often it is received: only the places of its lists are kept. What
//! is the same for everyone is merged once as well ([`Union`]). Lists of files are not, because
//! each caller sees only some files, under the names that views and graphs accept.

mod file_list;
mod has;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::file_inputs::Kind;
use super::raw::{self, Object};
use super::strings::has_ending;
use super::walk::quote;
use crate::routing::ids::Folder;
use crate::routing::user_folder::UserFolder;
use file_list::FileList;
pub use has::Has;

/// One body of `/object_info`, read.
#[derive(Debug)]
pub struct NodeInfo {
    body: Bytes,
    classes: Vec<Class>,
    /// By name, the index in `classes`.
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
struct Class {
    name: String,
    /// The place of its value.
    at: Range<usize>,
    combos: Vec<Combo>,
    /// The number of its outputs, if that is certain.
    outputs: Option<usize>,
    /// The inputs that the server fills in.
    hidden: Vec<String>,
}

/// A list of choices.
#[derive(Debug)]
struct Combo {
    input: String,
    /// The list with its brackets.
    at: Range<usize>,
    /// The strings, each as it is written.
    entries: Vec<Range<usize>>,
    /// The folder whose files it lists; `None` for anything else.
    files: Option<Folder>,
    /// The strings as texts, once it was looked for one.
    texts: OnceLock<HashSet<Box<str>>>,
}

impl NodeInfo {
    /// Parses a body; `None` if it is not `/object_info`.
    #[must_use]
    pub fn read(body: Bytes) -> Option<Self> {
        let text = std::str::from_utf8(&body).ok()?;
        let object = Object::read(&body)?;
        let place = Place { start: text.as_ptr() as usize };
        let classes: Vec<Class> =
            object.iter().map(|(name, raw)| Class::read(name, raw, place)).collect();
        let names = classes.iter().enumerate().map(|(index, class)| (class.name.clone(), index));
        let by_name = names.collect();
        Some(Self { body, classes, by_name })
    }

    /// What the body says about an input; `None` if it does not have that class.
    #[must_use]
    pub fn kind(&self, class: &str, input: &str) -> Option<Kind> {
        let class = self.class(class)?;
        if let Some(combo) = class.combos.iter().find(|combo| combo.input == input) {
            return Some(if combo.files.is_some() { Kind::Files } else { Kind::Choices });
        }
        let object = Object::read(&self.body[class.at.clone()])?.object("input")?;
        let declared = object.iter().find_map(|(_, section)| raw::object(section)?.get(input));
        let options = declared.and_then(raw::list).and_then(|parts| raw::object(parts.get(1)?));
        let is_prose = options.is_some_and(|it| it.get("multiline").is_some_and(is_true));
        Some(if is_prose { Kind::Prose } else { Kind::Other })
    }

    /// The number of outputs of a class, if that is certain.
    #[must_use]
    pub fn outputs(&self, class: &str) -> Option<usize> {
        self.class(class)?.outputs
    }

    /// True for an input that the server fills in.
    #[must_use]
    pub fn is_hidden(&self, class: &str, input: &str) -> bool {
        self.class(class).is_some_and(|class| class.hidden.iter().any(|it| it == input))
    }

    fn class(&self, name: &str) -> Option<&Class> {
        self.by_name.get(name).map(|index| &self.classes[*index])
    }

    fn combo(&self, class: &str, input: &str) -> Option<&Combo> {
        self.class(class)?.combos.iter().find(|combo| combo.input == input)
    }

    fn written(&self, at: &Range<usize>) -> &str {
        // This range was found in valid UTF-8.
        std::str::from_utf8(&self.body[at.clone()]).unwrap_or_default()
    }

    fn texts<'a>(&'a self, combo: &'a Combo) -> impl Iterator<Item = Cow<'a, str>> {
        combo.entries.iter().filter_map(|at| super::walk::text_at(&self.body, at.clone()))
    }
}

fn is_true(raw: &RawValue) -> bool {
    raw.get() == "true"
}

/// Where a part of a text is.
#[derive(Clone, Copy)]
struct Place {
    start: usize,
}

impl Place {
    fn of(self, part: &str) -> Range<usize> {
        let start = part.as_ptr() as usize - self.start;
        start..start + part.len()
    }
}

impl Class {
    fn read(name: &str, raw: &RawValue, place: Place) -> Self {
        let class = raw::object(raw).unwrap_or_default();
        let input = class.object("input").unwrap_or_default();
        let hidden = input.object("hidden").unwrap_or_default();
        // A normal input of the same name has priority. Most classes have no hidden ones.
        let given = ["required", "optional"].iter().filter(|_| hidden.iter().next().is_some());
        let given: Vec<Object<'_>> = given.filter_map(|it| input.object(it)).collect();
        let is_given = |name: &str| given.iter().any(|it| it.get(name).is_some());
        let hidden = hidden.iter().map(|(name, _)| name).filter(|name| !is_given(name));
        Self {
            name: name.to_owned(),
            at: place.of(raw.get()),
            combos: combos_of(&input, place),
            outputs: outputs_of(&class),
            hidden: hidden.map(str::to_owned).collect(),
        }
    }
}

/// The number of outputs of one of ComfyUI's own classes. Classes of packs may have more than they
/// list: their list of types may accept every index.
fn outputs_of(class: &Object<'_>) -> Option<usize> {
    let module = class.text("python_module")?;
    let is_own = module == "nodes"
        || ["comfy_extras.", "comfy_api_nodes."].iter().any(|it| module.starts_with(it));
    class.list("output").filter(|_| is_own).map(|outputs| outputs.len())
}

fn combos_of(input: &Object<'_>, place: Place) -> Vec<Combo> {
    let mut combos = Vec::new();
    for (_, section) in input.iter().filter(|(name, _)| *name != "hidden") {
        let inputs = raw::object(section).unwrap_or_default();
        combos.extend(inputs.iter().filter_map(|(name, raw)| combo_of(name, raw, place)));
    }
    combos
}

fn combo_of(name: &str, raw: &RawValue, place: Place) -> Option<Combo> {
    // Most inputs are links and numbers.
    let inside = raw.get().strip_prefix('[')?.trim_start();
    if !inside.starts_with('[') && !inside.starts_with("\"COMBO\"") {
        return None;
    }
    // `[["a", "b"], {…}]`, or since 2025 `["COMBO", {"options": […]}]`.
    let parts = raw::list(raw)?;
    let options = parts.get(1).and_then(|it| raw::object(it));
    let list = match parts.first()? {
        list if list.get().starts_with('[') => *list,
        _ => options.as_ref()?.get("options")?,
    };
    let entries = raw::list(list)?;
    let list = list.get();
    let strings = entries.iter().filter(|it| it.get().starts_with('"'));
    let entries: Vec<Range<usize>> = strings.map(|it| place.of(it.get())).collect();
    let files = options.as_ref().and_then(folder_of).or_else(|| {
        let is_file = |it: &Range<usize>| {
            let from = it.start - place.of(list).start;
            let text = super::walk::text_at(list.as_bytes(), from..from + it.len());
            text.is_some_and(|text| {
                has_ending(super::files::without_annotation(&text).0) || UserFolder::is_in(&text)
            })
        };
        entries.iter().any(is_file).then_some(Folder::Input)
    });
    let (input, at, texts) = (name.to_owned(), place.of(list), OnceLock::new());
    Some(Combo { input, at, entries, files, texts })
}

/// The folder in the options of an input: uploads go to the inputs, and `image_folder` names one.
fn folder_of(options: &Object<'_>) -> Option<Folder> {
    let folder = options.text("image_folder");
    let is_upload =
        |(name, raw): (&str, &RawValue)| name.ends_with("upload") && raw.get() == "true";
    match folder.as_deref().and_then(Folder::parse) {
        Some(folder) => Some(folder),
        None => options.iter().any(is_upload).then_some(Folder::Input),
    }
}

/// The merged bodies of several servers: the first one, with additions from the others.
#[derive(Debug)]
pub struct Union {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Text(Bytes),
    Files(FileList),
}

/// One entry of a list of files.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The index of the server that has it.
    pub server: usize,
    /// The folder that is listed.
    pub folder: Folder,
    pub text: &'a str,
}

impl Union {
    /// Merges them. A class that the first server does not have is copied whole.
    #[must_use]
    pub fn of(servers: &[&NodeInfo]) -> Self {
        let mut union = Self { pieces: Vec::new() };
        let Some(first) = servers.first() else { return union };
        let mut done = 0;
        for class in &first.classes {
            union.lists(servers, (0, class), &mut done);
        }
        // Inserted before the last brace.
        let end = first.body.iter().rposition(|byte| *byte == b'}').unwrap_or(first.body.len());
        union.text(&first.body, done..end);
        let mut known: HashSet<&str> = first.by_name.keys().map(String::as_str).collect();
        for (index, server) in servers.iter().enumerate().skip(1) {
            for class in &server.classes {
                if known.insert(&class.name) {
                    let comma = if known.len() == 1 { "" } else { ", " };
                    let key = format!("{comma}{}: ", quote(&class.name));
                    union.pieces.push(Piece::Text(key.into()));
                    let mut done = class.at.start;
                    union.lists(servers, (index, class), &mut done);
                    union.text(&server.body, done..class.at.end);
                }
            }
        }
        union.text(&first.body, end..first.body.len());
        union
    }

    /// Writes a class of one server up to its last list, with the list entries of all servers.
    fn lists(&mut self, servers: &[&NodeInfo], (of, class): (usize, &Class), done: &mut usize) {
        let body = &servers[of].body;
        let mut combos: Vec<&Combo> = class.combos.iter().collect();
        combos.sort_by_key(|combo| combo.at.start);
        for combo in combos {
            let (name, input) = (&class.name, &combo.input);
            let alike: Vec<(usize, &NodeInfo, &Combo)> = servers
                .iter()
                .enumerate()
                .filter(|(index, _)| *index != of)
                .filter_map(|(index, it)| Some((index, *it, it.combo(name, input)?)))
                .collect();
            let files = combo.files.or_else(|| alike.iter().find_map(|(_, _, it)| it.files));
            let own = (of, servers[of], combo);
            if let Some(folder) = files {
                self.text(body, *done..combo.at.start);
                let texts = |(index, it, combo): &(usize, &NodeInfo, &Combo)| {
                    (*index, it.texts(combo).map(Cow::into_owned).collect())
                };
                let entries = std::iter::once(&own).chain(&alike).map(texts).collect();
                let input = input.clone();
                self.pieces.push(Piece::Files(FileList { folder, input, entries }));
                *done = combo.at.end;
                continue;
            }
            let more = added(own, &alike);
            if !more.is_empty() {
                self.text(body, *done..combo.at.end - 1);
                self.pieces.push(Piece::Text(more.into()));
                *done = combo.at.end - 1;
            }
        }
    }

    fn text(&mut self, body: &Bytes, at: Range<usize>) {
        if !at.is_empty() {
            self.pieces.push(Piece::Text(body.slice(at)));
        }
    }

    /// The entries of all lists of files, in their order.
    #[must_use]
    pub fn files(&self) -> Vec<Entry<'_>> {
        let lists = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Files(list) => Some(list),
        });
        lists.flat_map(FileList::files).collect()
    }

    /// The body for one caller: `names` has the name for each of [`Self::files`], or `None` to
    /// leave it out; `uploads` are further inputs of his, for the lists of their kind.
    #[must_use]
    pub fn told(&self, names: &[Option<String>], uploads: &[String]) -> Bytes {
        let mut names = names.iter();
        let mut body = Vec::with_capacity(self.pieces.iter().map(Piece::len).sum());
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => body.extend_from_slice(text),
                Piece::Files(list) => {
                    body.extend_from_slice(list.told(&mut names, uploads).as_bytes());
                }
            }
        }
        body.into()
    }
}

/// The additional entries of other servers, to be written after the last entry of a list.
fn added(
    (_, own, combo): (usize, &NodeInfo, &Combo),
    alike: &[(usize, &NodeInfo, &Combo)],
) -> String {
    let mut known: HashSet<&str> = combo.entries.iter().map(|at| own.written(at)).collect();
    let mut is_empty = own.written(&combo.at)[1..].trim_start().starts_with(']');
    let mut more = String::new();
    for (_, it, theirs) in alike {
        for text in theirs.entries.iter().map(|at| it.written(at)) {
            if known.insert(text) {
                more.push_str(if is_empty { "" } else { ", " });
                more.push_str(text);
                is_empty = false;
            }
        }
    }
    more
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Files(list) => list.entries.iter().map(|(_, it)| 32 * it.len()).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(text: &str) -> NodeInfo {
        NodeInfo::read(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    /// Entries with `@` are shown with their server, those with `!` are left out.
    fn union(bodies: &[&str]) -> serde_json::Value {
        let read: Vec<NodeInfo> = bodies.iter().map(|it| info(it)).collect();
        let union = Union::of(&read.iter().collect::<Vec<_>>());
        let name = |entry: &Entry<'_>| match entry.text {
            text if text.contains('!') => None,
            text if text.contains('@') => Some(format!("~{}/{text}", entry.server)),
            text => Some(text.to_owned()),
        };
        let body = union.told(&union.files().iter().map(name).collect::<Vec<_>>(), &[]);
        serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"))
    }

    #[test]
    fn what_a_class_gives_is_known_where_it_is_sure() {
        let class = |module: &str| {
            format!(
                r#"{{"N": {{"input": {{"required": {{"x": ["INT"], "p": ["STRING"]}},
                "hidden": {{"id": "UNIQUE_ID", "p": "PROMPT"}}}},
                "output": ["A", "B"], "python_module": "{module}"}}}}"#
            )
        };
        for (module, outputs) in [
            ("nodes", Some(2)),
            ("comfy_extras.nodes_mask", Some(2)),
            ("comfy_api_nodes.nodes_x", Some(2)),
            ("custom_nodes.impact", None),
            ("nodes_of_mine", None),
        ] {
            let info = info(&class(module));
            assert_eq!(info.outputs("N"), outputs, "{module}");
            let hidden = ["id", "x", "p"].map(|input| info.is_hidden("N", input));
            assert_eq!(hidden, [true, false, false]);
        }
        let bare = info(r#"{"N": {}, "M": 1}"#);
        assert_eq!((bare.outputs("N"), bare.is_hidden("M", "x")), (None, false));
    }

    #[test]
    fn lists_hold_what_any_server_has_and_the_rest_stays() {
        let a = r#"{"L": {"input": {"required": {"ckpt": [["a", "b"], {"x": 1}], "n": ["INT", {}]},
            "hidden": {"p": "PROMPT"}}, "name": "L"}, "E": {"input": {"required": {"v": [[]]}}}}"#;
        let b = r#"{"L": {"input": {"required": {"ckpt": ["COMBO", {"options": ["b", "c"]}]}}},
            "E": {"input": {"required": {"v": [["z"]]}}}, "Only": {"name": "Only"}}"#;
        let told = union(&[a, b]);
        let mut expected: serde_json::Value = serde_json::from_str(a).unwrap();
        expected["L"]["input"]["required"]["ckpt"][0] = serde_json::json!(["a", "b", "c"]);
        expected["E"]["input"]["required"]["v"][0] = serde_json::json!(["z"]);
        expected["Only"] = serde_json::json!({ "name": "Only" });
        assert_eq!(told, expected);
        let told = union(&[b, a]);
        let options = &told["L"]["input"]["required"]["ckpt"][1]["options"];
        assert_eq!(*options, serde_json::json!(["b", "c", "a"]));
        assert_eq!(union(&["{}", b]), serde_json::from_str::<serde_json::Value>(b).unwrap());
    }

    #[test]
    fn lists_of_files_are_told_entry_by_entry() {
        let a = r#"{"I": {"input": {"required": {"image": [["a!", "pet.png@", "x.png!", "none"],
            {"image_upload": true}]}}}}"#;
        let b = r#"{"I": {"input": {"required": {"image": [["pet.png@", "none"],
            {"image_upload": true}]}}}}"#;
        let told = union(&[a, b]);
        let list = serde_json::json!(["a!", "~0/pet.png@", "none", "~1/pet.png@"]);
        assert_eq!(told["I"]["input"]["required"]["image"][0], list);
    }

    #[test]
    fn a_list_is_of_files_by_what_its_options_say_or_by_what_is_in_it() {
        let folder = |input: &str| {
            let text = format!(r#"{{"C": {{"input": {{"optional": {{"i": {input}}}}}}}}}"#);
            info(&text).combo("C", "i").map(|combo| combo.files)
        };
        assert_eq!(folder(r#"[[], {"video_upload": true}]"#), Some(Some(Folder::Input)));
        let output =
            r#"["COMBO", {"options": [], "image_upload": true, "image_folder": "output"}]"#;
        assert_eq!(folder(output), Some(Some(Folder::Output)));
        assert_eq!(folder(r#"[["a.latent"]]"#), Some(Some(Folder::Input)));
        assert_eq!(folder(r#"[["euler", "a.safetensors"], {}]"#), Some(None));
        assert_eq!(folder(r#"["INT", {"default": 1}]"#), None);
        assert_eq!(folder(r#"["COMBO", {"remote": {"route": "/x"}}]"#), None);
    }

    #[test]
    fn it_says_what_an_input_is() {
        let info = info(
            r#"{"C": {"input": {"required": {"i": [["a.png"]], "c": [["x"]], "t":
            ["STRING", {"multiline": true}]}, "optional": {"s": ["STRING", {}]}}}}"#,
        );
        let kinds = ["i", "c", "t", "s", "none"].map(|input| info.kind("C", input));
        let expected = [Kind::Files, Kind::Choices, Kind::Prose, Kind::Other, Kind::Other];
        assert_eq!(kinds, expected.map(Some));
        assert_eq!(info.kind("D", "i"), None);
    }

    #[test]
    fn what_is_no_body_of_it_is_left_alone() {
        for body in ["", "[]", "null", "{", r#"{"a": NaN}"#] {
            assert!(NodeInfo::read(Bytes::copy_from_slice(body.as_bytes())).is_none(), "{body}");
        }
        for body in [
            "{}",
            r#"{"A": 1}"#,
            r#"{"A": {"input": [1]}}"#,
            r#"{"A": {"input": {"r": {"x":
            [[1, null, "a"]]}}}}"#,
        ] {
            assert_eq!(union(&[body]), serde_json::from_str::<serde_json::Value>(body).unwrap());
        }
    }
}
