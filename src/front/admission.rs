//! Who is let in (promise A1), and until when.
//!
//! Both ways of answering ask [`crate::auth::judge`] once for each request, before anything else:
//! hyper's in [`admit`], the passthrough in [`super::passthrough::request::Plain::admit`]. What let
//! somebody in is taken off there, so that nothing behind it can give it away. Hyper's way alone
//! tells whoever is not let in.
//!
//! Somebody may be let in for long: a socket, an answer without an end. [`Admission::until_barred`]
//! says when he may not any more.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{HeaderName, REFERRER_POLICY};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use smallvec::SmallVec;

use super::Front;
use super::error::GatewayError;
use super::headers;
use crate::auth::head::TOKEN;
use crate::auth::{Admitted, Asked, Pass, Refusal, UserTable, judge};
use crate::body::ResponseBody;
use crate::body::cut::cut;
use crate::comfy::query;
use crate::config::{AuthConfig, AuthMode};
use crate::net::Boxed;
use crate::ordered_watch::OrderedWatch;

/// Who may come in now.
#[derive(Debug)]
pub struct Admission {
    guests: ArcSwap<Guests>,
    /// How often it was changed.
    changes: OrderedWatch<u64>,
}

#[derive(Clone, Debug)]
struct Guests {
    mode: AuthMode,
    users: Arc<UserTable>,
}

impl Guests {
    fn of(config: &AuthConfig) -> Self {
        Self { mode: config.mode, users: Arc::clone(&config.users) }
    }

    fn may_stay(&self, pass: Option<&Pass>) -> bool {
        match self.mode {
            AuthMode::Off => true,
            AuthMode::Keys => pass.is_some_and(|pass| self.users.still_has(pass)),
        }
    }
}

impl Admission {
    #[must_use]
    pub fn new(config: &AuthConfig) -> Arc<Self> {
        let guests = ArcSwap::from_pointee(Guests::of(config));
        Arc::new(Self { guests, changes: OrderedWatch::default() })
    }

    #[must_use]
    pub fn users(&self) -> Arc<UserTable> {
        Arc::clone(&self.guests.load().users)
    }

    /// The configuration was replaced, and with it the users, which were read anew.
    pub fn reconfigure(&self, config: &AuthConfig) {
        self.guests.store(Arc::new(Guests::of(config)));
        self.changes.change(|count| count.wrapping_add(1));
    }

    /// The file of users has changed.
    pub fn replace_users(&self, users: &Arc<UserTable>) {
        self.guests.rcu(|now| Guests { mode: now.mode, users: Arc::clone(users) });
        self.changes.change(|count| count.wrapping_add(1));
    }

    /// Waits until users count at all. Cancel safe.
    pub async fn asks_for_keys(&self) {
        self.changes.wait_for(|_| self.guests.load().mode == AuthMode::Keys).await;
    }

    /// Waits until somebody may not stay who came in with this pass, or with none. Cancel safe.
    #[must_use]
    pub fn until_barred(self: &Arc<Self>, pass: Option<Pass>) -> Boxed<'static, ()> {
        let this = Arc::clone(self);
        Box::pin(async move {
            this.changes.wait_for(|_| !this.guests.load().may_stay(pass.as_ref())).await;
        })
    }
}

/// Somebody who was let in.
#[derive(Clone, Debug)]
pub struct Guest {
    pub pass: Pass,
    /// His key stood in the address.
    is_by_address: bool,
}

/// Says who sends a request, and takes off it what let him in. `None` is everybody.
///
/// # Errors
/// He may not come in, or not do this.
pub fn admit<B>(front: &Front, request: &mut Request<B>) -> Result<Option<Guest>, GatewayError> {
    match front.shared.config().auth.mode {
        AuthMode::Off => Ok(None),
        AuthMode::Keys => admit_user(front, request).map(Some),
    }
}

