//! Pages of other origins (promise R10): refused on every route, unless they are allowed, and
//! then they get what the browser needs to let them read the answers.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HOST, HeaderMap, ORIGIN, VARY,
};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};

use crate::body::ResponseBody;
use crate::gateway::Gateway;

/// What the `Origin` of a request makes of it.
#[derive(Clone, Debug)]
pub enum Asker {
    /// No page at all, or a page of this very host.
    Same,
    /// A page that the operator allows.
    Allowed(HeaderValue),
    /// An allowed page's browser asks whether it may.
    Preflight(HeaderValue),
    Foreign,
}

impl Asker {
    #[must_use]
    pub fn of<B>(gateway: &Gateway, request: &Request<B>) -> Self {
        let headers = request.headers();
        let Some(origin) = headers.get(ORIGIN) else { return Self::Same };
        let allowed = &gateway.config.server.allowed_origins;
        if allowed.iter().any(|allowed| origin == allowed.as_str()) {
            let is_preflight = request.method() == Method::OPTIONS
                && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
            let origin = origin.clone();
            return if is_preflight { Self::Preflight(origin) } else { Self::Allowed(origin) };
        }
        if is_own_host(origin, headers, request.uri()) { Self::Same } else { Self::Foreign }
    }
}

/// True if the origin's host and port are those that the request was sent to. An `Origin: null`
/// (a sandboxed page, a local file) never is.
fn is_own_host(origin: &HeaderValue, headers: &HeaderMap, target: &Uri) -> bool {
    let Some((scheme, origin)) = origin.to_str().ok().and_then(|text| text.split_once("://"))
    else {
        return false;
    };
    // A proxy in front may end TLS, so the origin's own scheme gives the default port of both.
    let default_port = if scheme == "https" { 443 } else { 80 };
    let parse = |text: &str| {
        let authority: Authority = text.parse().ok()?;
        let host = authority.host().to_ascii_lowercase();
        Some((host, authority.port_u16().unwrap_or(default_port)))
    };
    let host = target
        .authority()
        .map(Authority::as_str)
        .or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    match (parse(origin), host.and_then(parse)) {
        (Some(origin), Some(host)) => origin == host,
        (_, _) => false,
    }
}

/// Answers a preflight (Fetch standard, "CORS-preflight request").
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
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Lets an allowed page read the answer.
pub fn allow(response: &mut Response<ResponseBody>, origin: &HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "mooring-backend, mooring-placement, mooring-error, mooring-missing",
        ),
    );
    headers.append(VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(origin: &'static str, host: &'static str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        let origin = HeaderValue::from_static(origin);
        assert_eq!(is_own_host(&origin, &headers, &Uri::from_static("/")), expected);
    }

    #[test]
    fn the_own_host_is_compared_with_its_port() {
        check("http://gw:8180", "gw:8180", true);
        check("http://GW:8180", "gw:8180", true);
        check("http://gw", "gw:80", true);
        check("https://gw", "gw", true);
        check("http://gw:8181", "gw:8180", false);
        check("http://evil", "gw:8180", false);
        check("null", "gw:8180", false);
        check("http://gw:8180@evil", "gw:8180", false);
    }
}
