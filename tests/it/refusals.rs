//! What RFC 9110 and RFC 9112 want refused is refused, whichever way would have answered it, and
//! no backend gets any of it: what one server takes and the next reads otherwise is how requests
//! are smuggled. Each case is a request by name, with the section that wants it refused.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooring::config::{Config, OnOff};
use mooring::net::Stream;
use mooring::run::{self, Parts};
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::differential::pass;
use crate::support::{self, network, soon, until};

/// Name, section, the request, and the status that is expected. `^` is the path, which has the
/// name in it.
type Case = (&'static str, &'static str, String, u16);

/// A head with these lines beside its `Host`.
fn head(name: &'static str, section: &'static str, lines: &str, status: u16) -> Case {
    (name, section, format!("GET ^ HTTP/1.1\r\nHost: gw\r\n{lines}\r\n"), status)
}

/// A first line.
fn line(name: &'static str, section: &'static str, line: &str, status: u16) -> Case {
    (name, section, format!("{line}\r\nHost: gw\r\n\r\n"), status)
}

/// The line or lines that say which host is meant.
fn host(name: &'static str, lines: &str) -> Case {
    (name, "9112 3.2", format!("GET ^ HTTP/1.1\r\n{lines}\r\n"), 400)
}

/// A body, by what says where it ends.
fn body(name: &'static str, section: &'static str, lines: &str, status: u16) -> Case {
    let request = format!("POST ^ HTTP/1.1\r\nHost: gw\r\n{lines}\r\nhello");
    (name, section, request, status)
}

fn hosts() -> Vec<Case> {
    vec![
        host("host-missing", ""),
        host("host-twice", "Host: gw\r\nHost: gw\r\n"),
        host("host-twice-otherwise", "Host: gw\r\nX: y\r\nhost: evil\r\n"),
        host("host-with-user", "Host: user@gw\r\n"),
        host("host-with-password", "Host: user:pw@gw\r\n"),
        host("host-with-path", "Host: gw/x\r\n"),
        host("host-with-query", "Host: gw?x\r\n"),
        host("host-with-fragment", "Host: gw#x\r\n"),
        host("host-list", "Host: gw, evil\r\n"),
        host("host-list-without-blanks", "Host: gw,evil\r\n"),
        host("host-two-words", "Host: gw evil\r\n"),
        host("host-empty-label", "Host: gw..evil\r\n"),
        host("host-empty-first-label", "Host: .gw\r\n"),
        host("host-empty", "Host:\r\n"),
        host("host-port-only", "Host: :80\r\n"),
        host("host-bad-port", "Host: gw:80a\r\n"),
        host("host-port-too-large", "Host: gw:65536\r\n"),
        host("host-two-ports", "Host: gw:80:81\r\n"),
        host("host-open-bracket", "Host: [::1\r\n"),
        host("host-bad-address", "Host: [::g]\r\n"),
        host("host-quoted", "Host: \"gw\"\r\n"),
        host("host-not-ascii", "Host: g\u{fc}\r\n"),
        (
            "host-twice-in-1.0",
            "9112 3.2",
            "GET ^ HTTP/1.0\r\nHost: gw\r\nHost: gw\r\n\r\n".to_owned(),
            400,
        ),
    ]
}

