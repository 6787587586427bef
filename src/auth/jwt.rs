//! Who sends a request, as a token says it (`auth.mode = "jwt"`): a JSON Web Token (RFC 7519) that
//! is signed as RFC 7515 says. Pure: what time it is and which keys there are is told.
//!
//! A token says by itself how it is to be checked, and by which key, and that is how tokens are
//! forged. So nothing of that is believed: an algorithm is one of three, all with public keys, a
//! key is one of those that the operator has named, and of the right kind for the algorithm. What
//! names other keys, or asks for what is not known here, is refused.
//!
//! - [`keys`]: public keys, as files and servers have them
//! - [`place`]: where a token stands in a head
//! - [`verified`]: tokens that were found good, so that they are not checked again
//! - `parts`: the three parts of a token

pub mod keys;
mod parts;
pub mod place;
pub mod verified;

use std::sync::Arc;

use serde_json::Value;

use super::head::Refusal;
use super::users::{Role, User, UserName};
use keys::{Key, KeySet};
use parts::{Object, Parts};

/// How far the clock of who made a token may be off, in seconds.
const GRACE: u64 = 60;

/// The largest token that is looked at, in bytes.
pub const TOKEN_MAX: usize = 16 << 10;

/// What a token has to say, and what that means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JwtRules {
    /// `iss` is this.
    pub issuer: String,
    /// `aud` is this, or has it in it.
    pub audience: String,
    /// Where keys come from if they are in no file: other ones are another's keys.
    pub keys_url: Option<String>,
    /// The cookie that may hold a token.
    pub cookie: Option<String>,
    /// The claim that holds the name of a user.
    pub user_claim: String,
    /// The claim that holds what he may do.
    pub role_claim: Option<String>,
    /// What those may do whose role is called so.
    pub group_roles: Vec<(String, Role)>,
    /// What those may do of whom nothing is said; `None` lets them not in.
    pub default_role: Option<Role>,
}

/// A token that was found good.
#[derive(Debug)]
pub struct Token {
    pub user: Arc<User>,
    /// Until when it holds, in milliseconds since 1970, with what clocks may be off.
    pub until: u64,
    /// By what it was found good.
    pub rules: Arc<JwtRules>,
    pub key: Arc<Key>,
}

/// Why a token lets nobody in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    #[error("it is no signed token in the compact form")]
    Form,
    #[error("its header is no JSON object, or says something twice")]
    Header,
    #[error("its algorithm is none of RS256, ES256 and EdDSA, or not the key's")]
    Algorithm,
    #[error("its header names a key of its own (`jwk`, `jku`, `x5c`, `x5u`)")]
    OwnKey,
    #[error("its header asks for what is not known here (`crit`, `enc`, `zip`)")]
    Critical,
    #[error("its `typ` or its claims are those of another kind of token")]
    Type,
    #[error("only who has a key of his own may send it (`cnf`)")]
    Bound,
    #[error("no key is called as its `kid`")]
    UnknownKey,
    #[error("several keys may be meant")]
    AmbiguousKey,
    #[error("its signature is not that of the key")]
    Signature,
    #[error("its claims are no JSON object, or one of them is there twice")]
    Claims,
    #[error("its `iss` is not `auth.jwt.issuer`")]
    Issuer,
    #[error("its `aud` has no `auth.jwt.audience`")]
    Audience,
    #[error("its `exp` or `nbf` is absent or no number")]
    Time,
    #[error("it has expired")]
    Expired,
    #[error("it does not hold yet")]
    Early,
    #[error("`auth.jwt.user_claim` holds no name that a user can have")]
    BadName,
    #[error("`email_verified` is not true")]
    Unverified,
    #[error("no key was fetched yet")]
    NoKeys,
    #[error("`auth.jwt.role_claim` holds nothing that lets somebody in")]
    NoRole,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::BadName | Fault::Unverified => Self::BadName,
            Fault::NoKeys => Self::NoKeys,
            Fault::NoRole => Self::NoRole,
            Fault::Form
            | Fault::Header
            | Fault::Algorithm
            | Fault::OwnKey
            | Fault::Critical
            | Fault::Type
            | Fault::Bound
            | Fault::UnknownKey
            | Fault::AmbiguousKey
            | Fault::Signature
            | Fault::Claims
            | Fault::Issuer
            | Fault::Audience
            | Fault::Time
            | Fault::Expired
            | Fault::Early => Self::Unknown,
        }
    }
}

/// What a token says, if it is good at `now`, in milliseconds since 1970.
///
/// # Errors
/// Why it is not.
pub fn verify(
    text: &[u8],
    (rules, keys): (&Arc<JwtRules>, &KeySet),
    now: u64,
) -> Result<Token, Fault> {
    let parts = Parts::of(text)?;
    let meant = keys_of(&parts, keys)?;
    // A signature costs far more to check than all else, and anybody can send a forged one.
    let claims = Object::parse(&parts.claims).ok_or(Fault::Claims)?;
    let until = check_claims(&claims, rules, now)?;
    let mut meant = meant.into_iter();
    let key = meant.find(|key| key.has_signed(parts.signed, &parts.signature));
    let key = key.ok_or(Fault::Signature)?;
    let name = claims.text(&rules.user_claim).ok_or(Fault::BadName)?;
    let name = name.parse::<UserName>().map_err(|_| Fault::BadName)?;
    if rules.user_claim == "email" && !may_be_his(claims.get("email_verified")) {
        return Err(Fault::Unverified);
    }
    let role = rules.role(&claims).ok_or(Fault::NoRole)?;
    let user = User { name, role, generation: 0, key: None, password: None };
    Ok(Token { user: Arc::new(user), until, rules: Arc::clone(rules), key: Arc::clone(key) })
}

