//! `Comfy-User`, by which servers with several users (`--multi-user`) tell them apart: where users
//! are required, a client cannot set it, and `auth.comfy_user` says it to each server in its own
//! words.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use mooring::config::OnOff;
use mooring::fleet::user_ids::{NoUserId, UserId};
use mooring::sim::{Options, Sim};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::keys::keys;
use crate::passthrough::{Act, world as puppet_world};
use crate::secrets::headers;
use crate::support::{Answer, PATIENCE, World, network, quick, send, soon, until};

/// What somebody else is called at a server.
const BOB: &str = "bob_8d7f2c";

/// How a client may write the header.
const CLAIMS: [&str; 6] = [
    "Comfy-User: bob_8d7f2c",
    "comfy-user:bob_8d7f2c",
    "COMFY-USER: \tbob_8d7f2c ",
    "cOmFy-uSeR: bob_8d7f2c\r\nComfy-User: bob_8d7f2c",
    "Comfy-User: \r\nX-Between: 1\r\nComfy-User: bob_8d7f2c",
    "Connection: x-other\r\nComfy-User: bob_8d7f2c\r\nX-Other: 1",
];

/// Plain reads, and what hyper's way answers, by every kind of handler.
const ASKED: [&str; 12] = [
    "GET /mark/pack",
    "HEAD /mark/pack",
    "GET /system_stats?mark",
    "GET /object_info?mark",
    "GET /embeddings?filename=mark",
    "GET /?mark",
    "GET /settings?mark",
    "GET /userdata?dir=mark",
    "GET /api/userdata/mark",
    "POST /userdata/mark",
    "POST /settings/mark",
    "POST /mark/pack",
];

