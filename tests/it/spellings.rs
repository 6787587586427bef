//! What is refused is refused in every spelling, by both ways of answering and for sockets, and no
//! backend hears of it.

use mooring::comfy::deny::DenyPattern;
use mooring::comfy::spelling::readings;
use mooring::config::OnOff;
use mooring::net::Stream;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{World, network, quick, soon};

const SPELLINGS: usize = 3_000;
const DENIED: [&str; 7] = [
    "/pack/admin",
    "/easy/*/run",
    "/**/delete_all",
    "/Ärger",
    "/tool/run*",
    "/*/wipe",
    "/**/api/secret",
];

/// Paths that nobody may read.
const READS: [&str; 16] = [
    "/pack/admin",
    "/pack/admin/users.json",
    "/easy/a b/run",
    "/easy/a/run",
    "/x/delete_all",
    "/ärger/x",
    "/x/wipe",
    "/tool/running",
    "/manager/reboot",
    "/customnode/install",
    "/snapshot/restore",
    "/comfyui_manager/x",
    "/easyuse/reboot",
    "/internal/logs",
    "/internal/logs/raw",
    "/internal/folder_paths",
];
/// Spellings that a segment more would make another path: what a route takes for a name, and files
/// of the page by the name of their folder.
const EXACT: [&str; 10] = [
    "/easy/./run",
    "/easy//run",
    "/easy/\u{ad}/run",
    "/tool/run\u{303}x",
    "/api/wipe",
    "/api/secret",
    "/../static/scripts/x.js",
    "/extensions/pack/..%2fweb%2fs.json",
    "/customnode/versions/..%5c..%5cmanager%5creboot",
    "//prompt",
];
/// Paths that are commands.
const COMMANDS: [&str; 4] = ["/free", "/assets/seed", "/assets/seed/cancel", "/assets/prune"];
const OPEN: [&str; 3] = ["/pack/public", "/easy/a/ran", "/internal/files/input"];

fn denied() -> Vec<DenyPattern> {
    DENIED.iter().map(|it| it.parse().unwrap()).collect()
}

fn world_config(passthrough: OnOff) -> impl FnOnce(&mut mooring::config::Config) {
    move |config| {
        config.server.deny = denied();
        config.server.passthrough = passthrough;
    }
}

/// Another spelling of a path: some reader takes it for that.
fn misspelt(path: &str, random: &mut SmallRng) -> String {
    let mut segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
    for segment in &mut segments {
        *segment = segment.chars().map(|it| letter(it, random)).collect();
        if random.random_bool(0.1) {
            *segment += [";", ";a=1", ";jsessionid=4/", "%00", " ", "."].choose(random).unwrap();
            // A parameter with a slash would be another path.
            *segment = segment.replace("=4/", "=4");
        }
    }
    for _ in 0..random.random_range(0..3) {
        let at = random.random_range(0..=segments.len());
        let odd =
            [&[""][..], &["."], &[";b"], &["x", ".."], &["", ".."], &["%2e%2e", ".."], &["..;a"]];
        let odd = odd.choose(random).unwrap();
        segments.splice(at..at, odd.iter().map(|it| (*it).to_owned()));
    }
    let api = if random.random_bool(0.5) { random.random_range(0..3) } else { 0 };
    segments.splice(0..0, std::iter::repeat_n("api".to_owned(), api));
    let mut spelled = String::from("/");
    for (at, segment) in segments.iter().enumerate() {
        if 0 < at {
            spelled += separator(random);
        }
        spelled += segment;
    }
    spelled += ["", "", "", "/", "//", "/.", "%3fx=1", "%23x"].choose(random).unwrap();
    for _ in 0..random.random_range(0..3) {
        spelled = encoded(&spelled, random);
    }
    sendable(&spelled)
}

/// What no head may have is encoded in any case.
fn sendable(spelled: &str) -> String {
    let is_odd = |it: char| !it.is_ascii_graphic() || matches!(it, '"' | '<' | '>' | '?' | '#');
    let encode = |it: char| if is_odd(it) { escapes(it) } else { it.to_string() };
    spelled.chars().map(encode).collect()
}

