//! What a request, a submission and an event cost in locks, counted by the locks themselves.
//!
//! A lock that is taken once more for each backend, string or picture makes a gateway slow that
//! grows; one that is everybody's keeps all of them waiting for one. The counts are those of
//! `ARCHITECTURE.md`, "What a way costs".

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use http::Method;
use mooring::config::{Config, OnOff, StateDir};
use mooring::lock::trace::{self, Taken};
use mooring::net::Stream;
use mooring::sim::{Options, Sim};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{Answer, World, network, quick, send_bytes, slow, soon};

/// Tasks of requests: connections, and what they start. Links, watch links and the sweep go on
/// meanwhile and are not theirs.
const REQUESTS: &[&str] = &["src/server/", "src/front/submit.rs"];

/// The way of an event: the task of a link, and that of a browser's socket.
const EVENTS: &[&str] = &["src/session/mod.rs", "src/front/upgrade.rs"];

/// In how many shards a ledger lies.
const SHARDS: usize = 3;

/// Locks that were taken for tasks that were started in one of these files.
fn of(taken: Vec<Taken>, files: &[&str]) -> Vec<Taken> {
    let is_of = |it: &Taken| {
        let file = it.task.map_or("", |task| task.file());
        files.iter().any(|part| file.starts_with(part))
    };
    taken.into_iter().filter(is_of).collect()
}

fn listed(taken: &[Taken]) -> String {
    taken.iter().fold(String::new(), |mut text, it| {
        let _ = writeln!(text, "  {it}");
        text
    })
}

#[track_caller]
fn at_most(max: usize, way: &str, taken: &[Taken]) {
    let (count, all) = (taken.len(), listed(taken));
    assert!(count <= max, "{way}: {count} locks, and no more than {max} are right:\n{all}");
    assert_ne!(count, 0, "{way}: nothing was counted, so this checks nothing");
}

/// So many backends.
async fn fleet(backends: usize, change: impl FnOnce(&mut Config)) -> World {
    let mut sims = Vec::new();
    for number in 0..backends {
        let name: &'static str = format!("gpu{number:03}").leak();
        sims.push(Sim::start(network(), Options::named(name)).await.unwrap());
    }
    let world = World::over(sims, change).await;
    world.all_up().await;
    world
}

fn written(folder: &Path) -> impl FnOnce(&mut Config) {
    let folder = folder.to_owned();
    move |config| config.state.dir = StateDir::Written(folder)
}

/// A connection that stays.
struct Kept(Stream);

impl Kept {
    async fn to(world: &World) -> Self {
        let (host, port) = (world.front.ip().to_string(), world.front.port());
        Self(network().connect(&host, port).await.unwrap())
    }

    /// Asks, and reads the whole answer.
    async fn get(&mut self, path: &str) -> String {
        let head = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n");
        self.0.write_all(head.as_bytes()).await.unwrap();
        soon(path, async {
            let mut read = Vec::new();
            loop {
                let mut piece = [0; 4096];
                let count = self.0.read(&mut piece).await.unwrap();
                assert_ne!(count, 0, "it closed after {}", String::from_utf8_lossy(&read));
                read.extend_from_slice(&piece[..count]);
                let text = String::from_utf8_lossy(&read).into_owned();
                if is_whole(&text, read.len()) {
                    return text;
                }
            }
        })
        .await
    }
}

fn is_whole(text: &str, read: usize) -> bool {
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let named = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let length: usize = named.expect("the answer says how long it is");
    head.len() + 4 + length <= read
}

