//! A panic in a task is never silent, and ends no more than it must.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use mooring::config::Config;
use mooring::net::{Boxed, Listener, Network, Stream, Tcp};
use mooring::run::{self, Parts};
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use mooring::tasks::heartbeat::LOOKS_MAX;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::support::{World, network, quick, slow, soon, until};

fn config() -> Config {
    let mut config = Config::for_backends(&[("a", "http://127.0.0.1:9")]).unwrap();
    config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.admin.listen = None;
    config
}

/// Nobody else does what such a task did, so the process ends, and its successor has the journal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_the_process_needs_ends_it_by_a_panic() {
    let tasks = Tasks::default();
    tasks.spawn_critical("needed", async { panic!("as asked") });
    let running = run::run(config(), network(), tasks.clone(), Parts::default());
    let ended = soon("the end of the process", running).await;
    let error = ended.unwrap_err().to_string();
    assert!(error.starts_with("the task \"needed\" ended"), "{error}");
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_of_one_client_ends_alone_and_is_counted() {
    let world = World::new(1).await;
    world.gateway.shared.tasks.spawn(async { panic!("as asked") });
    until("it is counted", || world.gateway.shared.tasks.panics() == 1).await;
    let metrics = world.admin_get("/metrics").await.text();
    assert!(metrics.contains("\nmooring_task_panics_total 1\n"), "{metrics}");
    assert_eq!(world.get("/queue?clientId=ada").await.status, 200);
}

/// Whoever reads ada's link, or dials, panics once, when it is asked to.
#[derive(Clone, Debug, Default)]
struct Fragile {
    breaks: Arc<AtomicBool>,
    breaks_dials: Arc<AtomicBool>,
    links: Arc<AtomicUsize>,
}

impl Network for Fragile {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Boxed<'a, io::Result<Stream>> {
        Box::pin(async move {
            assert!(!self.breaks_dials.swap(false, Ordering::SeqCst), "as asked");
            let (stream, network) = (Tcp.connect(host, port).await?, self.clone());
            Ok(Stream::simulated(Wire { stream, network, is_link: false }))
        })
    }

    fn listen(&self, address: SocketAddr) -> Boxed<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Tcp.listen(address).await })
    }
}

struct Wire {
    stream: Stream,
    network: Fragile,
    is_link: bool,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let breaks = self.is_link && self.network.breaks.swap(false, Ordering::SeqCst);
        assert!(!breaks, "as asked");
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.starts_with(b"GET /ws?clientId=ada") {
            self.is_link = true;
            self.network.links.fetch_add(1, Ordering::SeqCst);
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_a_link_is_followed_by_a_new_link_and_its_prompts_still_end() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let fragile = Fragile::default();
    let world = World::over_network(Arc::new(fragile.clone()), vec![sim], |_| {}).await;
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(20, 1.0)).await.prompt_id();
    socket.until("progress").await;
    fragile.breaks.store(true, Ordering::SeqCst);
    until("the link panics", || world.gateway.shared.tasks.panics() == 1).await;
    until("there is a new one", || fragile.links.load(Ordering::SeqCst) == 2).await;
    let seen = socket.until_end(&prompt).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
    // It is as good as the first.
    let prompt = world.submit("ada", &slow(2, 0.1)).await.prompt_id();
    socket.until_end(&prompt).await;
    assert_eq!((world.gateway.shared.tasks.panics(), fragile.links.load(Ordering::SeqCst)), (1, 2));
}

/// Nobody else would ask about it: what is on its way is its own task's business.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_whose_task_panics_ends_and_its_client_is_free() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let fragile = Fragile::default();
    let world = World::over_network(Arc::new(fragile.clone()), vec![sim], |config| {
        // Nobody but the submission dials.
        config.fleet.max_idle_connections = 0;
        config.fleet.dial_interval = Duration::from_secs(3600);
    })
    .await;
    world.all_up().await;
    let mut socket = world.socket("ada").await;
    let first = world.submit("ada", &quick(1)).await.prompt_id();
    socket.until_end(&first).await;
    fragile.breaks_dials.store(true, Ordering::SeqCst);
    let prompt = "11111111-2222-4333-8444-555555555555";
    let body = json!({ "client_id": "ada", "prompt": quick(2), "prompt_id": prompt });
    let answer = world.post("/prompt", &body.to_string()).await;
    assert_eq!(answer.header("mooring-error"), "prompt_state_unknown", "{}", answer.text());
    // It is counted when the task has ended, and its caller is answered while it does.
    until("the panic is counted", || world.gateway.shared.tasks.panics() == 1).await;
    let seen = socket.until_end(prompt).await;
    assert!(!seen.contains(&"execution_success".to_owned()), "it was not sent: {seen:?}");
    let backend = world.gateway.shared.fleet.by_name("a").unwrap();
    until("its load is none", || backend.load.total(mooring::net::now()) == 0).await;
    let last = world.submit("ada", &quick(3)).await.prompt_id();
    let seen = socket.until_end(&last).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_does_not_go_round_any_more_is_named_by_livez() {
    let world = World::new(1).await;
    let hearts = world.gateway.shared.tasks.hearts();
    let needed =
        ["admin listener", "front listener", "reconciler", "reconciler of a backend", "sweep"];
    until("they have begun", || needed.iter().all(|it| hearts.names().contains(it))).await;
    let stuck = hearts.heart("stuck");
    (0..LOOKS_MAX).for_each(|_| hearts.look());
    // All others beat again within a round.
    until("it alone is silent", || hearts.silent() == ["stuck"]).await;
    let answer = world.admin_get("/livez").await;
    let told = "these tasks have made no progress for 60 s or longer: stuck\n";
    assert_eq!((answer.status, answer.text().as_str()), (503, told));
    stuck.beat();
    let answer = world.admin_get("/livez").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
}
