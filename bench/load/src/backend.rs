//! ComfyUI servers that cost next to nothing.
//!
//! What a client wants is in its name, so that it passes any proxy: `life.…` gets all events of a
//! small prompt at once, `load.SIZE.RATE.…` gets an event of SIZE bytes, RATE times a second, from
//! its submission to the end of its socket.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, Interval, interval_at};

use crate::http::{Head, Wire, answer, answer_head, parameter};
use crate::{say, ws};

/// The picture of `GET /view`.
const PICTURE: usize = 4 << 20;
const JSON: &str = "application/json; charset=utf-8";
/// Ended prompts that are remembered; then all are forgotten.
const ENDED_MAX: usize = 200_000;

/// One server.
#[derive(Default)]
struct Server {
    sockets: HashMap<String, UnboundedSender<Order>>,
    running: Vec<String>,
    ended: HashSet<String>,
}

type Shared = Arc<Mutex<Server>>;

/// What a submission makes a socket do.
enum Order {
    Write(Vec<u8>),
    Repeat { frame: Vec<u8>, every: Duration, phase: Duration },
}

/// Listens `listeners` times, says where, and serves until the standard input closes.
pub async fn run(listeners: usize) -> io::Result<()> {
    let picture: Arc<[u8]> = vec![0xa5; PICTURE].into();
    for _ in 0..listeners {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        tokio::spawn(accept(listener, Shared::default(), Arc::clone(&picture)));
    }
    // On a thread of its own, so that nothing is left when whoever started us is gone.
    let (gone, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = gone.send(());
    });
    let _ = ended.await;
    std::process::exit(0);
}

async fn accept(listener: TcpListener, shared: Shared, picture: Arc<[u8]>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (shared, picture) = (Arc::clone(&shared), Arc::clone(&picture));
                tokio::spawn(async move {
                    // A proxy may hang up whenever it likes.
                    let _ = serve(stream, shared, picture).await;
                });
            }
            Err(error) => {
                eprintln!("backend: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: Shared, picture: Arc<[u8]>) -> io::Result<()> {
    let mut wire = Wire::new(stream)?;
    let small = answer(JSON, say::SYSTEM_STATS.as_bytes());
    while let Some(head) = wire.head().await? {
        match head.request() {
            ("GET", "/system_stats", _) => wire.write(&small).await?,
            ("GET", "/view", _) => {
                wire.write(&answer_head("image/png", picture.len())).await?;
                wire.write(&picture).await?;
            }
            ("GET", "/ws", query) => {
                let client = parameter(query, "clientId").unwrap_or("nobody").to_owned();
                // A gateway may have encoded it.
                let client = client.replace("%2E", ".").replace("%2D", "-");
                wire.write(&ws::accepted(&head)).await?;
                return socket(wire, shared, client).await;
            }
            ("POST", "/prompt", _) => {
                let body = wire.body(head.length).await?;
                let body = String::from_utf8_lossy(&body);
                let (prompt, order) = submitted(&body, &shared);
                wire.write(&answer(JSON, say::taken(&prompt).as_bytes())).await?;
                order();
            }
            _ => other(&mut wire, &head, &shared).await?,
        }
    }
    Ok(())
}

async fn other(wire: &mut Wire, head: &Head, shared: &Shared) -> io::Result<()> {
    wire.skip(head.length, |_| {}).await?;
    let body = match head.request() {
        ("POST", "/upload/image", _) => {
            r#"{"name": "picture.png", "subfolder": "", "type": "input"}"#.to_owned()
        }
        ("GET", "/prompt", _) => say::QUEUE_LENGTH.to_owned(),
        ("GET", "/features", _) => say::FEATURES.to_owned(),
        ("GET", "/queue", _) => say::queue(&lock(shared).running),
        ("GET", path, _) if path.starts_with("/history/") => {
            let prompt = path["/history/".len()..].replace("%2D", "-");
            let has_ended = lock(shared).ended.contains(&prompt);
            if has_ended { say::history(&prompt) } else { "{}".to_owned() }
        }
        _ => "{}".to_owned(),
    };
    wire.write(&answer(JSON, body.as_bytes())).await
}

/// Takes a submission: its prompt's id, and what is to be done once it has been answered.
fn submitted(body: &str, shared: &Shared) -> (String, impl FnOnce() + use<>) {
    let prompt = say::field(body, "prompt_id").unwrap_or("unnamed").to_owned();
    let client = say::field(body, "client_id").unwrap_or("nobody");
    let order = match client.split('.').collect::<Vec<_>>()[..] {
        ["load", size, rate, number] => {
            lock(shared).running.push(prompt.clone());
            let parse = |text: &str| text.parse::<u32>().unwrap_or(1).max(1);
            let every = Duration::from_secs(1) / parse(rate);
            // Spread, so that not all sockets speak at the same moment.
            let phase = every * (parse(number) % 97) / 97;
            Order::Repeat { frame: say::event(&prompt, parse(size) as usize), every, phase }
        }
        _ => {
            let mut server = lock(shared);
            if ENDED_MAX <= server.ended.len() {
                server.ended.clear();
            }
            server.ended.insert(prompt.clone());
            Order::Write(say::life(&prompt))
        }
    };
    let socket = lock(shared).sockets.get(client).cloned();
    let then = move || {
        if let Some(socket) = socket {
            let _ = socket.send(order);
        }
    };
    (prompt, then)
}

async fn socket(mut wire: Wire, shared: Shared, client: String) -> io::Result<()> {
    let (orders, mut ordered) = unbounded_channel();
    lock(&shared).sockets.insert(client.clone(), orders.clone());
    wire.write(&say::hello(&client)).await?;
    let outcome = talk(&mut wire, &mut ordered).await;
    let mut server = lock(&shared);
    if server.sockets.get(&client).is_some_and(|current| current.same_channel(&orders)) {
        server.sockets.remove(&client);
    }
    outcome
}

async fn talk(wire: &mut Wire, ordered: &mut UnboundedReceiver<Order>) -> io::Result<()> {
    let mut repeated: Option<(Interval, Vec<u8>)> = None;
    loop {
        tokio::select! {
            frame = ws::next(wire) => match frame? {
                None => return Ok(()),
                Some(frame) if frame.opcode == ws::CLOSE => {
                    return wire.write(&ws::from_server(ws::CLOSE, &frame.payload)).await;
                }
                Some(frame) if frame.opcode == ws::PING => {
                    wire.write(&ws::from_server(ws::PONG, &frame.payload)).await?;
                }
                Some(frame) if ws::contains(&frame.payload, "feature_flags") => {
                    wire.write(&say::features()).await?;
                }
                Some(_) => {}
            },
            Some(order) = ordered.recv() => match order {
                Order::Write(frames) => wire.write(&frames).await?,
                Order::Repeat { frame, every, phase } => {
                    repeated = Some((interval_at(Instant::now() + phase, every), frame));
                }
            },
            frame = due(&mut repeated) => wire.write(frame).await?,
        }
    }
}

/// Waits until the repeated frame is due; for ever if there is none.
async fn due(repeated: &mut Option<(Interval, Vec<u8>)>) -> &[u8] {
    match repeated {
        Some((interval, frame)) => {
            interval.tick().await;
            frame
        }
        None => pending().await,
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Server> {
    shared.lock().expect("never poisoned: no panic while held")
}
