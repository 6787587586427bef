//! Pages of other origins (promise R10). They are refused on every route unless they are allowed.
//! Allowed pages get the headers that let their browser read the answers.
//!
//! Two headers say which page makes a request, and no page can forge them. Browsers send `Origin`
//! with requests that change something and with sockets. They send `Sec-Fetch-Site` (Fetch
//! Metadata) with every request over HTTPS or to loopback, also with those of `<img>` and
//! `<script>`, which have no `Origin`.

use std::net::IpAddr;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, COOKIE, HOST, HeaderMap, ORIGIN,
    REFERER, SET_COOKIE, VARY,
};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};

use super::caller::{self, Door};
use super::hosts::X_FORWARDED_HOST;
use crate::body::ResponseBody;
use crate::comfy::endpoint::{Endpoint, classify};
use crate::config::url::OPAQUE_ORIGINS;
use crate::config::{AuthMode, Config};
use crate::shared::Shared;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const ASKS_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOWS_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// How a request is treated because of its page.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CorsDecision {
    /// There is no page, or the page is of this host.
    Same,
    /// The operator allows the page.
    Allowed(HeaderValue),
    /// A preflight request for an allowed page.
    Preflight(HeaderValue),
    Foreign,
}

/// What the browser says about the page that sends the request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Site {
    /// Nothing: it is not a browser, or it uses plain HTTP.
    Unsaid,
    /// The page is of this origin.
    Same,
    /// There is no page: the address was typed, or an extension asks.
    Nobody,
    /// The page is of another origin. An unknown value counts as this too.
    Other,
}

impl Site {
    #[must_use]
    pub fn of(value: &[u8]) -> Self {
        match value.trim_ascii() {
            b"" => Self::Unsaid,
            b"same-origin" => Self::Same,
            b"none" => Self::Nobody,
            _ => Self::Other,
        }
    }

    /// Considers all lines of the header. If they differ, no browser has sent them.
    fn of_lines(headers: &HeaderMap) -> Self {
        let mut lines =
            headers.get_all(SEC_FETCH_SITE).iter().map(|line| Self::of(line.as_bytes()));
        let first = lines.next().unwrap_or(Self::Unsaid);
        if lines.all(|line| line == first) { first } else { Self::Other }
    }
}

/// The address that a request was sent to, from the browser's point of view.
#[derive(Clone, Debug)]
struct OriginHeaders<'a> {
    host: Option<&'a str>,
    /// Known only if TLS ends here, or from a trusted proxy.
    scheme: Option<&'static str>,
    way: Way,
}

/// What may have happened to the host on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// It is what the browser sent.
    Direct,
    /// A proxy may have removed or replaced the port.
    Proxied,
}

impl Way {
    /// Only a proxy changes the port. A client on this machine may be a proxy, and so is a
    /// configured one. Where users log in, the port must be present: a browser sends a session to
    /// all ports of a host, and a page on another port is not ours.
    fn of(config: &Config, peer: IpAddr) -> Self {
        let may_be_proxy = peer.to_canonical().is_loopback() || config.server.trusts(peer);
        match config.auth.mode {
            AuthMode::Off if may_be_proxy => Self::Proxied,
            AuthMode::Off | AuthMode::Keys | AuthMode::Header | AuthMode::Jwt => Self::Direct,
        }
    }
}

impl CorsDecision {
    #[must_use]
    pub fn of<B>(shared: &Shared, peer: IpAddr, request: &Request<B>) -> Self {
        let sent = OriginHeaders::of(shared, peer, request);
        Self::judge(&shared.config().server.allowed_origins, &sent, request)
    }

