//! Kinds of values for lists of names.

use serde_json::Value;

use super::kinds::{Faults, Kind, Shape};
use super::raw::Written;
use super::schema;
use super::values::{LIST_MAX, comma_separated, read_list};
use crate::comfy::deny::{BadPattern, DenyPattern};
use crate::routing::realm::ClientName;

/// Names of node classes, such as `SaveImageWebsocket`.
#[derive(Debug)]
pub(super) struct Classes;

impl Kind for Classes {
    type Value = Vec<String>;
    const SHAPE: Shape = Shape::List;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        comma_separated(text).map(Self::entry).collect()
    }

    fn takes(&self) -> String {
        "a list of node classes such as \"SaveImageWebsocket\"".to_owned()
    }

    fn schema(&self) -> Value {
        schema::list(LIST_MAX)
    }

    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        read_list(self, written, Self::entry)
    }
}

impl Classes {
    /// Without the blanks around it, which nobody sees in a file.
    fn entry(text: &str) -> Result<String, String> {
        let text = text.trim();
        if text.is_empty() || 200 < text.len() {
            return Err("the name of a node class has 1 to 200 bytes".to_owned());
        }
        Ok(text.to_owned())
    }
}

/// Paths that are refused, such as `/pack/admin`.
#[derive(Debug)]
pub(super) struct DenyPatterns;

impl Kind for DenyPatterns {
    type Value = Vec<DenyPattern>;
    const SHAPE: Shape = Shape::List;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        comma_separated(text).map(Self::entry).collect()
    }

    fn takes(&self) -> String {
        "a list of paths such as \"/pack/admin\"".to_owned()
    }

    fn schema(&self) -> Value {
        schema::list(LIST_MAX)
    }

    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        read_list(self, written, Self::entry)
    }
}

impl DenyPatterns {
    fn entry(text: &str) -> Result<DenyPattern, String> {
        text.parse().map_err(|bad: BadPattern| format!("`{text}`: {bad}"))
    }
}

/// clientIds that many people use, such as one that a tool gives to all of its users.
#[derive(Debug)]
pub(super) struct SharedIds;

impl Kind for SharedIds {
    type Value = Vec<String>;
    const SHAPE: Shape = Shape::List;

    fn parse(&self, text: &str) -> Result<Self::Value, String> {
        comma_separated(text).map(Self::entry).collect()
    }

    fn takes(&self) -> String {
        "a list of clientIds such as \"my-tool\"".to_owned()
    }

    fn schema(&self) -> Value {
        schema::list(LIST_MAX)
    }

    fn read(&self, written: &Written) -> Result<Self::Value, Faults> {
        read_list(self, written, Self::entry)
    }
}

impl SharedIds {
    /// Leaves room for an address after the id (`@` and at most 45 bytes).
    const LEN_MAX: usize = 200;

    fn entry(text: &str) -> Result<String, String> {
        match ClientName::parse(text) {
            Ok(_) if text.len() <= Self::LEN_MAX => Ok(text.to_owned()),
            Ok(_) => Err(format!("a clientId that is shared has at most {} bytes", Self::LEN_MAX)),
            Err(error) => Err(error.to_string()),
        }
    }
}
