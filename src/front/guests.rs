//! Which users, sessions, proxies and tokens count at a moment, and who may stay by them.

use std::sync::Arc;
use std::time::Duration;

use super::cookie_signer::CookieSigner;
use super::proxy_gate::ProxyGate;
use super::token_gate::TokenGate;
use crate::auth::logouts::Logouts;
use crate::auth::session::Signs as _;
use crate::auth::{Pass, Session, UserTable};
use crate::config::{AuthConfig, AuthMode};
use crate::net::unix_millis;

/// Everything that decides who may come in.
#[derive(Clone, Debug)]
pub(super) struct Guests {
    pub(super) mode: AuthMode,
    pub(super) users: Arc<UserTable>,
    pub(super) sessions: SessionRules,
    pub(super) proxies: ProxyGate,
    pub(super) tokens: TokenGate,
}

/// Decides which sessions are valid.
#[derive(Clone, Debug)]
pub(super) struct SessionRules {
    pub(super) signer: CookieSigner,
    pub(super) signed_by: u64,
    pub(super) lifetime: Duration,
    /// The sessions that were ended before their time.
    pub(super) ended: Arc<Logouts>,
}

impl SessionRules {
    pub(super) fn of(config: &AuthConfig, own: &CookieSigner, ended: Arc<Logouts>) -> Self {
        let secret = config.session_key.as_ref();
        let signer = secret.map_or_else(|| own.clone(), |it| CookieSigner::of_secret(it.reveal()));
        Self { signed_by: signer.mark(), signer, lifetime: config.session_lifetime, ended }
    }

    /// How much longer a session is valid that was read earlier. `None` if it is over.
    pub(super) fn left(&self, session: &Session) -> Option<Duration> {
        let holds = session.signed_by == self.signed_by && !self.ended.has_ended(session);
        session.left(self.lifetime, unix_millis()).filter(|_| holds)
    }
}

impl Guests {
    pub(super) fn may_stay(&self, pass: Option<&Pass>) -> bool {
        match self.mode {
            AuthMode::Off => true,
            AuthMode::Keys => pass.is_some_and(|Pass { user, session, proxy, token }| {
                let holds = |session: &Arc<Session>| self.sessions.left(session).is_some();
                let is_user = proxy.is_none() && token.is_none() && self.users.still_has(user);
                is_user && session.as_ref().is_none_or(holds)
            }),
            AuthMode::Header => {
                let proxy = pass.and_then(|pass| pass.proxy.as_ref());
                proxy.is_some_and(|rules| self.proxies.holds(rules))
            }
            AuthMode::Jwt => {
                let shown = pass.and_then(|pass| pass.token.as_ref());
                shown.is_some_and(|shown| self.tokens.left(&shown.token).is_some())
            }
        }
    }

    /// How long the session or the token of a pass still holds; `None` once it does not.
    pub(super) fn left(&self, Pass { session, token, .. }: &Pass) -> Option<Duration> {
        match (session, token) {
            (Some(session), _) => self.sessions.left(session),
            (None, Some(shown)) => self.tokens.left(&shown.token),
            (None, None) => None,
        }
    }

    /// A socket belongs to its client, and the client's realm does not change. When users are
    /// turned off, a page acts for another realm.
    pub(super) fn may_keep_socket(&self, pass: Option<&Pass>) -> bool {
        match self.mode {
            AuthMode::Off => pass.is_none(),
            AuthMode::Keys | AuthMode::Header | AuthMode::Jwt => self.may_stay(pass),
        }
    }
}

/// Decides whether a user may keep open connections.
pub(super) type MayStay = fn(&Guests, Option<&Pass>) -> bool;
