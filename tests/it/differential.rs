//! Both ways of answering say the same: what is passed on as bytes, and what goes through the HTTP
//! library (`server.passthrough`). Thousands of requests and answers, valid, odd, hostile, and cut
//! in any place, go through two gateways that differ in that key alone. What their backends get
//! and what their clients get is compared.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooring::config::{BasePath, Config, OnOff};
use mooring::net::Stream;
use mooring::run::{self, Parts};
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};

use crate::keys::keys;
use crate::support::{NAMES, fraction, hosts, network, soon, until};

/// What one side of a gateway got: the first line, the headers, the body. Nothing, if the
/// connection was closed without a word.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Message {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    is_whole: bool,
}

/// Where a body ends.
enum Framing {
    Nothing,
    Length(usize),
    Chunked,
    UntilClose,
}

/// Reads one message. `None` if the other side has closed before its first byte.
async fn message(stream: &mut Stream, is_answer_to_head: Option<bool>) -> Option<Message> {
    let mut read = Vec::new();
    loop {
        let head = loop {
            match read.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break read.drain(..at + 4).collect::<Vec<u8>>(),
                None if !more(stream, &mut read).await => {
                    return (!read.is_empty()).then(Message::default);
                }
                None => {}
            }
        };
        let mut message = head_of(&String::from_utf8_lossy(&head));
        if message.line.starts_with("HTTP/1.1 1") && !message.line.contains(" 101 ") {
            continue;
        }
        let framing = framing_of(&message, is_answer_to_head);
        message.is_whole = body_of(stream, &mut read, framing, &mut message.body).await;
        return Some(message.comparable(is_answer_to_head.is_some()));
    }
}

async fn more(stream: &mut Stream, read: &mut Vec<u8>) -> bool {
    matches!(stream.read_buf(read).await, Ok(1..))
}

fn head_of(head: &str) -> Message {
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    Message { line, headers: headers.collect(), ..Message::default() }
}

fn framing_of(message: &Message, is_answer_to_head: Option<bool>) -> Framing {
    let value = |name: &str| message.headers.iter().find(|it| it.0 == name).map(|it| &*it.1);
    let status = message.line.split(' ').nth(1).unwrap_or_default();
    let is_bodiless = matches!(status, "101" | "204" | "304");
    if is_answer_to_head == Some(true) || (is_answer_to_head.is_some() && is_bodiless) {
        return Framing::Nothing;
    }
    if value("transfer-encoding").is_some() {
        return Framing::Chunked;
    }
    match (value("content-length").and_then(|text| text.parse().ok()), is_answer_to_head) {
        (Some(length), _) => Framing::Length(length),
        (None, Some(_)) => Framing::UntilClose,
        (None, None) => Framing::Nothing,
    }
}

async fn body_of(
    stream: &mut Stream,
    read: &mut Vec<u8>,
    framing: Framing,
    body: &mut Vec<u8>,
) -> bool {
    match framing {
        Framing::Nothing => true,
        Framing::Length(length) => {
            while read.len() < length && more(stream, read).await {}
            let is_whole = length <= read.len();
            body.extend(read.drain(..length.min(read.len())));
            is_whole
        }
        Framing::UntilClose => {
            // A reset is no end: what came is not all there was.
            let is_whole = loop {
                match stream.read_buf(read).await {
                    Ok(0) => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            };
            body.append(read);
            is_whole
        }
        Framing::Chunked => loop {
            let Some(line) = line_of(stream, read).await else { return false };
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16);
            let Ok(size) = size else { return false };
            if size == 0 {
                while let Some(line) = line_of(stream, read).await {
                    if line.is_empty() {
                        return true;
                    }
                }
                return false;
            }
            while read.len() < size + 2 && more(stream, read).await {}
            body.extend(read.drain(..size.min(read.len())));
            read.drain(..2.min(read.len()));
        },
    }
}

async fn line_of(stream: &mut Stream, read: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = read.windows(2).position(|two| two == b"\r\n") {
            let line = read.drain(..at + 2).collect::<Vec<u8>>();
            return Some(String::from_utf8_lossy(&line[..at]).into_owned());
        }
        if !more(stream, read).await {
            return None;
        }
    }
}