fn first_lines() -> Vec<Case> {
    let long_method = format!("{} ^ HTTP/1.1", "M".repeat(100 << 10));
    let longer_method = format!("{} ^ HTTP/1.1", "M".repeat(33));
    let long_target = format!("GET ^?{} HTTP/1.1", "x".repeat(9 << 10));
    vec![
        line("asterisk", "9112 3.2.4", "GET * HTTP/1.1", 400),
        line("no-form", "9112 3.2", "GET r/no-form/x HTTP/1.1", 400),
        line("authority-form", "9112 3.2.3", "GET gw:80 HTTP/1.1", 400),
        line("fragment", "9112 3.2", "GET ^#part HTTP/1.1", 400),
        line("foreign-host", "9112 3.2.2", "GET http://evil^ HTTP/1.1", 400),
        line("foreign-port", "9112 3.2.2", "GET http://gw:81^ HTTP/1.1", 400),
        line("absolute-without-host", "9110 4.2.1", "GET http://^ HTTP/1.1", 400),
        line("absolute-with-user", "9110 4.2.4", "GET http://user@gw^ HTTP/1.1", 400),
        line("absolute-bad-port", "9112 3.2.2", "GET http://gw:x^ HTTP/1.1", 400),
        line("absolute-other-scheme", "9112 3.2.2", "GET ftp://gw^ HTTP/1.1", 400),
        line("connect", "9110 9.3.6", "CONNECT gw:80 HTTP/1.1", 405),
        line("connect-to-a-path", "9110 9.3.6", "CONNECT ^ HTTP/1.1", 405),
        line("trace", "9110 9.3.8", "TRACE ^ HTTP/1.1", 405),
        line("method-in-small-letters", "9110 9.1", "get ^ HTTP/1.1", 405),
        line("method-with-a-bad-byte", "9110 5.6.2", "G(T ^ HTTP/1.1", 400),
        line("method-not-ascii", "9110 5.6.2", "G\u{cb}T ^ HTTP/1.1", 400),
        line("method-of-100-kb", "9112 3", &long_method, 501),
        line("method-too-long", "9112 3", &longer_method, 501),
        line("target-too-long", "9112 3", &long_target, 414),
        line("target-with-a-blank", "9112 3.2", "GET ^ y HTTP/1.1", 400),
        line("target-with-a-control", "9112 3.2", "GET ^\u{1} HTTP/1.1", 400),
        line("target-with-a-quote", "9112 3.2", "GET ^<\" HTTP/1.1", 400),
        line("blank-first", "9112 3", " GET ^ HTTP/1.1", 400),
        line("two-blanks", "9112 3", "GET  ^ HTTP/1.1", 400),
        line("a-tab", "9112 3", "GET\t^ HTTP/1.1", 400),
        line("return-in-the-line", "9112 2.2", "GET ^\r HTTP/1.1", 400),
        line("version-0.9", "9112 2.3", "GET ^", 400),
        line("version-1.2", "9110 15.6.6", "GET ^ HTTP/1.2", 505),
        line("version-2.0", "9110 15.6.6", "GET ^ HTTP/2.0", 505),
        line("version-in-small-letters", "9112 2.3", "GET ^ http/1.1", 400),
        line("version-without-a-dot", "9112 2.3", "GET ^ HTTP/11", 400),
        line("version-with-more", "9112 2.3", "GET ^ HTTP/1.1x", 400),
        line("junk", "9112 2.2", "\u{16}\u{3}\u{1}", 400),
    ]
}

fn lines() -> Vec<Case> {
    let long = format!("X-Long: {}\r\n", "x".repeat(8300));
    let large = format!("X: {}\r\n", "x".repeat(4000)).repeat(5);
    let many = "X: y\r\n".repeat(128);
    let socket = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    vec![
        head("folded", "9112 5.2", "X-A: b\r\n c\r\n", 400),
        head("folded-by-a-tab", "9112 5.2", "X-A: b\r\n\tc\r\n", 400),
        head("blank-before-the-colon", "9112 5.1", "X-A : b\r\n", 400),
        head("no-colon", "9112 5", "X-A\r\n", 400),
        head("no-name", "9112 5", ": b\r\n", 400),
        head("name-with-a-blank", "9110 5.1", "X A: b\r\n", 400),
        head("name-with-a-bad-byte", "9110 5.1", "X(A: b\r\n", 400),
        head("name-not-ascii", "9110 5.1", "X\u{e9}: b\r\n", 400),
        head("value-with-a-null", "9110 5.5", "X-A: b\0c\r\n", 400),
        head("value-with-a-return", "9110 5.5", "X-A: b\rc\r\n", 400),
        head("value-with-a-control", "9110 5.5", "X-A: b\u{7}c\r\n", 400),
        head("header-too-long", "6585 5", &long, 431),
        head("headers-too-large", "6585 5", &large, 431),
        head("too-many-headers", "6585 5", &many, 431),
        head("expectation", "9110 10.1.1", "Expect: 200-ok\r\n", 417),
        head("upgrade-with-a-body", "9110 7.8", &format!("{socket}Content-Length: 5\r\n"), 400),
        head(
            "upgrade-with-chunks",
            "9110 7.8",
            &format!("{socket}Transfer-Encoding: chunked\r\n"),
            400,
        ),
    ]
}

