//! Bodies that come compressed, and that Mooring has to read.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::Method;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::pictures::{RED, form, png, run};
use crate::support::{Answer, World, network, quick, send_bytes, slow, until};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn raw(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

async fn post(world: &World, path: &str, coding: &str, body: impl Into<Bytes>) -> Answer {
    let headers = [("content-type", "application/json"), ("content-encoding", coding)];
    send_bytes(world.front, Method::POST, path, &headers, body.into()).await
}

fn submission(graph: &Value) -> Vec<u8> {
    json!({ "client_id": "ada", "prompt": graph }).to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_may_come_compressed() {
    let world = World::new(1).await;
    world.all_up().await;
    for (coding, pack) in [
        ("gzip", gzip as fn(&[u8]) -> Vec<u8>),
        ("x-gzip", gzip),
        ("deflate", zlib),
        ("Deflate", raw),
        ("identity", <[u8]>::to_vec),
    ] {
        let answer = post(&world, "/prompt", coding, pack(&submission(&quick(1)))).await;
        let prompt = answer.prompt_id();
        let sim = world.sim("a");
        until("it has run", || sim.ledger().finished.contains(&prompt)).await;
    }
    let seen = world.sim("a").requests();
    let posts = seen.iter().filter(|it| it.method == "POST" && it.target == "/prompt");
    assert_eq!(posts.count(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verb_may_come_compressed() {
    let world = World::new(1).await;
    let mut ada = world.socket("ada").await;
    let running = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
    ada.until("progress").await;
    let waiting = world.submit("ada", &quick(1)).await.prompt_id();
    let delete = json!({ "delete": [waiting] }).to_string();
    let answer = post(&world, "/queue?clientId=ada", "gzip", gzip(delete.as_bytes())).await;
    assert_eq!(answer.status, 200);
    let sim = world.sim("a");
    until("it is deleted", || sim.ledger().deleted.contains(&waiting)).await;
    let named = json!({ "prompt_id": running }).to_string();
    let answer = post(&world, "/interrupt?clientId=ada", "deflate", zlib(named.as_bytes())).await;
    assert_eq!(answer.status, 200);
    ada.until_end(&running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_inflated_within_the_limits_of_a_plain_one() {
    let world = World::with(1, |config| config.prompts.max_body = 1 << 20).await;
    world.all_up().await;
    let mut large = quick(1);
    large["1"]["_meta"] = json!({ "title": "x".repeat(2 << 20) });
    let bomb = gzip(&submission(&large));
    assert!(bomb.len() < 16 << 10);
    let verb = gzip(format!("{{\"delete\": [\"{}\"]}}", "x".repeat(2 << 20)).as_bytes());
    for (path, coding, body, status, code) in [
        ("/prompt", "gzip", bomb, 413, "body_too_large"),
        ("/queue?clientId=ada", "gzip", verb, 413, "body_too_large"),
        ("/prompt", "gzip", gzip(&submission(&quick(1)))[..40].to_vec(), 400, "body_corrupt"),
        ("/prompt", "gzip", submission(&quick(1)), 400, "body_corrupt"),
        ("/prompt", "br", submission(&quick(1)), 415, "unknown_coding"),
        ("/prompt", "gzip, gzip", gzip(&gzip(b"{}")), 415, "unknown_coding"),
        ("/interrupt?clientId=ada", "zstd", b"{}".to_vec(), 415, "unknown_coding"),
    ] {
        let answer = post(&world, path, coding, body).await;
        assert_eq!((answer.status, answer.header("mooring-error")), (status, code), "{path}");
        let offered = if status == 415 { "gzip, deflate" } else { "" };
        assert_eq!(answer.header("accept-encoding"), offered);
        assert!(answer.json()["error"]["message"].is_string());
    }
    let seen = world.sim("a").requests();
    assert!(!seen.iter().any(|it| it.method == "POST"));
}

/// Whose the preview is that a body nominates is read in it, however it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_body_names_no_asset_of_another_as_a_preview() {
    let options = Options { assets: true, ..Options::named("a") };
    let world = World::over(vec![Sim::start(network(), options).await.unwrap()], |_| {}).await;
    world.all_up().await;
    let mut ids = Vec::new();
    for (client, shade) in [("ada", 0x11_22_33), ("bob", 0x44_55_66)] {
        let (_, images) = run(&world, client, &quick(shade)).await;
        ids.push(images[0]["id"].as_str().unwrap().to_owned());
    }
    let path = format!("/api/assets/{}", ids[0]);
    let ask = async |method: Method, path: &str, coding: &str, body: Vec<u8>| {
        let headers = [
            ("comfy-client-id", "ada"),
            ("content-type", "application/json"),
            ("content-encoding", coding),
        ];
        send_bytes(world.front, method, path, &headers, body.into()).await
    };
    let stolen = json!({ "preview_id": ids[1] }).to_string();
    let refused = ask(Method::PUT, &path, "gzip", gzip(stolen.as_bytes())).await;
    assert_eq!(refused.status, 404, "{}", refused.text());
    let renamed = ask(Method::PUT, &path, "deflate", zlib(br#"{"name": "mine.png"}"#)).await;
    assert_eq!((renamed.status, &renamed.json()["name"]), (200, &json!("mine.png")));
    // A new one of bytes that are there: ComfyUI leaves out a preview that it does not have.
    let hash = ask(Method::GET, &path, "identity", Vec::new()).await.json()["hash"].clone();
    let hash = if hash.is_null() { upload_hash(&world).await } else { hash };
    for coding in ["identity", "gzip"] {
        let body = json!({ "hash": hash, "name": "again.png", "tags": [], "preview_id": ids[1] });
        let body = body.to_string().into_bytes();
        let body = if coding == "gzip" { gzip(&body) } else { body };
        let made = ask(Method::POST, "/api/assets/from-hash", coding, body).await;
        assert_eq!(made.status, 201, "{}", made.text());
        assert!(made.json()["preview_id"].is_null(), "{}", made.text());
    }
}

/// The hash of a picture that was uploaded as an asset: those have one at once.
async fn upload_hash(world: &World) -> Value {
    let form = form("photo.png", &png(RED), &[("tags", "input,mine")]);
    let named = b"name=\"image\"";
    let at = form.windows(named.len()).position(|it| it == named).unwrap();
    let form = [&form[..at], b"name=\"file\"", &form[at + named.len()..]].concat();
    let kind = [("content-type", "multipart/form-data; boundary=xyz"), ("comfy-client-id", "ada")];
    let told = send_bytes(world.front, Method::POST, "/api/assets", &kind, form.into()).await;
    told.json()["hash"].clone()
}
