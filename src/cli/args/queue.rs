//! The flags of the verbs about what waits in the gateway.

use clap::{Args, Subcommand};

use super::{AdminArgs, Output};

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  mooring queue\n  mooring queue --user ada -o wide\n  mooring queue \
                  front 0c9d8a52-7f7e-4f0e-9a55-0d3f1f6f2f10\n\nA start is expected by how long \
                  prompts took before, and is not promised. `mooring explain --prompt ID` says \
                  what one waits for."
)]
pub struct QueueArgs {
    #[command(subcommand)]
    pub verb: Option<QueueVerb>,
    /// Only prompts of this client, by its clientId or its hash
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// Only prompts of this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// How many prompts to show, at most 1000
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub limit: u32,
    /// How many of the first to leave out
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub skip: u32,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Verbs that change what waits.
#[derive(Debug, Subcommand)]
pub enum QueueVerb {
    /// Move a prompt before all others that wait
    Front(OnePromptArgs),
    /// Cancel a prompt, whether it waits or runs
    Cancel(OnePromptArgs),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  mooring queue front 0c9d8a52-7f7e-4f0e-9a55-0d3f1f6f2f10\n\nThe \
                  ids of prompts that wait are listed by `mooring queue -o name`."
)]
pub struct OnePromptArgs {
    /// The prompt
    pub id: String,
    #[command(flatten)]
    pub admin: AdminArgs,
}
