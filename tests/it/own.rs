//! Lists show one's own and verbs touch one's own, whichever backends have it (R5, R6).

use std::time::Duration;

use http::Method;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::support::{Answer, World, network, quick, send, slow, until};

/// Runs a prompt to its end; returns its id and its backend.
async fn done(world: &World, client: &str, color: u32) -> (String, String) {
    let mut socket = world.socket(client).await;
    let answer = world.submit(client, &quick(color)).await;
    let prompt = answer.prompt_id();
    socket.until_end(&prompt).await;
    socket.close().await;
    (prompt, answer.backend().to_owned())
}

/// Runs prompts of one client until each backend has made one.
async fn done_everywhere(world: &World, client: &str) -> Vec<(String, String)> {
    let mut made: Vec<(String, String)> = Vec::new();
    for (color, sim) in (0..).zip(&world.sims) {
        // The others are drained, so it goes there.
        for other in world.gateway.shared.fleet.iter() {
            let is_it = *other.name() == *sim.name();
            other.set_admin(if is_it { READY } else { DRAINING });
        }
        made.push(done(world, client, color).await);
        assert_eq!(made.last().unwrap().1, sim.name());
    }
    for backend in world.gateway.shared.fleet.iter() {
        backend.set_admin(READY);
    }
    made
}

const READY: mooring::routing::placement::AdminState =
    mooring::routing::placement::AdminState::Ready;
const DRAINING: mooring::routing::placement::AdminState =
    mooring::routing::placement::AdminState::Draining;

async fn sim_of(name: &str, version: &str) -> Sim {
    let options = Options { version: version.to_owned(), ..Options::named(name) };
    Sim::start(network(), options).await.unwrap()
}

fn ids_of_history(answer: &Answer) -> Vec<String> {
    answer.json().as_object().unwrap().keys().cloned().collect()
}

