//! Scripted clients: each submits, uploads, asks and cancels by its own random numbers, and opens,
//! closes, loses and moves its socket between two hosts. In the end it keeps one, and waits.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use mooring::net::{Network, sleep};
use mooring::tasks::Tasks;
use mooring::ws::{self, Channel, Frame, Limits, Opcode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::book::{Answer, Book, Hearing};
use super::network::{Power, Simulated};
use super::{CHAOS, GATEWAY, PORT};
use crate::simulation::random::Random;
use crate::support::{quick, slow};

/// The hosts that people sit at.
pub(super) const PLACES: [&str; 2] = ["desk", "laptop"];

/// Nobody waits longer for an answer. Longer than the gateway's own limit.
const PATIENCE: Duration = Duration::from_secs(12);

/// A socket on which nothing has come for so long is taken to be dead.
const SILENCE: Duration = Duration::from_secs(4);

/// The pause before a socket is opened again.
const REOPEN: Duration = Duration::from_millis(200);

/// Where a client has its socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Seat {
    Nowhere,
    At(usize),
    Everywhere,
}

/// What a client does with a socket that it gives up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Leave {
    Properly,
    Abruptly,
}

/// Where a client has its socket, and how it left the last one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Wish {
    seat: Seat,
    leave: Leave,
}

impl Wish {
    pub(super) const NOTHING: Self = Self { seat: Seat::Nowhere, leave: Leave::Properly };

    fn is_for(self, place: usize) -> bool {
        match self.seat {
            Seat::Nowhere => false,
            Seat::At(other) => place == other,
            Seat::Everywhere => true,
        }
    }
}

/// How far all of them have come to rest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calm {
    /// How many have an answer and an end for each of their prompts.
    pub(super) at_rest: usize,
    /// Nothing goes on any more anywhere.
    pub(super) is_quiet: bool,
    /// How many have asked for what they wanted to know in the end.
    pub(super) done: usize,
}

/// A client at one of its places.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) name: String,
    pub(super) network: Simulated,
    /// The gateway's.
    pub(super) power: Arc<Power>,
    pub(super) book: Arc<Mutex<Book>>,
    pub(super) tasks: Tasks,
}

/// A submission: by the id that its client chose, or by its number among those without one.
enum Submission {
    Named(String),
    Nameless(usize),
}

/// How far into the run it is.
pub(super) fn elapsed() -> Duration {
    ::turmoil::sim_elapsed().unwrap_or_default()
}

/// An answer, or why there is none.
type Answered = Result<(u16, HeaderMap, Bytes), String>;

impl Person {
    fn note(&self, what: &str) {
        self.book.lock().unwrap().note(elapsed(), &format!("{} {what}", self.name));
    }

    /// Lives through the chaos, and comes to rest after it. The socket is opened by
    /// [`Person::sit`], which follows `wish`.
    pub(super) async fn live(
        self,
        mut random: Random,
        wish: watch::Sender<Wish>,
        calm: watch::Sender<Calm>,
    ) {
        let mut count = 0;
        sleep(Duration::from_millis(random.below(500) as u64)).await;
        while elapsed() < CHAOS {
            self.act(&mut random, &wish, &mut count).await;
            sleep(Duration::from_millis(random.below(1_500) as u64)).await;
        }
        let seat = Seat::At(random.below(PLACES.len()));
        wish.send_replace(Wish { seat, leave: Leave::Properly });
        self.note("keeps a socket");
        let is_done = || {
            let book = self.book.lock().unwrap();
            !book.is_waiting(&self.name) && book.without_end(&self.name).is_empty()
        };
        while !is_done() {
            sleep(Duration::from_millis(100)).await;
        }
        self.note("is at rest");
        calm.send_modify(|calm| calm.at_rest += 1);
        while !calm.borrow().is_quiet {
            sleep(Duration::from_millis(100)).await;
        }
        self.ask_in_the_end().await;
        calm.send_modify(|calm| calm.done += 1);
        // Its socket is kept until the run is over.
        wish.closed().await;
    }

