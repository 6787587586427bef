//! Checks the credentials of a user.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::places::{Asker, Places};
use crate::auth::{User, UserTable};
use crate::front::admission::Admission;
use crate::front::error::GatewayError;

/// How many passwords are hashed at the same time, for unknown and for known browsers. Each needs
/// 19 MiB and a core, so there must not be more than two in total.
const STRANGERS_MAX: usize = 1;
const KNOWN_MAX: usize = 1;

/// The credentials that were typed.
#[derive(Clone, Eq, PartialEq)]
pub(super) enum Said {
    Key(String),
    Password { name: String, password: String },
}

/// The user with this key, if it is a key.
#[must_use]
pub(super) fn by_key(users: &UserTable, said: &Said) -> Option<Arc<User>> {
    match said {
        Said::Key(key) => users.by_key(key.as_bytes()).cloned(),
        Said::Password { .. } => None,
    }
}

/// Checks passwords, a few at a time and outside of the threads that answer others.
#[derive(Debug)]
pub(super) struct Checker {
    strangers: Arc<Semaphore>,
    known: Arc<Semaphore>,
    places: Places,
}

impl Default for Checker {
    fn default() -> Self {
        let (strangers, known) = (Semaphore::new(STRANGERS_MAX), Semaphore::new(KNOWN_MAX));
        let (strangers, known) = (Arc::new(strangers), Arc::new(known));
        Self { strangers, known, places: Places::default() }
    }
}

impl Checker {
    /// Finds the user. A name that does not exist takes as long as a wrong password, and the error
    /// is the same.
    ///
    /// # Errors
    /// The credentials are wrong, or too many are being checked.
    pub(super) async fn user(
        &self,
        admission: &Admission,
        said: Said,
        asker: &Asker,
    ) -> Result<Arc<User>, GatewayError> {
        let users = admission.users();
        match said {
            Said::Key(_) => by_key(&users, &said).ok_or(GatewayError::BadLogin),
            Said::Password { name, password } => {
                let user = self.by_password(&users, (&name, password), asker).await?;
                // The users may have changed during the check.
                let is_there = admission.users().still_has(&user);
                if is_there { Ok(user) } else { Err(GatewayError::BadLogin) }
            }
        }
    }

    async fn by_password(
        &self,
        users: &UserTable,
        (name, password): (&str, String),
        asker: &Asker,
    ) -> Result<Arc<User>, GatewayError> {
        let user = name.parse().ok().and_then(|name| users.get(&name)).cloned();
        let kept = user.as_ref().and_then(|user| user.password.clone());
        let has_one = kept.is_some();
        let asked = kept.unwrap_or_else(|| users.some_password());
        let _place = self.places.take(asker).ok_or(GatewayError::LoginsBusy)?;
        let hashing = match asker {
            Asker::Known(_) => &self.known,
            Asker::In(_) => &self.strangers,
        };
        let permit = Arc::clone(hashing).acquire_owned().await;
        // The place is freed when the work ends, even if nobody waits for the result any more.
        let is_right = tokio::task::spawn_blocking(move || {
            let is_right = asked.is_of(password.as_bytes());
            drop(permit);
            is_right
        });
        let is_right = is_right.await.unwrap_or(false);
        user.filter(|_| is_right && has_one).ok_or(GatewayError::BadLogin)
    }
}

#[cfg(test)]
mod tests {
    use super::super::places::PLACES;
    use super::*;
    use crate::auth::Role;
    use crate::auth::key::KeyHash;
    use crate::auth::logouts::Logouts;
    use crate::auth::password::PasswordHash;
    use crate::config::AuthConfig;
    use crate::front::cookie_signer::CookieSigner;

    fn admission() -> Arc<Admission> {
        let user = |name: &str, password: Option<&str>| User {
            name: name.parse().unwrap(),
            role: Role::Artist,
            generation: 1,
            key: KeyHash::of(format!("key-of-{name}").as_bytes()),
            password: password.map(|it| PasswordHash::of(it).unwrap()),
        };
        let users = [user("ada", Some("correct horse")), user("bob", None)];
        let config = AuthConfig::keys(UserTable::of(users).unwrap());
        Admission::new(&config, CookieSigner::new(), Logouts::default())
    }

    fn password(name: &str, password: &str) -> Said {
        Said::Password { name: name.to_owned(), password: password.to_owned() }
    }

    #[tokio::test]
    async fn a_name_and_its_password_or_a_key_say_who_it_is_and_nothing_else_does() {
        let (checker, admission) = (Checker::default(), admission());
        for (said, who) in [
            (password("ada", "correct horse"), "ada"),
            (Said::Key("key-of-ada".to_owned()), "ada"),
            (Said::Key("key-of-bob".to_owned()), "bob"),
        ] {
            assert_eq!(
                checker.user(&admission, said, &stranger(0)).await.unwrap().name.as_str(),
                who
            );
        }
        for said in [
            password("ada", "wrong horse"),
            password("Ada", "correct horse"),
            password("bob", "correct horse"),
            password("bob", ""),
            password("eve", "correct horse"),
            password("", "correct horse"),
            password("ada", "key-of-ada"),
            Said::Key("correct horse".to_owned()),
            Said::Key(String::new()),
        ] {
            let refused = checker.user(&admission, said, &stranger(0)).await;
            assert!(matches!(refused, Err(GatewayError::BadLogin)));
        }
    }

    fn stranger(network: u8) -> Asker {
        Asker::at([10, 0, network, 1].into())
    }

    #[tokio::test]
    async fn who_comes_when_too_many_wait_is_asked_to_come_again() {
        let (checker, admission) = (Checker::default(), admission());
        let held = Arc::clone(&checker.strangers).acquire_owned().await.unwrap();
        let networks: Vec<Asker> = (0..8).map(stranger).collect();
        let ask =
            |at: usize| Box::pin(checker.user(&admission, password("ada", "x"), &networks[at % 8]));
        let mut waiting: Vec<_> = (0..PLACES).map(ask).collect();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        for each in &mut waiting {
            assert!(each.as_mut().poll(&mut cx).is_pending());
        }
        let other = stranger(9);
        let refused = checker.user(&admission, password("ada", "x"), &other).await;
        assert!(matches!(refused, Err(GatewayError::LoginsBusy)));
        // A browser from which this user has come before does not wait for them, and a key needs no
        // hashing.
        let (ada, right) = (Asker::Known("ada".parse().unwrap()), password("ada", "correct horse"));
        assert!(checker.user(&admission, right.clone(), &ada).await.is_ok());
        assert!(checker.user(&admission, Said::Key("key-of-ada".to_owned()), &other).await.is_ok());
        // A request that leaves makes room.
        drop((waiting, held));
        assert!(checker.user(&admission, right, &other).await.is_ok());
    }
}