impl Message {
    /// False for the bare answer to a head that is none: to one that is cut it may come or not.
    fn says_why(&self) -> bool {
        !self.line.ends_with(" 400") || self.headers.iter().any(|it| it.0 == "mooring-error")
    }

    /// Without what may differ: the order of names, how a body is framed, times, where a backend
    /// listens, why it was that one (others ask at the same time), the random names that new
    /// browsers are given, and what a page to log in has of chance.
    fn comparable(mut self, is_answer: bool) -> Self {
        let framing =
            ["content-length", "transfer-encoding", "connection", "keep-alive", "trailer"];
        self.headers.retain(|(name, _)| !framing.contains(&&**name));
        self.forget_chance();
        if is_answer {
            // A reason phrase says nothing (RFC 9112 section 4).
            self.line = self.line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        }
        for (name, value) in &mut self.headers {
            // A request without an id gets one, and a page of ours says it.
            if name == "x-request-id" && is_answer && value.len() == 32 {
                let body = String::from_utf8_lossy(&self.body).replace(&**value, "some");
                self.body = body.into_bytes();
                "some".clone_into(value);
            }
            let differs = matches!(&**name, "date" | "server-timing" | "mooring-placement");
            if differs || (name == "host" && value.starts_with("127.0.0.1:")) {
                "some".clone_into(value);
            }
            for of_ours in ["mooring=", "mooring_form="] {
                if name == "set-cookie" && value.contains(of_ours) && is_answer {
                    of_ours.clone_into(value);
                }
            }
        }
        self.headers.sort();
        self
    }
}

