//! The flags of `mooring explain`.

use std::path::PathBuf;

use clap::Args;

use super::AdminArgs;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mooring explain --client 5f2c1f0a9d5e4c0f8a7b6c5d4e3f2a1b\n  \
                        mooring explain --prompt 0c9d8a52-7f7e-4f0e-9a55-0d3f1f6f2f10\n  \
                        mooring explain --graph workflow_api.json"
)]
pub struct ExplainArgs {
    #[command(flatten)]
    pub about: About,
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Exactly one of them is given.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct About {
    /// The client to explain
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// The prompt to explain
    #[arg(long, value_name = "ID")]
    pub prompt: Option<String>,
    /// Say where this graph would go now: a file as the page exports it with Export (API); - is
    /// standard input
    #[arg(long, value_name = "FILE")]
    pub graph: Option<PathBuf>,
}
