//! How prompts end, and who is told: deleted, interrupted, refused, lost; and with events that
//! were lost or doubled.

use std::time::Duration;

use mooring::net::now;
use mooring::routing::pending::{End, Loss};
use mooring::sim::{Hang, Options, Sim, SubmitFault};
use serde_json::json;

use crate::support::{World, fraction, network, quick, slow, soon, until};

/// All that a backend says of a prompt.
fn all_events() -> Vec<String> {
    let all = [
        "execution_start",
        "execution_cached",
        "executing",
        "executed",
        "execution_success",
        "progress_state",
    ];
    all.iter().map(|it| (*it).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_deleted_while_it_waits_is_told_to_be_over() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    let running = world.submit("ada", &slow(20, 0.6)).await.prompt_id();
    let waiting = world.submit("ada", &quick(1)).await.prompt_id();
    let body = json!({ "delete": [waiting] }).to_string();
    assert_eq!(world.post("/queue?clientId=ada", &body).await.status, 200);
    let seen = socket.until_end(&waiting).await;
    assert_eq!(seen, ["execution_interrupted", "executing"]);
    socket.until_end(&running).await;
    assert_eq!(world.gateway.shared.metrics.prompts_ended(End::Deleted), 1);
}

/// Who asked does not wait for the answer, and the backend has done what it was asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_whose_answer_never_comes_is_a_deletion() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    let running = world.submit("ada", &slow(100, 20.0)).await.prompt_id();
    let waiting = world.submit("ada", &quick(1)).await.prompt_id();
    world.sim("a").set_faults(|faults| faults.hang = Hang::AfterQueue);
    let body = json!({ "delete": [waiting] }).to_string();
    let seen = tokio::select! {
        answer = world.post("/queue?clientId=ada", &body) => panic!("answered {}", answer.status),
        seen = socket.until_end(&waiting) => seen,
    };
    assert_eq!(seen, ["execution_interrupted", "executing"]);
    assert_eq!(world.gateway.shared.metrics.prompts_ended(End::Deleted), 1);
    assert_eq!(world.post("/interrupt?clientId=ada", "").await.status, 200);
    socket.until_end(&running).await;
}

/// A server that cannot cancel in one step is asked for its queue first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_is_carried_out_though_its_asker_hangs_up_in_the_middle() {
    let options = Options { version: "0.3.64".to_owned(), ..Options::named("a") };
    let sim = Sim::start(network(), options).await.unwrap();
    let world = World::over(vec![sim], |_| {}).await;
    let mut socket = world.socket("ada").await;
    let running = world.submit("ada", &slow(100, 20.0)).await.prompt_id();
    let waiting = world.submit("ada", &quick(1)).await.prompt_id();
    let looks = || {
        let seen = world.sim("a").requests();
        seen.iter().filter(|seen| seen.target.ends_with("/queue")).count()
    };
    let before = looks();
    world.sim("a").set_faults(|faults| faults.latency_ms = 500);
    let path = format!("/api/jobs/{waiting}/cancel?clientId=ada");
    tokio::select! {
        answer = world.post(&path, "") => panic!("answered {}", answer.status),
        () = until("its queue is read", || before < looks()) => {}
    }
    let seen = socket.until_end(&waiting).await;
    assert_eq!(seen, ["execution_interrupted", "executing"]);
    assert_eq!(world.gateway.shared.metrics.prompts_ended(End::Deleted), 1);
    world.sim("a").set_faults(|faults| faults.latency_ms = 0);
    assert_eq!(world.post("/interrupt?clientId=ada", "").await.status, 200);
    socket.until_end(&running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_prompt_is_interrupted_by_its_own_client() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(100, 10.0)).await.prompt_id();
    socket.until("progress").await;
    assert_eq!(world.post("/interrupt?clientId=ada", "").await.status, 200);
    let seen = socket.until_end(&prompt).await;
    assert!(seen.contains(&"execution_interrupted".to_owned()), "{seen:?}");
    assert_eq!(world.gateway.shared.metrics.prompts_ended(End::Interrupted), 1);
}

