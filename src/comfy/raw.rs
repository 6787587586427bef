//! Parses JSON only as far as needed: values that are not read stay the bytes that they were.
//!
//! A value that cannot be read (a lone surrogate, another type) counts as absent. Backends' lists
//! contain what users and custom nodes wrote, and one bad value must not hide the rest.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::value::RawValue;

/// A JSON object, in its order. The last of equal keys counts, as in Python.
#[derive(Debug, Default)]
pub(super) struct Object<'a>(IndexMap<String, &'a RawValue>);

impl<'a> Object<'a> {
    /// `None` if it is not an object.
    pub(super) fn read(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok().map(Self)
    }

    fn of(value: &'a RawValue) -> Option<Self> {
        Self::read(value.get().as_bytes())
    }

    /// The value of a key that exists and is not null.
    pub(super) fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.get(key).copied().filter(|value| value.get() != "null")
    }

    pub(super) fn object(&self, key: &str) -> Option<Self> {
        self.get(key).and_then(Object::of)
    }

    pub(super) fn list(&self, key: &str) -> Option<Vec<&'a RawValue>> {
        self.get(key).and_then(list)
    }

    pub(super) fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key).and_then(text)
    }

    pub(super) fn number(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(number)
    }

    /// Keys and values, including nulls.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_str(), *value))
    }
}

/// The items of a list; `None` if it is not a list.
pub(super) fn list(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

pub(super) fn object(value: &RawValue) -> Option<Object<'_>> {
    Object::of(value)
}

pub(super) fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(value.get()).ok().map(|text| text.0)
}

pub(super) fn number(value: &RawValue) -> Option<f64> {
    serde_json::from_str(value.get()).ok()
}

/// Writes an object, with the spaces that Python writes.
#[derive(Debug)]
pub(super) struct Writer(String);

impl Writer {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    /// Adds a member whose value is JSON already.
    pub(super) fn raw(&mut self, key: &str, json: &str) -> &mut Self {
        if 1 < self.0.len() {
            self.0.push_str(", ");
        }
        self.0.push_str(&quoted(key));
        self.0.push_str(": ");
        self.0.push_str(json);
        self
    }

    /// Adds a member if it has a value: ComfyUI leaves such keys out of jobs.
    pub(super) fn given(&mut self, key: &str, value: Option<&RawValue>) -> &mut Self {
        match value {
            Some(value) => self.raw(key, value.get()),
            None => self,
        }
    }

    pub(super) fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.raw(key, &quoted(text))
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    // Every text can be written as JSON.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof};
    use serde_json::Value;

    use super::*;

    /// Any JSON, often with keys and words that have a meaning in ComfyUI.
    pub(in crate::comfy) fn any_json() -> impl Strategy<Value = Value> {
        const WORDS: &str = "create_time|extra_pnginfo|workflow|id|status|status_str|messages|\
            execution_start|execution_end_time|timestamp|outputs|images|animated|filename|type|\
            output|format|prompt|jobs|job_ids|nodeId|failed|error|x.glb|video/mp4|[a-zé'\"]{0,3}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            WORDS.prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            let fields = proptest::collection::vec((WORDS, inner.clone()), 0..5);
            prop_oneof![
                proptest::collection::vec(inner, 0..5).prop_map(Value::from),
                fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn what_cannot_be_read_is_absent_and_stays_as_it_was() {
        let json = br#"{"a": null, "b": "\ud800", "c": [1,  2], "c": 1e999, "d": {"x": {}}}"#;
        let object = Object::read(json).unwrap();
        assert!(object.get("a").is_none() && object.get("z").is_none());
        assert_eq!((object.text("b"), object.number("c")), (None, None));
        assert!(object.list("c").is_none(), "the last one counts");
        assert!(object.object("d").is_some_and(|inner| inner.object("x").is_some()));
        let written: Vec<_> = object.iter().map(|(key, raw)| (key, raw.get())).collect();
        assert_eq!(written[..2], [("a", "null"), ("b", r#""\ud800""#)]);
        assert!(Object::read(b"[]").is_none() && Object::read(b"{\"a\": NaN}").is_none());
    }
}
