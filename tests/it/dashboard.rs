//! The dashboard: what it is told, and to whom it answers.

use std::net::SocketAddr;

use http::Method;
use mooring::config::Secret;
use mooring::net::Stream;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{World, network, quick, send, slow, soon};

const TOKEN: &str = "token-of-the-operator";

const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml");

/// A page that listens.
pub(crate) struct Watching {
    stream: Stream,
    read: Vec<u8>,
}

impl Watching {
    pub(crate) async fn open(admin: SocketAddr, headers: &str) -> Self {
        let mut stream = network().connect("127.0.0.1", admin.port()).await.unwrap();
        let head = format!("GET /api/v1/live HTTP/1.1\r\nhost: {admin}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Self { stream, read: Vec::new() }
    }

    /// The next snapshot; `None` once the answer has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.taken() {
                return Some(event);
            }
            let count = soon("more of the answer", self.stream.read_buf(&mut self.read)).await;
            if count.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    fn taken(&mut self) -> Option<Value> {
        let text = String::from_utf8_lossy(&self.read).into_owned();
        let (_, rest) = text.split_once("data: ")?;
        let (event, rest) = rest.split_once("\n\n")?;
        self.read = rest.as_bytes().to_vec();
        Some(serde_json::from_str(event).unwrap())
    }

    /// The first snapshot of which this is true.
    pub(crate) async fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let seen = self.next().await.expect("the answer goes on");
            if is_it(&seen) {
                return seen;
            }
        }
    }
}

#[tokio::test]
async fn a_browser_gets_the_page_and_a_script_the_list_of_endpoints() {
    let world = World::new(1).await;
    let page = send(world.admin, Method::GET, "/", &[HTML], "").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"));
    assert!(page.text().contains("/dashboard/main.js"));
    let script = send(world.admin, Method::GET, "/dashboard/main.js", &[], "").await;
    assert_eq!((script.status, script.header("x-content-type-options")), (200, "nosniff"));
    assert!(world.admin_get("/").await.json()["endpoints"].is_array());
    assert_eq!(world.admin_get("/dashboard/../api.rs").await.status, 404);
    assert_eq!(send(world.admin, Method::POST, "/dashboard/main.js", &[], "").await.status, 404);
}

