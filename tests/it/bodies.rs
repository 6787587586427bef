//! Bodies of prompts that two JSON parsers could read in two ways, or that are made to break one.

use bytes::Bytes;
use http::Method;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::process::Daemon;
use crate::support::{Answer, World, network, quick, send_bytes, until};

const HUGE: usize = 20 << 20;

async fn post(to: std::net::SocketAddr, body: impl Into<Bytes>) -> Answer {
    let json = [("content-type", "application/json")];
    send_bytes(to, Method::POST, "/prompt", &json, body.into()).await
}

/// A graph that is done at once, among nodes that nothing depends on.
fn huge() -> String {
    let mut graph = quick(0x0033_66cc);
    let nodes = graph.as_object_mut().unwrap();
    let title = "x".repeat(900);
    for number in 0.. {
        let inputs = json!({ "width": 8, "height": 8, "batch_size": 1, "color": number });
        let node = json!({ "class_type": "EmptyImage", "inputs": inputs,
            "_meta": { "title": title } });
        if HUGE <= nodes.len() * node.to_string().len() {
            break;
        }
        nodes.insert(format!("n{number}"), node);
    }
    json!({ "client_id": "ada", "prompt": graph }).to_string()
}

/// T66: a prompt of 20 MB passes, in no more memory than three times its size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_huge_prompt_takes_no_more_than_three_times_its_memory() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&sim, &folder);
    let small = json!({ "client_id": "ada", "prompt": quick(1) }).to_string();
    post(daemon.front, small).await.prompt_id();
    let body = huge();
    let (size, before) = (body.len(), daemon.memory("VmRSS:"));
    let prompt = post(daemon.front, body).await.prompt_id();
    until("it has run", || sim.ledger().finished.contains(&prompt)).await;
    let peak = daemon.memory("VmHWM:");
    assert!(peak - before <= 3 * size, "{before} bytes, then {peak}, for a body of {size}");
    // Nobody asks for anything meanwhile, so nothing but jemalloc's thread gives it back.
    let is_back = || daemon.memory("VmRSS:") <= before + before / 5;
    until("an idle gateway gives the memory back", is_back).await;
}

/// T66: what one parser reads so and another otherwise is read by none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_could_be_read_in_two_ways_reaches_no_backend() {
    let world = World::new(1).await;
    let graph = quick(1);
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    for (body, code) in [
        ("{".to_owned(), "invalid_json"),
        (String::new(), "invalid_json"),
        (format!(r#"{{"client_id": "ada", "prompt": {graph}"#), "invalid_json"),
        (format!(r#"{{"client_id": "ada", "prompt": {graph}}} {{}}"#), "invalid_json"),
        (format!(r#"{{"client_id": "ada", "number": NaN, "prompt": {graph}}}"#), "invalid_json"),
        (format!(r#"{{"client_id": "ada", "x": -Infinity, "prompt": {graph}}}"#), "invalid_json"),
        (
            format!(r#"{{"client_id": "ada", "client_id": "bob", "prompt": {graph}}}"#),
            "duplicate_key",
        ),
        (
            format!(r#"{{"client_id": "ada", "client\u005fid": "bob", "prompt": {graph}}}"#),
            "duplicate_key",
        ),
        (format!(r#"{{"client_id": "ada", "x": 1e999, "prompt": {graph}}}"#), "unsafe_json"),
        (
            format!(r#"{{"client_id": "ada", "x": {}, "prompt": {graph}}}"#, deep(10_000)),
            "invalid_json or unsafe_json",
        ),
        (
            format!(r#"{{"client_id": "ada", "x": {}, "prompt": {graph}}}"#, deep(128)),
            "unsafe_json",
        ),
    ] {
        let answer = post(world.front, body.clone()).await;
        let shown = &body[..body.len().min(80)];
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
        let told: Value = answer.json();
        let kind = told["error"]["type"].as_str().unwrap();
        assert!(code.split(" or ").any(|code| code == kind), "{shown}: {told}");
        assert!(told["node_errors"].is_object(), "in ComfyUI's own shape: {told}");
    }
    let seen = world.sim("a").requests();
    assert!(!seen.iter().any(|it| it.target.ends_with("/prompt") && it.method == "POST"));
    // The parser of the simulated backend takes no more.
    let fine = format!(r#"{{"client_id": "ada", "x": {}, "prompt": {graph}}}"#, deep(126));
    post(world.front, fine).await.prompt_id();
}
