//! Files of the page with a hash in their name: which are kept, for whom, and in which coding.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use mooring::config::{Config, OnOff};
use mooring::sim::{Options, Sim};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::passthrough::{Act, world as puppet_world};
use crate::support::{Answer, World, network, send, until};

const HASHED: &str = "/assets/index-azSeANjR.js";

/// A folder that has one hashed script.
fn folder(script: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("assets")).unwrap();
    std::fs::write(folder.path().join(&HASHED[1..]), script).unwrap();
    folder
}

async fn backend(name: &str, version: &str, frontend: &Path) -> Sim {
    let frontend = Some(frontend.to_owned());
    let options = Options { frontend, version: version.to_owned(), ..Options::named(name) };
    Sim::start(network(), options).await.unwrap()
}

/// One backend that has one hashed script.
async fn world(script: &str, change: impl FnOnce(&mut Config)) -> (World, TempDir) {
    let files = folder(script);
    let world = World::over(vec![backend("a", "0.33.0", files.path()).await], change).await;
    world.all_up().await;
    (world, files)
}

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(world.front, Method::GET, path, headers, "").await
}

/// How often a backend was asked for a path.
fn asked(world: &World, backend: &str, path: &str) -> usize {
    world.sim(backend).requests().iter().filter(|it| it.target == path).count()
}

