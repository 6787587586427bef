//! The tokens that let in their users (`auth.mode = "jwt"`), and the keys that sign them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderName, HeaderValue, Method, Request};

use super::admission::without_token;
use super::error::GatewayError;
use super::{Front, audited};
use crate::auth::head::{TOKEN, may_hold_token};
use crate::auth::jwt::keys::KeySet;
use crate::auth::jwt::place::{self, Carrier, Cookies};
use crate::auth::jwt::verified::{Forged, Verified, hash};
use crate::auth::jwt::{self, Fault, JwtRules, Token};
use crate::auth::{Pass, Refusal};
use crate::comfy::query;
use crate::config::AuthConfig;
use crate::lock::{Lock, rank};
use crate::net::unix_millis;

/// Which tokens let somebody in. `None` is none.
#[derive(Clone, Debug, Default)]
pub(super) struct TokenGate {
    /// Another one whenever something of it changes: who came in by these may stay while they are
    /// the same.
    rules: Option<Arc<JwtRules>>,
    keys: Arc<KeySet>,
    /// Those that were found good, by whatever rules and keys.
    verified: Arc<Lock<Verified, { rank::TOKENS }>>,
    /// Those that were found forged, by these rules and keys.
    forged: Arc<Lock<Forged, { rank::TOKENS }>>,
    /// The cookie that may hold a token. No backend gets it, whatever the mode: browsers have it
    /// for longer than a mode is in effect.
    cookie: Option<Arc<str>>,
}

impl TokenGate {
    /// The same rules as before where nothing has changed. Keys that were fetched stay while they
    /// come from the same place.
    #[must_use]
    pub(super) fn renewed(&self, auth: &AuthConfig) -> Self {
        let rules = auth.jwt_rules();
        let fetched = rules.as_ref().and_then(|rules| rules.keys_url.as_ref());
        let before = self.rules.as_ref().and_then(|rules| rules.keys_url.as_ref());
        let keys = match fetched {
            Some(url) if Some(url) == before => Arc::clone(&self.keys),
            Some(_) => Arc::default(),
            None => Arc::clone(&auth.jwt.keys),
        };
        let is_same = rules.as_ref() == self.rules.as_deref();
        let rules = if is_same { self.rules.clone() } else { rules.map(Arc::new) };
        let is_same = is_same && Arc::ptr_eq(&keys, &self.keys);
        let forged = if is_same { Arc::clone(&self.forged) } else { Arc::default() };
        let cookie = auth.jwt.cookie.as_deref().map(Into::into);
        Self { rules, keys, verified: Arc::clone(&self.verified), forged, cookie }
    }

    /// The same with keys that were fetched from there; `None` if they come from elsewhere now.
    #[must_use]
    pub(super) fn with_keys(&self, url: &str, keys: &Arc<KeySet>) -> Option<Self> {
        let is_there = self.keys_url() == Some(url);
        let forged = Arc::default();
        is_there.then(|| Self { keys: Arc::clone(keys), forged, ..self.clone() })
    }

    /// Where keys are fetched from.
    #[must_use]
    pub(super) fn keys_url(&self) -> Option<&str> {
        self.rules.as_ref().and_then(|rules| rules.keys_url.as_deref())
    }

    #[must_use]
    pub(super) fn keys(&self) -> &Arc<KeySet> {
        &self.keys
    }

    /// The cookie that may hold a token.
    #[must_use]
    pub(super) fn cookie(&self) -> Option<&Arc<str>> {
        self.cookie.as_ref()
    }

    /// For how long a token still holds that was found good before; `None` once it does not.
    #[must_use]
    pub(super) fn left(&self, token: &Token) -> Option<Duration> {
        let is_same = self.rules.as_ref().is_some_and(|now| Arc::ptr_eq(now, &token.rules));
        token.left(unix_millis()).filter(|_| is_same && self.keys.has(&token.key))
    }

    fn verify(&self, text: &[u8]) -> Result<Arc<Token>, Fault> {
        let rules = self.rules.as_ref().ok_or(Fault::UnknownKey)?;
        let hash = hash(text);
        let (known, forgotten) = self.verified.lock().get(&hash);
        drop(forgotten);
        if let Some(token) = known {
            if self.left(&token).is_some() {
                return Ok(token);
            }
            self.verified.lock().forget(&hash);
        }
        if self.forged.lock().has(&hash) {
            return Err(Fault::Signature);
        }
        let verified = jwt::verify(text, (rules, &self.keys), unix_millis());
        if verified.as_ref().is_err_and(|fault| *fault == Fault::Signature) {
            self.forged.lock().note(hash);
        }
        let token = Arc::new(verified.map_err(|fault| self.excused(fault))?);
        let forgotten = self.verified.lock().keep(hash, Arc::clone(&token));
        drop(forgotten);
        Ok(token)
    }

