//! Graphs that would end a server's worker, or make it fail, do not reach it (promise P8).

use http::Method;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::support::{Answer, World, network, quick, send, until};

fn submissions(world: &World) -> usize {
    let posts = |sim: &Sim| {
        let seen = sim.requests();
        seen.iter().filter(|it| it.method == "POST" && it.target.ends_with("/prompt")).count()
    };
    world.sims.iter().map(posts).sum()
}

/// A graph that is done at once, with something beside it that no output needs.
fn beside(id: &str, node: &Value) -> Value {
    let mut graph = quick(1);
    graph[id] = node.clone();
    graph
}

fn chain(nodes: usize) -> Value {
    let mut graph = quick(1);
    for at in 0..nodes {
        let link = json!([if at == 0 { "1".to_owned() } else { format!("c{}", at - 1) }, 0]);
        graph[format!("c{at}")] =
            json!({ "class_type": "ImageInvert", "inputs": { "image": link } });
    }
    graph
}

async fn runs(world: &World, graph: &Value) -> Answer {
    let answer = world.submit("ada", graph).await;
    let prompt = answer.prompt_id();
    let sim = world.sim("a");
    until("it has run", || sim.ledger().finished.contains(&prompt)).await;
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_a_server_is_refused_and_the_server_works_on() {
    let world = World::new(1).await;
    world.all_up().await;
    let wrapped = json!({ "x": { "__value__": ["nowhere", 0] } });
    let unchecked = json!({ "images": { "__value__": ["1", 99] }, "filename_prefix": "x" });
    let cases = [
        (beside("9", &json!({ "class_type": "EmptyImage" })), "invalid_prompt"),
        (beside("9", &json!({ "class_type": "EmptyImage", "inputs": null })), "invalid_prompt"),
        (beside("9", &json!({ "class_type": "EmptyImage", "inputs": [] })), "invalid_prompt"),
        (beside("9", &json!({ "class_type": ["EmptyImage"], "inputs": {} })), "invalid_prompt"),
        (beside("9", &json!({ "class_type": "EmptyImage", "inputs": wrapped })), "invalid_prompt"),
        (beside("9", &json!({ "class_type": "SaveImage", "inputs": unchecked })), "invalid_prompt"),
        (beside("9", &json!("class_type")), "invalid_prompt"),
        (beside("9", &json!(null)), "invalid_prompt"),
        (chain(1_500), "graph_too_deep"),
        (beside(&"n".repeat(300), &quick(1)["1"]), "node_id_too_long"),
        (json!({ "last_node_id": 9, "nodes": [{ "id": 1 }], "version": 0.4 }), "not_api_format"),
    ];
    for (graph, code) in cases {
        let answer = world.submit("ada", &graph).await;
        let told = answer.json();
        assert_eq!((answer.status, answer.header("mooring-error")), (400, code), "{told}");
        assert_eq!(told["error"]["type"], code);
        for key in ["message", "details"] {
            assert!(told["error"][key].is_string(), "{told}");
        }
        assert!(told["error"]["extra_info"].is_object() && told["node_errors"].is_object());
    }
    assert_eq!(submissions(&world), 0);
    runs(&world, &quick(2)).await;
    runs(&world, &chain(400)).await;
}

/// The stock page leaves such inputs out; scripts do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_to_nothing_of_an_input_that_nobody_checks_ends_no_worker() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut graph = quick(1);
    graph["3"]["inputs"]["left over"] = json!(["99", 0]);
    runs(&world, &graph).await;
    graph["3"]["inputs"]["left over"] = json!(["1", 0.5]);
    runs(&world, &graph).await;
    // One that is checked is refused as before, by the server.
    graph["3"]["inputs"]["images"] = json!(["99", 0]);
    let refused = world.submit("ada", &graph).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (400, ""), "{}", refused.text());
    assert_eq!(refused.json()["error"]["type"], "prompt_outputs_failed_validation");
}

