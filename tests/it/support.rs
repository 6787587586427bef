//! What the integration tests share: simulated backends, a gateway in front of them, and a
//! client that speaks HTTP and WebSocket. Everything is in this process, on ports of the system.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use mooring::config::{Config, DiscoveryConfig, HostName, Sources, load};
use mooring::discovery::Pod;
use mooring::front::Front;
use mooring::front::browsers::BrowserId;
use mooring::front::caller::Door;
use mooring::journal::Store;
use mooring::net::{Network, Stream, Tcp};
use mooring::reload::{By, NotReloaded, Reloaded, Reloads, Reread};
use mooring::run::{self, Parts};
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use mooring::ws::{self, Channel, Frame, Limits, Opcode};
use serde_json::{Value, json};

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn network() -> Arc<dyn Network> {
    Arc::new(Tcp)
}

/// Says that something could not be tried, because a tool is missing. Where it is decided whether a
/// change is taken (`CI` is set), that is a failure.
pub(crate) fn not_tested(why: &str) {
    let ci = std::env::var_os("CI");
    assert!(may_be_left_out(ci.as_deref()), "NOT TESTED: {why}; that is a failure where CI is set");
    eprintln!("NOT TESTED: {why}");
}

fn may_be_left_out(ci: Option<&std::ffi::OsStr>) -> bool {
    ci.is_none_or(|value| value.is_empty() || value == "false" || value == "0")
}

#[test]
fn nothing_is_left_out_where_a_change_is_decided() {
    for (value, may) in [
        (None, true),
        (Some(""), true),
        (Some("false"), true),
        (Some("true"), false),
        (Some("1"), false),
    ] {
        assert_eq!(may_be_left_out(value.map(std::ffi::OsStr::new)), may, "{value:?}");
    }
}

/// Waits for something that will happen, and fails with its name if it does not.
pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// Looks again and again until something holds. For facts that no event tells.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The names by which tests ask a gateway, besides its address.
pub(crate) const NAMES: &[&str] = &["gw", "gateway", "x", "inner", "gpu.example.com"];

