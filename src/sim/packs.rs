//! Node packs with their own routes, sockets and sessions, which a gateway must pass on without
//! knowing them.

use std::sync::Arc;

use bytes::Bytes;
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::body::SimBody;
use super::http::{bare, bytes, empty, json_answer, not_allowed, text};
use super::python_json::dumps;
use super::{Shared, tunnelled};
use crate::comfy::query::parameter;
use crate::ws::{self, Channel, Frame, Limits, Opcode};

const LIMITS: Limits = Limits { message: 64 << 20 };

/// Sockets of packs for Photoshop, on paths that ComfyUI does not know.
const SOCKETS: [&str; 2] = ["/sd-ppp/", "/ps/ws"];

pub(super) fn is_socket(bare_path: &str) -> bool {
    tunnelled::is_socket(bare_path) || SOCKETS.contains(&bare_path)
}

/// Opens a pack's socket: it sends where it is, and then echoes each message. It selects the first
/// offered protocol.
pub(super) fn upgrade(
    shared: &Arc<Shared>,
    path: &str,
    request: &mut Request<Incoming>,
) -> Response<SimBody> {
    let query = request.uri().query().unwrap_or("").to_owned();
    let offered = request.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned();
    if tunnelled::is_socket(path) {
        return tunnelled::answer(shared, path, request);
    }
    let Ok((response, promised)) = ws::accept(request) else {
        return text(
            400,
            "No WebSocket UPGRADE hdr: None\n Can \"Upgrade\" only to \"WebSocket\".",
        );
    };
    let hello = dumps(&json!({ "from": shared.name(), "path": path, "query": query }));
    shared.server().memory.pack_sockets += 1;
    let task = {
        let shared = Arc::clone(shared);
        async move {
            if let Some(channel) = promised.channel(LIMITS).await {
                echo(channel, hello).await;
            }
            shared.server().memory.pack_sockets -= 1;
        }
    };
    shared.spawn(task);
    let mut response = response.map(|()| empty());
    let protocol = offered.and_then(|it| {
        let first = it.to_str().ok()?.split(',').next()?.trim().to_owned();
        first.parse().ok()
    });
    if let Some(protocol) = protocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

async fn echo(mut channel: Channel, hello: String) {
    if channel.send(Frame::text(hello)).await.is_err() {
        return;
    }
    while let Some(Ok(frame)) = channel.next().await {
        let is_message = matches!(frame.opcode, Opcode::Text | Opcode::Binary);
        if is_message && channel.send(frame).await.is_err() {
            return;
        }
    }
}

/// True for the routes of packs.
pub(super) fn is_route(bare_path: &str) -> bool {
    bare_path == "/pack/echo" || picture(bare_path).is_some()
}

/// The id of a picture that a client stores on the server.
fn picture(bare_path: &str) -> Option<&str> {
    bare_path.strip_prefix("/etn/image/").filter(|id| !id.is_empty() && !id.contains('/'))
}

/// Answers `/pack/echo` and `/etn/image/ID`.
pub(super) fn answer(
    shared: &Shared,
    method: &Method,
    bare_path: &str,
    query: &str,
    body: Bytes,
) -> Response<SimBody> {
    let Some(id) = picture(bare_path) else { return session(shared, query, &body) };
    match *method {
        Method::PUT if body.is_empty() => text(400, "400: no image"),
        Method::PUT => {
            shared.server().memory.put_images.insert(id.to_owned(), body);
            json_answer(200, &json!({ "status": "success" }))
        }
        Method::GET | Method::HEAD => {
            let found = shared.server().memory.put_images.get(id).cloned();
            found.map_or_else(|| bare(404), |picture| bytes(200, picture, "image/png"))
        }
        _ => not_allowed(),
    }
}

/// A session exists in the process that started it: its count continues only there.
fn session(shared: &Shared, query: &str, body: &[u8]) -> Response<SimBody> {
    let sid = parameter(query, "sid").unwrap_or_default();
    let mut server = shared.server();
    let count = server.memory.sessions.entry(sid.clone()).or_insert(0_u64);
    *count += 1;
    let answer: Value = json!({
        "from": shared.name(), "sid": sid, "count": *count, "bytes": body.len(),
    });
    json_answer(200, &answer)
}

/// The login of packs: `Authorization: Bearer TOKEN` or `?token=TOKEN`, on every path.
pub(super) fn may_enter(shared: &Shared, headers: &HeaderMap, query: &str) -> bool {
    let Some(token) = &shared.options.token else { return true };
    let header = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = header.and_then(|header| header.strip_prefix("Bearer "));
    bearer == Some(token.as_str()) || parameter(query, "token").as_deref() == Some(token.as_str())
}
