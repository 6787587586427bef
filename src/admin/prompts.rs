//! `POST /api/v1/prompts/{id}/cancel` cancels one prompt.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Extension, Json, Router};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::api::{Reply, not_found};
use super::audited::Asked;
use super::sender::Sender;
use crate::masked::mask;
use crate::routing::ids::PromptId;
use crate::session::Sessions;
use crate::session::cancel::{self, Cancelled, NotCancelled};

pub(super) fn router(sessions: Arc<Sessions>) -> Router {
    Router::new().route("/api/v1/prompts/{id}/cancel", post(cancel_prompt)).with_state(sessions)
}

async fn cancel_prompt(
    State(sessions): State<Arc<Sessions>>,
    Path(id): Path<String>,
    Extension(sender): Extension<Sender>,
) -> Reply {
    let Ok(prompt) = PromptId::parse(&id) else { return not_found("no such prompt is known") };
    let (tell, told) = oneshot::channel();
    // Whoever asked may leave: it is done to its end and noted.
    sessions.clone().shared.tasks.spawn(async move {
        let _ = tell.send(cancelled(&sessions, &prompt, sender).await);
    });
    told.await.unwrap_or_else(|_stopped| {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "the gateway stops" })))
    })
}

async fn cancelled(sessions: &Arc<Sessions>, prompt: &PromptId, sender: Sender) -> Reply {
    let owner = sessions.shared.records.prompt(prompt).and_then(|record| record.by.client);
    let on = json!(prompt.to_string());
    let before = json!({ "client": owner.map(|client| mask(&client).to_string()) });
    let asked = Asked { sender, what: "prompt.cancel", on, before };
    let (status, body) = answer(&cancel::cancel(sessions, prompt).await);
    asked.note(sessions, status, body.clone());
    (status, Json(body))
}

fn answer(outcome: &Result<Cancelled, NotCancelled>) -> (StatusCode, Value) {
    match outcome {
        Ok(Cancelled { was, backend }) => {
            let body = json!({ "cancelled": true, "was": was.as_str(), "backend": &**backend });
            (StatusCode::OK, body)
        }
        Err(why) => (status_of(why), json!({ "error": why.to_string() })),
    }
}

fn status_of(why: &NotCancelled) -> StatusCode {
    match why {
        NotCancelled::Unknown => StatusCode::NOT_FOUND,
        NotCancelled::Ended(_) | NotCancelled::Sending | NotCancelled::NotThere(_) => {
            StatusCode::CONFLICT
        }
        NotCancelled::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
        NotCancelled::NoAnswer(..) => StatusCode::BAD_GATEWAY,
    }
}
