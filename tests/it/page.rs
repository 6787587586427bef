//! What is the same for everyone: the page with its script, and the last good copies of the home.

use std::io::Read as _;
use std::path::Path;

use http::Method;
use mooring::config::OnOff;
use mooring::sim::{Options, Sim};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::passthrough::{Act, world as puppet_world};
use crate::support::{Answer, World, network, send, soon, until};

const PAGE: &str =
    "<!doctype html><html><head><title>x</title></head><body><script></script></body></html>";
const HASHED: &str = "/assets/index-azSeANjR.js";

/// A folder with the files of a page.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("assets")).unwrap();
    for (path, text) in files {
        std::fs::write(folder.path().join(path.trim_start_matches('/')), text).unwrap();
    }
    folder
}

/// A backend that serves the files of a folder.
async fn backend(name: &str, frontend: &Path) -> Sim {
    let frontend = Some(frontend.to_owned());
    Sim::start(network(), Options { frontend, ..Options::named(name) }).await.unwrap()
}

async fn get(world: &World, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(world.front, Method::GET, path, headers, "").await
}

async fn head(world: &World, path: &str) -> Answer {
    send(world.front, Method::HEAD, path, &[], "").await
}

/// How often a backend was asked for a path.
fn asked(world: &World, backend: &str, path: &str) -> usize {
    world.sim(backend).requests().iter().filter(|it| it.target == path).count()
}

fn is_stale(answer: &Answer) -> bool {
    !answer.header("mooring-stale").is_empty() && answer.header("warning").starts_with("110 ")
}

