//! What an operator says of a backend: it counts everywhere, and readiness says what is left.

use mooring::config::Config;

use crate::support::{World, quick};

fn home_is_a(config: &mut Config) {
    "a".clone_into(&mut config.server.home);
    // What is read is read there, and not from a copy.
    config.server.stale_cache = 0;
}

async fn set(world: &World, backend: &str, body: &str) {
    let answer = world.admin_post(&format!("/api/v1/backends/{backend}/state"), body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Whoever routes traffic here must not do so while every prompt is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_counts_what_takes_work() {
    let world = World::new(2).await;
    world.all_up().await;
    let ready = async || world.admin_get("/readyz").await;
    let first = ready().await;
    assert_eq!((first.status, &first.json()["backends_taking_work"]), (200, &2.into()));
    for (said, up) in [("draining", 2), ("off", 1)] {
        set(&world, "a", &format!(r#"{{"state":"{said}"}}"#)).await;
        let one = ready().await;
        assert_eq!((one.status, &one.json()["backends_taking_work"]), (200, &1.into()));
        set(&world, "b", r#"{"state":"draining"}"#).await;
        let none = ready().await;
        assert_eq!(none.status, 503, "every prompt is refused: {}", none.text());
        assert_eq!(none.json()["backends_up"], up, "and yet they are up");
        assert_eq!(none.json()["backends"][0]["takes_work"], false);
        assert_eq!(world.submit("ada", &quick(1)).await.status, 503);
        set(&world, "b", r#"{"state":"ready"}"#).await;
    }
    world.sim("b").crash().await;
    world.is_down("b").await;
    assert_eq!(ready().await.status, 503, "the other is off");
}

/// Off is off on both ways of answering, for what is everyone's and for what lies there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_off_serves_nothing_whoever_asks() {
    let world = World::with(2, home_is_a).await;
    world.all_up().await;
    set(&world, "b", r#"{"state":"draining"}"#).await;
    let made = world.submit("ada", &quick(7)).await;
    assert_eq!(made.backend(), "a");
    let mut socket = world.socket("ada").await;
    socket.until("status").await;
    let prompt = made.prompt_id();
    let history = async || world.get(&format!("/history/{prompt}?clientId=ada")).await;
    while history().await.json()[&prompt].is_null() {}
    let file = history().await.json()[&prompt]["outputs"]["3"]["images"][0]["filename"].clone();
    let view = format!("/view?filename={}&type=output", file.as_str().unwrap());
    assert_eq!(world.get(&view).await.status, 200);
    set(&world, "b", r#"{"state":"ready"}"#).await;
    set(&world, "a", r#"{"state":"off","force":true}"#).await;
    let asked_before = world.sim("a").requests().len();
    for path in ["/", "/settings", "/api/userdata?dir=workflows", "/object_info", &view] {
        for who in ["", "ada"] {
            let path = if who.is_empty() {
                path.to_owned()
            } else {
                format!("{path}{}clientId={who}", if path.contains('?') { '&' } else { '?' })
            };
            let answer = world.get(&path).await;
            let is_off = answer.status == 503 && answer.header("mooring-error") == "backend_off";
            let is_elsewhere = answer.backend() == "b";
            assert!(is_off || is_elsewhere, "{path}: {} {}", answer.status, answer.text());
        }
    }
    let asked = world.sim("a").requests();
    let by_us = |target: &str| target == "/prompt" || target.starts_with("/system_stats");
    let others: Vec<&String> = asked[asked_before..]
        .iter()
        .map(|seen| &seen.target)
        .filter(|target| !by_us(target) && !target.starts_with("/ws"))
        .collect();
    assert!(others.is_empty(), "nothing is said to it: {others:?}");
}

/// Who, when and why stand wherever the state does (V5).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_word_is_shown_with_who_and_why() {
    let world = World::new(1).await;
    let said = async || world.admin_get("/api/v1/backends").await.json()["backends"][0].clone();
    assert!(said().await["said"].is_null(), "nobody said anything");
    set(&world, "a", r#"{"state":"draining","by":"ada","why":"new fan"}"#).await;
    let report = said().await;
    assert_eq!(report["state"], "draining");
    assert_eq!(
        (&report["said"]["by"], &report["said"]["why"]),
        (&"ada (127.0.0.1)".into(), &"new fan".into())
    );
    assert!(report["said"]["ago_ms"].as_u64().unwrap() < 60_000);
    let ready = world.admin_get("/readyz").await.json();
    assert_eq!(ready["backends"][0]["said"]["why"], "new fan");
    for bad in [r#"{"state":"off","why":"a\nb"}"#, r#"{"state":"off","by":7}"#] {
        let answer = world.admin_post("/api/v1/backends/a/state", bad).await;
        assert!((400..500).contains(&answer.status), "{bad}: {}", answer.text());
    }
    assert_eq!(said().await["state"], "draining", "a word that is refused changes nothing");
}
