//! The flags of the verbs that show or change the fleet.

use clap::{Args, Subcommand, ValueEnum};

use super::{AdminArgs, assignment};

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  mooring backends\n  mooring backends gpu-a\n  mooring \
                  backends gpu-a draining --why 'new fan'\n  mooring backends add gpu-d \
                  http://gpu-d:8188 --weight 2\n  mooring backends remove gpu-d --drain 10m"
)]
pub struct BackendsArgs {
    #[command(subcommand)]
    pub verb: Option<BackendsVerb>,
    /// The backend to show or to set
    pub name: Option<String>,
    /// What to set it to; without it the backend is shown
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
    pub admin: AdminArgs,
}

/// What changes the fleet while the gateway runs.
#[derive(Debug, Subcommand)]
pub enum BackendsVerb {
    /// Add a backend that is not in the configuration, or change one that was added
    Add(AddBackendArgs),
    /// Remove a backend that was added; it leaves when it has drained
    Remove(RemoveBackendArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  mooring backends add gpu-d http://gpu-d:8188 --weight 2 \
                  --header-file Authorization=/run/secrets/gpu-d")]
pub struct AddBackendArgs {
    /// What it is called
    pub name: String,
    /// Where the ComfyUI server listens
    pub url: String,
    /// Its share of the work compared with the others
    #[arg(long, value_name = "COUNT")]
    pub weight: Option<u32>,
    /// Prompts waiting and running there beyond which no more are placed; 0 is no limit
    #[arg(long, value_name = "COUNT")]
    pub max_pending: Option<u32>,
    /// What it is for, in a word of yours; repeat for more
    #[arg(long = "label", value_name = "WORD")]
    pub labels: Vec<String>,
    /// A header for everything that is said to it, from a file that the gateway reads; repeat for
    /// more
    #[arg(long = "header-file", value_name = "NAME=FILE", value_parser = assignment)]
    pub headers: Vec<(String, String)>,
    /// For https: a file with certificates of authorities, which the gateway reads
    #[arg(long, value_name = "FILE")]
    pub ca: Option<String>,
    /// For https: the name that its certificate is for
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
    /// Wait so long until it has drained and left
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
                        when nothing is pending there any more, and with 1 if the time is up \
                        first: it goes on draining then."
)]
pub struct DrainArgs {
    /// The backend to drain
    pub name: String,
    /// How long to wait for the end of it
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    pub wait: String,
    /// Why: shown with the state, also after a restart
    #[arg(long, value_name = "TEXT")]
    pub why: Option<String>,
    /// Who says so; the login name by default
    #[arg(long, value_name = "NAME", env = "USER", hide_env = true)]
    pub by: Option<String>,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// What the operator says of a backend.
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
    /// As the admin API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Off => "off",
        }
    }
}
