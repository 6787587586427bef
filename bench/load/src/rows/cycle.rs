//! Whole cycles: a new client opens a socket, submits, waits for the end, reads the history,
//! leaves.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use crate::args::Args;
use crate::http::{Wire, request};
use crate::meter::{Meter, spawn};
use crate::{say, ws};

use super::prompt_id;

/// `--connections` cycles at a time.
pub async fn run(args: &Args) -> io::Result<()> {
    let local = tokio::task::LocalSet::new();
    let (target, meter) = (args.target()?, Meter::default());
    let turn = Rc::new(Cell::new(0));
    local
        .run_until(async {
            for _ in 0..args.number("connections", 16)? {
                spawn(cycles(target, Rc::clone(&turn), meter.clone()));
            }
            meter.run(args).await
        })
        .await
}

async fn cycles(target: SocketAddr, turn: Rc<Cell<u64>>, meter: Meter) -> io::Result<()> {
    let mut wire = Wire::connect(target).await?;
    loop {
        let began = Instant::now();
        turn.set(turn.get() + 1);
        cycle(target, &mut wire, &format!("life.{:027x}", turn.get())).await?;
        meter.took(began.elapsed());
    }
}

async fn cycle(target: SocketAddr, wire: &mut Wire, client: &str) -> io::Result<()> {
    let mut socket = ws::open(target, client).await?;
    let prompt = prompt_id();
    let body = say::submission(client, &prompt);
    let kind = "application/json";
    let path = format!("/prompt?clientId={client}");
    wire.ask(&request("POST", &path, kind, body.as_bytes())).await?;
    ws::wait_for(&mut socket, "\"execution_success\"").await?;
    ws::wait_for(&mut socket, "\"node\": null").await?;
    let path = format!("/history/{prompt}?clientId={client}");
    let history = wire.ask(&request("GET", &path, "", b"")).await?;
    if !ws::contains(&history, &prompt) {
        return Err(io::Error::other("the history does not have a prompt that has ended"));
    }
    socket.write(&ws::from_client(ws::CLOSE, &1000_u16.to_be_bytes())).await?;
    while ws::next(&mut socket).await?.is_some() {}
    Ok(())
}
