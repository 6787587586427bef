//! One prompt as a job, in the list of jobs and by itself.
//!
//! It is made from an entry of a queue or of a history, as 0.33 makes it. Or it is a backend's own
//! object, in which the differences of older servers are corrected: the status of an interrupted
//! prompt, and the facts about its outputs. In both cases it has what pages check, and no client
//! id.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::page::Row;
use super::preview::{Summary, normalized, summary};
use super::{Status, Telling, checked};
use crate::comfy::answers::Junk;
use crate::comfy::lists::queue::Item;
use crate::comfy::raw::{Object, Writer, list, number, object, text};
use crate::comfy::redact;
use crate::routing::ids::PromptId;

/// One object of the list, and the row by which the list is sorted and filtered.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// It has the prompt's real status, whatever clients are told.
    pub row: Row,
    pub json: String,
}

const ERROR: &str = "execution_error";

/// The number of outputs that can be previewed. Only servers that choose the preview as we do have
/// this member.
const PREVIEWABLE: &str = "previewable_outputs_count";

/// Members for a prompt that is asked for by its id, which lists leave out.
const DETAILS: [&str; 3] = ["outputs", "execution_status", "workflow"];

impl Job {
    /// A job from an entry of a queue; `status` is pending or in progress.
    ///
    /// # Errors
    /// The entry has another format.
    pub fn of_item(item: &Item<'_>, status: Status, taken_ms: u64) -> Result<Self, Junk> {
        let parts = item.parts();
        let submitted = Submitted::read(&parts, taken_ms)?;
        let id = PromptId::parse(&item.id).map_err(|_| Junk::Malformed)?;
        let json = submitted.of_queue(&id, status).finish();
        Ok(Self { row: submitted.row(id, status, 0.0), json })
    }

    /// A job from an entry of a queue, for callers who do not own it (promise R5): id, position and
    /// time, and no workflow.
    ///
    /// # Errors
    /// The entry has another format.
    pub fn of_position(item: &Item<'_>, status: Status, taken_ms: u64) -> Result<Self, Junk> {
        let parts = item.parts();
        let submitted = Submitted::read(&parts, taken_ms)?;
        let id = PromptId::parse(&item.id).map_err(|_| Junk::Malformed)?;
        let json = submitted.head(&id, status).finish();
        let row = Row { workflow_id: None, ..submitted.row(id, status, 0.0) };
        Ok(Self { row, json })
    }

    /// A job from a prompt that has ended, for callers who do not own it: its id, place, status and
    /// submission time. It has no outputs, because none are shown.
    #[must_use]
    pub fn of_ended_position(row: Row, order: u64, told: Telling) -> Self {
        let mut job = Writer::new();
        job.text("id", row.id.as_str()).text("status", told.interrupted.told(row.status).name());
        job.raw("priority", &order.to_string()).raw("create_time", &told.taken_ms.to_string());
        Self { json: job.finish(), row }
    }

    /// A job from an entry of a history.
    ///
    /// # Errors
    /// The entry has another format.
    pub fn of_entry(id: &PromptId, entry: &[u8], told: Telling) -> Result<Self, Junk> {
        let ended = Ended::read(entry, told.taken_ms)?;
        let status = ended.status();
        let json = ended.object(id, told.interrupted.told(status)).finish();
        Ok(Self { row: ended.submitted.row(id.clone(), status, ended.run.duration_ms()), json })
    }

    /// A job from a backend's own object: one of its list, or the answer of `GET /api/jobs/{id}`.
    ///
    /// # Errors
    /// It is not a job, or its status is unknown.
    pub fn of_own(own: &[u8], told: Telling) -> Result<Self, Junk> {
        let own = Own::read(own)?;
        let row = Row {
            id: own.id.clone(),
            status: own.status,
            created_ms: own.fields.number("create_time").unwrap_or(as_number(told.taken_ms)),
            duration_ms: duration_ms(
                own.fields.get("execution_start_time"),
                own.fields.get("execution_end_time"),
            ),
            workflow_id: own.fields.text("workflow_id").map(|id| id.as_ref().into()),
        };
        Ok(Self { row, json: own.written(told, |key| !DETAILS.contains(&key)) })
    }
}

