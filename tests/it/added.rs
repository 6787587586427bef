//! Backends that operators add, change, drain and remove while the gateway runs.

use http::Method;
use mooring::net::{Network as _, Tcp, now};
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Daemon;
use crate::support::{Answer, World, hosts, network, quick, send, slow, soon, until};

async fn sim(name: &str) -> Sim {
    Sim::start(network(), Options::named(name)).await.unwrap()
}

async fn put(world: &World, name: &str, body: &Value) -> Answer {
    let path = format!("/api/v1/backends/{name}");
    send(world.admin, Method::PUT, &path, &[], &body.to_string()).await
}

async fn delete(world: &World, path: &str) -> Answer {
    let path = format!("/api/v1/backends/{path}");
    send(world.admin, Method::DELETE, &path, &[], "").await
}

async fn has_left(world: &World, name: &str) {
    until("it has left", || world.gateway.shared.fleet.by_name(name).is_none()).await;
}

#[tokio::test]
async fn a_backend_is_added_changed_and_removed() {
    let (world, b) = (World::new(1).await, sim("b").await);
    let added = put(&world, "b", &json!({ "url": b.url() })).await;
    let told = added.json();
    assert_eq!((added.status, told["wanted_by"].as_str()), (201, Some("operator")), "{told}");
    assert_eq!(told["survives_restart"], false, "there is no journal here");
    world.all_up().await;
    let mut ada = world.socket("ada").await;
    let running = world.submit("ada", &slow(30, 1.5)).await;
    let home = running.backend().to_owned();
    let other = if home == "a" { "b" } else { "a" };
    assert_eq!(world.submit("bob", &quick(1)).await.backend(), other);
    let changed = put(&world, "b", &json!({ "url": b.url(), "weight": 7, "max_pending": 9 })).await;
    let told = changed.json();
    assert_eq!(
        (changed.status, &told["weight"], &told["max_pending"]),
        (200, &json!(7), &json!(9))
    );
    let gone = delete(&world, "b").await;
    assert_eq!((gone.status, gone.json()["ran_out"].as_bool()), (202, Some(false)));
    ada.until_end(&running.prompt_id()).await;
    has_left(&world, "b").await;
    assert_eq!(delete(&world, "b").await.status, 404);
    assert_eq!(world.submit("cyd", &quick(2)).await.backend(), "a");
}

