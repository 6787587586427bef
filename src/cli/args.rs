//! The verbs and flags of the command line, as typed.

mod config;
mod doctor;
mod explain;
mod fleet;
mod generated;
mod output;
mod queue;
mod replicas;
mod users;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub use config::{ConfigArgs, ConfigVerb, InitArgs, SchemaArgs, ShowArgs};
pub use doctor::{DoctorArgs, PageUrl};
pub use explain::{About, ExplainArgs};
pub use fleet::{
    AddBackendArgs, BackendState, BackendsArgs, BackendsVerb, DrainArgs, RemoveBackendArgs,
};
pub use generated::{CompletionsArgs, ManArgs};
pub use output::{Form, Output};
pub use queue::{OnePromptArgs, QueueArgs, QueueVerb};
pub use replicas::{ImportArgs, InitStoreArgs, ReplicasArgs, ReplicasVerb, StoreConfig};
pub use users::{AddUserArgs, ListUsersArgs, UserArgs, UsersArgs, UsersFile, UsersVerb};

use crate::config::url::{self, ServerUrl};
use crate::sim;

/// A sticky gateway that makes many ComfyUI servers look like one.
#[derive(Debug, Parser)]
#[command(
    name = "mooring",
    version,
    after_help = "Examples:\n  mooring demo\n  mooring serve --backend http://gpu-a:8188 --backend \
                  http://gpu-b:8188\n\nExit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong \
                  configuration."
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the gateway
    Serve(ServeArgs),
    /// Check a configuration and report everything that is wrong with it
    Check(CheckArgs),
    /// Show the configuration in effect, its JSON Schema, or a file to start from
    Config(ConfigArgs),
    /// Run three simulated backends with the gateway in front of them, and a demo page
    Demo(DemoArgs),
    /// Run one simulated ComfyUI server
    Sim(SimArgs),
    /// Show whether the gateway is ready, its backends and its clients
    Status(StatusArgs),
    /// Watch the fleet, its clients and prompts in the terminal, and act on them
    Top(TopArgs),
    /// List the clients, or show one of them
    Clients(ClientsArgs),
    /// Release a client from its backend
    Release(ReleaseArgs),
    /// List the backends, show one, set it to ready, draining or off, add or remove one
    Backends(Box<BackendsArgs>),
    /// Drain a backend and wait until it is drained
    Drain(DrainArgs),
    /// List the prompts that wait in the gateway, move one to the front or cancel one
    Queue(QueueArgs),
    /// Explain why a client or a prompt is where it is
    Explain(ExplainArgs),
    /// Add, list and remove users, and change their keys
    Users(UsersArgs),
    /// Prepare the database that keeps the state, or fill it from a journal file
    Replicas(ReplicasArgs),
    /// Make the gateway read its configuration again
    Reload(ReloadArgs),
    /// Exit with 0 if the gateway is ready, and with 1 if not
    Healthcheck(HealthcheckArgs),
    /// Say what is wrong between a browser and the gateway, with the fix
    Doctor(DoctorArgs),
    /// Print a script that completes commands in a shell
    Completions(CompletionsArgs),
    /// Write the manual pages, or print one
    Man(ManArgs),
}

