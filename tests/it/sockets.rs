//! Sockets that come, go and come back, and what passes through them.

use std::time::Duration;

use mooring::ws::{Frame, Opcode};
use serde_json::{Value, json};

use crate::support::{World, quick, slow, soon, until};

fn with_output_node(class: &str) -> Value {
    json!({
        "1": { "class_type": "EmptyImage",
               "inputs": { "width": 8, "height": 8, "batch_size": 1, "color": 255 } },
        "2": { "class_type": class, "inputs": { "image": ["1", 0], "images": ["1", 0] } },
        "3": { "class_type": "SaveImage",
               "inputs": { "images": ["1", 0], "filename_prefix": "test" } },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_cut_in_the_middle_of_a_prompt_is_told_what_it_missed() {
    let world = World::new(2).await;
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(10, 0.3)).await.prompt_id();
    socket.until("progress").await;
    socket.cut();
    let mut back = world.socket("ada").await;
    let first = back.event().await;
    assert_eq!(first["data"]["sid"], "ada");
    assert_eq!(first["data"]["status"]["exec_info"]["queue_remaining"], 1);
    let seen = back.until_end(&prompt).await;
    assert_eq!(seen[..2], ["execution_start", "execution_cached"]);
    assert!(seen.contains(&"executed".to_owned()), "{seen:?}");
    let starts = seen.iter().filter(|it| *it == "execution_start").count();
    assert_eq!(starts, 1, "nothing is told twice on one socket");
    assert!(world.sims.iter().all(|sim| sim.sids().iter().filter(|it| *it == "ada").count() < 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_connects_after_its_prompt_has_ended_is_told_the_end() {
    let world = World::new(1).await;
    let prompt = world.submit("late", &quick(1)).await.prompt_id();
    let sim = world.sim("a");
    until("the prompt has ended", || sim.ledger().finished.contains(&prompt)).await;
    let mut socket = world.socket("late").await;
    let seen = socket.until_end(&prompt).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
    assert!(seen.contains(&"executed".to_owned()), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sockets_of_one_client_both_get_every_event() {
    let world = World::new(1).await;
    let mut one = world.socket("ada").await;
    let mut two = world.socket("ada").await;
    // One that is there a little later is told less of what is over: progress has newer values.
    for socket in [&mut one, &mut two] {
        socket.until("status").await;
    }
    let prompt = world.submit("ada", &slow(2, 0.02)).await.prompt_id();
    assert_eq!(one.until_end(&prompt).await, two.until_end(&prompt).await);
    assert_eq!(world.sim("a").sids().iter().filter(|sid| *sid == "ada").count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_prompts_are_counted_and_those_of_others_say_nothing() {
    let world = World::new(1).await;
    let mut ada = world.socket("ada").await;
    let mut bob = world.socket("bob").await;
    bob.until("status").await;
    let prompt = world.submit("ada", &slow(2, 0.02)).await.prompt_id();
    let mut counts = Vec::new();
    loop {
        let event = ada.event().await;
        if event["type"] == "status" {
            counts.push(event["data"]["status"]["exec_info"]["queue_remaining"].as_u64().unwrap());
        }
        if event["data"]["prompt_id"] == prompt.as_str()
            && event["data"]["node"].is_null()
            && event["type"] == "executing"
        {
            break;
        }
    }
    assert!(counts[1..].iter().all(|count| *count == 1), "never 0 while pending: {counts:?}");
    let after = ada.until("status").await;
    assert_eq!(after["data"]["status"]["exec_info"]["queue_remaining"], 0);
    let own = world.submit("bob", &quick(2)).await.prompt_id();
    let next = bob.event().await;
    assert_eq!(next["data"]["status"]["exec_info"]["queue_remaining"], 1, "its first is its own");
    bob.until_end(&own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_frames_that_nobody_knows_pass_untouched() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    // What is not kept reaches those who are there.
    socket.until("status").await;
    world.submit("ada", &with_output_node("SimBroadcast")).await.prompt_id();
    let custom = socket.until("sim.broadcast").await;
    assert_eq!(custom["data"]["from"], "a");
    soon("the unknown frame", async {
        loop {
            let frame = socket.frame().await.unwrap();
            if frame.opcode == Opcode::Binary && frame.payload[..4] == [0, 0, 0, 0x63] {
                assert_eq!(&frame.payload[4..], b"unknown");
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_node_does_not_end_its_prompt() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    let mut graph = with_output_node("SimBlock");
    graph["3"]["inputs"]["images"] = json!(["2", 0]);
    let prompt = world.submit("ada", &graph).await.prompt_id();
    let seen = socket.until_end(&prompt).await;
    let blocked = seen.iter().position(|it| it == "execution_error").unwrap();
    let success = seen.iter().position(|it| it == "execution_success").unwrap();
    assert!(blocked < success, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pictures_that_exist_only_on_the_socket_are_replayed() {
    let world = World::new(1).await;
    let prompt = world.submit("ada", &with_output_node("SaveImageWebsocket")).await.prompt_id();
    let sim = world.sim("a");
    until("the prompt has ended", || sim.ledger().finished.contains(&prompt)).await;
    let mut socket = world.socket("ada").await;
    soon("the picture", async {
        loop {
            let frame = socket.frame().await.unwrap();
            if frame.opcode == Opcode::Binary {
                assert_eq!(frame.payload[..8], [0, 0, 0, 1, 0, 0, 0, 2], "a plain PNG");
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_above_the_limit_closes_its_socket_and_not_the_link() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(10, 0.3)).await.prompt_id();
    socket.until("execution_start").await;
    socket.send(Frame::text("x".repeat((4 << 20) + 1))).await;
    let mut code = None;
    while let Some(frame) = socket.frame().await {
        code = frame.close_reason().map(|(code, _)| code).or(code);
    }
    assert_eq!(code, Some(1009));
    assert!(world.sim("a").sids().contains(&"ada".to_owned()), "the link is still there");
    let mut back = world.socket("ada").await;
    back.until_end(&prompt).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_client_without_features_gets_a_sign_of_life() {
    let world = World::with(1, |config| {
        config.sockets.alive_after = Duration::from_millis(50);
    })
    .await;
    let mut plain = world.socket("sdk").await;
    plain.until("mooring.alive").await;
    let mut page = world.socket("page").await;
    page.say(r#"{"type":"feature_flags","data":{}}"#).await;
    page.until("feature_flags").await;
    plain.until("mooring.alive").await;
    plain.until("mooring.alive").await;
    world.submit("page", &quick(3)).await.prompt_id();
    let next = page.event().await;
    assert_ne!(next["type"], "mooring.alive", "the page would log it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_leaves_takes_the_link_with_it_only_after_a_while() {
    let world = World::with(1, |config| {
        config.affinity.link_linger = Duration::from_millis(200);
    })
    .await;
    let socket = world.socket("ada").await;
    let sim = world.sim("a");
    until("the link is open", || sim.sids().contains(&"ada".to_owned())).await;
    socket.close().await;
    assert!(sim.sids().contains(&"ada".to_owned()), "it stays a while");
    until("the link is closed", || !sim.sids().contains(&"ada".to_owned())).await;
}

/// Nobody learns the id of such a client. Who named one may submit again, on the same link.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_prompt_that_named_no_client_takes_its_link_with_it() {
    let world = World::with(1, |config| {
        config.affinity.link_linger = Duration::from_secs(3_600);
    })
    .await;
    let sim = world.sim("a");
    // A backend also has a socket of the gateway itself.
    until("its own is open", || !sim.sids().is_empty()).await;
    let own = sim.sids();
    let broken = json!({ "3": { "class_type": "NoSuchNode", "inputs": {} } });
    for _ in 0..2 {
        assert_eq!(world.submit("script", &broken).await.status, 400);
    }
    let nameless = json!({ "prompt": broken }).to_string();
    assert_eq!(world.post("/prompt", &nameless).await.status, 400);
    let seen = sim.requests();
    let dials = seen.iter().filter(|seen| seen.target == "/ws?clientId=script").count();
    assert_eq!(dials, 1, "no prompt is sent before its link is open, and the script keeps its own");
    let others = || sim.sids().into_iter().filter(|sid| !own.contains(sid)).collect::<Vec<_>>();
    until("the link of the nameless is closed", || others() == ["script"]).await;
}

/// What comes in one piece is heard whole, though nothing more follows that would wake anybody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_a_browser_sends_at_once_are_all_heard() {
    let world = World::new(1).await;
    let mut channel = world.socket("ada").await.into_channel();
    for frame in [Frame::text("{}"), Frame::text("{}"), Frame::close(1000, "")] {
        channel.start_send(frame).unwrap();
    }
    std::future::poll_fn(|cx| channel.poll_flush(cx)).await.unwrap();
    soon("the close is answered", async { while let Some(Ok(_)) = channel.next().await {} }).await;
    until("its place is free", || world.gateway.shared.metrics.sockets.get() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_is_told_a_clients_name_as_it_is() {
    let world = World::new(1).await;
    let _socket = world.socket("my_tab-1.2~x").await;
    let has_dialled = || {
        let requests = world.sim("a").requests();
        requests.iter().any(|seen| seen.target == "/ws?clientId=my_tab-1.2~x")
    };
    until("the link is dialled under that name", has_dialled).await;
}
