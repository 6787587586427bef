//! The body of `POST /prompt`: reads, refuses or normalises it, and gives it its ids (promises P1,
//! P8).
//!
//! Bodies that crash, wedge or poison a ComfyUI (0.3.64 to 0.33) never reach one. The graph itself
//! is not parsed. The top level is split with its values as raw text, the graph's structure is
//! checked, and the body is rewritten only if something must change; otherwise its bytes are passed
//! on unchanged.

mod denied;
pub mod numbered;
mod object;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::files::Unreadable;
use super::graph::{self, Classes, Edits, Unfit};
use super::reply;
use super::scan::{self, Unsafe};
use crate::routing::ids::{BadClientId, BadPromptId, ClientId, PromptId};
use crate::routing::realm::ClientName;
pub use denied::DeniedNode;
use object::{Object, push_edited, push_entry, quote};

/// The most nodes that are remembered whose pictures on the socket are results.
const OUTPUT_NODES_MAX: usize = 256;

/// A body that may be submitted, before it has its ids.
#[derive(Debug)]
pub struct Draft {
    body: Bytes,
    client: Option<ClientName>,
    prompt: Option<PromptId>,
    /// Set if the body names this client at its top level.
    has_client: bool,
    has_prompt: bool,
    number: Number,
    extra_data: ExtraData,
    /// Parts of the graph that must be rewritten.
    graph: Edits,
}

/// A body in the form for the backend.
#[derive(Debug)]
pub struct Submission {
    pub body: Bytes,
    /// Nodes whose class sends its output on the socket: their binary frames are not previews.
    pub output_nodes: Vec<String>,
}

/// What has to be done with `number`.
#[derive(Clone, Debug, PartialEq)]
enum Number {
    Kept,
    /// Python's `float()` accepts text and booleans, but JSON in the answers needs a number.
    Rewritten(f64),
}

/// What has to be done with `extra_data`.
#[derive(Clone, Debug, PartialEq)]
enum ExtraData {
    Kept,
    /// `null` would make ComfyUI answer 500.
    Dropped,
    /// Without the values that would make `GET /api/jobs` fail for everyone.
    Rewritten(String),
}

/// Why a body is not submitted. The backend never sees it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error(transparent)]
    Unsafe(#[from] Unsafe),
    #[error("the key `{0}` occurs twice in the body")]
    DuplicateKey(String),
    #[error("No prompt provided")]
    NoPrompt,
    #[error("`prompt` is not an object")]
    PromptNotAnObject,
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("`client_id` is neither a string nor a number")]
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
    #[error("`partial_execution_targets` is not a list")]
    BadTargets,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("Node '{}' may not be used here: it is in server.deny_nodes", .0.name())]
    NodeDenied(DeniedNode),
}

impl Refusal {
    /// The `error.type` of the answer. If ComfyUI has a type for the error, it is that one.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "invalid_json",
            Self::Unsafe(_) => "unsafe_json",
            Self::DuplicateKey(_) => "duplicate_key",
            Self::NoPrompt => "no_prompt",
            Self::PromptNotAnObject | Self::Unreadable(_) => "invalid_prompt",
            Self::Unfit(unfit) => match unfit {
                Unfit::NotApiFormat => "not_api_format",
                Unfit::NotAnObject { .. }
                | Unfit::ClassNotAString { .. }
                | Unfit::NoInputs { .. }
                | Unfit::InputsNotAnObject { .. }
                | Unfit::LinkInValue { .. } => "invalid_prompt",
                Unfit::LongId { .. } => "node_id_too_long",
                Unfit::TooDeep => "graph_too_deep",
                Unfit::TooLarge | Unfit::TooTangled => "graph_too_large",
            },
            Self::ClientIdNotAString | Self::BadClientId(_) => "invalid_client_id",
            Self::PromptIdNotAString | Self::BadPromptId(_) => "invalid_prompt_id",
            Self::BadNumber => "invalid_number",
            Self::BadExtraData => "invalid_extra_data",
            Self::BadTargets => "invalid_targets",
            Self::NodeDenied(_) => "missing_node_type",
        }
    }

    /// The answer in ComfyUI's format.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let message = self.to_string();
        if let Self::NodeDenied(node) = self {
            return node.body(self.code(), &message);
        }
        reply::prompt_error(self.code(), &message, &message)
    }
}