/// What these entries of `server.hosts` mean.
pub(crate) fn hosts(names: &[&str]) -> Vec<HostName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// A gateway with its simulated backends, `a`, `b`, `c` …
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) sims: Vec<Sim>,
    pub(crate) gateway: Arc<Front>,
    pub(crate) front: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) reloads: Reloads,
    /// What a reload reads.
    written: Arc<Mutex<Config>>,
    tasks: Tasks,
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl World {
    /// So many backends, and a gateway with the defaults.
    pub(crate) async fn new(backends: usize) -> Self {
        Self::with(backends, |_| {}).await
    }

    /// The same with another configuration. `SlowSteps` runs as fast as its test says.
    pub(crate) async fn with(backends: usize, change: impl FnOnce(&mut Config)) -> Self {
        Self::over(sims(backends).await, change).await
    }

    /// A gateway over backends that are there already.
    pub(crate) async fn over(sims: Vec<Sim>, change: impl FnOnce(&mut Config)) -> Self {
        Self::over_network(network(), sims, change).await
    }

    /// The same, reached through another network.
    pub(crate) async fn over_network(
        network: Arc<dyn Network>,
        sims: Vec<Sim>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::in_pod(Pod::default(), network, sims, change).await
    }

    /// So many backends, and a gateway whose journal is in this store.
    pub(crate) async fn kept_in(
        store: Box<dyn Store>,
        backends: usize,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let parts = Parts { home: Some(store), ..Parts::default() };
        Self::of_parts(parts, network(), sims(backends).await, change).await
    }

    /// A gateway without a backend of its own, which is to find some.
    pub(crate) async fn finding(places: &[(&str, &str)], change: impl FnOnce(&mut Config)) -> Self {
        Self::finding_in(Pod::default(), places, change).await
    }

    /// The same in a pod of Kubernetes.
    pub(crate) async fn finding_in(
        pod: Pod,
        places: &[(&str, &str)],
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let found = found_by(places);
        let change = |config: &mut Config| {
            config.discovery = found;
            change(config);
        };
        Self::in_pod(pod, network(), Vec::new(), change).await
    }

    async fn in_pod(
        pod: Pod,
        network: Arc<dyn Network>,
        sims: Vec<Sim>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let parts = Parts { pod, ..Parts::default() };
        Self::of_parts(parts, network, sims, change).await
    }

    async fn of_parts(
        parts: Parts,
        network: Arc<dyn Network>,
        sims: Vec<Sim>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let urls: Vec<(String, String)> =
            sims.iter().map(|sim| (sim.name().to_owned(), sim.url())).collect();
        let named: Vec<(&str, &str)> =
            urls.iter().map(|(name, url)| (name.as_str(), url.as_str())).collect();
        let mut config = match named.is_empty() {
            true => empty(),
            false => Config::for_backends(&named).unwrap(),
        };
        config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.admin.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.server.hosts = hosts(NAMES);
        change(&mut config);
        let tasks = Tasks::default();
        let written = Arc::new(Mutex::new(config.clone()));
        let read = Arc::clone(&written);
        let source: Reread = Arc::new(move || Ok(read.lock().unwrap().clone()));
        let parts = Parts { source: Some(source), ..parts };
        let running = run::start(config, network, &tasks, parts).await.unwrap();
        let (front, admin) = (running.front_address, running.admin_address.unwrap());
        let reloads = running.reloads.clone();
        Self { sims, gateway: running.front, front, admin, reloads, written, tasks }
    }

    /// Writes another configuration and has it read.
    pub(crate) async fn reload(
        &self,
        change: impl FnOnce(&mut Config),
    ) -> Result<Reloaded, NotReloaded> {
        change(&mut self.written.lock().unwrap());
        soon("the reload", self.reloads.reload(By::Files)).await
    }

    /// Stops the gateway; returns how many tasks are left after some time.
    pub(crate) async fn stopped(&self) -> usize {
        self.tasks.drain(Duration::from_secs(20)).await
    }

    /// The simulated backend of that name.
    pub(crate) fn sim(&self, name: &str) -> &Sim {
        self.sims.iter().find(|sim| sim.name() == name).unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.front, Method::GET, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        send(self.front, Method::POST, path, &[], body).await
    }

    pub(crate) async fn admin_get(&self, path: &str) -> Answer {
        send(self.admin, Method::GET, path, &[], "").await
    }

    pub(crate) async fn admin_post(&self, path: &str, body: &str) -> Answer {
        let json = [("content-type", "application/json")];
        send(self.admin, Method::POST, path, &json, body).await
    }

    /// Submits a graph for a client.
    pub(crate) async fn submit(&self, client: &str, graph: &Value) -> Answer {
        let body = json!({ "client_id": client, "prompt": graph }).to_string();
        self.post("/prompt", &body).await
    }

    /// The cookie of a browser that nobody knows yet.
    pub(crate) fn cookie(&self) -> String {
        let set = BrowserId::mint().set_cookie(&self.gateway.cookie_signer, Door::Plain, None);
        set.split(';').next().unwrap().to_owned()
    }

    /// Opens a socket for a client.
    pub(crate) async fn socket(&self, client: &str) -> Socket {
        Socket::open(self.front, &format!("/ws?clientId={client}")).await
    }

    /// Waits until every backend is up.
    pub(crate) async fn all_up(&self) {
        until("all backends are up", || self.gateway.shared.fleet.iter().all(|it| it.is_up()))
            .await;
    }

    /// Waits until a backend is seen to be down.
    pub(crate) async fn is_down(&self, name: &str) {
        let backend = self.gateway.shared.fleet.by_name(name).unwrap();
        until("the backend is seen to be down", || !backend.is_up()).await;
    }

    /// Waits until a backend that was crashed is seen to have no process. It is down before that,
    /// when its link breaks, and one that comes back in between counts as the same process.
    pub(crate) async fn is_gone(&self, name: &str) {
        let backend = self.gateway.shared.fleet.by_name(name).unwrap();
        let called = mooring::net::now();
        let is_gone = || !backend.is_up() && backend.restarted().is_some_and(|at| called < at);
        until("the backend is seen to be gone", is_gone).await;
    }
}