impl Message {
    /// Each page to log in has a nonce, and a token that fits a cookie of its own.
    fn forget_chance(&mut self) {
        let mut body = String::from_utf8_lossy(&self.body).into_owned();
        for (name, policy) in &mut self.headers {
            if name == "content-security-policy"
                && let Some(nonce) = between(policy, "'nonce-", "'").map(str::to_owned)
            {
                *policy = policy.replace(&nonce, "some");
                body = body.replace(&nonce, "some");
                if let Some(token) = between(&body, "name=\"token\" value=\"", "\"") {
                    body = body.replace(token, "some");
                }
                self.body = body.clone().into_bytes();
            }
        }
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// What a backend answers to a case, by its number.
const ANSWERS: [&str; 24] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\n\r\nuntil the end",
    "HTTP/1.1 204 No Content\r\nETag: \"x\"\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
    "HTTP/1.1 404 Not Found\r\nContent-Length: 14\r\n\r\n404: Not Found",
    "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nSet-Cookie: mooring=1\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nMooring-Backend: evil\r\nMooring-Placement: x\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 500 Oh No\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\nServer: x\r\n\r\nno",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "HTTP/1.1 302 Found\r\nLocation: /x\r\nSet-Cookie: c=1; Path=/\r\nContent-Length: 0\r\n\r\n",
];

/// Of [`ANSWERS`], one in chunks that is whole and one that is not: without chunks their ends are
/// that of the connection.
const CHUNKS: usize = 1;
const CUT_CHUNKS: usize = 22;

/// Those after which a connection is of no use: closed by their word, or not to be understood.
const ODD: [usize; 10] = [2, 7, 10, 15, 16, 17, 18, 19, 20, CUT_CHUNKS];
const ODD_TO_HEAD: [usize; 4] = [7, 10, 17, 20];

/// Lines that a request may have, `^` is the number of the case.
const LINES: [&str; 54] = [
    "Accept: */*",
    "Accept: text/html,application/xhtml+xml",
    "Accept-Encoding: gzip, br",
    "User-Agent: x/1.0 (y; z)",
    "X-Empty:",
    "X-Spaces:  \t a  b \t ",
    "x-lower: \u{e9}\u{20ac}",
    "X-Twice: 1\r\nx-twice: 2",
    "Cookie: a=1; mooring=0123; b=2",
    "Cookie: mooring=0123",
    "Cookie: a=1\r\nCookie: c=3; __Host-mooring=9",
    "Comfy-Client-Id: ada",
    "Comfy-User: default",
    "Connection: keep-alive",
    "Connection: close",
    "Connection: X-Hop, keep-alive\r\nX-Hop: secret",
    "Connection: upgrade\r\nUpgrade: h2c",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "Proxy-Authorization: Basic eDp5",
    "Authorization: Bearer x",
    "TE: trailers",
    "Trailer: X-T",
    "Upgrade-Insecure-Requests: 1",
    "Expect: 100-continue",
    "Expect: x",
    "Range: bytes=0-3",
    "If-None-Match: \"x\"",
    "If-Modified-Since: Sat, 28 Nov 2026 00:00:00 GMT",
    "Referer: http://gw/",
    "Origin: http://gw",
    "Origin: http://evil.example",
    "Origin: null",
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-Site: none",
    "Sec-Fetch-Site: cross-site",
    "Sec-Fetch-Mode: cors",
    "Sec-Fetch-Mode: navigate",
    "Sec-Fetch-Dest: image",
    "X-Forwarded-For: 1.2.3.4",
    "X-Forwarded-Proto: https\r\nX-Forwarded-Host: gw",
    "Forwarded: for=1.2.3.4",
    "X-Real-IP: 1.2.3.4",
    "X-Request-Id: r-^",
    "Content-Type: application/json",
    "Content-Encoding: gzip",
    "X-Bad Name: 1",
    "X-Bad : 1",
    ": nameless",
    "no colon",
    " folded",
    "X-Null: a\0b",
    "X-Bell: a\u{7}b",
    "X-Long: lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll",
];

const METHODS: [&str; 16] = [
    "GET", "GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "HEAD", "POST", "PUT", "DELETE",
    "OPTIONS", "PATCH", "get", "BREW",
];

const TARGETS: [&str; 16] = [
    "/d/^/x",
    "/d/^/x",
    "/d/^/x",
    "/d/^/x?a=1&b=%20c",
    "/api/d/^/x",
    "/d/^/x?clientId=ada",
    "/d/^/x?clientId=a%0Ab",
    "/d/^/%41%2f%2F",
    "/d/^/..%2fy",
    "/d/^/../y",
    "/d/^//x",
    "/d/^/x?filename=a.png",
    "/d/^/\u{e9}",
    "/d/^/x#part",
    "http://gw/d/^/x",
    "d/^/x",
];

const VERSIONS: [&str; 12] = [
    "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1",
    "HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "http/1.1",
];

const HOSTS: [&str; 10] = [
    "Host: gw\r\n",
    "Host: gw\r\n",
    "Host: gw\r\n",
    "Host: gw\r\n",
    "Host: gw\r\n",
    "host:gw\r\n",
    "",
    "Host: gw\r\nHost: gw\r\n",
    "Host: a b\r\n",
    "Host: user@gw\r\n",
];

/// Bodies with what says how long they are; the flag says that the client ends its side then.
const BODIES: [(&str, &str, bool); 14] = [
    ("", "", false),
    ("", "", false),
    ("", "", false),
    ("", "", false),
    ("", "", false),
    ("Content-Length: 0\r\n", "", false),
    ("Content-Length: 5\r\n", "hello", false),
    ("Content-Length: 5\r\n", "hel", true),
    ("Content-Length: 5\r\nContent-Length: 5\r\n", "hello", false),
    ("Content-Length: 5\r\nContent-Length: 6\r\n", "hello", true),
    ("Content-Length: +5\r\n", "hello", true),
    ("Transfer-Encoding: chunked\r\n", "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", false),
    ("Transfer-Encoding: chunked\r\n", "3\r\nhel\r\nx\r\n", true),
    ("Transfer-Encoding: gzip\r\n", "x", true),
];

/// One case: the pieces that are written, and what ends with them.
struct Case {
    pieces: Vec<Vec<u8>>,
    is_head: bool,
    ends: bool,
}

/// Spellings of the base path, right and wrong, for a gateway that has one.
const BASES: [&str; 8] = [BASE, BASE, BASE, BASE, "/%63omfy", "/comfy/", "/comfyx", "/comfy%2F"];

const BASE: &str = "/comfy";

/// What a head says of who sends it, where it is asked for a key.
const KEYS: [&str; 14] = [
    "Authorization: Bearer key-of-ada\r\n",
    "Authorization: Bearer key-of-ada\r\n",
    "authorization:bearer  key-of-ada \r\n",
    "X-Api-Key: key-of-ada\r\n",
    "x-api-key: key-of-bob\r\nX-Other: 1\r\n",
    "X-Api-Key: key-of-ada\r\nAuthorization: Bearer key-of-ada\r\n",
    "X-Api-Key: key-of-ada\r\nAuthorization: Basic eDp5\r\n",
    "X-Api-Key: key-of-ada\r\nAuthorization: Bearer key-of-bob\r\n",
    "X-Api-Key: key-of-vic\r\n",
    "X-Api-Key: key-of-ada\r\nX-Api-Key: key-of-ada\r\n",
    "Authorization: Bearer key-of-eve\r\n",
    "Authorization: key-of-ada\r\n",
    "Cookie: token=key-of-ada\r\n",
    "",
];

/// Whether the gateways of a comparison ask for keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asks {
    Nobody,
    ForKeys,
}

