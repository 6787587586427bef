//! Frames that name no prompt: texts of nodes, plain pictures, and what no one knows. A backend
//! sends them to every socket, and only one client's prompt runs there.

use std::time::Duration;

use http::Method;
use mooring::sim::{Options, Sim};
use mooring::ws::{Frame, Opcode};
use serde_json::{Value, json};

use crate::support::{Socket, World, network, quick, send, slow, soon, until};

/// The next binary frame.
async fn binary(socket: &mut Socket) -> Frame {
    soon("a binary frame", async {
        loop {
            let frame = socket.frame().await.expect("the socket is open");
            if frame.opcode == Opcode::Binary {
                return frame;
            }
        }
    })
    .await
}

/// Every binary frame up to the event of this type.
async fn binaries_until(socket: &mut Socket, kind: &str) -> Vec<Frame> {
    let mut seen = Vec::new();
    soon(kind, async {
        loop {
            let frame = socket.frame().await.expect("the socket is open");
            if frame.opcode == Opcode::Binary {
                seen.push(frame);
            } else if frame.as_text().contains(&format!("{kind:?}")) {
                return;
            }
        }
    })
    .await;
    seen
}

/// Says a custom event to everybody, behind all that was said before.
fn mark(world: &World, kind: &str) {
    world.sim("a").say(&Frame::text(json!({ "type": kind, "data": {} }).to_string()), None);
}

fn plain(format: u8, bytes: usize) -> Frame {
    let mut frame = vec![0, 0, 0, 1, 0, 0, 0, format];
    frame.resize(8 + bytes, b'x');
    Frame::binary(frame)
}

async fn linked(world: &World, client: &str) {
    let sim = world.sim("a");
    until("the link is open", || sim.sids().contains(&client.to_owned())).await;
}

