//! The users who may come in, with their roles, and the text of the file that lists them.
//!
//! The file is TOML, one table for each user.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::jwt::Token;
use super::key::KeyHash;
use super::password::PasswordHash;
use super::proxy::ProxyRules;
use super::session::Session;

/// The longest name of a user.
const NAME_MAX: usize = 64;

/// The comment at the beginning of the file.
const HEAD: &str = "\
# The users of Mooring. `mooring users` changes this file, and keeps only these comments.
# A key is stored as its SHA-256, a password as argon2id. Everything that ends the sessions of a
# user raises the `generation` of that user.
[users]
";

/// What a user may do, from the least to the most.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May read.
    Viewer,
    /// May read and work.
    Artist,
    /// May also look after the fleet.
    Operator,
}

/// There is no role with this name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a role is viewer, artist or operator")]
pub struct BadRole;

impl Role {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Artist => "artist",
            Self::Operator => "operator",
        }
    }
}

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(text: &str) -> Result<Self, BadRole> {
        let all = [Self::Viewer, Self::Artist, Self::Operator];
        all.into_iter().find(|role| role.as_str() == text).ok_or(BadRole)
    }
}

/// The name of a user. It needs no escape in logs and in the file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct UserName(Arc<str>);

/// A user cannot have this name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the name of a user has 1 to {NAME_MAX} letters, digits or `.`, `_`, `-`, `@`, `+`, and begins \
     with a letter or a digit"
)]
pub struct BadUserName;

impl UserName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, to be stored.
    #[must_use]
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = BadUserName;

    fn from_str(text: &str) -> Result<Self, BadUserName> {
        let is_inner = |it: u8| it.is_ascii_alphanumeric() || b"._-@+".contains(&it);
        let is_sound = text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
            && text.len() <= NAME_MAX
            && text.bytes().all(is_inner);
        if is_sound { Ok(Self(text.into())) } else { Err(BadUserName) }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user who may come in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    pub name: UserName,
    pub role: Role,
    /// Changes whenever the user's open connections must end. It never has an earlier value again,
    /// even if the user is removed and another one gets the name: it begins with the time.
    pub generation: u64,
    /// `None` if the user has no key.
    pub key: Option<KeyHash>,
    /// `None` if the user has no password.
    pub password: Option<PasswordHash>,
}

impl User {
    /// Identifies this state of the user in a session. It is another number whenever the
    /// generation, the key or the password changes, also if somebody edits the file and leaves the
    /// generation as it was.
    #[must_use]
    pub fn mark(&self) -> u64 {
        let Self { name: _, role: _, generation, key, password } = self;
        let text = |it: Option<String>| it.unwrap_or_default();
        let key = text(key.as_ref().map(ToString::to_string));
        let password = text(password.as_ref().map(ToString::to_string));
        // Neither of them contains a line break.
        let digest = Sha256::digest(format!("{generation}\n{key}\n{password}"));
        digest.iter().take(8).fold(0, |mark, byte| mark << 8 | u64::from(*byte))
    }
}

/// A user who was let in, in the state of that moment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pass {
    pub user: Arc<User>,
    /// The session that let the user in. `None` if a key or a proxy did.
    pub session: Option<Arc<Session>>,
    /// The rules by which a proxy was trusted, if a proxy let the user in.
    pub proxy: Option<Arc<ProxyRules>>,
    /// The token that let him in, if one did.
    pub token: Option<Shown>,
}

impl Pass {
    /// The cookie that may hold a token: it is no backend's.
    #[must_use]
    pub fn token_cookie(&self) -> Option<&str> {
        self.token.as_ref().and_then(|shown| shown.token.rules.cookie.as_deref())
    }
}

/// A token as it was shown.
#[derive(Clone, Debug)]
pub struct Shown {
    pub token: Arc<Token>,
    pub by: ShownBy,
}

/// Who has put a token into a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShownBy {
    /// A program or a script of a page, in `Authorization`.
    Header,
    /// The browser, whoever made it send the request.
    Cookie,
}

/// All users, by their names and by their keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UserTable {
    /// Each with its mark, which each request of a session needs.
    users: BTreeMap<UserName, (Arc<User>, u64)>,
    by_key: HashMap<KeyHash, Arc<User>>,
}

/// Why these users cannot exist together.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadUsers {
    #[error("`{first}` and `{second}` differ only in upper and lower case")]
    SameName { first: UserName, second: UserName },
    #[error("`{first}` and `{second}` have the same key")]
    SameKey { first: UserName, second: UserName },
}

