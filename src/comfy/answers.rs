//! Reads backends' answers as far as needed: graphs in them are skipped, not parsed.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::scan;
use super::version::Version;

/// The answer does not have ComfyUI's format.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Junk {
    #[error("it is not the JSON that was expected")]
    Malformed,
}

/// Where a backend has a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Sighting {
    Queued { number: Option<f64> },
    Running { number: Option<f64> },
    Ended(Ended),
    Absent,
}

/// What `GET /api/jobs/{id}` says about a prompt (0.6.0).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum JobState {
    Pending,
    Running,
    /// It has ended; its history says how.
    Ended,
    Absent,
}

/// How the history of an ended prompt says that it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Succeeded,
    Failed,
    Interrupted,
}

/// A history entry, with what its client would have been told.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    pub outcome: Outcome,
    /// Name and data (JSON) of the events that ComfyUI keeps: start, cached, the end.
    messages: Vec<(String, String)>,
    /// Node, displayed node, output (JSON).
    outputs: Vec<(String, String, String)>,
}

impl Ended {
    /// The events that the prompt's client would have got, in their order. They are rebuilt because
    /// the original ones were lost. Each names the prompt; the last is the closing `executing`
    /// null.
    #[must_use]
    pub fn events(&self, prompt: &str) -> Vec<String> {
        let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let id = quoted(prompt);
        let is_end = |name: &str| !matches!(name, "execution_start" | "execution_cached");
        let message = |(name, data): &(String, String)| {
            format!("{{\"type\": {}, \"data\": {data}}}", quoted(name))
        };
        let executed = |(node, display, output): &(String, String, String)| {
            format!(
                "{{\"type\": \"executed\", \"data\": {{\"node\": {}, \"display_node\": {}, \
                 \"output\": {output}, \"prompt_id\": {id}}}}}",
                quoted(node),
                quoted(display)
            )
        };
        let begun = self.messages.iter().filter(|(name, _)| !is_end(name)).map(message);
        let ended = self.messages.iter().filter(|(name, _)| is_end(name)).map(message);
        let last_word = format!(
            "{{\"type\": \"executing\", \"data\": {{\"node\": null, \"prompt_id\": {id}}}}}"
        );
        begun.chain(self.outputs.iter().map(executed)).chain(ended).chain([last_word]).collect()
    }
}

/// `[number, prompt_id, …]`, an entry of a queue; graphs are skipped.
#[derive(Debug)]
pub(super) struct QueueItem {
    pub(super) number: Option<f64>,
    pub(super) id: String,
}

/// The answer of `GET /queue`.
#[derive(Debug, Deserialize)]
pub(super) struct Queue {
    pub(super) queue_running: Vec<QueueItem>,
    pub(super) queue_pending: Vec<QueueItem>,
}

/// Reads the answer of `GET /queue`.
pub(super) fn queue(body: &[u8]) -> Result<Queue, Junk> {
    let read = |body: &[u8]| serde_json::from_slice(body).map_err(|_| Junk::Malformed);
    read(body).or_else(|_| read(&scan::without_nan(body)))
}

impl<'de> Deserialize<'de> for QueueItem {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> serde::de::Visitor<'de> for Items {
            type Value = QueueItem;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an item of a queue")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<QueueItem, A::Error> {
                let missing = || serde::de::Error::custom("an item has a number and an id");
                let number = seq.next_element::<serde_json::Value>()?.ok_or_else(missing)?;
                let id = seq.next_element::<String>()?.ok_or_else(missing)?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(QueueItem { number: number.as_f64(), id })
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

/// Looks for a prompt in the answer of `GET /queue`.
///
/// # Errors
/// The answer is not a queue.
pub fn in_queue(body: &[u8], id: &str) -> Result<Option<Sighting>, Junk> {
    let queue = queue(body)?;
    let find = |items: Vec<QueueItem>| items.into_iter().find(|item| item.id == id);
    if let Some(item) = find(queue.queue_running) {
        return Ok(Some(Sighting::Running { number: item.number }));
    }
    Ok(find(queue.queue_pending).map(|item| Sighting::Queued { number: item.number }))
}

/// The ids in the answer of `GET /queue`: of running prompts, and of waiting ones.
///
/// # Errors
/// The answer is not a queue.
pub fn queued_ids(body: &[u8]) -> Result<(Vec<String>, Vec<String>), Junk> {
    let queue = queue(body)?;
    let ids = |items: Vec<QueueItem>| items.into_iter().map(|item| item.id).collect();
    Ok((ids(queue.queue_running), ids(queue.queue_pending)))
}

/// Looks for a prompt in the answer of `GET /history/{id}`.
///
/// # Errors
/// The answer is not a history.
pub fn in_history(body: &[u8], id: &str) -> Result<Option<Ended>, Junk> {
    let read = |body: &[u8]| {
        let history: IndexMap<String, Entry<'_>> =
            serde_json::from_slice(body).map_err(|_| Junk::Malformed)?;
        Ok(history.get(id).map(Entry::read))
    };
    read(body).or_else(|_: Junk| read(&scan::without_nan(body)))
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default)]
    outputs: IndexMap<Cow<'a, str>, &'a RawValue>,
    #[serde(borrow, default)]
    status: Option<Status<'a>>,
    #[serde(borrow, default)]
    meta: IndexMap<Cow<'a, str>, Meta<'a>>,
}

