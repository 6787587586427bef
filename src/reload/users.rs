//! Watches the file of users. A user who is removed from it loses access within a second.
//!
//! The file is read without the rest of the configuration, so that a mistake elsewhere does not
//! keep a removed user in.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tracing::{error, info};

use super::watch::{Known, Prints, prints};
use crate::audit::{Entry, Who};
use crate::auth::file;
use crate::auth::{User, UserTable};
use crate::config::AuthMode;
use crate::front::Front;
use crate::front::admission::Admission;
use crate::net::sleep;

/// How often the file is checked. A changed file is read when it has stayed the same for this long.
const INTERVAL: Duration = Duration::from_millis(250);

/// Follows the file for as long as the process runs, while the configuration uses it.
pub async fn watch(front: Arc<Front>) {
    let mut follower = Follower::default();
    loop {
        front.admission.asks_for_keys().await;
        sleep(INTERVAL).await;
        let auth = front.shared.config().auth.clone();
        let Some(path) = auth.users_file.filter(|_| auth.mode == AuthMode::Keys) else { continue };
        let files = vec![path.clone()];
        let Ok(now) = tokio::task::spawn_blocking(move || prints(&files)).await else { continue };
        if follower.is_to_read(now, &front.admission) {
            let shown = path.display().to_string();
            let read = tokio::task::spawn_blocking(move || file::read(&path)).await;
            let read = read.unwrap_or_else(|error| Err(format!("cannot be read: {error}")));
            let before = front.admission.users();
            let read = follower.follow(read, &front.admission);
            if let Read::Others(_) = read {
                audit(&front, &before);
            }
            tell(read, &shown, &front);
        }
    }
}

/// Notes in the audit log which users are others than before.
fn audit(front: &Front, before: &UserTable) {
    let after = front.admission.users();
    front.shared.audit.note(|| {
        let (before, after) = (differing(before, &after), differing(&after, before));
        let who = Who::by("files");
        Entry { before, after, ..Entry::done(who, "users.reload", Value::Null) }
    });
}

/// The users of a table that are not in another, or not like this. A generation is another one
/// after each change of a key or password, and each logout everywhere.
fn differing(users: &UserTable, others: &UserTable) -> Value {
    let is_news = |user: &&User| others.get(&user.name).map(AsRef::as_ref) != Some(*user);
    let shown = |user: &User| {
        let state = json!({ "role": user.role.as_str(), "generation": user.generation });
        (user.name.to_string(), state)
    };
    Value::Object(users.iter().filter(is_news).map(shown).collect())
}

/// The result of a reading.
#[derive(Debug, Eq, PartialEq)]
enum Read {
    /// The users are the same as before; their number.
    Same(usize),
    Others(usize),
    /// Why it failed. `None` if that was reported already.
    Failed(Option<String>),
}

fn tell(read: Read, path: &str, front: &Front) {
    let guests = &front.shared.metrics.guests;
    match read {
        Read::Same(users) => guests.may_come(users),
        Read::Others(users) => {
            guests.may_come(users);
            info!(users, "The users were read again.");
        }
        Read::Failed(problem) => {
            guests.unread();
            if let Some(problem) = problem {
                error!(path, problem, "The users were not read again: the previous users stay.");
            }
        }
    }
}

/// What is known of the file.
#[derive(Debug, Default)]
struct Follower {
    known: Known,
    /// The users that were admitted at the last check.
    users: Option<Arc<UserTable>>,
    /// Why the file could not be read.
    problem: Option<String>,
}

impl Follower {
    /// True if the file has changed since its users were applied, and has not changed since the
    /// last check.
    fn is_to_read(&mut self, now: Prints, admission: &Admission) -> bool {
        let users = admission.users();
        if self.users.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &users)) {
            // A reload reads the users at its beginning and applies them at its end. That undoes
            // what was read here in between.
            self.known.forget_read();
            self.users = Some(users);
        }
        self.known.is_to_read(now)
    }

    fn follow(&mut self, read: Result<UserTable, String>, admission: &Admission) -> Read {
        let users = match read {
            Ok(users) => users,
            Err(problem) => {
                // The reason may disappear without a change of the file (too many open files, a
                // disk).
                self.known.forget_read();
                let is_told = self.problem.as_ref() == Some(&problem);
                self.problem = Some(problem.clone());
                return Read::Failed((!is_told).then_some(problem));
            }
        };
        self.problem = None;
        let count = users.len();
        if self.users.as_deref() == Some(&users) {
            return Read::Same(count);
        }
        let users = Arc::new(users);
        admission.replace_users(&users);
        self.users = Some(users);
        Read::Others(count)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::auth::key::KeyHash;
    use crate::auth::logouts::Logouts;
    use crate::auth::{Role, User};
    use crate::config::AuthConfig;
    use crate::front::cookie_signer::CookieSigner;

    fn users(names: &[&str]) -> UserTable {
        let user = |name: &&str| User {
            name: name.parse().unwrap(),
            role: Role::Artist,
            generation: 1,
            key: KeyHash::of(name.as_bytes()),
            password: None,
        };
        UserTable::of(names.iter().map(user)).unwrap()
    }

    fn config(names: &[&str]) -> AuthConfig {
        AuthConfig::keys(users(names))
    }

    fn admission(names: &[&str]) -> Arc<Admission> {
        Admission::new(&config(names), CookieSigner::new(), Logouts::default())
    }

    /// The file in this state.
    fn at(state: i64) -> Prints {
        vec![(PathBuf::from("users.toml"), Some([state; 7]))]
    }

    #[test]
    fn what_a_reload_undoes_is_read_again() {
        let admission = admission(&["ada", "bob"]);
        let mut follower = Follower::default();
        let mut looks = |count: usize| {
            let looks = (0..count).map(|_| follower.is_to_read(at(1), &admission));
            let looks: Vec<bool> = looks.collect();
            (looks, follower.follow(Ok(users(&["ada"])), &admission))
        };
        assert_eq!(looks(2), (vec![false, true], Read::Others(1)));
        assert_eq!(looks(2), (vec![false, false], Read::Same(1)));
        // The reload read the file before that.
        admission.reconfigure(&config(&["ada", "bob"]), &[]);
        assert_eq!(looks(1), (vec![true], Read::Others(1)));
        assert_eq!(*admission.users(), users(&["ada"]));
        assert_eq!(looks(1).0, [false]);
    }

    #[test]
    fn what_could_not_be_read_is_tried_at_each_look_and_told_once() {
        let admission = admission(&["ada"]);
        let mut follower = Follower::default();
        let mut look = |read: Result<UserTable, &str>| {
            let is_to_read = follower.is_to_read(at(1), &admission);
            is_to_read.then(|| follower.follow(read.map_err(str::to_owned), &admission))
        };
        let told = |problem: &str| Some(Read::Failed(Some(problem.to_owned())));
        assert_eq!(look(Err("EMFILE")), None);
        assert_eq!(look(Err("EMFILE")), told("EMFILE"));
        assert_eq!(look(Err("EMFILE")), Some(Read::Failed(None)));
        assert_eq!(look(Err("EIO")), told("EIO"));
        assert_eq!(look(Ok(users(&["bob"]))), Some(Read::Others(1)));
        assert_eq!(look(Ok(users(&["bob"]))), None);
    }
}
