//! A read of one client, over fleets of 1 to 1,000 backends: it concerns one of them, so it must
//! cost the same.
//!
//! `read_backends_N` is all of it: a kept connection, bytes passed on, the client's binding, a kept
//! connection to its backend and back. The backends are one listener at many addresses of
//! 127.0.0.0/8, nothing else runs, and the system's own instructions are not counted.
//! `route_backends_N` is the part that decides where it goes.

use std::io;
use std::sync::Arc;

use mooring::config::Config;
use mooring::front::{Front, FrontService};
use mooring::journal::Journal;
use mooring::net::{Network as _, Stream, Tcp, now};
use mooring::routing::ids::ClientId;
use mooring::server::door::Door;
use mooring::server::{ConnectionLimits, accept};
use mooring::session::Sessions;
use mooring::session::registry::with_client;
use mooring::shared::Shared;
use mooring::tasks::Tasks;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Builder;

const REQUEST: &[u8] = b"GET /system_stats?clientId=ada HTTP/1.1\r\nHost: localhost\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";

/// Reads over so many backends, one after the other.
pub(crate) fn read(backends: usize, count: usize) {
    run(async {
        let sessions = sessions(backends).await?;
        let shared = Arc::clone(&sessions.shared);
        let listener = Tcp.listen(([127, 0, 0, 1], 0).into()).await?;
        let address = listener.local_addr();
        let front = FrontService(Front::new(sessions, None));
        let (door, _mover) = Door::new(Some(Arc::from(listener)));
        let asked = Arc::clone(&shared);
        let limits = move || ConnectionLimits::of(&asked.config().server);
        shared.tasks.spawn(accept("front listener", door, front, limits, shared.tasks.clone()));
        let mut client = Tcp.connect(&address.ip().to_string(), address.port()).await?;
        let mut answer = [0; 1024];
        for _ in 0..count {
            client.write_all(REQUEST).await?;
            let mut read = 0;
            // It is short and its body is its last two bytes.
            while !answer[..read].ends_with(b"\r\n\r\nok") {
                read += match client.read(&mut answer[read..]).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => count,
                };
            }
            assert!(answer.starts_with(b"HTTP/1.1 200"), "it is answered by its backend");
        }
        Ok(())
    });
}

/// Where a read of a client goes that is bound.
pub(crate) fn route(backends: usize, count: usize) {
    run(async {
        let sessions = sessions(backends).await?;
        let id = ClientId::parse("ada").map_err(io::Error::other)?;
        let contact = || {
            let contacted = with_client(&sessions, &id, |client| client.contact(&sessions, now()));
            assert!(contacted.is_ok_and(|(_, decided)| decided.is_ok()), "it has a backend");
        };
        for _ in 0..count {
            contact();
        }
        Ok(())
    });
}

/// Clients over so many backends that are up. Nothing is started: nothing asks them, and nothing is
/// swept.
async fn sessions(backends: usize) -> io::Result<Arc<Sessions>> {
    let tasks = Tasks::default();
    let listener = Tcp.listen(([0, 0, 0, 0], 0).into()).await?;
    let port = listener.local_addr().port();
    let answering = tasks.clone();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            answering.spawn(answer(stream));
        }
    });
    let named: Vec<(String, String)> = (0..backends)
        .map(|id| {
            let url = format!("http://127.1.{}.{}:{port}", id / 250, id % 250 + 1);
            (format!("gpu-{id:04}"), url)
        })
        .collect();
    let named: Vec<(&str, &str)> = named.iter().map(|(name, url)| (&**name, &**url)).collect();
    let config = Config::for_backends(&named)
        .map_err(|problems| io::Error::other(format!("{problems:?}")))?;
    let rise = config.fleet.rise.get();
    let shared = Shared::new(config, Arc::new(Tcp), tasks, Journal::in_memory());
    for backend in shared.fleet.iter() {
        (0..rise).for_each(|_| backend.passed());
    }
    Ok(Sessions::new(shared))
}

/// Answers each request on a connection.
async fn answer(mut stream: Stream) {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut piece).await {
        head.extend_from_slice(&piece[..count]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

fn run(reading: impl Future<Output = io::Result<()>>) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let done = runtime.and_then(|runtime| runtime.block_on(reading));
    assert!(done.is_ok(), "{done:?}");
}
