//! One fleet of three versions: 0.3.64, 0.8.0 and 0.33.0. Whoever is moved between them sees no
//! difference that he would not see on the newest.

use mooring::routing::placement::AdminState;
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};

use crate::pictures::{BLUE, RED, color, inverse, invert, png, run, upload, value, view};
use crate::support::{Socket, World, network, quick, slow, until};

/// The first by name is the home, whose page everybody sees.
const FLEET: [(&str, &str); 3] = [("c-old", "0.3.64"), ("b-mid", "0.8.0"), ("a-new", "0.33.0")];

async fn fleet() -> World {
    let mut sims = Vec::new();
    for (name, version) in FLEET {
        let options = Options { version: version.to_owned(), ..Options::named(name) };
        sims.push(Sim::start(network(), options).await.unwrap());
    }
    let world = World::over(sims, |_| {}).await;
    world.all_up().await;
    world
}

/// From now on new work goes to this one.
fn only(world: &World, name: &str) {
    for backend in world.gateway.shared.fleet.iter() {
        let is_it = *backend.name() == *name;
        backend.set_admin(if is_it { AdminState::Ready } else { AdminState::Draining });
    }
}

fn all_ready(world: &World) {
    for backend in world.gateway.shared.fleet.iter() {
        backend.set_admin(AdminState::Ready);
    }
}

/// A graph of one colour that takes a moment.
fn painted(color: u32) -> Value {
    let mut graph = slow(3, 0.1);
    graph["1"]["inputs"]["color"] = json!(color);
    graph
}

