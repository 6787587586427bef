//! The body of `POST /prompt`: read, refused, normalised, given its ids (promises P1, P8).
//!
//! Bodies that crash, wedge or poison a ComfyUI (0.8.0, and newer as far as read) never reach
//! one. The graph itself is not parsed: the top level is taken apart with its values as raw text,
//! and put together again only if something must change; else the bytes go on as they came.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::reply;
use super::scan::{self, Unsafe};
use crate::routing::ids::{BadClientId, BadPromptId, ClientId, PromptId};

/// A body that may be submitted, before it has its ids.
#[derive(Debug)]
pub struct Draft {
    body: Bytes,
    client: Option<ClientId>,
    prompt: Option<PromptId>,
    /// Set if the body names this client by itself, at the top level.
    has_client: bool,
    has_prompt: bool,
    number: Number,
    extra_data: ExtraData,
}

/// A body as it goes to the backend.
#[derive(Debug)]
pub struct Submission {
    pub body: Bytes,
    /// Nodes whose class is an output over the socket: their binary frames are not previews.
    pub output_nodes: Vec<String>,
}

/// What must be done with `number`.
#[derive(Clone, Debug, PartialEq)]
enum Number {
    Kept,
    /// Python's `float()` takes text and booleans; JSON in the answers needs a number.
    Rewritten(f64),
}

/// What must be done with `extra_data`.
#[derive(Clone, Debug, PartialEq)]
enum ExtraData {
    Kept,
    /// `null` makes ComfyUI answer 500.
    Dropped,
    /// Without the nulls that poison `GET /api/jobs` for everyone.
    Rewritten(String),
}

/// Why a body is not submitted. The backend never sees it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error(transparent)]
    Unsafe(#[from] Unsafe),
    #[error("the key `{0}` stands twice in the body")]
    DuplicateKey(String),
    #[error("No prompt provided")]
    NoPrompt,
    #[error("`prompt` is not an object")]
    PromptNotAnObject,
    #[error("`client_id` is not a string")]
    ClientIdNotAString,
    #[error(transparent)]
    BadClientId(#[from] BadClientId),
    #[error("`prompt_id` is not a string")]
    PromptIdNotAString,
    #[error(transparent)]
    BadPromptId(#[from] BadPromptId),
    #[error("`number` is not a finite number")]
    BadNumber,
    #[error("`extra_data` is not an object")]
    BadExtraData,
}

impl Refusal {
    /// The `error.type` of the answer. Where ComfyUI has a type of its own, it is that one.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "invalid_json",
            Self::Unsafe(_) => "unsafe_json",
            Self::DuplicateKey(_) => "duplicate_key",
            Self::NoPrompt => "no_prompt",
            Self::PromptNotAnObject => "invalid_prompt",
            Self::ClientIdNotAString | Self::BadClientId(_) => "invalid_client_id",
            Self::PromptIdNotAString | Self::BadPromptId(_) => "invalid_prompt_id",
            Self::BadNumber => "invalid_number",
            Self::BadExtraData => "invalid_extra_data",
        }
    }

    /// The answer in ComfyUI's shape.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let message = self.to_string();
        reply::prompt_error(self.code(), &message, &message)
    }
}

/// Reads a body.
///
/// # Errors
/// See [`Refusal`].
pub fn read(body: Bytes) -> Result<Draft, Refusal> {
    let object: Object<'_> =
        serde_json::from_slice(&body).map_err(|error| Refusal::NotJson(error.to_string()))?;
    scan::scan(&body)?;
    if let Some(key) = object.duplicate() {
        return Err(Refusal::DuplicateKey(key.to_owned()));
    }
    match object.get("prompt").map(RawValue::get) {
        None => return Err(Refusal::NoPrompt),
        Some(graph) if !graph.starts_with('{') => return Err(Refusal::PromptNotAnObject),
        Some(_) => {}
    }
    let (client, has_client) = read_client(&object)?;
    let prompt = read_prompt_id(&object)?;
    let number = read_number(&object)?;
    let extra_data = read_extra_data(&object)?;
    let has_prompt = prompt.is_some();
    Ok(Draft { client, prompt, has_client, has_prompt, number, extra_data, body })
}

