//! Who is let in: `[auth]`, and the files that it names.

use std::path::Path;
use std::sync::Arc;

use super::keys::{RawAuth, RawAuthJwt};
use super::problems::Notes;
use super::secret;
use super::{AuthConfig, AuthMode, Secret, jwt};
use crate::auth::{UserTable, file};

pub(super) fn check(raw: RawAuth, raw_jwt: RawAuthJwt, notes: &mut Notes) -> AuthConfig {
    let RawAuth {
        mode,
        users_file,
        session_lifetime,
        session_key_file,
        header,
        groups_header,
        group_roles,
        default_role,
        comfy_user,
    } = raw;
    let key = users_file.key.clone();
    let (mode, users_file) = (mode.check(notes), users_file.check(notes));
    let users = match (mode, &users_file) {
        (AuthMode::Off | AuthMode::Header | AuthMode::Jwt, _) => Ok(UserTable::default()),
        (AuthMode::Keys, Some(path)) => {
            file::read(path).map_err(|what| {
                // It refuses the configuration, so its change may be the end of that.
                notes.needs(vec![path.clone()]);
                format!("`{}` {what}", path.display())
            })
        }
        (AuthMode::Keys, None) => {
            Err("`auth.mode` is \"keys\": name the file that `mooring users add` makes".to_owned())
        }
    };
    let users = Arc::new(users.unwrap_or_else(|what| {
        notes.report(&key, what);
        UserTable::default()
    }));
    let key = session_key_file.key.clone();
    let session_key_file = session_key_file.check(notes);
    let session_key = match (mode, &session_key_file) {
        (AuthMode::Off | AuthMode::Header | AuthMode::Jwt, _) | (AuthMode::Keys, None) => None,
        (AuthMode::Keys, Some(path)) => session_key(path)
            .map_err(|what| notes.report(&key, format!("`{}` {what}", path.display())))
            .ok(),
    };
    AuthConfig {
        mode,
        users_file,
        users,
        session_lifetime: session_lifetime.check(notes),
        session_key_file,
        session_key,
        header: header.check(notes),
        groups_header: groups_header.check(notes),
        group_roles: group_roles.check(notes),
        default_role: default_role.check(notes),
        comfy_user: comfy_user.check(notes),
        jwt: Box::new(jwt::check(raw_jwt, mode, notes)),
    }
}

/// What signs sessions. Who can guess it is everybody.
fn session_key(path: &Path) -> Result<Secret, String> {
    const CHARACTERS_MIN: usize = 32;
    let text = secret::read(path)?;
    let has = text.chars().count();
    if has < CHARACTERS_MIN {
        return Err(format!("has {has} characters, and has to have {CHARACTERS_MIN} or more"));
    }
    Secret::parse(&text)
}
