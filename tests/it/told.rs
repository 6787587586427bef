//! What an operator is told: why a client is where it is, and what happened, one line an event.

use http::Method;
use mooring::net::now;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::process::Daemon;
use crate::support::{World, network, quick, send, slow, until};

/// Between which backends, with what load, and why not the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_between_which_backends_a_placement_chose() {
    let world = World::new(3).await;
    world.all_up().await;
    let off = world.admin_post("/api/v1/backends/c/state", r#"{"state":"off"}"#).await;
    assert_eq!(off.status, 200, "{}", off.text());
    let made = world.submit("ada", &slow(100, 60.0)).await;
    let (prompt, backend) = (made.prompt_id(), made.backend().to_owned());
    let mut socket = world.socket("ada").await;
    socket.until("status").await;
    for path in ["/api/v1/explain?client=ada", "/-/explain?clientId=ada"] {
        let told = match path.starts_with("/api/") {
            true => world.admin_get(path).await.json(),
            false => world.get(path).await.json(),
        };
        let placement = &told["client"]["placement"];
        assert_eq!(placement["chosen"], backend.as_str(), "{told}");
        let candidates = placement["candidates"].as_array().unwrap();
        assert_eq!(candidates.len(), 3);
        assert_eq!(candidates[0]["backend"], backend.as_str());
        assert_eq!((&candidates[0]["load"], &candidates[0]["weight"]), (&0.into(), &1.into()));
        assert!(candidates[0]["excluded"].is_null() && candidates[1]["excluded"].is_null());
        assert_eq!(candidates[2]["backend"], "c");
        assert_eq!(candidates[2]["excluded"], "off");
    }
    // How far the prompt is, as wherever else that is told.
    let ada = mooring::routing::ids::ClientId::parse("ada").unwrap();
    let client = world.gateway.sessions.clients.get(&ada).unwrap();
    let runs = || client.pending().iter().any(|(_, it)| it.phase.as_str() == "running");
    until("it runs", runs).await;
    let told = world.admin_get(&format!("/api/v1/explain?prompt={prompt}")).await.json();
    assert_eq!(told["prompt"]["state"], "running", "{told}");
    let own = world.get(&format!("/-/explain?clientId=ada&prompt={prompt}")).await.json();
    assert_eq!(own["prompt"]["state"], "running", "{own}");
}

/// Whose, where, how and how long; and a request's client, address, length and name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_one_line_with_whose_and_where() {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempdir().unwrap();
    let daemon = Daemon::start_with(
        &sim,
        &folder,
        &[
            "--set",
            "log.level=info,mooring::access=debug",
            "--set",
            "server.trusted_proxies=127.0.0.1",
        ],
    );
    let from =
        [("comfy-client-id", "ada"), ("x-forwarded-for", "192.0.2.7"), ("x-request-id", "r-17")];
    // Two ways of answering: passed on as bytes, and by hyper.
    for path in ["/some/pack/route", "/history"] {
        let answer = send(daemon.front, Method::GET, path, &from, "").await;
        let line = daemon.says(&format!("path=\"{path}\""));
        let wanted = ["method=GET", "address=192.0.2.7", "client=c-", "request_id=\"r-17\""];
        for wanted in wanted {
            assert!(line.contains(wanted), "{wanted}: {line}");
        }
        let bytes = format!("bytes={}", answer.text().len());
        assert!(line.contains(&bytes) && !line.contains("ada"), "{bytes}: {line}");
    }
    // Only its body says whose it is, also of one that is refused.
    let wrong = serde_json::json!({ "1": { "class_type": "NoSuchNode", "inputs": {} } });
    let body = serde_json::json!({ "prompt": wrong, "client_id": "bob" }).to_string();
    send(daemon.front, Method::POST, "/prompt", &[], &body).await;
    let line = daemon.says("path=\"/prompt\"");
    assert!(line.contains("client=c-") && line.contains("status=400"), "{line}");
    let body = serde_json::json!({ "prompt": quick(3), "client_id": "ada" }).to_string();
    send(daemon.front, Method::POST, "/prompt", &[], &body).await;
    let placed = daemon.says("Prompt placed.");
    let client = placed.split_whitespace().find(|word| word.starts_with("client=c-")).unwrap();
    let ended = daemon.says("Prompt ended.");
    for wanted in [client, "backend=", "end=\"completed\"", "ms=", "prompt="] {
        assert!(ended.contains(wanted), "{wanted}: {ended}");
    }
    let reset = send(daemon.front, Method::POST, "/-/reset?clientId=ada", &[], "").await;
    assert_eq!(reset.status, 200, "{}", reset.text());
    let released = daemon.says("Client was released.");
    for wanted in [client, "backend=", "reason=\"asked\""] {
        assert!(released.contains(wanted), "{wanted}: {released}");
    }
    daemon.kill();
}

