//! Decides who may come in (promise A1), and for how long.
//!
//! Both ways of answering ask [`crate::auth::judge`] once for each request, before anything else:
//! hyper's in [`admit`], the passthrough in [`super::passthrough::request::Plain::admit`]. The key
//! that let somebody in is removed from the request there, so that nothing later can reveal it. Our
//! cookies are removed wherever a request to a backend is built ([`headers::to_backend`]). Only
//! hyper's way answers requests that are refused.
//!
//! Some requests last long: a socket, or an answer without an end. [`Admission::until_over`] waits
//! until the user may not stay any longer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{HeaderName, REFERRER_POLICY};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri};
use smallvec::SmallVec;

use super::caller::{IdentityHints, door};
use super::cookie_signer::CookieSigner;
use super::cors::CorsDecision;
use super::error::GatewayError;
use super::guests::{Guests, MayStay, SessionRules};
use super::proxy_gate::ProxyGate;
use super::session_cookie::session_of;
use super::token_gate::{self, TokenGate};
use super::{Front, audited, comfy_user, cors, headers, proxy_gate};
use crate::auth::head::TOKEN;
use crate::auth::jwt::keys::KeySet;
use crate::auth::jwt::place::{self, Cookies};
use crate::auth::logouts::Logouts;
use crate::auth::users::ShownBy;
use crate::auth::{Admitted, Asked, Pass, ProxyRules, Refusal, Session, User, UserTable, judge};
use crate::body::ResponseBody;
use crate::body::cut::cut;
use crate::comfy::query;
use crate::config::{AuthConfig, AuthMode, Cidr};
use crate::net::{Boxed, sleep, unix_millis};
use crate::ordered_watch::OrderedWatch;
use crate::ws;

/// How long at most somebody stays who has a limit, before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// The users and rules that are in effect.
#[derive(Debug)]
pub struct Admission {
    pub(super) guests: ArcSwap<Guests>,
    /// Signs sessions if the configuration has no key for that.
    own_signer: CookieSigner,
    /// How often the rules have changed.
    changes: OrderedWatch<u64>,
}

impl Admission {
    /// `own_signer` signs sessions if the configuration has no key for that.
    #[must_use]
    pub fn new(config: &AuthConfig, own_signer: CookieSigner, ended: Logouts) -> Arc<Self> {
        let sessions = SessionRules::of(config, &own_signer, Arc::new(ended));
        let (mode, users) = (config.mode, Arc::clone(&config.users));
        let (proxies, tokens) = (ProxyGate::default(), TokenGate::default().renewed(config));
        let guests = ArcSwap::from_pointee(Guests { mode, users, sessions, proxies, tokens });
        Arc::new(Self { guests, own_signer, changes: OrderedWatch::default() })
    }

    #[must_use]
    pub fn users(&self) -> Arc<UserTable> {
        Arc::clone(&self.guests.load().users)
    }

    /// Applies a new configuration, with its users, which were read again. `trusted` are the
    /// trusted proxies.
    pub fn reconfigure(&self, config: &AuthConfig, trusted: &[Cidr]) {
        let (mode, users) = (config.mode, &config.users);
        self.change(|now| {
            let ended = Arc::clone(&now.sessions.ended);
            let sessions = SessionRules::of(config, &self.own_signer, ended);
            let proxies = now.proxies.renewed(config, trusted);
            let tokens = now.tokens.renewed(config);
            Guests { mode, users: Arc::clone(users), sessions, proxies, tokens }
        });
    }

    /// The rules by which the other end of a connection is trusted to name the user of a request.
    #[must_use]
    pub fn believed(&self, peer: IpAddr) -> Option<Arc<ProxyRules>> {
        self.guests.load().proxies.believes(peer).cloned()
    }

    /// The tokens that let somebody in, as they are now.
    #[must_use]
    pub(super) fn tokens(&self) -> TokenGate {
        self.guests.load().tokens.clone()
    }

    /// Keys that sign tokens were fetched from this URL.
    pub(super) fn replace_keys(&self, url: &str, keys: &Arc<KeySet>) {
        self.change(|now| match now.tokens.with_keys(url, keys) {
            Some(tokens) => Guests { tokens, ..now.clone() },
            None => now.clone(),
        });
    }

