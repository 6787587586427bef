//! What operators see while the fleet works, and that they can cancel one prompt: GPUs and their
//! memory, the node that runs, an end by hand.

use std::time::Duration;

use http::Method;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::audit::{AuditLog, said};
use crate::dashboard::Watching;
use crate::support::{World, network, quick, send, slow, soon};

const GIB: u64 = 1 << 30;

/// A GPU as ComfyUI names it.
fn gpu(free: u64) -> Value {
    json!({
        "name": "cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync", "type": "cuda", "index": 0,
        "vram_total": 24 * GIB, "vram_free": free,
        "torch_vram_total": 2 * GIB, "torch_vram_free": GIB,
    })
}

/// The devices of backend `a`, as soon as this is true of them.
async fn devices(world: &World, is_it: impl Fn(&Value) -> bool) -> Value {
    soon("the devices", async {
        loop {
            let told = world.admin_get("/api/v1/backends").await.json();
            if is_it(&told["backends"][0]["devices"]) {
                return told["backends"][0]["devices"].clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn gpus_and_their_memory_are_told_while_somebody_looks() {
    let often = |config: &mut mooring::config::Config| {
        config.fleet.probe_interval = Duration::from_millis(100);
    };
    let world = World::with(1, often).await;
    world.all_up().await;
    let first = devices(&world, |it| !it[0].is_null()).await;
    assert_eq!((&first[0]["name"], &first[0]["type"]), (&"cpu".into(), &"cpu".into()));

    world.sim("a").set_faults(|faults| *faults.devices = json!([gpu(20 * GIB), gpu(4 * GIB)]));
    let told = devices(&world, |it| it[0]["name"] == "NVIDIA GeForce RTX 4090").await;
    assert_eq!(told[1]["vram_free"], 4 * GIB);
    let metrics = world.admin_get("/metrics").await.text();
    for (name, bytes) in [("total", 48 * GIB), ("free", 24 * GIB)] {
        let line = format!("mooring_backend_vram_{name}_bytes{{backend=\"a\"}} {bytes}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }

    // What it does not say is unknown, and no trouble of it.
    for odd in [json!("none"), json!([]), json!([{ "vram_free": -1 }])] {
        world.sim("a").set_faults(|faults| *faults.devices = odd);
        devices(&world, |it| it == &json!([])).await;
        assert!(world.gateway.shared.fleet.iter().all(|it| it.is_up()));
    }
    assert!(
        !world.admin_get("/metrics").await.text().contains("mooring_backend_vram_total_bytes{")
    );
    world.sim("a").set_faults(|faults| *faults.devices = json!([gpu(4 * GIB)]));
    devices(&world, |it| it[0]["vram_free"] == 4 * GIB).await;
    world.sim("a").set_faults(|faults| faults.status = 500);
    let silent = devices(&world, |it| it[0]["vram_free"].is_null()).await;
    assert_eq!(silent[0]["vram_total"], 24 * GIB);
}

#[tokio::test]
async fn a_gateway_that_nobody_looks_at_does_not_ask() {
    let often = |config: &mut mooring::config::Config| {
        config.fleet.probe_interval = Duration::from_millis(100);
    };
    let world = World::with(1, often).await;
    world.all_up().await;
    let count = |is_it: fn(&str) -> bool| {
        let requests = world.sim("a").requests();
        requests.iter().filter(|it| is_it(&it.target)).count()
    };
    let asked = || count(|target| target == "/system_stats");
    // Nothing tells that something was not done: several times the interval is waited.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let opened = count(|target| target.starts_with("/ws"));
    assert!(asked() <= opened, "only as its watch link opened");
    devices(&world, |_| 3 <= asked()).await;
}

#[tokio::test]
async fn the_running_node_is_told_with_its_progress() {
    let world = World::new(1).await;
    let mut page = Watching::open(world.admin, "").await;
    let mut graph = slow(1_000, 300.0);
    graph["2"]["_meta"] = json!({ "title": "Refine" });
    let prompt = world.submit("ada", &graph).await.prompt_id();
    let second = world.submit("ada", &slow(10, 300.0)).await.prompt_id();
    let is_at_work =
        |seen: &Value| 2.0 <= seen["backends"][0]["doing"][0]["value"].as_f64().unwrap_or(0.0);
    let seen = page.until(is_at_work).await;
    let backend = &seen["backends"][0];
    let doing = &backend["doing"][0];
    assert_eq!(doing["prompt_id"], prompt.as_str());
    assert_eq!(doing["node"], "“Refine” (SlowSteps, node 2)");
    assert_eq!(doing["max"], 1_000.0);
    assert!(doing["client"].as_str().unwrap().starts_with("c-"), "{doing}");
    assert!(doing["runs_ms"].is_u64() && backend["oldest_waiting_ms"].is_u64(), "{backend}");
    for prompt in [second, prompt] {
        world.admin_post(&format!("/api/v1/prompts/{prompt}/cancel"), "").await;
    }
    let idle = page.until(|seen| seen["backends"][0]["running"] == 0).await;
    assert_eq!(idle["backends"][0]["doing"], json!([]));
    assert!(idle["backends"][0]["oldest_waiting_ms"].is_null());
}

#[tokio::test]
async fn the_last_hour_is_told_minute_by_minute() {
    let world = World::new(1).await;
    let mut page = Watching::open(world.admin, "").await;
    let first = page.until(|_| true).await;
    assert_eq!(first["minutes"], json!(vec![json!([0, 0, null, null]); 60]));
    world.submit("ada", &quick(1)).await;
    let mut fails = slow(1, 0.1);
    fails["2"]["inputs"]["fail"] = json!(true);
    world.submit("ada", &fails).await;
    // A minute may turn in between.
    let sum = |seen: &Value, column: usize| -> u64 {
        let minutes = seen["minutes"].as_array().unwrap();
        minutes.iter().filter_map(|it| it[column].as_u64()).sum()
    };
    let seen = page.until(|seen| (sum(seen, 0), sum(seen, 1)) == (1, 1)).await;
    assert_eq!(seen["minutes"].as_array().unwrap().len(), 60);
    // The minute may have turned between the two.
    let with_times = |it: &&Value| it[2].is_u64() && it[3].is_u64();
    let measured = seen["minutes"].as_array().unwrap().iter().filter(with_times).count();
    assert!((1..=2).contains(&measured), "{}", seen["minutes"]);
}

/// One that waits and one that runs, on a server that cancels in one step and on two that do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_is_cancelled_by_its_id_and_no_other_is() {
    for version in ["0.3.64", "0.8.0", "0.33.0"] {
        let options = Options { version: version.to_owned(), ..Options::named("a") };
        let sim = Sim::start(network(), options).await.unwrap();
        let world = World::over(vec![sim], |_| {}).await;
        world.all_up().await;
        let log = AuditLog::of(&world);
        let mut page = Watching::open(world.admin, "").await;
        let runs = world.submit("ada", &slow(1_000, 300.0)).await.prompt_id();
        let waits = world.submit("bob", &slow(1_000, 300.0)).await.prompt_id();
        let next = world.submit("cyd", &slow(1_000, 300.0)).await.prompt_id();
        let is_running =
            |seen: &Value, id: &str| seen["backends"][0]["doing"][0]["prompt_id"] == id;
        page.until(|seen| is_running(seen, &runs)).await;

        let cancel =
            async |id: &str| world.admin_post(&format!("/api/v1/prompts/{id}/cancel"), "").await;
        let first = cancel(&waits).await;
        assert_eq!((first.status, &first.json()["was"]), (200, &"waiting".into()), "{version}");
        let ended = |seen: &Value, id: &str| {
            let ended = seen["ended"].as_array().unwrap().clone();
            ended.into_iter().find(|it| it["prompt_id"] == id)
        };
        let seen = page.until(|seen| ended(seen, &waits).is_some()).await;
        assert_eq!(ended(&seen, &waits).unwrap()["outcome"], "deleted", "{version}");
        assert!(is_running(&seen, &runs), "{version}: the other runs on");

        let second = cancel(&runs).await;
        assert_eq!((second.status, &second.json()["was"]), (200, &"running".into()), "{version}");
        let seen = page.until(|seen| is_running(seen, &next)).await;
        assert_eq!(ended(&seen, &runs).unwrap()["outcome"], "interrupted", "{version}");
        let again = cancel(&runs).await;
        assert_eq!(again.status, 409, "{version}: {}", again.text());
        assert_eq!(cancel("nobodys-prompt").await.status, 404);

        let lines = log.lines(4).await;
        let told: Vec<(&str, &str)> = lines.iter().map(said).collect();
        let what = "prompt.cancel";
        let refused = [(what, "refused: 409 Conflict"), (what, "refused: 404 Not Found")];
        assert_eq!(told, [[(what, "done"), (what, "done")], refused].concat());
        assert_eq!(lines[0]["on"], waits.as_str());
        assert!(lines[0]["before"]["client"].as_str().unwrap().starts_with("c-"));
        let ledger = world.sim("a").ledger();
        assert!(!ledger.deleted.contains(&next) && !ledger.interrupted.contains(&next));
        cancel(&next).await;
        page.until(|seen| ended(seen, &next).is_some()).await;
    }
}

#[tokio::test]
async fn a_cancel_that_cannot_be_done_says_why() {
    let world = World::new(1).await;
    world.all_up().await;
    let prompt = world.submit("ada", &slow(1_000, 300.0)).await.prompt_id();
    let path = format!("/api/v1/prompts/{prompt}/cancel");
    let foreign = [("origin", "http://evil.example")];
    assert_eq!(send(world.admin, Method::POST, &path, &foreign, "").await.status, 403);
    assert_eq!(world.admin_get(&path).await.status, 405);
    world.sim("a").set_faults(|faults| faults.status = 500);
    let failed = world.admin_post(&path, "").await;
    assert_eq!(failed.status, 502);
    assert!(failed.json()["error"].as_str().unwrap().contains("may go on"), "{}", failed.text());
    world.admin_post("/api/v1/backends/a/state", r#"{"state": "off", "force": true}"#).await;
    let ended = world.admin_post(&path, "").await;
    assert_eq!((ended.status, ended.json()["error"].as_str()), (409, Some("it has ended: reset")));
}