/// The value of a metric.
async fn metric(world: &World, name: &str) -> u64 {
    let text = world.admin_get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// An answer of a backend with these lines in its head.
fn answer(lines: &str, body: &str) -> Act {
    let length = format!("Content-Length: {}\r\n", body.len());
    Act::Answer(vec![format!("HTTP/1.1 200 OK\r\n{lines}{length}\r\n{body}")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_whole_public_files_of_the_expected_type_are_kept() {
    let js = "Content-Type: text/javascript\r\n";
    let chunked = format!("HTTP/1.1 200 OK\r\n{js}Transfer-Encoding: chunked\r\n\r\n");
    let until_close = format!("HTTP/1.1 200 OK\r\n{js}\r\nlet a;");
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned();
    let part = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/9\r\n\
        Content-Length: 1\r\n\r\nl";
    let acts = [
        ("/assets/good-azSeANjR.js", answer(js, "let a;")),
        ("/assets/cookie-azSeANjR.js", answer(&format!("{js}Set-Cookie: a=1\r\n"), "let a;")),
        ("/assets/mine-azSeANjR.js", answer(&format!("{js}Cache-Control: private\r\n"), "let a;")),
        (
            "/assets/fixed-azSeANjR.js",
            answer(&format!("{js}Cache-Control: no-transform\r\n"), "let a;"),
        ),
        ("/assets/html-azSeANjR.js", answer("Content-Type: text/html\r\n", "<html>")),
        ("/assets/json-azSeANjR.js", answer("Content-Type: application/json\r\n", "{}")),
        ("/assets/varies-azSeANjR.js", answer(&format!("{js}Vary: cookie\r\n"), "let a;")),
        (
            "/assets/chunks-azSeANjR.js",
            Act::Answer(vec![chunked, "6\r\nlet a;\r\n0\r\n\r\n".into()]),
        ),
        ("/assets/close-azSeANjR.js", Act::AnswerAndClose(until_close)),
        ("/assets/missing-azSeANjR.js", Act::Answer(vec![missing])),
        ("/assets/part-azSeANjR.js", Act::Answer(vec![part.to_owned()])),
        ("/assets/my-pictures.png", answer("Content-Type: image/png\r\n", "x")),
        ("/assets/list", answer("Content-Type: application/json\r\n", "[]")),
        ("/assets/good-azSeANjR.js?v=2", answer(js, "let b;")),
        ("/extensions/p/index-azSeANjR.js", answer(js, "let a;")),
    ];
    let (world, puppet) = puppet_world(&acts, |_| {}).await;
    for (path, _) in &acts {
        for _ in 0..2 {
            let answer = world.get(path).await;
            let is_kept = answer.header("mooring-placement") == "kept";
            assert!(!is_kept || *path == "/assets/good-azSeANjR.js", "{path}");
        }
        let count = puppet.asked().iter().filter(|(_, asked)| asked == path).count();
        let expected = if *path == "/assets/good-azSeANjR.js" { 1 } else { 2 };
        assert_eq!(count, expected, "{path}");
    }
    assert_eq!(world.get("/assets/good-azSeANjR.js").await.text(), "let a;", "not that of a query");
    let html = world.get("/assets/html-azSeANjR.js").await;
    assert_eq!((html.header("content-type"), html.header("cache-control")), ("text/html", ""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fetch_serves_all_who_ask_at_the_same_time() {
    let script = "export const a = 1;\n".repeat(500);
    let (world, _files) = world(&script, |_| {}).await;
    world.sim("a").set_faults(|faults| faults.latency_ms = 300);
    let asking = (0..20).map(|index| {
        let coding = if index % 2 == 0 { "gzip" } else { "br" };
        let front = world.front;
        async move { send(front, Method::GET, HASHED, &[("accept-encoding", coding)], "").await }
    });
    let answers = join_all(asking).await;
    for (index, answer) in answers.iter().enumerate() {
        let coding = if index % 2 == 0 { "gzip" } else { "br" };
        assert_eq!((answer.status, answer.header("content-encoding")), (200, coding));
        assert_eq!(answer.body, answers[index % 2].body, "made once");
    }
    assert_eq!(asked(&world, "a", HASHED), 1);
    assert_eq!(metric(&world, "mooring_asset_cache_misses_total").await, 1);
    assert_eq!(metric(&world, "mooring_asset_cache_hits_total").await, 19);
    let bytes = metric(&world, "mooring_asset_cache_bytes").await;
    let bodies = script.len() + answers[0].body.len() + answers[1].body.len();
    assert!(u64::try_from(bodies).unwrap() < bytes && bytes < 64 << 20, "{bytes}");
}

/// The others do not fail with it, and do not wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_set_out_first_may_leave() {
    let (world, _files) = world("let a;", |_| {}).await;
    world.sim("a").set_faults(|faults| faults.latency_ms = 500);
    let mut first = network().connect("127.0.0.1", world.front.port()).await.unwrap();
    let head = format!("GET {HASHED} HTTP/1.1\r\nhost: gw\r\n\r\n");
    first.write_all(head.as_bytes()).await.unwrap();
    first.flush().await.unwrap();
    let metrics = &world.gateway.shared.metrics;
    until("it is on its way", || metrics.assets.misses.get() == 1).await;
    let leaves = async {
        tokio::task::yield_now().await;
        drop(first);
    };
    let (second, ()) = tokio::join!(world.get(HASHED), leaves);
    assert_eq!((second.status, second.text().as_str()), (200, "let a;"));
    world.sim("a").set_faults(|faults| faults.latency_ms = 0);
    assert_eq!(world.get(HASHED).await.header("mooring-placement"), "kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_frontends_never_mix() {
    let (new, old) = (folder("new"), folder("old"));
    let sims =
        vec![backend("a", "0.33.0", new.path()).await, backend("b", "0.8.0", old.path()).await];
    let world = World::over(sims, |_| {}).await;
    world.all_up().await;
    for _ in 0..2 {
        for (home, script) in [("a", "new"), ("b", "old")] {
            world.reload(|config| home.clone_into(&mut config.server.home)).await.unwrap();
            let answer = world.get(HASHED).await;
            assert_eq!((answer.backend(), answer.text().as_str()), (home, script));
        }
    }
    assert_eq!(["a", "b"].map(|name| asked(&world, name, HASHED)), [1, 1]);
}

/// With its home down, a page gets the files that it was loaded with: from memory, or from the
/// backend that has the same frontend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_is_down_keeps_nobody_from_its_files() {
    let other = "/assets/other-BsSeANjR.js";
    let (new, old) = (folder("new"), folder("old"));
    for (files, script) in [(&new, "other new"), (&old, "other old")] {
        std::fs::write(files.path().join(&other[1..]), script).unwrap();
    }
    let sims = vec![
        backend("a", "0.33.0", new.path()).await,
        backend("b", "0.8.0", old.path()).await,
        backend("c", "0.33.0", new.path()).await,
    ];
    let world = World::over(sims, |config| "a".clone_into(&mut config.server.home)).await;
    world.all_up().await;
    assert_eq!(world.get(HASHED).await.text(), "new");
    world.sim("a").crash().await;
    world.is_down("a").await;
    let kept = world.get(HASHED).await;
    assert_eq!((kept.status, kept.text().as_str()), (200, "new"));
    assert_eq!((kept.header("mooring-placement"), kept.header("mooring-stale")), ("kept", ""));
    assert!(kept.header("cache-control").contains("immutable"));
    let found = world.get(other).await;
    assert_eq!((found.status, found.backend(), found.text().as_str()), (200, "c", "other new"));
    assert_eq!(asked(&world, "b", other), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_bounds_what_is_kept() {
    let (world, _files) = world(&"let a;".repeat(100), |_| {}).await;
    for (bytes, fetched) in [(64 << 20, 1), (0, 3), (1 << 20, 4)] {
        world.reload(|config| config.server.asset_cache = bytes).await.unwrap();
        for _ in 0..2 {
            let answer = world.get(HASHED).await;
            assert!(answer.status == 200 && answer.header("cache-control").contains("immutable"));
        }
        assert_eq!(asked(&world, "a", HASHED), fetched, "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_refused_from_memory_too() {
    let (world, _files) = world("let a;", |_| {}).await;
    assert_eq!(world.get(HASHED).await.status, 200);
    let foreign = get(&world, HASHED, &[("origin", "https://evil.example")]).await;
    assert_eq!((foreign.status, foreign.header("mooring-error")), (403, "foreign_origin"));
    assert_eq!(foreign.header("access-control-allow-origin"), "");
    let post = world.post(HASHED, "x").await;
    assert_ne!(post.header("mooring-placement"), "kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_refuses_a_form_does_not_get_it() {
    let script = "export const a = 1;\n".repeat(500);
    let (world, _files) = world(&script, |_| {}).await;
    for (accepted, status, coding) in [
        ("identity;q=0, gzip", 200, "gzip"),
        ("*;q=0, br;q=0.1", 200, "br"),
        ("identity;q=0", 406, ""),
        ("*;q=0", 406, ""),
        ("gzip;q=nonsense", 200, ""),
        ("identity, gzip;q=0.5", 200, ""),
    ] {
        let answer = get(&world, HASHED, &[("accept-encoding", accepted)]).await;
        let told = (answer.status, answer.header("content-encoding"));
        assert_eq!(told, (status, coding), "{accepted}");
        let error = if status == 406 { "not_acceptable" } else { "" };
        assert_eq!(answer.header("mooring-error"), error, "{accepted}");
    }
    // A part is one of the file as it is, and is not given to who refuses that.
    let range = [("range", "bytes=0-5"), ("accept-encoding", "identity;q=0, gzip")];
    let whole = get(&world, HASHED, &range).await;
    assert_eq!((whole.status, whole.header("content-encoding")), (200, "gzip"));
    let part = get(&world, HASHED, &[("range", "bytes=0-5"), ("accept-encoding", "br")]).await;
    assert_eq!((part.status, part.text().as_str()), (206, "export"));
}

/// A body that stays in a slow client's connection is nobody's business but its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_slow_client() {
    let script = "let a;".repeat(1 << 20);
    let (world, _files) = world(&script, |_| {}).await;
    let mut slow = network().connect("127.0.0.1", world.front.port()).await.unwrap();
    let head = format!("GET {HASHED} HTTP/1.1\r\nhost: gw\r\n\r\n");
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.flush().await.unwrap();
    let metrics = &world.gateway.shared.metrics;
    until("it is on its way", || metrics.assets.misses.get() == 1).await;
    let answer = tokio::time::timeout(Duration::from_secs(30), world.get(HASHED)).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, script.len()));
    assert_eq!(asked(&world, "a", HASHED), 1);
    drop(slow);
}

/// In an outage nobody says that a file is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_a_file_is_looked_for_at_once() {
    let (none, files) = (folder("let a;"), folder("let a;"));
    std::fs::remove_file(none.path().join(&HASHED[1..])).unwrap();
    let sims =
        vec![backend("a", "0.33.0", none.path()).await, backend("b", "0.33.0", files.path()).await];
    let world = World::over(sims, |_| {}).await;
    world.all_up().await;
    world.sim("b").crash().await;
    world.is_gone("b").await;
    assert_eq!(world.get(HASHED).await.status, 404);
    world.sim("b").restart().await.unwrap();
    world.all_up().await;
    let found = world.get(HASHED).await;
    assert_eq!((found.status, found.backend()), (200, "b"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_another_page_of_the_home_has_files_fetched_again() {
    for script in [OnOff::On, OnOff::Off] {
        let (world, files) = world("let a;", |config| config.server.page_script = script).await;
        let index = files.path().join("index.html");
        std::fs::write(&index, "<!doctype html><html><head></head></html>").unwrap();
        assert_eq!(world.get("/").await.status, 200);
        assert_eq!(world.get(HASHED).await.status, 200);
        for path in ["/api/", "/index.html", "/", "/?x=1", "/api/", "/"] {
            assert_eq!(world.get(path).await.status, 200, "{path}");
        }
        assert_eq!(world.get(HASHED).await.status, 200);
        assert_eq!(asked(&world, "a", HASHED), 1, "{script:?}");
        std::fs::write(&index, "<!doctype html><html><head>2</head></html>").unwrap();
        assert_eq!(world.get("/").await.status, 200);
        assert_eq!(world.get(HASHED).await.status, 200);
        assert_eq!(asked(&world, "a", HASHED), 2, "{script:?}");
    }
}

/// Who waits for another's fetch keeps nothing of another frontend under the home's name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_does_not_mix_two_frontends_either() {
    let script = |text: &str| format!("export const {text} = 1;\n").repeat(500);
    let (new, old) = (folder("let a;"), folder(&script("old")));
    std::fs::remove_file(new.path().join(&HASHED[1..])).unwrap();
    let sims =
        vec![backend("a", "0.33.0", new.path()).await, backend("b", "0.8.0", old.path()).await];
    let world = World::over(sims, |_| {}).await;
    world.all_up().await;
    world.sim("a").set_faults(|faults| faults.latency_ms = 300);
    let gzip = [("accept-encoding", "gzip")];
    let answers = join_all((0..4).map(|_| get(&world, HASHED, &gzip))).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.backend() == "b"));
    assert_eq!(asked(&world, "a", HASHED), 1, "the others wait");
    world.sim("a").set_faults(|faults| faults.latency_ms = 0);
    std::fs::write(new.path().join(&HASHED[1..]), script("new")).unwrap();
    let answer = get(&world, HASHED, &gzip).await;
    assert_eq!((answer.status, answer.backend()), (200, "a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_to_the_first_asker_is_said_to_nobody_else() {
    let lines = "Content-Type: text/javascript\r\nX-Auth-User: ada\r\nX-Request-Id: 7\r\n\
        Link: </ada>; rel=preload\r\nRefresh: 0; url=/ada\r\n\
        Content-Security-Policy: script-src 'nonce-7'\r\nContent-Language: en\r\n";
    let (world, _puppet) = puppet_world(&[(HASHED, answer(lines, "let a;"))], |_| {}).await;
    for placement in ["home", "kept"] {
        let answer = world.get(HASHED).await;
        assert_eq!(answer.header("mooring-placement"), placement);
        for name in ["x-auth-user", "x-request-id", "link", "refresh", "content-security-policy"] {
            assert_eq!(answer.header(name), "", "{name} {placement}");
        }
        assert_eq!(answer.header("content-language"), "en", "it is the file's");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_for_all_is_asked_for_in_nobodys_name() {
    let (world, _files) = world("let a;", |_| {}).await;
    let mine = [("cookie", "session=1"), ("authorization", "Basic YTpi")];
    assert_eq!(get(&world, HASHED, &mine).await.status, 200);
    let seen = world.sim("a").requests();
    let asked = seen.iter().find(|it| it.target == HASHED).unwrap();
    assert!(!asked.headers.contains_key("cookie") && !asked.headers.contains_key("authorization"));
    assert_eq!(world.get(HASHED).await.header("mooring-placement"), "kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_behind_a_login_is_given_to_who_may_have_it_and_not_kept() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/javascript\r\nContent-Length: 6\r\n\r\n";
    let act = Act::AnswerIfAuthorized(format!("{head}let a;"));
    let (world, _puppet) = puppet_world(&[(HASHED, act)], |_| {}).await;
    for _ in 0..2 {
        let mine = get(&world, HASHED, &[("authorization", "Basic YTpi")]).await;
        assert_eq!((mine.status, mine.text().as_str()), (200, "let a;"));
        assert_eq!(mine.header("mooring-placement"), "home");
        assert!(mine.header("cache-control").starts_with("private, "), "no proxy shares it");
        assert_eq!(world.get(HASHED).await.status, 401);
    }
}