    /// Waits until keys are to be fetched. Cancel safe.
    pub(super) async fn asks_for_fetched_keys(&self) {
        self.changes.wait_for(|_| self.guests.load().tokens.keys_url().is_some()).await;
    }

    /// Waits until keys are no longer fetched from this URL. Cancel safe.
    pub(super) async fn fetches_elsewhere(&self, url: &str) {
        self.changes.wait_for(|_| self.guests.load().tokens.keys_url() != Some(url)).await;
    }

    /// Applies a changed file of users.
    pub fn replace_users(&self, users: &Arc<UserTable>) {
        self.change(|now| Guests { users: Arc::clone(users), ..now.clone() });
    }

    /// Applies a changed set of ended sessions.
    pub fn replace_ended(&self, ended: &Arc<Logouts>) {
        self.change(|now| {
            let sessions = SessionRules { ended: Arc::clone(ended), ..now.sessions.clone() };
            Guests { sessions, ..now.clone() }
        });
    }

    fn change(&self, change: impl Fn(&Guests) -> Guests) {
        self.guests.rcu(|now| change(now));
        self.changes.change(|count| count.wrapping_add(1));
    }

    /// Creates a session for a user's browser. Returns the value of its cookie.
    #[must_use]
    pub fn begin(&self, user: &User, browser: u128) -> String {
        let SessionRules { signer, ended, .. } = &self.guests.load().sessions;
        // The clock may have been set back since the user logged out everywhere.
        let issued = ended.begins(&user.name, unix_millis());
        let session = Session::of(user, (rand::random(), browser), issued, signer);
        session.to_text(signer)
    }

    /// True if a session of this user that begins now would not be valid yet, because the clock was
    /// set back by a large amount since the user's sessions were ended.
    #[must_use]
    pub fn is_ahead(&self, user: &User) -> bool {
        self.guests.load().sessions.ended.is_ahead(&user.name, unix_millis())
    }

    /// The session in the value of a cookie, if it is valid.
    #[must_use]
    pub fn session(&self, value: &[u8]) -> Option<Session> {
        let guests = self.guests.load();
        let session = Session::read(value, &guests.sessions.signer)?;
        guests.sessions.left(&session).is_some().then_some(session)
    }

    /// True while a session that was read earlier is valid. The caller checks the user.
    #[must_use]
    pub fn holds(&self, session: &Session) -> bool {
        self.guests.load().sessions.left(session).is_some()
    }

    /// A mark of the user at a session's browser: equal for the same user, different for others.
    #[must_use]
    pub fn mark_of(&self, user: &User) -> String {
        let signer = &self.guests.load().sessions.signer;
        let digest = signer.digest(&[b"who", user.name.as_str().as_bytes()]);
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Binds a form to the browser that it was shown to.
    #[must_use]
    pub fn form_token(&self, form: &[u8]) -> [u8; 32] {
        self.guests.load().sessions.signer.digest(&[b"form", form])
    }

    /// Waits until keys are required. Cancel safe.
    pub async fn asks_for_keys(&self) {
        self.changes.wait_for(|_| self.guests.load().mode == AuthMode::Keys).await;
    }

    /// Waits until somebody who came in with this pass, or with none, may not stay. The age of the
    /// session is not checked here. Cancel safe.
    #[must_use]
    fn until_barred(self: &Arc<Self>, pass: Option<Pass>, may: MayStay) -> Boxed<'static, ()> {
        let this = Arc::clone(self);
        Box::pin(async move {
            this.changes.wait_for(|_| !may(&this.guests.load(), pass.as_ref())).await;
        })
    }

    /// The same, but it also ends when the session is too old. Cancel safe.
    #[must_use]
    pub fn until_over(self: &Arc<Self>, pass: Option<Pass>) -> Boxed<'static, ()> {
        self.until(pass, Guests::may_stay)
    }

    /// The same for a client's socket. Cancel safe.
    #[must_use]
    pub fn until_socket_over(self: &Arc<Self>, pass: Option<Pass>) -> Boxed<'static, ()> {
        self.until(pass, Guests::may_keep_socket)
    }

    fn until(self: &Arc<Self>, pass: Option<Pass>, may: MayStay) -> Boxed<'static, ()> {
        let ages = |pass: &Pass| pass.session.is_some() || pass.token.is_some();
        let Some(aging) = pass.as_ref().filter(|it| ages(it)).cloned() else {
            return self.until_barred(pass, may);
        };
        let (this, barred) = (Arc::clone(self), self.until_barred(pass, may));
        Box::pin(async move {
            // A reload may have changed the lifetime in the meantime.
            let aged = async {
                loop {
                    let left = this.guests.load().left(&aging);
                    let Some(left) = left else { return };
                    // The clock of the wall may be set, and does not stop with the machine.
                    sleep(left.min(LOOK_AGAIN)).await;
                }
            };
            tokio::select! {
                () = barred => {}
                () = aged => {}
            }
        })
    }
}

