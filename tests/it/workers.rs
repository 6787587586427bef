//! Workers that die, and such as are only silent (promise P9).

use std::time::Duration;

use mooring::config::Config;
use mooring::routing::pending::{End, Loss};
use mooring::routing::placement::Condition;
use mooring::sim::WorkerDies;
use serde_json::json;

use crate::support::{World, quick, send, slow, until};

fn impatient(config: &mut Config) {
    config.fleet.start_limit = Duration::from_secs(1);
    config.fleet.grace = Duration::from_millis(500);
}

fn condition(world: &World, name: &str) -> Condition {
    let backend = world.gateway.shared.fleet.by_name(name).unwrap();
    backend.view(mooring::net::now()).condition
}

async fn trouble(world: &World, name: &str) -> String {
    let report = world.admin_get("/api/v1/backends").await.json();
    let backends = report["backends"].as_array().unwrap();
    let of = backends.iter().find(|it| it["name"] == name).unwrap();
    of["trouble"].as_str().unwrap_or_default().to_owned()
}

/// A graph that kills the worker does so between its start and what of it is cached. The server
/// answers everything, and runs nothing any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_at_a_start_is_found_and_given_back_by_a_restart() {
    let world = World::with(2, impatient).await;
    for sim in &world.sims {
        sim.set_faults(|faults| faults.worker_dies = WorkerDies::AtAStart);
    }
    let mut socket = world.socket("ada").await;
    let killed = world.submit("ada", &quick(1)).await;
    let (home, prompt) = (killed.backend().to_owned(), killed.prompt_id());
    let other = if home == "a" { "b" } else { "a" };
    world.sim(other).set_faults(|faults| faults.worker_dies = WorkerDies::Never);
    socket.until("execution_start").await;
    let waits = world.submit("ada", &quick(2)).await.prompt_id();
    until("it is found", || condition(&world, &home) == Condition::Wedged).await;
    for prompt in [&prompt, &waits] {
        let seen = socket.until_end(prompt).await;
        assert!(seen.contains(&"execution_error".to_owned()), "{seen:?}");
    }
    let lost = End::Lost(Loss::BackendWedged);
    assert_eq!(world.gateway.shared.metrics.prompts_ended(lost), 2);
    assert!(trouble(&world, &home).await.starts_with("wedged for "));
    let metrics = world.admin_get("/metrics").await.text();
    let wedged = format!("mooring_backend_wedged{{backend=\"{home}\"}} 1");
    assert!(metrics.contains(&wedged), "{metrics}");
    let ready = world.admin_get("/readyz").await.json();
    let backends = ready["backends"].as_array().unwrap();
    let of = backends.iter().find(|it| it["name"] == home.as_str()).unwrap();
    assert_eq!((&of["up"], &of["takes_work"]), (&json!(true), &json!(false)), "{ready}");
    // Released, and everybody else goes to the other.
    for client in ["ada", "bob", "cyd", "dan"] {
        let placed = world.submit(client, &quick(3)).await;
        assert_eq!((placed.status, placed.backend()), (200, other));
    }
    world.sim(&home).set_faults(|faults| faults.worker_dies = WorkerDies::Never);
    world.sim(&home).crash().await;
    world.is_gone(&home).await;
    world.sim(&home).restart().await.unwrap();
    world.all_up().await;
    until("it is given back", || condition(&world, &home) == Condition::Well).await;
    world.admin_post(&format!("/api/v1/backends/{other}/state"), r#"{"state":"draining"}"#).await;
    assert_eq!(world.submit("new", &quick(4)).await.backend(), home);
}

