//! A restart while the fleet changes: who drains goes on draining, and a name of a server, or its
//! address, is never taken for another server.

use std::fs;

use http::Method;
use mooring::config::Config;
use mooring::routing::ids::{FileRef, Folder, Located};
use mooring::sim::{Options, Sim};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kubernetes_api::{Endpoint, KubernetesApi};
use crate::process::Daemon;
use crate::restart::Mortal;
use crate::support::{Answer, Socket, World, found_by, network, quick, send, slow, soon, until};

async fn sim(name: &str) -> Sim {
    Sim::start(network(), Options::named(name)).await.unwrap()
}

fn with_admin(config: &mut Config) {
    config.admin.listen = Some(([127, 0, 0, 1], 0).into());
}

/// What operators are shown of a backend; null if it is not there.
async fn row(admin: std::net::SocketAddr, name: &str) -> Value {
    let shown = send(admin, Method::GET, "/api/v1/backends", &[], "").await.json();
    let mut rows = shown["backends"].as_array().unwrap().iter();
    rows.find(|it| it["name"] == name).cloned().unwrap_or_default()
}

async fn leaves(world: &Mortal, name: &str) {
    let fleet = &world.gateway().shared.fleet;
    until("it leaves when it has drained", || fleet.by_name(name).is_none()).await;
}

/// The operator takes a server out of the file and restarts: it drains as after a reload. Another
/// server has its name now, and is not asked about what is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pending_on_a_backend_that_the_file_does_not_name_any_more_goes_on() {
    let mut world = Mortal::new(2).await;
    let answer = world.submit("ada", &slow(40, 2.0)).await;
    let (prompt, home) = (answer.prompt_id(), answer.backend().to_owned());
    let (stays, _): (Vec<&Sim>, Vec<&Sim>) = world.sims.iter().partition(|it| it.name() != home);
    let (urls, stranger) = (vec![(home.clone(), stays[0].url())], stays[0].name().to_owned());
    world.crash().await;
    world.start_over(&urls, with_admin).await;
    let old = format!("{home}~old");
    let shown = row(world.admin(), &old).await;
    assert_eq!((&shown["wanted_by"], &shown["state"]), (&json!("none"), &json!("draining")));
    assert_eq!(shown["leaving"]["by"], "the configuration", "{shown}");
    let mut ada = world.socket("ada").await;
    let more = world.submit("ada", &quick(7)).await;
    assert_eq!(more.backend(), old, "who has work there stays");
    assert_eq!(world.submit("bob", &quick(1)).await.backend(), home, "nobody new comes");
    for prompt in [&prompt, &more.prompt_id()] {
        let seen = ada.until_end(prompt).await;
        assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
    }
    leaves(&world, &old).await;
    let is_asked = |seen: &mooring::sim::Seen| seen.target.contains(&prompt);
    let stranger = world.sims.iter().find(|sim| sim.name() == stranger).unwrap();
    assert!(!stranger.requests().iter().any(is_asked), "no stranger is asked about it");
}

/// Where the gateway listens now nobody else can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_idle_is_not_brought_back_and_what_cannot_be_is_lost() {
    let mut world = Mortal::new(2).await;
    let done = world.submit("ada", &quick(1)).await;
    until("it has ended", || world.pending() == 0).await;
    let running = world.submit("bob", &slow(400, 60.0)).await;
    assert_ne!(running.backend(), done.backend());
    let other = |name: &str| world.sims.iter().find(|it| it.name() == name).unwrap();
    // The gateway listens there now.
    let at = other(running.backend()).addr();
    let c = sim("c").await;
    let urls = vec![("c".to_owned(), c.url())];
    world.crash().await;
    let place = world.sims.iter().position(|it| it.addr() == at).unwrap();
    world.sims.remove(place).crash().await;
    world
        .start_over(&urls, |config| {
            config.server.listen = at;
        })
        .await;
    let names: Vec<_> = world.gateway().shared.fleet.iter().map(|it| it.name()).collect();
    assert_eq!(names.iter().map(|it| &**it).collect::<Vec<_>>(), ["c"]);
    let error = world.socket("bob").await.until("execution_error").await;
    assert_eq!(error["data"]["prompt_id"], running.prompt_id().as_str());
    let message = error["data"]["exception_message"].as_str().unwrap();
    assert!(message.contains("not configured any more"), "{message}");
}