/// A user who was let in.
#[derive(Clone, Debug)]
pub struct Guest {
    pub pass: Pass,
    /// The key was in the query.
    is_by_address: bool,
}

/// Finds the user of a request, and removes the key from it, and what it says itself about its
/// user. `None` means that everybody may come in, as anybody.
///
/// # Errors
/// The sender may not come in, or may not do this.
pub fn admit<B>(
    front: &Front,
    from: (IpAddr, &CorsDecision),
    request: &mut Request<B>,
) -> Result<Option<Guest>, GatewayError> {
    let guest = guest_of(front, from, request)?;
    if let Some(guest) = &guest {
        comfy_user::enter(&front.shared.config().auth, &guest.pass, request);
    }
    token_gate::take_off_cookie(front, request);
    Ok(guest)
}

fn guest_of<B>(
    front: &Front,
    (peer, decision): (IpAddr, &CorsDecision),
    request: &mut Request<B>,
) -> Result<Option<Guest>, GatewayError> {
    match front.shared.config().auth.mode {
        AuthMode::Off => Ok(None),
        AuthMode::Keys => {
            let session = session_in(front, (peer, decision), request);
            admit_user(front, peer, session.as_ref(), request).map(Some)
        }
        AuthMode::Header => {
            let rules = front.admission.believed(peer).filter(|_| !cors::is_anybodys(decision));
            let pass = proxy_gate::admit((front, peer), rules.as_ref(), request)?;
            Ok(Some(Guest { pass, is_by_address: false }))
        }
        AuthMode::Jwt => {
            let is_anybodys = cors::is_anybodys(decision);
            let cookies = if is_anybodys { Cookies::Ignored } else { Cookies::Count };
            let pass = token_gate::admit((front, peer), cookies, request)?;
            Ok(Some(Guest { pass, is_by_address: false }))
        }
    }
}

/// Removes the headers that have let somebody in.
pub(super) fn take_off<B>(request: &mut Request<B>, is_spent: impl Fn(&str) -> bool) {
    let is_it = |name: &&HeaderName| is_spent(name.as_str());
    let spent: SmallVec<[HeaderName; 2]> =
        request.headers().keys().filter(is_it).cloned().collect();
    for name in spent {
        request.headers_mut().remove(name);
    }
}

/// The session of a request, unless the request may come from a foreign page: a browser sends
/// cookies with those requests too.
#[must_use]
pub fn session_in<B>(
    front: &Front,
    (peer, decision): (IpAddr, &CorsDecision),
    request: &Request<B>,
) -> Option<Arc<Session>> {
    if cors::is_anybodys(decision) {
        return None;
    }
    let hints = IdentityHints::of(request);
    let door = door(&front.shared.config().server, peer, &hints);
    session_of(&front.admission, door, &hints)
}

/// Checks the page that a request comes from. A browser sends its session with every request,
/// whatever page causes it. The same is true for the session at a proxy that names the user. So a
/// request that changes something must say that it comes from one of our pages or of an allowed
/// page. Requests of pages that are known to be foreign were refused earlier.
///
/// # Errors
/// The request does not say which page it comes from.
pub fn check_page<B>(guest: &Guest, request: &Request<B>) -> Result<(), GatewayError> {
    let Pass { session, proxy, token, .. } = &guest.pass;
    let is_by_cookie = token.as_ref().is_some_and(|shown| shown.by == ShownBy::Cookie);
    let may_be_by_session = session.is_some() || proxy.is_some() || is_by_cookie;
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        || ws::is_asked(request);
    match may_be_by_session && changes && !cors::says_its_page(request.headers()) {
        true => Err(GatewayError::PageUnsaid),
        false => Ok(()),
    }
}

