//! Who may use the admin listener.
//!
//! Its own dashboard is the only page that may. A page of any other origin could otherwise call a
//! loopback port, and DNS rebinding gives a page the gateway's own origin.

use http::header::{AUTHORIZATION, HOST, ORIGIN, VARY, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::{dashboard, refusal};
use crate::body::ResponseBody;
use crate::config::ServerConfig;
use crate::server::wire::Wire;
use crate::session::Sessions;

/// What decides here whether and what somebody is answered, besides the address.
const VARIES: &str = "accept, authorization, host, origin, sec-fetch-dest, sec-fetch-mode, \
                      sec-fetch-site";

/// How much whoever asks may be told. It is an extension of the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Told {
    Everything,
    /// Health in a word. A page that leads its own name to this listener (DNS rebinding) can read
    /// what needs no token.
    InAWord,
}

impl Told {
    pub(super) fn of<B>(sessions: &Sessions, request: &Request<B>) -> Self {
        let config = sessions.shared.config();
        let token = config.admin.token.as_ref();
        // Without a token, foreign names are refused.
        let may = token.is_none_or(|token| has_token(request.headers(), token.reveal()));
        match may || is_for_us(&config.server, request) {
            true => Self::Everything,
            false => Self::InAWord,
        }
    }
}

/// Says to caches that another sender may get another answer from the same address.
pub(super) fn mark(response: &mut Response<ResponseBody>) {
    response.headers_mut().insert(VARY, HeaderValue::from_static(VARIES));
}

/// Refuses pages of others, and requests without the token if one is configured. Health is open to
/// everybody, because a kubelet has no token. So are the files of the dashboard: they show nothing
/// before they have asked with the token. Metrics are if the operator says so.
pub(super) fn refuse<B>(
    sessions: &Sessions,
    request: &Request<B>,
) -> Option<Response<ResponseBody>> {
    if is_of_foreign_page(request) {
        let message = "only the gateway's own dashboard may use the admin listener from a page";
        return Some(refusal(StatusCode::FORBIDDEN, message));
    }
    let path = request.uri().path();
    let config = sessions.shared.config();
    // RFC 9110 section 15.5.20. With a token this is not needed, because no foreign page has it.
    let unless_for_us = || {
        let message = "without a token, the admin listener accepts only a loopback name, an \
                       address, or a name that is listed whole in server.hosts";
        let refused = || refusal(StatusCode::MISDIRECTED_REQUEST, message);
        (!is_for_us(&config.server, request)).then(refused)
    };
    let Some(token) = &config.admin.token else { return unless_for_us() };
    let is_open = matches!(path, "/livez" | "/readyz") || dashboard::is_file(request);
    if is_open || has_token(request.headers(), token.reveal()) {
        return None;
    }
    if path == "/metrics" && config.admin.open_metrics {
        return unless_for_us();
    }
    let mut response = refusal(StatusCode::UNAUTHORIZED, "a bearer token is needed");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Some(response)
}

/// True for what a page of another origin asks. A picture in a page has no `Origin`, but browsers
/// report the site of each request (Fetch Metadata). It is `none` if somebody typed the address.
///
/// A link of another site may open the dashboard: nobody but the person at the browser sees it,
/// because no other site can frame it.
fn is_of_foreign_page<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let is_foreign = |origin: &HeaderValue| !is_own_origin(request, origin.as_bytes());
    if headers.get_all(ORIGIN).iter().any(is_foreign) {
        return true;
    }
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|it| it == value);
    let mut sites = headers.get_all("sec-fetch-site").iter();
    if sites.all(|site| site == "none" || (site == "same-origin" && !is_acting_read(request))) {
        return false;
    }
    let opens = *request.method() == Method::GET
        && has("sec-fetch-mode", "navigate")
        && has("sec-fetch-dest", "document");
    !(opens && dashboard::is_page(request))
}

/// True for a read that does something: a kubelet can only read, and its `preStop` hook drains. No
/// page needs it.
fn is_acting_read<B>(request: &Request<B>) -> bool {
    *request.method() != Method::POST && request.uri().path().ends_with("/drain")
}

/// True for the origin of the dashboard (RFC 6454 section 7): what the request was sent to, by the
/// scheme of the listener. Behind a proxy with TLS the scheme is another one; then the browser has
/// to say that it is the same origin, which it does over HTTPS.
fn is_own_origin<B>(request: &Request<B>, origin: &[u8]) -> bool {
    let (own, other): (&[u8], &[u8]) = match Wire::of_request(request) {
        Wire::Plain => (b"http://", b"https://"),
        Wire::Tls => (b"https://", b"http://"),
    };
    let is_said = || request.headers().get("sec-fetch-site").is_some_and(|it| it == "same-origin");
    let named = match origin.strip_prefix(own) {
        Some(named) => Some(named),
        None => origin.strip_prefix(other).filter(|_| is_said()),
    };
    let host = host_of(request);
    named.zip(host).is_some_and(|(named, host)| host.eq_ignore_ascii_case(named))
}