/// Reads a body; `classes` says what is known about the nodes.
///
/// # Errors
/// See [`Refusal`].
pub fn read(body: Bytes, classes: &dyn Classes) -> Result<Draft, Refusal> {
    let body = match scan::normal(&body)? {
        Cow::Borrowed(_) => body,
        Cow::Owned(normal) => normal.into(),
    };
    let object: Object<'_> =
        serde_json::from_slice(&body).map_err(|error| Refusal::NotJson(error.to_string()))?;
    if let Some(key) = object.duplicate() {
        return Err(Refusal::DuplicateKey(key.to_owned()));
    }
    let graph = match object.get("prompt").map(RawValue::get) {
        None => return Err(Refusal::NoPrompt),
        Some(graph) if !graph.starts_with('{') => return Err(Refusal::PromptNotAnObject),
        Some(graph) => graph::judge(graph.as_bytes(), classes)?,
    };
    check_targets(&object)?;
    let (client, has_client) = read_client(&object)?;
    let prompt = read_prompt_id(&object)?;
    let number = read_number(&object)?;
    let extra_data = read_extra_data(&object)?;
    let has_prompt = prompt.is_some();
    Ok(Draft { client, prompt, has_client, has_prompt, number, extra_data, graph, body })
}

/// ComfyUI tests whether each output is in it. Python's `in` fails for a number or a boolean (500).
fn check_targets(object: &Object<'_>) -> Result<(), Refusal> {
    let targets = object.get("partial_execution_targets").map(RawValue::get);
    let is_bad = |targets: &str| targets != "null" && !targets.starts_with(['[', '{', '"']);
    if targets.is_some_and(is_bad) { Err(Refusal::BadTargets) } else { Ok(()) }
}

/// The client at the top level, else the one in `extra_data`, which ComfyUI uses if the key is
/// absent. The flag says whether the top level already has it in the right form.
fn read_client(object: &Object<'_>) -> Result<(Option<ClientName>, bool), Refusal> {
    if let Some(raw) = object.get("client_id") {
        let client = name_or_null(raw).ok_or(Refusal::ClientIdNotAString)?;
        let client = client.filter(|text| !text.is_empty());
        let client = client.map(|text| ClientName::parse(&text)).transpose()?;
        let has_client = client.is_some() && raw.get().starts_with('"');
        return Ok((client, has_client));
    }
    let nested = object
        .get("extra_data")
        .and_then(|raw| serde_json::from_str::<Object<'_>>(raw.get()).ok())
        .and_then(|extra| extra.get("client_id").map(name_or_null));
    match nested {
        None => Ok((None, false)),
        Some(None) => Err(Refusal::ClientIdNotAString),
        Some(Some(client)) => {
            let client = client.filter(|text| !text.is_empty());
            Ok((client.map(|text| ClientName::parse(&text)).transpose()?, false))
        }
    }
}

fn read_prompt_id(object: &Object<'_>) -> Result<Option<PromptId>, Refusal> {
    let Some(raw) = object.get("prompt_id") else { return Ok(None) };
    let text = text_or_null(raw).ok_or(Refusal::PromptIdNotAString)?;
    Ok(text.map(|text| PromptId::parse(&text)).transpose()?)
}

/// `float(json_data['number'])` in ComfyUI: numbers, booleans, and text that Python reads as a
/// number. ComfyUI answers null with 500.
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
        Some(workflow) if !workflow.starts_with('{') => {
            let info = info.without("workflow").to_json();
            Ok(ExtraData::Rewritten(extra.with("extra_pnginfo", &info)))
        }
        Some(_) | None => Ok(ExtraData::Kept),
    }
}

fn parse_object(raw: &RawValue) -> Option<Object<'_>> {
    serde_json::from_str(raw.get()).ok()
}

/// Like [`text_or_null`], but a number becomes its text: ComfyUI accepts both as keys of its
/// sockets.
#[expect(clippy::option_option, reason = "three answers: text, null, neither")]
pub(super) fn name_or_null(raw: &RawValue) -> Option<Option<String>> {
    let is_number = raw.get().starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if is_number { Some(Some(raw.get().to_owned())) } else { text_or_null(raw) }
}

