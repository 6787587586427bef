//! `Comfy-User`, by which servers with several users (`--multi-user`) tell them apart: where users
//! are required, a client cannot set it.

use http::Method;
use mooring::config::OnOff;
use mooring::sim::Sim;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::keys::keys;
use crate::support::{World, network, send, soon, until};

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