/// The URLs of the scripts in a page, as paths.
fn scripts_of(page: &str) -> Vec<String> {
    let urls = page.split("<script src=\".").skip(1);
    urls.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_begins_with_our_scripts_and_is_otherwise_as_it_was() {
    let files = folder(&[("/index.html", PAGE), ("/other.html", PAGE)]);
    let world = World::over(vec![backend("a", files.path()).await], |_| {}).await;
    for path in ["/", "/index.html", "/?x=1"] {
        let answer = get(&world, path, &[("accept-encoding", "gzip, br")]).await;
        assert_eq!((answer.status, answer.backend()), (200, "a"), "{path}");
        let page = answer.text();
        let tags = scripts_of(&page).into_iter();
        let tags: String = tags.map(|url| format!("<script src=\".{url}\"></script>")).collect();
        assert_eq!(page.replacen(&tags, "", 1), PAGE);
        assert!(page.starts_with(&format!("<!doctype html><html><head>{tags}")), "{page}");
        assert_eq!(answer.header("content-length"), page.len().to_string());
        assert_eq!(answer.header("accept-ranges"), "", "{path}");
        assert!(answer.header("content-security-policy").contains("script-src 'self'"));
    }
    let seen = world.sim("a").requests();
    let page = seen.iter().find(|it| it.target == "/").unwrap();
    assert_eq!(page.headers["accept-encoding"], "identity");
    assert_eq!(get(&world, "/other.html", &[]).await.text(), PAGE, "other HTML is not touched");
    assert_eq!(get(&world, "/api/", &[]).await.text(), PAGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_changed_page_answers_heads_conditions_and_ranges_truly() {
    let files = folder(&[("/index.html", PAGE)]);
    let world = World::over(vec![backend("a", files.path()).await], |_| {}).await;
    let page = world.get("/").await;
    let tag = page.header("etag").to_owned();
    let asked_for = head(&world, "/").await;
    assert_eq!((asked_for.status, asked_for.header("etag")), (200, tag.as_str()));
    assert_eq!(asked_for.header("content-length"), page.body.len().to_string());
    assert!(asked_for.body.is_empty());
    let known = get(&world, "/", &[("if-none-match", &tag)]).await;
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, tag.as_str()));
    let ranged = get(&world, "/", &[("range", "bytes=0-3")]).await;
    assert_eq!((ranged.status, ranged.body), (200, page.body));

    let direct = send(world.sim("a").addr(), Method::GET, "/", &[], "").await;
    let of_backend = direct.header("etag").to_owned();
    assert_ne!(of_backend, tag, "it is another page");
    let unknown = get(&world, "/", &[("if-none-match", &of_backend)]).await;
    assert_eq!(unknown.status, 200, "kept from before the script was switched on");
    std::fs::write(files.path().join("index.html"), PAGE.replace('x', "y")).unwrap();
    assert_eq!(get(&world, "/", &[("if-none-match", &tag)]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scripts_are_kept_for_ever_by_their_hash_and_no_other() {
    let world = World::new(1).await;
    let paths = scripts_of(&world.get("/").await.text());
    let names = ["/-/page.js", "/-/page_extension.js"];
    assert_eq!(paths.len(), names.len(), "{paths:?}");
    for (path, name) in paths.iter().zip(names) {
        assert!(path.starts_with(name), "{path}");
        is_kept(&world, path, name).await;
    }
}

async fn is_kept(world: &World, path: &str, name: &str) {
    let script = world.get(path).await;
    assert_eq!(script.status, 200);
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    assert!(script.header("cache-control").contains("immutable"));
    let tag = script.header("etag").to_owned();
    assert_eq!(get(world, path, &[("if-none-match", &tag)]).await.status, 304);
    for other in [name.to_owned(), format!("{name}?v=0123456789abcdef")] {
        let answer = world.get(&other).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-cache"), "{other}");
    }
    assert_eq!(world.post(path, "").await.status, 405);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switched_off_the_page_is_what_its_backend_gives() {
    let files = folder(&[("/index.html", PAGE)]);
    let sims = vec![backend("a", files.path()).await];
    let world = World::over(sims, |config| config.server.page_script = OnOff::Off).await;
    let page = world.get("/").await;
    assert_eq!(page.text(), PAGE);
    assert!(page.header("set-cookie").starts_with("mooring="), "the browser is named all the same");
    let tag = page.header("etag").to_owned();
    assert_eq!(get(&world, "/", &[("if-none-match", &tag)]).await.status, 304);
    assert_eq!(get(&world, "/", &[("range", "bytes=1-4")]).await.text(), &PAGE[1..5]);
    assert_eq!(world.get("/-/page.js").await.status, 404);
    world.sim("a").crash().await;
    let stale = world.get("/").await;
    assert!(is_stale(&stale) && stale.text() == PAGE, "{stale:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_is_too_large_or_does_not_begin_as_html_passes_as_it_came() {
    let large = format!("{PAGE}{}", " ".repeat(2 << 20));
    for text in [large.as_str(), "It works!", ""] {
        let files = folder(&[("/index.html", text)]);
        let world = World::over(vec![backend("a", files.path()).await], |_| {}).await;
        let page = world.get("/").await;
        assert!(page.status == 200 && page.text() == text, "{} bytes", text.len());
    }
    let world = World::over(vec![backend("a", folder(&[]).path()).await], |_| {}).await;
    assert_eq!(world.get("/").await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_good_copy_stands_in_for_a_home_that_is_down() {
    let files = folder(&[("/index.html", PAGE), (HASHED, "1"), ("/assets/plain.js", "2")]);
    let other = folder(&[]);
    let sims = vec![backend("a", files.path()).await, backend("b", other.path()).await];
    let world = World::over(sims, |_| {}).await;
    world.post("/userdata/mine.json", "3").await;
    assert_eq!(world.get(HASHED).await.text(), "1");
    let paths = ["/", "/assets/plain.js", "/api/userdata/mine.json", "/settings", "/users"];
    let mut before = Vec::new();
    for path in paths {
        let answer = world.get(path).await;
        assert!(answer.status == 200 && answer.header("mooring-stale").is_empty(), "{path}");
        before.push(answer);
    }
    world.sim("a").crash().await;
    for noticed in ["not yet noticed", "noticed"] {
        for (path, fresh) in paths.iter().zip(&before) {
            let stale = world.get(path).await;
            assert_eq!((stale.status, stale.backend()), (200, "a"), "{path} {noticed}");
            assert!(is_stale(&stale), "{path} {noticed}: {:?}", stale.headers);
            let rule = match fresh.header("cache-control") {
                "no-store" => "no-store",
                _ => "private, no-cache",
            };
            assert_eq!(stale.header("cache-control"), rule, "{path} {noticed}");
            assert_eq!(stale.header("content-type"), fresh.header("content-type"));
            assert_eq!(stale.body, fresh.body, "{path} {noticed}");
        }
        let hashed = world.get(HASHED).await;
        assert!(hashed.text() == "1" && !is_stale(&hashed), "it never changes: {hashed:?}");
        world.is_down("a").await;
    }
    let tag = before[0].header("etag").to_owned();
    assert_eq!(get(&world, "/", &[("if-none-match", &tag)]).await.status, 304);
    let length = head(&world, "/userdata/mine.json").await.header("content-length").to_owned();
    assert_eq!(length, "1", "spelled without /api it is the same file");
    let metrics = world.admin_get("/metrics").await.text();
    assert!(metrics.contains("mooring_stale_answers_total 12"), "{metrics}");

    world.sim("a").restart().await.unwrap();
    world.all_up().await;
    assert!(!is_stale(&world.get("/settings").await), "the home answers itself again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_home_nothing_is_written_and_nothing_is_made_up() {
    let world = World::new(2).await;
    world.post("/userdata/a.json", "1").await;
    world.post("/userdata/b.json", "1").await;
    let ada = [("comfy-user", "ada")];
    let path = "/userdata/a.json";
    assert_eq!(get(&world, path, &ada).await.status, 200);
    assert_eq!(get(&world, "/userdata/b.json", &ada).await.status, 200);
    assert_eq!(get(&world, "/userdata/nothing.json", &ada).await.status, 404);
    world.post("/api/userdata/b.json?overwrite=true", "2").await;
    world.sim("a").crash().await;
    world.is_down("a").await;

    assert!(is_stale(&get(&world, path, &ada).await));
    let nothing = get(&world, "/userdata/nothing.json", &ada).await;
    assert!(nothing.status == 404 && is_stale(&nothing), "the page reads it as: none yet");
    assert_eq!(asked(&world, "b", path), 0, "a copy goes before another's");
    for (path, user) in [
        (path, "bob"),
        ("/userdata/b.json", "ada"),
        ("/userdata/nothing.json", "bob"),
        ("/api/userdata?dir=workflows", "ada"),
    ] {
        let answer = get(&world, path, &[("comfy-user", user)]).await;
        let told = (answer.backend(), answer.header("mooring-placement"));
        assert_eq!(told, ("b", "stand_in"), "{path} {user}");
        assert!(!is_stale(&answer) && answer.text() != "1", "{path} {user}: {answer:?}");
    }
    world.sim("b").crash().await;
    world.is_down("b").await;
    let answer = get(&world, path, &[("comfy-user", "bob")]).await;
    let told = (answer.status, answer.header("mooring-error"), answer.header("retry-after"));
    assert_eq!(told, (503, "backend_down", "2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_saved_says_so_in_words_that_the_page_shows() {
    let world = World::new(2).await;
    world.all_up().await;
    world.sim("a").crash().await;
    for noticed in ["not yet noticed", "noticed"] {
        for (method, path) in [
            ("POST", "/api/userdata/workflows%2Fa.json?overwrite=false"),
            ("POST", "/settings/Comfy.X"),
            ("DELETE", "/userdata/a.json"),
        ] {
            let mut stream = network().connect("127.0.0.1", world.front.port()).await.unwrap();
            let head = format!("{method} {path} HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n");
            let request = format!("{head}Content-Length: 2\r\n\r\n{{}}");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
            let line = answer.lines().next().unwrap();
            assert_eq!(line, "HTTP/1.1 503 a is down: not saved", "{method} {path} {noticed}");
            assert!(answer.contains("\"a is down: not saved\""), "{answer}");
            assert!(answer.contains("mooring-error: backend_down"), "{answer}");
        }
        world.is_down("a").await;
    }
    let seen = world.sim("b").requests();
    let is_write = |it: &&mooring::sim::Seen| it.method != "GET";
    assert!(seen.iter().find(is_write).is_none(), "nothing is saved elsewhere: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_is_not_given_from_a_copy() {
    let world = World::new(1).await;
    world.post("/userdata/a.json", "1").await;
    assert_eq!(world.get("/userdata/a.json").await.status, 200);
    // Behind the gateway's back: it learns of it by the 404.
    send(world.sim("a").addr(), Method::DELETE, "/userdata/a.json", &[], "").await;
    assert_eq!(world.get("/userdata/a.json").await.status, 404);
    world.sim("a").crash().await;
    let deleted = world.get("/userdata/a.json").await;
    assert!(deleted.status == 404 && deleted.body.is_empty() && is_stale(&deleted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_bounded_and_can_be_switched_off() {
    let large = "x".repeat(8 << 10);
    let files = folder(&[("/assets/small.js", "1"), ("/assets/large.js", &large)]);
    for (bytes, keeps_small) in [(0, false), (16 << 10, true)] {
        let sims = vec![backend("a", files.path()).await];
        let world = World::over(sims, |config| config.server.stale_cache = bytes).await;
        assert_eq!(world.get("/assets/small.js").await.text(), "1");
        assert_eq!(world.get("/assets/large.js").await.text(), large, "passed on all the same");
        world.sim("a").crash().await;
        let small = world.get("/assets/small.js").await;
        assert_eq!(is_stale(&small), keeps_small, "{bytes}: {small:?}");
        assert_eq!(world.get("/assets/large.js").await.header("mooring-stale"), "");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_no_copy_and_a_browser_that_has_it_all_makes_one() {
    let files = folder(&[("/assets/a.js", "123456"), ("/assets/b.js", "123456")]);
    let world = World::over(vec![backend("a", files.path()).await], |_| {}).await;
    let part = get(&world, "/assets/a.js", &[("range", "bytes=1-2")]).await;
    assert_eq!((part.status, part.text().as_str()), (206, "23"));
    let direct = send(world.sim("a").addr(), Method::GET, "/assets/b.js", &[], "").await;
    let tag = direct.header("etag").to_owned();
    let known = [("if-none-match", tag.as_str())];
    assert_eq!(get(&world, "/assets/b.js", &known).await.status, 200, "in full, once");
    assert_eq!(get(&world, "/assets/b.js", &known).await.status, 304);
    world.sim("a").crash().await;
    assert_eq!(world.get("/assets/a.js").await.header("mooring-stale"), "");
    assert_eq!(world.get("/assets/b.js").await.text(), "123456");
    assert_eq!(get(&world, "/assets/b.js", &known).await.status, 304);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hashed_asset_that_the_home_lacks_is_found_on_the_others() {
    let index = [("/index.html", PAGE)];
    let mut folders = vec![folder(&index), folder(&[]), folder(&[(HASHED, "1"), ("/lib.js", "2")])];
    let mut sims = Vec::new();
    for (name, files) in ["a", "b", "c"].into_iter().zip(&folders) {
        sims.push(backend(name, files.path()).await);
    }
    let world = World::over(sims, |_| {}).await;
    world.all_up().await;
    let home = folders[0].path().to_owned();
    assert_eq!(world.get("/").await.status, 200);
    let found = world.get(HASHED).await;
    assert_eq!((found.status, found.backend(), found.text().as_str()), (200, "c", "1"));
    let nowhere = "/assets/none-12345678.js";
    for _ in 0..3 {
        assert_eq!(world.get(nowhere).await.status, 404, "ComfyUI's own");
    }
    assert_eq!(["a", "b", "c"].map(|name| asked(&world, name, nowhere)), [3, 1, 1]);
    assert_eq!(world.get("/lib.js").await.status, 404, "it may be another version");

    // Updated since, so that nobody has it any more, and a tab of before asks for it.
    folders.clear();
    let kept = world.get(HASHED).await;
    assert!(kept.status == 200 && kept.text() == "1" && !is_stale(&kept), "{kept:?}");
    std::fs::create_dir_all(home.join("assets")).unwrap();
    std::fs::write(home.join("index.html"), PAGE.replace('x', "y")).unwrap();
    assert_eq!(world.get("/").await.status, 200, "it is another installation");
    let kept = world.get(HASHED).await;
    assert!(kept.status == 200 && kept.text() == "1" && is_stale(&kept), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hashed_asset_is_fetched_once_and_given_from_memory_as_each_reads_it() {
    let script = "export const a = 1;\n".repeat(500);
    let files = folder(&[("/index.html", PAGE), (HASHED, &script)]);
    let world = World::over(vec![backend("a", files.path()).await], |_| {}).await;
    assert_eq!(world.get("/").await.status, 200);
    let mut tags = Vec::new();
    for (accepted, coding) in [
        ("gzip, deflate", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip;q=0", ""),
        ("", ""),
        ("br;q=0, gzip", "gzip"),
    ] {
        let answer = get(&world, HASHED, &[("accept-encoding", accepted)]).await;
        let told = (answer.status, answer.header("content-encoding"), answer.backend());
        assert_eq!(told, (200, coding, "a"), "{accepted}");
        assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
        assert_eq!(answer.header("content-type"), "text/javascript; charset=utf-8");
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let placement = if tags.is_empty() { "home" } else { "kept" };
        assert_eq!(answer.header("mooring-placement"), placement, "{accepted}");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        assert_eq!(answer.headers.get_all("date").iter().count(), 1);
        let is_smaller = answer.body.len() < script.len() / 10;
        assert_eq!(is_smaller, !coding.is_empty(), "{accepted}");
        if coding == "gzip" {
            let mut read = String::new();
            flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut read).unwrap();
            assert_eq!(read, script);
        } else if coding.is_empty() {
            assert_eq!(answer.text(), script);
        }
        let tag = answer.header("etag").to_owned();
        let known = [("accept-encoding", accepted), ("if-none-match", tag.as_str())];
        let known = get(&world, HASHED, &known).await;
        assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, &*tag));
        tags.push(tag);
    }
    assert!(tags[0] != tags[1] && tags[1] != tags[2] && tags[2] == tags[3] && tags[0] == tags[4]);
    let range = [("range", "bytes=7-11"), ("accept-encoding", "gzip"), ("if-range", &*tags[2])];
    let part = get(&world, HASHED, &range).await;
    assert_eq!((part.status, part.text().as_str()), (206, "const"));
    assert_eq!(part.header("content-range"), format!("bytes 7-11/{}", script.len()));
    let beyond = get(&world, HASHED, &[("range", "bytes=999999-")]).await;
    assert_eq!((beyond.status, beyond.body.len()), (416, 0));
    let asked_for = head(&world, HASHED).await;
    assert_eq!((asked_for.status, asked_for.body.len()), (200, 0));
    assert_eq!(asked_for.header("content-length"), script.len().to_string());
    assert_eq!(asked(&world, "a", HASHED), 1, "all of it from memory");

    // Somebody mends a broken installation: the page is another, and so may its files be.
    std::fs::write(files.path().join("index.html"), PAGE.replace('x', "y")).unwrap();
    std::fs::write(files.path().join(&HASHED[1..]), "mended").unwrap();
    assert_eq!(world.get(HASHED).await.text(), script, "nobody has seen it yet");
    assert_eq!(world.get("/").await.status, 200);
    assert_eq!(world.get(HASHED).await.text(), "mended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hashed_asset_has_the_type_of_its_name_and_a_page_is_not_taken_for_one() {
    let answer = |kind: &str, body: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nCache-Control: no-store");
        Act::Answer(vec![format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())])
    };
    let front_page = "/assets/lost-azSeANjR.css";
    let acts =
        [(HASHED, answer("text/plain", "let a;")), (front_page, answer("text/html", "<html>"))];
    for (bytes, times) in [(64 << 20, 1), (0, 2)] {
        let change = |config: &mut mooring::config::Config| config.server.asset_cache = bytes;
        let (world, puppet) = puppet_world(&acts, change).await;
        for _ in 0..2 {
            let script = world.get(HASHED).await;
            assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
            assert!(
                script.header("cache-control").contains("immutable") && script.text() == "let a;"
            );
            let html = world.get(front_page).await;
            assert_eq!(
                (html.header("content-type"), html.header("cache-control")),
                ("text/html", "no-store")
            );
        }
        let asked = puppet.asked();
        let count = |path| asked.iter().filter(|(_, asked)| asked == path).count();
        assert_eq!((count(HASHED), count(front_page)), (times, 2), "{bytes}");
    }
}

/// The home has been down since the gateway was started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_home_from_the_start_the_page_comes_from_whoever_is_up() {
    let files = folder(&[("/index.html", PAGE), (HASHED, "1"), ("/assets/plain.js", "2")]);
    let sims = vec![backend("a", files.path()).await, backend("b", files.path()).await];
    sims[0].crash().await;
    let world = World::over(sims, |_| {}).await;
    until("b is up", || world.gateway.shared.fleet.by_name("b").unwrap().is_up()).await;
    let person = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    for headers in [&person[..], &[]] {
        let page = get(&world, "/", headers).await;
        let told = (page.status, page.backend(), page.header("mooring-placement"));
        assert_eq!(told, (200, "b", "stand_in"), "{}", page.text());
        assert_eq!(scripts_of(&page.text()).len(), 2);
    }
    for path in [HASHED, "/assets/plain.js", "/settings", "/api/users", "/api/object_info"] {
        let answer = world.get(path).await;
        assert_eq!((answer.status, answer.backend()), (200, "b"), "{path}: {}", answer.text());
    }
    assert_eq!(world.post("/settings", "{}").await.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarded_answer_says_how_long_it_took_here_and_there() {
    let world = World::new(1).await;
    world.sim("a").set_faults(|faults| faults.latency_ms = 30);
    for path in ["/system_stats", "/", "/settings"] {
        let answer = world.get(path).await;
        let timing = answer.header("server-timing").to_owned();
        let (own, backend) = timing.split_once(", ").unwrap_or_else(|| panic!("{path}: {timing}"));
        let ms = |text: &str, name: &str| {
            let text = text.strip_prefix(name).and_then(|rest| rest.strip_prefix(";dur="));
            text.unwrap_or_else(|| panic!("{timing}")).parse::<f64>().unwrap()
        };
        assert!(30.0 <= ms(backend, "backend"), "{path}: {timing}");
        assert!((0.0..1000.0).contains(&ms(own, "mooring")), "{path}: {timing}");
    }
    assert_eq!(world.get("/-/whoami").await.header("server-timing"), "");
    world.sim("a").set_faults(|faults| faults.latency_ms = 0);
    until("the backend is up", || world.gateway.shared.home().is_some_and(|it| it.is_up())).await;
}
