//! Graphs as scripts and pictures give them: numbers that JSON does not have, and files that are
//! no graph in the format of the API.

use http::Method;
use serde_json::{Value, json};

use super::Cases;
use crate::support::{Answer, World, quick, send, until};

/// A submission with a raw value in an input that no node reads, and in `extra_data`.
fn with_value(raw: &str) -> String {
    let mut graph = quick(1);
    graph["1"]["is_changed"] = json!("HERE");
    graph["1"]["inputs"]["left over"] = json!({ "deep": "HERE" });
    let extra = json!({ "extra_pnginfo": { "workflow": { "nodes": [{ "widgets_values": "HERE" }],
        "NaN": "NaN" } } });
    let body = json!({ "client_id": "ada", "prompt": graph, "extra_data": extra });
    body.to_string().replace("\"HERE\"", raw)
}

/// What the server was given to run: the three values.
async fn kept(world: &World, answer: &Answer) -> Vec<Value> {
    let prompt = answer.prompt_id();
    let sim = world.sim("a");
    until("it has run", || sim.ledger().finished.contains(&prompt)).await;
    let path = format!("/history/{prompt}");
    let entry = send(sim.addr(), Method::GET, &path, &[], "").await.json();
    let given = &entry[&prompt]["prompt"];
    let workflow = &given[3]["extra_pnginfo"]["workflow"];
    assert_eq!(workflow["NaN"], "NaN", "a text and a key are none");
    let node = &given[2]["1"];
    vec![
        node["is_changed"].clone(),
        node["inputs"]["left over"]["deep"].clone(),
        workflow["nodes"][0]["widgets_values"].clone(),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_as_pictures_and_scripts_have_them() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut cases = Cases::default();
    for (name, raw, right) in [
        ("IS_CHANGED of a pack", "[NaN]", json!([null])),
        ("NaN as it is", "NaN", json!(null)),
        ("a scheduler's end", "-Infinity", json!(null)),
        (
            "in an object in a list",
            "[{\"max\":Infinity , \"min\": -Infinity}]",
            json!([{ "max": null, "min": null }]),
        ),
        ("line by line", "[\n\tNaN,\n\t1,\r\n NaN\n]", json!([null, 1, null])),
        ("many of them", "[NaN,NaN,NaN,NaN,Infinity]", json!([null, null, null, null, null])),
        ("a text with the words", "\"NaN, -Infinity\"", json!("NaN, -Infinity")),
        ("a text with quotes before it", "\"\\\"\\\\\\\",NaN\"", json!("\"\\\",NaN")),
        ("a text in Japanese", "\"無限:Infinity\"", json!("無限:Infinity")),
        ("a key that is one", "{\"NaN\": {\"Infinity\": 1}}", json!({ "NaN": { "Infinity": 1 } })),
        ("the largest seed", "18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
        ("a seed past 2^53", "1125899906842624001", json!(1_125_899_906_842_624_001_u64)),
        ("a float that is whole", "[1.0, -0.0, 1e-7]", json!([1.0, -0.0, 1e-7])),
        ("a key twice in a node", "{\"a\": 1, \"a\": 2}", json!({ "a": 2 })),
    ] {
        let answer = world.post("/prompt", &with_value(raw)).await;
        let found = if answer.status == 200 { kept(&world, &answer).await } else { Vec::new() };
        cases.case(name, (answer.status, found), (200, vec![right; 3]));
    }
    let sent = world.sim("a").ledger().enqueued.len();
    for (name, raw, code) in [
        ("JavaScript's undefined", "undefined", "invalid_json"),
        ("C's nan", "nan", "invalid_json"),
        ("minus NaN", "-NaN", "invalid_json"),
        ("C's inf", "[-inf]", "invalid_json"),
        ("half a word", "Infinit", "invalid_json"),
        ("a number that is too large", "1e400", "unsafe_json"),
        ("a hexadecimal one", "0x10", "invalid_json"),
        ("a comma for a point", "[1,5,]", "invalid_json"),
    ] {
        let answer = world.post("/prompt", &with_value(raw)).await;
        let found = (answer.status, answer.header("mooring-error").to_owned());
        cases.case(name, found, (400, code.to_owned()));
    }
    cases.case("none of those was sent", world.sim("a").ledger().enqueued.len(), sent);
    cases.end(23);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_no_graph_are_told_at_once() {
    let world = World::new(1).await;
    world.all_up().await;
    let graph = quick(1);
    let page = json!({ "id": "0b6f", "revision": 0, "last_node_id": 3, "last_link_id": 1,
        "nodes": [{ "id": 1, "type": "EmptyImage", "pos": [0, 0], "widgets_values": [8, 8] }],
        "links": [[1, 1, 0, 3, 0, "IMAGE"]], "groups": [], "config": {}, "extra": {},
        "version": 0.4 });
    let newer = json!({ "version": 1, "config": {}, "state": { "lastNodeId": 3 }, "groups": [],
        "nodes": [], "links": [{ "id": 1, "origin_id": 1 }] });
    let blueprint = json!({ "nodes": [{ "id": 1, "type": "0b6f" }], "links": [],
        "definitions": { "subgraphs": [{ "nodes": [] }] }, "version": 0.4 });
    let mut cases = Cases::default();
    for (name, body, code) in [
        ("saved by the page", json!({ "prompt": page }), "not_api_format"),
        ("saved by a newer page, empty", json!({ "prompt": newer }), "not_api_format"),
        ("with subgraphs", json!({ "prompt": blueprint }), "not_api_format"),
        (
            "both at once, as graphToPrompt gives them",
            json!({ "prompt": { "output": graph, "workflow": page } }),
            "not_api_format",
        ),
        (
            "wrapped twice",
            json!({ "prompt": { "prompt": graph, "client_id": "x" } }),
            "not_api_format",
        ),
        ("as text", json!({ "prompt": graph.to_string() }), "invalid_prompt"),
        ("a list of nodes", json!({ "prompt": [graph["1"], graph["3"]] }), "invalid_prompt"),
        ("none", json!({ "prompt": null }), "invalid_prompt"),
        ("not wrapped at all", graph.clone(), "no_prompt"),
        ("under another key", json!({ "workflow": graph }), "no_prompt"),
        (
            "a comment as a node",
            json!({ "prompt": { "1": graph["1"], "//": "mine" } }),
            "invalid_prompt",
        ),
    ] {
        let answer = world.post("/api/prompt", &body.to_string()).await;
        let told = answer.json();
        let message = told["error"]["message"].as_str().unwrap_or_default();
        let says = told["node_errors"].is_object() && 10 < message.len();
        let code_said = answer.header("mooring-error").to_owned();
        cases.case(name, (answer.status, code_said, says), (400, code.to_owned(), true));
    }
    let posts = world.sim("a").requests().iter().filter(|it| it.method == "POST").count();
    cases.case("no server was asked", posts, 0);
    // Nodes may be called as they like.
    for id in ["nodes", "version", "workflow", "output", "1:2:7", "画像", ""] {
        let mut named = json!({});
        named[id] = graph["1"].clone();
        named["last_node_id"] = graph["3"].clone();
        named["last_node_id"]["inputs"]["images"] = json!([id, 0]);
        let answer = world.submit("ada", &named).await;
        cases.case(&format!("a node called {id:?}"), answer.status, 200);
    }
    cases.end(19);
}