impl UserTable {
    /// # Errors
    /// Two of them could be confused.
    pub fn of(all: impl IntoIterator<Item = User>) -> Result<Self, BadUsers> {
        let mut table = Self::default();
        let mut folded: BTreeMap<String, UserName> = BTreeMap::new();
        for user in all {
            let second = user.name.clone();
            if let Some(first) = folded.insert(second.as_str().to_ascii_lowercase(), second.clone())
            {
                return Err(BadUsers::SameName { first, second });
            }
            let user = Arc::new(user);
            if let Some(key) = user.key
                && let Some(first) = table.by_key.insert(key, Arc::clone(&user))
            {
                return Err(BadUsers::SameKey { first: first.name.clone(), second });
            }
            let mark = user.mark();
            table.users.insert(second, (user, mark));
        }
        Ok(table)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: FileText = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = 1 + text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
            let what: Vec<&str> = error.message().lines().map(str::trim).collect();
            format!("line {line}: {}", what.join(", "))
        })?;
        let users: Result<Vec<User>, String> = file.users.into_iter().map(user).collect();
        Self::of(users?).map_err(|bad| bad.to_string())
    }

    /// The text of the file for these users.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = HEAD.to_owned();
        for user in self.iter() {
            let User { name, role, generation, key, password } = user;
            let role = role.as_str();
            // Writing to a string does not fail.
            let _ = write!(text, "\n[users.\"{name}\"]\nrole = \"{role}\"\ngeneration = ");
            let _ = writeln!(text, "{generation}");
            if let Some(key) = key {
                let _ = writeln!(text, "key = \"{key}\"");
            }
            if let Some(password) = password {
                let _ = writeln!(text, "password = \"{password}\"");
            }
        }
        text
    }

    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.users.values().map(|(user, _)| user.as_ref())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    #[must_use]
    pub fn get(&self, name: &UserName) -> Option<&Arc<User>> {
        self.users.get(name).map(|(user, _)| user)
    }

    /// The user of a session, if the user is unchanged since the login.
    #[must_use]
    pub fn by_session(&self, session: &Session) -> Option<&Arc<User>> {
        let is_same = |(_, mark): &&(Arc<User>, u64)| *mark == session.user_mark;
        self.users.get(&session.user).filter(is_same).map(|(user, _)| user)
    }

    /// The password hash of any user, to be checked for a user who does not exist. The hashes of
    /// one file cost the same.
    #[must_use]
    pub fn some_password(&self) -> PasswordHash {
        let kept = self.iter().find_map(|user| user.password.clone());
        kept.unwrap_or_else(PasswordHash::of_nobody)
    }

    /// The user who has this key.
    #[must_use]
    pub fn by_key(&self, key: &[u8]) -> Option<&Arc<User>> {
        self.by_key.get(&KeyHash::of(key)?)
    }

    /// False for a user who was removed, or whose key or password has changed.
    #[must_use]
    pub fn still_has(&self, user: &User) -> bool {
        let is_same = |now: &Arc<User>| {
            let (was, is) = ((&user.key, &user.password), (&now.key, &now.password));
            now.generation == user.generation && was == is
        };
        self.get(&user.name).is_some_and(is_same)
    }

    /// The same users with this one added. It replaces the user of that name.
    ///
    /// # Errors
    /// The user could be confused with another one.
    pub fn with(&self, user: User) -> Result<Self, BadUsers> {
        let name = user.name.clone();
        let others = self.iter().filter(move |other| other.name != name).cloned();
        Self::of(others.chain([user]))
    }

    /// The same users without that one.
    #[must_use]
    pub fn without(&self, name: &UserName) -> Self {
        let others = self.users.iter().filter(|(other, _)| *other != name);
        let by_key = |(user, _): &(Arc<User>, u64)| Some((user.key?, Arc::clone(user)));
        Self {
            by_key: others.clone().filter_map(|(_, it)| by_key(it)).collect(),
            users: others.map(|(name, it)| (name.clone(), it.clone())).collect(),
        }
    }
}

/// The structure of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    /// This is required, so that a file that was just truncated is not taken for one without users.
    users: BTreeMap<String, UserText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserText {
    role: Role,
    generation: u64,
    key: Option<String>,
    password: Option<String>,
}

