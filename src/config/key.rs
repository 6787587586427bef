//! Everything that is known about one key.

use serde_json::Value;

use super::kinds::Shape;
use super::raw::Item;
use super::{Config, shown};

/// The sections that consist of named tables.
pub(super) const BACKENDS: &str = "backends";
pub(super) const DISCOVERY: &str = "discovery";

/// True for a section that consists of named tables.
pub(super) fn is_named(section: &str) -> bool {
    [BACKENDS, DISCOVERY].contains(&section)
}

/// One key, for documentation and for suggestions.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub section: &'static str,
    pub name: &'static str,
    /// The default, as it would be written in the environment.
    pub default: &'static str,
    pub shape: Shape,
    /// When a new value takes effect.
    pub applied: Applied,
    pub(super) differs: fn(&Config, &Config) -> bool,
    /// True if the value is never shown.
    pub is_secret: bool,
    pub(super) schema: fn() -> Value,
    pub(super) why: &'static str,
    pub(super) takes: fn() -> String,
}

/// When a new value takes effect in a running gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Applied {
    /// At the reload.
    Live,
    /// At the next start.
    Restart,
    /// It names a file whose content is the value of another key, and that value is compared.
    ByValue,
}

impl Key {
    /// The name in reports: `server.listen`, `backends.NAME.url`.
    #[must_use]
    pub fn full_name(&self) -> String {
        self.name_for(is_named(self.section).then_some("NAME"))
    }

    /// The name of this key in that table, or of a key that is in no named table.
    pub(super) fn name_for(&self, table: Option<&str>) -> String {
        match table {
            Some(table) => format!("{}.{table}.{}", self.section, self.name),
            None => format!("{}.{}", self.section, self.name),
        }
    }

    /// The accepted values, with their limits: `a duration from 1s to 1h`.
    #[must_use]
    pub fn takes(&self) -> String {
        (self.takes)()
    }

    /// The purpose of the key, in a sentence.
    #[must_use]
    pub fn why(&self) -> &'static str {
        self.why.trim()
    }

    /// The JSON Schema of the key, for editors.
    pub(super) fn schema(&self) -> Value {
        (self.schema)()
    }

    /// False for a key that must be written: it makes its table.
    #[must_use]
    pub fn has_default(&self) -> bool {
        match self.section {
            BACKENDS => self.name != "url",
            DISCOVERY => !["dns", "srv", "kubernetes"].contains(&self.name),
            _other => true,
        }
    }

    /// The default, in the form of a file.
    pub(super) fn default_value(&self) -> Value {
        match self.default.parse::<u64>() {
            // A size without a unit would be shown as text.
            Ok(number) if self.shape == Shape::TextOrNumber => number.into(),
            Ok(_) | Err(_) => shown::value(self.shape, &Item::Text(self.default.to_owned())),
        }
    }

    /// The default, as it would be written in a file.
    #[must_use]
    pub fn default_in_toml(&self) -> String {
        shown::toml(&self.default_value())
    }
}
