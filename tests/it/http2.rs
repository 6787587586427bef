//! HTTP/2, as browsers speak it under TLS: many requests on one connection, each judged and
//! answered as over HTTP/1.1.

use std::num::NonZeroU32;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use mooring::config::ListenerTls;
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::access_log;
use crate::certificates::{Authority, Pair, dial, read};
use crate::passthrough::{Act, world};
use crate::process::Daemon;
use crate::support::{Socket, World, network, not_tested, soon, until};

/// Runs what a connection needs, until it is dropped.
#[derive(Clone, Default)]
struct Runs(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Runs {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// A connection of HTTP/2, as a browser opens one.
async fn tls(authority: &Authority, port: u16) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&read(&authority.ca())).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    #[expect(clippy::disallowed_methods, reason = "it is no connection of ours")]
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream
}

async fn connected<B>(authority: &Authority, port: u16, runs: &Runs) -> SendRequest<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::error::Error + Send + Sync,
{
    let stream = TokioIo::new(tls(authority, port).await);
    let mut builder = Builder::new(runs.clone());
    // A client with a small window, so that what it does not read waits at the gateway.
    builder.initial_stream_window_size(64 << 10).initial_connection_window_size(8 << 20);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    runs.0.spawn(async move {
        let _ = connection.await;
    });
    sender
}

fn listener(pair: &Pair) -> ListenerTls {
    ListenerTls::read(Path::new(&pair.cert), Path::new(&pair.key), None).unwrap()
}

fn get(world: &World, path: &str) -> Request<Full<Bytes>> {
    let uri = format!("https://{}{path}", world.front);
    Request::get(uri).header("comfy-client-id", "ada").body(Full::default()).unwrap()
}

