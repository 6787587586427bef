//! The flags of the verbs that change the file of users.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::auth::{Role, UserName};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mooring users add ada --file /etc/mooring/users.toml\n  mooring \
                  users add tv --role viewer\n  mooring users password ada\n  mooring users \
                  list\n  mooring users key ada\n  mooring users logout ada\n  mooring users \
                  remove ada\n\nA running gateway reads the file again within a second."
)]
pub struct UsersArgs {
    #[command(subcommand)]
    pub verb: UsersVerb,
}

#[derive(Debug, Subcommand)]
pub enum UsersVerb {
    /// Add a user and print his key, which is shown only now; makes the file if it is missing
    Add(AddUserArgs),
    /// List the users
    List(ListUsersArgs),
    /// Give a user another key and print it; the one before does not let him in any more
    Key(UserArgs),
    /// Give a user a password for the login page: asked for, or the first line of standard input;
    /// what he has open is closed
    Password(UserArgs),
    /// End all sessions of a user and close what he has open; his key and his password stay
    Logout(UserArgs),
    /// Remove a user; what he has open is closed
    Remove(UserArgs),
}

/// Where the users are.
#[derive(Args, Debug)]
pub struct UsersFile {
    /// The file; else `auth.users_file` of the configuration that `serve` would read
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// That configuration, if it stands elsewhere
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    pub config: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mooring users add ada --file users.toml\n  key=$(mooring users add \
                  render-bot --file users.toml | awk '{ print $NF }')"
)]
pub struct AddUserArgs {
    /// What he is called
    pub name: UserName,
    /// What he may do: viewer, artist or operator
    #[arg(long, value_name = "ROLE", default_value = "artist")]
    pub role: Role,
    #[command(flatten)]
    pub place: UsersFile,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  mooring users list --file users.toml --json")]
pub struct ListUsersArgs {
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: UsersFile,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mooring users key ada --file users.toml\n  mooring users password \
                  ada --file users.toml < password.txt\n  mooring users remove ada --file \
                  users.toml"
)]
pub struct UserArgs {
    /// Who
    pub name: UserName,
    #[command(flatten)]
    pub place: UsersFile,
}
