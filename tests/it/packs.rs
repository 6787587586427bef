//! Routes of node packs, where a server may remember who used them (promises B3 and B4).

use http::Method;
use serde_json::json;

use crate::support::{World, quick, send, slow, until};

/// Two backends with a pack.
async fn world() -> World {
    let world = World::new(2).await;
    world.all_up().await;
    for sim in &world.sims {
        sim.serve("/pack/picture/7", &json!({ "ok": true }));
        sim.serve("/pack/echo", &json!({ "from": sim.name() }));
        sim.serve("/pack/web/main.js", &json!({}));
    }
    world
}

/// Work that is not ours.
async fn keep_busy(world: &World, backend: &str, prompts: u32) {
    let body = json!({ "client_id": "stranger", "prompt": slow(50, 600.0) }).to_string();
    let headers = [("content-type", "application/json")];
    for _ in 0..prompts {
        let sim = world.sim(backend).addr();
        let answer = send(sim, Method::POST, "/prompt", &headers, &body).await;
        assert_eq!(answer.status, 200);
    }
    let known = world.gateway.shared.fleet.by_name(backend).unwrap();
    until("its queue is known", || prompts <= known.load.queue_remaining()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_for_a_route_that_nobody_knows_reserves_its_backend() {
    for (number, (method, path)) in [
        (Method::PUT, "/api/pack/picture/7"),
        (Method::POST, "/pack/picture/7"),
        (Method::PATCH, "/pack/picture/7"),
    ]
    .into_iter()
    .enumerate()
    {
        let world = world().await;
        let client = format!("painter{number}");
        let _socket = world.socket(&client).await;
        let headers = [("comfy-client-id", client.as_str())];
        let put = send(world.front, method, path, &headers, "a picture").await;
        assert_eq!(put.status, 200);
        keep_busy(&world, put.backend(), 3).await;
        let answer = world.submit(&client, &quick(1)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("mooring-placement"), "reserved");
        assert_eq!(answer.backend(), put.backend());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_page_itself_sends_reserves_nothing() {
    let world = world().await;
    let headers = [("comfy-client-id", "ada"), ("content-type", "application/json")];
    let bound = world.get("/system_stats?clientId=ada").await.backend().to_owned();
    let sends = [
        (Method::POST, "/api/settings", "{}"),
        (Method::POST, "/api/userdata/a.json", "{}"),
        (Method::POST, "/api/history", "{\"clear\": true}"),
        (Method::PATCH, "/internal/logs/subscribe", "{\"enabled\": true, \"clientId\": \"ada\"}"),
        // A body that is none, and a read.
        (Method::POST, "/pack/picture/7", ""),
        (Method::GET, "/pack/web/main.js", ""),
    ];
    for (method, path, body) in sends {
        send(world.front, method, path, &headers, body).await;
    }
    keep_busy(&world, &bound, 3).await;
    let answer = world.submit("ada", &quick(1)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_ne!(answer.backend(), bound, "it goes where there is room");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialogue_with_a_pack_goes_on_where_it_was_within_a_margin() {
    let world = world().await;
    let echo = async |client: &str| {
        let path = format!("/pack/echo?sid=1&clientId={client}");
        let headers = [("comfy-client-id", client)];
        send(world.front, Method::GET, &path, &headers, "").await.backend().to_owned()
    };
    let at = echo("ada").await;
    keep_busy(&world, &at, 1).await;
    assert_eq!(world.submit("ada", &quick(1)).await.backend(), at, "one prompt longer is near");
    assert_eq!(echo("ada").await, at);
    let eve = world.get("/system_stats?clientId=eve").await;
    assert_eq!(eve.status, 200);
    keep_busy(&world, &at, 3).await;
    let bob = echo("bob").await;
    if bob == at {
        assert_ne!(world.submit("bob", &quick(1)).await.backend(), at, "three are not");
    }
}