impl Case {
    fn of(number: usize, base: &str, asks: Asks) -> Self {
        let mut random = StdRng::seed_from_u64(number as u64);
        let mut pick = |list: &[&'static str]| *list.choose(&mut random).unwrap_or(&"");
        let (method, target, version) = (pick(&METHODS), pick(&TARGETS), pick(&VERSIONS));
        let below = if base.is_empty() { "" } else { pick(&BASES) };
        let target = target.replacen("/d/", &format!("{below}/d/"), 1);
        let target = match asks {
            Asks::ForKeys if number.is_multiple_of(3) && target.contains('?') => {
                format!("{target}&token=key-of-ada")
            }
            Asks::ForKeys | Asks::Nobody => target,
        };
        let mut text = format!("{method} {target} {version}\r\n{}", pick(&HOSTS));
        if asks == Asks::ForKeys {
            text += KEYS[number / 7 % KEYS.len()];
        }
        for _ in 0..random.random_range(0..7) {
            // A bad line makes all others pointless, so it is rare.
            let last = if random.random_bool(0.1) { LINES.len() } else { LINES.len() - 8 };
            let _ = write!(text, "{}\r\n", LINES[random.random_range(0..last)]);
        }
        let (framing, body, ends) = BODIES[random.random_range(0..BODIES.len())];
        let _ = write!(text, "{framing}\r\n{body}");
        let mut bytes = text.replace('^', &number.to_string()).into_bytes();
        let is_cut = random.random_bool(0.05);
        if is_cut {
            bytes.truncate(random.random_range(1..bytes.len()));
        }
        let mut pieces = Vec::new();
        while random.random_bool(0.4) && 1 < bytes.len() {
            let at = random.random_range(1..bytes.len());
            pieces.push(bytes.drain(..at).collect());
        }
        pieces.push(bytes);
        Self { pieces, is_head: method == "HEAD", ends: ends || is_cut }
    }
}

/// Notes what comes for cases, and answers it; passes on all else to a simulated backend.
struct Recorder {
    address: SocketAddr,
    got: Arc<Mutex<HashMap<usize, Vec<Message>>>>,
}

impl Recorder {
    async fn before(sim: &Sim, tasks: &Tasks) -> Self {
        let listener = network().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let (address, behind) = (listener.local_addr(), sim.addr());
        let got = Arc::new(Mutex::default());
        let (inner, all) = (tasks.clone(), Arc::clone(&got));
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.unwrap();
                        inner.spawn(answer(stream, Arc::clone(&all), behind));
                    }
                    () = inner.stopping() => return,
                }
            }
        });
        Self { address, got }
    }
}

