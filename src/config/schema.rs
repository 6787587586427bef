//! Builds a JSON Schema (draft 2020-12) of the configuration file, for editors, from the table of
//! keys.
//!
//! It is never stricter than the loader. It is weaker where a schema cannot express a requirement
//! (the range of a duration, two keys that must fit together).

use serde_json::{Map, Value, json};

use super::keys::{BACKENDS, KEYS, Key, SECTIONS, is_named};
use super::names::{BACKEND_NAME_MAX, PLACE_NAME_MAX};

/// A duration such as `1m30s`; its units are those of [`super::units`].
pub(super) fn duration() -> Value {
    let units = super::units::duration_units().join("|");
    json!({
        "type": "string",
        "pattern": format!(r"^\s*([0-9]+(\.[0-9]+)?\s*({units})\s*)+$"),
    })
}

/// A size such as `64MiB`, or a number of bytes.
pub(super) fn size(min: u64, max: u64) -> Value {
    let units = "([kKmMgGtT]([iI]?[bB])?|[bB]([yY][tT][eE][sS]?)?)?";
    json!({ "anyOf": [
        { "type": "integer", "minimum": min, "maximum": max },
        {
            "type": "string",
            "pattern": format!(r"^\s*[0-9]+(\.[0-9]+)?\s*{units}\s*$"),
        },
    ]})
}

/// A list of strings.
pub(super) fn list(max: usize) -> Value {
    json!({ "type": "array", "items": { "type": "string" }, "maxItems": max })
}

/// The schema of a configuration file.
#[must_use]
pub fn schema() -> Value {
    let mut sections = Map::new();
    for (section, about) in SECTIONS {
        let is_named = is_named(section);
        let table = if is_named { tables(section, about) } else { table(section, about) };
        match section.split_once('.') {
            // One in another, which stands before it.
            Some((outer, inner)) => {
                if let Some(outer) = sections.get_mut(outer) {
                    outer["properties"][inner] = table;
                }
            }
            None => {
                sections.insert((*section).to_owned(), table);
            }
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Mooring",
        "description": "The configuration of Mooring, a gateway that makes many ComfyUI servers \
                        look like one.",
        "type": "object",
        "properties": sections,
        "additionalProperties": false,
    })
}

fn table(section: &str, about: &str) -> Value {
    let keys = KEYS.iter().filter(|key| key.section == section);
    let properties: Map<_, _> = keys.map(|key| (key.name.to_owned(), property(key))).collect();
    json!({
        "description": about.trim(),
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// Named tables. Required keys such as `url` are optional here, because they may come from the
/// environment.
fn tables(section: &str, about: &str) -> Value {
    let max = if section == BACKENDS { BACKEND_NAME_MAX } else { PLACE_NAME_MAX };
    let name = format!("^[A-Za-z0-9._:-]{{1,{max}}}$");
    json!({
        "description": about.trim(),
        "type": "object",
        "patternProperties": { name: table(section, about) },
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Value {
    let mut property = Map::new();
    let description = format!("{} Takes {}.", key.why(), key.takes());
    property.insert("description".to_owned(), description.into());
    if let Value::Object(schema) = key.schema() {
        property.extend(schema);
    }
    if key.has_default() {
        property.insert("default".to_owned(), key.default_value());
    }
    Value::Object(property)
}