/// The client at the top level, else the one in `extra_data`, which ComfyUI takes if the key is
/// absent. The flag says whether the top level has it as it must be.
fn read_client(object: &Object<'_>) -> Result<(Option<ClientId>, bool), Refusal> {
    if let Some(raw) = object.get("client_id") {
        let client = text_or_null(raw).ok_or(Refusal::ClientIdNotAString)?;
        let client = client.filter(|text| !text.is_empty());
        let client = client.map(|text| ClientId::parse(&text)).transpose()?;
        let has_client = client.is_some();
        return Ok((client, has_client));
    }
    let nested = object
        .get("extra_data")
        .and_then(|raw| serde_json::from_str::<Object<'_>>(raw.get()).ok())
        .and_then(|extra| extra.get("client_id").map(text_or_null));
    match nested {
        None => Ok((None, false)),
        Some(None) => Err(Refusal::ClientIdNotAString),
        Some(Some(client)) => {
            let client = client.filter(|text| !text.is_empty());
            Ok((client.map(|text| ClientId::parse(&text)).transpose()?, false))
        }
    }
}

fn read_prompt_id(object: &Object<'_>) -> Result<Option<PromptId>, Refusal> {
    let Some(raw) = object.get("prompt_id") else { return Ok(None) };
    let text = text_or_null(raw).ok_or(Refusal::PromptIdNotAString)?;
    Ok(text.map(|text| PromptId::parse(&text)).transpose()?)
}

/// `float(json_data['number'])` in ComfyUI: numbers, booleans, and text that Python reads as one.
/// Null is refused there with 500.
fn read_number(object: &Object<'_>) -> Result<Number, Refusal> {
    let Some(raw) = object.get("number") else { return Ok(Number::Kept) };
    let value: serde_json::Value =
        serde_json::from_str(raw.get()).map_err(|_| Refusal::BadNumber)?;
    let rewritten = match value {
        serde_json::Value::Number(_) => {
            let is_finite = raw.get().parse::<f64>().is_ok_and(f64::is_finite);
            return if is_finite { Ok(Number::Kept) } else { Err(Refusal::BadNumber) };
        }
        serde_json::Value::Bool(flag) => Some(f64::from(u8::from(flag))),
        serde_json::Value::String(text) => text.trim().parse::<f64>().ok(),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            None
        }
    };
    rewritten.filter(|number| number.is_finite()).map(Number::Rewritten).ok_or(Refusal::BadNumber)
}

fn read_extra_data(object: &Object<'_>) -> Result<ExtraData, Refusal> {
    let Some(raw) = object.get("extra_data") else { return Ok(ExtraData::Kept) };
    if raw.get() == "null" {
        return Ok(ExtraData::Dropped);
    }
    let extra: Object<'_> = parse_object(raw).ok_or(Refusal::BadExtraData)?;
    let Some(pnginfo) = extra.get("extra_pnginfo") else { return Ok(ExtraData::Kept) };
    if pnginfo.get() == "null" {
        return Ok(ExtraData::Rewritten(extra.without("extra_pnginfo").to_json()));
    }
    // Anything but an object makes ComfyUI's jobs route fail for everyone.
    let info: Object<'_> = parse_object(pnginfo).ok_or(Refusal::BadExtraData)?;
    match info.get("workflow").map(RawValue::get) {
        Some("null") => {
            let info = info.without("workflow").to_json();
            Ok(ExtraData::Rewritten(extra.with("extra_pnginfo", &info)))
        }
        Some(_) | None => Ok(ExtraData::Kept),
    }
}

fn parse_object(raw: &RawValue) -> Option<Object<'_>> {
    serde_json::from_str(raw.get()).ok()
}

/// A string's text, `Some(None)` for null, `None` for anything else.
#[expect(clippy::option_option, reason = "three answers: text, null, neither")]
fn text_or_null(raw: &RawValue) -> Option<Option<String>> {
    serde_json::from_str(raw.get()).ok()
}

impl Draft {
    /// The client that the body names.
    #[must_use]
    pub fn client_id(&self) -> Option<&ClientId> {
        self.client.as_ref()
    }

    /// The prompt id that the body brings.
    #[must_use]
    pub fn prompt_id(&self) -> Option<&PromptId> {
        self.prompt.as_ref()
    }

