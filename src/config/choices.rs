//! Kinds of keys that take one of a few words.

use serde_json::{Value, json};

use super::kinds::{Kind, Shape};
use super::suggest::nearest;
use super::{
    AccessFormat, AuthMode, FileTags, LogFormat, Nameless, OnJournalError, OnOff, OnUnopened,
    QueueVerdict, StatusCounts,
};

/// A kind that is defined by its words; everything else follows from them.
pub(super) trait Choices {
    type Value: Copy + 'static;
    /// Each word and its meaning.
    const WORDS: &'static [(&'static str, Self::Value)];
}

impl<C: Choices> Kind for C {
    type Value = C::Value;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<C::Value, String> {
        if let Some((_, value)) = C::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let names: Vec<String> = words::<C>().map(|word| format!("\"{word}\"")).collect();
        let hint = match nearest(text, words::<C>()) {
            Some(word) => format!(", did you mean \"{word}\"?"),
            None => String::new(),
        };
        Err(format!("`{text}` is not {}{hint}", names.join(" or ")))
    }

    fn takes(&self) -> String {
        let names: Vec<String> = words::<C>().map(|word| format!("\"{word}\"")).collect();
        match names.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        }
    }

    fn schema(&self) -> Value {
        json!({ "enum": words::<C>().collect::<Vec<_>>() })
    }
}

fn words<C: Choices>() -> impl Iterator<Item = &'static str> {
    C::WORDS.iter().map(|(word, _)| *word)
}

#[derive(Debug)]
pub(super) struct Format;

impl Choices for Format {
    type Value = LogFormat;
    const WORDS: &'static [(&'static str, LogFormat)] =
        &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}

#[derive(Debug)]
pub(super) struct FormatOfAccess;

impl Choices for FormatOfAccess {
    type Value = AccessFormat;
    const WORDS: &'static [(&'static str, AccessFormat)] =
        &[("json", AccessFormat::Json), ("combined", AccessFormat::Combined)];
}

#[derive(Debug)]
pub(super) struct Counts;

impl Choices for Counts {
    type Value = StatusCounts;
    const WORDS: &'static [(&'static str, StatusCounts)] =
        &[("own", StatusCounts::Own), ("backend", StatusCounts::Backend)];
}

#[derive(Debug)]
pub(super) struct Tags;

impl Choices for Tags {
    type Value = FileTags;
    const WORDS: &'static [(&'static str, FileTags)] =
        &[("ambiguous", FileTags::Ambiguous), ("never", FileTags::Never)];
}

#[derive(Debug)]
pub(super) struct OnError;

impl Choices for OnError {
    type Value = Option<OnJournalError>;
    const WORDS: &'static [(&'static str, Option<OnJournalError>)] = &[
        ("auto", None),
        ("serve", Some(OnJournalError::Serve)),
        ("refuse", Some(OnJournalError::Refuse)),
    ];
}

#[derive(Debug)]
pub(super) struct Unopened;

impl Choices for Unopened {
    type Value = OnUnopened;
    const WORDS: &'static [(&'static str, OnUnopened)] =
        &[("refuse", OnUnopened::Refuse), ("lose", OnUnopened::Lose)];
}

#[derive(Debug)]
pub(super) struct Verdict;

impl Choices for Verdict {
    type Value = QueueVerdict;
    const WORDS: &'static [(&'static str, QueueVerdict)] =
        &[("backend", QueueVerdict::Backend), ("late", QueueVerdict::Late)];
}

#[derive(Debug)]
pub(super) struct Toggle;

impl Choices for Toggle {
    type Value = OnOff;
    const WORDS: &'static [(&'static str, OnOff)] = &[("on", OnOff::On), ("off", OnOff::Off)];
}

#[derive(Debug)]
pub(super) struct Mode;

impl Choices for Mode {
    type Value = AuthMode;
    const WORDS: &'static [(&'static str, AuthMode)] = &[
        ("off", AuthMode::Off),
        ("keys", AuthMode::Keys),
        ("header", AuthMode::Header),
        ("jwt", AuthMode::Jwt),
    ];
}

#[derive(Debug)]
pub(super) struct NamelessMay;

impl Choices for NamelessMay {
    type Value = Option<Nameless>;
    const WORDS: &'static [(&'static str, Option<Nameless>)] = &[
        ("auto", None),
        ("by_id", Some(Nameless::ById)),
        ("none", Some(Nameless::None)),
        ("all", Some(Nameless::All)),
    ];
}
