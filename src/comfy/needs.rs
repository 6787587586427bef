//! What a graph needs of a server: its node classes, the choices that it makes, the files of models
//! that it loads; and how much work it is.
//!
//! One pass over the body of a submission. What a value means is known by its ending, or by the
//! lists of `/object_info` ([`Lists`]). Nothing is refused because of what is read here: it says
//! only which server is asked first.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::ops::Range;

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

/// The most bytes of all names. Of a graph that has more nothing is known.
const BYTES_MAX: usize = 64 << 10;

/// No graph is more work: what is learned from one is used for others.
const SIZE_MAX: u64 = 10_000_000_000_000;

/// Values are looked for in objects and lists within an input as deep as this.
const DEPTH_MAX: usize = 4;

/// What a graph needs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    pub classes: BTreeSet<Box<str>>,
    pub choices: BTreeSet<Choice>,
    /// The files of models, those of the largest kind first.
    pub models: Vec<Box<str>>,
    /// Steps × pixels × pictures; 0 if it says nothing of them.
    pub size: u64,
}

/// A value that must be in a server's list for this input.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Choice {
    pub class: Box<str>,
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
                    needs = reader.finish();
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
        let classes = self.classes.iter().map(|it| it.len());
        let of = |it: &Choice| it.class.len() + it.input.len() + it.value.len();
        let models = self.models.iter().map(|it| it.len());
        classes.chain(self.choices.iter().map(of)).chain(models).sum()
    }

    /// A hash of all but the size.
    #[must_use]
    pub fn family(&self) -> u64 {
        hash_of(&(&self.classes, &self.choices, &self.models))
    }

    /// A hash of the classes.
    #[must_use]
    pub fn of_classes(&self) -> u64 {
        hash_of(&self.classes)
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
    /// The steps of all samplers, and the pixels of the largest pictures.
    steps: u64,
    pixels: u64,
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

/// The numbers of one node that say how large its pictures are.
#[derive(Default)]
struct Sizes {
    width: Option<u64>,
    height: Option<u64>,
    batch: Option<u64>,
    frames: Option<u64>,
    steps: Option<u64>,
}

impl<'a> Reader<'a> {
    fn new(json: &'a [u8], lists: &'a dyn Lists) -> Self {
        let (needs, models) = (Needs::default(), Vec::new());
        Self { json, lists, needs, models, lookups: 0, steps: 0, pixels: 0 }
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
        self.sized(&sizes);
        values.into_iter().for_each(|value| self.value(&class, value));
        if self.needs.classes.len() < CLASSES_MAX && !self.needs.classes.contains(&*class) {
            self.needs.classes.insert(class.into());
        }
    }

    fn value(&mut self, class: &str, value: Value<'_>) {
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
                    let [class, input, value] = [class, &*input, &*text].map(Box::from);
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

    fn sized(&mut self, it: &Sizes) {
        self.steps = self.steps.saturating_add(it.steps.unwrap_or(0));
        if let (Some(width), Some(height)) = (it.width, it.height) {
            let area = width.saturating_mul(height);
            let pictures = it.batch.unwrap_or(1).saturating_mul(it.frames.unwrap_or(1));
            self.pixels = self.pixels.max(area.saturating_mul(pictures));
        }
    }

    fn finish(self) -> Needs {
        let Self { mut needs, mut models, steps, pixels, .. } = self;
        models.sort_by_key(|(kind, _)| *kind);
        needs.models = models.into_iter().map(|(_, model)| model).collect();
        needs.size = match (steps, pixels) {
            (0, pixels) => pixels,
            (steps, 0) => steps,
            (steps, pixels) => steps.saturating_mul(pixels),
        };
        needs.size = needs.size.min(SIZE_MAX);
        if BYTES_MAX < needs.bytes() {
            return Needs { size: needs.size, ..Needs::default() };
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
            if let Some((input, text)) = short_text(json, name).zip(text) {
                values.push(Value::Text { input, text });
            }
        }
        b'{' | b'[' => within(json, cursor, values, 1),
        _ => {
            let number = whole(json, cursor.skip());
            let place = match &*said(json, name) {
                b"steps" => &mut sizes.steps,
                b"width" => &mut sizes.width,
                b"height" => &mut sizes.height,
                b"batch_size" => &mut sizes.batch,
                b"length" | b"frames" => &mut sizes.frames,
                _ => return,
            };
            *place = number;
        }
    }
}

/// Names of models in an object or a list, as nodes with any number of `LoRA`s have them.
fn within<'a>(json: &'a [u8], cursor: &mut Cursor<'a>, values: &mut Vec<Value<'a>>, depth: usize) {
    let mut each = |cursor: &mut Cursor<'a>| match cursor.peek() {
        b'"' => {
            let text = short_text(json, cursor.skip()).filter(|text| is_model(text));
            values.extend(text.map(Value::Within));
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

/// A number that is greater than nothing, without what follows its point.
fn whole(json: &[u8], at: Range<usize>) -> Option<u64> {
    let text = std::str::from_utf8(json.get(at)?).ok()?;
    let number = text.parse::<f64>().ok().filter(|number| (1.0..1e15).contains(number))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    Some(number as u64)
}

#[cfg(test)]
mod tests;
