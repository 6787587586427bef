//! Prompts that wait in the gateway go where their models are: a backend that lacks a part of them
//! gets none, and of those that have it the one where it is loaded is the first.

use std::time::Duration;

use http::Method;
use mooring::config::Config;
use mooring::routing::ids::PromptId;
use mooring::sim::{Models, Sim};
use serde_json::{Value, json};

use crate::support::{Answer, Socket, World, send, sims, slow, soon, until};
use crate::waiting::{waits, waits_unasked};

/// The size of a model: at a disk's usual speed it takes ten seconds to load.
const BYTES: u64 = 8_000_000_000;

/// A backend with these models, and memory for one.
fn has(sim: &Sim, models: &[&str], load: Duration) {
    let files = models.iter().map(|name| ((*name).to_owned(), BYTES)).collect();
    let speed = BYTES as f64 / load.as_secs_f64();
    sim.has_models(Models { files, memory: BYTES, speed });
}

async fn world(models: [&[&str]; 2], change: impl FnOnce(&mut Config)) -> World {
    let sims = sims(2).await;
    for (sim, models) in sims.iter().zip(models) {
        has(sim, models, Duration::from_millis(20));
    }
    let world = World::over(sims, change).await;
    let known = || world.gateway.sessions.waiting.known_backends() == 2;
    until("it is known what both have", known).await;
    world
}

/// A graph that loads a model and takes about so long.
fn needs(model: &str, seconds: f64, seed: u32) -> Value {
    let mut graph = slow(4, seconds / 4.0);
    graph["1"]["inputs"]["color"] = seed.into();
    let inputs = json!({ "image": ["1", 0], "ckpt_name": model });
    graph["9"] = json!({ "class_type": "SimModel", "inputs": inputs });
    graph["2"]["inputs"]["image"] = json!(["9", 0]);
    graph
}

async fn submit_of(world: &World, address: &str, client: &str, graph: &Value) -> Answer {
    let body = json!({ "client_id": client, "prompt": graph }).to_string();
    let from = [("x-forwarded-for", address), ("content-type", "application/json")];
    send(world.front, Method::POST, "/prompt", &from, &body).await
}

/// Submits a prompt, and waits until it has ended.
async fn run(world: &World, client: &str, graph: &Value) {
    let mut socket = world.socket(client).await;
    let prompt = world.submit(client, graph).await.prompt_id();
    socket.until_end(&prompt).await;
}

/// Runs until it is stopped.
async fn begin(world: &World, client: &str, graph: &Value) -> Socket {
    let mut socket = world.socket(client).await;
    let _ = world.submit(client, graph).await.prompt_id();
    socket.until("execution_start").await;
    socket
}

async fn stop(world: &World, client: &str) {
    let path = format!("/interrupt?clientId={client}");
    assert_eq!(world.post(&path, "{}").await.status, 200);
}

