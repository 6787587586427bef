//! How long lists of many entries take over HTTP, and how much memory: `cargo bench --bench
//! lists_live`. A gateway and eight simulated backends in this process, asked on a socket.
//!
//! The bounds are promises: it fails if one is broken. The best of several times counts, so that a
//! busy machine does not fail it. The backends' own work and memory are in the figures.

#![expect(clippy::print_stdout, reason = "times are what it is for")]

use std::fs;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use mooring::config::Config;
use mooring::front::Front;
use mooring::net::{Network, Tcp, now, sleep};
use mooring::routing::ids::{BackendId, ClientId, PromptId};
use mooring::routing::owners::Submitter;
use mooring::routing::pending::End;
use mooring::run::{self, Parts};
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use serde_json::{Value, json};

const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const QUEUED: usize = 1_000;
const ENDED: usize = 10_000;
const RUNS: usize = 10;

/// One browser: its eight tabs are on eight backends.
const COOKIE: &str = "mooring=00000000000000000000000000000007";

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let measured = runtime.map_err(Failure::from).and_then(|it| it.block_on(measure()));
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<bool, Failure> {
    let network: Arc<dyn Network> = Arc::new(Tcp);
    let mut sims = Vec::new();
    for name in NAMES {
        sims.push(Sim::start(Arc::clone(&network), Options::named(name)).await?);
    }
    let urls: Vec<String> = sims.iter().map(Sim::url).collect();
    let named: Vec<(&str, &str)> = NAMES.into_iter().zip(urls.iter().map(String::as_str)).collect();
    let mut config = Config::for_backends(&named)?;
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.listen = None;
    let tasks = Tasks::default();
    let running = run::start(config, Arc::clone(&network), &tasks, Parts::default()).await?;
    let gateway = &running.front;
    while !gateway.shared.fleet.iter().all(|backend| backend.is_up()) {
        sleep(Duration::from_millis(5)).await;
    }
    let mut client = Client::connect(&network, running.front_address, &tasks).await?;
    fill_queues(&mut client).await?;
    fill_history(gateway)?;

    // Without it the peak would be that of filling them.
    let _not_everywhere = fs::write("/proc/self/clear_refs", "5");
    let before = peak_kib();
    let queue = timed(&mut client, "/queue", 150).await?;
    let more = peak_kib().saturating_sub(before);
    println!("{more:>10} KiB   additional memory, of 65536");
    let history = timed(&mut client, "/history?max_items=64&clientId=old", 50).await?;
    let jobs = "/api/jobs?status=completed,failed,cancelled&limit=64&offset=0&clientId=old";
    let jobs = timed(&mut client, jobs, 50).await?;
    tasks.stop();
    Ok(queue && history && jobs && more <= 65_536)
}

/// A thousand prompts of each of eight tabs, each tab on a backend of its own.
async fn fill_queues(client: &mut Client) -> Result<(), Failure> {
    for at in 0..QUEUED {
        for tab in NAMES {
            let body = json!({ "client_id": tab, "prompt": graph() }).to_string();
            let (status, answer) = client.ask(Method::POST, "/prompt", body).await?;
            if status != 200 {
                return Err(format!("{at} {tab}: {}", String::from_utf8_lossy(&answer)).into());
            }
        }
    }
    Ok(())
}

/// About half a kilobyte, as in the queue of a real server; the first runs for an hour.
fn graph() -> Value {
    json!({
        "1": { "class_type": "EmptyImage",
               "inputs": { "width": 64, "height": 64, "batch_size": 1, "color": 255 } },
        "2": { "class_type": "SlowSteps",
               "inputs": { "image": ["1", 0], "steps": 5, "seconds": 3600.0, "fail": false,
                           "preview": false } },
        "3": { "class_type": "SaveImage",
               "inputs": { "images": ["2", 0], "filename_prefix": "r".repeat(180) } },
    })
}

/// What is known after ten thousand prompts on each backend, all of them listed once.
fn fill_history(gateway: &Front) -> Result<(), Failure> {
    let client = ClientId::parse("old")?;
    for at in 0..ENDED {
        for backend in 0..NAMES.len() {
            let id = format!("{backend:08}-9fc2-4a5d-b0a5-{at:012}");
            let prompt = PromptId::parse(&id)?;
            let records = &gateway.shared.records;
            records.reserve(&prompt, Submitter::client(client.clone()))?;
            let mut ledger = records.ledger_of(&prompt);
            ledger.placed(&prompt, BackendId::nth(u16::try_from(backend)?));
            ledger.ended(&prompt, End::Succeeded, now());
            drop(ledger);
            let entry = json!({
                "prompt": [at, id, graph(), { "client_id": "old", "create_time": 1 }, ["3"]],
                "outputs": { "3": { "images": [
                    { "filename": format!("rec_{at:05}_.png"), "subfolder": "", "type": "output" },
                ] } },
                "status": { "status_str": "success", "completed": true, "messages": [] },
                "meta": {},
            });
            gateway.history_cache.keep(&prompt, entry.to_string().as_bytes());
        }
    }
    println!("{} KiB of history entries are kept", gateway.history_cache.weight() / 1024);
    Ok(())
}

/// One connection to the front.
struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn connect(
        network: &Arc<dyn Network>,
        to: SocketAddr,
        tasks: &Tasks,
    ) -> Result<Self, Failure> {
        let stream = network.connect(&to.ip().to_string(), to.port()).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tasks.spawn(async move { drop(connection.await) });
        Ok(Self { sender })
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(u16, Bytes), Failure> {
        let request = Request::builder().method(method).uri(path).header("host", "mooring");
        let request = request.header("cookie", COOKIE).body(Full::from(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status().as_u16();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

/// Asks several times, says the best time, and whether that is within `bound_ms`.
async fn timed(client: &mut Client, path: &str, bound_ms: u64) -> Result<bool, Failure> {
    let (mut best, mut len) = (Duration::MAX, 0);
    for _ in 0..RUNS {
        let begun = now();
        let (status, body) = client.ask(Method::GET, path, String::new()).await?;
        best = best.min(begun.elapsed());
        len = body.len();
        if status != 200 {
            return Err(format!("{path}: {status}").into());
        }
    }
    println!("{:>10.3} ms    {path}: {len} bytes, of {bound_ms} ms", best.as_secs_f64() * 1e3);
    Ok(best <= Duration::from_millis(bound_ms))
}

/// The most memory that this process has had; 0 where the system does not say.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
