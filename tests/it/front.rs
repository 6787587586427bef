//! The front door: what is passed on as it came, what is refused, and what no client can do.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, World, network, quick, send, soon, until};

/// Sends raw bytes and reads until the gateway closes, or until `enough` was read.
async fn raw(world: &World, bytes: &[u8], enough: impl Fn(&str) -> bool) -> String {
    let address = world.front;
    let mut stream = network().connect(&address.ip().to_string(), address.port()).await.unwrap();
    let mut read = Vec::new();
    soon("an answer", async {
        // A refusal may come, and the connection close, before all is written.
        let _ = stream.write_all(bytes).await;
        let mut chunk = [0; 4096];
        while !enough(&String::from_utf8_lossy(&read)) {
            match stream.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(count) => read.extend_from_slice(&chunk[..count]),
            }
        }
    })
    .await;
    String::from_utf8_lossy(&read).into_owned()
}

fn until_closed(_: &str) -> bool {
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_is_passed_on_byte_for_byte() {
    let world = World::new(1).await;
    let path = "/userdata/workflows%2Fa%20b.json?overwrite=true&x=%5B1%5D";
    let stored = world.post(path, "{\"a\": 1}").await;
    assert_eq!((stored.status, stored.text().as_str()), (200, "\"workflows/a b.json\""));
    let seen = world.sim("a").requests();
    assert!(seen.iter().any(|it| it.target == path), "{seen:?}");
    let read = world.get("/api/userdata/workflows%2Fa%20b.json").await;
    assert_eq!((read.status, read.text().as_str()), (200, "{\"a\": 1}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_heads_and_validators_work_as_on_comfyui() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &quick(7)).await.prompt_id();
    socket.until_end(&prompt).await;
    let path = "/view?filename=test_00001_.png&clientId=ada";
    let whole = world.get(path).await;
    assert_eq!(whole.header("cache-control"), "private, no-cache");
    let ranged = send(world.front, Method::GET, path, &[("range", "bytes=1-3")], "").await;
    assert_eq!((ranged.status, &ranged.body[..]), (206, &b"PNG"[..]));
    let head = send(world.front, Method::HEAD, path, &[], "").await;
    assert_eq!(head.header("content-length"), whole.body.len().to_string());
    assert!(head.body.is_empty());
    let etag = whole.header("etag").to_owned();
    let known = send(world.front, Method::GET, path, &[("if-none-match", &etag)], "").await;
    assert_eq!(known.status, 304);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hop_by_hop_headers_end_here_and_ours_cannot_be_removed() {
    let world = World::new(1).await;
    let headers = [
        ("connection", "x-secret, keep-alive"),
        ("x-secret", "1"),
        ("te", "trailers"),
        ("proxy-authorization", "x"),
        ("x-kept", "2"),
        ("origin", &format!("http://{}", world.front)),
        ("sec-fetch-site", "same-origin"),
        ("cookie", "a=1; mooring=00000000000000000000000000000001"),
    ];
    assert_eq!(send(world.front, Method::GET, "/system_stats", &headers, "").await.status, 200);
    let seen = world.sim("a").requests();
    let got = seen.iter().rev().find(|it| it.headers.contains_key("x-kept")).unwrap();
    for name in ["x-secret", "te", "proxy-authorization", "origin", "sec-fetch-site", "connection"]
    {
        assert!(!got.headers.contains_key(name), "{name} was passed on");
    }
    assert_eq!(got.headers["cookie"], "a=1");
    assert_eq!(got.headers["host"], world.sim("a").addr().to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_origins_are_refused_unless_they_are_allowed() {
    let world = World::with(1, |config| {
        config.server.allowed_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    let from = |origin: &'static str| async {
        send(world.front, Method::GET, "/prompt", &[("origin", origin)], "").await
    };
    for foreign in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let refused = from(foreign).await;
        assert_eq!((refused.status, refused.header("mooring-error")), (403, "foreign_origin"));
    }
    let allowed = from("https://app.example").await;
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example");
    let asks = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "comfy-client-id"),
    ];
    let preflight = send(world.front, Method::OPTIONS, "/prompt", &asks, "").await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-headers"), "comfy-client-id");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_page_opens_no_socket() {
    let world = World::new(1).await;
    let request = "GET /ws HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: https://evil.example\r\n\r\n";
    let answer = raw(&world, request.as_bytes(), |read| read.contains("\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_are_none_are_answered_as_http() {
    let world = World::new(1).await;
    let with = |lines: &str| format!("GET /ws HTTP/1.1\r\nHost: gw\r\n{lines}\r\n");
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (lines, status) in [
        (String::new(), 400),
        (format!("{upgrade}{key}"), 426),
        (format!("{upgrade}{key}Sec-WebSocket-Version: 8\r\n"), 426),
        (format!("{upgrade}Sec-WebSocket-Version: 13\r\n"), 400),
        (format!("{upgrade}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n"), 400),
    ] {
        let answer = raw(&world, with(&lines).as_bytes(), |read| read.contains("\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{lines}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_client_id_is_named_as_such() {
    let world = World::new(1).await;
    let answer = world.get("/queue?clientId=a%0Ab").await;
    assert_eq!((answer.status, answer.header("mooring-error")), (400, "bad_client_id"));
    assert_eq!(answer.json()["error"]["type"], "bad_client_id");
    let long = "x".repeat(300);
    assert_eq!(world.get(&format!("/queue?clientId={long}")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_are_too_large_or_too_many_are_refused() {
    let world = World::new(1).await;
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let request = format!("GET /prompt HTTP/1.1\r\nHost: gw\r\n{many}\r\n");
    let answer = raw(&world, request.as_bytes(), until_closed).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let large = format!("GET /prompt HTTP/1.1\r\nHost: gw\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    let answer = raw(&world, large.as_bytes(), until_closed).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_drips_its_head_is_closed() {
    let world = World::with(1, |config| {
        config.server.header_timeout = Duration::from_millis(200);
    })
    .await;
    let answer = raw(&world, b"GET /prompt HTTP/1.1\r\nHost: ", until_closed).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_refused_in_comfyuis_shape() {
    let world = World::with(1, |config| config.prompts.max_body = 1000).await;
    let body = json!({ "prompt": { "1": "x".repeat(2000) } }).to_string();
    let refused = world.post("/prompt", &body).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (413, "body_too_large"));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("1000"));
    assert!(refused.json()["node_errors"].is_object());
    let chunked = format!(
        "POST /prompt HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n{}\r\n",
        "x".repeat(2000)
    );
    let answer = raw(&world, chunked.as_bytes(), |read| read.contains("\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(world.sim("a").ledger().enqueued.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_bodies_than_there_is_room_for_are_asked_to_wait() {
    let world = World::with(1, |config| config.prompts.max_bodies_total = 2000).await;
    let answer = world.post("/prompt", &"x".repeat(3000)).await;
    assert_eq!((answer.status, answer.header("mooring-error")), (503, "bodies_busy"));
    assert_eq!(answer.header("retry-after"), "2");
}

/// T13: a naive proxy blames the backend for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_broken_body_never_counts_against_a_backend() {
    let world = World::new(1).await;
    let head = "POST /upload/image HTTP/1.1\r\nHost: gw\r\nContent-Type: multipart/form-data; \
        boundary=x\r\n";
    for _ in 0..20 {
        let malformed = format!("{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n");
        let answer = raw(&world, malformed.as_bytes(), |read| read.contains("\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let aborted = format!("{head}Content-Length: 1000\r\n\r\n--x\r\n");
        raw(&world, aborted.as_bytes(), |_| true).await;
    }
    let report = world.admin_get("/api/v1/backends").await.json();
    assert_eq!(report["backends"][0]["up"], true);
    assert_eq!(report["backends"][0]["trouble"], serde_json::Value::Null);
    let mut uploading = 1;
    until("the aborted uploads are let go of", || {
        uploading = world
            .gateway
            .sessions
            .clients
            .all()
            .iter()
            .filter(|client| client.inspect(|core, _| core.is_held()))
            .count();
        uploading == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::new(1).await;
    let one = "GET /prompt HTTP/1.1\r\nHost: gw\r\n\r\n";
    let two = "GET /nope HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n";
    let answers = raw(&world, format!("{one}{one}{one}{two}").as_bytes(), until_closed).await;
    let statuses: Vec<&str> =
        answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "200", "200", "404"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_that_install_or_reboot_are_for_operators() {
    let world = World::new(1).await;
    for path in ["/manager/reboot", "/api/v2/manager/queue/install_model", "/%6danager/reboot"] {
        let refused = world.post(path, "{}").await;
        assert_eq!((refused.status, refused.header("mooring-error")), (403, "operators_only"));
    }
    let allowed = World::with(1, |config| config.server.allow_manager = true).await;
    assert_eq!(allowed.post("/manager/reboot", "{}").await.status, 405, "the backend's own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_names_its_browser_once() {
    let world = World::new(2).await;
    let page = world.get("/").await;
    assert_eq!((page.status, page.header("mooring-placement")), (200, "home"));
    let cookie = page.header("set-cookie").to_owned();
    for part in ["mooring=", "HttpOnly", "SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let pair = cookie.split(';').next().unwrap().to_owned();
    let again = send(world.front, Method::GET, "/", &[("cookie", &pair)], "").await;
    assert_eq!(again.header("set-cookie"), "", "a browser keeps its name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_the_backend_back() {
    let world = World::new(1).await;
    let address = world.front;
    let mut stream = network().connect(&address.ip().to_string(), address.port()).await.unwrap();
    let request = "GET /sim/blob?bytes=1073741824 HTTP/1.1\r\nHost: gw\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 1024];
    soon("the head", stream.read(&mut head)).await.unwrap();
    // Nobody reads on: what the backend may give is what fits into the buffers on the way. The
    // system makes those of four sockets as large as it sees fit, up to tens of megabytes.
    let given = || world.sim("a").blob_bytes();
    let mut last = u64::MAX;
    soon("the flow stops", async {
        while last != given() {
            last = given();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(given() < 64 << 20, "{} bytes went nowhere", given());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_is_not_for_pages() {
    let world = World::new(1).await;
    let page = [("origin", "http://evil.example")];
    let answer: Answer = send(world.admin, Method::GET, "/api/v1/clients", &page, "").await;
    assert_eq!(answer.status, 403);
    assert_eq!(world.get("/api/v1/clients").await.status, 404, "and not on the front");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_count_as_connections_until_they_end() {
    let world = World::with(1, |config| config.server.max_connections = 2).await;
    let first = world.socket("ada").await;
    let _second = world.socket("bob").await;
    let request = "GET /prompt HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n";
    assert_eq!(raw(&world, request.as_bytes(), until_closed).await, "", "there is no seat left");
    first.close().await;
    let is_free = async { while raw(&world, request.as_bytes(), until_closed).await.is_empty() {} };
    soon("a seat is free", Box::pin(is_free)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_alone_is_not_told_whose_it_is() {
    let world = World::new(1).await;
    let _socket = world.socket("ada").await;
    let who = world.get("/-/whoami").await.json();
    assert_eq!(who["client_id"], serde_json::Value::Null, "{who}");
    let refused = world.post("/-/reset?force=true", "").await;
    assert_eq!((refused.status, refused.header("mooring-error")), (403, "nameless"));
    // A socket is answered before its client is bound.
    let told = async {
        loop {
            let named =
                send(world.front, Method::GET, "/-/whoami", &[("comfy-client-id", "ada")], "");
            let named = named.await.json();
            if !named["client"]["backend"].is_null() {
                return named;
            }
        }
    };
    assert_eq!(soon("it is bound", told).await["client"]["backend"], "a");
}