fn admit_user<B>(front: &Front, request: &mut Request<B>) -> Result<Guest, GatewayError> {
    let (uri, headers) = (request.uri(), request.headers());
    let (path, query) = (uri.path(), uri.query().unwrap_or(""));
    let asked = Asked { method: request.method(), path, query };
    let lines = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let judged = judge(&front.admission.users(), asked, lines);
    let Admitted { pass, spent } =
        judged.inspect_err(|refusal| front.shared.metrics.guests.refused(refusal.as_str()))?;
    let spent_headers: SmallVec<[HeaderName; 2]> =
        headers.keys().filter(|name| spent.has(name.as_str())).cloned().collect();
    for name in spent_headers {
        request.headers_mut().remove(name);
    }
    if spent.token {
        *request.uri_mut() = without_token(request.uri());
    }
    request.extensions_mut().insert(Arc::clone(&pass));
    Ok(Guest { pass, is_by_address: spent.token })
}

impl From<Refusal> for GatewayError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing | Refusal::Unknown | Refusal::Ambiguous => Self::Unauthorized,
            Refusal::OnlyReads => Self::ViewersOnlyRead,
        }
    }
}

/// The same address without the key in its query.
fn without_token(uri: &Uri) -> Uri {
    let target = match query::without_parameter(uri.query().unwrap_or(""), TOKEN) {
        query if query.is_empty() => uri.path().to_owned(),
        query => format!("{}?{query}", uri.path()),
    };
    let mut parts = uri.clone().into_parts();
    // What is left of a target is one.
    parts.path_and_query = target.parse().ok().or(Some(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

/// Makes an answer one for this user: no cache of others keeps it, and it ends when he is barred.
pub fn answer_to(front: &Front, guest: &Guest, response: &mut Response<ResponseBody>) {
    headers::keep_for_one(response.headers_mut());
    if guest.is_by_address {
        // A page that is shown must not tell others with which address.
        let policy = HeaderValue::from_static("no-referrer");
        response.headers_mut().insert(REFERRER_POLICY, policy);
    }
    if let ResponseBody::Whole(_) = response.body() {
        // All of it is there.
        return;
    }
    let barred = front.admission.until_barred(Some(Arc::clone(&guest.pass)));
    let body = std::mem::replace(response.body_mut(), ResponseBody::empty());
    *response.body_mut() = cut(body, barred);
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::auth::key::KeyHash;
    use crate::auth::{Role, User};

    fn user(name: &str, generation: u64) -> User {
        let key = KeyHash::of(name.as_bytes());
        User { name: name.parse().unwrap(), role: Role::Artist, generation, key }
    }

    fn config(mode: AuthMode, users: &[User]) -> AuthConfig {
        let users = Arc::new(UserTable::of(users.iter().cloned()).unwrap());
        AuthConfig { mode, users_file: None, users }
    }

    #[test]
    fn a_pass_holds_until_its_user_is_gone_or_another() {
        let both = [user("ada", 1), user("bob", 1)];
        let admission = Admission::new(&config(AuthMode::Keys, &both));
        let pass = |name: &str| admission.users().by_key(name.as_bytes()).cloned();
        let (mut ada, mut bob) =
            (admission.until_barred(pass("ada")), admission.until_barred(pass("bob")));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(ada.as_mut().poll(&mut cx).is_pending() && bob.as_mut().poll(&mut cx).is_pending());
        let table = UserTable::of([user("ada", 1), user("bob", 2)]).unwrap();
        admission.replace_users(&Arc::new(table));
        assert!(ada.as_mut().poll(&mut cx).is_pending());
        assert!(bob.as_mut().poll(&mut cx).is_ready());
        admission.reconfigure(&config(AuthMode::Keys, &[]));
        assert!(ada.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn who_came_in_without_a_key_leaves_when_one_is_asked_for() {
        let admission = Admission::new(&config(AuthMode::Off, &[]));
        let mut anybody = admission.until_barred(None);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(anybody.as_mut().poll(&mut cx).is_pending());
        admission.reconfigure(&config(AuthMode::Keys, &[user("ada", 1)]));
        assert!(anybody.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn only_the_key_is_taken_out_of_an_address() {
        let left = |uri: &str| without_token(&uri.parse().unwrap()).to_string();
        assert_eq!(left("/ws?token=x"), "/ws");
        assert_eq!(left("/ws?clientId=a%2Fb&token=x&y"), "/ws?clientId=a%2Fb&y");
        assert_eq!(left("/view?%74oken=x&filename=a.png&token=y"), "/view?filename=a.png");
        assert_eq!(left("http://host:1/ws?token=x"), "http://host:1/ws");
    }
}