/// Reads of one kind, one after the other; the locks of all of them.
async fn reads(world: &World, paths: &[String]) -> Vec<Taken> {
    let mut kept = Kept::to(world).await;
    trace::begin();
    for path in paths {
        let answer = kept.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    of(trace::end(), REQUESTS)
}

#[tokio::test]
async fn a_read_takes_three_locks_however_many_backends_there_are() {
    for backends in [1, 10, 100] {
        for passthrough in [OnOff::On, OnOff::Off] {
            let world = fleet(backends, |config| config.server.passthrough = passthrough).await;
            let one = vec!["/system_stats?clientId=one".to_owned(); 20];
            // The first binds it.
            reads(&world, &one[..1]).await;
            let way = format!("20 reads of one client, {backends} backends, {passthrough:?}");
            at_most(20 * 3, &way, &reads(&world, &one).await);
            let many: Vec<String> =
                (0..20).map(|number| format!("/system_stats?clientId=new-{number}")).collect();
            let way = format!("20 first reads of clients, {backends} backends, {passthrough:?}");
            at_most(20 * 3, &way, &reads(&world, &many).await);
        }
    }
}

#[tokio::test]
async fn a_picture_is_found_with_three_locks_however_many_backends_there_are() {
    for backends in [1, 10] {
        let world = fleet(backends, |_| {}).await;
        upload(&world, "one", "harbour.png").await;
        let path = "/view?filename=harbour.png&type=input&clientId=one";
        let paths = vec![path.to_owned(); 20];
        reads(&world, &paths[..1]).await;
        let taken = reads(&world, &paths).await;
        at_most(20 * 3, &format!("20 pictures, {backends} backends"), &taken);
    }
}

async fn upload(world: &World, client: &str, name: &str) -> Answer {
    let body = format!(
        "--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\
         Content-Type: image/png\r\n\r\n{name}\r\n--xyz--\r\n"
    );
    let headers = [("content-type", "multipart/form-data; boundary=xyz")];
    let path = format!("/upload/image?clientId={client}");
    let answer = send_bytes(world.front, Method::POST, &path, &headers, Bytes::from(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

/// A graph with so many texts more than [`quick`] has, and these pictures.
fn graph(texts: usize, pictures: &[String]) -> Value {
    let mut graph = quick(0);
    let nodes: &mut Map<String, Value> = graph.as_object_mut().unwrap();
    for number in 0..texts {
        let inputs = json!({ "source": format!("a quiet harbour at dawn, {number}") });
        let node = json!({ "class_type": "PreviewAny", "inputs": inputs });
        nodes.insert(format!("t{number}"), node);
    }
    for (number, picture) in pictures.iter().enumerate() {
        let inputs = json!({ "image": picture });
        nodes.insert(format!("l{number}"), json!({ "class_type": "LoadImage", "inputs": inputs }));
        let inputs = json!({ "images": [format!("l{number}"), 0] });
        nodes.insert(
            format!("p{number}"),
            json!({ "class_type": "PreviewImage", "inputs": inputs }),
        );
    }
    graph
}

/// The locks of one submission. Its client has a link already.
async fn submission(world: &World, client: &str, graph: &Value) -> (Answer, Vec<Taken>) {
    trace::begin();
    let answer = world.submit(client, graph).await;
    let mut taken = of(trace::end(), REQUESTS);
    answer.prompt_id();
    // Events that came before the answer are passed on when it was written: they are events, but
    // for one look whether there are any.
    let is_event = |it: &Taken| it.at.file() == "src/session/relay.rs";
    let first = taken.iter().position(is_event);
    let mut places = 0..;
    taken.retain(|it| places.next() == first || !is_event(it));
    (answer, taken)
}

#[tokio::test]
async fn a_submission_takes_twelve_locks_however_large_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for backends in [1, 10] {
        let folder = folder.path().join(backends.to_string());
        let world = fleet(backends, written(&folder)).await;
        let mut socket = world.socket("one").await;
        let mut pictures = Vec::new();
        for number in 0..20 {
            pictures.push(format!("harbour-{number}.png"));
            upload(&world, "one", &pictures[number]).await;
        }
        let prompt = world.submit("one", &quick(0)).await.prompt_id();
        socket.until_end(&prompt).await;
        for (texts, count) in [(0, 0), (0, 1), (300, 0), (300, 20)] {
            let graph = graph(texts, &pictures[..count]);
            let (answer, taken) = submission(&world, "one", &graph).await;
            socket.until_end(&answer.prompt_id()).await;
            let way =
                format!("a submission of {texts} texts and {count} pictures, {backends} backends");
            at_most(12, &way, &taken);
        }
    }
}

#[tokio::test]
async fn all_hashes_of_a_submission_are_looked_up_at_once() {
    let world = fleet(2, |_| {}).await;
    let mut socket = world.socket("one").await;
    let first = world.submit("one", &quick(0)).await.prompt_id();
    socket.until_end(&first).await;
    let mut graph = quick(0);
    let nodes: &mut Map<String, Value> = graph.as_object_mut().unwrap();
    for number in 0..100 {
        let inputs = json!({ "source": format!("blake3:{number:064x}") });
        let node = json!({ "class_type": "PreviewAny", "inputs": inputs });
        nodes.insert(format!("h{number}"), node);
    }
    let (_, taken) = submission(&world, "one", &graph).await;
    let of_assets = taken.iter().filter(|it| it.name == "ASSETS").count();
    assert!(0 < of_assets && of_assets <= SHARDS, "{}", listed(&taken));
    at_most(12 + SHARDS, "a submission with 100 hashes", &taken);
}

#[tokio::test]
async fn a_submission_takes_one_lock_more_for_each_file_that_is_copied() {
    let world = fleet(2, |_| {}).await;
    let pictures: Vec<String> = (0..8).map(|number| format!("harbour-{number}.png")).collect();
    let mut there = String::new();
    for picture in &pictures {
        there = upload(&world, "ada", picture).await.backend().to_owned();
    }
    // Who works elsewhere, and uses what she uploaded.
    let mut elsewhere = None;
    for number in 0..8 {
        let name = format!("bob-{number}");
        if world.submit(&name, &slow(1000, 100.0)).await.backend() != there {
            elsewhere = Some(name);
            break;
        }
    }
    let bob = elsewhere.expect("not all are where she is");
    let (answer, taken) = submission(&world, &bob, &graph(100, &pictures)).await;
    assert_ne!(answer.backend(), there);
    let (of_files, all): (Vec<Taken>, Vec<Taken>) = (
        taken.iter().copied().filter(|it| it.name == "FILES").collect(),
        taken.iter().copied().filter(|it| it.name != "IDLE").collect(),
    );
    // All strings are looked up at once, then all files that lie elsewhere. A copy is noted.
    let most = 2 * SHARDS + pictures.len();
    at_most(most, "files of a submission that brings 8 pictures", &of_files);
    at_most(12 + pictures.len(), "a submission that brings 8 pictures", &all);
}

#[tokio::test]
async fn an_event_takes_no_lock_of_everybodys_and_one_shard_for_each_file() {
    let folder = tempfile::tempdir().unwrap();
    let world = fleet(2, written(folder.path())).await;
    let mut socket = world.socket("one").await;
    // The link is open, and its backend has said what it is.
    let first = world.submit("one", &quick(0)).await.prompt_id();
    socket.until_end(&first).await;
    let prompt = world.submit("one", &slow(3, 0.1)).await.prompt_id();
    // What is between the start and the end is only passed on; the outputs among it name pictures
    // that nobody knew.
    while socket.until("execution_start").await["data"]["prompt_id"] != prompt {}
    trace::begin();
    let mut files = 0;
    while files == 0 {
        let executed = socket.until("executed").await;
        files = executed["data"]["output"]["images"].as_array().map_or(0, Vec::len);
    }
    let taken = of(trace::end(), EVENTS);
    let shared: Vec<Taken> = taken.iter().copied().filter(|it| it.is_shared).collect();
    assert!(shared.is_empty(), "locks of everybody's:\n{}", listed(&shared));
    let of_files: Vec<Taken> = taken.into_iter().filter(|it| it.name == "FILES").collect();
    at_most(files, "files of an event", &of_files);
}

/// The locks that belong to the ledgers, of one read.
async fn of_ledgers(world: &World, path: &str) -> (String, Vec<Taken>) {
    let mut kept = Kept::to(world).await;
    trace::begin();
    let answer = kept.get(path).await;
    let mut taken = of(trace::end(), REQUESTS);
    taken.retain(|it| ["FILES", "ASSETS", "LEDGER"].contains(&it.name));
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    (answer, taken)
}

#[tokio::test]
async fn a_list_of_files_takes_each_shard_once_however_long_it_is() {
    const MANY: usize = 200;
    let world = fleet(2, |_| {}).await;
    for number in 0..MANY {
        let client = format!("c{}", number % 2);
        upload(&world, &client, &format!("harbour-{number}.png")).await;
    }
    for path in ["/object_info?clientId=c1", "/internal/files/input?clientId=c1"] {
        let (answer, taken) = of_ledgers(&world, path).await;
        let shown = answer.matches("\"harbour-").count();
        assert!(MANY / 2 <= shown, "{path}: only {shown} are listed");
        at_most(SHARDS, path, &taken);
    }
}

#[tokio::test]
async fn the_start_and_the_end_of_a_prompt_take_no_lock_of_everybodys() {
    let folder = tempfile::tempdir().unwrap();
    let world = fleet(2, written(folder.path())).await;
    let mut socket = world.socket("one").await;
    let first = world.submit("one", &quick(0)).await.prompt_id();
    socket.until_end(&first).await;
    trace::begin();
    let prompt = world.submit("one", &slow(3, 0.1)).await.prompt_id();
    socket.until_end(&prompt).await;
    let taken = of(trace::end(), EVENTS);
    assert!(taken.iter().any(|it| it.name == "LEDGER"), "its end is in the ledger");
    let shared: Vec<Taken> = taken.into_iter().filter(|it| it.is_shared).collect();
    assert!(shared.is_empty(), "locks of everybody's:\n{}", listed(&shared));
}

#[tokio::test]
async fn a_list_of_prompts_takes_each_shard_a_few_times_however_long_it_is() {
    const MANY: usize = 60;
    let world = fleet(2, |_| {}).await;
    let mut socket = world.socket("one").await;
    for _ in 0..MANY {
        let prompt = world.submit("one", &quick(0)).await.prompt_id();
        socket.until_end(&prompt).await;
    }
    for _ in 0..MANY {
        world.submit("two", &slow(1000, 100.0)).await.prompt_id();
    }
    let mut kept = Kept::to(&world).await;
    for (path, of_each) in [
        ("/history?clientId=one", "status_str"),
        ("/api/jobs?clientId=one&status=completed&limit=200", "\"completed\""),
        ("/queue?clientId=two", "create_time"),
        ("/api/jobs?clientId=two&limit=200", "create_time"),
        ("/queue", "[]]"),
    ] {
        // The first brings the entries.
        kept.get(path).await;
        trace::begin();
        let answer = kept.get(path).await;
        let taken = of(trace::end(), REQUESTS);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        let count = answer.matches(of_each).count();
        assert!(MANY <= count, "{path}: only {count} in {answer}");
        at_most(6 * SHARDS, &format!("{path}, {MANY} entries"), &taken);
    }
}

#[tokio::test]
async fn reports_of_backends_look_at_each_client_once_however_many_backends() {
    const MANY: usize = 10;
    let world = fleet(MANY, |_| {}).await;
    for number in 0..MANY {
        let client = format!("c{number}");
        world.submit(&client, &slow(1000, 100.0)).await.prompt_id();
    }
    for path in ["/api/v1/backends", "/metrics"] {
        trace::begin();
        let answer = world.admin_get(path).await;
        let mut taken = of(trace::end(), &["src/server/"]);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        taken.retain(|it| it.name == "CLIENT");
        at_most(2 * MANY, path, &taken);
    }
}

/// What is asked of one backend takes a look at those who work there, and not at everybody.
#[tokio::test]
async fn a_round_of_the_reconcilers_looks_at_each_client_a_few_times_however_many_backends() {
    const MANY: usize = 8;
    let world = fleet(MANY + 1, |_| {}).await;
    let mut sockets = Vec::new();
    for number in 0..MANY {
        let client = format!("c{number}");
        let mut socket = world.socket(&client).await;
        world.submit(&client, &slow(1000, 100.0)).await.prompt_id();
        socket.until("progress").await;
        sockets.push(socket);
    }
    let mut last = world.socket("last").await;
    trace::begin();
    let prompt = world.submit("last", &slow(20, 2.0)).await.prompt_id();
    last.until_end(&prompt).await;
    let taken = trace::end();
    let is_desks = |it: &Taken| of(vec![*it], &["src/session/reconcile.rs"]).len() == 1;
    let put = taken.iter().filter(|it| it.name == "DESK" && !is_desks(it)).count();
    let rounds = put / (MANY + 1);
    assert!(2 <= rounds, "only {rounds} rounds");
    let looks: Vec<Taken> =
        taken.iter().filter(|it| it.name == "CLIENT" && is_desks(it)).copied().collect();
    at_most(2 * (MANY + 1) * (rounds + 1), "some rounds", &looks);
}
