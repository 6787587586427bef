//! What is known of one key?

use super::Config;
use super::keys::BACKENDS;
use super::kinds::Shape;

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
        if self.section == BACKENDS {
            format!("{BACKENDS}.NAME.{}", self.name)
        } else {
            format!("{}.{}", self.section, self.name)
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

    /// The default as it would stand in a file.
    #[must_use]
    pub fn default_in_toml(&self) -> String {
        let quote = |text: &str| format!("\"{text}\"");
        match self.shape {
            Shape::Number | Shape::Switch => self.default.to_owned(),
            Shape::Text | Shape::TextOrNumber => quote(self.default),
            Shape::List => {
                let entries = self.default.split(',').filter(|entry| !entry.is_empty());
                format!("[{}]", entries.map(quote).collect::<Vec<_>>().join(", "))
            }
        }
    }
}
