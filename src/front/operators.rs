//! Users with the role `operator`, for the admin listener.
//!
//! They show there what lets them in at the front: a key, a token in `Authorization`, or the name
//! that a trusted proxy gives. A session does not count, and neither does a token in a cookie: a
//! browser sends cookies to every port of a host, whichever page asks.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, Request};

use super::guests::Guests;
use super::{Front, cors, token_keys};
use crate::auth::jwt::place::Cookies;
use crate::auth::{Asked, Pass, Refusal, Role, User, judge, proxy};
use crate::config::AuthMode;

/// Knows the users of the front.
#[derive(Clone, Debug)]
pub struct Operators(Arc<Front>);

/// What a request says about the user who sends it.
#[derive(Clone, Debug)]
pub enum Found {
    /// It shows nothing that lets a user in.
    Nobody(Refusal),
    /// A user with another role.
    Other(Arc<User>),
    /// A proxy names an operator, but whose page has made his browser send this is not said.
    PageUnsaid(Arc<User>),
    Operator(Pass),
}

impl Operators {
    #[must_use]
    pub fn of(front: &Arc<Front>) -> Self {
        Self(Arc::clone(front))
    }

    /// Finds the user who sends a request. Keys of tokens that are not known yet are fetched first.
    pub async fn find<B: Sync>(&self, peer: IpAddr, request: &Request<B>) -> Found {
        token_keys::know_keys(&self.0, request).await;
        match shown(&self.0.admission.guests.load(), peer, request) {
            Err(refusal) => Found::Nobody(refusal),
            Ok(pass) if pass.user.role != Role::Operator => Found::Other(pass.user),
            Ok(pass) if is_unsaid(&pass, request) => Found::PageUnsaid(pass.user),
            Ok(pass) => Found::Operator(pass),
        }
    }

    /// False once an operator who was found earlier would not be found again.
    #[must_use]
    pub fn still_has(&self, pass: &Pass) -> bool {
        let guests = self.0.admission.guests.load();
        let is_one = match guests.mode {
            AuthMode::Off => false,
            AuthMode::Keys => {
                let now = guests.users.get(&pass.user.name);
                now.is_some_and(|user| user.role == Role::Operator)
            }
            // The pass ends with the rules that gave the role.
            AuthMode::Header | AuthMode::Jwt => true,
        };
        is_one && guests.may_stay(Some(pass))
    }
}

fn shown<B>(guests: &Guests, peer: IpAddr, request: &Request<B>) -> Result<Pass, Refusal> {
    let lines = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    // What he may do here depends on his role alone, so that is asked for as for a read.
    let method = &Method::GET;
    match guests.mode {
        AuthMode::Off => Err(Refusal::Missing),
        AuthMode::Keys => {
            let asked = Asked { method, path: "/", query: "", session: None };
            judge(&guests.users, asked, lines).map(|admitted| admitted.pass)
        }
        AuthMode::Header => {
            let rules = guests.proxies.believes(peer).ok_or(Refusal::Missing)?;
            proxy::judge(rules, method, lines)
        }
        AuthMode::Jwt => {
            guests.tokens.judge(Cookies::Ignored, method, lines).map(|carrier| carrier.pass)
        }
    }
}

/// True if the user came in by what his browser has at the proxy, and the request may change
/// something that another page wants.
fn is_unsaid<B>(pass: &Pass, request: &Request<B>) -> bool {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    pass.proxy.is_some() && !reads && !cors::says_its_page(request.headers())
}
