//! Reads the few socket events that matter; all others pass unread.
//!
//! Python writes `{"type": "…", "data": {…}}`, so the type is found in the first bytes. Only events
//! that matter are parsed further, and of those only the prompt id and the deciding fields. Text
//! with another beginning is parsed in full, and text that is not an event becomes
//! [`Event::Other`].

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::{RawValue, to_raw_value};

/// An event, with the fields that are read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event<'a> {
    Status {
        queue_remaining: Option<u64>,
        has_sid: bool,
    },
    Start {
        prompt: Cow<'a, str>,
    },
    Cached {
        prompt: Cow<'a, str>,
    },
    /// `node` is absent in the closing event of a prompt. `prompt` is absent in the event that
    /// ComfyUI sends to a socket that returns while a prompt runs.
    Executing {
        prompt: Option<Cow<'a, str>>,
        node: Option<Cow<'a, str>>,
    },
    Progress {
        prompt: Option<Cow<'a, str>>,
    },
    ProgressState {
        prompt: Option<Cow<'a, str>>,
    },
    Executed {
        prompt: Cow<'a, str>,
    },
    Success {
        prompt: Cow<'a, str>,
    },
    Failed {
        prompt: Cow<'a, str>,
    },
    /// `execution_error` of type `ExecutionBlocked`: the prompt continues (ComfyUI
    /// `execution.py:497`).
    Blocked {
        prompt: Cow<'a, str>,
    },
    Interrupted {
        prompt: Cow<'a, str>,
    },
    FeatureFlags,
    Logs,
    /// Progress of a scan for assets (ComfyUI 0.33 `app/assets/seeder.py`): several texts to every
    /// socket with each load of a page and each end of a prompt. A page needs only the end of a
    /// scan, and that is [`Event::Seeded`].
    Seeding,
    /// A scan for assets has ended; it says how many files were found, whoever's they are.
    Seeded,
    Other,
}

impl Event<'_> {
    /// The prompt of the event, if it names one.
    #[must_use]
    pub fn prompt(&self) -> Option<&str> {
        match self {
            Self::Start { prompt }
            | Self::Cached { prompt }
            | Self::Executed { prompt }
            | Self::Success { prompt }
            | Self::Failed { prompt }
            | Self::Blocked { prompt }
            | Self::Interrupted { prompt } => Some(prompt),
            Self::Executing { prompt, .. }
            | Self::Progress { prompt }
            | Self::ProgressState { prompt } => prompt.as_deref(),
            Self::Status { .. }
            | Self::FeatureFlags
            | Self::Logs
            | Self::Seeding
            | Self::Seeded
            | Self::Other => None,
        }
    }
}

/// Reads one text message.
#[must_use]
pub fn read(text: &[u8]) -> Event<'_> {
    match kind(text) {
        Some(Kind::Borrowed(kind)) => of_kind(kind, text),
        Some(Kind::Parsed(kind)) => of_kind(kind.as_bytes(), text),
        None => Event::Other,
    }
}

/// True for `executed`, which names files. Looks only at the first bytes.
#[must_use]
pub fn is_executed(text: &[u8]) -> bool {
    match kind(text) {
        Some(Kind::Borrowed(kind)) => kind == b"executed",
        Some(Kind::Parsed(kind)) => kind == "executed",
        None => false,
    }
}

enum Kind<'a> {
    Borrowed(&'a [u8]),
    Parsed(String),
}