fn admit_user<B>(
    front: &Front,
    peer: IpAddr,
    session: Option<&Arc<Session>>,
    request: &mut Request<B>,
) -> Result<Guest, GatewayError> {
    let (uri, headers) = (request.uri(), request.headers());
    let (path, query) = (uri.path(), uri.query().unwrap_or(""));
    let asked = Asked { method: request.method(), path, query, session };
    let lines = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let judged = judge(&front.admission.users(), asked, lines);
    let Admitted { pass, spent } = judged.inspect_err(|refusal| {
        front.shared.metrics.guests.refused(refusal.as_str());
        audited::not_let_in(front, *refusal, audited::address_of(front, peer, request));
    })?;
    take_off(request, |name| spent.has(name));
    if spent.token {
        *request.uri_mut() = without_token(request.uri());
    }
    request.extensions_mut().insert(pass.clone());
    Ok(Guest { pass, is_by_address: spent.token })
}

impl From<Refusal> for GatewayError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Missing | Refusal::Unknown | Refusal::Ambiguous | Refusal::BadName => {
                Self::Unauthorized
            }
            Refusal::OnlyReads => Self::ViewersOnlyRead,
            Refusal::NoRole => Self::NoRole,
            Refusal::NoKeys => Self::NoKeys,
        }
    }
}