/// Anybody can give a server the address of another as his own, until the server has asked there.
/// Some servers say nothing of it, and some say it as a text.
fn may_be_his(verified: Option<&Value>) -> bool {
    match verified {
        None => true,
        Some(Value::Bool(is_his)) => *is_his,
        Some(other) => other.as_str() == Some("true"),
    }
}

/// True for a token whose key is not there: it may be a new one.
#[must_use]
pub fn needs_another_key(text: &[u8], keys: &KeySet) -> bool {
    Parts::of(text).and_then(|parts| keys_of(&parts, keys).map(drop)) == Err(Fault::UnknownKey)
}

/// The keys that may have signed a token, if its header is in order.
fn keys_of<'k>(parts: &Parts<'_>, keys: &'k KeySet) -> Result<keys::Meant<'k>, Fault> {
    let header = Object::parse(&parts.header).ok_or(Fault::Header)?;
    if ["jwk", "jku", "x5c", "x5u"].into_iter().any(|name| header.has(name)) {
        return Err(Fault::OwnKey);
    }
    if ["crit", "enc", "zip", "b64"].into_iter().any(|name| header.has(name)) {
        return Err(Fault::Critical);
    }
    // A token for a logout or of an event is signed by the same key (RFC 8725 section 3.11).
    let is_type = |text: &str| ["jwt", "at+jwt"].iter().any(|it| text.eq_ignore_ascii_case(it));
    let is_known = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        let (kind, rest) = text.split_once('/').unwrap_or(("", text));
        is_type(rest) && (kind.is_empty() || kind.eq_ignore_ascii_case("application"))
    };
    if !header.get("typ").is_none_or(is_known) {
        return Err(Fault::Type);
    }
    let algorithm = header.text("alg").and_then(keys::Algorithm::of).ok_or(Fault::Algorithm)?;
    let id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.as_str()),
        Some(_) => return Err(Fault::Header),
    };
    keys.find(algorithm, id)
}

/// Until when a token with these claims holds.
fn check_claims(claims: &Object, rules: &JwtRules, now: u64) -> Result<u64, Fault> {
    if claims.get("events").is_some_and(are_events) {
        return Err(Fault::Type);
    }
    // RFC 7800: a thief of the token alone must not come in, and no proof is asked for here.
    if claims.has("cnf") {
        return Err(Fault::Bound);
    }
    if claims.text("iss") != Some(&rules.issuer) {
        return Err(Fault::Issuer);
    }
    let is_for_us = |value: &Value| value.as_str() == Some(&rules.audience);
    let is_for_us = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().all(Value::is_string) && all.iter().any(is_for_us),
        Some(one) => is_for_us(one),
        None => false,
    };
    if !is_for_us {
        return Err(Fault::Audience);
    }
    let until = millis(claims.get("exp").ok_or(Fault::Time)?)?.saturating_add(GRACE * 1_000);
    let from = claims.get("nbf").map_or(Ok(0), millis)?;
    if until <= now {
        return Err(Fault::Expired);
    }
    if now.saturating_add(GRACE * 1_000) < from {
        return Err(Fault::Early);
    }
    Ok(until)
}

/// True if a token with these `events` is about what has happened (RFC 8417 section 2.2), such as a
/// logout (OpenID Connect Back-Channel Logout section 2.4): older servers give it no `typ` of its
/// own. Their names are URIs. Anything else is a server's own claim of that name.
fn are_events(events: &Value) -> bool {
    events.as_object().is_some_and(|events| events.keys().any(|name| name.contains(':')))
}

/// A time in seconds, which may have a fraction (RFC 7519 section 2, "NumericDate").
fn millis(time: &Value) -> Result<u64, Fault> {
    // Those after the year 200,000 are all the same to us.
    const SECONDS_MAX: f64 = 6e12;
    let seconds = time.as_f64().filter(|it| it.is_finite() && 0.0 <= *it).ok_or(Fault::Time)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is from 0 to SECONDS_MAX"
    )]
    let millis = (seconds.min(SECONDS_MAX) * 1_000.0) as u64;
    Ok(millis)
}

impl JwtRules {
    /// The most that one of his roles lets him do. A claim that says nothing known lets him not in.
    /// Where groups are mapped, only those count: a group that happens to be called as a role of
    /// ours is none of them, as in mode `header`.
    fn role(&self, claims: &Object) -> Option<Role> {
        let Some(claim) = &self.role_claim else { return self.default_role };
        let Some(said) = claims.get(claim) else {
            return self.default_role.filter(|_| !is_elsewhere(claims, claim));
        };
        let role = |value: &Value| {
            let name = value.as_str()?;
            let mapped = self.group_roles.iter().filter(|(group, _)| group == name);
            match self.group_roles.is_empty() {
                true => name.parse().ok(),
                false => mapped.map(|(_, role)| *role).max(),
            }
        };
        match said.as_array() {
            Some(all) => all.iter().filter_map(role).max(),
            None => role(said),
        }
    }
}

/// True if a token says that its claim was too long and is to be asked for (OpenID Connect Core
/// section 5.6.2; Entra ID does so from about 200 groups on). Who has many has not none.
fn is_elsewhere(claims: &Object, claim: &str) -> bool {
    let is_named = claims.get("_claim_names").is_some_and(|names| names.get(claim).is_some());
    is_named || claims.has("hasgroups")
}

impl Token {
    /// For how much longer it holds; `None` once it does not.
    #[must_use]
    pub fn left(&self, now: u64) -> Option<std::time::Duration> {
        let left = self.until.saturating_sub(now);
        (0 < left).then(|| std::time::Duration::from_millis(left))
    }
}

#[cfg(test)]
mod tests;