/// The caller's objects in a backend's own answer to `GET /api/jobs`, in its order. Unreadable ones
/// are left out.
///
/// # Errors
/// The answer is not a list of jobs.
pub fn own_list(
    body: &[u8],
    told: Telling,
    mut is_theirs: impl FnMut(&str) -> bool,
) -> Result<Vec<Job>, Junk> {
    let answer = Object::read(body).ok_or(Junk::Malformed)?;
    let jobs = answer.list("jobs").ok_or(Junk::Malformed)?;
    let read = jobs.into_iter().filter_map(|own| Job::of_own(own.get().as_bytes(), told).ok());
    Ok(read.filter(|job| is_theirs(job.row.id.as_str())).collect())
}

/// The answer of `GET /api/jobs/{id}` for a prompt that has ended.
///
/// # Errors
/// It is not a history entry.
pub fn detail_of_entry(id: &PromptId, entry: &[u8], told: Telling) -> Result<String, Junk> {
    let ended = Ended::read(entry, told.taken_ms)?;
    let mut detail = ended.object(id, told.interrupted.told(ended.status()));
    detail.raw("outputs", &normalized(ended.outputs));
    detail.raw("execution_status", ended.status_info.map_or("null", RawValue::get));
    detail.raw("workflow", &ended.submitted.workflow());
    Ok(detail.finish())
}

/// The answer of `GET /api/jobs/{id}` for a prompt that has not ended. It includes the workflow,
/// though 0.33 leaves it out: a page needs it to open a waiting prompt.
///
/// # Errors
/// It is not a queue entry.
pub fn detail_of_item(item: &Item<'_>, status: Status, taken_ms: u64) -> Result<String, Junk> {
    let parts = item.parts();
    let submitted = Submitted::read(&parts, taken_ms)?;
    let id = PromptId::parse(&item.id).map_err(|_| Junk::Malformed)?;
    let mut detail = submitted.of_queue(&id, status);
    detail.raw("workflow", &submitted.workflow());
    Ok(detail.finish())
}

/// A backend's own answer to `GET /api/jobs/{id}`, corrected for the caller.
///
/// # Errors
/// It is not a job.
pub fn detail_of_own(own: &[u8], told: Telling) -> Result<String, Junk> {
    Ok(Own::read(own)?.written(told, |_| true))
}

/// The submission, as queues and histories have it.
struct Submitted<'a> {
    number: &'a RawValue,
    graph: &'a RawValue,
    extra_data: &'a RawValue,
    create_time: Cow<'a, str>,
    created_ms: f64,
    /// Only a text: ComfyUI passes on any value that a workflow has as id, but pages require a
    /// text.
    workflow_id: Option<&'a RawValue>,
}

