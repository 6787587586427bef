//! Sockets on which nothing happens: what one costs in memory.

use std::io;
use std::time::Instant;

use crate::args::Args;
use crate::meter::{Meter, resident, spawn};
use crate::ws;

/// Opens `--first` sockets that nobody counts, then `--sockets` more; memory per socket, and how
/// many are still open after the measured time.
pub async fn run(args: &Args) -> io::Result<()> {
    tokio::task::LocalSet::new().run_until(measured(args)).await
}

async fn measured(args: &Args) -> io::Result<()> {
    let (target, pids) = (args.target()?, args.pids());
    let first: u32 = args.number("first", 50)?;
    let sockets: u32 = args.number("sockets", 1000)?;
    let closed = Meter::default();
    let mut before = 0.0;
    let mut began = Instant::now();
    for number in 0..first + sockets {
        if number == first {
            tokio::time::sleep(args.warm()?).await;
            before = resident(&pids)?;
            began = Instant::now();
        }
        let mut wire = ws::open(target, &format!("idle.{number}")).await?;
        let closed = closed.clone();
        spawn(async move {
            while let Ok(Some(frame)) = ws::next(&mut wire).await {
                if frame.opcode == ws::PING {
                    wire.write(&ws::from_client(ws::PONG, &frame.payload)).await?;
                }
            }
            closed.add(1);
            Ok(())
        });
    }
    let opened = began.elapsed().as_secs_f64();
    tokio::time::sleep(args.seconds()?).await;
    println!("kib={}", (resident(&pids)? - before) / f64::from(sockets));
    println!("opened_per_second={}", f64::from(sockets) / opened);
    println!("open={}", u64::from(first + sockets) - closed.units());
    Ok(())
}
