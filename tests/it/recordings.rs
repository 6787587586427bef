//! The simulated ComfyUI against recordings of real ones (0.33.0 and 0.8.0, on a CPU).
//!
//! The client's side of each recording is played against one simulated backend, in the order in
//! which they were recorded: numbers, counters and caches go on from one to the next, as they did
//! then. Compared are each HTTP answer, and each socket's own sequence; ids and times aside,
//! repeated ticks of progress counted once, `status` apart from the rest. How HTTP and sockets
//! interleave is chance and is not compared.

mod before;
mod compare;
mod forms;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http::Method;
use mooring::sim::{Options, Sim};
use mooring::tasks::Tasks;
use mooring::ws::{Frame, Opcode};
use serde_json::Value;

use crate::support::{Answer, Socket, network, send_bytes, until};
use compare::{Names, Told};

/// The first 18 are scripts; the others are a browser's.
const PLAYED: usize = 18;

fn recordings(folder: &str) -> Vec<(String, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .collect();
    files.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
    };
    files.iter().take(PLAYED).map(read).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_simulated_server_answers_as_the_recorded_one() {
    let recordings = recordings("recordings-0.33");
    let sim = sim_of("0.33.0").await;
    before::of_0_33(&sim, &recordings).await;
    play_all(&sim, recordings).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_older_simulated_server_answers_as_the_recorded_one() {
    let sim = sim_of("0.8.0").await;
    before::of_0_8(&sim).await;
    play_all(&sim, recordings("recordings")).await;
}

async fn sim_of(version: &str) -> Sim {
    let options = Options { speed: 4.0, version: version.to_owned(), ..Options::named("sim") };
    Sim::start(network(), options).await.unwrap()
}

async fn play_all(sim: &Sim, recordings: Vec<(String, Value)>) {
    // Later recordings name prompts of earlier ones.
    let mut names = Names::default();
    for (name, recording) in recordings {
        Player::new(sim, &name, &mut names).play(&recording["steps"]).await;
    }
}

/// Plays one recording.
struct Player<'a> {
    sim: &'a Sim,
    name: &'a str,
    sockets: BTreeMap<String, Playing>,
    names: &'a mut Names,
    tasks: Tasks,
}

/// A socket that is played: what it was told, and what it should be.
struct Playing {
    heard: Arc<Mutex<Vec<Frame>>>,
    recorded: Vec<Told>,
    to_server: tokio::sync::mpsc::UnboundedSender<Option<Frame>>,
}

impl<'a> Player<'a> {
    fn new(sim: &'a Sim, name: &'a str, names: &'a mut Names) -> Self {
        Self { sim, name, sockets: BTreeMap::new(), names, tasks: Tasks::default() }
    }

    async fn play(&mut self, steps: &Value) {
        let steps = steps.as_array().unwrap();
        for (index, step) in steps.iter().enumerate() {
            let socket = step["socket"].as_str().unwrap_or_default();
            match step["kind"].as_str().unwrap() {
                "http" => {
                    self.wait_for_sockets().await;
                    self.http(step).await;
                }
                "ws_open" => {
                    self.wait_for_sockets().await;
                    self.open(socket, step, &steps[index..]).await;
                }
                "ws_sent" => {
                    let text = Frame::text(step["json"].to_string());
                    self.sockets[socket].to_server.send(Some(text)).unwrap();
                }
                "ws_text" | "ws_binary" => {
                    let told = Told::recorded(step);
                    self.sockets.get_mut(socket).unwrap().recorded.push(told);
                }
                // The one says how it was closed, the other how the recorder saw it.
                "ws_close" | "ws_end" => {
                    self.wait_for_sockets().await;
                    self.close(socket).await;
                }
                other => panic!("{}: {other}", self.name),
            }
        }
        for socket in self.sockets.keys() {
            self.compare(socket);
        }
        let sim = self.sim;
        self.tasks.drain(crate::support::PATIENCE).await;
        until("the sockets are forgotten", || sim.sids().is_empty()).await;
    }

    /// Before a client acts, it has heard what it had heard when it was recorded.
    async fn wait_for_sockets(&self) {
        for (name, socket) in &self.sockets {
            let enough = || {
                let heard: Vec<Told> =
                    socket.heard.lock().unwrap().iter().map(Told::heard).collect();
                compare::covers(&heard, &socket.recorded)
            };
            until(&format!("{}: socket {name} hears what was recorded", self.name), enough).await;
        }
    }

