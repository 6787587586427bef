//! What a graph needs of a server: its node classes, the choices that it makes, the files of models
//! that it loads; and how much work it is.
//!
//! One pass over the body of a submission. What a value means is known by its ending, or by the
//! lists of `/object_info` ([`Lists`]). Nothing is refused because of what is read here: it says
//! only which server is asked first.

mod size;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::ops::Range;
use std::sync::Arc;

pub use self::size::Measure;
use self::size::{Sizes, Work};
use super::graph::cursor::{Cursor, said};
use super::object_info::{Has, NodeInfo};

/// How files of models end.
const MODELS: [&str; 8] =
    [".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".sft", ".onnx"];

/// No name of a model and no choice is longer; a text is.
const VALUE_MAX: usize = 255;

/// So many classes, choices and models of a graph are looked at.
const CLASSES_MAX: usize = 4_096;
const CHOICES_MAX: usize = 256;
const MODELS_MAX: usize = 64;

/// So often is it looked whether a value is in a list.
const LOOKUPS_MAX: usize = 1_024;

/// The most bytes that what is kept takes, which no limit counts: as many, but no more than the
/// least and twice those of the body. Of a graph that needs more nothing is known.
const BYTES_MAX: usize = 64 << 10;
const BYTES_LEAST: usize = 6 << 10;

/// What a class, a choice and a model take beside their names.
const CLASS_BYTES: usize = 64;
const CHOICE_BYTES: usize = 128;
const MODEL_BYTES: usize = 48;

/// Values are looked for in objects and lists within an input as deep as this.
const DEPTH_MAX: usize = 4;

/// What a graph needs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    pub classes: BTreeSet<Arc<str>>,
    pub choices: BTreeSet<Choice>,
    /// The files of models, those of the largest kind first.
    pub models: Vec<Box<str>>,
    /// Steps × pixels × pictures; 0 if it says nothing of them.
    pub size: u64,
    pub measure: Measure,
}

/// A value that must be in a server's list for this input.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Choice {
    pub class: Arc<str>,
    pub input: Box<str>,
    pub value: Box<str>,
}

/// What is known of lists of choices.
pub trait Lists {
    /// What servers say of this value.
    fn of(&self, class: &str, input: &str, value: &str) -> Known;
}

/// What is known of a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Known {
    Nothing,
    /// A server lists it.
    Listed,
    /// It names a file that is uploaded.
    Upload,
}

/// Knows no lists.
#[derive(Clone, Copy, Debug)]
pub struct NoLists;

impl Lists for NoLists {
    fn of(&self, _class: &str, _input: &str, _value: &str) -> Known {
        Known::Nothing
    }
}

impl Known {
    /// What a server says.
    #[must_use]
    pub fn by(has: Has) -> Self {
        match has {
            Has::NoClass | Has::NoList | Has::NotListed => Self::Nothing,
            Has::Uploads => Self::Upload,
            Has::Listed => Self::Listed,
        }
    }
}

impl Needs {
    /// Reads the body of a submission.
    #[must_use]
    pub fn of(body: &[u8], lists: &dyn Lists) -> Self {
        let mut needs = Self::default();
        let mut cursor = Cursor::new(body);
        if cursor.peek() == b'{' {
            cursor.object(|cursor, key| {
                if &*said(body, key) == b"prompt" && cursor.peek() == b'{' {
                    // As in Python, the last of several counts.
                    let mut reader = Reader::new(body, lists);
                    cursor.object(|cursor, _id| reader.node(cursor));
                    needs = reader.finish(body.len());
                } else {
                    cursor.skip();
                }
            });
        }
        needs
    }

    /// Something that this server is known to lack.
    #[must_use]
    pub fn lacking(&self, server: &NodeInfo) -> Option<&str> {
        let class = self.classes.iter().find(|class| !server.has_class(class));
        let choice = self.choices.iter().find(|it| {
            matches!(server.has(&it.class, &it.input, &it.value), Has::NoClass | Has::NotListed)
        });
        class.map(AsRef::as_ref).or_else(|| choice.map(|it| &*it.value))
    }