fn framings() -> Vec<Case> {
    vec![
        body("length-with-a-plus", "9112 6.3", "Content-Length: +5\r\n", 400),
        body("length-with-a-minus", "9112 6.3", "Content-Length: -5\r\n", 400),
        body("length-in-hex", "9112 6.3", "Content-Length: 0x5\r\n", 400),
        body("length-with-a-dot", "9112 6.3", "Content-Length: 5.0\r\n", 400),
        body("length-with-a-blank", "9112 6.3", "Content-Length: 5 5\r\n", 400),
        body("length-empty", "9112 6.3", "Content-Length:\r\n", 400),
        body("length-too-large", "9112 6.3", "Content-Length: 18446744073709551621\r\n", 400),
        body("length-beyond-all", "9112 6.3", "Content-Length: 18446744073709551615\r\n", 400),
        body("length-list", "9112 6.3", "Content-Length: 5, 5\r\n", 400),
        body("lengths-same", "9112 6.3", "Content-Length: 5\r\nContent-Length: 5\r\n", 400),
        body("lengths-differ", "9112 6.3", "Content-Length: 5\r\nContent-Length: 6\r\n", 400),
        body(
            "length-and-chunks",
            "9112 6.3",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        body("chunked-not-last", "9112 6.3", "Transfer-Encoding: chunked, gzip\r\n", 400),
        body("chunked-twice", "9112 7.1", "Transfer-Encoding: chunked, chunked\r\n", 400),
        body("not-chunked", "9112 6.3", "Transfer-Encoding: gzip\r\n", 400),
        body("identity", "9112 6.3", "Transfer-Encoding: identity\r\n", 400),
        body("coding-empty", "9112 6.1", "Transfer-Encoding:\r\n", 400),
        body("coding-with-a-parameter", "9112 7", "Transfer-Encoding: chunked;a=b\r\n", 400),
        body("coding-quoted", "9112 7", "Transfer-Encoding: \"chunked\"\r\n", 400),
        body("coding-with-a-tab", "9112 7", "Transfer-Encoding: chun\tked\r\n", 400),
        body("coding-unknown", "9112 6.1", "Transfer-Encoding: gzip, chunked\r\n", 501),
        body(
            "codings-on-two-lines",
            "9112 6.1",
            "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
            501,
        ),
        (
            "chunks-in-1.0",
            "9112 6.1",
            "POST ^ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                .to_owned(),
            400,
        ),
    ]
}

/// Chunks that are none, or no longer any after some that are.
fn chunks() -> Vec<Case> {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(17 << 10));
    [
        ("size-missing", "\r\nhello\r\n0\r\n\r\n"),
        ("size-no-number", "x\r\nhello\r\n0\r\n\r\n"),
        ("size-in-0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("size-negative", "-5\r\nhello\r\n0\r\n\r\n"),
        ("size-with-a-plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("size-with-a-blank-before", " 5\r\nhello\r\n0\r\n\r\n"),
        ("size-with-a-blank-after", "5 \r\nhello\r\n0\r\n\r\n"),
        ("size-with-junk", "5 5\r\nhello\r\n0\r\n\r\n"),
        ("size-too-large", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("size-ended-by-a-feed", "5\nhello\r\n0\r\n\r\n"),
        ("size-ended-by-a-return", "5\rhello\r\n0\r\n\r\n"),
        ("extension-too-long", &long),
        ("extension-with-a-feed", "5;a\nhello\r\n0\r\n\r\n"),
        ("extension-with-a-null", "5;a\0b\r\nhello\r\n0\r\n\r\n"),
        ("data-too-long", "5\r\nhello!\r\n0\r\n\r\n"),
        ("data-not-ended", "5\r\nhello0\r\n\r\n"),
        ("data-ended-by-a-feed", "5\r\nhello\n0\r\n\r\n"),
        ("end-by-a-feed", "5\r\nhello\r\n0\r\n\n"),
        ("last-size-by-a-feed", "5\r\nhello\r\n0\n\r\n"),
        ("trailer-without-a-colon", "5\r\nhello\r\n0\r\nX\r\n\r\n"),
        ("trailer-folded", "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n"),
        ("trailer-with-a-blank", "5\r\nhello\r\n0\r\nX : y\r\n\r\n"),
        ("trailer-with-a-null", "5\r\nhello\r\n0\r\nX: \0\r\n\r\n"),
        ("trailer-by-a-feed", "5\r\nhello\r\n0\r\nX: y\n\r\n"),
    ]
    .into_iter()
    .map(|(name, body)| {
        let head = "POST ^ HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n";
        (name, "9112 7.1", format!("{head}{body}"), 400)
    })
    .collect()
}

/// A backend that notes every byte of what comes for a case, and answers it when it is whole.
struct Recorder {
    address: SocketAddr,
    got: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    async fn before(sim: &Sim, tasks: &Tasks) -> Self {
        let listener = network().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let (address, behind) = (listener.local_addr(), sim.addr());
        let got = Arc::new(Mutex::default());
        let (inner, all) = (tasks.clone(), Arc::clone(&got));
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                inner.spawn(record(stream, Arc::clone(&all), behind));
            }
        });
        Self { address, got }
    }
}

