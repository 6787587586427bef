//! T62: the executable, killed with SIGKILL at named points of submissions, and started again.
//!
//! Nothing that was acknowledged is forgotten, nothing runs twice, and whatever was under way is
//! resolved within five seconds of the restart.

use std::net::SocketAddr;
use std::time::Duration;

use mooring::net::sleep;
use mooring::sim::{Faults, Hang, Options, Sim, SubmitFault};
use mooring::tasks::Tasks;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::database::database;
use crate::process::Daemon;
use crate::support::{PATIENCE, Socket, fraction, network, quick, send, soon, until};

/// How soon after the restart nothing may be open any more.
const RESOLVED_WITHIN: Duration = Duration::from_secs(5);

/// Where in the life of a submission the gateway is killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Point {
    /// Its body has not come whole.
    BeforeTheJournal,
    /// It is in the journal; the link that it waits for does not open.
    AfterTheJournal,
    /// It was sent, and its backend has not read it.
    WhileItIsSent,
    /// Its backend has it, and has not answered.
    AfterTheSend,
    /// The client has its 200.
    AfterTheAnswer,
    /// Its start was told.
    WhileItRuns,
}

impl Point {
    const ALL: [Self; 6] = [
        Self::BeforeTheJournal,
        Self::AfterTheJournal,
        Self::WhileItIsSent,
        Self::AfterTheSend,
        Self::AfterTheAnswer,
        Self::WhileItRuns,
    ];
}

/// Sends a submission and reads its answer, if one comes. `whole` is false for one whose last
/// byte is kept back.
async fn post(front: SocketAddr, prompt: &str, whole: Whole) -> Option<u16> {
    let body = json!({ "client_id": prompt, "prompt_id": prompt, "prompt": quick(1) }).to_string();
    let mut stream = network().connect(&front.ip().to_string(), front.port()).await.unwrap();
    let length = body.len();
    let head = format!("POST /prompt HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    let sent = if whole == Whole::Yes { &body } else { &body[..length - 1] };
    stream.write_all(format!("{head}{sent}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    while !answer.windows(4).any(|it| it == b"\r\n\r\n") {
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => answer.extend_from_slice(&part[..read]),
        }
    }
    String::from_utf8(answer[9..12].to_vec()).unwrap().parse().ok()
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whole {
    Yes,
    No,
}

/// Brings a submission to `point` and kills the gateway there. True if it was acknowledged.
async fn kill_at(point: Point, daemon: Daemon, sim: &Sim, prompt: &str) -> bool {
    let enqueued = || sim.ledger().enqueued.iter().any(|it| it == prompt);
    let tasks = Tasks::default();
    let (front, id) = (daemon.front, prompt.to_owned());
    let spawn_post = |whole: Whole| {
        tasks.spawn(async move {
            let _answer = post(front, &id, whole).await;
        });
    };
    let acknowledged = match point {
        Point::BeforeTheJournal => {
            spawn_post(Whole::No);
            let connected = async { while daemon.pending().await != 0 {} };
            soon("its head is there", connected).await;
            false
        }
        Point::AfterTheJournal => {
            sim.set_faults(|faults| faults.refuse_sockets = true);
            spawn_post(Whole::Yes);
            let pending = async { while daemon.pending().await == 0 {} };
            soon("it is pending", pending).await;
            let noted = async { while daemon.metric("mooring_journal_waiting").await != 0 {} };
            soon("it is in the journal", noted).await;
            false
        }
        Point::WhileItIsSent => {
            sim.set_faults(|faults| faults.hang = Hang::Submit);
            spawn_post(Whole::Yes);
            let sent = async { while daemon.metric("mooring_submissions_total").await == 0 {} };
            soon("it is sent", sent).await;
            false
        }
        Point::AfterTheSend => {
            sim.set_faults(|faults| faults.submit = SubmitFault::NoAnswer);
            spawn_post(Whole::Yes);
            until("its backend has it", enqueued).await;
            false
        }
        Point::AfterTheAnswer => {
            assert_eq!(post(front, prompt, Whole::Yes).await, Some(200));
            true
        }
        Point::WhileItRuns => {
            let mut socket = Socket::open(front, &format!("/ws?clientId={prompt}")).await;
            assert_eq!(post(front, prompt, Whole::Yes).await, Some(200));
            socket.until("execution_start").await;
            true
        }
    };
    daemon.kill();
    assert_eq!(tasks.drain(PATIENCE).await, 0, "its connection ends");
    sim.set_faults(|faults| *faults = Faults::default());
    acknowledged
}

// Waiting for the executable blocks a thread; its backend needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_kill_at_any_point_of_a_submission_forgets_nothing_and_runs_nothing_twice() {
    let rounds = fraction("T62: kills of the gateway at named points", 200, 12);
    kills(rounds, &[]).await;
}

/// The same with the journal in PostgreSQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_kill_forgets_nothing_and_runs_nothing_twice_with_a_journal_in_postgresql() {
    let rounds = fraction("T62: kills of the gateway with PostgreSQL", 200, 6);
    let Some(database) = database().await else { return };
    kills(rounds, &["--set", &database.setting()]).await;
}

async fn kills(rounds: usize, more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let mut acknowledged = Vec::new();
    let mut prompts = Vec::new();
    let mut daemon = Daemon::start_with(&sim, &folder, more);
    for round in 0..rounds {
        let point = Point::ALL[round % Point::ALL.len()];
        let prompt = format!("00000000-0000-4000-8000-{round:012x}");
        if kill_at(point, daemon, &sim, &prompt).await {
            acknowledged.push(prompt.clone());
        }
        daemon = Daemon::start_with(&sim, &folder, more);
        let resolved = async {
            while daemon.pending().await != 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = timeout(RESOLVED_WITHIN, resolved).await;
        assert!(in_time.is_ok(), "{point:?} of {prompt}: still open after {RESOLVED_WITHIN:?}");
        check_outcome(&daemon, &sim, point, &prompt).await;
        prompts.push(prompt);
    }
    let ledger = sim.ledger();
    for prompt in &prompts {
        assert!(ledger.executed.get(prompt).copied().unwrap_or(0) <= 1, "{prompt} ran twice");
        let enqueued = ledger.enqueued.iter().filter(|it| *it == prompt).count();
        assert!(enqueued <= 1, "{prompt} was sent twice");
    }
    for prompt in &acknowledged {
        assert_eq!(ledger.executed.get(prompt), Some(&1), "{prompt} was acknowledged");
    }
}

/// What the gateway says of a prompt after the restart is what its backend says.
async fn check_outcome(daemon: &Daemon, sim: &Sim, point: Point, prompt: &str) {
    let path = format!("/history/{prompt}");
    let entry = send(daemon.front, http::Method::GET, &path, &[], "").await.json();
    let told = entry[prompt]["status"]["status_str"].as_str().unwrap_or("none").to_owned();
    let has_run = sim.ledger().executed.contains_key(prompt);
    let expected = match (point, has_run) {
        (_, true) => "success",
        (Point::BeforeTheJournal, false) => "none",
        (_, false) => "error",
    };
    assert_eq!(told, expected, "{point:?} of {prompt}");
}