#[tokio::test]
async fn what_cannot_be_added_is_refused_and_changes_nothing() {
    let (world, b) = (World::new(1).await, sim("b").await);
    let before =
        world.admin_get("/api/v1/backends").await.json()["backends"].as_array().unwrap().len();
    let a = world.sim("a").url();
    let free = Tcp.listen(([127, 0, 0, 1], 0).into()).await.unwrap().local_addr();
    world.reload(|config| config.server.listen = free).await.unwrap();
    let itself = format!("http://{free}");
    let cases = [
        ("a", json!({ "url": b.url() }), 409, "is in the configuration"),
        ("x", json!({ "url": a }), 422, "is already the backend `a`"),
        ("x", json!({ "url": "gpu" }), 422, "has no scheme"),
        ("x", json!({}), 422, "is missing"),
        ("x", json!({ "url": b.url(), "weight": 0 }), 422, "out of range"),
        ("x", json!({ "url": b.url(), "wieght": 1 }), 422, "did you mean"),
        ("x", json!({ "url": b.url(), "headers": { "X-Key": "s3cret" } }), 422, "PATH"),
        ("x", json!([1]), 422, "JSON object"),
        ("x~y", json!({ "url": b.url() }), 422, "x~y"),
        ("x", json!({ "url": itself }), 422, "this gateway itself"),
    ];
    for (name, body, status, words) in cases {
        let answer = put(&world, name, &body).await;
        let told = answer.text();
        assert_eq!(answer.status, status, "{body}: {told}");
        assert!(told.contains(words) && !told.contains("s3cret"), "{body}: {told}");
    }
    let path = "/api/v1/backends/x";
    assert_eq!(send(world.admin, Method::PUT, path, &[], "{").await.status, 400);
    assert_eq!(delete(&world, "a").await.status, 409);
    assert_eq!(delete(&world, "nobody").await.status, 404);
    let forced = delete(&world, "a?drain=forced").await;
    assert_eq!(forced.status, 400);
    let told = "`drain` is `force`, or a duration such as 10m, and 24h at most";
    assert_eq!(forced.json()["error"], told);
    let after =
        world.admin_get("/api/v1/backends").await.json()["backends"].as_array().unwrap().len();
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_waits_as_long_as_it_is_told_and_force_does_not() {
    let (world, b) = (World::new(1).await, sim("b").await);
    put(&world, "b", &json!({ "url": b.url(), "weight": 100 })).await;
    world.all_up().await;
    let running = world.submit("ada", &slow(200, 20.0)).await;
    assert_eq!(running.backend(), "b", "it has a hundred times the weight");
    let prompt = running.prompt_id();
    let ran_out = delete(&world, "b?drain=100ms").await;
    assert_eq!((ran_out.status, ran_out.json()["ran_out"].as_bool()), (202, Some(true)));
    let shown = world.admin_get("/api/v1/backends").await.json();
    let row =
        shown["backends"].as_array().unwrap().iter().find(|it| it["name"] == "b").unwrap().clone();
    assert_eq!((row["wanted_by"].as_str(), row["held_clients"].as_u64()), (Some("none"), Some(1)));
    assert_eq!(delete(&world, "b?drain=force").await.status, 204);
    let lost = soon("it is told", async {
        loop {
            let entry = world.get(&format!("/history/{prompt}")).await.json();
            if entry[&prompt]["status"]["status_str"] == "error" {
                return true;
            }
        }
    });
    assert!(lost.await);
}

#[tokio::test]
async fn an_added_backend_is_there_after_a_restart_with_what_was_said_of_it() {
    let (a, b, folder) = (sim("a").await, sim("b").await, TempDir::new().unwrap());
    let daemon = Daemon::start(&a, &folder);
    let path = "/api/v1/backends/b";
    let body = json!({ "url": b.url(), "weight": 3 }).to_string();
    let added = send(daemon.admin, Method::PUT, path, &[], &body).await;
    assert_eq!((added.status, &added.json()["survives_restart"]), (201, &json!(true)));
    let json = [("content-type", "application/json")];
    let said = r#"{"state":"draining","by":"ada","why":"new fan"}"#;
    let state = format!("{path}/state");
    assert_eq!(send(daemon.admin, Method::POST, &state, &json, said).await.status, 200);
    daemon.kill();
    let daemon = Daemon::start(&a, &folder);
    let shown = send(daemon.admin, Method::GET, "/api/v1/backends", &[], "").await.json();
    let row = shown["backends"].as_array().unwrap().iter().find(|it| it["name"] == "b").cloned();
    let row = row.expect("it is there");
    assert_eq!((&row["weight"], &row["state"]), (&json!(3), &json!("draining")));
    assert_eq!(row["said"]["why"], "new fan");
    assert_eq!(send(daemon.admin, Method::DELETE, path, &[], "").await.status, 202);
    daemon.kill();
    let daemon = Daemon::start(&a, &folder);
    let shown = send(daemon.admin, Method::GET, "/api/v1/backends", &[], "").await.json();
    assert_eq!(shown["backends"].as_array().unwrap().len(), 1, "{shown}");
}

#[tokio::test]
async fn a_configuration_that_names_an_added_backend_later_wins() {
    let (world, b) = (World::new(1).await, sim("b").await);
    put(&world, "b", &json!({ "url": b.url(), "weight": 5 })).await;
    world.all_up().await;
    let id = world.gateway.shared.fleet.by_name("b").unwrap().id;
    let mut configured = world.gateway.shared.fleet.by_name("b").unwrap().settings();
    configured.weight = std::num::NonZeroU32::MIN;
    world.reload(|config| config.backends.push(configured)).await.unwrap();
    let now = world.gateway.shared.fleet.by_name("b").unwrap();
    assert_eq!((now.id, now.weight().get()), (id, 1), "the same server, as the file has it");
    assert_eq!(delete(&world, "b").await.status, 409);
    world.reload(|config| drop(config.backends.pop())).await.unwrap();
    assert_eq!(world.gateway.shared.fleet.by_name("b").unwrap().weight().get(), 5);
}

#[tokio::test]
async fn a_drain_is_waited_for_and_may_be_taken_back() {
    let world = World::new(2).await;
    let running = world.submit("ada", &slow(20, 1.0)).await;
    let home = running.backend().to_owned();
    let path = |wait: &str| format!("/api/v1/backends/{home}/drain?wait={wait}");
    let soon_over = world.admin_get(&path("10ms")).await;
    assert_eq!((soon_over.status, &soon_over.json()["drained"]), (202, &json!(false)));
    assert_eq!(soon_over.json()["held_clients"], 1);
    let long = path("20s");
    let (drained, ()) = tokio::join!(world.admin_get(&long), async {
        assert_ne!(world.submit("bob", &quick(1)).await.backend(), home, "nobody new comes");
    });
    assert_eq!((drained.status, &drained.json()["drained"]), (200, &json!(true)));
    let state = format!("/api/v1/backends/{home}/state");
    world.admin_post(&state, r#"{"state":"ready"}"#).await;
    assert_eq!(world.submit("ada", &slow(200, 20.0)).await.status, 200);
    assert_eq!(world.admin_get("/api/v1/backends/nobody/drain").await.status, 404);
    assert_eq!(world.admin_get(&path("never")).await.status, 400);
}

#[tokio::test]
async fn what_scales_the_fleet_reads_how_many_are_wanted() {
    let world = World::new(2).await;
    let idle = world.admin_get("/api/v1/scaling").await.json();
    let expected =
        json!({ "pending": 0, "running": 0, "held": 0, "busy": 0, "ready": 2, "wanted": 0 });
    assert_eq!(idle, expected);
    for _ in 0..3 {
        world.submit("ada", &slow(200, 20.0)).await;
    }
    let busy = world.admin_get("/api/v1/scaling?per_backend=2").await.json();
    assert_eq!(
        (&busy["pending"], &busy["held"], &busy["wanted"]),
        (&json!(3), &json!(1), &json!(2))
    );
    for name in ["a", "b"] {
        let state = format!("/api/v1/backends/{name}/state");
        world.admin_post(&state, r#"{"state":"off","force":true}"#).await;
    }
    assert_eq!(world.submit("bob", &quick(1)).await.status, 503);
    let asked = world.admin_get("/api/v1/scaling").await.json();
    assert_eq!((&asked["ready"], &asked["wanted"]), (&json!(0), &json!(1)), "somebody wants one");
    assert_eq!(world.admin_get("/api/v1/scaling?per_backend=0").await.status, 400);
}

/// Exit code and what it printed.
fn mooring(folder: &TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mooring"));
    let done = command.args(arguments).current_dir(folder).env_clear().output().unwrap();
    let text = [done.stdout, done.stderr].concat();
    (done.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_do_what_the_api_does() {
    let (a, b, folder) = (sim("a").await, sim("b").await, TempDir::new().unwrap());
    let daemon = Daemon::start(&a, &folder);
    let admin = format!("http://{}", daemon.admin);
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').chain(["--admin", &admin]).collect();
        mooring(&folder, &words)
    };
    let (code, said) = run(&format!("backends add b {} --weight 2", b.url()));
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run("backends b");
    assert!(code == Some(0) && said.contains(b.url().trim_start_matches("http://")), "{said}");
    let (code, said) = run("backends add c gpu");
    assert!(code == Some(78) && said.contains("has no scheme"), "{said}");
    let (code, said) = run("drain b --wait 10s --why fan");
    assert_eq!((code, said.as_str()), (Some(0), "Drained.\n"));
    let (code, said) = run("backends remove b --drain 10s");
    assert_eq!((code, said.as_str()), (Some(0), "It has left the fleet.\n"));
    let (code, said) = run("backends remove gpu-1");
    assert!(code == Some(1) && said.contains("is in the configuration"), "{said}");
}

/// A picture in a web page is asked for without `Origin`.
#[tokio::test]
async fn no_page_can_drain_a_backend_and_no_look_at_the_head_can() {
    let world = World::new(1).await;
    let path = "/api/v1/backends/a/drain?wait=0s";
    for site in ["cross-site", "same-site", "same-origin"] {
        let headers = [("sec-fetch-site", site)];
        assert_eq!(send(world.admin, Method::GET, path, &headers, "").await.status, 403);
    }
    assert_eq!(send(world.admin, Method::HEAD, path, &[], "").await.status, 405);
    assert_eq!(world.submit("ada", &quick(1)).await.status, 200, "it takes work still");
}

/// The file of an upload lies where it was sent: its prompt is to find it.
#[tokio::test]
async fn a_backend_waits_for_the_prompt_of_an_upload_before_it_leaves() {
    let reservation = std::time::Duration::from_secs(3);
    let world = World::with(2, |config| config.affinity.reservation = reservation).await;
    let body = "--x\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n\
                picture\r\n--x--\r\n";
    let headers = [("content-type", "multipart/form-data; boundary=x")];
    let sent = send(world.front, Method::POST, "/upload/image?clientId=ada", &headers, body).await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    let home = sent.backend().to_owned();
    let waited = world.admin_get(&format!("/api/v1/backends/{home}/drain?wait=300ms")).await;
    assert_eq!((waited.status, &waited.json()["held_clients"]), (202, &json!(1)));
    let waited = world.admin_get(&format!("/api/v1/backends/{home}/drain?wait=20s")).await;
    assert_eq!(waited.status, 200, "the reservation runs out");
}

#[tokio::test]
async fn a_secret_of_a_backend_lies_in_the_folder_for_it() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("key"), "s3cret").unwrap();
    let (dir, b) = (folder.path().to_owned(), sim("b").await);
    let world = World::with(1, |config| config.admin.secrets_dir = Some(dir)).await;
    let with = |file: &str| json!({ "url": b.url(), "headers": { "X-Key": { "file": file } } });
    let inside = folder.path().join("key").display().to_string();
    assert_eq!(put(&world, "b", &with(&inside)).await.status, 201);
    let refused = put(&world, "c", &with("/etc/hostname")).await;
    assert!(refused.status == 422 && refused.text().contains("admin.secrets_dir"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_was_rotated_is_read_again_by_a_reload() {
    let (folder, b) = (TempDir::new().unwrap(), sim("b").await);
    let key = folder.path().join("key");
    std::fs::write(&key, "Bearer one").unwrap();
    b.set_faults(|faults| "Bearer one".clone_into(&mut faults.wants));
    let dir = folder.path().to_owned();
    let world = World::with(1, |config| config.admin.secrets_dir = Some(dir)).await;
    let given = json!({ "url": b.url(), "headers": { "Authorization": { "file": key } } });
    assert_eq!(put(&world, "b", &given).await.status, 201);
    world.all_up().await;
    // Also one that drains has to be let in.
    let state = "/api/v1/backends/a/state";
    assert_eq!(world.admin_post(state, r#"{"state":"draining"}"#).await.status, 200);
    let running = world.submit("ada", &slow(400, 60.0)).await;
    assert_eq!(running.backend(), "b");
    let hears = async |secret: &str| {
        // Asked of the client's own backend each time.
        world.get("/object_info?clientId=ada").await;
        let is_let_in = |seen: &mooring::sim::Seen| {
            seen.headers.get("authorization").is_some_and(|it| it == secret)
        };
        b.requests().iter().any(is_let_in)
    };
    b.set_faults(|faults| "Bearer two".clone_into(&mut faults.wants));
    std::fs::write(&key, "Bearer two").unwrap();
    let told = world.reload(|_| {}).await.unwrap();
    assert_eq!((told.applied, told.warnings), (vec!["backends".to_owned()], Vec::<String>::new()));
    assert!(hears("Bearer two").await);
    assert_eq!(world.reload(|_| {}).await.unwrap().applied, Vec::<String>::new(), "it is the same");
    assert_eq!(delete(&world, "b").await.status, 202);
    b.set_faults(|faults| "Bearer three".clone_into(&mut faults.wants));
    std::fs::write(&key, "Bearer three").unwrap();
    world.reload(|_| {}).await.unwrap();
    assert!(hears("Bearer three").await, "it drains, and has to be asked");
    // One that cannot be read is told, and what was read before is used still.
    std::fs::remove_file(&key).unwrap();
    let told = world.reload(|config| config.affinity.lease *= 2).await.unwrap();
    assert_eq!(told.applied, ["affinity.lease"]);
    assert!(told.warnings[0].contains("backends.b.headers"), "{:?}", told.warnings);
    let shown = world.admin_post("/api/v1/reload", "").await.json();
    assert!(shown["warnings"][0].as_str().unwrap().contains("admin.secrets_dir"), "{shown}");
}

#[tokio::test]
async fn labels_are_shown_wherever_a_backend_is_and_survive_a_restart() {
    let (a, b, folder) = (sim("a").await, sim("b").await, TempDir::new().unwrap());
    let set = ["--set", "backends.gpu-1.labels=small, video"];
    let daemon = Daemon::start_with(&a, &folder, &set);
    let path = "/api/v1/backends/b";
    let body = json!({ "url": b.url(), "labels": ["h100"] }).to_string();
    let added = send(daemon.admin, Method::PUT, path, &[], &body).await;
    assert_eq!((added.status, &added.json()["labels"]), (201, &json!(["h100"])));
    let bad = json!({ "url": b.url(), "labels": ["a b"] }).to_string();
    let refused = send(daemon.admin, Method::PUT, path, &[], &bad).await;
    assert!(refused.status == 422 && refused.text().contains("a label has 1 to 63"));
    daemon.kill();
    let daemon = Daemon::start_with(&a, &folder, &set);
    let shown = send(daemon.admin, Method::GET, "/api/v1/backends", &[], "").await.json();
    let labels = |name: &str| {
        let rows = shown["backends"].as_array().unwrap().iter();
        rows.filter(|it| it["name"] == name).map(|it| it["labels"].clone()).next().unwrap()
    };
    assert_eq!((labels("b"), labels("gpu-1")), (json!(["h100"]), json!(["small", "video"])));
}

#[tokio::test]
async fn an_address_that_leads_back_to_the_gateway_is_never_up() {
    let world = World::with(1, |config| config.server.hosts = hosts(&["0.0.0.0"])).await;
    for (name, host) in [("x", "[::ffff:127.0.0.1]"), ("y", "0.0.0.0"), ("z", "localhost.")] {
        let url = format!("http://{host}:{}", world.front.port());
        let put = put(&world, name, &json!({ "url": url })).await;
        assert_eq!(put.status, 201, "{url}: {}", put.text());
        let backend = world.gateway.shared.fleet.by_name(name).unwrap();
        until("it is known", || {
            let trouble = backend.report(now()).trouble.unwrap_or_default();
            trouble.contains("leads back to this gateway")
        })
        .await;
        assert!(!backend.is_up(), "{url}");
    }
    assert_eq!(world.submit("ada", &quick(1)).await.backend(), "a");
}

#[tokio::test]
async fn what_the_router_itself_refuses_is_told_as_every_other_error() {
    let world = World::new(1).await;
    let long = "x".repeat(3 << 20);
    for (method, path, body, status) in [
        (Method::DELETE, "/api/v1/backends/a?nonsense=1", "", 400),
        (Method::GET, "/api/v1/backends/a/drain?wait=1s&wait=2s", "", 400),
        (Method::GET, "/api/v1/reload", "", 405),
        (Method::POST, "/api/v1/backends/a/state", "state=ready", 400),
        (Method::PUT, "/api/v1/backends/b", long.as_str(), 413),
    ] {
        let answer = send(world.admin, method, path, &[], body).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.json()["error"].as_str().is_some_and(|it| !it.is_empty()), "{path}");
        if status == 405 {
            assert_eq!(answer.header("allow"), "POST");
        }
    }
    let state = r#"{ "state": "draining" }"#;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let set = send(world.admin, Method::POST, "/api/v1/backends/a/state", &form, state).await;
    assert_eq!(set.status, 200, "{}", set.text());
}

/// What operators are shown of it.
async fn row(world: &World, name: &str) -> Value {
    let shown = world.admin_get("/api/v1/backends").await.json();
    let rows = shown["backends"].as_array().unwrap();
    rows.iter().find(|it| it["name"] == name).cloned().unwrap_or_default()
}

/// It drains anyway, and somebody says why it must not come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_of_a_backend_that_is_about_to_leave_holds_when_it_is_wanted_again() {
    let world = World::new(2).await;
    let home = world.submit("ada", &slow(400, 60.0)).await.backend().to_owned();
    let everyone = world.gateway.shared.config().backends.clone();
    world.reload(|config| config.backends.retain(|it| it.name != home)).await.unwrap();
    assert_eq!(row(&world, &home).await["state"], "draining");
    let path = format!("/api/v1/backends/{home}/drain?wait=0s&why=fan");
    assert_eq!(world.admin_get(&path).await.status, 202);
    world.reload(|config| config.backends = everyone).await.unwrap();
    let shown = row(&world, &home).await;
    assert_eq!((&shown["state"], &shown["leaving"]), (&json!("draining"), &Value::Null));
    assert_eq!(shown["said"]["why"], "fan");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_removal_is_told_when_it_is_taken_back() {
    let (world, b) = (World::new(1).await, sim("b").await);
    let given = json!({ "url": b.url(), "weight": 100 });
    put(&world, "b", &given).await;
    world.all_up().await;
    assert_eq!(world.submit("ada", &slow(400, 60.0)).await.backend(), "b");
    let backend = world.gateway.shared.fleet.by_name("b").unwrap();
    let (removed, added) = tokio::join!(soon("an end", delete(&world, "b?drain=10m")), async {
        until("it leaves", || backend.is_going()).await;
        put(&world, "b", &given).await
    });
    assert_eq!((removed.status, added.status), (409, 201), "{}", removed.text());
    assert!(removed.text().contains("wanted again (by operator)"), "{}", removed.text());
    assert_eq!(row(&world, "b").await["state"], "ready");
}

/// A `preStop` hook runs also when a container is restarted in its pod: the same server at the same
/// address, and a new process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_until_a_restart_ends_with_the_process_and_a_persons_does_not() {
    let world = World::new(2).await;
    let drain = async |name: &str, query: &str| {
        let path = format!("/api/v1/backends/{name}/drain?wait=0s{query}");
        world.admin_get(&path).await.status
    };
    assert_eq!(drain("a", "&until=later").await, 400);
    assert_eq!((drain("a", "&until=restart").await, drain("b", "&why=fan").await), (200, 200));
    assert_eq!(drain("b", "&until=restart").await, 200, "it is no more than was said");
    assert_eq!(row(&world, "a").await["said"]["until"], "restart");
    // A hook that is tried again says nothing new: the word that was said first stays.
    assert_eq!(drain("a", "&until=restart&why=again").await, 200);
    assert_eq!(row(&world, "a").await["said"]["why"], Value::Null);
    for name in ["a", "b"] {
        world.sim(name).crash().await;
        world.is_gone(name).await;
        world.sim(name).restart().await.unwrap();
    }
    world.all_up().await;
    let backend = |name: &str| world.gateway.shared.fleet.by_name(name).unwrap();
    until("it takes work", || backend("a").view(now()).serves_new()).await;
    let (a, b) = (row(&world, "a").await, row(&world, "b").await);
    assert_eq!((&a["state"], &a["said"]), (&json!("ready"), &Value::Null));
    assert_eq!((&b["state"], &b["said"]["why"]), (&json!("draining"), &json!("fan")));
}

/// The gateway listens there since the restart.
#[tokio::test]
async fn what_was_added_and_cannot_be_used_after_a_restart_can_be_removed() {
    let (a, folder) = (sim("a").await, TempDir::new().unwrap());
    let free = Tcp.listen(([127, 0, 0, 1], 0).into()).await.unwrap().local_addr().to_string();
    let daemon = Daemon::start(&a, &folder);
    let path = "/api/v1/backends/b";
    let body = json!({ "url": format!("http://{free}") }).to_string();
    assert_eq!(send(daemon.admin, Method::PUT, path, &[], &body).await.status, 201);
    daemon.kill();
    let daemon = Daemon::start_with(&a, &folder, &["--listen", &free]);
    let removed = async |status| {
        let answer = send(daemon.admin, Method::DELETE, path, &[], "").await;
        assert_eq!(answer.status, status, "{}", answer.text());
    };
    removed(204).await;
    removed(404).await;
    daemon.kill();
    let daemon = Daemon::start(&a, &folder);
    let shown = send(daemon.admin, Method::GET, "/api/v1/backends", &[], "").await.json();
    assert_eq!(shown["backends"].as_array().unwrap().len(), 1, "{shown}");
}
