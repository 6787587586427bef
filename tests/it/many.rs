//! Many at once: the load that such gateways are judged by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{World, fraction, quick};

/// One client: its socket, its prompts one after the other submitted at once, their ends, their
/// histories. Returns the backend of each prompt, in order.
async fn work(world: Arc<World>, client: usize, prompts: usize) -> Vec<String> {
    let name = format!("client-{client}");
    let mut socket = world.socket(&name).await;
    let mut waiting = BTreeSet::new();
    let mut backends = Vec::new();
    for number in 0..prompts {
        let color = u32::try_from(client * prompts + number).unwrap();
        let answer = world.submit(&name, &quick(color)).await;
        backends.push(answer.backend().to_owned());
        waiting.insert(answer.prompt_id());
    }
    let all = waiting.clone();
    while !waiting.is_empty() {
        let event = socket.event().await;
        let is_last_word = event["type"] == "executing" && event["data"]["node"].is_null();
        let prompt = event["data"]["prompt_id"].as_str().unwrap_or_default();
        if is_last_word && waiting.remove(prompt) {
            let history = world.get(&format!("/history/{prompt}")).await.json();
            assert_eq!(history[prompt]["status"]["status_str"], "success", "{name}: {history}");
        }
    }
    assert_eq!(all.len(), prompts);
    backends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_with_twenty_prompts_each_all_come_to_their_ends() {
    let clients = fraction("clients of 20 prompts over 3 backends", 50, 15);
    let prompts = 20;
    let world = Arc::new(World::new(3).await);
    let done = join_all((0..clients).map(|client| work(Arc::clone(&world), client, prompts))).await;

    let mut load: BTreeMap<&str, usize> = BTreeMap::new();
    for backends in &done {
        for backend in backends {
            *load.entry(backend).or_default() += 1;
        }
    }
    let (least, most) = (load.values().min().unwrap(), load.values().max().unwrap());
    assert_eq!(load.len(), 3, "{load:?}");
    // Each client stays where its work is, so that few of them spread unevenly.
    assert!(*most <= *least * 2, "the load is spread within 2: {load:?}");
    for sim in &world.sims {
        let executed = sim.ledger().executed;
        assert!(executed.values().all(|count| *count == 1), "nothing runs twice");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_work_is_pending_every_request_goes_where_it_is() {
    let world = World::new(3).await;
    let slow = crate::support::slow(20, 0.4);
    let mut socket = world.socket("ada").await;
    let answer = world.submit("ada", &slow).await;
    let (home, prompt) = (answer.backend().to_owned(), answer.prompt_id());
    for path in ["/queue", "/api/object_info/SaveImage", "/system_stats", "/api/history"] {
        let read = world.get(&format!("{path}?clientId=ada")).await;
        assert_eq!((read.backend(), read.header("mooring-placement")), (home.as_str(), "held"));
    }
    let next = world.submit("ada", &quick(9)).await;
    assert_eq!((next.backend(), next.header("mooring-placement")), (home.as_str(), "held"));
    let validated = world.get("/-/validate?clientId=ada").await.json();
    assert_eq!(validated["consistent"], true, "{validated}");
    assert_eq!(validated["bound"], json!(home));
    let who = world.get("/-/whoami?clientId=ada").await.json();
    assert_eq!(who["client"]["pending"], 2);
    let named = |id: &Value| id["prompt_id"] == prompt.as_str();
    assert!(who["client"]["prompts"].as_array().unwrap().iter().any(named), "{who}");
    socket.until_end(&prompt).await;
}
