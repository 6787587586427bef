//! Backends that fail in the middle of an answer, an upload or a connection: rows T43, T44, T48,
//! T54, T59, T65 and T80 of the fault list.
//!
//! The rows that are elsewhere: T45 and T46 in `backends.rs` and `restart.rs`, T47 and T49 in
//! `backends.rs`, T58, T63 and T64 in `races.rs`, T62 in `kills.rs`, T66 in `bodies.rs`, T67 in
//! `restart.rs`, T69 in `journal.rs`, T70 and T71 in `stop.rs`. T78: the wall clock is read to
//! write and restore records only (`clippy.toml` refuses it elsewhere); one that jumps is tried in
//! `journal/restore.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use mooring::config::Config;
use mooring::net::{Listener, Stream, sleep};
use mooring::run::{self, Parts, Running};
use mooring::sim::SubmitFault;
use mooring::tasks::Tasks;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    NAMES, PATIENCE, World, fraction, hosts, network, quick, send, slow, soon, until,
};

/// A backend that is up, and breaks the answers of `/broken/…` at a named point. Everything else
/// is answered by a simulated one behind it.
struct Breaker {
    listener: Arc<dyn Listener>,
    behind: SocketAddr,
    tasks: Tasks,
}

impl Breaker {
    async fn start(world: &World, tasks: &Tasks) -> SocketAddr {
        let listener = network().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr();
        let behind = world.sim("a").addr();
        let breaker = Self { listener: Arc::from(listener), behind, tasks: tasks.clone() };
        tasks.spawn(async move { breaker.run().await });
        address
    }

    async fn run(self) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.tasks.stopping() => return,
            };
            let Ok((stream, _)) = accepted else { continue };
            let behind = self.behind;
            let tasks = self.tasks.clone();
            self.tasks.spawn(async move {
                tokio::select! {
                    () = serve(stream, behind) => {}
                    () = tasks.stopping() => {}
                }
            });
        }
    }
}

/// Reads a head; breaks off as its path says, or hands the connection on.
async fn serve(mut stream: Stream, behind: SocketAddr) {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|it| it == b"\r\n\r\n") {
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&part[..read]),
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let answer = match text.split(' ').nth(1).unwrap_or_default() {
        "/broken/before-headers" => "",
        "/broken/in-headers" => "HTTP/1.1 200 OK\r\ncontent-le",
        "/broken/in-body" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it",
        "/broken/in-chunk" => {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n20\r\nhalf of it"
        }
        "/broken/after-last-chunk" => {
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwhat\r\n0\r\n"
        }
        _ => {
            let mut to = network().connect("127.0.0.1", behind.port()).await.unwrap();
            to.write_all(&head).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut to).await;
            return;
        }
    };
    let _ = stream.write_all(answer.as_bytes()).await;
}

async fn over(address: SocketAddr, tasks: &Tasks) -> Running {
    let mut config = Config::for_backends(&[("a", &format!("http://{address}"))]).unwrap();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.listen = None;
    config.server.hosts = hosts(NAMES);
    // Each request on a connection of its own: the path of the first is what is looked at.
    config.fleet.max_idle_connections = 0;
    run::start(config, network(), tasks, Parts::default()).await.unwrap()
}