pub(crate) async fn sims(count: usize) -> Vec<Sim> {
    let mut sims = Vec::new();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"].into_iter().take(count) {
        sims.push(Sim::start(network(), Options::named(name)).await.unwrap());
    }
    sims
}

/// The defaults without any backend.
fn empty() -> Config {
    let flags = vec![("discovery.none.dns".to_owned(), "nobody.invalid:1".to_owned())];
    let mut config = load(&Sources { flags, ..Sources::default() }).unwrap();
    config.discovery.clear();
    config
}

/// What these keys of discoveries mean: `gpus.dns` and its like.
pub(crate) fn found_by(places: &[(&str, &str)]) -> Vec<DiscoveryConfig> {
    let flag = |(key, value): &(&str, &str)| (format!("discovery.{key}"), (*value).to_owned());
    let flags = places.iter().map(flag).collect();
    load(&Sources { flags, ..Sources::default() }).unwrap().discovery
}

/// A graph of one colour that takes so many steps and seconds.
pub(crate) fn slow(steps: u32, seconds: f64) -> Value {
    json!({
        "1": { "class_type": "EmptyImage",
               "inputs": { "width": 8, "height": 8, "batch_size": 1, "color": 255 } },
        "2": { "class_type": "SlowSteps",
               "inputs": { "image": ["1", 0], "steps": steps, "seconds": seconds,
                           "fail": false, "preview": true } },
        "3": { "class_type": "SaveImage",
               "inputs": { "images": ["2", 0], "filename_prefix": "test" } },
    })
}

/// A graph that is done at once.
pub(crate) fn quick(color: u32) -> Value {
    json!({
        "1": { "class_type": "EmptyImage",
               "inputs": { "width": 8, "height": 8, "batch_size": 1, "color": color } },
        "3": { "class_type": "SaveImage",
               "inputs": { "images": ["1", 0], "filename_prefix": "test" } },
    })
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The backend that answered.
    pub(crate) fn backend(&self) -> &str {
        self.header("mooring-backend")
    }

    /// The id of the prompt that was taken.
    #[track_caller]
    pub(crate) fn prompt_id(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["prompt_id"].as_str().unwrap().to_owned()
    }
}

/// Sends one request on a connection of its own and reads the whole answer.
pub(crate) async fn send(
    to: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    send_bytes(to, method, path, headers, Bytes::from(body.to_owned())).await
}

/// The same with a body of any bytes.
pub(crate) async fn send_bytes(
    to: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).unwrap();
    soon(path, exchange(to, request)).await
}

pub(crate) async fn exchange(to: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let stream = network().connect(&to.ip().to_string(), to.port()).await.unwrap();
    exchange_over(stream, request).await
}

/// The same on a connection that is there.
pub(crate) async fn exchange_over(stream: Stream, request: Request<Full<Bytes>>) -> Answer {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    let tasks = Tasks::default();
    tasks.spawn(async move {
        let _ = connection.await;
    });
    let response: Response<_> = sender.send_request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

/// A browser's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    channel: Channel,
}

impl Socket {
    pub(crate) async fn open(to: SocketAddr, path: &str) -> Self {
        let stream = network().connect(&to.ip().to_string(), to.port()).await.unwrap();
        Self::over(stream, to, path).await
    }

    /// The same on a connection that is there.
    pub(crate) async fn over(stream: Stream, to: SocketAddr, path: &str) -> Self {
        let limits = Limits { message: 128 << 20 };
        let opened = async { ws::connect(stream, &to.to_string(), path, limits).await.unwrap() };
        Self { channel: soon("the socket opens", opened).await }
    }