/// The sources of the configuration; the same for `serve`, `check` and `config show`.
#[derive(Args, Debug, Default)]
pub struct Overrides {
    /// A backend in addition to those in the file, named gpu-1, gpu-2, …; repeat for more
    #[arg(long = "backend", value_name = "URL")]
    pub backends: Vec<String>,
    /// The address for clients, as IP:PORT, localhost:PORT or :PORT (all IPv4 addresses)
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// The address for operators, in the same forms, or `off`
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// Who may connect as a client: `off` (everybody), `keys` (the users of auth.users_file),
    /// `header` or `jwt`; required if the gateway listens beyond loopback
    #[arg(long, value_name = "MODE")]
    pub auth: Option<String>,
    /// Number of worker threads; 0 means one for each core
    #[arg(long, value_name = "COUNT")]
    pub workers: Option<String>,
    /// Any key of the configuration; repeat for more
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mooring serve --backend http://gpu-a:8188 --listen 0.0.0.0:8180 \
                  --auth off\n  mooring serve --config /etc/mooring/mooring.toml --set \
                  affinity.lease=30m"
)]
pub struct ServeArgs {
    /// The file, or a folder of *.toml; default: $MOORING_CONFIG, ./mooring.toml,
    /// /etc/mooring/mooring.toml
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Reload the configuration whenever its file changes, or a file that it names
    #[arg(long)]
    pub watch: bool,
    #[command(flatten)]
    pub overrides: Overrides,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mooring check /etc/mooring/mooring.toml\n  mooring check \
                  mooring.toml --probe\n  mooring check /etc/mooring/conf.d --json\n\n\
                  The environment (MOORING_SECTION__KEY) is checked with \
                  the file, as `serve` would read both.")]
pub struct CheckArgs {
    /// The file, or a folder of *.toml; default: what `serve` would read
    #[arg(value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// The same, in the form that `serve` takes
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    pub config: Option<PathBuf>,
    /// Print the result as JSON, including problems
    #[arg(long)]
    pub json: bool,
    /// Also ask each backend: does it answer, which version, which nodes and models
    #[arg(long)]
    pub probe: bool,
    #[command(flatten)]
    pub overrides: Overrides,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  mooring demo --listen 127.0.0.1:9000")]
pub struct DemoArgs {
    /// Serve the files of the official frontend from this folder instead of the demo page
    #[arg(long, value_name = "DIR")]
    pub frontend: Option<PathBuf>,
    /// The address for clients
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8180")]
    pub listen: SocketAddr,
    /// The address for operators
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8181")]
    pub admin_listen: SocketAddr,
    /// `off` lets everybody in; required beyond loopback, because the demo has no users
    #[arg(long, value_name = "MODE")]
    pub auth: Option<String>,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  mooring sim --port 8188 --name gpu-a --comfyui 0.8")]
pub struct SimArgs {
    /// The port to listen on; 0 asks the system for a free one
    #[arg(long)]
    pub port: u16,
    /// The name of the server, which its pictures show
    #[arg(long, default_value = "sim")]
    pub name: String,
    /// The address to listen on
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub listen_host: IpAddr,
    /// Serve the files of the official frontend from this folder
    #[arg(long, value_name = "DIR")]
    pub frontend: Option<PathBuf>,
    /// The version of ComfyUI to imitate: 0.33, 0.8 or 0.3.64, or one between them
    #[arg(
        long,
        visible_alias = "version",
        value_name = "VERSION",
        default_value = sim::VERSION,
        value_parser = sim::full_version
    )]
    pub comfyui: String,
    /// Turn assets on, like ComfyUI's own option (0.33)
    #[arg(long)]
    pub enable_assets: bool,
    /// Separate the users, like ComfyUI's own option
    #[arg(long)]
    pub multi_user: bool,
    /// Compress JSON and text, like ComfyUI's own option
    #[arg(long)]
    pub enable_compress_response_body: bool,
    /// Refuse requests without this token: `Authorization: Bearer TOKEN` or `?token=TOKEN`
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// How many times faster than a real server it is, from 0.01 to 1000
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = speed)]
    pub speed: f64,
}

