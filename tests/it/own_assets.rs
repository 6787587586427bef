//! Users have no assets: servers that keep some (`--enable-assets`) look to them like one that was
//! started without, and are not asked.

use http::Method;
use mooring::config::OnOff;
use mooring::sim::{Options, Seen, Sim};
use serde_json::{Value, json};

use crate::assets::asset_form;
use crate::owners::{TAB, User, both, world};
use crate::pictures::{RED, form, invert, png};
use crate::support::{Answer, World, network, quick, send};

const NAME: &str = "photo.png";

/// What was asked of servers about assets, or with the hash of a content.
fn asked(world: &World) -> Vec<String> {
    let is_about = |it: &Seen| {
        ["/assets", "/tags", "blake3"].iter().any(|part| it.target.contains(part))
            && !it.target.starts_with("/assets/")
    };
    let requests = world.sims.iter().flat_map(Sim::requests).filter(is_about);
    requests.map(|it| format!("{} {}", it.method, it.target)).collect()
}

/// The asset that a server has made of an upload: its id and its hash.
fn asset_of(answer: &Answer) -> (String, String) {
    let asset = answer.json()["asset"].clone();
    let text = |key: &str| asset[key].as_str().unwrap_or_else(|| panic!("{asset}")).to_owned();
    (text("id"), text("asset_hash"))
}

async fn ask_all(user: &User, (id, hash): (&str, &str)) -> Vec<(String, Answer)> {
    let escaped = hash.replace(':', "%3A");
    let mut answers = Vec::new();
    for (method, path, body) in [
        (Method::GET, "/api/assets".to_owned(), ""),
        (Method::GET, "/api/tags".to_owned(), ""),
        (Method::GET, format!("/api/assets/{id}"), ""),
        (Method::GET, format!("/api/assets/{id}/content"), ""),
        (Method::PUT, format!("/api/assets/{id}"), r#"{"name": "x"}"#),
        (Method::DELETE, format!("/api/assets/{id}"), ""),
        (Method::POST, "/api/assets/from-hash".to_owned(), &*format!(r#"{{"hash": "{hash}"}}"#)),
        (Method::POST, "/api/assets".to_owned(), "{}"),
    ] {
        let answer = user.ask(method.clone(), &path, body).await;
        answers.push((format!("{method} {path}"), answer));
    }
    let picture = png(RED);
    for form in [
        asset_form(NAME, &picture, &[("tags", "input")]),
        asset_form(NAME, &picture, &[("tags", "input"), ("hash", hash)]),
        form("x", b"", &[("hash", hash), ("tags", "input")]),
    ] {
        answers.push(("a form".to_owned(), user.upload("/api/assets", form).await));
    }
    for path in [
        format!("/view?filename={hash}"),
        format!("/api/view?type=input&filename={escaped}"),
        format!("/view?filename={hash}&preview=webp;90"),
        format!("/viewvideo?filename={hash}"),
    ] {
        let answer = user.get(&path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_assets_is_to_users_as_one_without() {
    let plain = Sim::start(network(), Options::named("plain")).await.unwrap();
    let off = send(plain.addr(), Method::GET, "/api/assets", &[], "").await;
    assert_eq!(off.status, 503, "{}", off.text());
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = world(passthrough).await;
        let (ada, bob) = both(world.front);
        let loaded = ada.upload("/upload/image", form(NAME, &png(RED), &[])).await;
        let (id, hash) = asset_of(&loaded);
        for user in [&ada, &bob] {
            for (what, answer) in ask_all(user, (&id, &hash)).await {
                assert_eq!((answer.status, answer.json()), (503, off.json()), "{what}");
            }
            // In a graph it is the name of a file that is nowhere.
            let body = json!({ "prompt": invert(&hash), "client_id": TAB });
            let refused = user.post("/prompt", &body).await;
            assert_eq!(refused.status, 400, "{}", refused.text());
            assert!(refused.text().contains("Invalid image file"), "{}", refused.text());
            assert_eq!(user.get("/features").await.json()["assets"], false);
        }
        assert_eq!(asked(&world), [""; 0]);
        let has = world.sims[0].addr();
        assert_eq!(send(has, Method::GET, "/features", &[], "").await.json()["assets"], true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_socket_says_nothing_of_assets() {
    let world = world(OnOff::On).await;
    let (ada, _) = both(world.front);
    let mut socket = ada.socket(TAB).await;
    socket.say(r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#).await;
    assert_eq!(socket.until("feature_flags").await["data"]["assets"], false);
    // The end of each starts a scan, and the server tells every socket how much it has found.
    let mut kinds: Vec<String> = Vec::new();
    for color in 0..3 {
        let prompt = ada.submit(TAB, &quick(color)).await;
        loop {
            let event = socket.event().await;
            kinds.push(event["type"].as_str().unwrap().to_owned());
            let data = &event["data"];
            if event["type"] == "executing"
                && data["node"] == Value::Null
                && data["prompt_id"] == prompt.as_str()
            {
                break;
            }
        }
    }
    assert!(kinds.iter().any(|kind| kind == "executed"), "{kinds:?}");
    assert!(!kinds.iter().any(|kind| kind.starts_with("assets.")), "{kinds:?}");
}
