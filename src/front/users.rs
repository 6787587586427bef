//! How servers are configured: the users that each knows (`--multi-user`), and whether it has
//! assets.
//!
//! A server assigns the ids of its own users, and no other server knows them: there, every route
//! that identifies the user fails with 500 (`app/user_manager.py`, `get_request_user_id`). So such
//! routes go only to servers that know the user.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::debug;

use crate::comfy::users;
use crate::fleet::backend::Backend;
use crate::lock::{Guard, Lock, rank};
use crate::net::now;
use crate::routing::ids::BackendId;

/// The user of a request without `Comfy-User`.
pub const DEFAULT: &str = "default";

/// How soon a server is asked again for a user that it did not know.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What is known about each backend.
#[derive(Debug, Default)]
pub struct Users {
    known: Lock<HashMap<BackendId, Known>, { rank::USERS }>,
    /// Which of the backends whose features do not say so have assets, and the turn count at that
    /// time.
    assets: Lock<HashMap<BackendId, (bool, u64)>, { rank::ASSET_USERS }>,
}

#[derive(Clone, Debug)]
struct Known {
    backend: Arc<Backend>,
    /// `None` if there are no separate users.
    users: Option<Arc<HashSet<String>>>,
    /// The turn count of the backend: after a turn its configuration may differ.
    times: u64,
    asked: Instant,
}

impl Known {
    fn has(&self, user: &str) -> bool {
        self.users.as_ref().is_none_or(|users| users.contains(user))
    }
}

impl Users {
    /// True if a server accepts this user. The server is asked if that is not known.
    pub async fn has(&self, backend: &Arc<Backend>, user: &str, limit: Duration) -> bool {
        let known = self.known().get(&backend.id).cloned();
        let known = known.filter(|known| known.times == backend.up_state().times);
        if let Some(known) = &known {
            let is_fresh = now().saturating_duration_since(known.asked) < ASK_AGAIN_AFTER;
            if known.has(user) || is_fresh {
                return known.has(user);
            }
        }
        let (times, asked) = (backend.up_state().times, now());
        match backend.get_ok("/users", limit).await {
            Ok(body) => {
                let (users, backend) = (read(&body).map(Arc::new), Arc::clone(backend));
                let known = Known { backend, users, times, asked };
                let has = known.has(user);
                let mut all = self.known();
                all.retain(|_, known| !known.backend.has_left());
                all.insert(known.backend.id, known);
                has
            }
            Err(error) => {
                let backend = backend.name();
                debug!(%backend, %error, "A server did not list its users.");
                // If it is not known, the worst result is an error from the server.
                known.is_none()
            }
        }
    }

    /// True if a server whose features do not mention assets has them. A server with assets answers
    /// this request to anybody. It is asked once after each start.
    pub async fn has_assets(&self, backend: &Backend, limit: Duration) -> bool {
        let times = backend.up_state().times;
        let known = self.assets().get(&backend.id).copied();
        if let Some((has, _)) = known.filter(|(_, then)| *then == times) {
            return has;
        }
        let Ok((status, _)) = backend.get("/api/assets/seed/status", limit).await else {
            return false;
        };
        self.assets().insert(backend.id, (status == 200, times));
        status == 200
    }

    /// True if the server has separate users, as far as is known.
    #[must_use]
    pub fn are_told_apart(&self, backend: BackendId) -> bool {
        self.known().get(&backend).is_some_and(|known| known.users.is_some())
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn assets(&self) -> Guard<'_, HashMap<BackendId, (bool, u64)>, { rank::ASSET_USERS }> {
        self.assets.lock()
    }

    #[cfg_attr(debug_assertions, track_caller)]
    fn known(&self) -> Guard<'_, HashMap<BackendId, Known>, { rank::USERS }> {
        self.known.lock()
    }
}

/// The ids of the users. `None` if there is one user for all.
fn read(body: &[u8]) -> Option<HashSet<String>> {
    users::read(body).ok()?.map(|users| users.into_keys().collect())
}
