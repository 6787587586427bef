//! Sets the page cookie for a browser that opens a page other than ComfyUI's, for example one of a
//! node pack (R1).
//!
//! Such pages make their own requests, to which our script adds no name. They get the cookie with
//! the page, before their first request.

use std::net::IpAddr;

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, SET_COOKIE};
use http::{HeaderValue, Method, Request, Response};

use super::Front;
use super::browsers::BrowserId;
use super::caller::{Caller, Door, IdentityHints, browser, door};
use super::cookie_signer::CookieSigner;
use super::headers::pair_of;
use super::own_cookies::is_own;
use crate::auth::UserName;
use crate::config::AuthMode;

/// What a request says about a browser.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Visit {
    /// It opens a page and has no cookie yet. With the user who was let in, if users are required.
    First(Door, Option<UserName>),
    Other,
}

impl Visit {
    #[must_use]
    pub fn of<B>(front: &Front, peer: IpAddr, request: &Request<B>) -> Self {
        let hints = IdentityHints::of(request);
        let config = front.shared.config();
        let user = hints.pass.as_ref().map(|pass| pass.user.name.clone());
        // A browser without a user needs no name.
        if config.auth.mode != AuthMode::Off && user.is_none() {
            return Self::Other;
        }
        let door = door(&config.server, peer, &hints);
        Self::by(request, browser(front, door, &hints), (door, user))
    }

    fn by<B>(
        request: &Request<B>,
        known: Option<BrowserId>,
        (door, user): (Door, Option<UserName>),
    ) -> Self {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let mut accepted = request.headers().get_all(ACCEPT).iter();
        let wants_page = is_read && accepted.any(|value| asks_for_a_page(value.as_bytes()));
        if wants_page && known.is_none() { Self::First(door, user) } else { Self::Other }
    }

    /// Sets the cookie if the answer is a page and is private. If a shared cache stored the answer,
    /// others would get the cookie too.
    pub fn greet<B>(self, signer: &CookieSigner, response: &mut Response<B>) {
        let (door, user) = match self {
            Self::First(door, user) if is_ones_own_page(response.headers()) => (door, user),
            Self::First(..) | Self::Other => return,
        };
        let cookie =
            BrowserId::mint().set_cookie(signer, door, user.as_ref().map(UserName::as_str));
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
}

/// A cookie for a browser that has none yet.
#[must_use]
pub fn mint(front: &Front, caller: &Caller) -> String {
    BrowserId::mint().set_cookie(&front.cookie_signer, caller.door, caller.realm.user())
}

/// True if the `Accept` header is that of a browser which opens a page. Scripts and elements of
/// pages do not name this type (Fetch, "fetch a resource", step 3).
#[must_use]
pub fn asks_for_a_page(accept: &[u8]) -> bool {
    memchr::memmem::find(accept, b"text/html").is_some()
}

fn is_ones_own_page(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, what: &str| {
        let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.any(|value| value.to_ascii_lowercase().contains(what))
    };
    let is_given =
        headers.get_all(SET_COOKIE).iter().any(|cookie| is_own(pair_of(cookie.as_bytes())));
    has(CONTENT_TYPE, "text/html")
        && !has(CACHE_CONTROL, "public")
        && !has(CACHE_CONTROL, "s-maxage")
        && !is_given
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Visit = Visit::First(Door::Plain, None);

    fn visit(method: Method, accept: &str, known: Option<BrowserId>) -> Visit {
        let request = Request::builder().method(method).header(ACCEPT, accept);
        Visit::by(&request.body(()).unwrap(), known, (Door::Plain, None))
    }

    fn greeted(headers: &[(HeaderName, &str)]) -> bool {
        let mut response = Response::new(());
        for (name, value) in headers {
            response.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        let before = response.headers().len();
        FIRST.greet(&CookieSigner::new(), &mut response);
        before < response.headers().len()
    }

    #[test]
    fn a_browser_that_has_no_cookie_is_seen_when_it_goes_to_a_page() {
        let page = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8";
        assert_eq!(visit(Method::GET, page, None), FIRST);
        assert_eq!(visit(Method::HEAD, page, None), FIRST);
        assert_eq!(visit(Method::POST, page, None), Visit::Other);
        assert_eq!(visit(Method::GET, "*/*", None), Visit::Other);
        assert_eq!(visit(Method::GET, page, Some(BrowserId::mint())), Visit::Other);
    }

    #[test]
    fn only_a_page_that_nobody_shares_brings_the_cookie() {
        let html = (CONTENT_TYPE, "Text/HTML; charset=utf-8");
        assert!(greeted(std::slice::from_ref(&html)));
        assert!(greeted(&[html.clone(), (CACHE_CONTROL, "no-cache")]));
        assert!(greeted(&[html.clone(), (SET_COOKIE, "session=1")]));
        assert!(!greeted(&[(CONTENT_TYPE, "application/json")]));
        assert!(!greeted(&[html.clone(), (CACHE_CONTROL, "public, max-age=60")]));
        assert!(!greeted(&[html.clone(), (CACHE_CONTROL, "s-maxage=60")]));
        assert!(!greeted(&[html, (SET_COOKIE, "mooring=1")]));
    }
}
