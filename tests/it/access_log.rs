//! The access log: one line for each request, whichever way it is answered, and no secret in any.

use std::time::Duration;

use http::Method;
use mooring::config::{AccessFormat, BasePath, Config, OnOff};
use mooring::lines::Sink;
use mooring::net::Stream;
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::process::Daemon;
use crate::support::{Socket, World, network, quick, send, until};

const FROM: [(&str, &str); 5] = [
    ("comfy-client-id", "ada-is-secret"),
    ("x-forwarded-for", "192.0.2.7"),
    ("x-request-id", "r-17"),
    ("user-agent", "test \"agent\"/1"),
    ("referer", "http://g/page?token=secret"),
];

/// So many lines, and no more.
pub(crate) async fn lines(path: &std::path::Path, count: usize) -> Vec<String> {
    let text = || std::fs::read_to_string(path).unwrap_or_default();
    until("the access log has its lines", || count <= text().lines().count()).await;
    let lines: Vec<String> = text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

fn read(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_one_line_whichever_way_it_is_answered() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let access = format!("log.access={}", path.display());
    let proxies = "server.trusted_proxies=127.0.0.1";
    let daemon = Daemon::start_with(&sim, &folder, &["--set", &access, "--set", proxies]);
    // Passed on as bytes, answered by hyper, and refused.
    let asked = ["/some/pack/route?token=secret", "/history?token=secret", "/a/..%2fb"];
    let mut answers = Vec::new();
    let mut written = Vec::new();
    for (count, target) in (1..).zip(asked) {
        answers.push(send(daemon.front, Method::GET, target, &FROM, "").await);
        // The line of what is passed on comes after its body.
        written = lines(&path, count).await;
    }
    for ((line, asked), answer) in written.iter().zip(asked).zip(&answers) {
        assert!(!line.contains("secret"), "{line}");
        let read = read(line);
        let path = asked.split_once('?').map_or(asked, |(path, _)| path);
        let expected = json!({
            "method": "GET", "path": path, "protocol": "HTTP/1.1", "status": answer.status,
            "bytes": answer.text().len(), "address": "192.0.2.7", "user": null,
            "referer": "http://g/page", "user_agent": "test \"agent\"/1", "request_id": "r-17",
        });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(read[name], *value, "{name}: {line}");
        }
        assert!(read["client"].as_str().unwrap().starts_with("c-"), "{line}");
        assert!(read["ms"].as_f64().unwrap() > 0.0, "{line}");
    }
    let first = read(&written[0]);
    assert_eq!((&first["backend"], &first["status"]), (&json!("gpu-1"), &json!(404)));
    // A socket is one request. A file that was renamed goes on under its name.
    std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    let _socket = Socket::open(daemon.front, "/ws?clientId=bob").await;
    let body = json!({ "client_id": "bob", "prompt": quick(1) }).to_string();
    send(daemon.front, Method::POST, "/prompt", &[], &body).await;
    let read: Vec<Value> = lines(&path, 2).await.iter().map(|line| read(line)).collect();
    assert_eq!((&read[0]["path"], &read[0]["status"]), (&json!("/ws"), &json!(101)));
    assert_eq!((&read[1]["path"], &read[1]["method"]), (&json!("/prompt"), &json!("POST")));
    assert_eq!(read[0]["client"], read[1]["client"]);
    assert_eq!(daemon.metric("mooring_access_lost_total").await, 0);
    daemon.kill();
}

/// An access log of a world.
pub(crate) fn started(world: &World) -> (tempfile::TempDir, std::path::PathBuf, Tasks) {
    let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::default());
    let path = folder.path().join("access.log");
    let sink = Sink::file("log.access", path.clone()).unwrap();
    world.gateway.shared.access.start(sink, &tasks);
    (folder, path, tasks)
}

