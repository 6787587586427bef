//! Prompts that wait in the gateway, while they are handed over: what is said of them then is what
//! happens. The simulated backends hold requests until a test lets them go.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use mooring::journal::record::{Batch, Saved};
use mooring::journal::{JournalError, Store};
use mooring::net::Boxed;
use mooring::routing::ids::{ClientId, PromptId};
use mooring::sim::Sim;
use serde_json::{Value, json};
use tokio::join;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::pictures::{RED, invert, png, upload};
use crate::support::{Answer, World, quick, send, slow, soon, until};
use crate::waiting::{takes, waits, waits_unasked};

const PROMPT: &str = "00000000-0000-4000-a000-000000000001";

impl World {
    /// Submits a graph under an id that is known before the answer.
    async fn submit_as(&self, prompt: &str, client: &str, graph: &Value) -> Answer {
        let body = json!({ "client_id": client, "prompt_id": prompt, "prompt": graph });
        self.post("/prompt", &body.to_string()).await
    }

    async fn cancel(&self, client: &str, prompt: &str) -> Answer {
        let path = format!("/api/jobs/{prompt}/cancel?clientId={client}");
        self.post(&path, "{}").await
    }

    async fn delete(&self, client: &str, prompt: &str) -> Answer {
        let body = json!({ "delete": [prompt] }).to_string();
        let from = [("content-type", "application/json")];
        let path = format!("/queue?clientId={client}");
        send(self.front, Method::POST, &path, &from, &body).await
    }

    /// Waits until the client has asked to delete the prompt, and nothing more is known.
    async fn deletion_is_asked(&self, client: &str, prompt: &str) {
        let (client, prompt) = (ClientId::parse(client).unwrap(), PromptId::parse(prompt).unwrap());
        let client = self.gateway.sessions.clients.get(&client).unwrap();
        let asked = || client.inspect(|core, _| core.pending()[&prompt].delete_asked);
        until("the deletion is asked", asked).await;
    }

    async fn all_are_over(&self) {
        let all = self.gateway.sessions.clients.all();
        let is_over = || all.iter().all(|client| client.pending().is_empty());
        until("all are over", is_over).await;
    }

