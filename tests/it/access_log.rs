//! The access log: one line for each request, whichever way it is answered, and no secret in any.

use http::Method;
use mooring::config::AccessFormat;
use mooring::lines::Sink;
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use serde_json::{Value, json};

use crate::process::Daemon;
use crate::support::{Socket, World, network, quick, send, until};

const FROM: [(&str, &str); 5] = [
    ("comfy-client-id", "ada-is-secret"),
    ("x-forwarded-for", "192.0.2.7"),
    ("x-request-id", "r-17"),
    ("user-agent", "test \"agent\"/1"),
    ("referer", "http://g/page?token=secret"),
];

async fn lines(path: &std::path::Path, count: usize) -> Vec<String> {
    let text = || std::fs::read_to_string(path).unwrap_or_default();
    until("the access log has its lines", || count <= text().lines().count()).await;
    text().lines().map(str::to_owned).collect()
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
    for path in asked {
        answers.push(send(daemon.front, Method::GET, path, &FROM, "").await);
    }
    let written = lines(&path, 3).await;
    for ((line, asked), answer) in written.iter().zip(asked).zip(&answers) {
        assert!(!line.contains("secret"), "{line}");
        let read: Value = serde_json::from_str(line).unwrap();
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
    let first: Value = serde_json::from_str(&written[0]).unwrap();
    assert_eq!((&first["backend"], &first["status"]), (&json!("gpu-1"), &json!(404)));
    // A socket is one request. A file that was renamed goes on under its name.
    std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
    let _socket = Socket::open(daemon.front, "/ws?clientId=bob").await;
    let body = json!({ "client_id": "bob", "prompt": quick(1) }).to_string();
    send(daemon.front, Method::POST, "/prompt", &[], &body).await;
    let written = lines(&path, 2).await;
    let read: Vec<Value> = written.iter().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!((&read[0]["path"], &read[0]["status"]), (&json!("/ws"), &json!(101)));
    assert_eq!((&read[1]["path"], &read[1]["method"]), (&json!("/prompt"), &json!("POST")));
    assert_eq!(read[0]["client"], read[1]["client"]);
    assert_eq!(daemon.metric("mooring_access_lost_total").await, 0);
    daemon.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn combined_is_what_tools_for_other_servers_read() {
    let world = World::with(1, |config| config.log.access_format = AccessFormat::Combined).await;
    let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::default());
    let path = folder.path().join("access.log");
    let sink = Sink::file("log.access", path.clone()).unwrap();
    world.gateway.shared.access.start(sink, &tasks);
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
