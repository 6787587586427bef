//! Handshakes as plug-ins, browsers and libraries write them, and client ids in what is dialled.

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Cases;
use crate::support::{World, network, soon, until};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A text of a client, masked with zeros.
fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Sends a handshake and the first text in one piece; what comes until `enough`.
async fn opened(world: &World, request: &str, first: &str, enough: &str) -> String {
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    let mut stream = network().connect(&host, port).await.unwrap();
    let mut bytes = request.as_bytes().to_vec();
    if !first.is_empty() {
        bytes.extend(masked(first));
    }
    stream.write_all(&bytes).await.unwrap();
    let mut read = Vec::new();
    soon("an answer", async {
        while !String::from_utf8_lossy(&read).contains(enough) {
            match stream.read_buf(&mut read).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    })
    .await;
    String::from_utf8_lossy(&read).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_packs_open_however_they_are_asked_for() {
    let world = World::new(1).await;
    world.all_up().await;
    let usual = format!(
        "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n\
        Sec-WebSocket-Key: {KEY}\n"
    );
    let with = |line: &str| format!("{usual}{line}\n");
    let lower = usual.to_lowercase().replace(&KEY.to_lowercase(), KEY);
    let upper = usual.to_uppercase().replace(&KEY.to_uppercase(), KEY);
    let own = format!("Origin: http://{}", world.front);
    let mut cases = Cases::default();
    for (name, target, lines) in [
        ("Photoshop: engine.io", "/sd-ppp/?EIO=4&transport=websocket", usual.clone()),
        ("the same under /api", "/api/sd-ppp/?EIO=4&transport=websocket", usual.clone()),
        ("a clientId of its own", "/ps/ws?clientId=x&platform=ps", usual.clone()),
        ("Lora-Manager", "/tunnelled/echo?task=fetch%2Fprogress", usual.clone()),
        ("Node: all in lower case", "/ps/ws", lower),
        ("Java: all in upper case", "/ps/ws", upper),
        (
            "Firefox: two options",
            "/ps/ws",
            usual.replace("Connection: U", "Connection: keep-alive, U"),
        ),
        ("a proxy: two lines of options", "/ps/ws", with("Connection: keep-alive")),
        (
            "Chrome: compression offered",
            "/tunnelled/echo",
            with("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
        ),
        ("GraphQL: a protocol", "/ps/ws", with("Sec-WebSocket-Protocol: graphql-ws, json")),
        ("the page itself", "/ps/ws", with(&format!("{own}\nSec-Fetch-Site: same-origin"))),
        ("Python: an Origin without a page", "/ps/ws", with(&own)),
        ("an empty Origin", "/ps/ws", with("Origin:")),
        ("C++: a length of nothing", "/ps/ws", with("Content-Length: 0")),
        ("a query in Chinese", "/ps/ws?name=%E7%94%BB+%7E&a[]=1&=", usual.clone()),
        ("a path that is escaped", "/tunnelled/%65cho?x=%20", usual.clone()),
        ("several protocols to come", "/ps/ws", usual.replace("Upgrade: w", "Upgrade: h2c, w")),
    ] {
        let head = format!("GET {target} HTTP/1.1\nHost: {}\n{lines}\n", world.front);
        let answer = opened(&world, &head.replace('\n', "\r\n"), "early bird", "early bird").await;
        let lower = answer.to_lowercase();
        let protocol = answer.contains("graphql-ws") == lines.contains("graphql-ws");
        let is_right = answer.contains(ACCEPT) && protocol && !lower.contains("permessage");
        let found = (status(&answer).to_owned(), is_right, answer.contains("early bird"));
        cases.case(name, found, ("101".to_owned(), true, true));
    }
    cases.case("nobody was made of a pack's ids", world.gateway.sessions.clients.len(), 0);
    for (name, target, lines, right) in [
        ("a page of another", "/ps/ws", with("Origin: https://evil.example"), "403"),
        ("and without a word of it", "/ps/ws", with("Sec-Fetch-Site: cross-site"), "403"),
        ("a key of 15 bytes", "/ps/ws", usual.replace(KEY, "c2hvcnQgYnkgYSBieXRl"), "400"),
        ("two keys", "/ps/ws", with(&format!("Sec-WebSocket-Key: {KEY}")), "400"),
        ("version 8", "/ps/ws", usual.replace("13", "8"), "426"),
        ("what installs", "/manager/queue/install", usual.clone(), "403"),
        ("a folder above ours", "/ps/../ws", usual.clone(), "403"),
    ] {
        let head = format!("GET {target} HTTP/1.1\nHost: {}\n{lines}\n", world.front);
        let answer = opened(&world, &head.replace('\n', "\r\n"), "", "\r\n\r\n").await;
        cases.case(name, status(&answer).to_owned(), right.to_owned());
    }
    until("all are closed", || world.gateway.sessions.tunnels.is_empty()).await;
    cases.end(25);
}

/// What a server was dialled with for a client, and what comes to its socket as its own id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_ids_are_dialled_as_they_are_and_escaped_only_where_they_must_be() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut cases = Cases::default();
    for (name, asked, dialled) in [
        ("underscores", "batch_tool_7", "batch_tool_7"),
        ("dots, as of a host", "worker-3.gpu.example.com", "worker-3.gpu.example.com"),
        ("a tilde", "~ada~", "~ada~"),
        (
            "a UUID of Python",
            "2f1b0e9c5d7a4c0f9a5f8a6f0c1d2e3f",
            "2f1b0e9c5d7a4c0f9a5f8a6f0c1d2e3f",
        ),
        (
            "a UUID of Windows",
            "%7B6F9619FF-8B86-D011-B42D-00C04FC964FF%7D",
            "%7B6F9619FF-8B86-D011-B42D-00C04FC964FF%7D",
        ),
        ("escaped without a need", "a%5Fb%2Ec%2Dd%7Ee", "a_b.c-d~e"),
        ("an e-mail", "ada@example.com", "ada%40example.com"),
        ("base64", "Zm9vYmE%2Fcg%3D%3D", "Zm9vYmE%2Fcg%3D%3D"),
        ("a plus that is a space", "a+b", "a%20b"),
        ("a plus that is one", "a%2Bb", "a%2Bb"),
        ("Japanese, not escaped", "画像", "%E7%94%BB%E5%83%8F"),
        ("an emoji in small letters", "%f0%9f%a6%8a", "%F0%9F%A6%8A"),
        ("a percent sign", "100%25", "100%25"),
        ("a second one in it", "a%2526b", "a%2526b"),
    ] {
        let head = format!(
            "GET /ws?clientId={asked} HTTP/1.1\r\nHost: x\r\n\
            Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        let answer = opened(&world, &head, "", "\"sid\"").await;
        let told: Value = answer
            .find("{\"")
            .map(|at| serde_json::Deserializer::from_str(&answer[at..]).into_iter().next())
            .and_then(|it| it?.ok())
            .unwrap_or_default();
        let sid = told["data"]["sid"].as_str().unwrap_or_default().to_owned();
        let targets = || {
            let seen = world.sim("a").requests();
            seen.into_iter()
                .map(|it| it.target)
                .filter(|it| it.starts_with("/ws"))
                .collect::<Vec<_>>()
        };
        let body = serde_json::json!({ "client_id": sid, "prompt": crate::support::quick(1) });
        let answer = world.post("/prompt", &body.to_string()).await;
        let ends = format!("/ws?clientId={dialled}");
        let found = (answer.status, targets().contains(&ends));
        cases.case(name, found, (200, true));
    }
    cases.end(14);
}
