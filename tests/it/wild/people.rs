//! Who is meant where nobody says a name, and where many say the same.

use http::Method;
use mooring::config::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Cases;
use crate::passthrough::{Act, world as puppet_world};
use crate::support::{Answer, World, network, quick, send, slow, soon, until};

fn behind_a_proxy(config: &mut Config) {
    config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

async fn post(world: &World, address: &str, path: &str, body: &str) -> Answer {
    let headers = [("x-forwarded-for", address)];
    send(world.front, Method::POST, path, &headers, body).await
}

async fn get(world: &World, address: &str, path: &str) -> Answer {
    send(world.front, Method::GET, path, &[("x-forwarded-for", address)], "").await
}

async fn submit(world: &World, address: &str, client: Option<&str>, graph: &Value) -> String {
    let mut body = json!({ "prompt": graph });
    if let Some(client) = client {
        body["client_id"] = json!(client);
    }
    post(world, address, "/prompt", &body.to_string()).await.prompt_id()
}

async fn all_ended(world: &World) {
    until("all have ended", || {
        world.gateway.sessions.clients.all().iter().all(|client| client.pending().is_empty())
    })
    .await;
}

/// As ComfyUI reads it: what is no JSON, and an id that is nothing, mean whatever runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_from_the_address_of_one_client_is_its_own() {
    let mut cases = Cases::default();
    let world = World::with(1, behind_a_proxy).await;
    world.all_up().await;
    for (number, (name, path, body, status)) in [
        ("SillyTavern: an empty object", "/interrupt", "{}", 200),
        ("fetch without a body", "/api/interrupt", "", 200),
        ("a form", "/interrupt", "interrupt=1", 200),
        ("an id of null", "/interrupt", "{\"prompt_id\": null}", 200),
        ("an empty id", "/interrupt", "{\"prompt_id\": \"\"}", 200),
        ("a clientId in the body", "/interrupt", "{\"client_id\": \"x\"}", 200),
        ("spaces", "/interrupt", " \r\n", 200),
        ("a byte order mark", "/interrupt", "\u{feff}{}", 200),
        ("a list", "/interrupt", "[]", 400),
        ("null", "/interrupt", "null", 400),
    ]
    .into_iter()
    .enumerate()
    {
        let (address, client) = (format!("10.0.1.{number}"), format!("tavern{number}"));
        let prompt = submit(&world, &address, Some(&client), &slow(500, 600.0)).await;
        until("it runs", || world.sim("a").ledger().executed.contains_key(&prompt)).await;
        let answer = post(&world, &address, path, body).await;
        let is_over = answer.status == 200;
        if is_over {
            until("it is interrupted", || world.sim("a").ledger().interrupted.contains(&prompt))
                .await;
        } else {
            let path = format!("/interrupt?clientId={client}");
            assert_eq!(post(&world, &address, &path, "").await.status, 200);
        }
        all_ended(&world).await;
        cases.case(name, answer.status, status);
    }
    // Whoever shares the address with another is nobody.
    let prompt = submit(&world, "10.0.2.1", Some("one"), &slow(500, 600.0)).await;
    get(&world, "10.0.2.1", "/queue?clientId=two").await;
    for (name, path, body) in [
        ("two at one address", "/interrupt", "{}"),
        ("a queue is never cleared so", "/queue", "{\"clear\": true}"),
        ("nor a history", "/api/history", "{\"clear\": true}"),
    ] {
        let answer = post(&world, "10.0.2.1", path, body).await;
        let found = (answer.status, answer.header("mooring-error").to_owned());
        cases.case(name, found, (403, "nameless".to_owned()));
    }
    let elsewhere = post(&world, "10.0.2.2", "/interrupt", "{}").await.status;
    cases.case("from another address", elsewhere, 403);
    let runs = !world.sim("a").ledger().interrupted.contains(&prompt);
    cases.case("and it runs on", runs, true);
    cases.end(15);
}

/// In full to whoever sent them, to nobody else at all: never a success without its outputs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_script_without_a_name_has_made_is_told_to_it() {
    let world = World::with(2, behind_a_proxy).await;
    world.all_up().await;
    let mut made = Vec::new();
    for color in 0..3 {
        made.push(submit(&world, "10.0.0.1", None, &quick(color)).await);
        all_ended(&world).await;
    }
    let last = made.last().unwrap().clone();
    let mut cases = Cases::default();
    for (name, path, right) in [
        ("all of it", "/history", made.clone()),
        ("under /api", "/api/history", made.clone()),
        ("the last one", "/history?max_items=1", vec![last.clone()]),
        ("the last two, under /api", "/api/history?max_items=2", made[1..].to_vec()),
        ("from an offset", "/history?max_items=1&offset=0", vec![made[0].clone()]),
        ("one by its id", &format!("/history/{last}"), vec![last.clone()]),
    ] {
        let read = |answer: &Answer| -> Vec<(String, bool)> {
            let json = answer.json();
            let entries = json.as_object().unwrap().iter();
            entries
                .map(|(id, entry)| {
                    let image = &entry["outputs"]["3"]["images"][0]["filename"];
                    (id.clone(), image.is_string())
                })
                .collect()
        };
        let found = read(&get(&world, "10.0.0.1", path).await);
        let right: Vec<_> = right.into_iter().map(|id| (id, true)).collect();
        // Whoever knows an id may ask for it.
        let others = if path.contains(&last) { right.clone() } else { Vec::new() };
        let there = read(&get(&world, "10.0.0.9", path).await);
        cases.case(name, (found, there), (right, others));
    }
    let jobs = get(&world, "10.0.0.1", "/api/jobs?limit=1").await.json();
    let preview = jobs["jobs"][0]["preview_output"]["filename"].is_string();
    cases.case("its jobs", (jobs["jobs"].as_array().map(Vec::len), preview), (Some(1), true));
    let jobs = get(&world, "10.0.0.9", "/api/jobs").await.json();
    cases.case("and of another none", jobs["jobs"].as_array().map(Vec::len), Some(0));
    cases.end(8);
}