/// How to find the running gateway.
#[derive(Args, Debug)]
pub struct AdminArgs {
    /// The admin listener of the gateway; default: the one in the configuration of `serve`
    #[arg(long, value_name = "URL", env = "MOORING_ADMIN_URL", value_parser = admin_url)]
    pub admin: Option<ServerUrl>,
    /// For https: a file with certificates of authorities; default: only the certificate that the
    /// configuration names is accepted
    #[arg(long, value_name = "FILE", env = "MOORING_ADMIN_CA")]
    pub admin_ca: Option<PathBuf>,
    /// For https: a client certificate, if the listener requires one
    #[arg(long, value_name = "FILE", env = "MOORING_ADMIN_CERT", requires = "admin_key")]
    pub admin_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", env = "MOORING_ADMIN_KEY", requires = "admin_cert")]
    pub admin_key: Option<PathBuf>,
    /// The gateway's configuration; default: the one that `serve` would read, if there is one
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// The token of the admin listener, if it has one; default: that of the configuration
    // Kept as text: the parser's error message would show a refused value.
    #[arg(long, env = "MOORING_ADMIN__TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Print the answer unchanged, as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mooring status --admin http://127.0.0.1:8181\n  mooring \
                        status --watch=5s\n  mooring status -o name\n\nCtrl-C ends --watch. On \
                        a terminal it redraws the screen; with `-o json` it prints each answer \
                        on a line.")]
pub struct StatusArgs {
    /// Show it again and again, with this pause; 2s if none is given
    #[arg(long, value_name = "PAUSE", num_args = 0..=1, require_equals = true,
          default_missing_value = "2s", value_parser = output::pause)]
    pub watch: Option<Duration>,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  mooring top\n\nKeys: q leaves; Tab or 1, 2, 3 shows the fleet, \
                        the clients or the prompts; arrows choose a row; s sorts by the next \
                        column; / filters. On the fleet d drains, r makes ready, o turns off; on \
                        prompts c cancels. Each asks first."
)]
pub struct TopArgs {
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mooring clients\n  mooring clients -o wide\n  mooring clients \
                  5f2c1f0a9d5e4c0f8a7b6c5d4e3f2a1b"
)]
pub struct ClientsArgs {
    /// The client to show
    pub id: Option<String>,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  mooring release 5f2c1f0a9d5e4c0f8a7b6c5d4e3f2a1b --force\n\nWithout \
                  --force it is refused while the client has pending prompts. With it they are \
                  deleted or interrupted, and end as lost."
)]
pub struct ReleaseArgs {
    /// The client to release
    pub id: String,
    /// Release it even with pending prompts, which are lost
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  HEALTHCHECK CMD [\"/mooring\", \"healthcheck\"]")]
pub struct HealthcheckArgs {
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  mooring reload\n\nA configuration with a problem changes \
                        nothing: the problems are printed as by `mooring check`, and the exit \
                        code is 78. SIGHUP does the same, with the problems in the log.")]
pub struct ReloadArgs {
    #[command(flatten)]
    pub admin: AdminArgs,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| "write SECTION.KEY=VALUE".to_owned())
}

fn admin_url(text: &str) -> Result<ServerUrl, String> {
    url::backend(text).map_err(|bad| bad.to_string())
}

fn speed(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|speed| (0.01..=1_000.0).contains(speed))
        .ok_or_else(|| "expected a number from 0.01 to 1000".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_verb_has_an_example() {
        Cli::command().debug_assert();
        let cli = Cli::command();
        let with_its_own = |verb| [verb].into_iter().chain(clap::Command::get_subcommands(verb));
        for verb in cli.get_subcommands().flat_map(with_its_own) {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example"), "{} has no example", verb.get_name());
        }
    }

    /// The start of the error for a command line that is refused. Empty if it is accepted.
    fn report(line: &str) -> String {
        match Cli::try_parse_from(line.split_whitespace()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(report("mooring backends gpu-a draining --force"), "");
        assert_eq!(report("mooring explain --client a"), "");
        assert_eq!(report("mooring backends gpu-a"), "");
        assert!(report("mooring backends gpu-a asleep").contains("invalid value 'asleep'"));
        assert!(report("mooring explain").contains("not provided"));
        assert!(report("mooring explain --client a --prompt b").contains("cannot be used with"));
        assert!(report("mooring serve --set workers").contains("write SECTION.KEY=VALUE"));
        assert!(report("mooring status --admin ftp://x").contains("only `http://`"));
        assert!(report("mooring sim --port 1 --speed 0").contains("from 0.01 to 1000"));
        assert_eq!(report("mooring status --watch"), "");
        assert_eq!(report("mooring status --watch=500ms -o wide"), "");
        assert!(report("mooring status --watch=1ms").contains("from 200ms to 1h"));
        assert!(report("mooring clients -o json --json").contains("cannot be used with"));
        assert!(report("mooring backends -o yaml").contains("invalid value 'yaml'"));
        assert!(report("mooring man here --of status").contains("cannot be used with"));
        assert!(report("mooring completions ksh").contains("invalid value 'ksh'"));
        assert!(report("mooring serv").contains("unrecognized subcommand 'serv'"));
    }
}