#[tokio::test]
async fn it_is_told_what_changes() {
    let world = World::new(2).await;
    let mut page = Watching::open(world.admin, "").await;
    let first = page.next().await.unwrap();
    assert_eq!(first["backends"][1]["name"], "b");
    assert_eq!((&first["ready"], &first["clients"]["working"]), (&true.into(), &0.into()));

    world.admin_post("/api/v1/backends/b/state", r#"{"state": "draining", "why": "fan"}"#).await;
    let drained = page.until(|seen| seen["backends"][1]["state"] == "draining").await;
    assert_eq!(drained["backends"][1]["said"]["why"], "fan");

    let prompt = world.submit("ada", &slow(100, 300.0)).await.prompt_id();
    let busy = page.until(|seen| seen["backends"][0]["running"] == 1).await;
    let client = &busy["clients"]["shown"][0];
    assert_eq!(
        (&client["client"]["client_id"], &client["client"]["backend"]),
        (&"ada".into(), &"a".into())
    );
    assert_eq!(client["prompts"][0]["prompt_id"], prompt.as_str());

    world.post("/interrupt", &format!(r#"{{"prompt_id": "{prompt}"}}"#)).await;
    let over = page.until(|seen| seen["ended"][0]["prompt_id"] == prompt.as_str()).await;
    let end = &over["ended"][0];
    assert_eq!(end["outcome"], "interrupted");
    assert_eq!((&end["client"], &end["backend"]), (&"ada".into(), &"a".into()));
}

#[tokio::test]
async fn who_comes_later_is_told_all_at_once() {
    let world = World::new(1).await;
    let mut first = Watching::open(world.admin, "").await;
    first.next().await.unwrap();
    let answer = world.submit("ada", &quick(1)).await;
    let prompt = answer.prompt_id();
    first.until(|seen| seen["ended"][0]["prompt_id"] == prompt.as_str()).await;
    let mut second = Watching::open(world.admin, "").await;
    assert_eq!(second.next().await.unwrap()["ended"][0]["prompt_id"], prompt.as_str());
}

#[tokio::test]
async fn an_open_page_does_not_hold_a_stop_up() {
    let world = World::new(1).await;
    let mut page = Watching::open(world.admin, "").await;
    page.next().await.unwrap();
    let (left, ()) = tokio::join!(world.stopped(), async { while page.next().await.is_some() {} });
    assert_eq!(left, 0, "no task is left");
}

/// Whoever has a name in common with others, or calls himself as another's hash: the hash of a
/// client means that one alone.
#[tokio::test]
async fn a_hash_means_one_client_whatever_others_call_themselves() {
    let world = World::new(1).await;
    world.submit("ada", &slow(20, 300.0)).await;
    let clients = world.admin_get("/api/v1/clients").await.json();
    let hash = clients["clients"][0]["hash"].as_str().unwrap().to_owned();
    world.submit(&hash, &slow(20, 300.0)).await;
    let told = world.admin_get(&format!("/api/v1/clients/{hash}")).await.json();
    assert_eq!(told["client_id"], "ada");
    let released =
        world.admin_post(&format!("/api/v1/clients/{hash}/release?force=true"), "").await;
    assert_eq!(released.json()["cut_off"], 1);
    assert_eq!(world.admin_get("/api/v1/clients/ada").await.json()["pending"], 0);
}

#[tokio::test]
async fn with_a_token_nothing_is_shown_without_it() {
    let world =
        World::with(1, |config| config.admin.token = Some(Secret::parse(TOKEN).unwrap())).await;
    for path in ["/", "/dashboard/main.js", "/dashboard/style.css"] {
        assert_eq!(send(world.admin, Method::GET, path, &[HTML], "").await.status, 200, "{path}");
    }
    let own = ("sec-fetch-site", "same-origin");
    let bearer = format!("Bearer {TOKEN}");
    for path in ["/api/v1/live", "/api/v1/backends", "/api/v1/clients", "/metrics", "/dashboard/x"]
    {
        assert_eq!(send(world.admin, Method::GET, path, &[own], "").await.status, 401, "{path}");
        let wrong = [own, ("authorization", "Bearer token-of-the-operato")];
        assert_eq!(send(world.admin, Method::GET, path, &wrong, "").await.status, 401, "{path}");
    }
    let with = [own, ("authorization", bearer.as_str())];
    assert_eq!(send(world.admin, Method::GET, "/api/v1/backends", &with, "").await.status, 200);
    let mut page = Watching::open(world.admin, &format!("authorization: {bearer}\r\n")).await;
    assert!(page.next().await.is_some());
}

#[tokio::test]
async fn with_the_token_for_looking_nothing_can_be_changed_and_nobody_is_named() {
    const LOOKS: &str = "token-of-a-screen";
    let tokens = |config: &mut mooring::config::Config| {
        config.admin.token = Some(Secret::parse(TOKEN).unwrap());
        config.admin.read_token = Some(Secret::parse(LOOKS).unwrap());
    };
    let world = World::with(1, tokens).await;
    world.all_up().await;
    let name = "a-secret-client";
    let ended = world.submit(name, &quick(1)).await.prompt_id();
    let looks = format!("Bearer {LOOKS}");
    let bearer = [("authorization", looks.as_str())];
    let mut page = Watching::open(world.admin, &format!("authorization: {looks}\r\n")).await;
    let seen = page.until(|seen| seen["ended"][0]["prompt_id"].is_string()).await;
    assert!(!seen.to_string().contains(&ended), "who knows its id gets its graph: {seen}");
    let prompt = world.submit(name, &slow(100, 300.0)).await.prompt_id();
    let seen = page.until(|seen| seen["backends"][0]["running"] == 1).await;
    assert_eq!(seen["may"], "look");
    let hash = seen["clients"]["shown"][0]["client"]["hash"].as_str().unwrap().to_owned();
    assert_eq!(seen["ended"][0]["client"], hash.as_str());
    assert!(hash.starts_with("c-") && !seen.to_string().contains(name), "{seen}");
    assert!(!seen.to_string().contains(&prompt), "{seen}");

    let client = format!("/api/v1/clients/{hash}");
    let explain = format!("/api/v1/explain?prompt={prompt}");
    for path in ["/api/v1/clients", &client, &explain, "/api/v1/backends", "/readyz", "/metrics"] {
        let told = send(world.admin, Method::GET, path, &bearer, "").await;
        assert_eq!(told.status, 200, "{path}");
        assert!(!told.text().contains(name), "{path}: {}", told.text());
        let knows = path == explain || told.text().find(&prompt).is_none();
        assert!(knows, "{path}: {}", told.text());
    }
    let told = send(world.admin, Method::GET, &explain, &bearer, "").await.json();
    assert_eq!(
        (&told["prompt"]["client_id"], &told["client"]["hash"]),
        (&hash.clone().into(), &hash.clone().into())
    );

    let cancel = format!("/api/v1/prompts/{prompt}/cancel");
    let release = format!("{client}/release?force=true");
    for (method, path) in [
        (Method::POST, "/api/v1/backends/a/state"),
        (Method::PUT, "/api/v1/backends/b"),
        (Method::DELETE, "/api/v1/backends/a"),
        (Method::GET, "/api/v1/backends/a/drain"),
        (Method::HEAD, "/api/v1/backends/a/drain"),
        (Method::POST, "/api/v1/backends/a/drain"),
        (Method::POST, release.as_str()),
        (Method::POST, cancel.as_str()),
        (Method::POST, "/api/v1/reload"),
        (Method::POST, "/livez"),
    ] {
        let body = r#"{"state": "draining"}"#;
        let refused = send(world.admin, method.clone(), path, &bearer, body).await;
        assert_eq!(refused.status, 403, "{method} {path}");
        assert!(method == Method::HEAD || refused.text().contains("may only look"), "{path}");
    }
    let acts = format!("Bearer {TOKEN}");
    let acts = [("authorization", acts.as_str())];
    let told = send(world.admin, Method::GET, "/api/v1/clients", &acts, "").await.json();
    assert_eq!(
        (&told["clients"][0]["client_id"], &told["clients"][0]["pending"]),
        (&name.into(), &1.into())
    );
    let told = send(world.admin, Method::GET, "/api/v1/backends", &acts, "").await.json();
    assert_eq!(told["backends"][0]["state"], "ready");
}

/// Origin and Fetch Metadata of a request, and whether it may act.
#[tokio::test]
async fn only_its_own_page_acts() {
    let world = World::new(1).await;
    let own = format!("http://{}", world.admin);
    let path = "/api/v1/backends/a/state";
    for (headers, expected) in [
        (vec![], 200),
        (vec![("origin", own.as_str())], 200),
        (vec![("origin", own.as_str()), ("sec-fetch-site", "same-origin")], 200),
        (vec![("origin", own.as_str()), ("sec-fetch-site", "cross-site")], 403),
        (vec![("origin", "http://evil.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("origin", "http://127.0.0.1:1"), ("sec-fetch-site", "same-site")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], 403),
    ] {
        let state = if expected == 200 { "ready" } else { "draining" };
        let body = format!(r#"{{"state": "{state}"}}"#);
        let answer = send(world.admin, Method::POST, path, &headers, &body).await;
        assert_eq!(answer.status, expected, "{headers:?}");
        let told = world.admin_get("/api/v1/backends").await.json();
        assert_eq!(told["backends"][0]["state"], "ready", "{headers:?}");
    }
}
