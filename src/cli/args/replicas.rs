//! The flags of the verbs for the store of the state.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mooring replicas init --print | psql mooring\n  mooring \
                        replicas init --config /etc/mooring/mooring.toml\n  mooring replicas \
                        import /var/lib/mooring")]
pub struct ReplicasArgs {
    #[command(subcommand)]
    pub verb: ReplicasVerb,
}

#[derive(Debug, Subcommand)]
pub enum ReplicasVerb {
    /// Create the tables in the database of `replicas.store`; a gateway that may do so creates them
    /// at its start
    Init(InitStoreArgs),
    /// Copy what a journal file has into an empty database; no gateway may run
    Import(ImportArgs),
}

/// The configuration that names the database.
#[derive(Args, Debug)]
pub struct StoreConfig {
    /// The file, or a folder of *.toml; default: what `serve` would read
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Any key of the configuration; repeat for more
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = super::assignment)]
    pub set: Vec<(String, String)>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mooring replicas init --print | psql mooring\n  mooring \
                        replicas init --config /etc/mooring/mooring.toml")]
pub struct InitStoreArgs {
    /// Print the statements, and connect to nothing
    #[arg(long)]
    pub print: bool,
    #[command(flatten)]
    pub from: StoreConfig,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  mooring replicas import /var/lib/mooring")]
pub struct ImportArgs {
    /// The folder with the journal file: what `state.dir` was before
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    #[command(flatten)]
    pub from: StoreConfig,
}
