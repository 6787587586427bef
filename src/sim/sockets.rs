//! `/ws`, including its bug with equal client ids (`server.py:245`, issue 16010): a new socket
//! replaces the old one with its sid, and when the *old* one ends, the new one is forgotten.

use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Shared;
use super::body::SimBody;
use super::http::{empty, text};
use super::python_json::dumps;
use super::state::Registered;
use crate::comfy::{event, query};
use crate::net::new_id;
use crate::ws::{self, Channel, Frame, Limits, Opcode};

/// aiohttp drops the connection of a client that sends a larger message.
const LIMITS: Limits = Limits { message: 4 << 20 };

/// Answers the opening handshake.
pub(super) fn upgrade(shared: &Arc<Shared>, request: &mut Request<Incoming>) -> Response<SimBody> {
    let faults = shared.faults();
    if faults.refuse_sockets || faults.junk {
        return text(500, "500 Internal Server Error\n\nServer got itself in trouble");
    }
    let Ok((response, promised)) = ws::accept(request) else {
        let message = "No WebSocket UPGRADE hdr: None
 Can \"Upgrade\" only to \"WebSocket\".";
        return text(400, message);
    };
    let given =
        query::client_id(request.uri().query().unwrap_or("")).map(std::borrow::Cow::into_owned);
    let sid = given.filter(|id| !id.is_empty()).unwrap_or_else(|| new_id().simple().to_string());
    let task = {
        let shared = Arc::clone(shared);
        async move {
            if let Some(channel) = promised.channel(LIMITS).await {
                serve(shared, sid, channel).await;
            }
        }
    };
    shared.spawn(task);
    response.map(|()| empty())
}

async fn serve(shared: Arc<Shared>, sid: String, mut channel: Channel) {
    let (frames, mut waiting) = mpsc::unbounded_channel();
    register(&shared, &sid, &frames);
    let mut is_first = true;
    loop {
        if shared.faults().mute_sockets || shared.faults().hashes {
            shared.faults_changed().await;
            continue;
        }
        tokio::select! {
            biased;
            Some(frame) = waiting.recv() => {
                if channel.send(frame).await.is_err() {
                    break;
                }
            }
            received = channel.next() => match received {
                Some(Ok(frame)) if frame.opcode == Opcode::Text => {
                    hear(&shared, &sid, &frames, &frame, &mut is_first);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
            () = shared.faults_changed() => {}
        }
    }
    // Unconditional: this is the bug.
    let mut server = shared.server();
    server.memory.sockets.shift_remove(&sid);
    server.memory.metadata.remove(&sid);
}

fn register(shared: &Shared, sid: &str, frames: &mpsc::UnboundedSender<Frame>) {
    let mut server = shared.server();
    server.memory.sockets.insert(sid.to_owned(), Registered { frames: frames.clone() });
    server.memory.metadata.remove(sid);
    let count = server.memory.queue_remaining();
    let status = json!({ "exec_info": { "queue_remaining": count } });
    let first = json!({ "type": "status", "data": { "status": status, "sid": sid } });
    // Cannot fail: the caller holds the receiver.
    let _ = frames.send(Frame::text(dumps(&first)));
    let runs_for_it = server.memory.running.as_ref().is_some_and(|it| it.client() == Some(sid));
    if let Some(node) = server.memory.node.as_ref().filter(|_| runs_for_it) {
        let again = json!({ "type": "executing", "data": { "node": node } });
        let _ = frames.send(Frame::text(dumps(&again)));
    }
}

/// Only the first JSON message counts, and only if it is about features.
fn hear(
    shared: &Shared,
    sid: &str,
    frames: &mpsc::UnboundedSender<Frame>,
    frame: &Frame,
    is_first: &mut bool,
) {
    let is_json = serde_json::from_slice::<Value>(&frame.payload).is_ok();
    if !is_json || !std::mem::take(is_first) || !event::is_feature_flags(&frame.payload) {
        return;
    }
    let wants = event::wants_preview_metadata(&frame.payload);
    shared.server().memory.metadata.insert(sid.to_owned(), wants);
    let answer = json!({ "type": "feature_flags", "data": shared.features() });
    let _ = frames.send(Frame::text(dumps(&answer)));
}
