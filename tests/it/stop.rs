//! How the executable stops: T70 and T71, and a restart that refuses no connection.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use mooring::ws::Opcode;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

use crate::process::Daemon;
use crate::support::{Answer, PATIENCE, Socket, network, quick, send, slow, soon, until};

async fn sim() -> Sim {
    Sim::start(network(), Options::named("a")).await.unwrap()
}

#[tokio::test]
async fn signals_that_ask_for_no_end_change_nothing() {
    let (sim, folder) = (sim().await, tempfile::tempdir().unwrap());
    let mut daemon = Daemon::start(&sim, &folder);
    let ready = || send(daemon.admin, Method::GET, "/readyz", &[], "");
    soon("it is ready", async { while ready().await.status != 200 {} }).await;
    let mut socket = Socket::open(daemon.front, "/ws?clientId=ada").await;
    socket.until("status").await;
    for signal in ["USR1", "USR2"] {
        daemon.signal(&format!("-{signal}"));
        daemon.says(&format!("signal=\"SIG{signal}\""));
    }
    let body = json!({ "client_id": "ada", "prompt": quick(1) }).to_string();
    let answer = send(daemon.front, Method::POST, "/prompt", &[], &body).await;
    socket.until_end(&answer.prompt_id()).await;
    daemon.signal("-TERM");
    assert_eq!(daemon.ended(), Some(0));
}

/// T70: readiness goes first, then the listeners, then the sockets; what is in flight is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sigterm_finishes_what_is_in_flight_and_tells_the_sockets() {
    const IN_FLIGHT: usize = 200;
    const BYTES: usize = 100_000;
    let (sim, folder) = (Arc::new(sim().await), tempfile::tempdir().unwrap());
    let delay = ["--set", "server.drain_delay=1s"];
    let mut daemon = Daemon::start_with(&sim, &folder, &delay);
    let (front, admin) = (daemon.front, daemon.admin);
    let mut socket = Socket::open(front, "/ws?clientId=ada").await;
    socket.until("status").await;
    sim.set_faults(|faults| faults.latency_ms = 1_500);
    let before = sim.requests().len();
    let requests = Tasks::default();
    let (whole, answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..IN_FLIGHT {
        let whole = whole.clone();
        requests.spawn(async move {
            let path = format!("/sim/blob?clientId=ada&bytes={BYTES}");
            let answer = send(front, Method::GET, &path, &[], "").await;
            let _ = whole.send((answer.status, answer.body.len()));
        });
    }
    drop(whole);
    let all_seen = || {
        let seen = sim.requests();
        seen.iter().filter(|it| it.target.starts_with("/sim/blob")).count() == IN_FLIGHT
            || before + IN_FLIGHT <= seen.len()
    };
    until("all are in flight", all_seen).await;

    daemon.signal("-TERM");
    daemon.says("Draining.");
    let ready = send(admin, Method::GET, "/readyz", &[], "").await;
    assert_eq!((ready.status, ready.json()["stopping"].as_bool()), (503, Some(true)));
    sim.set_faults(|faults| faults.latency_ms = 0);
    let late: Answer = send(front, Method::GET, "/queue?clientId=late", &[], "").await;
    assert_eq!((late.status, late.header("connection")), (200, "close"), "a moment longer");
    let goodbye = soon("the socket is told", async {
        loop {
            let frame = socket.frame().await.expect("a close frame");
            if frame.opcode == Opcode::Close {
                return frame;
            }
        }
    })
    .await;
    assert_eq!(goodbye.close_reason().map(|(code, _)| code), Some(1012));
    assert_eq!(requests.drain(PATIENCE).await, 0);
    let answers: Vec<(u16, usize)> = drained(answers);
    assert_eq!(answers, vec![(200, BYTES); IN_FLIGHT], "all of them, whole");
    daemon.says("Drained.");
    assert_eq!(daemon.ended(), Some(0));
    assert!(std::net::TcpStream::connect(front).is_err(), "nobody listens any more");
}