/// A socket that shows previews by name, as the page does.
async fn page(world: &World, client: &str) -> Socket {
    let mut socket = world.socket(client).await;
    socket.say(r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#).await;
    socket.until("feature_flags").await;
    linked(world, client).await;
    socket
}

fn waiting() -> Value {
    let mut graph = slow(2, 20.0);
    graph["2"]["inputs"]["preview"] = json!(false);
    graph
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_without_a_prompt_reach_only_the_client_whose_prompt_runs() {
    let world = World::new(1).await;
    let (mut ada, mut bob) = (page(&world, "ada").await, page(&world, "bob").await);
    world.sim("a").say_text("7", "nobody works");
    mark(&world, "idle");
    assert_eq!(binaries_until(&mut ada, "idle").await, []);
    world.submit("ada", &waiting()).await.prompt_id();
    // Bob's waits, and so nothing that is said now is his.
    world.submit("bob", &waiting()).await.prompt_id();
    ada.until("executing").await;
    let said = [plain(1, 8), plain(2, 8), Frame::binary(b"\0\0\0\x63unknown".to_vec())];
    world.sim("a").say_text("2", "1024 x 768");
    said.iter().for_each(|frame| world.sim("a").say(frame, None));
    mark(&world, "said");
    let seen = binaries_until(&mut ada, "said").await;
    assert_eq!(seen[0].payload[..], b"\0\0\0\x03\0\0\0\x0121024 x 768"[..]);
    assert_eq!(seen[1..], said);
    assert_eq!(binaries_until(&mut bob, "said").await, [], "another client's");
}

/// What is said after an end is said of the next one's work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_without_a_prompt_are_anothers_once_ones_own_has_ended() {
    let world = World::new(1).await;
    let (mut ada, mut bob) = (page(&world, "ada").await, page(&world, "bob").await);
    let first = world.submit("ada", &quick(1)).await.prompt_id();
    ada.until_end(&first).await;
    world.submit("bob", &waiting()).await.prompt_id();
    bob.until("executing").await;
    world.sim("a").say_text("7", "bob's");
    world.sim("a").say(&plain(2, 8), None);
    mark(&world, "said");
    assert_eq!(binaries_until(&mut bob, "said").await.len(), 2);
    assert_eq!(binaries_until(&mut ada, "said").await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broken_link_was_told_of_no_prompt_waits_until_it_is_known_whose_it_is() {
    let world = World::new(1).await;
    let mut ada = page(&world, "ada").await;
    world.submit("ada", &waiting()).await.prompt_id();
    ada.until("executing").await;
    world.sim("a").say(&Frame::close(1001, ""), Some("ada"));
    // Her link is dialled anew, and the backend asked what it runs.
    let again = async {
        loop {
            world.sim("a").say_text("2", "still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let heard = tokio::select! {
        frame = binary(&mut ada) => frame,
        () = again => return,
    };
    assert!(heard.payload.ends_with(b"still there"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_text_of_each_node_is_told_to_a_socket_that_returns() {
    let world = World::new(1).await;
    let mut ada = page(&world, "ada").await;
    world.submit("ada", &waiting()).await.prompt_id();
    ada.until("executing").await;
    for (node, text) in [("2", "price: 1"), ("9", "other"), ("2", "price: 2")] {
        world.sim("a").say_text(node, text);
    }
    mark(&world, "said");
    assert_eq!(binaries_until(&mut ada, "said").await.len(), 3, "live, all of them");
    ada.cut();
    let mut back = world.socket("ada").await;
    let told = [binary(&mut back).await, binary(&mut back).await];
    assert!(told[0].payload.ends_with(b"9other"), "{told:?}");
    assert!(told[1].payload.ends_with(b"2price: 2"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_picture_of_a_node_that_gives_results_so_is_one_whatever_its_format() {
    let world = World::with(1, |config| {
        config.sockets.output_classes.push("SlowSteps".to_owned());
    })
    .await;
    let mut ada = world.socket("ada").await;
    linked(&world, "ada").await;
    world.submit("ada", &waiting()).await.prompt_id();
    loop {
        if ada.until("executing").await["data"]["node"] == "2" {
            break;
        }
    }
    for bytes in [1, 2, 3] {
        world.sim("a").say(&plain(1, bytes), Some("ada"));
    }
    mark(&world, "said");
    binaries_until(&mut ada, "said").await;
    ada.cut();
    let mut back = world.socket("ada").await;
    for bytes in [1, 2, 3] {
        assert_eq!(binary(&mut back).await, plain(1, bytes), "all are kept, in order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_pictures_of_a_node_reach_a_reader_that_is_busy_and_one_that_returns() {
    const LARGE: usize = 6 << 20;
    let world = World::new(1).await;
    let mut ada = world.socket("ada").await;
    linked(&world, "ada").await;
    world.submit("ada", &waiting()).await.prompt_id();
    ada.until("executing").await;
    // It is there before they are said, so it hears the mark.
    let mut other = world.socket("ada").await;
    for number in 0..4 {
        world.sim("a").say(&plain(2, LARGE + number), Some("ada"));
    }
    mark(&world, "said");
    // The first does not read meanwhile: they are all taken from the backend then.
    other.until("said").await;
    let seen = binaries_until(&mut ada, "said").await;
    let sizes: Vec<usize> = seen.iter().map(|frame| frame.payload.len() - 8).collect();
    assert_eq!(sizes, [LARGE, LARGE + 1, LARGE + 2, LARGE + 3]);
    ada.cut();
    other.cut();
    let mut back = world.socket("ada").await;
    for number in 0..4 {
        assert_eq!(binary(&mut back).await.payload.len(), 8 + LARGE + number);
    }
}

/// What is not read costs so much in all, however many do not read it; who reads is not hurt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_do_not_read_have_a_limit_together() {
    const LARGE: usize = 4 << 20;
    let world = World::with(1, |config| {
        config.sockets.queue_bytes_total = 16 << 20;
        config.sockets.max_per_client = 4;
    })
    .await;
    let mut reader = world.socket("ada").await;
    let mut others = vec![world.socket("ada").await, world.socket("ada").await];
    linked(&world, "ada").await;
    world.submit("ada", &waiting()).await.prompt_id();
    reader.until("executing").await;
    let mut most = 0;
    for number in 0..16 {
        world.sim("a").say(&plain(2, LARGE + number), Some("ada"));
        assert_eq!(binary(&mut reader).await.payload.len(), 8 + LARGE + number);
        most = most.max(world.gateway.sessions.queues.used());
    }
    assert!(most < (16 << 20) + 3 * LARGE, "{most} bytes waited");
    // Those that did not read are given up, and are told so once they do.
    for other in &mut others {
        soon("the end of one that did not read", async { while other.frame().await.is_some() {} })
            .await;
    }
    until("nothing waits", || world.gateway.sessions.queues.used() == 0).await;
    // Who returns is told all of it, however little room there is.
    let mut back = world.socket("ada").await;
    assert!(LARGE < binary(&mut back).await.payload.len());
    let mut sockets = Vec::new();
    for _ in 0..4 {
        let mut socket = world.socket("cyd").await;
        socket.until("status").await;
        sockets.push(socket);
    }
    let opening = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let refused = send(world.front, Method::GET, "/ws?clientId=cyd", &opening, "").await;
    let told = (refused.status, refused.header("mooring-error"), refused.header("retry-after"));
    assert_eq!(told, (429, "too_many_sockets", "5"), "{}", refused.text());
    world.socket("bob").await.until("status").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_scan_for_assets_a_page_hears_only_the_end() {
    let world = World::new(1).await;
    let mut ada = page(&world, "ada").await;
    for kind in ["started", "progress", "enrich_complete", "fast_complete", "completed"] {
        mark(&world, &format!("assets.seed.{kind}"));
    }
    mark(&world, "last");
    let mut heard = Vec::new();
    loop {
        let event = ada.event().await;
        if event["type"] == "last" {
            break;
        }
        heard.push(event["type"].as_str().unwrap().to_owned());
    }
    heard.retain(|kind| kind != "status");
    assert_eq!(heard, ["assets.seed.fast_complete", "assets.seed.completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_came_before_the_first_backend_is_told_its_features_when_it_is_up() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    sim.crash().await;
    let world = World::over(vec![sim], |_| {}).await;
    let mut plain = world.socket("plain").await;
    let mut ada = world.socket("ada").await;
    ada.say(r#"{"type":"feature_flags","data":{}}"#).await;
    let least = ada.until("feature_flags").await["data"].clone();
    assert_eq!(least, world.get("/api/features").await.json(), "the same over HTTP");
    world.sim("a").restart().await.unwrap();
    let told = ada.until("feature_flags").await["data"].clone();
    let own = send(world.sim("a").addr(), Method::GET, "/features", &[], "").await.json();
    assert_ne!(own, least);
    assert_eq!(told, own);
    assert_eq!(world.get("/features").await.json(), own);
    linked(&world, "plain").await;
    mark(&world, "last");
    loop {
        let event = plain.event().await;
        assert_ne!(event["type"], "feature_flags", "nobody who did not ask is told");
        if event["type"] == "last" {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_told_what_all_backends_can_and_more_once_the_old_one_is_off() {
    let mut old = Options::named("a");
    old.version = "0.8.0".to_owned();
    let sims = vec![
        Sim::start(network(), old).await.unwrap(),
        Sim::start(network(), Options::named("b")).await.unwrap(),
    ];
    let new_features = send(sims[1].addr(), Method::GET, "/features", &[], "").await.json();
    let world = World::over(sims, |_| {}).await;
    world.all_up().await;
    let mut ada = world.socket("ada").await;
    ada.say(r#"{"type":"feature_flags","data":{}}"#).await;
    let told = ada.until("feature_flags").await["data"].clone();
    assert!(new_features.get("node_replacements").is_some(), "{new_features}");
    assert!(told.get("node_replacements").is_none(), "the old one cannot: {told}");
    assert_eq!(told["supports_preview_metadata"], true);
    let off = world.admin_post("/api/v1/backends/a/state", r#"{"state":"off"}"#).await;
    assert_eq!(off.status, 200, "{}", off.text());
    assert_eq!(ada.until("feature_flags").await["data"], new_features);
}