/// One constant id of many users, each at an address of his own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_all_users_of_a_tool_share_is_a_client_for_each_address() {
    let world = World::with(2, |config| {
        behind_a_proxy(config);
        config.affinity.shared_ids =
            ["533ef3a3-39c0-4e39-9ced-37d290f371f8", "ツール"].map(str::to_owned).to_vec();
    })
    .await;
    world.all_up().await;
    let tool = "533ef3a3-39c0-4e39-9ced-37d290f371f8";
    let mut cases = Cases::default();
    for (name, address, client, right) in [
        ("by IPv4", "10.0.0.1", tool, format!("{tool}@10.0.0.1")),
        ("by another", "10.0.0.2", tool, format!("{tool}@10.0.0.2")),
        ("by IPv6", "2001:db8::1", tool, format!("{tool}@2001:db8::1")),
        ("by IPv6, written long", "2001:DB8:0:0::2", tool, format!("{tool}@2001:db8::2")),
        ("with a port behind it", "10.0.0.3:4711", tool, format!("{tool}@10.0.0.3")),
        ("through two proxies", "10.0.0.4, 127.0.0.7", tool, format!("{tool}@10.0.0.4")),
        ("an id in Japanese", "10.0.0.1", "ツール", "ツール@10.0.0.1".to_owned()),
        ("one that nobody listed", "10.0.0.1", "other", "other".to_owned()),
        ("one in capitals", "10.0.0.1", "TOOL", "TOOL".to_owned()),
        (
            "another's, spelled out",
            "10.0.0.2",
            &format!("{tool}@10.0.0.1"),
            format!("{tool}@10.0.0.2"),
        ),
    ] {
        submit(&world, address, Some(client), &quick(1)).await;
        let clients = world.gateway.sessions.clients.all();
        let is_known = clients.iter().any(|it| it.id.as_str() == right);
        let headers = [("x-forwarded-for", address)];
        let escaped =
            percent_encoding::utf8_percent_encode(client, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/-/whoami?clientId={escaped}");
        let me = send(world.front, Method::GET, &path, &headers, "").await.json();
        let told = me["client_id"].as_str().unwrap_or_default().to_owned();
        cases.case(name, (is_known, told), (true, right));
    }
    cases.end(10);
}

async fn page(world: &World, accept: &str, path: &str) -> String {
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    let mut stream = network().connect(&host, port).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    soon("an answer", stream.read_to_end(&mut read)).await.unwrap();
    String::from_utf8_lossy(&read).to_lowercase()
}

/// Pages of packs are pages: whoever opens one has a name from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_gets_its_name_with_any_page() {
    let answer = |lines: &str| {
        Act::Answer(vec![format!("HTTP/1.1 200 OK\r\n{lines}\r\nContent-Length: 2\r\n\r\nhi")])
    };
    let html = answer("Content-Type: Text/HTML; charset=utf-8");
    let json = answer("Content-Type: application/json");
    let shared = answer("Content-Type: text/html\r\nCache-Control: public, max-age=60");
    let pages = [
        ("/tavern/index", html.clone()),
        ("/api/gallery", html.clone()),
        ("/pack/data", json),
        ("/pack/shared", shared),
    ];
    let (world, _puppet) = puppet_world(&pages, |_| {}).await;
    let navigation = "Accept: text/html,application/xhtml+xml\r\nSec-Fetch-Mode: navigate\r\n\
        Sec-Fetch-Dest: document\r\nSec-Fetch-Site: none";
    let mut cases = Cases::default();
    for (name, path, lines, right) in [
        ("the page", "/", navigation, true),
        ("with a query", "/?workflow=x", navigation, true),
        ("a front end of a pack", "/tavern/index", navigation, true),
        ("the same under /api", "/api/gallery", navigation, true),
        ("in small letters", "/tavern/index", "accept: application/xml,text/html;q=0.9", true),
        ("a page that many share", "/pack/shared", navigation, false),
        ("data that is opened", "/pack/data", navigation, false),
        ("a script's read", "/tavern/index", "Accept: application/json", false),
        ("code of a page", "/tavern/index", "Accept: */*\r\nSec-Fetch-Mode: cors", false),
    ] {
        let answer = page(&world, lines, path).await;
        cases.case(name, answer.contains("set-cookie: mooring="), right);
    }
    cases.end(9);
}
