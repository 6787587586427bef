//! The parts of a request that say who sent it.

use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderName, HeaderValue, Request};
use smallvec::SmallVec;

use super::headers::table::is_forwarding;
use super::headers::{CLIENT_ID, COMFY_USER};
use crate::auth::Pass;
use crate::routing::ids::ClientId;
use crate::routing::realm::Realm;
use crate::server::wire::Wire;
use crate::ws;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The parts of a request that say who sent it, unchanged.
#[derive(Debug, Default)]
pub struct IdentityHints<'a> {
    /// The first `comfy-client-id`.
    pub client_id: Option<&'a [u8]>,
    /// The raw path, because the meaning of a query depends on it.
    pub path: &'a str,
    pub query: &'a str,
    /// The request asks for a WebSocket.
    pub is_socket: bool,
    /// `Cookie` and `X-Forwarded-For`, which may come in several lines.
    pub cookies: SmallVec<[&'a [u8]; 1]>,
    pub forwarded: SmallVec<[&'a [u8]; 1]>,
    /// The first `X-Forwarded-Proto`.
    pub scheme: Option<&'a [u8]>,
    /// Some header says that the request was passed on for somebody else. Plain reads do not need
    /// it.
    pub is_passed_on: bool,
    /// `Comfy-User`. Plain reads do not need it.
    pub user: Option<&'a [u8]>,
    /// The user who was let in.
    pub pass: Option<Pass>,
    /// The connection that it came over.
    pub wire: Wire,
}

impl<'a> IdentityHints<'a> {
    #[must_use]
    pub fn of_target(path: &'a str, query: &'a str) -> Self {
        Self { path, query, ..Self::default() }
    }

    #[must_use]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        let headers = request.headers();
        let all = |name| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        Self {
            client_id: headers.get(CLIENT_ID).map(HeaderValue::as_bytes),
            path: request.uri().path(),
            query: request.uri().query().unwrap_or(""),
            is_socket: ws::is_asked(request),
            cookies: all(COOKIE),
            forwarded: all(X_FORWARDED_FOR),
            scheme: headers.get(X_FORWARDED_PROTO).map(HeaderValue::as_bytes),
            is_passed_on: headers.keys().any(|name| says_passed_on(name.as_str())),
            user: headers.get(COMFY_USER).map(HeaderValue::as_bytes),
            pass: request.extensions().get().cloned(),
            wire: Wire::of_request(request),
        }
    }

    /// The realm of clients that it may name.
    #[must_use]
    pub fn realm(&self) -> Realm {
        self.pass.as_ref().map_or(Realm::Everybody, realm_of)
    }

    /// True for the client with this name, of the user who was let in.
    #[must_use]
    pub fn calls(&self, client: &ClientId, name: &str) -> bool {
        let user = self.pass.as_ref().map(|pass| pass.user.name.as_str());
        client.name() == name && client.user() == user
    }
}

/// The realm of the user who was let in.
#[must_use]
pub fn realm_of(pass: &Pass) -> Realm {
    Realm::User(Arc::clone(pass.user.name.shared()))
}

/// True for a header that a proxy adds when it passes a request on.
fn says_passed_on(name: &str) -> bool {
    is_forwarding(name) || name == "via"
}
