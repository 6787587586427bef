//! What a service manager that speaks sd_notify(3) is told over the life of a process.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use http::Method;
use mooring::sim::{Options, Sim};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::process::Daemon;
use crate::support::{PATIENCE, network, send, slow, soon};

/// The next message about a state. A slow machine may be told in between that backends come and go.
fn next(socket: &UnixDatagram) -> String {
    for _ in 0..300 {
        let message = any(socket);
        if !message.starts_with("WATCHDOG=1\n") && !message.starts_with("STATUS=") {
            return message;
        }
    }
    panic!("it is told of no state");
}

/// Waits until it is told so often in a row that the process is alive, and nothing else.
fn is_alive(socket: &UnixDatagram, times: usize) {
    let mut heard = 0;
    while heard < times {
        heard = if any(socket) == "WATCHDOG=1\n" { heard + 1 } else { 0 };
    }
}

/// Asserts that this is an end of a start or a reload, and that its line says so.
#[track_caller]
fn is_ready(message: &str, says: &str) {
    assert!(message.starts_with("READY=1\nSTATUS="), "{message}");
    assert!(message.ends_with(says), "{message}");
}

fn any(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("it is told in time");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

fn microseconds() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

/// Asks for a reload; what is told of its end.
fn reloaded(daemon: &Daemon, socket: &UnixDatagram) -> String {
    let before = microseconds();
    daemon.signal("-HUP");
    let began = next(socket);
    let lines: Vec<&str> = began.lines().collect();
    let [reloading, since, status] = lines[..] else { panic!("{began}") };
    assert_eq!((reloading, status), ("RELOADING=1", "STATUS=Reloading the configuration."));
    let since: i64 = since.strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
    assert!((before..=microseconds()).contains(&since), "{before} {since}");
    next(socket)
}

async fn lives_and_is_told(name: &str, socket: UnixDatagram) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mooring.toml");
    fs::write(&file, "").unwrap();
    let variables =
        [format!("NOTIFY_SOCKET='{name}'"), "WATCHDOG_USEC=200000 WATCHDOG_PID=$$".to_owned()];
    let config = ["--config", "mooring.toml", "--set", "server.drain_delay=0s"];
    let mut daemon = Daemon::start_in(&sim, &folder, &variables, &config);
    let ready = " of 1 backends take new work.\n";
    is_ready(&any(&socket), ready);
    is_alive(&socket, 3);
    is_ready(&reloaded(&daemon, &socket), ready);
    // A reload that is refused has ended too.
    fs::write(&file, "[server]\nworker = 1\n").unwrap();
    let refused = " of 1 backends take new work. The last reload was refused: the old \
                   configuration stays.\n";
    is_ready(&reloaded(&daemon, &socket), refused);
    fs::write(&file, "").unwrap();
    is_ready(&reloaded(&daemon, &socket), ready);
    daemon.signal("-TERM");
    assert_eq!(next(&socket), "STOPPING=1\nSTATUS=Draining, for at most 30 s.\n");
    assert_eq!(daemon.ended(), Some(0));
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer) {
        assert_eq!(&buffer[..length], b"WATCHDOG=1\n");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_is_told_when_it_is_ready_reloads_lives_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    lives_and_is_told(&path.display().to_string(), socket).await;
}

/// A sidecar may wait for minutes until its prompts have ended, and is not dead then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_waits_for_its_prompts_says_that_it_is_alive_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify").display().to_string();
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let variables =
        [format!("NOTIFY_SOCKET='{path}'"), "WATCHDOG_USEC=200000 WATCHDOG_PID=$$".to_owned()];
    let config = ["--set", "server.drain_delay=0s", "--set", "server.drain_pending=10m"];
    let mut daemon = Daemon::start_in(&sim, &folder, &variables, &config);
    is_ready(&any(&socket), " of 1 backends take new work.\n");
    let body = json!({ "client_id": "a", "prompt": slow(1000, 600.0) }).to_string();
    let taken = async {
        while send(daemon.front, Method::POST, "/prompt", &[], &body).await.status != 200 {}
    };
    soon("a prompt is taken", taken).await;
    daemon.signal("-TERM");
    assert_eq!(next(&socket), "STOPPING=1\nSTATUS=Draining, for at most 630 s.\n");
    for _ in 0..5 {
        assert_eq!(any(&socket), "WATCHDOG=1\n");
    }
    daemon.signal("-TERM");
    assert_eq!(daemon.ended(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_with_an_abstract_name_is_told_the_same() {
    let name = format!("mooring-it-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    lives_and_is_told(&format!("@{name}"), socket).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_that_is_not_there_keeps_nobody_from_starting() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let variables = ["NOTIFY_SOCKET=/nowhere/notify".to_owned()];
    let mut daemon =
        Daemon::start_in(&sim, &folder, &variables, &["--set", "server.drain_delay=0s"]);
    daemon.signal("-TERM");
    assert_eq!(daemon.ended(), Some(0));
    let log = daemon.rest_of_log();
    let told = log.matches("The service manager was not told").count();
    assert_eq!(told, 1, "once, and not for each attempt: {log}");
}
