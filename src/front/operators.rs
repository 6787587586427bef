//! Users with the role `operator`, for the admin listener.
//!
//! They show there a key, or a token in `Authorization`. What a browser sends by itself does not
//! count, whichever page asks: no session and no cookie. Neither does the name that a proxy gives:
//! the proxy is trusted at the front, where the front's own rules prove who it is.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderName, Method, Request};

use super::guests::Guests;
use super::{Front, token_keys};
use crate::auth::jwt::place::Cookies;
use crate::auth::{Asked, Pass, Refusal, Role, User, judge};
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
    Operator(Pass),
}

impl Operators {
    #[must_use]
    pub fn of(front: &Arc<Front>) -> Self {
        Self(Arc::clone(front))
    }

    /// Finds the user who sends a request. Keys of tokens that are not known yet are fetched first.
    pub async fn find<B: Sync>(&self, request: &Request<B>) -> Found {
        const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
        if ![AUTHORIZATION, API_KEY].iter().any(|name| request.headers().contains_key(name)) {
            return Found::Nobody(Refusal::Missing);
        }
        token_keys::know_keys(&self.0, request).await;
        match shown(&self.0.admission.guests.load(), request) {
            Err(refusal) => Found::Nobody(refusal),
            Ok(pass) if pass.user.role != Role::Operator => Found::Other(pass.user),
            Ok(pass) => Found::Operator(pass),
        }
    }

    /// False once an operator who was found earlier would not be found again.
    #[must_use]
    pub fn still_has(&self, pass: &Pass) -> bool {
        let guests = self.0.admission.guests.load();
        let is_one = match guests.mode {
            AuthMode::Off | AuthMode::Header => false,
            AuthMode::Keys => {
                let now = guests.users.get(&pass.user.name);
                now.is_some_and(|user| user.role == Role::Operator)
            }
            // The token says the role for as long as it holds.
            AuthMode::Jwt => true,
        };
        is_one && guests.may_stay(Some(pass))
    }
}

fn shown<B>(guests: &Guests, request: &Request<B>) -> Result<Pass, Refusal> {
    let lines = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    // What he may do here depends on his role alone, so that is asked for as for a read.
    let method = &Method::GET;
    match guests.mode {
        AuthMode::Off | AuthMode::Header => Err(Refusal::Missing),
        AuthMode::Keys => {
            let asked = Asked { method, path: "/", query: "", session: None };
            judge(&guests.users, asked, lines).map(|admitted| admitted.pass)
        }
        AuthMode::Jwt => {
            guests.tokens.judge(Cookies::Ignored, method, lines).map(|carrier| carrier.pass)
        }
    }
}