#[derive(Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    status_str: Cow<'a, str>,
    #[serde(borrow, default)]
    messages: Vec<(Cow<'a, str>, &'a RawValue)>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, default)]
    display_node: Option<Cow<'a, str>>,
}

impl Entry<'_> {
    fn read(&self) -> Ended {
        let messages = self.status.as_ref().map(|status| {
            status.messages.iter().map(|(name, data)| (name.to_string(), data.get().to_owned()))
        });
        let display = |node: &str| {
            let shown = self.meta.get(node).and_then(|meta| meta.display_node.as_deref());
            shown.unwrap_or(node).to_owned()
        };
        let outputs = self
            .outputs
            .iter()
            .map(|(node, output)| (node.to_string(), display(node), output.get().to_owned()));
        Ended {
            outcome: self.outcome(),
            messages: messages.into_iter().flatten().collect(),
            outputs: outputs.collect(),
        }
    }

    /// The last message counts first, because `status_str` can be stale (ComfyUI
    /// `execution.py:716`).
    fn outcome(&self) -> Outcome {
        let Some(status) = &self.status else { return Outcome::Succeeded };
        let last = status.messages.last().map(|(name, _)| name.as_ref());
        match (last, status.status_str.as_ref()) {
            (Some("execution_interrupted"), _) => Outcome::Interrupted,
            (Some("execution_error"), _) => Outcome::Failed,
            (Some("execution_success"), _) | (_, "success") => Outcome::Succeeded,
            (_, _) => Outcome::Failed,
        }
    }
}

/// The number in the answer of `GET /prompt`.
///
/// # Errors
/// The answer has another format.
pub fn queue_remaining(body: &[u8]) -> Result<u64, Junk> {
    #[derive(Deserialize)]
    struct Answer {
        exec_info: ExecInfo,
    }
    #[derive(Deserialize)]
    struct ExecInfo {
        queue_remaining: u64,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| Junk::Malformed)?;
    Ok(answer.exec_info.queue_remaining)
}

/// The version in the answer of `GET /system_stats`. Servers before 0.2.0 do not give one.
///
/// # Errors
/// The answer has another format.
pub fn system_version(body: &[u8]) -> Result<Version, Junk> {
    #[derive(Deserialize)]
    struct Stats {
        system: System,
    }
    #[derive(Deserialize)]
    struct System {
        comfyui_version: Option<String>,
    }
    let stats: Stats = serde_json::from_slice(body).map_err(|_| Junk::Malformed)?;
    let text = stats.system.comfyui_version.unwrap_or_else(|| "0.1.0".to_owned());
    Ok(Version::parse(&text))
}

/// The longest frontend version that is kept, in characters.
const FRONTEND_VERSION_MAX: usize = 200;