    fn bytes(&self) -> usize {
        let classes = self.classes.iter().map(|it| it.len() + CLASS_BYTES);
        let of = |it: &Choice| it.input.len() + it.value.len() + CHOICE_BYTES;
        let models = self.models.iter().map(|it| it.len() + MODEL_BYTES);
        classes.chain(self.choices.iter().map(of)).chain(models).sum()
    }

    /// A hash of all but the size itself.
    #[must_use]
    pub fn family(&self) -> u64 {
        hash_of(&(&self.classes, &self.choices, &self.models, self.measure))
    }

    /// A hash of the classes, and of what the size is made of.
    #[must_use]
    pub fn of_classes(&self) -> u64 {
        hash_of(&(&self.classes, self.measure))
    }
}

fn hash_of(it: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    it.hash(&mut hasher);
    hasher.finish()
}

/// Which models are larger, by the class that loads them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    /// A checkpoint or a diffusion model.
    Base,
    Other,
    Lora,
}

impl Kind {
    fn of(class: &str) -> Self {
        let class = class.to_ascii_lowercase();
        let is_one = |words: &[&str]| words.iter().any(|word| class.contains(word));
        match (is_one(&["lora"]), is_one(&["checkpoint", "ckpt", "unet", "diffusion"])) {
            (true, _) => Self::Lora,
            (false, true) => Self::Base,
            (false, false) => Self::Other,
        }
    }
}

struct Reader<'a> {
    json: &'a [u8],
    lists: &'a dyn Lists,
    needs: Needs,
    models: Vec<(Kind, Box<str>)>,
    lookups: usize,
    work: Work,
}

/// What an input of the current node says.
enum Value<'a> {
    Text {
        input: Cow<'a, str>,
        text: Cow<'a, str>,
    },
    /// Somewhere within an input.
    Within(Cow<'a, str>),
}

impl<'a> Reader<'a> {
    fn new(json: &'a [u8], lists: &'a dyn Lists) -> Self {
        let (needs, models) = (Needs::default(), Vec::new());
        Self { json, lists, needs, models, lookups: 0, work: Work::default() }
    }

    fn node(&mut self, cursor: &mut Cursor<'a>) {
        if cursor.peek() != b'{' {
            cursor.skip();
            return;
        }
        let json = self.json;
        let (mut class, mut values, mut sizes) = (None, Vec::new(), Sizes::default());
        cursor.object(|cursor, key| match &*said(json, key) {
            b"class_type" => {
                let is_text = cursor.peek() == b'"';
                class = short_text(json, cursor.skip()).filter(|_| is_text);
            }
            b"inputs" if cursor.peek() == b'{' => {
                values.clear();
                sizes = Sizes::default();
                cursor.object(|cursor, name| input(json, cursor, name, &mut values, &mut sizes));
            }
            _ => drop(cursor.skip()),
        });
        let Some(class) = class else { return };
        self.work.add(&sizes);
        let classes = &mut self.needs.classes;
        let class = match classes.get(&*class) {
            Some(known) => Arc::clone(known),
            None => {
                let class: Arc<str> = class.into();
                if classes.len() < CLASSES_MAX {
                    classes.insert(Arc::clone(&class));
                }
                class
            }
        };
        values.into_iter().for_each(|value| self.value(&class, value));
    }

    fn value(&mut self, class: &Arc<str>, value: Value<'_>) {
        match value {
            Value::Within(text) => self.model(class, &text),
            Value::Text { input, text } => {
                self.lookups += 1;
                let known = match self.lookups <= LOOKUPS_MAX {
                    true => self.lists.of(class, &input, &text),
                    false => Known::Nothing,
                };
                let is_choice = known == Known::Listed || is_model(&text);
                if known != Known::Upload && is_choice {
                    self.model(class, &text);
                    let (class, input, value) =
                        (Arc::clone(class), (*input).into(), (*text).into());
                    let choices = &mut self.needs.choices;
                    if choices.len() < CHOICES_MAX {
                        choices.insert(Choice { class, input, value });
                    }
                }
            }
        }
    }

