//! What a gateway that remembers nothing finds at its backends when it starts: whose it is, and
//! that it is nobody else's.

use std::net::SocketAddr;

use http::Method;
use mooring::config::{Config, StateDir};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::restart::Mortal;
use crate::support::{Answer, Socket, quick, send, slow, until};

fn nowhere(config: &mut Config) {
    config.state.dir = StateDir::Nowhere;
}

/// Submitted to a server itself, past every gateway.
async fn directly(to: SocketAddr, client: &str, graph: &Value) -> String {
    let body = json!({ "client_id": client, "prompt": graph }).to_string();
    send(to, Method::POST, "/prompt", &[], &body).await.prompt_id()
}

/// A read that is only passed on, as bytes.
async fn pass(world: &Mortal, client: &str) -> Answer {
    let from = [("comfy-client-id", client)];
    send(world.front(), Method::GET, "/some/pack/route", &from, "").await
}

async fn history(world: &Mortal, client: &str) -> Value {
    world.get(&format!("/history?clientId={client}")).await.json()
}

/// Both without a journal, and with one whose folder is gone.
#[tokio::test]
async fn what_runs_and_waits_is_its_clients_again_without_a_journal() {
    for keeps in [false, true] {
        let folder = tempdir().unwrap();
        let mut world = Mortal::new(3).await;
        // Her server is not the one that a newcomer is given.
        world.submit("eve", &slow(1000, 60.0)).await;
        let mut socket = world.socket("ada").await;
        let first = world.submit("ada", &slow(30, 1.5)).await;
        let (prompt, backend) = (first.prompt_id(), first.backend().to_owned());
        assert_ne!(backend, "a");
        let second = world.submit("ada", &quick(7)).await.prompt_id();
        socket.until("progress").await;
        world.crash().await;
        world
            .start_with(|config| match keeps {
                false => nowhere(config),
                true => config.state.dir = StateDir::Written(folder.path().to_owned()),
            })
            .await;
        assert_eq!(world.pending(), 0, "nobody has come");

        let read = pass(&world, "ada").await;
        assert_eq!((read.backend(), read.header("mooring-placement")), (&*backend, "held"));
        assert_eq!(world.pending(), 2);
        let queue = world.get("/queue?clientId=ada").await.json();
        let listed = ["queue_running", "queue_pending"].map(|of| queue[of][0][1].clone());
        assert_eq!(listed, [json!(prompt), json!(second)]);
        let third = world.submit("ada", &quick(8)).await;
        assert_eq!(third.backend(), backend, "the binding is held");
        let mut socket = world.socket("ada").await;
        for prompt in [&prompt, &second] {
            let told = socket.until_end(prompt).await;
            for kind in ["execution_start", "executed", "execution_success"] {
                assert!(told.contains(&kind.to_owned()), "{kind}: {told:?}");
            }
        }
        until("all have ended", || world.pending() == 0).await;
        let history = history(&world, "ada").await;
        for prompt in [&prompt, &second] {
            assert_eq!(history[prompt]["status"]["status_str"], "success", "{history}");
            assert!(history[prompt]["outputs"]["3"]["images"].is_array(), "{history}");
        }
    }
}

/// Each way of coming is one, and what has ended meanwhile is told as it ended.
#[tokio::test]
async fn what_ended_before_its_client_came_is_told_with_its_outputs() {
    let mut world = Mortal::new(1).await;
    world.crash().await;
    let server = world.sim("a").addr();
    let mut made = Vec::new();
    for client in ["reader", "lister", "submitter", "socket", "uploader"] {
        made.push((client, directly(server, client, &slow(2, 0.05)).await));
    }
    world.start_with(nowhere).await;
    let ended = |prompt: &String| world.sim("a").ledger().finished.contains(prompt);
    until("the server is done", || made.iter().all(|(_, prompt)| ended(prompt))).await;
    for (client, prompt) in &made {
        match *client {
            "reader" => drop(pass(&world, client).await),
            "lister" => drop(history(&world, client).await),
            "submitter" => drop(world.submit(client, &quick(1)).await),
            "socket" => {}
            _ => {
                let path = format!("/upload/image?clientId={client}");
                send(world.front(), Method::POST, &path, &[], "no form").await;
            }
        }
        let told = world.socket(client).await.until_end(prompt).await;
        assert!(told.contains(&"executed".to_owned()), "{client}: {told:?}");
        assert!(told.contains(&"execution_success".to_owned()), "{client}: {told:?}");
        let entry = history(&world, client).await[prompt].clone();
        assert_eq!(entry["status"]["status_str"], "success", "{client}: {entry}");
    }
}