impl<'a> Submitted<'a> {
    fn read(parts: &[&'a RawValue], taken_ms: u64) -> Result<Self, Junk> {
        let [number, _id, graph, extra_data, ..] = parts else { return Err(Junk::Malformed) };
        let extra = object(extra_data).unwrap_or_default();
        // If one of these is null, ComfyUI answers 500; here there is then no workflow.
        let workflow = extra.object("extra_pnginfo").and_then(|info| info.object("workflow"));
        let workflow_id = workflow.and_then(|workflow| workflow.get("id"));
        let given = extra.get("create_time").filter(|time| checked::is_number(time));
        Ok(Self {
            number,
            graph,
            extra_data,
            create_time: given.map_or_else(|| taken_ms.to_string().into(), |it| it.get().into()),
            created_ms: given.and_then(self::number).unwrap_or(as_number(taken_ms)),
            workflow_id: workflow_id.filter(|id| text(id).is_some()),
        })
    }

    fn row(&self, id: PromptId, status: Status, duration_ms: f64) -> Row {
        let workflow_id = self.workflow_id.and_then(text).map(|id| id.as_ref().into());
        Row { id, status, created_ms: self.created_ms, duration_ms, workflow_id }
    }

    /// The members with which every object begins.
    fn head(&self, id: &PromptId, status: Status) -> Writer {
        let mut job = Writer::new();
        job.text("id", id.as_str()).text("status", status.name());
        job.given("priority", Some(self.number).filter(|number| checked::is_number(number)));
        job.raw("create_time", &self.create_time);
        job
    }

    fn of_queue(&self, id: &PromptId, status: Status) -> Writer {
        let mut job = self.head(id, status);
        counted(&mut job, &Summary::default());
        job.given("workflow_id", self.workflow_id);
        job
    }

    fn workflow(&self) -> String {
        let extra_data = redact::extra_data(self.extra_data);
        let mut workflow = Writer::new();
        workflow.raw("prompt", self.graph.get());
        workflow.raw("extra_data", extra_data.as_deref().unwrap_or(self.extra_data.get()));
        workflow.finish()
    }
}

/// Writes the facts about outputs.
fn counted(job: &mut Writer, outputs: &Summary) {
    job.raw("outputs_count", &outputs.count.to_string());
    job.raw("previewable_outputs_count", &outputs.previewable.to_string());
    if let Some(preview) = &outputs.preview {
        job.raw("preview_output", preview);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time in milliseconds has 41 bits")]
fn as_number(unix_ms: u64) -> f64 {
    unix_ms as f64
}

/// A history entry.
struct Ended<'a> {
    submitted: Submitted<'a>,
    outputs: Option<&'a RawValue>,
    status_info: Option<&'a RawValue>,
    is_error: bool,
    run: Run<'a>,
}

impl<'a> Ended<'a> {
    fn read(entry: &'a [u8], taken_ms: u64) -> Result<Self, Junk> {
        let entry = Object::read(entry).ok_or(Junk::Malformed)?;
        let parts = entry.list("prompt").ok_or(Junk::Malformed)?;
        let status_info = entry.get("status");
        let status = status_info.and_then(object).unwrap_or_default();
        Ok(Self {
            submitted: Submitted::read(&parts, taken_ms)?,
            outputs: entry.get("outputs"),
            status_info,
            is_error: status.text("status_str").is_some_and(|text| text == "error"),
            run: Run::read(&status),
        })
    }

    /// As in ComfyUI, the word of the status counts, not the last event.
    fn status(&self) -> Status {
        match (self.is_error, self.run.is_interrupted) {
            (false, _) => Status::Completed,
            (true, false) => Status::Failed,
            (true, true) => Status::Cancelled,
        }
    }

    fn object(&self, id: &PromptId, told: Status) -> Writer {
        let mut job = self.submitted.head(id, told);
        job.given("execution_start_time", self.run.start).given("execution_end_time", self.run.end);
        if let Some(error) = self.run.error.and_then(|error| checked::member(ERROR, error)) {
            job.raw(ERROR, &error);
        }
        counted(&mut job, &summary(self.outputs));
        job.given("workflow_id", self.submitted.workflow_id);
        job
    }
}

/// What the events of a history entry tell about the run.
#[derive(Default)]
struct Run<'a> {
    start: Option<&'a RawValue>,
    end: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    is_interrupted: bool,
}

impl<'a> Run<'a> {
    /// Of several events of one kind the last one counts.
    fn read(status: &Object<'a>) -> Self {
        let mut run = Self::default();
        for message in status.list("messages").unwrap_or_default() {
            let parts = list(message).unwrap_or_default();
            let [name, data, ..] = parts[..] else { continue };
            let Some(fields) = object(data) else { continue };
            let at = fields.get("timestamp").filter(|at| checked::is_number(at));
            match text(name).as_deref() {
                Some("execution_start") => run.start = at,
                Some("execution_success") => run.end = at,
                Some("execution_error") => (run.end, run.error) = (at, Some(data)),
                Some("execution_interrupted") => (run.end, run.is_interrupted) = (at, true),
                Some(_) | None => {}
            }
        }
        run
    }