async fn answer(
    mut stream: Stream,
    got: Arc<Mutex<HashMap<usize, Vec<Message>>>>,
    behind: SocketAddr,
) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let Some(number) = case_in(&text) else { return pass(stream, head, behind).await };
        let mut asked = head_of(&text);
        let framing = framing_of(&asked, None);
        let mut read = Vec::new();
        asked.is_whole = body_of(&mut stream, &mut read, framing, &mut asked.body).await;
        let (is_head, is_whole) = (asked.line.starts_with("HEAD "), asked.is_whole);
        got.lock().unwrap().entry(number).or_default().push(asked.comparable(false));
        let answer = ANSWERS[number % ANSWERS.len()];
        let end = answer.rfind("\r\n\r\n").unwrap() + 4;
        let answer = if is_head && !answer.contains("103 ") { &answer[..end] } else { answer };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
        // What is odd ends its connection, so that the next case does not meet it.
        let odd = if is_head { &ODD_TO_HEAD[..] } else { &ODD[..] };
        if odd.contains(&(number % ANSWERS.len())) || !is_whole {
            return;
        }
    }
}

fn case_in(head: &str) -> Option<usize> {
    let (_, rest) = head.lines().next()?.split_once("d/")?;
    rest.split('/').next()?.parse().ok()
}

pub(crate) async fn pass(mut stream: Stream, head: Vec<u8>, behind: SocketAddr) {
    let Ok(mut other) = network().connect("127.0.0.1", behind.port()).await else { return };
    let head = String::from_utf8_lossy(&head).into_owned();
    let is_socket = head.to_ascii_lowercase().contains("upgrade: websocket");
    let line = if is_socket { "\r\n" } else { "\r\nconnection: close\r\n" };
    let _ = other.write_all(head.replacen("\r\n", line, 1).as_bytes()).await;
    let _ = copy_bidirectional(&mut stream, &mut other).await;
}

/// A gateway with one way of answering, and what its backend gets.
struct Way {
    front: SocketAddr,
    recorder: Recorder,
    base: &'static str,
    passthrough: OnOff,
    asks: Asks,
}

