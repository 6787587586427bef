//! The queue, the history and the jobs: `/prompt`, `/queue`, `/interrupt`, `/history`,
//! `/api/jobs`.

use bytes::Bytes;
use http::Response;
use serde_json::{Map, Value, json};

use super::body::SimBody;
use super::faults::SubmitFault;
use super::http::{bare, json_answer, text};
use super::replace::replace;
use super::state::Item;
use super::validate::{Rules, validate};
use super::{Shared, nodes};
use crate::comfy::query::parameter;
use crate::net::{new_id, unix_millis};

/// What an uncaught exception of a handler looks like.
pub(super) fn trouble() -> Response<SimBody> {
    text(500, "500 Internal Server Error\n\nServer got itself in trouble")
}

/// `POST /prompt`; `None` breaks the connection.
pub(super) async fn submit(shared: &Shared, body: &[u8]) -> Option<Response<SimBody>> {
    let fault = shared.faults.lock().expect("never poisoned: no panic while held").take_submit();
    match fault {
        SubmitFault::ResetBeforeEnqueue => return None,
        SubmitFault::Error500NotEnqueued => return Some(trouble()),
        SubmitFault::BadGateway => return Some(text(502, "502: Bad Gateway")),
        SubmitFault::CrashBeforeEnqueue => {
            shared.kill();
            return None;
        }
        SubmitFault::None
        | SubmitFault::ResetAfterEnqueue
        | SubmitFault::CutAnswer
        | SubmitFault::Error500Enqueued
        | SubmitFault::CrashAfterEnqueue
        | SubmitFault::NoAnswer => {}
    }
    let answer = match enqueue(shared, body) {
        Ok(answer) => json_answer(200, &answer),
        Err(refused) => return Some(refused),
    };
    match fault {
        SubmitFault::ResetAfterEnqueue => None,
        SubmitFault::CrashAfterEnqueue => {
            shared.kill();
            None
        }
        SubmitFault::NoAnswer => std::future::pending().await,
        SubmitFault::CutAnswer => Some(cut(answer)),
        SubmitFault::Error500Enqueued => Some(trouble()),
        SubmitFault::None
        | SubmitFault::ResetBeforeEnqueue
        | SubmitFault::Error500NotEnqueued
        | SubmitFault::BadGateway
        | SubmitFault::CrashBeforeEnqueue => Some(answer),
    }
}

fn cut(answer: Response<SimBody>) -> Response<SimBody> {
    answer.map(|_| SimBody::Cut(Some(Bytes::from_static(b"{\"prompt_id\": \""))))
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn enqueue(shared: &Shared, body: &[u8]) -> Result<Value, Response<SimBody>> {
    let body: Value = serde_json::from_slice(body).map_err(|_| trouble())?;
    let body = body.as_object().ok_or_else(trouble)?;
    // Counted before it is looked at: a refused prompt uses a number up.
    let number = number_of(shared, body)?;
    let Some(graph) = body.get("prompt") else {
        let error = json!({
            "type": "no_prompt", "message": "No prompt provided",
            "details": "No prompt provided", "extra_info": {},
        });
        return Err(json_answer(400, &json!({ "error": error, "node_errors": {} })));
    };
    let id = prompt_id(shared, body)?;
    let mut graph = graph.as_object().ok_or_else(trouble)?.clone();
    if shared.release.is_of_2026() {
        replace(&mut graph, nodes::all(&shared.release)).map_err(|_| trouble())?;
    }
    let mut extra_data = match body.get("extra_data") {
        None => Map::new(),
        Some(extra) => extra.as_object().ok_or_else(trouble)?.clone(),
    };
    if let Some(client) = body.get("client_id") {
        extra_data.insert("client_id".to_owned(), client.clone());
    }
    extra_data.insert("create_time".to_owned(), json!(unix_millis()));
    let lacks = shared.faults().lacks;
    let mut server = shared.server();
    let rules = Rules {
        release: &shared.release,
        files: &server.files,
        lacks: &lacks,
        targets: body.get("partial_execution_targets"),
    };
    let valid = validate(&graph, &rules)?;
    let extra_data = Value::Object(extra_data);
    let item = Item { number, id: id.clone(), graph, extra_data, outputs: valid.outputs };
    server.memory.pending.push(item);
    server.ledger.enqueued.push(id.clone());
    drop(server);
    shared.say_status();
    shared.work.notify_one();
    let number = super::state::number(number);
    Ok(json!({ "prompt_id": id, "number": number, "node_errors": valid.node_errors }))
}

/// The id that the client chose; since 2026 only a UUID as it is commonly written.
#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn prompt_id(shared: &Shared, body: &Map<String, Value>) -> Result<String, Response<SimBody>> {
    let Some(chosen) = body.get("prompt_id") else { return Ok(new_id().to_string()) };
    if !shared.release.is_of_2026() {
        let text = chosen.as_str().map_or_else(|| chosen.to_string(), str::to_owned);
        return Ok(if chosen.is_null() { "None".to_owned() } else { text });
    }
    match chosen.as_str() {
        None if chosen.is_null() => Ok(new_id().to_string()),
        Some(id) if is_canonical(id) => Ok(id.to_owned()),
        Some(_) | None => {
            let error = json!({
                "type": "invalid_prompt_id", "message": "prompt_id must be a valid UUID",
                "details": "prompt_id must be a UUID string in canonical lowercase hyphenated \
                            form; omit it to let the server generate one",
                "extra_info": {},
            });
            Err(json_answer(400, &json!({ "error": error, "node_errors": {} })))
        }
    }
}

