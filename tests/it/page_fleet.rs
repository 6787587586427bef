//! `GET /-/fleet`: what the line on the page shows of one's jobs and of the servers.

use http::Method;
use mooring::config::{AuthMode, BasePath, Config, OnOff};
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::support::{World, network, send, slow, soon, until};
use crate::waiting::{takes, waits_unasked};

const LONG: f64 = 60.0;

async fn fleet(world: &World, client: &str) -> Value {
    world.get(&format!("/-/fleet?clientId={client}")).await.json()
}

fn names(told: &Value) -> Vec<&str> {
    let servers = told["servers"].as_array().unwrap();
    servers.iter().map(|server| server["name"].as_str().unwrap()).collect()
}

fn is_queued_at(world: &World, backend: &str, prompt: &str) -> bool {
    world.sim(backend).ledger().enqueued.iter().any(|it| it == prompt)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ones_own_jobs_are_told_with_their_place_and_others_are_only_counted() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut socket = world.socket("stranger").await;
    let theirs = world.submit("stranger", &slow(100, LONG)).await.prompt_id();
    socket.until("execution_start").await;
    let second = world.submit("stranger", &slow(101, LONG)).await.prompt_id();
    let mine = world.submit("ada", &slow(102, LONG)).await.prompt_id();
    let later = world.submit("ada", &slow(103, LONG)).await.prompt_id();
    until("all are there", || is_queued_at(&world, "a", &later)).await;
    let answer = world.get("/-/fleet?clientId=ada").await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
    assert_eq!(
        answer.json(),
        json!({
            "servers": [{ "name": "a", "state": "busy", "planned": false, "yours": true }],
            "jobs": [
                { "id": mine, "server": "a", "state": "queued", "before": 2 },
                { "id": later, "server": "a", "state": "queued", "before": 3 },
            ],
            "pending": 2,
            "waiting": null,
        })
    );
    let text = answer.text();
    for secret in [&*theirs, &*second, "stranger", "ada", "127.0.0.1"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let told = fleet(&world, "stranger").await;
    let first = json!({ "id": theirs, "server": "a", "state": "running", "before": null });
    assert_eq!(told["jobs"][0], first, "what runs comes first: {told}");
    assert_eq!(told["jobs"][1]["before"], 1, "{told}");

    let nobody = world.get("/-/fleet").await.json();
    assert_eq!((&nobody["jobs"], &nobody["pending"]), (&json!([]), &json!(0)));
    assert_eq!(nobody["servers"][0]["yours"], false, "{nobody}");
    let unknown = fleet(&world, "nobody-knows-me").await;
    assert_eq!(unknown["jobs"], json!([]));
}

/// A page that waits asks again and again; its server is asked for its queue now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_ask_again_and_again_share_one_reading_of_a_queue() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut socket = world.socket("ada").await;
    world.submit("ada", &slow(100, LONG)).await;
    socket.until("execution_start").await;
    let mine = world.submit("ada", &slow(101, LONG)).await.prompt_id();
    until("it is there", || is_queued_at(&world, "a", &mine)).await;
    let readings = || world.sim("a").requests().iter().filter(|it| it.target == "/queue").count();
    let before = readings();
    for _ in 0..20 {
        assert_eq!(fleet(&world, "ada").await["jobs"][1]["before"], 1);
    }
    // The gateway itself also reads it, to find ends.
    let asked = readings() - before;
    assert!(asked < 10, "{asked} readings for 20 questions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_free_busy_or_away_and_planned_work_is_said() {
    let world = World::new(3).await;
    world.all_up().await;
    let drained = world.admin_post("/api/v1/backends/b/state", r#"{"state":"draining"}"#).await;
    assert_eq!(drained.status, 200, "{}", drained.text());
    world.sim("c").crash().await;
    world.is_down("c").await;
    let told = fleet(&world, "ada").await;
    let of = |place: usize| {
        let server = &told["servers"][place];
        (server["name"].as_str().unwrap(), server["state"].as_str().unwrap(), &server["planned"])
    };
    assert_eq!(of(0), ("a", "free", &json!(false)));
    assert_eq!(of(1), ("b", "free", &json!(true)));
    assert_eq!(of(2), ("c", "away", &json!(false)));
    let off = world.admin_post("/api/v1/backends/b/state", r#"{"state":"off"}"#).await;
    assert_eq!(off.status, 200, "{}", off.text());
    let server = fleet(&world, "ada").await["servers"][1].clone();
    assert_eq!((&server["state"], &server["planned"]), (&json!("away"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_asked_is_told_when_the_servers_change_and_no_other_socket_is() {
    let world = World::new(2).await;
    world.all_up().await;
    let mut page = world.socket("page").await;
    let mut script = world.socket("script").await;
    for socket in [&mut page, &mut script] {
        socket.until("status").await;
    }
    assert_eq!(names(&fleet(&world, "page").await), ["a", "b"]);
    let state = |state: &str| json!({ "state": state }).to_string();
    for (wanted, is_planned) in [("draining", true), ("ready", false)] {
        world.admin_post("/api/v1/backends/b/state", &state(wanted)).await;
        let told = soon("the page is told", page.until("mooring.servers")).await;
        assert_eq!(told["data"], json!({}));
        assert_eq!(fleet(&world, "page").await["servers"][1]["planned"], is_planned);
    }
    world.sim("b").crash().await;
    soon("the page is told", page.until("mooring.servers")).await;
    assert_eq!(fleet(&world, "page").await["servers"][1]["state"], "away");
    // What comes to the script after all of this was not preceded by it.
    world.submit("script", &slow(2, 0.01)).await;
    loop {
        let event = soon("the job of the script", script.event()).await;
        assert_ne!(event["type"], "mooring.servers");
        if event["type"] == "execution_success" {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_gateway_has_no_server_yet() {
    let world = World::with(1, waits_unasked).await;
    world.all_up().await;
    let mut socket = world.socket("ada").await;
    world.submit("ada", &takes(LONG, 0)).await;
    socket.until("execution_start").await;
    for seed in 1..5 {
        world.submit("ada", &takes(LONG, seed)).await;
    }
    // One may be on its way while it is looked at.
    let waits = soon("the others wait", async {
        loop {
            let told = fleet(&world, "ada").await;
            let jobs = told["jobs"].as_array().unwrap().iter();
            let waits: Vec<Value> = jobs.filter(|it| it["state"] == "waiting").cloned().collect();
            if told["pending"] == 5 && told["waiting"] == waits.len() && 3 <= waits.len() {
                break waits;
            }
        }
    })
    .await;
    for job in waits {
        assert_eq!((&job["server"], &job["before"]), (&Value::Null, &Value::Null), "{job}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_name_is_told_by_its_place() {
    let world = World::new(1).await;
    world.all_up().await;
    let other = Sim::start(network(), Options::named("other")).await.unwrap();
    let authority = other.addr().to_string();
    let body = json!({ "url": other.url() }).to_string();
    let json = [("content-type", "application/json")];
    let path = format!("/api/v1/backends/{authority}");
    let added = send(world.admin, Method::PUT, &path, &json, &body).await;
    assert_eq!(added.status, 201, "{}", added.text());
    let text = world.get("/-/fleet").await.text();
    assert!(text.contains("\"server ") && !text.contains("127.0.0.1"), "{text}");
}

/// Where it is off, and for whom nothing is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_be_turned_off_and_refuses_what_is_no_question() {
    let world = World::new(1).await;
    assert_eq!(world.post("/-/fleet", "{}").await.status, 405);
    let long = "x".repeat(2000);
    assert_eq!(world.get(&format!("/-/fleet?clientId={long}")).await.status, 400);
    for odd in ["/-/fleet?clientId=", "/-/fleet?x=%ff", "/-/fleet?clientId=a&clientId=a"] {
        assert_eq!(world.get(odd).await.status, 200, "{odd}");
    }
    assert_eq!(world.get("/-/fleet/").await.status, 404);
    let foreign = [("origin", "https://other.example"), ("sec-fetch-site", "cross-site")];
    assert_eq!(send(world.front, Method::GET, "/-/fleet", &foreign, "").await.status, 403);
    let page = world.get("/").await.text();
    assert_eq!(page.matches("<script src=\"./-/page").count(), 2, "{page}");

    world.reload(|config| config.server.page_extension = OnOff::Off).await.unwrap();
    for path in ["/-/fleet", "/-/page_extension.js"] {
        assert_eq!(world.get(path).await.status, 404, "{path}");
    }
    assert_eq!(world.get("/-/page.js").await.status, 200);
    let page = world.get("/").await.text();
    assert_eq!(page.matches("<script src=\"./-/page").count(), 1, "{page}");
    let off = |config: &mut Config| {
        config.server.page_extension = OnOff::On;
        config.server.page_script = OnOff::Off;
    };
    world.reload(off).await.unwrap();
    for path in ["/-/fleet", "/-/page_extension.js", "/-/page.js"] {
        assert_eq!(world.get(path).await.status, 404, "without page.js no tab is anybody: {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_sees_nothing_of_anothers_jobs_and_a_stranger_nothing_at_all() {
    let world = World::with(1, |config| {
        config.auth.mode = AuthMode::Header;
        config.auth.header = Some("x-forwarded-user".parse().unwrap());
        config.server.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        config.server.base_path = BasePath::parse("/comfy/").unwrap();
    })
    .await;
    world.all_up().await;
    let front = world.front;
    let ask = |user: &'static str| async move {
        let user = [("x-forwarded-user", user)];
        send(front, Method::GET, "/comfy/-/fleet?clientId=tab", &user, "").await.json()
    };
    let body = json!({ "client_id": "tab", "prompt": slow(100, LONG) }).to_string();
    let ada = [
        ("x-forwarded-user", "ada"),
        ("content-type", "application/json"),
        ("sec-fetch-site", "same-origin"),
    ];
    let made = send(front, Method::POST, "/comfy/prompt", &ada, &body).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let told = ask("ada").await;
    assert_eq!((&told["pending"], &told["servers"][0]["yours"]), (&json!(1), &json!(true)));
    let told = ask("bob").await;
    assert_eq!((&told["pending"], &told["servers"][0]["yours"]), (&json!(0), &json!(false)));
    let nobody = send(front, Method::GET, "/comfy/-/fleet?clientId=tab", &[], "").await;
    assert_eq!(nobody.status, 401, "{}", nobody.text());
    let beside = [("x-forwarded-user", "ada")];
    let beside = send(front, Method::GET, "/-/fleet?clientId=tab", &beside, "").await;
    assert_eq!(beside.status, 404, "it is below the path");
}
