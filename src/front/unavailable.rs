//! The page that a browser gets while no server is up: text instead of JSON, and it reloads itself
//! (promise R12).

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::error::{ERROR_HEADER, Fault, GatewayError};
use super::page_cookie::asks_for_a_page;
use crate::body::ResponseBody;
use crate::routing::decision::Refusal;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Seconds until the page loads itself again; as in `unavailable.html`.
const AGAIN: u16 = 4;

const PAGE: &str = include_str!("unavailable.html");

/// Who reads an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reader {
    /// Somebody opens an address.
    Person,
    /// A script, or a part of a page.
    Program,
}

impl Reader {
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let said = |name| request.headers().get(name).map(HeaderValue::as_bytes);
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let opens = match said(SEC_FETCH_MODE) {
            Some(mode) => mode == b"navigate",
            // Browsers say no more over plain HTTP, and only they ask for HTML first.
            None => said(ACCEPT).is_some_and(asks_for_a_page),
        };
        if is_read && opens { Self::Person } else { Self::Program }
    }
}

/// True for what is over when a server is back.
#[must_use]
pub fn is_over_soon(error: &GatewayError) -> bool {
    let has_no_place = matches!(error, GatewayError::Refused(Refusal::NoPlace(_)));
    has_no_place || error.fault() == Fault::Backend
}

/// The page that waits, with the code of what went wrong. Whatever that was, it is worth to wait.
#[must_use]
pub fn page(error: &GatewayError) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(PAGE));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ERROR_HEADER, HeaderValue::from_static(error.code()));
    headers.insert(RETRY_AFTER, HeaderValue::from(AGAIN));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_told_from_a_script() {
        let is = |method: &str, name: &str, value: &str| {
            let request = Request::builder().method(method).header(name, value);
            Reader::of(&request.body(()).unwrap()) == Reader::Person
        };
        assert!(is("GET", "sec-fetch-mode", "navigate"));
        assert!(is("GET", "accept", "text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!is("POST", "sec-fetch-mode", "navigate"));
        assert!(!is("GET", "sec-fetch-mode", "cors"));
        assert!(!is("GET", "accept", "*/*"));
        assert!(!is("GET", "x", ""));
    }

    #[test]
    fn the_page_that_waits_loads_itself_again() {
        assert!(PAGE.contains(&format!("http-equiv=\"refresh\" content=\"{AGAIN}\"")));
        assert!(PAGE.is_ascii() && !PAGE.contains("backend") && !PAGE.contains("prompt"));
    }
}