/// T109.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_clients_verbs_never_touch_anothers_prompts() {
    let world = World::new(1).await;
    let mut ada = world.socket("ada").await;
    let _bob = world.socket("bob").await;
    let running = world.submit("ada", &slow(20, 0.4)).await.prompt_id();
    let waiting = world.submit("ada", &quick(5)).await.prompt_id();
    ada.until("progress").await;
    let named = json!({ "prompt_id": running }).to_string();
    let delete = json!({ "delete": [waiting] }).to_string();
    for (path, body) in [
        ("/interrupt?clientId=bob", ""),
        ("/interrupt?clientId=bob", named.as_str()),
        ("/queue?clientId=bob", r#"{"clear": true}"#),
        ("/queue?clientId=bob", delete.as_str()),
        ("/history?clientId=bob", r#"{"clear": true}"#),
    ] {
        assert_eq!(world.post(path, body).await.status, 200, "{path} {body}");
    }
    let cancel = format!("/api/jobs/{running}/cancel?clientId=bob");
    assert_eq!(world.post(&cancel, "").await.json(), json!({ "cancelled": false }));
    for prompt in [&running, &waiting] {
        let seen = ada.until_end(prompt).await;
        assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
    }
    for path in ["/interrupt", "/queue", "/history"] {
        let bare = world.post(path, r#"{"clear": true}"#).await;
        assert_eq!((bare.status, bare.header("mooring-error")), (403, "nameless"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_cancelled_on_servers_that_cannot() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    let running = world.submit("ada", &slow(100, 10.0)).await.prompt_id();
    let waiting = world.submit("ada", &quick(5)).await.prompt_id();
    socket.until("progress").await;
    let body = json!({ "job_ids": [waiting] }).to_string();
    let cancelled = json!({ "cancelled": true });
    assert_eq!(world.post("/api/jobs/cancel?clientId=ada", &body).await.json(), cancelled);
    socket.until_end(&waiting).await;
    let path = format!("/api/jobs/{running}/cancel?clientId=ada");
    assert_eq!(world.post(&path, "").await.json(), cancelled);
    socket.until_end(&running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_prompt_leaves_no_trace() {
    let world = World::new(1).await;
    let mine = "11111111-2222-4333-8444-555555555555";
    let graph = json!({ "1": { "class_type": "NoSuchNode", "inputs": {} } });
    let body = json!({ "client_id": "ada", "prompt_id": mine, "prompt": graph }).to_string();
    let refused = world.post("/prompt", &body).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["error"]["type"], "missing_node_type", "passed on unchanged");
    let who = world.get("/-/whoami?clientId=ada").await.json();
    assert_eq!((&who["client"]["pending"], &who["client"]["binding"]), (&json!(0), &json!("idle")));
    let body = json!({ "client_id": "ada", "prompt_id": mine, "prompt": quick(1) }).to_string();
    assert_eq!(world.post("/prompt", &body).await.prompt_id(), mine, "the id is free again");
    let again = world.post("/prompt", &body).await;
    assert_eq!((again.status, again.header("mooring-error")), (400, "prompt_id_known"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_a_backend_never_reaches_one() {
    let world = World::new(1).await;
    for body in [
        r#"{"prompt":{},"client_id":["x"]}"#,
        r#"{"prompt":{},"client_id":{"x":1}}"#,
        r#"{"prompt":{},"number":NaN}"#,
        r#"{"prompt":{"1":{"x":1e999}}}"#,
        r#"{"prompt":null}"#,
        r#"{"prompt":{},"prompt_id":"\u0007"}"#,
        "not json",
        "",
    ] {
        let refused = world.post("/prompt", body).await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(refused.json()["error"]["type"].is_string(), "{body}");
    }
    let submissions = world.sim("a").requests().iter().filter(|it| it.method == "POST").count();
    assert_eq!(submissions, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_without_a_client_gets_one() {
    let world = World::new(2).await;
    let body = json!({ "prompt": quick(1) }).to_string();
    let answer = world.post("/prompt", &body).await;
    let (backend, prompt) = (world.sim(answer.backend()).addr(), answer.prompt_id());
    let path = format!("/history/{prompt}");
    let entry = async {
        loop {
            let history = world.get(&path).await.json();
            if let Some(entry) = history.get(&prompt) {
                return entry.clone();
            }
        }
    };
    let entry = soon("its history", entry).await;
    // Nobody is told of it but the backend.
    assert_eq!(entry["prompt"][3].get("client_id"), None);
    let there = crate::support::send(backend, http::Method::GET, &path, &[], "").await.json();
    assert_eq!(there[&prompt]["prompt"][3]["client_id"].as_str().unwrap().len(), 32);
    assert!(entry["outputs"]["3"]["images"][0]["filename"].is_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_whose_events_are_lost_are_found_by_asking() {
    let world = World::with(1, |config| {
        config.prompts.silent_after = Duration::from_millis(300);
    })
    .await;
    let mut socket = world.socket("ada").await;
    world.sim("a").set_faults(|faults| faults.drop_events = all_events());
    let prompt = world.submit("ada", &quick(1)).await.prompt_id();
    let seen = socket.until_end(&prompt).await;
    let expected =
        ["execution_start", "execution_cached", "executed", "execution_success", "executing"];
    assert_eq!(seen, expected, "made up from the history");
}

/// What is asked of a backend is asked by its own task, for two seconds a round at most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slow_backend_delays_the_ends_of_no_other() {
    let world = World::with(8, |config| {
        config.prompts.silent_after = Duration::from_secs(1);
    })
    .await;
    world.all_up().await;
    let (mut last, mut slow) = (None, 0);
    for client in ["p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8"] {
        for sim in &world.sims {
            sim.set_faults(|faults| faults.drop_events = all_events());
        }
        let socket = world.socket(client).await;
        let answer = world.submit(client, &quick(1)).await;
        match answer.backend() {
            "h" => last = Some((socket, answer.prompt_id())),
            other => {
                world.sim(other).set_faults(|faults| faults.latency_ms = 60_000);
                slow += 1;
            }
        }
    }
    let (mut socket, prompt) = last.expect("one of them is on the last backend");
    assert_eq!(slow, 7, "each is on a backend of its own");
    let since = now();
    socket.until_end(&prompt).await;
    // One after the other, those before it would take two seconds each.
    let waited = now().duration_since(since);
    assert!(waited < Duration::from_secs(2 * 7 - 1), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_word_that_never_comes_holds_nobody() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    world.sim("a").set_faults(|faults| faults.no_last_word = true);
    let prompt = world.submit("ada", &quick(1)).await.prompt_id();
    let seen = socket.until_end(&prompt).await;
    assert_eq!(seen.iter().filter(|it| *it == "execution_success").count(), 1, "{seen:?}");
    assert_eq!(seen.iter().filter(|it| *it == "executed").count(), 1, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubled_ends_end_a_prompt_once() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    world.sim("a").set_faults(|faults| {
        faults.double_events = vec!["execution_success".to_owned(), "executing".to_owned()];
    });
    for color in 0..5 {
        let prompt = world.submit("ada", &quick(color)).await.prompt_id();
        socket.until_end(&prompt).await;
    }
    assert_eq!(world.gateway.shared.metrics.prompts_ended(End::Succeeded), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_there_when_the_end_is_told() {
    let world = World::new(1).await;
    let mut socket = world.socket("ada").await;
    world.sim("a").set_faults(|faults| faults.history_delay_ms = 100);
    for color in 0..3 {
        let prompt = world.submit("ada", &quick(color)).await.prompt_id();
        socket.until("execution_success").await;
        let history = world.get(&format!("/history/{prompt}")).await.json();
        assert_eq!(history[&prompt]["status"]["completed"], true, "{history}");
    }
}

/// T59, as far as the answer goes: what the client is told is what the backend did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_submission_is_true_whatever_became_of_its_own() {
    let rounds = fraction("rounds of every submit fault", 10, 1);
    let world = World::new(1).await;
    let _socket = world.socket("ada").await;
    let sim = world.sim("a");
    for _ in 0..rounds {
        for (fault, is_taken) in [
            (SubmitFault::ResetBeforeEnqueue, false),
            (SubmitFault::ResetAfterEnqueue, true),
            (SubmitFault::CutAnswer, true),
            (SubmitFault::Error500Enqueued, true),
            (SubmitFault::Error500NotEnqueued, false),
            (SubmitFault::BadGateway, false),
        ] {
            sim.set_faults(|faults| (faults.submit, faults.submit_count) = (fault, 1));
            let id = mooring::net::new_id().to_string();
            let body = json!({ "client_id": "ada", "prompt_id": id, "prompt": quick(1) });
            let answer = world.post("/prompt", &body.to_string()).await;
            let executed = || sim.ledger().executed.get(&id).copied().unwrap_or(0);
            if is_taken {
                assert_eq!(answer.prompt_id(), id, "{fault:?}");
                until("it runs", || executed() == 1).await;
            } else {
                assert_eq!((answer.status, answer.header("mooring-error")), (502, "not_queued"));
                assert_eq!(executed(), 0, "{fault:?}");
            }
        }
    }
}

/// Its backend answers nothing any more, so that nothing but its end can be what is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_that_is_given_up_while_it_is_looked_for_is_answered_at_once() {
    let world = World::with(1, |config| {
        config.server.answer_timeout = Duration::from_millis(200);
        config.fleet.probe_timeout = Duration::from_secs(600);
    })
    .await;
    let _socket = world.socket("ada").await;
    let sim = world.sim("a");
    until("the link is open", || sim.sids().contains(&"ada".to_owned())).await;
    sim.set_faults(|faults| faults.latency_ms = 600_000);
    let looks = || sim.requests().iter().filter(|seen| seen.target.ends_with("/queue")).count();
    let before = looks();
    let graph = quick(0);
    let submitted = world.submit("ada", &graph);
    let given_up = async {
        until("it is looked for", || before < looks()).await;
        world.post("/-/reset?clientId=ada&force=true", "").await
    };
    let (answer, reset) = tokio::join!(submitted, given_up);
    assert_eq!(reset.status, 200, "{}", reset.text());
    assert_eq!(answer.header("mooring-error"), "backend_down", "{}", answer.text());
    assert_eq!(world.gateway.shared.metrics.prompts_ended(End::Lost(Loss::Reset)), 1);
}

/// ComfyUI tells of an end first and counts it out of its queue then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_submits_at_each_end_stays_where_his_models_are() {
    let world = World::new(3).await;
    let mut socket = world.socket("ada").await;
    let mut last = None;
    for _ in 0..40 {
        let answer = world.submit("ada", &quick(1)).await;
        let first = last.get_or_insert_with(|| answer.backend().to_owned());
        assert_eq!(answer.backend(), first);
        socket.until_end(&answer.prompt_id()).await;
    }
}