async fn put(admin: std::net::SocketAddr, name: &str, body: &Value) -> Answer {
    let path = format!("/api/v1/backends/{name}");
    send(admin, Method::PUT, &path, &[], &body.to_string()).await
}

/// Removed by an operator, and what is left of one that was replaced: with the secrets that stand
/// in files, and with who did it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_an_operator_began_goes_on_after_a_restart_with_its_secret() {
    let (a, b, c, folder) =
        (sim("a").await, sim("b").await, sim("c").await, TempDir::new().unwrap());
    b.set_faults(|faults| "Bearer s3cret-1".clone_into(&mut faults.wants));
    let secrets = folder.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    let token = secrets.join("token");
    fs::write(&token, "Bearer s3cret-1").unwrap();
    let set = format!("admin.secrets_dir={}", secrets.display());
    let daemon = Daemon::start_with(&a, &folder, &["--set", &set]);
    let given = json!({
        "url": b.url(), "weight": 1000, "headers": { "Authorization": { "file": token } },
    });
    assert_eq!(put(daemon.admin, "b", &given).await.status, 201);
    let body = json!({ "client_id": "ada", "prompt": slow(40, 4.0) }).to_string();
    let submit = || send(daemon.front, Method::POST, "/prompt", &[], &body);
    let mut sent = submit().await;
    while sent.backend() != "b" {
        // It is asked first whether it is there.
        assert_eq!(sent.status, 200, "{}", sent.text());
        let reset = "/-/reset?clientId=ada&force=true";
        send(daemon.front, Method::POST, reset, &[], "").await;
        sent = submit().await;
    }
    // The name goes to another server, and then nobody wants that one either.
    assert_eq!(put(daemon.admin, "b", &json!({ "url": c.url() })).await.status, 200);
    let path = "/api/v1/backends/b~old";
    assert_eq!(send(daemon.admin, Method::DELETE, path, &[], "").await.status, 202);
    daemon.kill();
    let journal = fs::read(folder.path().join("state/journal.redb")).unwrap();
    let has = |text: &str| journal.windows(text.len()).any(|it| it == text.as_bytes());
    assert!(has("b~old") && !has("s3cret-1"), "secrets stay where they stand");
    let daemon = Daemon::start_with(&a, &folder, &["--set", &set]);
    let shown = row(daemon.admin, "b~old").await;
    assert_eq!((&shown["state"], &shown["held_clients"]), (&json!("draining"), &json!(1)));
    assert_eq!(shown["leaving"]["by"], "127.0.0.1", "{shown}");
    let mut ada = Socket::open(daemon.front, "/ws?clientId=ada").await;
    let seen = ada.until_end(&sent.prompt_id()).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
    soon("it leaves", async { while row(daemon.admin, "b~old").await != Value::Null {} }).await;
    // It has left for good.
    daemon.kill();
    let daemon = Daemon::start_with(&a, &folder, &["--set", &set]);
    assert_eq!(row(daemon.admin, "b~old").await, Value::Null);
    assert_ne!(row(daemon.admin, "b").await, Value::Null);
}