fn user((name, text): (String, UserText)) -> Result<User, String> {
    let UserText { role, generation, key, password } = text;
    let key = key.as_deref().map(KeyHash::parse).transpose();
    let key = key.map_err(|bad| format!("users.{name}.key: {bad}"))?;
    let password = password.as_deref().map(PasswordHash::parse).transpose();
    let password = password.map_err(|bad| format!("users.{name}.password: {bad}"))?;
    let name = name.parse().map_err(|bad| format!("users.{name}: {bad}"))?;
    Ok(User { name, role, generation, key, password })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::key;
    use crate::auth::session::Signs;

    fn user(name: &str, role: Role, key: &str) -> User {
        let key = Some(key).filter(|key| !key.is_empty());
        let key = key.map(|key| KeyHash::of(key.as_bytes()).unwrap());
        User { name: name.parse().unwrap(), role, generation: 7, key, password: None }
    }

    fn table() -> UserTable {
        let users = [
            user("ada", Role::Artist, "key-of-ada"),
            user("bob@example.org", Role::Viewer, "key-of-bob"),
            user("cyd", Role::Operator, ""),
        ];
        UserTable::of(users).unwrap()
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for table in [table(), UserTable::default(), table().without(&"ada".parse().unwrap())] {
            assert_eq!(UserTable::parse(&table.to_text()).as_ref(), Ok(&table));
        }
        let text = table().to_text();
        assert!(!text.contains("key-of") && text.contains("[users.\"bob@example.org\"]"), "{text}");
    }

    #[test]
    fn everybody_is_known_by_his_own_key_alone() {
        let table = table();
        let whose = |key: &str| table.by_key(key.as_bytes()).map(|user| user.name.to_string());
        assert_eq!(whose("key-of-ada").as_deref(), Some("ada"));
        assert_eq!(whose("key-of-bob").as_deref(), Some("bob@example.org"));
        for other in ["", "key-of-cyd", "KEY-OF-ADA", " key-of-ada", &key::mint()] {
            assert_eq!(whose(other), None, "{other}");
        }
        // The stored form of a key is not a key.
        let kept = KeyHash::of(b"key-of-ada").unwrap().to_string();
        assert_eq!(whose(&kept), None);
    }

    #[test]
    fn a_pass_ends_with_the_key_and_the_user_and_not_with_his_role() {
        let before = table();
        let pass = Arc::clone(before.by_key(b"key-of-ada").unwrap());
        assert!(before.still_has(&pass));
        let changed = |change: fn(&mut User)| {
            let mut user = User::clone(&pass);
            change(&mut user);
            before.with(user).unwrap().still_has(&pass)
        };
        assert!(changed(|user| user.role = Role::Viewer));
        assert!(!changed(|user| user.key = KeyHash::of(b"another")));
        assert!(!changed(|user| user.key = None));
        assert!(!changed(|user| user.generation += 1));
        let without = before.without(&pass.name);
        assert!(!without.still_has(&pass) && without.by_key(b"key-of-ada").is_none());
        assert_eq!(without.len(), 2);
        assert!(without.by_key(b"key-of-bob").is_some(), "the others stay");
    }

    #[test]
    fn a_session_ends_with_whatever_is_changed_in_the_file_but_the_role() {
        struct Unsigned;
        impl Signs for Unsigned {
            fn mark(&self) -> u64 {
                0
            }
            fn sign_text(&self, _: &[u8]) -> [u8; 32] {
                [0; 32]
            }
            fn proves(&self, _: &[u8], _: &[u8; 32]) -> bool {
                true
            }
        }
        let before = table();
        let ada = Arc::clone(before.get(&"ada".parse().unwrap()).unwrap());
        let session = Session::of(&ada, (1, 2), 3, &Unsigned);
        let holds = |change: fn(&mut User)| {
            let mut user = User::clone(&ada);
            change(&mut user);
            before.with(user).unwrap().by_session(&session).is_some()
        };
        assert!(holds(|_| ()) && holds(|user| user.role = Role::Viewer));
        assert!(!holds(|user| user.generation += 1));
        assert!(!holds(|user| user.key = KeyHash::of(b"another")));
        assert!(!holds(|user| user.key = None));
        assert!(!holds(|user| user.password = Some(PasswordHash::of_nobody())));
        assert!(before.without(&ada.name).by_session(&session).is_none());
        let without_bob = before.without(&"bob@example.org".parse().unwrap());
        assert!(without_bob.by_session(&session).is_some());
    }

    #[test]
    fn two_users_are_never_one() {
        let twice = UserTable::of([user("ada", Role::Artist, "a"), user("Ada", Role::Artist, "b")]);
        assert_eq!(
            twice.unwrap_err().to_string(),
            "`ada` and `Ada` differ only in upper and lower case"
        );
        let twice = table().with(user("dan", Role::Artist, "key-of-bob"));
        let same = "`bob@example.org` and `dan` have the same key";
        assert_eq!(twice.unwrap_err().to_string(), same);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, told) in [
            ("", "line 1: missing field `users`"),
            ("[users.ada]\nrole = \"artist\"\n", "line 1: missing field `generation`"),
            ("[users.ada]\ngeneration = 1\nrole = \"king\"\n", "line 3: unknown variant `king`"),
            ("[users.ada]\ngeneration = -1\nrole = \"artist\"\n", "line 2: "),
            (
                "[users.ada]\nrole = \"artist\"\ngeneration = 1\nkeys = \"\"\n",
                "line 4: unknown field",
            ),
            ("[users.ada]\nrole = \"artist\"\ngeneration = 1\nkey = \"ab\"\n", "users.ada.key: "),
            (
                "[users.\"a b\"]\nrole = \"artist\"\ngeneration = 1\n",
                "users.a b: the name of a user",
            ),
            ("[users]\n[users.ada\n", "line 2: "),
        ] {
            let report = UserTable::parse(text).unwrap_err();
            assert!(report.starts_with(told), "{text:?}: {report}");
        }
    }

    #[test]
    fn names_and_roles_are_those_that_need_no_escape() {
        for good in ["a", "Ada.Lovelace", "ada@example.org", "7", "a+b_c-d", &"x".repeat(64)] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a\"", "a\n", "é", "a/b", "a:b", &"x".repeat(65)] {
            assert_eq!(bad.parse::<UserName>(), Err(BadUserName), "{bad}");
        }
        for role in [Role::Viewer, Role::Artist, Role::Operator] {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        for bad in ["", "Artist", "admin", "artist "] {
            assert_eq!(bad.parse::<Role>(), Err(BadRole));
        }
    }
}