/// What is told of a prompt from its start to its last word, ticks left out.
async fn told(socket: &mut Socket, prompt: &str) -> Vec<String> {
    let mut events = socket.until_end(prompt).await;
    events.retain(|kind| !kind.starts_with("progress"));
    events.dedup();
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_moves_between_versions_sees_one_server() {
    let world = fleet().await;
    let mut socket = world.socket("ada").await;
    let mut made = Vec::new();
    // The oldest, which does not say when a prompt was made, in the middle.
    let [old, mid, new] = FLEET;
    for (color, (name, _)) in
        [0x00ff_0000, 0x0000_ff00, 0x0000_00ff].into_iter().zip([mid, old, new])
    {
        only(&world, name);
        let answer = world.submit("ada", &painted(color)).await;
        assert_eq!(answer.backend(), name);
        let prompt = answer.prompt_id();
        let wanted = [
            "execution_start",
            "execution_cached",
            "executing",
            "executed",
            "execution_success",
            "executing",
        ];
        assert_eq!(told(&mut socket, &prompt).await, wanted, "{name}");
        made.push((prompt, color));
    }
    all_ready(&world);

    let history = world.get("/history?clientId=ada").await.json();
    let ids: Vec<&String> = history.as_object().unwrap().keys().collect();
    assert_eq!(ids, made.iter().map(|(id, _)| id).collect::<Vec<_>>());
    let jobs = world.get("/api/jobs?clientId=ada&sort_order=asc").await.json();
    assert_eq!(jobs["pagination"]["total"], 3);
    for (index, (prompt, color)) in made.iter().enumerate() {
        let entry = &history[prompt]["outputs"]["3"]["images"][0];
        assert_eq!(pixel(&world, entry).await, *color, "history of {index}");
        let job = &jobs["jobs"][index];
        assert_eq!((&job["id"], &job["status"]), (&json!(prompt), &json!("completed")));
        assert_eq!(pixel(&world, &job["preview_output"]).await, *color, "job {index}");
        let detail = world.get(&format!("/api/jobs/{prompt}?clientId=ada")).await.json();
        assert_eq!(detail["status"], "completed");
        let image = &detail["outputs"]["3"]["images"][0];
        assert_eq!(pixel(&world, image).await, *color, "detail of {index}");
        let one = world.get(&format!("/history/{prompt}?clientId=ada")).await.json();
        assert_eq!(one[prompt]["outputs"], history[prompt]["outputs"]);
    }
}

/// The colour of a file, as a number.
async fn pixel(world: &World, image: &Value) -> u32 {
    let answer = view(world, image, Some("ada")).await;
    assert_eq!(answer.status, 200, "{image}");
    let [red, green, blue] = color(&answer.body);
    u32::from_be_bytes([0, red, green, blue])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_works_on_every_version() {
    let world = fleet().await;
    for (name, version) in FLEET {
        only(&world, name);
        let client = format!("ada-{name}");
        let mut socket = world.socket(&client).await;
        let asked = |path: &str| format!("{path}?clientId={client}");
        let running = world.submit(&client, &slow(500, 30.0)).await;
        assert_eq!(running.backend(), name);
        let running = running.prompt_id();
        let mut waiting = Vec::new();
        for color in 0..4 {
            waiting.push(world.submit(&client, &quick(color)).await.prompt_id());
        }
        socket.until("progress").await;
        let queue = world.get(&asked("/queue")).await.json();
        assert_eq!(queue["queue_running"][0][1], running, "{version}");
        assert_eq!(queue["queue_pending"].as_array().unwrap().len(), 4, "{version}");
        for item in queue["queue_pending"].as_array().unwrap() {
            assert_eq!(item.as_array().unwrap().len(), 5, "{version}");
        }
        let pending = world.get(&format!("/api/jobs?status=pending&clientId={client}")).await;
        assert_eq!(pending.json()["pagination"]["total"], 4, "{version}");

        let delete = json!({ "delete": [waiting[0]] }).to_string();
        assert_eq!(world.post(&asked("/queue"), &delete).await.status, 200, "{version}");
        let path = asked(&format!("/api/jobs/{}/cancel", waiting[1]));
        let cancelled = json!({ "cancelled": true });
        assert_eq!(world.post(&path, "").await.json(), cancelled, "{version}");
        let several = json!({ "job_ids": [waiting[2]] }).to_string();
        let answer = world.post(&asked("/api/jobs/cancel"), &several).await;
        assert_eq!(answer.json(), cancelled, "{version}");
        let clear = r#"{"clear": true}"#;
        assert_eq!(world.post(&asked("/queue"), clear).await.status, 200, "{version}");
        let sim = world.sim(name);
        let gone = || waiting.iter().all(|id| sim.ledger().deleted.contains(id));
        until(&format!("{version}: what waited is gone"), gone).await;

        let body = json!({ "prompt_id": running }).to_string();
        assert_eq!(world.post(&asked("/interrupt"), &body).await.status, 200, "{version}");
        until(&format!("{version}: it is stopped"), || sim.ledger().interrupted.contains(&running))
            .await;
        socket.until_end(&running).await;
        let job = world.get(&asked(&format!("/api/jobs/{running}"))).await.json();
        assert_eq!(job["status"], "cancelled", "{version}: {job}");

        let again = world.submit(&client, &slow(500, 30.0)).await.prompt_id();
        socket.until("progress").await;
        let path = asked(&format!("/api/jobs/{again}/cancel"));
        assert_eq!(world.post(&path, "").await.json(), cancelled, "{version}");
        socket.until_end(&again).await;
        assert!(sim.ledger().interrupted.contains(&again), "{version}");

        let delete = json!({ "delete": [running] }).to_string();
        assert_eq!(world.post(&asked("/history"), &delete).await.status, 200, "{version}");
        let left = world.get(&asked("/history")).await.json();
        assert_eq!(left.as_object().unwrap().keys().collect::<Vec<_>>(), [&again], "{version}");
        assert_eq!(world.post(&asked("/history"), clear).await.status, 200, "{version}");
        assert_eq!(world.get(&asked("/history")).await.json(), json!({}), "{version}");
        assert_eq!(world.post(&asked("/free"), "{}").await.status, 200, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_go_with_their_client_from_version_to_version() {
    let world = fleet().await;
    for (from, _) in FLEET {
        only(&world, from);
        let (mine, other) = (format!("ada-{from}"), format!("bob-{from}"));
        let red = upload(&world, Some(&mine), "photo.png", &png(RED)).await;
        let blue = upload(&world, Some(&other), "photo.png", &png(BLUE)).await;
        assert_eq!(red.backend(), from);
        // First where the uploads are, which hold their clients there; then elsewhere.
        let others = FLEET.into_iter().map(|(name, _)| name).filter(|name| *name != from);
        for to in [from].into_iter().chain(others) {
            only(&world, to);
            for (client, file, colour) in [(&mine, &red, RED), (&other, &blue, BLUE)] {
                let (answer, images) = run(&world, client, &invert(&value(file))).await;
                assert_eq!(answer.backend(), to, "from {from}");
                let made = view(&world, &images[0], Some(client)).await;
                assert_eq!(color(&made.body), inverse(colour), "from {from} to {to}");
            }
        }
    }
}

/// An end is an end on each version: an error, and a prompt that is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_and_refusals_are_told_whatever_the_version() {
    let world = fleet().await;
    let mut socket = world.socket("ada").await;
    for (name, version) in FLEET {
        only(&world, name);
        let mut graph = slow(2, 0.01);
        graph["2"]["inputs"]["fail"] = json!(true);
        let failed = world.submit("ada", &graph).await.prompt_id();
        let error = socket.until("execution_error").await;
        assert_eq!(error["data"]["prompt_id"], failed, "{version}");
        assert_eq!(error["data"]["node_type"], "SlowSteps", "{version}");
        socket.until_end(&failed).await;
        let job = world.get(&format!("/api/jobs/{failed}?clientId=ada")).await.json();
        assert_eq!(job["status"], "failed", "{version}");
        assert_eq!(job["execution_error"]["node_id"], "2", "{version}: {job}");
        let lacks = json!({ "1": { "class_type": "NoSuchNode", "inputs": {} } });
        let refused = world.submit("ada", &lacks).await;
        assert_eq!(refused.status, 400, "{version}");
        assert!(refused.text().contains("NoSuchNode"), "{version}: {}", refused.text());
    }
    let all = world.get("/api/jobs?status=failed&clientId=ada").await.json();
    assert_eq!(all["pagination"]["total"], 3);
}
