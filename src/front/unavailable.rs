//! The page for a person who opens an address that cannot be answered. It gives the reason in words
//! instead of JSON, and the id of the request, which is in the log too. While waiting helps, the
//! page loads itself again (promise R12).
//!
//! It does so only if nothing was sent, or if the read is known to have no effect. Any other
//! request may be the reason why the server failed, and could break it again every few seconds.

use std::net::IpAddr;

use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::access::{self, REQUEST_ID};
use super::error::{Fault, GatewayError};
use super::html::{escaped, filled, sentence};
use super::page_cookie::asks_for_a_page;
use super::{Front, failover};
use crate::body::ResponseBody;
use crate::comfy::endpoint::{Endpoint, classify};
use crate::routing::decision::Refusal;
use crate::tunnels::TooMany;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Seconds until the page loads itself again.
const AGAIN: u16 = 4;

const PAGE: &str = include_str!("unavailable.html");

/// The text while waiting helps.
const ADVICE: &str = "<p>This page loads itself again every few seconds, until one does.</p>\n\
                      <p>Your jobs are not forgotten: once their server is back you see what has \
                      become of them.</p>\n";

/// Forbids everything that the page does not need.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'";

/// The reader of an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reader {
    /// A person opens an address.
    Person,
    /// A person sends a form. The page must not load itself again, because that would send the form
    /// again.
    Sender,
    /// A script, or a part of a page.
    Program,
}

impl Reader {
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let mut accepted = request.headers().get_all(ACCEPT).iter();
        let mode = request.headers().get(SEC_FETCH_MODE).map(HeaderValue::as_bytes);
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        Self::by(is_read, mode, || accepted.any(|it| asks_for_a_page(it.as_bytes())))
    }

    /// The same for a head that is not valid, as far as it can be read.
    #[must_use]
    pub fn of_bytes(read: &[u8]) -> Self {
        let mut lines = read.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let first = lines.next().unwrap_or_default();
        let is_read = first.starts_with(b"GET ") || first.starts_with(b"HEAD ");
        let (mut mode, mut wants_page) = (None, false);
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(SEC_FETCH_MODE.as_str().as_bytes()) {
                mode.get_or_insert(value);
            } else if name.eq_ignore_ascii_case(ACCEPT.as_str().as_bytes()) {
                wants_page |= asks_for_a_page(value);
            }
        }
        Self::by(is_read, mode, || wants_page)
    }

    fn by(is_read: bool, mode: Option<&[u8]>, wants_page: impl FnOnce() -> bool) -> Self {
        match mode {
            Some(b"navigate") if is_read => Self::Person,
            Some(b"navigate") => Self::Sender,
            Some(_) => Self::Program,
            // Over plain HTTP browsers say no more than this, and only browsers ask for HTML first.
            None if is_read && wants_page() => Self::Person,
            None => Self::Program,
        }
    }
}

/// The kind of a read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    /// The page, or a read that a page makes before it shows anything. It is known to have no
    /// effect.
    Harmless,
    Any,
}

impl Question {
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let asked = classify(request.method(), request.uri().path());
        let is_harmless = matches!(
            asked,
            Endpoint::Page | Endpoint::Asset | Endpoint::Features | Endpoint::Start(_)
        );
        if is_harmless { Self::Harmless } else { Self::Any }
    }
}

/// The reader of an error.
#[derive(Clone, Debug)]
pub struct Asker {
    pub reader: Reader,
    pub question: Question,
    /// The id that a proxy gave the request.
    pub named: Option<String>,
}

impl Asker {
    #[must_use]
    pub fn of<B>(front: &Front, peer: IpAddr, request: &Request<B>) -> Self {
        let reader = Reader::of(request);
        match reader {
            Reader::Person | Reader::Sender => Self {
                reader,
                question: Question::of(request),
                named: access::named(front, peer, request.headers()),
            },
            Reader::Program => Self::program(),
        }
    }

    /// A script, which waits for JSON.
    #[must_use]
    pub fn program() -> Self {
        Self { reader: Reader::Program, question: Question::Any, named: None }
    }

    /// The same for a head that is not valid.
    #[must_use]
    pub fn of_bytes(read: &[u8]) -> Self {
        Self { reader: Reader::of_bytes(read), question: Question::Any, named: None }
    }
}

/// True for an error that is over when a server is back or when there is room again, if no server
/// has received anything.
fn was_kept_back(error: &GatewayError) -> bool {
    let has_no_room = matches!(
        error,
        GatewayError::Refused(Refusal::BackendWedged { .. })
            | GatewayError::TooManyClients(_)
            | GatewayError::TooManyTunnels(TooMany::InAll { .. })
            | GatewayError::BodiesBusy
            | GatewayError::SavingFull
            | GatewayError::InputUnavailable { .. }
            | GatewayError::LinkTimeout { .. }
            | GatewayError::Stopping
    );
    has_no_room || failover::is_away(error)
}

/// True if waiting helps and another attempt does no harm.
fn is_to_be_asked_again(error: &GatewayError, asker: &Asker) -> bool {
    let is_ours = matches!(error.fault(), Fault::Backend | Fault::Gateway);
    was_kept_back(error) || (is_ours && asker.question == Question::Harmless)
}