/// One binding; what is elsewhere is asked for its end, also while the other goes on.
#[tokio::test]
async fn a_client_with_work_on_two_servers_hears_both_ends() {
    let mut world = Mortal::new(2).await;
    world.crash().await;
    let (a, b) = (world.sim("a").addr(), world.sim("b").addr());
    let others = directly(b, "eve", &slow(30, 60.0)).await;
    let waits = directly(b, "ada", &quick(5)).await;
    let runs = directly(a, "ada", &slow(1000, 60.0)).await;
    let last = directly(a, "ada", &slow(1000, 60.0)).await;
    world.start_with(nowhere).await;
    let read = pass(&world, "ada").await;
    assert_eq!((read.backend(), read.header("mooring-placement")), ("a", "held"));
    assert_eq!(world.pending(), 3);
    let mut socket = world.socket("ada").await;
    let interrupt = |server, prompt: &str| {
        let body = json!({ "prompt_id": prompt }).to_string();
        async move { send(server, Method::POST, "/interrupt", &[], &body).await }
    };
    interrupt(b, &others).await;
    let told = socket.until_end(&waits).await;
    assert!(told.contains(&"executed".to_owned()), "{told:?}");
    assert!(told.contains(&"execution_success".to_owned()), "{told:?}");
    assert_eq!(pass(&world, "ada").await.header("mooring-placement"), "held");
    for prompt in [&runs, &last] {
        until("it runs", || world.sim("a").ledger().executed.contains_key(prompt)).await;
        interrupt(a, prompt).await;
        let told = socket.until_end(prompt).await;
        assert!(told.contains(&"execution_interrupted".to_owned()), "{told:?}");
    }
    until("all have ended", || world.pending() == 0).await;
    let history = history(&world, "ada").await;
    assert!(history[&waits].is_object() && history[&runs].is_object(), "{history}");
    assert!(history[&others].is_null(), "hers");
}

/// Who sends again what he has not got an answer for gets none of it run twice.
#[tokio::test]
async fn what_runs_already_is_not_sent_again() {
    let mut world = Mortal::new(1).await;
    world.crash().await;
    let prompt = directly(world.sim("a").addr(), "ada", &slow(1000, 60.0)).await;
    world.start_with(nowhere).await;
    let body = json!({ "client_id": "ada", "prompt_id": prompt, "prompt": quick(1) }).to_string();
    let again = send(world.front(), Method::POST, "/prompt", &[], &body).await;
    let told = (again.status, again.header("mooring-error"));
    assert_eq!(told, (400, "prompt_id_known"), "{}", again.text());
    assert_eq!(world.sim("a").ledger().enqueued, [prompt]);
    assert_eq!(world.pending(), 1);
}

/// Whoever works at a server without us keeps his socket there: nothing is done under his name.
#[tokio::test]
async fn nobody_who_does_not_come_is_taken_anything() {
    let mut world = Mortal::new(1).await;
    world.crash().await;
    let server = world.sim("a").addr();
    let mut direct = Socket::open(server, "/ws?clientId=eve").await;
    direct.until("status").await;
    let prompt = directly(server, "eve", &slow(10, 0.5)).await;
    world.start_with(nowhere).await;
    drop(world.socket("ada").await);
    let told = direct.until_end(&prompt).await;
    assert!(told.contains(&"execution_success".to_owned()), "{told:?}");
    assert!(
        world.gateway().sessions.clients.all().iter().all(|client| client.id.as_str() != "eve")
    );
}

/// A journal that knows says what is whose; the rest is of people who work without us.
#[tokio::test]
async fn with_a_journal_nothing_is_adopted() {
    let mut world = Mortal::new(2).await;
    let known = world.submit("ada", &quick(1)).await.prompt_id();
    until("it has ended", || world.pending() == 0).await;
    world.crash().await;
    let server = world.sim("b").addr();
    directly(server, "eve", &slow(1000, 60.0)).await;
    world.start_with(|_| {}).await;
    assert_eq!(pass(&world, "eve").await.header("mooring-placement"), "placed");
    // A crash may come before the end is in the journal; then it is asked for. Eve's work is not
    // taken up, or it would stay pending for a minute.
    until("nothing is pending", || world.pending() == 0).await;
    assert!(history(&world, "ada").await[&known].is_object());
}
