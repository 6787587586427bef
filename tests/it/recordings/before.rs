//! What had happened on a server before it was recorded.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use http::Method;
use mooring::net::unix_millis;
use mooring::sim::Sim;
use serde_json::{Value, json};

use crate::support::{send_bytes, until};

pub(crate) async fn of_0_8(sim: &Sim) {
    run(sim, "f144d3ec-0c7c-47aa-90af-0420bead5be8", "t").await;
}

/// It was an old server: 115 submissions, six of them refused, and files of all kinds.
pub(crate) async fn of_0_33(sim: &Sim, recordings: &[(String, Value)]) {
    let (_, reads) = recordings.last().unwrap();
    let listed = |path: &str| {
        let steps = reads["steps"].as_array().unwrap();
        let step = steps.iter().find(|it| it["request"]["path"] == path).unwrap();
        step["response"]["body"].clone()
    };
    let made_here = ["rec_", "simple_", "cli_00004_", "in17", "up17"];
    let is_older = |name: &&str| !made_here.iter().any(|begin| name.starts_with(begin));
    let outputs = listed("/internal/files/output");
    let outputs = outputs.as_array().unwrap().iter().rev();
    let outputs = outputs.map(|it| it.as_str().unwrap().trim_end_matches(" [output]"));
    for name in outputs.filter(is_older) {
        put(sim, "output", name).await;
    }
    let info = listed("/object_info/LoadImage");
    let inputs = info.pointer("/LoadImage/input/required/image/0").unwrap().as_array().unwrap();
    for name in inputs.iter().map(|it| it.as_str().unwrap()).filter(is_older) {
        put(sim, "input", name).await;
    }
    for _ in 0..6 {
        let refused = post(sim, "/prompt", "{}".into()).await;
        assert_eq!(refused, 400);
    }
    for number in 0..108 {
        let text = json!({ "class_type": "PreviewAny", "inputs": { "source": number } });
        let body = json!({ "prompt": { "1": text } }).to_string();
        assert_eq!(post(sim, "/prompt", body.into()).await, 200);
    }
    // Jobs are sorted by the millisecond: the last of them is the newest.
    tick().await;
    run(sim, "f844a285-55eb-484b-b1e0-780f1b23a7ce", "cli").await;
    tick().await;
}

async fn tick() {
    let then = unix_millis();
    until("the clock goes on", || then < unix_millis()).await;
}

async fn run(sim: &Sim, id: &str, prefix: &str) {
    let graph = json!({
        "1": { "class_type": "EmptyImage",
               "inputs": { "width": 64, "height": 64, "batch_size": 1, "color": 1 } },
        "3": { "class_type": "SaveImage",
               "inputs": { "images": ["1", 0], "filename_prefix": prefix } },
    });
    let body = json!({ "prompt": graph, "client_id": "x", "prompt_id": id }).to_string();
    post(sim, "/prompt", body.into()).await;
    until("what ran before is over", || sim.queue_remaining() == 0).await;
}

async fn put(sim: &Sim, kind: &str, name: &str) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let bytes = COUNT.fetch_add(1, Ordering::Relaxed);
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\n{kind}\r\n\
         --b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\r\n\
         {bytes}\r\n--b--\r\n"
    );
    let kind = [("content-type", "multipart/form-data; boundary=b")];
    let answer = send_bytes(sim.addr(), Method::POST, "/upload/image", &kind, body.into()).await;
    assert_eq!(answer.json()["name"], name);
}

async fn post(sim: &Sim, path: &str, body: Bytes) -> u16 {
    send_bytes(sim.addr(), Method::POST, path, &[], body).await.status
}
