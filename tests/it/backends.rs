//! Backends that drain, die, hang, flap, come back, or are none at all; and resets.

use std::time::Duration;

use mooring::config::OnOff;
use mooring::routing::pending::End;
use mooring::sim::{Faults, Hang, Options, Sim};
use serde_json::json;

use crate::support::{World, network, quick, send, slow, soon, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_backend_keeps_its_held_clients_and_takes_no_new_ones() {
    let world = World::new(2).await;
    let mut socket = world.socket("ada").await;
    let answer = world.submit("ada", &slow(10, 0.4)).await;
    let (home, prompt) = (answer.backend().to_owned(), answer.prompt_id());
    let state = format!("/api/v1/backends/{home}/state");
    assert_eq!(world.admin_post(&state, r#"{"state":"draining"}"#).await.status, 200);
    assert_eq!(world.submit("ada", &quick(1)).await.backend(), home, "held");
    for client in ["bob", "cyd", "dan"] {
        assert_ne!(world.submit(client, &quick(2)).await.backend(), home, "new");
    }
    let report = world.admin_get("/api/v1/backends").await.json();
    let of_home = |report: &serde_json::Value| {
        let backends = report["backends"].as_array().unwrap().clone();
        backends.into_iter().find(|it| it["name"] == home.as_str()).unwrap()
    };
    assert_eq!(of_home(&report)["drained"], false);
    socket.until_end(&prompt).await;
    soon("the idle client moves off", async {
        loop {
            let report = world.admin_get("/api/v1/backends").await.json();
            if of_home(&report)["drained"] == true && of_home(&report)["bound_clients"] == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_with_held_clients_is_taken_off_only_by_force() {
    let world = World::new(2).await;
    let mut socket = world.socket("ada").await;
    let answer = world.submit("ada", &slow(100, 10.0)).await;
    let (home, prompt) = (answer.backend().to_owned(), answer.prompt_id());
    socket.until("progress").await;
    let state = format!("/api/v1/backends/{home}/state");
    let refused = world.admin_post(&state, r#"{"state":"off"}"#).await;
    assert_eq!((refused.status, &refused.json()["held"]), (409, &json!(1)));
    assert_eq!(world.admin_post(&state, r#"{"state":"off","force":true}"#).await.status, 200);
    let seen = socket.until_end(&prompt).await;
    assert_eq!(seen.last().map(String::as_str), Some("executing"));
    assert!(seen.contains(&"execution_error".to_owned()), "{seen:?}");
    let sim = world.sim(&home);
    until("the backend stops working on it", || sim.ledger().interrupted.contains(&prompt)).await;
    assert_ne!(world.submit("ada", &quick(1)).await.backend(), home);
    for wrong in [r#"{"state":"gone"}"#, "{}", "junk"] {
        assert!((400..500).contains(&world.admin_post(&state, wrong).await.status), "{wrong}");
    }
    let unknown = world.admin_post("/api/v1/backends/nope/state", r#"{"state":"ready"}"#).await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_is_safe_unless_it_is_forced() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    let running = world.submit("ada", &slow(100, 10.0)).await.prompt_id();
    let waiting = world.submit("ada", &quick(1)).await.prompt_id();
    socket.until("progress").await;
    let refused = world.post("/-/reset?clientId=ada", "").await;
    assert_eq!((refused.status, refused.header("mooring-error")), (409, "still_pending"));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains('2'));
    let done = world.post("/-/reset?clientId=ada&force=true", "").await;
    assert_eq!((done.status, &done.json()["cut_off"]), (200, &json!(2)));
    for prompt in [&running, &waiting] {
        let seen = socket.until_end(prompt).await;
        assert!(seen.contains(&"execution_error".to_owned()), "{seen:?}");
    }
    let sim = world.sim("a");
    until("the backend stops", || {
        let ledger = sim.ledger();
        ledger.interrupted.contains(&running) && ledger.deleted.contains(&waiting)
    })
    .await;
    let next = world.submit("ada", &quick(3)).await.prompt_id();
    let seen = socket.until_end(&next).await;
    assert!(seen.contains(&"execution_success".to_owned()), "its work goes on: {seen:?}");
    assert_eq!(
        world
            .gateway
            .shared
            .metrics
            .prompts_ended(End::Lost(mooring::routing::pending::Loss::Reset)),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_backend_is_down_its_held_clients_wait_and_others_go_elsewhere() {
    let world = World::new(2).await;
    let _socket = world.socket("ada").await;
    let answer = world.submit("ada", &slow(100, 10.0)).await;
    let (home, prompt) = (answer.backend().to_owned(), answer.prompt_id());
    world.sim(&home).crash().await;
    world.is_down(&home).await;
    let waits = world.get(&format!("/history/{prompt}")).await;
    assert_eq!((waits.status, waits.header("mooring-error")), (503, "backend_down"));
    assert_eq!(waits.header("retry-after"), "2");
    assert!(waits.json()["error"]["message"].is_string());
    // What names no prompt and no file is asked of another.
    let read = world.get("/system_stats?clientId=ada").await;
    assert_eq!(read.status, 200);
    assert_ne!(read.backend(), home);
    assert_eq!(world.submit("ada", &quick(1)).await.status, 503);
    for client in ["bob", "cyd"] {
        let placed = world.submit(client, &quick(2)).await;
        assert_eq!(placed.status, 200);
        assert_ne!(placed.backend(), home);
    }
    let ready = world.admin_get("/readyz").await.json();
    let of_home = ready["backends"].as_array().unwrap().iter().find(|it| it["name"] == home);
    assert!(of_home.unwrap()["trouble"].as_str().unwrap().contains("refused"), "{ready}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_comes_back_without_a_prompt_has_lost_it() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(100, 10.0)).await.prompt_id();
    socket.until("progress").await;
    world.sim("a").crash().await;
    world.is_down("a").await;
    world.sim("a").restart().await.unwrap();
    let error = socket.until("execution_error").await;
    assert_eq!(error["data"]["exception_type"], "mooring.PromptLost");
    let message = error["data"]["exception_message"].as_str().unwrap();
    assert!(message.contains('a') && message.contains("restarted"), "{message}");
    let history = world.get(&format!("/history/{prompt}")).await.json();
    assert_eq!(history[&prompt]["status"]["status_str"], "error", "{history}");
    let next = world.submit("ada", &quick(1)).await.prompt_id();
    socket.until_end(&next).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_stays_away_past_its_grace_has_lost_its_prompts() {
    let world = World::with(2, |config| {
        config.fleet.grace = Duration::from_millis(300);
    })
    .await;
    let mut socket = world.socket("ada").await;
    let answer = world.submit("ada", &slow(100, 10.0)).await;
    let home = answer.backend().to_owned();
    socket.until("progress").await;
    world.sim(&home).crash().await;
    socket.until_end(&answer.prompt_id()).await;
    let next = world.submit("ada", &quick(1)).await;
    assert_ne!(next.backend(), home, "released, and placed elsewhere");
    socket.until_end(&next.prompt_id()).await;
}

/// P6: what still waits on a backend that comes back after its grace is deleted there; what has
/// ended meanwhile is told by the history as it is, and by no late event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_returns_with_what_was_given_up_is_told_apart() {
    let world = World::with(2, |config| {
        config.fleet.grace = Duration::from_millis(300);
        config.fleet.probe_interval = Duration::from_millis(50);
        config.fleet.patience = Duration::from_millis(100);
        config.fleet.probe_timeout = Duration::from_millis(200);
    })
    .await;
    let mut socket = world.socket("ada").await;
    let answer = world.submit("ada", &slow(30, 1.5)).await;
    let (runs, home) = (answer.prompt_id(), answer.backend().to_owned());
    socket.until("progress").await;
    let next_there = world.submit("ada", &slow(30, 600.0)).await.prompt_id();
    let waits = world.submit("ada", &quick(2)).await.prompt_id();
    let away = |faults: &mut Faults| {
        faults.hang = Hang::All;
        faults.mute_sockets = true;
    };
    world.sim(&home).set_faults(away);
    for prompt in [&runs, &next_there, &waits] {
        let told = socket.until_end(prompt).await;
        assert!(told.contains(&"execution_error".to_owned()), "{told:?}");
    }
    let next = world.submit("ada", &quick(3)).await;
    assert_ne!(next.backend(), home, "released");
    let sim = world.sim(&home);
    until("what ran has ended", || sim.ledger().finished.contains(&runs)).await;
    sim.set_faults(|faults| *faults = Faults::default());
    until("what waited is deleted there", || sim.ledger().deleted.contains(&waits)).await;
    let corrected = &world.gateway.shared.metrics.prompts_corrected;
    until("what had ended is told", || corrected.get() == 1).await;
    let status = async |prompt: &str| {
        let entry = world.get(&format!("/history/{prompt}")).await.json();
        entry[prompt]["status"]["status_str"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(status(&runs).await, "success");
    assert_eq!(status(&waits).await, "error", "it was deleted, so it stays lost");
    assert!(sim.ledger().interrupted.is_empty(), "what runs goes on");
    let body = format!("{{\"prompt_id\": \"{next_there}\"}}");
    send(sim.addr(), http::Method::POST, "/interrupt", &[], &body).await;
    until("and is told when it ends", || corrected.get() == 2).await;
    let last = world.submit("ada", &quick(4)).await.prompt_id();
    let mut heard = Vec::new();
    while heard.last().is_none_or(|it| *it != last) {
        let event = socket.event().await;
        if event["type"] == "executing" && event["data"]["node"].is_null() {
            heard.push(event["data"]["prompt_id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(heard, [next.prompt_id(), last], "and no late event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flapping_backend_moves_no_held_client() {
    let world = World::new(2).await;
    let mut socket = world.socket("ada").await;
    let home = world.submit("ada", &quick(1)).await.backend().to_owned();
    let other = world.sims.iter().find(|sim| sim.name() != home).unwrap();
    let prompt = world.submit("ada", &slow(30, 0.9)).await;
    let home = prompt.backend().to_owned();
    for _ in 0..5 {
        if other.name() != home {
            other.crash().await;
            world.is_down(other.name()).await;
            other.restart().await.unwrap();
            world.all_up().await;
        }
        assert_eq!(world.get("/queue?clientId=ada").await.backend(), home);
    }
    let seen = socket.until_end(&prompt.prompt_id()).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_backend_is_noticed_and_forgiven() {
    let world = World::with(2, |config| {
        config.fleet.probe_interval = Duration::from_millis(50);
        config.fleet.patience = Duration::from_millis(100);
        config.fleet.probe_timeout = Duration::from_millis(200);
    })
    .await;
    world.sim("a").set_faults(|faults| {
        faults.hang = Hang::All;
        faults.mute_sockets = true;
    });
    world.is_down("a").await;
    for client in ["x", "y", "z"] {
        assert_eq!(world.submit(client, &quick(1)).await.backend(), "b");
    }
    world.sim("a").set_faults(|faults| *faults = Faults::default());
    world.all_up().await;
}

/// A stopped process keeps its connections and says nothing on them. Reads of both ways are in
/// flight when it is seen to be down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_backend_that_goes_down_is_told_so_at_once() {
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = World::with(1, |config| {
            config.server.passthrough = passthrough;
            config.fleet.probe_interval = Duration::from_millis(50);
            config.fleet.patience = Duration::from_millis(100);
            config.fleet.probe_timeout = Duration::from_millis(500);
        })
        .await;
        world.all_up().await;
        world.sim("a").set_faults(|faults| {
            faults.hang = Hang::All;
            faults.mute_sockets = true;
        });
        let asked = [
            (http::Method::GET, "/pack/one"),
            (http::Method::GET, "/pack/two?filename=x"),
            (http::Method::HEAD, "/pack/three"),
            (http::Method::GET, "/system_stats"),
        ];
        let answers = asked.map(|(method, path)| send(world.front, method, path, &[], ""));
        let handshake = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let tunnel = send(world.front, http::Method::GET, "/pack/socket", &handshake, "");
        let (mut answers, tunnel) =
            tokio::join!(futures_util::future::join_all(answers), soon("its end", tunnel));
        answers.push(tunnel);
        let backend = world.gateway.shared.fleet.by_name("a").unwrap();
        assert!(!backend.is_up(), "it hangs still");
        for answer in &answers {
            let code = answer.header("mooring-error");
            let is_told = matches!(code, "backend_lost" | "backend_down" | "no_backend");
            assert!(is_told, "{}: {}", answer.status, answer.text());
        }
        let codes: Vec<_> = answers.iter().map(|it| it.header("mooring-error")).collect();
        assert!(codes.contains(&"backend_lost"), "some were in flight: {codes:?}");
    }
}

/// The handler of a node pack that keeps ComfyUI's event loop busy. Who is told that it is lost
/// asks again, and has it done twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_gets_its_answer_though_its_backend_looks_down_meanwhile() {
    let world = World::with(1, |config| {
        config.fleet.probe_interval = Duration::from_millis(50);
        config.fleet.patience = Duration::from_millis(100);
        config.fleet.probe_timeout = Duration::from_millis(200);
    })
    .await;
    world.all_up().await;
    world.sim("a").set_faults(|faults| {
        faults.hashes = true;
        faults.mute_sockets = true;
    });
    let posted = send(world.front, http::Method::POST, "/pack/x", &[], "");
    let goes_on = async {
        world.is_down("a").await;
        world.sim("a").set_faults(|faults| *faults = Faults::default());
    };
    let (answer, ()) = tokio::join!(posted, goes_on);
    assert_eq!((answer.status, answer.backend()), (405, "a"), "{}", answer.text());
    let posts = world.sim("a").requests().into_iter().filter(|it| it.target == "/pack/x");
    assert_eq!(posts.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_are_no_comfyui_are_named_and_not_hammered() {
    let junk = Sim::start(network(), Options::named("junk")).await.unwrap();
    junk.set_faults(|faults| faults.junk = true);
    let old = Options { version: "0.3.44".to_owned(), ..Options::named("old") };
    let old = Sim::start(network(), old).await.unwrap();
    let gone = Sim::start(network(), Options::named("gone")).await.unwrap();
    gone.crash().await;
    let world = World::over(vec![junk, old, gone], |_| {}).await;
    // A start waits for that too, but not for long.
    for backend in world.gateway.shared.fleet.iter() {
        soon("it has been asked", backend.was_probed()).await;
    }
    let ready = world.admin_get("/readyz").await;
    assert_eq!(ready.status, 503);
    let trouble = |name: &str| {
        let backends = ready.json()["backends"].as_array().unwrap().clone();
        let of = backends.into_iter().find(|it| it["name"] == name).unwrap();
        of["trouble"].as_str().unwrap().to_owned()
    };
    assert!(trouble("junk").contains("is this a ComfyUI?"), "{}", trouble("junk"));
    assert!(trouble("old").contains("prompt ids need 0.3.45 or newer"), "{}", trouble("old"));
    assert!(trouble("gone").contains("cannot connect"), "{}", trouble("gone"));
    let refused = world.submit("ada", &quick(1)).await;
    assert_eq!((refused.status, refused.header("mooring-error")), (503, "no_backend"));
    let seen = world.sim("junk").requests().len();
    assert!(seen < 20, "{seen} attempts already");
    // A socket is answered all the same, and works once there is a place.
    let mut socket = world.socket("ada").await;
    socket.until("status").await;
    world.sim("gone").restart().await.unwrap();
    soon("the client finds its place", async {
        while world.submit("ada", &quick(2)).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    socket.until("execution_success").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_and_the_prompt_that_uses_it_go_together() {
    let world = World::new(3).await;
    let boundary = [("content-type", "multipart/form-data; boundary=x")];
    let picture = "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"in.png\"\r\n\
        Content-Type: image/png\r\n\r\nnot really\r\n--x--\r\n";
    let path = "/upload/image?clientId=ada";
    let stored = send(world.front, http::Method::POST, path, &boundary, picture);
    let stored = stored.await;
    assert_eq!(stored.json()["name"], "in.png");
    // The others are emptier now, and still the prompt goes to its picture.
    let busy = stored.backend().to_owned();
    let who = world.get("/-/whoami?clientId=ada").await.json();
    assert_eq!(who["client"]["binding"], "reserved");
    let answer = world.submit("ada", &quick(1)).await;
    assert_eq!((answer.backend(), answer.header("mooring-placement")), (&*busy, "reserved"));

    let nameless = send(world.front, http::Method::POST, "/upload/image", &boundary, picture).await;
    assert_eq!(nameless.status, 200);
}

/// A reset while a submission is on its way: told to be lost, it must not run all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_was_reset_on_its_way_is_called_back() {
    let world = World::new(1).await;
    let sim = world.sim("a");
    let mut socket = world.socket("ada").await;
    let first = world.submit("ada", &quick(1)).await.prompt_id();
    socket.until_end(&first).await;
    let submitted = || sim.requests().iter().filter(|it| it.target == "/prompt?late").count();

    sim.set_faults(|faults| faults.latency_ms = 500);
    let late = "11111111-2222-4333-8444-555555555555";
    let body = json!({ "client_id": "ada", "prompt_id": late, "prompt": slow(100, 10.0) });
    let body = body.to_string();
    let submitting = world.post("/prompt?late", &body);
    let resetting = async {
        until("the backend reads it", || submitted() == 1).await;
        // What the reset asks for comes before the prompt is queued, and finds nothing.
        sim.set_faults(|faults| faults.latency_ms = 0);
        let reset = world.post("/-/reset?clientId=ada&force=true", "").await;
        assert_eq!(reset.json()["cut_off"], 1);
    };
    let (answer, ()) = tokio::join!(submitting, resetting);
    assert_eq!(answer.status, 200, "it was queued, and that is the truth");
    until("it is stopped", || {
        let ledger = sim.ledger();
        [ledger.interrupted, ledger.deleted].iter().flatten().any(|it| it == late)
    })
    .await;
}
