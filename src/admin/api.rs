//! The endpoints of the admin listener.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::header::{CONTENT_TYPE, VARY};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::audited::{Asked, backend_of};
use super::gate::{May, Told};
use super::sender::Sender;
use crate::fleet::devices;
use crate::masked::mask;
use crate::metrics::{ByBackend, Exposition};
use crate::net::{now, own_process, unix_millis};
use crate::report;
use crate::routing::ids::PromptId;
use crate::routing::placement::{AdminState, Condition};
use crate::routing::state_change::{self, BadText, Holds, StateChange};
use crate::session::control::{self, Force, Held};
use crate::session::{Client, Sessions};
use crate::tasks::heartbeat::SILENT_AFTER;

type Shared = State<Arc<Sessions>>;
pub(super) type Reply = (StatusCode, Json<Value>);

/// All endpoints, in the order of the documentation.
pub(crate) fn router(sessions: Arc<Sessions>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/backends", get(backends))
        .route("/api/v1/backends/{name}/state", post(set_state))
        .route("/api/v1/clients", get(clients))
        .route("/api/v1/clients/{id}", get(client))
        .route("/api/v1/clients/{id}/release", post(release))
        .route("/api/v1/explain", get(explain))
        .route("/", get(index))
        .fallback(nothing_here)
        .with_state(sessions)
}

const ENDPOINTS: [&str; 19] = [
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
    "GET /api/v1/backends",
    "PUT /api/v1/backends/{name}",
    "DELETE /api/v1/backends/{name}",
    "POST /api/v1/backends/{name}/state",
    "GET /api/v1/backends/{name}/drain",
    "GET /api/v1/clients",
    "GET /api/v1/clients/{id}",
    "POST /api/v1/clients/{id}/release",
    "POST /api/v1/prompts/{id}/cancel",
    "GET /api/v1/queue",
    "POST /api/v1/queue/{id}/front",
    "GET /api/v1/explain",
    "POST /api/v1/explain",
    "GET /api/v1/live",
    "GET /api/v1/scaling",
    "POST /api/v1/reload",
];

/// Lists the endpoints, for a person who opens this address in a browser.
async fn index() -> Json<Value> {
    Json(json!({
        "mooring": env!("CARGO_PKG_VERSION"),
        "here": "the admin listener, for operators; clients connect to `server.listen`",
        "endpoints": ENDPOINTS,
    }))
}

async fn nothing_here(method: Method, uri: Uri) -> Reply {
    let what = format!("{method} {} does not exist: GET / lists the endpoints", uri.path());
    not_found(&what)
}

/// Checks that the process answers, and that the tasks that it needs make progress. A drain closes
/// this listener with the others.
async fn livez(State(sessions): Shared) -> (StatusCode, String) {
    let silent = sessions.shared.tasks.hearts().silent();
    if silent.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let (secs, who) = (SILENT_AFTER.as_secs(), silent.join(", "));
    let told = format!("these tasks have made no progress for {secs} s or longer: {who}\n");
    (StatusCode::SERVICE_UNAVAILABLE, told)
}

/// Whether clients should be sent here, and why not. No backend is asked for this.
async fn readyz(State(sessions): Shared, Extension(told): Extension<Told>) -> Reply {
    let is_ready = sessions.shared.is_ready();
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if told == Told::InAWord {
        return (status, Json(json!({ "ready": is_ready })));
    }
    let now = now();
    let backends: Vec<Value> = sessions
        .shared
        .fleet
        .iter()
        .map(|backend| {
            let report = backend.report(now);
            json!({
                "name": backend.name(),
                "up": report.up,
                "state": report.admin.as_str(),
                "said": report.said.as_ref().map(report::said),
                "takes_work": backend.view(now).serves_new(),
                "trouble": report.trouble,
            })
        })
        .collect();
    let is_stopping = sessions.shared.is_leaving();
    let up = sessions.shared.fleet.iter().filter(|backend| backend.is_up()).count();
    // A fleet that is full is busy but ready: it serves the clients that are bound to it.
    let taking =
        sessions.shared.fleet.iter().filter(|backend| backend.view(now).serves_new()).count();
    let body = json!({
        "ready": is_ready,
        "stopping": is_stopping,
        "backends_up": up,
        "backends_taking_work": taking,
        "backends": backends,
    });
    (status, Json(body))
}

async fn metrics(State(sessions): Shared, headers: HeaderMap) -> impl IntoResponse {
    refresh(&sessions);
    let form = Exposition::wanted(&headers);
    let answer = [(CONTENT_TYPE, form.content_type()), (VARY, "accept")];
    (answer, sessions.shared.metrics.render(form))
}

