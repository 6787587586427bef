//! The flags of the verbs that show or change the fleet.

use clap::{Args, Subcommand, ValueEnum};

use super::{AdminArgs, Output, assignment};

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  mooring backends\n  mooring backends gpu-a -o json\n  mooring \
                  backends gpu-a draining --why 'new fan'\n  mooring backends add gpu-d \
                  http://gpu-d:8188 --weight 2\n  mooring backends remove gpu-d --drain 10m"
)]
pub struct BackendsArgs {
    #[command(subcommand)]
    pub verb: Option<BackendsVerb>,
    /// The backend to show or to set
    pub name: Option<String>,
    /// The state to set; without it the backend is shown
    pub state: Option<BackendState>,
    /// Set it to off even with held clients, whose prompts are lost
    #[arg(long, requires = "state")]
    pub force: bool,
    /// The reason; shown with the state, also after a restart
    #[arg(long, value_name = "TEXT", requires = "state")]
    pub why: Option<String>,
    /// Who sets the state; the login name by default
    #[arg(long, value_name = "NAME", env = "USER", hide_env = true)]
    pub by: Option<String>,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Verbs that change the fleet while the gateway runs.
#[derive(Debug, Subcommand)]
pub enum BackendsVerb {
    /// Add a backend that is not in the configuration, or change one that was added
    Add(AddBackendArgs),
    /// Remove a backend that was added; it leaves when it is drained
    Remove(RemoveBackendArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  mooring backends add gpu-d http://gpu-d:8188 --weight 2 \
                  --header-file Authorization=/run/secrets/gpu-d")]
pub struct AddBackendArgs {
    /// The name of the backend
    pub name: String,
    /// The URL of the ComfyUI server
    pub url: String,
    /// Its share of the work compared with the others
    #[arg(long, value_name = "COUNT")]
    pub weight: Option<u32>,
    /// The maximum of prompts that wait and run there; 0 means no limit
    #[arg(long, value_name = "COUNT")]
    pub max_pending: Option<u32>,
    /// A label of your choice, such as what it is used for; repeat for more
    #[arg(long = "label", value_name = "WORD")]
    pub labels: Vec<String>,
    /// A header for all requests to it; the gateway reads the value from the file; repeat for more
    #[arg(long = "header-file", value_name = "NAME=FILE", value_parser = assignment)]
    pub headers: Vec<(String, String)>,
    /// For https: a file with certificates of authorities, which the gateway reads
    #[arg(long, value_name = "FILE")]
    pub ca: Option<String>,
    /// For https: the host name in its certificate
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mooring backends remove gpu-d --drain 10m\n  mooring \
                        backends remove gpu-d --force")]
pub struct RemoveBackendArgs {
    /// The backend to remove
    pub name: String,
    /// How long to wait until it is drained and has left
    #[arg(long, value_name = "DURATION", conflicts_with = "force")]
    pub drain: Option<String>,
    /// Do not drain: its prompts are lost
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  mooring drain gpu-a --wait 30m --why 'new fan'\n\nExits with 0 \
                        when nothing is pending there any more, and with 1 if the time is over \
                        first. Then it continues to drain."
)]
pub struct DrainArgs {
    /// The backend to drain
    pub name: String,
    /// How long to wait until it is drained
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub wait: String,
    /// The reason; shown with the state, also after a restart
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// Who drains it; the login name by default
    #[arg(long, value_name = "NAME", env = "USER", hide_env = true)]
    pub by: Option<String>,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// The states that an operator can set.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum BackendState {
    /// It takes new work
    Ready,
    /// It finishes its work and takes no new work
    Draining,
    /// It is not used
    Off,
}

impl BackendState {
    /// The name in the admin API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Off => "off",
        }
    }
}
