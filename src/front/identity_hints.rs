//! What in a request says who sent it.

use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderName, HeaderValue, Request};
use smallvec::SmallVec;

use super::headers::CLIENT_ID;
use super::headers::table::is_forwarding;
use crate::auth::Pass;
use crate::routing::ids::ClientId;
use crate::routing::realm::Realm;
use crate::server::wire::Wire;
use crate::ws;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The user that a page works as, on servers with several (ComfyUI `--multi-user`).
const COMFY_USER: HeaderName = HeaderName::from_static("comfy-user");

/// What in a request says who sent it, as it came.
#[derive(Debug, Default)]
pub struct IdentityHints<'a> {
    /// The first `comfy-client-id`.
    pub client_id: Option<&'a [u8]>,
    /// The raw path: what a query means depends on it.
    pub path: &'a str,
    pub query: &'a str,
    /// It asks for a WebSocket.
    pub is_socket: bool,
    /// `Cookie` and `X-Forwarded-For`, which may come in several lines.
    pub cookies: SmallVec<[&'a [u8]; 1]>,
    pub forwarded: SmallVec<[&'a [u8]; 1]>,
    /// The first `X-Forwarded-Proto`.
    pub scheme: Option<&'a [u8]>,
    /// Something says that it was passed on for somebody, in whatever header. Reads that are only
    /// passed on do not need it either.
    pub is_passed_on: bool,
    /// `Comfy-User`. Reads that are only passed on do not need it.
    pub user: Option<&'a [u8]>,
    /// Who was let in.
    pub pass: Option<Pass>,
    /// What it came over.
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

    /// Whose clients it may name.
    #[must_use]
    pub fn realm(&self) -> Realm {
        self.pass.as_ref().map_or(Realm::Everybody, realm_of)
    }

    /// True for the client that is called so by whoever was let in.
    #[must_use]
    pub fn calls(&self, client: &ClientId, name: &str) -> bool {
        let user = self.pass.as_ref().map(|pass| pass.user.name.as_str());
        client.name() == name && client.user() == user
    }
}

/// Of the user who was let in.
#[must_use]
pub fn realm_of(pass: &Pass) -> Realm {
    Realm::User(Arc::clone(pass.user.name.shared()))
}

/// True for a header that a proxy adds which passes a request on.
fn says_passed_on(name: &str) -> bool {
    is_forwarding(name) || name == "via"
}