    fn model(&mut self, class: &str, text: &str) {
        let is_new = |(_, known): &(Kind, Box<str>)| **known != *text;
        if is_model(text) && self.models.len() < MODELS_MAX && self.models.iter().all(is_new) {
            self.models.push((Kind::of(class), text.into()));
        }
    }

    fn finish(self, body: usize) -> Needs {
        let Self { mut needs, mut models, work, .. } = self;
        models.sort_by_key(|(kind, _)| *kind);
        needs.models = models.into_iter().map(|(_, model)| model).collect();
        (needs.measure, needs.size) = work.size();
        if BYTES_MAX.min(BYTES_LEAST + 2 * body) < needs.bytes() {
            let Needs { size, measure, .. } = needs;
            return Needs { size, measure, ..Needs::default() };
        }
        needs
    }
}

fn input<'a>(
    json: &'a [u8],
    cursor: &mut Cursor<'a>,
    name: Range<usize>,
    values: &mut Vec<Value<'a>>,
    sizes: &mut Sizes,
) {
    match cursor.peek() {
        b'"' => {
            let text = short_text(json, cursor.skip());
            if let Some((input, text)) = short_text(json, name).zip(text)
                && has_room(values, &text)
            {
                values.push(Value::Text { input, text });
            }
        }
        b'{' | b'[' => within(json, cursor, values, 1),
        _ => {
            let number = cursor.skip();
            sizes.say(&said(json, name), json.get(number).unwrap_or_default());
        }
    }
}

/// Names of models in an object or a list, as nodes with any number of `LoRA`s have them.
fn within<'a>(json: &'a [u8], cursor: &mut Cursor<'a>, values: &mut Vec<Value<'a>>, depth: usize) {
    let mut each = |cursor: &mut Cursor<'a>| match cursor.peek() {
        b'"' => {
            let text = short_text(json, cursor.skip()).filter(|text| is_model(text));
            values.extend(text.filter(|text| has_room(values, text)).map(Value::Within));
        }
        b'{' | b'[' if depth < DEPTH_MAX => within(json, cursor, values, depth + 1),
        _ => drop(cursor.skip()),
    };
    if cursor.peek() == b'{' {
        cursor.object(|cursor, _key| each(cursor));
    } else {
        cursor.list(|cursor, _index| each(cursor));
    }
}

/// More of one node are not looked at: a node can be as large as a body.
fn has_room(values: &[Value<'_>], text: &str) -> bool {
    let for_models = if is_model(text) { CHOICES_MAX + MODELS_MAX } else { 0 };
    values.len() < LOOKUPS_MAX + for_models
}

fn is_model(text: &str) -> bool {
    let ends = |ending: &&str| {
        let start = text.len().checked_sub(ending.len()).filter(|start| 0 < *start);
        let end = start.and_then(|start| text.as_bytes().get(start..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(ending.as_bytes()))
    };
    text.len() <= VALUE_MAX && MODELS.iter().any(ends)
}

fn short_text(json: &[u8], at: Range<usize>) -> Option<Cow<'_, str>> {
    // An escaped character has at most six bytes for each of its own.
    let text = Some(at).filter(|at| at.len() <= 6 * VALUE_MAX + 2);
    text.and_then(|at| text_of(json, at)).filter(|text| text.len() <= VALUE_MAX)
}

fn text_of(json: &[u8], literal: Range<usize>) -> Option<Cow<'_, str>> {
    match said(json, literal) {
        Cow::Borrowed(said) => std::str::from_utf8(said).ok().map(Cow::Borrowed),
        Cow::Owned(said) => String::from_utf8(said).ok().map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests;
