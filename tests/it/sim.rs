//! The simulated ComfyUI misbehaves and shows what real ones do, version by version.

use http::Method;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::support::{Answer, Socket, network, quick, send, until};

const VERSIONS: [&str; 3] = ["0.3.64", "0.8.0", "0.33.0"];

async fn sim_of(version: &str) -> Sim {
    let options = Options { version: version.to_owned(), ..Options::named("sim") };
    Sim::start(network(), options).await.unwrap()
}

async fn get(sim: &Sim, path: &str) -> Answer {
    send(sim.addr(), Method::GET, path, &[], "").await
}

async fn submit(sim: &Sim, graph: &Value) -> Answer {
    let body = json!({ "client_id": "c", "prompt": graph }).to_string();
    send(sim.addr(), Method::POST, "/prompt", &[], &body).await
}

/// A graph that gives a picture, and what else is in it.
fn with(id: &str, node: Value) -> Value {
    let mut graph = quick(7);
    graph[id] = node;
    graph
}

/// A chain of nodes that no output needs.
fn with_chain(length: usize) -> Value {
    let mut graph = quick(7);
    for at in 0..length {
        let from = if at == 0 { "1".to_owned() } else { format!("c{}", at - 1) };
        let inputs = json!({ "image": [from, 0] });
        graph[format!("c{at}")] = json!({ "class_type": "ImageInvert", "inputs": inputs });
    }
    graph
}

/// Its worker is dead with a prompt in its hands, and everything else goes on.
async fn is_wedged(sim: &Sim, holds: &str, says: &str) {
    let after = submit(sim, &quick(8)).await.prompt_id();
    let stats = get(sim, "/system_stats").await;
    assert_eq!(stats.status, 200, "{says}");
    send(sim.addr(), Method::POST, "/interrupt", &[], "").await;
    let queue = get(sim, "/queue").await.json();
    assert_eq!(queue["queue_running"][0][1], holds, "{says}");
    assert_eq!(queue["queue_pending"][0][1], after.as_str(), "{says}");
    assert_eq!(get(sim, &format!("/history/{holds}")).await.json(), json!({}), "{says}");
    sim.restart().await.unwrap();
    let healed = submit(sim, &quick(9)).await.prompt_id();
    until("it works again", || sim.ledger().finished.contains(&healed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulated_worker_dies_of_what_a_real_one_dies_of() {
    let mut nested = json!(1);
    for _ in 0..600 {
        nested = json!([nested]);
    }
    for version in VERSIONS {
        let mut deadly = vec![
            ("no inputs", with("9", json!({ "class_type": "EmptyImage" }))),
            ("a long chain", with_chain(1_500)),
        ];
        if version == "0.33.0" {
            // The replacing of nodes looks at all inputs first, and raises where it is harmless.
            let null = with("9", json!({ "class_type": "EmptyImage", "inputs": null }));
            assert_eq!(submit(&sim_of(version).await, &null).await.status, 500);
        } else {
            let null = with("9", json!({ "class_type": "EmptyImage", "inputs": null }));
            deadly.push(("null for inputs", null));
        }
        for (says, graph) in deadly {
            let says = format!("{version}: {says}");
            let sim = sim_of(version).await;
            let mut socket = Socket::open(sim.addr(), "/ws?clientId=c").await;
            let id = submit(&sim, &graph).await.prompt_id();
            assert_eq!(socket.until("execution_start").await["data"]["prompt_id"], id, "{says}");
            is_wedged(&sim, &id, &says).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_exits_takes_the_worker_with_it() {
    let sim = sim_of("0.33.0").await;
    let mut socket = Socket::open(sim.addr(), "/ws?clientId=c").await;
    let mut graph = with("2", json!({ "class_type": "SimExit", "inputs": { "image": ["1", 0] } }));
    graph["3"]["inputs"]["images"] = json!(["2", 0]);
    let id = submit(&sim, &graph).await.prompt_id();
    while socket.until("executing").await["data"]["node"] != "2" {}
    is_wedged(&sim, &id, "SystemExit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_says_nothing_until_it_ends() {
    let sim = sim_of("0.33.0").await;
    let mut socket = Socket::open(sim.addr(), "/ws?clientId=c").await;
    let inputs = json!({ "image": ["1", 0], "seconds": 0.3 });
    let mut graph = with("2", json!({ "class_type": "SimSilence", "inputs": inputs }));
    graph["3"]["inputs"]["images"] = json!(["2", 0]);
    submit(&sim, &graph).await.prompt_id();
    while socket.until("executing").await["data"]["node"] != "2" {}
    let started = mooring::net::now();
    let next = socket.event().await;
    assert!(0.25 < (mooring::net::now() - started).as_secs_f64(), "{next}");
    assert_eq!(next["data"]["nodes"]["2"]["state"], "finished");
    socket.until("execution_success").await;
}

/// The next binary frame.
async fn binary(socket: &mut Socket) -> Vec<u8> {
    loop {
        let frame = socket.frame().await.unwrap();
        if frame.opcode == mooring::ws::Opcode::Binary {
            return frame.payload.to_vec();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_of_nodes_go_to_everybody_and_pictures_as_results_to_their_client() {
    let sim = sim_of("0.33.0").await;
    let mut mine = Socket::open(sim.addr(), "/ws?clientId=c").await;
    let mut other = Socket::open(sim.addr(), "/ws?clientId=d").await;
    // Who negotiated gets results in the plain form all the same.
    mine.say(r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#).await;
    mine.until("feature_flags").await;
    let mut graph = quick(7);
    graph["4"] = json!({ "class_type": "GetImageSize", "inputs": { "image": ["1", 0] } });
    graph["5"] = json!({ "class_type": "PreviewAny", "inputs": { "source": ["4", 1] } });
    submit(&sim, &graph).await.prompt_id();
    let text = b"\0\0\0\x03\0\0\0\x014width: 8, height: 8\n batch size: 1";
    assert_eq!(binary(&mut mine).await, text);
    assert_eq!(binary(&mut other).await, text);
    let shown = mine.until("executed").await;
    assert_eq!(shown["data"]["output"], json!({ "text": ["8"] }));

    let send = json!({ "images": ["1", 0], "format": "PNG" });
    let graph = json!({
        "1": quick(7)["1"],
        "2": { "class_type": "ETN_SendImageWebSocket", "inputs": send },
    });
    submit(&sim, &graph).await.prompt_id();
    assert!(binary(&mut mine).await.starts_with(b"\0\0\0\x01\0\0\0\x02\x89PNG"));
    let told = mine.until("executed").await;
    assert_eq!(
        told["data"]["output"],
        json!({ "images": [
            { "source": "websocket", "content-type": "image/png", "type": "output" },
        ] })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_may_be_bare_strings_and_inputs_whole_folders() {
    let sim = sim_of("0.33.0").await;
    let graph = json!({
        "1": { "class_type": "Preview3D", "inputs": { "model_file": "mesh/M_00001_.glb" } },
    });
    let id = submit(&sim, &graph).await.prompt_id();
    until("it has run", || sim.ledger().finished.contains(&id)).await;
    let entry = get(&sim, &format!("/history/{id}")).await.json();
    let output = json!({ "result": ["mesh/M_00001_.glb", null, null] });
    assert_eq!(entry[&id]["outputs"]["1"], output);

    let folder = json!({
        "1": { "class_type": "VHS_LoadImages", "inputs": { "directory": "d" } },
        "2": { "class_type": "PreviewImage", "inputs": { "images": ["1", 0] } },
    });
    let refused = submit(&sim, &folder).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("Directory is not valid: d"), "{}", refused.text());
}