/// A UUID in the one spelling that Python writes.
pub(super) fn is_canonical(id: &str) -> bool {
    uuid::Uuid::parse_str(id).is_ok_and(|uuid| uuid.hyphenated().to_string() == id)
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn number_of(shared: &Shared, body: &Map<String, Value>) -> Result<f64, Response<SimBody>> {
    if let Some(number) = body.get("number") {
        return number.as_f64().ok_or_else(trouble);
    }
    let mut server = shared.server();
    let counted = f64::from(server.memory.counter);
    server.memory.counter += 1;
    Ok(if body.get("front") == Some(&json!(true)) { -counted } else { counted })
}

/// `GET /queue`: waiting prompts in no order.
pub(super) fn queue(shared: &Shared) -> Response<SimBody> {
    let server = shared.server();
    let running: Vec<Value> = server.memory.running.iter().map(Item::tuple).collect();
    let pending: Vec<Value> = server.memory.pending.iter().map(Item::tuple).collect();
    drop(server);
    json_answer(200, &json!({ "queue_running": running, "queue_pending": pending }))
}

/// `POST /queue`: clear first, then delete; each id the first that waits.
pub(super) fn edit_queue(shared: &Shared, body: &[u8]) -> Response<SimBody> {
    let Ok(Value::Object(edit)) = serde_json::from_slice(body) else { return trouble() };
    if edit.get("clear") == Some(&json!(true)) {
        let mut server = shared.server();
        let cleared = std::mem::take(&mut server.memory.pending);
        server.ledger.deleted.extend(cleared.into_iter().map(|item| item.id));
        drop(server);
        shared.say_status();
    }
    for id in edit.get("delete").and_then(Value::as_array).into_iter().flatten() {
        let mut server = shared.server();
        let Some(at) = server.memory.pending.iter().position(|item| *id == item.id) else {
            continue;
        };
        let item = server.memory.pending.remove(at);
        server.ledger.deleted.push(item.id);
        drop(server);
        shared.say_status();
    }
    bare(200)
}

/// `POST /interrupt`: what runs, or only if it is the one that is named (0.3.57).
pub(super) fn interrupt(shared: &Shared, body: &[u8]) -> Response<SimBody> {
    let named = match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(object)) => object.get("prompt_id").cloned(),
        Ok(_) => return trouble(),
        Err(_) => None,
    };
    let knows_ids = shared.release.interrupts_by_id();
    let mut server = shared.server();
    let running = server.memory.running.as_ref().map(|item| item.id.clone());
    let is_meant = match named.as_ref().and_then(Value::as_str).filter(|_| knows_ids) {
        Some(id) => running.as_deref() == Some(id),
        None => true,
    };
    if is_meant {
        server.memory.interrupt = true;
    }
    bare(200)
}

/// `GET /history`: the newest `max_items`, or from `offset` counted from the oldest.
pub(super) fn history(shared: &Shared, query: &str) -> Response<SimBody> {
    let number = |name| match parameter(query, name) {
        None => Ok(None),
        Some(text) => text.parse::<i64>().map(Some),
    };
    let (Ok(max), Ok(offset)) = (number("max_items"), number("offset")) else { return trouble() };
    let server = shared.server();
    let count = server.memory.history.len();
    let max_items = max.and_then(|max| usize::try_from(max).ok()).unwrap_or(count);
    let skipped = match offset.and_then(|offset| usize::try_from(offset).ok()) {
        Some(offset) => offset,
        None => count.saturating_sub(max_items),
    };
    let entries = server.memory.history.iter().skip(skipped).take(max_items);
    let listed: Map<String, Value> = entries.map(|(id, it)| (id.clone(), it.clone())).collect();
    drop(server);
    json_answer(200, &Value::Object(listed))
}

/// `GET /history/{id}`.
pub(super) fn history_of(shared: &Shared, id: &str) -> Response<SimBody> {
    let entry = shared.server().memory.history.get(id).cloned();
    let listed = entry.map(|entry| json!({ id: entry })).unwrap_or_else(|| json!({}));
    json_answer(200, &listed)
}

