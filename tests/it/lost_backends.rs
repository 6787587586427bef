//! Backends that die while they have prompts of a gateway that lets prompts wait (`queue.depth`):
//! what had certainly not begun runs elsewhere, once, and everything else is lost, as without a
//! queue.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use mooring::config::Config;
use mooring::net::{Network as _, Stream, Tcp, sleep};
use mooring::routing::pending::Phase;
use mooring::sim::{Listening, Options, Sim};
use mooring::tasks::Tasks;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};

use crate::process::Daemon;
use crate::support::{Socket, World, network, quick, send, soon, until};
use crate::waiting::{takes, waits_unasked};

/// A backend is given its second prompt at once.
fn two_at_once(config: &mut Config) {
    waits_unasked(config);
    config.queue.lead = Duration::from_secs(36_000);
}

/// The same, and what a backend has that is away is soon lost.
fn without_patience(config: &mut Config) {
    two_at_once(config);
    config.fleet.grace = Duration::from_secs(1);
}

/// A proxy in front of a server. While it is gone, the server goes on.
struct Proxy {
    address: SocketAddr,
    behind: SocketAddr,
    tasks: Tasks,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Proxy {
    async fn before(sim: &Sim) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut proxy = Self { address: any, behind: sim.addr(), tasks: Tasks::default() };
        proxy.starts().await;
        proxy
    }

    async fn starts(&mut self) {
        let listener = Tcp.listen(self.address).await.unwrap();
        (self.address, self.tasks) = (listener.local_addr(), Tasks::default());
        let (tasks, behind) = (self.tasks.clone(), self.behind);
        self.tasks.spawn(async move {
            loop {
                let stream = tokio::select! {
                    biased;
                    () = tasks.stopping() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                tasks.spawn(carry(stream, behind, tasks.clone()));
            }
        });
    }

    /// Closes its port and all connections.
    async fn stops(&self) {
        self.tasks.stop();
        until("its port is closed", || {
            std::net::TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_err()
        })
        .await;
    }

    /// A gateway with the backends `a`, behind a proxy, and others.
    async fn in_world(others: &[&str], change: impl FnOnce(&mut Config)) -> (World, Self) {
        let a = Sim::start(network(), Options::named("a")).await.unwrap();
        let proxy = Self::before(&a).await;
        let mut sims = vec![a];
        for name in others {
            sims.push(Sim::start(network(), Options::named(name)).await.unwrap());
        }
        let address = proxy.address;
        let world = World::over(sims, |config| {
            change(config);
            config.backends[0].port = address.port();
            config.backends[0].authority = address.to_string();
        });
        (world.await, proxy)
    }
}

async fn carry(mut from: Stream, behind: SocketAddr, tasks: Tasks) {
    let Ok(mut to) = network().connect("127.0.0.1", behind.port()).await else { return };
    tokio::select! {
        biased;
        () = tasks.stopping() => {}
        _ = copy_bidirectional(&mut from, &mut to) => {}
    }
    let _ = from.shutdown().await;
}

impl World {
    /// How far this prompt of a client is known to be; `None` if it is not pending.
    fn phase(&self, client: &str, prompt: &str) -> Option<Phase> {
        let all = self.gateway.sessions.clients.all();
        let client = all.iter().find(|it| it.id.as_str().ends_with(client))?;
        let pending = client.pending();
        pending.iter().find(|(id, _)| id.as_str() == prompt).map(|(_, it)| it.phase)
    }

    fn is_to_be_deleted(&self, client: &str, prompt: &str) -> bool {
        let all = self.gateway.sessions.clients.all();
        let client = all.iter().find(|it| it.id.as_str().ends_with(client)).unwrap();
        client.pending().iter().any(|(id, it)| id.as_str() == prompt && it.delete_asked)
    }

    async fn is_queued(&self, client: &str, prompt: &str) {
        until("it is at its backend", || self.phase(client, prompt) == Some(Phase::Queued)).await;
    }

