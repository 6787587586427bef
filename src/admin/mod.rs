//! The admin listener: health, metrics and the API.

pub(crate) mod api;
mod audited;
mod backends;
mod reload;
mod scaling;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use tower::Service as _;

use crate::audit::{Entry, Who};
use crate::body::ResponseBody;
use crate::config::ServerConfig;
use crate::reload::Reloads;
use crate::server::{ConnectionEvent, ConnectionLimits, NoPassthrough, Refusal, Service};
use crate::session::Sessions;

/// Answers operators.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    sessions: Arc<Sessions>,
    router: Router,
}

impl Admin {
    #[must_use]
    pub(crate) fn new(sessions: Arc<Sessions>, reloads: Reloads) -> Self {
        let router = api::router(Arc::clone(&sessions))
            .merge(backends::router(Arc::clone(&sessions)))
            .merge(scaling::router(Arc::clone(&sessions)))
            .merge(reload::router(reloads));
        Self { router, sessions }
    }
}

/// Where a request to the admin listener came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub IpAddr);

impl Service for Admin {
    type Passthrough = NoPassthrough;

    async fn answer(&self, peer: IpAddr, mut request: Request<Incoming>) -> Response<ResponseBody> {
        if let Some(refusal) = refuse(&self.sessions, &request) {
            let status = refusal.status();
            self.sessions.shared.audit.note_refusal(|| {
                let who = Who::at(peer);
                Entry::refused(who, "listener.refused", Value::Null, &status.to_string())
            });
            return refusal;
        }
        request.extensions_mut().insert(Peer(peer));
        let mut router = self.router.clone();
        let Ok(response) = router.call(request.map(Body::new)).await;
        collected(response).await
    }

    fn refused(&self, refused: Refusal, _: &[u8]) -> Response<ResponseBody> {
        refusal(refused.status(), &refused.to_string())
    }

    fn passthrough(&self, _: IpAddr, _: ConnectionLimits) -> Option<NoPassthrough> {
        None
    }

    fn is_leaving(&self) -> bool {
        // A client that watches the drain keeps its connection.
        false
    }

    fn note(&self, event: ConnectionEvent) {
        match event {
            // There are few operators. Only the connections of the front are counted.
            ConnectionEvent::Open(_) | ConnectionEvent::Refused => {}
            ConnectionEvent::Panicked => {
                self.sessions.shared.metrics.panics.inc();
            }
        }
    }
}

/// Answers are small here, so each is collected before it is sent.
async fn collected(response: Response<Body>) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let is_json = parts.headers.get(CONTENT_TYPE).is_some_and(|it| it == "application/json");
    if !parts.status.is_client_error() || is_json {
        return Response::from_parts(parts, ResponseBody::whole(bytes));
    }
    // Gives the errors of the router and its extractors the form of every other error.
    let message = match String::from_utf8_lossy(&bytes) {
        none if none.is_empty() => parts.status.canonical_reason().unwrap_or_default().into(),
        message => message,
    };
    let mut answer = refusal(parts.status, &message);
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(CONTENT_TYPE);
    answer.headers_mut().extend(parts.headers);
    answer
}

/// Refuses web pages, and requests without the token if one is configured. A page of any origin
/// could otherwise call a loopback port, and DNS rebinding gives a page the gateway's own origin.
/// Health is open to everybody, because a kubelet has no token.
fn refuse<B>(sessions: &Sessions, request: &Request<B>) -> Option<Response<ResponseBody>> {
    let headers = request.headers();
    // A picture in a page has no `Origin`. But browsers report the origin of each request (Fetch
    // Metadata). It is `none` if somebody typed the address.
    let is_of_page = headers.get("sec-fetch-site").is_some_and(|site| site != "none");
    if headers.contains_key(ORIGIN) || is_of_page {
        return Some(refusal(StatusCode::FORBIDDEN, "pages may not use the admin listener"));
    }
    let is_open = matches!(request.uri().path(), "/livez" | "/readyz");
    let config = sessions.shared.config();
    let Some(token) = &config.admin.token else {
        // RFC 9110 section 15.5.20. With a token this is not needed, because no foreign page has
        // the token.
        let message = "without a token, the admin listener accepts only a loopback name, an \
                       address, or a name that is listed whole in server.hosts";
        let refused = || refusal(StatusCode::MISDIRECTED_REQUEST, message);
        return (!is_for_us(&config.server, request)).then(refused);
    };
    if is_open || has_token(headers, token.reveal()) {
        return None;
    }
    let mut response = refusal(StatusCode::UNAUTHORIZED, "a bearer token is needed");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Some(response)
}

/// True for a name of the gateway, and for no name: a client that sends none is not a browser.
fn is_for_us<B>(server: &ServerConfig, request: &Request<B>) -> bool {
    let named = || request.uri().authority().map(|it| it.as_str().as_bytes());
    let host = request.headers().get(HOST).map(HeaderValue::as_bytes).or_else(named);
    host.is_none_or(|host| server.is_called_exactly(host))
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

fn refusal(status: StatusCode, message: &str) -> Response<ResponseBody> {
    let body = serde_json::json!({ "error": message }).to_string();
    let mut response = Response::new(ResponseBody::whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