/// A worker that dies between two prompts leaves a queue of which nothing runs. While its clients
/// wait for the grace to pass, what they submit there is refused and not thrown after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_which_nothing_runs_is_found_whoever_filled_it() {
    let world = World::with(1, |config| {
        impatient(config);
        config.fleet.grace = Duration::from_secs(3600);
    })
    .await;
    let sim = world.sim("a");
    sim.set_faults(|faults| faults.worker_dies = WorkerDies::BetweenPrompts);
    let body = json!({ "client_id": "direct", "prompt": quick(1) }).to_string();
    let direct = send(sim.addr(), http::Method::POST, "/prompt", &[], &body).await;
    assert_eq!(direct.status, 200);
    let _waits = world.submit("ada", &quick(2)).await.prompt_id();
    until("it is found", || condition(&world, "a") == Condition::Wedged).await;
    let refused = world.submit("ada", &quick(3)).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "backend_wedged"));
    let refused = world.submit("bob", &quick(3)).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "no_backend"));
    assert_eq!(world.get("/object_info?clientId=ada").await.status, 200, "reads go on");
    // It lives after all: what it does takes it back.
    sim.set_faults(|faults| faults.worker_dies = WorkerDies::Never);
    until("it is given back", || condition(&world, "a") == Condition::Well).await;
    let mut socket = world.socket("ada").await;
    let next = world.submit("ada", &quick(4)).await.prompt_id();
    socket.until_end(&next).await;
}

/// A node may be silent for minutes, and what others run there is never heard at all: new work goes
/// elsewhere while there is an elsewhere, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_silent_is_suspect_and_never_lost() {
    let world = World::with(2, |config| {
        impatient(config);
        config.fleet.suspect_after = Duration::from_secs(6);
    })
    .await;
    let mut socket = world.socket("ada").await;
    let silent = world.submit("ada", &slow(1, 9.0)).await;
    let (home, prompt) = (silent.backend().to_owned(), silent.prompt_id());
    let other = if home == "a" { "b" } else { "a" };
    let body = json!({ "client_id": "direct", "prompt": slow(1, 9.0) }).to_string();
    let direct = send(world.sim(other).addr(), http::Method::POST, "/prompt", &[], &body).await;
    assert_eq!(direct.status, 200);
    until("it is suspect", || condition(&world, &home) == Condition::Suspect).await;
    assert!(trouble(&world, &home).await.starts_with("suspect: "));
    assert_eq!(condition(&world, other), Condition::Well, "what others run says nothing to us");
    for client in ["x", "y", "z"] {
        assert_eq!(world.submit(client, &quick(1)).await.backend(), other, "though it is busier");
    }
    let seen = socket.until_end(&prompt).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
    until("it is well again", || condition(&world, &home) == Condition::Well).await;
}

/// Where the operator says that nothing is silent for so long, it is wedged, until it speaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_counts_where_the_operator_says_so_and_a_later_event_takes_it_back() {
    let world = World::with(1, |config| {
        config.fleet.silent_limit = Duration::from_secs(6);
    })
    .await;
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(1, 8.0)).await.prompt_id();
    until("it is found", || condition(&world, "a") == Condition::Wedged).await;
    assert!(trouble(&world, "a").await.contains("fleet.silent_limit"));
    let seen = socket.until_end(&prompt).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
    until("it is given back", || condition(&world, "a") == Condition::Well).await;
    assert_eq!(world.submit("bob", &quick(1)).await.status, 200);
}

/// Whoever waits for a job is told within seconds that its server is gone, by name; and in the end
/// where it was, with a node that the page can show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_told_that_their_server_is_gone_and_what_was_lost_with_it() {
    let world = World::with(1, |config| config.fleet.grace = Duration::from_secs(4)).await;
    let mut page = world.socket("ada").await;
    page.say(r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#).await;
    let mut script = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(100, 60.0)).await.prompt_id();
    page.until("progress").await;
    world.sim("a").crash().await;
    let notice = page.until("mooring.notice").await;
    let text = notice["data"]["message"].as_str().unwrap();
    assert_eq!(text, "a does not answer. Your job is kept for up to 4s.");
    let mut late = world.socket("ada").await;
    late.say(r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#).await;
    late.until("mooring.notice").await;
    let lost = page.until("execution_error").await["data"].clone();
    assert_eq!((&lost["node_id"], &lost["node_type"]), (&json!("2"), &json!("SlowSteps")));
    let text = lost["exception_message"].as_str().unwrap();
    assert!(text.contains("It was at SlowSteps (node 2)."), "{text}");
    assert_eq!(text.matches("lost").count(), 1, "said once: {text}");
    page.until_end(&prompt).await;
    loop {
        let event = script.event().await;
        assert_ne!(event["type"], "mooring.notice", "scripts know nothing of it");
        if event["type"] == "execution_error" {
            break;
        }
    }
}
