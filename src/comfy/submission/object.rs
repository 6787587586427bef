//! A JSON object whose values are kept as text, in their order.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::comfy::graph::Edits;

/// A JSON object whose values are kept as text, in their order.
#[derive(Debug, Default)]
pub(super) struct Object<'a> {
    entries: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// The value of the last member with that key, as in Python.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.entries.iter().rfind(|(name, _)| name == key).map(|(_, value)| *value)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.entries.iter().map(|(key, value)| (key.as_ref(), value.get()))
    }

    pub(super) fn duplicate(&self) -> Option<&str> {
        let mut seen = HashSet::new();
        self.entries.iter().map(|(key, _)| key.as_ref()).find(|key| !seen.insert(*key))
    }

    pub(super) fn without(mut self, key: &str) -> Self {
        self.entries.retain(|(name, _)| name != key);
        self
    }

    pub(super) fn to_json(&self) -> String {
        let mut json = String::from("{");
        for (key, value) in &self.entries {
            push_entry(&mut json, key, value.get());
        }
        json.push('}');
        json
    }

    pub(super) fn with(&self, key: &str, replaced: &str) -> String {
        let mut json = String::from("{");
        for (name, value) in &self.entries {
            push_entry(&mut json, name, if name == key { replaced } else { value.get() });
        }
        json.push('}');
        json
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Key<'de>>()? {
                    entries.push((key.0, map.next_value::<&'de RawValue>()?));
                }
                Ok(Object { entries })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A key, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

pub(super) fn push_entry(json: &mut String, key: &str, value: &str) {
    push_key(json, key);
    json.push_str(value);
}

/// Like [`push_entry`], with parts of the value rewritten.
pub(super) fn push_edited(json: &mut String, key: &str, value: &str, edits: &Edits) {
    push_key(json, key);
    let mut at = 0;
    for (range, text) in edits {
        json.push_str(value.get(at..range.start).unwrap_or(""));
        json.push_str(text);
        at = range.end;
    }
    json.push_str(value.get(at..).unwrap_or(""));
}

fn push_key(json: &mut String, key: &str) {
    if !json.ends_with('{') {
        json.push_str(", ");
    }
    json.push_str(&quote(key));
    json.push_str(": ");
}

/// A text as JSON. Strings can always be serialised.
pub(super) fn quote(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}
