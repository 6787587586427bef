//! What a backend gets on the wire for a request whose body we do not pass on, or have read: a
//! length that is not kept, or a charset that was not checked, would make two truths of one.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{PATIENCE, World, network, quick, send, slow};

/// Sends raw bytes and reads what comes until the other side closes.
async fn raw(to: std::net::SocketAddr, bytes: &str) -> String {
    let mut stream = network().connect(&to.ip().to_string(), to.port()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
    read.await.expect("it is answered and closed").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A `GET` with a body that is dropped: its length must not reach the backend, where the next
/// request on the connection would be taken for that body.
#[tokio::test]
async fn a_question_for_history_with_a_body_leaves_no_length_on_the_wire() {
    let world = World::new(1).await;
    let prompt = world.submit("ada", &quick(1)).await.prompt_id();
    world.socket("ada").await.until_end(&prompt).await;
    let smuggled = "GET /queue?smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let request = format!(
        "GET /history/{prompt} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\
         \r\n{smuggled}",
        smuggled.len()
    );
    let answer = raw(world.front, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = world.sim("a").requests();
    let asked = seen.iter().rfind(|it| it.target == format!("/history/{prompt}")).unwrap();
    assert_eq!(asked.headers.get("content-length"), None);
    assert!(!seen.iter().any(|it| it.target.contains("smuggled")));
}

/// What was checked as UTF-8 is sent as that, whatever charset its client named.
#[tokio::test]
async fn a_submission_is_sent_as_what_it_was_read_as() {
    let world = World::new(1).await;
    let body = json!({ "client_id": "ada", "prompt": slow(1, 0.01) }).to_string();
    let kind = [("content-type", "application/json; charset=latin1"), ("accept-encoding", "gzip")];
    let answer = send(world.front, http::Method::POST, "/prompt", &kind, &body).await;
    answer.prompt_id();
    let seen = world.sim("a").requests();
    let sent = seen.iter().rfind(|it| it.target == "/prompt" && it.method == "POST").unwrap();
    assert_eq!(sent.headers.get("content-type").unwrap(), "application/json");
    assert_eq!(sent.headers.get("accept-encoding"), None);
}

/// Bodies that drip hold what they have sent, and not what they have promised.
#[tokio::test]
async fn promised_bodies_do_not_use_up_the_room_for_others() {
    let world = World::with(1, |config| {
        config.prompts.max_body = 1 << 20;
        config.prompts.max_bodies_total = 1 << 20;
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..8 {
        let to = world.front;
        let mut stream = network().connect(&to.ip().to_string(), to.port()).await.unwrap();
        let head = "POST /prompt HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        open.push(stream);
    }
    world.submit("ada", &quick(1)).await.prompt_id();
    drop(open);
}
