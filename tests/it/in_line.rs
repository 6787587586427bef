//! What those who wait in the gateway are told: their places, when they should start, and why they
//! wait; what operators see of it and do; and that nobody learns of others.

use std::time::Duration;

use http::Method;
use mooring::config::Secret;
use serde_json::{Value, json};

use crate::audit::{AuditLog, said};
use crate::support::{Socket, World, quick, send, until};
use crate::waiting::{takes, waits_unasked};

/// What `mooring-queue` says: the place, and the seconds until the start.
fn told(answer: &crate::support::Answer) -> (usize, Option<u64>) {
    let text = answer.header("mooring-queue");
    let (place, start) = match text.split_once(", ") {
        Some((place, start)) => (place, Some(start)),
        None => (text, None),
    };
    let place = place.strip_prefix("place=").unwrap_or_else(|| panic!("{text}"));
    let start = start.map(|it| it.strip_prefix("start=").unwrap().parse().unwrap());
    (place.parse().unwrap(), start)
}

/// Ada's first prompt runs until it is interrupted.
async fn busy(world: &World) -> Socket {
    let mut socket = world.socket("ada").await;
    world.submit("ada", &takes(30.0, 1_000)).await.prompt_id();
    socket.until("execution_start").await;
    socket
}

/// Lets some run, a quarter of so many seconds each, so that it is known how long they take.
async fn learn(world: &World, seconds: f64) {
    let mut socket = world.socket("before").await;
    for seed in 2_000..2_003 {
        let prompt = world.submit("before", &takes(seconds, seed)).await.prompt_id();
        socket.until_end(&prompt).await;
    }
    // All of them are counted.
    until("nothing waits", || world.waiting() == 0).await;
}

async fn submit(world: &World, client: &str, seeds: std::ops::Range<u32>) -> Vec<String> {
    let mut prompts = Vec::new();
    for seed in seeds {
        let answer = world.submit(client, &takes(0.05, seed)).await;
        assert_eq!(answer.header("mooring-placement"), "waiting", "{}", answer.text());
        prompts.push(answer.prompt_id());
    }
    prompts
}