    fn duration_ms(&self) -> f64 {
        duration_ms(self.start, self.end)
    }
}

/// 0 if one of the two is missing.
fn duration_ms(start: Option<&RawValue>, end: Option<&RawValue>) -> f64 {
    let at = |time: Option<&RawValue>| time.and_then(number).filter(|time| *time != 0.0);
    match (at(start), at(end)) {
        (Some(start), Some(end)) => end - start,
        (Some(_) | None, None) | (None, Some(_)) => 0.0,
    }
}

/// A backend's own object.
struct Own<'a> {
    fields: Object<'a>,
    id: PromptId,
    status: Status,
}

impl<'a> Own<'a> {
    fn read(own: &'a [u8]) -> Result<Self, Junk> {
        let fields = Object::read(own).ok_or(Junk::Malformed)?;
        let id = fields.text("id").and_then(|id| PromptId::parse(&id).ok());
        let status = fields.text("status").and_then(|name| Status::named(&name));
        let (Some(id), Some(status)) = (id, status) else { return Err(Junk::Malformed) };
        // Servers that call an interrupted prompt failed store an error only for real failures.
        let has_run = fields.get("execution_end_time").is_some();
        let is_cut = status == Status::Failed && has_run && fields.get("execution_error").is_none();
        Ok(Self { fields, id, status: if is_cut { Status::Cancelled } else { status } })
    }

    fn written(&self, told: Telling, is_kept: impl Fn(&str) -> bool) -> String {
        let mut job = Writer::new();
        let older = self.of_older();
        for (key, value) in self.fields.iter().filter(|(key, _)| is_kept(key)) {
            match key {
                "status" => job.text(key, told.interrupted.told(self.status).name()),
                "outputs_count" if older.is_some() => continue,
                "preview_output" if older.is_some() => continue,
                "outputs" if older.is_some() => job.raw(key, &normalized(Some(value))),
                "workflow" => job.raw(key, &without_client(value)),
                _ => match checked::member(key, value) {
                    Some(value) => job.raw(key, &value),
                    None => continue,
                },
            };
        }
        if !self.fields.get("create_time").is_some_and(checked::is_number) {
            job.raw("create_time", &told.taken_ms.to_string());
        }
        if let Some(outputs) = older {
            counted(&mut job, &outputs);
        }
        job.finish()
    }

    /// The facts about outputs, for a server that writes them differently.
    fn of_older(&self) -> Option<Summary> {
        if self.fields.get(PREVIEWABLE).is_some() {
            return None;
        }
        match self.fields.get("outputs") {
            Some(outputs) => Some(summary(Some(outputs))),
            None => (!self.status.is_ended()).then(Summary::default),
        }
    }
}

