//! Who is let in under `auth.mode = "keys"`, on both ways of answering, and until when.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use http::Method;
use mooring::auth::file::{self, Missing};
use mooring::auth::key::KeyHash;
use mooring::auth::{Role, User, UserTable};
use mooring::config::{AuthConfig, AuthMode, BasePath, OnOff};
use mooring::sim::{Options, Sim};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::passthrough::{Act, world as puppet_world};
use crate::process::Daemon;
use crate::support::{Answer, Socket, World, network, quick, send, soon, until};

/// Keys in place of random ones, so that they are found in what backends and logs get.
pub(crate) const ADA: &str = "key-of-ada";
pub(crate) const BOB: &str = "key-of-bob";
const VIEWER: &str = "key-of-vic";

const BOTH_WAYS: [OnOff; 2] = [OnOff::On, OnOff::Off];

pub(crate) fn user(name: &str, role: Role, key: &str) -> User {
    let key = KeyHash::of(key.as_bytes());
    User { name: name.parse().unwrap(), role, generation: 1, key, password: None }
}

pub(crate) fn users() -> UserTable {
    let ada = user("ada", Role::Artist, ADA);
    let bob = user("bob", Role::Artist, BOB);
    UserTable::of([ada, bob, user("vic", Role::Viewer, VIEWER)]).unwrap()
}

pub(crate) fn keys() -> AuthConfig {
    AuthConfig::keys(users())
}

async fn world(passthrough: OnOff) -> World {
    let world = World::with(1, |config| {
        config.auth = keys();
        config.server.passthrough = passthrough;
    })
    .await;
    world.all_up().await;
    world
}

/// A world whose users are in a file.
async fn world_of(folder: &TempDir, passthrough: OnOff) -> World {
    let path = folder.path().join("users.toml");
    fs::write(&path, users().to_text()).unwrap();
    let world = World::with(1, |config| {
        config.auth = AuthConfig { users_file: Some(path), ..keys() };
        config.server.passthrough = passthrough;
    })
    .await;
    world.all_up().await;
    world
}

fn without(folder: &TempDir, name: &str) {
    let path = folder.path().join("users.toml");
    file::change(&path, Missing::IsWrong, |users| Ok((users.without(&name.parse().unwrap()), ())))
        .unwrap();
}

async fn get(world: &World, path: &str, key: &str) -> Answer {
    send(world.front, Method::GET, path, &[("x-api-key", key)], "").await
}

fn handshake(target: &str, lines: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
    )
}

/// Sends bytes and reads to the end of the connection.
async fn raw(world: &World, bytes: &[u8]) -> String {
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    let mut stream = network().connect(&host, port).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut read = Vec::new();
    let _ = soon("the end of an answer", stream.read_to_end(&mut read)).await;
    String::from_utf8_lossy(&read).into_owned()
}

