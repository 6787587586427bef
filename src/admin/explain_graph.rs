//! `POST /api/v1/explain`: where a graph would go now. It changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::api::Reply;
use crate::comfy::object_info::NodeInfo;
use crate::comfy::parts::{GraphParts, graph_of};
use crate::front::Front;
use crate::front::nodes;
use crate::net::now;
use crate::routing::ids::BackendId;
use crate::routing::placement::{BackendView, Excluded, TieBreak, place};

/// Bytes of a graph; ComfyUI's own limit for a body is of this order.
const GRAPH_MAX: usize = 16 << 20;

/// How many missing parts are named of each backend.
const LACKING_MAX: usize = 20;

/// How many graphs are looked at at a time: each may keep a thread for a moment.
static PLACES: Semaphore = Semaphore::const_new(1);

pub(super) fn router(front: Arc<Front>) -> Router {
    Router::new()
        .route("/api/v1/explain", post(explain))
        .layer(DefaultBodyLimit::max(GRAPH_MAX))
        .with_state(front)
}

async fn explain(State(front): State<Arc<Front>>, body: Bytes) -> Reply {
    // It is never closed.
    let _place = PLACES.acquire().await;
    let infos = nodes::infos(&front).await;
    let looked = tokio::task::spawn_blocking(move || look(&front, &body, infos)).await;
    looked.unwrap_or_else(|_failed| {
        let body = json!({ "error": "the graph could not be looked at" });
        (StatusCode::INTERNAL_SERVER_ERROR, Json(body))
    })
}

type Infos = Vec<(BackendId, Option<Arc<NodeInfo>>)>;

fn look(front: &Front, body: &[u8], infos: Infos) -> Reply {
    let parts = match graph_of(body) {
        Ok(graph) => GraphParts::of(&graph),
        Err(error) => {
            let error = format!("this is no graph: {error}");
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": error })));
        }
    };
    let lacks = infos.into_iter().filter_map(|(id, info)| Some((id, parts.lacking(&*info?))));
    let lacks: HashMap<BackendId, Vec<String>> = lacks.collect();
    let (config, fleet) = (front.shared.config(), &front.shared.fleet);
    let views = fleet.views(now());
    let waits = 0 < config.queue.depth;
    // What waits in the gateway goes to no server that is known to lack a part of it.
    let may_run = |view: &&BackendView| !waits || lacks.get(&view.id).is_none_or(Vec::is_empty);
    let able: Vec<BackendView> = views.iter().filter(may_run).copied().collect();
    let placed = match parts.has_one_of(&config.server.deny_nodes) {
        Some(class) => Err(format!("the class {class} is in server.deny_nodes")),
        None => place(&able, TieBreak { last: None, turn: fleet.turn() })
            .map_err(|error| error.to_string()),
    };
    let chosen = placed.as_ref().ok().copied();
    let mut ranked: Vec<&BackendView> = views.iter().collect();
    ranked.sort_by_key(|view| (chosen != Some(view.id), view.excluded().is_some()));
    let name = |id| fleet.get(id).name().to_string();
    let candidate = |view: &&BackendView| -> Value {
        let lacking = lacks.get(&view.id);
        json!({
            "backend": name(view.id),
            "load": view.load,
            "weight": view.weight,
            "max_pending": view.max_pending,
            "suspect": view.is_suspect(),
            "excluded": view.excluded().map(Excluded::as_str),
            // Null if it has not said what it has.
            "lacks": lacking.map(|all| all.iter().take(LACKING_MAX).collect::<Vec<_>>()),
            "lacks_in_all": lacking.map(Vec::len),
        })
    };
    let body = json!({
        "chosen": chosen.map(name),
        "why_not": placed.err(),
        "may_wait": waits,
        "nodes": parts.nodes(),
        "candidates": ranked.iter().map(candidate).collect::<Vec<_>>(),
    });
    (StatusCode::OK, Json(body))
}
