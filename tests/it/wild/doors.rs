//! Servers that are half dead: their open sockets say that all is well.

use std::time::Duration;

use http::Method;
use mooring::sim::Listening;
use serde_json::json;

use super::Cases;
use crate::support::{World, quick, send, slow, soon, until};

/// Backend `a` with the shorter queue, and `b`.
async fn world() -> World {
    let world = World::with(2, |config| {
        config.fleet.dial_interval = Duration::from_millis(50);
        config.fleet.probe_interval = Duration::from_millis(50);
        config.fleet.probe_timeout = Duration::from_millis(300);
        config.prompts.link_timeout = Duration::from_millis(500);
    })
    .await;
    world.all_up().await;
    let body = json!({ "client_id": "stranger", "prompt": slow(50, 600.0) }).to_string();
    let headers = [("content-type", "application/json")];
    let busy = send(world.sim("b").addr(), Method::POST, "/prompt", &headers, &body).await;
    assert_eq!(busy.status, 200);
    let b = world.gateway.shared.fleet.by_name("b").unwrap();
    until("its queue is known", || 0 < b.load.queue_remaining()).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_nothing_new_gets_nothing_new() {
    let mut cases = Cases::default();
    for (name, listening, by_upload) in [
        ("Windows: accept failed", Listening::Closed, false),
        ("an event loop that is stuck in accept", Listening::Deaf, false),
        ("an upload there", Listening::Closed, true),
    ] {
        let world = world().await;
        let before = world.submit("first", &quick(1)).await.backend().to_owned();
        world.sim("a").set_faults(|faults| faults.listening = listening);
        let a = world.gateway.shared.fleet.by_name("a").unwrap();
        until("it is seen", || a.breaker.is_tripped() || !a.is_up()).await;
        let mut placed = Vec::new();
        for client in ["x", "y"] {
            if by_upload {
                let picture = crate::pictures::png(crate::pictures::RED);
                let name = format!("{client}.png");
                let up = crate::pictures::upload(&world, Some(client), &name, &picture).await;
                placed.push((up.status, up.backend().to_owned()));
            } else {
                let answer = world.submit(client, &quick(2)).await;
                placed.push((answer.status, answer.backend().to_owned()));
            }
        }
        world.sim("a").set_faults(|faults| faults.listening = Listening::Open);
        until("it is seen to listen again", || !a.breaker.is_tripped() && a.is_up()).await;
        let after = world.submit("last", &quick(3)).await.backend().to_owned();
        let elsewhere = vec![(200, "b".to_owned()); 2];
        let right = ("a".to_owned(), elsewhere, "a".to_owned());
        cases.case(name, (before, placed, after), right);
    }
    cases.end(3);
}

/// What holds there goes on: its socket is open, and so are its answers told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_on_a_half_dead_server_is_told_to_its_end() {
    let world = world().await;
    let mut socket = world.socket("ada").await;
    let answer = world.submit("ada", &slow(3, 1.0)).await;
    let prompt = answer.prompt_id();
    socket.until("progress").await;
    world.sim("a").set_faults(|faults| faults.listening = Listening::Closed);
    let seen = soon("its end", socket.until_end(&prompt)).await;
    let mut cases = Cases::default();
    let ended = seen.contains(&"execution_success".to_owned());
    cases.case("what runs there", (answer.backend().to_owned(), ended), ("a".to_owned(), true));
    cases.end(1);
}