    fn judge<B>(allowed: &[String], sent: &OriginHeaders<'_>, request: &Request<B>) -> Self {
        let headers = request.headers();
        let site = Site::of_lines(headers);
        // An empty one means nothing. No browser sends two.
        let mut origins = headers.get_all(ORIGIN).iter().filter(|origin| !origin.is_empty());
        let Some(origin) = origins.next() else {
            let is_let_in = site != Site::Other || is_for_others(allowed, request);
            return if is_let_in { Self::Same } else { Self::Foreign };
        };
        if origins.any(|other| other != origin) {
            return Self::Foreign;
        }
        if allowed.iter().any(|allowed| origin == allowed.as_str()) {
            let is_preflight = request.method() == Method::OPTIONS
                && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
            let origin = origin.clone();
            return if is_preflight { Self::Preflight(origin) } else { Self::Allowed(origin) };
        }
        let is_own = match site {
            Site::Same => true,
            Site::Other => false,
            Site::Unsaid | Site::Nobody => {
                origin.to_str().is_ok_and(|origin| is_own_host(origin, sent, site))
            }
        };
        if is_own { Self::Same } else { Self::Foreign }
    }
}

impl<'a> OriginHeaders<'a> {
    fn of<B>(shared: &Shared, peer: IpAddr, request: &'a Request<B>) -> Self {
        let headers = request.headers();
        let text = |value: &'a HeaderValue| value.to_str().ok().map(str::trim);
        let by_proxy = headers
            .get(X_FORWARDED_HOST)
            .filter(|_| shared.config().server.trusts(peer))
            .and_then(text)
            // The first one is from the browser. Proxies behind it append theirs.
            .and_then(|hosts| hosts.split(',').next().map(str::trim))
            .filter(|host| !host.is_empty());
        let named = request.uri().authority().map(Authority::as_str);
        let host = by_proxy.or(named).or_else(|| headers.get(HOST).and_then(text));
        let scheme = match caller::door(
            &shared.config().server,
            peer,
            &caller::IdentityHints::of(request),
        ) {
            Door::Unknown => None,
            Door::Plain => Some("http"),
            Door::Tls | Door::TlsBelow => Some("https"),
        };
        Self { host, scheme, way: Way::of(&shared.config(), peer) }
    }
}

/// True if the host and the port of the origin are those of the request. It is always false for
/// `Origin: null` (a sandboxed page, a local file).
fn is_own_host(origin: &str, sent: &OriginHeaders<'_>, site: Site) -> bool {
    let Some((scheme, origin)) = origin.split_once("://") else { return false };
    // A proxy in front may end TLS without saying so. So the origin's own scheme gives the default
    // port of both.
    let ports = |scheme: &str| if scheme == "https" { 443 } else { 80 };
    let parse = |text: &str| {
        let authority: Authority = text.parse().ok()?;
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        Some((host, authority.port_u16()))
    };
    let (Some((its_host, its_port)), Some((our_host, our_port))) =
        (parse(origin), sent.host.and_then(parse))
    else {
        return false;
    };
    let is_same_port = its_port.unwrap_or(ports(scheme))
        == our_port.unwrap_or(ports(sent.scheme.unwrap_or(scheme)));
    // Many proxies pass the host on without its port. If the browser says more, that counts
    // instead.
    let is_one_cut = its_port.is_some() != our_port.is_some();
    let is_cut = sent.way == Way::Proxied && site == Site::Unsaid && is_one_cut;
    matches!(scheme, "http" | "https") && its_host == our_host && (is_same_port || is_cut)
}

/// True for requests that pages of other origins may make without `Origin`: a link to the page, and
/// pictures on an allowed page.
fn is_for_others<B>(allowed: &[String], request: &Request<B>) -> bool {
    let headers = request.headers();
    let said = |name| headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return false;
    }
    match said(SEC_FETCH_DEST) {
        b"document" => {
            said(SEC_FETCH_MODE) == b"navigate"
                && classify(request.method(), request.uri().path()) == Endpoint::Page
        }
        b"image" | b"video" | b"audio" => {
            let from = headers.get(REFERER).and_then(|from| from.to_str().ok());
            from.and_then(origin_of).is_some_and(|from| allowed.contains(&from))
        }
        _ => false,
    }
}

/// The origin of a URL, in the form that browsers use.
fn origin_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    (0 < end).then(|| format!("{scheme}://{}", &rest[..end]))
}

/// True if a request says which page it comes from, with headers that a page cannot omit or forge.
/// Programs, and browsers from before 2020, may send neither.
#[must_use]
pub fn says_its_page(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    Site::of_lines(headers) == Site::Same || origins.any(|origin| !origin.is_empty())
}