/// The type of an event: from its first bytes, or by parsing if these are unusual.
fn kind(text: &[u8]) -> Option<Kind<'_>> {
    let rest = text.strip_prefix(br#"{"type":"#);
    let rest = rest.map(|rest| rest.strip_prefix(b" ").unwrap_or(rest));
    if let Some(rest) = rest.and_then(|rest| rest.strip_prefix(b"\"")) {
        let end = memchr::memchr2(b'"', b'\\', rest)?;
        if rest[end] == b'"' {
            return Some(Kind::Borrowed(&rest[..end]));
        }
    }
    #[derive(Deserialize)]
    struct Typed {
        r#type: String,
    }
    serde_json::from_slice::<Typed>(text).ok().map(|typed| Kind::Parsed(typed.r#type))
}

fn of_kind<'a>(kind: &[u8], text: &'a [u8]) -> Event<'a> {
    match kind {
        b"status" => status(text),
        b"executing" => executing(text),
        b"progress" => Event::Progress { prompt: prompt(text) },
        b"progress_state" => {
            Event::ProgressState { prompt: first_prompt(text).or_else(|| prompt(text)) }
        }
        b"execution_start" => named(text, |prompt| Event::Start { prompt }),
        b"execution_cached" => named(text, |prompt| Event::Cached { prompt }),
        b"executed" => named(text, |prompt| Event::Executed { prompt }),
        b"execution_success" => named(text, |prompt| Event::Success { prompt }),
        b"execution_error" => error(text),
        b"execution_interrupted" => named(text, |prompt| Event::Interrupted { prompt }),
        b"feature_flags" => Event::FeatureFlags,
        b"logs" => Event::Logs,
        b"assets.seed.fast_complete" | b"assets.seed.completed" => Event::Seeded,
        _ if kind.starts_with(b"assets.seed.") => Event::Seeding,
        _ => Event::Other,
    }
}

/// The fields of an event's `data` that `T` reads.
fn data<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Option<T> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        data: T,
    }
    serde_json::from_slice::<Envelope<T>>(text).ok().map(|envelope| envelope.data)
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    prompt_id: Option<Cow<'a, str>>,
}

fn prompt(text: &[u8]) -> Option<Cow<'_, str>> {
    data::<Named<'_>>(text).and_then(|named| named.prompt_id)
}

/// The prompt of a `progress_state`, if it is where ComfyUI writes it. This is the longest and most
/// frequent event, and nothing else of it is read.
fn first_prompt(text: &[u8]) -> Option<Cow<'_, str>> {
    const BEGINNING: &[u8] = br#"{"type": "progress_state", "data": {"prompt_id": ""#;
    let rest = text.strip_prefix(BEGINNING)?;
    let end = memchr::memchr2(b'"', b'\\', rest)?;
    let id = std::str::from_utf8(&rest[..end]).ok()?;
    (rest[end] == b'"').then_some(Cow::Borrowed(id))
}

/// An event that is useful only with its prompt.
fn named<'a>(text: &'a [u8], event: impl FnOnce(Cow<'a, str>) -> Event<'a>) -> Event<'a> {
    prompt(text).map_or(Event::Other, event)
}

fn status(text: &[u8]) -> Event<'_> {
    #[derive(Deserialize)]
    struct Data {
        status: Option<Status>,
        sid: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Status {
        exec_info: ExecInfo,
    }
    #[derive(Deserialize)]
    struct ExecInfo {
        queue_remaining: u64,
    }
    match data::<Data>(text) {
        Some(data) => Event::Status {
            queue_remaining: data.status.map(|status| status.exec_info.queue_remaining),
            has_sid: data.sid.is_some(),
        },
        None => Event::Status { queue_remaining: None, has_sid: false },
    }
}

fn executing(text: &[u8]) -> Event<'_> {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        prompt_id: Option<Cow<'a, str>>,
        #[serde(borrow)]
        node: Option<Cow<'a, str>>,
    }
    match data::<Data<'_>>(text) {
        Some(data) => Event::Executing { prompt: data.prompt_id, node: data.node },
        None => Event::Other,
    }
}

fn error(text: &[u8]) -> Event<'_> {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        prompt_id: Cow<'a, str>,
        #[serde(borrow)]
        exception_type: Option<Cow<'a, str>>,
    }
    match data::<Data<'_>>(text) {
        Some(data) if data.exception_type.as_deref() == Some("ExecutionBlocked") => {
            Event::Blocked { prompt: data.prompt_id }
        }
        Some(data) => Event::Failed { prompt: data.prompt_id },
        None => Event::Other,
    }
}