    /// The same with more headers.
    pub(crate) async fn open_with(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = network().connect(&to.ip().to_string(), to.port()).await.unwrap();
        let limits = Limits { message: 128 << 20 };
        let header = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        };
        let headers: HeaderMap = headers.iter().map(header).collect();
        let host = to.to_string();
        let opened =
            async { ws::connect_with(stream, &host, path, &headers, limits).await.unwrap() };
        Self { channel: soon("the socket opens", opened).await }
    }

    /// The next frame that is no ping or pong; `None` when the socket has closed.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        soon("a frame", async {
            loop {
                let frame = self.channel.next().await?.ok()?;
                if matches!(frame.opcode, Opcode::Text | Opcode::Binary | Opcode::Close) {
                    return Some(frame);
                }
            }
        })
        .await
    }

    /// The next event, binary frames left out.
    pub(crate) async fn event(&mut self) -> Value {
        loop {
            let frame = self.frame().await.expect("the socket is open");
            if frame.opcode == Opcode::Text {
                return serde_json::from_slice(&frame.payload).unwrap();
            }
        }
    }

    /// Reads on until an event of this type; returns it.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        soon(kind, async {
            loop {
                let event = self.event().await;
                if event["type"] == kind {
                    return event;
                }
            }
        })
        .await
    }

    /// Reads on until the prompt's last word; returns the types of all events on the way that
    /// name it, in order.
    pub(crate) async fn until_end(&mut self, prompt: &str) -> Vec<String> {
        let mut seen = Vec::new();
        soon("the end of a prompt", async {
            loop {
                let event = self.event().await;
                if event["data"]["prompt_id"] == prompt {
                    seen.push(event["type"].as_str().unwrap_or_default().to_owned());
                    if event["type"] == "executing" && event["data"]["node"].is_null() {
                        return;
                    }
                }
            }
        })
        .await;
        seen
    }

    /// Reads on until this text.
    pub(crate) async fn until_text(&mut self, text: &str) {
        soon(text, async {
            while self.frame().await.expect("the socket is open").as_text() != text {}
        })
        .await;
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.channel.send(Frame::text(text)).await.unwrap();
    }

    pub(crate) async fn send(&mut self, frame: Frame) {
        let _ = self.channel.send(frame).await;
    }

    /// The bare connection.
    pub(crate) fn into_channel(self) -> Channel {
        self.channel
    }

    /// Closes it properly.
    pub(crate) async fn close(mut self) {
        let _ = self.channel.send(Frame::close(1000, "")).await;
        while let Some(Ok(_)) = self.channel.next().await {}
    }

    /// Breaks it without a word, as a lost network does.
    pub(crate) fn cut(self) {
        drop(self);
    }
}

/// How often a scenario is run: its full count with `SOAK=1`, a named part of it otherwise.
pub(crate) fn fraction(scenario: &str, full: usize, part: usize) -> usize {
    let count = if std::env::var_os("SOAK").is_some() { full } else { part };
    eprintln!("{scenario}: {count} of {full}");
    count
}

/// Which seeds of a scenario are run: those that `SEEDS` says, as a count or as `400..600`; else
/// all of them with `SOAK=1`, or the first few.
pub(crate) fn seeds(scenario: &str, full: u64, few: u64) -> Range<u64> {
    let wanted = std::env::var("SEEDS").ok();
    let seeds = match &wanted {
        Some(wanted) => range(wanted).expect("SEEDS is a count, or a range such as 400..600"),
        None if std::env::var_os("SOAK").is_some() => 0..full,
        None => 0..few,
    };
    eprintln!("{scenario}: {seeds:?} of {full}");
    seeds
}

/// `None` if it is neither a count nor a range, or if it has no seed: that would prove nothing.
fn range(wanted: &str) -> Option<Range<u64>> {
    let (first, end) = wanted.split_once("..").unwrap_or(("0", wanted));
    let range = first.parse().ok()?..end.parse().ok()?;
    (!range.is_empty()).then_some(range)
}

#[test]
fn seeds_are_a_count_or_a_range_and_never_none() {
    assert_eq!(range("400"), Some(0..400));
    assert_eq!(range("400..600"), Some(400..600));
    for wrong in ["", "0", "x", "..5", "5..", "7..7", "9..7", "-1", "1..2..3"] {
        assert_eq!(range(wrong), None, "{wrong}");
    }
}