/// A socket of a node pack's.
const TUNNEL: &str = "GET /tunnelled/echo?mark HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Sends a head, and reads until an answer has begun.
async fn raw(world: &World, head: &str) -> String {
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    let mut stream = network().connect(&host, port).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("\r\n\r\n") {
        assert_ne!(soon("an answer", stream.read_buf(&mut read)).await.unwrap(), 0, "{head}");
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// What a backend was told of users in requests of clients, one line for each.
fn told(sim: &Sim) -> Vec<String> {
    let marked = sim.requests().into_iter().filter(|it| it.target.contains("mark"));
    let line = |it: mooring::sim::Seen| {
        format!("{} {} {:?}", it.method, it.target, it.headers.get_all("comfy-user"))
    };
    marked.map(line).collect()
}

async fn claim_everywhere(world: &World, key: &str) {
    for claim in CLAIMS {
        for line in ASKED {
            // Its body is empty, so the server refuses it: what counts is what it was told.
            let length = if line.starts_with("POST") { "Content-Length: 0\r\n" } else { "" };
            let head = format!("{line} HTTP/1.1\r\nHost: gw\r\n{key}{claim}\r\n{length}\r\n");
            raw(world, &head).await;
        }
        let answer = raw(world, &format!("{TUNNEL}{key}{claim}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "{claim}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_cannot_say_who_he_is_at_a_server() {
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = World::with(1, |config| {
            config.auth = keys();
            config.server.passthrough = passthrough;
        })
        .await;
        world.all_up().await;
        claim_everywhere(&world, "X-Api-Key: key-of-ada\r\n").await;
        let told = told(world.sim("a"));
        assert!(CLAIMS.len() * ASKED.len() <= told.len(), "{told:#?}");
        for line in told {
            assert!(!line.contains(BOB), "{line}");
        }
        // Nobody who is refused gets through either.
        let answer = raw(&world, "GET /mark HTTP/1.1\r\nHost: gw\r\nComfy-User: ada\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
}

/// What a save has read again on the disk of the gateway is asked for in nobody else's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_again_after_a_save_claims_nobody() {
    let world = World::with(1, |config| config.auth = keys()).await;
    world.all_up().await;
    let path = "/userdata/mark.json?overwrite=true";
    let headers = [("x-api-key", "key-of-ada"), ("comfy-user", BOB)];
    let saved = send(world.front, Method::POST, path, &headers, "{}").await;
    assert_eq!(saved.status, 200, "{}", saved.text());
    let read = || told(world.sim("a")).iter().any(|line| line.starts_with("GET"));
    until("the file is read again", read).await;
    for line in told(world.sim("a")) {
        assert!(!line.contains(BOB), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_off_it_passes_on_as_it_came() {
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = World::with(1, |config| config.server.passthrough = passthrough).await;
        world.all_up().await;
        for path in ["/mark/pack", "/settings?mark"] {
            send(world.front, Method::GET, path, &[("comfy-user", BOB)], "").await;
        }
        let told = told(world.sim("a"));
        assert_eq!(told.iter().filter(|line| line.contains(BOB)).count(), 2, "{told:#?}");
    }
}

/// What a server was told of users in requests for a path, the last one first.
fn named(sim: &Sim, mark: &str) -> Vec<Option<String>> {
    let seen = sim.requests().into_iter().rev().filter(|it| it.target.contains(mark));
    let value = |it: mooring::sim::Seen| {
        let mut lines = it.headers.get_all("comfy-user").iter();
        let first = lines.next().map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(lines.next(), None, "one line");
        first
    };
    seen.map(value).collect()
}

/// The users of a server: names, and what it calls them.
async fn users_of(sim: &Sim) -> BTreeMap<String, String> {
    let told = send(sim.addr(), Method::GET, "/users", &[], "").await.json();
    let ids: BTreeMap<String, String> = serde_json::from_value(told["users"].clone()).unwrap();
    let count = ids.len();
    let names: BTreeMap<_, _> = ids.into_iter().map(|(id, name)| (name, id)).collect();
    assert_eq!(names.len(), count, "nobody is there twice: {names:?}");
    names
}

async fn server(name: &str, multi_user: bool) -> Sim {
    let options = Options { multi_user, assets: true, ..Options::named(name) };
    Sim::start(network(), options).await.unwrap()
}

async fn mapping(sims: Vec<Sim>, passthrough: OnOff) -> World {
    let world = World::over(sims, |config| {
        config.auth = keys();
        config.auth.comfy_user = OnOff::On;
        config.server.passthrough = passthrough;
    })
    .await;
    world.all_up().await;
    world
}

async fn ask(world: &World, who: &str, method: Method, path: &str, body: &str) -> Answer {
    let headers = [("x-api-key", who), ("comfy-user", BOB), ("connection", "comfy-user")];
    send(world.front, method, path, &headers, body).await
}

async fn get(world: &World, who: &str, path: &str) -> Answer {
    ask(world, who, Method::GET, path, "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_is_told_who_a_user_is_there() {
    for passthrough in [OnOff::On, OnOff::Off] {
        let sims = vec![server("a", true).await, server("b", true).await, server("c", false).await];
        // This one was there before, and is found by name.
        let body = r#"{"username": "bob"}"#;
        send(sims[1].addr(), Method::POST, "/users", &[], body).await;
        let world = mapping(sims, passthrough).await;
        let mut met = BTreeSet::new();
        for (key, name) in [("key-of-ada", "ada"), ("key-of-bob", "bob")] {
            for tab in 0..6 {
                for path in ["/mark/plain", "/embeddings?filename=mark"] {
                    let key = ("x-api-key", key);
                    let tab = format!("{name}-{tab}");
                    let headers = [key, ("comfy-client-id", &tab), ("comfy-user", BOB)];
                    let path = format!("{path}-{tab}");
                    for _twice in 0..2 {
                        let answer = send(world.front, Method::GET, &path, &headers, "").await;
                        let sim = world.sim(answer.backend());
                        let expected = match sim.name() {
                            "c" => None,
                            _ => Some(users_of(sim).await[name].clone()),
                        };
                        let told = &named(sim, &path)[0];
                        assert_eq!(*told, expected, "{name} at {}: {path}", sim.name());
                        met.insert(sim.name().to_owned());
                    }
                    let body = json!({ "client_id": tab, "prompt": quick(7) }).to_string();
                    let prompt = send(world.front, Method::POST, "/prompt", &headers, &body).await;
                    assert_eq!(prompt.status, 200, "{}", prompt.text());
                }
            }
        }
        assert_eq!(met.len(), 3, "{met:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_of_a_pack_is_opened_for_its_user() {
    let world = mapping(vec![server("a", true).await], OnOff::On).await;
    let head = format!("{TUNNEL}X-Api-Key: key-of-ada\r\n{}\r\n\r\n", CLAIMS[0]);
    assert!(raw(&world, &head).await.starts_with("HTTP/1.1 101"));
    let ada = users_of(world.sim("a")).await["ada"].clone();
    assert_eq!(named(world.sim("a"), "/tunnelled/echo"), [Some(ada)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_user_is_made_once_however_many_ask_at_once() {
    let world = mapping(vec![server("a", true).await], OnOff::On).await;
    let asked = (0..24).map(|number| {
        let path = if number % 2 == 0 { "/mark/at-once" } else { "/settings" };
        let key = if number % 3 == 0 { "key-of-ada" } else { "key-of-bob" };
        let world = &world;
        async move { get(world, key, path).await.status }
    });
    let statuses = futures_util::future::join_all(asked).await;
    assert!(statuses.iter().all(|status| *status != 503), "{statuses:?}");
    let sim = world.sim("a");
    let is_made = |it: &mooring::sim::Seen| it.method == "POST" && it.target == "/users";
    assert_eq!(sim.requests().iter().filter(|it| is_made(it)).count(), 2);
    assert_eq!(users_of(sim).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_user_has_his_own_settings_and_files_also_while_the_home_is_away() {
    let world = mapping(vec![server("a", true).await], OnOff::On).await;
    let home = world.sim("a");
    for (key, colour) in [("key-of-ada", "\"red\""), ("key-of-bob", "\"blue\"")] {
        let saved = ask(&world, key, Method::POST, "/settings/colour", colour).await;
        assert_eq!(saved.status, 200, "{}", saved.text());
        let path = "/userdata/w.json?overwrite=true";
        let saved = ask(&world, key, Method::POST, path, &format!("{{\"is\": {colour}}}")).await;
        assert_eq!(saved.status, 200, "{}", saved.text());
    }
    let both = [("key-of-ada", "red"), ("key-of-bob", "blue")];
    for (key, colour) in both {
        let settings = get(&world, key, "/settings").await;
        assert_eq!(settings.json()["colour"], colour, "{}", settings.text());
        let file = get(&world, key, "/userdata/w.json").await;
        assert_eq!(file.json()["is"], colour, "{}", file.text());
    }
    home.crash().await;
    world.is_down("a").await;
    for (key, colour) in both {
        let settings = get(&world, key, "/settings").await;
        assert_eq!(settings.json()["colour"], colour, "{}", settings.text());
        assert!(!settings.header("mooring-stale").is_empty());
    }
    // Who has no copy gets nobody else's.
    let other = get(&world, "key-of-vic", "/settings").await;
    assert_eq!(other.status, 503, "{}", other.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_server_was_down_it_is_asked_again() {
    let world = mapping(vec![server("a", true).await], OnOff::On).await;
    let sim = world.sim("a");
    get(&world, "key-of-ada", "/mark/before").await;
    let before = users_of(sim).await["ada"].clone();
    sim.forget_users();
    sim.crash().await;
    world.is_gone("a").await;
    sim.restart().await.unwrap();
    world.all_up().await;
    get(&world, "key-of-ada", "/mark/after").await;
    let after = users_of(sim).await["ada"].clone();
    assert_ne!(before, after);
    assert_eq!(named(sim, "/mark/after"), [Some(after)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_user_learns_nothing_of_others_and_makes_nobody() {
    for comfy_user in [OnOff::On, OnOff::Off] {
        let world = World::over(vec![server("a", true).await], |config| {
            config.auth = keys();
            config.auth.comfy_user = comfy_user;
        })
        .await;
        world.all_up().await;
        let sim = world.sim("a");
        let before = users_of(sim).await;
        for path in ["/users", "/api/users", "/%75sers", "/users?x=1"] {
            let told = get(&world, "key-of-ada", path).await;
            assert_eq!(told.status, 200, "{path}");
            assert_eq!(told.json(), json!({ "storage": "server", "migrated": true }), "{path}");
            let body = r#"{"username": "eve"}"#;
            let made = ask(&world, "key-of-ada", Method::POST, path, body).await;
            let told = (made.status, made.header("mooring-error"));
            assert_eq!(told, (403, "users_are_given"), "{path}: {}", made.text());
        }
        assert_eq!(users_of(sim).await, before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_made_at_a_server_is_told_to_wait() {
    for passthrough in [OnOff::On, OnOff::Off] {
        told_to_wait(passthrough).await;
    }
}

async fn told_to_wait(passthrough: OnOff) {
    let users = r#"{"storage": "server", "users": {"bob_1": "bob"}}"#;
    let broken = format!(
        "HTTP/1.1 500 bob_1\r\nX-Users: bob_1\r\nContent-Length: {}\r\n\r\n{users}",
        users.len()
    );
    let acts = [("/users", Act::Answer(vec![broken]))];
    let (world, _puppet) = puppet_world(&acts, |config| {
        config.auth = keys();
        config.auth.comfy_user = OnOff::On;
        config.server.passthrough = passthrough;
    })
    .await;
    let body = json!({ "client_id": "x", "prompt": quick(7) }).to_string();
    for (method, path, body) in [
        (Method::GET, "/mark/pack", ""),
        (Method::GET, "/settings", ""),
        (Method::POST, "/settings/colour", "1"),
        (Method::POST, "/prompt", body.as_str()),
    ] {
        let answer = ask(&world, "key-of-ada", method, path, body).await;
        let told = (answer.status, answer.header("mooring-error"), answer.header("retry-after"));
        assert_eq!(told, (503, "no_user_there", "2"), "{path}: {}", answer.text());
        assert!(!format!("{answer:?}").contains("bob_1"), "{path}: {answer:?}");
        assert_eq!(answer.json()["error"]["type"], "no_user_there", "{path}: {}", answer.text());
    }
    let queue = get(&world, "key-of-ada", "/queue").await.json();
    assert_eq!(queue["queue_pending"], json!([]), "nothing stays of a prompt that was not sent");
    let sent = world.sim("a").requests().into_iter().any(|it| it.target.contains("mark"));
    assert!(!sent, "nothing is sent in nobody's name");
}

/// The table that was read before a user could not be made is good for those who wait with him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_with_one_who_cannot_be_made_gets_his_own_id() {
    let users = r#"{"storage": "server", "users": {"bob_1": "bob"}}"#;
    let told = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{users}", users.len());
    // It answers so to him who is to be made as well, and that is no id.
    let acts = [("/users", Act::Answer(vec![told]))];
    let (world, puppet) = puppet_world(&acts, |_| {}).await;
    let backend = world.gateway.shared.fleet.iter().next().unwrap();
    // Each begins before the first has an answer.
    let asked = ["ada", "bob", "cy"].map(|name| backend.user_id(name, PATIENCE));
    let [ada, bob, cy] = futures_util::future::join_all(asked).await.try_into().unwrap();
    assert!(matches!(ada, Err(NoUserId::NotMade)), "{ada:?}");
    assert_eq!(bob.unwrap(), UserId::Is("bob_1".parse().unwrap()));
    assert!(matches!(cy, Err(NoUserId::NotMade)), "he was asked for himself: {cy:?}");
    let asked = puppet.asked().into_iter().filter(|(_, path)| path == "/users").count();
    assert_eq!(asked, 4, "the table, and one more request, for each of the two who are not in it");
}

/// Where one value is sent for everybody, nobody has to be known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_a_configured_user_is_not_asked_for_others() {
    const BROKEN: &str = "HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}";
    for passthrough in [OnOff::On, OnOff::Off] {
        let acts = [("/users", Act::Answer(vec![BROKEN.to_owned()]))];
        let (world, puppet) = puppet_world(&acts, |config| {
            config.auth = keys();
            config.auth.comfy_user = OnOff::On;
            config.server.passthrough = passthrough;
            config.backends[0].headers = headers("Comfy-User: all_1");
        })
        .await;
        for path in ["/mark/pack", "/settings"] {
            let answer = get(&world, "key-of-ada", path).await;
            assert_ne!(answer.status, 503, "{path}: {}", answer.text());
        }
        assert_eq!(named(world.sim("a"), "/mark/pack"), [Some("all_1".to_owned())]);
        let asked = puppet.asked();
        assert!(asked.iter().all(|(_, path)| path != "/users"), "{asked:?}");
    }
}

/// A server that tells users apart still shows each what belongs to nobody, such as all outputs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_is_asked_about_assets_for_a_user() {
    let world = mapping(vec![server("a", true).await, server("b", true).await], OnOff::On).await;
    for path in ["/api/assets", "/api/tags", "/api/assets/tags/refine"] {
        let list = get(&world, "key-of-ada", path).await;
        assert_eq!(list.status, 503, "{path}: {}", list.text());
        assert_eq!(list.json()["error"]["code"], "SERVICE_DISABLED");
        for sim in &world.sims {
            assert_eq!(named(sim, path), [None; 0]);
        }
    }
}