async fn whole(response: Response<Incoming>) -> (u16, Bytes) {
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reads_a_body_without_length_and_a_socket_work_beside_each_other() {
    let authority = Authority::new();
    let pair = authority.issue("gw");
    let world = World::with(1, |config| config.server_tls = listener(&pair)).await;
    world.all_up().await;
    let runs = Runs::default();
    let sender: SendRequest<Full<Bytes>> = connected(&authority, world.front.port(), &runs).await;
    let reads = (0..100).map(|_| {
        let (mut sender, request) = (sender.clone(), get(&world, "/system_stats"));
        async move { sender.send_request(request).await.unwrap() }
    });
    for response in soon("all reads", futures_util::future::join_all(reads)).await {
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(
            (response.status().as_u16(), &response.headers()["mooring-backend"]),
            (200, &"a".parse::<http::HeaderValue>().unwrap())
        );
    }

    // In pieces, and of no length that is told.
    let graph = crate::support::quick(7);
    let text = serde_json::json!({ "client_id": "ada", "prompt": graph }).to_string();
    let pieces: Vec<_> = text
        .as_bytes()
        .chunks(40)
        .map(|it| Ok::<_, std::io::Error>(Frame::data(Bytes::copy_from_slice(it))))
        .collect();
    let body = StreamBody::new(futures_util::stream::iter(pieces));
    let mut pieced = connected(&authority, world.front.port(), &runs).await;
    let uri = format!("https://{}/prompt", world.front);
    let request = Request::builder().method(Method::POST).uri(uri).body(body).unwrap();
    let sent = soon("the answer", pieced.send_request(request)).await.unwrap();
    let (status, body) = whole(sent).await;
    assert_eq!(status, 200, "{body:?}");
    let prompt: serde_json::Value = serde_json::from_slice(&body).unwrap();

    // Its socket comes over HTTP/1.1, on the same port.
    let stream = dial(&authority.client(), world.front).await.unwrap();
    let mut socket = Socket::over(stream, world.front, "/ws?clientId=ada").await;
    socket.until_end(prompt["prompt_id"].as_str().unwrap()).await;
}

#[tokio::test]
async fn what_http_1_refuses_is_refused_and_the_connection_stays() {
    let authority = Authority::new();
    let pair = authority.issue("gw");
    let world = World::with(1, |config| config.server_tls = listener(&pair)).await;
    world.all_up().await;
    let runs = Runs::default();
    let mut sender: SendRequest<Full<Bytes>> =
        connected(&authority, world.front.port(), &runs).await;
    let uri = |path: &str| format!("https://{}{path}", world.front);
    let build = |method: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri(uri("/system_stats"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::<Bytes>::default()).unwrap()
    };
    let mut rebound = build("GET", &[]);
    *rebound.uri_mut() = "https://evil.example/system_stats".parse().unwrap();
    for (request, expected, code) in [
        (build("TRACE", &[]), 405, "bad_method"),
        (build("GET", &[("host", "other")]), 400, "malformed_request"),
        (build("GET", &[("origin", "https://evil.example")]), 403, "foreign_origin"),
        (rebound, 421, "foreign_host"),
        (build("GET", &[("x-long", &"x".repeat(8_500))]), 431, "head_too_large"),
    ] {
        let response = soon(code, sender.send_request(request)).await.unwrap();
        let told = response.headers()["mooring-error"].to_str().unwrap().to_owned();
        assert_eq!((response.status().as_u16(), told.as_str()), (expected, code));
    }
    // A page of this very origin, by `:authority`.
    let (_folder, log, tasks) = access_log::started(&world);
    let own = build("GET", &[("origin", uri("").as_str())]);
    assert_eq!(sender.send_request(own).await.unwrap().status(), 200);
    let line = access_log::lines(&log, 1).await.remove(0);
    assert!(line.contains(r#""protocol":"HTTP/2.0""#), "{line}");
    tasks.stop();
}

/// hyper leaves the body of an answer to HEAD out for HTTP/1.1 alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_gets_no_body() {
    let authority = Authority::new();
    let pair = authority.issue("gw");
    let world = World::with(1, |config| config.server_tls = listener(&pair)).await;
    world.all_up().await;
    let runs = Runs::default();
    let mut sender: SendRequest<Full<Bytes>> =
        connected(&authority, world.front.port(), &runs).await;
    for (path, status) in [("/-/ready", 200), ("/-/nothing", 404), ("/history/none", 200)] {
        let mut head = get(&world, path);
        *head.method_mut() = Method::HEAD;
        let answer = soon("an answer", sender.send_request(head)).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let (_, body) = soon("no body", whole(answer)).await;
        assert!(body.is_empty(), "{path}");
        let beside = sender.send_request(get(&world, "/-/ready")).await.unwrap();
        assert_eq!(soon("the rest", whole(beside)).await.0, 200, "the connection is there");
    }
}

/// A client that takes nothing of an answer does not hold a backend for ever, and other requests of
/// its connection go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_takes_is_given_up_alone() {
    const LENGTH: usize = 4 << 20;
    let authority = Authority::new();
    let pair = authority.issue("gw");
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
    let acts = [("/large", Act::Answer(vec![head, "x".repeat(LENGTH)]))];
    let (world, puppet) = world(&acts, |config| {
        config.server_tls = listener(&pair);
        config.server.body_timeout = Duration::from_secs(1);
    })
    .await;
    let runs = Runs::default();
    let mut sender: SendRequest<Full<Bytes>> =
        connected(&authority, world.front.port(), &runs).await;
    let stalled = sender.send_request(get(&world, "/large")).await.unwrap();
    assert_eq!(stalled.status(), 200);
    // The client reads nothing of it meanwhile.
    until("the backend is let go", || puppet.has_ended("/large")).await;
    let read = soon("its end", stalled.into_body().collect()).await;
    assert!(read.is_err(), "it was reset");
    let beside = sender.send_request(get(&world, "/system_stats")).await.unwrap();
    assert_eq!(beside.status(), 200, "the connection is there still");
    let taken = sender.send_request(get(&world, "/large")).await.unwrap();
    assert_eq!(soon("all of it", whole(taken)).await.1.len(), LENGTH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_and_one_that_asks_nothing_are_ended() {
    let authority = Authority::new();
    let pair = authority.issue("gw");
    let world = World::with(1, |config| {
        config.server_tls = listener(&pair);
        config.server.header_timeout = Duration::from_secs(1);
        config.server.idle_timeout = Duration::from_secs(1);
    })
    .await;
    world.all_up().await;
    let (runs, port) = (Runs::default(), world.front.port());
    let silent: SendRequest<Full<Bytes>> = connected(&authority, port, &runs).await;
    let mut asked: SendRequest<Full<Bytes>> = connected(&authority, port, &runs).await;
    let first = soon("an answer", asked.send_request(get(&world, "/-/ready"))).await.unwrap();
    assert_eq!(first.status(), 200);
    until("both are closed", || silent.is_closed() && asked.is_closed()).await;
    let open = &world.gateway.shared.metrics.connections;
    until("they are gone", || open.get() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_too_many_requests_is_ended() {
    let authority = Authority::new();
    let pair = authority.issue("gw");
    let world = World::with(1, |config| {
        config.server_tls = listener(&pair);
        config.limits.address_requests_per_minute = NonZeroU32::new(2);
    })
    .await;
    world.all_up().await;
    let runs = Runs::default();
    let mut sender: SendRequest<Full<Bytes>> =
        connected(&authority, world.front.port(), &runs).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let sent = sender.send_request(get(&world, "/system_stats"));
        statuses.push(whole(soon("an answer", sent).await.unwrap()).await.0);
    }
    assert_eq!(statuses, [200, 200, 429]);
    // It has an idle timeout of minutes.
    until("it is closed", || sender.is_closed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_says_goodbye_and_curl_speaks_it() {
    let authority = Authority::new();
    let pair = authority.issue("gw");
    let sim = Sim::start(network(), Options::named("a")).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) =
        (format!("server.tls.cert={}", pair.cert), format!("server.tls.key={}", pair.key));
    let more = ["--set", &cert, "--set", &key, "--set", "server.drain_delay=0s"];
    let mut daemon = Daemon::start_with(&sim, &folder, &more);
    let url = format!("https://{}/-/ready", daemon.front);
    let asked = ["-sS", "--http2", "--cacert", &authority.ca(), "-w", "%{http_version}", &url];
    match Command::new("curl").args(asked).output() {
        Ok(curl) => {
            let told = String::from_utf8_lossy(&curl.stdout).into_owned();
            assert!(told.ends_with('2'), "{told} {}", String::from_utf8_lossy(&curl.stderr));
        }
        Err(_) => not_tested("there is no curl"),
    }
    let runs = Runs::default();
    let mut sender: SendRequest<Full<Bytes>> =
        connected(&authority, daemon.front.port(), &runs).await;
    let request = Request::get(&url).body(Full::default()).unwrap();
    assert_eq!(soon("an answer", sender.send_request(request)).await.unwrap().status(), 200);
    daemon.signal("-TERM");
    soon("it is told to leave", async {
        while !sender.is_closed() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(daemon.ended(), Some(0));
}