    /// While there is no key at all, it is not the token's fault that its key is not known.
    fn excused(&self, fault: Fault) -> Fault {
        let has_none = self.keys_url().is_some() && self.keys.is_empty();
        if has_none && fault == Fault::UnknownKey { Fault::NoKeys } else { fault }
    }

    /// Says who sends a head with these headers.
    ///
    /// # Errors
    /// It is nobody who may do this.
    pub(super) fn judge<'a>(
        &self,
        cookies: Cookies,
        method: &Method,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Carrier, Refusal> {
        place::judge((self.cookie().map(AsRef::as_ref), cookies), method, headers, |text| {
            self.verify(text).inspect_err(|fault| tracing::debug!(%fault, "A token was refused."))
        })
    }

    /// True if a request may have a token whose key is not known yet.
    #[must_use]
    pub(super) fn needs_another_key<B>(&self, request: &Request<B>) -> bool {
        let headers = request.headers();
        let bearers =
            headers.get_all(AUTHORIZATION).iter().filter_map(|it| place::token(it.as_bytes()));
        let cookies = headers.get_all(COOKIE).iter().flat_map(|line| {
            self.cookie().into_iter().flat_map(|name| place::values(line.as_bytes(), name))
        });
        let is_unknown = |text: &[u8]| {
            let (known, forgotten) = self.verified.lock().get(&hash(text));
            drop(forgotten);
            known.is_none() && jwt::needs_another_key(text, &self.keys)
        };
        bearers.chain(cookies).any(is_unknown)
    }
}

/// Says who sends a request, as its token says, and takes the token off it.
///
/// # Errors
/// He may not come in, or not do this.
pub(super) fn admit<B>(
    (front, peer): (&Front, IpAddr),
    cookies: Cookies,
    request: &mut Request<B>,
) -> Result<Pass, GatewayError> {
    let gate = front.admission.tokens();
    let lines = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let judged = gate.judge(cookies, request.method(), lines);
    let carrier = judged.map_err(|refusal| {
        front.shared.metrics.guests.refused(refusal.as_str());
        audited::not_let_in(front, refusal, audited::address_of(front, peer, request));
        match refusal {
            Refusal::OnlyReads | Refusal::NoRole | Refusal::NoKeys => refusal.into(),
            Refusal::Missing | Refusal::Unknown | Refusal::Ambiguous | Refusal::BadName => {
                GatewayError::NoToken
            }
        }
    })?;
    take_off_tokens(request, &carrier);
    request.extensions_mut().insert(carrier.pass.clone());
    Ok(carrier.pass)
}

/// Takes off what has the form of a token, whether or not it let somebody in.
fn take_off_tokens<B>(request: &mut Request<B>, carrier: &Carrier) {
    const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
    for name in [AUTHORIZATION, API_KEY] {
        let mut lines = request.headers().get_all(&name).iter();
        if lines.any(|line| carrier.spends(name.as_str(), line.as_bytes())) {
            request.headers_mut().remove(&name);
        }
    }
    let query = request.uri().query().unwrap_or("");
    let mut tokens = query::parameters(query, TOKEN).into_iter();
    if may_hold_token(query) && tokens.any(|token| place::has_token(token.as_bytes())) {
        *request.uri_mut() = without_token(request.uri());
    }
}

/// Takes off the cookie that may hold a token, in every mode.
pub(super) fn take_off_cookie<B>(front: &Front, request: &mut Request<B>) {
    let gate = front.admission.tokens();
    let Some(name) = gate.cookie() else { return };
    let headers = request.headers_mut();
    let has = |line: &HeaderValue| without_cookie(line.as_bytes(), name).is_some();
    if !headers.get_all(COOKIE).iter().any(has) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for line in lines {
        let left = match without_cookie(line.as_bytes(), name) {
            Some(left) => HeaderValue::from_bytes(&left).ok(),
            None => Some(line),
        };
        if let Some(left) = left.filter(|left| !left.is_empty()) {
            headers.append(COOKIE, left);
        }
    }
}

/// What is left of a line of `Cookie` without this one; `None` if it was not there.
#[must_use]
pub(super) fn without_cookie(line: &[u8], name: &str) -> Option<Vec<u8>> {
    let pairs = || line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    if !pairs().any(|pair| place::is_it(pair, name)) {
        return None;
    }
    let others: Vec<&[u8]> =
        pairs().filter(|pair| !pair.is_empty() && !place::is_it(pair, name)).collect();
    Some(others.join(&b"; "[..]))
}