/// The worker takes the output that is named from what it kept of the other node (0.33).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_to_an_output_that_a_node_does_not_have_ends_no_worker() {
    let world = World::new(1).await;
    world.all_up().await;
    // A page asks for it when it starts; from then on the classes are known.
    assert_eq!(world.get("/api/object_info").await.status, 200);
    let mut graph = quick(1);
    for link in [json!(["1", 1]), json!(["1", 99]), json!(["1", -2]), json!(["3", 0])] {
        graph["4"] = json!({ "class_type": "PreviewImage",
            "inputs": { "images": ["1", 0], "left over": link } });
        runs(&world, &graph).await;
    }
    graph["4"]["inputs"]["left over"] = json!(["1", -1]);
    let prompt = runs(&world, &graph).await.prompt_id();
    let path = format!("/history/{prompt}");
    let told = send(world.sim("a").addr(), Method::GET, &path, &[], "").await.json();
    assert_eq!(told[&prompt]["prompt"][2]["4"]["inputs"]["left over"], json!(["1", -1]));
    // One that is checked is refused as before, by the server.
    graph["3"]["inputs"]["images"] = json!(["1", 7]);
    graph.as_object_mut().unwrap().remove("4");
    let refused = world.submit("ada", &graph).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (400, ""), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_in_the_pages_format_is_told_what_to_export() {
    let world = World::new(1).await;
    let saved = json!({ "prompt": { "last_node_id": 9, "nodes": [{ "id": 1 }], "version": 0.4 } });
    let answer = world.post("/api/prompt", &saved.to_string()).await;
    assert_eq!(answer.status, 400);
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("API format") && message.contains("Export (API)"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_python_writes_for_no_number_runs_as_null() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut graph = quick(1);
    graph["1"]["is_changed"] = json!([{ "deep": ["HERE", "'NaN'"] }]);
    let body = json!({
        "client_id": "ada", "prompt": graph, "extra_data": { "extra_pnginfo": { "x": "HERE" } },
    });
    for odd in ["NaN", "Infinity", "-Infinity"] {
        let body = body.to_string().replace("\"HERE\"", odd);
        let prompt = world.post("/prompt", &body).await.prompt_id();
        let sim = world.sim("a");
        until("it has run", || sim.ledger().finished.contains(&prompt)).await;
        let path = format!("/history/{prompt}");
        let told = send(sim.addr(), Method::GET, &path, &[], "").await.json()[&prompt].clone();
        let changed = json!([{ "deep": [null, "'NaN'"] }]);
        assert_eq!(told["prompt"][2]["1"]["is_changed"], changed);
        assert_eq!(told["prompt"][3]["extra_pnginfo"], json!({ "x": null }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_that_is_no_object_poisons_no_list_of_jobs() {
    let world = World::new(1).await;
    world.all_up().await;
    for workflow in [json!("abc"), json!([1]), json!(7), json!(null)] {
        let extra = json!({ "extra_pnginfo": { "workflow": workflow, "kept": 1 } });
        let body = json!({ "client_id": "ada", "prompt": quick(1), "extra_data": extra });
        let prompt = world.post("/prompt", &body.to_string()).await.prompt_id();
        let sim = world.sim("a");
        until("it has run", || sim.ledger().finished.contains(&prompt)).await;
        let path = format!("/history/{prompt}");
        let told = send(sim.addr(), Method::GET, &path, &[], "").await.json()[&prompt].clone();
        assert_eq!(told["prompt"][3]["extra_pnginfo"], json!({ "kept": 1 }), "{workflow}");
    }
}

/// 0.33 answers 500 to it if nobody adds `_meta`, which only the page writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retired_node_is_replaced_for_scripts_too() {
    let world = World::new(1).await;
    world.all_up().await;
    let inputs = json!({ "images": ["1", 0], "longer_edge": 4 });
    for meta in [None, Some(json!(null)), Some(json!("a title"))] {
        let mut old = json!({ "class_type": "ResizeImagesByLongerEdge", "inputs": inputs });
        if let Some(meta) = meta {
            old["_meta"] = meta;
        }
        let mut graph = beside("2", &old);
        graph["3"]["inputs"]["images"] = json!(["2", 0]);
        runs(&world, &graph).await;
    }
}

/// 0.33 answers `missing_node_type` to it, as to a class that it lacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_class_is_sent_to_one_backend_only() {
    for version in ["0.8.0", "0.33.0"] {
        let mut sims = Vec::new();
        for name in ["a", "b", "c"] {
            let options = Options { version: version.to_owned(), ..Options::named(name) };
            sims.push(Sim::start(network(), options).await.unwrap());
        }
        let world = World::over(sims, |_| {}).await;
        world.all_up().await;
        let answer = world.submit("ada", &beside("9", &json!({ "inputs": {} }))).await;
        assert_eq!((answer.status, answer.header("mooring-error")), (400, ""), "{version}");
        assert_eq!(submissions(&world), 1, "{version}: {}", answer.text());
        let rare = json!({ "class_type": "NoSuchNode", "inputs": {} });
        assert_eq!(world.submit("ada", &beside("9", &rare)).await.status, 400);
        assert_eq!(submissions(&world), 4, "{version}: a class may be on another backend");
    }
}