/// Which backend, what each lacks, and why not the others; it changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_says_where_a_graph_would_go_and_what_a_backend_lacks() {
    let world = World::new(3).await;
    world.all_up().await;
    world.admin_post("/api/v1/backends/c/state", r#"{"state":"draining"}"#).await;
    world.submit("ada", &slow(100, 60.0)).await;
    let busy = |name: &str| world.gateway.shared.fleet.by_name(name).unwrap().load.total(now());
    until("one has work", || 0 < busy("a") + busy("b")).await;
    let (busy, free) = if 0 < busy("a") { ("a", "b") } else { ("b", "a") };
    let gateway = &world;
    let ask = |body: String| async move { gateway.admin_post("/api/v1/explain", &body).await };
    let told = ask(quick(1).to_string()).await.json();
    assert_eq!((&told["chosen"], &told["nodes"]), (&free.into(), &2.into()), "{told}");
    let of = |told: &Value, name: &str| {
        let all = told["candidates"].as_array().unwrap();
        all.iter().find(|it| it["backend"] == name).unwrap().clone()
    };
    assert_eq!(told["candidates"][0]["backend"], free, "the chosen one first: {told}");
    assert_eq!((&of(&told, free)["lacks"], &of(&told, free)["load"]), (&json!([]), &json!(0)));
    assert!(0 < of(&told, busy)["load"].as_u64().unwrap(), "{told}");
    assert_eq!(of(&told, "c")["excluded"], "draining");

    let mut graph = quick(1);
    graph["9"] = json!({ "class_type": "NobodyHasThis", "inputs": { "a": "b" } });
    let told = ask(json!({ "client_id": "x", "prompt": graph }).to_string()).await.json();
    assert_eq!(of(&told, free)["lacks"], json!(["NobodyHasThis"]), "{told}");
    assert_eq!(of(&told, free)["lacks_in_all"], 1);

    world.reload(|it| it.server.deny_nodes = vec!["NobodyHasThis".to_owned()]).await.unwrap();
    let told = ask(graph.to_string()).await.json();
    let refused = "the class NobodyHasThis is in server.deny_nodes";
    assert_eq!((&told["chosen"], &told["why_not"]), (&Value::Null, &json!(refused)));
    for (bad, why) in [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ("{}", "it has no nodes"),
        (r#"{"nodes": [], "links": []}"#, "Export (API)"),
        (r#"{"1": {"inputs": {}}}"#, "the node `1` has no `class_type`"),
    ] {
        let answer = ask(bad.to_owned()).await;
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.json()["error"].as_str().unwrap().contains(why), "{}", answer.text());
    }
    let large = format!("{{\"1\": \"{}\"}}", "x".repeat(17 << 20));
    assert_eq!(ask(large).await.status, 413);
    assert_eq!(world.gateway.sessions.clients.all().len(), 1, "nobody was bound");
    for name in [free, "c"] {
        world.admin_post(&format!("/api/v1/backends/{name}/state"), r#"{"state":"off"}"#).await;
    }
    world.sim(busy).crash().await;
    world.is_down(busy).await;
    let told = ask(quick(1).to_string()).await.json();
    assert!(told["chosen"].is_null(), "{told}");
    assert_eq!(told["why_not"], "no server is up and ready");
}
