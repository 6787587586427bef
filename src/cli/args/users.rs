//! The flags of the verbs that change the file of users.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Output;
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
    /// Add a user and print the key, which cannot be shown again; creates the file if it is missing
    Add(AddUserArgs),
    /// List the users
    List(ListUsersArgs),
    /// Give a user a new key and print it; the old key is not valid any more
    Key(UserArgs),
    /// Give a user a password for the login page, typed or from the first line of standard input;
    /// open connections of the user are closed
    Password(UserArgs),
    /// End all sessions of a user and close the open connections; key and password stay valid
    Logout(UserArgs),
    /// Remove a user and close the open connections
    Remove(UserArgs),
}

/// The location of the users.
#[derive(Args, Debug)]
pub struct UsersFile {
    /// The file; default: `auth.users_file` of the configuration that `serve` would read
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// The configuration that names the file
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    pub config: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mooring users add ada --file users.toml\n  key=$(mooring users add \
                  render-bot --file users.toml | awk '{ print $NF }')"
)]
pub struct AddUserArgs {
    /// The name of the user
    pub name: UserName,
    /// What the user may do: viewer, artist or operator
    #[arg(long, value_name = "ROLE", default_value = "artist")]
    pub role: Role,
    #[command(flatten)]
    pub place: UsersFile,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  mooring users list --file users.toml --json")]
pub struct ListUsersArgs {
    /// Print the users as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub output: Output,
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
    /// The name of the user
    pub name: UserName,
    #[command(flatten)]
    pub place: UsersFile,
}
