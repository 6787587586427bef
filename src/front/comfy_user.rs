//! Says to servers who a user is (`auth.comfy_user`): the header `Comfy-User`, by which ComfyUI
//! with `--multi-user` keeps settings, workflows and assets of several users.
//!
//! Where users are required, a client cannot set this header: it is removed from its requests. Each
//! server has ids of its own, so the header is added only when it is known where a request goes.
//! Until then the request carries the name ([`SentFor`]).

use std::sync::Arc;

use http::header::HeaderMap;
use http::{Extensions, HeaderValue, Method, Request};

use super::error::{Closed, GatewayError};
use super::forward::Target;
use super::headers::COMFY_USER;
use super::{Answer, json};
use crate::auth::Pass;
use crate::body::RequestBody;
use crate::comfy::users;
use crate::config::{AuthConfig, OnOff};
use crate::fleet::backend::Backend;
use crate::fleet::user_ids::{NoUserId, UserId};
use crate::shared::Shared;

/// For whom a request is sent: the name of a user. It is an extension of the request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SentFor(Arc<str>);

impl SentFor {
    /// For a prompt of this user that was submitted before; `None` if servers are not told.
    #[must_use]
    pub(super) fn later(config: &AuthConfig, user: &str) -> Option<Self> {
        match config.comfy_user {
            OnOff::On => Some(Self(user.into())),
            OnOff::Off => None,
        }
    }

    #[must_use]
    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// The same for another request.
    pub(super) fn copy(from: &Extensions, to: &mut Extensions) {
        if let Some(sent_for) = from.get::<Self>() {
            to.insert(sent_for.clone());
        }
    }
}

/// Removes what a client says of itself, and notes for whom its requests are sent.
pub(super) fn enter<B>(config: &AuthConfig, pass: &Pass, request: &mut Request<B>) {
    // With it, one user would act as another on a server with several.
    request.headers_mut().remove(COMFY_USER);
    match config.comfy_user {
        OnOff::On => {
            let name = Arc::clone(pass.user.name.shared());
            request.extensions_mut().insert(SentFor(name));
        }
        OnOff::Off => {}
    }
}

/// Adds what the server calls the user. The server is asked if that is not known.
///
/// # Errors
/// The server did not say it, and did not make the user.
pub(super) async fn tell(
    shared: &Shared,
    backend: &Backend,
    request: &mut Request<RequestBody>,
) -> Result<(), GatewayError> {
    let Some(SentFor(name)) = request.extensions_mut().remove() else { return Ok(()) };
    let limit = shared.config().fleet.probe_timeout;
    let id = backend.user_id(&name, limit).await.map_err(|error| no_user(backend, error))?;
    put(id, request.headers_mut());
    Ok(())
}

/// What a server is told of a user.
pub(super) fn put(id: UserId, headers: &mut HeaderMap) {
    match id {
        UserId::Is(id) => {
            headers.insert(COMFY_USER, id);
        }
        UserId::None => {}
    }
}

/// The target of a plain read, and what it is told of the sender.
///
/// # Errors
/// There is no target, or it must be asked first, which hyper's way does.
pub(super) fn known(
    config: &AuthConfig,
    target: Result<Target, GatewayError>,
    pass: Option<&Pass>,
) -> Result<(Target, Option<HeaderValue>), GatewayError> {
    let target = target?;
    let Some(pass) = pass.filter(|_| config.comfy_user == OnOff::On) else {
        return Ok((target, None));
    };
    match target.backend.known_user_id(pass.user.name.as_str()) {
        Some(UserId::Is(id)) => Ok((target, Some(id))),
        Some(UserId::None) => Ok((target, None)),
        None => Err(no_user(&target.backend, NoUserId::NotRead)),
    }
}

/// The error for a user whom a backend does not know.
pub(super) fn no_user(backend: &Backend, source: NoUserId) -> GatewayError {
    GatewayError::NoUserThere { backend: backend.name().to_string(), source }
}

/// `/users` for a user. The page asks it first. With the names of others it would ask the person
/// who he is, and send what he says; he is known already.
///
/// # Errors
/// Nobody makes users of servers.
pub(super) fn users(method: &Method) -> Answer {
    match *method {
        Method::GET | Method::HEAD => Ok(json(users::SINGLE)),
        _ => Err(GatewayError::Closed(Closed::Users)),
    }
}
