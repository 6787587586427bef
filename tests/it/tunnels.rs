//! Sockets of node packs: checked like any request, passed through like no other.

use std::time::Duration;

use mooring::net::now;
use mooring::ws::{Frame, Opcode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Socket, World, network, quick, slow, soon, until};

const ECHO: &str = "/tunnelled/echo";

/// A handshake for this target, with these lines more.
fn handshake(target: &str, lines: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    )
}

/// Sends bytes, and reads until `enough` or the end.
async fn raw(world: &World, bytes: &str, enough: &str) -> String {
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    let mut stream = network().connect(&host, port).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
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

async fn open(world: &World, target: &str) -> Socket {
    Socket::open(world.front, target).await
}

/// What the pack says first: who it is, and what it was asked with.
async fn first(socket: &mut Socket) -> (String, String) {
    let said = socket.event().await;
    let text = |name: &str| said[name].as_str().unwrap().to_owned();
    (text("server"), text("target"))
}

async fn close_code(socket: &mut Socket) -> Option<u16> {
    let mut code = None;
    while let Some(frame) = socket.frame().await {
        code = frame.close_reason().map(|(code, _)| code).or(code);
    }
    code
}

fn refusal(answer: &str) -> (&str, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_packs_socket_is_passed_through_to_its_clients_backend() {
    let world = World::new(2).await;
    world.all_up().await;
    for client in ["ada", "bob", "cy", "di"] {
        let bound = world.get(&format!("/object_info?clientId={client}")).await;
        for prefix in ["", "/api"] {
            let target = format!("{prefix}{ECHO}?EIO=4&mooring_client={client}&t=%2f");
            let mut socket = open(&world, &target).await;
            let (server, seen) = first(&mut socket).await;
            assert_eq!(server, bound.backend());
            assert_eq!(seen, format!("{prefix}{ECHO}?EIO=4&t=%2f"), "our word is taken off");
            socket.say("2probe").await;
            socket.send(Frame::binary(vec![7; 100_000])).await;
            assert_eq!(socket.frame().await.unwrap().as_text(), "2probe");
            let binary = socket.frame().await.unwrap();
            assert_eq!((binary.opcode, binary.payload.len()), (Opcode::Binary, 100_000));
            socket.close().await;
        }
    }
    let opened = world.gateway.shared.metrics.tunnels_opened.get();
    assert_eq!(opened, 8);
    until("all are closed", || world.gateway.shared.metrics.tunnels.get() == 0).await;
    until("and their places free", || world.gateway.sessions.tunnels.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packs_own_client_id_names_no_client() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut socket = open(&world, &format!("{ECHO}?clientId=x")).await;
    assert_eq!(first(&mut socket).await.1, format!("{ECHO}?clientId=x"), "it is the pack's");
    world.get("/pack/route?clientId=x").await;
    assert!(world.gateway.sessions.clients.is_empty(), "nobody was made");
    world.get("/object_info?clientId=x").await;
    assert_eq!(world.gateway.sessions.clients.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_passes_the_checks_of_every_request() {
    let world = World::new(1).await;
    world.all_up().await;
    let end = "\r\n\r\n{";
    for (target, lines, status, code) in [
        (ECHO, "Origin: https://evil.example\r\n", "403", "foreign_origin"),
        ("/manager/reboot", "", "403", "operators_only"),
        ("/ws/", "", "404", "not_found"),
        ("//ws", "", "403", "operators_only"),
        ("/API/WS", "", "403", "operators_only"),
        ("/x/../ws", "", "403", "operators_only"),
        ("/api/%2577s", "", "403", "operators_only"),
        (ECHO, "Content-Length: 3\r\n", "400", "malformed_request"),
        (ECHO, "Transfer-Encoding: chunked\r\n", "400", "malformed_request"),
        ("/tunnelled/liar", "", "502", "bad_upgrade"),
    ] {
        let answer = raw(&world, &handshake(target, lines), "node_errors").await;
        let (found, body) = refusal(&answer);
        assert_eq!(
            (found, body["error"]["type"].as_str()),
            (status, Some(code)),
            "{target} {answer}"
        );
        assert!(answer.contains(end), "{answer}");
    }
    let short = handshake(ECHO, "").replace("dGhlIHNhbXBsZSBub25jZQ==", "short");
    assert_eq!(refusal(&raw(&world, &short, "node_errors").await).0, "400");
    let old = handshake(ECHO, "").replace("Version: 13", "Version: 8");
    let answer = raw(&world, &old, "node_errors").await;
    assert!(answer.contains("sec-websocket-version: 13"), "{answer}");
    assert!(world.gateway.sessions.tunnels.is_empty());
    let ours = raw(&world, &handshake("/%77s?clientId=ada", ""), "sid").await;
    assert!(ours.contains("\"sid\": \"ada\"") || ours.contains("\"sid\":\"ada\""), "{ours}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_upgrades_are_dropped_and_other_answers_are_ordinary_ones() {
    let world = World::new(1).await;
    world.all_up().await;
    let ordinary = [
        handshake(ECHO, "").replace("Upgrade: websocket", "Upgrade: h2c"),
        handshake(ECHO, "").replace("Connection: Upgrade", "Connection: keep-alive"),
        handshake(ECHO, "").replace("HTTP/1.1", "HTTP/1.0"),
    ];
    for request in ordinary {
        let answer = raw(&world, &request, "to \"WebSocket\".").await;
        assert!(
            answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"),
            "{answer}"
        );
    }
    let seen = world.sim("a").requests();
    let seen = seen.iter().filter(|it| it.target == ECHO);
    assert!(
        seen.clone().count() == 3 && seen.clone().all(|it| !it.headers.contains_key("upgrade"))
    );
    // Not a socket: the connection ends, and what follows on it is nobody's.
    let two = handshake("/tunnelled/none", "") + "GET /-/whoami HTTP/1.1\r\nHost: gw\r\n\r\n";
    let answers = raw(&world, &two, "\"known\"").await.to_lowercase();
    assert!(answers.starts_with("http/1.1 200") && answers.contains("no socket here"), "{answers}");
    assert_eq!(answers.matches("http/1.1 200").count(), 1, "{answers}");
    assert!(answers.contains("connection: close"), "{answers}");
    assert_eq!(world.gateway.shared.metrics.tunnels_opened.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_sockets_are_passed_through_than_may_be() {
    let world = World::with(1, |config| {
        (config.sockets.max_tunnels, config.sockets.max_tunnels_per_client) = (2, 1);
    })
    .await;
    world.all_up().await;
    let of = |client: &str| format!("{ECHO}?mooring_client={client}");
    let ada = open(&world, &of("ada")).await;
    let answer = raw(&world, &handshake(&of("ada"), ""), "node_errors").await;
    assert_eq!(refusal(&answer).1["error"]["type"], "too_many_tunnels", "{answer}");
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 5"), "{answer}");
    let _bob = open(&world, &of("bob")).await;
    let answer = raw(&world, &handshake(&of("cy"), ""), "node_errors").await;
    assert_eq!(refusal(&answer).1["error"]["type"], "tunnels_full", "{answer}");
    ada.cut();
    until("her place is free", || world.gateway.sessions.tunnels.len() == 1).await;
    let mut again = open(&world, &of("ada")).await;
    first(&mut again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_holds_no_binding_but_is_a_reason_to_stay() {
    let world = World::new(2).await;
    world.all_up().await;
    let mut socket = open(&world, &format!("{ECHO}?mooring_client=ada")).await;
    let (there, _) = first(&mut socket).await;
    let other = if there == "a" { "b" } else { "a" };
    let load = |name: &str| world.gateway.shared.fleet.by_name(name).unwrap().view(now()).load;
    // One prompt more than elsewhere is as far as she waits for the sake of her socket. A
    // stranger's is put there by his own.
    let mut strangers = Vec::new();
    for number in 0.. {
        assert!(number < 10, "strangers are placed in turn");
        let mut socket = open(&world, &format!("{ECHO}?mooring_client=x{number}")).await;
        let at = first(&mut socket).await.0;
        strangers.push(socket);
        if at == there {
            let placed = world.submit(&format!("x{number}"), &slow(1, 60.0)).await;
            assert_eq!(placed.backend(), there, "of equal ones the one with his socket");
            break;
        }
    }
    until("it is counted once", || (load(&there), load(other)) == (1, 0)).await;
    assert_eq!(world.submit("ada", &quick(1)).await.backend(), there);
    assert_eq!(world.submit("cy", &quick(1)).await.backend(), other, "who has none does not wait");
    assert_eq!(world.gateway.sessions.tunnels.len(), 1 + strangers.len());
    socket.say("still here").await;
    socket.until_text("still here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_closes_tunnels_once_no_client_is_held() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut socket = open(&world, &format!("{ECHO}?mooring_client=ada")).await;
    first(&mut socket).await;
    let mut events = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(2, 2.5)).await.prompt_id();
    let state = world.admin_post("/api/v1/backends/a/state", r#"{"state":"draining"}"#).await;
    assert_eq!(state.status, 200);
    events.until("progress").await;
    socket.say("while it works").await;
    socket.until_text("while it works").await;
    events.until_end(&prompt).await;
    assert_eq!(close_code(&mut socket).await, Some(1001));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_closes_tunnels_and_waits_for_them() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut socket = open(&world, &format!("{ECHO}?mooring_client=ada")).await;
    first(&mut socket).await;
    world.gateway.shared.tasks.stop();
    assert_eq!(close_code(&mut socket).await, Some(1012));
    assert_eq!(world.gateway.shared.tasks.drain(Duration::from_secs(10)).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_answers_no_ping_is_gone_and_one_that_does_stays() {
    let world = World::with(1, |config| {
        config.sockets.ping_interval = Duration::from_millis(200);
    })
    .await;
    world.all_up().await;
    let mut alive = open(&world, &format!("{ECHO}?mooring_client=ada")).await;
    first(&mut alive).await;
    let mute = handshake(ECHO, "");
    let (read, quiet) = tokio::select! {
        read = raw(&world, &mute, "no such end") => (read, true),
        said = alive.frame() => (format!("{said:?}"), false),
    };
    assert!(quiet && read.starts_with("HTTP/1.1 101"), "opened, and then ended: {read}");
    alive.say("here").await;
    alive.until_text("here").await;
}
