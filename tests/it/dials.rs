//! Backends that are slow or deaf in part: no new connections, no sockets for a moment, large
//! bodies, and an event loop that is busy with one.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use mooring::config::Config;
use mooring::net::{Boxed, Listener, Network, Stream, Tcp, now};
use mooring::routing::pending::{End, Loss};
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use crate::support::{World, network, quick, send, slow, soon, until};

/// A server that goes deaf: what is open goes on, and new connections are accepted by its system
/// and by nobody else.
struct Deaf {
    address: SocketAddr,
    is_deaf: watch::Sender<bool>,
    tasks: Tasks,
}

impl Drop for Deaf {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Deaf {
    async fn before(sim: &Sim) -> Self {
        let listener = Tcp.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, behind) = (listener.local_addr(), sim.addr());
        let (is_deaf, seen) = watch::channel(false);
        let tasks = Tasks::default();
        let (own, stopping) = (tasks.clone(), tasks.clone());
        tasks.spawn(async move {
            let accepting = async {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { return };
                    own.spawn(carry(stream, behind, seen.clone()));
                }
            };
            tokio::select! {
                () = accepting => {}
                () = stopping.stopping() => {}
            }
        });
        Self { address, is_deaf, tasks }
    }
}

async fn carry(mut from: Stream, behind: SocketAddr, mut is_deaf: watch::Receiver<bool>) {
    let _ = is_deaf.wait_for(|deaf| !*deaf).await;
    if let Ok(mut to) = network().connect("127.0.0.1", behind.port()).await {
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    }
}

/// Backends `a`, behind a door that can be made deaf, and `b`.
async fn half_deaf(change: impl FnOnce(&mut Config)) -> (World, Deaf) {
    let a = Sim::start(network(), Options::named("a")).await.unwrap();
    let b = Sim::start(network(), Options::named("b")).await.unwrap();
    let deaf = Deaf::before(&a).await;
    let address = deaf.address;
    let world = World::over(vec![a, b], |config| {
        config.backends[0].port = address.port();
        config.backends[0].authority = address.to_string();
        config.fleet.probe_interval = Duration::from_millis(50);
        config.fleet.probe_timeout = Duration::from_millis(300);
        config.prompts.link_timeout = Duration::from_millis(500);
        change(config);
    })
    .await;
    world.all_up().await;
    (world, deaf)
}

