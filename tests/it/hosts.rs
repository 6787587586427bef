//! A page that makes its own name lead here (DNS rebinding) reaches nothing: the listeners answer
//! to their own names alone.

use std::net::SocketAddr;

use http::{Method, Request};
use http_body_util::Full;
use mooring::config::{Config, OnOff};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::keys::keys;
use crate::support::{Answer, World, exchange, hosts, network, soon};

/// By the way of what is only passed on, and by the other.
const BOTH_WAYS: [&str; 2] = ["/system_stats?x=1", "/embeddings?filename=x"];

const FOREIGN: &[&str] = &[
    "evil.example",
    "evil.example:8180",
    "EVIL.example.",
    "localhost.evil.example:8180",
    "127.0.0.1.evil.example",
    "evillocalhost",
    "gw.evil.example",
    "evil-gw",
    "10.0.0.7.evil.example:8180",
    "127.1",
];

const OWN: &[&str] = &[
    "localhost",
    "LOCALHOST:1",
    "localhost.:8180",
    "a.localhost",
    "127.0.0.1",
    "127.3.3.3:9",
    "[::1]:8180",
    "gw",
    "GW.:1",
];

fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.header("mooring-error").to_owned())
}

fn refused() -> (u16, String) {
    (421, "foreign_host".to_owned())
}

