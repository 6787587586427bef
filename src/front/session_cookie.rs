//! Finds the sessions in cookies.

use std::sync::Arc;

use super::admission::Admission;
use super::caller::{Door, IdentityHints};
use super::own_cookies::OwnCookie;
use crate::auth::Session;

/// The session of a request, if its cookies contain a valid one. If there are sessions of two
/// users, an attacker may have set one of them, so neither counts.
#[must_use]
pub fn session_of(
    admission: &Admission,
    door: Door,
    hints: &IdentityHints<'_>,
) -> Option<Arc<Session>> {
    let values = hints.cookies.iter().flat_map(|line| OwnCookie::Session.values(line, door));
    let mut sessions = values.filter_map(|value| admission.session(value));
    let first = sessions.next()?;
    sessions.all(|other| other.user == first.user).then(|| Arc::new(first))
}

/// The last line of cookies on a connection, and its session: comparing it costs less than checking
/// a signature.
#[derive(Debug)]
pub struct SessionCache {
    line: Vec<u8>,
    door: Door,
    session: Option<Arc<Session>>,
}

impl Default for SessionCache {
    fn default() -> Self {
        Self { line: Vec::new(), door: Door::Unknown, session: None }
    }
}

impl SessionCache {
    pub fn session(
        &mut self,
        admission: &Admission,
        door: Door,
        hints: &IdentityHints<'_>,
    ) -> Option<&Arc<Session>> {
        let is_known = match hints.cookies[..] {
            [] => return None,
            [line] => self.line == line && self.door == door,
            _ => false,
        };
        // A session that was not valid may be valid now, for example with another key.
        let holds = |session: &Arc<Session>| admission.holds(session);
        if !is_known || !self.session.as_ref().is_some_and(holds) {
            self.session = session_of(admission, door, hints);
            self.door = door;
            self.line.clear();
            if let [line] = hints.cookies[..] {
                self.line.extend_from_slice(line);
            }
        }
        self.session.as_ref()
    }
}
