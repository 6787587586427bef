//! What one backend calls the users of Mooring (`auth.comfy_user`).
//!
//! A server with `--multi-user` assigns an id to each of its users, and believes whoever sends one.
//! No other server knows that id. So a user is found there by name, and made once if he is missing.
//!
//! # Invariants
//!
//! - One request at a time reads and makes users: nobody is made twice by this gateway.
//! - What was read counts until the backend goes down: after that its users may be others.
//! - A backend whose operator has configured the header is never asked: that value is for all.
//! - What fails for one user alone is not told to others who wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::Semaphore;
use tracing::info;

use super::api::ApiError;
use super::backend::Backend;
use crate::comfy::answers::Junk;
use crate::comfy::users;

/// The users of one backend, as they were last read.
#[derive(Debug)]
pub struct UserIds {
    known: ArcSwap<Known>,
    /// Whoever reads and makes users.
    turn: Semaphore,
    /// How often the backend itself could not be asked.
    failures: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    /// `None` before the first answer.
    told: Option<Told>,
    /// The turn count of the backend at that time.
    times: u64,
}

#[derive(Clone, Debug)]
enum Told {
    /// There is one user for all.
    Single,
    /// The ids, by the names.
    Several(HashMap<Box<str>, HeaderValue>),
}

/// What a backend is told of a user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum UserId {
    /// Nothing: it has one user for all, or its operator has configured one for all.
    None,
    /// The value of `Comfy-User`.
    Is(HeaderValue),
}

/// Why it is not known what a backend calls a user.
#[derive(Debug, thiserror::Error)]
pub enum NoUserId {
    #[error("its users were not read yet")]
    NotRead,
    #[error("its users could not be read just now")]
    JustFailed,
    #[error("it did not make the user")]
    NotMade,
    /// It would fail to make any.
    #[error("it failed to make the user ({0})")]
    Fails(u16),
    #[error(transparent)]
    Ask(#[from] ApiError),
}

impl From<NoUserId> for ApiError {
    fn from(error: NoUserId) -> Self {
        match error {
            NoUserId::Ask(error) => error,
            NoUserId::NotRead | NoUserId::JustFailed | NoUserId::NotMade | NoUserId::Fails(_) => {
                Self::Junk(Junk::Malformed)
            }
        }
    }
}

impl Default for UserIds {
    fn default() -> Self {
        Self { known: ArcSwap::default(), turn: Semaphore::new(1), failures: AtomicU64::new(0) }
    }
}

impl Told {
    fn of(body: &[u8]) -> Result<Self, Junk> {
        let Some(users) = users::read(body)? else { return Ok(Self::Single) };
        let mut ids = HashMap::new();
        for (id, name) in users {
            let id = HeaderValue::try_from(id).map_err(|_| Junk::Malformed)?;
            // The first of several with one name, which somebody has written into the file.
            ids.entry(name.into()).or_insert(id);
        }
        Ok(Self::Several(ids))
    }

    fn id_of(&self, name: &str) -> Option<UserId> {
        match self {
            Self::Single => Some(UserId::None),
            Self::Several(ids) => ids.get(name).cloned().map(UserId::Is),
        }
    }

    fn with(self, name: &str, id: HeaderValue) -> Self {
        match self {
            Self::Single => Self::Single,
            Self::Several(mut ids) => {
                ids.insert(name.into(), id);
                Self::Several(ids)
            }
        }
    }
}

impl Backend {
    /// What this backend is told of a user. `None` if that must be asked first. It takes no lock.
    #[must_use]
    pub fn known_user_id(&self, name: &str) -> Option<UserId> {
        if self.headers().has(users::HEADER) {
            return Some(UserId::None);
        }
        let known = self.user_ids.known.load();
        let told = known.told.as_ref().filter(|_| known.times == self.up_state().times);
        told.and_then(|told| told.id_of(name))
    }

    /// The same; the backend is asked if it is not known, and the user is made there if he is
    /// missing. Cancel safe: a user who was made meanwhile is found by name the next time.
    ///
    /// # Errors
    /// The backend did not answer within `limit`, or did not make the user.
    pub async fn user_id(&self, name: &str, limit: Duration) -> Result<UserId, NoUserId> {
        if let Some(known) = self.known_user_id(name) {
            return Ok(known);
        }
        let ids = &self.user_ids;
        let failures = ids.failures.load(Ordering::Acquire);
        // The semaphore is never closed.
        let _turn = ids.turn.acquire().await;
        if let Some(known) = self.known_user_id(name) {
            return Ok(known);
        }
        // A backend that does not answer is not asked by everybody who waits, one after the other.
        if ids.failures.load(Ordering::Acquire) != failures {
            return Err(NoUserId::JustFailed);
        }
        let asked = self.ask_user_id(name, limit).await;
        match &asked {
            Err(NoUserId::Ask(_) | NoUserId::Fails(_)) => {
                ids.failures.fetch_add(1, Ordering::AcqRel);
            }
            // It concerns this user alone.
            Err(NoUserId::NotMade | NoUserId::NotRead | NoUserId::JustFailed) | Ok(_) => {}
        }
        asked
    }

    async fn ask_user_id(&self, name: &str, limit: Duration) -> Result<UserId, NoUserId> {
        let times = self.up_state().times;
        let told = self.read_users(limit).await?;
        // Others who wait may be in it, whatever becomes of this one.
        self.keep_users(told.clone(), times);
        if let Some(found) = told.id_of(name) {
            return Ok(found);
        }
        let (status, body) = self.post("/users", users::make(name), limit).await?;
        let told = match status {
            200 => {
                let id = users::made(&body).map_err(|_junk| NoUserId::NotMade)?;
                let id = HeaderValue::try_from(id).map_err(|_| NoUserId::NotMade)?;
                info!(backend = %self.name(), user = name, "Made a user of this server.");
                told.with(name, id)
            }
            status @ 500..=599 => return Err(NoUserId::Fails(status)),
            // Another gateway may have been faster: the server refuses the second one of a name.
            _ => self.read_users(limit).await?,
        };
        let found = told.id_of(name).ok_or(NoUserId::NotMade);
        self.keep_users(told, times);
        found
    }

    async fn read_users(&self, limit: Duration) -> Result<Told, ApiError> {
        Ok(Told::of(&self.get_ok("/users", limit).await?)?)
    }

    fn keep_users(&self, told: Told, times: u64) {
        self.user_ids.known.store(Arc::new(Known { told: Some(told), times }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name() {
        let body = br#"{"storage": "server", "users": {"b_2": "ada", "a_1": "ada", "c_3": "Ada"}}"#;
        let told = Told::of(body).unwrap();
        let is = |name, id| {
            let id = HeaderValue::from_static(id);
            assert_eq!(told.id_of(name), Some(UserId::Is(id)), "{name}");
        };
        is("ada", "a_1");
        is("Ada", "c_3");
        assert_eq!(told.id_of("eve"), None);
        let eve = HeaderValue::from_static("eve_4");
        assert_eq!(told.with("eve", eve.clone()).id_of("eve"), Some(UserId::Is(eve)));
    }

    #[test]
    fn a_server_with_one_user_is_told_nothing() {
        let told = Told::of(users::SINGLE.as_bytes()).unwrap();
        assert_eq!(told.id_of("ada"), Some(UserId::None));
    }

    #[test]
    fn an_id_that_cannot_be_sent_is_no_answer() {
        assert!(Told::of(b"{\"users\": {\"a\\nb\": \"ada\"}}").is_err());
        assert!(Told::of(b"<html>").is_err());
    }
}
