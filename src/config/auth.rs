//! Who is let in: `[auth]`, and the files that it names.

use std::path::Path;
use std::sync::Arc;

use super::keys::{RawAuth, RawAuthJwt};
use super::problems::Notes;
use super::raw::Setting;
use super::secret;
use super::user::UserText;
use super::{AuthConfig, AuthMode, Secret, jwt};
use crate::auth::{UserName, UserTable, file};

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
        adopt,
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
    let adopt = check_adopt(adopt, (mode, &users), notes);
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
        adopt,
        jwt: Box::new(jwt::check(raw_jwt, mode, notes)),
    }
}

/// Who gets what is nobody's. Where a file says who the users are, he is one of them.
fn check_adopt(
    raw: Setting<UserText>,
    (mode, users): (AuthMode, &UserTable),
    notes: &mut Notes,
) -> Option<UserName> {
    let key = raw.key.clone();
    let name = raw.check(notes)?;
    match mode {
        AuthMode::Keys if users.get(&name).is_none() => {
            let what = format!("there is no user `{name}`: `mooring users add {name}` adds one");
            notes.report(&key, what);
        }
        AuthMode::Off => notes.remark(&key, "it has no effect while `auth.mode` is \"off\""),
        AuthMode::Keys | AuthMode::Header | AuthMode::Jwt => {}
    }
    Some(name)
}

impl AuthConfig {
    /// The user who gets what is nobody's. With [`AuthMode::Off`] there is none: everybody would
    /// lose it.
    #[must_use]
    pub fn adopter(&self) -> Option<&UserName> {
        self.adopt.as_ref().filter(|_| self.mode != AuthMode::Off)
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
