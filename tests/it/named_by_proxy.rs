//! Who is let in under `auth.mode = "header"`: whom a trusted proxy names, and nobody else.

use std::net::SocketAddr;

use http::Method;
use mooring::auth::Role;
use mooring::config::{AuthMode, Config, OnOff};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::audit::{AuditLog, said};
use crate::keys::close_code;
use crate::support::{Answer, Socket, World, network, quick, send, soon};

/// By the way of what is only passed on, and by the other.
const BOTH_WAYS: [&str; 2] = ["/system_stats?x=1", "/embeddings?filename=x"];

const ADA: (&str, &str) = ("x-forwarded-user", "ada");

fn config(config: &mut Config) {
    config.auth.mode = AuthMode::Header;
    config.auth.header = Some("x-forwarded-user".parse().unwrap());
    config.auth.groups_header = Some("remote-groups".parse().unwrap());
    config.auth.group_roles = vec![("guests".to_owned(), Role::Viewer)];
    config.server.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
}

async fn world(change: impl FnOnce(&mut Config)) -> World {
    let world = World::with(1, |it| {
        config(it);
        change(it);
    })
    .await;
    world.all_up().await;
    world
}

fn told(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("mooring-error"))
}

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(world.front, Method::GET, path, headers, "").await
}

/// What the only backend was told in the last request for a path.
fn headers_of(world: &World, target: &str) -> http::HeaderMap {
    let seen = world.sim("a").requests();
    seen.into_iter().rev().find(|it| it.target == target).expect("it was asked").headers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_proxy_names_comes_in_and_no_backend_is_told() {
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = world(|config| config.server.passthrough = passthrough).await;
        for path in BOTH_WAYS {
            for lines in [
                &[ADA][..],
                &[("X-Forwarded-User", " ada "), ("Remote-Groups", "a, b")],
                &[ADA, ("x-forwarded-for", "198.51.100.7"), ("x-forwarded-proto", "https")],
                &[ADA, ("Comfy-User", "bob"), ("comfy-user", "bob")],
            ] {
                let answer = get(&world, path, lines).await;
                assert_eq!(answer.status, 200, "{path} {lines:?}: {}", answer.text());
                assert!(answer.header("cache-control").contains("private"), "{path}");
                let seen = headers_of(&world, path);
                assert!(!seen.contains_key("x-forwarded-user"), "{path} {lines:?}");
                assert!(!seen.contains_key("remote-groups"), "{path} {lines:?}");
                assert!(!seen.contains_key("comfy-user"), "{path} {lines:?}");
            }
        }
        let who = get(&world, "/-/whoami", &[ADA]).await.json();
        assert_eq!((&who["user"]["name"], &who["user"]["role"]), (&"ada".into(), &"artist".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_double_and_empty_is_nobody() {
    let world = world(|_| {}).await;
    let groups = ("remote-groups", "guests");
    for path in BOTH_WAYS.into_iter().chain(["/", "/-/whoami", "/-/health", "/ws", "/-/login"]) {
        for lines in [
            &[][..],
            &[("x-forwarded-user", "")],
            &[ADA, ADA],
            &[ADA, ("x-forwarded-user", "eve")],
            &[("x-forwarded-user", "ada,eve")],
            &[("x-forwarded-user", "ada lovelace")],
            &[("x_forwarded_user", "ada")],
            &[("remote-user", "ada"), groups],
            &[ADA, groups, groups],
            &[("authorization", "Bearer x"), ("x-api-key", "y")],
        ] {
            let answer = get(&world, path, lines).await;
            assert_eq!(told(&answer), (401, "unauthorized"), "{path} {lines:?}");
            assert!(!answer.header("www-authenticate").is_empty());
        }
    }
    let asked = world.sim("a").requests();
    assert!(asked.iter().all(|it| !BOTH_WAYS.contains(&it.target.as_str())), "no server hears");
    let metrics = world.admin_get("/metrics").await.text();
    for reason in ["missing", "ambiguous", "bad_name"] {
        let line = format!("mooring_auth_refused_total{{reason=\"{reason}\"}} ");
        assert!(metrics.contains(&line), "{reason}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_but_the_proxy_is_believed() {
    let elsewhere = world(|config| {
        config.server.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .await;
    for path in BOTH_WAYS {
        // Not even who says that he comes from there.
        for lines in [&[ADA][..], &[ADA, ("x-forwarded-for", "10.0.0.7")]] {
            let answer = get(&elsewhere, path, lines).await;
            assert_eq!(told(&answer), (401, "unauthorized"), "{path} {lines:?}");
        }
    }
    // Under another mode it says nothing.
    let off = world(|config| config.auth.mode = AuthMode::Off).await;
    let who = get(&off, "/-/whoami", &[ADA]).await.json();
    assert!(who["user"].is_null(), "{who}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_say_what_somebody_may_do() {
    let open = world(|_| {}).await;
    let closed = world(|config| config.auth.default_role = None).await;
    let guest = [ADA, ("remote-groups", "staff, guests"), ("sec-fetch-site", "same-origin")];
    let nobody = [ADA, ("remote-groups", "staff"), ("sec-fetch-site", "same-origin")];
    for world in [&open, &closed] {
        assert_eq!(get(world, "/queue", &guest).await.status, 200);
        let answer = send(world.front, Method::POST, "/interrupt", &guest, "").await;
        assert_eq!(told(&answer), (403, "viewers_only_read"));
    }
    for path in BOTH_WAYS {
        assert_eq!(get(&open, path, &nobody).await.status, 200);
        assert_eq!(told(&get(&closed, path, &nobody).await), (403, "no_role"));
    }
}

/// A browser sends what the proxy knows it by along with whatever any page makes it send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_something_has_to_say_of_which_page_it_is() {
    let origins = ["https://app.example", "null"].map(str::to_owned);
    let world = world(|config| config.server.allowed_origins = origins.to_vec()).await;
    let body = serde_json::json!({ "client_id": "ada", "prompt": quick(1) }).to_string();
    for (page, expected) in [
        (("sec-fetch-site", "same-origin"), (200, "")),
        (("origin", "https://app.example"), (200, "")),
        (("x", "y"), (403, "page_unsaid")),
        (("origin", ""), (403, "page_unsaid")),
        (("sec-fetch-site", "cross-site"), (403, "foreign_origin")),
        (("origin", "https://evil.example"), (403, "foreign_origin")),
        (("origin", "null"), (401, "unauthorized")),
    ] {
        let answer = send(world.front, Method::POST, "/prompt", &[ADA, page], &body).await;
        assert_eq!(told(&answer), expected, "{page:?}");
    }
    for (page, status) in [("", "403"), ("Origin: https://evil.example\r\n", "403")] {
        let head = format!(
            "GET /ws?clientId=ada HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nX-Forwarded-User: ada\r\n{page}Sec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        assert!(
            raw(world.front, &head).await.starts_with(&format!("HTTP/1.1 {status} ")),
            "{page}"
        );
    }
}

async fn raw(to: SocketAddr, bytes: &str) -> String {
    let mut stream = network().connect("127.0.0.1", to.port()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = soon("an answer", stream.read(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// A socket stays through a reload that changes nothing of who is believed, and through no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_opened_stays_while_the_same_is_believed() {
    type Change = fn(&mut Config);
    let changes: [(&str, Change); 4] = [
        ("another header", |it| it.auth.header = Some("remote-user".parse().unwrap())),
        ("another role", |it| it.auth.default_role = Some(Role::Viewer)),
        ("another proxy", |it| it.server.trusted_proxies = vec!["10.0.0.7".parse().unwrap()]),
        ("keys", |it| it.auth = crate::keys::keys()),
    ];
    for (what, change) in changes {
        let world = world(|_| {}).await;
        let headers = [ADA, ("sec-fetch-site", "same-origin")];
        let path = "/ws?clientId=ada";
        let mut socket = Socket::open_with(world.front, path, &headers).await;
        socket.until("status").await;
        world.reload(|config| config.auth.group_roles.clear()).await.unwrap();
        let mut anew = Socket::open_with(world.front, path, &headers).await;
        assert_eq!(close_code(&mut socket).await, Some(1008), "its groups may have others");
        world.reload(|config| config.affinity.max_clients = 7).await.unwrap();
        anew.until("status").await;
        world.reload(change).await.unwrap();
        assert_eq!(close_code(&mut anew).await, Some(1008), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_is_noted_in_the_audit_log() {
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = world(|config| config.server.passthrough = passthrough).await;
        let log = AuditLog::of(&world);
        for path in BOTH_WAYS {
            let twice = [ADA, ("x-forwarded-user", "bob")];
            assert_eq!(get(&world, path, &twice).await.status, 401, "{path}");
            assert_eq!(get(&world, path, &[]).await.status, 401, "who says nothing: {path}");
            let viewer = [ADA, ("remote-groups", "guests")];
            let answer = send(world.front, Method::POST, "/prompt", &viewer, "{}").await;
            assert_eq!(told(&answer), (403, "viewers_only_read"));
        }
        let lines = log.lines(4).await;
        let refused: Vec<(&str, &str)> = lines.iter().map(said).collect();
        let [twice, reads] =
            [("request", "refused: ambiguous"), ("request", "refused: only_reads")];
        assert_eq!(refused, [twice, reads, twice, reads]);
    }
}
