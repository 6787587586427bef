//! The operator's door: a listener of its own, with health, metrics and the API.

pub mod api;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tower::Service as _;

use crate::body::ResponseBody;
use crate::gateway::Gateway;
use crate::server::Service;

/// Answers operators.
#[derive(Clone, Debug)]
pub struct Admin {
    gateway: Arc<Gateway>,
    router: Router,
}

impl Admin {
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { router: api::router(Arc::clone(&gateway)), gateway }
    }
}

impl Service for Admin {
    async fn answer(&self, _peer: IpAddr, request: Request<Incoming>) -> Response<ResponseBody> {
        if let Some(refusal) = refuse(&self.gateway, &request) {
            return refusal;
        }
        let mut router = self.router.clone();
        let Ok(response) = router.call(request.map(Body::new)).await;
        collected(response).await
    }
}

/// Answers here are small, so they are passed on whole.
async fn collected(response: Response<Body>) -> Response<ResponseBody> {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    Response::from_parts(parts, ResponseBody::whole(bytes))
}

/// Refuses web pages (a page of any origin could call a loopback port) and, where a token is
/// configured, whoever lacks it. Health is told to everybody: a kubelet has no token.
fn refuse<B>(gateway: &Gateway, request: &Request<B>) -> Option<Response<ResponseBody>> {
    let headers = request.headers();
    let is_from_page = headers.contains_key(ORIGIN) || !is_plain_host(headers);
    if is_from_page {
        return Some(refusal(StatusCode::FORBIDDEN, "pages may not use the admin listener"));
    }
    let is_open = matches!(request.uri().path(), "/livez" | "/readyz");
    let token = gateway.config.admin.token.as_ref()?;
    if is_open || has_token(headers, token.reveal()) {
        return None;
    }
    let mut response = refusal(StatusCode::UNAUTHORIZED, "a bearer token is needed");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Some(response)
}

/// A name in `Host` that is neither an address nor local may be a rebound DNS name.
fn is_plain_host(headers: &HeaderMap) -> bool {
    // Only one thing sends no Host: a hand-written request.
    headers.get(HOST).is_none_or(|host| !host.as_bytes().is_empty())
}

/// Compares in constant time: how much of a guess was right must not show.
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
