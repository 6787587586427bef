//! What a crash of the gateway leaves: bindings, pending prompts, ends, and who made what.
//!
//! A crash is the end of everything the gateway had in memory and of all its connections, at
//! once: its runtime is dropped in the middle of whatever it did. What a SIGKILL does to the
//! executable is in `kills.rs`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use mooring::config::{Config, StateDir};
use mooring::discovery::Pod;
use mooring::front::Front;
use mooring::routing::files::{Maker, Place, Shown};
use mooring::routing::ids::{FileRef, Folder, Located};
use mooring::run::{self, Parts, Running};
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

use crate::support::{
    Answer, NAMES, PATIENCE, Socket, hosts, network, quick, send, slow, soon, until,
};

impl Drop for Mortal {
    fn drop(&mut self) {
        if let Some(Life { runtime, .. }) = self.life.take() {
            runtime.shutdown_background();
        }
    }
}

/// A gateway that can crash and start again, with backends that live on.
pub(crate) struct Mortal {
    pub(crate) sims: Vec<Sim>,
    pub(crate) folder: TempDir,
    /// Where Kubernetes is found.
    pub(crate) pod: Pod,
    life: Option<Life>,
}

/// One process, as far as a test can have one.
struct Life {
    running: Running,
    runtime: Runtime,
}

impl Mortal {
    pub(crate) async fn new(backends: usize) -> Self {
        Self::over(["a", "b", "c"].into_iter().take(backends).map(Options::named)).await
    }

    pub(crate) async fn over(options: impl IntoIterator<Item = Options>) -> Self {
        let mut sims = Vec::new();
        for options in options {
            sims.push(Sim::start(network(), options).await.unwrap());
        }
        let folder = tempfile::tempdir().unwrap();
        let mut mortal = Self { sims, folder, pod: Pod::default(), life: None };
        mortal.start().await;
        mortal
    }

    async fn start(&mut self) {
        self.start_with(|_| {}).await;
    }

    pub(crate) async fn start_with(&mut self, change: impl FnOnce(&mut Config)) {
        let urls: Vec<(String, String)> =
            self.sims.iter().map(|sim| (sim.name().to_owned(), sim.url())).collect();
        self.start_over(&urls, change).await;
    }

