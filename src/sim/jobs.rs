//! The jobs API (0.6.0; in the format of 0.8.0 and 0.33.0): `/api/jobs` and the routes that cancel
//! jobs.

use http::Response;
use serde_json::{Map, Value, json};

use super::Shared;
use super::body::SimBody;
use super::http::json_answer;
use super::outputs::{normalized, summary};
use super::prompts::{self, is_canonical, trouble};
use super::release::Release;
use super::state::{Item, number};
use crate::comfy::query::parameter;

const STATUSES: [&str; 5] = ["pending", "in_progress", "completed", "failed", "cancelled"];

/// An uncaught Python error: the bug that one bad workflow breaks every list.
#[derive(Debug)]
struct Raised;

/// The query of a list.
struct Query {
    statuses: Vec<String>,
    workflow: Option<String>,
    by_duration: bool,
    ascending: bool,
    limit: Option<usize>,
    offset: usize,
}

fn refused(message: &str) -> Response<SimBody> {
    json_answer(400, &json!({ "error": message }))
}

impl Query {
    #[expect(clippy::result_large_err, reason = "the error is the answer")]
    fn read(query: &str, known: &[&str]) -> Result<Self, Response<SimBody>> {
        let text = |name: &str| parameter(query, name);
        let statuses: Vec<String> = text("status")
            .unwrap_or_default()
            .split(',')
            .map(|status| status.trim().to_lowercase())
            .filter(|status| !status.is_empty())
            .collect();
        let wrong: Vec<&str> =
            statuses.iter().map(String::as_str).filter(|it| !known.contains(it)).collect();
        if !wrong.is_empty() {
            let (wrong, known) = (wrong.join(", "), known.join(", "));
            let message = format!("Invalid status value(s): {wrong}. Valid values: {known}");
            return Err(refused(&message));
        }
        let sort_by = text("sort_by").unwrap_or_default().to_lowercase();
        if !["", "created_at", "execution_duration"].contains(&sort_by.as_str()) {
            return Err(refused("sort_by must be 'created_at' or 'execution_duration'"));
        }
        let order = text("sort_order").unwrap_or_default().to_lowercase();
        if !["", "asc", "desc"].contains(&order.as_str()) {
            return Err(refused("sort_order must be 'asc' or 'desc'"));
        }
        let limit = match text("limit").map(|text| text.trim().parse::<i64>()) {
            None => None,
            Some(Ok(limit)) if 0 < limit => usize::try_from(limit).ok(),
            Some(Ok(_)) => return Err(refused("limit must be a positive integer")),
            Some(Err(_)) => return Err(refused("limit must be an integer")),
        };
        let offset = match text("offset").map(|text| text.trim().parse::<i64>()) {
            None => 0,
            Some(Ok(offset)) => usize::try_from(offset).unwrap_or(0),
            Some(Err(_)) => return Err(refused("offset must be an integer")),
        };
        Ok(Self {
            statuses,
            workflow: text("workflow_id").filter(|id| !id.is_empty()),
            by_duration: sort_by == "execution_duration",
            ascending: order == "asc",
            limit,
            offset,
        })
    }

    fn wants(&self, status: &str) -> bool {
        self.statuses.is_empty() || self.statuses.iter().any(|wanted| wanted == status)
    }

    fn sorted(&self, jobs: &mut [Value]) {
        let time = |job: &Value, key: &str| job[key].as_i64().unwrap_or(0);
        let key = |job: &Value| {
            let (start, end) = (time(job, "execution_start_time"), time(job, "execution_end_time"));
            match (self.by_duration, start != 0 && end != 0) {
                (true, true) => end - start,
                (true, false) => 0,
                (false, _) => time(job, "create_time"),
            }
        };
        if self.ascending {
            jobs.sort_by_key(key);
        } else {
            // As with Python's `reverse`, equal jobs keep their order.
            jobs.sort_by_key(|job| std::cmp::Reverse(key(job)));
        }
    }
}

/// `GET /api/jobs`.
pub(super) fn list(shared: &Shared, query: &str) -> Response<SimBody> {
    let known = &STATUSES[..if shared.release.cancels_jobs() { 5 } else { 4 }];
    let query = match Query::read(query, known) {
        Ok(query) => query,
        Err(refused) => return refused,
    };
    let Ok(mut jobs) = all(shared, &query) else { return trouble() };
    query.sorted(&mut jobs);
    let total = jobs.len();
    let page: Vec<Value> =
        jobs.into_iter().skip(query.offset).take(query.limit.unwrap_or(total)).collect();
    let has_more = query.offset + page.len() < total;
    let pagination = json!({
        "offset": query.offset, "limit": query.limit, "total": total, "has_more": has_more,
    });
    json_answer(200, &json!({ "jobs": page, "pagination": pagination }))
}

fn all(shared: &Shared, query: &Query) -> Result<Vec<Value>, Raised> {
    let server = shared.server();
    let release = &shared.release;
    let mut jobs = Vec::new();
    if let Some(item) = server.memory.running.as_ref().filter(|_| query.wants("in_progress")) {
        jobs.push(of_item(release, item, "in_progress")?);
    }
    if query.wants("pending") {
        for item in &server.memory.pending {
            jobs.push(of_item(release, item, "pending")?);
        }
    }
    if ["completed", "failed", "cancelled"].into_iter().any(|status| query.wants(status)) {
        for (id, entry) in &server.memory.history {
            let job = of_entry(release, id, entry)?;
            if query.wants(job["status"].as_str().unwrap_or_default()) {
                jobs.push(job);
            }
        }
    }
    if let Some(workflow) = &query.workflow {
        jobs.retain(|job| job["workflow_id"] == workflow.as_str());
    }
    Ok(jobs)
}

