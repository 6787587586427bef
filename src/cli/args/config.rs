//! The flags of the verbs about the configuration.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Overrides;

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mooring config show\n  mooring config schema > \
                        mooring.schema.json\n  mooring config init mooring.toml")]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub verb: ConfigVerb,
}

#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print every key with its value and its source; secrets are hidden
    Show(ShowArgs),
    /// Print the JSON Schema of configuration files, for editors
    Schema(SchemaArgs),
    /// Write a file with all keys, commented out, and one backend
    Init(InitArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mooring config show\n  mooring config show --config \
                  /etc/mooring/conf.d --set affinity.lease=30m --json\n\nIt takes the flags of \
                  `serve`. With problems it prints them and exits with 78, as `check` does.")]
pub struct ShowArgs {
    /// The file, or a folder of *.toml; default: what `serve` would read
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub overrides: Overrides,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  mooring config schema > mooring.schema.json\n\nA file whose \
                        first line is `#:schema ./mooring.schema.json` is then checked by editors \
                        with Taplo or Even Better TOML.")]
pub struct SchemaArgs {}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mooring config init\n  mooring config init \
                        /etc/mooring/mooring.toml\n  mooring config init mooring.toml --force")]
pub struct InitArgs {
    /// The file to write; `-` or nothing means standard output
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
}