/// Updates gauges that only matter when they are read.
fn refresh(sessions: &Sessions) {
    let now = now();
    let metrics = &sessions.shared.metrics;
    let (mut pending, mut silent) = (0, 0.0_f64);
    // All other clients have nothing pending.
    for client in sessions.clients.working() {
        client.inspect(|core, _| {
            pending += core.pending().len();
            for prompt in core.pending().values() {
                silent = silent.max(now.duration_since(prompt.heard).as_secs_f64());
            }
        });
    }
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.pending.set(count(pending));
    metrics.pending_silent_seconds.set(silent);
    metrics.clients.set(count(sessions.clients.len()));
    metrics.log_bytes.set(count(sessions.logs.used()));
    metrics.task_panics.inner().store(sessions.shared.tasks.panics(), Ordering::Relaxed);
    metrics.journal.failing.set(i64::from(!sessions.shared.records.journal.is_well()));
    let waiting = sessions.waiting.now();
    metrics.queue.waiting.set(count(waiting.prompts));
    metrics.queue.bytes.set(i64::try_from(waiting.bytes).unwrap_or(i64::MAX));
    let oldest = waiting.oldest.map_or(0, |oldest| oldest.as_secs());
    metrics.queue.oldest_seconds.set(i64::try_from(oldest).unwrap_or(i64::MAX));
    metrics.journal.waiting.set(count(sessions.shared.records.journal.waiting()));
    let config = sessions.shared.config();
    for (listener, tls) in [("front", &config.server_tls), ("admin", &config.admin_tls)] {
        let ends = tls.server().map(|tls| tls.not_after());
        metrics.certificates.ends(listener, ends.map(|ends| (ends.own, ends.chain)));
    }
    if let Some(seen) = own_process::look() {
        metrics.process.uses(&seen);
    }
    metrics.scrape_of(sessions.shared.fleet.iter().map(|backend| backend.name()), now);
    for backend in sessions.shared.fleet.iter() {
        let report = backend.report(now);
        let label = ByBackend { backend: backend.name().to_string() };
        metrics.backends.up.get_or_create(&label).set(i64::from(report.up));
        let is = |condition| i64::from(backend.worker.condition() == condition);
        metrics.backends.wedged.get_or_create(&label).set(is(Condition::Wedged));
        metrics.backends.suspect.get_or_create(&label).set(is(Condition::Suspect));
        metrics.backends.queue.get_or_create(&label).set(i64::from(report.queue_remaining));
        metrics.backends.bound.get_or_create(&label).set(i64::from(report.bound));
        let (total, free) = devices::memory_of(&backend.look_at_devices(now));
        metrics.backends.vram(&label, total, free);
    }
}

