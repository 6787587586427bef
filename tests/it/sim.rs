//! The simulated ComfyUI misbehaves and shows what real ones do, version by version.

use http::Method;
use mooring::sim::{Listening, Options, Sim};
use serde_json::{Value, json};

use crate::support::{Answer, Socket, network, quick, send, slow, until};

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

/// A socket of a client that hears what happens from now on: an open one is told its first status
/// when the server has it in its list.
async fn listens(sim: &Sim, client: &str) -> Socket {
    let mut socket = Socket::open(sim.addr(), &format!("/ws?clientId={client}")).await;
    socket.until("status").await;
    socket
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
            let mut socket = listens(&sim, "c").await;
            let id = submit(&sim, &graph).await.prompt_id();
            assert_eq!(socket.until("execution_start").await["data"]["prompt_id"], id, "{says}");
            is_wedged(&sim, &id, &says).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_exits_takes_the_worker_with_it() {
    let sim = sim_of("0.33.0").await;
    let mut socket = listens(&sim, "c").await;
    let mut graph = with("2", json!({ "class_type": "SimExit", "inputs": { "image": ["1", 0] } }));
    graph["3"]["inputs"]["images"] = json!(["2", 0]);
    let id = submit(&sim, &graph).await.prompt_id();
    while socket.until("executing").await["data"]["node"] != "2" {}
    is_wedged(&sim, &id, "SystemExit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_says_nothing_until_it_ends() {
    let sim = sim_of("0.33.0").await;
    let mut socket = listens(&sim, "c").await;
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
    let mut mine = listens(&sim, "c").await;
    let mut other = listens(&sim, "d").await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_workflow_breaks_every_list_of_jobs_until_it_is_cleared() {
    for (version, workflow) in [("0.33.0", json!("abc")), ("0.8.0", json!([1]))] {
        let sim = sim_of(version).await;
        let info = json!({ "workflow": workflow });
        let body = json!({ "prompt": quick(1), "extra_data": { "extra_pnginfo": info } });
        let id =
            send(sim.addr(), Method::POST, "/prompt", &[], &body.to_string()).await.prompt_id();
        until("it has run", || sim.ledger().finished.contains(&id)).await;
        let other = submit(&sim, &quick(2)).await.prompt_id();
        until("the other has run", || sim.ledger().finished.contains(&other)).await;
        assert_eq!(get(&sim, "/api/jobs").await.status, 500);
        assert_eq!(get(&sim, "/api/jobs?status=pending").await.status, 200);
        assert_eq!(get(&sim, &format!("/api/jobs/{id}")).await.status, 500);
        assert_eq!(get(&sim, &format!("/api/jobs/{other}")).await.status, 200);
        send(sim.addr(), Method::POST, "/history", &[], r#"{"clear": true}"#).await;
        assert_eq!(get(&sim, "/api/jobs").await.json()["jobs"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_version_has_the_routes_and_rules_that_it_had() {
    let cross = [("sec-fetch-site", "cross-site")];
    let named = json!({ "prompt": quick(1), "prompt_id": "Mine" }).to_string();
    for (version, jobs, cancel, cross_site, named_so) in [
        ("0.3.64", 404, 405, 200, 200),
        ("0.8.0", 200, 405, 200, 200),
        ("0.33.0", 200, 200, 403, 400),
    ] {
        let sim = sim_of(version).await;
        assert_eq!(get(&sim, "/api/jobs").await.status, jobs, "{version}");
        let body = r#"{"job_ids": []}"#;
        let cancelled = send(sim.addr(), Method::POST, "/api/jobs/cancel", &[], body).await;
        assert_eq!(cancelled.status, cancel, "{version}");
        for path in ["/", "/api/settings", "/pack/echo?sid=1"] {
            let answer = send(sim.addr(), Method::GET, path, &cross, "").await;
            assert_eq!(answer.status, cross_site, "{version} {path}");
        }
        let answer = send(sim.addr(), Method::POST, "/prompt", &[], &named).await;
        assert_eq!(answer.status, named_so, "{version}");
        let features = get(&sim, "/features").await.json();
        assert_eq!(features.get("assets").is_some(), version == "0.33.0");
        assert_eq!(features.get("extension").is_some(), version != "0.3.64");
        let secret = json!({ "api_key_comfy_org": "k" });
        let body = json!({ "prompt": slow(50, 5.0), "extra_data": secret }).to_string();
        send(sim.addr(), Method::POST, "/prompt", &[], &body).await.prompt_id();
        let queue = get(&sim, "/queue").await.text();
        assert_eq!(queue.contains("create_time"), version != "0.3.64", "{version}");
        assert_eq!(queue.contains("api_key_comfy_org"), version == "0.3.64", "{version}");
        let stats = get(&sim, "/system_stats").await.json();
        assert_eq!(stats["system"]["comfyui_version"], version);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retired_node_is_replaced_or_breaks_the_submission() {
    let sim = sim_of("0.33.0").await;
    let inputs = json!({ "images": ["1", 0], "longer_edge": 4 });
    let old = json!({ "class_type": "ResizeImagesByLongerEdge", "inputs": inputs });
    let mut graph = with("2", old);
    graph["3"]["inputs"]["images"] = json!(["2", 0]);
    assert_eq!(submit(&sim, &graph).await.status, 500);
    graph["2"]["_meta"] = json!({});
    let id = submit(&sim, &graph).await.prompt_id();
    until("it has run", || sim.ledger().finished.contains(&id)).await;
    let list = get(&sim, "/node_replacements").await.json();
    assert_eq!(list["T2IAdapterLoader"][0]["new_node_id"], "ControlNetLoader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_token_is_refused_everywhere() {
    let options = Options { token: Some("secret".to_owned()), ..Options::named("sim") };
    let sim = Sim::start(network(), options).await.unwrap();
    let bearer = [("authorization", "Bearer secret")];
    for path in ["/", "/prompt", "/api/queue", "/ws", "/ps/ws", "/view"] {
        assert_eq!(get(&sim, path).await.status, 401, "{path}");
        let wrong = [("authorization", "Bearer other")];
        assert_eq!(send(sim.addr(), Method::GET, path, &wrong, "").await.status, 401, "{path}");
    }
    assert_eq!(send(sim.addr(), Method::GET, "/prompt", &bearer, "").await.status, 200);
    assert_eq!(get(&sim, "/prompt?token=secret").await.status, 200);
    Socket::open(sim.addr(), "/ws?token=secret").await.until("status").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_have_sockets_sessions_and_pictures_of_their_own() {
    let sim = sim_of("0.33.0").await;
    for path in ["/sd-ppp/?EIO=4&transport=websocket", "/ps/ws?clientId=x", "/api/ps/ws"] {
        let mut socket = Socket::open(sim.addr(), path).await;
        assert_eq!(socket.event().await["from"], "sim", "{path}");
        socket.say(r#"{"type":"echoed"}"#).await;
        socket.until("echoed").await;
        assert_eq!(sim.pack_sockets(), 1);
        socket.close().await;
        until("it is gone", || sim.pack_sockets() == 0).await;
    }
    assert_eq!(sim.sids().len(), 0, "they are not ComfyUI's");
    assert_eq!(get(&sim, "/ps/ws").await.status, 400);
    for count in 1..3 {
        let answer = get(&sim, "/pack/echo?sid=s").await.json();
        assert_eq!((&answer["count"], &answer["from"]), (&json!(count), &json!("sim")));
    }
    let graph = json!({
        "1": { "class_type": "ETN_LoadImageCache", "inputs": { "id": "k1" } },
        "2": { "class_type": "PreviewImage", "inputs": { "images": ["1", 0] } },
    });
    let failed = submit(&sim, &graph).await.prompt_id();
    until("it has run", || sim.ledger().finished.contains(&failed)).await;
    let entry = get(&sim, &format!("/history/{failed}")).await.text();
    assert!(entry.contains("Image with ID k1 not found in cache"), "{entry}");
    let png = crate::pictures::png([1, 2, 3]);
    let path = "/api/etn/image/k1";
    let put = crate::support::send_bytes(sim.addr(), Method::PUT, path, &[], png.clone().into());
    assert_eq!(put.await.status, 200);
    assert_eq!(get(&sim, path).await.body, png);
    let made = submit(&sim, &graph).await.prompt_id();
    until("it has run", || sim.ledger().finished.contains(&made)).await;
    let entry = get(&sim, &format!("/history/{made}")).await.json();
    assert_eq!(entry[&made]["status"]["status_str"], "success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_are_compressed_where_that_is_asked_for() {
    let options = Options { compress: true, ..Options::named("sim") };
    let sim = Sim::start(network(), options).await.unwrap();
    let coding = async |accepted: &'static str| {
        let headers = [("accept-encoding", accepted)];
        let answer = send(sim.addr(), Method::GET, "/queue", &headers, "").await;
        answer.header("content-encoding").to_owned()
    };
    assert_eq!(coding("gzip, deflate").await, "deflate");
    assert_eq!(coding("gzip").await, "gzip");
    assert_eq!(coding("deflate").await, "");
    let plain = send(sim_of("0.33.0").await.addr(), Method::GET, "/queue", &[], "").await;
    assert_eq!(plain.header("content-encoding"), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_take_no_new_connections_and_keep_the_old_ones() {
    let sim = sim_of("0.33.0").await;
    let mut socket = listens(&sim, "c").await;
    sim.set_faults(|faults| faults.listening = Listening::Closed);
    let (host, port) = (sim.addr().ip().to_string(), sim.addr().port());
    let is_refused = async || network().connect(&host, port).await.is_err();
    crate::support::soon("nobody listens", async { while !is_refused().await {} }).await;
    socket.say(r#"{"type":"feature_flags","data":{}}"#).await;
    socket.until("feature_flags").await;
    sim.set_faults(|faults| faults.listening = Listening::Open);
    crate::support::soon("it listens again", async { while is_refused().await {} }).await;
    assert_eq!(get(&sim, "/queue").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_for_assets_are_told_to_everybody() {
    let options = Options { assets: true, ..Options::named("sim") };
    let sim = Sim::start(network(), options).await.unwrap();
    assert_eq!(get(&sim, "/features").await.json()["assets"], true);
    let mut socket = listens(&sim, "c").await;
    get(&sim, "/object_info").await;
    socket.until("assets.seed.started").await;
    socket.until("assets.seed.fast_complete").await;
    assert_eq!(socket.until("assets.seed.completed").await["data"]["phase"], "full");
    submit(&sim, &quick(1)).await;
    assert_eq!(socket.until("assets.seed.completed").await["data"]["phase"], "enrich");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_told_apart_where_there_are_many() {
    let options = Options { multi_user: true, ..Options::named("sim") };
    let sim = Sim::start(network(), options).await.unwrap();
    let created =
        send(sim.addr(), Method::POST, "/users", &[], r#"{"username": "ann"}"#).await.json();
    let ann = created.as_str().unwrap().to_owned();
    assert!(ann.starts_with("ann_"), "{ann}");
    assert_eq!(get(&sim, "/users").await.json()["users"], json!({ &*ann: "ann" }));
    let again = send(sim.addr(), Method::POST, "/users", &[], r#"{"username": "ann"}"#).await;
    assert_eq!(again.status, 400);
    let hers = [("comfy-user", ann.as_str())];
    let path = "/api/userdata/workflows%2Fa.json";
    let set = r#"{"theme": "dark"}"#;
    assert_eq!(send(sim.addr(), Method::POST, "/settings", &hers, set).await.status, 200);
    assert_eq!(send(sim.addr(), Method::POST, path, &hers, "{}").await.status, 200);
    assert_eq!(send(sim.addr(), Method::GET, path, &hers, "").await.text(), "{}");
    let theme = send(sim.addr(), Method::GET, "/settings/theme", &hers, "").await;
    assert_eq!(theme.json(), "dark");
    // An id of another server raises, as for who says none.
    for headers in [&[("comfy-user", "bob_1")][..], &[]] {
        assert_eq!(send(sim.addr(), Method::GET, path, headers, "").await.status, 500);
        assert_eq!(send(sim.addr(), Method::GET, "/settings", headers, "").await.status, 401);
    }
}