/// Clients that never stop asking, on connections that they keep: some one after the other, some
/// without waiting for answers, so that there is always another request to read. One flood is
/// passed on as bytes, one goes by the library.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_ends_with_the_drain() {
    const EACH: usize = 4;
    const ANSWERS: usize = 50;
    let (sim, folder) = (sim().await, tempfile::tempdir().unwrap());
    let grace = ["--set", "server.drain_delay=0s", "--set", "server.drain_timeout=10s"];
    let mut daemon = Daemon::start_with(&sim, &folder, &grace);
    let ready = || send(daemon.admin, Method::GET, "/readyz", &[], "");
    soon("it is ready", async { while ready().await.status != 200 {} }).await;
    let (floods, mut answered) = (Tasks::default(), Vec::new());
    for path in ["/pack/x", "/pack/x?filename=y"] {
        for _ in 0..EACH {
            let counts: [Arc<AtomicUsize>; 2] = Default::default();
            floods.spawn(one_by_one(daemon.front, path, Arc::clone(&counts[0])));
            floods.spawn(without_end(daemon.front, path, Arc::clone(&counts[1])));
            answered.extend(counts.map(|count| (path, count)));
        }
    }
    for (path, count) in &answered {
        until(path, || ANSWERS <= count.load(Ordering::Relaxed)).await;
    }
    assert_eq!(floods.running(), answered.len(), "all of them go on");
    daemon.signal("-TERM");
    daemon.says("Draining.");
    daemon.says("Drained.");
    assert_eq!(daemon.ended(), Some(0));
    assert_eq!(floods.drain(PATIENCE).await, 0);
}

/// Asks when it was answered, until its connection ends, and counts the answers.
async fn one_by_one(front: SocketAddr, path: &str, count: Arc<AtomicUsize>) {
    let mut stream = network().connect(&front.ip().to_string(), front.port()).await.unwrap();
    while stream.write_all(asked(path).as_bytes()).await.is_ok() {
        if count_heads(&mut stream, &count, 1).await == 0 {
            return;
        }
    }
}

/// Asks as fast as it is listened to, until its connection ends, and counts the answers.
async fn without_end(front: SocketAddr, path: &str, count: Arc<AtomicUsize>) {
    let stream = network().connect(&front.ip().to_string(), front.port()).await.unwrap();
    let (mut reading, mut writing) = tokio::io::split(stream);
    let many = asked(path).repeat(64);
    let asking = async { while writing.write_all(many.as_bytes()).await.is_ok() {} };
    tokio::join!(asking, count_heads(&mut reading, &count, usize::MAX));
}

/// The answer has no body, so it ends with its head.
fn asked(path: &str) -> String {
    format!("HEAD {path} HTTP/1.1\r\nhost: gw\r\n\r\n")
}