impl Way {
    async fn with(
        passthrough: OnOff,
        (base, asks): (&'static str, Asks),
        sim: &Sim,
        tasks: &Tasks,
    ) -> Self {
        let recorder = Recorder::before(sim, tasks).await;
        let url = format!("http://{}", recorder.address);
        let mut config = Config::for_backends(&[("a", &url)]).unwrap();
        config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.server.passthrough = passthrough;
        config.server.base_path = BasePath::parse(base).unwrap();
        config.server.hosts = hosts(NAMES);
        config.server.header_timeout = Duration::from_secs(1);
        config.server.body_timeout = Duration::from_secs(1);
        config.admin.listen = None;
        if asks == Asks::ForKeys {
            config.auth = keys();
        }
        let running = run::start(config, network(), tasks, Parts::default()).await.unwrap();
        let gateway = Arc::clone(&running.front);
        until("the backend is up", || gateway.shared.fleet.iter().all(|it| it.is_up())).await;
        Self { front: running.front_address, recorder, base, passthrough, asks }
    }

    /// What the client and the backend get of a case.
    async fn tried(&self, number: usize) -> (Option<Message>, Vec<Message>) {
        let case = Case::of(number, self.base, self.asks);
        let mut stream = network().connect("127.0.0.1", self.front.port()).await.unwrap();
        for piece in &case.pieces {
            if stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        if case.ends {
            let _ = stream.shutdown().await;
        }
        let ended =
            tokio::time::timeout(END_WITHIN, message(&mut stream, Some(case.is_head))).await;
        let Ok(answered) = ended else { panic!("no end: {}", self.told_of(number, &case)) };
        drop(stream);
        let mut got = self.recorder.got.lock().unwrap().remove(&number).unwrap_or_default();
        // How much of what a client broke off had been sent by then depends on the moment.
        got.retain(|message| message.is_whole);
        // A read is sent again if the connection that it took had been used before and broke.
        got.dedup();
        let is_word = |answered: &Message| !case.ends || answered.says_why();
        (answered.filter(is_word), got)
    }

    /// A case that has no end, in words.
    fn told_of(&self, number: usize, case: &Case) -> String {
        let sent: Vec<_> = case.pieces.iter().map(|it| String::from_utf8_lossy(it)).collect();
        let got = self.recorder.got.lock().unwrap().remove(&number);
        let answer = ANSWERS[number % ANSWERS.len()];
        let ends = case.ends;
        format!(
            "case {number}, passthrough {:?}, sent {sent:?}, its end {ends}; the backend got \
            {got:?} and was to answer {answer:?}",
            self.passthrough
        )
    }
}

/// Longer than any wait of the gateway is here.
const END_WITHIN: Duration = Duration::from_secs(20);

/// How many cases are tried at one time.
const AT_ONCE: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_of_answering_say_and_pass_on_the_same() {
    compared("", Asks::Nobody, fraction("differential", 200_000, 20_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_of_answering_say_and_pass_on_the_same_below_a_path() {
    compared(BASE, Asks::Nobody, fraction("differential", 20_000, 2_000)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_of_answering_let_the_same_users_in() {
    compared("", Asks::ForKeys, fraction("differential", 50_000, 5_000)).await;
    compared(BASE, Asks::ForKeys, fraction("differential", 5_000, 500)).await;
}

async fn compared(base: &'static str, asks: Asks, cases: usize) {
    let tasks = Tasks::default();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let bytes = Arc::new(Way::with(OnOff::On, (base, asks), &sim, &tasks).await);
    let library = Arc::new(Way::with(OnOff::Off, (base, asks), &sim, &tasks).await);
    let differences = Arc::new(Mutex::new(Vec::new()));
    let workers = (0..AT_ONCE).map(|first| {
        let (bytes, library) = (Arc::clone(&bytes), Arc::clone(&library));
        let differences = Arc::clone(&differences);
        async move {
            for number in (first..cases).step_by(AT_ONCE) {
                let one = bytes.tried(number).await;
                let other = library.tried(number).await;
                for got in &one.1 {
                    let text = format!("{} {:?}", got.line, got.headers);
                    assert!(!text.contains("key-of-"), "{text}");
                }
                if one == other {
                    continue;
                }
                // A client that the machine holds up for two seconds counts as one that has read
                // its answer. What is different is so each time.
                let again = (bytes.tried(number).await, library.tried(number).await);
                if again.0 != again.1 {
                    differences.lock().unwrap().push((number, again.0, again.1));
                }
            }
        }
    });
    futures_util::future::join_all(workers).await;
    tasks.stop();
    let differences = differences.lock().unwrap();
    let mut told = String::new();
    for (number, one, other) in differences.iter().take(8) {
        let pieces = Case::of(*number, base, asks).pieces;
        let sent: Vec<_> = pieces.iter().map(|it| String::from_utf8_lossy(it)).collect();
        let answer = ANSWERS[number % ANSWERS.len()];
        let _ =
            write!(told, "case {number}: {sent:?}\n  answer {answer:?}\n  as bytes {one:?}\n  ");
        let _ = writeln!(told, "library  {other:?}");
    }
    assert!(differences.is_empty(), "{} of {cases} differ\n{told}", differences.len());
}

/// HTTP/1.0 has no chunks: such a body ends with its connection, and only a reset can say that it
/// is not whole (RFC 9112 section 8).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_does_not_look_whole_to_a_client_without_chunks() {
    let tasks = Tasks::default();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    for passthrough in [OnOff::On, OnOff::Off] {
        let way = Way::with(passthrough, ("", Asks::Nobody), &sim, &tasks).await;
        for (number, is_whole) in [(CHUNKS, true), (CUT_CHUNKS, false)] {
            let mut stream = network().connect("127.0.0.1", way.front.port()).await.unwrap();
            let request = format!("GET /d/{number}/x HTTP/1.0\r\nHost: gw\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = soon("an answer", message(&mut stream, Some(false))).await.unwrap();
            assert_eq!((&*answer.body, answer.is_whole), (&b"hello"[..], is_whole), "{number}");
        }
    }
    tasks.stop();
}