/// What the backend has been asked that is not ours to ask: its probes and its own sockets.
fn asked(world: &World, mark: &str) -> Vec<String> {
    let all = world.sim("a").requests();
    let marked = all.into_iter().filter(|seen| seen.target.contains(mark));
    marked.map(|seen| format!("{} {} {:?}", seen.method, seen.target, seen.headers)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_every_path_is_401_before_any_other_refusal() {
    for passthrough in BOTH_WAYS {
        let world = world(passthrough).await;
        for (method, path, headers) in [
            ("GET", "/?mark", &[][..]),
            ("GET", "/mark/pack", &[]),
            ("HEAD", "/mark/pack", &[]),
            ("GET", "/object_info?mark", &[]),
            ("GET", "/system_stats?mark", &[]),
            ("GET", "/queue", &[]),
            ("GET", "/view?filename=mark", &[]),
            ("GET", "/assets/mark-BcDeFgHi.js", &[]),
            ("POST", "/prompt?mark", &[("content-type", "application/json")]),
            ("POST", "/prompt?mark", &[("content-encoding", "br")]),
            ("POST", "/upload/image?mark", &[]),
            ("GET", "/-/ready", &[]),
            ("GET", "/-/whoami", &[]),
            ("GET", "/-/nothing", &[]),
            ("PUT", "/-/reset", &[]),
            ("POST", "/manager/reboot?mark", &[]),
            ("GET", "/internal/logs?mark", &[]),
            ("GET", "/history/mark?max_items=x", &[]),
            ("GET", "/queue?clientId=%00", &[]),
            ("GET", "/mark", &[("origin", "https://evil.example")]),
            ("GET", "/mark", &[("sec-fetch-site", "cross-site")]),
            ("OPTIONS", "/mark", &[("origin", "https://evil.example")]),
            ("DELETE", "/userdata/mark", &[]),
            ("BREW", "/mark", &[]),
            ("GET", "/mark", &[("x-api-key", "key-of-eve")]),
            ("GET", "/mark?token=key-of-ada", &[]),
            ("GET", "/ws?token=key-of-eve&mark", &[]),
        ] {
            let method: Method = method.parse().unwrap();
            let answer = send(world.front, method.clone(), path, headers, "").await;
            let told = (answer.status, answer.header("www-authenticate"));
            assert_eq!(told, (401, "Bearer"), "{method} {path}: {}", answer.text());
            assert_eq!(answer.header("mooring-error"), "unauthorized", "{method} {path}");
        }
        for target in ["/ws?mark", "/api/ws?clientId=mark", "/tunnelled/echo?mark"] {
            let answer = raw(&world, handshake(target, "").as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{target}: {answer}");
        }
        assert_eq!(asked(&world, "mark"), Vec::<String>::new());
        assert!(world.gateway.sessions.clients.is_empty(), "nobody was made a client");
        let metrics = world.admin_get("/metrics").await.text();
        for reason in ["missing", "unknown"] {
            let counted = format!("mooring_auth_refused_total{{reason=\"{reason}\"}}");
            assert!(metrics.contains(&counted), "{counted}");
        }
        assert!(metrics.contains("mooring_auth_users 3"), "{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_a_base_path_and_beside_it_nobody_comes_in_without_a_key() {
    let world = World::with(1, |config| {
        config.auth = keys();
        config.server.base_path = BasePath::parse("/comfy/").unwrap();
    })
    .await;
    world.all_up().await;
    for path in ["/comfy/queue", "/comfy", "/", "/queue", "/ws", "/comfy/ws?token=key-of-eve"] {
        assert_eq!(send(world.front, Method::GET, path, &[], "").await.status, 401, "{path}");
    }
    for (path, status) in [("/comfy/queue", 200), ("/comfy", 308), ("/queue", 404)] {
        assert_eq!(get(&world, path, ADA).await.status, status, "{path}");
    }
    // The way to the slash does not repeat a key.
    let moved = get(&world, "/comfy?token=key-of-ada&a=b", ADA).await;
    assert_eq!((moved.status, moved.header("location")), (308, "/comfy/?a=b"));
    let mut socket = Socket::open(world.front, "/comfy/ws?token=key-of-ada").await;
    socket.until("status").await;
}

/// All that a client does, by each of the three places: the backend never sees a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_lets_in_and_no_backend_hears_of_it() {
    for passthrough in BOTH_WAYS {
        let world = world(passthrough).await;
        let bearer = [("authorization", "Bearer key-of-ada"), ("comfy-client-id", "c-ada")];
        let api_key = [("X-API-Key", ADA), ("comfy-client-id", "c-ada")];
        for headers in [&bearer, &api_key] {
            for path in
                ["/object_info", "/api/system_stats", "/pack", "/pack?a=%20b", "/", "/queue"]
            {
                let answer = send(world.front, Method::GET, path, headers, "").await;
                assert!(![401, 403].contains(&answer.status), "{path}: {}", answer.text());
            }
        }
        let mut socket = Socket::open(world.front, "/ws?clientId=c-ada&token=key-of-ada").await;
        socket.until("status").await;
        let body = serde_json::json!({ "client_id": "c-ada", "prompt": quick(3) }).to_string();
        let answer = send(world.front, Method::POST, "/prompt", &api_key, &body).await;
        socket.until_end(&answer.prompt_id()).await;
        let view = "/view?filename=test_00001_.png&type=output&%74oken=key-of-ada";
        let picture = send(world.front, Method::GET, view, &[], "").await;
        assert_eq!((picture.status, picture.header("referrer-policy")), (200, "no-referrer"));
        let target = "/tunnelled/echo?mooring_client=c-ada&x=1&token=key-of-ada";
        let line = "X-Api-Key: key-of-ada\r\nAuthorization: Bearer key-of-ada\r\n";
        let opened = opened(&world, &handshake(target, line)).await;
        assert!(opened.starts_with("HTTP/1.1 101 "), "{opened}");
        // What is another's passes on, as does all of it while nobody is asked for a key.
        let theirs = [("authorization", "Bearer theirs"), ("x-api-key", ADA)];
        send(world.front, Method::GET, "/theirs?token=x", &theirs, "").await;
        let all = asked(&world, "");
        assert!(
            all.iter()
                .any(|seen| seen.contains("/theirs?token=x") && seen.contains("Bearer theirs"))
        );
        assert!(all.iter().any(|seen| seen.contains("/tunnelled/echo?x=1")), "{all:#?}");
        for seen in all {
            assert!(!seen.contains("key-of"), "{seen}");
        }
    }
}

/// Also what a script means for us and writes as nobody looks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_a_wrong_form_goes_to_no_backend_beside_a_good_one() {
    for passthrough in BOTH_WAYS {
        let world = world(passthrough).await;
        for value in ["key-of-ada", "Token key-of-ada", "Bearer key-of-ada, Bearer key-of-ada"] {
            let headers = [("x-api-key", ADA), ("authorization", value)];
            let answer = send(world.front, Method::GET, "/mark", &headers, "").await;
            assert_eq!(answer.status, 404, "{value}: {}", answer.text());
        }
        let seen = asked(&world, "mark");
        assert_eq!(seen.len(), 3);
        for seen in seen {
            assert!(!seen.contains("key-of"), "{seen}");
        }
    }
}

/// A cache in front knows nothing of keys, and would give what it keeps to who has none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_gets_is_kept_by_no_shared_cache() {
    const FILE: &str = "/assets/index-azSeANjR.js";
    let answer = |lines: &str| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/javascript\r\n";
        Act::Answer(vec![format!("{head}{lines}Content-Length: 6\r\n\r\nlet a;")])
    };
    let acts = [
        (FILE, answer("")),
        ("/pack/said", answer("Cache-Control: public, s-maxage=9, max-age=5\r\n")),
        ("/pack/secret", answer("Cache-Control: no-store\r\n")),
        ("/pack/unsaid", answer("")),
    ];
    for passthrough in BOTH_WAYS {
        for (auth, expected) in [
            (keys(), ["private, max-age=31536000, immutable", "private, max-age=5", "private"]),
            (
                AuthConfig { mode: AuthMode::Off, ..keys() },
                ["public, max-age=31536000, immutable", "public, s-maxage=9, max-age=5", ""],
            ),
        ] {
            let (world, _puppet) = puppet_world(&acts, |config| {
                config.auth = auth;
                config.server.passthrough = passthrough;
            })
            .await;
            for (path, expected) in [
                (FILE, expected[0]),
                (FILE, expected[0]),
                ("/pack/said", expected[1]),
                ("/pack/secret", "no-store"),
                ("/pack/unsaid", expected[2]),
            ] {
                let answer = get(&world, path, ADA).await;
                let told = (answer.status, answer.header("cache-control"));
                assert_eq!(told, (200, expected), "{path}, passthrough {passthrough:?}");
            }
        }
    }
}

/// Sends a handshake, and reads the first that comes.
async fn opened(world: &World, bytes: &str) -> String {
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    let mut stream = network().connect(&host, port).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("\r\n\r\n") {
        soon("an answer", stream.read_buf(&mut read)).await.unwrap();
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_off_everything_passes_on_as_it_came() {
    for passthrough in BOTH_WAYS {
        let world = World::with(1, |config| config.server.passthrough = passthrough).await;
        world.all_up().await;
        let said = [("authorization", "Bearer key-of-ada"), ("x-api-key", ADA)];
        for path in ["/mark/pack?token=key-of-ada", "/view?filename=mark&token=key-of-ada"] {
            send(world.front, Method::GET, path, &said, "").await;
        }
        let seen = asked(&world, "mark");
        assert!(!seen.is_empty());
        for seen in seen {
            assert_eq!(seen.matches("key-of-ada").count(), 3, "{seen}");
        }
    }
}

/// Where a key is looked for. `^` is the key.
const RIGHT_LINES: [&str; 8] = [
    "",
    "Authorization: Bearer ^",
    "authorization: bearer ^",
    "AUTHORIZATION:Bearer  ^  ",
    "Authorization: BEARER\t^",
    "X-Api-Key: ^",
    "x-api-key:^",
    "X-API-KEY: \t^ ",
];

/// What is nearly such a place, and none.
const WRONG_LINES: [&str; 20] = [
    "",
    "Authorization: Bearer ^,",
    "Authorization: Bearer=^",
    "Authorization: Bearer ^, Bearer ^",
    "Authorization: Bearer\u{a0}^",
    "Authorization: Basic ^",
    "Authorization: Token ^",
    "Authorization: ^",
    "Authorization : Bearer ^",
    "Authorization: Bearer\r\n ^",
    "Authorization: Bearer ^\r\nAuthorization: Bearer ^",
    "X-Authorization: Bearer ^",
    "Proxy-Authorization: Bearer ^",
    "X_Api_Key: ^",
    "X-Api-Key: Bearer ^",
    "X-Api-Key: ^;",
    "X-Api-Key: ^\r\nx-api-key: ^",
    "Api-Key: ^",
    "Cookie: token=^; mooring=^",
    "Comfy-User: ^\r\nComfy-Client-Id: ^",
];

const RIGHT_QUERIES: [&str; 8] = [
    "?a=b",
    "?token=^",
    "?%74oken=^",
    "?%74%6F%6B%65%6E=^",
    "?token=^&token=^",
    "?token=&token=^",
    "?clientId=x&token=^",
    "?token=^&filename=a.png",
];

const WRONG_QUERIES: [&str; 10] = [
    "?a=b",
    "?Token=^",
    "?TOKEN=^",
    "?a;token=^",
    "?token[]=^",
    "?token+=^",
    "?+token=^",
    "?x=?token=^",
    "?tok%65n%00=^",
    "?%2574oken=^",
];

/// Those that take a key in their query come first.
const PATHS: [&str; 16] = [
    "/ws",
    "/api/ws",
    "/%77s",
    "/view",
    "/api/view",
    "/vie%77",
    "/ws/",
    "//ws",
    "/WS",
    "/n~",
    "/n~/ws",
    "/api/api/view",
    "/-/n~",
    "/queue",
    "/n~/../ws",
    "/n~%2fview",
];

const TAKE_TOKENS: usize = 6;

/// A head by its number that lets nobody in: a key of nobody in a right place, or somebody's in a
/// wrong one.
fn spelled(number: usize) -> String {
    let nobodys = ["key-of-eve", "KEY-OF-ADA", "key-of-ad", "key-of-adaa", ""][number % 5];
    let pick = |of: &'static [&'static str], by: usize| of[number / by % of.len()];
    let (key, line, query, path, method) = match number % 3 {
        0 => {
            let line = pick(&RIGHT_LINES, 3);
            (nobodys, line, pick(&RIGHT_QUERIES, 5), pick(&PATHS, 7), "GET")
        }
        1 => (ADA, pick(&WRONG_LINES, 3), pick(&WRONG_QUERIES, 7), pick(&PATHS, 11), "GET"),
        _ => {
            let path = number / 3 % PATHS.len();
            let other = ["HEAD", "POST", "OPTIONS"][number / 5 % 3];
            let method = if path < TAKE_TOKENS { other } else { "GET" };
            (ADA, "", pick(&RIGHT_QUERIES, 7), PATHS[path], method)
        }
    };
    let mut text = format!("{method} {path}{query}&mark=n~ HTTP/1.1\r\nHost: gw\r\n{line}");
    if !line.is_empty() {
        text += "\r\n";
    }
    // A length of nothing makes a read one that hyper's way answers.
    if number % 4 == 3 {
        text += "Content-Length: 0\r\n";
    }
    text += "Connection: close\r\n\r\n";
    text.replace('^', key).replace('~', &number.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_heads_without_a_key_in_its_place_bring_nobody_in() {
    for passthrough in BOTH_WAYS {
        let world = world(passthrough).await;
        let mut unauthorized = 0;
        for number in 0..3_000 {
            let text = spelled(number);
            let answer = raw(&world, text.as_bytes()).await;
            // Some are no requests at all.
            let is_refused =
                answer.starts_with("HTTP/1.1 401 ") || answer.starts_with("HTTP/1.1 400 ");
            assert!(is_refused, "{number}: {text:?} {answer}");
            unauthorized += usize::from(answer.starts_with("HTTP/1.1 401 "));
        }
        assert!(2_500 < unauthorized, "{unauthorized}");
        assert_eq!(asked(&world, "mark=n"), Vec::<String>::new());
        assert!(world.gateway.sessions.clients.is_empty(), "nobody was made a client");
    }
}

/// A connection is nobody's: each of its requests is asked who sends it, also if they come at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_lets_in_one_request_and_not_what_follows_on_its_connection() {
    for passthrough in BOTH_WAYS {
        let world = world(passthrough).await;
        let request =
            |path: &str, line: &str| format!("GET {path} HTTP/1.1\r\nHost: gw\r\n{line}\r\n");
        let key = "X-Api-Key: key-of-ada\r\n";
        let all = [
            request("/mark/1?clientId=c", key),
            request("/mark/2?clientId=c", ""),
            request("/mark/3?clientId=c", key),
            request("/queue?clientId=c", ""),
            request("/mark/4?clientId=c", "X-Api-Key: key-of-vic\r\nConnection: close\r\n"),
        ];
        let answers = raw(&world, all.concat().as_bytes()).await;
        let statuses: Vec<&str> = answers
            .lines()
            .filter_map(|line| line.split("HTTP/1.1 ").nth(1)?.split(' ').next())
            .collect();
        assert_eq!(statuses, ["404", "401", "404", "401", "404"], "{answers}");
        let seen: Vec<String> =
            asked(&world, "mark").iter().map(|it| it[..11].to_owned()).collect();
        assert_eq!(seen, ["GET /mark/1", "GET /mark/3", "GET /mark/4"]);
    }
}

/// The same places with the key that belongs there: they do let in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_places_of_a_key_are_found_however_they_are_spelled() {
    for passthrough in BOTH_WAYS {
        let world = world(passthrough).await;
        for line in RIGHT_LINES.iter().filter(|line| !line.is_empty()) {
            let line = line.replace('^', ADA);
            let text =
                format!("GET /mark HTTP/1.1\r\nHost: gw\r\n{line}\r\nConnection: close\r\n\r\n");
            let answer = raw(&world, text.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{line:?}: {answer}");
        }
        for path in &PATHS[3..TAKE_TOKENS] {
            for query in RIGHT_QUERIES.iter().filter(|query| query.contains('^')) {
                let target = format!("{path}{}&mark", query.replace('^', ADA));
                let answer = send(world.front, Method::GET, &target, &[], "").await;
                assert_ne!(answer.status, 401, "{target}: {}", answer.text());
            }
        }
        let seen = asked(&world, "mark");
        assert!(7 < seen.len(), "{seen:#?}");
        for seen in seen {
            assert!(!seen.contains("key-of"), "{seen}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_reads_and_is_refused_all_else() {
    let world = world(OnOff::On).await;
    for path in ["/queue", "/object_info", "/history", "/pack/route"] {
        let status = get(&world, path, VIEWER).await.status;
        assert!([200, 404].contains(&status), "{path}: {status}");
    }
    let key = [("x-api-key", VIEWER)];
    for (method, path) in [
        (Method::POST, "/prompt"),
        (Method::POST, "/interrupt"),
        (Method::POST, "/-/reset"),
        (Method::DELETE, "/userdata/mark"),
        (Method::PUT, "/mark"),
        (Method::OPTIONS, "/mark"),
    ] {
        let answer = send(world.front, method, path, &key, "{}").await;
        assert_eq!((answer.status, answer.header("mooring-error")), (403, "viewers_only_read"));
    }
    assert_eq!(asked(&world, "mark"), Vec::<String>::new());
    let mut socket = Socket::open(world.front, "/ws?clientId=v&token=key-of-vic").await;
    socket.until("status").await;
    let who = get(&world, "/-/whoami", VIEWER).await.json();
    assert_eq!(who["user"], serde_json::json!({ "name": "vic", "role": "viewer" }));
    let metrics = world.admin_get("/metrics").await.text();
    assert!(metrics.contains("mooring_auth_refused_total{reason=\"only_reads\"} 6"), "{metrics}");
}

/// A browser asks whether its page may before it sends a key, and never sends one with that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_allowed_can_ask_and_learns_that_it_needs_a_key() {
    let world = World::with(1, |config| {
        config.auth = keys();
        config.server.allowed_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    world.all_up().await;
    let page = ("origin", "https://app.example");
    let asks = [page, ("access-control-request-method", "POST")];
    let told = [asks[0], asks[1], ("access-control-request-headers", "authorization")];
    let answer = send(world.front, Method::OPTIONS, "/mark", &told, "").await;
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-headers"), "authorization");
    let answer = send(world.front, Method::GET, "/mark", &[page], "").await;
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!((answer.status, allowed), (401, "https://app.example"));
    let other = [("origin", "https://evil.example"), asks[1]];
    assert_eq!(send(world.front, Method::OPTIONS, "/mark", &other, "").await.status, 401);
    let with_key = [("origin", "https://evil.example"), ("x-api-key", ADA)];
    let answer = send(world.front, Method::GET, "/mark", &with_key, "").await;
    assert_eq!((answer.status, answer.header("mooring-error")), (403, "foreign_origin"));
    assert_eq!(asked(&world, "mark"), Vec::<String>::new());
}

pub(crate) async fn close_code(socket: &mut Socket) -> Option<u16> {
    soon("the socket closes", async {
        let mut code = None;
        while let Some(frame) = socket.frame().await {
            code = frame.close_reason().map(|(code, _)| code).or(code);
        }
        code
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_removed_loses_his_sockets_and_nobody_else_his() {
    let folder = tempfile::tempdir().unwrap();
    let world = world_of(&folder, OnOff::On).await;
    let mut ada = Socket::open(world.front, "/ws?clientId=a&token=key-of-ada").await;
    let mut bob = Socket::open(world.front, "/ws?clientId=b&token=key-of-bob").await;
    ada.until("status").await;
    bob.until("status").await;
    let mut tunnel = tunnel(&world, ADA).await;
    without(&folder, "ada");
    assert_eq!(close_code(&mut ada).await, Some(1008));
    let said = soon("the tunnel's end", rest(&mut tunnel)).await;
    // RFC 6455 section 5.5.1: the code stands first.
    assert!(said.windows(2).any(|two| two == 1008_u16.to_be_bytes()), "{said:?}");
    assert_eq!(get(&world, "/queue", ADA).await.status, 401);
    assert_eq!(get(&world, "/queue", BOB).await.status, 200);
    // His is still open.
    bob.say("hello").await;
    let body = serde_json::json!({ "client_id": "b", "prompt": quick(3) }).to_string();
    let key = [("x-api-key", BOB)];
    let answer = send(world.front, Method::POST, "/prompt", &key, &body).await;
    bob.until_end(&answer.prompt_id()).await;
}

/// A socket of a node pack's, opened with a key in a header.
async fn tunnel(world: &World, key: &str) -> mooring::net::Stream {
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    let mut stream = network().connect(&host, port).await.unwrap();
    let line = format!("X-Api-Key: {key}\r\n");
    stream.write_all(handshake("/tunnelled/echo", &line).as_bytes()).await.unwrap();
    let mut read = Vec::new();
    // The pack's first word comes when all of it is open.
    while !String::from_utf8_lossy(&read).contains("\"server\"") {
        soon("the tunnel opens", stream.read_buf(&mut read)).await.unwrap();
    }
    stream
}

async fn rest(stream: &mut mooring::net::Stream) -> Vec<u8> {
    let mut read = Vec::new();
    let _ = stream.read_to_end(&mut read).await;
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_ends_what_the_one_before_has_opened() {
    let folder = tempfile::tempdir().unwrap();
    let world = world_of(&folder, OnOff::On).await;
    let mut ada = Socket::open(world.front, "/ws?clientId=a&token=key-of-ada").await;
    ada.until("status").await;
    let path = folder.path().join("users.toml");
    let another = user("ada", Role::Artist, "another-key");
    file::change(&path, Missing::IsWrong, |users| Ok((users.with(another).unwrap(), ()))).unwrap();
    assert_eq!(close_code(&mut ada).await, Some(1008));
    assert_eq!(get(&world, "/queue", ADA).await.status, 401);
    assert_eq!(get(&world, "/queue", "another-key").await.status, 200);
}

/// A reload reads the users at its beginning and puts them in their place at its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_removed_while_a_reload_runs_stays_out() {
    let folder = tempfile::tempdir().unwrap();
    let world = world_of(&folder, OnOff::On).await;
    without(&folder, "ada");
    let out = || async { get(&world, "/queue", ADA).await.status == 401 };
    soon("she is out", async { while !out().await {} }).await;
    let read_before = Arc::new(users());
    world.reload(|config| config.auth.users = read_before).await.unwrap();
    soon("she is out again", async { while !out().await {} }).await;
}

/// What somebody has asked for may have been carried out: it is not asked for again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_whose_sender_is_barred_is_sent_once_and_is_401() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.toml");
    fs::write(&path, users().to_text()).unwrap();
    let users_file = Some(path.clone());
    let (world, puppet) = puppet_world(&[("/pack/waits", Act::Wait)], |config| {
        config.auth = AuthConfig { users_file, ..keys() };
    })
    .await;
    let asks = get(&world, "/pack/waits", ADA);
    let ends = async {
        until("the backend has heard of it", || !puppet.asked().is_empty()).await;
        // The same key, so that he may ask anew.
        let next = User { generation: 2, ..user("ada", Role::Artist, ADA) };
        file::change(&path, Missing::IsWrong, |users| Ok((users.with(next).unwrap(), ()))).unwrap();
    };
    let (answer, ()) = soon("an answer", async { tokio::join!(asks, ends) }).await;
    let told = (answer.status, answer.header("mooring-error"), answer.header("www-authenticate"));
    assert_eq!(told, (401, "unauthorized", "Bearer"), "{}", answer.text());
    assert_eq!(puppet.asked().len(), 1);
}

/// A long answer breaks off, and does not look as if it had come to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_removed_gets_no_more_of_a_long_answer() {
    const LENGTH: u64 = 1 << 40;
    for passthrough in BOTH_WAYS {
        let folder = tempfile::tempdir().unwrap();
        let world = world_of(&folder, passthrough).await;
        let (host, port) = (world.front.ip().to_string(), world.front.port());
        let mut stream = network().connect(&host, port).await.unwrap();
        let request = format!(
            "GET /sim/blob?bytes={LENGTH} HTTP/1.1\r\nHost: gw\r\nX-Api-Key: key-of-ada\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut piece = vec![0; 64 << 10];
        assert_ne!(soon("its beginning", stream.read(&mut piece)).await.unwrap(), 0);
        assert!(piece.starts_with(b"HTTP/1.1 200 "));
        without(&folder, "ada");
        let ended = async { while matches!(stream.read(&mut piece).await, Ok(1..)) {} };
        soon("its end", ended).await;
        assert!(world.sim("a").blob_bytes() < LENGTH);
        assert_eq!(get(&world, "/queue", ADA).await.status, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_keeps_the_users_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let world = world_of(&folder, OnOff::On).await;
    let path = folder.path().join("users.toml");
    let success = || async {
        let metrics = world.admin_get("/metrics").await.text();
        metrics.lines().any(|line| line == "mooring_auth_users_last_read_success 1")
    };
    assert!(success().await);
    for bad in ["[users.ada]\nrole = \"king\"\n", "", "\u{0}"] {
        fs::write(&path, bad).unwrap();
        soon("it is told", async { while success().await {} }).await;
        assert_eq!(get(&world, "/queue", ADA).await.status, 200);
        fs::write(&path, users().to_text()).unwrap();
        soon("it is good again", async { while !success().await {} }).await;
    }
    fs::remove_file(&path).unwrap();
    soon("it is told", async { while success().await {} }).await;
    assert_eq!(get(&world, "/queue", ADA).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_asks_for_keys_closes_what_came_in_without() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut anybody = world.socket("a").await;
    anybody.until("status").await;
    world.reload(|config| config.auth = keys()).await.unwrap();
    assert_eq!(close_code(&mut anybody).await, Some(1008));
    assert_eq!(world.get("/queue").await.status, 401);
    world.reload(|config| config.auth.mode = AuthMode::Off).await.unwrap();
    assert_eq!(world.get("/queue").await.status, 200);
}

fn mooring(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mooring"));
    command.args(arguments).current_dir(folder).env_clear();
    let Output { status, stdout, stderr } = command.output().expect("it can be run");
    let text = |bytes| String::from_utf8(bytes).expect("it speaks UTF-8");
    (status.code().expect("no signal ended it"), text(stdout), text(stderr))
}

/// From the first user to a request of his, as an operator does it; and nothing of his key in any
/// log, however much is logged.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_user_who_is_added_comes_in_and_no_log_has_his_key() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = mooring(folder.path(), &["users", "add", "ada", "--file", "users.toml"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let key = out.split_whitespace().last().unwrap().to_owned();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let mode = ["--auth", "keys", "--set", "auth.users_file=users.toml"];
    let log = ["--set", "log.level=trace"];
    let daemon = Daemon::start_with(&sim, &folder, &[&mode[..], &log[..]].concat());
    let front = daemon.front;
    let bearer = format!("Bearer {key}");
    let up = async {
        while send(front, Method::GET, "/object_info", &[("x-api-key", &key)], "").await.status
            != 200
        {}
    };
    soon("the backend is up", up).await;
    for (path, headers) in [
        ("/queue".to_owned(), vec![("authorization", bearer.as_str())]),
        ("/object_info".to_owned(), vec![("x-api-key", key.as_str())]),
        (format!("/view?filename=x.png&token={key}"), vec![]),
        (format!("/pack?token={key}"), vec![("x-api-key", key.as_str())]),
    ] {
        let answer = send(front, Method::GET, &path, &headers, "").await;
        assert_ne!(answer.status, 401, "{path}");
    }
    let mut socket = Socket::open(front, &format!("/ws?clientId=x&token={key}")).await;
    socket.until("status").await;
    let (code, out, _) = mooring(folder.path(), &["users", "key", "ada", "--file", "users.toml"]);
    assert_eq!(code, 0);
    assert_eq!(close_code(&mut socket).await, Some(1008));
    let another = out.split_whitespace().last().unwrap();
    let answer = send(front, Method::GET, "/queue", &[("x-api-key", another)], "").await;
    assert_eq!(answer.status, 200);
    let answer = send(front, Method::GET, "/queue", &[("x-api-key", &key)], "").await;
    assert_eq!(answer.status, 401);
    daemon.signal("-TERM");
    let log = daemon.rest_of_log();
    assert!(log.contains("The users were read again."), "{log}");
    assert!(!log.contains(&key) && !log.contains(another), "{log}");
}

/// What each verb changes, says, and leaves as it was.
#[test]
fn users_are_added_listed_changed_and_removed() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.toml");
    let users = |arguments: &[&str]| {
        mooring(folder.path(), &[&["users"][..], arguments, &["--file", "users.toml"]].concat())
    };
    let last = |out: &str| out.split_whitespace().last().unwrap().to_owned();
    let whose = |key: &str| {
        let table = file::read(&path).unwrap();
        table.by_key(key.as_bytes()).map(|user| (user.name.to_string(), user.role))
    };
    let missing = users(&["list"]);
    assert_eq!(missing.0, 1);
    assert!(missing.2.contains("`users.toml` cannot be read: No such file"), "{}", missing.2);
    assert_eq!(users(&["remove", "ada"]).0, 1, "it is made for nobody who is removed");
    assert!(!path.exists());

    let (code, out, err) = users(&["add", "ada"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let ada = last(&out);
    assert_eq!(whose(&ada), Some(("ada".to_owned(), Role::Artist)), "{out}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&path).unwrap().contains(&ada), "only its hash is kept");
    let viewer = last(&users(&["add", "tv@example.org", "--role", "viewer"]).1);
    assert_eq!(whose(&viewer), Some(("tv@example.org".to_owned(), Role::Viewer)));
    assert_eq!(last(&users(&["add", "root", "--role", "operator"]).1).len(), 72);

    let before = fs::read(&path).unwrap();
    for (arguments, code, told) in [
        (&["add", "ada"][..], 1, "there is a user `ada` already"),
        (&["add", "ADA"], 1, "differ only in upper and lower case"),
        (&["add", "bob", "--role", "king"], 2, "a role is viewer, artist or operator"),
        (&["add", "a b"], 2, "the name of a user"),
        (&["add"], 2, "required"),
        (&["key", "bob"], 1, "there is no user `bob`"),
        (&["remove", "bob"], 1, "there is no user `bob`"),
    ] {
        let (exit, out, err) = users(arguments);
        assert_eq!((exit, out.as_str()), (code, ""), "{arguments:?}: {err}");
        assert!(err.contains(told), "{arguments:?}: {err}");
    }
    assert_eq!(fs::read(&path).unwrap(), before, "nothing of that changes anything");

    let (code, out, _) = users(&["list"]);
    assert_eq!(code, 0);
    assert!(out.contains("ada") && out.contains("viewer"), "{out}");
    let listed: serde_json::Value = serde_json::from_str(&users(&["list", "--json"]).1).unwrap();
    let told =
        serde_json::json!({ "name": "ada", "role": "artist", "key": true, "password": false });
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]), (3, &told));

    let another = last(&users(&["key", "ada"]).1);
    assert_eq!((whose(&ada), whose(&another).unwrap().0.as_str()), (None, "ada"));
    assert_eq!(users(&["remove", "ada"]).0, 0);
    assert_eq!((whose(&another), whose(&viewer).is_some()), (None, true));
}

/// A key is shown once: a script that lost it must hear of that.
#[test]
fn a_key_that_cannot_be_printed_is_a_failure_that_says_what_helps() {
    let folder = tempfile::tempdir().unwrap();
    for verb in ["add", "key"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mooring"));
        command.args(["users", verb, "ada", "--file", "users.toml"]).current_dir(folder.path());
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let Output { status, stderr, .. } = command.stdout(full).output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(1), "{told}");
        assert!(told.contains("`mooring users key ada` creates another"), "{told}");
    }
}

#[test]
fn the_demo_refuses_keys_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, err) = mooring(folder.path(), &["demo", "--auth", "keys"]);
    assert_eq!(code, 78);
    assert!(err.contains("the demo has no users"), "{err}");
}

/// The configuration names the file where nobody does, and without one that is good nothing starts.
#[test]
fn the_file_of_users_is_that_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[server]\nlisten = \"0.0.0.0:0\"\n[auth]\nmode = \"keys\"\n\
                [backends.a]\nurl = \"http://127.0.0.1:9\"\n";
    let configuration = folder.path().join("mooring.toml");
    fs::write(&configuration, text).unwrap();
    let check = || mooring(folder.path(), &["check"]);
    let (code, _, err) = check();
    assert_eq!(code, 78);
    assert!(err.contains("auth.users_file: `auth.mode` is \"keys\": name the file"), "{err}");
    assert!(mooring(folder.path(), &["users", "list"]).2.contains("give --file PATH"));

    let text = text.replace("\"keys\"\n", "\"keys\"\nusers_file = \"people.toml\"\n");
    fs::write(&configuration, text).unwrap();
    let (code, _, err) = check();
    assert_eq!(code, 78);
    assert!(err.contains("mooring.toml:5: auth.users_file: `people.toml` cannot be read"), "{err}");
    assert_eq!(mooring(folder.path(), &["users", "add", "ada"]).0, 0);
    let (code, out, err) = check();
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    fs::write(folder.path().join("people.toml"), "[users.ada]\nrole = \"king\"\n").unwrap();
    for arguments in [&["check"][..], &["serve"]] {
        let (code, _, err) = mooring(folder.path(), arguments);
        assert_eq!(code, 78, "{err}");
        assert!(err.contains("`people.toml` line 2: unknown variant `king`"), "{err}");
    }
}