    async fn act(&self, random: &mut Random, wish: &watch::Sender<Wish>, count: &mut u32) {
        match random.below(100) {
            0..=39 => {
                for _ in 0..=random.below(3) {
                    *count += 1;
                    self.submit(random, *count);
                }
            }
            40..=64 => {
                let seat = match random.below(8) {
                    0 | 1 => Seat::Nowhere,
                    2..=4 => Seat::At(0),
                    5 | 6 => Seat::At(1),
                    _ => Seat::Everywhere,
                };
                let leave = random.pick(&[Leave::Properly, Leave::Abruptly]);
                self.note(&format!("wants {seat:?}, leaves {leave:?}"));
                wish.send_replace(Wish { seat, leave });
            }
            65..=72 => self.upload(random).await,
            73..=86 => {
                if let Some(prompt) = self.some_prompt(random) {
                    let _ = self.get(&format!("/history/{prompt}?clientId={}", self.name)).await;
                }
            }
            87..=93 => self.cancel(random).await,
            _ => {
                let path =
                    random.pick(&["/queue", "/prompt", "/history", "/object_info/SaveImage"]);
                let _ = self.get(&format!("{path}?clientId={}", self.name)).await;
            }
        }
    }

    fn some_prompt(&self, random: &mut Random) -> Option<String> {
        let book = self.book.lock().unwrap();
        let own: Vec<&String> = book
            .submitted
            .iter()
            .filter(|(id, it)| it.person == self.name && id.contains(OWN))
            .map(|(id, _)| id)
            .collect();
        (!own.is_empty()).then(|| own[random.below(own.len())].clone())
    }

    /// Submits in the background; tries again with the same id after some failures.
    fn submit(&self, random: &mut Random, count: u32) {
        let graph = self.graph(random, count);
        let prompt = (!random.one_in(6)).then(|| own_id(&self.name, count));
        let tries = 1 + random.below(3);
        let pause = Duration::from_millis(random.below(3_000) as u64);
        let mut body = json!({ "client_id": self.name, "prompt": graph });
        if let Some(prompt) = &prompt {
            body["prompt_id"] = json!(prompt);
        }
        let person = self.clone();
        self.tasks.spawn(async move {
            for _ in 0..tries {
                let submission = person.submits(prompt.as_deref());
                let answer =
                    person.send(Method::POST, "/prompt", "application/json", body.to_string());
                let answer = person.understand(&submission, answer.await);
                // Without an id a second try is another prompt.
                if answer == Answer::Taken || prompt.is_none() || CHAOS < elapsed() {
                    return;
                }
                sleep(pause).await;
            }
        });
    }

    fn submits(&self, prompt: Option<&str>) -> Submission {
        let mut book = self.book.lock().unwrap();
        match prompt {
            Some(prompt) => {
                book.submits(&self.name, prompt);
                Submission::Named(prompt.to_owned())
            }
            None => Submission::Nameless(book.submits_nameless(&self.name)),
        }
    }

    /// Enters the answer to a submission into the book.
    fn understand(&self, submission: &Submission, answered: Answered) -> Answer {
        let (answer, given) = match answered {
            Ok((200, _, body)) => {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                (Answer::Taken, body["prompt_id"].as_str().map(str::to_owned))
            }
            Ok((status, headers, _)) => {
                let code = headers.get("mooring-error").map(|code| code.to_str().unwrap_or(""));
                let code = code.unwrap_or("").to_owned();
                match code.as_str() {
                    // An earlier try of the same id may have been taken.
                    "prompt_state_unknown" | "prompt_id_known" | "stopping" => {
                        (Answer::Unknown(code), None)
                    }
                    _ => (Answer::Refused(format!("{status} {code}")), None),
                }
            }
            Err(why) => (Answer::Unknown(why), None),
        };
        let mut book = self.book.lock().unwrap();
        let chosen = match submission {
            Submission::Named(prompt) => Some(prompt.as_str()),
            Submission::Nameless(_) => None,
        };
        let id = given.as_deref().or(chosen).unwrap_or("one without an id");
        book.note(elapsed(), &format!("{} is answered {answer:?} for {id}", self.name));
        match submission {
            Submission::Named(own) => {
                if let Some(given) = given.filter(|given| given != own) {
                    book.violations.push(format!("{own} was taken as {given}"));
                }
                book.answered(&self.name, own, answer.clone());
            }
            Submission::Nameless(number) => {
                book.answered_nameless(*number, given.as_deref(), answer.clone());
            }
        }
        answer
    }