async fn own(world: &World, client: &str) -> Value {
    let answer = world.get(&format!("/-/queue?clientId={client}")).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    answer.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_is_told_its_place_and_when_it_starts_once_that_is_known() {
    let world = World::with(1, waits_unasked).await;
    let _socket = busy(&world).await;
    for place in 1..=3_u32 {
        let answer = world.submit("ada", &takes(0.05, place)).await;
        assert_eq!(told(&answer), (place as usize, None), "nothing was learned");
    }
    let queue = own(&world, "ada").await;
    let starts = queue["prompts"].as_array().unwrap().iter().map(|it| it["start"].clone());
    assert_eq!(starts.collect::<Vec<_>>(), [Value::Null, Value::Null, Value::Null]);
    assert_eq!(world.post("/interrupt?clientId=ada", "{}").await.status, 200);
    until("all are done", || world.finished() == 4).await;

    learn(&world, 0.8).await;
    let _socket = busy(&world).await;
    // Something is there already, as far as anybody knows about to end.
    let mut seen = Vec::new();
    for seed in 10..14_u32 {
        let answer = world.submit("ada", &takes(0.8, seed)).await;
        if answer.header("mooring-placement") == "waiting" {
            seen.push(told(&answer));
        }
    }
    assert!(2 <= seen.len(), "{seen:?}");
    let places = seen.iter().map(|(place, _)| *place);
    assert!(places.eq(1..=seen.len()), "{seen:?}");
    let starts: Vec<u64> = seen.iter().map(|(_, start)| start.unwrap()).collect();
    assert!(starts.is_sorted() && starts.iter().all(|it| (1..60).contains(it)), "{starts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ones_own_prompts_are_told_with_what_they_wait_for_and_nobody_elses() {
    let world = World::with(1, waits_unasked).await;
    let _socket = busy(&world).await;
    let adas = submit(&world, "ada", 1..3).await;
    let bobs = submit(&world, "bob", 3..4).await;
    for (client, prompts, other) in [("ada", &adas, &bobs), ("bob", &bobs, &adas)] {
        let queue = own(&world, client).await;
        assert_eq!(queue["waiting"], prompts.len());
        let rows = queue["prompts"].as_array().unwrap();
        let ids: Vec<&str> = rows.iter().map(|it| it["prompt_id"].as_str().unwrap()).collect();
        assert_eq!(ids, prompts.iter().map(String::as_str).collect::<Vec<_>>());
        let why = rows[0]["why"].as_str().unwrap();
        assert!(why.starts_with("a has room in ") || why.starts_with("a is full"), "{why}");
        let text = queue.to_string();
        assert!(!text.contains(other[0].as_str()) && !text.contains("10.0.0"), "{text}");
    }
    let job = world.get("/-/fleet?clientId=ada").await.json()["jobs"][1].clone();
    assert_eq!(
        (&job["place"], &job["start"]),
        (&own(&world, "ada").await["prompts"][0]["place"], &Value::Null),
        "{job}"
    );
    let none = json!({"prompts": [], "waiting": 0});
    assert_eq!(own(&world, "nobody").await, none);
    assert_eq!(world.get("/-/queue?clientId=%22%c3%28").await.json(), none);
    assert_eq!(world.get("/-/queue?clientId=%00").await.status, 400);
    assert_eq!(world.post("/-/queue?clientId=ada", "{}").await.status, 405);
    let explained = world.get(&format!("/-/explain?clientId=ada&prompt={}", adas[0])).await.json();
    assert_eq!(explained["prompt"]["place"], own(&world, "ada").await["prompts"][0]["place"]);
    assert!(explained["prompt"]["waits_for"].as_str().unwrap().starts_with("a "), "{explained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_no_backend_is_up_that_is_why_and_no_start_is_told() {
    let world = World::with(2, waits_unasked).await;
    learn(&world, 0.05).await;
    for name in ["a", "b"] {
        world.sim(name).crash().await;
        world.is_down(name).await;
    }
    let answer = world.submit("ada", &quick(1)).await;
    assert_eq!(told(&answer), (1, None));
    let queue = own(&world, "ada").await;
    assert_eq!(queue["prompts"][0]["why"], "no backend is up", "{queue}");
    assert_eq!(queue["prompts"][0]["start"], Value::Null, "{queue}");
    world.sim("b").restart().await.unwrap();
    until("it has run", || world.executed(&answer.prompt_id()) == 1).await;
    assert_eq!(own(&world, "ada").await["waiting"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_expected_to_wait_for_too_long_is_refused_at_the_door() {
    let world = World::with(1, |config| {
        waits_unasked(config);
        config.queue.max_wait = Duration::from_secs(2);
        config.queue.lead = Duration::ZERO;
        config.queue.depth = 1;
    })
    .await;
    learn(&world, 2.4).await;
    let _socket = busy(&world).await;
    let mut accepted = 0;
    let refused = loop {
        let answer = world.submit("ada", &takes(2.4, accepted)).await;
        if answer.status != 200 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 9, "somebody waits for longer than two seconds");
    };
    assert!(1 <= accepted, "what starts in time is accepted");
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "waits_too_long"));
    let retry_after: u32 = refused.header("retry-after").parse().unwrap();
    assert!((1..60).contains(&retry_after), "{retry_after}");
    let count = world.get("/prompt?clientId=ada").await.json();
    let here = usize::try_from(accepted).unwrap() + 1;
    assert_eq!(count["exec_info"]["queue_remaining"], here, "nothing of it is kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_where_nothing_waits() {
    let world = World::new(1).await;
    let _socket = busy(&world).await;
    let answer = world.submit("ada", &takes(0.05, 1)).await;
    assert_eq!((answer.status, answer.headers.get("mooring-queue")), (200, None));
    assert_eq!(own(&world, "ada").await, json!({"prompts": [], "waiting": 0}));
    let queue = world.admin_get("/api/v1/queue").await.json();
    assert_eq!(queue, json!({"prompts": [], "waiting": 0, "next_skip": null}));
}

fn ids(queue: &Value) -> Vec<String> {
    let rows = queue["prompts"].as_array().unwrap().iter();
    rows.map(|it| it["prompt_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_the_queue_move_a_prompt_to_its_front_and_cancel_one() {
    let world = World::with(1, waits_unasked).await;
    let _socket = busy(&world).await;
    let running = world.get("/queue?clientId=ada").await.json()["queue_running"][0][1].clone();
    let adas = submit(&world, "ada", 1..4).await;
    let all = world.admin_get("/api/v1/queue").await.json();
    assert_eq!((ids(&all), &all["waiting"]), (adas.clone(), &json!(3)));
    let first = &all["prompts"][0];
    assert_eq!((&first["client_id"], &first["place"]), (&"ada".into(), &1.into()));
    assert!(first["waited_ms"].is_u64() && first["start_ms"].is_null(), "{first}");
    let page = world.admin_get("/api/v1/queue?skip=1&limit=1").await.json();
    assert_eq!((ids(&page), &page["next_skip"]), (vec![adas[1].clone()], &json!(2)));
    let hash = first["client"].as_str().unwrap();
    let his = world.admin_get(&format!("/api/v1/queue?client={hash}&limit=2")).await.json();
    assert_eq!((ids(&his), &his["waiting"]), (adas[..2].to_vec(), &json!(3)));
    let nobodys = world.admin_get("/api/v1/queue?user=eve").await.json();
    assert_eq!(nobodys["waiting"], 0);
    for (path, status) in [
        ("/api/v1/queue?client=nobody", 404),
        ("/api/v1/queue?client=%00%ff", 404),
        ("/api/v1/queue?limit=-1", 400),
        ("/api/v1/queue?sort=age", 400),
        ("/api/v1/queue?limit=0&skip=18446744073709551615", 200),
    ] {
        assert_eq!(world.admin_get(path).await.status, status, "{path}");
    }

    let log = AuditLog::of(&world);
    let front = |prompt: &str| format!("/api/v1/queue/{prompt}/front");
    let moved = world.admin_post(&front(&adas[2]), "").await;
    assert_eq!((moved.status, moved.json()), (200, json!({"moved": true, "place": 1})));
    let all = world.admin_get("/api/v1/queue").await.json();
    assert_eq!(ids(&all), [&adas[2], &adas[0], &adas[1]].map(String::clone));
    let running = running.as_str().unwrap();
    assert_eq!(world.admin_post(&front(running), "").await.status, 409);
    assert_eq!(world.admin_post(&front("unknown"), "").await.status, 404);
    assert_eq!(world.admin_post(&front("%00%22"), "").await.status, 404);
    assert_eq!(world.admin_post(&front("%ff"), "").await.status, 400);
    let cancelled = format!("/api/v1/prompts/{}/cancel", adas[0]);
    assert_eq!(world.admin_post(&cancelled, "").await.status, 200);
    let all = world.admin_get("/api/v1/queue").await.json();
    assert_eq!(ids(&all), [&adas[2], &adas[1]].map(String::clone));
    let lines = log.lines(3).await;
    assert_eq!(said(&lines[0]), ("prompt.front", "done"));
    assert_eq!(said(&lines[1]), ("prompt.front", "refused: 409 Conflict"));
    assert_eq!(lines[0]["on"], json!(adas[2]));
    assert!(!log.end().await.contains("\"ada\""));

    assert_eq!(world.post("/interrupt?clientId=ada", "{}").await.status, 200);
    until("all are done", || world.finished() == 3).await;
    let ledger = world.sim("a").ledger();
    assert_eq!(ledger.enqueued[1..], [&adas[2], &adas[1]].map(String::clone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_look_sees_no_ids_and_moves_nothing() {
    let world = World::with(1, |config| {
        waits_unasked(config);
        config.admin.token = Some(Secret::parse("token-of-the-listener").unwrap());
        config.admin.read_token = Some(Secret::parse("token-that-may-only-look").unwrap());
    })
    .await;
    let _socket = busy(&world).await;
    let adas = submit(&world, "ada", 1..2).await;
    let looks = [("authorization", "Bearer token-that-may-only-look")];
    let seen = send(world.admin, Method::GET, "/api/v1/queue", &looks, "").await;
    assert_eq!((seen.status, &seen.json()["waiting"]), (200, &json!(1)));
    assert!(!seen.text().contains(&adas[0]) && !seen.text().contains("\"ada\""), "{}", seen.text());
    let path = format!("/api/v1/queue/{}/front", adas[0]);
    assert_eq!(send(world.admin, Method::POST, &path, &looks, "").await.status, 403);
    assert_eq!(world.admin_get("/api/v1/queue").await.status, 401);
    let page = [("authorization", "Bearer token-of-the-listener"), ("origin", "http://evil.test")];
    assert_eq!(send(world.admin, Method::POST, &path, &page, "").await.status, 403);
}
