//! Kinds of values for addresses, names and secrets; numbers, durations and sizes are in
//! [`super::kinds`].

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

use super::cidr::Cidr;
use super::kinds::{Faults, Kind, Shape};
use super::problems::Origin;
use super::raw::{Item, Written};
use super::schema;
use super::secret::{HIDDEN, Secretive};
use super::suggest::nearest;
use super::url::{self, ServerUrl};

/// The most entries of a list in a file.
pub(super) const LIST_MAX: usize = 1_000;

/// A secret, which is never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// The longest secret, in bytes, so that it fits a header.
    pub const LEN_MAX: usize = 512;

    /// Accepts 1 to [`Secret::LEN_MAX`] bytes of visible ASCII: it must fit a header unchanged.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::of_at_most(Self::LEN_MAX, text)
    }

    /// The same for what is only sent, such as a JWT: up to 16,384 bytes.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub fn to_send(text: &str) -> Result<Self, String> {
        Self::of_at_most(16 << 10, text)
    }

    fn of_at_most(max: usize, text: &str) -> Result<Self, String> {
        if text.is_empty() || max < text.len() {
            return Err(format!("has {} bytes, expected 1 to {max}", text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                "has a byte that is not visible ASCII, and cannot be sent in a header".into()
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret itself, for comparing and sending, never for the log.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret, or empty.
#[derive(Debug)]
pub(super) struct Token;

impl Kind for Token {
    type Value = Option<Secret>;
    const SHAPE: Shape = Shape::Text;
    const IS_SECRET: bool = true;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() { Ok(None) } else { Secret::parse(text).map(Some) }
    }

    fn takes(&self) -> String {
        "a text of visible ASCII".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": format!("^[!-~]{{0,{}}}$", Secret::LEN_MAX) })
    }

    fn shown(&self, item: &Item) -> Value {
        match item {
            Item::Text(text) if text.is_empty() => "".into(),
            Item::Text(_)
            | Item::Number(_)
            | Item::Other
            | Item::Switch(_)
            | Item::List(_)
            | Item::Table(_) => HIDDEN.into(),
        }
    }

    /// Replaces the standard method, whose report would show the value.
    fn text(&self, written: &Written) -> Result<String, String> {
        match &written.item {
            Item::Text(text) => Ok(text.clone()),
            Item::Number(_) | Item::Other | Item::Switch(_) | Item::List(_) | Item::Table(_) => {
                Err(format!("expected {} in quotes", self.takes()))
            }
        }
    }
}

impl Secretive for Token {
    fn excludes_file(value: &Self::Value) -> bool {
        value.is_some()
    }

    fn take_in(value: &mut Self::Value, text: &str, _file: &Path) -> Result<(), String> {
        *value = Some(Secret::parse(text.trim())?);
        Ok(())
    }
}

/// `http://host[:port]` or `https://host[:port]` of a backend.
#[derive(Debug)]
pub(super) struct BackendUrl;

impl Kind for BackendUrl {
    /// `None` is the empty default, which replaces a wrong URL.
    type Value = Option<ServerUrl>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        if text.is_empty() {
            return Ok(None);
        }
        url::backend(text).map(Some).map_err(|bad| bad.about(text))
    }

    fn takes(&self) -> String {
        "a URL such as \"http://gpu-a:8188\"".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": "^[hH][tT][tT][pP][sS]?://[^@?#]+$" })
    }
}

/// Directives of the log filter, such as `info` or `mooring=debug,hyper=warn`.
#[derive(Debug)]
pub(super) struct LogLevel;

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

impl Kind for LogLevel {
    type Value = String;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<String, String> {
        // The filter reads a single unknown word as a module's name, and would then log nothing
        // else. So `inof` must be refused.
        for part in text.split(',').map(str::trim) {
            let is_word = !part.contains(['=', '[', ':']);
            if is_word && !LEVELS.contains(&part.to_ascii_lowercase().as_str()) {
                let hint = nearest(part, LEVELS.iter().copied());
                let hint = hint.map_or_else(String::new, |it| format!(", did you mean `{it}`?"));
                return Err(format!("`{part}` is not one of {}{hint}", LEVELS.join(", ")));
            }
        }
        match EnvFilter::builder().parse(text) {
            Ok(_filter) => Ok(text.to_owned()),
            Err(bad) => Err(format!("`{text}`: {bad}")),
        }
    }

    fn takes(&self) -> String {
        "a level or directives such as \"info,hyper=warn\"".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

/// Origins of web pages, such as `https://app.example`.
#[derive(Debug)]
pub(super) struct Origins;

impl Kind for Origins {
    type Value = Vec<String>;
    const SHAPE: Shape = Shape::List;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        comma_separated(text).map(Self::entry).collect()
    }

    fn takes(&self) -> String {
        "a list of origins such as \"https://app.example\"".to_owned()
    }

    fn schema(&self) -> Value {
        schema::list(LIST_MAX)
    }

    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        read_list(self, written, Self::entry)
    }
}

impl Origins {
    fn entry(text: &str) -> Result<String, String> {
        url::origin(text).map_err(|bad| bad.about(text))
    }
}

/// Networks, such as `10.0.0.0/8`.
#[derive(Debug)]
pub(super) struct Networks;

impl Kind for Networks {
    type Value = Vec<Cidr>;
    const SHAPE: Shape = Shape::List;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        comma_separated(text).map(Self::entry).collect()
    }

    fn takes(&self) -> String {
        "a list of networks such as \"10.0.0.0/8\"".to_owned()
    }

    fn schema(&self) -> Value {
        schema::list(LIST_MAX)
    }

    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        read_list(self, written, Self::entry)
    }
}

impl Networks {
    fn entry(text: &str) -> Result<Cidr, String> {
        text.parse().map_err(|bad| format!("`{text}`: {bad}"))
    }
}

pub(super) fn comma_separated(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// Parses each entry of a list, so that each wrong one is reported with its own line.
pub(super) fn read_list<K: Kind, T>(
    kind: &K,
    written: &Written,
    entry: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Faults> {
    let entries: Vec<(Result<String, String>, &Origin)> = match &written.item {
        Item::List(list) => list.iter().map(|it| (text_in_list(it), &it.origin)).collect(),
        Item::Text(_) | Item::Number(_) | Item::Other | Item::Switch(_) | Item::Table(_) => {
            let text = kind.text(written).map_err(|what| vec![(written.origin.clone(), what)])?;
            comma_separated(&text).map(|text| (Ok(text.to_owned()), &written.origin)).collect()
        }
    };
    if LIST_MAX < entries.len() {
        let what = format!("has {} entries, at most {LIST_MAX} are allowed", entries.len());
        return Err(vec![(written.origin.clone(), what)]);
    }
    let mut values = Vec::with_capacity(entries.len());
    let mut faults = Faults::new();
    for (text, origin) in entries {
        match text.and_then(|text| entry(&text)) {
            Ok(value) => values.push(value),
            Err(what) => faults.push((origin.clone(), what)),
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

pub(super) fn text_in_list(written: &Written) -> Result<String, String> {
    match &written.item {
        Item::Text(text) => Ok(text.clone()),
        Item::Number(_) | Item::Other | Item::Switch(_) | Item::List(_) | Item::Table(_) => {
            Err("the entries of this list are texts in quotes".to_owned())
        }
    }
}
