//! What nodes of packs put out: strings that name files, wherever they stand, and those that do
//! not.

use serde_json::{Value, json};

use super::{Cases, only};
use crate::pictures::{BLUE, RED, color, form, png, view};
use crate::support::{World, send_bytes};

/// Puts a file on a backend behind our back.
async fn put(world: &World, backend: &str, path: &str, kind: &str, picture: [u8; 3]) {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let fields = [("subfolder", folder), ("type", kind), ("overwrite", "1")];
    let headers = [("content-type", "multipart/form-data; boundary=xyz")];
    let body = form(name, &png(picture), &fields);
    let sim = world.sim(backend).addr();
    let answer = send_bytes(sim, http::Method::POST, "/upload/image", &headers, body).await;
    assert_eq!(answer.status, 200);
}

/// Runs one node for two clients, each on a backend of its own: what each was told, by the socket
/// and by the history.
async fn shown(world: &World, class: &str) -> Vec<(String, Value, Value)> {
    let mut told = Vec::new();
    for (client, backend) in [("ada", "a"), ("bob", "b")] {
        only(world, &[backend]).await;
        let mut socket = world.socket(client).await;
        let graph = json!({ "7": { "class_type": class, "inputs": {} } });
        let answer = world.submit(client, &graph).await;
        let prompt = answer.prompt_id();
        let event = loop {
            let event = socket.until("executed").await;
            if event["data"]["prompt_id"] == *prompt {
                break event;
            }
        };
        socket.until_end(&prompt).await;
        let history = world.get(&format!("/history/{prompt}")).await.json();
        let kept = history[&prompt]["outputs"]["7"].clone();
        told.push((answer.backend().to_owned(), event["data"]["output"].clone(), kept));
    }
    told
}

/// As `Preview3D` takes a path apart.
fn at(path: &str, kind: &str) -> Value {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    json!({ "filename": name, "subfolder": folder, "type": kind })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strings_that_name_files_lead_to_the_one_that_was_made() {
    let world = World::new(2).await;
    world.all_up().await;
    // What a node shows with its file at HERE, and how a viewer reads that.
    let shapes = [
        (
            "Preview3DAdvanced",
            "3d/A_00001_.glb",
            "output",
            json!({ "result": ["HERE", { "position": [1, 2] }, null] }),
        ),
        ("SAM3D", "sam3d/人_0001.GLB", "output", json!({ "glb_path": ["HERE"] })),
        ("Hunyuan3D, a bare string", "Hy3D/B_00001_.obj", "output", json!({ "mesh_path": "HERE" })),
        ("a splat", "splats/scene one.ply", "output", json!({ "ply": [["HERE"]] })),
        (
            "an archive of a pack",
            "train/lora_data.zip",
            "output",
            json!({ "zip": { "files": [{ "path": "HERE" }] } }),
        ),
        ("an audio node", "audio/音声_00001_.flac", "output", json!({ "audio": ["HERE"] })),
        ("subtitles", "srt/film.srt", "output", json!({ "srt_file": "HERE" })),
        ("at the top", "🦊_00001_.mp4", "output", json!({ "video": ["HERE"] })),
        ("as an object's only field", "img/C.webp", "output", json!({ "ui": { "a": "HERE" } })),
        ("a data file", "csv/scores.csv", "output", json!({ "csv": ["HERE"] })),
        ("the folder said", "tmp3d/D.glb", "temp", json!({ "result": ["HERE [temp]"] })),
        ("an ending in capitals", "x/E.STL", "output", json!({ "stl": ["HERE"] })),
    ];
    for (class, _, _, shape) in &shapes {
        let path = shapes.iter().find(|it| it.0 == *class).unwrap().1;
        let shape: Value = serde_json::from_str(&shape.to_string().replace("HERE", path)).unwrap();
        for sim in &world.sims {
            sim.lend(class, &json!({ "required": {} }), &shape);
        }
    }
    let mut cases = Cases::default();
    for (class, path, kind, shape) in shapes {
        for (backend, picture) in [("a", RED), ("b", BLUE)] {
            put(&world, backend, path, kind, picture).await;
        }
        let spot = pointer(&shape, "");
        let told = shown(&world, class).await;
        let mut found = Vec::new();
        for (backend, event, kept) in &told {
            let said = event.pointer(&spot).and_then(Value::as_str).unwrap_or_default();
            let name = said.trim_end_matches(" [temp]");
            let seen = view(&world, &at(name, kind), None).await;
            let own = if backend == "a" { RED } else { BLUE };
            let is_own = seen.status == 200 && color(&seen.body) == own;
            found.push((is_own, kept == event));
        }
        let is_elsewhere = told[0].0 != told[1].0;
        cases.case(class, (is_elsewhere, found), (true, vec![(true, true); 2]));
    }
    cases.end(12);
}

/// Where the string with HERE stands.
fn pointer(shape: &Value, at: &str) -> String {
    let inside = |(key, value): (String, &Value)| pointer(value, &format!("{at}/{key}"));
    match shape {
        Value::String(text) if text.contains("HERE") => at.to_owned(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| inside((index.to_string(), item)))
            .find(|it| !it.is_empty())
            .unwrap_or_default(),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| inside((key.clone(), value)))
            .find(|it| !it.is_empty())
            .unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => String::new(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strings_that_name_no_file_are_told_as_they_are() {
    let world = World::new(2).await;
    world.all_up().await;
    let shapes = [
        ("prose", json!({ "text": ["a photo of a cat, by ada.png"] })),
        ("a sentence", json!({ "text": ["Saved to output/x.png."] })),
        ("several lines", json!({ "text": ["one.txt\ntwo.txt"] })),
        ("a URL", json!({ "url": ["https://cdn.example/out/x.png"], "u": "http://h/y.glb" })),
        ("data", json!({ "image": ["data:image/png;base64,iVBORw0KGgo="] })),
        ("a path from the root", json!({ "fullpath": "/root/ComfyUI/output/x.mp4" })),
        ("a drive", json!({ "fullpath": "C:\\ComfyUI\\output\\x.mp4" })),
        ("a model", json!({ "ckpt_name": ["sd_xl_base_1.0.safetensors"], "l": ["lora.pt"] })),
        ("a way out", json!({ "path": ["../../secret.png"] })),
        ("numbers and nothing", json!({ "a": [1.5, null, true], "b": [], "c": {} })),
        ("endings alone", json!({ "format": [".png", "png", "image/png", "video/h264-mp4"] })),
        ("JSON as text", json!({ "text": ["{\"file\": \"x.png\"}"] })),
    ];
    let mut cases = Cases::default();
    for (class, shape) in shapes {
        for sim in &world.sims {
            sim.lend(class, &json!({ "required": {} }), &shape);
        }
        let told = shown(&world, class).await;
        let found: Vec<_> = told.into_iter().flat_map(|(_, event, kept)| [event, kept]).collect();
        cases.case(class, found, vec![shape; 4]);
    }
    cases.end(12);
}
