//! How does the process run? Log, threads, and the exit code of what runs on them.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;

use tracing::error;

use super::args::{DemoArgs, ServeArgs, SimArgs};
use super::{EXIT_CONFIG, EXIT_FAILURE, load, say};
use crate::config::{Config, LogConfig, LogFormat};
use crate::net::Tcp;
use crate::tasks::Tasks;
use crate::{run, telemetry};

/// `mooring serve`.
pub(super) fn serve(args: ServeArgs) -> ExitCode {
    match load(args.config, args.overrides) {
        Ok(config) => start(config),
        Err(problems) => {
            say::note(&problems.to_string());
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// Runs the gateway until it is told to stop.
fn start(config: Config) -> ExitCode {
    let (log, workers) = (config.log.clone(), config.server.workers);
    on_threads(&log, workers, gateway(config))
}

/// `mooring demo`.
pub(super) fn demo(args: DemoArgs) -> ExitCode {
    on_threads(&default_log(), 0, demo_gateway(args))
}

/// `mooring sim`.
pub(super) fn sim(args: SimArgs) -> ExitCode {
    on_threads(&default_log(), 1, simulated_server(args))
}

fn default_log() -> LogConfig {
    LogConfig { format: LogFormat::Text, level: "info".to_owned() }
}

/// Sets up log and threads (0 is one for each core), and runs `task` to its end.
fn on_threads(log: &LogConfig, workers: usize, task: impl Future<Output = ExitCode>) -> ExitCode {
    if let Err(error) = telemetry::init(log) {
        say::note(&format!("mooring: {error}"));
        return ExitCode::from(EXIT_CONFIG);
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if 0 < workers {
        builder.worker_threads(workers);
    }
    match builder.thread_name("mooring").enable_all().build() {
        Ok(runtime) => runtime.block_on(task),
        Err(error) => say::failure(&format!("cannot start its threads: {error}")),
    }
}

async fn gateway(config: Config) -> ExitCode {
    match run::run(config, Arc::new(Tcp), Tasks::default(), None).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "Gateway failed.");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

async fn demo_gateway(_args: DemoArgs) -> ExitCode {
    say::failure("the demo is not part of this build")
}

async fn simulated_server(_args: SimArgs) -> ExitCode {
    say::failure("the simulated server is not part of this build")
}
