//! The kinds of values that keys take, each with its limits.
//!
//! A kind parses text, because defaults, environment and flags are all text. A TOML file has types
//! as well. [`Kind::read`] checks them, so that `workers = "4"` and `lease = 600` are reported with
//! what to write instead.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::problems::Origin;
use super::raw::{Item, Written};
use super::units::{self, BadUnit, ShowDuration, ShowSize};
use super::{schema, shown};

/// What is wrong with a value, and where. A list can have several faults.
pub(super) type Faults = Vec<(Origin, String)>;

/// The TOML type of a kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    Text,
    Number,
    /// `"64MiB"` or a plain number of bytes.
    TextOrNumber,
    Switch,
    List,
}

pub(super) trait Kind {
    type Value;
    const SHAPE: Shape;
    /// True for a kind whose values are never shown.
    const IS_SECRET: bool = false;

    /// Parses the value from text, as in an environment variable or in the defaults.
    fn parse(&self, text: &str) -> Result<Self::Value, String>;

    /// The accepted values, for the documentation and for reports: `a duration from 1s to 1h`.
    fn takes(&self) -> String;

    /// A JSON Schema for editors, never stricter than [`Kind::read`].
    fn schema(&self) -> Value;

    /// The form in which a good value is shown, without secrets.
    fn shown(&self, item: &Item) -> Value {
        shown::value(Self::SHAPE, item)
    }

    /// The files that are read for the value.
    fn files(&self, _written: &Written) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Reads the value from any source.
    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        self.text(written)
            .and_then(|text| self.parse(&text))
            .map_err(|what| vec![(written.origin.clone(), what)])
    }

    /// The text of a value, if it has the type of this kind.
    fn text(&self, written: &Written) -> Result<String, String> {
        let from_file = matches!(written.origin, Origin::File { .. });
        let expected = |what: &str| Err(format!("expected {}, found {what}", self.takes()));
        match (&written.item, Self::SHAPE) {
            (Item::Text(text), Shape::Text | Shape::TextOrNumber) => Ok(text.clone()),
            (Item::Text(text), _any) if !from_file => Ok(text.clone()),
            (Item::Number(number), Shape::Number | Shape::TextOrNumber) => Ok(number.to_string()),
            (Item::Switch(value), Shape::Switch) => Ok(value.to_string()),
            (Item::Text(text), _) => expected(&format!("the text \"{text}\"")),
            (Item::Number(number), _) => expected(&format!("the number {number}")),
            (Item::Switch(value), _) => expected(&format!("`{value}`")),
            (Item::List(_), _) => expected("a list"),
            (Item::Table(_), _) => expected("a table"),
            (Item::Other, _) => expected("a date or a fraction"),
        }
    }
}

/// A whole number.
#[derive(Debug)]
pub(super) struct Count {
    pub(super) min: usize,
    pub(super) max: usize,
}

impl Kind for Count {
    type Value = usize;
    const SHAPE: Shape = Shape::Number;

    fn parse(&self, text: &str) -> Result<usize, String> {
        whole(text, self.min, self.max).map_err(|what| format!("{what}{}", self.takes()))
    }

    fn takes(&self) -> String {
        format!("a whole number from {} to {}", self.min, self.max)
    }

    fn schema(&self) -> Value {
        json!({ "type": "integer", "minimum": self.min, "maximum": self.max })
    }
}

/// A whole number of at least 1.
#[derive(Debug)]
pub(super) struct Positive {
    pub(super) max: u32,
}

impl Kind for Positive {
    type Value = NonZeroU32;
    const SHAPE: Shape = Shape::Number;

    fn parse(&self, text: &str) -> Result<NonZeroU32, String> {
        whole(text, NonZeroU32::MIN, NonZeroU32::new(self.max).unwrap_or(NonZeroU32::MAX))
            .map_err(|what| format!("{what}{}", self.takes()))
    }

    fn takes(&self) -> String {
        format!("a whole number from 1 to {}", self.max)
    }

    fn schema(&self) -> Value {
        json!({ "type": "integer", "minimum": 1, "maximum": self.max })
    }
}