/// The frontend version in a server's `/system_stats`; `None` if it gives none.
///
/// It consists of the installed package (0.33), or else the required one (0.3.40), and of any other
/// frontend in the command line. Two servers with the same version serve the same page, as far as
/// their answers can tell.
#[must_use]
pub fn frontend_version(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Stats {
        system: System,
    }
    #[derive(Deserialize)]
    struct System {
        required_frontend_version: Option<String>,
        comfy_package_versions: Option<Vec<Package>>,
        argv: Option<Vec<String>>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        installed: Option<String>,
    }
    let Stats { system } = serde_json::from_slice(body).ok()?;
    let mut packages = system.comfy_package_versions.unwrap_or_default().into_iter();
    let installed = packages.find(|it| it.name == "comfyui-frontend-package");
    let installed = installed.and_then(|package| package.installed);
    let mut version = installed.or(system.required_frontend_version)?;
    let argv = system.argv.unwrap_or_default();
    let mut argv = argv.iter();
    while let Some(word) = argv.next() {
        let (flag, value) = word.split_once('=').unzip();
        let flag = flag.unwrap_or(word);
        if matches!(flag, "--front-end-version" | "--front-end-root") {
            let value = value.or_else(|| argv.next().map(String::as_str)).unwrap_or_default();
            version = format!("{version} {flag} {value}");
        }
    }
    Some(version.chars().take(FRONTEND_VERSION_MAX).collect())
}

/// The prompt id and number in the answer to an accepted submission.
#[must_use]
pub fn accepted(body: &[u8]) -> Option<(String, Option<f64>)> {
    #[derive(Deserialize)]
    struct Answer {
        prompt_id: String,
        number: Option<serde_json::Value>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    Some((answer.prompt_id, answer.number.and_then(|number| number.as_f64())))
}

/// The errors at nodes that an answer to an accepted submission names.
#[must_use]
pub fn node_errors(body: &[u8]) -> serde_json::Value {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        node_errors: serde_json::Map<String, serde_json::Value>,
    }
    let errors = serde_json::from_slice::<Answer>(body).map(|it| it.node_errors);
    serde_json::Value::Object(errors.unwrap_or_default())
}

/// True if there are none.
#[must_use]
pub fn has_no_node_errors(body: &[u8]) -> bool {
    node_errors(body).as_object().is_some_and(serde_json::Map::is_empty)
}