/// True for a name of the gateway, and for no name: a client that sends none is not a browser.
fn is_for_us<B>(server: &ServerConfig, request: &Request<B>) -> bool {
    host_of(request).is_none_or(|host| server.is_called_exactly(host))
}

fn host_of<B>(request: &Request<B>) -> Option<&[u8]> {
    let named = || request.uri().authority().map(|it| it.as_str().as_bytes());
    request.headers().get(HOST).map(HeaderValue::as_bytes).or_else(named)
}

/// Compares in constant time, so that the time does not show how much of a guess was right.
fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let Some(given) = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
    else {
        return false;
    };
    let differs = given
        .bytes()
        .zip(token.bytes())
        .fold(given.len() ^ token.len(), |differs, (a, b)| differs | usize::from(a ^ b));
    differs == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_foreign(method: &str, path: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        is_of_foreign_page(&request.body(()).unwrap())
    }

    const HERE: (&str, &str) = ("host", "127.0.0.1:8181");

    #[test]
    fn programs_and_the_dashboard_are_let_in() {
        assert!(!is_foreign("GET", "/api/v1/backends", &[HERE]));
        assert!(!is_foreign("GET", "/api/v1/backends", &[]));
        assert!(!is_foreign("GET", "/metrics", &[HERE, ("sec-fetch-site", "none")]));
        let own = [HERE, ("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:8181")];
        assert!(!is_foreign("POST", "/api/v1/reload", &own));
        let named = [("host", "Ops.example"), ("origin", "http://ops.example")];
        assert!(!is_foreign("POST", "/api/v1/reload", &named));
    }

    #[test]
    fn another_scheme_is_another_origin_unless_the_browser_says_that_it_is_not() {
        let is_foreign = |wire: Wire, origin: &str, site: Option<&str>| {
            let mut request = Request::post("/api/v1/reload").header("host", "ops.example");
            request = request.header("origin", origin);
            if let Some(site) = site {
                request = request.header("sec-fetch-site", site);
            }
            let mut request = request.body(()).unwrap();
            wire.mark(&mut request);
            is_of_foreign_page(&request)
        };
        let (plain, tls) = ("http://ops.example", "https://ops.example");
        for (wire, own, other) in [(Wire::Plain, plain, tls), (Wire::Tls, tls, plain)] {
            assert!(!is_foreign(wire, own, None) && !is_foreign(wire, own, Some("same-origin")));
            assert!(is_foreign(wire, other, None) && is_foreign(wire, other, Some("none")));
            assert!(is_foreign(wire, other, Some("cross-site")));
            assert!(!is_foreign(wire, other, Some("same-origin")), "a proxy ends TLS");
        }
    }

    #[test]
    fn pages_of_others_are_not() {
        for origin in [
            "http://127.0.0.1:8180",
            "http://localhost:8181",
            "http://evil.example",
            "http://127.0.0.1:8181.evil.example",
            "ftp://127.0.0.1:8181",
            "127.0.0.1:8181",
            "null",
            "",
        ] {
            assert!(is_foreign("POST", "/api/v1/reload", &[HERE, ("origin", origin)]), "{origin}");
        }
        let two = [HERE, ("origin", "http://127.0.0.1:8181"), ("origin", "http://evil.example")];
        assert!(is_foreign("POST", "/api/v1/reload", &two));
        assert!(is_foreign("POST", "/api/v1/reload", &[("origin", "http://127.0.0.1:8181")]));
        for site in ["cross-site", "same-site", "other", ""] {
            let headers = [HERE, ("sec-fetch-site", site)];
            assert!(is_foreign("GET", "/api/v1/backends", &headers), "{site}");
            assert!(is_foreign("GET", "/", &headers), "{site}");
        }
        let own = [HERE, ("sec-fetch-site", "same-origin")];
        assert!(is_foreign("GET", "/api/v1/backends/a/drain", &own));
        assert!(!is_foreign("POST", "/api/v1/backends/a/drain", &own));
    }

    #[test]
    fn a_link_of_another_site_opens_the_dashboard_and_nothing_else() {
        let link = [
            HERE,
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
            ("accept", "text/html"),
        ];
        assert!(!is_foreign("GET", "/", &link));
        assert!(is_foreign("POST", "/", &link));
        assert!(is_foreign("GET", "/metrics", &link));
        let mut framed = link;
        framed[3] = ("sec-fetch-dest", "iframe");
        assert!(is_foreign("GET", "/", &framed));
    }
}