    fn graph(&self, random: &mut Random, count: u32) -> Value {
        let mut graph = match random.below(10) {
            0..=3 => quick(count),
            4..=7 => {
                let steps = u32::try_from(1 + random.below(4)).unwrap();
                #[expect(clippy::cast_precision_loss, reason = "small")]
                let seconds = random.below(2_500) as f64 / 1_000.0;
                slow(steps, seconds)
            }
            8 => {
                let mut graph = slow(2, 0.2);
                graph["2"]["inputs"]["fail"] = json!(true);
                graph
            }
            _ => json!({
                "1": { "class_type": "LoadImage", "inputs": { "image": self.picture() } },
                "3": { "class_type": "SaveImage",
                       "inputs": { "images": ["1", 0], "filename_prefix": "test" } },
            }),
        };
        graph["3"]["inputs"]["filename_prefix"] = json!(format!("{}_{count}", self.name));
        graph
    }

    fn picture(&self) -> String {
        format!("{}.png", self.name)
    }

    async fn upload(&self, random: &mut Random) {
        let picture = image::RgbImage::from_pixel(4, 4, image::Rgb([random.pick(&[0, 9, 99]); 3]));
        let mut png = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let mut body = format!(
            "--x\r\ncontent-disposition: form-data; name=\"image\"; filename=\"{}\"\r\n\
             content-type: image/png\r\n\r\n",
            self.picture()
        )
        .into_bytes();
        body.extend(png.into_inner());
        body.extend(b"\r\n--x\r\ncontent-disposition: form-data; name=\"overwrite\"\r\n\r\n");
        body.extend(b"true\r\n--x--\r\n");
        let path = format!("/upload/image?clientId={}", self.name);
        let kind = "multipart/form-data; boundary=x";
        let _ = self.send(Method::POST, &path, kind, body).await;
    }

    async fn cancel(&self, random: &mut Random) {
        let Some(prompt) = self.some_prompt(random) else { return };
        let (path, body) = match random.below(3) {
            0 => ("/queue", json!({ "delete": [prompt] })),
            1 => ("/interrupt", json!({ "prompt_id": prompt })),
            _ => ("/interrupt", json!({})),
        };
        self.note(&format!("calls {path} {body}"));
        let path = format!("{path}?clientId={}", self.name);
        let _ = self.send(Method::POST, &path, "application/json", body.to_string()).await;
    }

