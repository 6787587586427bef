//! Ends that come late, or of which a page must not hear as a script does.

use http::Method;
use mooring::routing::ids::ClientId;
use serde_json::{Value, json};

use crate::support::{Socket, World, quick, send, slow, soon, until};

const FLAGS: &str = r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#;

async fn page(world: &World, client: &str) -> Socket {
    let mut page = world.socket(client).await;
    page.say(FLAGS).await;
    page.until("feature_flags").await;
    page
}

/// What is said of prompts until an event is `enough`: types, with the number of the prompt.
async fn told(
    socket: &mut Socket,
    prompts: &[&str],
    mut enough: impl FnMut(&Value) -> bool,
) -> Vec<String> {
    let mut told = Vec::new();
    soon("the last of them", async {
        loop {
            let event = socket.event().await;
            let prompt = event["data"]["prompt_id"].as_str().unwrap_or_default();
            if let Some(number) = prompts.iter().position(|it| *it == prompt) {
                let is_last = event["type"] == "executing" && event["data"]["node"].is_null();
                let kind = if is_last { "last" } else { event["type"].as_str().unwrap() };
                told.push(format!("{kind}.{number}"));
            }
            if enough(&event) {
                return;
            }
        }
    })
    .await;
    told
}

fn counts(event: &Value, pending: u64) -> bool {
    event["data"]["status"]["exec_info"]["queue_remaining"] == pending
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_does_not_lose_what_runs_when_what_waits_is_deleted() {
    for verb in ["delete", "clear", "cancel"] {
        let world = World::new(1).await;
        let mut page = page(&world, "ada").await;
        let mut script = world.socket("ada").await;
        let running = world.submit("ada", &slow(50, 20.0)).await.prompt_id();
        page.until("progress").await;
        script.until("progress").await;
        let waiting = world.submit("ada", &quick(1)).await.prompt_id();
        page.until("status").await;
        let prompts = [running.as_str(), waiting.as_str()];
        let (path, body) = match verb {
            "delete" => ("/queue?clientId=ada", json!({ "delete": [waiting] }).to_string()),
            "clear" => ("/queue?clientId=ada", json!({ "clear": true }).to_string()),
            _ => ("/api/jobs/cancel?clientId=ada", json!({ "job_ids": [waiting] }).to_string()),
        };
        let answer = world.post(path, &body).await;
        assert_eq!(answer.status, 200, "{verb}: {}", answer.text());
        let mut is_over = false;
        let heard = told(&mut script, &prompts, |event| {
            is_over |= event["type"] == "execution_interrupted";
            is_over && counts(event, 1)
        })
        .await;
        assert!(heard.contains(&"execution_interrupted.1".to_owned()), "{verb}: {heard:?}");
        assert!(heard.contains(&"last.1".to_owned()), "{verb}: {heard:?}");
        // The page is told behind the count, so nothing of an end comes after it.
        let mut seen = 0;
        let heard = told(&mut page, &prompts, |event| {
            seen += u32::from(counts(event, 1));
            seen == 1
        })
        .await;
        assert!(heard.iter().all(|it| !it.ends_with(".1")), "{verb}: {heard:?}");
        let heard = told(&mut page, &prompts, |event| event["type"] == "progress").await;
        assert!(heard.iter().all(|it| !it.ends_with(".1")), "{verb}: {heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_comes_late_is_told_before_the_next_start() {
    let world = World::new(1).await;
    let sim = world.sim("a");
    let mut page = page(&world, "ada").await;
    until("the link is open", || sim.sids().contains(&"ada".to_owned())).await;
    let first = world.submit("ada", &slow(3, 0.6)).await.prompt_id();
    let second = world.submit("ada", &slow(50, 20.0)).await.prompt_id();
    page.until("progress").await;
    // Nobody hears the end of the first one, nor the start of the second.
    sim.set_faults(|faults| faults.refuse_sockets = true);
    sim.say(&mooring::ws::Frame::close(1001, ""), Some("ada"));
    until("the second runs", || sim.ledger().executed.contains_key(&second)).await;
    sim.set_faults(|faults| faults.refuse_sockets = false);
    let prompts = [first.as_str(), second.as_str()];
    let heard = told(&mut page, &prompts, |event| {
        event["type"] == "progress" && event["data"]["prompt_id"] == second.as_str()
    })
    .await;
    let at = |kind: &str| heard.iter().position(|it| it == kind);
    let (end, start) = (at("last.0").expect("its end"), at("execution_start.1").expect("a start"));
    assert!(end < start, "{heard:?}");
    assert!(at("execution_success.0").is_some_and(|success| success < end), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_link_that_is_back_long_before_the_end_changes_no_turn() {
    let world = World::new(1).await;
    let sim = world.sim("a");
    let mut page = page(&world, "ada").await;
    until("the link is open", || sim.sids().contains(&"ada".to_owned())).await;
    // Longer than any end is waited for.
    let first = world.submit("ada", &slow(40, 4.0)).await.prompt_id();
    let second = world.submit("ada", &slow(10, 0.5)).await.prompt_id();
    page.until("progress").await;
    sim.say(&mooring::ws::Frame::close(1001, ""), Some("ada"));
    let prompts = [first.as_str(), second.as_str()];
    let heard = told(&mut page, &prompts, |event| {
        event["type"] == "progress" && event["data"]["prompt_id"] == second.as_str()
    })
    .await;
    let at = |kind: &str| heard.iter().position(|it| it == kind).expect(kind);
    let turns = [at("execution_success.0"), at("last.0"), at("execution_start.1")];
    assert!(turns.is_sorted(), "{turns:?} in {heard:?}");
}

/// A page shows one active job, and takes the end of any for that one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_told_again_to_a_page_when_what_waits_is_lost() {
    let world = World::new(1).await;
    let mut page = page(&world, "ada").await;
    let mut script = world.socket("ada").await;
    let running = world.submit("ada", &slow(50, 20.0)).await.prompt_id();
    page.until("progress").await;
    let waiting = world.submit("ada", &quick(1)).await.prompt_id();
    // Somebody clears the queue there, behind our back.
    let sim = world.sim("a").addr();
    let cleared = send(sim, Method::POST, "/queue", &[], r#"{"clear": true}"#).await;
    assert_eq!(cleared.status, 200);
    let client = world.gateway.sessions.clients.get(&ClientId::parse("ada").unwrap()).unwrap();
    client.must_ask(&world.gateway.sessions, world.gateway.shared.fleet.by_name("a").unwrap().id);
    world.gateway.sessions.reconcile_soon();
    let prompts = [running.as_str(), waiting.as_str()];
    let is_start = |event: &Value| event["type"] == "execution_start";
    let heard = told(&mut page, &prompts, |event| {
        is_start(event) && event["data"]["prompt_id"] == running.as_str()
    })
    .await;
    let at = |kind: &str| heard.iter().position(|it| it == kind);
    let (lost, last) = (at("execution_error.1").expect("it is lost"), at("last.1"));
    assert!(last.is_some_and(|last| lost < last), "before it runs again: {heard:?}");
    let heard = told(&mut page, &prompts, |event| event["type"] == "executing").await;
    assert_eq!(heard.last().map(String::as_str), Some("executing.0"), "{heard:?}");
    // To a script it would be a second start.
    script.until("execution_error").await;
    let heard = told(&mut script, &prompts, |event| event["type"] == "progress").await;
    assert!(!heard.contains(&"execution_start.0".to_owned()), "{heard:?}");
}