/// Reads the answer of `GET /api/jobs/{id}`. `None` if it is not in ComfyUI's format: a fork
/// without the route, or a failure of the server.
#[must_use]
pub fn job_state(status: u16, body: &[u8]) -> Option<JobState> {
    #[derive(Deserialize)]
    struct Job<'a> {
        #[serde(borrow)]
        status: Cow<'a, str>,
    }
    #[derive(Deserialize)]
    struct NotFound<'a> {
        #[serde(borrow)]
        error: Cow<'a, str>,
    }
    match status {
        200 => match &*serde_json::from_slice::<Job<'_>>(body).ok()?.status {
            "pending" => Some(JobState::Pending),
            "in_progress" => Some(JobState::Running),
            "completed" | "failed" | "cancelled" => Some(JobState::Ended),
            _ => None,
        },
        404 => {
            let said = serde_json::from_slice::<NotFound<'_>>(body).ok()?;
            (said.error == "Job not found").then_some(JobState::Absent)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comfy::event::{self, Event};

    const QUEUE: &str = r#"{"queue_running": [[6, "run", {"1": {}}, {"client_id": "c"}, ["3"]]],
        "queue_pending": [[7.5, "wait", {}, {}, []]]}"#;

    #[test]
    fn a_prompt_is_found_in_the_queue() {
        let find = |id| in_queue(QUEUE.as_bytes(), id).unwrap();
        assert_eq!(find("run"), Some(Sighting::Running { number: Some(6.0) }));
        assert_eq!(find("wait"), Some(Sighting::Queued { number: Some(7.5) }));
        assert_eq!(find("other"), None);
        assert_eq!(in_queue(b"<html>", "run"), Err(Junk::Malformed));
        assert_eq!(in_queue(b"[]", "run"), Err(Junk::Malformed));
    }

    const HISTORY: &str = r#"{"p": {"prompt": [1, "p", {}, {}, ["3"]],
        "outputs": {"3": {"images": [{"filename": "a.png"}]}},
        "status": {"status_str": "success", "completed": true, "messages": [
            ["execution_start", {"prompt_id": "p", "timestamp": 1}],
            ["execution_cached", {"nodes": [], "prompt_id": "p", "timestamp": 1}],
            ["execution_success", {"prompt_id": "p", "timestamp": 2}]]},
        "meta": {"3": {"node_id": "3", "display_node": "9"}}}}"#;

    #[test]
    fn what_a_client_missed_is_made_up_from_the_history() {
        let ended = in_history(HISTORY.as_bytes(), "p").unwrap().unwrap();
        assert_eq!(ended.outcome, Outcome::Succeeded);
        let events = ended.events("p");
        let id = || Cow::from("p");
        let read: Vec<Event<'_>> = events.iter().map(|text| event::read(text.as_bytes())).collect();
        assert_eq!(
            read,
            [
                Event::Start { prompt: id() },
                Event::Cached { prompt: id() },
                Event::Executed { prompt: id() },
                Event::Success { prompt: id() },
                Event::Executing { prompt: Some(id()), node: None },
            ]
        );
        assert!(events[2].contains(r#""display_node": "9", "output": {"images""#));
    }

    #[test]
    fn the_last_message_decides_the_outcome() {
        let outcome = |status: &str, last: &str| {
            let body = format!(
                r#"{{"p": {{"status":
                    {{"status_str": "{status}", "messages": [["{last}", {{}}]]}}}}}}"#
            );
            in_history(body.as_bytes(), "p").unwrap().unwrap().outcome
        };
        assert_eq!(outcome("error", "execution_interrupted"), Outcome::Interrupted);
        assert_eq!(outcome("success", "execution_error"), Outcome::Failed, "stale");
        assert_eq!(outcome("error", "execution_cached"), Outcome::Failed);
        assert_eq!(in_history(b"{}", "p"), Ok(None));
    }

    #[test]
    fn small_answers_are_read_and_others_are_junk() {
        assert_eq!(queue_remaining(br#"{"exec_info": {"queue_remaining": 4}}"#), Ok(4));
        assert_eq!(queue_remaining(b"ok"), Err(Junk::Malformed));
        let stats = br#"{"system": {"comfyui_version": "0.8.0", "x": 1}, "devices": []}"#;
        assert_eq!(system_version(stats).map(|version| version.to_string()), Ok("0.8.0".into()));
        let taken = br#"{"prompt_id": "p", "number": 3, "node_errors": {}}"#;
        assert_eq!(accepted(taken), Some(("p".to_owned(), Some(3.0))));
        assert_eq!(accepted(b"{}"), None);
    }

    #[test]
    fn a_frontend_is_what_is_installed_and_what_the_command_line_says_of_it() {
        let of =
            |system: &str| frontend_version(format!("{{\"system\": {{{system}}}}}").as_bytes());
        let packages = r#""comfy_package_versions": [{"name": "other", "installed": "9"},
            {"name": "comfyui-frontend-package", "installed": "1.49.6", "required": "1.50.0"}]"#;
        let required = r#""required_frontend_version": "1.35.9""#;
        assert_eq!(of(&format!("{required}, {packages}")).as_deref(), Some("1.49.6"));
        assert_eq!(of(required).as_deref(), Some("1.35.9"));
        let gone = r#""comfy_package_versions": [{"name": "comfyui-frontend-package",
            "installed": null}]"#;
        assert_eq!(of(&format!("{required}, {gone}")).as_deref(), Some("1.35.9"));
        assert_eq!(of(gone), None);
        assert_eq!(of(r#""comfyui_version": "0.3.0""#), None);
        assert_eq!(frontend_version(b"<html>"), None);
        for argv in [
            r#"["main.py", "--front-end-version", "x@2", "--cpu"]"#,
            r#"["main.py", "--cpu", "--front-end-version=x@2"]"#,
        ] {
            let said = of(&format!("{packages}, \"argv\": {argv}"));
            assert_eq!(said.as_deref(), Some("1.49.6 --front-end-version x@2"));
        }
        let long = format!("{packages}, \"argv\": [\"--front-end-root={}\"]", "x".repeat(9_999));
        assert_eq!(of(&long).unwrap().chars().count(), FRONTEND_VERSION_MAX);
    }

    #[test]
    fn a_job_is_where_its_status_says_and_anything_else_proves_nothing() {
        let read = |status, body: &str| job_state(status, body.as_bytes());
        assert_eq!(read(200, r#"{"id":"p","status":"pending"}"#), Some(JobState::Pending));
        assert_eq!(read(200, r#"{"status":"in_progress"}"#), Some(JobState::Running));
        assert_eq!(read(200, r#"{"status":"cancelled"}"#), Some(JobState::Ended));
        assert_eq!(read(404, r#"{"error": "Job not found"}"#), Some(JobState::Absent));
        assert_eq!(read(404, "404: Not Found"), None, "the route is not there");
        assert_eq!(read(500, "{}"), None);
        assert_eq!(read(200, r#"{"status":"dreaming"}"#), None);
    }
}