/// The `workflow` of a job without its client's id.
fn without_client(workflow: &RawValue) -> String {
    let Some(fields) = object(workflow) else { return workflow.get().to_owned() };
    let mut written = Writer::new();
    for (key, value) in fields.iter() {
        let cleaned = (key == "extra_data").then(|| redact::extra_data(value)).flatten();
        written.raw(key, cleaned.as_deref().unwrap_or(value.get()));
    }
    written.finish()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::super::Interrupted;
    use super::*;
    use crate::comfy::lists::queue::{OwnQueue, Shown};
    use crate::comfy::raw::tests::any_json;
    use crate::routing::ids::BackendId;

    const TAKEN: u64 = 900;
    const TOLD: [Telling; 2] = [told(Interrupted::Failed), told(Interrupted::Cancelled)];

    const fn told(interrupted: Interrupted) -> Telling {
        Telling { interrupted, taken_ms: TAKEN }
    }

    fn id() -> PromptId {
        PromptId::parse("p").unwrap()
    }

    fn entry(status_str: &str, messages: &Value) -> Value {
        json!({
            "prompt": [7, "p", { "1": {} }, {
                "create_time": 1_000, "client_id": "c",
                "extra_pnginfo": { "workflow": { "id": "w", "nodes": [] } },
            }, ["3"]],
            "outputs": { "3": { "images": [{ "filename": "a.png", "type": "output" }] } },
            "status": { "status_str": status_str, "completed": false, "messages": messages },
            "meta": {},
        })
    }

    fn start() -> Value {
        json!(["execution_start", { "prompt_id": "p", "timestamp": 1_005 }])
    }

    fn job(entry: &Value, interrupted: Interrupted) -> (Status, Value) {
        let told = told(interrupted);
        let job = Job::of_entry(&id(), entry.to_string().as_bytes(), told).unwrap();
        (job.row.status, serde_json::from_str(&job.json).unwrap())
    }

    #[test]
    fn an_ended_prompt_is_shown_with_times_and_preview() {
        let end = json!(["execution_success", { "timestamp": 1_305 }]);
        let made = entry("success", &json!([start(), ["execution_cached", {}], end]));
        let expected = json!({
            "id": "p", "status": "completed", "priority": 7, "create_time": 1_000,
            "execution_start_time": 1_005, "execution_end_time": 1_305, "outputs_count": 1,
            "previewable_outputs_count": 1,
            "preview_output": {
                "filename": "a.png", "type": "output", "nodeId": "3", "mediaType": "images",
            },
            "workflow_id": "w",
        });
        assert_eq!(job(&made, Interrupted::Failed), (Status::Completed, expected));
        let row = Job::of_entry(&id(), made.to_string().as_bytes(), TOLD[0]).unwrap().row;
        assert_eq!((row.created_ms, row.duration_ms), (1_000.0, 300.0));
        assert_eq!(row.workflow_id.as_deref(), Some("w"));
    }

    #[test]
    fn a_failed_prompt_is_shown_with_its_error_and_an_interrupted_one_without() {
        let error = json!({
            "node_id": "2", "node_type": "t", "timestamp": 1_010, "exception_type": "E",
            "exception_message": "no", "traceback": ["x"],
        });
        let failed = entry("error", &json!([start(), ["execution_error", error]]));
        let (status, shown) = job(&failed, Interrupted::Cancelled);
        assert_eq!((status, &shown["status"]), (Status::Failed, &json!("failed")));
        assert_eq!(shown["execution_error"], error);
        let cut = json!(["execution_interrupted", { "timestamp": 1_020 }]);
        let cut = entry("error", &json!([start(), cut]));
        for (told, name) in [(Interrupted::Failed, "failed"), (Interrupted::Cancelled, "cancelled")]
        {
            let (status, shown) = job(&cut, told);
            assert_eq!((status, &shown["status"]), (Status::Cancelled, &json!(name)));
            assert_eq!(shown.get("execution_error"), None);
            assert_eq!(shown["execution_end_time"], 1_020);
        }
    }

    #[test]
    fn a_poisoned_entry_is_shown_without_what_cannot_be_read() {
        let mut odd = entry("", &json!([1, ["x"], ["execution_start", null], [[], {}], start()]));
        odd["prompt"][0] = Value::Null;
        odd["prompt"][3]["extra_pnginfo"] = Value::Null;
        odd["prompt"][3]["create_time"] = json!("today");
        odd["outputs"] = json!([]);
        let (status, shown) = job(&odd, Interrupted::Cancelled);
        let expected = json!({
            "id": "p", "status": "completed", "create_time": TAKEN,
            "execution_start_time": 1_005, "outputs_count": 0, "previewable_outputs_count": 0,
        });
        assert_eq!((status, shown), (Status::Completed, expected));
        let bare = json!({ "prompt": [0, "p", {}, null], "status": null });
        let expected = json!({
            "id": "p", "status": "completed", "priority": 0, "create_time": TAKEN,
            "outputs_count": 0, "previewable_outputs_count": 0,
        });
        assert_eq!(job(&bare, Interrupted::Failed), (Status::Completed, expected));
        for junk in ["", "[]", "{}", r#"{"prompt": [1, "p", {}]}"#, r#"{"prompt": 1}"#] {
            assert_eq!(Job::of_entry(&id(), junk.as_bytes(), TOLD[0]), Err(Junk::Malformed));
            assert_eq!(detail_of_entry(&id(), junk.as_bytes(), TOLD[0]), Err(Junk::Malformed));
        }
    }

    #[test]
    fn a_queued_prompt_is_shown_by_its_place() {
        // An id that is not a text is left out: otherwise the page would show no job at all.
        let extra = json!({ "create_time": 3, "extra_pnginfo": { "workflow": { "id": 9 } } });
        let body = json!({
            "queue_running": [[1.5, "p", { "1": 2 }, extra, []]],
            "queue_pending": [[2, "q", {}], [3, "é", {}, {}, []]],
        })
        .to_string();
        let mut queue = OwnQueue::default();
        queue.add(BackendId::nth(0), body.as_bytes(), |_| Shown::Whole).unwrap();
        let items: Vec<_> = queue.items().collect();
        let (status, item) = items[0];
        let job = Job::of_item(item, status, TAKEN).unwrap();
        let mut expected = json!({
            "id": "p", "status": "in_progress", "priority": 1.5, "create_time": 3,
            "outputs_count": 0, "previewable_outputs_count": 0,
        });
        assert_eq!(serde_json::from_str::<Value>(&job.json).unwrap(), expected);
        assert_eq!((job.row.created_ms, job.row.workflow_id), (3.0, None));
        expected["workflow"] = json!({ "prompt": { "1": 2 }, "extra_data": extra });
        let detail = detail_of_item(item, status, TAKEN).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&detail).unwrap(), expected);
        let bare = Job::of_position(item, status, TAKEN).unwrap();
        let of_nobody =
            r#"{"id": "p", "status": "in_progress", "priority": 1.5, "create_time": 3}"#;
        assert_eq!(bare.json, of_nobody);
        assert_eq!((bare.row.created_ms, bare.row.workflow_id), (3.0, None));
        for (status, item) in &items[1..] {
            assert_eq!(Job::of_item(item, *status, TAKEN), Err(Junk::Malformed));
        }
    }

    #[test]
    fn a_backends_own_objects_pass_but_for_the_word_for_interrupted() {
        let jobs = json!([
            { "id": "a", "status": "failed", "create_time": 2,
              "execution_start_time": 1, "execution_end_time": 4 },
            { "id": "b", "status": "failed", "create_time": "x",
              "execution_start_time": 1, "execution_end_time": 4, "execution_error": {} },
            { "id": "c", "status": "completed", "create_time": 3, "new": [1],
              "previewable_outputs_count": 5, "outputs_count": 7, "outputs": {},
              "workflow": { "extra_data": { "y": 1 } } },
            { "id": "hers", "status": "completed" },
            { "id": "d", "status": "dreaming" }, { "status": "failed" }, 7,
        ]);
        let body = json!({ "jobs": jobs, "pagination": {} }).to_string();
        let read = |how| own_list(body.as_bytes(), told(how), |id| id != "hers").unwrap();
        let newer: Vec<String> =
            read(Interrupted::Cancelled).into_iter().map(|it| it.json).collect();
        let times = r#""execution_start_time": 1, "execution_end_time": 4"#;
        assert_eq!(
            newer[0],
            format!(r#"{{"id": "a", "status": "cancelled", "create_time": 2, {times}}}"#)
        );
        let failed: Value = serde_json::from_str(&newer[1]).unwrap();
        assert_eq!((&failed["status"], &failed["create_time"]), (&json!("failed"), &json!(TAKEN)));
        assert_eq!(failed["execution_error"]["traceback"], json!([]), "all that a page wants");
        let third = concat!(
            r#"{"id": "c", "status": "completed", "create_time": 3, "new": [1], "#,
            r#""previewable_outputs_count": 5, "outputs_count": 7}"#,
        );
        assert_eq!(newer[2], third);
        assert_eq!(newer.len(), 3);
        let older = read(Interrupted::Failed);
        assert!(older[0].json.contains(r#""status": "failed""#));
        assert_eq!((older[0].row.status, older[0].row.duration_ms), (Status::Cancelled, 3.0));
        let whole = detail_of_own(jobs[2].to_string().as_bytes(), TOLD[0]).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&whole).unwrap(), jobs[2]);
        assert_eq!(own_list(b"{}", TOLD[0], |_| true), Err(Junk::Malformed));
        assert_eq!(detail_of_own(b"[]", TOLD[0]), Err(Junk::Malformed));
    }

    #[test]
    fn what_an_older_server_says_of_outputs_is_said_anew() {
        let mesh = json!({ "4": { "result": ["x.glb", null] } });
        let own = json!({
            "id": "p", "status": "completed", "create_time": 1, "outputs_count": 0,
            "outputs": mesh, "execution_status": null,
            "workflow": { "prompt": {}, "extra_data": { "client_id": "secret", "y": 1 } },
        });
        let mut made = entry("success", &json!([]));
        made["outputs"] = mesh.clone();
        let of_entry = detail_of_entry(&id(), made.to_string().as_bytes(), TOLD[1]).unwrap();
        let of_own = detail_of_own(own.to_string().as_bytes(), TOLD[1]).unwrap();
        for detail in [&of_entry, &of_own] {
            assert!(!detail.contains("client_id"), "{detail}");
            let detail: Value = serde_json::from_str(detail).unwrap();
            assert_eq!(
                (&detail["outputs_count"], &detail["previewable_outputs_count"]),
                (&json!(1), &json!(1))
            );
            assert_eq!(detail["preview_output"]["filename"], "x.glb");
            assert_eq!(detail["outputs"]["4"]["result"][0]["mediaType"], "3d");
        }
        let waits = json!({ "id": "p", "status": "pending", "outputs_count": 0 });
        let waits = Job::of_own(waits.to_string().as_bytes(), TOLD[1]).unwrap();
        let told: Value = serde_json::from_str(&waits.json).unwrap();
        assert_eq!(told["previewable_outputs_count"], 0);
        assert_eq!(told["create_time"], TAKEN);
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_json_break_it(body in vec(any::<u8>(), 0..200), json in any_json()) {
            for bytes in [&body[..], json.to_string().as_bytes()] {
                for told in TOLD {
                    let made = [
                        Job::of_entry(&id(), bytes, told).map(|job| job.json),
                        Job::of_own(bytes, told).map(|job| job.json),
                        detail_of_entry(&id(), bytes, told),
                        detail_of_own(bytes, told),
                    ];
                    for json in made.into_iter().flatten() {
                        let _readable: Value = serde_json::from_str(&json).unwrap();
                    }
                    let _any_answer = own_list(bytes, told, |_| true);
                }
            }
        }

        /// Whatever values an entry has, the resulting job is valid.
        #[test]
        fn an_odd_entry_is_a_job_all_the_same(
            extra_data in any_json(),
            outputs in any_json(),
            status in any_json(),
            messages in vec(any_json(), 0..3),
        ) {
            let messages: Vec<Value> =
                messages.into_iter().map(|data| json!(["execution_error", data])).collect();
            let known = json!({ "status_str": "error", "messages": messages });
            for status in [&status, &known] {
                let entry = json!({
                    "prompt": [1, "p", {}, extra_data, []], "outputs": outputs, "status": status,
                });
                let made = Job::of_entry(&id(), entry.to_string().as_bytes(), TOLD[1]).unwrap();
                let shown: Value = serde_json::from_str(&made.json).unwrap();
                prop_assert_eq!(&shown["status"], made.row.status.name());
                prop_assert!(shown["outputs_count"].is_u64() && shown["create_time"].is_number());
                prop_assert!(made.row.created_ms.is_finite() && made.row.duration_ms.is_finite());
                prop_assert!(shown.as_object().unwrap().values().all(|value| !value.is_null()));
            }
        }

        #[test]
        fn a_list_of_a_backends_own_has_nobody_elses(owners in vec(0..3_u8, 0..20)) {
            let jobs: Vec<Value> = owners
                .iter()
                .enumerate()
                .map(|(at, owner)| json!({ "id": format!("{owner}/{at}"), "status": "pending" }))
                .collect();
            let body = json!({ "jobs": jobs }).to_string();
            let own = own_list(body.as_bytes(), TOLD[0], |id| id.starts_with("1/")).unwrap();
            prop_assert!(own.iter().all(|job| job.row.id.as_str().starts_with("1/")));
            prop_assert_eq!(own.len(), owners.iter().filter(|owner| **owner == 1).count());
        }
    }
}