/// Its open sockets say that all is well, and its queue is the shortest because nobody gets in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_takes_no_new_connection_gets_no_new_work() {
    let (world, deaf) =
        half_deaf(|config| config.fleet.dial_interval = Duration::from_millis(50)).await;
    // So that the other is always the busier one.
    world.admin_post("/api/v1/backends/a/state", r#"{"state":"draining"}"#).await;
    let _busy = world.submit("busy", &slow(100, 60.0)).await.prompt_id();
    world.admin_post("/api/v1/backends/a/state", r#"{"state":"ready"}"#).await;
    let a = Arc::clone(&world.gateway.shared.fleet.by_name("a").unwrap());
    deaf.is_deaf.send(true).unwrap();
    until("it is seen to be deaf", || a.breaker.is_tripped()).await;
    assert!(a.is_up(), "what is open goes on");
    for client in ["x", "y", "z"] {
        let placed = world.submit(client, &quick(1)).await;
        assert_eq!((placed.status, placed.backend()), (200, "b"), "{}", placed.text());
    }
    let report = world.admin_get("/api/v1/backends").await.json();
    let trouble = report["backends"][0]["trouble"].as_str().unwrap();
    assert!(trouble.starts_with("takes no new connection: "), "{trouble}");
    let ready = world.admin_get("/readyz").await.json();
    assert_eq!(ready["backends"][0]["takes_work"], false, "{ready}");
    deaf.is_deaf.send(false).unwrap();
    until("it is seen to listen again", || !a.breaker.is_tripped()).await;
    assert_eq!(world.submit("new", &quick(2)).await.backend(), "a");
}

/// Nothing is tried for that alone here: the links that are not opened tell it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_cannot_be_opened_count_against_their_backend() {
    let (world, deaf) =
        half_deaf(|config| config.fleet.dial_interval = Duration::from_secs(3600)).await;
    world.admin_post("/api/v1/backends/a/state", r#"{"state":"draining"}"#).await;
    let _busy = world.submit("busy", &slow(100, 60.0)).await.prompt_id();
    world.admin_post("/api/v1/backends/a/state", r#"{"state":"ready"}"#).await;
    deaf.is_deaf.send(true).unwrap();
    let a = Arc::clone(&world.gateway.shared.fleet.by_name("a").unwrap());
    let (mut waited, mut client) = (0, 0);
    while !a.breaker.is_tripped() {
        client += 1;
        let placed = world.submit(&format!("c{client}"), &quick(client)).await;
        assert_eq!((placed.status, placed.backend()), (200, "b"), "nothing was pending elsewhere");
        waited += 1;
        assert!(waited <= 2, "for ever");
    }
    let placed = world.submit("last", &quick(9)).await;
    assert_eq!((placed.header("mooring-placement"), placed.backend()), ("placed", "b"));
}

/// Work that must stay where it is waits for its link once more before it is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_waits_once_more_for_a_link_that_cannot_be_opened_for_a_moment() {
    let world = World::with(1, |config| {
        config.prompts.link_timeout = Duration::from_secs(2);
    })
    .await;
    let sim = world.sim("a");
    sim.set_faults(|faults| faults.refuse_sockets = true);
    let graph = quick(1);
    let submitting = world.submit("ada", &graph);
    let mending = async {
        // At 0, 0.25 and 1.25 s; the next is at 3.25 s, when the first wait is over.
        let refused = || {
            let is_its = |target: &str| target.starts_with("/ws") && target.contains("ada");
            sim.requests().iter().filter(|seen| is_its(&seen.target)).count()
        };
        until("its link was refused three times", || refused() == 3).await;
        sim.set_faults(|faults| faults.refuse_sockets = false);
    };
    let (answer, ()) = tokio::join!(submitting, mending);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut socket = world.socket("ada").await;
    socket.until_end(&answer.prompt_id()).await;
}

/// Sends a picture byte by byte: all of it takes `pieces` times `pause`.
async fn drip(to: SocketAddr, path: &str, pieces: usize, pause: Duration) -> String {
    let body = "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"in.png\"\r\n\
        Content-Type: image/png\r\n\r\nnot really\r\n--x--\r\n";
    let mut stream = network().connect("127.0.0.1", to.port()).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\
         content-type: multipart/form-data; boundary=x\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for piece in body.as_bytes().chunks(body.len().div_ceil(pieces)) {
        tokio::time::sleep(pause).await;
        if stream.write_all(piece).await.is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = soon("the answer", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// An upload takes as long as it takes; the backend's time begins with its last byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_moves_is_never_late_and_an_answer_that_does_not_come_is() {
    let limit = Duration::from_millis(400);
    let world = World::with(1, |config| config.server.answer_timeout = limit).await;
    for path in ["/upload/image?clientId=ada", "/upload/image", "/api/pack/anything"] {
        let answer = drip(world.front, path, 10, Duration::from_millis(100)).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let expected = if path.contains("pack") { "405" } else { "200" };
        assert_eq!(status, expected, "{path}: it moved all the time: {answer}");
    }
    world.sim("a").set_faults(|faults| faults.latency_ms = 60_000);
    let late = drip(world.front, "/upload/image", 2, Duration::from_millis(1)).await;
    assert!(late.starts_with("HTTP/1.1 504"), "{late}");
    assert!(late.contains("backend_timeout"), "{late}");
}

/// ComfyUI 0.33 hashes what is uploaded on its event loop: for that long it says nothing to
/// anybody, and that is all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_hashes_a_large_upload_is_neither_down_nor_lost() {
    let world = World::with(1, |config| {
        config.fleet.probe_interval = Duration::from_millis(50);
        config.fleet.patience = Duration::from_millis(50);
        config.fleet.probe_timeout = Duration::from_millis(100);
    })
    .await;
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(100, 3.0)).await.prompt_id();
    socket.until("progress").await;
    let before = world.gateway.shared.fleet.by_name("a").unwrap().up_state().times;
    // Many times what silence may last otherwise.
    world.sim("a").set_faults(|faults| faults.hash_ms = 1_500);
    let boundary = [("content-type", "multipart/form-data; boundary=x")];
    let picture = "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"in.png\"\r\n\
        Content-Type: image/png\r\n\r\nnot really\r\n--x--\r\n";
    let stored = send(world.front, Method::POST, "/upload/image", &boundary, picture).await;
    assert_eq!(stored.status, 200, "{}", stored.text());
    assert_eq!(
        world.gateway.shared.fleet.by_name("a").unwrap().up_state().times,
        before,
        "never down"
    );
    let seen = socket.until_end(&prompt).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
    assert_eq!(world.gateway.shared.metrics.prompts_ended(End::Lost(Loss::BackendGone)), 0);
}

/// Notes when each connection was dialled, and at which port.
#[derive(Clone, Debug, Default)]
struct Noting(Arc<Mutex<Vec<(u16, Instant)>>>);

impl Network for Noting {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Stream>> {
        self.0.lock().unwrap().push((port, now()));
        Tcp.connect(host, port)
    }

    fn listen(&self, address: SocketAddr) -> Boxed<'_, io::Result<Box<dyn Listener>>> {
        Tcp.listen(address)
    }
}

