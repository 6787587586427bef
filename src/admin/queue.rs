//! `GET /api/v1/queue`: what waits in the gateway; `POST /api/v1/queue/{id}/front` moves a prompt
//! before all others.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::api::{Reply, not_found};
use super::audited::Asked;
use super::gate::May;
use super::sender::Sender;
use crate::masked::mask;
use crate::routing::ids::PromptId;
use crate::session::waiting::InLine;
use crate::session::{Client, Sessions};

/// How many prompts are told at a time: as many as are asked for, but no more than the second.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

pub(super) fn router(sessions: Arc<Sessions>) -> Router {
    Router::new()
        .route("/api/v1/queue", get(queue))
        .route("/api/v1/queue/{id}/front", post(to_front))
        .with_state(sessions)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueQuery {
    /// Only those of this client, by its clientId or its hash.
    client: Option<String>,
    /// Only those of this user.
    user: Option<String>,
    #[serde(default)]
    skip: usize,
    limit: Option<usize>,
}

async fn queue(
    State(sessions): State<Arc<Sessions>>,
    Query(query): Query<QueueQuery>,
    Extension(may): Extension<May>,
) -> Reply {
    let limit = query.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let waiting = &sessions.waiting;
    let forecast = waiting.forecast().await;
    let (rows, count) = match (&query.client, &query.user) {
        (None, None) => (waiting.in_line(&forecast, query.skip, limit), waiting.count()),
        (client, user) => {
            let Some(clients) = clients(&sessions, client.as_deref(), user.as_deref()) else {
                return not_found("no such client is known");
            };
            let prompts: Vec<PromptId> = clients.iter().flat_map(|it| waiting_of(it)).collect();
            let all = waiting.in_line_of(&forecast, &prompts);
            let count = all.len();
            (all.into_iter().skip(query.skip).take(limit).collect(), count)
        }
    };
    let next = query.skip.saturating_add(limit);
    let rows: Vec<Value> = rows.iter().map(|it| row(it, may)).collect();
    let body = json!({
        "prompts": rows,
        "waiting": count,
        "next_skip": (next < count).then_some(next),
    });
    (StatusCode::OK, Json(body))
}

/// The clients that are asked about; `None` if the one that is named is not known.
fn clients(
    sessions: &Sessions,
    client: Option<&str>,
    user: Option<&str>,
) -> Option<Vec<Arc<Client>>> {
    let clients = match client {
        Some(name) => vec![sessions.clients.named_by_operator(name)?],
        None => sessions.clients.working(),
    };
    let is_his = |it: &Arc<Client>| user.is_none() || it.id.user() == user;
    Some(clients.into_iter().filter(is_his).collect())
}

fn waiting_of(client: &Client) -> Vec<PromptId> {
    let pending = client.pending().into_iter();
    pending.filter(|(_, it)| it.is_waiting()).map(|(prompt, _)| prompt).collect()
}

fn row(it: &InLine, may: May) -> Value {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut row = json!({
        "place": it.ahead.place,
        "prompt_id": may.prompt(&it.prompt),
        "client": mask(&it.client).to_string(),
        "start_ms": it.ahead.start.map(millis),
        "waited_ms": millis(it.waited),
    });
    if may == May::Act {
        row["client_id"] = it.client.name().into();
    }
    if let Some(user) = it.client.user() {
        row["user"] = user.into();
    }
    row
}

async fn to_front(
    State(sessions): State<Arc<Sessions>>,
    Path(id): Path<String>,
    Extension(sender): Extension<Sender>,
) -> Reply {
    let Ok(prompt) = PromptId::parse(&id) else { return not_found("no such prompt is known") };
    let Some(record) = sessions.shared.records.prompt(&prompt) else {
        return not_found("no such prompt is known");
    };
    let before = json!({ "client": record.by.client.map(|client| mask(&client).to_string()) });
    let asked = Asked { sender, what: "prompt.front", on: json!(prompt.to_string()), before };
    // It is noted before anything is waited for: whoever asked may leave.
    if !sessions.waiting.to_front(&prompt) {
        let error = "it does not wait in the gateway: it is at a backend, or has ended";
        let body = json!({ "error": error });
        asked.note(&sessions, StatusCode::CONFLICT, body.clone());
        return (StatusCode::CONFLICT, Json(body));
    }
    asked.note(&sessions, StatusCode::OK, json!({ "moved": true }));
    info!(%prompt, "An operator has put a prompt to the front.");
    // It may have been handed over since.
    let place = sessions.waiting.ahead(&prompt).await.map(|it| it.place);
    (StatusCode::OK, Json(json!({ "moved": true, "place": place })))
}
