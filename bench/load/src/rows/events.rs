//! Sockets that get events, alone or with small GETs between.

use std::io;
use std::rc::Rc;

use crate::args::Args;
use crate::http::{Wire, request};
use crate::meter::{Meter, spawn};
use crate::{say, ws};

use super::{get, prompt_id};

/// `--sockets`, each with `--events` of `--size` bytes a second; with `--rate` what is measured
/// are that many GETs a second in between.
pub async fn run(args: &Args) -> io::Result<()> {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let events = Meter::default();
            listen(args, &events).await?;
            if args.number("rate", 0)? == 0 {
                return events.run(args).await;
            }
            let clients = (0..args.number("connections", 32)?).map(|it| format!("get.{it}"));
            let outcome = get::measured(args, Rc::new(get::requests(clients))).await;
            println!("events={}", events.units());
            outcome
        })
        .await
}

async fn listen(args: &Args, meter: &Meter) -> io::Result<()> {
    let target = args.target()?;
    let size: usize = args.number("size", 300)?;
    let rate: u32 = args.number("events", 200)?;
    let mut submits = Wire::connect(target).await?;
    for number in 0..args.number("sockets", 50)? {
        let client = format!("load.{size}.{rate}.{number}");
        let wire = ws::open(target, &client).await?;
        spawn(count(wire, size, meter.clone()));
        submit(&mut submits, &client).await?;
    }
    Ok(())
}

async fn submit(wire: &mut Wire, client: &str) -> io::Result<()> {
    let body = say::submission(client, &prompt_id());
    let target = format!("/prompt?clientId={client}");
    wire.ask(&request("POST", &target, "application/json", body.as_bytes())).await.map(|_| ())
}

async fn count(mut wire: Wire, size: usize, meter: Meter) -> io::Result<()> {
    let mut counter = ws::Counter::new(size);
    wire.drain(|bytes| meter.add(counter.count(bytes))).await?;
    Err(io::Error::other("a socket with events was closed"))
}
