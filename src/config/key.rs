//! What is known of one key?

use serde_json::Value;

use super::keys::{BACKENDS, DISCOVERY, is_named};
use super::kinds::Shape;
use super::raw::Item;
use super::{Config, shown};

/// One key, for documentation and for suggestions.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub section: &'static str,
    pub name: &'static str,
    /// As it would stand in the environment.
    pub default: &'static str,
    pub shape: Shape,
    /// What a reload does with another value of it.
    pub applied: Applied,
    pub(super) differs: fn(&Config, &Config) -> bool,
    /// True for what is never shown.
    pub is_secret: bool,
    pub(super) schema: fn() -> Value,
    pub(super) why: &'static str,
    pub(super) takes: fn() -> String,
}

/// What becomes of a new value while the gateway runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Applied {
    /// It is used from the reload on.
    Live,
    /// It is used from the next start on.
    Restart,
    /// It names a file whose content is the value of another key, and that is what counts.
    ByValue,
}

impl Key {
    /// As in reports: `server.listen`, `backends.NAME.url`.
    #[must_use]
    pub fn full_name(&self) -> String {
        self.name_for(is_named(self.section).then_some("NAME"))
    }

    /// The name of this key in that table, or of a key that stands in no named table.
    pub(super) fn name_for(&self, table: Option<&str>) -> String {
        match table {
            Some(table) => format!("{}.{table}.{}", self.section, self.name),
            None => format!("{}.{}", self.section, self.name),
        }
    }

    /// What it takes, with its limits: `a duration from 1s to 1h`.
    #[must_use]
    pub fn takes(&self) -> String {
        (self.takes)()
    }

    /// What it is for, in a sentence.
    #[must_use]
    pub fn why(&self) -> &'static str {
        self.why.trim()
    }

    /// What an editor may say of it: a JSON Schema.
    pub(super) fn schema(&self) -> Value {
        (self.schema)()
    }

    /// False for a key that has to be written: one of them makes the table that it stands in.
    #[must_use]
    pub fn has_default(&self) -> bool {
        match self.section {
            BACKENDS => self.name != "url",
            DISCOVERY => !["dns", "srv", "kubernetes"].contains(&self.name),
            _other => true,
        }
    }

    /// The default in the form of a file.
    pub(super) fn default_value(&self) -> Value {
        match self.default.parse::<u64>() {
            // A size without a unit would be told as a text.
            Ok(number) if self.shape == Shape::TextOrNumber => number.into(),
            Ok(_) | Err(_) => shown::value(self.shape, &Item::Text(self.default.to_owned())),
        }
    }

    /// The default as it would stand in a file.
    #[must_use]
    pub fn default_in_toml(&self) -> String {
        shown::toml(&self.default_value())
    }
}