fn ids_of_jobs(answer: &Answer) -> Vec<String> {
    let jobs = answer.json()["jobs"].as_array().unwrap().clone();
    jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

fn ids_in(queue: &Answer, list: &str) -> Vec<String> {
    let items = queue.json()[list].as_array().unwrap().clone();
    items.iter().map(|item| item[1].as_str().unwrap().to_owned()).collect()
}

fn asked(sim: &Sim, target: &str) -> usize {
    // Ids are percent-encoded, hyphens too.
    sim.requests().iter().filter(|seen| seen.target.replace("%2D", "-") == target).count()
}

async fn with_cookie(
    world: &World,
    method: Method,
    path: &str,
    body: &str,
    cookie: &str,
) -> Answer {
    send(world.front, method, path, &[("cookie", cookie)], body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_has_ones_own_of_every_backend_in_the_order_of_their_ends() {
    let world = World::new(3).await;
    world.all_up().await;
    let made = done_everywhere(&world, "ada").await;
    let bobs = done(&world, "bob", 9).await.0;
    let ids: Vec<String> = made.iter().map(|(id, _)| id.clone()).collect();

    let history = world.get("/history?clientId=ada").await;
    assert_eq!(ids_of_history(&history), ids);
    assert_eq!(history.header("mooring-missing"), "");
    // Each backend tells the end before it has the entry, so the first list may ask more than once.
    let asks = || -> Vec<usize> {
        let of =
            |(id, backend): &(String, String)| asked(world.sim(backend), &format!("/history/{id}"));
        made.iter().map(of).collect()
    };
    let first = asks();
    for (id, _) in &made {
        assert_eq!(history.json()[id]["prompt"][1], json!(id), "the entry is its own");
    }
    let part = |query: &str| format!("/api/history?{query}&clientId=ada");
    assert_eq!(ids_of_history(&world.get(&part("max_items=2")).await), ids[1..]);
    assert_eq!(ids_of_history(&world.get(&part("offset=1&max_items=1")).await), ids[1..2]);
    assert_eq!(ids_of_history(&world.get("/history?clientId=bob").await), [bobs]);
    assert_eq!(ids_of_history(&world.get("/history?clientId=eve").await), [""; 0]);
    // An entry does not change: it is not asked for again.
    assert_eq!(asks(), first);
    let wrong = world.get("/history?clientId=ada&max_items=x").await;
    assert_eq!((wrong.status, wrong.header("mooring-error")), (400, "bad_query"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_forgot_is_left_out_and_does_not_take_the_place_of_another() {
    let world = World::new(2).await;
    world.all_up().await;
    let made = done_everywhere(&world, "ada").await;
    let kept = &made[0].0;
    // Nothing of it was read before.
    world
        .gateway
        .history_cache
        .forget(&mooring::routing::ids::PromptId::parse(&made[1].0).unwrap());
    world.sim(&made[1].1).crash().await;
    world.is_gone(&made[1].1).await;
    world.sim(&made[1].1).restart().await.unwrap();
    world.all_up().await;
    let newest = world.get("/history?max_items=1&clientId=ada").await;
    assert_eq!(ids_of_history(&newest), std::slice::from_ref(kept));
    let jobs = world.get("/api/jobs?clientId=ada").await;
    assert_eq!(ids_of_jobs(&jobs), std::slice::from_ref(kept));
    assert_eq!(jobs.json()["pagination"]["total"], 1);
    assert_eq!(world.get(&format!("/history/{}", made[1].0)).await.json(), json!({}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_history_is_gone_here_and_on_the_backends_and_only_ones_own() {
    let world = World::new(2).await;
    world.all_up().await;
    let made = done_everywhere(&world, "ada").await;
    let bobs = done(&world, "bob", 9).await;
    assert_eq!(ids_of_history(&world.get("/history?clientId=ada").await).len(), 2);
    let first = &made[0].0;
    let delete = json!({ "delete": [first, bobs.0] }).to_string();
    assert_eq!(world.post("/history?clientId=ada", &delete).await.status, 200);
    let looks = || asked(world.sim(&made[0].1), &format!("/history/{first}"));
    let before = looks();
    assert_eq!(ids_of_history(&world.get("/history?clientId=ada").await), [made[1].0.clone()]);
    assert_eq!(world.get(&format!("/history/{first}")).await.json(), json!({}));
    assert_eq!(world.get(&format!("/api/jobs/{first}")).await.status, 404);
    assert_eq!(looks(), before, "nobody looks for what is deleted");
    assert_eq!(world.gateway.shared.metrics.foreign_verbs.get(), 1);

    assert_eq!(world.post("/api/history?clientId=ada", r#"{"clear": true}"#).await.status, 200);
    assert_eq!(world.get("/history?clientId=ada").await.json(), json!({}));
    assert_eq!(
        ids_of_history(&world.get("/history?clientId=bob").await),
        std::slice::from_ref(&bobs.0)
    );
    for (id, backend) in made {
        let there = send(world.sim(&backend).addr(), Method::GET, "/history", &[], "").await;
        assert!(!there.text().contains(&id), "{backend}");
    }
    let nameless = world.post("/history", r#"{"clear": true}"#).await;
    assert_eq!((nameless.status, nameless.header("mooring-error")), (403, "nameless"));
}

/// Two tabs of one browser whose page carries no script of ours: one cookie, two clients.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cookie_alone_is_shown_all_of_its_browser_and_nothing_of_another() {
    let world = World::new(2).await;
    world.all_up().await;
    let (cookie, other) = (world.cookie(), world.cookie());
    let mut ids = Vec::new();
    let mut backends = Vec::new();
    for (client, cookie) in [("tab1", &cookie), ("tab2", &cookie), ("cyd", &other)] {
        let path = format!("/prompt?clientId={client}");
        let body = json!({ "client_id": client, "prompt": slow(500, 30.0) }).to_string();
        let answer = with_cookie(&world, Method::POST, &path, &body, cookie).await;
        backends.push(answer.backend().to_owned());
        ids.push(answer.prompt_id());
    }
    assert_ne!(backends[0], backends[1]);
    let queue = with_cookie(&world, Method::GET, "/queue", "", &cookie).await;
    for id in &ids[..2] {
        assert!(queue.text().contains(id.as_str()), "{}", queue.text());
    }
    assert!(!queue.text().contains(&ids[2]));
    let jobs = with_cookie(&world, Method::GET, "/api/jobs", "", &cookie).await;
    assert_eq!(ids_of_jobs(&jobs).len(), 2);
    // A browser that has no tab yet has nothing, and is not nobody either.
    let fresh = world.cookie();
    let queue = with_cookie(&world, Method::GET, "/queue", "", &fresh).await;
    assert_eq!(queue.json(), json!({ "queue_running": [], "queue_pending": [] }));
    let bare = with_cookie(&world, Method::POST, "/interrupt", "", &cookie).await;
    assert_eq!(bare.header("mooring-error"), "nameless", "two tabs have work");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_backend_delays_a_list_by_its_deadline_and_is_named() {
    let world = World::with(2, |config| {
        config.fleet.list_timeout = Duration::from_millis(300);
    })
    .await;
    world.all_up().await;
    let made = done_everywhere(&world, "ada").await;
    let (slow_one, quick_one) = (&made[1], &made[0]);
    for (id, _) in &made {
        world.gateway.history_cache.forget(&mooring::routing::ids::PromptId::parse(id).unwrap());
    }
    world.sim(&slow_one.1).set_faults(|faults| faults.latency_ms = 5_000);
    for path in ["/history?clientId=ada", "/api/jobs?clientId=ada"] {
        let began = mooring::net::now();
        let answer = world.get(path).await;
        assert!(began.elapsed() < Duration::from_secs(3), "{path}: {:?}", began.elapsed());
        assert_eq!((answer.status, answer.header("mooring-missing")), (200, slow_one.1.as_str()));
        assert!(answer.text().contains(&quick_one.0) && !answer.text().contains(&slow_one.0));
    }
    // It is as before once the backend answers.
    world.sim(&slow_one.1).set_faults(|faults| faults.latency_ms = 0);
    let answer = world.get("/history?clientId=ada").await;
    assert_eq!((ids_of_history(&answer).len(), answer.header("mooring-missing")), (2, ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_backend_takes_nothing_with_it_but_what_only_it_knows() {
    let world = World::new(2).await;
    world.all_up().await;
    let _socket = world.socket("ada").await;
    let pending = world.submit("ada", &slow(500, 30.0)).await;
    let (prompt, home) = (pending.prompt_id(), pending.backend().to_owned());
    world.sim(&home).crash().await;
    world.is_down(&home).await;
    let queue = world.get("/queue?clientId=ada").await;
    assert_eq!((queue.status, queue.header("mooring-missing")), (200, home.as_str()));
    // It is pending until it is known what became of it: nobody takes it for lost.
    assert!(queue.text().contains(&prompt), "{}", queue.text());
    let jobs = world.get("/api/jobs?status=pending,in_progress&clientId=ada").await;
    assert_eq!((ids_of_jobs(&jobs), jobs.header("mooring-missing")), (vec![prompt], &*home));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn askers_at_the_same_time_share_the_readings_of_a_queue() {
    let world = World::new(1).await;
    world.all_up().await;
    let _socket = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
    let sim = world.sim("a");
    sim.set_faults(|faults| faults.latency_ms = 200);
    let before = asked(sim, "/queue");
    let askers = (0..30).map(|_| world.get("/queue?clientId=ada"));
    for queue in futures_util::future::join_all(askers).await {
        assert_eq!(ids_in(&queue, "queue_running"), std::slice::from_ref(&prompt));
    }
    let readings = asked(sim, "/queue") - before;
    assert!((1..=4).contains(&readings), "{readings} readings for 30 askers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn askers_at_the_same_time_share_the_fetching_of_an_entry() {
    let world = World::new(1).await;
    world.all_up().await;
    let (prompt, _) = done(&world, "ada", 1).await;
    world.gateway.history_cache.forget(&mooring::routing::ids::PromptId::parse(&prompt).unwrap());
    let sim = world.sim("a");
    let path = format!("/history/{prompt}");
    let before = asked(sim, &path);
    sim.set_faults(|faults| faults.latency_ms = 200);
    let askers = (0..30).map(|_| world.get("/history?clientId=ada"));
    for history in futures_util::future::join_all(askers).await {
        assert_eq!(ids_of_history(&history), std::slice::from_ref(&prompt));
    }
    assert_eq!(asked(sim, &path) - before, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_just_submitted_or_deleted_is_seen_at_once() {
    let world = World::new(1).await;
    world.all_up().await;
    let _socket = world.socket("ada").await;
    let running = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
    let waiting = world.submit("ada", &quick(1)).await.prompt_id();
    let queue = world.get("/queue?clientId=ada").await;
    assert_eq!(ids_in(&queue, "queue_running"), std::slice::from_ref(&running));
    assert_eq!(ids_in(&queue, "queue_pending"), std::slice::from_ref(&waiting));
    let jobs = world.get("/api/jobs?status=pending&clientId=ada").await;
    assert_eq!(ids_of_jobs(&jobs), std::slice::from_ref(&waiting));
    // While a reading that began before is still in flight.
    let sim = world.sim("a");
    let before = asked(sim, "/queue");
    sim.set_faults(|faults| faults.latency_ms = 150);
    let early = world.get("/queue?clientId=ada");
    let late = async {
        until("the first reading is in flight", || before < asked(sim, "/queue")).await;
        world.post("/queue?clientId=ada", r#"{"clear": true}"#).await;
        world.get("/queue?clientId=ada").await
    };
    let (early, queue) = tokio::join!(early, late);
    assert_eq!(early.status, 200);
    assert_eq!(ids_in(&queue, "queue_pending"), [""; 0]);
    assert_eq!(world.get(&format!("/api/jobs/{waiting}")).await.status, 404);
    let queue = world.get("/queue?clientId=ada").await;
    assert_eq!(ids_in(&queue, "queue_pending"), [""; 0]);
    assert_eq!(ids_in(&queue, "queue_running"), [running]);
}

fn id(client: &str) -> mooring::routing::ids::ClientId {
    mooring::routing::ids::ClientId::parse(client).unwrap()
}

/// The page 1.58.1 asks so; 0.8.0 answers 400 (recording 20).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_newer_than_its_server_sees_its_history() {
    let sims = vec![sim_of("a", "0.8.0").await, sim_of("b", "0.8.0").await];
    let world = World::over(sims, |_| {}).await;
    world.all_up().await;
    let made = done_everywhere(&world, "ada").await;
    let mut socket = world.socket("ada").await;
    let cut = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
    socket.until("progress").await;
    world.post("/interrupt?clientId=ada", "").await;
    socket.until_end(&cut).await;

    let asked = "status=completed,failed,cancelled&limit=200&offset=0&clientId=ada";
    let jobs = world.get(&format!("/api/jobs?{asked}")).await;
    assert_eq!(jobs.status, 200, "{}", jobs.text());
    let newest = [cut.clone(), made[1].0.clone(), made[0].0.clone()];
    assert_eq!(ids_of_jobs(&jobs), newest);
    assert_eq!(jobs.json()["jobs"][0]["status"], "cancelled");
    assert_eq!(jobs.json()["jobs"][1]["status"], "completed");
    assert!(jobs.json()["jobs"][1]["preview_output"]["filename"].is_string());
    let cancelled = world.get("/api/jobs?status=cancelled&clientId=ada").await;
    assert_eq!(ids_of_jobs(&cancelled), newest[..1]);
    let page = world.get("/api/jobs?limit=1&offset=1&sort_order=asc&clientId=ada").await;
    assert_eq!(ids_of_jobs(&page), newest[1..2]);
    assert_eq!(
        page.json()["pagination"],
        json!({ "offset": 1, "limit": 1, "total": 3, "has_more": true })
    );
    // Who does not know the word is told of a failure, as by the server.
    let old = world.get("/api/jobs?status=failed&clientId=ada").await;
    assert_eq!(ids_of_jobs(&old), newest[..1]);
    let wrong = world.get("/api/jobs?status=done&clientId=ada").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.json()["error"].as_str().unwrap().contains("Invalid status value(s): done"));
    let longest = world.get("/api/jobs?sort_by=execution_duration&limit=1&clientId=ada").await;
    assert_eq!(longest.json()["pagination"]["total"], 3);
}

/// Before 0.6.0 there is no jobs API at all, and before about 0.26 nothing cancels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_shown_and_cancelled_on_servers_that_know_none() {
    for version in ["0.5.1", "0.8.0", "0.30.0"] {
        let world = World::over(vec![sim_of("a", version).await], |_| {}).await;
        world.all_up().await;
        let mut socket = world.socket("ada").await;
        let running = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
        let waiting = world.submit("ada", &quick(1)).await.prompt_id();
        socket.until("progress").await;
        let of = async |id: &str| world.get(&format!("/api/jobs/{id}")).await.json();
        assert_eq!(of(&running).await["status"], "in_progress", "{version}");
        assert_eq!(of(&waiting).await["status"], "pending", "{version}");

        let theirs = world.post(&format!("/api/jobs/{running}/cancel?clientId=bob"), "").await;
        assert_eq!(theirs.json(), json!({ "cancelled": false }), "{version}");
        let both = json!({ "job_ids": [waiting, running] }).to_string();
        let cancelled = world.post("/api/jobs/cancel?clientId=ada", &both).await;
        assert_eq!(cancelled.json(), json!({ "cancelled": true }), "{version}");
        socket.until_end(&running).await;
        let client = world.gateway.sessions.clients.get(&id("ada")).unwrap();
        until("both have ended", || client.pending().is_empty()).await;
        assert_eq!(world.get(&format!("/api/jobs/{waiting}")).await.status, 404, "{version}");
        let ledger = world.sim("a").ledger();
        assert_eq!(ledger.executed.get(&waiting), None, "{version}");
        let word = if version == "0.30.0" { "cancelled" } else { "failed" };
        let detail = of(&running).await;
        assert_eq!((&detail["status"], detail["outputs"].is_object()), (&json!(word), true));
        let again = world.post(&format!("/api/jobs/{running}/cancel?clientId=ada"), "").await;
        assert_eq!(again.json(), json!({ "cancelled": false }), "{version}");
        let wrong = world.post("/api/jobs/cancel?clientId=ada", r#"{"job_ids": ["x"]}"#).await;
        assert_eq!((wrong.status, wrong.json()["invalid_ids"][0].clone()), (400, json!("x")));
        if version == "0.5.1" {
            let is_job = |seen: &&mooring::sim::Seen| seen.target.contains("/jobs");
            assert_eq!(world.sim("a").requests().iter().filter(is_job).count(), 0);
        }
    }
}

/// ComfyUI clears the flag when a prompt starts, so an interrupt just before is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_between_dequeue_and_start_is_repeated() {
    let world = World::new(1).await;
    world.all_up().await;
    world.sim("a").set_faults(|faults| faults.start_delay_ms = 300);
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(1000, 60.0)).await.prompt_id();
    let waiting = world.submit("ada", &quick(1)).await.prompt_id();
    let answer = world.post("/interrupt?clientId=ada", "").await;
    assert_eq!(answer.status, 200);
    let seen = socket.until_end(&prompt).await;
    assert!(seen.contains(&"execution_interrupted".to_owned()), "{seen:?}");
    assert!(0 < world.gateway.shared.metrics.interrupts_repeated.get());
    // What waited is left alone.
    socket.until_end(&waiting).await;
    let ledger = world.sim("a").ledger();
    assert_eq!(
        (ledger.interrupted, ledger.finished),
        (vec![prompt.clone()], vec![prompt, waiting])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ignores_ids_is_interrupted_only_if_ones_own_prompt_runs() {
    let world = World::over(vec![sim_of("a", "0.3.50").await], |_| {}).await;
    world.all_up().await;
    let mut bobs_socket = world.socket("bob").await;
    let mut adas_socket = world.socket("ada").await;
    let bobs = world.submit("bob", &slow(500, 30.0)).await.prompt_id();
    bobs_socket.until("progress").await;
    let adas = world.submit("ada", &slow(500, 30.0)).await.prompt_id();
    for body in [String::new(), json!({ "prompt_id": adas }).to_string()] {
        assert_eq!(world.post("/interrupt?clientId=ada", &body).await.status, 200);
    }
    let named = json!({ "prompt_id": bobs }).to_string();
    assert_eq!(world.post("/interrupt?clientId=ada", &named).await.status, 200);
    assert_eq!(world.gateway.shared.metrics.foreign_verbs.get(), 1);
    assert_eq!(asked(world.sim("a"), "/interrupt"), 0, "bob's prompt runs");
    bobs_socket.until("progress").await;
    world.post("/interrupt?clientId=bob", "").await;
    bobs_socket.until_end(&bobs).await;
    adas_socket.until("progress").await;
    assert_eq!(world.sim("a").ledger().interrupted, [bobs]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_unloaded_by_clients_only_where_that_is_allowed() {
    let body = r#"{"unload_models": true}"#;
    let world = World::new(1).await;
    world.all_up().await;
    assert_eq!(world.post("/free?clientId=ada", body).await.status, 200);
    assert_eq!(asked(world.sim("a"), "/free?clientId=ada"), 0);
    let open = World::with(1, |config| config.server.allow_free = true).await;
    open.all_up().await;
    assert_eq!(open.post("/api/free?clientId=ada", body).await.status, 200);
    assert_eq!(asked(open.sim("a"), "/api/free?clientId=ada"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_in_particular_is_shown_ids_and_places_in_every_list() {
    let world = World::new(2).await;
    world.all_up().await;
    let ended = done(&world, "ada", 1).await.0;
    let _socket = world.socket("bob").await;
    let running = world.submit("bob", &slow(500, 30.0)).await.prompt_id();
    let history = world.get("/history").await;
    assert_eq!(history.json()[&ended]["prompt"][1], json!(ended));
    assert_eq!(history.json()[&ended].get("status"), None, "no success without its outputs");
    let jobs = world.get("/api/jobs").await;
    let mut ids = ids_of_jobs(&jobs);
    ids.sort();
    let mut expected = [ended.clone(), running];
    expected.sort();
    assert_eq!(ids, expected);
    for job in jobs.json()["jobs"].as_array().unwrap() {
        assert!(job["create_time"].is_number(), "a page wants it in each: {job}");
    }
    for answer in [&history, &jobs, &world.get("/queue").await] {
        for secret in ["EmptyImage", "\"ada\"", "\"bob\"", "test_0000", "outputs_count"] {
            assert!(!answer.text().contains(secret), "{}", answer.text());
        }
    }
    let done: Value = world.get("/api/jobs?status=completed").await.json();
    assert_eq!(done["jobs"][0]["id"], json!(ended));
}
