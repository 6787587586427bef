//! What the journal costs: recovery after a crash, and what it adds to a submission.
//!
//! `cargo bench --bench journal` prints a table; `docs/journal.md` has the last one. Everything is
//! on this machine's disk (`TMPDIR` says where) and loopback.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and stops at the first thing that is wrong"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use mooring::config::{Config, StateDir};
use mooring::journal::disk::Disk;
use mooring::journal::record::{Batch, BindingRecord, PromptRecord, Sent};
use mooring::journal::{Journal, Store as _};
use mooring::net::{Network, Tcp, now, unix_millis};
use mooring::routing::ids::{ClientId, PromptId};
use mooring::run::{self, Parts, Running};
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use serde_json::json;

const BINDINGS: usize = 100_000;
const PENDING: usize = 1_000;
const COMMITS: usize = 1_000;
const SUBMISSIONS: usize = 1_000;
const ROUNDS: usize = 5;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("| What | Median | Spread or 99 % |");
    println!("|---|---|---|");
    runtime.block_on(async {
        recovery().await;
        commits().await;
        submissions().await;
    });
}

fn network() -> Arc<dyn Network> {
    Arc::new(Tcp)
}

async fn gateway(sim: &Sim, state: Option<&Path>) -> (Running, Tasks) {
    let mut config = Config::for_backends(&[("a", &sim.url())]).unwrap();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.listen = None;
    config.affinity.max_clients = 2 * BINDINGS;
    config.prompts.max_pending_per_client = 2 * SUBMISSIONS;
    config.state.dir = state.map_or(StateDir::Nowhere, |dir| StateDir::Written(dir.to_owned()));
    let tasks = Tasks::default();
    let running = run::start(config, network(), &tasks, Parts::default()).await.unwrap();
    (running, tasks)
}

async fn stop(running: Running, tasks: Tasks) {
    tasks.drain(Duration::from_secs(10)).await;
    running.writers.drain(Duration::from_secs(10)).await;
}

/// From the start of the process's work to open doors, with everything restored: the journal read
/// and checked, clients bound, links of clients with work dialled.
async fn recovery() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let saved = large(&sim);
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        // The first thing that a start does to pending prompts is to find them lost.
        let mut disk = Disk::open(folder.path()).unwrap();
        disk.load().unwrap();
        disk.commit(Arc::new(saved.clone())).await.unwrap();
        drop(disk);
        let began = now();
        let (running, tasks) = gateway(&sim, Some(folder.path())).await;
        took.push(began.elapsed());
        assert_eq!(running.front.sessions.clients.len(), BINDINGS);
        stop(running, tasks).await;
    }
    let size = std::fs::metadata(folder.path().join("journal.redb")).unwrap().len() >> 20;
    let what = format!("start with {BINDINGS} bindings and {PENDING} pending prompts ({size} MiB)");
    row(&what, &mut took, Show::Spread);
}

fn large(sim: &Sim) -> Batch {
    let mut batch = Batch::default();
    let url: Arc<str> = sim.addr().to_string().into();
    for number in 0..BINDINGS {
        let client = ClientId::parse(&format!("{number:032x}")).unwrap();
        let record = BindingRecord::new("a", Arc::clone(&url), unix_millis(), None);
        if number < PENDING {
            let (made, order) = (unix_millis(), number as u64);
            let sent = Sent { backend: "a".into(), url: Arc::clone(&url), made, order };
            let prompt = PromptId::parse(&uuid::Uuid::new_v4().to_string()).unwrap();
            batch.prompts.insert(prompt, Some(PromptRecord::new(&client, sent, Vec::new())));
        }
        batch.clients.insert(client, Some(record));
    }
    batch
}

/// One record after another, each durable before the next.
async fn commits() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(folder.path()).unwrap();
    disk.load().unwrap();
    let writers = Tasks::default();
    let journal = Journal::open(disk, &writers);
    let mut took = Vec::new();
    for number in 0..COMMITS {
        let client = ClientId::parse(&format!("client {}", number % 100)).unwrap();
        let began = now();
        journal.note_binding(&client, Some(BindingRecord::new("a", "x:1", 1, None)));
        journal.durable().await.unwrap();
        took.push(began.elapsed());
    }
    row("one durable record", &mut took, Show::P99);
    writers.drain(Duration::from_secs(10)).await;
}

/// `POST /prompt` on a kept connection of a client with a link, in memory and on the disk, in turn.
async fn submissions() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let memory = gateway(&sim, None).await;
    let disk = gateway(&sim, Some(folder.path())).await;
    let (mut in_memory, mut on_disk) = (Vec::new(), Vec::new());
    let mut to_memory = connect(memory.0.front_address).await;
    let mut to_disk = connect(disk.0.front_address).await;
    for number in 0..SUBMISSIONS {
        in_memory.push(submit(&mut to_memory, "m", number).await);
        on_disk.push(submit(&mut to_disk, "d", number).await);
    }
    row("a submission, journal in memory", &mut in_memory, Show::P99);
    row("a submission, journal on disk", &mut on_disk, Show::P99);
    let added = median(&on_disk).saturating_sub(median(&in_memory));
    println!("| added by the disk, at the median | {} | |", show(added));
    stop(memory.0, memory.1).await;
    stop(disk.0, disk.1).await;
}

async fn connect(to: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = network().connect(&to.ip().to_string(), to.port()).await.unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    Tasks::default().spawn(async move {
        let _ = connection.await;
    });
    sender
}

async fn submit(to: &mut SendRequest<Full<Bytes>>, client: &str, number: usize) -> Duration {
    let graph = json!({
        "1": { "class_type": "EmptyImage",
               "inputs": { "width": 8, "height": 8, "batch_size": 1, "color": number } },
        "3": { "class_type": "PreviewImage", "inputs": { "images": ["1", 0] } },
    });
    let body = json!({ "client_id": client, "prompt": graph }).to_string();
    let request = Request::post("/prompt").header("host", "x").body(Full::from(body)).unwrap();
    let began = now();
    let response = to.send_request(request).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    let took = began.elapsed();
    assert_eq!(status, 200);
    took
}

#[derive(Clone, Copy)]
enum Show {
    Spread,
    P99,
}

fn row(what: &str, took: &mut [Duration], spread: Show) {
    took.sort_unstable();
    let second = match spread {
        Show::Spread => format!("{} to {}", show(took[0]), show(took[took.len() - 1])),
        Show::P99 => show(took[took.len() * 99 / 100]),
    };
    println!("| {what} | {} | {second} |", show(median(took)));
}

/// Of sorted ones.
fn median(took: &[Duration]) -> Duration {
    took[took.len() / 2]
}

fn show(took: Duration) -> String {
    format!("{:.2} ms", took.as_secs_f64() * 1000.0)
}