    /// Gives the body its ids. Unchanged bytes are passed on as they came.
    #[must_use]
    pub fn finish(
        self,
        client: &ClientId,
        prompt: &PromptId,
        output_classes: &[String],
    ) -> Submission {
        let output_nodes = output_nodes(&self.body, output_classes);
        let is_same_client = self.has_client && self.client.as_ref() == Some(client);
        let is_unchanged = is_same_client
            && self.has_prompt
            && self.number == Number::Kept
            && self.extra_data == ExtraData::Kept;
        let body = if is_unchanged { self.body } else { self.rewrite(client, prompt) };
        Submission { body, output_nodes }
    }

    /// Puts the top level together again: ids first, the rest in its order, values byte for byte.
    fn rewrite(&self, client: &ClientId, prompt: &PromptId) -> Bytes {
        // It was read from these very bytes.
        let object: Object<'_> = serde_json::from_slice(&self.body).unwrap_or_default();
        let mut json = String::with_capacity(self.body.len() + 128);
        json.push_str("{\"client_id\": ");
        json.push_str(&quote(client.as_str()));
        json.push_str(", \"prompt_id\": ");
        json.push_str(&quote(prompt.as_str()));
        for (key, value) in &object.entries {
            let value: Cow<'_, str> = match key.as_ref() {
                "client_id" | "prompt_id" => continue,
                "number" => match self.number {
                    Number::Kept => value.get().into(),
                    Number::Rewritten(number) => number.to_string().into(),
                },
                "extra_data" => match &self.extra_data {
                    ExtraData::Kept => value.get().into(),
                    ExtraData::Dropped => continue,
                    ExtraData::Rewritten(rewritten) => rewritten.as_str().into(),
                },
                _ => value.get().into(),
            };
            push_entry(&mut json, key, &value);
        }
        json.push('}');
        json.into()
    }
}

/// The nodes of these classes. The graph is parsed only if a class is named in it at all.
fn output_nodes(body: &[u8], classes: &[String]) -> Vec<String> {
    let is_named = |class: &String| memchr::memmem::find(body, class.as_bytes()).is_some();
    if !classes.iter().any(is_named) {
        return Vec::new();
    }
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        prompt: std::collections::HashMap<Cow<'a, str>, &'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Node {
        class_type: String,
    }
    let Ok(body) = serde_json::from_slice::<Body<'_>>(body) else { return Vec::new() };
    let is_output = |raw: &RawValue| {
        serde_json::from_str::<Node>(raw.get()).is_ok_and(|node| classes.contains(&node.class_type))
    };
    let outputs = body.prompt.into_iter().filter(|(_, raw)| is_output(raw));
    outputs.map(|(node, _)| node.into_owned()).collect()
}