async fn say(world: &World, bytes: &[u8]) -> Stream {
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    let mut stream = network().connect(&host, port).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_because_of_its_head_is_in_it() {
    let world = World::new(1).await;
    let (_folder, path, tasks) = started(&world);
    let long = format!("GET /{} HTTP/1.1\r\nhost: g\r\n\r\n", "x".repeat(40_000));
    let heads = [
        ("TRACE /a?token=secret HTTP/1.1\r\nhost: g\r\n\r\n", "TRACE", "/a"),
        ("GET /b HTTP/1.1\r\nhost: g\r\nhost: h\r\n\r\n", "GET", "/b"),
        ("G@T /c HTTP/1.1\r\nhost: g\r\n\r\n", "-", "/c"),
        (&long, "GET", &long[4..4 + 2_048]),
    ];
    for (count, (head, method, target)) in (1..).zip(heads) {
        let mut stream = say(&world, head.as_bytes()).await;
        assert_ne!(stream.read(&mut [0; 64]).await.unwrap(), 0);
        let line = read(&lines(&path, count).await[count - 1]);
        assert_eq!((&line["method"], &line["path"]), (&json!(method), &json!(target)));
        let status = line["status"].as_u64().unwrap();
        assert!((400..=431).contains(&status), "{line}");
    }
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_before_the_answer_is_in_it_on_both_ways() {
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = World::with(1, |config| config.server.passthrough = passthrough).await;
        world.all_up().await;
        let (_folder, path, tasks) = started(&world);
        world.sim("a").set_faults(|faults| faults.holds = "GET /a/pack".into());
        let head = b"GET /a/pack?token=secret HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let stream = say(&world, head).await;
        world.sim("a").holds(1).await;
        drop(stream);
        let line = read(&lines(&path, 1).await[0]);
        assert_eq!((&line["path"], &line["status"]), (&json!("/a/pack"), &json!(499)));
        tasks.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn combined_is_what_tools_for_other_servers_read() {
    let world = World::with(1, |config| config.log.access_format = AccessFormat::Combined).await;
    let (_folder, path, tasks) = started(&world);
    send(world.front, Method::GET, "/system_stats", &FROM[2..], "").await;
    let line = lines(&path, 1).await.remove(0);
    let (before, after) = line.split_once(" [").unwrap();
    assert_eq!(before, "127.0.0.1 - -");
    let (date, after) = after.split_once("] ").unwrap();
    assert!(date.ends_with(" +0000"), "{date}");
    let fields = "\"GET /system_stats HTTP/1.1\" 200 ";
    assert!(after.starts_with(fields), "{line}");
    assert!(after.contains(r#" "http://g/page" "test \x22agent\x22/1" 0."#), "{line}");
    assert!(!line.contains("secret"), "{line}");
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_a_path_the_whole_path_is_in_it_on_both_ways() {
    let below = |config: &mut Config| {
        config.server.base_path = BasePath::parse("/comfy/ui").unwrap();
    };
    let world = World::with(1, below).await;
    world.all_up().await;
    let (_folder, path, tasks) = started(&world);
    // Passed on as bytes, answered by hyper, to be redirected, and beside it.
    for (count, target) in
        (1..).zip(["/comfy/ui/some/pack", "/comfy/ui/history", "/comfy/ui", "/history"])
    {
        world.get(target).await;
        let line = read(&lines(&path, count).await[count - 1]);
        assert_eq!(line["path"], target, "{line}");
    }
    tasks.stop();
}

/// Its backend goes away under it, and another answers: what it waited for the first counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_of_a_request_begins_once() {
    const HELD: Duration = Duration::from_millis(200);
    let world = World::new(2).await;
    world.all_up().await;
    let (_folder, path, tasks) = started(&world);
    let ada = [("comfy-client-id", "ada")];
    let bound = send(world.front, Method::GET, "/some/pack", &ada, "").await;
    let home = bound.backend().to_owned();
    world.sim(&home).set_faults(|faults| faults.holds = "GET /system_stats".into());
    let asked = send(world.front, Method::GET, "/system_stats", &ada, "");
    let goes = async {
        world.sim(&home).holds(1).await;
        tokio::time::sleep(HELD).await;
        world.sim(&home).crash().await;
    };
    let (answer, ()) = tokio::join!(asked, goes);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_ne!(answer.backend(), home);
    let line = read(&lines(&path, 2).await[1]);
    assert_eq!((&line["path"], &line["status"]), (&json!("/system_stats"), &json!(200)));
    assert!(HELD.as_secs_f64() * 1_000.0 <= line["ms"].as_f64().unwrap(), "{line}");
    tasks.stop();
}
