//! Tools that give all their users one clientId, and names that are secrets.

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, World, network, quick, send, soon};

async fn from(world: &World, address: &str, path: &str, body: Option<&str>) -> Answer {
    let headers = [("x-forwarded-for", address), ("content-type", "application/json")];
    let method = if body.is_some() { Method::POST } else { Method::GET };
    send(world.front, method, path, &headers, body.unwrap_or("")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_id_of_many_users_is_a_client_for_each_address() {
    let world = World::with(2, |config| {
        config.affinity.shared_ids = vec!["tool".to_owned()];
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    world.all_up().await;
    let submit = |client: &str| json!({ "client_id": client, "prompt": quick(1) }).to_string();
    let mut made = Vec::new();
    for address in ["10.0.0.1", "10.0.0.2", "10.0.0.1"] {
        let answer = from(&world, address, "/prompt", Some(&submit("tool"))).await;
        made.push((answer.prompt_id(), answer.backend().to_owned()));
    }
    let mut clients: Vec<String> =
        world.gateway.sessions.clients.all().iter().map(|client| client.id.to_string()).collect();
    clients.sort();
    assert_eq!(clients, ["tool@10.0.0.1", "tool@10.0.0.2"]);
    // Through the passthrough and beside it; and spelled out by a stranger.
    for (address, name, expected) in [
        ("10.0.0.1", "tool", "tool@10.0.0.1"),
        ("10.0.0.2", "tool@10.0.0.1", "tool@10.0.0.2"),
        ("10.0.0.2", "tool@10.0.0.2", "tool@10.0.0.2"),
        ("10.0.0.2", "toolbox", "toolbox"),
    ] {
        let me = from(&world, address, &format!("/-/whoami?clientId={name}"), None).await;
        assert_eq!(me.json()["client_id"], expected);
        from(&world, address, &format!("/object_info?clientId={name}"), None).await;
    }
    assert_eq!(world.gateway.sessions.clients.len(), 3);
    let sids: Vec<String> = world.sims.iter().flat_map(|sim| sim.sids()).collect();
    assert!(!sids.contains(&"tool".to_owned()), "each has a name of its own: {sids:?}");
}

/// A proxy speaks for many on one connection, and who asked there last is not who asks now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_name_is_whose_it_is_on_a_connection_of_many() {
    let world = World::with(1, |config| {
        config.affinity.shared_ids = vec!["tool".to_owned()];
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    world.all_up().await;
    let ask = |address: &str, name: &str, connection: &str| {
        format!(
            "GET /system_stats?clientId={name} HTTP/1.1\r\nHost: gw\r\nConnection: {connection}\r\n\
             X-Forwarded-For: {address}\r\n\r\n"
        )
    };
    // By his own name first, then spelled out by another.
    let requests = ask("10.0.0.1", "tool@10.0.0.1", "keep-alive")
        + &ask("10.0.0.2", "tool@10.0.0.1", "keep-alive")
        + &ask("10.0.0.3", "tool", "close");
    let front = world.front;
    let mut stream = network().connect(&front.ip().to_string(), front.port()).await.unwrap();
    stream.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    soon("all answers", stream.read_to_end(&mut answers)).await.unwrap();
    let answers = String::from_utf8_lossy(&answers).into_owned();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    let clients = world.gateway.sessions.clients.all();
    let mut names: Vec<String> = clients.iter().map(|client| client.id.to_string()).collect();
    names.sort();
    assert_eq!(names, ["tool@10.0.0.1", "tool@10.0.0.2", "tool@10.0.0.3"]);
}

/// The page's log panel says in the body who it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_name_in_a_body_is_the_same_client_as_in_a_query() {
    let world = World::with(1, |config| {
        config.affinity.shared_ids = vec!["tool".to_owned()];
        config.server.allow_logs = true;
    })
    .await;
    world.all_up().await;
    let mut socket = world.socket("tool").await;
    socket.until("status").await;
    let body = r#"{"clientId": "tool", "enabled": true}"#;
    let path = "/internal/logs/subscribe";
    let answer = send(world.front, Method::PATCH, path, &[], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    socket.until("logs").await;
    let clients = world.gateway.sessions.clients.all();
    let names: Vec<String> = clients.iter().map(|client| client.id.to_string()).collect();
    assert_eq!(names, ["tool@127.0.0.1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_names_a_client_as_the_log_does() {
    let world = World::new(1).await;
    world.all_up().await;
    world.get("/object_info?clientId=a%20secret").await;
    let clients = world.admin_get("/api/v1/clients").await.json();
    let hash = clients["clients"][0]["hash"].as_str().unwrap().to_owned();
    assert!(hash.starts_with("c-") && !hash.contains("secret"), "{clients}");
    let one = world.admin_get(&format!("/api/v1/clients/{hash}")).await;
    assert_eq!(one.json()["client_id"], "a secret");
    let why = world.admin_get(&format!("/api/v1/explain?client={hash}")).await;
    assert_eq!(why.json()["client"]["client_id"], "a secret", "{}", why.text());
    let gone = world.admin_post(&format!("/api/v1/clients/{hash}/release"), "{}").await;
    assert_eq!(gone.status, 200, "{}", gone.text());
    assert_eq!(world.admin_get("/api/v1/clients/c-0000000000").await.status, 404);
}