/// A JSON object whose values are kept as text, in their order.
#[derive(Debug, Default)]
struct Object<'a> {
    entries: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| *value)
    }

    fn duplicate(&self) -> Option<&str> {
        let mut seen = HashSet::new();
        self.entries.iter().map(|(key, _)| key.as_ref()).find(|key| !seen.insert(*key))
    }

    fn without(mut self, key: &str) -> Self {
        self.entries.retain(|(name, _)| name != key);
        self
    }

    fn to_json(&self) -> String {
        let mut json = String::from("{");
        for (key, value) in &self.entries {
            push_entry(&mut json, key, value.get());
        }
        json.push('}');
        json
    }

    fn with(&self, key: &str, replaced: &str) -> String {
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

fn push_entry(json: &mut String, key: &str, value: &str) {
    if !json.ends_with('{') {
        json.push_str(", ");
    }
    json.push_str(&quote(key));
    json.push_str(": ");
    json.push_str(value);
}

/// Text as JSON. Strings always serialise.
fn quote(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(body: &str) -> Result<String, Refusal> {
        let draft = read(Bytes::copy_from_slice(body.as_bytes()))?;
        let client = draft.client_id().cloned().unwrap_or(ClientId::parse("minted").unwrap());
        let prompt = draft.prompt_id().cloned().unwrap_or(PromptId::parse("given").unwrap());
        let body = draft.finish(&client, &prompt, &[]).body;
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    #[track_caller]
    fn check(body: &str, expected: &str) {
        assert_eq!(finished(body).as_deref(), Ok(expected), "{body}");
    }

    #[track_caller]
    fn refused(body: &str, code: &str) {
        assert_eq!(finished(body).map_err(|refusal| refusal.code()), Err(code), "{body}");
    }

    #[test]
    fn a_body_with_its_ids_goes_on_as_it_came() {
        let body = r#"{"prompt":{"1":{}}, "prompt_id":"p",  "client_id":"c","x":[1, 2]}"#;
        check(body, body);
    }

    #[test]
    fn ids_are_added_and_values_are_not_touched() {
        check(
            r#"{"prompt":{"1":{"a": 1.50}}}"#,
            r#"{"client_id": "minted", "prompt_id": "given", "prompt": {"1":{"a": 1.50}}}"#,
        );
        check(
            r#"{"client_id":"","prompt_id":null,"prompt":{}}"#,
            r#"{"client_id": "minted", "prompt_id": "given", "prompt": {}}"#,
        );
        check(
            r#"{"prompt":{},"extra_data":{"client_id":"x"}}"#,
            concat!(
                r#"{"client_id": "x", "prompt_id": "given", "prompt": {}, "#,
                r#""extra_data": {"client_id":"x"}}"#
            ),
        );
    }

    #[test]
    fn nulls_that_break_comfyui_are_dropped() {
        let ids = r#"{"client_id": "c", "prompt_id": "p", "prompt": {}"#;
        let given = r#"{"client_id":"c","prompt_id":"p","prompt":{},"extra_data":"#;
        check(&format!("{given}null}}"), &format!("{ids}}}"));
        check(
            &format!(r#"{given}{{"extra_pnginfo":null,"a":1}}}}"#),
            &format!(r#"{ids}, "extra_data": {{"a": 1}}}}"#),
        );
        check(
            &format!(r#"{given}{{"extra_pnginfo":{{"workflow":null}}}}}}"#),
            &format!(r#"{ids}, "extra_data": {{"extra_pnginfo": {{}}}}}}"#),
        );
    }

    #[test]
    fn what_breaks_comfyui_is_refused() {
        refused("", "invalid_json");
        refused("[]", "invalid_json");
        refused(r#"{"prompt":{},"number":NaN}"#, "invalid_json");
        refused(r#"{"prompt":{"1":{"x":1e999}}}"#, "unsafe_json");
        refused(r#"{"client_id":"a"}"#, "no_prompt");
        refused(r#"{"prompt":null}"#, "invalid_prompt");
        refused(r#"{"prompt":{},"client_id":["a"]}"#, "invalid_client_id");
        refused(r#"{"prompt":{},"client_id":1}"#, "invalid_client_id");
        refused(r#"{"prompt":{},"extra_data":{"client_id":{}}}"#, "invalid_client_id");
        refused(r#"{"prompt":{},"prompt_id":"é"}"#, "invalid_prompt_id");
        refused(r#"{"prompt":{},"prompt_id":7}"#, "invalid_prompt_id");
        refused(r#"{"prompt":{},"number":"NaN"}"#, "invalid_number");
        refused(r#"{"prompt":{},"number":null}"#, "invalid_number");
        refused(r#"{"prompt":{},"extra_data":[]}"#, "invalid_extra_data");
        refused(r#"{"prompt":{},"client_id":"a","client_id":"b"}"#, "duplicate_key");
    }

    #[test]
    fn what_python_reads_as_a_number_becomes_one() {
        let with =
            |number: &str| finished(&format!(r#"{{"prompt":{{}},"number":{number}}}"#)).unwrap();
        assert!(with("\"5\"").ends_with(r#""number": 5}"#));
        assert!(with("true").ends_with(r#""number": 1}"#));
        assert!(with("-2.50").ends_with(r#""number": -2.50}"#));
    }

    #[test]
    fn nodes_that_answer_over_the_socket_are_found() {
        let body = r#"{"prompt":{"7":{"class_type":"SaveImageWebsocket","inputs":{}},
            "8":{"class_type":"SaveImage","inputs":{"x":"SaveImageWebsocket"}}}}"#;
        let draft = read(Bytes::from_static(body.as_bytes())).unwrap();
        let client = ClientId::parse("c").unwrap();
        let prompt = PromptId::parse("p").unwrap();
        let classes = ["SaveImageWebsocket".to_owned()];
        assert_eq!(draft.finish(&client, &prompt, &classes).output_nodes, ["7"]);
    }
}