    pub(crate) async fn start_over(
        &mut self,
        urls: &[(String, String)],
        change: impl FnOnce(&mut Config),
    ) {
        let named: Vec<(&str, &str)> =
            urls.iter().map(|(name, url)| (name.as_str(), url.as_str())).collect();
        let mut config = Config::for_backends(&named).unwrap();
        config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.admin.listen = None;
        config.server.hosts = hosts(NAMES);
        config.state.dir = StateDir::Written(self.folder.path().to_owned());
        change(&mut config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let tasks = Tasks::default();
        let parts = Parts { pod: self.pod.clone(), ..Parts::default() };
        let started =
            runtime.spawn(async move { run::start(config, network(), &tasks, parts).await });
        self.life = Some(Life { running: started.await.unwrap().unwrap(), runtime });
    }

    /// Everything the gateway had in memory is gone.
    pub(crate) async fn crash(&mut self) {
        let Life { running, runtime } = self.life.take().unwrap();
        drop(running);
        // Waits for threads, which a test must not do on its own.
        let ended = move || runtime.shutdown_timeout(PATIENCE);
        tokio::task::spawn_blocking(ended).await.unwrap();
    }

    async fn restart(&mut self) {
        self.crash().await;
        self.start().await;
    }

    /// Where it keeps what survives it.
    pub(crate) fn state(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn gateway(&self) -> &Arc<Front> {
        &self.life.as_ref().unwrap().running.front
    }

    pub(crate) fn front(&self) -> SocketAddr {
        self.life.as_ref().unwrap().running.front_address
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.life.as_ref().unwrap().running.admin_address.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.front(), http::Method::GET, path, &[], "").await
    }

    pub(crate) async fn submit(&self, client: &str, graph: &Value) -> Answer {
        let body = json!({ "client_id": client, "prompt": graph }).to_string();
        send(self.front(), http::Method::POST, "/prompt", &[], &body).await
    }

    pub(crate) async fn socket(&self, client: &str) -> Socket {
        Socket::open(self.front(), &format!("/ws?clientId={client}")).await
    }

    pub(crate) fn sim(&self, name: &str) -> &Sim {
        self.sims.iter().find(|sim| sim.name() == name).unwrap()
    }

    pub(crate) fn pending(&self) -> usize {
        self.gateway().sessions.clients.all().iter().map(|client| client.pending().len()).sum()
    }
}

#[tokio::test]
async fn a_prompt_that_runs_through_a_crash_is_told_from_its_start_to_its_end() {
    let mut world = Mortal::new(2).await;
    let mut socket = world.socket("ada").await;
    let answer = world.submit("ada", &slow(1000, 60.0)).await;
    let (prompt, backend) = (answer.prompt_id(), answer.backend().to_owned());
    socket.until("progress").await;
    world.restart().await;

    let read = world.get("/history?clientId=ada").await;
    assert_eq!((read.backend(), read.header("mooring-placement")), (&*backend, "held"));
    let again = world.submit("ada", &quick(1)).await;
    assert_eq!(again.backend(), backend, "the binding is held");
    let mut socket = world.socket("ada").await;
    let start = socket.until("execution_start").await;
    assert_eq!(start["data"]["prompt_id"], prompt.as_str());
    socket.until("progress").await;
    let body = json!({ "prompt_id": prompt }).to_string();
    let path = "/interrupt?clientId=ada";
    assert_eq!(send(world.front(), http::Method::POST, path, &[], &body).await.status, 200);
    // In any order: what was missed of the first one is fetched before its end is told.
    let again = again.prompt_id();
    let (mut told, mut ended) = (Vec::new(), 0);
    while ended < 2 {
        let event = socket.event().await;
        let data = &event["data"];
        if data["prompt_id"] == prompt.as_str() {
            told.push(event["type"].as_str().unwrap().to_owned());
        }
        let is_ours = [&prompt, &again].iter().any(|id| data["prompt_id"] == id.as_str());
        ended += u32::from(is_ours && event["type"] == "executing" && data["node"].is_null());
    }
    assert!(told.contains(&"execution_interrupted".to_owned()), "{told:?}");
    assert_eq!(world.pending(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_and_what_waits_through_a_crash_are_told_in_their_turn() {
    let mut world = Mortal::new(1).await;
    let mut socket = world.socket("ada").await;
    // Longer than any end is waited for.
    let first = world.submit("ada", &slow(40, 4.0)).await.prompt_id();
    let second = world.submit("ada", &slow(10, 0.5)).await.prompt_id();
    socket.until("progress").await;
    world.restart().await;

    let mut socket = world.socket("ada").await;
    let mut told = Vec::new();
    while !told.contains(&"executing null of the second".to_owned()) {
        let event = socket.event().await;
        let (kind, data) = (event["type"].as_str().unwrap(), &event["data"]);
        let which = [(&first, "first"), (&second, "second")]
            .into_iter()
            .find_map(|(id, name)| (data["prompt_id"] == id.as_str()).then_some(name));
        let null = if data.get("node").is_some_and(Value::is_null) { " null" } else { "" };
        told.extend(which.map(|name| format!("{kind}{null} of the {name}")));
    }
    let at = |what: &str| told.iter().position(|it| it == what).expect(what);
    let turns = [
        at("execution_start of the first"),
        // It is said to run while it does, and not with its end.
        at("executing of the first"),
        at("execution_success of the first"),
        at("executing null of the first"),
        at("execution_start of the second"),
        at("progress of the second"),
        at("execution_success of the second"),
    ];
    assert!(turns.is_sorted(), "{turns:?} in {told:?}");
}

#[tokio::test]
async fn who_comes_back_after_a_crash_sees_which_node_works() {
    let mut world = Mortal::new(1).await;
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(1000, 500.0)).await.prompt_id();
    socket.until("progress").await;
    world.restart().await;
    let mut socket = world.socket("ada").await;
    let executing = socket.until("executing").await;
    assert_eq!(executing["data"]["prompt_id"], prompt.as_str());
    assert_eq!(executing["data"]["node"], "2");
}

#[tokio::test]
async fn a_prompt_that_ends_while_the_gateway_is_dead_is_told_with_its_outputs() {
    let mut world = Mortal::new(1).await;
    let mut socket = world.socket("ada").await;
    let prompt = world.submit("ada", &slow(20, 0.4)).await.prompt_id();
    socket.until("progress").await;
    world.crash().await;
    let sim = world.sim("a");
    until("the backend is done", || sim.ledger().finished.contains(&prompt)).await;
    world.start().await;
    let told = world.socket("ada").await.until_end(&prompt).await;
    assert_eq!(told.first().unwrap(), "execution_start");
    assert!(told.contains(&"executed".to_owned()), "{told:?}");
    assert!(told.contains(&"execution_success".to_owned()), "{told:?}");
    let entry = world.get(&format!("/history/{prompt}")).await.json();
    assert_eq!(entry[&prompt]["status"]["status_str"], "success");
}

#[tokio::test]
async fn an_end_that_nobody_heard_before_the_crash_is_told_after_it() {
    let mut world = Mortal::new(1).await;
    let mut unheard = Vec::new();
    for color in 0..3 {
        unheard.push(world.submit("script", &quick(color)).await.prompt_id());
    }
    until("all have ended", || world.pending() == 0).await;
    world.restart().await;
    let mut socket = world.socket("script").await;
    for prompt in unheard {
        let told = socket.until_end(&prompt).await;
        assert_eq!(told.first().unwrap(), "execution_start", "{told:?}");
        assert!(told.contains(&"executed".to_owned()), "{told:?}");
    }
}

#[tokio::test]
async fn a_prompt_that_its_backend_never_got_is_lost_and_not_sent_again() {
    let mut world = Mortal::new(1).await;
    // It is in the journal, and waits for a link that its backend refuses.
    world.sim("a").set_faults(|faults| faults.refuse_sockets = true);
    let front = world.front();
    let body = json!({ "client_id": "ada", "prompt_id": "never", "prompt": quick(1) }).to_string();
    let sending = Tasks::default();
    sending.spawn(async move { cut_off(front, &body).await });
    until("it is pending", || world.pending() == 1).await;
    world.gateway().shared.records.journal.durable().await.unwrap();
    world.crash().await;
    assert_eq!(sending.drain(PATIENCE).await, 0, "the connection ends");
    world.sim("a").set_faults(|faults| faults.refuse_sockets = false);
    world.start().await;
    let error = world.socket("ada").await.until("execution_error").await;
    let message = error["data"]["exception_message"].as_str().unwrap();
    assert!(message.contains("Mooring was restarted"), "{message}");
    assert_eq!(world.pending(), 0);
    assert!(world.sim("a").ledger().enqueued.is_empty());
}

/// Submits, and waits for the connection to end without an answer.
async fn cut_off(to: SocketAddr, body: &str) {
    let mut stream = network().connect(&to.ip().to_string(), to.port()).await.unwrap();
    let length = body.len();
    let head = format!("POST /prompt HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the connection ends", stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_reservation_and_the_ledger_survive_a_crash() {
    let mut world = Mortal::new(3).await;
    let path = "/upload/image?clientId=ada";
    let form = "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"p.png\"\r\n\r\n\
                abc\r\n--x--\r\n";
    let kind = [("content-type", "multipart/form-data; boundary=x")];
    let uploaded = send(world.front(), http::Method::POST, path, &kind, form).await;
    assert_eq!(uploaded.status, 200, "{}", uploaded.text());
    let made = world.submit("bob", &quick(3)).await;
    let prompt = made.prompt_id();
    until("it has ended", || world.pending() == 0).await;
    world.restart().await;
    let read = world.get("/queue?clientId=ada").await;
    assert_eq!(
        (read.backend(), read.header("mooring-placement")),
        (uploaded.backend(), "reserved")
    );
    let entry = world.get(&format!("/history/{prompt}")).await;
    assert_eq!((entry.backend(), entry.header("mooring-placement")), (made.backend(), "ledger"));
    let body = json!({ "client_id": "eve", "prompt_id": prompt, "prompt": quick(1) }).to_string();
    let taken = send(world.front(), http::Method::POST, "/prompt", &[], &body).await;
    assert_eq!(taken.header("mooring-error"), "prompt_id_known", "an id is never used twice");
}

#[tokio::test]
async fn whose_an_asset_is_survives_a_crash() {
    let mut world =
        Mortal::over(["a", "b"].map(|name| Options { assets: true, ..Options::named(name) })).await;
    let form = "--x\r\nContent-Disposition: form-data; name=\"tags\"\r\n\r\ninput\r\n--x\r\n\
                Content-Disposition: form-data; name=\"file\"; filename=\"p.png\"\r\n\r\n\
                abc\r\n--x--\r\n";
    let kind = [("content-type", "multipart/form-data; boundary=x")];
    let path = "/api/assets?clientId=ada";
    let uploaded = send(world.front(), http::Method::POST, path, &kind, form).await;
    assert_eq!(uploaded.status, 201, "{}", uploaded.text());
    let id = uploaded.json()["id"].as_str().unwrap().to_owned();
    world.restart().await;
    let own = world.get(&format!("/api/assets/{id}?clientId=ada")).await;
    assert_eq!((own.status, own.backend()), (200, uploaded.backend()));
    assert_eq!(world.get(&format!("/api/assets/{id}?clientId=bob")).await.status, 404);
    let list = world.get("/api/assets?clientId=bob").await.json();
    assert_eq!(list["total"], 0, "{list}");
}

#[tokio::test]
async fn lists_are_the_same_after_a_crash() {
    let mut world = Mortal::new(3).await;
    let mut made = Vec::new();
    for color in 0..3 {
        made.push(world.submit("ada", &quick(color)).await.prompt_id());
        until("it has ended", || world.pending() == 0).await;
    }
    let waiting = world.submit("ada", &slow(1000, 60.0)).await.prompt_id();
    world.restart().await;
    let history = world.get("/history?clientId=ada").await.json();
    assert_eq!(
        history.as_object().unwrap().keys().collect::<Vec<_>>(),
        made.iter().collect::<Vec<_>>()
    );
    let queue = world.get("/queue?clientId=ada").await;
    assert!(queue.text().contains(&waiting), "{}", queue.text());
    assert_eq!(world.get("/history?clientId=bob").await.json(), json!({}));
}

/// Two backends made the name: whose it is, and what it means to whom, survives.
#[tokio::test]
async fn names_of_files_mean_after_a_crash_what_they_meant() {
    let mut world = Mortal::new(2).await;
    let mut made = Vec::new();
    for (client, color) in [("ada", 1), ("bob", 2)] {
        let answer = world.submit(client, &quick(color)).await;
        until("it has ended", || world.pending() == 0).await;
        made.push(answer.backend().to_owned());
    }
    assert_ne!(made[0], made[1]);
    let view = |subfolder: &str| {
        format!("/view?filename=test_00001_.png&type=output&subfolder={subfolder}")
    };
    let (plain, other) = (view(""), view(&format!("~{}", made[1])));
    world.restart().await;
    // Whoever is first to say that it has the name now is not its owner for that.
    let gateway = world.gateway();
    let other_id = gateway.shared.fleet.by_name(&made[1]).unwrap().id;
    let file = FileRef::new(Folder::Output, "", "test_00001_.png").unwrap();
    let at = Located { backend: other_id, file };
    assert_eq!(gateway.shared.records.files_of(&at.file).shown(&at), Shown::WithBackend);
    assert_eq!(world.get(&plain).await.backend(), made[0]);
    assert_eq!(world.get(&other).await.backend(), made[1]);
    let bob = [Maker::Client(mooring::routing::ids::ClientId::parse("bob").unwrap())];
    // A crash may take the last moment with it: his prompt is asked about again then.
    let is_his = || {
        let files = gateway.shared.records.files_of(&at.file);
        files.find(Folder::Output, "test_00001_.png", &bob) == Some(&Place::Backend(other_id))
    };
    until("in a graph of his it is his", is_his).await;
}

/// T67: all bindings are there after a crash, and a client without a binding gets one.
#[tokio::test]
async fn five_hundred_clients_are_bound_after_a_crash_as_they_were() {
    let mut world = Mortal::new(3).await;
    let mut bound = Vec::new();
    for number in 0..500 {
        let answer = world.get(&format!("/history?clientId=c{number}")).await;
        bound.push(answer.backend().to_owned());
    }
    world.restart().await;
    let gateway = world.gateway();
    for (number, before) in bound.iter().enumerate() {
        let id = mooring::routing::ids::ClientId::parse(&format!("c{number}")).unwrap();
        let client = gateway.sessions.clients.get(&id).expect("every client is known");
        let (backend, _) = client.inspect(|core, _| core.bound()).expect("and is bound");
        assert_eq!(*gateway.shared.fleet.get(backend).name(), **before, "c{number}");
    }
}

/// V5: a server that was taken off because it is broken gets no work because of a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_said_of_a_backend_survives_a_crash() {
    let mut mortal = Mortal::new(2).await;
    let open = |config: &mut Config| config.admin.listen = Some(([127, 0, 0, 1], 0).into());
    mortal.crash().await;
    mortal.start_with(open).await;
    let admin = mortal.admin();
    let json = [("content-type", "application/json")];
    for (backend, body) in [
        ("a", r#"{"state":"off","by":"ada","why":"its fan"}"#),
        ("b", r#"{"state":"draining"}"#),
        ("b", r#"{"state":"ready"}"#),
    ] {
        let path = format!("/api/v1/backends/{backend}/state");
        let answer = send(admin, http::Method::POST, &path, &json, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    mortal.crash().await;
    mortal.start_with(open).await;
    let admin = mortal.admin();
    let report = send(admin, http::Method::GET, "/api/v1/backends", &[], "").await.json();
    let of = |at: usize| report["backends"][at].clone();
    assert_eq!((&of(0)["state"], &of(1)["state"]), (&json!("off"), &json!("ready")), "{report}");
    assert_eq!(of(0)["said"]["why"], "its fan");
    assert_eq!(of(0)["said"]["by"], "ada (127.0.0.1)");
    // Another server under the same name is a stranger: nothing was said of it.
    mortal.crash().await;
    let other = Sim::start(network(), Options::named("a")).await.unwrap();
    mortal.start_over(&[("a".to_owned(), other.url())], open).await;
    let admin = mortal.admin();
    let report = send(admin, http::Method::GET, "/api/v1/backends", &[], "").await.json();
    assert_eq!(report["backends"][0]["state"], "ready");
}
