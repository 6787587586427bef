//! Is the configuration in order? And, if asked, are the backends?

use std::process::ExitCode;

use super::args::CheckArgs;
use super::{EXIT_CONFIG, EXIT_FAILURE, block_on, load, probe, say};
use crate::config::Config;
use crate::net::Tcp;

/// `mooring check [FILE] [--probe]`.
pub(super) fn check(args: CheckArgs) -> ExitCode {
    let CheckArgs { file, probe, overrides } = args;
    match load(file, overrides) {
        Ok(config) => {
            say::line(&summary(&config));
            if probe { block_on(ask_backends(&config)) } else { ExitCode::SUCCESS }
        }
        Err(problems) => {
            say::note(&problems.to_string());
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn summary(config: &Config) -> String {
    let backends = match config.backends.len() {
        1 => "1 backend".to_owned(),
        count => format!("{count} backends"),
    };
    let clients = config.server.listen;
    let operators =
        config.admin.listen.map_or_else(|| "off".to_owned(), |listen| format!("on {listen}"));
    format!("in order: {backends}, clients on {clients}, operators {operators}")
}

async fn ask_backends(config: &Config) -> ExitCode {
    let probes = probe::all(&Tcp, &config.backends).await;
    for line in probe::report(&probes) {
        say::line(&line);
    }
    let is_good = probes.iter().all(probe::Probe::is_usable);
    if is_good { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}