/// True for an `execution_error` because the memory was full: `torch.OutOfMemoryError`, or as it is
/// called elsewhere. ComfyUI unloads its models then (`execution.py`).
#[must_use]
pub fn is_out_of_memory(text: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        exception_type: Option<Cow<'a, str>>,
    }
    let kind = data::<Data<'_>>(text).and_then(|data| data.exception_type);
    kind.is_some_and(|kind| kind.contains("OutOfMemory"))
}

/// The node of an `executing` event, if it has one.
#[must_use]
pub fn executing_node(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Data {
        node: Option<String>,
    }
    data::<Data>(text)?.node
}

/// The node of an `executed` event; `None` for all others.
#[must_use]
pub fn executed_node(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Data {
        node: String,
    }
    match read(text) {
        Event::Executed { .. } => data::<Data>(text).map(|data| data.node),
        Event::Status { .. }
        | Event::Start { .. }
        | Event::Cached { .. }
        | Event::Executing { .. }
        | Event::Progress { .. }
        | Event::ProgressState { .. }
        | Event::Success { .. }
        | Event::Failed { .. }
        | Event::Blocked { .. }
        | Event::Interrupted { .. }
        | Event::FeatureFlags
        | Event::Logs
        | Event::Seeding
        | Event::Seeded
        | Event::Other => None,
    }
}

/// A `status` without its `sid`. ComfyUI puts a `sid` into a socket's first status; it names the
/// link and not the client's socket.
#[must_use]
pub fn without_sid(text: &[u8]) -> Option<String> {
    edit(text, |data| {
        data.shift_remove("sid");
        Some(())
    })
}

/// An `executing` event with its prompt added.
#[must_use]
pub fn with_prompt(text: &[u8], prompt: &str) -> Option<String> {
    edit(text, |data| {
        data.insert("prompt_id".to_owned(), to_raw_value(prompt).ok()?);
        Some(())
    })
}

/// Members of an object, each as text: parsing a number and writing it again could change its last
/// digit.
type Members = IndexMap<String, Box<RawValue>>;

fn edit(text: &[u8], change: impl FnOnce(&mut Members) -> Option<()>) -> Option<String> {
    let mut event: Members = serde_json::from_slice(text).ok()?;
    let mut data: Members = serde_json::from_str(event.get("data")?.get()).ok()?;
    change(&mut data)?;
    event.insert("data".to_owned(), to_raw_value(&data).ok()?);
    serde_json::to_string(&event).ok()
}

