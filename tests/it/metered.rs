//! The bytes of an upload count as they arrive, and not as they are announced.

use std::num::NonZeroU64;

use http::Method;
use mooring::net::Stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::limits::{form, from, limit_of, upload, world};
use crate::support::{World, network, send, soon};

/// An upload on its way.
struct Sending(Stream);

impl Sending {
    /// Sends the head, and waits until its body is read. What the head says of the length is in
    /// `framing`.
    async fn begin(world: &World, path: &str, address: &str, framing: &str) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nX-Forwarded-For: {address}\r\n\
             Content-Type: multipart/form-data; boundary=xyz\r\n{framing}\r\n\
             Expect: 100-continue\r\nConnection: close\r\n\r\n",
            world.front
        );
        let (host, port) = (world.front.ip().to_string(), world.front.port());
        let mut stream = network().connect(&host, port).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut proceed = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        soon("its body is read", stream.read_exact(&mut proceed)).await.unwrap();
        assert_eq!(&proceed, b"HTTP/1.1 100 Continue\r\n\r\n");
        Self(stream)
    }

    async fn chunk(&mut self, data: &str) {
        let text = format!("{:x}\r\n{data}\r\n", data.len());
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends nothing any more, and reads what comes.
    async fn break_off(mut self) -> String {
        self.0.shutdown().await.unwrap();
        self.answer().await
    }

    async fn answer(mut self) -> String {
        let mut read = String::new();
        soon("the answer", self.0.read_to_string(&mut read)).await.unwrap();
        read
    }
}

async fn limited(each: u64, all: u64) -> World {
    world(|config| {
        config.limits.user_upload_bytes_per_day = NonZeroU64::new(each);
        config.limits.all_upload_bytes_per_day = NonZeroU64::new(all);
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_only_announced_takes_nothing_from_others() {
    let world = limited(0, 10_000).await;
    let here = from("192.0.2.1");
    let announced = "Content-Length: 10000";
    let idle = Sending::begin(&world, "/upload/image", "192.0.2.2", announced).await;
    assert_eq!(upload(&world, &here, 9_000).await.status, 200);
    // Now it would be too much.
    let refused = upload(&world, &here, 1_001).await;
    assert_eq!(limit_of(&refused), "all_upload_bytes_per_day");
    drop(idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_pays_for_what_came() {
    let chunked = "Transfer-Encoding: chunked";
    let body = form("harbour.png", 9_000);
    for (path, framing) in [
        ("/upload/image", "Content-Length: 9000"),
        ("/upload/image", chunked),
        ("/upload/mask", "Content-Length: 9000"),
        ("/upload/mask", chunked),
    ] {
        let world = limited(10_000, 0).await;
        let here = from("192.0.2.1");
        let mut sending = Sending::begin(&world, path, "192.0.2.1", framing).await;
        match framing == chunked {
            true => sending.chunk(&body[..6_000]).await,
            false => sending.0.write_all(&body.as_bytes()[..6_000]).await.unwrap(),
        }
        sending.break_off().await;
        let refused = upload(&world, &here, 4_001).await;
        assert_eq!(limit_of(&refused), "user_upload_bytes_per_day", "{path} {framing}");
        assert_eq!(upload(&world, &here, 4_000).await.status, 200, "{path} {framing}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_becomes_too_much_is_refused_and_leaves_no_half_file() {
    for path in ["/upload/image", "/upload/mask", "/pack/bring"] {
        let world = limited(10_000, 0).await;
        let framing = "Transfer-Encoding: chunked";
        let mut sending = Sending::begin(&world, path, "192.0.2.1", framing).await;
        let body = form("half.png", 12_000);
        sending.chunk(&body[..6_000]).await;
        sending.chunk(&body[6_000..]).await;
        let refused = sending.answer().await;
        assert!(refused.starts_with("HTTP/1.1 429 "), "{path}: {refused}");
        assert!(refused.contains("mooring-error: limit_reached"), "{path}: {refused}");
        assert!(refused.contains("limits.user_upload_bytes_per_day"), "{path}: {refused}");
        let asked = "/view?filename=half.png&type=input";
        let there = send(world.sims[0].addr(), Method::GET, asked, &[], "").await;
        assert_eq!(there.status, 404, "{path}");
        let refused = upload(&world, &from("192.0.2.1"), 1_000).await;
        assert_eq!(limit_of(&refused), "user_upload_bytes_per_day", "{path}: it was paid for");
    }
}