/// All that comes back for these bytes, until the connection ends.
async fn raw(to: SocketAddr, bytes: &str) -> String {
    let mut stream = network().connect("127.0.0.1", to.port()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the end of the connection", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// What comes back first: the connection of a socket that is refused may stay.
async fn first_of(to: SocketAddr, bytes: &str) -> String {
    let mut stream = network().connect("127.0.0.1", to.port()).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = soon("an answer", stream.read(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

pub(crate) async fn ask(to: SocketAddr, path: &str, lines: &[(&str, &str)]) -> Answer {
    ask_by(Method::GET, to, path, lines).await
}

async fn ask_by(method: Method, to: SocketAddr, path: &str, lines: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    soon(path, exchange(to, request.body(Full::default()).unwrap())).await
}

fn called(names: &'static [&'static str]) -> impl Fn(&mut Config) {
    move |config| config.server.hosts = hosts(names)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_loopback_only_own_names_are_answered_by_either_way() {
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = World::with(1, |config| {
            called(&["gw"])(config);
            config.server.passthrough = passthrough;
        })
        .await;
        world.all_up().await;
        for path in BOTH_WAYS {
            for host in FOREIGN {
                let answer = ask(world.front, path, &[("host", host)]).await;
                assert_eq!(told(&answer), refused(), "{path} {host}");
                assert!(answer.text().contains("server.hosts"), "{}", answer.text());
            }
            let asked = world.sim("a").requests();
            assert!(asked.iter().all(|it| it.target != path), "no server hears of it: {path}");
            for host in OWN {
                let answer = ask(world.front, path, &[("host", host)]).await;
                assert_eq!(answer.status, 200, "{path} {host}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_and_no_socket_is_there_for_another_name() {
    let open = World::new(1).await;
    let with_users = World::with(1, |config| config.auth = keys()).await;
    let rebound = ("host", "evil.example:8180");
    let page = [rebound, ("sec-fetch-site", "same-origin"), ("origin", "http://evil.example:8180")];
    for world in [&open, &with_users] {
        world.all_up().await;
        for path in ["/", "/queue", "/view?filename=a.png", "/-/health", "/-/ready", "/-/login"] {
            let answer = ask(world.front, path, &page).await;
            assert_eq!(told(&answer), refused(), "{path}");
        }
        for path in ["/prompt", "/upload/image", "/free", "/-/login", "/-/logout", "/-/reset"] {
            let answer = ask_by(Method::POST, world.front, path, &page).await;
            assert_eq!(told(&answer), refused(), "{path}");
        }
        let lines = [page[0], page[2], ("access-control-request-method", "POST")];
        let answer = ask_by(Method::OPTIONS, world.front, "/prompt", &lines).await;
        assert_eq!(told(&answer), refused(), "a preflight");
        for path in ["/ws?clientId=ada", "/pack/socket", "/api/ws"] {
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: evil.example:8180\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nOrigin: http://evil.example:8180\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            let answer = first_of(world.front, &head).await;
            assert!(answer.starts_with("HTTP/1.1 421 "), "{path}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_address_in_the_first_line_is_a_name_too() {
    let world = World::new(1).await;
    world.all_up().await;
    let evil = "http://evil.example/system_stats";
    let own = format!("http://{}/system_stats", world.front);
    let end = "Connection: close\r\n\r\n";
    for (head, status) in [
        (format!("GET {evil} HTTP/1.1\r\nHost: evil.example\r\n{end}"), 421),
        (format!("GET {evil} HTTP/1.0\r\n{end}"), 421),
        (format!("GET {evil} HTTP/1.1\r\nHost: {}\r\n{end}", world.front), 400),
        (format!("GET {own} HTTP/1.1\r\nHost: evil.example\r\n{end}"), 400),
        (format!("GET {own} HTTP/1.1\r\nHost: {}\r\n{end}", world.front), 200),
        (format!("GET {own} HTTP/1.0\r\n{end}"), 200),
        // No browser sends none.
        (format!("GET /system_stats HTTP/1.0\r\n{end}"), 200),
    ] {
        let answer = raw(world.front, &head).await;
        let said = answer.split(' ').nth(1);
        assert_eq!(said, Some(status.to_string().as_str()), "{head}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_asked_by_a_good_name_is_not_good_for_others() {
    let world = World::new(1).await;
    world.all_up().await;
    let good = "GET /system_stats HTTP/1.1\r\nHost: gw\r\n\r\n";
    let last = "GET /system_stats HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    let answers = raw(world.front, &format!("{good}{good}{last}")).await;
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 421 ").count(), 1, "{answers}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elsewhere_every_name_is_answered_until_one_is_listed() {
    let world = World::with(1, |config| {
        config.server.listen = SocketAddr::from(([0, 0, 0, 0], 0));
        config.server.hosts = Vec::new();
    })
    .await;
    world.all_up().await;
    let here = SocketAddr::from(([127, 0, 0, 1], world.front.port()));
    for path in BOTH_WAYS {
        let answer = ask(here, path, &[("host", "evil.example")]).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    world.reload(called(&["*.example.org"])).await.unwrap();
    for path in BOTH_WAYS {
        for (host, status) in [
            ("evil.example", 421),
            ("example.org", 421),
            ("comfy.example.org:8180", 200),
            ("localhost", 200),
        ] {
            let answer = ask(here, path, &[("host", host)]).await;
            assert_eq!(answer.status, status, "{path} {host}");
        }
    }
}

/// What the proxy was asked by counts once names are listed, and never instead of `Host`: a browser
/// on the machine of the proxy can send it as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_a_trusted_proxy_was_asked_by_count_in_addition() {
    let trusting = |config: &mut Config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    };
    let listed = World::with(1, |config| {
        trusting(config);
        called(&["gw", "inner"])(config);
    })
    .await;
    let unlisted = World::with(1, |config| {
        trusting(config);
        called(&[])(config);
    })
    .await;
    let stranger = World::with(1, called(&["gw"])).await;
    for world in [&listed, &unlisted, &stranger] {
        world.all_up().await;
    }
    for path in BOTH_WAYS {
        for (host, forwarded, expected) in [
            ("localhost", "gw", [200, 200, 200]),
            ("localhost", "gw, inner:8180", [200, 200, 200]),
            ("localhost", "", [200, 200, 200]),
            ("localhost", "evil.example", [421, 200, 200]),
            ("localhost", "gw, evil.example", [421, 200, 200]),
            ("localhost", "evil.example, gw", [421, 200, 200]),
            ("evil.example", "gw", [421, 421, 421]),
            ("evil.example", "localhost", [421, 421, 421]),
        ] {
            let lines = [("host", host), ("x-forwarded-host", forwarded)];
            let mut found = [0; 3];
            for (world, status) in [&listed, &unlisted, &stranger].into_iter().zip(&mut found) {
                *status = ask(world.front, path, &lines).await.status;
            }
            assert_eq!(found, expected, "{path} {host} {forwarded}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_answers_to_own_names_or_to_a_token() {
    let world = World::with(1, called(&["gw"])).await;
    for path in ["/api/v1/clients", "/metrics", "/readyz"] {
        for host in FOREIGN {
            let answer = ask(world.admin, path, &[("host", host)]).await;
            assert_eq!(answer.status, 421, "{path} {host}");
        }
        for host in OWN {
            let answer = ask(world.admin, path, &[("host", host)]).await;
            assert_ne!(answer.status, 421, "{path} {host}");
        }
    }
    let token = Some(mooring::config::Secret::parse("s3cret").unwrap());
    let world = World::with(1, |config| config.admin.token = token).await;
    world.all_up().await;
    let evil = ("host", "evil.example");
    assert_eq!(ask(world.admin, "/api/v1/clients", &[evil]).await.status, 401);
    let by_token = [evil, ("authorization", "Bearer s3cret")];
    assert_eq!(ask(world.admin, "/api/v1/clients", &by_token).await.status, 200);
    // A page can lead its own name here and read what needs no token.
    let ready = ask(world.admin, "/readyz", &[evil]).await;
    assert_eq!((ready.status, ready.text().as_str()), (200, r#"{"ready":true}"#));
    for lines in [&by_token[..], &[("host", "localhost")], &[("host", "192.0.2.1:8181")]] {
        let ready = ask(world.admin, "/readyz", lines).await;
        assert_eq!(ready.json()["backends"][0]["name"], "a", "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caches_are_told_on_what_an_answer_of_the_admin_listener_depends() {
    let world = World::with(1, |_| {}).await;
    for (path, status) in [("/", 200), ("/api/v1/backends", 200), ("/readyz", 200), ("/x", 404)] {
        world.all_up().await;
        let answer = ask(world.admin, path, &[("host", "localhost")]).await;
        assert_eq!(answer.status, status, "{path}");
        let vary = answer.header("vary");
        for name in ["accept", "authorization", "host", "origin", "sec-fetch-site"] {
            assert!(vary.split(", ").any(|it| it == name), "{path}: {vary}");
        }
    }
}