async fn record(mut stream: Stream, got: Arc<Mutex<Vec<String>>>, behind: SocketAddr) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        read.push(byte);
    }
    let head = String::from_utf8_lossy(&read).into_owned();
    if !head.contains("r/") {
        return pass(stream, read, behind).await;
    }
    let is_whole = |read: &[u8]| {
        let lower = head.to_ascii_lowercase();
        !lower.contains("transfer-encoding") || read.ends_with(b"0\r\n\r\n")
    };
    while !is_whole(&read) && matches!(stream.read_buf(&mut read).await, Ok(1..)) {}
    let word = if is_whole(&read) { "whole" } else { "broken off" };
    let text = format!("{word}: {}", String::from_utf8_lossy(&read));
    got.lock().unwrap().push(text);
    // It says that it closes: else what may not be sent twice could meet a connection that ends.
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let _ = stream.write_all(answer).await;
}

struct Way {
    front: SocketAddr,
    recorder: Recorder,
}

impl Way {
    async fn with(passthrough: OnOff, sim: &Sim, tasks: &Tasks) -> Self {
        let recorder = Recorder::before(sim, tasks).await;
        let url = format!("http://{}", recorder.address);
        let mut config = Config::for_backends(&[("a", &url)]).unwrap();
        config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.server.passthrough = passthrough;
        config.server.hosts = support::hosts(&["gw", "gpu_1.local"]);
        config.server.body_timeout = Duration::from_secs(5);
        config.admin.listen = None;
        let running = run::start(config, network(), tasks, Parts::default()).await.unwrap();
        let gateway = Arc::clone(&running.front);
        until("the backend is up", || gateway.shared.fleet.iter().all(|it| it.is_up())).await;
        Self { front: running.front_address, recorder }
    }

