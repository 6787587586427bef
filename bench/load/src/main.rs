//! The load of `make bench`, and the cheap backends behind the proxies that it compares.
//!
//! `mooring-load backend` plays two ComfyUI servers that cost next to nothing, until its standard
//! input closes. `mooring-load ROW …` does one row's work against one proxy, reads the proxy's CPU
//! and memory from `/proc` at both ends of the measured time, prints `name=value` lines, and ends.
//! `bench/run` starts both and pins them.

mod args;
mod backend;
mod http;
mod meter;
mod rows;
mod say;
mod tls;
mod ws;

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(run()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mooring-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> std::io::Result<()> {
    let args = args::Args::parse(std::env::args().skip(1))?;
    match args.verb.as_str() {
        "backend" => backend::run(args.number("listeners", 2)?).await,
        "get" => rows::get::run(&args).await,
        "events" => rows::events::run(&args).await,
        "download" => rows::bodies::download(&args).await,
        "upload" => rows::bodies::upload(&args).await,
        "idle" => rows::idle::run(&args).await,
        "bind" => rows::bind::run(&args).await,
        "cycle" => rows::cycle::run(&args).await,
        other => Err(args::wrong(format!("no row `{other}`"))),
    }
}
