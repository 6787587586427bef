//! Checks the configuration and, if requested, the backends.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::CheckArgs;
use super::home::{HomeAnswer, Kept};
use super::{EXIT_CONFIG, EXIT_FAILURE, block_on, probe, say, sources};
use crate::config::{self, Checked, Config, Problem, Problems};
use crate::net::Tcp;

/// `mooring check [PATH | --config PATH] [--probe] [--json]`.
pub(super) fn check(args: CheckArgs) -> ExitCode {
    let CheckArgs { file, config, probe, json, overrides } = args;
    let sources = sources(file.or(config), overrides, std::env::vars_os());
    let Checked { config, warnings, files: _ } = config::check(&sources);
    if json {
        return as_json(config, &warnings, probe.then_some(&Tcp));
    }
    for warning in &warnings {
        say::note(&format!("warning: {warning}"));
    }
    match config {
        Ok(config) => {
            say::line(&summary(&config));
            if 1 < config.backends.len() {
                say::line(&HomeAnswer::of(&config).line());
                say::line(&Kept::of(&config).line());
            }
            if probe { block_on(ask_backends(&config)) } else { ExitCode::SUCCESS }
        }
        Err(problems) => {
            say::note(&problems.to_string());
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// The same as JSON. Without `network` no backend is asked.
fn as_json(
    config: Result<Config, Problems>,
    warnings: &[Problem],
    network: Option<&Tcp>,
) -> ExitCode {
    let listed = |problems: &[Problem]| problems.iter().map(Problem::to_json).collect::<Value>();
    let (config, problems) = match config {
        Ok(config) => (Some(config), Vec::new()),
        Err(Problems(problems)) => (None, problems),
    };
    let mut told = json!({
        "ok": config.is_some(),
        "problems": listed(&problems),
        "warnings": listed(warnings),
    });
    let Some(config) = config else {
        say::line(&super::config::pretty(&told));
        return ExitCode::from(EXIT_CONFIG);
    };
    told["home"] = HomeAnswer::of(&config).to_json();
    told["copies"] = Kept::of(&config).to_json();
    let Some(network) = network else {
        say::line(&super::config::pretty(&told));
        return ExitCode::SUCCESS;
    };
    let ask = async {
        let probes = probe::all(network, &config.backends).await;
        let are_good = probes.iter().all(probe::Probe::is_usable);
        told["ok"] = are_good.into();
        told["probe"] = probe::report(&probes).into();
        say::line(&super::config::pretty(&told));
        if are_good { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
    };
    block_on(ask)
}

fn summary(config: &Config) -> String {
    let backends = match config.backends.len() {
        1 => "1 backend".to_owned(),
        count => format!("{count} backends"),
    };
    let places = match config.discovery.len() {
        0 => String::new(),
        1 => " and 1 discovery".to_owned(),
        count => format!(" and {count} discoveries"),
    };
    let clients = config.server.listen;
    let operators =
        config.admin.listen.map_or_else(|| "off".to_owned(), |listen| format!("on {listen}"));
    format!("in order: {backends}{places}, clients on {clients}, operators {operators}")
}

async fn ask_backends(config: &Config) -> ExitCode {
    let probes = probe::all(&Tcp, &config.backends).await;
    for line in probe::report(&probes) {
        say::line(&line);
    }
    let is_good = probes.iter().all(probe::Probe::is_usable);
    if is_good { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) }
}