/// A whole number where 0 means "no limit".
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) max: u32,
}

impl Kind for Limit {
    type Value = Option<NonZeroU32>;
    const SHAPE: Shape = Shape::Number;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        whole(text, 0, self.max)
            .map(NonZeroU32::new)
            .map_err(|what| format!("{what}{}", self.takes()))
    }

    fn takes(&self) -> String {
        format!("a whole number from 0 (no limit) to {}", self.max)
    }

    fn schema(&self) -> Value {
        json!({ "type": "integer", "minimum": 0, "maximum": self.max })
    }
}

fn whole<T: std::str::FromStr + PartialOrd + Copy>(
    text: &str,
    min: T,
    max: T,
) -> Result<T, String> {
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("`{text}` is not "));
    }
    text.parse()
        .ok()
        .filter(|number| min <= *number && *number <= max)
        .ok_or_else(|| format!("{text} is out of range, expected "))
}

/// A span of time; the limits are in milliseconds.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Kind for Span {
    type Value = Duration;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Duration, String> {
        let takes = self.takes();
        let value = units::duration(text).map_err(|bad| match bad {
            BadUnit::NoUnit => format!("`{text}` has no unit, expected {takes} such as \"30s\""),
            BadUnit::Malformed | BadUnit::UnknownUnit => {
                format!("`{text}` is not a duration, expected {takes} such as \"1m30s\"")
            }
            BadUnit::Order | BadUnit::TooFine | BadUnit::TooLarge => {
                format!("`{text}`: {bad}, expected {takes}")
            }
        })?;
        let limits = Duration::from_millis(self.min)..=Duration::from_millis(self.max);
        if limits.contains(&value) {
            Ok(value)
        } else {
            Err(format!("{text} is out of range, expected {takes}"))
        }
    }

    fn takes(&self) -> String {
        let show = |millis| ShowDuration(Duration::from_millis(millis));
        format!("a duration from {} to {}", show(self.min), show(self.max))
    }

    fn schema(&self) -> Value {
        schema::duration()
    }
}

/// A number of bytes.
#[derive(Debug)]
pub(super) struct Size {
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Kind for Size {
    type Value = u64;
    const SHAPE: Shape = Shape::TextOrNumber;

    fn parse(&self, text: &str) -> Result<u64, String> {
        let takes = self.takes();
        let value = units::size(text).map_err(|bad| match bad {
            BadUnit::Malformed | BadUnit::UnknownUnit | BadUnit::NoUnit => {
                format!("`{text}` is not a size, expected {takes} such as \"64MiB\"")
            }
            BadUnit::Order | BadUnit::TooFine | BadUnit::TooLarge => {
                format!("`{text}`: {bad}, expected {takes}")
            }
        })?;
        if (self.min..=self.max).contains(&value) {
            Ok(value)
        } else {
            Err(format!("{text} is out of range, expected {takes}"))
        }
    }

    fn takes(&self) -> String {
        format!("a size from {} to {}", ShowSize(self.min), ShowSize(self.max))
    }

    fn schema(&self) -> Value {
        schema::size(self.min, self.max)
    }
}

#[derive(Debug)]
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;
    const SHAPE: Shape = Shape::Switch;

    fn parse(&self, text: &str) -> Result<bool, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _other => Err(format!("`{text}` is not {}", self.takes())),
        }
    }

    fn takes(&self) -> String {
        "`true` or `false`".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "boolean" })
    }
}

/// The name of a backend, or empty. Whether such a backend exists is checked by a separate rule.
#[derive(Debug)]
pub(super) struct BackendName;

impl Kind for BackendName {
    type Value = String;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    fn takes(&self) -> String {
        "the name of a backend".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

/// The path of a file, or empty.
#[derive(Debug)]
pub(super) struct FilePath;

impl Kind for FilePath {
    type Value = Option<PathBuf>;
    const SHAPE: Shape = Shape::Text;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        Ok(if text.is_empty() { None } else { Some(PathBuf::from(text)) })
    }

    fn takes(&self) -> String {
        "a path".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}