    async fn open(&mut self, name: &str, step: &Value, rest: &[Value]) {
        // What it is told first says how much was waiting at that moment.
        let first = rest.iter().find(|it| it["kind"] == "ws_text" && it["socket"] == name);
        let waiting = first.and_then(|it| {
            it.pointer("/json/data/status/exec_info/queue_remaining").and_then(Value::as_u64)
        });
        if let Some(waiting) = waiting {
            let sim = self.sim;
            until("as much waits as then", || sim.queue_remaining() as u64 == waiting).await;
        }
        let path = step["path"].as_str().unwrap();
        let socket = Socket::open(self.sim.addr(), path).await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (to_server, mut from_client) = tokio::sync::mpsc::unbounded_channel();
        let listening = Arc::clone(&heard);
        self.tasks.spawn(async move {
            let mut channel = socket.into_channel();
            loop {
                tokio::select! {
                    received = channel.next() => match received {
                        Some(Ok(frame)) => listening.lock().unwrap().push(frame),
                        Some(Err(_)) | None => return,
                    },
                    said = from_client.recv() => match said {
                        Some(Some(frame)) => channel.send(frame).await.unwrap(),
                        Some(None) | None => {
                            let _ = channel.send(Frame::close(1000, "")).await;
                            while let Some(Ok(_)) = channel.next().await {}
                            return;
                        }
                    },
                }
            }
        });
        self.sockets.insert(name.to_owned(), Playing { heard, recorded: Vec::new(), to_server });
    }

    /// Closes a socket, and waits until the server has let go of its id.
    async fn close(&self, name: &str) {
        let socket = &self.sockets[name];
        socket.to_server.send(None).unwrap();
        let first = socket.heard.lock().unwrap()[0].clone();
        let first: Value = serde_json::from_slice(&first.payload).unwrap();
        let sid = first["data"]["sid"].as_str().unwrap().to_owned();
        until("the id is free", || !self.sim.sids().contains(&sid)).await;
    }

    fn compare(&self, name: &str) {
        let socket = &self.sockets[name];
        let heard: Vec<Told> = socket
            .heard
            .lock()
            .unwrap()
            .iter()
            .filter(|frame| matches!(frame.opcode, Opcode::Text | Opcode::Binary))
            .map(Told::heard)
            .collect();
        let mut here = Names::default();
        let mut then = Names::default();
        let heard = compare::sequence(&heard, &mut here);
        let recorded = compare::sequence(&socket.recorded, &mut then);
        // A socket that was closed early may have heard a little more or less than then.
        for (heard, recorded) in
            [(&heard.statuses, &recorded.statuses), (&heard.events, &recorded.events)]
        {
            let common = recorded.len().min(heard.len());
            assert_eq!(heard[..common], recorded[..common], "{}: socket {name}", self.name);
        }
        let last = recorded.events.iter().rposition(|it| !compare::is_tick(it));
        let lasting = last.map_or(0, |at| at + 1);
        assert!(lasting <= heard.events.len(), "{}: {name} heard too little", self.name);
    }

    async fn http(&mut self, step: &Value) {
        let (request, expected) = (&step["request"], &step["response"]);
        let path = self.names.here(request["path"].as_str().unwrap());
        let expects_entry = path.contains("/history/")
            && expected["body"].as_object().is_some_and(|body| !body.is_empty());
        if expects_entry || path.contains("max_items") {
            let sim = self.sim;
            until("what was over is over", || sim.queue_remaining() == 0).await;
        }
        let at = format!("{}: {} {path}", self.name, request["method"]);
        let answer = self.send(request, expected, &path).await;
        assert_eq!(Some(u64::from(answer.status)), expected["status"].as_u64(), "{at}");
        let header = |headers: &Value, name: &str| headers[name].as_str().map(str::to_owned);
        let content_type = header(&expected["headers"], "Content-Type");
        assert_eq!(answer.header("content-type"), content_type.unwrap_or_default(), "{at}");
        for name in
            ["Content-Disposition", "Accept-Ranges", "Cache-Control", "X-Content-Type-Options"]
        {
            let expected = header(&expected["headers"], name).unwrap_or_default();
            assert_eq!(answer.header(&name.to_lowercase()), expected, "{at}: {name}");
        }
        self.compare_body(&answer, &expected["body"], &at);
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "JSON of any other kind is compared as such"
    )]
    fn compare_body(&mut self, answer: &Answer, expected: &Value, at: &str) {
        match expected {
            // A picture: what kind it is says its type.
            Value::Null => assert!(!answer.body.is_empty(), "{at}"),
            Value::String(text) if text.is_empty() => assert_eq!(answer.text(), "", "{at}"),
            Value::String(text) if !answer.header("content-type").contains("json") => {
                assert_eq!(answer.text(), *text, "{at}");
            }
            expected => {
                let answered = answer.json();
                self.names.learn(expected, &answered);
                let (here, then) = (compare::body(&answered), compare::body(expected));
                let then = self.names.translate(&then);
                assert_eq!(here, then, "{at}");
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "JSON of any other kind is sent as such")]
    async fn send(&self, request: &Value, response: &Value, path: &str) -> Answer {
        let method: Method = request["method"].as_str().unwrap().parse().unwrap();
        let body = match &request["body"] {
            Value::Null => Vec::new(),
            body if body.get("base64_head").is_some() => forms::body(request, response),
            body => self.names.here(&body.to_string()).into_bytes(),
        };
        let headers: Vec<(String, String)> = request["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap().to_owned()))
            .collect();
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        send_bytes(self.sim.addr(), method, path, &headers, body.into()).await
    }
}
