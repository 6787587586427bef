//! The flags of the verbs that print what is made from the command line itself.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mooring completions bash > \
                        ~/.local/share/bash-completion/completions/mooring\n  mooring completions \
                        zsh > ~/.zfunc/_mooring\n  mooring completions fish > \
                        ~/.config/fish/completions/mooring.fish\n\nFor zsh, the folder must be \
                        in $fpath before compinit runs.")]
pub struct CompletionsArgs {
    /// The shell to complete in
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  mooring man ~/.local/share/man/man1\n  mooring man --of \
                        backends add | man -l -\n\nPages that are already in the folder are \
                        replaced.")]
pub struct ManArgs {
    /// The folder to write all pages to; it is made if it is missing. Without it, one page is
    /// printed
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// The verb whose page is printed; default: the page about all verbs
    #[arg(long, value_name = "VERB", num_args = 1.., conflicts_with = "folder")]
    pub of: Vec<String>,
}
