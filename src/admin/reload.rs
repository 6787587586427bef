//! `POST /api/v1/reload` reads the configuration again.

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Json, Router};
use http::StatusCode;
use serde_json::json;

use super::api::Reply;
use super::sender::Sender;
use crate::reload::{By, NotReloaded, Reloaded, Reloads};

pub(super) fn router(reloads: Reloads) -> Router {
    Router::new().route("/api/v1/reload", post(reload)).with_state(reloads)
}

async fn reload(State(reloads): State<Reloads>, Extension(sender): Extension<Sender>) -> Reply {
    match reloads.reload(By::Operator(sender.who())).await {
        Ok(Reloaded { applied, need_restart, warnings }) => {
            let mut body = json!({ "applied": applied, "need_restart": need_restart });
            if !warnings.is_empty() {
                body["warnings"] = json!(warnings);
            }
            (StatusCode::OK, Json(body))
        }
        Err(why) => refused(&why),
    }
}

fn refused(why: &NotReloaded) -> Reply {
    let (status, body) = match why {
        NotReloaded::Bad(problems) => {
            let error = "the configuration was not reloaded: the old one stays";
            (StatusCode::UNPROCESSABLE_ENTITY, json!({ "error": error, "problems": problems }))
        }
        NotReloaded::NoSource => (StatusCode::CONFLICT, json!({ "error": why.to_string() })),
        NotReloaded::Stopping => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": why.to_string() }))
        }
    };
    (status, Json(body))
}
