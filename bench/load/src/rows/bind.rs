//! Clients without sockets: what one costs in memory, and whether many slow the others down.

use std::io;
use std::rc::Rc;

use crate::args::Args;
use crate::http::Wire;
use crate::meter::resident;

use super::get;

/// Lets `--clients` of them ask once, then measures GETs of all of them in turn.
pub async fn run(args: &Args) -> io::Result<()> {
    let clients: usize = args.number("clients", 10)?;
    let pids = args.pids();
    // Ids as long as the page's own.
    let requests = get::requests((0..clients).map(|it| format!("{it:032x}")));
    let mut wire = Wire::connect(args.target()?).await?;
    wire.ask(&get::requests(["first".to_owned()].into_iter())[0]).await?;
    let before = resident(&pids)?;
    for request in &requests {
        wire.ask(request).await?;
    }
    println!("kib={}", (resident(&pids)? - before) / clients as f64);
    get::start(args, Rc::new(requests)).await
}
