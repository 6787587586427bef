//! Small GETs on connections that stay: as fast as answers come, or at a rate.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::interval_at;

use crate::args::Args;
use crate::http::{Wire, request};
use crate::meter::{Meter, spawn};
use crate::tls::Tls;

/// `--connections`, and `--rate` a second over all of them (0: no limit); `--tls FILE` with TLS,
/// and `--line LINE` with one header more.
pub async fn run(args: &Args) -> io::Result<()> {
    let clients = (0..args.number("connections", 32)?).map(|it| format!("get.{it}"));
    let mut requests = requests(clients);
    if let Some(line) = args.text("line") {
        requests.iter_mut().for_each(|request| add_line(request, line));
    }
    tokio::task::LocalSet::new().run_until(measured(args, Rc::new(requests))).await
}

/// Adds a header to a request without a body.
fn add_line(request: &mut Vec<u8>, line: &str) {
    request.truncate(request.len() - 2);
    request.extend_from_slice(line.as_bytes());
    request.extend_from_slice(b"\r\n\r\n");
}

/// Requests of clients, made beforehand.
pub fn requests(clients: impl Iterator<Item = String>) -> Vec<Vec<u8>> {
    let target = |client| format!("/system_stats?clientId={client}");
    clients.map(|client| request("GET", &target(client), "", b"")).collect()
}

/// Sends the requests in turn over all connections, and measures. Runs in a `LocalSet`.
pub async fn measured(args: &Args, requests: Rc<Vec<Vec<u8>>>) -> io::Result<()> {
    let target = args.target()?;
    let connections: u32 = args.number("connections", 32)?;
    let rate: u32 = args.number("rate", 0)?;
    let (meter, turn) = (Meter::default(), Rc::new(Cell::new(0)));
    let tls = Rc::new(Tls::of(args)?);
    for number in 0..connections {
        let pace = (rate != 0).then(|| {
            let every = Duration::from_secs(1) * connections / rate;
            (every, every * number / connections)
        });
        let pool = (Rc::clone(&requests), Rc::clone(&turn));
        spawn(ask((target, Rc::clone(&tls)), pool, pace, meter.clone()));
    }
    meter.run(args).await
}

type Pool = (Rc<Vec<Vec<u8>>>, Rc<Cell<usize>>);

async fn ask(
    (target, tls): (SocketAddr, Rc<Option<Tls>>),
    (requests, turn): Pool,
    pace: Option<(Duration, Duration)>,
    meter: Meter,
) -> io::Result<()> {
    let mut wire = Wire::connect_with(target, Option::as_ref(&tls)).await?;
    let mut pace =
        pace.map(|(every, phase)| interval_at(tokio::time::Instant::now() + phase, every));
    loop {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let next = turn.get();
        // A step that is prime to most counts, so that neighbours are not asked for in order.
        turn.set((next + 7919) % requests.len());
        let began = Instant::now();
        wire.ask(&requests[next]).await?;
        meter.took(began.elapsed());
    }
}
