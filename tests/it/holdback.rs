//! Answers that come before their request was sent: they reach who goes on sending. Real sockets,
//! because only these have resets.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{World, network, soon, until};

/// More than all buffers between two sockets hold.
const LARGE: usize = 48 << 20;

/// Sends a request with a large body to its end, as a browser does, and then reads the answer. Its
/// error, or why there is none.
async fn sent_whole(to: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = network().connect("127.0.0.1", to.port()).await.unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: gw\r\n{headers}content-length: {LARGE}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 64 << 10];
    for number in 0..LARGE / piece.len() {
        if let Err(error) = stream.write_all(&piece).await {
            return format!("piece {number} was not taken: {error}");
        }
    }
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer).await {
        return format!("no answer: {error}");
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let error = answer.lines().find_map(|line| line.strip_prefix("mooring-error: "));
    error.map_or(answer.clone(), str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_before_its_request_is_sent_is_read() {
    let world = World::with(1, |config| config.prompts.max_body = 1 << 20).await;
    world.all_up().await;
    for (path, headers, told) in [
        // By its head, by the origin, by a route, by its length.
        ("/upload/image", "expect: x\r\n", "unknown_expectation"),
        ("/upload/image", "sec-fetch-site: cross-site\r\n", "foreign_origin"),
        ("/manager/reboot", "", "operators_only"),
        ("/prompt", "content-type: application/json\r\n", "body_too_large"),
    ] {
        let answered = soon(path, sent_whole(world.front, path, headers)).await;
        assert_eq!(answered, told, "{path} {headers}");
    }
    world.sim("a").crash().await;
    until("it is down", || world.gateway.shared.fleet.iter().all(|it| !it.is_up())).await;
    let answered = soon("down", sent_whole(world.front, "/pack/x", "")).await;
    assert_eq!(answered, "no_backend");
}
