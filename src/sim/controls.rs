//! Routes under `/sim/`, which no ComfyUI has. Tests and the demo control the simulator with them,
//! and benchmarks use them to measure.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;

use super::Shared;
use super::body::SimBody;
use super::http::{bare, json_answer, text, whole};

/// Answers a path below `/sim/`.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    control: &str,
    request: Request<Incoming>,
) -> Response<SimBody> {
    let query = request.uri().query().unwrap_or("").to_owned();
    match (request.method(), control) {
        (&Method::POST, "faults") => {
            let faults = whole(request).await.and_then(|it| serde_json::from_slice(&it).ok());
            match faults {
                Some(faults) => {
                    shared.set_faults(|current| *current = faults);
                    bare(200)
                }
                None => text(400, "these are no faults"),
            }
        }
        (&Method::POST, "crash") => {
            shared.kill();
            bare(200)
        }
        (&Method::POST, "sink") => sink(request).await,
        (&Method::GET, "blob") => {
            let bytes = crate::comfy::query::parameter(&query, "bytes");
            let left = bytes.and_then(|text| text.parse().ok()).unwrap_or(0);
            Response::new(SimBody::Blob { left, given: Arc::clone(&shared.blob_bytes) })
        }
        (&Method::GET, "ledger") => {
            let ledger = shared.server().ledger.clone();
            json_answer(
                200,
                &json!({
                    "enqueued": ledger.enqueued, "executed": ledger.executed,
                    "finished": ledger.finished, "deleted": ledger.deleted,
                    "interrupted": ledger.interrupted,
                }),
            )
        }
        _ => bare(404),
    }
}

/// Reads a body of any size and discards it.
async fn sink(request: Request<Incoming>) -> Response<SimBody> {
    let mut body = request.into_body();
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
    json_answer(200, &json!({ "bytes": bytes }))
}
