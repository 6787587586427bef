//! The queue and the history: `/prompt`, `/queue`, `/interrupt`, `/history`.

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

/// The answer for an uncaught exception in a handler.
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
    // Counted before the prompt is checked: a refused prompt uses up a number.
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
    if shared.release.notes_times() {
        without_secrets(&mut extra_data);
        extra_data.insert("create_time".to_owned(), json!(unix_millis()));
    }
    let lacks = shared.faults().lacks;
    let mut server = shared.server();
    let rules = Rules {
        release: &shared.release,
        files: &server.files,
        lacks: &lacks,
        lent: &server.lent,
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

/// Removes the secrets that API nodes need (`execution.py`, `SENSITIVE_EXTRA_DATA_KEYS`).
pub(super) fn without_secrets(extra_data: &mut Map<String, Value>) {
    for secret in ["auth_token_comfy_org", "api_key_comfy_org"] {
        extra_data.shift_remove(secret);
    }
}

/// The id that the client chose; since 2026 it must be a UUID in its canonical form.
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

/// True for a UUID as Python writes it.
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

/// `GET /queue`: waiting prompts are unsorted.
pub(super) fn queue(shared: &Shared) -> Response<SimBody> {
    let server = shared.server();
    let running: Vec<Value> = server.memory.running.iter().map(Item::tuple).collect();
    let pending: Vec<Value> = server.memory.pending.iter().map(Item::tuple).collect();
    drop(server);
    json_answer(200, &json!({ "queue_running": running, "queue_pending": pending }))
}

/// `POST /queue`: clears first, then deletes. Each id deletes the first waiting prompt with it.
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
        delete_waiting(shared, id.as_str().unwrap_or_default());
    }
    bare(200)
}

/// Removes the first waiting prompt with an id from the queue; true if there was one.
pub(super) fn delete_waiting(shared: &Shared, id: &str) -> bool {
    let mut server = shared.server();
    let Some(at) = server.memory.pending.iter().position(|item| item.id == id) else {
        return false;
    };
    let item = server.memory.pending.remove(at);
    server.ledger.deleted.push(item.id);
    drop(server);
    shared.say_status();
    true
}

/// `POST /interrupt`: interrupts what runs, or only a named prompt (0.3.57).
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