/// `POST /history`.
pub(super) fn edit_history(shared: &Shared, body: &[u8]) -> Response<SimBody> {
    let Ok(Value::Object(edit)) = serde_json::from_slice(body) else { return trouble() };
    let mut server = shared.server();
    if edit.get("clear") == Some(&json!(true)) {
        server.memory.history.clear();
    }
    for id in edit.get("delete").and_then(Value::as_array).into_iter().flatten() {
        server.memory.history.shift_remove(id.as_str().unwrap_or_default());
    }
    bare(200)
}

/// `GET /api/jobs` (0.6.0).
pub(super) fn jobs(shared: &Shared, query: &str) -> Response<SimBody> {
    let newer = shared.release.cancels_jobs();
    let known: &[&str] = if newer {
        &["pending", "in_progress", "completed", "failed", "cancelled"]
    } else {
        &["pending", "in_progress", "completed", "failed"]
    };
    let wanted = parameter(query, "status").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').filter(|status| !status.is_empty()).collect();
    let unknown: Vec<&str> =
        wanted.iter().filter(|status| !known.contains(status)).copied().collect();
    if !unknown.is_empty() {
        let message = format!(
            "Invalid status value(s): {}. Valid values: {}",
            unknown.join(", "),
            known.join(", ")
        );
        return json_answer(400, &json!({ "error": message }));
    }
    let number = |name: &str| parameter(query, name).and_then(|text| text.parse::<usize>().ok());
    let (limit, offset) = (number("limit"), number("offset").unwrap_or(0));
    let mut all: Vec<Value> = every_job(shared)
        .into_iter()
        .filter(|job| {
            wanted.is_empty() || wanted.contains(&job["status"].as_str().unwrap_or_default())
        })
        .collect();
    all.sort_by_key(|job| std::cmp::Reverse(job["create_time"].as_u64()));
    let total = all.len();
    let page: Vec<Value> = all.into_iter().skip(offset).take(limit.unwrap_or(total)).collect();
    let has_more = offset + page.len() < total;
    let pagination =
        json!({ "offset": offset, "limit": limit, "total": total, "has_more": has_more });
    json_answer(200, &json!({ "jobs": page, "pagination": pagination }))
}

/// `GET /api/jobs/{id}`.
pub(super) fn job(shared: &Shared, id: &str) -> Response<SimBody> {
    let found = every_job(shared).into_iter().find(|job| job["id"] == id);
    let Some(mut job) = found else {
        return json_answer(404, &json!({ "error": "Job not found" }));
    };
    if let Some(entry) = shared.server().memory.history.get(id) {
        job["outputs"] = entry["outputs"].clone();
        job["execution_status"] = entry["status"].clone();
        job["workflow"] = json!({ "prompt": entry["prompt"][2], "extra_data": entry["prompt"][3] });
    }
    json_answer(200, &job)
}

fn every_job(shared: &Shared) -> Vec<Value> {
    let server = shared.server();
    let of_item = |item: &Item, status: &str| {
        json!({
            "id": item.id, "status": status, "priority": super::state::number(item.number),
            "create_time": item.extra_data["create_time"], "outputs_count": 0,
        })
    };
    let pending = server.memory.pending.iter().map(|item| of_item(item, "pending"));
    let running = server.memory.running.iter().map(|item| of_item(item, "in_progress"));
    let newer = shared.release.cancels_jobs();
    let ended = server.memory.history.iter().map(|(id, entry)| of_entry(id, entry, newer));
    pending.chain(running).chain(ended).collect()
}

fn of_entry(id: &str, entry: &Value, newer: bool) -> Value {
    let messages = entry["status"]["messages"].as_array().cloned().unwrap_or_default();
    let time = |index: usize| messages.get(index).map(|it| it[1]["timestamp"].clone());
    let last = messages.last().map(|it| it[0].as_str().unwrap_or_default().to_owned());
    let status = match (last.as_deref(), newer) {
        (Some("execution_success"), _) => "completed",
        (Some("execution_interrupted"), true) => "cancelled",
        (_, _) => "failed",
    };
    let images = entry["outputs"].as_object().into_iter().flatten().flat_map(|(node, output)| {
        let images = output["images"].as_array().cloned().unwrap_or_default();
        images.into_iter().map(move |image| (node.clone(), image))
    });
    let images: Vec<(String, Value)> = images.collect();
    let mut job = json!({
        "id": id, "status": status, "priority": entry["prompt"][0],
        "create_time": entry["prompt"][3]["create_time"],
        "execution_start_time": time(0),
        "execution_end_time": messages.last().map(|it| it[1]["timestamp"].clone()),
        "outputs_count": images.len(),
    });
    if let Some((node, image)) = images.first() {
        let mut preview = image.clone();
        preview["nodeId"] = json!(node);
        preview["mediaType"] = json!("images");
        job["preview_output"] = preview;
    }
    job
}