/// One that drains, and one that was added.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_cannot_be_read_at_a_start_is_read_by_a_later_reload() {
    let (a, b, c, folder) =
        (sim("a").await, sim("b").await, sim("c").await, TempDir::new().unwrap());
    let secrets = folder.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    let tokens = ["b", "c"].map(|name| secrets.join(name));
    tokens.iter().for_each(|it| fs::write(it, "Bearer s3cret-1").unwrap());
    let set = format!("admin.secrets_dir={}", secrets.display());
    let more = ["--set", &set];
    let daemon = Daemon::start_with(&a, &folder, &more);
    let given = |sim: &Sim, token: &std::path::Path, weight: u32| {
        let headers = json!({ "Authorization": { "file": token } });
        json!({ "url": sim.url(), "weight": weight, "headers": headers })
    };
    assert_eq!(put(daemon.admin, "b", &given(&b, &tokens[0], 1000)).await.status, 201);
    let body = json!({ "client_id": "ada", "prompt": slow(400, 120.0) }).to_string();
    let submit = || send(daemon.front, Method::POST, "/prompt", &[], &body);
    let mut sent = submit().await;
    while sent.backend() != "b" {
        // It is asked first whether it is there.
        assert_eq!(sent.status, 200, "{}", sent.text());
        let reset = "/-/reset?clientId=ada&force=true";
        send(daemon.front, Method::POST, reset, &[], "").await;
        sent = submit().await;
    }
    assert_eq!(put(daemon.admin, "c", &given(&c, &tokens[1], 1)).await.status, 201);
    let path = "/api/v1/backends/b";
    assert_eq!(send(daemon.admin, Method::DELETE, path, &[], "").await.status, 202);
    daemon.kill();
    // The volume is not there yet, and not at the next start either.
    tokens.iter().for_each(|it| fs::remove_file(it).unwrap());
    Daemon::start_with(&a, &folder, &more).kill();
    let daemon = Daemon::start_with(&a, &folder, &more);
    assert_eq!(row(daemon.admin, "b").await["state"], "draining");
    let reload = async || send(daemon.admin, Method::POST, "/api/v1/reload", &[], "").await.json();
    let secret = "Bearer s3cret-1";
    fs::write(&tokens[0], secret).unwrap();
    let told = reload().await;
    assert_eq!(told["applied"], json!(["backends"]), "that of the one that drains: {told}");
    assert!(told["warnings"][0].as_str().unwrap().contains("backends.c.headers"), "{told}");
    fs::write(&tokens[1], secret).unwrap();
    let told = reload().await;
    assert_eq!((&told["applied"], &told["warnings"]), (&json!(["backends"]), &Value::Null));
    assert_eq!(reload().await["applied"], json!([]), "all is read");
}

fn endpoint(uid: &str, sim: &Sim) -> Endpoint {
    let (pod, uid) = ("comfyui-0".to_owned(), uid.to_owned());
    Endpoint { pod, uid, at: sim.addr(), is_ready: true }
}

fn discovers(config: &mut Config) {
    with_admin(config);
    config.backends.clear();
    config.discovery = found_by(&[("gpus.kubernetes", "comfyui:http")]);
}

/// A gateway that has found the simulated server `a` as a pod.
async fn in_kubernetes(api: &KubernetesApi) -> Mortal {
    let mut world = Mortal::new(1).await;
    world.crash().await;
    world.pod = api.pod();
    api.set("s", &[endpoint("u0", &world.sims[0])], &Value::Null);
    world.start_with(discovers).await;
    let fleet = &world.gateway().shared.fleet;
    until("it is up", || fleet.iter().any(|it| it.is_up())).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_gone_from_its_service_drains_on_after_a_restart() {
    let api = KubernetesApi::start().await;
    let mut world = in_kubernetes(&api).await;
    let prompt = world.submit("ada", &slow(40, 3.0)).await.prompt_id();
    let unready = Endpoint { is_ready: false, ..endpoint("u0", &world.sims[0]) };
    api.set("s", &[unready], &Value::Null);
    let goes = |world: &Mortal| {
        let backend = world.gateway().shared.fleet.by_name("comfyui-0");
        backend.is_some_and(|it| it.going().is_some_and(|it| &*it.by == "discovery.gpus"))
    };
    until("it is to leave", || goes(&world)).await;
    world.crash().await;
    world.start_with(discovers).await;
    assert!(goes(&world), "it drains still");
    let seen = world.socket("ada").await.until_end(&prompt).await;
    assert!(seen.contains(&"execution_success".to_owned()), "{seen:?}");
    leaves(&world, "comfyui-0").await;
}

/// R3: another pod has the name and the address. What the one before had is nobody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_pod_are_not_another_pods_at_its_address_after_a_restart() {
    let api = KubernetesApi::start().await;
    let mut world = in_kubernetes(&api).await;
    let made = world.submit("ada", &quick(1)).await;
    until("it has ended", || world.pending() == 0).await;
    let view = "/view?filename=test_00001_.png&type=output";
    assert_eq!(world.get(view).await.status, 200);
    let listen = world.sims[0].addr();
    world.sims.remove(0).crash().await;
    let b = Sim::start(network(), Options { listen, ..Options::named("b") }).await.unwrap();
    api.set("s", &[endpoint("u9", &b)], &Value::Null);
    world.sims.push(b);
    let is_other = |world: &Mortal| {
        let pod = world.gateway().shared.fleet.by_name("comfyui-0");
        pod.is_some_and(|it| it.is_up() && it.identity().as_deref() == Some("u9"))
    };
    until("the other pod is up", || is_other(&world)).await;
    world.gateway().shared.records.journal.durable().await.unwrap();
    world.crash().await;
    world.start_with(discovers).await;
    until("the other pod is up", || is_other(&world)).await;
    // It makes a file of the same name.
    assert_eq!(world.submit("bob", &quick(2)).await.status, 200);
    until("it has ended", || world.pending() == 0).await;
    let gone = world.get(view).await;
    assert_ne!(gone.status, 200, "a link means what it meant");
    assert_eq!(gone.header("mooring-error"), "file_gone", "{}", gone.text());
    let own = world.get(&format!("{view}&subfolder=~comfyui-0")).await;
    assert_eq!(own.status, 200, "the name was given to nobody before: {}", own.text());
    let history = world.get(&format!("/history/{}", made.prompt_id())).await;
    assert!(!history.text().contains("~comfyui-0"), "{}", history.text());
}

