//! The audit log: one line for each change, login and refusal, and nothing secret in any.

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use mooring::lines::Sink;
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{World, network, send, until};

/// An audit log of a world.
pub(crate) struct AuditLog {
    folder: TempDir,
    tasks: Tasks,
}

impl AuditLog {
    pub(crate) fn of(world: &World) -> Self {
        let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::default());
        let this = Self { folder, tasks };
        world
            .gateway
            .shared
            .audit
            .start(Sink::file("log.audit", this.path()).unwrap(), &this.tasks);
        this
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    /// Waits until so many lines are there, and gives them.
    pub(crate) async fn lines(&self, count: usize) -> Vec<Value> {
        until("the audit log has its lines", || count <= self.text().lines().count()).await;
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The end: what was noted is written by then.
    pub(crate) async fn end(self) -> String {
        self.tasks.stop();
        assert_eq!(self.tasks.drain(Duration::from_secs(20)).await, 0);
        self.text()
    }
}

/// What was done, and what came of it.
pub(crate) fn said(line: &Value) -> (&str, &str) {
    (line["what"].as_str().unwrap(), line["result"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_changes_is_noted_with_before_and_after() {
    let world = World::new(2).await;
    world.all_up().await;
    world.get("/queue?clientId=a-secret-client").await;
    let log = AuditLog::of(&world);
    let state =
        |state: &str| format!("{{\"state\": \"{state}\", \"by\": \"ann\", \"why\": \"x\"}}");
    world.admin_post("/api/v1/backends/a/state", &state("draining")).await;
    world.admin_post("/api/v1/backends/a/state", &state("gone")).await;
    world.admin_post("/api/v1/backends/none/state", &state("off")).await;
    world.admin_post("/api/v1/clients/a-secret-client/release", "").await;
    world.admin_post("/api/v1/backends/b/drain?wait=0s", "").await;
    world.reload(|config| config.affinity.lease = Duration::from_secs(77)).await.unwrap();
    let lines = log.lines(6).await;
    let told: Vec<(&str, &str)> = lines.iter().map(said).collect();
    assert_eq!(
        told,
        [
            ("backend.state", "done"),
            ("backend.state", "refused: 400 Bad Request"),
            ("backend.state", "refused: 404 Not Found"),
            ("client.release", "done"),
            ("backend.drain", "done"),
            ("configuration.reload", "done"),
        ]
    );
    let first = &lines[0];
    assert_eq!((&first["on"], &first["who"]["address"]), (&"a".into(), &"127.0.0.1".into()));
    let states = [&first["before"]["state"], &first["after"]["state"], &first["after"]["by"]];
    assert_eq!(states, [&Value::from("ready"), &"draining".into(), &"ann (127.0.0.1)".into()]);
    assert!(lines[2]["before"].is_null() && lines[2]["after"].is_null());
    assert!(lines[3]["on"].as_str().unwrap().starts_with("c-"), "{}", lines[3]);
    assert_eq!(lines[5]["who"]["by"], "files");
    assert_eq!(lines[5]["on"]["applied"], serde_json::json!(["affinity.lease"]));
    assert!(lines.iter().all(|line| line["time"].as_str().unwrap().ends_with('Z')));
    let text = log.end().await;
    assert!(!text.contains("a-secret-client"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_by_the_admin_listener_is_noted() {
    let token = Some(mooring::config::Secret::parse("s3cret-token").unwrap());
    let world = World::with(1, |config| config.admin.token = token).await;
    let log = AuditLog::of(&world);
    assert_eq!(world.admin_get("/api/v1/clients").await.status, 401);
    let lines = log.lines(1).await;
    assert_eq!(said(&lines[0]), ("listener.refused", "refused: 401 Unauthorized"));
    assert!(!log.end().await.contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_on_anothers_prompt_is_noted_without_a_clientid() {
    let world = World::new(1).await;
    world.all_up().await;
    let prompt = world.submit("owner-of-it", &crate::support::slow(3, 30.0)).await.prompt_id();
    let log = AuditLog::of(&world);
    let delete = format!("{{\"delete\": [\"{prompt}\"]}}");
    let one = format!("{{\"prompt_id\": \"{prompt}\"}}");
    let cancel = format!("/api/jobs/{prompt}/cancel");
    let verbs = ["queue.delete", "history.delete", "interrupt", "cancel"];
    for (path, body) in
        [("/queue", &delete), ("/history", &delete), ("/interrupt", &one), (&*cancel, &one)]
    {
        world.post(&format!("{path}?clientId=somebody-else"), body).await;
    }
    let lines = log.lines(verbs.len()).await;
    for (line, verb) in lines.iter().zip(verbs) {
        assert_eq!(said(line), ("prompt.command", "refused: it is another's"));
        assert_eq!(
            (&line["on"]["verb"], &line["on"]["prompt"]),
            (&Value::from(verb), &Value::from(&*prompt))
        );
    }
    assert!(lines[0]["on"]["client"].as_str().unwrap().starts_with("c-"), "{}", lines[0]);
    let text = log.end().await;
    assert!(!text.contains("owner-of-it") && !text.contains("somebody-else"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_that_are_put_and_removed_and_reloads_are_noted() {
    let world = World::new(1).await;
    world.all_up().await;
    let log = AuditLog::of(&world);
    let sim = Sim::start(network(), Options::named("more")).await.unwrap();
    let url = sim.url();
    let address = url.trim_start_matches("http://");
    let path = "/api/v1/backends/more";
    let body = serde_json::json!({ "url": sim.url(), "weight": 2 }).to_string();
    assert_eq!(send(world.admin, Method::PUT, path, &[], &body).await.status, 201);
    assert_eq!(send(world.admin, Method::PUT, path, &[], "{}").await.status, 422);
    assert!(send(world.admin, Method::DELETE, path, &[], "").await.status < 300);
    assert_eq!(world.admin_post("/api/v1/reload", "").await.status, 200);
    let lines = log.lines(4).await;
    let told: Vec<(&str, &str)> = lines.iter().map(said).collect();
    let put = ("backend.put", "done");
    let refused = ("backend.put", "refused: 422 Unprocessable Entity");
    let rest = [("backend.remove", "done"), ("configuration.reload", "done")];
    assert_eq!(told, [put, refused, rest[0], rest[1]]);
    assert!(lines[0]["before"].is_null() && lines[0]["on"] == "more", "{}", lines[0]);
    assert!(lines[0]["after"].to_string().contains(address), "{}", lines[0]);
    assert!(lines[2]["before"].to_string().contains(address), "{}", lines[2]);
    assert_eq!(lines[3]["who"]["address"], "127.0.0.1", "{}", lines[3]);
}
