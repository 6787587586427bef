//! Clients without sockets: what one costs in memory, and whether many slow the others down.

use std::io;
use std::rc::Rc;

use crate::args::Args;
use crate::http::Wire;
use crate::meter::resident;

use super::get;

/// Connections over which the clients ask for the first time.
const CONNECTIONS: usize = 32;

/// Lets `--clients` of them ask once, then measures GETs of all of them in turn.
pub async fn run(args: &Args) -> io::Result<()> {
    tokio::task::LocalSet::new().run_until(measured(args)).await
}

async fn measured(args: &Args) -> io::Result<()> {
    let clients: usize = args.number("clients", 10)?;
    let (target, pids) = (args.target()?, args.pids());
    // Ids as long as the page's own.
    let requests = Rc::new(get::requests((0..clients).map(|it| format!("{it:032x}"))));
    let mut wires = Vec::new();
    for number in 0..CONNECTIONS {
        let mut wire = Wire::connect(target).await?;
        wire.ask(&get::requests([format!("first.{number}")].into_iter())[0]).await?;
        wires.push(wire);
    }
    let before = resident(&pids)?;
    let ask_once = wires.into_iter().enumerate().map(|(number, mut wire)| {
        let requests = Rc::clone(&requests);
        tokio::task::spawn_local(async move {
            for request in requests.iter().skip(number).step_by(CONNECTIONS) {
                wire.ask(request).await?;
            }
            Ok::<_, io::Error>(())
        })
    });
    for asking in ask_once.collect::<Vec<_>>() {
        asking.await.map_err(io::Error::other)??;
    }
    println!("kib={}", (resident(&pids)? - before) / clients as f64);
    get::measured(args, requests).await
}