    /// Asks for the history of all that was lost, until it is answered.
    async fn ask_in_the_end(&self) {
        let lost: Vec<String> = {
            let book = self.book.lock().unwrap();
            let is_lost = |id: &&String| 0 < book.told(&self.name, id).lost;
            let own = book.submitted.iter().filter(|(_, it)| it.person == self.name);
            own.map(|(id, _)| id).filter(is_lost).cloned().collect()
        };
        for prompt in lost {
            let path = format!("/history/{prompt}?clientId={}", self.name);
            loop {
                if let Ok((200, _, body)) = self.get(&path).await {
                    let history = serde_json::from_slice(&body).unwrap_or_default();
                    let mut book = self.book.lock().unwrap();
                    book.submitted.get_mut(&prompt).unwrap().history = Some(history);
                    break;
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
    }

    async fn get(&self, path: &str) -> Answered {
        self.send(Method::GET, path, "text/plain", "").await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> Answered {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", GATEWAY)
            .header("content-type", kind)
            .body(Full::new(body.into()))
            .unwrap();
        match timeout(PATIENCE, self.exchange(request)).await {
            Ok(answered) => answered,
            Err(_) => Err("no answer".to_owned()),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Answered {
        let broken = |error: &dyn std::error::Error| error.to_string();
        let stream = self.network.connect(GATEWAY, PORT).await.map_err(|it| broken(&it))?;
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|it| broken(&it))?;
        self.tasks.spawn(async move {
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(|it| broken(&it))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|it| broken(&it))?;
        Ok((parts.status.as_u16(), parts.headers, body.to_bytes()))
    }

    /// Has a socket at this place whenever it is wished for, and opens it again when it is lost.
    pub(super) async fn sit(self, place: usize, mut wish: watch::Receiver<Wish>) {
        loop {
            if wish.wait_for(|wish| wish.is_for(place)).await.is_err() {
                return;
            }
            let opened = timeout(SILENCE, self.open()).await;
            if let Ok(Some((channel, life))) = opened {
                self.hear(place, channel, Hearing::of_life(life), &mut wish).await;
            }
            sleep(REOPEN).await;
        }
    }

    /// A socket, and which life of the gateway took it.
    async fn open(&self) -> Option<(Channel, u32)> {
        let (stream, from) = self.network.dial_from(GATEWAY, PORT).await.ok()?;
        let limits = Limits { message: 64 << 20 };
        let path = format!("/ws?clientId={}", self.name);
        let channel = ws::connect(stream, GATEWAY, &path, limits).await.ok()?;
        Some((channel, self.power.life_that_took(from).expect("what was answered was taken")))
    }

    async fn hear(
        &self,
        place: usize,
        mut channel: Channel,
        mut hearing: Hearing,
        wish: &mut watch::Receiver<Wish>,
    ) {
        self.note(&format!("has a socket at {}", PLACES[place]));
        loop {
            let frame = tokio::select! {
                biased;
                frame = timeout(SILENCE, channel.next()) => frame,
                leave = gives_up(wish, place) => {
                    self.note(&format!("leaves {} {leave:?}", PLACES[place]));
                    if leave == Leave::Properly {
                        let farewell = async {
                            let _ = channel.send(Frame::close(1000, "")).await;
                            while let Some(Ok(_)) = channel.next().await {}
                        };
                        let _ = timeout(SILENCE, farewell).await;
                    }
                    return;
                }
            };
            let Ok(Some(Ok(frame))) = frame else {
                self.note(&format!("lost its socket at {}", PLACES[place]));
                return;
            };
            if frame.opcode == Opcode::Text {
                let event: Value = serde_json::from_slice(&frame.payload).unwrap_or_default();
                let mut book = self.book.lock().unwrap();
                book.heard(elapsed(), &self.name, &mut hearing, &event);
            }
        }
    }
}

/// Waits until a socket at this place is not wished for any more.
async fn gives_up(wish: &mut watch::Receiver<Wish>, place: usize) -> Leave {
    let left = wish.wait_for(|wish| !wish.is_for(place)).await;
    left.map_or(Leave::Properly, |wish| wish.leave)
}

/// In every id that a person chose.
const OWN: &str = "-0000-4000-a000-";

/// An id of a person's choice, which has to be a UUID (0.33): it begins with the person's number.
fn own_id(name: &str, count: u32) -> String {
    let number: u32 = name.trim_start_matches('p').parse().unwrap();
    format!("{number:08x}{OWN}{count:012x}")
}

/// The person who chose an id; `None` if nobody did.
pub(super) fn chosen_by(id: &str) -> Option<String> {
    let (number, _) = id.split_once(OWN)?;
    u32::from_str_radix(number, 16).ok().map(|number| format!("p{number}"))
}