    /// Two backends, and a picture of Ada's on the one that takes nothing new. Returns the other.
    async fn with_a_picture_elsewhere(&self) -> &Sim {
        let picture = upload(self, Some("ada"), "photo.png", &png(RED)).await;
        let there = picture.backend();
        let state = format!("/api/v1/backends/{there}/state");
        let draining = self.admin_post(&state, r#"{"state":"draining"}"#).await;
        assert_eq!(draining.status, 200, "{}", draining.text());
        self.sims.iter().find(|sim| sim.name() != there).unwrap()
    }
}

fn hold(sim: &Sim, request: &str) {
    sim.set_faults(|faults| faults.holds = request.into());
}

fn let_go(sim: &Sim) {
    sim.set_faults(|faults| {
        faults.holds = Box::default();
        faults.holds_answers = Box::default();
    });
}

fn has_been_sent(sim: &Sim) -> usize {
    sim.requests().iter().filter(|it| it.method == "POST" && it.target == "/prompt").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cancelled_or_deleted_before_a_byte_of_it_was_sent_is_never_sent() {
    for verb in ["cancel", "delete"] {
        let world = World::with(2, waits_unasked).await;
        let other = world.with_a_picture_elsewhere().await;
        hold(other, "POST /upload/image");
        let graph = invert("photo.png");
        let told = async {
            // Its picture is on the way, so nothing of it is.
            soon("the picture comes", other.holds(1)).await;
            let answer = match verb {
                "cancel" => world.cancel("ada", PROMPT).await,
                _ => world.delete("ada", PROMPT).await,
            };
            let pending = world.get("/prompt?clientId=ada").await.json();
            let_go(other);
            (answer, pending)
        };
        let (_, (answer, pending)) = join!(world.submit_as(PROMPT, "ada", &graph), told);
        assert_eq!(answer.status, 200, "{}", answer.text());
        if verb == "cancel" {
            assert_eq!(answer.json()["cancelled"], true);
        }
        assert_eq!(pending["exec_info"]["queue_remaining"], 0);
        // Hers run one after the other, so it would have run before this one.
        let next = world.submit("ada", &quick(1)).await.prompt_id();
        world.all_are_over().await;
        assert_eq!(other.ledger().enqueued, [next], "{verb}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_of_what_is_out_is_answered_when_it_has_stopped() {
    let world = World::with(1, waits_unasked).await;
    let sim = world.sim("a");
    hold(sim, "POST /prompt");
    let is_answered = AtomicBool::new(false);
    let graph = endless(1);
    let cancelled = async {
        soon("it is out", sim.holds(1)).await;
        let answer = world.cancel("ada", PROMPT).await;
        is_answered.store(true, Ordering::SeqCst);
        answer
    };
    let arrives = async {
        soon("it is out", sim.holds(1)).await;
        world.deletion_is_asked("ada", PROMPT).await;
        assert!(!is_answered.load(Ordering::SeqCst), "nobody knows yet what becomes of it");
        let_go(sim);
    };
    let (_, cancelled, ()) = join!(world.submit_as(PROMPT, "ada", &graph), cancelled, arrives);
    assert_eq!(cancelled.json()["cancelled"], true, "{}", cancelled.text());
    world.all_are_over().await;
    let ledger = sim.ledger();
    let stopped = [ledger.interrupted, ledger.deleted].concat();
    assert_eq!((ledger.enqueued.len(), &*stopped), (1, &[PROMPT.to_owned()][..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_begun_before_its_answer_came_is_interrupted_by_a_cancel() {
    let world = World::with(1, waits_unasked).await;
    let sim = world.sim("a");
    sim.set_faults(|faults| faults.holds_answers = "POST /prompt".into());
    let mut socket = world.socket("ada").await;
    let graph = endless(1);
    let cancelled = async {
        socket.until("execution_start").await;
        let answer = world.cancel("ada", PROMPT).await;
        let_go(sim);
        answer
    };
    let (_, cancelled) = join!(world.submit_as(PROMPT, "ada", &graph), cancelled);
    assert_eq!(cancelled.json()["cancelled"], true, "{}", cancelled.text());
    world.all_are_over().await;
    assert_eq!(sim.ledger().interrupted, [PROMPT]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_of_what_is_out_is_done_where_it_arrives() {
    let world = World::with(1, |config| {
        waits_unasked(config);
        config.queue.lead = Duration::from_secs(86_400);
    })
    .await;
    let sim = world.sim("a");
    let mut busy = world.socket("bob").await;
    let runs = world.submit("bob", &endless(0)).await.prompt_id();
    busy.until("execution_start").await;
    hold(sim, "POST /prompt");
    let graph = endless(1);
    let deleted = async {
        soon("it is out", sim.holds(1)).await;
        join!(world.delete("ada", PROMPT), async {
            world.deletion_is_asked("ada", PROMPT).await;
            let_go(sim);
        })
    };
    let (_, (deleted, ())) = join!(world.submit_as(PROMPT, "ada", &graph), deleted);
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    let ledger = sim.ledger();
    assert_eq!(ledger.deleted, [PROMPT], "when the deletion was answered");
    assert_eq!(ledger.executed.keys().collect::<Vec<_>>(), [&runs]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_told_in_time_what_became_of_it_is_told_that_and_it_stops_all_the_same() {
    let world = World::with(1, |config| {
        waits_unasked(config);
        config.fleet.probe_timeout = Duration::from_millis(300);
    })
    .await;
    let sim = world.sim("a");
    hold(sim, "POST /prompt");
    let graph = endless(1);
    let cancelled = async {
        soon("it is out", sim.holds(1)).await;
        let answer = world.cancel("ada", PROMPT).await;
        let_go(sim);
        answer
    };
    let (_, cancelled) = join!(world.submit_as(PROMPT, "ada", &graph), cancelled);
    let told = (cancelled.status, cancelled.header("mooring-error"));
    assert_eq!(told, (504, "prompt_state_unknown"), "{}", cancelled.text());
    world.all_are_over().await;
    let ledger = sim.ledger();
    let stopped = [ledger.interrupted, ledger.deleted].concat();
    assert_eq!((has_been_sent(sim), &*stopped), (1, &[PROMPT.to_owned()][..]));
}

/// The backend does not answer the cancel that is made when it is known that the prompt is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_was_too_early_to_be_told_is_made_until_it_is_done() {
    let world = World::with(1, |config| {
        waits_unasked(config);
        config.fleet.probe_timeout = Duration::from_millis(300);
    })
    .await;
    let sim = world.sim("a");
    hold(sim, "POST /prompt");
    let graph = endless(1);
    let path = format!("/api/jobs/{PROMPT}/cancel");
    let cancelled = async {
        soon("it is out", sim.holds(1)).await;
        let answer = world.cancel("ada", PROMPT).await;
        hold(sim, &format!("POST /jobs/{PROMPT}/cancel"));
        answer
    };
    let (_, cancelled) = join!(world.submit_as(PROMPT, "ada", &graph), cancelled);
    assert_eq!(cancelled.status, 504, "{}", cancelled.text());
    let asked = || sim.requests().iter().filter(|it| it.target == path).count();
    until("it is asked again", || asked() == 2).await;
    let_go(sim);
    world.all_are_over().await;
    let ledger = sim.ledger();
    assert_eq!([ledger.interrupted, ledger.deleted].concat(), [PROMPT]);
}

/// A graph that runs until it is stopped, which takes a tenth of a second at most; no test waits as
/// long as it could run.
fn endless(seed: u32) -> Value {
    let mut graph = slow(1_000, 0.1);
    graph["1"]["inputs"]["color"] = seed.into();
    graph
}

/// A graph that the gateway has not seen.
fn unseen(prefix: &str) -> Value {
    let mut graph = takes(0.05, 7);
    graph["3"]["inputs"]["filename_prefix"] = prefix.into();
    graph
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shown_to_a_backend_takes_no_place_there() {
    let world = World::with(1, |config| {
        waits(config);
        config.queue.lead = Duration::from_secs(86_400);
    })
    .await;
    let sim = world.sim("a");
    let mut busy = world.socket("bob").await;
    world.submit("bob", &endless(0)).await.prompt_id();
    busy.until("execution_start").await;
    let second = world.submit("cleo", &endless(1)).await.prompt_id();
    // His graph was accepted before, so it is not shown.
    let next = world.submit("bob", &endless(0)).await;
    assert_eq!(next.header("mooring-verdict"), "known", "{}", next.text());
    // What is shown is not taken back for the moment.
    hold(sim, "POST /queue");
    let graph = unseen("shown");
    let told = async {
        soon("it is shown", sim.holds(1)).await;
        assert_eq!(world.cancel("cleo", &second).await.json()["cancelled"], true);
        let next = next.prompt_id();
        until("the next is handed over", || sim.ledger().enqueued.contains(&next)).await;
        let_go(sim);
    };
    let (shown, ()) = join!(world.submit_as(PROMPT, "ada", &graph), told);
    assert_eq!(shown.header("mooring-verdict"), "a", "{}", shown.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_shown_to_a_backend_that_an_earlier_one_of_its_client_is_on_the_way_to() {
    let world = World::with(2, |config| {
        waits(config);
        config.queue.verdict_wait = Duration::from_millis(300);
    })
    .await;
    let other = world.with_a_picture_elsewhere().await;
    hold(other, "POST /upload/image");
    let graph = invert("photo.png");
    let second = async {
        soon("the picture comes", other.holds(1)).await;
        let second = world.submit("ada", &unseen("second")).await;
        assert_eq!(second.header("mooring-verdict"), "none", "{}", second.text());
        assert_eq!(has_been_sent(other), 0);
        let_go(other);
        second.prompt_id()
    };
    let (_, second) = join!(world.submit_as(PROMPT, "ada", &graph), second);
    world.all_are_over().await;
    assert_eq!(other.ledger().finished, [PROMPT, &second]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_more_of_its_files_than_are_brought_goes_where_they_are() {
    let world = World::with(2, |config| {
        waits_unasked(config);
        config.queue.depth = 1;
        config.files.copy_bytes = 10;
    })
    .await;
    let picture = upload(&world, Some("ada"), "photo.png", &png(RED)).await;
    let mut running = Vec::new();
    for (client, seed) in [("bob", 0), ("cleo", 1)] {
        let answer = world.submit(client, &endless(seed)).await;
        running.push((answer.backend() == picture.backend(), client, answer.prompt_id()));
    }
    running.sort_unstable();
    let accepted = world.submit("ada", &invert("photo.png")).await;
    assert_eq!(accepted.header("mooring-placement"), "waiting", "{}", accepted.text());
    let prompt = PromptId::parse(&accepted.prompt_id()).unwrap();
    let (_, client, first) = &running[0];
    world.cancel(client, first).await;
    let refused_by = || world.gateway.sessions.waiting.refused_by(&prompt).len();
    until("the one without it has no room for it", || refused_by() == 1).await;
    let (_, client, second) = &running[1];
    world.cancel(client, second).await;
    world.all_are_over().await;
    let there = world.sim(picture.backend()).ledger();
    assert!(there.finished.contains(&accepted.prompt_id()), "{there:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reset_ends_while_it_is_shown_does_not_stay_there() {
    let world = World::with(1, waits).await;
    let sim = world.sim("a");
    let mut busy = world.socket("bob").await;
    world.submit("bob", &endless(0)).await.prompt_id();
    busy.until("execution_start").await;
    hold(sim, "POST /prompt");
    let graph = unseen("shown");
    let reset = async {
        soon("it is shown", sim.holds(1)).await;
        let reset = world.post("/-/reset?clientId=ada&force=true", "").await;
        assert_eq!(reset.status, 200, "{}", reset.text());
        let_go(sim);
    };
    join!(world.submit_as(PROMPT, "ada", &graph), reset);
    until("it has arrived", || sim.ledger().enqueued.iter().any(|it| it == PROMPT)).await;
    until("it is gone", || sim.queue_remaining() == 1).await;
}

/// A journal in memory, whose commits are held while a test says so.
#[derive(Clone, Debug, Default)]
struct HeldStore {
    is_held: Arc<watch::Sender<bool>>,
    saved: Arc<watch::Sender<Saved>>,
}

impl HeldStore {
    /// Waits until what is durable is so.
    async fn until(&self, what: &str, holds: impl FnMut(&Saved) -> bool) {
        soon(what, self.saved.subscribe().wait_for(holds)).await.unwrap();
    }
}

impl Store for HeldStore {
    fn load(&mut self) -> Result<Saved, JournalError> {
        Ok(self.saved.borrow().clone())
    }

    fn commit(&mut self, batch: Arc<Batch>) -> Boxed<'_, Result<(), JournalError>> {
        Box::pin(async move {
            self.is_held.subscribe().wait_for(|is_held| !is_held).await.unwrap();
            self.saved.send_modify(|saved| *saved = std::mem::take(saved).after(&batch));
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_what_waits_was_deleted_or_cancelled_is_said_when_it_is_durable() {
    let store = HeldStore::default();
    let world = World::kept_in(Box::new(store.clone()), 1, waits_unasked).await;
    let mut busy = world.socket("bob").await;
    world.submit("bob", &endless(0)).await.prompt_id();
    busy.until("execution_start").await;
    for (seed, verb) in [(1, "cancel"), (2, "delete")] {
        let waits = world.submit("ada", &endless(seed)).await.prompt_id();
        store.until("its body is kept", |saved| saved.bodies.len() == 1).await;
        store.is_held.send_replace(true);
        let mut ended: Pin<Box<dyn Future<Output = Answer>>> = match verb {
            "cancel" => Box::pin(world.cancel("ada", &waits)),
            _ => Box::pin(world.delete("ada", &waits)),
        };
        // It could wait again after a kill. Nothing tells that nothing is said.
        let said = timeout(Duration::from_millis(300), &mut ended).await;
        assert!(said.is_err(), "{verb}: {said:?}");
        store.is_held.send_replace(false);
        let ended = ended.await;
        assert_eq!(ended.status, 200, "{}", ended.text());
        let saved = store.saved.borrow().clone();
        let record = saved.prompts.iter().find(|(id, _)| id.as_str() == waits);
        assert!(record.unwrap().1.ended.is_some(), "{verb}");
        store.until("its body is not kept", |saved| saved.bodies.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_kept_from_its_answer_until_a_backend_has_it_however_large_it_is() {
    let store = HeldStore::default();
    let world = World::kept_in(Box::new(store.clone()), 1, waits_unasked).await;
    let mut busy = world.socket("bob").await;
    let runs = world.submit("bob", &endless(0)).await.prompt_id();
    busy.until("execution_start").await;
    let mut large = takes(0.05, 1);
    large["3"]["inputs"]["note"] = "x".repeat(3 << 20).into();
    for graph in [&takes(0.05, 2), &large] {
        world.submit("ada", graph).await.prompt_id();
    }
    let mut saved = store.saved.borrow().clone();
    assert_eq!(saved.parts.len(), 4, "in parts");
    saved.join_parts();
    let kept: Vec<Value> = saved
        .bodies
        .iter()
        .map(|(_, body)| serde_json::from_slice(&body.kept().body).unwrap())
        .collect();
    let note = &large["3"]["inputs"]["note"];
    assert!(kept.iter().any(|body| body["prompt"]["3"]["inputs"]["note"] == *note), "whole");
    assert_eq!(kept.len(), 2);
    world.cancel("bob", &runs).await;
    world.all_are_over().await;
    let is_empty = |saved: &Saved| saved.bodies.is_empty() && saved.parts.is_empty();
    store.until("no body is kept", is_empty).await;
    assert_eq!(world.gateway.sessions.waiting.now().bytes, 0);
}