fn loads(world: &World) -> Vec<String> {
    let loads = world.sims.iter().flat_map(|sim| sim.ledger().loads);
    loads.map(|(_, model)| model).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_has_the_model_loaded_is_chosen() {
    let both: &[&str] = &["x.ckpt", "y.ckpt"];
    let world = world([both, both], waits_unasked).await;
    for (seed, client) in (0..).zip(["ada", "bob", "cleo", "dora", "eve"]) {
        run(&world, client, &needs("x.ckpt", 0.01, seed)).await;
    }
    assert_eq!(loads(&world), ["x.ckpt"], "once, wherever that was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_lacks_the_model_gets_none_of_its_prompts() {
    let world = world([&["x.ckpt"], &["y.ckpt"]], waits).await;
    let mut sockets = Vec::new();
    let mut prompts = Vec::new();
    // All are submitted while both are busy, so they are shown to backends too.
    let mut busy = [
        begin(&world, "busy-a", &needs("x.ckpt", 60.0, 0)).await,
        begin(&world, "busy-b", &needs("y.ckpt", 60.0, 0)).await,
    ];
    for (seed, client) in (1..).zip(["ada", "bob", "cleo", "dora"]) {
        sockets.push(world.socket(client).await);
        prompts.push(world.submit(client, &needs("x.ckpt", 0.01, seed)).await.prompt_id());
    }
    let last = prompts.last().unwrap();
    let path = format!("/api/v1/explain?prompt={last}");
    let prompt = world.admin_get(&path).await.json()["prompt"].clone();
    let mut places = prompt["places"].clone();
    // When they have room depends on the moment.
    for place in places.as_array_mut().unwrap() {
        place.as_object_mut().unwrap().remove("room_ms");
    }
    assert!(prompt["waits_for"].as_str().unwrap().contains("b lacks x.ckpt"), "{prompt}");
    let expected = json!([
        { "backend": "a", "is": "warm" },
        { "backend": "b", "is": "lacks", "missing": "x.ckpt" },
    ]);
    assert_eq!(places, expected);
    stop(&world, "busy-a").await;
    for (socket, prompt) in sockets.iter_mut().zip(&prompts) {
        socket.until_end(prompt).await;
    }
    stop(&world, "busy-b").await;
    busy[1].until("execution_interrupted").await;
    let (enqueued, requests) = (world.sim("b").ledger().enqueued, world.sim("b").requests());
    let sent = requests.iter().filter(|it| it.method == "POST" && it.target == "/prompt");
    assert_eq!((enqueued.len(), sent.count()), (1, 1), "only the one that it has the model for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_is_known_to_have_is_asked_for_all_the_same() {
    let world = world([&["x.ckpt"], &["x.ckpt"]], waits).await;
    let refused = world.submit("ada", &needs("z.ckpt", 0.01, 0)).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    let errors = &refused.json()["node_errors"]["9"]["errors"];
    assert_eq!(errors[0]["type"], "value_not_in_list", "the backend's own answer");
    // The lists are old: it has the model, and does not say so until it is asked again.
    has(world.sim("a"), &["x.ckpt", "z.ckpt"], Duration::from_millis(20));
    run(&world, "bob", &needs("z.ckpt", 0.01, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_of_one_model_do_not_keep_out_three_of_another() {
    let both: &[&str] = &["x.ckpt", "y.ckpt"];
    let world = world([both, both], |config| {
        waits_unasked(config);
        config.queue.warm_window = Duration::from_millis(250);
    })
    .await;
    for (seed, client) in [(0, "busy-0"), (1, "busy-1")] {
        begin(&world, client, &needs("x.ckpt", 60.0, seed)).await;
    }
    for seed in 0..100 {
        let client = format!("a{}", seed % 10);
        let graph = needs("x.ckpt", 0.04, 10 + seed);
        let answer = submit_of(&world, "10.0.0.1", &client, &graph).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let mut bob = world.socket("bob").await;
    let mut his = Vec::new();
    for seed in 0..3 {
        let graph = needs("y.ckpt", 0.04, 500 + seed);
        his.push(submit_of(&world, "10.0.0.2", "bob", &graph).await.prompt_id());
    }
    for client in ["busy-0", "busy-1"] {
        stop(&world, client).await;
    }
    for prompt in &his {
        bob.until_end(prompt).await;
    }
    let finished = || world.sims.iter().map(|sim| sim.ledger().finished.len()).sum::<usize>();
    until("all are done", || finished() == 105).await;
    for sim in &world.sims {
        let at = sim.ledger().finished.iter().rposition(|it| his.contains(it));
        assert!(at.is_none_or(|at| at < 40), "Bob's are behind {at:?} others");
    }
    // Each had x, one has loaded y for Bob, and x again.
    let loads = loads(&world);
    assert!((3..=6).contains(&loads.len()), "{loads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_to_one_is_noticed_while_another_does_not_say_what_it_has() {
    let sims = sims(2).await;
    sims.iter().for_each(|sim| has(sim, &["x.ckpt"], Duration::from_millis(20)));
    // It comes later, so the other is asked first.
    sims[1].crash().await;
    sims[1].set_faults(|faults| faults.holds = "GET /object_info".into());
    let world = World::over(sims, waits_unasked).await;
    let waiting = &world.gateway.sessions.waiting;
    until("it is known what one has", || waiting.known_backends() == 1).await;
    run(&world, "ada", &needs("x.ckpt", 0.01, 0)).await;
    world.sim("b").restart().await.unwrap();
    soon("the other is asked", world.sim("b").holds(1)).await;
    // Its process dies, with its memory.
    world.sim("a").crash().await;
    world.is_gone("a").await;
    world.sim("a").restart().await.unwrap();
    world.all_up().await;
    for client in ["busy-a", "busy-b"] {
        begin(&world, client, &slow(4, 60.0)).await;
    }
    let waits = world.submit("bob", &needs("x.ckpt", 0.01, 1)).await.prompt_id();
    let waits = PromptId::parse(&waits).unwrap();
    let is_cold = || waiting.places(&waits).first().is_some_and(|place| place.is == "cold");
    until("nothing is loaded there", is_cold).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_has_said_that_is_gone_is_not_believed() {
    let world = world([&["y.ckpt"], &["x.ckpt"]], waits).await;
    begin(&world, "busy-b", &needs("x.ckpt", 60.0, 0)).await;
    world.sim("a").crash().await;
    world.is_gone("a").await;
    has(world.sim("a"), &["x.ckpt"], Duration::from_millis(20));
    world.sim("a").restart().await.unwrap();
    world.all_up().await;
    // The other that has the model is busy, also with one behind.
    begin(&world, "busy-a", &needs("x.ckpt", 60.0, 1)).await;
    until("it is loaded there", || world.sim("a").ledger().loads.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_restarts_is_waited_for_by_what_only_it_can_run() {
    let sims = sims(3).await;
    for (sim, model) in sims.iter().zip(["x.ckpt", "y.ckpt", "y.ckpt"]) {
        has(sim, &[model], Duration::from_millis(20));
    }
    sims[2].crash().await;
    let world = World::over(sims, waits).await;
    let waiting = &world.gateway.sessions.waiting;
    until("it is known what two have", || waiting.known_backends() == 2).await;
    world.sim("a").crash().await;
    world.is_gone("a").await;
    // Another one comes: what is known is told again, with what it says.
    world.sim("c").restart().await.unwrap();
    // What it has is known, and what the first one had: nobody is asked who may have it.
    until("it is known what the third has", || waiting.known_backends() == 3).await;
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &needs("x.ckpt", 0.01, 0)).await.prompt_id();
    world.sim("a").restart().await.unwrap();
    socket.until_end(&prompt).await;
    for name in ["b", "c"] {
        let requests = world.sim(name).requests();
        let sent = requests.iter().filter(|it| it.method == "POST" && it.target == "/prompt");
        assert_eq!(sent.count(), 0, "{name} is not asked for what it lacks");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_asked_where_nothing_waits() {
    // Where prompts wait, one is asked within a second or so.
    let asking = world([&["x.ckpt"], &["x.ckpt"]], waits).await;
    let world = World::with(1, |_| {}).await;
    run(&world, "ada", &slow(1, 0.01)).await;
    asking.sim("a").crash().await;
    asking.is_gone("a").await;
    asking.sim("a").restart().await.unwrap();
    let asked_again = || {
        let requests = asking.sim("a").requests();
        requests.iter().filter(|it| it.target == "/object_info").count() == 2
    };
    until("the other is asked again", asked_again).await;
    let requests = world.sim("a").requests();
    let asked = |path: &str| requests.iter().filter(|it| it.target.starts_with(path)).count();
    assert_eq!((asked("/object_info"), asked("/experiment")), (0, 0));
}