/// The same URI without the key in its query.
pub(super) fn without_token(uri: &Uri) -> Uri {
    let target = match query::without_parameter(uri.query().unwrap_or(""), TOKEN) {
        query if query.is_empty() => uri.path().to_owned(),
        query => format!("{}?{query}", uri.path()),
    };
    let mut parts = uri.clone().into_parts();
    // What is left of a valid target is valid.
    parts.path_and_query = target.parse().ok().or(Some(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

/// Marks an answer as personal: shared caches must not store it, and it ends when the user is
/// barred.
pub fn answer_to(front: &Front, guest: &Guest, response: &mut Response<ResponseBody>) {
    headers::keep_for_one(response.headers_mut());
    if let Some(name) = guest.pass.token_cookie() {
        headers::keep_cookie(response.headers_mut(), |pair| place::is_it(pair, name));
    }
    if guest.is_by_address {
        // The page must not reveal its address, which contains the key, to other sites.
        let policy = HeaderValue::from_static("no-referrer");
        response.headers_mut().insert(REFERRER_POLICY, policy);
    }
    if let ResponseBody::Whole(_) = response.body() {
        // The whole body is there.
        return;
    }
    let barred = front.admission.until_over(Some(guest.pass.clone()));
    let body = std::mem::replace(response.body_mut(), ResponseBody::empty());
    *response.body_mut() = cut(body, barred);
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::*;
    use crate::auth::Role;
    use crate::auth::key::KeyHash;
    use crate::config::Secret;

    fn user(name: &str, generation: u64) -> User {
        let key = KeyHash::of(name.as_bytes());
        let name = name.parse().unwrap();
        User { name, role: Role::Artist, generation, key, password: None }
    }

    fn config(mode: AuthMode, users: &[User]) -> AuthConfig {
        AuthConfig { mode, ..AuthConfig::keys(UserTable::of(users.iter().cloned()).unwrap()) }
    }

    fn admission(config: &AuthConfig) -> Arc<Admission> {
        Admission::new(config, CookieSigner::new(), Logouts::default())
    }

    #[test]
    fn a_pass_holds_until_its_user_is_gone_or_another() {
        let both = [user("ada", 1), user("bob", 1)];
        let admission = admission(&config(AuthMode::Keys, &both));
        let pass = |name: &str| {
            let user = admission.users().by_key(name.as_bytes()).cloned();
            user.map(|user| Pass { user, session: None, proxy: None, token: None })
        };
        let (mut ada, mut bob) = (
            admission.until_barred(pass("ada"), Guests::may_stay),
            admission.until_barred(pass("bob"), Guests::may_stay),
        );
        let mut cx = Context::from_waker(Waker::noop());
        assert!(ada.as_mut().poll(&mut cx).is_pending() && bob.as_mut().poll(&mut cx).is_pending());
        let table = UserTable::of([user("ada", 1), user("bob", 2)]).unwrap();
        admission.replace_users(&Arc::new(table));
        assert!(ada.as_mut().poll(&mut cx).is_pending());
        assert!(bob.as_mut().poll(&mut cx).is_ready());
        admission.reconfigure(&config(AuthMode::Keys, &[]), &[]);
        assert!(ada.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn who_came_in_without_a_key_leaves_when_one_is_asked_for() {
        let admission = admission(&config(AuthMode::Off, &[]));
        let mut anybody = admission.until_barred(None, Guests::may_stay);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(anybody.as_mut().poll(&mut cx).is_pending());
        admission.reconfigure(&config(AuthMode::Keys, &[user("ada", 1)]), &[]);
        assert!(anybody.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn a_users_socket_ends_when_users_are_not_asked_for_any_more_and_his_answer_does_not() {
        let admission = admission(&config(AuthMode::Keys, &[user("ada", 1)]));
        let user = admission.users().by_key(b"ada").cloned().unwrap();
        let pass =
            || Some(Pass { user: Arc::clone(&user), session: None, proxy: None, token: None });
        let (mut socket, mut answer) =
            (admission.until_socket_over(pass()), admission.until_over(pass()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(socket.as_mut().poll(&mut cx).is_pending());
        admission.reconfigure(&config(AuthMode::Off, &[]), &[]);
        assert!(socket.as_mut().poll(&mut cx).is_ready());
        assert!(answer.as_mut().poll(&mut cx).is_pending());
    }

    /// For each event that ends a session: the session is not valid any more, and its open
    /// connections end.
    #[test]
    fn a_session_holds_until_something_ends_it() {
        let ada = [user("ada", 1)];
        let keys = config(AuthMode::Keys, &ada);
        let secret = |text: &str| AuthConfig {
            session_key: Some(Secret::parse(text).unwrap()),
            ..keys.clone()
        };
        type End<'a> = &'a dyn Fn(&Admission, &Session);
        let ends: [(&str, End<'_>); 5] = [
            ("logout", &|it, session| {
                let mut ended = Logouts::default();
                ended.end(session);
                it.replace_ended(&Arc::new(ended));
            }),
            ("another key", &|it, _| it.reconfigure(&secret("another"), &[])),
            ("a shorter time", &|it, _| {
                it.reconfigure(
                    &AuthConfig { session_lifetime: Duration::ZERO, ..keys.clone() },
                    &[],
                );
            }),
            ("no such user", &|it, _| it.reconfigure(&config(AuthMode::Keys, &[]), &[])),
            ("another generation", &|it, _| {
                it.replace_users(&Arc::new(UserTable::of([user("ada", 2)]).unwrap()));
            }),
        ];
        for (what, end) in ends {
            let admission = admission(&keys);
            let text = admission.begin(&ada[0], 7);
            let session = admission.session(text.as_bytes()).unwrap();
            assert!(session.browser == 7 && session.user.as_str() == "ada", "{what}");
            let user = admission.users().by_key(b"ada").cloned().unwrap();
            let pass =
                Pass { user, session: Some(Arc::new(session.clone())), proxy: None, token: None };
            let mut barred = admission.until_barred(Some(pass), Guests::may_stay);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(barred.as_mut().poll(&mut cx).is_pending(), "{what}");
            end(&admission, &session);
            assert!(barred.as_mut().poll(&mut cx).is_ready(), "{what}");
        }
    }

    #[test]
    fn who_has_logged_in_is_the_same_after_a_restart_with_the_same_key_alone() {
        let ada = [user("ada", 1)];
        let of = |secret: &str| {
            let session_key = Some(Secret::parse(secret).unwrap());
            admission(&AuthConfig { session_key, ..config(AuthMode::Keys, &ada) })
        };
        let text = of("one").begin(&ada[0], 7);
        assert!(of("one").session(text.as_bytes()).is_some());
        assert_eq!(of("two").session(text.as_bytes()), None);
        let mark = |secret: &str, user: &User| of(secret).mark_of(user);
        assert_eq!(mark("one", &ada[0]), mark("one", &user("ada", 2)));
        assert_ne!(mark("one", &ada[0]), mark("one", &user("bob", 1)));
        assert_ne!(mark("one", &ada[0]), mark("two", &ada[0]));
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
