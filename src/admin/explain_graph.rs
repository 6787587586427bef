//! `POST /api/v1/explain`: where a graph would go now. It changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

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

pub(super) fn router(front: Arc<Front>) -> Router {
    Router::new()
        .route("/api/v1/explain", post(explain))
        .layer(DefaultBodyLimit::max(GRAPH_MAX))
        .with_state(front)
}

async fn explain(State(front): State<Arc<Front>>, body: Bytes) -> Reply {
    let graph = match graph_of(&body) {
        Ok(graph) => graph,
        Err(error) => {
            let error = format!("this is no graph: {error}");
            return (StatusCode::BAD_REQUEST, Json(json!({ "error": error })));
        }
    };
    let parts = GraphParts::of(&graph);
    let infos: HashMap<BackendId, Option<Arc<NodeInfo>>> =
        nodes::infos(&front).await.into_iter().collect();
    let fleet = &front.shared.fleet;
    // Looked at after the backends have answered.
    let views = fleet.views(now());
    let placed = place(&views, TieBreak { last: None, turn: fleet.turn() });
    let mut ranked: Vec<&BackendView> = views.iter().collect();
    ranked.sort_by_key(|view| (placed.ok() != Some(view.id), view.excluded().is_some()));
    let name = |id| fleet.get(id).name().to_string();
    let candidate = |view: &&BackendView| -> Value {
        let known = infos.get(&view.id).and_then(Option::as_ref);
        let lacking = known.map(|info| parts.lacking(info));
        let count = lacking.as_ref().map(Vec::len);
        json!({
            "backend": name(view.id),
            "load": view.load,
            "weight": view.weight,
            "max_pending": view.max_pending,
            "suspect": view.is_suspect(),
            "excluded": view.excluded().map(Excluded::as_str),
            // Null if it has not said what it has.
            "lacks": lacking.map(|all| all.into_iter().take(LACKING_MAX).collect::<Vec<_>>()),
            "lacks_in_all": count,
        })
    };
    let body = json!({
        "chosen": placed.ok().map(name),
        "why_not": placed.err().map(|error| error.to_string()),
        "nodes": parts.nodes(),
        "candidates": ranked.iter().map(candidate).collect::<Vec<_>>(),
    });
    (StatusCode::OK, Json(body))
}
