//! The verbs that change the file of users. The gateway need not run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::args::{AddUserArgs, Form, ListUsersArgs, Overrides, UserArgs, UsersFile, UsersVerb};
use super::{EXIT_CONFIG, answer, password, say, sources};
use crate::auth::file::{self, Changed, Missing};
use crate::auth::key::{self, KeyHash};
use crate::auth::password::PasswordHash;
use crate::auth::{User, UserName, UserTable};
use crate::config;
use crate::net::unix_millis;

/// `mooring users …`.
pub(super) fn users(verb: UsersVerb) -> ExitCode {
    let done = match verb {
        UsersVerb::Add(args) => add(args),
        UsersVerb::List(args) => list(&args),
        UsersVerb::Key(args) => new_key(&args),
        UsersVerb::Password(args) => new_password(&args),
        UsersVerb::Logout(args) => log_out(&args),
        UsersVerb::Remove(args) => remove(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Config(problems)) => {
            say::note(&problems);
            EXIT_CONFIG.into()
        }
        Err(Failed::Other(what)) => say::failure(&what),
    }
}

enum Failed {
    /// The configuration that should name the file is not valid.
    Config(String),
    Other(String),
}

impl From<file::NotChanged> for Failed {
    fn from(error: file::NotChanged) -> Self {
        Self::Other(error.to_string())
    }
}

fn add(args: AddUserArgs) -> Result<(), Failed> {
    let AddUserArgs { name, role, place } = args;
    let path = path(&place)?;
    let key = key::mint();
    let kept = KeyHash::of(key.as_bytes());
    let changed = file::change(&path, Missing::IsEmpty, |users| {
        if users.get(&name).is_some() {
            return Err(format!("there is a user `{name}` already"));
        }
        let generation = seconds();
        let user = User { name: name.clone(), role, generation, key: kept, password: None };
        Ok((users.with(user).map_err(|bad| bad.to_string())?, ()))
    })?;
    let told = hand_over(&name, &format!("{name} ({}) can log in with {key}", role.as_str()));
    warn_of_crash(&path, &changed);
    told
}

fn new_key(args: &UserArgs) -> Result<(), Failed> {
    let key = key::mint();
    let kept = KeyHash::of(key.as_bytes());
    let (path, changed) = change(args, |users, user| {
        let user = User { generation: next(user.generation), key: kept, ..user.clone() };
        users.with(user).map_err(|bad| bad.to_string())
    })?;
    let told = hand_over(&args.name, &format!("{} can log in with {key}", args.name));
    warn_of_crash(&path, &changed);
    told
}

/// Does not ask for a password if the user does not exist.
fn new_password(args: &UserArgs) -> Result<(), Failed> {
    let path = path(&args.place)?;
    let users = file::read(&path);
    let users = users.map_err(|what| Failed::Other(format!("`{}` {what}", path.display())))?;
    if users.get(&args.name).is_none() {
        return Err(Failed::Other(unknown(&args.name)));
    }
    let password = password::ask(&args.name).map_err(Failed::Other)?;
    let kept = PasswordHash::of(&password).map_err(|bad| Failed::Other(bad.to_string()))?;
    let (path, changed) = change(args, |users, user| {
        let generation = next(user.generation);
        let user = User { generation, password: Some(kept), ..user.clone() };
        users.with(user).map_err(|bad| bad.to_string())
    })?;
    say::line(&format!("{} can log in with this password.", args.name));
    warn_of_crash(&path, &changed);
    Ok(())
}

/// Key and password stay valid.
fn log_out(args: &UserArgs) -> Result<(), Failed> {
    let (path, changed) = change(args, |users, user| {
        let user = User { generation: next(user.generation), ..user.clone() };
        users.with(user).map_err(|bad| bad.to_string())
    })?;
    say::line(&format!("{} is logged out everywhere.", args.name));
    warn_of_crash(&path, &changed);
    Ok(())
}

/// Prints a line with a key, which cannot be shown again.
fn hand_over(name: &UserName, line: &str) -> Result<(), Failed> {
    say::needed(line).map_err(|error| {
        Failed::Other(format!(
            "the key of {name} is lost, because it could not be printed ({error}); `mooring users \
             key {name}` creates another"
        ))
    })
}

fn warn_of_crash(path: &Path, changed: &Changed<()>) {
    if let Some(error) = &changed.unsynced {
        let path = path.display();
        say::note(&format!(
            "mooring: warning: `{path}` was changed, but a crash of this machine may undo it: \
             {error}"
        ));
    }
}

fn remove(args: &UserArgs) -> Result<(), Failed> {
    let (path, changed) = change(args, |users, user| Ok(users.without(&user.name)))?;
    say::line(&format!("{} was removed.", args.name));
    warn_of_crash(&path, &changed);
    Ok(())
}

/// Changes an existing user.
fn change(
    args: &UserArgs,
    change: impl FnOnce(&UserTable, &User) -> Result<UserTable, String>,
) -> Result<(PathBuf, Changed<()>), Failed> {
    let path = path(&args.place)?;
    let changed = file::change(&path, Missing::IsWrong, |users| {
        let user = users.get(&args.name);
        let user = user.ok_or_else(|| unknown(&args.name))?;
        Ok((change(users, user)?, ()))
    })?;
    Ok((path, changed))
}

fn unknown(name: &UserName) -> String {
    format!("there is no user `{name}`")
}

fn list(args: &ListUsersArgs) -> Result<(), Failed> {
    let path = path(&args.place)?;
    let users =
        file::read(&path).map_err(|what| Failed::Other(format!("`{}` {what}", path.display())))?;
    let told = users.iter().map(|user| {
        let User { name, role, generation: _, key, password } = user;
        let (key, password) = (key.is_some(), password.is_some());
        json!({ "name": name.as_str(), "role": role.as_str(), "key": key, "password": password })
    });
    let told: serde_json::Value = told.collect();
    match args.output.form {
        Some(Form::Json) => say::line(&told.to_string()),
        None if args.json => say::line(&told.to_string()),
        Some(Form::Name) => answer::names(&told).iter().for_each(|name| say::line(name)),
        Some(Form::Table | Form::Wide) | None if users.is_empty() => {
            say::line("There are no users.");
        }
        Some(form @ (Form::Table | Form::Wide)) => {
            say::line(&answer::text(&told, form, say::look()));
        }
        None => say::line(&answer::text(&told, Form::Table, say::look())),
    }
    Ok(())
}

/// The path of the file.
fn path(place: &UsersFile) -> Result<PathBuf, Failed> {
    if let Some(file) = &place.file {
        return Ok(file.clone());
    }
    let sources = sources(place.config.clone(), Overrides::default(), std::env::vars_os());
    let named = config::users_file(&sources).map_err(|it| Failed::Config(it.to_string()))?;
    named.ok_or_else(|| {
        Failed::Other("give --file PATH: the configuration names no `auth.users_file`".to_owned())
    })
}

fn seconds() -> u64 {
    unix_millis() / 1_000
}

/// Never an earlier value, even if the clock is set back.
fn next(generation: u64) -> u64 {
    seconds().max(generation.saturating_add(1))
}
