//! `mooring doctor` before a gateway, and behind proxies with one mistake each.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};

use mooring::net::now;
use mooring::sim::{Options, Sim};
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::free_port;
use crate::process::Daemon;
use crate::support::{PATIENCE, network, not_tested};

/// What the doctor finds wrong at this address, and its exit code.
fn examine(url: &str, idle: &str) -> (Vec<String>, Option<i32>) {
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_mooring"));
    doctor.args(["doctor", url, "--idle", idle, "--json"]).env_clear();
    let Output { status, stdout, stderr } = doctor.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&stderr), "");
    let findings: Vec<Value> = serde_json::from_slice(&stdout).unwrap();
    let is_wrong = |finding: &&Value| finding["result"] == "wrong";
    let wrong = findings.iter().filter(is_wrong).map(|finding| {
        assert!(finding["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{finding}");
        finding["check"].as_str().unwrap().to_owned()
    });
    (wrong.collect(), status.code())
}

/// nginx as a process of its own.
struct Nginx {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A right configuration, as docs/proxies.md has it, with one part replaced.
fn nginx(front: SocketAddr, (right, wrong): (&str, &str)) -> Option<Nginx> {
    let folder = tempfile::tempdir().unwrap();
    let (place, port) = (folder.path().display(), free_port());
    let text = format!(
        "daemon off; master_process off; pid {place}/pid; error_log stderr; events {{}}
        http {{
          access_log off; client_body_temp_path {place}; proxy_temp_path {place};
          fastcgi_temp_path {place}; uwsgi_temp_path {place}; scgi_temp_path {place};
          map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
          server {{
            listen 127.0.0.1:{port};
            client_max_body_size 0;
            location / {{
              proxy_pass http://{front};
              proxy_http_version 1.1;
              proxy_set_header Host $http_host;
              proxy_set_header X-Forwarded-For $remote_addr;
              proxy_set_header X-Forwarded-Proto $scheme;
              proxy_set_header Upgrade $http_upgrade;
              proxy_set_header Connection $connection_upgrade;
              proxy_buffering off;
              proxy_request_buffering off;
              proxy_read_timeout 10m;
            }}
          }}
        }}"
    );
    assert!(text.contains(right), "{right}");
    let file = folder.path().join("nginx.conf");
    fs::write(&file, text.replace(right, wrong)).unwrap();
    let mut command = Command::new("nginx");
    command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
    command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(&file);
    let mut child = command.stderr(Stdio::inherit()).spawn().ok()?;
    let began = now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert_eq!(child.try_wait().unwrap(), None, "nginx ended");
        if PATIENCE < now().duration_since(began) {
            let _ = child.kill();
            panic!("nginx does not listen");
        }
        std::thread::yield_now();
    }
    Some(Nginx { child, url: format!("http://localhost:{port}"), _folder: folder })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_each_mistake_of_a_proxy_and_none_of_a_right_one() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let trusting = ["--set", "server.trusted_proxies=127.0.0.1"];
    let daemon = Daemon::start_with(&sim, &folder, &trusting);
    assert_eq!(examine(&format!("http://{}", daemon.front), "1s"), (vec![], Some(0)));
    let nobody = format!("http://127.0.0.1:{}", free_port());
    assert_eq!(examine(&nobody, "1s"), (vec!["reach".to_owned()], Some(1)));
    let upstream = format!("proxy_pass http://{};", daemon.front);
    let elsewhere = format!("proxy_pass http://127.0.0.1:{};", free_port());
    let mistakes: [(&str, &str, &[&str]); 10] = [
        ("", "", &[]),
        (&upstream, &elsewhere, &["reach"]),
        (&upstream, "return 404;", &["reach"]),
        (&upstream, "return 302 https://login.example.org/?rd=$request_uri;", &["reach"]),
        ("Host $http_host", "Host evil.example", &["host"]),
        ("Host $http_host", "Host $proxy_host", &["origin"]),
        ("client_max_body_size 0;", "", &["body limit"]),
        ("proxy_request_buffering off;", "", &["buffering"]),
        ("proxy_set_header Upgrade $http_upgrade;", "", &["websocket"]),
        ("proxy_read_timeout 10m;", "proxy_read_timeout 1s;", &["idle"]),
    ];
    for (right, wrong, expected) in mistakes {
        let Some(proxy) = nginx(daemon.front, (right, wrong)) else {
            return not_tested("there is no nginx, so no proxy was examined");
        };
        let (found, code) = examine(&proxy.url, "4s");
        assert_eq!(found, expected, "{right} -> {wrong}");
        assert_eq!(code, Some(i32::from(!expected.is_empty())), "{right} -> {wrong}");
    }
}
