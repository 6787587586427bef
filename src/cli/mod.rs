//! The verbs of the command line, and the exit codes of the process.
//!
//! The exit codes: 0 for success, 1 for a failure, 2 for wrong usage (from clap), 78 for a wrong
//! configuration. Answers go to standard output, everything else to standard error.

mod admin;
mod answer;
pub mod args;
mod ask;
mod check;
mod config;
mod doctor;
mod explain_graph;
mod find;
mod fit;
mod fleet;
mod generated;
mod home;
mod inventory;
mod password;
mod probe;
mod queue;
mod replicas;
mod say;
mod serve;
mod status;
mod table;
mod top;
mod users;

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::config::Sources;

use args::{Cli, Overrides, Verb};

/// The process has failed.
const EXIT_FAILURE: u8 = 1;

/// Wrong usage that clap cannot see.
const EXIT_USAGE: u8 = 2;

/// `EX_CONFIG` of sysexits.h: the operator made a mistake, and a restart will not help.
const EXIT_CONFIG: u8 = 78;

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => say::finished(run(cli)),
        Err(error) => {
            // Help goes to standard output, and usage errors to standard error.
            match error.print() {
                Err(lost) if !error.use_stderr() => say::lose(&lost),
                Ok(()) | Err(_) => {}
            }
            let code = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
            say::finished(code)
        }
    }
}

fn run(cli: Cli) -> ExitCode {
    match cli.verb {
        Verb::Serve(args) => serve::serve(args),
        Verb::Check(args) => check::check(args),
        Verb::Config(args) => config::config(args),
        Verb::Demo(args) => serve::demo(args),
        Verb::Sim(args) => serve::sim(args),
        Verb::Status(args) => block_on(status::status(&args)),
        Verb::Top(args) => block_on(top::top(&args)),
        Verb::Clients(args) => block_on(admin::clients(&args)),
        Verb::Release(args) => block_on(admin::release(&args)),
        Verb::Backends(args) => block_on(admin::backends(&args)),
        Verb::Drain(args) => block_on(fleet::drain(&args)),
        Verb::Queue(args) => block_on(queue::queue(&args)),
        Verb::Explain(args) => block_on(admin::explain(&args)),
        Verb::Users(args) => users::users(args.verb),
        Verb::Replicas(args) => block_on(replicas::replicas(args.verb)),
        Verb::Reload(args) => block_on(admin::reload(&args)),
        Verb::Healthcheck(args) => block_on(admin::healthcheck(&args)),
        Verb::Doctor(args) => block_on(doctor::doctor(&args)),
        Verb::Completions(args) => generated::completions(&args),
        Verb::Man(args) => generated::man(&args),
    }
}

/// Runs a verb to its end. One thread is enough, because it only waits.
fn block_on(verb: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(verb),
        Err(error) => say::failure(&format!("cannot start: {error}")),
    }
}

/// Where the configuration comes from: a file, the environment of the process, and flags.
fn sources(
    file: Option<PathBuf>,
    overrides: Overrides,
    env: impl Iterator<Item = (OsString, OsString)>,
) -> Sources {
    let Overrides { backends, listen, admin_listen, auth, workers, set } = overrides;
    let named = [
        ("--listen", listen),
        ("--admin-listen", admin_listen),
        ("--auth", auth),
        ("--workers", workers),
    ];
    let named = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let flags = named.chain(set).collect();
    // A value that is not UTF-8 is never valid. It is kept in readable form for the report.
    let env: Vec<(String, String)> = env
        .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()))
        .collect();
    let variable = env.iter().find(|(name, _)| name == "MOORING_CONFIG");
    let file = crate::config::find(file, variable.map(|(_, path)| PathBuf::from(path)));
    Sources { file, env, backends, flags }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_variables_become_sources() {
        let overrides = Overrides {
            backends: vec!["http://a:1".into()],
            listen: Some("127.0.0.1:0".into()),
            admin_listen: None,
            auth: Some("off".into()),
            workers: Some("2".into()),
            set: vec![("affinity.lease".into(), "1h".into())],
        };
        let env = [(OsString::from("MOORING_CONFIG"), OsString::from("/x.toml"))];
        let found = sources(None, overrides, env.into_iter());
        assert_eq!(found.file, Some(PathBuf::from("/x.toml")));
        assert_eq!(found.backends, ["http://a:1"]);
        let flags: Vec<_> = found.flags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            flags,
            ["--listen=127.0.0.1:0", "--auth=off", "--workers=2", "affinity.lease=1h"]
        );
    }

    #[test]
    fn the_flag_goes_over_the_variable() {
        let env = [(OsString::from("MOORING_CONFIG"), OsString::from("/x.toml"))];
        let found = sources(Some("/y.toml".into()), Overrides::default(), env.into_iter());
        assert_eq!(found.file, Some(PathBuf::from("/y.toml")));
    }
}
