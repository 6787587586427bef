//! Reads that are only passed on, byte by byte: what a client gets of each answer that a backend
//! can give, and that nothing of one request becomes part of another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mooring::config::Config;
use mooring::net::Stream;
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::sync::Notify;

use crate::support::{World, network, send, soon, until};

/// What a puppet does when it is asked for a path.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Writes these pieces, and reads the next request.
    Answer(Vec<String>),
    /// Writes this and closes.
    AnswerAndClose(String),
    /// Closes a connection that was used before, and answers on a new one.
    CloseIfUsed(String),
    /// Answers when it is told to.
    AnswerWhenTold(Arc<Notify>, String),
    /// Answers this to who has an `Authorization`, and 401 to others.
    AnswerIfAuthorized(String),
    /// Says nothing until the other side closes.
    Wait,
}

/// Stands before a simulated backend and answers some paths itself, as it is told.
pub(crate) struct Puppet {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    tasks: Tasks,
}

#[derive(Default)]
struct Seen {
    acts: HashMap<String, Act>,
    /// The requests that it answered, by connection.
    asked: Vec<(usize, String)>,
    /// How many of its connections were closed while they waited.
    left: usize,
    /// The connections that have ended.
    ended: Vec<usize>,
}

impl Puppet {
    pub(crate) async fn before(sim: &Sim, acts: &[(&str, Act)]) -> Self {
        let listener = network().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let acts = acts.iter().map(|(path, act)| ((*path).to_owned(), act.clone())).collect();
        let seen = Arc::new(Mutex::new(Seen { acts, ..Seen::default() }));
        let (address, behind) = (listener.local_addr(), sim.addr());
        let (tasks, all) = (Tasks::default(), Arc::clone(&seen));
        let inner = tasks.clone();
        tasks.spawn(async move {
            let mut number = 0;
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.unwrap();
                        number += 1;
                        inner.spawn(serve(stream, number, Arc::clone(&all), behind));
                    }
                    () = inner.stopping() => return,
                }
            }
        });
        Self { address, seen, tasks }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn asked(&self) -> Vec<(usize, String)> {
        self.seen.lock().unwrap().asked.clone()
    }

    /// True once the connection on which that path was asked for first has ended.
    pub(crate) fn has_ended(&self, path: &str) -> bool {
        let seen = self.seen.lock().unwrap();
        let asked = seen.asked.iter().find(|(_, asked)| asked == path);
        asked.is_some_and(|(number, _)| seen.ended.contains(number))
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn serve(stream: Stream, number: usize, seen: Arc<Mutex<Seen>>, behind: SocketAddr) {
    act(stream, number, Arc::clone(&seen), behind).await;
    seen.lock().unwrap().ended.push(number);
}

async fn act(mut stream: Stream, number: usize, seen: Arc<Mutex<Seen>>, behind: SocketAddr) {
    let mut is_used = false;
    while let Some(head) = read_head(&mut stream).await {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let act = seen.lock().unwrap().acts.get(&path).cloned();
        let Some(act) = act else { return pass(stream, head, behind).await };
        seen.lock().unwrap().asked.push((number, path));
        match act {
            Act::Answer(pieces) => {
                for piece in pieces {
                    if stream.write_all(piece.as_bytes()).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            }
            Act::AnswerAndClose(answer) => {
                stream.write_all(answer.as_bytes()).await.unwrap();
                return;
            }
            Act::CloseIfUsed(_) if is_used => return,
            Act::CloseIfUsed(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
            Act::AnswerWhenTold(told, answer) => {
                told.notified().await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            Act::AnswerIfAuthorized(answer) => {
                let is_authorized = head.to_ascii_lowercase().contains("\r\nauthorization:");
                let refusal = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
                let answer = if is_authorized { answer.as_str() } else { refusal };
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            Act::Wait => {
                assert!(matches!(stream.read(&mut [0; 16]).await, Ok(0) | Err(_)));
                seen.lock().unwrap().left += 1;
                return;
            }
        }
        is_used = true;
    }
}

async fn read_head(stream: &mut Stream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// To the simulated backend, one request to a connection.
async fn pass(mut stream: Stream, head: String, behind: SocketAddr) {
    let Ok(mut other) = network().connect("127.0.0.1", behind.port()).await else { return };
    let is_socket = head.to_ascii_lowercase().contains("upgrade: websocket");
    let line = if is_socket { "\r\n" } else { "\r\nconnection: close\r\n" };
    other.write_all(head.replacen("\r\n", line, 1).as_bytes()).await.unwrap();
    let _ = copy_bidirectional(&mut stream, &mut other).await;
}

/// A gateway over one backend with a puppet before it.
pub(crate) async fn world(
    acts: &[(&str, Act)],
    change: impl FnOnce(&mut Config),
) -> (World, Puppet) {
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let puppet = Puppet::before(&sim, acts).await;
    let port = puppet.address.port();
    let world = World::over(vec![sim], |config| {
        config.backends[0].port = port;
        config.backends[0].authority = format!("127.0.0.1:{port}");
        change(config);
    })
    .await;
    world.all_up().await;
    (world, puppet)
}

/// A connection of a client.
struct Client(Stream);

impl Client {
    async fn of(world: &World) -> Self {
        Self(network().connect("127.0.0.1", world.front.port()).await.unwrap())
    }

    async fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).await.unwrap();
    }

    async fn ask(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: gw\r\n\r\n")).await;
    }

    /// The head of the next answer, in lower case.
    async fn head(&mut self) -> String {
        soon("a head", read_head(&mut self.0)).await.expect("an answer").to_lowercase()
    }

    /// The next answer, which has a length.
    async fn answer(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        soon("a body", self.0.read_exact(&mut body)).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// All that comes until the connection is closed; whether that was in order.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = soon("the end", self.0.read_to_end(&mut rest)).await;
        String::from_utf8(rest).unwrap()
    }
}

pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_all_kinds_share_a_connection_and_are_answered_in_order() {
    let world = World::new(2).await;
    world.all_up().await;
    let mut client = Client::of(&world).await;
    let plain = "GET /system_stats?clientId=ada HTTP/1.1\r\nhost: gw\r\n\r\n";
    let other = "GET /queue?clientId=ada HTTP/1.1\r\nhost: gw\r\n\r\n";
    let write = "POST /interrupt?clientId=ada HTTP/1.1\r\nhost: gw\r\ncontent-length: 2\r\n\r\n{}";
    let head = "HEAD /system_stats?clientId=ada HTTP/1.1\r\nhost: gw\r\n\r\n";
    let all = [plain, other, plain, write, plain, other, write, head, plain].concat();
    for _ in 0..3 {
        // Cut where it hurts.
        for piece in all.as_bytes().chunks(97) {
            client.0.write_all(piece).await.unwrap();
            client.0.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
        for expected in ["system", "queue_", "system", "", "system", "queue_", "", "HEAD", "system"]
        {
            if expected == "HEAD" {
                assert!(client.head().await.starts_with("http/1.1 200"));
                continue;
            }
            let (head, body) = client.answer().await;
            assert!(head.starts_with("http/1.1 200"), "{head}");
            assert!(body.contains(expected), "{expected}: {body}");
            assert_eq!(body.is_empty(), expected.is_empty(), "{body}");
        }
    }
    client.send("GET /system_stats HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n\r\n").await;
    let (head, _) = client.answer().await;
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert_eq!(client.rest().await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_of_a_connection_goes_where_its_own_client_is() {
    let world = World::new(2).await;
    world.all_up().await;
    let mut client = Client::of(&world).await;
    let mut places: HashMap<&str, String> = HashMap::new();
    for name in ["ada", "bob", "ada", "ada", "bob", "ada"] {
        client.ask(&format!("/system_stats?clientId={name}")).await;
        let (head, _) = client.answer().await;
        let backend = head.split("mooring-backend: ").nth(1).unwrap()[..1].to_owned();
        assert_eq!(*places.entry(name).or_insert(backend.clone()), backend);
    }
    assert_ne!(places["ada"], places["bob"], "the least queue was the other's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_one_request_is_never_the_next_request() {
    let world = World::new(1).await;
    world.all_up().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: gw\r\n\r\n";
    let framed = [
        format!("content-length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!(
            "transfer-encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n",
            smuggled.len()
        ),
    ];
    for body in framed {
        for line in ["GET /system_stats", "GET /queue", "POST /free", "GET /history/x"] {
            let mut client = Client::of(&world).await;
            client.send(&format!("{line} HTTP/1.1\r\nhost: gw\r\n{body}")).await;
            // A kept connection may be closed before it, and that is all.
            let last = b"GET /queue HTTP/1.1\r\nhost: gw\r\nconnection: close\r\n\r\n";
            let _ = client.0.write_all(last).await;
            let answers = client.rest().await;
            assert!(answers.starts_with("HTTP/1.1 "), "{line}: {answers}");
            assert!(answers.matches("HTTP/1.1 ").count() <= 2, "{line}: {answers}");
        }
    }
    let mut client = Client::of(&world).await;
    let both = "GET /x HTTP/1.1\r\nhost: gw\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n";
    client.send(&format!("{both}\r\n0\r\n\r\n{smuggled}")).await;
    let _ = client.rest().await;
    let seen = world.sim("a").requests();
    let found: Vec<_> = seen.iter().filter(|it| it.target.contains("smuggled")).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_all_framings_arrive_and_only_whole_ones_leave_a_connection() {
    let chunked = [
        "HTTP/1.1 200 OK\r\nTransfer-Enc",
        "oding: chunked\r\n\r\n5\r\nhel",
        "lo\r\n0\r",
        "\n\r\n",
    ];
    let acts = [
        ("/chunked", Act::Answer(chunked.map(str::to_owned).to_vec())),
        ("/early", Act::Answer(vec!["HTTP/1.1 103 Early\r\n\r\n".into(), ok("after")])),
        ("/open", Act::AnswerAndClose("HTTP/1.1 200 OK\r\n\r\nto the end".into())),
        ("/cut", Act::AnswerAndClose("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".into())),
        ("/more", Act::Answer(vec![ok("mine") + &ok("forged")])),
        ("/plain", Act::Answer(vec![ok("plain")])),
        (
            "/chunk",
            Act::Answer(vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz".into()]),
        ),
        ("/junk", Act::Answer(vec!["SSH-2.0-x\r\n\r\n".into()])),
        (
            "/twice",
            Act::Answer(vec![
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\n".into(),
            ]),
        ),
    ];
    let (world, puppet) = world(&acts, |_| {}).await;
    let mut client = Client::of(&world).await;
    client.ask("/chunked").await;
    assert!(client.head().await.contains("transfer-encoding: chunked"));
    let mut body = [0; 15];
    soon("the chunks", client.0.read_exact(&mut body)).await.unwrap();
    assert_eq!(&body, b"5\r\nhello\r\n0\r\n\r\n");
    client.ask("/early").await;
    assert_eq!(client.answer().await.1, "after");
    client.ask("/more").await;
    assert_eq!(client.answer().await.1, "mine");
    client.ask("/plain").await;
    assert_eq!(client.answer().await.1, "plain", "not what somebody sent too much");
    for path in ["/junk", "/twice", "/chunk"] {
        client.ask(path).await;
        let (head, body) = client.answer().await;
        assert!(head.starts_with("http/1.1 502") && head.contains("backend_lost"), "{head}");
        assert!(body.contains("broke off"), "{body}");
    }
    client.ask("/open").await;
    assert!(client.head().await.contains("connection: close"));
    assert_eq!(client.rest().await, "to the end");
    let mut client = Client::of(&world).await;
    client.ask("/cut").await;
    assert!(client.head().await.contains("content-length: 9"));
    assert_eq!(client.rest().await, "half", "and then it is closed: that was not all");
    let lines: Vec<usize> = puppet.asked().iter().map(|(line, _)| *line).collect();
    let same = |first: usize, second: usize| lines[first] == lines[second];
    assert!(same(0, 1) && same(1, 2), "used again: {lines:?}");
    assert!(!same(2, 3), "not after it sent too much: {lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_on_a_connection_that_was_just_closed_is_sent_again() {
    let acts = [("/stale", Act::CloseIfUsed(ok("fine")))];
    let (world, puppet) = world(&acts, |_| {}).await;
    let mut client = Client::of(&world).await;
    for _ in 0..3 {
        client.ask("/stale").await;
        assert_eq!(client.answer().await.1, "fine");
    }
    assert!(3 < puppet.asked().len(), "it was closed in use: {:?}", puppet.asked());
}

/// A drain does not cut a connection that was accepted in its last moment, and ends one that has
/// been served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_request_that_is_on_its_way_when_the_drain_begins_is_answered() {
    let world = World::new(1).await;
    world.all_up().await;
    let (mut first, mut idle) = (Client::of(&world).await, Client::of(&world).await);
    idle.ask("/system_stats").await;
    idle.answer().await;
    first.send("GET /system_stats HTTP/1.1\r\nho").await;
    // It was accepted when the one that came after it is.
    idle.ask("/system_stats").await;
    idle.answer().await;
    world.gateway.shared.tasks.stop();
    assert_eq!(idle.rest().await, "", "closed at once");
    first.send("st: gw\r\n\r\n").await;
    let (head, _) = first.answer().await;
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    assert_eq!(first.rest().await, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let (world, puppet) = world(&[("/wait", Act::Wait)], |_| {}).await;
    let mut client = Client::of(&world).await;
    client.ask("/wait").await;
    until("it is asked", || !puppet.asked().is_empty()).await;
    drop(client);
    until("its request is given up", || puppet.seen.lock().unwrap().left == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_says_nothing_is_given_up() {
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
    let open = "HTTP/1.1 200 OK\r\n\r\nhalf";
    let acts = [
        ("/wait", Act::Wait),
        ("/stops", Act::Answer(vec![begun.into()])),
        ("/open", Act::Answer(vec![open.into()])),
    ];
    let (world, _puppet) = world(&acts, |config| {
        config.server.answer_timeout = Duration::from_millis(100);
        config.server.body_timeout = Duration::from_millis(100);
    })
    .await;
    let mut client = Client::of(&world).await;
    client.ask("/wait").await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("http/1.1 504") && head.contains("backend_timeout"), "{head}");
    client.ask("/stops").await;
    assert!(client.head().await.contains("content-length: 9"));
    assert_eq!(client.rest().await, "half");
    let mut client = Client::of(&world).await;
    client.ask("/open").await;
    client.head().await;
    let mut body = Vec::new();
    let end = soon("the end", client.0.read_to_end(&mut body)).await;
    assert!(end.is_err(), "an orderly end would say that this was all: {body:?}");
}

/// An answer that is larger than its socket takes at once, to a request whose body nobody reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_is_written_to_its_end_before_the_connection_is_closed() {
    let world = World::new(1).await;
    world.all_up().await;
    let content = "x".repeat(8 << 20);
    let upload = format!(
        "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"in.png\"\r\n\
         Content-Type: image/png\r\n\r\n{content}\r\n--x--\r\n"
    );
    let kind = [("content-type", "multipart/form-data; boundary=x")];
    let path = "/upload/image?clientId=ada";
    assert_eq!(send(world.front, http::Method::POST, path, &kind, &upload).await.status, 200);
    let mut client = Client::of(&world).await;
    let line = "GET /view?filename=in.png&type=input&clientId=ada HTTP/1.1";
    client.send(&format!("{line}\r\nhost: gw\r\ncontent-length: 100000\r\n\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let (mut got, mut piece) = (Vec::new(), [0; 7001]);
    while let Ok(count @ 1..) = soon("a piece", client.0.read(&mut piece)).await {
        got.extend_from_slice(&piece[..count]);
        // A reader that takes its time: the end of the answer has to wait for room.
        tokio::task::yield_now().await;
    }
    assert!(got == content.as_bytes(), "{} of {} bytes", got.len(), content.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_length_that_no_body_can_have_is_refused() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut client = Client::of(&world).await;
    let head = "POST /x HTTP/1.1\r\nhost: gw\r\ncontent-length: 18446744073709551615\r\n\r\n";
    client.send(&(head.to_owned() + &"z".repeat(40_000))).await;
    assert!(client.head().await.starts_with("http/1.1 4"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_arrives_whole_at_a_client_that_takes_its_time() {
    let body: String = (0..400_000).map(|n| format!("{n:08x}")).collect();
    let (world, _puppet) = world(&[("/large", Act::Answer(vec![ok(&body)]))], |_| {}).await;
    let mut client = Client::of(&world).await;
    client.ask("/large").await;
    let head = client.head().await;
    assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
    let mut got = Vec::new();
    while got.len() < body.len() {
        // What cannot be written waits; the rest is not read from the backend meanwhile.
        tokio::task::yield_now().await;
        let mut piece = vec![0; 7001.min(body.len() - got.len())];
        soon("a piece", client.0.read_exact(&mut piece)).await.unwrap();
        got.extend_from_slice(&piece);
    }
    assert!(got == body.as_bytes());
    client.ask("/large").await;
    assert!(client.head().await.starts_with("http/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_is_gone_is_said_to_be_and_the_connection_stays() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut client = Client::of(&world).await;
    client.ask("/system_stats?clientId=ada").await;
    client.answer().await;
    world.sim("a").crash().await;
    for _ in 0..2 {
        client.ask("/system_stats?clientId=ada").await;
        let (head, body) = client.answer().await;
        assert!(head.starts_with("http/1.1 50") && head.contains("mooring-error"), "{head}");
        assert!(body.contains("\"error\""), "{body}");
    }
    client.send("GET /system_stats?clientId=a%0Ab HTTP/1.1\r\nhost: gw\r\n\r\n").await;
    let (head, _) = client.answer().await;
    assert!(head.starts_with("http/1.1 400") && head.contains("bad_client_id"), "{head}");
}

/// Readers that take nothing hold their own connections and nobody else's, whichever way answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stall_delay_nobody_else() {
    let big =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {0}\r\n\r\n{1}", 8 << 20, "x".repeat(8 << 20));
    for path in ["/pack/big", "/pack/big?filename=x"] {
        let small = "/pack/small".to_owned();
        let acts =
            [(path, Act::Answer(vec![big.clone()])), (&small, Act::Answer(vec![ok("fine")]))];
        let (world, _puppet) = world(&acts, |_| {}).await;
        let mut stalled = Vec::new();
        for _ in 0..16 {
            let mut reader = Client::of(&world).await;
            reader.send(&format!("GET {path} HTTP/1.1\r\nHost: gw\r\n\r\n")).await;
            stalled.push(reader);
        }
        for _ in 0..50 {
            let answer = world.get(&small).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "fine"));
        }
        drop(stalled);
    }
}

/// Between two failures an answer came on a new connection, and that was news of the doors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_on_a_new_connection_says_that_the_doors_are_open() {
    let close = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let acts = [("/pack/x", Act::AnswerAndClose(close.to_owned()))];
    let (world, puppet) = world(&acts, |config| {
        config.fleet.dial_interval = Duration::from_secs(3600);
        config.fleet.fall = NonZeroU32::new(2).unwrap();
    })
    .await;
    let backend = world.gateway.shared.fleet.by_name("a").unwrap();
    for _ in 0..4 {
        backend.breaker.failed("as asked".to_owned());
        assert!(!backend.breaker.is_tripped(), "never twice in a row");
        assert_eq!(world.get("/pack/x").await.status, 200);
    }
    let asked = puppet.asked();
    assert_eq!(asked.len(), 4);
    assert!(asked.windows(2).all(|two| two[0].0 != two[1].0), "each on its own: {asked:?}");
}
