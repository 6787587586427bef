//! Prompts that wait in the gateway (`queue.depth`): they go to backends as these have room, in a
//! fair order, each once; they are listed, deleted and cancelled as in a ComfyUI's own queue, and
//! survive a kill.

use std::time::Duration;

use http::Method;
use mooring::config::{Config, QueueVerdict};
use mooring::net::sleep;
use mooring::routing::ids::PromptId;
use mooring::routing::ledger::State;
use mooring::routing::pending::End;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::pictures::{RED, invert, png, upload};
use crate::process::Daemon;
use crate::support::{Answer, Socket, World, network, quick, send, slow, soon, until};

const DELETED: State = State::Ended(End::Deleted);

/// At most two at one backend; people are told apart by their addresses.
pub(crate) fn waits(config: &mut Config) {
    config.queue.depth = 2;
    config.server.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
}

/// The same without anybody to ask first.
pub(crate) fn waits_unasked(config: &mut Config) {
    waits(config);
    config.queue.verdict = QueueVerdict::Late;
}

impl World {
    pub(crate) async fn submit_from(&self, address: &str, client: &str, graph: &Value) -> Answer {
        let body = json!({ "client_id": client, "prompt": graph }).to_string();
        let from = [("x-forwarded-for", address), ("content-type", "application/json")];
        send(self.front, Method::POST, "/prompt", &from, &body).await
    }

    /// Stops what runs of a client: a prompt that would take long runs as long as a test wants.
    async fn interrupt(&self, client: &str) {
        let path = format!("/interrupt?clientId={client}");
        assert_eq!(self.post(&path, "{}").await.status, 200);
    }

    /// How often each prompt ran, over all backends.
    pub(crate) fn executed(&self, prompt: &str) -> u32 {
        self.sims.iter().filter_map(|sim| sim.ledger().executed.get(prompt).copied()).sum()
    }

    pub(crate) fn finished(&self) -> usize {
        self.sims.iter().map(|sim| sim.ledger().finished.len()).sum()
    }

    /// How a prompt has ended, as the ledger says.
    fn state(&self, prompt: &str) -> Option<State> {
        let prompt = PromptId::parse(prompt).unwrap();
        self.gateway.shared.records.prompt(&prompt).map(|record| record.state)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.gateway.sessions.waiting.now().prompts
    }
}