/// True for JSON objects: the first one on a socket may negotiate features.
#[must_use]
pub fn is_json_object(text: &[u8]) -> bool {
    let is_object = text.trim_ascii_start().first() == Some(&b'{');
    is_object && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// True for a client's `feature_flags` message.
#[must_use]
pub fn is_feature_flags(text: &[u8]) -> bool {
    matches!(read(text), Event::FeatureFlags)
}

/// True if a client's flags ask for previews with metadata, which names their prompt.
#[must_use]
pub fn wants_preview_metadata(text: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Flags {
        #[serde(default)]
        supports_preview_metadata: Option<serde_json::Value>,
    }
    data::<Flags>(text)
        .and_then(|flags| flags.supports_preview_metadata)
        .is_some_and(|flag| flag == serde_json::Value::Bool(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "reads better in a table")]
    fn check(text: &str, expected: Event<'_>) {
        assert_eq!(read(text.as_bytes()), expected, "{text}");
    }

    #[test]
    fn events_are_read_in_any_formatting() {
        let start = || Event::Start { prompt: "p".into() };
        check(
            r#"{"type": "execution_start", "data": {"prompt_id": "p", "timestamp": 1}}"#,
            start(),
        );
        check(r#"{"type":"execution_start","data":{"prompt_id":"p"}}"#, start());
        check(r#"{"data": {"prompt_id": "p"}, "type": "execution_start"}"#, start());
        check(r#"{"type": "execution\u005fstart", "data": {"prompt_id": "p"}}"#, start());
    }

    #[test]
    fn the_last_word_is_told_from_the_others() {
        check(
            r#"{"type": "executing", "data": {"node": null, "prompt_id": "p"}}"#,
            Event::Executing { prompt: Some("p".into()), node: None },
        );
        check(
            r#"{"type": "executing", "data": {"node": "2"}}"#,
            Event::Executing { prompt: None, node: Some("2".into()) },
        );
    }

    #[test]
    fn what_is_not_edited_stays_to_its_last_digit() {
        let text = br#"{"type":"status","data":{"sid":"x","n":4.4444444444447444e+74},"m":1e400}"#;
        let bare = r#"{"type":"status","data":{"n":4.4444444444447444e+74},"m":1e400}"#;
        assert_eq!(without_sid(text).as_deref(), Some(bare));
        let named = br#"{"type":"executing","data":{"node":"2"}}"#;
        let expected = r#"{"type":"executing","data":{"node":"2","prompt_id":"p\"1"}}"#;
        assert_eq!(with_prompt(named, "p\"1").as_deref(), Some(expected));
        assert_eq!(without_sid(br#"{"type":"status","data":null}"#), None);
    }

    #[test]
    fn a_blocked_node_is_no_end() {
        let error = |kind: &str| {
            format!(
                r#"{{"type": "execution_error",
                    "data": {{"prompt_id": "p", "exception_type": "{kind}"}}}}"#
            )
        };
        check(&error("ExecutionBlocked"), Event::Blocked { prompt: "p".into() });
        check(&error("RuntimeError"), Event::Failed { prompt: "p".into() });
    }

    #[test]
    fn a_status_says_how_much_and_whether_it_is_the_first() {
        check(
            r#"{"type": "status",
                "data": {"status": {"exec_info": {"queue_remaining": 3}}, "sid": "x"}}"#,
            Event::Status { queue_remaining: Some(3), has_sid: true },
        );
        check(
            r#"{"type": "status", "data": 1}"#,
            Event::Status { queue_remaining: None, has_sid: false },
        );
    }

    #[test]
    fn of_a_scan_for_assets_only_the_ends_are_passed_on() {
        for end in ["fast_complete", "completed"] {
            check(&format!(r#"{{"type": "assets.seed.{end}", "data": {{}}}}"#), Event::Seeded);
        }
        for noise in ["started", "progress", "enrich_complete", "paused", "a_new_one", ""] {
            check(&format!(r#"{{"type":"assets.seed.{noise}","data":{{}}}}"#), Event::Seeding);
        }
        check(r#"{"type": "assets.seeds", "data": {}}"#, Event::Other);
    }

    #[test]
    fn what_is_not_understood_is_other() {
        for text in [
            "",
            "[]",
            r#"{"type": 7}"#,
            r#"{"type": "crystools.monitor", "data": {}}"#,
            r#"{"type": "executed", "data": {"prompt_id": 7}}"#,
            r#"{"type": "execution_start"#,
        ] {
            check(text, Event::Other);
        }
    }

    #[test]
    fn an_event_is_edited_without_losing_the_rest() {
        let text = br#"{"type": "executing", "data": {"node": "2", "x": 1}}"#;
        let edited = with_prompt(text, "p").unwrap();
        assert_eq!(
            read(edited.as_bytes()),
            Event::Executing { prompt: Some("p".into()), node: Some("2".into()) }
        );
        assert!(edited.contains("\"x\":1"));
        assert_eq!(with_prompt(b"junk", "p"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let _ = wants_preview_metadata(&bytes);
        }
    }

    #[test]
    fn the_prompt_of_a_progress_state_is_found_wherever_it_is_written() {
        for text in [
            r#"{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {}}}"#,
            r#"{"type":"progress_state","data":{"nodes":{},"prompt_id":"p"}}"#,
            r#"{"type": "progress_state", "data": {"prompt_id": "\u0070", "nodes": {}}}"#,
        ] {
            assert_eq!(read(text.as_bytes()), Event::ProgressState { prompt: Some("p".into()) });
        }
    }
}