    async fn history(&self, client: &str, prompt: &str) -> Value {
        self.get(&format!("/history/{prompt}?clientId={client}")).await.json()[prompt].clone()
    }
}

/// The end of a prompt, and whether it is that it is lost.
async fn is_lost(socket: &mut Socket, prompt: &str) {
    loop {
        let error = socket.until("execution_error").await;
        if error["data"]["prompt_id"] == prompt {
            assert_eq!(error["data"]["exception_type"], "mooring.PromptLost", "{error}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_began_runs_elsewhere_once() {
    let world = World::with(2, without_patience).await;
    let mut socket = world.socket("ada").await;
    let runs = world.submit("ada", &takes(30.0, 0)).await;
    let died = runs.header("mooring-backend").to_owned();
    let runs = runs.prompt_id();
    socket.until("execution_start").await;
    let queued = world.submit("ada", &takes(0.05, 1)).await.prompt_id();
    world.is_queued("ada", &queued).await;
    let waits = world.submit("ada", &takes(0.05, 2)).await.prompt_id();
    assert_eq!((world.waiting(), world.sim(&died).queue_remaining()), (1, 2));

    world.sim(&died).crash().await;
    is_lost(&mut socket, &runs).await;
    let more = world.submit("ada", &takes(0.05, 3)).await;
    assert_eq!(more.status, 200, "{}", more.text());
    until("the others run elsewhere", || world.finished() == 3).await;
    for prompt in [&queued, &waits, &more.prompt_id()] {
        assert_eq!(world.executed(prompt), 1, "{prompt}");
        soon("its end is told", async {
            while world.phase("ada", prompt).is_some() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let entry = world.history("ada", prompt).await;
        assert_eq!(entry["status"]["status_str"], "success", "{entry}");
    }
    let other = world.sims.iter().find(|sim| sim.name() != died).unwrap();
    let order = [queued.clone(), waits.clone()];
    assert_eq!(other.ledger().finished[..2], order, "each has its old place");
    assert_eq!(world.history("ada", &runs).await["status"]["status_str"], "error");
    assert_eq!(world.executed(&runs), 1);
    assert!(world.gateway.shared.metrics.queue.replaced.get() == 1);
}

/// The first of two backends, where somebody's prompt runs, and one of somebody else that is
/// queued behind it.
async fn one_behind_anothers(world: &World) -> (String, String) {
    let drain = |name: &str, state: &'static str| {
        let path = format!("/api/v1/backends/{name}/state");
        async move { assert_eq!(world.admin_post(&path, state).await.status, 200) }
    };
    let others = || world.sims.iter().map(Sim::name).filter(|name| *name != "a");
    for name in others() {
        drain(name, r#"{"state":"draining"}"#).await;
    }
    let mut socket = world.socket("ada").await;
    let runs = world.submit_from("10.0.0.1", "ada", &takes(30.0, 0)).await.prompt_id();
    socket.until("execution_start").await;
    let queued = world.submit_from("10.0.0.2", "bob", &takes(0.05, 1)).await.prompt_id();
    world.is_queued("bob", &queued).await;
    for name in others() {
        drain(name, r#"{"state":"ready"}"#).await;
    }
    (runs, queued)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_behind_anothers_prompt_runs_elsewhere_too() {
    let world = World::with(2, two_at_once).await;
    let (runs, queued) = one_behind_anothers(&world).await;
    world.sim("a").crash().await;
    until("it runs elsewhere", || world.finished() == 1).await;
    assert_eq!((world.executed(&queued), world.executed(&runs)), (1, 1));
    // It had its id there, and has it here: its client hears of it once.
    let mut socket = world.socket("bob").await;
    socket.until_end(&queued).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_one_prompt_and_not_for_what_is_queued_behind_it() {
    let world = World::with(2, two_at_once).await;
    let (runs, queued) = one_behind_anothers(&world).await;
    let state = r#"{"state":"draining"}"#;
    assert_eq!(world.admin_post("/api/v1/backends/a/state", state).await.status, 200);
    until("it runs elsewhere", || world.finished() == 1).await;
    assert_eq!((world.executed(&queued), world.executed(&runs)), (1, 1));
    let [a, b] = ["a", "b"].map(|name| world.sim(name).ledger());
    assert_eq!((a.deleted, b.finished), (vec![queued.clone()], vec![queued.clone()]));
    assert_eq!(world.phase("ada", &runs), Some(Phase::Running), "it goes on");
    let entry = world.history("bob", &queued).await;
    assert_eq!(entry["status"]["status_str"], "success", "{entry}");
    assert_eq!(world.gateway.shared.metrics.queue.taken_back.get(), 1);
    let seen = world.sim("a").requests();
    let deleted = seen.iter().position(|it| it.target == "/queue" && it.method == "POST").unwrap();
    let looks = seen[deleted..].iter().filter(|it| it.target.ends_with(&queued)).count();
    assert_eq!(looks, 1, "one that misses it is enough: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_of_what_is_taken_back_deletes_it() {
    let world = World::with(2, two_at_once).await;
    let (_, queued) = one_behind_anothers(&world).await;
    // It is not known yet that it is back.
    world.sim("a").set_faults(|faults| faults.holds_answers = "POST /queue".into());
    let state = r#"{"state":"draining"}"#;
    assert_eq!(world.admin_post("/api/v1/backends/a/state", state).await.status, 200);
    until("it is taken back", || world.sim("a").ledger().deleted.contains(&queued)).await;
    let body = json!({ "delete": [queued] }).to_string();
    let asked = async {
        until("its deletion is asked for", || world.is_to_be_deleted("bob", &queued)).await;
        world.sim("a").set_faults(|faults| faults.holds_answers = "".into());
    };
    let (answer, ()) = tokio::join!(world.post("/queue?clientId=bob", &body), asked);
    assert_eq!(answer.status, 200, "{}", answer.text());
    until("it has ended", || world.phase("bob", &queued).is_none()).await;
    assert_eq!(world.executed(&queued), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_port_alone_says_nothing_of_what_is_there() {
    let world = World::with(2, two_at_once).await;
    let (runs, queued) = one_behind_anothers(&world).await;
    // As behind a load balancer whose check fails: what is connected goes on.
    world.sim("a").set_faults(|faults| faults.listening = Listening::Closed);
    let backend = world.gateway.shared.fleet.iter().next().unwrap();
    backend.refused(mooring::net::now());
    world.gateway.sessions.reconcile_soon();
    sleep(Duration::from_millis(1_200)).await;
    assert_eq!(world.phase("bob", &queued), Some(Phase::Queued));
    assert_eq!(world.phase("ada", &runs), Some(Phase::Running));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_begun_is_lost_and_does_not_run_again() {
    let world = World::with(2, without_patience).await;
    // It is taken from the queue, and its start is never said.
    for sim in &world.sims {
        sim.set_faults(|faults| faults.start_delay_ms = 3_600_000);
    }
    let mut socket = world.socket("ada").await;
    let taken = world.submit("ada", &quick(1)).await;
    let died = taken.header("mooring-backend").to_owned();
    let taken = taken.prompt_id();
    world.sim(&died).crash().await;
    is_lost(&mut socket, &taken).await;
    for sim in &world.sims {
        sim.set_faults(|faults| faults.start_delay_ms = 0);
    }
    let next = world.submit("ada", &quick(2)).await.prompt_id();
    until("the next one runs", || world.finished() == 1).await;
    assert_eq!((world.executed(&next), world.executed(&taken)), (1, 0));
    let other = world.sims.iter().find(|sim| sim.name() != died).unwrap();
    assert!(!other.ledger().enqueued.contains(&taken));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_deleted_is_deleted_also_if_its_backend_dies() {
    let world = World::with(2, two_at_once).await;
    let (_, queued) = one_behind_anothers(&world).await;
    // The deletion is lost with the process.
    let all = world.gateway.sessions.clients.all();
    let bob = all.iter().find(|it| it.id.as_str().ends_with("bob")).unwrap();
    let prompt = mooring::routing::ids::PromptId::parse(&queued).unwrap();
    bob.delete_asked(&world.gateway.sessions, &prompt);
    world.sim("a").crash().await;
    until("it has ended", || world.phase("bob", &queued).is_none()).await;
    assert_eq!(world.executed(&queued), 0);
    let jobs = world.get(&format!("/api/jobs/{queued}?clientId=bob")).await;
    assert_ne!(jobs.json()["status"], "failed", "{}", jobs.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_behind_a_proxy_that_is_restarted_stays_there() {
    let (world, mut proxy) = Proxy::in_world(&[], two_at_once).await;
    let (runs, queued) = one_behind_anothers(&world).await;
    proxy.stops().await;
    until("its server seems to have died", || world.waiting() == 1).await;
    proxy.starts().await;
    world.is_queued("bob", &queued).await;
    assert_eq!(world.phase("ada", &runs), Some(Phase::Running), "nobody knows that it is lost");
    assert_eq!(world.post("/interrupt?clientId=ada", "{}").await.status, 200);
    until("it runs there", || world.finished() == 2).await;
    until("its end is known", || world.phase("bob", &queued).is_none()).await;
    let ledger = world.sim("a").ledger();
    let once = vec![runs, queued.clone()];
    assert_eq!((&ledger.enqueued, &ledger.finished), (&once, &once));
    assert_eq!(world.history("bob", &queued).await["status"]["status_str"], "success");
    assert_eq!(ledger.deleted, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_elsewhere_is_deleted_where_it_is_still_when_the_proxy_is_back() {
    let (world, mut proxy) = Proxy::in_world(&["b"], two_at_once).await;
    let (runs, queued) = one_behind_anothers(&world).await;
    proxy.stops().await;
    until("it runs elsewhere", || world.finished() == 1).await;
    proxy.starts().await;
    until("it is deleted", || world.sim("a").ledger().deleted == [queued.clone()]).await;
    // What ran is there still, and goes on.
    assert_eq!(world.phase("ada", &runs), Some(Phase::Running));
    assert_eq!(world.post("/interrupt?clientId=ada", "{}").await.status, 200);
    until("its end is known", || world.phase("ada", &runs).is_none()).await;
    assert_eq!((world.executed(&queued), world.executed(&runs)), (1, 1));
    assert_eq!(world.gateway.shared.metrics.queue.replaced.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_comes_back_also_if_its_link_breaks_meanwhile() {
    let (world, mut proxy) = Proxy::in_world(&["b"], two_at_once).await;
    let (runs, queued) = one_behind_anothers(&world).await;
    // The deletion is done, and its answer is lost with the link.
    world.sim("a").set_faults(|faults| faults.holds_answers = "POST /queue".into());
    let state = r#"{"state":"draining"}"#;
    assert_eq!(world.admin_post("/api/v1/backends/a/state", state).await.status, 200);
    until("it is deleted", || world.sim("a").ledger().deleted.contains(&queued)).await;
    proxy.stops().await;
    world.sim("a").set_faults(|faults| faults.holds_answers = "".into());
    proxy.starts().await;
    until("it runs elsewhere", || world.finished() == 1).await;
    assert_eq!((world.executed(&queued), world.executed(&runs)), (1, 1));
    assert_eq!(world.sim("b").ledger().finished, [queued]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_is_lost_at_a_backend_that_is_turned_off_by_force() {
    let world = World::with(2, two_at_once).await;
    let (runs, queued) = one_behind_anothers(&world).await;
    // The deletion does not come to an end.
    world.sim("a").set_faults(|faults| faults.holds = "POST /queue".into());
    let state = r#"{"state":"draining"}"#;
    assert_eq!(world.admin_post("/api/v1/backends/a/state", state).await.status, 200);
    soon("it is being taken back", world.sim("a").holds(1)).await;
    let state = r#"{"state":"off","force":true}"#;
    assert_eq!(world.admin_post("/api/v1/backends/a/state", state).await.status, 200);
    let are_over = || world.phase("bob", &queued).is_none() && world.phase("ada", &runs).is_none();
    until("both are over", are_over).await;
    world.sim("a").set_faults(|faults| faults.holds = "".into());
    assert_eq!(world.history("bob", &queued).await["status"]["status_str"], "error");
}

// Waiting for the executable blocks a thread; its backend needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_keeps_what_is_queued_and_what_died_meanwhile_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let more = ["--set", "queue.depth=2", "--set", "queue.verdict=late", "--set", "queue.lead=60s"];
    let mut daemon = Daemon::start_with(&sim, &folder, &more);
    let mut submit = Vec::new();
    for (seed, seconds) in [(0, 30.0), (1, 0.05), (2, 0.05)] {
        let body = json!({ "client_id": "ada", "prompt": takes(seconds, seed) }).to_string();
        let answer = send(daemon.front, Method::POST, "/prompt", &[], &body).await;
        submit.push(answer.prompt_id());
    }
    let [runs, queued, waits] = [0, 1, 2].map(|at: usize| submit[at].clone());
    until("one is queued there", || sim.ledger().enqueued.contains(&queued)).await;
    until("one runs there", || sim.ledger().executed.contains_key(&runs)).await;
    // Its acceptance is in the journal a moment later.
    let noted = async {
        while daemon.metric("mooring_queue_waiting").await != 1 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("the third waits", noted).await;
    sleep(Duration::from_millis(300)).await;
    daemon.kill();
    sim.restart().await.unwrap();
    daemon = Daemon::start_with(&sim, &folder, &more);
    let drained = async {
        while daemon.pending().await != 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all are over", drained).await;
    let executed = |prompt: &str| sim.ledger().executed.get(prompt).copied().unwrap_or(0);
    assert_eq!((executed(&runs), executed(&queued), executed(&waits)), (1, 0, 1));
    for prompt in [&runs, &queued] {
        let entry = send(daemon.front, Method::GET, &format!("/history/{prompt}"), &[], "").await;
        assert_eq!(entry.json()[prompt]["status"]["status_str"], "error", "{prompt} is lost");
    }
}

// Waiting for the executable blocks a thread; its backend needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_point_of_a_drain_runs_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let more = ["--set", "queue.depth=2", "--set", "queue.verdict=late", "--set", "queue.lead=60s"];
    let mut daemon = Daemon::start_with(&sim, &folder, &more);
    let mut all = Vec::new();
    for round in 0..5_u32 {
        for number in 0..3_u32 {
            let graph = takes(0.4, 10 * round + number);
            let client = format!("client{number}");
            let body = json!({ "client_id": client, "prompt": graph }).to_string();
            let answer = send(daemon.front, Method::POST, "/prompt", &[], &body).await;
            all.push(answer.prompt_id());
        }
        let state = |state: &str| json!({ "state": state }).to_string();
        let backends = send(daemon.admin, Method::GET, "/api/v1/backends", &[], "").await.json();
        let name = backends["backends"][0]["name"].as_str().unwrap().to_owned();
        let path = &format!("/api/v1/backends/{name}/state");
        let json = [("content-type", "application/json")];
        let answer = send(daemon.admin, Method::POST, path, &json, &state("draining")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        // Before the deletion, between it and the looks that miss it, and after them.
        sleep(Duration::from_millis(u64::from(round) * 700 + 30)).await;
        daemon.kill();
        daemon = Daemon::start_with(&sim, &folder, &more);
        let answer = send(daemon.admin, Method::POST, path, &json, &state("ready")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let drained = async {
        while daemon.pending().await != 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all are over", drained).await;
    let ledger = sim.ledger();
    assert!(!ledger.deleted.is_empty(), "nothing was taken back");
    let mut lost = 0;
    for prompt in &all {
        let executed = ledger.executed.get(prompt).copied().unwrap_or(0);
        let times = |all: &[String]| all.iter().filter(|it| *it == prompt).count();
        let (sent, deleted) = (times(&ledger.enqueued), times(&ledger.deleted));
        let entry = send(daemon.front, Method::GET, &format!("/history/{prompt}"), &[], "").await;
        let status = entry.json()[prompt]["status"]["status_str"].clone();
        if executed == 0 && deleted == sent {
            // Killed between the deletion and the note of it: nobody knows whether it has begun.
            lost += 1;
            assert_eq!(status, "error", "{prompt}");
            continue;
        }
        assert_eq!(executed, 1, "{prompt}");
        assert_eq!(sent, deleted + 1, "{prompt} is sent again only when it is back");
        assert_eq!(status, "success", "{prompt}");
    }
    // In one kill of five at most: one client has at most one prompt there that has not begun.
    assert!(lost <= 2, "{lost} are lost");
}

// Waiting for the executable blocks a thread; its backend needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_queued_when_the_gateway_was_killed_runs_elsewhere_if_its_backend_dies_then() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let more = ["--set", "queue.depth=2", "--set", "queue.verdict=late", "--set", "queue.lead=60s"];
    let mut daemon = Daemon::start_with(&sim, &folder, &more);
    let mut submit = Vec::new();
    for (seed, seconds) in [(0, 20.0), (1, 0.05)] {
        let body = json!({ "client_id": "ada", "prompt": takes(seconds, seed) }).to_string();
        let answer = send(daemon.front, Method::POST, "/prompt", &[], &body).await;
        submit.push(answer.prompt_id());
    }
    let [runs, queued] = [0, 1].map(|at: usize| submit[at].clone());
    until("one is queued there", || sim.ledger().enqueued.contains(&queued)).await;
    until("one runs there", || sim.ledger().executed.contains_key(&runs)).await;
    daemon.kill();
    daemon = Daemon::start_with(&sim, &folder, &more);
    let mut socket = Socket::open(daemon.front, "/ws?clientId=ada").await;
    // It tells of its progress on the new link, and the other one was seen behind it.
    socket.until("progress").await;
    sleep(Duration::from_millis(1_000)).await;
    sim.crash().await;
    let waits = async {
        while daemon.metric("mooring_queue_waiting").await != 1 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("it waits again", waits).await;
    sim.restart().await.unwrap();
    is_lost(&mut socket, &runs).await;
    socket.until_end(&queued).await;
    let executed = |prompt: &str| sim.ledger().executed.get(prompt).copied().unwrap_or(0);
    assert_eq!((executed(&runs), executed(&queued)), (1, 1));
}

// Waiting for the executable blocks a thread; its backend needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_began_during_a_take_back_that_was_never_answered_does_not_run_again_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let more = ["--set", "queue.depth=2", "--set", "queue.verdict=late", "--set", "queue.lead=60s"];
    let mut daemon = Daemon::start_with(&sim, &folder, &more);
    let mut submit = Vec::new();
    for (seed, seconds) in [(0, 3.0), (1, 0.05)] {
        let body = json!({ "client_id": "ada", "prompt": takes(seconds, seed) }).to_string();
        let answer = send(daemon.front, Method::POST, "/prompt", &[], &body).await;
        submit.push(answer.prompt_id());
    }
    let queued = submit[1].clone();
    until("one is queued there", || sim.ledger().enqueued.contains(&queued)).await;
    until("one runs there", || sim.ledger().executed.contains_key(&submit[0])).await;
    // From now on nothing is deleted there.
    sim.set_faults(|faults| faults.status = 503);
    let backends = send(daemon.admin, Method::GET, "/api/v1/backends", &[], "").await.json();
    let name = backends["backends"][0]["name"].as_str().unwrap().to_owned();
    let path = &format!("/api/v1/backends/{name}/state");
    let json = [("content-type", "application/json")];
    let state = |state: &str| json!({ "state": state }).to_string();
    let answer = send(daemon.admin, Method::POST, path, &json, &state("draining")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let taken_back = async {
        while daemon.metric("mooring_taken_back_total").await != 1 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("it is being taken back", taken_back).await;
    // What was noted until now is in the journal after that.
    let body = json!({ "client_id": "bob", "prompt": takes(0.05, 2) }).to_string();
    let _noted = send(daemon.front, Method::POST, "/prompt", &[], &body).await;
    daemon.kill();
    until("it has run there", || sim.ledger().finished.contains(&queued)).await;
    sim.set_faults(|faults| faults.status = 0);
    sim.restart().await.unwrap();
    daemon = Daemon::start_with(&sim, &folder, &more);
    let answer = send(daemon.admin, Method::POST, path, &json, &state("ready")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let drained = async {
        while daemon.pending().await != 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all are over", drained).await;
    assert_eq!(sim.ledger().executed.get(&queued), Some(&1));
}