/// Reads so many heads; how many there were before the connection ended.
async fn count_heads(
    stream: &mut (impl AsyncRead + Unpin),
    count: &AtomicUsize,
    most: usize,
) -> usize {
    let (mut read, mut piece, mut heads) = (Vec::new(), [0; 4096], 0);
    while heads < most {
        let Ok(bytes @ 1..) = stream.read(&mut piece).await else { break };
        read.extend_from_slice(&piece[..bytes]);
        while let Some(end) = read.windows(4).position(|it| it == b"\r\n\r\n") {
            read.drain(..end + 4);
            heads += 1;
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    heads
}

fn drained<T>(mut from: tokio::sync::mpsc::UnboundedReceiver<T>) -> Vec<T> {
    std::iter::from_fn(|| from.try_recv().ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_second_signal_stops_at_once() {
    let (sim, folder) = (sim().await, tempfile::tempdir().unwrap());
    let long = ["--set", "server.drain_timeout=1h", "--set", "server.drain_delay=1h"];
    let mut daemon = Daemon::start_with(&sim, &folder, &long);
    daemon.signal("-TERM");
    daemon.says("Draining.");
    daemon.signal("-INT");
    daemon.says("Stopping at once.");
    assert_eq!(daemon.ended(), Some(0));
}

/// T71: as a sidecar it stays and serves until the work is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sidecar_waits_for_pending_prompts_and_serves_meanwhile() {
    let (sim, folder) = (sim().await, tempfile::tempdir().unwrap());
    let wait = ["--set", "server.drain_pending=1h", "--set", "server.drain_delay=0s"];
    let mut daemon = Daemon::start_with(&sim, &folder, &wait);
    let prompt = submit(&daemon, &slow(1_000, 600.0)).await;
    daemon.signal("-TERM");
    daemon.says("Draining.");
    let second = submit(&daemon, &quick(1)).await;
    let body = json!({ "prompt_id": prompt }).to_string();
    let path = "/interrupt?clientId=ada";
    assert_eq!(send(daemon.front, Method::POST, path, &[], &body).await.status, 200);
    daemon.says("No prompt is pending any more.");
    assert_eq!(daemon.ended(), Some(0));
    assert!(sim.ledger().finished.contains(&second), "served to its end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sidecar_says_what_it_leaves_behind_at_its_deadline() {
    let (sim, folder) = (sim().await, tempfile::tempdir().unwrap());
    let wait = ["--set", "server.drain_pending=300ms", "--set", "server.drain_delay=0s"];
    let mut daemon = Daemon::start_with(&sim, &folder, &wait);
    let prompt = submit(&daemon, &slow(1_000, 600.0)).await;
    daemon.signal("-TERM");
    assert!(daemon.says("The wait for pending prompts is over").contains("left=1"));
    assert!(daemon.says("Prompt is left behind.").contains(&prompt));
    assert_eq!(daemon.ended(), Some(0));
    let daemon = Daemon::start(&sim, &folder);
    assert_eq!(daemon.pending().await, 1, "and the next one takes it over");
}

async fn submit(daemon: &Daemon, graph: &serde_json::Value) -> String {
    let body = json!({ "client_id": "ada", "prompt": graph }).to_string();
    send(daemon.front, Method::POST, "/prompt", &[], &body).await.prompt_id()
}

/// Socket activation: the listening socket outlives the process, so connections that are made
/// while there is none wait for the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_a_socket_that_was_handed_over_refuses_no_connection() {
    let (sim, folder) = (sim().await, tempfile::tempdir().unwrap());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = socket.local_addr().unwrap();
    let mut daemon = Daemon::start_on_socket(&sim, &folder, &socket);
    assert_eq!(daemon.front, front);
    let load = Tasks::default();
    let answered = Arc::new(AtomicUsize::new(0));
    for _ in 0..4 {
        let (asking, answered) = (load.clone(), Arc::clone(&answered));
        load.spawn(async move {
            while !asking.is_stopping() {
                // It panics, and does not count, if it is refused, broken or not answered.
                let answer = send(front, Method::GET, "/queue?clientId=ada", &[], "").await;
                // No backend was up within two seconds: an answer, on a machine that is busy.
                let is_early = answer.header("mooring-error") == "no_backend";
                assert!(answer.status == 200 || is_early, "{}", answer.text());
                answered.fetch_add(usize::from(answer.status == 200), Ordering::Relaxed);
            }
            answered.fetch_add(UNHARMED, Ordering::Relaxed);
        });
    }
    for _ in 0..5 {
        let before = answered.load(Ordering::Relaxed);
        until("it answers", || before + 10 < answered.load(Ordering::Relaxed)).await;
        daemon.signal("-TERM");
        daemon.says("Drained.");
        assert_eq!(daemon.ended(), Some(0));
        daemon = Daemon::start_on_socket(&sim, &folder, &socket);
    }
    assert_eq!(load.drain(PATIENCE).await, 0);
    assert_eq!(answered.load(Ordering::Relaxed) / UNHARMED, 4, "nobody was refused");
}

/// What one who was answered to the end adds to the count.
const UNHARMED: usize = 1 << 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_socket_that_nobody_asked_for_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let stranger = socket.local_addr().unwrap();
    let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_mooring"), "serve"]);
    shell.args(["--backend", "http://127.0.0.1:9", "--listen", "127.0.0.1:0"]);
    shell.current_dir(&folder).stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(socket)));
    let output = shell.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("a socket for {stranger} was handed over")), "{said}");
}

/// It is not bound by us, and leads others here all the same.
#[test]
fn a_socket_for_others_that_is_handed_over_needs_a_written_mode() {
    let folder = tempfile::tempdir().unwrap();
    let socket = TcpListener::bind("0.0.0.0:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_mooring"), "serve"]);
    shell.args(["--backend", "http://127.0.0.1:9", "--listen", &address]);
    shell.current_dir(&folder).env_clear().env("PATH", "/usr/bin:/bin");
    shell.stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(socket)));
    let output = shell.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains(&format!("can connect to {address}: set `auth.mode`")), "{said}");
}

/// Whoever read the log can die before the gateway does; that is no reason to fail a request.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_log_that_nobody_reads_harms_nobody() {
    let (sim, folder) = (sim().await, tempfile::tempdir().unwrap());
    let mut daemon = Daemon::start(&sim, &folder);
    daemon.stop_reading_its_log();
    for _ in 0..20 {
        // Each writes a line.
        submit(&daemon, &quick(1)).await;
    }
    assert_eq!(daemon.metric("mooring_panics_total").await, 0);
}