async fn set_states(world: &World, states: &[(&str, &str)]) {
    for (backend, state) in states {
        let body = format!(r#"{{"state":"{state}"}}"#);
        world.admin_post(&format!("/api/v1/backends/{backend}/state"), &body).await;
    }
}

/// They are moved at once, and nobody waits for them. One has a prompt, which does not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_idle_clients_of_a_backend_that_goes_down_come_to_the_others_in_turn() {
    const MANY: usize = 120;
    let a = Sim::start(network(), Options::named("a")).await.unwrap();
    let b = Sim::start(network(), Options::named("b")).await.unwrap();
    let noting = Noting::default();
    let world = World::over_network(Arc::new(noting.clone()), vec![a, b], |_| {}).await;
    world.all_up().await;
    set_states(&world, &[("b", "draining")]).await;
    let names: Vec<String> = (0..MANY).map(|number| format!("c{number}")).collect();
    let mut sockets = Vec::new();
    for name in &names {
        sockets.push(world.socket(name).await);
    }
    let there = |sim: &str| -> Vec<String> {
        world.sim(sim).sids().into_iter().filter(|sid| sid.starts_with('c')).collect()
    };
    until("all are on one", || there("a").len() == MANY).await;
    set_states(&world, &[("b", "ready")]).await;
    let went_down = now();
    world.sim("a").crash().await;
    until("the first has come", || !there("b").is_empty()).await;
    let come = there("b");
    let waits = names.iter().find(|name| !come.contains(name)).unwrap();
    let answer = world.submit(waits, &quick(1)).await;
    assert_eq!((answer.status, answer.backend()), (200, "b"), "{}", answer.text());
    assert!(there("b").len() < MANY, "it did not wait for all others");
    until("all have come", || there("b").len() == MANY).await;
    let port = world.sim("b").addr().port();
    let dials = noting.0.lock().unwrap().clone();
    let dials: Vec<_> = dials.iter().filter(|it| it.0 == port && went_down <= it.1).collect();
    for (number, (_, at)) in dials.iter().enumerate() {
        let soon = dials[number..].iter().take_while(|it| it.1 < *at + Duration::from_millis(100));
        let count = soon.count();
        // Five in turn; and the submission's, which dials for its link and for itself.
        assert!(count <= 12, "{count} of {} within 100 ms", dials.len());
    }
}

/// Its open links say that all is well, and each that is moved is a new connection elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_client_whose_link_is_open_stays_though_the_doors_of_its_backend_shut() {
    let world = World::with(3, |config| {
        // Nobody looks whether they are open again.
        config.fleet.probe_interval = Duration::from_secs(600);
        config.fleet.dial_interval = Duration::from_secs(600);
    })
    .await;
    world.all_up().await;
    let is_at = |client: &str, sim: &str| world.sim(sim).sids().iter().any(|sid| sid == client);
    set_states(&world, &[("b", "draining"), ("c", "draining")]).await;
    let _ada = world.socket("ada").await;
    set_states(&world, &[("a", "draining"), ("b", "ready")]).await;
    let _bob = world.socket("bob").await;
    until("both are linked", || is_at("ada", "a") && is_at("bob", "b")).await;
    let a = world.gateway.shared.fleet.by_name("a").unwrap();
    while !a.breaker.is_tripped() {
        a.breaker.failed("as asked".to_owned());
    }
    set_states(&world, &[("a", "ready"), ("c", "ready")]).await;
    // Whoever looks after bob twice has looked after ada at least once.
    set_states(&world, &[("b", "draining")]).await;
    until("bob is moved", || is_at("bob", "c")).await;
    set_states(&world, &[("b", "ready"), ("c", "draining")]).await;
    until("bob is moved again", || is_at("bob", "b")).await;
    assert!(a.breaker.is_tripped() && is_at("ada", "a"));
    assert_eq!(world.submit("ada", &quick(1)).await.backend(), "b", "her work goes elsewhere");
}
