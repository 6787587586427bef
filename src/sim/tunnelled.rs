//! Sockets of a node pack, under `/tunnelled/`. Packs can add such routes with
//! `PromptServer.instance.routes`.

use std::sync::Arc;

use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use serde_json::json;

use super::Shared;
use super::body::SimBody;
use super::http::{empty, text};

use crate::ws::{self, Channel, Frame, Limits, Opcode};

const LIMITS: Limits = Limits { message: 4 << 20 };

/// True for all of these routes, bare and under `/api`.
pub(super) fn is_socket(path: &str) -> bool {
    bare(path).starts_with("/tunnelled/")
}

fn bare(path: &str) -> &str {
    path.strip_prefix("/api").unwrap_or(path)
}

/// Answers a path below `/tunnelled/`. `echo` is a socket that sends who it is and how it was
/// requested, and then echoes what it receives. `liar` switches protocols without a valid
/// handshake. Anything else is not a socket.
pub(super) fn answer(
    shared: &Arc<Shared>,
    path: &str,
    request: &mut Request<Incoming>,
) -> Response<SimBody> {
    let target = request.uri().to_string();
    let Ok((mut response, promised)) = ws::accept(request) else {
        return text(
            400,
            "No WebSocket UPGRADE hdr: None\n Can \"Upgrade\" only to \"WebSocket\".",
        );
    };
    match bare(path) {
        "/tunnelled/echo" => {}
        "/tunnelled/liar" => {
            let wrong = HeaderValue::from_static("bm90IHdoYXQgeW91IGFza2Vk");
            response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, wrong);
        }
        _ => return text(200, "no socket here"),
    }
    let first = json!({ "server": shared.name(), "target": target }).to_string();
    shared.spawn(async move {
        if let Some(channel) = promised.channel(LIMITS).await {
            echo(channel, first).await;
        }
    });
    response.map(|()| empty())
}

async fn echo(mut channel: Channel, first: String) {
    if channel.send(Frame::text(first)).await.is_err() {
        return;
    }
    while let Some(Ok(frame)) = channel.next().await {
        let is_said = matches!(frame.opcode, Opcode::Text | Opcode::Binary);
        if is_said && channel.send(frame).await.is_err() {
            return;
        }
    }
}
