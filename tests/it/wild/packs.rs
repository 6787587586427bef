//! Routes of node packs: what is sent there stays with the prompt that uses it.

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Cases;
use crate::pictures::{RED, png};
use crate::support::{Answer, World, network, quick, send, send_bytes, slow, soon, until};

/// Work of a stranger, so that everybody is better off elsewhere.
async fn keep_busy(world: &World, backend: &str, prompts: u32) {
    let known = world.gateway.shared.fleet.by_name(backend).unwrap();
    let before = known.load.queue_remaining();
    let body = json!({ "client_id": "stranger", "prompt": slow(50, 600.0) }).to_string();
    let headers = [("content-type", "application/json")];
    for _ in 0..prompts {
        let sim = world.sim(backend).addr();
        let answer = send(sim, Method::POST, "/prompt", &headers, &body).await;
        assert_eq!(answer.status, 200);
    }
    until("its queue is known", || before + prompts <= known.load.queue_remaining()).await;
}

/// Sends a body in chunks, on a connection of its own.
async fn chunked(world: &World, head: &str, body: &str) -> Answer {
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    let mut stream = network().connect(&host, port).await.unwrap();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    soon("an answer", stream.read_to_end(&mut read)).await.unwrap();
    let text = String::from_utf8_lossy(&read).into_owned();
    let backend = text.lines().find_map(|line| line.strip_prefix("mooring-backend: "));
    let mut headers = http::HeaderMap::new();
    headers.insert("mooring-backend", backend.unwrap_or_default().parse().unwrap());
    let status = text.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or_default();
    Answer { status, headers, body: read.into() }
}

/// Each in a world of its own, as each makes one server busy: what is sent, and by whom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_a_server_may_keep_is_followed_by_its_prompt() {
    let json = ("content-type", "application/json");
    let picture = ("content-type", "image/png");
    let form = ("content-type", "multipart/form-data; boundary=xyz");
    let mut cases = Cases::default();
    for (name, method, path, header, by_address, follows) in [
        ("krita, by its address alone", Method::PUT, "/api/etn/image/7f3c", picture, true, true),
        ("krita, without /api", Method::PUT, "/etn/image/7f3c", picture, false, true),
        ("a pack's upload of sound", Method::POST, "/upload/audio", form, false, true),
        ("easy-use, a form", Method::POST, "/api/easyuse/upload", form, false, true),
        ("rgthree, JSON", Method::POST, "/rgthree/api/loras/info?x=%2F", json, false, true),
        ("a path that is escaped", Method::PUT, "/pack/a%2Fb%20%E7%94%BB", picture, false, true),
        ("a change of a part", Method::PATCH, "/pack/x", json, false, true),
        // What is deleted waits for no prompt, whatever is said of it.
        ("a body that deletes", Method::DELETE, "/pack/x", json, false, false),
    ] {
        let world = World::new(2).await;
        world.all_up().await;
        for sim in &world.sims {
            let bare = path.split('?').next().unwrap();
            if !bare.contains("/etn/") {
                sim.serve(&bare.replace("%20%E7%94%BB", " 画"), &json!({ "ok": true }));
            }
        }
        let _socket = world.socket("painter").await;
        let id = ("comfy-client-id", "painter");
        let headers = if by_address { vec![header] } else { vec![header, id] };
        let body = png(RED).into();
        let sent = send_bytes(world.front, method, path, &headers, body).await;
        keep_busy(&world, sent.backend(), 3).await;
        let placed = world.submit("painter", &quick(1)).await;
        let is_there = placed.backend() == sent.backend() && !placed.backend().is_empty();
        cases.case(name, (sent.status, placed.status, is_there), (200, 200, follows));
    }
    let world = World::new(2).await;
    world.all_up().await;
    let _socket = world.socket("painter").await;
    let sent = chunked(&world, "PUT /api/etn/image/7f3c", "not really one").await;
    keep_busy(&world, sent.backend(), 3).await;
    let placed = world.submit("painter", &quick(1)).await;
    let found = (sent.status, placed.backend() == sent.backend());
    cases.case("chunks of a length that nobody knows", found, (200, true));
    cases.end(9);
}

/// The whole of it, as krita does it: the picture is there when its prompt runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_that_was_put_is_found_by_its_prompt() {
    let world = World::new(2).await;
    world.all_up().await;
    let mut socket = world.socket("krita").await;
    let headers = [("comfy-client-id", "krita"), ("content-type", "image/png")];
    let path = "/api/etn/image/9b-1_x.2";
    let put = send_bytes(world.front, Method::PUT, path, &headers, png(RED).into()).await;
    // There is a shorter way elsewhere.
    let busy = json!({ "client_id": "stranger", "prompt": slow(1, 0.2) }).to_string();
    let there = world.sim(put.backend()).addr();
    let known = world.gateway.shared.fleet.by_name(put.backend()).unwrap();
    for _ in 0..4 {
        assert_eq!(send(there, Method::POST, "/prompt", &[], &busy).await.status, 200);
    }
    until("its queue is known", || 2 <= known.load.queue_remaining()).await;
    let graph = json!({
        "1": { "class_type": "ETN_LoadImageCache", "inputs": { "id": "9b-1_x.2" } },
        "2": { "class_type": "PreviewImage", "inputs": { "images": ["1", 0] } },
    });
    let placed = world.submit("krita", &graph).await;
    let seen = socket.until_end(&placed.prompt_id()).await;
    let ended = seen.contains(&"execution_success".to_owned());
    let mut cases = Cases::default();
    cases.case("krita", (put.backend() == placed.backend(), ended), (true, true));
    cases.end(1);
}

/// A dialogue of reads that a pack's page holds: the count goes on where it was, if waiting there
/// costs one prompt at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialogue_in_steps_goes_on_where_it_began() {
    let mut cases = Cases::default();
    for (name, method, path, more, busy, stays) in [
        ("reads with a session in the query", Method::GET, "/pack/echo?sid=s1", "", 1, true),
        ("the same under /api", Method::GET, "/api/pack/echo?sid=s1", "", 1, true),
        ("a pack that asks with HEAD", Method::HEAD, "/pack/echo?sid=s1", "", 1, true),
        ("a file of its page is none", Method::GET, "/pack/web/echo.js", "", 1, false),
        ("a read of ComfyUI's own is none", Method::GET, "/system_stats", "", 1, false),
        ("too long a wait", Method::GET, "/pack/echo?sid=s1", "", 3, false),
        ("a login of a pack", Method::POST, "/pack/echo?sid=s1", "{}", 3, true),
    ] {
        let world = World::new(2).await;
        world.all_up().await;
        for sim in &world.sims {
            sim.serve("/pack/web/echo.js", &json!({}));
        }
        let headers = [("comfy-client-id", "ada")];
        let first = send(world.front, method.clone(), path, &headers, more).await;
        keep_busy(&world, first.backend(), busy).await;
        let placed = world.submit("ada", &quick(1)).await;
        let second = send(world.front, method, path, &headers, more).await;
        let at = [placed.backend(), second.backend()].map(|it| it == first.backend());
        let found = (first.status, placed.status, at);
        cases.case(name, found, (200, 200, [stays, stays]));
    }
    cases.end(7);
}