    /// All that comes until the connection is closed.
    async fn answer(&self, name: &str, pieces: &[&[u8]]) -> String {
        let mut stream = network().connect("127.0.0.1", self.front.port()).await.unwrap();
        for piece in pieces {
            if stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        let closed = soon(&format!("the end of {name}"), stream.read_to_end(&mut answer)).await;
        closed.unwrap_or_else(|error| panic!("{name}: {error}"));
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Another request stands behind each one, and must never be taken for one.
    async fn refuses(&self, (name, section, request, status): &Case, is_in_pieces: bool) {
        let request = request.replace('^', &format!("/r/{name}/x"));
        let behind = "GET /r/smuggled/x HTTP/1.1\r\nHost: gw\r\n\r\n";
        let all = format!("{request}{behind}").into_bytes();
        let pieces: Vec<&[u8]> = if is_in_pieces { all.chunks(7).collect() } else { vec![&all] };
        let answer = self.answer(name, &pieces).await;
        let what = format!("{name} (RFC {section})");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        let answers = answer.matches("HTTP/1.1 4").count() + answer.matches("HTTP/1.1 5").count();
        assert_eq!(answers, 1, "{what} is answered once: {answer}");
        assert!(!answer.contains("HTTP/1.1 2"), "{what}: {answer}");
        let head = answer.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
        // It was closed in any case; who is told by the head alone hears it.
        let is_told = head.contains("\r\nconnection: close");
        assert!(is_told || request.contains("chunked\r\n\r\n"), "{what}: {answer}");
        assert!(head.contains("\r\nmooring-error: "), "{what} is told by a code: {answer}");
        assert_eq!(head.contains("\r\nallow: "), *status == 405, "{what}: {answer}");
    }
}

/// Both ways, with what their backends got.
async fn tried(cases: &[Case]) -> Vec<String> {
    let tasks = Tasks::default();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let mut got = Vec::new();
    for passthrough in [OnOff::On, OnOff::Off] {
        let way = Way::with(passthrough, &sim, &tasks).await;
        for case in cases {
            way.refuses(case, false).await;
            // The longest are the same in pieces, and only take longer.
            if case.2.len() < 4096 {
                way.refuses(case, true).await;
            }
        }
        // What comes last has come, so all before it has.
        let word = "GET /r/last/x HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n";
        assert!(way.answer("last", &[word.as_bytes()]).await.starts_with("HTTP/1.1 200"));
        until("it is noted", || {
            way.recorder.got.lock().unwrap().iter().any(|it| it.contains("/r/last"))
        })
        .await;
        let mut all = way.recorder.got.lock().unwrap().clone();
        // The gateway dials its own link again when the machine is busy.
        all.retain(|it| !it.contains("/r/last/") && !it.contains("?clientId=mooring-watch-"));
        got.append(&mut all);
    }
    tasks.stop();
    got
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_the_rfcs_want_refused_are_refused_and_reach_no_backend() {
    let cases: Vec<Case> =
        [hosts(), first_lines(), lines(), framings()].into_iter().flatten().collect();
    assert!(62 <= cases.len());
    let got = tried(&cases).await;
    assert!(got.is_empty(), "{got:?}");
}

/// Of a body that breaks off a backend may have got a part, and never all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_that_are_none_are_refused_and_their_request_is_broken_off() {
    let got = tried(&chunks()).await;
    assert!(got.iter().all(|it| it.starts_with("broken off: ")), "{got:?}");
    assert!(!got.iter().any(|it| it.contains("smuggled")), "{got:?}");
}

/// What clients do send, odd as it is, is answered, and its connection stays for the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_send_is_answered_and_so_is_what_comes_next() {
    let tasks = Tasks::default();
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    for passthrough in [OnOff::On, OnOff::Off] {
        let way = Way::with(passthrough, &sim, &tasks).await;
        for request in [
            "GET ^ HTTP/1.1\r\nHost: GW:8180\r\n\r\n",
            "GET http://gw^ HTTP/1.1\r\nHost: gw:80\r\n\r\n",
            "\r\n\r\nGET ^ HTTP/1.1\r\nHost: [::1]:8180\r\n\r\n",
            "GET ^ HTTP/1.1\nHost: gw.\n\n",
            "GET ^?\u{e9} HTTP/1.1\r\nHost: gpu_1.local\r\nX-Name: \u{e9}\r\n\r\n",
            "GET ^ HTTP/1.1\r\nHost: gw\r\nUpgrade: h2c\r\n\
             Connection: Upgrade, HTTP2-Settings\r\n\r\n",
            "GET ^ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "POST ^ HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: Chunked\r\n\r\n\
             5;a=\"b\"\r\nhello\r\n000\r\nX-Sum: 1\r\n\r\n",
            "POST ^ HTTP/1.1\r\nHost: gw\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\
             \r\n0\r\n\r\n",
        ] {
            let next = "GET /r/next/x HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n";
            let all = format!("{request}{next}").replace('^', "/r/fine/x").into_bytes();
            for pieces in [vec![&all[..]], all.chunks(5).collect()] {
                let answer = way.answer(request, &pieces).await;
                assert_eq!(answer.matches(" 200 OK").count(), 2, "{request:?}: {answer}");
            }
        }
    }
    tasks.stop();
}