/// A graph that takes about so long, another one for each seed.
pub(crate) fn takes(seconds: f64, seed: u32) -> Value {
    let mut graph = slow(4, seconds / 4.0);
    graph["1"]["inputs"]["color"] = seed.into();
    graph
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_prompt_does_not_wait_behind_a_strangers_twenty() {
    let world = World::with(1, waits_unasked).await;
    let mut hers = world.socket("ada").await;
    // It runs until she has cancelled it, so nothing moves before all are there.
    let first = world.submit_from("10.0.0.1", "ada", &takes(30.0, 0)).await.prompt_id();
    hers.until("execution_start").await;
    let mut prompts = vec![first.clone()];
    for seed in 1..20_u32 {
        let answer = world.submit_from("10.0.0.1", "ada", &takes(0.05, seed)).await;
        prompts.push(answer.prompt_id());
    }
    let answer = world.submit_from("10.0.0.2", "bob", &takes(0.05, 99)).await;
    assert_eq!(answer.header("mooring-placement"), "waiting");
    let his = answer.prompt_id();
    let there = world.sim("a").ledger().enqueued.len();
    assert!(there <= 2, "{there} are there, the others wait");
    world.interrupt("ada").await;
    until("all are done", || world.finished() == 21).await;
    let ledger = world.sim("a").ledger();
    assert_eq!(ledger.enqueued.iter().position(|it| *it == his), Some(there), "his came next");
    assert_eq!(ledger.enqueued.len(), 21, "each was sent once");
    assert!(prompts.iter().all(|prompt| ledger.executed.get(prompt) == Some(&1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nine_prompts_of_three_clients_use_three_backends() {
    let world = World::with(3, waits_unasked).await;
    let clients = ["ada", "bob", "cleo"];
    let mut prompts = Vec::new();
    for (seed, client) in (0..).zip(clients) {
        // It runs until it is cancelled, so nothing ends before all are there.
        let mut socket = world.socket(client).await;
        let answer = world.submit(client, &takes(30.0, seed)).await;
        socket.until("execution_start").await;
        prompts.push((client, answer.prompt_id()));
    }
    for seed in 3..9_u32 {
        let client = clients[seed as usize % 3];
        let answer = world.submit(client, &takes(0.05, seed)).await;
        prompts.push((client, answer.prompt_id()));
    }
    for client in clients {
        world.interrupt(client).await;
    }
    until("all are done", || world.finished() == 9).await;
    for sim in &world.sims {
        assert_eq!(sim.ledger().finished.len(), 3, "{}", sim.name());
    }
    for (client, prompt) in &prompts[3..] {
        let entry = world.get(&format!("/history/{prompt}?clientId={client}")).await.json();
        assert_eq!(entry[prompt]["status"]["status_str"], "success", "{entry}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_listed_and_is_deleted_cleared_and_cancelled() {
    let world = World::with(1, waits_unasked).await;
    let mut socket = world.socket("ada").await;
    let runs = world.submit("ada", &takes(30.0, 0)).await.prompt_id();
    socket.until("execution_start").await;
    let mut waiting = Vec::new();
    for seed in 1..=4 {
        let answer = world.submit("ada", &takes(1.0, seed)).await;
        assert_eq!(answer.header("mooring-placement"), "waiting", "{}", answer.text());
        assert_eq!(answer.json()["node_errors"], json!({}));
        waiting.push((answer.prompt_id(), answer.json()["number"].clone()));
    }
    let count = world.get("/prompt?clientId=ada").await.json();
    assert_eq!(count["exec_info"]["queue_remaining"], 5);
    let queue = world.get("/queue?clientId=ada").await.json();
    let listed = queue["queue_pending"].as_array().unwrap();
    for (item, (prompt, number)) in listed.iter().zip(&waiting) {
        assert_eq!((&item[0], item[1].as_str().unwrap()), (number, prompt.as_str()));
        assert_eq!(item[2]["3"]["class_type"], "SaveImage", "with its graph");
        assert_eq!(item[3]["client_id"], "ada");
    }
    assert_eq!((listed.len(), queue["queue_running"][0][1].as_str()), (4, Some(runs.as_str())));
    let [deleted, cancelled, cleared, _] = [0, 1, 2, 3].map(|at: usize| waiting[at].0.clone());
    let history = world.get(&format!("/history/{deleted}?clientId=ada")).await;
    assert_eq!((history.status, history.text().as_str()), (200, "{}"));
    let job = world.get(&format!("/api/jobs/{deleted}?clientId=ada")).await.json();
    assert_eq!((&job["status"], &job["id"]), (&json!("pending"), &json!(deleted)), "{job}");
    let jobs = world.get("/api/jobs?status=pending&clientId=ada").await.json();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 4, "{jobs}");

    let body = json!({ "delete": [deleted] }).to_string();
    assert_eq!(world.post("/queue?clientId=bob", &body).await.status, 200);
    assert_eq!(world.waiting(), 4, "nobody deletes another's");
    assert_eq!(world.post("/queue?clientId=ada", &body).await.status, 200);
    assert_eq!(world.waiting(), 3);
    let path = format!("/api/jobs/{cancelled}/cancel?clientId=ada");
    assert_eq!(world.post(&path, "{}").await.json()["cancelled"], true);
    assert_eq!(world.waiting(), 2);
    assert_eq!(world.post("/queue?clientId=ada", r#"{"clear": true}"#).await.status, 200);
    assert_eq!(world.waiting(), 0);
    let seen = socket.until_end(&cleared).await;
    assert_eq!(seen, ["execution_interrupted", "executing"]);
    let count = world.get("/prompt?clientId=ada").await.json();
    assert_eq!(count["exec_info"]["queue_remaining"], 1, "what runs goes on");
    assert_eq!(world.sim("a").ledger().enqueued, [runs]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_ends_what_waits_and_a_release_does_not() {
    let world = World::with(1, waits_unasked).await;
    let mut busy = world.socket("bob").await;
    world.submit("bob", &takes(30.0, 0)).await.prompt_id();
    busy.until("execution_start").await;
    // Of Ada everything waits.
    let mut socket = world.socket("ada").await;
    let waits = world.submit("ada", &takes(1.0, 1)).await.prompt_id();
    assert_eq!(world.waiting(), 1);
    assert_eq!(world.post("/-/reset?clientId=ada", "").await.status, 409);
    assert_eq!(world.waiting(), 1);
    assert_eq!(world.post("/-/reset?clientId=ada&force=true", "").await.status, 200);
    assert!(socket.until_end(&waits).await.contains(&"execution_error".to_owned()));
    assert_eq!((world.waiting(), world.executed(&waits)), (0, 0));
    let entry = world.get(&format!("/history/{waits}?clientId=ada")).await.json();
    assert_eq!(entry[&waits]["status"]["status_str"], "error", "{entry}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_are_refused_with_a_time_to_come_back() {
    let world = World::with(1, |config| {
        waits_unasked(config);
        config.queue.max = 3;
        config.queue.max_per_sharer = 2;
    })
    .await;
    let mut socket = world.socket("ada").await;
    world.submit_from("10.0.0.1", "ada", &takes(30.0, 0)).await.prompt_id();
    socket.until("execution_start").await;
    for seed in 1..=2 {
        world.submit_from("10.0.0.1", "ada", &takes(1.0, seed)).await.prompt_id();
    }
    let refused = world.submit_from("10.0.0.1", "another", &takes(1.0, 3)).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (429, "too_many_waiting"));
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    world.submit_from("10.0.0.2", "bob", &takes(1.0, 4)).await.prompt_id();
    let refused = world.submit_from("10.0.0.3", "cleo", &takes(1.0, 5)).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "queue_full"));
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    let count = world.get("/prompt?clientId=cleo").await.json();
    assert_eq!(count["exec_info"]["queue_remaining"], 0, "nothing of it is kept");
}

/// A graph that waits with a body of about a MiB.
fn large(seed: u32) -> Value {
    let mut graph = takes(0.05, seed);
    graph["3"]["inputs"]["note"] = "x".repeat(1 << 20).into();
    graph
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_one_person_keep_nobody_out_and_what_starts_at_once_is_not_counted() {
    let world = World::with(2, |config| {
        waits_unasked(config);
        config.queue.bytes = 5 << 20;
    })
    .await;
    let mut socket = world.socket("ada").await;
    world.submit_from("10.0.0.1", "ada", &takes(30.0, 0)).await.prompt_id();
    socket.until("execution_start").await;
    world.submit_from("10.0.0.1", "ada", &large(1)).await.prompt_id();
    let refused = world.submit_from("10.0.0.1", "ada", &large(2)).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (429, "too_many_waiting"));
    let count = world.get("/prompt?clientId=ada").await.json();
    assert_eq!(count["exec_info"]["queue_remaining"], 2, "nothing of it is kept");
    world.submit_from("10.0.0.1", "another", &large(3)).await.prompt_id();
    until("what had room has run", || world.finished() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_fleet_says_what_is_wrong_with_a_graph_as_an_idle_one_does() {
    let world = World::with(1, waits).await;
    let broken =
        json!({ "1": { "class_type": "SaveImage", "inputs": { "filename_prefix": "x" } } });
    let idle = world.submit("ada", &broken).await;
    assert_eq!(idle.status, 400, "{}", idle.text());
    let mut socket = world.socket("ada").await;
    let runs = world.submit("ada", &takes(30.0, 0)).await.prompt_id();
    socket.until("execution_start").await;
    for client in ["ada", "bob"] {
        let busy = world.submit(client, &broken).await;
        assert_eq!((busy.status, busy.json()), (400, idle.json()), "{client}");
        let count = world.get(&format!("/prompt?clientId={client}")).await.json();
        let left = u64::from(client == "ada");
        assert_eq!(count["exec_info"]["queue_remaining"], left, "nothing of it is kept");
    }
    let good = world.submit("bob", &takes(1.0, 1)).await;
    let told = (good.status, good.header("mooring-placement"), good.header("mooring-verdict"));
    assert_eq!(told, (200, "waiting", "a"), "{}", good.text());
    assert_eq!(good.json()["node_errors"], json!({}));
    assert_eq!(world.waiting(), 1);
    let queue = world.get("/queue?clientId=bob").await.json();
    assert_eq!(queue["queue_pending"][0][1], good.prompt_id(), "{queue}");
    let ledger = world.sim("a").ledger();
    assert_eq!(ledger.deleted, [good.prompt_id()], "it was given back");
    assert_eq!(ledger.executed.keys().collect::<Vec<_>>(), [&runs]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_was_shown_to_a_backend_runs_once_and_is_told_once() {
    let world = World::with(2, waits).await;
    let mut socket = world.socket("ada").await;
    let mut prompts = Vec::new();
    for seed in 0..12_u32 {
        // Each is new to the gateway, so each that has to wait is shown.
        let mut graph = takes(0.05, seed);
        graph["3"]["inputs"]["filename_prefix"] = format!("pic{seed}").into();
        prompts.push(world.submit("ada", &graph).await.prompt_id());
    }
    // One that began while it was shown is one place too early.
    let mut seen: Vec<(String, String)> = Vec::new();
    let is_last = |(kind, _): &&(String, String)| kind == "executing null";
    while seen.iter().filter(is_last).count() < prompts.len() {
        let event = socket.event().await;
        let is_null = event["type"] == "executing" && event["data"]["node"].is_null();
        let kind = if is_null { "executing null" } else { event["type"].as_str().unwrap() };
        if let Some(prompt) = event["data"]["prompt_id"].as_str() {
            seen.push((kind.to_owned(), prompt.to_owned()));
        }
    }
    for prompt in &prompts {
        let count = |kind: &str| seen.iter().filter(|it| it.0 == kind && it.1 == *prompt).count();
        let told = ["execution_start", "execution_success", "executing null"].map(count);
        assert_eq!((told, world.executed(prompt)), ([1, 1, 1], 1), "{prompt}");
    }
    let shown = world.gateway.shared.metrics.queue.trials.get();
    assert_ne!(shown, 0, "some were shown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_deletion_that_races_with_a_hand_over_deletes_or_comes_too_late_and_never_both() {
    let world = World::with(2, waits_unasked).await;
    let mut prompts = Vec::new();
    for round in 0..40_u32 {
        let client = ["ada", "bob"][round as usize % 2];
        let prompt = world.submit(client, &takes(0.02, round)).await.prompt_id();
        prompts.push((client, prompt));
        if round % 3 != 0 {
            sleep(Duration::from_millis(u64::from(round % 5) * 3)).await;
            let (client, prompt) = &prompts[prompts.len() * 2 / 3];
            let body = json!({ "delete": [prompt] }).to_string();
            let path = format!("/queue?clientId={client}");
            assert_eq!(world.post(&path, &body).await.status, 200);
        }
    }
    let is_drained =
        || world.gateway.sessions.clients.all().iter().all(|client| client.pending().is_empty());
    until("all are over", is_drained).await;
    let pending = world.admin_get("/api/v1/clients").await.json().to_string();
    assert!(!pending.contains("\"waiting\""), "{pending}");
    for (client, prompt) in &prompts {
        let entry = world.get(&format!("/history/{prompt}?clientId={client}")).await.json();
        let has_run = entry[prompt]["status"]["status_str"] == "success";
        assert_eq!(world.executed(prompt), u32::from(has_run), "{prompt}: {entry}");
        assert_eq!(world.state(prompt) == Some(DELETED), !has_run, "{prompt}");
    }
    assert_eq!(world.waiting(), 0);
    assert_eq!(world.gateway.sessions.waiting.now().bytes, 0, "no body is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_that_is_cancelled_while_it_is_handed_over_does_not_run_and_says_so() {
    let world = World::with(2, waits_unasked).await;
    let mut prompts = Vec::new();
    for round in 0..40_u32 {
        let client = ["ada", "bob"][round as usize % 2];
        let prompt = world.submit(client, &takes(0.02, round)).await.prompt_id();
        sleep(Duration::from_millis(u64::from(round % 5))).await;
        let path = format!("/api/jobs/{prompt}/cancel?clientId={client}");
        let is_cancelled = world.post(&path, "{}").await.json()["cancelled"] == true;
        prompts.push((client, prompt, is_cancelled));
    }
    let is_drained =
        || world.gateway.sessions.clients.all().iter().all(|client| client.pending().is_empty());
    until("all are over", is_drained).await;
    for (client, prompt, is_cancelled) in &prompts {
        let entry = world.get(&format!("/history/{prompt}?clientId={client}")).await.json();
        let has_run = entry[prompt]["status"]["status_str"] == "success";
        // An interrupt may come when it has just done its last step, as at a ComfyUI.
        assert!(has_run || *is_cancelled, "{prompt}: {entry}");
        assert_eq!(world.executed(prompt) == 0, world.state(prompt) == Some(DELETED), "{prompt}");
    }
    assert_eq!(world.gateway.sessions.waiting.now().bytes, 0, "no body is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_refuses_after_it_was_accepted_ends_with_its_reason() {
    let world = World::with(1, waits_unasked).await;
    let mut socket = world.socket("ada").await;
    let runs = world.submit("ada", &takes(30.0, 0)).await.prompt_id();
    socket.until("execution_start").await;
    let broken =
        json!({ "1": { "class_type": "SaveImage", "inputs": { "filename_prefix": "x" } } });
    let answer = world.submit("ada", &broken).await;
    assert_eq!(answer.header("mooring-verdict"), "none", "{}", answer.text());
    let refused = answer.prompt_id();
    world.interrupt("ada").await;
    socket.until_end(&runs).await;
    let error = socket.until("execution_error").await;
    assert_eq!(error["data"]["prompt_id"], refused);
    assert_eq!(error["data"]["exception_type"], "mooring.PromptRefused", "{error}");
    let history = format!("/history/{refused}?clientId=ada");
    let entry = world.get(&history).await.json();
    assert_eq!(entry[&refused]["status"]["status_str"], "error", "{entry}");
    assert_eq!((world.executed(&refused), world.waiting()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_accepted_while_no_backend_is_up_and_runs_when_one_is() {
    let world = World::with(1, |config| {
        waits(config);
        config.queue.verdict_wait = Duration::from_millis(200);
    })
    .await;
    world.sim("a").crash().await;
    world.is_down("a").await;
    let answer = world.submit("ada", &quick(1)).await;
    assert_eq!(answer.header("mooring-verdict"), "none");
    world.sim("a").restart().await.unwrap();
    until("it has run", || world.executed(&answer.prompt_id()) == 1).await;
}

// Waiting for the executable blocks a thread; its backend needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_kill_forgets_nothing_that_waits_and_each_runs_once_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let more = ["--set", "queue.depth=2", "--set", "queue.verdict=late"];
    let mut daemon = Daemon::start_with(&sim, &folder, &more);
    let mut prompts = Vec::new();
    for seed in 0..30 {
        let body = json!({ "client_id": "ada", "prompt": takes(0.08, seed) }).to_string();
        let answer = send(daemon.front, Method::POST, "/prompt", &[], &body).await;
        prompts.push(answer.prompt_id());
    }
    for kill in 1..=3 {
        let done = || sim.ledger().finished.len() >= kill * 5;
        until("some are done", done).await;
        daemon.kill();
        daemon = Daemon::start_with(&sim, &folder, &more);
    }
    let drained = async {
        while daemon.pending().await != 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all are over", drained).await;
    let ledger = sim.ledger();
    for prompt in &prompts {
        assert_eq!(ledger.executed.get(prompt), Some(&1), "{prompt}");
        let entry = send(daemon.front, Method::GET, &format!("/history/{prompt}"), &[], "").await;
        assert_eq!(entry.json()[prompt]["status"]["status_str"], "success");
    }
    assert_eq!(ledger.finished, prompts, "in the order of submission");
    let empty = async {
        while daemon.metric("mooring_queue_bytes").await != 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("no body is kept", empty).await;
}

fn unknown_node() -> Value {
    json!({ "1": { "class_type": "NoSuchNode", "inputs": {} } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_all_backends_lack_is_refused_and_what_one_has_is_accepted() {
    let world = World::with(2, waits).await;
    for (seed, client) in [(0, "ada"), (1, "bob")] {
        let mut socket = world.socket(client).await;
        world.submit(client, &takes(30.0, seed)).await.prompt_id();
        socket.until("execution_start").await;
    }
    // Of Dora something waits, so she is bound and nothing of her is at a backend.
    world.submit("dora", &takes(1.0, 2)).await.prompt_id();
    for client in ["cleo", "ada", "dora"] {
        let refused = world.submit(client, &unknown_node()).await;
        assert_eq!(refused.status, 400, "{client}: {}", refused.text());
        assert_eq!(refused.json()["error"]["type"], "missing_node_type", "passed on unchanged");
    }
    assert_eq!(world.waiting(), 1, "nothing of them is kept");
}

/// One of two backends is down, and the other has refused a prompt of Ada's that was accepted.
async fn refused_by_one(grace: Duration) -> (World, Socket, String) {
    let world = World::with(2, |config| {
        waits_unasked(config);
        config.fleet.grace = grace;
    })
    .await;
    world.sim("b").crash().await;
    world.is_down("b").await;
    let socket = world.socket("ada").await;
    let mut busy = world.socket("bob").await;
    // It runs until it is cancelled.
    world.submit("bob", &takes(30.0, 0)).await.prompt_id();
    busy.until("execution_start").await;
    world.submit("cleo", &takes(0.1, 1)).await.prompt_id();
    let waits = world.submit("ada", &unknown_node()).await.prompt_id();
    world.interrupt("bob").await;
    (world, socket, waits)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_waits_for_a_backend_that_may_come_back_and_ends_if_that_refuses_too() {
    let (world, mut socket, waits) = refused_by_one(Duration::from_secs(3_600)).await;
    let prompt = PromptId::parse(&waits).unwrap();
    let refused_by = || world.gateway.sessions.waiting.refused_by(&prompt).len();
    // The other may take it.
    until("one has refused it, and it waits", || refused_by() == 1 && world.waiting() == 1).await;
    world.sim("b").restart().await.unwrap();
    let error = socket.until("execution_error").await;
    assert_eq!(error["data"]["prompt_id"], waits);
    assert_eq!(error["data"]["exception_type"], "mooring.PromptRefused", "{error}");
    assert_eq!(world.waiting(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_does_not_wait_for_a_backend_that_stays_away() {
    let (world, mut socket, waits) = refused_by_one(Duration::from_secs(1)).await;
    let error = socket.until("execution_error").await;
    assert_eq!(error["data"]["prompt_id"], waits);
    assert_eq!(error["data"]["exception_type"], "mooring.PromptRefused", "{error}");
    assert_eq!(world.waiting(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_turned_off_by_force_loses_only_what_is_there() {
    let world = World::with(2, waits_unasked).await;
    let mut socket = world.socket("ada").await;
    let runs = world.submit("ada", &takes(30.0, 0)).await;
    let there = runs.header("mooring-backend").to_owned();
    let runs = runs.prompt_id();
    socket.until("execution_start").await;
    let mut waiting = Vec::new();
    for seed in 1..=3 {
        waiting.push(world.submit("ada", &takes(0.05, seed)).await.prompt_id());
    }
    assert_eq!(world.waiting(), 3);
    let state = format!("/api/v1/backends/{there}/state");
    let off = world.admin_post(&state, r#"{"state":"off","force":true}"#).await;
    assert_eq!(off.status, 200, "{}", off.text());
    until("the others run elsewhere", || world.finished() == 3).await;
    assert!(waiting.iter().all(|prompt| world.executed(prompt) == 1));
    let entry = world.get(&format!("/history/{runs}?clientId=ada")).await.json();
    assert_eq!(entry[&runs]["status"]["status_str"], "error", "{entry}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_verdict_if_nobody_can_be_asked() {
    let world = World::with(1, |config| {
        waits(config);
        config.queue.verdict_wait = Duration::from_secs(3_600);
    })
    .await;
    world.sim("a").crash().await;
    world.is_down("a").await;
    let answer = world.submit("ada", &quick(1)).await;
    assert_eq!(answer.header("mooring-verdict"), "none");
}

// Waiting for the executable blocks a thread; its backend needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_point_of_a_trial_or_a_hand_over_runs_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let more = ["--set", "queue.depth=2"];
    let mut daemon = Daemon::start_with(&sim, &folder, &more);
    let mut taken = Vec::new();
    let mut all = Vec::new();
    for round in 0..8_u32 {
        let mut sent = tokio::task::JoinSet::new();
        for number in 0..5_u32 {
            let prompt = format!("{round:08x}-0000-4000-a000-{number:012x}");
            // Each is new to the gateway, so each that has to wait is shown to the backend.
            let mut graph = takes(0.04, number);
            graph["3"]["inputs"]["filename_prefix"] = format!("{round}_{number}").into();
            let client = format!("client{number}");
            let body = json!({ "client_id": client, "prompt_id": prompt, "prompt": graph });
            let (front, body) = (daemon.front, body.to_string());
            all.push(prompt.clone());
            sent.spawn(async move {
                let answer = try_send(front, &body).await;
                (prompt, answer)
            });
        }
        sleep(Duration::from_millis(u64::from(round) * 9 + 4)).await;
        daemon.kill();
        while let Some(answered) = sent.join_next().await {
            let (prompt, status) = answered.unwrap();
            if status == Some(200) {
                taken.push(prompt);
            }
        }
        daemon = Daemon::start_with(&sim, &folder, &more);
    }
    let drained = async {
        while daemon.pending().await != 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all are over", drained).await;
    let ledger = sim.ledger();
    for prompt in &all {
        let ran = ledger.executed.get(prompt).copied().unwrap_or(0);
        assert!(ran <= 1, "{prompt} ran {ran} times");
    }
    for prompt in &taken {
        assert_eq!(ledger.executed.get(prompt), Some(&1), "{prompt} was accepted");
        let entry = send(daemon.front, Method::GET, &format!("/history/{prompt}"), &[], "").await;
        assert_eq!(entry.json()[prompt]["status"]["status_str"], "success", "{prompt}");
    }
}

// Waiting for the executable blocks a thread; its backend needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_while_it_waited_does_not_wait_again_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let more = ["--set", "queue.depth=1", "--set", "queue.verdict=late"];
    let mut daemon = Daemon::start_with(&sim, &folder, &more);
    let submit = |front, seed| async move {
        let body = json!({ "client_id": "ada", "prompt": takes(30.0, seed) }).to_string();
        send(front, Method::POST, "/prompt", &[], &body).await.prompt_id()
    };
    let runs = submit(daemon.front, 0).await;
    until("it runs", || sim.ledger().executed.contains_key(&runs)).await;
    let deleted = submit(daemon.front, 1).await;
    let cancelled = submit(daemon.front, 2).await;
    let body = json!({ "delete": [deleted] }).to_string();
    let json = [("content-type", "application/json")];
    let path = "/queue?clientId=ada";
    assert_eq!(send(daemon.front, Method::POST, path, &json, &body).await.status, 200);
    let path = format!("/api/jobs/{cancelled}/cancel?clientId=ada");
    let answer = send(daemon.front, Method::POST, &path, &json, "{}").await;
    assert_eq!(answer.json()["cancelled"], true);
    daemon.kill();
    daemon = Daemon::start_with(&sim, &folder, &more);
    let path = "/interrupt?clientId=ada";
    assert_eq!(send(daemon.front, Method::POST, path, &json, "{}").await.status, 200);
    let drained = async {
        while daemon.pending().await != 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all are over", drained).await;
    assert_eq!(sim.ledger().executed.keys().collect::<Vec<_>>(), [&runs]);
}

/// The status of the answer, if there was one.
async fn try_send(to: std::net::SocketAddr, body: &str) -> Option<u16> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = network().connect(&to.ip().to_string(), to.port()).await.ok()?;
    let length = body.len();
    let request = format!(
        "POST /prompt HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    let _cut_off = stream.read_to_string(&mut answer).await;
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

// Waiting for the executable blocks a thread; its backend needs another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_handed_over_also_by_a_gateway_that_lets_nothing_wait() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let more = ["--set", "queue.depth=1", "--set", "queue.verdict=late"];
    let daemon = Daemon::start_with(&sim, &folder, &more);
    let mut prompts = Vec::new();
    for seed in 0..4 {
        let body = json!({ "client_id": "ada", "prompt": takes(0.3, seed) }).to_string();
        let answer = send(daemon.front, Method::POST, "/prompt", &[], &body).await;
        prompts.push(answer.prompt_id());
    }
    daemon.kill();
    let daemon = Daemon::start_with(&sim, &folder, &[]);
    let drained = async {
        while daemon.pending().await != 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all are over", drained).await;
    let ledger = sim.ledger();
    assert!(prompts.iter().all(|prompt| ledger.executed.get(prompt) == Some(&1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_whose_picture_is_away_keeps_nobody_from_a_backend() {
    let world = World::with(2, |config| {
        waits_unasked(config);
        config.queue.depth = 1;
    })
    .await;
    let picture = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    let down = picture.backend().to_owned();
    world.sim(&down).crash().await;
    world.is_down(&down).await;
    let mut busy = world.socket("bob").await;
    let runs = world.submit("bob", &takes(30.0, 0)).await.prompt_id();
    busy.until("execution_start").await;
    let away = world.submit("ada", &invert("photo.png")).await;
    assert_eq!(away.header("mooring-placement"), "waiting", "{}", away.text());
    world.interrupt("bob").await;
    busy.until_end(&runs).await;
    for seed in 1..=5 {
        world.submit("cleo", &takes(0.05, seed)).await.prompt_id();
    }
    until("the others have run", || world.finished() == 6).await;
    assert_eq!(world.waiting(), 1, "it waits for its picture");
    world.sim(&down).restart().await.unwrap();
    until("it has run", || world.executed(&away.prompt_id()) == 1).await;
}