/// A string's text; `Some(None)` for null, `None` for anything else.
#[expect(clippy::option_option, reason = "three answers: text, null, neither")]
fn text_or_null(raw: &RawValue) -> Option<Option<String>> {
    serde_json::from_str(raw.get()).ok()
}

impl Draft {
    /// The client that the body names.
    #[must_use]
    pub fn client_name(&self) -> Option<&ClientName> {
        self.client.as_ref()
    }

    /// The prompt id in the body, if it has one.
    #[must_use]
    pub fn prompt_id(&self) -> Option<&PromptId> {
        self.prompt.as_ref()
    }

    /// Gives the body its ids. If nothing changes, its bytes are passed on unchanged.
    #[must_use]
    pub fn finish(
        self,
        client: &ClientId,
        prompt: &PromptId,
        output_classes: &[String],
    ) -> Submission {
        let output_nodes = output_nodes(&self.body, output_classes);
        let is_named = |name: &ClientName| name.as_str() == client.as_str();
        let is_same_client = self.has_client && self.client.as_ref().is_some_and(is_named);
        let is_unchanged = is_same_client
            && self.has_prompt
            && self.number == Number::Kept
            && self.graph.is_empty()
            && self.extra_data == ExtraData::Kept;
        let body = if is_unchanged { self.body } else { self.rewrite(client, prompt) };
        Submission { body, output_nodes }
    }

    /// Writes the top level anew: ids first, the rest in its order, values byte for byte.
    fn rewrite(&self, client: &ClientId, prompt: &PromptId) -> Bytes {
        // These bytes were parsed before.
        let object: Object<'_> = serde_json::from_slice(&self.body).unwrap_or_default();
        let mut json = String::with_capacity(self.body.len() + 128);
        json.push_str("{\"client_id\": ");
        json.push_str(&quote(client.as_str()));
        json.push_str(", \"prompt_id\": ");
        json.push_str(&quote(prompt.as_str()));
        for (key, value) in object.entries() {
            let value: Cow<'_, str> = match key {
                "client_id" | "prompt_id" => continue,
                "prompt" => {
                    push_edited(&mut json, key, value, &self.graph);
                    continue;
                }
                "number" => match self.number {
                    Number::Kept => value.into(),
                    Number::Rewritten(number) => number.to_string().into(),
                },
                "extra_data" => match &self.extra_data {
                    ExtraData::Kept => value.into(),
                    ExtraData::Dropped => continue,
                    ExtraData::Rewritten(rewritten) => rewritten.as_str().into(),
                },
                _ => value.into(),
            };
            push_entry(&mut json, key, &value);
        }
        json.push('}');
        json.into()
    }
}

/// The nodes of a graph, by their ids.
type Nodes<'a> = std::collections::HashMap<Cow<'a, str>, &'a RawValue>;

/// The nodes of these classes. The graph is parsed only if it contains the name of such a class.
fn output_nodes(body: &[u8], classes: &[String]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        prompt: Nodes<'a>,
    }
    if !names_one(body, classes) {
        return Vec::new();
    }
    let body = serde_json::from_slice::<Body<'_>>(body);
    body.map(|body| of_classes(body.prompt, classes)).unwrap_or_default()
}

/// The same, for a graph.
pub(super) fn output_nodes_of(graph: &[u8], classes: &[String]) -> Vec<String> {
    if !names_one(graph, classes) {
        return Vec::new();
    }
    let nodes = serde_json::from_slice::<Nodes<'_>>(graph);
    nodes.map(|nodes| of_classes(nodes, classes)).unwrap_or_default()
}

fn names_one(json: &[u8], classes: &[String]) -> bool {
    classes.iter().any(|class| memchr::memmem::find(json, class.as_bytes()).is_some())
}

fn of_classes(nodes: Nodes<'_>, classes: &[String]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Node {
        class_type: String,
    }
    let is_output = |raw: &RawValue| {
        serde_json::from_str::<Node>(raw.get()).is_ok_and(|node| classes.contains(&node.class_type))
    };
    let outputs = nodes.into_iter().filter(|(_, raw)| is_output(raw));
    outputs.map(|(node, _)| node.into_owned()).take(OUTPUT_NODES_MAX).collect()
}