/// Turns the answer that reports an error into a page.
#[must_use]
pub fn page(
    error: &GatewayError,
    asker: &Asker,
    request_id: &str,
    mut response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let helps = is_to_be_asked_again(error, asker);
    let loads_again = helps && asker.reader == Reader::Person;
    if was_kept_back(error) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    if helps {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(AGAIN));
    }
    let status = response.status();
    let title = if helps {
        "No server can answer at the moment"
    } else {
        status.canonical_reason().unwrap_or("This cannot be answered")
    };
    let refresh = format!("<meta http-equiv=\"refresh\" content=\"{AGAIN}\">\n");
    let text = filled(
        PAGE,
        &[
            ("refresh", if loads_again { &refresh } else { "" }),
            ("title", title),
            ("advice", if loads_again { ADVICE } else { "" }),
            ("reason", &escaped(&sentence(&error.to_string()))),
            ("code", error.code()),
            ("id", &escaped(request_id)),
        ],
    );
    *response.body_mut() = ResponseBody::whole(text);
    dress(response.headers_mut(), request_id);
    response
}

fn dress(headers: &mut HeaderMap, request_id: &str) {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::try_from(request_id) {
        headers.insert(HeaderName::from_static(REQUEST_ID), value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::pool::ExchangeError;

    #[test]
    fn a_person_is_told_from_a_script() {
        let check = |method: &str, name: &str, value: &str, expected: Reader| {
            let request = Request::builder().method(method).header(name, value);
            assert_eq!(Reader::of(&request.body(()).unwrap()), expected, "{method} {name} {value}");
            let head = format!("{method} / HTTP/9.9\r\n{}: {value} \r\n", name.to_uppercase());
            assert_eq!(Reader::of_bytes(head.as_bytes()), expected, "{head}");
            let beyond = format!("{method} / HTTP/1.1\r\n\r\n{name}: {value}\r\n");
            assert_eq!(Reader::of_bytes(beyond.as_bytes()), Reader::Program, "{beyond}");
        };
        check("GET", "sec-fetch-mode", "navigate", Reader::Person);
        check("GET", "accept", "text/html,application/xhtml+xml,*/*;q=0.8", Reader::Person);
        check("POST", "sec-fetch-mode", "navigate", Reader::Sender);
        check("POST", "accept", "text/html", Reader::Program);
        check("GET", "sec-fetch-mode", "cors", Reader::Program);
        check("GET", "accept", "*/*", Reader::Program);
        check("GET", "x", "", Reader::Program);
        assert_eq!(Reader::of_bytes(b""), Reader::Program);
    }

    fn text_of(error: &GatewayError, reader: Reader) -> (StatusCode, String) {
        let asker = Asker { reader, question: Question::Any, named: None };
        text_for(error, &asker)
    }

    fn text_for(error: &GatewayError, asker: &Asker) -> (StatusCode, String) {
        let response = page(error, asker, "id<1>", error.response());
        let status = response.status();
        let body = futures_util::FutureExt::now_or_never(http_body_util::BodyExt::collect(
            response.into_body(),
        ));
        let bytes = body.unwrap().unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn what_is_over_soon_loads_itself_again_and_nothing_else_does() {
        let down = GatewayError::BackendDown { backend: "a".to_owned() };
        let (status, text) = text_of(&down, Reader::Person);
        assert!(text.contains(&format!("http-equiv=\"refresh\" content=\"{AGAIN}\"")), "{text}");
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("backend_down, request id&lt;1&gt;"), "{text}");
        let (status, text) = text_of(&down, Reader::Sender);
        assert!(!text.contains("refresh") && status == StatusCode::SERVICE_UNAVAILABLE, "{text}");
        let (status, text) = text_of(&GatewayError::NotFound, Reader::Person);
        assert!(!text.contains("refresh") && status == StatusCode::NOT_FOUND, "{text}");
        assert!(text.contains("Nothing has this name."), "{text}");
    }

    #[test]
    fn what_may_have_broken_a_server_is_not_asked_again_by_itself() {
        let backend = || "a".to_owned();
        let (lost, late) = (ExchangeError::WentDown, ExchangeError::NoAnswer(Duration::ZERO));
        let unreached = ExchangeError::ConnectTimeout(Duration::ZERO);
        for (error, status, of_page) in [
            (GatewayError::Lost { backend: backend(), source: lost }, 502, true),
            (GatewayError::NoAnswer { backend: backend(), source: late }, 504, true),
            (GatewayError::BadUpgrade { backend: backend() }, 502, true),
            (GatewayError::Unreachable { backend: backend(), source: unreached }, 503, true),
            (GatewayError::Stopping, 503, true),
            (GatewayError::NotFound, 404, false),
        ] {
            let was_sent = status != 503;
            for (question, expected) in
                [(Question::Any, of_page && !was_sent), (Question::Harmless, of_page)]
            {
                let asker = Asker { reader: Reader::Person, question, named: None };
                let (told, text) = text_for(&error, &asker);
                let loads_again = text.contains("http-equiv");
                assert_eq!(
                    (told.as_u16(), loads_again),
                    (status, expected),
                    "{error} {question:?}"
                );
            }
        }
        for (path, expected) in [
            ("/", Question::Harmless),
            ("/api/system_stats", Question::Harmless),
            ("/view?filename=a.png", Question::Any),
            ("/some_pack/run", Question::Any),
        ] {
            assert_eq!(Question::of(&Request::get(path).body(()).unwrap()), expected, "{path}");
        }
        assert_eq!(Question::of(&Request::post("/").body(()).unwrap()), Question::Any);
    }

    #[test]
    fn nothing_in_a_reason_is_markup_and_no_gap_is_left() {
        let (file, backend) = ("{{id}}<script>'\"&\u{7}".to_owned(), "a".to_owned());
        let (_, text) = text_of(&GatewayError::InputGone { file, backend }, Reader::Person);
        assert!(text.contains("{{id}}&lt;script&gt;&#39;&quot;&amp;\u{fffd}"), "{text}");
        assert!(!text.contains("<script") && text.matches("{{").count() == 1, "{text}");
        assert!(PAGE.is_ascii() && !PAGE.contains("backend") && !ADVICE.contains("prompt"));
    }
}