/// A page with an opaque origin may belong to anybody, so it never gets what a browser sends by
/// itself.
#[must_use]
pub fn is_opaque(origin: &HeaderValue) -> bool {
    OPAQUE_ORIGINS.iter().any(|opaque| origin == opaque)
}

/// True for a page that may belong to anybody. A browser sends cookies with its requests too.
#[must_use]
pub fn is_anybodys(decision: &CorsDecision) -> bool {
    matches!(decision, CorsDecision::Allowed(origin) if is_opaque(origin))
}

/// Removes the identity of the browser, if the page must not use it.
pub fn admit<B>(request: &mut Request<B>, origin: &HeaderValue) {
    if is_opaque(origin) {
        request.headers_mut().remove(COOKIE);
    }
}

/// Answers a preflight (Fetch standard, "CORS-preflight request"; Private Network Access).
#[must_use]
pub fn preflight(origin: &HeaderValue, asked: &HeaderMap) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    allow(&mut response, origin);
    let headers = response.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
    );
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    if asked.get(ASKS_PRIVATE).is_some_and(|asks| asks == "true") {
        headers.insert(ALLOWS_PRIVATE, HeaderValue::from_static("true"));
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Lets an allowed page read the answer.
pub fn allow(response: &mut Response<ResponseBody>, origin: &HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if is_opaque(origin) {
        headers.remove(ACCESS_CONTROL_ALLOW_CREDENTIALS);
        headers.remove(SET_COOKIE);
    } else {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "mooring-backend, mooring-placement, mooring-verdict, mooring-queue, mooring-error, \
             mooring-missing, mooring-home",
        ),
    );
    headers.append(VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(origin: &str, host: &str, expected: bool) {
        let sent = OriginHeaders { host: Some(host), scheme: None, way: Way::Proxied };
        assert_eq!(is_own_host(origin, &sent, Site::Unsaid), expected, "{origin} {host}");
    }

    #[test]
    fn the_own_host_is_compared_with_its_port() {
        check("http://gw:8180", "gw:8180", true);
        check("http://GW:8180", "gw.:8180", true);
        check("http://gw", "gw:80", true);
        check("https://gw", "gw", true);
        check("http://gw:8181", "gw:8180", false);
        check("http://evil", "gw:8180", false);
        check("http://evil", "gw", false);
        check("null", "gw:8180", false);
        check("app://gw", "gw", false);
        check("http://gw:8180@evil", "gw:8180", false);
        check("http://[::1]:8180", "[::1]:8180", true);
    }

    #[test]
    fn a_host_that_lost_its_port_is_the_same_unless_the_browser_says_more() {
        check("http://gpu.example.com:7777", "gpu.example.com", true);
        check("http://localhost", "localhost:8180", true);
        let sent = OriginHeaders { host: Some("gw"), scheme: None, way: Way::Proxied };
        assert!(!is_own_host("http://gw:7777", &sent, Site::Nobody));
        let direct = OriginHeaders { way: Way::Direct, ..sent };
        for (origin, host) in [("http://gw:7777", "gw"), ("http://gw", "gw:8180")] {
            let sent = OriginHeaders { host: Some(host), ..direct.clone() };
            assert!(!is_own_host(origin, &sent, Site::Unsaid), "another port: {origin} {host}");
        }
        assert!(is_own_host("http://gw", &direct, Site::Unsaid));
        let scheme = Some("https");
        let by_tls = OriginHeaders { host: Some("gw"), scheme, way: Way::Proxied };
        assert!(!is_own_host("http://gw", &by_tls, Site::Unsaid), "both have their default port");
        assert!(is_own_host("https://gw", &by_tls, Site::Unsaid));
    }

    #[test]
    fn a_port_is_missed_only_of_a_proxy_and_where_nobody_logs_in() {
        let of = |mode, peer: &str, trusted: &str| {
            let mut config = Config::for_backends(&[("a", "http://a:1")]).unwrap();
            config.auth.mode = mode;
            config.server.trusted_proxies = vec![trusted.parse().unwrap()];
            Way::of(&config, peer.parse().unwrap())
        };
        assert_eq!(of(AuthMode::Off, "127.0.0.1", "10.0.0.0/8"), Way::Proxied);
        assert_eq!(of(AuthMode::Off, "::ffff:127.0.0.1", "10.0.0.0/8"), Way::Proxied);
        assert_eq!(of(AuthMode::Off, "10.1.2.3", "10.0.0.0/8"), Way::Proxied);
        assert_eq!(of(AuthMode::Off, "192.0.2.1", "10.0.0.0/8"), Way::Direct);
        assert_eq!(of(AuthMode::Keys, "127.0.0.1", "10.0.0.0/8"), Way::Direct);
        assert_eq!(of(AuthMode::Keys, "10.1.2.3", "10.0.0.0/8"), Way::Direct);
        assert_eq!(of(AuthMode::Header, "10.1.2.3", "10.0.0.0/8"), Way::Direct);
    }

    /// The decision for a request to the host `gw`, where two origins are allowed.
    fn judged(line: &str, headers: &[(&str, &str)]) -> &'static str {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let allowed = ["https://app.example".to_owned(), "null".to_owned()];
        let sent = OriginHeaders { host: Some("gw"), scheme: None, way: Way::Proxied };
        match CorsDecision::judge(&allowed, &sent, &request.body(()).unwrap()) {
            CorsDecision::Same => "same",
            CorsDecision::Allowed(_) => "allowed",
            CorsDecision::Preflight(_) => "preflight",
            CorsDecision::Foreign => "foreign",
        }
    }

    #[test]
    fn what_the_browser_says_of_the_page_goes_over_what_it_looks_like() {
        for (site, origin, expected) in [
            ("same-origin", "", "same"),
            ("same-origin", "http://other:1", "same"),
            ("none", "", "same"),
            ("none", "chrome-extension://x", "foreign"),
            ("", "", "same"),
            ("cross-site", "", "foreign"),
            ("same-site", "", "foreign"),
            ("whatever", "", "foreign"),
            ("cross-site", "http://gw", "foreign"),
            ("same-site", "http://gw:7777", "foreign"),
            ("cross-site", "https://app.example", "allowed"),
            ("cross-site", "null", "allowed"),
        ] {
            let said = [("sec-fetch-site", site), ("origin", origin)];
            assert_eq!(judged("GET /settings", &said), expected, "{site} {origin}");
            assert_eq!(judged("POST /prompt", &said), expected, "{site} {origin}");
        }
        let twice = [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
        assert_eq!(judged("GET /settings", &twice), "foreign");
        let origins = [("origin", "https://app.example"), ("origin", "https://evil.example")];
        assert_eq!(judged("GET /settings", &origins), "foreign");
    }

    #[test]
    fn a_link_to_the_page_and_pictures_of_an_allowed_one_are_let_in() {
        let with = |line: &str, mode: &str, dest: &str, from: &str| {
            let said = [
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
                ("referer", from),
            ];
            judged(line, &said)
        };
        assert_eq!(with("GET /", "navigate", "document", "https://evil.example/"), "same");
        assert_eq!(with("GET /index.html", "navigate", "document", ""), "same");
        for (line, mode, dest) in [
            ("POST /", "navigate", "document"),
            ("GET /", "navigate", "iframe"),
            ("GET /", "no-cors", "script"),
            ("GET /settings", "navigate", "document"),
            ("GET /manager/reboot", "navigate", "document"),
        ] {
            assert_eq!(with(line, mode, dest, ""), "foreign", "{line} {mode} {dest}");
        }
        let ours = "https://app.example/gallery?x=1";
        assert_eq!(with("GET /view?filename=a.png", "no-cors", "image", ours), "same");
        for (line, dest, from) in [
            ("GET /view?filename=a.png", "image", "https://evil.example/https://app.example"),
            ("GET /view?filename=a.png", "image", "https://app.example.evil/"),
            ("GET /view?filename=a.png", "image", ""),
            ("GET /view?filename=a.png", "script", ours),
            ("POST /view?filename=a.png", "image", ours),
        ] {
            assert_eq!(with(line, "no-cors", dest, from), "foreign", "{line} {dest} {from}");
        }
    }
}
