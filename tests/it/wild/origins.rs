//! Pages behind proxies, in applications, extensions and private networks.

use http::{Method, Request};
use http_body_util::Full;
use mooring::config::{self, Config, Sources};

use super::Cases;
use crate::support::{Answer, World, exchange, hosts};

/// By the way of what is only passed on, and by the other.
const BOTH_WAYS: [&str; 2] = ["/system_stats?x=1", "/embeddings?filename=x"];

/// What the gateways here are called.
fn named(config: &mut Config) {
    let names = ["*.example.com", "192.168.1.20", "2001:db8::1", "2001:db8::7", "gpu.local"];
    let more = ["xn--mller-kva.example", "inner", "evil.io", "gw", "10.0.0.7"];
    config.server.hosts = hosts(&names.into_iter().chain(more).collect::<Vec<_>>());
}

async fn ask(world: &World, method: Method, path: &str, lines: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    exchange(world.front, request.body(Full::default()).unwrap()).await
}

/// The statuses of both ways.
async fn statuses(world: &World, lines: &[(&str, &str)]) -> [u16; 2] {
    let mut statuses = [0; 2];
    for (path, status) in BOTH_WAYS.into_iter().zip(&mut statuses) {
        *status = ask(world, Method::GET, path, lines).await.status;
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_this_host_is_known_through_every_proxy() {
    let world = World::with(1, named).await;
    world.all_up().await;
    let mut cases = Cases::default();
    for (name, host, origin, right) in [
        ("nginx drops the port", "gpu.example.com", "http://gpu.example.com:7777", 200),
        ("and of a secure page", "gpu.example.com", "https://gpu.example.com:8443", 200),
        ("a tunnel adds one", "gpu.example.com:443", "https://gpu.example.com", 200),
        ("a router in between", "192.168.1.20:8188", "http://192.168.1.20", 200),
        ("IPv6 with a port", "[2001:db8::1]:8180", "http://[2001:db8::1]:8180", 200),
        ("IPv6 without", "[::1]", "http://[::1]:8180", 200),
        ("capitals", "GPU.Example.COM:8180", "http://gpu.example.com:8180", 200),
        ("a dot at the end", "gpu.local.:8180", "http://gpu.local:8180", 200),
        ("punycode", "xn--mller-kva.example", "http://xn--mller-kva.example:81", 200),
        ("the default port said", "gpu.example.com:80", "http://gpu.example.com", 200),
        ("another port", "gpu.example.com:8180", "http://gpu.example.com:8181", 403),
        ("another address of IPv6", "[::1]:8180", "http://[::2]:8180", 403),
        ("a name that begins so", "gpu.example.com", "http://gpu.example.com.evil.io:80", 403),
        ("a name that ends so", "gpu.example.com", "http://evilgpu.example.com:7777", 403),
        ("a user before it", "gpu.example.com", "http://gpu.example.com@evil.io:7777", 403),
        ("another scheme", "gpu.example.com", "ftp://gpu.example.com", 403),
        ("two in one line", "gpu.example.com", "http://gpu.example.com http://evil.io", 403),
    ] {
        let found = statuses(&world, &[("host", host), ("origin", origin)]).await;
        cases.case(name, found, [right; 2]);
    }
    cases.end(17);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_proxy_says_of_the_host_is_believed_if_it_is_trusted() {
    let world = World::with(1, named).await;
    let trusting = World::with(1, |config: &mut Config| {
        named(config);
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    world.all_up().await;
    trusting.all_up().await;
    let mut cases = Cases::default();
    for (name, forwarded, scheme, origin, right) in [
        ("Caddy", "gpu.example.com", "https", "https://gpu.example.com", 200),
        (
            "Traefik on another port",
            "gpu.example.com",
            "https",
            "https://gpu.example.com:8443",
            200,
        ),
        ("two proxies", "gpu.example.com,inner:80", "https,http", "https://gpu.example.com", 200),
        (
            "spaces between",
            " gpu.example.com , inner",
            "https , http",
            "https://gpu.example.com",
            200,
        ),
        ("IPv6 outside", "[2001:db8::7]:9000", "http", "http://[2001:db8::7]:9000", 200),
        (
            "a port that it says",
            "gpu.example.com:8443",
            "https",
            "https://gpu.example.com:8443",
            200,
        ),
        ("in capitals", "GPU.example.com", "HTTPS", "https://gpu.example.com", 200),
        ("an evil one behind it", "gpu.example.com, evil.io", "https", "https://evil.io", 403),
        ("an empty one", "", "https", "https://gpu.example.com", 403),
    ] {
        let lines = [
            ("host", "inner:8180"),
            ("x-forwarded-host", forwarded),
            ("x-forwarded-proto", scheme),
            ("origin", origin),
        ];
        let found = (statuses(&trusting, &lines).await, statuses(&world, &lines).await);
        cases.case(name, found, ([right; 2], [403; 2]));
    }
    cases.end(9);
}

/// As an operator writes it in a flag.
fn listing(origins: &str) -> Result<Config, String> {
    let flags = vec![
        ("server.allowed_origins".to_owned(), origins.to_owned()),
        ("backends.x.url".to_owned(), "http://127.0.0.1:9".to_owned()),
    ];
    config::load(&Sources { flags, ..Sources::default() }).map_err(|error| error.to_string())
}

/// What an operator writes, what a browser sends, and what it gets with credentials or without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_applications_and_extensions_are_let_in_where_they_are_listed() {
    let listed = [
        ("Photoshop", "null", "null", ""),
        ("a file", "file://", "file://", ""),
        ("Obsidian", "app://obsidian.md", "app://obsidian.md", "true"),
        ("Tauri on a Mac", "tauri://localhost", "tauri://localhost", "true"),
        ("Tauri on Windows", "http://tauri.localhost", "http://tauri.localhost", "true"),
        ("Capacitor", "capacitor://localhost", "capacitor://localhost", "true"),
        ("VS Code", "vscode-webview://1a2b-3c", "vscode-webview://1a2b-3c", "true"),
        (
            "Chrome",
            "chrome-extension://abcdefghijklmnop",
            "chrome-extension://abcdefghijklmnop",
            "true",
        ),
        ("Firefox", "moz-extension://9f-8e", "moz-extension://9f-8e", "true"),
        ("a port that is the default", "https://app.example:443", "https://app.example", "true"),
        ("capitals", "HTTPS://App.Example.org", "https://app.example.org", "true"),
    ];
    let written = listing(&listed.map(|(_, written, _, _)| written).join(", ")).unwrap();
    let world = World::with(1, |config| {
        config.server.allowed_origins = written.server.allowed_origins;
    })
    .await;
    world.all_up().await;
    let mut cases = Cases::default();
    for (name, _, sent, credentials) in listed {
        let lines = [("host", "gw"), ("origin", sent), ("sec-fetch-site", "cross-site")];
        let answer = ask(&world, Method::GET, BOTH_WAYS[1], &lines).await;
        let said = |name: &str| answer.header(name).to_owned();
        let found = (
            statuses(&world, &lines).await,
            said("access-control-allow-origin"),
            said("access-control-allow-credentials"),
        );
        cases.case(name, found, ([200; 2], sent.to_owned(), credentials.to_owned()));
    }
    for (name, origin) in [
        ("another extension", "chrome-extension://ponmlkjihgfedcba"),
        ("another of that kind", "app://evil"),
        ("one below it", "https://x.app.example"),
        ("it without TLS", "http://app.example"),
        ("with a path", "https://app.example/"),
    ] {
        let lines = [("host", "gw"), ("origin", origin)];
        cases.case(name, statuses(&world, &lines).await, [403; 2]);
    }
    let empty = statuses(&world, &[("host", "gw"), ("origin", "")]).await;
    cases.case("an empty one is none", empty, [200; 2]);
    cases.end(17);
}

#[test]
fn origins_that_cannot_be_listed_are_told_with_what_to_write() {
    let mut cases = Cases::default();
    for (name, written, word) in [
        ("everybody", "*", "`*`"),
        ("a part of a name", "https://*.example.com", "*"),
        ("a path", "https://app.example/gallery", "https://app.example"),
        ("a name alone", "app.example", "http"),
        ("a socket's", "wss://app.example", "https://app.example"),
    ] {
        let says = listing(written).is_err_and(|it| it.contains(word));
        cases.case(name, says, true);
    }
    cases.end(5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_network_is_opened_for_allowed_pages() {
    let world = World::with(1, |config| {
        named(config);
        config.server.allowed_origins =
            ["https://app.example", "null", "app://obsidian.md"].map(str::to_owned).to_vec();
    })
    .await;
    world.all_up().await;
    let mut cases = Cases::default();
    for (name, path, origin, asks, right) in [
        ("a submission", "/prompt", "https://app.example", "true", (204, "true")),
        ("under /api", "/api/upload/image", "https://app.example", "true", (204, "true")),
        ("a file", "/view?filename=x.png", "https://app.example", "true", (204, "true")),
        ("a pack's route", "/pack/x", "app://obsidian.md", "true", (204, "true")),
        ("a page without an origin", "/prompt", "null", "true", (204, "true")),
        ("not asked for", "/prompt", "https://app.example", "", (204, "")),
        ("another's page", "/prompt", "https://evil.example", "true", (403, "")),
    ] {
        let lines = [
            ("host", "10.0.0.7:8180"),
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type,comfy-client-id"),
            ("access-control-request-private-network", asks),
        ];
        let lines = if asks.is_empty() { &lines[..4] } else { &lines[..] };
        let answer = ask(&world, Method::OPTIONS, path, lines).await;
        let allows = answer.header("access-control-allow-private-network").to_owned();
        cases.case(name, (answer.status, allows), (right.0, right.1.to_owned()));
    }
    cases.end(7);
}