fn letter(letter: char, random: &mut SmallRng) -> String {
    let wide = char::from_u32(u32::from(letter) + 0xFEE0).filter(|_| letter.is_ascii_alphabetic());
    match random.random_range(0..40) {
        0..8 => letter.to_uppercase().to_string(),
        8 => wide.unwrap_or(letter).to_string(),
        9 => format!("{letter}\u{ad}"),
        10 if letter == 'ä' => "a\u{308}".to_owned(),
        11 if letter == 's' => "\u{17f}".to_owned(),
        _ => letter.to_string(),
    }
}

fn separator(random: &mut SmallRng) -> &'static str {
    match random.random_range(0..20) {
        0 => "//",
        1 => "\\",
        2 => "%2f",
        3 => "%5C",
        4 => "/./",
        5 => "\u{ff0f}",
        6 => "%c0%af",
        _ => "/",
    }
}

/// Some of its characters once more, and what is an escape already in any case.
fn encoded(text: &str, random: &mut SmallRng) -> String {
    let often = *[0.02, 0.2, 1.0].choose(random).unwrap();
    let mut encoded = String::new();
    for (at, it) in text.char_indices() {
        // The first slash begins the target.
        let is_due = 0 < at && (it == '%' || random.random_bool(often));
        encoded += &if is_due { escapes(it) } else { it.to_string() };
    }
    encoded
}

fn escapes(it: char) -> String {
    let mut bytes = [0; 4];
    it.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// A connection to a gateway that is opened anew when it has ended.
struct Line<'a> {
    world: &'a World,
    stream: Option<Stream>,
}

impl Line<'_> {
    /// The head of the answer.
    async fn ask(&mut self, head: &str) -> String {
        let (host, port) = (self.world.front.ip().to_string(), self.world.front.port());
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => network().connect(&host, port).await.unwrap(),
        };
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut read, mut chunk) = (Vec::new(), [0; 4096]);
        let end = loop {
            if let Some(at) = memchr::memmem::find(&read, b"\r\n\r\n") {
                break at + 4;
            }
            let more = soon("the head of an answer", stream.read(&mut chunk)).await.unwrap();
            assert_ne!(more, 0, "{head}");
            read.extend_from_slice(&chunk[..more]);
        };
        let answer = String::from_utf8_lossy(&read[..end]).to_lowercase();
        let length = answer.split("content-length: ").nth(1).and_then(|it| it.lines().next());
        if let Some(length) = length.and_then(|it| it.parse::<usize>().ok())
            && !answer.contains("connection: close")
            && answer.starts_with("http/1.1 403")
        {
            while read.len() < end + length {
                let more = soon("the body of an answer", stream.read(&mut chunk)).await.unwrap();
                read.extend_from_slice(&chunk[..more]);
            }
            self.stream = Some(stream);
        }
        answer
    }
}

fn head(method: &str, spelled: &str, lines: &str) -> String {
    format!("{method} {spelled}?mark HTTP/1.1\r\nHost: gw\r\nContent-Length: 0\r\n{lines}\r\n")
}

const SOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// What the backend was asked, but for what the gateway asks by itself.
fn reached(world: &World) -> Vec<String> {
    let all = world.sim("a").requests().into_iter();
    all.filter(|seen| seen.target.contains("mark")).map(|seen| seen.target).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_spellings_of_refused_paths_reach_no_backend_by_either_way() {
    let direct = World::with(1, world_config(OnOff::On)).await;
    let through_hyper = World::with(1, world_config(OnOff::Off)).await;
    let mut refused = 0;
    for (world, seed) in [(&direct, 15), (&through_hyper, 1_500)] {
        world.all_up().await;
        let mut random = SmallRng::seed_from_u64(seed);
        let mut line = Line { world, stream: None };
        for number in 0..SPELLINGS {
            let is_command = number % 5 == 0;
            let is_exact = !is_command && number % 11 == 0;
            let paths: &[&str] = match (is_command, is_exact) {
                (true, _) => &COMMANDS,
                (false, true) => &EXACT,
                (false, false) => &READS,
            };
            let path = paths.choose(&mut random).unwrap();
            let spelled = if is_exact {
                sendable(&encoded(path, &mut random))
            } else {
                misspelt(path, &mut random)
            };
            let head = match (is_command, number % 7) {
                (true, _) => head("POST", &spelled, ""),
                (false, 0) => head("GET", &spelled, SOCKET),
                // Without a length, as what is only passed on comes.
                (false, _) => head("GET", &spelled, "").replace("Content-Length: 0\r\n", ""),
            };
            let answer = line.ask(&head).await;
            let what = format!("{number}: {path} as {head}: {answer}");
            assert!(!answer.contains("mooring-backend: "), "{what}");
            let status = answer.split(' ').nth(1).unwrap();
            // `/free` is answered as if it were done.
            let is_done = status == "200" && *path == "/free";
            assert!(status == "403" || status == "400" || is_done, "{what}");
            refused += usize::from(status != "400");
        }
        assert_eq!(reached(world), Vec::<String>::new());
    }
    assert!(SPELLINGS * 19 / 10 < refused, "{refused} came so far that their path was looked at");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_paths_in_as_many_spellings_are_passed_on() {
    for passthrough in [OnOff::On, OnOff::Off] {
        let world = World::with(1, world_config(passthrough)).await;
        world.all_up().await;
        let mut random = SmallRng::seed_from_u64(3);
        let mut line = Line { world: &world, stream: None };
        let mut passed = 0;
        for _ in 0..100 {
            let spelled = misspelt(OPEN.choose(&mut random).unwrap(), &mut random);
            let answer = line.ask(&head("GET", &spelled, "Connection: close\r\n")).await;
            // Where one that climbs leads nobody knows.
            let is_refused = readings(&spelled).is_doubtful();
            assert_eq!(answer.starts_with("http/1.1 403"), is_refused, "{spelled}: {answer}");
            passed += usize::from(answer.contains("mooring-backend: a"));
        }
        assert!(50 < passed, "{passed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_with_a_listed_class_is_refused_and_not_sent_until_the_list_changes() {
    let world = World::with(1, |config| {
        config.server.deny_nodes = vec!["SaveImage".to_owned()];
    })
    .await;
    world.all_up().await;
    let answer = world.submit("ada", &quick(1)).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let told = answer.json();
    assert_eq!(told["error"]["type"], "missing_node_type");
    assert_eq!(told["error"]["extra_info"]["class_type"], "SaveImage");
    assert_eq!(answer.header("mooring-error"), "missing_node_type");
    assert!(world.sim("a").requests().iter().all(|seen| seen.method != "POST"));
    world.reload(|config| config.server.deny_nodes.clear()).await.unwrap();
    world.submit("ada", &quick(1)).await.prompt_id();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_holds_for_all_methods_and_below_a_base_path_and_changes_with_a_reload() {
    let world = World::with(1, |config| {
        config.server.base_path = mooring::config::BasePath::parse("/comfy/").unwrap();
    })
    .await;
    world.all_up().await;
    let mut line = Line { world: &world, stream: None };
    let before = line.ask(&head("GET", "/comfy/pack/admin", "Connection: close\r\n")).await;
    assert!(before.contains("mooring-backend: a"), "{before}");
    world.reload(|config| config.server.deny = denied()).await.unwrap();
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        for path in ["/comfy/pack/admin", "/%63omfy/api/pack/admin/x"] {
            let answer = line.ask(&head(method, path, "Connection: close\r\n")).await;
            assert!(answer.starts_with("http/1.1 403"), "{method} {path}: {answer}");
            assert!(answer.contains("mooring-error: path_denied"), "{method} {path}: {answer}");
        }
    }
    for path in ["/pack/admin", "/comfy/../pack/admin", "//comfy/pack/admin"] {
        let answer = line.ask(&head("GET", path, "Connection: close\r\n")).await;
        assert!(!answer.contains("mooring-backend: "), "{path}: {answer}");
    }
    let own = line.ask(&head("GET", "/comfy/-/whoami", "Connection: close\r\n")).await;
    assert!(own.starts_with("http/1.1 200"), "{own}");
}
