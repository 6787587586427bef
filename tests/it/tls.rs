//! TLS at the listeners: what works without it works with it, on both ways of answering; who is let
//! in; and certificates that are renewed.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use mooring::config::{ListenerTls, OnOff};
use mooring::net::Stream;
use mooring::net::tls::client::{ClientTls, Trust};
use mooring::sim::{Options, Sim};
use mooring::ws::Opcode;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::audit::{AuditLog, said};
use crate::certificates::{Authority, Pair, dial, long_over, read};
use crate::passthrough::{Act, world};
use crate::pictures::{RED, color, form, inverse, invert, png, value};
use crate::process::Daemon;
use crate::support::{Answer, Socket, World, exchange_over, network, slow, soon, until};

/// What a listener has that shows this pair.
fn listener(pair: &Pair, client_ca: Option<&str>) -> ListenerTls {
    ListenerTls::read(Path::new(&pair.cert), Path::new(&pair.key), client_ca.map(Path::new))
        .unwrap()
}

async fn secured(pair: &Pair, passthrough: OnOff) -> World {
    let world = World::with(1, |config| {
        config.server_tls = listener(pair, None);
        config.server.passthrough = passthrough;
    })
    .await;
    world.all_up().await;
    world
}

async fn ask(
    world: &World,
    client: &ClientTls,
    asked: (Method, &str),
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let (method, path) = asked;
    let host = world.front.to_string();
    let mut request = Request::builder().method(method).uri(path).header("host", host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let exchange = async { exchange_over(dial(client, world.front).await.unwrap(), request).await };
    soon(path, exchange).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_uploads_sockets_and_previews_go_over_tls_on_both_ways() {
    let authority = Authority::new();
    let (pair, client) = (authority.issue("gw"), authority.client());
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = secured(&pair, passthrough).await;
        let named = [("comfy-client-id", "ada")];
        let read = ask(&world, &client, (Method::GET, "/system_stats"), &named, "").await;
        assert_eq!((read.status, read.backend()), (200, "a"), "{passthrough:?}");

        let form_headers =
            [("content-type", "multipart/form-data; boundary=xyz"), ("comfy-client-id", "ada")];
        let body = form("photo.png", &png(RED), &[]);
        let sent = ask(&world, &client, (Method::POST, "/upload/image"), &form_headers, body).await;
        let stream = dial(&client, world.front).await.unwrap();
        let mut socket = Socket::over(stream, world.front, "/ws?clientId=ada").await;
        let graph = |graph| serde_json::json!({ "client_id": "ada", "prompt": graph }).to_string();
        let asked = (Method::POST, "/prompt");
        let prompt = ask(&world, &client, asked.clone(), &[], graph(invert(&value(&sent)))).await;
        socket.until_end(&prompt.prompt_id()).await;
        let job = format!("/history/{}", prompt.prompt_id());
        let history = ask(&world, &client, (Method::GET, &job), &named, "").await.json();
        let image = &history[prompt.prompt_id()]["outputs"]["3"]["images"][0];
        let view = format!("/view?filename={}", image["filename"].as_str().unwrap());
        let picture = ask(&world, &client, (Method::GET, &view), &named, "").await;
        assert_eq!(color(&picture.body), inverse(RED));

        let previewed = ask(&world, &client, asked, &[], graph(slow(3, 0.1))).await;
        soon("a preview", async {
            while socket.frame().await.unwrap().opcode != Opcode::Binary {}
        })
        .await;
        socket.until_end(&previewed.prompt_id()).await;
        socket.close().await;
    }
}

/// The one place that knows how a browser has reached us has seen TLS.
#[tokio::test]
async fn a_browser_under_tls_gets_a_cookie_that_no_neighbour_can_plant() {
    let authority = Authority::new();
    let world = secured(&authority.issue("gw"), OnOff::On).await;
    let page = [("accept", "text/html"), ("sec-fetch-mode", "navigate")];
    let client = authority.client();
    let asked = (Method::GET, "/-/console");
    let told = ask(&world, &client, (Method::GET, "/"), &page, "").await;
    let set = told.header("set-cookie");
    assert!(set.starts_with("__Host-mooring=") && set.contains("; Secure;"), "{set}");
    // It is known by that name, and by no other.
    let pair = set.split(';').next().unwrap();
    let known = [page[0], page[1], ("cookie", pair)];
    let again = ask(&world, &client, (Method::GET, "/"), &known, "").await;
    assert_eq!(again.header("set-cookie"), "", "{asked:?}");
    let planted = pair.replace("__Host-", "");
    let planted = [page[0], page[1], ("cookie", planted.as_str())];
    let told = ask(&world, &client, (Method::GET, "/"), &planted, "").await;
    assert!(told.header("set-cookie").starts_with("__Host-mooring="));
}

/// A large answer to a client that takes its time: what could not be sent at once is sent later,
/// and the connection is used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_waits_for_its_reader_arrives_whole_and_the_next_one_behind_it() {
    const LENGTH: usize = 6 << 20;
    let authority = Authority::new();
    let pair = authority.issue("gw");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
    let small = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall".to_owned();
    let acts = [
        ("/large", Act::Answer(vec![head, "x".repeat(LENGTH)])),
        ("/small", Act::Answer(vec![small])),
    ];
    let (world, puppet) = world(&acts, |config| config.server_tls = listener(&pair, None)).await;
    let mut stream = dial(&authority.client(), world.front).await.unwrap();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: gw\r\n\r\n");
    let asked = get("/large") + &get("/small");
    stream.write_all(asked.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    until("it is answered", || puppet.asked().iter().any(|(_, path)| path == "/large")).await;
    let mut read = Vec::new();
    let mut piece = vec![0; 3_000];
    soon("all of it", async {
        while !read.ends_with(b"small") {
            let count = stream.read(&mut piece).await.unwrap();
            assert_ne!(count, 0, "it ended after {} bytes", read.len());
            read.extend_from_slice(&piece[..count]);
        }
    })
    .await;
    let bodies = read.iter().filter(|byte| **byte == b'x').count();
    assert!((LENGTH..LENGTH + 20).contains(&bodies), "{bodies}");
}

#[tokio::test]
async fn plain_http_on_a_port_of_tls_is_told_so() {
    let authority = Authority::new();
    let pair = authority.issue("gw");
    let world = World::with(1, |config| {
        config.server_tls = listener(&pair, None);
        config.admin_tls = listener(&pair, None);
    })
    .await;
    for to in [world.front, world.admin] {
        let mut stream = network().connect("127.0.0.1", to.port()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n").await.unwrap();
        let mut told = String::new();
        soon("its end", stream.read_to_string(&mut told)).await.unwrap();
        assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
        assert!(told.contains("the plain HTTP request was sent to an HTTPS port"), "{told}");
    }
    // And TLS on a port of plain HTTP is no request.
    let plain = World::new(1).await;
    let stream = network().connect("127.0.0.1", plain.front.port()).await.unwrap();
    let failed = authority.client().connect(stream, "127.0.0.1").await.unwrap_err().to_string();
    assert!(failed.contains("does not speak TLS"), "{failed}");
}

#[tokio::test]
async fn a_slow_handshake_keeps_nobody_waiting_counts_and_is_given_up() {
    let authority = Authority::new();
    let pair = authority.issue("gw");
    let world = World::with(1, |config| {
        config.server_tls = listener(&pair, None);
        config.server.header_timeout = Duration::from_millis(700);
        config.server.max_connections = 3;
    })
    .await;
    world.all_up().await;
    let mut stuck = Vec::new();
    for begun in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = network().connect("127.0.0.1", world.front.port()).await.unwrap();
        stream.write_all(begun).await.unwrap();
        stuck.push(stream);
    }
    let open = &world.gateway.shared.metrics.connections;
    until("all three are counted", || open.get() == 3).await;
    let refused = &world.gateway.shared.metrics.connections_refused;
    let failed = dial(&authority.client(), world.front).await;
    assert!(failed.is_err() && refused.get() == 1, "they count as connections");
    for mut stream in stuck {
        let ended = soon("it is closed", stream.read(&mut [0; 16])).await;
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
    until("they are gone", || open.get() == 0).await;
    let read = ask(&world, &authority.client(), (Method::GET, "/-/ready"), &[], "").await;
    assert_eq!(read.status, 200);
}

#[tokio::test]
async fn only_who_shows_a_certificate_of_the_authority_comes_in() {
    let (ours, clients) = (Authority::new(), Authority::new());
    let pair = ours.issue("gw");
    let world = World::with(1, |config| {
        config.server_tls = listener(&pair, Some(&clients.ca()));
    })
    .await;
    world.all_up().await;
    let get = (Method::GET, "/-/ready");
    let ada = ours.client_with(&clients.issue_for("ada", &["ada"], |_| {}));
    assert_eq!(ask(&world, &ada, get, &[], "").await.status, 200);
    let stranger = ours.client_with(&ours.issue_for("eve", &["eve"], |_| {}));
    let late = ours.client_with(&clients.issue_for("bob", &["bob"], long_over));
    for refused in [ours.client(), stranger, late] {
        // Under TLS 1.3 a client hears of it when it reads.
        let read = async {
            let mut stream = dial(&refused, world.front).await?;
            stream.write_all(b"GET /-/ready HTTP/1.1\r\nHost: gw\r\n\r\n").await?;
            stream.read(&mut [0; 16]).await
        };
        let read = soon("it is refused", read).await;
        assert!(matches!(read, Err(_) | Ok(0)), "{read:?}");
    }
}

/// True if this pair is shown.
async fn shows(world: &World, pair: &Pair) -> bool {
    let this = ClientTls::new(Trust::Same(&read(&pair.cert)), None, None).unwrap();
    dial(&this, world.front).await.is_ok()
}

#[tokio::test]
async fn a_renewed_pair_is_shown_and_one_that_is_none_changes_nothing() {
    let authority = Authority::new();
    let shown = authority.issue("gw");
    let world = secured(&shown, OnOff::On).await;
    let log = AuditLog::of(&world);
    let kept = authority.issue("kept");
    shown.replaces(&kept);
    let mut open: Stream = dial(&authority.client(), world.front).await.unwrap();

    // By itself, within seconds.
    let renewed = authority.issue("renewed");
    renewed.replaces(&shown);
    soon("the renewed one is shown", async {
        while !shows(&world, &renewed).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(!shows(&world, &kept).await, "the old one is not");

    // A key of another certificate.
    std::fs::copy(&kept.key, &shown.key).unwrap();
    let refused = world.reloads.certificates().await.unwrap_err().to_string();
    assert!(refused.contains("server.tls: ") && refused.contains("is not the key of"), "{refused}");
    assert_eq!(world.gateway.shared.metrics.config_last_reload_success.get(), 0);
    assert!(shows(&world, &renewed).await);
    renewed.replaces(&shown);
    assert!(world.reloads.certificates().await.unwrap().applied.is_empty());
    assert_eq!(world.gateway.shared.metrics.config_last_reload_success.get(), 1);

    // A connection keeps what it has begun with.
    open.write_all(b"GET /-/ready HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut told = String::new();
    open.read_to_string(&mut told).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");

    // Each reading is noted.
    let text = log.end().await;
    assert!(!text.contains("PRIVATE KEY"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["who"]["by"] == "files"), "{text}");
    for told in ["done", "refused: 1 problems", "done"] {
        let is_told = |line: &Value| said(line) == ("certificates.reload", told);
        assert!(lines.iter().any(is_told), "{told}: {text}");
    }
}

#[tokio::test]
async fn metrics_tell_when_certificates_end() {
    let authority = Authority::new();
    let pair = authority.issue_for("gw", &["127.0.0.1"], |params| {
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    });
    let world = secured(&pair, OnOff::On).await;
    let told = world.admin_get("/metrics").await.text();
    for of in ["own", "chain"] {
        let line =
            format!("mooring_tls_not_after_seconds{{listener=\"front\",of=\"{of}\"}} 2208988800");
        assert!(told.lines().any(|it| it == line), "{told}");
    }
    assert!(!told.contains("listener=\"admin\""));
    world.reload(|config| config.server_tls = ListenerTls::default()).await.unwrap();
    assert!(!world.admin_get("/metrics").await.text().contains("tls_not_after_seconds{"));
    assert_eq!(world.get("/-/ready").await.status, 200, "it speaks plain HTTP from then on");
}

/// As an operator sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_under_tls_says_so_is_asked_by_its_commands_and_keeps_a_good_pair() {
    let authority = Authority::new();
    let pair = authority.issue("gw");
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (format!("tls.cert={}", pair.cert), format!("tls.key={}", pair.key));
    let sets =
        ["server.", "admin."].map(|section| [&cert, &key].map(|it| format!("{section}{it}")));
    let sets: Vec<String> = sets.into_iter().flatten().collect();
    let more: Vec<&str> = sets.iter().flat_map(|it| ["--set", it.as_str()]).collect();
    let mut daemon = Daemon::start_with(&sim, &folder, &more);
    let mooring = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mooring"));
        command.args(arguments).current_dir(&folder).env_clear().output().unwrap()
    };
    let admin = format!("https://{}", daemon.admin);
    let status = mooring(&["status", "--admin", &admin, "--admin-ca", &authority.ca()]);
    let told = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && told.contains("ready"), "{status:?}");
    let other = mooring(&["status", "--admin", &admin]);
    let told = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(told.contains("no trusted authority has issued its certificate"), "{told}");

    // A pair that is none: at a reload the old one stays, and no other gateway starts with it.
    std::fs::write(&pair.key, "no key").unwrap();
    daemon.signal("-HUP");
    daemon.says("has no private key");
    let scrape = mooring(&["reload", "--admin", &admin, "--admin-ca", &authority.ca()]);
    let told = String::from_utf8_lossy(&scrape.stderr).into_owned();
    assert!(told.contains("server.tls.key: ") && scrape.status.code() == Some(78), "{scrape:?}");
    let mut arguments = vec!["serve", "--backend", "http://127.0.0.1:1"];
    arguments.extend(more);
    let refused = mooring(&arguments);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{told}");
    assert!(told.contains("command line: server.tls.key: `"), "{told}");
    daemon.signal("-TERM");
    assert_eq!(daemon.ended(), Some(0));
}
