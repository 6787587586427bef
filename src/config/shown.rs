//! Converts values to the form in which they are shown: JSON, and from it TOML.

use serde_json::{Map, Value};

use super::kinds::Shape;
use super::raw::Item;
use super::secret::HIDDEN;

/// A good value in the form of a file. `Text` stands for any type if it came from the environment,
/// a flag or the defaults.
pub(super) fn value(shape: Shape, item: &Item) -> Value {
    match (item, shape) {
        (Item::Text(text), Shape::Text | Shape::TextOrNumber) => text.as_str().into(),
        (Item::Text(text), Shape::Number) => {
            text.trim().parse::<i64>().map_or_else(|_| text.as_str().into(), Value::from)
        }
        (Item::Text(text), Shape::Switch) => {
            let text = text.trim().to_ascii_lowercase();
            Value::from(["true", "yes", "on", "1"].contains(&text.as_str()))
        }
        (Item::Text(text), Shape::List) => {
            let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            entries.map(Value::from).collect()
        }
        (Item::Number(number), _any) => {
            i64::try_from(*number).map_or_else(|_| number.to_string().into(), Value::from)
        }
        (Item::Switch(value), _any) => (*value).into(),
        (Item::List(list), _any) => {
            list.iter().map(|entry| value(Shape::Text, &entry.item)).collect()
        }
        (Item::Table(_) | Item::Other, _any) => Value::Null,
    }
}

/// Headers with their names and without their values. The file of a header is shown.
pub(super) fn headers(item: &Item) -> Value {
    let hidden = |text: &str| {
        let name = text.split_once(':').map_or("", |(name, _)| name.trim());
        Value::from(format!("{name}: {HIDDEN}"))
    };
    match item {
        Item::Text(text) => {
            let lines = text.lines().map(str::trim);
            lines.filter(|it| !it.is_empty() && !it.starts_with('#')).map(hidden).collect()
        }
        Item::List(list) => {
            let entry = |item: &Item| match item {
                Item::Text(text) => hidden(text),
                Item::Number(_)
                | Item::Other
                | Item::Switch(_)
                | Item::List(_)
                | Item::Table(_) => Value::Null,
            };
            list.iter().map(|it| entry(&it.item)).collect()
        }
        Item::Table(entries) => {
            let shown = entries.iter().map(|(name, it)| (name.clone(), header(&it.item)));
            Value::Object(shown.collect::<Map<_, _>>())
        }
        Item::Number(_) | Item::Other | Item::Switch(_) => Value::Null,
    }
}

fn header(item: &Item) -> Value {
    match item {
        Item::Table(entries) => {
            let shown = entries.iter().map(|(key, it)| (key.clone(), value(Shape::Text, &it.item)));
            Value::Object(shown.collect::<Map<_, _>>())
        }
        Item::Text(_) | Item::Number(_) | Item::Other | Item::Switch(_) | Item::List(_) => {
            HIDDEN.into()
        }
    }
}

/// A value as it is written in a file, on one line.
pub(super) fn toml(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(list) => format!("[{}]", list.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(table) if table.is_empty() => "{}".to_owned(),
        Value::Object(table) => {
            let entries = table.iter().map(|(name, it)| format!("{} = {}", key(name), toml(it)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        // No key has a null.
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A key, quoted if necessary.
pub(super) fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// TOML's basic strings are those of JSON, except for DEL, which is escaped (TOML 1.0, String).
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}