/// Where a picture is that was told with the name of its backend.
async fn tagged(world: &World, client: &str, color: u32) -> (String, String) {
    let made = world.submit(client, &quick(color)).await;
    let (prompt, backend) = (made.prompt_id(), made.backend().to_owned());
    world.socket(client).await.until_end(&prompt).await;
    let entry = world.get(&format!("/history/{prompt}")).await.json()[&prompt].clone();
    let image = &entry["outputs"]["3"]["images"][0];
    (backend, image["subfolder"].as_str().unwrap().to_owned())
}

/// R3: `~NAME` means the server that it was given out for, whoever is called so later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_was_given_out_for_a_server_never_leads_to_another() {
    let world = World::new(2).await;
    let (owner, _) = tagged(&world, "ada", 1).await;
    let (other, subfolder) = tagged(&world, "bob", 2).await;
    assert_ne!(owner, other);
    assert_eq!(subfolder, format!("~{other}"));
    let view = |subfolder: &str| {
        format!("/view?filename=test_00001_.png&type=output&subfolder={subfolder}")
    };
    let picture = world.get(&view(&subfolder)).await.body;
    // Another server takes its name, and makes a file of that name too.
    let c = sim("c").await;
    let moved = Config::for_backends(&[(&other, &c.url())]).unwrap().backends.remove(0);
    let change = |config: &mut Config| {
        let at = config.backends.iter().position(|it| it.name == other).unwrap();
        config.backends[at] = moved.clone();
    };
    world.reload(change).await.unwrap();
    let old = format!("{other}~old");
    let fleet = &world.gateway.shared.fleet;
    until("the one before leaves", || fleet.by_name(&old).is_none()).await;
    world.all_up().await;
    let state = format!("/api/v1/backends/{owner}/state");
    assert_eq!(world.admin_post(&state, r#"{"state":"draining"}"#).await.status, 200);
    let (third, its) = tagged(&world, "cyd", 3).await;
    assert_eq!(third, other, "it has the name");
    assert!(its.starts_with(&format!("~{other}-")), "{its}");
    let shown = world.get(&view(&its)).await;
    assert_eq!((shown.status, shown.backend()), (200, &*other));
    assert_ne!(shown.body, picture);
    let gone = world.get(&view(&subfolder)).await;
    assert_eq!(gone.status, 503, "{}", gone.text());
    // In a graph as well.
    let graph = json!({
        "1": { "class_type": "LoadImage",
               "inputs": { "image": format!("{subfolder}/test_00001_.png [output]") } },
        "2": { "class_type": "SaveImage",
               "inputs": { "images": ["1", 0], "filename_prefix": "x" } },
    });
    let refused = world.submit("eve", &graph).await;
    assert_ne!(refused.status, 200, "{}", refused.text());
}

/// Two servers have made a file of one name, and the name of the second's was given out and is
/// kept: that server, and how its file is asked for.
async fn told_of_the_second(world: &Mortal) -> (String, String) {
    let mut made = Vec::new();
    for (client, color) in [("ada", 1), ("bob", 2)] {
        made.push(world.submit(client, &quick(color)).await.backend().to_owned());
        until("it has ended", || world.pending() == 0).await;
    }
    let other = made[1].clone();
    let view = format!("/view?filename=test_00001_.png&type=output&subfolder=~{other}");
    let backend = world.gateway().shared.fleet.by_name(&other).unwrap().id;
    let file = FileRef::of_path(Folder::Output, "test_00001_.png").unwrap();
    let at = Located { backend, file };
    let records = &world.gateway().shared.records;
    until("it is known", || records.files_of(&at.file).holder(&at).is_some()).await;
    let listed = world.get("/history?clientId=bob").await.text();
    assert!(listed.contains(&format!("~{other}")), "it was given out: {listed}");
    world.gateway().shared.records.journal.durable().await.unwrap();
    (other, view)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_was_given_out_means_the_same_server_after_a_restart() {
    let mut world = Mortal::new(2).await;
    let (other, view) = told_of_the_second(&world).await;
    // Its name is another server's from now on, and it has another itself.
    let c = sim("c").await;
    let url = |name: &str| world.sim(name).url();
    let urls = vec![(other.clone(), c.url()), ("zeta".to_owned(), url(&other))];
    world.crash().await;
    world.start_over(&urls, |_| {}).await;
    let fleet = &world.gateway().shared.fleet;
    until("all are up", || fleet.iter().all(|it| it.is_up())).await;
    let shown = world.get(&view).await;
    assert_eq!((shown.status, shown.backend()), (200, "zeta"), "{}", shown.text());
    // And when it is gone, nobody's.
    let urls = vec![(other.clone(), c.url())];
    world.crash().await;
    world.start_over(&urls, |_| {}).await;
    let gone = world.get(&view).await;
    assert_eq!(gone.header("mooring-error"), "file_gone", "{}", gone.text());
}

/// R3: it is told which server it is after the name was given out, and then another one has its
/// address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_a_server_of_which_more_is_told_later_never_leads_to_another() {
    let world = World::new(2).await;
    let (owner, _) = tagged(&world, "ada", 1).await;
    let (other, subfolder) = tagged(&world, "bob", 2).await;
    assert_ne!(owner, other);
    let view = format!("/view?filename=test_00001_.png&type=output&subfolder={subfolder}");
    let shared = &world.gateway.shared;
    let backends = shared.config_kept().backends.clone();
    let told = |identity: &str| {
        let mut backends = backends.clone();
        let it = backends.iter_mut().find(|it| it.name == other).unwrap();
        it.identity = Some(identity.into());
        world.gateway.sessions.change_fleet(&backends).unwrap();
    };
    told("u0");
    let shown = world.get(&view).await;
    assert_eq!((shown.status, shown.backend()), (200, &*other), "{}", shown.text());
    told("u9");
    world.all_up().await;
    let gone = world.get(&view).await;
    assert_ne!(gone.status, 200, "another pod has the address");
}

/// The same where it is told at one start, and another one is there at the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_a_server_at_a_start_is_told_of_its_names() {
    let mut world = Mortal::new(2).await;
    let (other, view) = told_of_the_second(&world).await;
    for (identity, is_it) in [("u0", true), ("u9", false)] {
        world.crash().await;
        let tell = |config: &mut Config| {
            let it = config.backends.iter_mut().find(|it| it.name == other).unwrap();
            it.identity = Some(identity.into());
        };
        world.start_with(tell).await;
        let fleet = &world.gateway().shared.fleet;
        until("all are up", || fleet.iter().all(|it| it.is_up())).await;
        let shown = world.get(&view).await;
        assert_eq!(shown.status == 200, is_it, "{identity}: {}", shown.text());
        world.gateway().shared.records.journal.durable().await.unwrap();
    }
}