/// What a client gets, to the byte, until its connection ends.
async fn raw(to: SocketAddr, path: &str) -> String {
    let mut stream = network().connect(&to.ip().to_string(), to.port()).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // An end that is no clean one can be a reset.
    let _ = soon("the connection ends", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// T43: a backend that dies in the middle of an answer never makes it look whole.
#[tokio::test]
async fn an_answer_that_breaks_off_never_ends_cleanly() {
    let rounds = fraction("T43: broken answers at each of five points", 200, 20);
    let (world, tasks) = (World::new(1).await, Tasks::default());
    let gateway = over(Breaker::start(&world, &tasks).await, &tasks).await;
    for _ in 0..rounds {
        for path in ["/broken/before-headers", "/broken/in-headers"] {
            let answer = raw(gateway.front_address, path).await;
            assert!(answer.starts_with("HTTP/1.1 502"), "{path}: {answer}");
        }
        let answer = raw(gateway.front_address, "/broken/in-body").await;
        assert!(answer.contains("content-length: 100"), "{answer}");
        assert!(answer.ends_with("half of it"), "100 were promised and not given: {answer}");
        for path in ["/broken/in-chunk", "/broken/after-last-chunk"] {
            let answer = raw(gateway.front_address, path).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
            assert!(!answer.ends_with("0\r\n\r\n"), "{path} looks whole: {answer}");
        }
    }
    let backend = gateway.front.shared.fleet.by_name("a").unwrap();
    assert!(backend.is_up(), "its watch link lives");
    tasks.drain(PATIENCE).await;
}

/// T44: a backend that dies during an upload; the picture goes nowhere else.
#[tokio::test]
async fn an_upload_that_its_backend_did_not_survive_is_not_sent_elsewhere() {
    for part in [0, 50, 99] {
        let world = World::new(2).await;
        world.get("/queue?clientId=ada").await;
        let home = world.get("/queue?clientId=ada").await.backend().to_owned();
        let length = 4 << 20;
        let mut stream = {
            let to = world.front;
            network().connect(&to.ip().to_string(), to.port()).await.unwrap()
        };
        let head = format!(
            "POST /upload/image?clientId=ada HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: multipart/form-data; boundary=x\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; length * part / 100]).await.unwrap();
        let seen = || {
            let all = world.sims.iter().flat_map(|sim| sim.requests());
            all.filter(|it| it.target.starts_with("/upload")).count()
        };
        until("it is on its way", || seen() == 1).await;
        let on = world
            .sims
            .iter()
            .find(|sim| sim.requests().iter().any(|it| it.target.starts_with("/upload")));
        on.unwrap().crash().await;
        let mut answer = Vec::new();
        let _ = soon("it is answered", stream.read_to_end(&mut answer)).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 502"), "{part} % on {home}: {text}");
        assert_eq!(seen(), 1, "it was not sent again");
    }
}

/// T48: a backend that refuses connections, or swallows them, costs a new client nothing.
#[tokio::test]
async fn a_backend_that_is_gone_costs_a_new_client_nothing() {
    let world = World::new(2).await;
    for number in 0..20 {
        if number == 5 {
            world.sim("a").crash().await;
        }
        // Before the crash is noticed, too: what was never sent goes elsewhere.
        let answer = world.submit(&format!("client{number}"), &quick(number)).await;
        assert_eq!(answer.status, 200, "{number}: {}", answer.text());
    }
    assert_eq!(world.sims.iter().map(|sim| sim.ledger().enqueued.len()).sum::<usize>(), 20);
}

/// T54: connections that the backend closes at the moment of the next request. A read is answered
/// all the same, and a submission never runs twice.
#[tokio::test]
async fn a_kept_connection_that_closes_at_the_wrong_moment_repeats_nothing() {
    let rounds = fraction("T54: requests on connections that are being closed", 10_000, 500);
    let world = World::new(1).await;
    let mut random = StdRng::seed_from_u64(54);
    let _socket = world.socket("ada").await;
    let mut taken = 0;
    for number in 0..rounds {
        world.get("/queue?clientId=ada").await;
        let close = async {
            sleep(Duration::from_micros(random.random_range(0..2_000))).await;
            world.sim("a").set_faults(|faults| faults.close_connections += 1);
        };
        let is_submission = number % 10 == 0;
        let ask = async {
            if is_submission {
                world.submit("ada", &quick(number as u32)).await
            } else {
                world.get("/queue?clientId=ada").await
            }
        };
        let ((), answer) = tokio::join!(close, ask);
        assert!(is_submission || answer.status == 200, "a read failed: {}", answer.text());
        taken += usize::from(is_submission && answer.status == 200);
    }
    let sim = world.sim("a");
    until("all are done", || sim.queue_remaining() == 0).await;
    let ledger = sim.ledger();
    assert!(ledger.executed.values().all(|count| *count == 1), "none ran twice");
    assert_eq!(ledger.executed.len(), taken, "and each answer was true");
}

/// T59: half of the submissions meet a fault. Each runs once or never, and its answer says which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_each_of_many_submissions_is_what_its_backend_did() {
    let submissions = fraction("T59: submissions, half of them with a fault", 2_000, 200);
    const FAULTS: [SubmitFault; 6] = [
        SubmitFault::ResetBeforeEnqueue,
        SubmitFault::ResetAfterEnqueue,
        SubmitFault::CutAnswer,
        SubmitFault::Error500Enqueued,
        SubmitFault::Error500NotEnqueued,
        SubmitFault::BadGateway,
    ];
    let world = Arc::new(World::new(2).await);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let tasks = Tasks::default();
    let workers = 20;
    for worker in 0..workers {
        let (world, tell) = (Arc::clone(&world), tell.clone());
        tasks.spawn(async move {
            for number in 0..submissions / workers {
                if number % 2 == 0 {
                    let fault = FAULTS[(number / 2 + worker) % FAULTS.len()];
                    let sim = &world.sims[worker % 2];
                    sim.set_faults(|it| (it.submit, it.submit_count) = (fault, 1));
                }
                let id = format!("{worker}-{number}");
                let client = format!("w{worker}");
                let body = json!({ "client_id": client, "prompt_id": id, "prompt": quick(1) });
                let answer = world.post("/prompt", &body.to_string()).await;
                let _ = tell.send((id, answer.status, answer.text()));
            }
        });
    }
    drop(tell);
    assert_eq!(tasks.drain(20 * PATIENCE).await, 0);
    let idle = || world.sims.iter().all(|sim| sim.queue_remaining() == 0);
    until("the backends are done", idle).await;
    let ran = |id: &str| -> u32 {
        world.sims.iter().filter_map(|sim| sim.ledger().executed.get(id).copied()).sum()
    };
    let mut count = 0;
    while let Some((id, status, text)) = told.recv().await {
        let expected = u32::from(status == 200);
        assert_eq!(ran(&id), expected, "{id} was answered with {status}: {text}");
        count += 1;
    }
    assert_eq!(count, submissions);
}

/// T65: a forged end does not end a prompt that still runs, and a missing one ends one that does
/// not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_end_is_found_and_a_doubled_one_counts_once() {
    let world = World::with(1, |config| config.prompts.silent_after = Duration::from_secs(1)).await;
    let mut socket = world.socket("ada").await;
    socket.until("status").await;
    let sim = world.sim("a");
    sim.set_faults(|faults| {
        faults.drop_events = vec!["execution_success".to_owned()];
        faults.no_last_word = true;
    });
    let missed = world.submit("ada", &slow(2, 0.02)).await.prompt_id();
    let seen = socket.until_end(&missed).await;
    assert!(seen.contains(&"execution_success".to_owned()), "made up from the history: {seen:?}");
    sim.set_faults(|faults| {
        faults.drop_events.clear();
        faults.no_last_word = false;
        faults.double_events = vec!["execution_success".to_owned(), "executing".to_owned()];
    });
    let doubled = world.submit("ada", &slow(2, 0.02)).await.prompt_id();
    socket.until_end(&doubled).await;
    let ended =
        world.gateway.shared.metrics.prompts_ended(mooring::routing::pending::End::Succeeded);
    assert_eq!(ended, 2, "each once");
    let held =
        world.gateway.sessions.clients.all().iter().filter(|it| !it.pending().is_empty()).count();
    assert_eq!(held, 0);
}

/// T80: whatever one connection does, the others are served. The panic itself is tried in
/// `server.rs`; here nothing that strangers send makes one.
#[tokio::test]
async fn nothing_that_strangers_send_panics() {
    let world = World::new(1).await;
    let mut random = StdRng::seed_from_u64(80);
    for _ in 0..fraction("T80: connections with random bytes", 5_000, 500) {
        let to = world.front;
        let mut stream = network().connect(&to.ip().to_string(), to.port()).await.unwrap();
        let mut bytes = b"POST /prompt HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n".to_vec();
        for _ in 0..random.random_range(1..8) {
            let at = random.random_range(0..bytes.len());
            bytes[at] = random.random();
        }
        let _ = stream.write_all(&bytes).await;
    }
    let answer = send(world.front, Method::GET, "/queue?clientId=ada", &[], "").await;
    assert_eq!((answer.status, world.gateway.shared.metrics.panics.get()), (200, 0));
}