async fn backends(State(sessions): Shared) -> Json<Value> {
    Json(json!({ "backends": report::backends(&sessions, now()) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateBody {
    state: String,
    #[serde(default)]
    force: bool,
    /// Who changed the state, and why. Both are shown with the state, also after a restart.
    by: Option<String>,
    why: Option<String>,
}

impl StateBody {
    fn change(&self, state: AdminState, sender: &Sender) -> Result<StateChange, BadText> {
        let by = state_change::text("by", self.by.as_deref(), state_change::BY_MAX)?;
        let by = sender.name(by);
        let why = state_change::text("why", self.why.as_deref(), state_change::WHY_MAX)?;
        Ok(StateChange {
            state,
            by: by.into(),
            why: why.map(Into::into),
            at: unix_millis(),
            holds: Holds::On,
        })
    }
}

async fn set_state(
    State(sessions): Shared,
    Path(name): Path<String>,
    Extension(sender): Extension<Sender>,
    body: Bytes,
) -> Reply {
    let before = backend_of(&sessions, &name);
    let reply = change_state(&sessions, &name, &sender, &body).await;
    let asked = Asked { sender, what: "backend.state", on: json!(name), before };
    asked.note(&sessions, reply.0, backend_of(&sessions, &name));
    reply
}

async fn change_state(sessions: &Arc<Sessions>, name: &str, sender: &Sender, body: &[u8]) -> Reply {
    // The content type is ignored, because `curl -d` sends that of a form.
    let body: StateBody = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(bad) => {
            let message = format!("the body is not JSON of a state: {bad}");
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": message })));
        }
    };
    let Some(backend) = sessions.shared.fleet.called(name) else {
        return not_found(&format!("no backend is named {name}"));
    };
    let Some(state) = AdminState::parse(&body.state) else {
        let message = "the state is one of ready, draining, off";
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": message })));
    };
    let force = if body.force { Force::Forced } else { Force::Safe };
    let change = match body.change(state, sender) {
        Ok(change) => change,
        Err(bad) => {
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": bad.to_string() })));
        }
    };
    match control::set_state(sessions, &backend, change, force) {
        Ok(()) if sessions.shared.records.journal.durable().await.is_err() => {
            let message = "it is set, but the journal cannot be written: a restart forgets it";
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": message })))
        }
        Ok(()) => {
            let report = report::backend(sessions, &backend, &Held::of(sessions), now());
            (StatusCode::OK, Json(json!(report)))
        }
        Err(held) => {
            let body = json!({ "error": held.to_string(), "held": held.held });
            (StatusCode::CONFLICT, Json(body))
        }
    }
}

async fn clients(State(sessions): Shared, Extension(may): Extension<May>) -> Json<Value> {
    let now = now();
    let mut reports: Vec<_> = sessions
        .clients
        .all()
        .iter()
        .map(|client| may.see(report::summary(&sessions.shared, client, now)))
        .collect();
    reports.sort_by(|a, b| (&a.client_id, &a.hash).cmp(&(&b.client_id, &b.hash)));
    Json(json!({ "clients": reports }))
}

async fn client(
    State(sessions): Shared,
    Path(id): Path<String>,
    Extension(may): Extension<May>,
) -> Reply {
    let found = sessions.clients.named_by_operator(&id);
    match found {
        Some(client) => (StatusCode::OK, Json(json!(seen(&sessions, &client, may, now())))),
        None => not_found(&format!("no client is named {id}")),
    }
}

fn seen(sessions: &Sessions, client: &Client, may: May, now: Instant) -> report::ClientReport {
    let report = report::client(&sessions.shared, client, now);
    let prompts = report.prompts.into_iter().map(|prompt| may.see_prompt(prompt)).collect();
    report::ClientReport { summary: may.see(report.summary), prompts, ..report }
}

#[derive(Deserialize)]
struct ReleaseQuery {
    #[serde(default)]
    force: bool,
}

async fn release(
    State(sessions): Shared,
    Path(id): Path<String>,
    Query(query): Query<ReleaseQuery>,
    Extension(sender): Extension<Sender>,
) -> Reply {
    let found = sessions.clients.named_by_operator(&id);
    let Some(client) = found else { return not_found(&format!("no client is named {id}")) };
    let force = if query.force { Force::Forced } else { Force::Safe };
    let (on, before) = (json!(mask(&client.id).to_string()), json!({ "forced": query.force }));
    let asked = Asked { sender, what: "client.release", on, before };
    let reply = release_client(&sessions, &client, force);
    // A prompt that waited must not wait again after a kill.
    let _said_by_the_journal_itself = sessions.settled().await;
    asked.note(&sessions, reply.0, reply.1.0.clone());
    reply
}

fn release_client(sessions: &Arc<Sessions>, client: &Arc<Client>, force: Force) -> Reply {
    match control::reset(sessions, client, force) {
        Ok(cut_off) => (StatusCode::OK, Json(json!({ "released": true, "cut_off": cut_off }))),
        Err(still) => {
            let body = json!({ "error": still.to_string(), "pending": still.pending });
            (StatusCode::CONFLICT, Json(body))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainQuery {
    client: Option<String>,
    prompt: Option<String>,
}

/// Explains why a client or a prompt is where it is.
async fn explain(
    State(sessions): Shared,
    Query(query): Query<ExplainQuery>,
    Extension(may): Extension<May>,
) -> Reply {
    let now = now();
    let prompt = query.prompt.as_deref().and_then(|text| PromptId::parse(text).ok());
    let record = prompt.and_then(|prompt| {
        let record = sessions.shared.records.prompt(&prompt);
        record.map(|record| (prompt, record))
    });
    let owner = record.as_ref().and_then(|(_, record)| record.by.client.clone());
    let asked = query.client.as_deref().and_then(|text| sessions.clients.named_by_operator(text));
    let client = asked.or_else(|| owner.and_then(|id| sessions.clients.get(&id)));
    if record.is_none() && client.is_none() {
        return not_found("no such client and no such prompt is known");
    }
    let mut prompt = None;
    if let Some((id, record)) = record {
        prompt = Some(report::PromptReport {
            client_id: record.by.client.as_ref().map(|client| may.name(client)),
            ..report::prompt(&sessions, &id, &record, now).await
        });
    }
    let client = client.map(|client| seen(&sessions, &client, may, now));
    let body = json!({ "prompt": prompt, "client": client });
    (StatusCode::OK, Json(body))
}

pub(super) fn not_found(message: &str) -> Reply {
    (StatusCode::NOT_FOUND, Json(json!({ "error": message })))
}