/// `GET /api/jobs/{id}`.
pub(super) fn one(shared: &Shared, id: &str) -> Response<SimBody> {
    let server = shared.server();
    let (release, memory) = (&shared.release, &server.memory);
    let found = if let Some(entry) = memory.history.get(id) {
        Some(in_full(release, id, entry))
    } else if let Some(item) = memory.running.iter().find(|item| item.id == id) {
        Some(of_item(release, item, "in_progress"))
    } else {
        let item = memory.pending.iter().find(|item| item.id == id);
        item.map(|item| of_item(release, item, "pending"))
    };
    match found {
        Some(Ok(job)) => json_answer(200, &job),
        Some(Err(Raised)) => trouble(),
        None => json_answer(404, &json!({ "error": "Job not found" })),
    }
}

/// The creation time and the workflow. Fails for a workflow that is not an object.
fn metadata(extra_data: &Value) -> Result<(Value, Value), Raised> {
    let workflow = match extra_data.get("extra_pnginfo") {
        None => None,
        Some(info) => info.as_object().ok_or(Raised)?.get("workflow"),
    };
    let id = match workflow {
        None => Value::Null,
        Some(workflow) => {
            workflow.as_object().ok_or(Raised)?.get("id").cloned().unwrap_or_default()
        }
    };
    Ok((extra_data["create_time"].clone(), id))
}

fn of_item(release: &Release, item: &Item, status: &str) -> Result<Value, Raised> {
    let (created, workflow) = metadata(&item.extra_data)?;
    let mut job = json!({
        "id": item.id, "status": status, "priority": number(item.number),
        "create_time": created, "outputs_count": 0,
    });
    if release.is_of_2026() {
        job["previewable_outputs_count"] = json!(0);
    }
    job["workflow_id"] = workflow;
    Ok(pruned(job))
}

fn of_entry(release: &Release, id: &str, entry: &Value) -> Result<Value, Raised> {
    let (created, workflow) = metadata(&entry["prompt"][3])?;
    let messages = entry["status"]["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let told = |names: &[&str]| {
        let is_meant = |it: &&Value| it[0].as_str().is_some_and(|name| names.contains(&name));
        messages.iter().rfind(is_meant)
    };
    let ended = ["execution_success", "execution_error", "execution_interrupted"];
    let status = match entry["status"]["status_str"].as_str() {
        Some("error") => match told(&["execution_interrupted"]) {
            Some(_) if release.cancels_jobs() => "cancelled",
            Some(_) | None => "failed",
        },
        Some(_) | None => "completed",
    };
    let time = |names: &[&str]| told(names).map(|it| it[1]["timestamp"].clone());
    let summary = summary(release, &entry["outputs"]);
    let mut job = json!({
        "id": id, "status": status, "priority": entry["prompt"][0], "create_time": created,
        "execution_start_time": time(&["execution_start"]),
        "execution_end_time": time(&ended),
        "execution_error": told(&["execution_error"]).map(|it| it[1].clone()),
        "outputs_count": summary.count,
    });
    if release.is_of_2026() {
        job["previewable_outputs_count"] = json!(summary.previewable);
    }
    job["preview_output"] = summary.preview.unwrap_or_default();
    job["workflow_id"] = workflow;
    Ok(pruned(job))
}

fn in_full(release: &Release, id: &str, entry: &Value) -> Result<Value, Raised> {
    let mut job = of_entry(release, id, entry)?;
    job["outputs"] = normalized(release, &entry["outputs"]);
    job["execution_status"] = entry["status"].clone();
    job["workflow"] = json!({ "prompt": entry["prompt"][2], "extra_data": entry["prompt"][3] });
    Ok(job)
}

/// Removes null members.
fn pruned(job: Value) -> Value {
    let fields: Map<String, Value> = match job {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect())
}

/// `POST /api/jobs/cancel` and `/api/jobs/{id}/cancel`, from about 0.26.
pub(super) fn cancel(shared: &Shared, path: &str, body: &[u8]) -> Response<SimBody> {
    let ids = match path.strip_prefix('/').and_then(|it| it.strip_suffix("/cancel")) {
        Some(id) => vec![id.to_owned()],
        None => match named(body) {
            Ok(ids) => ids,
            Err(refused) => return refused,
        },
    };
    let mut is_any = false;
    for id in &ids {
        is_any |= cancel_one(shared, id);
    }
    json_answer(200, &json!({ "cancelled": is_any }))
}

#[expect(clippy::result_large_err, reason = "the error is the answer")]
fn named(body: &[u8]) -> Result<Vec<String>, Response<SimBody>> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Err(refused("Request body must be valid JSON"));
    };
    let Some(ids) = body["job_ids"].as_array() else {
        return Err(refused("job_ids must be a list"));
    };
    let (good, bad): (Vec<&Value>, Vec<&Value>) =
        ids.iter().partition(|id| id.as_str().is_some_and(is_canonical));
    if !bad.is_empty() {
        let bad: Vec<String> = bad
            .iter()
            .map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned))
            .collect();
        let message = "job_ids contains invalid id(s)";
        return Err(json_answer(400, &json!({ "error": message, "invalid_ids": bad })));
    }
    Ok(good.iter().filter_map(|id| id.as_str()).map(str::to_owned).collect())
}

/// Interrupts the running prompt or removes a waiting one, in one step, so that the next prompt is
/// never affected. True if it was one of them.
fn cancel_one(shared: &Shared, id: &str) -> bool {
    let is_running = {
        let mut server = shared.server();
        let is_running = server.memory.running.as_ref().is_some_and(|item| item.id == id);
        server.memory.interrupt |= is_running;
        is_running
    };
    is_running || prompts::delete_waiting(shared, id)
}
